//! Samples with their instants as `OpenMetrics` text, for `promtool tsdb create-blocks-from openmetrics`.
//!
//! One line a sample, in the order they come, without types: the text is written while the samples are read, so they are
//! not grouped by family as a scrape's answer must be. promtool needs no more. Stale markers have no form in it.

use crate::model::{Sample, Timestamp};

use super::is_portable;
use super::text::{write_labels, write_value};

/// What ends the text.
pub const END: &str = "# EOF\n";

/// Appends a sample's line; `false` where the format has no form for it.
pub fn write_sample(text: &mut String, at: Timestamp, sample: &Sample) -> bool {
    let labels = sample.series.labels();
    if sample.value.is_stale() || !is_portable(labels) {
        return false;
    }
    text.push_str(labels.metric_name());
    write_labels(text, labels);
    text.push(' ');
    write_value(text, sample.value.number());
    text.push(' ');
    text.push_str(&seconds(at));
    text.push('\n');
    true
}

/// Seconds that are read back as the same millisecond: Prometheus multiplies by 1000 and cuts off
/// (`model/textparse/openmetricsparse.go`), which for some milliseconds gives the one before; a tenth more does not.
fn seconds(at: Timestamp) -> String {
    let millis = at.millis();
    let sign = if millis < 0 { "-" } else { "" };
    let (whole, part) = (millis.unsigned_abs() / 1000, millis.unsigned_abs() % 1000);
    let text = format!("{sign}{whole}.{part:03}");
    if read_back(&text) == Some(millis) { text } else { format!("{text}1") }
}

#[expect(clippy::cast_possible_truncation, reason = "as Prometheus does it")]
fn read_back(text: &str) -> Option<i64> {
    text.parse::<f64>().ok().map(|seconds| (seconds * 1000.0) as i64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Labels, Metadata, MetricKind, Series, Value};

    proptest! {
        #[test]
        fn prometheus_reads_the_same_millisecond(millis in 0_i64..4_102_444_800_000) {
            prop_assert_eq!(read_back(&seconds(Timestamp::from_millis(millis))), Some(millis));
        }
    }

    #[test]
    fn a_line_has_labels_value_and_instant_and_a_stale_marker_has_none() {
        let metadata = Arc::new(Metadata::of("up", MetricKind::Gauge, "is it up"));
        let labels = Labels::builder().with("__name__", "up").with("job", "a\"b").build().unwrap();
        let series = Arc::new(Series::new(labels, metadata));
        let at = Timestamp::from_millis(1_795_226_444_500);
        let mut text = String::new();
        assert!(write_sample(&mut text, at, &Sample::new(Arc::clone(&series), Value::new(1.5))));
        assert!(!write_sample(&mut text, at, &Sample::new(series, Value::STALE)));
        assert_eq!(text, "up{job=\"a\\\"b\"} 1.5 1795226444.500\n");
    }
}
