//! The events that were heard and are not applied yet, in the order they came.
//!
//! A `die` whose `oom` the engine tells only after it learns of it here, while it waits. Never changes an event otherwise.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::events::{Action, Event, OomNotice};

/// How long a `die` that may have been a kill for memory waits for its `oom`. The shim reads the two from different
/// descriptors, so a busy host tells some of them the wrong way round: on Docker 20.10, with four busy loops a core, 3 of
/// 80, by 13 to 58 ms. Shorter than [`super::table::SETTLE`], so that no tick finds one waiting.
pub(crate) const OOM_PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    events: VecDeque<Heard>,
}

/// An event, and when this program heard it.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) event: Event,
    pub(crate) heard: Instant,
}

impl Pending {
    /// Takes what is heard now.
    pub(crate) fn push(&mut self, event: Event) {
        if event.action == Action::Oom {
            self.explain_death(&event.id);
        }
        self.push_again(Heard { event, heard: Instant::now() });
    }

    /// Takes back what [`Pending::take`] gave.
    pub(crate) fn push_again(&mut self, heard: Heard) {
        self.events.push_back(heard);
    }

    pub(crate) fn front(&self) -> Option<&Heard> {
        self.events.front()
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        self.events.pop_front().map(|heard| heard.event)
    }

    /// All of them, out of here.
    pub(crate) fn take(&mut self) -> VecDeque<Heard> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whose they are.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.events.iter().map(|heard| heard.event.id.as_str())
    }

    /// An `oom` of `id` that follows a `die`, with no start between them, tells why it died.
    fn explain_death(&mut self, id: &str) {
        let own = self.events.iter_mut().rev().map(|heard| &mut heard.event).filter(|event| event.id == id);
        for event in own {
            match &mut event.action {
                Action::Start => return,
                Action::Die(death) if death.oom == OomNotice::Elsewhere => {
                    death.oom = OomNotice::After;
                    return;
                }
                _ => {}
            }
        }
    }
}
