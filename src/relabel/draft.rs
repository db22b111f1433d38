//! A label set while rules work on it: what was there, what was set and what was deleted.
//!
//! Nothing is copied before something changes. The order in which labels are visited (first the untouched ones as they are
//! sorted, then the set ones as they were set) is that of Prometheus' `labels.Builder`, because it decides which of two
//! labels wins when `labelmap` gives both the same name.

use std::sync::Arc;

use super::Outcome;
use crate::model::{Label, Labels, LabelsBuilder};

/// A label set being changed.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    base: &'a Labels,
    set: Vec<Label>,
    deleted: Vec<Arc<str>>,
    /// Whether setting a label to what it is must be noted, for the order's sake.
    keeps_order: bool,
}

impl<'a> Draft<'a> {
    /// Nothing changed yet. `keeps_order` tells that the order of visits matters to a rule.
    pub(super) fn new(base: &'a Labels, keeps_order: bool) -> Self {
        Self { base, set: Vec::new(), deleted: Vec::new(), keeps_order }
    }

    /// The value of `name`; empty where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        if let Some(label) = self.set.iter().find(|label| &*label.name == name) {
            return &label.value;
        }
        if self.deleted.iter().any(|deleted| &**deleted == name) {
            return "";
        }
        self.base.get(name).unwrap_or_default()
    }

    /// Sets `name`; an empty value deletes it, and a label without a name cannot be.
    pub(super) fn set(&mut self, name: &Arc<str>, value: &str) {
        if name.is_empty() {
            return;
        }
        if value.is_empty() {
            self.delete(name);
        } else if self.keeps_order || self.get(name) != value {
            self.put(name, Arc::from(value));
        }
    }

    fn put(&mut self, name: &Arc<str>, value: Arc<str>) {
        match self.set.iter_mut().find(|label| label.name == *name) {
            Some(label) => label.value = value,
            None => self.set.push(Label { name: Arc::clone(name), value }),
        }
    }

    /// How many labels are set.
    pub(super) fn set_count(&self) -> usize {
        self.set.len()
    }

    /// Deletes `name`.
    pub(super) fn delete(&mut self, name: &Arc<str>) {
        self.set.retain(|label| label.name != *name);
        if self.base.get(name).is_some() && !self.deleted.contains(name) {
            self.deleted.push(Arc::clone(name));
        }
    }

    /// The labels that `wanted` picks, in the order in which Prometheus visits them.
    pub(super) fn picked(&self, mut wanted: impl FnMut(&str) -> bool) -> Vec<Label> {
        let untouched = self.base.iter().filter(|label| self.is_untouched(&label.name));
        untouched.chain(&self.set).filter(|label| wanted(&label.name)).cloned().collect()
    }

    /// The result.
    pub(super) fn finish(self) -> Outcome {
        let is_same = |label: &Label| self.base.get(&label.name) == Some(&label.value);
        // What was deleted and set again stands in both lists.
        let is_set = |name: &Arc<str>| self.set.iter().any(|label| label.name == *name);
        if self.set.iter().all(is_same) && self.deleted.iter().all(is_set) {
            return if self.base.is_empty() { Outcome::Dropped } else { Outcome::Unchanged };
        }
        let untouched = self.base.iter().filter(|label| self.is_untouched(&label.name));
        let all = untouched.chain(&self.set);
        let all = all
            .fold(LabelsBuilder::default(), |all, label| all.with(Arc::clone(&label.name), Arc::clone(&label.value)));
        // Names are unique and neither names nor values are empty, so nothing can be lost here.
        let labels = all.build_lossy();
        if labels.is_empty() { Outcome::Dropped } else { Outcome::Changed(labels) }
    }

    fn is_untouched(&self, name: &Arc<str>) -> bool {
        !self.deleted.contains(name) && !self.set.iter().any(|label| label.name == *name)
    }
}
