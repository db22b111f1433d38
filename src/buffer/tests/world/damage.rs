//! What somebody or the disk does to the files, and what can no longer be claimed then.

use super::*;

impl World {
    pub(super) fn damage(&mut self, step: &Step) {
        self.clean_life = false;
        let segments = self.fs.segments();
        let pick = |file: usize| file.checked_rem(segments.len()).map(|index| segments[index].clone());
        match step {
            Step::Flip { file, bit } => {
                let Some(path) = pick(*file) else { return };
                self.flips += 1;
                // A second one may hit the other copy of a definition.
                self.wrecked |= !self.flipped.insert(path.clone());
                if self.is_newest(&segments, &path) {
                    self.unnoticed_samples += self.largest_samples;
                    self.newest_was_flipped = true;
                    if self.files_were_cut {
                        self.nothing_is_promised_of_the_past();
                    }
                }
                self.fs.flip(&path, bit % (self.fs.len_of(&path) * 8).max(1));
            }
            Step::FlipNote { file, bit } => {
                // Of each pair one: cursors, notes and states are written twice.
                let notes = self.fs.files().into_iter().filter(|path| path.extension().is_some_and(|e| e == "0"));
                let notes: Vec<PathBuf> = notes.collect();
                let Some(path) = file.checked_rem(notes.len()).map(|index| &notes[index]) else { return };
                self.wrecked = true;
                self.notes_were_flipped = true;
                self.state = None;
                self.fs.flip(path, bit % (self.fs.len_of(path) * 8).max(1));
                let is_cursor = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cursor-"));
                if is_cursor && self.fs.peek(|fs| Pair::load(fs, path.with_extension(""))).value.is_none() {
                    // A disk that takes no writes had torn the other one: that endpoint begins anew at the oldest sample there is,
                    // and cannot tell what was lost before that.
                    self.nothing_is_promised_of_the_past();
                }
            }
            Step::Cut { file, len } => {
                let Some(path) = pick(*file) else { return };
                self.forgive_the_newest(&segments, &path);
                self.fs.cut(&path, len % self.fs.len_of(&path).max(1));
            }
            Step::Delete { file } => {
                let Some(path) = pick(*file) else { return };
                self.forgive_the_newest(&segments, &path);
                self.fs.delete(&path);
            }
            Step::Unreadable { file } => {
                let Some(path) = pick(*file) else { return };
                self.forgive_the_newest(&segments, &path);
                self.fs.set_unreadable(&path, true);
            }
            Step::Readable => self.every_file_is_readable(),
            Step::DeleteDir => {
                self.nothing_is_promised_of_the_past();
                let dir = self.options.dir.clone();
                self.fs.delete_dir(&dir);
            }
            other => unreachable!("{other:?} is no damage"),
        }
    }

    pub(super) fn every_file_is_readable(&self) {
        for path in self.fs.segments() {
            self.fs.set_unreadable(&path, false);
        }
    }

    /// Whether no later file holds a record that was promised: one may have been begun and not written to.
    fn is_newest(&self, segments: &[PathBuf], path: &Path) -> bool {
        let Some(next) = segments.iter().find(|other| other.as_path() > path) else { return true };
        let next = next.file_name().and_then(|name| parse_name(name.to_str()?)).unwrap_or(0);
        let is_later = |id: &u32| self.records[id].position.is_some_and(|position| position.number() >= next);
        !self.seen.values().any(|seen| seen.owed.iter().any(is_later))
    }

    /// What stood at the end of the newest file may never have been there, as far as the next process can tell.
    fn forgive_the_newest(&mut self, segments: &[PathBuf], path: &Path) {
        self.wrecked = true;
        let is_newest = self.is_newest(segments, path);
        let was_cut_before = std::mem::replace(&mut self.files_were_cut, true);
        if !is_newest && !self.newest_was_flipped {
            return;
        }
        if was_cut_before || self.newest_was_flipped {
            // With the newest gone, what an older one lost has nothing after it either.
            return self.nothing_is_promised_of_the_past();
        }
        let first = path.file_name().and_then(|name| parse_name(name.to_str()?)).unwrap_or(0);
        let Self { seen, records, .. } = self;
        for seen in seen.values_mut() {
            seen.owed.retain(|id| records[id].position.is_some_and(|position| position.number() < first));
            seen.owed_samples = seen.owed.iter().map(|id| records[id].samples()).sum();
        }
    }
}
