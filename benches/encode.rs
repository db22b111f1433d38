//! What a remote-write body costs: time to make it, and bytes on the wire.
//!
//! Series are labelled as outhaul labels containers' (15 families), three in ten values change from one instant to the
//! next, and a request holds at most [`REQUEST_SAMPLES`]. Prints a table; `one-shot` is how 1.0 was written before there
//! was an encoder, in the same run on the same samples.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outhaul::encode::{Compression, Encoder, Format, Message, Part};
use outhaul::model::{Labels, Metadata, MetricKind, Sample, Series, Target, Timestamp, Value};

const REQUEST_SAMPLES: usize = 10_000;
const FAMILIES: [&str; 15] = [
    "container_state",
    "container_health",
    "container_restart_count",
    "container_restarts_total",
    "container_starts_total",
    "container_exits_total",
    "container_oom_kills_total",
    "container_health_transitions_total",
    "container_last_exit_code",
    "container_last_run_seconds",
    "container_created_timestamp_seconds",
    "container_started_timestamp_seconds",
    "container_finished_timestamp_seconds",
    "container_short_runs_total",
    "container_info",
];
const START_MILLIS: i64 = 1_795_226_444_035;
const TICK_MILLIS: i64 = 10_000;

fn series(count: usize) -> Vec<Arc<Series>> {
    let target = Target::new("edge-roof-3");
    let kind = |family: &str| if family.ends_with("_total") { MetricKind::Counter } else { MetricKind::Gauge };
    let metadata = FAMILIES.map(|family| Arc::new(Metadata::of(family, kind(family), "A number about a container.")));
    let one = |number: usize| {
        let (container, family) = (number / FAMILIES.len(), number % FAMILIES.len());
        let labels = target.series(FAMILIES[family]).with("name", format!("shop-worker-{container}"));
        let labels = labels.with("image", "registry.example.org/shop/worker:2026.11.1").build_lossy();
        Arc::new(Series::new(labels, Arc::clone(&metadata[family])))
    };
    (0..count).map(one).collect()
}

/// Some series at one tick.
fn samples(series: &[Arc<Series>], first: usize, tick: u32) -> Vec<Sample> {
    let sample = |(number, series): (usize, &Arc<Series>)| {
        let number = u32::try_from(number + first).unwrap_or(0);
        // Three in ten change; one of them is no whole number.
        let moves = if number % 10 < 3 { tick } else { 0 };
        let value = f64::from(number * 7 + moves) / if number % 10 == 0 { 7.0 } else { 1.0 };
        let sample = Sample::new(Arc::clone(series), Value::new(value));
        let is_counter = series.metadata().kind == MetricKind::Counter;
        if is_counter { sample.started(Timestamp::from_millis(START_MILLIS - 60_000)) } else { sample }
    };
    series.iter().enumerate().map(sample).collect()
}

/// What all requests of one run took.
#[derive(Default)]
struct Cost {
    samples: usize,
    bytes: usize,
    took: Duration,
}

/// Every series at `instants` ticks, in as many requests as it takes.
fn run(series: &[Arc<Series>], instants: u32, mut encode: impl FnMut(&[Part]) -> usize) -> Cost {
    let mut cost = Cost::default();
    let chunk = REQUEST_SAMPLES / instants as usize;
    for (number, chunk_series) in series.chunks(chunk).enumerate() {
        let ticks: Vec<Vec<Sample>> = (0..instants).map(|tick| samples(chunk_series, number * chunk, tick)).collect();
        let at = |tick: usize| Timestamp::from_millis(START_MILLIS + TICK_MILLIS * i64::try_from(tick).unwrap_or(0));
        let parts: Vec<Part> = ticks.iter().enumerate().map(|(tick, samples)| Part::new(at(tick), samples)).collect();
        let began = Instant::now();
        cost.bytes += encode(black_box(&parts));
        cost.took += began.elapsed();
        cost.samples += parts.iter().map(|part| part.samples.len()).sum::<usize>();
    }
    cost
}

#[expect(clippy::print_stdout, reason = "this is what the bench is for")]
fn print(what: &str, count: usize, instants: u32, cost: &Cost) {
    let samples = cost.samples as f64;
    let nanos = cost.took.as_secs_f64() * 1e9 / samples;
    println!("{count:>7} {instants:>8}  {what:<12} {nanos:>9.0} {:>12.2}", cost.bytes as f64 / samples);
}

#[expect(clippy::print_stdout, reason = "this is what the bench is for")]
fn main() {
    let external = Labels::builder().with("site", "roof-3").build_lossy();
    println!(" series instants  body         ns/sample bytes/sample");
    for count in [1000, 10_000, 100_000] {
        let series = series(count);
        for instants in [1, 10, 60] {
            let cost = run(&series, instants, |parts| one_shot::write(parts, &external).len());
            print("v1 one-shot", count, instants, &cost);
            for (what, message, compression) in [
                ("v1 snappy", Message::V1, Compression::Snappy),
                ("v1 zstd", Message::V1, Compression::Zstd),
                ("v2 snappy", Message::V2, Compression::Snappy),
                ("v2 zstd", Message::V2, Compression::Zstd),
            ] {
                let mut encoder = Encoder::new(external.clone(), None);
                let mut encode = |parts: &[Part]| encoder.encode(parts, Format::new(message, compression)).bytes.len();
                // The first time it meets the series; what counts is all the times after.
                run(&series, instants, &mut encode);
                print(what, count, instants, &run(&series, instants, &mut encode));
            }
        }
    }
}

/// How 1.0 was written before there was an encoder: labels merged and written out for every series of every request.
mod one_shot {
    use super::{HashMap, Labels, Part, Series, Timestamp, Value};
    use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

    type Joined<'a> = Vec<(&'a Series, Vec<(Timestamp, Value)>)>;

    pub(super) fn write(parts: &[Part], external: &Labels) -> Vec<u8> {
        let mut message = Vec::new();
        for (series, points) in join(parts) {
            let labels = series.labels().with_defaults(external);
            let label_len = |name: &str, value: &str| delimited_len(name.len()) + delimited_len(value.len());
            let all_labels: usize =
                labels.iter().map(|label| delimited_len(label_len(&label.name, &label.value))).sum();
            let points_len: usize = points.iter().map(|point| delimited_len(point_len(*point))).sum();
            write_delimited(&mut message, 1, all_labels + points_len);
            for label in &labels {
                write_delimited(&mut message, 1, label_len(&label.name, &label.value));
                for (field, text) in [(1, &label.name), (2, &label.value)] {
                    write_delimited(&mut message, field, text.len());
                    message.extend_from_slice(text.as_bytes());
                }
            }
            for (at, value) in points {
                write_delimited(&mut message, 2, point_len((at, value)));
                if value.bits() != 0 {
                    encode_key(1, WireType::SixtyFourBit, &mut message);
                    message.extend_from_slice(&value.bits().to_le_bytes());
                }
                encode_key(2, WireType::Varint, &mut message);
                encode_varint(at.millis().cast_unsigned(), &mut message);
            }
        }
        snap::raw::Encoder::new().compress_vec(&message).unwrap_or_default()
    }

    fn join<'a>(parts: &'a [Part]) -> Joined<'a> {
        let mut joined: Joined = Vec::new();
        let mut seen: HashMap<&Labels, usize> = HashMap::new();
        for (ordinal, part) in parts.iter().enumerate() {
            if ordinal == 1 {
                seen.extend(joined.iter().enumerate().map(|(at, (series, _))| (series.labels(), at)));
            }
            for sample in part.samples {
                let point = (part.at, sample.value);
                if let Some(&at) = seen.get(sample.series.labels()) {
                    joined[at].1.push(point);
                    continue;
                }
                if ordinal > 0 {
                    seen.insert(sample.series.labels(), joined.len());
                }
                joined.push((&sample.series, vec![point]));
            }
        }
        joined
    }

    fn point_len((at, value): (Timestamp, Value)) -> usize {
        let value_len = if value.bits() == 0 { 0 } else { 9 };
        value_len + 1 + encoded_len_varint(at.millis().cast_unsigned())
    }

    fn delimited_len(len: usize) -> usize {
        1 + encoded_len_varint(len as u64) + len
    }

    fn write_delimited(message: &mut Vec<u8>, field: u32, len: usize) {
        encode_key(field, WireType::LengthDelimited, message);
        encode_varint(len as u64, message);
    }
}
