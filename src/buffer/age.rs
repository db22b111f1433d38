//! Whether the clock can be believed when it says that samples are too old.
//!
//! A host that starts in 1970 and hears the time later, or hears a wrong one for a while, would otherwise drop a good backlog
//! in one moment. So ages count only while the wall clock has kept pace with the monotonic one for [`SETTLING`]. The
//! other bounds hold meanwhile. Nothing here asks a clock.

use std::time::{Duration, Instant};

use crate::model::Timestamp;

/// How long the two clocks must agree.
const SETTLING: Duration = Duration::from_secs(600);
/// How far they may be apart from one look to the next.
const STEP_MIN_MILLIS: i64 = 60_000;

/// Compares the two clocks from look to look.
#[derive(Debug, Default)]
pub(super) struct AgeGuard {
    last: Option<(Timestamp, Instant)>,
    believable_from: Option<Instant>,
}

impl AgeGuard {
    /// Takes a look: the wall clock says `at` when the monotonic one says `now`. Whether ages can be believed.
    pub(super) fn believes(&mut self, at: Timestamp, now: Instant) -> bool {
        let stepped = self.last.is_some_and(|(last_at, last_now)| {
            let wall = at.millis().saturating_sub(last_at.millis());
            let passed = i64::try_from(now.saturating_duration_since(last_now).as_millis()).unwrap_or(i64::MAX);
            wall.saturating_sub(passed).saturating_abs() > STEP_MIN_MILLIS
        });
        self.last = Some((at, now));
        if stepped {
            self.believable_from = None;
        }
        *self.believable_from.get_or_insert_with(|| now.checked_add(SETTLING).unwrap_or(now)) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_count_once_both_clocks_have_agreed_for_a_while_and_no_more_after_a_step() {
        let (mut guard, start) = (AgeGuard::default(), Instant::now());
        let mut look = |wall_secs: i64, passed_secs: u64| {
            guard.believes(Timestamp::from_millis(wall_secs * 1000), start + Duration::from_secs(passed_secs))
        };
        assert!(!look(0, 0), "nobody knows yet");
        assert!(!look(599, 599));
        assert!(look(600, 600));
        assert!(look(650, 610), "clocks may drift a little");
        assert!(!look(1_800_000_000, 620), "the host has heard the time");
        assert!(!look(1_800_000_599, 1219));
        assert!(look(1_800_000_600, 1220));
        assert!(!look(1_799_990_000, 1230), "and back");
    }
}
