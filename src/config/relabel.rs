//! Lists of relabelling rules: Prometheus' `<relabel_config>`, wherever one stands.
//!
//! A rule that Prometheus takes is taken and means the same; `relabel` itself holds the rules about rules. Written but empty
//! (`replacement:`) is an empty text and not the default, as Prometheus reads it. No variable is expanded in `regex`,
//! `replacement` and `target_label`, whose `${1}` belongs to the expression.

use super::raw::Block;
use crate::relabel::{Action, RelabelConfig, Rule, RuleError, Rules};

/// The rules of the list at `key`; none where it is missing.
pub(super) fn rules(block: &mut Block<'_>, key: &'static str) -> Rules {
    Rules::new(block.blocks(key, rule).unwrap_or_default())
}

fn rule(block: &mut Block<'_>) -> Option<Rule> {
    let default = RelabelConfig::default();
    let action = action(block);
    let source_labels = block.has("source_labels");
    let names = block.list("source_labels", |name| match name {
        "" => Err("the name of a label may not be empty".to_owned()),
        name => Ok(name.to_owned()),
    });
    let modulus = block.parsed("modulus", |text| text.parse::<u64>().map_err(|_| "must be a whole number".to_owned()));
    let config = RelabelConfig {
        source_labels: source_labels.then_some(names),
        separator: text(block, "separator", default.separator),
        regex: text(block, "regex", default.regex),
        modulus: modulus.unwrap_or(default.modulus),
        target_label: text(block, "target_label", default.target_label),
        replacement: text(block, "replacement", default.replacement),
        action: action?,
    };
    // What could not be read was said already, and its default would only lead to a second problem.
    if block.has_problems() {
        return None;
    }
    Rule::new(config.clone()).map_err(|error| report(block, &config, error)).ok()
}

fn action(block: &mut Block<'_>) -> Option<Action> {
    if block.is_null("action") {
        block.text("action");
        block.wrong("action", None, "may not be empty; leave it out for replace");
        return None;
    }
    if !block.has("action") {
        block.text("action");
        return Some(Action::Replace);
    }
    block.parsed("action", |text| {
        // Prometheus takes any case (`model/relabel/relabel.go`, `Action.UnmarshalYAML`).
        let found = Action::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let names: Vec<&str> = Action::ALL.iter().map(|(name, _)| *name).collect();
        found.map(|(_, action)| *action).ok_or_else(|| format!("must be one of {}", names.join(", ")))
    })
}

fn text(block: &mut Block<'_>, key: &'static str, default: String) -> String {
    let is_null = block.is_null(key);
    block.text(key).unwrap_or_else(|| if is_null { String::new() } else { default })
}

fn report(block: &Block<'_>, config: &RelabelConfig, error: RuleError) {
    let value = match error.key {
        "regex" => Some(config.regex.as_str()),
        "replacement" => Some(config.replacement.as_str()),
        "separator" => Some(config.separator.as_str()),
        "target_label" => Some(config.target_label.as_str()),
        _ => None,
    };
    block.wrong(error.key, value.filter(|value| !value.is_empty()), error.rule);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{endpoint, from_text, wrong};
    use crate::model::Labels;
    use crate::relabel::{Outcome, Rules};

    fn rules(text: &str) -> Rules {
        let list = format!("write_relabel_configs:\n{}", text.trim_matches('\n'));
        from_text(&endpoint(&list)).remote_write[0].write_relabel_configs.clone()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().fold(Labels::builder(), |all, (name, value)| all.with(*name, *value)).build().unwrap()
    }

    #[test]
    fn a_pasted_list_is_taken_with_prometheus_defaults() {
        let rules = rules(
            "
- source_labels: [__name__]
  regex: go_.*|process_.*
  action: Drop
- source_labels: [job, instance]
  target_label: both
- regex: tmp_(.*)
  action: labelmap
- action: labeldrop
  regex: tmp_.*
- source_labels:
  - instance
  modulus: 8
  target_label: shard
  action: hashmod",
        );
        let series = labels(&[("__name__", "up"), ("instance", "h:1"), ("job", "j"), ("tmp_x", "1")]);
        let expected = [("__name__", "up"), ("both", "j;h:1"), ("instance", "h:1"), ("job", "j"), ("x", "1")];
        let Outcome::Changed(after) = rules.apply(&series) else { panic!("it changes") };
        let shard: u64 = after.get("shard").unwrap().parse().unwrap();
        assert!(shard < 8);
        let all = expected.iter().fold(Labels::builder(), |all, (name, value)| all.with(*name, *value));
        assert_eq!(after, all.with("shard", shard.to_string()).build().unwrap());
        assert_eq!(rules.apply(&labels(&[("__name__", "go_threads")])), Outcome::Dropped);
    }

    #[test]
    fn numbers_without_quotes_are_texts_and_variables_are_not_expanded() {
        let rules = rules("- {source_labels: [a], regex: 0123, target_label: '${0}_x', replacement: 1.10$$}");
        let expected = labels(&[("0123_x", "1.10$"), ("a", "0123")]);
        assert_eq!(rules.apply(&labels(&[("a", "0123")])), Outcome::Changed(expected));
    }

    #[test]
    fn written_but_empty_is_an_empty_text_and_not_the_default() {
        let deletes = rules("- {source_labels: [a], target_label: b, replacement: }");
        let before = labels(&[("a", "x"), ("b", "y")]);
        assert_eq!(deletes.apply(&before), Outcome::Changed(labels(&[("a", "x")])));
        let matches_nothing = rules("- {source_labels: [a], target_label: b, regex: ~}");
        assert_eq!(matches_nothing.apply(&before), Outcome::Unchanged);
        let joins = rules("- {source_labels: [a, b], target_label: b, separator: }");
        assert_eq!(joins.apply(&before), Outcome::Changed(labels(&[("a", "x"), ("b", "xy")])));
    }

    #[test]
    fn an_empty_list_and_none_are_no_rules() {
        assert!(from_text(&endpoint("write_relabel_configs: []")).remote_write[0].write_relabel_configs.is_empty());
        assert!(from_text(&endpoint("write_relabel_configs:")).remote_write[0].write_relabel_configs.is_empty());
        assert!(from_text(&endpoint("name: a")).remote_write[0].write_relabel_configs.is_empty());
    }

    #[test]
    fn every_problem_names_line_key_value_and_rule_once() {
        let table = [
            (
                "- {source_labels: [a], regex: '(', target_label: b}",
                "[0].regex: \"(\": not a regular expression: a ( without its )",
            ),
            ("- {source_labels: [a], regex: x}", "[0].target_label: is missing; replace needs it"),
            (
                "- {source_labels: a, target_label: b}",
                "[0].source_labels: expected a list, found a plain value; each item begins with `- `",
            ),
            (
                "- {source_labels: [a, ''], target_label: b}",
                "[0].source_labels[1]: \"\": the name of a label may not be empty",
            ),
            (
                "- {action: kep}",
                "[0].action: \"kep\": must be one of replace, keep, drop, keepequal, dropequal, hashmod, labelmap, labeldrop, labelkeep, lowercase, uppercase",
            ),
            ("- {action: , target_label: b}", "[0].action: may not be empty; leave it out for replace"),
            ("- {action: hashmod, modulus: eight, target_label: b}", "[0].modulus: \"eight\": must be a whole number"),
            ("- {action: hashmod, modulus: 0, target_label: b}", "[0].modulus: must be at least 1 for hashmod"),
            (
                "- {action: labeldrop, source_labels: []}",
                "[0].source_labels: has no meaning for labeldrop, which takes only regex",
            ),
            (
                "- {action: lowercase, target_label: b, replacement: x}",
                "[0].replacement: \"x\": has no meaning for lowercase; remove it",
            ),
            ("- {sourcelabels: [a], target_label: b}", "[0].sourcelabels: unknown key; did you mean source_labels?"),
            ("- {target_label: b}\n- ~", "[1]: expected a block of keys, found nothing"),
        ];
        for (text, expected) in table {
            let lines = wrong(&endpoint(&format!("write_relabel_configs:\n{text}")));
            let line = if text.contains('\n') { 5 } else { 4 };
            assert_eq!(lines, [format!("{line}: remote_write[0].write_relabel_configs{expected}")], "{text}");
        }
    }
}
