//! What the Docker source says about itself, under `outhaul_*`.

use prometheus::core::{AtomicF64, GenericGauge};
use prometheus::{GaugeVec, IntCounter, IntCounterVec};

use super::table::Notes;
use crate::source::FailureReason;
use crate::telemetry::Registry;

/// The families; registered once, shared by all Docker sources of an agent.
#[derive(Clone, Debug)]
pub struct Metrics {
    events: IntCounterVec,
    dropped: IntCounterVec,
    odd: IntCounterVec,
    late: IntCounterVec,
    gaps: IntCounterVec,
    reconnects: IntCounterVec,
    stream_up: GaugeVec,
    inspects: IntCounterVec,
    inspect_errors: IntCounterVec,
    limits: IntCounterVec,
    containers: GaugeVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Panics
    /// When called twice with one registry.
    pub fn register(registry: &Registry) -> Self {
        let counters = |name, help| registry.counters(name, help, &["source"]);
        let by = |name, help, label| registry.counters(name, help, &["source", label]);
        let gauges = |name, help| registry.gauges(name, help, &["source"]);
        Self {
            events: counters("outhaul_events_total", "Events the engine sent."),
            dropped: counters("outhaul_events_dropped_total", "Events lost because sampling did not keep up."),
            odd: counters("outhaul_events_odd_total", "Elements of the event stream that made no sense."),
            late: counters("outhaul_events_late_total", "Events stamped later than they happened, to keep order."),
            gaps: counters("outhaul_events_gap_total", "Gaps in the event stream; what was missed was reconciled."),
            reconnects: counters("outhaul_event_stream_reconnects_total", "Times the event stream was opened again."),
            stream_up: gauges("outhaul_event_stream_up", "Whether the event stream is open: 0 or 1."),
            inspects: counters("outhaul_inspects_total", "Containers inspected."),
            inspect_errors: by("outhaul_inspect_errors_total", "Containers that could not be read, by why.", "reason"),
            limits: by("outhaul_source_limit_hits_total", "Times a bound of the source was hit, by bound.", "limit"),
            containers: gauges("outhaul_containers", "Containers watched."),
        }
    }

    /// Those of the source `name`, each there from the start.
    pub(crate) fn of(&self, name: &str) -> SourceMetrics {
        let reason = |word: &str| self.inspect_errors.with_label_values(&[name, word]);
        let limit = |word: &str| self.limits.with_label_values(&[name, word]);
        SourceMetrics {
            events: self.events.with_label_values(&[name]),
            dropped: self.dropped.with_label_values(&[name]),
            odd: self.odd.with_label_values(&[name]),
            late: self.late.with_label_values(&[name]),
            gaps: self.gaps.with_label_values(&[name]),
            reconnects: self.reconnects.with_label_values(&[name]),
            stream_up: self.stream_up.with_label_values(&[name]),
            inspects: self.inspects.with_label_values(&[name]),
            inspect_gone: reason("gone"),
            inspect_errors: FailureReason::ALL.map(|failure| reason(failure.word())),
            containers_refused: limit("containers"),
            names_forgotten: limit("names"),
            runs_merged: limit("runs"),
            containers: self.containers.with_label_values(&[name]),
        }
    }
}

/// The metrics of one source.
#[derive(Clone, Debug)]
pub(crate) struct SourceMetrics {
    pub(crate) events: IntCounter,
    pub(crate) dropped: IntCounter,
    pub(crate) odd: IntCounter,
    pub(crate) late: IntCounter,
    pub(crate) gaps: IntCounter,
    pub(crate) reconnects: IntCounter,
    pub(crate) stream_up: GenericGauge<AtomicF64>,
    pub(crate) inspects: IntCounter,
    /// The container was removed between being named and being asked.
    pub(crate) inspect_gone: IntCounter,
    inspect_errors: [IntCounter; FailureReason::ALL.len()],
    containers_refused: IntCounter,
    names_forgotten: IntCounter,
    runs_merged: IntCounter,
    pub(crate) containers: GenericGauge<AtomicF64>,
}

impl SourceMetrics {
    /// Counts containers that could not be read.
    pub(crate) fn count_inspect_errors(&self, reason: FailureReason, containers: usize) {
        let place = FailureReason::ALL.iter().position(|known| *known == reason).unwrap_or(0);
        self.inspect_errors[place].inc_by(containers as u64);
    }

    /// The counts of [`Self::count_inspect_errors`], in the order of [`FailureReason::ALL`].
    #[cfg(test)]
    pub(crate) fn inspect_error_counts(&self) -> [u64; FailureReason::ALL.len()] {
        self.inspect_errors.each_ref().map(IntCounter::get)
    }

    /// Counts what the table noted.
    pub(crate) fn count(&self, notes: Notes) {
        self.late.inc_by(notes.late);
        self.containers_refused.inc_by(notes.containers_refused);
        self.names_forgotten.inc_by(notes.names_forgotten);
        self.runs_merged.inc_by(notes.runs_merged);
    }
}
