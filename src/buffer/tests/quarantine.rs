//! What a receiver will never take: kept, bounded, and sent again when somebody says so.

use super::super::quarantine::{AGAIN, DIR_NAME, RESTING, read};
use super::*;

fn verdict(fault: Fault) -> Verdict {
    let text = "out of order sample".to_owned();
    Verdict { fault, status: Some(400), text, at: Timestamp::from_millis(77) }
}

fn refuse(log: &mut Log<RealFs>, index: usize, snapshot: &Snapshot) {
    let lease = log.next(index, ONE).unwrap();
    assert_eq!(&lease.snapshots[0], snapshot);
    log.quarantine(index, &lease.snapshots, &verdict(Fault::Refused));
    log.ack(index, lease.through.number(), Fates { refused: lease.samples, ..Fates::default() });
    check(log);
}

/// So many snapshots, each refused by the receiver of the first endpoint.
fn append_refused(log: &mut Log<RealFs>, count: u32) {
    for at in 1..=count {
        append(log, &snapshot(at, 20));
        refuse(log, 0, &snapshot(at, 20));
    }
}

fn files(options: &LogOptions) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(options.dir.join(DIR_NAME)) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn refused_samples_are_kept_with_what_the_receiver_said() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { sync: SyncPolicy::Always, ..options(dir.path(), &BOTH) };
    let mut log = open(&options);
    append(&mut log, &snapshot(1, 20));
    refuse(&mut log, 1, &snapshot(1, 20));
    let file = files(&options).remove(0);
    assert!(file.to_str().unwrap().ends_with(RESTING));
    let found = read(&RealFs, &file).unwrap().unwrap();
    assert_eq!((found.endpoint.as_str(), found.samples), ("b", 20));
    assert_eq!((found.verdict, found.snapshots), (verdict(Fault::Refused), vec![snapshot(1, 20)]));
    let status = log.status().quarantine;
    assert_eq!((status.files, status.added_samples_total, status.bytes), (1, 20, 4096));
    assert_eq!(ledger(&log, 1).refused, 20);
}

#[test]
fn what_is_renamed_is_sent_again_and_moves_in_the_account_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    let mut log = open(&options);
    append_refused(&mut log, 3);
    assert_eq!(log.requeued(0), None);
    for file in &files(&options)[..2] {
        std::fs::rename(file, file.to_str().unwrap().replace(RESTING, AGAIN)).unwrap();
    }
    log.tick(Instant::now() + Duration::from_secs(60));
    assert_eq!(log.status().endpoints[0].requeued, 2);
    assert_eq!(log.requeued(1), None, "it was not b's receiver that refused them");
    let first = log.requeued(0).unwrap();
    assert_eq!((&first.snapshots, first.samples), (&vec![snapshot(1, 20)], 20));
    assert_eq!(log.requeued(0), Some(first.clone()), "reading is not consuming");
    drop(log);

    let mut log = open(&options);
    let again = log.requeued(0).unwrap();
    assert_eq!(again, first);
    log.settle_requeued(0, &again.id, Fates { delivered: 15, refused: 4, expired: 1, ..Fates::default() });
    check(&log);
    let account = ledger(&log, 0);
    assert_eq!((account.delivered, account.refused, account.expired), (15, 44, 1));
    assert_eq!(log.requeued(0).unwrap().snapshots, [snapshot(2, 20)]);
    assert_eq!(files(&options).len(), 2);
    drop(log);
    assert_eq!(ledger(&open(&options), 0), account);
}

#[test]
fn the_quarantine_is_bounded_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    for at in 1..=100 {
        append(&mut log, &snapshot(at, 20));
        refuse(&mut log, 0, &snapshot(at, 20));
        let used: u64 = files(&options).iter().map(|file| file.metadata().unwrap().len().div_ceil(4096) * 4096).sum();
        assert_eq!(log.status().quarantine.bytes, used);
        assert!(used <= options.max_bytes / 16);
    }
    let status = log.status().quarantine;
    assert_eq!(status.added_samples_total - status.dropped_samples_total, status.files as u64 * 20);
    assert_eq!(read(&RealFs, files(&options).last().unwrap()).unwrap().unwrap().snapshots, [snapshot(100, 20)]);
    assert_eq!(ledger(&log, 0).refused, 2000);
}

#[test]
fn a_refusal_never_takes_room_from_what_may_still_be_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes: 128 << 10, ..options(dir.path(), &BOTH) };
    let mut log = open(&options);
    for at in 1..=2000 {
        append(&mut log, &snapshot(at, 20));
    }
    let before = ledger(&log, 1);
    for _ in 0..20 {
        let lease = log.next(0, ONE).unwrap();
        log.quarantine(0, &lease.snapshots, &verdict(Fault::Poisoned));
        log.ack(0, lease.through.number(), Fates { refused: lease.samples, ..Fates::default() });
        assert!(log.used_bytes() <= options.max_bytes);
    }
    assert_eq!(ledger(&log, 1), before);
}

#[test]
fn damage_in_the_quarantine_costs_only_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    append(&mut log, &snapshot(1, 20));
    refuse(&mut log, 0, &snapshot(1, 20));
    let file = files(&options).remove(0);
    let whole = std::fs::read(&file).unwrap();
    let again = std::path::PathBuf::from(file.to_str().unwrap().replace(RESTING, AGAIN));
    std::fs::remove_file(&file).unwrap();
    drop(log);
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&again, bytes).unwrap();
        let mut log = open(&options);
        if let Some(requeued) = log.requeued(0) {
            assert_eq!(requeued.snapshots, [snapshot(1, 20)], "byte {at}");
        }
        append(&mut log, &snapshot(2, 3));
        drain(&mut log, 0, ALL);
        check(&log);
    }
}

#[test]
fn a_damaged_file_that_is_to_be_sent_again_keeps_no_other_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    append_refused(&mut log, 2);
    for (index, file) in files(&options).iter().enumerate() {
        let again = file.to_str().unwrap().replace(RESTING, AGAIN);
        std::fs::rename(file, &again).unwrap();
        if index == 0 {
            alter(Path::new(&again), |bytes| bytes[200..].fill(0));
        }
    }
    for minutes in 1..3 {
        log.tick(Instant::now() + Duration::from_secs(60 * minutes));
        assert_eq!(log.requeued(0).unwrap().snapshots, [snapshot(2, 20)]);
        assert_eq!(log.status().endpoints[0].requeued, 1);
    }
}

#[test]
fn nothing_is_removed_from_the_quarantine_for_what_does_not_fit_even_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    append_refused(&mut log, 3);
    let mut at = 4;
    while ledger(&log, 0).evicted.size == 0 || log.status().used_bytes + (3 << 12) <= options.max_bytes {
        append(&mut log, &snapshot(at, 60));
        at += 1;
    }
    let lease = log.next(0, Limits { instants_max: 30, samples_max: usize::MAX }).unwrap();
    let large: Vec<Snapshot> = (0..12).flat_map(|_| lease.snapshots.clone()).collect();
    log.quarantine(0, &large, &verdict(Fault::Refused));
    assert_eq!(log.status().quarantine.files, 3);
}

#[test]
fn under_a_lower_bound_the_quarantine_keeps_its_own_before_anything_is_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    let mut log = open(&options);
    append_refused(&mut log, 16);
    assert_eq!(log.status().quarantine.files, 16);
    for at in 17..=400 {
        append(&mut log, &snapshot(at, 20));
    }
    let lower = LogOptions { max_bytes: log.used_bytes() - (10 << 12), ..options };
    log.close(Instant::now());
    drop(log);
    let mut log = open(&lower);
    check(&log);
    let status = log.status().quarantine;
    assert!(status.bytes <= lower.max_bytes / 16 && status.files > 0, "{status:?}");
    assert_eq!(status.dropped_samples_total, (16 - status.files as u64) * 20);
    assert_eq!(files(&lower).len(), status.files);
    assert_eq!(read(&RealFs, files(&lower).last().unwrap()).unwrap().unwrap().snapshots, [snapshot(16, 20)]);
    assert_eq!(ledger(&log, 1).evicted, Evicted::default());
    assert_eq!(drain(&mut log, 1, ALL).len(), 400);
}

#[test]
fn more_files_than_the_quarantine_may_hold_are_all_counted_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes: 64 << 20, ..options(dir.path(), &["a"]) };
    let mut log = open(&options);
    append(&mut log, &snapshot(1, 20));
    refuse(&mut log, 0, &snapshot(1, 20));
    drop(log);
    let first = files(&options).remove(0);
    for tag in 1..=100 {
        std::fs::copy(&first, first.with_file_name(format!("{:016x}-{tag:08x}{RESTING}", 7))).unwrap();
    }
    let log = open(&options);
    let status = log.status().quarantine;
    assert_eq!((status.files, files(&options).len(), status.bytes), (64, 64, 64 << 12));
    assert!(!first.exists(), "the oldest");
}

#[test]
fn a_snapshot_that_fits_only_without_the_quarantine_is_kept_instead_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    append_refused(&mut log, 10);
    let kept = log.status().quarantine.files;
    append(&mut log, &snapshot(99, 3000));
    // As small as a buffer may be for that snapshot, but for one block of the quarantine.
    let alone = segment_files(&options).last().unwrap().metadata().unwrap().len();
    log.options.max_bytes = log.used_without_segments() + super::super::log::blocks(alone) - 4096;
    let lease = log.next(0, ALL).unwrap();
    ack(&mut log, 0, &lease);
    append(&mut log, &snapshot(100, 3000));
    check(&log);
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(100, 3000)]);
    let left = log.status().quarantine.files;
    assert!(left > 0 && left < kept, "{left} of {kept}");
}
