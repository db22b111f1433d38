//! One request: made, sent until its fate is known, and what follows from the answer.
//!
//! Everything that an answer may mean ends in this file in one of five ways ([`Settled`]); the table that says what it means
//! is `outcome`'s.

use std::time::Duration;

use tokio::time::Instant;

use super::backoff;
use super::batch::{Batch, Extent, Wanted};
use super::metrics::Dropped;
use super::negotiate::Way;
use super::outcome::{self, Answer, Asked, Exchange, Otherwise, Outcome};
use super::pace::Pace;
use super::part_size::TooLarge;
use super::remote_write::Envelope;
use super::shipper::{HELD_PROBE_INTERVAL, Patience, Shipper};
use super::suspicion::Suspicion;
use crate::buffer::Fates;
use crate::encode::{Body, Format, Message, Tally};
use crate::model::Timestamp;
use crate::shutdown::{Phase, Shutdown};

/// A request is no longer than this, compressed; a bound on what a thin line must carry in one piece.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Samples to be sent together.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) extent: Extent,
    pub(super) suspicion: Suspicion,
    /// How often they were sent, alone or with others, and failed.
    attempt: u32,
}

impl Task {
    pub(super) fn new(extent: Extent) -> Self {
        Self { extent, suspicion: Suspicion::default(), attempt: 0 }
    }

    /// A piece of it.
    pub(super) fn piece(&self, extent: Extent) -> Self {
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
}

/// What became of samples that are sent once, out of turn.
#[derive(Debug)]
pub(super) enum Once {
    /// The receiver took them.
    Taken(Fates),
    /// It did not.
    Failed(Failed),
    /// There was nothing to send, or the program stops.
    Unsent,
}

/// A request that did not settle its samples.
#[derive(Debug)]
pub(super) struct Failed {
    exchange: Exchange,
    meaning: Outcome,
    began: Timestamp,
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
            let request = if let Some(made) = made.take() {
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
            let Some((exchange, took)) = self.attempt(&request, task.attempt, shutdown).await else {
                return Settled::Interrupted;
            };
            let meaning = self.meaning(&request, &exchange);
            match self.follow(batch, &mut task, &request, &exchange, meaning, took) {
                Next::Settle(settled) => return settled.with(fates),
                Next::Way(way) => made = Some(self.make(batch, &task.extent, way)),
                Next::Wait(wait) => {
                    task.attempt = task.attempt.saturating_add(1);
                    let is_due = task.suspicion.failed(&exchange, Instant::now());
                    self.note_failed(&exchange, meaning, began, wait);
                    if shutdown.phase() >= Phase::Draining || patience == Patience::None {
                        return Settled::Interrupted;
                    }
                    self.pause(wait, shutdown).await;
                    if is_due {
                        return self.look_closely(batch, task, fates, exchange);
                    }
                    // A receiver that was replaced may take only what the one before did not.
                    let is_outdated = says_unsupported(&exchange) && self.negotiation.reconsider(request.way);
                    if meaning == Outcome::Held
                        && let Some(pieces) = batch.first_series(&task.extent)
                    {
                        // To knock at a closed door one series is enough.
                        return Settled::Instead(fates, pieces.map(|piece| task.piece(piece)).into());
                    }
                    made = Some(request).filter(|_| !is_outdated);
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

    fn follow(
        &mut self,
        batch: &Batch,
        task: &mut Task,
        request: &Made,
        exchange: &Exchange,
        outcome: Outcome,
        took: Duration,
    ) -> Next {
        let count = batch.count(&task.extent);
        let sent = request.body.sent;
        match outcome {
            Outcome::Delivered => {
                self.part_size.taken(count);
                self.note_way(request.way);
                self.note_settled(&request.body, batch.last_at(&task.extent));
                self.note_delivered(exchange);
                self.plan_rest(took);
                let rest = self.unwritten(request, exchange);
                self.note_unwritten(rest);
                Next::Settle(Box::new(Settled::Done(self.fates(&request.body, rest))))
            }
            Outcome::Partial { written } => {
                let rest = sent.minus(written);
                self.note_way(request.way);
                self.note_settled(&request.body, batch.last_at(&task.extent));
                self.note_partly_refused(exchange, rest);
                Next::Settle(Box::new(Settled::Done(self.fates(&request.body, rest))))
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
        let fates = self.fates(&request.body, sent);
        Next::Settle(Box::new(Settled::Refused(fates, task.clone(), exchange.clone())))
    }

    /// What a receiver of 2.0 took and says that it did not write: nobody sends it again.
    fn unwritten(&self, request: &Made, exchange: &Exchange) -> Tally {
        match exchange {
            Ok(Answer { written: Some(written), .. }) if self.negotiation.way(request.way).message == Message::V2 => {
                request.body.sent.minus(*written)
            }
            _ => Tally::default(),
        }
    }

    /// What became of everything that is in `body` or was left out of it, where `refused` was not taken.
    fn fates(&self, body: &Body, refused: Tally) -> Fates {
        let left_out = self.left_out(body);
        let delivered = (body.sent.points() - refused.points()) as u64;
        Fates { delivered, refused: left_out.refused + refused.points() as u64, ..left_out }
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
        // What was left out as unchanged rests on a value that the receiver may never get.
        self.unchanged.forget();
        self.note_expired(expired);
        true
    }

    fn make(&mut self, batch: &Batch, extent: &Extent, way: usize) -> Made {
        let Way { message, compression } = self.negotiation.way(way);
        let Wanted { exemplars, native_histograms } = self.wanted;
        let format = Format { message, compression, exemplars, native_histograms };
        let body = self.encoder.encode(&batch.parts(extent), format);
        Made { body, way }
    }

    /// One request and how long it took; `None` when the program stopped first.
    async fn attempt(&mut self, request: &Made, attempt: u32, shutdown: &Shutdown) -> Option<(Exchange, Duration)> {
        self.metrics.sent.add(request.body.sent);
        if attempt > 0 {
            self.metrics.retried.add(request.body.sent);
        }
        let way = self.negotiation.way(request.way);
        let envelope =
            Envelope { message: way.message, compression: way.compression, body: request.body.bytes.clone(), attempt };
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

    /// Sends samples once, out of turn.
    pub(super) async fn send_once(&mut self, batch: &Batch, task: &Task, shutdown: &Shutdown) -> Once {
        let began = self.clock.now();
        let current = self.negotiation.current(began);
        let request = self.make(batch, &task.extent, current);
        if request.body.sent.is_empty() {
            return Once::Unsent;
        }
        let Some((exchange, _)) = self.attempt(&request, task.attempt, shutdown).await else { return Once::Unsent };
        let meaning = self.meaning(&request, &exchange);
        if meaning != Outcome::Delivered {
            return Once::Failed(Failed { exchange, meaning, began });
        }
        self.note_settled(&request.body, batch.last_at(&task.extent));
        let rest = self.unwritten(&request, &exchange);
        self.note_unwritten(rest);
        Once::Taken(self.fates(&request.body, rest))
    }

    /// Leaves the receiver alone after a request out of turn that failed, as after any other.
    pub(super) fn rest_after(&mut self, failed: &Failed) {
        self.rest = self.wait_after(failed.meaning);
        self.note_failed(&failed.exchange, failed.meaning, failed.began, self.rest);
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

/// Whether the receiver does not take what it was sent in this form.
fn says_unsupported(exchange: &Exchange) -> bool {
    exchange.as_ref().is_ok_and(|answer| answer.status == 415)
}

/// Whether the receiver has said what it took of a request that it refused: then it took what it could.
fn says_what_was_written(exchange: &Exchange) -> bool {
    exchange.as_ref().is_ok_and(|answer| answer.written.is_some())
}
