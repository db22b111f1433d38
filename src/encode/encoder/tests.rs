//! The encoder against the reader, which goes through generated code, and against bytes written down by hand.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::encode::{DecodeError, Decoded, UnpackError, compress, decode};
use crate::model::{
    BucketCounts, BucketSpan, HistogramParts, HistogramSample, MetricKind, NativeHistogram, Sample, Snapshot, Value,
};
use crate::proto;

const MESSAGE_BYTES_MAX: usize = 1 << 20;
const FORMATS: [(Message, Compression); 4] = [
    (Message::V1, Compression::Snappy),
    (Message::V1, Compression::Zstd),
    (Message::V2, Compression::Snappy),
    (Message::V2, Compression::Zstd),
];
const V1: Format =
    Format { message: Message::V1, compression: Compression::Snappy, exemplars: true, native_histograms: true };
const V2: Format = Format { message: Message::V2, ..V1 };

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().fold(Labels::builder(), |builder, (name, value)| builder.with(*name, *value)).build().unwrap()
}

fn series(pairs: &[(&str, &str)]) -> Arc<Series> {
    let mut metadata = Metadata::of("up", MetricKind::Counter, "is it up");
    metadata.unit = "s".into();
    Arc::new(Series::new(labels(pairs), Arc::new(metadata)))
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn snapshot(millis: i64, samples: &[(&Arc<Series>, f64)]) -> Snapshot {
    let samples = samples.iter().map(|(series, value)| Sample::new(Arc::clone(series), Value::new(*value)));
    Snapshot::new(at(millis), samples.collect())
}

fn encoder() -> Encoder {
    Encoder::new(Labels::empty(), None)
}

fn encode(encoder: &mut Encoder, snapshots: &[&Snapshot], format: Format) -> (Body, Decoded) {
    let parts: Vec<Part> = snapshots.iter().copied().map(Part::from).collect();
    let body = encoder.encode(&parts, format);
    let decoded = decode(&body.bytes, format.message, format.compression, MESSAGE_BYTES_MAX).unwrap();
    (body, decoded)
}

fn unpacked(body: &Body, format: Format) -> Vec<u8> {
    compress::unpack(&body.bytes, format.compression, MESSAGE_BYTES_MAX).unwrap()
}

fn points(pairs: &[(i64, f64)]) -> Vec<(Timestamp, Value)> {
    pairs.iter().map(|(millis, value)| (at(*millis), Value::new(*value))).collect()
}

fn histogram_parts() -> HistogramParts {
    HistogramParts {
        counts: BucketCounts::Integer {
            count: 10,
            zero_count: 0,
            positive_deltas: vec![2, 1, -2],
            negative_deltas: vec![4],
        },
        positive_spans: vec![BucketSpan { offset: -2, length: 2 }, BucketSpan { offset: 3, length: 1 }],
        negative_spans: vec![BucketSpan { offset: 0, length: 1 }],
        zero_threshold: Value::new(0.001),
        ..HistogramParts::integer(-4, 10, 18.4)
    }
}

fn float_histogram() -> NativeHistogram {
    let mut parts = HistogramParts::float(8, 0.3, f64::NAN);
    parts.positive_spans = vec![BucketSpan { offset: 7, length: 2 }];
    parts.counts = BucketCounts::Float {
        count: Value::new(0.3),
        zero_count: Value::new(0.0),
        positive_counts: vec![Value::new(0.1), Value::new(-0.0)],
        negative_counts: Vec::new(),
    };
    parts.reset_hint = crate::model::ResetHint::Gauge;
    NativeHistogram::new(parts).unwrap()
}

fn custom_histogram() -> NativeHistogram {
    let mut parts = HistogramParts::integer(crate::model::CUSTOM_BUCKETS_SCHEMA, 1, 0.5);
    parts.positive_spans = vec![BucketSpan { offset: 1, length: 1 }];
    parts.custom_values = vec![Value::new(0.1), Value::new(1.0)];
    parts.counts =
        BucketCounts::Integer { count: 1, zero_count: 0, positive_deltas: vec![1], negative_deltas: Vec::new() };
    NativeHistogram::new(parts).unwrap()
}

fn histogram(series: &Arc<Series>, histogram: NativeHistogram) -> HistogramSample {
    HistogramSample { series: Arc::clone(series), histogram: Arc::new(histogram), start: Some(at(3)) }
}

fn exemplar(series: &Arc<Series>, trace: &str) -> Exemplar {
    Exemplar { series: Arc::clone(series), labels: labels(&[("trace_id", trace)]), value: Value::new(0.25), at: at(4) }
}

/// Everything there is, in one snapshot.
fn rich() -> Snapshot {
    let (up, latency) = (series(&[("__name__", "up"), ("job", "x")]), series(&[("__name__", "latency")]));
    let (rate, custom) = (series(&[("__name__", "rate")]), series(&[("__name__", "custom")]));
    let mut rich = snapshot(5, &[(&up, 1.5)]);
    rich.samples[0].start = Some(at(0));
    let integer = NativeHistogram::new(histogram_parts()).unwrap();
    rich.histograms =
        vec![histogram(&latency, integer), histogram(&rate, float_histogram()), histogram(&custom, custom_histogram())];
    rich.exemplars = vec![exemplar(&up, "x"), exemplar(&latency, "abc"), exemplar(&up, "abc")];
    rich
}

#[test]
fn a_version_2_body_is_byte_for_byte_what_the_specification_draws() {
    let up = series(&[("__name__", "up"), ("a", "up")]);
    let mut sent = snapshot(0, &[]);
    sent.at = at(1);
    sent.samples = vec![Sample::new(Arc::clone(&up), Value::STALE).started(at(0))];
    sent.exemplars = vec![exemplar(&up, "a")];
    let (body, _) = encode(&mut encoder(), &[&sent], V2);
    let golden: &[&[u8]] = &[
        &[0x22, 0],                                                 // Request.symbols: the empty one
        &[0x22, 8, b'_', b'_', b'n', b'a', b'm', b'e', b'_', b'_'], // 1
        &[0x22, 2, b'u', b'p'],                                     // 2
        &[0x22, 1, b'a'],                                           // 3
        &[0x22, 8, b't', b'r', b'a', b'c', b'e', b'_', b'i', b'd'], // 4
        &[0x22, 8, b'i', b's', b' ', b'i', b't', b' ', b'u', b'p'], // 5
        &[0x22, 1, b's'],                                           // 6
        &[0x2a, 46],                                                // Request.timeseries
        &[0x0a, 4, 1, 2, 3, 2],                                     // TimeSeries.labels_refs, packed
        &[0x12, 13],                                                // TimeSeries.samples
        &[0x09, 0x02, 0, 0, 0, 0, 0, 0xf0, 0x7f],                   // Sample.value: the stale marker's bits
        &[0x10, 1],                                                 // Sample.timestamp
        &[0x18, 1],                                                 // Sample.start_timestamp: the epoch itself
        &[0x22, 15],                                                // TimeSeries.exemplars
        &[0x0a, 2, 4, 3],                                           // Exemplar.labels_refs
        &[0x11, 0, 0, 0, 0, 0, 0, 0xd0, 0x3f],                      // Exemplar.value: 0.25
        &[0x18, 4],                                                 // Exemplar.timestamp
        &[0x2a, 6, 0x08, 1, 0x18, 5, 0x20, 6],                      // TimeSeries.metadata: counter, help_ref, unit_ref
    ];
    assert_eq!(unpacked(&body, V2), golden.concat());
    assert_eq!(body.message_bytes, golden.concat().len());
}

#[test]
fn our_writer_and_prost_write_the_same_bytes() {
    let rich = rich();
    let (body, _) = encode(&mut encoder(), &[&rich], V1);
    let message = unpacked(&body, V1);
    assert_eq!(proto::WriteRequest::decode(message.as_slice()).unwrap().encode_to_vec(), message);

    let (body, _) = encode(&mut encoder(), &[&rich], V2);
    let message = unpacked(&body, V2);
    assert_eq!(proto::v2::Request::decode(message.as_slice()).unwrap().encode_to_vec(), message);
}

#[test]
fn what_a_snapshot_carries_arrives_in_version_2() {
    let rich = rich();
    let (body, decoded) = encode(&mut encoder(), &[&rich], V2);
    assert_eq!(body.sent, Tally { samples: 1, histograms: 3, exemplars: 3 });
    assert_eq!((body.sent, body.series), (decoded.tally(), 4));
    let up = &decoded.series[0];
    assert_eq!((&up.samples, &up.starts), (&points(&[(5, 1.5)]), &vec![Some(at(1))]));
    assert_eq!(up.metadata.as_ref().unwrap().help, "is it up");
    for (sent, got) in rich.histograms.iter().zip(&decoded.series[1..]) {
        assert_eq!(&got.histograms[0].histogram, &*sent.histogram);
        assert_eq!((got.histograms[0].at, got.histograms[0].start), (at(5), Some(at(3))));
    }
    let of_up: Vec<&Labels> = up.exemplars.iter().map(|exemplar| &exemplar.labels).collect();
    assert_eq!(of_up, [&rich.exemplars[0].labels, &rich.exemplars[2].labels]);
}

#[test]
fn version_1_carries_all_but_starts_and_custom_buckets() {
    let rich = rich();
    let (body, decoded) = encode(&mut encoder(), &[&rich], V1);
    assert_eq!(body.sent, Tally { samples: 1, histograms: 2, exemplars: 3 });
    assert_eq!((body.custom_buckets, body.unsendable), (1, Tally::default()));
    assert_eq!((decoded.tally(), decoded.series.len()), (body.sent, 3));
    assert!(decoded.series[0].starts.is_empty());
    assert_eq!(&decoded.series[1].histograms[0].histogram, &*rich.histograms[0].histogram);
    assert_eq!(decoded.series[1].exemplars.len(), 1);
}

#[test]
fn histograms_and_exemplars_go_only_where_they_are_wanted() {
    for (message, compression) in FORMATS {
        let (body, decoded) = encode(&mut encoder(), &[&rich()], Format::new(message, compression));
        assert_eq!(decoded.tally(), Tally { samples: 1, ..Tally::default() });
        assert_eq!(body.unwanted, Tally { samples: 0, histograms: 3, exemplars: 3 });
    }
}

#[test]
fn an_exemplar_whose_series_is_not_in_the_request_stays_behind() {
    let (up, down) = (series(&[("__name__", "up")]), series(&[("__name__", "down")]));
    let mut sent = snapshot(5, &[(&up, 1.0)]);
    sent.exemplars = vec![exemplar(&down, "x"), exemplar(&up, "y")];
    for format in [V1, V2] {
        let (body, decoded) = encode(&mut encoder(), &[&sent], format);
        assert_eq!((body.sent.exemplars, body.unattached, decoded.series.len()), (1, 1, 1));
    }
}

#[test]
fn several_instants_of_a_series_become_one_entry_oldest_first() {
    let (a, b, same_as_a) = (series(&[("__name__", "a")]), series(&[("__name__", "b")]), series(&[("__name__", "a")]));
    let first = snapshot(1, &[(&a, 1.0)]);
    let second = snapshot(2, &[(&b, 2.0), (&same_as_a, 3.0)]);
    let third = snapshot(3, &[(&b, 4.0), (&a, 5.0)]);
    for format in [V1, V2] {
        let (body, decoded) = encode(&mut encoder(), &[&third, &first, &second], format);
        assert_eq!((body.sent.samples, body.series, decoded.series.len()), (5, 2, 2));
        assert_eq!(decoded.series[0].samples, points(&[(1, 1.0), (2, 3.0), (3, 5.0)]));
        assert_eq!(decoded.series[1].samples, points(&[(2, 2.0), (3, 4.0)]));
    }
}

#[test]
fn a_series_that_is_now_a_number_and_now_a_distribution_never_is_both_in_one_entry() {
    let up = series(&[("__name__", "up")]);
    let mut distribution = snapshot(2, &[]);
    distribution.histograms = vec![histogram(&up, float_histogram())];
    let (first, last) = (snapshot(1, &[(&up, 1.0)]), snapshot(3, &[(&up, 3.0)]));
    for format in [V1, V2] {
        let (body, decoded) = encode(&mut encoder(), &[&first, &distribution, &last], format);
        let kinds: Vec<_> = decoded.series.iter().map(|one| (one.samples.len(), one.histograms.len())).collect();
        assert_eq!(kinds, [(1, 0), (0, 1), (1, 0)]);
        assert_eq!(body.series, 3);
    }
}

#[test]
fn relabelling_is_asked_once_for_a_series() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let relabel: Relabel = Box::new(|labels| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        assert_eq!(labels.get("site"), Some("roof"), "external labels are there before");
        (labels.get("job") != Some("noise")).then(|| labels.clone())
    });
    let mut encoder = Encoder::new(labels(&[("site", "roof")]), Some(relabel));
    let (up, noise) = (series(&[("__name__", "up")]), series(&[("__name__", "up"), ("job", "noise")]));
    for millis in 0..10 {
        let format = if millis % 2 == 0 { V1 } else { V2 };
        let (body, decoded) = encode(&mut encoder, &[&snapshot(millis, &[(&noise, 0.0), (&up, 1.0)])], format);
        assert_eq!((body.relabelled_away.samples, body.sent.samples), (1, 1));
        assert_eq!(decoded.series[0].labels, labels(&[("__name__", "up"), ("site", "roof")]));
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), 2);
}

#[test]
fn series_that_relabelling_makes_one_are_joined_in_time_and_the_first_of_an_instant_is_kept() {
    let relabel = || -> Option<Relabel> { Some(Box::new(|_| Some(labels(&[("__name__", "one")])))) };
    let (a, b) = (series(&[("__name__", "a")]), series(&[("__name__", "b")]));
    let first = snapshot(1, &[(&a, 1.0)]);
    let second = snapshot(2, &[(&b, 2.0), (&a, 9.0)]);
    let third = snapshot(3, &[(&a, 3.0)]);
    for format in [V1, V2] {
        let mut encoder = Encoder::new(Labels::empty(), relabel());
        let (body, decoded) = encode(&mut encoder, &[&first, &second, &third], format);
        assert_eq!((body.sent.samples, body.duplicates.samples, body.series), (3, 1, 1));
        assert_eq!(decoded.series[0].samples, points(&[(1, 1.0), (2, 2.0), (3, 3.0)]));
    }
}

#[test]
fn names_that_only_version_2_allows_go_only_there_and_a_name_there_must_be() {
    let (dotted, nameless) = (series(&[("__name__", "a.b"), ("ü", "x")]), series(&[("job", "x")]));
    let sent = snapshot(1, &[(&dotted, 1.0), (&nameless, 1.0)]);
    let (body, _) = encode(&mut encoder(), &[&sent], V1);
    assert_eq!((body.sent.samples, body.unsendable.samples), (0, 2));
    let (body, decoded) = encode(&mut encoder(), &[&sent], V2);
    assert_eq!((body.sent.samples, body.unsendable.samples), (1, 1));
    assert_eq!(decoded.series[0].labels, *dotted.labels());
}

#[test]
fn a_body_does_not_depend_on_what_was_encoded_before() {
    let old = snapshot(1, &[(&series(&[("__name__", "x"), ("trace_id", "old")]), 1.0)]);
    let rich = rich();
    for format in [V1, V2] {
        let (fresh, _) = encode(&mut encoder(), &[&rich], format);
        let mut used = encoder();
        encode(&mut used, &[&old], V2);
        encode(&mut used, &[&old, &rich], V2);
        assert_eq!(encode(&mut used, &[&rich], format).0, fresh);
    }
}

#[test]
fn series_that_ended_are_forgotten() {
    let mut encoder = encoder();
    let living = series(&[("__name__", "living")]);
    for round in 0..20_000 {
        let passing = series(&[("__name__", "passing"), ("round", &round.to_string())]);
        encoder.encode(&[Part::from(&snapshot(round, &[(&living, 1.0), (&passing, 2.0)]))], V2);
    }
    let (identities, pairs, symbols) = encoder.dictionary.sizes();
    assert!(identities.max(pairs).max(symbols) < 2500, "{identities} {pairs} {symbols}");
    let (_, decoded) = encode(&mut encoder, &[&snapshot(1, &[(&living, 1.0)])], V2);
    assert_eq!(decoded.series[0].labels, *living.labels());
}

/// A message of version 2.0 with one series, changed.
fn hostile(change: impl FnOnce(&mut proto::v2::Request)) -> DecodeError {
    let sample = proto::v2::Sample { value: 1, timestamp: 2, start_timestamp: 3 };
    let series = proto::v2::TimeSeries { labels_refs: vec![1, 2], samples: vec![sample], ..Default::default() };
    let mut request =
        proto::v2::Request { symbols: ["", "__name__", "up"].map(str::to_owned).to_vec(), timeseries: vec![series] };
    let read = |request: &proto::v2::Request| {
        let body = Packer::new().pack(&request.encode_to_vec(), Compression::Snappy);
        decode(&body, Message::V2, Compression::Snappy, 16 << 20)
    };
    read(&request).unwrap();
    change(&mut request);
    read(&request).unwrap_err()
}

#[test]
fn a_version_2_message_against_the_rules_is_refused() {
    let refs = |refs: &'static [u32]| hostile(|request| request.timeseries[0].labels_refs = refs.to_vec());
    assert!(matches!(refs(&[1, 2, 1]), DecodeError::OddReferences));
    assert!(matches!(refs(&[1, 3]), DecodeError::Reference { reference: 3, symbols: 3 }));
    assert!(matches!(refs(&[1, 2, 1, 2]), DecodeError::Labels(_)), "twice the same name");
    assert!(matches!(refs(&[1, 0]), DecodeError::Labels(_)), "an empty value");
    assert!(matches!(refs(&[]), DecodeError::Unlabelled));
    let symbols = hostile(|request| request.symbols[0] = "x".to_owned());
    assert!(matches!(symbols, DecodeError::Symbols));
    let again = hostile(|request| {
        let first = request.timeseries[0].samples[0];
        request.timeseries[0].samples.push(first);
    });
    assert!(matches!(again, DecodeError::Order), "the same instant twice");
    let many = hostile(|request| request.symbols.resize(2_000_001, String::new()));
    assert!(matches!(many, DecodeError::TooMany { max: 2_000_000 }) && many.is_too_large());
    let many = hostile(|request| request.timeseries[0].labels_refs = vec![1; 2_000_000]);
    assert!(matches!(many, DecodeError::TooMany { .. }));
    let help = proto::v2::Metadata { r#type: 1, help_ref: 9, unit_ref: 0 };
    let help = hostile(|request| request.timeseries[0].metadata = Some(help));
    assert!(matches!(help, DecodeError::Reference { reference: 9, .. }));
    let empty = hostile(|request| request.timeseries[0].samples.clear());
    assert!(matches!(empty, DecodeError::SamplesOrHistograms));
    let both = hostile(|request| request.timeseries[0].histograms.push(proto::v2::Histogram::default()));
    assert!(matches!(both, DecodeError::SamplesOrHistograms));
    let uncounted = hostile(|request| {
        request.timeseries[0].samples.clear();
        request.timeseries[0].histograms.push(proto::v2::Histogram::default());
    });
    assert!(matches!(uncounted, DecodeError::HistogramCount));
}

#[test]
fn a_frame_that_unpacks_to_more_than_is_allowed_is_refused() {
    let bomb = Packer::new().pack(&vec![0; 64 << 20], Compression::Zstd);
    assert!(bomb.len() < 1 << 20);
    let error = decode(&bomb, Message::V2, Compression::Zstd, MESSAGE_BYTES_MAX).unwrap_err();
    assert!(matches!(error, DecodeError::Unpack(UnpackError::TooLarge { .. })));
}

#[test]
fn a_captured_body_says_itself_what_it_is() {
    for (message, compression) in FORMATS {
        let (body, decoded) = encode(&mut encoder(), &[&rich()], Format { message, compression, ..V1 });
        let guessed = crate::encode::decode_unknown(&body.bytes, None, MESSAGE_BYTES_MAX).unwrap();
        assert_eq!(guessed, (message, compression, decoded));
    }
}

proptest! {
    #[test]
    fn decoding_never_panics(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        for (message, compression) in FORMATS {
            drop(decode(&body, message, compression, MESSAGE_BYTES_MAX));
            drop(decode(&Packer::new().pack(&body, compression), message, compression, MESSAGE_BYTES_MAX));
        }
    }

    #[test]
    fn decoding_a_damaged_body_never_panics(place in any::<usize>(), flip in 1u8..) {
        for format in [V1, V2] {
            let (body, _) = encode(&mut encoder(), &[&rich()], format);
            let mut raw = unpacked(&body, format);
            let place = place % raw.len();
            raw[place] ^= flip;
            let packed = Packer::new().pack(&raw, format.compression);
            drop(decode(&packed, format.message, format.compression, MESSAGE_BYTES_MAX));
        }
    }

    #[test]
    fn what_was_encoded_is_decoded_bit_for_bit(
        snapshots in proptest::collection::vec(
            proptest::collection::btree_map(0usize..6, (any::<u64>(), proptest::option::of(1i64..)), 0..6),
            1..5,
        ),
        shared in any::<bool>(),
    ) {
        let make = |number: usize| series(&[("__name__", &format!("m{number}")), ("text", "é")]);
        let all: Vec<Arc<Series>> = (0..6).map(make).collect();
        // Equal series need not be the same object.
        let of = |number: usize| if shared { Arc::clone(&all[number]) } else { make(number) };
        let sent: Vec<Snapshot> = (1i64..).zip(&snapshots).map(|(millis, samples)| {
            let samples = samples.iter().map(|(number, (bits, start))| Sample {
                series: of(*number), value: Value::from_bits(*bits), start: start.map(at),
            });
            Snapshot::new(at(millis), samples.collect())
        }).collect();
        let sent: Vec<&Snapshot> = sent.iter().collect();
        let mut encoder = encoder();
        for (message, compression) in FORMATS {
            let (body, decoded) = encode(&mut encoder, &sent, Format::new(message, compression));
            prop_assert_eq!(body.sent, decoded.tally());
            let mut got = Vec::new();
            for one in &decoded.series {
                for (ordinal, (at, value)) in one.samples.iter().enumerate() {
                    let start = one.starts.get(ordinal).copied().flatten();
                    got.push((*at, one.labels.clone(), *value, start));
                }
                prop_assert!(one.samples.is_sorted_by_key(|(at, _)| *at));
            }
            let mut expected: Vec<_> = sent.iter().flat_map(|snapshot| snapshot.samples.iter().map(|sample| {
                let start = sample.start.filter(|_| message == Message::V2);
                (snapshot.at, sample.series.labels().clone(), sample.value, start)
            })).collect();
            let key = |one: &(Timestamp, Labels, Value, Option<Timestamp>)| (one.0, one.1.clone());
            got.sort_by_key(key);
            expected.sort_by_key(key);
            prop_assert_eq!(got, expected);
        }
    }
}
