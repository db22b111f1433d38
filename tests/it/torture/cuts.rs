//! Power cuts on real file systems: ext4 and xfs on loop devices, shut down at a random moment without flushing anything,
//! mounted again, and read by the real code.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::driver::{self, Orders, Said};
use super::{Random, skip, times};

/// `FS_IOC_SHUTDOWN` of linux/fs.h, and its flag "as it is, do not flush the log" (`xfs_fs.h`).
const SHUTDOWN: &str = "0x8004587d";
const NO_LOG_FLUSH: u32 = 2;

/// A file system in a file. Unmounted when dropped, which also gives back its loop device.
pub(super) struct LoopDisk {
    kind: &'static str,
    image: tempfile::NamedTempFile,
    at: tempfile::TempDir,
    /// How often it is mounted.
    layers: u32,
}

impl LoopDisk {
    /// Makes and mounts one; says why not where that cannot be done here.
    pub(super) fn new(kind: &'static str, mebibytes: u64) -> Result<Self, String> {
        let (image, at) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
        let disk = Self { kind, image, at, layers: 1 };
        disk.image.as_file().set_len(mebibytes << 20).unwrap();
        let image = disk.image.path().display().to_string();
        run(Command::new(format!("mkfs.{kind}")).arg(if kind == "ext4" { "-qF" } else { "-qf" }).arg(&image))?;
        disk.mount()?;
        // Root made it; the tests need not be root.
        run(Command::new("chmod").arg("0777").arg(disk.at.path()))?;
        Ok(disk)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.at.path().to_owned()
    }

    fn mount(&self) -> Result<(), String> {
        // The original of a copy has the same id, and may still be known to the kernel.
        let options = if self.kind == "xfs" { "loop,nouuid" } else { "loop" };
        run(Command::new("mount").args(["-o", options]).arg(self.image.path()).arg(self.at.path()))
    }

    /// What the file system would do at a power cut: nothing more.
    fn cut_power(&self) -> Result<(), String> {
        let code =
            format!("my $flag=pack('L',{NO_LOG_FLUSH}); open(F,'<',$ARGV[0]) and ioctl(F,{SHUTDOWN},$flag) or die $!");
        run(Command::new("perl").arg("-e").arg(code).arg(self.at.path()))
    }

    /// The power is back, or somebody has seen to a disk that failed. What is mounted is a copy of what lies on the disk: where
    /// another mount namespace was made meanwhile, or somebody has a file open, the file system that was shut down lives on
    /// there, and the kernel would give us that one again.
    fn mount_again(&mut self) -> Result<(), String> {
        self.copy()?;
        run(Command::new("umount").arg("-l").arg(self.at.path()))?;
        self.mount()
    }

    /// The same, with no moment in which nothing is mounted: somebody runs who would take the directory below for the disk.
    pub(super) fn mount_over(&mut self) -> Result<(), String> {
        self.copy()?;
        self.mount()?;
        self.layers += 1;
        Ok(())
    }

    fn copy(&mut self) -> Result<(), String> {
        let copy = tempfile::NamedTempFile::new().unwrap();
        run(Command::new("cp").arg("--sparse=always").arg(self.image.path()).arg(copy.path()))?;
        self.image = copy;
        Ok(())
    }

    pub(super) fn remount(&self, how: &str) -> Result<(), String> {
        run(Command::new("mount").arg("-o").arg(format!("remount,{how}")).arg(self.at.path()))
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        // Lazily, so that it goes also while somebody still has a file open.
        for _ in 0..self.layers {
            if let Err(why) = run(Command::new("umount").arg("-l").arg(self.at.path())) {
                eprintln!("{why}");
            }
        }
    }
}

/// Runs a program as root: through sudo where this process is not.
fn run(command: &mut Command) -> Result<(), String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut whole = if is_root() { Command::new("env") } else { Command::new("sudo") };
    if !is_root() {
        whole.args(["-n", "env"]);
    }
    for name in ["PATH", "LD_LIBRARY_PATH"] {
        let source = if name == "PATH" { name } else { "OUTHAUL_TEST_LIBRARIES" };
        whole.arg(format!("{name}={}", std::env::var(source).unwrap_or_default()));
    }
    let output = whole.args(words).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}

pub(super) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

#[test]
fn a_power_cut_on_ext4_loses_nothing_that_was_acknowledged() {
    cuts("ext4", 64);
}

#[test]
fn a_power_cut_on_xfs_loses_nothing_that_was_acknowledged() {
    // The smallest that mkfs.xfs makes is 300 MB; the file is sparse.
    cuts("xfs", 320);
}

fn cuts(kind: &'static str, mebibytes: u64) {
    let mut disk = match LoopDisk::new(kind, mebibytes) {
        Ok(disk) => disk,
        Err(why) => return skip(&format!("power cuts on {kind}"), &why),
    };
    let (mut random, cuts) = (Random::new(), times(50, 500));
    let (mut durable, mut unacknowledged) = (0, 0);
    for life in 1..=cuts as u64 {
        let found = live_until_the_cut(&mut disk, life, &mut random);
        durable += found.0;
        unacknowledged += found.1;
    }
    assert!(durable > cuts * 2, "the load was one: {durable}");
    eprintln!(
        "{cuts} power cuts on {kind}: {durable} records acknowledged, 0 missing, {unacknowledged} there without an acknowledgement"
    );
}

fn live_until_the_cut(disk: &mut LoopDisk, life: u64, random: &mut Random) -> (usize, usize) {
    let directory = disk.path().join("buffer");
    let orders = Orders { life, ..Orders::default() };
    let (mut child, output) = driver::start(&directory, &orders);
    let heard = Arc::new(Mutex::new(Said::default()));
    let kept = Arc::clone(&heard);
    let reader = std::thread::spawn(move || Said::hear(output, &kept));
    // The moment is the point of the test: nothing is waited for here.
    std::thread::sleep(Duration::from_millis(random.between(20, 120)));
    // A machine without power says nothing more. Here the process lives a little longer, and Linux 6.18's xfs answers a
    // sync that the shutdown overtakes with success: such an answer is none.
    let durable = heard.lock().unwrap().durable.clone();
    disk.cut_power().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    let said = heard.lock().unwrap();
    disk.mount_again().unwrap();
    let rest = read_back(&directory, orders.max_bytes, orders.samples);
    let missing = durable.iter().filter(|id| !said.taken.contains(id) && !rest.contains(id));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&u64>::new(), "life {life}: acknowledged and gone after the cut");
    (durable.len(), rest.iter().filter(|id| !durable.contains(id)).count())
}

fn read_back(directory: &Path, max_bytes: u64, samples: u64) -> Vec<u64> {
    let buffer = driver::open(directory, max_bytes);
    driver::runtime().block_on(async {
        let rest = driver::take_all(&buffer, samples).await;
        driver::balances(&buffer);
        buffer.close().await;
        rest
    })
}
