//! What shipping counts.
//!
//! Names, labels and meanings of `prometheus_remote_storage_*` are those of Prometheus' queue manager
//! (`storage/remote/queue_manager.go`, 3.x), so that stock dashboards and alerts work; as there, an attempt counts, so
//! `samples_total` holds retries too. What became of every single sample is told by the buffer's ledger.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec};

use crate::clock::{Skew, SkewMetric};
use crate::encode::Tally;
use crate::telemetry::Registry;

const LABELS: [&str; 2] = ["remote_name", "url"];
/// Those of Prometheus' `sent_batch_duration_seconds`.
const DURATION_BUCKETS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0];

/// The families, registered once.
#[derive(Clone)]
pub struct Metrics {
    sent: PerKind<IntCounterVec>,
    failed: PerKind<IntCounterVec>,
    retried: PerKind<IntCounterVec>,
    dropped: PerKind<IntCounterVec>,
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
            sent: PerKind::register("", "sent, each attempt counted", counters),
            failed: PerKind::register("_failed", "the receiver refused; they are not sent again", counters),
            retried: PerKind::register("_retried", "sent again after a failure that may pass", counters),
            dropped: PerKind::register("_dropped", "given up before sending, by reason", |name, help| {
                registry.counters(name, help, &with("reason"))
            }),
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
        self.constants.show(&labels);
        for reason in Dropped::ALWAYS_SHOWN {
            self.dropped.samples.with_label_values(&[remote_name, url, reason.word()]);
        }
        EndpointMetrics {
            metadata_bytes: self.metadata_bytes.with_label_values(&labels),
            poisoned: self.learnt.poisoned.with_label_values(&labels),
            misunderstood: self.learnt.misunderstood.with_label_values(&labels),
            version: self.learnt.version.with_label_values(&labels),
            max_samples_per_send: self.learnt.max_samples_per_send.with_label_values(&labels),
            skew: self.skew.of(remote_name),
            sent: self.sent.with(&labels),
            failed: self.failed.with(&labels),
            retried: self.retried.with(&labels),
            dropped: self.dropped.clone(),
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
/// shard, and samples wait on disk and not in a shard.
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
        let zeros = vec![
            zero("metadata_retried_total", "Always 0: metadata that failed is sent with all the rest next time."),
            zero("enqueue_retries_total", "Always 0: there is no queue in memory that could be full."),
        ];
        let none_pending = vec![
            gauge("exemplars_pending", "Always 0: exemplars wait with their samples."),
            gauge("histograms_pending", "Always 0: native histograms that wait are counted as samples."),
        ];
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
    pub(super) sent: PerKind<IntCounter>,
    pub(super) failed: PerKind<IntCounter>,
    pub(super) retried: PerKind<IntCounter>,
    pub(super) bytes: IntCounter,
    pub(super) metadata: IntCounter,
    pub(super) metadata_failed: IntCounter,
    pub(super) metadata_dropped: IntCounter,
    pub(super) duration: Histogram,
    pub(super) highest_sent: Gauge,
    pub(super) up: Gauge,
    dropped: PerKind<IntCounterVec>,
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

    /// Counts what is given up before sending.
    pub(super) fn dropped(&self, reason: Dropped, tally: Tally) {
        self.dropped.each(tally, |counters, count| {
            // A reason is shown from its first time on, so that kinds that nobody sends do not fill the list.
            if count > 0 {
                counters.with_label_values(&[&self.labels[0], &self.labels[1], reason.word()]).inc_by(count);
            }
        });
    }
}

/// Why something is given up before sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Older than the receiver takes.
    TooOld,
    /// Its series is dropped by relabelling.
    Series,
    /// Relabelling made its series one with another.
    Duplicate,
    /// Names that the message cannot carry.
    InvalidName,
    /// Buckets that remote-write 1.0 cannot carry.
    CustomBuckets,
    /// `send_exemplars` or `send_native_histograms` is off.
    Unwanted,
    /// An exemplar without a sample.
    Unattached,
}

impl Dropped {
    /// Reasons that samples are counted under from the beginning, at zero, so that a rate over them misses nothing.
    const ALWAYS_SHOWN: [Self; 4] = [Self::TooOld, Self::Series, Self::Duplicate, Self::InvalidName];

    /// The label `reason`; Prometheus' own words where it has one.
    fn word(self) -> &'static str {
        match self {
            Self::TooOld => "too_old",
            Self::Series => "dropped_series",
            Self::Duplicate => "duplicate",
            Self::InvalidName => "invalid_name",
            Self::CustomBuckets => "nhcb_in_rw1_not_supported",
            Self::Unwanted => "not_configured",
            Self::Unattached => "unattached",
        }
    }
}

/// The same of samples, histograms and exemplars.
#[derive(Clone)]
pub(super) struct PerKind<T> {
    samples: T,
    histograms: T,
    exemplars: T,
}

impl<T> PerKind<T> {
    fn each(&self, tally: Tally, add: impl Fn(&T, u64)) {
        add(&self.samples, tally.samples as u64);
        add(&self.histograms, tally.histograms as u64);
        add(&self.exemplars, tally.exemplars as u64);
    }
}

impl PerKind<IntCounterVec> {
    fn register(what: &str, help: &str, counters: impl Fn(&str, &str) -> IntCounterVec) -> Self {
        let of = |kind: &str, things: &str| {
            counters(&format!("prometheus_remote_storage_{kind}{what}_total"), &format!("{things} {help}."))
        };
        Self {
            samples: of("samples", "Samples"),
            histograms: of("histograms", "Native histograms"),
            exemplars: of("exemplars", "Exemplars"),
        }
    }

    fn with(&self, labels: &[&str]) -> PerKind<IntCounter> {
        PerKind {
            samples: self.samples.with_label_values(labels),
            histograms: self.histograms.with_label_values(labels),
            exemplars: self.exemplars.with_label_values(labels),
        }
    }
}

impl PerKind<IntCounter> {
    pub(super) fn add(&self, tally: Tally) {
        self.each(tally, IntCounter::inc_by);
    }
}

/// The Pushgateway's handles.
#[derive(Debug)]
pub(super) struct PushgatewayMetrics {
    pub(super) pushes: IntCounterVec,
    pub(super) engaged: Gauge,
}
