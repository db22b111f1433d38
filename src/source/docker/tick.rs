//! One tick: the list, what the stream still owes, the inspects, and whether anything was missed.
//!
//! Each part has its share of the caller's deadline, so that one that hangs costs itself and not the tick. What is cut short
//! is asked again at the next one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::stream::{self, StreamExt};

use super::api::{ApiError, one_line};
use super::container::Told;
use super::reader::StreamStatus;
use super::table::SETTLE;
use super::wire::{Inspect, List, parse_object};
use super::{
    DockerSource, Gap, INSPECT_GRACE, INSPECTS_AT_ONCE, KEEP_PROOF_NANOS, LIST_DEADLINE, MAX_LIST_BYTES, OPENING_WAIT,
    PROOF_MARGIN, StateChange,
};
use crate::model::Timestamp;
use crate::source::{FailureReason, Observation, SourceError};

impl DockerSource {
    pub(super) async fn tick(&mut self, at: Timestamp) -> Result<Vec<Observation>, SourceError> {
        for id in std::mem::take(&mut self.asked) {
            self.table.inspect_again(&id);
        }
        let list = self.observe(at).await?;
        self.learn_hostname().await;
        self.apply_until(at);
        let pending = self.pending.ids().collect();
        let missed = self.table.reconcile(&list, at, &pending);
        if missed > 0 {
            self.missed += missed;
            self.state = StateChange::Changed;
        }
        self.inspect(at).await;
        self.judge(at);

        let everything = self.table.everything(at);
        self.metrics.containers.set(self.table.len() as f64);
        self.metrics.count(self.table.take_notes());
        // What changed at this very instant is in it.
        self.ready.retain(|change| change.at < at);
        let mut told: Vec<Observation> = self.ready.drain(..).collect();
        told.push(everything);
        Ok(told)
    }

    /// Asks for the list, and listens until events of before `at` have arrived.
    async fn observe(&mut self, at: Timestamp) -> Result<List, SourceError> {
        const REQUEST: &str = "GET /containers/json";
        self.await_stream().await;
        let settled = tokio::time::sleep(at.plus(SETTLE).since(self.clock.now()).min(SETTLE));
        let api = Arc::clone(&self.api);
        let list = api.get("/containers/json?all=1", MAX_LIST_BYTES, LIST_DEADLINE);
        let both = async { tokio::join!(list, settled).0 };
        tokio::pin!(both);
        let body = loop {
            tokio::select! {
                biased;
                Some(feed) = self.feed.recv() => self.hear(feed),
                body = &mut both => break body,
            }
        };
        let body = body.map_err(|error| self.api.explain(REQUEST, &error))?;
        let list = List::parse(&body).map_err(|_| {
            let text = one_line(&String::from_utf8_lossy(&body[..body.len().min(60)]));
            self.api.explain(REQUEST, &ApiError::Nonsense(format!("it begins with {text:?}")))
        })?;
        self.metrics.count_inspect_errors(FailureReason::Decode, list.odd);
        Ok(list)
    }

    /// Gives a stream that is being opened the time to replay what was missed, and one that is down another try.
    async fn await_stream(&mut self) {
        if matches!(*self.status.borrow_and_update(), StreamStatus::Down(_)) {
            self.shared.nudge.notify_one();
        } else if *self.status.borrow() == StreamStatus::Up {
            return;
        }
        // Where it takes longer the events come late, and are counted as such.
        let enough = tokio::time::sleep(OPENING_WAIT.min(self.patience));
        tokio::pin!(enough);
        loop {
            tokio::select! {
                biased;
                Some(feed) = self.feed.recv() => self.hear(feed),
                changed = self.status.changed() => {
                    if changed.is_err() || *self.status.borrow() != StreamStatus::Opening {
                        return;
                    }
                }
                () = &mut enough => return,
            }
        }
    }

    /// Applies the events of before `at`; a container whose later event stands before an earlier one waits with both.
    fn apply_until(&mut self, at: Timestamp) {
        let mut waiting = BTreeSet::new();
        for heard in self.pending.take() {
            let event = &heard.event;
            if !waiting.contains(&event.id) && self.table.belongs_before(event, at) {
                self.apply(event);
            } else {
                waiting.insert(event.id.clone());
                self.pending.push_again(heard);
            }
        }
    }

    /// Inspects whom events and the list named, as far as time allows; who is left over is asked at the next tick.
    async fn inspect(&mut self, at: Timestamp) {
        self.asked = self.table.plan_inspects(at).into_iter().collect();
        let asks: Vec<_> = self.asked.iter().map(|id| self.ask(id.clone())).collect();
        let mut answers = stream::iter(asks).buffer_unordered(INSPECTS_AT_ONCE);
        let enough = tokio::time::sleep(self.patience + INSPECT_GRACE);
        tokio::pin!(enough);
        loop {
            let answered = tokio::select! {
                biased;
                answered = answers.next() => answered,
                () = &mut enough => None,
            };
            let Some((id, answer)) = answered else { break };
            while let Ok(feed) = self.feed.try_recv() {
                self.hear(feed);
            }
            self.metrics.inspects.inc();
            self.state = StateChange::Changed;
            self.asked.remove(&id);
            if self.pending.ids().any(|pending| pending == id) {
                self.table.inspect_again(&id);
            } else if self.take_inspect(&id, answer, at) == Told::Missed {
                self.missed += 1;
            }
        }
        for id in std::mem::take(&mut self.asked) {
            self.table.inspect_again(&id);
        }
    }

    fn take_inspect(&mut self, id: &str, answer: Result<Vec<u8>, ApiError>, at: Timestamp) -> Told {
        let inspect = answer.and_then(|body| {
            let inspect = parse_object::<Inspect>(&body).filter(|inspect| inspect.id.as_deref() == Some(id));
            inspect.ok_or_else(|| ApiError::Nonsense("the answer is not that container".into()))
        });
        match inspect {
            Ok(inspect) => self.table.inspected(id, &inspect, at),
            Err(ApiError::Status(404, _)) => {
                self.metrics.inspect_gone.inc();
                self.table.inspect_failed(id, at);
                Told::Known
            }
            Err(error) => {
                self.metrics.count_inspect_errors(error.reason(), 1);
                let told = self.api.explain("GET /containers/{id}/json", &error);
                tracing::warn!(source = %self.name, id, error = %told, "container cannot be inspected");
                self.table.inspect_failed(id, at);
                Told::Known
            }
        }
    }

    /// Decides whether what was missed is a gap, or only what a stream that is down has not told yet.
    fn judge(&mut self, at: Timestamp) {
        let whole = *self.status.borrow() == StreamStatus::Up && self.gap == Gap::None;
        let missed = std::mem::take(&mut self.missed);
        self.gap = Gap::None;
        if !whole {
            return;
        }
        if missed == 0 {
            let proven = at.minus(PROOF_MARGIN).millis().saturating_mul(1_000_000);
            self.shared.proven_nanos.store(proven, Ordering::Relaxed);
            if proven.saturating_sub(self.kept_nanos) >= KEEP_PROOF_NANOS {
                self.state = StateChange::Changed;
            }
            return;
        }
        self.metrics.gaps.inc();
        tracing::warn!(source = %self.name, changes = missed, "the event stream did not tell of changes that the list shows");
        self.shared.nudge.notify_one();
    }
}
