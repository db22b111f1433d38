//! Reading records in order, for whoever prints or carries them away.
//!
//! Memory is one segment's series and one snapshot. A record that cannot be read is stepped over and counted; a segment
//! that vanished meanwhile is too: its samples were delivered or given up by the log.

use std::io;
use std::ops::ControlFlow;

use crate::model::{Interner, Snapshot, Timestamp};

use super::super::EndpointStatus;
use super::super::fs::{Access, Fs as _, RealFs};
use super::super::record::{Header, Seed};
use super::super::segment::{FILE_HEADER_LEN, Mark, Segment, file_name};
use super::super::stretch::Stretch;
use super::super::upkeep::Purge;
use super::super::walk::Step;
use super::Inspection;

/// Which records; all bounds are inclusive, and none is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Positions from.
    pub from: Option<u64>,
    /// Positions to.
    pub to: Option<u64>,
    /// Instants from.
    pub since: Option<Timestamp>,
    /// Instants to.
    pub until: Option<Timestamp>,
}

impl Selection {
    fn wants(&self, position: u64, at: Timestamp) -> bool {
        self.from.is_none_or(|from| position >= from)
            && self.to.is_none_or(|to| position <= to)
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at <= until)
    }

    fn touches(&self, segment: &Segment) -> bool {
        self.from.is_none_or(|from| segment.end.seq >= from)
            && self.to.is_none_or(|to| segment.first <= to)
            && self.since.is_none_or(|since| segment.newest_at >= since)
    }
}

/// One snapshot's record.
#[derive(Debug)]
pub struct Record {
    /// Its position.
    pub position: u64,
    /// Samples in the log before it.
    pub(in crate::buffer) samples_before: u64,
    /// What it holds.
    pub snapshot: Snapshot,
    /// Its bytes on disk, header included.
    pub bytes: Vec<u8>,
}

/// What a visit passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visited {
    /// Records that were shown.
    pub records: u64,
    /// Records that could not be read, as far as they can be told apart.
    pub damaged: u64,
    /// Segments that the log removed meanwhile.
    pub vanished: u64,
}

impl Inspection {
    /// Calls `found` with every readable snapshot of the selection, in order, until it has seen enough.
    ///
    /// `progress` is told the bytes passed and the bytes in all.
    pub fn visit(
        &self,
        selection: Selection,
        progress: &mut dyn FnMut(u64, u64),
        found: &mut dyn FnMut(Record) -> ControlFlow<()>,
    ) -> Visited {
        let wanted: Vec<&Segment> = self.known.iter().filter(|segment| selection.touches(segment)).collect();
        let total = wanted.iter().map(|segment| segment.len).sum();
        let (mut visited, mut done) = (Visited::default(), 0);
        let mut interner = Interner::default();
        for segment in wanted {
            let flow = self.stretch(segment).and_then(|stretch| {
                stretch.each(&mut interner, |record| {
                    progress(done + record.next, total);
                    let header = record.header;
                    if !selection.wants(header.seq, header.at) {
                        return ControlFlow::Continue(());
                    }
                    let Some(snapshot) = record.snapshot() else {
                        visited.damaged += 1;
                        return ControlFlow::Continue(());
                    };
                    visited.records += 1;
                    let mut bytes = header.encode(stretch.seed).to_vec();
                    bytes.extend_from_slice(record.payload.as_deref().unwrap_or_default());
                    found(Record { position: header.seq, samples_before: header.samples_before, snapshot, bytes })
                })
            });
            match flow {
                Ok(ControlFlow::Break(())) => break,
                Ok(ControlFlow::Continue(())) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => visited.vanished += 1,
                Err(_) => visited.damaged += 1,
            }
            done += segment.len;
            progress(done, total);
            interner.forget_unused();
        }
        visited
    }

    /// The place before the first record after `after` whose instant is not before `time`; the end, where there is none.
    pub(in crate::buffer) fn mark_before(&self, after: u64, time: Timestamp) -> Mark {
        let is_late = |header: &Header| header.seq > after && header.at >= time;
        self.first_after(after, is_late)
            .map_or(self.end, |header| Mark { seq: header.seq - 1, samples: header.samples_before })
    }

    /// The place after the record at `position`; the end, where there is none after it.
    pub(in crate::buffer) fn mark_after(&self, position: u64) -> Mark {
        let next = self.first_after(position, |header| header.seq > position);
        next.map_or(self.end, |header| Mark { seq: header.seq - 1, samples: header.samples_before })
    }

    /// Instant and number of samples of the record at `position`.
    pub(in crate::buffer) fn outline(&self, position: u64) -> Option<(Timestamp, u64)> {
        let header = self.first_after(position.checked_sub(1)?, |header| header.seq >= position)?;
        (header.seq == position).then_some((header.at, u64::from(header.samples)))
    }

    /// How many samples of an endpoint a purge would drop, as far as is known.
    pub(in crate::buffer) fn purgeable(&self, endpoint: &EndpointStatus, what: Purge) -> u64 {
        let place = endpoint.acked.0;
        let to = match what {
            Purge::All => return endpoint.ledger.pending,
            Purge::Before(time) => self.mark_before(place, time),
            Purge::Through(position) => self.mark_after(position),
        };
        let after = |samples| self.known.iter().map(|segment| segment.readable_after(samples)).sum::<u64>();
        endpoint.ledger.pending.saturating_sub(after(to.samples))
    }

    fn first_after(&self, position: u64, wanted: impl Fn(&Header) -> bool) -> Option<Header> {
        let segments = self.known.iter().filter(|segment| segment.end.seq > position);
        segments.filter_map(|segment| self.first_header(segment, &wanted)).map(|step| step.header).next()
    }

    /// The first record's header in a segment for which `wanted` holds.
    pub(super) fn first_header(&self, segment: &Segment, wanted: impl Fn(&Header) -> bool) -> Option<Step> {
        self.stretch(segment).ok()?.first_header(wanted)
    }

    fn stretch(&self, segment: &Segment) -> io::Result<Stretch<'static, RealFs>> {
        let file = RealFs.open(&self.dir().join(file_name(segment.first)), Access::Read)?;
        let seed = Seed::new(self.store_id, segment.first);
        Ok(Stretch { fs: &RealFs, file, seed, start: FILE_HEADER_LEN, end: segment.len, last: segment.end.seq })
    }
}
