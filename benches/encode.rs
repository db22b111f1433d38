//! What a remote-write body costs: processor time to make it and of that to pack it, bytes on the wire and allocations, and what
//! the `snap` crate takes and makes of the same message.
//!
//! Prints three tables. Made-up series are labelled as outhaul labels containers' (15 families) and three in ten values
//! change from one instant to the next; one instant in a request is the live shape, thirty are a backlog's. The recorded
//! run of 100 containers (`data/`) is sent in requests of several shapes. The last table is content that packs badly.
//! `one-shot` is how 1.0 was written before there was an encoder. `--quick` leaves the large ones out.

#[path = "encode/one_shot.rs"]
mod one_shot;
#[path = "buffer/recording.rs"]
mod recording;

use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outhaul::encode::{Compression, Encoder, Format, Message, Packer, Part};
use outhaul::model::{Labels, Metadata, MetricKind, Sample, Series, Snapshot, Target, Timestamp, Value};
use recording::Recording;

/// Prometheus' default of `max_samples_per_send`, and ours.
const REQUEST_SAMPLES: usize = 2000;
const FORMATS: [(&str, Message, Compression); 4] = [
    ("v1 snappy", Message::V1, Compression::Snappy),
    ("v1 zstd", Message::V1, Compression::Zstd),
    ("v2 snappy", Message::V2, Compression::Snappy),
    ("v2 zstd", Message::V2, Compression::Zstd),
];
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

/// Samples by instant, as one request has them.
type Request = Vec<(Timestamp, Vec<Sample>)>;

/// Every series at `instants` ticks, in as many requests as it takes.
fn made_up(series: &[Arc<Series>], instants: u32) -> impl Iterator<Item = Request> {
    let chunk = REQUEST_SAMPLES / instants as usize;
    series.chunks(chunk).enumerate().map(move |(number, chunk_series)| {
        let at = |tick: u32| Timestamp::from_millis(START_MILLIS + TICK_MILLIS * i64::from(tick));
        (0..instants).map(|tick| (at(tick), samples(chunk_series, number * chunk, tick))).collect()
    })
}

/// The first `instants` of the recorded run, some series after the other.
fn recorded(snapshots: &[Snapshot], instants: usize, request_samples: usize) -> Vec<Request> {
    let snapshots = &snapshots[..instants];
    let mut places: HashMap<*const Series, usize> = HashMap::new();
    for sample in snapshots.iter().flat_map(|snapshot| &snapshot.samples) {
        let place = places.len();
        places.entry(Arc::as_ptr(&sample.series)).or_insert(place);
    }
    let chunk = (request_samples / instants).max(1);
    let mut requests: Vec<Request> = Vec::new();
    requests.resize_with(places.len().div_ceil(chunk), || {
        snapshots.iter().map(|snapshot| (snapshot.at, Vec::new())).collect()
    });
    for (instant, snapshot) in snapshots.iter().enumerate() {
        for sample in &snapshot.samples {
            let place = places[&Arc::as_ptr(&sample.series)];
            requests[place / chunk][instant].1.push(sample.clone());
        }
    }
    requests
}

/// What all requests of one run took.
#[derive(Default)]
struct Cost {
    samples: usize,
    bytes: usize,
    took: Duration,
    packing: Duration,
    allocations: u64,
    snap_bytes: usize,
    snap_packing: Duration,
}

impl Cost {
    fn of(requests: impl Iterator<Item = Request>, mut each: impl FnMut(&[Part], &mut Self)) -> Self {
        let mut cost = Self::default();
        for request in requests {
            let parts: Vec<Part> = request.iter().map(|(at, samples)| Part::new(*at, samples)).collect();
            cost.samples += parts.iter().map(|part| part.samples.len()).sum::<usize>();
            each(black_box(&parts), &mut cost);
        }
        cost
    }

    fn nanos(&self, took: Duration) -> f64 {
        took.as_secs_f64() * 1e9 / self.samples as f64
    }

    #[expect(clippy::print_stdout, reason = "this is what the bench is for")]
    fn print(&self, shape: &str, what: &str) {
        let each = |count: f64| count / self.samples as f64;
        print!("| {shape} | {what} | {:.0} |", self.nanos(self.took));
        let bytes = each(self.bytes as f64);
        if self.packing.is_zero() {
            print!(" | {bytes:.2} | |");
        } else {
            print!(" {:.0} | {bytes:.2} | {:.3} |", self.nanos(self.packing), each(self.allocations as f64));
        }
        if self.snap_bytes == 0 {
            println!(" | |");
        } else {
            println!(" {:.0} | {:.2} |", self.nanos(self.snap_packing), each(self.snap_bytes as f64));
        }
    }
}

fn timed<T>(took: &mut Duration, of: impl FnOnce() -> T) -> T {
    let began = processor_time();
    let value = of();
    *took += processor_time().saturating_sub(began);
    value
}

/// Of this thread, because the machine may have other work.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a time that has passed")
}

/// All formats on the same requests.
fn compare<R: Iterator<Item = Request>>(shape: &str, external: &Labels, requests: impl Fn() -> R) {
    for (what, message, compression) in FORMATS {
        let (mut encoder, mut packer, mut snap) =
            (Encoder::new(external.clone(), None), Packer::new(), snap::raw::Encoder::new());
        let format = Format::new(message, compression);
        // The first time it meets the series; what counts is all the times after.
        Cost::of(requests(), |parts, _| drop(encoder.encode(parts, format)));
        let cost = Cost::of(requests(), |parts, cost| {
            let mut body = None;
            cost.allocations += allocation_counter::measure(|| body = Some(encoder.encode(parts, format))).count_total;
            cost.bytes += body.map_or(0, |body| body.bytes.len());
            let body = timed(&mut cost.took, || encoder.encode(parts, format));
            let message = outhaul::encode::unpack(&body.bytes, compression, body.message_bytes).expect("our own body");
            timed(&mut cost.packing, || packer.pack(black_box(&message), compression));
            if compression == Compression::Snappy {
                let body = timed(&mut cost.snap_packing, || snap.compress_vec(black_box(&message)));
                cost.snap_bytes += body.map_or(0, |body| body.len());
            }
        });
        cost.print(shape, what);
    }
}

#[expect(clippy::print_stdout, reason = "this is what the bench is for")]
fn header(first: &str) {
    println!();
    println!(
        "| {first} | body | ns/sample | of it packing | bytes/sample | allocations/sample | snap: packing | snap: bytes |"
    );
    println!("|---|---|---|---|---|---|---|---|");
}

fn main() {
    let is_quick = std::env::args().any(|argument| argument == "--quick");
    let external = Labels::builder().with("site", "roof-3").build_lossy();
    header("series × instants");
    for count in [1000, 10_000, 100_000].into_iter().take(if is_quick { 1 } else { 3 }) {
        let series = series(count);
        for instants in [1, 6, 30] {
            let shape = format!("{count} × {instants}");
            let cost = Cost::of(made_up(&series, instants), |parts, cost| {
                cost.bytes += timed(&mut cost.took, || one_shot::write(parts, &external)).len();
            });
            cost.print(&shape, "v1 one-shot");
            compare(&shape, &external, || made_up(&series, instants));
        }
    }
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/data/run.jsonl.zst");
    let recording = Recording::load(&fixture);
    header(&format!("{} recorded series: instants, samples", recording.series()));
    let snapshots: Vec<Snapshot> = recording.replay().skip(1).take(120).collect();
    for (instants, samples) in [(1, 2000), (6, 2000), (15, 2000), (30, 2000), (60, 2000), (120, 2000), (30, 10_000)] {
        let requests = recorded(&snapshots, instants, samples);
        compare(&format!("{instants}, {samples}"), &external, || requests.iter().cloned());
    }
    hostile();
}

/// What takes a packer longest.
#[expect(clippy::print_stdout, reason = "this is what the bench is for")]
fn hostile() {
    const BYTES: usize = 1 << 20;
    let mut state = 1_u32;
    let mut noise = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    let text = include_bytes!("encode.rs");
    let contents: [(&str, Vec<u8>); 5] = [
        ("noise", (0..BYTES).map(|_| noise()).collect()),
        ("zeros", vec![0; BYTES]),
        ("two values", (0..BYTES).map(|_| noise() & 1).collect()),
        ("a change each 23 bytes", (0..BYTES).map(|at| if at % 23 == 0 { noise() } else { 7 }).collect()),
        ("source code", text.iter().copied().cycle().take(BYTES).collect()),
    ];
    println!("\n| 1 MiB of | ns/byte | packed to | snap: ns/byte | snap: packed to |\n|---|---|---|---|---|");
    for (what, content) in contents {
        let (mut ours, mut snaps) = (Duration::ZERO, Duration::ZERO);
        let packed = timed(&mut ours, || Packer::new().pack(&content, Compression::Snappy)).len() as f64;
        let snap =
            timed(&mut snaps, || snap::raw::Encoder::new().compress_vec(&content)).map_or(0, |packed| packed.len());
        let (len, nanos) = (BYTES as f64, |took: Duration| took.as_secs_f64() * 1e9 / BYTES as f64);
        println!(
            "| {what} | {:.1} | {:.1} % | {:.1} | {:.1} % |",
            nanos(ours),
            packed / len * 100.0,
            nanos(snaps),
            snap as f64 / len * 100.0
        );
    }
}
