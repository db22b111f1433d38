//! Remote-write 2.0 messages: `io.prometheus.write.v2.Request` of 2.0-rc.4.
//!
//! Invariants: the first symbol is empty, each stands in the table once and is referred to; every series has samples or
//! histograms, not both, oldest first, and its metadata with it; values are the bits they were taken with.
//!
//! As with 1.0, the writer lays out the message itself and the reader goes through the generated structs.

use std::collections::HashMap;
use std::sync::Arc;

use prost::encoding::encode_varint;

use super::dictionary::{Dictionary, Identity, Slot};
use super::histogram;
use super::points::{Chain, Kind, Point};
use super::wire::{
    delimited_len, fixed64_len, int64, varint_len, write_delimited, write_fixed64, write_text, write_varint,
};
use crate::model::{Exemplar, Timestamp, Value};

/// The field numbers of `proto/remote_write_v2.proto`.
mod field {
    pub(super) const SYMBOLS: u32 = 4;
    pub(super) const TIMESERIES: u32 = 5;
    pub(super) const LABELS_REFS: u32 = 1;
    pub(super) const SAMPLES: u32 = 2;
    pub(super) const HISTOGRAMS: u32 = 3;
    pub(super) const EXEMPLARS: u32 = 4;
    pub(super) const METADATA: u32 = 5;
    pub(super) const SAMPLE_VALUE: u32 = 1;
    pub(super) const SAMPLE_TIMESTAMP: u32 = 2;
    pub(super) const START_TIMESTAMP: u32 = 3;
    pub(super) const EXEMPLAR_VALUE: u32 = 2;
    pub(super) const EXEMPLAR_TIMESTAMP: u32 = 3;
    pub(super) const METADATA_TYPE: u32 = 1;
    pub(super) const HELP_REF: u32 = 3;
    pub(super) const UNIT_REF: u32 = 4;
}

/// Two references of up to five bytes each.
const PAIR_BYTES_MAX: usize = 10;
/// How much memory of each kind is kept for the next request.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// The symbols of the request that is being made, in the order in which they are first needed.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    request: u32,
    /// By number in the dictionary.
    references: Vec<Reference>,
    /// By number in the dictionary.
    pairs: Vec<PairReference>,
    /// Symbols that only this request has: exemplars refer to what never comes again.
    once: HashMap<Arc<str>, u32>,
    count: u32,
    /// The table as fields of the message.
    table: Vec<u8>,
    scratch: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Reference {
    request: u32,
    number: u32,
}

/// The references of a label's name and value as they stand in `labels_refs`.
#[derive(Clone, Copy, Debug, Default)]
struct PairReference {
    request: u32,
    len: usize,
    bytes: [u8; PAIR_BYTES_MAX],
}

impl Symbols {
    /// Forgets the request before. Numbers of `dictionary` that are marked with another request are not in this one.
    pub(super) fn begin(&mut self, request: u32, dictionary: &Dictionary) {
        self.request = request;
        let (_, pairs, symbols) = dictionary.sizes();
        self.pairs.resize(pairs, PairReference::default());
        self.references.resize(symbols, Reference::default());
        self.once = HashMap::new();
        self.table.clear();
        self.table.shrink_to(KEPT_BYTES_MAX);
        self.scratch.shrink_to(KEPT_BYTES_MAX);
        write_text(&mut self.table, field::SYMBOLS, "");
        self.count = 1;
    }

    /// The fields of one `TimeSeries`, with the points of one kind at the beginning of `points`.
    pub(super) fn write_entry(
        &mut self,
        out: &mut Vec<u8>,
        dictionary: &Dictionary,
        identity: &Identity,
        slot: &Slot,
        points: Chain,
        exemplars: Chain,
    ) {
        self.write_labels(out, dictionary, identity);
        match points.next_kind() {
            Some(Kind::Sample) => points.samples().for_each(|point| write_sample(out, point)),
            Some(Kind::Histogram) => points.histograms().for_each(|point| {
                self.scratch.clear();
                histogram::write_fields(&mut self.scratch, point, point.start.map(wire_start));
                write_delimited(out, field::HISTOGRAMS, self.scratch.len());
                out.extend_from_slice(&self.scratch);
            }),
            Some(Kind::Exemplar) | None => {}
        }
        exemplars.exemplars().for_each(|exemplar| self.write_exemplar(out, dictionary, exemplar));
        self.write_metadata(out, dictionary, slot);
    }

    /// Puts the table in front of the series, where Prometheus puts it.
    pub(super) fn finish(&mut self, message: &mut Vec<u8>) {
        let table = self.table.len();
        let series = message.len();
        message.extend_from_slice(&self.table);
        message.copy_within(..series, table);
        message[..table].copy_from_slice(&self.table);
    }

    fn write_labels(&mut self, out: &mut Vec<u8>, dictionary: &Dictionary, identity: &Identity) {
        self.scratch.clear();
        for &pair in &*identity.pairs {
            let known = self.pairs[pair as usize];
            let known = if known.request == self.request { known } else { self.learn_pair(dictionary, pair) };
            self.scratch.extend_from_slice(&known.bytes[..known.len]);
        }
        write_delimited(out, field::LABELS_REFS, self.scratch.len());
        out.extend_from_slice(&self.scratch);
    }

    fn learn_pair(&mut self, dictionary: &Dictionary, pair: u32) -> PairReference {
        let label = dictionary.pair(pair);
        let mut learnt = PairReference { request: self.request, ..PairReference::default() };
        let mut room = learnt.bytes.as_mut_slice();
        encode_varint(u64::from(self.reference(dictionary, label.name)), &mut room);
        encode_varint(u64::from(self.reference(dictionary, label.value)), &mut room);
        let room = room.len();
        learnt.len = PAIR_BYTES_MAX - room;
        self.pairs[pair as usize] = learnt;
        learnt
    }

    /// The number of a symbol in this request.
    fn reference(&mut self, dictionary: &Dictionary, symbol: u32) -> u32 {
        let known = self.references[symbol as usize];
        if known.request == self.request {
            return known.number;
        }
        let number = self.add(dictionary.symbol(symbol));
        self.references[symbol as usize] = Reference { request: self.request, number };
        number
    }

    /// The same for a text that may be in no dictionary.
    fn reference_of(&mut self, dictionary: &Dictionary, text: &Arc<str>) -> u32 {
        if let Some(symbol) = dictionary.known_symbol(text) {
            return self.reference(dictionary, symbol);
        }
        if let Some(&number) = self.once.get(text) {
            return number;
        }
        let number = self.add(text);
        self.once.insert(Arc::clone(text), number);
        number
    }

    fn add(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let number = self.count;
        write_text(&mut self.table, field::SYMBOLS, text);
        self.count += 1;
        number
    }

    fn write_exemplar(&mut self, out: &mut Vec<u8>, dictionary: &Dictionary, exemplar: &Exemplar) {
        self.scratch.clear();
        for label in &exemplar.labels {
            for text in [&label.name, &label.value] {
                let reference = self.reference_of(dictionary, text);
                encode_varint(u64::from(reference), &mut self.scratch);
            }
        }
        let at = int64(exemplar.at);
        let refs = if self.scratch.is_empty() { 0 } else { delimited_len(field::LABELS_REFS, self.scratch.len()) };
        let len = refs + fixed64_len(field::EXEMPLAR_VALUE, exemplar.value) + varint_len(field::EXEMPLAR_TIMESTAMP, at);
        write_delimited(out, field::EXEMPLARS, len);
        if !self.scratch.is_empty() {
            write_delimited(out, field::LABELS_REFS, self.scratch.len());
            out.extend_from_slice(&self.scratch);
        }
        write_fixed64(out, field::EXEMPLAR_VALUE, exemplar.value);
        write_varint(out, field::EXEMPLAR_TIMESTAMP, at);
    }

    fn write_metadata(&mut self, out: &mut Vec<u8>, dictionary: &Dictionary, slot: &Slot) {
        let kind = u64::from(slot.kind);
        let help = u64::from(self.reference(dictionary, slot.help));
        let unit = u64::from(self.reference(dictionary, slot.unit));
        let fields = [(field::METADATA_TYPE, kind), (field::HELP_REF, help), (field::UNIT_REF, unit)];
        write_delimited(out, field::METADATA, fields.iter().map(|(field, value)| varint_len(*field, *value)).sum());
        for (field, value) in fields {
            write_varint(out, field, value);
        }
    }
}

fn write_sample(out: &mut Vec<u8>, point: Point<Value>) {
    let (at, start) = (int64(point.at), point.start.map_or(0, wire_start));
    let len = fixed64_len(field::SAMPLE_VALUE, point.what)
        + varint_len(field::SAMPLE_TIMESTAMP, at)
        + varint_len(field::START_TIMESTAMP, start);
    write_delimited(out, field::SAMPLES, len);
    write_fixed64(out, field::SAMPLE_VALUE, point.what);
    write_varint(out, field::SAMPLE_TIMESTAMP, at);
    write_varint(out, field::START_TIMESTAMP, start);
}

/// Zero says that nobody knows, so a start at the epoch itself is written as one millisecond later (remote-write 2.0,
/// "Start Timestamp").
fn wire_start(start: Timestamp) -> u64 {
    match int64(start) {
        0 => 1,
        start => start,
    }
}

/// One `TimeSeries` whose fields are in `entry`.
pub(super) fn write_series(message: &mut Vec<u8>, entry: &[u8]) {
    write_delimited(message, field::TIMESERIES, entry.len());
    message.extend_from_slice(entry);
}
