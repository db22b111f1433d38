//! What is kept under a container's name beyond the container: its counters, and the time of the last sample told.
//!
//! Counters of a container that is gone are kept for a while, so that one made anew under its name continues them. How
//! many and how long is bounded; the longest gone are forgotten first.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counters::Counters;
use crate::model::Timestamp;

/// The most names of containers that are gone.
pub(crate) const KEPT_NAMES: usize = 1000;
/// How long a name is kept after its container is gone.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is kept under one name.
#[derive(Clone, Debug)]
struct Name {
    counters: Counters,
    /// The id of the container that has it.
    owner: Option<String>,
    /// Since when no container has it.
    gone: Option<Timestamp>,
    /// The time of the last event told under it.
    stamp: Timestamp,
}

impl Default for Name {
    fn default() -> Self {
        Self { counters: Counters::default(), owner: None, gone: None, stamp: Timestamp::MIN }
    }
}

/// A name as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredName {
    name: String,
    counters: Counters,
    gone_millis: Option<i64>,
}

/// All names.
#[derive(Debug, Default)]
pub(crate) struct Names(BTreeMap<String, Name>);

impl Names {
    /// Takes names back from a former life.
    pub(crate) fn restored(stored: Vec<StoredName>) -> Self {
        let name = |stored: StoredName| {
            let gone = stored.gone_millis.map(Timestamp::from_millis);
            (stored.name, Name { counters: stored.counters, gone, ..Name::default() })
        };
        Self(stored.into_iter().map(name).collect())
    }

    /// As they are stored.
    pub(crate) fn stored(&self) -> Vec<StoredName> {
        let stored = |(name, kept): (&String, &Name)| StoredName {
            name: name.clone(),
            counters: kept.counters.clone(),
            gone_millis: kept.gone.map(Timestamp::millis),
        };
        self.0.iter().map(stored).collect()
    }

    /// The counters under `name`, which a container has or is about to have.
    pub(crate) fn counters_mut(&mut self, name: &str) -> &mut Counters {
        &mut self.entry(name).counters
    }

    /// What was counted under `name`.
    pub(crate) fn counters(&self, name: &str) -> Counters {
        self.0.get(name).map(|kept| kept.counters.clone()).unwrap_or_default()
    }

    /// The container that has `name`.
    pub(crate) fn owner(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.owner.as_deref()
    }

    /// The container `id` has `name` now.
    pub(crate) fn taken(&mut self, name: &str, id: &str) {
        let kept = self.entry(name);
        (kept.owner, kept.gone) = (Some(id.to_owned()), None);
    }

    /// The container `id` does not have `name` any more, since `at`.
    pub(crate) fn released(&mut self, name: &str, id: &str, at: Timestamp) {
        if let Some(kept) = self.0.get_mut(name).filter(|kept| kept.owner.as_deref() == Some(id)) {
            (kept.owner, kept.gone) = (None, Some(at));
        }
    }

    /// The time of the last event told under `name`.
    pub(crate) fn stamp(&self, name: &str) -> Timestamp {
        self.0.get(name).map_or(Timestamp::MIN, |kept| kept.stamp)
    }

    /// An event was told under `name`.
    pub(crate) fn told(&mut self, name: &str, at: Timestamp) {
        if let Some(kept) = self.0.get_mut(name) {
            kept.stamp = at;
        }
    }

    fn entry(&mut self, name: &str) -> &mut Name {
        if !self.0.contains_key(name) {
            self.0.insert(name.to_owned(), Name::default());
        }
        self.0.get_mut(name).expect("inserted just before")
    }

    /// Forgets what is too old or too much. Returns how many were forgotten because there were too many.
    pub(crate) fn forget(&mut self, at: Timestamp) -> u64 {
        // A name that no container took since the start is one whose container vanished before it.
        self.0.values_mut().filter(|kept| kept.owner.is_none()).for_each(|kept| kept.gone = kept.gone.or(Some(at)));
        self.0.retain(|_, kept| kept.gone.is_none_or(|gone| at.since(gone) <= KEPT_FOR));
        let mut gone: Vec<(Timestamp, String)> =
            self.0.iter().filter_map(|(name, kept)| kept.gone.map(|gone| (gone, name.clone()))).collect();
        let surplus = gone.len().saturating_sub(KEPT_NAMES);
        if surplus > 0 {
            gone.sort();
            for (_, name) in gone.iter().take(surplus) {
                self.0.remove(name);
            }
        }
        surplus as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gone_are_forgotten_first_and_used_ones_never() {
        let mut names = Names::default();
        names.taken("lives", "id");
        for number in 0..KEPT_NAMES + 2 {
            let name = format!("{number:05}");
            names.taken(&name, "id");
            names.released(&name, "id", Timestamp::from_millis(i64::try_from(number).unwrap()));
        }
        assert_eq!(names.forget(Timestamp::from_millis(5000)), 2);
        assert!(!names.0.contains_key("00001"));
        assert!(names.0.contains_key("00002"));

        assert_eq!(names.forget(Timestamp::from_millis(8 * 24 * 3600 * 1000)), 0);
        assert_eq!(names.0.keys().collect::<Vec<_>>(), ["lives"]);
    }
}
