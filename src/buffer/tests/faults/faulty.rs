//! The real file system, failing on demand.

use std::fs::File;

use super::*;

/// What an operation does to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Read,
    Write,
    Sync,
    Other,
}

/// When an operation fails, and how.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The nth operation from now, and only that.
    Nth { nth: u64, errno: i32 },
    /// Every operation of a kind, until told otherwise.
    All { op: Op, errno: i32 },
}

/// The real file system, failing on demand. A write that fails has written half.
#[derive(Clone, Default)]
pub(super) struct FaultyFs {
    /// What the file system says of itself, where it lies.
    pub(super) space: Arc<Mutex<Option<Space>>>,
    /// What it says of a directory.
    pub(super) dir_len: Arc<Mutex<Option<u64>>>,
    fault: Arc<Mutex<Option<Fault>>>,
    done: Arc<AtomicU64>,
    /// Syncs that were asked for on a file after one of it had failed.
    pub(super) synced_after_failure: Arc<AtomicU64>,
    failed_syncs: Arc<Mutex<Vec<u64>>>,
}

impl FaultyFs {
    pub(super) fn set(&self, fault: Option<Fault>) {
        self.done.store(0, Ordering::Relaxed);
        *self.fault.lock().unwrap() = fault;
    }

    fn fails(&self, op: Op) -> Option<io::Error> {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let errno = match *self.fault.lock().unwrap() {
            Some(Fault::Nth { nth, errno }) if nth == done => errno,
            Some(Fault::All { op: failing, errno }) if failing == op => errno,
            _ => return None,
        };
        Some(io::Error::from_raw_os_error(errno))
    }

    fn gate(&self, op: Op) -> io::Result<()> {
        self.fails(op).map_or(Ok(()), Err)
    }
}

fn inode(file: &File) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap())
}

impl Fs for FaultyFs {
    type File = File;
    type Lock = File;

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.gate(Op::Other)?;
        RealFs.create_dir_all(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        RealFs.list(dir)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        self.gate(if access == Access::CreateNew { Op::Write } else { Op::Other })?;
        RealFs.open(path, access)
    }
    fn len(&self, file: &File) -> io::Result<u64> {
        self.gate(Op::Other)?;
        RealFs.len(file)
    }
    fn dir_len(&self, dir: &Path) -> io::Result<u64> {
        self.dir_len.lock().unwrap().map_or_else(|| RealFs.dir_len(dir), Ok)
    }
    fn standing(&self, file: &File, path: &Path) -> io::Result<Standing> {
        RealFs.standing(file, path)
    }
    fn is_met(&self, lock: &File, path: &Path) -> bool {
        RealFs.is_met(lock, path)
    }
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.gate(Op::Read)?;
        RealFs.read_at(file, bytes, offset)
    }
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let Some(error) = self.fails(Op::Write) else { return RealFs.write_at(file, bytes, offset) };
        RealFs.write_all_at(file, &bytes[..bytes.len() / 2], offset)?;
        Err(error)
    }
    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.gate(Op::Other)?;
        RealFs.truncate(file, len)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        let mut failed = self.failed_syncs.lock().unwrap();
        if failed.contains(&inode(file)) {
            self.synced_after_failure.fetch_add(1, Ordering::Relaxed);
        }
        let result = self.gate(Op::Sync);
        if result.is_err() {
            failed.push(inode(file));
        }
        result
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.gate(Op::Other)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.gate(Op::Other)?;
        RealFs.remove(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Locking<File>> {
        RealFs.lock(path)
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.space.lock().unwrap().map_or_else(|| RealFs.space(dir), Ok)
    }
}
