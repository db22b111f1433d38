//! Writing: one append, the room it needs, and what happens when the disk says no.
//!
//! Room is made before a byte is written, so `max_bytes` is never passed. Whatever fails, the snapshot is kept, in memory if
//! need be. What happens to the file is in `active`.

use std::io;
use std::time::{Duration, Instant};

use crate::model::{Snapshot, Timestamp};

use super::codec::TooLarge;
use super::draft::{Draft, Frame, Item};
use super::durable::Ending;
use super::endpoint::Reason;
use super::fs::{Fs, is_disk_error};
use super::log::{Log, SEGMENT_OVERHEAD_BYTES, blocks};
use super::record::{Footer, RESUMABLE_LIMIT};
use super::ring::Held;
use super::segment::{FILE_HEADER_LEN, Mark, SEGMENT_MAX_BYTES};
use super::status::Operation;
use super::{AppendError, Appended, Position};

/// How many segments are given up to fit one snapshot on a disk that others fill.
const FULL_DISK_RETRIES: usize = 3;

/// How far the newest instant may be ahead of what is appended and still count as the newest.
const AHEAD_MAX: Duration = Duration::from_secs(86_400);

/// Why a record is not on disk.
pub(super) enum WriteError {
    /// It can never be kept.
    TooLarge,
    /// Not now.
    Io(io::Error),
    /// Written, but perhaps not durable; the file is given up.
    InDoubt(io::Error),
}

impl From<TooLarge> for WriteError {
    fn from(_: TooLarge) -> Self {
        Self::TooLarge
    }
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<F: Fs> Log<F> {
    /// Keeps a snapshot: on disk, or where that fails in memory.
    pub(super) fn append(&mut self, snapshot: Snapshot, now: Instant) -> Result<Appended, AppendError> {
        if self.endpoints.is_empty() {
            // Nobody waits for it: no position is given out.
            self.advance(self.end, snapshot.at);
            self.store_meta(Ending::Open);
            return Ok(Appended { position: Position(self.end.seq), durable: true });
        }
        let held = Held { before: self.next_place(), snapshot };
        let after = held.after();
        if self.ring.retry_at().is_some_and(|at| at <= now) {
            self.drain_ring(now);
        }
        let at = held.snapshot.at;
        let mut durable = false;
        if self.ring.is_idle() {
            match self.write(Item::Snapshot { before: held.before, snapshot: &held.snapshot }, now) {
                Ok(()) => durable = true,
                Err(WriteError::TooLarge) => return Err(self.too_large(&held)),
                Err(WriteError::Io(error) | WriteError::InDoubt(error)) => self.degrade(&error, now),
            }
        }
        self.advance(after, at);
        self.left_out = 0;
        if !durable {
            self.hold(held, now);
        }
        self.evict_old(at, now);
        Ok(Appended { position: Position(after.seq), durable })
    }

    /// The place of the next snapshot: at a position that no segment had which nobody knows of any more, because a segment's
    /// name is part of what its checksums start from.
    pub(super) fn next_place(&self) -> Mark {
        let seq = self.end.seq + self.left_out;
        Mark { seq: if seq < RESUMABLE_LIMIT { seq } else { self.end.seq }, ..self.end }
    }

    fn too_large(&mut self, held: &Held) -> AppendError {
        let samples = held.snapshot.sample_count();
        self.counts.append_errors += 1;
        self.counts.append_errors_samples += samples as u64;
        AppendError::TooLarge { samples, max_bytes: self.options.max_bytes }
    }

    fn advance(&mut self, after: Mark, at: Timestamp) {
        for endpoint in &mut self.endpoints {
            endpoint.oldest_at.get_or_insert(at);
        }
        self.end = after;
        // A stamp far ahead came of a wrong clock: kept for ever, it would date everything that follows.
        let believable = self.last_at.filter(|newest| newest.since(at) <= AHEAD_MAX);
        self.last_at = believable.max(Some(at));
    }

    /// Writes one record, making room and trying again where that can help.
    pub(super) fn write(&mut self, item: Item<'_>, now: Instant) -> Result<(), WriteError> {
        let mut full_retries = 0;
        let mut sync_retries = 0;
        loop {
            let error = match self.write_once(item, now) {
                // A disk that others filled is waited for in memory; the backlog on it goes only when memory runs out.
                Err(WriteError::Io(error))
                    if is_full(&error) && full_retries < FULL_DISK_RETRIES && self.ring.is_short() =>
                {
                    full_retries += 1;
                    error
                }
                Err(WriteError::InDoubt(error)) if sync_retries == 0 => {
                    sync_retries += 1;
                    self.note_error(Operation::Sync, &error);
                    tracing::warn!(path = %self.options.dir.display(), %error, "sync failed; writing again to a new file");
                    continue;
                }
                Err(WriteError::Io(error)) if is_disk_error(&error) => {
                    // A bad place under its end would be met again and again: the next try begins another file.
                    self.seal(now).ok();
                    return Err(WriteError::Io(error));
                }
                other => return other,
            };
            self.note_error(Operation::Write, &error);
            if !self.evict_oldest(Reason::Disk)? {
                return Err(WriteError::Io(error));
            }
        }
    }

    fn write_once(&mut self, item: Item<'_>, now: Instant) -> Result<(), WriteError> {
        self.give_up_removed_file();
        let (frame, draft) = self.frame_with_room(item, now)?;
        if let Some(draft) = draft {
            self.create(draft, item)?;
        }
        self.write_frame(&frame, item)
    }

    /// Encodes for the segment it will go to, sealing and evicting until it fits; with the draft of a new one if one is needed.
    fn frame_with_room(&mut self, item: Item<'_>, now: Instant) -> Result<(Frame, Option<Draft>), WriteError> {
        let mut was_sealed = false;
        loop {
            let mut fresh = None;
            let last = self.segments.back().filter(|_| self.active.is_some());
            let (len, accounted, holds_records) =
                last.map_or((FILE_HEADER_LEN, 0, false), |s| (s.len, blocks(s.file_len), s.end.seq >= s.first));
            let draft = match &mut self.active {
                Some(active) => &mut active.draft,
                None => fresh.insert(Draft::new(self.store_id, item.before().seq + 1, self.options.segment_bytes)),
            };
            let frame = match draft.frame(item) {
                // A segment can number only so many series; a new one begins anew.
                Err(TooLarge) if holds_records => {
                    self.seal_once(&mut was_sealed, now)?;
                    continue;
                }
                frame => frame?,
            };
            let file_len = len + frame.bytes.len() as u64 + Footer::RECORD_LEN as u64;
            let is_file_full = holds_records && file_len > self.options.segment_bytes;
            let growth = if fresh.is_some() && !self.segments.is_empty() { self.directory_growth() } else { 0 };
            let used = self.used_bytes() + blocks(file_len) - accounted + growth;
            // With nothing to give up, only the bound itself counts.
            let bound = if self.segments.is_empty() { self.options.max_bytes } else { self.bound_bytes() };
            if !is_file_full && file_len <= SEGMENT_MAX_BYTES && used <= bound {
                return Ok((frame, fresh));
            }
            // Whatever comes now, what the frame defines has not been written.
            if let Some(active) = &mut self.active {
                active.draft.take_back(&frame);
            }
            if is_file_full {
                self.seal_once(&mut was_sealed, now)?;
                continue;
            }
            // What would not even fit into an empty buffer must not cost what is in it.
            let alone = SEGMENT_OVERHEAD_BYTES + frame.bytes.len() as u64;
            let reason = if used > self.options.max_bytes { Reason::Size } else { Reason::Disk };
            if alone > SEGMENT_MAX_BYTES || !self.give_up_for(alone, reason)? {
                return Err(WriteError::TooLarge);
            }
        }
    }

    /// Gives something up for a file of `alone` bytes: the oldest segment, or of the quarantine what would be in its way even
    /// in a buffer without segments. `false` where that does not help.
    fn give_up_for(&mut self, alone: u64, reason: Reason) -> io::Result<bool> {
        let beyond = (self.used_without_segments() + blocks(alone)).saturating_sub(self.options.max_bytes);
        match beyond {
            0 => self.evict_oldest(reason),
            1.. if !self.options.evicts => Ok(false),
            1.. => Ok(beyond <= self.quarantine.bytes() && self.drop_oldest_quarantined()),
        }
    }

    /// Finishes a full file. What is in doubt then has been written to another, which may be as full: where no sync
    /// succeeds that would go on for ever, so the second time is one for memory.
    fn seal_once(&mut self, was_sealed: &mut bool, now: Instant) -> Result<(), WriteError> {
        if std::mem::replace(was_sealed, true) {
            return Err(WriteError::Io(io::Error::other("nothing that is written can be forced to the disk")));
        }
        self.seal(now)
    }

    pub(super) fn used_without_segments(&self) -> u64 {
        self.used_bytes() - self.segments.iter().map(|segment| blocks(segment.file_len)).sum::<u64>()
    }
}

/// Whether the disk, or our share of it, is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
