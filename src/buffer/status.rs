//! What the buffer tells about itself: numbers, no behaviour.

use std::time::{Duration, Instant};

use crate::model::Timestamp;

use super::Position;

/// What became of acknowledged samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// The receiver has them.
    pub delivered: u64,
    /// The receiver will never take them.
    pub refused: u64,
    /// Older than the endpoint wants, so never sent.
    pub expired: u64,
    /// The same as the value before, which the receiver has; left out to save bytes because somebody asked for that.
    pub unchanged: u64,
    /// Left out by the endpoint's own rules: relabelling dropped the series, or made it one with another.
    pub filtered: u64,
}

impl Fates {
    /// All of them.
    pub fn total(&self) -> u64 {
        let numbers = [self.delivered, self.refused, self.expired, self.unchanged, self.filtered];
        numbers.into_iter().fold(0, u64::saturating_add)
    }

    /// Adds `more`.
    pub fn add(&mut self, more: Self) {
        self.delivered += more.delivered;
        self.refused += more.refused;
        self.expired += more.expired;
        self.unchanged += more.unchanged;
        self.filtered += more.filtered;
    }

    /// At most `limit` in total; what is too much comes off the delivered first.
    pub(super) fn clamped(self, limit: u64) -> Self {
        let refused = self.refused.min(limit);
        let expired = self.expired.min(limit - refused);
        let unchanged = self.unchanged.min(limit - refused - expired);
        let filtered = self.filtered.min(limit - refused - expired - unchanged);
        let delivered = self.delivered.min(limit - refused - expired - unchanged - filtered);
        Self { delivered, refused, expired, unchanged, filtered }
    }
}

/// Samples the buffer gave up itself, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evicted {
    /// `max_bytes` left no room.
    pub size: u64,
    /// Older than `max_age`.
    pub age: u64,
    /// The disk could not be written and memory was full.
    pub memory: u64,
    /// The file system was full, or had less than `min_free` left.
    pub disk: u64,
    /// Somebody said so (`outhaul buffer purge`).
    pub purged: u64,
}

impl Evicted {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.size + self.age + self.memory + self.disk + self.purged
    }
}

/// Where every sample of an endpoint went. In samples; survives restarts and crashes.
///
/// `appended = delivered + refused + expired + unchanged + filtered + evicted + corrupt + pending`, always. `pending` is counted from what is
/// there, `appended` from the log's running count: they are not computed from one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// All samples meant for this endpoint, since its name was first seen.
    pub appended: u64,
    /// The receiver has them.
    pub delivered: u64,
    /// The receiver will never take them.
    pub refused: u64,
    /// Older than the endpoint wants, so never sent.
    pub expired: u64,
    /// Not sent because the receiver has the same value from just before.
    pub unchanged: u64,
    /// Not sent because the endpoint's own rules leave them out.
    pub filtered: u64,
    /// The buffer gave them up.
    pub evicted: Evicted,
    /// The disk does not give them back.
    pub corrupt: u64,
    /// Still there, or on their way.
    pub pending: u64,
}

impl Ledger {
    /// Whether every sample is accounted for.
    pub fn balances(&self) -> bool {
        let settled = self.delivered + self.refused + self.expired + self.unchanged + self.filtered;
        let out = settled + self.evicted.total() + self.corrupt;
        self.appended == out + self.pending
    }
}

/// One endpoint's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Its configured name.
    pub name: String,
    /// Where its samples went.
    pub ledger: Ledger,
    /// Everything up to here is accounted for.
    pub acked: Position,
    /// The first position of the file that is read next, or of the newest one.
    pub segment: Option<Position>,
    /// Positions after that, those found damaged included.
    pub pending_records: u64,
    /// Bytes on disk after that, definitions included.
    pub pending_bytes: u64,
    /// The instant of the oldest snapshot that is not accounted for.
    pub oldest_pending_at: Option<Timestamp>,
    /// When the last acknowledgement came, since start.
    pub acked_at: Option<Instant>,
    /// Files of refused samples that somebody wants sent again.
    pub requeued: usize,
}

/// What forcing bytes to the disk cost, since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncStats {
    /// How often.
    pub count: u64,
    /// How often it failed.
    pub failed: u64,
    /// Time spent in all.
    pub total: Duration,
    /// The longest.
    pub longest: Duration,
}

/// What was being done to a file when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Making a segment or writing samples to it.
    Write,
    /// Forcing bytes to the disk.
    Sync,
    /// Reading samples back.
    Read,
    /// Removing a segment.
    Remove,
    /// Saving a cursor or the log's own notes.
    Cursor,
    /// Keeping refused samples.
    Quarantine,
}

impl Operation {
    /// As a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Read => "read",
            Self::Remove => "remove",
            Self::Cursor => "cursor",
            Self::Quarantine => "quarantine",
        }
    }
}

/// Failed operations of one kind, since start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoErrors {
    /// What was being done.
    pub operation: Operation,
    /// The system's name of the error, or `other`.
    pub errno: &'static str,
    /// How often.
    pub count: u64,
}

/// What the quarantine holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuarantineStatus {
    /// Files.
    pub files: usize,
    /// Bytes on disk, in blocks.
    pub bytes: u64,
    /// Samples that were put there, since start.
    pub added_samples_total: u64,
    /// Samples that found no room, or were removed to make some, since start.
    pub dropped_samples_total: u64,
    /// Samples that were sent again, since start.
    pub requeued_samples_total: u64,
}

/// The state of the buffer after some command; a value, never updated in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes on disk, in blocks of 4096, every file of the buffer included.
    pub used_bytes: u64,
    /// What `used_bytes` never passes.
    pub max_bytes: u64,
    /// Free bytes of the file system, where it tells.
    pub free_bytes: Option<u64>,
    /// Files of the log.
    pub segments: usize,
    /// The first position of the newest of them.
    pub newest_segment: Option<Position>,
    /// The last position given out.
    pub tail: Option<Position>,
    /// The newest instant ever appended, also before the last restart.
    pub last_at: Option<Timestamp>,
    /// Appends that could not be kept at all, since start: too large for the buffer.
    pub append_errors_total: u64,
    /// Samples of appends that could not be kept at all, since start; in no ledger, because their append failed.
    pub append_errors_samples_total: u64,
    /// Failed operations on files, since start, by kind.
    pub io_errors: Vec<IoErrors>,
    /// Segments given up before every endpoint had passed them, since start.
    pub evicted_segments_total: u64,
    /// Damaged or missing places that were found in the log, since start.
    pub damage_found_total: u64,
    /// When the buffer will be full if nothing is delivered and samples come as they did; `None` where nothing waits.
    pub full_in: Option<Duration>,
    /// Whether the buffer may not grow now, because the file system has less than `min_free` left.
    pub short_of_disk: bool,
    /// How long opening took.
    pub open_took: Duration,
    /// Refused samples that are kept.
    pub quarantine: QuarantineStatus,
    /// Samples only in memory, because the disk cannot be written.
    pub held_in_memory_samples: u64,
    /// Whether appends go to memory only.
    pub degraded: bool,
    /// Whether the process before ended without closing the buffer.
    pub unclean_start: bool,
    /// Bytes found at start behind the last good record of a segment.
    pub torn_tail_bytes: u64,
    /// What forcing bytes to the disk cost.
    pub syncs: SyncStats,
    /// One for each of [`super::Options::endpoints`], in that order.
    pub endpoints: Vec<EndpointStatus>,
}
