//! A process that is killed at any moment, or at an exact system call, has lost nothing that it acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outhaul::encode::Decoded;
use outhaul::receive::{self, Line};
use tokio::sync::{mpsc, oneshot};

use super::driver::{self, LIFE, Orders, Said};
use super::{Random, skip, times};
use crate::bed::{Agent, Guarded, Mood, Recorder, eventually};

/// Samples in each record of these tests.
const SAMPLES: u64 = 4;

/// A receiver on a line that can be cut, which keeps what it got in little room.
struct Receiver {
    url: String,
    line: Line,
    got: Arc<Mutex<Got>>,
    _stop: oneshot::Sender<()>,
}

#[derive(Default)]
struct Got {
    /// Series index and id.
    values: BTreeMap<(u64, u64), f64>,
    duplicates: usize,
    contradictions: usize,
}

impl Receiver {
    fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}/write", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let (line, got) = (Line::default(), Arc::new(Mutex::new(Got::default())));
        let (served, kept) = (line.clone(), Arc::clone(&got));
        std::thread::spawn(move || {
            driver::runtime().block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let (taken, mut queue) = mpsc::channel(16);
                let until = async {
                    stopped.await.ok();
                };
                let keeps = async {
                    while let Some(decoded) = queue.recv().await {
                        kept.lock().unwrap().take(decoded);
                    }
                };
                let (result, ()) = tokio::join!(receive::serve(listener, taken, served, until), keeps);
                result.unwrap();
            });
        });
        Self { url, line, got, _stop: stop }
    }
}

impl Got {
    fn take(&mut self, decoded: Decoded) {
        for series in decoded.series {
            let index = series.labels.iter().find(|label| *label.name == *"index").unwrap();
            let index: u64 = index.value.parse().unwrap();
            for (at, value) in series.samples {
                let value = value.number();
                match self.values.insert((index, driver::id_of(at)), value) {
                    Some(before) if before.to_bits() == value.to_bits() => self.duplicates += 1,
                    Some(_) => self.contradictions += 1,
                    None => {}
                }
            }
        }
    }
}

#[test]
fn a_process_killed_again_and_again_under_load_delivers_everything_it_acknowledged() {
    let lives = times(25, 1000) as u64;
    let mut random = Random::new();
    let directory = tempfile::tempdir().unwrap();
    let receiver = Receiver::start();
    let mut durable = BTreeSet::new();
    let mut cuts = 0;
    for life in 1..=lives {
        let orders = Orders { life, url: Some(receiver.url.clone()), samples: SAMPLES, ..Orders::default() };
        let (mut child, output) = driver::start(directory.path(), &orders);
        let reader = std::thread::spawn(move || Said::read(output));
        if random.between(0, 1) == 0 {
            receiver.line.cut();
            cuts += 1;
        }
        // The moment is the point of the test: nothing is waited for here.
        std::thread::sleep(Duration::from_millis(random.between(1, 150)));
        receiver.line.mend();
        std::thread::sleep(Duration::from_millis(random.between(1, 150)));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = reader.join().unwrap();
        assert!(said.held.is_empty(), "a disk that is well keeps what it is given");
        durable.extend(said.durable);
    }
    // One that has nothing to append ships what is left.
    let orders =
        Orders { life: lives + 1, count: 1, url: Some(receiver.url.clone()), samples: SAMPLES, ..Orders::default() };
    let (mut child, output) = driver::start(directory.path(), &orders);
    let said = Said::read(output);
    assert!(child.wait().unwrap().success() && said.done, "the last life drains and its ledger balances");
    durable.extend(said.durable);

    let got = receiver.got.lock().unwrap();
    assert_eq!(got.contradictions, 0);
    let missing = durable.iter().filter(|id| (0..SAMPLES).any(|index| !got.values.contains_key(&(index, **id))));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&u64>::new(), "acknowledged and never delivered");
    let mut unacknowledged = BTreeSet::new();
    for ((index, id), number) in &got.values {
        assert_eq!(number.to_bits(), driver::value(*id, *index).to_bits(), "altered: series {index} of record {id}");
        if !durable.contains(id) {
            unacknowledged.insert(id / LIFE);
        }
    }
    let extra = got.values.len() as u64 / SAMPLES - durable.len() as u64;
    assert!(extra <= unacknowledged.len() as u64, "at most the one record a life was killed in");
    // A request is one record: a kill, or a cut between it and its answer, repeats no more than that.
    assert!(got.duplicates as u64 <= (lives + 2 * cuts) * SAMPLES, "{} duplicates", got.duplicates);
    assert!(durable.len() as u64 > lives, "the load was one: {}", durable.len());
    eprintln!(
        "{lives} kills: {} records acknowledged, 0 missing, 0 altered, {extra} delivered without having been \
         acknowledged, {} samples delivered twice",
        durable.len(),
        got.duplicates
    );
}

/// Fates that are losses.
const LOST: [&str; 8] = [
    "refused",
    "expired",
    "corrupt",
    "evicted_size",
    "evicted_age",
    "evicted_memory",
    "evicted_disk",
    "evicted_purged",
];
/// Agents that are killed side by side, each with a buffer and receivers of its own: most of a life is waiting for a tick.
const AGENTS: usize = 4;

#[test]
fn the_real_agent_killed_again_and_again_delivers_every_tick_of_what_it_sampled() {
    let lives = times(1, 250);
    std::thread::scope(|scope| {
        for number in 0..AGENTS as u64 {
            scope.spawn(move || killed_and_complete(lives, Random::new().nth(number)));
        }
    });
    eprintln!("{} kills of the agent: every sample of every tick is at both receivers", AGENTS * lives);
}

/// One agent that is killed so often, with one receiver that is always well, and one that is so only now and then.
fn killed_and_complete(lives: usize, mut random: Random) {
    let (recorder, witness) = (Recorder::start(), Recorder::start());
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\n\
         remote_write:\n  \
         - {{name: e, url: \"{}\", queue_config: {{min_backoff: 30ms, max_backoff: 100ms}}}}\n  \
         - {{name: w, url: \"{}\"}}\n",
        recorder.write_url(),
        witness.write_url(),
    ));
    for _ in 0..lives {
        let before = witness.ticks().len();
        eventually("it samples", || witness.ticks().len() > before);
        recorder.set_mood([Mood::Well, Mood::Down, Mood::Forgetful][random.below(3)]);
        std::thread::sleep(Duration::from_millis(random.between(1, 1000)));
        agent.kill9();
        recorder.set_mood([Mood::Well, Mood::Down, Mood::Forgetful][random.below(3)]);
        agent.start_again();
    }
    recorder.set_mood(Mood::Well);
    witness.wait_for_ticks(witness.ticks().len() + 2);
    agent.wait_until_ready();
    for endpoint in ["e", "w"] {
        agent.assert_balanced(endpoint);
        for fate in LOST {
            let lost = agent.metric("outhaul_ledger_samples_total", &[("remote_name", endpoint), ("fate", fate)]);
            assert_eq!(lost, Some(0.0), "{fate} of {endpoint}");
        }
    }
    agent.terminate();
    assert_eq!(recorder.contradictions(), Vec::<String>::new());
    assert_eq!(witness.contradictions(), Vec::<String>::new());
    // Each endpoint has a cursor of its own: whatever one has, was appended, so the other has it too.
    assert_eq!(recorder.samples(), witness.samples());
}

/// System calls that change the disk, or say that it was changed, and every how manyth one the short form takes.
const CALLS: [(&str, usize); 6] =
    [("pwrite64", 20), ("fdatasync", 20), ("openat", 20), ("write", 20), ("fsync", 3), ("unlink", 1)];
/// Large enough that segments are finished and removed in the course of it.
const LARGE_SAMPLES: u64 = 3000;
const LARGE_COUNT: u64 = 80;

#[test]
fn a_process_killed_at_any_system_call_has_lost_nothing_it_acknowledged() {
    // Where tracing is forbidden it starts and fails.
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).output().is_ok_and(|output| output.status.success()) {
        return skip("kills at the nth system call", "strace is not there or does not run");
    }
    let mut random = Random::new();
    for (call, step) in CALLS {
        let step = times(step, 1);
        let first = usize::try_from(random.between(1, step as u64)).unwrap();
        let killed = (first..).step_by(step).take_while(|nth| is_killed_at(call, *nth)).count();
        assert!(killed > 0, "{call} is never called");
        eprintln!(
            "killed at {killed} calls of {call}, one in {step} from number {first} to the last: 0 records missing"
        );
    }
}

/// Whether the process came as far as the nth call; it has lost nothing either way.
fn is_killed_at(call: &str, nth: usize) -> bool {
    let directory = tempfile::tempdir().unwrap();
    let orders = Orders { life: 1, count: LARGE_COUNT, samples: LARGE_SAMPLES, ..Orders::default() };
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={nth}"));
    let wrapper = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let wrapper: Vec<String> = wrapper.iter().map(|word| (*word).to_owned()).collect();
    let mut child = Guarded(driver::command(directory.path(), &orders, &wrapper).spawn().unwrap());
    let said = Said::read(child.stdout.take().unwrap());
    child.wait().unwrap();
    let buffer = driver::open(directory.path(), orders.max_bytes);
    let rest = driver::runtime().block_on(driver::take_all(&buffer, LARGE_SAMPLES));
    driver::balances(&buffer);
    let missing = said.durable.iter().filter(|id| !said.taken.contains(id) && !rest.contains(id));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&u64>::new(), "killed at the {nth}th {call}");
    !said.done
}
