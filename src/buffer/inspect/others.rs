//! What lies in the directory besides the log's segments, and what all of it takes.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::fs::{Entry, EntryKind, Fs as _, RealFs};
use super::super::log::{blocks, fixed_bytes};
use super::super::segment::parse_name;
use super::{DIR_NAME, named};

/// What another file in the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherKind {
    /// The lock file.
    Lock,
    /// The log's own notes.
    Notes,
    /// One of the two files of an endpoint's cursor.
    Cursor,
    /// What a source keeps.
    State,
    /// Refused samples.
    Quarantine,
    /// A segment of another store or version, or without a readable record.
    ForeignSegment,
    /// A segment that the disk does not give back.
    UnreadableSegment,
    /// A directory of another major version of this format.
    OtherVersion,
    /// Nothing that outhaul knows.
    Unknown,
}

/// A file that is not part of the log.
#[derive(Clone, Debug)]
pub struct OtherFile {
    /// Its name, relative to the buffer's directory.
    pub name: String,
    /// What it is.
    pub kind: OtherKind,
    /// Its bytes; of a directory those of its files.
    pub bytes: u64,
}

pub(super) fn used_bytes(dir: &Path, entries: &[Entry]) -> u64 {
    let files: u64 = entries
        .iter()
        .map(|entry| match entry.kind {
            EntryKind::File if entry.name == "lock" => 0,
            EntryKind::File => blocks(entry.len),
            EntryKind::Other => bytes_below(&dir.join(&entry.name), blocks),
        })
        .sum();
    fixed_bytes(RealFs.dir_len(dir).unwrap_or_default()) + files
}

/// The files in a directory, not those below it.
fn bytes_below(dir: &Path, size: impl Fn(u64) -> u64) -> u64 {
    let entries = RealFs.list(dir).unwrap_or_default();
    entries.iter().filter(|entry| entry.kind == EntryKind::File).map(|entry| size(entry.len)).sum()
}

pub(super) fn other_files(path: &Path, entries: &[Entry], odd: &BTreeMap<String, OtherKind>) -> Vec<OtherFile> {
    let dir = path.join(DIR_NAME);
    let mut others: Vec<OtherFile> = entries
        .iter()
        .filter(|entry| parse_name(&entry.name).is_none() || odd.contains_key(&entry.name))
        .map(|entry| OtherFile {
            name: named(&entry.name),
            kind: odd.get(&entry.name).copied().unwrap_or_else(|| kind_of(entry)),
            bytes: if entry.kind == EntryKind::File {
                entry.len
            } else {
                bytes_below(&dir.join(&entry.name), |len| len)
            },
        })
        .collect();
    let above = RealFs.list(path).unwrap_or_default();
    others.extend(above.into_iter().filter(|entry| entry.name != DIR_NAME).map(|entry| {
        let digits = entry.name.strip_prefix('v').unwrap_or("");
        let is_version =
            entry.kind == EntryKind::Other && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let kind = if is_version { OtherKind::OtherVersion } else { OtherKind::Unknown };
        let bytes =
            if entry.kind == EntryKind::File { entry.len } else { bytes_below(&path.join(&entry.name), |len| len) };
        OtherFile { name: entry.name, kind, bytes }
    }));
    others.sort_by(|one, other| one.name.cmp(&other.name));
    others
}

fn kind_of(entry: &Entry) -> OtherKind {
    let name = entry.name.as_str();
    let is_file = entry.kind == EntryKind::File;
    match name {
        "lock" if is_file => OtherKind::Lock,
        "quarantine" if !is_file => OtherKind::Quarantine,
        _ if is_file && (name == "log.0" || name == "log.1") => OtherKind::Notes,
        _ if is_file && name.starts_with("cursor-") => OtherKind::Cursor,
        _ if is_file && name.starts_with("state-") => OtherKind::State,
        _ => OtherKind::Unknown,
    }
}
