//! The few pieces of protobuf's wire format that both messages are written with.
//!
//! As proto3 wants it, a field that is zero is left out. Zero means all bits: -0.0 is another value and is written.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::model::{Timestamp, Value};

const FIXED64_BYTES: usize = 8;

fn key_len(field: u32) -> usize {
    encoded_len_varint(u64::from(field) << 3)
}

/// A field that begins with its length, all of it.
pub(super) fn delimited_len(field: u32, len: usize) -> usize {
    key_len(field) + encoded_len_varint(len as u64) + len
}

/// The beginning of such a field; `len` bytes must follow.
pub(super) fn write_delimited(out: &mut Vec<u8>, field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

pub(super) fn write_text(out: &mut Vec<u8>, field: u32, text: &str) {
    write_delimited(out, field, text.len());
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn varint_len(field: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(field) + encoded_len_varint(value) }
}

pub(super) fn write_varint(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value, out);
    }
}

pub(super) fn fixed64_len(field: u32, value: Value) -> usize {
    if value.bits() == 0 { 0 } else { key_len(field) + FIXED64_BYTES }
}

pub(super) fn write_fixed64(out: &mut Vec<u8>, field: u32, value: Value) {
    if value.bits() != 0 {
        encode_key(field, WireType::SixtyFourBit, out);
        out.extend_from_slice(&value.bits().to_le_bytes());
    }
}

/// protobuf's `int64` is the two's complement as an unsigned varint (protobuf encoding, "Signed Integers").
pub(super) fn int64(at: Timestamp) -> u64 {
    at.millis().cast_unsigned()
}

/// protobuf's `sint32` and `sint64`: small numbers of either sign are short.
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}
