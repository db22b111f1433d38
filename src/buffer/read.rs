//! Reading: what an endpoint gets next.
//!
//! Reading consumes nothing. What cannot be read is counted as lost the moment that is found out, stepped over, and not
//! asked for again, so a sample is never both delivered from here and counted as corrupt by the same endpoint.
//! Memory is one segment's series and the snapshots of one lease, whatever the backlog.

use std::io;

use crate::model::{Interner, Snapshot};

use super::codec::Definitions;
use super::endpoint::{LentRecord, Loan, Spot};
use super::fs::{Access, Fs, is_disk_error, retry};
use super::log::Log;
use super::record::{Header, Kind, Seed};
use super::segment::{Cause, FILE_HEADER_LEN, Mark, Segment, file_name, samples_through};
use super::status::Operation;
use super::stretch::{Lesson, decode, learn};
use super::walk::Walk;
use super::{Lease, Limits, Position};

/// One endpoint's open segment.
pub(super) struct Reader<F: Fs> {
    /// Which segment.
    pub(super) first: u64,
    file: F::File,
    definitions: Definitions,
    /// Definitions before this offset are known.
    defined_to: u64,
}

enum Read {
    Record {
        record: LentRecord,
        snapshot: Snapshot,
    },
    /// Nothing readable up to here.
    Passed(Mark),
    /// The next record is more than the caller wants.
    Full,
    /// Nothing there now.
    Nothing,
}

impl<F: Fs> Log<F> {
    /// The oldest records the endpoint has not settled.
    pub(super) fn next(&mut self, index: usize, limits: Limits) -> Option<Lease> {
        self.endpoints.get(index)?;
        self.evict_limbo(index);
        let endpoint = &mut self.endpoints[index];
        let resume = endpoint.resume_through.take();
        endpoint.loan = None;
        let (mut at, mut spot) = (endpoint.place, endpoint.spot);
        let mut lease = Lease { through: Position(at.seq), snapshots: Vec::new(), samples: 0 };
        let mut loan = Loan::default();
        loop {
            let (instants, samples) = (lease.snapshots.len(), lease.samples);
            let wanted = |header: &Header| {
                let within = match resume {
                    Some(through) => header.seq <= through,
                    None => {
                        instants < limits.instants_max
                            && samples + u64::from(header.samples) <= limits.samples_max as u64
                    }
                };
                instants == 0 || within
            };
            match self.read_after(index, at, spot, wanted) {
                Read::Record { record, snapshot } => {
                    (at, spot) = (record.after, record.next);
                    lease.through = Position(at.seq);
                    lease.samples += record.samples;
                    lease.snapshots.push(snapshot);
                    loan.records.push(record);
                }
                Read::Passed(mark) => {
                    (at, spot) = (mark, None);
                    if loan.records.is_empty() {
                        self.pass_lost(index, at);
                    }
                }
                Read::Full | Read::Nothing => break,
            }
        }
        if loan.records.is_empty() {
            return None;
        }
        self.endpoints[index].loan = Some(loan);
        // So that after a crash the same request is made again.
        self.store_cursor(index);
        Some(lease)
    }

    /// Nothing before `to` can be read: the endpoint stands there now.
    fn pass_lost(&mut self, index: usize, to: Mark) {
        let place = self.endpoints[index].place;
        let (damage, memory) = self.lost(place, to);
        let passed = to.samples.saturating_sub(place.samples);
        if passed > 0 {
            tracing::error!(endpoint = %self.endpoints[index].name, samples = damage + memory,
                "samples in the buffer are lost; see the counters corrupt and evicted");
        }
        let endpoint = &mut self.endpoints[index];
        endpoint.pass(to, passed.saturating_sub(damage + memory), memory);
        endpoint.spot = None;
        self.find_oldest(index);
        self.store_cursor(index);
        self.remove_passed();
    }

    /// What is known to be lost right after the endpoint's place, when nothing is on loan, is settled: reading ahead found
    /// that out, and the next process must not wait for it anew.
    pub(super) fn pass_unreadable(&mut self, index: usize) {
        while let Some(endpoint) = self.endpoints.get(index).filter(|endpoint| endpoint.loan.is_none()) {
            let place = endpoint.place;
            let position = self.segments.partition_point(|segment| segment.end.seq <= place.seq);
            let Some(segment) = self.segments.get(position) else { return };
            let is_lost = segment.end.samples > place.samples && segment.readable_after(place.samples) == 0;
            if !is_lost {
                return;
            }
            self.pass_lost(index, segment.end);
        }
    }

    fn read_after(&mut self, index: usize, at: Mark, spot: Option<Spot>, wanted: impl Fn(&Header) -> bool) -> Read {
        let position = self.segments.partition_point(|segment| segment.end.seq <= at.seq);
        let Some(first) = self.segments.get(position).map(|segment| segment.first) else {
            return self.read_held(at, &wanted);
        };
        if let Err(error) = self.open_reader(index, first) {
            return self.reader_failed(position, &error);
        }
        let Self { fs, segments, readers, interner, store_id, .. } = self;
        let (Some(segment), Some(reader)) = (segments.get_mut(position), readers[index].as_mut()) else {
            return Read::Nothing;
        };
        let seed = Seed::new(*store_id, first);
        reader.learn(fs, seed, segment.len, interner);
        let offset = spot.filter(|spot| spot.first == first).map_or(FILE_HEADER_LEN, |spot| spot.offset);
        let walk = Walk { fs, file: &reader.file, seed, at: offset, end: segment.len };
        let before = segment.before();
        // What lies between two segments is counted apart from both.
        let from = Mark { seq: at.seq.max(before.seq), samples: at.samples.max(before.samples) };
        find_record(walk, segment, &reader.definitions, from, wanted)
    }

    fn read_held(&self, at: Mark, wanted: &impl Fn(&Header) -> bool) -> Read {
        let Some(held) = self.ring.after(at) else { return Read::Nothing };
        let after = held.after();
        let samples = held.snapshot.sample_count() as u64;
        let header = Header {
            payload_len: 0,
            seq: after.seq,
            samples_before: held.before.samples,
            at: held.snapshot.at,
            samples: u32::try_from(samples).unwrap_or(u32::MAX),
            kind: Kind::Snapshot,
            codec: 0,
            payload_crc: 0,
        };
        if !wanted(&header) {
            return Read::Full;
        }
        let record = LentRecord { after, samples, at: held.snapshot.at, next: None, given_up: None };
        Read::Record { record, snapshot: held.snapshot.clone() }
    }

    fn open_reader(&mut self, index: usize, first: u64) -> io::Result<()> {
        if self.readers[index].as_ref().is_some_and(|reader| reader.first == first) {
            return Ok(());
        }
        self.readers[index] = None;
        let file = self.fs.open(&self.segment_path(first), Access::Read)?;
        self.interner.forget_unused();
        let definitions = Definitions::default();
        self.readers[index] = Some(Reader { first, file, definitions, defined_to: FILE_HEADER_LEN });
        Ok(())
    }

    /// A file that is not there or not readable is lost; anything else may be better next time.
    fn reader_failed(&mut self, position: usize, error: &io::Error) -> Read {
        self.note_error(Operation::Read, error);
        let gone = error.kind() == io::ErrorKind::NotFound || is_disk_error(error);
        let path = self.options.dir.display().to_string();
        let Some(segment) = self.segments.get_mut(position).filter(|_| gone) else {
            tracing::warn!(path, %error, "could not open a segment; trying again");
            return Read::Nothing;
        };
        let samples = segment.lose(segment.start, segment.end.samples, Cause::Damage);
        tracing::error!(path, segment = file_name(segment.first), samples, %error, "a segment of the buffer is gone; its samples are lost");
        Read::Passed(segment.end)
    }

    /// Finds the instant of the record after the endpoint's place.
    pub(super) fn find_oldest(&mut self, index: usize) {
        let place = self.endpoints[index].place;
        self.endpoints[index].oldest_at = self.instant_after(index, place);
    }

    fn instant_after(&mut self, index: usize, place: Mark) -> Option<crate::model::Timestamp> {
        let position = self.segments.partition_point(|segment| segment.end.seq <= place.seq);
        let Some(segment) = self.segments.get(position) else {
            return self.ring.after(place).map(|held| held.snapshot.at);
        };
        if place.seq <= segment.before().seq {
            return Some(segment.first_at);
        }
        let (first, end, first_at) = (segment.first, segment.len, segment.first_at);
        if self.open_reader(index, first).is_err() {
            return Some(first_at);
        }
        let spot = self.endpoints[index].spot.filter(|spot| spot.first == first);
        let reader = self.readers[index].as_ref()?;
        let seed = Seed::new(self.store_id, first);
        let at = spot.map_or(FILE_HEADER_LEN, |spot| spot.offset);
        let mut walk = Walk { fs: &self.fs, file: &reader.file, seed, at, end };
        while let Ok(Some(step)) = walk.step() {
            if step.header.kind.is_snapshot() && step.header.seq > place.seq {
                return Some(step.header.at);
            }
        }
        Some(first_at)
    }
}

impl<F: Fs> Reader<F> {
    /// Reads the definitions up to `end`; where that fails, from there again the next time. What stays unknown is noticed
    /// when a snapshot needs it.
    fn learn(&mut self, fs: &F, seed: Seed, end: u64, interner: &mut Interner) {
        if self.defined_to >= end {
            return;
        }
        let mut walk = Walk { fs, file: &self.file, seed, at: self.defined_to, end };
        let (segment, mut failed_at) = (self.first, None);
        let walked = learn(&mut walk, &mut self.definitions, interner, |step, lesson| {
            match lesson {
                Lesson::Undecodable => {
                    let offset = step.offset;
                    tracing::error!(segment, offset, "BUG: a definition record does not decode");
                }
                Lesson::Unreadable(_) => {
                    failed_at.get_or_insert(step.offset);
                }
                Lesson::Learnt | Lesson::Damaged => {}
            }
            Ok(())
        });
        if walked.is_err() {
            failed_at.get_or_insert(walk.at);
        }
        self.defined_to = failed_at.unwrap_or(end);
    }
}

/// The first readable record after `from`; what lies before it and should be readable is counted as lost.
fn find_record<F: Fs>(
    mut walk: Walk<'_, F>,
    segment: &mut Segment,
    definitions: &Definitions,
    from: Mark,
    wanted: impl Fn(&Header) -> bool,
) -> Read {
    let mut expected = from;
    while let Some(step) = retry(|| walk.step()).unwrap_or_default() {
        let header = step.header;
        let carries = header.kind.is_snapshot() || header.kind == Kind::Skip;
        if !carries || header.seq <= expected.seq || header.samples_before < expected.samples {
            continue;
        }
        if header.seq > segment.end.seq {
            break;
        }
        if header.samples_before > expected.samples {
            segment.lose(expected.samples, header.samples_before, Cause::Damage);
        }
        let before = Mark { seq: header.seq, samples: header.samples_before };
        let payload = retry(|| walk.payload(&step)).unwrap_or_default();
        if header.kind == Kind::Skip {
            // Usually its samples are a hole already; damaged, they are part of the next subtraction.
            let through = samples_through(&header, payload.as_deref());
            segment.lose(before.samples, through, Cause::Memory);
            expected = Mark { samples: through, ..before };
            continue;
        }
        expected = Mark { samples: header.samples_after(), ..before };
        if segment.is_lost(header.samples_before, header.samples_after()) {
            continue;
        }
        if !wanted(&header) {
            return Read::Full;
        }
        if let Some(snapshot) = payload.and_then(|payload| decode(definitions, &header, &payload)) {
            let next = Some(Spot { first: segment.first, offset: walk.at });
            let record =
                LentRecord { after: expected, samples: u64::from(header.samples), at: header.at, next, given_up: None };
            return Read::Record { record, snapshot };
        }
        let samples = segment.lose(header.samples_before, header.samples_after(), Cause::Damage);
        tracing::error!(
            segment = file_name(segment.first),
            position = header.seq,
            samples,
            "a damaged record was lost"
        );
    }
    let samples = segment.lose(expected.samples, segment.end.samples, Cause::Damage);
    if samples > 0 {
        tracing::error!(
            segment = file_name(segment.first),
            samples,
            "the end of a segment is damaged; its samples are lost"
        );
    }
    Read::Passed(segment.end)
}
