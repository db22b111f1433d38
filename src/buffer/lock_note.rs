//! What whoever locks a buffer writes into the lock file: who it is, for people and for those who look from outside.
//!
//! The process id on the first line, its PID namespace on the second: from another one the process may not be seen.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;

/// More than a note takes.
pub(super) const NOTE_MAX_BYTES: u64 = 64;
/// The first PID namespace, from which every process of the host is seen (`include/linux/proc_ns.h`).
const FIRST_NAMESPACE: u64 = 0xEFFF_FFFC;

/// See the module; what is not known is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LockNote {
    pub(super) pid: Option<u32>,
    pub(super) namespace: Option<u64>,
}

impl LockNote {
    /// This process.
    pub(super) fn own() -> Self {
        let namespace = std::fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino());
        Self { pid: Some(std::process::id()), namespace }
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim);
        let pid = lines.next().and_then(|line| line.parse().ok());
        Self { pid, namespace: lines.next().and_then(|line| line.parse().ok()) }
    }

    /// Whether a process that `other` tells of would be seen from here.
    pub(super) fn sees(self, other: Self) -> bool {
        self.namespace == Some(FIRST_NAMESPACE) || (self.namespace.is_some() && self.namespace == other.namespace)
    }
}

impl fmt::Display for LockNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for number in [self.pid.map(u64::from), self.namespace].into_iter().flatten() {
            writeln!(f, "{number}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written_and_one_without_a_namespace_too() {
        let note = LockNote { pid: Some(u32::MAX), namespace: Some(u64::MAX) };
        assert_eq!(LockNote::parse(&note.to_string()), note);
        assert!((note.to_string().len() as u64) < NOTE_MAX_BYTES);
        assert_eq!(LockNote::parse("4711\n"), LockNote { pid: Some(4711), namespace: None });
        assert_eq!(LockNote::parse("what else"), LockNote::default());
    }

    #[test]
    fn a_process_is_seen_from_its_own_namespace_and_from_the_first() {
        let within = |namespace| LockNote { pid: None, namespace };
        let (first, ours, theirs) = (within(Some(FIRST_NAMESPACE)), within(Some(1)), within(Some(2)));
        assert!(first.sees(theirs) && first.sees(within(None)) && ours.sees(ours));
        assert!(!ours.sees(theirs) && !ours.sees(within(None)) && !within(None).sees(within(None)));
    }
}
