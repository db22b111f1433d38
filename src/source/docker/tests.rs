//! The rim, against a scripted engine on a real socket.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::events::{Death, OomNotice};
use super::*;
use crate::model::Value;
use crate::source::FailureReason;
use crate::source::Scope;
use crate::telemetry::Registry;

/// What the engine does with a request.
#[derive(Clone, Debug)]
enum Answer {
    /// Answers, and closes.
    Body(u16, String),
    /// Sends the head and this, and nothing more.
    Open(String),
    /// Says nothing.
    Hang,
    /// Says something else than HTTP.
    Raw(&'static str),
}

/// An engine that answers by the beginning of the path; the longest beginning wins.
struct Engine {
    _dir: tempfile::TempDir,
    host: String,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
    /// Closes every open stream.
    cut: Arc<Notify>,
}

impl Engine {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let engine = Self {
            host: format!("unix://{}", path.display()),
            _dir: dir,
            answers: Arc::default(),
            asked: Arc::default(),
            cut: Arc::default(),
        };
        let (answers, asked, cut) = (engine.answers.clone(), engine.asked.clone(), engine.cut.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (answers, asked, cut) = (answers.clone(), asked.clone(), cut.clone());
                tokio::spawn(async move { drop(serve(socket, &answers, &asked, &cut).await) });
            }
        });
        engine.on("/containers/json", Answer::Body(200, "[]".into()));
        engine.on("/info", Answer::Body(200, r#"{"Name":"engine-host"}"#.into()));
        engine.on("/events", Answer::Body(200, String::new()));
        engine.on("/events?since=", Answer::Open(String::new()));
        engine.on("/events?since=0&", Answer::Body(200, r#"{"timeNano":1}"#.into()));
        engine
    }

    fn on(&self, path: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(path.into(), answer);
    }

    fn asked(&self, part: &str) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|path| path.contains(part)).cloned().collect()
    }

    fn connect(&self, restored: Option<Vec<u8>>) -> (DockerSource, EventReader) {
        connect_to(&self.host, restored)
    }
}

fn connect_to(host: &str, restored: Option<Vec<u8>>) -> (DockerSource, EventReader) {
    let config = config::Docker {
        host: host.into(),
        include: config::Filter::default(),
        exclude: config::Filter::default(),
        container_labels: vec![],
    };
    connect(Connect {
        config: &config,
        name: "docker",
        target: Target::new("host-1"),
        hostname: None,
        interval: Duration::from_secs(15),
        timeout: Duration::from_secs(10),
        restored,
        recorded_until: None,
        clock: Clock::system(),
        metrics: &Metrics::register(&Registry::new()),
    })
    .unwrap()
}

async fn serve(
    mut socket: UnixStream,
    answers: &Mutex<HashMap<String, Answer>>,
    asked: &Mutex<Vec<String>>,
    cut: &Notify,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    assert!(head.starts_with("GET "), "only GET is ever sent: {head}");
    asked.lock().unwrap().push(path.clone());
    // A live stream has no end in its path.
    let key = if path.starts_with("/events") && path.contains("&until=") && !path.contains("since=0&") {
        "/events"
    } else {
        path.as_str()
    };
    let answer = {
        let answers = answers.lock().unwrap();
        let best = answers.keys().filter(|beginning| key.starts_with(*beginning)).max_by_key(|key| key.len());
        best.map_or(Answer::Body(404, r#"{"message":"No such container"}"#.into()), |best| answers[best].clone())
    };
    match answer {
        Answer::Body(status, body) => {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            socket.write_all((head + &body).as_bytes()).await
        }
        Answer::Open(body) => {
            let cut = cut.notified();
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            socket.write_all((head.to_owned() + &body).as_bytes()).await?;
            cut.await;
            Ok(())
        }
        Answer::Hang => std::future::pending().await,
        Answer::Raw(bytes) => socket.write_all(bytes.as_bytes()).await,
    }
}

fn entry(id: &str) -> String {
    format!(r#"{{"Id":"{id}","Names":["/{id}"],"Image":"img:1","State":"running","Status":"Up 1 minute"}}"#)
}

fn event(id: &str, action: &str, nanos: i64) -> String {
    format!(
        r#"{{"Type":"container","Action":"{action}","Actor":{{"ID":"{id}","Attributes":{{"name":"{id}","image":"img:1"}}}},"timeNano":{nanos}}}"#
    ) + "\n"
}

fn inspect(id: &str) -> String {
    format!(r#"{{"Id":"{id}","Name":"/{id}","RestartCount":3,"State":{{"Status":"running"}},"Config":{{}}}}"#)
}

fn value(observations: &[Observation], family: &str, name: &str) -> Option<Value> {
    let samples = &observations.last().unwrap().samples;
    let found = samples.iter().find(|sample| {
        let labels = sample.series.labels();
        labels.metric_name() == family && labels.get("name") == Some(name)
    });
    found.map(|sample| sample.value)
}

fn count(source: &DockerSource, reason: FailureReason) -> u64 {
    let place = FailureReason::ALL.iter().position(|known| *known == reason).unwrap();
    source.metrics.inspect_error_counts()[place]
}

async fn sample(source: &mut DockerSource) -> Result<Vec<Observation>, SourceError> {
    let at = source.clock.now();
    source.sample(at).await
}

#[tokio::test]
async fn a_container_that_hangs_vanishes_or_answers_nonsense_costs_only_itself() {
    let engine = Engine::start();
    let ids = ["good", "gone", "hangs", "html", "other"];
    let entries = ids.map(entry).join(",");
    engine.on("/containers/json", Answer::Body(200, format!("[{entries},7]")));
    engine.on("/containers/good/json", Answer::Body(200, inspect("good")));
    engine.on("/containers/hangs/json", Answer::Hang);
    engine.on("/containers/html/json", Answer::Body(200, "<html>".into()));
    engine.on("/containers/other/json", Answer::Body(200, inspect("good")));
    let (mut source, reader) = engine.connect(None);
    tokio::spawn(reader.run());

    let told = sample(&mut source).await.unwrap();
    for id in ids {
        assert_eq!(value(&told, "container_state", id), Some(Value::new(1.0)), "{id}");
    }
    assert_eq!(value(&told, "container_restart_count", "good"), Some(Value::new(3.0)));
    assert_eq!(value(&told, "container_restart_count", "other"), None);
    assert_eq!(source.metrics.inspect_gone.get(), 1);
    assert_eq!(count(&source, FailureReason::Timeout), 1);
    assert_eq!(count(&source, FailureReason::Decode), 3, "two answers and one element of the list");

    sample(&mut source).await.unwrap();
    assert_eq!(engine.asked("/containers/hangs/json").len(), 1, "it is left alone for a while");
}

#[tokio::test]
async fn the_hosts_name_is_asked_of_the_engine_once() {
    let engine = Engine::start();
    engine.on("/containers/json", Answer::Body(200, format!("[{}]", entry("a"))));
    let (mut source, reader) = engine.connect(None);
    tokio::spawn(reader.run());
    sample(&mut source).await.unwrap();
    let told = sample(&mut source).await.unwrap();
    let state = told.last().unwrap().samples.iter().find(|s| s.series.labels().metric_name() == "container_state");
    assert_eq!(state.unwrap().series.labels().get("hostname"), Some("engine-host"));
    assert_eq!(engine.asked("/info").len(), 1);
}

#[tokio::test]
async fn a_proxy_that_forbids_the_list_is_told_what_to_allow() {
    let engine = Engine::start();
    engine.on("/containers/json", Answer::Body(403, "<h1>403 Forbidden</h1>".into()));
    let (mut source, reader) = engine.connect(None);
    tokio::spawn(reader.run());
    let error = sample(&mut source).await.unwrap_err();
    assert_eq!(error.reason, FailureReason::Refused);
    assert!(error.message.contains("CONTAINERS=1"), "{error}");
    assert!(!error.message.contains('\n'));
}

#[tokio::test]
async fn what_is_no_engine_is_called_so() {
    for answer in [
        Answer::Body(200, "<html>welcome</html>".into()),
        Answer::Body(200, r#"{"a":1}"#.into()),
        Answer::Raw("SSH-2.0-OpenSSH_9.6\r\n"),
    ] {
        let engine = Engine::start();
        engine.on("/containers/json", answer.clone());
        let (mut source, reader) = engine.connect(None);
        tokio::spawn(reader.run());
        let error = sample(&mut source).await.unwrap_err();
        assert_eq!(error.reason, FailureReason::Decode, "{answer:?}: {error}");
        assert!(error.message.contains("no Docker engine"), "{error}");
    }
}

#[tokio::test]
async fn an_engine_that_comes_up_later_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker.sock");
    let (mut source, _reader) = connect_to(&format!("unix://{}", path.display()), None);
    let error = sample(&mut source).await.unwrap_err();
    assert_eq!(error.reason, FailureReason::Unreachable);
    assert!(error.message.contains("the socket does not exist"), "{error}");

    let engine = Engine::start();
    std::fs::rename(engine.host.strip_prefix("unix://").unwrap(), &path).unwrap();
    sample(&mut source).await.unwrap();
}

#[tokio::test]
async fn a_cut_stream_is_opened_again_a_little_before_the_last_event_and_nothing_counts_twice() {
    let engine = Engine::start();
    let (mut source, reader) = engine.connect(None);
    let now = source.clock.now().millis() * 1_000_000;
    let first = event("a", "create", now) + &event("a", "start", now + 2_000_000);
    engine.on("/events?since=", Answer::Open(first.clone()));
    tokio::spawn(reader.run());
    assert_eq!(source.next_event().await.at.millis() * 1_000_000, now);
    assert_eq!(source.next_event().await.scope, Scope::Change);

    engine.on("/events", Answer::Body(200, first.clone() + &event("a", "die", now + 3_000_000)));
    engine.on("/events?since=", Answer::Open(event("b", "create", now + 9_000_000)));
    engine.cut.notify_waiters();
    let died = source.next_event().await;
    assert_eq!(value(&[died], "container_state", "a"), Some(Value::new(0.0)));
    let made = source.next_event().await;
    assert_eq!(value(&[made], "container_state", "b"), Some(Value::new(3.0)));

    let since = engine.asked("&until=").into_iter().rfind(|path| !path.contains("since=0&")).unwrap();
    let expected = now + 2_000_000 - 2_000_000_000;
    let wanted = format!("since={}.{:09}&", expected / 1_000_000_000, expected % 1_000_000_000);
    assert!(since.contains(&wanted), "{since} should ask {wanted}");
    assert_eq!(source.metrics.reconnects.get(), 1);
    assert_eq!(source.metrics.gaps.get(), 0, "the engine remembers far enough back");
}

#[tokio::test]
async fn a_replay_that_does_not_reach_back_is_a_gap_and_every_container_is_asked() {
    let engine = Engine::start();
    let (mut source, reader) = engine.connect(None);
    let now = source.clock.now().millis() * 1_000_000;
    engine.on("/events?since=", Answer::Open(event("a", "create", now)));
    let reading = tokio::spawn(reader.run());
    source.next_event().await;
    let blob = source.take_state().unwrap();
    assert_eq!(source.take_state(), None, "nothing changed since");
    reading.abort();

    engine.on("/events?since=", Answer::Open(String::new()));
    engine.on("/events?since=0&", Answer::Body(200, event("x", "exec_die", now + 1)));
    engine.on("/containers/json", Answer::Body(200, format!("[{}]", entry("a"))));
    engine.on("/containers/a/json", Answer::Body(200, inspect("a")));
    let (mut successor, reader) = engine.connect(Some(blob));
    tokio::spawn(reader.run());
    let told = sample(&mut successor).await.unwrap();
    assert_eq!(value(&told, "container_state", "a"), Some(Value::new(1.0)));
    assert_eq!(successor.metrics.gaps.get(), 1);
    assert_eq!(engine.asked("/containers/a/json").len(), 1);
}

#[tokio::test]
async fn a_tick_hands_out_the_events_before_it_and_keeps_those_after_it() {
    let engine = Engine::start();
    let (mut source, reader) = engine.connect(None);
    let at = source.clock.now().plus(Duration::from_millis(100));
    let nanos = at.millis() * 1_000_000;
    let events = event("a", "create", nanos - 50_000_000) + &event("a", "start", nanos + 1_000_000);
    engine.on("/events?since=", Answer::Open(events));
    tokio::spawn(reader.run());
    let told = source.sample(at).await.unwrap();
    let times: Vec<(i64, Scope)> = told.iter().map(|o| (o.at.millis() - at.millis(), o.scope)).collect();
    assert_eq!(times, [(-50, Scope::Change), (0, Scope::Everything)]);
    assert_eq!(value(&told, "container_state", "a"), Some(Value::new(3.0)));
    let after = source.next_event().await;
    assert_eq!((after.at.millis() - at.millis(), value(&[after], "container_state", "a")), (1, Some(Value::new(1.0))));
}

#[tokio::test]
async fn a_tick_that_is_cut_short_loses_nothing() {
    let engine = Engine::start();
    engine.on("/containers/json", Answer::Body(200, format!("[{}]", entry("a"))));
    engine.on("/containers/a/json", Answer::Hang);
    let (mut source, reader) = engine.connect(None);
    let now = source.clock.now().millis() * 1_000_000;
    engine.on("/events?since=", Answer::Open(event("b", "create", now)));
    tokio::spawn(reader.run());
    let at = source.clock.now();
    while engine.asked("/containers/a/json").is_empty() {
        // Polled until it waits for the inspect, then dropped.
        drop(tokio::time::timeout(Duration::from_millis(50), source.sample(at)).await);
        if engine.asked("/containers/a/json").is_empty() {
            drop(tokio::time::timeout(Duration::from_millis(600), source.sample(at)).await);
        }
    }
    engine.on("/containers/a/json", Answer::Body(200, inspect("a")));
    let created = source.next_event().await;
    assert_eq!(value(&[created], "container_state", "b"), Some(Value::new(3.0)));
    let told = sample(&mut source).await.unwrap();
    assert_eq!(value(&told, "container_restart_count", "a"), Some(Value::new(3.0)), "it is asked again");
}

#[tokio::test]
async fn a_new_container_is_looked_at_before_its_first_end() {
    let engine = Engine::start();
    let policy =
        r#"{"Id":"a","HostConfig":{"RestartPolicy":{"Name":"always"}},"Config":{"Healthcheck":{"Test":["CMD"]}}}"#;
    engine.on("/containers/a/json", Answer::Body(200, policy.into()));
    let (mut source, reader) = engine.connect(None);
    let now = source.clock.now().millis() * 1_000_000;
    engine.on("/events?since=", Answer::Open(event("a", "create", now)));
    tokio::spawn(reader.run());
    source.next_event().await;
    let look = source.looks.next().await.unwrap();
    source.take_look(look);

    let later = event("a", "start", now + 1_000_000) + &event("a", "die", now + 2_000_000);
    engine.on("/events", Answer::Body(200, later));
    engine.cut.notify_waiters();
    let started = source.next_event().await;
    assert_eq!(value(&[started], "container_health", "a"), Some(Value::new(3.0)));
    let died = source.next_event().await;
    assert_eq!(value(&[died], "container_state", "a"), Some(Value::new(4.0)), "it will be restarted");
}

/// Makes `source` hear of its container "a".
fn hear(source: &mut DockerSource, millis: i64, action: Action) {
    let (name, image) = (Some("a".into()), Some("img:1".into()));
    let event = Event { at_nanos: millis * 1_000_000, id: "a".into(), action, name, image, labels: BTreeMap::new() };
    source.hear(Feed::Event(event));
}

/// The exit counters of "a" that `told` holds and that counted something, by class.
fn exits(told: &Observation) -> Vec<(String, i64)> {
    let exits = told.samples.iter().filter(|sample| sample.series.labels().metric_name() == "container_exits_total");
    let counted = exits.filter(|sample| sample.value != Value::new(0.0));
    counted.map(|sample| (sample.series.labels().get("class").unwrap().to_owned(), told.at.millis())).collect()
}

const KILLED: Action = Action::Die(Death { exit_code: Some(137), oom: OomNotice::Elsewhere, ran_seconds: None });

/// A source that runs on a clock that only waiting moves, and has seen "a" start; the reader keeps it open.
async fn with_a_running_container(engine: &Engine, start: i64) -> (DockerSource, EventReader) {
    let (mut source, reader) = engine.connect(None);
    source.hostname = Hostname::Known("host-1".into());
    hear(&mut source, start, Action::Create);
    hear(&mut source, start + 1, Action::Start);
    source.next_event().await;
    source.next_event().await;
    (source, reader)
}

#[tokio::test(start_paused = true)]
async fn a_kill_for_memory_that_the_engine_tells_after_the_end_is_why_it_ended() {
    let engine = Engine::start();
    let start = Clock::system().now().minus(Duration::from_secs(10)).millis();
    let (mut source, _reader) = with_a_running_container(&engine, start).await;
    hear(&mut source, start + 500, KILLED);
    assert!(source.next_event().now_or_never().is_none(), "it may still be told why");
    hear(&mut source, start + 530, Action::Oom);
    assert_eq!(exits(&source.next_event().await), [("oom".to_owned(), start + 500)]);
    let killed = source.next_event().await;
    assert_eq!(killed.at.millis(), start + 530);
    assert_eq!(value(&[killed], "container_oom_events_total", "a"), Some(Value::new(1.0)));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_nobody_explains_is_told_a_little_later_and_one_that_was_asked_for_at_once() {
    let engine = Engine::start();
    let start = Clock::system().now().minus(Duration::from_secs(10)).millis();
    let (mut source, _reader) = with_a_running_container(&engine, start).await;
    hear(&mut source, start + 500, KILLED);
    let waited = Instant::now();
    assert_eq!(exits(&source.next_event().await), [("signal".to_owned(), start + 500)]);
    assert!((OOM_PATIENCE..super::table::SETTLE).contains(&waited.elapsed()));
    hear(&mut source, start + 600, Action::Start);
    source.next_event().await;
    hear(&mut source, start + 700, Action::Kill);
    hear(&mut source, start + 710, KILLED);
    assert!(source.next_event().now_or_never().is_some());
}

#[tokio::test]
async fn events_that_find_no_room_are_counted_and_one_gap_for_all_of_them() {
    let engine = Engine::start();
    let (mut source, reader) = engine.connect(None);
    let now = source.clock.now().millis() * 1_000_000;
    let lost = 10;
    let many: String = (0..QUEUED_EVENTS + lost).map(|n| event("a", "kill", now + i64::try_from(n).unwrap())).collect();
    engine.on("/events?since=", Answer::Open(event("a", "create", now - 1) + &many));
    tokio::spawn(reader.run());
    while source.metrics.events.get() <= (QUEUED_EVENTS + lost) as u64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(source.metrics.dropped.get(), lost as u64 + 1);
    engine.on("/containers/json", Answer::Body(200, format!("[{},{}]", entry("a"), entry("b"))));
    sample(&mut source).await.unwrap();
    sample(&mut source).await.unwrap();
    assert_eq!(source.metrics.gaps.get(), 1, "what the list shows after a gap is the same gap");
    assert!(!engine.asked("/containers/a/json").is_empty());
}
