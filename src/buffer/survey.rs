//! The segments of a directory, lined up as their files say, and what is missing among them.
//!
//! Opening a log and looking at one from outside come to the same account, because both ask here. It reads and decides; what
//! follows from that, and whether anything is removed, is the caller's.

use std::io;
use std::path::Path;

use super::fs::{Access, Fs, retry};
use super::record::RESUMABLE_LIMIT;
use super::recover::{Claim, FileHeader, Recovered};
use super::recover::{read_file_header, recover};
use super::segment::file_name;
use super::segment::{Cause, Hole, Mark, Segment};

/// A segment as its file shows it.
pub(super) struct Seen {
    pub(super) segment: Segment,
    /// Bytes behind its last good record that are none.
    pub(super) torn_bytes: u64,
}

/// What a file that is named like a segment is.
pub(super) enum Look {
    Segment(Seen),
    /// Not one record, and this many bytes that are none.
    Useless {
        torn_bytes: u64,
    },
    /// Of a later version or of another store.
    NotOurs,
}

/// Looks at one file.
///
/// # Errors
/// When it cannot be read.
pub(super) fn look_at<F: Fs>(fs: &F, dir: &Path, claim: Claim) -> io::Result<Look> {
    let path = dir.join(file_name(claim.first));
    retry(|| {
        let file = fs.open(&path, Access::Read)?;
        match read_file_header(fs, &file)? {
            FileHeader::Later => return Ok(Look::NotOurs),
            FileHeader::Ours { store_id } if store_id != claim.store_id => return Ok(Look::NotOurs),
            FileHeader::Ours { .. } | FileHeader::Damaged => {}
        }
        Ok(match recover(fs, &file, claim)? {
            Recovered::Segment { segment, .. } if segment.end.seq.max(segment.end.samples) >= RESUMABLE_LIMIT => {
                Look::NotOurs
            }
            Recovered::Segment { segment, torn_bytes } => Look::Segment(Seen { segment, torn_bytes }),
            Recovered::Nothing { torn_bytes } => Look::Useless { torn_bytes },
        })
    })
}

/// A segment of ours of which nothing is wanted any more.
pub(super) struct Surplus {
    pub(super) first: u64,
    pub(super) bytes: u64,
    /// What is in it and nowhere else; none where all of it stands in later segments again.
    pub(super) samples: u64,
}

/// Segments in order, no position and no sample in two of them.
#[derive(Default)]
pub(super) struct Lineup {
    pub(super) seen: Vec<Seen>,
    pub(super) surplus: Vec<Surplus>,
}

impl Lineup {
    /// Adds a segment after those before it.
    ///
    /// Where a record stands in two segments (its first writing was in doubt), the later one has it. Where an earlier one
    /// knows of samples that a later one counts anew, a process that could not read it went on without it, and said that
    /// they are lost.
    ///
    /// # Errors
    /// When an earlier segment must be looked at again and cannot be read; it is out of line then, and `seen` is in it.
    pub(super) fn add<F: Fs>(&mut self, fs: &F, dir: &Path, store_id: u128, seen: Seen) -> io::Result<()> {
        let mut result = Ok(());
        let (limit, start) = (seen.segment.first, seen.segment.start);
        while let Some(last) = self.seen.pop_if(|last| last.segment.end.seq >= limit) {
            let first = last.segment.first;
            match look_at(fs, dir, Claim { store_id, first, limit }) {
                Ok(Look::Segment(shorter)) => {
                    self.seen.push(shorter);
                    break;
                }
                Ok(Look::Useless { .. } | Look::NotOurs) => {
                    self.surplus.push(Surplus { first, bytes: 0, samples: 0 });
                }
                Err(error) => result = Err(error),
            }
        }
        while let Some(Seen { segment: last, .. }) = self.seen.pop_if(|last| last.segment.end.samples > start) {
            let samples = last.end.samples - last.start;
            self.surplus.push(Surplus { first: last.first, bytes: last.file_len, samples });
        }
        self.seen.push(seen);
        result
    }

    /// Samples between two neighbours that are in neither.
    pub(super) fn gaps(&self) -> Vec<Hole> {
        let borders = self.seen.windows(2).map(|pair| (pair[0].segment.end.samples, pair[1].segment.start));
        borders.filter_map(|(start, end)| lost_range(start, end)).collect()
    }
}

/// What was given out after the `last` segment, or, where an endpoint has settled some of that, after the place that is
/// furthest behind.
pub(super) fn hole_after(last: Option<&Segment>, places: impl Iterator<Item = Mark>, end: Mark) -> Option<Hole> {
    let settled = places.map(|place| place.samples).min();
    lost_range(settled.max(last.map(|last| last.end.samples))?, end.samples)
}

/// `holes` as what they are: of what was in memory only when a process ended, memory lost it, not the disk.
pub(super) fn with_cause(holes: impl IntoIterator<Item = Hole>, in_memory: &[Hole]) -> Vec<Hole> {
    let mut told: Vec<Hole> = Vec::new();
    for mut hole in holes {
        for known in in_memory {
            if known.within(hole.start, hole.end) == 0 {
                continue;
            }
            told.extend(lost_range(hole.start, known.start));
            let (start, end) = (known.start.max(hole.start), known.end.min(hole.end));
            join(&mut told, Hole { start, end, cause: Cause::Memory });
            hole.start = end;
        }
        told.extend(lost_range(hole.start, hole.end));
    }
    told
}

/// Adds a hole behind the others, as one with the last where it goes on from that.
pub(super) fn join(holes: &mut Vec<Hole>, hole: Hole) {
    match holes.last_mut() {
        Some(last) if last.cause == hole.cause && last.end == hole.start => last.end = hole.end,
        _ => holes.push(hole),
    }
}

fn lost_range(start: u64, end: u64) -> Option<Hole> {
    (start < end).then_some(Hole { start, end, cause: Cause::Damage })
}

/// Whether the running count of samples at a place fits what the segments say before and after it.
pub(super) fn could_hold<'a>(segments: impl IntoIterator<Item = &'a Segment>, place: Mark) -> bool {
    segments.into_iter().all(|segment| {
        if segment.end.seq <= place.seq {
            segment.end.samples <= place.samples
        } else if segment.before().seq >= place.seq {
            segment.start >= place.samples
        } else {
            // Damage at its front may make a segment begin later than it did.
            place.samples <= segment.end.samples
        }
    })
}
