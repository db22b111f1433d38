//! What a receiver refused, as it lies in the quarantine.

use std::io;

use super::super::fs::{EntryKind, Fs as _, RealFs};
use super::super::quarantine::{AGAIN, DIR_NAME, Quarantined, RESTING, read};
use super::{Inspection, named};

/// One file of the quarantine.
#[derive(Clone, Debug)]
pub struct QuarantinedFile {
    /// Its name without what it ends in.
    pub id: String,
    /// Its name, relative to the buffer's directory.
    pub name: String,
    /// Its bytes.
    pub bytes: u64,
    /// Whether somebody wants it sent again and it was not yet.
    pub is_requeued: bool,
    /// What is in it; `None` where it is damaged.
    pub content: Option<Quarantined>,
}

impl Inspection {
    /// The files of the quarantine, oldest first, those that vanish meanwhile left out.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn quarantine(&self) -> io::Result<Vec<QuarantinedFile>> {
        let dir = self.dir().join(DIR_NAME);
        let entries = match RealFs.list(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            let resting = entry.name.strip_suffix(RESTING);
            let Some(id) = resting.or_else(|| entry.name.strip_suffix(AGAIN)) else { continue };
            let content = match read(&RealFs, &dir.join(&entry.name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                content => content.unwrap_or_default(),
            };
            files.push(QuarantinedFile {
                id: id.to_owned(),
                name: named(&format!("{DIR_NAME}/{}", entry.name)),
                bytes: entry.len,
                is_requeued: resting.is_none(),
                content,
            });
        }
        files.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(files)
    }
}
