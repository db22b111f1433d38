//! An example of what a sample counted, such as the trace of one request.

use std::fmt;
use std::sync::Arc;

use super::{Labels, Series, Timestamp, Value};

/// One observation that stands for others of its series (`OpenMetrics` 1.0, "Exemplars").
#[derive(Clone, PartialEq, Eq)]
pub struct Exemplar {
    /// Whose observation; the series has a sample or histogram of its own in the same snapshot.
    pub series: Arc<Series>,
    /// What it refers to, by convention `trace_id`. Not a part of the series' identity.
    pub labels: Labels,
    /// What was observed.
    pub value: Value,
    /// When it was observed, which is before the snapshot.
    pub at: Timestamp,
}

impl fmt::Debug for Exemplar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} # {} {:?} at {:?}", self.series.labels(), self.labels, self.value, self.at)
    }
}
