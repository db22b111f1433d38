//! What outhaul talks about: series, samples, snapshots. Pure data, correct by construction.
//!
//! A [`Series`] is an identity (its sorted [`Labels`]) with its [`Metadata`]; a [`Sample`] is one value of one series;
//! a [`Snapshot`] is what one or more series were at one [`Timestamp`]. Values travel as bits ([`Value`]), because a
//! stale marker is a NaN that must arrive exactly.
//!
//! Nothing in here does I/O, knows a clock, or names another module of this crate.

mod exemplar;
mod histogram;
mod labels;
mod series;
mod snapshot;
mod target;
mod timestamp;

pub use exemplar::Exemplar;
pub use histogram::{
    BucketCounts, BucketSpan, CUSTOM_BUCKETS_SCHEMA, HistogramError, HistogramParts, HistogramSample, NativeHistogram,
    ResetHint,
};
pub use labels::{Label, LabelError, Labels, LabelsBuilder, is_label_name, is_metric_name, sanitise_label_name};
pub use series::{Interner, Metadata, MetricKind, Series};
pub use snapshot::{Sample, Snapshot, Value};
pub use target::Target;
pub use timestamp::Timestamp;

/// The label that carries a series' metric name.
pub const METRIC_NAME: &str = "__name__";
