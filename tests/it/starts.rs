//! The start timestamps of counters (remote-write 2.0, `start_timestamp`) as an independent decoder reads them, against the engine.

use outhaul::encode::Message;
use serde_json::Value as Json;

use crate::bed::{Agent, Captor, Engine, eventually};
use crate::decoder::read_by_python;

/// So long that a run of a moment is one that no tick sees.
const INTERVAL: &str = "30s";

/// One series of one request.
struct Told {
    labels: Vec<String>,
    kind: String,
    samples: Vec<Json>,
}

impl Told {
    fn of(series: &Json) -> Self {
        let texts =
            |list: &Json| list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
        Self {
            labels: texts(&series["labels"]),
            kind: series["metadata"]["type"].as_str().unwrap_or_default().to_owned(),
            samples: series["samples"].as_array().cloned().unwrap_or_default(),
        }
    }

    fn label(&self, name: &str) -> &str {
        let place = self.labels.iter().step_by(2).position(|label| label == name);
        place.map_or("", |place| &self.labels[2 * place + 1])
    }

    /// The start of every sample that is no stale marker; 0 is none.
    fn starts(&self) -> Vec<i64> {
        let alive = self.samples.iter().filter(|sample| sample["value"] != crate::decoder::STALE);
        alive.map(|sample| sample["start_timestamp"].as_str().map_or(0, |text| text.parse().unwrap())).collect()
    }
}

#[test]
fn every_counter_of_a_container_says_since_when_it_counts_by_the_engines_own_time() {
    let engine = Engine::get("starts");
    let captor = Captor::start();
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: {INTERVAL}, external_labels: {{instance: it}}}}\n\
         docker: [{{include: {{labels: [\"{}\"]}}}}]\n\
         remote_write: [{{name: captor, url: \"{}\"}}]\n",
        engine.label(),
        captor.write_url(),
    ));
    agent.wait_until_ready();
    let options = ["--health-cmd", "true", "--health-interval", "1s"];
    let name = engine.run("counted", &options, &["sleep", "1000"]);
    engine.wait_for_event(&name, "health_status: healthy");
    engine.docker(&["restart", "--time", "0", &name]);
    let events = engine.wait_for_events(&name, "start", 2);
    let at = |action: &str| events.iter().find(|event| event.action == action).unwrap().at_millis;
    let (created, died) = (at("create"), at("die"));
    let is_told = |what: &str| {
        let bodies = captor.bodies();
        bodies.iter().any(|body| body.unpacked().windows(what.len()).any(|window| window == what.as_bytes()))
    };
    eventually("the run that ended is told", || is_told("container_run_seconds_total"));
    agent.terminate();

    let requests: Vec<Json> =
        captor.bodies().iter().map(|body| read_by_python(Message::V2, &body.unpacked())).collect();
    let series = requests.iter().flat_map(|request| request["timeseries"].as_array().unwrap());
    let told: Vec<Told> =
        series.map(Told::of).filter(|told| told.label("__name__").starts_with("container_")).collect();
    // A counter's start lies before its first sample, so it is the millisecond before.
    let mut seen = std::collections::BTreeSet::new();
    for told in &told {
        let family = told.label("__name__");
        let since = match (told.kind.as_str(), told.label("name")) {
            ("METRIC_TYPE_COUNTER", "") => died - 1,
            ("METRIC_TYPE_COUNTER", _) => created - 1,
            _ => 0,
        };
        assert_eq!((told.kind == "METRIC_TYPE_COUNTER"), family.ends_with("_total"), "{family}: {}", told.kind);
        assert!(told.starts().iter().all(|start| *start == since), "{family} since {since}: {:?}", told.samples);
        seen.insert(family);
    }
    let counters = [
        "container_exits_total",
        "container_health_transitions_total",
        "container_oom_events_total",
        "container_restarts_total",
        "container_run_seconds_total",
        "container_runs_total",
        "container_starts_total",
    ];
    assert_eq!(seen.into_iter().filter(|family| family.ends_with("_total")).collect::<Vec<_>>(), counters);
}
