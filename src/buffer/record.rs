//! One record on disk: a header of 48 bytes with a checksum of its own, then the payload, nothing between records.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic |
//! | 4 | 4 | payload length |
//! | 8 | 8 | position of the snapshot it carries or belongs to |
//! | 16 | 8 | samples in the log before that snapshot |
//! | 24 | 8 | the snapshot's instant, milliseconds since the Unix epoch |
//! | 32 | 4 | samples in the snapshot |
//! | 36 | 2 | kind |
//! | 38 | 2 | version of the payload's codec |
//! | 40 | 4 | CRC-32C of the payload |
//! | 44 | 4 | CRC-32C of bytes 0 to 43 |
//!
//! Everything is little-endian. Both checksums are seeded with the store's id and the segment's name, the payload's with
//! the position as well, so bytes of another time or place never validate. A length is believed only when the header's
//! checksum fits. Nothing here does I/O.

use crate::model::Timestamp;

/// Bytes of a record before its payload.
pub(super) const HEADER_LEN: usize = 48;
/// The longest payload written or believed, so that a damaged length cannot make us allocate.
pub(super) const PAYLOAD_MAX_BYTES: usize = 16 << 20;
/// Positions and sample counts at or above this are damage; it leaves room to add two without overflow.
pub(super) const ORDINAL_LIMIT: u64 = 1 << 62;
/// Where a log goes on from must be below this, so that it never counts up to the limit.
pub(super) const RESUMABLE_LIMIT: u64 = ORDINAL_LIMIT / 2;
/// Never zero, so that a zero-filled tail holds no record.
pub(super) const MAGIC: [u8; 4] = [0xd7, b'o', b'h', 0x1a];
/// The payload codec this program writes (`codec.rs`).
pub(super) const CODEC_VERSION: u16 = 2;

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One snapshot.
    Snapshot,
    /// One snapshot with native histograms or exemplars.
    RichSnapshot,
    /// The last record of a segment that was finished in order: its totals.
    Footer,
    /// Positions that never reached the disk, because memory overflowed while it could not be written.
    Skip,
    /// Series that snapshots after it refer to by number.
    Definitions,
    /// Whose receiver refused the samples of a quarantined file, and what it said.
    Verdict,
    /// Nothing: it keeps the two copies of definitions apart.
    Spacer,
    /// Written by a later version; stepped over.
    Other(u16),
}

impl Kind {
    /// Whether it holds a snapshot.
    pub(super) fn is_snapshot(self) -> bool {
        matches!(self, Self::Snapshot | Self::RichSnapshot)
    }

    fn number(self) -> u16 {
        match self {
            Self::Snapshot => 1,
            Self::Footer => 2,
            Self::Skip => 3,
            Self::Definitions => 4,
            Self::Verdict => 5,
            Self::RichSnapshot => 6,
            Self::Spacer => 7,
            Self::Other(number) => number,
        }
    }

    pub(super) fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Snapshot,
            2 => Self::Footer,
            3 => Self::Skip,
            4 => Self::Definitions,
            5 => Self::Verdict,
            6 => Self::RichSnapshot,
            7 => Self::Spacer,
            other => Self::Other(other),
        }
    }
}

/// What both checksums of a segment start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seed(u32);

impl Seed {
    /// Of the segment named `first` in the store `store_id`.
    pub(super) fn new(store_id: u128, first: u64) -> Self {
        let of_store = crc32c::crc32c(&store_id.to_le_bytes());
        Self(crc32c::crc32c_append(of_store, &first.to_le_bytes()))
    }

    /// The checksum of `payload` in the record at `seq`.
    pub(super) fn payload_crc(self, seq: u64, payload: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c_append(self.0, &seq.to_le_bytes()), payload)
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) payload_len: u32,
    pub(super) seq: u64,
    pub(super) samples_before: u64,
    pub(super) at: Timestamp,
    pub(super) samples: u32,
    pub(super) kind: Kind,
    pub(super) codec: u16,
    pub(super) payload_crc: u32,
}

impl Header {
    /// Bytes from this record's start to the next one's.
    pub(super) fn record_len(&self) -> u64 {
        HEADER_LEN as u64 + u64::from(self.payload_len)
    }

    /// Samples in the log up to and including this record.
    pub(super) fn samples_after(&self) -> u64 {
        self.samples_before + u64::from(self.samples)
    }

    /// The header as it stands on disk.
    pub(super) fn encode(&self, seed: Seed) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.samples_before.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.at.millis().to_le_bytes());
        bytes[32..36].copy_from_slice(&self.samples.to_le_bytes());
        bytes[36..38].copy_from_slice(&self.kind.number().to_le_bytes());
        bytes[38..40].copy_from_slice(&self.codec.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c::crc32c_append(seed.0, &bytes[..44]);
        bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header in `bytes`, or `None` where there is none that can be believed.
    pub(super) fn parse(bytes: &[u8; HEADER_LEN], seed: Seed) -> Option<Self> {
        if bytes[0..4] != MAGIC || le_u32(bytes, 44) != crc32c::crc32c_append(seed.0, &bytes[..44]) {
            return None;
        }
        let header = Self {
            payload_len: le_u32(bytes, 4),
            seq: le_u64(bytes, 8),
            samples_before: le_u64(bytes, 16),
            at: Timestamp::from_millis(le_i64(bytes, 24)),
            samples: le_u32(bytes, 32),
            kind: Kind::from_number(le_u16(bytes, 36)),
            codec: le_u16(bytes, 38),
            payload_crc: le_u32(bytes, 40),
        };
        let plausible = header.payload_len as usize <= PAYLOAD_MAX_BYTES
            && header.seq < ORDINAL_LIMIT
            && header.samples_before < ORDINAL_LIMIT;
        plausible.then_some(header)
    }
}

/// What a record says besides its payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    pub(super) seq: u64,
    pub(super) samples_before: u64,
    pub(super) at: Timestamp,
    pub(super) samples: u32,
}

/// Appends one record to `out`.
pub(super) fn write(out: &mut Vec<u8>, seed: Seed, kind: Kind, about: About, payload: &[u8]) {
    let header = Header {
        payload_len: u32::try_from(payload.len()).expect("BUG: a payload was not checked against PAYLOAD_MAX_BYTES"),
        seq: about.seq,
        samples_before: about.samples_before,
        at: about.at,
        samples: about.samples,
        kind,
        codec: CODEC_VERSION,
        payload_crc: seed.payload_crc(about.seq, payload),
    };
    out.extend_from_slice(&header.encode(seed));
    out.extend_from_slice(payload);
}

/// The totals of a finished segment, so that opening it reads these bytes and not all the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footer {
    /// Samples in the log before the segment's first snapshot.
    pub(super) start: u64,
    /// Position of its last snapshot.
    pub(super) last: u64,
    /// Samples in the log up to and including it.
    pub(super) end: u64,
    /// The instant of its first snapshot.
    pub(super) first_at: Timestamp,
    /// The newest instant in it.
    pub(super) newest_at: Timestamp,
}

impl Footer {
    const PAYLOAD_LEN: usize = 32;
    /// Bytes of the whole record.
    pub(super) const RECORD_LEN: usize = HEADER_LEN + Self::PAYLOAD_LEN;

    /// The footer as a record.
    pub(super) fn record(&self, seed: Seed) -> Vec<u8> {
        let mut payload = [0; Self::PAYLOAD_LEN];
        payload[0..8].copy_from_slice(&self.start.to_le_bytes());
        payload[8..16].copy_from_slice(&self.end.to_le_bytes());
        payload[16..24].copy_from_slice(&self.first_at.millis().to_le_bytes());
        payload[24..32].copy_from_slice(&self.newest_at.millis().to_le_bytes());
        let about = About { seq: self.last, samples_before: self.end, at: self.newest_at, samples: 0 };
        let mut out = Vec::with_capacity(Self::RECORD_LEN);
        write(&mut out, seed, Kind::Footer, about, &payload);
        out
    }

    /// The footer in the last [`Footer::RECORD_LEN`] bytes of a segment, or `None` where there is none.
    pub(super) fn parse(bytes: &[u8; Self::RECORD_LEN], seed: Seed) -> Option<Self> {
        let (head, payload) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let header = Header::parse(head, seed)?;
        let fits = header.payload_crc == seed.payload_crc(header.seq, payload);
        Self::from_parts(&header, payload).filter(|_| fits)
    }

    /// The footer in a record whose checksums fit.
    pub(super) fn from_parts(header: &Header, payload: &[u8]) -> Option<Self> {
        let fits = header.payload_len as usize == Self::PAYLOAD_LEN && payload.len() == Self::PAYLOAD_LEN;
        if header.kind != Kind::Footer || !fits {
            return None;
        }
        let footer = Self {
            start: le_u64(payload, 0),
            last: header.seq,
            end: le_u64(payload, 8),
            first_at: Timestamp::from_millis(le_i64(payload, 16)),
            newest_at: Timestamp::from_millis(le_i64(payload, 24)),
        };
        (footer.start <= footer.end && footer.end < ORDINAL_LIMIT).then_some(footer)
    }
}

/// Little-endian numbers at a fixed place; the caller has checked the length.
pub(super) fn le_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(super) fn le_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

pub(super) fn le_i64(bytes: &[u8], at: usize) -> i64 {
    le_u64(bytes, at).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            payload_len: 5,
            seq: 7,
            samples_before: 100,
            at: Timestamp::from_millis(-3),
            samples: 9,
            kind: Kind::Snapshot,
            codec: CODEC_VERSION,
            payload_crc: 1,
        }
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        let seed = Seed::new(1, 7);
        assert_eq!(Header::parse(&header().encode(seed), seed), Some(header()));
    }

    #[test]
    fn any_flipped_bit_of_a_header_is_seen() {
        let seed = Seed::new(1, 7);
        let whole = header().encode(seed);
        for bit in 0..HEADER_LEN * 8 {
            let mut bytes = whole;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::parse(&bytes, seed), None, "bit {bit}");
        }
    }

    #[test]
    fn bytes_of_another_segment_or_store_never_validate() {
        let bytes = header().encode(Seed::new(1, 7));
        assert_eq!(Header::parse(&bytes, Seed::new(1, 8)), None);
        assert_eq!(Header::parse(&bytes, Seed::new(2, 7)), None);
    }

    #[test]
    fn a_length_or_position_beyond_the_limits_is_damage_even_with_a_fitting_checksum() {
        let seed = Seed::new(1, 7);
        let long = Header { payload_len: u32::MAX, ..header() };
        assert_eq!(Header::parse(&long.encode(seed), seed), None);
        let late = Header { seq: u64::MAX, ..header() };
        assert_eq!(Header::parse(&late.encode(seed), seed), None);
        let many = Header { samples_before: u64::MAX, ..header() };
        assert_eq!(Header::parse(&many.encode(seed), seed), None);
    }

    #[test]
    fn a_footer_reads_as_it_was_written() {
        let seed = Seed::new(1, 7);
        let footer = Footer {
            start: 10,
            last: 9,
            end: 30,
            first_at: Timestamp::from_millis(1),
            newest_at: Timestamp::from_millis(2),
        };
        let bytes: [u8; Footer::RECORD_LEN] = footer.record(seed).try_into().unwrap();
        assert_eq!(Footer::parse(&bytes, seed), Some(footer));
        let mut damaged = bytes;
        damaged[HEADER_LEN] ^= 1;
        assert_eq!(Footer::parse(&damaged, seed), None);
    }
}
