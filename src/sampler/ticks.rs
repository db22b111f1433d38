//! When the sampler ticks: on a grid of the interval, shifted by a phase of this host's own.
//!
//! The grid makes stamps of one series evenly spaced (and so cheap to store); the phase keeps a fleet from sampling and
//! sending in the same instant. A tick that was overslept is skipped and counted, never queued.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::model::Timestamp;

/// How late a tick may fire and still carry its place on the grid; later ones carry the time they fired.
///
/// Prometheus aligns scrape timestamps within 2 ms; ours may be looser because a source reports its state *as of* the tick.
const GRID_TOLERANCE: Duration = Duration::from_millis(20);

/// A clock that was set back goes on slowly (`clock`): no tick waits longer for its place than the interval and this share of
/// it, which is more than slewing takes.
const BEHIND_SHARE: u32 = 8;

/// The least by which a tick stands after the one before it, also while the clock stands still.
const STEP: Duration = Duration::from_millis(1);

/// The grid of one agent.
#[derive(Debug)]
pub(super) struct Ticks {
    clock: Clock,
    interval: Duration,
    phase: Duration,
    last: Option<Timestamp>,
    /// When the last one fired, by a clock that makes no steps.
    fired_at: Instant,
    skipped: u64,
}

impl Ticks {
    /// Ticks every `interval`, shifted by a phase that follows from `host`.
    pub(super) fn new(clock: Clock, interval: Duration, host: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        host.hash(&mut hasher);
        let interval_millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let phase = Duration::from_millis(hasher.finish() % interval_millis);
        Self { clock, interval, phase, last: None, fired_at: Instant::now(), skipped: 0 }
    }

    /// Resolves with the next tick's time; the very first comes at once. Cancel-safe.
    pub(super) async fn next(&mut self) -> Timestamp {
        let Some(last) = self.last else {
            return self.fired(self.clock.now());
        };
        let due = self.after(last);
        let patience = self.interval + self.interval / BEHIND_SHARE;
        let mut now = self.clock.now();
        loop {
            let wait = due.since(now).min(patience.saturating_sub(self.fired_at.elapsed()));
            // An overdue tick is ready at the first look, or events that are always ready would go before it for ever.
            if wait.is_zero() {
                break;
            }
            tokio::time::sleep(wait).await;
            now = self.clock.now();
            if now >= due.minus(GRID_TOLERANCE) {
                break;
            }
        }
        if now < due.minus(GRID_TOLERANCE) {
            return self.fired(now.max(last.plus(STEP)));
        }
        if now.since(due) <= GRID_TOLERANCE {
            return self.fired(due);
        }
        // A clock that was set forward passes over ticks that never were due.
        let late = now.since(due).min(self.fired_at.elapsed());
        self.skipped += u64::try_from(late.as_millis() / self.interval.as_millis().max(1)).unwrap_or(u64::MAX);
        self.fired(now)
    }

    /// How many ticks were overslept since the start.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    fn fired(&mut self, at: Timestamp) -> Timestamp {
        self.last = Some(at);
        self.fired_at = Instant::now();
        at
    }

    /// The first place on the grid after `at`.
    fn after(&self, at: Timestamp) -> Timestamp {
        let interval = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let phase = i64::try_from(self.phase.as_millis()).unwrap_or(0);
        let place = at.millis().saturating_sub(phase).div_euclid(interval).saturating_add(1);
        Timestamp::from_millis(place.saturating_mul(interval).saturating_add(phase))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn ticks(clock: &Clock) -> Ticks {
        Ticks { phase: Duration::from_millis(300), ..Ticks::new(clock.clone(), Duration::from_secs(10), "host") }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_tick_comes_at_once_and_the_next_ones_on_the_grid() {
        let clock = Clock::manual(at(25_000));
        let mut ticks = ticks(&clock);
        assert_eq!(ticks.next().await, at(25_000));
        clock.at_least(at(30_300));
        assert_eq!(ticks.next().await, at(30_300));
        clock.at_least(at(40_310));
        assert_eq!(ticks.next().await, at(40_300), "a little late is still on the grid");
        clock.at_least(at(50_290));
        assert_eq!(ticks.next().await, at(50_300), "a timer that fires a little early too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_slows_no_tick_and_stamps_stay_in_order() {
        let clock = Clock::manual(at(25_000));
        let mut ticks = ticks(&clock);
        ticks.next().await;
        let began = tokio::time::Instant::now();
        for tick in 1..=5 {
            assert_eq!(ticks.next().await, at(25_000 + tick));
        }
        assert!(began.elapsed() <= Duration::from_secs(57), "an interval and an eighth each: {:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_at_half_its_pace_makes_no_more_ticks_than_the_interval_asks_for() {
        let clock = Clock::manual(at(25_000));
        let mut ticks = ticks(&clock);
        ticks.next().await;
        let slow = clock.clone();
        tokio::spawn(async move {
            let began = tokio::time::Instant::now();
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                slow.at_least(at(25_000).plus(began.elapsed() / 2));
            }
        });
        let (began, mut count) = (tokio::time::Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(600) {
            ticks.next().await;
            count += 1;
        }
        assert!((58..=61).contains(&count), "{count} ticks in ten minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_forward_is_followed_and_skips_nothing() {
        let clock = Clock::manual(at(0));
        let mut ticks = ticks(&clock);
        ticks.next().await;
        clock.at_least(at(1_000_000_000));
        assert_eq!(ticks.next().await, at(1_000_000_000));
        assert_eq!(ticks.skipped(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn overslept_ticks_are_skipped_and_counted() {
        let clock = Clock::manual(at(0));
        let mut ticks = ticks(&clock);
        ticks.next().await;
        tokio::time::advance(Duration::from_secs(35)).await;
        clock.at_least(at(35_000));
        assert_eq!(ticks.next().await, at(35_000));
        assert_eq!(ticks.skipped(), 3, "those at 0.3 s, 10.3 s and 20.3 s were missed, the one at 30.3 s came late");
        clock.at_least(at(40_300));
        assert_eq!(ticks.next().await, at(40_300));
    }

    #[tokio::test(start_paused = true)]
    async fn an_overdue_tick_is_ready_at_the_first_look() {
        let clock = Clock::manual(at(0));
        let mut ticks = ticks(&clock);
        ticks.next().await;
        assert_eq!(futures_util::FutureExt::now_or_never(ticks.next()), None, "not due yet");
        clock.at_least(at(10_300));
        assert_eq!(futures_util::FutureExt::now_or_never(ticks.next()), Some(at(10_300)));
    }

    #[test]
    fn hosts_have_phases_of_their_own_within_the_interval() {
        let clock = Clock::manual(at(0));
        let phase = |host: &str| Ticks::new(clock.clone(), Duration::from_secs(15), host).phase;
        assert_eq!(phase("roof-1"), phase("roof-1"));
        assert_ne!(phase("roof-1"), phase("roof-2"));
        assert!(phase("roof-1") < Duration::from_secs(15));
    }
}
