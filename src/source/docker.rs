//! The Docker (and Podman) engine as a source: what its containers do, from its events, its list and its inspects.
//!
//! [`DockerSource`] is the thin asynchronous rim; [`EventReader`] is the future that reads the event stream beside it.
//! What they hear goes into a pure table, which answers samples:
//!
//! ```text
//! reader ─ events ─▶ queue ─┐
//! engine ─ list ────────────┼─▶ table ─ container ─▶ metrics ─▶ observations
//!        ─ inspect ─────────┘     └ names, runs, seen ─▶ persist (what survives a restart)
//! ```
//!
//! Events carry the truth and the time; the list, once a tick, shows whether one was missed; an inspect tells what
//! neither does, of those containers that an event named, and slowly of all. A container that hangs, vanishes or
//! answers nonsense costs only itself. Only GET requests are sent; `Config.Env` is never read.

mod api;
mod container;
mod counters;
mod events;
mod filter;
mod inspects;
mod lenient;
mod metrics;
mod names;
mod pending;
mod persist;
mod reader;
mod runs;
mod seen;
mod self_metrics;
mod state;
mod status;
mod table;
mod tick;
mod wire;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use self::api::{Api, ApiError};
use self::events::{Action, Event};
use self::filter::Choice;
use self::metrics::Families;
use self::pending::{OOM_PATIENCE, Pending};
use self::persist::Stored;
pub use self::reader::EventReader;
use self::reader::{Feed, Owed, Position, QUEUED_EVENTS, Shared, StreamStatus};
pub use self::self_metrics::Metrics;
use self::self_metrics::SourceMetrics;
use self::table::{Settings, Table};
use self::wire::{Info, Inspect, WantedLabels, kept, parse_object};
use super::{Observation, Source, SourceError, SourceFuture};
use crate::clock::{Clock, sleep_until};
use crate::config;
use crate::model::{Target, Timestamp};

/// The largest list that is read, in bytes; 5000 containers take about 5 MB.
const MAX_LIST_BYTES: usize = 64 * 1024 * 1024;
/// The longest wait for a list. The caller's own deadline is usually shorter.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
/// The largest inspect that is read, in bytes.
const MAX_INSPECT_BYTES: usize = 4 * 1024 * 1024;
/// The longest wait for an inspect; the usual one takes 2 ms.
const INSPECT_DEADLINE: Duration = Duration::from_secs(2);
/// How much longer than one inspect all of a tick may take, so that one that hangs is still seen to have hung.
const INSPECT_GRACE: Duration = Duration::from_millis(50);
/// How many inspects run at a time.
const INSPECTS_AT_ONCE: usize = 4;
/// The largest `/info` that is read, in bytes, and the longest wait for it.
const MAX_INFO_BYTES: usize = 1024 * 1024;
/// See [`MAX_INFO_BYTES`].
const INFO_DEADLINE: Duration = Duration::from_secs(2);
/// How long a tick waits for a stream that is being opened, so that what was missed comes before it.
const OPENING_WAIT: Duration = Duration::from_secs(1);
/// Waiting for the stream, the list, the engine's name and the inspects: each gets its share of the caller's deadline.
const PARTS_OF_A_TICK: u32 = 4;
/// How far behind a tick the proof reaches that nothing was missed: clocks may differ a little.
const PROOF_MARGIN: Duration = Duration::from_secs(1);

/// A quiet engine's position is kept this often, in nanoseconds, so that a restart need not suspect a gap.
const KEEP_PROOF_NANOS: i64 = 60_000_000_000;

/// What a Docker source is made from.
#[derive(Debug)]
pub struct Connect<'a> {
    /// The engine and what to watch of it.
    pub config: &'a config::Docker,
    /// The value of the label `source`; unique among the sources of one agent.
    pub name: &'a str,
    /// The labels of every series.
    pub target: Target,
    /// The label `hostname`; `None` asks the engine, and takes the instance where it does not say.
    pub hostname: Option<String>,
    /// The sampling interval: shorter runs are added up in `container_runs_total`.
    pub interval: Duration,
    /// How long the caller waits for a tick; no part of one may take more than a share of it.
    pub timeout: Duration,
    /// What [`Source::take_state`] of a former life gave.
    pub restored: Option<Vec<u8>>,
    /// The newest instant the buffer holds: what happened until then is told already.
    pub recorded_until: Option<Timestamp>,
    /// The time.
    pub clock: Clock,
    /// The agent's Docker metrics.
    pub metrics: &'a Metrics,
}

/// The answer to an inspect, and of whom.
type Inspected = (String, Result<Vec<u8>, ApiError>);

/// One engine.
pub struct DockerSource {
    name: String,
    api: Arc<Api>,
    table: Table,
    feed: mpsc::Receiver<Feed>,
    status: watch::Receiver<StreamStatus>,
    shared: Shared,
    /// Heard, not applied yet.
    pending: Pending,
    /// Applied, not handed out yet.
    ready: VecDeque<Observation>,
    /// Being inspected; what a cut-short tick leaves here is asked again.
    asked: BTreeSet<String>,
    /// New containers being inspected between ticks.
    looks: FuturesUnordered<BoxFuture<'static, Inspected>>,
    hostname: Hostname,
    /// Whether the events since the last tick are known not to be all.
    gap: Gap,
    state: StateChange,
    /// How far what was last kept proves that nothing was missed, in nanoseconds since the Unix epoch.
    kept_nanos: i64,
    /// Changes that the list or an inspect showed and no event told, since [`DockerSource::judge`] last judged.
    missed: u64,
    /// How long one part of a tick may take, so that a part that hangs does not cost the tick.
    patience: Duration,
    metrics: SourceMetrics,
    clock: Clock,
}

#[derive(Debug)]
enum Hostname {
    /// The engine is to be asked; until then, this.
    ToAsk(String),
    Known(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    None,
    Counted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StateChange {
    Unchanged,
    Changed,
}

/// A source and the reader of its events, for an engine that need not be there yet.
///
/// The reader's `run` must be polled beside the source for as long as the source lives.
///
/// # Errors
/// When the configured host is of a kind that is not supported.
pub fn connect(with: Connect<'_>) -> Result<(DockerSource, EventReader), SourceError> {
    let api = Arc::new(Api::new(&with.config.host)?);
    let choice = Choice::new(with.config);
    let labels = with.config.container_labels.iter().map(String::as_str);
    let wanted = WantedLabels::new(labels.chain(choice.label_names()));
    let stored = with.restored.as_deref().and_then(Stored::read);

    let asked = stored.as_ref().map_or_else(|| with.target.instance.to_string(), |stored| stored.hostname.clone());
    let hostname = with.hostname.map_or(Hostname::ToAsk(asked), Hostname::Known);
    let families = Families::new(with.target, hostname.shown(), &with.config.container_labels);
    let settings =
        Settings { choice, wanted: wanted.clone(), interval: with.interval, recorded_until: with.recorded_until };
    let mut table = Table::new(settings, families);
    let proven = stored.as_ref().map_or(i64::MIN, |stored| stored.proven_nanos);
    if let Some(stored) = stored {
        stored.restore(&mut table);
    }

    let start = with.clock.now().millis().saturating_mul(1_000_000);
    let position = match table.seen.position() {
        Some(last) => Position::Heard(last),
        None if proven > 0 => Position::Quiet(proven),
        None => Position::Fresh(start),
    };
    let (sender, feed) = mpsc::channel(QUEUED_EVENTS);
    let (status_sender, status) = watch::channel(StreamStatus::Opening);
    let shared = Shared { nudge: Arc::new(Notify::new()), proven_nanos: Arc::new(AtomicI64::new(proven)) };
    let metrics = with.metrics.of(with.name);
    let reader = EventReader {
        name: with.name.to_owned(),
        api: Arc::clone(&api),
        wanted,
        feed: sender,
        status: status_sender,
        shared: shared.clone(),
        metrics: metrics.clone(),
        clock: with.clock.clone(),
        position,
        owed: Owed::Nothing,
    };
    let source = DockerSource {
        name: with.name.to_owned(),
        api,
        table,
        feed,
        status,
        shared,
        pending: Pending::default(),
        ready: VecDeque::new(),
        asked: BTreeSet::new(),
        looks: FuturesUnordered::new(),
        hostname,
        gap: Gap::None,
        state: StateChange::Unchanged,
        kept_nanos: proven,
        missed: 0,
        patience: with.timeout / PARTS_OF_A_TICK,
        metrics,
        clock: with.clock,
    };
    Ok((source, reader))
}

/// The engine's own name for its host, for an agent that runs in a container.
///
/// # Errors
/// When the engine does not answer, refuses `GET /info`, or has no name.
pub async fn host_name(config: &config::Docker) -> Result<String, SourceError> {
    let api = Api::new(&config.host)?;
    ask_host_name(&api, INFO_DEADLINE).await.map_err(|error| api.explain("GET /info", &error))
}

async fn ask_host_name(api: &Api, deadline: Duration) -> Result<String, ApiError> {
    let body = api.get("/info", MAX_INFO_BYTES, deadline).await?;
    let name = parse_object::<Info>(&body).and_then(|info| kept(info.name.as_deref()));
    name.ok_or_else(|| ApiError::Nonsense("the answer holds no name".into()))
}

impl std::fmt::Debug for DockerSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerSource").field("name", &self.name).field("api", &self.api).finish_non_exhaustive()
    }
}

impl Hostname {
    fn shown(&self) -> &str {
        let (Self::ToAsk(name) | Self::Known(name)) = self;
        name
    }
}

impl Source for DockerSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn next_event(&mut self) -> SourceFuture<'_, Observation> {
        Box::pin(async {
            loop {
                if let Some(ready) = self.ready.pop_front() {
                    return ready;
                }
                if !self.pending.is_empty() {
                    self.learn_hostname().await;
                }
                let held_until = self.held_until();
                if held_until.is_none()
                    && let Some(event) = self.pending.pop()
                {
                    self.apply(&event);
                    continue;
                }
                tokio::select! {
                    Some(look) = self.looks.next() => self.take_look(look),
                    feed = self.feed.recv() => match feed {
                        Some(feed) => self.hear(feed),
                        // The reader is gone: there will be no more events.
                        None => sleep_until(held_until).await,
                    },
                    () = sleep_until(held_until) => {}
                }
            }
        })
    }

    fn sample(&mut self, at: Timestamp) -> SourceFuture<'_, Result<Vec<Observation>, SourceError>> {
        Box::pin(self.tick(at))
    }

    fn take_state(&mut self) -> Option<Vec<u8>> {
        if !self.ready.is_empty() {
            // The table is ahead of what was handed out: kept now, the rest would count as told.
            return None;
        }
        let changed = std::mem::replace(&mut self.state, StateChange::Unchanged);
        (changed == StateChange::Changed).then(|| {
            self.kept_nanos = self.shared.proven_nanos.load(Ordering::Relaxed);
            persist::write(&self.table, self.hostname.shown(), self.kept_nanos)
        })
    }
}

impl DockerSource {
    /// Takes in what the reader passes on.
    fn hear(&mut self, feed: Feed) {
        match feed {
            Feed::Event(event) => self.pending.push(event),
            Feed::Gap => {
                self.gap = Gap::Counted;
                self.table.inspect_all();
            }
        }
    }

    /// Until when the oldest event is not applied, if it waits.
    fn held_until(&self) -> Option<Instant> {
        let oldest = self.pending.front()?;
        let until = oldest.heard + OOM_PATIENCE;
        (until > Instant::now() && self.table.awaits_oom(&oldest.event)).then_some(until)
    }

    fn apply(&mut self, event: &Event) {
        self.ready.extend(self.table.apply(event, self.clock.now()));
        self.state = StateChange::Changed;
        if event.action == Action::Create && self.looks.len() < INSPECTS_AT_ONCE {
            self.looks.push(self.ask(event.id.clone()));
        }
    }

    /// A first look at a container that was just made: whether it has a healthcheck and is restarted by policy must be
    /// known before its first event that depends on it. Everything else waits for the tick, and so does a failure.
    fn take_look(&mut self, (id, answer): Inspected) {
        if let Some(inspect) = answer.ok().and_then(|body| parse_object::<Inspect>(&body)) {
            self.table.configured(&id, &inspect);
        }
    }

    /// Inspects one container.
    fn ask(&self, id: String) -> BoxFuture<'static, Inspected> {
        let api = Arc::clone(&self.api);
        let deadline = INSPECT_DEADLINE.min(self.patience);
        Box::pin(async move {
            let path = format!("/containers/{id}/json");
            let answer = api.get(&path, MAX_INSPECT_BYTES, deadline).await;
            (id, answer)
        })
    }

    /// Asks once, before the first sample that would carry the name.
    async fn learn_hostname(&mut self) {
        if let Hostname::ToAsk(fallback) = &self.hostname {
            let deadline = INFO_DEADLINE.min(self.patience);
            let name = ask_host_name(&self.api, deadline).await.unwrap_or_else(|_| fallback.clone());
            self.table.set_hostname(&name);
            self.hostname = Hostname::Known(name);
        }
    }
}

#[cfg(test)]
mod tests;
