//! What is appended as the bytes of a segment: a snapshot with the definitions it needs first, or a range that was skipped.
//!
//! The same bytes go to segments, to files of the quarantine and to exports. Nothing here does I/O.

use crate::model::{Snapshot, Timestamp};

use super::codec::{Dictionary, TooLarge};
use super::record::{About, HEADER_LEN, Kind, Seed, write};
use super::segment::Mark;

/// A sector: the least of a disk that becomes unreadable. Copies of definitions are kept as far apart.
const SECTOR_BYTES: usize = 512;
/// A page, which is what most disks and caches lose at once. Copies of long definitions are kept as far apart.
const PAGE_BYTES: usize = 4096;
/// So many times a page are long definitions; with fewer it would cost more than it is worth.
const LONG_PAGES: usize = 2;
/// The share of its room that a segment gives for keeping copies apart.
const SPACERS_SHARE: u64 = 64;

/// What a segment knows while it is written.
pub(super) struct Draft {
    pub(super) first: u64,
    pub(super) seed: Seed,
    dictionary: Dictionary,
    /// Bytes that spacers may still take.
    spacers_left: usize,
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
    spacer_bytes: usize,
}

impl Draft {
    /// For the segment `first`, which will take about `room_bytes`.
    pub(super) fn new(store_id: u128, first: u64, room_bytes: u64) -> Self {
        let spacers_left = usize::try_from(room_bytes / SPACERS_SHARE).unwrap_or(usize::MAX);
        Self { first, seed: Seed::new(store_id, first), dictionary: Dictionary::default(), spacers_left }
    }

    /// A frame was not written: what it would have defined is defined again.
    pub(super) fn take_back(&mut self, frame: &Frame) {
        self.dictionary.forget_from(frame.known_before);
        self.spacers_left += frame.spacer_bytes;
    }

    /// Every definition stands before and after the snapshot that first needs it: one damaged record is then one record lost.
    /// A spacer keeps the two so far apart that a damaged block is one record lost as well.
    pub(super) fn frame(&mut self, item: Item<'_>) -> Result<Frame, TooLarge> {
        let before = item.before();
        let about = About { seq: item.after().seq, samples_before: before.samples, at: item.at(), samples: 0 };
        let mut bytes = Vec::new();
        match item {
            Item::Skip { after, .. } => {
                let samples = after.samples - before.samples;
                write(&mut bytes, self.seed, Kind::Skip, about, &samples.to_le_bytes());
                Ok(Frame { bytes, known_before: u32::MAX, spacer_bytes: 0 })
            }
            Item::Snapshot { snapshot, .. } => {
                let samples = u32::try_from(snapshot.sample_count()).map_err(|_| TooLarge)?;
                let encoded = self.dictionary.encode(snapshot)?;
                let mut longest = 0;
                for payload in &encoded.definitions {
                    longest = longest.max(HEADER_LEN + payload.len());
                    write(&mut bytes, self.seed, Kind::Definitions, about, payload);
                }
                let definitions_len = bytes.len();
                write(&mut bytes, self.seed, encoded.kind, About { samples, ..about }, &encoded.snapshot);
                let spacer = self.spacer(definitions_len, bytes.len() - longest);
                if let Some(payload) = &spacer {
                    write(&mut bytes, self.seed, Kind::Spacer, about, payload);
                }
                bytes.extend_from_within(..definitions_len);
                let spacer_bytes = spacer.map_or(0, |payload| HEADER_LEN + payload.len());
                Ok(Frame { bytes, known_before: encoded.known_before, spacer_bytes })
            }
        }
    }

    /// What is to stand before the second copy of `definitions_len` bytes, where between the end of a record and its copy
    /// are only `apart` bytes.
    fn spacer(&mut self, definitions_len: usize, apart: usize) -> Option<Vec<u8>> {
        let is_long = definitions_len >= LONG_PAGES * PAGE_BYTES;
        let wanted: &[usize] = match definitions_len {
            0 => &[],
            _ if is_long => &[PAGE_BYTES, SECTOR_BYTES],
            _ => &[SECTOR_BYTES],
        };
        let lacking = wanted.iter().map(|wanted| wanted.saturating_sub(apart));
        let len =
            lacking.map(|len| if len == 0 { 0 } else { len.max(HEADER_LEN) }).find(|len| *len <= self.spacers_left)?;
        self.spacers_left -= len;
        len.checked_sub(HEADER_LEN).map(|len| vec![0; len])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Labels, Metadata, MetricKind, Sample, Series, Value};

    fn snapshot(series: std::ops::Range<u32>) -> Snapshot {
        let sample = |index: u32| {
            let labels =
                Labels::builder().with("__name__", "up").with("index", format!("{index:060}")).build().unwrap();
            let series = Series::new(labels, Arc::new(Metadata::of("up", MetricKind::Gauge, "is it up")));
            Sample::new(Arc::new(series), Value::new(1.0))
        };
        Snapshot::new(Timestamp::from_millis(0), series.map(sample).collect())
    }

    fn frame(draft: &mut Draft, snapshot: &Snapshot) -> Frame {
        draft.frame(Item::Snapshot { before: Mark::default(), snapshot }).unwrap()
    }

    #[test]
    fn copies_are_a_page_apart_where_definitions_are_long_and_a_sector_where_they_are_not() {
        for (series, apart) in [(300, PAGE_BYTES), (10, SECTOR_BYTES)] {
            let mut draft = Draft::new(1, 1, 1 << 20);
            let first = frame(&mut draft, &snapshot(0..series));
            let again = frame(&mut draft, &snapshot(0..series));
            let definitions_len = (first.bytes.len() - apart) / 2;
            assert_eq!(first.bytes[..definitions_len], first.bytes[definitions_len + apart..], "{series} series");
            assert_eq!(again.spacer_bytes, 0, "nothing was defined");
        }
    }

    #[test]
    fn what_lies_apart_already_gets_no_spacer() {
        let mut draft = Draft::new(1, 1, 1 << 20);
        let odd = |index: u64| Value::from_bits(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut all = snapshot(0..100);
        frame(&mut draft, &all);
        all.samples.iter_mut().zip(1..).for_each(|(sample, index)| sample.value = odd(index));
        all.samples.extend(snapshot(100..101).samples);
        assert_eq!(frame(&mut draft, &all).spacer_bytes, 0);
    }

    #[test]
    fn spacers_take_no_more_than_their_share_and_what_was_not_written_is_given_back() {
        let mut draft = Draft::new(1, 1, 64 << 10);
        let taken_back = frame(&mut draft, &snapshot(0..300));
        assert!((400..SECTOR_BYTES).contains(&taken_back.spacer_bytes), "no room for a page");
        draft.take_back(&taken_back);
        let spacers: Vec<usize> =
            (0..20).map(|index| frame(&mut draft, &snapshot(index..index + 1)).spacer_bytes).collect();
        assert!(spacers[0] > 400 && spacers[1] > 400, "{spacers:?}");
        assert!(spacers.iter().sum::<usize>() <= 1 << 10, "{spacers:?}");
    }
}
