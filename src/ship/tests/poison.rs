//! Samples on which a receiver fails: when they are given up, and when they are not.

use super::table::{samples, second};
use super::*;

/// What `suspicion` asks for.
const FAILURES_MIN: usize = 10;
const FAILING_FOR_MIN: Duration = Duration::from_secs(600);

/// Waits as short as a test wants them and as long as an outage makes them.
fn patient(config: &mut RemoteWrite) {
    config.queue.min_backoff = Duration::from_secs(1);
    config.queue.max_backoff = Duration::from_secs(120);
}

/// A receiver that fails on what it was sent of `NOW`.
async fn failing_on_now() -> Server {
    Server::start(|seen| {
        let is_poisoned = samples(seen).iter().any(|sample| sample.1 == NOW);
        if is_poisoned { status("500 Internal Server Error") } else { no_content() }
    })
    .await
}

/// Lets time pass whenever the shipper waits, and says what was sent, until `enough` of it was.
async fn sent_until(rig: &mut Rig, enough: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
    let mut sent = Vec::new();
    let mut state = rig.state.clone();
    while !enough(&sent) {
        let wait = tokio::select! {
            biased;
            seen = rig.server.next() => {
                sent.push(seen);
                continue;
            }
            state = state.wait_for(|state| state.retry_in.is_some()) => state.unwrap().retry_in.unwrap(),
        };
        // Timers go by milliseconds.
        tokio::time::advance(wait + Duration::from_millis(2)).await;
        state.wait_for(|state| state.retry_in.is_none()).await.unwrap();
    }
    sent
}

/// Which instants a request is about.
fn instants(seen: &Seen) -> Vec<Timestamp> {
    samples(seen).into_iter().map(|sample| sample.1).collect()
}

#[tokio::test(start_paused = true)]
async fn a_sample_that_fails_alone_is_held_against_the_next_snapshot_and_given_up_when_that_is_taken() {
    let _time = Time::stand_still();
    let mut rig = Rig::start_with(failing_on_now().await, patient, vec![snapshot(1)]).await;
    let first = rig.server.next().await;
    // Only now, so that they are of no lease together.
    for number in 1..=2 {
        rig.append(snapshot_at(second(number), 1)).await;
    }
    let sent = sent_until(&mut rig, |sent| sent.last().is_some_and(|seen| instants(seen).len() == 2)).await;
    let probe = sent.iter().position(|seen| instants(seen) != [NOW]).unwrap();
    let (failed, rest) = sent.split_at(probe);
    // With the very first.
    assert!(failed.len() + 1 >= FAILURES_MIN, "{} failures", failed.len() + 1);
    let failing_for = rest[0].at - first.at;
    assert!(failing_for >= FAILING_FOR_MIN && failing_for < 3 * FAILING_FOR_MIN, "{failing_for:?}");
    // Another one is taken, the poison once more is not, and then everything goes on in its turn.
    let rest: Vec<_> = rest.iter().map(instants).collect();
    assert_eq!(rest, [vec![second(1)], vec![NOW], vec![second(1), second(2)]]);
    let expected = Ledger { appended: 3, delivered: 2, refused: 1, ..Ledger::default() };
    assert_eq!(rig.settled().await, expected);
    assert_eq!(rig.buffer.status().quarantine.added_samples_total, 1);
    assert_eq!(rig.metric("outhaul_poisoned_samples_total").to_bits(), 1f64.to_bits());
}

#[tokio::test(start_paused = true)]
async fn a_sample_that_fails_is_kept_for_as_long_as_there_is_no_other_to_hold_it_against() {
    let _time = Time::stand_still();
    let mut rig = Rig::start_with(failing_on_now().await, patient, vec![snapshot(1)]).await;
    let sent = sent_until(&mut rig, |sent| sent.len() == 5 * FAILURES_MIN).await;
    assert!(sent.iter().all(|seen| instants(seen) == [NOW]));
    let kept = rig.buffer.status().endpoints[0].ledger;
    assert_eq!(kept, Ledger { appended: 1, pending: 1, ..Ledger::default() });

    rig.append(snapshot_at(second(1), 1)).await;
    sent_until(&mut rig, |sent| sent.iter().filter(|seen| instants(seen) == [second(1)]).count() == 2).await;
    let expected = Ledger { appended: 2, delivered: 1, refused: 1, ..Ledger::default() };
    assert_eq!(rig.settled().await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_sample_is_not_given_up_while_the_receiver_fails_on_the_next_one_too() {
    let _time = Time::stand_still();
    let is_down = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let down = Arc::clone(&is_down);
    let server = Server::start(move |_| {
        if down.load(std::sync::atomic::Ordering::Relaxed) { status("500 Internal Server Error") } else { no_content() }
    });
    let mut rig = Rig::start_with(server.await, patient, vec![snapshot(1)]).await;
    rig.server.next().await;
    rig.append(snapshot_at(second(1), 1)).await;
    let probes = |sent: &[Seen]| sent.iter().filter(|seen| instants(seen) == [second(1)]).count();
    let sent = sent_until(&mut rig, |sent| probes(sent) == FAILURES_MIN).await;
    let shortest = sent.windows(2).map(|pair| pair[1].at - pair[0].at).min().unwrap();
    assert!(shortest >= Duration::from_millis(900), "a receiver in trouble is never asked twice at once: {shortest:?}");
    assert!(sent.iter().filter(|seen| instants(seen) == [NOW]).all(|seen| seen.header("Retry-Attempt").is_some()));
    assert_eq!(rig.buffer.status().endpoints[0].ledger, Ledger { appended: 2, pending: 2, ..Ledger::default() });

    is_down.store(false, std::sync::atomic::Ordering::Relaxed);
    sent_until(&mut rig, |sent| probes(sent) > 0).await;
    assert_eq!(rig.settled().await, delivered(2));
}
