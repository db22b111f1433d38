//! Remote-write 1.0 bodies: protobuf `prometheus.WriteRequest` in a snappy block.
//!
//! Invariants: labels are sorted, unique and non-empty; a series stands once in a body, its samples oldest first; values
//! are the bits they were taken with, because a stale marker is a signalling NaN. [`decode`] never panics, whatever it is
//! given, and allocates nothing for a length that only the sender claims.
//!
//! The writer lays out the message itself from prost's primitives: the generated structs would copy every label of every
//! series into strings of their own, which costs more than all the rest. [`decode`] goes through the generated structs,
//! so each proves the other.

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::Part;
use crate::model::{Label, LabelError, Labels, Metadata, MetricKind, Series, Timestamp, Value, is_metric_name};
use crate::proto;

/// A request body and what is in it.
#[derive(Clone, Debug)]
pub struct Body {
    /// Compressed, ready to send. Empty message where everything was left out.
    pub bytes: Bytes,
    /// How many samples, or families in a metadata request.
    pub entries: usize,
    /// How many samples or families were left out because remote-write 1.0 cannot carry their names.
    pub unsendable: usize,
}

/// The field numbers of `proto/remote_write_v1.proto`.
mod field {
    pub(super) const TIMESERIES: u32 = 1;
    pub(super) const LABELS: u32 = 1;
    pub(super) const SAMPLES: u32 = 2;
    pub(super) const NAME: u32 = 1;
    pub(super) const LABEL_VALUE: u32 = 2;
    pub(super) const SAMPLE_VALUE: u32 = 1;
    pub(super) const TIMESTAMP: u32 = 2;
}

/// Every field number above is below 16, so its key is one byte.
const KEY_BYTES: usize = 1;
const FIXED64_BYTES: usize = 8;

/// The request that carries `parts`, which are given oldest first; a series in several of them becomes one `TimeSeries`.
///
/// `external_labels` are added where a series lacks them.
pub fn write_request<'a>(parts: impl IntoIterator<Item = Part<'a>>, external_labels: &Labels) -> Body {
    let mut message = Vec::new();
    let (mut entries, mut unsendable) = (0, 0);
    for (series, points) in join(parts) {
        let labels = series.labels().with_defaults(external_labels);
        if super::is_portable(&labels) {
            write_series(&mut message, &labels, &points);
            entries += points.len();
        } else {
            unsendable += points.len();
        }
    }
    Body { bytes: compress(&message), entries, unsendable }
}

type Point = (Timestamp, Value);

/// The samples by series, in the order in which the series first appear.
fn join<'a>(parts: impl IntoIterator<Item = Part<'a>>) -> Vec<(&'a Series, Vec<Point>)> {
    let mut joined: Vec<(&Series, Vec<Point>)> = Vec::new();
    let mut seen: HashMap<&Labels, usize> = HashMap::new();
    for (ordinal, part) in parts.into_iter().enumerate() {
        if ordinal == 1 {
            // The first part holds no series twice, so a request with one instant never pays for the index.
            seen.extend(joined.iter().enumerate().map(|(at, (series, _))| (series.labels(), at)));
        }
        for sample in part.samples {
            let point = (part.at, sample.value);
            if let Some(&at) = seen.get(sample.series.labels()) {
                joined[at].1.push(point);
                continue;
            }
            if ordinal > 0 {
                seen.insert(sample.series.labels(), joined.len());
            }
            joined.push((&sample.series, vec![point]));
        }
    }
    joined
}

fn write_series(message: &mut Vec<u8>, labels: &Labels, points: &[Point]) {
    let labels_len: usize = labels.iter().map(|label| delimited_len(label_len(label))).sum();
    let points_len: usize = points.iter().map(|point| delimited_len(point_len(*point))).sum();
    write_delimited(message, field::TIMESERIES, labels_len + points_len);
    for label in labels {
        write_delimited(message, field::LABELS, label_len(label));
        write_text(message, field::NAME, &label.name);
        write_text(message, field::LABEL_VALUE, &label.value);
    }
    for &point in points {
        write_delimited(message, field::SAMPLES, point_len(point));
        let (at, value) = (wire_timestamp(point.0), point.1.bits());
        // proto3 leaves a zero out. Zero here means the bits of +0.0; -0.0 is another value and is written.
        if value != 0 {
            encode_key(field::SAMPLE_VALUE, WireType::SixtyFourBit, message);
            message.extend_from_slice(&value.to_le_bytes());
        }
        if at != 0 {
            encode_key(field::TIMESTAMP, WireType::Varint, message);
            encode_varint(at, message);
        }
    }
}

fn label_len(label: &Label) -> usize {
    delimited_len(label.name.len()) + delimited_len(label.value.len())
}

fn point_len((at, value): Point) -> usize {
    let value_len = if value.bits() == 0 { 0 } else { KEY_BYTES + FIXED64_BYTES };
    let at = wire_timestamp(at);
    value_len + if at == 0 { 0 } else { KEY_BYTES + encoded_len_varint(at) }
}

/// protobuf's `int64` is the two's complement as an unsigned varint (protobuf encoding, "Signed Integers").
fn wire_timestamp(at: Timestamp) -> u64 {
    at.millis().cast_unsigned()
}

fn delimited_len(len: usize) -> usize {
    KEY_BYTES + encoded_len_varint(len as u64) + len
}

fn write_delimited(message: &mut Vec<u8>, field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, message);
    encode_varint(len as u64, message);
}

fn write_text(message: &mut Vec<u8>, field: u32, text: &str) {
    write_delimited(message, field, text.len());
    message.extend_from_slice(text.as_bytes());
}

/// A request that carries types and help texts only, as Prometheus sends them with remote-write 1.0: apart from samples.
pub fn metadata_request<'a>(families: impl IntoIterator<Item = &'a Metadata>) -> Body {
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
    Body { bytes: compress(&request.encode_to_vec()), entries: request.metadata.len(), unsendable }
}

/// Snappy's block format (remote-write 1.0, "Protocol": "the framed format MUST NOT be used").
fn compress(message: &[u8]) -> Bytes {
    // Fails only from 4 GiB on, which `max_samples_per_send` keeps out of reach.
    let compressed = snap::raw::Encoder::new().compress_vec(message);
    compressed.unwrap_or_else(|error| panic!("BUG: a request too large for snappy: {error}")).into()
}

/// What a body held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Each series with its samples, in the order of the body.
    pub series: Vec<DecodedSeries>,
    /// Types and help texts.
    pub metadata: Vec<Metadata>,
}

/// One `TimeSeries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedSeries {
    /// Sorted, unique, nothing empty.
    pub labels: Labels,
    /// In the order of the body.
    pub samples: Vec<(Timestamp, Value)>,
}

/// Why a body is not a remote-write 1.0 request.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// More than the caller allows.
    #[error("the body says it unpacks to {claimed} bytes; at most {allowed} are accepted")]
    TooLarge {
        /// What the snappy header says.
        claimed: usize,
        /// What the caller allows.
        allowed: usize,
    },
    /// Not a snappy block.
    #[error("the body is not a snappy block: {0}")]
    Compression(#[from] snap::Error),
    /// Not the protobuf message.
    #[error("the body is not a prometheus.WriteRequest: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A label set against the specification ("Labels").
    #[error("a series breaks the rules for labels: {0}")]
    Labels(#[from] LabelError),
}

/// Reads a body that anybody may have sent.
///
/// The size in the snappy header is checked before anything is allocated for it. The structs it becomes take up to about
/// 25 times `max_message_bytes` for the most hostile message.
///
/// # Errors
/// When the body is too large, is not what it should be, or breaks the rules for labels.
pub fn decode(body: &[u8], max_message_bytes: usize) -> Result<Decoded, DecodeError> {
    let claimed = snap::raw::decompress_len(body)?;
    if claimed > max_message_bytes {
        return Err(DecodeError::TooLarge { claimed, allowed: max_message_bytes });
    }
    let message = snap::raw::Decoder::new().decompress_vec(body)?;
    let request = proto::WriteRequest::decode(message.as_slice())?;
    let series = request.timeseries.into_iter().map(decode_series).collect::<Result<_, _>>()?;
    Ok(Decoded { series, metadata: request.metadata.into_iter().map(decode_metadata).collect() })
}

fn decode_series(series: proto::TimeSeries) -> Result<DecodedSeries, LabelError> {
    let labels = series.labels.into_iter().map(|label| Label { name: label.name.into(), value: label.value.into() });
    let labels = Labels::from_sorted(labels.collect())?;
    let samples = series.samples.into_iter();
    let samples = samples.map(|sample| (Timestamp::from_millis(sample.timestamp), Value::from_bits(sample.value)));
    Ok(DecodedSeries { labels, samples: samples.collect() })
}

fn decode_metadata(metadata: proto::MetricMetadata) -> Metadata {
    Metadata {
        kind: u8::try_from(metadata.r#type).map_or(MetricKind::Unknown, MetricKind::from_number),
        family: Cow::Owned(metadata.metric_family_name),
        help: Cow::Owned(metadata.help),
        unit: Cow::Owned(metadata.unit),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Sample, Snapshot};

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

    fn message(body: &Body) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(&body.bytes).unwrap()
    }

    #[test]
    fn a_body_is_byte_for_byte_what_the_specification_draws() {
        let up = series(&[("__name__", "up"), ("a", "b")]);
        let body = write_request([Part::from(&snapshot(1, &[(&up, Value::STALE)]))], &Labels::empty());
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
            let body = write_request([Part::from(&snapshot)], &Labels::empty());
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
        let body = write_request([&first, &second, &third].map(Part::from), &Labels::empty());
        assert_eq!(body.entries, 4);
        let decoded = decode(&body.bytes, MESSAGE_BYTES_MAX).unwrap();
        let points = |pairs: &[(i64, f64)]| -> Vec<Point> {
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
        let body = write_request([Part::from(&snapshot(1, &[(&up, Value::new(1.0))]))], &external);
        let decoded = decode(&body.bytes, MESSAGE_BYTES_MAX).unwrap();
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
        let body = write_request([Part::from(&snapshot(1, &samples))], &Labels::empty());
        assert_eq!((body.entries, body.unsendable), (1, 3));
        assert_eq!(decode(&body.bytes, MESSAGE_BYTES_MAX).unwrap().series[0].labels, *good.labels());
    }

    #[test]
    fn metadata_travels_without_samples_and_only_under_names_v1_allows() {
        let mut families =
            vec![Metadata::of("up", MetricKind::Gauge, "is it up"), Metadata::of("a.b", MetricKind::Counter, "")];
        families[0].unit = Cow::Borrowed("seconds");
        let body = metadata_request(&families);
        assert_eq!((body.entries, body.unsendable), (1, 1));
        let decoded = decode(&body.bytes, MESSAGE_BYTES_MAX).unwrap();
        assert_eq!(decoded, Decoded { series: Vec::new(), metadata: vec![families[0].clone()] });
    }

    #[test]
    fn a_claimed_size_is_checked_before_it_is_believed() {
        let four_gib = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(decode(&four_gib, MESSAGE_BYTES_MAX), Err(DecodeError::TooLarge { .. })));
    }

    #[test]
    fn a_label_set_against_the_rules_is_refused() {
        let label = |name: &str| proto::Label { name: name.into(), value: "x".into() };
        let series = proto::TimeSeries { labels: vec![label("b"), label("a")], samples: Vec::new() };
        let request = proto::WriteRequest { timeseries: vec![series], metadata: Vec::new() };
        let body = compress(&request.encode_to_vec());
        assert!(matches!(decode(&body, MESSAGE_BYTES_MAX), Err(DecodeError::Labels(LabelError::Unsorted(_)))));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(decode(&body, MESSAGE_BYTES_MAX));
            drop(decode(&compress(&body), MESSAGE_BYTES_MAX));
        }

        #[test]
        fn decoding_a_damaged_body_never_panics(at in 0usize..200, flip in 1u8..) {
            let up = series(&[("__name__", "up"), ("job", "x")]);
            let mut raw = message(&write_request([Part::from(&snapshot(7, &[(&up, Value::STALE)]))], &Labels::empty()));
            let at = at % raw.len();
            raw[at] ^= flip;
            drop(decode(&compress(&raw), MESSAGE_BYTES_MAX));
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
            let body = write_request([Part::from(&sent)], &Labels::empty());
            let decoded = decode(&body.bytes, MESSAGE_BYTES_MAX).unwrap();
            prop_assert_eq!(body.entries, values.len());
            for (sample, got) in sent.samples.iter().zip(&decoded.series) {
                prop_assert_eq!(sample.series.labels(), &got.labels);
                prop_assert_eq!(&got.samples, &vec![(sent.at, sample.value)]);
            }
        }
    }
}
