//! Native histograms on the wire. Both messages give their fields the same numbers; a start is version 2.0's alone.

use super::points::Point;
use super::wire::{int64, varint_len, write_delimited, write_fixed64, write_varint, zigzag};
use crate::model::{BucketCounts, BucketSpan, NativeHistogram, Value};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// The field numbers of `Histogram` and `BucketSpan` in `proto/`.
mod field {
    pub(super) const COUNT_INT: u32 = 1;
    pub(super) const COUNT_FLOAT: u32 = 2;
    pub(super) const SUM: u32 = 3;
    pub(super) const SCHEMA: u32 = 4;
    pub(super) const ZERO_THRESHOLD: u32 = 5;
    pub(super) const ZERO_COUNT_INT: u32 = 6;
    pub(super) const ZERO_COUNT_FLOAT: u32 = 7;
    pub(super) const NEGATIVE_SPANS: u32 = 8;
    pub(super) const NEGATIVE_DELTAS: u32 = 9;
    pub(super) const NEGATIVE_COUNTS: u32 = 10;
    pub(super) const POSITIVE_SPANS: u32 = 11;
    pub(super) const POSITIVE_DELTAS: u32 = 12;
    pub(super) const POSITIVE_COUNTS: u32 = 13;
    pub(super) const RESET_HINT: u32 = 14;
    pub(super) const TIMESTAMP: u32 = 15;
    pub(super) const CUSTOM_VALUES: u32 = 16;
    pub(super) const START_TIMESTAMP: u32 = 17;
    pub(super) const OFFSET: u32 = 1;
    pub(super) const LENGTH: u32 = 2;
}

/// The fields of a histogram, in the order of their numbers.
pub(super) fn write_fields(out: &mut Vec<u8>, point: Point<&NativeHistogram>, start: Option<u64>) {
    let parts = point.what.parts();
    match &parts.counts {
        BucketCounts::Integer { count, .. } => write_oneof_varint(out, field::COUNT_INT, *count),
        BucketCounts::Float { count, .. } => write_oneof_fixed64(out, field::COUNT_FLOAT, *count),
    }
    write_fixed64(out, field::SUM, parts.sum);
    write_varint(out, field::SCHEMA, zigzag(i64::from(parts.schema)));
    write_fixed64(out, field::ZERO_THRESHOLD, parts.zero_threshold);
    match &parts.counts {
        BucketCounts::Integer { zero_count, positive_deltas, negative_deltas, .. } => {
            write_oneof_varint(out, field::ZERO_COUNT_INT, *zero_count);
            write_spans(out, field::NEGATIVE_SPANS, &parts.negative_spans);
            write_deltas(out, field::NEGATIVE_DELTAS, negative_deltas);
            write_spans(out, field::POSITIVE_SPANS, &parts.positive_spans);
            write_deltas(out, field::POSITIVE_DELTAS, positive_deltas);
        }
        BucketCounts::Float { zero_count, positive_counts, negative_counts, .. } => {
            write_oneof_fixed64(out, field::ZERO_COUNT_FLOAT, *zero_count);
            write_spans(out, field::NEGATIVE_SPANS, &parts.negative_spans);
            write_values(out, field::NEGATIVE_COUNTS, negative_counts);
            write_spans(out, field::POSITIVE_SPANS, &parts.positive_spans);
            write_values(out, field::POSITIVE_COUNTS, positive_counts);
        }
    }
    write_varint(out, field::RESET_HINT, u64::from(parts.reset_hint as u8));
    write_varint(out, field::TIMESTAMP, int64(point.at));
    write_values(out, field::CUSTOM_VALUES, &parts.custom_values);
    write_varint(out, field::START_TIMESTAMP, start.unwrap_or(0));
}

/// A member of a `oneof` is written also when it is zero: that it is there says which flavour the histogram has.
fn write_oneof_varint(out: &mut Vec<u8>, field: u32, value: u64) {
    encode_key(field, WireType::Varint, out);
    encode_varint(value, out);
}

fn write_oneof_fixed64(out: &mut Vec<u8>, field: u32, value: Value) {
    encode_key(field, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.bits().to_le_bytes());
}

fn write_spans(out: &mut Vec<u8>, field: u32, spans: &[BucketSpan]) {
    for span in spans {
        let (offset, length) = (zigzag(i64::from(span.offset)), u64::from(span.length));
        write_delimited(out, field, varint_len(field::OFFSET, offset) + varint_len(field::LENGTH, length));
        write_varint(out, field::OFFSET, offset);
        write_varint(out, field::LENGTH, length);
    }
}

/// Packed, as proto3 writes repeated numbers.
fn write_deltas(out: &mut Vec<u8>, field: u32, deltas: &[i64]) {
    if deltas.is_empty() {
        return;
    }
    write_delimited(out, field, deltas.iter().map(|delta| encoded_len_varint(zigzag(*delta))).sum());
    for delta in deltas {
        encode_varint(zigzag(*delta), out);
    }
}

fn write_values(out: &mut Vec<u8>, field: u32, values: &[Value]) {
    if values.is_empty() {
        return;
    }
    write_delimited(out, field, size_of_val(values));
    for value in values {
        out.extend_from_slice(&value.bits().to_le_bytes());
    }
}
