//! Opening: from whatever lies in the directory to a log whose account balances.
//!
//! The segments are lined up by position; what is missing between two of them, before the first or after the last is
//! found by subtraction and counted. Only files that are named as ours and hold not one readable record are removed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::model::Interner;

use super::OpenError;
use super::age::AgeGuard;
use super::away::Away;
use super::doubt::InDoubt;
use super::durable::{Ending, LOCK_NAME, META_NAME, Meta, Names, cursor_files, meta_files, new_store_id};
use super::endpoint::{Endpoint, Reason, cursor_path, place_of_cursor, store_of_cursor};
use super::fs::{Access, Entry, EntryKind, Fs, Locking};
use super::log::blocks;
use super::log::{Counts, Fullness, Log, LogOptions, lost_within};
use super::pair::{Loaded, Pair};
use super::quarantine::Quarantine;
use super::record::RESUMABLE_LIMIT;
use super::recover::{Claim, FileHeader, read_file_header};
use super::ring::Ring;
use super::segment::{Cause, Hole, Mark, Segment, file_name, parse_name};
use super::survey::{Lineup, Look, Surplus, could_hold, hole_after, look_at, with_cause};

/// What the directory's segments are.
#[derive(Default)]
struct Found {
    segments: VecDeque<Segment>,
    between: Vec<Hole>,
    torn_bytes: u64,
    /// The highest name that is taken by a file we do not touch.
    taken: u64,
}

impl Found {
    /// Positions go on after `first`; names nobody ever reaches by counting are no reason to jump there.
    fn take_name(&mut self, first: u64) {
        if first < RESUMABLE_LIMIT {
            self.taken = self.taken.max(first);
        }
    }
}

impl<F: Fs> Log<F> {
    /// Opens the log in `options.dir`, making it where there is none.
    ///
    /// # Errors
    /// When the directory cannot be made, locked or listed. Never because of a file's content.
    pub(super) fn open(fs: F, options: LogOptions) -> Result<Self, OpenError> {
        let began = Instant::now();
        let dir = options.dir.clone();
        let unusable = |source: io::Error| OpenError::Unusable { path: dir.clone(), source };
        fs.create_dir_all(&options.dir).map_err(unusable)?;
        let lock = match fs.lock(&options.dir.join(LOCK_NAME)) {
            Ok(Locking::Held(lock)) => lock,
            Ok(Locking::InUse { pid }) => return Err(OpenError::InUse { path: dir.clone(), pid }),
            Err(_) if is_no_file(&fs, &dir, LOCK_NAME) => {
                return Err(OpenError::NoLock { path: dir.join(LOCK_NAME) });
            }
            Err(source) => return Err(unusable(source)),
        };
        let entries = fs.list(&options.dir).map_err(unusable)?;
        let loaded = Pair::load(&fs, options.dir.join(META_NAME));
        let meta = loaded.value.as_deref().and_then(Meta::decode);
        if meta.is_none() && loaded.damaged.is_some() {
            tracing::warn!(path = %dir.display(), "the buffer's own notes are damaged; reading the segments instead");
        }
        let store_id = meta.as_ref().map(|meta| meta.store_id).or_else(|| store_id_of(&fs, &options.dir, &entries));
        let is_new = meta.is_none() && store_id.is_none();
        let store_id = store_id.unwrap_or_else(new_store_id);
        let found = find_segments(&fs, &options.dir, &entries, store_id);
        let small = small_files(&options, &entries);
        let mut log = Self {
            fs,
            lock: Some(lock),
            store_id,
            end: Mark { seq: found.taken, samples: 0 },
            left_out: if is_new { 0 } else { options.ahead },
            last_at: found
                .segments
                .iter()
                .map(|segment| segment.newest_at)
                .max()
                .max(meta.as_ref().and_then(|m| m.last_at)),
            segments: found.segments,
            between: found.between,
            active: None,
            ring: Ring::new(options.ring_bytes),
            in_doubt: InDoubt::default(),
            meta: loaded.pair,
            states: BTreeMap::new(),
            endpoints: Vec::new(),
            away: Vec::new(),
            readers: Vec::new(),
            interner: Interner::default(),
            small,
            dir_len: 0,
            dirty: BTreeSet::new(),
            dirty_since: None,
            names: Names::default(),
            noted_held: None,
            fullness: Fullness::Roomy,
            ceiling_bytes: options.max_bytes,
            short_of_disk: false,
            age_guard: AgeGuard::default(),
            quarantine: Quarantine::default(),
            looked_at: None,
            open_took: Duration::ZERO,
            unclean_start: !is_new && meta.as_ref().is_none_or(|meta| !meta.ending.is_closed()),
            counts: Counts { torn_tail_bytes: found.torn_bytes, ..Counts::default() },
            options,
        };
        log.find_quarantined();
        log.load_endpoints(&entries, meta.as_ref());
        log.settle_in(&meta.map(|meta| meta.ended_in_memory(false)).unwrap_or_default());
        log.looked_at = Some(began);
        log.open_took = began.elapsed();
        Ok(log)
    }

    /// Reads the cursors and finds the log's end: no position that any file has seen is given out again.
    fn load_endpoints(&mut self, entries: &[Entry], meta: Option<&Meta>) {
        let dir = self.options.dir.clone();
        let bases = cursor_bases(&dir, entries);
        let names = self.options.endpoints.clone();
        let ours: BTreeSet<_> = names.iter().map(|name| cursor_path(&dir, name)).collect();
        let (mut places, mut others) = (Vec::new(), Vec::new());
        for base in bases {
            let Loaded { pair, value: Some(value), .. } = Pair::load(&self.fs, base.clone()) else { continue };
            let place = place_of_cursor(&value, self.store_id);
            places.extend(place);
            if !ours.contains(&base) {
                others.extend(place.map(|place| Away { pair, value, place }));
            }
        }
        let last = self.segments.back().map(|segment| segment.end);
        for mark in places.into_iter().chain(last).chain(meta.map(|meta| meta.end)) {
            self.end = self.end.furthest(mark);
        }
        self.leave(others);
        let fresh = self.segments.front().map_or(self.end, Segment::before);
        for name in names {
            let loaded = Pair::load(&self.fs, cursor_path(&dir, &name));
            if loaded.value.is_none() && loaded.damaged.is_some() {
                tracing::warn!(endpoint = %name, "the cursor is damaged; sending again from the oldest sample");
            }
            let value = loaded.value.as_deref().filter(|value| {
                let contradicts = place_of_cursor(value, self.store_id).is_some_and(|place| !could_hold(&self.segments, place));
                if contradicts {
                    tracing::error!(endpoint = %name, "BUG: the cursor contradicts the segments; starting at the oldest sample");
                }
                !contradicts
            });
            self.endpoints.push(Endpoint::from_cursor(name, loaded.pair, value, self.store_id, fresh));
            self.readers.push(None);
        }
    }

    /// Counts what is missing, keeps the bounds, and says that the log is in use.
    fn settle_in(&mut self, in_memory: &[Hole]) {
        let first = self.segments.front().map(Segment::before);
        for endpoint in &mut self.endpoints {
            let samples = endpoint.begin_at(first, self.end, in_memory);
            if samples > 0 {
                tracing::error!(endpoint = %endpoint.name, samples, was_away = endpoint.was_away,
                    "samples this endpoint waited for are not in the buffer any more");
            }
        }
        let places = self.endpoints.iter().map(|endpoint| endpoint.place);
        let behind = hole_after(self.segments.back(), places, self.end);
        self.between = with_cause(std::mem::take(&mut self.between).into_iter().chain(behind), in_memory);
        self.counts.damage_found += self.damaged_places();
        self.say_missing();
        self.store_meta(Ending::Open);
        self.look_at_disk();
        while self.options.evicts && self.used_bytes() > self.options.max_bytes {
            if !matches!(self.evict_oldest(Reason::Size), Ok(true)) && !self.drop_oldest_quarantined() {
                tracing::warn!(path = %self.options.dir.display(), "the buffer cannot be brought below max_bytes");
                break;
            }
        }
        self.remove_passed();
        for index in 0..self.endpoints.len() {
            self.find_oldest(index);
            self.store_cursor(index);
        }
        tracing::info!(path = %self.options.dir.display(), segments = self.segments.len(), used_bytes = self.used_bytes(),
            unclean = self.unclean_start, "buffer opened");
    }

    /// What is missing behind the oldest segment, as far as somebody waits for it.
    fn say_missing(&self) {
        let Some(place) = self.endpoints.iter().map(|endpoint| endpoint.place).min_by_key(|place| place.seq) else {
            return;
        };
        let (damage, memory) = lost_within(self.between.iter().copied(), place.samples, u64::MAX);
        let path = self.options.dir.display();
        if damage > 0 {
            tracing::error!(path = %path, samples = damage, "samples are gone from the buffer; they count as corrupt");
        }
        if memory > 0 {
            tracing::warn!(path = %path, samples = memory,
                "samples were in memory only when outhaul ended, because the disk could not be written; they count as evicted");
        }
    }

    /// Places where the disk does not give back what was written.
    fn damaged_places(&self) -> u64 {
        let holes = self.between.iter().chain(self.segments.iter().flat_map(|segment| &segment.holes));
        holes.filter(|hole| hole.cause == Cause::Damage).count() as u64
    }
}

/// Whether something has this name that is no file.
fn is_no_file<F: Fs>(fs: &F, dir: &Path, name: &str) -> bool {
    let entries = fs.list(dir).unwrap_or_default();
    entries.iter().any(|entry| entry.name == name && entry.kind != EntryKind::File)
}

/// The store's id from a segment, or else from a cursor, where the log's own notes are gone.
pub(super) fn store_id_of<F: Fs>(fs: &F, dir: &Path, entries: &[Entry]) -> Option<u128> {
    let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
    let mut segments: Vec<u64> = files.filter_map(|entry| parse_name(&entry.name)).collect();
    segments.sort_unstable();
    let mut in_headers = segments.iter().rev().filter_map(|&first| {
        let file = fs.open(&dir.join(file_name(first)), Access::Read).ok()?;
        match read_file_header(fs, &file) {
            Ok(FileHeader::Ours { store_id }) => Some(store_id),
            _ => None,
        }
    });
    in_headers.next().or_else(|| {
        let stores =
            cursor_bases(dir, entries).into_iter().filter_map(|base| store_of_cursor(&Pair::load(fs, base).value?));
        let stores: BTreeSet<u128> = stores.collect();
        // A cursor may have been left by another store.
        let has_records = |store_id: &u128| {
            let mut looks =
                segments.iter().map(|&first| look_at(fs, dir, Claim { store_id: *store_id, first, limit: u64::MAX }));
            looks.any(|look| matches!(look, Ok(Look::Segment(_))))
        };
        stores.iter().copied().find(has_records).or(stores.first().copied())
    })
}

/// Every cursor in the directory, without the suffixes of its two files.
pub(super) fn cursor_bases(dir: &Path, entries: &[Entry]) -> BTreeSet<PathBuf> {
    let files = entries.iter().filter(|entry| entry.name.starts_with("cursor-") && entry.kind == EntryKind::File);
    files.map(|entry| dir.join(&entry.name).with_extension("")).collect()
}

fn find_segments<F: Fs>(fs: &F, dir: &Path, entries: &[Entry], store_id: u128) -> Found {
    let mut names: Vec<(u64, EntryKind)> =
        entries.iter().filter_map(|entry| Some((parse_name(&entry.name)?, entry.kind))).collect();
    names.sort_unstable_by_key(|(first, _)| *first);
    let (mut found, mut lineup) = (Found::default(), Lineup::default());
    for (first, kind) in names {
        if kind == EntryKind::Other {
            found.take_name(first);
            continue;
        }
        let path = dir.join(file_name(first));
        match look_at(fs, dir, Claim { store_id, first, limit: u64::MAX }) {
            Ok(Look::Segment(seen)) => {
                found.torn_bytes += seen.torn_bytes;
                if let Err(error) = lineup.add(fs, dir, store_id, seen) {
                    tracing::error!(path = %dir.display(), before = first, %error, "a segment cannot be read any more; its samples are lost");
                }
            }
            Ok(Look::Useless { torn_bytes }) => {
                found.torn_bytes += torn_bytes;
                remove_useless(fs, &path, torn_bytes);
            }
            Ok(Look::NotOurs) => {
                tracing::warn!(path = %path.display(), "a segment of another version or buffer is left alone");
                found.take_name(first);
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a segment cannot be read; its samples are lost");
                found.take_name(first);
            }
        }
    }
    for &Surplus { first, bytes, samples } in &lineup.surplus {
        if samples > 0 {
            tracing::error!(
                segment = file_name(first),
                samples,
                "a segment that could not be read before was given up then; its samples are lost"
            );
        }
        remove_useless(fs, &dir.join(file_name(first)), bytes);
    }
    found.between = lineup.gaps();
    found.segments = lineup.seen.into_iter().map(|seen| seen.segment).collect();
    found
}

fn remove_useless<F: Fs>(fs: &F, path: &Path, bytes: u64) {
    tracing::warn!(path = %path.display(), bytes, "removing a segment of which nothing is wanted");
    if let Err(error) = fs.remove(path) {
        tracing::warn!(path = %path.display(), %error, "could not remove it");
    }
}

/// What the files that are not segments take, with room for those every endpoint will need.
fn small_files(options: &LogOptions, entries: &[Entry]) -> BTreeMap<String, u64> {
    let mut small: BTreeMap<String, u64> = entries
        .iter()
        .filter(|entry| entry.kind == EntryKind::File)
        .filter(|entry| ["cursor-", "state-", "log."].iter().any(|prefix| entry.name.starts_with(prefix)))
        .map(|entry| (entry.name.clone(), blocks(entry.len)))
        .collect();
    let needed = options
        .endpoints
        .iter()
        .flat_map(|name| cursor_files(&options.dir, name, Endpoint::FIXED_LEN + name.len()))
        .chain(meta_files(&options.dir));
    for (name, bytes) in needed {
        let size = small.entry(name).or_default();
        *size = bytes.max(*size);
    }
    small
}
