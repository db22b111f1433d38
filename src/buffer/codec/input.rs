//! Whole bytes in and out: LEB128 numbers and what is built of them.
//!
//! Reading believes nothing: a count is compared with the bytes that are left before anything is allocated for it.

/// The longest LEB128 form of 64 bits.
const VARINT_MAX_BYTES: usize = 10;

/// The bytes are not what this codec writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) struct Damage;

/// Bytes still to be read.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Damage> {
        let (&first, rest) = self.0.split_first().ok_or(Damage)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Damage)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Damage> {
        let mut number = 0_u64;
        for shift in 0..VARINT_MAX_BYTES {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == VARINT_MAX_BYTES - 1 && bits > 1 {
                return Err(Damage);
            }
            number |= bits << (7 * shift);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damage)
    }

    /// A number of at most `limit`.
    pub(super) fn count(&mut self, limit: usize) -> Result<usize, Damage> {
        usize::try_from(self.varint()?).ok().filter(|count| *count <= limit).ok_or(Damage)
    }

    /// How many things follow that take at least `bytes_each`: never more than could be there.
    pub(super) fn count_of(&mut self, bytes_each: usize) -> Result<usize, Damage> {
        let count = self.count(usize::MAX)?;
        if count <= self.0.len() / bytes_each { Ok(count) } else { Err(Damage) }
    }

    /// Text with its length before it.
    pub(super) fn text(&mut self) -> Result<&'a str, Damage> {
        let len = self.count_of(1)?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Damage)
    }
}

/// Appends `number` as LEB128.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Appends `text` with its length before it.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Small numbers of either sign as small numbers.
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

/// The inverse of [`zigzag`].
pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zigzag_is_its_own_inverse() {
        for number in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
    }

    #[test]
    fn numbers_come_back_and_none_is_longer_than_it_may_be() {
        for number in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, number);
            assert_eq!(Input(&out).varint(), Ok(number));
        }
        assert_eq!(Input(&[0xff; 11]).varint(), Err(Damage));
        assert_eq!(Input(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varint(), Err(Damage));
    }
}
