//! Chance with a seed: the same seed, the same world. Not for anything that must not be guessed.

/// `SplitMix64` (Steele, Lea and Flood 2014): small, seeded, good enough for a stage.
#[derive(Clone, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`.
    pub(super) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + i64::try_from(self.next() % high.abs_diff(low).saturating_add(1)).unwrap_or(0)
    }

    pub(super) fn one_in(&mut self, odds: u64) -> bool {
        self.next().is_multiple_of(odds)
    }

    /// 64 hexadecimal digits, as the engine names things.
    pub(super) fn hex64(&mut self) -> String {
        [(); 4].map(|()| format!("{:016x}", self.next())).concat()
    }
}
