//! Each action by Prometheus' documentation (`<relabel_config>`), each refusal, and what no rule may do.

use proptest::prelude::*;

use super::*;

fn set(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().fold(Labels::builder(), |all, (name, value)| all.with(*name, *value)).build().unwrap()
}

fn replace(source: &[&str], regex: &str, target: &str, replacement: &str) -> RelabelConfig {
    RelabelConfig { replacement: replacement.to_owned(), ..rule(Action::Replace, source, regex, target) }
}

fn rule(action: Action, source: &[&str], regex: &str, target: &str) -> RelabelConfig {
    RelabelConfig {
        source_labels: Some(source.iter().map(|&name| name.to_owned()).collect()),
        regex: regex.to_owned(),
        target_label: target.to_owned(),
        action,
        ..RelabelConfig::default()
    }
}

fn by_name(action: Action, regex: &str) -> RelabelConfig {
    RelabelConfig { regex: regex.to_owned(), action, ..RelabelConfig::default() }
}

fn map(regex: &str, replacement: &str) -> RelabelConfig {
    RelabelConfig { replacement: replacement.to_owned(), ..by_name(Action::LabelMap, regex) }
}

fn rules(configs: Vec<RelabelConfig>) -> Rules {
    Rules::new(configs.into_iter().map(|config| Rule::new(config).unwrap()).collect())
}

fn applied(configs: Vec<RelabelConfig>, labels: &[(&str, &str)]) -> Outcome {
    rules(configs).apply(&set(labels))
}

fn changed(labels: &[(&str, &str)]) -> Outcome {
    Outcome::Changed(set(labels))
}

#[test]
fn replace_writes_the_expanded_replacement_where_the_expression_matches() {
    let table = [
        (replace(&["a"], "(.*)", "b", "$1"), changed(&[("a", "foo"), ("b", "foo"), ("c", "x:1")])),
        (
            replace(&["c"], "(.*):(.*)", "d", "${2}-$1"),
            changed(&[("a", "foo"), ("b", "bar"), ("c", "x:1"), ("d", "1-x")]),
        ),
        (replace(&["a", "b"], "f.*;(.*)r", "a", "$1"), changed(&[("a", "ba"), ("b", "bar"), ("c", "x:1")])),
        (replace(&["a"], "fo", "b", "x"), Outcome::Unchanged),
        (replace(&["a"], "f|foo", "b", "x"), changed(&[("a", "foo"), ("b", "x"), ("c", "x:1")])),
        (replace(&["a"], "foo", "b", "$1"), changed(&[("a", "foo"), ("c", "x:1")])),
        (replace(&["a"], "(.*)", "b", ""), changed(&[("a", "foo"), ("c", "x:1")])),
        (replace(&[], "(.*)", "b", "set"), changed(&[("a", "foo"), ("b", "set"), ("c", "x:1")])),
        (replace(&["absent"], "(.*)", "b", "set"), changed(&[("a", "foo"), ("b", "set"), ("c", "x:1")])),
        (replace(&["absent"], "(.+)", "b", "set"), Outcome::Unchanged),
        (replace(&["a"], "(.*)", "a", "$1"), Outcome::Unchanged),
        (replace(&["a"], "(.*)", "l_$1", "y"), changed(&[("a", "foo"), ("b", "bar"), ("c", "x:1"), ("l_foo", "y")])),
        (replace(&["a"], "(.*)", "$2", "y"), Outcome::Unchanged),
        (
            replace(&["a"], "(?P<n>.)(.*)", "${n}", "$n"),
            changed(&[("a", "foo"), ("b", "bar"), ("c", "x:1"), ("f", "f")]),
        ),
    ];
    for (config, expected) in table {
        let text = format!("{config:?}");
        assert_eq!(applied(vec![config], &[("a", "foo"), ("b", "bar"), ("c", "x:1")]), expected, "{text}");
    }
}

#[test]
fn the_whole_source_must_match_and_a_dot_matches_a_new_line() {
    let matches = |regex: &str, value: &str| {
        applied(vec![rule(Action::Keep, &["a"], regex, "")], &[("a", value)]) == Outcome::Unchanged
    };
    assert!(matches("foo", "foo") && !matches("foo", "foobar") && !matches("foo", "afoo"));
    assert!(!matches("a|b", "ab") && matches(".*", "x\ny") && !matches("(?-s).*", "x\ny"));
    assert!(matches("\\w+\\d", "ab1") && !matches("\\w+", "é") && !matches("\\d", "٣"), "classes are ASCII");
    assert!(matches("a\\Bb", "ab") && matches("\\Bé", "é") && !matches("\\bé", "é"), "so are word boundaries");
    assert!(matches("\\Qa.b\\E+", "a.bb") && !matches("\\Qa.b\\E", "axb"));
}

#[test]
fn keep_and_drop_look_at_the_joined_source() {
    let labels = [("a", "x"), ("b", "y")];
    let verdict = |action, regex: &str| applied(vec![rule(action, &["a", "b", "c"], regex, "")], &labels);
    assert_eq!(verdict(Action::Keep, "x;y;"), Outcome::Unchanged);
    assert_eq!(verdict(Action::Keep, "x;y"), Outcome::Dropped);
    assert_eq!(verdict(Action::Drop, "x;y;"), Outcome::Dropped);
    assert_eq!(verdict(Action::Drop, "x;y"), Outcome::Unchanged);
    let joined = RelabelConfig { separator: "--".to_owned(), ..rule(Action::Keep, &["a", "b"], "x--y", "") };
    assert_eq!(applied(vec![joined], &labels), Outcome::Unchanged);
}

#[test]
fn keepequal_and_dropequal_compare_with_the_target() {
    let labels = [("a", "x"), ("b", "x"), ("c", "y")];
    let verdict = |action, target: &str| applied(vec![rule(action, &["a"], "(.*)", target)], &labels);
    assert_eq!(verdict(Action::KeepEqual, "b"), Outcome::Unchanged);
    assert_eq!(verdict(Action::KeepEqual, "c"), Outcome::Dropped);
    assert_eq!(verdict(Action::DropEqual, "b"), Outcome::Dropped);
    assert_eq!(verdict(Action::DropEqual, "c"), Outcome::Unchanged);
    assert_eq!(applied(vec![rule(Action::DropEqual, &["no"], "(.*)", "none")], &labels), Outcome::Dropped);
}

#[test]
fn hashmod_takes_the_last_eight_bytes_of_the_md5() {
    // md5("foo") is acbd18db4cc2f85cedef654fccc4a4d8, and 0xedef654fccc4a4d8 % 1000 is 696.
    let hash = |modulus| RelabelConfig { modulus, ..rule(Action::HashMod, &["a"], "(.*)", "h") };
    assert_eq!(applied(vec![hash(1000)], &[("a", "foo")]), changed(&[("a", "foo"), ("h", "696")]));
    assert_eq!(applied(vec![hash(1)], &[("a", "foo")]), changed(&[("a", "foo"), ("h", "0")]));
    let whole = 0xedef_654f_ccc4_a4d8_u64.to_string();
    assert_eq!(applied(vec![hash(u64::MAX)], &[("a", "foo")]), changed(&[("a", "foo"), ("h", &whole)]));
}

#[test]
fn labelmap_copies_and_the_last_of_two_copies_wins() {
    let labels = [("__meta_b", "3"), ("a_1", "1"), ("b_1", "2"), ("z", "9")];
    assert_eq!(
        applied(vec![map("__meta_(.+)", "$1")], &labels),
        changed(&[("__meta_b", "3"), ("a_1", "1"), ("b", "3"), ("b_1", "2"), ("z", "9")])
    );
    assert_eq!(
        applied(vec![map("(._1)", "same")], &labels),
        changed(&[("__meta_b", "3"), ("a_1", "1"), ("b_1", "2"), ("same", "2"), ("z", "9")])
    );
    // A label that a rule has set is visited last, also when it was set to what it was.
    assert_eq!(
        applied(vec![replace(&["a_1"], "(.*)", "a_1", "$1"), map("(._1)", "z")], &labels),
        changed(&[("__meta_b", "3"), ("a_1", "1"), ("b_1", "2"), ("z", "1")])
    );
    assert_eq!(applied(vec![map("a_1", "$1")], &labels), Outcome::Unchanged, "a label needs a name");
}

#[test]
fn labeldrop_and_labelkeep_look_at_names() {
    let labels = [("__name__", "up"), ("a", "1"), ("ab", "2")];
    assert_eq!(applied(vec![by_name(Action::LabelDrop, "a")], &labels), changed(&[("__name__", "up"), ("ab", "2")]));
    assert_eq!(applied(vec![by_name(Action::LabelKeep, "a.*")], &labels), changed(&[("a", "1"), ("ab", "2")]));
    assert_eq!(applied(vec![by_name(Action::LabelDrop, "x")], &labels), Outcome::Unchanged);
    assert_eq!(applied(vec![by_name(Action::LabelDrop, ".*")], &labels), Outcome::Dropped, "nothing is left");
}

#[test]
fn lowercase_and_uppercase_write_the_joined_source() {
    let labels = [("a", "FoO"), ("b", "Straße")];
    let write = |action| applied(vec![rule(action, &["a", "b"], "(.*)", "c")], &labels);
    assert_eq!(write(Action::Lowercase), changed(&[("a", "FoO"), ("b", "Straße"), ("c", "foo;straße")]));
    assert_eq!(write(Action::Uppercase), changed(&[("a", "FoO"), ("b", "Straße"), ("c", "FOO;STRAßE")]));
}

#[test]
fn rules_see_what_the_rules_before_them_made() {
    let chain = vec![
        replace(&["a"], "(.*)", "__tmp", "$1$1"),
        by_name(Action::LabelDrop, "a"),
        rule(Action::Keep, &["__tmp", "a"], "xx;", ""),
        replace(&["__tmp"], "(.*)", "a", "$1"),
        by_name(Action::LabelDrop, "__tmp"),
    ];
    assert_eq!(applied(chain, &[("a", "x")]), changed(&[("a", "xx")]));
    let undone = vec![by_name(Action::LabelDrop, "a"), replace(&[], "(.*)", "a", "x")];
    assert_eq!(applied(undone, &[("a", "x")]), Outcome::Unchanged);
}

#[test]
fn labels_with_two_underscores_are_labels_like_any_other() {
    let tmp = vec![replace(&["__name__"], "(.*)", "__tmp", "$1"), by_name(Action::LabelDrop, "__name__")];
    assert_eq!(applied(tmp, &[("__name__", "up")]), changed(&[("__tmp", "up")]));
}

#[test]
fn without_rules_nothing_changes() {
    assert!(Rules::default().is_empty());
    assert_eq!(applied(vec![], &[("a", "x")]), Outcome::Unchanged);
}

#[test]
fn a_long_joined_source_is_whole() {
    let (long, short) = ("é".repeat(JOINED_BYTES), "x");
    let copy = replace(&["a", "b", "a"], "(.*)", "c", "$1");
    let labels = [("a", short), ("b", long.as_str())];
    let Outcome::Changed(labels) = applied(vec![copy], &labels) else { panic!("it changes") };
    assert_eq!(labels.get("c"), Some(&*format!("x;{long};x")));
}

#[test]
fn what_rules_make_is_bounded() {
    let doubling = || replace(&["a"], "(.*)", "a", "$1$1");
    assert_eq!(applied((0..64).map(|_| doubling()).collect(), &[("a", "x")]), Outcome::TooLarge);
    let copying = |index| map("(.*)", &format!("{index}$1"));
    assert_eq!(applied((0..64).map(copying).collect(), &[("a", "x")]), Outcome::TooLarge);
    let many = ["a"; 64];
    let joining = || replace(&many, "(.*)", "a", "$1");
    assert_eq!(applied(vec![joining(), joining(), joining(), joining()], &[("a", "x")]), Outcome::TooLarge);
}

#[test]
fn an_expression_that_would_take_for_ever_elsewhere_does_not() {
    let slow = rules(vec![rule(Action::Keep, &["a"], "(x+x+)+y", "")]);
    assert_eq!(slow.apply(&set(&[("a", &"x".repeat(20_000))])), Outcome::Dropped);
}

#[test]
fn every_refusal_names_the_field_and_the_reason() {
    let other = |change: fn(&mut RelabelConfig), mut config: RelabelConfig| {
        change(&mut config);
        config
    };
    let hash = || RelabelConfig { modulus: 8, ..rule(Action::HashMod, &["a"], "(.*)", "h") };
    let table = [
        (rule(Action::Replace, &["a"], "x", ""), "target_label: is missing; replace needs it"),
        (rule(Action::HashMod, &["a"], "(.*)", "h"), "modulus: must be at least 1 for hashmod"),
        (other(|c| c.target_label.clear(), hash()), "target_label: is missing; hashmod needs it"),
        (rule(Action::Lowercase, &["a"], "(.*)", ""), "target_label: is missing; lowercase needs it"),
        (rule(Action::KeepEqual, &["a"], "(.*)", ""), "target_label: is missing; keepequal needs it"),
        (
            RelabelConfig { replacement: "x".into(), ..rule(Action::Uppercase, &["a"], "(.*)", "b") },
            "replacement: has no meaning for uppercase; remove it",
        ),
        (
            rule(Action::DropEqual, &["a"], "x", "b"),
            "regex: has no meaning for dropequal, which takes only source_labels and target_label",
        ),
        (
            RelabelConfig { separator: ":".into(), ..rule(Action::KeepEqual, &["a"], "(.*)", "b") },
            "separator: has no meaning for keepequal, which takes only source_labels and target_label",
        ),
        (rule(Action::LabelDrop, &[], "x", ""), "source_labels: has no meaning for labeldrop, which takes only regex"),
        (
            RelabelConfig { target_label: "x".into(), ..by_name(Action::LabelKeep, "x") },
            "target_label: has no meaning for labelkeep, which takes only regex",
        ),
        (map("(.*)", ""), "replacement: may not be empty for labelmap"),
        (rule(Action::Keep, &["a", ""], "x", ""), "source_labels: the name of a label may not be empty"),
        (rule(Action::Keep, &["a"], "(", ""), "regex: not a regular expression: a ( without its )"),
    ];
    for (config, expected) in table {
        assert_eq!(Rule::new(config).unwrap_err().to_string(), expected);
    }
}

#[test]
fn what_go_refuses_is_refused_with_a_reason() {
    let table = [
        ("(?=x)", "look-around is not supported"),
        ("(?<!x)", "look-around is not supported"),
        ("\\1", "back-references are not supported"),
        ("a\\Z", "the end is \\z or $"),
        ("\\C", "\\C (one byte) is not supported"),
        ("a**", "a repetition of a repetition"),
        ("*", "of nothing"),
        ("a(?i)*", "of nothing"),
        ("x{1001}", "counts from 0 to 1000"),
        ("(x{100}){100}", "more than 1000 repetitions"),
        ("[z-a]", "the wrong way round"),
        ("[a", "a [ without its ]"),
        ("a)", "a ) without its ("),
        ("\\x{D800}", "not a character of Unicode"),
        ("\\h", "unknown escape \\h"),
        ("\\p{Nope}", "Unicode property not found"),
        ("(?P<a b>x)", "the name of a group is made of"),
        ("[[:nope:]]", "unknown class between"),
    ];
    for (regex, reason) in table {
        let error = Rule::new(rule(Action::Keep, &["a"], regex, "")).unwrap_err().to_string();
        assert!(error.starts_with("regex: ") && error.contains(reason) && !error.contains('\n'), "{regex}: {error}");
    }
}

#[test]
fn expressions_are_bounded() {
    let refused = |regex: String| Rule::new(rule(Action::Keep, &["a"], &regex, "")).unwrap_err().rule;
    assert!(refused("x".repeat(pattern::MAX_REGEX_BYTES + 1)).contains("longer than 65536 bytes"));
    assert!(refused("(".repeat(300) + &")".repeat(300)).contains("nested deeper than 200 levels"));
    assert!(refused("(?:\\pL{1000}|\\pN{1000}){1}".repeat(20)).contains("bytes of memory"));
    let metrics: Vec<String> = (0..2_000).map(|index| format!("some_long_metric_name_{index}_total")).collect();
    assert!(Rule::new(rule(Action::Keep, &["a"], &metrics.join("|"), "")).is_ok(), "a vendor's long keep-list");
}

fn odd_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-c$;{}1]{0,6}", "\\PC{0,8}", Just("x".repeat(300)),]
}

fn odd_expression() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-c.]",
        "[*+?|()\\[\\]{}^$-]",
        "\\\\[a-zA-Z0-9]",
        Just("(.*)".to_owned()),
        Just("(?i)".to_owned()),
        Just("(?P<n>".to_owned()),
        Just("[^".to_owned()),
        Just("[[:alpha:]".to_owned()),
        Just("{2,3}".to_owned()),
        Just("\\pL".to_owned()),
        Just("\\Q".to_owned()),
        "\\PC",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

prop_compose! {
    fn odd_config()(
        action in proptest::sample::select(&Action::ALL[..]), source in proptest::option::of(proptest::collection::vec(odd_text(), 0..4)),
        separator in odd_text(), regex in prop_oneof![Just("(.*)".to_owned()), odd_expression()], modulus in 0_u64..4,
        target_label in odd_text(), replacement in prop_oneof![Just("$1".to_owned()), odd_text()],
    ) -> RelabelConfig {
        RelabelConfig { source_labels: source, separator, regex, modulus, target_label, replacement, action: action.1 }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_rule_panics_or_breaks_the_label_set(
        configs in proptest::collection::vec(odd_config(), 1..6),
        labels in proptest::collection::btree_map("[a-c]|__meta_[a-c]|\\PC{1,4}", "[a-c;]{1,3}|\\PC{1,8}", 0..6),
    ) {
        let labels = labels.iter().fold(Labels::builder(), |all, (name, value)| all.with(&**name, &**value)).build().unwrap();
        let rules = Rules::new(configs.into_iter().filter_map(|config| Rule::new(config).ok()).collect());
        match rules.apply(&labels) {
            Outcome::Changed(after) => {
                prop_assert_ne!(&after, &labels);
                prop_assert!(Labels::from_sorted(after.iter().cloned().collect()).is_ok());
            }
            Outcome::Unchanged => prop_assert!(rules.is_empty() || !labels.is_empty()),
            Outcome::Dropped | Outcome::TooLarge => {}
        }
        prop_assert_eq!(rules.apply(&labels), rules.apply(&labels));
    }

    #[test]
    fn no_expression_panics(regex in odd_expression(), text in odd_text()) {
        if let Ok(pattern) = Pattern::new(&regex) {
            prop_assert_eq!(pattern.is_match(&text), pattern.groups(&text).is_some());
        }
    }

    #[test]
    fn a_literal_is_what_it_quotes(text in "\\PC{0,12}", other in "\\PC{0,12}") {
        prop_assume!(!text.contains("\\E"));
        let pattern = Pattern::new(&format!("\\Q{text}\\E")).unwrap();
        prop_assert!(pattern.is_match(&text));
        prop_assert_eq!(pattern.is_match(&other), text == other);
    }
}
