//! From a validated configuration to an agent with every part in place, nothing running yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::buffer_metrics::{self, BufferMetrics};
use super::{Agent, AgentError, Watches};
use crate::buffer::{self, Buffer, EndpointId};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::host;
use crate::model::{Snapshot, Target, Timestamp};
use crate::sampler::{self, Sampler};
use crate::ship::{self, Pushgateway, PushgatewayOptions, Shipper, ShipperOptions};
use crate::source::docker::{self, EventReader};
use crate::source::own::OwnSource;
use crate::source::{Source, SourceError};
use crate::telemetry::Registry;
use crate::web::Page;

/// How far ahead of the clock the newest recorded instant may lie and still be believed.
///
/// Prometheus and Mimir refuse what is more than ten minutes ahead. A buffer that holds such stamps was written under a
/// wrong clock, and following it would stamp everything wrong from now on.
const AHEAD_MAX: Duration = Duration::from_secs(600);

impl Agent {
    /// Builds every part.
    ///
    /// # Errors
    /// When the buffer cannot be opened, or a source is impossible.
    pub async fn build(config: Config) -> Result<Self, AgentError> {
        ship::install_crypto_provider();
        announce(&config);
        let clock = Clock::system();
        let buffer = Buffer::open(buffer_options(&config))?;
        let recorded_until = recorded_until(&clock, buffer.status().last_at);
        let registry = Registry::new();
        clock.register(&registry);
        let host = instance(&config).await;
        let target = Target::new(&host);

        let (sources, readers) = sources(&config, &buffer, &clock, &registry, &target, recorded_until).await?;
        let (latest, latest_view) = watch::channel(Arc::new(Snapshot::new(Timestamp::MIN, Vec::new())));
        let own = |registry: &Registry, metrics: Arc<BufferMetrics>, buffer: Buffer| {
            let refresh = Box::new(move || metrics.observe(&buffer.status()));
            OwnSource::new(registry.clone(), target.clone(), refresh).started(clock.now(), buffer_metrics::OLDER)
        };
        let urls = config.remote_write.iter().map(|endpoint| endpoint.url.masked()).collect();
        let metrics = Arc::new(BufferMetrics::new(&registry, urls));
        build_info(&registry);
        let sampler = Sampler::new(
            sampler::Options {
                interval: config.global.scrape_interval,
                timeout: config.global.scrape_timeout,
                host: host.clone(),
                recorded_until,
            },
            sources,
            own(&registry, Arc::clone(&metrics), buffer.clone()),
            buffer.clone(),
            clock.clone(),
            &registry,
            latest,
        );
        let ship_metrics = ship::Metrics::register(&registry);
        let shippers = shippers(&config, &buffer, &clock, &ship_metrics);
        let endpoints = shippers.iter().map(Shipper::state).collect();
        let pushgateway = config.pushgateway.clone().map(|gateway| {
            Pushgateway::new(PushgatewayOptions {
                config: gateway,
                external_labels: config.global.external_labels.clone(),
                instance: &host,
                clock: clock.clone(),
                metrics: &ship_metrics,
            })
        });
        Ok(Self {
            page: Page::new(latest_view.clone(), own(&registry, metrics, buffer.clone())),
            watches: Watches { latest: latest_view, endpoints, buffer: buffer.changes() },
            config,
            buffer,
            sampler,
            readers,
            shippers,
            pushgateway,
        })
    }
}

/// The listener of the local page; a taken port costs the page, not the agent.
pub(super) async fn listen(web: Option<&config::Web>) -> Option<TcpListener> {
    let address = web?.listen_address;
    match TcpListener::bind(address).await {
        Ok(listener) => {
            tracing::info!(%address, "local page listens");
            Some(listener)
        }
        Err(error) => {
            tracing::warn!(%address, %error, "local page cannot listen and is off; set web.listen_address to a free one");
            None
        }
    }
}

/// Says once what this run is about.
fn announce(config: &Config) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "outhaul starts");
    for notice in &config.notices {
        tracing::info!(notice, "configuration");
    }
    for engine in &config.docker {
        tracing::info!(engine = engine.host, interval = ?config.global.scrape_interval, "watches");
    }
    for endpoint in &config.remote_write {
        tracing::info!(endpoint = endpoint.name, url = endpoint.url.masked(), "ships to");
    }
    if config.remote_write.is_empty() && config.pushgateway.is_none() {
        tracing::warn!("no remote_write and no pushgateway: running local-only, nothing leaves this host");
    }
}

fn build_info(registry: &Registry) {
    registry
        .gauges("outhaul_build_info", "Always 1; what this outhaul is.", &["version"])
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1.0);
    // `dashboards.libsonnet` of Prometheus' mixin has its list of instances from here.
    registry
        .gauges(
            "prometheus_build_info",
            "Always 1: the dashboards of Prometheus' mixin find the instance by it.",
            &["version"],
        )
        .with_label_values(&[concat!("outhaul-", env!("CARGO_PKG_VERSION"))])
        .set(1.0);
    registry.gauge("outhaul_up", "Always 1: alert when it is absent.").set(1.0);
}

/// The buffer knows no configuration, so what it needs of it is handed over here.
fn buffer_options(config: &Config) -> buffer::Options {
    let sync = match config.buffer.sync {
        config::SyncPolicy::Always => buffer::SyncPolicy::Always,
        config::SyncPolicy::Interval(interval) => buffer::SyncPolicy::Interval(interval),
        config::SyncPolicy::Never => buffer::SyncPolicy::Never,
    };
    buffer::Options {
        path: config.buffer.path.clone(),
        max_bytes: config.buffer.max_bytes,
        max_age: config.buffer.max_age,
        min_free: config.buffer.min_free,
        sync,
        endpoints: config.remote_write.iter().map(|endpoint| endpoint.name.clone()).collect(),
    }
}

/// The newest instant of an earlier run, unless its clock was plainly wrong. Our clock starts no earlier.
fn recorded_until(clock: &Clock, last_at: Option<Timestamp>) -> Option<Timestamp> {
    let last_at = last_at?;
    // A clock that starts in 1970 says nothing about the stamps of an earlier run.
    if !clock.is_sane() {
        return Some(last_at);
    }
    let ahead = last_at.since(clock.now());
    if ahead > AHEAD_MAX {
        tracing::warn!(
            newest = %last_at,
            ahead_seconds = ahead.as_secs(),
            "buffer holds samples from the future: the clock was wrong when they were taken, or is wrong now; receivers will refuse them"
        );
        return None;
    }
    clock.at_least(last_at);
    Some(last_at)
}

/// The label `instance`: as configured, else this host's name; inside a container, whose own name changes with each
/// re-creation, the engine's name for the host.
async fn instance(config: &Config) -> String {
    if let Some(instance) = &config.global.instance {
        return instance.clone();
    }
    if host::in_container()
        && let Some(engine) = config.docker.first()
        && let Ok(name) = docker::host_name(engine).await
    {
        return name;
    }
    host::name()
}

/// A source and its event reader for every configured engine.
async fn sources(
    config: &Config,
    buffer: &Buffer,
    clock: &Clock,
    registry: &Registry,
    target: &Target,
    recorded_until: Option<Timestamp>,
) -> Result<(Vec<Box<dyn Source>>, Vec<EventReader>), SourceError> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    let mut readers = Vec::new();
    let metrics = docker::Metrics::register(registry);
    for (index, engine) in config.docker.iter().enumerate() {
        let name = if index == 0 { "docker".to_owned() } else { format!("docker-{}", index + 1) };
        let (source, reader) = docker::connect(docker::Connect {
            config: engine,
            restored: buffer.load_state(&name).await,
            name: &name,
            target: target.clone(),
            hostname: None,
            interval: config.global.scrape_interval,
            timeout: config.global.scrape_timeout,
            recorded_until,
            clock: clock.clone(),
            metrics: &metrics,
        })?;
        sources.push(Box::new(source));
        readers.push(reader);
    }
    Ok((sources, readers))
}

fn shippers(config: &Config, buffer: &Buffer, clock: &Clock, metrics: &ship::Metrics) -> Vec<Shipper> {
    let shipper = |(index, endpoint): (usize, &config::RemoteWrite)| {
        Shipper::new(ShipperOptions {
            endpoint: EndpointId(index),
            config: endpoint.clone(),
            external_labels: config.global.external_labels.clone(),
            send_unchanged_every: config.send_unchanged_every,
            buffer: buffer.clone(),
            clock: clock.clone(),
            metrics,
        })
    };
    config.remote_write.iter().enumerate().map(shipper).collect()
}
