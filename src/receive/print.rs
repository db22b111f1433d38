//! What was received, for people: a line for each thing; or as JSON, for programs.

use serde_json::{Map, Value as Json, json};

use crate::encode::{Decoded, DecodedHistogram, DecodedSeries};
use crate::model::{BucketCounts, BucketSpan, Labels, Metadata, NativeHistogram, Timestamp, Value};

/// A line for each sample, `<instant> <series> <value>`, and for each histogram and exemplar, and one for each family
/// described. Every line ends with a newline.
pub fn print(decoded: &Decoded) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments| {
        text.push_str(&arguments.to_string());
        text.push('\n');
    };
    for series in &decoded.series {
        for (ordinal, (at, value)) in series.samples.iter().enumerate() {
            let since = since(series.starts.get(ordinal).copied().flatten());
            line(format_args!("{at} {} {}{since}", series.labels, word(*value)));
        }
        for histogram in &series.histograms {
            let (at, since) = (histogram.at, since(histogram.start));
            line(format_args!("{at} {} histogram {}{since}", series.labels, histogram_json(&histogram.histogram)));
        }
        for exemplar in &series.exemplars {
            let (at, value) = (exemplar.at, word(exemplar.value));
            line(format_args!("{at} {} exemplar {} {value}", series.labels, exemplar.labels));
        }
    }
    let of_series = decoded.series.iter().filter_map(|series| series.metadata.as_deref());
    let mut said = std::collections::HashSet::new();
    for metadata in of_series.chain(&decoded.metadata).filter(|metadata| said.insert(*metadata)) {
        line(format_args!("metadata {} {} {:?}", metadata.family, metadata.kind.word(), metadata.help));
    }
    text
}

fn since(start: Option<Timestamp>) -> String {
    start.map_or_else(String::new, |start| format!(" since {start}"))
}

fn word(value: Value) -> String {
    if value.is_stale() { "stale".to_owned() } else { value.number().to_string() }
}

/// The same as one JSON object. Values are texts, because JSON knows neither NaN nor infinity; timestamps are milliseconds.
pub fn json(decoded: &Decoded) -> Json {
    json!({
        "series": decoded.series.iter().map(series_json).collect::<Vec<_>>(),
        "metadata": decoded.metadata.iter().map(metadata_json).collect::<Vec<_>>(),
    })
}

fn series_json(series: &DecodedSeries) -> Json {
    let mut object = Map::new();
    object.insert("labels".to_owned(), labels_json(&series.labels));
    if let Some(metadata) = &series.metadata {
        object.insert("metadata".to_owned(), metadata_json(metadata));
    }
    let sample = |(ordinal, (at, value)): (usize, &(Timestamp, Value))| {
        let start = series.starts.get(ordinal).copied().flatten();
        timed(*at, start, json!({"value": word(*value)}))
    };
    let exemplar = |exemplar: &crate::encode::DecodedExemplar| {
        timed(exemplar.at, None, json!({"labels": labels_json(&exemplar.labels), "value": word(exemplar.value)}))
    };
    let histogram =
        |histogram: &DecodedHistogram| timed(histogram.at, histogram.start, histogram_json(&histogram.histogram));
    let lists: [(&str, Vec<Json>); 3] = [
        ("samples", series.samples.iter().enumerate().map(sample).collect()),
        ("histograms", series.histograms.iter().map(histogram).collect()),
        ("exemplars", series.exemplars.iter().map(exemplar).collect()),
    ];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        object.insert(name.to_owned(), list.into());
    }
    object.into()
}

fn timed(at: Timestamp, start: Option<Timestamp>, mut object: Json) -> Json {
    object["timestamp"] = at.millis().into();
    if let Some(start) = start {
        object["start_timestamp"] = start.millis().into();
    }
    object
}

/// Labels as a JSON object.
pub fn labels_json(labels: &Labels) -> Json {
    labels.iter().map(|label| (label.name.to_string(), Json::from(&*label.value))).collect::<Map<_, _>>().into()
}

fn metadata_json(metadata: &Metadata) -> Json {
    json!({"family": metadata.family, "type": metadata.kind.word(), "help": metadata.help, "unit": metadata.unit})
}

/// A native histogram as a JSON object; numbers that may be no whole ones are texts.
pub fn histogram_json(histogram: &NativeHistogram) -> Json {
    let parts = histogram.parts();
    let words = |values: &[Value]| values.iter().map(|value| word(*value)).collect::<Vec<_>>();
    let spans = |spans: &[BucketSpan]| spans.iter().map(|span| json!([span.offset, span.length])).collect::<Vec<_>>();
    let mut object = match &parts.counts {
        BucketCounts::Integer { count, zero_count, positive_deltas, negative_deltas } => json!({
            "count": count, "zero_count": zero_count,
            "positive_deltas": positive_deltas, "negative_deltas": negative_deltas,
        }),
        BucketCounts::Float { count, zero_count, positive_counts, negative_counts } => json!({
            "count": word(*count), "zero_count": word(*zero_count),
            "positive_counts": words(positive_counts), "negative_counts": words(negative_counts),
        }),
    };
    object["schema"] = parts.schema.into();
    object["sum"] = word(parts.sum).into();
    object["zero_threshold"] = word(parts.zero_threshold).into();
    object["positive_spans"] = spans(&parts.positive_spans).into();
    object["negative_spans"] = spans(&parts.negative_spans).into();
    object["custom_values"] = words(&parts.custom_values).into();
    object["reset_hint"] = format!("{:?}", parts.reset_hint).to_lowercase().into();
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MetricKind;

    #[test]
    fn a_sample_is_a_line() {
        let labels = Labels::builder().with("__name__", "up").with("evil", "\x1b[2J\n").build().unwrap();
        let at = Timestamp::from_millis(1_795_226_444_035);
        let series = DecodedSeries::new(labels, vec![(at, Value::new(0.5)), (at, Value::STALE)]);
        let metadata = vec![Metadata::of("up", MetricKind::Gauge, "is\nit")];
        assert_eq!(
            print(&Decoded { series: vec![series], metadata }),
            "2026-11-21T02:00:44.035Z up{evil=\"\\u{1b}[2J\\n\"} 0.5\n\
             2026-11-21T02:00:44.035Z up{evil=\"\\u{1b}[2J\\n\"} stale\n\
             metadata up gauge \"is\\nit\"\n"
        );
    }

    #[test]
    fn json_has_what_came_and_no_empty_lists() {
        let labels = Labels::builder().with("__name__", "up").build().unwrap();
        let (at, start) = (Timestamp::from_millis(7), Timestamp::from_millis(5));
        let mut series = DecodedSeries::new(labels, vec![(at, Value::new(f64::INFINITY)), (at, Value::STALE)]);
        series.starts = vec![Some(start), None];
        let expected = json!({"metadata": [], "series": [{"labels": {"__name__": "up"}, "samples": [
            {"timestamp": 7, "start_timestamp": 5, "value": "inf"},
            {"timestamp": 7, "value": "stale"},
        ]}]});
        assert_eq!(json(&Decoded { series: vec![series], metadata: Vec::new() }), expected);
    }
}
