//! Every number of a buffer's status under its metric: two that were exchanged would be seen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;
use crate::buffer::{Buffer, Evicted, IoErrors, Ledger, Operation, Options, Position, SyncPolicy, SyncStats};
use crate::model::Snapshot;

/// By name and the values of its labels.
fn told(registry: &Registry) -> BTreeMap<String, f64> {
    let mut told = BTreeMap::new();
    for family in registry.gather() {
        for metric in family.get_metric() {
            let labels: String = metric.get_label().iter().flat_map(|label| [" ", label.value()]).collect();
            let value = metric.get_counter().get_value() + metric.get_gauge().get_value();
            told.insert(format!("{}{labels}", family.name()), value);
        }
    }
    told
}

/// Nobody but a buffer makes positions.
async fn two_positions() -> (Position, Position) {
    let directory = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(Options {
        path: directory.path().to_owned(),
        max_bytes: 1 << 20,
        max_age: None,
        min_free: Some(0),
        sync: SyncPolicy::Never,
        endpoints: vec!["mimir".to_owned()],
    });
    let buffer = buffer.unwrap();
    let append = async || buffer.append(Snapshot::new(Timestamp::from_millis(1), Vec::new())).await.unwrap().position;
    let positions = (append().await, append().await);
    buffer.close().await;
    positions
}

/// No two numbers of it are the same.
fn status((older, newer): (Position, Position)) -> Status {
    let evicted = Evicted { size: 107, age: 108, memory: 109, disk: 110, purged: 111 };
    let ledger = Ledger {
        appended: 100,
        delivered: 101,
        refused: 102,
        expired: 103,
        unchanged: 104,
        filtered: 105,
        evicted,
        corrupt: 106,
        pending: 112,
    };
    let endpoint = EndpointStatus {
        name: "mimir".to_owned(),
        ledger,
        acked: older,
        segment: Some(older),
        pending_records: 113,
        pending_bytes: 114,
        oldest_pending_at: Some(Timestamp::from_millis(1_700_000_000_000)),
        acked_at: Instant::now().checked_sub(Duration::from_secs(5)),
        requeued: 0,
    };
    Status {
        used_bytes: 200,
        max_bytes: 201,
        free_bytes: Some(202),
        segments: 203,
        newest_segment: Some(newer),
        last_at: Some(Timestamp::from_millis(1_700_000_060_000)),
        append_errors_total: 204,
        append_errors_samples_total: 205,
        io_errors: vec![IoErrors { operation: Operation::Sync, errno: "EIO", count: 206 }],
        evicted_segments_total: 207,
        damage_found_total: 208,
        full_in: Some(Duration::from_secs(209)),
        open_took: Duration::from_secs(210),
        quarantine: QuarantineStatus {
            files: 211,
            bytes: 212,
            added_samples_total: 213,
            dropped_samples_total: 214,
            requeued_samples_total: 215,
        },
        held_in_memory_samples: 216,
        torn_tail_bytes: 217,
        syncs: SyncStats {
            count: 218,
            failed: 219,
            total: Duration::from_secs(220),
            longest: Duration::from_secs(221),
        },
        endpoints: vec![endpoint],
        ..Status::default()
    }
}

#[tokio::test]
async fn every_number_of_the_buffer_is_told_under_its_own_name() {
    let (registry, positions) = (Registry::new(), two_positions().await);
    let metrics = BufferMetrics::new(&registry, vec!["http://m/".to_owned()]);
    metrics.observe(&status(positions));
    metrics.observe(&status(positions));
    let mut told = told(&registry);
    let since_ack = told.remove("outhaul_buffer_last_ack_age_seconds mimir").unwrap();
    assert!((5.0..60.0).contains(&since_ack), "{since_ack}");
    let text: Vec<String> = told.iter().map(|(name, value)| format!("{name} {value}")).collect();
    assert_eq!(text.join("\n"), EXPECTED.trim());
}

#[tokio::test]
async fn each_state_of_the_buffer_is_told_under_its_own_name_and_what_is_not_so_any_more_is_absent() {
    let (registry, positions) = (Registry::new(), two_positions().await);
    let metrics = BufferMetrics::new(&registry, vec!["http://m/".to_owned()]);
    let names = ["outhaul_buffer_degraded", "outhaul_buffer_short_of_disk", "outhaul_buffer_unclean_start"];
    let setters: [fn(&mut Status); 3] =
        [|status| status.degraded = true, |status| status.short_of_disk = true, |status| status.unclean_start = true];
    for (set, name) in setters.into_iter().zip(names) {
        let mut status = status(positions);
        set(&mut status);
        metrics.observe(&status);
        let told = told(&registry);
        assert_eq!(names.map(|other| told[other] > 0.0), names.map(|other| other == name));
    }
    let mut idle = status(positions);
    idle.full_in = None;
    idle.endpoints[0].oldest_pending_at = None;
    metrics.observe(&idle);
    let told = told(&registry);
    assert!(!told.contains_key("outhaul_buffer_estimated_full_seconds"));
    assert!(!told.contains_key("outhaul_buffer_oldest_pending_age_seconds mimir"));
}

const EXPECTED: &str = "
outhaul_buffer_damage_found_total 208
outhaul_buffer_degraded 0
outhaul_buffer_estimated_full_seconds 209
outhaul_buffer_evicted_segments_total 207
outhaul_buffer_free_bytes 202
outhaul_buffer_io_errors_total EIO sync 206
outhaul_buffer_max_bytes 201
outhaul_buffer_memory_samples 216
outhaul_buffer_oldest_pending_age_seconds mimir 60
outhaul_buffer_pending_bytes mimir 114
outhaul_buffer_pending_records mimir 113
outhaul_buffer_quarantine_bytes 212
outhaul_buffer_quarantine_files 211
outhaul_buffer_quarantine_samples_total added 213
outhaul_buffer_quarantine_samples_total dropped 214
outhaul_buffer_quarantine_samples_total requeued 215
outhaul_buffer_recovery_seconds 210
outhaul_buffer_segments 203
outhaul_buffer_short_of_disk 0
outhaul_buffer_sync_failures_total 219
outhaul_buffer_sync_longest_seconds 221
outhaul_buffer_sync_seconds_total 220
outhaul_buffer_syncs_total 218
outhaul_buffer_too_large_samples_total 205
outhaul_buffer_torn_tail_bytes_total 217
outhaul_buffer_unclean_start 0
outhaul_buffer_used_bytes 200
outhaul_ledger_pending_samples mimir 112
outhaul_ledger_samples_total appended mimir 100
outhaul_ledger_samples_total corrupt mimir 106
outhaul_ledger_samples_total delivered mimir 101
outhaul_ledger_samples_total evicted_age mimir 108
outhaul_ledger_samples_total evicted_disk mimir 110
outhaul_ledger_samples_total evicted_memory mimir 109
outhaul_ledger_samples_total evicted_purged mimir 111
outhaul_ledger_samples_total evicted_size mimir 107
outhaul_ledger_samples_total expired mimir 103
outhaul_ledger_samples_total filtered mimir 105
outhaul_ledger_samples_total refused mimir 102
outhaul_ledger_samples_total unchanged mimir 104
prometheus_remote_storage_dropped_samples_total mimir http://m/ 963
prometheus_remote_storage_highest_timestamp_in_seconds 1700000060
prometheus_remote_storage_queue_highest_timestamp_seconds mimir http://m/ 1700000060
prometheus_remote_storage_samples_in_total 100
prometheus_remote_storage_samples_pending mimir http://m/ 112
prometheus_tsdb_wal_segment_current 2
prometheus_wal_watcher_current_segment mimir 1
";
