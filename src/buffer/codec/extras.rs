//! What a snapshot has besides numbers: native histograms and exemplars, behind its samples in a record of another kind.
//!
//! Rare, so plain: every one names its series in full, nothing refers to another record, and every bit comes back. Reading
//! never panics and allocates for nothing that is only claimed.

use std::borrow::Cow;
use std::sync::Arc;

use crate::model::{
    BucketCounts, BucketSpan, Exemplar, HistogramParts, HistogramSample, Interner, Label, Labels, Metadata, MetricKind,
    NativeHistogram, ResetHint, Series, Snapshot, Timestamp, Value,
};

use super::definitions::{put_start, read_start, shared};
use super::input::{Damage, Input, put, put_text, unzigzag, zigzag};

/// Appends the histograms and exemplars of `snapshot`.
pub(super) fn encode(snapshot: &Snapshot, out: &mut Vec<u8>) {
    put(out, snapshot.histograms.len() as u64);
    for sample in &snapshot.histograms {
        put_series(out, &sample.series);
        put_start(out, sample.start);
        put_histogram(out, sample.histogram.parts());
    }
    put(out, snapshot.exemplars.len() as u64);
    for exemplar in &snapshot.exemplars {
        put_series(out, &exemplar.series);
        put_labels(out, &exemplar.labels);
        put_value(out, exemplar.value);
        put(out, zigzag(exemplar.at.millis()));
    }
}

/// Reads into `snapshot` what [`encode`] wrote.
pub(super) fn read(input: &mut Input<'_>, interner: &mut Interner, snapshot: &mut Snapshot) -> Result<(), Damage> {
    for _ in 0..input.count_of(SERIES_BYTES_MIN)? {
        let series = read_series(input, interner)?;
        let start = read_start(input)?;
        let histogram = NativeHistogram::new(read_histogram(input)?).map_err(|_| Damage)?;
        snapshot.histograms.push(HistogramSample { series, histogram: Arc::new(histogram), start });
    }
    for _ in 0..input.count_of(SERIES_BYTES_MIN)? {
        let series = read_series(input, interner)?;
        let labels = read_labels(input)?;
        let value = read_value(input)?;
        let at = Timestamp::from_millis(unzigzag(input.varint()?));
        snapshot.exemplars.push(Exemplar { series, labels, value, at });
    }
    if input.0.is_empty() { Ok(()) } else { Err(Damage) }
}

/// Its kind, three texts' lengths and how many labels.
const SERIES_BYTES_MIN: usize = 5;

fn put_series(out: &mut Vec<u8>, series: &Series) {
    let metadata = series.metadata();
    out.push(metadata.kind as u8);
    for text in [&metadata.family, &metadata.help, &metadata.unit] {
        put_text(out, text);
    }
    put_labels(out, series.labels());
}

fn read_series(input: &mut Input<'_>, interner: &mut Interner) -> Result<Arc<Series>, Damage> {
    let kind = MetricKind::from_number(input.byte()?);
    let mut text = || Ok(Cow::Owned(input.text()?.to_owned()));
    let metadata = Arc::new(Metadata { family: text()?, kind, help: text()?, unit: text()? });
    Ok(shared(read_labels(input)?, &metadata, interner))
}

fn put_labels(out: &mut Vec<u8>, labels: &Labels) {
    put(out, labels.len() as u64);
    for label in labels {
        put_text(out, &label.name);
        put_text(out, &label.value);
    }
}

fn read_labels(input: &mut Input<'_>) -> Result<Labels, Damage> {
    let many = input.count_of(2)?;
    let labels: Result<Vec<Label>, Damage> =
        (0..many).map(|_| Ok(Label { name: input.text()?.into(), value: input.text()?.into() })).collect();
    Labels::from_sorted(labels?).map_err(|_| Damage)
}

fn put_value(out: &mut Vec<u8>, value: Value) {
    out.extend_from_slice(&value.bits().to_le_bytes());
}

fn read_value(input: &mut Input<'_>) -> Result<Value, Damage> {
    let bits = input.bytes(8)?.first_chunk().ok_or(Damage)?;
    Ok(Value::from_bits(u64::from_le_bytes(*bits)))
}

fn put_histogram(out: &mut Vec<u8>, parts: &HistogramParts) {
    put(out, zigzag(i64::from(parts.schema)));
    put_value(out, parts.sum);
    put_value(out, parts.zero_threshold);
    out.push(parts.reset_hint as u8);
    for spans in [&parts.positive_spans, &parts.negative_spans] {
        put(out, spans.len() as u64);
        for span in spans {
            put(out, zigzag(i64::from(span.offset)));
            put(out, u64::from(span.length));
        }
    }
    put_values(out, &parts.custom_values);
    match &parts.counts {
        BucketCounts::Integer { count, zero_count, positive_deltas, negative_deltas } => {
            out.push(0);
            put(out, *count);
            put(out, *zero_count);
            for deltas in [positive_deltas, negative_deltas] {
                put(out, deltas.len() as u64);
                for delta in deltas {
                    put(out, zigzag(*delta));
                }
            }
        }
        BucketCounts::Float { count, zero_count, positive_counts, negative_counts } => {
            out.push(1);
            put_value(out, *count);
            put_value(out, *zero_count);
            put_values(out, positive_counts);
            put_values(out, negative_counts);
        }
    }
}

fn put_values(out: &mut Vec<u8>, values: &[Value]) {
    put(out, values.len() as u64);
    for value in values {
        put_value(out, *value);
    }
}

fn read_values(input: &mut Input<'_>) -> Result<Vec<Value>, Damage> {
    let many = input.count_of(8)?;
    (0..many).map(|_| read_value(input)).collect()
}

fn read_spans(input: &mut Input<'_>) -> Result<Vec<BucketSpan>, Damage> {
    let many = input.count_of(2)?;
    let span = |input: &mut Input<'_>| {
        let offset = i32::try_from(unzigzag(input.varint()?)).map_err(|_| Damage)?;
        let length = u32::try_from(input.varint()?).map_err(|_| Damage)?;
        Ok(BucketSpan { offset, length })
    };
    (0..many).map(|_| span(input)).collect()
}

fn read_deltas(input: &mut Input<'_>) -> Result<Vec<i64>, Damage> {
    let many = input.count_of(1)?;
    (0..many).map(|_| Ok(unzigzag(input.varint()?))).collect()
}

fn read_histogram(input: &mut Input<'_>) -> Result<HistogramParts, Damage> {
    let schema = i32::try_from(unzigzag(input.varint()?)).map_err(|_| Damage)?;
    let (sum, zero_threshold) = (read_value(input)?, read_value(input)?);
    let reset_hint = ResetHint::from_number(input.byte()?);
    let (positive_spans, negative_spans) = (read_spans(input)?, read_spans(input)?);
    let custom_values = read_values(input)?;
    let counts = match input.byte()? {
        0 => BucketCounts::Integer {
            count: input.varint()?,
            zero_count: input.varint()?,
            positive_deltas: read_deltas(input)?,
            negative_deltas: read_deltas(input)?,
        },
        1 => BucketCounts::Float {
            count: read_value(input)?,
            zero_count: read_value(input)?,
            positive_counts: read_values(input)?,
            negative_counts: read_values(input)?,
        },
        _ => return Err(Damage),
    };
    Ok(HistogramParts {
        schema,
        sum,
        zero_threshold,
        counts,
        positive_spans,
        negative_spans,
        custom_values,
        reset_hint,
    })
}
