//! Any rules on any labels: no panic, no label set that is none, the same answer twice, and in bounded time.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use outhaul::model::Labels;
use outhaul::relabel::{Action, Outcome, RelabelConfig, Rule, Rules};

#[derive(Arbitrary, Debug)]
struct Input {
    rules: Vec<Written>,
    labels: Vec<(String, String)>,
}

#[derive(Arbitrary, Debug)]
struct Written {
    action: u8,
    source_labels: Option<Vec<String>>,
    separator: Option<String>,
    regex: Option<String>,
    modulus: u8,
    target_label: String,
    replacement: Option<String>,
}

fn rule(written: Written) -> Option<Rule> {
    let default = RelabelConfig::default();
    let config = RelabelConfig {
        source_labels: written.source_labels,
        separator: written.separator.unwrap_or(default.separator),
        regex: written.regex.unwrap_or(default.regex),
        modulus: written.modulus.into(),
        target_label: written.target_label,
        replacement: written.replacement.unwrap_or(default.replacement),
        action: Action::ALL[usize::from(written.action) % Action::ALL.len()].1,
    };
    Rule::new(config).ok()
}

fuzz_target!(|input: Input| {
    let rules = Rules::new(input.rules.into_iter().filter_map(rule).collect());
    let labels = input.labels.into_iter().fold(Labels::builder(), |all, (name, value)| all.with(name, value));
    let labels = labels.build_lossy();
    let outcome = rules.apply(&labels);
    if let Outcome::Changed(after) = &outcome {
        assert_ne!(*after, labels);
        Labels::from_sorted(after.iter().cloned().collect()).expect("a label set stays one");
    }
    assert_eq!(rules.apply(&labels), outcome);
});
