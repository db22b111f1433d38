//! What a shipper counts, tells and shows of what it does. Decides nothing.

use std::time::Duration;

use super::metrics::Dropped;
use super::outcome::{self, Exchange, Outcome};
use super::shipper::Shipper;
use crate::encode::{Body, Message, Tally};
use crate::model::Timestamp;

impl Shipper {
    pub(super) fn note_settled(&mut self, body: &Body, last_at: Option<Timestamp>) {
        self.backoff.reset();
        self.metrics.bytes.inc_by(body.bytes.len() as u64);
        self.note_through(last_at);
        self.metrics.up.set(1.0);
    }

    /// Nothing until then is left to send.
    pub(super) fn note_through(&self, last_at: Option<Timestamp>) {
        if let Some(at) = last_at.map(Timestamp::seconds).filter(|at| *at > self.metrics.highest_sent.get()) {
            self.metrics.highest_sent.set(at);
        }
    }

    /// Samples were taken in this format.
    pub(super) fn note_way(&mut self, number: usize) {
        self.has_said_misunderstood = false;
        let way = self.negotiation.way(number);
        let version = if way.message == Message::V2 { 2.0 } else { 1.0 };
        self.metrics.version.set(version);
        if self.negotiation.taken(number, self.clock.now()) {
            let (message, compression) = (way.message.name(), way.compression.content_encoding());
            tracing::info!(endpoint = %self.name, url = %self.url, message, compression, "receiver takes this format; keeping to it");
        }
    }

    pub(super) fn note_delivered(&mut self, exchange: &Exchange) {
        let now = self.clock.now();
        let before = self.state.borrow().stalled_since;
        if let Some(since) = before {
            self.outage = now.since(since);
            let stalled = format!("{:?}", self.outage);
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

    /// A receiver of 2.0 may take a request and leave some of it out, and says so.
    pub(super) fn note_unwritten(&mut self, rest: Tally) {
        self.metrics.failed.add(rest);
        let samples = rest.points();
        if samples > 0 {
            self.unchanged.forget();
            tracing::error!(
                endpoint = %self.name, url = %self.url, samples,
                "receiver took a request and says that it wrote less than was sent; which samples are lost it does not say"
            );
        }
    }

    /// A part of a request was written. Which is not said, so none of it is kept in the quarantine.
    pub(super) fn note_partly_refused(&mut self, exchange: &Exchange, refused: Tally) {
        self.unchanged.forget();
        let samples = refused.points();
        let (error, advice) = self.words(exchange);
        if samples > 0 {
            tracing::error!(
                endpoint = %self.name, url = %self.url, samples, %error, advice,
                "receiver wrote a part of a request and refused the rest; it does not say which samples, so none are kept"
            );
        }
        self.count_refused(exchange, refused, error);
    }

    pub(super) fn note_refused(&mut self, exchange: &Exchange, refused: Tally) {
        let samples = refused.points();
        let (error, advice) = self.words(exchange);
        tracing::error!(
            endpoint = %self.name, url = %self.url, samples, %error, advice,
            "receiver refused samples; `outhaul buffer quarantine ls` shows them"
        );
        self.count_refused(exchange, refused, error);
    }

    /// What went wrong, and what a person can do about it.
    fn words(&self, exchange: &Exchange) -> (String, &'static str) {
        (outcome::describe(exchange), outcome::advice(exchange, self.endpoint.host()))
    }

    fn count_refused(&mut self, exchange: &Exchange, refused: Tally, error: String) {
        self.metrics.failed.add(refused);
        self.state.send_modify(|state| {
            state.delivering = false;
            state.stalled_since = None;
            state.last_status = status(exchange);
            state.last_error = Some(error);
            state.consecutive_failures = 0;
        });
    }

    pub(super) fn note_failed(&mut self, exchange: &Exchange, outcome: Outcome, began: Timestamp, wait: Duration) {
        self.metrics.up.set(0.0);
        let (error, advice) = self.words(exchange);
        let shown = to_the_millisecond(wait);
        if outcome == Outcome::Held {
            tracing::warn!(
                endpoint = %self.name, url = %self.url, %error, advice, wait = ?shown,
                "samples cannot be written as configured; they are kept"
            );
        } else {
            tracing::warn!(
                endpoint = %self.name, url = %self.url, %error, advice, wait = ?shown,
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

    pub(super) fn note_expired(&self, expired: Tally) {
        self.metrics.dropped(Dropped::TooOld, expired);
        let samples = expired.points();
        tracing::error!(endpoint = %self.name, samples, "samples older than max_sample_age are not sent; they are lost");
    }

    pub(super) fn say_misunderstood(&mut self, exchange: &Exchange, next: usize) {
        self.metrics.misunderstood.inc();
        // A receiver that refuses everything would have it said with each request.
        if std::mem::replace(&mut self.has_said_misunderstood, true) {
            return;
        }
        let (error, next) = (outcome::describe(exchange), self.negotiation.way(next).message.name());
        tracing::info!(endpoint = %self.name, url = %self.url, %error, next, "receiver may not understand the format; sending the same in another");
    }

    pub(super) fn say_apart(&self, exchange: &Exchange, samples: usize, instants: usize) {
        let error = outcome::describe(exchange);
        tracing::warn!(endpoint = %self.name, url = %self.url, %error, samples, instants, "receiver refused a request of several instants; sending each alone");
    }

    pub(super) fn say_halved(&self, exchange: &Exchange, samples: usize) {
        let error = outcome::describe(exchange);
        tracing::warn!(endpoint = %self.name, url = %self.url, %error, samples, "a request has failed for minutes; sending halves, in case it is to blame");
    }

    pub(super) fn say_split(&self, exchange: &Exchange, samples: usize) {
        let error = outcome::describe(exchange);
        let next = self.part_size.current();
        tracing::warn!(endpoint = %self.name, url = %self.url, %error, samples, next, "request too large; sending smaller ones");
    }

    pub(super) fn give_up_unsendable(&self, body: &Body) {
        let samples = body.unsendable.points();
        self.metrics.dropped(Dropped::InvalidName, body.unsendable);
        if samples > 0 {
            tracing::error!(endpoint = %self.name, samples, "remote-write cannot carry the names of some series; their samples are lost");
        }
        let histograms = body.custom_buckets;
        self.metrics.dropped(Dropped::CustomBuckets, Tally { histograms, ..Tally::default() });
        if histograms > 0 {
            tracing::error!(endpoint = %self.name, histograms, "remote-write 1.0 cannot carry histograms with custom buckets; they are lost for this endpoint, whose receiver would have to take 2.0");
        }
    }
}

/// A time, for people.
pub(super) fn to_the_millisecond(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn status(exchange: &Exchange) -> Option<u16> {
    exchange.as_ref().ok().map(|answer| answer.status)
}
