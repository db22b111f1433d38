//! The validated configuration: what the program runs on.
//!
//! What a user wrote becomes a [`Config`] once, in one place; every value in here has been checked, every unit is in its
//! type, and nothing downstream looks at the environment or a file name again, except secrets that live in files, which
//! are re-read for each use so that a rotated token needs no restart.
//!
//! Secrets are [`Secret`]s: they have no `Display`, and `Debug` prints `[REDACTED]`.

mod environment;
mod expand;
mod http;
mod oauth2;
mod pattern;
mod problem;
mod proxy;
mod raw;
mod relabel;
mod remote_write;
mod tls;
mod units;
mod unknown;
mod validate;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use environment::Environment;
pub use oauth2::OAuth2;
pub use problem::{ConfigError, Place, Problem};
pub use proxy::Proxy;
pub use tls::{ClientCertificate, Tls, TlsVersion};
pub(crate) use units::{duration, size};
pub(crate) use validate::MIN_BUFFER_BYTES;

use crate::model::Labels;
use crate::relabel::Rules;

/// The file that is read when none is named and it exists.
pub const DEFAULT_FILE: &str = "/etc/outhaul/outhaul.yml";

/// Reads the configuration: our defaults, over them the file, over it the environment.
///
/// The file is `file`, or else the one that `OUTHAUL_CONFIG_FILE` names, or else [`DEFAULT_FILE`] where it exists.
///
/// # Errors
/// All problems that were found, one line each.
pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Config, ConfigError> {
    let named = file.or_else(|| environment.text(environment::CONFIG_FILE).map(Path::new));
    let path: Arc<Path> = Arc::from(named.unwrap_or(Path::new(DEFAULT_FILE)));
    match read_file(&path) {
        Ok(text) => assemble(Some((&path, &text)), environment),
        Err(error) if named.is_none() && error.kind() == ErrorKind::NotFound => assemble(None, environment),
        Err(error) => {
            let rule = format!("cannot read the configuration: {error}");
            Err(Problem { place: Place::File(path, 0), key: String::new(), value: None, rule }.into())
        }
    }
}

fn read_file(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(yaml::MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > yaml::MAX_FILE_BYTES {
        let rule = format!("the file is larger than {} bytes", yaml::MAX_FILE_BYTES);
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, rule));
    }
    String::from_utf8(bytes).map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "the file is not UTF-8 text"))
}

/// Lays the layers over each other and checks the result; touches nothing.
fn assemble(file: Option<(&Arc<Path>, &str)>, environment: &Environment) -> Result<Config, ConfigError> {
    let (root, report) = layers(file, environment)?;
    validate::config(root, environment, report)
}

type Root = config::Map<String, config::Value>;

fn layers(file: Option<(&Arc<Path>, &str)>, environment: &Environment) -> Result<(Root, raw::Report), ConfigError> {
    let (mut places, mut problems) = (problem::Places::default(), Vec::new());
    let mut written = Root::new();
    if let Some((path, text)) = file {
        written = yaml::parse(text, path, &mut places)?;
        expand::expand_all(&mut written, "", environment, &mut places, &mut problems);
    }
    // The `config` crate takes top-level keys for path expressions, in which `a[9]` makes a list; only plain keys are for it.
    let mut odd = Root::new();
    let plain = |key: &str| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    odd.extend(written.extract_if(|key, _| !plain(key)));
    let set = environment::layer(environment, &mut places, &mut problems);
    let merged = config::Config::builder().add_source(Layer(written)).add_source(Layer(set)).build();
    let merged = merged.and_then(|merged| merged.cache.into_table());
    let mut root = merged.expect("BUG: layers of plain keys are merged into a map");
    environment::apply_endpoint_shortcuts(&mut root, environment, &mut places);
    root.extend(odd);
    Ok((root, raw::Report::new(places, problems)))
}

/// One layer, as the `config` crate wants it.
#[derive(Clone, Debug)]
struct Layer(Root);

impl config::Source for Layer {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Root, config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// A value that must never be printed.
pub type Secret = secrecy::SecretString;

/// Everything outhaul can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Applies to every source and endpoint.
    pub global: Global,
    /// Container engines; empty switches the source off.
    pub docker: Vec<Docker>,
    /// Remote-write endpoints; each has its own cursor and fate. Names are unique.
    pub remote_write: Vec<RemoteWrite>,
    /// The Pushgateway for the present.
    pub pushgateway: Option<Pushgateway>,
    /// The disk-backed log.
    pub buffer: Buffer,
    /// The local page; `None` switches it off.
    pub web: Option<Web>,
    /// What is said, and how.
    pub log: Log,
    /// An unchanged value is sent only this often, a change at once; `None` sends every value.
    pub send_unchanged_every: Option<Duration>,
    /// How long the last sending may take after the stop signal.
    pub shutdown_grace: Duration,
    /// Things worth saying once at start: accepted fields without effect, unsafe settings.
    pub notices: Vec<String>,
}

/// Prometheus' `global` block.
#[derive(Clone, Debug)]
pub struct Global {
    /// One tick of every source.
    pub scrape_interval: Duration,
    /// The deadline of a source within a tick; at most the interval.
    pub scrape_timeout: Duration,
    /// Added to every series that lacks them, at sending.
    pub external_labels: Labels,
    /// The label `instance`; `None` means "ask the host" (in a container: the engine's name for the host).
    pub instance: Option<String>,
}

/// One container engine.
#[derive(Clone, Debug)]
pub struct Docker {
    /// Where it listens: `unix:///path`, `tcp://host:port` or `http://host:port`.
    pub host: String,
    /// Only containers that match; an empty filter matches all.
    pub include: Filter,
    /// Never containers that match; an empty filter matches none.
    pub exclude: Filter,
    /// Container labels that become labels of `container_info` as `container_label_<name>`.
    pub container_labels: Vec<String>,
}

/// Patterns on a container; a container matches when any pattern of any list does.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// On the name without its leading slash.
    pub names: Vec<Pattern>,
    /// On labels.
    pub labels: Vec<LabelPattern>,
    /// On the image reference.
    pub images: Vec<Pattern>,
}

impl Filter {
    /// Whether it holds no pattern.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.labels.is_empty() && self.images.is_empty()
    }
}

/// A glob (`*`, `?`), or a regular expression between slashes; both anchored at both ends.
#[derive(Clone, Debug)]
pub struct Pattern(pub(crate) regex::Regex);

impl Pattern {
    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// `key` (the label is there) or `key=pattern`.
#[derive(Clone, Debug)]
pub struct LabelPattern {
    /// The label's name.
    pub name: String,
    /// What its value must match; `None` is satisfied by presence.
    pub value: Option<Pattern>,
}

/// One remote-write endpoint: Prometheus' `remote_write` entry.
#[derive(Clone)]
pub struct RemoteWrite {
    /// The queue's identity: a changed URL, token or tuning field keeps the backlog. Label `remote_name`.
    pub name: String,
    /// Where to POST. May hold credentials, so it prints only through [`Url::masked`].
    pub url: Url,
    /// One request, from connecting to the last byte of the answer.
    pub remote_timeout: Duration,
    /// Extra request headers; no reserved name among them.
    pub headers: BTreeMap<String, String>,
    /// How to prove who we are.
    pub auth: Auth,
    /// How to reach and trust the receiver.
    pub http: Http,
    /// Which version of remote-write is spoken.
    pub protocol: Protocol,
    /// What a remote-write 1.0 body is wrapped in; 2.0 is always snappy.
    pub compression: Compression,
    /// How long samples are gathered before a request; zero is a request for each tick.
    pub send_interval: Duration,
    /// Batching and retrying.
    pub queue: Queue,
    /// Types and help texts.
    pub metadata: SendMetadata,
    /// What becomes of each series' labels, after the external labels are added.
    pub write_relabel_configs: Rules,
    /// Whether exemplars are sent, where there are any.
    pub send_exemplars: bool,
    /// Whether native histograms are sent, where there are any.
    pub send_native_histograms: bool,
    /// Samples older than this are expired before sending and counted; `None` sends whatever the buffer holds.
    pub max_sample_age: Option<Duration>,
}

/// Without the values of headers, which may be secrets.
impl fmt::Debug for RemoteWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteWrite")
            .field("name", &self.name)
            .field("url", &self.url)
            .field("remote_timeout", &self.remote_timeout)
            .field("headers", &self.headers.keys())
            .field("auth", &self.auth)
            .field("http", &self.http)
            .field("protocol", &self.protocol)
            .field("compression", &self.compression)
            .field("send_interval", &self.send_interval)
            .field("queue", &self.queue)
            .field("metadata", &self.metadata)
            .field("write_relabel_configs", &self.write_relabel_configs)
            .field("send_exemplars", &self.send_exemplars)
            .field("send_native_histograms", &self.send_native_histograms)
            .field("max_sample_age", &self.max_sample_age)
            .finish()
    }
}

/// Where to send, kept apart from plain strings because a URL may carry credentials.
#[derive(Clone)]
pub struct Url(reqwest::Url);

impl Url {
    /// Wraps a parsed URL.
    pub fn new(url: reqwest::Url) -> Self {
        Self(url)
    }

    /// The URL itself, for the HTTP client only.
    pub fn expose(&self) -> &reqwest::Url {
        &self.0
    }

    /// The URL without user, password, query and fragment: fit for logs, labels and pages.
    pub fn masked(&self) -> String {
        let mut masked = self.0.clone();
        // Both fail only for URLs that cannot have a user, which then have none to hide.
        masked.set_username("").unwrap_or(());
        masked.set_password(None).unwrap_or(());
        masked.set_query(None);
        masked.set_fragment(None);
        masked.to_string()
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

/// A secret in the configuration, or in a file that is read anew for each use.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// Given in the configuration.
    Value(Secret),
    /// In this file; one trailing newline is not part of it.
    File(PathBuf),
}

/// How a request proves who sent it.
#[derive(Clone, Debug)]
pub enum Auth {
    /// It does not.
    None,
    /// HTTP basic authentication.
    Basic {
        /// User name; for Grafana Cloud the numeric instance id.
        username: SecretSource,
        /// Password or access-policy token.
        password: SecretSource,
    },
    /// `Authorization: <scheme> <credentials>`.
    Authorization {
        /// Usually `Bearer`.
        scheme: String,
        /// The token.
        credentials: SecretSource,
    },
    /// A token that is fetched by the client-credentials grant.
    OAuth2(Box<OAuth2>),
}

/// The rest of Prometheus' `http_config`: how to reach and trust the other side.
#[derive(Clone, Debug)]
pub struct Http {
    /// Whom to trust, and our certificate.
    pub tls: Tls,
    /// The proxy on the way, if there is one for this URL.
    pub proxy: Option<Proxy>,
    /// Whether a 307 or 308 on the same host is followed; no other ever is.
    pub follow_redirects: bool,
}

impl Default for Http {
    fn default() -> Self {
        Self { tls: Tls::default(), proxy: None, follow_redirects: true }
    }
}

/// Which version of remote-write an endpoint is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 2.0 where the receiver takes it, else 1.0.
    Auto,
    /// 1.0, `prometheus.WriteRequest`.
    V1,
    /// 2.0, `io.prometheus.write.v2.Request`.
    V2,
}

/// What a remote-write 1.0 body is wrapped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// What every receiver takes.
    Snappy,
    /// `VictoriaMetrics`' variant; where it is not taken, snappy.
    Zstd,
}

/// Prometheus' `queue_config`, as far as it has a meaning with one request in flight.
#[derive(Clone, Debug)]
pub struct Queue {
    /// The most samples in one request.
    pub max_samples_per_send: usize,
    /// The first wait after a failure.
    pub min_backoff: Duration,
    /// The longest wait after a failure, unless the receiver asks for more.
    pub max_backoff: Duration,
    /// Whether samples answered with 429 are kept and sent again; `false`, Prometheus' default, gives them up.
    pub retry_on_http_429: bool,
}

/// Prometheus' `metadata_config`.
#[derive(Clone, Debug)]
pub struct SendMetadata {
    /// Whether to send types and help texts.
    pub send: bool,
    /// How often all of them are sent.
    pub send_interval: Duration,
    /// The most families in one request.
    pub max_samples_per_send: usize,
}

/// When the Pushgateway shows the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushgatewayMode {
    /// While remote-write is stalled.
    Fallback,
    /// Always: for ephemeral runners without a remote-write endpoint.
    Always,
}

/// A Pushgateway.
#[derive(Clone, Debug)]
pub struct Pushgateway {
    /// Its base URL, without `/metrics/job/…`.
    pub url: Url,
    /// When to push.
    pub mode: PushgatewayMode,
    /// How long remote-write must be stalled before the fallback begins.
    pub after: Duration,
    /// The grouping key's `job`.
    pub job: String,
    /// How to prove who we are.
    pub auth: Auth,
    /// How to reach and trust it.
    pub http: Http,
}

/// When appended bytes are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before an append returns.
    Always,
    /// By a timer, at most this long after the write.
    Interval(Duration),
    /// When the kernel likes.
    Never,
}

/// The disk-backed log.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Its directory.
    pub path: PathBuf,
    /// Never more than this on disk.
    pub max_bytes: u64,
    /// Nothing older than this is kept; `None` keeps all that `max_bytes` allows.
    pub max_age: Option<Duration>,
    /// How much of the file system is left to others; `None` is 64 MiB, or a twentieth of a small one.
    pub min_free: Option<u64>,
    /// When bytes are forced to the disk.
    pub sync: SyncPolicy,
}

/// The local page.
#[derive(Clone, Debug)]
pub struct Web {
    /// Loopback by default.
    pub listen_address: SocketAddr,
}

/// What is said, and how.
#[derive(Clone, Debug)]
pub struct Log {
    /// The least serious level said.
    pub level: tracing::Level,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Logfmt,
    /// One JSON object a line.
    Json,
}
