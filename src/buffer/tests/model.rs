//! Random lives of a log beside the simplest model of one.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append {
        samples: u32,
    },
    Next {
        endpoint: usize,
        instants_max: usize,
    },
    /// Settles the last lease, or its first record only.
    Ack {
        endpoint: usize,
        first_only: bool,
    },
    Kill,
    Close,
    SaveState {
        len: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop_oneof![6 => 0_u32..30, 1 => 100_u32..600].prop_map(|samples| Step::Append { samples }),
        4 => (0..2_usize, 1..12_usize).prop_map(|(endpoint, instants_max)| Step::Next { endpoint, instants_max }),
        4 => (0..2_usize, any::<bool>()).prop_map(|(endpoint, first_only)| Step::Ack { endpoint, first_only }),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
        1 => (0..9000_usize).prop_map(|len| Step::SaveState { len }),
    ]
}

/// What must be true of what one endpoint was given.
#[derive(Default)]
struct Seen {
    /// The last instant that was acknowledged.
    acked_at: Option<Timestamp>,
    delivered: u64,
    lease: Option<Lease>,
}

fn live(steps: Vec<Step>, max_bytes: u64) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { max_bytes, ..options(dir.path(), &BOTH) };
    let mut log = open(&options);
    let mut appended: BTreeMap<Timestamp, Snapshot> = BTreeMap::new();
    let mut seen = [Seen::default(), Seen::default()];
    let mut total = 0_u64;
    for (at, step) in (1_u32..).zip(steps) {
        match step {
            Step::Append { samples } => {
                let one = snapshot(at, samples);
                if log.append(one.clone(), Instant::now()).is_ok() {
                    total += u64::from(samples);
                    appended.insert(one.at, one);
                }
            }
            Step::Next { endpoint, instants_max } => {
                let lease = log.next(endpoint, Limits { instants_max, samples_max: 500 });
                for one in lease.iter().flat_map(|lease| &lease.snapshots) {
                    prop_assert_eq!(appended.get(&one.at), Some(one), "altered or invented");
                    prop_assert!(seen[endpoint].acked_at < Some(one.at), "given out after its acknowledgement");
                }
                prop_assert!(lease.iter().all(|lease| lease.snapshots.is_sorted_by_key(|one| one.at)));
                seen[endpoint].lease = lease;
            }
            Step::Ack { endpoint, first_only } => {
                let Some(lease) = seen[endpoint].lease.take() else { continue };
                let last = if first_only { &lease.snapshots[0] } else { lease.snapshots.last().unwrap() };
                let samples = if first_only { last.samples.len() as u64 } else { lease.samples };
                let records = log.endpoints[endpoint].loan.as_ref().unwrap().records.clone();
                let through = if first_only { records[0].after.seq } else { lease.through.number() };
                log.ack(endpoint, through, delivered(samples));
                seen[endpoint].acked_at = Some(last.at);
                seen[endpoint].delivered += samples;
            }
            Step::Kill | Step::Close => {
                if matches!(step, Step::Close) {
                    log.close(Instant::now());
                }
                drop(log);
                log = open(&options);
                prop_assert_eq!(log.status().unclean_start, matches!(step, Step::Kill));
                for seen in &mut seen {
                    seen.lease = None;
                }
            }
            Step::SaveState { len } => drop(log.save_state("x", &vec![1; len])),
        }
        check(&log);
        prop_assert!(disk_bytes(&options.dir) <= max_bytes);
        for (endpoint, seen) in log.status().endpoints.iter().zip(&seen) {
            prop_assert_eq!(endpoint.ledger.appended, total);
            prop_assert_eq!(endpoint.ledger.delivered, seen.delivered);
            prop_assert_eq!(endpoint.ledger.corrupt, 0);
        }
    }
    for index in 0..2 {
        let pending = log.status().endpoints[index].ledger.pending;
        let limbo = log.endpoints[index].limbo();
        let rest = drain(&mut log, index, ALL);
        prop_assert_eq!(rest.iter().map(|one| one.samples.len() as u64).sum::<u64>(), pending - limbo);
        prop_assert!(rest.iter().all(|one| appended.get(&one.at) == Some(one)));
        check(&log);
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_random_life_keeps_every_promise(
        steps in prop::collection::vec(step(), 1..120),
        max_kib in prop_oneof![48_u64..120, Just(1024)],
    ) {
        live(steps, max_kib << 10)?;
    }

    #[test]
    fn random_damage_never_stops_the_log_or_unbalances_the_account(
        damage in prop::collection::vec((0_usize..20, any::<prop::sample::Index>(), any::<u8>(), 1_usize..3000), 1..6),
        cut in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), &BOTH);
        let mut log = open(&options);
        for at in 1..=100 {
            append(&mut log, &snapshot(at, 20));
        }
        let lease = log.next(0, Limits { instants_max: 30, samples_max: 10_000 }).unwrap();
        ack(&mut log, 0, &lease);
        log.close(Instant::now());
        drop(log);
        for (file, place, byte, len) in damage {
            let files = segment_files(&options);
            let path = &files[file % files.len()];
            let mut bytes = std::fs::read(path).unwrap();
            if bytes.is_empty() {
                continue;
            }
            let from = place.index(bytes.len());
            if cut {
                bytes.truncate(from);
            } else {
                let to = (from + len).min(bytes.len());
                bytes[from..to].fill(byte);
            }
            std::fs::write(path, bytes).unwrap();
        }
        let mut log = open(&options);
        check(&log);
        append(&mut log, &snapshot(101, 20));
        for index in 0..2 {
            let given = drain(&mut log, index, Limits { instants_max: 7, samples_max: 1000 });
            check(&log);
            let ledger = ledger(&log, index);
            prop_assert_eq!((ledger.appended, ledger.pending), (101 * 20, 0));
            prop_assert_eq!(given.last(), Some(&snapshot(101, 20)));
            prop_assert!(given.is_sorted_by_key(|one| one.at));
            prop_assert!(given.iter().all(|one| *one == snapshot(u32::try_from(one.at.millis() / 1000).unwrap(), 20)));
        }
    }
}
