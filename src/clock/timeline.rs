//! What time is told, given what the system's two clocks show. Pure.
//!
//! The rule, under "no disorder before freshness":
//!
//! - The wall clock is believed when it is at or after what was told before, also after a step forward.
//! - When it is behind, because it was set back, time goes on at half the pace of the monotonic clock until the wall clock has
//!   caught up. So stamps stay in order and evenly spaced, nothing is stamped twice, and the error shrinks: one of an hour is
//!   gone after two.
//! - A step is a difference between the two clocks that no slewing explains; it is reported once, with its size.

/// The least difference that is a step, in nanoseconds. Time servers step at 128 ms (ntpd) or 1 s (chrony as distributed).
const STEP_NANOS: i128 = 500_000_000;

/// The share of elapsed time that slewing may add or take: chrony slews at up to one twelfth (`maxslewrate`).
const SLEW_SHARE: i128 = 10;

/// What the system's clocks show at one moment, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Since the Unix epoch; may jump.
    pub(super) wall: i128,
    /// Since the system started, sleep included; never jumps.
    pub(super) monotonic: i128,
}

/// The time told so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timeline {
    told: i128,
    last: Reading,
}

impl Timeline {
    /// Begins with the wall clock as it is.
    pub(super) fn new(first: Reading) -> Self {
        Self { told: first.wall, last: first }
    }

    /// The time told last, in nanoseconds since the Unix epoch.
    pub(super) fn told(&self) -> i128 {
        self.told
    }

    /// How far what is told is ahead of the wall clock, in nanoseconds.
    pub(super) fn ahead(&self) -> i128 {
        (self.told - self.last.wall).max(0)
    }

    /// Moves what is told to at least `at`.
    pub(super) fn at_least(&mut self, at: i128) {
        self.told = self.told.max(at);
    }

    /// Goes on to `now`; the size of the wall clock's step since the last reading, if it made one.
    pub(super) fn advance(&mut self, now: Reading) -> Option<i128> {
        let elapsed = (now.monotonic - self.last.monotonic).max(0);
        let stepped = now.wall - self.last.wall - elapsed;
        self.told = if now.wall >= self.told { now.wall } else { (self.told + elapsed / 2).max(now.wall) };
        self.last = now;
        (stepped.abs() > STEP_NANOS + elapsed / SLEW_SHARE).then_some(stepped)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i128 = 1_000_000_000;
    const HOUR: i128 = 3_600 * SECOND;

    fn at(wall: i128, monotonic: i128) -> Reading {
        Reading { wall: wall * SECOND, monotonic: monotonic * SECOND }
    }

    #[test]
    fn the_wall_clock_is_told_while_it_runs() {
        let mut timeline = Timeline::new(at(1_000, 5));
        assert_eq!(timeline.advance(at(1_015, 20)), None);
        assert_eq!(timeline.told(), 1_015 * SECOND);
        assert_eq!(timeline.advance(at(1_031, 35)), None, "slewed by a fifteenth");
        assert_eq!((timeline.told(), timeline.ahead()), (1_031 * SECOND, 0));
    }

    #[test]
    fn a_step_forward_is_followed_at_once_and_reported_once() {
        let mut timeline = Timeline::new(at(0, 5));
        assert_eq!(timeline.advance(at(1_700_000_000, 20)), Some((1_700_000_000 - 15) * SECOND));
        assert_eq!(timeline.told(), 1_700_000_000 * SECOND);
        assert_eq!(timeline.advance(at(1_700_000_015, 35)), None);
    }

    #[test]
    fn after_a_step_back_time_goes_on_at_half_the_pace_until_it_is_right_again() {
        let mut timeline = Timeline::new(at(10_000, 0));
        assert_eq!(timeline.advance(at(10_000 - 3_600 + 10, 10)), Some(-HOUR));
        let mut before = timeline.told();
        assert_eq!(before, 10_005 * SECOND);
        for tick in 2..1_000 {
            assert_eq!(timeline.advance(at(10_000 - 3_600 + tick * 10, tick * 10)), None);
            let pace = if timeline.ahead() > 0 { 5 * SECOND } else { 10 * SECOND };
            assert!(timeline.told() - before == pace || timeline.ahead() == 0, "{tick}");
            before = timeline.told();
        }
        assert_eq!(before, (10_000 - 3_600 + 9_990) * SECOND, "an hour's error is gone after two");
    }

    #[test]
    fn many_short_looks_lose_nothing_of_the_half_pace() {
        let mut timeline = Timeline::new(Reading { wall: HOUR, monotonic: 0 });
        for look in 1..=1_000 {
            timeline.advance(Reading { wall: 0, monotonic: look * 100 });
        }
        assert_eq!(timeline.told(), HOUR + 50_000);
    }

    #[test]
    fn a_system_that_slept_made_no_step() {
        let mut timeline = Timeline::new(at(1_000, 0));
        assert_eq!(timeline.advance(at(1_000 + 86_400, 86_400)), None);
    }

    proptest! {
        #[test]
        fn it_never_runs_backwards_and_is_never_behind_the_wall_clock(
            steps in proptest::collection::vec((-5_000_i64..5_000, 0_i64..5_000), 1..50),
        ) {
            let (mut now, mut before) = (at(1_000_000, 0), i128::MIN);
            let mut timeline = Timeline::new(now);
            for (wall, monotonic) in steps {
                now = Reading {
                    wall: now.wall + i128::from(wall) * SECOND / 7, monotonic: now.monotonic + i128::from(monotonic) * SECOND / 7,
                };
                timeline.advance(now);
                prop_assert!(timeline.told() >= before && timeline.told() >= now.wall);
                before = timeline.told();
            }
        }
    }
}
