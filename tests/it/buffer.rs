//! `outhaul buffer` on directories that the real log and the real agent made.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use outhaul::buffer::{Buffer, EndpointId, Fates, Fault, Limits, Options, Verdict};
use outhaul::model::{Labels, Metadata, MetricKind, Sample, Series, Snapshot, Timestamp, Value};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::bed::{Agent, HttpServer, Recorder, buffer_options, eventually, free_port, outhaul};

const FIRST_MILLIS: i64 = 1_795_226_444_035;
const SERIES: i64 = 5;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `outhaul buffer COMMAND --path DIR ARGUMENTS`.
fn buffer(directory: &Path, command: &str, arguments: &[&str]) -> Output {
    let words: Vec<&str> = command.split(' ').collect();
    outhaul()
        .arg("buffer")
        .args(words)
        .arg("--path")
        .arg(directory)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn code(output: &Output, expected: i32) {
    assert_eq!(output.status.code(), Some(expected), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// The answer with `--json`; the command must end with `expected`.
#[track_caller]
fn json(directory: &Path, command: &str, arguments: &[&str], expected: i32) -> Json {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    let output = buffer(directory, command, &arguments);
    code(&output, expected);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

fn options(directory: &Path, endpoints: &[&str]) -> Options {
    Options { max_bytes: 16 << 20, ..buffer_options(directory, endpoints) }
}

fn snapshot(tick: i64) -> Snapshot {
    let metadata = Arc::new(Metadata::of("tick_total", MetricKind::Counter, "Counts."));
    let sample = |index: i64| {
        let labels = Labels::builder().with("__name__", "tick_total").with("index", index.to_string()).build().unwrap();
        Sample::new(Arc::new(Series::new(labels, Arc::clone(&metadata))), Value::new((tick * 7 + index) as f64 / 3.0))
    };
    Snapshot::new(Timestamp::from_millis(FIRST_MILLIS + tick * 1000), (0..SERIES).map(sample).collect())
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// A closed buffer with `ticks` snapshots that nobody has taken.
fn filled(endpoints: &[&str], ticks: std::ops::Range<i64>) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), endpoints, ticks);
    directory
}

fn fill(directory: &Path, endpoints: &[&str], ticks: std::ops::Range<i64>) {
    run(async {
        let buffer = Buffer::open(options(directory, endpoints)).unwrap();
        for tick in ticks {
            buffer.append(snapshot(tick)).await.unwrap();
        }
        buffer.close().await;
    });
}

fn empty(endpoints: &[&str]) -> TempDir {
    filled(endpoints, 0..0)
}

fn expected(ticks: std::ops::Range<i64>) -> BTreeMap<(String, i64), String> {
    let samples = ticks.flat_map(|tick| {
        let snapshot = snapshot(tick);
        let at = snapshot.at.millis();
        snapshot.samples.into_iter().map(move |sample| {
            let index = sample.series.labels().get("index").unwrap().to_owned();
            ((index, at), sample.value.number().to_string())
        })
    });
    samples.collect()
}

/// What a recorder got, in the same form.
fn received(recorder: &Recorder) -> BTreeMap<(String, i64), String> {
    let mut all = BTreeMap::new();
    for (series, samples) in recorder.samples() {
        let index = series.split("index=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        for (at, value) in samples {
            all.insert((index.clone(), at), value.parse::<f64>().unwrap().to_string());
        }
    }
    all
}

fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(directory.join("v1")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    files.sort();
    files
}

#[test]
fn status_and_ls_tell_what_the_log_itself_tells() {
    let directory = filled(&["one", "two"], 0..100);
    run(async {
        let log = Buffer::open(options(directory.path(), &["one", "two"])).unwrap();
        let lease = log.next(EndpointId(0), Limits { instants_max: 30, samples_max: usize::MAX }).await.unwrap();
        log.ack(EndpointId(0), lease.through, Fates { delivered: lease.samples, ..Fates::default() }).await;
        log.close().await;
    });
    let status = json(directory.path(), "status", &[], 0);
    let known = run(async {
        let log = Buffer::open(options(directory.path(), &["one", "two"])).unwrap();
        log.status()
    });
    for (told, known) in status["endpoints"].as_array().unwrap().iter().zip(&known.endpoints) {
        assert_eq!(told["name"], known.name);
        assert_eq!(told["ledger"]["pending"], known.ledger.pending);
        assert_eq!(told["ledger"]["delivered"], known.ledger.delivered);
        assert_eq!(told["acked_position"], known.acked.number());
        assert_eq!(told["oldest_pending_at_ms"], known.oldest_pending_at.unwrap().millis());
        assert_eq!(told["pending_records"], known.pending_records);
    }
    assert_eq!((status["holder"]["state"].as_str(), status["closed"].as_bool()), (Some("free"), Some(true)));
    let ls = json(directory.path(), "ls", &[], 0);
    assert_eq!(ls["segments"][0]["samples"], 100 * SERIES);
    assert_eq!(ls["segments"][0]["state"], "sealed");
    assert!(ls["others"].as_array().unwrap().iter().all(|other| other["kind"] != "unknown"), "{ls}");
}

#[test]
fn a_buffer_that_is_not_there_is_73_and_a_mistake_is_64() {
    let directory = tempfile::tempdir().unwrap();
    for command in ["status", "ls", "verify", "dump", "quarantine ls", "drain", "purge --all --yes"] {
        let output = buffer(directory.path(), command, &[]);
        code(&output, 73);
        assert!(text(&output.stderr).contains("no buffer"), "{}", text(&output.stderr));
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "looking makes nothing");
    let there = filled(&["one"], 0..1);
    for command in
        ["dump --since yesterday", "dump --seq 7..3", "purge", "purge --all --endpoint none", "purge --all", "drain"]
    {
        code(&buffer(there.path(), command, &[]), 64);
    }
    code(&buffer(there.path(), "export --purge", &["/proc/no-file-can-be-here"]), 1);
    assert_eq!(json(there.path(), "status", &[], 0)["closed"], true, "what does nothing leaves the buffer as it was");
}

#[test]
fn a_buffer_that_may_not_be_looked_into_is_not_said_to_be_missing() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::process::CommandExt as _;

    let directory = filled(&["one"], 0..1);
    let uid = std::fs::metadata(directory.path()).unwrap().uid();
    let mut status = outhaul();
    status.args(["buffer", "status", "--path"]).arg(directory.path());
    if uid == 0 {
        status.uid(65534);
    } else {
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    let output = match status.output() {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: the program lies where only root may start it");
            return;
        }
        output => output.unwrap(),
    };
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    code(&output, 73);
    let told = text(&output.stderr);
    assert!(told.contains("no permission") && told.contains(&format!("(uid {uid})")), "{told}");
}

#[test]
fn any_flipped_bit_in_a_segment_is_found_and_costs_at_most_one_snapshot() {
    let directory = filled(&["one"], 0..40);
    code(&buffer(directory.path(), "verify", &[]), 0);
    let path = segments(directory.path()).remove(0);
    let whole = std::fs::read(&path).unwrap();
    for place in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        std::fs::write(&path, &bytes).unwrap();
        let verdict = json(directory.path(), "verify", &[], 1);
        let lost = verdict["lost_samples"].as_i64().unwrap();
        assert!(lost == 0 || lost == SERIES, "byte {place}: {verdict}");
        let found = verdict["damages"].as_array().unwrap().iter().any(|damage| {
            let (offset, bytes) = (damage["offset"].as_u64().unwrap(), damage["bytes"].as_u64().unwrap());
            (offset..offset + bytes).contains(&(place as u64))
        });
        assert!(found, "byte {place}: {verdict}");
        assert_eq!(verdict["samples"].as_i64().unwrap() + lost, 40 * SERIES, "byte {place}: {verdict}");
    }
}

#[test]
fn a_segment_that_is_cut_off_or_gone_is_damage_with_its_cost() {
    let directory = filled(&["one"], 0..40);
    fill(directory.path(), &["one"], 40..80);
    let files = segments(directory.path());
    let whole = std::fs::read(&files[0]).unwrap();
    for file in &files {
        let whole = std::fs::read(file).unwrap();
        std::fs::write(file, &whole[..whole.len() / 2]).unwrap();
        let verdict = json(directory.path(), "verify", &[], 1);
        let (kept, lost) = (verdict["samples"].as_i64().unwrap(), verdict["lost_samples"].as_i64().unwrap());
        assert_eq!(kept + lost, 80 * SERIES, "{verdict}");
        assert!(lost > 0, "{verdict}");
        std::fs::write(file, &whole).unwrap();
    }
    code(&buffer(directory.path(), "verify", &[]), 0);
    std::fs::remove_file(&files[1]).unwrap();
    assert_eq!(json(directory.path(), "verify", &[], 1)["lost_samples"], 40 * SERIES);
    std::fs::write(&files[0], whole).unwrap();
}

#[test]
fn dump_gives_every_sample_and_only_those_that_are_wanted() {
    let directory = filled(&["one"], 0..60);
    let lines = |arguments: &[&str]| {
        let output = buffer(directory.path(), "dump", arguments);
        code(&output, 0);
        text(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let all: BTreeMap<_, _> = lines(&[])
        .iter()
        .map(|text| {
            let line: Json = serde_json::from_str(text).unwrap();
            let index = line["labels"]["index"].as_str().unwrap().to_owned();
            // The text itself: serde_json does not read every number to its last bit.
            let value = text.split("\"value\":").nth(1).unwrap().trim_end_matches('}');
            ((index, line["at_ms"].as_i64().unwrap()), value.parse::<f64>().unwrap().to_string())
        })
        .collect();
    assert_eq!(all, expected(0..60));
    assert_eq!(lines(&["--seq", "11..20"]).len(), 10 * 5);
    assert_eq!(lines(&["--series", "tick_*{index=\"3\"}"]).len(), 60);
    assert_eq!(lines(&["--series", "{index!=\"3\"}"]).len(), 60 * 4);
    let (since, until) = (FIRST_MILLIS + 10_000, Timestamp::from_millis(FIRST_MILLIS + 19_000).to_string());
    assert_eq!(lines(&["--since", &since.to_string(), "--until", &until]).len(), 10 * 5);
    let raw = buffer(directory.path(), "dump --format raw --seq 5", &[]).stdout;
    let file = std::fs::read(&segments(directory.path())[0]).unwrap();
    assert!(!raw.is_empty() && file.windows(raw.len()).any(|window| window == raw), "the bytes stand in the file");
}

#[test]
fn promtool_makes_blocks_of_a_dump_that_hold_every_sample_at_its_millisecond() {
    let directory = filled(&["one"], 0..50);
    let output = buffer(directory.path(), "dump --format prom", &[]);
    code(&output, 0);
    let (file, blocks) = (directory.path().join("dump.om"), directory.path().join("blocks"));
    std::fs::write(&file, &output.stdout).unwrap();
    let promtool = |arguments: &[&str]| {
        let output = Command::new("promtool").arg("tsdb").args(arguments).output().expect("promtool; see tests/run");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    promtool(&["create-blocks-from", "openmetrics", file.to_str().unwrap(), blocks.to_str().unwrap()]);
    // promtool wants the directory of a whole database.
    std::fs::create_dir(blocks.join("wal")).unwrap();
    let dumped = promtool(&["dump", blocks.to_str().unwrap()]);
    let samples: BTreeMap<_, _> = dumped
        .lines()
        .filter(|line| line.contains("tick_total"))
        .map(|line| {
            let index = line.split("index=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
            let mut words = line.rsplit(' ');
            let at = words.next().unwrap().parse::<i64>().unwrap();
            ((index, at), words.next().unwrap().parse::<f64>().unwrap().to_string())
        })
        .collect();
    assert_eq!(samples, expected(0..50));
}

#[test]
fn what_is_exported_imported_and_drained_arrives_whole_and_once() {
    let source = filled(&["one"], 0..300);
    let hub = empty(&["hub"]);
    let file = source.path().join("till.ohx");
    let file = file.to_str().unwrap();
    assert_eq!(json(source.path(), "export", &[file], 0)["samples"], 300 * SERIES);
    let imported = json(hub.path(), "import --max-bytes 16MiB", &[file], 0);
    assert_eq!((&imported["samples"], &imported["complete"]), (&Json::from(300 * SERIES), &Json::from(true)));
    // Again, and what came since: an export of everything overlaps.
    fill(source.path(), &["one"], 300..350);
    json(source.path(), "export --overwrite", &[file], 0);
    let more = json(hub.path(), "import --max-bytes 16MiB", &[file], 0);
    assert_eq!((&more["known_snapshots"], &more["snapshots"]), (&Json::from(300), &Json::from(50)));
    let recorder = Recorder::start();
    let drained = json(hub.path(), "drain", &["--url", &recorder.write_url()], 0);
    assert_eq!(drained["endpoints"][0]["delivered"], 350 * SERIES, "not one twice");
    assert_eq!(received(&recorder), expected(0..350));
    assert_eq!(json(hub.path(), "status", &[], 0)["endpoints"][0]["ledger"]["pending"], 0);
}

#[test]
fn an_import_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    let source = filled(&["one"], 0..2000);
    let hub = empty(&["hub"]);
    let file = source.path().join("till.ohx");
    code(&buffer(source.path(), "export", &[file.to_str().unwrap()]), 0);
    let mut kills = 0;
    for patience_millis in (5..).step_by(7) {
        let mut import = outhaul();
        import.args(["buffer", "import", "--max-bytes", "16MiB", "--path"]).arg(hub.path()).arg(&file);
        let mut import = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Not to wait for anything: to kill it at another place each time.
        std::thread::sleep(Duration::from_millis(patience_millis));
        if let Some(status) = import.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            break;
        }
        import.kill().unwrap();
        import.wait().unwrap();
        kills += 1;
    }
    assert!(kills > 1);
    let status = json(hub.path(), "status", &[], 0);
    assert_eq!(status["endpoints"][0]["ledger"]["pending"], 2000 * SERIES, "after {kills} kills");
    let dumped = text(&buffer(hub.path(), "dump --series {index=\"0\"}", &[]).stdout);
    let instants: std::collections::BTreeSet<_> =
        dumped.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()["at_ms"].as_i64().unwrap()).collect();
    assert_eq!(instants.len(), 2000);
}

#[test]
fn a_damaged_or_cut_off_export_gives_what_it_holds_and_exit_1() {
    let source = filled(&["one"], 0..300);
    let file = source.path().join("till.ohx");
    code(&buffer(source.path(), "export", &[file.to_str().unwrap()]), 0);
    let whole = std::fs::read(&file).unwrap();
    code(&buffer(source.path(), "export", &[file.to_str().unwrap()]), 64);
    assert_eq!(std::fs::read(&file).unwrap(), whole, "what was exported before is not replaced");
    code(&buffer(source.path(), "export --overwrite", &[file.to_str().unwrap()]), 0);
    let import = |bytes: &[u8], expected: i32| {
        let hub = empty(&["hub"]);
        std::fs::write(&file, bytes).unwrap();
        let output = buffer(hub.path(), "import --max-bytes 16MiB --json", &[file.to_str().unwrap()]);
        code(&output, expected);
        let told: Json = serde_json::from_slice(&output.stdout).unwrap();
        told["snapshots"].as_u64().unwrap()
    };
    assert_eq!(import(&whole, 0), 300);
    let half = import(&whole[..whole.len() / 2], 1);
    assert!((100..250).contains(&half), "{half} snapshots of half a file");
    for place in (0..whole.len()).step_by(211) {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x10;
        let hub = empty(&["hub"]);
        std::fs::write(&file, &bytes).unwrap();
        let output = buffer(hub.path(), "import --max-bytes 16MiB --json", &[file.to_str().unwrap()]);
        let told: Json = serde_json::from_slice(&output.stdout).unwrap();
        assert!(told["snapshots"].as_u64().unwrap() >= 299, "byte {place}: {told}");
    }
    let hub = empty(&["hub"]);
    std::fs::write(&file, b"something else altogether, and long enough to be looked at by anybody who wants a block")
        .unwrap();
    code(&buffer(hub.path(), "import --max-bytes 16MiB", &[file.to_str().unwrap()]), 1);
}

#[test]
fn an_import_evicts_nothing_and_goes_on_when_there_is_room() {
    let source = filled(&["one"], 0..3000);
    let file = source.path().join("till.ohx");
    code(&buffer(source.path(), "export", &[file.to_str().unwrap()]), 0);
    let hub = empty(&["hub"]);
    let full = json(hub.path(), "import --max-bytes 320KiB", &[file.to_str().unwrap()], 1);
    let taken = full["snapshots"].as_u64().unwrap();
    assert!(taken > 0 && taken < 3000, "{full}");
    let status = json(hub.path(), "status", &[], 0);
    assert_eq!(status["endpoints"][0]["ledger"]["evicted"]["size"], 0);
    let rest = json(hub.path(), "import --max-bytes 16MiB", &[file.to_str().unwrap()], 0);
    assert_eq!(rest["snapshots"].as_u64().unwrap() + taken, 3000);
}

#[test]
fn an_import_into_a_buffer_that_is_beyond_its_bound_takes_nothing_and_costs_nothing() {
    let source = filled(&["one"], 0..10);
    let file = source.path().join("till.ohx");
    code(&buffer(source.path(), "export", &[file.to_str().unwrap()]), 0);
    // Three files: the oldest could go.
    let hub = filled(&["hub"], 0..1000);
    fill(hub.path(), &["hub"], 1000..2000);
    fill(hub.path(), &["hub"], 2000..2001);
    let before = json(hub.path(), "status", &[], 0);
    assert!(before["used_bytes"].as_u64() > Some(64 << 10), "{before}");
    let full = json(hub.path(), "import --max-bytes 64KiB", &[file.to_str().unwrap()], 1);
    assert_eq!(full["snapshots"], 0);
    assert!(full["stopped"].as_str().unwrap().contains("there is no room"), "{full}");
    let after = json(hub.path(), "status", &[], 0);
    assert_eq!(after["endpoints"][0]["ledger"], before["endpoints"][0]["ledger"], "nothing was evicted");
    json(hub.path(), "import --max-bytes 16MiB", &[file.to_str().unwrap()], 0);
    assert_eq!(json(hub.path(), "status", &[], 0)["endpoints"][0]["ledger"]["pending"], 2011 * SERIES);
}

#[test]
fn what_root_imports_belongs_to_the_user_whose_agent_will_send_it() {
    use std::os::unix::fs::{MetadataExt as _, chown};
    const NOBODY: u32 = 65534;

    fn tree(directory: &Path) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let below = entries.flat_map(|path| if path.is_dir() { tree(&path) } else { vec![path] });
        below.chain([directory.to_owned()]).collect()
    }

    let source = filled(&["one"], 0..10);
    let file = source.path().join("till.ohx");
    code(&buffer(source.path(), "export", &[file.to_str().unwrap()]), 0);
    // A buffer that an agent has used, and one that it never has.
    for hub in [empty(&["hub"]), tempfile::tempdir().unwrap()] {
        for path in tree(hub.path()) {
            if chown(&path, Some(NOBODY), Some(NOBODY)).is_err() {
                eprintln!("skipped: only root can give files away");
                return;
            }
        }
        let config = source.path().join("hub.yml");
        let place = hub.path().display();
        std::fs::write(
            &config,
            format!("remote_write: [{{name: hub, url: 'http://h/'}}]\nbuffer: {{path: {place}}}\n"),
        )
        .unwrap();
        let import = outhaul().args(["buffer", "import", "--config.file"]).arg(&config).arg(&file).output().unwrap();
        code(&import, 0);
        assert_eq!(segments(hub.path()).len(), 1);
        for path in tree(hub.path()) {
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{}", path.display());
        }
    }
}

#[test]
fn purged_samples_are_counted_as_purged_and_the_account_balances() {
    let directory = filled(&["one", "two"], 0..100);
    let until = (FIRST_MILLIS + 30_000).to_string();
    let purged = json(directory.path(), "purge --yes", &["--before", &until, "--endpoint", "one"], 0);
    assert_eq!(purged["endpoints"][0]["purged_samples"], 30 * SERIES);
    let ledger = |index: usize| json(directory.path(), "status", &[], 0)["endpoints"][index]["ledger"].clone();
    assert_eq!(
        (&ledger(0)["evicted"]["purged"], &ledger(0)["pending"]),
        (&(30 * SERIES).into(), &(70 * SERIES).into())
    );
    assert_eq!(ledger(1)["pending"], 100 * SERIES, "the other endpoint keeps everything");
    code(&buffer(directory.path(), "purge --all --yes", &[]), 0);
    assert_eq!((&ledger(1)["evicted"]["purged"], &ledger(1)["pending"]), (&(100 * SERIES).into(), &0.into()));
    assert!(segments(directory.path()).is_empty());
    let known = run(async { Buffer::open(options(directory.path(), &["one", "two"])).unwrap().status() });
    assert!(known.endpoints.iter().all(|endpoint| endpoint.ledger.balances()));
}

#[test]
fn export_with_purge_leaves_what_came_for_others() {
    let directory = filled(&["one", "two"], 0..50);
    let file = directory.path().join("x.ohx");
    json(directory.path(), "export --endpoint one --purge", &[file.to_str().unwrap()], 0);
    let status = json(directory.path(), "status", &[], 0);
    assert_eq!(status["endpoints"][0]["ledger"]["pending"], 0);
    assert_eq!(status["endpoints"][1]["ledger"]["pending"], 50 * SERIES);
}

#[test]
fn drain_that_reaches_nobody_keeps_everything_and_exits_1() {
    let directory = filled(&["one"], 0..10);
    let url = format!("http://127.0.0.1:{}/api/v1/write", free_port());
    let told = json(directory.path(), "drain --timeout 1s", &["--url", &url], 1);
    assert_eq!((&told["end"], &told["endpoints"][0]["pending"]), (&"gave_up".into(), &(10 * SERIES).into()));
}

#[test]
fn what_drain_learns_of_another_receiver_is_not_kept_for_the_endpoints_own() {
    let directory = filled(&["one"], 0..10);
    let recorder = Recorder::start();
    let config = directory.path().join("one.yml");
    let (place, url) = (directory.path().display(), recorder.write_url());
    std::fs::write(&config, format!("remote_write: [{{name: one, url: '{url}'}}]\nbuffer: {{path: {place}}}\n"))
        .unwrap();
    let drain = |url: &[&str]| {
        let drained = outhaul().args(["buffer", "drain", "--config.file"]).arg(&config).args(url).output().unwrap();
        code(&drained, 0);
        let files = std::fs::read_dir(directory.path().join("v1")).unwrap();
        files.filter(|file| file.as_ref().unwrap().file_name().to_str().unwrap().starts_with("state-ship-")).count()
    };
    assert_eq!(drain(&["--url", &url]), 0);
    fill(directory.path(), &["one"], 10..20);
    assert!(drain(&[]) > 0, "what is learnt of its own is kept");
    assert_eq!(received(&recorder), expected(0..20));
}

#[test]
fn draining_to_a_receiver_that_refuses_everything_does_not_make_the_buffer_larger_and_evicts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    run(async {
        // What one has settled stays on disk for the other.
        let log = Buffer::open(options(directory.path(), &["a", "b"])).unwrap();
        for tick in 0..NOISY_TICKS {
            log.append(noise(tick)).await.unwrap();
        }
        log.close().await;
    });
    let used_bytes = || json(directory.path(), "status", &[], 0)["used_bytes"].as_u64().unwrap();
    let before = used_bytes();
    assert!(before > 900 << 10, "{before}");
    let refusing = HttpServer::start(axum::Router::new().fallback(|| async { StatusCode::BAD_REQUEST }));
    let drained = json(directory.path(), "drain", &["--endpoint", "a", "--url", &refusing.url("/api/v1/write")], 1);
    let told = &drained["endpoints"][0];
    assert_eq!((&told["refused"], &told["evicted"]), (&(NOISY_TICKS * NOISY_SERIES).into(), &0.into()));
    let used = used_bytes();
    assert!(used <= before.max(1 << 20), "{used} of {before}");
}

const NOISY_TICKS: u64 = 24;
const NOISY_SERIES: u64 = 4000;

/// Samples that nothing makes smaller.
fn noise(tick: u64) -> Snapshot {
    let metadata = Arc::new(Metadata::of("noise", MetricKind::Gauge, "Is not to be guessed."));
    let sample = |index: u64| {
        let labels = Labels::builder().with("__name__", "noise").with("index", index.to_string()).build().unwrap();
        let bits = (tick * NOISY_SERIES + index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 4;
        Sample::new(Arc::new(Series::new(labels, Arc::clone(&metadata))), Value::new(f64::from_bits(bits)))
    };
    let at = Timestamp::from_millis(FIRST_MILLIS + i64::try_from(tick).unwrap() * 1000);
    Snapshot::new(at, (0..NOISY_SERIES).map(sample).collect())
}

#[test]
fn the_quarantine_is_listed_shown_and_sent_again() {
    let directory = filled(&["one"], 0..3);
    run(async {
        let log = Buffer::open(options(directory.path(), &["one"])).unwrap();
        let lease = log.next(EndpointId(0), Limits { instants_max: 2, samples_max: usize::MAX }).await.unwrap();
        let verdict = Verdict {
            fault: Fault::Refused,
            status: Some(400),
            text: "out of bounds".to_owned(),
            at: Timestamp::from_millis(FIRST_MILLIS),
        };
        log.quarantine(EndpointId(0), lease.snapshots, verdict).await;
        log.ack(EndpointId(0), lease.through, Fates { refused: lease.samples, ..Fates::default() }).await;
        log.close().await;
    });
    let file = json(directory.path(), "quarantine ls", &[], 0)["files"][0].clone();
    assert_eq!(
        (&file["status"], &file["samples"], &file["state"]),
        (&400.into(), &(2 * SERIES).into(), &"resting".into())
    );
    assert_eq!(file["text"], "out of bounds");
    let id = file["id"].as_str().unwrap();
    let shown = json(directory.path(), "quarantine show", &[id], 0);
    assert_eq!(i64::try_from(shown["contents"].as_array().unwrap().len()), Ok(2 * SERIES));
    code(&buffer(directory.path(), "quarantine show", &["zzz"]), 1);
    assert_eq!(json(directory.path(), "quarantine requeue", &[id], 0)["samples"], 2 * SERIES);
    assert_eq!(json(directory.path(), "quarantine ls", &[], 0)["files"][0]["state"], "requeued");
    let requeued = run(async {
        let log = Buffer::open(options(directory.path(), &["one"])).unwrap();
        log.requeued(EndpointId(0)).await
    });
    assert_eq!(i64::try_from(requeued.unwrap().samples), Ok(2 * SERIES));
}

#[test]
fn a_running_agents_buffer_is_looked_at_without_harm_and_changed_by_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let dead = format!("http://127.0.0.1:{}/api/v1/write", free_port());
    let config = format!(
        "global: {{scrape_interval: 1s}}\nremote_write: [{{name: one, url: \"{dead}\"}}]\nbuffer: {{path: {}}}\n",
        directory.path().display()
    );
    let mut agent = Agent::start(&config);
    eventually("the agent has samples", || {
        let status = buffer(directory.path(), "status", &["--json"]);
        let pending = serde_json::from_slice::<Json>(&status.stdout).ok();
        pending.is_some_and(|status| status["endpoints"][0]["ledger"]["pending"].as_u64() > Some(0))
    });
    let mut seen = 0;
    eventually("records come while it is verified", || {
        let verdict = json(directory.path(), "verify", &[], 0);
        seen = seen.max(verdict["snapshots"].as_u64().unwrap());
        seen >= 4
    });
    assert_eq!(json(directory.path(), "status", &[], 0)["holder"]["state"], "in_use");
    assert_eq!(json(directory.path(), "ls", &[], 0)["segments"][0]["state"], "open");
    code(&buffer(directory.path(), "dump", &[]), 0);
    let file = directory.path().join("x.ohx");
    code(&buffer(directory.path(), "export", &[file.to_str().unwrap()]), 0);
    for command in ["purge --all --yes", "drain --url http://127.0.0.1:1/", "import --max-bytes 16MiB"] {
        let arguments: &[&str] = if command.starts_with("import") { &[file.to_str().unwrap()] } else { &[] };
        let output = buffer(directory.path(), command, arguments);
        code(&output, 73);
        assert!(text(&output.stderr).contains("in use by process"), "{}", text(&output.stderr));
    }
    agent.terminate();
    assert_eq!(json(directory.path(), "status", &[], 0)["holder"]["state"], "free");
    code(&buffer(directory.path(), "verify", &[]), 0);
}
