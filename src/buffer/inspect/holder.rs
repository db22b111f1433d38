//! Who has a buffer, found out without touching its lock: an agent that starts at this very moment must not be refused
//! because somebody looked.
//!
//! The kernel lists every lock of this process' namespace in `/proc/locks` (`proc_locks(5)`): kind, process, device and
//! inode. A process in another PID namespace is not listed there, unless that one is below ours; so whoever locks a buffer
//! notes its namespace, and a buffer that somebody in another one left open may still be in use.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::fs::{Access, Fs as _, RealFs};
use super::super::lock_note::{LockNote, NOTE_MAX_BYTES};

/// Whether a process has the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This one, where it is known.
    Process(Option<u32>),
    /// None.
    Nobody,
    /// The system does not tell, or it may be one that is not seen from here.
    Unknown,
}

impl Holder {
    /// Who holds the lock file at `path`.
    pub(super) fn of(path: &Path) -> Self {
        let file = match RealFs.open(path, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Self::Unknown,
            Err(_) => return Self::Nobody,
            Ok(file) => file,
        };
        let Ok(metadata) = file.metadata() else { return Self::Unknown };
        if !metadata.is_file() {
            return Self::Nobody;
        }
        let Ok(locks) = std::fs::read_to_string("/proc/locks") else { return Self::Unknown };
        let mut text = String::new();
        let read = file.take(NOTE_MAX_BYTES).read_to_string(&mut text);
        let note = read.map_or_else(|_| LockNote::default(), |_| LockNote::parse(&text));
        Self::in_locks(&locks, metadata.dev(), metadata.ino(), note.pid).as_seen_by(LockNote::own(), note)
    }

    /// A process that is not seen is no sign that there is none.
    fn as_seen_by(self, us: LockNote, last: LockNote) -> Self {
        match self {
            Self::Nobody if !us.sees(last) => Self::Unknown,
            told => told,
        }
    }

    /// Who opens a buffer notes that at once: what was closed since `self` was found out, nobody has.
    pub(super) fn unless_closed(self, is_closed: bool) -> Self {
        if is_closed && self == Self::Unknown { Self::Nobody } else { self }
    }

    fn in_locks(locks: &str, device: u64, inode: u64, noted: Option<u32>) -> Self {
        let device = format!("{:02x}:{:02x}", rustix::fs::major(device), rustix::fs::minor(device));
        let holder = locks.lines().filter_map(Lock::parse).find(|lock| {
            // Some file systems (btrfs, overlay) show another device here than in a file's status.
            lock.inode == inode && (lock.device == device || (noted.is_some() && lock.pid == noted))
        });
        holder.map_or(Self::Nobody, |lock| Self::Process(lock.pid.or(noted)))
    }

    /// Whether what lies at the end of the log may still be in the making.
    pub fn may_write(self) -> bool {
        self != Self::Nobody
    }
}

/// One line of `/proc/locks`.
struct Lock<'a> {
    pid: Option<u32>,
    device: &'a str,
    inode: u64,
}

impl<'a> Lock<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        // A line with `->` is a process that waits.
        let [_, "FLOCK", _, "WRITE", pid, place, ..] = words[..] else { return None };
        let (device, inode) = place.rsplit_once(':')?;
        Some(Self { pid: pid.parse().ok(), device, inode: inode.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 77 08:01:4242 0 EOF\n\
                         2: FLOCK  ADVISORY  WRITE 123 08:01:4242 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 124 08:01:4243 0 EOF\n\
                         3: FLOCK  ADVISORY  READ 125 08:01:4244 0 EOF\n\
                         4: FLOCK  ADVISORY  WRITE 126 00:2d:4245 0 EOF\n";

    #[test]
    fn only_an_exclusive_lock_on_this_very_file_counts() {
        let device = rustix::fs::makedev(8, 1);
        let of = |inode, noted| Holder::in_locks(LOCKS, device, inode, noted);
        assert_eq!(of(4242, None), Holder::Process(Some(123)));
        assert_eq!(of(4243, None), Holder::Nobody, "it only waits");
        assert_eq!(of(4244, None), Holder::Nobody, "a shared lock is nobody's of ours");
        assert_eq!(of(4245, None), Holder::Nobody, "another device");
        assert_eq!(of(4245, Some(126)), Holder::Process(Some(126)), "overlay shows another device, the note is right");
    }

    #[test]
    fn a_lock_that_is_held_is_seen_and_one_given_back_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(Holder::of(&path), Holder::Nobody, "no file");
        std::fs::write(&path, LockNote::own().to_string()).unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(Holder::of(&path), Holder::Nobody);
        file.try_lock().unwrap();
        assert_eq!(Holder::of(&path), Holder::Process(Some(std::process::id())));
        file.unlock().unwrap();
        assert_eq!(Holder::of(&path), Holder::Nobody);
    }

    #[test]
    fn one_that_another_namespace_hides_may_have_what_was_not_closed() {
        let note = |namespace| LockNote { pid: Some(7), namespace: Some(namespace) };
        let seen = Holder::Nobody.as_seen_by(note(1), note(2));
        assert_eq!(seen, Holder::Unknown);
        assert_eq!((seen.unless_closed(false), seen.unless_closed(true)), (Holder::Unknown, Holder::Nobody));
        assert_eq!(Holder::Nobody.as_seen_by(note(1), note(1)), Holder::Nobody);
        let known = Holder::Process(Some(7));
        assert_eq!(known.as_seen_by(note(1), note(2)).unless_closed(true), known);
    }

    #[test]
    fn what_has_the_name_of_the_lock_and_is_no_file_is_nobodys_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        crate::buffer::tests::make_pipe(&path);
        assert_eq!(Holder::of(&path), Holder::Nobody);
    }
}
