//! What was written and not yet forced to the disk, under [`SyncPolicy::Interval`](super::SyncPolicy).
//!
//! When a sync fails, nobody knows what of it the disk has, and a second sync of the same file would report success without
//! having written anything (`PostgreSQL` wiki, "Fsync Errors"; Rebello et al., "Can Applications Recover from fsync
//! Failures?", ATC 2020). So the snapshots since the last good one are remembered, at most [`DOUBT_MAX_BYTES`], and written
//! again to a new file under their own positions.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use crate::model::{Snapshot, Timestamp};

use super::active::Active;
use super::append::WriteError;
use super::draft::Item;
use super::fs::Fs;
use super::log::Log;
use super::ring::Held;
use super::segment::Mark;

/// What of it is remembered; of more, only the newest.
const DOUBT_MAX_BYTES: usize = 1 << 20;

/// A snapshot with what its segment was before it.
#[derive(Debug)]
struct Written {
    held: Held,
    len: u64,
    newest_at: Timestamp,
}

/// The newest snapshots of the file being written that no sync has covered.
#[derive(Debug, Default)]
pub(super) struct InDoubt {
    /// The name of that file: of any other nothing is known here.
    first: u64,
    written: VecDeque<Written>,
    cost_bytes: usize,
}

impl InDoubt {
    /// A snapshot was written to the segment named `first`, which was `len` long before and as new as `newest_at`.
    pub(super) fn note(&mut self, first: u64, before: Mark, snapshot: &Snapshot, (len, newest_at): (u64, Timestamp)) {
        if self.first != first {
            *self = Self { first, ..Self::default() };
        }
        let held = Held { before, snapshot: snapshot.clone() };
        self.cost_bytes += held.cost_bytes();
        self.written.push_back(Written { held, len, newest_at });
        while self.cost_bytes > DOUBT_MAX_BYTES
            && let Some(oldest) = self.written.pop_front()
        {
            self.cost_bytes -= oldest.held.cost_bytes();
        }
    }

    /// What is in doubt in the segment named `first`.
    fn take(&mut self, first: u64) -> VecDeque<Written> {
        let all = std::mem::take(self);
        if all.first == first { all.written } else { VecDeque::new() }
    }

    /// A sync has covered everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<F: Fs> Log<F> {
    /// The next file may have the same name: nobody must go on reading from where the other was.
    fn forget_spots(&mut self, first: u64) {
        for reader in &mut self.readers {
            reader.take_if(|reader| reader.first == first);
        }
        for endpoint in &mut self.endpoints {
            endpoint.spot.take_if(|spot| spot.first == first);
            for record in endpoint.loan.iter_mut().flat_map(|loan| &mut loan.records) {
                record.next.take_if(|spot| spot.first == first);
            }
        }
    }

    /// The file being written, whose sync has failed, is given up, and what it may not have is written to another.
    ///
    /// # Errors
    /// When that fails too; it is in memory then.
    pub(super) fn rewrite_in_doubt(&mut self, active: Active<F>, now: Instant) -> Result<(), WriteError> {
        let first = active.first();
        let doubt = self.in_doubt.take(first);
        if let (Some(oldest), Some(segment)) = (doubt.front(), self.segments.back_mut()) {
            segment.cut_back(oldest.len, oldest.held.before, oldest.newest_at);
            // Best effort: what stays behind is found again at the next start and recognised as a double.
            drop(self.fs.truncate(&active.file, oldest.len));
        }
        self.active = Some(active);
        self.abandon();
        self.forget_spots(first);
        let mut rest: VecDeque<Held> = doubt.into_iter().map(|written| written.held).collect();
        let mut end = rest.front().map_or(Mark::default(), |oldest| oldest.before);
        while let Some(held) = rest.pop_front() {
            // What memory had dropped between two of them is said again too.
            let gap = Item::Skip { before: end, after: held.before, at: held.snapshot.at };
            let snapshot = Item::Snapshot { before: held.before, snapshot: &held.snapshot };
            let skipped = if end == held.before { Ok(()) } else { self.write(gap, now) };
            end = held.after();
            let error = match skipped.and_then(|()| self.write(snapshot, now)) {
                Ok(()) => continue,
                Err(WriteError::Io(error) | WriteError::InDoubt(error)) => error,
                Err(WriteError::TooLarge) => io::ErrorKind::StorageFull.into(),
            };
            self.degrade(&error, now);
            for held in std::iter::once(held).chain(rest) {
                self.ring.put_back(held);
            }
            self.bound_ring();
            return Err(WriteError::Io(error));
        }
        Ok(())
    }
}
