//! When to send: gathering what comes live, and draining a backlog at the pace of whoever takes it.
//!
//! A million hosts may come back at one moment, and a receiver next door may be as fast as the disk; one fixed rate would be
//! wrong for both. So the receiver sets the pace: with one request in flight a host sends no faster than it is answered, and
//! beyond a quick answer it rests for as long as the answer took, so that a receiver in trouble has at least as much peace
//! from each host as work. Each sign of trouble doubles the rest, [`TAKEN_TO_RELAX`] answers in a row halve it. The first
//! request after an outage is spread by its backoff, the drain after it by [`Pace::after_outage`].

use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use super::backoff;

/// An answer this quick costs its receiver little, and is no reason to rest.
const QUICK: Duration = Duration::from_millis(100);
/// How long to rest after a slower answer, in parts of the time it took.
const REST_SHARE: u32 = 1;
/// No rest is longer.
const REST_MAX: Duration = Duration::from_secs(10);
/// The most that signs of trouble may make of a rest.
const TROUBLE_FACTOR_MAX: u32 = 32;
/// The rest that trouble multiplies, where answers are quick.
const TROUBLE_REST: Duration = Duration::from_millis(20);
/// So many requests must be taken in a row before half of the trouble is forgotten.
const TAKEN_TO_RELAX: u32 = 16;
/// Shorter outages bring no crowd back at one moment.
const OUTAGE_MIN: Duration = Duration::from_secs(30);
/// A drain begins within this part of the outage,
const SPREAD_SHARE: u32 = 10;
/// and within this time.
const SPREAD_MAX: Duration = Duration::from_secs(30);

/// What waits for an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) instants: u64,
    pub(super) samples: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    send_interval: Duration,
    /// What is gathered is sent at this moment; known once something waits.
    send_at: Option<Instant>,
    trouble: u32,
    taken_in_a_row: u32,
}

impl Pace {
    /// Sends every `send_interval`, at a phase of this process' own; at once, where it is zero.
    pub(super) fn new(send_interval: Duration) -> Self {
        Self { send_interval, send_at: None, trouble: 0, taken_in_a_row: 0 }
    }

    /// Until when to gather before sending; `None` where there is nothing to wait for. What fills a lease is sent at once.
    pub(super) fn gather_until(&mut self, waiting: Waiting, full: Waiting, now: Instant) -> Option<Instant> {
        let is_full = waiting.samples >= full.samples || waiting.instants >= full.instants;
        if self.send_interval.is_zero() || is_full {
            return None;
        }
        let interval = self.send_interval;
        // Never later than an interval from now: what waits may have come this moment.
        let send_at = *self.send_at.get_or_insert_with(|| now + interval.mul_f64(share()));
        (send_at > now).then_some(send_at)
    }

    /// What was gathered is on its way; the next is due an interval later, give or take 10 %.
    pub(super) fn sent(&mut self, now: Instant) {
        let due = self.send_at.filter(|at| *at <= now);
        if due.is_some() || self.send_at.is_none() {
            self.send_at = Some(now + backoff::jittered(self.send_interval));
        }
    }

    /// A request was taken after `took`: how long to rest before the next one of a backlog.
    pub(super) fn rest_after(&mut self, took: Duration) -> Duration {
        self.taken_in_a_row += 1;
        if self.taken_in_a_row >= TAKEN_TO_RELAX {
            (self.taken_in_a_row, self.trouble) = (0, self.trouble / 2);
        }
        let own = if took > QUICK { took * REST_SHARE } else { Duration::ZERO };
        let troubled = own.max(TROUBLE_REST) * self.trouble;
        (own + troubled).min(REST_MAX)
    }

    /// The receiver asked for less, or failed.
    pub(super) fn troubled(&mut self) {
        self.taken_in_a_row = 0;
        self.trouble = (self.trouble * 2).clamp(1, TROUBLE_FACTOR_MAX);
    }

    /// How long to wait with the backlog after an outage of this length, so that hosts do not drain in step.
    pub(super) fn after_outage(outage: Duration) -> Duration {
        if outage < OUTAGE_MIN {
            return Duration::ZERO;
        }
        (outage / SPREAD_SHARE).min(SPREAD_MAX).mul_f64(share())
    }
}

/// A number from 0 to 1 by chance; not for secrets.
fn share() -> f64 {
    let chance = std::hash::RandomState::new().build_hasher().finish();
    (chance >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Waiting = Waiting { instants: 60, samples: 100_000 };
    const ONE: Waiting = Waiting { instants: 1, samples: 10 };
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_comes_live_is_gathered_for_an_interval_at_a_phase_of_its_own() {
        let now = Instant::now();
        let first = |_| Pace::new(MINUTE).gather_until(ONE, FULL, now).map_or(Duration::ZERO, |at| at - now);
        let phases: Vec<Duration> = (0..50).map(first).collect();
        assert!(phases.iter().all(|phase| *phase <= MINUTE));
        assert!(phases.iter().max().unwrap().abs_diff(*phases.iter().min().unwrap()) > Duration::from_secs(10));

        let mut pace = Pace::new(MINUTE);
        let due = pace.gather_until(ONE, FULL, now).unwrap_or(now);
        assert_eq!(pace.gather_until(ONE, FULL, due), None, "it is time");
        pace.sent(due);
        let next = pace.gather_until(ONE, FULL, due).unwrap() - due;
        assert!(next >= MINUTE.mul_f64(0.899) && next <= MINUTE.mul_f64(1.101), "{next:?}");
    }

    #[test]
    fn a_backlog_is_not_gathered_and_without_an_interval_nothing_is() {
        let now = Instant::now();
        assert_eq!(Pace::new(Duration::ZERO).gather_until(ONE, FULL, now), None);
        assert_eq!(Pace::new(MINUTE).gather_until(FULL, FULL, now), None);
        assert_eq!(Pace::new(MINUTE).gather_until(Waiting { samples: 10, ..FULL }, FULL, now), None);
    }

    #[test]
    fn a_receiver_that_answers_quickly_is_given_no_rest_and_a_slow_one_as_long_as_it_took() {
        let mut pace = Pace::new(Duration::ZERO);
        assert_eq!(pace.rest_after(Duration::from_millis(5)), Duration::ZERO);
        assert_eq!(pace.rest_after(Duration::from_millis(800)), Duration::from_millis(800));
        assert_eq!(pace.rest_after(Duration::from_secs(60)), REST_MAX);
    }

    #[test]
    fn trouble_slows_a_drain_and_is_forgotten_bit_by_bit() {
        let mut pace = Pace::new(Duration::ZERO);
        pace.troubled();
        let one = pace.rest_after(Duration::from_millis(5));
        pace.troubled();
        let two = pace.rest_after(Duration::from_millis(5));
        assert_eq!((one, two), (TROUBLE_REST, TROUBLE_REST * 2));
        let rests: Vec<Duration> = (0..2 * TAKEN_TO_RELAX).map(|_| pace.rest_after(Duration::from_millis(5))).collect();
        assert_eq!((rests[3], rests[20], rests.last()), (two, one, Some(&Duration::ZERO)));
    }

    #[test]
    fn a_drain_after_an_outage_begins_at_a_moment_of_its_own() {
        assert_eq!(Pace::after_outage(Duration::from_secs(29)), Duration::ZERO);
        let waits: Vec<Duration> = (0..50).map(|_| Pace::after_outage(Duration::from_secs(3600))).collect();
        assert!(waits.iter().all(|wait| *wait <= SPREAD_MAX));
        assert!(waits.iter().max().unwrap().abs_diff(*waits.iter().min().unwrap()) > Duration::from_secs(5));
    }
}
