//! `buffer verify`: every checksum and every sample; what is damaged, where, and what it costs.

use serde_json::{Value, json};

use super::show::Progress;
use super::text::{bytes, count, counted};
use super::{Place, failed};
use crate::buffer::inspect::{Inspection, Verdict};
use crate::cli::{Exit, say};
use crate::model::Timestamp;

pub(super) const HELP: &str = "Takes no lock and writes nothing: safe while an agent runs. A record that is just being written, one that a killed
process never finished, and files that the agent removes meanwhile are no damage.

Exit codes: 0 everything is whole, 1 damage was found, 64 usage or configuration, 73 there is no buffer or it cannot be read.";

pub(super) fn main(place: &Place) -> Result<Exit, Exit> {
    let inspection = place.find()?.inspect()?;
    let mut progress = Progress::new("checking");
    let verdict = inspection.verify(&mut |done, total| progress.bytes(done, total));
    drop(progress);
    let said = if place.json { say(&verdict_json(&inspection, &verdict)) } else { say_verdict(&inspection, &verdict) };
    if verdict.damages.is_empty() {
        return said.map(|()| Exit::Fine);
    }
    // Also where nobody listened to the end.
    if place.json {
        return Err(Exit::Failed);
    }
    let places = counted(verdict.damages.len() as u64, "damaged place");
    Err(match verdict.lost_samples() {
        0 => failed(&format_args!("{places}, no sample that is known to be lost")),
        lost => failed(&format_args!(
            "{places}, {} lost; everything else is still delivered, and what an endpoint waited for in a segment is counted as corrupt",
            counted(lost, "sample")
        )),
    })
}

fn say_verdict(inspection: &Inspection, verdict: &Verdict) -> Result<(), Exit> {
    for damage in &verdict.damages {
        let position = damage.position.map_or_else(String::new, |position| format!(", position {position}"));
        let at = damage.at.map_or_else(String::new, |at| format!(" ({at})"));
        say(&format_args!(
            "{} at byte {}: {}{position}{at}: {}; {} lost",
            damage.file,
            damage.offset,
            damage.kind.word(),
            damage.detail,
            counted(damage.samples, "sample")
        ))?;
    }
    say(&format_args!(
        "{}, {}: {} with {} are whole",
        counted(verdict.segments as u64, "segment"),
        bytes(verdict.bytes),
        counted(verdict.snapshots, "snapshot"),
        counted(verdict.samples, "sample")
    ))?;
    if verdict.unfinished_bytes > 0 {
        say(&format_args!(
            "{} bytes at an end are a record never finished, or one just being written: no damage",
            verdict.unfinished_bytes
        ))?;
    }
    if verdict.skipped_samples > 0 {
        let skipped = count(verdict.skipped_samples);
        say(&format_args!(
            "{skipped} samples never reached the disk, because it could not be written and memory was full: no damage"
        ))?;
    }
    for (endpoint, samples) in &inspection.waited_for {
        say(&format_args!("{endpoint} waited for {} older than all that is here: gone", counted(*samples, "sample")))?;
    }
    Ok(())
}

fn verdict_json(inspection: &Inspection, verdict: &Verdict) -> Value {
    let damages = verdict.damages.iter().map(|damage| {
        json!({
            "file": damage.file,
            "offset": damage.offset,
            "bytes": damage.bytes,
            "kind": damage.kind.word(),
            "position": damage.position,
            "at_ms": damage.at.map(Timestamp::millis),
            "lost_samples": damage.samples,
            "detail": damage.detail,
        })
    });
    json!({
        "path": inspection.path,
        "whole": verdict.damages.is_empty(),
        "damages": damages.collect::<Vec<_>>(),
        "lost_samples": verdict.lost_samples(),
        "segments": verdict.segments,
        "vanished_segments": verdict.vanished,
        "bytes": verdict.bytes,
        "snapshots": verdict.snapshots,
        "samples": verdict.samples,
        "unfinished_bytes": verdict.unfinished_bytes,
        "skipped_samples": verdict.skipped_samples,
        "waited_for": inspection.waited_for.iter().map(|(endpoint, samples)| json!({"endpoint": endpoint, "samples": samples})).collect::<Vec<_>>(),
    })
}
