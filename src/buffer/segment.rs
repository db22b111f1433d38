//! One file of the log: what is known of it in memory.
//!
//! A segment holds consecutive records, is written once from front to back, and never appended to by a later process.
//! Every snapshot record says how many samples the log held before it, so what is missing is counted exactly by
//! subtraction: a segment is the range of samples from `start` to `end`, less its [`Hole`]s.

use crate::model::Timestamp;

use super::record::{Footer, Header, Kind, ORDINAL_LIMIT};

/// Bytes before the first record.
pub(super) const FILE_HEADER_LEN: u64 = 64;
/// Bytes of a file that are looked at; also the most one segment may grow to. Keeps opening bounded whatever lies there.
pub(super) const SEGMENT_MAX_BYTES: u64 = 256 << 20;
/// Damaged places remembered in one segment; one more is joined with the nearest, and what lies between counts as lost.
pub(super) const HOLES_MAX: usize = 4096;

/// A place between two records: everything up to and including the record at `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Position of the last record before the place.
    pub(super) seq: u64,
    /// Samples in the log up to the place, since the log began.
    pub(super) samples: u64,
}

impl Mark {
    /// The further of both, in positions and in samples.
    pub(super) fn furthest(self, other: Self) -> Self {
        Self { seq: self.seq.max(other.seq), samples: self.samples.max(other.samples) }
    }
}

/// Why samples are not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The disk does not give them back.
    Damage,
    /// They were held in memory while the disk could not be written, and memory was full.
    Memory,
}

/// Samples that were appended and cannot be read: the range from `start` to `end` of the log's running count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) cause: Cause,
}

impl Hole {
    /// How many of its samples lie after `from` and not after `to`.
    pub(super) fn within(&self, from: u64, to: u64) -> u64 {
        self.end.min(to).saturating_sub(self.start.max(from))
    }
}

/// What is known of one file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Its name: the position of its first record.
    pub(super) first: u64,
    /// Samples in the log before it.
    pub(super) start: u64,
    /// Its last record.
    pub(super) end: Mark,
    /// Bytes that may be read.
    pub(super) len: u64,
    /// Bytes it takes (or, while being written, may take when it is finished).
    pub(super) file_len: u64,
    /// The instant of its first snapshot.
    pub(super) first_at: Timestamp,
    /// The newest instant in it.
    pub(super) newest_at: Timestamp,
    /// In order, disjoint.
    pub(super) holes: Vec<Hole>,
    /// Whether it ends with its totals.
    pub(super) is_sealed: bool,
}

impl Segment {
    /// One whose first record, at position `first`, is still to come: `start` samples lie before it.
    pub(super) fn begun(first: u64, start: u64, file_len: u64, first_at: Timestamp) -> Self {
        Self {
            first,
            start,
            end: Mark { seq: first - 1, samples: start },
            len: FILE_HEADER_LEN,
            file_len,
            first_at,
            newest_at: Timestamp::MIN,
            holes: Vec::new(),
            is_sealed: false,
        }
    }

    /// The place before its first record.
    pub(super) fn before(&self) -> Mark {
        Mark { seq: self.first.saturating_sub(1), samples: self.start }
    }

    /// Samples in it after `from` that can be read, as far as is known.
    pub(super) fn readable_after(&self, from: u64) -> u64 {
        let from = from.max(self.start);
        let lost: u64 = self.holes.iter().map(|hole| hole.within(from, self.end.samples)).sum();
        self.end.samples.saturating_sub(from).saturating_sub(lost)
    }

    /// Records in it after position `seq`, lost ones too: within a segment no position is left out.
    pub(super) fn records_after(&self, seq: u64) -> u64 {
        self.end.seq.saturating_sub(seq.max(self.before().seq))
    }

    /// Whether the record holding samples `start..end` is counted as lost already.
    pub(super) fn is_lost(&self, start: u64, end: u64) -> bool {
        self.holes.iter().any(|hole| hole.within(start, end) > 0)
    }

    /// Counts the samples from `start` to `end` as lost; what was counted before is not counted again.
    ///
    /// Returns how many were not counted before.
    pub(super) fn lose(&mut self, start: u64, end: u64, cause: Cause) -> u64 {
        if self.holes.len() >= HOLES_MAX {
            return self.widen_a_hole(start, end, cause);
        }
        let mut from = start;
        let mut fresh = Vec::new();
        for hole in &self.holes {
            if hole.end > from && hole.start < end {
                if hole.start > from {
                    fresh.push(Hole { start: from, end: hole.start, cause });
                }
                from = hole.end;
            }
        }
        if from < end {
            fresh.push(Hole { start: from, end, cause });
        }
        let lost = fresh.iter().map(|hole| hole.end - hole.start).sum();
        self.holes.extend(fresh);
        self.holes.sort_unstable_by_key(|hole| hole.start);
        lost
    }

    /// Forgets what was written after `end`, when it was `len` bytes long: that will stand in another segment.
    pub(super) fn cut_back(&mut self, len: u64, end: Mark, newest_at: Timestamp) {
        self.len = len;
        self.is_sealed = false;
        self.end = end;
        self.newest_at = newest_at;
        self.holes.retain(|hole| hole.start < end.samples);
        for hole in &mut self.holes {
            hole.end = hole.end.min(end.samples);
        }
    }

    /// Gives up the readable samples between the nearest hole and this one, so that holes stay few.
    fn widen_a_hole(&mut self, start: u64, end: u64, cause: Cause) -> u64 {
        let nearest = self.holes.partition_point(|hole| hole.start <= start).saturating_sub(1);
        let mut wide = Hole { start, end, cause };
        let mut known = 0;
        while let Some(next) = self.holes.get(nearest).filter(|hole| known == 0 || hole.start < wide.end).copied() {
            known += next.end - next.start;
            wide = Hole { start: wide.start.min(next.start), end: wide.end.max(next.end), cause: next.cause };
            self.holes.remove(nearest);
        }
        self.holes.insert(nearest, wide);
        (wide.end - wide.start).saturating_sub(known)
    }

    /// The totals written at the end of the file; only a segment without holes has them.
    pub(super) fn footer(&self) -> Option<Footer> {
        self.holes.is_empty().then_some(Footer {
            start: self.start,
            last: self.end.seq,
            end: self.end.samples,
            first_at: self.first_at,
            newest_at: self.newest_at,
        })
    }
}

/// The file name of the segment whose first position is `first`.
pub(super) fn file_name(first: u64) -> String {
    format!("{first:016x}.seg")
}

/// The first position in a file name, or `None` where the name is not ours.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let first = u64::from_str_radix(digits, 16).ok()?;
    (file_name(first) == name && first > 0 && first < ORDINAL_LIMIT).then_some(first)
}

impl Segment {
    /// Adds a record found by scanning; `payload` is `None` where it is damaged.
    pub(super) fn take(&mut self, header: &Header, payload: Option<&[u8]>) {
        let before = self.end.samples;
        let after = samples_through(header, payload);
        self.end = Mark { seq: header.seq, samples: after };
        if self.newest_at == Timestamp::MIN {
            self.first_at = header.at;
        }
        self.newest_at = self.newest_at.max(header.at);
        if header.samples_before > before {
            self.lose(before, header.samples_before, Cause::Damage);
        }
        match (header.kind, payload) {
            (Kind::Skip, Some(_)) => {
                self.lose(header.samples_before, after, Cause::Memory);
            }
            (_, None) => {
                self.lose(header.samples_before, after, Cause::Damage);
            }
            (_, Some(_)) => {}
        }
    }
}

/// Samples in the log up to and including a record, those included that a skip record stands for.
pub(super) fn samples_through(header: &Header, payload: Option<&[u8]>) -> u64 {
    let skipped = if header.kind == Kind::Skip { payload.and_then(parse_skip).unwrap_or(0) } else { 0 };
    header.samples_after().saturating_add(skipped).min(ORDINAL_LIMIT)
}

/// How many samples a skip record stands for.
fn parse_skip(payload: &[u8]) -> Option<u64> {
    let (samples, _) = payload.split_first_chunk::<8>()?;
    Some(u64::from_le_bytes(*samples)).filter(|samples| *samples < ORDINAL_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: u64, end: u64) -> Segment {
        Segment {
            first: 1,
            start,
            end: Mark { seq: 9, samples: end },
            len: 0,
            file_len: 0,
            first_at: Timestamp::MIN,
            newest_at: Timestamp::MIN,
            holes: Vec::new(),
            is_sealed: false,
        }
    }

    #[test]
    fn a_sample_is_lost_once() {
        let mut segment = segment(100, 200);
        assert_eq!(segment.lose(110, 120, Cause::Damage), 10);
        assert_eq!(segment.lose(105, 130, Cause::Damage), 15);
        assert_eq!(segment.lose(105, 130, Cause::Memory), 0);
        assert_eq!(segment.readable_after(0), 75);
        assert_eq!(segment.readable_after(115), 70);
        assert!(segment.is_lost(129, 140) && !segment.is_lost(130, 140));
    }

    #[test]
    fn a_segment_that_is_cut_back_knows_of_no_loss_after_its_end() {
        let mut segment = segment(100, 200);
        segment.lose(110, 120, Cause::Damage);
        segment.lose(130, 150, Cause::Damage);
        segment.lose(160, 170, Cause::Damage);
        segment.cut_back(0, Mark { seq: 5, samples: 140 }, Timestamp::MIN);
        assert_eq!(segment.readable_after(0), 20);
        assert_eq!(segment.holes.len(), 2);
    }

    #[test]
    fn holes_stay_few_and_what_that_gives_up_is_counted() {
        let mut segment = segment(0, 100_000);
        let mut lost = 0;
        for hole in 0..2 * HOLES_MAX as u64 {
            lost += segment.lose(hole * 4, hole * 4 + 1, Cause::Damage);
        }
        lost += segment.lose(2, 50_001, Cause::Damage);
        assert!(segment.holes.len() <= HOLES_MAX);
        assert_eq!(segment.readable_after(0), 100_000 - lost);
    }

    #[test]
    fn only_our_own_names_are_segments() {
        assert_eq!(parse_name(&file_name(0x2a)), Some(0x2a));
        for name in ["2a.seg", "0000000000000000.seg", "ffffffffffffffff.seg", "000000000000002A.seg", "lock", ".seg"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
