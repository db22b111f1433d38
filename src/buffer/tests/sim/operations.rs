//! The operations a process may ask of the simulated disk.

use super::*;

impl Fs for SimFs {
    type File = SimFile;
    type Lock = SimLock;

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if disk.dirs.contains_key(path) {
            return Ok(());
        }
        disk.gate(Op::Change)?;
        disk.dirs.insert(path.to_owned(), 1);
        disk.note_peak();
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut disk = self.disk();
        disk.gate(Op::Look)?;
        if !disk.dirs.contains_key(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = disk.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entry = |(path, id): (&PathBuf, &u64)| Entry {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            kind: EntryKind::File,
            len: disk.inodes[id].cache.len() as u64,
        };
        Ok(here.map(entry).collect())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<SimFile> {
        let mut disk = self.disk();
        let exists = disk.names.contains_key(path);
        let makes = access != Access::Read && !exists;
        disk.gate(if access == Access::Read { Op::Look } else { Op::Change })?;
        if access == Access::CreateNew && exists {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if makes && !path.parent().is_some_and(|dir| disk.dirs.contains_key(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inode = if makes { disk.name(path) } else { *disk.names.get(path).ok_or(io::ErrorKind::NotFound)? };
        Ok(self.open_inode(&mut disk, inode))
    }

    fn len(&self, file: &SimFile) -> io::Result<u64> {
        let mut disk = self.disk();
        disk.gate(Op::Look)?;
        Ok(disk.inodes[&file.inode].cache.len() as u64)
    }

    fn dir_len(&self, dir: &Path) -> io::Result<u64> {
        let mut disk = self.disk();
        disk.gate(Op::Look)?;
        Ok(disk.dirs.get(dir).map_or(0, |blocks| blocks * BLOCK_BYTES))
    }

    fn standing(&self, file: &SimFile, path: &Path) -> io::Result<Standing> {
        let mut disk = self.disk();
        disk.gate(Op::Look)?;
        Ok(match disk.names.get(path) {
            Some(inode) if *inode == file.inode => Standing::Here,
            Some(_) => Standing::Replaced,
            None => Standing::Gone,
        })
    }

    /// Locks are by name here.
    fn is_met(&self, _: &SimLock, _: &Path) -> bool {
        true
    }

    fn read_at(&self, file: &SimFile, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk();
        disk.gate(Op::Read)?;
        let short = disk.rng.once_in(32);
        let inode = &disk.inodes[&file.inode];
        if inode.unreadable {
            return Err(errno(EIO));
        }
        let from = usize::try_from(offset).unwrap().min(inode.cache.len());
        let mut len = bytes.len().min(inode.cache.len() - from);
        if short {
            len = len.min(len / 2 + 1);
        }
        bytes[..len].copy_from_slice(&inode.cache[from..from + len]);
        disk.read_bytes += len as u64;
        Ok(len)
    }

    fn write_at(&self, file: &SimFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk();
        let gate = disk.gate(Op::Write);
        let read_only = matches!(&gate, Err(error) if error.raw_os_error() == Some(EROFS));
        let interrupted = gate.is_err() || disk.rng.once_in(16);
        if read_only || (gate.is_err() && bytes.is_empty()) {
            return gate.map(|()| 0);
        }
        // What fails has written any part; what was interrupted by a signal has written some.
        let len = if interrupted { disk.rng.below(bytes.len()) + usize::from(gate.is_ok()) } else { bytes.len() };
        let written = disk.write(file.inode, &bytes[..len.min(bytes.len())], offset);
        gate.and(written)
    }

    fn truncate(&self, file: &SimFile, len: u64) -> io::Result<()> {
        let mut disk = self.disk();
        disk.gate(Op::Change)?;
        let len = usize::try_from(len).unwrap();
        let inode = disk.inodes.get_mut(&file.inode).unwrap();
        let old_len = inode.cache.len();
        inode.cache.resize(len, 0);
        inode.touch(len.min(old_len), len.max(old_len));
        disk.note_peak();
        Ok(())
    }

    fn sync(&self, file: &SimFile) -> io::Result<()> {
        let mut disk = self.disk();
        let gate = disk.gate(Op::Sync);
        let part = disk.rng.next();
        let dead = disk.dead;
        let inode = disk.inodes.get_mut(&file.inode).unwrap();
        let repeated = inode.failed_sync && inode.dirty.is_empty();
        if gate.is_ok() {
            inode.failed_sync = false;
            inode.sync();
        } else if !dead {
            inode.failed_sync = true;
            let dirty = std::mem::take(&mut inode.dirty);
            // Some of it may have been written before the error.
            for sector in dirty.into_iter().filter(|sector| part >> (sector % 64) & 1 == 1) {
                inode.write_back(sector);
            }
        }
        disk.synced_after_failure += u64::from(repeated);
        gate
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.gate(Op::Sync)?;
        disk.sync_names(dir);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.gate(Op::Change)?;
        disk.unname(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Locking<SimLock>> {
        let mut disk = self.disk();
        disk.gate(Op::Change)?;
        if !disk.locked.insert(path.to_owned()) {
            return Ok(Locking::InUse { pid: None });
        }
        let inode = disk.names.get(path).copied().unwrap_or_else(|| disk.name(path));
        // As with the real one, whether the text fits does not matter.
        drop(disk.write(inode, b"4711\n", 0));
        Ok(Locking::Held(SimLock { disk: Arc::clone(&self.0), path: path.to_owned() }))
    }

    fn space(&self, _: &Path) -> io::Result<Space> {
        let disk = self.disk();
        if disk.dead {
            return Err(errno(EIO));
        }
        Ok(Space { free_bytes: disk.free(), total_bytes: disk.capacity })
    }
}
