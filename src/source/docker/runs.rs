//! Short runs, added up: what containers that live less than one interval did, by image and Compose service.
//!
//! Their own series come and go too fast for a dashboard; these stay. The number of combinations is bounded; what does
//! not fit is counted under no image and no service, so the totals stay right.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::state::ExitClass;
use crate::model::Timestamp;

/// The most combinations of image and service that are kept apart.
pub(crate) const MAX_KINDS: usize = 1000;

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FinishedRun {
    /// What kind of run.
    pub(crate) kind: RunKind,
    /// How it ended.
    pub(crate) outcome: ExitClass,
    /// How long it took.
    pub(crate) took: Duration,
}

/// What runs are added up by. Empty where not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct RunKind {
    /// The image's name.
    pub(crate) image: String,
    /// The Compose service.
    pub(crate) service: String,
}

/// The sum for one kind and outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunSum {
    /// How many.
    pub(crate) runs: u64,
    /// How long they took together, in milliseconds.
    pub(crate) millis: u64,
    /// When both were zero, in milliseconds since the Unix epoch; `None` where an older version began to count.
    #[serde(default)]
    since_millis: Option<i64>,
}

impl RunSum {
    /// When it was zero.
    pub(crate) fn since(self) -> Option<Timestamp> {
        self.since_millis.map(Timestamp::from_millis)
    }
}

/// What a sum is of.
pub(crate) type RunKey = (RunKind, ExitClass);

/// All sums.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs(BTreeMap<RunKey, RunSum>);

/// Whether a run found its own sum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// It was added here.
    Own(RunKey),
    /// [`MAX_KINDS`] are in use: it was added here, without image and service.
    Overflow(RunKey),
}

impl Runs {
    /// Takes sums back from a former life.
    pub(crate) fn restored(sums: impl IntoIterator<Item = (RunKey, RunSum)>) -> Self {
        Self(sums.into_iter().take(MAX_KINDS * ExitClass::ALL.len()).collect())
    }

    /// Adds a run that is told of at `at`.
    ///
    /// What is new was zero a millisecond before: a counter's start lies before its first sample.
    pub(crate) fn add(&mut self, run: &FinishedRun, at: Timestamp) -> Added {
        let own = (run.kind.clone(), run.outcome);
        let fits = self.0.contains_key(&own) || self.0.len() < MAX_KINDS;
        let added = if fits { Added::Own(own) } else { Added::Overflow((RunKind::default(), run.outcome)) };
        let (Added::Own(key) | Added::Overflow(key)) = &added;
        let since_millis = Some(at.minus(Duration::from_millis(1)).millis());
        let sum = self.0.entry(key.clone()).or_insert(RunSum { runs: 0, millis: 0, since_millis });
        sum.runs = sum.runs.saturating_add(1);
        sum.millis = sum.millis.saturating_add(u64::try_from(run.took.as_millis()).unwrap_or(u64::MAX));
        added
    }

    /// The sum of one kind and outcome.
    pub(crate) fn get(&self, key: &RunKey) -> RunSum {
        self.0.get(key).copied().unwrap_or_default()
    }

    /// All sums, in a fixed order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&RunKey, &RunSum)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(image: &str) -> FinishedRun {
        FinishedRun {
            kind: RunKind { image: image.into(), service: String::new() },
            outcome: ExitClass::Ok,
            took: Duration::from_millis(300),
        }
    }

    #[test]
    fn runs_of_one_kind_add_up() {
        let mut runs = Runs::default();
        let at = Timestamp::from_millis;
        runs.add(&run("a"), at(1000));
        let Added::Own(key) = runs.add(&run("a"), at(2000)) else { panic!("there is room") };
        let sum = runs.get(&key);
        assert_eq!((sum.runs, sum.millis, sum.since()), (2, 600, Some(at(999))));
    }

    #[test]
    fn a_sum_of_an_older_version_is_read_and_began_nobody_knows_when() {
        let sum: RunSum = serde_json::from_str(r#"{"runs":2,"millis":600}"#).unwrap();
        assert_eq!((sum.runs, sum.since()), (2, None));
    }

    #[test]
    fn what_does_not_fit_is_still_in_the_total() {
        let mut runs = Runs::default();
        for number in 0..MAX_KINDS + 3 {
            runs.add(&run(&number.to_string()), Timestamp::from_millis(7));
        }
        assert_eq!(runs.iter().count(), MAX_KINDS + 1);
        assert_eq!(runs.iter().map(|(_, sum)| sum.runs).sum::<u64>(), MAX_KINDS as u64 + 3);
    }
}
