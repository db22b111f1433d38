//! A buffer's directory seen from outside: what is in it, whose it is, and what is wrong with it.
//!
//! Takes no lock, writes nothing, and may be used while an agent appends and removes: a segment that vanishes and a tail
//! that grows are no damage. What is told was so at some moment while looking. A file's content is never a reason to fail.
//!
//! Looked at in this order, so that the numbers fit together: the log's notes, the segments, the cursors. What the log gave
//! out meanwhile then makes an endpoint seem further, never behind.

mod damage;
mod holder;
mod others;
mod quarantined;
mod verify;
mod visit;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::model::Timestamp;

use super::durable::{LOCK_NAME, META_NAME, Meta};
use super::endpoint::{Ahead, Endpoint, name_in_cursor, place_of_cursor};
use super::fs::{Entry, EntryKind, Fs as _, RealFs};
use super::log::lost_within;
use super::open::{cursor_bases, store_id_of};
use super::pair::Pair;
use super::recover::Claim;
use super::segment::{Cause, FILE_HEADER_LEN, Hole, Mark, Segment, file_name, parse_name};
use super::survey::{Lineup, Look, Seen, could_hold, hole_after, look_at, with_cause};
use super::{EndpointStatus, Position};

use others::{other_files, used_bytes};

pub use damage::{Damage, DamageKind, Verdict};
pub use holder::Holder;
pub use others::{OtherFile, OtherKind};
pub use quarantined::QuarantinedFile;
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
    /// This user may not look into it.
    #[error("no permission to look into buffer {}; run this as its owner{}, or as root", path.display(), uid.map_or_else(String::new, |uid| format!(" (uid {uid})")))]
    Denied {
        /// What was looked at.
        path: PathBuf,
        /// Whose it is, where that can be seen.
        uid: Option<u32>,
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

impl InspectError {
    /// Why the directory of the version in `path` cannot be looked at.
    fn of(path: &Path, source: io::Error) -> Self {
        let dir = path.join(DIR_NAME);
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Missing { path: path.to_owned() },
            io::ErrorKind::PermissionDenied => {
                let metadata = dir.metadata().or_else(|_| path.metadata());
                Self::Denied { path: path.to_owned(), uid: metadata.ok().map(|metadata| metadata.uid()) }
            }
            _ => Self::Unreadable { path: dir, source },
        }
    }
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

impl SegmentView {
    fn of(Seen { segment, torn_bytes }: &Seen) -> Self {
        let (damage, memory) = lost_within(segment.holes.iter().copied(), segment.start, segment.end.samples);
        Self {
            name: named(&file_name(segment.first)),
            positions: (segment.first, segment.end.seq),
            instants: (segment.first_at, segment.newest_at),
            samples: segment.end.samples.saturating_sub(segment.start),
            lost_samples: damage + memory,
            bytes: segment.file_len,
            is_sealed: segment.is_sealed,
            torn_bytes: *torn_bytes,
        }
    }
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
    /// Samples that an endpoint still waited for and that lay before the oldest segment: somebody removed files. What went
    /// while an endpoint was not configured is in its account.
    pub waited_for: Vec<(String, u64)>,
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
    /// What was in memory only when a process ended.
    ended_in_memory: Vec<Hole>,
    /// Where the last segment ends or the cursors are.
    end: Mark,
    /// Samples up to here stand in segments, or without any were delivered to somebody.
    written_to: u64,
    /// Endpoints that are configured no more.
    away: usize,
}

impl Inspection {
    /// Looks at the buffer in `path`, the directory that `buffer.path` names.
    ///
    /// # Errors
    /// When there is none, or its directory cannot be listed.
    pub fn open(path: &Path) -> Result<Self, InspectError> {
        let path = buffer_dir(path);
        let dir = path.join(DIR_NAME);
        let unreadable = |source| InspectError::of(&path, source);
        if !dir.metadata().map_err(unreadable)?.is_dir() {
            return Err(InspectError::Missing { path });
        }
        let holder = Holder::of(&dir.join(LOCK_NAME));
        let meta = Pair::load(&RealFs, dir.join(META_NAME)).value.as_deref().and_then(Meta::decode);
        let holder = holder.unless_closed(meta.as_ref().is_some_and(|meta| meta.ending.is_closed()));
        let entries = RealFs.list(&dir).map_err(unreadable)?;
        let store_id = meta
            .as_ref()
            .map(|meta| meta.store_id)
            .or_else(|| store_id_of(&RealFs, &dir, &entries))
            .unwrap_or_default();
        let (lineup, odd) = line_up(&dir, &entries, store_id);
        let ended_in_memory = meta.as_ref().map(|meta| meta.ended_in_memory(holder.may_write())).unwrap_or_default();
        let between = with_cause(lineup.gaps(), &ended_in_memory);
        let segments = lineup.seen.iter().map(SegmentView::of).collect();
        let known: Vec<Segment> = lineup.seen.into_iter().map(|seen| seen.segment).collect();
        let mut inspection = Self {
            segments,
            endpoints: Vec::new(),
            waited_for: Vec::new(),
            others: other_files(&path, &entries, &odd),
            holder,
            was_closed: meta.as_ref().map(|meta| meta.ending.is_closed()),
            tail: None,
            last_at: known.iter().map(|known| known.newest_at).max().max(meta.as_ref().and_then(|meta| meta.last_at)),
            used_bytes: used_bytes(&dir, &entries),
            free_bytes: RealFs.space(&dir).ok().map(|space| space.free_bytes),
            between,
            away: 0,
            ended_in_memory,
            end: known.last().map_or(Mark::default(), |last| last.end),
            written_to: known.last().map_or(0, |last| last.end.samples),
            known,
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
        let bases = cursor_bases(dir, entries);
        let mut cursors = Vec::new();
        self.end = self.end.furthest(self.meta.as_ref().map_or(Mark::default(), |meta| meta.end));
        for base in bases {
            let loaded = Pair::load(&RealFs, base);
            let Some(value) = loaded.value else { continue };
            let (Some(name), Some(place)) = (name_in_cursor(&value), place_of_cursor(&value, self.store_id)) else {
                continue;
            };
            self.end = self.end.furthest(place);
            cursors.push((name.to_owned(), loaded.pair, Some(value).filter(|_| could_hold(&self.known, place))));
        }
        self.tail = (self.end.seq > 0).then_some(Position(self.end.seq));
        let fresh = self.known.first().map_or(self.end, Segment::before);
        let mut endpoints: Vec<Endpoint> = cursors
            .into_iter()
            .map(|(name, pair, value)| Endpoint::from_cursor(name, pair, value.as_deref(), self.store_id, fresh))
            .collect();
        let first = self.known.first().map(Segment::before);
        if first.is_none()
            && let Some(furthest) = endpoints.iter().map(|endpoint| endpoint.place.samples).max()
        {
            let behind = endpoints.iter().filter(|endpoint| !endpoint.was_away && endpoint.place.samples < furthest);
            self.waited_for = behind.map(|one| (one.name.clone(), furthest - one.place.samples)).collect();
            self.written_to = furthest;
        }
        for endpoint in &mut endpoints {
            let samples = endpoint.begin_at(first, self.end, &self.ended_in_memory);
            if samples > 0 && !endpoint.was_away {
                self.waited_for.push((endpoint.name.clone(), samples));
            }
        }
        self.away = endpoints.iter().filter(|endpoint| endpoint.was_away).count();
        let places = || endpoints.iter().map(|endpoint| endpoint.place);
        if !endpoints.is_empty() {
            let behind = with_cause(hole_after(self.known.last(), places(), self.end), &self.ended_in_memory);
            // A process that has the buffer has the rest in memory, or has just written it.
            let may_write = self.holder.may_write();
            self.between.extend(behind.into_iter().filter(|hole| !may_write || hole.cause == Cause::Memory));
        }
        self.endpoints = endpoints.into_iter().map(|endpoint| self.endpoint_status(endpoint)).collect();
        self.endpoints.sort_by(|one, other| one.name.cmp(&other.name));
    }

    fn endpoint_status(&self, endpoint: Endpoint) -> EndpointStatus {
        let place = endpoint.place;
        let holes = self.between.iter().chain(self.known.iter().flat_map(|segment| &segment.holes));
        let (corrupt, memory) = lost_within(holes.copied(), place.samples, u64::MAX);
        let readable: u64 = self.known.iter().map(|segment| segment.readable_after(place.samples)).sum();
        let written = self.known.last().map_or(0, |last| last.end.samples).max(place.samples);
        let ended_in_memory = lost_within(self.between.iter().copied(), written, u64::MAX).1;
        let unwritten = if self.holder.may_write() {
            self.end.samples.saturating_sub(written).saturating_sub(ended_in_memory)
        } else {
            0
        };
        let mut pending = self.known.iter().filter(|segment| segment.end.seq > place.seq).peekable();
        let next = pending.peek().copied().or(self.known.last());
        EndpointStatus {
            segment: next.map(|segment| Position(segment.first)),
            acked_at: None,
            ledger: endpoint.ledger(self.end, Ahead { readable: readable + unwritten, corrupt, memory }),
            acked: Position(place.seq),
            pending_records: self.known.iter().map(|segment| segment.records_after(place.seq)).sum(),
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

/// A file as everything that is told of a buffer names it: relative to the buffer's directory.
fn named(file: &str) -> String {
    format!("{DIR_NAME}/{file}")
}

/// `path`, or its parent where somebody named the directory of the version.
fn buffer_dir(path: &Path) -> PathBuf {
    let named_inside = path.file_name().is_some_and(|name| name == DIR_NAME) && !path.join(DIR_NAME).is_dir();
    match path.parent() {
        Some(parent) if named_inside && path.join(LOCK_NAME).is_file() => parent.to_owned(),
        _ => path.to_owned(),
    }
}

/// Lines the segments up as the log does; with the names of those that are not part of it, and why.
fn line_up(dir: &Path, entries: &[Entry], store_id: u128) -> (Lineup, BTreeMap<String, OtherKind>) {
    let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
    let mut names: Vec<u64> = files.filter_map(|entry| parse_name(&entry.name)).collect();
    names.sort_unstable();
    let (mut lineup, mut odd) = (Lineup::default(), BTreeMap::new());
    for first in names {
        match look_at(&RealFs, dir, Claim { store_id, first, limit: u64::MAX }) {
            // One that cannot be read any more vanished, or will be told as missing.
            Ok(Look::Segment(seen)) => lineup.add(&RealFs, dir, store_id, seen).unwrap_or_default(),
            // The log removes the oldest first: those before it are gone as well by now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => lineup.seen.clear(),
            Ok(Look::Useless { .. } | Look::NotOurs) => drop(odd.insert(file_name(first), OtherKind::ForeignSegment)),
            Err(_) => drop(odd.insert(file_name(first), OtherKind::UnreadableSegment)),
        }
    }
    let given_up = lineup.surplus.iter().filter(|surplus| surplus.samples > 0);
    odd.extend(given_up.map(|surplus| (file_name(surplus.first), OtherKind::ForeignSegment)));
    (lineup, odd)
}
