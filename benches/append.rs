//! What appending to the buffer and reading from it costs, and what a sample takes on disk.
//!
//! 100 containers with 15 series each; a third of the values change from one snapshot to the next.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outhaul::buffer::{Buffer, EndpointId, Fates, Limits, Options, SyncPolicy};
use outhaul::model::{Interner, Metadata, MetricKind, Sample, Series, Snapshot, Target, Timestamp, Value};

const CONTAINERS: usize = 100;
const SERIES_EACH: usize = 15;
const SAMPLES: usize = CONTAINERS * SERIES_EACH;
/// Snapshots read back, some 10 MB of them.
const BACKLOG: i64 = 1_000;
const LIMITS: Limits = Limits { instants_max: 10, samples_max: 20_000 };

fn all_series() -> Vec<Arc<Series>> {
    let mut interner = Interner::default();
    let target = Target::new("roof-3.example.net");
    let mut all = Vec::with_capacity(SAMPLES);
    for container in 0..CONTAINERS {
        for metric in 0..SERIES_EACH {
            let name = format!("docker_container_metric_{metric}");
            let labels = target
                .series(&name)
                .with("name", format!("project-service-{container}"))
                .with("image", "registry.example.net/team/service:1.27.3")
                .with("compose_project", "project")
                .with("compose_service", format!("service-{container}"));
            let metadata = Metadata {
                family: name.into(),
                kind: MetricKind::Gauge,
                help: "What is measured, in one sentence.".into(),
                unit: "".into(),
            };
            all.push(interner.intern(labels.build().expect("valid labels"), &Arc::new(metadata)));
        }
    }
    all
}

fn snapshot(all: &[Arc<Series>], at: i64) -> Snapshot {
    let value = |index: usize| match index % 3 {
        0 => Value::new((at * 1_000 + i64::try_from(index).unwrap_or(0)) as f64 / 7.0),
        1 => Value::new(1.0),
        _ => Value::new(1_795_226_444.035),
    };
    let samples = all.iter().enumerate().map(|(index, series)| Sample::new(series.clone(), value(index)));
    Snapshot::new(Timestamp::from_millis(at * 10_000), samples.collect())
}

fn open(dir: &std::path::Path, sync: SyncPolicy) -> Buffer {
    let options = Options {
        path: dir.to_owned(),
        max_bytes: 256 << 20,
        max_age: None,
        min_free: Some(0),
        sync,
        endpoints: vec!["bench".to_owned()],
    };
    Buffer::open(options).expect("a temporary directory opens")
}

fn benches(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    let all = all_series();
    let mut group = criterion.benchmark_group("buffer");
    group.throughput(Throughput::Elements(SAMPLES as u64));
    for (name, sync) in [("append/never", SyncPolicy::Never), ("append/always", SyncPolicy::Always)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let buffer = open(dir.path(), sync);
        let mut at = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                at += 1;
                runtime.block_on(buffer.append(snapshot(&all, at))).expect("appends")
            });
        });
        runtime.block_on(buffer.close());
    }

    let dir = tempfile::tempdir().expect("a temporary directory");
    let buffer = open(dir.path(), SyncPolicy::Never);
    for at in 0..BACKLOG {
        runtime.block_on(buffer.append(snapshot(&all, at))).expect("appends");
    }
    let bytes: u64 = buffer.status().endpoints.iter().map(|endpoint| endpoint.pending_bytes).sum();
    let samples = BACKLOG as u64 * SAMPLES as u64;
    #[expect(clippy::print_stderr, reason = "the figure a reader of the benchmark wants")]
    {
        eprintln!("on disk: {:.2} bytes a sample, definitions included", bytes as f64 / samples as f64);
    }
    group.throughput(Throughput::Elements((LIMITS.instants_max * SAMPLES) as u64));
    group.bench_function("next", |bencher| {
        bencher.iter(|| black_box(runtime.block_on(buffer.next(EndpointId(0), LIMITS))));
    });
    group.finish();
    while let Some(lease) = runtime.block_on(buffer.next(EndpointId(0), LIMITS)) {
        let fates = Fates { delivered: lease.samples, ..Fates::default() };
        runtime.block_on(buffer.ack(EndpointId(0), lease.through, fates));
    }
    runtime.block_on(buffer.close());
}

criterion_group!(append, benches);
criterion_main!(append);
