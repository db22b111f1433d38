//! From a file, whole or not.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::model::{Interner, Snapshot};

use super::super::fs::{Access, Fs as _, RealFs};
use super::super::record::Seed;
use super::super::stretch::Stretch;
use super::{BLOCK_LEN, Block, BlockKind, Later, MAGIC};

/// How much is read at a time when looking for a block.
const SCAN_BYTES: usize = 64 << 10;

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// The system says no.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It holds nothing of ours.
    #[error("{} is not an export of a buffer: it holds no block of one", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// Of a later version.
    #[error("{} was written by a later version of outhaul; import it with that one", path.display())]
    Later {
        /// The file.
        path: PathBuf,
    },
}

/// One snapshot and where it comes from.
#[derive(Clone, Debug)]
pub struct CarriedSnapshot {
    /// The buffer it was in.
    pub store_id: u128,
    /// Its position there.
    pub position: u64,
    /// What it is.
    pub snapshot: Snapshot,
}

struct Section {
    store_id: u128,
    first: u64,
    start: u64,
    end: u64,
}

/// An export that was looked through.
pub struct ExportFile {
    path: PathBuf,
    file: File,
    len: u64,
    sections: Vec<Section>,
    /// Snapshots and samples it should hold; `None` where it is cut off or its last block is damaged.
    pub promised: Option<(u64, u64)>,
    /// Bytes that belong to nothing.
    pub stray_bytes: u64,
}

impl ExportFile {
    /// Opens a file and finds its sections.
    ///
    /// # Errors
    /// [`CarryError`]; damage is none.
    pub fn open(path: &Path) -> Result<Self, CarryError> {
        let unreadable = |source| CarryError::Unreadable { path: path.to_owned(), source };
        let file = RealFs.open(path, Access::Read).map_err(unreadable)?;
        let len = RealFs.len(&file).map_err(unreadable)?;
        let mut export =
            Self { path: path.to_owned(), file, len, sections: Vec::new(), promised: None, stray_bytes: 0 };
        match export.find_sections().map_err(unreadable)? {
            Ok(0) => Err(CarryError::NotOurs { path: path.to_owned() }),
            Err(Later) if export.sections.is_empty() => Err(CarryError::Later { path: path.to_owned() }),
            Ok(_) | Err(Later) => Ok(export),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many blocks were found.
    fn find_sections(&mut self) -> io::Result<Result<u64, Later>> {
        let (mut accounted, mut blocks) = (0, 0);
        while let Some((offset, block)) = self.next_block(accounted)? {
            let block = match block {
                Ok(block) => block,
                Err(later) => return Ok(Err(later)),
            };
            blocks += 1;
            let after = offset + BLOCK_LEN as u64;
            let [first, bytes, _] = block.numbers;
            let mut from = offset;
            let mut to = after;
            match block.kind {
                BlockKind::SectionBegins => {
                    to = after.saturating_add(bytes).min(self.len);
                    self.sections.push(Section { store_id: block.store_id, first, start: after, end: to });
                }
                // Its begin was damaged.
                BlockKind::SectionEnds if self.sections.last().is_none_or(|last| last.end != offset) => {
                    from = offset.saturating_sub(bytes).max(accounted);
                    self.sections.push(Section { store_id: block.store_id, first, start: from, end: offset });
                }
                BlockKind::File | BlockKind::SectionEnds => {}
                BlockKind::End => self.promised = Some((block.numbers[1], block.numbers[0])),
            }
            self.stray_bytes += from - accounted;
            accounted = to;
        }
        self.stray_bytes += self.len - accounted;
        Ok(Ok(blocks))
    }

    fn next_block(&self, from: u64) -> io::Result<Option<(u64, Result<Block, Later>)>> {
        let mut from = from;
        let mut chunk = vec![0; SCAN_BYTES];
        while self.len.saturating_sub(from) >= BLOCK_LEN as u64 {
            let len = usize::try_from(self.len - from).unwrap_or(usize::MAX).min(SCAN_BYTES);
            RealFs.read_exact_at(&self.file, &mut chunk[..len], from)?;
            for (at, window) in chunk[..len].windows(BLOCK_LEN).enumerate() {
                if window[0] == MAGIC[0]
                    && let Some(block) = window.first_chunk().and_then(Block::parse)
                {
                    return Ok(Some((from + at as u64, block)));
                }
            }
            from += (len - BLOCK_LEN + 1) as u64;
        }
        Ok(None)
    }

    /// Calls `found` with every snapshot that can be read. Returns how many records could not be.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn each(
        &self,
        progress: &mut dyn FnMut(u64, u64),
        found: &mut dyn FnMut(CarriedSnapshot) -> ControlFlow<()>,
    ) -> io::Result<u64> {
        let (mut damaged, mut interner) = (0, Interner::default());
        for section in &self.sections {
            let stretch = Stretch {
                fs: &RealFs,
                file: self.file.try_clone()?,
                seed: Seed::new(section.store_id, section.first),
                start: section.start,
                end: section.end,
                last: u64::MAX,
            };
            let flow = stretch.each(&mut interner, |record| {
                progress(record.next, self.len);
                let Some(snapshot) = record.snapshot() else {
                    damaged += 1;
                    return ControlFlow::Continue(());
                };
                found(CarriedSnapshot { store_id: section.store_id, position: record.header.seq, snapshot })
            })?;
            if flow.is_break() {
                break;
            }
            interner.forget_unused();
        }
        Ok(damaged)
    }
}
