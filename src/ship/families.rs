//! Which metric families an endpoint has been sent samples of, and when to tell it their types and help texts.
//!
//! Remote-write 1.0 knows no metadata beside samples, so all of it is sent now and then, as Prometheus does.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::SendMetadata;
use crate::model::{Metadata, Snapshot};

/// The most families that are remembered; of more, no metadata is sent.
const FAMILIES_MAX: usize = 10_000;

/// The families of one endpoint.
#[derive(Debug)]
pub(super) struct Families {
    config: SendMetadata,
    known: HashMap<Cow<'static, str>, Arc<Metadata>>,
    due: Option<Instant>,
}

/// What came of remembering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Noted {
    /// Samples whose family is not remembered because there is no room.
    pub(super) without_room: u64,
}

impl Families {
    pub(super) fn new(config: SendMetadata) -> Self {
        Self { config, known: HashMap::new(), due: None }
    }

    /// Remembers the families of what is in `snapshot`.
    pub(super) fn note(&mut self, snapshot: &Snapshot) -> Noted {
        let mut noted = Noted::default();
        if !self.config.send {
            return noted;
        }
        for series in snapshot.series() {
            let metadata = series.metadata();
            if self.known.contains_key(&metadata.family) {
                continue;
            }
            if self.known.len() < FAMILIES_MAX {
                self.known.insert(metadata.family.clone(), Arc::clone(metadata));
            } else {
                noted.without_room += 1;
            }
        }
        noted
    }

    /// Everything known, in requests' worth, when it is time; and then not again for an interval.
    pub(super) fn take_due(&mut self) -> Vec<Vec<Arc<Metadata>>> {
        let now = Instant::now();
        if self.known.is_empty() || self.due.is_some_and(|due| now < due) {
            return Vec::new();
        }
        self.due = Some(now + self.config.send_interval.max(Duration::from_secs(1)));
        let mut all: Vec<Arc<Metadata>> = self.known.values().cloned().collect();
        all.sort_by(|a, b| a.family.cmp(&b.family));
        all.chunks(self.config.max_samples_per_send.max(1)).map(<[_]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Labels, MetricKind, Sample, Series, Timestamp, Value};

    fn sample(family: String) -> Sample {
        let labels = Labels::builder().with("__name__", family.as_str()).build().unwrap();
        let metadata =
            Metadata { family: family.into(), kind: MetricKind::Gauge, help: "x".into(), unit: Cow::Borrowed("") };
        Sample::new(Arc::new(Series::new(labels, Arc::new(metadata))), Value::new(1.0))
    }

    fn snapshot(samples: impl IntoIterator<Item = Sample>) -> Snapshot {
        Snapshot::new(Timestamp::from_millis(0), samples.into_iter().collect())
    }

    fn config() -> SendMetadata {
        SendMetadata { send: true, send_interval: Duration::from_secs(60), max_samples_per_send: 2 }
    }

    fn names(requests: &[Vec<Arc<Metadata>>]) -> Vec<Vec<&str>> {
        requests.iter().map(|request| request.iter().map(|metadata| &*metadata.family).collect()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn everything_known_is_due_once_an_interval() {
        let mut families = Families::new(config());
        assert!(families.take_due().is_empty(), "nothing is known yet");
        families.note(&snapshot(["c", "a", "b", "a"].map(|name| sample(name.to_owned()))));
        assert_eq!(names(&families.take_due()), [vec!["a", "b"], vec!["c"]]);
        assert!(families.take_due().is_empty());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(names(&families.take_due()), [vec!["a", "b"], vec!["c"]]);
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded_and_what_is_not_is_counted() {
        let mut families = Families::new(config());
        let samples: Vec<Sample> = (0..FAMILIES_MAX + 3).map(|ordinal| sample(format!("m{ordinal}"))).collect();
        assert_eq!(families.note(&snapshot(samples)), Noted { without_room: 3 });
    }

    #[tokio::test]
    async fn nothing_is_remembered_where_nothing_is_sent() {
        let mut families = Families::new(SendMetadata { send: false, ..config() });
        families.note(&snapshot([sample("a".to_owned())]));
        assert!(families.take_due().is_empty());
    }
}
