//! The present on a Pushgateway, while remote-write is stalled or always.
//!
//! Live-shaped, not log-shaped: it shows the latest snapshot or nothing, never a backlog, and never touches a cursor. One
//! group for this host, replaced as a whole by each PUT, so a removed container vanishes; removed when remote-write
//! delivers again and when the program stops, because a Pushgateway forgets nothing by itself.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use futures_util::future::{self, FutureExt as _};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::client::{Client, ClientOptions, Request};
use super::metrics::{Metrics, PushgatewayMetrics};
use super::outcome::{self, Outcome};
use super::report::to_the_millisecond;
use super::state::EndpointState;
use crate::clock::{Clock, sleep_until};
use crate::config::{self, PushgatewayMode};
use crate::encode::text;
use crate::model::{Label, Labels, METRIC_NAME, Metadata, MetricKind, Sample, Series, Snapshot, Target, Value};
use crate::shutdown::{Phase, Shutdown};

/// One request, from connecting to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// How often at most to look whether the fallback begins: wall time may stand still while timers go on.
const SHORTEST_ALARM: Duration = Duration::from_millis(100);

/// The label that keeps what was scraped from a Pushgateway apart from the same series replayed by remote-write later.
const VIA: (&str, &str) = ("via", "pushgateway");

/// When the shown snapshot was taken; a Pushgateway gives every sample the time of the scrape.
const SNAPSHOT_TIMESTAMP: Metadata = Metadata::of(
    "outhaul_snapshot_timestamp_seconds",
    MetricKind::Gauge,
    "When what is shown here was sampled, in seconds since the Unix epoch.",
);

/// What a Pushgateway's task is made of.
#[derive(Debug)]
pub struct PushgatewayOptions<'a> {
    /// Where, when and how to push.
    pub config: config::Pushgateway,
    /// Added to every series that lacks them, as on the way to remote-write.
    pub external_labels: Labels,
    /// The grouping key's `instance`.
    pub instance: &'a str,
    /// Tells how long endpoints have been stalled.
    pub clock: Clock,
    /// Where to count.
    pub metrics: &'a Metrics,
}

/// Why a push did not work, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pushgateway {url}: {what}; {advice}")]
pub struct PushError {
    url: String,
    what: String,
    advice: &'static str,
}

/// See the module.
#[derive(Debug)]
pub struct Pushgateway {
    client: Client,
    url: Url,
    masked: String,
    grouping: Vec<(String, String)>,
    external_labels: Labels,
    mode: PushgatewayMode,
    after: Duration,
    clock: Clock,
    metrics: PushgatewayMetrics,
    group: Group,
    shown: Option<Arc<Snapshot>>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

/// Whether our group is on the Pushgateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    /// A run before this one may have left it there.
    Unknown,
    /// We put it, or tried to.
    Up,
    /// We removed it.
    Gone,
}

/// What is to be done now.
#[derive(Debug)]
enum Step {
    Put(Arc<Snapshot>),
    Delete,
    Nothing,
}

impl Pushgateway {
    /// A Pushgateway that nothing has been sent to.
    pub fn new(options: PushgatewayOptions) -> Self {
        let PushgatewayOptions { config, external_labels, instance, clock, metrics } = options;
        let grouping = [("job", config.job.as_str()), ("instance", instance), VIA];
        let grouping = grouping.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Self {
            url: group_url(config.url.expose(), &grouping),
            masked: config.url.masked(),
            client: Client::new(ClientOptions {
                auth: config.auth,
                http: config.http,
                headers: std::collections::BTreeMap::new(),
                timeout: TIMEOUT,
            }),
            grouping,
            external_labels,
            mode: config.mode,
            after: config.after,
            clock,
            metrics: metrics.pushgateway(),
            group: Group::Unknown,
            shown: None,
            backoff: Backoff::new(MIN_BACKOFF, MAX_BACKOFF),
            not_before: None,
        }
    }

    /// Shows `latest` whenever it should be shown, until the program stops.
    ///
    /// In fallback mode that is while every one of `endpoints` is stalled; where there is none, always.
    pub async fn run(
        mut self,
        mut latest: watch::Receiver<Arc<Snapshot>>,
        mut endpoints: Vec<watch::Receiver<EndpointState>>,
        shutdown: Shutdown,
    ) {
        while shutdown.phase() == Phase::Running {
            let engaged = self.is_engaged(&endpoints);
            self.note_engaged(engaged);
            let snapshot = Arc::clone(&latest.borrow_and_update());
            match self.next_step(engaged, snapshot, &endpoints) {
                Step::Nothing => self.wait(&mut latest, &mut endpoints, &shutdown).await,
                step => self.take(step, &shutdown).await,
            }
        }
        if self.group == Group::Up {
            self.take(Step::Delete, &shutdown).await;
        }
    }

    /// Shows `snapshot` now, once.
    ///
    /// # Errors
    /// When the Pushgateway cannot be reached or refuses it.
    pub async fn push_once(&mut self, snapshot: &Snapshot) -> Result<(), PushError> {
        self.group = Group::Up;
        self.request(Method::PUT, self.body(snapshot).into()).await
    }

    fn is_engaged(&self, endpoints: &[watch::Receiver<EndpointState>]) -> bool {
        let now = self.clock.now();
        let stalled = |endpoint: &watch::Receiver<EndpointState>| {
            endpoint.borrow().stalled_since.is_some_and(|since| now.since(since) >= self.after)
        };
        self.mode == PushgatewayMode::Always || endpoints.iter().all(stalled)
    }

    /// How long until the fallback begins if nothing changes; `None` where it has begun or nothing is stalled.
    fn until_engaged(&self, endpoints: &[watch::Receiver<EndpointState>]) -> Option<Duration> {
        let now = self.clock.now();
        let stalls = endpoints.iter().map(|endpoint| endpoint.borrow().stalled_since);
        let latest = stalls.collect::<Option<Vec<_>>>()?.into_iter().max()?;
        let left = self.after.saturating_sub(now.since(latest));
        (!left.is_zero()).then(|| left.max(SHORTEST_ALARM))
    }

    fn next_step(&self, engaged: bool, snapshot: Arc<Snapshot>, endpoints: &[watch::Receiver<EndpointState>]) -> Step {
        let waits = self.not_before.is_some_and(|at| Instant::now() < at);
        if waits {
            return Step::Nothing;
        }
        let shown = self.shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &snapshot));
        if engaged {
            return if shown || snapshot.samples.is_empty() { Step::Nothing } else { Step::Put(snapshot) };
        }
        match self.group {
            Group::Up => Step::Delete,
            // What a run before this one left is known to be outdated when an endpoint has taken what is newer.
            Group::Unknown if endpoints.iter().any(|endpoint| endpoint.borrow().last_success.is_some()) => Step::Delete,
            Group::Unknown | Group::Gone => Step::Nothing,
        }
    }

    async fn take(&mut self, step: Step, shutdown: &Shutdown) {
        let (method, body) = match &step {
            Step::Put(snapshot) => (Method::PUT, self.body(snapshot)),
            Step::Delete => (Method::DELETE, String::new()),
            Step::Nothing => return,
        };
        if method == Method::PUT {
            // Before the attempt: one that fails may have arrived.
            self.group = Group::Up;
        }
        let mut end = shutdown.clone();
        let result = tokio::select! {
            biased;
            result = self.request(method.clone(), body.into()) => result,
            () = end.reached(Phase::Stopped) => return,
        };
        match (result, step) {
            (Ok(()), Step::Put(snapshot)) => self.shown = Some(snapshot),
            (Ok(()), _) => (self.group, self.shown) = (Group::Gone, None),
            (Err(error), _) => {
                let wait = self.backoff.next_wait();
                self.not_before = Some(Instant::now() + wait);
                tracing::warn!(%method, %error, wait = ?to_the_millisecond(wait), "pushgateway did not take a request; it is tried again");
                return;
            }
        }
        self.backoff.reset();
        self.not_before = None;
    }

    async fn request(&mut self, method: Method, body: Bytes) -> Result<(), PushError> {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text::CONTENT_TYPE))]);
        let request = Request { method, url: self.url.clone(), headers, body };
        let exchange = self.client.send(&request, self.client.timeout()).await;
        self.metrics.pushes.with_label_values(&[outcome::code(&exchange)]).inc();
        if outcome::classify(&exchange, outcome::Asked::PLAIN, self.clock.now()) == Outcome::Delivered {
            return Ok(());
        }
        Err(PushError { url: self.masked.clone(), what: outcome::describe(&exchange), advice: advice(&exchange) })
    }

    /// The snapshot as a Pushgateway takes it, with the instant it was taken at.
    fn body(&self, snapshot: &Snapshot) -> String {
        let at = Labels::builder().with(METRIC_NAME, &*SNAPSHOT_TIMESTAMP.family).build_lossy();
        let at = Series::new(at, Arc::new(SNAPSHOT_TIMESTAMP));
        let at = Sample::new(Arc::new(at), Value::new(snapshot.at.seconds()));
        let samples: Vec<Sample> = snapshot.samples.iter().map(|sample| self.ungrouped(sample)).chain([at]).collect();
        text::expose(&samples)
    }

    /// The grouping key overwrites labels of its names, and where that makes two series one the whole push is refused. So
    /// a label that says what the key says, or that the series is native, is left to the key, and one that says something
    /// else is renamed as Prometheus renames it when it scrapes.
    fn ungrouped(&self, sample: &Sample) -> Sample {
        let key = |name: &str| self.grouping.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let is_native = |label: &Label| &*label.name == "job" && &*label.value == Target::JOB;
        let labels = sample.series.labels().with_defaults(&self.external_labels);
        let labels = labels.iter().fold(Labels::builder(), |builder, label| match key(&label.name) {
            Some(value) if value == &*label.value || is_native(label) => builder,
            Some(_) => builder.with(format!("exported_{}", label.name), Arc::clone(&label.value)),
            None => builder.with(Arc::clone(&label.name), Arc::clone(&label.value)),
        });
        let series = Series::new(labels.build_lossy(), Arc::clone(sample.series.metadata()));
        Sample::new(Arc::new(series), sample.value)
    }

    fn note_engaged(&self, engaged: bool) {
        if self.metrics.engaged.get().is_normal() != engaged {
            self.metrics.engaged.set(f64::from(u8::from(engaged)));
            if engaged {
                tracing::info!(url = %self.masked, "pushgateway shows the present");
            } else {
                tracing::info!(url = %self.masked, "remote-write has recovered; pushgateway is not needed any more");
            }
        }
    }

    async fn wait(
        &self,
        latest: &mut watch::Receiver<Arc<Snapshot>>,
        endpoints: &mut [watch::Receiver<EndpointState>],
        shutdown: &Shutdown,
    ) {
        let now = Instant::now();
        let retry = self.not_before.filter(|at| *at > now);
        let engage = self.until_engaged(endpoints).map(|left| now + left);
        let alarm = [retry, engage].into_iter().flatten().min();
        let mut drain = shutdown.clone();
        tokio::select! {
            () = changed(latest) => {}
            () = any_changed(endpoints) => {}
            () = sleep_until(alarm) => {}
            () = drain.reached(Phase::Draining) => {}
        }
    }
}

fn advice(exchange: &outcome::Exchange) -> &'static str {
    match exchange {
        Ok(answer) if answer.status == 400 => "another sender may use one of these metric names with another type",
        Ok(answer) if answer.status == 404 => "check the url: it is the pushgateway's, without /metrics",
        _ => outcome::advice(exchange, ""),
    }
}

/// Resolves on the next change; never, once there will be none.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        future::pending::<()>().await;
    }
}

async fn any_changed(endpoints: &mut [watch::Receiver<EndpointState>]) {
    if endpoints.is_empty() {
        return future::pending().await;
    }
    future::select_all(endpoints.iter_mut().map(|endpoint| changed(endpoint).boxed())).await;
}

/// `<base>/metrics/job/<job>/instance/<instance>/via/pushgateway` (Pushgateway README, "URL").
fn group_url(base: &Url, grouping: &[(String, String)]) -> Url {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Only a URL without a host has no path segments, and the configuration takes none of those.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().push("metrics");
        for (name, value) in grouping {
            match path_value(value) {
                PathValue::Plain => path.push(name).push(value),
                PathValue::Base64(encoded) => path.push(&format!("{name}@base64")).push(&encoded),
            };
        }
    }
    url
}

#[derive(Debug, PartialEq, Eq)]
enum PathValue {
    Plain,
    Base64(String),
}

/// A value that would not survive as a path segment goes as URL-safe base64 (Pushgateway README, "URL"): an empty one as a
/// single `=`, and besides those with a slash also `.` and `..`, which every URL library takes for directions.
fn path_value(value: &str) -> PathValue {
    match value {
        "" => PathValue::Base64("=".to_owned()),
        "." | ".." => PathValue::Base64(URL_SAFE.encode(value)),
        value if value.contains('/') => PathValue::Base64(URL_SAFE.encode(value)),
        _ => PathValue::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::telemetry::Registry;

    fn gateway(instance: &str) -> Pushgateway {
        let config = config::Pushgateway {
            url: config::Url::new(Url::parse("http://127.0.0.1:9091").unwrap()),
            mode: PushgatewayMode::Fallback,
            after: Duration::from_secs(60),
            job: "edge".to_owned(),
            auth: config::Auth::None,
            http: config::Http::default(),
        };
        let clock = Clock::manual(Timestamp::from_millis(1_000_000));
        let metrics = Metrics::register(&Registry::new());
        Pushgateway::new(PushgatewayOptions {
            config,
            external_labels: Labels::empty(),
            instance,
            clock,
            metrics: &metrics,
        })
    }

    fn stalled(since: Option<i64>) -> watch::Receiver<EndpointState> {
        let stalled_since = since.map(Timestamp::from_millis);
        watch::Sender::new(EndpointState { stalled_since, ..EndpointState::default() }).subscribe()
    }

    #[test]
    fn values_become_path_segments_that_arrive_as_they_are() {
        for (base, job, instance, path) in [
            ("http://h:1", "outhaul", "roof-3", "/metrics/job/outhaul/instance/roof-3/via/pushgateway"),
            ("http://h:1/", "a/b", "x", "/metrics/job@base64/YS9i/instance/x/via/pushgateway"),
            ("http://h:1/pg/", "j", "", "/pg/metrics/job/j/instance@base64/=/via/pushgateway"),
            ("http://h:1/pg", "j", "..", "/pg/metrics/job/j/instance@base64/Li4=/via/pushgateway"),
            ("http://h:1", "j", "a b?c#d%é", "/metrics/job/j/instance/a%20b%3Fc%23d%25%C3%A9/via/pushgateway"),
            // URL-safe base64 has `_` where the ordinary one has `/` (RFC 4648, section 5).
            ("http://h:1", "j", "/~?>", "/metrics/job/j/instance@base64/L34_Pg==/via/pushgateway"),
        ] {
            let grouping = [("job", job), ("instance", instance), VIA];
            let grouping = grouping.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(group_url(&Url::parse(base).unwrap(), &grouping).path(), path);
        }
    }

    #[test]
    fn a_fallback_begins_when_every_endpoint_has_been_stalled_long_enough() {
        let gateway = gateway("x");
        let long = || stalled(Some(940_000));
        for (endpoints, engaged, left) in [
            (vec![], true, None),
            (vec![long()], true, None),
            (vec![stalled(None)], false, None),
            (vec![long(), stalled(None)], false, None),
            (vec![long(), stalled(Some(940_001))], false, Some(SHORTEST_ALARM)),
            (vec![long(), long()], true, None),
        ] {
            assert_eq!(gateway.is_engaged(&endpoints), engaged, "{endpoints:?}");
            assert_eq!(gateway.until_engaged(&endpoints), left, "{endpoints:?}");
        }
    }

    #[test]
    fn a_body_leaves_to_the_group_what_the_group_says_and_keeps_the_rest_apart() {
        let up = Arc::new(Metadata::of("up", MetricKind::Gauge, ""));
        let sample = |job: &str, value| {
            let labels = Labels::builder().with("__name__", "up").with("job", job).with("instance", "x");
            Sample::new(Arc::new(Series::new(labels.build().unwrap(), Arc::clone(&up))), Value::new(value))
        };
        let snapshot = Snapshot::new(Timestamp::from_millis(1500), vec![sample("outhaul", 1.0), sample("node", 2.0)]);
        let body = gateway("x").body(&snapshot);
        assert!(body.contains("\nouthaul_snapshot_timestamp_seconds 1.5\n"), "{body}");
        assert!(body.ends_with("# TYPE up gauge\nup 1\nup{exported_job=\"node\"} 2\n"), "{body}");
    }
}
