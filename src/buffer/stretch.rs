//! Consecutive records in a file, with what they define: one segment, one section of an export, one refusal.
//!
//! Read only. A damaged record is stepped over; memory is the series of the stretch and one record.

use std::io;
use std::ops::ControlFlow;

use crate::model::{Interner, Snapshot};

use super::codec::Definitions;
use super::fs::{Fs, retry};
use super::record::{CODEC_VERSION, Header, Kind, Seed};
use super::walk::{Step, Walk};

/// See the module.
pub(super) struct Stretch<'a, F: Fs> {
    pub(super) fs: &'a F,
    pub(super) file: F::File,
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

impl<F: Fs> Stretch<'_, F> {
    pub(super) fn walk(&self) -> Walk<'_, F> {
        Walk { fs: self.fs, file: &self.file, seed: self.seed, at: self.start, end: self.end }
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
        let mut definitions = Definitions::default();
        // What stays unknown is noticed when a snapshot needs it.
        learn(&mut self.walk(), &mut definitions, interner, |_, _| Ok(())).ok();
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

/// What came of reading one definition record.
pub(super) enum Lesson {
    /// Its series are known now.
    Learnt,
    /// The checksum of its payload does not fit.
    Damaged,
    /// The checksum fits, and the bytes are no definitions.
    Undecodable,
    /// The disk does not give it.
    Unreadable(io::Error),
}

/// Reads every definition record before the snapshots that need it: each stands twice, also after the first of these, so
/// that one that is damaged costs nothing. `told` hears what came of each, and may end it.
///
/// # Errors
/// When the file cannot be read at the walk's place, or what `told` says.
pub(super) fn learn<F: Fs>(
    walk: &mut Walk<'_, F>,
    definitions: &mut Definitions,
    interner: &mut Interner,
    mut told: impl FnMut(&Step, Lesson) -> io::Result<()>,
) -> io::Result<()> {
    while let Some(step) = retry(|| walk.step())? {
        if step.header.kind != Kind::Definitions || step.header.codec != CODEC_VERSION {
            continue;
        }
        let lesson = match retry(|| walk.payload(&step)) {
            Ok(Some(payload)) if definitions.read(&payload, interner).is_ok() => Lesson::Learnt,
            Ok(Some(_)) => Lesson::Undecodable,
            Ok(None) => Lesson::Damaged,
            Err(error) => Lesson::Unreadable(error),
        };
        told(&step, lesson)?;
    }
    Ok(())
}

/// The snapshot in a record's payload, or `None` where it is damaged or of another codec.
pub(super) fn decode(definitions: &Definitions, header: &Header, payload: &[u8]) -> Option<Snapshot> {
    if header.codec != CODEC_VERSION {
        return None;
    }
    let snapshot = definitions.decode(header.kind, header.at, payload).ok()?;
    (snapshot.sample_count() == header.samples as usize).then_some(snapshot)
}
