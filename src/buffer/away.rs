//! Endpoints that are configured no more: nothing is held back for them, and their cursors are kept, so that they find their
//! place and account again when they are.
//!
//! Names change for ever and cursors take room, so there is a bound. The first to go is who has nothing waiting, and of
//! those who was left the furthest behind; under that name an endpoint begins anew, at the oldest sample.

use std::io;

use super::SyncPolicy;
use super::durable::{file_name_of, store_value};
use super::endpoint::{away, name_in_cursor};
use super::fs::Fs;
use super::log::{BLOCK_BYTES, Log};
use super::pair::Pair;
use super::segment::{Mark, Segment};
use super::status::Operation;

/// At most so many cursors are kept for nobody,
const AWAY_MAX: u64 = 64;
/// in no more than this share of the whole buffer, but for a few.
const SHARE: u64 = 16;
const AWAY_MIN: u64 = 4;
/// What the two files of a cursor take.
const CURSOR_BYTES: u64 = 2 * BLOCK_BYTES;

/// The cursor of an endpoint that is not configured.
pub(super) struct Away {
    pub(super) pair: Pair,
    pub(super) value: Vec<u8>,
    pub(super) place: Mark,
}

impl Away {
    fn name(&self) -> &str {
        name_in_cursor(&self.value).unwrap_or_default()
    }
}

impl<F: Fs> Log<F> {
    /// Says what becomes of endpoints that are not configured, and forgets those that are too many.
    pub(super) fn leave(&mut self, mut others: Vec<Away>) {
        others.sort_by_key(|away| (self.waiting_for(away) > 0, away.place.seq));
        let kept = (self.options.max_bytes / SHARE / CURSOR_BYTES).clamp(AWAY_MIN, AWAY_MAX);
        // Without any endpoint everything stays, for those that are configured again.
        let surplus = if self.options.endpoints.is_empty() { 0 } else { (others.len() as u64).saturating_sub(kept) };
        for (nth, mut away) in (0..).zip(others) {
            if nth >= surplus {
                self.say_left(&away);
                self.note_away(&mut away);
            } else if self.forget(&away) {
                continue;
            }
            self.away.push(away);
        }
        self.sync_forgotten(surplus > 0);
    }

    /// Forgets every endpoint that is not configured, because somebody said so.
    pub(super) fn forget_away(&mut self) {
        let away = std::mem::take(&mut self.away);
        let had_some = !away.is_empty();
        self.away = away.into_iter().filter(|away| !self.forget(away)).collect();
        self.sync_forgotten(had_some);
    }

    fn waiting_for(&self, away: &Away) -> u64 {
        self.segments.iter().map(|segment: &Segment| segment.readable_after(away.place.samples)).sum()
    }

    fn say_left(&self, away: &Away) {
        let pending = self.waiting_for(away);
        if pending == 0 {
            return;
        }
        let fate = if self.options.endpoints.is_empty() {
            "they stay while no endpoint is configured"
        } else {
            "they go with what the others have sent"
        };
        tracing::warn!(
            endpoint = away.name(),
            pending,
            "samples wait here for an endpoint that is not configured: {fate}"
        );
    }

    /// Puts on record that an endpoint is configured no more, so that what goes meanwhile is no damage when it is again.
    fn note_away(&mut self, left: &mut Away) {
        let Some(value) = away(&left.value) else { return };
        let stored = store_value(&self.fs, &self.options, &mut left.pair, &value, &mut self.names);
        if let Err(error) = stored.and_then(|(path, file)| self.make_durable(path, &file)) {
            self.note_error(Operation::Cursor, &error);
        }
    }

    /// Removes a cursor. Returns whether that worked.
    fn forget(&mut self, away: &Away) -> bool {
        // The older of the two first: what is left by a crash in between is the newer.
        for path in [away.pair.next_path(), away.pair.newest_path()] {
            match self.fs.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.note_error(Operation::Remove, &error);
                    tracing::warn!(path = %path.display(), %error, "could not remove the cursor of an endpoint that is not configured");
                    return false;
                }
                _ => {
                    file_name_of(&path).and_then(|name| self.small.remove(&name));
                }
            }
        }
        tracing::warn!(
            endpoint = away.name(),
            pending = self.waiting_for(away),
            "the place of an endpoint that is not configured was removed; under this name it would begin anew"
        );
        true
    }

    fn sync_forgotten(&mut self, some: bool) {
        if some
            && self.options.sync != SyncPolicy::Never
            && let Err(error) = self.fs.sync_dir(&self.options.dir)
        {
            self.note_error(Operation::Sync, &error);
        }
    }
}
