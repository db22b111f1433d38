//! What the user wrote, read key by key: each key is asked for once, by its name and type, and what nobody asked for is
//! an unknown key.
//!
//! Reading never stops at a problem: it notes it and goes on with nothing, so that a user sees all problems at once. The
//! names that are asked for are the names that are known, so the two cannot drift apart.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use config::{Map, Value, ValueKind};

use super::problem::{Place, Places, Problem, item, join};
use super::{units, unknown};

/// What reading leaves behind besides values.
#[derive(Default)]
pub(super) struct Report {
    places: Places,
    problems: RefCell<Vec<Problem>>,
    notices: RefCell<Vec<String>>,
    without_effect: RefCell<Vec<String>>,
    #[cfg(test)]
    asked: RefCell<std::collections::BTreeSet<String>>,
}

impl Report {
    /// For a configuration whose keys were written at `places`, and in which `problems` are known already.
    pub(super) fn new(places: Places, problems: Vec<Problem>) -> Self {
        Self { places, problems: RefCell::new(problems), ..Self::default() }
    }

    /// Notes that the value of `path` breaks `rule`; without a value, that `path` itself does.
    pub(super) fn wrong(&self, path: &str, value: Option<&str>, rule: impl Into<String>) {
        self.problems.borrow_mut().push(self.places.problem(path, value, rule));
    }

    /// Notes something to say once at start.
    pub(super) fn notice(&self, text: String) {
        self.notices.borrow_mut().push(text);
    }

    /// The problems, and the notices in a stable order.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<String>) {
        let (mut notices, mut without_effect) = (self.notices.into_inner(), self.without_effect.into_inner());
        if !without_effect.is_empty() {
            without_effect.sort();
            notices.push(format!("accepted, but without effect in outhaul: {}", without_effect.join(", ")));
        }
        (self.problems.into_inner(), notices)
    }

    /// Every key that was asked for, list indices left out.
    #[cfg(test)]
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.borrow().iter().cloned().collect()
    }
}

/// A map of the configuration, being read.
pub(super) struct Block<'a> {
    report: &'a Report,
    path: String,
    entries: Map<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> Block<'a> {
    /// Reads the map at `path` with `read`, and then reports what was left over.
    pub(super) fn read<T>(
        report: &'a Report,
        path: String,
        entries: Map<String, Value>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let mut block = Self { report, path, entries, known: Vec::new() };
        let value = read(&mut block);
        for (key, left) in &block.entries {
            // Without a value and near nothing, it may be a value in the wrong place, and a secret one.
            let is_name = left.kind != ValueKind::Nil || unknown::nearest(key, block.known.iter().copied()).is_some();
            let path = if is_name { join(&block.path, key) } else { join(&block.path, "…") };
            report.wrong(&path, None, unknown::rule(&block.path, key, &block.known));
        }
        value
    }

    /// The report that problems go to.
    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// The path of `key`.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Notes that the value of `key` breaks `rule`.
    pub(super) fn wrong(&self, key: &str, value: Option<&str>, rule: impl Into<String>) {
        self.report.wrong(&self.path_of(key), value, rule);
    }

    /// Notes that this block as a whole breaks `rule`.
    pub(super) fn wrong_here(&self, rule: impl Into<String>) {
        self.report.wrong(&self.path, None, rule);
    }

    /// Whether `key` was written, with anything but null.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| value.kind != ValueKind::Nil)
    }

    /// Whether `key` was written, with nothing behind it.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| value.kind == ValueKind::Nil)
    }

    /// Whether a problem was noted in this block, or below it.
    pub(super) fn has_problems(&self) -> bool {
        let below = |key: &str| key.strip_prefix(&self.path).is_some_and(|rest| rest.starts_with(['.', '[']));
        self.report.problems.borrow().iter().any(|problem| below(&problem.key))
    }

    /// How many items the list at `key` has.
    pub(super) fn item_count(&self, key: &str) -> usize {
        match self.entries.get(key).map(|value| &value.kind) {
            Some(ValueKind::Array(items)) => items.len(),
            _ => 0,
        }
    }

    /// Whether `key` is a plain text that equals `text`; asks for it only then.
    pub(super) fn is(&mut self, key: &'static str, text: &str) -> bool {
        let is =
            matches!(self.entries.get(key).map(|value| &value.kind), Some(ValueKind::String(value)) if value == text);
        if is {
            self.take(key);
        }
        is
    }

    /// A text.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let kind = self.take(key)?;
        text_of(self.report, &self.path_of(key), kind)
    }

    /// A text that `parse` makes into something; its error is the rule that was broken.
    pub(super) fn parsed<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(key)?;
        parse(&text).map_err(|rule| self.wrong(key, Some(&text), rule)).ok()
    }

    /// A duration.
    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, units::duration)
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(&mut self, key: &'static str, most: usize) -> Option<usize> {
        self.parsed(key, |text| match text.parse::<usize>() {
            Ok(count) if (1..=most).contains(&count) => Ok(count),
            _ => Err(format!("must be a whole number from 1 to {most}")),
        })
    }

    /// A truth value; besides YAML 1.2's words those of YAML 1.1, which Prometheus' parser takes too.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.parsed(key, |text| match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Ok(true),
            "false" | "no" | "off" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        })
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.parsed(key, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            found.map(|(_, value)| *value).ok_or_else(|| format!("must be one of {}", names.join(", ")))
        })
    }

    /// The name of a file, relative to the folder of the configuration file it was written in.
    pub(super) fn file(&mut self, key: &'static str) -> Option<PathBuf> {
        let text = self.text(key)?;
        if text.is_empty() {
            self.wrong(key, Some(""), "the name of a file may not be empty");
            return None;
        }
        let folder = match self.report.places.of(&self.path_of(key)) {
            Place::File(file, _) => file.parent().map(PathBuf::from),
            Place::Variable(_) | Place::Nowhere => None,
        };
        Some(folder.unwrap_or_default().join(text))
    }

    /// A list of texts, each made into something by `parse`.
    pub(super) fn list<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut parsed = Vec::new();
        for (index, value) in self.items(key).into_iter().enumerate() {
            let path = item(&self.path_of(key), index);
            let Some(text) = text_of(self.report, &path, value.kind) else { continue };
            match parse(&text) {
                Ok(value) => parsed.push(value),
                Err(rule) => self.report.wrong(&path, Some(&text), rule),
            }
        }
        parsed
    }

    /// A map whose keys are the user's, sorted.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<(String, String)> {
        let path = self.path_of(key);
        let entries = self.take(key).and_then(|kind| map_of(self.report, &path, kind)).unwrap_or_default();
        let text = |(name, value): (String, Value)| {
            if value.kind == ValueKind::Nil {
                // Not even its name is told: it may be a value in the wrong place, and a secret one.
                self.report.wrong(&path, None, "a name in here has no value; an empty one is written \"\"");
                return None;
            }
            let text = text_of(self.report, &join(&path, &name), value.kind)?;
            Some((name, text))
        };
        let mut texts: Vec<_> = entries.into_iter().filter_map(text).collect();
        texts.sort();
        texts
    }

    /// A map whose keys are the user's and whose values are lists of texts, sorted by key.
    pub(super) fn lists(&mut self, key: &'static str) -> Vec<(String, Vec<String>)> {
        let path = self.path_of(key);
        let entries = self.take(key).and_then(|kind| map_of(self.report, &path, kind)).unwrap_or_default();
        let mut lists = Vec::new();
        for (name, value) in entries {
            let path = join(&path, &name);
            let ValueKind::Array(items) = value.kind else {
                self.report.wrong(&path, None, format!("expected a list, found {}", name_of(&value.kind)));
                continue;
            };
            let texts = items.into_iter().filter_map(|value| text_of(self.report, &path, value.kind)).collect();
            lists.push((name, texts));
        }
        lists.sort();
        lists
    }

    /// A block, read by `read`; `None` where it is missing or null.
    pub(super) fn block<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Block<'_>) -> T) -> Option<T> {
        let path = self.path_of(key);
        let entries = self.take(key).and_then(|kind| map_of(self.report, &path, kind))?;
        Some(Block::read(self.report, path, entries, read))
    }

    /// A block that is read whether it is there or not.
    pub(super) fn block_or_default<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Block<'_>) -> T) -> T {
        let path = self.path_of(key);
        let entries = self.take(key).and_then(|kind| map_of(self.report, &path, kind)).unwrap_or_default();
        Block::read(self.report, path, entries, read)
    }

    /// A list of blocks, each read by `read`; `None` where it is missing or null.
    pub(super) fn blocks<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Block<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        if !self.has(key) {
            self.take(key);
            return None;
        }
        let items = self.items(key).into_iter().enumerate();
        let path = self.path_of(key);
        let each = |(index, value): (usize, Value)| {
            let path = item(&path, index);
            let entries = map_of(self.report, &path, value.kind)?;
            Block::read(self.report, path, entries, &read)
        };
        Some(items.filter_map(each).collect())
    }

    /// Keys of Prometheus that are harmless here: accepted, and named in one notice.
    pub(super) fn no_effect(&mut self, keys: &[&'static str]) {
        for key in keys {
            if self.take(key).is_some() {
                self.without_effect(key);
            }
        }
    }

    /// Notes that what was written at `key` changes nothing.
    pub(super) fn without_effect(&self, key: &str) {
        self.report.without_effect.borrow_mut().push(self.path_of(key));
    }

    /// Keys with the one value that says what outhaul does anyway; any other breaks `rule`.
    pub(super) fn only(&mut self, key: &'static str, values: &[&str], rule: &str) {
        if let Some(text) = self.text(key).filter(|text| !values.contains(&text.as_str())) {
            self.wrong(key, Some(&text), rule);
        }
    }

    /// A flag that may only be what outhaul does anyway.
    pub(super) fn only_flag(&mut self, key: &'static str, value: bool) {
        if self.flag(key).is_some_and(|flag| flag != value) {
            let rule = format!("{} is {}", !value, unknown::NOT_YET);
            self.wrong(key, None, rule);
        }
    }

    /// Keys that are refused with `rule` wherever they say anything.
    pub(super) fn refused(&mut self, keys: &[&'static str], rule: &str) {
        for key in keys {
            match self.take(key) {
                None => {}
                Some(ValueKind::Array(items)) if items.is_empty() => {}
                Some(_) => self.wrong(key, None, rule),
            }
        }
    }

    /// The value of `key`, which is known from now on; `None` where it is missing or null.
    fn take(&mut self, key: &'static str) -> Option<ValueKind> {
        self.known.push(key);
        #[cfg(test)]
        self.report.asked.borrow_mut().insert(self.path_of(key).replace("[0]", "[]").replace("[1]", "[]"));
        self.entries.remove(key).map(|value| value.kind).filter(|kind| *kind != ValueKind::Nil)
    }

    fn items(&mut self, key: &'static str) -> Vec<Value> {
        match self.take(key) {
            None => Vec::new(),
            Some(ValueKind::Array(items)) => items,
            Some(other) => {
                let hint = "each item begins with `- `";
                self.wrong(key, None, format!("expected a list, found {}; {hint}", name_of(&other)));
                Vec::new()
            }
        }
    }
}

/// The text of a value; a value that has none is reported.
fn text_of(report: &Report, path: &str, kind: ValueKind) -> Option<String> {
    match kind {
        ValueKind::String(text) => Some(text),
        other => {
            report.wrong(path, None, format!("expected a value, found {}", name_of(&other)));
            None
        }
    }
}

/// The entries of a map; a value that has none is reported.
fn map_of(report: &Report, path: &str, kind: ValueKind) -> Option<Map<String, Value>> {
    match kind {
        ValueKind::Table(entries) => Some(entries),
        other => {
            report.wrong(path, None, format!("expected a block of keys, found {}", name_of(&other)));
            None
        }
    }
}

fn name_of(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Nil => "nothing",
        ValueKind::Table(_) => "a block of keys",
        ValueKind::Array(_) => "a list",
        _ => "a plain value",
    }
}
