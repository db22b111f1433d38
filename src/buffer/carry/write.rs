//! From a buffer to a file.

use std::io::{self, Write};
use std::ops::ControlFlow;

use crate::model::Timestamp;

use super::super::draft::{Draft, Item};
use super::super::inspect::{Inspection, Record, Selection};
use super::super::segment::Mark;
use super::{Block, BlockKind};

/// A section is closed when it is as long as a usual segment: what a reader holds in memory, and what a damaged pair of
/// section blocks would cost.
const SECTION_BYTES: usize = 4 << 20;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Snapshots.
    pub snapshots: u64,
    /// Samples in them.
    pub samples: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// The earliest and the latest instant.
    pub instants: Option<(Timestamp, Timestamp)>,
    /// The position of the last of them.
    pub last_position: Option<u64>,
    /// Records in the buffer that could not be read.
    pub damaged: u64,
}

/// Writes the snapshots of a selection to `out`. The caller makes it durable.
///
/// # Errors
/// When `out` cannot be written.
pub fn export(
    buffer: &Inspection,
    selection: Selection,
    now: Timestamp,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Exported> {
    let mut writer = Writer::new(buffer.store(), out);
    let created = u64::try_from(now.millis()).unwrap_or(0);
    writer.block(BlockKind::File, [created, 0, 0])?;
    let mut failed = None;
    let visited = buffer.visit(selection, progress, &mut |record| match writer.add(&record) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    writer.finish_section()?;
    let Writer { done, sections, .. } = writer;
    writer.block(BlockKind::End, [done.samples, done.snapshots, sections])?;
    writer.out.flush()?;
    Ok(Exported { damaged: writer.done.damaged + visited.damaged, ..writer.done })
}

struct Writer<'a> {
    store_id: u128,
    out: &'a mut dyn Write,
    section: Option<Section>,
    sections: u64,
    done: Exported,
}

struct Section {
    first: u64,
    draft: Draft,
    bytes: Vec<u8>,
    snapshots: u64,
}

impl<'a> Writer<'a> {
    fn new(store_id: u128, out: &'a mut dyn Write) -> Self {
        Self { store_id, out, section: None, sections: 0, done: Exported::default() }
    }

    fn add(&mut self, record: &Record) -> io::Result<()> {
        let before = Mark { seq: record.position - 1, samples: record.samples_before };
        let item = Item::Snapshot { before, snapshot: &record.snapshot };
        loop {
            let store_id = self.store_id;
            let section = self.section.get_or_insert_with(|| Section {
                first: record.position,
                draft: Draft::new(store_id, record.position, SECTION_BYTES as u64),
                bytes: Vec::new(),
                snapshots: 0,
            });
            match section.draft.frame(item) {
                Ok(frame) => {
                    section.bytes.extend_from_slice(&frame.bytes);
                    section.snapshots += 1;
                    break;
                }
                // A section can number only so many series; a new one begins anew.
                Err(_) if section.snapshots > 0 => self.finish_section()?,
                Err(_) => {
                    self.section = None;
                    self.done.damaged += 1;
                    return Ok(());
                }
            }
        }
        let at = record.snapshot.at;
        let (first, newest) = self.done.instants.unwrap_or((at, at));
        self.done.instants = Some((first.min(at), newest.max(at)));
        self.done.last_position = Some(record.position);
        self.done.snapshots += 1;
        self.done.samples += record.snapshot.sample_count() as u64;
        if self.section.as_ref().is_some_and(|section| section.bytes.len() >= SECTION_BYTES) {
            self.finish_section()?;
        }
        Ok(())
    }

    fn finish_section(&mut self) -> io::Result<()> {
        let Some(section) = self.section.take() else { return Ok(()) };
        let numbers = [section.first, section.bytes.len() as u64, section.snapshots];
        self.block(BlockKind::SectionBegins, numbers)?;
        self.out.write_all(&section.bytes)?;
        self.done.bytes += section.bytes.len() as u64;
        self.block(BlockKind::SectionEnds, numbers)?;
        self.sections += 1;
        Ok(())
    }

    fn block(&mut self, kind: BlockKind, numbers: [u64; 3]) -> io::Result<()> {
        let block = Block { kind, store_id: self.store_id, numbers }.encode();
        self.done.bytes += block.len() as u64;
        self.out.write_all(&block)
    }
}
