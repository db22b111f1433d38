//! Whether samples make a receiver fail again and again, so that they must not stop what comes after them.
//!
//! A receiver in trouble fails with whatever it is sent; samples that are at fault fail alone. So nothing is given up for
//! failing: what fails for long is sent in halves, which costs nothing where the receiver is to blame, until a single sample
//! is left, and that one is given up only when another one goes through right after it failed. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::outcome::{Exchange, FailureKind};

/// So often must a request fail
const FAILURES_MIN: u32 = 10;
/// over so long a time before it is looked at closely.
const FAILING_FOR_MIN: Duration = Duration::from_secs(600);
/// A half of what was looked at closely is halved again after so many failures of its own.
const FAILURES_OF_A_HALF: u32 = 2;

/// What is known against some samples.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Suspicion {
    failures: u32,
    failures_needed: u32,
    since: Option<Instant>,
}

impl Suspicion {
    /// They failed once more. True when they must be halved, or held against another sample where they are but one.
    pub(super) fn failed(&mut self, exchange: &Exchange, now: Instant) -> bool {
        if !may_be_due_to_samples(exchange) {
            return false;
        }
        self.failures += 1;
        let since = *self.since.get_or_insert(now);
        self.failures >= FAILURES_MIN.max(self.failures_needed) && now.duration_since(since) >= FAILING_FOR_MIN
    }

    /// What is known against a half of them.
    pub(super) fn halved(self) -> Self {
        Self { failures_needed: self.failures + FAILURES_OF_A_HALF, ..self }
    }
}

/// What cannot be the samples' fault: nobody there to look at them, or somebody who has no time to.
fn may_be_due_to_samples(exchange: &Exchange) -> bool {
    match exchange {
        Ok(answer) => !matches!(answer.status, 408 | 425 | 429),
        Err(failure) => matches!(failure.kind, FailureKind::Timeout | FailureKind::Broken),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ship::outcome::{Answer, Failure};

    #[expect(clippy::unnecessary_wraps, reason = "what came of a request may be no answer")]
    fn status(status: u16) -> Exchange {
        Ok(Answer { status, ..Answer::default() })
    }

    #[test]
    fn ten_failures_and_ten_minutes_are_needed_and_two_more_for_a_half() {
        let start = Instant::now();
        let mut suspicion = Suspicion::default();
        for minute in 0..9 {
            assert!(!suspicion.failed(&status(500), start + Duration::from_secs(60 * minute)));
        }
        assert!(!suspicion.failed(&status(500), start + Duration::from_secs(599)), "ten failures, not ten minutes");
        assert!(suspicion.failed(&status(500), start + Duration::from_secs(600)));
        let mut half = suspicion.halved();
        assert!(!half.failed(&status(500), start + Duration::from_secs(660)));
        assert!(half.failed(&status(500), start + Duration::from_secs(720)));
        let mut few = Suspicion::default();
        assert!(!few.failed(&status(500), start) && !few.failed(&status(500), start + Duration::from_secs(6000)));
    }

    #[test]
    fn an_outage_of_the_line_says_nothing_against_samples() {
        let start = Instant::now();
        let failure = |kind| Err(Failure { kind, message: String::new() });
        for (exchange, expected) in [
            (failure(FailureKind::Connect), false),
            (failure(FailureKind::Dns), false),
            (status(429), false),
            (failure(FailureKind::Timeout), true),
            (failure(FailureKind::Broken), true),
            (status(502), true),
        ] {
            let mut suspicion = Suspicion::default();
            let failed = (0..30).any(|minute| suspicion.failed(&exchange, start + Duration::from_secs(60 * minute)));
            assert_eq!(failed, expected, "{exchange:?}");
        }
    }
}
