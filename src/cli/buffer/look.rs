//! `buffer status` and `ls`: look, and change nothing.

use std::time::Duration;

use serde_json::{Value, json};

use super::Place;
use super::text::{Align, ago, bytes, count, counted, duration, table};
use crate::buffer::inspect::{Holder, Inspection, OtherKind, SegmentView};
use crate::buffer::{EndpointStatus, Ledger};
use crate::cli::{Exit, say};
use crate::clock::Clock;
use crate::model::Timestamp;

pub(super) const STATUS_HELP: &str = "Takes no lock and writes nothing: safe while an agent runs.

For each endpoint: appended = delivered + refused + expired + unchanged + filtered + evicted + corrupt + pending, always.

Examples:
  outhaul buffer status
  outhaul buffer status --path /var/lib/outhaul --json | jq '.endpoints[] | {name, pending: .ledger.pending}'

Exit codes: 0 fine, 64 usage or configuration, 73 there is no buffer or it cannot be read.";

pub(super) fn status(place: &Place) -> Result<Exit, Exit> {
    let found = place.find()?;
    let inspection = found.inspect()?;
    let status = Overview::new(&inspection, found.max_bytes());
    if place.json {
        say(&status.json())?;
    } else {
        say(&status.text(Clock::system().now()).trim_end())?;
    }
    Ok(Exit::Fine)
}

/// What `status` tells besides the inspection.
struct Overview<'a> {
    buffer: &'a Inspection,
    max_bytes: Option<u64>,
    /// At the rate at which what is there came.
    full_in: Option<Duration>,
}

impl<'a> Overview<'a> {
    fn new(buffer: &'a Inspection, max_bytes: Option<u64>) -> Self {
        Self { buffer, max_bytes, full_in: max_bytes.and_then(|max_bytes| full_in(buffer, max_bytes)) }
    }

    fn first_to_go(&self) -> Option<(&SegmentView, Vec<&EndpointStatus>)> {
        let segment = self.buffer.segments.first()?;
        let waiting = self.buffer.endpoints.iter().filter(|endpoint| endpoint.acked.number() < segment.positions.1);
        Some((segment, waiting.collect()))
    }

    fn json(&self) -> Value {
        let buffer = self.buffer;
        json!({
            "path": buffer.path,
            "store_id": buffer.store_id(),
            "holder": holder_json(buffer.holder),
            "closed": buffer.was_closed,
            "used_bytes": buffer.used_bytes,
            "max_bytes": self.max_bytes,
            "free_bytes": buffer.free_bytes,
            "full_in_seconds": self.full_in.map(|full_in| full_in.as_secs()),
            "segments": buffer.segments.len(),
            "records": records(buffer),
            "samples": buffer.segments.iter().map(|segment| segment.samples).sum::<u64>(),
            "lost_samples": buffer.segments.iter().map(|segment| segment.lost_samples).sum::<u64>(),
            "first_position": buffer.segments.first().map(|segment| segment.positions.0),
            "last_position": buffer.tail.map(crate::buffer::Position::number),
            "first_at_ms": first_at(buffer).map(Timestamp::millis),
            "newest_at_ms": buffer.last_at.map(Timestamp::millis),
            "first_to_go": self.first_to_go().map(|(segment, waiting)| json!({
                "segment": segment.name,
                "bytes": segment.bytes,
                "samples": segment.samples,
                "waiting_endpoints": waiting.iter().map(|endpoint| &endpoint.name).collect::<Vec<_>>(),
            })),
            "endpoints": buffer.endpoints.iter().map(endpoint_json).collect::<Vec<_>>(),
        })
    }

    fn text(&self, now: Timestamp) -> String {
        let buffer = self.buffer;
        let mut lines = vec![format!("buffer {}", buffer.path.display())];
        let mut line = |name: &str, value: String| lines.push(format!("  {name:<12} {value}"));
        line("used by", holder_words(buffer));
        let bound = self.max_bytes.map_or_else(
            || ", bound not known without the configuration".to_owned(),
            |max| format!(" of {} ({} %)", bytes(max), buffer.used_bytes * 100 / max.max(1)),
        );
        let free =
            buffer.free_bytes.map_or_else(String::new, |free| format!("; {} free on the file system", bytes(free)));
        line("size", format!("{}{bound}{free}", bytes(buffer.used_bytes)));
        line("holds", holds(buffer, now));
        if let Some(full_in) = self.full_in {
            line("full in", format!("about {} at the rate so far, if nothing is delivered", duration(full_in)));
        }
        if let Some((segment, waiting)) = self.first_to_go() {
            let names: Vec<&str> = waiting.iter().map(|endpoint| endpoint.name.as_str()).collect();
            let for_whom = if names.is_empty() {
                "nobody waits for it".to_owned()
            } else {
                format!("wanted by {}", names.join(", "))
            };
            let (size, samples) = (bytes(segment.bytes), count(segment.samples));
            line(
                "first to go",
                format!("{}: {size}, {samples} samples, until {}; {for_whom}", segment.name, segment.instants.1),
            );
        }
        let quarantined = buffer.others.iter().find(|other| other.kind == OtherKind::Quarantine && other.bytes > 0);
        if let Some(quarantine) = quarantined {
            line(
                "quarantine",
                format!("{} of refused samples; see `outhaul buffer quarantine ls`", bytes(quarantine.bytes)),
            );
        }
        lines.push(String::new());
        if buffer.endpoints.is_empty() {
            lines.push("no endpoint has a place in this buffer".to_owned());
        } else {
            lines.push(endpoints_table(&buffer.endpoints, now));
        }
        lines.join("\n")
    }
}

fn endpoints_table(endpoints: &[EndpointStatus], now: Timestamp) -> String {
    let right = Align::Right;
    let headings = [
        ("ENDPOINT", Align::Left),
        ("PENDING", right),
        ("OLDEST", Align::Left),
        ("ON DISK", right),
        ("DELIVERED", right),
        ("REFUSED", right),
        ("EXPIRED", right),
        ("UNCHANGED", right),
        ("FILTERED", right),
        ("EVICTED", right),
        ("CORRUPT", right),
    ];
    let row = |endpoint: &EndpointStatus| {
        let ledger = &endpoint.ledger;
        let mut row = vec![
            endpoint.name.clone(),
            count(ledger.pending),
            endpoint.oldest_pending_at.map_or_else(|| "-".to_owned(), |at| ago(at, now)),
            bytes(endpoint.pending_bytes),
        ];
        let sent = [ledger.delivered, ledger.refused, ledger.expired, ledger.unchanged, ledger.filtered];
        row.extend(sent.map(count));
        row.extend([ledger.evicted.total(), ledger.corrupt].map(count));
        row
    };
    table(&headings, &endpoints.iter().map(row).collect::<Vec<_>>())
}

fn holds(buffer: &Inspection, now: Timestamp) -> String {
    let (Some(first), Some(last), Some(at)) = (buffer.segments.first(), buffer.segments.last(), first_at(buffer))
    else {
        return "nothing".to_owned();
    };
    let newest = buffer.segments.iter().map(|segment| segment.instants.1).max().unwrap_or(at);
    let samples: u64 = buffer.segments.iter().map(|segment| segment.samples).sum();
    format!(
        "{} in {}, positions {} to {}, {at} to {newest} ({}, the newest {})",
        counted(samples, "sample"),
        counted(buffer.segments.len() as u64, "segment"),
        first.positions.0,
        last.positions.1,
        duration(newest.since(at)),
        ago(newest, now)
    )
}

fn holder_words(buffer: &Inspection) -> String {
    match (buffer.holder, buffer.was_closed) {
        (Holder::Process(Some(pid)), _) => format!("process {pid}"),
        (Holder::Process(None), _) => "another process".to_owned(),
        (Holder::Unknown, _) => "not known (a process in another container is not seen from here)".to_owned(),
        (Holder::Nobody, Some(false)) => "nobody (the process before ended without closing it)".to_owned(),
        (Holder::Nobody, _) => "nobody".to_owned(),
    }
}

fn holder_json(holder: Holder) -> Value {
    match holder {
        Holder::Process(pid) => json!({"state": "in_use", "pid": pid}),
        Holder::Nobody => json!({"state": "free", "pid": null}),
        Holder::Unknown => json!({"state": "unknown", "pid": null}),
    }
}

fn first_at(buffer: &Inspection) -> Option<Timestamp> {
    buffer.segments.iter().map(|segment| segment.instants.0).min()
}

fn records(buffer: &Inspection) -> u64 {
    buffer.segments.iter().map(|segment| segment.positions.1 - segment.positions.0 + 1).sum()
}

/// How long until the bound is reached, from how fast what is there came. Nothing is told of less than a minute.
fn full_in(buffer: &Inspection, max_bytes: u64) -> Option<Duration> {
    let newest = buffer.segments.iter().map(|segment| segment.instants.1).max()?;
    let took = newest.since(first_at(buffer)?);
    let came: u64 = buffer.segments.iter().map(|segment| segment.bytes).sum();
    if took < Duration::from_secs(60) || came == 0 {
        return None;
    }
    let left = max_bytes.saturating_sub(buffer.used_bytes);
    Some(Duration::from_secs_f64((left as f64 * took.as_secs_f64() / came as f64).min(1e12)))
}

/// An endpoint as `--json` tells it.
fn endpoint_json(endpoint: &EndpointStatus) -> Value {
    json!({
        "name": endpoint.name,
        "acked_position": endpoint.acked.number(),
        "pending_records": endpoint.pending_records,
        "pending_bytes": endpoint.pending_bytes,
        "oldest_pending_at_ms": endpoint.oldest_pending_at.map(Timestamp::millis),
        "ledger": ledger_json(&endpoint.ledger),
    })
}

fn ledger_json(ledger: &Ledger) -> Value {
    let evicted = &ledger.evicted;
    json!({
        "appended": ledger.appended,
        "delivered": ledger.delivered,
        "refused": ledger.refused,
        "expired": ledger.expired,
        "unchanged": ledger.unchanged,
        "filtered": ledger.filtered,
        "evicted": {
            "size": evicted.size, "age": evicted.age, "memory": evicted.memory, "disk": evicted.disk, "purged": evicted.purged,
        },
        "corrupt": ledger.corrupt,
        "pending": ledger.pending,
    })
}

pub(super) fn ls(place: &Place) -> Result<Exit, Exit> {
    let inspection = place.find()?.inspect()?;
    if place.json {
        say(&ls_json(&inspection))?;
        return Ok(Exit::Fine);
    }
    let right = Align::Right;
    let headings = [
        ("SEGMENT", Align::Left),
        ("POSITIONS", Align::Left),
        ("SAMPLES", right),
        ("LOST", right),
        ("BYTES", right),
        ("FIRST", Align::Left),
        ("NEWEST", Align::Left),
        ("STATE", Align::Left),
        ("WANTED BY", right),
    ];
    let row = |segment: &SegmentView| {
        vec![
            segment.name.clone(),
            format!("{}..{}", segment.positions.0, segment.positions.1),
            count(segment.samples),
            count(segment.lost_samples),
            count(segment.bytes),
            segment.instants.0.to_string(),
            segment.instants.1.to_string(),
            state(&inspection, segment).to_owned(),
            wanted_by(&inspection, segment).to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = inspection.segments.iter().map(row).collect();
    say(&table(&headings, &rows))?;
    let rows: Vec<Vec<String>> = inspection
        .others
        .iter()
        .map(|other| vec![other.name.clone(), count(other.bytes), other_word(other.kind).to_owned()])
        .collect();
    say(&table(&[("OTHER FILE", Align::Left), ("BYTES", right), ("WHAT", Align::Left)], &rows).trim_end())?;
    Ok(Exit::Fine)
}

fn ls_json(inspection: &Inspection) -> Value {
    let segment = |segment: &SegmentView| {
        json!({
            "name": segment.name,
            "first_position": segment.positions.0,
            "last_position": segment.positions.1,
            "first_at_ms": segment.instants.0.millis(),
            "newest_at_ms": segment.instants.1.millis(),
            "samples": segment.samples,
            "lost_samples": segment.lost_samples,
            "bytes": segment.bytes,
            "sealed": segment.is_sealed,
            "state": state(inspection, segment),
            "unfinished_bytes": segment.torn_bytes,
            "wanted_by": wanted_by(inspection, segment),
        })
    };
    let others = inspection.others.iter();
    json!({
        "path": inspection.path,
        "segments": inspection.segments.iter().map(segment).collect::<Vec<_>>(),
        "others": others.map(|other| json!({"name": other.name, "bytes": other.bytes, "kind": other_word(other.kind)})).collect::<Vec<_>>(),
    })
}

/// `sealed`; `open`, being written; `unsealed`, its process ended without finishing it.
fn state(inspection: &Inspection, segment: &SegmentView) -> &'static str {
    let is_last = inspection.segments.last().is_some_and(|last| last.name == segment.name);
    match (segment.is_sealed, is_last && inspection.holder.may_write()) {
        (true, _) => "sealed",
        (false, true) => "open",
        (false, false) => "unsealed",
    }
}

fn wanted_by(inspection: &Inspection, segment: &SegmentView) -> usize {
    inspection.endpoints.iter().filter(|endpoint| endpoint.acked.number() < segment.positions.1).count()
}

fn other_word(kind: OtherKind) -> &'static str {
    match kind {
        OtherKind::Lock => "lock",
        OtherKind::Notes => "notes",
        OtherKind::Cursor => "cursor",
        OtherKind::State => "state",
        OtherKind::Quarantine => "quarantine",
        OtherKind::ForeignSegment => "foreign_segment",
        OtherKind::UnreadableSegment => "unreadable_segment",
        OtherKind::OtherVersion => "other_version",
        OtherKind::Unknown => "unknown",
    }
}
