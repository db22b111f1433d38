//! Some instants of samples, arranged so that one request can carry all instants of some series.
//!
//! Invariants: cutting is a pure function of the samples and the size asked for, so what is sent again after a crash is cut
//! in the same places; two extents of a cut share no series, or follow one another in time; what is sent under one label set
//! is one series here, also where relabelling made it so. Nothing is copied: samples are put in order in place, and a request
//! borrows them.

use std::ops::Range;

use crate::encode::{Encoder, Part};
use crate::model::{Sample, Snapshot, Timestamp};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: Vec<Row>,
    /// By series: samples in all rows.
    sizes: Vec<u32>,
}

/// One instant; samples and the numbers of their series in the same order, ascending.
#[derive(Debug)]
struct Row {
    at: Timestamp,
    samples: Vec<Sample>,
    series: Vec<u32>,
}

/// Some series over some instants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    rows: Range<usize>,
    series: Range<u32>,
}

impl Batch {
    /// Arranges `snapshots`; gives how many samples relabelling leaves out, which are not in it.
    pub(super) fn new(snapshots: Vec<Snapshot>, encoder: &mut Encoder) -> (Self, u64) {
        let mut batch = Self::default();
        let mut numbers: Vec<u32> = Vec::new();
        let mut filtered = 0;
        for snapshot in snapshots {
            let mut series = Vec::with_capacity(snapshot.samples.len());
            let mut samples = snapshot.samples;
            let given = samples.len() + snapshot.histograms.len();
            samples.retain(|sample| {
                let Some(identity) = encoder.identity(&sample.series) else { return false };
                series.push(batch.number_of(identity, &mut numbers));
                true
            });
            // No endpoint takes native histograms yet; they are counted with what is left out.
            filtered += (given - samples.len()) as u64;
            if !samples.is_empty() {
                batch.rows.push(Row::new(snapshot.at, samples, series));
            }
        }
        (batch, filtered)
    }

    fn number_of(&mut self, identity: u32, numbers: &mut Vec<u32>) -> u32 {
        let identity = identity as usize;
        if numbers.len() <= identity {
            numbers.resize(identity + 1, u32::MAX);
        }
        if numbers[identity] == u32::MAX {
            numbers[identity] = number(self.sizes.len());
            self.sizes.push(0);
        }
        let number = numbers[identity];
        self.sizes[number as usize] += 1;
        number
    }

    /// All of it.
    pub(super) fn whole(&self) -> Extent {
        Extent { rows: 0..self.rows.len(), series: 0..number(self.sizes.len()) }
    }

    /// `extent` in requests of at most `samples_max`: all its instants of some series, or, where a single series has more,
    /// some instants of it.
    pub(super) fn cut(&self, extent: &Extent, samples_max: usize) -> Vec<Extent> {
        let samples_max = samples_max.max(1);
        let mut cut = Vec::new();
        let (mut from, mut held) = (extent.series.start, 0);
        for series in extent.series.clone() {
            let one = Extent { series: series..series + 1, ..extent.clone() };
            let is_whole = extent.rows == (0..self.rows.len());
            let size = if is_whole { self.sizes[series as usize] as usize } else { self.count(&one) };
            if held > 0 && held + size > samples_max {
                cut.push(Extent { series: from..series, ..extent.clone() });
                (from, held) = (series, 0);
            }
            held += size;
            if held > samples_max {
                cut.extend(self.cut_in_time(&one, samples_max));
                (from, held) = (series + 1, 0);
            }
        }
        if held > 0 {
            cut.push(Extent { series: from..extent.series.end, ..extent.clone() });
        }
        cut
    }

    fn cut_in_time(&self, extent: &Extent, samples_max: usize) -> Vec<Extent> {
        let mut cut = Vec::new();
        let (mut from, mut held) = (extent.rows.start, 0);
        for row in extent.rows.clone() {
            let size = self.slice(row, &extent.series).len();
            if held > 0 && held + size > samples_max {
                cut.push(Extent { rows: from..row, ..extent.clone() });
                (from, held) = (row, 0);
            }
            held += size;
        }
        cut.push(Extent { rows: from..extent.rows.end, ..extent.clone() });
        cut
    }

    /// Two halves, the one to be sent first in front; `None` where there is but one sample.
    pub(super) fn halves(&self, extent: &Extent) -> Option<[Extent; 2]> {
        let count = self.count(extent);
        if count < 2 {
            return None;
        }
        // Never the whole again: the first piece is at most half.
        let mut cut = self.cut(extent, count.div_ceil(2)).into_iter();
        let first = cut.next()?;
        let rest = if first.series == extent.series {
            Extent { rows: first.rows.end..extent.rows.end, ..extent.clone() }
        } else if first.rows == extent.rows {
            Extent { series: first.series.end..extent.series.end, ..extent.clone() }
        } else {
            // The first series alone is more than half: it, and then the others.
            let series = extent.series.start..first.series.end;
            let one = Extent { series: series.clone(), ..extent.clone() };
            return Some([one, Extent { series: series.end..extent.series.end, ..extent.clone() }]);
        };
        (first != *extent && self.count(&rest) > 0).then_some([first, rest])
    }

    /// The first series alone and the rest, where there is more than one.
    pub(super) fn first_series(&self, extent: &Extent) -> Option<[Extent; 2]> {
        let mut cut = self.cut(extent, 1).into_iter();
        let series = cut.next()?.series;
        let rest = Extent { series: series.end..extent.series.end, ..extent.clone() };
        (self.count(&rest) > 0).then(|| [Extent { series: extent.series.start..series.end, ..extent.clone() }, rest])
    }

    /// An extent for each instant, oldest first; `None` where there is but one.
    pub(super) fn instants(&self, extent: &Extent) -> Option<Vec<Extent>> {
        let alone = |row| Extent { rows: row..row + 1, ..extent.clone() };
        let instants: Vec<Extent> = extent.rows.clone().map(alone).filter(|one| self.count(one) > 0).collect();
        (instants.len() > 1).then_some(instants)
    }

    /// What of it is younger than `oldest`, and how many samples are not.
    pub(super) fn expire(&self, extent: Extent, oldest: Timestamp) -> (Extent, u64) {
        let old = extent.rows.clone().take_while(|row| self.rows[*row].at < oldest).count();
        let gone = Extent { rows: extent.rows.start..extent.rows.start + old, ..extent.clone() };
        let expired = if old > 0 { self.count(&gone) as u64 } else { 0 };
        (Extent { rows: gone.rows.end..extent.rows.end, ..extent }, expired)
    }

    /// Samples in it.
    pub(super) fn count(&self, extent: &Extent) -> usize {
        extent.rows.clone().map(|row| self.slice(row, &extent.series).len()).sum()
    }

    /// The instant of its last sample.
    pub(super) fn last_at(&self, extent: &Extent) -> Option<Timestamp> {
        let mut rows = extent.rows.clone().rev();
        rows.find(|row| !self.slice(*row, &extent.series).is_empty()).map(|row| self.rows[row].at)
    }

    /// What a request is made of.
    pub(super) fn parts(&self, extent: &Extent) -> Vec<Part<'_>> {
        let part = |row: usize| Part::new(self.rows[row].at, self.slice(row, &extent.series));
        extent.rows.clone().map(part).filter(|part| !part.samples.is_empty()).collect()
    }

    /// The samples themselves.
    pub(super) fn snapshots(&self, extent: &Extent) -> Vec<Snapshot> {
        self.parts(extent).into_iter().map(|part| Snapshot::new(part.at, part.samples.to_vec())).collect()
    }

    /// Whether a sample of the same series is in it.
    pub(super) fn has_series_of(&self, extent: &Extent, sample: &Sample) -> bool {
        let mut samples = extent.rows.clone().flat_map(|row| self.slice(row, &extent.series));
        samples.any(|other| other.series == sample.series)
    }

    fn slice(&self, row: usize, series: &Range<u32>) -> &[Sample] {
        let row = &self.rows[row];
        let from = row.series.partition_point(|number| *number < series.start);
        let to = row.series.partition_point(|number| *number < series.end);
        &row.samples[from..to]
    }
}

/// As many series as fit into memory.
fn number(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl Extent {
    /// Whether no series is in both.
    pub(super) fn is_apart_from(&self, other: &Self) -> bool {
        self.series.end <= other.series.start || other.series.end <= self.series.start
    }
}

impl Row {
    fn new(at: Timestamp, samples: Vec<Sample>, series: Vec<u32>) -> Self {
        if series.is_sorted() {
            return Self { at, samples, series };
        }
        let mut pairs: Vec<(u32, Sample)> = series.into_iter().zip(samples).collect();
        pairs.sort_by_key(|(number, _)| *number);
        let (series, samples) = pairs.into_iter().unzip();
        Self { at, samples, series }
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "small numbers"
    )]

    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Labels, Metadata, MetricKind, Series, Value};

    /// A snapshot of the series with these numbers at each second.
    fn snapshots(of: &[Vec<u8>]) -> Vec<Snapshot> {
        let metadata = Arc::new(Metadata::of("a", MetricKind::Gauge, ""));
        let series: Vec<Arc<Series>> = (0..=u8::MAX)
            .map(|number| {
                let labels = Labels::builder().with("__name__", "a").with("n", number.to_string()).build().unwrap();
                Arc::new(Series::new(labels, Arc::clone(&metadata)))
            })
            .collect();
        let sample =
            |number: &u8| Sample::new(Arc::clone(&series[usize::from(*number)]), Value::new(f64::from(*number)));
        let at = |second: usize| Timestamp::from_millis(second as i64 * 1000);
        of.iter()
            .enumerate()
            .map(|(second, numbers)| Snapshot::new(at(second), numbers.iter().map(sample).collect()))
            .collect()
    }

    fn batch(of: &[Vec<u8>]) -> Batch {
        Batch::new(snapshots(of), &mut Encoder::new(Labels::empty(), None)).0
    }

    /// Everything in order of sending: series, second.
    fn sent(batch: &Batch, extents: &[Extent]) -> Vec<(u8, i64)> {
        let parts = extents.iter().flat_map(|extent| batch.parts(extent));
        let all = parts.flat_map(|part| {
            part.samples.iter().map(move |sample| (sample.value.number() as u8, part.at.millis() / 1000))
        });
        all.collect()
    }

    #[test]
    fn a_request_carries_all_instants_of_some_series() {
        let batch = batch(&[vec![1, 2, 3], vec![1, 2, 3], vec![3, 2, 1]]);
        let cut = batch.cut(&batch.whole(), 6);
        assert_eq!(cut.iter().map(|extent| batch.count(extent)).collect::<Vec<_>>(), [6, 3]);
        assert_eq!(sent(&batch, &cut[..1]), [(1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2)]);
    }

    #[test]
    fn a_series_with_more_than_a_request_is_cut_in_time() {
        let batch = batch(&[vec![1, 2], vec![1], vec![1], vec![1, 2]]);
        let cut = batch.cut(&batch.whole(), 3);
        assert_eq!(sent(&batch, &cut), [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 3)]);
        assert_eq!(cut.len(), 3);
    }

    #[test]
    fn what_relabelling_drops_is_counted_and_what_it_joins_is_one_series() {
        let relabel = |labels: &Labels| match labels.get("n") {
            Some("1") => None,
            _ => Some(Labels::builder().with("__name__", "a").build_lossy()),
        };
        let mut encoder = Encoder::new(Labels::empty(), Some(Box::new(relabel)));
        let (batch, filtered) = Batch::new(snapshots(&[vec![1, 2], vec![3], vec![2]]), &mut encoder);
        assert_eq!(filtered, 1);
        let cut = batch.cut(&batch.whole(), 1);
        assert_eq!(
            sent(&batch, &cut),
            [(2, 0), (3, 1), (2, 2)],
            "in order of time, because it is one series to the receiver"
        );
    }

    #[test]
    fn old_instants_expire_alone() {
        let batch = batch(&[vec![1, 2], vec![1], vec![1]]);
        let (rest, expired) = batch.expire(batch.whole(), Timestamp::from_millis(1000));
        assert_eq!((expired, batch.count(&rest)), (2, 2));
    }

    proptest! {
        #[test]
        fn every_cut_has_every_sample_once_within_bounds_and_each_series_in_order(
            rows in proptest::collection::vec(proptest::collection::btree_set(0_u8..12, 0..12), 1..8),
            max in 1_usize..20,
            halvings in 0_usize..6,
        ) {
            let rows: Vec<Vec<u8>> = rows.into_iter().map(|row| row.into_iter().collect()).collect();
            let batch = batch(&rows);
            let mut cut = batch.cut(&batch.whole(), max);
            prop_assert_eq!(&cut, &batch.cut(&batch.whole(), max), "the same again");
            for extent in &cut {
                prop_assert!((1..=max).contains(&batch.count(extent)));
            }
            for turn in 0..halvings {
                let Some(index) = (!cut.is_empty()).then(|| turn * 7 % cut.len()) else { break };
                let count = batch.count(&cut[index]);
                let parts: Vec<Extent> = match turn % 3 {
                    0 => batch.halves(&cut[index]).map(Vec::from),
                    1 => batch.instants(&cut[index]),
                    _ => batch.first_series(&cut[index]).map(Vec::from),
                }
                .unwrap_or_else(|| vec![cut[index].clone()]);
                prop_assert!(turn % 3 != 0 || count < 2 || parts.len() == 2, "two samples can be halved");
                prop_assert!(parts.iter().all(|part| batch.count(part) > 0));
                cut.splice(index..=index, parts);
            }
            let sent = sent(&batch, &cut);
            let mut expected: Vec<(u8, i64)> = (0_i64..).zip(&rows).flat_map(|(at, row)| row.iter().map(move |n| (*n, at))).collect();
            for number in 0..12 {
                let of = |all: &[(u8, i64)]| all.iter().filter(|(n, _)| *n == number).copied().collect::<Vec<_>>();
                prop_assert_eq!(of(&sent), of(&expected));
            }
            let mut sorted = sent;
            sorted.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(sorted, expected);
        }
    }
}
