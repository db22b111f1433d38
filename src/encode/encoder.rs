//! One endpoint's encoder: samples of several instants become one request body, series by series.
//!
//! Invariants: a series' samples stand together and oldest first; a body is made of its parts and the format alone, so
//! the same parts give the same bytes after a restart; what is given is sent or counted under one reason. It allocates
//! for series it has not met and for requests, never for a sample.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::compress::Packer;
pub use super::dictionary::Relabel;
use super::dictionary::{Becomes, Dictionary, number};
use super::points::{Chain, Ends, Kind, Links};
use super::{Body, Compression, Format, Message, MetadataBody, Part, Tally, v1, v2};
use crate::model::{Exemplar, Labels, Metadata, Series, Timestamp};

/// How much of a message's memory is kept for the next one.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// How many places of series are kept for the next request.
const KEPT_PLACES_MAX: usize = 1 << 16;

/// Makes the bodies of one endpoint. See the module.
pub struct Encoder {
    dictionary: Dictionary,
    /// By identity: where it is in the request that is being made.
    marks: Vec<Mark>,
    /// Which request is being made; what is marked with another number is old.
    request: u32,
    /// The series of the request in the order in which they first appear.
    places: Vec<Place>,
    links: Links,
    symbols: v2::Symbols,
    message: Vec<u8>,
    entry: Vec<u8>,
    packer: Packer,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    request: u32,
    place: u32,
}

/// A series in a request.
#[derive(Clone, Copy, Debug)]
struct Place {
    identity: u32,
    /// The first of those that became it, whose metadata it gets.
    slot: u32,
    points: Ends,
    exemplars: Ends,
}

/// Why a series is not in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    RelabelledAway,
    Unsendable,
    CustomBuckets,
}

impl Encoder {
    /// An encoder that adds `external_labels` to every series that lacks them and then asks `relabel` what to make of it.
    pub fn new(external_labels: Labels, relabel: Option<Relabel>) -> Self {
        Self {
            dictionary: Dictionary::new(external_labels, relabel),
            marks: Vec::new(),
            request: 0,
            places: Vec::new(),
            links: Links::default(),
            symbols: v2::Symbols::default(),
            message: Vec::new(),
            entry: Vec::new(),
            packer: Packer::new(),
        }
    }

    /// The request that carries `parts`; several instants of a series share one `TimeSeries`.
    pub fn encode(&mut self, parts: &[Part<'_>], format: Format) -> Body {
        let parts = oldest_first(parts);
        let mut body = Body::empty();
        self.begin();
        self.collect(&parts, format, &mut body);
        self.write(&parts, format, &mut body);
        body.message_bytes = self.message.len();
        body.bytes = self.packer.pack(&self.message, format.compression);
        self.message.clear();
        self.message.shrink_to(KEPT_BYTES_MAX);
        self.entry.shrink_to(KEPT_BYTES_MAX);
        body
    }

    /// A number for what `series` is sent as, the same for all that are sent as one; `None` where relabelling drops it. It
    /// holds until the next request is made.
    pub fn identity(&mut self, series: &Arc<Series>) -> Option<u32> {
        let slot = self.dictionary.slot(series);
        match self.dictionary.at_slot(slot).becomes {
            Becomes::Identity(identity) => Some(identity),
            Becomes::Nothing => None,
        }
    }

    /// A request that carries types and help texts only, as Prometheus sends them with remote-write 1.0: apart from samples.
    ///
    /// 1.0 forbids some names; families that have one are left out and counted.
    pub fn metadata<'a>(
        &mut self,
        families: impl IntoIterator<Item = &'a Metadata>,
        compression: Compression,
    ) -> MetadataBody {
        let (message, entries, unsendable) = v1::metadata_message(families);
        MetadataBody { bytes: self.packer.pack(&message, compression), entries, unsendable }
    }

    fn begin(&mut self) {
        let wrapped = self.request == u32::MAX;
        if self.dictionary.sweep() || wrapped {
            self.marks = Vec::new();
            self.symbols = v2::Symbols::default();
            self.request = 0;
        }
        self.request += 1;
        self.places.clear();
        self.places.shrink_to(KEPT_PLACES_MAX);
        self.links.clear();
    }

    /// Finds the series of everything and puts it into that series' chain, or counts why not.
    fn collect(&mut self, parts: &[Part<'_>], format: Format, body: &mut Body) {
        for (ordinal, part) in parts.iter().enumerate() {
            for (index, sample) in part.samples.iter().enumerate() {
                let added = self.add_point(&sample.series, Kind::Sample, (ordinal, index), part.at, format.message);
                body.count(added, |tally| &mut tally.samples);
            }
            if !format.native_histograms {
                body.unwanted.histograms += part.histograms.len();
                continue;
            }
            for (index, sample) in part.histograms.iter().enumerate() {
                let custom = sample.histogram.has_custom_buckets();
                let added = if custom && format.message == Message::V1 {
                    Added::Left(Left::CustomBuckets)
                } else {
                    self.add_point(&sample.series, Kind::Histogram, (ordinal, index), part.at, format.message)
                };
                body.count(added, |tally| &mut tally.histograms);
            }
        }
        // Last, because only now is known which series the request has.
        for (ordinal, part) in parts.iter().enumerate() {
            if !format.exemplars {
                body.unwanted.exemplars += part.exemplars.len();
                continue;
            }
            for (index, exemplar) in part.exemplars.iter().enumerate() {
                let added = self.add_exemplar(exemplar, (ordinal, index), format.message);
                body.count(added, |tally| &mut tally.exemplars);
            }
        }
        body.series = self.places.len();
    }

    fn add_point(
        &mut self,
        series: &Arc<Series>,
        kind: Kind,
        from: (usize, usize),
        at: Timestamp,
        message: Message,
    ) -> Added {
        let place = match self.find(series, message) {
            Ok(Found { mark, .. }) if mark.request == self.request => &mut self.places[mark.place as usize],
            Ok(Found { slot, identity, .. }) => {
                self.marks[identity as usize] = Mark { request: self.request, place: number(self.places.len()) };
                self.places.push(Place { identity, slot, points: Ends::EMPTY, exemplars: Ends::EMPTY });
                let last = self.places.len() - 1;
                &mut self.places[last]
            }
            Err(left) => return Added::Left(left),
        };
        if place.points.last_at() == Some(at) {
            return Added::Duplicate;
        }
        self.links.append(&mut place.points, kind, from, at);
        Added::Sent
    }

    fn add_exemplar(&mut self, exemplar: &Exemplar, from: (usize, usize), message: Message) -> Added {
        let mark = match self.find(&exemplar.series, message) {
            Ok(found) => found.mark,
            Err(left) => return Added::Left(left),
        };
        if message == Message::V1 && !v1::is_exemplar_portable(&exemplar.labels) {
            return Added::Left(Left::Unsendable);
        }
        if mark.request != self.request {
            return Added::Unattached;
        }
        self.links.append(&mut self.places[mark.place as usize].exemplars, Kind::Exemplar, from, exemplar.at);
        Added::Sent
    }

    fn find(&mut self, series: &Arc<Series>, message: Message) -> Result<Found, Left> {
        let slot = self.dictionary.slot(series);
        let Becomes::Identity(identity) = self.dictionary.at_slot(slot).becomes else {
            return Err(Left::RelabelledAway);
        };
        let becomes = self.dictionary.identity(identity);
        let can_be_sent = match message {
            Message::V1 => becomes.is_portable,
            Message::V2 => becomes.is_named,
        };
        if !can_be_sent {
            return Err(Left::Unsendable);
        }
        let (identities, _, _) = self.dictionary.sizes();
        if self.marks.len() < identities {
            self.marks.resize(identities, Mark::default());
        }
        Ok(Found { slot, identity, mark: self.marks[identity as usize] })
    }

    /// Writes the message, a `TimeSeries` for each place; a series that is now a number and now a distribution gets
    /// several, because none may be both (remote-write 2.0, "Samples and Histogram Samples").
    fn write(&mut self, parts: &[Part<'_>], format: Format, body: &mut Body) {
        if format.message == Message::V2 {
            self.symbols.begin(self.request, &self.dictionary);
        }
        for place in &self.places {
            let mut points = Chain::new(&self.links, parts, &place.points);
            let mut exemplars = Chain::new(&self.links, parts, &place.exemplars);
            let mut entries = 0;
            while let Some(kind) = points.next_kind() {
                self.entry.clear();
                let identity = self.dictionary.identity(place.identity);
                match format.message {
                    Message::V1 => {
                        v1::write_entry(&mut self.entry, &self.dictionary, identity, points, exemplars);
                        v1::write_series(&mut self.message, &self.entry);
                    }
                    Message::V2 => {
                        let slot = self.dictionary.at_slot(place.slot);
                        let out = &mut self.entry;
                        self.symbols.write_entry(out, &self.dictionary, identity, slot, points, exemplars);
                        v2::write_series(&mut self.message, &self.entry);
                    }
                }
                points = points.after(kind);
                exemplars = exemplars.after(Kind::Exemplar);
                entries += 1;
            }
            body.series += entries - 1;
        }
        if format.message == Message::V2 {
            self.symbols.finish(&mut self.message);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Found {
    slot: u32,
    identity: u32,
    mark: Mark,
}

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Added {
    Sent,
    Duplicate,
    Unattached,
    Left(Left),
}

impl Body {
    fn empty() -> Self {
        Self {
            bytes: bytes::Bytes::new(),
            message_bytes: 0,
            series: 0,
            sent: Tally::default(),
            unsendable: Tally::default(),
            relabelled_away: Tally::default(),
            custom_buckets: 0,
            duplicates: Tally::default(),
            unwanted: Tally::default(),
            unattached: 0,
        }
    }

    fn count(&mut self, added: Added, of: impl Fn(&mut Tally) -> &mut usize) {
        *match added {
            Added::Sent => of(&mut self.sent),
            Added::Duplicate => of(&mut self.duplicates),
            Added::Left(Left::Unsendable) => of(&mut self.unsendable),
            Added::Left(Left::CustomBuckets) => &mut self.custom_buckets,
            Added::Left(Left::RelabelledAway) => of(&mut self.relabelled_away),
            Added::Unattached => &mut self.unattached,
        } += 1;
    }
}

/// The parts in order of time, which they should have been given in.
fn oldest_first<'p, 'a>(parts: &'p [Part<'a>]) -> Cow<'p, [Part<'a>]> {
    if parts.is_sorted_by_key(|part| part.at) {
        return Cow::Borrowed(parts);
    }
    let mut sorted = parts.to_vec();
    sorted.sort_by_key(|part| part.at);
    Cow::Owned(sorted)
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("requests", &self.request).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
