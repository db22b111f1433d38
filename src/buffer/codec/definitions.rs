//! Definitions of series as bytes and back: what one definition record holds.
//!
//! A record needs nothing outside itself: a table of strings, the families, the label sets (without the metric's name,
//! because the many series of one container differ in nothing else), and then each series as numbers of these, with its
//! base value and when its counter began. Reading it never panics and allocates for nothing that is only claimed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::{Interner, Label, Labels, METRIC_NAME, Metadata, MetricKind, Series, Timestamp};

use super::input::{Damage, Input, put, put_text, unzigzag, zigzag};
use super::model::slot_of;
use super::value::Base;

/// How many series one record defines at most; what the loss of both its copies would cost.
pub(in crate::buffer) const DEFINITIONS_PER_RECORD: usize = 4096;
/// What the payload of a definition record begins with: definitions that need nothing outside the record.
pub(super) const WHOLE: u32 = 0;
/// Definitions that are earlier ones of the segment but for the base and the start, because a counter began anew. A higher
/// number is that of a frame.
pub(super) const AGAIN: u32 = 1;
/// Series in one segment, and samples in one snapshot.
pub(in crate::buffer) const SERIES_MAX: usize = 1 << 20;

/// What a segment knows of a series.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub(super) series: Arc<Series>,
    pub(super) base: Base,
    /// Its metric's place in a model.
    pub(super) slot: u8,
    /// When its counter began; a counter that begins anew is defined anew.
    pub(super) start: Option<Timestamp>,
}

/// The payload that defines `definitions` as the series numbered `first` and on.
pub(super) fn encode(first: u32, definitions: &[Definition]) -> Vec<u8> {
    let mut strings = Table::default();
    let mut families = Table::default();
    let mut sets = Table::default();
    // The smallest numbers, which take one byte, for what is named most often.
    for labels in definitions.iter().map(|definition| definition.series.labels()) {
        labels.get(METRIC_NAME).map(|name| strings.number(name));
    }
    for label in definitions.iter().flat_map(|definition| definition.series.labels()) {
        if &*label.name != METRIC_NAME {
            strings.number(&label.name);
        }
    }
    let mut series = Vec::new();
    for definition in definitions {
        let labels = definition.series.labels();
        put(&mut series, families.number(&**definition.series.metadata()));
        put(&mut series, labels.get(METRIC_NAME).map_or(0, |name| strings.number(name) + 1));
        let others: Vec<(u64, u64)> = labels
            .iter()
            .filter(|label| &*label.name != METRIC_NAME)
            .map(|label| (strings.number(&label.name), strings.number(&label.value)))
            .collect();
        put(&mut series, sets.number(others));
        definition.base.write(&mut series);
        put_start(&mut series, definition.start);
    }
    let mut words = Vec::new();
    for metadata in &families.list {
        words.push(metadata.kind as u8);
        for text in [&metadata.family, &metadata.help, &metadata.unit] {
            put(&mut words, strings.number(text));
        }
    }
    let mut out = Vec::new();
    put(&mut out, u64::from(WHOLE));
    put(&mut out, u64::from(first));
    put(&mut out, strings.list.len() as u64);
    strings.list.iter().for_each(|text| put_text(&mut out, text));
    put(&mut out, families.list.len() as u64);
    out.extend_from_slice(&words);
    put(&mut out, sets.list.len() as u64);
    for set in &sets.list {
        put(&mut out, set.len() as u64);
        for (name, value) in set {
            put(&mut out, *name);
            put(&mut out, *value);
        }
    }
    put(&mut out, definitions.len() as u64);
    out.extend_from_slice(&series);
    out
}

pub(super) fn put_start(out: &mut Vec<u8>, start: Option<Timestamp>) {
    put(out, u64::from(start.is_some()));
    if let Some(start) = start {
        put(out, zigzag(start.millis()));
    }
}

pub(super) fn read_start(input: &mut Input<'_>) -> Result<Option<Timestamp>, Damage> {
    match input.varint()? {
        0 => Ok(None),
        1 => Ok(Some(Timestamp::from_millis(unzigzag(input.varint()?)))),
        _ => Err(Damage),
    }
}

/// The payload that defines the series numbered `first` and on as earlier ones that began anew: `again` has the earlier
/// number of each.
pub(super) fn encode_again(first: u32, again: &[(u32, Definition)]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, u64::from(AGAIN));
    put(&mut out, u64::from(first));
    put(&mut out, again.len() as u64);
    let (mut expected, mut before) = (0, 0);
    for (earlier, definition) in again {
        put(&mut out, zigzag(i64::from(*earlier) - expected));
        expected = i64::from(*earlier) + 1;
        definition.base.write(&mut out);
        let start = definition.start.map(Timestamp::millis);
        put(&mut out, u64::from(start.is_some()));
        if let Some(start) = start {
            // Counters of one container begin together.
            put(&mut out, zigzag(start.wrapping_sub(before)));
            before = start;
        }
    }
    out
}

/// Adds to `series` what a payload of [`encode_again`] says, after its leading number.
pub(super) fn read_again(mut input: Input<'_>, series: &mut Vec<Option<Definition>>) -> Result<(), Damage> {
    let first = input.count(SERIES_MAX)?;
    let many = input.count_of(4)?;
    if many > DEFINITIONS_PER_RECORD || first + many > SERIES_MAX {
        return Err(Damage);
    }
    let (mut expected, mut before) = (0_i64, 0_i64);
    for number in first..first + many {
        let earlier = expected.checked_add(unzigzag(input.varint()?)).ok_or(Damage)?;
        expected = earlier.checked_add(1).ok_or(Damage)?;
        let base = Base::read(&mut input)?;
        let start = match input.varint()? {
            0 => None,
            1 => {
                before = before.wrapping_add(unzigzag(input.varint()?));
                Some(Timestamp::from_millis(before))
            }
            _ => return Err(Damage),
        };
        let earlier = usize::try_from(earlier).ok().and_then(|earlier| series.get(earlier)?.clone()).ok_or(Damage)?;
        if series.len() <= number {
            series.resize(number + 1, None);
        }
        series[number].get_or_insert(Definition { base, start, ..earlier });
    }
    if input.0.is_empty() { Ok(()) } else { Err(Damage) }
}

/// Numbers for things in the order in which they are first seen.
struct Table<T> {
    list: Vec<T>,
    numbers: HashMap<T, u64>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { list: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Table<T> {
    fn number(&mut self, thing: T) -> u64 {
        *self.numbers.entry(thing).or_insert_with_key(|thing| {
            self.list.push(thing.clone());
            self.list.len() as u64 - 1
        })
    }
}

/// Calls `found` with the number and definition of every series in a payload, after its leading 0.
///
/// # Errors
/// [`Damage`]; what stands before the damaged place was found.
pub(super) fn read(
    mut input: Input<'_>,
    interner: &mut Interner,
    mut found: impl FnMut(usize, Definition),
) -> Result<(), Damage> {
    let first = input.count(SERIES_MAX)?;
    let strings = read_strings(&mut input)?;
    let families = read_families(&mut input, &strings)?;
    let sets = read_sets(&mut input, &strings)?;
    let many = input.count_of(5)?;
    if many > DEFINITIONS_PER_RECORD || first + many > SERIES_MAX {
        return Err(Damage);
    }
    for number in first..first + many {
        let metadata = families.get(input.count(usize::MAX)?).ok_or(Damage)?;
        let name = input.count(usize::MAX)?;
        let mut labels = sets.get(input.count(usize::MAX)?).ok_or(Damage)?.clone();
        if let Some(name) = name.checked_sub(1) {
            let place = labels.partition_point(|label| &*label.name < METRIC_NAME);
            let value = Arc::clone(strings.get(name).ok_or(Damage)?);
            labels.insert(place, Label { name: METRIC_NAME.into(), value });
        }
        let labels = Labels::from_sorted(labels).map_err(|_| Damage)?;
        let base = Base::read(&mut input)?;
        let start = read_start(&mut input)?;
        let slot = slot_of(labels.metric_name());
        found(number, Definition { series: shared(labels, metadata, interner), base, slot, start });
    }
    if input.0.is_empty() { Ok(()) } else { Err(Damage) }
}

fn read_strings(input: &mut Input<'_>) -> Result<Vec<Arc<str>>, Damage> {
    let many = input.count_of(1)?;
    (0..many).map(|_| Ok(Arc::from(input.text()?))).collect()
}

fn read_families(input: &mut Input<'_>, strings: &[Arc<str>]) -> Result<Vec<Arc<Metadata>>, Damage> {
    let many = input.count_of(4)?;
    (0..many)
        .map(|_| {
            let kind = MetricKind::from_number(input.byte()?);
            let mut word = || Ok(Cow::Owned(strings.get(input.count(usize::MAX)?).ok_or(Damage)?.to_string()));
            Ok(Arc::new(Metadata { family: word()?, kind, help: word()?, unit: word()? }))
        })
        .collect()
}

fn read_sets(input: &mut Input<'_>, strings: &[Arc<str>]) -> Result<Vec<Vec<Label>>, Damage> {
    let many = input.count_of(1)?;
    (0..many)
        .map(|_| {
            let labels = input.count_of(2)?;
            let mut text = || Ok(Arc::clone(strings.get(input.count(usize::MAX)?).ok_or(Damage)?));
            (0..labels).map(|_| Ok(Label { name: text()?, value: text()? })).collect()
        })
        .collect()
}

/// The interner's series, unless what is known of the family has changed since it was interned.
pub(super) fn shared(labels: Labels, metadata: &Arc<Metadata>, interner: &mut Interner) -> Arc<Series> {
    let known = interner.intern(labels, metadata);
    if known.metadata() == metadata {
        known
    } else {
        Arc::new(Series::new(known.labels().clone(), Arc::clone(metadata)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    #[test]
    fn names_come_before_values_so_that_their_numbers_take_one_byte() {
        let definition = |index: u32| {
            let labels =
                Labels::builder().with("__name__", format!("metric_{}", index % 2)).with("index", index.to_string());
            let metadata = Arc::new(Metadata::of("metric", MetricKind::Gauge, "help"));
            let series = Arc::new(Series::new(labels.build().unwrap(), metadata));
            Definition { series, base: Base::new(Value::new(1.0)), slot: 0, start: None }
        };
        let payload = encode(0, &(0..3).map(definition).collect::<Vec<_>>());
        let strings = read_strings(&mut Input(&payload[2..])).unwrap();
        let strings: Vec<&str> = strings.iter().map(|text| &**text).collect();
        assert_eq!(strings, ["metric_0", "metric_1", "index", "0", "1", "2", "metric", "help", ""]);
    }
}
