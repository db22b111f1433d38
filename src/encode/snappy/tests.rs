//! Whatever is packed comes back from a decoder that is not ours, and never needs more room than is promised.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::encode::{Compression, Encoder, Format, Message, Part};
use crate::model::{Labels, Metadata, MetricKind, Sample, Series, Timestamp, Value};

fn packed_by(snappy: &mut Snappy, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    snappy.pack(message, &mut out).unwrap();
    out
}

fn packed(message: &[u8]) -> Vec<u8> {
    packed_by(&mut Snappy::new(), message)
}

fn unpacked(block: &[u8]) -> Vec<u8> {
    snap::raw::Decoder::new().decompress_vec(block).unwrap()
}

fn snaps_len(message: &[u8]) -> usize {
    snap::raw::Encoder::new().compress_vec(message).unwrap().len()
}

/// Bytes without a pattern: Marsaglia's xorshift.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// What hostile or unlucky content may look like, each of `len` bytes.
fn kinds(len: usize) -> Vec<(&'static str, Vec<u8>)> {
    let noise = noise(len);
    let text = b"the quick brown fox jumps over the lazy dog and is not seen again; ";
    // Matches of just under what ends a search, each with a byte that fits nothing.
    let nearly = |period: usize| (0..len).map(|at| if at % period == 0 { noise[at] } else { 7 }).collect();
    // The same few bytes everywhere, so that every chain is long.
    let few = noise.iter().map(|byte| byte & 1).collect();
    vec![
        ("zeros", vec![0; len]),
        ("text", text.iter().copied().cycle().take(len).collect()),
        ("a period of 23", nearly(23)),
        ("a period of 5", nearly(5)),
        ("two values", few),
        ("noise twice", noise[..len / 2].iter().chain(&noise[..len - len / 2]).copied().collect()),
        ("noise", noise),
    ]
}

#[test]
fn elements_are_byte_for_byte_what_the_format_draws() {
    assert_eq!(packed(b""), [0]);
    assert_eq!(packed(b"ab"), [2, 1 << 2, b'a', b'b']);
    let block = packed(b"abcdefghijklabcdefgh!!!!!!!!!!!!!!!!!!!!");
    assert_eq!(block[..14], *b"\x28\x2cabcdefghijkl", "40 bytes, of which twelve are literals");
    assert_eq!(block[14..16], [(8 - 4) << 2 | 0b01, 12], "eight bytes from twelve before");
    assert_eq!(block[16..18], [0, b'!'], "a literal");
    assert_eq!(block[18..], [(19 - 1) << 2 | 0b10, 1, 0], "nineteen bytes from one before, which overlap");
}

#[test]
fn literals_of_every_class_of_length_come_back() {
    let noise = noise(70_000);
    for (len, tag) in [
        (60, &[59 << 2][..]),
        (61, &[60 << 2, 60]),
        (256, &[60 << 2, 255]),
        (257, &[61 << 2, 0, 1]),
        (65_537, &[62 << 2]),
    ] {
        let block = packed(&noise[..len]);
        assert_eq!(unpacked(&block), noise[..len]);
        let mut preamble = Vec::new();
        write_len(&mut preamble, u32::try_from(len).unwrap());
        // Noise has the odd match of four bytes; the short ones have none.
        if len <= 257 {
            assert_eq!(block[preamble.len()..][..tag.len()], *tag, "{len}");
        }
    }
    let mut out = Vec::new();
    write_literal(&mut out, &noise[..65_537]);
    assert_eq!(out[..4], [62 << 2, 0, 0, 1]);
}

#[test]
fn every_length_around_the_end_of_a_segment_and_of_the_window_comes_back() {
    let mut snappy = Snappy::new();
    let around = |len: usize| len - 9..len + 9;
    let lens = (0..300).chain(around(SEGMENT_BYTES)).chain(around(1 << 16)).chain([131_071, 199_999, 200_000]);
    let kinds = kinds(200_000);
    for len in lens {
        for (what, message) in &kinds {
            let block = packed_by(&mut snappy, &message[..len]);
            assert!(block.len() <= max_packed_len(len), "{what}, {len}");
            assert!(unpacked(&block) == message[..len], "{what}, {len}");
        }
    }
}

#[test]
fn what_is_beyond_the_window_is_not_copied_and_what_is_just_within_is() {
    let noise = noise(70_000);
    for (distance, is_within) in [(65_535, true), (65_536, false)] {
        let mut message = noise[..distance].to_vec();
        message.extend_from_slice(&noise[..64]);
        let block = packed(&message);
        assert_eq!(unpacked(&block), message);
        let alone = packed(&noise[..distance]).len();
        assert_eq!(block.len() < alone + 10, is_within, "{distance}: {} after {alone}", block.len());
    }
}

#[test]
fn a_message_is_packed_the_same_whatever_was_packed_before() {
    let mut used = Snappy::new();
    for (what, message) in kinds(100_000) {
        assert!(packed_by(&mut used, &message) == packed(&message), "{what}");
        let shorter = &message[..3000];
        assert!(packed_by(&mut used, shorter) == packed(shorter), "{what}, a short one after a long one");
    }
}

#[test]
fn hostile_content_takes_no_more_bytes_than_it_has_to() {
    for (what, message) in kinds(1 << 17) {
        let (ours, snaps) = (packed(&message).len(), snaps_len(&message));
        assert!(ours <= max_packed_len(message.len()), "{what}");
        // The end of a segment costs a copy or two.
        assert!(ours <= snaps + 16 * 6, "{what}: {ours}, snap {snaps}");
    }
}

/// So many series at so many instants, three in ten of which have another value than at the instant before.
fn request(series: usize, instants: i64, message: Message) -> (usize, Vec<u8>) {
    let metadata = Arc::new(Metadata::of("container_starts_total", MetricKind::Counter, "How often it was started."));
    let series: Vec<Arc<Series>> = (0..series)
        .map(|number| {
            let labels = Labels::builder().with("__name__", format!("container_{}_total", number % 15));
            let labels = labels.with("instance", "edge-roof-3").with("name", format!("worker-{}", number / 15));
            Arc::new(Series::new(labels.build().unwrap(), Arc::clone(&metadata)))
        })
        .collect();
    let mut chances = noise(series.len() * usize::try_from(instants).unwrap()).into_iter();
    let mut values = vec![0_u32; series.len()];
    let rows: Vec<Vec<Sample>> = (0..instants)
        .map(|_| {
            let sample = |(number, series): (usize, &Arc<Series>)| {
                let chance = u32::from(chances.next().unwrap_or(0));
                values[number] += if chance < 77 { chance } else { 0 };
                Sample::new(Arc::clone(series), Value::new(f64::from(values[number])))
            };
            series.iter().enumerate().map(sample).collect()
        })
        .collect();
    let at = |tick: i64| Timestamp::from_millis(1_795_226_444_035 + 10_000 * tick);
    let parts: Vec<Part> = (0..instants).zip(&rows).map(|(tick, row)| Part::new(at(tick), row)).collect();
    let body = Encoder::new(Labels::empty(), None).encode(&parts, Format::new(message, Compression::Snappy));
    (body.bytes.len(), unpacked(&body.bytes))
}

#[test]
fn requests_take_fewer_bytes_than_snap_makes_of_them() {
    for message in [Message::V1, Message::V2] {
        for (series, instants) in [(1, 1), (30, 1), (2000, 1), (300, 6), (66, 30), (20, 100), (1, 2000)] {
            let (ours, message) = request(series, instants, message);
            let snaps = snaps_len(&message);
            assert!(ours <= snaps, "{series} series, {instants} instants: {ours}, snap {snaps}");
        }
    }
}

/// Bytes that repeat at some distances, with changes: what a message is like.
fn periodic() -> impl Strategy<Value = Vec<u8>> {
    let part = (proptest::collection::vec(any::<u8>(), 1..80), 1_usize..400, any::<u8>(), 1_usize..40);
    proptest::collection::vec(part, 1..12).prop_map(|parts| {
        let mut message: Vec<u8> = Vec::new();
        for (pattern, times, change, every) in parts {
            for turn in 0..times {
                let from = message.len();
                message.extend_from_slice(&pattern);
                if turn % every == 0 {
                    message[from + turn % pattern.len()] ^= change;
                }
            }
        }
        message.truncate(200_000);
        message
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_come_back(message in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let block = packed(&message);
        prop_assert!(block.len() <= max_packed_len(message.len()));
        prop_assert_eq!(unpacked(&block), message);
    }

    #[test]
    fn few_different_bytes_come_back(message in proptest::collection::vec(0_u8..3, 0..3000)) {
        prop_assert_eq!(unpacked(&packed(&message)), message);
    }

    #[test]
    fn what_repeats_comes_back_and_takes_no_more_than_snap_takes(message in periodic()) {
        let block = packed(&message);
        prop_assert!(unpacked(&block) == message);
        prop_assert!(block.len() <= snaps_len(&message) + message.len() / 100 + 16);
    }
}
