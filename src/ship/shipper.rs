//! One endpoint's shipper: takes the oldest samples, sends them, and moves the cursor when their fate is known.
//!
//! Invariants: one request in flight; a snapshot is acknowledged only when every sample of it is delivered, refused or
//! expired; what is sent again is the same bytes; nothing is given up for being difficult to send. It never spawns, and
//! never waits for nothing: every turn of the loop sends, waits for time, or waits for the buffer.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::{self, Backoff};
use super::families::Families;
use super::metrics::{EndpointMetrics, Metrics};
use super::outcome::{self, Exchange, Outcome};
use super::part_size::{PartSize, TooLarge};
use super::remote_write::{Endpoint, Envelope};
use super::state::EndpointState;
use crate::buffer::{self, Buffer, EndpointId, Fates, Lease, Limits};
use crate::clock::Clock;
use crate::config::RemoteWrite;
use crate::encode::{Compression, Message, Part, v1};
use crate::model::{Labels, Snapshot, Timestamp};
use crate::shutdown::{Phase, Shutdown};

/// How long to leave an endpoint alone whose answer says that waiting alone will not help.
pub(super) const HELD_PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Metadata is worth less patience than samples: how long one such request may keep them waiting.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to leave a buffer alone that says it has something and cannot give it: its disk does not let it read.
const UNREADABLE_WAIT: Duration = Duration::from_secs(1);
/// Snapshots in one request.
const INSTANTS_MAX: usize = 1;

/// What a shipper is made of.
#[derive(Debug)]
pub struct ShipperOptions<'a> {
    /// Its cursor in the buffer.
    pub endpoint: EndpointId,
    /// Where and how to send.
    pub config: RemoteWrite,
    /// Added to every series that lacks them.
    pub external_labels: Labels,
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
    endpoint_id: EndpointId,
    name: String,
    url: String,
    endpoint: Endpoint,
    external_labels: Labels,
    max_sample_age: Option<Duration>,
    buffer: Buffer,
    clock: Clock,
    part_size: PartSize,
    backoff: Backoff,
    families: Families,
    metrics: EndpointMetrics,
    state: watch::Sender<EndpointState>,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

/// What became of one request's samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    Delivered {
        unsendable: usize,
    },
    Refused,
    Expired,
    /// To be sent in smaller parts.
    Split,
    /// The program stops; nothing is known of them.
    Interrupted,
}

impl Shipper {
    /// A shipper that has not begun. Never fails: what is wrong with files or the network is a matter of sending.
    pub fn new(options: ShipperOptions) -> Self {
        let ShipperOptions { endpoint, config, external_labels, buffer, clock, metrics } = options;
        let url = config.url.masked();
        let state = EndpointState { name: config.name.clone(), url: url.clone(), ..EndpointState::default() };
        Self {
            endpoint_id: endpoint,
            metrics: metrics.endpoint(&config.name, &url),
            endpoint: Endpoint::new(&config),
            part_size: PartSize::new(config.queue.max_samples_per_send),
            backoff: Backoff::new(config.queue.min_backoff, config.queue.max_backoff),
            families: Families::new(config.metadata),
            max_sample_age: config.max_sample_age,
            name: config.name,
            url,
            external_labels,
            buffer,
            clock,
            state: watch::Sender::new(state),
        }
    }

    /// How the endpoint is doing, from now on.
    pub fn state(&self) -> watch::Receiver<EndpointState> {
        self.state.subscribe()
    }

    /// Ships until the program stops: while draining without waiting, until nothing is left or something is not taken.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut changes = self.buffer.changes();
        let limits = Limits { instants_max: INSTANTS_MAX, samples_max: usize::MAX };
        let mut fruitless = false;
        while shutdown.phase() < Phase::Stopped {
            // Seen before asking, so that what comes after asking wakes us.
            let pending = has_pending(&changes.borrow_and_update(), self.endpoint_id);
            let flow = match self.buffer.next(self.endpoint_id, limits).await {
                Some(lease) => {
                    fruitless = false;
                    self.ship(lease, &shutdown).await
                }
                None if shutdown.phase() >= Phase::Draining => Flow::Stop,
                None if pending && std::mem::replace(&mut fruitless, true) => {
                    self.pause(UNREADABLE_WAIT, &shutdown).await;
                    Flow::Continue
                }
                None => wait_for_more(&mut changes, &shutdown).await,
            };
            if flow == Flow::Stop {
                return;
            }
        }
    }

    async fn ship(&mut self, lease: Lease, shutdown: &Shutdown) -> Flow {
        let mut fates = Fates::default();
        for snapshot in &lease.snapshots {
            if self.ship_snapshot(snapshot, &mut fates, shutdown).await == Flow::Stop {
                return Flow::Stop;
            }
        }
        self.buffer.ack(self.endpoint_id, lease.through, fates).await;
        if fates.delivered > 0 && shutdown.phase() == Phase::Running {
            self.send_metadata(shutdown).await;
        }
        Flow::Continue
    }

    async fn ship_snapshot(&mut self, snapshot: &Snapshot, fates: &mut Fates, shutdown: &Shutdown) -> Flow {
        let families = self.families.note(&snapshot.samples);
        self.metrics.metadata_dropped.inc_by(families.without_room);
        let mut rest = snapshot.samples.as_slice();
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(self.part_size.current()));
            let count = part.len() as u64;
            match self.settle(Part::new(snapshot.at, part), shutdown).await {
                Settled::Delivered { unsendable } => {
                    fates.delivered += count - unsendable as u64;
                    fates.refused += unsendable as u64;
                }
                Settled::Refused => fates.refused += count,
                Settled::Expired => {
                    fates.expired += count;
                    self.metrics.dropped_too_old.inc_by(count);
                }
                Settled::Split => continue,
                Settled::Interrupted => return Flow::Stop,
            }
            rest = after;
        }
        Flow::Continue
    }

    /// Sends one part until its fate is known.
    async fn settle(&mut self, part: Part<'_>, shutdown: &Shutdown) -> Settled {
        let body = v1::write_request([part], &self.external_labels);
        let unsendable = body.unsendable;
        let mut attempt = 0;
        loop {
            if self.is_expired(part.at) {
                self.say_expired(part);
                return Settled::Expired;
            }
            if body.entries == 0 {
                return self.give_up_unsendable(unsendable);
            }
            let began = self.clock.now();
            let Some(exchange) = self.attempt(&body, attempt, shutdown).await else { return Settled::Interrupted };
            let outcome = outcome::classify(&exchange, self.clock.now());
            match outcome {
                Outcome::Delivered => {
                    self.part_size.taken(part.samples.len());
                    self.note_settled(&body, part.at);
                    self.note_delivered(&exchange);
                    self.give_up_unsendable(unsendable);
                    return Settled::Delivered { unsendable };
                }
                Outcome::Refused => {
                    self.note_settled(&body, part.at);
                    self.note_refused(&exchange, &body);
                    self.give_up_unsendable(unsendable);
                    return Settled::Refused;
                }
                Outcome::TooLarge if self.part_size.too_large(part.samples.len()) == TooLarge::Split => {
                    self.say_split(&exchange, part.samples.len());
                    return Settled::Split;
                }
                Outcome::TooLarge => {
                    self.note_settled(&body, part.at);
                    self.note_refused(&exchange, &body);
                    return Settled::Refused;
                }
                Outcome::Held | Outcome::Retry { .. } => {}
            }
            let wait = self.wait_after(outcome);
            self.note_failed(&exchange, outcome, began, wait);
            if shutdown.phase() >= Phase::Draining {
                return Settled::Interrupted;
            }
            self.pause(wait, shutdown).await;
            attempt += 1;
        }
    }

    /// One request; `None` when the program stopped first.
    async fn attempt(&mut self, body: &v1::Body, attempt: u32, shutdown: &Shutdown) -> Option<Exchange> {
        let entries = body.entries as u64;
        self.metrics.samples.inc_by(entries);
        if attempt > 0 {
            self.metrics.samples_retried.inc_by(entries);
        }
        let began = Instant::now();
        let mut stop = shutdown.clone();
        let exchange = tokio::select! {
            biased;
            exchange = self.endpoint.post(envelope(body.bytes.clone(), attempt)) => exchange,
            () = stop.reached(Phase::Stopped) => return None,
        };
        self.metrics.duration.observe(began.elapsed().as_secs_f64());
        self.metrics.request(&outcome::code(&exchange));
        Some(exchange)
    }

    fn is_expired(&self, at: Timestamp) -> bool {
        self.max_sample_age.is_some_and(|age| self.clock.now().since(at) > age)
    }

    /// The wait after a failure: what the receiver asks for comes before what we would do.
    fn wait_after(&mut self, outcome: Outcome) -> Duration {
        // Counted on in any case, so that a receiver that stops asking finds us as patient as we should be by then.
        let own = self.backoff.next_wait();
        match outcome {
            Outcome::Held => backoff::spread(HELD_PROBE_INTERVAL),
            Outcome::Retry { after: Some(after) } => backoff::spread(after),
            _ => own,
        }
    }

    /// Waits, but not into the time of draining.
    async fn pause(&mut self, wait: Duration, shutdown: &Shutdown) {
        let mut drain = shutdown.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = drain.reached(Phase::Draining) => {}
        }
        self.state.send_modify(|state| state.retry_in = None);
    }

    /// Sends types and help texts when it is time. What fails is sent with all the rest next time.
    async fn send_metadata(&mut self, shutdown: &Shutdown) {
        for families in self.families.take_due() {
            let body = v1::metadata_request(families.iter().map(AsRef::as_ref));
            let mut drain = shutdown.clone();
            let exchange = tokio::select! {
                biased;
                exchange = self.endpoint.post_within(envelope(body.bytes, 0), METADATA_TIMEOUT) => exchange,
                () = drain.reached(Phase::Draining) => return,
            };
            self.metrics.request(&outcome::code(&exchange));
            self.metrics.metadata.inc_by(body.entries as u64);
            if outcome::classify(&exchange, self.clock.now()) != Outcome::Delivered {
                self.metrics.metadata_failed.inc_by(body.entries as u64);
                let error = outcome::describe(&exchange);
                tracing::warn!(endpoint = %self.name, url = %self.url, %error, "metadata was not taken; samples are not affected");
                return;
            }
        }
    }
}

fn envelope(body: Bytes, attempt: u32) -> Envelope {
    Envelope { message: Message::V1, compression: Compression::Snappy, body, attempt }
}

/// What is counted, told and shown.
impl Shipper {
    fn note_settled(&mut self, body: &v1::Body, at: Timestamp) {
        self.backoff.reset();
        self.metrics.bytes.inc_by(body.bytes.len() as u64);
        self.metrics.highest_sent.set(at.seconds());
        self.metrics.up.set(1.0);
    }

    fn note_delivered(&mut self, exchange: &Exchange) {
        let now = self.clock.now();
        let before = self.state.borrow().stalled_since;
        if let Some(since) = before {
            let stalled = format!("{:?}", now.since(since));
            tracing::info!(endpoint = %self.name, url = %self.url, %stalled, "remote-write delivers again");
        }
        self.state.send_modify(|state| {
            state.delivering = true;
            state.stalled_since = None;
            state.last_success = Some(now);
            state.last_status = status(exchange);
            state.last_error = None;
            state.consecutive_failures = 0;
        });
    }

    fn note_refused(&mut self, exchange: &Exchange, body: &v1::Body) {
        self.metrics.samples_failed.inc_by(body.entries as u64);
        let (error, advice) = (outcome::describe(exchange), outcome::advice(exchange, self.endpoint.host()));
        tracing::error!(
            endpoint = %self.name, url = %self.url, samples = body.entries, %error, advice,
            "receiver refused samples; they are lost"
        );
        self.state.send_modify(|state| {
            state.delivering = false;
            state.stalled_since = None;
            state.last_status = status(exchange);
            state.last_error = Some(error);
            state.consecutive_failures = 0;
        });
    }

    fn note_failed(&mut self, exchange: &Exchange, outcome: Outcome, began: Timestamp, wait: Duration) {
        self.metrics.up.set(0.0);
        let (error, advice) = (outcome::describe(exchange), outcome::advice(exchange, self.endpoint.host()));
        if outcome == Outcome::Held {
            tracing::warn!(
                endpoint = %self.name, url = %self.url, %error, advice, ?wait,
                "samples cannot be written as configured; they are kept"
            );
        } else {
            tracing::warn!(
                endpoint = %self.name, url = %self.url, %error, advice, ?wait,
                "remote-write failed; samples are kept and sent again"
            );
        }
        self.state.send_modify(|state| {
            state.delivering = false;
            state.stalled_since.get_or_insert(began);
            state.last_status = status(exchange);
            state.last_error = Some(error);
            state.consecutive_failures = state.consecutive_failures.saturating_add(1);
            state.retry_in = Some(wait);
        });
    }

    fn say_split(&self, exchange: &Exchange, samples: usize) {
        let error = outcome::describe(exchange);
        let next = self.part_size.current();
        tracing::warn!(endpoint = %self.name, url = %self.url, %error, samples, next, "request too large; sending smaller ones");
    }

    fn say_expired(&self, part: Part) {
        let samples = part.samples.len();
        tracing::error!(endpoint = %self.name, at = %part.at, samples, "samples older than max_sample_age are not sent; they are lost");
    }

    fn give_up_unsendable(&self, unsendable: usize) -> Settled {
        if unsendable > 0 {
            self.metrics.dropped_invalid_name.inc_by(unsendable as u64);
            tracing::error!(endpoint = %self.name, samples = unsendable, "remote-write 1.0 cannot carry the names of some series; their samples are lost");
        }
        Settled::Refused
    }
}

/// Whether the buffer says that it still holds something for the endpoint.
fn has_pending(status: &buffer::Status, endpoint: EndpointId) -> bool {
    status.endpoints.get(endpoint.0).is_some_and(|endpoint| endpoint.ledger.pending > 0)
}

async fn wait_for_more<T>(changes: &mut watch::Receiver<T>, shutdown: &Shutdown) -> Flow {
    let mut drain = shutdown.clone();
    tokio::select! {
        change = changes.changed() => if change.is_ok() { Flow::Continue } else { Flow::Stop },
        () = drain.reached(Phase::Draining) => Flow::Continue,
    }
}

fn status(exchange: &Exchange) -> Option<u16> {
    exchange.as_ref().ok().map(|answer| answer.status)
}
