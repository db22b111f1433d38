//! Instants on the wire: milliseconds since the Unix epoch, as remote-write carries them.

use std::fmt;
use std::time::Duration;

/// An instant in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant; older than anything.
    pub const MIN: Self = Self(i64::MIN);

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From nanoseconds since the Unix epoch, rounded down to the millisecond.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos.div_euclid(1_000_000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Seconds since the Unix epoch, as metrics named `*_seconds` carry instants.
    pub fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// The instant `duration` later; saturates at the end of time.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The instant `duration` earlier; saturates at the beginning of time.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How much later this is than `earlier`; zero where it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_round_down_also_before_the_epoch() {
        assert_eq!(Timestamp::from_nanos(1_999_999).millis(), 1);
        assert_eq!(Timestamp::from_nanos(-1).millis(), -1);
    }

    #[test]
    fn an_interval_that_would_be_negative_is_zero() {
        let (early, late) = (Timestamp::from_millis(5), Timestamp::from_millis(7));
        assert_eq!(late.since(early), Duration::from_millis(2));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early.since(Timestamp::MIN), Duration::from_millis(i64::MAX as u64));
    }

    #[test]
    fn people_read_utc_with_milliseconds() {
        assert_eq!(Timestamp::from_millis(1_795_226_444_035).to_string(), "2026-11-21T02:00:44.035Z");
    }
}
