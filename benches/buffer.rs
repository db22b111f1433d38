//! What the buffer costs, on a recorded real run of 100 containers: bytes a sample on disk beside the same samples as
//! remote-write bodies, appends, syncs, opening and reading a backlog, and memory during all of it.
//!
//! Prints one table and judges nothing. `--quick` takes less of everything; `--dir PATH` says which disk is measured
//! (the folder for temporary files otherwise).

#![allow(clippy::print_stdout, reason = "the table is what this program is for")]

#[path = "buffer/process.rs"]
mod process;
#[path = "buffer/recording.rs"]
mod recording;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outhaul::buffer::inspect::Inspection;
use outhaul::buffer::{Buffer, EndpointId, Fates, Limits, Options, SyncPolicy};
use outhaul::encode::{Compression, Encoder, Format, Message, Part};
use outhaul::model::{Labels, Sample, Snapshot, Value};
use process::{disk_written_bytes, forget_cached, memory, written_bytes};
use recording::Recording;
use tokio::runtime::Runtime;

const MIB: u64 = 1 << 20;
/// One for each time a backlog is read whole, because what is read is settled, and one to whom it is only begun to be sent.
const ENDPOINTS: [&str; 3] = ["cold", "warm", "sent"];
const READERS: usize = 2;
const LIMITS: Limits = Limits { instants_max: 10, samples_max: 100_000 };
/// What a child process that only opens and reads a backlog is called with.
const CHILD: &str = "--open-and-read";

struct Bench {
    recording: Recording,
    runtime: Runtime,
    dir: PathBuf,
    quick: bool,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after =
        |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime starts");
    if let Some(path) = after(CHILD) {
        let endpoint = after("--endpoint").and_then(|number| number.parse().ok()).expect("the number of an endpoint");
        open_and_read(&runtime, Path::new(path), EndpointId(endpoint));
        return;
    }
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/data/run.jsonl.zst");
    let bench = Bench {
        recording: Recording::load(&fixture),
        runtime,
        dir: after("--dir").map_or_else(std::env::temp_dir, PathBuf::from),
        quick: arguments.iter().any(|argument| argument == "--quick"),
    };
    println!("| figure | value |\n|---|---|");
    row("recorded", format!("{} instants, {} series", bench.recording.len(), bench.recording.series()));
    row("memory at start", memory_text());
    bench.bytes_a_sample();
    bench.bodies();
    bench.appends();
    bench.reading();
    bench.backlogs();
    row("memory at the end", memory_text());
}

fn row(figure: &str, value: impl std::fmt::Display) {
    println!("| {figure} | {value} |");
}

fn memory_text() -> String {
    let now = memory();
    format!("{:.1} MiB anonymous, {:.1} MiB at most", now.anonymous_kib as f64 / 1024.0, now.peak_kib as f64 / 1024.0)
}

fn open(path: &Path, max_bytes: u64, sync: SyncPolicy, endpoints: &[&str]) -> Buffer {
    let endpoints = endpoints.iter().map(|name| (*name).to_owned()).collect();
    let options = Options { path: path.to_owned(), max_bytes, max_age: None, min_free: Some(0), sync, endpoints };
    Buffer::open(options).expect("a temporary directory opens")
}

/// Bytes of the segments in the buffer at `path`, and how many.
fn segments(path: &Path) -> (u64, u64) {
    let files = fs::read_dir(path.join("v1")).expect("the buffer's folder").flatten();
    let lens = files.filter(|file| file.file_name().to_string_lossy().ends_with(".seg"));
    lens.fold((0, 0), |(bytes, many), file| (bytes + file.metadata().map_or(0, |about| about.len()), many + 1))
}

impl Bench {
    fn folder(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(&self.dir).expect("a temporary directory")
    }

    fn bytes_a_sample(&self) {
        for (max_bytes, fill_bytes) in [(256 * MIB, if self.quick { 12 } else { 48 } * MIB), (16 * MIB, 15 * MIB)] {
            let folder = self.folder();
            let buffer = open(folder.path(), max_bytes, SyncPolicy::Never, &["bench"]);
            let (mut samples, mut instants) = (0, 0);
            for snapshot in self.recording.replay() {
                samples += snapshot.samples.len() as u64;
                instants += 1;
                self.runtime.block_on(buffer.append(snapshot)).expect("appends");
                if buffer.status().used_bytes > fill_bytes {
                    break;
                }
            }
            let used = buffer.status().used_bytes;
            self.runtime.block_on(buffer.close());
            let (bytes, many) = segments(folder.path());
            let name = format!("bytes a sample, buffer of {} MiB", max_bytes / MIB);
            row(&name, format!("{:.3} ({instants} instants in {many} segments)", bytes as f64 / samples as f64));
            row(&format!("{name}, by `used_bytes`"), format!("{:.3}", used as f64 / samples as f64));
        }
    }

    /// The recorded run once, as requests.
    fn bodies(&self) {
        let run: Vec<Snapshot> = self.recording.replay().take(self.recording.len()).collect();
        for (version, message) in [("1.0", Message::V1), ("2.0", Message::V2)] {
            for (name, joined) in [("one instant", 1), ("ten instants", 10)] {
                for (packing, compression) in [("snappy", Compression::Snappy), ("zstd", Compression::Zstd)] {
                    let mut encoder = Encoder::new(Labels::empty(), None);
                    let (mut samples, mut bytes) = (0, 0);
                    for chunk in run.chunks(joined) {
                        let parts: Vec<Part<'_>> = chunk.iter().map(Part::from).collect();
                        bytes += encoder.encode(&parts, Format::new(message, compression)).bytes.len();
                        samples += chunk.iter().map(|snapshot| snapshot.samples.len()).sum::<usize>();
                    }
                    let value = format!("{:.2} bytes a sample", ratio(bytes, samples));
                    row(&format!("remote-write {version}, {name} in a body, {packing}"), value);
                }
            }
        }
    }

    fn appends(&self) {
        let many = if self.quick { 300 } else { 2_000 };
        let mut record_len = 0;
        for (name, sync) in [
            ("never", SyncPolicy::Never),
            ("interval", SyncPolicy::Interval(Duration::from_secs(1))),
            ("always", SyncPolicy::Always),
        ] {
            let folder = self.folder();
            let buffer = open(folder.path(), 256 * MIB, sync, &["bench"]);
            let disk = disk_written_bytes(&self.dir);
            let process = written_bytes();
            let (mut took, mut samples) = (Vec::with_capacity(many), 0);
            for snapshot in self.recording.replay().take(many) {
                samples += snapshot.samples.len();
                let start = Instant::now();
                self.runtime.block_on(buffer.append(snapshot)).expect("appends");
                took.push(start.elapsed());
            }
            self.runtime.block_on(buffer.close());
            forget_cached(folder.path());
            let (bytes, _) = segments(folder.path());
            record_len = bytes / many as u64;
            let total: Duration = took.iter().sum();
            let each = total.as_nanos() as f64 / samples as f64;
            row(&format!("append, sync {name}"), format!("{}, {each:.0} ns a sample", rate(&mut took)));
            let amplification = |written: u64| format!("{:.2}", written as f64 / bytes as f64);
            let by_disk = disk.zip(disk_written_bytes(&self.dir)).map(|(before, after)| amplification(after - before));
            let by_process = amplification(written_bytes() - process);
            let by_disk = by_disk.unwrap_or_else(|| "not known".to_owned());
            row(
                &format!("write amplification, sync {name}"),
                format!(
                    "{by_process} by this process, {by_disk} at the disk (everybody's writes) for {:.1} MiB",
                    mib(bytes)
                ),
            );
        }
        self.raw_syncs(many, record_len);
    }

    /// What the disk itself can do: as many bytes as a record has, appended and synced.
    fn raw_syncs(&self, many: usize, record_len: u64) {
        let file = tempfile::tempfile_in(&self.dir).expect("a temporary file");
        let record = vec![0x5a; usize::try_from(record_len).unwrap_or(1)];
        let mut took = Vec::with_capacity(many);
        for number in 0..many as u64 {
            let start = Instant::now();
            file.write_all_at(&record, number * record_len).expect("writes");
            file.sync_data().expect("syncs");
            took.push(start.elapsed());
        }
        row(&format!("the disk itself, {record_len} bytes and fdatasync"), rate(&mut took));
    }

    /// The recorded run, replayed, read back by one endpoint.
    fn reading(&self) {
        let folder = self.folder();
        let buffer = open(folder.path(), 256 * MIB, SyncPolicy::Never, &["bench"]);
        let many = if self.quick { 1_000 } else { 8_000 };
        for snapshot in self.recording.replay().take(many) {
            self.runtime.block_on(buffer.append(snapshot)).expect("appends");
        }
        let start = Instant::now();
        let samples = read_all(&self.runtime, &buffer, EndpointId(0));
        let took = start.elapsed();
        self.runtime.block_on(buffer.close());
        row("decode through next()", format!("{:.1} M samples/s", samples as f64 / took.as_secs_f64() / 1e6));
        row("memory after that", memory_text());
    }

    /// A backlog is made of noise, because a gigabyte of the recorded run would be months of it.
    fn backlogs(&self) {
        for bytes in if self.quick { vec![16 * MIB, 64 * MIB] } else { vec![64 * MIB, 1024 * MIB] } {
            let folder = self.folder();
            let buffer = open(folder.path(), 2 * bytes, SyncPolicy::Never, &ENDPOINTS);
            let start = Instant::now();
            for snapshot in self.recording.replay() {
                if buffer.status().used_bytes >= bytes {
                    break;
                }
                self.runtime.block_on(buffer.append(noisy(snapshot))).expect("appends");
            }
            self.runtime.block_on(buffer.close());
            let name = format!("{} MiB of backlog", bytes / MIB);
            row(
                &format!("{name}, made in"),
                format!("{:.1?} ({} segments)", start.elapsed(), segments(folder.path()).1),
            );
            forget_cached(folder.path());
            for temperature in ["cold", "warm"] {
                let took = first_send(folder.path());
                row(
                    &format!("{name}, {temperature}: first request of `outhaul run`"),
                    format!("{took:.1?} after its start"),
                );
            }
            forget_cached(folder.path());
            for (number, temperature) in ENDPOINTS[..READERS].iter().enumerate() {
                let child = std::process::Command::new(std::env::current_exe().expect("this program has a path"))
                    .args([CHILD, &folder.path().to_string_lossy(), "--endpoint", &number.to_string()])
                    .output()
                    .expect("this program runs again");
                print!(
                    "{}",
                    String::from_utf8_lossy(&child.stdout).replace("BACKLOG", &format!("{name}, {temperature}"))
                );
            }
        }
    }
}

/// The same series with values of which no bit can be foretold (xorshift64, Marsaglia 2003), so that each takes 8 bytes.
fn noisy(mut snapshot: Snapshot) -> Snapshot {
    let mut state = snapshot.at.millis().cast_unsigned() | 1;
    for Sample { value, .. } in &mut snapshot.samples {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *value = Value::from_bits(state);
    }
    snapshot
}

/// Every checksum, every sample.
fn verify(path: &Path, cache: &str) {
    let start = Instant::now();
    let verdict = Inspection::open(path).expect("a buffer").verify(&mut |_, _| {});
    let took = start.elapsed().as_secs_f64();
    let per_gib = took * 1024.0 / mib(verdict.bytes);
    let damages = verdict.damages.len();
    row(&format!("BACKLOG: verify, {cache}"), format!("{took:.2} s, {per_gib:.2} s/GiB ({damages} damages)"));
}

/// From the start of the program itself to the end of the first request it sends. It is killed unanswered, so the backlog
/// stays.
fn first_send(path: &Path) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/write", listener.local_addr().expect("an address"));
    let config = tempfile::Builder::new().suffix(".yml").tempfile().expect("a file");
    let text = format!(
        "docker: off\nbuffer: {{path: {}, max_bytes: 4GiB}}\nweb: {{listen_address: \"127.0.0.1:0\"}}\n\
         remote_write: [{{name: sent, url: \"{url}\"}}]\n",
        path.display()
    );
    fs::write(config.path(), text).expect("writes");
    let start = Instant::now();
    let mut agent = std::process::Command::new(env!("CARGO_BIN_EXE_outhaul"))
        .args(["run", "--config.file"])
        .arg(config.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let (stream, _) = listener.accept().expect("it connects");
    let mut reader = BufReader::new(stream);
    let mut body_bytes = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line of the head");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            body_bytes = value.trim().parse().expect("a length");
        }
        if line.trim().is_empty() {
            break;
        }
    }
    std::io::copy(&mut reader.take(body_bytes), &mut std::io::sink()).expect("the body");
    let took = start.elapsed();
    agent.kill().expect("it is there");
    agent.wait().expect("it ends");
    took
}

/// What a process does that finds a backlog.
fn open_and_read(runtime: &Runtime, path: &Path, endpoint: EndpointId) {
    let before = memory().anonymous_kib;
    let start = Instant::now();
    let buffer = open(path, 4096 * MIB, SyncPolicy::Never, &ENDPOINTS);
    let opened = start.elapsed();
    let lease = runtime.block_on(buffer.next(endpoint, LIMITS)).expect("there is a backlog");
    let first = start.elapsed();
    row("BACKLOG: open", format!("{opened:.1?}, with the first read {first:.1?} ({} samples)", lease.samples));
    drop(lease);
    let opened_kib = memory().anonymous_kib;
    let bytes = segments(path).0;
    let start = Instant::now();
    let samples = read_all(runtime, &buffer, endpoint);
    let took = start.elapsed().as_secs_f64();
    let per_gib = took * 1024.0 / mib(bytes);
    row(
        "BACKLOG: read whole",
        format!("{took:.2} s, {per_gib:.2} s/GiB, {:.1} M samples/s", samples as f64 / took / 1e6),
    );
    // The second endpoint still wants everything.
    if endpoint == EndpointId(0) {
        forget_cached(path);
        verify(path, "cold");
        verify(path, "warm");
    }
    let end = memory();
    let [before, opened, read, peak] =
        [before, opened_kib, end.anonymous_kib, end.peak_kib].map(|kib| kib as f64 / 1024.0);
    row(
        "BACKLOG: anonymous memory",
        format!(
            "{before:.1} MiB before, {opened:.1} after the first read, {read:.1} after the last; {peak:.1} at most with files"
        ),
    );
    runtime.block_on(buffer.close());
}

fn read_all(runtime: &Runtime, buffer: &Buffer, endpoint: EndpointId) -> u64 {
    let mut samples = 0;
    while let Some(lease) = runtime.block_on(buffer.next(endpoint, LIMITS)) {
        samples += lease.samples;
        let fates = Fates { delivered: lease.samples, ..Fates::default() };
        runtime.block_on(buffer.ack(endpoint, lease.through, fates));
    }
    samples
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB as f64
}

fn ratio(bytes: usize, samples: usize) -> f64 {
    bytes as f64 / samples as f64
}

/// How often a second, and the usual and the slow ones.
fn rate(took: &mut [Duration]) -> String {
    took.sort_unstable();
    let total: Duration = took.iter().sum();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    format!("{:.0}/s, p50 {:.1?}, p99 {:.1?}", took.len() as f64 / total.as_secs_f64(), at(50), at(99))
}
