//! Native histograms and exemplars out of a buffer, into a real Prometheus, in both versions of remote-write.

use std::sync::Arc;
use std::time::Duration;

use outhaul::buffer::Buffer;
use outhaul::clock::Clock;
use outhaul::model::{
    BucketCounts, BucketSpan, CUSTOM_BUCKETS_SCHEMA, Exemplar, HistogramParts, HistogramSample, Labels, Metadata,
    MetricKind, NativeHistogram, Sample, Series, Snapshot, Timestamp, Value,
};
use serde_json::Value as Json;

use crate::bed::{Prometheus, buffer_options, eventually, get, outhaul};

const TICKS: u64 = 3;

#[test]
fn histograms_and_exemplars_arrive_in_a_real_prometheus_as_they_were_buffered() {
    let now = Clock::system().now();
    for (version, custom_arrive) in [("v1", false), ("v2", true)] {
        let prometheus = Prometheus::start_3();
        let directory = tempfile::tempdir().unwrap();
        fill(&directory.path().join("buffer"), now);
        let config = format!(
            "buffer: {{path: {}}}\nremote_write:\n- {{name: here, url: \"{}\", protocol: {version}, send_exemplars: true, \
             send_native_histograms: true}}\n",
            directory.path().join("buffer").display(),
            prometheus.write_url()
        );
        let file = directory.path().join("outhaul.yml");
        std::fs::write(&file, config).unwrap();
        let output = outhaul().args(["buffer", "drain", "--json", "--config.file"]).arg(&file).output().unwrap();
        let told: Json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let (of_tick, refused) = if custom_arrive { (3, 0) } else { (2, TICKS) };
        assert_eq!(
            (&told["endpoints"][0]["delivered"], &told["endpoints"][0]["refused"]),
            (&(of_tick * TICKS).into(), &refused.into())
        );

        let value = |expression: &str| prometheus.value_now(expression);
        assert_eq!(value("rpc_requests_total"), Some(3.0));
        assert_eq!(value("histogram_count(rpc_seconds)"), Some(13.0), "{version}");
        assert_eq!(value("histogram_sum(rpc_seconds)"), Some(18.5));
        // Every bucket stands where it was: 2^(1/8) is the factor of schema 3.
        assert_eq!(value("round(histogram_fraction(0, 1, rpc_seconds) * 13, 0.001)"), Some(9.0));
        assert_eq!(value("count_over_time(rpc_seconds[5m])"), Some(TICKS as f64));
        assert_eq!(value("histogram_count(rpc_custom_seconds)"), custom_arrive.then_some(3.0));
        eventually("the exemplar is found", || exemplars(&prometheus, now).len() == 1);
        let exemplar = &exemplars(&prometheus, now)[0];
        assert_eq!((&exemplar["labels"]["trace_id"], &exemplar["value"]), (&"4bf92f35".into(), &"0.25".into()));
    }
}

fn exemplars(prometheus: &Prometheus, now: Timestamp) -> Vec<Json> {
    let (from, to) = (now.seconds() - 600.0, now.seconds() + 600.0);
    let url = prometheus.url(&format!("/api/v1/query_exemplars?query=rpc_requests_total&start={from}&end={to}"));
    let answer: Json = serde_json::from_str(&get(&url).unwrap()).unwrap();
    let series = answer["data"].as_array().unwrap();
    series.iter().flat_map(|series| series["exemplars"].as_array().unwrap().clone()).collect()
}

/// Three ticks, a second apart, the last of them now.
fn fill(path: &std::path::Path, now: Timestamp) {
    let options = buffer_options(path, &["here"]);
    let (requests, seconds, custom) = (
        series("rpc_requests_total", MetricKind::Counter),
        series("rpc_seconds", MetricKind::Histogram),
        series("rpc_custom_seconds", MetricKind::Histogram),
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let buffer = Buffer::open(options).unwrap();
        for tick in 1..=TICKS {
            let at = now.minus(Duration::from_secs(TICKS - tick));
            let histogram = |series: &Arc<Series>, histogram| HistogramSample {
                series: Arc::clone(series),
                histogram: Arc::new(NativeHistogram::new(histogram).unwrap()),
                start: None,
            };
            let exemplar = Exemplar {
                series: Arc::clone(&requests),
                labels: Labels::builder().with("trace_id", "4bf92f35").build().unwrap(),
                value: Value::new(0.25),
                at: now.minus(Duration::from_secs(TICKS)),
            };
            let snapshot = Snapshot {
                histograms: vec![histogram(&seconds, exponential(tick)), histogram(&custom, custom_buckets())],
                exemplars: vec![exemplar],
                ..Snapshot::new(at, vec![Sample::new(Arc::clone(&requests), Value::new(tick as f64))])
            };
            buffer.append(snapshot).await.unwrap();
        }
        buffer.close().await;
    });
}

fn series(name: &'static str, kind: MetricKind) -> Arc<Series> {
    let labels = Labels::builder().with("__name__", name).with("job", "it").build().unwrap();
    Arc::new(Series::new(labels, Arc::new(Metadata::of(name, kind, "for a test"))))
}

/// Nine observations up to 1 and four above, of which one more each tick.
fn exponential(tick: u64) -> HistogramParts {
    HistogramParts {
        counts: BucketCounts::Integer {
            count: 10 + tick,
            zero_count: 1,
            positive_deltas: vec![5, -2, tick.cast_signed() - 2],
            negative_deltas: Vec::new(),
        },
        positive_spans: vec![BucketSpan { offset: -1, length: 2 }, BucketSpan { offset: 3, length: 1 }],
        zero_threshold: Value::new(0.001),
        ..HistogramParts::integer(3, 10 + tick, 18.5)
    }
}

fn custom_buckets() -> HistogramParts {
    HistogramParts {
        counts: BucketCounts::Integer {
            count: 3,
            zero_count: 0,
            positive_deltas: vec![2, -1],
            negative_deltas: Vec::new(),
        },
        positive_spans: vec![BucketSpan { offset: 0, length: 2 }],
        custom_values: vec![Value::new(0.1), Value::new(1.0)],
        ..HistogramParts::integer(CUSTOM_BUCKETS_SCHEMA, 3, 2.5)
    }
}
