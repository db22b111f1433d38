//! One file of the log: what is known of it in memory, and how that is found out again from its bytes.
//!
//! A segment holds consecutive records, is written once from front to back, and never appended to by a later process.
//! Every snapshot record says how many samples the log held before it, so what is missing is counted exactly by
//! subtraction: a segment is the range of samples from `start` to `end`, less its [`Hole`]s.
//!
//! A damaged place is stepped over by looking for the next header whose checksum fits. Nothing here deletes or repairs.
//!
//! File header, 64 bytes, little-endian: magic 8, major 2, minor 2, header length 4, store id 16, name (first position) 8,
//! samples in the log before 8, created (instant of the first snapshot) 8, zero 4, CRC-32C of bytes 0 to 59. Only the store
//! id and the version are needed from it; the name of the file and the records say the rest again.

use std::io;

use crate::model::Timestamp;

use super::fs::Fs;
use super::record::{Footer, HEADER_LEN, Header, Kind, MAGIC, ORDINAL_LIMIT, Seed, le_i64, le_u16, le_u32, le_u64};

/// Bytes before the first record.
pub(super) const FILE_HEADER_LEN: u64 = 64;
/// Bytes of a file that are looked at; also the most one segment may grow to. Keeps opening bounded whatever lies there.
pub(super) const SEGMENT_MAX_BYTES: u64 = 256 << 20;
/// Damaged places remembered in one segment; one more is joined with the nearest, and what lies between counts as lost.
pub(super) const HOLES_MAX: usize = 4096;

const FILE_MAGIC: [u8; 8] = *b"\x89ohlog\r\n";
const MAJOR: u16 = 1;
/// How much is read at a time when looking for the next good header.
const RESYNC_BYTES: usize = 64 << 10;

/// A place between two records: everything up to and including the record at `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Position of the last record before the place.
    pub(super) seq: u64,
    /// Samples in the log up to the place, since the log began.
    pub(super) samples: u64,
}

impl Mark {
    /// The further of both, in positions and in samples.
    pub(super) fn furthest(self, other: Self) -> Self {
        Self { seq: self.seq.max(other.seq), samples: self.samples.max(other.samples) }
    }
}

/// Why samples are not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The disk does not give them back.
    Damage,
    /// They were held in memory while the disk could not be written, and memory was full.
    Memory,
}

/// Samples that were appended and cannot be read: the range from `start` to `end` of the log's running count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) cause: Cause,
}

impl Hole {
    /// How many of its samples lie after `from` and not after `to`.
    pub(super) fn within(&self, from: u64, to: u64) -> u64 {
        self.end.min(to).saturating_sub(self.start.max(from))
    }
}

/// What is known of one file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    /// Its name: the position of its first record.
    pub(super) first: u64,
    /// Samples in the log before it.
    pub(super) start: u64,
    /// Its last record.
    pub(super) end: Mark,
    /// Bytes that may be read.
    pub(super) len: u64,
    /// Bytes it takes (or, while being written, may take when it is finished).
    pub(super) file_len: u64,
    /// The instant of its first snapshot.
    pub(super) first_at: Timestamp,
    /// The newest instant in it.
    pub(super) newest_at: Timestamp,
    /// In order, disjoint.
    pub(super) holes: Vec<Hole>,
    /// Whether it was found to end with its totals.
    pub(super) is_sealed: bool,
}

impl Segment {
    /// The place before its first record.
    pub(super) fn before(&self) -> Mark {
        Mark { seq: self.first.saturating_sub(1), samples: self.start }
    }

    /// Samples in it after `from` that can be read, as far as is known.
    pub(super) fn readable_after(&self, from: u64) -> u64 {
        let from = from.max(self.start);
        let lost: u64 = self.holes.iter().map(|hole| hole.within(from, self.end.samples)).sum();
        self.end.samples.saturating_sub(from).saturating_sub(lost)
    }

    /// Whether the record holding samples `start..end` is counted as lost already.
    pub(super) fn is_lost(&self, start: u64, end: u64) -> bool {
        self.holes.iter().any(|hole| hole.within(start, end) > 0)
    }

    /// Counts the samples from `start` to `end` as lost; what was counted before is not counted again.
    ///
    /// Returns how many were not counted before.
    pub(super) fn lose(&mut self, start: u64, end: u64, cause: Cause) -> u64 {
        if self.holes.len() >= HOLES_MAX {
            return self.widen_a_hole(start, end, cause);
        }
        let mut from = start;
        let mut fresh = Vec::new();
        for hole in &self.holes {
            if hole.end > from && hole.start < end {
                if hole.start > from {
                    fresh.push(Hole { start: from, end: hole.start, cause });
                }
                from = hole.end;
            }
        }
        if from < end {
            fresh.push(Hole { start: from, end, cause });
        }
        let lost = fresh.iter().map(|hole| hole.end - hole.start).sum();
        self.holes.extend(fresh);
        self.holes.sort_unstable_by_key(|hole| hole.start);
        lost
    }

    /// Gives up the readable samples between the nearest hole and this one, so that holes stay few.
    fn widen_a_hole(&mut self, start: u64, end: u64, cause: Cause) -> u64 {
        let nearest = self.holes.partition_point(|hole| hole.start <= start).saturating_sub(1);
        let mut wide = Hole { start, end, cause };
        let mut known = 0;
        while let Some(next) = self.holes.get(nearest).filter(|hole| known == 0 || hole.start < wide.end).copied() {
            known += next.end - next.start;
            wide = Hole { start: wide.start.min(next.start), end: wide.end.max(next.end), cause: next.cause };
            self.holes.remove(nearest);
        }
        self.holes.insert(nearest, wide);
        (wide.end - wide.start).saturating_sub(known)
    }

    /// The totals written at the end of the file; only a segment without holes has them.
    pub(super) fn footer(&self) -> Option<Footer> {
        self.holes.is_empty().then_some(Footer {
            start: self.start,
            last: self.end.seq,
            end: self.end.samples,
            first_at: self.first_at,
            newest_at: self.newest_at,
        })
    }
}

/// The file name of the segment whose first position is `first`.
pub(super) fn file_name(first: u64) -> String {
    format!("{first:016x}.seg")
}

/// The first position in a file name, or `None` where the name is not ours.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    let first = u64::from_str_radix(digits, 16).ok()?;
    (file_name(first) == name && first > 0 && first < ORDINAL_LIMIT).then_some(first)
}

/// What a file's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileHeader {
    /// Ours.
    Ours { store_id: u128 },
    /// Whole, but of a later major version: not ours to touch.
    Later,
    /// Not there or damaged.
    Damaged,
}

/// The first bytes of the file of a segment.
pub(super) fn encode_file_header(store_id: u128, before: Mark, first: u64, at: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.extend_from_slice(&FILE_MAGIC);
    out.extend_from_slice(&MAJOR.to_le_bytes());
    out.extend_from_slice(&0_u16.to_le_bytes());
    out.extend_from_slice(&64_u32.to_le_bytes());
    out.extend_from_slice(&store_id.to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&before.samples.to_le_bytes());
    out.extend_from_slice(&at.millis().to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Reads a file's header.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn read_file_header<F: Fs>(fs: &F, file: &F::File) -> io::Result<FileHeader> {
    let mut bytes = [0; 64];
    match fs.read_exact_at(file, &mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(FileHeader::Damaged),
        other => other?,
    }
    if bytes[..8] != FILE_MAGIC || le_u32(&bytes, 60) != crc32c::crc32c(&bytes[..60]) {
        return Ok(FileHeader::Damaged);
    }
    if le_u16(&bytes, 8) != MAJOR {
        return Ok(FileHeader::Later);
    }
    let store_id = u128::from(le_u64(&bytes, 16)) | u128::from(le_u64(&bytes, 24)) << 64;
    Ok(FileHeader::Ours { store_id })
}

/// What the header says of the samples before the segment; the caller knows that it is whole.
fn start_of<F: Fs>(fs: &F, file: &F::File) -> io::Result<(u64, Timestamp)> {
    let mut bytes = [0; 64];
    fs.read_exact_at(file, &mut bytes, 0)?;
    Ok((le_u64(&bytes, 40), Timestamp::from_millis(le_i64(&bytes, 48))))
}

/// Steps from record to record.
pub(super) struct Walk<'a, F: Fs> {
    pub(super) fs: &'a F,
    pub(super) file: &'a F::File,
    pub(super) seed: Seed,
    /// Where the next record is expected.
    pub(super) at: u64,
    /// Nothing at or after this is looked at.
    pub(super) end: u64,
}

/// A record that was stepped to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) offset: u64,
    pub(super) header: Header,
}

impl<F: Fs> Walk<'_, F> {
    /// The next record whose header can be believed; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read here.
    pub(super) fn step(&mut self) -> io::Result<Option<Step>> {
        let mut header = [0; HEADER_LEN];
        if self.end.saturating_sub(self.at) < HEADER_LEN as u64 {
            return Ok(None);
        }
        self.fs.read_exact_at(self.file, &mut header, self.at)?;
        if let Some(step) = self.believe(&header, self.at) {
            self.at += step.header.record_len();
            return Ok(Some(step));
        }
        let found = self.resync()?;
        if let Some(step) = &found {
            self.at = step.offset + step.header.record_len();
        }
        Ok(found)
    }

    fn believe(&self, bytes: &[u8; HEADER_LEN], offset: u64) -> Option<Step> {
        let header = Header::parse(bytes, self.seed)?;
        (header.record_len() <= self.end - offset).then_some(Step { offset, header })
    }

    /// Looks byte by byte for a header after a damaged one.
    fn resync(&self) -> io::Result<Option<Step>> {
        let mut from = self.at + 1;
        let mut chunk = vec![0; RESYNC_BYTES];
        while self.end.saturating_sub(from) >= HEADER_LEN as u64 {
            let len = usize::try_from(self.end - from).unwrap_or(usize::MAX).min(RESYNC_BYTES);
            self.fs.read_exact_at(self.file, &mut chunk[..len], from)?;
            for (at, window) in chunk[..len].windows(HEADER_LEN).enumerate() {
                if window[0] != MAGIC[0] || window[1..4] != MAGIC[1..] {
                    continue;
                }
                let Some(header) = window.first_chunk::<HEADER_LEN>() else { continue };
                if let Some(step) = self.believe(header, from + at as u64) {
                    return Ok(Some(step));
                }
            }
            from += (len - HEADER_LEN + 1) as u64;
        }
        Ok(None)
    }

    /// The payload of a record, or `None` where its checksum does not fit.
    ///
    /// # Errors
    /// When the file cannot be read there.
    pub(super) fn payload(&self, step: &Step) -> io::Result<Option<Vec<u8>>> {
        let mut payload = vec![0; step.header.payload_len as usize];
        self.fs.read_exact_at(self.file, &mut payload, step.offset + HEADER_LEN as u64)?;
        let fits = self.seed.payload_crc(step.header.seq, &payload) == step.header.payload_crc;
        Ok(fits.then_some(payload))
    }
}

/// What looking at a file found.
pub(super) enum Recovered {
    /// A segment; behind its last good record were this many bytes that are not one.
    Segment { segment: Segment, torn_bytes: u64 },
    /// Not one record in it.
    Nothing { torn_bytes: u64 },
}

/// Which file is looked at, and as what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) store_id: u128,
    /// From the file's name.
    pub(super) first: u64,
    /// Records from this position on stand again in the next segment and are not looked at here.
    pub(super) limit: u64,
}

/// Finds out what is in a file: from its footer where it has one, else by reading all of it.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn recover<F: Fs>(fs: &F, file: &F::File, claim: Claim) -> io::Result<Recovered> {
    let seed = Seed::new(claim.store_id, claim.first);
    let file_len = fs.len(file)?;
    let end = file_len.min(SEGMENT_MAX_BYTES);
    if let Some(footer) = read_footer(fs, file, seed, end)?
        && footer.last < claim.limit
        && footer.last >= claim.first
    {
        let segment = Segment {
            first: claim.first,
            start: footer.start,
            end: Mark { seq: footer.last, samples: footer.end },
            len: end,
            file_len,
            first_at: footer.first_at,
            newest_at: footer.newest_at,
            holes: Vec::new(),
            is_sealed: true,
        };
        return Ok(Recovered::Segment { segment, torn_bytes: 0 });
    }
    let header_whole =
        matches!(read_file_header(fs, file)?, FileHeader::Ours { store_id } if store_id == claim.store_id);
    let start = if header_whole { Some(start_of(fs, file)?) } else { None };
    let mut walk = Walk { fs, file, seed, at: FILE_HEADER_LEN, end };
    scan(&mut walk, claim, start, file_len)
}

fn read_footer<F: Fs>(fs: &F, file: &F::File, seed: Seed, end: u64) -> io::Result<Option<Footer>> {
    let mut bytes = [0; Footer::RECORD_LEN];
    let Some(at) = end.checked_sub(Footer::RECORD_LEN as u64).filter(|at| *at >= FILE_HEADER_LEN) else {
        return Ok(None);
    };
    fs.read_exact_at(file, &mut bytes, at)?;
    Ok(Footer::parse(&bytes, seed))
}

/// Reads every record and checks every byte.
fn scan<F: Fs>(
    walk: &mut Walk<'_, F>,
    claim: Claim,
    start: Option<(u64, Timestamp)>,
    file_len: u64,
) -> io::Result<Recovered> {
    let mut found: Option<Segment> = start.map(|(start, at)| Segment {
        first: claim.first,
        start,
        end: Mark { seq: claim.first - 1, samples: start },
        len: FILE_HEADER_LEN,
        file_len,
        first_at: at,
        newest_at: Timestamp::MIN,
        holes: Vec::new(),
        is_sealed: false,
    });
    let mut good_end = FILE_HEADER_LEN.min(walk.end);
    while let Some(step) = walk.step()? {
        let header = step.header;
        let carries = header.kind.is_snapshot() || header.kind == Kind::Skip;
        if !carries {
            good_end = walk.at;
            continue;
        }
        let segment = found.get_or_insert_with(|| Segment {
            first: claim.first,
            start: header.samples_before,
            end: Mark { seq: claim.first - 1, samples: header.samples_before },
            len: FILE_HEADER_LEN,
            file_len,
            first_at: header.at,
            newest_at: Timestamp::MIN,
            holes: Vec::new(),
            is_sealed: false,
        });
        if header.seq >= claim.limit {
            break;
        }
        if header.seq <= segment.end.seq || header.samples_before < segment.end.samples {
            continue;
        }
        let payload = walk.payload(&step)?;
        segment.take(&header, payload.as_deref());
        good_end = walk.at;
        segment.len = good_end;
    }
    let torn_bytes = walk.end.saturating_sub(good_end);
    Ok(match found {
        Some(mut segment) if segment.end.seq >= claim.first => {
            segment.len = segment.len.max(good_end);
            Recovered::Segment { segment, torn_bytes }
        }
        _ => Recovered::Nothing { torn_bytes },
    })
}

impl Segment {
    /// Adds a record found by scanning; `payload` is `None` where it is damaged.
    fn take(&mut self, header: &Header, payload: Option<&[u8]>) {
        let before = self.end.samples;
        let after = samples_through(header, payload);
        self.end = Mark { seq: header.seq, samples: after };
        if self.newest_at == Timestamp::MIN {
            self.first_at = header.at;
        }
        self.newest_at = self.newest_at.max(header.at);
        if header.samples_before > before {
            self.lose(before, header.samples_before, Cause::Damage);
        }
        match (header.kind, payload) {
            (Kind::Skip, Some(_)) => {
                self.lose(header.samples_before, after, Cause::Memory);
            }
            (_, None) => {
                self.lose(header.samples_before, after, Cause::Damage);
            }
            (_, Some(_)) => {}
        }
    }
}

/// Samples in the log up to and including a record, those included that a skip record stands for.
pub(super) fn samples_through(header: &Header, payload: Option<&[u8]>) -> u64 {
    let skipped = if header.kind == Kind::Skip { payload.and_then(parse_skip).unwrap_or(0) } else { 0 };
    header.samples_after().saturating_add(skipped).min(ORDINAL_LIMIT)
}

/// How many samples a skip record stands for.
fn parse_skip(payload: &[u8]) -> Option<u64> {
    let (samples, _) = payload.split_first_chunk::<8>()?;
    Some(u64::from_le_bytes(*samples)).filter(|samples| *samples < ORDINAL_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: u64, end: u64) -> Segment {
        Segment {
            first: 1,
            start,
            end: Mark { seq: 9, samples: end },
            len: 0,
            file_len: 0,
            first_at: Timestamp::MIN,
            newest_at: Timestamp::MIN,
            holes: Vec::new(),
            is_sealed: false,
        }
    }

    #[test]
    fn a_sample_is_lost_once() {
        let mut segment = segment(100, 200);
        assert_eq!(segment.lose(110, 120, Cause::Damage), 10);
        assert_eq!(segment.lose(105, 130, Cause::Damage), 15);
        assert_eq!(segment.lose(105, 130, Cause::Memory), 0);
        assert_eq!(segment.readable_after(0), 75);
        assert_eq!(segment.readable_after(115), 70);
        assert!(segment.is_lost(129, 140) && !segment.is_lost(130, 140));
    }

    #[test]
    fn holes_stay_few_and_what_that_gives_up_is_counted() {
        let mut segment = segment(0, 100_000);
        let mut lost = 0;
        for hole in 0..2 * HOLES_MAX as u64 {
            lost += segment.lose(hole * 4, hole * 4 + 1, Cause::Damage);
        }
        lost += segment.lose(2, 50_001, Cause::Damage);
        assert!(segment.holes.len() <= HOLES_MAX);
        assert_eq!(segment.readable_after(0), 100_000 - lost);
    }

    #[test]
    fn only_our_own_names_are_segments() {
        assert_eq!(parse_name(&file_name(0x2a)), Some(0x2a));
        for name in ["2a.seg", "0000000000000000.seg", "ffffffffffffffff.seg", "000000000000002A.seg", "lock", ".seg"] {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }
}
