//! How many samples one request may hold: what is configured, or what the receiver has shown to be too many for it.
//!
//! Halves on a 413 and remembers; grows back slowly, so that one odd answer does not slow an endpoint for ever; never
//! below one, and never above what is configured.

/// After so many full requests in a row that were taken, twice as many samples are tried again.
const GROW_AFTER_REQUESTS: u32 = 32;

/// The size of a request for one endpoint, in samples.
#[derive(Debug)]
pub(super) struct PartSize {
    configured: usize,
    current: usize,
    /// The last size that was taken; 0 before the first.
    proven: usize,
    taken_in_a_row: u32,
}

/// What to do about a request that was too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// Send it in smaller parts.
    Split,
    /// It held a single sample: there is nothing to split.
    Indivisible,
}

impl PartSize {
    pub(super) fn new(configured: usize) -> Self {
        let configured = configured.max(1);
        Self { configured, current: configured, proven: 0, taken_in_a_row: 0 }
    }

    /// Takes up a size that was learnt in an earlier run.
    pub(super) fn restore(&mut self, learnt: usize) {
        self.current = learnt.clamp(1, self.configured);
    }

    /// The most samples for the next request; at least 1.
    pub(super) fn current(&self) -> usize {
        self.current
    }

    /// A request with so many samples was taken.
    pub(super) fn taken(&mut self, samples: usize) {
        if samples < self.current {
            return;
        }
        self.proven = self.current;
        self.taken_in_a_row += 1;
        if self.taken_in_a_row >= GROW_AFTER_REQUESTS {
            self.taken_in_a_row = 0;
            self.current = (self.current * 2).min(self.configured);
        }
    }

    /// A request with so many samples was too large.
    pub(super) fn too_large(&mut self, samples: usize) -> TooLarge {
        self.taken_in_a_row = 0;
        if samples > 1 {
            self.current = samples / 2;
            return TooLarge::Split;
        }
        // The sample was at fault, not the size of requests: go back to what worked before it.
        self.current = self.proven.max(1);
        TooLarge::Indivisible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_too_large_is_halved_and_the_size_remembered() {
        let mut size = PartSize::new(2000);
        assert_eq!(size.too_large(1500), TooLarge::Split);
        assert_eq!(size.current(), 750);
        size.taken(750);
        size.taken(10);
        assert_eq!(size.current(), 750);
    }

    #[test]
    fn a_sample_that_is_too_large_alone_does_not_shrink_what_follows() {
        let mut size = PartSize::new(8);
        size.taken(8);
        assert_eq!(size.too_large(8), TooLarge::Split);
        assert_eq!(size.too_large(4), TooLarge::Split);
        assert_eq!(size.too_large(2), TooLarge::Split);
        assert_eq!(size.too_large(1), TooLarge::Indivisible);
        assert_eq!(size.current(), 8);
    }

    #[test]
    fn the_size_grows_back_to_what_is_configured_and_no_further() {
        let mut size = PartSize::new(100);
        size.too_large(100);
        for expected in [50, 100, 100] {
            assert_eq!(size.current(), expected);
            for _ in 0..GROW_AFTER_REQUESTS {
                size.taken(size.current());
            }
        }
    }

    #[test]
    fn a_size_is_never_zero() {
        assert_eq!(PartSize::new(0).current(), 1);
        let mut size = PartSize::new(1);
        assert_eq!(size.too_large(1), TooLarge::Indivisible);
        assert_eq!(size.current(), 1);
    }
}
