//! What shipping counts.
//!
//! Names, labels and meanings of `prometheus_remote_storage_*` are those of Prometheus' queue manager
//! (`storage/remote/queue_manager.go`, 3.x), so that stock dashboards and alerts work; as there, an attempt counts, so
//! `samples_total` holds retries too. What became of every single sample is told by the buffer's ledger.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec};

use crate::clock::{Skew, SkewMetric};
use crate::telemetry::Registry;

const LABELS: [&str; 2] = ["remote_name", "url"];
/// Those of Prometheus' `sent_batch_duration_seconds`.
const DURATION_BUCKETS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0];

/// The families, registered once.
#[derive(Clone)]
pub struct Metrics {
    samples: IntCounterVec,
    samples_failed: IntCounterVec,
    samples_retried: IntCounterVec,
    samples_dropped: IntCounterVec,
    bytes: IntCounterVec,
    metadata: IntCounterVec,
    metadata_failed: IntCounterVec,
    metadata_dropped: IntCounterVec,
    metadata_bytes: IntCounterVec,
    learnt: Learnt,
    skew: SkewMetric,
    constants: Constants,
    duration: HistogramVec,
    highest_sent: GaugeVec,
    up: GaugeVec,
    requests: IntCounterVec,
    pushes: IntCounterVec,
    engaged: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// Registers them.
    ///
    /// # Panics
    /// When called twice for one registry.
    pub fn register(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str| registry.counters(name, help, &LABELS);
        let with = |label| [LABELS[0], LABELS[1], label];
        Self {
            samples: counters("prometheus_remote_storage_samples_total", "Samples sent, each attempt counted."),
            samples_failed: counters(
                "prometheus_remote_storage_samples_failed_total",
                "Samples the receiver refused; they are not sent again.",
            ),
            samples_retried: counters(
                "prometheus_remote_storage_samples_retried_total",
                "Samples sent again after a failure that may pass.",
            ),
            samples_dropped: registry.counters(
                "prometheus_remote_storage_samples_dropped_total",
                "Samples given up before sending, by reason.",
                &with("reason"),
            ),
            bytes: counters(
                "prometheus_remote_storage_bytes_total",
                "Bytes of sample requests that were settled, compressed.",
            ),
            metadata: counters("prometheus_remote_storage_metadata_total", "Metadata entries sent."),
            metadata_failed: counters(
                "prometheus_remote_storage_metadata_failed_total",
                "Metadata entries the receiver did not take.",
            ),
            metadata_dropped: counters(
                "outhaul_metadata_dropped_total",
                "Samples whose family is sent without metadata because too many families are known.",
            ),
            metadata_bytes: counters(
                "prometheus_remote_storage_metadata_bytes_total",
                "Bytes of metadata requests, compressed.",
            ),
            learnt: Learnt::register(registry),
            skew: SkewMetric::register(registry),
            constants: Constants::register(registry),
            duration: registry.histograms(
                "prometheus_remote_storage_sent_batch_duration_seconds",
                "Time from sending a request of samples to its answer.",
                &DURATION_BUCKETS,
                &LABELS,
            ),
            highest_sent: registry.gauges(
                "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
                "Instant of the newest sample that was settled.",
                &LABELS,
            ),
            up: registry.gauges(
                "outhaul_endpoint_up",
                "Whether the endpoint's last answer settled what was sent (1) or not (0).",
                &LABELS,
            ),
            requests: registry.counters(
                "outhaul_requests_total",
                "Remote-write requests by status, or by what failed where there was no answer.",
                &with("code"),
            ),
            pushes: registry.counters(
                "outhaul_pushgateway_pushes_total",
                "Requests to the Pushgateway by status, or by what failed where there was no answer.",
                &["code"],
            ),
            engaged: registry.gauge(
                "outhaul_pushgateway_engaged",
                "Whether the present is shown on the Pushgateway (1) or not (0).",
            ),
        }
    }

    /// The handles of one endpoint; `url` is masked.
    pub(super) fn endpoint(&self, remote_name: &str, url: &str) -> EndpointMetrics {
        let labels = [remote_name, url];
        let dropped = |reason| self.samples_dropped.with_label_values(&[remote_name, url, reason]);
        self.constants.show(&labels);
        EndpointMetrics {
            metadata_bytes: self.metadata_bytes.with_label_values(&labels),
            poisoned: self.learnt.poisoned.with_label_values(&labels),
            misunderstood: self.learnt.misunderstood.with_label_values(&labels),
            version: self.learnt.version.with_label_values(&labels),
            max_samples_per_send: self.learnt.max_samples_per_send.with_label_values(&labels),
            skew: self.skew.of(remote_name),
            dropped_by_relabelling: dropped("dropped_series"),
            dropped_duplicates: dropped("duplicate"),
            samples: self.samples.with_label_values(&labels),
            samples_failed: self.samples_failed.with_label_values(&labels),
            samples_retried: self.samples_retried.with_label_values(&labels),
            dropped_too_old: dropped("too_old"),
            dropped_invalid_name: dropped("invalid_name"),
            bytes: self.bytes.with_label_values(&labels),
            metadata: self.metadata.with_label_values(&labels),
            metadata_failed: self.metadata_failed.with_label_values(&labels),
            metadata_dropped: self.metadata_dropped.with_label_values(&labels),
            duration: self.duration.with_label_values(&labels),
            highest_sent: self.highest_sent.with_label_values(&labels),
            up: self.up.with_label_values(&labels),
            requests: self.requests.clone(),
            labels: labels.map(str::to_owned),
        }
    }

    /// The handles of the Pushgateway.
    pub(super) fn pushgateway(&self) -> PushgatewayMetrics {
        PushgatewayMetrics { pushes: self.pushes.clone(), engaged: self.engaged.clone() }
    }
}

/// What was found out about receivers.
#[derive(Clone)]
struct Learnt {
    poisoned: IntCounterVec,
    misunderstood: IntCounterVec,
    version: GaugeVec,
    max_samples_per_send: GaugeVec,
}

impl Learnt {
    fn register(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str| registry.counters(name, help, &LABELS);
        Self {
            poisoned: counters(
                "outhaul_poisoned_samples_total",
                "Samples given up because the receiver failed on them alone; they are in the quarantine.",
            ),
            misunderstood: counters(
                "outhaul_protocol_fallbacks_total",
                "Times that a receiver did not understand a request and was sent the same in another format.",
            ),
            version: registry.gauges(
                "outhaul_protocol_version",
                "Version of remote-write in which samples were last taken, 1 or 2.",
                &LABELS,
            ),
            max_samples_per_send: registry.gauges(
                "prometheus_remote_storage_max_samples_per_send",
                "The most samples of one request now: as configured, or as the receiver takes.",
                &LABELS,
            ),
        }
    }
}

/// What Prometheus' dashboards and alerts ask for and is always the same here: one request is in flight, so there is one
/// shard; samples wait on disk and not in a shard; and of what outhaul does not send, nothing is sent.
#[derive(Clone, Debug)]
struct Constants {
    ones: Vec<GaugeVec>,
    zeros: Vec<IntCounterVec>,
    none_pending: Vec<GaugeVec>,
}

impl Constants {
    fn register(registry: &Registry) -> Self {
        let gauge =
            |name: &str, help: &str| registry.gauges(&format!("prometheus_remote_storage_{name}"), help, &LABELS);
        let shards = ["shards", "shards_min", "shards_max", "shards_desired"];
        let mut ones: Vec<GaugeVec> =
            shards.map(|name| gauge(name, "Always 1: one request is in flight for an endpoint.")).into();
        ones.push(gauge("shard_capacity", "Always 1: samples wait in the buffer on disk, one request in memory."));
        let zero =
            |name: &str, help: &str| registry.counters(&format!("prometheus_remote_storage_{name}"), help, &LABELS);
        let mut zeros = Vec::new();
        for kind in ["exemplars", "histograms"] {
            for what in ["", "_failed", "_retried"] {
                zeros.push(zero(&format!("{kind}{what}_total"), "Always 0: none are sent yet."));
            }
        }
        zeros.push(zero(
            "metadata_retried_total",
            "Always 0: metadata that failed is sent with all the rest next time.",
        ));
        zeros.push(zero("enqueue_retries_total", "Always 0: there is no queue in memory that could be full."));
        let none_pending =
            ["exemplars_pending", "histograms_pending"].map(|name| gauge(name, "Always 0: none are sent yet.")).into();
        Self { ones, zeros, none_pending }
    }

    fn show(&self, labels: &[&str; 2]) {
        for gauge in &self.ones {
            gauge.with_label_values(labels).set(1.0);
        }
        for counter in &self.zeros {
            counter.with_label_values(labels);
        }
        for gauge in &self.none_pending {
            gauge.with_label_values(labels);
        }
    }
}

/// One endpoint's handles.
pub(super) struct EndpointMetrics {
    pub(super) metadata_bytes: IntCounter,
    pub(super) poisoned: IntCounter,
    pub(super) misunderstood: IntCounter,
    pub(super) version: Gauge,
    pub(super) max_samples_per_send: Gauge,
    pub(super) skew: Skew,
    pub(super) dropped_by_relabelling: IntCounter,
    pub(super) dropped_duplicates: IntCounter,
    pub(super) samples: IntCounter,
    pub(super) samples_failed: IntCounter,
    pub(super) samples_retried: IntCounter,
    pub(super) dropped_too_old: IntCounter,
    pub(super) dropped_invalid_name: IntCounter,
    pub(super) bytes: IntCounter,
    pub(super) metadata: IntCounter,
    pub(super) metadata_failed: IntCounter,
    pub(super) metadata_dropped: IntCounter,
    pub(super) duration: Histogram,
    pub(super) highest_sent: Gauge,
    pub(super) up: Gauge,
    requests: IntCounterVec,
    labels: [String; 2],
}

impl std::fmt::Debug for EndpointMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EndpointMetrics").field("labels", &self.labels).finish_non_exhaustive()
    }
}

impl EndpointMetrics {
    /// Counts a request by its `code`, which is one of a bounded set.
    pub(super) fn request(&self, code: &str) {
        self.requests.with_label_values(&[&self.labels[0], &self.labels[1], code]).inc();
    }
}

/// The Pushgateway's handles.
#[derive(Debug)]
pub(super) struct PushgatewayMetrics {
    pub(super) pushes: IntCounterVec,
    pub(super) engaged: Gauge,
}
