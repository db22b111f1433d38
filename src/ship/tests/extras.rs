//! Native histograms and exemplars: sent where they are asked for, told where they are not.

use super::table::{auto, taken};
use super::*;
use crate::encode::{self, Compression, DecodedSeries, Message};
use crate::model::{
    BucketCounts, BucketSpan, CUSTOM_BUCKETS_SCHEMA, Exemplar, HistogramParts, HistogramSample, NativeHistogram,
};

fn exponential() -> NativeHistogram {
    NativeHistogram::new(HistogramParts {
        counts: counts(3, vec![2, -1]),
        positive_spans: vec![BucketSpan { offset: -2, length: 2 }],
        ..HistogramParts::integer(3, 3, 18.4)
    })
    .unwrap()
}

fn custom() -> NativeHistogram {
    NativeHistogram::new(HistogramParts {
        counts: counts(3, vec![2, -1]),
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        custom_values: vec![Value::new(0.1), Value::new(1.0)],
        ..HistogramParts::integer(CUSTOM_BUCKETS_SCHEMA, 3, 2.5)
    })
    .unwrap()
}

fn counts(count: u64, positive_deltas: Vec<i64>) -> BucketCounts {
    BucketCounts::Integer { count, zero_count: 0, positive_deltas, negative_deltas: Vec::new() }
}

fn series(name: &str) -> Arc<Series> {
    let labels = Labels::builder().with("__name__", name).build().unwrap();
    Arc::new(Series::new(labels, Arc::new(Metadata::of("rpc_seconds", MetricKind::Histogram, "how long it took"))))
}

/// Two samples, the histogram, and an exemplar of the first sample and of the histogram.
fn rich(histogram: NativeHistogram) -> Snapshot {
    let of_histogram = series("rpc_seconds");
    let plain = snapshot(2);
    let exemplar = |series: &Arc<Series>, value| Exemplar {
        series: Arc::clone(series),
        labels: Labels::builder().with("trace_id", "4bf92f35").build().unwrap(),
        value: Value::new(value),
        at: NOW.minus(Duration::from_secs(1)),
    };
    Snapshot {
        exemplars: vec![exemplar(&plain.samples[0].series, 0.5), exemplar(&of_histogram, 0.25)],
        histograms: vec![HistogramSample { series: of_histogram, histogram: Arc::new(histogram), start: None }],
        ..plain
    }
}

fn everything(config: &mut RemoteWrite) {
    auto(config);
    (config.send_exemplars, config.send_native_histograms) = (true, true);
}

fn series_of(seen: &Seen, message: Message) -> Vec<DecodedSeries> {
    encode::decode(&seen.body, message, Compression::Snappy, 1 << 20).unwrap().series
}

#[tokio::test]
async fn histograms_and_exemplars_arrive_as_they_were_in_both_versions() {
    for (protocol, message) in [(config::Protocol::V1, Message::V1), (config::Protocol::V2, Message::V2)] {
        let change = move |config: &mut RemoteWrite| {
            everything(config);
            config.protocol = protocol;
        };
        let written = "X-Prometheus-Remote-Write-Samples-Written: 2\r\nX-Prometheus-Remote-Write-Histograms-Written: 1\r\n\
            X-Prometheus-Remote-Write-Exemplars-Written: 1\r\n";
        let says =
            move |_: &Seen| if message == Message::V2 { answer("204 No Content", written, "") } else { no_content() };
        let server = Server::start(says).await;
        let mut rig = Rig::start_with(server, change, vec![rich(exponential())]).await;
        let got = series_of(&rig.server.next().await, message);
        assert_eq!(got.iter().map(|series| series.samples.len()).sum::<usize>(), 2);
        let histograms: Vec<_> = got.iter().flat_map(|series| &series.histograms).collect();
        assert_eq!(histograms.len(), 1);
        assert_eq!((histograms[0].at, &histograms[0].histogram), (NOW, &exponential()));
        let exemplars: Vec<_> = got.iter().map(|series| series.exemplars.len()).collect();
        assert_eq!(exemplars, [1, 0, 1]);
        assert_eq!(rig.settled().await, delivered(3));
        for (name, value) in [
            ("samples_total", 2),
            ("histograms_total", 1),
            ("exemplars_total", 2),
            // A receiver of 2.0 says that it did not write one of them.
            ("exemplars_failed_total", i32::from(message == Message::V2)),
        ] {
            let name = format!("prometheus_remote_storage_{name}");
            assert_eq!(rig.metric(&name).to_bits(), f64::from(value).to_bits(), "{name}");
        }
    }
}

#[tokio::test]
async fn what_nobody_asked_for_is_not_sent_and_stands_in_the_account() {
    let mut rig = Rig::start_with(Server::start(taken).await, auto, vec![rich(exponential())]).await;
    let got = series_of(&rig.server.next().await, Message::V2);
    assert!(got.iter().all(|series| series.histograms.is_empty() && series.exemplars.is_empty()));
    assert_eq!(rig.settled().await, Ledger { filtered: 1, delivered: 2, appended: 3, ..Ledger::default() });
    assert_eq!(rig.metric("prometheus_remote_storage_histograms_dropped_total").to_bits(), 1.0_f64.to_bits());
    assert_eq!(rig.metric("prometheus_remote_storage_exemplars_dropped_total").to_bits(), 2.0_f64.to_bits());
}

#[tokio::test]
async fn custom_buckets_are_lost_to_a_receiver_of_version_1_and_the_rest_is_not() {
    let change = |config: &mut RemoteWrite| {
        everything(config);
        config.protocol = config::Protocol::V1;
    };
    let mut rig = Rig::start_with(Server::start(taken).await, change, vec![rich(custom())]).await;
    let got = series_of(&rig.server.next().await, Message::V1);
    assert_eq!(got.iter().map(|series| series.samples.len()).sum::<usize>(), 2);
    assert_eq!(rig.settled().await, Ledger { refused: 1, delivered: 2, appended: 3, ..Ledger::default() });
}

#[tokio::test]
async fn a_refused_histogram_goes_to_the_quarantine_whole() {
    let server = Server::start(|_| status("400 Bad Request"));
    let change = |config: &mut RemoteWrite| {
        everything(config);
        config.protocol = config::Protocol::V1;
    };
    let rig = Rig::start_with(server.await, change, vec![rich(exponential())]).await;
    assert_eq!(rig.settled().await, Ledger { refused: 3, appended: 3, ..Ledger::default() });
    let Rig { _directory: directory, .. } = &rig;
    let inspection = crate::buffer::inspect::Inspection::open(directory.path()).unwrap();
    let files = inspection.quarantine().unwrap();
    let kept = &files[0].content.as_ref().unwrap().snapshots;
    assert_eq!(kept, &[rich(exponential())]);
}

#[tokio::test]
async fn a_partial_write_is_counted_by_kind() {
    let written = "X-Prometheus-Remote-Write-Samples-Written: 2\r\n";
    let server = Server::start(move |_| answer("400 Bad Request", written, "out of order sample"));
    let rig = Rig::start_with(server.await, everything, vec![rich(exponential())]).await;
    assert_eq!(rig.settled().await, Ledger { refused: 1, delivered: 2, appended: 3, ..Ledger::default() });
    for (kind, failed) in [("samples", 0.0_f64), ("histograms", 1.0), ("exemplars", 2.0)] {
        let name = format!("prometheus_remote_storage_{kind}_failed_total");
        assert_eq!(rig.metric(&name).to_bits(), failed.to_bits(), "{name}");
    }
}
