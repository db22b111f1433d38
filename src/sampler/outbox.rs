//! What waits between the sampler and the buffer: nothing, unless the buffer's disk hangs.
//!
//! Invariants: snapshots are handed over in their order, one at a time; the sampler waits once for a disk that hangs and not
//! again until that answers; what waits is bounded, and what finds no room is counted.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use prometheus::{Gauge, IntCounter};
use tokio::time::Instant;

use crate::buffer::{AppendError, Appended};
use crate::model::Snapshot;
use crate::telemetry::Registry;

/// How long the sampler waits for the buffer. A disk that hangs must not stop sampling; what was handed over is still written.
pub(super) const APPEND_WAIT: Duration = Duration::from_secs(2);

/// The most samples that wait for a buffer whose disk hangs; they take 40 bytes each in memory, and share their labels.
const WAITING_SAMPLES_MAX: usize = 50_000;

type Append = Box<dyn Fn(Snapshot) -> BoxFuture<'static, Result<Appended, AppendError>> + Send>;

/// See the module.
pub(super) struct Outbox {
    append: Append,
    under_way: Option<UnderWay>,
    waiting: VecDeque<Snapshot>,
    waiting_samples: usize,
    is_late: bool,
    overdue: Gauge,
    lost: IntCounter,
}

/// A snapshot that the buffer has been given and has not confirmed.
struct UnderWay {
    samples: usize,
    done: BoxFuture<'static, Result<Appended, AppendError>>,
}

impl Outbox {
    /// Hands over by `append`.
    pub(super) fn new(registry: &Registry, append: Append) -> Self {
        Self {
            append,
            under_way: None,
            waiting: VecDeque::new(),
            waiting_samples: 0,
            is_late: false,
            overdue: registry
                .gauge("outhaul_samples_overdue", "Samples that the buffer has not confirmed, because its disk hangs."),
            lost: registry.counter(
                "outhaul_samples_unbuffered_total",
                "Samples lost on their way to the buffer, because its disk hung for too long; they are in no ledger.",
            ),
        }
    }

    /// Whether the buffer does not answer in time.
    pub(super) fn is_late(&self) -> bool {
        self.is_late
    }

    /// Hands `snapshots` over, after those that wait.
    pub(super) async fn push(&mut self, snapshots: Vec<Snapshot>) {
        for snapshot in snapshots {
            self.waiting_samples += snapshot.sample_count();
            self.waiting.push_back(snapshot);
        }
        while self.waiting_samples > WAITING_SAMPLES_MAX
            && self.waiting.len() > 1
            && self.is_late
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.waiting_samples -= oldest.sample_count();
            self.lost.inc_by(oldest.sample_count() as u64);
            tracing::error!(samples = oldest.sample_count(), "buffer does not answer for too long; samples are lost");
        }
        // A buffer that was late is looked at, and waited for only once it has answered.
        self.deliver_within(if self.is_late { Duration::ZERO } else { APPEND_WAIT }).await;
    }

    /// Hands over what waits, if the buffer answers within `patience`.
    pub(super) async fn deliver_within(&mut self, patience: Duration) {
        let mut deadline = Instant::now() + patience;
        while let Some(mut next) = self.under_way.take().or_else(|| self.next()) {
            let Ok(result) = tokio::time::timeout_at(deadline, &mut next.done).await else {
                return self.wait_for(next);
            };
            note(next.samples, &result);
            if std::mem::take(&mut self.is_late) {
                tracing::info!("buffer answers again");
                deadline = Instant::now() + APPEND_WAIT;
            }
        }
        self.overdue.set(0.0);
    }

    fn wait_for(&mut self, under_way: UnderWay) {
        if !std::mem::replace(&mut self.is_late, true) {
            tracing::error!("buffer does not answer; its disk may hang; samples wait in memory");
        }
        self.overdue.set((self.waiting_samples + under_way.samples) as f64);
        self.under_way = Some(under_way);
    }

    fn next(&mut self) -> Option<UnderWay> {
        let snapshot = self.waiting.pop_front()?;
        let samples = snapshot.sample_count();
        self.waiting_samples -= samples;
        Some(UnderWay { samples, done: (self.append)(snapshot) })
    }
}

/// The buffer keeps what it cannot write in memory, and counts and reports what it must drop: whatever happens there,
/// sampling goes on.
fn note(samples: usize, result: &Result<Appended, AppendError>) {
    if let Err(error) = result {
        tracing::error!(samples, %error, "buffer took no sample");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::Notify;

    use super::*;
    use crate::model::{Labels, Metadata, MetricKind, Sample, Series, Timestamp, Value};

    /// A snapshot of so many samples at this instant.
    fn snapshot(at: i64, samples: usize) -> Snapshot {
        let labels = Labels::builder().with("__name__", "up").build().unwrap();
        let series = Arc::new(Series::new(labels, Arc::new(Metadata::of("up", MetricKind::Gauge, ""))));
        Snapshot::new(Timestamp::from_millis(at), vec![Sample::new(series, Value::new(1.0)); samples])
    }

    /// A buffer that keeps what it is given, once it is let.
    struct Hanging {
        kept: Arc<Mutex<Vec<i64>>>,
        go: Arc<Notify>,
        outbox: Outbox,
        registry: Registry,
    }

    fn hanging() -> Hanging {
        let (kept, go, registry) = (Arc::<Mutex<Vec<i64>>>::default(), Arc::new(Notify::new()), Registry::new());
        let (keep, gate) = (Arc::clone(&kept), Arc::clone(&go));
        let append: Append = Box::new(move |snapshot| {
            let (keep, gate) = (Arc::clone(&keep), Arc::clone(&gate));
            Box::pin(async move {
                gate.notified().await;
                keep.lock().unwrap().push(snapshot.at.millis());
                gate.notify_one();
                Err(AppendError::Closed)
            })
        });
        let outbox = Outbox::new(&registry, append);
        Hanging { kept, go, outbox, registry }
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_is_waited_for_once_and_everything_is_handed_over_in_order_when_it_answers() {
        let Hanging { kept, go, mut outbox, registry } = hanging();
        let began = Instant::now();
        for at in 0..100 {
            outbox.push(vec![snapshot(at, 3)]).await;
        }
        assert!(began.elapsed() < 2 * APPEND_WAIT, "{:?}", began.elapsed());
        assert!(outbox.is_late() && kept.lock().unwrap().is_empty());
        assert!((registry.value("outhaul_samples_overdue") - 300.0).abs() < f64::EPSILON);
        go.notify_one();
        outbox.push(vec![snapshot(100, 3)]).await;
        assert!(!outbox.is_late());
        assert_eq!(*kept.lock().unwrap(), (0..=100).collect::<Vec<i64>>());
        assert!(registry.value("outhaul_samples_overdue").abs() < f64::EPSILON);
        assert!(registry.value("outhaul_samples_unbuffered_total").abs() < f64::EPSILON);
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_the_oldest_is_lost_and_counted() {
        let Hanging { kept, go, mut outbox, registry } = hanging();
        for at in 0..8 {
            outbox.push(vec![snapshot(at, 10_000)]).await;
        }
        assert!((registry.value("outhaul_samples_unbuffered_total") - 20_000.0).abs() < f64::EPSILON);
        go.notify_one();
        outbox.deliver_within(APPEND_WAIT).await;
        assert_eq!(*kept.lock().unwrap(), [0, 3, 4, 5, 6, 7], "the first one was under way already");
    }
}
