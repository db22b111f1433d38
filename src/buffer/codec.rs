//! Snapshots as bytes and back, exactly: every value is its 64 bits, whatever they are.
//!
//! A segment defines each series once and snapshots refer to it by number. Definitions stand in records of their own, at
//! most [`DEFINITIONS_PER_RECORD`] series each, which need nothing outside themselves: a table of strings, the families,
//! then the label sets as numbers of strings. The log writes each of them twice (before and after the snapshot that first
//! needs it), so one damaged record costs at most one snapshot.
//!
//! Integers are LEB128. In a snapshot a sample is the zigzag distance of its series' number from the previous one plus
//! one (so series in their usual order cost a byte), then the value's bits with their bytes reversed: small whole numbers
//! end in zero bits, which reversed are leading zeros, which LEB128 does not write.
//!
//! Decoding believes nothing: a count is compared with the bytes that are left before anything is allocated for it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Interner, Label, Labels, Metadata, MetricKind, Sample, Series, Snapshot, Timestamp, Value};

use super::record::PAYLOAD_MAX_BYTES;

/// How many series one record defines at most; what the loss of both its copies would cost.
pub(super) const DEFINITIONS_PER_RECORD: usize = 256;
/// Series in one segment; more are a snapshot too large to append, or damage.
pub(super) const SERIES_MAX: usize = 1 << 20;
/// The longest LEB128 form of 64 bits.
const VARINT_MAX_BYTES: usize = 10;

/// The bytes are not what this codec writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage;

/// The snapshot does not fit in a record, or its segment cannot number its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// The series a segment that is being written has defined so far.
#[derive(Default)]
pub(super) struct Dictionary {
    known: HashMap<Labels, Known>,
    /// The same by address, valid because `known` keeps the series alive: the usual sample costs no comparison of strings.
    by_address: HashMap<usize, u32>,
    next: u32,
}

struct Known {
    number: u32,
    series: Arc<Series>,
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
        let known_before = self.next;
        let result = self.encode_parts(snapshot, known_before);
        if result.is_err() {
            self.forget_from(known_before);
        }
        result
    }

    fn encode_parts(&mut self, snapshot: &Snapshot, known_before: u32) -> Result<Encoded, TooLarge> {
        let mut fresh = Vec::new();
        let mut payload = Vec::with_capacity(snapshot.samples.len() * 5 + VARINT_MAX_BYTES);
        put(&mut payload, snapshot.samples.len() as u64);
        let mut expected: u32 = 0;
        for sample in &snapshot.samples {
            let number = self.number(&sample.series, &mut fresh)?;
            put(&mut payload, zigzag(i64::from(number) - i64::from(expected)));
            put(&mut payload, sample.value.bits().swap_bytes());
            expected = number.wrapping_add(1);
        }
        let mut first = known_before;
        let mut definitions = Vec::with_capacity(fresh.len().div_ceil(DEFINITIONS_PER_RECORD));
        for chunk in fresh.chunks(DEFINITIONS_PER_RECORD) {
            definitions.push(encode_definitions(first, chunk));
            first += u32::try_from(chunk.len()).map_err(|_| TooLarge)?;
        }
        let fits = payload.len() <= PAYLOAD_MAX_BYTES && definitions.iter().all(|d| d.len() <= PAYLOAD_MAX_BYTES);
        if fits { Ok(Encoded { definitions, snapshot: payload, known_before }) } else { Err(TooLarge) }
    }

    fn number(&mut self, series: &Arc<Series>, fresh: &mut Vec<Arc<Series>>) -> Result<u32, TooLarge> {
        let address = Arc::as_ptr(series).addr();
        if let Some(&number) = self.by_address.get(&address) {
            return Ok(number);
        }
        if let Some(known) = self.known.get_mut(series.labels())
            && (Arc::ptr_eq(known.series.metadata(), series.metadata()) || known.series.metadata() == series.metadata())
        {
            self.by_address.remove(&Arc::as_ptr(&known.series).addr());
            self.by_address.insert(address, known.number);
            known.series = Arc::clone(series);
            return Ok(known.number);
        }
        let number = self.next;
        if number as usize >= SERIES_MAX {
            return Err(TooLarge);
        }
        self.next += 1;
        let replaced = self.known.insert(series.labels().clone(), Known { number, series: Arc::clone(series) });
        if let Some(replaced) = replaced {
            self.by_address.remove(&Arc::as_ptr(&replaced.series).addr());
        }
        self.by_address.insert(address, number);
        fresh.push(Arc::clone(series));
        Ok(number)
    }

    /// Takes back the definitions from number `first` on, because their records did not reach the file.
    pub(super) fn forget_from(&mut self, first: u32) {
        if self.next > first {
            self.known.retain(|_, known| known.number < first);
            self.by_address.retain(|_, number| *number < first);
            self.next = first;
        }
    }
}

fn encode_definitions(first: u32, series: &[Arc<Series>]) -> Vec<u8> {
    let mut strings = StringTable::default();
    let mut families: Vec<&Metadata> = Vec::new();
    let mut family_numbers: HashMap<&Metadata, usize> = HashMap::new();
    let mut sets = Vec::new();
    for one in series {
        let family = *family_numbers.entry(one.metadata()).or_insert_with(|| {
            families.push(one.metadata());
            families.len() - 1
        });
        put(&mut sets, family as u64);
        put(&mut sets, one.labels().len() as u64);
        for label in one.labels() {
            put(&mut sets, strings.number(&label.name));
            put(&mut sets, strings.number(&label.value));
        }
    }
    let mut metadata = Vec::new();
    for family in &families {
        metadata.push(family.kind as u8);
        put(&mut metadata, strings.number(&family.family));
        put(&mut metadata, strings.number(&family.help));
        put(&mut metadata, strings.number(&family.unit));
    }
    let mut out = Vec::new();
    put(&mut out, u64::from(first));
    put(&mut out, strings.list.len() as u64);
    for text in &strings.list {
        put(&mut out, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    }
    put(&mut out, families.len() as u64);
    out.extend_from_slice(&metadata);
    put(&mut out, series.len() as u64);
    out.extend_from_slice(&sets);
    out
}

#[derive(Default)]
struct StringTable<'a> {
    list: Vec<&'a str>,
    numbers: HashMap<&'a str, u64>,
}

impl<'a> StringTable<'a> {
    fn number(&mut self, text: &'a str) -> u64 {
        *self.numbers.entry(text).or_insert_with(|| {
            self.list.push(text);
            self.list.len() as u64 - 1
        })
    }
}

/// The series of a segment that is being read, by number.
#[derive(Default)]
pub(super) struct Definitions(Vec<Option<Arc<Series>>>);

impl Definitions {
    /// Adds what a definition record holds.
    ///
    /// # Errors
    /// [`Damage`]; series before the damaged place are known.
    pub(super) fn read(&mut self, payload: &[u8], interner: &mut Interner) -> Result<(), Damage> {
        let mut input = Input(payload);
        let first = input.count(SERIES_MAX)?;
        let strings = read_strings(&mut input)?;
        let text = |number: usize| strings.get(number).ok_or(Damage);
        let mut families = Vec::new();
        for _ in 0..input.count_of(4)? {
            let kind = MetricKind::from_number(input.byte()?);
            let mut word = || Ok::<_, Damage>(Cow::Owned(text(input.count(usize::MAX)?)?.to_string()));
            families.push(Arc::new(Metadata { family: word()?, kind, help: word()?, unit: word()? }));
        }
        let many = input.count_of(2)?;
        if many > DEFINITIONS_PER_RECORD || first + many > SERIES_MAX {
            return Err(Damage);
        }
        if self.0.len() < first + many {
            self.0.resize(first + many, None);
        }
        for number in first..first + many {
            let metadata = families.get(input.count(usize::MAX)?).ok_or(Damage)?;
            let mut labels = Vec::with_capacity(input.peek_count_of(2)?);
            for _ in 0..input.count_of(2)? {
                let name = Arc::clone(text(input.count(usize::MAX)?)?);
                labels.push(Label { name, value: Arc::clone(text(input.count(usize::MAX)?)?) });
            }
            let labels = Labels::from_sorted(labels).map_err(|_| Damage)?;
            if self.0[number].is_none() {
                self.0[number] = Some(shared(labels, metadata, interner));
            }
        }
        Ok(())
    }

    /// The snapshot of `at` in `payload`.
    ///
    /// # Errors
    /// [`Damage`] when the bytes are not a snapshot, or it names a series whose definition is lost.
    pub(super) fn decode(&self, at: Timestamp, payload: &[u8]) -> Result<Snapshot, Damage> {
        let mut input = Input(payload);
        let many = input.count_of(2)?;
        let mut samples = Vec::with_capacity(many);
        let mut expected: i64 = 0;
        for _ in 0..many {
            let number = expected.checked_add(unzigzag(input.varint()?)).ok_or(Damage)?;
            let index = usize::try_from(number).map_err(|_| Damage)?;
            let series = self.0.get(index).and_then(Option::as_ref).ok_or(Damage)?;
            let value = Value::from_bits(input.varint()?.swap_bytes());
            samples.push(Sample::new(Arc::clone(series), value));
            expected = number + 1;
        }
        if input.0.is_empty() { Ok(Snapshot::new(at, samples)) } else { Err(Damage) }
    }
}

/// The interner's series, unless what is known of the family has changed since it was interned.
fn shared(labels: Labels, metadata: &Arc<Metadata>, interner: &mut Interner) -> Arc<Series> {
    let known = interner.intern(labels, metadata);
    if known.metadata() == metadata {
        known
    } else {
        Arc::new(Series::new(known.labels().clone(), Arc::clone(metadata)))
    }
}

fn read_strings(input: &mut Input<'_>) -> Result<Vec<Arc<str>>, Damage> {
    let many = input.count_of(1)?;
    let mut strings = Vec::with_capacity(many);
    for _ in 0..many {
        let len = input.count_of(1)?;
        let (text, rest) = input.0.split_at_checked(len).ok_or(Damage)?;
        input.0 = rest;
        strings.push(Arc::from(std::str::from_utf8(text).map_err(|_| Damage)?));
    }
    Ok(strings)
}

/// Bytes still to be read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Damage> {
        let (&first, rest) = self.0.split_first().ok_or(Damage)?;
        self.0 = rest;
        Ok(first)
    }

    fn varint(&mut self) -> Result<u64, Damage> {
        let mut number = 0_u64;
        for shift in 0..VARINT_MAX_BYTES {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == VARINT_MAX_BYTES - 1 && bits > 1 {
                return Err(Damage);
            }
            number |= bits << (7 * shift);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damage)
    }

    /// A number of at most `limit`.
    fn count(&mut self, limit: usize) -> Result<usize, Damage> {
        usize::try_from(self.varint()?).ok().filter(|count| *count <= limit).ok_or(Damage)
    }

    /// How many things follow that take at least `bytes_each`: never more than could be there.
    fn count_of(&mut self, bytes_each: usize) -> Result<usize, Damage> {
        let count = self.count(usize::MAX)?;
        if count <= self.0.len() / bytes_each { Ok(count) } else { Err(Damage) }
    }

    fn peek_count_of(&self, bytes_each: usize) -> Result<usize, Damage> {
        Input(self.0).count_of(bytes_each)
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
                    .map(|(index, bits)| Sample::new(series(index), Value::from_bits(bits)))
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
                prop_assert!(snapshot.samples.len() * 2 < bytes.len());
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
        assert_eq!(again.snapshot.len(), 1 + 100 * 4);
    }

    #[test]
    fn equal_series_at_another_address_are_the_same_series() {
        let mut dictionary = Dictionary::default();
        for _ in 0..3 {
            let samples = vec![Sample::new(series(1), Value::new(1.0))];
            dictionary.encode(&Snapshot::new(Timestamp::from_millis(0), samples)).unwrap();
        }
        assert_eq!((dictionary.next, dictionary.by_address.len()), (1, 1));
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
    fn zigzag_is_its_own_inverse() {
        for number in [0, 1, -1, i64::MAX, i64::MIN] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
    }
}
