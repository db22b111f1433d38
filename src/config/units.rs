//! Prometheus' two value grammars: durations (`1h30m`) and sizes (`256MB`), to the letter.
//!
//! Pure text to number; an error is the rule that was broken, without the value.

use std::time::Duration;

/// Units of a duration in the order they must come in, in milliseconds
/// (`prometheus/common` `model.ParseDuration`; a year is 365 days, a week seven).
const DURATION_UNITS: [(&str, u64); 7] = [
    ("y", 365 * 24 * 3_600_000),
    ("w", 7 * 24 * 3_600_000),
    ("d", 24 * 3_600_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// The longest duration: what fits 64-bit nanoseconds, as in Prometheus.
const MAX_DURATION_MILLIS: u64 = i64::MAX.unsigned_abs() / 1_000_000;

/// Units of a size as powers of two, with or without `i` (Prometheus' configuration documentation, `<size>`).
const SIZE_UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];

const DURATION_RULE: &str =
    "not a duration; write whole numbers with units from large to small, such as 30s, 5m or 1h30m";
const SIZE_RULE: &str =
    "not a size; write a whole number with a unit, such as 64MiB or 1GB (both count in powers of two)";

/// A duration: `y`, `w`, `d`, `h`, `m`, `s`, `ms` in this order, each at most once, or a bare `0`.
///
/// # Errors
/// The rule that was broken.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("a duration needs a unit, such as {}s", super::problem::shortened(text)));
    }
    let (mut rest, mut millis, mut next_unit) = (text, 0_u64, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let unit = &tail[..tail.bytes().take_while(u8::is_ascii_lowercase).count()];
        let position = DURATION_UNITS[next_unit..].iter().position(|(name, _)| *name == unit);
        let (Some(position), false) = (position, number.is_empty()) else {
            return Err(DURATION_RULE.to_owned());
        };
        let unit_millis = DURATION_UNITS[next_unit + position].1;
        let part = number.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_millis));
        let sum = part.and_then(|part| millis.checked_add(part)).filter(|sum| *sum <= MAX_DURATION_MILLIS);
        millis = sum.ok_or("a duration is at most 292 years")?;
        next_unit += position + 1;
        rest = &tail[unit.len()..];
    }
    if text.is_empty() { Err(DURATION_RULE.to_owned()) } else { Ok(Duration::from_millis(millis)) }
}

/// A size in bytes: a whole number with `B`, `KB` or `KiB` (2^10), `MB` or `MiB` (2^20) and so on; a bare number is bytes.
///
/// # Errors
/// The rule that was broken.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let prefix = unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B')).unwrap_or(unit);
    let known = SIZE_UNITS.iter().zip(0_u32..).find(|(name, _)| **name == prefix);
    let bare_prefix = !prefix.is_empty() && prefix == unit;
    let (Some((_, power)), false, false) = (known, number.is_empty(), bare_prefix || unit == "iB") else {
        return Err(SIZE_RULE.to_owned());
    };
    let bytes = number.parse::<u64>().ok().and_then(|count| count.checked_mul(1_u64.checked_shl(10 * power)?));
    bytes.ok_or_else(|| "a size is less than 16EiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_prometheus_durations() {
        let table = [
            ("0", 0),
            ("0s", 0),
            ("15s", 15_000),
            ("1h30m", 5_400_000),
            ("1y2w3d4h5m6s7ms", 31_536_000_000 + 1_209_600_000 + 259_200_000 + 14_400_000 + 300_000 + 6_000 + 7),
            ("90m", 5_400_000),
            ("100ms", 100),
        ];
        for (text, millis) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        for text in ["", "s", "1x", "1m1h", "1s1s", "-1s", "1.5h", "1 s", " 1s", "1S", "1h30", "∞"] {
            assert_eq!(duration(text), Err(DURATION_RULE.to_owned()), "{text:?}");
        }
        assert_eq!(duration("30"), Err("a duration needs a unit, such as 30s".to_owned()));
        for text in ["293y", "99999999999999999999s", "18446744073709551615ms"] {
            assert_eq!(duration(text), Err("a duration is at most 292 years".to_owned()), "{text}");
        }
    }

    #[test]
    fn sizes_count_in_powers_of_two_with_and_without_i() {
        let table =
            [("0", 0), ("512", 512), ("512B", 512), ("1KB", 1 << 10), ("256MB", 256 << 20), ("256MiB", 256 << 20)];
        for (text, bytes) in table {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("15EB"), Ok(15 << 60));
    }

    #[test]
    fn what_is_no_size_says_why() {
        for text in ["", "MB", "1.5GB", "1 MB", "1mb", "1M", "1iB", "-1", "1GB512MB", "1XB"] {
            assert_eq!(size(text), Err(SIZE_RULE.to_owned()), "{text:?}");
        }
        assert_eq!(size("16EB"), Err("a size is less than 16EiB".to_owned()));
        assert!(size("99999999999999999999").is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9a-zA-Zµ. ]{0,40}") {
            let _ignored = (duration(&text), size(&text));
        }
    }
}
