//! Writing: one append, the room it needs, and what happens when the disk says no.
//!
//! Room is made before a byte is written, so `max_bytes` is never passed. A write that fails leaves the file as it was; a
//! failed sync is never repeated on the same file, because the kernel may report success then without having written.
//! Whatever fails, the snapshot is kept, in memory if need be.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::model::{Snapshot, Timestamp};

use super::codec::{Dictionary, TooLarge};
use super::durable::Ending;
use super::endpoint::Reason;
use super::fs::{Access, Fs};
use super::log::{Log, SEGMENT_OVERHEAD_BYTES, blocks};
use super::record::{About, Footer, Kind, Seed, write};
use super::ring::Held;
use super::segment::{Cause, FILE_HEADER_LEN, Mark, SEGMENT_MAX_BYTES, Segment, encode_file_header};
use super::status::Operation;
use super::{AppendError, Appended, Position, SyncPolicy};

/// How many segments are given up to fit one snapshot on a disk that others fill.
const FULL_DISK_RETRIES: usize = 3;

/// The file being written.
pub(super) struct Active<F: Fs> {
    pub(super) file: F::File,
    pub(super) path: PathBuf,
    draft: Draft,
}

impl<F: Fs> Active<F> {
    /// The position of its first record.
    pub(super) fn first(&self) -> u64 {
        self.draft.first
    }
}

/// What a segment knows while it is written.
pub(super) struct Draft {
    first: u64,
    seed: Seed,
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

    fn at(&self) -> Timestamp {
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

/// How far the newest instant may be ahead of what is appended and still count as the newest.
const AHEAD_MAX: Duration = Duration::from_secs(86_400);

impl<F: Fs> Log<F> {
    /// Keeps a snapshot: on disk, or where that fails in memory.
    pub(super) fn append(&mut self, snapshot: Snapshot, now: Instant) -> Result<Appended, AppendError> {
        let held = Held { before: self.end, snapshot };
        let after = held.after();
        if self.endpoints.is_empty() {
            self.advance(after, held.snapshot.at);
            self.store_meta(Ending::Open);
            return Ok(Appended { position: Position(after.seq), durable: true });
        }
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
        if !durable {
            self.hold(held, now);
        }
        self.evict_old(at, now);
        Ok(Appended { position: Position(after.seq), durable })
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
        loop {
            let mut fresh = None;
            let last = self.segments.back().filter(|_| self.active.is_some());
            let (len, accounted, holds_records) =
                last.map_or((FILE_HEADER_LEN, 0, false), |s| (s.len, blocks(s.file_len), s.end.seq >= s.first));
            let draft = match &mut self.active {
                Some(active) => &mut active.draft,
                None => fresh.insert(Draft::new(self.store_id, item.before().seq + 1)),
            };
            let frame = match draft.frame(item) {
                // A segment can number only so many series; a new one begins anew.
                Err(TooLarge) if holds_records => {
                    self.seal(now)?;
                    continue;
                }
                frame => frame?,
            };
            let file_len = len + frame.bytes.len() as u64 + Footer::RECORD_LEN as u64;
            if holds_records && file_len > self.options.segment_bytes {
                self.seal(now)?;
                continue;
            }
            let used = self.used_bytes() + blocks(file_len) - accounted;
            // With nothing to give up, only the bound itself counts.
            let bound = if self.segments.is_empty() { self.options.max_bytes } else { self.bound_bytes() };
            if file_len <= SEGMENT_MAX_BYTES && used <= bound {
                return Ok((frame, fresh));
            }
            if let Some(active) = &mut self.active {
                active.draft.dictionary.forget_from(frame.known_before);
            }
            // What would not even fit into an empty buffer must not cost what is in it.
            let alone = SEGMENT_OVERHEAD_BYTES + frame.bytes.len() as u64;
            let never =
                alone > SEGMENT_MAX_BYTES || self.used_without_segments() + blocks(alone) > self.options.max_bytes;
            let reason = if used > self.options.max_bytes { Reason::Size } else { Reason::Disk };
            if never || !self.evict_oldest(reason)? {
                return Err(WriteError::TooLarge);
            }
        }
    }

    pub(super) fn used_without_segments(&self) -> u64 {
        self.used_bytes() - self.segments.iter().map(|segment| blocks(segment.file_len)).sum::<u64>()
    }

    fn create(&mut self, draft: Draft, item: Item<'_>) -> Result<(), WriteError> {
        self.look_at_disk();
        let before = item.before();
        let path = self.segment_path(draft.first);
        let file = self.create_file(&path)?;
        let header = encode_file_header(self.store_id, before, draft.first, item.at());
        if let Err(error) = self.fs.write_all_at(&file, &header, 0) {
            drop(file);
            self.discard(&path);
            return Err(error.into());
        }
        self.segments.push_back(Segment {
            first: draft.first,
            start: before.samples,
            end: before,
            len: FILE_HEADER_LEN,
            file_len: SEGMENT_OVERHEAD_BYTES,
            first_at: item.at(),
            newest_at: Timestamp::MIN,
            holes: Vec::new(),
            is_sealed: false,
        });
        self.active = Some(Active { file, path, draft });
        self.sync_new_name()
    }

    /// A new file's name is as durable as what will be in it (`fsync` of a file does not promise its name).
    fn sync_new_name(&mut self) -> Result<(), WriteError> {
        if self.options.sync == SyncPolicy::Never {
            return Ok(());
        }
        match self.fs.sync_dir(&self.options.dir) {
            Err(error) if self.options.sync == SyncPolicy::Always => {
                self.abandon();
                Err(WriteError::Io(error))
            }
            // Tried again with the timer: what is written meanwhile is no worse off than in a file that is known.
            Err(error) => {
                self.note_error(Operation::Sync, &error);
                self.mark_dirty(self.options.dir.clone());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn create_file(&mut self, path: &std::path::Path) -> io::Result<F::File> {
        match self.fs.open(path, Access::CreateNew) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.options.dir.display(), "the buffer's directory is gone; making it again");
                self.fs.create_dir_all(&self.options.dir)?;
                // The notes and cursors went with it; the next process must find the account, and the store's id twice.
                self.store_everything();
                self.fs.open(path, Access::CreateNew)
            }
            // Left by an attempt of ours that failed half-way: whatever held samples is in `segments`.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.fs.remove(path)?;
                self.fs.open(path, Access::CreateNew)
            }
            other => other,
        }
    }

    fn write_frame(&mut self, frame: &Frame, item: Item<'_>) -> Result<(), WriteError> {
        let (Some(active), Some(segment)) = (self.active.as_mut(), self.segments.back()) else {
            return Err(WriteError::Io(io::Error::other("BUG: no segment is open")));
        };
        let len = segment.len;
        if let Err(error) = self.fs.write_all_at(&active.file, &frame.bytes, len) {
            active.draft.dictionary.forget_from(frame.known_before);
            if self.fs.truncate(&active.file, len).is_err() {
                self.abandon();
            }
            return Err(WriteError::Io(error));
        }
        if self.options.sync == SyncPolicy::Always
            && let Some(active) = self.active.take()
        {
            let synced = self.sync_file(&active.file);
            if synced.is_err() {
                // Best effort: what stays behind is found again at the next start and recognised as a double.
                drop(self.fs.truncate(&active.file, len));
            }
            self.active = Some(active);
            if let Err(error) = synced {
                self.abandon();
                return Err(WriteError::InDoubt(error));
            }
        } else if let SyncPolicy::Interval(_) = self.options.sync {
            self.remember(item);
        }
        self.commit(frame.bytes.len() as u64, item);
        Ok(())
    }

    /// What is written now is not safe before the next sync.
    fn remember(&mut self, item: Item<'_>) {
        let (Some(active), Some(segment)) = (&self.active, self.segments.back()) else { return };
        let (path, len, newest_at) = (active.path.clone(), segment.len, segment.newest_at);
        if let Item::Snapshot { before, snapshot } = item {
            self.in_doubt.note(before, snapshot, len, newest_at);
        }
        self.mark_dirty(path);
    }

    fn commit(&mut self, written: u64, item: Item<'_>) {
        let Some(segment) = self.segments.back_mut() else { return };
        segment.len += written;
        segment.file_len = segment.len + Footer::RECORD_LEN as u64;
        segment.end = item.after();
        segment.newest_at = segment.newest_at.max(item.at());
        if let Item::Skip { before, after, .. } = item {
            segment.lose(before.samples, after.samples, Cause::Memory);
        }
    }

    /// Finishes the file being written with its totals.
    ///
    /// # Errors
    /// When the disk did not keep what is in it and takes it nowhere else; it is in memory then.
    pub(super) fn seal(&mut self, now: Instant) -> Result<(), WriteError> {
        let (Some(active), Some(segment)) = (self.active.take(), self.segments.back_mut()) else { return Ok(()) };
        if segment.end.seq < segment.first {
            self.active = Some(active);
            self.abandon();
            return Ok(());
        }
        let footer = segment.footer().map(|footer| footer.record(active.draft.seed));
        let len = segment.len;
        let written = footer
            .map_or(Ok(0), |footer| self.fs.write_all_at(&active.file, &footer, len).map(|()| footer.len() as u64));
        match written {
            Ok(footer_len) => {
                segment.len = len + footer_len;
                segment.file_len = segment.len;
            }
            // Without totals the next start reads the whole file; nothing is lost.
            Err(error) => {
                self.note_error(Operation::Write, &error);
                drop(self.fs.truncate(&active.file, len));
                tracing::warn!(path = %active.path.display(), %error, "could not write a segment's totals");
            }
        }
        if self.options.sync != SyncPolicy::Never {
            self.dirty.remove(&active.path);
            match self.sync_file(&active.file) {
                Ok(()) => self.in_doubt.clear(),
                Err(error) => {
                    self.sync_failed(&active.path.clone(), &error);
                    self.rewrite_in_doubt(active, now)?;
                }
            }
        }
        Ok(())
    }

    /// Writes no more to the current file; what is in it stays readable.
    pub(super) fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        let actual = self.fs.len(&active.file);
        let Some(segment) = self.segments.back_mut() else { return };
        if let Ok(actual) = actual {
            segment.file_len = actual.max(segment.len);
        }
        if segment.end.seq < segment.first {
            drop(active.file);
            self.segments.pop_back();
            self.discard(&active.path);
        }
    }

    fn discard(&mut self, path: &std::path::Path) {
        if let Err(error) = self.fs.remove(path) {
            self.note_error(Operation::Remove, &error);
            tracing::debug!(path = %path.display(), %error, "could not remove an empty segment");
        }
    }

    /// Somebody removed the file we write to: bytes written there are gone when we close it. Where nobody can tell whether
    /// it is still there, another is begun.
    fn give_up_removed_file(&mut self) {
        let Some(active) = &self.active else { return };
        let first = active.draft.first;
        let links = self.fs.links(&active.file);
        match &links {
            Ok(0) => {
                tracing::error!(path = %self.options.dir.display(), "somebody removed the buffer's file; unsent samples in it are lost");
            }
            Ok(_) => return,
            Err(error) => self.note_error(Operation::Write, error),
        }
        self.abandon();
        if links.is_ok()
            && let Some(segment) = self.segments.back_mut().filter(|segment| segment.first == first)
        {
            segment.lose(segment.start, segment.end.samples, Cause::Damage);
            // Likely the notes and cursors went with it.
            self.store_everything();
        }
    }
}

impl Draft {
    pub(super) fn new(store_id: u128, first: u64) -> Self {
        Self { first, seed: Seed::new(store_id, first), dictionary: Dictionary::default() }
    }
}

/// Whether the disk, or our share of it, is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
