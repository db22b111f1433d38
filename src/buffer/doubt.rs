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
use super::degraded::item;
use super::fs::Fs;
use super::log::Log;
use super::ring::{Gap, Held, Waiting};
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
        let mut rest = VecDeque::new();
        if let (Some(oldest), Some(segment)) = (doubt.front(), self.segments.back_mut()) {
            let (len, before, newest_at) = (oldest.len, oldest.held.before, oldest.newest_at);
            rest = with_gaps(doubt, segment.end, segment.newest_at);
            segment.cut_back(len, before, newest_at);
            // Best effort: what stays behind is found again at the next start and recognised as a double.
            drop(self.fs.truncate(&active.file, len));
        }
        self.active = Some(active);
        self.abandon();
        self.forget_spots(first);
        while let Some(waiting) = rest.pop_front() {
            let error = match self.write(item(&waiting), now) {
                Ok(()) => continue,
                Err(WriteError::Io(error) | WriteError::InDoubt(error)) => error,
                Err(WriteError::TooLarge) => io::ErrorKind::StorageFull.into(),
            };
            self.degrade(&error, now);
            for waiting in std::iter::once(waiting).chain(rest) {
                self.ring.put_back(waiting);
            }
            self.bound_ring();
            self.note_held();
            return Err(WriteError::Io(error));
        }
        Ok(())
    }
}

/// What has to be written again, up to `until`: what memory had dropped between the snapshots is said again too.
fn with_gaps(doubt: VecDeque<Written>, until: Mark, newest_at: Timestamp) -> VecDeque<Waiting> {
    let mut all = VecDeque::new();
    let mut end = doubt.front().map_or(until, |oldest| oldest.held.before);
    for Written { held, .. } in doubt {
        if held.before != end {
            all.push_back(Waiting::Gap(Gap { before: end, after: held.before, at: held.snapshot.at }));
        }
        end = held.after();
        all.push_back(Waiting::Held(held));
    }
    if until != end {
        all.push_back(Waiting::Gap(Gap { before: end, after: until, at: newest_at }));
    }
    all
}
