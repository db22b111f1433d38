//! Prometheus' relabelling: rules that change, keep or drop a label set, one after the other.
//!
//! The semantics are those of Prometheus 3 (`model/relabel/relabel.go`), including its validation: what Prometheus refuses
//! is refused, and `syntax` says which regular expressions only one of the two takes. [`Rules::apply`] is pure, never
//! fails, takes time linear in its input and allocates only where something changes.
//!
//! Rules know no label by its meaning. As in Prometheus' remote-write (`storage/remote/queue_manager.go`, `StoreSeries`),
//! labels whose names begin with `__` are not taken away at the end, and a series that lost its metric name is still one:
//! what may be sent is for the encoder to say. Where Prometheus would go on with no label at all, the set is dropped here.

mod draft;
mod letters;
mod pattern;
mod syntax;
mod template;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use draft::Draft;
use pattern::{DEFAULT_REGEX, Groups, Pattern};
use template::{DEFAULT_REPLACEMENT, Template};

use crate::model::Labels;

/// Prometheus' default (`model/relabel/relabel.go`, `DefaultRelabelConfig`).
const DEFAULT_SEPARATOR: &str = ";";

/// How much of joined source values is held without an allocation, in bytes.
const JOINED_BYTES: usize = 256;

/// The most bytes of a joined source, a value or a name that a rule makes; without a bound, rules that repeat a group would
/// double a value one after the other.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// The most labels that rules may set; without a bound, each `labelmap` could double them.
const MAX_SET_LABELS: usize = 1_024;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes the expanded replacement to the target label, when the regex matches.
    Replace,
    /// Keeps only sets whose source matches.
    Keep,
    /// Drops sets whose source matches.
    Drop,
    /// Keeps only sets whose source equals the target label's value.
    KeepEqual,
    /// Drops sets whose source equals the target label's value.
    DropEqual,
    /// Writes the source's hash, modulo a number.
    HashMod,
    /// Copies labels whose names match to the names that the replacement makes of theirs.
    LabelMap,
    /// Deletes labels whose names match.
    LabelDrop,
    /// Deletes labels whose names do not match.
    LabelKeep,
    /// Writes the source in lower case.
    Lowercase,
    /// Writes the source in upper case.
    Uppercase,
}

impl Action {
    /// All of them, with their names in a configuration.
    pub const ALL: [(&'static str, Self); 11] = [
        ("replace", Self::Replace),
        ("keep", Self::Keep),
        ("drop", Self::Drop),
        ("keepequal", Self::KeepEqual),
        ("dropequal", Self::DropEqual),
        ("hashmod", Self::HashMod),
        ("labelmap", Self::LabelMap),
        ("labeldrop", Self::LabelDrop),
        ("labelkeep", Self::LabelKeep),
        ("lowercase", Self::Lowercase),
        ("uppercase", Self::Uppercase),
    ];

    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, action)| *action == self).map_or("", |(name, _)| name)
    }
}

/// A rule as it is written (Prometheus, `<relabel_config>`); the defaults are Prometheus'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelabelConfig {
    /// The labels whose values, joined, are the source; `None` where they were not written.
    pub source_labels: Option<Vec<String>>,
    /// What joins the values.
    pub separator: String,
    /// What the source, or a name, is matched against; anchored at both ends.
    pub regex: String,
    /// The modulus of `hashmod`.
    pub modulus: u64,
    /// The label that is written, or compared with.
    pub target_label: String,
    /// What is written, or the new name.
    pub replacement: String,
    /// What to do.
    pub action: Action,
}

impl Default for RelabelConfig {
    fn default() -> Self {
        Self {
            source_labels: None,
            separator: DEFAULT_SEPARATOR.to_owned(),
            regex: DEFAULT_REGEX.to_owned(),
            modulus: 0,
            target_label: String::new(),
            replacement: DEFAULT_REPLACEMENT.to_owned(),
            action: Action::Replace,
        }
    }
}

/// Why a rule is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {rule}")]
pub struct RuleError {
    /// The field that is wrong, by its name in a configuration.
    pub key: &'static str,
    /// What is wrong with it.
    pub rule: String,
}

/// A checked and compiled rule.
#[derive(Clone, Debug)]
pub struct Rule {
    source: Vec<String>,
    separator: String,
    pattern: Pattern,
    work: Work,
}

/// What an action needs.
#[derive(Clone, Debug)]
enum Work {
    Replace { target: Target, replacement: Template },
    Keep,
    Drop,
    KeepEqual(String),
    DropEqual(String),
    HashMod(Arc<str>, u64),
    LabelMap(Template),
    LabelDrop,
    LabelKeep,
    Lowercase(Arc<str>),
    Uppercase(Arc<str>),
}

/// Where `replace` writes.
#[derive(Clone, Debug)]
enum Target {
    Label(Arc<str>),
    Expanded(Template),
}

impl Rule {
    /// Checks and compiles.
    ///
    /// # Errors
    /// The first of Prometheus' rules that is broken (`model/relabel/relabel.go`, `Validate`).
    pub fn new(config: RelabelConfig) -> Result<Self, RuleError> {
        check(&config)?;
        let pattern = Pattern::new(&config.regex).map_err(|rule| RuleError { key: "regex", rule })?;
        let target: Arc<str> = config.target_label.as_str().into();
        let work = match config.action {
            Action::Replace => Work::Replace {
                target: if target.contains('$') {
                    let template = Template::new(&target);
                    template.constant().map_or(Target::Expanded(template), Target::Label)
                } else {
                    Target::Label(target)
                },
                replacement: Template::new(&config.replacement),
            },
            Action::Keep => Work::Keep,
            Action::Drop => Work::Drop,
            Action::KeepEqual => Work::KeepEqual(config.target_label),
            Action::DropEqual => Work::DropEqual(config.target_label),
            Action::HashMod => Work::HashMod(target, config.modulus),
            Action::LabelMap => Work::LabelMap(Template::new(&config.replacement)),
            Action::LabelDrop => Work::LabelDrop,
            Action::LabelKeep => Work::LabelKeep,
            Action::Lowercase => Work::Lowercase(target),
            Action::Uppercase => Work::Uppercase(target),
        };
        Ok(Self { source: config.source_labels.unwrap_or_default(), separator: config.separator, pattern, work })
    }

    /// Applies the rule.
    fn apply(&self, draft: &mut Draft<'_>) -> Result<(), Stop> {
        let mut buffer = Joined::default();
        let keep_if = |keep: bool| if keep { Ok(()) } else { Err(Stop::Dropped) };
        match &self.work {
            Work::LabelMap(replacement) => self.map(draft, replacement),
            Work::LabelDrop => {
                self.delete(draft, true);
                Ok(())
            }
            Work::LabelKeep => {
                self.delete(draft, false);
                Ok(())
            }
            Work::Keep => keep_if(self.pattern.is_match(self.source(draft, &mut buffer)?)),
            Work::Drop => keep_if(!self.pattern.is_match(self.source(draft, &mut buffer)?)),
            Work::KeepEqual(target) => keep_if(self.source(draft, &mut buffer)? == draft.get(target)),
            Work::DropEqual(target) => keep_if(self.source(draft, &mut buffer)? != draft.get(target)),
            Work::Replace { target, replacement } => self.replace(draft, target, replacement),
            Work::HashMod(target, modulus) => {
                let value = hash_mod(self.source(draft, &mut buffer)?, *modulus);
                set(draft, target, &value)
            }
            Work::Lowercase(target) => {
                let value = letters::lower(self.source(draft, &mut buffer)?);
                set(draft, target, &value)
            }
            Work::Uppercase(target) => {
                let value = letters::upper(self.source(draft, &mut buffer)?);
                set(draft, target, &value)
            }
        }
    }

    /// The values of the source labels, joined.
    fn source<'b>(&self, draft: &'b Draft<'_>, buffer: &'b mut Joined) -> Result<&'b str, Stop> {
        match &self.source[..] {
            [] => Ok(""),
            [one] => Ok(draft.get(one)),
            [first, others @ ..] => {
                buffer.push(draft.get(first))?;
                for other in others {
                    buffer.push(&self.separator)?;
                    buffer.push(draft.get(other))?;
                }
                Ok(buffer.text())
            }
        }
    }

    fn replace(&self, draft: &mut Draft<'_>, target: &Target, replacement: &Template) -> Result<(), Stop> {
        let (mut name, mut value) = (String::new(), String::new());
        {
            let mut buffer = Joined::default();
            let source = self.source(draft, &mut buffer)?;
            let Some(groups) = self.pattern.groups(source) else { return Ok(()) };
            replacement.expand(&groups, &mut value, MAX_TEXT_BYTES).ok_or(Stop::TooLarge)?;
            if let Target::Expanded(template) = target {
                template.expand(&groups, &mut name, MAX_TEXT_BYTES).ok_or(Stop::TooLarge)?;
            }
        }
        match target {
            Target::Label(label) => set(draft, label, &value),
            // An empty name is the only one that is none in Prometheus 3; the draft passes it over.
            Target::Expanded(_) => set(draft, &name.into(), &value),
        }
    }

    fn map(&self, draft: &mut Draft<'_>, replacement: &Template) -> Result<(), Stop> {
        for label in draft.picked(|name| self.pattern.is_match(name)) {
            let expand = |groups: &Groups<'_, '_>, out: &mut String| replacement.expand(groups, out, MAX_TEXT_BYTES);
            let name = self.pattern.replace_all(&label.name, expand).ok_or(Stop::TooLarge)?;
            set(draft, &name.into(), &label.value)?;
        }
        Ok(())
    }

    /// Deletes the labels whose names match, or those whose names do not.
    fn delete(&self, draft: &mut Draft<'_>, matching: bool) {
        for label in draft.picked(|name| self.pattern.is_match(name) == matching) {
            draft.delete(&label.name);
        }
    }
}

/// Why a rule ends the work on a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Dropped,
    TooLarge,
}

fn set(draft: &mut Draft<'_>, name: &Arc<str>, value: &str) -> Result<(), Stop> {
    draft.set(name, value);
    if draft.set_count() > MAX_SET_LABELS { Err(Stop::TooLarge) } else { Ok(()) }
}

/// The last eight bytes of the MD5 of `text`, big-endian, modulo `modulus` (`model/relabel/relabel.go`, `HashMod`).
fn hash_mod(text: &str, modulus: u64) -> String {
    let hash = u128::from_be_bytes(md5::compute(text).0);
    let low = u64::try_from(hash & u128::from(u64::MAX)).unwrap_or_default();
    low.checked_rem(modulus).unwrap_or_default().to_string()
}

/// A joined text that is held without an allocation while it is short.
struct Joined {
    short: [u8; JOINED_BYTES],
    length: usize,
    long: String,
}

impl Default for Joined {
    fn default() -> Self {
        Self { short: [0; JOINED_BYTES], length: 0, long: String::new() }
    }
}

impl Joined {
    fn push(&mut self, text: &str) -> Result<(), Stop> {
        if self.length.max(self.long.len()) + text.len() > MAX_TEXT_BYTES {
            return Err(Stop::TooLarge);
        }
        let end = self.length + text.len();
        if self.long.is_empty() && end <= JOINED_BYTES {
            self.short[self.length..end].copy_from_slice(text.as_bytes());
            self.length = end;
            return Ok(());
        }
        if self.long.is_empty() {
            let short = std::str::from_utf8(&self.short[..self.length]).unwrap_or_default().to_owned();
            self.long = short;
        }
        self.long.push_str(text);
        Ok(())
    }

    fn text(&self) -> &str {
        if self.long.is_empty() {
            // Put together from whole texts, so it is one.
            std::str::from_utf8(&self.short[..self.length]).unwrap_or_default()
        } else {
            &self.long
        }
    }
}

/// Prometheus' rules for combinations of fields, in its order (`model/relabel/relabel.go`, `Validate`), with the names that
/// Prometheus 3 allows by default: any text but an empty one.
fn check(config: &RelabelConfig) -> Result<(), RuleError> {
    let action = config.action;
    let wrong = |key: &'static str, rule: String| Err(RuleError { key, rule });
    if let Some(labels) = &config.source_labels
        && labels.iter().any(String::is_empty)
    {
        return wrong("source_labels", "the name of a label may not be empty".to_owned());
    }
    let compares = matches!(action, Action::KeepEqual | Action::DropEqual);
    let writes = matches!(action, Action::Replace | Action::HashMod | Action::Lowercase | Action::Uppercase);
    if action == Action::HashMod && config.modulus == 0 {
        return wrong("modulus", "must be at least 1 for hashmod".to_owned());
    }
    if (writes || compares) && config.target_label.is_empty() {
        return wrong("target_label", format!("is missing; {} needs it", action.name()));
    }
    let has_replacement = config.replacement != DEFAULT_REPLACEMENT;
    if has_replacement && (compares || matches!(action, Action::Lowercase | Action::Uppercase)) {
        return wrong("replacement", format!("has no meaning for {}; remove it", action.name()));
    }
    if action == Action::LabelMap && config.replacement.is_empty() {
        return wrong("replacement", "may not be empty for labelmap".to_owned());
    }
    let only_names = matches!(action, Action::LabelDrop | Action::LabelKeep);
    let allowed = if compares { "only source_labels and target_label" } else { "only regex" };
    let given = [
        ("source_labels", only_names && config.source_labels.is_some()),
        ("target_label", only_names && !config.target_label.is_empty()),
        ("regex", compares && config.regex != DEFAULT_REGEX),
        ("modulus", config.modulus != 0),
        ("separator", config.separator != DEFAULT_SEPARATOR),
        ("replacement", has_replacement),
    ];
    match given.iter().find(|(_, is_given)| *is_given && (compares || only_names)) {
        Some((key, _)) => wrong(key, format!("has no meaning for {}, which takes {allowed}", action.name())),
        None => Ok(()),
    }
}

/// Rules that are applied in order.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    has_map: bool,
}

/// What rules made of a label set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it was.
    Unchanged,
    /// It is another.
    Changed(Labels),
    /// A rule dropped it, or the rules left no label.
    Dropped,
    /// The rules made more of it than the bounds on texts and labels allow; it is not to be used, and to be counted.
    TooLarge,
}

impl Rules {
    /// `rules`, in their order.
    pub fn new(rules: Vec<Rule>) -> Self {
        let has_map = rules.iter().any(|rule| matches!(rule.work, Work::LabelMap(_)));
        Self { rules, has_map }
    }

    /// Whether there is none, so that nothing would ever change.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// What the rules make of `labels`.
    pub fn apply(&self, labels: &Labels) -> Outcome {
        if self.rules.is_empty() {
            return Outcome::Unchanged;
        }
        let mut draft = Draft::new(labels, self.has_map);
        for rule in &self.rules {
            match rule.apply(&mut draft) {
                Ok(()) => {}
                Err(Stop::Dropped) => return Outcome::Dropped,
                Err(Stop::TooLarge) => return Outcome::TooLarge,
            }
        }
        draft.finish()
    }
}
