//! What became of the files while nobody had them, or under a running log.

use super::super::record::Footer;
use super::*;

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
        assert_eq!(appended.position.number(), all.len() as u64 + options.ahead);
        check(&log);
        assert_eq!(ledger(&log, 0).corrupt, 0);
    }
}

#[test]
fn any_flipped_byte_of_a_closed_segment_costs_at_most_one_record_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let all: Vec<Snapshot> = (1..=5).map(|at| snapshot(at, 2 + at)).collect();
    append_and_close(&options, all.iter().cloned());
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
        append_and_close(&options, (1..=200).map(|at| snapshot(at, 20)));
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
    append_and_close(&options, (1..=100).map(|at| snapshot(at, 20)));
    // The second file's header, its totals, and its first records.
    alter(&segment_files(&options)[1], |bytes| {
        let len = bytes.len();
        bytes[..len / 2].fill(0);
        bytes[len - 10..].fill(0);
    });
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
    assert_eq!(append(&mut log, &snapshot(11, 1)).position.number(), 11 + options.ahead);
}

#[test]
fn bytes_of_a_segment_that_was_lost_are_not_taken_for_those_of_the_one_begun_in_its_stead() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    drop(open(&options));
    let saved = tempfile::tempdir().unwrap();
    copy_dir(&options.dir, saved.path());
    let mut log = open(&LogOptions { ahead: 1, ..options.clone() });
    for at in 1..=3 {
        append(&mut log, &snapshot(at, 3));
    }
    drop(log);
    let lost = std::fs::read(&segment_files(&options)[0]).unwrap();
    // A power cut: nothing of that life was on the disk yet.
    std::fs::remove_dir_all(&options.dir).unwrap();
    copy_dir(saved.path(), &options.dir);
    let mut log = open(&LogOptions { ahead: 2, ..options.clone() });
    append(&mut log, &snapshot(11, 3));
    drop(log);
    // And another: the blocks of the new file that were not written show what a removed one left there.
    let path = &segment_files(&options)[0];
    let mut torn = std::fs::read(path).unwrap();
    torn.extend_from_slice(&lost[torn.len()..]);
    std::fs::write(path, torn).unwrap();
    let mut log = open(&options);
    check(&log);
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(11, 3)]);
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
fn with_its_notes_and_the_only_file_header_damaged_a_log_still_knows_which_store_it_is_of() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["a"]);
    let mut log = open(&options);
    append(&mut log, &snapshot(1, 3));
    append(&mut log, &snapshot(2, 3));
    let lease = log.next(0, ONE).unwrap();
    ack(&mut log, 0, &lease);
    drop(log);
    for name in ["log.0", "log.1"] {
        std::fs::remove_file(options.dir.join(name)).ok();
    }
    let segment = &segment_files(&options)[0];
    let mut bytes = std::fs::read(segment).unwrap();
    bytes[20] ^= 1;
    std::fs::write(segment, bytes).unwrap();
    let mut log = open(&options);
    check(&log);
    assert_eq!((ledger(&log, 0).delivered, ledger(&log, 0).corrupt), (3, 0));
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(2, 3)]);
}

#[test]
fn a_cursor_that_another_store_left_does_not_cost_the_segments() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let options_here = options(dir.path(), &["b"]);
    let mut log = open(&options_here);
    append(&mut log, &snapshot(1, 5));
    append(&mut log, &snapshot(2, 5));
    let lease = log.next(0, ONE).unwrap();
    ack(&mut log, 0, &lease);
    drop(log);
    // Enough of them that the order of the ids does not decide.
    for name in ["a", "c", "d", "e", "f", "g"] {
        let there = options(&other.path().join(name), &[name]);
        drop(open(&there));
        for entry in std::fs::read_dir(&there.dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_str().unwrap().starts_with("cursor-") {
                std::fs::copy(entry.path(), options_here.dir.join(entry.file_name())).unwrap();
            }
        }
    }
    for name in ["log.0", "log.1"] {
        std::fs::remove_file(options_here.dir.join(name)).ok();
    }
    alter(&segment_files(&options_here)[0], |bytes| bytes[20] ^= 1);
    assert_eq!(drain(&mut open(&options_here), 0, ALL), [snapshot(2, 5)]);
}

#[test]
fn a_loss_found_while_reading_ahead_is_on_record_once_what_was_before_it_is_settled() {
    for closed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), &["a"]);
        append_and_close(&options, (1..=10).map(|at| snapshot(at, 5)));
        // Everything between the first snapshots and the totals.
        alter(&segment_files(&options)[0], |bytes| {
            let (from, to) = (bytes.len() / 2, bytes.len() - Footer::RECORD_LEN);
            bytes[from..to].fill(0);
        });

        let mut log = open(&options);
        assert_eq!(ledger(&log, 0).pending, 50, "the totals are believed");
        let lease = log.next(0, ALL).unwrap();
        ack(&mut log, 0, &lease);
        let found = ledger(&log, 0);
        assert!(found.corrupt > 0 && found.pending == 0 && found.delivered > 0, "{found:?}");
        if closed {
            log.close(Instant::now());
        }
        drop(log);
        assert_eq!(ledger(&open(&options), 0), found);
    }
}

#[test]
fn a_loss_that_was_found_for_another_endpoint_is_on_record_when_the_log_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &BOTH);
    append_and_close(&options, [snapshot(1, 5)]);
    alter(&segment_files(&options)[0], |bytes| {
        let to = bytes.len() - Footer::RECORD_LEN;
        bytes[64..to].fill(0);
    });
    let mut log = open(&options);
    assert_eq!(log.next(0, ALL), None);
    let found = ledger(&log, 1);
    assert_eq!((found.corrupt, found.pending), (5, 0));
    log.close(Instant::now());
    drop(log);
    assert_eq!(ledger(&open(&options), 1), found);
}
