//! `buffer dump`: the samples themselves, for people, scripts and promtool.

use std::io::{BufWriter, Write as _};
use std::ops::ControlFlow;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::matcher::Matcher;
use super::show::Progress;
use super::{Place, failed, time};
use crate::buffer::inspect::{Record, Selection};
use crate::cli::{Exit, complain};
use crate::clock::Clock;
use crate::encode::open_metrics;
use crate::model::{self, Series, Snapshot, Timestamp};
use crate::receive::{histogram_json, labels_json};

pub(super) const HELP: &str = "Takes no lock and writes nothing: safe while an agent runs.

Times: RFC 3339 (2026-11-21T05:00:00Z), Unix seconds or milliseconds, or how long ago (2h).

Formats:
  json  one sample a line: {\"position\",\"at_ms\",\"at\",\"labels\",\"value\"} and, for a counter, \"start_ms\"; what is no number is
        the text \"NaN\", \"+Inf\", \"-Inf\" or \"stale\". A native histogram has \"histogram\" for \"value\", an exemplar \"exemplar\"
  prom  OpenMetrics with instants, for `promtool tsdb create-blocks-from openmetrics`; stale markers, native histograms
        and exemplars are left out
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
    #[arg(long, value_enum, default_value_t = Format::Json, conflicts_with = "json")]
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
            "{left_out} stale markers, native histograms, exemplars or names outside the old pattern have no form in this format and were left out"
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
    let wanted = |of: &Series| series.is_none_or(|matcher| matcher.matches(of.labels()));
    match format {
        Format::Raw if series.is_none() || snapshot.series().any(|series| wanted(series)) => record.bytes.clone(),
        Format::Raw => Vec::new(),
        Format::Json => {
            let mut lines = snapshot_json(snapshot, wanted);
            for line in &mut lines {
                line["position"] = record.position.into();
            }
            lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect()
        }
        Format::Prom => {
            let mut text = String::new();
            for sample in snapshot.samples.iter().filter(|sample| wanted(&sample.series)) {
                *left_out += u64::from(!open_metrics::write_sample(&mut text, snapshot.at, sample));
            }
            *left_out += snapshot.histograms.iter().filter(|sample| wanted(&sample.series)).count() as u64;
            *left_out += snapshot.exemplars.iter().filter(|exemplar| wanted(&exemplar.series)).count() as u64;
            text.into_bytes()
        }
    }
}

/// Everything of the series that are `wanted`, each with its instant.
pub(super) fn snapshot_json(snapshot: &Snapshot, wanted: impl Fn(&Series) -> bool) -> Vec<Value> {
    let at = snapshot.at;
    let samples = snapshot.samples.iter().filter(|sample| wanted(&sample.series));
    let samples = samples.map(|sample| line(at, &sample.series, sample.start, "value", number_json(sample.value)));
    let histograms = snapshot.histograms.iter().filter(|sample| wanted(&sample.series));
    let histograms =
        histograms.map(|sample| line(at, &sample.series, sample.start, "histogram", histogram_json(&sample.histogram)));
    let exemplars = snapshot.exemplars.iter().filter(|exemplar| wanted(&exemplar.series));
    let exemplars = exemplars.map(|exemplar| {
        let what = json!({"labels": labels_json(&exemplar.labels), "value": number_json(exemplar.value)});
        line(exemplar.at, &exemplar.series, None, "exemplar", what)
    });
    samples.chain(histograms).chain(exemplars).collect()
}

fn line(at: Timestamp, series: &Series, start: Option<Timestamp>, name: &str, what: Value) -> Value {
    let mut line = json!({"at_ms": at.millis(), "at": at.to_string(), "labels": labels_json(series.labels())});
    line[name] = what;
    if let Some(start) = start {
        line["start_ms"] = start.millis().into();
    }
    line
}

/// JSON has no form for what is no number.
fn number_json(value: model::Value) -> Value {
    let number = value.number();
    if value.is_stale() {
        json!("stale")
    } else if number.is_nan() {
        json!("NaN")
    } else if number.is_infinite() {
        json!(if number > 0.0 { "+Inf" } else { "-Inf" })
    } else {
        json!(number)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        Exemplar, HistogramParts, HistogramSample, Labels, Metadata, MetricKind, NativeHistogram, Sample,
        Value as Number,
    };

    #[test]
    fn a_line_for_each_sample_histogram_and_exemplar_of_the_series_that_are_wanted() {
        let series = |name: &str| {
            let labels = Labels::builder().with("__name__", name).build().unwrap();
            Arc::new(Series::new(labels, Arc::new(Metadata::of("x", MetricKind::Unknown, ""))))
        };
        let (at, counter, timer) = (Timestamp::from_millis(1000), series("counter"), series("timer"));
        let histogram = Arc::new(NativeHistogram::new(HistogramParts::integer(0, 0, 1.5)).unwrap());
        let exemplar = Exemplar {
            series: Arc::clone(&timer),
            labels: Labels::builder().with("trace_id", "a").build().unwrap(),
            value: Number::new(f64::INFINITY),
            at: Timestamp::from_millis(900),
        };
        let snapshot = Snapshot {
            histograms: vec![HistogramSample { series: timer, histogram, start: None }],
            exemplars: vec![exemplar],
            ..Snapshot::new(at, vec![Sample::new(counter, Number::STALE).started(Timestamp::from_millis(5))])
        };
        let all = snapshot_json(&snapshot, |_| true);
        let start = json!({"at_ms": 1000, "at": "1970-01-01T00:00:01.000Z", "labels": {"__name__": "counter"},
            "value": "stale", "start_ms": 5});
        assert_eq!((all.len(), &all[0]), (3, &start));
        assert_eq!((&all[1]["histogram"]["sum"], &all[1]["histogram"]["count"]), (&json!("1.5"), &json!(0)));
        let noted = json!({"labels": {"trace_id": "a"}, "value": "+Inf"});
        assert_eq!((&all[2]["exemplar"], &all[2]["at_ms"]), (&noted, &json!(900)));
        let of_timer = snapshot_json(&snapshot, |series| series.labels().metric_name() == "timer");
        assert_eq!(of_timer, all[1..]);
    }

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
