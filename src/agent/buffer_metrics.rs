//! The buffer's numbers in the registry: the ledger of every endpoint, and how full the disk is.
//!
//! The buffer knows no metrics library; it keeps a `Status`, and this mirrors it. The ledger survives restarts with the
//! buffer, so its counters start at what they are, not at zero.

use prometheus::{Counter, Gauge, GaugeVec, IntCounter, IntCounterVec};

use crate::buffer::{EndpointStatus, Status};
use crate::model::Timestamp;
use crate::telemetry::Registry;

/// The mirror.
pub(super) struct BufferMetrics {
    used_bytes: Gauge,
    max_bytes: Gauge,
    segments: Gauge,
    degraded: Gauge,
    memory_samples: Gauge,
    too_large: IntCounter,
    io_errors: IntCounter,
    free_bytes: Gauge,
    unclean_start: Gauge,
    syncs: IntCounter,
    sync_seconds: Counter,
    ledger: IntCounterVec,
    pending: GaugeVec,
    pending_bytes: GaugeVec,
    oldest_age_seconds: GaugeVec,
    samples_pending: GaugeVec,
    highest_timestamp_seconds: Gauge,
}

impl BufferMetrics {
    /// Registers every metric.
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name, help| registry.gauge(name, help);
        let per_endpoint = |name, help| registry.gauges(name, help, &["remote_name"]);
        Self {
            used_bytes: gauge("outhaul_buffer_used_bytes", "Bytes the buffer takes on disk, everything included."),
            max_bytes: gauge("outhaul_buffer_max_bytes", "The bound of outhaul_buffer_used_bytes."),
            segments: gauge("outhaul_buffer_segments", "Segment files on disk."),
            degraded: gauge("outhaul_buffer_degraded", "1 while the disk takes no samples and they are held in memory."),
            memory_samples: gauge("outhaul_buffer_memory_samples", "Samples held in memory because the disk takes none."),
            too_large: registry.counter(
                "outhaul_buffer_too_large_samples_total",
                "Samples of snapshots that would not fit even into an empty buffer; they are in no ledger.",
            ),
            io_errors: registry.counter("outhaul_buffer_io_errors_total", "Operations on the buffer's files that failed."),
            free_bytes: gauge("outhaul_buffer_free_bytes", "Bytes still free on the buffer's file system."),
            unclean_start: gauge("outhaul_buffer_unclean_start", "1 if the run before this one did not close the buffer."),
            syncs: registry.counter("outhaul_buffer_syncs_total", "Times that bytes were forced to the disk."),
            sync_seconds: registry.sum("outhaul_buffer_sync_seconds_total", "Time spent forcing bytes to the disk."),
            ledger: registry.counters(
                "outhaul_ledger_samples_total",
                "What became of the samples of this endpoint's buffer: appended = delivered + refused + expired + corrupt + evicted_* + outhaul_ledger_pending_samples.",
                &["remote_name", "fate"],
            ),
            pending: per_endpoint("outhaul_ledger_pending_samples", "Samples appended and not yet accounted for."),
            pending_bytes: per_endpoint("outhaul_buffer_pending_bytes", "Bytes on disk this endpoint still has to read."),
            oldest_age_seconds: per_endpoint(
                "outhaul_buffer_oldest_pending_age_seconds",
                "How much older the oldest pending snapshot is than the newest one; absent without a backlog.",
            ),
            samples_pending: per_endpoint(
                "prometheus_remote_storage_samples_pending",
                "Samples waiting to be sent, under Prometheus' name for it.",
            ),
            highest_timestamp_seconds: gauge(
                "prometheus_remote_storage_highest_timestamp_in_seconds",
                "The newest instant in the buffer, under Prometheus' name for it.",
            ),
        }
    }

    /// Brings every metric up to `status`.
    pub(super) fn observe(&self, status: &Status) {
        self.used_bytes.set(status.used_bytes as f64);
        self.max_bytes.set(status.max_bytes as f64);
        self.segments.set(status.segments as f64);
        self.degraded.set(f64::from(u8::from(status.degraded)));
        self.memory_samples.set(status.held_in_memory_samples as f64);
        raise(&self.too_large, status.append_errors_samples_total);
        raise(&self.io_errors, status.io_errors_total);
        raise(&self.syncs, status.syncs.count);
        let sync_seconds = status.syncs.total.as_secs_f64() - self.sync_seconds.get();
        self.sync_seconds.inc_by(sync_seconds.max(0.0));
        self.unclean_start.set(f64::from(u8::from(status.unclean_start)));
        if let Some(free_bytes) = status.free_bytes {
            self.free_bytes.set(free_bytes as f64);
        }
        if let Some(newest) = status.last_at {
            self.highest_timestamp_seconds.set(newest.seconds());
        }
        for endpoint in &status.endpoints {
            self.observe_endpoint(endpoint, status.last_at);
        }
    }

    fn observe_endpoint(&self, endpoint: &EndpointStatus, newest: Option<Timestamp>) {
        let name = endpoint.name.as_str();
        let ledger = &endpoint.ledger;
        let fates = [
            ("appended", ledger.appended),
            ("delivered", ledger.delivered),
            ("refused", ledger.refused),
            ("expired", ledger.expired),
            ("corrupt", ledger.corrupt),
            ("evicted_size", ledger.evicted.size),
            ("evicted_age", ledger.evicted.age),
            ("evicted_memory", ledger.evicted.memory),
        ];
        for (fate, samples) in fates {
            raise(&self.ledger.with_label_values(&[name, fate]), samples);
        }
        self.pending.with_label_values(&[name]).set(ledger.pending as f64);
        self.samples_pending.with_label_values(&[name]).set(ledger.pending as f64);
        self.pending_bytes.with_label_values(&[name]).set(endpoint.pending_bytes as f64);
        match (endpoint.oldest_pending_at, newest) {
            (Some(oldest), Some(newest)) => {
                self.oldest_age_seconds.with_label_values(&[name]).set(newest.since(oldest).as_secs_f64());
            }
            // Fails only where there was no such series, which is what is wanted.
            _ => drop(self.oldest_age_seconds.remove_label_values(&[name])),
        }
    }
}

/// Counters only grow; `to` is the absolute value kept elsewhere.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
