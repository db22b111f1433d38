//! The codec as a whole: what goes in comes out, whatever it is, and what is damaged is noticed.

use proptest::prelude::*;

use super::*;
use crate::model::{
    BucketCounts, BucketSpan, Exemplar, HistogramParts, HistogramSample, Labels, Metadata, MetricKind, NativeHistogram,
    Series, Value,
};

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
    definitions.decode(encoded.kind, snapshot.at, &encoded.snapshot).unwrap()
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
        prop_assert!(definitions.series.len() <= super::definitions::SERIES_MAX);
        let all = (0..4).map(|i| Sample::new(series(i), Value::new(1.0))).collect();
        let known = Dictionary::default().encode(&Snapshot::new(Timestamp::from_millis(0), all)).unwrap();
        let mut definitions = Definitions::default();
        definitions.read(&known.definitions[0], &mut Interner::default()).unwrap();
        if let Ok(snapshot) = definitions.decode(Kind::Snapshot, Timestamp::from_millis(0), &bytes) {
            prop_assert!(snapshot.samples.len() <= 4, "no series stands twice");
        }
    }

    #[test]
    fn a_flipped_bit_in_definitions_never_panics(bit in 0_usize..20_000) {
        let all: Vec<Sample> = (0..100).map(|i| Sample::new(series(i), Value::new(1.0))).collect();
        let snapshot = Snapshot::new(Timestamp::from_millis(0), all);
        let mut encoded = Dictionary::default().encode(&snapshot).unwrap();
        let payload = &mut encoded.definitions[0];
        let index = (bit / 8) % payload.len();
        payload[index] ^= 1 << (bit % 8);
        let mut definitions = Definitions::default();
        definitions.read(payload, &mut Interner::default()).ok();
        if let Ok(decoded) = definitions.decode(encoded.kind, snapshot.at, &encoded.snapshot) {
            prop_assert_eq!(decoded.samples.len(), 100);
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
    assert!(again.snapshot.len() < 12, "less than a bit each");
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
    assert_eq!(round_trip(&mut dictionary, &mut definitions, &of(3, 30.0)), of(3, 30.0), "the second was never read");
}

/// A run in which every value moves a little, so that frames come up.
fn moving(at: i64) -> Snapshot {
    #[allow(clippy::cast_precision_loss)]
    let value = |i: u32| Value::new((at * i64::from(i) * 37 % 1_000_003) as f64 / 8.0);
    let samples = (0..200).map(|i| Sample::new(series(i), value(i))).collect();
    Snapshot::new(Timestamp::from_millis(at), samples)
}

#[test]
fn frames_come_up_in_a_moving_run_and_every_snapshot_comes_back() {
    let (mut dictionary, mut definitions) = (Dictionary::default(), Definitions::default());
    let mut frames = 0;
    for at in 0..200 {
        let snapshot = moving(at);
        let encoded = dictionary.encode(&snapshot).unwrap();
        frames += encoded.definitions.iter().filter(|payload| payload[0] > 1).count();
        for payload in &encoded.definitions {
            definitions.read(payload, &mut Interner::default()).unwrap();
        }
        assert_eq!(definitions.decode(encoded.kind, snapshot.at, &encoded.snapshot), Ok(snapshot));
    }
    assert!((2..100).contains(&frames), "{frames} frames");
}

#[test]
fn snapshots_are_read_in_any_order_once_all_definitions_are_known() {
    let (mut dictionary, mut definitions) = (Dictionary::default(), Definitions::default());
    let mut written = Vec::new();
    for at in 0..100 {
        let encoded = dictionary.encode(&moving(at)).unwrap();
        for payload in encoded.definitions.iter().chain(&encoded.definitions) {
            definitions.read(payload, &mut Interner::default()).unwrap();
        }
        written.push((at, encoded.snapshot));
    }
    for (at, payload) in written.into_iter().rev() {
        assert_eq!(definitions.decode(Kind::Snapshot, Timestamp::from_millis(at), &payload), Ok(moving(at)));
    }
}

#[test]
fn without_its_frame_a_snapshot_is_damaged_and_those_of_other_frames_are_not() {
    let (mut dictionary, mut definitions) = (Dictionary::default(), Definitions::default());
    let (mut lost, mut read) = (0, 0);
    for at in 0..100 {
        let encoded = dictionary.encode(&moving(at)).unwrap();
        for payload in encoded.definitions.iter().filter(|payload| payload[0] != 2) {
            definitions.read(payload, &mut Interner::default()).unwrap();
        }
        let decoded = definitions.decode(encoded.kind, Timestamp::from_millis(at), &encoded.snapshot);
        assert_eq!(decoded.is_err(), encoded.snapshot[0] == 2);
        if decoded.is_ok() { read += 1 } else { lost += 1 }
    }
    assert!(lost > 0 && read > lost);
}

#[test]
fn a_frame_that_did_not_reach_the_file_is_made_again_under_another_number() {
    let (mut dictionary, mut definitions) = (Dictionary::default(), Definitions::default());
    let mut numbers = Vec::new();
    for at in 0..100 {
        let snapshot = moving(at);
        let mut encoded = dictionary.encode(&snapshot).unwrap();
        if encoded.definitions.iter().any(|payload| payload[0] > 1) && numbers.is_empty() {
            numbers.push(encoded.snapshot[0]);
            dictionary.forget_from(encoded.known_before);
            encoded = dictionary.encode(&snapshot).unwrap();
            numbers.push(encoded.snapshot[0]);
        }
        for payload in &encoded.definitions {
            definitions.read(payload, &mut Interner::default()).unwrap();
        }
        assert_eq!(definitions.decode(encoded.kind, snapshot.at, &encoded.snapshot), Ok(snapshot));
    }
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn a_series_that_is_not_in_a_snapshot_keeps_its_value_in_the_frame() {
    let (mut dictionary, mut definitions) = (Dictionary::default(), Definitions::default());
    for at in 0..100 {
        let mut snapshot = moving(at);
        if at % 3 != 0 {
            snapshot.samples.truncate(150);
        }
        assert_eq!(round_trip(&mut dictionary, &mut definitions, &snapshot), snapshot);
    }
}

fn any_histogram() -> impl Strategy<Value = NativeHistogram> {
    (any::<bool>(), prop::collection::vec((0_i32..5, 1_u32..4), 0..4), any::<u64>(), any::<u64>())
        .prop_map(|(whole, spans, sum, zero)| {
            let mut parts = if whole { HistogramParts::integer(3, 0, 0.0) } else { HistogramParts::float(3, 0.0, 0.0) };
            parts.sum = Value::from_bits(sum);
            let buckets: u32 = spans.iter().map(|(_, length)| length).sum();
            parts.positive_spans =
                spans.iter().map(|(offset, length)| BucketSpan { offset: *offset, length: *length }).collect();
            match &mut parts.counts {
                BucketCounts::Integer { count, positive_deltas, .. } => {
                    positive_deltas.extend((0..buckets).map(|index| i64::from(index == 0)));
                    *count = u64::from(buckets);
                }
                BucketCounts::Float { count, positive_counts, .. } => {
                    positive_counts.extend((0..buckets).map(|index| Value::new(f64::from(index))));
                    *count = Value::from_bits(zero & !(0x7ff << 52));
                }
            }
            parts
        })
        .prop_filter_map("the model takes it", |parts| NativeHistogram::new(parts).ok())
}

proptest! {
    #[test]
    fn histograms_and_exemplars_come_back_bit_for_bit(
        histograms in prop::collection::vec(any_histogram(), 0..4),
        exemplars in prop::collection::vec((any::<u64>(), any::<i64>()), 0..4),
        values in prop::collection::vec(any::<u64>(), 0..4),
    ) {
        let values = values.into_iter().zip(0..).map(|(bits, index)| Sample::new(series(index), Value::from_bits(bits)));
        let mut snapshot = Snapshot::new(Timestamp::from_millis(1), values.collect());
        snapshot.histograms = histograms.into_iter().zip(100..)
            .map(|(one, index)| HistogramSample { series: series(index), histogram: Arc::new(one), start: Some(Timestamp::from_millis(-7)) })
            .collect();
        snapshot.exemplars = exemplars.into_iter().zip(0..)
            .map(|((bits, at), index)| Exemplar {
                series: series(index),
                labels: Labels::builder().with("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736").build().unwrap(),
                value: Value::from_bits(bits),
                at: Timestamp::from_millis(at),
            })
            .collect();
        let back = round_trip(&mut Dictionary::default(), &mut Definitions::default(), &snapshot);
        prop_assert_eq!(back, snapshot);
    }

    #[test]
    fn random_bytes_are_never_taken_for_histograms_without_a_look(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut payload = vec![3, 0, 0, 0];
        payload.extend_from_slice(&bytes);
        Definitions::default().decode(Kind::RichSnapshot, Timestamp::from_millis(0), &payload).ok();
    }
}
