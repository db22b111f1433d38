//! What people have for Prometheus' own remote-write works on outhaul: the alerts and the dashboard of its mixin.
//!
//! The expressions are those of `documentation/prometheus-mixin` in prometheus/prometheus, with their names, labels and joins;
//! windows are seconds where they have minutes, and what must last for a while there fires at once here.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::bed::{Agent, Mood, Prometheus, Recorder, eventually, free_port, get};

/// Window of rates, and how far behind is behind: 5 minutes and 120 seconds in the mixin.
const WINDOW: &str = "10s";
const BEHIND_SECONDS: u32 = 8;

const FAILURES: &str = "(rate(prometheus_remote_storage_failed_samples_total[W]) or rate(prometheus_remote_storage_samples_failed_total[W]))";
const SUCCESSES: &str =
    "(rate(prometheus_remote_storage_succeeded_samples_total[W]) or rate(prometheus_remote_storage_samples_total[W]))";
/// Until 3.7 of Prometheus, and from then on.
const BEHIND: [&str; 2] = [
    "max_over_time(prometheus_remote_storage_highest_timestamp_in_seconds[W]) - ignoring(remote_name, url) group_right \
     max_over_time(prometheus_remote_storage_queue_highest_sent_timestamp_seconds[W])",
    "max_over_time(prometheus_remote_storage_queue_highest_timestamp_seconds[W]) - \
     max_over_time(prometheus_remote_storage_queue_highest_sent_timestamp_seconds[W])",
];
const SHARDS: [&str; 2] = [
    "max_over_time(prometheus_remote_storage_shards_desired[W])",
    "max_over_time(prometheus_remote_storage_shards_max[W])",
];

/// The panels of the dashboard "Prometheus / Remote Write", without those of Prometheus' own log, which outhaul has not.
const PANELS: [&str; 14] = [
    "prometheus_remote_storage_highest_timestamp_in_seconds{instance=~\"it\"} - ignoring(remote_name, url) group_right(instance) \
     (prometheus_remote_storage_queue_highest_sent_timestamp_seconds{instance=~\"it\", url=~\".+\"} != 0)",
    "clamp_min(rate(prometheus_remote_storage_highest_timestamp_in_seconds[W]) - ignoring(remote_name, url) \
     group_right(instance) rate(prometheus_remote_storage_queue_highest_sent_timestamp_seconds[W]), 0)",
    "rate(prometheus_remote_storage_samples_in_total[W]) - ignoring(remote_name, url) group_right(instance) \
     (rate(prometheus_remote_storage_succeeded_samples_total[W]) or rate(prometheus_remote_storage_samples_total[W]))",
    "prometheus_remote_storage_shards",
    "prometheus_remote_storage_shards_max",
    "prometheus_remote_storage_shards_min",
    "prometheus_remote_storage_shards_desired",
    "prometheus_remote_storage_shard_capacity",
    "prometheus_remote_storage_pending_samples or prometheus_remote_storage_samples_pending",
    "rate(prometheus_remote_storage_dropped_samples_total[W]) or rate(prometheus_remote_storage_samples_dropped_total[W])",
    "rate(prometheus_remote_storage_failed_samples_total[W]) or rate(prometheus_remote_storage_samples_failed_total[W])",
    "rate(prometheus_remote_storage_retried_samples_total[W]) or rate(prometheus_remote_storage_samples_retried_total[W])",
    "rate(prometheus_remote_storage_enqueue_retries_total[W])",
    "rate(prometheus_remote_storage_bytes_total[W]) + rate(prometheus_remote_storage_metadata_bytes_total[W])",
];

fn rules() -> String {
    let mut rules = "groups:\n- name: remote-write\n  interval: 1s\n  rules:\n".to_owned();
    let mut rule = |alert: &str, expression: String| {
        let expression = expression.replace("[W]", &format!("[{WINDOW}]"));
        writeln!(rules, "  - {{alert: {alert}, expr: '{expression}'}}").unwrap();
    };
    rule("Failures", format!("({FAILURES} / ({FAILURES} + {SUCCESSES})) * 100 > 1"));
    rule("BehindUntil3.7", format!("({}) > {BEHIND_SECONDS}", BEHIND[0]));
    rule("BehindSince3.7", format!("({}) > {BEHIND_SECONDS}", BEHIND[1]));
    rule("DesiredShards", format!("({} > {})", SHARDS[0], SHARDS[1]));
    rules
}

/// What `promtool` says of something that it is given.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("promtool");
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() || !said.is_empty(), "{:?}", output.status);
    said
}

#[test]
fn the_alerts_and_the_dashboard_of_prometheus_mixin_work_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.yml");
    std::fs::write(&file, rules()).unwrap();
    assert_eq!(promtool(&["check", "rules", file.to_str().unwrap()], ""), "");
    let prometheus = Prometheus::configured(&format!(
        "global: {{scrape_interval: 1h, evaluation_interval: 1s}}\nrule_files: [\"{}\"]\n",
        file.display()
    ));
    let refusing = Recorder::start();
    refusing.set_mood(Mood::Refusing);
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\ndocker: off\nremote_write:\n\
         - {{name: good, url: \"{}\"}}\n- {{name: dead, url: \"http://127.0.0.1:{}/write\"}}\n\
         - {{name: refusing, url: \"{}\", protocol: v1}}\n",
        prometheus.write_url(),
        free_port(),
        refusing.write_url(),
    ));
    let firing = || -> BTreeSet<(String, String)> {
        let alerts = prometheus.query("ALERTS{alertstate=\"firing\"}");
        alerts
            .into_iter()
            .map(|(mut labels, _)| (labels.remove("alertname").unwrap(), labels.remove("remote_name").unwrap()))
            .collect()
    };
    let pairs = [("BehindSince3.7", "dead"), ("BehindUntil3.7", "dead"), ("Failures", "refusing")];
    let expected: BTreeSet<_> = pairs.map(|(alert, name)| (alert.to_owned(), name.to_owned())).into();
    eventually("what should fire fires", || firing().is_superset(&expected));
    eventually("nothing else does", || firing() == expected);
    for panel in PANELS {
        let expression = panel.replace("[W]", &format!("[{WINDOW}]"));
        eventually(&format!("there is something to draw for {expression}"), || {
            prometheus.query(&expression).iter().any(|(labels, _)| {
                let named = |name: &str| labels.get("remote_name").is_some_and(|found| found == name);
                assert!(labels.contains_key("url") && labels["instance"] == "it", "{labels:?}");
                named("good")
            })
        });
    }
    // What promtool finds wrong with the page is what is Prometheus' own naming.
    let page = get(&agent.url("/metrics")).unwrap();
    let said = promtool(&["check", "metrics"], &page);
    let ours: Vec<&str> = said.lines().filter(|line| !line.starts_with("prometheus_remote_storage_")).collect();
    assert_eq!(ours, Vec::<&str>::new());
    agent.terminate();
}
