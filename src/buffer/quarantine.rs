//! What a receiver will never take, kept for people to look at, and sent again when they say so.
//!
//! One file for each refusal, in a directory of its own: the header of a segment, a record with the verdict, then the
//! samples as a segment has them. A file that ends in `.q` rests; renamed to `.again` (`outhaul buffer quarantine requeue`)
//! it is given out once more, and its samples move from refused to what becomes of them.
//!
//! Bounded, and part of `max_bytes`; the oldest goes, and is counted: see `room`.

mod room;

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::model::{Interner, Snapshot, Timestamp};

use super::draft::{Draft, Item};
use super::fs::{Access, Fs};
use super::log::{Log, blocks};
use super::record::{About, Kind, Seed, le_i64, le_u16, le_u64, write};
use super::recover::{FileHeader, encode_file_header, read_file_header};
use super::segment::{FILE_HEADER_LEN, Mark, SEGMENT_MAX_BYTES};
use super::status::{Operation, QuarantineStatus};
use super::stretch::Stretch;
use super::{Fates, SyncPolicy};

use room::FILES_MAX;

/// Of what the receiver said.
const TEXT_MAX_BYTES: usize = 1024;

/// The directory below the log's.
pub(super) const DIR_NAME: &str = "quarantine";
/// Ends the name of a file that rests,
pub(super) const RESTING: &str = ".q";
/// and of one to be sent again.
pub(super) const AGAIN: &str = ".again";

/// What is wrong with samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The receiver said that it will never take them.
    Refused,
    /// The receiver fails whenever it gets them, and takes what comes after.
    Poisoned,
}

impl Fault {
    /// As a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Poisoned => "poisoned",
        }
    }
}

/// What a receiver said of samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong.
    pub fault: Fault,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The receiver's words; kept up to 1 KiB.
    pub text: String,
    /// When it said so.
    pub at: Timestamp,
}

/// Refused samples with what is known of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Whose receiver refused them.
    pub endpoint: String,
    /// What it said.
    pub verdict: Verdict,
    /// How many there were.
    pub samples: u64,
    /// Those of them that can be read.
    pub snapshots: Vec<Snapshot>,
}

impl Quarantined {
    /// How many of the samples can be read.
    pub fn readable_samples(&self) -> u64 {
        self.snapshots.iter().map(|snapshot| snapshot.sample_count() as u64).sum()
    }
}

/// Refused samples that somebody wants sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requeued {
    /// The file's name, for [`super::Buffer::settle_requeued`].
    pub id: String,
    /// Oldest first.
    pub snapshots: Vec<Snapshot>,
    /// In all of them.
    pub samples: u64,
}

#[derive(Clone, Debug)]
struct File {
    bytes: u64,
    endpoint: String,
    samples: u64,
    /// Nothing of it could be read when it was to be sent again.
    is_damaged: bool,
}

impl File {
    fn is_to_be_sent(&self, name: &str, endpoint: &str) -> bool {
        name.ends_with(AGAIN) && self.endpoint == endpoint && !self.is_damaged
    }
}

/// The files that are there.
#[derive(Debug, Default)]
pub(super) struct Quarantine {
    files: BTreeMap<String, File>,
    added_samples: u64,
    dropped_samples: u64,
    requeued_samples: u64,
}

impl Quarantine {
    /// What it takes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// How many files of `endpoint` are to be sent again.
    pub(super) fn requeued(&self, endpoint: &str) -> usize {
        self.files.iter().filter(|(name, file)| file.is_to_be_sent(name, endpoint)).count()
    }

    pub(super) fn status(&self) -> QuarantineStatus {
        QuarantineStatus {
            files: self.files.len(),
            bytes: self.bytes(),
            added_samples_total: self.added_samples,
            dropped_samples_total: self.dropped_samples,
            requeued_samples_total: self.requeued_samples,
        }
    }
}

impl<F: Fs> Log<F> {
    fn quarantine_dir(&self) -> PathBuf {
        self.options.dir.join(DIR_NAME)
    }

    /// Keeps samples that the endpoint's receiver will not take; what there is no room for is counted.
    pub(super) fn quarantine(&mut self, index: usize, snapshots: &[Snapshot], verdict: &Verdict) {
        let samples: u64 = snapshots.iter().map(|snapshot| snapshot.sample_count() as u64).sum();
        let Some(endpoint) = self.endpoints.get(index).filter(|_| samples > 0) else { return };
        let (endpoint, first) = (endpoint.name.clone(), endpoint.place.seq + 1);
        let bytes = file_bytes(self.store_id, first, &endpoint, snapshots, verdict);
        let kept = bytes.filter(|bytes| self.make_quarantine_room(blocks(bytes.len() as u64)));
        let Some(bytes) = kept else {
            self.quarantine.dropped_samples += samples;
            tracing::debug!(%endpoint, samples, "no room to keep refused samples");
            return;
        };
        match self.write_quarantined(first, &endpoint, &bytes) {
            Ok(name) => {
                self.quarantine.added_samples += samples;
                let file = File { bytes: blocks(bytes.len() as u64), endpoint, samples, is_damaged: false };
                self.quarantine.files.insert(name, file);
            }
            Err(error) => {
                self.note_error(Operation::Quarantine, &error);
                self.quarantine.dropped_samples += samples;
                tracing::warn!(path = %self.quarantine_dir().display(), samples, %error, "could not keep refused samples");
            }
        }
    }

    fn write_quarantined(&mut self, first: u64, endpoint: &str, bytes: &[u8]) -> io::Result<String> {
        let dir = self.quarantine_dir();
        self.fs.create_dir_all(&dir)?;
        let mut tag = crc32c::crc32c(endpoint.as_bytes());
        for _ in 0..=FILES_MAX {
            let stem = format!("{first:016x}-{tag:08x}");
            let taken = [RESTING, AGAIN].iter().any(|end| self.quarantine.files.contains_key(&format!("{stem}{end}")));
            let name = format!("{stem}{RESTING}");
            let path = dir.join(&name);
            tag = tag.wrapping_add(1);
            let file = match self.fs.open(&path, Access::CreateNew) {
                _ if taken => continue,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                file => file?,
            };
            let mut written = self.fs.write_all_at(&file, bytes, 0);
            if self.options.sync != SyncPolicy::Never {
                written = written.and_then(|()| self.sync_file(&file)).and_then(|()| self.fs.sync_dir(&dir));
            }
            if let Err(error) = written {
                drop(self.fs.remove(&path));
                return Err(error);
            }
            return Ok(name);
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Samples of the endpoint that somebody wants sent again, oldest first.
    pub(super) fn requeued(&mut self, index: usize) -> Option<Requeued> {
        let endpoint = self.endpoints.get(index)?.name.clone();
        let dir = self.quarantine_dir();
        let files = &mut self.quarantine.files;
        for (id, file) in files.iter_mut().filter(|(name, file)| file.is_to_be_sent(name, &endpoint)) {
            match read(&self.fs, &dir.join(id)) {
                Ok(Some(found)) if !found.snapshots.is_empty() => {
                    return Some(Requeued { id: id.clone(), snapshots: found.snapshots, samples: found.samples });
                }
                Ok(_) => {
                    tracing::error!(file = %id, "a file of the quarantine is damaged and cannot be sent again; it is left alone");
                    file.is_damaged = true;
                }
                Err(error) => {
                    self.note_error(Operation::Quarantine, &error);
                    return None;
                }
            }
        }
        None
    }

    /// Settles what was sent again: it was counted as refused, and what was not refused once more is moved.
    pub(super) fn settle_requeued(&mut self, index: usize, id: &str, fates: Fates) {
        let (Some(endpoint), Some(file)) = (self.endpoints.get_mut(index), self.quarantine.files.remove(id)) else {
            return;
        };
        let fates = fates.clamped(file.samples);
        let tally = &mut endpoint.tally.fates;
        // An account that was lost meanwhile does not know of the refusal.
        let moved = Fates { refused: 0, ..fates }.clamped(tally.refused);
        tally.refused -= moved.total();
        tally.add(moved);
        self.quarantine.requeued_samples += file.samples;
        if let Err(error) = self.fs.remove(&self.quarantine_dir().join(id)) {
            self.note_error(Operation::Quarantine, &error);
            tracing::warn!(file = id, %error, "could not remove samples from the quarantine that were sent; they will be sent again");
        }
        self.store_cursor(index);
    }
}

/// A whole file; `None` where a snapshot does not fit into a record.
fn file_bytes(
    store_id: u128,
    first: u64,
    endpoint: &str,
    snapshots: &[Snapshot],
    verdict: &Verdict,
) -> Option<Vec<u8>> {
    let at = snapshots.first()?.at;
    let mut mark = Mark { seq: first - 1, samples: 0 };
    let mut out = encode_file_header(store_id, mark, first, at);
    let samples = snapshots.iter().map(|snapshot| snapshot.sample_count() as u64).sum();
    let about = About { seq: first, samples_before: 0, at, samples: 0 };
    let payload = encode_verdict(endpoint, samples, verdict);
    write(&mut out, Seed::new(store_id, first), Kind::Verdict, about, &payload);
    let mut draft = Draft::new(store_id, first, 0);
    for snapshot in snapshots {
        let item = Item::Snapshot { before: mark, snapshot };
        out.extend_from_slice(&draft.frame(item).ok()?.bytes);
        mark = item.after();
    }
    Some(out)
}

/// Reason 1, zero 1, status 2, when 8, samples 8, length of the endpoint's name 2, the name, the receiver's words.
fn encode_verdict(endpoint: &str, samples: u64, verdict: &Verdict) -> Vec<u8> {
    let text = start_of(&verdict.text, TEXT_MAX_BYTES);
    let endpoint = start_of(endpoint, usize::from(u16::MAX));
    let mut out = vec![u8::from(verdict.fault == Fault::Poisoned), 0];
    out.extend_from_slice(&verdict.status.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&verdict.at.millis().to_le_bytes());
    out.extend_from_slice(&samples.to_le_bytes());
    out.extend_from_slice(&u16::try_from(endpoint.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(endpoint.as_bytes());
    out.extend_from_slice(text.as_bytes());
    out
}

/// As much of `text` as fits into `bytes`.
fn start_of(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

const VERDICT_FIXED_LEN: usize = 22;

fn decode_verdict(payload: &[u8]) -> Option<Quarantined> {
    let (fixed, rest) = payload.split_at_checked(VERDICT_FIXED_LEN)?;
    let (endpoint, text) = rest.split_at_checked(usize::from(le_u16(fixed, 20)))?;
    let verdict = Verdict {
        fault: if fixed[0] == 1 { Fault::Poisoned } else { Fault::Refused },
        status: Some(le_u16(fixed, 2)).filter(|status| *status != 0),
        text: std::str::from_utf8(text).ok()?.to_owned(),
        at: Timestamp::from_millis(le_i64(fixed, 4)),
    };
    let endpoint = std::str::from_utf8(endpoint).ok()?.to_owned();
    Some(Quarantined { endpoint, verdict, samples: le_u64(fixed, 12), snapshots: Vec::new() })
}

/// A file's records; `None` where it is not one of ours.
fn stretch<'a, F: Fs>(fs: &'a F, path: &Path) -> io::Result<Option<Stretch<'a, F>>> {
    let file = fs.open(path, Access::Read)?;
    let FileHeader::Ours { store_id } = read_file_header(fs, &file)? else { return Ok(None) };
    let stem = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.get(..16));
    let Some(first) = stem.and_then(|digits| u64::from_str_radix(digits, 16).ok()) else { return Ok(None) };
    let end = fs.len(&file)?.min(SEGMENT_MAX_BYTES);
    Ok(Some(Stretch { fs, file, seed: Seed::new(store_id, first), start: FILE_HEADER_LEN, end, last: u64::MAX }))
}

/// Everything but the samples; `None` where the verdict is damaged. It is the first record.
fn about<F: Fs>(stretch: &Stretch<'_, F>) -> io::Result<Option<Quarantined>> {
    let mut walk = stretch.walk();
    while let Some(step) = walk.step()? {
        if let Some(payload) = walk.payload(&step)? {
            return Ok((step.header.kind == Kind::Verdict).then(|| decode_verdict(&payload)).flatten());
        }
    }
    Ok(None)
}

/// Reads a file of a quarantine without its samples.
fn read_about<F: Fs>(fs: &F, path: &Path) -> io::Result<Option<Quarantined>> {
    stretch(fs, path)?.map_or(Ok(None), |stretch| about(&stretch))
}

/// Reads a file of a quarantine.
///
/// # Errors
/// When it cannot be read; `None` where it is not one of ours or its verdict is damaged.
pub(super) fn read<F: Fs>(fs: &F, path: &Path) -> io::Result<Option<Quarantined>> {
    let Some(stretch) = stretch(fs, path)? else { return Ok(None) };
    let Some(mut all) = about(&stretch)? else { return Ok(None) };
    let flow = stretch.each(&mut Interner::default(), |found| {
        all.snapshots.extend(found.snapshot());
        ControlFlow::Continue(())
    });
    flow.map(|_| Some(all))
}
