//! While the disk cannot be written: snapshots are kept in memory, given out from there, and written when that works again.
//!
//! Sampling goes on. What memory cannot hold is counted as such, on disk too once it is back, so that it is never taken for
//! damage.

use std::io;
use std::time::Instant;

use super::append::WriteError;
use super::draft::Item;
use super::durable::Ending;
use super::endpoint::Reason;
use super::fs::Fs;
use super::log::{Log, lost_of};
use super::ring::{Held, Waiting};
use super::status::Operation;
use super::survey::join;

impl<F: Fs> Log<F> {
    /// Writing failed: from now on memory, and another try later.
    pub(super) fn degrade(&mut self, error: &io::Error, now: Instant) {
        self.note_error(Operation::Write, error);
        if self.ring.retry_at().is_none() {
            tracing::warn!(path = %self.options.dir.display(), %error,
                "the buffer cannot write to disk; samples are kept in memory; check space, permissions and mount");
        }
        self.ring.failed(now);
        // Of what was about to be written nothing was said while it was.
        self.note_held();
    }

    /// Keeps a snapshot in memory, at the cost of the oldest on a full disk or else of the oldest there.
    pub(super) fn hold(&mut self, held: Held, now: Instant) {
        self.ring.push(held);
        if self.ring.is_over() && self.ring.may_try(now) {
            self.drain_ring(now);
        }
        self.bound_ring();
        self.note_held();
    }

    /// Puts on record what is in memory only: the process may be killed next, and nothing else on the disk says that it was
    /// ever appended. Overwriting the notes takes no room, and costs what an append does on a disk that is well.
    pub(super) fn note_held(&mut self) {
        let held = self.ring.span();
        if held.is_some() && held != self.noted_held {
            self.store_meta(Ending::Open);
        }
    }

    /// Gives up the oldest snapshots in memory until the rest is within bounds.
    pub(super) fn bound_ring(&mut self) {
        if self.ring.is_over() && self.ring.gaps().next().is_none() {
            tracing::error!(path = %self.options.dir.display(),
                "memory for samples that cannot be written to disk is full: oldest dropped; check space, permissions and mount");
        }
        while self.ring.is_over() {
            self.drop_held();
        }
    }

    /// The process ends: what could not be written is lost with its memory, and on record as that.
    pub(super) fn give_up_memory(&mut self) {
        let behind = self.endpoints.iter().map(|endpoint| endpoint.place.samples).min().unwrap_or(u64::MAX);
        let samples = self.ring.samples_after(behind);
        if samples > 0 {
            tracing::error!(path = %self.options.dir.display(), samples,
                "samples that could not be written to disk end with this process; check space, permissions and mount");
        }
        self.end_loans_of_memory();
        while self.ring.front().is_some() {
            self.drop_held();
        }
        while let Some(Waiting::Gap(gap)) = self.ring.pop() {
            join(&mut self.between, gap.hole());
        }
    }

    /// What was lent from the disk is there for the next process; what was lent from memory is not.
    fn end_loans_of_memory(&mut self) {
        let Some(before) = self.ring.front().map(|held| held.before) else { return };
        for endpoint in &mut self.endpoints {
            if let Some(loan) = &mut endpoint.loan {
                loan.records.retain(|record| record.given_up.is_some() || record.after.seq <= before.seq);
            }
            endpoint.loan.take_if(|loan| loan.records.is_empty());
        }
    }

    /// Gives up the oldest snapshot in memory.
    fn drop_held(&mut self) {
        let Some(after) = self.ring.front().map(Held::after) else { return };
        let Self { endpoints, segments, between, ring, .. } = self;
        for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.place.seq < after.seq) {
            let last = endpoint.loan.as_ref().and_then(|loan| loan.records.last());
            if last.is_some_and(|last| last.after.seq >= after.seq) {
                let memory_within = |from, to| lost_of(segments, between, ring, from, to).1;
                endpoint.lift_loan(after.seq, Reason::Memory, memory_within);
            }
        }
        self.ring.drop_front();
        for index in 0..self.endpoints.len() {
            self.find_oldest(index);
        }
    }

    /// Writes to disk what is in memory, in order, as far as that works.
    pub(super) fn drain_ring(&mut self, now: Instant) {
        if self.ring.is_idle() {
            return self.ring.recovered();
        }
        while let Some(waiting) = self.ring.pop() {
            let Err(error) = self.write(item(&waiting), now) else { continue };
            let is_snapshot = matches!(waiting, Waiting::Held(_));
            self.ring.put_back(waiting);
            match error {
                WriteError::TooLarge if is_snapshot => {
                    tracing::error!(path = %self.options.dir.display(), "a snapshot in memory is too large for the disk; dropped");
                    self.drop_held();
                }
                WriteError::TooLarge => return self.degrade(&io::ErrorKind::StorageFull.into(), now),
                WriteError::Io(error) | WriteError::InDoubt(error) => return self.degrade(&error, now),
            }
        }
        self.ring.recovered();
        self.store_meta(Ending::Open);
        tracing::info!(path = %self.options.dir.display(), "the buffer writes to disk again");
    }
}

/// What is written of it.
pub(super) fn item(waiting: &Waiting) -> Item<'_> {
    match waiting {
        Waiting::Held(held) => Item::Snapshot { before: held.before, snapshot: &held.snapshot },
        Waiting::Gap(gap) => Item::Skip { before: gap.before, after: gap.after, at: gap.at },
    }
}
