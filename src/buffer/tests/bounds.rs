//! What the log gives up to keep its bounds, and that it is counted.

use super::super::endpoint::name_in_cursor;
use super::super::inspect::Inspection;
use super::*;

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
fn of_a_loan_over_several_segments_only_what_was_in_the_evicted_one_is_given_up() {
    for ending in ["answered", "closed", "killed"] {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { max_bytes: 96 << 10, ..options(dir.path(), &["a"]) };
        let mut log = open(&options);
        let oldest = (1..).find_map(|at| {
            append(&mut log, &snapshot(at, 20));
            (log.status().used_bytes + 8192 > options.max_bytes).then(|| segment_files(&options).remove(0))
        });
        let lease = log.next(0, ALL).unwrap();
        let mut at = 100_000;
        while oldest.as_ref().unwrap().exists() {
            append(&mut log, &snapshot(at, 20));
            at += 1;
        }
        check(&log);
        assert_eq!(log.status().evicted_segments_total, 1);
        let on_disk = Inspection::open(dir.path()).unwrap().verify(&mut |_, _| ()).samples;
        if ending == "answered" {
            ack(&mut log, 0, &lease);
            let ledger = ledger(&log, 0);
            assert_eq!((ledger.delivered, ledger.evicted.total()), (lease.samples, 0));
        } else {
            let end = log.end.samples;
            if ending == "closed" {
                log.close(Instant::now());
                assert_eq!(ledger(&log, 0).pending, on_disk);
            }
            drop(log);
            log = open(&options);
            let ledger = ledger(&log, 0);
            assert_eq!((ledger.pending, ledger.evicted.size), (on_disk, end - on_disk), "{ending}");
        }
        check(&log);
    }
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

#[test]
fn a_first_snapshot_that_can_never_fit_moves_no_position() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes: 96 << 10, ..options(dir.path(), &["a"]) };
    open(&options).close(Instant::now());
    let mut log = open(&LogOptions { ahead: 1000, ..options });
    assert!(log.append(snapshot(1, 100_000), Instant::now()).is_err());
    assert_eq!(log.end.seq, 0);
    assert_eq!(append(&mut log, &snapshot(2, 1)).position, Position(1001));
}

#[test]
fn in_a_segment_that_fills_slowly_nothing_stays_for_longer_than_max_age_and_a_sixteenth() {
    let dir = tempfile::tempdir().unwrap();
    let max_age = Some(Duration::from_secs(160));
    let options = LogOptions { max_age, segment_bytes: 1 << 18, ..options(dir.path(), &["a"]) };
    let mut log = open(&options);
    let start = Instant::now();
    for at in 1..=1200 {
        log.append(snapshot(at, 1), start + Duration::from_secs(u64::from(at))).unwrap();
        check(&log);
        assert!(at > 600 || log.status().segments == 1, "the clock must have been steady for a while");
        let kept_secs = i64::from(at) - log.status().endpoints[0].oldest_pending_at.unwrap().millis() / 1000;
        assert!(at < 800 || (160..=171).contains(&kept_secs), "{kept_secs}");
        assert!(log.status().segments < 20);
    }
    let ledger = ledger(&log, 0);
    assert_eq!((ledger.evicted.age + ledger.pending, ledger.evicted.size), (1200, 0));
}

fn cursors(options: &LogOptions) -> usize {
    let names = std::fs::read_dir(&options.dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_str().unwrap().starts_with("cursor-")).count()
}

#[test]
fn endpoints_under_ever_new_names_never_fill_the_buffer_with_cursors() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &["kept"]);
    open(&options).close(Instant::now());
    for at in 1..=130 {
        let name = format!("name {at}");
        let options = LogOptions { endpoints: vec![name], ..options.clone() };
        let mut log = open(&options);
        append(&mut log, &snapshot(at, 20));
        check(&log);
        assert!(disk_bytes(&options.dir) <= options.max_bytes);
        assert!(cursors(&options) <= 2 * (1 + 8), "a sixteenth of the buffer for those who are away");
        drain(&mut log, 0, ALL);
        log.close(Instant::now());
    }
    // All but the one in use go with a purge.
    let log = &mut open(&LogOptions { endpoints: vec!["name 130".to_owned()], ..options.clone() });
    log.forget_away();
    assert_eq!((cursors(&options), ledger(log, 0).delivered), (2, 20));
}

#[test]
fn of_the_endpoints_that_are_away_those_for_whom_something_waits_are_forgotten_last() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| options(dir.path(), &["slow", name]);
    append(&mut open(&of("0")), &snapshot(1, 20));
    for nth in 1..=12 {
        let mut log = open(&of(&nth.to_string()));
        if nth % 2 == 0 {
            drain(&mut log, 1, ALL);
        }
    }
    let log = open(&of("new"));
    let name = |value: &[u8]| name_in_cursor(value).unwrap().parse().unwrap();
    let mut left: Vec<u32> = log.away.iter().map(|away| name(&away.value)).collect();
    left.sort_unstable();
    assert_eq!(left.iter().filter(|nth| *nth % 2 == 1).count(), 6, "{left:?}");
    assert_eq!((left.len(), cursors(&of(""))), (8, 20), "{left:?}");
}
