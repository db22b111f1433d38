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

mod operations;

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

#[derive(Default)]
struct Inode {
    /// What processes read.
    cache: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// Sectors of the cache that a sync would write.
    dirty: BTreeSet<usize>,
    opens: usize,
    unreadable: bool,
    failed_sync: bool,
}

impl Inode {
    fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
    }

    fn write_back(&mut self, sector: usize) {
        let from = sector * SECTOR;
        let to = (from + SECTOR).min(self.cache.len());
        if from < to {
            if self.durable.len() < to {
                self.durable.resize(to, 0);
            }
            self.durable[from..to].copy_from_slice(&self.cache[from..to]);
        }
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.write_back(sector);
        }
        self.durable.resize(self.cache.len(), 0);
    }
}

struct Disk {
    inodes: BTreeMap<u64, Inode>,
    last_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since their directory was synced, in order; `None` removes.
    pending: Vec<(PathBuf, Option<u64>)>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    capacity: u64,
    others: u64,
    fault: Option<Fault>,
    done: u64,
    dead: bool,
    rng: Rng,
    old_sectors: Vec<Vec<u8>>,
    peak: u64,
    synced_after_failure: u64,
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

impl Disk {
    /// Counts an operation; says how it fails.
    fn gate(&mut self, op: Op) -> io::Result<()> {
        if self.dead {
            return Err(errno(EIO));
        }
        self.done += 1;
        match self.fault {
            Some(Fault::Nth { nth, errno: code }) if nth == self.done => Err(errno(code)),
            Some(Fault::From { nth, errno: code }) if nth <= self.done && (code != ENOSPC || op == Op::Write) => {
                Err(errno(code))
            }
            Some(Fault::All { op: failing, errno: code }) if failing == op => Err(errno(code)),
            Some(Fault::ReadOnly) if matches!(op, Op::Write | Op::Change) => Err(errno(EROFS)),
            Some(Fault::DieAt { nth }) if nth <= self.done => {
                self.dead = true;
                Err(errno(EIO))
            }
            _ => Ok(()),
        }
    }

    fn used(&self) -> u64 {
        let size = |id: &u64| blocks(self.inodes[id].cache.len() as u64);
        let unnamed = self.inodes.iter().filter(|(id, inode)| inode.opens > 0 && !self.is_named(**id));
        let files = self.names.values().map(size).sum::<u64>() + unnamed.map(|(id, _)| size(id)).sum::<u64>();
        files + self.dirs.len() as u64 * BLOCK_BYTES
    }

    fn is_named(&self, id: u64) -> bool {
        self.names.values().any(|named| *named == id)
    }

    fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.others).saturating_sub(self.used())
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.used());
    }

    fn forget_unused(&mut self) {
        let mut kept: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
        kept.extend(self.pending.iter().filter_map(|(_, inode)| *inode));
        let gone: Vec<u64> = self
            .inodes
            .iter()
            .filter(|(id, inode)| inode.opens == 0 && !kept.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            let inode = self.inodes.remove(&id).unwrap();
            self.old_sectors.extend(inode.cache.chunks(SECTOR).map(<[u8]>::to_vec));
        }
        let surplus = self.old_sectors.len().saturating_sub(OLD_SECTORS_MAX);
        self.old_sectors.drain(..surplus);
    }

    fn name(&mut self, path: &Path) -> u64 {
        self.last_inode += 1;
        self.inodes.insert(self.last_inode, Inode::default());
        self.names.insert(path.to_owned(), self.last_inode);
        self.pending.push((path.to_owned(), Some(self.last_inode)));
        self.last_inode
    }

    fn unname(&mut self, path: &Path) -> io::Result<()> {
        self.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        self.pending.push((path.to_owned(), None));
        self.forget_unused();
        Ok(())
    }

    fn sync_names(&mut self, dir: &Path) {
        let (now, later) =
            std::mem::take(&mut self.pending).into_iter().partition(|(path, _)| path.parent() == Some(dir));
        self.pending = later;
        let now: Vec<(PathBuf, Option<u64>)> = now;
        for (path, inode) in now {
            change_name(&mut self.durable_names, path, inode);
        }
        self.forget_unused();
    }

    fn write(&mut self, id: u64, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let free = self.free();
        let offset = usize::try_from(offset).unwrap();
        let inode = self.inodes.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        let room = usize::try_from(blocks(inode.cache.len() as u64) + free).unwrap_or(usize::MAX);
        let len = bytes.len().min(room.saturating_sub(offset));
        if len == 0 && !bytes.is_empty() {
            return Err(errno(ENOSPC));
        }
        let old_len = inode.cache.len();
        if old_len < offset + len {
            inode.cache.resize(offset + len, 0);
        }
        inode.cache[offset..offset + len].copy_from_slice(&bytes[..len]);
        inode.touch(offset.min(old_len), offset + len);
        // The kernel writes back when it likes.
        if self.rng.once_in(8) && !inode.dirty.is_empty() {
            let nth = self.rng.below(inode.dirty.len());
            let sector = inode.dirty.iter().nth(nth).copied().unwrap_or_default();
            inode.write_back(sector);
        }
        self.note_peak();
        Ok(len)
    }
}

fn change_name(names: &mut BTreeMap<PathBuf, u64>, path: PathBuf, inode: Option<u64>) {
    match inode {
        Some(inode) => {
            names.insert(path, inode);
        }
        None => {
            names.remove(&path);
        }
    }
}

impl SimFs {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk {
            inodes: BTreeMap::new(),
            last_inode: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            dirs: BTreeSet::new(),
            locked: BTreeSet::new(),
            capacity: u64::MAX,
            others: 0,
            fault: None,
            done: 0,
            dead: false,
            rng: Rng(seed),
            old_sectors: Vec::new(),
            peak: 0,
            synced_after_failure: 0,
        })))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    pub(super) fn set(&self, fault: Option<Fault>) {
        let mut disk = self.disk();
        disk.done = 0;
        disk.fault = fault;
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

/// What is left of a file.
fn lose_power(inode: &mut Inode, survive: usize, old_sectors: &[Vec<u8>], rng: &mut Rng) {
    let (durable, cached) = (inode.durable.len(), inode.cache.len());
    let dirty: Vec<usize> = std::mem::take(&mut inode.dirty).into_iter().collect();
    let (low, high) = (durable.min(cached), durable.max(cached));
    let len = match rng.below(4) {
        0 => durable,
        1 => cached,
        _ => low + rng.below(high - low + 1),
    };
    let mut image = std::mem::take(&mut inode.durable);
    // Blocks that were given to the file and never written.
    let garbage = rng.once_in(2) && !old_sectors.is_empty();
    while image.len() < len {
        let sector = &old_sectors.get(rng.below(old_sectors.len())).filter(|_| garbage);
        match sector {
            Some(sector) => image.extend_from_slice(sector),
            None => image.resize(image.len() + SECTOR, 0),
        }
    }
    for sector in dirty {
        let from = sector * SECTOR;
        let to = (from + SECTOR).min(cached).min(image.len());
        if from < to && rng.below(100) < survive {
            image[from..to].copy_from_slice(&inode.cache[from..to]);
        }
    }
    image.truncate(len);
    inode.cache.clone_from(&image);
    inode.durable = image;
    inode.failed_sync = false;
}
