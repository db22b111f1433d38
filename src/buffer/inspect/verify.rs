//! Every checksum of every byte, and every payload decoded: what is damaged, where, and what it costs.
//!
//! What a record should have said about the samples before it is known, so a loss is a difference, not a guess. What the
//! log itself gave up (memory overflowed, a record was never finished) is no damage; nor is anything that an agent is just
//! writing or removing.

use std::io;
use std::path::Path;

use crate::model::Interner;

use super::super::codec::Definitions;
use super::super::durable::{Ending, META_NAME};
use super::super::endpoint::name_in_cursor;
use super::super::fs::{Access, EntryKind, Fs as _, RealFs};
use super::super::log::lost_within;
use super::super::pair::{Damaged, Loaded, Pair};
use super::super::record::{Footer, Kind, Seed};
use super::super::recover::{FileHeader, read_file_header};
use super::super::segment::{FILE_HEADER_LEN, SEGMENT_MAX_BYTES, Segment, file_name, samples_through};
use super::super::stretch::{Lesson, decode, learn};
use super::super::walk::{Step, Walk};
use super::{DIR_NAME, Damage, DamageKind, Inspection, OtherKind, Verdict, named};

impl Inspection {
    /// Reads and checks everything; `progress` is told the bytes read and the bytes in all.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Verdict {
        self.verify_within(SEGMENT_MAX_BYTES, progress)
    }

    /// The same; nothing of a segment's file that lies beyond `bytes_max` is read, as nothing else reads it.
    pub(in crate::buffer) fn verify_within(&self, bytes_max: u64, progress: &mut dyn FnMut(u64, u64)) -> Verdict {
        let total = self.known.iter().map(|segment| segment.file_len.min(bytes_max)).sum();
        let (verdict, interner) = (Verdict::default(), Interner::default());
        let mut check = Check { inspection: self, bytes_max, verdict, interner };
        let mut done = 0;
        check.front();
        for (index, segment) in self.known.iter().enumerate() {
            let mut told = |at: u64| progress(done + at, total);
            if let Err(error) = check.segment(index, segment, &mut told) {
                check.failed(segment, &error);
            }
            done += segment.file_len.min(bytes_max);
            progress(done, total);
            check.gap_after(index, segment);
            check.interner.forget_unused();
        }
        check.end();
        check.small_files();
        check.quarantine();
        check.others();
        check.verdict
    }
}

struct Check<'a> {
    inspection: &'a Inspection,
    bytes_max: u64,
    verdict: Verdict,
    interner: Interner,
}

/// What is known while stepping through a segment.
struct Place {
    /// Where the next record is expected.
    offset: u64,
    seq: u64,
    samples: u64,
    skipped: u64,
    footer: Option<(Footer, u64)>,
}

impl Check<'_> {
    fn segment(&mut self, index: usize, segment: &Segment, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        let file = RealFs.open(&self.inspection.dir().join(file_name(segment.first)), Access::Read)?;
        let name = named(&file_name(segment.first));
        let file_len = RealFs.len(&file)?.min(segment.file_len);
        let len = file_len.min(self.bytes_max);
        if !matches!(read_file_header(&RealFs, &file)?, FileHeader::Ours { .. }) {
            let detail = "the file's header is damaged; its records say the same again";
            self.found(&name, (0, FILE_HEADER_LEN), DamageKind::FileHeader, None, 0, detail);
        }
        let seed = Seed::new(self.inspection.store_id, segment.first);
        let walk = || Walk { fs: &RealFs, file: &file, seed, at: FILE_HEADER_LEN, end: len };
        let definitions = self.definitions(&name, walk())?;
        let mut walk = walk();
        let mut place =
            Place { offset: FILE_HEADER_LEN, seq: segment.first - 1, samples: segment.start, skipped: 0, footer: None };
        while let Some(step) = walk.step()? {
            progress(walk.at);
            if step.header.seq > segment.end.seq {
                break;
            }
            let payload = walk.payload(&step)?;
            self.record(&name, &step, payload.as_deref(), &definitions, &mut place);
            place.offset = walk.at;
        }
        self.verdict.segments += 1;
        self.verdict.bytes += len;
        self.verdict.skipped_samples += place.skipped;
        self.tail(index, segment, &name, len, &place);
        if file_len > len {
            let detail = "bytes beyond the longest segment there can be; they are not looked at";
            self.found(&name, (len, file_len - len), DamageKind::RecordHeader, None, 0, detail);
        }
        Ok(())
    }

    fn definitions(&mut self, name: &str, mut walk: Walk<'_, RealFs>) -> io::Result<Definitions> {
        let (mut definitions, mut damaged) = (Definitions::default(), Vec::new());
        let walked = learn(&mut walk, &mut definitions, &mut self.interner, |step, lesson| match lesson {
            Lesson::Learnt => Ok(()),
            Lesson::Damaged | Lesson::Undecodable => {
                damaged.push(*step);
                Ok(())
            }
            Lesson::Unreadable(error) => Err(error),
        });
        for step in &damaged {
            let detail = "a definition of series is damaged; it stands twice";
            self.at_step(name, step, DamageKind::Definitions, 0, detail);
        }
        walked.map(|()| definitions)
    }

    fn record(
        &mut self,
        name: &str,
        step: &Step,
        payload: Option<&[u8]>,
        definitions: &Definitions,
        place: &mut Place,
    ) {
        let header = step.header;
        let carries = header.kind.is_snapshot() || header.kind == Kind::Skip;
        let lost = if carries || header.kind == Kind::Footer {
            header.samples_before.saturating_sub(place.samples)
        } else {
            0
        };
        if step.offset > place.offset {
            let bytes = (place.offset, step.offset - place.offset);
            self.found(name, bytes, DamageKind::RecordHeader, Some(place.seq + 1), lost, "no record can be read here");
        } else if lost > 0 {
            let detail = "samples before this record are not in the file";
            self.found(name, (step.offset, 0), DamageKind::Missing, Some(place.seq + 1), lost, detail);
        }
        if header.kind == Kind::Footer {
            place.samples = place.samples.max(header.samples_before);
            place.footer = footer_of(step, payload).map(|footer| (footer, step.offset));
            if place.footer.is_none() {
                self.at_step(name, step, DamageKind::Footer, 0, "the segment's totals are damaged");
            }
            return;
        }
        if header.kind == Kind::Spacer && payload.is_none() {
            self.at_step(
                name,
                step,
                DamageKind::Payload,
                0,
                "the zeros between two copies are damaged; nothing is lost",
            );
        }
        if !carries || header.seq <= place.seq {
            return;
        }
        place.seq = header.seq;
        let through = samples_through(&header, payload);
        place.samples = place.samples.max(through);
        match (header.kind, payload) {
            (_, None) => {
                let samples = u64::from(header.samples);
                self.at_step(name, step, DamageKind::Payload, samples, "the checksum of the record does not fit");
            }
            (Kind::Skip, Some(_)) => place.skipped += through - header.samples_after(),
            (_, Some(payload)) if decode(definitions, &header, payload).is_some() => {
                self.verdict.snapshots += 1;
                self.verdict.samples += u64::from(header.samples);
            }
            (_, Some(_)) => {
                let detail = "the record cannot be decoded: both copies of a definition it needs are damaged";
                self.at_step(name, step, DamageKind::Undecodable, u64::from(header.samples), detail);
            }
        }
    }

    /// What lies after the last good record.
    fn tail(&mut self, index: usize, segment: &Segment, name: &str, len: u64, place: &Place) {
        let is_last = index + 1 == self.inspection.known.len();
        let closed = self.inspection.meta.as_ref().is_some_and(|meta| meta.ending == Ending::Closed);
        let rest = len.saturating_sub(place.offset);
        if let Some((footer, offset)) = place.footer {
            let agrees = footer.start == segment.start && footer.last == segment.end.seq && footer.end == place.samples;
            if !agrees {
                let bytes = (offset, Footer::RECORD_LEN as u64);
                self.found(name, bytes, DamageKind::Footer, None, 0, "the segment's totals contradict its records");
            }
        } else if is_last && closed && place.skipped == 0 && segment.holes.is_empty() {
            let detail = "the log was closed and the segment's totals are not there: its end is cut off or damaged";
            self.found(name, (place.offset, rest), DamageKind::Footer, None, 0, detail);
            return;
        }
        if place.footer.is_some() && rest > 0 {
            let detail = "bytes behind the segment's totals";
            self.found(name, (place.offset, rest), DamageKind::RecordHeader, None, 0, detail);
        } else {
            self.verdict.unfinished_bytes += rest;
        }
    }

    fn gap_after(&mut self, index: usize, segment: &Segment) {
        let Some(next) = self.inspection.known.get(index + 1) else { return };
        let (lost, _) = lost_within(self.inspection.between.iter().copied(), segment.end.samples, next.start);
        if lost > 0 {
            let name = named(&file_name(segment.first));
            let detail = format!("what lies between this segment and {} is gone", named(&file_name(next.first)));
            self.found(&name, (segment.len, 0), DamageKind::Missing, Some(segment.end.seq + 1), lost, &detail);
        }
    }

    /// What lay before the oldest segment. It is surely damage only where every endpoint misses some: a power cut may have
    /// taken an endpoint's cursor back under `sync: interval` and `never`.
    fn front(&mut self) {
        let waited_for = &self.inspection.waited_for;
        let Some(first) = self.inspection.known.first() else { return };
        if waited_for.is_empty() || waited_for.len() + self.inspection.away < self.inspection.endpoints.len() {
            return;
        }
        let most = waited_for.iter().map(|(_, samples)| *samples).max().unwrap_or(0);
        let detail = "every endpoint still waited for samples before this segment, the oldest that is there";
        self.found(&named(&file_name(first.first)), (0, 0), DamageKind::Missing, None, most, detail);
    }

    /// What was given out after the last segment.
    fn end(&mut self) {
        let inspection = self.inspection;
        // Only what the log knew of before the segments were listed: what came since may simply not have been seen.
        let noted = inspection.meta.as_ref().map_or(0, |meta| meta.end.samples);
        let (gone, _) = lost_within(inspection.between.iter().copied(), inspection.written_to, noted);
        if gone > 0 {
            let last = inspection.known.last();
            let name = last.map_or_else(|| DIR_NAME.to_owned(), |last| named(&file_name(last.first)));
            let detail = "samples that were appended after the last readable record are gone";
            self.found(&name, (0, 0), DamageKind::Missing, None, gone, detail);
        }
    }

    fn small_files(&mut self) {
        let dir = self.inspection.dir();
        // One of the two is being overwritten again and again while somebody has the buffer.
        if self.inspection.holder.may_write() {
            return;
        }
        let entries = RealFs.list(&dir).unwrap_or_default();
        let mut bases: Vec<_> = entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::File)
            .filter_map(|entry| entry.name.strip_suffix(".0").or_else(|| entry.name.strip_suffix(".1")))
            .filter(|base| *base == META_NAME || base.starts_with("cursor-") || base.starts_with("state-"))
            .collect();
        bases.dedup();
        bases.sort_unstable();
        bases.dedup();
        for base in bases {
            self.small_file(&dir.join(base), base);
        }
    }

    fn small_file(&mut self, path: &Path, base: &str) {
        let Loaded { value, damaged, .. } = Pair::load(&RealFs, path.to_owned());
        let detail = match (&value, damaged) {
            (None, Some(_)) => "neither of its two files can be read: it starts anew",
            (Some(value), _) if base.starts_with("cursor-") && name_in_cursor(value).is_none() => "it is not a cursor",
            (Some(_), Some(_)) => "one of its two files is damaged: it may be a step behind",
            (_, None) => return,
        };
        let file = damaged.map_or(0, |Damaged { file }| file);
        self.found(&named(&format!("{base}.{file}")), (0, 0), DamageKind::SmallFile, None, 0, detail);
    }

    fn quarantine(&mut self) {
        // One may just be being written.
        if self.inspection.holder.may_write() {
            return;
        }
        // What cannot be listed holds nothing back and is told by whoever asks for it.
        for file in self.inspection.quarantine().unwrap_or_default() {
            let (samples, detail) = match &file.content {
                None => (0, "what was refused, and why, cannot be read any more"),
                Some(content) if content.readable_samples() < content.samples => (
                    content.samples - content.readable_samples(),
                    "some of the refused samples cannot be read any more",
                ),
                Some(_) => continue,
            };
            self.found(&file.name, (0, file.bytes), DamageKind::Quarantine, None, samples, detail);
        }
    }

    /// Segments that are not part of the log.
    fn others(&mut self) {
        for other in &self.inspection.others {
            let (kind, detail) = match other.kind {
                OtherKind::ForeignSegment => {
                    let detail =
                        "not a segment of this log that can be read: of another store, damaged, or without a record";
                    (DamageKind::Foreign, detail)
                }
                OtherKind::UnreadableSegment => {
                    (DamageKind::Unreadable, "the file cannot be read; its samples are told where they are missing")
                }
                _ => continue,
            };
            let damage = Damage {
                file: other.name.clone(),
                offset: 0,
                bytes: other.bytes,
                kind,
                position: None,
                at: None,
                samples: 0,
                detail: detail.to_owned(),
            };
            self.verdict.damages.push(damage);
        }
    }

    fn failed(&mut self, segment: &Segment, error: &io::Error) {
        if error.kind() == io::ErrorKind::NotFound {
            self.verdict.vanished += 1;
            return;
        }
        let samples = segment.readable_after(0);
        let detail = format!("the file cannot be read: {error}");
        self.found(
            &named(&file_name(segment.first)),
            (0, segment.file_len),
            DamageKind::Unreadable,
            None,
            samples,
            &detail,
        );
    }

    fn at_step(&mut self, name: &str, step: &Step, kind: DamageKind, samples: u64, detail: &str) {
        let bytes = (step.offset, step.header.record_len());
        self.found(name, bytes, kind, Some(step.header.seq), samples, detail);
        if let Some(damage) = self.verdict.damages.last_mut() {
            damage.at = Some(step.header.at);
        }
    }

    fn found(
        &mut self,
        name: &str,
        (offset, bytes): (u64, u64),
        kind: DamageKind,
        position: Option<u64>,
        samples: u64,
        detail: &str,
    ) {
        let (file, detail) = (name.to_owned(), detail.to_owned());
        self.verdict.damages.push(Damage { file, offset, bytes, kind, position, at: None, samples, detail });
    }
}

fn footer_of(step: &Step, payload: Option<&[u8]>) -> Option<Footer> {
    Footer::from_parts(&step.header, payload?)
}
