//! Small values that must survive a power cut and a full disk: two files that are overwritten in turn, in place.
//!
//! A value is always written over the older of the two, so a write that fails half-way leaves the newer one whole.
//! Writing a temporary file and renaming it would fail on a full disk (it did on ext4, xfs, btrfs and tmpfs, measured);
//! overwriting blocks that are already there works on all but btrfs.
//!
//! Frame, little-endian: magic 4, version 2, zero 2, generation 8, length 4, CRC-32C of what comes before and after it 4,
//! then the value. A damaged or foreign file reads as absent, never as a wrong value, and is written over; a frame of another
//! version too, since a later format has a directory of its own.

use std::io;
use std::path::{Path, PathBuf};

use super::fs::{Access, Fs, is_disk_error};
use super::record::{le_u16, le_u32, le_u64};

const MAGIC: [u8; 4] = [0xd7, b'o', b'h', 0x2b];
const VERSION: u16 = 1;
const FRAME_LEN: usize = 24;
/// Even, so that files keep their turn, and more than anybody will ever have counted.
const GENERATION_JUMP: u64 = 1 << 40;
/// The longest value: what a source remembers of 5,000 containers takes about 5 MB.
pub(super) const VALUE_MAX_BYTES: usize = 16 << 20;

/// Where a value lives and which file is next.
pub(super) struct Pair {
    base: PathBuf,
    /// Generation of the newest valid value; zero before the first. Its parity names its file.
    generation: u64,
    /// Whether that value is as durable as it was meant to be. What another process left may be in the page cache only: it
    /// was killed before its sync, or its sync failed.
    is_sure: bool,
    /// Whether [`Pair::reserve`] has nothing left to do.
    is_reserved: bool,
}

/// What was found on disk.
pub(super) struct Loaded {
    pub(super) pair: Pair,
    /// The newest value that is whole.
    pub(super) value: Option<Vec<u8>>,
    /// Whether a file was there that could not be believed.
    pub(super) damaged: Option<Damaged>,
}

/// Something was there and is not whole. Not always a loss: the older file is also torn by a crash during its overwriting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged {
    /// Which of the two files, 0 or 1; the second, where it is both.
    pub(super) file: u64,
}

/// Which files a value called `base` takes.
pub(super) fn paths(base: &Path) -> [PathBuf; 2] {
    ["0", "1"].map(|suffix| {
        let mut name = base.as_os_str().to_owned();
        name.push(".");
        name.push(suffix);
        PathBuf::from(name)
    })
}

/// Bytes one file takes for a value of `len` bytes.
pub(super) fn file_len(value_len: usize) -> u64 {
    (FRAME_LEN + value_len) as u64
}

impl Pair {
    /// Reads the newest whole value called `base`.
    pub(super) fn load<F: Fs>(fs: &F, base: PathBuf) -> Loaded {
        let mut newest: Option<(u64, Vec<u8>)> = None;
        let (mut damaged, mut unknown) = (None, false);
        for (parity, path) in (0_u64..).zip(paths(&base)) {
            match read_frame(fs, &path) {
                Ok(Some((generation, value))) if generation % 2 == parity => {
                    if newest.as_ref().is_none_or(|(known, _)| generation > *known) {
                        newest = Some((generation, value));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => {
                    damaged = Some(Damaged { file: parity });
                    unknown |= other.is_err_and(|error| error.kind() != io::ErrorKind::UnexpectedEof);
                }
            }
        }
        let mut generation = newest.as_ref().map_or(0, |(generation, _)| *generation);
        if unknown {
            // What the disk does not give now it may give later, and must not be the newest then.
            generation = generation.saturating_add(GENERATION_JUMP).min(u64::MAX / 2 - 1);
        }
        let is_sure = newest.is_none();
        let pair = Self { base, generation, is_sure, is_reserved: false };
        Loaded { pair, value: newest.map(|(_, value)| value), damaged }
    }

    /// For a large value: its second file is made, and counted, only when there is a second value.
    pub(super) fn made_file_by_file(self) -> Self {
        Self { is_reserved: true, ..self }
    }

    /// Whether the file that the next value goes to was never written: the disk must have room for it.
    pub(super) fn is_file_missing<F: Fs>(&self, fs: &F) -> bool {
        is_missing(fs, &self.next_path())
    }

    /// The file the next value goes to.
    pub(super) fn next_path(&self) -> PathBuf {
        self.path_of(self.generation + 1)
    }

    /// The file the newest value is in.
    pub(super) fn newest_path(&self) -> PathBuf {
        self.path_of(self.generation)
    }

    fn path_of(&self, generation: u64) -> PathBuf {
        let [even, odd] = paths(&self.base);
        if generation.is_multiple_of(2) { even } else { odd }
    }

    /// Whether nothing is left for [`Pair::make_sure`] to do.
    pub(super) fn is_sure(&self) -> bool {
        self.is_sure
    }

    /// Forces the newest value to the disk, before the one before it is overwritten: it is written once more as it is, since
    /// syncing pages that a sync has failed for does nothing. Only once for what another process left.
    ///
    /// # Errors
    /// Whatever the file system says; both values are then as they were.
    pub(super) fn make_sure<F: Fs>(&mut self, fs: &F) -> io::Result<()> {
        let path = self.newest_path();
        match read_frame(fs, &path) {
            Ok(Some((generation, value))) => {
                let file = fs.open(&path, Access::Overwrite)?;
                fs.write_all_at(&file, &frame(generation, &value), 0)?;
                fs.sync(&file)?;
            }
            // Gone or damaged, also a bad place of the disk: there is nothing to keep.
            Ok(None) => {}
            Err(error) if is_disk_error(&error) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {}
            Err(error) => return Err(error),
        }
        self.is_sure = true;
        Ok(())
    }

    /// Overwrites the older file with `value`; the other where that one cannot be a file. The caller decides when it must be
    /// durable.
    ///
    /// # Errors
    /// Whatever the file system says; the value before is then still whole.
    pub(super) fn store<F: Fs>(&mut self, fs: &F, value: &[u8]) -> io::Result<F::File> {
        if value.len() > VALUE_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the value is longer than 16 MiB"));
        }
        match self.store_as(fs, self.generation + 1, value) {
            // Somebody put something else in its place. One file is better than none.
            Err(error) if is_obstructed(&error) => self.store_as(fs, self.generation + 2, value),
            stored => stored,
        }
    }

    fn store_as<F: Fs>(&mut self, fs: &F, generation: u64, value: &[u8]) -> io::Result<F::File> {
        let file = fs.open(&self.path_of(generation), Access::Overwrite)?;
        let frame = frame(generation, value);
        // What needs room comes first: where there is none, the value that is there stays whole.
        let known = fs.len(&file).unwrap_or(0);
        let there = usize::try_from(known).unwrap_or(usize::MAX).min(frame.len());
        if there < frame.len() {
            fs.write_all_at(&file, &frame[there..], there as u64)?;
        }
        if there > 0 {
            fs.write_all_at(&file, &frame[..there], 0)?;
        }
        self.generation = generation;
        Ok(file)
    }

    /// Makes the file that the value after the next one goes to while there is room for it, so that a disk that is full by
    /// then takes that value. In it is `value`, the next one, as an older one. Returns whether a file was made.
    pub(super) fn reserve<F: Fs>(&mut self, fs: &F, value: &[u8]) -> bool {
        if self.is_reserved || !is_missing(fs, &self.newest_path()) {
            self.is_reserved = true;
            return false;
        }
        let older = frame(self.generation, value);
        let made = fs.open(&self.newest_path(), Access::Overwrite).and_then(|file| fs.write_all_at(&file, &older, 0));
        self.is_reserved = made.is_ok();
        true
    }

    /// What was stored last may not be on the disk: the next value goes to the same file, so that the value before, which
    /// is, stays whole.
    pub(super) fn step_back(&mut self) {
        self.generation = self.generation.saturating_sub(1);
    }
}

/// Whether what has a file's name is none: a directory, or something that cannot be written at an offset (open(2), pwrite(2)).
fn is_obstructed(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let raw = error.raw_os_error();
    [Errno::ISDIR, Errno::SPIPE, Errno::NXIO, Errno::LOOP].iter().any(|errno| Some(errno.raw_os_error()) == raw)
}

/// A file's bytes.
fn frame(generation: u64, value: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_LEN + value.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&VERSION.to_le_bytes());
    frame.extend_from_slice(&[0; 2]);
    frame.extend_from_slice(&generation.to_le_bytes());
    frame.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame), value);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame.extend_from_slice(value);
    frame
}

fn is_missing<F: Fs>(fs: &F, path: &Path) -> bool {
    read_frame(fs, path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// `None` where the file is not whole, `NotFound` where none was ever written.
fn read_frame<F: Fs>(fs: &F, path: &Path) -> io::Result<Option<(u64, Vec<u8>)>> {
    let file = fs.open(path, Access::Read)?;
    if fs.len(&file)? == 0 {
        // Made on a disk that had no room for more: nothing was ever in it.
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut frame = [0; FRAME_LEN];
    fs.read_exact_at(&file, &mut frame, 0)?;
    let len = le_u32(&frame, 16) as usize;
    if frame[..4] != MAGIC || le_u16(&frame, 4) != VERSION || len > VALUE_MAX_BYTES {
        return Ok(None);
    }
    // Never allocate what a damaged length asks for.
    if fs.len(&file)? < file_len(len) {
        return Ok(None);
    }
    let mut value = vec![0; len];
    fs.read_exact_at(&file, &mut value, FRAME_LEN as u64)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..20]), &value);
    let generation = le_u64(&frame, 8);
    Ok((crc == le_u32(&frame, 20) && generation < u64::MAX - 1).then_some((generation, value)))
}

#[cfg(test)]
mod tests {
    use super::super::fs::RealFs;
    use super::*;

    #[test]
    fn the_newest_value_is_read_back_also_when_it_is_shorter() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("x");
        let mut pair = Pair::load(&RealFs, base.clone()).pair;
        for value in [&b"first, a long one"[..], b"second", b"3"] {
            pair.store(&RealFs, value).unwrap();
            let loaded = Pair::load(&RealFs, base.clone());
            assert_eq!(loaded.value.as_deref(), Some(value));
            assert_eq!(loaded.damaged, None);
        }
    }

    #[test]
    fn any_flipped_bit_gives_the_value_before() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("x");
        let mut pair = Pair::load(&RealFs, base.clone()).pair;
        pair.store(&RealFs, b"before").unwrap();
        let path = pair.next_path();
        pair.store(&RealFs, b"after").unwrap();
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bytes).unwrap();
            let loaded = Pair::load(&RealFs, base.clone());
            assert_eq!(loaded.value.as_deref(), Some(&b"before"[..]), "bit {bit}");
            assert_eq!(loaded.damaged, Some(Damaged { file: 0 }));
        }
    }

    #[test]
    fn a_file_that_was_made_and_never_written_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("x");
        Pair::load(&RealFs, base.clone()).pair.store(&RealFs, b"value").unwrap();
        std::fs::write(&paths(&base)[0], b"").unwrap();
        let loaded = Pair::load(&RealFs, base);
        assert_eq!((loaded.value.as_deref(), loaded.damaged), (Some(&b"value"[..]), None));
    }

    #[test]
    fn where_one_of_the_files_cannot_be_one_the_other_takes_every_value() {
        for blocked in 0..2 {
            let dir = tempfile::tempdir().unwrap();
            let base = dir.path().join("x");
            std::fs::create_dir(&paths(&base)[blocked]).unwrap();
            let mut pair = Pair::load(&RealFs, base.clone()).pair;
            for value in [b"first", b"again", b"third"] {
                pair.store(&RealFs, value).unwrap();
                assert_eq!(Pair::load(&RealFs, base.clone()).value.as_deref(), Some(&value[..]));
            }
        }
    }

    #[test]
    fn a_pipe_in_a_files_place_is_neither_waited_for_nor_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("x");
        for path in &paths(&base) {
            crate::buffer::tests::make_pipe(path);
        }
        let mut loaded = Pair::load(&RealFs, base);
        assert_eq!(loaded.value, None);
        assert!(loaded.pair.store(&RealFs, b"value").is_err());
    }

    #[test]
    fn garbage_and_directories_read_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("x");
        let [zero, one] = paths(&base);
        std::fs::write(zero, [0xff; 300]).unwrap();
        std::fs::create_dir(one).unwrap();
        assert_eq!(Pair::load(&RealFs, base).value, None);
    }
}
