//! `buffer drain`: send what is pending and end, without an agent.

use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::show::Progress;
use super::text::{count, duration};
use super::{Found, Place, check_endpoint, failed};
use crate::buffer::inspect::Inspection;
use crate::buffer::{Buffer, EndpointId, Ledger, Status};
use crate::cli::signals::StopSignals;
use crate::cli::{Exit, block_on, complain, say};
use crate::clock::Clock;
use crate::config::{self, Environment, MIN_BUFFER_BYTES, RemoteWrite};
use crate::model::Labels;
use crate::ship::{self, EndpointState, Shipper, ShipperOptions};
use crate::shutdown::{self, Phase};
use crate::telemetry::Registry;

pub(super) const HELP: &str = "Needs the buffer for itself: stop the agent first. Sends with the same retries as an agent until nothing is pending, nothing
was settled for --timeout, or Ctrl-C; what was not sent stays, and the next one goes on from there.

Without --url each configured endpoint gets what it waits for. With --url what one endpoint waits for goes there; credentials
come from OUTHAUL_REMOTE_WRITE_USERNAME, _PASSWORD, _PASSWORD_FILE, _BEARER_TOKEN, _BEARER_TOKEN_FILE and _TENANT, never from
the configuration of another URL.

Examples:
  outhaul buffer drain
  outhaul buffer drain --endpoint mimir --timeout 30m
  outhaul buffer drain --path /mnt/till-3/outhaul --url http://hub:9090/api/v1/write

Exit codes: 0 everything was delivered, 1 something was refused, expired or is still pending, 64 usage or configuration, 73 the
buffer is in use or unusable.";

/// How often the line is drawn and the time looked at.
const FRAME: Duration = Duration::from_millis(200);

/// What of the environment is for the endpoint that `--url` names.
const CREDENTIALS: [&str; 6] = ["USERNAME", "PASSWORD", "PASSWORD_FILE", "BEARER_TOKEN", "BEARER_TOKEN_FILE", "TENANT"];

#[derive(Debug, Args)]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    place: Place,
    /// Send there instead of to the configured endpoints
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Only what this endpoint waits for
    #[arg(long, value_name = "NAME")]
    endpoint: Option<String>,
    /// Give up when nothing was settled for so long
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = config::duration)]
    timeout: Duration,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Empty,
    GaveUp,
    Interrupted,
}

pub(super) fn main(options: &Options) -> Result<Exit, Exit> {
    let found = options.place.find()?;
    let inspection = found.inspect()?;
    if let Some(name) = &options.endpoint {
        check_endpoint(&inspection, name)?;
    }
    let names = found.endpoint_names(&inspection);
    let targets = targets(options, &found, &names)?;
    let external_labels =
        found.config.as_ref().map_or_else(Labels::empty, |config| config.global.external_labels.clone());
    // What is true of the line is true of it with `--url` too: the configuration of the buffer says so.
    let send_unchanged_every = found.config.as_ref().and_then(|config| config.send_unchanged_every);
    let settings = settings(&found, &inspection, names);
    block_on(drain(options, settings, targets, external_labels, send_unchanged_every))?
}

/// What receivers refuse is kept, within the agent's bound; where that is not known, within what the buffer takes now.
fn settings(found: &Found, inspection: &Inspection, names: Vec<String>) -> crate::buffer::Options {
    let max_bytes = found.max_bytes().unwrap_or(inspection.used_bytes.max(MIN_BUFFER_BYTES));
    crate::buffer::Options { max_bytes, ..found.options(names) }
}

/// Where to send, and for which of the buffer's endpoints.
fn targets(options: &Options, found: &Found, names: &[String]) -> Result<Vec<(EndpointId, RemoteWrite)>, Exit> {
    let usage = |problem: String| {
        complain(&problem);
        Exit::Usage
    };
    let id = |name: &str| names.iter().position(|known| known == name).map(EndpointId);
    if let Some(url) = &options.url {
        let name = match (&options.endpoint, names) {
            (Some(name), _) => name,
            (None, [only]) => only,
            (None, []) => return Err(usage("no endpoint has a place in this buffer: nothing is pending".to_owned())),
            (None, _) => {
                return Err(usage(format!(
                    "--endpoint is needed to say whose backlog goes there: {}",
                    names.join(", ")
                )));
            }
        };
        let config = RemoteWrite { name: name.clone(), ..named_by_url(url)? };
        return Ok(id(name).into_iter().map(|id| (id, config.clone())).collect());
    }
    let configured = found.config.as_ref().map_or(&[][..], |config| &config.remote_write[..]);
    let wanted = configured.iter().filter(|config| options.endpoint.as_ref().is_none_or(|name| *name == config.name));
    let targets: Vec<_> = wanted.filter_map(|config| Some((id(&config.name)?, config.clone()))).collect();
    if targets.is_empty() {
        return Err(usage(
            "no endpoint is configured to send to; give --url, or the configuration with remote_write".to_owned(),
        ));
    }
    Ok(targets)
}

fn named_by_url(url: &str) -> Result<RemoteWrite, Exit> {
    let variable = |name: &str| format!("OUTHAUL_REMOTE_WRITE_{name}");
    let credentials = CREDENTIALS.iter().filter_map(|name| Some((variable(name), std::env::var(variable(name)).ok()?)));
    let environment: Environment = credentials.chain([(variable("URL"), url.to_owned())]).collect();
    // Nothing of the configuration but what the defaults are.
    let empty = tempfile::Builder::new().suffix(".yml").tempfile().map_err(|error| failed(&error))?;
    let config = config::load(Some(empty.path()), &environment).map_err(|error| {
        for problem in error.problems() {
            // Nobody has set the variable that the URL is handed over in.
            if problem.key == "remote_write[0].url" {
                complain(&format_args!("--url: {}", problem.rule));
            } else {
                complain(problem);
            }
        }
        Exit::Usage
    })?;
    config.remote_write.into_iter().next().ok_or(Exit::Usage)
}

async fn drain(
    options: &Options,
    settings: crate::buffer::Options,
    targets: Vec<(EndpointId, RemoteWrite)>,
    external_labels: Labels,
    send_unchanged_every: Option<Duration>,
) -> Result<Exit, Exit> {
    ship::install_crypto_provider();
    let mut signals =
        StopSignals::listen().map_err(|error| failed(&format_args!("signals cannot be handled: {error}")))?;
    let buffer = Buffer::open_to_drain(settings).map_err(|error| super::in_use(&error))?;
    let (clock, metrics) = (Clock::system(), ship::Metrics::register(&Registry::new()));
    let (trigger, shutdown) = shutdown::channel();
    let ids: Vec<EndpointId> = targets.iter().map(|(id, _)| *id).collect();
    let before = buffer.status();
    let shippers: Vec<Shipper> = targets
        .into_iter()
        .map(|(endpoint, config)| {
            let (buffer, clock, external_labels) = (buffer.clone(), clock.clone(), external_labels.clone());
            let shipper = Shipper::new(ShipperOptions {
                endpoint,
                config,
                external_labels,
                send_unchanged_every,
                buffer,
                clock,
                metrics: &metrics,
            });
            if options.url.is_some() { shipper.to_another() } else { shipper }
        })
        .collect();
    let states: Vec<_> = shippers.iter().map(Shipper::state).collect();
    let ship = join_all(shippers.into_iter().map(|shipper| shipper.run(shutdown.clone())));
    let watch = async {
        let end = watch(options.timeout, &buffer, &ids, &states, &mut signals).await;
        trigger.advance(Phase::Stopped);
        end
    };
    let (end, _) = futures_util::future::join(watch, ship).await;
    let after = buffer.status();
    buffer.close().await;
    tell(options, &ids, (&before, &after), &states, end)
}

/// Looks on until there is nothing left to wait for.
async fn watch(
    timeout: Duration,
    buffer: &Buffer,
    ids: &[EndpointId],
    states: &[watch::Receiver<EndpointState>],
    signals: &mut StopSignals,
) -> End {
    let mut changes = buffer.changes();
    let mut frame = tokio::time::interval(FRAME);
    frame.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = Progress::new("sending");
    let total = pending(&buffer.status(), ids);
    let (mut left, mut settled_at) = (total, Instant::now());
    loop {
        let now_left = pending(&changes.borrow_and_update(), ids);
        if now_left == 0 {
            return End::Empty;
        }
        if now_left < left {
            (left, settled_at) = (now_left, Instant::now());
        }
        if settled_at.elapsed() >= timeout {
            return End::GaveUp;
        }
        let trouble = states.iter().find_map(|state| state.borrow().last_error.clone()).unwrap_or_default();
        progress.samples(total.saturating_sub(left), total, &trouble);
        tokio::select! {
            // Ends only with the buffer.
            more = changes.changed() => if more.is_err() { return End::GaveUp },
            _ = frame.tick() => {}
            _ = signals.next() => return End::Interrupted,
        }
    }
}

fn pending(status: &Status, ids: &[EndpointId]) -> u64 {
    ids.iter().filter_map(|id| status.endpoints.get(id.0)).map(|endpoint| endpoint.ledger.pending).sum()
}

fn tell(
    options: &Options,
    ids: &[EndpointId],
    (before, after): (&Status, &Status),
    states: &[watch::Receiver<EndpointState>],
    end: End,
) -> Result<Exit, Exit> {
    let mut is_good = end == End::Empty;
    let mut endpoints = Vec::new();
    for (id, state) in ids.iter().zip(states) {
        let (Some(old), Some(new)) = (before.endpoints.get(id.0), after.endpoints.get(id.0)) else { continue };
        let grown = |of: fn(&Ledger) -> u64| of(&new.ledger).saturating_sub(of(&old.ledger));
        let (delivered, refused) = (grown(|ledger| ledger.delivered), grown(|ledger| ledger.refused));
        let (expired, corrupt) = (grown(|ledger| ledger.expired), grown(|ledger| ledger.corrupt));
        let (unchanged, filtered) = (grown(|ledger| ledger.unchanged), grown(|ledger| ledger.filtered));
        let evicted = grown(|ledger| ledger.evicted.total());
        let pending = new.ledger.pending;
        is_good &= [refused, expired, evicted, corrupt, pending] == [0; 5];
        let state = state.borrow();
        endpoints.push(json!({
            "name": new.name,
            "url": state.url,
            "delivered": delivered,
            "refused": refused,
            "expired": expired,
            "unchanged": unchanged,
            "filtered": filtered,
            "evicted": evicted,
            "corrupt": corrupt,
            "pending": pending,
            "last_error": state.last_error,
        }));
        if options.place.json {
            continue;
        }
        let others = [(unchanged, "unchanged"), (filtered, "filtered")]
            .map(|(samples, what)| if samples > 0 { format!(", {} {what}", count(samples)) } else { String::new() });
        let others = others.concat();
        say(&format_args!("{} to {}: {} samples delivered{others}", new.name, state.url, count(delivered)))?;
        for (samples, what) in [
            (refused, "refused"),
            (expired, "too old to be sent"),
            (evicted, "evicted meanwhile"),
            (corrupt, "damaged"),
            (pending, "still pending"),
        ] {
            if samples > 0 {
                complain(&format_args!("{}: {} samples {what}", new.name, count(samples)));
            }
        }
        if let Some(error) = state.last_error.as_ref().filter(|_| !is_good) {
            complain(&format_args!("{}: {error}", new.name));
        }
    }
    let (word, why) = match end {
        End::Empty => ("empty", None),
        End::GaveUp => ("gave_up", Some(format!("gave up: nothing was settled for {}", duration(options.timeout)))),
        End::Interrupted => ("interrupted", Some("interrupted; what was not sent stays".to_owned())),
    };
    if options.place.json {
        say(&json!({"end": word, "endpoints": endpoints}))?;
    } else if let Some(why) = why {
        complain(&why);
    }
    if is_good { Ok(Exit::Fine) } else { Err(Exit::Failed) }
}
