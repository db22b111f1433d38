//! The small world behind the simulated engine: the containers of a shop's till, and what happens to them.
//!
//! Pure: time is handed in, chance comes from a seed, so the same seed and the same instants give the same life. Events
//! come in time order, each at an instant of its own. However far time jumps, one call does a bounded amount of work. The
//! rules that a real engine follows are followed here: exit code and OOM flag are cleared by a start, only restarts by
//! policy are counted, and their delay doubles from 100 ms to 1 min until a run lasts 10 s
//! (moby `daemon/container/state.go`, `restartmanager.go`).

use std::collections::BTreeMap;

use super::cast::cast;
use super::chance::Chance;
use crate::model::Timestamp;

/// Nanoseconds since the Unix epoch, as the engine tells time.
pub(super) type Nanos = i64;

pub(super) const MILLISECOND: Nanos = 1_000_000;
pub(super) const SECOND: Nanos = 1000 * MILLISECOND;

/// The most things that happen in one call of [`World::advance`]; after a longer sleep the rest is skipped.
const MAX_STEPS: usize = 1000;

/// The delay of the first restart by policy (moby `restartmanager.go`).
const BACKOFF_MIN: Nanos = 100 * MILLISECOND;
/// The longest delay of a restart by policy.
const BACKOFF_MAX: Nanos = 60 * SECOND;
/// A run this long makes the next delay short again.
const BACKOFF_RESET: Nanos = 10 * SECOND;

/// Probes that must fail in a row before a container is unhealthy: the engine's default.
const HEALTH_RETRIES: u32 = 3;
/// How many probe results the engine keeps.
const HEALTH_LOG: usize = 5;

/// What the engine tells about a container at an instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) action: String,
    pub(super) id: String,
    pub(super) image: String,
    /// Labels, image, name and details, in one map as the engine has them.
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) at: Nanos,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Created,
    Running,
    /// Ended, and waiting to be started again by its policy.
    Restarting,
    Exited,
    /// Not there: never shown.
    Absent,
}

/// What the engine's probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Starting,
    Healthy,
    Unhealthy,
}

/// One probe.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) start: Nanos,
    pub(super) end: Nanos,
    pub(super) failed: bool,
}

/// A healthcheck and what it found.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) command: &'static str,
    pub(super) interval: Nanos,
    pub(super) health: Health,
    pub(super) failing_streak: u32,
    pub(super) log: Vec<Probe>,
    /// Whether what is probed works at the moment.
    pub(super) works: bool,
}

/// Why a container's life is not dull.
#[derive(Clone, Copy, Debug)]
pub(super) enum Nature {
    /// Nothing happens, but its probe is run.
    Steady,
    /// Its probe fails now and then, until somebody turns it off and on again.
    Flapping,
    /// Somebody restarts it from time to time.
    Restarted,
    /// It runs for 300 ms every few seconds and leaves nothing behind.
    Job,
    /// It ends with an error soon after each start.
    Crashing,
    /// It takes more memory than it may have, now and then.
    Leaking,
}

/// Something that happens to a container.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Create,
    Start,
    Kill,
    Oom,
    Die,
    Destroy,
    Probe,
    /// The end of the probe that began then, with its number.
    Probed(Nanos, u64),
}

/// A container as the engine knows it.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: &'static str,
    pub(super) image: &'static str,
    pub(super) image_id: String,
    pub(super) command: &'static [&'static str],
    pub(super) labels: BTreeMap<String, String>,
    pub(super) restart_policy: &'static str,
    pub(super) memory_limit: u64,
    pub(super) created: Nanos,
    pub(super) state: State,
    pub(super) started: Option<Nanos>,
    pub(super) finished: Option<Nanos>,
    pub(super) exit_code: i64,
    pub(super) oom_killed: bool,
    pub(super) restart_count: u64,
    pub(super) check: Option<Check>,
    pub(super) pid: i64,
    pub(super) nature: Nature,
    pub(super) backoff: Nanos,
    /// What happens to it next, and when.
    pub(super) due: Option<(Nanos, Step)>,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct World {
    containers: Vec<Container>,
    chance: Chance,
    told: Vec<Event>,
    latest: Nanos,
}

impl World {
    /// The world at `now`, with some past; one seed always makes the same one.
    pub(super) fn new(seed: u64, now: Timestamp) -> Self {
        let now = nanos(now);
        let mut chance = Chance(seed);
        let containers = cast().into_iter().map(|role| role.enter(now, &mut chance)).collect();
        Self { containers, chance, told: Vec::new(), latest: now }
    }

    /// Lets happen what is due until `now`, and tells it in order.
    pub(super) fn advance(&mut self, now: Timestamp) -> Vec<Event> {
        let now = nanos(now);
        for _ in 0..MAX_STEPS {
            match self.next() {
                Some((due, index)) if due <= now => self.step(index, due),
                _ => return std::mem::take(&mut self.told),
            }
        }
        // The machine slept. Nobody missed anything: the world slept too.
        for container in &mut self.containers {
            container.due = container.due.map(|(due, step)| (due.max(now + SECOND), step));
        }
        std::mem::take(&mut self.told)
    }

    /// When something happens next.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.next().map(|(due, _)| Timestamp::from_nanos(due.saturating_add(MILLISECOND - 1)))
    }

    /// The containers that are there, newest first, as the engine lists them.
    pub(super) fn containers(&self) -> Vec<&Container> {
        let mut present: Vec<&Container> =
            self.containers.iter().filter(|container| container.state != State::Absent).collect();
        present.sort_by_key(|container| std::cmp::Reverse(container.created));
        present
    }

    fn next(&self) -> Option<(Nanos, usize)> {
        let due = |(index, container): (usize, &Container)| Some((container.due?.0, index));
        self.containers.iter().enumerate().filter_map(due).min()
    }

    /// Does what is due for a container and plans what comes then.
    fn step(&mut self, index: usize, at: Nanos) {
        let Some((_, step)) = self.containers[index].due.take() else { return };
        let then = match step {
            Step::Create => {
                let container = &mut self.containers[index];
                (container.id, container.created) = (self.chance.hex64(), at);
                (container.state, container.started, container.finished) = (State::Created, None, None);
                self.tell(index, "create", &[], at);
                (120 * MILLISECOND, Step::Start)
            }
            Step::Start => self.start(index, at),
            Step::Kill => {
                self.tell(index, "kill", &[("signal", "15")], at);
                (80 * MILLISECOND, Step::Die)
            }
            Step::Oom => {
                self.tell(index, "oom", &[], at);
                self.containers[index].oom_killed = true;
                (20 * MILLISECOND, Step::Die)
            }
            Step::Die => self.die(index, at),
            Step::Destroy => {
                self.tell(index, "destroy", &[], at);
                self.containers[index].state = State::Absent;
                (self.chance.between(3000, 7000) * MILLISECOND, Step::Create)
            }
            Step::Probe => self.begin_probe(index, at),
            Step::Probed(began, exec) => self.end_probe(index, began, exec, at),
        };
        self.containers[index].due = Some((at.saturating_add(then.0), then.1));
    }

    fn start(&mut self, index: usize, at: Nanos) -> (Nanos, Step) {
        let pid = self.chance.between(1000, 30_000);
        let container = &mut self.containers[index];
        let was = container.state;
        (container.state, container.pid) = (State::Running, pid);
        (container.started, container.exit_code, container.oom_killed) = (Some(at), 0, false);
        // Only the policy's restarts are counted, and one by hand begins the count anew.
        container.restart_count = if was == State::Restarting { container.restart_count + 1 } else { 0 };
        if let Some(check) = &mut container.check {
            (check.health, check.failing_streak, check.works) = (Health::Starting, 0, true);
            check.log.clear();
        }
        let nature = container.nature;
        self.tell(index, "start", &[], at);
        match nature {
            Nature::Job => (300 * MILLISECOND, Step::Die),
            Nature::Leaking => (self.chance.between(25_000, 70_000) * MILLISECOND, Step::Oom),
            // Now and then it holds for a while, which makes its delay short again.
            Nature::Crashing if self.chance.one_in(9) => (self.chance.between(11_000, 20_000) * MILLISECOND, Step::Die),
            Nature::Crashing => (self.chance.between(200, 900) * MILLISECOND, Step::Die),
            Nature::Steady | Nature::Flapping => {
                self.tell(index, "restart", &[], at);
                (SECOND, Step::Probe)
            }
            Nature::Restarted => {
                self.tell(index, "restart", &[], at);
                (self.chance.between(90, 180) * SECOND, Step::Kill)
            }
        }
    }

    fn die(&mut self, index: usize, at: Nanos) -> (Nanos, Step) {
        let container = &mut self.containers[index];
        let (state, exit_code) = match container.nature {
            Nature::Crashing => (State::Restarting, 1),
            Nature::Leaking => (State::Restarting, 137),
            _ => (State::Exited, 0),
        };
        let lived = at - container.started.unwrap_or(at);
        container.backoff =
            if lived >= BACKOFF_RESET { BACKOFF_MIN } else { (container.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX) };
        (container.state, container.exit_code, container.finished, container.pid) = (state, exit_code, Some(at), 0);
        if let Some(check) = &mut container.check {
            // The engine does so too, and tells nobody.
            check.health = Health::Unhealthy;
        }
        let (nature, backoff) = (container.nature, container.backoff);
        self.tell(index, "die", &[("exitCode", &exit_code.to_string())], at);
        match nature {
            Nature::Job => (10 * MILLISECOND, Step::Destroy),
            Nature::Crashing | Nature::Leaking => (backoff, Step::Start),
            Nature::Steady | Nature::Flapping | Nature::Restarted => {
                self.tell(index, "stop", &[], at);
                (200 * MILLISECOND, Step::Start)
            }
        }
    }

    fn begin_probe(&mut self, index: usize, at: Nanos) -> (Nanos, Step) {
        let exec = self.chance.next();
        self.tell_probe(index, "exec_create", exec, at);
        self.tell_probe(index, "exec_start", exec, at);
        (self.chance.between(20, 80) * MILLISECOND, Step::Probed(at, exec))
    }

    fn end_probe(&mut self, index: usize, began: Nanos, exec: u64, at: Nanos) -> (Nanos, Step) {
        let (breaks, mends) = (self.chance.one_in(6), self.chance.one_in(5));
        let container = &mut self.containers[index];
        let flapping = matches!(container.nature, Nature::Flapping);
        let Some(check) = &mut container.check else { return (BACKOFF_MAX, Step::Probe) };
        if flapping && check.works {
            check.works = !breaks;
        }
        let (interval, failed) = (check.interval, !check.works);
        let changed = check.record(Probe { start: began, end: at, failed });
        self.tell(index, "exec_die", &[("execID", &exec_id(exec)), ("exitCode", if failed { "1" } else { "0" })], at);
        if let Some(health) = changed {
            self.tell(index, &format!("health_status: {}", health.word()), &[], at);
        }
        // Somebody turns it off and on again.
        let mended = mends && changed.is_none() && self.containers[index].health() == Some(Health::Unhealthy);
        (interval, if mended { Step::Kill } else { Step::Probe })
    }

    fn tell_probe(&mut self, index: usize, action: &str, exec: u64, at: Nanos) {
        let command = self.containers[index].check.as_ref().map_or("", |check| check.command);
        self.tell(index, &format!("{action}: /bin/sh -c {command}"), &[("execID", &exec_id(exec))], at);
    }

    /// Notes an event; each is later than the one before it.
    fn tell(&mut self, index: usize, action: &str, details: &[(&str, &str)], at: Nanos) {
        self.latest = at.max(self.latest + 1) + self.chance.between(0, 999);
        let container = &self.containers[index];
        let mut attributes = container.labels.clone();
        attributes.insert("image".into(), container.image.into());
        attributes.insert("name".into(), container.name.into());
        attributes.extend(details.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let (id, image) = (container.id.clone(), container.image.to_owned());
        self.told.push(Event { action: action.to_owned(), id, image, attributes, at: self.latest });
    }
}

impl Container {
    /// What its probe says, if it has one.
    pub(super) fn health(&self) -> Option<Health> {
        self.check.as_ref().map(|check| check.health)
    }
}

impl State {
    /// The engine's word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Exited | Self::Absent => "exited",
        }
    }

    /// Whether the engine counts it among the running ones: it does so with those that wait for a restart.
    pub(super) fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Restarting)
    }
}

impl Health {
    /// The engine's word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

impl Check {
    /// Takes in a probe's result; the new health where it changed.
    fn record(&mut self, probe: Probe) -> Option<Health> {
        if self.log.len() == HEALTH_LOG {
            self.log.remove(0);
        }
        self.log.push(probe);
        let before = self.health;
        self.failing_streak = if probe.failed { self.failing_streak + 1 } else { 0 };
        if !probe.failed {
            self.health = Health::Healthy;
        } else if self.failing_streak >= HEALTH_RETRIES {
            self.health = Health::Unhealthy;
        }
        (self.health != before).then_some(self.health)
    }
}

/// An exec's id: 64 hexadecimal digits, as the engine names things.
fn exec_id(number: u64) -> String {
    Chance(number).hex64()
}

/// The engine's time.
pub(super) fn nanos(at: Timestamp) -> Nanos {
    at.millis().saturating_mul(MILLISECOND)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_795_000_000_000);

    /// Ten minutes of the world in steps of `step`.
    fn life(step: Duration) -> (World, Vec<Event>) {
        let mut world = World::new(7, START);
        let (mut now, mut events) = (START, Vec::new());
        while now < START.plus(Duration::from_secs(600)) {
            now = now.plus(step);
            events.extend(world.advance(now));
        }
        (world, events)
    }

    #[test]
    fn events_come_in_time_order_and_do_not_depend_on_how_often_one_looks() {
        let (_, often) = life(Duration::from_millis(50));
        let (_, rarely) = life(Duration::from_secs(20));
        assert!(often.windows(2).all(|pair| pair[0].at < pair[1].at));
        assert_eq!(often, rarely);
    }

    #[test]
    fn everything_that_an_observer_must_cope_with_happens_within_ten_minutes() {
        let (_, events) = life(Duration::from_millis(500));
        let wanted = [
            "create",
            "start",
            "die",
            "destroy",
            "oom",
            "kill",
            "stop",
            "restart",
            "exec_die",
            "health_status: unhealthy",
            "health_status: healthy",
        ];
        for action in wanted {
            assert!(events.iter().any(|event| event.action == action), "no {action}");
        }
    }

    #[test]
    fn a_job_lives_for_300_ms_and_has_a_new_id_each_time() {
        let (_, events) = life(Duration::from_millis(500));
        let of = |action: &str| -> Vec<&Event> {
            events.iter().filter(|event| event.attributes["name"] == "stock-sync" && event.action == action).collect()
        };
        let (starts, ends) = (of("start"), of("die"));
        assert!(ends.len() > 50);
        for (start, end) in starts.iter().zip(&ends) {
            assert_eq!(start.id, end.id);
            assert_eq!((end.at - start.at + MILLISECOND / 2) / MILLISECOND, 300, "{start:?} {end:?}");
        }
        assert_ne!(starts[0].id, starts[1].id);
    }

    #[test]
    fn restarts_by_policy_wait_twice_as_long_each_time_up_to_a_minute_until_a_run_lasted() {
        let mut world = World::new(3, START);
        let loyalty = world.containers.iter().position(|container| container.name == "loyalty").unwrap();
        let (mut at, mut delays) = (nanos(START), Vec::new());
        for _ in 0..12 {
            world.start(loyalty, at);
            at += SECOND;
            delays.push(world.die(loyalty, at).0 / MILLISECOND);
        }
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
        assert_eq!(world.containers[loyalty].restart_count, 11);
        world.start(loyalty, at);
        assert_eq!(world.die(loyalty, at + BACKOFF_RESET).0, BACKOFF_MIN);
    }

    #[test]
    fn a_start_clears_exit_code_and_oom_flag() {
        let mut world = World::new(3, START);
        let camera = world.containers.iter().position(|container| container.name == "camera").unwrap();
        let next = |world: &mut World| {
            let due = world.containers[camera].due.unwrap().0;
            world.step(camera, due);
            let container = &world.containers[camera];
            (container.state, container.exit_code, container.oom_killed, container.restart_count)
        };
        assert_eq!(next(&mut world), (State::Running, 0, true, 0));
        assert_eq!(next(&mut world), (State::Restarting, 137, true, 0));
        assert_eq!(next(&mut world), (State::Running, 0, false, 1));
    }

    #[test]
    fn what_is_told_has_happened() {
        let mut world = World::new(5, START);
        for second in 1..100 {
            let now = START.plus(Duration::from_secs(second));
            let end = nanos(now.plus(Duration::from_millis(1)));
            assert!(world.advance(now).iter().all(|event| event.at < end));
            assert!(
                world
                    .containers()
                    .iter()
                    .all(|container| container.started < Some(end) && container.finished < Some(end))
            );
            assert!(world.next_due().unwrap() > now);
        }
    }

    #[test]
    fn a_year_of_sleep_is_bounded_work_and_life_goes_on_after_it() {
        let mut world = World::new(1, START);
        let later = START.plus(Duration::from_secs(365 * 24 * 3600));
        let events = world.advance(later);
        assert!(events.len() < 5 * MAX_STEPS);
        assert!(world.next_due().unwrap() >= later);
        assert!(!world.advance(later.plus(Duration::from_secs(60))).is_empty());
    }
}
