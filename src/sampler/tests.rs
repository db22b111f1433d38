//! The sampler and the clock: what is recorded when, with scripted sources.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::buffer::{self, SyncPolicy};
use crate::model::{Labels, Metadata, MetricKind, Sample, Series, Target, Value};
use crate::shutdown;
use crate::source::{Scope, SourceFuture};

/// Tells one series, at each tick and once as an event.
struct Scripted {
    event_at: Option<Timestamp>,
    asked: Arc<AtomicUsize>,
}

fn samples() -> Vec<Sample> {
    let labels = Labels::builder().with("__name__", "x").build().unwrap();
    let series = Arc::new(Series::new(labels, Arc::new(Metadata::of("x", MetricKind::Gauge, "x"))));
    vec![Sample::new(series, Value::new(1.0))]
}

impl Source for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn next_event(&mut self) -> SourceFuture<'_, Observation> {
        match self.event_at.take() {
            Some(at) => Box::pin(async move { Observation { at, scope: Scope::Change, samples: samples() } }),
            None => Box::pin(std::future::pending()),
        }
    }

    fn sample(&mut self, at: Timestamp) -> SourceFuture<'_, Result<Vec<Observation>, SourceError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { Ok(vec![Observation { at, scope: Scope::Everything, samples: samples() }]) })
    }
}

struct Rig {
    sampler: Sampler,
    clock: Clock,
    buffer: Buffer,
    registry: Registry,
    latest: watch::Receiver<Arc<Snapshot>>,
    asked: Arc<AtomicUsize>,
    _directory: tempfile::TempDir,
}

fn rig(clock_at: Timestamp, event_at: Option<Timestamp>) -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let options = buffer::Options {
        path: directory.path().to_owned(),
        max_bytes: 1 << 20,
        max_age: None,
        min_free: Some(0),
        sync: SyncPolicy::Never,
        endpoints: vec!["endpoint".to_owned()],
    };
    let buffer = Buffer::open(options).unwrap();
    let (clock, registry, asked) = (Clock::manual(clock_at), Registry::new(), Arc::<AtomicUsize>::default());
    let (publish, latest) = watch::channel(Arc::new(Snapshot::new(Timestamp::MIN, Vec::new())));
    let sampler = Sampler::new(
        Options {
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(10),
            host: "h".to_owned(),
            recorded_until: None,
        },
        vec![Box::new(Scripted { event_at, asked: Arc::clone(&asked) })],
        OwnSource::new(registry.clone(), Target::new("h"), Box::new(|| {})),
        buffer.clone(),
        clock.clone(),
        &registry,
        publish,
    );
    Rig { sampler, clock, buffer, registry, latest, asked, _directory: directory }
}

#[tokio::test]
async fn nothing_is_recorded_before_a_sane_date_and_everything_after_it() {
    let mut rig = rig(Timestamp::from_millis(5_000), Some(Timestamp::from_millis(4_000)));
    let (trigger, phase) = shutdown::channel();
    let task = tokio::spawn(rig.sampler.run(phase));
    while rig.registry.value("outhaul_ticks_before_sane_date_total") < 3.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.asked.load(Ordering::Relaxed), 0);
    assert_eq!(rig.buffer.status().last_at, None);
    let right = SANE_SINCE.plus(Duration::from_secs(1));
    rig.clock.at_least(right);
    rig.latest.wait_for(|snapshot| !snapshot.samples.is_empty()).await.unwrap();
    assert!(rig.buffer.status().last_at >= Some(right));
    assert!((rig.registry.value("outhaul_samples_before_sane_date_total") - 1.0).abs() < f64::EPSILON);
    trigger.advance(Phase::Draining);
    task.await.unwrap();
}

#[tokio::test]
async fn a_single_snapshot_under_a_wrong_clock_is_an_error_that_says_so() {
    let rig = rig(Timestamp::from_millis(5_000), None);
    let error = rig.sampler.run_once(End::Unmarked).await.unwrap_err();
    assert!(error.message.starts_with("the system's clock is wrong") && !error.message.contains('\n'), "{error}");
    assert_eq!(rig.buffer.status().last_at, None);
}
