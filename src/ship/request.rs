//! One request: made, sent until its fate is known, and what follows from the answer.
//!
//! Everything that an answer may mean ends in this file in one of six ways ([`Settled`]); the table that says what it means
//! is `outcome`'s.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff;
use super::batch::{Batch, Extent, Wanted};
use super::metrics::Dropped;
use super::negotiate::Way;
use super::outcome::{self, Asked, Exchange, Otherwise, Outcome};
use super::pace::Pace;
use super::part_size::TooLarge;
use super::remote_write::Envelope;
use super::shipper::{HELD_PROBE_INTERVAL, Patience, Shipper};
use super::suspicion::Suspicion;
use crate::buffer::Fates;
use crate::encode::{Body, Format};
use crate::shutdown::{Phase, Shutdown};

/// A request is no longer than this, compressed; a bound on what a thin line must carry in one piece.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Samples to be sent together.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) extent: Extent,
    pub(super) suspicion: Suspicion,
}

impl Task {
    pub(super) fn new(extent: Extent) -> Self {
        Self { extent, suspicion: Suspicion::default() }
    }

    /// A piece of it.
    fn piece(&self, extent: Extent) -> Self {
        Self { extent, ..self.clone() }
    }
}

/// What became of a task.
#[derive(Debug)]
pub(super) enum Settled {
    /// The fate of all of its samples is known.
    Done(Fates),
    /// These instead, the first to be sent in front.
    Instead(Fates, Vec<Task>),
    /// The receiver will never take what is left of them.
    Refused(Fates, Task, Exchange),
    /// It is one sample, on which the receiver fails.
    Suspect(Fates, Task, Exchange),
    /// The program stops, or patience is at its end; nothing is known of them.
    Interrupted,
}

/// A request that is made and may be sent several times.
struct Made {
    body: Body,
    way: usize,
    attempt: u32,
}

/// What to do after an answer.
enum Next {
    Settle(Box<Settled>),
    /// Make it in this format.
    Way(usize),
    Wait(Duration),
}

impl Shipper {
    /// `task` in pieces that requests may hold; itself, where it is small enough.
    pub(super) fn cut(&self, batch: &Batch, task: &Task) -> Vec<Task> {
        let samples_max = self.part_size.current();
        if batch.count(&task.extent) <= samples_max {
            return if batch.count(&task.extent) == 0 { Vec::new() } else { vec![task.clone()] };
        }
        batch.cut(&task.extent, samples_max).into_iter().map(|extent| task.piece(extent)).collect()
    }

    /// Sends one task until its fate is known.
    pub(super) async fn settle(
        &mut self,
        batch: &Batch,
        mut task: Task,
        patience: Patience,
        shutdown: &Shutdown,
    ) -> Settled {
        let mut fates = Fates::default();
        let mut made: Option<Made> = None;
        let rest = std::mem::take(&mut self.rest);
        self.pause(rest, shutdown).await;
        loop {
            if self.expire(batch, &mut task, &mut fates) {
                made = None;
            }
            let mut request = if let Some(made) = made.take() {
                made
            } else {
                let way = self.negotiation.current(self.clock.now());
                self.make(batch, &task.extent, way)
            };
            if request.body.bytes.len() > BODY_BYTES_MAX
                && let Some(halves) = batch.halves(&task.extent)
            {
                return Settled::Instead(fates, halves.map(|half| task.piece(half)).into());
            }
            if request.body.sent.is_empty() {
                fates.add(self.left_out(&request.body));
                return Settled::Done(fates);
            }
            let began = self.clock.now();
            let Some((exchange, took)) = self.attempt(&request, shutdown).await else { return Settled::Interrupted };
            match self.follow(batch, &mut task, &request, &exchange, took) {
                Next::Settle(settled) => return settled.with(fates),
                Next::Way(way) => made = Some(self.make(batch, &task.extent, way)),
                Next::Wait(wait) => {
                    let is_due = task.suspicion.failed(&exchange, Instant::now());
                    let meaning = self.meaning(&request, &exchange);
                    self.note_failed(&exchange, meaning, began, wait);
                    if shutdown.phase() >= Phase::Draining || patience == Patience::None {
                        return Settled::Interrupted;
                    }
                    self.pause(wait, shutdown).await;
                    if is_due {
                        return self.look_closely(batch, task, fates, exchange);
                    }
                    if meaning == Outcome::Held
                        && let Some(pieces) = batch.first_series(&task.extent)
                    {
                        // To knock at a closed door one series is enough.
                        return Settled::Instead(fates, pieces.map(|piece| task.piece(piece)).into());
                    }
                    request.attempt += 1;
                    made = Some(request);
                }
            }
        }
    }

    /// What failed for minutes, in halves; one sample is for others to judge.
    fn look_closely(&self, batch: &Batch, mut task: Task, fates: Fates, exchange: Exchange) -> Settled {
        let Some(halves) = batch.halves(&task.extent) else { return Settled::Suspect(fates, task, exchange) };
        self.say_halved(&exchange, batch.count(&task.extent));
        task.suspicion = task.suspicion.halved();
        Settled::Instead(fates, halves.map(|half| task.piece(half)).into())
    }

    /// What an answer means for the request.
    fn meaning(&self, request: &Made, exchange: &Exchange) -> Outcome {
        let way = self.negotiation.way(request.way);
        let asked = Asked {
            message: way.message,
            compression: way.compression,
            retry_on_http_429: self.queue.retry_on_http_429,
        };
        match outcome::classify(exchange, asked, self.clock.now()) {
            Outcome::Misunderstood { otherwise } if self.negotiation.after(request.way).is_none() => match otherwise {
                Otherwise::Refused => Outcome::Refused,
                Otherwise::Held => Outcome::Held,
            },
            outcome => outcome,
        }
    }

    fn follow(&mut self, batch: &Batch, task: &mut Task, request: &Made, exchange: &Exchange, took: Duration) -> Next {
        let outcome = self.meaning(request, exchange);
        let count = batch.count(&task.extent);
        let sent = request.body.sent;
        match outcome {
            Outcome::Delivered => {
                self.part_size.taken(count);
                self.note_way(request.way);
                self.note_settled(&request.body, batch.last_at(&task.extent));
                self.note_delivered(exchange);
                self.note_lost_exemplars(exchange, sent);
                self.plan_rest(took);
                let delivered = sent.points() as u64;
                Next::Settle(Box::new(Settled::Done(Fates { delivered, ..self.left_out(&request.body) })))
            }
            Outcome::Partial { written } => {
                let rest = sent.minus(written);
                self.note_way(request.way);
                self.note_settled(&request.body, batch.last_at(&task.extent));
                self.note_refused(exchange, rest);
                let left_out = self.left_out(&request.body);
                let delivered = (sent.points() - rest.points()) as u64;
                let refused = left_out.refused + rest.points() as u64;
                Next::Settle(Box::new(Settled::Done(Fates { delivered, refused, ..left_out })))
            }
            Outcome::Misunderstood { .. } => match self.negotiation.after(request.way) {
                Some(way) => {
                    self.say_misunderstood(exchange, way);
                    Next::Way(way)
                }
                None => Next::Wait(HELD_PROBE_INTERVAL),
            },
            Outcome::Refused
                if !says_what_was_written(exchange)
                    && let Some(instants) = batch.instants(&task.extent) =>
            {
                // A receiver that takes all or nothing: each instant alone, so that a bad one costs only itself.
                self.backoff.reset();
                self.say_apart(exchange, count, instants.len());
                let alone = instants.into_iter().map(|instant| task.piece(instant)).collect();
                Next::Settle(Box::new(Settled::Instead(Fates::default(), alone)))
            }
            Outcome::TooLarge if self.part_size.too_large(count) == TooLarge::Split => {
                self.say_split(exchange, count);
                let halves = batch.halves(&task.extent);
                let halves =
                    halves.map_or_else(|| vec![task.clone()], |halves| halves.map(|half| task.piece(half)).into());
                Next::Settle(Box::new(Settled::Instead(Fates::default(), halves)))
            }
            Outcome::Refused | Outcome::TooLarge | Outcome::GivenUp => self.refuse(request, exchange, batch, task),
            Outcome::Held | Outcome::Retry { .. } => {
                self.pace.troubled();
                Next::Wait(self.wait_after(outcome))
            }
        }
    }

    fn refuse(&mut self, request: &Made, exchange: &Exchange, batch: &Batch, task: &Task) -> Next {
        let sent = request.body.sent;
        self.note_settled(&request.body, batch.last_at(&task.extent));
        self.note_refused(exchange, sent);
        let left_out = self.left_out(&request.body);
        let fates = Fates { refused: left_out.refused + sent.points() as u64, ..left_out };
        Next::Settle(Box::new(Settled::Refused(fates, task.clone(), exchange.clone())))
    }

    /// What became of samples that are not in the body.
    fn left_out(&self, body: &Body) -> Fates {
        self.give_up_unsendable(body);
        self.metrics.dropped(Dropped::Duplicate, body.duplicates);
        let filtered = body.relabelled_away.plus(body.duplicates).plus(body.unwanted).points() as u64;
        let refused = (body.unsendable.points() + body.custom_buckets) as u64;
        Fates { refused, filtered, ..Fates::default() }
    }

    /// Takes out of `task` what is too old by now; whether anything was.
    fn expire(&mut self, batch: &Batch, task: &mut Task, fates: &mut Fates) -> bool {
        let Some(age) = self.max_sample_age else { return false };
        let (rest, expired) = batch.expire(task.extent.clone(), self.clock.now().minus(age));
        task.extent = rest;
        if expired.is_empty() {
            return false;
        }
        fates.expired += expired.points() as u64;
        self.note_expired(expired);
        true
    }

    fn make(&mut self, batch: &Batch, extent: &Extent, way: usize) -> Made {
        let Way { message, compression } = self.negotiation.way(way);
        let Wanted { exemplars, native_histograms } = self.wanted;
        let format = Format { message, compression, exemplars, native_histograms };
        let body = self.encoder.encode(&batch.parts(extent), format);
        Made { body, way, attempt: 0 }
    }

    /// One request and how long it took; `None` when the program stopped first.
    async fn attempt(&mut self, request: &Made, shutdown: &Shutdown) -> Option<(Exchange, Duration)> {
        self.metrics.sent.add(request.body.sent);
        if request.attempt > 0 {
            self.metrics.retried.add(request.body.sent);
        }
        let way = self.negotiation.way(request.way);
        let envelope = Envelope {
            message: way.message,
            compression: way.compression,
            body: request.body.bytes.clone(),
            attempt: request.attempt,
        };
        let (began, began_at) = (Instant::now(), self.clock.now());
        let mut stop = shutdown.clone();
        let exchange = tokio::select! {
            biased;
            exchange = self.endpoint.post(envelope) => exchange,
            () = stop.reached(Phase::Stopped) => return None,
        };
        let took = began.elapsed();
        self.metrics.duration.observe(took.as_secs_f64());
        self.metrics.request(&outcome::code(&exchange));
        if let Ok(answer) = &exchange
            && let Some(date) = answer.date
        {
            self.metrics.skew.observe_at(date, began_at, self.clock.now());
        }
        Some((exchange, took))
    }

    /// Sends samples once, out of turn; what became of them, if they were taken.
    pub(super) async fn send_once(&mut self, batch: &Batch, extent: &Extent, shutdown: &Shutdown) -> Option<Fates> {
        let current = self.negotiation.current(self.clock.now());
        let request = self.make(batch, extent, current);
        if request.body.sent.is_empty() {
            return None;
        }
        let (exchange, _) = self.attempt(&request, shutdown).await?;
        if self.meaning(&request, &exchange) != Outcome::Delivered {
            return None;
        }
        self.note_settled(&request.body, batch.last_at(extent));
        Some(Fates { delivered: request.body.sent.points() as u64, ..self.left_out(&request.body) })
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

    /// How long to leave the receiver in peace before more of a backlog.
    fn plan_rest(&mut self, took: Duration) {
        let rest = self.pace.rest_after(took);
        let outage = std::mem::take(&mut self.outage);
        if self.has_backlog {
            self.rest = rest.max(Pace::after_outage(outage));
        }
    }
}

impl Settled {
    /// The same with what is known besides.
    fn with(self, more: Fates) -> Self {
        let sum = |mut fates: Fates| {
            fates.add(more);
            fates
        };
        match self {
            Self::Done(fates) => Self::Done(sum(fates)),
            Self::Instead(fates, tasks) => Self::Instead(sum(fates), tasks),
            Self::Refused(fates, task, exchange) => Self::Refused(sum(fates), task, exchange),
            Self::Suspect(fates, task, exchange) => Self::Suspect(sum(fates), task, exchange),
            Self::Interrupted => Self::Interrupted,
        }
    }
}

/// Whether the receiver has said what it took of a request that it refused: then it took what it could.
fn says_what_was_written(exchange: &Exchange) -> bool {
    exchange.as_ref().is_ok_and(|answer| answer.written.is_some())
}
