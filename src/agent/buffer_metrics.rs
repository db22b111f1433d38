//! The buffer's numbers in the registry: the ledger of every endpoint, and how full the disk is.
//!
//! The buffer knows no metrics library; it keeps a `Status`, and this mirrors it. The ledger survives restarts with the
//! buffer, so its counters start at what they are, not at zero.

use prometheus::{Counter, Gauge, GaugeVec, IntCounter, IntCounterVec};

use crate::buffer::{EndpointStatus, QuarantineStatus, Status};
use crate::model::Timestamp;
use crate::telemetry::Registry;

/// Families whose counters are older than the process.
pub(super) const OLDER: &[&str] = &[LEDGER, SAMPLES_IN, DROPPED_SAMPLES];
const LEDGER: &str = "outhaul_ledger_samples_total";
const SAMPLES_IN: &str = "prometheus_remote_storage_samples_in_total";
const DROPPED_SAMPLES: &str = "prometheus_remote_storage_dropped_samples_total";

/// The mirror.
pub(super) struct BufferMetrics {
    used_bytes: Gauge,
    max_bytes: Gauge,
    segments: Gauge,
    degraded: Gauge,
    memory_samples: Gauge,
    too_large: IntCounter,
    io_errors: IntCounterVec,
    evicted_segments: IntCounter,
    damage: IntCounter,
    torn_tail_bytes: IntCounter,
    short_of_disk: Gauge,
    full_in_seconds: GaugeVec,
    open_seconds: Gauge,
    quarantine: QuarantineMetrics,
    free_bytes: Gauge,
    unclean_start: Gauge,
    syncs: IntCounter,
    sync_failures: IntCounter,
    sync_seconds: Counter,
    sync_longest_seconds: Gauge,
    ledger: IntCounterVec,
    pending: GaugeVec,
    pending_records: GaugeVec,
    pending_bytes: GaugeVec,
    oldest_age_seconds: GaugeVec,
    last_ack_age_seconds: GaugeVec,
    queue: QueueMetrics,
    /// Masked, in the order of the buffer's endpoints.
    urls: Vec<String>,
}

impl BufferMetrics {
    /// Registers every metric; `urls` are those of the endpoints, masked.
    pub(super) fn new(registry: &Registry, urls: Vec<String>) -> Self {
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
            io_errors: registry.counters(
                "outhaul_buffer_io_errors_total",
                "Operations on the buffer's files that failed.",
                &["operation", "errno"],
            ),
            evicted_segments: registry.counter(
                "outhaul_buffer_evicted_segments_total",
                "Segments given up before every endpoint had passed them; outhaul_ledger_samples_total says what that cost.",
            ),
            damage: registry.counter(
                "outhaul_buffer_damage_found_total",
                "Damaged or missing places found in the buffer; outhaul_ledger_samples_total{fate=\"corrupt\"} says what they cost.",
            ),
            torn_tail_bytes: registry.counter(
                "outhaul_buffer_torn_tail_bytes_total",
                "Bytes found at start behind the last whole record of a segment, as a crash leaves them.",
            ),
            short_of_disk: gauge(
                "outhaul_buffer_short_of_disk",
                "1 while the buffer does not grow because its file system has less than min_free left.",
            ),
            full_in_seconds: registry.gauges(
                "outhaul_buffer_estimated_full_seconds",
                "When the buffer is full if nothing is delivered and samples come as they did; absent where nothing waits.",
                &[],
            ),
            open_seconds: gauge("outhaul_buffer_recovery_seconds", "How long opening the buffer took at start."),
            quarantine: QuarantineMetrics::new(registry),
            free_bytes: gauge("outhaul_buffer_free_bytes", "Bytes still free on the buffer's file system."),
            unclean_start: gauge("outhaul_buffer_unclean_start", "1 if the run before this one did not close the buffer."),
            syncs: registry.counter("outhaul_buffer_syncs_total", "Times that bytes were forced to the disk."),
            sync_failures: registry.counter("outhaul_buffer_sync_failures_total", "Times that the disk failed to keep bytes."),
            sync_longest_seconds: gauge("outhaul_buffer_sync_longest_seconds", "The longest of them since start."),
            sync_seconds: registry.sum("outhaul_buffer_sync_seconds_total", "Time spent forcing bytes to the disk."),
            ledger: registry.counters(
                LEDGER,
                "What became of the samples of this endpoint's buffer: appended = delivered + refused + expired + unchanged + filtered + corrupt + evicted_* + outhaul_ledger_pending_samples.",
                &["remote_name", "fate"],
            ),
            pending: per_endpoint("outhaul_ledger_pending_samples", "Samples appended and not yet accounted for."),
            pending_records: per_endpoint("outhaul_buffer_pending_records", "Snapshots this endpoint still has to read."),
            pending_bytes: per_endpoint("outhaul_buffer_pending_bytes", "Bytes on disk this endpoint still has to read."),
            oldest_age_seconds: per_endpoint(
                "outhaul_buffer_oldest_pending_age_seconds",
                "How much older the oldest pending snapshot is than the newest one; absent without a backlog.",
            ),
            last_ack_age_seconds: per_endpoint(
                "outhaul_buffer_last_ack_age_seconds",
                "How long ago something was last settled; absent before the first time since start.",
            ),
            queue: QueueMetrics::new(registry),
            urls,
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
        for errors in &status.io_errors {
            raise(&self.io_errors.with_label_values(&[errors.operation.word(), errors.errno]), errors.count);
        }
        raise(&self.evicted_segments, status.evicted_segments_total);
        raise(&self.damage, status.damage_found_total);
        raise(&self.torn_tail_bytes, status.torn_tail_bytes);
        self.short_of_disk.set(f64::from(u8::from(status.short_of_disk)));
        self.open_seconds.set(status.open_took.as_secs_f64());
        match status.full_in {
            Some(full_in) => self.full_in_seconds.with_label_values::<&str>(&[]).set(full_in.as_secs_f64()),
            None => drop(self.full_in_seconds.remove_label_values::<&str>(&[])),
        }
        self.quarantine.observe(&status.quarantine);
        raise(&self.syncs, status.syncs.count);
        raise(&self.sync_failures, status.syncs.failed);
        self.sync_longest_seconds.set(status.syncs.longest.as_secs_f64());
        let sync_seconds = status.syncs.total.as_secs_f64() - self.sync_seconds.get();
        self.sync_seconds.inc_by(sync_seconds.max(0.0));
        self.unclean_start.set(f64::from(u8::from(status.unclean_start)));
        if let Some(free_bytes) = status.free_bytes {
            self.free_bytes.set(free_bytes as f64);
        }
        if let Some(segment) = status.newest_segment {
            self.queue.newest_segment.set(segment.number() as f64);
        }
        if let Some(newest) = status.last_at {
            self.queue.highest_timestamp_seconds.set(newest.seconds());
        }
        raise(
            &self.queue.samples_in,
            status.endpoints.iter().map(|endpoint| endpoint.ledger.appended).max().unwrap_or(0),
        );
        let urls = self.urls.iter().map(String::as_str).chain(std::iter::repeat(""));
        for (endpoint, url) in status.endpoints.iter().zip(urls) {
            self.observe_endpoint(endpoint, url, status.last_at);
        }
    }

    fn observe_endpoint(&self, endpoint: &EndpointStatus, url: &str, newest: Option<Timestamp>) {
        let name = endpoint.name.as_str();
        let ledger = &endpoint.ledger;
        let fates = [
            ("appended", ledger.appended),
            ("delivered", ledger.delivered),
            ("refused", ledger.refused),
            ("expired", ledger.expired),
            ("unchanged", ledger.unchanged),
            ("filtered", ledger.filtered),
            ("corrupt", ledger.corrupt),
            ("evicted_size", ledger.evicted.size),
            ("evicted_age", ledger.evicted.age),
            ("evicted_memory", ledger.evicted.memory),
            ("evicted_disk", ledger.evicted.disk),
            ("evicted_purged", ledger.evicted.purged),
        ];
        for (fate, samples) in fates {
            raise(&self.ledger.with_label_values(&[name, fate]), samples);
        }
        self.pending.with_label_values(&[name]).set(ledger.pending as f64);
        if let Some(at) = endpoint.acked_at {
            self.last_ack_age_seconds.with_label_values(&[name]).set(at.elapsed().as_secs_f64());
        }
        self.queue.samples_pending.with_label_values(&[name, url]).set(ledger.pending as f64);
        let dropped = ledger.expired + ledger.unchanged + ledger.filtered + ledger.evicted.total() + ledger.corrupt;
        raise(&self.queue.dropped_samples.with_label_values(&[name, url]), dropped);
        if let Some(segment) = endpoint.segment {
            self.queue.current_segment.with_label_values(&[name]).set(segment.number() as f64);
        }
        if let Some(newest) = newest {
            self.queue.queue_highest_timestamp_seconds.with_label_values(&[name, url]).set(newest.seconds());
        }
        self.pending_records.with_label_values(&[name]).set(endpoint.pending_records as f64);
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

/// What Prometheus tells of its queues, under its names.
struct QueueMetrics {
    samples_pending: GaugeVec,
    queue_highest_timestamp_seconds: GaugeVec,
    highest_timestamp_seconds: Gauge,
    samples_in: IntCounter,
    dropped_samples: IntCounterVec,
    newest_segment: Gauge,
    current_segment: GaugeVec,
}

impl QueueMetrics {
    fn new(registry: &Registry) -> Self {
        Self {
            samples_pending: registry.gauges(
                "prometheus_remote_storage_samples_pending",
                "Samples waiting to be sent, under Prometheus' name for it.",
                &["remote_name", "url"],
            ),
            queue_highest_timestamp_seconds: registry.gauges(
                "prometheus_remote_storage_queue_highest_timestamp_seconds",
                "The newest instant this endpoint has to send or has sent, under Prometheus' name for it.",
                &["remote_name", "url"],
            ),
            highest_timestamp_seconds: registry.gauge(
                "prometheus_remote_storage_highest_timestamp_in_seconds",
                "The newest instant in the buffer, under Prometheus' name for it.",
            ),
            samples_in: registry.counter(
                SAMPLES_IN,
                "Samples appended for remote-write, before any endpoint's rules, under Prometheus' name for it.",
            ),
            // Without a reason, as Prometheus once told it: the mixin's "Rate, in vs. succeeded or dropped" matches series label by
            // label, so that what has a reason never meets what came in.
            dropped_samples: registry.counters(
                DROPPED_SAMPLES,
                "Samples that were neither sent nor refused, for whatever reason, under Prometheus' old name: its mixin's dashboard subtracts it.",
                &["remote_name", "url"],
            ),
            newest_segment: registry.gauge(
                "prometheus_tsdb_wal_segment_current",
                "The buffer's newest segment, by the ordinal of its first record, under Prometheus' name for it.",
            ),
            current_segment: registry.gauges(
                "prometheus_wal_watcher_current_segment",
                "The segment this endpoint reads from, by the ordinal of its first record, under Prometheus' name for it.",
                &["consumer"],
            ),
        }
    }
}

/// What the quarantine tells.
struct QuarantineMetrics {
    files: Gauge,
    bytes: Gauge,
    samples: IntCounterVec,
}

impl QuarantineMetrics {
    fn new(registry: &Registry) -> Self {
        Self {
            files: registry.gauge("outhaul_buffer_quarantine_files", "Refusals kept for people to look at."),
            bytes: registry.gauge("outhaul_buffer_quarantine_bytes", "What they take on disk."),
            samples: registry.counters(
                "outhaul_buffer_quarantine_samples_total",
                "Refused samples that were added to the quarantine, dropped for want of room, or sent again.",
                &["event"],
            ),
        }
    }

    fn observe(&self, status: &QuarantineStatus) {
        self.files.set(status.files as f64);
        self.bytes.set(status.bytes as f64);
        let events = [
            ("added", status.added_samples_total),
            ("dropped", status.dropped_samples_total),
            ("requeued", status.requeued_samples_total),
        ];
        for (event, samples) in events {
            raise(&self.samples.with_label_values(&[event]), samples);
        }
    }
}

/// Counters only grow; `to` is the absolute value kept elsewhere.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

#[cfg(test)]
mod tests;
