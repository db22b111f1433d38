//! From the data model to what travels: remote-write bodies and exposition text, and back for a receiver.
//!
//! Everything in here is pure: the same samples give the same bytes, also from an [`Encoder`] that has seen others
//! before. A label set that the format forbids is left out and counted in the result, never sent, because a receiver may
//! refuse the whole request for it. The only room that names `prost`, `snap` and `zstd`.

mod compress;
mod decode;
mod dictionary;
mod encoder;
mod histogram;
pub mod open_metrics;
mod points;
mod snappy;
pub mod text;
mod v1;
mod v2;
mod wire;

use bytes::Bytes;

pub use self::compress::{Compression, Packer, UnpackError, unpack};
pub use self::decode::{
    DecodeError, Decoded, DecodedExemplar, DecodedHistogram, DecodedSeries, decode, decode_unknown,
};
pub use self::encoder::{Encoder, Relabel};
use crate::model::{
    Exemplar, HistogramSample, Labels, METRIC_NAME, Sample, Snapshot, Timestamp, is_label_name, is_metric_name,
};

/// Some samples of one instant: a snapshot, or as much of it as one request may hold.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// When.
    pub at: Timestamp,
    /// What; no series twice.
    pub samples: &'a [Sample],
    /// What is a distribution; no series twice.
    pub histograms: &'a [HistogramSample],
    /// Examples. May be those of the whole snapshot where `samples` is a slice of it: only those go into a request whose
    /// series has a sample or histogram there, because a receiver refuses the others.
    pub exemplars: &'a [Exemplar],
}

impl<'a> Part<'a> {
    /// A part that is samples only.
    pub fn new(at: Timestamp, samples: &'a [Sample]) -> Self {
        Self { at, samples, histograms: &[], exemplars: &[] }
    }

    /// The same with distributions.
    #[must_use]
    pub fn with_histograms(self, histograms: &'a [HistogramSample]) -> Self {
        Self { histograms, ..self }
    }

    /// The same with examples.
    #[must_use]
    pub fn with_exemplars(self, exemplars: &'a [Exemplar]) -> Self {
        Self { exemplars, ..self }
    }

    /// How much of what it has.
    pub fn tally(&self) -> Tally {
        Tally { samples: self.samples.len(), histograms: self.histograms.len(), exemplars: self.exemplars.len() }
    }
}

impl<'a> From<&'a Snapshot> for Part<'a> {
    fn from(snapshot: &'a Snapshot) -> Self {
        Self::new(snapshot.at, &snapshot.samples)
            .with_histograms(&snapshot.histograms)
            .with_exemplars(&snapshot.exemplars)
    }
}

/// Which protobuf message a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// `prometheus.WriteRequest` of remote-write 1.0.
    V1,
    /// `io.prometheus.write.v2.Request` of remote-write 2.0.
    V2,
}

impl Message {
    /// The name in protobuf and in Prometheus' `protobuf_message`.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "prometheus.WriteRequest",
            Self::V2 => "io.prometheus.write.v2.Request",
        }
    }

    /// The message with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::V1, Self::V2].into_iter().find(|message| message.name() == name)
    }

    /// The request's `Content-Type` (remote-write 2.0, "Protocol"). No space: receivers do not trim the parameter's name.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V1 => "application/x-protobuf",
            Self::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// The request's `X-Prometheus-Remote-Write-Version`; 0.1.0 is how specification 1.0 calls itself.
    pub fn version(self) -> &'static str {
        match self {
            Self::V1 => "0.1.0",
            Self::V2 => "2.0.0",
        }
    }
}

/// How a body is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The message.
    pub message: Message,
    /// What it is packed with.
    pub compression: Compression,
    /// Whether exemplars go with it (Prometheus' `send_exemplars`).
    pub exemplars: bool,
    /// Whether native histograms go with it (Prometheus' `send_native_histograms`).
    pub native_histograms: bool,
}

impl Format {
    /// Without exemplars and native histograms, as Prometheus sends unless told otherwise.
    pub fn new(message: Message, compression: Compression) -> Self {
        Self { message, compression, exemplars: false, native_histograms: false }
    }
}

/// A request body, and what became of what it was made from.
///
/// Every sample of the parts is counted once: `sent + unsendable + relabelled_away + duplicates` are the samples given.
/// The same holds for histograms with `custom_buckets` and `unwanted`, and for exemplars with `unattached` and `unwanted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    /// Compressed, ready to send. Empty message where nothing was sent.
    pub bytes: Bytes,
    /// How long the message is before compression.
    pub message_bytes: usize,
    /// `TimeSeries` in the message.
    pub series: usize,
    /// What is in the body.
    pub sent: Tally,
    /// Left out because the message cannot carry the names of its labels.
    pub unsendable: Tally,
    /// Histograms left out because remote-write 1.0 has no field for the bounds of their buckets.
    pub custom_buckets: usize,
    /// Left out because relabelling dropped its series.
    pub relabelled_away: Tally,
    /// Left out because relabelling made its series one with another that has something at the same instant.
    pub duplicates: Tally,
    /// Left out because the format says so.
    pub unwanted: Tally,
    /// Exemplars whose series has neither sample nor histogram in the body.
    pub unattached: usize,
}

/// A request body of types and help texts, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataBody {
    /// Compressed, ready to send. Empty message where everything was left out.
    pub bytes: Bytes,
    /// Families in it.
    pub entries: usize,
    /// Families left out because remote-write 1.0 cannot carry their names.
    pub unsendable: usize,
}

/// How much of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples.
    pub samples: usize,
    /// Native histograms.
    pub histograms: usize,
    /// Exemplars.
    pub exemplars: usize,
}

impl Tally {
    /// Whether there is nothing.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Samples and histograms: what a series has at an instant. Exemplars are notes on these.
    pub fn points(self) -> usize {
        self.samples + self.histograms
    }

    /// Both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.with(other, usize::saturating_add)
    }

    /// What is left of it without `other`; nothing, where that is more.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.with(other, usize::saturating_sub)
    }

    fn with(self, other: Self, join: impl Fn(usize, usize) -> usize) -> Self {
        Self {
            samples: join(self.samples, other.samples),
            histograms: join(self.histograms, other.histograms),
            exemplars: join(self.exemplars, other.exemplars),
        }
    }
}

/// Whether remote-write 1.0 and text 0.0.4 can carry `labels`: a metric name, and names within the old patterns.
fn is_portable(labels: &Labels) -> bool {
    is_metric_name(labels.metric_name())
        && labels.iter().all(|label| &*label.name == METRIC_NAME || is_label_name(&label.name))
}
