//! The commands as a user types them.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Output, Stdio};

use crate::bed::{
    Engine, Guarded, Prometheus, PrometheusOptions, Pushgateway, Recorder, eventually, free_port, outhaul,
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(content: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn check(content: &str) -> Output {
    outhaul().args(["check", "--config.file"]).arg(file(content).path()).output().unwrap()
}

/// `outhaul once` with a buffer in `directory`; it must end well.
#[track_caller]
fn once(arguments: &[&str], environment: &[(&str, String)], directory: &tempfile::TempDir) -> Output {
    let mut once = outhaul();
    once.arg("once").args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    let output = once.env("OUTHAUL_BUFFER_PATH", directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    output
}

#[test]
fn help_and_version_answer_and_a_mistake_is_a_usage_error() {
    let help = outhaul().arg("--help").output().unwrap();
    assert!(help.status.success());
    for command in ["run", "once", "check", "demo", "receive", "decode", "buffer"] {
        assert!(text(&help.stdout).contains(&format!("\n  {command}")), "{}", text(&help.stdout));
    }
    let version = outhaul().arg("--version").output().unwrap();
    assert!(text(&version.stdout).starts_with(concat!("outhaul ", env!("CARGO_PKG_VERSION"))));
    assert_eq!(outhaul().arg("rnu").output().unwrap().status.code(), Some(64));
}

#[test]
fn check_says_what_is_wrong_and_where_and_never_a_secret() {
    let good = check("remote_write:\n  - url: https://u:geheim@mimir.example/api/v1/push?token=geheim\n");
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    assert!(!text(&good.stdout).contains("geheim"), "{}", text(&good.stdout));

    let unknown = check("remote_write:\n  - url: https://mimir.example/\n    basic_auht: {password: geheim}\n");
    assert_eq!(unknown.status.code(), Some(64));
    let said = text(&unknown.stderr);
    assert!(said.contains("basic_auht") && said.contains("basic_auth") && !said.contains("geheim"), "{said}");

    let unsupported = check("remote_write:\n  - url: https://mimir.example/\n    sigv4: {region: eu}\n");
    assert_eq!(unsupported.status.code(), Some(64));
    assert!(text(&unsupported.stderr).contains("sigv4"), "{}", text(&unsupported.stderr));
}

#[test]
fn once_delivers_one_snapshot_to_prometheus() {
    let engine = Engine::get("once");
    let name = engine.run("till", &[], &["sleep", "1000"]);
    let prometheus = Prometheus::start(PrometheusOptions::default());
    let directory = tempfile::tempdir().unwrap();
    once(&[], &[("OUTHAUL_REMOTE_WRITE_URL", prometheus.write_url())], &directory);
    assert_eq!(prometheus.value_now(&format!("container_state{{name=\"{name}\"}}")), Some(1.0));
}

#[test]
fn once_that_cannot_deliver_says_so_exits_1_and_keeps_the_samples() {
    let directory = tempfile::tempdir().unwrap();
    let once = |url: String| {
        outhaul()
            .arg("once")
            .env("OUTHAUL_REMOTE_WRITE_URL", url)
            .env("OUTHAUL_BUFFER_PATH", directory.path())
            .output()
            .unwrap()
    };
    let failed = once(format!("http://127.0.0.1:{}/api/v1/write", free_port()));
    assert_eq!(failed.status.code(), Some(1), "{}", text(&failed.stderr));
    assert!(text(&failed.stderr).contains("not delivered"), "{}", text(&failed.stderr));

    let prometheus = Prometheus::start(PrometheusOptions::default());
    let delivered = once(prometheus.write_url());
    assert_eq!(delivered.status.code(), Some(0), "{}", text(&delivered.stderr));
    assert_eq!(prometheus.raw("outhaul_up").len(), 2, "the kept snapshot and the new one");
}

#[test]
fn once_end_marks_every_series_as_ended() {
    let recorder = Recorder::start();
    let directory = tempfile::tempdir().unwrap();
    let receiver = [("OUTHAUL_REMOTE_WRITE_URL", recorder.write_url())];
    once(&[], &receiver, &directory);
    assert_eq!(recorder.stale_marks(&["outhaul_up"]), Vec::<i64>::new());
    once(&["--end"], &receiver, &directory);
    assert_eq!(recorder.stale_marks(&["outhaul_up"]), [recorder.ticks()[1] + 1]);
}

#[test]
fn run_needs_nothing_but_a_url_in_the_environment() {
    let engine = Engine::get("env");
    let name = engine.run("till", &[], &["sleep", "1000"]);
    let prometheus = Prometheus::start(PrometheusOptions::default());
    let directory = tempfile::tempdir().unwrap();
    let mut run = Guarded(
        outhaul()
            .arg("run")
            .env("OUTHAUL_REMOTE_WRITE_URL", prometheus.write_url())
            // Only so that the test may run beside another outhaul and without root.
            .env("OUTHAUL_BUFFER_PATH", directory.path())
            .env("OUTHAUL__WEB__LISTEN_ADDRESS", format!("127.0.0.1:{}", free_port()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    eventually("the container is in Prometheus", || {
        prometheus.value_now(&format!("container_state{{name=\"{name}\"}}")) == Some(1.0)
    });
    run.kill().unwrap();
    run.wait().unwrap();
}

/// A terminal of its own, from `script`, which every Debian has.
#[test]
fn the_key_c_cuts_the_line_and_mends_it_and_no_tick_is_missing() {
    let mut demo = Guarded(
        std::process::Command::new("script")
            .args(["--quiet", "--return", "--command"])
            .arg(format!("stty rows 30 cols 100; {} demo --simulated", env!("CARGO_BIN_EXE_outhaul")))
            .arg("/dev/null")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut keys = demo.stdin.take().unwrap();
    let mut output = demo.stdout.take().unwrap();
    // The screen is drawn anew several times a second, so whatever is on it comes again.
    let mut see = |what: &str, seen: &dyn Fn(&str) -> bool| {
        let mut screen = String::new();
        let mut chunk = [0; 4096];
        let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
        while !seen(&screen) {
            assert!(std::time::Instant::now() < deadline, "never seen: {what}, but {screen:?}");
            let read = output.read(&mut chunk).unwrap();
            assert!(read > 0, "the demo ended before {what}: {screen:?}");
            screen.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
    };
    see("containers", &|screen| screen.contains("postgres") && screen.contains("c cuts the line"));
    keys.write_all(b"c").unwrap();
    see("the cut and a backlog", &|screen| {
        screen.contains("CUT") && screen.contains("backlog") && screen.contains('█')
    });
    keys.write_all(b"c").unwrap();
    see("the backlog gone", &|screen| {
        let newest = screen.rfind("outhaul demo").map_or("", |at| &screen[at..]);
        newest.contains("   up") && newest.contains("  ····················") && newest.contains(" ticks, 0 missing")
    });
    keys.write_all(b"q").unwrap();
    // Read to the end, or the demo could not write its last screen.
    drop(output.read_to_end(&mut Vec::new()));
    assert!(demo.wait().unwrap().success());
}

#[test]
fn once_with_a_pushgateway_leaves_the_snapshot_there() {
    let gateway = Pushgateway::start();
    let directory = tempfile::tempdir().unwrap();
    once(&[], &[("OUTHAUL_PUSHGATEWAY_URL", gateway.url())], &directory);
    assert_eq!(gateway.groups(), 1);
}

#[test]
fn once_without_an_endpoint_prints_the_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let output = once(&[], &[], &directory);
    assert!(text(&output.stdout).contains("\n# TYPE outhaul_up gauge\n"), "{}", text(&output.stdout));
}

#[test]
fn receive_prints_what_once_sends() {
    let port = free_port();
    let mut receiver = Guarded(
        outhaul()
            .args(["receive", "--listen-address", &format!("127.0.0.1:{port}")])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let output = BufReader::new(receiver.stdout.take().unwrap());
    // Read all along: a receiver whose output nobody takes lets its senders wait.
    let found = std::thread::spawn(move || {
        let mut lines = output.lines().map_while(Result::ok);
        let found = lines.find(|line| line.contains("outhaul_up{"));
        lines.for_each(drop);
        found
    });
    eventually("the receiver listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let directory = tempfile::tempdir().unwrap();
    let environment = [
        ("OUTHAUL_REMOTE_WRITE_URL", format!("http://127.0.0.1:{port}/api/v1/write")),
        ("OUTHAUL_INSTANCE", "roof-3".to_owned()),
    ];
    once(&[], &environment, &directory);
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    assert!(found.join().unwrap().unwrap().contains("instance=\"roof-3\""));
}

#[test]
fn the_demo_prints_a_line_a_tick_without_a_terminal_and_ends_cleanly() {
    for docker_host in [None, Some("unix:///nonexistent/docker.sock")] {
        let mut command = outhaul();
        if let Some(host) = docker_host {
            command.env("DOCKER_HOST", host);
        }
        let mut demo = Guarded(
            command.arg("demo").stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().unwrap(),
        );
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
        let first = lines.next().unwrap();
        assert_eq!(first.contains("simulated"), docker_host.is_some(), "{first}");
        let delivered = lines.find(|line| line.contains("backlog 0") && !line.contains("delivered 0")).unwrap();
        assert!(delivered.contains(" 0 missing"), "{delivered}");
        assert!(docker_host.is_none() || !delivered.starts_with("0 containers"), "{delivered}");
        let killed = std::process::Command::new("kill").arg("-INT").arg(demo.id().to_string()).status().unwrap();
        assert!(killed.success());
        drop(lines);
        assert!(demo.wait().unwrap().success());
    }
}
