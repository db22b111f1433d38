//! The rows of the status table that need more than one request, and what is sent together.

use proptest::prelude::*;

use super::*;
use crate::buffer::{Fault, Verdict};
use crate::encode::{self, Compression, Message};

/// How a request says it is to be read.
fn format(seen: &Seen) -> (Message, Compression) {
    let message = match seen.header("Content-Type") {
        Some("application/x-protobuf") => Message::V1,
        Some("application/x-protobuf;proto=io.prometheus.write.v2.Request") => Message::V2,
        other => panic!("content type {other:?}"),
    };
    (message, Compression::from_content_encoding(seen.header("Content-Encoding").unwrap()).unwrap())
}

/// Every sample of a request: the label `ordinal`, when, what.
pub(super) fn samples(seen: &Seen) -> Vec<(String, Timestamp, Value)> {
    let (message, compression) = format(seen);
    let decoded = encode::decode(&seen.body, message, compression, 1 << 20).unwrap();
    let of = |series: encode::DecodedSeries| {
        let ordinal = series.labels.get("ordinal").unwrap().to_owned();
        series.samples.into_iter().map(move |(at, value)| (ordinal.clone(), at, value)).collect::<Vec<_>>()
    };
    decoded.series.into_iter().flat_map(of).collect()
}

pub(super) fn written(count: usize) -> String {
    format!("X-Prometheus-Remote-Write-Samples-Written: {count}\r\n")
}

/// Takes what it gets, as a receiver of remote-write 2.0 does.
pub(super) fn taken(seen: &Seen) -> Reply {
    answer("204 No Content", &written(samples(seen).len()), "")
}

pub(super) fn auto(config: &mut RemoteWrite) {
    config.protocol = config::Protocol::Auto;
}

pub(super) fn second(number: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(number))
}

#[tokio::test]
async fn instants_that_wait_share_a_request_and_each_series_is_written_once() {
    let mut rig = Rig::start_with(Server::start(taken).await, auto, vec![snapshot(2), snapshot(3), snapshot(2)]).await;
    let seen = rig.server.next().await;
    assert_eq!(format(&seen), (Message::V2, Compression::Snappy));
    let at = |ordinal: &str| -> Vec<Timestamp> {
        samples(&seen).into_iter().filter(|sample| sample.0 == ordinal).map(|sample| sample.1).collect()
    };
    assert_eq!(at("0"), [NOW, second(1), second(2)]);
    assert_eq!(at("2"), [second(1)]);
    assert_eq!(rig.settled().await, delivered(7));
}

#[tokio::test]
async fn a_receiver_of_1_0_gets_the_same_samples_again_and_1_0_from_then_on() {
    // In turn: what Prometheus 2 says, what others say, what VictoriaMetrics says.
    for misunderstood in ["415 Unsupported Media Type", "400 Bad Request", "204 No Content"] {
        let server = Server::start(move |seen| match format(seen).0 {
            Message::V2 => status(misunderstood),
            Message::V1 => no_content(),
        });
        let mut rig = Rig::start_with(server.await, auto, vec![snapshot(2)]).await;
        let (first, again) = (rig.server.next().await, rig.server.next().await);
        assert_eq!((format(&first).0, format(&again).0), (Message::V2, Message::V1), "{misunderstood}");
        assert_eq!(samples(&first), samples(&again));
        assert_eq!(again.header("Retry-Attempt"), None);
        assert_eq!(rig.settled().await, delivered(2));
        rig.append(snapshot_at(second(5), 1)).await;
        assert_eq!(format(&rig.server.next().await).0, Message::V1, "it is remembered");
        assert_eq!(rig.settled().await, delivered(3));
        let kept = rig.buffer.load_state("ship-test").await.unwrap();
        assert!(kept.starts_with(b"v1-snappy "), "{kept:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_was_replaced_by_one_that_takes_2_0_alone_is_spoken_to_in_2_0_at_the_next_knock() {
    let _time = Time::stand_still();
    let is_replaced = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let replaced = Arc::clone(&is_replaced);
    let server =
        Server::start(move |seen| match (format(seen).0, replaced.load(std::sync::atomic::Ordering::Relaxed)) {
            (Message::V1, false) => no_content(),
            (Message::V2, true) => taken(seen),
            _ => status("415 Unsupported Media Type"),
        });
    let mut rig = Rig::start_with(server.await, auto, vec![snapshot(2)]).await;
    assert_eq!(rig.settled().await, delivered(2));
    is_replaced.store(true, std::sync::atomic::Ordering::Relaxed);
    rig.append(snapshot_at(second(5), 1)).await;
    let wait = rig.wait_for(|state| state.retry_in.is_some()).await.retry_in.unwrap();
    tokio::time::advance(wait + Duration::from_millis(2)).await;
    assert_eq!(rig.settled().await, delivered(3));
    let spoken: Vec<Message> =
        std::iter::from_fn(|| rig.server.requests.try_recv().ok()).map(|seen| format(&seen).0).collect();
    assert_eq!(spoken, [Message::V2, Message::V1, Message::V1, Message::V2]);
}

#[tokio::test]
async fn trouble_is_no_reason_to_speak_1_0() {
    let replies = ["408 x", "429 x", "500 x", "503 x", "425 x"].map(status);
    let count = replies.len();
    let mut replies = replies.into_iter();
    let server = Server::start(move |seen| replies.next().unwrap_or_else(|| taken(seen)));
    let mut rig = Rig::start_with(server.await, auto, vec![snapshot(1)]).await;
    for _ in 0..=count {
        assert_eq!(format(&rig.server.next().await).0, Message::V2);
    }
    assert_eq!(rig.settled().await, delivered(1));
}

#[tokio::test]
async fn a_400_to_2_0_that_is_one_to_1_0_too_is_about_the_samples() {
    let server = Server::start(|_| answer("400 Bad Request", "", "out of bounds")).await;
    let mut rig = Rig::start_with(server, auto, vec![snapshot(1)]).await;
    let formats = [format(&rig.server.next().await).0, format(&rig.server.next().await).0];
    assert_eq!(formats, [Message::V2, Message::V1]);
    let refused = Ledger { appended: 1, refused: 1, ..Ledger::default() };
    assert_eq!(rig.settled().await, refused);
    rig.append(snapshot_at(second(1), 1)).await;
    assert_eq!(format(&rig.server.next().await).0, Message::V2, "1.0 was never taken");
}

#[tokio::test]
async fn zstd_falls_back_to_snappy() {
    let server = Server::start(|seen| match format(seen).1 {
        Compression::Zstd => status("415 Unsupported Media Type"),
        Compression::Snappy => no_content(),
    });
    let zstd = |config: &mut RemoteWrite| config.compression = config::Compression::Zstd;
    let mut rig = Rig::start_with(server.await, zstd, vec![snapshot(2)]).await;
    let (first, again) = (rig.server.next().await, rig.server.next().await);
    assert_eq!((format(&first).1, format(&again).1), (Compression::Zstd, Compression::Snappy));
    assert_eq!(samples(&first), samples(&again));
    assert_eq!(rig.settled().await, delivered(2));
}

#[tokio::test]
async fn of_a_partial_write_only_what_was_not_written_is_refused() {
    let server = Server::start(|_| answer("400 Bad Request", &written(2), "one is too old")).await;
    let mut rig = Rig::start_with(server, auto, vec![snapshot(3), snapshot(2)]).await;
    rig.server.next().await;
    let expected = Ledger { appended: 5, delivered: 2, refused: 3, ..Ledger::default() };
    assert_eq!(rig.settled().await, expected);
    assert!(rig.server.requests.try_recv().is_err(), "nothing is sent twice");
}

#[tokio::test]
async fn a_bad_instant_costs_only_itself_and_is_kept_in_quarantine() {
    let server = Server::start(|seen| {
        let is_bad = samples(seen).iter().any(|sample| sample.1 == second(1));
        if is_bad { answer("400 Bad Request", "", "out of order") } else { no_content() }
    });
    let rig = Rig::start_with(server.await, |_| {}, vec![snapshot(2), snapshot(3), snapshot(2)]).await;
    let expected = Ledger { appended: 7, delivered: 4, refused: 3, ..Ledger::default() };
    assert_eq!(rig.settled().await, expected);
    assert_eq!(rig.buffer.status().quarantine.added_samples_total, 3);
}

#[tokio::test]
async fn a_429_is_final_only_where_somebody_asked_for_that() {
    let server = Server::replying([status("429 Too Many Requests")]).await;
    let rig = Rig::start_with(server, |config| config.queue.retry_on_http_429 = false, vec![snapshot(2)]).await;
    assert_eq!(rig.settled().await, Ledger { appended: 2, refused: 2, ..Ledger::default() });
}

#[tokio::test(start_paused = true)]
async fn a_sample_on_which_the_receiver_fails_is_found_and_quarantined_and_the_rest_delivered() {
    let poison = Value::new(5.0);
    let server = Server::start(move |seen| {
        let is_poisoned = samples(seen).iter().any(|sample| sample.2 == poison && sample.1 == second(1));
        if is_poisoned { status("500 Internal Server Error") } else { no_content() }
    });
    let slow = |config: &mut RemoteWrite| config.queue.max_backoff = Duration::from_secs(120);
    let rig = Rig::start_with(server.await, slow, vec![snapshot(8), snapshot(8), snapshot(8)]).await;
    let expected = Ledger { appended: 24, delivered: 23, refused: 1, ..Ledger::default() };
    assert_eq!(rig.settled().await, expected);
    assert_eq!(rig.metric("outhaul_poisoned_samples_total").to_bits(), 1f64.to_bits());
    assert_eq!(rig.buffer.status().quarantine.added_samples_total, 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_never_taken_for_poison() {
    let mut count = 0;
    let server = Server::start(move |_| {
        count += 1;
        if count <= 60 { status("500 Internal Server Error") } else { no_content() }
    });
    let slow = |config: &mut RemoteWrite| config.queue.max_backoff = Duration::from_secs(120);
    let rig = Rig::start_with(server.await, slow, vec![snapshot(4), snapshot(4)]).await;
    assert_eq!(rig.settled().await, delivered(8));
}

#[tokio::test(start_paused = true)]
async fn a_closed_door_is_knocked_at_with_one_series_and_everything_comes_after_it_opens() {
    let mut count = 0;
    let server = Server::start(move |_| {
        count += 1;
        if count <= 3 { status("401 Unauthorized") } else { no_content() }
    });
    let mut rig = Rig::start_with(server.await, |_| {}, vec![snapshot(9), snapshot(9)]).await;
    let mut sizes = Vec::new();
    for _ in 0..5 {
        sizes.push(samples(&rig.server.next().await).len());
    }
    assert_eq!(sizes, [18, 2, 2, 2, 16]);
    assert_eq!(rig.settled().await, delivered(18));
}

#[tokio::test]
async fn refused_samples_that_somebody_wants_again_are_sent_when_nothing_else_waits() {
    let (buffer, directory) = open(1);
    buffer.append(snapshot(3)).await.unwrap();
    let lease = buffer.next(EndpointId(0), crate::buffer::Limits { instants_max: 9, samples_max: 99 }).await.unwrap();
    let verdict = Verdict { fault: Fault::Refused, status: Some(400), text: String::new(), at: NOW };
    buffer.quarantine(EndpointId(0), lease.snapshots, verdict).await;
    assert_eq!(buffer.status().quarantine.files, 1);
    let refused = crate::buffer::Fates { refused: 3, ..crate::buffer::Fates::default() };
    buffer.ack(EndpointId(0), lease.through, refused).await;
    buffer.close().await;
    for file in std::fs::read_dir(directory.path().join("v1/quarantine")).unwrap() {
        let path = file.unwrap().path();
        std::fs::rename(&path, path.with_extension("again")).unwrap();
    }
    let server = Server::replying([]).await;
    let mut rig = Rig::start_on(server, |_| {}, directory);
    assert_eq!(samples(&rig.server.next().await).len(), 3);
    let mut changes = rig.buffer.changes();
    let status = changes.wait_for(|status| status.endpoints[0].ledger.delivered == 3).await.unwrap().clone();
    assert_eq!((status.endpoints[0].ledger, status.quarantine.files), (delivered(3), 0));
}

#[tokio::test(start_paused = true)]
async fn what_comes_within_a_send_interval_is_one_request() {
    let _time = Time::stand_still();
    let gather = |config: &mut RemoteWrite| config.send_interval = Duration::from_secs(60);
    let mut rig = Rig::start_with(Server::replying([]).await, gather, vec![]).await;
    for number in 0..3 {
        rig.append(snapshot_at(second(number), 2)).await;
    }
    assert!(rig.server.requests.try_recv().is_err(), "nothing is sent at once");
    let seen = loop {
        tokio::time::advance(Duration::from_secs(1)).await;
        // A turn of the buffer's thread is a turn for the shipper.
        rig.buffer.load_state("x").await;
        if let Ok(seen) = rig.server.requests.try_recv() {
            break seen;
        }
    };
    assert_eq!(samples(&seen).len(), 6);
    assert_eq!(rig.settled().await, delivered(6));
}

#[tokio::test]
async fn an_unchanged_value_is_left_out_and_told_in_the_ledger() {
    let rig =
        Rig::start_unchanged(Server::replying([]).await, |_| {}, Duration::from_secs(2), vec![snapshot(2); 4]).await;
    let expected = Ledger { appended: 8, delivered: 4, unchanged: 4, ..Ledger::default() };
    assert_eq!(rig.settled().await, expected);
}

#[tokio::test]
async fn what_was_not_acknowledged_is_sent_again_as_it_was_after_a_crash() {
    let small = |config: &mut RemoteWrite| config.queue.max_samples_per_send = 5;
    let mut hung = false;
    let server = Server::start(move |seen| match samples(seen).len() {
        _ if hung => Reply::Stall(Vec::new()),
        2 => {
            hung = true;
            Reply::Stall(Vec::new())
        }
        _ => no_content(),
    });
    let mut rig = Rig::start_with(server.await, small, vec![snapshot(3), snapshot(3), snapshot(1)]).await;
    let before = [rig.server.next().await.body, rig.server.next().await.body];
    // More waits by the time the process is back.
    rig.append(snapshot_at(second(9), 3)).await;
    rig.task.abort();
    let Rig { buffer, _directory: directory, .. } = rig;
    buffer.close().await;
    let mut rig = Rig::start_on(Server::replying([]).await, small, directory);
    let after = [rig.server.next().await.body, rig.server.next().await.body];
    assert!(before == after, "the same requests, byte for byte");
    assert_eq!(rig.settled().await, delivered(10));
}

#[tokio::test]
async fn prometheus_names_for_what_a_queue_does_are_all_there_with_its_labels() {
    let rig = Rig::start_with(Server::start(taken).await, auto, vec![snapshot(1)]).await;
    rig.settled().await;
    let families = rig.registry.gather();
    for (name, value) in [
        ("samples_total", 1.0),
        ("samples_failed_total", 0.0),
        ("samples_retried_total", 0.0),
        ("samples_dropped_total", 0.0),
        ("exemplars_total", 0.0),
        ("exemplars_failed_total", 0.0),
        ("exemplars_retried_total", 0.0),
        ("exemplars_pending", 0.0),
        ("histograms_total", 0.0),
        ("histograms_failed_total", 0.0),
        ("histograms_retried_total", 0.0),
        ("histograms_pending", 0.0),
        ("metadata_total", 0.0),
        ("metadata_failed_total", 0.0),
        ("metadata_retried_total", 0.0),
        ("metadata_bytes_total", 0.0),
        ("enqueue_retries_total", 0.0),
        ("queue_highest_sent_timestamp_seconds", NOW.seconds()),
        ("shards", 1.0),
        ("shards_min", 1.0),
        ("shards_max", 1.0),
        ("shards_desired", 1.0),
        ("shard_capacity", 1.0),
        ("max_samples_per_send", 2000.0),
    ] {
        let name = format!("prometheus_remote_storage_{name}");
        assert_eq!(rig.metric(&name).to_bits(), f64::to_bits(value), "{name}");
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let labels: Vec<&str> =
            family.get_metric()[0].get_label().iter().map(prometheus::proto::LabelPair::name).collect();
        assert!(labels.contains(&"remote_name") && labels.contains(&"url"), "{name}: {labels:?}");
    }
}

/// An answer for a property: what a receiver may do with a request.
#[derive(Clone, Copy, Debug)]
enum Does {
    Take,
    TakeSilently,
    Refuse,
    TooLarge,
    Misunderstand,
    Fail,
    Hang,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_answered_the_ledger_balances_and_each_series_arrives_once_and_in_order(
        script in proptest::collection::vec(
            prop_oneof![
                Just(Does::Take), Just(Does::TakeSilently), Just(Does::Refuse), Just(Does::TooLarge),
                Just(Does::Misunderstand), Just(Does::Fail), Just(Does::Hang),
            ], 0..20),
        sizes in proptest::collection::vec(0_usize..6, 1..6),
        max_samples_per_send in 1_usize..12,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut script = script.into_iter();
            let (sender, mut got) = tokio::sync::mpsc::unbounded_channel();
            let server = Server::start(move |seen| {
                let is_v2 = format(seen).0 == Message::V2;
                let does = script.next().unwrap_or(Does::Take);
                if matches!(does, Does::Take) || (!is_v2 && matches!(does, Does::TakeSilently)) {
                    sender.send(samples(seen)).unwrap();
                }
                match does {
                    Does::Take => taken(seen),
                    Does::TakeSilently => no_content(),
                    Does::Refuse => status("422 Unprocessable Content"),
                    Does::TooLarge => status("413 Content Too Large"),
                    Does::Misunderstand => status("415 Unsupported Media Type"),
                    Does::Fail => status("503 Service Unavailable"),
                    Does::Hang => Reply::Reset,
                }
            });
            let change = |config: &mut RemoteWrite| {
                auto(config);
                config.queue.max_samples_per_send = max_samples_per_send;
            };
            let total: usize = sizes.iter().sum();
            let backlog = sizes.iter().map(|size| snapshot(*size)).collect();
            let rig = Rig::start_with(server.await, change, backlog).await;
            let ledger = if total == 0 { rig.stop().await } else { rig.settled().await };
            assert!(ledger.balances(), "{ledger:?}");
            let mut arrived = Vec::new();
            while let Ok(samples) = got.try_recv() {
                arrived.extend(samples);
            }
            assert_eq!((ledger.appended, ledger.delivered), (total as u64, arrived.len() as u64), "{ledger:?}");
            for ordinal in 0..6 {
                let of = |sample: &&(String, Timestamp, Value)| sample.0 == ordinal.to_string();
                let at: Vec<Timestamp> = arrived.iter().filter(of).map(|sample| sample.1).collect();
                assert!(at.windows(2).all(|pair| pair[0] < pair[1]), "series {ordinal} at {at:?}");
            }
        });
    }
}
