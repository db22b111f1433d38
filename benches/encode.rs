//! What a remote-write 1.0 body costs: time to make it, and bytes on the wire.
//!
//! 100 containers with 15 series each, labelled as outhaul labels them. Prints nanoseconds and bytes a sample.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use outhaul::encode::{Part, v1};
use outhaul::model::{Labels, Metadata, MetricKind, Sample, Series, Snapshot, Target, Timestamp, Value};

const CONTAINERS: u32 = 100;
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

fn snapshot(at_secs: u32) -> Snapshot {
    let target = Target::new("edge-roof-3");
    let mut samples = Vec::new();
    for container in 0..CONTAINERS {
        for (ordinal, family) in (0_u32..).zip(FAMILIES) {
            let metadata = Arc::new(Metadata::of(family, MetricKind::Gauge, "A number about a container."));
            let labels = target.series(family).with("name", format!("shop-worker-{container}"));
            let labels = labels.with("image", "registry.example.org/shop/worker:2026.11.1").build_lossy();
            // Three in ten change from one instant to the next.
            let moves = if ordinal % 10 < 3 { at_secs } else { 0 };
            let value = f64::from(container * 7 + ordinal + moves);
            samples.push(Sample::new(Arc::new(Series::new(labels, metadata)), Value::new(value)));
        }
    }
    Snapshot::new(Timestamp::from_millis(1_795_226_444_035 + i64::from(at_secs) * 1000), samples)
}

#[expect(clippy::print_stdout, reason = "this is what the bench is for")]
fn report(name: &str, snapshots: &[Snapshot], external: &Labels) {
    const ROUNDS: u32 = 50;
    let body = v1::write_request(snapshots.iter().map(Part::from), external);
    let began = Instant::now();
    for _ in 0..ROUNDS {
        black_box(v1::write_request(black_box(snapshots).iter().map(Part::from), external));
    }
    let samples = body.entries as f64;
    let nanos = began.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS) / samples;
    println!("{name}: {samples} samples, {nanos:.0} ns/sample, {:.2} bytes/sample", body.bytes.len() as f64 / samples);
}

fn main() {
    let external = Labels::builder().with("site", "roof-3").build_lossy();
    let one = [snapshot(0)];
    let many: Vec<Snapshot> = (0..10).map(|tick| snapshot(tick * 10)).collect();
    report("one instant", &one, &external);
    report("ten instants joined", &many, &external);

    let mut criterion = Criterion::default().measurement_time(Duration::from_secs(3)).configure_from_args();
    let mut group = criterion.benchmark_group("v1");
    for (name, snapshots) in [("one instant", one.as_slice()), ("ten instants joined", &many)] {
        let samples: usize = snapshots.iter().map(|snapshot| snapshot.samples.len()).sum();
        group.throughput(Throughput::Elements(samples as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| v1::write_request(black_box(snapshots).iter().map(Part::from), &external));
        });
    }
    group.finish();
    criterion.final_summary();
}
