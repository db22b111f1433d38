//! What is wrong with a configuration, for people: one line per problem, with the place, the key, the value and the rule.
//!
//! No secret gets into a line: values of secret keys are replaced, URLs lose user, password, query and fragment, and a
//! value that came out of `${…}` is not shown at all. Nothing in here decides what is right.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The most problems one error lists; the rest are counted in its last line.
const MAX_LISTED: usize = 50;

/// The longest text of a user that is repeated in a line, in characters.
const MAX_SHOWN_CHARS: usize = 80;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of a file, the first being 1; line 0 stands for the file as a whole.
    File(Arc<Path>, usize),
    /// An environment variable.
    Variable(String),
    /// Nowhere: it is missing, or a default.
    Nowhere,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {}", shortened(name)),
            Self::Nowhere => f.write_str("configuration"),
        }
    }
}

/// How much of a value an error may repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// As the user wrote it.
    Written,
    /// Out of a `${…}`, so it may hold what the user keeps out of the file.
    Expanded,
}

/// Where each key was written, by its path (`remote_write[0].url`); a later layer's note replaces an earlier one's.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(HashMap<String, (Place, Origin)>);

impl Places {
    /// Notes where `path` was written.
    pub(super) fn note(&mut self, path: &str, place: &Place) {
        self.0.insert(path.to_owned(), (place.clone(), Origin::Written));
    }

    /// Notes where `path` was written, and the same of those of its ancestors that nobody wrote.
    pub(super) fn note_with_ancestors(&mut self, path: &str, place: &Place) {
        self.note(path, place);
        for ancestor in ancestors(path) {
            self.0.entry(ancestor.to_owned()).or_insert_with(|| (place.clone(), Origin::Written));
        }
    }

    /// Notes that the value of `path` came out of a `${…}`.
    pub(super) fn note_expanded(&mut self, path: &str) {
        if let Some((_, origin)) = self.0.get_mut(path) {
            *origin = Origin::Expanded;
        }
    }

    /// Where `path`, or else its nearest ancestor, was written.
    pub(super) fn of(&self, path: &str) -> Place {
        let written = std::iter::once(path).chain(ancestors(path)).find_map(|path| self.0.get(path));
        written.map_or(Place::Nowhere, |(place, _)| place.clone())
    }

    /// A problem with the value of `path`, or with `path` itself.
    pub(super) fn problem(&self, path: &str, value: Option<&str>, rule: impl Into<String>) -> Problem {
        let expanded = matches!(self.0.get(path), Some((_, Origin::Expanded)));
        let value = value.and_then(|text| if expanded { Some("<expanded>".to_owned()) } else { shown(path, text) });
        Problem { place: self.of(path), key: path.to_owned(), value, rule: rule.into() }
    }
}

/// The paths above `path`, the nearest first.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rfind(['.', '[']).map(|end| &path[..end])).skip(1)
}

/// The path of `key` under `parent`. A key is cut where it stops to look like one: behind a forgotten `: ` there may be a secret.
pub(super) fn join(parent: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let end = key.char_indices().position(|(index, c)| index >= MAX_SHOWN_CHARS || !plain(c));
    // All characters before the end are ASCII, so their number is their length.
    let key = end.map_or_else(|| key.to_owned(), |end| format!("{}…", &key[..end]));
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

/// The path of item `index` of the list at `parent`.
pub(super) fn item(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it was written.
    pub place: Place,
    /// The path of the key (`remote_write[0].url`), empty for the file as a whole.
    pub key: String,
    /// The value as it may be shown.
    pub value: Option<String>,
    /// What is wrong with it, and what to do.
    pub rule: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        if let Some(value) = &self.value {
            write!(f, "{value}: ")?;
        }
        f.write_str(&self.rule)
    }
}

/// Why there is no configuration: at least one problem, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// All of `problems`, in the order of their places.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { problems }
    }

    /// The problems, in the order of their places.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for problem in self.problems.iter().take(MAX_LISTED) {
            write!(f, "{separator}{problem}")?;
            separator = "\n";
        }
        match self.problems.len().checked_sub(MAX_LISTED) {
            Some(more @ 1..) => write!(f, "{separator}and {more} more problems"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// The value of `path` as it may be shown, if at all.
fn shown(path: &str, text: &str) -> Option<String> {
    // In a map the last part is a user's own key, which says nothing about how secret its value is.
    if path.contains(".headers.") || path.split('.').any(is_secret) {
        Some("<secret>".to_owned())
    } else if path.ends_with("url") || path.ends_with("host") {
        // In a broken URL nobody knows where the password ends.
        Some(format!("\"{}\"", shortened(&masked(text)?)))
    } else {
        Some(format!("\"{}\"", shortened(text)))
    }
}

/// Whether a value of this name is a secret. The names are those of Prometheus' `http_config` (Prometheus 3).
fn is_secret(key: &str) -> bool {
    const WORDS: [&str; 5] = ["password", "credentials", "token", "secret", "api_key"];
    // `token_url` is an address, and shown as one.
    !key.ends_with("_file") && !key.ends_with("_url") && WORDS.iter().any(|word| key.contains(word))
}

/// A whole URL of a scheme we know, without user, password, query and fragment.
fn masked(text: &str) -> Option<String> {
    let url = reqwest::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https" | "tcp" | "unix"))?;
    Some(super::Url::new(url).masked())
}

/// On one line and not too long.
pub(super) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_SHOWN_CHARS).collect::<String>().escape_debug().collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_credentials_and_a_broken_one_not_at_all() {
        let shown = |url| shown("remote_write[0].url", url);
        assert_eq!(shown("http://user:pass@host/path?token=x#y").as_deref(), Some("\"http://host/path\""));
        assert_eq!(shown("tcp://user:pass@host:1").as_deref(), Some("\"tcp://host:1\""));
        for broken in ["http://user:passhost", "user:pass@host", "https:/user:pass", "host", "ftp://user:pass@host"] {
            assert_eq!(shown(broken), None, "{broken}");
        }
    }

    #[test]
    fn secret_values_are_not_shown_but_the_names_of_their_files_are() {
        for key in
            ["basic_auth.password", "authorization.credentials", "bearer_token", "oauth2.client_secret", "a.headers.X"]
        {
            assert_eq!(shown(&format!("remote_write[0].{key}"), "hunter2").as_deref(), Some("<secret>"), "{key}");
        }
        assert_eq!(shown("remote_write[0].basic_auth.password_file", "/run/p").as_deref(), Some("\"/run/p\""));
    }

    #[test]
    fn what_came_out_of_a_variable_is_not_shown() {
        let mut places = Places::default();
        places.note("buffer.path", &Place::Nowhere);
        places.note_expanded("buffer.path");
        assert_eq!(places.problem("buffer.path", Some("hunter2"), "no").value.as_deref(), Some("<expanded>"));
    }

    #[test]
    fn a_missing_key_stands_where_its_nearest_ancestor_does() {
        let mut places = Places::default();
        places.note("remote_write[0]", &Place::Variable("A".into()));
        assert_eq!(places.of("remote_write[0].basic_auth.username"), Place::Variable("A".into()));
        assert_eq!(places.of("remote_write"), Place::Nowhere);
    }

    #[test]
    fn a_key_is_shown_only_as_far_as_it_looks_like_one() {
        let table = [
            ("com.docker/x-y_1", "a.com.docker/x-y_1"),
            ("password hunter2", "a.password…"),
            ("password:hunter2", "a.password…"),
            ("", "a."),
            ("é", "a.…"),
        ];
        for (key, expected) in table {
            assert_eq!(join("a", key), expected);
        }
        assert_eq!(join("", &"x".repeat(100)).chars().count(), MAX_SHOWN_CHARS + 1);
    }

    #[test]
    fn a_problem_is_one_short_line_whatever_the_user_wrote() {
        let text = "x\n".repeat(1000);
        let line = Places::default().problem(&join("a", &text), Some(&text), "no").to_string();
        assert!(!line.contains('\n') && line.len() < 600, "{line}");
    }

    #[test]
    fn the_list_of_problems_is_bounded() {
        let many = (0..60).map(|n| Places::default().problem(&format!("k{n}"), None, "no")).collect();
        let text = ConfigError::new(many).to_string();
        assert_eq!(text.lines().count(), MAX_LISTED + 1);
        assert!(text.ends_with("and 10 more problems"), "{text}");
    }
}
