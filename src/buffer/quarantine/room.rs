//! How much the quarantine may hold, and what goes when that is too much.
//!
//! The oldest refusal goes, and is counted. No refusal costs a sample that may still be delivered: without room it is only
//! counted; and where the bounds are lower than they were, or nothing else makes room for a snapshot, the quarantine goes first.

use std::io;

use super::super::fs::{EntryKind, Fs};
use super::super::log::{Log, blocks};
use super::super::status::Operation;
use super::{AGAIN, File, RESTING, read_about};

/// At most so many refusals are kept,
pub(super) const FILES_MAX: usize = 64;
/// in so many bytes, and no more than this share of the whole buffer.
const BYTES_MAX: u64 = 4 << 20;
const SHARE: u64 = 16;

impl<F: Fs> Log<F> {
    /// Finds out which files are there: people may have added, removed or renamed some. What is too much goes.
    pub(in super::super) fn find_quarantined(&mut self) {
        let dir = self.quarantine_dir();
        let entries = match self.fs.list(&dir) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.note_error(Operation::Quarantine, &error);
                }
                Vec::new()
            }
        };
        let mut known = std::mem::take(&mut self.quarantine.files);
        for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            if !entry.name.ends_with(RESTING) && !entry.name.ends_with(AGAIN) {
                continue;
            }
            let file = known.remove(&entry.name).unwrap_or_else(|| {
                let about = read_about(&self.fs, &dir.join(&entry.name)).ok().flatten();
                let (endpoint, samples) = about.map_or_else(Default::default, |about| (about.endpoint, about.samples));
                File { bytes: blocks(entry.len), endpoint, samples, is_damaged: false }
            });
            self.quarantine.files.insert(entry.name, file);
        }
        self.bound_quarantine();
    }

    fn quarantine_max_bytes(&self) -> u64 {
        BYTES_MAX.min(self.options.max_bytes / SHARE)
    }

    /// Removes the oldest files until the rest is within bounds: `max_bytes` may be lower than it was.
    fn bound_quarantine(&mut self) {
        if !self.options.evicts {
            return;
        }
        let (files, dropped) = (self.quarantine.files.len(), self.quarantine.dropped_samples);
        while self.quarantine.files.len() > FILES_MAX || self.quarantine.bytes() > self.quarantine_max_bytes() {
            if !self.drop_oldest_quarantined() {
                break;
            }
        }
        let removed = files - self.quarantine.files.len();
        if removed > 0 {
            let samples = self.quarantine.dropped_samples - dropped;
            tracing::warn!(path = %self.quarantine_dir().display(), files = removed, samples,
                "the quarantine held more refused samples than it may: oldest removed");
        }
    }

    /// Whether `bytes` more are within the bounds, the oldest files removed where needed.
    pub(super) fn make_quarantine_room(&mut self, bytes: u64) -> bool {
        let own_bound = self.quarantine_max_bytes();
        // Nothing is removed for what does not fit even so.
        if bytes > own_bound || self.used_bytes() - self.quarantine.bytes() + bytes > self.bound_bytes() {
            return false;
        }
        loop {
            let fits = self.quarantine.files.len() < FILES_MAX
                && self.quarantine.bytes() + bytes <= own_bound
                && self.used_bytes() + bytes <= self.bound_bytes();
            if fits {
                return true;
            }
            if !self.drop_oldest_quarantined() {
                return false;
            }
        }
    }

    /// Removes the oldest file. `false` where there is none, or it cannot be removed: it still takes its room then.
    pub(in super::super) fn drop_oldest_quarantined(&mut self) -> bool {
        // Names begin with the position: the first is the oldest.
        let Some((name, file)) = self.quarantine.files.pop_first() else { return false };
        match self.fs.remove(&self.quarantine_dir().join(&name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                self.note_error(Operation::Quarantine, &error);
                self.quarantine.files.insert(name, file);
                false
            }
            _ => {
                self.quarantine.dropped_samples += file.samples;
                true
            }
        }
    }
}
