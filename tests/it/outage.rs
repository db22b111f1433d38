//! The line goes down, the agent is killed, everything comes back: nothing may be missing, doubled or changed.
//!
//! The witness is a second endpoint: the recorder in this process, which is always up. The buffer delivers to both
//! independently, so what the recorder got is what outhaul took, and what Prometheus answers must be the same, sample by sample.

use std::time::Duration;

use crate::bed::{Agent, Engine, Prometheus, PrometheusOptions, Recorder, Samples, VictoriaMetrics, eventually};

/// How many ticks of a second each phase lasts; the outage of the story is ten minutes, here it is shortened.
const TICKS: usize = 5;

#[test]
fn an_outage_with_a_kill_in_the_middle_loses_nothing_with_an_out_of_order_window() {
    story("window", PrometheusOptions { out_of_order_time_window: Some(Duration::from_secs(3600)) });
}

#[test]
fn an_outage_with_a_kill_in_the_middle_loses_nothing_without_an_out_of_order_window() {
    story("nowindow", PrometheusOptions::default());
}

fn story(test: &str, options: PrometheusOptions) {
    let engine = Engine::get(test);
    let mut prometheus = Prometheus::start(options);
    let recorder = Recorder::start();
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\n\
         docker: [{{include: {{labels: [\"{}\"]}}}}]\n\
         remote_write:\n  \
         - {{name: prometheus, url: \"{}\", queue_config: {{min_backoff: 100ms, max_backoff: 500ms}}}}\n  \
         - {{name: recorder, url: \"{}\"}}\n",
        engine.label(),
        prometheus.write_url(),
        recorder.write_url(),
    ));
    engine.run("steady", &[], &["sleep", "1000"]);
    let counted = engine.run("counted", &[], &["sleep", "1000"]);
    recorder.wait_for_ticks(TICKS);

    prometheus.stop();
    let removed = engine.run("removed-in-the-outage", &[], &["sleep", "1000"]);
    recorder.wait_for_ticks(2 * TICKS);
    engine.docker(&["rm", "-f", &removed]);

    engine.docker(&["restart", "--time", "0", &counted]);
    engine.wait_for_events(&counted, "start", 2);
    let ticks_before_the_kill = recorder.ticks().len();
    agent.kill9();
    engine.docker(&["restart", "--time", "0", &counted]);
    let unseen = engine.run("unseen", &["--rm"], &["sleep", "0.3"]);
    let events = engine.wait_for_event(&unseen, "destroy");
    agent.start_again();
    engine.docker(&["restart", "--time", "0", &counted]);
    recorder.wait_for_ticks(ticks_before_the_kill + TICKS);

    prometheus.start_again();
    eventually("the backlog drains", || {
        let newest = recorder.ticks().last().copied();
        let pending = agent.metric("outhaul_ledger_pending_samples", &[("remote_name", "prometheus")]);
        prometheus.raw("outhaul_up").last().map(|raw| raw.at_millis) >= newest && pending < Some(500.0)
    });
    agent.assert_balanced("prometheus");
    agent.terminate();

    let taken = recorder.samples();
    assert_eq!(recorder.contradictions(), Vec::<String>::new(), "one series, one instant, two values");
    assert_same(&taken, &prometheus.all_samples());
    assert_no_hole(&recorder.ticks(), ticks_before_the_kill);
    assert_replayed(&taken, &unseen, events.iter().map(|event| event.at_millis).min().unwrap());
    // Started once by `run` and once by each restart: before the kill, while outhaul was dead, and after it.
    assert_eq!(newest(&taken, "container_starts_total", &counted), "4.0");
    assert!(!recorder.stale_marks(&["container_state", &removed]).is_empty(), "a removed container's series ends");
    assert_eq!(
        recorder.stale_marks(&["steady"]),
        Vec::<i64>::new(),
        "neither a kill nor an ordinary stop ends a series"
    );
}

/// Every sample that was taken is in Prometheus with the same value, and nothing else is.
fn assert_same(taken: &Samples, answered: &Samples) {
    let names = |samples: &Samples| samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(taken), names(answered), "the same series");
    let mut samples = 0;
    for (series, expected) in taken {
        assert_eq!(expected, &answered[series], "{series}");
        samples += expected.len();
    }
    println!("{samples} samples of {} series are the same on both sides", taken.len());
    assert!(samples > 1000, "the comparison is about something: {samples} samples");
}

/// A tick that a busy machine delayed is no hole, one that is missing is: ticks are a second apart.
const HOLE_MILLIS: i64 = 1900;

/// Ticks are a second apart, but for the one hole where outhaul was dead and the first tick of each life, which comes at once.
fn assert_no_hole(ticks: &[i64], ticks_before_the_kill: usize) {
    let holes: Vec<(usize, i64)> = ticks
        .windows(2)
        .enumerate()
        .map(|(place, pair)| (place, pair[1] - pair[0]))
        .filter(|(place, gap)| {
            *gap > HOLE_MILLIS && !(ticks_before_the_kill - 1..=ticks_before_the_kill + 1).contains(place)
        })
        .collect();
    assert_eq!(holes, [], "ticks: {ticks:?}");
}

/// The last value of a metric of a container.
fn newest(taken: &Samples, metric: &str, name: &str) -> String {
    let series = taken.iter().find(|(series, _)| series.contains(metric) && series.contains(name));
    let (_, samples) = series.unwrap_or_else(|| panic!("no {metric} of {name}"));
    samples.values().next_back().cloned().unwrap_or_default()
}

/// What a container did while outhaul was dead was replayed with the engine's own timestamps.
fn assert_replayed(taken: &Samples, name: &str, created_at: i64) {
    let state = taken.iter().find(|(series, _)| series.contains("container_state") && series.contains(name));
    let (_, samples) = state.unwrap_or_else(|| panic!("nothing is told of {name}"));
    assert_eq!(samples.get(&created_at).map(String::as_str), Some("3.0"), "{samples:?}");
}

#[test]
fn victoria_metrics_holds_what_was_taken_at_its_original_timestamps() {
    let engine = Engine::get("vm");
    let name = engine.run("till", &[], &["sleep", "1000"]);
    let server = VictoriaMetrics::start();
    let recorder = Recorder::start();
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\n\
         docker: [{{include: {{labels: [\"{}\"]}}}}]\n\
         remote_write: [{{name: vm, url: \"{}\"}}, {{name: recorder, url: \"{}\"}}]\n",
        engine.label(),
        server.url("/api/v1/write"),
        recorder.write_url(),
    ));
    recorder.wait_for_ticks(TICKS);
    agent.terminate();

    let taken = recorder.samples();
    let state = taken.iter().find(|(series, _)| series.contains("__name__=\"container_state\"")).unwrap().1;
    let mut stored = Vec::new();
    eventually("every sample is searchable", || {
        stored = server.export(&format!("container_state{{name=\"{name}\"}}"));
        stored.len() == state.len()
    });
    assert_eq!(stored.iter().map(|(at, _)| *at).collect::<Vec<_>>(), state.keys().copied().collect::<Vec<_>>());
}
