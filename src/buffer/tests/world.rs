//! A log on a simulated disk, and beside it the simplest account of what it owes: every promise is a function here.
//!
//! The world takes steps, bad ones too, and after each asks every promise. What the account does not claim, because a step
//! made it impossible to know, it says where it gives the claim up.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::sim::{Fault, Rng, SimFs};
use super::*;
use crate::buffer::log::BLOCK_BYTES;
use crate::buffer::pair::Pair;
use crate::buffer::segment::parse_name;

mod damage;
mod promises;

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
/// What every snapshot of this size must fit into, however small the buffer.
const SURELY_FITS_SAMPLES: u32 = 60;
const STATE: &str = "docker unix:///x";

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Append { samples: u32 },
    Next { endpoint: usize, instants_max: usize },
    Ack { endpoint: usize, part: usize },
    SaveState { len: usize },
    Tick { seconds: u64 },
    ClockJump { seconds: i64 },
    Crash,
    PowerLoss { seed: u64 },
    Close,
    Reopen { max_kib: u64, endpoints: u8 },
    Flip { file: usize, bit: usize },
    FlipNote { file: usize, bit: usize },
    Cut { file: usize, len: usize },
    Delete { file: usize },
    DeleteDir,
    Unreadable { file: usize },
    Readable,
    Others { free_kib: u64 },
    OthersGone,
    Fault(Fault),
    NoFault,
}

/// A record as the world knows it.
struct Record {
    snapshot: Snapshot,
    /// Where it is known.
    position: Option<Position>,
}

impl Record {
    fn samples(&self) -> u64 {
        self.snapshot.samples.len() as u64
    }
}

/// What one endpoint is owed and has seen.
#[derive(Default)]
struct Seen {
    /// Appended as durable, not yet acknowledged.
    owed: BTreeSet<u32>,
    owed_samples: u64,
    /// The last it acknowledged and cannot be given again.
    floor: Option<u32>,
    lease: Option<(Lease, Vec<u32>)>,
    /// It was not configured for a while, and segments may have gone meanwhile.
    was_away: bool,
}

impl Seen {
    fn settle(&mut self, id: u32, samples: u64) {
        if self.owed.remove(&id) {
            self.owed_samples -= samples;
        }
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is a claim that was given up or not, or a switch of the test")]
pub(super) struct World {
    pub(super) fs: SimFs,
    options: LogOptions,
    log: Option<Log<SimFs>>,
    now: Instant,
    clock_millis: i64,
    last_id: u32,
    records: BTreeMap<u32, Record>,
    seen: BTreeMap<&'static str, Seen>,
    /// Nothing went wrong in this life of the process: the next one resumes exactly.
    clean_life: bool,
    /// Samples of appends that were only in memory, or cut short: nobody promised them.
    volatile_samples: u64,
    /// Samples a flipped bit may cost, one record each.
    flips: u64,
    flipped: BTreeSet<PathBuf>,
    /// Worse than single flipped bits happened: no bound on `corrupt`.
    wrecked: bool,
    files_were_cut: bool,
    /// The only record after what was cut or deleted may be one whose header is damaged.
    newest_was_flipped: bool,
    /// One of two files of a cursor may not be whole, so that a write that fails may tear the other.
    notes_were_flipped: bool,
    /// Samples whose loss nobody can notice: the last record of a killed process with a flipped bit in its header.
    unnoticed_samples: u64,
    largest_samples: u64,
    /// The last state that was saved as durable, and those tried since.
    state: Option<Vec<u8>>,
    states_tried: Vec<Vec<u8>>,
    /// How the machine ends when the process dies in the middle of an operation: with a power cut of this seed, or not.
    pub(super) power_cut_when_dead: Option<u64>,
    /// A fault that was set stays over the end of a process and also hits the start of the next.
    pub(super) faults_outlive_the_process: bool,
    /// What happened so far, for whoever reads a failure.
    pub(super) restarts: u32,
    pub(super) duplicates: u64,
    /// What every endpoint acknowledged, in records.
    pub(super) acknowledged: u64,
}

impl World {
    pub(super) fn new(seed: u64, sync: SyncPolicy, max_kib: u64, max_age: Option<Duration>) -> Self {
        let options =
            LogOptions { max_bytes: max_kib << 10, max_age, sync, ..options(Path::new("/buffer"), &NAMES[..2]) };
        let mut world = Self {
            fs: SimFs::new(seed),
            options,
            log: None,
            now: Instant::now(),
            clock_millis: 1_700_000_000_000,
            last_id: 0,
            records: BTreeMap::new(),
            seen: BTreeMap::new(),
            clean_life: true,
            volatile_samples: 0,
            flips: 0,
            flipped: BTreeSet::new(),
            wrecked: false,
            files_were_cut: false,
            newest_was_flipped: false,
            notes_were_flipped: false,
            unnoticed_samples: 0,
            largest_samples: 0,
            state: None,
            states_tried: Vec::new(),
            power_cut_when_dead: None,
            faults_outlive_the_process: false,
            restarts: 0,
            duplicates: 0,
            acknowledged: 0,
        };
        world.open_always_succeeds();
        world
    }

    fn log(&mut self) -> &mut Log<SimFs> {
        self.log.as_mut().unwrap()
    }

    /// Which of the configured endpoints, as an index and a name.
    fn endpoint(&self, nth: usize) -> Option<(usize, &'static str)> {
        let index = nth.checked_rem(self.options.endpoints.len())?;
        Some((index, NAMES.into_iter().find(|name| *name == self.options.endpoints[index])?))
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Append { samples } => self.append(*samples),
            Step::Next { endpoint, instants_max } => self.next(*endpoint, *instants_max),
            Step::Ack { endpoint, part } => self.ack(*endpoint, *part),
            Step::SaveState { len } => self.save_state(*len),
            Step::Tick { seconds } => {
                self.now += Duration::from_secs(*seconds);
                self.clock_millis += 1000 * i64::try_from(*seconds).unwrap();
                let now = self.now;
                self.log().tick(now);
            }
            Step::ClockJump { seconds } => self.clock_millis += seconds * 1000,
            Step::Fault(fault) => {
                self.clean_life = false;
                let hides = matches!(fault, Fault::All { op: sim::Op::Read | sim::Op::Look, .. })
                    || matches!(fault, Fault::Nth { .. } | Fault::From { .. });
                self.wrecked |= hides;
                if hides {
                    // What cannot be read now may be read again later: `a_state_saved_while_...` in power.rs.
                    self.state = None;
                }
                self.fs.set(Some(*fault));
            }
            Step::NoFault => self.fs.set(None),
            Step::Others { free_kib } => {
                self.clean_life = false;
                self.fs.set_capacity(64 << 20);
                self.fs.set_others((64 << 20) - (self.fs.take_peak() + (free_kib << 10)).min(64 << 20));
            }
            Step::OthersGone => self.fs.set_others(0),
            Step::Crash | Step::Close | Step::PowerLoss { .. } | Step::Reopen { .. } => self.end_life(step),
            damage => self.damage(damage),
        }
        if self.fs.is_dead() {
            self.restart(self.power_cut_when_dead);
        }
        self.every_promise_holds();
    }

    fn append(&mut self, samples: u32) {
        self.last_id += 1;
        self.clock_millis += 15_000;
        let (id, now) = (self.last_id, self.now);
        let snapshot = identified(id, Timestamp::from_millis(self.clock_millis), samples);
        let fresh_promises = !self.options.endpoints.is_empty();
        let result = self.log().append(snapshot.clone(), now);
        let count = u64::from(samples.max(1));
        self.largest_samples = self.largest_samples.max(count);
        let appended = self.no_io_error_stops_an_append(result, samples);
        let dead = self.fs.is_dead();
        let durable = appended.is_some_and(|appended| appended.durable) && !dead;
        if appended.is_some() || dead {
            let position = appended.filter(|_| !dead).map(|appended| appended.position);
            self.records.insert(id, Record { snapshot, position });
        }
        if !durable {
            self.volatile_samples += count;
            self.clean_life = false;
        } else if fresh_promises {
            self.newest_was_flipped = false;
            for seen in self.seen.values_mut() {
                seen.owed.insert(id);
                seen.owed_samples += count;
            }
        }
    }

    fn next(&mut self, nth: usize, instants_max: usize) {
        let Some((index, name)) = self.endpoint(nth) else { return };
        let lease = self.log().next(index, Limits { instants_max, samples_max: 500 });
        let Some(lease) = lease else {
            self.seen.get_mut(name).unwrap().lease = None;
            return;
        };
        let ids = self.no_record_is_altered(&lease);
        self.order_is_kept_and_what_was_acknowledged_does_not_come_again(name, &ids);
        self.seen.get_mut(name).unwrap().lease = Some((lease, ids));
    }

    /// `part` of the lease, counted from the front; zero is all of it.
    fn ack(&mut self, nth: usize, part: usize) {
        let Some((index, name)) = self.endpoint(nth) else { return };
        let Some((lease, ids)) = self.seen.get_mut(name).unwrap().lease.take() else { return };
        let first = ids.get(..part).filter(|ids| !ids.is_empty());
        let position = first.and_then(|ids| self.records[ids.last().unwrap()].position);
        let (settled, through) = match (first, position) {
            (Some(settled), Some(position)) if position < lease.through => (settled, position),
            _ => (ids.as_slice(), lease.through),
        };
        let samples: u64 = settled.iter().map(|id| self.records[id].samples()).sum();
        let refused = samples / 7;
        let fates = Fates { delivered: samples - refused, refused, ..Fates::default() };
        self.log().ack(index, through.number(), fates);
        // On a disk that others have filled the first file of a cursor may not be made: the next process steps back.
        self.clean_life &= !self.fs.is_in_trouble();
        let Self { seen, records, acknowledged, .. } = self;
        let seen = seen.get_mut(name).unwrap();
        for id in settled {
            seen.settle(*id, records[id].samples());
        }
        *acknowledged += settled.len() as u64;
        seen.floor = settled.last().copied().max(seen.floor);
    }

    fn save_state(&mut self, len: usize) {
        self.last_id += 1;
        let value = [self.last_id.to_le_bytes().to_vec(), vec![7; len]].concat();
        let saved = self.log().save_state(STATE, &value);
        if saved.is_ok() && !self.fs.faulty() {
            self.states_tried.clear();
            self.state = Some(value);
        } else {
            self.states_tried.push(value);
        }
    }

    /// The process ends, one way or another, and another begins.
    fn end_life(&mut self, step: &Step) {
        let power_cut = match step {
            Step::PowerLoss { seed } => Some(*seed),
            Step::Reopen { max_kib, endpoints } => {
                self.options.max_bytes = max_kib << 10;
                let names = NAMES.iter().enumerate().filter(|(index, _)| endpoints >> index & 1 == 1);
                self.options.endpoints = names.map(|(_, name)| (*name).to_owned()).collect();
                None
            }
            Step::Close => {
                let now = self.now;
                self.log().close(now);
                None
            }
            _ => None,
        };
        self.restart(power_cut);
    }

    /// Crash or power loss, and a new process on what is left.
    pub(super) fn restart(&mut self, power_cut: Option<u64>) {
        self.forgive_counts_that_could_not_be_written();
        self.log = None;
        self.restarts += 1;
        // At a start that is another story: `a_segment_that_cannot_be_read_at_one_start_and_can_at_the_next` in power.rs.
        self.every_file_is_readable();
        match power_cut {
            None => self.fs.crash(),
            Some(seed) => {
                self.fs.power_loss(seed);
                self.clean_life = false;
                if self.options.sync != SyncPolicy::Always {
                    self.nothing_is_promised_of_the_past();
                }
            }
        }
        self.open_always_succeeds();
    }

    /// On a disk that takes no writes now the count of an eviction is only in memory until it takes them again:
    /// `what_was_evicted_while_nothing_could_be_written_is_counted_after_a_kill` in power.rs.
    fn forgive_counts_that_could_not_be_written(&mut self) {
        if let Some(log) = self.log.as_ref().filter(|_| self.fs.is_in_trouble()) {
            // What the timer could not sync is in memory again where the disk takes it nowhere else.
            if matches!(self.options.sync, SyncPolicy::Interval(_)) {
                self.unnoticed_samples += log.status().held_in_memory_samples;
            }
            let evicted = log.status().endpoints.iter().map(|endpoint| endpoint.ledger.evicted.total()).max();
            self.unnoticed_samples += evicted.unwrap_or(0);
            // A file that everybody has passed goes also when a cursor could not say so: what was delivered is called corrupt.
            self.wrecked = true;
        }
    }

    /// Without `sync: always` a power cut may take anything that was not sent.
    fn nothing_is_promised_of_the_past(&mut self) {
        self.wrecked = true;
        // With its cursor an endpoint that is not configured now is forgotten too.
        self.seen.retain(|name, _| self.options.endpoints.iter().any(|known| known == name));
        for seen in self.seen.values_mut() {
            seen.owed.clear();
            seen.owed_samples = 0;
        }
        self.state = None;
        self.states_tried.clear();
    }

    /// Everything is well again; what is owed now comes, once.
    pub(super) fn finish(mut self) {
        self.fs.set(None);
        self.faults_outlive_the_process = false;
        self.fs.set_others(0);
        self.it_recovers_by_itself();
        self.options.endpoints = NAMES.iter().map(|name| (*name).to_owned()).collect();
        let now = self.now;
        self.log().close(now);
        self.restart(None);
        for (endpoint, name) in NAMES.into_iter().enumerate() {
            loop {
                self.next(endpoint, 7);
                if self.seen[name].lease.is_none() {
                    break;
                }
                self.ack(endpoint, 0);
                self.every_promise_holds();
            }
        }
        for endpoint in &self.log().status().endpoints {
            assert_eq!(endpoint.ledger.pending, 0, "everything was given out: {endpoint:?}");
        }
    }
}

/// [`series`], each made once.
fn known_series(index: u32) -> Arc<Series> {
    thread_local! {
        static KNOWN: std::cell::RefCell<BTreeMap<u32, Arc<Series>>> = const { std::cell::RefCell::new(BTreeMap::new()) };
    }
    KNOWN.with_borrow_mut(|known| Arc::clone(known.entry(index).or_insert_with(|| series(index))))
}

/// A snapshot whose first value tells it apart from every other; the rest changes a little, not at all, or is odd.
fn identified(id: u32, at: Timestamp, samples: u32) -> Snapshot {
    let odd = [Value::STALE, Value::new(-0.0), Value::from_bits(0xfff8_0000_0000_1234)];
    let value = |index: u32| match index {
        0 => Value::new(f64::from(id)),
        1..=3 => odd[index as usize - 1],
        _ if index.is_multiple_of(2) => Value::new(f64::from(index)),
        _ => Value::new(f64::from(id) * 1000.0 + f64::from(index)),
    };
    Snapshot::new(at, (0..samples.max(1)).map(|index| Sample::new(known_series(index), value(index))).collect())
}

/// A buffer no smaller than this holds what [`SURELY_FITS_SAMPLES`] take beside every small file.
pub(super) const SMALLEST_KIB: u64 = 32 * BLOCK_BYTES / 1024;
