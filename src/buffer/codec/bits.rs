//! Single bits in and out, the first in a byte's highest place.
//!
//! The last byte is filled up with zeros. Reading past the end is damage, never a panic.

use super::input::Damage;

/// The most bits of one call; what is pending and what is added fit into 64 together.
const CALL_MAX_BITS: u32 = 56;

/// Collects bits.
#[derive(Default)]
pub(super) struct BitWriter {
    out: Vec<u8>,
    pending: u64,
    pending_bits: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits of `bits`, at most 64; the others must be zero.
    pub(super) fn put(&mut self, bits: u64, count: u32) {
        if count > CALL_MAX_BITS {
            self.put(bits >> 32, count - 32);
            self.put(bits & u64::from(u32::MAX), 32);
            return;
        }
        self.pending = self.pending << count | bits;
        self.pending_bits += count;
        while self.pending_bits >= 8 {
            self.pending_bits -= 8;
            self.out.push((self.pending >> self.pending_bits).to_le_bytes()[0]);
        }
    }

    /// All bytes, the last one filled up.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.pending_bits > 0 {
            self.put(0, 8 - self.pending_bits);
        }
        self.out
    }
}

/// Bits still to be read.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    pending: u64,
    pending_bits: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pending: 0, pending_bits: 0 }
    }

    /// The next `count` bits, at most 64.
    pub(super) fn take(&mut self, count: u32) -> Result<u64, Damage> {
        if count > CALL_MAX_BITS {
            return Ok(self.take(count - 32)? << 32 | self.take(32)?);
        }
        while self.pending_bits < count {
            let (&byte, rest) = self.bytes.split_first().ok_or(Damage)?;
            self.bytes = rest;
            self.pending = self.pending << 8 | u64::from(byte);
            self.pending_bits += 8;
        }
        self.pending_bits -= count;
        Ok(self.pending >> self.pending_bits & ((1 << count) - 1))
    }

    /// Whether nothing but the fill of the last byte is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.bytes.is_empty() && self.pending_bits < 8 && self.pending & ((1 << self.pending_bits) - 1) == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_of_any_lengths_come_back(pieces in prop::collection::vec((any::<u64>(), 0_u32..=64), 0..50)) {
            let pieces: Vec<(u64, u32)> =
                pieces.into_iter().map(|(bits, count)| (if count == 64 { bits } else { bits & ((1 << count) - 1) }, count)).collect();
            let mut writer = BitWriter::default();
            for (bits, count) in &pieces {
                writer.put(*bits, *count);
            }
            let out = writer.finish();
            let mut reader = BitReader::new(&out);
            for (bits, count) in pieces {
                prop_assert_eq!(reader.take(count), Ok(bits));
            }
            prop_assert!(reader.is_at_end());
            prop_assert_eq!(reader.take(8), Err(Damage));
        }
    }
}
