//! Which containers to inspect at a tick: those an event or the list named, those whose failing streak only an inspect
//! tells, and, slowly, all of them in turn.
//!
//! The number a tick is bounded, so that no burst of events becomes a burst of inspects; what does not fit waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::container::Container;
use crate::model::Timestamp;

/// The most inspects a tick. One costs the engine about 2 ms.
const PER_TICK: usize = 100;
/// The most of them that are for a failing streak.
const STREAKS_PER_TICK: usize = 10;
/// Every container is inspected at least this often, whatever events say.
const SWEEP: Duration = Duration::from_secs(600);
/// How long a container that did not answer is left alone.
pub(crate) const PENALTY: Duration = Duration::from_secs(300);

/// Who is to be inspected.
#[derive(Debug, Default)]
pub(crate) struct Inspects {
    queue: VecDeque<String>,
    queued: BTreeSet<String>,
    /// The container the sweep inspected last.
    swept: String,
    /// Sweep inspects that are due, in fractions.
    due: f64,
    last_tick: Option<Timestamp>,
}

impl Inspects {
    /// Asks for one.
    pub(crate) fn want(&mut self, id: &str) {
        if self.queued.insert(id.to_owned()) {
            self.queue.push_back(id.to_owned());
        }
    }

    /// Those to inspect at the tick `at`, taken out of the queue.
    pub(crate) fn plan(&mut self, containers: &BTreeMap<String, Container>, at: Timestamp) -> Vec<String> {
        self.want_streaks(containers);
        self.want_sweep(containers, at);
        let mut plan = Vec::new();
        for _ in 0..self.queue.len() {
            if plan.len() == PER_TICK {
                break;
            }
            let Some(id) = self.queue.pop_front() else { break };
            match containers.get(&id) {
                Some(container) if container.inspect_after.is_some_and(|after| after > at) => self.queue.push_back(id),
                Some(_) => {
                    self.queued.remove(&id);
                    plan.push(id);
                }
                None => {
                    self.queued.remove(&id);
                }
            }
        }
        plan
    }

    fn want_streaks(&mut self, containers: &BTreeMap<String, Container>) {
        let unknown = containers.values().filter(|container| container.fails() && container.failing_streak.is_none());
        for container in unknown.take(STREAKS_PER_TICK) {
            self.want(&container.id);
        }
    }

    fn want_sweep(&mut self, containers: &BTreeMap<String, Container>, at: Timestamp) {
        let passed = at.since(self.last_tick.unwrap_or(at));
        self.last_tick = Some(at);
        let share = (passed.as_secs_f64() / SWEEP.as_secs_f64()).min(1.0);
        self.due = (self.due + containers.len() as f64 * share).min(containers.len() as f64);
        while self.due >= 1.0 {
            self.due -= 1.0;
            let after = (std::ops::Bound::Excluded(self.swept.clone()), std::ops::Bound::Unbounded);
            let next = containers.range(after).next().or_else(|| containers.first_key_value());
            let Some((id, _)) = next else { return };
            self.swept.clone_from(id);
            let id = id.clone();
            self.want(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers(count: usize) -> BTreeMap<String, Container> {
        (0..count)
            .map(|number| {
                let id = format!("{number:04}");
                let mut container = Container::default();
                container.id.clone_from(&id);
                (id, container)
            })
            .collect()
    }

    #[test]
    fn a_burst_is_spread_over_ticks() {
        let all = containers(250);
        let mut inspects = Inspects::default();
        for id in all.keys().chain(all.keys()) {
            inspects.want(id);
        }
        let sizes: Vec<usize> = (0..4).map(|_| inspects.plan(&all, Timestamp::from_millis(1)).len()).collect();
        assert_eq!(sizes, [100, 100, 50, 0]);
    }

    #[test]
    fn the_sweep_reaches_every_container_in_its_time() {
        let all = containers(100);
        let mut inspects = Inspects::default();
        let mut reached = BTreeSet::new();
        for tick in 0..=61 {
            let plan = inspects.plan(&all, Timestamp::from_millis(tick * 10_000));
            assert!(plan.len() <= 2, "never in a burst");
            reached.extend(plan);
        }
        assert_eq!(reached.len(), 100);
    }

    #[test]
    fn one_that_hung_is_left_alone_for_a_while_and_one_that_is_gone_is_forgotten() {
        let mut all = containers(1);
        all.get_mut("0000").unwrap().inspect_after = Some(Timestamp::from_millis(100));
        let mut inspects = Inspects::default();
        inspects.want("0000");
        inspects.want("gone");
        assert!(inspects.plan(&all, Timestamp::from_millis(99)).is_empty());
        assert_eq!(inspects.plan(&all, Timestamp::from_millis(100)), ["0000"]);
        assert!(inspects.queued.is_empty());
    }
}
