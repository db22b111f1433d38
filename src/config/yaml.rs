//! A YAML file as a configuration layer: every scalar as the text that was written, and the line of every key.
//!
//! The `config` crate's own YAML turns `0123`, `1.10` and the password `1e5` into other strings, and knows no lines. Here
//! a scalar has no type until the key that is asked for gives it one. Anchors and aliases, duplicate keys, tags outside
//! YAML's core schema, a second document, and what passes the bounds on size and depth are errors.

use std::path::Path;
use std::sync::Arc;

use config::{Map, Value, ValueKind};
use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::{Marker, ScanError, TScalarStyle};

use super::problem::{Place, Places, Problem, item, join};

/// The largest file that is read, in bytes.
pub(super) const MAX_FILE_BYTES: usize = 1 << 20;

/// How deep blocks may be nested; no known key is deeper than seven.
const MAX_DEPTH: usize = 32;

/// Parses `text`, the contents of `file`, and notes the place of every key.
///
/// # Errors
/// The first thing that is not as it must be.
pub(super) fn parse(text: &str, file: &Arc<Path>, places: &mut Places) -> Result<Map<String, Value>, Problem> {
    let mut reader = Reader { parser: Parser::new_from_str(text.trim_start_matches('\u{feff}')), file, places };
    reader.document()
}

struct Reader<'a> {
    parser: Parser<std::str::Chars<'a>>,
    file: &'a Arc<Path>,
    places: &'a mut Places,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Map<String, Value>, Problem> {
        let mut root = Map::new();
        let mut documents = 0;
        loop {
            let (event, mark) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart if documents > 0 => {
                    return Err(self.problem(mark, "", "a second document; a configuration is one document"));
                }
                Event::DocumentStart => documents += 1,
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                first => match self.value(first, mark, "", 0)?.kind {
                    ValueKind::Table(values) => root = values,
                    ValueKind::Nil => {}
                    _ => {
                        return Err(self.problem(
                            mark,
                            "",
                            "a configuration is a map of keys, such as `remote_write:`",
                        ));
                    }
                },
            }
        }
    }

    fn value(&mut self, first: Event, mark: Marker, path: &str, depth: usize) -> Result<Value, Problem> {
        if depth > MAX_DEPTH {
            return Err(self.problem(mark, path, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let (kind, anchor, tag) = match first {
            Event::Scalar(text, style, anchor, tag) => (scalar(text, style), anchor, tag),
            Event::SequenceStart(anchor, tag) => (ValueKind::Array(self.list(path, depth)?), anchor, tag),
            Event::MappingStart(anchor, tag) => (ValueKind::Table(self.map(path, depth)?), anchor, tag),
            Event::Alias(_) => return Err(self.problem(mark, path, NO_ALIASES)),
            _ => return Err(self.problem(mark, path, "not YAML: a value is missing")),
        };
        if anchor != 0 {
            return Err(self.problem(mark, path, NO_ALIASES));
        }
        match tag {
            // The tag itself is not told: it may be a password that begins with `!`.
            Some(tag) if tag.handle != "tag:yaml.org,2002:" => Err(self.problem(mark, path, NO_TAGS)),
            _ => Ok(Value::new(None, kind)),
        }
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Vec<Value>, Problem> {
        let mut values = Vec::new();
        loop {
            let (event, mark) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(values);
            }
            let path = item(path, values.len());
            self.places.note(&path, &self.place(mark));
            values.push(self.value(event, mark, &path, depth + 1)?);
        }
    }

    fn map(&mut self, path: &str, depth: usize) -> Result<Map<String, Value>, Problem> {
        let mut values = Map::new();
        loop {
            let (event, mark) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(values),
                Event::Scalar(key, _, 0, None) => key,
                Event::Alias(_) | Event::Scalar(_, _, 1.., _) => return Err(self.problem(mark, path, NO_ALIASES)),
                _ => return Err(self.problem(mark, path, "a key must be plain text")),
            };
            let path = join(path, &key);
            if values.contains_key(&key) {
                let first = self.places.of(&path);
                return Err(self.problem(mark, &path, format!("this key is given twice, first at {first}")));
            }
            self.places.note(&path, &self.place(mark));
            let (event, mark) = self.next()?;
            let value = self.value(event, mark, &path, depth + 1)?;
            values.insert(key, value);
        }
    }

    fn next(&mut self) -> Result<(Event, Marker), Problem> {
        self.parser.next_token().map_err(|error| self.scan_problem(&error))
    }

    fn place(&self, mark: Marker) -> Place {
        Place::File(Arc::clone(self.file), mark.line())
    }

    fn problem(&self, mark: Marker, path: &str, rule: impl Into<String>) -> Problem {
        Problem { place: self.place(mark), key: path.to_owned(), value: None, rule: rule.into() }
    }

    fn scan_problem(&self, error: &ScanError) -> Problem {
        let mark = *error.marker();
        self.problem(mark, "", format!("not YAML: {} (column {})", error.info(), mark.col() + 1))
    }
}

const NO_ALIASES: &str =
    "anchors and aliases are not supported; write the value out, in quotes if it begins with & or *";
const NO_TAGS: &str = "tags are not supported; a value that begins with ! needs quotes";

/// Null as in YAML's core schema (YAML 1.2.2, 10.3.2); all else is text.
fn scalar(text: String, style: TScalarStyle) -> ValueKind {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" if style == TScalarStyle::Plain => ValueKind::Nil,
        _ => ValueKind::String(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<(Map<String, Value>, Places), String> {
        let mut places = Places::default();
        let file: Arc<Path> = Arc::from(Path::new("a.yml"));
        parse(text, &file, &mut places).map(|values| (values, places)).map_err(|problem| problem.to_string())
    }

    #[test]
    fn scalars_stay_the_text_that_was_written() {
        for written in
            ["0123", "1.10", "1e5", "0x1F", "12345678901234567890", "1_000", "true", "off", "2026-01-01", ".inf", "+1"]
        {
            let (values, _) = read(&format!("a: {written}\n")).unwrap();
            assert_eq!(values["a"].kind, ValueKind::String(written.to_owned()));
        }
    }

    #[test]
    fn only_plain_words_for_null_are_null() {
        for written in ["", "~", "null", "Null", "NULL"] {
            assert_eq!(read(&format!("a: {written}\n")).unwrap().0["a"].kind, ValueKind::Nil, "{written}");
        }
        for written in ["''", "\"null\"", "'~'"] {
            assert!(matches!(read(&format!("a: {written}\n")).unwrap().0["a"].kind, ValueKind::String(_)), "{written}");
        }
    }

    #[test]
    fn every_key_and_item_has_its_line() {
        let (_, places) = read("# comment\na:\n  b: [1,\n    2]\nc.d: |\n  x\n  y\ne: {f: 1}\r\ng: 2\n").unwrap();
        for (path, line) in [("a", 2), ("a.b", 3), ("a.b[0]", 3), ("a.b[1]", 4), ("c.d", 5), ("e.f", 8), ("g", 9)] {
            assert_eq!(places.of(path), Place::File(Arc::from(Path::new("a.yml")), line), "{path}");
        }
    }

    #[test]
    fn an_empty_file_is_an_empty_configuration() {
        for text in ["", "\n", "# nothing\n", "---\n", "---\n...\n", "\u{feff}", "null"] {
            assert!(read(text).unwrap().0.is_empty(), "{text:?}");
        }
        assert_eq!(read("\u{feff}a: 1").unwrap().0.len(), 1);
    }

    #[test]
    fn what_is_refused_says_why_and_where() {
        let table = [
            ("a: 1\nb: 2\na: 3\n", "a.yml:3: a: this key is given twice, first at a.yml:1"),
            (
                "a: &x 1\n",
                "a.yml:1: a: anchors and aliases are not supported; write the value out, in quotes if it begins with & or *",
            ),
            (
                "a: &x [1]\n",
                "a.yml:1: a: anchors and aliases are not supported; write the value out, in quotes if it begins with & or *",
            ),
            ("a: 1\n---\nb: 2\n", "a.yml:2: a second document; a configuration is one document"),
            ("- a\n", "a.yml:1: a configuration is a map of keys, such as `remote_write:`"),
            ("just text\n", "a.yml:1: a configuration is a map of keys, such as `remote_write:`"),
            ("a: !secret b\n", "a.yml:1: a: tags are not supported; a value that begins with ! needs quotes"),
            ("? [a]\n: b\n", "a.yml:1: a key must be plain text"),
        ];
        for (text, expected) in table {
            assert_eq!(read(text).unwrap_err(), expected, "{text:?}");
        }
        for text in ["a: *x\n", "a: [1\n", "a:\n\t- b\n", "a: b: c\n", "a: \"x\n", "%YAML 9.9\n", "}"] {
            assert!(read(text).unwrap_err().starts_with("a.yml:"), "{text:?}");
        }
    }

    #[test]
    fn a_tag_of_yaml_itself_is_harmless() {
        assert_eq!(read("a: !!str 1\n").unwrap().0["a"].kind, ValueKind::String("1".to_owned()));
    }

    #[test]
    fn depth_is_bounded_in_flow_and_block_style() {
        // Far deeper, the library's scanner finds its own limit first, as it reads ahead.
        assert!(read(&format!("a: {}", "[".repeat(100_000))).is_err());
        assert!(read(&format!("a: {}", "[".repeat(100))).unwrap_err().contains("nested deeper than 32 levels"));
        let block: Vec<String> = (0..200).map(|depth| " ".repeat(depth) + "a:\n").collect();
        assert!(read(&block.concat()).unwrap_err().contains("nested deeper than 32 levels"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn no_text_panics(any in "\\PC{0,60}", special in "[-?:,\\[\\]{}#&*!|>'\"%@` \n\ta0~.\r\\\\\u{85}]{0,60}") {
            let _ignored = (read(&any), read(&special));
        }
    }
}
