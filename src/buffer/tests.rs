//! The log as a whole: real files in a temporary directory, and a file system that fails when told to.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::model::{Labels, Metadata, MetricKind, Sample, Series, Snapshot, Timestamp, Value};

use super::fs::{Access, Entry, Fs, Locking, RealFs, Space, Standing};
use super::log::{Log, LogOptions};
use super::*;

mod bounds;
mod damage;
mod faults;
mod golden;
mod handle;
mod inspect;
mod model;
mod nth;
mod opening;
mod power;
mod quarantine;
mod sectors;
mod sim;
mod sim_itself;
mod world;

const ALL: Limits = Limits { instants_max: usize::MAX, samples_max: usize::MAX };
const ONE: Limits = Limits { instants_max: 1, samples_max: usize::MAX };
const BOTH: [&str; 2] = ["a", "b"];

fn options(dir: &Path, endpoints: &[&str]) -> LogOptions {
    LogOptions {
        dir: dir.join("v1"),
        max_bytes: 1 << 20,
        max_age: None,
        min_free: Some(0),
        sync: SyncPolicy::Never,
        endpoints: endpoints.iter().map(|name| (*name).to_owned()).collect(),
        segment_bytes: 4 << 10,
        ring_bytes: 29 << 10,
        ahead: 3,
        evicts: true,
    }
}

fn open(options: &LogOptions) -> Log<RealFs> {
    Log::open(RealFs, options.clone()).unwrap()
}

fn series(index: u32) -> Arc<Series> {
    let labels = Labels::builder().with("__name__", "up").with("index", index.to_string()).build().unwrap();
    Arc::new(Series::new(labels, Arc::new(Metadata::of("up", MetricKind::Gauge, "is it up"))))
}

/// The `at`th snapshot: its values tell it apart from every other.
fn snapshot(at: u32, samples: u32) -> Snapshot {
    let odd = [Value::STALE, Value::new(-0.0), Value::from_bits(0xfff8_0000_0000_1234)];
    let sample = |index: u32| {
        let value = odd.get(index as usize).copied().unwrap_or(Value::new(f64::from(at) + f64::from(index) / 1000.0));
        Sample::new(series(index), value)
    };
    Snapshot::new(Timestamp::from_millis(i64::from(at) * 1000), (0..samples).map(sample).collect())
}

fn append<F: Fs>(log: &mut Log<F>, snapshot: &Snapshot) -> Appended {
    log.append(snapshot.clone(), Instant::now()).unwrap()
}

fn delivered(samples: u64) -> Fates {
    Fates { delivered: samples, ..Fates::default() }
}

fn ack<F: Fs>(log: &mut Log<F>, index: usize, lease: &Lease) {
    log.ack(index, lease.through.number(), delivered(lease.samples));
}

/// Takes everything there is, acknowledging as it goes.
fn drain<F: Fs>(log: &mut Log<F>, index: usize, limits: Limits) -> Vec<Snapshot> {
    let mut all = Vec::new();
    while let Some(lease) = log.next(index, limits) {
        assert_eq!(lease.samples, lease.snapshots.iter().map(|s| s.sample_count() as u64).sum::<u64>());
        ack(log, index, &lease);
        all.extend(lease.snapshots);
    }
    all
}

/// What must hold at every instant.
fn check<F: Fs>(log: &Log<F>) {
    let status = log.status();
    for endpoint in &status.endpoints {
        assert!(endpoint.ledger.balances(), "{endpoint:?}");
    }
    assert!(status.used_bytes <= status.max_bytes, "{} > {}", status.used_bytes, status.max_bytes);
}

/// Bytes the directory really takes, in blocks, with the directory itself.
fn disk_bytes(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    files.map(super::log::blocks).sum::<u64>() + super::log::blocks(std::fs::metadata(dir).unwrap().len())
}

fn segment_files(options: &LogOptions) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(&options.dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    files.sort();
    files
}

fn ledger<F: Fs>(log: &Log<F>, index: usize) -> Ledger {
    log.status().endpoints[index].ledger
}

#[test]
fn what_was_appended_is_given_out_bit_for_bit_and_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let all: Vec<Snapshot> = (1..200).map(|at| snapshot(at, 20)).collect();
    let mut log = open(&options);
    for one in &all[..100] {
        append(&mut log, one);
    }
    log.close(Instant::now());
    let mut log = open(&options);
    assert!(!log.status().unclean_start);
    for one in &all[100..] {
        append(&mut log, one);
    }
    assert!(log.status().segments > 3, "the test spans segments");
    assert_eq!(drain(&mut log, 0, Limits { instants_max: 7, samples_max: 90 }), all);
    check(&log);
    assert_eq!(ledger(&log, 0).delivered, 199 * 20);
}

#[test]
fn a_lease_keeps_its_limits_but_always_holds_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&options(dir.path(), &["a"]));
    for at in 1..10 {
        append(&mut log, &snapshot(at, 20));
    }
    let of = |log: &mut Log<RealFs>, instants_max, samples_max| {
        log.next(0, Limits { instants_max, samples_max }).unwrap().snapshots.len()
    };
    assert_eq!(of(&mut log, 3, 1000), 3);
    assert_eq!(of(&mut log, 100, 59), 2);
    assert_eq!(of(&mut log, 0, 0), 1);
    assert_eq!(of(&mut log, 100, 1000), 9);
}

#[test]
fn reading_is_not_consuming_and_a_killed_process_resumes_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    let mut log = open(&options);
    for at in 1..=10 {
        append(&mut log, &snapshot(at, 5));
    }
    let lease = log.next(0, Limits { instants_max: 4, samples_max: 1000 }).unwrap();
    ack(&mut log, 0, &lease);
    let sent = log.next(0, Limits { instants_max: 3, samples_max: 1000 }).unwrap();
    drop(log);

    let mut log = open(&options);
    assert!(log.status().unclean_start);
    check(&log);
    assert_eq!(log.next(0, ALL).unwrap(), sent, "the request that may have arrived is made again as it was");
    assert_eq!(log.next(0, ALL).unwrap().snapshots.len(), 6, "and is not forced on anybody twice");
    assert_eq!(drain(&mut log, 0, ALL).len(), 6);
    assert_eq!(drain(&mut log, 1, ONE).len(), 10);
    assert_eq!((ledger(&log, 0).delivered, ledger(&log, 1).delivered), (50, 50));
}

#[test]
fn a_part_of_a_lease_can_be_settled_and_fates_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    let positions: Vec<u64> = (1..=4).map(|at| append(&mut log, &snapshot(at, 5)).position.number()).collect();
    log.next(0, ALL).unwrap();
    log.ack(0, positions[1], Fates { delivered: 4, refused: 2, expired: 1, unchanged: 2, filtered: 1 });
    check(&log);
    log.ack(0, positions[3], delivered(10));
    drop(log);
    let ledger = ledger(&open(&options), 0);
    assert_eq!((ledger.delivered, ledger.refused, ledger.expired, ledger.pending), (14, 2, 1, 0));
    assert_eq!((ledger.unchanged, ledger.filtered), (2, 1));
}

#[test]
fn an_acknowledgement_that_does_not_add_up_leaves_the_account_balanced() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(&options(dir.path(), &["a"]));
    append(&mut log, &snapshot(1, 5));
    append(&mut log, &snapshot(2, 5));
    let first = log.next(0, ONE).unwrap();
    log.ack(0, first.through.number(), delivered(3));
    check(&log);
    let second = log.next(0, ONE).unwrap();
    log.ack(0, second.through.number(), delivered(300));
    log.ack(0, 77, delivered(1));
    check(&log);
    let ledger = ledger(&log, 0);
    assert_eq!((ledger.delivered, ledger.corrupt), (8, 2));
}

#[test]
fn a_segment_goes_when_every_endpoint_has_passed_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    let mut log = open(&options);
    for at in 1..200 {
        append(&mut log, &snapshot(at, 20));
    }
    let before = log.status().segments;
    drain(&mut log, 0, ALL);
    assert_eq!(log.status().segments, before);
    drain(&mut log, 1, ALL);
    assert_eq!(log.status().segments, 1);
    log.close(Instant::now());
    assert!(segment_files(&options).is_empty());
    let mut log = open(&options);
    assert_eq!(log.status().last_at, Some(Timestamp::from_millis(199_000)));
    assert_eq!(log.status().endpoints[0].pending_records, 0);
    assert_eq!(append(&mut log, &snapshot(200, 1)).position.number(), 200 + options.ahead);
    assert_eq!(log.status().endpoints[0].pending_records, 1, "positions that were left out hold no records");
    check(&log);
}

#[test]
fn without_endpoints_nothing_is_kept_but_the_newest_instant() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &[]);
    let mut log = open(&options);
    for at in 1..100 {
        append(&mut log, &snapshot(at, 20));
    }
    drop(log);
    assert!(segment_files(&options).is_empty());
    assert_eq!(open(&options).status().last_at, Some(Timestamp::from_millis(99_000)));
}

#[test]
fn a_new_endpoint_starts_at_the_oldest_record_and_one_that_is_not_configured_holds_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    append_and_close(&options(dir.path(), &["old"]), (1..=100).map(|at| snapshot(at, 20)));
    let mut log = open(&options(dir.path(), &["new"]));
    assert_eq!(drain(&mut log, 0, ALL).len(), 100);
    assert_eq!(log.status().segments, 0);
    log.close(Instant::now());
    drop(log);
    let log = open(&options(dir.path(), &["old"]));
    check(&log);
    let ledger = ledger(&log, 0);
    assert_eq!((ledger.evicted.purged, ledger.corrupt), (2000, 0), "it was away while its samples went");
}

#[test]
fn a_second_process_is_refused_with_the_first_ones_id() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let log = open(&options);
    let error = Log::open(RealFs, options.clone()).err().unwrap();
    assert!(matches!(error, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
    drop(log);
    open(&options);
}

#[test]
fn a_directory_that_a_small_value_made_again_is_locked_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    std::fs::remove_dir_all(&options.dir).unwrap();
    log.save_state("x", b"value").unwrap();
    assert!(matches!(Log::open(RealFs, options), Err(OpenError::InUse { .. })), "before the next segment");
}

#[test]
fn a_directory_that_cannot_be_made_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("v1"), b"a file").unwrap();
    let error = Log::open(RealFs, options(dir.path(), &["a"])).err().unwrap();
    assert!(matches!(&error, OpenError::Unusable { .. }));
    assert!(error.to_string().contains("v1 cannot be used"), "{error}");
}

#[test]
fn what_stands_where_the_lock_belongs_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let lock = options.dir.join("lock");
    let refused = || {
        let error = Log::open(RealFs, options.clone()).err().unwrap();
        assert!(matches!(&error, OpenError::NoLock { path } if *path == lock), "{error}");
    };
    std::fs::create_dir_all(&lock).unwrap();
    refused();
    std::fs::remove_dir(&lock).unwrap();
    std::os::unix::fs::symlink(dir.path().join("gone"), &lock).unwrap();
    refused();
    std::fs::remove_file(&lock).unwrap();
    make_pipe(&lock);
    refused();
    std::fs::remove_file(&lock).unwrap();
    open(&options);
}

#[test]
fn a_link_that_leads_nowhere_in_the_place_of_a_cursor_costs_one_of_its_two_files() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    append_and_close(&options, [snapshot(1, 5)]);
    let cursors: Vec<_> = std::fs::read_dir(&options.dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let cursor = cursors.iter().find(|path| path.to_str().unwrap().contains("cursor-a")).unwrap();
    std::fs::remove_file(cursor).unwrap();
    std::os::unix::fs::symlink(dir.path().join("gone"), cursor).unwrap();
    for at in 2..5 {
        let mut log = open(&options);
        append(&mut log, &snapshot(at, 5));
        let lease = log.next(0, ONE).unwrap();
        log.ack(0, lease.through.number(), Fates { delivered: lease.samples, ..Fates::default() });
        check(&log);
        log.close(Instant::now());
    }
    assert_eq!(ledger(&open(&options), 0).delivered, 15);
    assert!(!dir.path().join("gone").exists());
}

/// Not by a program: a process that is being started holds every lock of this one for a moment.
pub(super) fn make_pipe(path: &Path) {
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
}

/// A whole life of a process.
fn append_and_close(options: &LogOptions, all: impl IntoIterator<Item = Snapshot>) {
    let mut log = open(options);
    for one in all {
        append(&mut log, &one);
    }
    log.close(Instant::now());
}

/// Does to a file's bytes what no process of ours would.
fn alter(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
