//! The segment being written: made, written to, finished, or given up.
//!
//! A write that fails leaves the file as it was; a failed sync is never repeated on the same file, because the kernel may
//! report success then without having written. What is in a file that was given up stays readable.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::SyncPolicy;
use super::append::WriteError;
use super::draft::{Draft, Frame, Item};
use super::durable::LOCK_NAME;
use super::fs::{Access, Fs, Locking, Standing};
use super::log::{Log, SEGMENT_OVERHEAD_BYTES};
use super::record::Footer;
use super::recover::encode_file_header;
use super::segment::{Cause, Segment};
use super::status::Operation;

/// The file being written.
pub(super) struct Active<F: Fs> {
    pub(super) file: F::File,
    pub(super) path: PathBuf,
    pub(super) draft: Draft,
}

impl<F: Fs> Active<F> {
    /// The position of its first record.
    pub(super) fn first(&self) -> u64 {
        self.draft.first
    }
}

impl<F: Fs> Log<F> {
    /// Makes the file of `draft` for its first item.
    pub(super) fn create(&mut self, draft: Draft, item: Item<'_>) -> Result<(), WriteError> {
        self.look_at_disk();
        let before = item.before();
        let path = self.segment_path(draft.first);
        let file = self.create_file(&path)?;
        self.look_at_directory();
        let header = encode_file_header(self.store_id, before, draft.first, item.at());
        if let Err(error) = self.fs.write_all_at(&file, &header, 0) {
            drop(file);
            self.discard(&path);
            return Err(error.into());
        }
        self.segments.push_back(Segment::begun(draft.first, before.samples, SEGMENT_OVERHEAD_BYTES, item.at()));
        self.active = Some(Active { file, path, draft });
        self.sync_new_name()
    }

    /// A new file's name is as durable as what will be in it (`fsync` of a file does not promise its name).
    fn sync_new_name(&mut self) -> Result<(), WriteError> {
        if self.options.sync == SyncPolicy::Never {
            return Ok(());
        }
        match self.fs.sync_dir(&self.options.dir) {
            Err(error) if self.options.sync == SyncPolicy::Always => {
                self.abandon();
                Err(WriteError::Io(error))
            }
            // Tried again with the timer: what is written meanwhile is no worse off than in a file that is known.
            Err(error) => {
                self.note_error(Operation::Sync, &error);
                self.mark_dirty(self.options.dir.clone());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn create_file(&mut self, path: &Path) -> io::Result<F::File> {
        if !self.holds_directory() {
            self.take_directory()?;
        }
        match self.fs.open(path, Access::CreateNew) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.take_directory()?;
                self.fs.open(path, Access::CreateNew)
            }
            // Left by an attempt of ours that failed half-way: whatever held samples is in `segments`.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.fs.remove(path)?;
                self.fs.open(path, Access::CreateNew)
            }
            other => other,
        }
    }

    /// Whether nobody else may write where we are about to.
    fn holds_directory(&self) -> bool {
        let path = self.options.dir.join(LOCK_NAME);
        self.lock.as_ref().is_none_or(|lock| self.fs.is_met(lock, &path))
    }

    /// Makes and locks the directory anew, when somebody removed or replaced it.
    ///
    /// # Errors
    /// When that cannot be done, or another process was faster: then what comes waits in memory.
    pub(super) fn take_directory(&mut self) -> io::Result<()> {
        tracing::warn!(path = %self.options.dir.display(), "the buffer's directory is gone or another; making it again");
        self.fs.create_dir_all(&self.options.dir)?;
        if !self.holds_directory() {
            self.lock = match self.fs.lock(&self.options.dir.join(LOCK_NAME))? {
                Locking::Held(lock) => Some(lock),
                Locking::InUse { .. } => {
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has the directory now"));
                }
            };
        }
        // Another process may have written states there.
        self.states.clear();
        // The notes and cursors went with it; the next process must find the account, and the store's id twice.
        self.store_everything();
        Ok(())
    }

    /// Writes one item, as durable as [`SyncPolicy`] asks.
    pub(super) fn write_frame(&mut self, frame: &Frame, item: Item<'_>) -> Result<(), WriteError> {
        let (Some(active), Some(segment)) = (self.active.as_mut(), self.segments.back()) else {
            return Err(WriteError::Io(io::Error::other("BUG: no segment is open")));
        };
        let len = segment.len;
        if let Err(error) = self.fs.write_all_at(&active.file, &frame.bytes, len) {
            active.draft.take_back(frame);
            if self.fs.truncate(&active.file, len).is_err() {
                self.abandon();
            }
            return Err(WriteError::Io(error));
        }
        if self.options.sync == SyncPolicy::Always
            && let Some(active) = self.active.take()
        {
            let synced = self.sync_file(&active.file);
            if synced.is_err() {
                // Best effort: what stays behind is found again at the next start and recognised as a double.
                drop(self.fs.truncate(&active.file, len));
            }
            self.active = Some(active);
            if let Err(error) = synced {
                self.abandon();
                return Err(WriteError::InDoubt(error));
            }
        } else if let SyncPolicy::Interval(_) = self.options.sync {
            self.remember(item);
        }
        self.commit(frame.bytes.len() as u64, item);
        Ok(())
    }

    /// What is written now is not safe before the next sync.
    fn remember(&mut self, item: Item<'_>) {
        let (Some(active), Some(segment)) = (&self.active, self.segments.back()) else { return };
        let (path, len, newest_at) = (active.path.clone(), segment.len, segment.newest_at);
        if let Item::Snapshot { before, snapshot } = item {
            self.in_doubt.note(segment.first, before, snapshot, (len, newest_at));
        }
        self.mark_dirty(path);
    }

    fn commit(&mut self, written: u64, item: Item<'_>) {
        let Some(segment) = self.segments.back_mut() else { return };
        segment.len += written;
        segment.file_len = segment.len + Footer::RECORD_LEN as u64;
        segment.end = item.after();
        segment.newest_at = segment.newest_at.max(item.at());
        if let Item::Skip { before, after, .. } = item {
            segment.lose(before.samples, after.samples, Cause::Memory);
        }
    }

    /// Finishes the file being written with its totals.
    ///
    /// # Errors
    /// When the disk did not keep what is in it and takes it nowhere else; it is in memory then.
    pub(super) fn seal(&mut self, now: Instant) -> Result<(), WriteError> {
        let (Some(active), Some(segment)) = (self.active.take(), self.segments.back_mut()) else { return Ok(()) };
        if segment.end.seq < segment.first {
            self.active = Some(active);
            self.abandon();
            return Ok(());
        }
        let footer = segment.footer().map(|footer| footer.record(active.draft.seed));
        let len = segment.len;
        let written = footer
            .map_or(Ok(0), |footer| self.fs.write_all_at(&active.file, &footer, len).map(|()| footer.len() as u64));
        match written {
            Ok(footer_len) => {
                segment.len = len + footer_len;
                segment.file_len = segment.len;
                segment.is_sealed = footer_len > 0;
            }
            // Without totals the next start reads the whole file; nothing is lost.
            Err(error) => {
                self.note_error(Operation::Write, &error);
                drop(self.fs.truncate(&active.file, len));
                tracing::warn!(path = %active.path.display(), %error, "could not write a segment's totals");
            }
        }
        if self.options.sync != SyncPolicy::Never {
            self.dirty.remove(&active.path);
            match self.sync_file(&active.file) {
                Ok(()) => self.in_doubt.clear(),
                Err(error) => {
                    if let Some(segment) = self.segments.back_mut() {
                        segment.is_sealed = false;
                    }
                    self.sync_failed(&active.path.clone(), &error);
                    self.rewrite_in_doubt(active, now)?;
                }
            }
        }
        Ok(())
    }

    /// Writes no more to the current file; what is in it stays readable.
    pub(super) fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        let actual = self.fs.len(&active.file);
        let Some(segment) = self.segments.back_mut() else { return };
        if let Ok(actual) = actual {
            segment.file_len = actual.max(segment.len);
        }
        if segment.end.seq < segment.first {
            drop(active.file);
            self.segments.pop_back();
            self.discard(&active.path);
        }
    }

    fn discard(&mut self, path: &Path) {
        if let Err(error) = self.fs.remove(path) {
            self.note_error(Operation::Remove, &error);
            tracing::debug!(path = %path.display(), %error, "could not remove an empty segment");
        }
    }

    /// Somebody removed the file we write to, or moved it: bytes written there are gone when we close it. Where nobody can
    /// tell whether it is still there, or another is there, a new one is begun.
    pub(super) fn give_up_removed_file(&mut self) {
        let Some(active) = &self.active else { return };
        let first = active.draft.first;
        let standing = self.fs.standing(&active.file, &active.path);
        match &standing {
            Ok(Standing::Here) => return,
            Ok(Standing::Gone) => {
                tracing::error!(path = %active.path.display(), "somebody removed or moved the buffer's file; unsent samples in it are lost");
            }
            Ok(Standing::Replaced) => {
                tracing::warn!(path = %active.path.display(), "somebody replaced the buffer's file; beginning another");
            }
            Err(error) => self.note_error(Operation::Write, error),
        }
        self.abandon();
        if matches!(standing, Ok(Standing::Gone))
            && let Some(segment) = self.segments.back_mut().filter(|segment| segment.first == first)
        {
            segment.lose(segment.start, segment.end.samples, Cause::Damage);
            // Likely the notes and cursors went with it.
            self.store_everything();
        }
    }
}
