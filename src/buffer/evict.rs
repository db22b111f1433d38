//! Giving samples up: the oldest segment, when there is no room or it is too old.
//!
//! Every endpoint that still wanted a segment has its loss counted and its cursor stored before the file goes, so a crash
//! in between finds the account balanced. It is said loudly, once an episode.

use std::io;
use std::time::Instant;

use crate::model::Timestamp;

use super::append::WriteError;
use super::endpoint::{Endpoint, Reason};
use super::fs::Fs;
use super::log::{BLOCK_BYTES, Fullness, Log, lost_of};
use super::segment::Mark;

/// No file spans more than this share of `max_age`, so that at most that much more is kept.
const AGE_SHARE: u32 = 16;
/// What the buffer leaves of a file system to others, unless told otherwise: this, or on a small one this share.
const MIN_FREE_BYTES: u64 = 64 << 20;
const MIN_FREE_SHARE: u64 = 20;
/// As many segments as it may have even so.
const FLOOR_SEGMENTS: u64 = 4;

impl<F: Fs> Log<F> {
    /// Gives up the oldest segment. `false` when there is none to give up, or nothing may be.
    ///
    /// # Errors
    /// When its file cannot be removed; its samples count as evicted then, because no endpoint waits for them any more.
    pub(super) fn evict_oldest(&mut self, reason: Reason) -> io::Result<bool> {
        let Some(oldest) = self.segments.front().filter(|_| self.options.evicts) else { return Ok(false) };
        let is_active = self.segments.len() == 1 && self.active.is_some();
        if is_active && oldest.end.seq < oldest.first {
            return Ok(false);
        }
        let end = oldest.end;
        self.ready_to_lose(end)?;
        self.active.take_if(|_| is_active);
        let is_wanted = self.endpoints.iter().any(|endpoint| endpoint.place.seq < end.seq);
        self.counts.evicted_segments += u64::from(is_wanted);
        let evicted = (0..self.endpoints.len()).map(|index| self.evict_for(index, end, reason)).sum();
        if evicted > 0 {
            self.say_evicted(reason, evicted);
        }
        self.remove_front()?;
        // Now there is room for one that could not be made.
        self.store_unsaved();
        for index in 0..self.endpoints.len() {
            self.find_oldest(index);
        }
        Ok(true)
    }

    /// Nothing is given up where the loss could not be put on record: a crash would forget it. Only where a full disk keeps
    /// a file of a new cursor from being made, giving up is what makes room for it.
    fn ready_to_lose(&mut self, end: Mark) -> io::Result<()> {
        let losing = |endpoint: &Endpoint| endpoint.place.seq < end.seq;
        let losing: Vec<usize> = (0..self.endpoints.len()).filter(|index| losing(&self.endpoints[*index])).collect();
        if losing.into_iter().all(|index| self.store_cursor(index) || self.wants_room(index)) {
            // Those who have passed it lose nothing; the best that can be done is to have that on record.
            self.store_unsaved();
            Ok(())
        } else {
            Err(io::Error::other("cursors cannot be saved, so nothing may be given up"))
        }
    }

    fn wants_room(&self, index: usize) -> bool {
        let is_full = self.fs.space(&self.options.dir).is_ok_and(|space| space.free_bytes < BLOCK_BYTES);
        is_full && self.endpoints[index].pair.is_file_missing(&self.fs)
    }

    fn evict_for(&mut self, index: usize, end: Mark, reason: Reason) -> u64 {
        let Self { endpoints, segments, between, ring, .. } = self;
        let endpoint = &mut endpoints[index];
        if endpoint.place.seq >= end.seq {
            return 0;
        }
        let lost = |from, to| lost_of(segments, between, ring, from, to);
        endpoint.lift_loan(end.seq, reason, |from, to| lost(from, to).1);
        let mut evicted = 0;
        if endpoint.place.seq < end.seq {
            let (damage, memory) = lost(endpoint.place, end);
            evicted = end.samples.saturating_sub(endpoint.place.samples).saturating_sub(damage + memory);
            endpoint.tally.evicted.add(reason, evicted);
            endpoint.pass(end, evicted, memory);
            endpoint.spot = None;
        }
        self.store_cursor(index);
        evicted
    }

    /// No answer comes any more for what was given up while it was on loan: it was evicted.
    pub(super) fn evict_limbo(&mut self, index: usize) {
        let endpoint = &mut self.endpoints[index];
        let samples = endpoint.limbo();
        if let Some((reason, _)) = endpoint.loan.as_ref().and_then(|loan| loan.limbo().next()) {
            endpoint.give_up_limbo();
            self.say_evicted(reason, samples);
        }
    }

    /// Gives up what the endpoint waits for up to `to`, because somebody said so. Returns how many samples that were.
    pub(super) fn purge(&mut self, index: usize, to: Mark) -> u64 {
        let purged = self.evict_for(index, to, Reason::Purged);
        self.find_oldest(index);
        purged
    }

    fn say_evicted(&mut self, reason: Reason, samples: u64) {
        let path = self.options.dir.display();
        match reason {
            Reason::Age => {
                tracing::error!(path = %path, samples, "samples older than max_age were dropped unsent");
            }
            _ if self.fullness == Fullness::Full => {}
            Reason::Disk => {
                self.fullness = Fullness::Full;
                tracing::error!(path = %path, samples,
                    "the disk is full: oldest samples dropped, and more will be until there is room or the receiver catches up; free disk space");
            }
            Reason::Size | Reason::Memory | Reason::Purged => {
                self.fullness = Fullness::Full;
                tracing::error!(path = %path, samples, max_bytes = self.options.max_bytes,
                    "buffer is full: oldest samples dropped, and more will be until the receiver catches up; raise max_bytes");
            }
        }
    }

    /// Gives up finished segments whose newest instant is too old, seen from `at`, the instant just appended at `now`, and
    /// finishes the one being written when it spans its share of the bound.
    pub(super) fn evict_old(&mut self, at: Timestamp, now: Instant) {
        if self.fullness == Fullness::Full && self.used_bytes() < self.bound_bytes() / 8 * 7 {
            self.fullness = Fullness::Roomy;
        }
        let believable = self.age_guard.believes(at, now);
        let Some(age) = self.options.max_age.filter(|_| believable) else { return };
        self.seal_aged(at.minus(age / AGE_SHARE), now);
        let oldest = at.minus(age);
        while self.segments.len() > usize::from(self.active.is_some())
            && self.segments.front().is_some_and(|segment| segment.newest_at < oldest)
        {
            if let Err(error) = self.evict_oldest(Reason::Age) {
                tracing::warn!(path = %self.options.dir.display(), %error, "could not remove a segment that is too old");
                break;
            }
        }
    }

    /// A file goes as a whole, when its newest instant is too old: filled slowly, it would keep its oldest for as long as that
    /// takes, so it is finished when it begins before `from`.
    fn seal_aged(&mut self, from: Timestamp, now: Instant) {
        let writing = self.segments.back().filter(|_| self.active.is_some());
        if writing.is_some_and(|segment| segment.end.seq >= segment.first && segment.first_at < from)
            && let Err(WriteError::Io(error) | WriteError::InDoubt(error)) = self.seal(now)
        {
            // What the disk did not keep is in memory now.
            tracing::debug!(path = %self.options.dir.display(), %error, "could not finish a segment that spans its share of max_age");
        }
    }

    /// What [`Log::used_bytes`] may be now: `max_bytes`, or less where the file system has nothing to spare.
    pub(super) fn bound_bytes(&self) -> u64 {
        self.ceiling_bytes.min(self.options.max_bytes)
    }

    /// A directory grows with the files in it, and on many file systems stays as large as it ever was.
    pub(super) fn look_at_directory(&mut self) {
        if let Ok(len) = self.fs.dir_len(&self.options.dir) {
            self.dir_len = len;
        }
    }

    /// Finds out how far the buffer may grow without taking the last of the file system from others.
    ///
    /// What others write never costs what is here already: short of disk, the buffer only stops growing.
    pub(super) fn look_at_disk(&mut self) {
        self.look_at_directory();
        let Ok(space) = self.fs.space(&self.options.dir) else { return };
        let usual = MIN_FREE_BYTES.min(space.total_bytes / MIN_FREE_SHARE);
        let min_free = self.options.min_free.unwrap_or(usual);
        let used = self.used_bytes();
        let floor = self.used_without_segments() + FLOOR_SEGMENTS * self.options.segment_bytes;
        let was_short = self.short_of_disk;
        self.short_of_disk = space.free_bytes <= min_free;
        let growth = space.free_bytes.saturating_sub(min_free);
        // What was evicted meanwhile may be filled again.
        let held = if was_short && self.short_of_disk { self.ceiling_bytes } else { 0 };
        self.ceiling_bytes = used.saturating_add(growth).max(held).max(floor);
        if self.short_of_disk && !was_short {
            tracing::warn!(path = %self.options.dir.display(), free_bytes = space.free_bytes, min_free,
                "the file system is nearly full: the buffer does not grow any more; free disk space");
        }
    }
}
