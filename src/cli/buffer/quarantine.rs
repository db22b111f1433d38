//! `buffer quarantine`: what receivers refused, to look at and to send again.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::text::{Align, ago, count, counted, table};
use super::{Found, Place, dump, failed};
use crate::buffer::Quarantined;
use crate::buffer::inspect::{Inspection, QuarantinedFile};
use crate::buffer::upkeep::requeue as mark;
use crate::cli::{Exit, complain, say};
use crate::clock::Clock;
use crate::model::Timestamp;
use crate::receive::histogram_json;

pub(super) const HELP: &str = "What a receiver refused for good, or never took without failing, is kept here (bounded) with the receiver's words. All of it is safe
while an agent runs: requeue marks a file, and the agent sends it when its queue is empty, or after its next start.

Exit codes: 0 fine, 1 there is no such file or it is damaged, 64 usage or configuration, 73 there is no buffer or it cannot be read.";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// What is there: when, whose, why, how much
    Ls(Place),
    /// One refusal and its samples
    Show(One),
    /// Send refused samples once more
    Requeue(Requeue),
}

#[derive(Debug, Args)]
pub(in crate::cli) struct One {
    /// As `ls` tells it; enough of its beginning to be clear
    id: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = false, args = ["id", "all"])]
pub(in crate::cli) struct Requeue {
    /// As `ls` tells it; enough of its beginning to be clear
    id: Option<String>,
    /// All of it
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: Place,
}

pub(super) fn main(command: &Command) -> Result<Exit, Exit> {
    match command {
        Command::Ls(place) => ls(place),
        Command::Show(one) => show(one),
        Command::Requeue(options) => requeue(options),
    }
}

fn files(found: &Found) -> Result<(Inspection, Vec<QuarantinedFile>), Exit> {
    let inspection = found.inspect()?;
    let files = inspection.quarantine().map_err(|error| {
        complain(&format_args!("the quarantine of {} cannot be read: {error}", found.path.display()));
        Exit::Buffer
    })?;
    Ok((inspection, files))
}

fn ls(place: &Place) -> Result<Exit, Exit> {
    let (_, files) = files(&place.find()?)?;
    if place.json {
        say(&json!({"files": files.iter().map(file_json).collect::<Vec<_>>()}))?;
        return Ok(Exit::Fine);
    }
    if files.is_empty() {
        say(&"nothing was refused, or it was sent again")?;
        return Ok(Exit::Fine);
    }
    let now = Clock::system().now();
    let rows: Vec<Vec<String>> = files.iter().map(|file| row(file, now)).collect();
    let headings = [
        ("ID", Align::Left),
        ("ENDPOINT", Align::Left),
        ("WHEN", Align::Left),
        ("WHY", Align::Left),
        ("SAMPLES", Align::Right),
        ("STATE", Align::Left),
        ("THE RECEIVER SAID", Align::Left),
    ];
    say(&table(&headings, &rows).trim_end())?;
    Ok(Exit::Fine)
}

fn row(file: &QuarantinedFile, now: Timestamp) -> Vec<String> {
    let Some(content) = &file.content else {
        return vec![file.id.clone(), "-".into(), "-".into(), "-".into(), "-".into(), "damaged".into(), String::new()];
    };
    let verdict = &content.verdict;
    let status = verdict.status.map_or_else(String::new, |status| format!(" {status}"));
    vec![
        file.id.clone(),
        content.endpoint.clone(),
        ago(verdict.at, now),
        format!("{}{status}", verdict.fault.word()),
        count(content.samples),
        state(file).to_owned(),
        one_line(&verdict.text),
    ]
}

/// Of one of which nothing can be read nothing will be sent again, whatever it is called.
fn readable(file: &QuarantinedFile) -> Option<&Quarantined> {
    file.content.as_ref().filter(|content| content.readable_samples() > 0)
}

fn state(file: &QuarantinedFile) -> &'static str {
    if readable(file).is_none() {
        "damaged"
    } else if file.is_requeued {
        "requeued"
    } else {
        "resting"
    }
}

/// How much of the receiver's words stands in a table.
const WORDS_CHARS: usize = 80;

/// A receiver's words on one line, without what a terminal would obey.
fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut short: String = clean.trim().chars().take(WORDS_CHARS).collect();
    if clean.trim().chars().count() > WORDS_CHARS {
        short.push('…');
    }
    short
}

fn file_json(file: &QuarantinedFile) -> Value {
    let content = file.content.as_ref();
    let instants = content.map(|content| content.snapshots.iter().map(|snapshot| snapshot.at.millis()));
    json!({
        "id": file.id,
        "state": state(file),
        "bytes": file.bytes,
        "endpoint": content.map(|content| &content.endpoint),
        "reason": content.map(|content| content.verdict.fault.word()),
        "status": content.and_then(|content| content.verdict.status),
        "text": content.map(|content| &content.verdict.text),
        "refused_at_ms": content.map(|content| content.verdict.at.millis()),
        "samples": content.map(|content| content.samples),
        "readable_samples": content.map(Quarantined::readable_samples),
        "first_at_ms": instants.clone().and_then(Iterator::min),
        "newest_at_ms": instants.and_then(Iterator::max),
    })
}

/// The one file whose name begins so.
fn choose<'a>(files: &'a [QuarantinedFile], id: &str) -> Result<&'a QuarantinedFile, Exit> {
    let wanted = id.trim_end_matches(".q").trim_end_matches(".again");
    let mut matching = files.iter().filter(|file| !wanted.is_empty() && file.id.starts_with(wanted));
    match (matching.next(), matching.next()) {
        (Some(file), None) => Ok(file),
        (Some(_), Some(_)) => Err(failed(&format_args!("{id} is the beginning of several; give more of it"))),
        (None, _) => {
            Err(failed(&format_args!("there is no {id} in the quarantine; see `outhaul buffer quarantine ls`")))
        }
    }
}

fn show(one: &One) -> Result<Exit, Exit> {
    let (_, files) = files(&one.place.find()?)?;
    let file = choose(&files, &one.id)?;
    let Some(content) = &file.content else {
        return Err(failed(&format_args!("{} is damaged and cannot be read", file.id)));
    };
    if one.place.json {
        let mut shown = file_json(file);
        let samples: Vec<Value> =
            content.snapshots.iter().flat_map(|snapshot| dump::snapshot_json(snapshot, |_| true)).collect();
        if let Some(shown) = shown.as_object_mut() {
            shown.insert("contents".to_owned(), samples.into());
        }
        say(&shown)?;
        return Ok(Exit::Fine);
    }
    let verdict = &content.verdict;
    say(&format_args!("id        {}{}", file.id, if file.is_requeued { " (to be sent again)" } else { "" }))?;
    say(&format_args!("endpoint  {}", content.endpoint))?;
    say(&format_args!("{:<9} {}", verdict.fault.word(), verdict.at))?;
    say(&format_args!(
        "status    {}",
        verdict.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string())
    ))?;
    say(&format_args!("it said   {}", one_line(&verdict.text)))?;
    say(&format_args!("samples   {}", count(content.samples)))?;
    for snapshot in &content.snapshots {
        for sample in &snapshot.samples {
            say(&format_args!("{} {} {:?}", snapshot.at, sample.series.labels(), sample.value))?;
        }
        for sample in &snapshot.histograms {
            let histogram = histogram_json(&sample.histogram);
            say(&format_args!("{} {} histogram {histogram}", snapshot.at, sample.series.labels()))?;
        }
    }
    Ok(Exit::Fine)
}

fn requeue(options: &Requeue) -> Result<Exit, Exit> {
    let (inspection, files) = files(&options.place.find()?)?;
    let chosen: Vec<&QuarantinedFile> = match &options.id {
        Some(id) => vec![choose(&files, id)?],
        None => files.iter().filter(|file| readable(file).is_some()).collect(),
    };
    let (mut marked, mut problems, mut before) = (Vec::new(), 0, 0);
    for file in chosen {
        let Some(content) = readable(file) else {
            return Err(failed(&format_args!("{} is damaged and cannot be sent again", file.id)));
        };
        if file.is_requeued {
            before += 1;
            continue;
        }
        match mark(&inspection, &file.id) {
            Ok(()) => marked.push((file, content.readable_samples())),
            Err(error) => {
                problems += 1;
                complain(&format_args!("{} cannot be marked: {error}", file.id));
            }
        }
    }
    let samples: u64 = marked.iter().map(|(_, samples)| samples).sum();
    if options.place.json {
        let ids: Vec<&str> = marked.iter().map(|(file, _)| file.id.as_str()).collect();
        say(&json!({"requeued": ids, "samples": samples}))?;
    } else {
        let before = if before > 0 { format!("; {} requeued before", count(before)) } else { String::new() };
        say(&format_args!(
            "{} with {} requeued, to be sent again by the agent when its queue is empty{before}",
            counted(marked.len() as u64, "refusal"),
            counted(samples, "sample")
        ))?;
    }
    if problems == 0 { Ok(Exit::Fine) } else { Err(Exit::Failed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receivers_words_cannot_drive_the_terminal() {
        assert_eq!(one_line("bad\n\x1b[2Jsample\r\n"), "bad  [2Jsample");
        assert_eq!(one_line(&"é".repeat(200)).chars().count(), WORDS_CHARS + 1);
    }
}
