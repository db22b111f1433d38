//! The wire against real receivers, and against what stands in front of them.
//!
//! Every endpoint marks what it sends with a label of its own, so that one Prometheus tells apart what came over which way; the
//! witness of what outhaul took is the recorder in this process, which is always up.

mod held;
mod histograms;
mod mended;
mod negotiation;
mod proxies;
mod rotated;
mod several;

use std::fmt::Write as _;

use crate::bed::{Agent, Prometheus, Recorder, Samples, eventually_within};

/// What a test of the wire looks at.
struct Stage {
    recorder: Recorder,
    agent: Agent,
}

impl Stage {
    /// An agent with these endpoints and the recorder.
    fn start(interval: &str, endpoints: &[String]) -> Self {
        let recorder = Recorder::start();
        let mut config = format!(
            "global: {{scrape_interval: {interval}, external_labels: {{instance: it}}}}\ndocker: off\nremote_write:\n\
             - {{name: recorder, url: \"{}\", protocol: v1}}\n",
            recorder.write_url()
        );
        for endpoint in endpoints {
            writeln!(config, "- {endpoint}").unwrap();
        }
        Self { recorder, agent: Agent::start(&config) }
    }

    fn fate(&self, endpoint: &str, fate: &str) -> f64 {
        self.agent.metric("outhaul_ledger_samples_total", &[("remote_name", endpoint), ("fate", fate)]).unwrap_or(0.0)
    }

    /// Whether one line of the log is about `endpoint` and holds every one of `parts`.
    fn says(&self, endpoint: &str, parts: &[&str]) -> bool {
        let of_endpoint = format!("endpoint={endpoint} ");
        self.agent.log().lines().any(|line| line.contains(&of_endpoint) && parts.iter().all(|part| line.contains(part)))
    }

    #[track_caller]
    fn expect_to_say(&self, endpoint: &str, parts: &[&str]) {
        eventually_within(crate::bed::PATIENCE, &format!("{endpoint} says {parts:?}"), || self.says(endpoint, parts));
    }

    /// Waits until samples were taken in this version of remote-write.
    #[track_caller]
    fn wait_until_version(&self, way: &str, version: f64) {
        eventually_within(crate::bed::PATIENCE, &format!("{way} is spoken to in {version}"), || {
            self.agent.metric("outhaul_protocol_version", &[("remote_name", way)]) == Some(version)
        });
    }

    /// Waits until `prometheus` has what the recorder has got by now.
    #[track_caller]
    fn wait_until_drained(&self, prometheus: &Prometheus, ways: &[&str]) {
        let newest = self.recorder.ticks().last().copied();
        for way in ways {
            eventually_within(2 * crate::bed::PATIENCE, &format!("{way} has delivered its backlog"), || {
                prometheus.raw(&format!("outhaul_up{{way=\"{way}\"}}")).last().map(|raw| raw.at_millis) >= newest
            });
        }
    }

    #[track_caller]
    fn assert_balanced(&self, ways: &[&str]) {
        for way in ways {
            self.agent.assert_balanced(way);
            assert_eq!(self.fate(way, "refused"), 0.0, "{way}");
        }
    }
}

/// The keys of every endpoint of these tests: its name, where it sends, its mark, and waits that suit a test.
fn endpoint(name: &str, url: &str, more: &str) -> String {
    format!(
        "{{name: {name}, url: \"{url}\", queue_config: {{min_backoff: 100ms, max_backoff: 500ms}}, \
         write_relabel_configs: [{{target_label: way, replacement: {name}}}]{more}}}"
    )
}

/// What came over a way, without its mark.
fn of_way(samples: &Samples, way: &str) -> Samples {
    let mark = format!(",way={way:?}");
    let unmarked = |(series, samples): (&String, &_)| {
        series.contains(&mark).then(|| (series.replace(&mark, ""), std::clone::Clone::clone(samples)))
    };
    samples.iter().filter_map(unmarked).collect()
}

/// Every sample that was taken came over the way with the same value, and nothing else did.
#[track_caller]
fn assert_same(way: &str, taken: &Samples, answered: &Samples) {
    let names = |samples: &Samples| samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(taken), names(answered), "{way}: the same series");
    for (series, expected) in taken {
        assert_eq!(expected, &answered[series], "{way}: {series}");
    }
    let samples: usize = taken.values().map(std::collections::BTreeMap::len).sum();
    println!("{way}: {samples} samples of {} series are the same on both sides", taken.len());
    assert!(samples > 300, "the comparison is about something: {samples} samples");
}
