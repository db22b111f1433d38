//! Relabelling against a real Prometheus: the same rules and labels, the same verdict on each rule, the same result.
//!
//! The rules are made from a fixed seed. A server is asked by reloading which of them Prometheus takes; another, in which each
//! case is a job with one static target, says what becomes of the labels.

use std::collections::BTreeMap;
use std::process::Command;

use outhaul::model::Labels;
use outhaul::relabel::{Action, Outcome, RelabelConfig, Rule, Rules};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::bed::{Prometheus, eventually, get};

/// How many cases are made.
const CASES: usize = 600;

struct Case {
    labels: BTreeMap<String, String>,
    rules: Vec<RelabelConfig>,
}

/// Expressions that try each part of the syntax, also wrong ones.
const EXPRESSIONS: [&str; 92] = [
    "(.*)",
    "",
    ".*",
    ".+",
    "x",
    "X",
    "(?i)x",
    "(?i)(web)-(.*)",
    "web-(\\d+)",
    "(web)-(?P<n>\\d+)",
    "(web)-(?P<1n>\\d+)",
    "(.*):(.*)",
    "(.*?):(.*)",
    "(?U)(.*):(.*)",
    "([^:]+)(?::\\d+)?",
    "\\d+\\.\\d+\\.\\d+\\.\\d+:\\d+",
    "[[:alpha:]]+",
    "[[:^digit:]]+",
    "[\\w-]+",
    "[^\\W_]+",
    "\\pL+",
    "\\p{Greek}+",
    "\\p{^Lu}+",
    "\\PN+",
    "[\\p{Lu}\\d]+",
    "(?i)\\p{Lu}+",
    "\\Qa.b\\E",
    "\\Q10.0.0.1:\\E(\\d+)",
    "\\Qa",
    "\\x61",
    "\\x{E9}",
    "\\141",
    "a;b",
    "(a);(b)",
    "(.*);(.*)",
    "(.*);(.*);(.*)",
    "é",
    ".",
    "..",
    "(?i)É",
    "(?i)ſ|k",
    "(?i)[k-l]",
    "(?i)[^k]+",
    "\\bweb\\b.*",
    "w\\Beb-1",
    "^web-1$",
    "\\Aweb-1\\z",
    "(?m)^web-1$",
    "a)|(x",
    "foo|x|web-1",
    "(|x)*",
    "(a*)*",
    "(a|b|;)*",
    "x{1}",
    "x{0,1}",
    "x{,1}",
    "x{",
    "{x}",
    "a{2,1}",
    "x{1001}",
    "(x{100}){100}",
    "x**",
    "x*+",
    "x+?",
    "x??",
    "*",
    "(?:)",
    "(",
    ")",
    "[",
    "[]x]",
    "[x-a]",
    "[a-\\d]",
    "\\",
    "\\8",
    "\\1",
    "\\Z",
    "\\C",
    "\\h",
    "\\_",
    "\\-",
    "(?=x)",
    "(?!x)x",
    "(?<n>x)",
    "(?P<n>x)(?P<n>y)",
    "(?P<é>x)",
    "(?i-s).+",
    "(?ii)X",
    "(?-)x",
    "(?x) x",
    "\\p{Nope}",
    "[[:nope:]]",
];

const REPLACEMENTS: [&str; 22] = [
    "$1",
    "${1}",
    "",
    "x",
    "$1-$2",
    "$2:$1",
    "${1}_${n}",
    "$n",
    "$1n",
    "${1n}",
    "$$1",
    "$",
    "a$",
    "$0",
    "${",
    "${}",
    "$3",
    "$01",
    "pre_${1}",
    "${1}${1}",
    "new_$1",
    "_$0",
];

const TARGETS: [&str; 12] = ["a", "b", "c", "env", "out", "o_1", "$1", "${1}_x", "l_$2", "", "1a", "${"];

const VALUES: [&str; 18] = [
    "",
    "x",
    "X",
    "web-1",
    "web-22",
    "10.0.0.1:9100",
    "a;b",
    "a.b",
    "é",
    "É",
    "ſtraße",
    "K",
    "İ",
    "ᾳ",
    "foo bar",
    "1",
    "αβγ",
    "ŉx",
];

const NAMES: [&str; 8] = ["a", "b", "c", "env", "host_name", "x_1", "__meta_k", "absent"];

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = String> {
    proptest::sample::select(from).prop_map(str::to_owned)
}

fn rule() -> impl Strategy<Value = RelabelConfig> {
    let action = proptest::sample::select(&Action::ALL[..]).prop_map(|(_, action)| action);
    let often = |chance: f64| proptest::bool::weighted(chance);
    let source = proptest::collection::vec(pick(&NAMES), 0..4);
    let separator = proptest::sample::select(vec![";", ";", ":", "", "--"]);
    // A name that Prometheus itself gives a meaning to is never changed by what matches any name.
    let names =
        proptest::sample::select(vec!["a", "a|b", "(a|b|c)", "(.)", "env|x_1", "__meta_(.*)", "h.*", "([a-z]+)_(.*)"]);
    let kept = proptest::sample::select(vec!["__.*|job|a", "(__.*|job|[b-z].*)", "__.*|.*_.*|job", "__.*|.|job"]);
    let plain = (action, source, pick(&EXPRESSIONS), pick(&TARGETS), pick(&REPLACEMENTS), names, kept);
    let rest = (separator, 0_u64..20, often(0.9), often(0.85));
    (plain, rest).prop_map(
        |((action, source, regex, target, replacement, names, kept), (separator, modulus, tidy, fits))| {
            let mut rule = RelabelConfig {
                source_labels: Some(source),
                separator: separator.to_owned(),
                regex,
                modulus,
                target_label: target,
                replacement,
                action,
            };
            let default = RelabelConfig::default();
            let by_name = matches!(action, Action::LabelDrop | Action::LabelKeep | Action::LabelMap);
            if by_name {
                rule.regex = String::from(if action == Action::LabelKeep { kept } else { names });
            }
            // Mostly only what the action takes, so that most rules are valid.
            if tidy && by_name {
                let replacement = rule.replacement;
                rule = RelabelConfig { regex: rule.regex, action, ..default };
                if action == Action::LabelMap {
                    rule.replacement = replacement;
                }
            } else if tidy && matches!(action, Action::KeepEqual | Action::DropEqual) {
                rule = RelabelConfig {
                    source_labels: rule.source_labels,
                    target_label: rule.target_label,
                    action,
                    ..default
                };
            } else if tidy && matches!(action, Action::Lowercase | Action::Uppercase | Action::HashMod) {
                rule.replacement = default.replacement;
                rule.regex = default.regex;
            }
            // Rules that drop everything would hide the others.
            if fits && matches!(action, Action::Keep) {
                rule.regex = String::from(".*");
            }
            rule
        },
    )
}

/// Whether Prometheus 2 would see it otherwise: names of labels may be any text since Prometheus 3, and `(?<name>` is newer
/// than its Go.
fn needs_prometheus_3(case: &Case) -> bool {
    let odd = |text: &str| text.starts_with(['1', '$', 'l']);
    let is_odd = |rule: &RelabelConfig| {
        odd(&rule.target_label) || rule.regex.contains("(?<n>") || rule.action == Action::LabelMap
    };
    case.rules.iter().any(is_odd)
}

fn cases() -> Vec<Case> {
    let labels = proptest::collection::btree_map(pick(&NAMES[..7]), pick(&VALUES), 1..7);
    let strategy = (labels, proptest::collection::vec(rule(), 1..4));
    let mut runner = TestRunner::deterministic();
    let mut next = || strategy.new_tree(&mut runner).unwrap().current();
    let mut cases: Vec<Case> =
        std::iter::repeat_with(&mut next).take(CASES).map(|(labels, rules)| Case { labels, rules }).collect();
    // Each expression also by itself, on each value.
    for regex in EXPRESSIONS {
        for values in VALUES.chunks(6) {
            let labels = values.iter().enumerate().map(|(at, value)| (format!("v{at}"), (*value).to_owned())).collect();
            let replace = |at| RelabelConfig {
                source_labels: Some(vec![format!("v{at}")]),
                regex: regex.to_owned(),
                target_label: format!("w{at}"),
                replacement: "<$0|$1|$2|$n>".to_owned(),
                ..RelabelConfig::default()
            };
            cases.push(Case { labels, rules: (0..values.len()).map(replace).collect() });
        }
    }
    let version = Command::new("prometheus").arg("--version").output().expect("tests/run fetches prometheus");
    if String::from_utf8_lossy(&version.stdout).contains("version 2.") {
        cases.retain(|case| !needs_prometheus_3(case));
    }
    cases
}

fn written(rule: &RelabelConfig) -> Value {
    let default = RelabelConfig::default();
    let mut written = json!({ "action": rule.action.name() });
    let mut put = |key: &str, value: Value, is_default: bool| {
        if !is_default {
            written[key] = value;
        }
    };
    put("source_labels", json!(rule.source_labels), rule.source_labels.is_none());
    put("separator", json!(rule.separator), rule.separator == default.separator);
    put("regex", json!(rule.regex), rule.regex == default.regex);
    put("modulus", json!(rule.modulus), rule.modulus == 0);
    put("target_label", json!(rule.target_label), rule.target_label.is_empty());
    put("replacement", json!(rule.replacement), rule.replacement == default.replacement);
    written
}

fn job(name: &str, case: &Case) -> Value {
    json!({
        "job_name": name,
        "static_configs": [{ "targets": ["127.0.0.1:1"], "labels": case.labels }],
        "relabel_configs": case.rules.iter().map(written).collect::<Vec<_>>(),
    })
}

fn ours(case: &Case) -> Result<Rules, String> {
    let rules = case.rules.iter().map(|rule| Rule::new(rule.clone()).map_err(|error| format!("{error} in {rule:?}")));
    rules.collect::<Result<Vec<_>, _>>().map(Rules::new)
}

/// The labels a target has before its rules are applied.
fn discovered(job: &str, case: &Case) -> Labels {
    let given = case.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let own = [
        ("__address__", "127.0.0.1:1"),
        ("__metrics_path__", "/metrics"),
        ("__scheme__", "http"),
        ("__scrape_interval__", "1m"),
        ("__scrape_timeout__", "10s"),
        ("job", job),
    ];
    given.chain(own).fold(Labels::builder(), |all, (name, value)| all.with(name, value)).build().unwrap()
}

/// The target of every job, and whether it is active.
fn targets(prometheus: &Prometheus, count: usize) -> Vec<(Value, bool)> {
    let mut targets = Vec::new();
    eventually("every job has its target", || {
        let answer: Value = serde_json::from_str(&get(&prometheus.url("/api/v1/targets?state=any")).unwrap()).unwrap();
        let of = |list: &str| answer["data"][list].as_array().unwrap().clone();
        let active = of("activeTargets").into_iter().map(|target| (target, true));
        targets = active.chain(of("droppedTargets").into_iter().map(|target| (target, false))).collect();
        targets.len() == count
    });
    targets
}

/// The labels that a target shows: none that begins with `__`, and an instance where the rules left none.
fn shown(target: &Value, after: &Labels) -> BTreeMap<String, String> {
    let mut shown: BTreeMap<String, String> = serde_json::from_value(target["labels"].clone()).unwrap();
    if after.get("instance").is_none() {
        shown.remove("instance");
    }
    // Prometheus' `labelmap` can make a label without a name, which nothing takes.
    shown.remove("");
    shown
}

#[test]
fn relabelling_is_what_a_real_prometheus_makes_of_the_same_rules() {
    let cases = cases();
    let prometheus = Prometheus::configured("{}");
    let mut valid = Vec::new();
    for case in &cases {
        let verdict = prometheus.reconfigure(&json!({ "scrape_configs": [job("j", case)] }).to_string());
        match (ours(case), verdict) {
            (Ok(rules), Ok(())) => valid.push((case, rules)),
            (Err(_), Err(_)) => {}
            (Ok(_), Err(words)) => panic!("only outhaul takes {:?}: {words}", case.rules),
            (Err(error), Ok(())) => panic!("only Prometheus takes it: {error}"),
        }
    }
    assert!(valid.len() > cases.len() / 3, "{} of {} cases are valid", valid.len(), cases.len());
    let jobs: Vec<Value> = valid.iter().enumerate().map(|(index, (case, _))| job(&index.to_string(), case)).collect();
    prometheus.reconfigure(&json!({ "scrape_configs": jobs }).to_string()).unwrap();
    let (mut compared, mut dropped) = (0, 0);
    for (target, is_active) in targets(&prometheus, valid.len()) {
        let name = if is_active { &target["scrapePool"] } else { &target["discoveredLabels"]["job"] }.as_str().unwrap();
        let (case, rules) = &valid[name.parse::<usize>().unwrap()];
        let before = discovered(name, case);
        let after = match rules.apply(&before) {
            Outcome::Unchanged => before.clone(),
            Outcome::Changed(labels) => labels,
            Outcome::Dropped => {
                assert!(!is_active, "only outhaul drops {before:?} with {:?}", case.rules);
                dropped += 1;
                continue;
            }
            Outcome::TooLarge => panic!("too large: {before:?} with {:?}", case.rules),
        };
        assert!(is_active, "only Prometheus drops {before:?} with {:?}", case.rules);
        let ours = after.iter().filter(|label| !label.name.starts_with("__"));
        let ours: BTreeMap<String, String> =
            ours.map(|label| (label.name.to_string(), label.value.to_string())).collect();
        assert_eq!(ours, shown(&target, &after), "of {before:?} with {:?}", case.rules);
        compared += 1;
    }
    assert!(compared > valid.len() / 2 && dropped > 5, "{compared} compared, {dropped} dropped of {}", valid.len());
}
