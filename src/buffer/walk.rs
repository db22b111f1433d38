//! From record to record in a file.
//!
//! A damaged place is stepped over by looking for the next header whose checksum fits. Nothing here deletes or repairs.

use std::io;

use super::fs::Fs;
use super::record::{HEADER_LEN, Header, MAGIC, Seed};

/// How much is read at a time when looking for the next good header.
const RESYNC_BYTES: usize = 64 << 10;

/// Steps from record to record.
pub(super) struct Walk<'a, F: Fs> {
    pub(super) fs: &'a F,
    pub(super) file: &'a F::File,
    pub(super) seed: Seed,
    /// Where the next record is expected.
    pub(super) at: u64,
    /// Nothing at or after this is looked at.
    pub(super) end: u64,
}

/// A record that was stepped to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) offset: u64,
    pub(super) header: Header,
}

impl<F: Fs> Walk<'_, F> {
    /// The next record whose header can be believed; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read here.
    pub(super) fn step(&mut self) -> io::Result<Option<Step>> {
        let mut header = [0; HEADER_LEN];
        if self.end.saturating_sub(self.at) < HEADER_LEN as u64 {
            return Ok(None);
        }
        self.fs.read_exact_at(self.file, &mut header, self.at)?;
        if let Some(step) = self.believe(&header, self.at) {
            self.at += step.header.record_len();
            return Ok(Some(step));
        }
        let found = self.resync()?;
        if let Some(step) = &found {
            self.at = step.offset + step.header.record_len();
        }
        Ok(found)
    }

    fn believe(&self, bytes: &[u8; HEADER_LEN], offset: u64) -> Option<Step> {
        let header = Header::parse(bytes, self.seed)?;
        (header.record_len() <= self.end - offset).then_some(Step { offset, header })
    }

    /// Looks byte by byte for a header after a damaged one.
    fn resync(&self) -> io::Result<Option<Step>> {
        let mut from = self.at + 1;
        let mut chunk = vec![0; RESYNC_BYTES];
        while self.end.saturating_sub(from) >= HEADER_LEN as u64 {
            let len = usize::try_from(self.end - from).unwrap_or(usize::MAX).min(RESYNC_BYTES);
            self.fs.read_exact_at(self.file, &mut chunk[..len], from)?;
            for (at, window) in chunk[..len].windows(HEADER_LEN).enumerate() {
                if window[0] != MAGIC[0] || window[1..4] != MAGIC[1..] {
                    continue;
                }
                let Some(header) = window.first_chunk::<HEADER_LEN>() else { continue };
                if let Some(step) = self.believe(header, from + at as u64) {
                    return Ok(Some(step));
                }
            }
            from += (len - HEADER_LEN + 1) as u64;
        }
        Ok(None)
    }

    /// The payload of a record, or `None` where its checksum does not fit.
    ///
    /// # Errors
    /// When the file cannot be read there.
    pub(super) fn payload(&self, step: &Step) -> io::Result<Option<Vec<u8>>> {
        let mut payload = vec![0; step.header.payload_len as usize];
        self.fs.read_exact_at(self.file, &mut payload, step.offset + HEADER_LEN as u64)?;
        let fits = self.seed.payload_crc(step.header.seq, &payload) == step.header.payload_crc;
        Ok(fits.then_some(payload))
    }
}
