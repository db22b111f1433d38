//! The labels every series of this host carries.

use std::sync::Arc;

use super::{LabelsBuilder, METRIC_NAME};

/// Prometheus' two target labels, as outhaul sets them on every series it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What kind of thing is observed; [`Target::JOB`] unless configured otherwise.
    pub job: Arc<str>,
    /// This host's name.
    pub instance: Arc<str>,
}

impl Target {
    /// The job of outhaul's own and native series.
    pub const JOB: &'static str = "outhaul";

    /// The target for this host's native series.
    pub fn new(instance: &str) -> Self {
        Self { job: Self::JOB.into(), instance: instance.into() }
    }

    /// Starts the labels of one series of metric `name`.
    pub fn series(&self, name: &str) -> LabelsBuilder {
        super::Labels::builder()
            .with(METRIC_NAME, name)
            .with("job", self.job.clone())
            .with("instance", self.instance.clone())
    }
}
