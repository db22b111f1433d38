//! The real buffer under what kills buffers: signals at any moment, power cuts on real file systems, disks that fill up.
//!
//! The short forms always run. `OUTHAUL_TORTURE=1` runs the long ones, which say at their end what they did.

mod cuts;
mod disks;
mod driver;
mod kills;

/// `long` with `OUTHAUL_TORTURE=1`, else `short`.
fn times(short: usize, long: usize) -> usize {
    if std::env::var_os("OUTHAUL_TORTURE").is_some() { long } else { short }
}

/// Says in the output of the tests what was not proved here, and why.
fn skip(what: &str, why: &str) {
    eprintln!("SKIPPED: {what}: {why}");
}

/// Numbers that differ from run to run; a failure says the seed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("OUTHAUL_TORTURE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 16 | 1);
        eprintln!("OUTHAUL_TORTURE_SEED={seed}");
        Self(seed)
    }

    /// Other numbers, that follow from the same seed.
    fn nth(self, number: u64) -> Self {
        Self(self.0.wrapping_add(number << 40))
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.between(0, end as u64 - 1)).unwrap()
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        // Xorshift (Marsaglia, 2003).
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        low + self.0 % (high - low + 1)
    }
}
