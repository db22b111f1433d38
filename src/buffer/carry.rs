//! A file that carries snapshots from one buffer to another, across a gap no network bridges.
//!
//! It describes and checks itself: whatever part of it arrives is read, and what does not is counted. Its records are those
//! of a segment (`record`), with their positions in the buffer they come from, so that the same snapshot is recognised in
//! two files. They stand in sections of their own, each with its own definitions, so that reading takes the memory of one.
//!
//! All blocks are 64 bytes, little-endian: magic 8, kind 2, version 2, zero 4, id of the store 16, three numbers of 8,
//! zero 4, CRC-32C of bytes 0 to 59.
//!
//! | kind | | its numbers |
//! |---|---|---|
//! | 1 | the first block of the file | when it was written (ms), 0, 0 |
//! | 2 | a section begins; its records follow | first position (seeds their checksums), bytes of its records, snapshots |
//! | 3 | a section ends | the same again, for when the block before it is damaged |
//! | 4 | the last block of the file | samples, snapshots, sections |

mod read;
mod write;

use super::record::{le_u16, le_u32, le_u64};

pub use read::{CarriedSnapshot, CarryError, ExportFile};
pub use write::{Exported, export};

const MAGIC: [u8; 8] = *b"\x89ohexp\r\n";
const VERSION: u16 = 1;
const BLOCK_LEN: usize = 64;

/// What a block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BlockKind {
    File,
    SectionBegins,
    SectionEnds,
    End,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    kind: BlockKind,
    store_id: u128,
    numbers: [u64; 3],
}

/// Whole, but of a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Later;

impl Block {
    fn encode(&self) -> [u8; BLOCK_LEN] {
        let kind: u16 = match self.kind {
            BlockKind::File => 1,
            BlockKind::SectionBegins => 2,
            BlockKind::SectionEnds => 3,
            BlockKind::End => 4,
        };
        let mut bytes = [0; BLOCK_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&kind.to_le_bytes());
        bytes[10..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.store_id.to_le_bytes());
        for (place, number) in bytes[32..56].chunks_exact_mut(8).zip(self.numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` where there is no block.
    fn parse(bytes: &[u8; BLOCK_LEN]) -> Option<Result<Self, Later>> {
        if bytes[..8] != MAGIC || le_u32(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return None;
        }
        if le_u16(bytes, 10) != VERSION {
            return Some(Err(Later));
        }
        let kind = match le_u16(bytes, 8) {
            1 => BlockKind::File,
            2 => BlockKind::SectionBegins,
            3 => BlockKind::SectionEnds,
            4 => BlockKind::End,
            _ => return None,
        };
        let store_id = u128::from(le_u64(bytes, 16)) | u128::from(le_u64(bytes, 24)) << 64;
        Some(Ok(Self { kind, store_id, numbers: [le_u64(bytes, 32), le_u64(bytes, 40), le_u64(bytes, 48)] }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_block_is_read_back_and_any_flipped_bit_makes_it_none(store_id: u128, numbers: [u64; 3], bit in 0..BLOCK_LEN * 8) {
            let block = Block { kind: BlockKind::SectionBegins, store_id, numbers };
            let mut bytes = block.encode();
            prop_assert_eq!(Block::parse(&bytes), Some(Ok(block)));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Block::parse(&bytes), None);
        }
    }
}
