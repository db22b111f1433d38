//! One endpoint's shipper: takes the oldest samples, sends them, and moves the cursor when their fate is known.
//!
//! Invariants: one request in flight; a snapshot is acknowledged only when every sample of it is delivered, refused, expired
//! or left out on purpose; nothing is given up for being difficult to send. It never spawns, and never waits for nothing:
//! every turn of the loop sends, waits for time, or waits for the buffer.
//!
//! What is sent together follows from the lease, which the buffer gives again as it was after a crash, and from the size of
//! requests that was kept with the buffer; so what may have been received is sent again as it was. Three exceptions: what
//! failed for minutes and is halved (`suspicion`), what `send_unchanged_every` had left out, and what `max_sample_age` expires
//! meanwhile.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::batch::{Batch, Wanted};
use super::families::Families;
use super::metrics::{Dropped, EndpointMetrics, Metrics};
use super::negotiate::Negotiation;
use super::outcome::{self, Outcome};
use super::pace::{Pace, Waiting};
use super::part_size::PartSize;
use super::remote_write::{Endpoint, Envelope};
use super::request::Task;
use super::state::EndpointState;
use super::unchanged::Unchanged;
use crate::buffer::{self, Buffer, EndpointId, Fates, Lease, Limits};
use crate::clock::{Clock, sleep_until};
use crate::config::{Queue, RemoteWrite};
use crate::encode::{Compression, Encoder, Message, Tally};
use crate::model::{Labels, Snapshot};
use crate::relabel::{self, Rules};
use crate::shutdown::{Phase, Shutdown};

/// How long to leave an endpoint alone whose answer says that waiting alone will not help.
pub(super) const HELD_PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Metadata is worth less patience than samples: how long one such request may keep them waiting.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to leave a buffer alone that says it has something and cannot give it: its disk does not let it read.
const UNREADABLE_WAIT: Duration = Duration::from_secs(1);
/// Of a backlog, so many snapshots are taken at once: up to here more instants of a series share its labels for fewer bytes,
/// beyond it the series before is out of the packer's near reach (docs/WIRE.md),
const LEASE_INSTANTS_MAX: usize = 60;
/// and so many samples: what they take in memory, 40 bytes each, is what draining costs.
const LEASE_SAMPLES_MAX: usize = 150_000;

/// What a shipper is made of.
#[derive(Debug)]
pub struct ShipperOptions<'a> {
    /// Its cursor in the buffer.
    pub endpoint: EndpointId,
    /// Where and how to send.
    pub config: RemoteWrite,
    /// Added to every series that lacks them.
    pub external_labels: Labels,
    /// An unchanged value is sent only this often; `None` sends every value.
    pub send_unchanged_every: Option<Duration>,
    /// What to send.
    pub buffer: Buffer,
    /// Tells how old samples are.
    pub clock: Clock,
    /// Where to count.
    pub metrics: &'a Metrics,
}

/// See the module.
#[derive(Debug)]
pub struct Shipper {
    pub(super) endpoint_id: EndpointId,
    pub(super) name: String,
    pub(super) url: String,
    pub(super) endpoint: Endpoint,
    pub(super) encoder: Encoder,
    pub(super) negotiation: Negotiation,
    pub(super) queue: Queue,
    /// What besides plain samples is sent.
    pub(super) wanted: Wanted,
    pub(super) max_sample_age: Option<Duration>,
    pub(super) buffer: Buffer,
    pub(super) clock: Clock,
    pub(super) part_size: PartSize,
    pub(super) backoff: Backoff,
    pub(super) pace: Pace,
    pub(super) unchanged: Unchanged,
    pub(super) metrics: EndpointMetrics,
    pub(super) state: watch::Sender<EndpointState>,
    /// How many snapshots the lease has that is being sent.
    pub(super) leased: usize,
    /// Whether more waits than the lease.
    pub(super) has_backlog: bool,
    /// How long to leave the receiver in peace before the next request.
    pub(super) rest: Duration,
    /// How long nothing was taken before the last that was.
    pub(super) outage: Duration,
    /// Whether it was said, since something was taken last, that a format may not be understood.
    pub(super) has_said_misunderstood: bool,
    families: Families,
    /// What the buffer keeps for us.
    saved: String,
    /// Whether it sends to another receiver than the endpoint's own.
    is_stand_in: bool,
    /// Not before this are requeued samples tried again.
    requeue_at: Option<Instant>,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Stop,
}

/// What to do about samples that are not taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Wait and try again.
    Endless,
    /// Leave them for later.
    None,
}

impl Shipper {
    /// A shipper that has not begun. Never fails: what is wrong with files or the network is a matter of sending.
    pub fn new(options: ShipperOptions) -> Self {
        let ShipperOptions { endpoint, config, external_labels, send_unchanged_every, buffer, clock, metrics } =
            options;
        let url = config.url.masked();
        let state = EndpointState { name: config.name.clone(), url: url.clone(), ..EndpointState::default() };
        Self {
            endpoint_id: endpoint,
            metrics: metrics.endpoint(&config.name, &url),
            endpoint: Endpoint::new(&config),
            encoder: Encoder::new(external_labels, relabel(config.write_relabel_configs, config.name.clone())),
            negotiation: Negotiation::new(config.protocol, config.compression),
            part_size: PartSize::new(config.queue.max_samples_per_send),
            backoff: Backoff::new(config.queue.min_backoff, config.queue.max_backoff),
            pace: Pace::new(config.send_interval),
            unchanged: Unchanged::new(send_unchanged_every),
            families: Families::new(config.metadata),
            queue: config.queue,
            wanted: Wanted { exemplars: config.send_exemplars, native_histograms: config.send_native_histograms },
            max_sample_age: config.max_sample_age,
            name: config.name,
            url,
            buffer,
            clock,
            state: watch::Sender::new(state),
            leased: 0,
            has_backlog: false,
            rest: Duration::ZERO,
            outage: Duration::ZERO,
            has_said_misunderstood: false,
            saved: String::new(),
            is_stand_in: false,
            requeue_at: None,
        }
    }

    /// For once to another receiver: what the endpoint's own one understands is neither believed of it nor forgotten for it.
    #[must_use]
    pub fn to_another(self) -> Self {
        Self { is_stand_in: true, ..self }
    }

    /// How the endpoint is doing, from now on.
    pub fn state(&self) -> watch::Receiver<EndpointState> {
        self.state.subscribe()
    }

    /// Ships until the program stops: while draining without waiting, until nothing is left or something is not taken.
    pub async fn run(mut self, shutdown: Shutdown) {
        self.restore().await;
        let mut changes = self.buffer.changes();
        let limits = Limits { instants_max: LEASE_INSTANTS_MAX, samples_max: LEASE_SAMPLES_MAX };
        let mut fruitless = false;
        while shutdown.phase() < Phase::Stopped {
            // Seen before asking, so that what comes after asking wakes us.
            let (waiting, requeued) = waiting(&changes.borrow_and_update(), self.endpoint_id);
            if let Some(until) = self.gather_until(waiting, &shutdown) {
                if wait_for_more(&mut changes, Some(until), &shutdown).await == Flow::Stop {
                    return;
                }
                continue;
            }
            // What comes while we ask is for `gather_until` to judge, which has not seen it yet.
            let is_empty = waiting.instants == 0 && shutdown.phase() < Phase::Draining;
            let lease = if is_empty { None } else { self.buffer.next(self.endpoint_id, limits).await };
            let flow = match lease {
                Some(lease) => {
                    fruitless = false;
                    self.has_backlog = waiting.samples > lease.samples;
                    self.ship(lease, &shutdown).await
                }
                None if shutdown.phase() >= Phase::Draining => Flow::Stop,
                None if waiting.samples > 0 && std::mem::replace(&mut fruitless, true) => {
                    self.pause(UNREADABLE_WAIT, &shutdown).await;
                    Flow::Continue
                }
                None if requeued && self.requeue_at.is_none_or(|at| at <= Instant::now()) => {
                    self.ship_requeued(&shutdown).await;
                    Flow::Continue
                }
                None => wait_for_more(&mut changes, self.requeue_at.filter(|_| requeued), &shutdown).await,
            };
            if flow == Flow::Stop {
                return;
            }
        }
    }

    /// Until when to wait for more before anything is sent.
    fn gather_until(&mut self, waiting: Waiting, shutdown: &Shutdown) -> Option<Instant> {
        if waiting.samples == 0 || shutdown.phase() >= Phase::Draining {
            return None;
        }
        let full = Waiting { instants: LEASE_INSTANTS_MAX as u64, samples: LEASE_SAMPLES_MAX as u64 };
        let now = Instant::now();
        let until = self.pace.gather_until(waiting, full, now);
        if until.is_none() {
            self.pace.sent(now);
        }
        until
    }

    async fn ship(&mut self, lease: Lease, shutdown: &Shutdown) -> Flow {
        let Lease { through, mut snapshots, .. } = lease;
        self.leased = snapshots.len();
        let mut fates = Fates::default();
        let last_at = snapshots.iter().map(|snapshot| snapshot.at).max();
        for snapshot in &mut snapshots {
            let families = self.families.note(snapshot);
            self.metrics.metadata_dropped.inc_by(families.without_room);
            fates.unchanged += self.unchanged.leave_out(snapshot);
        }
        let Some(sent) = self.ship_snapshots(snapshots, Patience::Endless, shutdown).await else { return Flow::Stop };
        fates.add(sent);
        self.save().await;
        self.buffer.ack(self.endpoint_id, through, fates).await;
        // Also where rules left everything out: what is not to be sent is not behind.
        self.note_through(last_at);
        if fates.delivered > 0 && shutdown.phase() == Phase::Running {
            self.send_metadata(shutdown).await;
        }
        Flow::Continue
    }

    /// Sends again what somebody asked for. What comes live goes first, so what is not taken now is left for later.
    async fn ship_requeued(&mut self, shutdown: &Shutdown) {
        let Some(requeued) = self.buffer.requeued(self.endpoint_id).await else {
            self.requeue_at = Some(Instant::now() + HELD_PROBE_INTERVAL);
            return;
        };
        match self.ship_snapshots(requeued.snapshots, Patience::None, shutdown).await {
            Some(fates) => {
                tracing::info!(endpoint = %self.name, file = requeued.id, delivered = fates.delivered, refused = fates.refused, "sent samples of the quarantine again");
                self.buffer.settle_requeued(self.endpoint_id, &requeued.id, fates).await;
                self.requeue_at = None;
            }
            None => self.requeue_at = Some(Instant::now() + HELD_PROBE_INTERVAL),
        }
    }

    /// What became of everything in `snapshots`; `None` when the program stopped, or patience ended, before that was known.
    async fn ship_snapshots(
        &mut self,
        snapshots: Vec<Snapshot>,
        patience: Patience,
        shutdown: &Shutdown,
    ) -> Option<Fates> {
        let (batch, left_out) = Batch::new(snapshots, self.wanted, &mut self.encoder);
        let filtered = left_out.relabelled_away.plus(left_out.unwanted).points() as u64;
        self.metrics.dropped(Dropped::Series, left_out.relabelled_away);
        self.metrics.dropped(Dropped::Unwanted, left_out.unwanted);
        self.metrics.dropped(Dropped::Unattached, Tally { exemplars: left_out.unattached, ..Tally::default() });
        let mut fates = Fates { filtered, ..Fates::default() };
        let mut todo = vec![Task::new(batch.whole())];
        while let Some(task) = todo.pop() {
            let cut = self.cut(&batch, &task);
            if cut.len() != 1 {
                todo.extend(cut.into_iter().rev());
                continue;
            }
            let settled = self.settle(&batch, task, patience, shutdown).await;
            if self.conclude(&batch, settled, &mut todo, &mut fates, shutdown).await == Flow::Stop {
                return None;
            }
        }
        Some(fates)
    }

    /// Sends types and help texts when it is time, where samples do not carry them. What fails is sent with all the rest
    /// next time.
    async fn send_metadata(&mut self, shutdown: &Shutdown) {
        let current = self.negotiation.current(self.clock.now());
        let way = self.negotiation.way(current);
        if way.message == Message::V2 {
            return;
        }
        for families in self.families.take_due() {
            let body = self.encoder.metadata(families.iter().map(AsRef::as_ref), Compression::Snappy);
            let envelope = Envelope {
                message: Message::V1,
                compression: Compression::Snappy,
                body: body.bytes.clone(),
                attempt: 0,
            };
            let mut drain = shutdown.clone();
            let exchange = tokio::select! {
                biased;
                exchange = self.endpoint.post_within(envelope, METADATA_TIMEOUT) => exchange,
                () = drain.reached(Phase::Draining) => return,
            };
            self.metrics.request(&outcome::code(&exchange));
            self.metrics.metadata.inc_by(body.entries as u64);
            self.metrics.metadata_bytes.inc_by(body.bytes.len() as u64);
            if outcome::classify(&exchange, outcome::Asked::PLAIN, self.clock.now()) != Outcome::Delivered {
                self.metrics.metadata_failed.inc_by(body.entries as u64);
                let error = outcome::describe(&exchange);
                tracing::warn!(endpoint = %self.name, url = %self.url, %error, "metadata was not taken; samples are not affected; set metadata_config.send to false if the receiver takes none");
                return;
            }
        }
    }

    /// Waits, but not into the time of draining.
    pub(super) async fn pause(&mut self, wait: Duration, shutdown: &Shutdown) {
        if wait.is_zero() {
            return;
        }
        let mut drain = shutdown.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = drain.reached(Phase::Draining) => {}
        }
        self.state.send_if_modified(|state| state.retry_in.take().is_some());
    }

    fn state_name(&self) -> String {
        format!("ship-{}", self.name)
    }

    /// Keeps what was learnt about the receiver, where it is new. Before an acknowledgement, so that what is sent again after
    /// a crash is made as it was.
    async fn save(&mut self) {
        let learnt = format!("{} {}", self.negotiation.save(), self.part_size.current());
        self.metrics.max_samples_per_send.set(self.part_size.current() as f64);
        if self.is_stand_in || learnt == self.saved {
            return;
        }
        if let Err(error) = self.buffer.save_state(&self.state_name(), learnt.clone().into_bytes()).await {
            tracing::debug!(endpoint = %self.name, %error, "could not keep what was learnt about the receiver");
        }
        self.saved = learnt;
    }

    async fn restore(&mut self) {
        let saved = if self.is_stand_in { None } else { self.buffer.load_state(&self.state_name()).await };
        let saved = saved.unwrap_or_default();
        let saved = String::from_utf8_lossy(&saved).into_owned();
        self.negotiation.restore(&saved);
        if let Some(size) = saved.rsplit(' ').next().and_then(|word| word.parse().ok()) {
            self.part_size.restore(size);
        }
        self.metrics.max_samples_per_send.set(self.part_size.current() as f64);
        self.saved = format!("{} {}", self.negotiation.save(), self.part_size.current());
    }
}

/// The endpoint's rules as the encoder asks them.
fn relabel(rules: Rules, endpoint: String) -> Option<crate::encode::Relabel> {
    if rules.is_empty() {
        return None;
    }
    Some(Box::new(move |labels| match rules.apply(labels) {
        relabel::Outcome::Unchanged => Some(labels.clone()),
        relabel::Outcome::Changed(labels) => Some(labels),
        relabel::Outcome::Dropped => None,
        relabel::Outcome::TooLarge => {
            tracing::error!(%endpoint, series = %labels, "write_relabel_configs make a series larger than may be; it is left out");
            None
        }
    }))
}

/// What the buffer says it holds for the endpoint, and whether somebody wants something sent again.
fn waiting(status: &buffer::Status, endpoint: EndpointId) -> (Waiting, bool) {
    let Some(endpoint) = status.endpoints.get(endpoint.0) else { return (Waiting::default(), false) };
    let waiting = Waiting { instants: endpoint.pending_records, samples: endpoint.ledger.pending };
    (waiting, endpoint.requeued > 0)
}

async fn wait_for_more<T>(changes: &mut watch::Receiver<T>, until: Option<Instant>, shutdown: &Shutdown) -> Flow {
    let mut drain = shutdown.clone();
    tokio::select! {
        change = changes.changed() => if change.is_ok() { Flow::Continue } else { Flow::Stop },
        () = sleep_until(until) => Flow::Continue,
        () = drain.reached(Phase::Draining) => Flow::Continue,
    }
}
