//! An adaptive binary range coder: a decision that is usually the same costs a small part of a bit.
//!
//! The coder narrows an interval of 32 bits by each decision, in proportion to how likely it was, and writes the leading
//! byte as soon as both ends share it (G. Nigel N. Martin, "Range encoding", 1979; binary and without carries as in Matt
//! Mahoney, "Data Compression Explained", 4.1). Both sides learn the same from each decision, in whole numbers, so the
//! same bytes mean the same everywhere. Reading past the end gives zeros and is found out by [`Decoder::check_end`].

use super::input::Damage;

/// Bits of a probability.
const CHANCE_BITS: u32 = 12;
/// The bits below them count what was seen, up to this.
const SEEN_MAX: u16 = 15;

/// How far a probability moves towards what was seen, in 65536ths: far at first, then always a little.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "below 65536")]
const STEPS: [i32; SEEN_MAX as usize + 1] = {
    let mut steps = [0; SEEN_MAX as usize + 1];
    let mut seen = 0;
    while seen < steps.len() {
        // 1 / (seen + 1.5)
        steps[seen] = (2 * 65_536 / (2 * seen + 3)) as i32;
        seen += 1;
    }
    steps
};

/// How likely a yes is, as learnt so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chance(u16);

impl Chance {
    /// Nothing is known yet.
    pub(super) const EVEN: Self = Self(1 << (CHANCE_BITS - 1 + 4));

    /// In 4096ths; never none and never all of them.
    fn of_yes(self) -> u32 {
        u32::from(self.0 >> 4).clamp(1, (1 << CHANCE_BITS) - 1)
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "twelve bits stay twelve bits")]
    fn learn(&mut self, yes: bool) {
        let (chance, seen) = (i32::from(self.0 >> 4), self.0 & SEEN_MAX);
        let aim = if yes { (1 << CHANCE_BITS) - 1 } else { 0 };
        let moved = chance + (((aim - chance) * STEPS[usize::from(seen)]) >> 16);
        self.0 = (moved as u16) << 4 | (seen + 1).min(SEEN_MAX);
    }
}

/// Where the interval is cut: at or below is yes.
fn cut(low: u32, high: u32, chance: Chance) -> u32 {
    let share = (u64::from(high - low) * u64::from(chance.of_yes())) >> CHANCE_BITS;
    low + u32::try_from(share).unwrap_or(0)
}

/// Writes decisions.
pub(super) struct Encoder {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { low: 0, high: u32::MAX, out: Vec::new() }
    }

    pub(super) fn put(&mut self, yes: bool, chance: &mut Chance) {
        let cut = cut(self.low, self.high, *chance);
        chance.learn(yes);
        if yes {
            self.high = cut;
        } else {
            self.low = cut + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push(self.high.to_be_bytes()[0]);
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
        }
    }

    /// All bytes; what would only be zeros at the end is left out.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.low > 0 {
            // The leading bytes differ, so this lies within.
            self.out.push(self.low.to_be_bytes()[0] + 1);
        }
        self.out
    }
}

/// Reads decisions.
pub(super) struct Decoder<'a> {
    low: u32,
    high: u32,
    code: u32,
    bytes: &'a [u8],
    /// Zeros taken from behind the end.
    beyond: usize,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { low: 0, high: u32::MAX, code: 0, bytes, beyond: 0 };
        for _ in 0..4 {
            decoder.shift();
        }
        decoder
    }

    fn shift(&mut self) {
        let byte = if let Some((&byte, rest)) = self.bytes.split_first() {
            self.bytes = rest;
            byte
        } else {
            self.beyond += 1;
            0
        };
        self.code = self.code << 8 | u32::from(byte);
    }

    #[inline]
    pub(super) fn take(&mut self, chance: &mut Chance) -> bool {
        let cut = cut(self.low, self.high, *chance);
        let yes = self.code <= cut;
        chance.learn(yes);
        if yes {
            self.high = cut;
        } else {
            self.low = cut + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
            self.shift();
        }
        yes
    }

    /// Whether the bytes held what was read and no more.
    pub(super) fn check_end(&self) -> Result<(), Damage> {
        let needed = if self.low > 0 { 3 } else { 4 };
        if self.bytes.is_empty() && self.beyond == needed { Ok(()) } else { Err(Damage) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_decisions_come_back_and_nothing_is_left(decisions in prop::collection::vec((any::<bool>(), 0_usize..3), 0..500)) {
            let mut chances = [Chance::EVEN; 3];
            let mut encoder = Encoder::new();
            for (yes, which) in &decisions {
                encoder.put(*yes, &mut chances[*which]);
            }
            let bytes = encoder.finish();
            let mut chances = [Chance::EVEN; 3];
            let mut decoder = Decoder::new(&bytes);
            for (yes, which) in decisions {
                prop_assert_eq!(decoder.take(&mut chances[which]), yes);
            }
            prop_assert_eq!(decoder.check_end(), Ok(()));
        }

        #[test]
        fn a_chance_is_never_certain(decisions in prop::collection::vec(any::<bool>(), 0..200)) {
            let mut chance = Chance::EVEN;
            for yes in decisions {
                chance.learn(yes);
                prop_assert!((1..4096).contains(&chance.of_yes()));
            }
        }
    }

    #[test]
    fn what_is_always_the_same_costs_next_to_nothing() {
        let mut encoder = Encoder::new();
        let mut chance = Chance::EVEN;
        for _ in 0..10_000 {
            encoder.put(false, &mut chance);
        }
        assert!(encoder.finish().len() < 20);
    }

    #[test]
    fn bytes_that_are_missing_or_too_many_are_noticed() {
        let mut encoder = Encoder::new();
        let mut chance = Chance::EVEN;
        let decisions: Vec<bool> = (0..100).map(|i| i % 3 == 0).collect();
        for yes in &decisions {
            encoder.put(*yes, &mut chance);
        }
        let mut bytes = encoder.finish();
        let ends = |bytes: &[u8]| {
            let (mut decoder, mut chance) = (Decoder::new(bytes), Chance::EVEN);
            for _ in &decisions {
                decoder.take(&mut chance);
            }
            decoder.check_end().is_ok()
        };
        assert!(ends(&bytes));
        bytes.push(0);
        assert!(!ends(&bytes));
        bytes.truncate(bytes.len() / 2);
        assert!(!ends(&bytes));
    }
}
