//! What is known of a segment, found out again from its bytes: the footer where there is one, else every record.
//!
//! File header, 64 bytes, little-endian: magic 8, major 2, minor 2, header length 4, store id 16, name (first position) 8,
//! samples in the log before 8, created (instant of the first snapshot) 8, zero 4, CRC-32C of bytes 0 to 59. Only the store
//! id and the version are needed from it; the name of the file and the records say the rest again.

use std::io;

use crate::model::Timestamp;

use super::fs::Fs;
use super::record::{Footer, Kind, Seed, le_i64, le_u16, le_u32, le_u64};
use super::segment::{FILE_HEADER_LEN, Mark, SEGMENT_MAX_BYTES, Segment};
use super::walk::Walk;

const FILE_MAGIC: [u8; 8] = *b"\x89ohlog\r\n";
const MAJOR: u16 = 1;

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
    let begun = |(start, at)| Segment::begun(claim.first, start, file_len, at);
    let mut found = start.map(begun);
    let mut good_end = FILE_HEADER_LEN.min(walk.end);
    while let Some(step) = walk.step()? {
        let header = step.header;
        let carries = header.kind.is_snapshot() || header.kind == Kind::Skip;
        if !carries {
            good_end = walk.at;
            continue;
        }
        let segment = found.get_or_insert_with(|| begun((header.samples_before, header.at)));
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
