//! A buffer's directory seen from outside: what is in it, whose it is, and what is wrong with it.
//!
//! Takes no lock, writes nothing, and may be used while an agent appends and removes: a segment that vanishes and a tail
//! that grows are no damage. What is told was so at some moment while looking. A file's content is never a reason to fail.
//!
//! Looked at in this order, so that the numbers fit together: the log's notes, the segments, the cursors. What the log gave
//! out meanwhile then makes an endpoint seem further, never behind.

mod holder;
mod quarantined;
mod verify;
mod visit;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::model::Timestamp;

use super::durable::{Ending, META_NAME, Meta};
use super::endpoint::{Ahead, Endpoint, name_in_cursor, place_of_cursor};
use super::fs::{Access, Entry, EntryKind, Fs as _, RealFs};
use super::log::{BLOCK_BYTES, FIXED_BLOCKS, blocks, lost_within};
use super::open::store_id_of;
use super::pair::Pair;
use super::segment::{Cause, Claim, FileHeader, Hole, Mark, Recovered, Segment};
use super::segment::{FILE_HEADER_LEN, file_name, parse_name, read_file_header, recover};
use super::{EndpointStatus, Position};

pub use holder::Holder;
pub use quarantined::QuarantinedFile;
pub use verify::{Damage, DamageKind, Verdict};
pub use visit::{Record, Selection, Visited};

/// The directory of this format's major version.
const DIR_NAME: &str = "v1";

/// Why a directory cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is no buffer.
    #[error("there is no buffer in {}: it has no directory {DIR_NAME}; name the directory that buffer.path names", path.display())]
    Missing {
        /// What was looked at.
        path: PathBuf,
    },
    /// It cannot be listed or read.
    #[error("buffer {} cannot be read: {source}", path.display())]
    Unreadable {
        /// What was looked at.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// One file of the log.
#[derive(Clone, Debug)]
pub struct SegmentView {
    /// Its file name.
    pub name: String,
    /// Positions of its first and last record.
    pub positions: (u64, u64),
    /// The instant of its first snapshot, and the newest in it.
    pub instants: (Timestamp, Timestamp),
    /// Samples that were appended to it.
    pub samples: u64,
    /// Those of them known to be lost; a sealed file is believed until it is verified.
    pub lost_samples: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Whether it ends with its totals.
    pub is_sealed: bool,
    /// Bytes behind the last good record that are none: one being written, or one that was never finished.
    pub torn_bytes: u64,
}

/// What another file in the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherKind {
    /// The lock file.
    Lock,
    /// The log's own notes.
    Notes,
    /// One of the two files of an endpoint's cursor.
    Cursor,
    /// What a source keeps.
    State,
    /// Refused samples.
    Quarantine,
    /// A segment of another store or version, or without a readable record.
    ForeignSegment,
    /// A directory of another major version of this format.
    OtherVersion,
    /// Nothing that outhaul knows.
    Unknown,
}

/// A file that is not part of the log.
#[derive(Clone, Debug)]
pub struct OtherFile {
    /// Its name, relative to the buffer's directory.
    pub name: String,
    /// What it is.
    pub kind: OtherKind,
    /// Its bytes; of a directory those of its files.
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Inspection {
    /// The buffer's directory.
    pub path: PathBuf,
    /// In order of position.
    pub segments: Vec<SegmentView>,
    /// One for each cursor in the directory, by name.
    pub endpoints: Vec<EndpointStatus>,
    /// Everything else there.
    pub others: Vec<OtherFile>,
    /// Who has the buffer.
    pub holder: Holder,
    /// Whether the process that had it last closed it; `None` where nobody has noted it.
    pub was_closed: Option<bool>,
    /// The last position given out.
    pub tail: Option<Position>,
    /// The newest instant ever appended.
    pub last_at: Option<Timestamp>,
    /// Bytes on disk in blocks of 4096, as the bound counts them.
    pub used_bytes: u64,
    /// Free bytes of the file system, where it tells.
    pub free_bytes: Option<u64>,
    store_id: u128,
    known: Vec<Segment>,
    meta: Option<Meta>,
    /// Lost samples in no segment's range.
    between: Vec<Hole>,
    /// Where the last segment ends or the cursors are.
    end: Mark,
}

impl Inspection {
    /// Looks at the buffer in `path`, the directory that `buffer.path` names.
    ///
    /// # Errors
    /// When there is none, or its directory cannot be listed.
    pub fn open(path: &Path) -> Result<Self, InspectError> {
        let path = buffer_dir(path);
        let dir = path.join(DIR_NAME);
        if !dir.is_dir() {
            return Err(InspectError::Missing { path });
        }
        let unreadable = |source| InspectError::Unreadable { path: dir.clone(), source };
        let holder = Holder::of(&dir.join("lock"));
        let meta = Pair::load(&RealFs, dir.join(META_NAME)).value.as_deref().and_then(Meta::decode);
        let entries = RealFs.list(&dir).map_err(unreadable)?;
        let store_id =
            meta.map(|meta| meta.store_id).or_else(|| store_id_of(&RealFs, &dir, &entries)).unwrap_or_default();
        let seen = Seen::look(&dir, &entries, store_id);
        let mut inspection = Self {
            segments: seen.views,
            endpoints: Vec::new(),
            others: other_files(&path, &entries, &seen.foreign),
            holder,
            was_closed: meta.map(|meta| meta.ending == Ending::Closed),
            tail: None,
            last_at: seen.known.iter().map(|known| known.newest_at).max().max(meta.and_then(|meta| meta.last_at)),
            used_bytes: used_bytes(&dir, &entries),
            free_bytes: RealFs.space(&dir).ok().map(|space| space.free_bytes),
            between: gaps(&seen.known),
            end: seen.known.last().map_or(Mark::default(), |last| last.end),
            known: seen.known,
            store_id,
            meta,
            path,
        };
        inspection.load_endpoints(&dir, &entries);
        Ok(inspection)
    }

    /// The directory of this format version.
    pub fn dir(&self) -> PathBuf {
        self.path.join(DIR_NAME)
    }

    /// What tells this buffer from every other, as 32 hexadecimal digits.
    pub fn store_id(&self) -> String {
        format!("{:032x}", self.store_id)
    }

    pub(in crate::buffer) fn store(&self) -> u128 {
        self.store_id
    }

    /// The names of the endpoints that have a cursor here.
    pub fn endpoint_names(&self) -> Vec<String> {
        self.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect()
    }

    /// The endpoint with this name.
    pub fn endpoint(&self, name: &str) -> Option<&EndpointStatus> {
        self.endpoints.iter().find(|endpoint| endpoint.name == name)
    }

    /// Positions up to and including this one are accounted for by all endpoints; zero without any endpoint.
    pub fn passed_by_all(&self) -> u64 {
        self.endpoints.iter().map(|endpoint| endpoint.acked.number()).min().unwrap_or(0)
    }

    fn load_endpoints(&mut self, dir: &Path, entries: &[Entry]) {
        let bases: BTreeSet<PathBuf> = entries
            .iter()
            .filter(|entry| entry.name.starts_with("cursor-") && entry.kind == EntryKind::File)
            .map(|entry| dir.join(&entry.name).with_extension(""))
            .collect();
        let mut cursors = Vec::new();
        let noted = self.meta.map_or(Mark::default(), |meta| meta.end);
        self.raise_end(noted);
        for base in bases {
            let loaded = Pair::load(&RealFs, base);
            let Some(value) = loaded.value else { continue };
            let (Some(name), Some(place)) = (name_in_cursor(&value), place_of_cursor(&value, self.store_id)) else {
                continue;
            };
            self.raise_end(place);
            cursors.push((name.to_owned(), loaded.pair, value));
        }
        self.tail = (self.end.seq > 0).then_some(Position(self.end.seq));
        let fresh = self.known.first().map_or(self.end, Segment::before);
        let endpoints: Vec<Endpoint> = cursors
            .into_iter()
            .map(|(name, pair, value)| Endpoint::from_cursor(name, pair, Some(&value), self.store_id, fresh))
            .collect();
        let last = self.known.last().map_or(0, |last| last.end.samples);
        let start = endpoints.iter().map(|endpoint| endpoint.place.samples).min().unwrap_or(0).max(last);
        if start < self.end.samples && !endpoints.is_empty() {
            self.between.push(Hole { start, end: self.end.samples, cause: Cause::Damage });
        }
        self.endpoints = endpoints.into_iter().map(|endpoint| self.endpoint_status(endpoint)).collect();
        self.endpoints.sort_by(|one, other| one.name.cmp(&other.name));
    }

    fn raise_end(&mut self, mark: Mark) {
        self.end = Mark { seq: self.end.seq.max(mark.seq), samples: self.end.samples.max(mark.samples) };
    }

    fn endpoint_status(&self, mut endpoint: Endpoint) -> EndpointStatus {
        if let Some(first) = self.known.first().map(Segment::before)
            && endpoint.place.samples < first.samples
        {
            endpoint.pass(first, 0, 0);
        }
        let place = endpoint.place;
        let holes = self.between.iter().chain(self.known.iter().flat_map(|segment| &segment.holes));
        let (corrupt, memory) = lost_within(holes, place.samples, u64::MAX);
        let readable = self.known.iter().map(|segment| segment.readable_after(place.samples)).sum();
        let pending = self.known.iter().filter(|segment| segment.end.seq > place.seq);
        EndpointStatus {
            acked_at: None,
            ledger: endpoint.ledger(self.end, Ahead { readable, corrupt, memory }),
            acked: Position(place.seq),
            pending_records: self.end.seq.saturating_sub(place.seq),
            pending_bytes: pending.map(|segment| self.bytes_after(segment, place.seq)).sum(),
            oldest_pending_at: self.instant_after(place.seq),
            requeued: 0,
            name: endpoint.name,
        }
    }

    fn bytes_after(&self, segment: &Segment, seq: u64) -> u64 {
        if seq < segment.first {
            return segment.len.saturating_sub(FILE_HEADER_LEN);
        }
        let header = self.first_header(segment, |header| header.seq > seq);
        header.map_or(0, |step| segment.len.saturating_sub(step.offset))
    }

    fn instant_after(&self, seq: u64) -> Option<Timestamp> {
        let segment = self.known.iter().find(|segment| segment.end.seq > seq)?;
        if seq < segment.first {
            return Some(segment.first_at);
        }
        self.first_header(segment, |header| header.seq > seq).map(|step| step.header.at)
    }
}

/// `path`, or its parent where somebody named the directory of the version.
fn buffer_dir(path: &Path) -> PathBuf {
    let named_inside = path.file_name().is_some_and(|name| name == DIR_NAME) && !path.join(DIR_NAME).is_dir();
    match path.parent() {
        Some(parent) if named_inside && path.join("lock").is_file() => parent.to_owned(),
        _ => path.to_owned(),
    }
}

/// What looking at the segments found.
#[derive(Default)]
struct Seen {
    views: Vec<SegmentView>,
    known: Vec<Segment>,
    /// Names of segments that are not part of this log.
    foreign: BTreeSet<String>,
}

impl Seen {
    fn look(dir: &Path, entries: &[Entry], store_id: u128) -> Self {
        let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let mut names: Vec<u64> = files.filter_map(|entry| parse_name(&entry.name)).collect();
        names.sort_unstable();
        let mut seen = Self::default();
        for first in names {
            match look_at(dir, Claim { store_id, first, limit: u64::MAX }) {
                Ok(Some((segment, torn_bytes))) => seen.line_up(dir, store_id, segment, torn_bytes),
                // The log removes the oldest first: those before it are gone as well by now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    seen.known.clear();
                    seen.views.clear();
                }
                Ok(None) | Err(_) => {
                    seen.foreign.insert(file_name(first));
                }
            }
        }
        seen
    }

    /// As the log lines them up: where a record stands in two segments, the later one has it.
    fn line_up(&mut self, dir: &Path, store_id: u128, segment: Segment, torn_bytes: u64) {
        while let Some(last) = self.known.pop_if(|last| last.end.seq >= segment.first) {
            self.views.pop();
            let claim = Claim { store_id, first: last.first, limit: segment.first };
            if let Ok(Some((shorter, torn))) = look_at(dir, claim) {
                self.push(shorter, torn);
                break;
            }
        }
        if segment.start < self.known.last().map_or(0, |last| last.end.samples) {
            self.foreign.insert(file_name(segment.first));
        } else {
            self.push(segment, torn_bytes);
        }
    }

    fn push(&mut self, segment: Segment, torn_bytes: u64) {
        let lost = lost_within(segment.holes.iter(), segment.start, segment.end.samples);
        self.views.push(SegmentView {
            name: file_name(segment.first),
            positions: (segment.first, segment.end.seq),
            instants: (segment.first_at, segment.newest_at),
            samples: segment.end.samples.saturating_sub(segment.start),
            lost_samples: lost.0 + lost.1,
            bytes: segment.file_len,
            is_sealed: segment.is_sealed,
            torn_bytes,
        });
        self.known.push(segment);
    }
}

fn look_at(dir: &Path, claim: Claim) -> io::Result<Option<(Segment, u64)>> {
    let file = RealFs.open(&dir.join(file_name(claim.first)), Access::Read)?;
    match read_file_header(&RealFs, &file)? {
        FileHeader::Later => return Ok(None),
        FileHeader::Ours { store_id } if store_id != claim.store_id => return Ok(None),
        FileHeader::Ours { .. } | FileHeader::Damaged => {}
    }
    Ok(match recover(&RealFs, &file, claim)? {
        Recovered::Segment { segment, torn_bytes } => Some((segment, torn_bytes)),
        Recovered::Nothing { .. } => None,
    })
}

fn gaps(known: &[Segment]) -> Vec<Hole> {
    let ends = known.windows(2).map(|pair| (pair[0].end.samples, pair[1].start));
    ends.filter(|(end, start)| start > end)
        .map(|(end, start)| Hole { start: end, end: start, cause: Cause::Damage })
        .collect()
}

fn used_bytes(dir: &Path, entries: &[Entry]) -> u64 {
    let files: u64 = entries
        .iter()
        .map(|entry| match entry.kind {
            EntryKind::File if entry.name == "lock" => 0,
            EntryKind::File => blocks(entry.len),
            EntryKind::Other => bytes_below(&dir.join(&entry.name), blocks),
        })
        .sum();
    FIXED_BLOCKS * BLOCK_BYTES + files
}

/// The files in a directory, not those below it.
fn bytes_below(dir: &Path, size: impl Fn(u64) -> u64) -> u64 {
    let entries = RealFs.list(dir).unwrap_or_default();
    entries.iter().filter(|entry| entry.kind == EntryKind::File).map(|entry| size(entry.len)).sum()
}

fn other_files(path: &Path, entries: &[Entry], foreign: &BTreeSet<String>) -> Vec<OtherFile> {
    let dir = path.join(DIR_NAME);
    let mut others: Vec<OtherFile> = entries
        .iter()
        .filter(|entry| parse_name(&entry.name).is_none() || foreign.contains(&entry.name))
        .map(|entry| OtherFile {
            name: format!("{DIR_NAME}/{}", entry.name),
            kind: kind_of(entry, foreign),
            bytes: if entry.kind == EntryKind::File {
                entry.len
            } else {
                bytes_below(&dir.join(&entry.name), |len| len)
            },
        })
        .collect();
    let above = RealFs.list(path).unwrap_or_default();
    others.extend(above.into_iter().filter(|entry| entry.name != DIR_NAME).map(|entry| {
        let digits = entry.name.strip_prefix('v').unwrap_or("");
        let is_version =
            entry.kind == EntryKind::Other && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let kind = if is_version { OtherKind::OtherVersion } else { OtherKind::Unknown };
        let bytes =
            if entry.kind == EntryKind::File { entry.len } else { bytes_below(&path.join(&entry.name), |len| len) };
        OtherFile { name: entry.name, kind, bytes }
    }));
    others.sort_by(|one, other| one.name.cmp(&other.name));
    others
}

fn kind_of(entry: &Entry, foreign: &BTreeSet<String>) -> OtherKind {
    let name = entry.name.as_str();
    let is_file = entry.kind == EntryKind::File;
    match name {
        "lock" if is_file => OtherKind::Lock,
        "quarantine" if !is_file => OtherKind::Quarantine,
        _ if foreign.contains(name) => OtherKind::ForeignSegment,
        _ if is_file && (name == "log.0" || name == "log.1") => OtherKind::Notes,
        _ if is_file && name.starts_with("cursor-") => OtherKind::Cursor,
        _ if is_file && name.starts_with("state-") => OtherKind::State,
        _ => OtherKind::Unknown,
    }
}
