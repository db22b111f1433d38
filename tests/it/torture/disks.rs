//! Disks that are too small, eaten by others, read-only, forbidden, or gone: sampling goes on, it is said, and it is over
//! by itself when the disk is well again.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use outhaul::buffer::{Buffer, OpenError, Status};

use super::cuts::{LoopDisk, is_root};
use super::driver::{self, Orders, Said};
use super::{skip, times};
use crate::bed::{Agent, Guarded, Mood, Recorder, buffer_options, eventually};
use crate::trouble::{Tmpfs, fill};

/// In each record: large enough that 16 MiB are full soon.
const SAMPLES: u64 = 2000;

/// Appends `count` records; says what the last status was. Nothing but a size can make an append fail.
fn append(buffer: &Buffer, first: u64, count: u64) -> Arc<Status> {
    let series = driver::all_series(SAMPLES);
    driver::runtime().block_on(async {
        for id in first..first + count {
            buffer.append(driver::snapshot(&series, id)).await.unwrap();
            driver::balances(buffer);
        }
    });
    buffer.status()
}

fn take_all(buffer: &Buffer) -> Vec<u64> {
    let ids = driver::runtime().block_on(driver::take_all(buffer, SAMPLES));
    driver::balances(buffer);
    ids
}

#[test]
fn a_disk_smaller_than_max_bytes_is_filled_and_then_keeps_the_newest() {
    let disk = Tmpfs::mount("16m");
    let buffer = driver::open(&disk.path().join("buffer"), 64 << 20);
    let count = times(2500, 15_000) as u64;
    let status = append(&buffer, 1, count);
    let ledger = status.endpoints[0].ledger;
    assert!(ledger.evicted.disk > 0 && ledger.pending > 0, "the disk was full: {ledger:?}");
    assert_eq!(ledger.evicted.total(), ledger.evicted.disk, "the oldest on disk went, and nothing else");
    let kept = take_all(&buffer);
    assert_eq!(kept.last(), Some(&count), "the newest is there");
    eventually("with room it writes again", || !buffer.status().degraded);
    let status = append(&buffer, count + 1, 3);
    assert!(!status.degraded);
    assert_eq!(take_all(&buffer), (count + 1..=count + 3).collect::<Vec<_>>());
    eprintln!("16 MiB: {count} records of {SAMPLES} samples appended, the newest {} kept: {ledger:?}", kept.len());
}

#[test]
fn a_disk_that_another_process_eats_and_gives_back_costs_nothing_that_memory_holds() {
    let disk = Tmpfs::mount("16m");
    let buffer = driver::open(&disk.path().join("buffer"), 8 << 20);
    append(&buffer, 1, 50);
    let mut next = 51;
    for _ in 0..times(2, 20) {
        let hog = disk.path().join("hog");
        fill(&hog);
        let mut status = buffer.status();
        while !status.degraded {
            status = append(&buffer, next, 1);
            next += 1;
        }
        std::fs::remove_file(&hog).unwrap();
        eventually("it recovers by itself", || !buffer.status().degraded);
        driver::balances(&buffer);
    }
    let evicted = buffer.status().endpoints[0].ledger.evicted;
    assert_eq!(evicted.total(), 0, "{evicted:?}");
    assert_eq!(take_all(&buffer), (1..next).collect::<Vec<_>>());
}

fn agent(directory: &Path, url: &str) -> Agent {
    Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\n\
         remote_write: [{{name: e, url: \"{url}\", queue_config: {{min_backoff: 100ms, max_backoff: 300ms}}}}]\n\
         buffer: {{path: {}}}\n",
        directory.display(),
    ))
}

fn pending(agent: &Agent) -> f64 {
    agent.metric("outhaul_ledger_pending_samples", &[("remote_name", "e")]).unwrap_or(0.0)
}

#[test]
fn a_file_system_that_turns_read_only_under_a_running_agent_is_said_and_mended_without_it() {
    let mut disk = match LoopDisk::new("ext4", 32) {
        Ok(disk) => disk,
        Err(why) => return skip("a read-only remount", &why),
    };
    let recorder = Recorder::start();
    recorder.set_mood(Mood::Down);
    let mut agent = self::agent(&disk.path().join("buffer"), &recorder.write_url());
    agent.wait_until_ready();
    eventually("samples wait", || pending(&agent) > 100.0);
    // What ext4 does itself when the device fails (`abort` in its manual). An ordinary remount is refused while files are
    // open for writing, as ours are.
    disk.remount("abort").unwrap();
    eventually("it says so", || agent.metric("outhaul_buffer_degraded", &[]) == Some(1.0));
    let before = pending(&agent);
    eventually("sampling goes on", || pending(&agent) > before + 100.0);
    agent.assert_balanced("e");

    // Somebody checks the disk and mounts it again, and does not think of us: the files we have open are of another world.
    disk.mount_over().unwrap();
    eventually("it is well by itself", || agent.metric("outhaul_buffer_degraded", &[]) == Some(0.0));
    recorder.set_mood(Mood::Well);
    eventually("what waited arrives", || pending(&agent) == 0.0);
    agent.terminate();
    // Every tick, also those of the bad time.
    let ticks = recorder.ticks();
    let holes: Vec<_> = ticks.windows(2).filter(|pair| pair[1] - pair[0] > 1500).collect();
    assert_eq!(holes, Vec::<&[i64]>::new(), "{ticks:?}");
    let log = agent.log();
    let account = log.lines().find(|line| line.contains("samples of this buffer so far")).unwrap();
    assert!(account.contains("evicted=0 corrupt=0 pending=0"), "{account}");
}

#[test]
fn an_agent_that_starts_on_a_disk_that_came_up_read_only_sends_what_is_there_and_samples_on() {
    let disk = Tmpfs::mount("8m");
    let buffer = disk.path().join("buffer");
    let recorder = Recorder::start();
    recorder.set_mood(Mood::Down);
    let mut first = self::agent(&buffer, &recorder.write_url());
    eventually("samples wait", || pending(&first) > 300.0);
    first.terminate();

    // As after a start with `errors=remount-ro`.
    disk.remount("ro");
    recorder.set_mood(Mood::Well);
    let mut agent = self::agent(&buffer, &recorder.write_url());
    agent.wait_until_ready();
    eventually("it says so", || agent.metric("outhaul_buffer_degraded", &[]) == Some(1.0));
    let backlog = recorder.ticks().len();
    recorder.wait_for_ticks(backlog + 3);
    assert!(backlog > 0, "what was on disk is sent");
    agent.assert_balanced("e");

    disk.remount("rw");
    eventually("it is well by itself", || agent.metric("outhaul_buffer_degraded", &[]) == Some(0.0));
    recorder.wait_for_ticks(recorder.ticks().len() + 1);
    agent.assert_balanced("e");
    agent.terminate();
    let log = agent.log();
    assert!(!log.contains("panicked"), "{log}");
    let account = log.lines().find(|line| line.contains("samples of this buffer so far")).unwrap();
    assert!(account.contains("refused=0 expired=0 unchanged=0 filtered=0 evicted=0 corrupt=0 pending=0"), "{account}");
}

#[test]
fn a_directory_deleted_under_a_running_agent_is_made_again_and_sampling_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let buffer = directory.path().join("buffer");
    let recorder = Recorder::start();
    let mut agent = agent(&buffer, &recorder.write_url());
    recorder.wait_for_ticks(2);
    for _ in 0..times(1, 20) {
        // The agent makes it again while it is being emptied.
        eventually("it is removed", || std::fs::remove_dir_all(&buffer).is_ok());
        recorder.wait_for_ticks(recorder.ticks().len() + 2);
        assert!(buffer.exists());
        assert_is_in_use(&buffer);
    }
    let elsewhere = directory.path().join("elsewhere");
    std::fs::rename(&buffer, &elsewhere).unwrap();
    eventually("a moved one is made again", || buffer.join("v1").exists());
    recorder.wait_for_ticks(recorder.ticks().len() + 2);
    assert_is_in_use(&buffer);
    eventually("it is well", || agent.metric("outhaul_buffer_degraded", &[]) == Some(0.0));
    agent.assert_balanced("e");
    agent.terminate();
}

/// Nobody else gets at a directory that somebody writes in.
#[track_caller]
fn assert_is_in_use(buffer: &Path) {
    let options = buffer_options(buffer, &[]);
    assert!(matches!(Buffer::open(options), Err(OpenError::InUse { .. })), "it is locked anew");
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Nobody's user id, by convention of every distribution.
const NOBODY: &str = "65534";

#[test]
fn a_directory_that_is_forbidden_for_a_while_costs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    // Root may write anywhere, so a child that is not root has to do it, and must be able to run this program.
    let wrapper = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"].map(str::to_owned);
    let wrapper: &[String] = if is_root() { &wrapper } else { &[] };
    let buffer = directory.path().join("buffer");
    let version = buffer.join("v1");
    // Slow and small enough that memory holds more than what comes until the disk is tried again.
    let orders = Orders { life: 1, count: 280, samples: 800, pause_millis: 25, ..Orders::default() };
    set_mode(directory.path(), 0o777);
    let mut child = Guarded(match driver::command(&buffer, &orders, wrapper).spawn() {
        Ok(child) => child,
        Err(why) => return skip("a forbidden directory", &why.to_string()),
    });
    let output = child.stdout.take().unwrap();
    let heard = Arc::new(Mutex::new(Said::default()));
    let kept = Arc::clone(&heard);
    let reader = std::thread::spawn(move || Said::hear(output, &kept));
    let begun = || !heard.lock().unwrap().durable.is_empty();
    let mut ended = false;
    eventually("it begins or ends", || {
        ended = child.try_wait().unwrap().is_some();
        ended || begun()
    });
    if ended && !begun() {
        return skip("a forbidden directory", "another user cannot run this program here");
    }
    set_mode(&version, 0);
    eventually("it is in trouble", || {
        // Only a new file is refused: it takes until the next segment.
        ended = child.try_wait().unwrap().is_some();
        ended || !heard.lock().unwrap().held.is_empty()
    });
    set_mode(&version, 0o700);
    let status = child.wait().unwrap();
    reader.join().unwrap();
    let said = heard.lock().unwrap();
    assert!(status.success() && said.done, "it came to its end: {status}");
    assert!(!said.held.is_empty(), "it was in trouble");
    assert!(said.durable.last() > said.held.last(), "it recovered by itself");
    let buffer = driver::open(&buffer, orders.max_bytes);
    let rest = driver::runtime().block_on(driver::take_all(&buffer, orders.samples));
    driver::balances(&buffer);
    let all = said.durable.iter().chain(&said.held);
    let missing = all.filter(|id| !said.taken.contains(id) && !rest.contains(id));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&u64>::new());
}
