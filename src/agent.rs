//! The composition root: builds every part, spawns the tasks, waits, stops them in order. The only place that spawns.
//!
//! [`run`] is the one entry, so that a test starts the agent as `main` does. Every task is vital: one that ends early ends
//! the agent, and whoever supervises the process starts it again; there is no supervisor inside.

mod buffer_metrics;
mod build;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{Id, JoinSet};

use crate::buffer::{self, Buffer};
use crate::config::{Config, PushgatewayMode};
use crate::model::Snapshot;
pub use crate::sampler::End;
use crate::sampler::Sampler;
use crate::ship::{EndpointState, Pushgateway, Shipper};
use crate::shutdown::{self, Phase, Shutdown, Trigger};
use crate::source::SourceError;
use crate::source::docker::EventReader;
use crate::web::Page;

/// How long the tasks may take to return once they were told that grace is over.
const RETURN_WITHIN: Duration = Duration::from_secs(1);

/// How long the disk may take to let the buffer go.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// Why an agent could not start, or did not live.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The buffer is in use or unusable.
    #[error(transparent)]
    Buffer(#[from] buffer::OpenError),
    /// A source is impossible as configured.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A task ended that should have lived.
    #[error("the {task} task ended unexpectedly{}; this is a bug, the process should be started again", .detail)]
    TaskDied {
        /// Which.
        task: &'static str,
        /// What is known of why.
        detail: String,
    },
}

/// What can be watched of a running agent: for the demo, and for tests.
#[derive(Clone)]
pub struct Watches {
    /// The last value of all that lives.
    pub latest: watch::Receiver<Arc<Snapshot>>,
    /// One per remote-write endpoint, in the order of the configuration.
    pub endpoints: Vec<watch::Receiver<EndpointState>>,
    /// The buffer's numbers.
    pub buffer: watch::Receiver<Arc<buffer::Status>>,
}

/// An agent that is built and not yet running.
pub struct Agent {
    config: Config,
    buffer: Buffer,
    sampler: Sampler,
    readers: Vec<EventReader>,
    shippers: Vec<Shipper>,
    pushgateway: Option<Pushgateway>,
    page: Page,
    watches: Watches,
}

/// Runs an agent until `stop` resolves, and stops it in order.
///
/// # Errors
/// When the buffer cannot be opened, or a task dies.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
    Agent::build(config).await?.run(stop).await
}

/// What became of [`once`].
#[derive(Debug)]
pub struct OnceOutcome {
    /// What was sampled.
    pub snapshot: Arc<Snapshot>,
    /// What was delivered, a line an endpoint.
    pub delivered: Vec<String>,
    /// What was not delivered, a line a problem; empty when all is well.
    pub problems: Vec<String>,
}

/// Takes one snapshot, delivers it, and whatever backlog the buffer still held.
///
/// # Errors
/// When the buffer cannot be opened, or a source is impossible.
pub async fn once(config: Config, end: End) -> Result<OnceOutcome, AgentError> {
    let agent = Agent::build(config).await?;
    let (mut sampling, mut sending) = (Group::default(), Group::default());
    for reader in agent.readers {
        sampling.spawn("event reader", |_| reader.run());
    }
    let before = agent.buffer.status();
    let sampled = agent.sampler.run_once(end).await;
    let mut problems: Vec<String> = sampled.err().map(|error| error.to_string()).into_iter().collect();
    let snapshot = Arc::clone(&agent.watches.latest.borrow());

    for shipper in agent.shippers {
        sending.spawn("shipper", |phase| shipper.run(phase));
    }
    // Draining is just what is wanted: send until empty or the first failure, without waiting in between.
    let deadline = agent.config.remote_write.iter().map(|endpoint| endpoint.remote_timeout).max().unwrap_or_default();
    sending.stop(deadline).await;
    let after = agent.buffer.status();
    let mut delivered = delivered(&before, &after);
    let undelivered = undelivered(&before, &after, &agent.watches);
    // As a fallback it is for what did not get through: nobody would take a group down again that is not needed.
    let always = agent.config.pushgateway.as_ref().is_some_and(|gateway| gateway.mode == PushgatewayMode::Always);
    if let Some(mut gateway) = agent.pushgateway.filter(|_| always || !undelivered.is_empty()) {
        match gateway.push_once(&snapshot).await {
            Ok(()) => delivered.push(format!("pushgateway: {} series shown", snapshot.samples.len())),
            Err(error) => problems.push(error.to_string()),
        }
    }
    problems.extend(undelivered);
    close(agent.buffer).await;
    Ok(OnceOutcome { snapshot, delivered, problems })
}

/// A line for every endpoint that took something.
fn delivered(before: &buffer::Status, after: &buffer::Status) -> Vec<String> {
    let count = |(before, after): (&buffer::EndpointStatus, &buffer::EndpointStatus)| {
        let samples = after.ledger.delivered - before.ledger.delivered;
        (samples > 0).then(|| format!("remote_write {}: {samples} samples delivered", after.name))
    };
    before.endpoints.iter().zip(&after.endpoints).filter_map(count).collect()
}

/// A line for every endpoint that did not take all it was offered.
fn undelivered(before: &buffer::Status, after: &buffer::Status, watches: &Watches) -> Vec<String> {
    let mut problems = Vec::new();
    for ((before, after), state) in before.endpoints.iter().zip(&after.endpoints).zip(&watches.endpoints) {
        let refused = after.ledger.refused - before.ledger.refused;
        if after.ledger.pending == 0 && refused == 0 {
            continue;
        }
        let reason = state.borrow().last_error.clone().unwrap_or_else(|| "no answer in time".to_owned());
        let pending = after.ledger.pending;
        problems.push(format!(
            "remote_write {}: {pending} samples not delivered (kept in the buffer), {refused} refused: {reason}",
            after.name
        ));
    }
    problems
}

impl Agent {
    /// What can be watched.
    pub fn watches(&self) -> &Watches {
        &self.watches
    }

    /// Runs until `stop` resolves.
    ///
    /// # Errors
    /// When a task ends that should have lived.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), AgentError> {
        let began = Instant::now();
        let grace = self.config.shutdown_grace;
        let (mut sampling, mut sending) = (Group::default(), Group::default());
        for shipper in self.shippers {
            sending.spawn("shipper", |phase| shipper.run(phase));
        }
        if let Some(gateway) = self.pushgateway {
            let (latest, endpoints) = (self.watches.latest.clone(), self.watches.endpoints.clone());
            sending.spawn("pushgateway", |phase| gateway.run(latest, endpoints, phase));
        }
        if let Some(listener) = build::listen(self.config.web.as_ref()).await {
            sending.spawn("web", |phase| self.page.serve(listener, phase));
        }
        for reader in self.readers {
            sampling.spawn("event reader", |_| reader.run());
        }
        sampling.spawn("sampler", |phase| self.sampler.run(phase));

        let died = tokio::select! {
            () = stop => None,
            died = sampling.first_death() => Some(died),
            died = sending.first_death() => Some(died),
        };
        // Sampling first: a shipper that drains ends at the first empty look, which must come after the last append.
        let mut alive = sampling.stop(RETURN_WITHIN).await;
        alive.extend(sending.stop(grace).await);
        if !alive.is_empty() {
            tracing::warn!(tasks = alive.join(","), "tasks did not return in time and are abandoned");
        }
        close(self.buffer.clone()).await;
        // After closing, which may still write, and evict.
        farewell(&self.buffer.status(), began.elapsed());
        died.map_or(Ok(()), Err)
    }
}

/// Closes the buffer, unless its disk hangs.
async fn close(buffer: Buffer) {
    if tokio::time::timeout(CLOSE_WITHIN, buffer.close()).await.is_err() {
        tracing::warn!("buffer did not close in time; its disk may hang");
    }
}

fn farewell(status: &buffer::Status, uptime: Duration) {
    for endpoint in &status.endpoints {
        let ledger = &endpoint.ledger;
        tracing::info!(
            endpoint = endpoint.name,
            appended = ledger.appended,
            delivered = ledger.delivered,
            refused = ledger.refused,
            expired = ledger.expired,
            unchanged = ledger.unchanged,
            filtered = ledger.filtered,
            evicted = ledger.evicted.total(),
            corrupt = ledger.corrupt,
            pending = ledger.pending,
            "samples of this buffer so far"
        );
    }
    tracing::info!(uptime_seconds = uptime.as_secs(), "stopped");
}

/// Tasks that are stopped together.
struct Group {
    set: JoinSet<()>,
    names: Vec<(Id, &'static str)>,
    trigger: Trigger,
    phase: Shutdown,
}

impl Default for Group {
    fn default() -> Self {
        let (trigger, phase) = shutdown::channel();
        Self { set: JoinSet::new(), names: Vec::new(), trigger, phase }
    }
}

impl Group {
    fn spawn<T>(&mut self, name: &'static str, task: impl FnOnce(Shutdown) -> T)
    where
        T: Future<Output = ()> + Send + 'static,
    {
        let handle = self.set.spawn(task(self.phase.clone()));
        self.names.push((handle.id(), name));
    }

    /// Resolves when any task ends, which none should while the agent runs.
    async fn first_death(&mut self) -> AgentError {
        let Some(ended) = self.set.join_next_with_id().await else { return std::future::pending().await };
        let (id, detail) = match ended {
            Ok((id, ())) => (id, String::new()),
            Err(error) => (error.id(), format!(" ({error})")),
        };
        let task = self.names.iter().find(|(known, _)| *known == id).map_or("unknown", |(_, name)| name);
        AgentError::TaskDied { task, detail }
    }

    /// Lets every task drain for `grace`, tells the rest to return, and names what still does not.
    async fn stop(&mut self, grace: Duration) -> Vec<&'static str> {
        self.trigger.advance(Phase::Draining);
        self.all_returned(grace).await;
        self.trigger.advance(Phase::Stopped);
        self.all_returned(RETURN_WITHIN).await;
        self.names.iter().map(|(_, name)| *name).collect()
    }

    /// Waits until every task returned or `within` is over.
    async fn all_returned(&mut self, within: Duration) {
        let joined = async {
            while let Some(ended) = self.set.join_next_with_id().await {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                self.names.retain(|(known, _)| *known != id);
            }
        };
        // Running out of time is an answer too: the names that are left.
        drop(tokio::time::timeout(within, joined).await);
    }
}
