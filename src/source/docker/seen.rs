//! Which events were applied already: a reconnect asks for the last seconds again, so that nothing that was published out
//! of order falls between two streams, and what comes twice must count once.
//!
//! Told apart by fingerprint and not by time, so that an engine whose clock is set back is still heard.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::events::Event;

/// How far back a reconnect asks again.
pub(crate) const OVERLAP: Duration = Duration::from_secs(2);
/// How many events are remembered: four times what Docker can replay (`daemon/events/events.go` keeps 256).
const REMEMBERED: usize = 1024;

/// An event as it is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    at_nanos: i64,
    fingerprint: u64,
}

/// The events applied last.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    order: VecDeque<Mark>,
    known: HashSet<u64>,
}

/// Whether an event comes for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Novelty {
    /// It does.
    New,
    /// It was applied before.
    Repeated,
}

impl Seen {
    /// Takes marks back from a former life.
    pub(crate) fn restored(marks: &[Mark]) -> Self {
        let mut seen = Self::default();
        for mark in marks {
            seen.remember(*mark);
        }
        seen
    }

    /// Remembers an event.
    pub(crate) fn note(&mut self, event: &Event) -> Novelty {
        self.remember(Mark { at_nanos: event.at_nanos, fingerprint: event.fingerprint() })
    }

    /// The position in the stream: the time of the event applied last, in nanoseconds since the Unix epoch.
    pub(crate) fn position(&self) -> Option<i64> {
        self.order.back().map(|mark| mark.at_nanos)
    }

    /// What a successor must know, so as not to apply again what the overlap replays.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        let Some(position) = self.position() else { return Vec::new() };
        let since = position.saturating_sub(i64::try_from(OVERLAP.as_nanos()).unwrap_or(i64::MAX));
        let last = self.order.len().saturating_sub(1);
        // The last one is the position, whatever its time.
        let kept = self.order.iter().enumerate().filter(|(at, mark)| *at == last || mark.at_nanos >= since);
        kept.map(|(_, mark)| *mark).collect()
    }

    fn remember(&mut self, mark: Mark) -> Novelty {
        if !self.known.insert(mark.fingerprint) {
            return Novelty::Repeated;
        }
        self.order.push_back(mark);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest.fingerprint);
        }
        Novelty::New
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::tests::recorded;
    use super::*;

    #[test]
    fn what_is_replayed_is_recognised_also_by_a_successor() {
        let events = recorded(include_bytes!("../../../tests/fixtures/docker/events.jsonl"));
        let mut seen = Seen::default();
        assert!(events.iter().all(|event| seen.note(event) == Novelty::New));
        assert!(events.iter().all(|event| seen.note(event) == Novelty::Repeated));

        let mut successor = Seen::restored(&seen.marks());
        assert_eq!(successor.position(), seen.position());
        let since = seen.position().unwrap() - 2_000_000_000;
        let replayed: Vec<_> = events.iter().filter(|event| event.at_nanos >= since).collect();
        assert!(replayed.len() > 10);
        assert!(replayed.into_iter().all(|event| successor.note(event) == Novelty::Repeated));
    }

    #[test]
    fn memory_is_bounded() {
        let mut event = recorded(include_bytes!("../../../tests/fixtures/docker/events.jsonl")).remove(0);
        let mut seen = Seen::default();
        for _ in 0..3 * REMEMBERED {
            event.at_nanos += 1;
            seen.note(&event);
        }
        assert_eq!((seen.order.len(), seen.known.len()), (REMEMBERED, REMEMBERED));
    }
}
