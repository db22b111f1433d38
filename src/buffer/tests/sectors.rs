//! Blocks of a disk that come back as zeros: they cost the snapshots whose records they touch, and no other.

use super::super::inspect::{DamageKind, Inspection};
use super::super::record::{HEADER_LEN, Kind, Seed};
use super::super::segment::{FILE_HEADER_LEN, parse_name};
use super::super::walk::{Step, Walk};
use super::*;

const SECTOR_BYTES: usize = 512;
const PAGE_BYTES: usize = 4096;

/// Containers by number, of which each has a name of some length.
fn snapshot_of(
    at: u32,
    containers: std::ops::Range<u32>,
    value: impl Fn(u32) -> f64,
    start: impl Fn(u32) -> i64,
) -> Snapshot {
    let sample = |container: u32| {
        let labels = Labels::builder()
            .with("__name__", "container_cpu_usage_seconds_total")
            .with("container_id", format!("{:032x}", u128::from(container) * 0x9e37_79b9_7f4a_7c15))
            .with("name", format!("web-{container}"));
        let metadata = Metadata::of("container_cpu_usage_seconds", MetricKind::Counter, "processor time");
        let series = Arc::new(Series::new(labels.build().unwrap(), Arc::new(metadata)));
        Sample::new(series, Value::new(value(container))).started(Timestamp::from_millis(start(container)))
    };
    Snapshot::new(Timestamp::from_millis(i64::from(at) * 10_000), containers.map(sample).collect())
}

/// One segment with `all` in it, finished in order.
struct Closed {
    options: LogOptions,
    path: std::path::PathBuf,
    whole: Vec<u8>,
    records: Vec<Step>,
    _dir: tempfile::TempDir,
}

impl Closed {
    fn of(all: &[Snapshot]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { max_bytes: 8 << 20, segment_bytes: 1 << 20, ..options(dir.path(), &["a"]) };
        append_and_close(&options, all.iter().cloned());
        let path = segment_files(&options).remove(0);
        let whole = std::fs::read(&path).unwrap();
        let store_id = u128::from_le_bytes(*whole[16..].first_chunk().unwrap());
        let first = parse_name(path.file_name().unwrap().to_str().unwrap()).unwrap();
        let file = RealFs.open(&path, Access::Read).unwrap();
        let seed = Seed::new(store_id, first);
        let mut walk = Walk { fs: &RealFs, file: &file, seed, at: FILE_HEADER_LEN, end: whole.len() as u64 };
        let records = std::iter::from_fn(|| walk.step().unwrap()).collect();
        Self { options, path, whole, records, _dir: dir }
    }

    fn how_many(&self, kind: Kind) -> usize {
        self.records.iter().filter(|step| step.header.kind == kind).count()
    }

    /// Instants of the snapshots whose records are not the same in `damaged`.
    fn touched(&self, damaged: &[u8]) -> Vec<Timestamp> {
        let bytes = |step: &Step| {
            let start = usize::try_from(step.offset).unwrap();
            start..start + HEADER_LEN + step.header.payload_len as usize
        };
        let touched = |step: &&Step| self.whole[bytes(step)] != damaged[bytes(step)];
        let snapshots = self.records.iter().filter(|step| step.header.kind.is_snapshot());
        snapshots.filter(touched).map(|step| step.header.at).collect()
    }

    /// Zeroes one aligned block after the other; returns how many of them cost nothing.
    fn check_every_block(&self, block: usize, all: &[Snapshot]) -> usize {
        let saved = tempfile::tempdir().unwrap();
        copy_dir(&self.options.dir, saved.path());
        let mut harmless = 0;
        for at in (0..self.whole.len()).step_by(block) {
            let mut bytes = self.whole.clone();
            let end = bytes.len().min(at + block);
            bytes[at..end].fill(0);
            std::fs::remove_dir_all(&self.options.dir).unwrap();
            copy_dir(saved.path(), &self.options.dir);
            std::fs::write(&self.path, &bytes).unwrap();
            let touched = self.touched(&bytes);
            let (kept, lost): (Vec<&Snapshot>, Vec<&Snapshot>) = all.iter().partition(|one| !touched.contains(&one.at));
            let verdict = Inspection::open(&self.options.dir).unwrap().verify(&mut |_, _| {});
            assert_eq!(verdict.damages.is_empty(), bytes == self.whole, "{block} bytes at {at}: {verdict:?}");
            let mut log = open(&self.options);
            check(&log);
            let back = drain(&mut log, 0, ALL);
            assert!(back.iter().eq(kept), "{block} bytes at {at}: {} of {} came back", back.len(), all.len());
            let samples = lost.iter().map(|one| one.samples.len() as u64).sum();
            let ledger = ledger(&log, 0);
            assert_eq!((ledger.corrupt, ledger.pending), (samples, 0), "{block} bytes at {at}");
            assert_eq!(verdict.lost_samples(), samples, "{block} bytes at {at}: {verdict:?}");
            harmless += usize::from(lost.is_empty());
        }
        harmless
    }
}

#[test]
fn any_sector_of_zeros_costs_the_snapshots_it_touches_and_no_other() {
    // First a container comes with each instant and little else happens; then values move and stay, so that frames come up,
    // and some are started again.
    let value = |at: u32| move |container: u32| f64::from(at.saturating_sub(15) / 5 * container * 37 % 10_007) / 8.0;
    let start = |at: u32| move |container: u32| if at >= 30 && container < 5 { 2000 } else { 1000 };
    let all: Vec<Snapshot> = (1..=50).map(|at| snapshot_of(at, 0..300 + at.min(20), value(at), start(at))).collect();
    let segment = Closed::of(&all);
    assert!(segment.how_many(Kind::Definitions) >= 44, "the first, those that came, restarts and frames");
    assert!(segment.how_many(Kind::Spacer) >= 20, "snapshots alone are not long enough");
    assert!(segment.check_every_block(SECTOR_BYTES, &all) > 20, "copies of definitions");
}

#[test]
fn any_page_of_zeros_costs_the_snapshots_it_touches_where_definitions_are_long() {
    let all: Vec<Snapshot> = (1..=20)
        .map(|at| {
            let containers = 0..if at < 10 { 300 } else { 600 };
            snapshot_of(at, containers, |container| f64::from(if container == 7 { at } else { 7 }), |_| 1000)
        })
        .collect();
    let segment = Closed::of(&all);
    assert_eq!((segment.how_many(Kind::Definitions), segment.how_many(Kind::Spacer)), (4, 2));
    assert!(segment.check_every_block(PAGE_BYTES, &all) > 5, "copies of definitions");
}

#[test]
fn a_flipped_bit_in_a_spacer_is_named_and_costs_nothing() {
    let all = [snapshot_of(1, 0..10, |_| 7.0, |_| 1000)];
    let segment = Closed::of(&all);
    let spacer = segment.records.iter().find(|step| step.header.kind == Kind::Spacer).unwrap();
    alter(&segment.path, |bytes| bytes[usize::try_from(spacer.offset).unwrap() + HEADER_LEN + 3] ^= 4);
    let damages = Inspection::open(&segment.options.dir).unwrap().verify(&mut |_, _| {}).damages;
    let told: Vec<_> = damages.iter().map(|damage| (damage.kind, damage.offset, damage.samples)).collect();
    assert_eq!(told, [(DamageKind::Payload, spacer.offset, 0)]);
    assert_eq!(drain(&mut open(&segment.options), 0, ALL), all);
}
