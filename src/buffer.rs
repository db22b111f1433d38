//! The buffer: an ordered log of snapshots on disk, and one durable place in it for each endpoint.
//!
//! What was appended is given out oldest first, by each endpoint at its own pace, until it is acknowledged; then, and only
//! then, its file may go. Disk use never passes `max_bytes`: when there is no room the oldest segment goes, and is counted
//! for every endpoint that still wanted it. [`Ledger`] accounts for every sample of every endpoint, always.
//!
//! The buffer never alters a value, never reorders, never stops accepting because a disk fails or is full, and never
//! refuses to open because of a file's content. It knows no source, no endpoint's address and no HTTP.
//!
//! | room | what it does |
//! |---|---|
//! | `fs`, `lock_note` | the operations on files, the seam for tests that make them fail; who has the lock |
//! | `record`, `codec`, `draft` | bytes: one record, one snapshot, what is appended |
//! | `segment`, `walk`, `recover` | one file: what is known of it, from record to record, found out again |
//! | `pair`, `state` | small values that survive a full disk and a power cut |
//! | `endpoint`, `away`, `status` | an endpoint's place and account; those configured no more; the numbers told to others |
//! | `log`, `open`, `append`, `active`, `read`, `evict` | the log itself, synchronous |
//! | `survey` | the segments of a directory lined up, for `open` and `inspect` |
//! | `age` | whether the clock can be believed |
//! | `degraded`, `ring` | what happens while the disk cannot be written |
//! | `quarantine` | what a receiver will never take |
//! | `durable`, `doubt` | cursors, when bytes are forced to the disk, and what if that fails |
//! | `handle` | [`Buffer`]: the log on a thread of its own, for the asynchronous world |
//! | `inspect`, `stretch` | a directory seen from outside, without a lock and without writing |
//! | `carry`, `upkeep` | files that carry snapshots to another buffer; taking them in, and dropping samples on purpose |
//!
//! # What one flipped bit costs today
//! In a snapshot: that snapshot. In a definition of series: nothing, each is written twice. In the header of a file or its
//! totals: nothing. In one of a cursor's two files: a step back, so some samples are sent again. All of it is counted, but
//! for the very last record of a process that was killed: if *its* header is damaged too, it looks like one never finished.

mod active;
mod age;
mod append;
mod away;
pub mod carry;
mod codec;
mod degraded;
mod doubt;
mod draft;
mod durable;
mod endpoint;
mod evict;
mod fs;
mod handle;
pub mod inspect;
mod lock_note;
mod log;
mod numbers;
mod open;
mod pair;
mod quarantine;
mod read;
mod record;
mod recover;
mod ring;
mod segment;
mod state;
mod status;
mod stretch;
mod survey;
pub mod upkeep;
mod walk;

#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::Snapshot;

pub use handle::Buffer;
pub use quarantine::{Fault, Quarantined, Requeued, Verdict};
pub use status::{EndpointStatus, Evicted, Fates, IoErrors, Ledger, Operation, QuarantineStatus, Status, SyncStats};

/// When appended bytes are forced to the disk. A killed process loses nothing under any of them; a power cut may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before an append returns.
    Always,
    /// By a timer, at most this long after the write.
    Interval(Duration),
    /// When the kernel likes.
    Never,
}

/// What a buffer is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its directory; made (mode 0700) where it is missing.
    pub path: PathBuf,
    /// Never more than this on disk, everything included.
    pub max_bytes: u64,
    /// Segments whose newest instant is older than this are dropped, measured from the newest instant appended, once the
    /// clock has been steady for ten minutes. None spans more than a sixteenth of it.
    pub max_age: Option<Duration>,
    /// How much of the file system is left to others; `None` is 64 MiB, or a twentieth of a small one. Short of that the
    /// buffer does not grow.
    pub min_free: Option<u64>,
    /// When bytes are forced to the disk.
    pub sync: SyncPolicy,
    /// Names of the endpoints, each once. The name is the identity: under it an endpoint finds its place again. Without
    /// any endpoint the log keeps nothing.
    pub endpoints: Vec<String>,
}

/// The ordinal of a record; the first is 1. Ascending, not always consecutive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub(in crate::buffer) u64);

impl Position {
    /// The number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An index into [`Options::endpoints`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(pub usize);

/// How much a lease may hold. One record is always given, however large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Snapshots.
    pub instants_max: usize,
    /// Samples.
    pub samples_max: usize,
}

/// Snapshots given out but not consumed.
///
/// A new lease for the same endpoint replaces the one before. A part from the front may be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The position of the last of them.
    pub through: Position,
    /// Oldest first.
    pub snapshots: Vec<Snapshot>,
    /// In all of them.
    pub samples: u64,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The record's ordinal.
    pub position: Position,
    /// Whether it is on disk, as durable as [`SyncPolicy`] asks; otherwise it is in memory until the disk can be written.
    /// Without any endpoint there is nothing to keep, and it is `true`.
    pub durable: bool,
}

/// Why a buffer cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("buffer {} is in use by {}; stop that one, or give this one another buffer.path", path.display(), holder(*pid))]
    InUse {
        /// Its directory.
        path: PathBuf,
        /// Who has it, where that process noted it.
        pid: Option<u32>,
    },
    /// Something that is no file has the lock's name.
    #[error("{} is the buffer's lock and must be a file; remove what is there instead (a directory, a pipe, a link)", path.display())]
    NoLock {
        /// The lock.
        path: PathBuf,
    },
    /// The directory cannot be made, locked or listed, or the thread cannot be started.
    #[error("buffer {} cannot be used: {source}; check that the directory can be made and written by this user", path.display())]
    Unusable {
        /// Its directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Why a snapshot was not kept. Its samples are in no ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// It would not fit even into an empty buffer.
    #[error("a snapshot of {samples} samples does not fit into a buffer of {max_bytes} bytes; raise buffer.max_bytes")]
    TooLarge {
        /// In the snapshot.
        samples: usize,
        /// The bound.
        max_bytes: u64,
    },
    /// The buffer was closed.
    #[error("the buffer is closed")]
    Closed,
}
