//! `buffer dump`: the samples themselves, for people, scripts and promtool.

use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::matcher::Matcher;
use super::show::Progress;
use super::{Place, failed, time};
use crate::buffer::inspect::{Record, Selection};
use crate::cli::{Exit, complain};
use crate::clock::Clock;
use crate::encode::open_metrics;
use crate::model::{Sample, Timestamp};

pub(super) const HELP: &str = "Takes no lock and writes nothing: safe while an agent runs.

Times: RFC 3339 (2026-11-21T05:00:00Z), Unix seconds or milliseconds, or how long ago (2h).

Formats:
  json  one sample a line: {\"position\",\"at_ms\",\"at\",\"labels\",\"value\"} and, for a counter, \"start_ms\"; what is no number is
        the text \"NaN\", \"+Inf\", \"-Inf\" or \"stale\"
  prom  OpenMetrics with instants, for `promtool tsdb create-blocks-from openmetrics`; stale markers are left out
  raw   the records as they are on disk, header and payload

Examples:
  outhaul buffer dump --since 1h --series 'container_state{name=\"web-*\"}'
  outhaul buffer dump --seq 100..200 --format raw | xxd
  outhaul buffer dump --format prom > backlog.om && promtool tsdb create-blocks-from openmetrics backlog.om /prometheus

Exit codes: 0 fine, 1 some records could not be read, 64 usage or configuration, 73 there is no buffer or it cannot be read.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One sample a line
    Json,
    /// What promtool reads
    Prom,
    /// Records as they are on disk
    Raw,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    place: Place,
    /// Positions, both inclusive; either side may be left out (100.., ..200, 150)
    #[arg(long, value_name = "A..B", value_parser = positions)]
    seq: Option<(Option<u64>, Option<u64>)>,
    /// From this time on
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Up to this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// How to write them; --json is the same as --format json
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Only these series: a metric name with * and ?, and labels ({name="web-*",image!="*:latest"})
    #[arg(long, value_name = "MATCHER")]
    series: Option<Matcher>,
}

fn positions(text: &str) -> Result<(Option<u64>, Option<u64>), String> {
    let rule = || "write a range of positions, such as 100..200, 100.. or ..200".to_owned();
    let number = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(|_| rule()) };
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let range = (number(from)?, number(to.strip_prefix('=').unwrap_or(to))?);
    match range {
        (None, None) => Err(rule()),
        (Some(from), Some(to)) if from > to => Err("the range ends before it begins".to_owned()),
        range => Ok(range),
    }
}

/// An instant from the command line; says what is wrong with it.
pub(super) fn instant(option: &str, text: Option<&String>) -> Result<Option<Timestamp>, Exit> {
    let Some(text) = text else { return Ok(None) };
    time::parse(text, Clock::system().now()).map(Some).map_err(|rule| {
        complain(&format_args!("{option} {text}: {rule}"));
        Exit::Usage
    })
}

pub(super) fn main(options: &Options) -> Result<Exit, Exit> {
    let (from, to) = options.seq.unwrap_or_default();
    let since = instant("--since", options.since.as_ref())?;
    let until = instant("--until", options.until.as_ref())?;
    if let (Some(since), Some(until)) = (since, until)
        && since > until
    {
        complain(&format_args!("--since {since} lies after --until {until}"));
        return Err(Exit::Usage);
    }
    let format = if options.place.json { Format::Json } else { options.format };
    let inspection = options.place.find()?.inspect()?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut progress = Progress::beside_output("reading");
    let (mut left_out, mut broken) = (0_u64, None);
    let visited = inspection.visit(
        Selection { from, to, since, until },
        &mut |done, total| progress.bytes(done, total),
        &mut |record| {
            let bytes = bytes_of(format, &record, options.series.as_ref(), &mut left_out);
            out.write_all(&bytes).map_or_else(
                |error| {
                    broken = Some(error);
                    ControlFlow::Break(())
                },
                ControlFlow::Continue,
            )
        },
    );
    let end: &[u8] = if format == Format::Prom { open_metrics::END.as_bytes() } else { b"" };
    let written = broken.map_or(Ok(()), Err).and_then(|()| out.write_all(end)).and_then(|()| out.flush());
    drop(progress);
    match written {
        // Nobody listens any more.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(Exit::Fine),
        Err(error) => return Err(failed(&format_args!("the output cannot be written: {error}"))),
        Ok(()) => {}
    }
    if left_out > 0 {
        complain(&format_args!(
            "{left_out} stale markers or names outside the old pattern have no form in this format and were left out"
        ));
    }
    if visited.damaged > 0 {
        return Err(failed(&format_args!(
            "{} records could not be read; see `outhaul buffer verify`",
            visited.damaged
        )));
    }
    Ok(Exit::Fine)
}

fn bytes_of(format: Format, record: &Record, series: Option<&Matcher>, left_out: &mut u64) -> Vec<u8> {
    let snapshot = &record.snapshot;
    let wanted = |sample: &&Sample| series.is_none_or(|matcher| matcher.matches(sample.series.labels()));
    let mut samples = snapshot.samples.iter().filter(wanted);
    match format {
        Format::Raw if samples.next().is_some() || series.is_none() => record.bytes.clone(),
        Format::Raw => Vec::new(),
        Format::Json => samples
            .flat_map(|sample| format!("{}\n", with_position(record.position, snapshot.at, sample)).into_bytes())
            .collect(),
        Format::Prom => {
            let mut text = String::new();
            for sample in samples {
                *left_out += u64::from(!open_metrics::write_sample(&mut text, snapshot.at, sample));
            }
            text.into_bytes()
        }
    }
}

/// One sample as a line of JSON.
fn with_position(position: u64, at: Timestamp, sample: &Sample) -> Value {
    let mut line = sample_json(at, sample);
    if let Some(line) = line.as_object_mut() {
        line.insert("position".to_owned(), position.into());
    }
    line
}

/// One sample and its instant.
pub(super) fn sample_json(at: Timestamp, sample: &Sample) -> Value {
    let labels: Map<String, Value> =
        sample.series.labels().iter().map(|label| (label.name.to_string(), Value::from(&*label.value))).collect();
    let number = sample.value.number();
    let value = if sample.value.is_stale() {
        json!("stale")
    } else if number.is_nan() {
        json!("NaN")
    } else if number.is_infinite() {
        json!(if number > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        json!(number)
    };
    let mut line = json!({
        "at_ms": at.millis(),
        "at": at.to_string(),
        "labels": labels,
        "value": value,
    });
    if let (Some(start), Some(line)) = (sample.start, line.as_object_mut()) {
        line.insert("start_ms".to_owned(), start.millis().into());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_positions_may_be_open_on_either_side() {
        assert_eq!(positions("3..7"), Ok((Some(3), Some(7))));
        assert_eq!(positions("3.."), Ok((Some(3), None)));
        assert_eq!(positions("..7"), Ok((None, Some(7))));
        assert_eq!(positions("5"), Ok((Some(5), Some(5))));
        for text in ["", "..", "7..3", "a..b", "-1.."] {
            assert!(positions(text).is_err(), "{text}");
        }
    }
}
