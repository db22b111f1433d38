//! The log as a whole: real files in a temporary directory, and a file system that fails when told to.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::model::{Labels, Metadata, MetricKind, Sample, Series, Snapshot, Timestamp, Value};

use super::fs::{Access, Entry, Fs, Locking, RealFs, Space};
use super::log::{Log, LogOptions};
use super::*;

mod faults;
mod golden;
mod handle;
mod inspect;
mod model;
mod nth;
mod power;
mod quarantine;
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
    files.map(super::log::blocks).sum::<u64>() + super::log::BLOCK_BYTES
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
    assert_eq!(append(&mut log, &snapshot(200, 1)).position.number(), 200);
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
    let mut log = open(&options(dir.path(), &["old"]));
    for at in 1..=100 {
        append(&mut log, &snapshot(at, 20));
    }
    log.close(Instant::now());
    drop(log);
    let mut log = open(&options(dir.path(), &["new"]));
    assert_eq!(drain(&mut log, 0, ALL).len(), 100);
    assert_eq!(log.status().segments, 0);
    log.close(Instant::now());
    drop(log);
    let log = open(&options(dir.path(), &["old"]));
    check(&log);
    assert_eq!(ledger(&log, 0).corrupt, 2000, "it was away while its samples went");
}

#[test]
fn when_the_buffer_is_full_the_oldest_goes_and_is_counted_for_those_who_still_wanted_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes: 96 << 10, ..options(dir.path(), &BOTH) };
    let mut log = open(&options);
    for at in 1..=1000 {
        append(&mut log, &snapshot(at, 20));
        if at <= 900 {
            drain(&mut log, 1, ALL);
        }
        check(&log);
        assert!(disk_bytes(&options.dir) <= options.max_bytes);
    }
    let (a, b) = (ledger(&log, 0), ledger(&log, 1));
    assert!(a.evicted.size > 0 && a.evicted.size + a.pending == 20_000, "{a:?}");
    assert_eq!((b.evicted.total(), b.delivered), (0, 18_000), "{b:?}");
    let rest = drain(&mut log, 0, ALL);
    assert_eq!(rest.len() as u64 * 20, a.pending);
    assert_eq!(rest.last(), Some(&snapshot(1000, 20)));
}

#[test]
fn what_is_on_loan_when_it_is_evicted_is_settled_by_its_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes: 96 << 10, ..options(dir.path(), &["a"]) };
    let mut log = open(&options);
    for at in 1..=10 {
        append(&mut log, &snapshot(at, 20));
    }
    let lease = log.next(0, ALL).unwrap();
    for at in 11..=1000 {
        append(&mut log, &snapshot(at, 20));
        check(&log);
    }
    let before = ledger(&log, 0);
    assert!(before.evicted.size > 0);
    ack(&mut log, 0, &lease);
    check(&log);
    let after = ledger(&log, 0);
    assert_eq!((after.delivered, after.evicted), (200, before.evicted));
    assert_eq!(before.pending - after.pending, 200);
}

#[test]
fn what_is_on_loan_when_it_is_evicted_and_never_answered_is_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes: 96 << 10, ..options(dir.path(), &["a"]) };
    for restart in [true, false] {
        std::fs::remove_dir_all(&options.dir).ok();
        let mut log = open(&options);
        for at in 1..=10 {
            append(&mut log, &snapshot(at, 20));
        }
        log.next(0, ALL).unwrap();
        for at in 11..=1000 {
            append(&mut log, &snapshot(at, 20));
        }
        let before = ledger(&log, 0);
        if restart {
            drop(log);
            log = open(&options);
        }
        drain(&mut log, 0, ALL);
        check(&log);
        let after = ledger(&log, 0);
        assert_eq!(after.evicted.size, before.evicted.size + 200);
        assert_eq!(after.corrupt, 0);
    }
}

#[test]
fn segments_older_than_max_age_go() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_age: Some(Duration::from_secs(50)), ..options(dir.path(), &["a"]) };
    let mut log = open(&options);
    let start = Instant::now();
    for at in 1..=1000 {
        log.append(snapshot(at, 20), start + Duration::from_secs(u64::from(at))).unwrap();
        check(&log);
        assert!(at > 600 || ledger(&log, 0).evicted.age == 0, "the clock must have been steady for a while");
    }
    let ledger = ledger(&log, 0);
    assert!(ledger.evicted.age > 0 && ledger.evicted.size == 0);
    assert!(ledger.pending >= 50 * 20);
    assert!(log.status().endpoints[0].oldest_pending_at.unwrap() > Timestamp::from_millis(850_000));
    // One stamp from a wrong clock must not cost the backlog.
    log.append(snapshot(9_000_000, 20), start + Duration::from_secs(1001)).unwrap();
    assert_eq!(self::ledger(&log, 0).evicted.age, ledger.evicted.age);
}

#[test]
fn a_snapshot_that_can_never_fit_is_refused_and_costs_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes: 96 << 10, ..options(dir.path(), &["a"]) };
    let mut log = open(&options);
    append(&mut log, &snapshot(1, 20));
    let refused = log.append(snapshot(2, 20_000), Instant::now());
    assert!(matches!(refused, Err(AppendError::TooLarge { samples: 20_000, .. })));
    append(&mut log, &snapshot(3, 20));
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(1, 20), snapshot(3, 20)]);
    check(&log);
    assert_eq!(log.status().append_errors_samples_total, 20_000);
}

#[test]
fn a_tail_torn_at_any_byte_loses_at_most_the_record_being_written() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    append(&mut log, &snapshot(1, 3));
    append(&mut log, &snapshot(2, 3));
    let path = segment_files(&options).remove(0);
    let complete = std::fs::read(&path).unwrap().len();
    append(&mut log, &snapshot(3, 4));
    drop(log);
    let whole = std::fs::read(&path).unwrap();
    let saved = tempfile::tempdir().unwrap();
    copy_dir(&options.dir, saved.path());
    for len in complete..=whole.len() {
        std::fs::remove_dir_all(&options.dir).unwrap();
        copy_dir(saved.path(), &options.dir);
        std::fs::write(&path, &whole[..len]).unwrap();
        let mut log = open(&options);
        check(&log);
        let appended = append(&mut log, &snapshot(9, 2));
        let all = drain(&mut log, 0, ALL);
        assert_eq!(all[..2], [snapshot(1, 3), snapshot(2, 3)], "cut at {len}");
        assert_eq!(all.last(), Some(&snapshot(9, 2)));
        assert_eq!(appended.position.number(), all.len() as u64);
        check(&log);
        assert_eq!(ledger(&log, 0).corrupt, 0);
    }
}

#[test]
fn any_flipped_byte_of_a_closed_segment_costs_at_most_one_record_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    let all: Vec<Snapshot> = (1..=5).map(|at| snapshot(at, 2 + at)).collect();
    for one in &all {
        append(&mut log, one);
    }
    log.close(Instant::now());
    drop(log);
    let path = segment_files(&options).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let saved = tempfile::tempdir().unwrap();
    copy_dir(&options.dir, saved.path());
    for index in 0..whole.len() {
        std::fs::remove_dir_all(&options.dir).unwrap();
        copy_dir(saved.path(), &options.dir);
        let mut bytes = whole.clone();
        bytes[index] ^= 0x41;
        std::fs::write(&path, &bytes).unwrap();
        let mut log = open(&options);
        check(&log);
        let back = drain(&mut log, 0, ONE);
        check(&log);
        let lost: Vec<&Snapshot> = all.iter().filter(|one| !back.contains(one)).collect();
        assert!(lost.len() <= 1, "byte {index}: lost {lost:?}");
        assert!(back.iter().all(|one| all.contains(one)) && back.is_sorted_by_key(|one| one.at));
        let samples: u64 = lost.iter().map(|one| one.samples.len() as u64).sum();
        let ledger = ledger(&log, 0);
        assert_eq!((ledger.corrupt, ledger.pending), (samples, 0), "byte {index}");
    }
}

#[test]
fn a_missing_segment_is_counted_and_those_around_it_are_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    for missing in [0, 2] {
        std::fs::remove_dir_all(&options.dir).ok();
        let mut log = open(&options);
        for at in 1..=200 {
            append(&mut log, &snapshot(at, 20));
        }
        log.close(Instant::now());
        drop(log);
        std::fs::remove_file(&segment_files(&options)[missing]).unwrap();
        let mut log = open(&options);
        check(&log);
        let back = drain(&mut log, 0, ALL);
        check(&log);
        assert!(back.len() > 100);
        assert_eq!(ledger(&log, 0).corrupt, (200 - back.len() as u64) * 20);
    }
}

#[test]
fn what_is_lost_at_the_border_of_two_segments_is_counted_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    let mut log = open(&options);
    for at in 1..=100 {
        append(&mut log, &snapshot(at, 20));
    }
    log.close(Instant::now());
    drop(log);
    // The second file's header, its totals, and its first records.
    let path = segment_files(&options).remove(1);
    let mut bytes = std::fs::read(&path).unwrap();
    let len = bytes.len();
    bytes[..len / 2].fill(0);
    bytes[len - 10..].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let mut log = open(&options);
    check(&log);
    for index in 0..2 {
        let back = drain(&mut log, index, ALL);
        check(&log);
        assert!(back.len() < 100);
        assert_eq!(ledger(&log, index).corrupt, (100 - back.len() as u64) * 20);
    }
}

#[test]
fn lost_cursors_and_notes_cost_duplicates_and_no_sample() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    for at in 1..=10 {
        append(&mut log, &snapshot(at, 3));
    }
    let lease = log.next(0, ONE).unwrap();
    ack(&mut log, 0, &lease);
    drop(log);
    for entry in std::fs::read_dir(&options.dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension != "seg") {
            std::fs::write(path, b"nonsense").unwrap();
        }
    }
    let mut log = open(&options);
    check(&log);
    assert_eq!(drain(&mut log, 0, ALL).len(), 10);
    assert_eq!(append(&mut log, &snapshot(11, 1)).position.number(), 11);
}

#[test]
fn any_content_of_the_directory_opens() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    std::fs::create_dir_all(&options.dir).unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(options.dir.join(name), bytes).unwrap();
    put("0000000000000001.seg", &[]);
    put("0000000000000002.seg", &[0; 9000]);
    put("0000000000000003.seg", &[0xff; 9000]);
    put("3fffffffffffffff.seg", &super::record::MAGIC.repeat(5000));
    put("log.0", &[0xff; 100]);
    put("cursor-a-.1", &[0; 5]);
    put("README", b"not ours");
    for first in ["0000000000000001", "0000000000000006", "3ffffffffffffffe"] {
        std::fs::remove_file(options.dir.join(first).with_extension("seg")).ok();
        std::fs::create_dir(options.dir.join(first).with_extension("seg")).unwrap();
    }
    std::fs::create_dir(options.dir.join("state-x.0")).unwrap();
    let sparse = std::fs::File::create(options.dir.join("0000000000000005.seg")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let mut log = open(&options);
    for at in 1..=3 {
        assert!(append(&mut log, &snapshot(at, 3)).durable);
    }
    assert_eq!(drain(&mut log, 0, ALL).len(), 3);
    check(&log);
    assert!(log.status().tail.unwrap().number() < 100, "a name is no reason to run out of positions");
    assert!(options.dir.join("README").exists());
}

#[test]
fn a_segment_of_a_later_version_or_another_buffer_is_left_alone() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here, there) = (options(dir.path(), &["a"]), options(other.path(), &["a"]));
    let mut log = open(&there);
    append(&mut log, &snapshot(1, 3));
    drop(log);
    drop(open(&here));
    let foreign = here.dir.join(segment_files(&there)[0].file_name().unwrap());
    std::fs::copy(&segment_files(&there)[0], &foreign).unwrap();
    let before = std::fs::read(&foreign).unwrap();
    let mut log = open(&here);
    append(&mut log, &snapshot(5, 3));
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(5, 3)]);
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
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
fn a_directory_that_cannot_be_made_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("v1"), b"a file").unwrap();
    let error = Log::open(RealFs, options(dir.path(), &["a"])).err().unwrap();
    assert!(matches!(&error, OpenError::Unusable { .. }));
    assert!(error.to_string().contains("v1 cannot be used"), "{error}");
}

#[test]
fn a_directory_removed_under_a_running_log_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    append(&mut log, &snapshot(1, 3));
    std::fs::remove_dir_all(&options.dir).unwrap();
    assert!(append(&mut log, &snapshot(2, 3)).durable);
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(2, 3)]);
    check(&log);
    assert_eq!(ledger(&log, 0).corrupt, 3);
}

#[test]
fn states_survive_and_count_towards_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes: 96 << 10, ..options(dir.path(), &["a"]) };
    let mut log = open(&options);
    for at in 1..=1000 {
        append(&mut log, &snapshot(at, 20));
        log.save_state("docker unix:///x", &vec![7; at as usize * 20]).unwrap();
        check(&log);
        assert!(disk_bytes(&options.dir) <= options.max_bytes);
    }
    assert!(log.save_state("docker unix:///x", &vec![8; 200_000]).is_err());
    drop(log);
    let log = open(&options);
    check(&log);
    assert_eq!(log.load_state("docker unix:///x"), Some(vec![7; 20_000]));
    assert_eq!(log.load_state("another"), None);
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
