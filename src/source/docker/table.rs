//! The containers as they are known: fed with events, lists and inspects, it answers samples. Pure and synchronous.
//!
//! Per series, the times it tells never run backwards: an event that comes late is stamped just after what was told
//! before, and counted. Counters never decrease. What ends, ends once, with a stale marker under the labels it had.
//! Nothing grows without a named bound. It never asks a clock and never does I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::container::{Container, Told};
use super::events::{Action, Event};
use super::filter::Choice;
use super::inspects::{Inspects, PENALTY};
use super::metrics::{Families, Which, end_all, settle, tell};
use super::names::Names;
use super::runs::{Added, FinishedRun, Runs};
use super::seen::{Novelty, Seen};
use super::wire::{Inspect, List, ListEntry, WantedLabels, own_name};
use crate::model::{Sample, Timestamp};
use crate::source::{Observation, Scope};

/// The most containers that are watched; what comes after is left out and counted.
pub(crate) const MAX_CONTAINERS: usize = 5000;
/// How long after a tick's instant events are still awaited, and how long the list may lag behind them.
pub(crate) const SETTLE: Duration = Duration::from_millis(250);
/// How many removed containers are remembered, so that a list that lags behind does not bring them back.
const REMEMBERED_REMOVED: usize = 256;

/// What the table is told once.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Which containers.
    pub(crate) choice: Choice,
    /// Which of their labels.
    pub(crate) wanted: WantedLabels,
    /// Runs shorter than this are added up.
    pub(crate) interval: Duration,
    /// Everything up to here was told by a former life and is in the buffer.
    pub(crate) recorded_until: Option<Timestamp>,
}

/// What happened that is not a sample; taken by [`Table::take_notes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// Events that came late and were stamped later than they happened.
    pub(crate) late: u64,
    /// Containers left out beyond [`MAX_CONTAINERS`].
    pub(crate) containers_refused: u64,
    /// Names forgotten beyond [`super::names::KEPT_NAMES`].
    pub(crate) names_forgotten: u64,
    /// Short runs counted without image and service beyond [`super::runs::MAX_KINDS`].
    pub(crate) runs_merged: u64,
}

/// All that is known.
#[derive(Debug)]
pub(crate) struct Table {
    pub(super) settings: Settings,
    pub(super) families: Families,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) names: Names,
    pub(super) runs: Runs,
    pub(super) seen: Seen,
    inspects: Inspects,
    removed: VecDeque<(String, Timestamp)>,
    /// Stale markers for the next tick.
    ended: Vec<Sample>,
    runs_stamp: Timestamp,
    /// The time of the last observation.
    told_until: Timestamp,
    /// The time of the last tick's observation.
    ticked: Timestamp,
    listed: bool,
    notes: Notes,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(settings: Settings, families: Families) -> Self {
        let told_until = settings.recorded_until.unwrap_or(Timestamp::MIN);
        Self {
            settings,
            families,
            containers: BTreeMap::new(),
            names: Names::default(),
            runs: Runs::default(),
            seen: Seen::default(),
            inspects: Inspects::default(),
            removed: VecDeque::new(),
            ended: Vec::new(),
            runs_stamp: Timestamp::MIN,
            told_until,
            ticked: told_until,
            listed: false,
            notes: Notes::default(),
        }
    }

    /// Sets the host's name, which many series are labelled with.
    pub(crate) fn set_hostname(&mut self, hostname: &str) {
        self.families.set_hostname(hostname);
        self.containers.values_mut().for_each(|container| container.live.recheck());
    }

    /// The time at which `event` is told: its own, unless something later was told already.
    fn stamp(&self, event: &Event, now: Timestamp) -> Timestamp {
        let after = |told: Timestamp| Timestamp::from_millis(told.millis().saturating_add(1));
        let known = self.containers.get(&event.id).map(|container| container.name.as_str());
        let names = known.into_iter().chain(event.name.as_deref()).map(|name| self.names.stamp(name));
        let runs = matches!(event.action, Action::Die(_)).then_some(self.runs_stamp);
        let told = names.chain(runs).chain([self.ticked]).map(after);
        told.fold(own_time(event, now).max(self.told_until), Timestamp::max)
    }

    /// Whether `event` belongs before a tick at `at`.
    pub(crate) fn belongs_before(&self, event: &Event, at: Timestamp) -> bool {
        event.at() <= at && self.stamp(event, at) <= at
    }

    /// Applies an event that is heard `now`. Returns what it changed.
    pub(crate) fn apply(&mut self, event: &Event, now: Timestamp) -> Option<Observation> {
        if self.seen.note(event) == Novelty::Repeated {
            return None;
        }
        let recorded = self.settings.recorded_until.is_some_and(|until| event.at() <= until);
        let which = if recorded { Which::Nothing } else { Which::Changed };
        let stamp = self.stamp(event, now);
        let known = self.containers.get(&event.id).map(|container| container.name.clone());
        let name = event.name.clone().or_else(|| known.clone())?;
        let mut samples = Vec::new();
        if event.action == Action::Destroy {
            self.remove(&event.id, stamp, now, &mut samples);
        } else if self.place(event, &name, stamp, &mut samples) == Placed::InTable {
            let run = self.change(event, which, now, &mut samples);
            if let Some(run) = run.filter(|run| run.took < self.settings.interval) {
                self.add_run(&run, which, stamp, &mut samples);
            }
        }
        settle(&mut samples);
        if recorded || samples.is_empty() {
            return None;
        }
        let own = own_time(event, now);
        if own < self.told_until || own <= self.ticked {
            self.notes.late += 1;
        }
        self.told_until = stamp;
        for name in known.iter().chain([&name]) {
            self.names.told(name, stamp);
        }
        Some(Observation { at: stamp, scope: Scope::Change, samples })
    }

    /// Whether `event` is an end that an `oom` may still explain.
    pub(crate) fn awaits_oom(&self, event: &Event) -> bool {
        let Action::Die(death) = event.action else { return false };
        self.containers.get(&event.id).is_some_and(|container| container.awaits_oom(death, event.at()))
    }

    /// Sees to it that the event's container is in the table under `name`, unless it is not to be watched.
    fn place(&mut self, event: &Event, name: &str, at: Timestamp, samples: &mut Vec<Sample>) -> Placed {
        let known = self.containers.get(&event.id).map(|container| container.name.clone());
        if known.as_deref() == Some(name) {
            return Placed::InTable;
        }
        let image = event.image.as_deref().unwrap_or("");
        if !self.settings.choice.allows(name, image, &event.labels) {
            self.remove(&event.id, at, at, samples);
            return Placed::NotWatched;
        }
        self.take_name(name, &event.id, at, samples);
        let Some(old) = known else { return self.insert(Container::from_event(event, name), at) };
        self.rename(&event.id, &old, name, at);
        Placed::InTable
    }

    /// Whoever else has the name must have lost it unseen.
    fn take_name(&mut self, name: &str, id: &str, at: Timestamp, samples: &mut Vec<Sample>) {
        if let Some(other) = self.names.owner(name).filter(|owner| *owner != id).map(str::to_owned) {
            self.remove(&other, at, at, samples);
        }
    }

    fn insert(&mut self, container: Container, at: Timestamp) -> Placed {
        if self.containers.len() >= MAX_CONTAINERS {
            self.notes.containers_refused += 1;
            return Placed::NotWatched;
        }
        self.names.counters_mut(&container.name).begin(at);
        self.names.taken(&container.name, &container.id);
        self.inspects.want(&container.id);
        self.containers.insert(container.id.clone(), container);
        Placed::InTable
    }

    fn rename(&mut self, id: &str, old: &str, new: &str, at: Timestamp) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.rename(new);
        let carried = self.names.counters(old);
        self.names.counters_mut(new).raise_to(&carried);
        self.names.released(old, id, at);
        self.names.taken(new, id);
    }

    /// Applies an event to its container.
    fn change(
        &mut self,
        event: &Event,
        which: Which,
        now: Timestamp,
        samples: &mut Vec<Sample>,
    ) -> Option<FinishedRun> {
        let container = self.containers.get_mut(&event.id)?;
        let counters = self.names.counters_mut(&container.name);
        let run = container.apply(event, event.at(), counters);
        container.touched = Some(now);
        tell(&self.families, container, counters, which, samples);
        if inspect_after(event.action) {
            self.inspects.want(&event.id);
        }
        run
    }

    fn add_run(&mut self, run: &FinishedRun, which: Which, stamp: Timestamp, samples: &mut Vec<Sample>) {
        let added = self.runs.add(run, stamp);
        let (Added::Own(key) | Added::Overflow(key)) = &added;
        if matches!(added, Added::Overflow(_)) {
            self.notes.runs_merged += 1;
        }
        if which != Which::Nothing {
            samples.extend(self.families.runs(key, self.runs.get(key)));
            self.runs_stamp = stamp;
        }
    }

    /// The container is gone.
    fn remove(&mut self, id: &str, at: Timestamp, now: Timestamp, samples: &mut Vec<Sample>) {
        let Some(mut container) = self.containers.remove(id) else { return };
        end_all(&mut container, samples);
        self.names.released(&container.name, id, at);
        self.removed.push_back((container.id, now));
        if self.removed.len() > REMEMBERED_REMOVED {
            self.removed.pop_front();
        }
    }

    /// Compares with the list asked for at `at`, leaving alone whom events touched since shortly before, or are about to
    /// touch (`pending`). Returns how many changes no event had told.
    pub(crate) fn reconcile(&mut self, list: &List, at: Timestamp, pending: &BTreeSet<&str>) -> u64 {
        let since = at.minus(SETTLE);
        let mut spared: BTreeSet<String> = pending.iter().map(|id| (*id).to_owned()).collect();
        let touched = |container: &&Container| container.touched.is_some_and(|touched| touched >= since);
        spared.extend(self.containers.values().filter(touched).map(|container| container.id.clone()));
        spared.extend(self.removed.iter().filter(|(_, when)| *when >= since).map(|(id, _)| id.clone()));
        let mut present = spared.clone();
        let mut missed = 0;
        for entry in &list.entries {
            let Some(id) = entry.id.as_deref().filter(|id| !spared.contains(*id)) else { continue };
            let Some(name) = entry.names.as_deref().and_then(own_name) else { continue };
            if !self.allows(entry, id, name) {
                continue;
            }
            present.insert(id.to_owned());
            if self.agree(entry, id, name, at) == Told::Missed {
                missed += 1;
                self.inspects.want(id);
            }
        }
        missed += self.remove_absent(&present, at);
        let first = !std::mem::replace(&mut self.listed, true);
        if first { 0 } else { missed }
    }

    fn allows(&self, entry: &ListEntry, id: &str, name: &str) -> bool {
        let no_labels = BTreeMap::new();
        let known = self.containers.get(id).and_then(|container| container.image.as_deref());
        let image = known.or(entry.image.as_deref()).unwrap_or("");
        self.settings.choice.allows(name, image, entry.labels.as_ref().unwrap_or(&no_labels))
    }

    fn agree(&mut self, entry: &ListEntry, id: &str, name: &str, at: Timestamp) -> Told {
        let mut ended = std::mem::take(&mut self.ended);
        self.take_name(name, id, at, &mut ended);
        self.ended = ended;
        let Some(old) = self.containers.get(id).map(|container| container.name.clone()) else {
            self.names.counters_mut(name).begin(at);
            let found = Container::from_list(entry, name, &self.settings.wanted, self.names.counters_mut(name));
            return if self.insert(found, at) == Placed::InTable { Told::Missed } else { Told::Known };
        };
        if old != name {
            self.rename(id, &old, name, at);
        }
        let Some(container) = self.containers.get_mut(id) else { return Told::Known };
        let told = container.agree_with_list(entry, self.names.counters_mut(name));
        if old == name { told } else { Told::Missed }
    }

    fn remove_absent(&mut self, present: &BTreeSet<String>, at: Timestamp) -> u64 {
        let absent: Vec<String> = self.containers.keys().filter(|id| !present.contains(*id)).cloned().collect();
        let mut ended = std::mem::take(&mut self.ended);
        for id in &absent {
            self.remove(id, at, at, &mut ended);
        }
        self.ended = ended;
        absent.len() as u64
    }

    /// After a gap in the events: every container is asked.
    pub(crate) fn inspect_all(&mut self) {
        for id in self.containers.keys() {
            self.inspects.want(id);
        }
    }

    /// Whom to inspect at the tick `at`.
    pub(crate) fn plan_inspects(&mut self, at: Timestamp) -> Vec<String> {
        self.inspects.plan(&self.containers, at)
    }

    /// Takes over an inspect's answer of a tick at `at`. Returns whether it told of a change that no event had told.
    pub(crate) fn inspected(&mut self, id: &str, inspect: &Inspect, at: Timestamp) -> Told {
        let Some(container) = self.containers.get_mut(id) else { return Told::Known };
        let fresh = container.news(inspect).is_some_and(|news| news > at.minus(SETTLE));
        container.learn_configuration(inspect, &self.settings.wanted);
        container.inspect_after = None;
        // Its event may be under way, or belong after this tick: asked again next time.
        if fresh {
            self.inspects.want(id);
            return Told::Known;
        }
        container.agree_with_inspect(inspect, self.names.counters_mut(&container.name))
    }

    /// Takes over what an inspect between two ticks says of a container's configuration.
    pub(crate) fn configured(&mut self, id: &str, inspect: &Inspect) {
        if let Some(container) = self.containers.get_mut(id).filter(|_| inspect.id.as_deref() == Some(id)) {
            container.learn_configuration(inspect, &self.settings.wanted);
        }
    }

    /// An inspect could not be believed, because an event of the container is under way: it is asked again.
    pub(crate) fn inspect_again(&mut self, id: &str) {
        self.inspects.want(id);
    }

    /// Notes that an inspect at the tick `at` got no answer.
    pub(crate) fn inspect_failed(&mut self, id: &str, at: Timestamp) {
        if let Some(container) = self.containers.get_mut(id) {
            container.inspect_failed();
            container.inspect_after = Some(at.plus(PENALTY));
        }
    }

    /// Everything as it is at `at`, with stale markers for what ended since the last telling.
    pub(crate) fn everything(&mut self, at: Timestamp) -> Observation {
        let mut samples = std::mem::take(&mut self.ended);
        for container in self.containers.values_mut() {
            let counters = self.names.counters_mut(&container.name);
            tell(&self.families, container, counters, Which::All, &mut samples);
        }
        for (key, sum) in self.runs.iter() {
            samples.extend(self.families.runs(key, *sum));
        }
        settle(&mut samples);
        self.told_until = self.told_until.max(at);
        self.ticked = self.ticked.max(at);
        self.notes.names_forgotten += self.names.forget(at);
        Observation { at, scope: Scope::Everything, samples }
    }

    /// Takes for told what a former life told, so that what vanished meanwhile can be ended.
    pub(crate) fn assume_told(&mut self) {
        for container in self.containers.values_mut() {
            let counters = self.names.counters_mut(&container.name);
            tell(&self.families, container, counters, Which::Nothing, &mut Vec::new());
        }
    }

    /// What happened that is not a sample, since last asked.
    pub(crate) fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    /// How many containers are watched.
    pub(crate) fn len(&self) -> usize {
        self.containers.len()
    }
}

/// Whether an event's container is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placed {
    InTable,
    NotWatched,
}

/// When the event happened. A live event cannot be from the future: an engine whose clock is ahead is heard when it speaks.
fn own_time(event: &Event, now: Timestamp) -> Timestamp {
    event.at().min(now)
}

/// Whether an event changes what only an inspect tells.
fn inspect_after(action: Action) -> bool {
    match action {
        Action::Create | Action::Start | Action::Die(_) | Action::Health(_) | Action::Rename | Action::Update => true,
        Action::Oom
        | Action::Kill
        | Action::Stop
        | Action::Pause
        | Action::Unpause
        | Action::Destroy
        | Action::Other => false,
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests;
