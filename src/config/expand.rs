//! `${VAR}`, `${VAR:-default}`, `${VAR:?message}` and `$$` in the values of a file.
//!
//! Expansion happens after parsing and only in values, so a variable can never add a key, a line or a list item. Braces
//! are required: `$1` and a lone `$` stay as they are. What was expanded is not expanded again.

use config::{Map, Value, ValueKind};

use super::environment::{Environment, Variable};
use super::problem::{Places, Problem, item, join};

/// Expands every value below `path`.
pub(super) fn expand_all(
    values: &mut Map<String, Value>,
    path: &str,
    environment: &Environment,
    places: &mut Places,
    problems: &mut Vec<Problem>,
) {
    for (key, value) in values {
        // Relabelling has its own `${1}`: Prometheus' `<relabel_config>`, fields `regex`, `replacement` and `target_label`.
        if !(path.contains("relabel_configs[") && matches!(key.as_str(), "regex" | "replacement" | "target_label")) {
            expand_value(value, &join(path, key), environment, places, problems);
        }
    }
}

fn expand_value(
    value: &mut Value,
    path: &str,
    environment: &Environment,
    places: &mut Places,
    problems: &mut Vec<Problem>,
) {
    match &mut value.kind {
        ValueKind::Table(values) => expand_all(values, path, environment, places, problems),
        ValueKind::Array(items) => {
            for (index, value) in items.iter_mut().enumerate() {
                expand_value(value, &item(path, index), environment, places, problems);
            }
        }
        ValueKind::String(text) => match expand(text, environment) {
            Ok(Expanded::Unchanged) => {}
            Ok(Expanded::Unescaped(new)) => *text = new,
            Ok(Expanded::Replaced(new)) => {
                *text = new;
                places.note_expanded(path);
            }
            Err(rule) => problems.push(places.problem(path, None, rule)),
        },
        _ => {}
    }
}

/// What became of a text.
#[derive(Debug, PartialEq, Eq)]
enum Expanded {
    /// It holds nothing to expand.
    Unchanged,
    /// Only `$$`s became `$`s.
    Unescaped(String),
    /// It holds the value of a variable, which may be a secret.
    Replaced(String),
}

fn expand(text: &str, environment: &Environment) -> Result<Expanded, String> {
    let (mut out, mut rest, mut replaced) = (String::new(), text, false);
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('{') {
            let (reference, tail) = tail.split_once('}').ok_or("${ without }; write $${ for the text itself")?;
            out.push_str(&resolve(reference, environment)?);
            replaced = true;
            rest = tail;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(match replaced {
        true => Expanded::Replaced(out),
        false if out == text => Expanded::Unchanged,
        false => Expanded::Unescaped(out),
    })
}

/// The value of what stands between the braces.
fn resolve(reference: &str, environment: &Environment) -> Result<String, String> {
    let end = reference.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
    let (name, modifier) = reference.split_at(end);
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() {
        return Err(
            "not a variable; write ${NAME}, ${NAME:-default}, ${NAME:?message}, or $${ for the text itself".to_owned()
        );
    }
    let value = match environment.get(name) {
        Variable::Text(text) => Some(text),
        Variable::NotUnicode => return Err(format!("environment variable {name} is not valid UTF-8")),
        Variable::Unset => None,
    };
    if modifier.is_empty() {
        let hint = "set it, or write ${NAME:-default}";
        return value.map(str::to_owned).ok_or_else(|| format!("environment variable {name} is not set; {hint}"));
    }
    let value = value.filter(|text| !text.is_empty());
    if let Some(default) = modifier.strip_prefix(":-") {
        if default.contains("${") {
            return Err(format!("the default of ${{{name}:-…}} may not hold another ${{…}}"));
        }
        Ok(value.unwrap_or(default).to_owned())
    } else if let Some(message) = modifier.strip_prefix(":?") {
        value.map(str::to_owned).ok_or_else(|| {
            let message = if message.is_empty() { "it is required" } else { message };
            format!("environment variable {name} is not set or empty: {}", super::problem::shortened(message))
        })
    } else {
        Err(format!("after the name {name} only }}, :-default}} or :?message}} may follow"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn environment() -> Environment {
        [("A", "x"), ("EMPTY", ""), ("NESTED", "${A}$$")].into_iter().collect()
    }

    fn text(text: &str) -> Result<String, String> {
        expand(text, &environment()).map(|expanded| match expanded {
            Expanded::Unchanged => text.to_owned(),
            Expanded::Unescaped(text) | Expanded::Replaced(text) => text,
        })
    }

    #[test]
    fn variables_are_replaced_and_everything_else_stays() {
        let table = [
            ("${A}", "x"),
            ("a${A}b${A}", "axbx"),
            ("$A $1 $", "$A $1 $"),
            ("$$ $${A}", "$ ${A}"),
            ("${EMPTY}", ""),
            ("${EMPTY:-d}", "d"),
            ("${NONE:-}", ""),
            ("${NONE:-a b:c}", "a b:c"),
            ("${A:-d}", "x"),
            ("${A:?m}", "x"),
            ("${NESTED}", "${A}$$"),
        ];
        for (from, to) in table {
            assert_eq!(text(from).as_deref(), Ok(to), "{from}");
        }
    }

    #[test]
    fn what_cannot_be_expanded_says_why() {
        let table = [
            ("${NONE}", "environment variable NONE is not set; set it, or write ${NAME:-default}"),
            ("${NONE:?say who}", "environment variable NONE is not set or empty: say who"),
            ("${EMPTY:?}", "environment variable EMPTY is not set or empty: it is required"),
            ("${A", "${ without }; write $${ for the text itself"),
            ("${A-b}", "after the name A only }, :-default} or :?message} may follow"),
            ("${A:-${B}}", "the default of ${A:-…} may not hold another ${…}"),
        ];
        for (from, rule) in table {
            assert_eq!(text(from).as_ref().map_err(String::as_str), Err(rule), "{from}");
        }
        for from in ["${}", "${1}", "${ A}", "${-}"] {
            assert!(text(from).unwrap_err().starts_with("not a variable"), "{from}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_text_without_a_dollar_stays(any in ".{0,40}", special in "[$A{}:?-]{0,20}") {
            let _ignored = text(&special);
            if !any.contains('$') {
                prop_assert_eq!(expand(&any, &environment()), Ok(Expanded::Unchanged));
            }
        }
    }
}
