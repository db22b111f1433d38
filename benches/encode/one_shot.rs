//! How 1.0 was written before there was an encoder: labels merged and written out for every series of every request.

use std::collections::HashMap;

use outhaul::encode::Part;
use outhaul::model::{Labels, Series, Timestamp, Value};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

type Joined<'a> = Vec<(&'a Series, Vec<(Timestamp, Value)>)>;

pub(crate) fn write(parts: &[Part], external: &Labels) -> Vec<u8> {
    let mut message = Vec::new();
    for (series, points) in join(parts) {
        let labels = series.labels().with_defaults(external);
        let label_len = |name: &str, value: &str| delimited_len(name.len()) + delimited_len(value.len());
        let all_labels: usize = labels.iter().map(|label| delimited_len(label_len(&label.name, &label.value))).sum();
        let points_len: usize = points.iter().map(|point| delimited_len(point_len(*point))).sum();
        write_delimited(&mut message, 1, all_labels + points_len);
        for label in &labels {
            write_delimited(&mut message, 1, label_len(&label.name, &label.value));
            for (field, text) in [(1, &label.name), (2, &label.value)] {
                write_delimited(&mut message, field, text.len());
                message.extend_from_slice(text.as_bytes());
            }
        }
        for (at, value) in points {
            write_delimited(&mut message, 2, point_len((at, value)));
            if value.bits() != 0 {
                encode_key(1, WireType::SixtyFourBit, &mut message);
                message.extend_from_slice(&value.bits().to_le_bytes());
            }
            encode_key(2, WireType::Varint, &mut message);
            encode_varint(at.millis().cast_unsigned(), &mut message);
        }
    }
    snap::raw::Encoder::new().compress_vec(&message).unwrap_or_default()
}

fn join<'a>(parts: &'a [Part]) -> Joined<'a> {
    let mut joined: Joined = Vec::new();
    let mut seen: HashMap<&Labels, usize> = HashMap::new();
    for (ordinal, part) in parts.iter().enumerate() {
        if ordinal == 1 {
            seen.extend(joined.iter().enumerate().map(|(at, (series, _))| (series.labels(), at)));
        }
        for sample in part.samples {
            let point = (part.at, sample.value);
            if let Some(&at) = seen.get(sample.series.labels()) {
                joined[at].1.push(point);
                continue;
            }
            if ordinal > 0 {
                seen.insert(sample.series.labels(), joined.len());
            }
            joined.push((&sample.series, vec![point]));
        }
    }
    joined
}

fn point_len((at, value): (Timestamp, Value)) -> usize {
    let value_len = if value.bits() == 0 { 0 } else { 9 };
    value_len + 1 + encoded_len_varint(at.millis().cast_unsigned())
}

fn delimited_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

fn write_delimited(message: &mut Vec<u8>, field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, message);
    encode_varint(len as u64, message);
}
