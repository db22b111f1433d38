//! From what the user wrote to the [`Config`] the program runs on; once, and with every rule checked.
//!
//! Defaults stand beside the keys they belong to. Nothing in here opens a file or asks the system anything.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use config::{Map, Value};

use super::environment::{DOCKER_HOST, Environment};
use super::problem::{join, shortened};
use super::raw::{Block, Report};
use super::{
    Buffer, Config, ConfigError, Docker, Filter, Global, LabelPattern, Log, LogFormat, Pattern, Pushgateway,
    PushgatewayMode, SyncPolicy, Web, http, remote_write, units, unknown,
};
use crate::model::{Labels, Target, is_label_name, sanitise_label_name};

const DEFAULT_SCRAPE_INTERVAL: Duration = Duration::from_secs(15);
const MIN_SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
/// Prometheus takes a series for ended five minutes after its last sample (`--query.lookback-delta`); a tick may lie between
/// the interval and the sample that is sent.
const SEND_UNCHANGED_EVERY_MAX: Duration = Duration::from_secs(240);
/// Prometheus' default (Prometheus 3, `<global>`), unless the interval is shorter.
const DEFAULT_SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";
const DEFAULT_BUFFER_PATH: &str = "/var/lib/outhaul";
const DEFAULT_BUFFER_BYTES: u64 = 256 << 20;
pub(crate) const MIN_BUFFER_BYTES: u64 = 1 << 20;
const DEFAULT_BUFFER_AGE: Duration = Duration::from_secs(7 * 24 * 3_600);
const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_secs(1);
const DEFAULT_LISTEN_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9797);
const DEFAULT_SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
const DEFAULT_PUSHGATEWAY_AFTER: Duration = Duration::from_secs(60);

/// Reads and checks everything.
///
/// # Errors
/// All problems that were found, here and in `report` before.
pub(super) fn config(
    root: Map<String, Value>,
    environment: &Environment,
    report: Report,
) -> Result<Config, ConfigError> {
    let mut config = Block::read(&report, String::new(), root, |root| read(root, environment));
    let (problems, notices) = report.finish();
    config.notices = notices;
    if problems.is_empty() { Ok(config) } else { Err(ConfigError::new(problems)) }
}

/// Reads everything, leaving what is wrong in the report.
pub(super) fn read(root: &mut Block<'_>, environment: &Environment) -> Config {
    refuse(root);
    let has_remote_write = root.item_count("remote_write") > 0;
    let remote_write = remote_write::endpoints(root, environment);
    let pushgateway = pushgateway(root, has_remote_write, environment);
    if !has_remote_write && pushgateway.is_none() {
        let hint = "set OUTHAUL_REMOTE_WRITE_URL or write a remote_write block";
        root.report().notice(format!("local only: nothing leaves this host; {hint}"));
    }
    let send_unchanged_every = root.duration("send_unchanged_every").filter(|every| !every.is_zero());
    if send_unchanged_every.is_some_and(|every| every > SEND_UNCHANGED_EVERY_MAX) {
        let most = SEND_UNCHANGED_EVERY_MAX.as_secs();
        let what = format!("longer than {most}s, so that receivers take series that do not change for ended");
        root.report().notice(format!("send_unchanged_every: {what}"));
    }
    Config {
        global: root.block_or_default("global", global),
        docker: docker(root, environment),
        remote_write,
        pushgateway,
        buffer: root.block_or_default("buffer", buffer),
        web: web(root),
        log: root.block_or_default("log", log),
        send_unchanged_every,
        shutdown_grace: root.duration("shutdown_grace").unwrap_or(DEFAULT_SHUTDOWN_GRACE),
        notices: Vec::new(),
    }
}

/// Top-level keys that are known and cannot be had here.
fn refuse(root: &mut Block<'_>) {
    root.refused(&unknown::PLANNED_BLOCKS, unknown::PLANNED);
    root.refused(&unknown::SERVER_BLOCKS, unknown::FOR_A_SERVER);
    root.refused(&unknown::TOP_LEVEL_NOT_YET, unknown::NOT_YET);
    root.no_effect(&["runtime"]);
    root.list("profiles", |name| match name {
        "native" => Ok(()),
        _ => Err(format!("must be native; other profiles are {}", unknown::PLANNED)),
    });
}

fn global(block: &mut Block<'_>) -> Global {
    block.no_effect(&unknown::GLOBAL_WITHOUT_EFFECT);
    let scrape_interval = block.parsed("scrape_interval", |text| match units::duration(text)? {
        interval if interval < MIN_SCRAPE_INTERVAL => Err("must be at least 1s".to_owned()),
        interval => Ok(interval),
    });
    let scrape_interval = scrape_interval.unwrap_or(DEFAULT_SCRAPE_INTERVAL);
    let scrape_timeout = block.parsed("scrape_timeout", |text| match units::duration(text)? {
        Duration::ZERO => Err("must be longer than 0s".to_owned()),
        timeout if timeout > scrape_interval => {
            Err(format!("must be at most scrape_interval, which is {scrape_interval:?}"))
        }
        timeout => Ok(timeout),
    });
    let (external_labels, instance) = external_labels(block);
    Global {
        scrape_interval,
        scrape_timeout: scrape_timeout.unwrap_or(DEFAULT_SCRAPE_TIMEOUT.min(scrape_interval)),
        external_labels,
        instance,
    }
}

/// The external labels, and apart from them `instance`, by which a user pins the host's name.
fn external_labels(block: &mut Block<'_>) -> (Labels, Option<String>) {
    let path = block.path_of("external_labels");
    let (mut labels, mut instance) = (Labels::builder(), None);
    for (name, value) in block.texts("external_labels") {
        let wrong = |rule: &str| block.report().wrong(&join(&path, &name), None, rule);
        if !is_label_name(&name) {
            wrong("is not a label name: letters, digits and _, and no digit first");
        } else if name.starts_with("__") {
            wrong("label names that begin with __ are reserved");
        } else if name != "instance" {
            labels = labels.with(name, value);
        } else if value.is_empty() {
            wrong("may not be empty; leave it out for the name of the host");
        } else {
            instance = Some(value);
        }
    }
    // The names are the keys of a map and were checked above, so nothing can be lost here.
    (labels.build_lossy(), instance)
}

fn docker(root: &mut Block<'_>, environment: &Environment) -> Vec<Docker> {
    // A variable cannot say `[]`.
    if root.is("docker", "off") {
        return Vec::new();
    }
    let item_count = root.item_count("docker");
    let engines = root.blocks("docker", |block| engine(block, environment));
    let Some(engines) = engines else {
        // Read as one empty block, so that DOCKER_HOST is checked in the same way.
        let engine = Block::read(root.report(), "docker[0]".to_owned(), Map::new(), |block| engine(block, environment));
        return engine.into_iter().collect();
    };
    for (index, engine) in engines.iter().enumerate() {
        if engines.len() == item_count && engines[..index].iter().any(|other| other.host == engine.host) {
            root.report().wrong(&format!("docker[{index}].host"), Some(&engine.host), "two engines have this host");
        }
    }
    engines
}

fn engine(block: &mut Block<'_>, environment: &Environment) -> Option<Docker> {
    block.refused(&["tls_config", "basic_auth", "authorization"], unknown::PLANNED);
    block.only("resources", &["auto", "off"], &format!("must be auto or off; anything else is {}", unknown::PLANNED));
    let host = if block.has("host") {
        block.parsed("host", |text| engine_address(text).map(|()| text.to_owned()))
    } else {
        block.text("host");
        engine_of_environment(block, environment)
    };
    let container_labels = block.list("container_labels", |name| match name {
        "" => Err("the name of a label may not be empty".to_owned()),
        name => Ok(name.to_owned()),
    });
    for (index, name) in container_labels.iter().enumerate() {
        let same = |other: &&String| sanitise_label_name(other) == sanitise_label_name(name);
        if let Some(other) = container_labels[..index].iter().find(same) {
            let rule = format!("becomes the same label as {}", shortened(other));
            block.wrong("container_labels", Some(name), rule);
        }
    }
    Some(Docker {
        host: host?,
        include: block.block("include", filter).unwrap_or_default(),
        exclude: block.block("exclude", filter).unwrap_or_default(),
        container_labels,
    })
}

/// `DOCKER_HOST` as the Docker command line reads it, or the default.
fn engine_of_environment(block: &Block<'_>, environment: &Environment) -> Option<String> {
    let Some(host) = environment.text(DOCKER_HOST) else { return Some(DEFAULT_DOCKER_HOST.to_owned()) };
    let checked = engine_address(host).and_then(|()| match environment.text("DOCKER_TLS_VERIFY") {
        Some(_) if !host.starts_with("unix:") => {
            Err(format!("TLS to an engine (DOCKER_TLS_VERIFY) is {}", unknown::PLANNED))
        }
        _ => Ok(host.to_owned()),
    });
    checked.map_err(|rule| block.wrong("host", Some(host), format!("from DOCKER_HOST: {rule}"))).ok()
}

/// Whether an engine can be reached at `host`.
fn engine_address(host: &str) -> Result<(), String> {
    const HINT: &str = "write unix:///var/run/docker.sock, tcp://host:port or http://host:port";
    if let Some(path) = host.strip_prefix("unix://") {
        let absolute = path.starts_with('/') && path.len() > 1;
        return if absolute { Ok(()) } else { Err(format!("the path of a socket is absolute; {HINT}")) };
    }
    if host.starts_with("https://") {
        return Err(format!("TLS to an engine is {}; {HINT}", unknown::PLANNED));
    }
    let (Some(rest), true) = (host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")), host.is_ascii())
    else {
        return Err(format!("not the address of an engine; {HINT}"));
    };
    // Parsed as http, because a URL of an unknown scheme has looser rules for hosts.
    let url =
        reqwest::Url::parse(&format!("http://{rest}")).map_err(|error| format!("not an address: {error}; {HINT}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an engine's address has no user".to_owned());
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(format!("an engine's address has no path; {HINT}"));
    }
    let has_port = rest.trim_end_matches('/').rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port { Ok(()) } else { Err(format!("the port is missing (engines listen on 2375); {HINT}")) }
}

fn filter(block: &mut Block<'_>) -> Filter {
    Filter {
        names: block.list("names", Pattern::parse),
        labels: block.list("labels", LabelPattern::parse),
        images: block.list("images", Pattern::parse),
    }
}

fn pushgateway(root: &mut Block<'_>, has_remote_write: bool, environment: &Environment) -> Option<Pushgateway> {
    root.block("pushgateway", |block| {
        const MODES: [(&str, Option<PushgatewayMode>); 3] =
            [("fallback", Some(PushgatewayMode::Fallback)), ("always", Some(PushgatewayMode::Always)), ("off", None)];
        let given = block.choice("mode", &MODES);
        let mode = match (given, has_remote_write) {
            (Some(Some(PushgatewayMode::Fallback)), false) => {
                block.wrong("mode", Some("fallback"), "there is no remote_write to fall back from; use always");
                None
            }
            (Some(mode), _) => mode,
            (None, true) => Some(PushgatewayMode::Fallback),
            (None, false) => Some(PushgatewayMode::Always),
        };
        let url = if mode.is_some() { http::required_url(block, "url") } else { block.parsed("url", http::url) };
        if url.as_ref().is_some_and(|url| url.expose().path().contains("/metrics/job")) {
            block.wrong("url", None, "is the address of the Pushgateway itself; leave out /metrics/job/…");
        }
        let job = block.parsed("job", |text| match text {
            "" => Err("may not be empty".to_owned()),
            job => Ok(job.to_owned()),
        });
        let auth = http::auth(block, url.as_ref(), environment);
        let http = http::http(block, url.as_ref(), environment);
        let after = block.duration("after").unwrap_or(DEFAULT_PUSHGATEWAY_AFTER);
        Some(Pushgateway {
            url: url?,
            mode: mode?,
            after,
            job: job.unwrap_or_else(|| Target::JOB.to_owned()),
            auth,
            http,
        })
    })?
}

fn buffer(block: &mut Block<'_>) -> Buffer {
    #[derive(Clone, Copy, PartialEq)]
    enum Sync {
        Always,
        Interval,
        Never,
    }
    let max_bytes = block.parsed("max_bytes", |text| match units::size(text)? {
        bytes if bytes < MIN_BUFFER_BYTES => Err("must be at least 1MiB".to_owned()),
        bytes => Ok(bytes),
    });
    let words = [("always", Sync::Always), ("interval", Sync::Interval), ("never", Sync::Never)];
    let sync = block.choice("sync", &words).unwrap_or(Sync::Always);
    let interval = block.parsed("sync_interval", |text| match units::duration(text)? {
        Duration::ZERO => Err("must be longer than 0s; for no delay use sync: always".to_owned()),
        interval => Ok(interval),
    });
    if interval.is_some() && sync != Sync::Interval {
        block.without_effect("sync_interval");
    }
    Buffer {
        path: block.file("path").unwrap_or_else(|| PathBuf::from(DEFAULT_BUFFER_PATH)),
        max_bytes: max_bytes.unwrap_or(DEFAULT_BUFFER_BYTES),
        min_free: block.parsed("min_free", units::size),
        max_age: Some(block.duration("max_age").unwrap_or(DEFAULT_BUFFER_AGE)).filter(|age| !age.is_zero()),
        sync: match sync {
            Sync::Always => SyncPolicy::Always,
            Sync::Interval => SyncPolicy::Interval(interval.unwrap_or(DEFAULT_SYNC_INTERVAL)),
            Sync::Never => SyncPolicy::Never,
        },
    }
}

fn web(root: &mut Block<'_>) -> Option<Web> {
    if root.is("web", "off") {
        return None;
    }
    root.block_or_default("web", |block| {
        let listen_address = block.parsed("listen_address", listen_address).unwrap_or(DEFAULT_LISTEN_ADDRESS);
        if block.flag("enabled") == Some(false) {
            return None;
        }
        if !listen_address.ip().is_loopback() {
            let path = block.path_of("listen_address");
            block.report().notice(format!("{path}: anybody who reaches {listen_address} can read the local page"));
        }
        Some(Web { listen_address })
    })
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric.as_deref().unwrap_or(text).parse().map_err(|_| {
        let hint = "127.0.0.1:9797 for this host only, 0.0.0.0:9797 for every interface";
        format!("must be an IP address and a port: {hint}")
    })
}

fn log(block: &mut Block<'_>) -> Log {
    use tracing::Level;
    let levels = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    let formats = [("logfmt", LogFormat::Logfmt), ("json", LogFormat::Json)];
    Log {
        level: block.choice("level", &levels).unwrap_or(Level::INFO),
        format: block.choice("format", &formats).unwrap_or(LogFormat::Logfmt),
    }
}
