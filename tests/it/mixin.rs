//! The alerts and the dashboard of Prometheus' own mixin on what outhaul tells of its queues.
//!
//! A real Prometheus gets outhaul's numbers by remote-write and evaluates the expressions of prometheus/prometheus
//! `documentation/prometheus-mixin`: names, labels, joins and ranges are the mixin's; only how long an alert must hold and how many
//! seconds are behind is shorter here. Both generations: 3.7 compares the timestamps of one queue, those before compare
//! each queue with all that came in.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::bed::{Agent, Nginx, PATIENCE, Prometheus, Recorder, Site, eventually, eventually_within, free_port, get};

/// Seconds; 120 in the mixin.
const BEHIND: f64 = 15.0;

/// `alerts.libsonnet`.
const ALERTS: [(&str, &str); 4] = [
    (
        "PrometheusRemoteStorageFailures",
        "((rate(prometheus_remote_storage_failed_samples_total[5m]) or rate(prometheus_remote_storage_samples_failed_total[5m])) \
         / ((rate(prometheus_remote_storage_failed_samples_total[5m]) or rate(prometheus_remote_storage_samples_failed_total[5m])) \
         + (rate(prometheus_remote_storage_succeeded_samples_total[5m]) or rate(prometheus_remote_storage_samples_total[5m])))) \
         * 100 > 1",
    ),
    (
        "PrometheusRemoteWriteBehind",
        "(max_over_time(prometheus_remote_storage_queue_highest_timestamp_seconds[5m]) \
         - max_over_time(prometheus_remote_storage_queue_highest_sent_timestamp_seconds[5m])) > BEHIND",
    ),
    (
        "PrometheusRemoteWriteBehindBefore37",
        "(max_over_time(prometheus_remote_storage_highest_timestamp_in_seconds[5m]) \
         - ignoring(remote_name, url) group_right \
         max_over_time(prometheus_remote_storage_queue_highest_sent_timestamp_seconds[5m])) > BEHIND",
    ),
    (
        "PrometheusRemoteWriteDesiredShards",
        "max_over_time(prometheus_remote_storage_shards_desired[5m]) \
         > max_over_time(prometheus_remote_storage_shards_max[5m])",
    ),
];

/// Each endpoint, and what becomes of what it is sent.
const GOOD: &str = "good"; // taken
const REFUSING: &str = "refusing"; // answered with 400
const STOPPED: &str = "stopped"; // taken for a while, and then answered with 503
const DEAD: &str = "dead"; // nobody listens
const ALL: [&str; 4] = [DEAD, GOOD, REFUSING, STOPPED];
const SENT: [&str; 3] = [GOOD, REFUSING, STOPPED];

fn rules() -> String {
    let rule = |(name, expression): &(&str, &str)| {
        let expression = expression.replace("BEHIND", &BEHIND.to_string());
        format!("    - alert: {name}\n      expr: {expression}\n      for: 2s\n      labels: {{severity: critical}}\n")
    };
    let rules: String = ALERTS.iter().map(rule).collect();
    format!("groups:\n- name: prometheus\n  rules:\n{rules}")
}

/// For which endpoints an alert fires.
fn firing(prometheus: &Prometheus, alert: &str) -> BTreeSet<String> {
    let expression = format!("ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}}");
    prometheus.values_by("remote_name", &expression).into_keys().collect()
}

fn names(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(ToString::to_string).collect()
}

/// One expression of `dashboards.libsonnet`, the dashboard "Prometheus / Remote Write".
struct Panel {
    expression: &'static str,
    /// The endpoints it must show, and nothing else.
    of: &'static [&'static str],
    /// Whether what it shows is so.
    holds: fn(&BTreeMap<String, f64>) -> bool,
}

const PANELS: [Panel; 13] = [
    Panel {
        expression: "(prometheus_remote_storage_highest_timestamp_in_seconds{VARIABLES} \
                     - ignoring(remote_name, url) group_right(instance) \
                     (prometheus_remote_storage_queue_highest_sent_timestamp_seconds{VARIABLES} != 0))",
        of: &SENT,
        holds: |behind| behind[GOOD] < BEHIND && behind[REFUSING] < BEHIND && behind[STOPPED] > BEHIND,
    },
    Panel {
        expression: "clamp_min(rate(prometheus_remote_storage_highest_timestamp_in_seconds{VARIABLES}[5m]) \
                     - ignoring (remote_name, url) group_right(instance) \
                     rate(prometheus_remote_storage_queue_highest_sent_timestamp_seconds{VARIABLES}[5m]), 0)",
        of: &ALL,
        holds: |rate| rate[DEAD] > 0.5 && rate[STOPPED] > rate[GOOD],
    },
    Panel {
        expression: "rate(prometheus_remote_storage_samples_in_total{VARIABLES}[5m]) \
                     - ignoring(remote_name, url) group_right(instance) \
                     (rate(prometheus_remote_storage_succeeded_samples_total{VARIABLES}[5m]) \
                     or rate(prometheus_remote_storage_samples_total{VARIABLES}[5m])) \
                     - (rate(prometheus_remote_storage_dropped_samples_total{VARIABLES}[5m]) \
                     or rate(prometheus_remote_storage_samples_dropped_total{VARIABLES}[5m]))",
        of: &ALL,
        // Attempts count, so what is tried again is more than what came in; nothing else is near zero but what is well.
        holds: |rate| rate[GOOD].abs() < rate[STOPPED].abs(),
    },
    Panel { expression: "prometheus_remote_storage_shards{VARIABLES}", of: &ALL, holds: all_one },
    Panel { expression: "prometheus_remote_storage_shards_max{VARIABLES}", of: &ALL, holds: all_one },
    Panel { expression: "prometheus_remote_storage_shards_min{VARIABLES}", of: &ALL, holds: all_one },
    Panel { expression: "prometheus_remote_storage_shards_desired{VARIABLES}", of: &ALL, holds: all_one },
    Panel { expression: "prometheus_remote_storage_shard_capacity{VARIABLES}", of: &ALL, holds: all_one },
    Panel {
        expression: "prometheus_remote_storage_pending_samples{VARIABLES} \
                     or prometheus_remote_storage_samples_pending{VARIABLES}",
        of: &ALL,
        holds: |pending| pending[DEAD] > pending[STOPPED] && pending[STOPPED] > 5.0 * pending[GOOD],
    },
    Panel {
        expression: "rate(prometheus_remote_storage_dropped_samples_total{VARIABLES}[5m]) \
                     or rate(prometheus_remote_storage_samples_dropped_total{VARIABLES}[5m])",
        of: &ALL,
        holds: |dropped| dropped.values().all(|rate| *rate == 0.0),
    },
    Panel {
        expression: "rate(prometheus_remote_storage_failed_samples_total{VARIABLES}[5m]) \
                     or rate(prometheus_remote_storage_samples_failed_total{VARIABLES}[5m])",
        of: &ALL,
        holds: |failed| failed.iter().all(|(name, rate)| (*rate > 0.0) == (name == REFUSING)),
    },
    Panel {
        expression: "rate(prometheus_remote_storage_retried_samples_total{VARIABLES}[5m]) \
                     or rate(prometheus_remote_storage_samples_retried_total{VARIABLES}[5m])",
        of: &ALL,
        holds: |retried| retried[DEAD] > 0.0 && retried[STOPPED] > 0.0 && retried[GOOD] == 0.0,
    },
    Panel {
        expression: "rate(prometheus_remote_storage_enqueue_retries_total{VARIABLES}[5m])",
        of: &ALL,
        holds: |retries| retries.values().all(|rate| *rate == 0.0),
    },
];

fn all_one(values: &BTreeMap<String, f64>) -> bool {
    values.values().all(|value| *value == 1.0)
}

impl Panel {
    fn check(&self, prometheus: &Prometheus) {
        // Without Kubernetes there is no label `cluster`, and its variable is anything.
        let expression = self.expression.replace("VARIABLES", "cluster=~\".*\", instance=~\"it\"");
        // What has reasons is drawn as a line each.
        let by_endpoint = format!("sum by (remote_name) ({expression})");
        eventually(&format!("{expression} is shown for {:?} and makes sense", self.of), || {
            let values = prometheus.values_by("remote_name", &by_endpoint);
            values.keys().cloned().collect::<BTreeSet<_>>() == names(self.of) && (self.holds)(&values)
        });
    }
}

/// What `promtool` has to say of the page.
fn lint(page: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("promtool cannot be started: {error}; run tests/run, which fetches it"));
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}

struct Stage {
    prometheus: Prometheus,
    agent: Agent,
    _nginx: Nginx,
    _recorder: Recorder,
}

/// An agent that has been at it for long enough that every endpoint has shown what it is.
fn stage() -> Stage {
    let prometheus = Prometheus::start_3_with_rules(&rules());
    let site = Site::new();
    let server = |stopped: &str| {
        site.plain(&format!("location = /{REFUSING} {{ default_type text/plain; return 400 'no'; }} location = /{STOPPED} {{ {stopped} }}"))
    };
    let recorder = Recorder::start();
    let pass = format!("proxy_pass {};", recorder.write_url());
    let nginx = Nginx::start(&server(&pass), site.port);
    let endpoint = |name: &str, url: &str| {
        format!("- {{name: {name}, url: \"{url}\", queue_config: {{min_backoff: 100ms, max_backoff: 500ms}}}}\n")
    };
    let endpoints = [
        endpoint(GOOD, &prometheus.write_url()),
        endpoint(REFUSING, &site.url(&format!("/{REFUSING}"))),
        endpoint(STOPPED, &site.url(&format!("/{STOPPED}"))),
        endpoint(DEAD, &format!("http://127.0.0.1:{}/write", free_port())),
    ];
    let agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\ndocker: off\nremote_write:\n{}",
        endpoints.concat()
    ));
    let fate = |name: &str, fate: &str| {
        agent.metric("outhaul_ledger_samples_total", &[("remote_name", name), ("fate", fate)]).unwrap_or(0.0)
    };
    eventually_within(PATIENCE, "every endpoint has shown what it is", || {
        fate(GOOD, "delivered") > 0.0 && fate(STOPPED, "delivered") > 0.0 && fate(REFUSING, "refused") > 0.0
    });
    nginx.reload(&server("return 503;"));
    Stage { prometheus, agent, _nginx: nginx, _recorder: recorder }
}

#[test]
fn the_alerts_and_the_dashboard_of_the_prometheus_mixin_work_on_outhaul_unchanged() {
    let Stage { prometheus, mut agent, _nginx, _recorder } = stage();
    let late = [DEAD, STOPPED];
    for (alert, fires) in [
        ("PrometheusRemoteStorageFailures", &[REFUSING][..]),
        ("PrometheusRemoteWriteBehind", &late),
        ("PrometheusRemoteWriteBehindBefore37", &late),
        ("PrometheusRemoteWriteDesiredShards", &[]),
    ] {
        let mut firing = BTreeSet::new();
        eventually_within(2 * PATIENCE, &format!("{alert} fires for {fires:?}"), || {
            firing = self::firing(&prometheus, alert);
            firing == names(fires)
        });
    }
    for panel in &PANELS {
        panel.check(&prometheus);
    }
    let of = |label: &str, expression: &str| prometheus.values_by(label, expression);
    assert_eq!(
        of("instance", "prometheus_build_info").into_keys().collect::<Vec<_>>(),
        ["it"],
        "its list of instances"
    );
    assert_eq!(of("url", "prometheus_remote_storage_shards").len(), ALL.len(), "its list of URLs");
    // A few seconds fit into one segment, so everybody reads from the newest.
    let newest = prometheus.value_now("prometheus_tsdb_wal_segment_current").unwrap();
    assert_eq!(
        of("consumer", "prometheus_wal_watcher_current_segment"),
        ALL.map(|name| (name.to_owned(), newest)).into()
    );
    let page = get(&agent.url("/metrics")).unwrap();
    agent.terminate();
    lint(&page);
}
