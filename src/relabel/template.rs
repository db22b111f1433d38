//! `$1`, `${1}`, `${name}` and `$$` in `replacement` and `target_label`, by the rules of Go's `Regexp.Expand`.
//!
//! A template is read once; expanding it cannot fail. What is no reference is text, and a reference to nothing is empty.

use std::sync::Arc;

use super::pattern::{Groups, Pattern};

/// Prometheus' default (`model/relabel/relabel.go`, `DefaultRelabelConfig`).
pub(super) const DEFAULT_REPLACEMENT: &str = "$1";

/// A text with references to groups.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Arc<str>),
    Number(usize),
    Name(String),
}

impl Template {
    /// Reads `text`.
    pub(super) fn new(text: &str) -> Self {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some((before, after)) = rest.split_once('$') {
            plain.push_str(before);
            rest = after;
            if let Some(after) = rest.strip_prefix('$') {
                plain.push('$');
                rest = after;
            } else if let Some((name, after)) = reference(rest) {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain).into()));
                }
                parts.push(part(name));
                rest = after;
            } else {
                plain.push('$');
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Self(parts)
    }

    /// The text, where it holds no reference.
    pub(super) fn constant(&self) -> Option<Arc<str>> {
        match &self.0[..] {
            [] => Some(Arc::from("")),
            [Part::Text(text)] => Some(Arc::clone(text)),
            _ => None,
        }
    }

    /// Appends what it is for one match; `None` once `out` would be longer than `most` bytes.
    pub(super) fn expand(&self, groups: &Groups<'_, '_>, out: &mut String, most: usize) -> Option<()> {
        for part in &self.0 {
            let text = match part {
                Part::Text(text) => text,
                Part::Number(number) => groups.numbered(*number).unwrap_or_default(),
                Part::Name(name) => groups.named(name).unwrap_or_default(),
            };
            if out.len() + text.len() > most {
                return None;
            }
            out.push_str(text);
        }
        Some(())
    }
}

/// The name at the start of what follows a `$`, and the rest (Go, `regexp`, `extract`).
fn reference(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let text = braced.unwrap_or(text);
    let end = text.char_indices().find(|(_, c)| !is_of_a_name(*c)).map_or(text.len(), |(at, _)| at);
    let (name, rest) = text.split_at(end);
    let rest = if braced.is_some() { rest.strip_prefix('}')? } else { rest };
    (!name.is_empty()).then_some((name, rest))
}

/// A letter, a digit or `_`, as Go's `unicode` means them.
fn is_of_a_name(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || c == '_';
    }
    // Rust's own `is_alphanumeric` counts more. Compiled anew because it is hardly ever needed, and only at the start.
    c.is_alphanumeric()
        && Pattern::new(r"\p{L}|\p{Nd}").is_ok_and(|pattern| pattern.is_match(c.encode_utf8(&mut [0_u8; 4])))
}

/// A number without leading zeros and below 10^8 is a group's; all else is a name (Go, `regexp`, `extract`).
fn part(name: &str) -> Part {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit()) && (name.len() == 1 || !name.starts_with('0'));
    match name.parse() {
        Ok(number) if is_number && name.len() <= 9 => Part::Number(number),
        _ => Part::Name(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(regex: &str, text: &str, template: &str) -> String {
        let (pattern, mut out) = (Pattern::new(regex).unwrap(), String::new());
        Template::new(template).expand(&pattern.groups(text).unwrap(), &mut out, 100).unwrap();
        out
    }

    #[test]
    fn references_are_read_as_go_reads_them() {
        let table = [
            ("$1", "ab"),
            ("${1}", "ab"),
            ("$0", "abcd"),
            ("$2$1", "cdab"),
            ("$1x", ""),
            ("${1}x", "abx"),
            ("$name", "cd"),
            ("${name}_", "cd_"),
            ("$name_", ""),
            ("$9", ""),
            ("$01", ""),
            ("$$1", "$1"),
            ("$$$1", "$ab"),
            ("a$", "a$"),
            ("$", "$"),
            ("$-1", "$-1"),
            ("${1", "${1"),
            ("${}", "${}"),
            ("${ 1}", "${ 1}"),
            ("$1é", ""),
            ("$1\u{661}", ""),
            ("$1\u{300}", "ab\u{300}"),
            ("$1½", "ab½"),
            ("$999999999999", ""),
            ("", ""),
        ];
        for (template, expected) in table {
            assert_eq!(expanded("(ab)(?P<name>cd)", "abcd", template), expected, "{template}");
        }
    }

    #[test]
    fn the_default_expression_has_its_one_group() {
        assert_eq!(expanded("(.*)", "x\ny", "$0|$1|$2|$name"), "x\ny|x\ny||");
    }

    #[test]
    fn a_group_that_did_not_take_part_is_empty() {
        assert_eq!(expanded("(a)|(b)", "b", "<$1$2>"), "<b>");
    }

    #[test]
    fn a_template_without_references_is_a_constant() {
        assert_eq!(Template::new("a$$b").constant().as_deref(), Some("a$b"));
        assert_eq!(Template::new("").constant().as_deref(), Some(""));
        assert_eq!(Template::new("a$1").constant(), None);
    }
}
