//! The file system as the log sees it: one small trait and the real thing.
//!
//! Every byte the buffer reads or writes goes through [`Fs`], so that a test can make any single operation fail. Nothing
//! here knows what the bytes mean, and nothing retries by itself: [`retry`] is for whoever decides to.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::lock_note::{LockNote, NOTE_MAX_BYTES};

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
    /// What a directory takes itself; on many file systems it never shrinks.
    fn dir_len(&self, dir: &Path) -> io::Result<u64>;
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
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// The kernel's file system.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RealFs;

/// Only the owner reads what the containers do.
const FILE_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;
const ROOT: u32 = 0;

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
            Ok(()) => {
                hand_over_directory(path);
                // A parent we may not open (mode 0711) is one we did not make; its own durability is its owner's.
                match path.parent().map(|parent| self.sync_dir(parent)) {
                    Some(Err(error)) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
                    _ => Ok(()),
                }
            }
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
        match access {
            Access::Read => readable().open(path),
            Access::Overwrite => open_or_create(path),
            Access::CreateNew => create(path),
        }
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn dir_len(&self, dir: &Path) -> io::Result<u64> {
        let metadata = std::fs::metadata(dir)?;
        // In units of 512 bytes (stat(2)).
        Ok(metadata.len().max(metadata.blocks() * 512))
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
        let mut file = match open_or_create(path) {
            // Nobody can write there, so what is held by reading is held.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => readable().open(path)?,
            opened => opened?,
        };
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match file.try_lock() {
            Ok(()) => {
                // The text only helps people: a full disk must not keep us from running.
                let noted = file.set_len(0).and_then(|()| write!(file, "{}", LockNote::own()));
                if let Err(error) = noted {
                    tracing::debug!(path = %path.display(), %error, "could not note the process id in the lock file");
                }
                Ok(Locking::Held(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let read = (&mut file).take(NOTE_MAX_BYTES).read_to_string(&mut text);
                Ok(Locking::InUse { pid: read.ok().and_then(|_| LockNote::parse(&text).pid) })
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

fn readable() -> OpenOptions {
    let mut options = OpenOptions::new();
    // A pipe that somebody put here is not waited for; for files it means nothing (open(2)).
    options.read(true).mode(FILE_MODE).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options
}

fn create(path: &Path) -> io::Result<File> {
    let file = readable().write(true).create_new(true).open(path)?;
    hand_over(&file, path);
    Ok(file)
}

/// Whether it was made here must be known, and nothing is made through a link: else whoever may write to the directory
/// would be given a file of root's.
fn open_or_create(path: &Path) -> io::Result<File> {
    let open = || readable().write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match create(path) {
            // Another process was faster, or it is a link that leads nowhere; the directory is not what is missing.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Errno::LOOP.into(),
                _ => error,
            }),
            made => made,
        },
        there => there,
    }
}

fn hand_over_directory(path: &Path) {
    let flags = (OFlags::DIRECTORY | OFlags::NOFOLLOW).bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(made) => hand_over(&made, path),
        Err(error) => tracing::debug!(path = %path.display(), %error, "could not open a directory that was just made"),
    }
}

/// Gives what root has just made at `path` to the owner of the directory it is in: an agent that is not root must be able
/// to use what somebody's `sudo outhaul buffer` leaves. Where that fails, it is still root's to use.
fn hand_over(made: &File, path: &Path) {
    let above = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let given = made.metadata().and_then(|made_as| {
        let owner = std::fs::metadata(above)?;
        if made_as.uid() != ROOT || owner.uid() == ROOT {
            return Ok(());
        }
        fchown(made, Some(owner.uid()), Some(owner.gid()))
    });
    if let Err(error) = given {
        tracing::debug!(path = %path.display(), %error, "could not be given to the owner of its directory");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    const NOBODY: u32 = 65534;

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_its_directory_and_what_was_there_stays_whose_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        std::fs::write(&there, "").unwrap();
        if chown(dir.path(), Some(NOBODY), Some(NOBODY)).is_err() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let below = dir.path().join("v1/quarantine");
        RealFs.create_dir_all(&below).unwrap();
        RealFs.open(&below.join("new"), Access::CreateNew).unwrap();
        RealFs.open(&below.join("cursor"), Access::Overwrite).unwrap();
        assert!(matches!(RealFs.lock(&below.join("lock")), Ok(Locking::Held(_))));
        RealFs.open(&there, Access::Overwrite).unwrap();
        let owner = |path: &Path| {
            let metadata = std::fs::metadata(path).unwrap();
            (metadata.uid(), metadata.gid())
        };
        for made in ["", "new", "cursor", "lock"] {
            assert_eq!(owner(&below.join(made)), (NOBODY, NOBODY), "{made}");
        }
        assert_eq!(owner(&dir.path().join("v1")), (NOBODY, NOBODY));
        assert_eq!(owner(&there), (ROOT, ROOT));
    }

    #[test]
    fn no_file_is_made_where_a_link_points_to() {
        let dir = tempfile::tempdir().unwrap();
        let (link, elsewhere) = (dir.path().join("lock"), dir.path().join("elsewhere"));
        symlink(&elsewhere, &link).unwrap();
        let error = RealFs.open(&link, Access::Overwrite).err().unwrap();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()), "else the directory would be made anew");
        assert!(RealFs.lock(&link).is_err());
        assert!(!elsewhere.exists());
    }
}
