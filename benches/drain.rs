//! A day's backlog drained to a local receiver: seconds, seconds of processor, samples a second, bytes a sample, peak memory;
//! in both formats.
//!
//! 5,000 series at 10 s, three in ten of the values changing each tick, written by the real buffer and sent by the real
//! shipper. The receiver is a thread of a process of its own (this program again) that reads requests and answers at once,
//! so that the sender is what is measured. `--quick` takes an hour instead of a day.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use outhaul::buffer::{Buffer, EndpointId, Options, SyncPolicy};
use outhaul::clock::Clock;
use outhaul::config::{Environment, RemoteWrite};
use outhaul::model::{Labels, Metadata, MetricKind, Sample, Series, Snapshot, Target, Timestamp, Value};
use outhaul::ship::{Metrics, Shipper, ShipperOptions, install_crypto_provider};
use outhaul::telemetry::Registry;

const SERIES: u32 = 5_000;
const TICK_SECONDS: u32 = 10;
const DAY_TICKS: u32 = 8_640;
const HOUR_TICKS: u32 = 360;
const START: Timestamp = Timestamp::from_millis(1_795_226_444_035);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("sink") => sink(),
        Some("drain") => drain(&arguments[1], &arguments[2], &arguments[3]),
        _ => measure(if arguments.iter().any(|argument| argument == "--quick") { HOUR_TICKS } else { DAY_TICKS }),
    }
}

#[expect(clippy::print_stdout, reason = "this is what the bench is for")]
fn measure(ticks: u32) {
    for protocol in ["v1", "v2"] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_str().expect("a path of text").to_owned();
        let began = Instant::now();
        fill(&path, ticks);
        println!("{protocol}: {} samples buffered in {:.1} s", SERIES * ticks, began.elapsed().as_secs_f64());
        let mut sink = again(&["sink"]).stdout(Stdio::piped()).spawn().expect("a receiver");
        let mut url = String::new();
        BufReader::new(sink.stdout.take().expect("its output")).read_line(&mut url).expect("its address");
        // A process of its own, so that its peak of memory is the sender's alone.
        let status = again(&["drain", &path, url.trim(), protocol]).status().expect("a sender");
        sink.kill().expect("the receiver ends");
        sink.wait().expect("the receiver ends");
        assert!(status.success());
    }
}

fn again(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(arguments);
    command
}

fn options(path: &str) -> Options {
    Options {
        path: path.into(),
        max_bytes: 8 << 30,
        max_age: None,
        min_free: Some(0),
        sync: SyncPolicy::Never,
        endpoints: vec!["drain".to_owned()],
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Writes the backlog.
fn fill(path: &str, ticks: u32) {
    let target = Target::new("edge-roof-3");
    let series: Vec<Arc<Series>> = (0..SERIES)
        .map(|number| {
            let family = format!("container_metric_{}_total", number % 50);
            let labels = target.series(&family).with("name", format!("shop-worker-{}", number / 50));
            let labels = labels.with("image", "registry.example.org/shop/worker:2026.11.1").build_lossy();
            let help = "A number about a container.";
            let metadata =
                Metadata { family: family.into(), kind: MetricKind::Counter, help: help.into(), unit: "".into() };
            Arc::new(Series::new(labels, Arc::new(metadata)))
        })
        .collect();
    let mut values: Vec<u32> = (0..SERIES).map(|number| number * 7).collect();
    let mut chance: u32 = 1;
    runtime().block_on(async {
        let buffer = Buffer::open(options(path)).expect("a buffer");
        for tick in 0..ticks {
            for value in &mut values {
                // Marsaglia's xorshift: the same backlog each time.
                chance ^= chance << 13;
                chance ^= chance >> 17;
                chance ^= chance << 5;
                if chance % 10 < 3 {
                    *value += chance % 1000;
                }
            }
            let sample =
                |(series, value): (&Arc<Series>, &u32)| Sample::new(Arc::clone(series), Value::new(f64::from(*value)));
            let samples = series.iter().zip(&values).map(sample).collect();
            let at = START.plus(Duration::from_secs(u64::from(tick * TICK_SECONDS)));
            buffer.append(Snapshot::new(at, samples)).await.expect("room");
        }
        buffer.close().await;
    });
}

fn config(url: &str, protocol: &str) -> RemoteWrite {
    let text = format!("remote_write: [{{name: drain, url: '{url}', protocol: auto}}]");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("outhaul.yml");
    std::fs::write(&file, text).expect("a file");
    let config = outhaul::config::load(Some(&file), &Environment::of_process()).expect("a configuration");
    let protocol = if protocol == "v1" { outhaul::config::Protocol::V1 } else { outhaul::config::Protocol::V2 };
    RemoteWrite { protocol, ..config.remote_write.into_iter().next().expect("an endpoint") }
}

#[expect(clippy::print_stdout, reason = "this is what the bench is for")]
fn drain(path: &str, url: &str, protocol: &str) {
    install_crypto_provider();
    let registry = Registry::new();
    let processor_before = processor_seconds();
    let (samples, seconds) = runtime().block_on(async {
        let buffer = Buffer::open(options(path)).expect("a buffer");
        let samples = buffer.status().endpoints[0].ledger.pending;
        let (trigger, shutdown) = outhaul::shutdown::channel();
        let shipper = Shipper::new(ShipperOptions {
            endpoint: EndpointId(0),
            config: config(url, protocol),
            external_labels: Labels::empty(),
            send_unchanged_every: None,
            buffer: buffer.clone(),
            clock: Clock::system(),
            metrics: &Metrics::register(&registry),
        });
        let began = Instant::now();
        let shipping = tokio::spawn(shipper.run(shutdown));
        let mut changes = buffer.changes();
        let status =
            changes.wait_for(|status| status.endpoints[0].ledger.pending == 0).await.expect("a buffer").clone();
        let seconds = began.elapsed().as_secs_f64();
        assert_eq!(status.endpoints[0].ledger.delivered, samples, "everything was taken");
        trigger.advance(outhaul::shutdown::Phase::Stopped);
        shipping.await.expect("the shipper returns");
        (samples as f64, seconds)
    });
    let families = registry.gather();
    let bytes = families.iter().find(|family| family.name() == "prometheus_remote_storage_bytes_total");
    let bytes = bytes.map_or(0.0, |family| family.get_metric()[0].get_counter().get_value());
    println!(
        "{protocol}: drained in {seconds:.1} s ({:.1} s of processor), {:.0} samples/s, {:.2} bytes/sample, peak memory {:.1} MB",
        processor_seconds() - processor_before,
        samples / seconds,
        bytes / samples,
        peak_memory_megabytes()
    );
}

/// What this process took of all processors.
fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).map_or(f64::NAN, |time| time.as_secs_f64())
}

/// The high-water mark of resident memory (proc(5), `VmHWM`).
fn peak_memory_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or(f64::NAN) / 1000.0
}

/// Takes every request without looking into it, and says so as both versions of remote-write want it said.
#[expect(clippy::print_stdout, reason = "whoever started it reads the address")]
fn sink() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("http://{}/push", listener.local_addr().expect("an address"));
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || serve(stream));
    }
}

fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).expect("a socket");
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            if line.is_empty() {
                break;
            }
        }
        if std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink()).is_err() {
            return;
        }
        // At least as many as any request holds: what it reads it does not look into.
        let answer = b"HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: 1000000\r\n\r\n";
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}
