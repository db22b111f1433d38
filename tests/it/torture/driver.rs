//! A child process that loads a buffer as fast as it can and says what was acknowledged: this test binary itself, started
//! again with its orders in the environment.
//!
//! Record `id` stands at the instant `id` and holds values that only it has, so whoever receives it can tell whether it is
//! the one that was appended.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outhaul::buffer::{Buffer, EndpointId, Fates, Limits, Options, SyncPolicy};
use outhaul::model::{Interner, Labels, Metadata, MetricKind, Sample, Series, Snapshot, Target, Timestamp, Value};
use outhaul::ship::{self, Shipper, ShipperOptions};
use outhaul::{clock::Clock, config, shutdown};

use crate::bed::{Guarded, buffer_options};

/// Ids of one life of the child start at its number times this.
pub(super) const LIFE: u64 = 1_000_000;
/// The instant of id 0.
const FIRST_MILLIS: i64 = 1_700_000_000_000;
const ENDPOINT: &str = "e";

/// What a child is told.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    /// Which life; its first id is this times [`LIFE`].
    pub(super) life: u64,
    /// How many records; zero is without end.
    pub(super) count: u64,
    /// Samples in each.
    pub(super) samples: u64,
    /// Where to ship to; without it, it takes some itself.
    pub(super) url: Option<String>,
    pub(super) max_bytes: u64,
    /// Between two appends; zero is as fast as it goes.
    pub(super) pause_millis: u64,
}

impl Default for Orders {
    fn default() -> Self {
        Self { life: 0, count: 0, samples: 4, url: None, max_bytes: 64 << 20, pause_millis: 0 }
    }
}

/// What a child said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Appended and durable.
    pub(super) durable: BTreeSet<u64>,
    /// Appended, in memory only.
    pub(super) held: BTreeSet<u64>,
    /// Taken out and acknowledged by itself.
    pub(super) taken: BTreeSet<u64>,
    /// It came to its end.
    pub(super) done: bool,
}

impl Said {
    fn line(&mut self, line: &str) {
        let Some((word, id)) = line.split_once(' ') else { return };
        let Ok(id) = id.parse() else { return };
        match word {
            "durable" => drop(self.durable.insert(id)),
            "held" => drop(self.held.insert(id)),
            "taken" => drop(self.taken.insert(id)),
            "done" => self.done = true,
            _ => {}
        }
    }

    /// All that the child said until it ended.
    pub(super) fn read(output: ChildStdout) -> Self {
        let heard = Mutex::new(Self::default());
        Self::hear(output, &heard);
        heard.into_inner().unwrap()
    }

    /// The same, for whoever wants to know meanwhile.
    pub(super) fn hear(output: ChildStdout, heard: &Mutex<Self>) {
        // A line that was cut short in the middle was never said.
        let mut lines = BufReader::new(output);
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
            if line.ends_with('\n') {
                heard.lock().unwrap().line(line.trim_end());
            }
            line.clear();
        }
    }
}

/// The command that runs a child; `wrapper` is what it runs under, such as strace.
pub(super) fn command(directory: &Path, orders: &Orders, wrapper: &[String]) -> Command {
    let own = std::env::current_exe().unwrap().display().to_string();
    let whole: Vec<String> = wrapper.iter().cloned().chain([own]).collect();
    let mut command = Command::new(&whole[0]);
    command
        .args(&whole[1..])
        .args(["--exact", "torture::driver::child", "--ignored", "--nocapture", "--test-threads=1"])
        .env("OUTHAUL_CHILD_DIRECTORY", directory)
        .env("OUTHAUL_CHILD_LIFE", orders.life.to_string())
        .env("OUTHAUL_CHILD_COUNT", orders.count.to_string())
        .env("OUTHAUL_CHILD_SAMPLES", orders.samples.to_string())
        .env("OUTHAUL_CHILD_MAX_BYTES", orders.max_bytes.to_string())
        .env("OUTHAUL_CHILD_PAUSE_MILLIS", orders.pause_millis.to_string())
        .env("OUTHAUL_CHILD_URL", orders.url.clone().unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Starts a child and hands out what it says.
pub(super) fn start(directory: &Path, orders: &Orders) -> (Guarded, ChildStdout) {
    let mut child = Guarded(command(directory, orders, &[]).spawn().unwrap());
    let output = child.stdout.take().unwrap();
    (child, output)
}

fn options(directory: &Path, max_bytes: u64) -> Options {
    Options { max_bytes, sync: SyncPolicy::Always, ..buffer_options(directory, &[ENDPOINT]) }
}

/// The buffer as this process opens it after the child is gone.
pub(super) fn open(directory: &Path, max_bytes: u64) -> Buffer {
    Buffer::open(options(directory, max_bytes)).unwrap_or_else(|error| panic!("after the end of the child: {error}"))
}

pub(super) fn all_series(samples: u64) -> Vec<Arc<Series>> {
    let mut interner = Interner::default();
    let target = Target::new("torture");
    let metadata = Arc::new(Metadata {
        family: "load".into(),
        kind: MetricKind::Gauge,
        help: "what the driver appends".into(),
        unit: "".into(),
    });
    let one = |index: u64| {
        let labels = target.series("load").with("index", index.to_string()).build().unwrap();
        interner.intern(labels, &metadata)
    };
    (0..samples).map(one).collect()
}

/// What series `index` has in record `id`.
pub(super) fn value(id: u64, index: u64) -> f64 {
    if index == 1 {
        return 1.0;
    }
    // Noise (splitmix64), because what can be foretold takes next to nothing on disk; a number, whatever its sign.
    let mut bits = (id << 20 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    f64::from_bits(bits & !(1 << 62))
}

pub(super) fn id_of(at: Timestamp) -> u64 {
    u64::try_from(at.millis() - FIRST_MILLIS).unwrap()
}

pub(super) fn snapshot(series: &[Arc<Series>], id: u64) -> Snapshot {
    let sample = |(index, series): (u64, &Arc<Series>)| Sample::new(Arc::clone(series), Value::new(value(id, index)));
    let at = Timestamp::from_millis(FIRST_MILLIS + i64::try_from(id).unwrap());
    Snapshot::new(at, (0..).zip(series).map(sample).collect())
}

/// Everything the buffer still has, acknowledged; each record must be one that was appended, bit for bit.
pub(super) async fn take_all(buffer: &Buffer, samples: u64) -> Vec<u64> {
    let series = all_series(samples);
    let mut ids = Vec::new();
    while let Some(lease) = buffer.next(EndpointId(0), Limits { instants_max: 50, samples_max: 100_000 }).await {
        for one in &lease.snapshots {
            let id = id_of(one.at);
            assert_eq!(*one, snapshot(&series, id), "record {id} is altered");
            ids.push(id);
        }
        buffer.ack(EndpointId(0), lease.through, Fates { delivered: lease.samples, ..Fates::default() }).await;
    }
    assert!(ids.is_sorted_by(|one, next| one < next), "out of order or doubled: {ids:?}");
    ids
}

pub(super) fn balances(buffer: &Buffer) {
    for endpoint in &buffer.status().endpoints {
        assert!(endpoint.ledger.balances(), "{endpoint:?}");
    }
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// One of the orders.
fn number(name: &str) -> u64 {
    std::env::var(format!("OUTHAUL_CHILD_{name}")).unwrap().parse().unwrap()
}

fn say(word: &str, id: u64) {
    // One write for one line: what arrives is whole. Nobody listens any more when the parent is gone.
    std::io::stdout().write_all(format!("{word} {id}\n").as_bytes()).ok();
}

#[test]
#[ignore = "not a test: the child process of the others"]
fn child() {
    let Some(directory) = std::env::var_os("OUTHAUL_CHILD_DIRECTORY") else { return };
    let url = std::env::var("OUTHAUL_CHILD_URL").unwrap_or_default();
    // The test harness has begun a line.
    say("\nopening", 0);
    let buffer = Buffer::open(options(Path::new(&directory), number("MAX_BYTES"))).unwrap();
    let (first, count) = (number("LIFE") * LIFE + 1, number("COUNT"));
    let last = if count == 0 { u64::MAX } else { first + count };
    runtime().block_on(async {
        if url.is_empty() {
            load(&buffer, first, last, &all_series(number("SAMPLES")), true).await;
        } else {
            let (trigger, shutdown) = shutdown::channel();
            let ships = shipper(&buffer, &url).run(shutdown);
            let loads = async {
                if first < last {
                    load(&buffer, first, last, &all_series(number("SAMPLES")), false).await;
                }
                trigger.advance(shutdown::Phase::Draining);
            };
            tokio::join!(ships, loads);
        }
        balances(&buffer);
        buffer.close().await;
    });
    say("done", 0);
}

async fn load(buffer: &Buffer, first: u64, last: u64, series: &[Arc<Series>], takes: bool) {
    let pause = Duration::from_millis(number("PAUSE_MILLIS"));
    for id in first..last {
        tokio::time::sleep(pause).await;
        let appended = buffer.append(snapshot(series, id)).await.unwrap();
        say(if appended.durable { "durable" } else { "held" }, id);
        if takes && id % 4 == 0 {
            take_some(buffer).await;
        }
    }
}

/// Takes a part of the backlog, so that cursors move and segments go.
async fn take_some(buffer: &Buffer) {
    let Some(lease) = buffer.next(EndpointId(0), Limits { instants_max: 3, samples_max: 100_000 }).await else {
        return;
    };
    lease.snapshots.iter().for_each(|one| say("taken", id_of(one.at)));
    buffer.ack(EndpointId(0), lease.through, Fates { delivered: lease.samples, ..Fates::default() }).await;
}

fn shipper(buffer: &Buffer, url: &str) -> Shipper {
    ship::install_crypto_provider();
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "remote_write: [{{name: {ENDPOINT}, url: \"{url}\", \
         queue_config: {{min_backoff: 30ms, max_backoff: 100ms}}, metadata_config: {{send: false}}}}]\n"
    );
    std::fs::write(file.path(), text).unwrap();
    let config = config::load(Some(file.path()), &config::Environment::default()).unwrap();
    Shipper::new(ShipperOptions {
        endpoint: EndpointId(0),
        config: config.remote_write[0].clone(),
        external_labels: Labels::empty(),
        send_unchanged_every: None,
        buffer: buffer.clone(),
        clock: Clock::system(),
        metrics: &ship::Metrics::register(&outhaul::telemetry::Registry::new()),
    })
}
