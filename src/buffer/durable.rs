//! What is on disk besides the segments: cursors and the log's own notes; and when written bytes are forced there.
//!
//! None of it is the truth. Losing a cursor costs duplicates, losing the notes costs reading the segments again.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::model::Timestamp;

use super::SyncPolicy;
use super::endpoint::cursor_path;
use super::fs::{Access, Fs};
use super::log::{Log, LogOptions, blocks};
use super::pair::{self, Pair};
use super::record::{RESUMABLE_LIMIT, le_i64, le_u64};
use super::segment::{Cause, Hole, Mark};
use super::status::Operation;

/// Bytes of the log's own value: store id, last place, newest instant, how the process ended,
const META_LEN: usize = 16 + 3 * 8 + 1;
/// and for each range of samples that ended in memory its first and last count.
const RANGE_LEN: usize = 2 * 8;
/// So many such ranges are told apart from damage; of more, the newest. With them the file still fits into a sector.
const RANGES_MAX: usize = 24;

/// Stands for [`Ending::Open`] where the last range is what the process holds.
const HOLDING: u8 = 3;

/// How the process that wrote it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It has not, or was killed.
    Open,
    /// It closed the log, and the last segment has its totals.
    Closed,
    /// It closed the log; the last segment is of a process that was killed, or its totals could not be written.
    ClosedWithoutTotals,
}

impl Ending {
    pub(super) fn is_closed(self) -> bool {
        self != Self::Open
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            1 => Self::Closed,
            2 => Self::ClosedWithoutTotals,
            _ => Self::Open,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Open => 0,
            Self::Closed => 1,
            Self::ClosedWithoutTotals => 2,
        }
    }
}

/// What the log keeps about itself, so that nothing is forgotten when the last segment is gone.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) store_id: u128,
    pub(super) end: Mark,
    pub(super) last_at: Option<Timestamp>,
    pub(super) ending: Ending,
    /// What was in memory only when a process ended, and some endpoint still waits for.
    pub(super) in_memory: Vec<Hole>,
    /// What is in memory only while the process that wrote this goes on.
    pub(super) held: Option<Hole>,
}

impl Meta {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(META_LEN + self.in_memory.len() * RANGE_LEN);
        out.extend_from_slice(&self.store_id.to_le_bytes());
        out.extend_from_slice(&self.end.seq.to_le_bytes());
        out.extend_from_slice(&self.end.samples.to_le_bytes());
        out.extend_from_slice(&self.last_at.unwrap_or(Timestamp::MIN).millis().to_le_bytes());
        out.push(if self.held.is_some() { HOLDING } else { self.ending.byte() });
        let ranges: Vec<&Hole> = self.in_memory.iter().chain(&self.held).collect();
        for hole in &ranges[ranges.len().saturating_sub(RANGES_MAX)..] {
            out.extend_from_slice(&hole.start.to_le_bytes());
            out.extend_from_slice(&hole.end.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let (value, ranges) = value.split_at_checked(META_LEN)?;
        let (ranges, rest) = ranges.as_chunks::<RANGE_LEN>();
        let range =
            |bytes: &[u8; RANGE_LEN]| Hole { start: le_u64(bytes, 0), end: le_u64(bytes, 8), cause: Cause::Memory };
        let mut in_memory: Vec<Hole> = ranges.iter().map(range).collect();
        if !rest.is_empty() || in_memory.len() > RANGES_MAX {
            return None;
        }
        let last_at = Timestamp::from_millis(le_i64(value, 32));
        let end = Mark { seq: le_u64(value, 16), samples: le_u64(value, 24) };
        (end.seq < RESUMABLE_LIMIT && end.samples < RESUMABLE_LIMIT).then_some(Self {
            store_id: u128::from(le_u64(value, 0)) | u128::from(le_u64(value, 8)) << 64,
            end,
            last_at: (last_at != Timestamp::MIN).then_some(last_at),
            ending: Ending::from_byte(value[40]),
            held: in_memory.pop_if(|_| value[40] == HOLDING),
            in_memory,
        })
    }

    /// What ended with a process; what one that is alive holds is not lost.
    pub(super) fn ended_in_memory(&self, is_alive: bool) -> Vec<Hole> {
        self.in_memory.iter().chain(self.held.iter().filter(|_| !is_alive)).copied().collect()
    }
}

/// What is known of the names of the files for small values.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Whether all of them are on the disk; what the process before has synced nobody knows.
    are_synced: bool,
    /// Whether the directory had to be made again.
    were_lost: bool,
    /// Whether everything is being written because of that.
    are_restored: bool,
}

/// An id no other store has; it only has to differ from those whose bytes may turn up on the same disk.
pub(super) fn new_store_id() -> u128 {
    u128::from(random_u64()) << 64 | u128::from(random_u64())
}

/// A number nobody guesses, and that is another one each time.
pub(super) fn random_u64() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

impl<F: Fs> Log<F> {
    /// Writes an endpoint's cursor.
    ///
    /// Returns whether that worked; where it did not, a crash steps back.
    pub(super) fn store_cursor(&mut self, index: usize) -> bool {
        let endpoint = &mut self.endpoints[index];
        let value = endpoint.encode(self.store_id);
        let stored = store_value(&self.fs, &self.options, &mut endpoint.pair, &value, &mut self.names);
        let is_kept = self.stored(stored, |log| &mut log.endpoints[index].pair);
        self.endpoints[index].is_saved = is_kept;
        self.store_what_was_lost();
        is_kept
    }

    /// Writes the cursors that could not be written the last time. Returns whether all of them are on record.
    pub(super) fn store_unsaved(&mut self) -> bool {
        let unsaved = (0..self.endpoints.len()).filter(|index| !self.endpoints[*index].is_saved);
        unsaved.collect::<Vec<_>>().into_iter().all(|index| self.store_cursor(index))
    }

    /// Writes what the log keeps about itself.
    pub(super) fn store_meta(&mut self, ending: Ending) -> bool {
        let in_memory = self.between.iter().filter(|hole| hole.cause == Cause::Memory).copied().collect();
        let held = self.ring.span();
        let meta = Meta { store_id: self.store_id, end: self.end, last_at: self.last_at, ending, in_memory, held };
        let stored = store_value(&self.fs, &self.options, &mut self.meta, &meta.encode(), &mut self.names);
        let is_kept = self.stored(stored, |log| &mut log.meta);
        self.noted_held = held.filter(|_| is_kept);
        self.store_what_was_lost();
        is_kept
    }

    /// Whatever was written made the directory again: the lock, the notes and the other cursors went with the old one.
    pub(super) fn store_what_was_lost(&mut self) {
        // Once is enough: what goes missing meanwhile is found so by whatever is written next.
        if !std::mem::take(&mut self.names.were_lost) || std::mem::replace(&mut self.names.are_restored, true) {
            return;
        }
        if let Err(error) = self.take_directory() {
            self.note_error(Operation::Cursor, &error);
        }
        self.names.are_restored = false;
    }

    /// Writes the notes and every cursor.
    pub(super) fn store_everything(&mut self) {
        self.store_meta(Ending::Open);
        for index in 0..self.endpoints.len() {
            self.store_cursor(index);
        }
    }

    /// Makes a value of `pair` as durable as wanted; a failure costs duplicates after a crash, so it is no more than a warning.
    fn stored(&mut self, stored: io::Result<(PathBuf, F::File)>, pair: impl FnOnce(&mut Self) -> &mut Pair) -> bool {
        let was_written = stored.is_ok();
        let Err(error) = stored.and_then(|(path, file)| self.make_durable(path, &file)) else { return true };
        let pair = pair(self);
        if was_written {
            pair.step_back();
        }
        let path = pair.next_path();
        self.note_error(Operation::Cursor, &error);
        tracing::warn!(path = %path.display(), %error, "a cursor, or the log's notes, could not be saved; after a crash samples may be sent again");
        false
    }

    pub(super) fn make_durable(&mut self, path: PathBuf, file: &F::File) -> io::Result<()> {
        match self.options.sync {
            SyncPolicy::Always => self.sync_file(file),
            SyncPolicy::Interval(_) => {
                self.mark_dirty(path);
                Ok(())
            }
            SyncPolicy::Never => Ok(()),
        }
    }

    pub(super) fn mark_dirty(&mut self, path: PathBuf) {
        self.dirty.insert(path);
        self.dirty_since.get_or_insert_with(Instant::now);
    }

    pub(super) fn sync_file(&mut self, file: &F::File) -> io::Result<()> {
        let began = Instant::now();
        let result = self.fs.sync(file);
        let took = began.elapsed();
        let stats = &mut self.counts.syncs;
        stats.count += 1;
        stats.failed += u64::from(result.is_err());
        stats.total += took;
        stats.longest = stats.longest.max(took);
        result
    }

    /// Forces everything written to the disk.
    pub(super) fn sync_dirty(&mut self, now: Instant) {
        self.dirty_since = None;
        let mut failed = BTreeSet::new();
        for path in std::mem::take(&mut self.dirty) {
            // A sync that failed may have led to its being written again since; this one covers that too.
            self.dirty.remove(&path);
            let active = self.active.take_if(|active| active.path == path);
            let result = match &active {
                // An error of a write is told to a file that was open then.
                Some(active) => self.sync_file(&active.file),
                None => self.fs.open(&path, Access::Read).and_then(|file| self.sync_file(&file)),
            };
            match (result, active) {
                (Ok(()), Some(active)) => {
                    self.in_doubt.clear();
                    self.active = Some(active);
                }
                (Err(error), Some(active)) => {
                    self.sync_failed(&path, &error);
                    // What fails here is in memory, and tried again from there.
                    self.rewrite_in_doubt(active, now).ok();
                }
                (Err(error), None) if path == self.options.dir => {
                    self.note_error(Operation::Sync, &error);
                    self.mark_dirty(path);
                }
                (Err(error), None) if error.kind() != io::ErrorKind::NotFound => {
                    self.note_error(Operation::Sync, &error);
                    tracing::warn!(path = %path.display(), %error, "the disk failed to keep what was written; it is written again with the next");
                    failed.insert(path);
                }
                (_, None) => {}
            }
        }
        self.step_back(&failed);
    }

    /// The newest values in these files may never get to the disk: the next one goes over each, and leaves the one before alone.
    fn step_back(&mut self, files: &BTreeSet<PathBuf>) {
        let Self { endpoints, states, meta, .. } = self;
        for endpoint in endpoints.iter_mut().filter(|endpoint| files.contains(&endpoint.pair.newest_path())) {
            endpoint.is_saved = false;
            endpoint.pair.step_back();
        }
        for pair in states.values_mut().chain([meta]).filter(|pair| files.contains(&pair.newest_path())) {
            pair.step_back();
        }
    }

    pub(super) fn sync_failed(&mut self, path: &Path, error: &io::Error) {
        self.note_error(Operation::Sync, error);
        tracing::warn!(path = %path.display(), %error,
            "the disk failed to keep what was written; writing it again to a new file; check the disk");
    }
}

/// Writes `value`, making the directory again where somebody removed it.
pub(super) fn store_value<F: Fs>(
    fs: &F,
    options: &LogOptions,
    pair: &mut Pair,
    value: &[u8],
    names: &mut Names,
) -> io::Result<(PathBuf, F::File)> {
    if options.sync != SyncPolicy::Never && !pair.is_sure() {
        pair.make_sure(fs)?;
        // The file may have been made by whoever left it.
        if !names.are_synced {
            fs.sync_dir(&options.dir)?;
        }
    }
    let path = pair.next_path();
    if pair.reserve(fs, value) || fs.open(&path, Access::Read).is_err() {
        names.are_synced = false;
    }
    let file = match pair.store(fs, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs.create_dir_all(&options.dir)?;
            names.were_lost = true;
            pair.store(fs, value)?
        }
        other => other?,
    };
    // Syncing a file does not promise that its name is on the disk too.
    if !names.are_synced && options.sync != SyncPolicy::Never {
        if let Err(error) = fs.sync_dir(&options.dir) {
            pair.step_back();
            return Err(error);
        }
        names.are_synced = true;
    }
    Ok((path, file))
}

/// What the files of an endpoint's cursor will take at most.
pub(super) fn cursor_files(dir: &Path, name: &str, value_len: usize) -> impl Iterator<Item = (String, u64)> {
    let size = blocks(pair::file_len(value_len));
    pair::paths(&cursor_path(dir, name)).into_iter().filter_map(move |path| Some((file_name_of(&path)?, size)))
}

pub(super) fn meta_files(dir: &Path) -> impl Iterator<Item = (String, u64)> {
    let size = blocks(pair::file_len(META_LEN + RANGES_MAX * RANGE_LEN));
    pair::paths(&dir.join(META_NAME)).into_iter().filter_map(move |path| Some((file_name_of(&path)?, size)))
}

pub(super) const META_NAME: &str = "log";
/// Whoever writes in the directory holds a lock on this file.
pub(super) const LOCK_NAME: &str = "lock";

pub(super) fn file_name_of(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.to_owned())
}
