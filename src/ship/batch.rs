//! Some instants of samples, arranged so that one request can carry all instants of some series.
//!
//! Invariants: cutting is a pure function of the samples and the size asked for, so what is sent again after a crash is cut
//! in the same places; two extents of a cut share no series, or follow one another in time; what is sent under one label set
//! is one series here, also where relabelling made it so. Nothing is copied: samples are put in order in place, and a request
//! borrows them.
//!
//! A native histogram is a sample like another. An exemplar is a note on one: it goes wherever its series goes, and is
//! neither counted nor a reason to cut.

use std::ops::Range;
use std::sync::Arc;

use crate::encode::{Encoder, Part, Tally};
use crate::model::{Exemplar, HistogramSample, Sample, Series, Snapshot, Timestamp};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Batch {
    rows: Vec<Row>,
    /// By series: samples in all rows.
    sizes: Vec<u32>,
}

/// One instant.
#[derive(Debug)]
struct Row {
    at: Timestamp,
    samples: Column<Sample>,
    histograms: Column<HistogramSample>,
    exemplars: Column<Exemplar>,
}

/// Things and the numbers of their series in the same order, ascending.
#[derive(Debug)]
struct Column<T> {
    things: Vec<T>,
    series: Vec<u32>,
}

/// Some series over some instants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    rows: Range<usize>,
    series: Range<u32>,
}

/// What besides plain samples is to be sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) exemplars: bool,
    pub(super) native_histograms: bool,
}

/// What is not in a batch of what it was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Relabelling dropped its series.
    pub(super) relabelled_away: Tally,
    /// Nobody asked for it to be sent.
    pub(super) unwanted: Tally,
    /// Exemplars of series that have no sample.
    pub(super) unattached: usize,
}

impl Batch {
    /// Arranges `snapshots`.
    pub(super) fn new(snapshots: Vec<Snapshot>, wanted: Wanted, encoder: &mut Encoder) -> (Self, LeftOut) {
        let (mut batch, mut left_out) = (Self::default(), LeftOut::default());
        let mut numbers = Numbers::default();
        for Snapshot { at, samples, mut histograms, mut exemplars } in snapshots {
            if !wanted.native_histograms {
                left_out.unwanted.histograms += std::mem::take(&mut histograms).len();
            }
            if !wanted.exemplars {
                left_out.unwanted.exemplars += std::mem::take(&mut exemplars).len();
            }
            let away = &mut left_out.relabelled_away;
            let mut place = |series: &Arc<Series>| {
                let number = numbers.of(encoder.identity(series)?);
                batch.add_to_size(number);
                Some(number)
            };
            let samples = Column::new(samples, &mut away.samples, |sample| place(&sample.series));
            let histograms = Column::new(histograms, &mut away.histograms, |sample| place(&sample.series));
            // After the samples of their instant, whose series they are of.
            let known = |exemplar: &Exemplar| numbers.known(encoder.identity(&exemplar.series)?);
            let exemplars = Column::new(exemplars, &mut left_out.unattached, known);
            if !samples.things.is_empty() || !histograms.things.is_empty() {
                batch.rows.push(Row { at, samples, histograms, exemplars });
            } else {
                left_out.unattached += exemplars.things.len();
            }
        }
        (batch, left_out)
    }

    fn add_to_size(&mut self, number: u32) {
        let number = number as usize;
        if self.sizes.len() <= number {
            self.sizes.resize(number + 1, 0);
        }
        self.sizes[number] += 1;
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
            let size = self.rows[row].points(&extent.series);
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
    pub(super) fn expire(&self, extent: Extent, oldest: Timestamp) -> (Extent, Tally) {
        let old = extent.rows.clone().take_while(|row| self.rows[*row].at < oldest).count();
        let gone = Extent { rows: extent.rows.start..extent.rows.start + old, ..extent.clone() };
        let expired = self.tally(&gone);
        (Extent { rows: gone.rows.end..extent.rows.end, ..extent }, expired)
    }

    /// Samples in it, histograms among them.
    pub(super) fn count(&self, extent: &Extent) -> usize {
        self.rows(extent).map(|row| row.points(&extent.series)).sum()
    }

    /// What is in it.
    pub(super) fn tally(&self, extent: &Extent) -> Tally {
        let tally = |row: &Row| row.part(&extent.series).tally();
        self.rows(extent).map(tally).fold(Tally::default(), Tally::plus)
    }

    /// The instant of its last sample.
    pub(super) fn last_at(&self, extent: &Extent) -> Option<Timestamp> {
        self.rows(extent).rfind(|row| row.points(&extent.series) > 0).map(|row| row.at)
    }

    /// What a request is made of.
    pub(super) fn parts(&self, extent: &Extent) -> Vec<Part<'_>> {
        let parts = self.rows(extent).map(|row| row.part(&extent.series));
        parts.filter(|part| part.tally().points() > 0).collect()
    }

    /// The samples themselves.
    pub(super) fn snapshots(&self, extent: &Extent) -> Vec<Snapshot> {
        let snapshot = |part: Part| Snapshot {
            histograms: part.histograms.to_vec(),
            exemplars: part.exemplars.to_vec(),
            ..Snapshot::new(part.at, part.samples.to_vec())
        };
        self.parts(extent).into_iter().map(snapshot).collect()
    }

    /// The series of the first sample in it.
    pub(super) fn first_of(&self, extent: &Extent) -> Option<&Arc<Series>> {
        self.rows(extent).find_map(|row| row.first_of(&extent.series))
    }

    fn rows(&self, extent: &Extent) -> std::slice::Iter<'_, Row> {
        self.rows[extent.rows.clone()].iter()
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
    fn points(&self, series: &Range<u32>) -> usize {
        self.samples.slice(series).len() + self.histograms.slice(series).len()
    }

    fn first_of(&self, series: &Range<u32>) -> Option<&Arc<Series>> {
        let sample = self.samples.slice(series).first().map(|sample| &sample.series);
        sample.or_else(|| Some(&self.histograms.slice(series).first()?.series))
    }

    fn part(&self, series: &Range<u32>) -> Part<'_> {
        Part::new(self.at, self.samples.slice(series))
            .with_histograms(self.histograms.slice(series))
            .with_exemplars(self.exemplars.slice(series))
    }
}

impl<T> Column<T> {
    /// Those of `things` that `number` gives a series; the others are counted in `left_out`.
    fn new(mut things: Vec<T>, left_out: &mut usize, mut number: impl FnMut(&T) -> Option<u32>) -> Self {
        let mut series = Vec::with_capacity(things.len());
        let given = things.len();
        things.retain(|thing| number(thing).inspect(|number| series.push(*number)).is_some());
        *left_out += given - things.len();
        if series.is_sorted() {
            return Self { things, series };
        }
        let mut pairs: Vec<(u32, T)> = series.into_iter().zip(things).collect();
        pairs.sort_by_key(|(number, _)| *number);
        let (series, things) = pairs.into_iter().unzip();
        Self { things, series }
    }

    fn slice(&self, series: &Range<u32>) -> &[T] {
        let from = self.series.partition_point(|number| *number < series.start);
        let to = self.series.partition_point(|number| *number < series.end);
        &self.things[from..to]
    }
}

/// Numbers for identities, in the order in which they first appear.
#[derive(Debug, Default)]
struct Numbers {
    /// By identity.
    numbers: Vec<u32>,
    given: u32,
}

impl Numbers {
    const NONE: u32 = u32::MAX;

    fn of(&mut self, identity: u32) -> u32 {
        let identity = identity as usize;
        if self.numbers.len() <= identity {
            self.numbers.resize(identity + 1, Self::NONE);
        }
        let number = &mut self.numbers[identity];
        if *number == Self::NONE {
            *number = self.given;
            self.given += 1;
        }
        *number
    }

    fn known(&self, identity: u32) -> Option<u32> {
        self.numbers.get(identity as usize).copied().filter(|number| *number != Self::NONE)
    }
}

#[cfg(test)]
mod tests;
