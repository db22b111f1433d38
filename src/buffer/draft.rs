//! What is appended as the bytes of a segment: a snapshot with the definitions it needs first, or a range that was skipped.
//!
//! The same bytes go to segments, to files of the quarantine and to exports. Nothing here does I/O.

use crate::model::{Snapshot, Timestamp};

use super::codec::{Dictionary, TooLarge};
use super::record::{About, Kind, Seed, write};
use super::segment::Mark;

/// What a segment knows while it is written.
pub(super) struct Draft {
    pub(super) first: u64,
    pub(super) seed: Seed,
    dictionary: Dictionary,
}

/// One record to write.
#[derive(Clone, Copy)]
pub(super) enum Item<'a> {
    Snapshot { before: Mark, snapshot: &'a Snapshot },
    Skip { before: Mark, after: Mark, at: Timestamp },
}

impl Item<'_> {
    pub(super) fn before(&self) -> Mark {
        match self {
            Self::Snapshot { before, .. } | Self::Skip { before, .. } => *before,
        }
    }

    pub(super) fn after(&self) -> Mark {
        match self {
            Self::Snapshot { before, snapshot } => {
                Mark { seq: before.seq + 1, samples: before.samples + snapshot.sample_count() as u64 }
            }
            Self::Skip { after, .. } => *after,
        }
    }

    pub(super) fn at(&self) -> Timestamp {
        match self {
            Self::Snapshot { snapshot, .. } => snapshot.at,
            Self::Skip { at, .. } => *at,
        }
    }
}

/// The bytes of one item.
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    known_before: u32,
}

impl Draft {
    pub(super) fn new(store_id: u128, first: u64) -> Self {
        Self { first, seed: Seed::new(store_id, first), dictionary: Dictionary::default() }
    }

    /// A frame was not written: what it would have defined is defined again.
    pub(super) fn take_back(&mut self, frame: &Frame) {
        self.dictionary.forget_from(frame.known_before);
    }

    /// Every definition stands before and after the snapshot that first needs it: one damaged record is then one record lost.
    pub(super) fn frame(&mut self, item: Item<'_>) -> Result<Frame, TooLarge> {
        let before = item.before();
        let about = About { seq: item.after().seq, samples_before: before.samples, at: item.at(), samples: 0 };
        let mut bytes = Vec::new();
        match item {
            Item::Skip { after, .. } => {
                let samples = after.samples - before.samples;
                write(&mut bytes, self.seed, Kind::Skip, about, &samples.to_le_bytes());
                Ok(Frame { bytes, known_before: u32::MAX })
            }
            Item::Snapshot { snapshot, .. } => {
                let samples = u32::try_from(snapshot.sample_count()).map_err(|_| TooLarge)?;
                let encoded = self.dictionary.encode(snapshot)?;
                for payload in &encoded.definitions {
                    write(&mut bytes, self.seed, Kind::Definitions, about, payload);
                }
                let definitions_len = bytes.len();
                write(&mut bytes, self.seed, encoded.kind, About { samples, ..about }, &encoded.snapshot);
                bytes.extend_from_within(..definitions_len);
                Ok(Frame { bytes, known_before: encoded.known_before })
            }
        }
    }
}
