//! What happens to a container between two ticks is in Prometheus, with the engine's own timestamps.

use crate::bed::{Agent, Engine, Event, Prometheus, PrometheusOptions, Raw, eventually};

/// So long that no tick sees what these tests do: everything must come from events.
const INTERVAL: &str = "30s";

struct Stage {
    engine: Engine,
    prometheus: Prometheus,
    agent: Agent,
}

impl Stage {
    fn set(test: &str) -> Self {
        let engine = Engine::get(test);
        let prometheus = Prometheus::start(PrometheusOptions::default());
        let agent = Agent::start(&format!(
            "global: {{scrape_interval: {INTERVAL}, scrape_timeout: 5s, external_labels: {{instance: it}}}}\n\
             docker: [{{include: {{labels: [\"{}\"]}}}}]\n\
             remote_write: [{{name: prometheus, url: \"{}\"}}]\n",
            engine.label(),
            prometheus.write_url(),
        ));
        agent.wait_until_ready();
        Self { engine, prometheus, agent }
    }

    /// The raw samples of `metric` for container `name` with `labels` besides.
    fn raw(&self, metric: &str, name: &str, labels: &str) -> Vec<Raw> {
        self.prometheus.raw(&format!("{metric}{{name=\"{name}\"{labels}}}"))
    }

    /// Waits until `metric` of `name` had `value` at `at_millis`, and says what it was instead if it never did.
    fn expect(&self, metric: &str, name: &str, labels: &str, at_millis: i64, value: f64) {
        let what = format!("{metric}{{name={name}{labels}}} = {value} at {at_millis}");
        eventually(&what, || {
            self.raw(metric, name, labels).iter().any(|raw| raw.at_millis == at_millis && raw.value == value)
        });
    }
}

fn at(events: &[Event], action: &str) -> i64 {
    let event = events.iter().find(|event| event.action == action);
    event.unwrap_or_else(|| panic!("no {action} among {events:?}")).at_millis
}

#[test]
fn a_container_that_lived_300_ms_is_found_with_the_engines_own_timestamps() {
    let mut stage = Stage::set("short");
    let name = stage.engine.run("short", &["--rm"], &["sleep", "0.3"]);
    let events = stage.engine.wait_for_event(&name, "destroy");

    stage.expect("container_state", &name, "", at(&events, "create"), 3.0);
    stage.expect("container_state", &name, "", at(&events, "start"), 1.0);
    stage.expect("container_state", &name, "", at(&events, "die"), 0.0);
    stage.expect("container_starts_total", &name, "", at(&events, "start"), 1.0);
    stage.expect("container_exits_total", &name, ",class=\"ok\"", at(&events, "die"), 1.0);
    stage.expect("container_last_exit_code", &name, "", at(&events, "die"), 0.0);

    let lived = (at(&events, "die") - at(&events, "start")) as f64 / 1000.0;
    let told = stage.raw("container_last_run_seconds", &name, "");
    assert!(told.iter().any(|raw| (raw.value - lived).abs() < 0.0015), "{told:?} holds {lived}");
    eventually("the removed container's series to end", || {
        stage.prometheus.value_now(&format!("container_state{{name=\"{name}\"}}")).is_none()
    });
    stage.agent.terminate();
}

#[test]
fn a_container_that_is_oom_killed_and_restarted_is_found_with_the_engines_own_timestamps() {
    let mut stage = Stage::set("oom");
    let options = ["--restart", "on-failure:1", "--memory", "8m", "--memory-swap", "8m"];
    let name = stage.engine.run("greedy", &options, &["sh", "-c", "sleep 0.5; tail /dev/zero"]);
    // A busy engine may tell of a kill after the end it led to.
    stage.engine.wait_for_events(&name, "oom", 2);
    let events = stage.engine.wait_for_events(&name, "die", 2);

    let kills: Vec<i64> = events.iter().filter(|event| event.action == "oom").map(|event| event.at_millis).collect();
    let deaths: Vec<i64> = events.iter().filter(|event| event.action == "die").map(|event| event.at_millis).collect();
    assert_eq!((kills.len(), deaths.len()), (2, 2), "{events:?}");
    for (count, (kill, death)) in (1u8..).zip(kills.iter().zip(&deaths)) {
        stage.expect("container_oom_events_total", &name, "", *kill, f64::from(count));
        stage.expect("container_exits_total", &name, ",class=\"oom\"", *death, f64::from(count));
    }
    stage.expect("container_last_exit_code", &name, "", deaths[0], 137.0);
    // The engine itself forgets all of it the moment it starts the container again.
    eventually("the restart is counted", || {
        stage.prometheus.value_now(&format!("container_restarts_total{{name=\"{name}\"}}")) == Some(1.0)
    });
    eventually("the engine's restart count is told", || {
        stage.prometheus.value_now(&format!("container_restart_count{{name=\"{name}\"}}")) == Some(1.0)
    });
    stage.agent.terminate();
}

#[test]
fn a_container_that_becomes_unhealthy_is_found_with_the_engines_own_timestamps() {
    let mut stage = Stage::set("health");
    let options = ["--health-cmd", "test ! -e /sick", "--health-interval", "1s", "--health-retries", "1"];
    let name = stage.engine.run("patient", &options, &["sleep", "1000"]);
    let healthy = at(&stage.engine.wait_for_event(&name, "health_status: healthy"), "health_status: healthy");
    stage.engine.exec(&name, &["sh", "-c", "echo > /sick"]);
    let unhealthy = at(&stage.engine.wait_for_event(&name, "health_status: unhealthy"), "health_status: unhealthy");

    stage.expect("container_health", &name, "", healthy, 1.0);
    stage.expect("container_health", &name, "", unhealthy, 2.0);
    stage.expect("container_health_transitions_total", &name, ",to=\"unhealthy\"", unhealthy, 1.0);
    stage.agent.terminate();
}

#[test]
fn a_paused_container_has_no_health_and_a_stopped_one_keeps_its_series() {
    let mut stage = Stage::set("pause");
    let options = ["--health-cmd", "true", "--health-interval", "1s"];
    let name = stage.engine.run("sleeper", &options, &["sleep", "1000"]);
    stage.engine.wait_for_event(&name, "health_status: healthy");
    stage.engine.docker(&["pause", &name]);
    let paused = at(&stage.engine.wait_for_event(&name, "pause"), "pause");
    stage.expect("container_state", &name, "", paused, 2.0);
    stage.expect("container_health", &name, "", paused, 0.0);

    stage.engine.docker(&["unpause", &name]);
    stage.engine.docker(&["kill", &name]);
    let died = at(&stage.engine.wait_for_event(&name, "die"), "die");
    stage.expect("container_state", &name, "", died, 0.0);
    assert_eq!(stage.prometheus.value_now(&format!("container_state{{name=\"{name}\"}}")), Some(0.0));
    stage.agent.terminate();
}
