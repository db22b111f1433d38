//! Real servers for tests: started on free ports in temporary directories, ended by their id when dropped, also on a panic.
//!
//! Waiting is always for a condition with a deadline ([`eventually`]), never for a time.

mod agent;
mod captor;
mod certificates;
mod engine;
mod http;
mod microsocks;
mod nginx;
mod process;
mod prometheus;
mod pushgateway;
mod recorder;
mod tinyproxy;
mod token_maker;
mod victoria_metrics;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use outhaul::buffer::{Options, SyncPolicy};

pub(crate) use agent::{Agent, outhaul};
pub(crate) use captor::{Captor, Captured};
pub(crate) use certificates::Authority;
pub(crate) use engine::{Engine, Event};
pub(crate) use http::HttpServer;
pub(crate) use microsocks::Microsocks;
pub(crate) use nginx::{Nginx, Site};
pub(crate) use process::Guarded;
pub(crate) use prometheus::{Prometheus, PrometheusOptions, Raw};
pub(crate) use pushgateway::Pushgateway;
pub(crate) use recorder::{Mood, Recorder};
pub(crate) use tinyproxy::Tinyproxy;
pub(crate) use token_maker::{CLIENT, TokenMaker};
pub(crate) use victoria_metrics::VictoriaMetrics;

/// Samples by series: instant in milliseconds → the value in one spelling that keeps every bit of a number.
pub(crate) type Samples = BTreeMap<String, BTreeMap<i64, String>>;

/// How long a condition may take to come true: generous, because it is only ever used up by a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Waits until `condition` holds; fails with `what` when it never does.
#[track_caller]
pub(crate) fn eventually(what: &str, condition: impl FnMut() -> bool) {
    eventually_within(PATIENCE, what, condition);
}

/// The same for what takes a time of its own.
#[track_caller]
pub(crate) fn eventually_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "never happened within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A buffer of a test: roomy, and as fast as the disk may be lazy.
pub(crate) fn buffer_options(directory: &Path, endpoints: &[&str]) -> Options {
    Options {
        path: directory.to_owned(),
        max_bytes: 64 << 20,
        max_age: None,
        min_free: Some(0),
        sync: SyncPolicy::Never,
        endpoints: endpoints.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// A port nobody listens on. Below the range the system takes for outgoing connections, and never the same one twice, so
/// that it is still free when the server that was told to use it starts.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let place = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + place).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// GETs a URL; the body of an answer with status 200, else `None`.
pub(crate) fn get(url: &str) -> Option<String> {
    let answer = request("GET", url)?;
    (answer.0 == 200).then_some(answer.1)
}

/// A request without a body, over a connection of its own.
pub(crate) fn request(method: &str, url: &str) -> Option<(u16, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        outhaul::ship::install_crypto_provider();
        let client =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).tls_certs_only([]).build().unwrap();
        let response = client.request(method.parse().unwrap(), url).send().await.ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    })
}

/// `text` fit for a query parameter.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
