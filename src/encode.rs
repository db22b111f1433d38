//! From the data model to what travels: remote-write bodies and exposition text, and back for a receiver.
//!
//! Everything in here is pure: the same samples give the same bytes. A label set that the format forbids is left out and
//! counted in the result, never sent, because a receiver may refuse the whole request for it. The only room that names
//! `prost` and `snap`.

pub mod open_metrics;
pub mod text;
pub mod v1;

use crate::model::{Labels, METRIC_NAME, Sample, Snapshot, Timestamp, is_label_name, is_metric_name};

/// Some samples of one instant: a snapshot, or as much of it as one request may hold.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// When.
    pub at: Timestamp,
    /// What; no series twice.
    pub samples: &'a [Sample],
}

impl<'a> From<&'a Snapshot> for Part<'a> {
    fn from(snapshot: &'a Snapshot) -> Self {
        Self { at: snapshot.at, samples: &snapshot.samples }
    }
}

/// Whether remote-write 1.0 and text 0.0.4 can carry `labels`: a metric name, and names within the old patterns.
fn is_portable(labels: &Labels) -> bool {
    is_metric_name(labels.metric_name())
        && labels.iter().all(|label| &*label.name == METRIC_NAME || is_label_name(&label.name))
}
