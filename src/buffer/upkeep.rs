//! Work on a buffer that nobody else uses: dropping what is in it, and taking in what another one held.
//!
//! Holds the lock from the first moment to the last. It never evicts to make room: what does not fit is not taken in. The
//! account balances as always: what is dropped is counted as purged.
//!
//! Taking in twice what was taken in once would double samples, so the buffer remembers which positions of which other
//! buffer it has. It does so in batches: before a batch, what is to come and where it will stand; after a crash, what
//! stands there is compared with that. Only what an endpoint was given meanwhile cannot be compared, and is taken in again.

mod import;

use std::io;
use std::time::Instant;

use crate::model::Timestamp;

use super::fs::{Fs as _, RealFs};
use super::inspect::{InspectError, Inspection};
use super::log::{Log, LogOptions};
use super::quarantine::{AGAIN, DIR_NAME, RESTING};
use super::{OpenError, Options};

pub use import::{Imported, Stopped};

/// A buffer that is ours alone. It is closed in order by [`Upkeep::close`].
pub struct Upkeep {
    log: Log<RealFs>,
    options: Options,
}

/// What to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Everything.
    All,
    /// What lies before the first record, in order of position, that is not older than this.
    Before(Timestamp),
    /// Everything up to this position.
    Through(u64),
}

/// What was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Samples by endpoint.
    pub samples: Vec<(String, u64)>,
    /// Bytes on disk, in blocks, before and after.
    pub used_bytes: (u64, u64),
}

impl Upkeep {
    /// Opens a buffer for upkeep. `options.endpoints` are those whose account is kept; a bound on age is ignored, and the one
    /// on bytes keeps the buffer from growing beyond it, without costing what is there.
    ///
    /// # Errors
    /// When another process has it, or its directory cannot be used.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        Ok(Self { log: Log::open(RealFs, LogOptions::keeping_everything(options.clone()))?, options })
    }

    /// The buffer as it is now.
    ///
    /// # Errors
    /// When its directory cannot be listed.
    pub fn inspect(&self) -> Result<Inspection, InspectError> {
        Inspection::open(&self.options.path)
    }

    /// Drops samples for one endpoint or all.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn purge(&mut self, what: Purge, endpoint: Option<&str>) -> Result<Purged, InspectError> {
        let inspection = self.inspect()?;
        let before = self.log.used_bytes();
        let mut purged = Purged::default();
        for index in 0..self.log.endpoints.len() {
            let (name, place) = (self.log.endpoints[index].name.clone(), self.log.endpoints[index].place);
            if endpoint.is_some_and(|wanted| wanted != name) {
                continue;
            }
            let to = match what {
                Purge::All => self.log.end,
                Purge::Before(time) => inspection.mark_before(place.seq, time),
                Purge::Through(position) => inspection.mark_after(position),
            };
            let samples = if to.seq > place.seq { self.log.purge(index, to) } else { 0 };
            purged.samples.push((name, samples));
        }
        self.log.remove_passed();
        if what == Purge::All && endpoint.is_none() && !self.log.endpoints.is_empty() {
            self.log.forget_away();
        }
        purged.used_bytes = (before, self.log.used_bytes());
        Ok(purged)
    }

    /// Forces everything to the disk and gives up the lock.
    pub fn close(mut self) {
        self.log.close(Instant::now());
    }
}

/// What a purge would drop, as far as is known without the lock: samples by endpoint.
pub fn would_purge(inspection: &Inspection, what: Purge, endpoint: Option<&str>) -> Vec<(String, u64)> {
    let wanted = inspection.endpoints.iter().filter(|known| endpoint.is_none_or(|endpoint| endpoint == known.name));
    wanted.map(|known| (known.name.clone(), inspection.purgeable(known, what))).collect()
}

/// Marks a file of the quarantine to be sent again. Needs no lock: an agent that runs sends it once its queue is empty,
/// one that does not after its next start.
///
/// # Errors
/// When there is no such file any more, or it cannot be renamed.
pub fn requeue(inspection: &Inspection, id: &str) -> io::Result<()> {
    let dir = inspection.dir().join(DIR_NAME);
    std::fs::rename(dir.join(format!("{id}{RESTING}")), dir.join(format!("{id}{AGAIN}")))?;
    RealFs.sync_dir(&dir)
}

fn storage_full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the disk does not take it")
}
