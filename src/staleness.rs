//! What is alive: turns observations into snapshots, adds stale markers for what ended, and keeps every series in order.
//!
//! Invariants: within one series the stamps that leave here strictly rise; a series that ended is marked exactly once; one
//! series has one source. Pure bookkeeping: no clock, no I/O.

use std::collections::HashMap;
use std::time::Duration;

use crate::model::{Labels, Sample, Snapshot, Timestamp, Value};
use crate::source::{Observation, Scope};

/// Which source, by its place in the agent's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceIndex(pub usize);

/// One millisecond: the least by which a late sample is moved behind the one before it.
const STEP: Duration = Duration::from_millis(1);

/// How long the last stamp of an ended series is remembered, so that a straggler cannot land before its end.
const REMEMBER_ENDED: Duration = Duration::from_secs(600);

#[derive(Debug)]
struct Live {
    sample: Sample,
    at: Timestamp,
    source: SourceIndex,
    /// The round of the observation that saw it last; what a later `Everything` did not see has ended.
    seen_in_round: u64,
}

/// How often the rules had to be applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples that came at or before their series' last one and were stamped just after it.
    pub late: u64,
    /// Samples dropped because another source already speaks for their series, or their observation already held it.
    pub duplicate: u64,
}

/// The series that are alive, and the only place that ends one.
#[derive(Debug)]
pub struct Staleness {
    live: HashMap<Labels, Live>,
    /// When the series that ended lately did; bounded in time by [`REMEMBER_ENDED`].
    ended: HashMap<Labels, Timestamp>,
    /// Nothing leaves here at or before this instant: it was recorded before this process began.
    floor: Timestamp,
    round: u64,
    counts: Counts,
}

impl Staleness {
    /// Nothing alive yet; everything up to `recorded_until` was recorded by an earlier run.
    pub fn new(recorded_until: Option<Timestamp>) -> Self {
        Self {
            live: HashMap::new(),
            ended: HashMap::new(),
            floor: recorded_until.unwrap_or(Timestamp::MIN),
            round: 0,
            counts: Counts::default(),
        }
    }

    /// What of `observation` is to be recorded, in time order: usually one snapshot, a second one where samples came late,
    /// none where it holds nothing.
    pub fn apply(&mut self, source: SourceIndex, observation: Observation) -> Vec<Snapshot> {
        self.round += 1;
        let Observation { at, scope, samples } = observation;
        let mut stamped = Stamped::new(at);
        for sample in samples {
            self.place(source, at, sample, &mut stamped);
        }
        if scope == Scope::Everything {
            let round = self.round;
            self.end_where(source, at, &mut stamped, |live| live.seen_in_round < round);
            let horizon = at.minus(REMEMBER_ENDED);
            self.ended.retain(|_, ended| *ended >= horizon);
        }
        stamped.into_snapshots()
    }

    /// Ends every series of `source`: it has been silent for too long.
    pub fn end_source(&mut self, source: SourceIndex, at: Timestamp) -> Vec<Snapshot> {
        let mut stamped = Stamped::new(at);
        self.end_where(source, at, &mut stamped, |_| true);
        stamped.into_snapshots()
    }

    /// Ends every series: for runs that are an end (`once --end`), not for an ordinary stop.
    pub fn end_everything(&mut self, at: Timestamp) -> Vec<Snapshot> {
        let mut sources: Vec<SourceIndex> = self.live.values().map(|live| live.source).collect();
        sources.sort_by_key(|source| source.0);
        sources.dedup();
        let mut stamped = Stamped::new(at);
        for source in sources {
            self.end_where(source, at, &mut stamped, |_| true);
        }
        stamped.into_snapshots()
    }

    /// The last value of every live series, sorted by labels; `at` is the newest stamp among them.
    pub fn present(&self) -> Snapshot {
        let at = self.live.values().map(|live| live.at).max().unwrap_or(self.floor);
        let mut samples: Vec<Sample> = self.live.values().map(|live| live.sample.clone()).collect();
        samples.sort_by(|a, b| a.series.labels().cmp(b.series.labels()));
        Snapshot::new(at, samples)
    }

    /// How many series are alive.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// How often the rules had to be applied since the start.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn place(&mut self, source: SourceIndex, at: Timestamp, sample: Sample, stamped: &mut Stamped) {
        let labels = sample.series.labels();
        let last = match self.live.get(labels) {
            Some(live) if live.source != source || live.seen_in_round == self.round => {
                self.counts.duplicate += 1;
                return;
            }
            // A tick may fall on the very millisecond of an event that told the same.
            Some(live) if live.at == at && live.sample.value == sample.value => return self.saw_again(&sample),
            Some(live) => live.at,
            None => match self.ended.get(labels) {
                Some(_) if sample.value.is_stale() => return,
                Some(ended) => *ended,
                // Never seen by this process: an earlier run may have left it alive, so its end is news.
                None => self.floor,
            },
        };
        let stamp = if at > last { at } else { last.plus(STEP) };
        if stamp > at {
            self.counts.late += 1;
        }
        if sample.value.is_stale() {
            self.live.remove(labels);
            self.ended.insert(labels.clone(), stamp);
        } else {
            self.ended.remove(labels);
            let live = Live { sample: sample.clone(), at: stamp, source, seen_in_round: self.round };
            self.live.insert(labels.clone(), live);
        }
        stamped.push(stamp, sample);
    }

    fn saw_again(&mut self, sample: &Sample) {
        if let Some(live) = self.live.get_mut(sample.series.labels()) {
            live.seen_in_round = self.round;
        }
    }

    fn end_where(&mut self, source: SourceIndex, at: Timestamp, stamped: &mut Stamped, ended: impl Fn(&Live) -> bool) {
        let mut gone: Vec<Live> =
            self.live.extract_if(|_, live| live.source == source && ended(live)).map(|(_, live)| live).collect();
        gone.sort_by(|a, b| a.sample.series.labels().cmp(b.sample.series.labels()));
        for Live { sample, at: last, .. } in gone {
            let stamp = if at > last { at } else { last.plus(STEP) };
            self.ended.insert(sample.series.labels().clone(), stamp);
            stamped.push(stamp, Sample::new(sample.series, Value::STALE));
        }
    }
}

/// Samples sorted into the observation's own instant and the few that had to move behind it.
struct Stamped {
    at: Timestamp,
    on_time: Vec<Sample>,
    moved: Vec<(Timestamp, Sample)>,
}

impl Stamped {
    fn new(at: Timestamp) -> Self {
        Self { at, on_time: Vec::new(), moved: Vec::new() }
    }

    fn push(&mut self, stamp: Timestamp, sample: Sample) {
        if stamp == self.at {
            self.on_time.push(sample);
        } else {
            self.moved.push((stamp, sample));
        }
    }

    fn into_snapshots(self) -> Vec<Snapshot> {
        let mut snapshots = Vec::new();
        if !self.on_time.is_empty() {
            snapshots.push(Snapshot::new(self.at, self.on_time));
        }
        let mut moved = self.moved;
        moved.sort_by_key(|(stamp, _)| *stamp);
        for (stamp, sample) in moved {
            match snapshots.last_mut() {
                Some(last) if last.at == stamp => last.samples.push(sample),
                _ => snapshots.push(Snapshot::new(stamp, vec![sample])),
            }
        }
        snapshots
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Metadata, MetricKind, Series};

    const DOCKER: SourceIndex = SourceIndex(0);
    const OTHER: SourceIndex = SourceIndex(1);

    fn sample(name: &str, value: Value) -> Sample {
        let labels = Labels::builder().with("__name__", name.to_owned()).build().unwrap();
        let metadata = Arc::new(Metadata::of("x", MetricKind::Gauge, ""));
        Sample::new(Arc::new(Series::new(labels, metadata)), value)
    }

    fn one(name: &str) -> Sample {
        sample(name, Value::new(1.0))
    }

    fn seen(at: i64, scope: Scope, samples: Vec<Sample>) -> Observation {
        Observation { at: Timestamp::from_millis(at), scope, samples }
    }

    fn told(snapshots: &[Snapshot]) -> Vec<(i64, String)> {
        snapshots.iter().flat_map(|s| s.samples.iter().map(|x| (s.at.millis(), format!("{x:?}")))).collect()
    }

    fn expect(list: &[(i64, &str)]) -> Vec<(i64, String)> {
        list.iter().map(|(at, text)| (*at, (*text).to_owned())).collect()
    }

    #[test]
    fn a_series_missing_from_everything_is_ended_once() {
        let mut staleness = Staleness::new(None);
        staleness.apply(DOCKER, seen(1, Scope::Everything, vec![one("a"), one("b")]));
        let second = staleness.apply(DOCKER, seen(2, Scope::Everything, vec![one("b")]));
        assert_eq!(told(&second), expect(&[(2, "b 1.0"), (2, "a stale")]));
        let third = staleness.apply(DOCKER, seen(3, Scope::Everything, vec![one("b")]));
        assert_eq!(told(&third), expect(&[(3, "b 1.0")]));
    }

    #[test]
    fn a_change_says_nothing_about_the_series_it_leaves_out() {
        let mut staleness = Staleness::new(None);
        staleness.apply(DOCKER, seen(1, Scope::Everything, vec![one("a"), one("b")]));
        let change = staleness.apply(DOCKER, seen(2, Scope::Change, vec![sample("b", Value::STALE)]));
        assert_eq!(told(&change), expect(&[(2, "b stale")]));
        assert_eq!(staleness.len(), 1, "a lives on");
    }

    #[test]
    fn one_source_does_not_end_another_ones_series_nor_speak_for_them() {
        let mut staleness = Staleness::new(None);
        staleness.apply(DOCKER, seen(1, Scope::Everything, vec![one("a")]));
        assert_eq!(told(&staleness.apply(OTHER, seen(2, Scope::Everything, vec![one("a"), one("c")]))).len(), 1);
        assert_eq!(staleness.counts().duplicate, 1);
    }

    #[test]
    fn a_late_sample_is_stamped_just_after_its_series_last_one_and_counted() {
        let mut staleness = Staleness::new(None);
        staleness.apply(DOCKER, seen(10, Scope::Everything, vec![one("a")]));
        let late = staleness.apply(DOCKER, seen(7, Scope::Change, vec![one("a"), one("new")]));
        assert_eq!(told(&late), expect(&[(7, "new 1.0"), (11, "a 1.0")]));
        assert_eq!(staleness.counts().late, 1);
    }

    #[test]
    fn a_tick_on_the_millisecond_of_an_event_repeats_nothing_and_ends_nothing() {
        let mut staleness = Staleness::new(None);
        staleness.apply(DOCKER, seen(10, Scope::Change, vec![one("a")]));
        let tick = staleness.apply(DOCKER, seen(10, Scope::Everything, vec![one("a"), one("b")]));
        assert_eq!(told(&tick), expect(&[(10, "b 1.0")]));
        let other = staleness.apply(DOCKER, seen(10, Scope::Change, vec![sample("a", Value::new(2.0))]));
        assert_eq!(told(&other), expect(&[(11, "a 2.0")]), "another value at the same instant stands after it");
        assert_eq!(staleness.counts(), Counts { late: 1, duplicate: 0 });
    }

    #[test]
    fn a_straggler_after_the_end_stands_after_the_end() {
        let mut staleness = Staleness::new(None);
        staleness.apply(DOCKER, seen(10, Scope::Change, vec![one("a")]));
        staleness.apply(DOCKER, seen(20, Scope::Change, vec![sample("a", Value::STALE)]));
        assert!(staleness.apply(DOCKER, seen(21, Scope::Change, vec![sample("a", Value::STALE)])).is_empty());
        assert_eq!(told(&staleness.apply(DOCKER, seen(15, Scope::Change, vec![one("a")]))), expect(&[(21, "a 1.0")]));
    }

    #[test]
    fn nothing_is_stamped_at_or_before_what_an_earlier_run_recorded() {
        let mut staleness = Staleness::new(Some(Timestamp::from_millis(100)));
        let early = staleness.apply(DOCKER, seen(90, Scope::Change, vec![one("a"), sample("gone", Value::STALE)]));
        assert_eq!(told(&early), expect(&[(101, "a 1.0"), (101, "gone stale")]));
    }

    #[test]
    fn a_silent_source_is_ended_whole_and_begins_anew() {
        let mut staleness = Staleness::new(None);
        staleness.apply(DOCKER, seen(1, Scope::Everything, vec![one("a")]));
        staleness.apply(OTHER, seen(1, Scope::Everything, vec![one("b")]));
        let ended = staleness.end_source(DOCKER, Timestamp::from_millis(5));
        assert_eq!(told(&ended), expect(&[(5, "a stale")]));
        assert!(staleness.end_source(DOCKER, Timestamp::from_millis(6)).is_empty());
        assert_eq!(told(&staleness.end_everything(Timestamp::from_millis(7))), expect(&[(7, "b stale")]));
        assert!(staleness.is_empty());
    }

    #[test]
    fn the_same_series_twice_in_one_observation_counts_once() {
        let mut staleness = Staleness::new(None);
        let snapshots =
            staleness.apply(DOCKER, seen(1, Scope::Everything, vec![one("a"), sample("a", Value::new(2.0))]));
        assert_eq!(told(&snapshots), expect(&[(1, "a 1.0")]));
        assert_eq!(staleness.counts().duplicate, 1);
    }

    #[test]
    fn the_present_is_the_last_value_of_all_that_lives() {
        let mut staleness = Staleness::new(None);
        staleness.apply(DOCKER, seen(1, Scope::Everything, vec![one("b"), one("a")]));
        staleness.apply(DOCKER, seen(4, Scope::Change, vec![sample("a", Value::new(3.0))]));
        let present = staleness.present();
        assert_eq!(told(&[present]), expect(&[(4, "a 3.0"), (4, "b 1.0")]));
    }

    proptest! {
        #[test]
        fn property_stamps_of_one_series_strictly_rise(
            steps in prop::collection::vec((0..2usize, -50..50i64, any::<bool>(), prop::collection::vec((0..4u8, any::<bool>()), 0..5)), 1..40)
        ) {
            let mut staleness = Staleness::new(Some(Timestamp::from_millis(0)));
            let mut last: HashMap<String, i64> = HashMap::new();
            for (source, at, everything, series) in steps {
                let samples = series.iter().map(|(n, stale)| sample(&format!("s{n}"), if *stale { Value::STALE } else { Value::new(1.0) })).collect();
                let scope = if everything { Scope::Everything } else { Scope::Change };
                for snapshot in staleness.apply(SourceIndex(source), seen(at, scope, samples)) {
                    for sample in &snapshot.samples {
                        let name = sample.series.labels().metric_name().to_owned();
                        let before = last.insert(name, snapshot.at.millis());
                        prop_assert!(before.is_none_or(|before| before < snapshot.at.millis()));
                    }
                }
            }
        }
    }
}
