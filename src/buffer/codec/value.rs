//! One value against the base value of its series: exact for every bit pattern, a bit where nothing changed.
//!
//! Most numbers that machines measure are whole or have a few decimals (nanoseconds told as seconds, say). Such a value is
//! a whole number at some [`Scale`], and the difference of two whole numbers is small. A scale is used only where going
//! there and back gives the very same 64 bits; everything else is kept as the bits that differ from the base's.
//!
//! What is told of a value, as decisions of a range coder ([`Chance`](super::range::Chance), in a slot of its metric) and as bits:
//!
//! | decisions | bits | meaning |
//! |---|---|---|
//! | unchanged | | the base value |
//! | changed, plain, same | | differs from the base, at the base's scale, by as much as the sample before it in the slot |
//! | changed, plain, other, 6 of a length n, sign | n-1 | differs by an amount of n bits, of which the first is 1 |
//! | changed, odd, stale | | the stale marker |
//! | changed, odd, other, scaled | 4 scale, 6 n, n | zigzag difference at another scale; the base counts as 0 where it does not fit it |
//! | changed, odd, other, not scaled | 6 z, 6 n-1, n | differs from the base in n bits after the first z |
//!
//! Nothing here depends on any value but the base and those before in the same record, so one damaged record costs one.

use super::bits::{BitReader, BitWriter};
use super::input::{Damage, Input, put, unzigzag, zigzag};
use super::model::{Model, Slot};
use super::range::{Decoder, Encoder};
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

    /// What values are compared with from now on, `value` being the latest: at the finest scale that fits of the two.
    pub(super) fn moved_to(&self, value: Value) -> Self {
        let fresh = Self::new(value);
        match (self.scale, fresh.scale) {
            (Scale::Decimals(known), Scale::Decimals(decimals)) if known > decimals => {
                self.scale.whole(value).map_or(fresh, |whole| Self { value, scale: self.scale, whole })
            }
            _ => fresh,
        }
    }

    /// Whether the latest value is another than `other`'s.
    pub(super) fn differs_from(&self, other: &Self) -> bool {
        self.value != other.value
    }

    /// Appends `value`, of a metric in `slot`. `restless` says whether the base has left the one before it.
    pub(super) fn encode(&self, value: Value, slot: u8, restless: bool, out: &mut Output) {
        let changed = value != self.value;
        out.model.put_changed(slot, restless, changed, &mut out.decisions);
        if !changed {
            return;
        }
        let slot = out.model.slot(slot);
        let whole = if value.is_stale() { None } else { self.scale.whole(value) };
        out.decisions.put(whole.is_none(), &mut slot.odd);
        if let Some(whole) = whole {
            let difference = whole - self.whole;
            let same = difference == slot.difference;
            out.decisions.put(same, &mut slot.same);
            if !same {
                slot.difference = difference;
                put_difference(difference, slot, &mut out.decisions, &mut out.bits);
            }
            return;
        }
        out.decisions.put(value.is_stale(), &mut slot.odd_kind[0]);
        if value.is_stale() {
            return;
        }
        let scale = Scale::of(value);
        out.decisions.put(scale != Scale::Bits, &mut slot.odd_kind[1]);
        if scale == Scale::Bits {
            put_changed_bits(&mut out.bits, value.bits() ^ self.value.bits());
        } else {
            out.bits.put(u64::from(scale.number()), 4);
            let difference = zigzag(scale.whole(value).unwrap_or(0) - self.at(scale));
            let len = 64 - difference.leading_zeros();
            out.bits.put(u64::from(len), 6);
            out.bits.put(difference, len);
        }
    }

    /// The inverse of [`Base::encode`].
    #[inline]
    pub(super) fn decode(&self, slot: u8, restless: bool, input: &mut Source<'_>) -> Result<Value, Damage> {
        if input.model.take_changed(slot, restless, &mut input.decisions) {
            self.decode_changed(slot, input)
        } else {
            Ok(self.value)
        }
    }

    fn decode_changed(&self, slot: u8, input: &mut Source<'_>) -> Result<Value, Damage> {
        let slot = input.model.slot(slot);
        if !input.decisions.take(&mut slot.odd) {
            if self.scale == Scale::Bits {
                return Err(Damage);
            }
            if !input.decisions.take(&mut slot.same) {
                slot.difference = take_difference(slot, &mut input.decisions, &mut input.bits)?;
            }
            return Ok(self.scale.value(self.whole.wrapping_add(slot.difference)));
        }
        if input.decisions.take(&mut slot.odd_kind[0]) {
            return Ok(Value::STALE);
        }
        if !input.decisions.take(&mut slot.odd_kind[1]) {
            return Ok(Value::from_bits(self.value.bits() ^ take_changed_bits(&mut input.bits)?));
        }
        let scale = Scale::from_number(input.bits.take(4)?.to_le_bytes()[0])?;
        if scale == Scale::Bits {
            return Err(Damage);
        }
        let len = u32::try_from(input.bits.take(6)?).map_err(|_| Damage)?;
        Ok(scale.value(self.at(scale).wrapping_add(unzigzag(input.bits.take(len)?))))
    }
}

/// Values being written: what is decided, and the bits nobody could foretell.
pub(super) struct Output {
    model: Model,
    decisions: Encoder,
    bits: BitWriter,
}

impl Output {
    pub(super) fn new() -> Self {
        Self { model: Model::new(), decisions: Encoder::new(), bits: BitWriter::default() }
    }

    /// Appends all of it to `out`: the length of the decisions, the decisions, the bits.
    pub(super) fn finish(self, out: &mut Vec<u8>) {
        let decisions = self.decisions.finish();
        put(out, decisions.len() as u64);
        out.extend_from_slice(&decisions);
        out.extend_from_slice(&self.bits.finish());
    }
}

/// Values being read.
pub(super) struct Source<'a> {
    model: Model,
    decisions: Decoder<'a>,
    bits: BitReader<'a>,
}

impl<'a> Source<'a> {
    /// From the rest of a payload.
    pub(super) fn new(mut input: Input<'a>) -> Result<Self, Damage> {
        let len = input.count_of(1)?;
        let decisions = Decoder::new(input.bytes(len)?);
        Ok(Self { model: Model::new(), decisions, bits: BitReader::new(input.0) })
    }

    /// Whether exactly what there was has been read.
    pub(super) fn check_end(&self) -> Result<(), Damage> {
        self.decisions.check_end()?;
        if self.bits.is_at_end() { Ok(()) } else { Err(Damage) }
    }
}

/// Both values are below 2^53, so the amount has at most 54 bits. Its first bit is known from its length.
fn put_difference(difference: i64, slot: &mut Slot, decisions: &mut Encoder, bits: &mut BitWriter) {
    let amount = difference.unsigned_abs();
    let len = 64 - amount.leading_zeros();
    slot.put_length(len, decisions);
    decisions.put(difference < 0, &mut slot.negative);
    if len > 1 {
        bits.put(amount & !(1 << (len - 1)), len - 1);
    }
}

fn take_difference(slot: &mut Slot, decisions: &mut Decoder<'_>, bits: &mut BitReader<'_>) -> Result<i64, Damage> {
    let len = slot.take_length(decisions);
    let negative = decisions.take(&mut slot.negative);
    let amount = match len {
        0 => 0,
        len => bits.take(len - 1)? | 1 << (len - 1),
    };
    Ok(if negative { amount.cast_signed().wrapping_neg() } else { amount.cast_signed() })
}

/// `changed` is not zero.
fn put_changed_bits(out: &mut BitWriter, changed: u64) {
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
        let mut output = Output::new();
        base.encode(value, 7, false, &mut output);
        output.finish(&mut out);
        let mut source = Source::new(Input(&out)).unwrap();
        assert_eq!(base.decode(7, false, &mut source), Ok(value));
        assert_eq!(source.check_end(), Ok(()));
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
        // The first of a metric in a record: a byte for the length of the decisions, and about two for what is not learnt yet.
        assert!(bits_for(17.0, 17.0) <= 16);
        assert!(bits_for(1_000_000.0, 1_000_900.0) <= 40, "a counter");
        assert!(bits_for(52_428_800.0, 52_428_800.0 + 3.0 * 4096.0) <= 32, "memory, in pages");
        assert!(bits_for(345.678_901_234, 345.679_901_234) <= 48, "a millisecond of processor time");
        assert!(bits_for(0.0, 345.678_901_234) <= 72, "a counter that began at zero");
        assert!(bits_for(0.25, 0.75) <= 32, "a ratio");
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
            prop_assert!(bits_for(number(whole), number(whole + step)) <= 72);
        }

        #[test]
        fn random_bytes_never_panic(base: u64, bytes: [u8; 12]) {
            let base = Base::new(Value::from_bits(base));
            if let Ok(mut source) = Source::new(Input(&bytes)) {
                for _ in 0..100 {
                    base.decode(3, true, &mut source).ok();
                }
            }
            Base::read(&mut Input(&bytes)).ok();
        }
    }
}
