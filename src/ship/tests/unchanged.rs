//! What `send_unchanged_every` may leave out: only what the receiver has for certain.

use super::table::{auto, samples, second, taken, written};
use super::*;

const AN_HOUR: Duration = Duration::from_secs(3600);

/// Answers the first request so, and takes all others.
async fn first_answered(with: Reply) -> Server {
    let mut first = Some(with);
    Server::start(move |seen| first.take().unwrap_or_else(|| taken(seen))).await
}

#[tokio::test]
async fn a_value_that_the_receiver_says_it_did_not_write_counts_as_refused_and_is_not_left_out_later() {
    for (head, rest) in [("204 No Content", ""), ("400 Bad Request", "out of bounds")] {
        let server = first_answered(answer(head, &written(1), rest)).await;
        let mut rig = Rig::start_unchanged(server, auto, AN_HOUR, vec![snapshot(2)]).await;
        rig.server.next().await;
        let half = Ledger { appended: 2, delivered: 1, refused: 1, ..Ledger::default() };
        assert_eq!(rig.settled().await, half, "{head}");
        assert!((rig.metric("prometheus_remote_storage_samples_failed_total") - 1.0).abs() < f64::EPSILON);
        assert_eq!(rig.buffer.status().quarantine.files, 0, "which of the two it was nobody says");
        rig.append(snapshot_at(second(1), 2)).await;
        assert_eq!(samples(&rig.server.next().await).len(), 2, "{head}");
        assert_eq!(rig.settled().await, Ledger { appended: 4, delivered: 3, refused: 1, ..Ledger::default() });
    }
}

#[tokio::test]
async fn a_value_that_was_too_old_to_be_sent_is_not_left_out_later() {
    let young = |config: &mut RemoteWrite| config.max_sample_age = Some(Duration::from_secs(50));
    let old = snapshot_at(NOW.minus(Duration::from_secs(100)), 2);
    let mut rig = Rig::start_unchanged(Server::replying([]).await, young, AN_HOUR, vec![old]).await;
    assert_eq!(rig.settled().await, Ledger { appended: 2, expired: 2, ..Ledger::default() });
    rig.append(snapshot_at(NOW, 2)).await;
    assert_eq!(samples(&rig.server.next().await).len(), 2);
    assert_eq!(rig.settled().await, Ledger { appended: 4, delivered: 2, expired: 2, ..Ledger::default() });
}
