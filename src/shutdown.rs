//! How the program stops: one phase, seen by every task.
//!
//! The composition root holds the [`Trigger`]; tasks hold a [`Shutdown`] each. Nobody is ever told to stop twice, and a
//! trigger that is dropped counts as pulled, so that a task cannot outlive the agent.

use tokio::sync::watch;

/// Where the program is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Sampling and sending.
    Running,
    /// No more samples; send what is left within the grace period.
    Draining,
    /// Grace is over: return now.
    Stopped,
}

/// Moves the phase forward.
#[derive(Debug)]
pub struct Trigger(watch::Sender<Phase>);

/// A task's view of the phase.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<Phase>);

/// A trigger and the first view of it.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Moves to `phase`; moving backwards is ignored.
    pub fn advance(&self, phase: Phase) {
        self.0.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
    }
}

impl Shutdown {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        if self.0.has_changed().is_err() { Phase::Stopped } else { *self.0.borrow() }
    }

    /// Resolves once the phase is at least `phase`. Cancel-safe.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means the trigger is gone, which is the end too.
        drop(self.0.wait_for(|current| *current >= phase).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_view_sees_the_phase_and_it_never_goes_back() {
        let (trigger, mut view) = channel();
        assert_eq!(view.phase(), Phase::Running);
        trigger.advance(Phase::Draining);
        view.clone().reached(Phase::Draining).await;
        trigger.advance(Phase::Running);
        assert_eq!(view.phase(), Phase::Draining);
        trigger.advance(Phase::Stopped);
        view.reached(Phase::Stopped).await;
    }

    #[tokio::test]
    async fn a_dropped_trigger_stops_everybody() {
        let (trigger, mut view) = channel();
        drop(trigger);
        view.reached(Phase::Stopped).await;
        assert_eq!(view.phase(), Phase::Stopped);
    }
}
