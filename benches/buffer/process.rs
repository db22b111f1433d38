//! What the kernel says of this process: memory and bytes written.

use std::fs;

/// Resident memory in KiB.
#[derive(Clone, Copy)]
pub(crate) struct Memory {
    /// The most there ever was (`VmHWM`).
    pub(crate) peak_kib: u64,
    /// Now, without files (`RssAnon`).
    pub(crate) anonymous_kib: u64,
}

/// Of this process, from `/proc/self/status` (proc(5)).
pub(crate) fn memory() -> Memory {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has /proc");
    Memory { peak_kib: field(&status, "VmHWM:"), anonymous_kib: field(&status, "RssAnon:") }
}

/// Bytes this process has given to the block layer, from `/proc/self/io` (proc(5), `write_bytes`).
pub(crate) fn written_bytes() -> u64 {
    field(&fs::read_to_string("/proc/self/io").expect("Linux has /proc"), "write_bytes:")
}

/// Bytes the disk that holds `path` was given since boot, by everybody, from `/sys/dev/block/…/stat`, whose sectors have
/// 512 bytes.
pub(crate) fn disk_written_bytes(path: &std::path::Path) -> Option<u64> {
    let device = rustix::fs::stat(path).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    stat.split_whitespace().nth(6)?.parse::<u64>().ok().map(|sectors| sectors * 512)
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Writes everything in `directory` back and takes it out of the page cache.
pub(crate) fn forget_cached(directory: &std::path::Path) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            forget_cached(&path);
        } else if let Ok(file) = fs::File::open(&path) {
            file.sync_all().expect("a temporary directory syncs");
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("fadvise");
        }
    }
}
