//! What was received, for people: a line per sample.

use crate::encode::v1::Decoded;
use crate::model::Value;

/// A line for each sample, `<instant> <series> <value>`, and one for each family described. Every line ends with a newline.
pub fn print(decoded: &Decoded) -> String {
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments| {
        text.push_str(&arguments.to_string());
        text.push('\n');
    };
    for series in &decoded.series {
        for (at, value) in &series.samples {
            line(format_args!("{at} {} {}", series.labels, word(*value)));
        }
    }
    for metadata in &decoded.metadata {
        line(format_args!("metadata {} {} {:?}", metadata.family, metadata.kind.word(), metadata.help));
    }
    text
}

fn word(value: Value) -> String {
    if value.is_stale() { "stale".to_owned() } else { value.number().to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::v1::DecodedSeries;
    use crate::model::{Labels, Metadata, MetricKind, Timestamp};

    #[test]
    fn a_sample_is_a_line() {
        let labels = Labels::builder().with("__name__", "up").with("evil", "\x1b[2J\n").build().unwrap();
        let at = Timestamp::from_millis(1_795_226_444_035);
        let series = DecodedSeries { labels, samples: vec![(at, Value::new(0.5)), (at, Value::STALE)] };
        let metadata = vec![Metadata::of("up", MetricKind::Gauge, "is\nit")];
        assert_eq!(
            print(&Decoded { series: vec![series], metadata }),
            "2026-11-21T02:00:44.035Z up{evil=\"\\u{1b}[2J\\n\"} 0.5\n\
             2026-11-21T02:00:44.035Z up{evil=\"\\u{1b}[2J\\n\"} stale\n\
             metadata up gauge \"is\\nit\"\n"
        );
    }
}
