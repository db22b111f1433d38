//! Which version of remote-write is spoken, found out by sending, and nothing lost in finding out.

use super::{Stage, assert_same, endpoint, of_way};
use crate::bed::{Nginx, Prometheus, PrometheusOptions, Site, VictoriaMetrics, eventually};

/// The help text of `outhaul_up`, which only 2.0 brings along with samples.
const HELP: &str = "Always 1: alert when it is absent.";

#[test]
fn every_receiver_is_spoken_to_in_what_it_takes_and_loses_nothing() {
    let (new, old) = (Prometheus::start_3(), Prometheus::start(PrometheusOptions::default()));
    assert!(new.version().starts_with("3.") && old.version().starts_with("2."), "{} {}", new.version(), old.version());
    let (newer, victoria) = (VictoriaMetrics::start_newer(), VictoriaMetrics::start());
    let mut stage = Stage::start(
        "1s",
        &[
            endpoint("new", &new.write_url(), ""),
            endpoint("new-v1", &new.write_url(), ", protobuf_message: prometheus.WriteRequest"),
            endpoint("old", &old.write_url(), ""),
            endpoint("victoria", &victoria.url("/api/v1/write"), ""),
            endpoint("victoria-zstd", &victoria.url("/api/v1/write"), ", compression: zstd"),
            endpoint("newer", &newer.url("/api/v1/write"), ""),
            endpoint("newer-zstd", &newer.url("/api/v1/write"), ", compression: zstd"),
        ],
    );
    stage.wait_until_version("new", 2.0);
    stage.wait_until_version("new-v1", 1.0);
    for fallback in ["old", "victoria", "newer"] {
        stage.expect_to_say(fallback, &["may not understand the format"]);
        stage.expect_to_say(
            fallback,
            &["receiver takes this format", "message=prometheus.WriteRequest", "compression=snappy"],
        );
    }
    // The version in Debian stable is older than the variant with zstd, and says so.
    stage.expect_to_say(
        "victoria-zstd",
        &["receiver takes this format", "message=prometheus.WriteRequest", "compression=snappy"],
    );
    stage.expect_to_say(
        "newer-zstd",
        &["receiver takes this format", "message=prometheus.WriteRequest", "compression=zstd"],
    );
    stage.recorder.wait_for_ticks(6);
    stage.wait_until_drained(&new, &["new", "new-v1"]);
    stage.wait_until_drained(&old, &["old"]);
    stage.assert_balanced(&["new", "new-v1", "old", "victoria", "victoria-zstd", "newer", "newer-zstd"]);
    stage.agent.terminate();

    let taken = stage.recorder.samples();
    let ended = stage.recorder.stale_marks(&[]);
    let (at_new, at_old) = (new.all_samples(), old.all_samples());
    assert_same("new", &taken, &of_way(&at_new, "new"));
    assert_same("new-v1", &taken, &of_way(&at_new, "new-v1"));
    assert_same("old", &taken, &of_way(&at_old, "old"));
    let ways = [("victoria", &victoria), ("victoria-zstd", &victoria), ("newer", &newer), ("newer-zstd", &newer)];
    for (way, victoria) in ways {
        let numbers = taken.values().flatten().map(|(at, value)| (*at, value.parse().unwrap()));
        // `VictoriaMetrics` hands out stale markers as well; the others do not.
        let expected = sorted(numbers.chain(ended.iter().map(|at| (*at, f64::NAN))));
        let mut stored = Vec::new();
        eventually(&format!("every sample of {way} is searchable"), || {
            stored = sorted(victoria.export(&format!("{{way=\"{way}\"}}")).into_iter());
            stored.len() >= expected.len()
        });
        assert_eq!(stored.len(), expected.len(), "{way}");
        for ((at, value), (expected_at, expected_value)) in stored.iter().zip(&expected) {
            assert_eq!(at, expected_at, "{way}");
            let near = (value - expected_value).abs() <= ROUNDED * expected_value.abs();
            assert!(near || (value.is_nan() && expected_value.is_nan()), "{way} at {at}: {value} for {expected_value}");
        }
    }
}

/// `VictoriaMetrics` keeps decimal numbers, so the last digits of others are rounded.
const ROUNDED: f64 = 1e-9;

/// Samples without their series, which the export does not name.
fn sorted(samples: impl Iterator<Item = (i64, f64)>) -> Vec<(i64, f64)> {
    let mut samples: Vec<(i64, f64)> = samples.collect();
    samples.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    samples
}

#[test]
fn a_receiver_that_is_replaced_by_an_older_one_gets_what_it_takes_and_nothing_is_lost_between_them() {
    let (new, old) = (Prometheus::start_3(), Prometheus::start(PrometheusOptions::default()));
    let site = Site::new();
    let to =
        |server: &Prometheus| site.plain(&format!("location / {{ proxy_pass http://127.0.0.1:{}; }}", server.port()));
    let nginx = Nginx::start(&to(&new), site.port);
    let mut stage = Stage::start("1s", &[endpoint("way", &site.url("/api/v1/write"), "")]);
    stage.wait_until_version("way", 2.0);
    stage.recorder.wait_for_ticks(3);
    stage.wait_until_drained(&new, &["way"]);
    assert!(new.log_holds(HELP), "2.0 brings the help texts, and nothing else was spoken here");

    nginx.reload(&to(&old));
    stage.expect_to_say("way", &["receiver takes this format", "message=prometheus.WriteRequest"]);
    let ticks = stage.recorder.ticks().len();
    stage.recorder.wait_for_ticks(ticks + 2);
    stage.wait_until_drained(&old, &["way"]);
    stage.assert_balanced(&["way"]);
    stage.agent.terminate();
    let mut both = of_way(&new.all_samples(), "way");
    for (series, samples) in of_way(&old.all_samples(), "way") {
        let before = both.entry(series).or_default();
        for (at, value) in samples {
            assert_eq!(before.insert(at, value), None, "nothing is sent to both");
        }
    }
    assert_same("way", &stage.recorder.samples(), &both);
}
