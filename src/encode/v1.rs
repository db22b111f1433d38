//! Remote-write 1.0 messages: protobuf `prometheus.WriteRequest`.
//!
//! Invariants: labels are sorted, unique and non-empty; a series stands once in a body, its samples oldest first; values
//! are the bits they were taken with, because a stale marker is a signalling NaN.
//!
//! The writer lays out the message itself from prost's primitives: the generated structs would copy every label of every
//! series into strings of their own, which costs more than all the rest. [`super::decode()`] goes through the generated
//! structs, so each proves the other.

use prost::Message;

use super::dictionary::{Dictionary, Identity};
use super::histogram;
use super::points::{Chain, Kind, Point};
use super::wire::{
    delimited_len, fixed64_len, int64, varint_len, write_delimited, write_fixed64, write_text, write_varint,
};
use crate::model::{Exemplar, Label, Labels, Metadata, NativeHistogram, Value, is_label_name, is_metric_name};
use crate::proto;

/// The field numbers of `proto/remote_write_v1.proto`.
mod field {
    pub(super) const TIMESERIES: u32 = 1;
    pub(super) const LABELS: u32 = 1;
    pub(super) const SAMPLES: u32 = 2;
    pub(super) const EXEMPLARS: u32 = 3;
    pub(super) const HISTOGRAMS: u32 = 4;
    pub(super) const NAME: u32 = 1;
    pub(super) const LABEL_VALUE: u32 = 2;
    pub(super) const SAMPLE_VALUE: u32 = 1;
    pub(super) const SAMPLE_TIMESTAMP: u32 = 2;
    pub(super) const EXEMPLAR_VALUE: u32 = 2;
    pub(super) const EXEMPLAR_TIMESTAMP: u32 = 3;
}

/// A label as a field of a `TimeSeries`; of an exemplar too, whose field has the same number.
pub(super) fn label_field(label: &Label) -> Vec<u8> {
    let len = delimited_len(field::NAME, label.name.len()) + delimited_len(field::LABEL_VALUE, label.value.len());
    let mut out = Vec::with_capacity(delimited_len(field::LABELS, len));
    write_delimited(&mut out, field::LABELS, len);
    write_text(&mut out, field::NAME, &label.name);
    write_text(&mut out, field::LABEL_VALUE, &label.value);
    out
}

/// One `TimeSeries` whose fields are in `entry`.
pub(super) fn write_series(message: &mut Vec<u8>, entry: &[u8]) {
    write_delimited(message, field::TIMESERIES, entry.len());
    message.extend_from_slice(entry);
}

/// The fields of one `TimeSeries`, with the points of one kind at the beginning of `points`.
pub(super) fn write_entry(
    out: &mut Vec<u8>,
    dictionary: &Dictionary,
    identity: &Identity,
    points: Chain,
    exemplars: Chain,
) {
    for &pair in &*identity.pairs {
        out.extend_from_slice(&dictionary.pair(pair).v1);
    }
    if points.next_kind() == Some(Kind::Sample) {
        points.samples().for_each(|point| write_sample(out, point));
    }
    exemplars.exemplars().for_each(|exemplar| write_exemplar(out, exemplar));
    if points.next_kind() == Some(Kind::Histogram) {
        points.histograms().for_each(|point| write_histogram(out, point));
    }
}

fn write_sample(out: &mut Vec<u8>, point: Point<Value>) {
    let at = int64(point.at);
    let len = fixed64_len(field::SAMPLE_VALUE, point.what) + varint_len(field::SAMPLE_TIMESTAMP, at);
    write_delimited(out, field::SAMPLES, len);
    write_fixed64(out, field::SAMPLE_VALUE, point.what);
    write_varint(out, field::SAMPLE_TIMESTAMP, at);
}

fn write_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    let labels: Vec<u8> = exemplar.labels.iter().flat_map(label_field).collect();
    let (value, at) = (exemplar.value, int64(exemplar.at));
    let numbers = fixed64_len(field::EXEMPLAR_VALUE, value) + varint_len(field::EXEMPLAR_TIMESTAMP, at);
    write_delimited(out, field::EXEMPLARS, labels.len() + numbers);
    out.extend_from_slice(&labels);
    write_fixed64(out, field::EXEMPLAR_VALUE, value);
    write_varint(out, field::EXEMPLAR_TIMESTAMP, at);
}

fn write_histogram(out: &mut Vec<u8>, point: Point<&NativeHistogram>) {
    let mut fields = Vec::new();
    histogram::write_fields(&mut fields, point, None);
    write_delimited(out, field::HISTOGRAMS, fields.len());
    out.extend_from_slice(&fields);
}

/// Whether an exemplar's labels have names within the old pattern.
pub(super) fn is_exemplar_portable(labels: &Labels) -> bool {
    labels.iter().all(|label| is_label_name(&label.name))
}

/// A request that carries types and help texts only, with how many families are in it and how many are left out.
pub(super) fn metadata_message<'a>(families: impl IntoIterator<Item = &'a Metadata>) -> (Vec<u8>, usize, usize) {
    let mut request = proto::WriteRequest::default();
    let mut unsendable = 0;
    for metadata in families {
        if !is_metric_name(&metadata.family) {
            unsendable += 1;
            continue;
        }
        request.metadata.push(proto::MetricMetadata {
            r#type: i32::from(metadata.kind as u8),
            metric_family_name: metadata.family.to_string(),
            help: metadata.help.to_string(),
            unit: metadata.unit.to_string(),
        });
    }
    (request.encode_to_vec(), request.metadata.len(), unsendable)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::encode::compress::Packer;
    use crate::encode::{Body, Compression, DecodeError, Decoded, Encoder, Format, Part, UnpackError};
    use crate::model::{LabelError, MetricKind, Sample, Series, Snapshot, Timestamp};

    const MESSAGE_BYTES_MAX: usize = 1 << 20;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().fold(Labels::builder(), |builder, (name, value)| builder.with(*name, *value)).build().unwrap()
    }

    fn series(pairs: &[(&str, &str)]) -> Arc<Series> {
        Arc::new(Series::new(labels(pairs), Arc::new(Metadata::of("up", MetricKind::Gauge, "is it up"))))
    }

    fn snapshot(at: i64, samples: &[(&Arc<Series>, Value)]) -> Snapshot {
        let samples = samples.iter().map(|(series, value)| Sample::new(Arc::clone(series), *value));
        Snapshot::new(Timestamp::from_millis(at), samples.collect())
    }

    fn encode<'a>(parts: impl IntoIterator<Item = Part<'a>>, external_labels: &Labels) -> Body {
        let parts: Vec<Part> = parts.into_iter().collect();
        let format = Format::new(crate::encode::Message::V1, Compression::Snappy);
        Encoder::new(external_labels.clone(), None).encode(&parts, format)
    }

    fn decode(body: &[u8]) -> Result<Decoded, DecodeError> {
        crate::encode::decode(body, crate::encode::Message::V1, Compression::Snappy, MESSAGE_BYTES_MAX)
    }

    fn compress(message: &[u8]) -> Bytes {
        Packer::new().pack(message, Compression::Snappy)
    }

    fn message(body: &Body) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(&body.bytes).unwrap()
    }

    #[test]
    fn a_body_is_byte_for_byte_what_the_specification_draws() {
        let up = series(&[("__name__", "up"), ("a", "b")]);
        let body = encode([Part::from(&snapshot(1, &[(&up, Value::STALE)]))], &Labels::empty());
        let golden: &[&[u8]] = &[
            &[0x0a, 37],                                                // WriteRequest.timeseries, 37 bytes
            &[0x0a, 14],                                                // TimeSeries.labels
            &[0x0a, 8, b'_', b'_', b'n', b'a', b'm', b'e', b'_', b'_'], // Label.name
            &[0x12, 2, b'u', b'p'],                                     // Label.value
            &[0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b'],                   // the second label
            &[0x12, 11],                                                // TimeSeries.samples
            &[0x09, 0x02, 0, 0, 0, 0, 0, 0xf0, 0x7f],                   // Sample.value: the stale marker's bits
            &[0x10, 1],                                                 // Sample.timestamp
        ];
        assert_eq!(message(&body), golden.concat());
    }

    #[test]
    fn our_writer_and_prost_write_the_same_bytes() {
        let (up, down) = (series(&[("__name__", "up"), ("job", "x")]), series(&[("__name__", "down"), ("Zone", "é")]));
        let values = [0.0, -0.0, 1.5, f64::NAN, f64::INFINITY];
        for (at, value) in [-1, 0, 1, 1_795_226_444_035, i64::MIN].into_iter().zip(values) {
            let snapshot = snapshot(at, &[(&up, Value::new(value)), (&down, Value::STALE)]);
            let body = encode([Part::from(&snapshot)], &Labels::empty());
            let parsed = proto::WriteRequest::decode(message(&body).as_slice()).unwrap();
            assert_eq!(parsed.encode_to_vec(), message(&body));
        }
    }

    #[test]
    fn several_instants_of_a_series_become_one_entry_oldest_first() {
        let (a, b) = (series(&[("__name__", "a")]), series(&[("__name__", "b")]));
        let same_as_a = series(&[("__name__", "a")]);
        let first = snapshot(1, &[(&a, Value::new(1.0))]);
        let second = snapshot(2, &[(&b, Value::new(2.0)), (&same_as_a, Value::new(3.0))]);
        let third = snapshot(3, &[(&b, Value::new(4.0))]);
        let body = encode([&first, &second, &third].map(Part::from), &Labels::empty());
        assert_eq!(body.sent.samples, 4);
        let decoded = decode(&body.bytes).unwrap();
        let points = |pairs: &[(i64, f64)]| -> Vec<(Timestamp, Value)> {
            pairs.iter().map(|(at, value)| (Timestamp::from_millis(*at), Value::new(*value))).collect()
        };
        assert_eq!(decoded.series.len(), 2);
        assert_eq!(decoded.series[0].samples, points(&[(1, 1.0), (2, 3.0)]));
        assert_eq!(decoded.series[1].samples, points(&[(2, 2.0), (3, 4.0)]));
    }

    #[test]
    fn external_labels_fill_gaps_and_stay_sorted() {
        let up = series(&[("__name__", "up"), ("site", "own")]);
        let external = labels(&[("Region", "eu"), ("site", "external"), ("zone", "z")]);
        let body = encode([Part::from(&snapshot(1, &[(&up, Value::new(1.0))]))], &external);
        let decoded = decode(&body.bytes).unwrap();
        let expected = labels(&[("Region", "eu"), ("__name__", "up"), ("site", "own"), ("zone", "z")]);
        assert_eq!(decoded.series[0].labels, expected);
    }

    #[test]
    fn names_that_v1_forbids_are_left_out_and_counted() {
        let good = series(&[("__name__", "up")]);
        let bad = [
            series(&[("job", "no metric name")]),
            series(&[("__name__", "a.b")]),
            series(&[("__name__", "up"), ("com.docker", "x")]),
        ];
        let samples: Vec<(&Arc<Series>, Value)> = bad.iter().chain([&good]).map(|s| (s, Value::new(1.0))).collect();
        let body = encode([Part::from(&snapshot(1, &samples))], &Labels::empty());
        assert_eq!((body.sent.samples, body.unsendable.samples), (1, 3));
        assert_eq!(decode(&body.bytes).unwrap().series[0].labels, *good.labels());
    }

    #[test]
    fn metadata_travels_without_samples_and_only_under_names_v1_allows() {
        let mut families =
            vec![Metadata::of("up", MetricKind::Gauge, "is it up"), Metadata::of("a.b", MetricKind::Counter, "")];
        families[0].unit = Cow::Borrowed("seconds");
        let body = Encoder::new(Labels::empty(), None).metadata(&families, Compression::Snappy);
        assert_eq!((body.entries, body.unsendable), (1, 1));
        let decoded = decode(&body.bytes).unwrap();
        assert_eq!(decoded, Decoded { series: Vec::new(), metadata: vec![families[0].clone()] });
    }

    #[test]
    fn a_claimed_size_is_checked_before_it_is_believed() {
        let four_gib = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(decode(&four_gib), Err(DecodeError::Unpack(UnpackError::TooLarge { .. }))));
    }

    #[test]
    fn a_label_set_against_the_rules_is_refused() {
        let label = |name: &str| proto::Label { name: name.into(), value: "x".into() };
        let series = proto::TimeSeries { labels: vec![label("b"), label("a")], ..proto::TimeSeries::default() };
        let request = proto::WriteRequest { timeseries: vec![series], metadata: Vec::new() };
        let body = compress(&request.encode_to_vec());
        assert!(matches!(decode(&body), Err(DecodeError::Labels(LabelError::Unsorted(_)))));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(decode(&body));
            drop(decode(&compress(&body)));
        }

        #[test]
        fn decoding_a_damaged_body_never_panics(at in 0usize..200, flip in 1u8..) {
            let up = series(&[("__name__", "up"), ("job", "x")]);
            let mut raw = message(&encode([Part::from(&snapshot(7, &[(&up, Value::STALE)]))], &Labels::empty()));
            let at = at % raw.len();
            raw[at] ^= flip;
            drop(decode(&compress(&raw)));
        }

        #[test]
        fn what_was_encoded_is_decoded_bit_for_bit(
            at in any::<i64>(),
            values in proptest::collection::vec((".{1,20}", any::<u64>()), 0..20),
        ) {
            let named = |ordinal: usize| format!("m{ordinal}");
            let all: Vec<Arc<Series>> = values.iter().enumerate()
                .map(|(ordinal, (text, _))| series(&[("__name__", &named(ordinal)), ("text", text)])).collect();
            let samples: Vec<(&Arc<Series>, Value)> =
                all.iter().zip(&values).map(|(series, (_, bits))| (series, Value::from_bits(*bits))).collect();
            let sent = snapshot(at, &samples);
            let body = encode([Part::from(&sent)], &Labels::empty());
            let decoded = decode(&body.bytes).unwrap();
            prop_assert_eq!(body.sent.samples, values.len());
            for (sample, got) in sent.samples.iter().zip(&decoded.series) {
                prop_assert_eq!(sample.series.labels(), &got.labels);
                prop_assert_eq!(&got.samples, &vec![(sent.at, sample.value)]);
            }
        }
    }
}
