//! Wall time that never runs backwards, and what is known about how right it is.
//!
//! Every stamp in the program comes from a [`Clock`] that is handed in. What it tells follows the system's wall clock forward
//! and, when that is set back, goes on slowly until it has caught up (`timeline` has the rule), so that samples stay in order.
//! Steps are found by comparing with the monotonic clock, said and counted. Before [`SANE_SINCE`] nothing may be stamped:
//! a host without a clock chip starts in 1970.

mod skew;
mod timeline;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use prometheus::{Gauge, IntCounterVec};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

pub use skew::{Said, Skew, SkewMetric, TOLERANCE, skew_millis};
use timeline::{Reading, Timeline};

use crate::model::Timestamp;
use crate::telemetry::Registry;

/// 2024-01-01T00:00:00Z: this program is younger, so an earlier time is wrong.
pub const SANE_SINCE: Timestamp = Timestamp::from_millis(1_704_067_200_000);

/// When a counter began that is first told of at `at`, or of which nothing was counted by then: a start lies before the first
/// stamp. Under a clock that cannot be right there is none, which is better than one in 1970.
pub fn start_before(at: Timestamp) -> Option<Timestamp> {
    (at >= SANE_SINCE).then(|| at.minus(Duration::from_millis(1)))
}

/// Sleeps until then; for good where that is never.
pub async fn sleep_until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

const NANOS_PER_MILLI: i128 = 1_000_000;

/// A handle on the time; clones share one.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

struct Inner {
    timeline: Mutex<Timeline>,
    system: bool,
    metrics: OnceLock<Metrics>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("timeline", &self.timeline).field("system", &self.system).finish_non_exhaustive()
    }
}

struct Metrics {
    steps: IntCounterVec,
    last_step: Gauge,
    ahead: Gauge,
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Self {
        Self::new(Timeline::new(system_reading()), true)
    }

    /// A clock that shows what it is told; for tests.
    pub fn manual(at: Timestamp) -> Self {
        Self::new(Timeline::new(Reading { wall: nanos(at), monotonic: 0 }), false)
    }

    fn new(timeline: Timeline, system: bool) -> Self {
        Self(Arc::new(Inner { timeline: Mutex::new(timeline), system, metrics: OnceLock::new() }))
    }

    /// Shows the steps of this clock in `registry` from now on.
    ///
    /// # Panics
    /// When it is done twice with one registry.
    pub fn register(&self, registry: &Registry) {
        let metrics = Metrics {
            steps: registry.counters("outhaul_clock_steps_total", "Steps of the system's clock.", &["direction"]),
            last_step: registry.gauge(
                "outhaul_clock_last_step_seconds",
                "Size of the last step of the system's clock; negative is back.",
            ),
            ahead: registry.gauge(
                "outhaul_clock_ahead_seconds",
                "How far stamps are ahead of the system's clock, because it was set back.",
            ),
        };
        for direction in ["forward", "back"] {
            metrics.steps.with_label_values(&[direction]);
        }
        // A second registry would show nothing; there is one.
        drop(self.0.metrics.set(metrics));
    }

    /// Now; never earlier than any instant told before.
    pub fn now(&self) -> Timestamp {
        if self.0.system {
            return self.advance(system_reading());
        }
        at_nanos(self.timeline().told())
    }

    /// Whether what the clock tells can be true, so that samples may be stamped with it.
    pub fn is_sane(&self) -> bool {
        self.now() >= SANE_SINCE
    }

    /// Moves the clock forward to `at`: a manual clock in a test, or the system's at start, to stand after everything already recorded.
    pub fn at_least(&self, at: Timestamp) {
        self.timeline().at_least(nanos(at));
    }

    fn timeline(&self) -> std::sync::MutexGuard<'_, Timeline> {
        // Plain numbers, whole at any moment.
        self.0.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self, reading: Reading) -> Timestamp {
        let (told, ahead, step) = {
            let mut timeline = self.timeline();
            let step = timeline.advance(reading);
            (timeline.told(), timeline.ahead(), step)
        };
        if let Some(metrics) = self.0.metrics.get() {
            metrics.ahead.set(seconds(ahead));
        }
        if let Some(step) = step {
            self.stepped(step, ahead);
        }
        at_nanos(told)
    }

    fn stepped(&self, step: i128, ahead: i128) {
        let direction = if step > 0 { "forward" } else { "back" };
        if let Some(metrics) = self.0.metrics.get() {
            metrics.steps.with_label_values(&[direction]).inc();
            metrics.last_step.set(seconds(step));
        }
        let step_seconds = seconds(step);
        if step < 0 && ahead > i128::try_from(TOLERANCE.as_nanos()).unwrap_or(i128::MAX) {
            tracing::error!(
                step_seconds,
                ahead_seconds = seconds(ahead),
                "the system's clock was set back; stamps stay in order and are slowly brought back to it, but are too far ahead for most receivers until then: restart outhaul to follow the clock at once"
            );
        } else if ahead > 0 && step > 0 {
            tracing::warn!(
                step_seconds,
                ahead_seconds = seconds(ahead),
                "the system's clock was set forward; stamps are still ahead of it and are slowly brought back"
            );
        } else if ahead > 0 {
            tracing::warn!(
                step_seconds,
                "the system's clock was set back; stamps stay in order and are slowly brought back to it"
            );
        } else {
            tracing::warn!(step_seconds, direction, "the system's clock was set; stamps follow it");
        }
    }
}

fn nanos(at: Timestamp) -> i128 {
    i128::from(at.millis()) * NANOS_PER_MILLI
}

fn at_nanos(nanos: i128) -> Timestamp {
    let millis = nanos.div_euclid(NANOS_PER_MILLI);
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(if millis > 0 { i64::MAX } else { i64::MIN }))
}

fn seconds(nanos: i128) -> f64 {
    nanos as f64 / 1e9
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks the system for the time")]
fn system_reading() -> Reading {
    let wall = match std::time::SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => nanos_of(since),
        Err(before) => -nanos_of(before.duration()),
    };
    // Unlike CLOCK_MONOTONIC it goes on while the host sleeps (clock_gettime(2)), as the wall clock does.
    let booted = clock_gettime(ClockId::Boottime);
    Reading { wall, monotonic: i128::from(booted.tv_sec) * 1_000_000_000 + i128::from(booted.tv_nsec) }
}

fn nanos_of(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall: Timestamp, monotonic: Duration) -> Reading {
        Reading { wall: nanos(wall), monotonic: nanos_of(monotonic) }
    }

    #[test]
    fn time_never_runs_backwards_even_when_the_system_clock_does() {
        let clock = Clock::system();
        let ahead = clock.now().plus(Duration::from_secs(3600));
        clock.at_least(ahead);
        let now = clock.now();
        assert!(now >= ahead && now < ahead.plus(Duration::from_secs(60)), "{now} {ahead}");
    }

    #[test]
    fn a_manual_clock_shows_what_it_is_told() {
        let clock = Clock::manual(Timestamp::from_millis(5));
        clock.at_least(Timestamp::from_millis(7));
        assert_eq!(clock.clone().now().millis(), 7);
    }

    #[test]
    fn the_extremes_of_time_are_told_as_they_are() {
        for extreme in [Timestamp::MIN, Timestamp::from_millis(i64::MAX)] {
            assert_eq!(Clock::manual(extreme).now(), extreme);
        }
    }

    #[test]
    fn steps_are_counted_with_the_size_of_the_last() {
        let (registry, start) = (Registry::new(), SANE_SINCE);
        let clock = Clock::manual(start);
        clock.register(&registry);
        let second = Duration::from_secs(1);
        clock.advance(reading(start.plus(second), second));
        clock.advance(reading(start.plus(3600 * second), 2 * second));
        let told = clock.advance(reading(start.plus(1800 * second), 3 * second));
        assert_eq!(told, start.plus(3600 * second).plus(second / 2));
        let values: Vec<(String, f64)> = registry.gather().iter().flat_map(values_of).collect();
        let expected = [
            ("outhaul_clock_ahead_seconds", 1800.5),
            ("outhaul_clock_last_step_seconds", -1801.0),
            ("outhaul_clock_steps_total back", 1.0),
            ("outhaul_clock_steps_total forward", 1.0),
        ];
        assert_eq!(values, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    fn values_of(family: &prometheus::proto::MetricFamily) -> Vec<(String, f64)> {
        let one = |metric: &prometheus::proto::Metric| {
            let labels: String = metric.get_label().iter().flat_map(|label| [" ", label.value()]).collect();
            (format!("{}{labels}", family.name()), metric.get_counter().get_value() + metric.get_gauge().get_value())
        };
        family.get_metric().iter().map(one).collect()
    }

    #[test]
    fn a_clock_before_this_program_is_not_sane() {
        assert!(!Clock::manual(Timestamp::from_millis(0)).is_sane());
        assert!(Clock::manual(SANE_SINCE).is_sane());
        assert_eq!(SANE_SINCE.to_string(), "2024-01-01T00:00:00.000Z");
    }
}
