//! Writing: the series a segment has defined so far, and what their values are compared with.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Labels, Sample, Series, Snapshot, Timestamp, Value};

use super::definitions::{self, AGAIN, DEFINITIONS_PER_RECORD, Definition, SERIES_MAX};
use super::extras;
use super::frames::{self, Pace};
use super::input::{put, zigzag};
use super::model::slot_of;
use super::value::{Base, Output};
use crate::buffer::record::{Kind, PAYLOAD_MAX_BYTES};

/// The snapshot does not fit in a record, or its segment cannot number its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::buffer) struct TooLarge;

/// The series a segment that is being written has defined so far.
#[derive(Default)]
pub(in crate::buffer) struct Dictionary {
    known: HashMap<Labels, Known>,
    /// The same by address, valid because `known` keeps the series alive: the usual sample costs no comparison of strings.
    by_address: HashMap<usize, u32>,
    /// By number.
    defined: Vec<Defined>,
    /// The frame that snapshots are written against; 0 is the definitions themselves.
    frame: u32,
    /// How many frames were made, whether or not they are used: no number is used twice in a segment.
    frames_made: u32,
    /// Whether the last snapshot encoded brought its own frame.
    frame_is_fresh: bool,
    pace: Pace,
}

struct Known {
    number: u32,
    series: Arc<Series>,
}

/// What is known of a series that was defined.
#[derive(Clone)]
pub(super) struct Defined {
    /// Of its [`Series`]; a series at that address is this one as long as `known` has it.
    address: usize,
    start: Option<Timestamp>,
    pub(super) slot: u8,
    /// As it was defined.
    pub(super) base: Base,
    /// As of the frame in use.
    pub(super) framed: Base,
    pub(super) latest: Value,
}

/// A snapshot ready to be framed into records.
pub(in crate::buffer) struct Encoded {
    /// Payloads of definition records, in order.
    pub(in crate::buffer) definitions: Vec<Vec<u8>>,
    /// Of the snapshot record.
    pub(in crate::buffer) kind: Kind,
    /// Its payload.
    pub(in crate::buffer) snapshot: Vec<u8>,
    /// The dictionary's size before, for [`Dictionary::forget_from`].
    pub(in crate::buffer) known_before: u32,
}

impl Dictionary {
    /// Encodes `snapshot`, defining what it is first to name.
    ///
    /// # Errors
    /// [`TooLarge`]; the dictionary is as before.
    pub(in crate::buffer) fn encode(&mut self, snapshot: &Snapshot) -> Result<Encoded, TooLarge> {
        let known_before = u32::try_from(self.defined.len()).map_err(|_| TooLarge)?;
        self.frame_is_fresh = false;
        let result = self.encode_parts(snapshot, known_before);
        if result.is_err() {
            self.forget_from(known_before);
        }
        result
    }

    fn encode_parts(&mut self, snapshot: &Snapshot, known_before: u32) -> Result<Encoded, TooLarge> {
        if snapshot.samples.len() > SERIES_MAX {
            return Err(TooLarge);
        }
        let mut fresh = Vec::new();
        let mut numbers = Vec::with_capacity(snapshot.samples.len());
        let mut expected = 0;
        for sample in &snapshot.samples {
            let number = self.number(sample, expected, &mut fresh)?;
            self.defined[number as usize].latest = sample.value;
            numbers.push(number);
            expected = number + 1;
        }
        let mut definitions = encode_fresh(known_before, &fresh)?;
        if self.pace.is_due() {
            definitions.push(self.new_frame());
        }
        let mut payload = self.encode_values(snapshot, &numbers);
        let mut kind = Kind::Snapshot;
        if !snapshot.histograms.is_empty() || !snapshot.exemplars.is_empty() {
            kind = Kind::RichSnapshot;
            let values = std::mem::take(&mut payload);
            put(&mut payload, values.len() as u64);
            payload.extend_from_slice(&values);
            extras::encode(snapshot, &mut payload);
        }
        if numbers.len() * 2 > self.defined.len() {
            self.pace.snapshot(payload.len());
        }
        let fits = payload.len() <= PAYLOAD_MAX_BYTES && definitions.iter().all(|d| d.len() <= PAYLOAD_MAX_BYTES);
        if fits { Ok(Encoded { definitions, kind, snapshot: payload, known_before }) } else { Err(TooLarge) }
    }

    fn encode_values(&self, snapshot: &Snapshot, numbers: &[u32]) -> Vec<u8> {
        let mut payload = Vec::with_capacity(64 + numbers.len());
        put(&mut payload, u64::from(self.frame));
        put_runs(&mut payload, numbers);
        let mut values = Output::new();
        for (sample, number) in snapshot.samples.iter().zip(numbers) {
            let defined = &self.defined[*number as usize];
            let restless = defined.framed.differs_from(&defined.base);
            defined.framed.encode(sample.value, defined.slot, restless, &mut values);
        }
        values.finish(&mut payload);
        payload
    }

    /// Makes the latest values the ones that snapshots are written against from now on.
    fn new_frame(&mut self) -> Vec<u8> {
        self.frames_made += 1;
        self.frame = AGAIN + self.frames_made;
        self.frame_is_fresh = true;
        let payload = frames::encode(self.frame, &mut self.defined);
        self.pace.frame(payload.len());
        payload
    }

    /// The number of the sample's series, most likely `expected`: snapshots name the same series in the same order.
    fn number(&mut self, sample: &Sample, expected: u32, fresh: &mut Vec<Fresh>) -> Result<u32, TooLarge> {
        let series = &sample.series;
        let address = Arc::as_ptr(series).addr();
        let is_it = |defined: &Defined| defined.address == address && defined.start == sample.start;
        if self.defined.get(expected as usize).is_some_and(is_it) {
            return Ok(expected);
        }
        let is_as_defined = |number: &u32| self.defined[*number as usize].start == sample.start;
        if let Some(number) = self.by_address.get(&address).copied().filter(is_as_defined) {
            return Ok(number);
        }
        if let Some(known) = self.known.get_mut(series.labels())
            && self.defined[known.number as usize].start == sample.start
            && (Arc::ptr_eq(known.series.metadata(), series.metadata()) || known.series.metadata() == series.metadata())
        {
            self.by_address.remove(&Arc::as_ptr(&known.series).addr());
            self.by_address.insert(address, known.number);
            self.defined[known.number as usize].address = address;
            known.series = Arc::clone(series);
            return Ok(known.number);
        }
        self.define(sample, fresh)
    }

    fn define(&mut self, sample: &Sample, fresh: &mut Vec<Fresh>) -> Result<u32, TooLarge> {
        if self.defined.len() >= SERIES_MAX {
            return Err(TooLarge);
        }
        let series = &sample.series;
        let address = Arc::as_ptr(series).addr();
        let number = u32::try_from(self.defined.len()).map_err(|_| TooLarge)?;
        let base = Base::new(sample.value);
        let slot = slot_of(series.labels().metric_name());
        self.defined.push(Defined { address, start: sample.start, slot, base, framed: base, latest: sample.value });
        let replaced = self.known.insert(series.labels().clone(), Known { number, series: Arc::clone(series) });
        // Only the start is another: the series itself is known.
        let earlier =
            replaced.as_ref().filter(|known| known.series.metadata() == series.metadata()).map(|known| known.number);
        if let Some(replaced) = replaced {
            self.by_address.remove(&Arc::as_ptr(&replaced.series).addr());
            // Nobody keeps that series alive any more, so another may get its address.
            self.defined[replaced.number as usize].address = 0;
        }
        self.by_address.insert(address, number);
        fresh.push((earlier, Definition { series: Arc::clone(series), base, slot, start: sample.start }));
        Ok(number)
    }

    /// Takes back the definitions from number `first` on, and a frame made with them, because their records did not reach
    /// the file.
    pub(in crate::buffer) fn forget_from(&mut self, first: u32) {
        if std::mem::take(&mut self.frame_is_fresh) {
            self.frame = 0;
            self.defined.iter_mut().for_each(|defined| defined.framed = defined.base);
            self.pace = Pace::overdue();
        }
        if self.defined.len() > first as usize {
            self.known.retain(|_, known| known.number < first);
            self.by_address.retain(|_, number| *number < first);
            self.defined.truncate(first as usize);
        }
    }
}

/// A definition to write, and the number of the earlier one that it only begins anew.
type Fresh = (Option<u32>, Definition);

/// The payloads that define `fresh` as the series numbered `first` and on.
fn encode_fresh(mut first: u32, fresh: &[Fresh]) -> Result<Vec<Vec<u8>>, TooLarge> {
    let mut payloads = Vec::new();
    for run in fresh.chunk_by(|(one, _), (next, _)| one.is_some() == next.is_some()) {
        for chunk in run.chunks(DEFINITIONS_PER_RECORD) {
            let again: Vec<(u32, Definition)> =
                chunk.iter().filter_map(|(earlier, definition)| Some(((*earlier)?, definition.clone()))).collect();
            payloads.push(if again.is_empty() {
                let whole: Vec<Definition> = chunk.iter().map(|(_, definition)| definition.clone()).collect();
                definitions::encode(first, &whole)
            } else {
                definitions::encode_again(first, &again)
            });
            first += u32::try_from(chunk.len()).map_err(|_| TooLarge)?;
        }
    }
    Ok(payloads)
}

fn put_runs(out: &mut Vec<u8>, numbers: &[u32]) {
    put(out, numbers.len() as u64);
    let mut expected = 0;
    for run in numbers.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
        let first = i64::from(run[0]);
        put(out, zigzag(first - expected));
        put(out, run.len() as u64);
        expected = first + i64::from(u32::try_from(run.len()).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Metadata, MetricKind};

    fn one() -> Snapshot {
        let labels = Labels::builder().with("__name__", "up").build().unwrap();
        let series = Series::new(labels, Arc::new(Metadata::of("up", MetricKind::Gauge, "is it up")));
        Snapshot::new(Timestamp::from_millis(0), vec![Sample::new(Arc::new(series), Value::new(1.0))])
    }

    #[test]
    fn equal_series_at_another_address_are_the_same_series() {
        let mut dictionary = Dictionary::default();
        for _ in 0..3 {
            dictionary.encode(&one()).unwrap();
        }
        assert_eq!((dictionary.defined.len(), dictionary.by_address.len()), (1, 1));
    }

    #[test]
    fn a_series_whose_start_changed_is_not_taken_for_another_at_its_address() {
        let mut dictionary = Dictionary::default();
        for start in 0..3 {
            let mut snapshot = one();
            snapshot.samples[0].start = Some(Timestamp::from_millis(start));
            dictionary.encode(&snapshot).unwrap();
        }
        let addresses: Vec<bool> = dictionary.defined.iter().map(|defined| defined.address != 0).collect();
        assert_eq!(addresses, [false, false, true], "only the one that is kept alive");
    }

    #[test]
    fn more_series_than_a_segment_can_number_do_not_fit_and_change_nothing() {
        let mut dictionary = Dictionary::default();
        let base = Base::new(Value::new(0.0));
        let one_of_many = Defined { address: 0, start: None, slot: 0, base, framed: base, latest: Value::new(0.0) };
        dictionary.defined = vec![one_of_many; SERIES_MAX];
        assert!(dictionary.encode(&one()).is_err());
        assert!(dictionary.known.is_empty() && dictionary.by_address.is_empty());
    }
}
