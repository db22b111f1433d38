//! Consecutive records in a file, with what they define: one segment, or one section of an export.
//!
//! Read only. A damaged record is stepped over; memory is the series of the stretch and one record.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;

use crate::model::{Interner, Snapshot};

use super::codec::Definitions;
use super::fs::RealFs;
use super::read::decode;
use super::record::{CODEC_VERSION, Header, Kind, Seed};
use super::segment::{Step, Walk};

/// See the module.
pub(super) struct Stretch {
    pub(super) file: File,
    pub(super) seed: Seed,
    /// Where its records begin and end.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Records after this position stand elsewhere again.
    pub(super) last: u64,
}

/// A record as it was found.
pub(super) struct Found<'a> {
    pub(super) header: &'a Header,
    /// Where the next one begins.
    pub(super) next: u64,
    /// `None` where its checksum does not fit.
    pub(super) payload: Option<Vec<u8>>,
    definitions: &'a Definitions,
}

impl Found<'_> {
    /// The snapshot in it, where it is one and can be read.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        decode(self.definitions, self.header, self.payload.as_deref()?)
    }
}

impl Stretch {
    pub(super) fn walk(&self) -> Walk<'_, RealFs> {
        Walk { fs: &RealFs, file: &self.file, seed: self.seed, at: self.start, end: self.end }
    }

    /// Reads every definition; each stands twice, so that one that is damaged costs nothing.
    fn definitions(&self, interner: &mut Interner) -> Definitions {
        let mut definitions = Definitions::default();
        let mut walk = self.walk();
        while let Ok(Some(step)) = walk.step() {
            if step.header.kind == Kind::Definitions
                && step.header.codec == CODEC_VERSION
                && let Ok(Some(payload)) = walk.payload(&step)
            {
                // What stays unknown is noticed when a snapshot needs it.
                definitions.read(&payload, interner).ok();
            }
        }
        definitions
    }

    /// Calls `found` with every snapshot's record, each position once.
    ///
    /// # Errors
    /// When the file cannot be read; what was found before that was found.
    pub(super) fn each(
        &self,
        interner: &mut Interner,
        mut found: impl FnMut(Found<'_>) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let definitions = self.definitions(interner);
        let mut walk = self.walk();
        let mut before = 0;
        while let Some(step) = walk.step()? {
            let header = &step.header;
            if header.seq > self.last {
                break;
            }
            if !header.kind.is_snapshot() || header.seq <= before {
                continue;
            }
            before = header.seq;
            let payload = walk.payload(&step)?;
            if found(Found { header, next: walk.at, payload, definitions: &definitions }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The first snapshot's header for which `wanted` holds.
    pub(super) fn first_header(&self, wanted: impl Fn(&Header) -> bool) -> Option<Step> {
        let mut walk = self.walk();
        while let Ok(Some(step)) = walk.step() {
            if step.header.kind.is_snapshot() && wanted(&step.header) {
                return Some(step);
            }
        }
        None
    }
}
