//! Bodies that outhaul made, read by Google's protobuf for Python: it shares no code with ours, only `proto/`.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use outhaul::encode::{Compression, Encoder, Format, Message, Part};
use outhaul::model::{
    BucketCounts, BucketSpan, Exemplar, HistogramParts, HistogramSample, Labels, Metadata, MetricKind, NativeHistogram,
    Sample, Series, Snapshot, Timestamp, Value,
};
use serde_json::{Value as Json, json};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().fold(Labels::builder(), |builder, (name, value)| builder.with(*name, *value)).build().unwrap()
}

fn series(name: &'static str, kind: MetricKind) -> Arc<Series> {
    let mut metadata = Metadata::of(name, kind, "what it is");
    metadata.unit = "seconds".into();
    Arc::new(Series::new(labels(&[("__name__", name), ("zone", "é")]), Arc::new(metadata)))
}

/// Two instants: a counter with an exemplar that goes on, a gauge that ends, and a native histogram.
fn snapshots() -> [Snapshot; 2] {
    let (count, gauge) = (series("count_total", MetricKind::Counter), series("gauge", MetricKind::Gauge));
    let latency = series("latency", MetricKind::Histogram);
    let (first, second) = (Timestamp::from_millis(1_795_226_444_035), Timestamp::from_millis(1_795_226_454_035));
    let start = Timestamp::from_millis(1_795_226_000_000);
    let counted = |value| Sample::new(Arc::clone(&count), Value::new(value)).started(start);
    let gauged = |value| Sample::new(Arc::clone(&gauge), value);
    let mut snapshots = [
        Snapshot::new(first, vec![counted(1.5), gauged(Value::new(-0.0))]),
        Snapshot::new(second, vec![counted(2.0), gauged(Value::STALE)]),
    ];
    let parts = HistogramParts {
        counts: BucketCounts::Integer {
            count: 6,
            zero_count: 0,
            positive_deltas: vec![2, -1],
            negative_deltas: vec![3],
        },
        positive_spans: vec![BucketSpan { offset: -2, length: 1 }, BucketSpan { offset: 1, length: 1 }],
        negative_spans: vec![BucketSpan { offset: 4, length: 1 }],
        ..HistogramParts::integer(-3, 6, 0.5)
    };
    let histogram = Arc::new(NativeHistogram::new(parts).unwrap());
    snapshots[1].histograms.push(HistogramSample { series: latency, histogram, start: Some(start) });
    let trace = labels(&[("trace_id", "abc")]);
    snapshots[0].exemplars.push(Exemplar { series: count, labels: trace, value: Value::new(2.0), at: first });
    snapshots
}

fn ours(message: Message) -> Json {
    let format = Format { exemplars: true, native_histograms: true, ..Format::new(message, Compression::Snappy) };
    let snapshots = snapshots();
    let parts: Vec<Part> = snapshots.iter().map(Part::from).collect();
    let body = Encoder::new(Labels::empty(), None).encode(&parts, format);
    let unpacked = snap::raw::Decoder::new().decompress_vec(&body.bytes).unwrap();
    read_by_python(message, &unpacked)
}

/// A body, unpacked, as JSON.
pub(crate) fn read_by_python(message: Message, unpacked: &[u8]) -> Json {
    let proto = match message {
        Message::V1 => "proto/remote_write_v1.proto",
        Message::V2 => "proto/remote_write_v2.proto",
    };
    let mut python = Command::new("python3")
        .args(["tests/it/decoder/decode.py", proto, message.name()])
        // The package's compiled half is made for Debian's own interpreter, and this may be another.
        .env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(unpacked).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "python3 cannot read it; its words are above");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn bits(value: f64) -> String {
    value.to_bits().to_string()
}

/// The bits of a stale marker as a number.
pub(crate) const STALE: &str = "9218868437227405314"; // 0x7ff0000000000002

fn histogram() -> Json {
    json!({
        "count_int": "6", "sum": bits(0.5), "schema": -3, "zero_count_int": "0",
        "negative_spans": [{"offset": 4, "length": 1}], "negative_deltas": ["3"],
        "positive_spans": [{"offset": -2, "length": 1}, {"offset": 1, "length": 1}], "positive_deltas": ["2", "-1"],
        "timestamp": "1795226454035",
    })
}

#[test]
fn python_reads_our_version_1_bodies_as_they_were_meant() {
    let labels = |name: &str| json!([{"name": "__name__", "value": name}, {"name": "zone", "value": "é"}]);
    let expected = json!({"timeseries": [
        {
            "labels": labels("count_total"),
            "samples": [
                {"value": bits(1.5), "timestamp": "1795226444035"},
                {"value": bits(2.0), "timestamp": "1795226454035"},
            ],
            "exemplars": [{
                "labels": [{"name": "trace_id", "value": "abc"}], "value": bits(2.0), "timestamp": "1795226444035",
            }],
        },
        {
            "labels": labels("gauge"),
            "samples": [
                {"value": bits(-0.0), "timestamp": "1795226444035"}, {"value": STALE, "timestamp": "1795226454035"},
            ],
        },
        {"labels": labels("latency"), "histograms": [histogram()]},
    ]});
    assert_eq!(ours(Message::V1), expected);
}

#[test]
fn python_reads_our_version_2_bodies_as_they_were_meant() {
    let labels = |name: &str| json!(["__name__", name, "zone", "é"]);
    let metadata = |kind: &str| json!({"type": format!("METRIC_TYPE_{kind}"), "help": "what it is", "unit": "seconds"});
    let start = "1795226000000";
    let mut histogram = histogram();
    histogram["start_timestamp"] = start.into();
    let expected = json!({"timeseries": [
        {
            "labels": labels("count_total"),
            "samples": [
                {"value": bits(1.5), "timestamp": "1795226444035", "start_timestamp": start},
                {"value": bits(2.0), "timestamp": "1795226454035", "start_timestamp": start},
            ],
            "exemplars": [{"labels": ["trace_id", "abc"], "value": bits(2.0), "timestamp": "1795226444035"}],
            "metadata": metadata("COUNTER"),
        },
        {
            "labels": labels("gauge"),
            "samples": [
                {"value": bits(-0.0), "timestamp": "1795226444035"}, {"value": STALE, "timestamp": "1795226454035"},
            ],
            "metadata": metadata("GAUGE"),
        },
        {"labels": labels("latency"), "histograms": [histogram], "metadata": metadata("HISTOGRAM")},
    ]});
    assert_eq!(ours(Message::V2), expected);
}
