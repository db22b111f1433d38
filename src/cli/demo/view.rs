//! What the demo shows: a pure picture of a scene, as lines of text.
//!
//! Knows nothing of terminals but their size; everything it says was read from the snapshot, the buffer's ledger and the
//! receiver's own count, never computed ahead of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::model::Snapshot;

/// Everything one picture is drawn from.
pub(super) struct Scene<'a> {
    /// Which engine, in words.
    pub(super) engine: &'a str,
    /// The last value of all that lives.
    pub(super) present: &'a Snapshot,
    /// Whether the line to the receiver is up.
    pub(super) line_up: bool,
    /// In samples.
    pub(super) appended: u64,
    /// In samples.
    pub(super) delivered: u64,
    /// In samples.
    pub(super) backlog: u64,
    /// What the receiver says it got.
    pub(super) received: Received,
}

/// The receiver's own count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// Samples decoded.
    pub(super) samples: u64,
    /// Ticks seen, by outhaul's own tick counter.
    pub(super) ticks: u64,
    /// Ticks that are missing between the first and the newest one seen.
    pub(super) gaps: u64,
}

/// One container as the table shows it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    state: &'static str,
    health: &'static str,
    restarts: Option<f64>,
    exits: f64,
    exit_code: Option<f64>,
}

/// One line for a log: where nobody looks at a screen.
pub(super) fn line(scene: &Scene) -> String {
    let rows = rows(scene.present);
    let running = rows.values().filter(|row| row.state == "running").count();
    format!(
        "{} containers ({running} running){}, line {}, appended {}, delivered {}, backlog {}, received {} ({} ticks, {} missing)",
        rows.len(),
        if engine_answers(scene.present) { "" } else { ", engine does not answer" },
        if scene.line_up { "up" } else { "cut" },
        scene.appended,
        scene.delivered,
        scene.backlog,
        scene.received.samples,
        scene.received.ticks,
        scene.received.gaps,
    )
}

/// The whole screen, `height` lines of at most `width` characters.
pub(super) fn screen(scene: &Scene, width: usize, height: usize) -> Vec<String> {
    let mut lines = vec![
        format!(
            "outhaul demo · {}{}",
            scene.engine,
            if engine_answers(scene.present) { "" } else { " · DOES NOT ANSWER" }
        ),
        String::new(),
        format!(
            "line to the receiver   {}",
            if scene.line_up { "up" } else { "CUT: what is sampled now waits on disk" }
        ),
        format!("samples taken          {:>10}", scene.appended),
        format!("samples delivered      {:>10}", scene.delivered),
        format!("backlog                {:>10}  {}", scene.backlog, bar(scene.backlog, scene.appended)),
        format!(
            "receiver counted       {:>10}  in {} ticks, {} missing",
            scene.received.samples, scene.received.ticks, scene.received.gaps
        ),
        String::new(),
        format!(
            "{:<28} {:<11} {:<10} {:>8} {:>6} {:>9}",
            "CONTAINER", "STATE", "HEALTH", "RESTARTS", "EXITS", "LAST EXIT"
        ),
    ];
    let footer = if scene.line_up { "c cuts the line · q quits" } else { "c mends the line · q quits" };
    let rows = rows(scene.present);
    let room = height.saturating_sub(lines.len() + 2);
    let hidden = rows.len().saturating_sub(room);
    // Trouble first: that is what one looks for when not everything fits.
    let (trouble, well): (Vec<_>, Vec<_>) =
        rows.iter().partition(|(_, row)| row.state != "running" || row.health == "unhealthy");
    lines.extend(trouble.into_iter().chain(well).take(room).map(|(name, row)| table_line(name, row)));
    lines.push(if hidden > 0 { format!("… and {hidden} more") } else { String::new() });
    lines.push(footer.to_owned());
    lines.iter().map(|line| line.chars().take(width).collect()).collect()
}

fn table_line(name: &str, row: &Row) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"));
    let mut line = String::new();
    let name: String = name.chars().take(28).collect();
    // Writing to a String cannot fail.
    write!(
        line,
        "{name:<28} {:<11} {:<10} {:>8} {:>6.0} {:>9}",
        row.state,
        row.health,
        number(row.restarts),
        row.exits,
        number(row.exit_code)
    )
    .unwrap_or_default();
    line
}

/// Twenty cells: how much of what was taken still waits.
fn bar(part: u64, whole: u64) -> String {
    const CELLS: u64 = 20;
    let filled = (part * CELLS).div_ceil(whole.max(1)).min(CELLS);
    (0..CELLS).map(|cell| if cell < filled { '█' } else { '·' }).collect()
}

/// Whether the engine told its containers at the last tick; before the first one nobody knows.
fn engine_answers(present: &Snapshot) -> bool {
    let up = present.samples.iter().find(|sample| sample.series.labels().metric_name() == "outhaul_source_up");
    up.is_none_or(|up| up.value.number() > 0.0)
}

/// The containers of a snapshot by name. Codes are those of the metric contract (`container_state`, `container_health`).
fn rows(present: &Snapshot) -> BTreeMap<&str, Row> {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for sample in &present.samples {
        let labels = sample.series.labels();
        let Some(name) = labels.get("name") else { continue };
        let value = sample.value.number();
        let row = rows.entry(name).or_default();
        match labels.metric_name() {
            "container_state" => row.state = state_word(value),
            "container_health" => row.health = health_word(value),
            "container_restart_count" => row.restarts = Some(value),
            "container_exits_total" => row.exits += value,
            "container_last_exit_code" => row.exit_code = Some(value),
            _ => {}
        }
    }
    // A name with counters only is a container that is gone.
    rows.retain(|_, row| !row.state.is_empty());
    rows
}

fn state_word(code: f64) -> &'static str {
    const WORDS: [&str; 7] = ["exited", "running", "paused", "created", "restarting", "dead", "unknown"];
    word(&WORDS, code).unwrap_or("unknown")
}

fn health_word(code: f64) -> &'static str {
    const WORDS: [&str; 4] = ["-", "healthy", "unhealthy", "starting"];
    word(&WORDS, code).unwrap_or("-")
}

/// The word with the number `code`.
fn word(words: &[&'static str], code: f64) -> Option<&'static str> {
    words.iter().zip(0u8..).find(|(_, number)| f64::from(*number).total_cmp(&code).is_eq()).map(|(word, _)| *word)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Metadata, MetricKind, Sample, Series, Target, Timestamp, Value};

    fn snapshot(samples: &[(&str, &str, f64)]) -> Snapshot {
        let metadata = Arc::new(Metadata::of("x", MetricKind::Gauge, ""));
        let sample = |(metric, name, value): &(&str, &str, f64)| {
            let labels = Target::new("h").series(metric).with("name", *name).build().unwrap();
            Sample::new(Arc::new(Series::new(labels, metadata.clone())), Value::new(*value))
        };
        Snapshot::new(Timestamp::from_millis(0), samples.iter().map(sample).collect())
    }

    fn scene(present: &Snapshot, line_up: bool, backlog: u64) -> Scene<'_> {
        let received = Received { samples: 90, ticks: 3, gaps: 0 };
        Scene { engine: "Docker 20.10", present, line_up, appended: 100, delivered: 100 - backlog, backlog, received }
    }

    #[test]
    fn every_container_has_a_line_with_its_words_and_one_that_is_gone_has_none() {
        let present = snapshot(&[
            ("container_state", "till", 1.0),
            ("container_health", "till", 2.0),
            ("container_restart_count", "till", 4.0),
            ("container_exits_total", "till", 3.0),
            ("container_exits_total", "gone", 3.0),
        ]);
        let lines = screen(&scene(&present, true, 0), 100, 30);
        let table: Vec<&String> = lines.iter().filter(|line| line.contains("till") || line.contains("gone")).collect();
        assert_eq!(table.len(), 1, "{lines:?}");
        assert_eq!(table[0].split_whitespace().collect::<Vec<_>>(), ["till", "running", "unhealthy", "4", "3", "-"]);
    }

    #[test]
    fn a_cut_line_and_the_backlog_are_seen_at_once() {
        let present = snapshot(&[]);
        let text = screen(&scene(&present, false, 10), 100, 30).join("\n");
        assert!(text.contains("CUT") && text.contains("c mends the line"), "{text}");
        assert!(text.contains("██·"), "{text}");
        assert!(line(&scene(&present, false, 10)).contains("line cut, appended 100, delivered 90, backlog 10"));
    }

    #[test]
    fn a_picture_fits_the_screen_it_is_drawn_for() {
        let names: Vec<String> = (0..50).map(|n| format!("container-{n}")).collect();
        let samples: Vec<(&str, &str, f64)> =
            names.iter().map(|name| ("container_state", name.as_str(), 1.0)).collect();
        let present = snapshot(&samples);
        for (width, height) in [(80, 24), (20, 12), (200, 100)] {
            let lines = screen(&scene(&present, true, 0), width, height);
            assert!(lines.len() <= height, "{} lines on {height}", lines.len());
            assert!(lines.iter().all(|line| line.chars().count() <= width));
        }
        assert!(screen(&scene(&present, true, 0), 80, 24).join("\n").contains("… and 37 more"));
    }
}
