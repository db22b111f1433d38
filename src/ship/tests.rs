//! Shipping against a server that does what servers and the networks before them do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::scripted::{Reply, Seen, Server, answer, no_content, status};
use super::*;
use crate::buffer::{Buffer, EndpointId, Ledger, Options, SyncPolicy};
use crate::clock::Clock;
use crate::config::{self, Auth, PushgatewayMode, Queue, RemoteWrite, Secret, SecretSource, SendMetadata};
use crate::encode::{self, Compression, Decoded, Message};
use crate::model::{Labels, Metadata, MetricKind, Sample, Series, Snapshot, Timestamp, Value};
use crate::shutdown::{self, Phase, Trigger};
use crate::telemetry::Registry;

const NOW: Timestamp = Timestamp::from_millis(1_795_226_444_035);

/// Keeps paused time from moving by itself while the runtime waits for a socket, which it takes for idleness.
struct Time(#[expect(dead_code, reason = "dropping it lets the blocked thread go")] std::sync::mpsc::Sender<()>);

impl Time {
    fn stand_still() -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || receiver.recv().unwrap_err());
        Self(sender)
    }
}

struct Rig {
    server: Server,
    buffer: Buffer,
    state: watch::Receiver<EndpointState>,
    registry: Registry,
    trigger: Trigger,
    task: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

fn config(url: reqwest::Url) -> RemoteWrite {
    RemoteWrite {
        name: "test".to_owned(),
        url: config::Url::new(url),
        remote_timeout: Duration::from_secs(30),
        headers: BTreeMap::new(),
        auth: Auth::None,
        http: config::Http::default(),
        protocol: config::Protocol::V1,
        compression: config::Compression::Snappy,
        send_interval: Duration::ZERO,
        send_exemplars: false,
        send_native_histograms: false,
        queue: Queue {
            max_samples_per_send: 2000,
            min_backoff: Duration::from_millis(30),
            max_backoff: Duration::from_millis(200),
            retry_on_http_429: true,
        },
        metadata: SendMetadata { send: false, send_interval: Duration::from_secs(60), max_samples_per_send: 2000 },
        write_relabel_configs: crate::relabel::Rules::default(),
        max_sample_age: None,
    }
}

impl Rig {
    async fn start(server: Server) -> Self {
        Self::start_with(server, |_| {}, vec![]).await
    }

    /// A shipper on a buffer that already holds `backlog`, a second apart.
    async fn start_with(server: Server, change: impl FnOnce(&mut RemoteWrite), backlog: Vec<Snapshot>) -> Self {
        let (buffer, directory) = open(1);
        fill(&buffer, backlog).await;
        Self::build(server, change, None, buffer, directory)
    }

    /// A shipper on a buffer that was closed before.
    fn start_on(server: Server, change: impl FnOnce(&mut RemoteWrite), directory: tempfile::TempDir) -> Self {
        let buffer = Buffer::open(options(directory.path(), 1)).unwrap();
        Self::build(server, change, None, buffer, directory)
    }

    async fn start_unchanged(
        server: Server,
        change: impl FnOnce(&mut RemoteWrite),
        every: Duration,
        backlog: Vec<Snapshot>,
    ) -> Self {
        let (buffer, directory) = open(1);
        fill(&buffer, backlog).await;
        Self::build(server, change, Some(every), buffer, directory)
    }

    fn build(
        server: Server,
        change: impl FnOnce(&mut RemoteWrite),
        send_unchanged_every: Option<Duration>,
        buffer: Buffer,
        directory: tempfile::TempDir,
    ) -> Self {
        install_crypto_provider();
        let mut config = config(server.url.clone());
        change(&mut config);
        let registry = Registry::new();
        let (trigger, shutdown) = shutdown::channel();
        let shipper = Shipper::new(ShipperOptions {
            endpoint: EndpointId(0),
            config,
            external_labels: Labels::empty(),
            send_unchanged_every,
            buffer: buffer.clone(),
            clock: Clock::manual(NOW),
            metrics: &Metrics::register(&registry),
        });
        let state = shipper.state();
        let task = tokio::spawn(shipper.run(shutdown));
        Self { server, buffer, state, registry, trigger, task, _directory: directory }
    }

    async fn append(&self, snapshot: Snapshot) {
        self.buffer.append(snapshot).await.unwrap();
    }

    async fn wait_for(&mut self, what: impl FnMut(&EndpointState) -> bool) -> EndpointState {
        self.state.wait_for(what).await.unwrap().clone()
    }

    /// Resolves when nothing is pending any more.
    async fn settled(&self) -> Ledger {
        let mut changes = self.buffer.changes();
        let settled = changes.wait_for(|status| {
            status
                .endpoints
                .first()
                .is_some_and(|endpoint| endpoint.ledger.appended > 0 && endpoint.ledger.pending == 0)
        });
        settled.await.unwrap().endpoints[0].ledger
    }

    fn metric(&self, name: &str) -> f64 {
        self.registry.value(name)
    }

    async fn stop(self) -> Ledger {
        self.trigger.advance(Phase::Draining);
        self.task.await.unwrap();
        self.buffer.status().endpoints[0].ledger
    }
}

fn options(path: &std::path::Path, endpoints: usize) -> Options {
    Options {
        path: path.to_owned(),
        max_bytes: 64 << 20,
        max_age: None,
        min_free: Some(0),
        sync: SyncPolicy::Never,
        endpoints: (0..endpoints).map(|ordinal| format!("endpoint{ordinal}")).collect(),
    }
}

fn open(endpoints: usize) -> (Buffer, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (Buffer::open(options(directory.path(), endpoints)).unwrap(), directory)
}

async fn fill(buffer: &Buffer, backlog: Vec<Snapshot>) {
    for (second, snapshot) in (0..).zip(backlog) {
        let at = snapshot.at.plus(Duration::from_secs(second));
        buffer.append(Snapshot { at, ..snapshot }).await.unwrap();
    }
}

fn snapshot_at(at: Timestamp, samples: usize) -> Snapshot {
    let metadata = Arc::new(Metadata::of("up", MetricKind::Gauge, "is it up"));
    let sample = |ordinal: usize| {
        let labels = Labels::builder().with("__name__", "up").with("ordinal", ordinal.to_string()).build().unwrap();
        Sample::new(Arc::new(Series::new(labels, Arc::clone(&metadata))), Value::new(ordinal as f64))
    };
    Snapshot::new(at, (0..samples).map(sample).collect())
}

fn snapshot(samples: usize) -> Snapshot {
    snapshot_at(NOW, samples)
}

fn decoded(seen: &Seen) -> Decoded {
    encode::decode(&seen.body, Message::V1, Compression::Snappy, 1 << 20).unwrap()
}

fn delivered(samples: u64) -> Ledger {
    Ledger { appended: samples, delivered: samples, ..Ledger::default() }
}

#[tokio::test]
async fn a_request_is_exactly_what_the_specification_asks_for() {
    let server = Server::replying([]).await;
    let secrets = |config: &mut RemoteWrite| {
        let pairs = [("X-Scope-OrgID", "tenant"), ("Content-Type", "text/evil"), ("User-Agent", "evil")];
        config.headers = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        config.auth = Auth::Basic {
            username: SecretSource::Value(Secret::from("user")),
            password: SecretSource::Value(Secret::from("hunter2")),
        };
    };
    let mut rig = Rig::start_with(server, secrets, vec![snapshot(2)]).await;
    let seen = rig.server.next().await;
    assert_eq!((seen.method(), seen.path()), ("POST", "/push"));
    for (name, value) in [
        ("Content-Encoding", Some("snappy")),
        ("Content-Type", Some("application/x-protobuf")),
        ("X-Prometheus-Remote-Write-Version", Some("0.1.0")),
        ("User-Agent", Some(concat!("outhaul/", env!("CARGO_PKG_VERSION")))),
        ("X-Scope-OrgID", Some("tenant")),
        ("Authorization", Some("Basic dXNlcjpodW50ZXIy")),
        ("Retry-Attempt", None),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert_eq!(seen.head.to_ascii_lowercase().matches("content-type").count(), 1);
    let sent = snapshot(2);
    for (series, sample) in decoded(&seen).series.iter().zip(&sent.samples) {
        assert_eq!(&series.labels, sample.series.labels());
        assert_eq!(series.samples, [(NOW, sample.value)]);
    }
    assert_eq!(rig.settled().await, delivered(2));
    let state = rig.wait_for(|state| state.delivering).await;
    assert_eq!((state.last_success, state.last_status, state.last_error), (Some(NOW), Some(204), None));
    for (name, value) in [
        ("prometheus_remote_storage_samples_total", 2.0),
        ("prometheus_remote_storage_bytes_total", seen.body.len() as f64),
        ("prometheus_remote_storage_queue_highest_sent_timestamp_seconds", NOW.seconds()),
        ("outhaul_endpoint_up", 1.0),
        ("outhaul_requests_total", 1.0),
    ] {
        assert_eq!(rig.metric(name).to_bits(), f64::to_bits(value), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn waits_double_with_jitter_and_the_same_bytes_are_sent_again() {
    let _time = Time::stand_still();
    let mut attempts = 0;
    let server = Server::start(move |_| {
        attempts += 1;
        if attempts <= 8 { status("503 Service Unavailable") } else { no_content() }
    });
    let queue = |config: &mut RemoteWrite| {
        config.queue.min_backoff = Duration::from_secs(1);
        config.queue.max_backoff = Duration::from_secs(30);
    };
    let mut rig = Rig::start_with(server.await, queue, vec![snapshot(3)]).await;
    let first = rig.server.next().await;
    for (attempt, expected_secs) in (1..).zip([1, 2, 4, 8, 16, 30, 30, 30]) {
        let state = rig.wait_for(|state| state.retry_in.is_some() && state.consecutive_failures == attempt).await;
        let (wait, expected) = (state.retry_in.unwrap(), Duration::from_secs(expected_secs));
        assert!(wait >= expected.mul_f64(0.899) && wait <= expected.mul_f64(1.101), "{wait:?} for {expected:?}");
        assert_eq!(state.stalled_since, Some(NOW));
        let failed_at = Instant::now();
        // A request sleeps for its wait and not a moment less; timers go by milliseconds.
        tokio::time::advance(wait.saturating_sub(Duration::from_millis(2))).await;
        assert!(rig.server.requests.try_recv().is_err(), "attempt {attempt} came early");
        tokio::time::advance(Duration::from_millis(4)).await;
        let seen = rig.server.next().await;
        assert!(seen.at - failed_at <= wait + Duration::from_millis(2));
        assert_eq!(seen.header("Retry-Attempt"), Some(attempt.to_string().as_str()));
        assert_eq!(seen.body, first.body);
    }
    assert_eq!(rig.settled().await, delivered(3));
    assert_eq!(rig.metric("prometheus_remote_storage_samples_retried_total").to_bits(), 24f64.to_bits());
    let state = rig.wait_for(|state| state.delivering).await;
    assert_eq!((state.stalled_since, state.consecutive_failures), (None, 0));
}

#[tokio::test]
async fn whatever_breaks_on_the_way_is_tried_again_until_it_is_delivered() {
    let stall = Reply::Stall(Vec::new());
    let half = Reply::Stall(b"HTTP/1.1 20".to_vec());
    let garbage = Reply::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec());
    let odd = status("999 What");
    let endless =
        Reply::Endless(b"HTTP/1.1 500 x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(), b"5\r\nhello\r\n".to_vec());
    let text_stalls = Reply::Stall(b"HTTP/1.1 500 x\r\ncontent-length: 10\r\n\r\nhello".to_vec());
    let headers = Reply::Bytes([b"HTTP/1.1 204 x\r\n".to_vec(), b"x: y\r\n".repeat(100_000)].concat());
    let replies = [stall, half, Reply::Reset, Reply::Close, garbage, odd, endless, text_stalls, headers];
    let count = replies.len();
    let server = Server::replying(replies).await;
    let quick = |config: &mut RemoteWrite| config.remote_timeout = Duration::from_millis(300);
    let mut rig = Rig::start_with(server, quick, vec![snapshot(1)]).await;
    let first = rig.server.next().await;
    for _ in 0..count {
        assert_eq!(rig.server.next().await.body, first.body);
    }
    assert_eq!(rig.settled().await, delivered(1));
}

#[tokio::test]
async fn a_megabyte_of_error_text_costs_a_kilobyte_and_one_batch() {
    let text = "bad\nsample ".repeat(100_000);
    let server = Server::replying([answer("400 Bad Request", "content-type: text/plain\r\n", &text)]).await;
    let mut rig = Rig::start(server).await;
    rig.append(snapshot_at(NOW.minus(Duration::from_secs(1)), 2)).await;
    let state = rig.wait_for(|state| state.last_error.is_some()).await;
    let error = state.last_error.unwrap();
    assert!(error.len() <= 1024 + 20 && error.starts_with("status 400: bad sample"), "{error}");
    assert_eq!(state.stalled_since, None, "what is refused does not stall what follows");
    rig.append(snapshot(3)).await;
    let ledger = rig.settled().await;
    let expected = Ledger { appended: 5, delivered: 3, refused: 2, ..Ledger::default() };
    assert_eq!(if ledger == expected { ledger } else { rig.settled().await }, expected);
    assert_eq!(rig.metric("prometheus_remote_storage_samples_failed_total").to_bits(), 2f64.to_bits());
}

#[tokio::test(start_paused = true)]
async fn samples_are_held_until_a_token_file_is_right() {
    let _time = Time::stand_still();
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("token");
    let server = Server::start(|seen| match seen.header("Authorization") {
        Some("Bearer good") => no_content(),
        _ => answer("401 Unauthorized", "", "invalid token"),
    });
    let token = SecretSource::File(path.clone());
    let auth = |config: &mut RemoteWrite| {
        config.auth = Auth::Authorization { scheme: "Bearer".to_owned(), credentials: token };
    };
    let mut rig = Rig::start_with(server.await, auth, vec![snapshot(1)]).await;

    let state = rig.wait_for(|state| state.retry_in.is_some()).await;
    assert!(state.last_error.unwrap().contains(&*path.to_string_lossy()), "the missing file is named");
    assert_eq!(state.last_status, None, "without a token nothing is sent");

    std::fs::write(&path, "bad\n").unwrap();
    for (content, error) in [("good\n", Some("status 401: invalid token")), ("good\n", None)] {
        let wait = rig.wait_for(|state| state.retry_in.is_some()).await.retry_in.unwrap();
        assert!(wait >= Duration::from_secs(30) && wait <= Duration::from_secs(38), "{wait:?}");
        // Timers go by milliseconds.
        tokio::time::advance(wait + Duration::from_millis(2)).await;
        rig.server.next().await;
        if error.is_some() {
            let state = rig.wait_for(|state| state.last_status == Some(401)).await;
            assert_eq!(state.last_error.as_deref(), error);
        }
        std::fs::write(&path, content).unwrap();
    }
    assert_eq!(rig.settled().await, delivered(1));
}

#[tokio::test]
async fn requests_shrink_until_the_receiver_takes_them_and_stay_small() {
    let server = Server::start(|seen| {
        let count = decoded(seen).series.len();
        if count > 10 { answer("413 Payload Too Large", "content-type: text/html\r\n", "<html>") } else { no_content() }
    });
    let mut rig = Rig::start_with(server.await, |_| {}, vec![snapshot(64)]).await;
    rig.settled().await;
    rig.append(snapshot_at(NOW.plus(Duration::from_secs(1)), 9)).await;
    let mut sizes = Vec::new();
    let mut ordinals = Vec::new();
    while sizes.iter().filter(|size| **size <= 10).sum::<usize>() < 73 {
        let series = decoded(&rig.server.next().await).series;
        sizes.push(series.len());
        if series.len() <= 10 {
            ordinals
                .extend(series.iter().map(|series| series.labels.get("ordinal").unwrap().parse::<usize>().unwrap()));
        }
    }
    assert_eq!(sizes, [64, 32, 16, 8, 8, 8, 8, 8, 8, 8, 8, 8, 1]);
    assert_eq!(ordinals, (0..64).chain(0..9).collect::<Vec<_>>(), "every sample once, in order");
    assert_eq!(rig.stop().await, delivered(73));
}

#[tokio::test]
async fn the_size_that_a_receiver_takes_is_known_after_a_restart() {
    let small =
        |seen: &Seen| if decoded(seen).series.len() > 10 { status("413 Payload Too Large") } else { no_content() };
    let rig = Rig::start_with(Server::start(small).await, |_| {}, vec![snapshot(64)]).await;
    rig.settled().await;
    let Rig { buffer, _directory: directory, trigger, task, .. } = rig;
    trigger.advance(Phase::Draining);
    task.await.unwrap();
    fill(&buffer, vec![snapshot_at(NOW.plus(Duration::from_secs(1)), 64)]).await;
    buffer.close().await;
    let mut rig = Rig::start_on(Server::start(small).await, |_| {}, directory);
    for _ in 0..8 {
        assert_eq!(decoded(&rig.server.next().await).series.len(), 8, "no request is too large any more");
    }
    assert_eq!(rig.stop().await, delivered(128));
}

#[tokio::test]
async fn a_single_sample_that_is_too_large_costs_only_itself() {
    let server = Server::start(|seen| {
        let poisoned = decoded(seen).series.iter().any(|series| series.labels.get("ordinal") == Some("5"));
        if poisoned { status("413 Payload Too Large") } else { no_content() }
    });
    let rig = Rig::start_with(server.await, |_| {}, vec![snapshot(16)]).await;
    assert_eq!(rig.settled().await, Ledger { appended: 16, delivered: 15, refused: 1, ..Ledger::default() });
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_says_when_to_come_back_is_obeyed() {
    let _time = Time::stand_still();
    let server = Server::replying([answer("429 Too Many Requests", "retry-after: 7\r\n", "slow down")]).await;
    let mut rig = Rig::start_with(server, |_| {}, vec![snapshot(1)]).await;
    rig.server.next().await;
    let wait = rig.wait_for(|state| state.retry_in.is_some()).await.retry_in.unwrap();
    assert!(wait >= Duration::from_secs(7) && wait < Duration::from_secs(9), "{wait:?}");
    tokio::time::advance(Duration::from_millis(6990)).await;
    assert!(rig.server.requests.try_recv().is_err(), "not before");
    tokio::time::advance(Duration::from_secs(2)).await;
    rig.server.next().await;
    assert_eq!(rig.settled().await, delivered(1));
}

#[tokio::test]
async fn a_login_page_gets_nothing_and_loses_nothing() {
    for page in [
        answer("302 Found", "location: /login\r\n", ""),
        answer("200 OK", "content-type: text/html; charset=utf-8\r\n", "welcome"),
        answer("200 OK", "", "<!DOCTYPE html>"),
        answer("308 Permanent Redirect", "location: http://127.0.0.2:1/push\r\n", ""),
        answer("405 Method Not Allowed", "", ""),
    ] {
        let server = Server::start(move |_| page.clone()).await;
        let mut rig = Rig::start_with(server, |_| {}, vec![snapshot(1)]).await;
        let state = rig.wait_for(|state| state.retry_in.is_some()).await;
        assert!(state.retry_in.unwrap() >= Duration::from_secs(30), "{state:?}");
        assert_eq!(rig.server.next().await.method(), "POST");
        assert!(rig.server.requests.try_recv().is_err(), "nothing follows a redirect to a login page");
        assert_eq!(rig.stop().await, Ledger { appended: 1, pending: 1, ..Ledger::default() });
    }
}

#[tokio::test]
async fn a_permanent_redirect_on_the_same_host_takes_the_body_along() {
    let server = Server::start(|seen| match seen.path() {
        "/push" => answer("308 Permanent Redirect", "location: /push/\r\n", ""),
        _ => no_content(),
    });
    let mut rig = Rig::start_with(server.await, |_| {}, vec![snapshot(1)]).await;
    let (first, second) = (rig.server.next().await, rig.server.next().await);
    assert_eq!((second.method(), second.path()), ("POST", "/push/"));
    assert_eq!(first.body, second.body);
    assert_eq!(rig.settled().await, delivered(1));
}

#[tokio::test]
async fn a_redirect_to_itself_ends() {
    let server = Server::start(|_| answer("308 Permanent Redirect", "location: /push\r\n", "")).await;
    let mut rig = Rig::start_with(server, |_| {}, vec![snapshot(1)]).await;
    assert_eq!(rig.wait_for(|state| state.retry_in.is_some()).await.last_status, Some(308));
}

#[tokio::test]
async fn a_kept_alive_connection_that_dies_is_no_failure() {
    let server = Server::replying([no_content(), Reply::Close]).await;
    let small = |config: &mut RemoteWrite| config.queue.max_samples_per_send = 2;
    let mut rig = Rig::start_with(server, small, vec![snapshot(1), snapshot(2)]).await;
    let seen = [rig.server.next().await, rig.server.next().await, rig.server.next().await];
    assert_eq!(seen[0].connection, seen[1].connection, "the connection is used again");
    assert_eq!(seen[1].body, seen[2].body);
    assert_eq!(seen[2].header("Retry-Attempt"), None);
    assert_eq!(rig.settled().await, delivered(3));
    assert_eq!(rig.metric("prometheus_remote_storage_samples_retried_total").to_bits(), 0f64.to_bits());
}

#[tokio::test]
async fn stopping_sends_what_is_left_without_waiting() {
    let server = Server::replying([answer("503 Service Unavailable", "retry-after: 300\r\n", "")]).await;
    let mut rig = Rig::start_with(server, |_| {}, vec![snapshot(1), snapshot(2), snapshot(3)]).await;
    rig.wait_for(|state| state.retry_in.is_some()).await;
    assert_eq!(rig.stop().await, delivered(6));
}

#[tokio::test]
async fn stopping_ends_at_the_first_that_is_not_taken() {
    let server = Server::start(|_| status("503 Service Unavailable")).await;
    let mut rig = Rig::start_with(server, |_| {}, vec![snapshot(1), snapshot(2)]).await;
    rig.wait_for(|state| state.retry_in.is_some()).await;
    assert_eq!(rig.stop().await, Ledger { appended: 3, pending: 3, ..Ledger::default() });
}

#[tokio::test]
async fn a_request_in_flight_may_end_while_draining_but_not_after() {
    let server = Server::start(|_| Reply::Stall(Vec::new())).await;
    let mut rig = Rig::start_with(server, |_| {}, vec![snapshot(1)]).await;
    rig.server.next().await;
    rig.trigger.advance(Phase::Draining);
    tokio::task::yield_now().await;
    assert!(!rig.task.is_finished());
    rig.trigger.advance(Phase::Stopped);
    assert_eq!(rig.stop().await, Ledger { appended: 1, pending: 1, ..Ledger::default() });
}

#[tokio::test]
async fn samples_that_are_too_old_are_expired_and_counted() {
    let old = snapshot_at(NOW.minus(Duration::from_secs(3601)), 2);
    let young = snapshot_at(NOW.minus(Duration::from_secs(3600)), 3);
    let limit = |config: &mut RemoteWrite| config.max_sample_age = Some(Duration::from_secs(3600));
    let rig = Rig::start_with(Server::replying([]).await, limit, vec![old, young]).await;
    let expected = Ledger { appended: 5, delivered: 3, expired: 2, ..Ledger::default() };
    assert_eq!(rig.stop().await, expected);
}

#[tokio::test]
async fn metadata_follows_the_first_delivery_and_its_failure_costs_nothing() {
    let is_metadata = |seen: &Seen| decoded(seen).series.is_empty();
    let server = Server::start(move |seen| if is_metadata(seen) { status("400 Bad Request") } else { no_content() });
    let send = |config: &mut RemoteWrite| config.metadata.send = true;
    let mut rig = Rig::start_with(server.await, send, vec![snapshot(1)]).await;
    rig.settled().await;
    rig.append(snapshot_at(NOW.plus(Duration::from_secs(1)), 1)).await;
    let kinds = [rig.server.next().await, rig.server.next().await, rig.server.next().await];
    assert_eq!(kinds.each_ref().map(is_metadata), [false, true, false]);
    let metadata = decoded(&kinds[1]).metadata;
    assert_eq!(metadata, [Metadata::of("up", MetricKind::Gauge, "is it up")]);
    assert_eq!(rig.settled().await, delivered(2));
    assert_eq!(rig.metric("prometheus_remote_storage_metadata_failed_total").to_bits(), 1f64.to_bits());
    assert_eq!(rig.metric("prometheus_remote_storage_samples_failed_total").to_bits(), 0f64.to_bits());
}

#[tokio::test]
async fn a_snapshot_that_no_request_can_carry_is_refused_without_a_request() {
    let metadata = Arc::new(Metadata::of("a.b", MetricKind::Gauge, ""));
    let labels = Labels::builder().with("__name__", "a.b").build().unwrap();
    let sample = Sample::new(Arc::new(Series::new(labels, metadata)), Value::new(1.0));
    let bad = Snapshot::new(NOW, vec![sample]);
    let mut mixed = snapshot(2);
    mixed.samples.extend(bad.samples.clone());
    let mut rig = Rig::start_with(Server::replying([]).await, |_| {}, vec![bad, mixed]).await;
    assert_eq!(decoded(&rig.server.next().await).series.len(), 2);
    let expected = Ledger { appended: 4, delivered: 2, refused: 2, ..Ledger::default() };
    assert_eq!(rig.settled().await, expected);
    assert_eq!(rig.metric("prometheus_remote_storage_samples_dropped_total").to_bits(), 2f64.to_bits());
}

#[tokio::test]
async fn a_dead_endpoint_does_not_hold_up_another() {
    install_crypto_provider();
    let (buffer, _directory) = open(2);
    let metrics = Metrics::register(&Registry::new());
    let (_trigger, shutdown) = shutdown::channel();
    let dead = Server::start(|_| Reply::Stall(Vec::new())).await;
    let alive = Server::replying([]).await;
    for (ordinal, server) in [&dead, &alive].into_iter().enumerate() {
        let mut config = config(server.url.clone());
        config.name = ordinal.to_string();
        let shipper = Shipper::new(ShipperOptions {
            endpoint: EndpointId(ordinal),
            config,
            external_labels: Labels::empty(),
            send_unchanged_every: None,
            buffer: buffer.clone(),
            clock: Clock::manual(NOW),
            metrics: &metrics,
        });
        tokio::spawn(shipper.run(shutdown.clone()));
    }
    for second in 0..3 {
        buffer.append(snapshot_at(NOW.plus(Duration::from_secs(second)), 1)).await.unwrap();
    }
    let mut changes = buffer.changes();
    let status = changes.wait_for(|status| status.endpoints[1].ledger.delivered == 3).await.unwrap();
    assert_eq!(status.endpoints[0].ledger.pending, 3);
}

mod extras;
mod poison;
mod table;
mod unchanged;

struct PushRig {
    server: Server,
    clock: Clock,
    latest: watch::Sender<Arc<Snapshot>>,
    endpoint: watch::Sender<EndpointState>,
    trigger: Trigger,
    task: JoinHandle<()>,
}

impl PushRig {
    fn start(server: Server, mode: PushgatewayMode) -> Self {
        install_crypto_provider();
        let mut url = server.url.clone();
        url.set_path("");
        let config = config::Pushgateway {
            url: config::Url::new(url),
            mode,
            after: Duration::from_secs(60),
            job: "outhaul".to_owned(),
            auth: Auth::None,
            http: config::Http::default(),
        };
        let clock = Clock::manual(NOW);
        let metrics = Metrics::register(&Registry::new());
        let options = PushgatewayOptions {
            config,
            external_labels: Labels::empty(),
            instance: "roof-3",
            clock: clock.clone(),
            metrics: &metrics,
        };
        let gateway = Pushgateway::new(options);
        let latest = watch::Sender::new(Arc::new(Snapshot::new(NOW, Vec::new())));
        let endpoint = watch::Sender::new(EndpointState::default());
        let (trigger, shutdown) = shutdown::channel();
        let task = tokio::spawn(gateway.run(latest.subscribe(), vec![endpoint.subscribe()], shutdown));
        Self { server, clock, latest, endpoint, trigger, task }
    }

    fn stall(&self, since: Option<Timestamp>) {
        self.endpoint.send_modify(|state| state.stalled_since = since);
    }

    fn sample(&self, samples: usize) {
        self.latest.send_replace(Arc::new(snapshot(samples)));
    }

    async fn method(&mut self) -> String {
        self.server.next().await.method().to_owned()
    }

    async fn stop(mut self) -> Vec<String> {
        self.trigger.advance(Phase::Draining);
        self.task.await.unwrap();
        let mut methods = Vec::new();
        while let Ok(seen) = self.server.requests.try_recv() {
            methods.push(seen.method().to_owned());
        }
        methods
    }
}

#[tokio::test]
async fn the_fallback_shows_the_present_and_vanishes_on_recovery() {
    let mut rig = PushRig::start(Server::start(|_| status("202 Accepted")).await, PushgatewayMode::Fallback);
    rig.sample(1);
    rig.stall(Some(NOW));
    rig.clock.at_least(NOW.plus(Duration::from_secs(60)));
    rig.sample(2);
    let seen = rig.server.next().await;
    assert_eq!((seen.method(), seen.path()), ("PUT", "/metrics/job/outhaul/instance/roof-3/via/pushgateway"));
    assert_eq!(seen.header("Content-Type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(String::from_utf8(seen.body).unwrap().contains("up{ordinal=\"1\"} 1\n"));
    rig.endpoint.send_modify(|state| state.consecutive_failures += 1);
    rig.sample(3);
    assert_eq!(rig.method().await, "PUT");
    rig.stall(None);
    assert_eq!(rig.method().await, "DELETE");
    rig.sample(4);
    assert!(rig.stop().await.is_empty(), "a snapshot is put once, and what is gone is not removed again");
}

#[tokio::test]
async fn the_group_of_a_run_that_crashed_is_removed_by_the_first_delivery() {
    let mut rig = PushRig::start(Server::replying([]).await, PushgatewayMode::Fallback);
    rig.endpoint.send_modify(|state| state.last_success = Some(NOW));
    assert_eq!(rig.method().await, "DELETE");
    assert!(rig.stop().await.is_empty());
}

#[tokio::test]
async fn a_run_that_put_nothing_removes_nothing_when_it_stops() {
    let rig = PushRig::start(Server::replying([]).await, PushgatewayMode::Fallback);
    rig.sample(1);
    assert!(rig.stop().await.is_empty());
}

#[tokio::test]
async fn always_means_every_snapshot_and_none_after_the_end() {
    let mut rig = PushRig::start(Server::replying([]).await, PushgatewayMode::Always);
    rig.sample(1);
    assert_eq!(rig.method().await, "PUT");
    rig.sample(2);
    assert_eq!(rig.method().await, "PUT");
    assert_eq!(rig.stop().await, ["DELETE"]);
}

#[tokio::test(start_paused = true)]
async fn a_pushgateway_in_trouble_is_left_alone_for_a_while() {
    let _time = Time::stand_still();
    let mut rig = PushRig::start(Server::replying([status("500 x")]).await, PushgatewayMode::Always);
    rig.sample(1);
    assert_eq!(rig.method().await, "PUT");
    rig.sample(2);
    tokio::time::advance(Duration::from_millis(880)).await;
    assert!(rig.server.requests.try_recv().is_err());
    // The answer arrives in real time, so the wait begins when the client has read it; keep time moving until it is over.
    let seen = loop {
        match rig.server.requests.try_recv() {
            Ok(seen) => break seen,
            Err(_) => tokio::time::advance(Duration::from_millis(10)).await,
        }
    };
    assert!(String::from_utf8(seen.body).unwrap().contains("ordinal=\"1\""), "what is shown is the latest");
}

#[tokio::test]
async fn pushing_once_tells_what_went_wrong() {
    install_crypto_provider();
    let server = Server::replying([answer("400 Bad Request", "", "inconsistent")]).await;
    let config = config::Pushgateway {
        url: config::Url::new(server.url.clone()),
        mode: PushgatewayMode::Always,
        after: Duration::from_secs(60),
        job: "outhaul".to_owned(),
        auth: Auth::None,
        http: config::Http::default(),
    };
    let metrics = Metrics::register(&Registry::new());
    let options = PushgatewayOptions {
        config,
        external_labels: Labels::empty(),
        instance: "x",
        clock: Clock::manual(NOW),
        metrics: &metrics,
    };
    let mut gateway = Pushgateway::new(options);
    let error = gateway.push_once(&snapshot(1)).await.unwrap_err().to_string();
    assert!(error.contains("status 400: inconsistent") && error.contains("127.0.0.1"), "{error}");
    gateway.push_once(&snapshot(1)).await.unwrap();
}
