//! Snapshots as bytes and back, exactly: every value is its 64 bits, whatever they are.
//!
//! A segment defines each series once, with the value it had then as its *base*, and snapshots refer to it by number.
//! Definitions stand in records of their own (`definitions`), which the log writes twice, before and after the snapshot
//! that first needs them. A value is stored against its series' base (`value`), never against another record's, so one
//! damaged record costs at most one snapshot, and an unchanged value costs a bit.
//!
//! A snapshot's payload: how many samples (LEB128); the series' numbers as runs of consecutive ones, each the zigzag
//! distance of its first number from where the run before ended and its length; then the values, bit by bit, in the
//! same order; the last byte is filled up with zeros.
//!
//! Decoding believes nothing: a count is compared with the bytes that are left before anything is allocated for it.

mod bits;
mod definitions;
mod input;
mod value;

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Interner, Labels, Sample, Series, Snapshot, Timestamp};

use self::bits::{BitReader, BitWriter};
use self::definitions::Definition;
use self::input::{Input, put, unzigzag, zigzag};
use self::value::Base;
use super::record::PAYLOAD_MAX_BYTES;

pub(super) use self::definitions::{DEFINITIONS_PER_RECORD, SERIES_MAX};
pub(super) use self::input::Damage;

/// The snapshot does not fit in a record, or its segment cannot number its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The series a segment that is being written has defined so far.
#[derive(Default)]
pub(super) struct Dictionary {
    known: HashMap<Labels, Known>,
    /// The same by address, valid because `known` keeps the series alive: the usual sample costs no comparison of strings.
    by_address: HashMap<usize, u32>,
    /// By number.
    defined: Vec<Defined>,
}

struct Known {
    number: u32,
    series: Arc<Series>,
}

#[derive(Clone, Copy)]
struct Defined {
    base: Base,
    start: Option<Timestamp>,
}

/// A snapshot ready to be framed into records.
pub(super) struct Encoded {
    /// Payloads of definition records, in order.
    pub(super) definitions: Vec<Vec<u8>>,
    /// Payload of the snapshot record.
    pub(super) snapshot: Vec<u8>,
    /// The dictionary's size before, for [`Dictionary::forget_from`].
    pub(super) known_before: u32,
}

impl Dictionary {
    /// Encodes `snapshot`, defining what it is first to name.
    ///
    /// # Errors
    /// [`TooLarge`]; the dictionary is as before.
    pub(super) fn encode(&mut self, snapshot: &Snapshot) -> Result<Encoded, TooLarge> {
        let known_before = u32::try_from(self.defined.len()).map_err(|_| TooLarge)?;
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
        for sample in &snapshot.samples {
            numbers.push(self.number(sample, &mut fresh)?);
        }
        let mut payload = Vec::with_capacity(64 + numbers.len());
        put_runs(&mut payload, &numbers);
        let mut values = BitWriter::new(&mut payload);
        for (sample, number) in snapshot.samples.iter().zip(&numbers) {
            self.defined[*number as usize].base.encode(sample.value, &mut values);
        }
        values.finish();
        let mut first = known_before;
        let mut definitions = Vec::with_capacity(fresh.len().div_ceil(DEFINITIONS_PER_RECORD));
        for chunk in fresh.chunks(DEFINITIONS_PER_RECORD) {
            definitions.push(definitions::encode(first, chunk));
            first += u32::try_from(chunk.len()).map_err(|_| TooLarge)?;
        }
        let fits = payload.len() <= PAYLOAD_MAX_BYTES && definitions.iter().all(|d| d.len() <= PAYLOAD_MAX_BYTES);
        if fits { Ok(Encoded { definitions, snapshot: payload, known_before }) } else { Err(TooLarge) }
    }

    fn number(&mut self, sample: &Sample, fresh: &mut Vec<Definition>) -> Result<u32, TooLarge> {
        let series = &sample.series;
        let address = Arc::as_ptr(series).addr();
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
            known.series = Arc::clone(series);
            return Ok(known.number);
        }
        if self.defined.len() >= SERIES_MAX {
            return Err(TooLarge);
        }
        let number = u32::try_from(self.defined.len()).map_err(|_| TooLarge)?;
        let definition = Definition { series: Arc::clone(series), base: Base::new(sample.value), start: sample.start };
        self.defined.push(Defined { base: definition.base, start: definition.start });
        let replaced = self.known.insert(series.labels().clone(), Known { number, series: Arc::clone(series) });
        if let Some(replaced) = replaced {
            self.by_address.remove(&Arc::as_ptr(&replaced.series).addr());
        }
        self.by_address.insert(address, number);
        fresh.push(definition);
        Ok(number)
    }

    /// Takes back the definitions from number `first` on, because their records did not reach the file.
    pub(super) fn forget_from(&mut self, first: u32) {
        if self.defined.len() > first as usize {
            self.known.retain(|_, known| known.number < first);
            self.by_address.retain(|_, number| *number < first);
            self.defined.truncate(first as usize);
        }
    }
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

/// The series of a segment that is being read, by number.
#[derive(Default)]
pub(super) struct Definitions(Vec<Option<Definition>>);

impl Definitions {
    /// Adds what a definition record holds.
    ///
    /// # Errors
    /// [`Damage`]; series before the damaged place are known.
    pub(super) fn read(&mut self, payload: &[u8], interner: &mut Interner) -> Result<(), Damage> {
        definitions::read(payload, interner, |number, definition| {
            if self.0.len() <= number {
                self.0.resize(number + 1, None);
            }
            self.0[number].get_or_insert(definition);
        })
    }

    /// The snapshot of `at` in `payload`.
    ///
    /// # Errors
    /// [`Damage`] when the bytes are not a snapshot, or it names a series whose definition is lost.
    pub(super) fn decode(&self, at: Timestamp, payload: &[u8]) -> Result<Snapshot, Damage> {
        let mut input = Input(payload);
        let many = input.count(SERIES_MAX)?;
        // A sample takes a bit at least.
        if many.div_ceil(8) > input.0.len() {
            return Err(Damage);
        }
        let mut chosen: Vec<&Definition> = Vec::with_capacity(many);
        let mut expected = 0_i64;
        while chosen.len() < many {
            let first = expected.checked_add(unzigzag(input.varint()?)).ok_or(Damage)?;
            let len = input.count(many - chosen.len())?;
            let first = usize::try_from(first).map_err(|_| Damage)?;
            let run =
                self.0.get(first..).and_then(|rest| rest.get(..len)).filter(|run| !run.is_empty()).ok_or(Damage)?;
            for definition in run {
                chosen.push(definition.as_ref().ok_or(Damage)?);
            }
            expected = i64::try_from(first + len).map_err(|_| Damage)?;
        }
        let mut values = BitReader::new(input.0);
        let mut samples = Vec::with_capacity(many);
        for definition in chosen {
            let value = definition.base.decode(&mut values)?;
            samples.push(Sample { series: Arc::clone(&definition.series), value, start: definition.start });
        }
        if values.is_at_end() { Ok(Snapshot::new(at, samples)) } else { Err(Damage) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Metadata, MetricKind, Value};

    fn series(index: u32) -> Arc<Series> {
        let name = format!("metric_{}", index % 7);
        let metadata = Metadata {
            family: name.clone().into(),
            kind: MetricKind::Gauge,
            help: format!("help of {name}").into(),
            unit: "".into(),
        };
        let labels = Labels::builder().with("__name__", name).with("index", index.to_string()).build().unwrap();
        Arc::new(Series::new(labels, Arc::new(metadata)))
    }

    fn round_trip(dictionary: &mut Dictionary, definitions: &mut Definitions, snapshot: &Snapshot) -> Snapshot {
        let encoded = dictionary.encode(snapshot).unwrap();
        let mut interner = Interner::default();
        for payload in &encoded.definitions {
            definitions.read(payload, &mut interner).unwrap();
        }
        definitions.decode(snapshot.at, &encoded.snapshot).unwrap()
    }

    proptest! {
        #[test]
        fn any_values_of_any_series_come_back_bit_for_bit(
            rounds in prop::collection::vec(prop::collection::btree_map(0_u32..700, any::<u64>(), 0..60), 1..5),
        ) {
            let (mut dictionary, mut definitions) = (Dictionary::default(), Definitions::default());
            for (at, values) in rounds.into_iter().enumerate() {
                let samples = values.into_iter()
                    .map(|(index, bits)| {
                        let sample = Sample::new(series(index), Value::from_bits(bits));
                        if index % 3 == 0 { sample.started(Timestamp::from_millis(i64::from(index % 2))) } else { sample }
                    })
                    .collect();
                let snapshot = Snapshot::new(Timestamp::from_millis(i64::try_from(at).unwrap()), samples);
                prop_assert_eq!(round_trip(&mut dictionary, &mut definitions, &snapshot), snapshot);
            }
        }

        #[test]
        fn random_bytes_never_panic_and_never_make_more_than_they_could_hold(
            bytes in prop::collection::vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..200),
        ) {
            let mut definitions = Definitions::default();
            definitions.read(&bytes, &mut Interner::default()).ok();
            prop_assert!(definitions.0.len() <= SERIES_MAX);
            let all = (0..4).map(|i| Sample::new(series(i), Value::new(1.0))).collect();
            let known = Dictionary::default().encode(&Snapshot::new(Timestamp::from_millis(0), all)).unwrap();
            let mut definitions = Definitions::default();
            definitions.read(&known.definitions[0], &mut Interner::default()).unwrap();
            if let Ok(snapshot) = definitions.decode(Timestamp::from_millis(0), &bytes) {
                prop_assert!(snapshot.samples.len() <= bytes.len() * 8);
            }
        }

        #[test]
        fn a_flipped_bit_in_definitions_never_panics(bit in 0_usize..8_000) {
            let all: Vec<Sample> = (0..300).map(|i| Sample::new(series(i), Value::new(1.0))).collect();
            let snapshot = Snapshot::new(Timestamp::from_millis(0), all);
            let mut encoded = Dictionary::default().encode(&snapshot).unwrap();
            let payload = &mut encoded.definitions[0];
            let index = (bit / 8) % payload.len();
            payload[index] ^= 1 << (bit % 8);
            let mut definitions = Definitions::default();
            if definitions.read(payload, &mut Interner::default()).is_ok() {
                prop_assert!(definitions.decode(snapshot.at, &encoded.snapshot).is_err(), "the second record is missing");
            }
        }
    }

    #[test]
    fn odd_numbers_survive() {
        let values = [
            Value::STALE,
            Value::new(-0.0),
            Value::new(f64::NAN),
            Value::from_bits(0xfff8_0000_0000_1234),
            Value::new(f64::INFINITY),
            Value::new(f64::MIN_POSITIVE / 2.0),
            Value::from_bits(u64::MAX),
        ];
        let samples = values.iter().zip(0..).map(|(v, i)| Sample::new(series(i), *v)).collect();
        let snapshot = Snapshot::new(Timestamp::from_millis(i64::MIN), samples);
        assert_eq!(round_trip(&mut Dictionary::default(), &mut Definitions::default(), &snapshot), snapshot);
    }

    #[test]
    fn a_series_is_defined_once_and_unchanged_small_numbers_cost_little() {
        let samples: Vec<Sample> = (0..100).map(|i| Sample::new(series(i), Value::new(1.0))).collect();
        let snapshot = Snapshot::new(Timestamp::from_millis(0), samples);
        let mut dictionary = Dictionary::default();
        assert_eq!(dictionary.encode(&snapshot).unwrap().definitions.len(), 1);
        let again = dictionary.encode(&snapshot).unwrap();
        assert!(again.definitions.is_empty());
        assert_eq!(again.snapshot.len(), 3 + 100_usize.div_ceil(8), "a bit each");
    }

    #[test]
    fn equal_series_at_another_address_are_the_same_series() {
        let mut dictionary = Dictionary::default();
        for _ in 0..3 {
            let samples = vec![Sample::new(series(1), Value::new(1.0))];
            dictionary.encode(&Snapshot::new(Timestamp::from_millis(0), samples)).unwrap();
        }
        assert_eq!((dictionary.defined.len(), dictionary.by_address.len()), (1, 1));
    }

    #[test]
    fn changed_metadata_is_a_new_definition() {
        let old = series(1);
        let metadata = Metadata { help: "now said better".into(), ..(**old.metadata()).clone() };
        let new = Arc::new(Series::new(old.labels().clone(), Arc::new(metadata)));
        let (mut dictionary, mut definitions) = (Dictionary::default(), Definitions::default());
        for one in [old, new] {
            let samples = vec![Sample::new(one.clone(), Value::new(1.0))];
            let snapshot = Snapshot::new(Timestamp::from_millis(0), samples);
            let back = round_trip(&mut dictionary, &mut definitions, &snapshot);
            assert_eq!(back.samples[0].series.metadata(), one.metadata());
        }
    }

    #[test]
    fn definitions_that_did_not_reach_the_file_are_taken_back() {
        let of = |index| Snapshot::new(Timestamp::from_millis(0), vec![Sample::new(series(index), Value::new(1.0))]);
        let mut dictionary = Dictionary::default();
        dictionary.encode(&of(1)).unwrap();
        let failed = dictionary.encode(&of(2)).unwrap();
        dictionary.forget_from(failed.known_before);
        assert_eq!(dictionary.encode(&of(2)).unwrap().definitions.len(), 1);
        assert!(dictionary.encode(&of(1)).unwrap().definitions.is_empty());
    }

    #[test]
    fn a_counter_that_begins_anew_is_told_with_its_new_beginning() {
        let (mut dictionary, mut definitions) = (Dictionary::default(), Definitions::default());
        for start in [None, Some(5), Some(i64::MIN), None] {
            let mut sample = Sample::new(series(1), Value::new(1.0));
            sample.start = start.map(Timestamp::from_millis);
            let snapshot = Snapshot::new(Timestamp::from_millis(0), vec![sample]);
            let back = round_trip(&mut dictionary, &mut definitions, &snapshot);
            assert_eq!(back, snapshot);
        }
    }

    #[test]
    fn a_damaged_record_costs_no_other_because_values_are_told_against_the_base_only() {
        let (mut dictionary, mut definitions) = (Dictionary::default(), Definitions::default());
        let of = |at: i64, value: f64| {
            Snapshot::new(Timestamp::from_millis(at), vec![Sample::new(series(1), Value::new(value))])
        };
        round_trip(&mut dictionary, &mut definitions, &of(1, 10.0));
        dictionary.encode(&of(2, 20.0)).unwrap();
        assert_eq!(
            round_trip(&mut dictionary, &mut definitions, &of(3, 30.0)),
            of(3, 30.0),
            "the second was never read"
        );
    }

    #[test]
    fn more_series_than_a_segment_can_number_do_not_fit_and_change_nothing() {
        let nothing = Defined { base: Base::new(Value::new(0.0)), start: None };
        let mut dictionary = Dictionary { defined: vec![nothing; SERIES_MAX], ..Dictionary::default() };
        let one = Snapshot::new(Timestamp::from_millis(0), vec![Sample::new(series(1), Value::new(1.0))]);
        assert!(dictionary.encode(&one).is_err());
        assert!(dictionary.known.is_empty() && dictionary.by_address.is_empty());
    }
}
