//! One fixed life of a log, and in it every single operation on the disk fails: once, or from then on; or the process or
//! the whole machine ends right there.
//!
//! `OUTHAUL_TORTURE=1` takes a life four times as long and more ways for a power cut to end.

use super::sim::{EIO, ENOSPC, EROFS, Fault};
use super::world::{SMALLEST_KIB, Step, World};
use super::*;

/// How the nth operation fails.
#[derive(Clone, Copy, Debug)]
enum Failure {
    Once(i32),
    FromThenOn(i32),
    Crash,
    PowerLoss(u64),
}

fn long() -> bool {
    std::env::var_os("OUTHAUL_TORTURE").is_some()
}

/// Everything a log can do, sealing and evicting included.
fn script() -> Vec<Step> {
    let mut steps = Vec::new();
    for round in 0..if long() { 12 } else { 3 } {
        for samples in [20, 35, 1, 45] {
            steps.push(Step::Append { samples: samples + round % 3 });
        }
        steps.push(Step::Next { endpoint: 0, instants_max: 5 });
        steps.push(Step::Ack { endpoint: 0, part: round as usize % 3 });
        steps.push(Step::Next { endpoint: 1, instants_max: 2 });
        if round % 2 == 1 {
            steps.push(Step::Ack { endpoint: 1, part: 0 });
            steps.push(Step::SaveState { len: 300 * round as usize });
            steps.push(Step::Append { samples: 300 });
        }
        steps.push(Step::Tick { seconds: 40 });
        if round % 4 == 2 {
            steps.push(if round % 8 == 2 { Step::Close } else { Step::Crash });
        }
    }
    steps
}

/// Lives the script with `failure` at the nth operation. Says how many operations there were.
fn live(sync: SyncPolicy, nth: u64, failure: Failure) -> u64 {
    let mut world = World::new(nth, sync, SMALLEST_KIB, None);
    world.power_cut_when_dead = match failure {
        Failure::PowerLoss(seed) => Some(seed.wrapping_add(nth)),
        _ => None,
    };
    // A disk that reads nothing at a start is another story: `a_segment_that_cannot_be_read_at_one_start...` in power.rs.
    world.faults_outlive_the_process = !matches!(failure, Failure::FromThenOn(_));
    world.step(&Step::Fault(match failure {
        Failure::Once(errno) => Fault::Nth { nth, errno },
        Failure::FromThenOn(errno) => Fault::From { nth, errno },
        Failure::Crash | Failure::PowerLoss(_) => Fault::DieAt { nth },
    }));
    for step in script() {
        world.step(&step);
    }
    let operations = world.fs.operations();
    world.finish();
    operations
}

fn every_operation(sync: SyncPolicy, failures: &[Failure]) {
    let operations = live(sync, u64::MAX, Failure::Crash);
    assert!(operations > 200, "{operations}");
    for failure in failures {
        for nth in 1..=operations {
            let lived = std::panic::catch_unwind(|| live(sync, nth, *failure));
            assert!(lived.is_ok(), "{sync:?}, {failure:?} at operation {nth} of {operations}: the reason is above");
        }
    }
    eprintln!("{sync:?}: {operations} operations, each failed in {} ways", failures.len());
}

const FOR_GOOD: [Failure; 3] = [Failure::FromThenOn(EIO), Failure::FromThenOn(ENOSPC), Failure::FromThenOn(EROFS)];

#[test]
fn whichever_operation_fails_once_no_promise_is_broken() {
    every_operation(SyncPolicy::Always, &[Failure::Once(EIO), Failure::Once(ENOSPC)]);
    every_operation(SyncPolicy::Never, &[Failure::Once(EIO), Failure::Once(ENOSPC)]);
}

#[test]
fn from_whichever_operation_on_the_disk_fails_no_promise_is_broken() {
    every_operation(SyncPolicy::Always, &FOR_GOOD);
    every_operation(SyncPolicy::Never, &FOR_GOOD);
}

#[test]
fn whichever_operation_the_process_or_the_machine_ends_in_no_promise_is_broken() {
    let seeds = if long() { 20 } else { 1 };
    let ends: Vec<Failure> = std::iter::once(Failure::Crash).chain((0..seeds).map(Failure::PowerLoss)).collect();
    every_operation(SyncPolicy::Always, &ends);
    every_operation(SyncPolicy::Never, &ends[..1]);
}
