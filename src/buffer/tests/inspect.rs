//! A directory seen from outside, against what the log makes of it.

use std::collections::BTreeMap;

use super::super::inspect::{DamageKind, Inspection};
use super::sim::Rng;
use super::*;

/// Files that were damaged at random, one way or several.
fn damage(dir: &Path, rng: &mut Rng) {
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| !path.ends_with("lock"));
    paths.sort();
    for _ in 0..=rng.below(4) {
        let path = &paths[rng.below(paths.len())];
        let Ok(mut bytes) = std::fs::read(path) else { continue };
        match rng.below(4) {
            0 => drop(std::fs::remove_file(path)),
            1 => std::fs::write(path, &bytes[..rng.below(bytes.len())]).unwrap(),
            2 => {
                // Its header and its totals: what is left of it may say less than its neighbours know.
                let len = bytes.len();
                bytes[..len / 2].fill(0);
                bytes[len - 20.min(len)..].fill(0);
                std::fs::write(path, bytes).unwrap();
            }
            _ => {
                let bit = rng.below(bytes.len().max(1) * 8);
                let Some(byte) = bytes.get_mut(bit / 8) else { continue };
                *byte ^= 1 << (bit % 8);
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

fn accounts(endpoints: &[EndpointStatus]) -> BTreeMap<String, (Ledger, Position, Option<Timestamp>)> {
    let account = |endpoint: &EndpointStatus| {
        (endpoint.name.clone(), (endpoint.ledger, endpoint.acked, endpoint.oldest_pending_at))
    };
    endpoints.iter().map(account).collect()
}

#[test]
fn whatever_happened_to_its_files_a_look_from_outside_tells_the_account_the_log_will_tell() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here, there) = (options(dir.path(), &BOTH), options(copy.path(), &BOTH));
    let mut log = open(&here);
    for at in 1..=120 {
        append(&mut log, &snapshot(at, 20));
    }
    for index in 0..2 {
        let lease = log.next(index, Limits { instants_max: 5 + 40 * index, ..ALL }).unwrap();
        ack(&mut log, index, &lease);
    }
    drop(log);
    let mut compared = 0;
    for seed in 0..300 {
        std::fs::remove_dir_all(&there.dir).ok();
        copy_dir(&here.dir, &there.dir);
        damage(&there.dir, &mut Rng(seed));
        let seen = accounts(&Inspection::open(copy.path()).unwrap().endpoints);
        let log = open(&there);
        check(&log);
        let mut told = accounts(&log.status().endpoints);
        // An endpoint of which both files are gone is none that could be seen.
        told.retain(|name, _| seen.contains_key(name));
        assert_eq!(seen, told, "seed {seed}");
        compared += told.len();
    }
    assert!(compared > 300, "{compared}");
}

#[test]
fn a_cursor_that_contradicts_the_segments_is_not_believed_from_outside_either() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options_here = options(dir.path(), &["a"]);
    let mut log = open(&options_here);
    append(&mut log, &snapshot(1, 20));
    drop(log);
    copy_dir(&options_here.dir, &other.path().join("v1"));
    let there = options(other.path(), &["a"]);
    // The same position with other samples before it: two logs that share a store's id.
    let mut log = open(&there);
    append(&mut log, &snapshot(2, 7));
    append(&mut log, &snapshot(3, 7));
    drain(&mut log, 0, ALL);
    drop(log);
    let mut log = open(&options_here);
    append(&mut log, &snapshot(2, 300));
    append(&mut log, &snapshot(3, 300));
    drop(log);
    for entry in std::fs::read_dir(&there.dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("cursor-") {
            std::fs::copy(&path, options_here.dir.join(name)).unwrap();
        }
    }
    let seen = Inspection::open(dir.path()).unwrap();
    let ledger = seen.endpoint("a").unwrap().ledger;
    assert_eq!((ledger.delivered, ledger.pending), (0, 620));
    assert!(ledger.balances());
}

/// Keeps the next segment from being made: a directory has its name. Cursors and notes are written all the same, as on a
/// full disk.
fn block_the_next_segment<F: Fs>(log: &Log<F>) -> std::path::PathBuf {
    let path = log.segment_path(log.next_place().seq + 1);
    std::fs::create_dir(&path).unwrap();
    path
}

#[test]
fn what_was_in_memory_when_a_process_ended_is_told_as_that_and_not_as_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    append_and_close(&options, [snapshot(1, 5)]);
    let mut log = open(&options);
    let blocked = block_the_next_segment(&log);
    assert!(!append(&mut log, &snapshot(2, 5)).durable);
    assert!(!append(&mut log, &snapshot(3, 5)).durable);
    let lease = log.next(1, Limits { instants_max: 2, ..ALL }).unwrap();
    ack(&mut log, 1, &lease);
    log.close(Instant::now());
    let lost = |ledger: Ledger| (ledger.appended, ledger.pending, ledger.evicted.memory, ledger.corrupt);
    assert_eq!((lost(ledger(&log, 0)), lost(ledger(&log, 1))), ((15, 5, 10, 0), (15, 0, 5, 0)));
    drop(log);
    std::fs::remove_dir(&blocked).unwrap();

    let seen = Inspection::open(dir.path()).unwrap();
    assert_eq!(
        (lost(seen.endpoint("a").unwrap().ledger), lost(seen.endpoint("b").unwrap().ledger)),
        ((15, 5, 10, 0), (15, 0, 5, 0))
    );
    assert_eq!(seen.verify(&mut |_, _| ()).damages, []);
    let mut log = open(&options);
    assert_eq!(log.status().damage_found_total, 0);
    let beside_it = Inspection::open(dir.path()).unwrap();
    assert_eq!(beside_it.endpoint("a").unwrap().ledger, ledger(&log, 0));
    append(&mut log, &snapshot(4, 5));
    drop(log);
    let mut log = open(&options);
    check(&log);
    assert_eq!((lost(ledger(&log, 0)), lost(ledger(&log, 1))), ((20, 10, 10, 0), (20, 5, 5, 0)));
    assert_eq!(Inspection::open(dir.path()).unwrap().verify(&mut |_, _| ()).damages, []);
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(1, 5), snapshot(4, 5)]);
    drop(log);
    assert_eq!(lost(ledger(&open(&options), 0)), (20, 0, 10, 0));
}

/// What a verification finds in `dir`: file, kind and samples lost.
fn damages(dir: &Path) -> Vec<(String, DamageKind, u64)> {
    let damages = Inspection::open(dir).unwrap().verify(&mut |_, _| ()).damages;
    damages.into_iter().map(|damage| (damage.file, damage.kind, damage.samples)).collect()
}

#[test]
fn the_oldest_segment_missing_is_found_where_every_endpoint_waited_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    let mut log = open(&options);
    for at in 1..=120 {
        append(&mut log, &snapshot(at, 20));
    }
    let lease = log.next(1, ONE).unwrap();
    ack(&mut log, 1, &lease);
    drop(log);
    assert_eq!(damages(dir.path()), []);
    let files = segment_files(&options);
    assert!(files.len() > 2);
    std::fs::remove_file(&files[0]).unwrap();
    let first = Inspection::open(dir.path()).unwrap().segments[0].clone();
    let gone = (first.positions.0 - 1) * 20;
    assert_eq!(damages(dir.path()), [(first.name, DamageKind::Missing, gone)]);
    let waited_for = Inspection::open(dir.path()).unwrap().waited_for;
    assert_eq!(waited_for, [("a".to_owned(), gone), ("b".to_owned(), gone - 20)]);

    let mut log = open(&options);
    assert_eq!((ledger(&log, 0).corrupt, ledger(&log, 1).corrupt), (gone, gone - 20));
    drain(&mut log, 1, ALL);
    drop(log);
    assert_eq!(damages(dir.path()), [], "the loss is on record now");
}

#[test]
fn what_went_while_an_endpoint_was_not_configured_was_dropped_on_purpose_and_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let both = options(dir.path(), &BOTH);
    append_and_close(&both, [snapshot(1, 20)]);
    let mut log = open(&options(dir.path(), &["a"]));
    drain(&mut log, 0, ALL);
    append(&mut log, &snapshot(2, 20));
    drain(&mut log, 0, ALL);
    log.close(Instant::now());
    drop(log);
    let mut log = open(&options(dir.path(), &["a"]));
    append(&mut log, &snapshot(3, 20));
    drop(log);
    let seen = Inspection::open(dir.path()).unwrap();
    let b = &seen.endpoint("b").unwrap().ledger;
    assert_eq!((b.appended, b.pending, b.evicted.purged), (60, 20, 40));
    assert_eq!(damages(dir.path()), []);
}

#[test]
fn damage_in_the_quarantine_is_found_and_a_file_that_was_never_written_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    append(&mut log, &snapshot(1, 20));
    let lease = log.next(0, ONE).unwrap();
    let at = Timestamp::from_millis(1);
    log.quarantine(0, &lease.snapshots, &Verdict { fault: Fault::Refused, status: None, text: String::new(), at });
    log.close(Instant::now());
    drop(log);
    std::fs::write(options.dir.join("cursor-full-0000000000000000.1"), b"").unwrap();
    assert_eq!(damages(dir.path()), []);
    let [file] = &Inspection::open(dir.path()).unwrap().quarantine().unwrap()[..] else { panic!("one file") };
    let path = dir.path().join(&file.name);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let found = damages(dir.path());
    assert_eq!((found[0].0.as_str(), found[0].1), (file.name.as_str(), DamageKind::Quarantine));
}

#[test]
fn what_was_lent_from_the_disk_together_with_memory_is_there_after_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    append_and_close(&options, [snapshot(1, 5)]);
    let mut log = open(&options);
    let blocked = block_the_next_segment(&log);
    append(&mut log, &snapshot(2, 5));
    assert_eq!(log.next(0, ALL).unwrap().snapshots.len(), 2);
    log.close(Instant::now());
    check(&log);
    drop(log);
    std::fs::remove_dir(&blocked).unwrap();
    let mut log = open(&options);
    assert_eq!((ledger(&log, 0).pending, ledger(&log, 0).evicted.memory, ledger(&log, 0).corrupt), (5, 5, 0));
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(1, 5)]);
}

#[test]
fn however_often_a_process_ends_on_a_full_disk_what_was_in_memory_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    append_and_close(&options, [snapshot(1, 5)]);
    for at in 2..20 {
        let mut log = open(&options);
        block_the_next_segment(&log);
        append(&mut log, &snapshot(at, 5));
        log.close(Instant::now());
        let ledger = ledger(&log, 0);
        assert_eq!((ledger.evicted.memory, ledger.corrupt), (5 * u64::from(at - 1), 0));
    }
}

#[test]
fn a_segment_that_could_not_be_finished_before_samples_ended_in_memory_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    append(&mut log, &snapshot(1, 5));
    // Another file in its place: this one is left without totals.
    let path = segment_files(&options).remove(0);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    block_the_next_segment(&log);
    assert!(!append(&mut log, &snapshot(2, 5)).durable);
    log.close(Instant::now());
    drop(log);
    assert_eq!(damages(dir.path()), []);
}

#[test]
fn a_killed_process_and_then_one_that_appends_nothing_leave_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    append(&mut log, &snapshot(1, 5));
    drop(log);
    open(&options).close(Instant::now());
    let seen = Inspection::open(dir.path()).unwrap();
    assert_eq!((seen.was_closed, seen.segments[0].is_sealed), (Some(true), false));
    assert_eq!(damages(dir.path()), []);
}

#[test]
fn what_was_delivered_to_all_but_an_endpoint_that_is_no_more_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    append_and_close(&options(dir.path(), &BOTH), [snapshot(1, 20)]);
    let mut log = open(&options(dir.path(), &["a"]));
    append(&mut log, &snapshot(2, 20));
    drain(&mut log, 0, ALL);
    log.close(Instant::now());
    drop(log);
    let seen = Inspection::open(dir.path()).unwrap();
    let b = &seen.endpoint("b").unwrap().ledger;
    assert_eq!((seen.segments.len(), &seen.waited_for[..]), (0, &[][..]));
    assert_eq!((b.appended, b.evicted.purged, b.corrupt), (40, 40, 0));
    assert_eq!(damages(dir.path()), []);
    let log = open(&options(dir.path(), &BOTH));
    assert_eq!(ledger(&log, 1), *b);
}

#[test]
fn without_any_endpoint_the_backlog_stays_for_those_that_are_configured_again() {
    let dir = tempfile::tempdir().unwrap();
    let configured = options(dir.path(), &["a"]);
    append_and_close(&configured, [snapshot(1, 5)]);
    let mut log = open(&options(dir.path(), &[]));
    append(&mut log, &snapshot(2, 5));
    log.close(Instant::now());
    drop(log);
    assert_eq!(damages(dir.path()), []);
    let mut log = open(&configured);
    assert_eq!((ledger(&log, 0).appended, ledger(&log, 0).pending), (5, 5));
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(1, 5)]);
}

#[test]
fn killed_with_samples_in_memory_that_others_were_sent_is_no_damage_and_one_account_inside_and_outside() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    append_and_close(&options, [snapshot(1, 5)]);
    let mut log = open(&options);
    let blocked = block_the_next_segment(&log);
    for at in 2..=11 {
        assert!(!append(&mut log, &snapshot(at, 5)).durable);
    }
    drain(&mut log, 0, ONE);
    let alive = ledger(&log, 1);
    assert_eq!(Inspection::open(dir.path()).unwrap().endpoint("b").unwrap().ledger, alive);
    drop(log);
    std::fs::remove_dir(&blocked).unwrap();
    let outside = Inspection::open(dir.path()).unwrap().endpoint("b").unwrap().ledger;
    assert_eq!((outside.appended, outside.pending, outside.evicted.memory, outside.corrupt), (55, 5, 50, 0));
    assert_eq!(damages(dir.path()), []);
    let mut log = open(&options);
    assert_eq!(ledger(&log, 1), outside);
    append(&mut log, &snapshot(12, 5));
    assert_eq!(Inspection::open(dir.path()).unwrap().endpoint("b").unwrap().ledger, ledger(&log, 1));
    assert_eq!(damages(dir.path()), []);
}

#[test]
fn a_file_of_the_quarantine_that_is_just_being_written_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let log = open(&options);
    std::fs::create_dir_all(options.dir.join("quarantine")).unwrap();
    std::fs::write(options.dir.join("quarantine/0000000000000001-00000000.q"), b"").unwrap();
    assert_eq!(damages(dir.path()), []);
    drop(log);
    assert_eq!(damages(dir.path()).len(), 1);
}

#[test]
fn a_start_that_appends_nothing_gives_no_position_out() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    append_and_close(&options, [snapshot(1, 5)]);
    open(&options).close(Instant::now());
    assert_eq!(Inspection::open(dir.path()).unwrap().tail.map(Position::number), Some(1));
}

#[test]
fn a_tail_without_end_is_told_and_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    append_and_close(&options, [snapshot(1, 20)]);
    let path = dir.path().join(&Inspection::open(dir.path()).unwrap().segments[0].name);
    let whole = std::fs::metadata(&path).unwrap().len();
    let behind = 1 << 20;
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole + behind).unwrap();
    let inspection = Inspection::open(dir.path()).unwrap();
    let mut furthest = 0;
    let verdict = inspection.verify_within(whole, &mut |done, _| furthest = furthest.max(done));
    let told: Vec<_> = verdict.damages.iter().map(|damage| (damage.offset, damage.bytes, damage.samples)).collect();
    assert_eq!(told, [(whole, behind, 0)]);
    assert_eq!((verdict.bytes, furthest, verdict.samples), (whole, whole, 20));
    let all = inspection.verify(&mut |_, _| ());
    assert_eq!((all.bytes, all.damages[0].bytes), (whole + behind, behind), "a segment may be longer than this one");
}
