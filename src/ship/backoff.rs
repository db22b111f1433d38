//! How long to wait before trying again: doubling between two bounds, with ±10 % jitter, for ever.
//!
//! The only file that names the `backoff` crate. It is unmaintained (RUSTSEC-2025-0012); the way out is to replace the
//! inside of [`Backoff`] and [`spread`], which is all that the rest of the program sees of it. Two of its defaults would
//! be wrong here: it gives up after 15 minutes, and jitters by half.

use std::time::Duration;

use ::backoff::ExponentialBackoff;
use ::backoff::backoff::Backoff as _;

/// How far from the plain doubling a wait may lie. Prometheus' compliance test for senders tolerates this much.
const JITTER: f64 = 0.1;

/// Whatever is configured, never wait less: a wait of nothing would be a busy loop.
const SHORTEST: Duration = Duration::from_millis(10);

/// The waits after one failure and the next and the next.
#[derive(Debug)]
pub struct Backoff(ExponentialBackoff);

impl Backoff {
    /// The first wait is `min`, the longest `max`; both give or take 10 %.
    pub fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(SHORTEST);
        Self(ExponentialBackoff {
            current_interval: min,
            initial_interval: min,
            randomization_factor: JITTER,
            multiplier: 2.0,
            max_interval: max.max(min),
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        // It yields nothing only when a longest elapsed time is set, which it is not.
        self.0.next_backoff().unwrap_or(self.0.max_interval)
    }

    /// It worked: the next failure starts at the beginning.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

/// `wait`, or up to a quarter longer: for waits that somebody asked for, which may be exceeded but not undercut, so that
/// hosts that were asked at the same moment do not come back at the same moment.
pub fn spread(wait: Duration) -> Duration {
    let centre = wait.div_f64(1.0 - JITTER);
    Backoff::new(centre, centre).next_wait().max(wait)
}

/// `wait`, give or take 10 %.
pub fn jittered(wait: Duration) -> Duration {
    Backoff::new(wait, wait).next_wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(wait: Duration, expected: Duration) {
        let (low, high) = (expected.mul_f64(0.899), expected.mul_f64(1.101));
        assert!((low..=high).contains(&wait), "{wait:?} is not {expected:?} give or take 10 %");
    }

    #[test]
    fn waits_double_up_to_the_longest_and_start_anew_after_a_success() {
        let (min, max) = (Duration::from_millis(30), Duration::from_secs(5));
        let mut backoff = Backoff::new(min, max);
        for _ in 0..2 {
            let mut expected = min;
            for _ in 0..100 {
                assert_near(backoff.next_wait(), expected);
                expected = (expected * 2).min(max);
            }
            backoff.reset();
        }
    }

    #[test]
    fn waits_are_jittered() {
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        let first = backoff.next_wait();
        assert!((0..50).any(|_| backoff.next_wait() != first));
    }

    #[test]
    fn a_wait_of_nothing_is_no_wait_that_is_allowed() {
        assert_near(Backoff::new(Duration::ZERO, Duration::ZERO).next_wait(), SHORTEST);
    }

    #[test]
    fn a_wait_that_was_asked_for_is_never_undercut() {
        let wait = Duration::from_secs(30);
        for _ in 0..200 {
            let spread = spread(wait);
            assert!(spread >= wait && spread <= wait.mul_f64(1.25), "{spread:?}");
        }
    }
}
