//! What a proxy in front of a receiver answers on a bad day: everything arrives in the end.

use super::{Stage, assert_same, endpoint, of_way};
use crate::bed::{Nginx, Prometheus, PrometheusOptions, Site, free_port};

const WAYS: [&str; 5] = ["small", "limited", "down", "moved-307", "moved-308"];

#[test]
fn what_a_proxy_answers_on_a_bad_day_costs_nothing() {
    let prometheus = Prometheus::start(PrometheusOptions::default());
    let site = Site::new();
    let pass = |port: u16| format!("proxy_pass http://127.0.0.1:{port}/api/v1/write;");
    let rules = |limited: &str, down: &str| {
        let good = pass(prometheus.port());
        site.plain(&format!(
            "location = /small {{ client_max_body_size 900; {good} }}\n\
             location = /limited {{ {limited} }}\nlocation = /down {{ {down} }}\n\
             location = /moved-307 {{ return 307 /receiver; }}\nlocation = /moved-308 {{ return 308 /receiver; }}\n\
             location = /receiver {{ {good} }}\n"
        ))
    };
    let bad = rules("add_header Retry-After 2 always; return 429;", &pass(free_port()));
    let nginx = Nginx::start(&bad, site.port);
    let endpoints = WAYS.map(|way| endpoint(way, &site.url(&format!("/{way}")), ""));
    let mut stage = Stage::start("1s", &endpoints);

    stage.expect_to_say("small", &["level=warn", "status 413", "request too large; sending smaller ones"]);
    stage.expect_to_say("limited", &["level=warn", "status 429", "samples are kept", "wait=2."]);
    stage.expect_to_say("down", &["level=warn", "status 502", "samples are kept"]);
    stage.recorder.wait_for_ticks(5);
    // Redirects on the same host are followed, and what is too large is made smaller, without anybody's help.
    stage.wait_until_drained(&prometheus, &["small", "moved-307", "moved-308"]);
    for way in ["limited", "down"] {
        assert_eq!(stage.fate(way, "delivered"), 0.0, "{way}");
    }
    stage.assert_balanced(&WAYS);

    nginx.reload(&rules(&pass(prometheus.port()), &pass(prometheus.port())));
    stage.wait_until_drained(&prometheus, &WAYS);
    stage.assert_balanced(&WAYS);
    stage.agent.terminate();
    let requests = nginx.requests();
    let count = |start: &str| requests.iter().filter(|line| line.starts_with(start)).count();
    assert!(count("POST /small 413") > 0 && count("POST /moved-307 307") > 0 && count("POST /moved-308 308") > 0);
    assert!(count("POST /limited 429") <= 6, "what Retry-After asks for is given: {requests:#?}");
    let (taken, answered) = (stage.recorder.samples(), prometheus.all_samples());
    for way in WAYS {
        assert_same(way, &taken, &of_way(&answered, way));
    }
}
