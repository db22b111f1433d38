//! Prometheus' `remote_write` entries: one endpoint each.
//!
//! A block that Grafana Cloud's or Mimir's documentation prints is taken unchanged. What would change the data that
//! arrives and is not supported is refused; what only tunes Prometheus' own queue is accepted, and said to be without
//! effect.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::environment::Environment;
use super::raw::{Block, Report};
use super::{Compression, Protocol, Queue, RemoteWrite, SendMetadata, Url, http, problem, relabel, unknown};

/// Prometheus' default for one request (Prometheus 3, `<remote_write>`).
const DEFAULT_REMOTE_TIMEOUT: Duration = Duration::from_secs(30);
/// Prometheus' default (Prometheus 3, `<queue_config>`).
const DEFAULT_MAX_SAMPLES_PER_SEND: usize = 2_000;
/// Ours: Prometheus' 30ms are meant for a receiver in the same data centre, not for a fleet behind thin lines.
const DEFAULT_MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Ours: Prometheus' 5s likewise.
const DEFAULT_MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Prometheus' default (Prometheus 3, `<metadata_config>`).
const DEFAULT_METADATA_INTERVAL: Duration = Duration::from_secs(60);

/// The most samples one request may be configured to hold: a bound on memory.
const MAX_SAMPLES_PER_SEND: usize = 100_000;
/// The longest name, in bytes; it is stored with each cursor and sent as a label.
const MAX_NAME_BYTES: usize = 128;

/// Headers that belong to the protocol (Prometheus 3, `config.go`, `reservedHeaders`).
const RESERVED_HEADERS: [&str; 19] = [
    "host",
    "transfer-encoding",
    "retry-attempt",
    "x-victoriametrics-remote-write-version",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-amz-date",
    "x-amz-security-token",
    "x-amz-content-sha256",
];

/// All endpoints; their names are unique.
pub(super) fn endpoints(root: &mut Block<'_>, environment: &Environment) -> Vec<RemoteWrite> {
    let endpoints = root.blocks("remote_write", |block| endpoint(block, environment)).unwrap_or_default();
    check_names(root.report(), &endpoints);
    endpoints
}

fn endpoint(block: &mut Block<'_>, environment: &Environment) -> Option<RemoteWrite> {
    let url = http::required_url(block, "url");
    let name = name(block, url.as_ref());
    let remote_timeout = block.parsed("remote_timeout", |text| match super::units::duration(text)? {
        Duration::ZERO => Err("must be longer than 0s".to_owned()),
        timeout => Ok(timeout),
    });
    let headers = headers(block);
    let auth = http::auth(block, url.as_ref(), environment);
    let http = http::http(block, url.as_ref(), environment);
    let (protocol, compression) = protocol(block);
    other_keys(block);
    let (queue, theirs) = block.block_or_default("queue_config", queue);
    let max_sample_age = one_of_two(block, "max_sample_age", "sample_age_limit", theirs.sample_age_limit);
    let send_interval = one_of_two(block, "send_interval", "batch_send_deadline", theirs.batch_send_deadline);
    if let (Some(age), Some(interval)) = (max_sample_age.filter(|age| !age.is_zero()), send_interval)
        && age <= interval
    {
        let what = "no longer than send_interval: what is gathered is too old to be sent, and lost";
        block.report().notice(format!("{}: {what}", block.path_of("max_sample_age")));
    }
    let metadata = block.block_or_default("metadata_config", metadata);
    Some(RemoteWrite {
        name: name?,
        url: url?,
        remote_timeout: remote_timeout.unwrap_or(DEFAULT_REMOTE_TIMEOUT),
        headers,
        auth,
        http,
        protocol,
        compression,
        send_interval: send_interval.unwrap_or(Duration::ZERO),
        queue,
        metadata,
        write_relabel_configs: relabel::rules(block, "write_relabel_configs"),
        send_exemplars: block.flag("send_exemplars").unwrap_or(false),
        send_native_histograms: block.flag("send_native_histograms").unwrap_or(false),
        max_sample_age: max_sample_age.filter(|age| !age.is_zero()),
    })
}

/// A duration that has a name of ours and one of Prometheus' in `queue_config`.
fn one_of_two(block: &mut Block<'_>, key: &'static str, their_key: &str, theirs: Option<Duration>) -> Option<Duration> {
    let ours = block.duration(key);
    if let (Some(ours), Some(theirs)) = (ours, theirs)
        && ours != theirs
    {
        block.wrong(key, None, format!("contradicts queue_config.{their_key}, which means the same; set one"));
    }
    ours.or(theirs)
}

/// The name that was given, or one that follows from the URL alone, so that neither the order nor the number of endpoints
/// changes which backlog is whose.
fn name(block: &mut Block<'_>, url: Option<&Url>) -> Option<String> {
    if !block.has("name") {
        block.text("name");
        return url.map(derived_name);
    }
    block.parsed("name", |text| {
        if text.is_empty() {
            Err("may not be empty; leave it out, or give the endpoint a name".to_owned())
        } else if text.len() > MAX_NAME_BYTES || text.chars().any(char::is_control) {
            Err(format!("must be at most {MAX_NAME_BYTES} bytes on one line"))
        } else {
            Ok(text.to_owned())
        }
    })
}

/// `host:port-path`, made of letters, digits, `.`, `:`, `_` and `-`; nothing of credentials or query.
fn derived_name(url: &Url) -> String {
    let address = url.expose();
    let port = address.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = address.path().trim_matches('/');
    let separator = if path.is_empty() { "" } else { "-" };
    let full = format!("{}{port}{separator}{path}", address.host_str().unwrap_or_default());
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".:_-".contains(c) { c } else { '-' };
    let slug: String = full.chars().map(plain).collect();
    if slug.len() <= MAX_NAME_BYTES {
        return slug;
    }
    let hash = format!("-{:08x}", crc32c::crc32c(full.as_bytes()));
    format!("{}{hash}", &slug[..MAX_NAME_BYTES - hash.len()])
}

fn check_names(report: &Report, endpoints: &[RemoteWrite]) {
    let mut seen = HashMap::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        if seen.insert(&endpoint.name, index).is_some() {
            let rule = "two endpoints have this name; give each a `name` of its own, it decides which backlog is whose";
            let path = problem::join(&problem::item("remote_write", index), "name");
            report.wrong(&path, Some(&endpoint.name), rule);
        }
    }
}

fn headers(block: &mut Block<'_>) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    let path = block.path_of("headers");
    for (name, value) in block.texts("headers") {
        let lower = name.to_ascii_lowercase();
        let rule = if lower == "authorization" {
            Some("is set by basic_auth or authorization; use one of these blocks")
        } else if RESERVED_HEADERS.contains(&lower.as_str()) {
            Some("is a header of the protocol and cannot be changed")
        } else if reqwest::header::HeaderName::try_from(&name).is_err() {
            Some("is not the name of a header")
        } else if reqwest::header::HeaderValue::from_str(&value).is_err() {
            Some("the value of a header must be printable ASCII on one line")
        } else if headers.keys().any(|other| other.eq_ignore_ascii_case(&name)) {
            Some("this header is given twice")
        } else {
            None
        };
        match rule {
            Some(rule) => block.report().wrong(&problem::join(&path, &name), None, rule),
            None => drop(headers.insert(name, value)),
        }
    }
    headers
}

/// What is spoken: our words for it and Prometheus', which may not contradict each other.
fn protocol(block: &mut Block<'_>) -> (Protocol, Compression) {
    const WORDS: [(&str, Protocol); 3] = [("auto", Protocol::Auto), ("v1", Protocol::V1), ("v2", Protocol::V2)];
    // Prometheus 3, `config.go`, `RemoteWriteProtoMsg`.
    const MESSAGES: [(&str, Protocol); 2] =
        [("prometheus.WriteRequest", Protocol::V1), ("io.prometheus.write.v2.Request", Protocol::V2)];
    let ours = block.choice("protocol", &WORDS);
    let theirs = block.choice("protobuf_message", &MESSAGES);
    if let (Some(ours @ (Protocol::V1 | Protocol::V2)), Some(theirs)) = (ours, theirs)
        && ours != theirs
    {
        block.wrong("protobuf_message", None, "contradicts protocol, which means the same; set one");
    }
    // `auto` beside Prometheus' default message is how somebody asks for more than the pasted block says.
    let protocol = ours.or(theirs).unwrap_or(Protocol::Auto);
    let compressions = [("snappy", Compression::Snappy), ("zstd", Compression::Zstd)];
    let compression = block.choice("compression", &compressions).unwrap_or(Compression::Snappy);
    if compression == Compression::Zstd && protocol == Protocol::V2 {
        block.wrong("compression", Some("zstd"), "exists only for remote-write 1.0, as VictoriaMetrics takes it");
    }
    (protocol, compression)
}

/// What Prometheus has besides.
fn other_keys(block: &mut Block<'_>) {
    block.only_flag("round_robin_dns", false);
    block.no_effect(&["failed_request_logging"]);
    for (key, rule) in unknown::CLOUD_AUTH {
        block.refused(&[key], rule);
    }
}

/// What stands in `queue_config` and has another name here.
struct Theirs {
    sample_age_limit: Option<Duration>,
    batch_send_deadline: Option<Duration>,
}

fn queue(block: &mut Block<'_>) -> (Queue, Theirs) {
    block.no_effect(&["capacity", "max_shards", "min_shards"]);
    let min = block.duration("min_backoff");
    let max = block.duration("max_backoff");
    // One that is given moves the other's default, so that a pasted block with only one of them is not a contradiction.
    let min_backoff = min.unwrap_or_else(|| max.map_or(DEFAULT_MIN_BACKOFF, |max| max.min(DEFAULT_MIN_BACKOFF)));
    let max_backoff = max.unwrap_or(DEFAULT_MAX_BACKOFF.max(min_backoff));
    if min_backoff.is_zero() {
        block.wrong("min_backoff", Some("0s"), "must be longer than 0s");
    } else if min_backoff > max_backoff {
        block.wrong("min_backoff", None, format!("{min_backoff:?} is longer than max_backoff, {max_backoff:?}"));
    }
    let retry_on_http_429 = block.flag("retry_on_http_429").unwrap_or(true);
    if !retry_on_http_429 {
        let path = block.path_of("retry_on_http_429");
        block.report().notice(format!(
            "{path}: samples that the receiver answers with 429 are not sent again; they are lost, and counted"
        ));
    }
    let max_samples = block.count("max_samples_per_send", MAX_SAMPLES_PER_SEND);
    let queue = Queue {
        max_samples_per_send: max_samples.unwrap_or(DEFAULT_MAX_SAMPLES_PER_SEND),
        min_backoff,
        max_backoff,
        retry_on_http_429,
    };
    let theirs = Theirs {
        sample_age_limit: block.duration("sample_age_limit"),
        batch_send_deadline: block.duration("batch_send_deadline"),
    };
    (queue, theirs)
}

fn metadata(block: &mut Block<'_>) -> SendMetadata {
    let send_interval = block.duration("send_interval").unwrap_or(DEFAULT_METADATA_INTERVAL);
    if send_interval < Duration::from_secs(1) {
        block.wrong("send_interval", None, "must be at least 1s");
    }
    let max_samples = block.count("max_samples_per_send", MAX_SAMPLES_PER_SEND);
    SendMetadata {
        send: block.flag("send").unwrap_or(true),
        send_interval,
        max_samples_per_send: max_samples.unwrap_or(DEFAULT_MAX_SAMPLES_PER_SEND),
    }
}
