//! The sampling loop: a tick of every source, what happens between ticks, and into the buffer with it.
//!
//! Invariants: the network is never waited for here; a source that overruns its deadline is recorded as failed, never
//! queued; what is appended is in time order per series and never stamped before a sane date. The sampler decides no value and speaks no protocol.

mod outbox;
mod ticks;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt, join_all, select_all};
use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::buffer::Buffer;
use crate::clock::{Clock, SANE_SINCE};
use crate::model::{Snapshot, Timestamp};
use crate::shutdown::{Phase, Shutdown};
use crate::source::own::OwnSource;
use crate::source::{FailureReason, Observation, Source, SourceError};
use crate::staleness::{SourceIndex, Staleness};
use crate::telemetry::Registry;
use outbox::{APPEND_WAIT, Outbox};
use ticks::Ticks;

/// After how many intervals of silence a source's series end. Until then nothing new is said of them.
const STALE_AFTER_INTERVALS: u32 = 2;

/// Between ticks a source's state is saved at most this often: it can be large, and a replay of events covers what lies between.
const STATE_INTERVAL: Duration = Duration::from_secs(1);

/// How many events are taken in a row before a tick gets its turn again.
const EVENTS_AT_ONCE: usize = 64;

const WRONG_CLOCK: &str =
    "the system's clock is wrong, and nothing is recorded until it is right; it is set by NTP, or by hand with `date`";

/// How the sampler is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// One tick of every source.
    pub interval: Duration,
    /// A source's deadline within a tick.
    pub timeout: Duration,
    /// This host's name: what its phase on the grid follows from.
    pub host: String,
    /// The newest instant an earlier run recorded.
    pub recorded_until: Option<Timestamp>,
}

/// Whether the snapshot of [`Sampler::run_once`] is the last word on its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The series live on.
    Unmarked,
    /// Stale markers follow at once.
    Marked,
}

/// The task that samples.
pub struct Sampler {
    options: Options,
    sources: Vec<Tracked>,
    own: OwnSource,
    staleness: Staleness,
    buffer: Buffer,
    outbox: Outbox,
    clock: Clock,
    latest: watch::Sender<Arc<Snapshot>>,
    metrics: Metrics,
}

struct Tracked {
    source: Box<dyn Source>,
    /// When it last told everything.
    last_success: Option<Timestamp>,
    /// Since when it has told nothing; what staleness is measured from.
    silent_since: Option<Timestamp>,
    failing: bool,
    state_saved: Instant,
}

impl Sampler {
    /// A sampler of `sources`; `own` is read last in each tick, so that it tells of the tick it is part of.
    ///
    /// `latest` receives the last value of all that lives after each append.
    pub fn new(
        options: Options,
        sources: Vec<Box<dyn Source>>,
        own: OwnSource,
        buffer: Buffer,
        clock: Clock,
        registry: &Registry,
        latest: watch::Sender<Arc<Snapshot>>,
    ) -> Self {
        let metrics = Metrics::new(registry, sources.iter().map(|source| source.name()));
        let tracked = |source| Tracked {
            source,
            last_success: None,
            silent_since: None,
            failing: false,
            state_saved: Instant::now(),
        };
        Self {
            staleness: Staleness::new(options.recorded_until),
            sources: sources.into_iter().map(tracked).collect(),
            options,
            own,
            outbox: Outbox::new(registry, {
                let buffer = buffer.clone();
                Box::new(move |snapshot| {
                    let buffer = buffer.clone();
                    Box::pin(async move { buffer.append(snapshot).await })
                })
            }),
            buffer,
            clock,
            latest,
            metrics,
        }
    }

    /// Samples until told to drain. What is under way then is abandoned, unless it is already being appended.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        self.sample_until_draining(&mut shutdown).await;
        self.outbox.deliver_within(APPEND_WAIT).await;
        self.save_states().await;
    }

    async fn sample_until_draining(&mut self, shutdown: &mut Shutdown) {
        let mut ticks = Ticks::new(self.clock.clone(), self.options.interval, &self.options.host);
        loop {
            let happened = tokio::select! {
                biased;
                () = shutdown.reached(Phase::Draining) => return,
                at = ticks.next() => Happened::Tick(at),
                (source, observation) = next_event(&mut self.sources) => Happened::Event(source, observation),
            };
            match happened {
                Happened::Event(source, observation) => {
                    self.event(source, observation).await;
                    self.events_that_wait().await;
                    self.publish();
                }
                Happened::Tick(at) if at < SANE_SINCE => self.not_yet(at),
                Happened::Tick(at) => {
                    self.note_skipped(ticks.skipped());
                    let answers = tokio::select! {
                        biased;
                        () = shutdown.reached(Phase::Draining) => return,
                        answers = self.ask(at) => answers,
                    };
                    self.tick(at, answers).await;
                }
            }
        }
    }

    /// One tick and no more: for `once`.
    ///
    /// # Errors
    /// The first source that could not tell.
    pub async fn run_once(mut self, end: End) -> Result<(), SourceError> {
        let at = self.clock.now();
        if at < SANE_SINCE {
            let message = format!("{WRONG_CLOCK} (it shows {at})");
            return Err(SourceError { reason: FailureReason::Decode, message });
        }
        let answers = self.ask(at).await;
        let failed = answers.iter().find_map(|answer| answer.as_ref().err().cloned());
        self.tick(at, answers).await;
        if end == End::Marked {
            let ended = self.staleness.end_everything(at.plus(Duration::from_millis(1)));
            self.append(ended).await;
        }
        failed.map_or(Ok(()), Err)
    }

    /// A tick that must not be stamped. Sources still take their events meanwhile, so what they count is not lost.
    fn not_yet(&self, at: Timestamp) {
        self.metrics.ticks_before_sane_date.inc();
        tracing::error!(clock = %at, "{WRONG_CLOCK}");
    }

    fn note_skipped(&self, skipped: u64) {
        let new = skipped.saturating_sub(self.metrics.ticks_skipped.get());
        if new > 0 {
            self.metrics.ticks_skipped.inc_by(new);
            tracing::warn!(
                ticks = new,
                "ticks were skipped; the host, its engine or its disk is too slow for the interval"
            );
        }
    }

    async fn event(&mut self, source: SourceIndex, observation: Observation) {
        self.record(source, observation).await;
        if self.sources[source.0].state_saved.elapsed() >= STATE_INTERVAL {
            self.save_state(source).await;
        }
    }

    /// Takes what else is there already, so that a burst of events costs one picture of the present and not one each.
    async fn events_that_wait(&mut self) {
        for _ in 0..EVENTS_AT_ONCE {
            let Some((source, observation)) = next_event(&mut self.sources).now_or_never() else { return };
            self.event(source, observation).await;
        }
    }

    /// Asks every source at once, each within the deadline.
    async fn ask(&mut self, at: Timestamp) -> Vec<Result<Vec<Observation>, SourceError>> {
        let timeout = self.options.timeout;
        let metrics = &self.metrics;
        join_all(self.sources.iter_mut().map(|tracked| async move {
            let began = Instant::now();
            let name = tracked.source.name().to_owned();
            let answer = tokio::time::timeout(timeout, tracked.source.sample(at)).await;
            metrics.refresh_seconds.with_label_values(&[&name]).set(began.elapsed().as_secs_f64());
            answer.unwrap_or_else(|_| Err(overran(&name, timeout)))
        }))
        .await
    }

    async fn tick(&mut self, at: Timestamp, answers: Vec<Result<Vec<Observation>, SourceError>>) {
        self.metrics.ticks.inc();
        let mut observations = Vec::new();
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(told) => {
                    self.succeeded(index, at);
                    observations.extend(told.into_iter().map(|observation| (SourceIndex(index), observation)));
                }
                Err(error) => self.failed(index, at, &error).await,
            }
        }
        // Stable: what one source told for one instant stays in its order.
        observations.sort_by_key(|(_, observation)| observation.at);
        for (source, observation) in observations {
            self.record(source, observation).await;
        }
        self.save_states().await;
        self.own_tick(at).await;
        self.publish();
    }

    async fn record(&mut self, source: SourceIndex, observation: Observation) {
        if observation.at < SANE_SINCE {
            self.metrics.samples_before_sane_date.inc_by(observation.samples.len() as u64);
            return;
        }
        let snapshots = self.staleness.apply(source, observation);
        self.append(snapshots).await;
    }

    async fn own_tick(&mut self, at: Timestamp) {
        self.metrics.observe(&self.staleness, &self.sources, at);
        let own = SourceIndex(self.sources.len());
        // Infallible: reading the registry is no I/O.
        for observation in self.own.sample(at).await.unwrap_or_default() {
            let snapshots = self.staleness.apply(own, observation);
            self.append(snapshots).await;
        }
    }

    fn succeeded(&mut self, index: usize, at: Timestamp) {
        let tracked = &mut self.sources[index];
        if std::mem::take(&mut tracked.failing) {
            tracing::info!(source = tracked.source.name(), "source answers again");
        }
        tracked.last_success = Some(at);
        tracked.silent_since = None;
    }

    async fn failed(&mut self, index: usize, at: Timestamp, error: &SourceError) {
        let stale_after = self.options.interval * STALE_AFTER_INTERVALS;
        let tracked = &mut self.sources[index];
        tracked.failing = true;
        let name = tracked.source.name();
        self.metrics.errors.with_label_values(&[name, error.reason.word()]).inc();
        tracing::warn!(source = name, reason = error.reason.word(), error = %error, "source cannot be sampled");
        let silent_since = *tracked.silent_since.get_or_insert(tracked.last_success.unwrap_or(at));
        if at.since(silent_since) >= stale_after {
            let ended = self.staleness.end_source(SourceIndex(index), at);
            self.append(ended).await;
        }
    }

    async fn append(&mut self, snapshots: Vec<Snapshot>) {
        self.outbox.push(snapshots).await;
    }

    async fn save_states(&mut self) {
        for index in 0..self.sources.len() {
            self.save_state(SourceIndex(index)).await;
        }
    }

    /// Keeps what a source must remember; called after the samples it explains were appended.
    async fn save_state(&mut self, source: SourceIndex) {
        // What a state explains must be in the buffer before it.
        if self.outbox.is_late() {
            return;
        }
        let tracked = &mut self.sources[source.0];
        let Some(state) = tracked.source.take_state() else { return };
        tracked.state_saved = Instant::now();
        let name = tracked.source.name();
        let saved = tokio::time::timeout(APPEND_WAIT, self.buffer.save_state(name, state)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(source = name, error = %error, "state of a source cannot be saved; counters may start anew after a restart");
        }
    }

    fn publish(&self) {
        self.latest.send_replace(Arc::new(self.staleness.present()));
    }
}

enum Happened {
    Tick(Timestamp),
    Event(SourceIndex, Observation),
}

/// The next event of any source; never resolves without sources. Cancel-safe, because each source's future is.
async fn next_event(sources: &mut [Tracked]) -> (SourceIndex, Observation) {
    if sources.is_empty() {
        return std::future::pending().await;
    }
    let (observation, index, _) = select_all(sources.iter_mut().map(|tracked| tracked.source.next_event())).await;
    (SourceIndex(index), observation)
}

fn overran(name: &str, timeout: Duration) -> SourceError {
    SourceError {
        reason: FailureReason::Timeout,
        message: format!("source {name} did not answer within {timeout:?}; its engine may be overloaded or hang"),
    }
}

struct Metrics {
    ticks: IntCounter,
    ticks_skipped: IntCounter,
    ticks_before_sane_date: IntCounter,
    samples_before_sane_date: IntCounter,
    up: GaugeVec,
    errors: IntCounterVec,
    refresh_seconds: GaugeVec,
    snapshot_age_seconds: GaugeVec,
    series: Gauge,
    late: IntCounter,
    duplicate: IntCounter,
}

impl Metrics {
    fn new<'a>(registry: &Registry, sources: impl Iterator<Item = &'a str>) -> Self {
        let errors = registry.counters(
            "outhaul_source_errors_total",
            "Ticks in which a source could not tell, by reason.",
            &["source", "reason"],
        );
        for source in sources {
            for reason in FailureReason::ALL {
                errors.with_label_values(&[source, reason.word()]);
            }
        }
        Self {
            ticks: registry.counter("outhaul_ticks_total", "Ticks sampled."),
            ticks_skipped: registry.counter("outhaul_ticks_skipped_total", "Ticks overslept, because the host or the disk was too slow."),
            ticks_before_sane_date: registry.counter(
                "outhaul_ticks_before_sane_date_total",
                "Ticks that were not sampled, because the clock showed a time before 2024.",
            ),
            samples_before_sane_date: registry.counter(
                "outhaul_samples_before_sane_date_total",
                "Samples of events that were not recorded, because they were stamped before 2024.",
            ),
            up: registry.gauges("outhaul_source_up", "Whether the source told everything at the last tick.", &["source"]),
            errors,
            refresh_seconds: registry.gauges("outhaul_source_refresh_seconds", "How long the source took at the last tick.", &["source"]),
            snapshot_age_seconds: registry.gauges(
                "outhaul_source_snapshot_age_seconds",
                "How long ago the source last told everything; absent until it first did.",
                &["source"],
            ),
            series: registry.gauge("outhaul_series", "Series alive."),
            late: registry.counter("outhaul_samples_late_total", "Samples that came out of order and were stamped just after their series' last one."),
            duplicate: registry.counter("outhaul_samples_duplicate_total", "Samples dropped because their series already had a value at that instant or belongs to another source."),
        }
    }

    fn observe(&self, staleness: &Staleness, sources: &[Tracked], at: Timestamp) {
        let counts = staleness.counts();
        self.late.inc_by(counts.late - self.late.get());
        self.duplicate.inc_by(counts.duplicate - self.duplicate.get());
        self.series.set(staleness.len() as f64);
        for tracked in sources {
            let name = tracked.source.name();
            self.up.with_label_values(&[name]).set(f64::from(u8::from(!tracked.failing)));
            if let Some(last) = tracked.last_success {
                self.snapshot_age_seconds.with_label_values(&[name]).set(at.since(last).as_secs_f64());
            }
        }
    }
}
