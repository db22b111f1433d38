//! What is done with samples that are not delivered: kept in quarantine, where the receiver refused them, and judged, where
//! it fails on them.
//!
//! A sample is poison when the receiver fails on it, alone, after all that `suspicion` asks for, takes another one, and does
//! not take it the moment after. The other one is of another series of the same lease, which breaks no order; where there is none it is of
//! the next snapshot, and is sent once more in its turn, because receivers take the same sample twice.

use super::batch::{Batch, Extent};
use super::outcome::{self, Exchange};
use super::request::{Once, Settled, Task};
use super::shipper::{Flow, Shipper};
use crate::buffer::{Fates, Fault, Limits, Verdict};
use crate::shutdown::{Phase, Shutdown};

impl Shipper {
    /// Draws the consequences: fates are known, or there is more to do.
    pub(super) async fn conclude(
        &mut self,
        batch: &Batch,
        settled: Settled,
        todo: &mut Vec<Task>,
        fates: &mut Fates,
        shutdown: &Shutdown,
    ) -> Flow {
        match settled {
            Settled::Done(more) => fates.add(more),
            Settled::Instead(more, tasks) => {
                fates.add(more);
                todo.extend(tasks.into_iter().rev());
            }
            Settled::Refused(more, task, exchange) => {
                // What the receiver has is not what it was given.
                self.unchanged.forget();
                self.quarantine(batch, &task.extent, Fault::Refused, &exchange).await;
                fates.add(more);
            }
            Settled::Suspect(more, task, exchange) => {
                fates.add(more);
                if shutdown.phase() >= Phase::Draining {
                    return Flow::Stop;
                }
                match self.send_another(batch, &task, todo, shutdown).await {
                    Once::Taken(sent) => fates.add(sent),
                    not_taken => {
                        if let Once::Failed(failed) = not_taken {
                            self.rest_after(&failed);
                        }
                        todo.push(task);
                        return Flow::Continue;
                    }
                }
                // The receiver may have been mended since it failed last.
                match self.send_once(batch, &task, shutdown).await {
                    Once::Taken(sent) => fates.add(sent),
                    Once::Failed(_) => fates.refused += self.give_up_poison(batch, &task, &exchange).await,
                    Once::Unsent => return Flow::Stop,
                }
            }
            Settled::Interrupted => return Flow::Stop,
        }
        Flow::Continue
    }

    /// Sends something else than `suspect`; it has fates where it was of this lease.
    async fn send_another(&mut self, batch: &Batch, suspect: &Task, todo: &mut Vec<Task>, shutdown: &Shutdown) -> Once {
        let Some(index) = todo.iter().rposition(|task| task.extent.is_apart_from(&suspect.extent)) else {
            return self.send_next_snapshots(batch, suspect, shutdown).await;
        };
        let task = todo.remove(index);
        let (first, rest) = match batch.first_series(&task.extent) {
            Some([first, rest]) => (first, Some(rest)),
            None => (task.extent.clone(), None),
        };
        if let Some(rest) = rest {
            todo.insert(index, task.piece(rest));
        }
        let first = task.piece(first);
        let sent = self.send_once(batch, &first, shutdown).await;
        if !matches!(sent, Once::Taken(_)) {
            // No other piece of its series comes before this place.
            todo.insert(index.min(todo.len()), first);
        }
        sent
    }

    /// Sends a sample of the snapshot after the lease. It is in no account: it will be sent again in its turn.
    async fn send_next_snapshots(&mut self, batch: &Batch, suspect: &Task, shutdown: &Shutdown) -> Once {
        let limits = Limits { instants_max: self.leased + 1, samples_max: usize::MAX };
        let lease = self.buffer.next(self.endpoint_id, limits).await;
        let Some(mut lease) = lease.filter(|lease| lease.snapshots.len() > self.leased) else { return Once::Unsent };
        let next = lease.snapshots.swap_remove(self.leased);
        let (other, _) = Batch::new(vec![next], self.wanted, &mut self.encoder);
        let samples = other.cut(&other.whole(), 1);
        let is_other = |sample: &&Extent| other.first_of(sample) != batch.first_of(&suspect.extent);
        let Some(sample) = samples.iter().find(is_other).or(samples.first()) else { return Once::Unsent };
        match self.send_once(&other, &Task::new(sample.clone()), shutdown).await {
            Once::Taken(_) => Once::Taken(Fates::default()),
            once => once,
        }
    }

    async fn give_up_poison(&mut self, batch: &Batch, task: &Task, exchange: &Exchange) -> u64 {
        let poisoned = batch.tally(&task.extent);
        let samples = poisoned.points() as u64;
        self.unchanged.forget();
        self.metrics.poisoned.inc_by(samples);
        self.note_refused(exchange, poisoned);
        self.quarantine(batch, &task.extent, Fault::Poisoned, exchange).await;
        samples
    }

    async fn quarantine(&mut self, batch: &Batch, extent: &Extent, fault: Fault, exchange: &Exchange) {
        let verdict = Verdict {
            fault,
            status: exchange.as_ref().ok().map(|answer| answer.status),
            text: outcome::describe(exchange),
            at: self.clock.now(),
        };
        self.buffer.quarantine(self.endpoint_id, batch.snapshots(extent), verdict).await;
    }
}
