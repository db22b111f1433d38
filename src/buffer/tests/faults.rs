//! Disks that fail: one operation, every operation of a kind, or for a while.

use super::super::endpoint::Reason;
use super::super::inspect::Inspection;
use super::sim::{EIO, ENOSPC, EROFS};
use super::*;
use faulty::{Fault, FaultyFs, Op};

mod faulty;

fn faulty(options: &LogOptions) -> (FaultyFs, Log<FaultyFs>) {
    let fs = FaultyFs::default();
    let log = Log::open(fs.clone(), options.clone()).unwrap();
    (fs, log)
}

#[test]
fn while_the_disk_is_read_only_samples_are_kept_in_memory_sent_from_there_and_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    let (fs, mut log) = faulty(&options);
    assert!(append(&mut log, &snapshot(1, 5)).durable);
    fs.set(Some(Fault::All { op: Op::Write, errno: EROFS }));
    for at in 2..=5 {
        assert!(!append(&mut log, &snapshot(at, 5)).durable);
        check(&log);
    }
    let status = log.status();
    assert!(status.degraded && status.held_in_memory_samples == 20, "{status:?}");
    assert_eq!(drain(&mut log, 0, ONE).len(), 5, "sending goes on");
    check(&log);

    fs.set(None);
    log.tick(Instant::now() + Duration::from_secs(3600));
    assert!(!log.status().degraded);
    assert!(append(&mut log, &snapshot(6, 5)).durable);
    drop(log);
    let mut log = open(&options);
    check(&log);
    assert_eq!(drain(&mut log, 1, ALL), (1..=6).map(|at| snapshot(at, 5)).collect::<Vec<_>>());
    assert_eq!((ledger(&log, 1).delivered, ledger(&log, 0).appended), (30, 30));
}

#[test]
fn what_memory_cannot_hold_is_evicted_oldest_first_and_stays_counted_as_that() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { ring_bytes: 3000, ..options(dir.path(), &BOTH) };
    let (fs, mut log) = faulty(&options);
    append(&mut log, &snapshot(1, 5));
    fs.set(Some(Fault::All { op: Op::Write, errno: EROFS }));
    for at in 2..=10 {
        append(&mut log, &snapshot(at, 5));
    }
    let lease = log.next(0, ALL).unwrap();
    for at in 11..=50 {
        append(&mut log, &snapshot(at, 5));
        check(&log);
    }
    let memory = ledger(&log, 1).evicted.memory;
    assert!(memory > 100, "{memory}");
    ack(&mut log, 0, &lease);
    check(&log);
    assert_eq!(ledger(&log, 0).delivered, 50, "what was on loan when it was dropped was delivered after all");

    fs.set(None);
    log.tick(Instant::now() + Duration::from_secs(3600));
    check(&log);
    assert!(!log.status().degraded);
    drop(log);
    let mut log = open(&options);
    check(&log);
    let ledger_of_b = ledger(&log, 1);
    assert_eq!((ledger_of_b.evicted.memory, ledger_of_b.corrupt), (memory, 0));
    let rest = drain(&mut log, 1, ALL);
    assert_eq!(rest.len() as u64 * 5, 250 - memory);
    assert_eq!(rest.last(), Some(&snapshot(50, 5)));
    check(&log);
    assert_eq!(ledger(&log, 1).evicted.memory, memory);
}

#[test]
fn a_failed_sync_is_never_repeated_on_the_same_file_and_its_record_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { sync: SyncPolicy::Always, ..options(dir.path(), &["a"]) };
    let (fs, mut log) = faulty(&options);
    append(&mut log, &snapshot(1, 5));
    let first = segment_files(&options);
    // links is not gated; the write is operation 1, the sync operation 2.
    fs.set(Some(Fault::Nth { nth: 2, errno: EIO }));
    assert!(append(&mut log, &snapshot(2, 5)).durable);
    assert_ne!(segment_files(&options), first);
    append(&mut log, &snapshot(3, 5));
    drop(log);
    assert_eq!(fs.synced_after_failure.load(Ordering::Relaxed), 0);
    let mut log = open(&options);
    check(&log);
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(1, 5), snapshot(2, 5), snapshot(3, 5)]);
    assert_eq!(ledger(&log, 0).appended, 15);
}

#[test]
fn what_a_failed_sync_by_the_timer_may_have_lost_is_written_to_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let sync = SyncPolicy::Interval(Duration::from_secs(5));
    let options = LogOptions { sync, ..options(dir.path(), &["a", "b"]) };
    let (fs, mut log) = faulty(&options);
    let start = Instant::now();
    for at in 1..=3 {
        log.append(snapshot(at, 5), start).unwrap();
    }
    log.tick(start + Duration::from_secs(6));
    let covered = segment_files(&options);
    for at in 4..=6 {
        log.append(snapshot(at, 5), start + Duration::from_secs(7)).unwrap();
    }
    let lease = log.next(0, Limits { instants_max: 5, ..ALL }).unwrap();
    ack(&mut log, 0, &lease);
    fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
    log.tick(start + Duration::from_secs(60));
    fs.set(None);
    log.append(snapshot(7, 5), start + Duration::from_secs(61)).unwrap();
    check(&log);
    assert_eq!(fs.synced_after_failure.load(Ordering::Relaxed), 0);
    let files = segment_files(&options);
    assert!(files.len() == 2 && files[0] == covered[0], "{files:?}");
    // What the failed sync may have lost is not in the old file any more: a power cut takes it from there.
    std::fs::remove_file(&files[1]).unwrap();
    drop(log);
    let mut log = open(&options);
    assert_eq!(drain(&mut log, 1, ALL), (1..=3).map(|at| snapshot(at, 5)).collect::<Vec<_>>());
    check(&log);
}

#[test]
fn after_a_failed_sync_every_endpoint_gets_every_record_once_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let sync = SyncPolicy::Interval(Duration::from_secs(5));
    let options = LogOptions { sync, ..options(dir.path(), &["a", "b"]) };
    for takes_none in [false, true] {
        std::fs::remove_dir_all(&options.dir).ok();
        let (fs, mut log) = faulty(&options);
        let start = Instant::now();
        for at in 1..=200 {
            let now = start + Duration::from_secs(u64::from(at) * 3);
            let fails = at % 20 == 0;
            let op = if takes_none { Op::Write } else { Op::Sync };
            log.append(snapshot(at, 5), now).unwrap();
            fs.set(fails.then_some(Fault::All { op: Op::Sync, errno: EIO }));
            if fails {
                log.tick(now + Duration::from_secs(2));
                fs.set(Some(Fault::All { op, errno: EIO }));
                log.tick(now + Duration::from_secs(2));
            }
            fs.set(None);
            if at % 7 == 0 {
                let lease = log.next(0, Limits { instants_max: 6, ..ALL }).unwrap();
                ack(&mut log, 0, &lease);
            }
            check(&log);
        }
        log.tick(start + Duration::from_secs(7200));
        let all: Vec<_> = (1..=200).map(|at| snapshot(at, 5)).collect();
        assert_eq!(drain(&mut log, 1, ALL), all);
        let rest = drain(&mut log, 0, ALL);
        assert_eq!(rest, all[200 - rest.len()..]);
        assert_eq!((ledger(&log, 0).delivered, ledger(&log, 0).corrupt), (1000, 0));
    }
}

#[test]
fn a_full_segment_on_a_disk_that_never_syncs_costs_memory_and_no_append_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let sync = SyncPolicy::Interval(Duration::from_secs(3600));
    let options = LogOptions { sync, ..options(dir.path(), &["a"]) };
    let (fs, mut log) = faulty(&options);
    fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
    let all: Vec<_> = (1..=50).map(|at| snapshot(at, 20)).collect();
    let durable = all.iter().filter(|one| append(&mut log, one).durable).count();
    check(&log);
    assert!(log.status().degraded && durable > 0, "{durable}");

    fs.set(None);
    log.tick(Instant::now() + Duration::from_secs(60));
    check(&log);
    assert!(!log.status().degraded);
    assert_eq!(ledger(&log, 0).pending, 1000);
    assert_eq!(drain(&mut log, 0, ALL), all);
}

#[test]
fn what_was_in_doubt_in_a_file_that_is_gone_is_not_looked_for_in_the_next() {
    let sync = SyncPolicy::Interval(Duration::from_secs(5));
    let start = Instant::now();
    for evicted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { sync, ..options(dir.path(), &["a"]) };
        let (fs, mut log) = faulty(&options);
        for at in 1..=5 {
            log.append(snapshot(at, 5), start).unwrap();
        }
        if evicted {
            assert!(log.evict_oldest(Reason::Size).unwrap());
        } else {
            std::fs::remove_dir_all(&options.dir).unwrap();
        }
        log.append(snapshot(6, 5), start).unwrap();
        fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
        log.tick(start + Duration::from_secs(60));
        check(&log);
        fs.set(None);
        log.tick(start + Duration::from_secs(120));
        let gone = ledger(&log, 0);
        assert_eq!((gone.corrupt + gone.evicted.size, gone.pending), (25, 5), "{gone:?}");
        assert_eq!(drain(&mut log, 0, ALL), [snapshot(6, 5)]);
        check(&log);
    }
}

#[test]
fn a_record_found_damaged_while_it_is_in_doubt_is_pending_again_when_it_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let sync = SyncPolicy::Interval(Duration::from_secs(5));
    let options = LogOptions { sync, ..options(dir.path(), &BOTH) };
    let (fs, mut log) = faulty(&options);
    let start = Instant::now();
    for at in 1..=4 {
        log.append(snapshot(at, 5), start).unwrap();
    }
    let file = segment_files(&options).remove(0);
    let len = std::fs::metadata(&file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(len / 2).unwrap();
    drain(&mut log, 0, ALL);
    assert!(ledger(&log, 1).corrupt > 0);
    fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
    log.tick(start + Duration::from_secs(60));
    fs.set(None);
    check(&log);
    assert_eq!(drain(&mut log, 1, ALL), (1..=4).map(|at| snapshot(at, 5)).collect::<Vec<_>>());
    check(&log);
    assert_eq!(ledger(&log, 1).corrupt, 0);
}

#[test]
fn what_memory_dropped_is_still_told_from_damage_after_its_record_was_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let sync = SyncPolicy::Interval(Duration::from_secs(5));
    let options = LogOptions { sync, ring_bytes: 3000, ..options(dir.path(), &["a"]) };
    let (fs, mut log) = faulty(&options);
    let start = Instant::now();
    log.append(snapshot(1, 5), start).unwrap();
    fs.set(Some(Fault::All { op: Op::Write, errno: EROFS }));
    for at in 2..=50 {
        log.append(snapshot(at, 5), start).unwrap();
    }
    let memory = ledger(&log, 0).evicted.memory;
    assert!(memory > 0);
    fs.set(None);
    log.drain_ring(start);
    fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
    log.sync_dirty(start);
    fs.set(None);
    drain(&mut log, 0, ALL);
    check(&log);
    let ledger = ledger(&log, 0);
    assert_eq!((ledger.evicted.memory, ledger.corrupt), (memory, 0), "{ledger:?}");
}

#[test]
fn short_of_disk_the_buffer_replaces_what_it_has_and_does_not_grow_and_grows_again_later() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { min_free: Some(1 << 20), ..options(dir.path(), &["a"]) };
    let (fs, mut log) = faulty(&options);
    for at in 1..=400 {
        append(&mut log, &snapshot(at, 20));
    }
    assert_eq!(ledger(&log, 0).evicted, Evicted::default());
    *fs.space.lock().unwrap() = Some(Space { free_bytes: 1 << 19, total_bytes: 1 << 30 });
    log.tick(Instant::now() + Duration::from_secs(60));
    assert!(log.status().short_of_disk);
    let used = log.status().used_bytes;
    for at in 401..=800 {
        append(&mut log, &snapshot(at, 20));
        assert!(log.status().used_bytes <= used);
        check(&log);
    }
    let evicted = ledger(&log, 0).evicted;
    assert!(evicted.disk > 0 && evicted.total() == evicted.disk, "{evicted:?}");
    assert!(ledger(&log, 0).pending > 200 * 20, "what is here already is replaced, not given back");

    *fs.space.lock().unwrap() = Some(Space { free_bytes: 1 << 29, total_bytes: 1 << 30 });
    log.tick(Instant::now() + Duration::from_secs(120));
    assert!(!log.status().short_of_disk);
    for at in 801..=1200 {
        append(&mut log, &snapshot(at, 20));
    }
    assert!(log.status().used_bytes > used);
    assert_eq!(ledger(&log, 0).evicted, evicted);
}

#[test]
fn on_a_file_system_without_any_room_to_spare_the_buffer_still_has_its_floor() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { min_free: None, ..options(dir.path(), &["a"]) };
    let (fs, mut log) = faulty(&options);
    *fs.space.lock().unwrap() = Some(Space { free_bytes: 1 << 10, total_bytes: 1 << 20 });
    for at in 1..=400 {
        append(&mut log, &snapshot(at, 20));
    }
    check(&log);
    assert!(log.status().segments >= 3, "{}", log.status().segments);
    assert!(ledger(&log, 0).evicted.disk > 0);
}

#[test]
fn errors_are_counted_by_what_was_done_and_by_the_system_s_name() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, mut log) = faulty(&options(dir.path(), &["a"]));
    append(&mut log, &snapshot(1, 5));
    fs.set(Some(Fault::All { op: Op::Write, errno: EROFS }));
    append(&mut log, &snapshot(2, 5));
    let errors = log.status().io_errors;
    assert!(errors.iter().any(|e| (e.operation, e.errno) == (Operation::Write, "EROFS") && e.count > 0), "{errors:?}");
}

#[test]
fn whatever_kind_of_operation_fails_for_good_sampling_goes_on_and_all_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    for op in [Op::Write, Op::Sync, Op::Other] {
        let options = LogOptions { sync: SyncPolicy::Always, ..options(dir.path(), &["a"]) };
        std::fs::remove_dir_all(&options.dir).ok();
        let (fs, mut log) = faulty(&options);
        append(&mut log, &snapshot(1, 5));
        fs.set(Some(Fault::All { op, errno: EIO }));
        let mut now = Instant::now();
        for at in 2..=20 {
            now += Duration::from_secs(10);
            log.append(snapshot(at, 5), now).unwrap();
            log.tick(now);
            check(&log);
        }
        fs.set(None);
        log.tick(now + Duration::from_secs(3600));
        assert!(!log.status().degraded, "{op:?}");
        assert_eq!(log.ring.retry_at(), None);
        drop(log);
        let mut log = open(&options);
        check(&log);
        assert_eq!(drain(&mut log, 0, ALL), (1..=20).map(|at| snapshot(at, 5)).collect::<Vec<_>>(), "{op:?}");
    }
}

#[test]
fn a_record_that_stands_in_two_files_is_given_out_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { sync: SyncPolicy::Always, ..options(dir.path(), &["a"]) };
    let (fs, mut log) = faulty(&options);
    append(&mut log, &snapshot(1, 5));
    append(&mut log, &snapshot(2, 7));
    let first = segment_files(&options).remove(0);
    let with_both = std::fs::read(&first).unwrap();
    drop(log);
    std::fs::remove_dir_all(&options.dir).unwrap();
    drop(fs);

    // The same again, but the second record's sync fails and its file cannot be cut back.
    let (fs, mut log) = faulty(&options);
    append(&mut log, &snapshot(1, 5));
    fs.set(Some(Fault::Nth { nth: 2, errno: EIO }));
    append(&mut log, &snapshot(2, 7));
    append(&mut log, &snapshot(3, 5));
    let store_id = log.store_id;
    drop(log);
    let file = segment_files(&options).remove(0);
    let cut = std::fs::read(&file).unwrap();
    // Bytes of another store do not validate, so the doubled record is made with this one's id.
    assert!(with_both.len() > cut.len());
    let mut twin = Log::open(RealFs, LogOptions { dir: dir.path().join("twin"), ..options.clone() }).unwrap();
    twin.store_id = store_id;
    append(&mut twin, &snapshot(1, 5));
    append(&mut twin, &snapshot(2, 7));
    drop(twin);
    std::fs::copy(dir.path().join("twin").join(file.file_name().unwrap()), &file).unwrap();

    let mut log = open(&options);
    check(&log);
    assert_eq!(drain(&mut log, 0, ONE), [snapshot(1, 5), snapshot(2, 7), snapshot(3, 5)]);
    let ledger = ledger(&log, 0);
    assert_eq!((ledger.appended, ledger.corrupt), (17, 0));
}

#[test]
fn a_disk_that_others_fill_is_waited_for_in_memory_and_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let (fs, mut log) = faulty(&options);
    for at in 1..=200 {
        append(&mut log, &snapshot(at, 20));
    }
    fs.set(Some(Fault::Nth { nth: 1, errno: ENOSPC }));
    assert!(!append(&mut log, &snapshot(201, 20)).durable);
    check(&log);
    assert_eq!(ledger(&log, 0).evicted.total(), 0);
    let all: Vec<Snapshot> = (1..=201).map(|at| snapshot(at, 20)).collect();
    assert_eq!(drain(&mut log, 0, ALL), all);
}

#[test]
fn when_memory_runs_short_too_the_oldest_segment_goes_and_not_the_newest_sample() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let (fs, mut log) = faulty(&options);
    for at in 1..=200 {
        append(&mut log, &snapshot(at, 20));
    }
    fs.set(Some(Fault::All { op: Op::Write, errno: ENOSPC }));
    for at in 201..=235 {
        append(&mut log, &snapshot(at, 20));
    }
    fs.set(Some(Fault::Nth { nth: 1, errno: ENOSPC }));
    log.tick(Instant::now() + Duration::from_secs(60));
    check(&log);
    let evicted = ledger(&log, 0).evicted;
    assert!(evicted.disk > 0 && evicted.memory == 0, "{evicted:?}");
    let rest = drain(&mut log, 0, ALL);
    assert_eq!(rest.last(), Some(&snapshot(235, 20)));
    assert_eq!(ledger(&log, 0).corrupt, 0);
}

#[test]
fn what_cannot_be_read_is_counted_once_and_what_follows_is_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    let (fs, mut log) = faulty(&options);
    for at in 1..=100 {
        append(&mut log, &snapshot(at, 20));
    }
    fs.set(Some(Fault::All { op: Op::Read, errno: EIO }));
    assert_eq!(log.next(0, ALL), None);
    check(&log);
    assert_eq!(ledger(&log, 0).corrupt, 2000);
    fs.set(None);
    append(&mut log, &snapshot(101, 20));
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(101, 20)]);
    assert_eq!(drain(&mut log, 1, ALL), [snapshot(101, 20)], "counted for both, so given to neither");
    check(&log);
}

#[test]
fn the_interval_sync_is_due_after_the_interval_even_when_nothing_else_happens() {
    let dir = tempfile::tempdir().unwrap();
    let sync = SyncPolicy::Interval(Duration::from_secs(10));
    let mut log = open(&LogOptions { sync, ..options(dir.path(), &["a"]) });
    log.sync_dirty(Instant::now());
    let before = log.status().syncs.count;
    assert_eq!(log.dirty_since, None);
    append(&mut log, &snapshot(1, 5));
    let due = log.deadline().unwrap();
    log.tick(due.checked_sub(Duration::from_millis(1)).unwrap());
    assert_eq!(log.status().syncs.count, before);
    log.tick(due);
    assert_eq!(log.status().syncs.count, before + 1);
    assert_eq!(log.dirty_since, None);
}

#[test]
fn totals_that_could_not_be_written_at_the_end_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (fs, mut log) = faulty(&options(dir.path(), &["a"]));
    append(&mut log, &snapshot(1, 5));
    fs.set(Some(Fault::Nth { nth: 1, errno: ENOSPC }));
    log.close(Instant::now());
    drop(log);
    let seen = Inspection::open(dir.path()).unwrap();
    assert_eq!((seen.was_closed, seen.segments[0].is_sealed), (Some(true), false));
    assert!(seen.verify(&mut |_, _| ()).damages.is_empty());
}

#[test]
fn a_bad_place_of_the_disk_is_left_for_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    for sync in [SyncPolicy::Always, SyncPolicy::Interval(Duration::from_secs(20)), SyncPolicy::Never] {
        let options = LogOptions { dir: options.dir.join(format!("{sync:?}")), sync, ..options.clone() };
        let (fs, mut log) = faulty(&options);
        append(&mut log, &snapshot(1, 5));
        fs.set(Some(Fault::All { op: Op::Write, errno: EIO }));
        assert!(!append(&mut log, &snapshot(2, 5)).durable);
        fs.set(None);
        log.tick(Instant::now() + Duration::from_secs(3600));
        assert!(append(&mut log, &snapshot(3, 5)).durable);
        assert_eq!(segment_files(&options).len(), 2, "{sync:?}");
        assert_eq!(drain(&mut log, 0, ALL), [snapshot(1, 5), snapshot(2, 5), snapshot(3, 5)]);
    }
}

#[test]
fn what_the_directory_itself_takes_is_part_of_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes: 128 << 10, ..options(dir.path(), &["a"]) };
    let fs = FaultyFs::default();
    *fs.dir_len.lock().unwrap() = Some(36_864);
    let mut log = Log::open(fs, options.clone()).unwrap();
    for at in 1..=2000 {
        append(&mut log, &snapshot(at, 20));
        check(&log);
    }
    let files = disk_bytes(&options.dir) - super::super::log::blocks(std::fs::metadata(&options.dir).unwrap().len());
    assert!(ledger(&log, 0).evicted.size > 0);
    assert!(files + 36_864 <= options.max_bytes, "{files}");
}
