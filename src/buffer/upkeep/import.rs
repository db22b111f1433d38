//! Taking in what another buffer held, once.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::model::{Snapshot, Timestamp};

use super::super::carry::{CarriedSnapshot, ExportFile};
use super::super::draft::{Draft, Item};
use super::super::log::{BLOCK_BYTES, SEGMENT_OVERHEAD_BYTES, blocks};
use super::super::segment::{Mark, SEGMENT_MAX_BYTES};
use super::{Upkeep, storage_full};

/// Under this name the buffer remembers what it took in.
const STATE: &str = "import";
/// Snapshots between two notes of what was taken in.
const BATCH: usize = 32;
/// Buffers that are remembered; the one whose last import is longest ago is forgotten first.
const STORES_MAX: usize = 256;
/// Stretches of positions remembered of one buffer; the lowest is forgotten first: a sample that is
/// doubled is better than one that is lost.
const RANGES_MAX: usize = 1024;
/// Kept free for the notes.
const NOTES_BYTES: u64 = 16 * BLOCK_BYTES;
/// More than a sample takes with its definition, twice; only a snapshot that may not fit is looked at closely.
const SAMPLE_BYTES_AT_MOST: u64 = 4096;

/// Why not all of a file was taken in.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    /// There is no room.
    #[error(
        "there is no room: {used_bytes} of {max_bytes} bytes are in use; deliver or purge what is in the buffer, or raise buffer.max_bytes, then import again: what was taken in is remembered"
    )]
    Full {
        /// In use.
        used_bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// The disk says no.
    #[error("the disk failed: {0}; what was taken in before is remembered, import again")]
    Disk(#[source] io::Error),
    /// The file cannot be read.
    #[error("the file cannot be read to its end: {0}")]
    File(#[source] io::Error),
}

/// What was taken in.
#[derive(Debug, Default)]
pub struct Imported {
    /// Snapshots.
    pub snapshots: u64,
    /// Samples in them.
    pub samples: u64,
    /// The earliest and the latest instant.
    pub instants: Option<(Timestamp, Timestamp)>,
    /// Snapshots that were taken in before.
    pub known: u64,
    /// Snapshots an interrupted import may have taken in already, which cannot be found out any more.
    pub maybe_doubled: u64,
    /// Records of the file that could not be read.
    pub damaged: u64,
    /// Why it ended early.
    pub stopped: Option<Stopped>,
}

/// What the buffer remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Memory {
    /// Counts imports, so that the oldest can be forgotten.
    imports: u64,
    stores: BTreeMap<String, Known>,
    intent: Option<Intent>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Known {
    last_import: u64,
    /// Inclusive, in order, not touching one another.
    ranges: Vec<(u64, u64)>,
}

/// What was about to be appended.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Intent {
    store: String,
    /// The position here of the first.
    first: u64,
    /// Position there, instant, samples.
    snapshots: Vec<(u64, i64, u64)>,
}

impl Known {
    fn has(&self, position: u64) -> bool {
        let after = self.ranges.partition_point(|(first, _)| *first <= position);
        after.checked_sub(1).is_some_and(|index| self.ranges[index].1 >= position)
    }

    fn add(&mut self, position: u64) {
        if self.has(position) {
            return;
        }
        let at = self.ranges.partition_point(|(first, _)| *first <= position);
        self.ranges.insert(at, (position, position));
        let mut joined: Vec<(u64, u64)> = Vec::with_capacity(self.ranges.len());
        for (first, last) in self.ranges.drain(..) {
            match joined.last_mut() {
                Some(before) if before.1.saturating_add(1) >= first => before.1 = before.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        if joined.len() > RANGES_MAX {
            joined.remove(0);
        }
        self.ranges = joined;
    }
}

impl Upkeep {
    /// Takes in the snapshots of a file for all endpoints, those that were taken in before left out unless `again`.
    ///
    /// `progress` is told the bytes read and the bytes in all.
    pub fn import(&mut self, file: &ExportFile, again: bool, progress: &mut dyn FnMut(u64, u64)) -> Imported {
        let mut import =
            Import { memory: self.recall(), imported: Imported::default(), batch: Vec::new(), upkeep: self };
        import.memory.imports += 1;
        import.settle_intent();
        let read = file.each(progress, &mut |carried| import.take(carried, again));
        let rest = import.finish_batch();
        let Import { mut imported, .. } = import;
        match read {
            Ok(damaged) => imported.damaged = damaged,
            Err(error) => imported.stopped = imported.stopped.or(Some(Stopped::File(error))),
        }
        imported.stopped = imported.stopped.or(rest.err());
        imported
    }

    fn recall(&self) -> Memory {
        let value = self.log.load_state(STATE);
        value.and_then(|value| serde_json::from_slice(&value).ok()).unwrap_or_default()
    }
}

struct Import<'a> {
    upkeep: &'a mut Upkeep,
    memory: Memory,
    imported: Imported,
    batch: Vec<CarriedSnapshot>,
}

impl Import<'_> {
    /// Finds out how much of the batch an interrupted import was at stands in the log.
    fn settle_intent(&mut self) {
        let Some(intent) = self.memory.intent.take() else { return };
        let Ok(inspection) = self.upkeep.inspect() else { return };
        let known = self.memory.stores.entry(intent.store).or_default();
        for (here, (there, at, samples)) in (intent.first..).zip(intent.snapshots) {
            match inspection.outline(here) {
                Some(found) if found == (Timestamp::from_millis(at), samples) => known.add(there),
                None if here <= self.upkeep.log.end.seq => self.imported.maybe_doubled += 1,
                _ => {}
            }
        }
    }

    /// Whether it was taken in before, or is about to be: one file may hold it twice.
    fn has(&self, CarriedSnapshot { store_id, position, .. }: &CarriedSnapshot) -> bool {
        let known = self.memory.stores.get(&format!("{store_id:032x}"));
        known.is_some_and(|known| known.has(*position))
            || self.batch.iter().any(|one| (one.store_id, one.position) == (*store_id, *position))
    }

    fn take(&mut self, carried: CarriedSnapshot, again: bool) -> ControlFlow<()> {
        if !again && self.has(&carried) {
            self.imported.known += 1;
            return ControlFlow::Continue(());
        }
        if carried.snapshot.sample_count() == 0 {
            return ControlFlow::Continue(());
        }
        let is_other = self.batch.first().is_some_and(|first| first.store_id != carried.store_id);
        if (is_other || self.batch.len() >= BATCH)
            && let Err(stopped) = self.finish_batch()
        {
            self.imported.stopped = Some(stopped);
            return ControlFlow::Break(());
        }
        self.batch.push(carried);
        ControlFlow::Continue(())
    }

    /// Notes what is to come, appends it, and forces it to the disk.
    fn finish_batch(&mut self) -> Result<(), Stopped> {
        let batch = std::mem::take(&mut self.batch);
        let Some(first) = batch.first() else { return Ok(()) };
        let store = format!("{:032x}", first.store_id);
        // The notes take room as well.
        self.make_sure_it_fits(&first.snapshot)?;
        let outline = |carried: &CarriedSnapshot| {
            (carried.position, carried.snapshot.at.millis(), carried.snapshot.sample_count() as u64)
        };
        self.memory.intent = Some(Intent {
            store: store.clone(),
            first: self.upkeep.log.next_place().seq + 1,
            snapshots: batch.iter().map(outline).collect(),
        });
        self.remember()?;
        let mut result = Ok(());
        for carried in batch {
            result = self.append(carried, &store);
            if result.is_err() {
                break;
            }
        }
        self.upkeep.log.sync_dirty(Instant::now());
        // What waits in memory may still be written when the log is closed: the next import looks whether it was.
        let may_come = !self.upkeep.log.ring.is_idle();
        self.memory.intent.take_if(|_| !may_come);
        result.and(self.remember())
    }

    fn append(&mut self, carried: CarriedSnapshot, store: &str) -> Result<(), Stopped> {
        self.make_sure_it_fits(&carried.snapshot)?;
        let (at, samples) = (carried.snapshot.at, carried.snapshot.sample_count() as u64);
        let log = &mut self.upkeep.log;
        // What another host saw is no news of this one: its clock goes on where it was.
        let last_at = log.last_at;
        let appended = log.append(carried.snapshot, Instant::now());
        log.last_at = last_at;
        match appended {
            Ok(appended) if appended.durable => {}
            Ok(_) => return Err(Stopped::Disk(storage_full())),
            Err(error) => return Err(Stopped::Disk(io::Error::new(io::ErrorKind::StorageFull, error))),
        }
        let known = self.memory.stores.entry(store.to_owned()).or_default();
        known.last_import = self.memory.imports;
        known.add(carried.position);
        let (first, newest) = self.imported.instants.unwrap_or((at, at));
        self.imported.instants = Some((first.min(at), newest.max(at)));
        self.imported.snapshots += 1;
        self.imported.samples += samples;
        Ok(())
    }

    /// The log evicts nothing for an import, and would hold in memory what does not fit.
    fn make_sure_it_fits(&self, snapshot: &Snapshot) -> Result<(), Stopped> {
        let log = &self.upkeep.log;
        let room = log.bound_bytes().saturating_sub(log.used_bytes() + NOTES_BYTES);
        if snapshot.sample_count() as u64 * SAMPLE_BYTES_AT_MOST <= room {
            return Ok(());
        }
        // As if it stood alone: nowhere does it take more, but for values far from their base.
        let before = Mark { seq: 0, samples: 0 };
        let frame = Draft::new(0, 1, SEGMENT_MAX_BYTES).frame(Item::Snapshot { before, snapshot });
        let values = snapshot.sample_count() as u64 * 10;
        let fits = frame.is_ok_and(|frame| blocks(SEGMENT_OVERHEAD_BYTES + frame.bytes.len() as u64 + values) <= room);
        if fits {
            return Ok(());
        }
        Err(Stopped::Full { used_bytes: log.used_bytes(), max_bytes: log.bound_bytes() })
    }

    fn remember(&mut self) -> Result<(), Stopped> {
        while self.memory.stores.len() > STORES_MAX {
            let oldest = self.memory.stores.iter().min_by_key(|(_, known)| known.last_import).map(|(id, _)| id.clone());
            oldest.map(|id| self.memory.stores.remove(&id));
        }
        let value = serde_json::to_vec(&self.memory).map_err(|error| Stopped::Disk(error.into()))?;
        self.upkeep.log.save_state(STATE, &value).map_err(Stopped::Disk)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::super::carry;
    use super::super::super::inspect::{Inspection, Selection};
    use super::*;
    use crate::model::{HistogramParts, HistogramSample, Labels, Metadata, MetricKind, NativeHistogram, Series};

    proptest! {
        #[test]
        fn ranges_hold_what_was_added_and_nothing_else(positions in prop::collection::vec(1_u64..300, 0..200)) {
            let (mut known, mut model) = (Known::default(), BTreeSet::new());
            for position in positions {
                known.add(position);
                model.insert(position);
            }
            for position in 0..301 {
                prop_assert_eq!(known.has(position), model.contains(&position), "{}", position);
            }
            prop_assert!(known.ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }

    #[test]
    fn ranges_stay_few_and_claim_nothing_that_was_not_added() {
        let mut known = Known::default();
        (0..3 * RANGES_MAX as u64).for_each(|index| known.add(index * 2 + 1));
        assert_eq!(known.ranges.len(), RANGES_MAX);
        assert!((0..3 * RANGES_MAX as u64).all(|index| !known.has(index * 2)));
        assert!(known.has(6 * RANGES_MAX as u64 - 1), "the newest is remembered");
    }

    fn options(dir: &Path) -> crate::buffer::Options {
        crate::buffer::Options {
            path: dir.to_owned(),
            max_bytes: 16 << 20,
            max_age: None,
            min_free: Some(0),
            sync: crate::buffer::SyncPolicy::Never,
            endpoints: vec!["a".to_owned()],
        }
    }

    /// What the buffer in `dir` exports once it took these in.
    fn exported(dir: &Path, snapshots: Vec<Snapshot>) -> ExportFile {
        let mut upkeep = Upkeep::open(options(dir)).unwrap();
        for snapshot in snapshots {
            assert!(upkeep.log.append(snapshot, Instant::now()).unwrap().durable);
        }
        upkeep.close();
        let mut out = Vec::new();
        let inspection = Inspection::open(dir).unwrap();
        carry::export(&inspection, Selection::default(), Timestamp::from_millis(1), &mut out, &mut |_, _| ()).unwrap();
        let file = dir.join("x.ohx");
        std::fs::write(&file, out).unwrap();
        ExportFile::open(&file).unwrap()
    }

    fn pending(dir: &Path) -> u64 {
        Inspection::open(dir).unwrap().endpoint("a").unwrap().ledger.pending
    }

    fn snapshot(at: i64) -> Snapshot {
        let histogram = Arc::new(NativeHistogram::new(HistogramParts::integer(0, 0, 1.5)).unwrap());
        let labels = Labels::builder().with("__name__", "seconds").build().unwrap();
        let metadata = Metadata::of("seconds", MetricKind::Histogram, "how long it took");
        let series = Arc::new(Series::new(labels, Arc::new(metadata)));
        let histograms = vec![HistogramSample { series, histogram, start: None }];
        Snapshot { histograms, ..Snapshot::new(Timestamp::from_millis(at), Vec::new()) }
    }

    #[test]
    fn a_snapshot_of_native_histograms_alone_is_taken_in_too() {
        let (source, hub) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = exported(source.path(), vec![snapshot(1000)]);
        let mut upkeep = Upkeep::open(options(hub.path())).unwrap();
        assert_eq!(upkeep.import(&file, false, &mut |_, _| ()).snapshots, 1);
    }

    #[test]
    fn what_stands_in_a_file_twice_is_taken_in_once() {
        let (source, hub) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let once = exported(source.path(), vec![snapshot(1000)]);
        let file = source.path().join("twice.ohx");
        std::fs::write(&file, std::fs::read(once.path()).unwrap().repeat(2)).unwrap();
        let mut upkeep = Upkeep::open(options(hub.path())).unwrap();
        let imported = upkeep.import(&ExportFile::open(&file).unwrap(), false, &mut |_, _| ());
        assert_eq!((imported.snapshots, imported.known), (1, 1));
        upkeep.close();
        assert_eq!(pending(hub.path()), 1);
    }

    #[test]
    fn what_the_disk_took_only_when_the_import_had_failed_is_not_taken_in_twice() {
        let (source, hub) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = exported(source.path(), vec![snapshot(1000), snapshot(2000)]);
        let mut upkeep = Upkeep::open(options(hub.path())).unwrap();
        let blocked = upkeep.log.segment_path(upkeep.log.next_place().seq + 1);
        std::fs::create_dir(&blocked).unwrap();
        assert!(upkeep.import(&file, false, &mut |_, _| ()).stopped.is_some());
        std::fs::remove_dir(&blocked).unwrap();
        upkeep.close();
        assert_eq!(pending(hub.path()), 1);
        let mut upkeep = Upkeep::open(options(hub.path())).unwrap();
        let imported = upkeep.import(&file, false, &mut |_, _| ());
        assert_eq!((imported.known, imported.snapshots, imported.maybe_doubled), (1, 1, 0));
        upkeep.close();
        assert_eq!(pending(hub.path()), 2);
    }

    #[test]
    fn what_an_interrupted_import_never_appended_is_not_said_to_be_doubled() {
        let (source, hub) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = exported(source.path(), Vec::new());
        let mut upkeep = Upkeep::open(options(hub.path())).unwrap();
        let first = upkeep.log.next_place().seq + 1;
        let intent = Intent { store: "00".to_owned(), first, snapshots: vec![(1, 1, 5), (2, 2, 5)] };
        let memory = Memory { imports: 1, stores: BTreeMap::new(), intent: Some(intent) };
        upkeep.log.save_state(STATE, &serde_json::to_vec(&memory).unwrap()).unwrap();
        drop(upkeep);
        let mut upkeep = Upkeep::open(options(hub.path())).unwrap();
        let imported = upkeep.import(&file, false, &mut |_, _| ());
        assert_eq!(imported.maybe_doubled, 0);
    }
}
