//! Wall time that never runs backwards.
//!
//! Every stamp in the program comes from a [`Clock`] that is handed in. When the system clock is set back, the clock
//! stands still until the system has caught up, so that samples stay in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::UNIX_EPOCH;

use crate::model::Timestamp;

/// A handle on the time; clones share one.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The latest instant told, in milliseconds; what keeps time from running backwards.
    latest_millis: AtomicI64,
    system: bool,
}

impl Clock {
    /// The system's wall clock.
    pub fn system() -> Self {
        Self(Arc::new(Inner { latest_millis: AtomicI64::new(0), system: true }))
    }

    /// A clock that shows what it is told; for tests.
    pub fn manual(at: Timestamp) -> Self {
        Self(Arc::new(Inner { latest_millis: AtomicI64::new(at.millis()), system: false }))
    }

    /// Now; never earlier than any instant told before.
    pub fn now(&self) -> Timestamp {
        let read = if self.0.system { system_millis() } else { 0 };
        let before = self.0.latest_millis.fetch_max(read, Ordering::Relaxed);
        Timestamp::from_millis(before.max(read))
    }

    /// Moves the clock forward to `at`: a manual clock in a test, or the system's at start, to stand after everything already recorded.
    pub fn at_least(&self, at: Timestamp) {
        self.0.latest_millis.fetch_max(at.millis(), Ordering::Relaxed);
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks the system for the time")]
fn system_millis() -> i64 {
    let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards_even_when_the_system_clock_does() {
        let clock = Clock::system();
        let ahead = clock.now().plus(std::time::Duration::from_secs(3600));
        clock.at_least(ahead);
        assert_eq!(clock.now(), ahead);
    }

    #[test]
    fn a_manual_clock_shows_what_it_is_told() {
        let clock = Clock::manual(Timestamp::from_millis(5));
        clock.at_least(Timestamp::from_millis(7));
        assert_eq!(clock.clone().now().millis(), 7);
    }
}
