//! A regular expression with Prometheus' anchors, compiled; what a match captured, and replacing.
//!
//! Compiling is bounded in text and memory, matching takes time linear in the text as it does in Go. Go has no such bound
//! but, in effect, one of some 100 MiB.

use regex::{Captures, Regex, RegexBuilder};

use super::syntax::translated;

/// The longest text of an expression, in bytes.
pub(super) const MAX_REGEX_BYTES: usize = 64 << 10;

/// The most memory one compiled expression may take, in bytes; the keep-lists that vendors print need a tenth of it.
const MAX_COMPILED_BYTES: usize = 8 << 20;

/// The most memory the searches of one expression may keep, in bytes.
const MAX_CACHE_BYTES: usize = 1 << 20;

/// Prometheus' default (`model/relabel/relabel.go`, `DefaultRelabelConfig`).
pub(super) const DEFAULT_REGEX: &str = "(.*)";

/// One compiled expression.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// The default, which matches everything and captures it as its only group: no search is needed.
    Anything,
    /// Any other.
    Regex(Regex, Names),
}

/// The names of the groups, from group 1 on.
pub(super) type Names = Vec<Option<String>>;

/// The groups of one match.
pub(super) enum Groups<'r, 't> {
    Anything(&'t str),
    Regex(Captures<'t>, &'r Names),
}

impl Pattern {
    /// Compiles `text` between Prometheus' anchors (`model/relabel/relabel.go`, `NewRegexp`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        if text == DEFAULT_REGEX {
            return Ok(Self::Anything);
        }
        if text.len() > MAX_REGEX_BYTES {
            return Err(format!("the expression is longer than {MAX_REGEX_BYTES} bytes"));
        }
        // Anchored first and read then, as Prometheus does: that `a)|(b` gets out of the anchors there is so here too.
        let anchored = format!("^(?s:{text})$");
        let (expression, names) = translated(&anchored)?;
        let compiled = RegexBuilder::new(&expression)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_CACHE_BYTES)
            .build()
            .map_err(|error| explained(&error))?;
        Ok(Self::Regex(compiled, names))
    }

    /// Whether it matches.
    pub(super) fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Regex(regex, _) => regex.is_match(text),
        }
    }

    /// The groups of the first match.
    pub(super) fn groups<'r, 't>(&'r self, text: &'t str) -> Option<Groups<'r, 't>> {
        match self {
            Self::Anything => Some(Groups::Anything(text)),
            // Groups cost an allocation and a slower search, so most texts must be turned away without them.
            Self::Regex(regex, names) if regex.is_match(text) => Some(Groups::Regex(regex.captures(text)?, names)),
            Self::Regex(..) => None,
        }
    }

    /// `text` with every match replaced by what `expand` appends (Go, `Regexp.ReplaceAllString`); `None` once `expand` gives up.
    pub(super) fn replace_all(
        &self,
        text: &str,
        mut expand: impl FnMut(&Groups<'_, '_>, &mut String) -> Option<()>,
    ) -> Option<String> {
        let mut out = String::new();
        let Self::Regex(regex, names) = self else {
            expand(&Groups::Anything(text), &mut out)?;
            return Some(out);
        };
        let mut end = 0;
        for captures in regex.captures_iter(text) {
            let whole = captures.get_match();
            out.push_str(&text[end..whole.start()]);
            end = whole.end();
            expand(&Groups::Regex(captures, names), &mut out)?;
        }
        out.push_str(&text[end..]);
        Some(out)
    }
}

impl<'t> Groups<'_, 't> {
    /// What group `number` matched.
    pub(super) fn numbered(&self, number: usize) -> Option<&'t str> {
        match self {
            Self::Anything(text) => (number <= 1).then_some(*text),
            Self::Regex(captures, _) => captures.get(number).map(|group| group.as_str()),
        }
    }

    /// What the first group `name` that took part matched; Go allows a name more than once.
    pub(super) fn named(&self, name: &str) -> Option<&'t str> {
        let Self::Regex(_, names) = self else { return None };
        let mut places = names.iter().enumerate().filter(|(_, other)| other.as_deref() == Some(name));
        places.find_map(|(place, _)| self.numbered(place + 1))
    }
}

fn explained(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => {
            format!("the expression needs more than {MAX_COMPILED_BYTES} bytes of memory; split it over several rules")
        }
        other => {
            // The library draws a picture of several lines; its last line says what is wrong.
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            format!("not a regular expression: {}", last.trim_start_matches("error: "))
        }
    }
}
