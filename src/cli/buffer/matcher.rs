//! Which series: `container_*`, `up{job="outhaul"}`, `{name="web-*",image!="*:latest"}`; `*` is any text, `?` any character.
//!
//! A label that a series lacks is the empty text, as in Prometheus. Pure.

use std::str::FromStr;

use crate::model::{Labels, METRIC_NAME};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matcher(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    label: String,
    is_equal: bool,
    glob: String,
}

impl Matcher {
    pub(super) fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|condition| {
            let value = labels.get(&condition.label).unwrap_or("");
            fits(&condition.glob, value) == condition.is_equal
        })
    }
}

impl FromStr for Matcher {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = || "not a series; write container_* or {name=\"web-*\",image!=\"*:latest\"}".to_owned();
        let (name, rest) = text.split_at(text.find('{').unwrap_or(text.len()));
        let mut conditions = Vec::new();
        if !name.is_empty() {
            conditions.push(Condition { label: METRIC_NAME.to_owned(), is_equal: true, glob: name.trim().to_owned() });
        }
        if !rest.is_empty() {
            let mut rest =
                rest.strip_prefix('{').and_then(|rest| rest.trim_end().strip_suffix('}')).ok_or_else(rule)?.trim();
            while !rest.is_empty() {
                let (condition, after) = condition(rest).ok_or_else(rule)?;
                conditions.push(condition);
                rest = after.trim_start();
                if !rest.is_empty() {
                    rest = rest.strip_prefix(',').ok_or_else(rule)?.trim_start();
                }
            }
        }
        if conditions.is_empty() { Err(rule()) } else { Ok(Self(conditions)) }
    }
}

/// The first `label="glob"` and what follows it.
fn condition(text: &str) -> Option<(Condition, &str)> {
    let at = text.find('=')?;
    let (label, is_equal) = match text[..at].strip_suffix('!') {
        Some(label) => (label, false),
        None => (&text[..at], true),
    };
    let quoted = text[at + 1..].trim_start().strip_prefix('"')?;
    let mut glob = String::new();
    let mut characters = quoted.char_indices();
    while let Some((index, c)) = characters.next() {
        match c {
            '"' => {
                let label = label.trim().to_owned();
                return (!label.is_empty()).then_some((Condition { label, is_equal, glob }, &quoted[index + 1..]));
            }
            '\\' => glob.push(characters.next()?.1),
            c => glob.push(c),
        }
    }
    None
}

/// Whether `text` is what `glob` says; linear but for going back to the last `*`.
fn fits(glob: &str, text: &str) -> bool {
    let (glob, text): (Vec<char>, Vec<char>) = (glob.chars().collect(), text.chars().collect());
    let (mut g, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, t));
                g += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                g += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                (g, t) = (at + 1, from + 1);
            }
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(matcher: &str) -> bool {
        let labels = Labels::builder()
            .with("__name__", "container_state")
            .with("name", "web-\"1\"")
            .with("image", "nginx:1")
            .build();
        matcher.parse::<Matcher>().unwrap().matches(&labels.unwrap())
    }

    #[test]
    fn names_labels_and_globs_choose() {
        for yes in [
            "container_state",
            "container_*",
            "*",
            "container_stat?",
            "{image=\"nginx:*\"}",
            "container_*{ image = \"nginx:1\" , name != \"db\" }",
            "{name=\"web-\\\"?\\\"\"}",
            "{absent=\"\"}",
            "{absent!=\"x*\"}",
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in ["container", "*_stat", "{image=\"nginx\"}", "{image!=\"nginx:*\"}", "container_*{absent=\"?*\"}"] {
            assert!(!matches(no), "{no}");
        }
    }

    #[test]
    fn what_is_no_matcher_is_told_how_to_write_one() {
        for text in ["", "{", "{}", "a{b}", "{=\"x\"}", "{a=\"x}", "{a=\"x\" b=\"y\"}", "a{b=c}"] {
            assert!(text.parse::<Matcher>().is_err(), "{text}");
        }
    }

    #[test]
    fn many_stars_are_no_trap() {
        assert!(!fits(&"*a".repeat(50), &"b".repeat(10_000)));
    }
}
