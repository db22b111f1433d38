//! One container: what is known of it, and how events, the list and an inspect change that.
//!
//! Pure. What is not known is `None`, never zero. An event and an inspect that tell of the same start or end count once,
//! whichever comes first.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::counters::{Counters, Restarts};
use super::events::{Action, Death, Event, OomNotice};
use super::metrics::Live;
use super::runs::{FinishedRun, RunKind};
use super::state::{ExitClass, Health, Healthcheck, Liveness, Oom, RestartPolicy, State};
use super::status::StatusText;
use super::wire::{COMPOSE_SERVICE, HealthObject, Inspect, InspectState, ListEntry, WantedLabels, instant, kept};
use crate::model::Timestamp;

/// Two tellings of one start or end may lie this far apart: the engine stamps `StartedAt` and the event separately.
const SAME_MOMENT: Duration = Duration::from_secs(2);
/// A kill for memory this shortly before the end is why it ended.
const OOM_WINDOW: Duration = Duration::from_secs(10);

/// The exit code of what SIGKILL ended, as shells and the engine have it: 128 + 9.
const KILLED: i64 = 137;

/// How a container came to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Origin {
    /// It was there already: what happened before is not ours to count.
    #[default]
    Found,
    /// Its making was seen: everything it did is counted.
    Created,
}

/// How far the engine has answered an inspect of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Inspected {
    /// Not asked yet.
    #[default]
    Never,
    /// It answered once.
    Answered,
    /// It could not: what is known without it has to do.
    Failed,
}

/// Whether its instants were ever compared with the engine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Compared {
    #[default]
    Never,
    Once,
}

/// Whether somebody asked for the end of the current run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Demand {
    #[default]
    None,
    Stop,
}

/// Whether an answer of the engine told of a change that no event had told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// All was known.
    Known,
    /// A change was missed.
    Missed,
}

/// What is known of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    /// As it was created from; not the list's, which turns into an id when the tag moves on.
    pub(crate) image: Option<String>,
    pub(crate) image_id: Option<String>,
    pub(crate) runtime: Option<String>,
    pub(crate) policy: Option<RestartPolicy>,
    /// Those that are wanted.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) state: Option<State>,
    pub(crate) healthcheck: Healthcheck,
    /// Probes that failed in a row, while that is known.
    pub(crate) failing_streak: Option<u64>,
    /// The engine's count, which it resets.
    pub(crate) restart_count: Option<u64>,
    #[serde(with = "millis")]
    pub(crate) started: Option<Timestamp>,
    #[serde(with = "millis")]
    pub(crate) finished: Option<Timestamp>,
    pub(crate) last_exit_code: Option<i64>,
    /// How long the last finished run took.
    pub(crate) last_run: Option<Duration>,
    pub(crate) inspected: Inspected,
    origin: Origin,
    compared: Compared,
    demand: Demand,
    #[serde(with = "millis")]
    oom_at: Option<Timestamp>,
    restarts: Restarts,
    /// Restarts since the last start on demand, as the policy's limit counts them.
    retries: u64,
    /// When an event last changed it, by our clock; the list may or may not show it yet.
    #[serde(skip)]
    pub(crate) touched: Option<Timestamp>,
    /// Do not inspect it before; set when it hung.
    #[serde(skip)]
    pub(crate) inspect_after: Option<Timestamp>,
    /// What was told of it.
    #[serde(skip)]
    pub(crate) live: Live,
}

impl Container {
    /// From its first event.
    pub(crate) fn from_event(event: &Event, name: &str) -> Self {
        let (origin, restarts) = match event.action {
            Action::Create => (Origin::Created, Restarts::from_creation()),
            _ => (Origin::Found, Restarts::default()),
        };
        let (id, name) = (event.id.clone(), name.to_owned());
        let mut made = Self { id, name, origin, restarts, ..Self::default() };
        made.image.clone_from(&event.image);
        made.labels.clone_from(&event.labels);
        made
    }

    /// From its first place in a list.
    pub(crate) fn from_list(entry: &ListEntry, name: &str, wanted: &WantedLabels, counters: &mut Counters) -> Self {
        let id = entry.id.clone().unwrap_or_default();
        let mut found = Self { id, name: name.to_owned(), ..Self::default() };
        found.image = kept(entry.image.as_deref());
        found.labels = entry.labels.as_ref().map(|labels| wanted.pick(labels)).unwrap_or_default();
        found.agree_with_list(entry, counters);
        found
    }

    /// Gives it another name.
    pub(crate) fn rename(&mut self, name: &str) {
        let renamed = name.to_owned();
        self.learn_identity(|container| &mut container.name, renamed);
    }

    /// Applies an event that happened `at`.
    pub(crate) fn apply(&mut self, event: &Event, at: Timestamp, counters: &mut Counters) -> Option<FinishedRun> {
        if let Some(image) = &event.image {
            self.learn_identity(|container| &mut container.image, Some(image.clone()));
        }
        match event.action {
            Action::Create => self.state = self.state.or(Some(State::Created)),
            Action::Start => self.start(at, counters),
            Action::Die(death) => return self.die(death, at, counters),
            Action::Oom => {
                counters.count_oom();
                self.oom_at = Some(at);
            }
            Action::Kill => self.demand = Demand::Stop,
            Action::Stop => {
                self.demand = Demand::Stop;
                if self.state == Some(State::Restarting) {
                    self.state = Some(State::Exited);
                    self.restarts.called_off();
                }
            }
            Action::Pause => self.pause(),
            Action::Unpause => self.state = Some(State::Running),
            Action::Health(health) => self.judge(health, counters),
            Action::Rename | Action::Update | Action::Destroy | Action::Other => {}
        }
        None
    }

    fn start(&mut self, at: Timestamp, counters: &mut Counters) {
        if self.state == Some(State::Running) && self.started.is_some_and(|known| same_moment(known, at)) {
            return;
        }
        counters.count_starts(1);
        // Only the engine itself starts a container that waits for its restart.
        if self.state == Some(State::Restarting) {
            counters.count_restarts(self.restarts.told_by_event());
            self.retries = self.retries.saturating_add(1);
        } else {
            self.retries = 0;
        }
        self.begin_run(at);
    }

    fn begin_run(&mut self, at: Timestamp) {
        self.state = Some(State::Running);
        self.started = Some(at);
        (self.oom_at, self.demand, self.failing_streak) = (None, Demand::None, None);
        // The engine resets it at every start and sends no event (moby `daemon/health.go`, initHealthMonitor).
        if matches!(self.healthcheck, Healthcheck::Present(_)) {
            self.healthcheck = Healthcheck::Present(Health::Starting);
        }
    }

    fn die(&mut self, death: Death, at: Timestamp, counters: &mut Counters) -> Option<FinishedRun> {
        let running = matches!(self.state, Some(State::Running | State::Paused));
        if !running && self.finished.is_some_and(|known| same_moment(known, at)) {
            return None;
        }
        if death.oom == OomNotice::Itself && self.oom_at.is_none() {
            counters.count_oom();
            self.oom_at = Some(at);
        }
        let oom = death.oom == OomNotice::After || self.oom_before(at);
        let class = ExitClass::of(death.exit_code, if oom { Oom::Seen } else { Oom::NotSeen });
        counters.count_exits(class, 1);
        let told = death.ran_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        self.last_run = self.started.filter(|started| *started <= at).map(|started| at.since(started)).or(told);
        (self.last_exit_code, self.finished, self.failing_streak) = (death.exit_code, Some(at), None);
        let again = self.demand == Demand::None
            && self.policy.is_some_and(|policy| policy.restarts(death.exit_code, self.retries));
        self.state = Some(if again { State::Restarting } else { State::Exited });
        Some(FinishedRun { kind: self.run_kind(), outcome: class, took: self.last_run? })
    }

    /// Whether a `die` that nobody asked for looks like a kill for memory, of which nothing was told yet.
    pub(crate) fn awaits_oom(&self, death: Death, at: Timestamp) -> bool {
        let running = matches!(self.state, Some(State::Running | State::Paused));
        let untold = death.oom == OomNotice::Elsewhere && !self.oom_before(at);
        running && untold && self.demand == Demand::None && death.exit_code == Some(KILLED)
    }

    fn oom_before(&self, death: Timestamp) -> bool {
        self.oom_at.is_some_and(|oom| death.since(oom) <= OOM_WINDOW)
    }

    /// The engine ends the probing and stores "unhealthy", which is what it tells after the thaw until the next probe.
    fn pause(&mut self) {
        self.state = Some(State::Paused);
        if matches!(self.healthcheck, Healthcheck::Present(_)) {
            self.healthcheck = Healthcheck::Present(Health::Unhealthy);
        }
    }

    /// A verdict. It counts when it differs from the one before; where that is not known, only if it must have been
    /// "starting", because Podman tells of every probe.
    fn judge(&mut self, health: Health, counters: &mut Counters) {
        let before = match self.healthcheck {
            Healthcheck::Present(before) => Some(before),
            Healthcheck::Unknown | Healthcheck::Absent => (self.origin == Origin::Created).then_some(Health::Starting),
        };
        if before.is_some_and(|before| before != health) {
            counters.count_transition(health);
            self.failing_streak = None;
        }
        self.healthcheck = Healthcheck::Present(health);
    }

    /// Takes over what the list says of a container that no event touched since shortly before.
    pub(crate) fn agree_with_list(&mut self, entry: &ListEntry, counters: &mut Counters) -> Told {
        if self.image.is_none() {
            self.learn_identity(|container| &mut container.image, kept(entry.image.as_deref()));
        }
        if self.image_id.is_none() {
            self.learn_identity(|container| &mut container.image_id, kept(entry.image_id.as_deref()));
        }
        let state = entry.state.as_deref().and_then(State::parse);
        let mut told = Told::Known;
        if self.state.is_some() && state.map(State::liveness) != self.state.map(State::liveness) {
            told = Told::Missed;
        }
        self.state = state;
        let text = StatusText::parse(entry.status.as_deref().unwrap_or(""));
        if let (StatusText::Ended(code), None) = (text, self.last_exit_code) {
            self.last_exit_code = Some(code);
        }
        if state == Some(State::Running) {
            let verdict = match (&entry.health, text) {
                (Some(health), _) => health.verdict(),
                (None, StatusText::Up(verdict)) => verdict,
                _ => None,
            };
            if self.reconsider(verdict, counters) == Told::Missed {
                told = Told::Missed;
            }
            if let Some(health) = &entry.health {
                self.failing_streak = verdict.and_then(|_| health.streak());
            }
        }
        told
    }

    /// A verdict from an answer rather than an event.
    fn reconsider(&mut self, verdict: Option<Health>, counters: &mut Counters) -> Told {
        let Some(verdict) = verdict else { return Told::Known };
        let told = match self.healthcheck {
            Healthcheck::Present(before) if before != verdict => {
                counters.count_transition(verdict);
                Told::Missed
            }
            _ => Told::Known,
        };
        self.healthcheck = Healthcheck::Present(verdict);
        told
    }

    /// Takes over the running state of an inspect's answer; no event of this container is under way.
    pub(crate) fn agree_with_inspect(&mut self, inspect: &Inspect, counters: &mut Counters) -> Told {
        let rise = match inspect.restart_count.and_then(|count| u64::try_from(count).ok()) {
            Some(count) => {
                // The engine counts a restart when the run before it ends.
                let waits = state_word(inspect.state.as_ref()) == Some(State::Restarting);
                let done = count.saturating_sub(u64::from(waits));
                (self.restart_count, self.retries) = (Some(count), done);
                self.restarts.told_by_engine(done)
            }
            None => 0,
        };
        counters.count_restarts(rise);
        let told = inspect.state.as_ref().map_or(Told::Known, |state| self.agree_with_state(state, rise, counters));
        self.compared = Compared::Once;
        told
    }

    /// Takes over from an inspect's answer what does not change while a container lives.
    pub(crate) fn learn_configuration(&mut self, inspect: &Inspect, wanted: &WantedLabels) {
        if let Some(id) = kept(inspect.image.as_deref()) {
            self.learn_identity(|container| &mut container.image_id, Some(id));
        }
        if let Some(config) = &inspect.config {
            if let Some(image) = kept(config.image.as_deref()) {
                self.learn_identity(|container| &mut container.image, Some(image));
            }
            if let Some(labels) = &config.labels {
                self.learn_identity(|container| &mut container.labels, wanted.pick(labels));
            }
            let test = config.healthcheck.as_ref().and_then(|check| check.test.as_ref());
            let configured = test.is_some_and(|test| test.first().is_some_and(|kind| kind != "NONE"));
            if self.healthcheck == Healthcheck::Unknown {
                self.healthcheck =
                    if configured { Healthcheck::Present(Health::Starting) } else { Healthcheck::Absent };
            }
        }
        if let Some(host) = &inspect.host_config {
            if let Some(runtime) = kept(host.runtime.as_deref()) {
                self.learn_identity(|container| &mut container.runtime, Some(runtime));
            }
            let policy = host.restart_policy.as_ref().and_then(|policy| {
                let retries = policy.maximum_retry_count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
                RestartPolicy::parse(policy.name.as_deref().unwrap_or(""), retries)
            });
            if policy.is_some() {
                self.learn_identity(|container| &mut container.policy, policy);
            }
        }
        if self.inspected != Inspected::Answered {
            self.inspected = Inspected::Answered;
            self.live.recheck();
        }
    }

    fn agree_with_state(&mut self, state: &InspectState, rise: u64, counters: &mut Counters) -> Told {
        // What was before the first look is not ours to count.
        let first_look = self.compared == Compared::Never && self.origin == Origin::Found;
        let started = state.started_at.as_deref().and_then(instant);
        let finished = state.finished_at.as_deref().and_then(instant);
        let word = state_word(Some(state));
        // No event tells these states apart, such as "exited" from "restarting" while the policy was not known.
        if word.map(State::liveness) == self.state.map(State::liveness) {
            self.state = word;
        }
        let mut told = Told::Known;
        if let Some(at) = finished.filter(|at| is_news(*at, self.finished)) {
            let ended = word.is_some_and(|state| state.liveness() == Liveness::Stopped);
            let code = state.exit_code.filter(|_| ended);
            let oom = if ended && state.oom_killed == Some(true) { Oom::Seen } else { Oom::NotSeen };
            if !first_look {
                counters.count_exits(ExitClass::Unknown, rise.saturating_sub(1));
                counters.count_exits(ExitClass::of(code, oom), 1);
                told = Told::Missed;
            }
            self.finished = Some(at);
            self.last_run = started.filter(|started| ended && *started <= at).map(|started| at.since(started));
            self.last_exit_code = code.or(self.last_exit_code.filter(|_| first_look));
        }
        if let Some(at) = started.filter(|at| is_news(*at, self.started)) {
            if !first_look {
                counters.count_starts(rise.max(1));
                told = Told::Missed;
            }
            self.started = Some(at);
        }
        if let Some(health) = state.health.as_ref().filter(|_| self.state == Some(State::Running)) {
            self.reconsider(health.verdict(), counters);
            // Known only now; while it fails it is asked again at each tick.
            self.failing_streak = health.streak().filter(|_| self.fails());
        }
        told
    }

    /// Whether its healthcheck fails: then its streak is worth an inspect a tick.
    pub(crate) fn fails(&self) -> bool {
        self.state == Some(State::Running) && self.healthcheck == Healthcheck::Present(Health::Unhealthy)
    }

    /// Notes that an inspect got no answer.
    pub(crate) fn inspect_failed(&mut self) {
        if self.inspected == Inspected::Never {
            self.inspected = Inspected::Failed;
            self.live.recheck();
        }
    }

    /// The latest of its instants that an inspect tells, if it is one no event has told yet.
    pub(crate) fn news(&self, inspect: &Inspect) -> Option<Timestamp> {
        let state = inspect.state.as_ref()?;
        let started = state.started_at.as_deref().and_then(instant).filter(|at| is_news(*at, self.started));
        let finished = state.finished_at.as_deref().and_then(instant).filter(|at| is_news(*at, self.finished));
        started.max(finished)
    }

    /// Changes something that series are labelled with.
    fn learn_identity<T: PartialEq>(&mut self, field: impl FnOnce(&mut Self) -> &mut T, value: T) {
        let known = field(self);
        if *known != value {
            *known = value;
            self.live.recheck();
        }
    }

    fn run_kind(&self) -> RunKind {
        RunKind {
            image: self.image.clone().unwrap_or_default(),
            service: self.labels.get(COMPOSE_SERVICE).cloned().unwrap_or_default(),
        }
    }
}

impl HealthObject {
    fn verdict(&self) -> Option<Health> {
        self.status.as_deref().and_then(Health::parse)
    }

    fn streak(&self) -> Option<u64> {
        self.failing_streak.and_then(|streak| u64::try_from(streak).ok())
    }
}

fn state_word(state: Option<&InspectState>) -> Option<State> {
    state?.status.as_deref().and_then(State::parse)
}

fn same_moment(one: Timestamp, other: Timestamp) -> bool {
    one.since(other).max(other.since(one)) <= SAME_MOMENT
}

/// Whether `at` is later than what is known, and not the same moment told twice.
fn is_news(at: Timestamp, known: Option<Timestamp>) -> bool {
    known.is_none_or(|known| at > known && !same_moment(at, known))
}

/// Instants in the stored state: milliseconds.
mod millis {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::Timestamp;

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
        at.map(Timestamp::millis).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
        Ok(Option::<i64>::deserialize(deserializer)?.map(Timestamp::from_millis))
    }
}
