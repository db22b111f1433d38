//! A series and what is known of it, shared by every sample of it.

use std::borrow::Borrow;
use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::Labels;

/// What kind of number a metric family carries. The discriminants are those of remote-write's `MetricType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MetricKind {
    /// Not known.
    #[default]
    Unknown = 0,
    /// Only grows, or starts anew.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// `_bucket`, `_sum`, `_count`.
    Histogram = 3,
    /// Quantiles, `_sum`, `_count`.
    Summary = 5,
}

impl MetricKind {
    /// The kind with this discriminant; an unheard-of one is [`MetricKind::Unknown`].
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Counter,
            2 => Self::Gauge,
            3 => Self::Histogram,
            5 => Self::Summary,
            _ => Self::Unknown,
        }
    }

    /// The word of the text exposition format's `# TYPE` line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "untyped",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }
}

/// What is known of a metric family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The family's name; for histograms and summaries without `_bucket`, `_sum` and `_count`.
    pub family: Cow<'static, str>,
    /// What kind of number.
    pub kind: MetricKind,
    /// One sentence for people.
    pub help: Cow<'static, str>,
    /// The base unit, or empty.
    pub unit: Cow<'static, str>,
}

impl Metadata {
    /// Metadata of a family this program defines itself.
    pub const fn of(family: &'static str, kind: MetricKind, help: &'static str) -> Self {
        Self { family: Cow::Borrowed(family), kind, help: Cow::Borrowed(help), unit: Cow::Borrowed("") }
    }
}

/// An identity in the data model: a full label set. Two series are equal when their labels are.
#[derive(Clone, Debug)]
pub struct Series {
    labels: Labels,
    metadata: Arc<Metadata>,
}

impl Series {
    /// A series of the family `metadata` describes.
    pub fn new(labels: Labels, metadata: Arc<Metadata>) -> Self {
        Self { labels, metadata }
    }

    /// The full sorted label set, the metric name included.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What is known of the family.
    pub fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }
}

impl PartialEq for Series {
    fn eq(&self, other: &Self) -> bool {
        self.labels == other.labels
    }
}

impl Eq for Series {}

impl Hash for Series {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels.hash(state);
    }
}

/// Lets a set of shared series be asked by labels alone.
impl Borrow<Labels> for Series {
    fn borrow(&self) -> &Labels {
        &self.labels
    }
}

/// Keeps one shared [`Series`] per label set, so that a sample costs a pointer.
#[derive(Debug, Default)]
pub struct Interner {
    known: HashSet<ByLabels>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ByLabels(Arc<Series>);

impl Borrow<Labels> for ByLabels {
    fn borrow(&self) -> &Labels {
        &self.0.labels
    }
}

impl Interner {
    /// The shared series with these labels, made on first sight.
    pub fn intern(&mut self, labels: Labels, metadata: &Arc<Metadata>) -> Arc<Series> {
        if let Some(known) = self.known.get(&labels) {
            return Arc::clone(&known.0);
        }
        let series = Arc::new(Series::new(labels, Arc::clone(metadata)));
        self.known.insert(ByLabels(Arc::clone(&series)));
        series
    }

    /// Forgets every series nobody else holds, so that what ended does not stay in memory.
    pub fn forget_unused(&mut self) {
        self.known.retain(|series| Arc::strong_count(&series.0) > 1);
    }

    /// How many series are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_labels_are_the_same_series() {
        let metadata = Arc::new(Metadata::of("up", MetricKind::Gauge, "is it up"));
        let labels = |value: &str| Labels::builder().with("__name__", "up").with("job", value).build().unwrap();
        let mut interner = Interner::default();
        let first = interner.intern(labels("a"), &metadata);
        assert!(Arc::ptr_eq(&first, &interner.intern(labels("a"), &metadata)));
        assert!(!Arc::ptr_eq(&first, &interner.intern(labels("b"), &metadata)));

        interner.forget_unused();
        assert_eq!(interner.len(), 1, "the series that only the interner held is gone");
    }

    #[test]
    fn kinds_survive_their_number() {
        for kind in
            [MetricKind::Unknown, MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram, MetricKind::Summary]
        {
            assert_eq!(MetricKind::from_number(kind as u8), kind);
        }
        assert_eq!(MetricKind::from_number(200), MetricKind::Unknown);
    }
}
