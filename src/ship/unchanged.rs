//! Leaving out what the receiver has: a value that is the same as the one before is sent only so often.
//!
//! A change is sent at once, and so is the end of a series and its first value after it. What is remembered is what was given
//! to be sent; after a refusal and after a restart nothing is, so that more is sent then, never less. Pure.
//!
//! Native histograms are not looked at: one that has not changed is rare, and to compare two costs more than it saves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Sample, Series, Snapshot, Timestamp, Value};

/// What one endpoint was sent last.
#[derive(Debug)]
pub(super) struct Unchanged {
    every: Option<Duration>,
    /// By the address of the series, which the entry keeps from being used again.
    last: HashMap<usize, Last>,
    sweep_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Last {
    _series: Arc<Series>,
    value: Value,
    start: Option<Timestamp>,
    at: Timestamp,
}

impl Unchanged {
    /// Sends an unchanged value `every` so often; always, where that is not said.
    pub(super) fn new(every: Option<Duration>) -> Self {
        Self { every: every.filter(|every| !every.is_zero()), last: HashMap::new(), sweep_at: None }
    }

    /// Leaves out of the samples of one instant what need not be sent; gives how many that were.
    pub(super) fn leave_out(&mut self, Snapshot { at, samples, .. }: &mut Snapshot) -> u64 {
        let (Some(every), at) = (self.every, *at) else { return 0 };
        self.sweep(at, every);
        let before = samples.len();
        samples.retain(|sample| self.is_news(at, sample, every));
        (before - samples.len()) as u64
    }

    fn is_news(&mut self, at: Timestamp, sample: &Sample, every: Duration) -> bool {
        let key = Arc::as_ptr(&sample.series).addr();
        if sample.value.is_stale() {
            self.last.remove(&key);
            return true;
        }
        if let Some(last) = self.last.get(&key)
            && (last.value, last.start) == (sample.value, sample.start)
            && at.since(last.at) < every
        {
            return false;
        }
        let last = Last { _series: Arc::clone(&sample.series), value: sample.value, start: sample.start, at };
        self.last.insert(key, last);
        true
    }

    /// Nothing is known of what the receiver has.
    pub(super) fn forget(&mut self) {
        self.last.clear();
    }

    /// Forgets series that nobody has heard of for long.
    fn sweep(&mut self, at: Timestamp, every: Duration) {
        if self.sweep_at.is_none_or(|due| at >= due) {
            self.sweep_at = Some(at.plus(every));
            self.last.retain(|_, last| at.since(last.at) <= every * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Labels, Metadata, MetricKind};

    fn series() -> Arc<Series> {
        let labels = Labels::builder().with("__name__", "up").build().unwrap();
        Arc::new(Series::new(labels, Arc::new(Metadata::of("up", MetricKind::Gauge, ""))))
    }

    fn sent(unchanged: &mut Unchanged, at_secs: i64, sample: &Sample) -> bool {
        let mut snapshot = Snapshot::new(Timestamp::from_millis(at_secs * 1000), vec![sample.clone()]);
        let left_out = unchanged.leave_out(&mut snapshot);
        assert_eq!(left_out + snapshot.samples.len() as u64, 1);
        !snapshot.samples.is_empty()
    }

    #[test]
    fn an_unchanged_value_is_sent_so_often_and_a_change_and_an_end_at_once() {
        let series = series();
        let value = |number| Sample::new(Arc::clone(&series), Value::new(number));
        let stale = Sample::new(Arc::clone(&series), Value::STALE);
        let mut unchanged = Unchanged::new(Some(Duration::from_secs(60)));
        for (at, sample, expected) in [
            (0, value(1.0), true),
            (10, value(1.0), false),
            (59, value(1.0), false),
            (60, value(1.0), true),
            (70, value(2.0), true),
            (80, value(2.0), false),
            (90, value(1.0), true),
            (100, value(1.0).started(Timestamp::from_millis(5)), true),
            (110, stale.clone(), true),
            (120, stale, true),
            (121, value(1.0), true),
        ] {
            assert_eq!(sent(&mut unchanged, at, &sample), expected, "at {at}");
        }
        unchanged.forget();
        assert!(sent(&mut unchanged, 122, &value(1.0)));
    }

    #[test]
    fn every_value_is_sent_where_nobody_asked_for_less_and_ended_series_are_forgotten() {
        let sample = Sample::new(series(), Value::new(1.0));
        let mut always = Unchanged::new(None);
        assert!(sent(&mut always, 0, &sample) && sent(&mut always, 1, &sample));
        let mut unchanged = Unchanged::new(Some(Duration::from_secs(60)));
        assert!(sent(&mut unchanged, 0, &sample));
        assert!(sent(&mut unchanged, 200, &Sample::new(series(), Value::new(1.0))));
        assert_eq!(unchanged.last.len(), 1);
    }
}
