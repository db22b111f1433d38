//! The format, byte by byte: directories that this version writes exactly so, and that every later version must open.
//!
//! They lie in `tests/fixtures/buffer`. A change of the format that is meant is a new directory beside them: another
//! name in `CURRENT`, and a run with `OUTHAUL_BLESS=1`. What lies there already never changes: `CHECKSUMS` says what it was.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Once;

use super::super::carry::{self, ExportFile};
use super::super::durable::{Ending, META_NAME, Meta};
use super::super::inspect::{Inspection, Selection};
use super::super::pair::Pair;
use super::super::quarantine;
use super::super::segment::Mark;
use super::*;
use crate::model::{Exemplar, HistogramParts, HistogramSample, NativeHistogram};

/// Beside the directories: size, CRC-32C and path of every file in them, a line each.
const CHECKSUMS: &str = "CHECKSUMS";
/// In a directory: what its closed buffer holds, as a file to carry away.
const EXPORT: &str = "export.ohx";
/// The directory that holds what this version writes.
const CURRENT: &str = "codec-2-apart";
const STORE_ID: u128 = 0x0f1e_2d3c_4b5a_6978_8796_a5b4_c3d2_e1f0;

fn fixtures() -> PathBuf {
    static BLESSED: Once = Once::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/buffer");
    if std::env::var_os("OUTHAUL_BLESS").is_some() {
        BLESSED.call_once(|| bless(&path));
    }
    path
}

/// Adds what this version writes, where it is not there, and the lines of files that have none.
fn bless(fixtures: &Path) {
    let current = fixtures.join(CURRENT);
    if !current.exists() {
        for (path, bytes) in written() {
            let target = current.join(path);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, bytes).unwrap();
        }
    }
    let mut sums = listed(fixtures);
    for (path, sum) in found(fixtures) {
        sums.entry(path).or_insert(sum);
    }
    let lines: Vec<String> = sums.iter().map(|(path, sum)| format!("{sum} {}", path.display())).collect();
    std::fs::write(fixtures.join(CHECKSUMS), lines.join("\n") + "\n").unwrap();
}

/// What the list says, by path.
fn listed(fixtures: &Path) -> BTreeMap<PathBuf, String> {
    let text = std::fs::read_to_string(fixtures.join(CHECKSUMS)).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines.map(|(sum, path)| (path.into(), sum.to_owned())).collect()
}

/// What the list should say.
fn found(fixtures: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = files(fixtures);
    all.remove(Path::new(CHECKSUMS));
    all.into_iter().map(|(path, bytes)| (path, format!("{} {:08x}", bytes.len(), crc32c::crc32c(&bytes)))).collect()
}

/// The directories, each of a version that wrote otherwise than the one before.
fn versions() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Everything this version writes, by its path below a version's directory.
fn written() -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for (name, close) in [("closed", true), ("killed", false)] {
        let dir = tempfile::tempdir().unwrap();
        live(&fixed(dir.path()), close);
        all.extend(files(dir.path()).into_iter().map(|(path, bytes)| (Path::new(name).join(path), bytes)));
        if close {
            all.insert(EXPORT.into(), export(dir.path()));
        }
    }
    all
}

/// What the buffer at `path` holds, as a file to carry away.
fn export(path: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    let inspection = Inspection::open(path).unwrap();
    let now = Timestamp::from_millis(1_795_226_700_000);
    carry::export(&inspection, Selection::default(), now, &mut out, &mut |_, _| {}).unwrap();
    out
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

/// What a receiver said of the first instant.
fn refusal() -> Verdict {
    Verdict {
        fault: Fault::Refused,
        status: Some(400),
        text: "out of order sample".to_owned(),
        at: Timestamp::from_millis(1_795_226_450_000),
    }
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
            log.quarantine(0, &lease.snapshots, &refusal());
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
    let (written, expected) = (written(), files(&fixtures().join(CURRENT)));
    assert_eq!(written.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (path, bytes) in written {
        assert!(bytes == expected[&path], "{} is written otherwise", path.display());
    }
}

#[test]
fn no_fixture_is_another_than_on_the_day_it_was_made() {
    let (listed, found) = (listed(&fixtures()), found(&fixtures()));
    let advice = "What lies in tests/fixtures/buffer never changes: put it back. Where this version is meant to write otherwise, \
                  name a new directory in CURRENT and run these tests with OUTHAUL_BLESS=1";
    for (path, sum) in &listed {
        assert_eq!(found.get(path), Some(sum), "{} is gone or another. {advice}", path.display());
    }
    assert_eq!(found.len(), listed.len(), "a file is not in {CHECKSUMS}. {advice}");
}

#[test]
fn every_export_of_an_earlier_day_is_read_whole() {
    let mut seen = 0;
    for path in versions().iter().map(|version| version.join(EXPORT)).filter(|path| path.exists()) {
        let mut all = Vec::new();
        let export = ExportFile::open(&path).unwrap();
        assert_eq!((export.promised, export.stray_bytes), (Some((20, 262)), 0), "{}", path.display());
        let damaged = export.each(&mut |_, _| {}, &mut |carried| {
            assert_eq!((carried.store_id, carried.position), (STORE_ID, all.len() as u64 + 1));
            all.push(carried.snapshot);
            ControlFlow::Continue(())
        });
        assert_eq!(damaged.unwrap(), 0);
        assert_eq!(all, (1..=20).map(instant).collect::<Vec<_>>(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 1);
}

#[test]
fn every_refusal_of_an_earlier_day_is_read_whole() {
    for version in versions() {
        for life in ["closed", "killed"] {
            let path = version.join(life).join("v1/quarantine/0000000000000001-c1d04330.q");
            let found = quarantine::read(&RealFs, &path).unwrap().unwrap();
            assert_eq!((found.endpoint.as_str(), found.samples, &found.verdict), ("a", 13, &refusal()));
            assert_eq!(found.snapshots, [instant(1)], "{}", path.display());
        }
    }
}

#[test]
fn every_directory_of_an_earlier_day_opens_with_all_that_is_in_it() {
    let mut seen = 0;
    for version in versions() {
        for life in ["closed", "killed"] {
            let dir = tempfile::tempdir().unwrap();
            let options = options(dir.path(), &BOTH);
            copy(&version.join(life).join("v1"), &options.dir);
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
