//! Random lives on a disk that does what disks do: power cuts, flipped bits, full, read-only, eaten by others.
//!
//! `OUTHAUL_TORTURE=1` runs a hundred times as many.

use super::super::log::BLOCK_BYTES;
use super::sim::{EIO, ENOSPC, EROFS, Fault, Op};
use super::world::{SMALLEST_KIB, Step, World};
use super::*;
use proptest::test_runner::RngSeed;

const CASES: u32 = 64;

fn cases() -> u32 {
    if std::env::var_os("OUTHAUL_TORTURE").is_some() { CASES * 100 } else { CASES }
}

/// The short form lives the same lives each time, the long one new ones.
fn config() -> ProptestConfig {
    let seed = if cases() == CASES { RngSeed::Fixed(1) } else { RngSeed::Random };
    let base = ProptestConfig::default();
    ProptestConfig { cases: cases(), failure_persistence: None, max_shrink_iters: 4000, rng_seed: seed, ..base }
}

fn max_kib() -> impl Strategy<Value = u64> {
    prop_oneof![4 => SMALLEST_KIB..300, 1 => Just(1024_u64)]
}

fn ordinary() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => prop_oneof![12 => 1_u32..50, 1 => 100_u32..400].prop_map(|samples| Step::Append { samples }),
        4 => (0..3_usize, 1..12_usize).prop_map(|(endpoint, instants_max)| Step::Next { endpoint, instants_max }),
        4 => (0..3_usize, 0..4_usize).prop_map(|(endpoint, part)| Step::Ack { endpoint, part }),
        1 => (0..5000_usize).prop_map(|len| Step::SaveState { len }),
        2 => (0..100_u64).prop_map(|seconds| Step::Tick { seconds }),
    ]
}

fn trouble() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => prop_oneof![-100_000_000_i64..100_000_000, Just(-3600_i64)].prop_map(|seconds| Step::ClockJump { seconds }),
        3 => Just(Step::Crash),
        4 => any::<u64>().prop_map(|seed| Step::PowerLoss { seed }),
        1 => Just(Step::Close),
        1 => (max_kib(), 0_u8..8).prop_map(|(max_kib, endpoints)| Step::Reopen { max_kib, endpoints }),
        2 => (0..600_u64).prop_map(|free_kib| Step::Others { free_kib: free_kib / 8 }),
        2 => Just(Step::OthersGone),
        3 => fault().prop_map(Step::Fault),
        4 => Just(Step::NoFault),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let errno = prop_oneof![Just(EIO), Just(ENOSPC), Just(EROFS)];
    let op = prop_oneof![3 => Just(Op::Write), 3 => Just(Op::Sync), 2 => Just(Op::Change), 1 => Just(Op::Read), 1 => Just(Op::Look)];
    prop_oneof![
        (1..40_u64, errno.clone()).prop_map(|(nth, errno)| Fault::Nth { nth, errno }),
        (op, errno).prop_map(|(op, errno)| Fault::All { op, errno }),
        Just(Fault::ReadOnly),
        (1..60_u64).prop_map(|nth| Fault::DieAt { nth }),
    ]
}

/// Syncs that fail and work again, with time for the timer between.
fn sync_trouble() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Fault(Fault::All { op: Op::Sync, errno: EIO })),
        2 => Just(Step::NoFault),
        2 => Just(Step::Crash),
        6 => (0..40_u64).prop_map(|seconds| Step::Tick { seconds }),
    ]
}

fn damage() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<(usize, usize)>().prop_map(|(file, bit)| Step::Flip { file, bit }),
        1 => any::<(usize, usize)>().prop_map(|(file, bit)| Step::FlipNote { file, bit }),
        1 => any::<(usize, usize)>().prop_map(|(file, len)| Step::Cut { file, len }),
        1 => any::<usize>().prop_map(|file| Step::Delete { file }),
        1 => any::<usize>().prop_map(|file| Step::Unreadable { file }),
        1 => Just(Step::Readable),
        1 => Just(Step::DeleteDir),
    ]
}

fn policy() -> impl Strategy<Value = SyncPolicy> {
    prop_oneof![
        5 => Just(SyncPolicy::Always),
        1 => Just(SyncPolicy::Interval(Duration::from_secs(20))),
        1 => Just(SyncPolicy::Never),
    ]
}

fn live(seed: u64, sync: SyncPolicy, max_kib: u64, max_age_s: Option<u64>, steps: &[Step]) {
    let mut world = World::new(seed, sync, max_kib, max_age_s.map(Duration::from_secs));
    for step in steps {
        world.step(step);
    }
    world.finish();
}

fn age() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![3 => Just(None), 1 => (60..2000_u64).prop_map(Some)]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn crashes_power_cuts_and_failing_disks_break_no_promise(
        seed: u64, sync in policy(), max_kib in max_kib(), age in age(),
        steps in prop::collection::vec(prop_oneof![4 => ordinary(), 1 => trouble()], 1..150),
    ) {
        live(seed, sync, max_kib, age, &steps);
    }

    #[test]
    fn flipped_bits_alone_cost_a_record_each_and_no_more(
        seed: u64, max_kib in max_kib(),
        steps in prop::collection::vec(prop_oneof![
            12 => ordinary().boxed(),
            1 => any::<(usize, usize)>().prop_map(|(file, bit)| Step::Flip { file, bit }).boxed(),
            1 => Just(Step::Close).boxed(),
            1 => Just(Step::Crash).boxed(),
        ], 1..150),
    ) {
        live(seed, SyncPolicy::Always, max_kib, None, &steps);
    }

    #[test]
    fn syncs_by_the_timer_that_fail_break_no_promise(
        seed: u64, max_kib in max_kib(), age in age(),
        steps in prop::collection::vec(prop_oneof![
            8 => ordinary().boxed(), 4 => sync_trouble().boxed(), 1 => trouble().boxed(), 1 => damage().boxed(),
        ], 1..150),
    ) {
        live(seed, SyncPolicy::Interval(Duration::from_secs(20)), max_kib, age, &steps);
    }

    #[test]
    fn whatever_is_done_to_the_files_no_promise_is_broken(
        seed: u64, sync in policy(), max_kib in max_kib(), age in age(),
        steps in prop::collection::vec(prop_oneof![8 => ordinary().boxed(), 1 => trouble().boxed(), 1 => damage().boxed()], 1..150),
    ) {
        // Without its cursor, an endpoint that nobody configures is owed nothing.
        let all_endpoints = |step| match step {
            Step::Reopen { max_kib, .. } => Step::Reopen { max_kib, endpoints: u8::MAX },
            step => step,
        };
        let steps: Vec<Step> = steps.into_iter().map(all_endpoints).collect();
        live(seed, sync, max_kib, age, &steps);
    }
}

fn simulated(max_kib: u64) -> (super::sim::SimFs, LogOptions, Log<super::sim::SimFs>) {
    let fs = super::sim::SimFs::new(1);
    let sync = SyncPolicy::Always;
    let options = LogOptions { max_bytes: max_kib << 10, sync, ..options(Path::new("/buffer"), &["a"]) };
    let log = Log::open(fs.clone(), options.clone()).unwrap();
    (fs, options, log)
}

/// The same, opened again by a process whose timer syncs.
fn synced_by_the_timer(max_kib: u64) -> (super::sim::SimFs, LogOptions, Log<super::sim::SimFs>) {
    let (fs, options, log) = simulated(max_kib);
    drop(log);
    let options = LogOptions { sync: SyncPolicy::Interval(Duration::from_secs(20)), ..options };
    let log = Log::open(fs.clone(), options.clone()).unwrap();
    (fs, options, log)
}

/// Others take all that is left of the disk.
fn others_fill(fs: &super::sim::SimFs) {
    fs.set_capacity(64 << 20);
    fs.set_others(64 << 20);
}

#[test]
fn a_segment_that_cannot_be_read_at_one_start_and_can_at_the_next_costs_no_later_record() {
    let (fs, options, mut log) = simulated(1024);
    append(&mut log, &snapshot(1, 5));
    append(&mut log, &snapshot(2, 5));
    drop(log);
    let unreadable = fs.segments().remove(0);
    fs.set_unreadable(&unreadable, true);
    let mut log = Log::open(fs.clone(), options.clone()).unwrap();
    assert!(append(&mut log, &snapshot(3, 5)).durable);
    drop(log);
    fs.set_unreadable(&unreadable, false);
    let mut log = Log::open(fs, options).unwrap();
    let given = drain(&mut log, 0, ALL);
    check(&log);
    assert_eq!(given.last(), Some(&snapshot(3, 5)));
}

#[test]
fn a_state_saved_while_the_old_one_cannot_be_read_is_the_one_that_is_found_later() {
    let (fs, options, mut log) = simulated(1024);
    log.save_state("x", b"first").unwrap();
    log.save_state("x", b"second").unwrap();
    fs.set(Some(Fault::All { op: Op::Read, errno: EIO }));
    let saved = log.save_state("x", b"third");
    fs.set(None);
    drop(log);
    let found = Log::open(fs, options).unwrap().load_state("x");
    assert!(saved.is_err() || found == Some(b"third".to_vec()), "{found:?}");
}

#[test]
fn a_state_that_was_saved_survives_a_power_cut_from_its_first_time() {
    for seed in 0..50 {
        let (fs, options, mut log) = simulated(1024);
        append(&mut log, &snapshot(1, 5));
        log.save_state("x", b"first").unwrap();
        drop(log);
        fs.power_loss(seed);
        assert_eq!(Log::open(fs, options).unwrap().load_state("x"), Some(b"first".to_vec()), "seed {seed}");
    }
}

#[test]
fn a_state_survives_every_later_save_that_fails_and_then_a_power_cut() {
    for seed in 0..50 {
        let (fs, options, mut log) = simulated(1024);
        log.save_state("x", b"first").unwrap();
        fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
        for len in [20, 900, 3] {
            assert!(log.save_state("x", &vec![7; len]).is_err());
        }
        drop(log);
        fs.set(None);
        fs.power_loss(seed);
        // What could not be forced to the disk may be there all the same.
        let found = Log::open(fs, options).unwrap().load_state("x");
        assert!(found.is_some_and(|value| value == b"first" || value.iter().all(|byte| *byte == 7)), "seed {seed}");
    }
}

#[test]
fn a_state_survives_a_kill_while_the_next_is_saved_then_a_save_that_fails_and_then_a_power_cut() {
    for nth in 1..12 {
        for seed in 0..60 {
            let (fs, options, mut log) = simulated(1024);
            log.save_state("x", b"first").unwrap();
            log.save_state("x", b"second").unwrap();
            fs.set(Some(Fault::DieAt { nth }));
            drop(log.save_state("x", b"third"));
            drop(log);
            fs.crash();
            fs.set(None);
            let mut log = Log::open(fs.clone(), options.clone()).unwrap();
            fs.set(Some(Fault::All { op: Op::Write, errno: EIO }));
            assert!(log.save_state("x", b"fourth").is_err());
            drop(log);
            fs.set(None);
            fs.power_loss(seed);
            let found = Log::open(fs, options).unwrap().load_state("x");
            let known = found.is_some_and(|value| value == b"second" || value == b"third" || value == b"fourth");
            assert!(known, "killed in operation {nth}, seed {seed}");
        }
    }
}

#[test]
fn a_cursor_survives_every_later_save_that_fails_and_then_a_power_cut() {
    for seed in 0..50 {
        let (fs, options, mut log) = simulated(1024);
        for at in 1..=9 {
            append(&mut log, &snapshot(at, 5));
        }
        let lease = log.next(0, ONE).unwrap();
        ack(&mut log, 0, &lease);
        fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
        for _ in 0..3 {
            let lease = log.next(0, ONE).unwrap();
            ack(&mut log, 0, &lease);
        }
        drop(log);
        fs.set(None);
        fs.power_loss(seed);
        let log = Log::open(fs, options).unwrap();
        check(&log);
        assert!(ledger(&log, 0).delivered >= 5, "seed {seed}: {:?}", ledger(&log, 0));
    }
}

#[test]
fn what_was_delivered_while_no_cursor_could_be_written_is_not_called_corrupt_after_a_kill() {
    let fs = super::sim::SimFs::new(1);
    let options = LogOptions { sync: SyncPolicy::Always, ..options(Path::new("/buffer"), &BOTH) };
    let mut log = Log::open(fs.clone(), options.clone()).unwrap();
    for at in 1..=100 {
        append(&mut log, &snapshot(at, 20));
    }
    fs.set(Some(Fault::ReadOnly));
    assert_eq!(drain(&mut log, 0, ALL).len(), 100);
    fs.set(None);
    assert_eq!(drain(&mut log, 1, ALL).len(), 100);
    assert_eq!(log.status().segments, 1, "all but the one being written go");
    drop(log);
    let log = Log::open(fs, options).unwrap();
    check(&log);
    assert_eq!((ledger(&log, 0).delivered, ledger(&log, 0).corrupt), (2000, 0));
}

#[test]
fn a_state_whose_first_write_failed_survives_a_power_cut_from_the_next_one_on() {
    for seed in 0..50 {
        let (fs, options, mut log) = simulated(1024);
        append(&mut log, &snapshot(1, 5));
        fs.set(Some(Fault::All { op: Op::Write, errno: EIO }));
        assert!(log.save_state("x", b"first").is_err());
        fs.set(None);
        log.save_state("x", b"second").unwrap();
        drop(log);
        fs.power_loss(seed);
        assert_eq!(Log::open(fs, options).unwrap().load_state("x"), Some(b"second".to_vec()), "seed {seed}");
    }
}

#[test]
fn whatever_is_written_first_into_a_directory_that_was_removed_its_notes_are_there_again() {
    let (fs, options, mut log) = simulated(1024);
    append(&mut log, &snapshot(1, 5));
    drop(log);
    for first in ["a cursor", "a state"] {
        let mut log = Log::open(fs.clone(), options.clone()).unwrap();
        fs.delete_dir(&options.dir);
        if first == "a cursor" {
            log.next(0, ALL);
        } else {
            log.save_state("x", b"value").unwrap();
        }
        let appended = append(&mut log, &snapshot(2, 5));
        assert!(appended.durable);
        drop(log);
        // The store's id stands in the notes and in the file: one of the two may be damaged.
        fs.flip(&fs.segments()[0], 8 * 20);
        let mut log = Log::open(fs.clone(), options.clone()).unwrap();
        assert_eq!(log.next(0, ALL).unwrap().snapshots.last(), Some(&snapshot(2, 5)), "{first}");
        check(&log);
    }
}

#[test]
fn after_its_directory_was_removed_the_log_finds_its_account_again() {
    let (fs, options, mut log) = simulated(1024);
    append(&mut log, &snapshot(1, 5));
    let lease = log.next(0, ALL).unwrap();
    ack(&mut log, 0, &lease);
    fs.delete_dir(&options.dir);
    assert!(append(&mut log, &snapshot(2, 5)).durable);
    let before = ledger(&log, 0);
    drop(log);
    fs.power_loss(1);
    // The store's id stands in the notes and in the file: one of the two may be damaged.
    fs.flip(&fs.segments()[0], 8 * 20);
    let mut log = Log::open(fs, options).unwrap();
    assert_eq!(ledger(&log, 0), before);
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(2, 5)]);
}

#[test]
fn what_was_evicted_while_nothing_could_be_written_is_counted_after_a_kill() {
    let (fs, options, mut log) = simulated(1024);
    for at in 1..=10 {
        assert!(append(&mut log, &snapshot(at, 20)).durable);
    }
    fs.set(Some(Fault::All { op: Op::Write, errno: ENOSPC }));
    let mut now = Instant::now();
    for at in 11..=60 {
        now += Duration::from_secs(40);
        log.append(snapshot(at, 20), now).unwrap();
    }
    assert_eq!(
        ledger(&log, 0).evicted.total(),
        ledger(&log, 0).evicted.memory,
        "nothing goes that a crash would forget"
    );
    fs.set(None);
    drop(log);
    let ledger = ledger(&Log::open(fs, options).unwrap(), 0);
    assert!(ledger.evicted.total() + ledger.corrupt + ledger.pending >= 200, "{ledger:?}");
}

#[test]
fn what_is_written_again_while_a_sync_fails_is_not_synced_once_more_without_being_written() {
    let append = |samples| Step::Append { samples };
    let next = |endpoint| Step::Next { endpoint, instants_max: 1 };
    let steps = [
        append(1),
        append(1),
        append(1),
        append(141),
        next(1),
        append(1),
        next(2),
        Step::Others { free_kib: 4 },
        Step::Tick { seconds: 21 },
        Step::SaveState { len: 0 },
        next(0),
        Step::Fault(Fault::All { op: super::sim::Op::Sync, errno: EIO }),
        append(1),
        Step::Tick { seconds: 10 },
        append(1),
    ];
    live(0, SyncPolicy::Interval(Duration::from_secs(20)), 128, None, &steps);
}

#[test]
fn on_a_full_disk_a_lower_bound_holds_from_the_start_also_when_an_endpoint_is_new() {
    let (fs, options, mut log) = simulated(1024);
    for at in 1..=40 {
        append(&mut log, &snapshot(at, 300));
    }
    log.close(Instant::now());
    drop(log);
    fs.set_capacity(64 << 20);
    fs.set_others((64 << 20) - fs.take_peak());
    let endpoints = BOTH.iter().map(|name| (*name).to_owned()).collect();
    let options = LogOptions { max_bytes: 128 << 10, endpoints, ..options };
    let log = Log::open(fs.clone(), options.clone()).unwrap();
    let status = log.status();
    assert!(status.used_bytes <= status.max_bytes, "{status:?}");
    let evicted = ledger(&log, 0).evicted.size;
    assert!(evicted > 0);
    drop(log);
    let log = Log::open(fs, options).unwrap();
    check(&log);
    assert_eq!((ledger(&log, 0).evicted.size, ledger(&log, 1).evicted.size), (evicted, evicted));
    assert_eq!((ledger(&log, 0).corrupt, ledger(&log, 1).corrupt), (0, 0));
}

#[test]
fn series_of_a_snapshot_that_found_its_file_full_and_no_sync_that_works_are_defined_when_it_is_written() {
    let (fs, options, mut log) = synced_by_the_timer(128);
    fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
    let now = Instant::now();
    log.append(snapshot(1, 1), now).unwrap();
    assert!(!log.append(snapshot(2, 134), now).unwrap().durable);
    log.tick(now + Duration::from_secs(1));
    fs.set(None);
    log.append(snapshot(3, 2), now).unwrap();
    log.tick(now + Duration::from_secs(60));
    drop(log);
    let mut log = Log::open(fs, options).unwrap();
    assert_eq!(drain(&mut log, 0, ALL), [snapshot(1, 1), snapshot(2, 134), snapshot(3, 2)]);
}

#[test]
fn what_memory_dropped_is_said_again_when_the_file_it_was_said_in_is_given_up() {
    let append = |samples| Step::Append { samples };
    let steps = [
        append(1),
        append(1),
        Step::Fault(Fault::All { op: Op::Sync, errno: EIO }),
        append(249),
        append(350),
        append(324),
        Step::Tick { seconds: 1 },
        Step::Crash,
    ];
    live(0, SyncPolicy::Interval(Duration::from_secs(20)), 128, None, &steps);
}

#[test]
fn a_disk_that_others_fill_in_the_first_life_still_takes_what_was_acknowledged_and_what_ended_in_memory() {
    let (fs, options, mut log) = simulated(1024);
    others_fill(&fs);
    append(&mut log, &snapshot(1, 5));
    append(&mut log, &snapshot(2, 5));
    let lease = log.next(0, Limits { instants_max: 1, ..ALL }).unwrap();
    ack(&mut log, 0, &lease);
    log.close(Instant::now());
    drop(log);
    fs.set_others(0);
    let log = Log::open(fs, options).unwrap();
    let ledger = ledger(&log, 0);
    assert_eq!((ledger.pending, ledger.evicted.memory, ledger.corrupt), (0, 5, 0));
}

#[test]
fn a_state_whose_file_s_name_was_not_synced_survives_the_next_save_and_a_power_cut() {
    for (nth, then, seed) in
        (1..8).flat_map(|nth| (14..24).flat_map(move |then| (0..40).map(move |seed| (nth, then, seed))))
    {
        let (fs, options, mut log) = simulated(1024);
        log.save_state("x", b"first").unwrap();
        fs.set(Some(Fault::DieAt { nth }));
        drop(log.save_state("x", b"second"));
        drop(log);
        fs.crash();
        fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
        let mut log = Log::open(fs.clone(), options.clone()).unwrap();
        fs.set(Some(Fault::DieAt { nth: then }));
        drop(log.save_state("x", b"third"));
        drop(log);
        fs.crash();
        fs.set(None);
        fs.power_loss(seed);
        let found = Log::open(fs, options).unwrap().load_state("x");
        let known = found.is_some_and(|value| value == b"first" || value == b"second" || value == b"third");
        assert!(known, "killed in operation {nth}, then in {then}, seed {seed}");
    }
}

#[test]
fn a_state_saved_twice_between_two_syncs_by_the_timer_is_not_lost_to_a_power_cut() {
    for seed in 0..100 {
        let (fs, options, mut log) = synced_by_the_timer(1024);
        for value in 1..=2 {
            log.save_state("x", &[value; 3000]).unwrap();
            log.sync_dirty(Instant::now());
        }
        log.save_state("x", &[3; 3000]).unwrap();
        log.save_state("x", &[4; 3000]).unwrap();
        drop(log);
        fs.power_loss(seed);
        assert!(Log::open(fs, options).unwrap().load_state("x").is_some(), "seed {seed}");
    }
}

#[test]
fn a_state_that_the_timer_could_not_force_to_the_disk_is_written_over_and_leaves_the_one_before_alone() {
    for seed in 0..100 {
        let (fs, options, mut log) = synced_by_the_timer(1024);
        for value in 1..=2 {
            log.save_state("x", &[value; 3000]).unwrap();
            log.sync_dirty(Instant::now());
        }
        log.save_state("x", &[3; 3000]).unwrap();
        fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
        log.sync_dirty(Instant::now());
        fs.set(None);
        log.save_state("x", &[4; 3000]).unwrap();
        drop(log);
        fs.power_loss(seed);
        assert!(Log::open(fs, options).unwrap().load_state("x").is_some(), "seed {seed}");
    }
}

#[test]
fn a_cursor_whose_files_could_both_not_be_forced_to_the_disk_is_found_with_its_newest_value() {
    for stored in 1..6 {
        let (fs, options, mut log) = synced_by_the_timer(1024);
        append(&mut log, &snapshot(1, 5));
        let mut lease = None;
        for _ in 0..stored {
            lease = log.next(0, ALL);
        }
        fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
        log.sync_dirty(Instant::now());
        fs.set(None);
        ack(&mut log, 0, &lease.unwrap());
        drop(log);
        assert_eq!(ledger(&Log::open(fs, options).unwrap(), 0).delivered, 5, "stored {stored} times");
    }
}

#[test]
fn a_state_that_no_sync_kept_stays_whole_when_the_next_one_finds_no_room() {
    let (fs, _, mut log) = synced_by_the_timer(1024);
    log.save_state("x", b"first").unwrap();
    fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
    others_fill(&fs);
    assert!(log.save_state("x", &[2; 5000]).is_err());
    assert_eq!(log.load_state("x").as_deref(), Some(&b"first"[..]));
}

#[test]
fn a_disk_that_tells_nothing_of_its_files_still_takes_cursors() {
    let (fs, options, mut log) = simulated(1024);
    append(&mut log, &snapshot(1, 5));
    let lease = log.next(0, ALL).unwrap();
    fs.set(Some(Fault::All { op: Op::Look, errno: EIO }));
    ack(&mut log, 0, &lease);
    drop(log);
    fs.set(None);
    assert_eq!(ledger(&Log::open(fs, options).unwrap(), 0).delivered, 5);
}

#[test]
fn what_was_in_memory_on_a_full_disk_is_counted_after_a_kill_also_when_nobody_acknowledged_anything() {
    let (fs, options, mut log) = simulated(1024);
    append(&mut log, &snapshot(1, 5));
    others_fill(&fs);
    let held: u64 = (2..=40).filter(|at| !append(&mut log, &snapshot(*at, 300)).durable).map(|_| 300).sum();
    let before = ledger(&log, 0);
    assert!(held > 0 && log.status().degraded);
    drop(log);
    fs.crash();
    fs.set_others(0);
    let after = ledger(&Log::open(fs, options).unwrap(), 0);
    assert_eq!((after.appended, after.corrupt), (before.appended, 0), "{before:?} {after:?}");
    assert_eq!(after.evicted.total() + after.pending, before.appended);
    assert!(after.evicted.memory > 0 && after.evicted.memory <= held, "{after:?}");
}

#[test]
fn what_no_sync_by_the_timer_kept_and_no_disk_takes_again_is_counted_after_a_kill() {
    let (fs, options, mut log) = synced_by_the_timer(1024);
    for at in 1..=3 {
        append(&mut log, &snapshot(at, 300));
    }
    others_fill(&fs);
    fs.set(Some(Fault::All { op: Op::Sync, errno: EIO }));
    log.tick(Instant::now() + Duration::from_secs(60));
    assert!(log.status().degraded);
    drop(log);
    fs.set(None);
    fs.crash();
    fs.set_others(0);
    let after = ledger(&Log::open(fs, options).unwrap(), 0);
    assert_eq!((after.appended, after.corrupt), (900, 0), "{after:?}");
    assert_eq!(after.evicted.memory + after.pending, 900);
}

#[test]
fn the_directory_grows_within_the_bound_also_when_it_does_so_as_the_buffer_gets_full() {
    let mut grown = 0;
    for max_kib in (552..=592).step_by(4) {
        let (fs, _, mut log) = simulated(max_kib);
        for at in 1..=90 {
            append(&mut log, &snapshot(at, 300));
            check(&log);
            let peak = fs.take_peak();
            assert!(peak <= max_kib << 10, "{peak} of {max_kib} KiB");
        }
        grown += u32::from(log.dir_len > BLOCK_BYTES && ledger(&log, 0).evicted.size > 0);
    }
    assert!(grown > 0);
}
