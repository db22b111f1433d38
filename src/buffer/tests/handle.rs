//! The buffer as the rest of the program sees it: real files, a real thread.

use super::*;

fn public_options(dir: &Path) -> Options {
    Options {
        path: dir.join("buffer"),
        max_bytes: 1 << 20,
        max_age: None,
        min_free: Some(0),
        sync: SyncPolicy::Always,
        endpoints: vec!["a".to_owned(), "b".to_owned()],
    }
}

#[tokio::test]
async fn a_shipper_that_waits_for_changes_finds_what_was_appended() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(public_options(dir.path())).unwrap();
    let mut changes = buffer.changes();
    changes.mark_unchanged();
    assert_eq!(buffer.next(EndpointId(0), ALL).await, None);
    let appended = buffer.append(snapshot(1, 5)).await.unwrap();
    assert!(appended.durable);
    changes.wait_for(|status| status.endpoints[0].ledger.pending == 5).await.unwrap();
    let lease = buffer.next(EndpointId(0), ALL).await.unwrap();
    assert_eq!((lease.through, lease.snapshots), (appended.position, vec![snapshot(1, 5)]));
    buffer.ack(EndpointId(0), lease.through, delivered(5)).await;
    let status = buffer.status();
    assert_eq!(status.endpoints[0].ledger.delivered, 5, "published before the answer");
    assert_eq!(status.endpoints[0].oldest_pending_at, None);
    assert_eq!(status.endpoints[1].oldest_pending_at, Some(Timestamp::from_millis(1000)));
}

#[tokio::test]
async fn reading_alone_wakes_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(public_options(dir.path())).unwrap();
    buffer.append(snapshot(1, 5)).await.unwrap();
    let mut changes = buffer.changes();
    changes.mark_unchanged();
    buffer.next(EndpointId(0), ALL).await.unwrap();
    buffer.ack(EndpointId(0), Position(1), delivered(5)).await;
    changes.mark_unchanged();
    assert_eq!(buffer.next(EndpointId(0), ALL).await, None);
    assert!(!changes.has_changed().unwrap(), "a shipper that asks whenever something changes would never rest");
}

#[tokio::test]
async fn a_closed_buffer_says_so_and_can_be_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(public_options(dir.path())).unwrap();
    assert!(matches!(Buffer::open(public_options(dir.path())), Err(OpenError::InUse { .. })));
    buffer.append(snapshot(1, 5)).await.unwrap();
    buffer.save_state("docker", b"since=7".to_vec()).await.unwrap();
    let other = buffer.clone();
    buffer.close().await;
    assert_eq!(other.append(snapshot(2, 5)).await, Err(AppendError::Closed));
    assert_eq!(other.next(EndpointId(0), ALL).await, None);
    assert!(other.save_state("docker", Vec::new()).await.is_err());
    assert!(other.changes().changed().await.is_ok() || other.changes().has_changed().is_err());

    let buffer = Buffer::open(public_options(dir.path())).unwrap();
    assert!(!buffer.status().unclean_start);
    assert_eq!(buffer.load_state("docker").await, Some(b"since=7".to_vec()));
    assert_eq!(buffer.next(EndpointId(1), ALL).await.unwrap().snapshots, [snapshot(1, 5)]);
    assert_eq!(buffer.next(EndpointId(9), ALL).await, None, "an endpoint that does not exist has nothing");
}

#[tokio::test]
async fn the_directory_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let options = public_options(dir.path());
    let buffer = Buffer::open(options.clone()).unwrap();
    buffer.append(snapshot(1, 5)).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&options.path), 0o700);
    for entry in std::fs::read_dir(options.path.join("v1")).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
}
