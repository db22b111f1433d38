//! One value against the base value of its series: exact for every bit pattern, a bit where nothing changed.
//!
//! Most numbers that machines measure are whole or have a few decimals (nanoseconds told as seconds, say). Such a value is
//! a whole number at some [`Scale`], and the difference of two whole numbers is small. A scale is used only where going
//! there and back gives the very same 64 bits; everything else is kept as the bits that differ from the base's.
//!
//! | bits | what follows | meaning |
//! |---|---|---|
//! | `0` | | the base value |
//! | `10` | 6 bits n, n bits | zigzag difference to the base, at the base's scale |
//! | `110` | 4 bits scale, 6 bits n, n bits | the same at another scale; the base counts as 0 where it does not fit that scale |
//! | `1110` | | the stale marker |
//! | `1111` | 6 bits z, 6 bits n-1, n bits | differs from the base in n bits after the first z |
//!
//! Nothing here depends on any value but the base, so one damaged record costs one record.

use super::bits::{BitReader, BitWriter};
use super::input::{Damage, Input, put, unzigzag, zigzag};
use crate::model::Value;

/// Whole numbers up to here are exact in a double (IEEE 754: 53 bits of significand).
const EXACT_LIMIT: f64 = 9_007_199_254_740_992.0;
/// The most decimals; nanoseconds told as seconds have nine.
const DECIMALS_MAX: u8 = 9;
const POWERS_OF_TEN: [f64; DECIMALS_MAX as usize + 1] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Memory comes in pages.
const PAGE_BYTES: f64 = 4096.0;

/// What a value is a whole multiple of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Of ten to the minus this.
    Decimals(u8),
    /// Of 4096.
    Pages,
    /// Of nothing: its bits are kept.
    Bits,
}

impl Scale {
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Decimals(decimals) => decimals,
            Self::Pages => DECIMALS_MAX + 1,
            Self::Bits => DECIMALS_MAX + 2,
        }
    }

    pub(super) fn from_number(number: u8) -> Result<Self, Damage> {
        match number {
            0..=DECIMALS_MAX => Ok(Self::Decimals(number)),
            10 => Ok(Self::Pages),
            11 => Ok(Self::Bits),
            _ => Err(Damage),
        }
    }

    /// The coarsest at which `value` is whole.
    fn of(value: Value) -> Self {
        if let Some(whole) = Self::Decimals(0).whole(value) {
            return if whole != 0 && Self::Pages.whole(value).is_some() { Self::Pages } else { Self::Decimals(0) };
        }
        (1..=DECIMALS_MAX).map(Self::Decimals).find(|scale| scale.whole(value).is_some()).unwrap_or(Self::Bits)
    }

    /// `value` as a whole number at this scale, where coming back from it is exact.
    #[allow(clippy::cast_possible_truncation, reason = "below 2^53")]
    fn whole(self, value: Value) -> Option<i64> {
        let number = value.number();
        let scaled = match self {
            Self::Decimals(decimals) => number * POWERS_OF_TEN[usize::from(decimals)],
            Self::Pages => number / PAGE_BYTES,
            Self::Bits => return None,
        };
        let whole = scaled.round();
        let fits = whole.abs() < EXACT_LIMIT;
        fits.then_some(whole as i64).filter(|whole| self.value(*whole) == value)
    }

    /// The inverse of [`Scale::whole`]. IEEE 754 division and multiplication round the same way everywhere.
    #[allow(clippy::cast_precision_loss, reason = "what was whole is below 2^53; for damage any number will do")]
    fn value(self, whole: i64) -> Value {
        match self {
            Self::Decimals(decimals) => Value::new(whole as f64 / POWERS_OF_TEN[usize::from(decimals)]),
            Self::Pages => Value::new(whole as f64 * PAGE_BYTES),
            Self::Bits => Value::from_bits(whole.cast_unsigned()),
        }
    }
}

/// What a series' values in a segment are compared with: its first value there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    value: Value,
    scale: Scale,
    whole: i64,
}

impl Base {
    pub(super) fn new(value: Value) -> Self {
        let scale = Scale::of(value);
        Self { value, scale, whole: scale.whole(value).unwrap_or(0) }
    }

    /// Appends the base itself, as bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.scale.number());
        match self.scale {
            Scale::Bits => out.extend_from_slice(&self.value.bits().to_le_bytes()),
            _ => put(out, zigzag(self.whole)),
        }
    }

    pub(super) fn read(input: &mut Input<'_>) -> Result<Self, Damage> {
        let scale = Scale::from_number(input.byte()?)?;
        if scale == Scale::Bits {
            let bits = input.bytes(8)?.first_chunk().ok_or(Damage)?;
            return Ok(Self { value: Value::from_bits(u64::from_le_bytes(*bits)), scale, whole: 0 });
        }
        let whole = unzigzag(input.varint()?);
        Ok(Self { value: scale.value(whole), scale, whole })
    }

    /// The base at `scale`, where it fits.
    fn at(&self, scale: Scale) -> i64 {
        scale.whole(self.value).unwrap_or(0)
    }

    /// Appends `value`.
    pub(super) fn encode(&self, value: Value, out: &mut BitWriter<'_>) {
        if value == self.value {
            out.put(0, 1);
        } else if value.is_stale() {
            out.put(0b1110, 4);
        } else if let Some(whole) = self.scale.whole(value) {
            out.put(0b10, 2);
            put_difference(out, whole - self.whole);
        } else {
            match Scale::of(value) {
                Scale::Bits => {
                    out.put(0b1111, 4);
                    put_changed_bits(out, value.bits() ^ self.value.bits());
                }
                scale => {
                    out.put(0b110, 3);
                    out.put(u64::from(scale.number()), 4);
                    put_difference(out, scale.whole(value).unwrap_or(0) - self.at(scale));
                }
            }
        }
    }

    pub(super) fn decode(&self, input: &mut BitReader<'_>) -> Result<Value, Damage> {
        match input.ones(4)? {
            0 => Ok(self.value),
            1 if self.scale == Scale::Bits => Err(Damage),
            1 => Ok(self.scale.value(self.whole.wrapping_add(take_difference(input)?))),
            2 => {
                let scale = Scale::from_number(input.take(4)?.to_le_bytes()[0])?;
                if scale == Scale::Bits {
                    return Err(Damage);
                }
                Ok(scale.value(self.at(scale).wrapping_add(take_difference(input)?)))
            }
            3 => Ok(Value::STALE),
            _ => Ok(Value::from_bits(self.value.bits() ^ take_changed_bits(input)?)),
        }
    }
}

/// Both are below 2^53, so their zigzag difference has at most 55 bits.
fn put_difference(out: &mut BitWriter<'_>, difference: i64) {
    let difference = zigzag(difference);
    let bits = 64 - difference.leading_zeros();
    out.put(u64::from(bits), 6);
    out.put(difference, bits);
}

fn take_difference(input: &mut BitReader<'_>) -> Result<i64, Damage> {
    let bits = input.take(6)?;
    Ok(unzigzag(input.take(u32::try_from(bits).map_err(|_| Damage)?)?))
}

/// `changed` is not zero.
fn put_changed_bits(out: &mut BitWriter<'_>, changed: u64) {
    let (before, after) = (changed.leading_zeros(), changed.trailing_zeros());
    let bits = 64 - before - after;
    out.put(u64::from(before), 6);
    out.put(u64::from(bits - 1), 6);
    out.put(changed >> after, bits);
}

fn take_changed_bits(input: &mut BitReader<'_>) -> Result<u64, Damage> {
    let before = u32::try_from(input.take(6)?).map_err(|_| Damage)?;
    let bits = u32::try_from(input.take(6)?).map_err(|_| Damage)? + 1;
    let after = 64_u32.checked_sub(before + bits).ok_or(Damage)?;
    Ok(input.take(bits)? << after)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits_for(base: f64, value: f64) -> u32 {
        round_trip(Value::new(base), Value::new(value))
    }

    /// How many bits the value took, to the next whole byte less than one.
    fn round_trip(base: Value, value: Value) -> u32 {
        let base = Base::new(base);
        let mut written = Vec::new();
        base.write(&mut written);
        let mut input = Input(&written);
        assert_eq!(Base::read(&mut input), Ok(base));
        assert!(input.0.is_empty());
        let mut out = Vec::new();
        let mut writer = BitWriter::new(&mut out);
        base.encode(value, &mut writer);
        writer.finish();
        let mut reader = BitReader::new(&out);
        assert_eq!(base.decode(&mut reader), Ok(value));
        assert!(reader.is_at_end());
        u32::try_from(out.len()).unwrap() * 8
    }

    #[test]
    fn every_odd_value_is_exact_against_every_other() {
        let odd = [
            Value::STALE,
            Value::new(0.0),
            Value::new(-0.0),
            Value::new(f64::NAN),
            Value::from_bits(0xfff8_0000_0000_1234),
            Value::from_bits(0x7ff0_0000_0000_0001),
            Value::new(f64::INFINITY),
            Value::new(f64::NEG_INFINITY),
            Value::new(f64::MIN_POSITIVE / 2.0),
            Value::new(f64::MAX),
            Value::from_bits(u64::MAX),
            Value::new(0.1),
            Value::new(-12_345.678_901_234),
            Value::new(EXACT_LIMIT),
            Value::new(EXACT_LIMIT - 1.0),
            Value::new(-(EXACT_LIMIT - 1.0)),
            Value::new(4096.0 * 77.0),
            Value::new(1_795_226_444.035),
            Value::new(1.0 / 3.0),
        ];
        for base in odd {
            for value in odd {
                round_trip(base, value);
            }
        }
    }

    #[test]
    fn what_machines_measure_costs_a_few_bytes() {
        assert_eq!(bits_for(17.0, 17.0), 8);
        assert!(bits_for(1_000_000.0, 1_000_900.0) <= 24, "a counter");
        assert!(bits_for(52_428_800.0, 52_428_800.0 + 3.0 * 4096.0) <= 16, "memory, in pages");
        assert!(bits_for(345.678_901_234, 345.679_901_234) <= 32, "a millisecond of processor time");
        assert!(bits_for(0.0, 345.678_901_234) <= 56, "a counter that began at zero");
        assert!(bits_for(0.25, 0.75) <= 16, "a ratio");
    }

    proptest! {
        #[test]
        fn any_bits_are_exact_against_any_others(base: u64, value: u64) {
            round_trip(Value::from_bits(base), Value::from_bits(value));
        }

        #[test]
        fn decimals_are_exact_and_short(whole in -1_000_000_000_i64..1_000_000_000, step in 1_i64..1000, decimals in 0_u8..10) {
            #[allow(clippy::cast_precision_loss)]
            let number = |whole: i64| whole as f64 / POWERS_OF_TEN[usize::from(decimals)];
            prop_assert!(bits_for(number(whole), number(whole + step)) <= 56);
        }

        #[test]
        fn random_bytes_never_panic(base: u64, bytes: [u8; 12]) {
            let base = Base::new(Value::from_bits(base));
            let mut reader = BitReader::new(&bytes);
            while base.decode(&mut reader).is_ok() && !reader.is_at_end() {}
            Base::read(&mut Input(&bytes)).ok();
        }
    }
}
