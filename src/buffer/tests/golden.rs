//! The format, byte by byte: directories that this version writes exactly so, and that every later version must open.
//!
//! They lie in `tests/fixtures/buffer`. A change of the format that is meant is a new directory beside them: another
//! name in `CURRENT`, and a run with `OUTHAUL_BLESS=1`. What lies there already never changes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::durable::{Ending, META_NAME, Meta};
use super::super::pair::Pair;
use super::super::segment::Mark;
use super::*;
use crate::model::{Exemplar, HistogramParts, HistogramSample, NativeHistogram};

/// The directory that holds what this version writes.
const CURRENT: &str = "codec-2-apart";
const STORE_ID: u128 = 0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/buffer")
}

/// What a small life holds: counters with their beginnings, decimals, pages, odd bits, an end, a histogram.
fn instant(at: u32) -> Snapshot {
    let time = Timestamp::from_millis(1_795_226_400_000 + i64::from(at) * 10_000);
    let target = |name: &str, container: &str| {
        let labels = Labels::builder().with("__name__", name).with("name", container).with("job", "outhaul");
        let metadata =
            Metadata { help: format!("Help of {name}.").into(), ..Metadata::of("", MetricKind::Counter, "") };
        Arc::new(Series::new(
            labels.build().unwrap(),
            Arc::new(Metadata { family: name.to_owned().into(), ..metadata }),
        ))
    };
    let start = Timestamp::from_millis(1_795_226_000_000);
    let mut samples = Vec::new();
    for container in ["web", "db", "till"] {
        let step = f64::from(at);
        samples
            .push(Sample::new(target("cpu_seconds_total", container), Value::new(345.678 + step / 1e9)).started(start));
        samples.push(Sample::new(target("memory_bytes", container), Value::new(4096.0 * (77.0 + f64::from(at % 3)))));
        samples.push(Sample::new(target("state", container), Value::new(1.0)));
        samples.push(Sample::new(target("ratio", container), Value::new(step / 7.0)));
    }
    samples.push(Sample::new(target("odd", "web"), Value::from_bits(0xfff8_0000_0000_1234 + u64::from(at))));
    if at == 7 {
        samples.push(Sample::new(target("state", "gone"), Value::STALE));
    }
    let mut snapshot = Snapshot::new(time, samples);
    if at == 8 {
        let mut parts = HistogramParts::integer(3, 0, 0.5);
        parts.sum = Value::new(1.25);
        let histogram = Arc::new(NativeHistogram::new(parts).unwrap());
        snapshot.histograms.push(HistogramSample { series: target("latency", "web"), histogram, start: Some(start) });
        let labels = Labels::builder().with("trace_id", "4bf92f35").build().unwrap();
        snapshot.exemplars.push(Exemplar {
            series: target("latency", "web"),
            labels,
            value: Value::new(0.25),
            at: time,
        });
    }
    snapshot
}

/// In a directory whose notes are there already, the first position is 1 all the same. Segments are long enough for spacers.
fn fixed(dir: &Path) -> LogOptions {
    LogOptions { ahead: 0, segment_bytes: 64 << 10, ..options(dir, &BOTH) }
}

/// Leaves the same bytes behind each time.
fn live(options: &LogOptions, close: bool) {
    std::fs::create_dir_all(&options.dir).unwrap();
    let meta = Meta {
        store_id: STORE_ID,
        end: Mark::default(),
        last_at: None,
        ending: Ending::Closed,
        in_memory: Vec::new(),
        held: None,
    };
    Pair::load(&RealFs, options.dir.join(META_NAME)).pair.store(&RealFs, &meta.encode()).unwrap();
    let mut log = open(options);
    for at in 1..=20 {
        append(&mut log, &instant(at));
        if at == 5 {
            let lease = log.next(0, ONE).unwrap();
            let verdict = Verdict {
                fault: Fault::Refused,
                status: Some(400),
                text: "out of order sample".to_owned(),
                at: Timestamp::from_millis(1_795_226_450_000),
            };
            log.quarantine(0, &lease.snapshots, &verdict);
            log.ack(0, lease.through.number(), Fates { refused: lease.samples, ..Fates::default() });
        }
        if at == 9 {
            let lease = log.next(1, Limits { instants_max: 4, ..ALL }).unwrap();
            ack(&mut log, 1, &lease);
        }
    }
    log.save_state("docker", b"since=1795226450").unwrap();
    log.next(0, Limits { instants_max: 3, ..ALL }).unwrap();
    if close {
        log.close(Instant::now());
    }
}

/// Every file but the lock, by its path below `dir`.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            all.extend(files(&path).into_iter().map(|(inner, bytes)| (name.join(inner), bytes)));
        } else if name != Path::new("lock") {
            all.insert(name, std::fs::read(&path).unwrap());
        }
    }
    all
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from) {
        let target = to.join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, bytes).unwrap();
    }
}

#[test]
fn this_version_writes_the_format_byte_for_byte() {
    for (name, close) in [("closed", true), ("killed", false)] {
        let dir = tempfile::tempdir().unwrap();
        let options = fixed(dir.path());
        live(&options, close);
        let written = files(&options.dir);
        let fixture = fixtures().join(CURRENT).join(name).join("v1");
        if std::env::var_os("OUTHAUL_BLESS").is_some() && !fixture.exists() {
            copy(&options.dir, &fixture);
        }
        let expected = files(&fixture);
        assert_eq!(written.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        for (path, bytes) in written {
            assert!(bytes == expected[&path], "{name}: {} is written otherwise", path.display());
        }
    }
}

#[test]
fn every_directory_of_an_earlier_day_opens_with_all_that_is_in_it() {
    let mut seen = 0;
    for version in std::fs::read_dir(fixtures()).unwrap() {
        for life in ["closed", "killed"] {
            let dir = tempfile::tempdir().unwrap();
            let options = options(dir.path(), &BOTH);
            copy(&version.as_ref().unwrap().path().join(life).join("v1"), &options.dir);
            let mut log = open(&options);
            check(&log);
            assert_eq!(log.status().unclean_start, life == "killed");
            let resumed = log.next(0, ALL).unwrap();
            assert_eq!(resumed.snapshots, (2..=4).map(instant).collect::<Vec<_>>(), "the request that was under way");
            assert_eq!(drain(&mut log, 0, ALL), (2..=20).map(instant).collect::<Vec<_>>());
            assert_eq!(drain(&mut log, 1, ALL), (5..=20).map(instant).collect::<Vec<_>>());
            check(&log);
            let ledger = ledger(&log, 0);
            assert_eq!((ledger.refused, ledger.corrupt, ledger.pending), (13, 0, 0));
            assert_eq!(log.status().quarantine.files, 1);
            assert_eq!(log.load_state("docker").as_deref(), Some(&b"since=1795226450"[..]));
            seen += 1;
        }
    }
    assert!(seen >= 4);
}
