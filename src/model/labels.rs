//! Label sets as remote-write requires them: sorted by name in byte order, names unique, nothing empty.
//!
//! A [`Labels`] that breaks the rule cannot be built. An empty value is dropped on the way in, because in Prometheus'
//! data model a label with an empty value and a missing label are the same thing.

use std::fmt;
use std::sync::Arc;

/// One `name="value"` pair.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    /// Never empty.
    pub name: Arc<str>,
    /// Never empty.
    pub value: Arc<str>,
}

/// A sorted, duplicate-free label set; cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Label]>);

/// Why a label set is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A label without a name.
    #[error("a label has an empty name")]
    EmptyName,
    /// The same name twice.
    #[error("label {0:?} is given twice")]
    Duplicate(String),
    /// The stored order is not the sorted order.
    #[error("label {0:?} is out of order")]
    Unsorted(String),
    /// Stored with an empty value.
    #[error("label {0:?} has an empty value")]
    EmptyValue(String),
}

impl Labels {
    /// A set without labels.
    pub fn empty() -> Self {
        Self(Arc::from([]))
    }

    /// Starts a set.
    pub fn builder() -> LabelsBuilder {
        LabelsBuilder::default()
    }

    /// Takes labels that are already as they must be, as read back from disk.
    ///
    /// # Errors
    /// When a name is empty or repeated, a value is empty, or the order is not the byte order of names.
    pub fn from_sorted(labels: Vec<Label>) -> Result<Self, LabelError> {
        for label in &labels {
            if label.name.is_empty() {
                return Err(LabelError::EmptyName);
            }
            if label.value.is_empty() {
                return Err(LabelError::EmptyValue(label.name.to_string()));
            }
        }
        for pair in labels.windows(2) {
            match pair[0].name.as_bytes().cmp(pair[1].name.as_bytes()) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Err(LabelError::Duplicate(pair[1].name.to_string())),
                std::cmp::Ordering::Greater => return Err(LabelError::Unsorted(pair[1].name.to_string())),
            }
        }
        Ok(Self(labels.into()))
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|label| label.name.as_bytes().cmp(name.as_bytes())).ok()?;
        Some(&self.0[at].value)
    }

    /// The metric name, or the empty string where there is none.
    pub fn metric_name(&self) -> &str {
        self.get(super::METRIC_NAME).unwrap_or("")
    }

    /// The labels in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Label> {
        self.0.iter()
    }

    /// How many labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// This set plus those labels of `extra` whose names it lacks: how Prometheus applies external labels.
    #[must_use]
    pub fn with_defaults(&self, extra: &Self) -> Self {
        if extra.is_empty() {
            return self.clone();
        }
        let mut all: Vec<Label> = self.0.to_vec();
        all.extend(extra.iter().filter(|label| self.get(&label.name).is_none()).cloned());
        all.sort();
        Self(all.into())
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = &'a Label;
    type IntoIter = std::slice::Iter<'a, Label>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// `{a="1",b="2"}`, the metric name in front.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.metric_name())?;
        let mut others = self.iter().filter(|label| &*label.name != super::METRIC_NAME).peekable();
        if others.peek().is_none() {
            return Ok(());
        }
        f.write_str("{")?;
        let mut separator = "";
        for label in others {
            write!(f, "{separator}{}={:?}", label.name, label.value)?;
            separator = ",";
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}", self.name, self.value)
    }
}

/// Collects labels in any order.
#[derive(Clone, Default)]
pub struct LabelsBuilder(Vec<Label>);

impl LabelsBuilder {
    /// Adds a label; one with an empty value is dropped.
    #[must_use]
    pub fn with(mut self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        let value = value.into();
        if !value.is_empty() {
            self.0.push(Label { name: name.into(), value });
        }
        self
    }

    /// Sorts and checks.
    ///
    /// # Errors
    /// When a name is empty or given twice.
    pub fn build(mut self) -> Result<Labels, LabelError> {
        self.0.sort();
        Labels::from_sorted(self.0)
    }

    /// Sorts; where a name is given twice the smaller value wins, and a nameless label is dropped.
    ///
    /// For labels that come from outside, where one odd label must not cost the sample.
    pub fn build_lossy(mut self) -> Labels {
        self.0.sort();
        self.0.dedup_by(|later, first| later.name == first.name);
        self.0.retain(|label| !label.name.is_empty());
        Labels(self.0.into())
    }
}

/// Whether `name` matches `[a-zA-Z_][a-zA-Z0-9_]*`, the label names remote-write 1.0 allows (specification, "Labels").
pub fn is_label_name(name: &str) -> bool {
    is_name(name, |byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether `name` matches `[a-zA-Z_:][a-zA-Z0-9_:]*`, the metric names remote-write 1.0 allows (specification, "Labels").
pub fn is_metric_name(name: &str) -> bool {
    is_name(name, |byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}

fn is_name(name: &str, allowed: impl Fn(u8) -> bool) -> bool {
    name.bytes().next().is_some_and(|first| !first.is_ascii_digit()) && name.bytes().all(allowed)
}

/// `text` as the tail of a label name: every byte outside `[a-zA-Z0-9_]` becomes `_`, as cAdvisor writes container labels.
pub fn sanitise_label_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().fold(Labels::builder(), |b, (n, v)| b.with(*n, *v)).build().unwrap()
    }

    #[test]
    fn labels_are_sorted_in_byte_order_so_the_metric_name_stands_after_capitals() {
        let labels = set(&[("job", "a"), ("__name__", "up"), ("Zone", "b")]);
        let names: Vec<&str> = labels.iter().map(|l| &*l.name).collect();
        assert_eq!(names, ["Zone", "__name__", "job"]);
    }

    #[test]
    fn an_empty_value_is_no_label() {
        assert!(set(&[("a", "")]).is_empty());
    }

    #[test]
    fn a_repeated_or_empty_name_is_refused() {
        assert_eq!(Labels::builder().with("a", "1").with("a", "2").build(), Err(LabelError::Duplicate("a".into())));
        assert_eq!(Labels::builder().with("", "1").build(), Err(LabelError::EmptyName));
    }

    #[test]
    fn lossy_building_keeps_one_of_each_name() {
        let labels = Labels::builder().with("a", "2").with("a", "1").with("", "x").build_lossy();
        assert_eq!(labels, set(&[("a", "1")]));
    }

    #[test]
    fn stored_labels_are_checked_before_they_are_believed() {
        let label = |name: &str, value: &str| Label { name: name.into(), value: value.into() };
        assert!(Labels::from_sorted(vec![label("a", "1"), label("b", "1")]).is_ok());
        assert_eq!(Labels::from_sorted(vec![label("b", "1"), label("a", "1")]), Err(LabelError::Unsorted("a".into())));
        assert_eq!(Labels::from_sorted(vec![label("a", "")]), Err(LabelError::EmptyValue("a".into())));
    }

    #[test]
    fn defaults_fill_gaps_and_override_nothing() {
        let merged = set(&[("a", "1"), ("c", "3")]).with_defaults(&set(&[("a", "9"), ("b", "2")]));
        assert_eq!(merged, set(&[("a", "1"), ("b", "2"), ("c", "3")]));
    }

    #[test]
    fn a_label_set_reads_as_promql_writes_it() {
        assert_eq!(set(&[("__name__", "up"), ("job", "x\"y")]).to_string(), r#"up{job="x\"y"}"#);
        assert_eq!(set(&[("__name__", "up")]).to_string(), "up");
    }

    #[test]
    fn names_follow_the_specification() {
        for (name, label, metric) in
            [("a_1", true, true), ("a:b", false, true), ("1a", false, false), ("", false, false), ("a.b", false, false)]
        {
            assert_eq!((is_label_name(name), is_metric_name(name)), (label, metric), "{name}");
        }
        assert_eq!(sanitise_label_name("com.docker.compose/é"), "com_docker_compose__");
    }
}
