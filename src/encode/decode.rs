//! From a request body that anybody may have sent back to the data model.
//!
//! Never panics, and allocates nothing for a length that only the sender claims. A message is read one series at a time
//! and the first that breaks the rules ends it, so that a message of nothing but beginnings does not
//! become structs many times its size.

mod budget;

use std::borrow::Cow;
use std::sync::Arc;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::compress::{UnpackError, unpack};
use super::{Compression, Message, Tally};
use crate::model::{
    BucketCounts, BucketSpan, HistogramError, HistogramParts, Label, LabelError, Labels, Metadata, MetricKind,
    NativeHistogram, ResetHint, Timestamp, Value,
};
use crate::proto;

/// What a body held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Each series with what came for it, in the order of the body.
    pub series: Vec<DecodedSeries>,
    /// Types and help texts that came without series.
    pub metadata: Vec<Metadata>,
}

impl Decoded {
    /// How much of what there is.
    pub fn tally(&self) -> Tally {
        self.series.iter().fold(Tally::default(), |tally, series| Tally {
            samples: tally.samples + series.samples.len(),
            histograms: tally.histograms + series.histograms.len(),
            exemplars: tally.exemplars + series.exemplars.len(),
        })
    }
}

/// One `TimeSeries`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedSeries {
    /// Sorted, unique, nothing empty.
    pub labels: Labels,
    /// In the order of the body.
    pub samples: Vec<(Timestamp, Value)>,
    /// When the counter of each sample began; as many as `samples`, or none where none is known.
    pub starts: Vec<Option<Timestamp>>,
    /// In the order of the body.
    pub histograms: Vec<DecodedHistogram>,
    /// In the order of the body.
    pub exemplars: Vec<DecodedExemplar>,
    /// What came with the series; only remote-write 2.0 has it.
    pub metadata: Option<Arc<Metadata>>,
}

impl DecodedSeries {
    /// A series with samples only.
    pub fn new(labels: Labels, samples: Vec<(Timestamp, Value)>) -> Self {
        let (starts, histograms, exemplars) = (Vec::new(), Vec::new(), Vec::new());
        Self { labels, samples, starts, histograms, exemplars, metadata: None }
    }
}

/// One native histogram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedHistogram {
    /// When.
    pub at: Timestamp,
    /// When it began.
    pub start: Option<Timestamp>,
    /// What.
    pub histogram: NativeHistogram,
}

/// One exemplar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedExemplar {
    /// What it refers to.
    pub labels: Labels,
    /// What was observed.
    pub value: Value,
    /// When.
    pub at: Timestamp,
}

/// Why a body is not a remote-write request.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It cannot be unpacked, or holds too much.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Not the protobuf message.
    #[error("the body is not the message {expected}: {error}")]
    Protobuf {
        /// What it should be.
        expected: &'static str,
        /// How it is not.
        error: prost::DecodeError,
    },
    /// It ends within a field.
    #[error("the body is not the message {expected}, or only the beginning of one")]
    Cut {
        /// What it should be.
        expected: &'static str,
    },
    /// A symbol that is no text.
    #[error("a symbol is not UTF-8")]
    SymbolText,
    /// A label set against the specification ("Labels").
    #[error("a series breaks the rules for labels: {0}")]
    Labels(#[from] LabelError),
    /// A series that is nobody's.
    #[error("a series has no labels")]
    Unlabelled,
    /// A symbol that is not in the table.
    #[error("a reference to symbol {reference} is outside the table of {symbols}")]
    Reference {
        /// What was referred to.
        reference: u32,
        /// How many there are.
        symbols: usize,
    },
    /// A name without a value.
    #[error("a list of label references has an odd length")]
    OddReferences,
    /// A table that does not begin as it must.
    #[error("the table of symbols does not begin with an empty one")]
    Symbols,
    /// A series with nothing in it, or both samples and histograms (remote-write 2.0, "Samples and Histogram Samples").
    #[error("a series has neither samples nor histograms, or both")]
    SamplesOrHistograms,
    /// Samples or histograms of a series that are not in the order of time (remote-write 1.0 and 2.0, "Ordering").
    #[error("the samples of a series do not rise in time")]
    Order,
    /// More than is read into memory.
    #[error("the request holds more than {max} labels, samples and symbols; send fewer at once")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
    /// A histogram against the rules.
    #[error("a native histogram breaks the rules: {0}")]
    Histogram(#[from] HistogramError),
    /// A histogram of half one flavour and half another.
    #[error("a native histogram has neither an integer nor a float count")]
    HistogramCount,
}

impl DecodeError {
    /// Whether it holds more than the caller allows.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Unpack(UnpackError::TooLarge { .. }) | Self::TooMany { .. })
    }
}

/// Reads a body.
///
/// # Errors
/// When it unpacks to more than `max_message_bytes`, is not what it should be, or breaks the rules.
pub fn decode(
    body: &[u8],
    message: Message,
    compression: Compression,
    max_message_bytes: usize,
) -> Result<Decoded, DecodeError> {
    decode_message(&unpack(body, compression, max_message_bytes)?, message)
}

/// Reads a body about which nothing is known, and says which message it is.
///
/// # Errors
/// As [`decode`].
pub fn decode_unknown(
    body: &[u8],
    message: Option<Message>,
    max_message_bytes: usize,
) -> Result<(Message, Compression, Decoded), DecodeError> {
    let compression = Compression::guess(body);
    let unpacked = unpack(body, compression, max_message_bytes)?;
    let message = message.unwrap_or_else(|| guess(&unpacked));
    Ok((message, compression, decode_message(&unpacked, message)?))
}

/// The two messages have no field number in common, so the first says which it is; an empty one is either.
fn guess(mut message: &[u8]) -> Message {
    match decode_key(&mut message) {
        Ok((number, _)) if number >= SYMBOLS => Message::V2,
        _ => Message::V1,
    }
}

const V1_TIMESERIES: u32 = 1;
const V1_METADATA: u32 = 3;
const SYMBOLS: u32 = 4;
const V2_TIMESERIES: u32 = 5;

fn decode_message(bytes: &[u8], message: Message) -> Result<Decoded, DecodeError> {
    budget::check(bytes, message)?;
    let decoded = match message {
        Message::V1 => decode_v1(bytes),
        Message::V2 => decode_v2(bytes),
    }?;
    let rises = |series: &DecodedSeries| {
        series.samples.is_sorted_by(|one, next| one.0 < next.0)
            && series.histograms.is_sorted_by(|one, next| one.at < next.at)
    };
    if decoded.series.iter().all(rises) { Ok(decoded) } else { Err(DecodeError::Order) }
}

/// Calls `take` with the number and the content of every field that begins with its length.
fn each_field(
    mut rest: &[u8],
    message: Message,
    mut take: impl FnMut(u32, &[u8]) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let failed = |error| DecodeError::Protobuf { expected: message.name(), error };
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).map_err(failed)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).map_err(failed)?;
            continue;
        }
        let len = decode_varint(&mut rest).map_err(failed)?;
        let field = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len));
        let Some((field, behind)) = field else { return Err(DecodeError::Cut { expected: message.name() }) };
        take(number, field)?;
        rest = behind;
    }
    Ok(())
}

fn parse<T: prost::Message + Default>(bytes: &[u8], message: Message) -> Result<T, DecodeError> {
    T::decode(bytes).map_err(|error| DecodeError::Protobuf { expected: message.name(), error })
}

fn decode_v1(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut decoded = Decoded::default();
    each_field(bytes, Message::V1, |number, field| {
        match number {
            V1_TIMESERIES => decoded.series.push(v1_series(parse(field, Message::V1)?)?),
            V1_METADATA => decoded.metadata.push(v1_metadata(parse(field, Message::V1)?)),
            _ => {}
        }
        Ok(())
    })?;
    Ok(decoded)
}

fn v1_labels(labels: Vec<proto::Label>) -> Result<Labels, LabelError> {
    let labels = labels.into_iter().map(|label| Label { name: label.name.into(), value: label.value.into() });
    Labels::from_sorted(labels.collect())
}

fn v1_series(series: proto::TimeSeries) -> Result<DecodedSeries, DecodeError> {
    let labels = v1_labels(series.labels)?;
    if labels.is_empty() {
        return Err(DecodeError::Unlabelled);
    }
    let samples = series.samples.into_iter();
    let samples = samples.map(|sample| (Timestamp::from_millis(sample.timestamp), Value::from_bits(sample.value)));
    let mut decoded = DecodedSeries::new(labels, samples.collect());
    for exemplar in series.exemplars {
        decoded.exemplars.push(DecodedExemplar {
            labels: v1_labels(exemplar.labels)?,
            value: Value::from_bits(exemplar.value),
            at: Timestamp::from_millis(exemplar.timestamp),
        });
    }
    for histogram in series.histograms {
        let at = Timestamp::from_millis(histogram.timestamp);
        decoded.histograms.push(DecodedHistogram { at, start: None, histogram: v1_histogram(histogram)? });
    }
    Ok(decoded)
}

fn v1_metadata(metadata: proto::MetricMetadata) -> Metadata {
    Metadata {
        kind: kind(metadata.r#type),
        family: Cow::Owned(metadata.metric_family_name),
        help: Cow::Owned(metadata.help),
        unit: Cow::Owned(metadata.unit),
    }
}

fn kind(number: i32) -> MetricKind {
    u8::try_from(number).map_or(MetricKind::Unknown, MetricKind::from_number)
}

fn decode_v2(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut symbols: Vec<Arc<str>> = Vec::new();
    each_field(bytes, Message::V2, |number, field| {
        if number == SYMBOLS {
            let text = std::str::from_utf8(field).map_err(|_| DecodeError::SymbolText)?;
            symbols.push(text.into());
        }
        Ok(())
    })?;
    let mut decoded = Decoded::default();
    if bytes.is_empty() {
        return Ok(decoded);
    }
    if symbols.first().is_none_or(|first| !first.is_empty()) {
        return Err(DecodeError::Symbols);
    }
    each_field(bytes, Message::V2, |number, field| {
        if number == V2_TIMESERIES {
            decoded.series.push(v2_series(parse(field, Message::V2)?, &symbols)?);
        }
        Ok(())
    })?;
    Ok(decoded)
}

fn symbol(symbols: &[Arc<str>], reference: u32) -> Result<&Arc<str>, DecodeError> {
    symbols.get(reference as usize).ok_or(DecodeError::Reference { reference, symbols: symbols.len() })
}

fn v2_labels(references: &[u32], symbols: &[Arc<str>]) -> Result<Labels, DecodeError> {
    let (pairs, rest) = references.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(DecodeError::OddReferences);
    }
    let label = |[name, value]: &[u32; 2]| {
        Ok(Label { name: Arc::clone(symbol(symbols, *name)?), value: Arc::clone(symbol(symbols, *value)?) })
    };
    Ok(Labels::from_sorted(pairs.iter().map(label).collect::<Result<_, DecodeError>>()?)?)
}

/// Zero says that nobody knows (remote-write 2.0, "Start Timestamp").
fn v2_start(millis: i64) -> Option<Timestamp> {
    (millis != 0).then_some(Timestamp::from_millis(millis))
}

fn v2_series(series: proto::v2::TimeSeries, symbols: &[Arc<str>]) -> Result<DecodedSeries, DecodeError> {
    let labels = v2_labels(&series.labels_refs, symbols)?;
    if labels.is_empty() {
        return Err(DecodeError::Unlabelled);
    }
    if series.samples.is_empty() == series.histograms.is_empty() {
        return Err(DecodeError::SamplesOrHistograms);
    }
    let at_and_value =
        |sample: &proto::v2::Sample| (Timestamp::from_millis(sample.timestamp), Value::from_bits(sample.value));
    let mut decoded = DecodedSeries::new(labels, series.samples.iter().map(at_and_value).collect());
    if series.samples.iter().any(|sample| sample.start_timestamp != 0) {
        decoded.starts = series.samples.iter().map(|sample| v2_start(sample.start_timestamp)).collect();
    }
    for exemplar in series.exemplars {
        decoded.exemplars.push(DecodedExemplar {
            labels: v2_labels(&exemplar.labels_refs, symbols)?,
            value: Value::from_bits(exemplar.value),
            at: Timestamp::from_millis(exemplar.timestamp),
        });
    }
    for histogram in series.histograms {
        let (at, start) = (Timestamp::from_millis(histogram.timestamp), v2_start(histogram.start_timestamp));
        decoded.histograms.push(DecodedHistogram { at, start, histogram: v2_histogram(histogram)? });
    }
    decoded.metadata = v2_metadata(series.metadata, &decoded.labels, symbols)?.map(Arc::new);
    Ok(decoded)
}

/// The message does not name the family; the metric's name stands for it.
fn v2_metadata(
    metadata: Option<proto::v2::Metadata>,
    labels: &Labels,
    symbols: &[Arc<str>],
) -> Result<Option<Metadata>, DecodeError> {
    let Some(metadata) = metadata else { return Ok(None) };
    Ok(Some(Metadata {
        kind: kind(metadata.r#type),
        family: Cow::Owned(labels.metric_name().to_owned()),
        help: Cow::Owned(symbol(symbols, metadata.help_ref)?.to_string()),
        unit: Cow::Owned(symbol(symbols, metadata.unit_ref)?.to_string()),
    }))
}

/// Both messages' histograms are the same but for their Rust types.
macro_rules! histogram_of {
    ($name:ident, $message:path, $count:path, $zero_count:path) => {
        fn $name(from: $message) -> Result<NativeHistogram, DecodeError> {
            use $count as Count;
            use $zero_count as ZeroCount;
            let counts = match (from.count, from.zero_count) {
                (Some(Count::CountInt(count)), zero) => BucketCounts::Integer {
                    count,
                    zero_count: match zero {
                        Some(ZeroCount::ZeroCountInt(zero)) => zero,
                        None => 0,
                        Some(ZeroCount::ZeroCountFloat(_)) => return Err(DecodeError::HistogramCount),
                    },
                    positive_deltas: from.positive_deltas,
                    negative_deltas: from.negative_deltas,
                },
                (Some(Count::CountFloat(count)), zero) => BucketCounts::Float {
                    count: Value::from_bits(count),
                    zero_count: match zero {
                        Some(ZeroCount::ZeroCountFloat(zero)) => Value::from_bits(zero),
                        None => Value::from_bits(0),
                        Some(ZeroCount::ZeroCountInt(_)) => return Err(DecodeError::HistogramCount),
                    },
                    positive_counts: values(from.positive_counts),
                    negative_counts: values(from.negative_counts),
                },
                (None, _) => return Err(DecodeError::HistogramCount),
            };
            Ok(NativeHistogram::new(HistogramParts {
                schema: from.schema,
                sum: Value::from_bits(from.sum),
                zero_threshold: Value::from_bits(from.zero_threshold),
                counts,
                positive_spans: from
                    .positive_spans
                    .iter()
                    .map(|span| BucketSpan { offset: span.offset, length: span.length })
                    .collect(),
                negative_spans: from
                    .negative_spans
                    .iter()
                    .map(|span| BucketSpan { offset: span.offset, length: span.length })
                    .collect(),
                custom_values: values(from.custom_values),
                reset_hint: u8::try_from(from.reset_hint).map_or(ResetHint::Unknown, ResetHint::from_number),
            })?)
        }
    };
}

histogram_of!(v1_histogram, proto::Histogram, proto::histogram::Count, proto::histogram::ZeroCount);
histogram_of!(v2_histogram, proto::v2::Histogram, proto::v2::histogram::Count, proto::v2::histogram::ZeroCount);

fn values(bits: Vec<u64>) -> Vec<Value> {
    bits.into_iter().map(Value::from_bits).collect()
}
