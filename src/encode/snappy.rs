//! Snappy's block format, packed as tightly as it allows; unpacking is left to the `snap` crate.
//!
//! Samples of one series stand a fixed number of bytes apart, and their instants are those of the series before: nearly
//! everything in a request has been there already, at two distances at once. A packer that takes the first match it meets
//! keeps falling between the two. This one looks for what can be copied at every position (`finder`) and then for the
//! cheapest way through all of it (`parse`).
//!
//! Invariants: what comes out is a block that every decoder takes, never longer than [`max_packed_len`]; it depends on the
//! message alone, not on what was packed before; time and memory are bounded whatever the message is. Nothing in here knows
//! what is in a message.
//!
//! The format is google/snappy's `format_description.txt`; what is quoted in here is from there.

mod finder;
mod parse;

use self::finder::{Finder, Found};
use self::parse::{Parser, Piece};

/// So many bytes are parsed at a time. A copy cannot reach over the end of a segment, which costs a few bytes for each.
const SEGMENT_BYTES: usize = 1 << 13;
/// "Copy with 1-byte offset": 4 to 11 bytes ...
const NEAR_LEN_MIN: u8 = 4;
const NEAR_LEN_MAX: u8 = 11;
/// ... whose offset has 11 bits.
const NEAR_OFFSET_MAX: u16 = (1 << 11) - 1;
/// What it takes in the block.
const NEAR_COPY_BYTES: u16 = 2;
/// "Copy with 2-byte offset": 1 to 64 bytes.
const FAR_LEN_MAX: u8 = 64;
/// What it takes in the block.
const FAR_COPY_BYTES: u16 = 3;
/// The kinds of elements, in the two low bits of the first byte.
const LITERAL: u8 = 0b00;
const NEAR_COPY: u8 = 0b01;
const FAR_COPY: u8 = 0b10;
/// The upper six bits of a literal's first byte are its length less one up to here; from here on, how many bytes of
/// length follow.
const LITERAL_LEN_IN_TAG_MAX: u8 = 60;

/// The message is longer than the format can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a snappy block holds less than 4 GiB")]
pub(super) struct TooLong;

/// The most that `len` bytes become, as google/snappy's `MaxCompressedLength` reckons.
pub(super) fn max_packed_len(len: usize) -> usize {
    32 + len + len / 6
}

/// Packs messages; keeps its working memory, some 300 KiB, from one to the next.
pub(super) struct Snappy {
    finder: Finder,
    parser: Parser,
    found: Vec<Found>,
}

impl Snappy {
    pub(super) fn new() -> Self {
        Self { finder: Finder::new(), parser: Parser::new(), found: vec![Found::default(); SEGMENT_BYTES] }
    }

    /// Appends `message`, packed, to `out`.
    pub(super) fn pack(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), TooLong> {
        write_len(out, u32::try_from(message.len()).map_err(|_| TooLong)?);
        self.finder.begin();
        // Literals wait for the copy that ends their run, also over the end of a segment.
        let mut written = 0;
        for start in (0..message.len()).step_by(SEGMENT_BYTES) {
            let len = SEGMENT_BYTES.min(message.len() - start);
            let found = &mut self.found[..len];
            self.finder.find(message, start, found);
            self.parser.parse(found);
            let mut at = start;
            for piece in self.parser.pieces(found) {
                let Piece::Copy { len, offset } = piece else {
                    at += 1;
                    continue;
                };
                write_literal(out, &message[written..at]);
                write_copy(out, len, offset);
                at += usize::from(len);
                written = at;
            }
        }
        write_literal(out, &message[written..]);
        Ok(())
    }
}

/// "The uncompressed length, stored as a little-endian varint".
fn write_len(out: &mut Vec<u8>, len: u32) {
    prost::encoding::encode_varint(u64::from(len), out);
}

fn write_literal(out: &mut Vec<u8>, bytes: &[u8]) {
    let Some(last) = bytes.len().checked_sub(1) else { return };
    match u8::try_from(last) {
        Ok(last) if last < LITERAL_LEN_IN_TAG_MAX => out.push(last << 2 | LITERAL),
        _ => {
            let le = last.to_le_bytes();
            let zeros = le.iter().rev().take_while(|byte| **byte == 0).count();
            let len_bytes = &le[..le.len() - zeros];
            let extra = u8::try_from(len_bytes.len() - 1).unwrap_or(0);
            out.push((LITERAL_LEN_IN_TAG_MAX + extra) << 2 | LITERAL);
            out.extend_from_slice(len_bytes);
        }
    }
    out.extend_from_slice(bytes);
}

fn write_copy(out: &mut Vec<u8>, len: u8, offset: u16) {
    let [low, high] = offset.to_le_bytes();
    if (NEAR_LEN_MIN..=NEAR_LEN_MAX).contains(&len) && offset <= NEAR_OFFSET_MAX {
        out.extend_from_slice(&[high << 5 | (len - NEAR_LEN_MIN) << 2 | NEAR_COPY, low]);
    } else {
        out.extend_from_slice(&[(len - 1) << 2 | FAR_COPY, low, high]);
    }
}

#[cfg(test)]
mod tests;
