//! `send_interval` saves bytes: what 100 recorded containers cost on the wire when six ticks travel together.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outhaul::buffer::{Buffer, EndpointId};
use outhaul::clock::Clock;
use outhaul::config::{Environment, RemoteWrite};
use outhaul::encode::{Decoded, Message};
use outhaul::model::{Labels, Series, Snapshot, Timestamp, Value};
use outhaul::ship::{Metrics, Shipper, ShipperOptions, install_crypto_provider};
use outhaul::shutdown::{self, Phase};
use outhaul::telemetry::Registry;

use self::recording::Recording;
use crate::bed::{Captor, Captured, buffer_options};

#[path = "../../benches/buffer/recording.rs"]
mod recording;

/// Between two instants of the recorded run.
const TICK: Duration = Duration::from_secs(10);
/// More than it takes from waking up to the first request.
const TURNS: usize = 5;
/// The project's own bound.
const BYTES_A_SAMPLE_MAX: f64 = 7.5;

/// An endpoint as a user writes it: everything else is as by default, but that a slow machine is no reason to send twice.
fn config(url: &str, version: &str) -> RemoteWrite {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("outhaul.yml");
    let endpoint = format!("{{name: e, url: \"{url}\", protocol: {version}, send_interval: 60s, remote_timeout: 1h}}");
    std::fs::write(&file, format!("remote_write: [{endpoint}]\n")).unwrap();
    let config = outhaul::config::load(Some(&file), &Environment::default()).unwrap();
    config.remote_write.into_iter().next().unwrap()
}

fn buffer(directory: &Path) -> Buffer {
    Buffer::open(buffer_options(directory, &["e"])).unwrap()
}

/// How many samples were sent or are on their way.
fn attempted(registry: &Registry) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == "prometheus_remote_storage_samples_total").unwrap();
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "a count")]
    let count = family.get_metric()[0].get_counter().get_value() as u64;
    count
}

/// All snapshots, tick by tick, through the real buffer and the real shipper.
fn shipped(snapshots: &[Snapshot], version: &str) -> Vec<Captured> {
    install_crypto_provider();
    let captor = Captor::start();
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // Paused time moves by itself while everybody waits for a socket, unless something blocks.
        let (_release, held) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || held.recv().unwrap_err());
        let (buffer, registry) = (buffer(directory.path()), Registry::new());
        let (trigger, stop) = shutdown::channel();
        let shipper = Shipper::new(ShipperOptions {
            endpoint: EndpointId(0),
            config: config(&captor.write_url(), version),
            external_labels: Labels::empty(),
            send_unchanged_every: None,
            buffer: buffer.clone(),
            clock: Clock::manual(snapshots[0].at),
            metrics: &Metrics::register(&registry),
        });
        let shipping = tokio::spawn(shipper.run(stop));
        let mut changes = buffer.changes();
        for snapshot in snapshots {
            buffer.append(snapshot.clone()).await.unwrap();
            tokio::time::advance(TICK).await;
            // A turn of the buffer's thread is a turn for the shipper: if it is time to send, it begins to.
            for _ in 0..TURNS {
                buffer.load_state("nobody").await;
            }
            // What is on its way arrives before time goes on.
            changes.wait_for(|status| status.endpoints[0].ledger.delivered == attempted(&registry)).await.unwrap();
        }
        trigger.advance(Phase::Stopped);
        shipping.await.unwrap();
    });
    captor.bodies().into_iter().filter(|body| body.decoded().tally().samples > 0).collect()
}

/// A host where more goes on than on the recorded one, on which one value in seven changes: of the series that stand still
/// all along only some are kept, so that it is three in ten. What is kept is as it was recorded.
fn busier(recording: &Recording) -> Vec<Snapshot> {
    const STILL_KEPT_ONE_IN: usize = 4;
    let mut snapshots: Vec<Snapshot> = recording.replay().take(recording.len()).collect();
    let (mut first, mut moving) = (HashMap::new(), HashSet::new());
    for sample in snapshots.iter().flat_map(|snapshot| &snapshot.samples) {
        let series = Arc::as_ptr(&sample.series);
        if *first.entry(series).or_insert(sample.value) != sample.value {
            moving.insert(series);
        }
    }
    let still = snapshots[0].samples.iter().map(|sample| Arc::as_ptr(&sample.series)).filter(|it| !moving.contains(it));
    let kept: HashSet<*const Series> = still.step_by(STILL_KEPT_ONE_IN).chain(moving.iter().copied()).collect();
    for snapshot in &mut snapshots {
        snapshot.samples.retain(|sample| kept.contains(&Arc::as_ptr(&sample.series)));
    }
    snapshots
}

/// How many of the values differ from those before them.
fn changing(snapshots: &[Snapshot]) -> f64 {
    let mut before: HashMap<*const Series, Value> = HashMap::new();
    let (mut changed, mut all) = (0, 0);
    for sample in snapshots.iter().flat_map(|snapshot| &snapshot.samples) {
        if let Some(before) = before.insert(Arc::as_ptr(&sample.series), sample.value) {
            all += 1;
            changed += usize::from(before != sample.value);
        }
    }
    changed as f64 / f64::from(all)
}

fn instants(body: &Captured) -> BTreeSet<Timestamp> {
    body.decoded().series.iter().flat_map(|series| series.samples.iter().map(|sample| sample.0)).collect()
}

/// What was sent at one time: its instants and its requests.
fn sends(bodies: &[Captured]) -> Vec<(BTreeSet<Timestamp>, Vec<&Captured>)> {
    let mut sends: Vec<(BTreeSet<Timestamp>, Vec<&Captured>)> = Vec::new();
    for body in bodies {
        let instants = instants(body);
        match sends.last_mut().filter(|(known, _)| !known.is_disjoint(&instants)) {
            Some((known, bodies)) => {
                known.extend(instants);
                bodies.push(body);
            }
            None => sends.push((instants, vec![body])),
        }
    }
    sends
}

#[test]
fn with_a_send_interval_of_a_minute_six_ticks_share_a_request_and_a_sample_costs_few_bytes() {
    let recording = Recording::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/data/run.jsonl.zst")));
    let snapshots = busier(&recording);
    let changing = changing(&snapshots);
    let (kept, all) = (snapshots[0].samples.len(), recording.series());
    println!("{:.1} % of the values of {kept} of {all} series change", 100.0 * changing);
    assert!((0.29..0.33).contains(&changing), "{changing}");
    for (version, message) in [("v1", Message::V1), ("v2", Message::V2)] {
        let bodies = shipped(&snapshots, version);
        let sends = sends(&bodies);
        // The first is sent at a phase of its own, and carries less.
        let sends = &sends[1..];
        let counts: Vec<usize> = sends.iter().map(|(instants, _)| instants.len()).collect();
        // Sixty seconds give or take a tenth.
        assert!(counts.len() > 15 && counts.iter().all(|count| (5..=7).contains(count)), "{version}: {counts:?}");
        let bodies: Vec<&Captured> = sends.iter().flat_map(|(_, bodies)| bodies.clone()).collect();
        assert!(bodies.iter().all(|body| body.message == message));
        let decoded: Vec<Decoded> = bodies.iter().map(|body| body.decoded()).collect();
        let tally = |of: fn(&Decoded) -> usize| decoded.iter().map(of).sum::<usize>() as f64;
        let (samples, series) = (tally(|one| one.tally().samples), tally(|one| one.series.len()));
        // But for those of containers that began or ended, every instant of a series is in one request.
        let average = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
        assert!(samples / series > 0.95 * average, "{version}: {} of {average} instants together", samples / series);
        let cost = bodies.iter().map(|body| body.packed.len()).sum::<usize>() as f64 / samples;
        println!("{version}: {} requests, {average:.1} instants at a time, {cost:.2} bytes a sample", bodies.len());
        assert!(cost <= BYTES_A_SAMPLE_MAX, "{version}: {cost} bytes a sample");
    }
}
