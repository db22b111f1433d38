//! A disk in memory that does everything a disk is allowed to do.
//!
//! It keeps two images of every file and of the names: the page cache, which processes see, and what lies on the platter.
//! [`SimFs::power_loss`] leaves any mixture of the two that a journaling file system may leave (Pillai et al., "All File
//! Systems Are Not Created Equal", OSDI 2014): any subset of the unsynced sectors, a length that grew without its bytes
//! (zeros there, or what a deleted file left), names that came or went without their directory having been synced, in any
//! order among different names. A failed sync marks the pages clean, as Linux does (Rebello et al., "Can Applications
//! Recover from fsync Failures?", ATC 2020): they stay readable, and a later sync that succeeds does not write them.
//!
//! Everything is decided by one seed; the same operations on the same seed do the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::MutexGuard;

use super::*;
use crate::buffer::fs::EntryKind;
use crate::buffer::log::{BLOCK_BYTES, blocks};

mod disk;
mod operations;

use disk::{Disk, change_name, lose_power};

/// What a disk writes as one unit.
const SECTOR: usize = 512;
/// Sectors of removed files that may turn up in new ones.
const OLD_SECTORS_MAX: usize = 64;

pub(super) const EIO: i32 = 5;
pub(super) const ENOSPC: i32 = 28;
pub(super) const EROFS: i32 = 30;

/// A small deterministic generator (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; zero where `limit` is zero.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit as u64).max(1)).unwrap()
    }

    pub(super) fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// What an operation does to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Read,
    Write,
    Sync,
    /// Making, removing, cutting; taking a lock.
    Change,
    /// Looking: lengths, links, listings, free space.
    Look,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The nth operation from now, and only that.
    Nth { nth: u64, errno: i32 },
    /// The nth operation from now and all that follow.
    From { nth: u64, errno: i32 },
    /// All of a kind.
    All { op: Op, errno: i32 },
    /// Everything that changes the disk, as after a remount.
    ReadOnly,
    /// In the middle of the nth operation from now the process ends.
    DieAt { nth: u64 },
}

/// The disk; clones share it.
#[derive(Clone)]
pub(super) struct SimFs(Arc<Mutex<Disk>>);

pub(super) struct SimFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
}

pub(super) struct SimLock {
    disk: Arc<Mutex<Disk>>,
    path: PathBuf,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut disk = self.disk.lock().unwrap();
        if let Some(inode) = disk.inodes.get_mut(&self.inode) {
            inode.opens -= 1;
        }
        if !disk.is_named(self.inode) {
            disk.forget_unused();
        }
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.lock().unwrap().locked.remove(&self.path);
    }
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl SimFs {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk::new(seed))))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    pub(super) fn set(&self, fault: Option<Fault>) {
        let mut disk = self.disk();
        disk.done = 0;
        disk.fault = fault;
    }

    /// A look at the disk that no process takes: nothing fails by it, and it does not count.
    pub(super) fn peek<T>(&self, look: impl FnOnce(&Self) -> T) -> T {
        let (fault, done) = {
            let mut disk = self.disk();
            (disk.fault.take(), disk.done)
        };
        let seen = look(self);
        let mut disk = self.disk();
        (disk.fault, disk.done) = (fault, done);
        seen
    }

    /// Whether something is told to fail.
    pub(super) fn faulty(&self) -> bool {
        self.disk().fault.is_some()
    }

    /// Whether a write now could fail.
    pub(super) fn is_in_trouble(&self) -> bool {
        let disk = self.disk();
        disk.dead || disk.fault.is_some() || disk.others > 0
    }

    /// Operations since the last [`SimFs::set`].
    pub(super) fn operations(&self) -> u64 {
        self.disk().done
    }

    /// Whether the process that used it ended in the middle of an operation.
    pub(super) fn is_dead(&self) -> bool {
        self.disk().dead
    }

    pub(super) fn set_capacity(&self, bytes: u64) {
        self.disk().capacity = bytes;
    }

    /// What other processes take of the capacity.
    pub(super) fn set_others(&self, bytes: u64) {
        self.disk().others = bytes;
    }

    /// The most that was ever taken since this was last asked.
    pub(super) fn take_peak(&self) -> u64 {
        let mut disk = self.disk();
        let now = disk.used();
        std::mem::replace(&mut disk.peak, now)
    }

    /// Bytes that were read since this was last asked.
    pub(super) fn take_read_bytes(&self) -> u64 {
        std::mem::take(&mut self.disk().read_bytes)
    }

    /// How often a sync was asked for on a file of which one had failed, without anything having been written since.
    pub(super) fn synced_after_failure(&self) -> u64 {
        self.disk().synced_after_failure
    }

    /// The process is gone, the machine is not: nothing that was written is lost.
    pub(super) fn crash(&self) {
        let mut disk = self.disk();
        assert!(disk.inodes.values().all(|inode| inode.opens == 0), "the process still has files open");
        if std::mem::take(&mut disk.dead) {
            disk.fault = None;
        }
        disk.locked.clear();
        disk.forget_unused();
    }

    /// The machine is gone: what was not synced is there, or not, or in part.
    pub(super) fn power_loss(&self, seed: u64) {
        self.crash();
        let mut disk = self.disk();
        let mut rng = Rng(seed);
        let survive = [0, 50, 90, 100][rng.below(4)];
        let mut changes: BTreeMap<PathBuf, Vec<Option<u64>>> = BTreeMap::new();
        for (path, inode) in std::mem::take(&mut disk.pending) {
            changes.entry(path).or_default().push(inode);
        }
        for (path, inodes) in changes {
            let kept = if rng.below(100) < survive { inodes.len() } else { rng.below(inodes.len() + 1) };
            for inode in inodes.into_iter().take(kept) {
                change_name(&mut disk.durable_names, path.clone(), inode);
            }
        }
        disk.names = disk.durable_names.clone();
        disk.forget_unused();
        let old_sectors = disk.old_sectors.clone();
        for inode in disk.inodes.values_mut() {
            lose_power(inode, survive, &old_sectors, &mut rng);
        }
        disk.peak = 0;
    }

    fn inode_of(disk: &mut Disk, path: &Path) -> Option<u64> {
        disk.names.get(path).copied()
    }

    /// Paths of the files called like segments, oldest first.
    pub(super) fn segments(&self) -> Vec<PathBuf> {
        self.files().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect()
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.disk().names.keys().cloned().collect()
    }

    pub(super) fn len_of(&self, path: &Path) -> usize {
        let disk = self.disk();
        disk.names.get(path).and_then(|id| disk.inodes.get(id)).map_or(0, |inode| inode.cache.len())
    }

    /// A bit flips on the platter, and is read as such.
    pub(super) fn flip(&self, path: &Path, bit: usize) {
        let mut disk = self.disk();
        let Some(id) = Self::inode_of(&mut disk, path) else { return };
        let inode = disk.inodes.get_mut(&id).unwrap();
        for image in [&mut inode.cache, &mut inode.durable] {
            if let Some(byte) = image.get_mut(bit / 8) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Somebody cuts a file.
    pub(super) fn cut(&self, path: &Path, len: usize) {
        let mut disk = self.disk();
        let Some(id) = Self::inode_of(&mut disk, path) else { return };
        let inode = disk.inodes.get_mut(&id).unwrap();
        inode.cache.truncate(len);
        inode.durable.truncate(len);
    }

    /// Somebody removes a file, for good.
    pub(super) fn delete(&self, path: &Path) {
        let mut disk = self.disk();
        drop(disk.unname(path));
        if let Some(dir) = path.parent() {
            disk.sync_names(dir);
        }
    }

    /// Somebody removes a directory and everything in it, for good.
    pub(super) fn delete_dir(&self, dir: &Path) {
        for path in self.files().iter().filter(|path| path.starts_with(dir)) {
            self.delete(path);
        }
        self.disk().dirs.remove(dir);
    }

    /// The disk cannot read this file any more, or can again.
    pub(super) fn set_unreadable(&self, path: &Path, unreadable: bool) {
        let mut disk = self.disk();
        if let Some(id) = Self::inode_of(&mut disk, path) {
            disk.inodes.get_mut(&id).unwrap().unreadable = unreadable;
        }
    }

    fn open_inode(&self, disk: &mut Disk, inode: u64) -> SimFile {
        disk.inodes.get_mut(&inode).unwrap().opens += 1;
        SimFile { disk: Arc::clone(&self.0), inode }
    }
}
