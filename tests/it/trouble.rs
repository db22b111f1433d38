//! What a bad day brings: a clear message, no panic, nothing lost.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::bed::{Agent, Engine, Guarded, Recorder, eventually, free_port, get, outhaul};

/// An HTTP server that answers every request with what `answer` makes of its number, byte for byte, and closes.
fn scripted(answer: impl Fn(usize) -> Vec<u8> + Send + 'static) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    // Ends with the test process: it blocks in accept, which nothing here can interrupt.
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            if read_request(&mut stream).is_some() {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                drop(stream.write_all(&answer(number)));
            }
        }
    });
    (port, requests)
}

/// Reads a request to its end; `None` where the client left.
fn read_request(stream: &mut TcpStream) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(0, |value| value.trim().parse().unwrap());
        if bytes.len() >= end + 4 + length {
            return Some(());
        }
    }
}

fn status(line: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
}

fn agent(port: u16, more: &str) -> Agent {
    Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\n\
         remote_write: [{{name: e, url: \"http://127.0.0.1:{port}/write\", remote_timeout: 2s, queue_config: {{min_backoff: 100ms, max_backoff: 300ms}}}}]\n{more}"
    ))
}

fn fate(agent: &Agent, fate: &str) -> f64 {
    agent.metric("outhaul_ledger_samples_total", &[("remote_name", "e"), ("fate", fate)]).unwrap_or(0.0)
}

#[test]
fn refused_credentials_are_said_loudly_and_lose_nothing() {
    let (port, requests) = scripted(|_| status("401 Unauthorized"));
    let mut agent = agent(port, "");
    eventually("the receiver was asked", || requests.load(Ordering::Relaxed) > 0);
    eventually("it is said", || agent.log().contains("401") && agent.log().contains("level=warn"));
    eventually("samples are kept", || {
        agent.metric("outhaul_ledger_pending_samples", &[("remote_name", "e")]) > Some(50.0)
    });
    assert_eq!(fate(&agent, "refused"), 0.0);
    agent.terminate();
}

#[test]
fn a_receiver_that_answers_garbage_stalls_or_talks_too_much_loses_nothing_and_is_survived() {
    let (port, _) = scripted(|number| match number {
        0 => b"\x00\xffnonsense\r\n\r\n".to_vec(),
        1 => [b"HTTP/1.1 500 Oops\r\ncontent-length: 1000000\r\n\r\n".to_vec(), vec![b'x'; 1_000_000]].concat(),
        2 => Vec::new(),
        3 => b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\n<html".to_vec(),
        _ => status("204 No Content"),
    });
    let mut agent = agent(port, "");
    eventually("samples are delivered in the end", || fate(&agent, "delivered") > 0.0);
    assert_eq!(fate(&agent, "refused"), 0.0);
    assert!(agent.log().lines().all(|line| line.len() < 3000), "a megabyte of error text stays out of the log");
    agent.terminate();
}

#[test]
fn a_refused_request_costs_its_own_samples_and_nothing_after_them() {
    // To a body of 1.0: after one of 2.0 a 400 asks for the other version first.
    let answer = |number| status(if number == 1 { "400 Bad Request" } else { "204 No Content" });
    let (port, _) = scripted(answer);
    let mut agent = agent(port, "");
    eventually("later samples are delivered", || fate(&agent, "delivered") > 0.0 && fate(&agent, "refused") > 0.0);
    assert!(fate(&agent, "refused") > 0.0);
    assert!(agent.log().contains("refused"), "{}", agent.log());
    agent.assert_balanced("e");
    agent.terminate();
}

#[test]
fn a_dead_endpoint_does_not_stop_another_one() {
    let recorder = Recorder::start();
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\n\
         remote_write: [{{name: dead, url: \"http://127.0.0.1:{}/\"}}, {{name: alive, url: \"{}\"}}]\n",
        free_port(),
        recorder.write_url(),
    ));
    recorder.wait_for_ticks(3);
    assert_eq!(agent.metric("outhaul_endpoint_up", &[("remote_name", "dead")]), Some(0.0));
    agent.terminate();
}

#[test]
fn an_engine_that_is_not_there_is_a_source_that_is_down_and_comes_back() {
    let recorder = Recorder::start();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\n\
         docker: [{{host: \"unix://{}\"}}]\n\
         remote_write: [{{name: e, url: \"{}\"}}]\n",
        socket.display(),
        recorder.write_url(),
    ));
    recorder.wait_for_ticks(2);
    assert_eq!(agent.metric("outhaul_source_up", &[("source", "docker")]), Some(0.0));
    assert!(agent.log().contains("docker.sock"), "{}", agent.log());

    // A proxy in the place of the socket: the engine is back.
    let real = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    std::os::unix::fs::symlink(real.strip_prefix("unix://").expect("tests use a local engine"), &socket).unwrap();
    eventually("the source is up", || agent.metric("outhaul_source_up", &[("source", "docker")]) == Some(1.0));
    agent.terminate();
}

#[test]
fn series_of_an_engine_that_is_gone_end_after_a_while_and_return_with_it() {
    let engine = Engine::get("gone");
    let name = engine.run("till", &[], &["sleep", "1000"]);
    let recorder = Recorder::start();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let real = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    std::os::unix::fs::symlink(real.strip_prefix("unix://").unwrap(), &socket).unwrap();
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\n\
         docker: [{{host: \"unix://{}\", include: {{labels: [\"{}\"]}}}}]\n\
         remote_write: [{{name: e, url: \"{}\"}}]\n",
        socket.display(),
        engine.label(),
        recorder.write_url(),
    ));
    recorder.wait_for_ticks(2);
    assert!(recorder.samples().keys().any(|series| series.contains(&name)));
    std::fs::remove_file(&socket).unwrap();
    eventually("the container's series are marked stale", || {
        !recorder.stale_marks(&["container_state", &name]).is_empty()
    });
    let ended_at = recorder.stale_marks(&["container_state", &name])[0];

    std::os::unix::fs::symlink(real.strip_prefix("unix://").unwrap(), &socket).unwrap();
    eventually("the engine is back and so are its series", || {
        let samples = recorder.samples();
        let state = samples.iter().find(|(series, _)| series.contains("container_state") && series.contains(&name));
        state.is_some_and(|(_, samples)| samples.keys().any(|at| *at > ended_at))
    });
    agent.terminate();
}

#[test]
fn something_that_is_no_engine_is_named_and_not_believed() {
    let (port, _) =
        scripted(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\nconnection: close\r\n\r\n<html></html>".to_vec());
    let recorder = Recorder::start();
    let mut agent = Agent::start(&format!(
        "global: {{scrape_interval: 1s, external_labels: {{instance: it}}}}\n\
         docker: [{{host: \"tcp://127.0.0.1:{port}\"}}]\n\
         remote_write: [{{name: e, url: \"{}\"}}]\n",
        recorder.write_url(),
    ));
    recorder.wait_for_ticks(2);
    assert_eq!(agent.metric("outhaul_source_up", &[("source", "docker")]), Some(0.0));
    assert!(agent.log().contains(&format!("127.0.0.1:{port}")), "{}", agent.log());
    agent.terminate();
}

#[test]
fn a_second_agent_on_the_same_buffer_is_refused_with_exit_73() {
    let (port, _) = scripted(|_| status("204 No Content"));
    let directory = tempfile::tempdir().unwrap();
    let mut first = agent(port, &format!("buffer: {{path: {}}}\n", directory.path().display()));
    first.wait_until_ready();
    let second = outhaul()
        .arg("run")
        .env("OUTHAUL_REMOTE_WRITE_URL", format!("http://127.0.0.1:{port}/write"))
        .env("OUTHAUL_BUFFER_PATH", directory.path())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(73));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&directory.path().display().to_string()) && said.contains("in use"), "{said}");
    first.terminate();
}

#[test]
fn a_full_disk_does_not_stop_sampling_and_is_left_by_itself() {
    let disk = Tmpfs::mount("1500k");
    let (port, _) = scripted(|_| status("503 Service Unavailable"));
    let mut agent = agent(port, &format!("buffer: {{path: {}/buffer, max_bytes: 64MiB}}\n", disk.path().display()));
    agent.wait_until_ready();
    let hog = disk.path().join("hog");
    fill(&hog);
    let before = fate(&agent, "appended");
    eventually("the disk is full and it shows", || {
        agent.metric("outhaul_buffer_io_errors_total", &[]) > Some(0.0)
            || agent.metric("outhaul_buffer_degraded", &[]) == Some(1.0)
    });
    eventually("sampling goes on", || fate(&agent, "appended") > before + 300.0);
    std::fs::remove_file(&hog).unwrap();
    eventually("the buffer recovers", || agent.metric("outhaul_buffer_degraded", &[]) == Some(0.0));
    agent.assert_balanced("e");
    assert!(!agent.log().contains("panicked"), "{}", agent.log());
    agent.terminate();
}

#[test]
fn a_second_signal_ends_it_at_once_and_what_was_taken_is_sent_by_the_next_run() {
    // Answers nothing: the connection stays open until the client gives up.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().port();
    let directory = tempfile::tempdir().unwrap();
    let buffer = format!("buffer: {{path: {}}}\n", directory.path().display());
    let config = |port: u16| {
        format!(
            "global: {{scrape_interval: 1s}}\nshutdown_grace: 1h\n\
             remote_write: [{{name: e, url: \"http://127.0.0.1:{port}/\", remote_timeout: 1h}}]\n{buffer}"
        )
    };
    let mut first = Agent::start(&config(silent));
    eventually("samples wait", || first.metric("outhaul_ledger_pending_samples", &[("remote_name", "e")]) > Some(50.0));
    first.signal("TERM");
    eventually("it says that it is stopping", || first.log().contains("signal again"));
    // Signals that come at once are the same one again, so it takes patience.
    eventually("it ends at the second signal", || {
        first.signal("TERM");
        first.has_ended()
    });
    assert!(first.log().contains("stopping at once"), "{}", first.log());

    let recorder = Recorder::start();
    let mut second = Agent::start(&config(recorder.port()));
    eventually("what was taken arrives", || fate(&second, "delivered") > 50.0);
    second.terminate();
}

#[test]
fn a_taken_port_costs_the_local_page_and_not_the_agent() {
    let recorder = Recorder::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut run = Guarded(
        outhaul()
            .arg("run")
            .env("OUTHAUL_REMOTE_WRITE_URL", recorder.write_url())
            .env("OUTHAUL_BUFFER_PATH", directory.path())
            .env("OUTHAUL__WEB__LISTEN_ADDRESS", taken.local_addr().unwrap().to_string())
            .env("OUTHAUL__GLOBAL__SCRAPE_INTERVAL", "1s")
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap(),
    );
    recorder.wait_for_ticks(2);
    run.kill().unwrap();
    run.wait().unwrap();
}

#[test]
fn the_local_page_says_that_the_agent_is_healthy_and_ready_and_shows_every_family_once() {
    let (port, _) = scripted(|_| status("204 No Content"));
    let mut agent = agent(port, "");
    agent.wait_until_ready();
    assert!(get(&agent.url("/-/healthy")).is_some());
    let page = get(&agent.url("/metrics")).unwrap();
    let mut families: Vec<&str> = page.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let count = families.len();
    families.sort_unstable();
    families.dedup();
    assert!(count > 30 && families.len() == count, "{page}");
    agent.terminate();
}

#[test]
fn a_read_only_disk_that_holds_no_buffer_is_exit_73_and_says_so() {
    let disk = Tmpfs::mount("1m");
    disk.remount("ro");
    let output = outhaul()
        .arg("run")
        .env("OUTHAUL_REMOTE_WRITE_URL", "http://127.0.0.1:1/write")
        .env("OUTHAUL_BUFFER_PATH", disk.path().join("buffer"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(73));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("read-only") || said.contains("Read-only"), "{said}");
}

/// Writes until nothing more fits.
pub(crate) fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [64 * 1024, 4096, 512, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// A small file system of its own. Mounting needs privileges: without root, through sudo.
pub(crate) struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    pub(crate) fn mount(size: &str) -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        privileged(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            &format!("size={size},mode=0777"),
            "tmpfs",
            &disk.0.path().display().to_string(),
        ]);
        disk
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn remount(&self, how: &str) {
        privileged(&["mount", "-o", &format!("remount,{how}"), &self.0.path().display().to_string()]);
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        privileged(&["umount", "-l", &self.0.path().display().to_string()]);
    }
}

fn privileged(command: &[&str]) {
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let command = if root { command.to_vec() } else { [&["sudo", "-n"], command].concat() };
    let done = Command::new(command[0]).args(&command[1..]).status().unwrap();
    assert!(done.success(), "{command:?}");
}
