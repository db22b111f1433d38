//! Several endpoints at once, each with its own protocol, relabelling and fate.

use super::{Stage, assert_same, endpoint, of_way};
use crate::bed::{Prometheus, PrometheusOptions, Samples, free_port};

#[test]
fn endpoints_know_nothing_of_each_other() {
    let (all, some) = (Prometheus::start_3(), Prometheus::start(PrometheusOptions::default()));
    let dead = format!("http://127.0.0.1:{}/api/v1/write", free_port());
    let rules = "[{source_labels: [__name__], regex: 'outhaul_(up|ledger_.*)', action: keep}, \
                 {source_labels: [fate], regex: 'evicted_.*', action: drop}, \
                 {source_labels: [instance], regex: '(.*)', target_label: host, replacement: 'roof-$1'}, \
                 {target_label: way, replacement: some}]";
    let some_endpoint =
        format!("{{name: some, url: \"{}\", protocol: v1, write_relabel_configs: {rules}}}", some.write_url());
    let mut stage = Stage::start(
        "1s",
        &[endpoint("all", &all.write_url(), ", protocol: v2"), some_endpoint, endpoint("dead", &dead, "")],
    );
    stage.recorder.wait_for_ticks(14);
    stage.wait_until_drained(&all, &["all"]);
    stage.wait_until_drained(&some, &["some"]);
    stage.assert_balanced(&["all", "some", "dead"]);
    assert_eq!((stage.fate("all", "filtered"), stage.fate("dead", "delivered")), (0.0, 0.0));
    assert!(stage.fate("some", "filtered") > stage.fate("some", "delivered"), "most is left out on purpose");
    assert_eq!(stage.agent.metric("outhaul_endpoint_up", &[("remote_name", "dead")]), Some(0.0));
    stage.agent.terminate();

    let taken = stage.recorder.samples();
    assert_same("all", &taken, &of_way(&all.all_samples(), "all"));
    assert_same("some", &kept(&taken), &of_way(&some.all_samples(), "some"));
}

/// What the rules above make of samples, said in another way.
fn kept(samples: &Samples) -> Samples {
    let is_kept = |series: &str| {
        (series.contains("__name__=\"outhaul_up\"") || series.contains("__name__=\"outhaul_ledger_"))
            && !series.contains("fate=\"evicted_")
    };
    let renamed = |series: &str| series.replace("instance=\"it\"", "host=\"roof-it\",instance=\"it\"");
    samples
        .iter()
        .filter(|(series, _)| is_kept(series))
        .map(|(series, points)| (renamed(series), points.clone()))
        .collect()
}
