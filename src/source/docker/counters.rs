//! The numbers outhaul keeps itself, because the engine forgets them: per container name, only ever growing.
//!
//! They belong to a name and not to a container, so that a container that is made anew under its old name (as Compose
//! does) continues the same series.

use serde::{Deserialize, Serialize};

use super::state::{ExitClass, Health};
use crate::clock::start_before;
use crate::model::Timestamp;

/// What was counted under one name. Never decreases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Counters {
    /// When all of them were zero, in milliseconds since the Unix epoch; `None` where an older version began to count.
    since_millis: Option<i64>,
    /// Runs that began.
    pub(crate) starts: u64,
    /// Runs that the engine began by restart policy.
    pub(crate) restarts: u64,
    /// Runs that ended, by [`ExitClass::ALL`].
    exits: [u64; ExitClass::ALL.len()],
    /// Kills for memory.
    pub(crate) ooms: u64,
    /// Verdicts that differed from the one before, by [`Health::ALL`].
    transitions: [u64; Health::ALL.len()],
}

impl Counters {
    /// Notes that nothing was counted before `at`, unless something was.
    ///
    pub(crate) fn begin(&mut self, at: Timestamp) {
        if *self == Self::default() {
            self.since_millis = start_before(at).map(Timestamp::millis);
        }
    }

    /// When all of them were zero.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.since_millis.map(Timestamp::from_millis)
    }

    /// Counts the end of runs.
    pub(crate) fn count_exits(&mut self, class: ExitClass, runs: u64) {
        add(&mut self.exits[class as usize], runs);
    }

    /// Counts runs that began.
    pub(crate) fn count_starts(&mut self, runs: u64) {
        add(&mut self.starts, runs);
    }

    /// Counts restarts by policy.
    pub(crate) fn count_restarts(&mut self, restarts: u64) {
        add(&mut self.restarts, restarts);
    }

    /// Counts a kill for memory.
    pub(crate) fn count_oom(&mut self) {
        add(&mut self.ooms, 1);
    }

    /// Counts a verdict that differed from the one before.
    pub(crate) fn count_transition(&mut self, to: Health) {
        add(&mut self.transitions[to.index()], 1);
    }

    /// Runs that ended this way.
    pub(crate) fn exits(&self, class: ExitClass) -> u64 {
        self.exits[class as usize]
    }

    /// Verdicts that turned to this.
    pub(crate) fn transitions(&self, to: Health) -> u64 {
        self.transitions[to.index()]
    }

    /// Raises each number to at least that of `other`: what a renamed container brings along, without ever counting twice
    /// what goes from one name to another and back.
    pub(crate) fn raise_to(&mut self, other: &Self) {
        // What comes along was counted since the other began; without its beginning none is known.
        self.since_millis = match (*self == Self::default(), self.since_millis, other.since_millis) {
            (true, _, theirs) => theirs,
            (false, mine, theirs) => mine.zip(theirs).map(|(mine, theirs)| mine.min(theirs)),
        };
        self.starts = self.starts.max(other.starts);
        self.restarts = self.restarts.max(other.restarts);
        self.ooms = self.ooms.max(other.ooms);
        for (mine, theirs) in self.exits.iter_mut().zip(other.exits) {
            *mine = (*mine).max(theirs);
        }
        for (mine, theirs) in self.transitions.iter_mut().zip(other.transitions) {
            *mine = (*mine).max(theirs);
        }
    }
}

fn add(counter: &mut u64, amount: u64) {
    *counter = counter.saturating_add(amount);
}

/// How often one container was restarted by policy, told by two witnesses that each can miss some.
///
/// Events tell at once and with their time, but only while the stream is whole and the policy known. The engine's
/// `RestartCount` tells later, and forgets when somebody starts the container by hand. Both count the same restarts, so
/// the larger tally is believed; at an inspect that no event overtakes they are made equal, so that what one missed once
/// is not missing for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Restarts {
    by_events: u64,
    by_engine: u64,
    /// The restarts that were done when last asked, by `RestartCount`.
    last_count: Option<u64>,
}

impl Restarts {
    /// For a container seen from its making: the engine's count began at 0.
    pub(crate) fn from_creation() -> Self {
        Self { last_count: Some(0), ..Self::default() }
    }

    /// Events told of a restart. Returns how many restarts that makes that were not known.
    pub(crate) fn told_by_event(&mut self) -> u64 {
        let before = self.total();
        add(&mut self.by_events, 1);
        self.total() - before
    }

    /// The engine answered with its count of restarts done, and no event is under way. Returns how many restarts that makes that were not known.
    pub(crate) fn told_by_engine(&mut self, count: u64) -> u64 {
        let before = self.total();
        match self.last_count {
            Some(last) if count >= last => add(&mut self.by_engine, count - last),
            // It was reset by a start on demand, and rose again.
            Some(_) => add(&mut self.by_engine, count),
            // The restarts before we came are not ours to count.
            None => {}
        }
        self.last_count = Some(count);
        let total = self.total();
        (self.by_events, self.by_engine) = (total, total);
        total - before
    }

    /// The engine has counted a restart that will not come, because somebody stopped the container while it waited.
    pub(crate) fn called_off(&mut self) {
        self.last_count = self.last_count.map(|count| count.saturating_add(1));
    }

    fn total(&self) -> u64 {
        self.by_events.max(self.by_engine)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::SANE_SINCE;

    #[test]
    fn a_restart_that_both_witnesses_saw_counts_once() {
        let mut restarts = Restarts::from_creation();
        assert_eq!(restarts.told_by_event(), 1);
        assert_eq!(restarts.told_by_engine(1), 0);
        assert_eq!(restarts.told_by_event(), 1);
        assert_eq!(restarts.told_by_event(), 1);
        assert_eq!(restarts.told_by_engine(3), 0);
    }

    #[test]
    fn what_events_missed_the_engine_tells_and_the_next_event_counts_again() {
        let mut restarts = Restarts::from_creation();
        assert_eq!(restarts.told_by_engine(4), 4);
        assert_eq!(restarts.told_by_event(), 1);
    }

    #[test]
    fn a_start_on_demand_resets_the_engines_count_and_not_ours() {
        let mut restarts = Restarts::from_creation();
        restarts.told_by_engine(5);
        assert_eq!(restarts.told_by_engine(0), 0);
        assert_eq!(restarts.told_by_engine(2), 2);
    }

    #[test]
    fn a_restart_that_was_called_off_is_not_counted() {
        let mut restarts = Restarts::from_creation();
        restarts.told_by_engine(4);
        restarts.called_off();
        assert_eq!(restarts.told_by_engine(5), 0);
        assert_eq!(restarts.told_by_engine(6), 1);
    }

    #[test]
    fn restarts_before_we_came_are_not_counted() {
        let mut restarts = Restarts::default();
        assert_eq!(restarts.told_by_engine(7), 0);
        assert_eq!(restarts.told_by_engine(8), 1);
    }

    #[test]
    fn counters_that_go_from_name_to_name_and_back_count_nothing_twice() {
        let mut first = Counters::default();
        first.count_starts(3);
        let mut second = Counters::default();
        second.count_exits(ExitClass::Oom, 1);
        second.raise_to(&first);
        first.raise_to(&second);
        assert_eq!(first, second);
        assert_eq!((first.starts, first.exits(ExitClass::Oom)), (3, 1));
    }

    #[test]
    fn counters_began_just_before_they_were_first_told_of_and_do_not_begin_again() {
        let at = |millis| SANE_SINCE.plus(Duration::from_millis(millis));
        let mut counters = Counters::default();
        counters.begin(Timestamp::from_millis(5));
        assert_eq!(counters.since(), None, "a clock in 1970");
        counters.begin(at(1000));
        counters.begin(at(2000));
        assert_eq!(counters.since(), Some(at(999)));

        let mut older = Counters::default();
        older.count_starts(1);
        older.begin(at(1000));
        assert_eq!(older.since(), None, "what an older version counted began at a time nobody knows");

        let mut renamed = Counters::default();
        renamed.raise_to(&counters);
        assert_eq!(renamed.since(), Some(at(999)));
        renamed.raise_to(&older);
        assert_eq!((renamed.since(), renamed.starts), (None, 1));
    }

    #[test]
    fn a_full_counter_stays_full() {
        let mut counters = Counters { starts: u64::MAX, ..Counters::default() };
        counters.count_starts(1);
        assert_eq!(counters.starts, u64::MAX);
    }
}
