//! The file system as the log sees it: one small trait and the real thing.
//!
//! Every byte the buffer reads or writes goes through [`Fs`], so that a test can make any single operation fail. Nothing
//! here knows what the bytes mean, and nothing retries by itself: [`retry`] is for whoever decides to.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

/// How often a failed read is tried before its bytes are given up,
const READ_TRIES: usize = 3;
/// and the pause between two tries.
const READ_PAUSE: Duration = Duration::from_millis(1);

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// An existing file, to read.
    Read,
    /// An existing or new file, to read and overwrite in place.
    Overwrite,
    /// A file that must not exist yet, to read and write.
    CreateNew,
}

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    /// A regular file.
    File,
    /// Anything else.
    Other,
}

/// One line of a directory listing.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) kind: EntryKind,
    pub(super) len: u64,
}

/// What asking for the lock answers.
pub(super) enum Locking<L> {
    /// Ours until dropped.
    Held(L),
    /// Another process has it; its id where it wrote one.
    InUse { pid: Option<u32> },
}

/// How large a file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// What an unprivileged process may still write.
    pub(super) free_bytes: u64,
    pub(super) total_bytes: u64,
}

/// What is at a path that an open file had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// That file.
    Here,
    /// Another one: somebody put it there, or mounted something over it.
    Replaced,
    /// Nothing: somebody removed or moved it, or a directory above it.
    Gone,
}

/// The operations the log needs, no more.
pub(super) trait Fs: Send + 'static {
    /// An open file.
    type File: Send;
    /// A held lock; dropping it gives it back.
    type Lock: Send;

    /// Makes `path` and its missing parents (mode 0700) and the names durable.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// What is in `dir` under a name that is UTF-8.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    fn open(&self, path: &Path, access: Access) -> io::Result<Self::File>;
    fn len(&self, file: &Self::File) -> io::Result<u64>;
    /// What is at the path that `file` was opened by.
    fn standing(&self, file: &Self::File, path: &Path) -> io::Result<Standing>;
    /// May read less than asked; zero is the end.
    fn read_at(&self, file: &Self::File, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// May write less than asked.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Forces the file's data, and the metadata needed to read it, to the disk.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn lock(&self, path: &Path) -> io::Result<Locking<Self::Lock>>;
    /// Whether whoever locks `path` now meets this lock.
    fn is_met(&self, lock: &Self::Lock, path: &Path) -> bool;
    fn space(&self, dir: &Path) -> io::Result<Space>;

    /// Reads exactly as much as asked.
    ///
    /// # Errors
    /// `UnexpectedEof` where the file ends before.
    fn read_exact_at(&self, file: &Self::File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.read_at(file, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    bytes = &mut bytes[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes everything; after an error an unknown part of it is in the file.
    fn write_all_at(&self, file: &Self::File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(file, bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Tries a read a few times: some disks give the bytes in the end.
pub(super) fn retry<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 1;
    loop {
        match read() {
            Err(error) if tries < READ_TRIES => {
                tracing::debug!(%error, tries, "a read failed");
                std::thread::sleep(READ_PAUSE);
                tries += 1;
            }
            other => return other,
        }
    }
}

/// `EIO`, for which Rust has no kind.
pub(super) fn is_disk_error(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// The kernel's file system.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RealFs;

/// Only the owner reads what the containers do.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
/// More than a process id and a newline.
const LOCK_TEXT_MAX_BYTES: u64 = 32;

impl Fs for RealFs {
    type File = File;
    type Lock = File;

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            self.create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(DIR_MODE).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error),
            // A parent we may not open (mode 0711) is one we did not make; its own durability is its owner's.
            Ok(()) => match path.parent().map(|parent| self.sync_dir(parent)) {
                Some(Err(error)) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
                _ => Ok(()),
            },
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            let kind = if metadata.is_file() { EntryKind::File } else { EntryKind::Other };
            if let Some(name) = entry.file_name().to_str() {
                entries.push(Entry { name: name.to_owned(), kind, len: metadata.len() });
            }
        }
        Ok(entries)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<File> {
        let mut options = OpenOptions::new();
        // A pipe that somebody put here is not waited for; for files it means nothing (open(2)).
        options.read(true).mode(FILE_MODE).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        match access {
            Access::Read => {}
            Access::Overwrite => {
                options.write(true).create(true).truncate(false);
            }
            Access::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        options.open(path)
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn standing(&self, file: &File, path: &Path) -> io::Result<Standing> {
        let there = match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Standing::Gone),
            other => other?,
        };
        let ours = file.metadata()?;
        let is_same = (ours.dev(), ours.ino()) == (there.dev(), there.ino());
        Ok(if is_same { Standing::Here } else { Standing::Replaced })
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(bytes, offset)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Locking<File>> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                // The text only helps people: a full disk must not keep us from running.
                let noted = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                if let Err(error) = noted {
                    tracing::debug!(path = %path.display(), %error, "could not note the process id in the lock file");
                }
                Ok(Locking::Held(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&mut file).take(LOCK_TEXT_MAX_BYTES).read_to_string(&mut text);
                Ok(Locking::InUse { pid: read.ok().and_then(|_| text.trim().parse().ok()) })
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn is_met(&self, lock: &File, path: &Path) -> bool {
        // Where nobody can tell, what was locked is believed to be so.
        self.standing(lock, path).unwrap_or(Standing::Here) == Standing::Here
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(Space { free_bytes: bytes(stat.f_bavail), total_bytes: bytes(stat.f_blocks) })
    }
}
