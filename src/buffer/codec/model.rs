//! What is expected of the values of one snapshot, learnt from those before in the same snapshot.
//!
//! Series of the same metric behave alike, so each metric has a [`Slot`] of its own. A model begins empty with every record
//! and every frame, so that none needs another to be read.

use super::range::{Chance, Decoder, Encoder};

/// Slots; metrics whose names fall on the same one share it, which costs a little and breaks nothing.
const SLOTS: usize = 256;
/// A length of 0 to 63 bits is six decisions; the first place is not used.
const LENGTHS: usize = 64;

/// The slot of a metric.
pub(super) fn slot_of(metric_name: &str) -> u8 {
    crc32c::crc32c(metric_name.as_bytes()).to_le_bytes()[0]
}

/// What is expected of one metric.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// Whether a value differs from its base, by whether the base has left the one before it, and by whether the sample before differed.
    changed: [Chance; 4],
    /// Whether it is told in another way than as a difference at the base's scale.
    pub(super) odd: Chance,
    /// Which way then: whether it is the stale marker, and if not, whether it is whole at some scale.
    pub(super) odd_kind: [Chance; 2],
    /// Whether the difference is that of the sample before.
    pub(super) same: Chance,
    /// Whether it is negative.
    pub(super) negative: Chance,
    length: [Chance; LENGTHS],
    /// The difference before.
    pub(super) difference: i64,
}

impl Slot {
    const NEW: Self = Self {
        changed: [Chance::EVEN; 4],
        odd: Chance::EVEN,
        odd_kind: [Chance::EVEN; 2],
        same: Chance::EVEN,
        negative: Chance::EVEN,
        length: [Chance::EVEN; LENGTHS],
        difference: 0,
    };

    /// Bits of a difference's amount, at most 63.
    pub(super) fn put_length(&mut self, bits: u32, out: &mut Encoder) {
        let mut node = 1;
        for place in (0..6).rev() {
            let yes = bits >> place & 1 == 1;
            out.put(yes, &mut self.length[node]);
            node = node * 2 + usize::from(yes);
        }
    }

    pub(super) fn take_length(&mut self, input: &mut Decoder<'_>) -> u32 {
        let mut node = 1;
        for _ in 0..6 {
            node = node * 2 + usize::from(input.take(&mut self.length[node]));
        }
        u32::try_from(node - LENGTHS).unwrap_or(0)
    }
}

/// All slots, and whether the sample before differed from its base.
#[derive(Clone)]
pub(super) struct Model {
    slots: Box<[Slot]>,
    changed_before: bool,
}

impl Model {
    pub(super) fn new() -> Self {
        Self { slots: vec![Slot::NEW; SLOTS].into_boxed_slice(), changed_before: false }
    }

    /// The slot `number` and its chance that the next value differs.
    pub(super) fn slot(&mut self, number: u8) -> &mut Slot {
        &mut self.slots[usize::from(number)]
    }

    pub(super) fn put_changed(&mut self, number: u8, restless: bool, changed: bool, out: &mut Encoder) {
        let which = usize::from(restless) * 2 + usize::from(self.changed_before);
        out.put(changed, &mut self.slots[usize::from(number)].changed[which]);
        self.changed_before = changed;
    }

    #[inline]
    pub(super) fn take_changed(&mut self, number: u8, restless: bool, input: &mut Decoder<'_>) -> bool {
        let which = usize::from(restless) * 2 + usize::from(self.changed_before);
        self.changed_before = input.take(&mut self.slots[usize::from(number)].changed[which]);
        self.changed_before
    }
}
