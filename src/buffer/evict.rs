//! Giving samples up: the oldest segment, when there is no room or it is too old.
//!
//! Every endpoint that still wanted a segment has its loss counted and its cursor stored before the file goes, so a crash
//! in between finds the account balanced. It is said loudly, once an episode.

use std::io;

use crate::model::Timestamp;

use super::endpoint::Reason;
use super::fs::Fs;
use super::log::{Fullness, Log, lost_of};
use super::segment::Mark;

impl<F: Fs> Log<F> {
    /// Gives up the oldest segment. `false` when there is none to give up.
    ///
    /// # Errors
    /// When its file cannot be removed; its samples count as evicted then, because no endpoint waits for them any more.
    pub(super) fn evict_oldest(&mut self, reason: Reason) -> io::Result<bool> {
        let Some(oldest) = self.segments.front() else { return Ok(false) };
        if self.segments.len() == 1 && self.active.is_some() {
            if oldest.end.seq < oldest.first {
                return Ok(false);
            }
            self.active = None;
        }
        let end = oldest.end;
        let mut evicted = 0;
        for index in 0..self.endpoints.len() {
            evicted += self.evict_for(index, end, reason);
        }
        if evicted > 0 {
            self.say_evicted(reason, evicted);
        }
        self.remove_front()?;
        for index in 0..self.endpoints.len() {
            self.find_oldest(index);
        }
        Ok(true)
    }

    fn evict_for(&mut self, index: usize, end: Mark, reason: Reason) -> u64 {
        let Self { endpoints, segments, between, ring, .. } = self;
        let endpoint = &mut endpoints[index];
        if endpoint.place.seq >= end.seq {
            return 0;
        }
        let lost = |from, to| lost_of(segments, between, ring, from, to);
        endpoint.lift_loan(reason, |from, to| lost(from, to).1);
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

    fn say_evicted(&mut self, reason: Reason, samples: u64) {
        let path = self.options.dir.display();
        if reason == Reason::Age {
            tracing::error!(path = %path, samples, "samples older than max_age were dropped unsent");
        } else if self.fullness == Fullness::Roomy {
            self.fullness = Fullness::Full;
            tracing::error!(path = %path, samples, max_bytes = self.options.max_bytes,
                "buffer is full: oldest samples dropped, and more will be until the receiver catches up; raise max_bytes or free disk space");
        }
    }

    /// Gives up finished segments whose newest instant is too old, seen from `now`, the instant just appended.
    pub(super) fn evict_old(&mut self, now: Timestamp) {
        if self.fullness == Fullness::Full && self.used_bytes() < self.options.max_bytes / 8 * 7 {
            self.fullness = Fullness::Roomy;
        }
        let Some(oldest) = self.options.max_age.map(|age| now.minus(age)) else { return };
        while self.segments.len() > usize::from(self.active.is_some())
            && self.segments.front().is_some_and(|segment| segment.newest_at < oldest)
        {
            if let Err(error) = self.evict_oldest(Reason::Age) {
                tracing::warn!(path = %self.options.dir.display(), %error, "could not remove a segment that is too old");
                break;
            }
        }
    }
}
