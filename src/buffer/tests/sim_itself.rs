//! What the tests on the simulated disk rely on: it forgets what a disk may forget, and nothing else.

use super::sim::{EIO, Fault, SimFile, SimFs};
use super::*;
use crate::buffer::log::BLOCK_BYTES;

fn write(fs: &SimFs, path: &Path, bytes: &[u8]) -> SimFile {
    let file = fs.open(path, Access::Overwrite).unwrap();
    fs.write_all_at(&file, bytes, 0).unwrap();
    file
}

fn read(fs: &SimFs, path: &Path) -> Option<Vec<u8>> {
    let file = fs.open(path, Access::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(fs.len(&file).unwrap()).unwrap()];
    fs.read_exact_at(&file, &mut bytes, 0).unwrap();
    Some(bytes)
}

fn disk(seed: u64) -> SimFs {
    let fs = SimFs::new(seed);
    fs.create_dir_all(Path::new("/d")).unwrap();
    fs
}

#[test]
fn a_crash_loses_nothing_and_a_power_cut_nothing_that_was_synced() {
    for seed in 0..200 {
        let fs = disk(seed);
        let (synced, path) = (Path::new("/d/synced"), Path::new("/d/loose"));
        fs.sync(&write(&fs, synced, &[7; 3000])).unwrap();
        fs.sync_dir(Path::new("/d")).unwrap();
        drop(write(&fs, path, &[9; 3000]));
        fs.crash();
        assert_eq!(read(&fs, path), Some(vec![9; 3000]));
        fs.power_loss(seed);
        assert_eq!(read(&fs, synced), Some(vec![7; 3000]));
    }
}

#[test]
fn a_power_cut_can_leave_any_part_of_what_was_not_synced() {
    let (mut gone, mut whole, mut torn, mut zeros) = (0, 0, 0, 0);
    for seed in 0..500 {
        let fs = disk(seed);
        drop(write(&fs, Path::new("/d/x"), &[9; 3000]));
        fs.power_loss(seed);
        match read(&fs, Path::new("/d/x")) {
            None => gone += 1,
            Some(bytes) if bytes == vec![9; 3000] => whole += 1,
            Some(bytes) if bytes.contains(&0) => zeros += 1,
            Some(_) => torn += 1,
        }
    }
    assert!(gone > 50 && whole > 10 && torn > 10 && zeros > 10, "{gone} {whole} {torn} {zeros}");
}

#[test]
fn a_removal_that_was_not_synced_may_come_back() {
    let kept = (0..100).filter(|seed| {
        let fs = disk(*seed);
        fs.sync(&write(&fs, Path::new("/d/x"), b"x")).unwrap();
        fs.sync_dir(Path::new("/d")).unwrap();
        fs.remove(Path::new("/d/x")).unwrap();
        fs.power_loss(*seed);
        read(&fs, Path::new("/d/x")).is_some()
    });
    let kept = kept.count();
    assert!((10..90).contains(&kept), "{kept}");
}

#[test]
fn after_a_failed_sync_the_bytes_are_readable_and_another_sync_does_not_save_them() {
    let mut lost = 0;
    for seed in 0..100 {
        let fs = disk(seed);
        let path = Path::new("/d/x");
        let file = write(&fs, path, &[9; 3000]);
        fs.sync_dir(Path::new("/d")).unwrap();
        fs.set(Some(Fault::Nth { nth: 1, errno: EIO }));
        assert!(fs.sync(&file).is_err());
        fs.sync(&file).unwrap();
        drop(file);
        assert_eq!(fs.synced_after_failure(), 1);
        assert_eq!(read(&fs, path), Some(vec![9; 3000]));
        fs.power_loss(seed);
        lost += usize::from(read(&fs, path) != Some(vec![9; 3000]));
    }
    assert!(lost > 80, "{lost}");
}

#[test]
fn a_full_disk_writes_what_fits_and_then_nothing() {
    let fs = disk(1);
    fs.set_capacity(4 * BLOCK_BYTES);
    fs.set_others(BLOCK_BYTES);
    let file = fs.open(Path::new("/d/x"), Access::CreateNew).unwrap();
    assert!(fs.write_all_at(&file, &vec![1; 20_000], 0).is_err());
    assert_eq!(fs.len(&file).unwrap(), 2 * BLOCK_BYTES);
    fs.write_all_at(&file, &[2; 4096], 0).unwrap();
    fs.set_others(0);
    fs.write_all_at(&file, &[1; 4096], 2 * BLOCK_BYTES).unwrap();
    assert_eq!(fs.take_peak(), 4 * BLOCK_BYTES);
}
