//! What a verification can find, as values.

use crate::model::Timestamp;

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The header of a segment; what it says stands elsewhere again.
    FileHeader,
    /// Bytes where a record should be.
    RecordHeader,
    /// The checksum of a record's payload does not fit.
    Payload,
    /// A copy of a definition of series; there are two.
    Definitions,
    /// The checksum fits and the bytes are no snapshot, or it needs a definition that is lost.
    Undecodable,
    /// A segment's totals are missing or contradict its records.
    Footer,
    /// Samples before, between or after the segments, whose file is gone or cut off.
    Missing,
    /// The disk does not give the bytes back.
    Unreadable,
    /// One of the two files of a cursor or of the log's notes.
    SmallFile,
    /// A file of the quarantine.
    Quarantine,
    /// A segment that is of another store, contradicts the others, or holds no record.
    Foreign,
}

impl DamageKind {
    /// As a word, the same in every version.
    pub fn word(self) -> &'static str {
        match self {
            Self::FileHeader => "file_header",
            Self::RecordHeader => "record_header",
            Self::Payload => "payload",
            Self::Definitions => "definitions",
            Self::Undecodable => "undecodable",
            Self::Footer => "footer",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
            Self::SmallFile => "small_file",
            Self::Quarantine => "quarantine",
            Self::Foreign => "foreign",
        }
    }
}

/// One damaged place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, relative to the buffer's directory.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// How many bytes are concerned.
    pub bytes: u64,
    /// What.
    pub kind: DamageKind,
    /// The position of the record, where it is known.
    pub position: Option<u64>,
    /// Its instant, where it is known.
    pub at: Option<Timestamp>,
    /// Samples that are lost by it.
    pub samples: u64,
    /// For people.
    pub detail: String,
}

/// What a verification found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// In order of file and place.
    pub damages: Vec<Damage>,
    /// Segments that were read to their end.
    pub segments: usize,
    /// Segments that the log removed meanwhile.
    pub vanished: usize,
    /// Snapshots that can be read.
    pub snapshots: u64,
    /// Samples in them.
    pub samples: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Bytes at the end of files that are a record never finished, or one being written.
    pub unfinished_bytes: u64,
    /// Samples the log gave up because memory overflowed while the disk could not be written.
    pub skipped_samples: u64,
}

impl Verdict {
    /// Samples lost by damage.
    pub fn lost_samples(&self) -> u64 {
        self.damages.iter().map(|damage| damage.samples).sum()
    }
}
