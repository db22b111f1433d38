//! The present on a real Pushgateway: while remote-write is stalled, and for runners without it.

use crate::bed::{Agent, Engine, Prometheus, PrometheusOptions, Pushgateway, eventually};

#[test]
fn the_gateway_shows_the_present_during_an_outage_and_its_group_is_gone_after_recovery() {
    let engine = Engine::get("fallback");
    let name = engine.run("till", &[], &["sleep", "1000"]);
    let mut prometheus = Prometheus::start(PrometheusOptions::default());
    let gateway = Pushgateway::start();
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{site: north, instance: roof/3}}}}\n\
         docker: [{{include: {{labels: [\"{}\"]}}}}]\n\
         remote_write: [{{name: p, url: \"{}\", queue_config: {{min_backoff: 100ms, max_backoff: 500ms}}}}]\n\
         pushgateway: {{url: \"{}\", after: 2s}}\n",
        engine.label(),
        prometheus.write_url(),
        gateway.url(),
    ));
    eventually("samples arrive", || prometheus.value_now(&format!("container_state{{name=\"{name}\"}}")) == Some(1.0));
    assert_eq!(gateway.groups(), 0, "nothing is pushed while all is well");

    prometheus.stop();
    let shown = |value: &str| {
        let text = gateway.metrics_text();
        text.lines().any(|line| {
            line.starts_with("container_state{")
                && [
                    format!("name=\"{name}\""),
                    "via=\"pushgateway\"".into(),
                    "instance=\"roof/3\"".into(),
                    "site=\"north\"".into(),
                ]
                .iter()
                .all(|label| line.contains(label.as_str()))
                && line.ends_with(value)
        })
    };
    eventually("the gateway shows the container running", || shown(" 1"));
    engine.docker(&["kill", &name]);
    eventually("the gateway shows the container exited", || shown(" 0"));
    engine.docker(&["rm", &name]);
    eventually("a removed container vanishes from the gateway", || {
        !gateway.metrics_text().contains(&format!("container_state{{container_name=\"{name}\""))
    });

    prometheus.start_again();
    eventually("the group is deleted", || gateway.groups() == 0);
    agent.terminate();
}

#[test]
fn a_runner_without_remote_write_pushes_always_and_cleans_up_when_stopped() {
    let engine = Engine::get("always");
    let name = engine.run("job", &[], &["sleep", "1000"]);
    let gateway = Pushgateway::start();
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: runner}}}}\n\
         docker: [{{include: {{labels: [\"{}\"]}}}}]\n\
         pushgateway: {{url: \"{}\", mode: always}}\n",
        engine.label(),
        gateway.url(),
    ));
    eventually("the gateway shows the job", || gateway.metrics_text().contains(&format!("name=\"{name}\"")));
    agent.terminate();
    eventually("the group is deleted", || gateway.groups() == 0);
}
