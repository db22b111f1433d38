//! What is kept in memory while the disk cannot be written.
//!
//! A bounded queue of the newest snapshots. What it drops is always older than what it holds, so it is one [`Gap`], which
//! goes to disk as one skip record when the disk is back. Nothing here does I/O.

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

/// The queue and when to try again.
#[derive(Debug)]
pub(super) struct Ring {
    held: VecDeque<Held>,
    gap: Option<Gap>,
    cost_bytes: usize,
    max_bytes: usize,
    retry_at: Option<Instant>,
    failed_at: Option<Instant>,
    pause: Duration,
}

impl Ring {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            held: VecDeque::new(),
            gap: None,
            cost_bytes: 0,
            max_bytes,
            retry_at: None,
            failed_at: None,
            pause: RETRY_FIRST,
        }
    }

    /// Whether everything is on disk.
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.gap.is_none()
    }

    /// Whether it will soon have to drop something: from here on the disk's oldest go first, where that makes room.
    pub(super) fn is_short(&self) -> bool {
        self.cost_bytes >= self.max_bytes / 4 * 3
    }

    pub(super) fn gap(&self) -> Option<Gap> {
        self.gap
    }

    /// The gap has been written down.
    pub(super) fn forget_gap(&mut self) {
        self.gap = None;
    }

    pub(super) fn push(&mut self, held: Held) {
        self.cost_bytes += held.cost_bytes();
        self.held.push_back(held);
    }

    /// Puts back what could not be written, where it belongs.
    pub(super) fn put_back(&mut self, held: Held) {
        self.cost_bytes += held.cost_bytes();
        let place = self.held.partition_point(|other| other.before.seq < held.before.seq);
        self.held.insert(place, held);
    }

    pub(super) fn pop(&mut self) -> Option<Held> {
        let held = self.held.pop_front()?;
        self.cost_bytes -= held.cost_bytes();
        Some(held)
    }

    pub(super) fn is_over(&self) -> bool {
        self.cost_bytes > self.max_bytes
    }

    pub(super) fn front(&self) -> Option<&Held> {
        self.held.front()
    }

    /// Takes the oldest into the gap.
    pub(super) fn drop_front(&mut self) {
        if let Some(held) = self.pop() {
            let gap = Gap { before: held.before, after: held.after(), at: held.snapshot.at };
            self.gap = Some(Gap { before: self.gap.map_or(gap.before, |known| known.before), ..gap });
        }
    }

    /// The first snapshot after the place `at`.
    pub(super) fn after(&self, at: Mark) -> Option<&Held> {
        let index = self.held.partition_point(|held| held.after().seq <= at.seq);
        self.held.get(index)
    }

    /// Samples held after `from` of the log's running count.
    pub(super) fn samples_after(&self, from: u64) -> u64 {
        let span = self.held.front().zip(self.held.back());
        span.map_or(0, |(first, last)| last.after().samples.saturating_sub(first.before.samples.max(from)))
    }

    /// Snapshots in memory after position `seq`.
    pub(super) fn records_after(&self, seq: u64) -> usize {
        self.held.len() - self.held.partition_point(|held| held.after().seq <= seq)
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
