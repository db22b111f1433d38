//! Globs and regular expressions on container names, labels and images; both anchored at both ends.
//!
//! A pattern is compiled once, here; matching cannot fail and takes time linear in the text.

use regex::{Regex, RegexBuilder};

use super::{LabelPattern, Pattern};

/// The most memory one compiled pattern may take, in bytes.
const MAX_COMPILED_BYTES: usize = 1 << 20;

impl Pattern {
    /// `/…/` is a regular expression; anything else is a glob, in which `*` is any text and `?` any one character.
    ///
    /// # Errors
    /// The rule that was broken.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix('/').and_then(|text| text.strip_suffix('/')) {
            _ if text.is_empty() || text == "//" => Err("a pattern may not be empty".to_owned()),
            Some(expression) => {
                // By itself first: otherwise `a)|(b` would escape from the anchors.
                compile(expression)?;
                compile(&format!("^(?s:{expression})$")).map(Self)
            }
            None => compile(&format!("^(?s:{})$", glob(text))).map(Self),
        }
    }
}

impl LabelPattern {
    /// `key`, or `key=pattern`.
    ///
    /// # Errors
    /// The rule that was broken.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        if name.is_empty() {
            return Err("a label pattern is key or key=pattern, and the key may not be empty".to_owned());
        }
        let value =
            value.map(|value| if value.is_empty() { compile("^$").map(Pattern) } else { Pattern::parse(value) });
        Ok(Self { name: name.to_owned(), value: value.transpose()? })
    }
}

fn glob(text: &str) -> String {
    let mut expression = String::new();
    let mut literal = [0_u8; 4];
    for character in text.chars() {
        match character {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            other => expression.push_str(&regex::escape(other.encode_utf8(&mut literal))),
        }
    }
    expression
}

fn compile(expression: &str) -> Result<Regex, String> {
    RegexBuilder::new(expression).size_limit(MAX_COMPILED_BYTES).build().map_err(|error| {
        // The library draws a picture of several lines; its last line says what is wrong.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        format!("not a regular expression: {}", last.trim_start_matches("error: "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn a_glob_matches_the_whole_name() {
        assert!(matches("web-*", "web-1") && matches("web-*", "web-"));
        assert!(!matches("web-*", "my-web-1") && !matches("web", "web-1"));
        assert!(matches("a?c", "abc") && !matches("a?c", "ac"));
        assert!(matches("a.c", "a.c") && !matches("a.c", "abc"));
    }

    #[test]
    fn a_regular_expression_stands_between_slashes_and_is_anchored() {
        assert!(matches("/web-\\d+/", "web-12"));
        assert!(!matches("/web/", "web-12") && !matches("/web|db/", "db-1"));
        assert!(matches("/(?i)WEB/", "web"));
    }

    #[test]
    fn a_label_pattern_is_a_name_or_a_name_and_a_pattern() {
        let presence = LabelPattern::parse("monitor").unwrap();
        assert!(presence.name == "monitor" && presence.value.is_none());
        let value = LabelPattern::parse("a.b=x=*").unwrap();
        assert!(value.name == "a.b" && value.value.unwrap().matches("x=1"));
        let empty = LabelPattern::parse("a=").unwrap();
        assert!(empty.value.unwrap().matches(""));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let table = [
            ("", "a pattern may not be empty"),
            ("//", "a pattern may not be empty"),
            ("/a)|(b/", "not a regular expression: unopened group"),
            ("/(/", "not a regular expression: unclosed group"),
            ("/(a{1000}){1000}/", "not a regular expression: Compiled regex exceeds size limit of 1048576 bytes."),
        ];
        for (text, rule) in table {
            assert_eq!(Pattern::parse(text).unwrap_err(), rule, "{text}");
        }
        assert!(LabelPattern::parse("=x").is_err());
    }

    proptest! {
        #[test]
        fn a_glob_without_wildcards_matches_itself_only(text in "[^*?/]{1,20}", other in "[^*?/]{1,20}") {
            prop_assert!(matches(&text, &text));
            prop_assert_eq!(matches(&text, &other), text == other);
        }
    }
}
