//! Two images of everything: what processes see, and what lies on the platter.

use super::*;

/// Fewer than there is room for, so that a small buffer comes to it.
const NAMES_IN_A_BLOCK: u64 = 48;

#[derive(Default)]
pub(super) struct Inode {
    /// What processes read.
    pub(super) cache: Vec<u8>,
    /// What is on the platter.
    pub(super) durable: Vec<u8>,
    /// Sectors of the cache that a sync would write.
    pub(super) dirty: BTreeSet<usize>,
    pub(super) opens: usize,
    pub(super) unreadable: bool,
    pub(super) failed_sync: bool,
}

impl Inode {
    pub(super) fn touch(&mut self, from: usize, to: usize) {
        self.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
    }

    pub(super) fn write_back(&mut self, sector: usize) {
        let from = sector * SECTOR;
        let to = (from + SECTOR).min(self.cache.len());
        if from < to {
            if self.durable.len() < to {
                self.durable.resize(to, 0);
            }
            self.durable[from..to].copy_from_slice(&self.cache[from..to]);
        }
    }

    pub(super) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.write_back(sector);
        }
        self.durable.resize(self.cache.len(), 0);
    }
}

pub(super) struct Disk {
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) last_inode: u64,
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    /// Changes of names since their directory was synced, in order; `None` removes.
    pub(super) pending: Vec<(PathBuf, Option<u64>)>,
    /// With the blocks each takes, which never become fewer.
    pub(super) dirs: BTreeMap<PathBuf, u64>,
    pub(super) locked: BTreeSet<PathBuf>,
    pub(super) capacity: u64,
    pub(super) others: u64,
    pub(super) fault: Option<Fault>,
    pub(super) done: u64,
    pub(super) dead: bool,
    pub(super) rng: Rng,
    pub(super) old_sectors: Vec<Vec<u8>>,
    pub(super) peak: u64,
    pub(super) synced_after_failure: u64,
    pub(super) read_bytes: u64,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            inodes: BTreeMap::new(),
            last_inode: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            dirs: BTreeMap::new(),
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
            read_bytes: 0,
        }
    }

    /// Counts an operation; says how it fails.
    pub(super) fn gate(&mut self, op: Op) -> io::Result<()> {
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

    pub(super) fn used(&self) -> u64 {
        let size = |id: &u64| blocks(self.inodes[id].cache.len() as u64);
        let unnamed = self.inodes.iter().filter(|(id, inode)| inode.opens > 0 && !self.is_named(**id));
        let files = self.names.values().map(size).sum::<u64>() + unnamed.map(|(id, _)| size(id)).sum::<u64>();
        files + self.dirs.values().sum::<u64>() * BLOCK_BYTES
    }

    pub(super) fn is_named(&self, id: u64) -> bool {
        self.names.values().any(|named| *named == id)
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.others).saturating_sub(self.used())
    }

    pub(super) fn note_peak(&mut self) {
        self.peak = self.peak.max(self.used());
    }

    pub(super) fn forget_unused(&mut self) {
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

    pub(super) fn name(&mut self, path: &Path) -> u64 {
        self.last_inode += 1;
        self.inodes.insert(self.last_inode, Inode::default());
        self.names.insert(path.to_owned(), self.last_inode);
        self.pending.push((path.to_owned(), Some(self.last_inode)));
        self.grow_dir(path);
        self.last_inode
    }

    /// As ext4: one block, and when that is full an index and two halves.
    fn grow_dir(&mut self, path: &Path) {
        let names = self.names.keys().filter(|other| other.parent() == path.parent()).count() as u64;
        let needed = if names <= NAMES_IN_A_BLOCK { 1 } else { names / NAMES_IN_A_BLOCK + 2 };
        if let Some(blocks) = path.parent().and_then(|dir| self.dirs.get_mut(dir)) {
            *blocks = needed.max(*blocks);
        }
        self.note_peak();
    }

    pub(super) fn unname(&mut self, path: &Path) -> io::Result<()> {
        self.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        self.pending.push((path.to_owned(), None));
        self.forget_unused();
        Ok(())
    }

    pub(super) fn sync_names(&mut self, dir: &Path) {
        let (now, later) =
            std::mem::take(&mut self.pending).into_iter().partition(|(path, _)| path.parent() == Some(dir));
        self.pending = later;
        let now: Vec<(PathBuf, Option<u64>)> = now;
        for (path, inode) in now {
            change_name(&mut self.durable_names, path, inode);
        }
        self.forget_unused();
    }

    pub(super) fn write(&mut self, id: u64, bytes: &[u8], offset: u64) -> io::Result<usize> {
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

pub(super) fn change_name(names: &mut BTreeMap<PathBuf, u64>, path: PathBuf, inode: Option<u64>) {
    match inode {
        Some(inode) => {
            names.insert(path, inode);
        }
        None => {
            names.remove(&path);
        }
    }
}

/// What is left of a file.
pub(super) fn lose_power(inode: &mut Inode, survive: usize, old_sectors: &[Vec<u8>], rng: &mut Rng) {
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
