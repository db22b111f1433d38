//! What a body is packed with: snappy's block format as the specification demands, or zstd as `VictoriaMetrics` offers.
//!
//! Unpacking believes no length that it is told: nothing is allocated beyond what the caller allows.

use std::fmt;
use std::io::Read;

use bytes::Bytes;

use super::snappy::{self, Snappy};

/// What a body is packed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Snappy's block format (remote-write 1.0, "Protocol": "the framed format MUST NOT be used").
    Snappy,
    /// zstd, which `VictoriaMetrics` takes around a remote-write 1.0 message.
    Zstd,
}

impl Compression {
    /// The request's `Content-Encoding`.
    pub fn content_encoding(self) -> &'static str {
        match self {
            Self::Snappy => "snappy",
            Self::Zstd => "zstd",
        }
    }

    /// What a `Content-Encoding` names.
    pub fn from_content_encoding(name: &str) -> Option<Self> {
        [Self::Snappy, Self::Zstd].into_iter().find(|known| known.content_encoding().eq_ignore_ascii_case(name))
    }

    /// What `body` seems to be packed with: a zstd frame begins with a number of its own (RFC 8878, 3.1.1).
    pub fn guess(body: &[u8]) -> Self {
        const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
        if body.starts_with(&ZSTD_MAGIC) { Self::Zstd } else { Self::Snappy }
    }
}

/// The fastest of zstd's ordinary levels; what it costs is in `benches/encode.rs`.
const ZSTD_LEVEL: i32 = 1;
/// The largest window a frame may ask for (2^25 bytes, the receiver's limit for a request), whatever it holds.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;
/// How much of a buffer is kept for the next request.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Packs bodies; keeps its working memory from one to the next.
pub struct Packer {
    snappy: Snappy,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    packed: Vec<u8>,
}

impl Packer {
    /// A packer that has packed nothing yet.
    pub fn new() -> Self {
        Self { snappy: Snappy::new(), zstd: None, packed: Vec::new() }
    }

    /// `message`, packed; the same bytes whatever was packed before.
    ///
    /// # Panics
    /// From 4 GiB on.
    pub fn pack(&mut self, message: &[u8], compression: Compression) -> Bytes {
        self.packed.clear();
        let packed = match compression {
            Compression::Snappy => self.snappy(message),
            Compression::Zstd => self.zstd(message),
        };
        // Either fails only from 4 GiB on, which `max_samples_per_send` keeps out of reach.
        packed.unwrap_or_else(|error| panic!("BUG: a request of {} bytes cannot be packed: {error}", message.len()));
        // A copy, because the buffer is larger than what is in it and the body may be kept for a long time.
        let bytes = Bytes::copy_from_slice(&self.packed);
        self.packed.clear();
        self.packed.shrink_to(KEPT_BYTES_MAX);
        bytes
    }

    fn snappy(&mut self, message: &[u8]) -> std::io::Result<()> {
        // Once, rather than whenever it is full.
        self.packed.reserve(snappy::max_packed_len(message.len()));
        self.snappy.pack(message, &mut self.packed).map_err(std::io::Error::other)
    }

    fn zstd(&mut self, message: &[u8]) -> std::io::Result<()> {
        self.packed.resize(zstd::zstd_safe::compress_bound(message.len()), 0);
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
        };
        let len = zstd.compress_to_buffer(message, self.packed.as_mut_slice())?;
        self.packed.truncate(len);
        Ok(())
    }
}

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

/// Why a body cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// More than the caller allows.
    #[error("the body unpacks to more than {allowed} bytes, which is more than is accepted")]
    TooLarge {
        /// What the caller allows.
        allowed: usize,
    },
    /// Not a snappy block.
    #[error("the body is not a snappy block: {0}")]
    Snappy(#[from] snap::Error),
    /// Not a zstd frame.
    #[error("the body is not a zstd frame: {0}")]
    Zstd(std::io::Error),
}

/// The message in a body that anybody may have sent, if it is no longer than `max_bytes`.
///
/// # Errors
/// When it is longer, or the body is not what `compression` makes.
pub fn unpack(body: &[u8], compression: Compression, max_bytes: usize) -> Result<Vec<u8>, UnpackError> {
    match compression {
        Compression::Snappy => {
            if snap::raw::decompress_len(body)? > max_bytes {
                return Err(UnpackError::TooLarge { allowed: max_bytes });
            }
            Ok(snap::raw::Decoder::new().decompress_vec(body)?)
        }
        Compression::Zstd => {
            unpack_zstd(body, max_bytes).map_err(UnpackError::Zstd)?.ok_or(UnpackError::TooLarge { allowed: max_bytes })
        }
    }
}

/// A frame need not say how much it holds, so it is read until it ends or is too much.
fn unpack_zstd(body: &[u8], max_bytes: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut frames = zstd::stream::read::Decoder::with_buffer(body)?;
    frames.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    let mut message = Vec::new();
    frames.take(max_bytes as u64 + 1).read_to_end(&mut message)?;
    Ok((message.len() <= max_bytes).then_some(message))
}
