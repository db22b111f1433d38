//! The Prometheus text exposition format 0.0.4, for a Pushgateway and for our own `/metrics`.
//!
//! Without timestamps, because a Pushgateway refuses them; without stale markers, because "ended" has no form in a text
//! that says what is. The order is by name, then by labels, so the same samples give the same text. A family has one
//! type, and a series stands once: a Pushgateway refuses everything for one contradiction.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::model::{Labels, METRIC_NAME, Metadata, MetricKind, Sample, Value};

/// The `Content-Type` of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug)]
struct Family<'a> {
    kind: MetricKind,
    help: &'a str,
    series: BTreeMap<(&'a str, &'a Labels), Value>,
}

/// The text of `samples`. Where two samples stand for one series, the first is shown.
pub fn expose<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> String {
    let mut families: BTreeMap<&str, Family> = BTreeMap::new();
    for sample in samples {
        let (labels, metadata) = (sample.series.labels(), sample.series.metadata());
        if sample.value.is_stale() || !super::is_portable(labels) {
            continue;
        }
        let name = labels.metric_name();
        let (family, kind) = family_of(name, metadata);
        let family =
            families.entry(family).or_insert_with(|| Family { kind, help: &metadata.help, series: BTreeMap::new() });
        family.series.entry((name, labels)).or_insert(sample.value);
    }
    let mut text = String::new();
    for (name, family) in &families {
        write_family(&mut text, name, family);
    }
    text
}

/// The family a sample stands under, and its type there: what the metadata says, where the name fits it.
fn family_of<'a>(name: &'a str, metadata: &'a Metadata) -> (&'a str, MetricKind) {
    let kind = metadata.kind;
    let suffixes: &[&str] = match kind {
        MetricKind::Histogram => &["_bucket", "_sum", "_count"],
        MetricKind::Summary => &["", "_sum", "_count"],
        MetricKind::Unknown | MetricKind::Counter | MetricKind::Gauge => &[""],
    };
    match name.strip_prefix(&*metadata.family) {
        Some(suffix) if suffixes.contains(&suffix) => (&metadata.family, kind),
        _ => (name, MetricKind::Unknown),
    }
}

fn write_family(text: &mut String, name: &str, family: &Family) {
    if !family.help.is_empty() {
        push(text, format_args!("# HELP {name} {}\n", escape_help(family.help)));
    }
    push(text, format_args!("# TYPE {name} {}\n", family.kind.word()));
    for ((metric, labels), value) in &family.series {
        text.push_str(metric);
        write_labels(text, labels);
        text.push(' ');
        write_value(text, value.number());
        text.push('\n');
    }
}

pub(super) fn write_labels(text: &mut String, labels: &Labels) {
    let mut separator = '{';
    for label in labels.iter().filter(|label| &*label.name != METRIC_NAME) {
        push(text, format_args!("{separator}{}=\"{}\"", label.name, escape_value(&label.value)));
        separator = ',';
    }
    if separator == ',' {
        text.push('}');
    }
}

/// Numbers as Go's `ParseFloat` reads them; Rust's shortest form that reads back the same is one.
pub(super) fn write_value(text: &mut String, number: f64) {
    if number.is_nan() {
        text.push_str("NaN");
    } else if number.is_infinite() {
        text.push_str(if number > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        push(text, format_args!("{number}"));
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments) {
    text.push_str(&arguments.to_string());
}

fn escape_help(help: &str) -> Cow<'_, str> {
    escape(help, &['\\', '\n'])
}

fn escape_value(value: &str) -> Cow<'_, str> {
    escape(value, &['\\', '\n', '"'])
}

fn escape<'a>(text: &'a str, special: &[char]) -> Cow<'a, str> {
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            c if special.contains(&c) => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::Series;

    fn sample(pairs: &[(&str, &str)], metadata: &Arc<Metadata>, value: f64) -> Sample {
        let labels = pairs.iter().fold(Labels::builder(), |builder, (name, value)| builder.with(*name, *value));
        let series = Arc::new(Series::new(labels.build().unwrap(), Arc::clone(metadata)));
        Sample::new(series, Value::new(value))
    }

    fn family(name: &'static str, kind: MetricKind, help: &'static str) -> Arc<Metadata> {
        Arc::new(Metadata::of(name, kind, help))
    }

    #[test]
    fn families_and_series_are_sorted_and_described_once() {
        let up = family("up", MetricKind::Gauge, "is it\nup \\o/");
        let restarts = family("restarts_total", MetricKind::Counter, "");
        let samples = [
            sample(&[("__name__", "up"), ("job", "b")], &up, 1.0),
            sample(&[("__name__", "restarts_total")], &restarts, 3.0),
            sample(&[("__name__", "up"), ("job", "a\"\\\n")], &up, 0.25),
        ];
        let expected = "# TYPE restarts_total counter\nrestarts_total 3\n\
                        # HELP up is it\\nup \\\\o/\n# TYPE up gauge\n\
                        up{job=\"a\\\"\\\\\\n\"} 0.25\nup{job=\"b\"} 1\n";
        assert_eq!(expose(&samples), expected);
        assert_eq!(expose(samples.iter().rev()), expected, "the order of the samples does not matter");
    }

    #[test]
    fn odd_numbers_have_their_words() {
        let x = family("x", MetricKind::Gauge, "");
        for (number, word) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (-0.0, "-0"),
            (1_795_226_444.035, "1795226444.035"),
            (1e-7, "0.0000001"),
        ] {
            assert_eq!(expose(&[sample(&[("__name__", "x")], &x, number)]), format!("# TYPE x gauge\nx {word}\n"));
        }
    }

    #[test]
    fn a_series_that_ended_is_left_out() {
        let x = family("x", MetricKind::Gauge, "");
        let ended = Sample { value: Value::STALE, ..sample(&[("__name__", "x")], &x, 1.0) };
        assert_eq!(expose(&[ended]), "");
    }

    #[test]
    fn the_series_of_a_histogram_stand_under_its_name() {
        let wait = family("wait", MetricKind::Histogram, "");
        let samples = [
            sample(&[("__name__", "wait_sum")], &wait, 2.0),
            sample(&[("__name__", "wait_bucket"), ("le", "+Inf")], &wait, 1.0),
            sample(&[("__name__", "wait_count")], &wait, 1.0),
        ];
        let expected = "# TYPE wait histogram\nwait_bucket{le=\"+Inf\"} 1\nwait_count 1\nwait_sum 2\n";
        assert_eq!(expose(&samples), expected);
    }

    #[test]
    fn a_name_never_has_two_types_and_a_series_never_two_values() {
        let gauge = family("x", MetricKind::Gauge, "");
        let counter = family("x", MetricKind::Counter, "");
        let other = family("y", MetricKind::Counter, "");
        let samples = [
            sample(&[("__name__", "x"), ("a", "1")], &gauge, 1.0),
            sample(&[("__name__", "x"), ("a", "2")], &counter, 2.0),
            sample(&[("__name__", "x"), ("a", "1")], &gauge, 9.0),
            sample(&[("__name__", "z")], &other, 4.0),
        ];
        let expected = "# TYPE x gauge\nx{a=\"1\"} 1\nx{a=\"2\"} 2\n# TYPE z untyped\nz 4\n";
        assert_eq!(expose(&samples), expected);
    }

    #[test]
    fn a_name_that_the_format_cannot_carry_is_left_out() {
        let x = family("x.y", MetricKind::Gauge, "");
        assert_eq!(expose(&[sample(&[("__name__", "x.y")], &x, 1.0)]), "");
    }
}
