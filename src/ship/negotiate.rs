//! In which format an endpoint is spoken to: the best that it takes, found out by sending.
//!
//! Invariants: a step down is taken only on an answer that says "I do not understand", never because of trouble; it is kept
//! only after the same samples were taken in the other format; and it is not for ever, because receivers are upgraded and a
//! proxy's odd answer must not cost its bytes until the end of time. Pure.

use std::time::Duration;

use crate::config;
use crate::encode::{Compression, Message};
use crate::model::Timestamp;

/// How long a receiver that did not understand the best format is spoken to in a lesser one before that is tried again.
pub(super) const PROBE_AGAIN_AFTER: Duration = Duration::from_secs(6 * 3600);

/// A format, as far as it is negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) message: Message,
    pub(super) compression: Compression,
}

const V2: Way = Way { message: Message::V2, compression: Compression::Snappy };
const V1: Way = Way { message: Message::V1, compression: Compression::Snappy };
const V1_ZSTD: Way = Way { message: Message::V1, compression: Compression::Zstd };

impl Way {
    /// As it is saved; never changed, only added to.
    fn word(self) -> &'static str {
        match (self.message, self.compression) {
            (Message::V1, Compression::Snappy) => "v1-snappy",
            (Message::V1, Compression::Zstd) => "v1-zstd",
            (Message::V2, Compression::Snappy) => "v2-snappy",
            (Message::V2, Compression::Zstd) => "v2-zstd",
        }
    }
}

/// The formats of one endpoint, the best first, and which of them it is spoken to in.
#[derive(Debug)]
pub(super) struct Negotiation {
    ways: &'static [Way],
    settled: usize,
    /// When the best is tried again; only where another is settled.
    again_at: Option<Timestamp>,
}

impl Negotiation {
    /// What the configuration allows.
    pub(super) fn new(protocol: config::Protocol, compression: config::Compression) -> Self {
        use config::{Compression as C, Protocol as P};
        let ways: &'static [Way] = match (protocol, compression) {
            (P::Auto, C::Snappy) => &[V2, V1],
            (P::Auto, C::Zstd) => &[V2, V1_ZSTD, V1],
            (P::V1, C::Snappy) => &[V1],
            (P::V1, C::Zstd) => &[V1_ZSTD, V1],
            (P::V2, _) => &[V2],
        };
        Self { ways, settled: 0, again_at: None }
    }

    /// Which of the formats the next samples are sent in.
    pub(super) fn current(&mut self, now: Timestamp) -> usize {
        // A time too far away was noted under a clock that was wrong.
        let is_due = |at: Timestamp| now >= at || at.since(now) > PROBE_AGAIN_AFTER;
        if self.again_at.is_some_and(is_due) {
            (self.settled, self.again_at) = (0, None);
        }
        self.settled
    }

    /// The format with this number.
    pub(super) fn way(&self, number: usize) -> Way {
        self.ways[number.min(self.ways.len() - 1)]
    }

    /// What to try where this one was not understood.
    pub(super) fn after(&self, number: usize) -> Option<usize> {
        (number + 1 < self.ways.len()).then_some(number + 1)
    }

    /// Samples were taken in this format; true when that is news worth keeping.
    pub(super) fn taken(&mut self, number: usize, now: Timestamp) -> bool {
        if number == self.settled {
            return false;
        }
        self.settled = number;
        self.again_at = (number > 0).then(|| now.plus(PROBE_AGAIN_AFTER));
        true
    }

    /// What was taken once is no longer; true when the best is to be tried again at once.
    pub(super) fn reconsider(&mut self, number: usize) -> bool {
        let is_settled = number > 0 && number == self.settled;
        if is_settled {
            (self.settled, self.again_at) = (0, None);
        }
        is_settled
    }

    /// What is worth keeping, as text.
    pub(super) fn save(&self) -> String {
        let again_at = self.again_at.map_or(0, Timestamp::millis);
        format!("{} {again_at}", self.way(self.settled).word())
    }

    /// Takes up what was kept, if the configuration still allows it.
    pub(super) fn restore(&mut self, saved: &str) {
        let mut words = saved.split(' ');
        let known = words.next().and_then(|word| self.ways.iter().position(|way| way.word() == word));
        let again_at = words.next().and_then(|millis| millis.parse().ok()).map(Timestamp::from_millis);
        if let (Some(settled @ 1..), Some(again_at)) = (known, again_at) {
            (self.settled, self.again_at) = (settled, Some(again_at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Compression as C, Protocol as P};

    const NOW: Timestamp = Timestamp::from_millis(1_795_226_444_035);

    #[test]
    fn the_best_format_is_tried_first_and_a_lesser_one_only_where_the_configuration_allows_it() {
        for (protocol, compression, expected) in [
            (P::Auto, C::Snappy, vec![V2, V1]),
            (P::Auto, C::Zstd, vec![V2, V1_ZSTD, V1]),
            (P::V1, C::Zstd, vec![V1_ZSTD, V1]),
            (P::V1, C::Snappy, vec![V1]),
            (P::V2, C::Snappy, vec![V2]),
        ] {
            let mut negotiation = Negotiation::new(protocol, compression);
            let first = negotiation.current(NOW);
            let all = std::iter::successors(Some(first), |number| negotiation.after(*number));
            let ways: Vec<Way> = all.map(|number| negotiation.way(number)).collect();
            assert_eq!(ways, expected);
        }
    }

    #[test]
    fn what_was_taken_is_kept_over_a_restart_and_tried_again_after_hours() {
        let mut negotiation = Negotiation::new(P::Auto, C::Snappy);
        assert!(!negotiation.taken(0, NOW), "nothing new");
        assert!(negotiation.taken(1, NOW));
        assert!(!negotiation.taken(1, NOW));
        let mut restarted = Negotiation::new(P::Auto, C::Snappy);
        restarted.restore(&negotiation.save());
        let almost = NOW.plus(PROBE_AGAIN_AFTER).minus(Duration::from_millis(1));
        assert_eq!((restarted.current(NOW), restarted.current(almost)), (1, 1));
        assert_eq!(restarted.current(NOW.plus(PROBE_AGAIN_AFTER)), 0);
        assert_eq!(negotiation.current(NOW.minus(Duration::from_secs(1))), 0, "noted by a clock that was ahead");
    }

    #[test]
    fn what_is_kept_counts_only_while_the_configuration_allows_it() {
        let mut negotiation = Negotiation::new(P::Auto, C::Zstd);
        negotiation.taken(1, NOW);
        let saved = negotiation.save();
        for (protocol, compression, expected) in
            [(P::Auto, C::Snappy, V2), (P::V1, C::Snappy, V1), (P::Auto, C::Zstd, V1_ZSTD)]
        {
            let mut other = Negotiation::new(protocol, compression);
            other.restore(&saved);
            let current = other.current(NOW);
            assert_eq!(other.way(current), expected);
        }
        for nonsense in ["", "v1-snappy", "v9 1", "v1-snappy soon", "v2-snappy 0"] {
            let mut other = Negotiation::new(P::Auto, C::Snappy);
            other.restore(nonsense);
            assert_eq!(other.current(NOW), 0, "{nonsense:?}");
        }
    }
}
