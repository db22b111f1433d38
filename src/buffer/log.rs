//! The log: an ordered sequence of snapshots in segments, one place in it for each endpoint, all bounds kept.
//!
//! Synchronous and single-threaded; time is handed in. The truth is the segment files: the cursors only say how far each
//! endpoint is, and losing one costs duplicates, never samples. Opening reads one footer a segment, and whole files only
//! where a process ended without one.
//!
//! It never appends to a file of an earlier process, never repairs a file, and never fails because of what it finds in one.
//! Writing is in `append.rs` and `active.rs`, reading in `read.rs`; this file holds what both share.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::model::{Interner, Timestamp};

use super::SyncPolicy;
use super::active::Active;
use super::age::AgeGuard;
use super::append::WriteError;
use super::away::Away;
use super::doubt::InDoubt;
use super::durable::{Ending, Names, random_u64};
use super::endpoint::{Acked, Ahead, Endpoint};
use super::fs::Fs;
use super::pair::Pair;
use super::quarantine::Quarantine;
use super::read::Reader;
use super::record::Footer;
use super::ring::Ring;
use super::segment::{Cause, FILE_HEADER_LEN, Hole, Mark, Segment, file_name};
use super::status::{Fates, IoErrors, Operation, SyncStats};

/// What is accounted as one unit of disk.
pub(super) const BLOCK_BYTES: u64 = 4096;
/// The lock file and the directories above and below the log's own, in blocks.
const FIXED_BLOCKS: u64 = 3;
/// By so much a directory grows at most when a file is made: ext4 turns one block into an index and two.
const DIR_GROWTH_BYTES: u64 = 2 * BLOCK_BYTES;
/// So many files, whatever their names, do not fill its first block.
const DIR_SMALL_FILES: usize = 32;
/// Segment sizes: small enough that evicting one loses little of a small buffer, large enough to define series seldom.
const SEGMENT_MIN_BYTES: u64 = 256 << 10;
const SEGMENT_USUAL_MAX_BYTES: u64 = 4 << 20;
const SEGMENTS_WANTED: u64 = 64;
/// Memory for snapshots while the disk cannot be written.
const RING_BYTES: usize = 1 << 20;
/// What a process appends first goes on a random number of positions ahead, up to this one. Where a power cut took the newest segments, their
/// names would be given out again, and old bytes that the file system shows in a new file would be taken for its own.
const AHEAD_MAX: u64 = 1 << 20;
/// How often it is looked what others did to the disk and the directory.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// What the log is told.
#[derive(Clone, Debug)]
pub(super) struct LogOptions {
    /// The directory of this format version.
    pub(super) dir: PathBuf,
    pub(super) max_bytes: u64,
    pub(super) max_age: Option<Duration>,
    pub(super) min_free: Option<u64>,
    pub(super) sync: SyncPolicy,
    pub(super) endpoints: Vec<String>,
    pub(super) segment_bytes: u64,
    pub(super) ring_bytes: usize,
    /// Positions left out when a directory that is not new is opened ([`AHEAD_MAX`]).
    pub(super) ahead: u64,
    /// Whether the oldest goes where there is no room for the newest.
    pub(super) evicts: bool,
}

impl LogOptions {
    pub(super) fn new(options: super::Options) -> Self {
        Self {
            dir: options.path.join("v1"),
            max_bytes: options.max_bytes,
            max_age: options.max_age,
            min_free: options.min_free,
            sync: options.sync,
            endpoints: options.endpoints,
            segment_bytes: (options.max_bytes / SEGMENTS_WANTED).clamp(SEGMENT_MIN_BYTES, SEGMENT_USUAL_MAX_BYTES),
            ring_bytes: RING_BYTES,
            ahead: 1 + random_u64() % AHEAD_MAX,
            evicts: true,
        }
    }

    /// For work on what is there: the bounds keep it from growing, and nothing that is there goes because of them.
    pub(super) fn keeping_everything(options: super::Options) -> Self {
        Self { evicts: false, max_age: None, ..Self::new(options) }
    }
}

/// Counts since start.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) append_errors: u64,
    pub(super) append_errors_samples: u64,
    pub(super) io_errors: ErrorCounts,
    pub(super) evicted_segments: u64,
    pub(super) damage_found: u64,
    pub(super) torn_tail_bytes: u64,
    pub(super) syncs: SyncStats,
}

/// Failed operations by kind; few kinds, so few entries.
#[derive(Clone, Debug, Default)]
pub(super) struct ErrorCounts(BTreeMap<(Operation, &'static str), u64>);

impl ErrorCounts {
    fn note(&mut self, operation: Operation, error: &io::Error) {
        *self.0.entry((operation, errno_name(error))).or_default() += 1;
    }

    pub(super) fn list(&self) -> Vec<IoErrors> {
        self.0.iter().map(|(&(operation, errno), &count)| IoErrors { operation, errno, count }).collect()
    }
}

/// The names of errors that disks are known for (errno(3)).
fn errno_name(error: &io::Error) -> &'static str {
    use rustix::io::Errno;
    let known = [
        (Errno::NOSPC, "ENOSPC"),
        (Errno::DQUOT, "EDQUOT"),
        (Errno::FBIG, "EFBIG"),
        (Errno::IO, "EIO"),
        (Errno::ROFS, "EROFS"),
        (Errno::ACCESS, "EACCES"),
        (Errno::PERM, "EPERM"),
        (Errno::NOENT, "ENOENT"),
        (Errno::MFILE, "EMFILE"),
        (Errno::NFILE, "ENFILE"),
        (Errno::STALE, "ESTALE"),
    ];
    let raw = error.raw_os_error();
    known.into_iter().find(|(errno, _)| Some(errno.raw_os_error()) == raw).map_or("other", |(_, name)| name)
}

/// Whether the buffer being full has been said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fullness {
    Roomy,
    Full,
}

/// The log.
pub(super) struct Log<F: Fs> {
    pub(super) fs: F,
    pub(super) lock: Option<F::Lock>,
    pub(super) options: LogOptions,
    pub(super) store_id: u128,
    /// In order; the last is being written when `active` is there.
    pub(super) segments: VecDeque<Segment>,
    /// Lost samples that lie in no segment's range.
    pub(super) between: Vec<Hole>,
    pub(super) active: Option<Active<F>>,
    pub(super) ring: Ring,
    pub(super) in_doubt: InDoubt,
    /// After the last position given out.
    pub(super) end: Mark,
    /// Positions that the first snapshot of this process leaves out ([`AHEAD_MAX`]).
    pub(super) left_out: u64,
    pub(super) last_at: Option<Timestamp>,
    pub(super) meta: Pair,
    /// Where sources' states are kept, by file name without suffix.
    pub(super) states: BTreeMap<PathBuf, Pair>,
    pub(super) endpoints: Vec<Endpoint>,
    /// Those that are configured no more.
    pub(super) away: Vec<Away>,
    /// One for each endpoint.
    pub(super) readers: Vec<Option<Reader<F>>>,
    pub(super) interner: Interner,
    /// Bytes, in blocks, of the files that are not segments, by name; for those to come what they will take.
    pub(super) small: BTreeMap<String, u64>,
    /// What the directory itself takes.
    pub(super) dir_len: u64,
    /// Files written since they were last forced to the disk.
    pub(super) dirty: BTreeSet<PathBuf>,
    pub(super) dirty_since: Option<Instant>,
    pub(super) names: Names,
    /// What the notes are sure to say is in memory only.
    pub(super) noted_held: Option<Hole>,
    pub(super) fullness: Fullness,
    /// Beyond this the file system would have too little left.
    pub(super) ceiling_bytes: u64,
    pub(super) short_of_disk: bool,
    pub(super) age_guard: AgeGuard,
    pub(super) quarantine: Quarantine,
    /// When the disk was last looked at.
    pub(super) looked_at: Option<Instant>,
    pub(super) open_took: Duration,
    pub(super) unclean_start: bool,
    pub(super) counts: Counts,
}

/// Bytes as the disk takes them.
pub(super) fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// What is there besides the files, where the log's directory takes `dir_len` itself.
pub(super) fn fixed_bytes(dir_len: u64) -> u64 {
    FIXED_BLOCKS * BLOCK_BYTES + blocks(dir_len).max(BLOCK_BYTES)
}

/// Lost samples between two places.
pub(super) fn lost_within(holes: impl Iterator<Item = Hole>, from: u64, to: u64) -> (u64, u64) {
    holes.fold((0, 0), |(damage, memory), hole| match hole.cause {
        Cause::Damage => (damage + hole.within(from, to), memory),
        Cause::Memory => (damage, memory + hole.within(from, to)),
    })
}

impl<F: Fs> Log<F> {
    /// Bytes on disk, those reserved for the files it must be able to write included.
    pub(super) fn used_bytes(&self) -> u64 {
        let segments: u64 = self.segments.iter().map(|segment| blocks(segment.file_len)).sum();
        fixed_bytes(self.dir_len) + self.small.values().sum::<u64>() + self.quarantine.bytes() + segments
    }

    /// What one more file may make the directory grow by.
    pub(super) fn directory_growth(&self) -> u64 {
        if self.segments.len() + self.small.len() < DIR_SMALL_FILES { 0 } else { DIR_GROWTH_BYTES }
    }

    pub(super) fn segment_path(&self, first: u64) -> PathBuf {
        self.options.dir.join(file_name(first))
    }

    pub(super) fn note_error(&mut self, operation: Operation, error: &io::Error) {
        self.counts.io_errors.note(operation, error);
    }

    /// What others did to the disk and the directory since the last look.
    fn look_around(&mut self) {
        self.look_at_disk();
        self.find_quarantined();
    }

    /// Samples lost between two places: those the disk lost, those memory dropped.
    pub(super) fn lost(&self, from: Mark, to: Mark) -> (u64, u64) {
        lost_of(&self.segments, &self.between, &self.ring, from, to)
    }

    pub(super) fn ahead(&self, place: Mark) -> Ahead {
        let on_disk: u64 = self.segments.iter().map(|segment| segment.readable_after(place.samples)).sum();
        let (corrupt, memory) = self.lost(place, Mark { seq: u64::MAX, samples: u64::MAX });
        Ahead { readable: on_disk + self.ring.samples_after(place.samples), corrupt, memory }
    }

    /// Settles what an endpoint was given, up to `through`.
    pub(super) fn ack(&mut self, index: usize, through: u64, fates: Fates) {
        let Self { endpoints, segments, between, ring, .. } = self;
        let Some(endpoint) = endpoints.get_mut(index) else { return };
        let acked = endpoint.settle(through, fates, |from, to| lost_of(segments, between, ring, from, to).1);
        let name = &endpoint.name;
        match acked {
            Acked::Balanced => {}
            Acked::Mismatch { lent, accounted } => {
                tracing::error!(endpoint = %name, lent, accounted, "BUG: an acknowledgement does not add up");
            }
            Acked::NotLent => {
                tracing::error!(endpoint = %name, through, "BUG: an acknowledgement of what was not given out");
                return;
            }
        }
        if endpoint.oldest_at.is_none() || endpoint.loan.is_none() {
            self.find_oldest(index);
        }
        self.pass_unreadable(index);
        // A cursor beyond what is written says that there was more; the notes say where that was.
        self.note_held();
        self.store_cursor(index);
        self.remove_passed();
    }

    /// Remembers that the endpoint acknowledged something.
    pub(super) fn note_ack(&mut self, index: usize, now: Instant) {
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            endpoint.acked_at = Some(now);
        }
    }

    /// Removes segments every endpoint has passed, and is on record to have passed. Without any endpoint all of them stay,
    /// for those that are configured again.
    pub(super) fn remove_passed(&mut self) {
        let Some(passed) = self.endpoints.iter().map(|endpoint| endpoint.place.seq).min() else { return };
        loop {
            let sealed = self.segments.len() > usize::from(self.active.is_some());
            if !sealed || self.segments.front().is_none_or(|segment| segment.end.seq > passed) {
                break;
            }
            // A crash would call corrupt what was delivered and is not on record. If room is short it goes all the same.
            if !self.store_unsaved() {
                break;
            }
            if let Err(error) = self.remove_front() {
                tracing::warn!(path = %self.options.dir.display(), %error, "could not remove a segment that was delivered");
                break;
            }
        }
        let passed = self.endpoints.iter().map(|endpoint| endpoint.place.samples).min().unwrap_or(u64::MAX);
        self.between.retain(|hole| hole.end > passed);
    }

    /// Removes the oldest segment's file and forgets it; endpoints must have passed it.
    pub(super) fn remove_front(&mut self) -> io::Result<()> {
        let Some(first) = self.segments.front().map(|segment| segment.first) else { return Ok(()) };
        // Without this, an empty directory would not know how far the log had come.
        self.store_meta(Ending::Open);
        for reader in &mut self.readers {
            // An open file keeps its blocks.
            reader.take_if(|reader| reader.first == first);
        }
        match self.fs.remove(&self.segment_path(first)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.note_error(Operation::Remove, &error);
                return Err(error);
            }
            _ => {}
        }
        self.segments.pop_front();
        self.interner.forget_unused();
        Ok(())
    }

    /// When [`Log::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let look_at = self.looked_at.and_then(|at| at.checked_add(LOOK_INTERVAL));
        let sync_at = match self.options.sync {
            SyncPolicy::Interval(interval) => self.dirty_since.and_then(|since| since.checked_add(interval)),
            SyncPolicy::Always | SyncPolicy::Never => None,
        };
        sync_at.into_iter().chain(self.ring.retry_at()).chain(look_at).min()
    }

    /// Does what is due: forces written bytes to the disk, tries the disk again.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_INTERVAL) {
            self.looked_at = Some(now);
            self.look_around();
        }
        if self.ring.retry_at().is_some_and(|at| at <= now) {
            self.drain_ring(now);
        }
        if let SyncPolicy::Interval(interval) = self.options.sync
            && self.dirty_since.is_some_and(|since| now.saturating_duration_since(since) >= interval)
        {
            self.sync_dirty(now);
        }
    }

    /// Ends in order: everything durable, the next start finds a footer and knows that nothing is missing.
    pub(super) fn close(&mut self, now: Instant) {
        self.drain_ring(now);
        if let Err(WriteError::Io(error) | WriteError::InDoubt(error)) = self.seal(now) {
            tracing::error!(path = %self.options.dir.display(), %error, "the newest samples could not be forced to the disk");
        }
        self.give_up_memory();
        let mut saved = true;
        for index in 0..self.endpoints.len() {
            self.evict_limbo(index);
            self.pass_unreadable(index);
            saved &= self.store_cursor(index);
        }
        let has_totals = self.segments.back().is_none_or(|last| last.is_sealed);
        saved &= self.store_meta(if has_totals { Ending::Closed } else { Ending::ClosedWithoutTotals });
        if self.options.sync != SyncPolicy::Never {
            self.sync_dirty(now);
        }
        if saved {
            self.remove_passed_without_meta();
        }
        self.lock = None;
    }

    /// As the last act: what every endpoint has passed need not be read by the next process.
    fn remove_passed_without_meta(&mut self) {
        let Some(passed) = self.endpoints.iter().map(|endpoint| endpoint.place.seq).min() else { return };
        while let Some(segment) = self.segments.front().filter(|segment| segment.end.seq <= passed) {
            let path = self.segment_path(segment.first);
            if self.fs.remove(&path).is_err() {
                break;
            }
            self.segments.pop_front();
        }
    }
}

pub(super) fn lost_of(segments: &VecDeque<Segment>, between: &[Hole], ring: &Ring, from: Mark, to: Mark) -> (u64, u64) {
    let holes = between.iter().chain(segments.iter().flat_map(|segment| &segment.holes)).copied();
    lost_within(holes.chain(ring.gaps().map(|gap| gap.hole())), from.samples, to.samples)
}

/// Bytes a segment is sure to need besides its records.
pub(super) const SEGMENT_OVERHEAD_BYTES: u64 = FILE_HEADER_LEN + Footer::RECORD_LEN as u64;
