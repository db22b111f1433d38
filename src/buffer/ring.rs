//! What is kept in memory while the disk cannot be written.
//!
//! A bounded queue in the order of the log: the newest snapshots, and in the place of what had to be dropped a [`Gap`], which
//! goes to disk as a skip record when the disk is back. Nothing here does I/O.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::{Snapshot, Timestamp};

use super::segment::{Cause, Hole, Mark};

/// First and longest pause between two attempts to write again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// About what a native histogram or an exemplar takes.
const RICH_BYTES: usize = 1024;
/// What a snapshot takes besides its samples.
const HELD_OVERHEAD_BYTES: usize = 64;

/// A snapshot in memory.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) before: Mark,
    pub(super) snapshot: Snapshot,
}

impl Held {
    pub(super) fn after(&self) -> Mark {
        Mark { seq: self.before.seq + 1, samples: self.before.samples + self.snapshot.sample_count() as u64 }
    }

    pub(super) fn cost_bytes(&self) -> usize {
        let rich = self.snapshot.histograms.len() * RICH_BYTES + self.snapshot.exemplars.len() * RICH_BYTES;
        HELD_OVERHEAD_BYTES + std::mem::size_of_val(self.snapshot.samples.as_slice()) + rich
    }
}

/// Records that were dropped from memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gap {
    pub(super) before: Mark,
    pub(super) after: Mark,
    /// The instant of the last of them.
    pub(super) at: Timestamp,
}

impl Gap {
    pub(super) fn hole(&self) -> Hole {
        Hole { start: self.before.samples, end: self.after.samples, cause: Cause::Memory }
    }
}

/// What waits to be written.
#[derive(Debug)]
pub(super) enum Waiting {
    Held(Held),
    Gap(Gap),
}

impl Waiting {
    fn before(&self) -> Mark {
        match self {
            Self::Held(held) => held.before,
            Self::Gap(gap) => gap.before,
        }
    }

    fn after(&self) -> Mark {
        match self {
            Self::Held(held) => held.after(),
            Self::Gap(gap) => gap.after,
        }
    }

    fn held(&self) -> Option<&Held> {
        match self {
            Self::Held(held) => Some(held),
            Self::Gap(_) => None,
        }
    }

    fn cost_bytes(&self) -> usize {
        self.held().map_or(0, Held::cost_bytes)
    }
}

/// The queue and when to try again.
#[derive(Debug)]
pub(super) struct Ring {
    /// No two gaps that touch follow each other, so there are few.
    waiting: VecDeque<Waiting>,
    cost_bytes: usize,
    max_bytes: usize,
    retry_at: Option<Instant>,
    failed_at: Option<Instant>,
    pause: Duration,
}

impl Ring {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { waiting: VecDeque::new(), cost_bytes: 0, max_bytes, retry_at: None, failed_at: None, pause: RETRY_FIRST }
    }

    /// Whether everything is on disk.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether it will soon have to drop something: from here on the disk's oldest go first, where that makes room.
    pub(super) fn is_short(&self) -> bool {
        self.cost_bytes >= self.max_bytes / 4 * 3
    }

    pub(super) fn is_over(&self) -> bool {
        self.cost_bytes > self.max_bytes
    }

    pub(super) fn gaps(&self) -> impl Iterator<Item = Gap> {
        self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Gap(gap) => Some(*gap),
            Waiting::Held(_) => None,
        })
    }

    pub(super) fn push(&mut self, held: Held) {
        self.cost_bytes += held.cost_bytes();
        self.waiting.push_back(Waiting::Held(held));
    }

    /// Puts back what could not be written, where it belongs.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        self.cost_bytes += waiting.cost_bytes();
        let place = self.waiting.partition_point(|other| other.before().seq < waiting.before().seq);
        self.waiting.insert(place, waiting);
    }

    /// From the first to the last of what waits, in the log's running count.
    pub(super) fn span(&self) -> Option<Hole> {
        let (first, last) = self.waiting.front().zip(self.waiting.back())?;
        Some(Hole { start: first.before().samples, end: last.after().samples, cause: Cause::Memory })
    }

    /// What is to be written first.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        self.cost_bytes -= first.cost_bytes();
        Some(first)
    }

    /// The oldest snapshot.
    pub(super) fn front(&self) -> Option<&Held> {
        self.waiting.iter().find_map(Waiting::held)
    }

    /// Drops the oldest snapshot; a gap is in its place.
    pub(super) fn drop_front(&mut self) {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.held().is_some()) else { return };
        let Some(Waiting::Held(held)) = self.waiting.remove(index) else { return };
        self.cost_bytes -= held.cost_bytes();
        let mut gap = Gap { before: held.before, after: held.after(), at: held.snapshot.at };
        if let Some(&Waiting::Gap(next)) = self.waiting.get(index)
            && next.before == gap.after
        {
            gap = Gap { before: gap.before, ..next };
            self.waiting.remove(index);
        }
        match index.checked_sub(1).and_then(|index| self.waiting.get_mut(index)) {
            Some(Waiting::Gap(known)) if known.after == gap.before => *known = Gap { before: known.before, ..gap },
            _ => self.waiting.insert(index, Waiting::Gap(gap)),
        }
    }

    /// The first snapshot after the place `at`.
    pub(super) fn after(&self, at: Mark) -> Option<&Held> {
        let index = self.waiting.partition_point(|waiting| waiting.after().seq <= at.seq);
        self.waiting.range(index..).find_map(Waiting::held)
    }

    /// Samples held after `from` of the log's running count.
    pub(super) fn samples_after(&self, from: u64) -> u64 {
        let held = self.waiting.iter().filter_map(Waiting::held);
        held.map(|held| held.after().samples.saturating_sub(held.before.samples.max(from))).sum()
    }

    /// Snapshots in memory after position `seq`.
    pub(super) fn records_after(&self, seq: u64) -> usize {
        let index = self.waiting.partition_point(|waiting| waiting.after().seq <= seq);
        self.waiting.range(index..).filter(|waiting| waiting.held().is_some()).count()
    }

    /// When writing is tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Writing failed at `now`: wait longer than the last time.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failed_at = Some(now);
        self.retry_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(RETRY_LONGEST);
    }

    /// Whether the disk may be tried now although its time has not come, because memory is full.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.failed_at.is_none_or(|at| now.saturating_duration_since(at) >= RETRY_FIRST)
    }

    /// Writing works again.
    pub(super) fn recovered(&mut self) {
        self.retry_at = None;
        self.pause = RETRY_FIRST;
    }
}
