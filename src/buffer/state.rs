//! Small values that sources keep with the buffer: counters that must not start anew, a position in an event stream.
//!
//! A value is replaced as a whole, in place, and reads as absent when it is damaged. It counts towards `max_bytes`.

use std::io;
use std::path::{Path, PathBuf};

use super::durable::{file_name_of, store_value};
use super::endpoint::{Reason, safe_file_name};
use super::fs::{Access, Fs};
use super::log::{Log, blocks};
use super::pair::{self, Pair, VALUE_MAX_BYTES};
use super::status::Operation;

impl<F: Fs> Log<F> {
    fn state_base(&self, name: &str) -> PathBuf {
        self.options.dir.join(format!("state-{}", safe_file_name(name)))
    }

    /// Replaces the value called `name`.
    ///
    /// # Errors
    /// When it is longer than 16 MiB, does not fit into `max_bytes`, or the file system says no; then the value before or
    /// this one is found later.
    pub(super) fn save_state(&mut self, name: &str, value: &[u8]) -> io::Result<()> {
        if value.len() > VALUE_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the state is longer than 16 MiB"));
        }
        let base = self.state_base(name);
        if !self.states.contains_key(&base) {
            self.states.insert(base.clone(), Pair::load(&self.fs, base.clone()).pair.made_file_by_file());
        }
        self.settle_newest(&base);
        let target = self.states.get(&base).map(Pair::next_path);
        let Some(file) = target.as_deref().and_then(file_name_of) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let size = blocks(pair::file_len(value.len()));
        let known = self.small.get(&file).copied().unwrap_or(0);
        let is_new = !self.small.contains_key(&file);
        let growth = size.saturating_sub(known) + if is_new { self.directory_growth() } else { 0 };
        if growth > 0 && self.options.max_bytes < self.used_without_segments() + growth {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the state does not fit into max_bytes"));
        }
        while growth > 0 && self.used_bytes() + growth > self.options.max_bytes {
            if !self.evict_oldest(Reason::Size)? {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "the state does not fit into max_bytes"));
            }
        }
        self.small.insert(file, known.max(size));
        let Some(pair) = self.states.get_mut(&base) else { return Err(io::ErrorKind::InvalidFilename.into()) };
        let stored = store_value(&self.fs, &self.options, pair, value, &mut self.names);
        self.store_what_was_lost();
        if is_new {
            self.look_at_directory();
        }
        let (path, file) = stored?;
        let durable = self.make_durable(path, &file);
        if durable.is_err() {
            self.states.entry(base).and_modify(Pair::step_back);
        }
        durable
    }

    /// Both files unsynced could both be torn: what the timer has yet to force to the disk is forced there now. Where that
    /// fails, the next value goes over it and leaves the one before alone. (A cursor fits into a sector, so it may wait.)
    fn settle_newest(&mut self, base: &Path) {
        let newest = self.states.get(base).map(Pair::newest_path).filter(|newest| self.dirty.remove(newest));
        let Some(newest) = newest else { return };
        let synced = self.fs.open(&newest, Access::Read).and_then(|file| self.sync_file(&file));
        if let Err(error) = synced {
            self.note_error(Operation::Sync, &error);
            self.states.entry(base.to_owned()).and_modify(Pair::step_back);
        }
    }

    /// The value called `name`.
    pub(super) fn load_state(&self, name: &str) -> Option<Vec<u8>> {
        let loaded = Pair::load(&self.fs, self.state_base(name));
        if loaded.value.is_none() && loaded.damaged.is_some() {
            tracing::warn!(state = name, "a saved state is damaged and starts anew");
        }
        loaded.value
    }
}
