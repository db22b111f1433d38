//! Numbers, ages and tables as people read them. Pure.

use std::time::Duration;

use crate::model::Timestamp;

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 segment`, `2 segments`.
pub(super) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// `3.2 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1023.95 && unit + 1 < units.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", units[unit])
}

/// The two largest units: `3d 4h`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [("d", seconds / 86_400), ("h", seconds / 3600 % 24), ("m", seconds / 60 % 60), ("s", seconds % 60)];
    let Some(first) = parts.iter().position(|(_, amount)| *amount > 0) else {
        return format!("{}ms", duration.subsec_millis());
    };
    let shown: Vec<String> = parts[first..]
        .iter()
        .take(2)
        .filter(|(_, amount)| *amount > 0)
        .map(|(unit, amount)| format!("{amount}{unit}"))
        .collect();
    shown.join(" ")
}

/// How long ago, or that it lies ahead.
pub(super) fn ago(at: Timestamp, now: Timestamp) -> String {
    if at > now { format!("{} ahead", duration(at.since(now))) } else { format!("{} ago", duration(now.since(at))) }
}

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table with a line of headings; columns are as wide as they must be.
pub(super) fn table(headings: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].0.len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let titles: Vec<String> = headings.iter().map(|(title, _)| (*title).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&titles).chain(rows) {
        let mut line = String::new();
        for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(headings) {
            let space = " ".repeat(width.saturating_sub(cell.chars().count()));
            match align {
                Align::Left => line.extend([cell.as_str(), &space]),
                Align::Right => line.extend([space.as_str(), cell]),
            }
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([count(0), count(999), count(1000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [bytes(1023), bytes(1024), bytes(1 << 20), bytes(u64::MAX)],
            ["1023 B", "1.0 KiB", "1.0 MiB", "16.0 EiB"]
        );
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB", "never 1024.0 KiB");
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        let of = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([of(59), of(60), of(3725), of(86_400 * 3 + 7)], ["59s", "1m", "1h 2m", "3d"]);
        assert_eq!(duration(Duration::from_millis(20)), "20ms");
        let at = Timestamp::from_millis;
        assert_eq!([ago(at(0), at(61_000)), ago(at(61_000), at(0))], ["1m 1s ago", "1m 1s ahead"]);
    }

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let text = table(
            &[("NAME", Align::Left), ("N", Align::Right)],
            &[vec!["a".into(), "10".into()], vec!["long-é".into(), "7".into()]],
        );
        assert_eq!(text, "NAME     N\na       10\nlong-é   7\n");
    }
}
