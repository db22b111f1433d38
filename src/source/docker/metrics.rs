//! The native metric families of containers, and the way from what is known to samples.
//!
//! Every container has the same [`SLOTS`] places for series; a place whose number is not known has no sample. [`Live`]
//! remembers what was last told, so that a change costs only the samples that changed, and so that what ends is ended
//! with a stale marker under exactly the labels it had.

use std::collections::HashSet;
use std::sync::Arc;

use super::container::{Container, Inspected};
use super::counters::Counters;
use super::runs::{RunKey, RunSum};
use super::state::{ExitClass, Health, Healthcheck, State};
use super::wire::{COMPOSE_PROJECT, COMPOSE_SERVICE};
use crate::model::{
    Labels, LabelsBuilder, Metadata, MetricKind, Sample, Series, Target, Timestamp, Value, sanitise_label_name,
};

/// How many series a container can have.
pub(crate) const SLOTS: usize = 20;

/// Which labels a family has beyond `job` and `instance`.
#[derive(Clone, Copy)]
enum Shape {
    /// `name`, and a further pair where the family has one.
    Name(Option<(&'static str, &'static str)>),
    /// `name`, `container_name`, `hostname`, `image`.
    Wide,
    /// Everything that tells containers apart, the id included.
    Info,
}

struct Slot {
    metadata: Metadata,
    shape: Shape,
}

const fn slot(family: &'static str, kind: MetricKind, shape: Shape, help: &'static str) -> Slot {
    Slot { metadata: Metadata::of(family, kind, help), shape }
}

const fn exits(class: ExitClass) -> Slot {
    let shape = Shape::Name(Some(("class", class.word())));
    slot("container_exits_total", MetricKind::Counter, shape, "Runs of the container that ended, by how they ended.")
}

const fn transitions(to: Health) -> Slot {
    slot(
        "container_health_transitions_total",
        MetricKind::Counter,
        Shape::Name(Some(("to", to.word()))),
        "Verdicts of the container's healthcheck that differed from the one before, by what they turned to.",
    )
}

/// The contract of containers.md, part (a). The order is that of [`values`].
const FAMILIES: [Slot; SLOTS] = [
    slot("container_info", MetricKind::Gauge, Shape::Info, "What the container is; always 1."),
    slot(
        "container_state",
        MetricKind::Gauge,
        Shape::Wide,
        "State of the container: 0 exited, 1 running, 2 paused, 3 created, 4 restarting, 5 dead, 6 removing.",
    ),
    slot(
        "container_health",
        MetricKind::Gauge,
        Shape::Wide,
        "Health of the container: 0 none or not running, 1 healthy, 2 unhealthy, 3 starting.",
    ),
    slot(
        "container_restart_count",
        MetricKind::Gauge,
        Shape::Wide,
        "The engine's own count of restarts by policy, which a start by hand resets.",
    ),
    slot(
        "container_restarts_total",
        MetricKind::Counter,
        Shape::Name(None),
        "Restarts by policy, counted by outhaul; no start by hand resets it.",
    ),
    slot("container_starts_total", MetricKind::Counter, Shape::Name(None), "Runs of the container that began."),
    exits(ExitClass::Ok),
    exits(ExitClass::Error),
    exits(ExitClass::Signal),
    exits(ExitClass::Oom),
    exits(ExitClass::Unknown),
    slot(
        "container_last_exit_code",
        MetricKind::Gauge,
        Shape::Name(None),
        "Exit code of the last run that ended; a restart does not reset it.",
    ),
    slot(
        "container_last_run_seconds",
        MetricKind::Gauge,
        Shape::Name(None),
        "How long the last run that ended had lasted.",
    ),
    slot(
        "container_oom_events_total",
        MetricKind::Counter,
        Shape::Name(None),
        "Kills by the kernel for want of memory, of any process in the container.",
    ),
    transitions(Health::Healthy),
    transitions(Health::Unhealthy),
    transitions(Health::Starting),
    slot(
        "container_health_failing_streak",
        MetricKind::Gauge,
        Shape::Name(None),
        "Probes of the healthcheck that failed in a row.",
    ),
    slot(
        "container_start_time_seconds",
        MetricKind::Gauge,
        Shape::Name(None),
        "When the last run began, in seconds since the Unix epoch.",
    ),
    slot(
        "container_finish_time_seconds",
        MetricKind::Gauge,
        Shape::Name(None),
        "When the last run that ended did so, in seconds since the Unix epoch.",
    ),
];

const RUNS: Metadata = Metadata::of(
    "container_runs_total",
    MetricKind::Counter,
    "Runs shorter than one interval that ended, by image, Compose service and how they ended.",
);
const RUN_SECONDS: Metadata = Metadata::of(
    "container_run_seconds_total",
    MetricKind::Counter,
    "How long runs shorter than one interval lasted together, by image, Compose service and how they ended.",
);

/// What a container's numbers are, in the order of [`FAMILIES`]; `None` is not known.
fn values(container: &Container, counters: &Counters) -> [Option<f64>; SLOTS] {
    let count = |count: u64| Some(count as f64);
    let checked = matches!(container.healthcheck, Healthcheck::Present(_));
    let turned = |to: Health| count(counters.transitions(to)).filter(|_| checked);
    [
        Some(1.0).filter(|_| container.inspected != Inspected::Never),
        container.state.map(State::code),
        health(container),
        container.restart_count.and_then(count),
        count(counters.restarts),
        count(counters.starts),
        count(counters.exits(ExitClass::Ok)),
        count(counters.exits(ExitClass::Error)),
        count(counters.exits(ExitClass::Signal)),
        count(counters.exits(ExitClass::Oom)),
        count(counters.exits(ExitClass::Unknown)),
        container.last_exit_code.map(|code| code as f64),
        container.last_run.map(|run| run.as_secs_f64()),
        count(counters.ooms),
        turned(Health::Healthy),
        turned(Health::Unhealthy),
        turned(Health::Starting),
        container.failing_streak.and_then(count),
        container.started.map(Timestamp::seconds),
        container.finished.map(Timestamp::seconds),
    ]
}

/// 0 for a container that has no healthcheck or does not run: what the engine says of health then means nothing.
fn health(container: &Container) -> Option<f64> {
    match (container.state?, container.healthcheck) {
        (_, Healthcheck::Unknown) => None,
        (State::Running, Healthcheck::Present(health)) => Some(health.code()),
        _ => Some(0.0),
    }
}

/// Makes series: knows the labels that all of them share.
#[derive(Debug)]
pub(crate) struct Families {
    target: Target,
    hostname: Arc<str>,
    /// Container labels that `container_info` carries, and under which names.
    info_labels: Vec<(String, Arc<str>)>,
    metadata: [Arc<Metadata>; SLOTS],
    runs: Arc<Metadata>,
    run_seconds: Arc<Metadata>,
}

impl Families {
    /// For the containers of the host `hostname`.
    pub(crate) fn new(target: Target, hostname: &str, container_labels: &[String]) -> Self {
        let renamed = |name: &String| {
            (name.clone(), Arc::from(format!("container_label_{}", sanitise_label_name(name)).as_str()))
        };
        Self {
            target,
            hostname: hostname.into(),
            info_labels: container_labels.iter().map(renamed).collect(),
            metadata: std::array::from_fn(|place| Arc::new(FAMILIES[place].metadata.clone())),
            runs: Arc::new(RUNS),
            run_seconds: Arc::new(RUN_SECONDS),
        }
    }

    /// Sets the host's name; every container is to be told anew.
    pub(crate) fn set_hostname(&mut self, hostname: &str) {
        self.hostname = hostname.into();
    }

    fn series(&self, place: usize, container: &Container) -> Arc<Series> {
        let slot = &FAMILIES[place];
        let labels = self.target.series(&slot.metadata.family).with("name", container.name.as_str());
        let image = || container.image.as_deref().unwrap_or("");
        let labels = match slot.shape {
            Shape::Name(None) => labels,
            Shape::Name(Some((name, value))) => labels.with(name, value),
            Shape::Wide => labels
                .with("container_name", container.name.as_str())
                .with("hostname", Arc::clone(&self.hostname))
                .with("image", image()),
            Shape::Info => self.info(labels.with("image", image()), container),
        };
        Arc::new(Series::new(labels.build_lossy(), Arc::clone(&self.metadata[place])))
    }

    fn info(&self, labels: LabelsBuilder, container: &Container) -> LabelsBuilder {
        let label = |name: &str| container.labels.get(name).map_or("", String::as_str);
        let policy = container.policy.map(super::state::RestartPolicy::text).unwrap_or_default();
        let labels = labels
            .with("id", container.id.as_str())
            .with("image_id", container.image_id.as_deref().unwrap_or(""))
            .with("runtime", container.runtime.as_deref().unwrap_or(""))
            .with("compose_project", label(COMPOSE_PROJECT))
            .with("compose_service", label(COMPOSE_SERVICE))
            .with("restart_policy", policy);
        self.info_labels.iter().fold(labels, |labels, (name, renamed)| labels.with(Arc::clone(renamed), label(name)))
    }

    /// The two samples of one sum of short runs.
    pub(crate) fn runs(&self, (kind, outcome): &RunKey, sum: RunSum) -> [Sample; 2] {
        let sample = |metadata: &Arc<Metadata>, number: f64| {
            let labels = self
                .target
                .series(&metadata.family)
                .with("image", kind.image.as_str())
                .with("compose_service", kind.service.as_str())
                .with("outcome", outcome.word());
            let series = Arc::new(Series::new(labels.build_lossy(), Arc::clone(metadata)));
            Sample { series, value: Value::new(number), start: sum.since() }
        };
        [sample(&self.runs, sum.runs as f64), sample(&self.run_seconds, sum.millis as f64 / 1000.0)]
    }
}

/// What was last told of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    series: [Option<Arc<Series>>; SLOTS],
    told: [Option<Value>; SLOTS],
    recheck: bool,
}

/// Which samples to write down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that differ from what was last told.
    Changed,
    /// Every one.
    All,
    /// None: all of it is in the buffer already.
    Nothing,
}

impl Live {
    /// Something that series are labelled with may have changed.
    pub(crate) fn recheck(&mut self) {
        self.recheck = true;
    }
}

/// Writes down what is to be told of a container now; what is not true any more ends with a stale marker.
pub(crate) fn tell(
    families: &Families,
    container: &mut Container,
    counters: &Counters,
    which: Which,
    out: &mut Vec<Sample>,
) {
    let values = values(container, counters);
    let mut live = std::mem::take(&mut container.live);
    for (place, value) in values.into_iter().enumerate() {
        if live.recheck && live.series[place].is_some() {
            let fresh = families.series(place, container);
            if live.series[place].as_ref() != Some(&fresh) {
                end(&mut live, place, which, out);
                live.series[place] = Some(fresh);
            }
        }
        let Some(value) = value.map(Value::new) else {
            end(&mut live, place, which, out);
            continue;
        };
        let changed = live.told[place] != Some(value);
        live.told[place] = Some(value);
        let series = live.series[place].get_or_insert_with(|| families.series(place, container));
        if which == Which::All || (which == Which::Changed && changed) {
            // All counters of a name began together, and outlive its containers and their runs.
            let start = counters.since().filter(|_| FAMILIES[place].metadata.kind == MetricKind::Counter);
            out.push(Sample { series: Arc::clone(series), value, start });
        }
    }
    live.recheck = false;
    container.live = live;
}

/// Ends all that was told of a container.
pub(crate) fn end_all(container: &mut Container, out: &mut Vec<Sample>) {
    for place in 0..SLOTS {
        end(&mut container.live, place, Which::Changed, out);
    }
}

fn end(live: &mut Live, place: usize, which: Which, out: &mut Vec<Sample>) {
    if live.told[place].take().is_some()
        && which != Which::Nothing
        && let Some(series) = &live.series[place]
    {
        out.push(Sample::new(Arc::clone(series), Value::STALE));
    }
}

/// Leaves out the stale marker of a series that lives on in the same observation: one container's end can be another's
/// beginning, under the same labels.
pub(crate) fn settle(samples: &mut Vec<Sample>) {
    if !samples.iter().any(|sample| sample.value.is_stale()) {
        return;
    }
    let alive: HashSet<Labels> =
        samples.iter().filter(|s| !s.value.is_stale()).map(|sample| sample.series.labels().clone()).collect();
    let mut ended: HashSet<Labels> = HashSet::new();
    samples.retain(|sample| {
        let labels = sample.series.labels();
        !sample.value.is_stale() || (!alive.contains(labels) && ended.insert(labels.clone()))
    });
}
