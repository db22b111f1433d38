//! A simulated Docker engine: a small world behind the real API on a unix socket, for a demo where no engine answers.
//!
//! It answers what a watcher asks (`/_ping`, `/version`, `/info`, list, inspect, events, with or without a version in the
//! path) as Docker 20.10 does, down to the ring of 256 events that `since` reaches back into. Whatever else is asked is
//! refused with the engine's own kind of error; nothing a client sends makes it panic. It changes nothing on the machine,
//! and it takes no orders: its containers live as the [`world`] has it.

mod cast;
mod chance;
mod query;
mod wire;
mod world;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::clock::Clock;
use query::{Filters, Query};
use world::{Container, Event, Nanos, World};

/// How many past events the engine remembers (moby `daemon/events/events.go`).
const EVENTS_KEPT: usize = 256;

/// How many events a slow client may be behind before it misses some (moby's channel is as long).
const CLIENT_BACKLOG: usize = 1024;

/// How long the world may go unobserved: what is due is told at most this much later.
const TICK_MAX: Duration = Duration::from_secs(1);

/// The shortest nap, so that a clock that stands still does not make it spin.
const TICK_MIN: Duration = Duration::from_millis(5);

/// Plays a world made from the time of day on `listener` until `stop` resolves.
///
/// # Errors
/// When the socket breaks.
pub(super) async fn serve(listener: UnixListener, stop: impl Future<Output = ()> + Send) -> io::Result<()> {
    let clock = Clock::system();
    let seed = clock.now().millis().unsigned_abs();
    let engine = Engine::new(World::new(seed, clock.now()), clock);
    let app = Router::new().fallback(answer).with_state(engine.clone());
    tokio::select! {
        served = axum::serve(listener, app).into_future() => served,
        never = engine.live() => match never {},
        () = stop => Ok(()),
    }
}

/// The engine, shared by its connections.
#[derive(Clone)]
struct Engine {
    clock: Clock,
    stage: Arc<Mutex<Stage>>,
}

struct Stage {
    world: World,
    kept: VecDeque<Arc<Event>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Engine {
    fn new(world: World, clock: Clock) -> Self {
        let (live, _) = broadcast::channel(CLIENT_BACKLOG);
        Self { clock, stage: Arc::new(Mutex::new(Stage { world, kept: VecDeque::with_capacity(EVENTS_KEPT), live })) }
    }

    /// The stage as it is now: whatever is due has happened.
    fn now(&self) -> (MutexGuard<'_, Stage>, Nanos) {
        // A panic elsewhere leaves the world between two whole steps.
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        for event in stage.world.advance(now).into_iter().map(Arc::new) {
            if stage.kept.len() == EVENTS_KEPT {
                stage.kept.pop_front();
            }
            stage.kept.push_back(Arc::clone(&event));
            // An error means that nobody listens.
            drop(stage.live.send(event));
        }
        (stage, world::nanos(now))
    }

    /// Lets events happen at their time, so that listeners hear of them.
    async fn live(&self) -> Infallible {
        loop {
            let nap = {
                let (stage, _) = self.now();
                stage.world.next_due().map_or(TICK_MAX, |due| due.since(self.clock.now()))
            };
            tokio::time::sleep(nap.clamp(TICK_MIN, TICK_MAX)).await;
        }
    }
}

/// Why a request gets no answer, in the engine's own words.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        respond(self.0, &json!({"message": self.1}))
    }
}

async fn answer(State(engine): State<Engine>, request: Request) -> Response {
    let mut response = route(&engine, &request).unwrap_or_else(IntoResponse::into_response);
    let server = format!("Docker/{} (linux)", wire::ENGINE_VERSION);
    let head = [
        ("api-version", wire::API_VERSION),
        ("docker-experimental", "false"),
        ("ostype", "linux"),
        ("server", &server),
    ];
    for (name, value) in head {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn route(engine: &Engine, request: &Request) -> Result<Response, Refusal> {
    let not_found = || Refusal(StatusCode::NOT_FOUND, "page not found".to_owned());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let message = format!(
            "{} is not possible: this engine is simulated by outhaul and only to be looked at",
            request.method()
        );
        return Err(Refusal(StatusCode::NOT_IMPLEMENTED, message));
    }
    let path = unversioned(request.uri().path())?;
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments.as_slice() {
        ["_ping"] => Ok(ping()),
        ["version"] => Ok(respond(StatusCode::OK, &wire::version())),
        ["info"] => {
            let (stage, now) = engine.now();
            Ok(respond(StatusCode::OK, &wire::info(&stage.world.containers(), now)))
        }
        ["containers", "json"] => list(engine, &query),
        ["containers", name, "json"] => inspect(engine, &query::decode(name)),
        ["events"] => events(engine, &query),
        _ => Err(not_found()),
    }
}

/// The path without its version.
fn unversioned(path: &str) -> Result<&str, Refusal> {
    let Some((version, rest)) = path.strip_prefix("/v").and_then(|path| path.split_once('/')) else { return Ok(path) };
    let Some(asked) = numbers(version) else { return Ok(path) };
    let refuse = |message: String| Err(Refusal(StatusCode::BAD_REQUEST, message));
    if Some(asked) > numbers(wire::API_VERSION) {
        return refuse(format!(
            "client version {version} is too new. Maximum supported API version is {}",
            wire::API_VERSION
        ));
    }
    if Some(asked) < numbers(wire::MIN_API_VERSION) {
        return refuse(format!(
            "client version {version} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            wire::MIN_API_VERSION
        ));
    }
    Ok(rest)
}

/// The two numbers of a version such as `1.41`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn ping() -> Response {
    let head = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
    ];
    (head, "OK").into_response()
}

fn list(engine: &Engine, query: &Query) -> Result<Response, Refusal> {
    let filters = query.filters().map_err(broken)?;
    let all = query.is_on("all") || filters.names_status();
    let limit =
        query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let (stage, now) = engine.now();
    let wanted = |container: &&Container| (all || container.state.is_running()) && filters.take_container(container);
    let items: Vec<Value> = stage
        .world
        .containers()
        .into_iter()
        .filter(wanted)
        .take(limit)
        .map(|container| wire::list_item(container, now))
        .collect();
    Ok(respond(StatusCode::OK, &Value::Array(items)))
}

/// One container by id, name or the beginning of its id, in this order.
fn inspect(engine: &Engine, name: &str) -> Result<Response, Refusal> {
    let (stage, _) = engine.now();
    let containers = stage.world.containers();
    let bare = name.trim_start_matches('/');
    let exactly = containers.iter().find(|container| container.id == bare || container.name == bare);
    let mut beginning = containers.iter().filter(|container| !bare.is_empty() && container.id.starts_with(bare));
    let found = match (exactly, beginning.next(), beginning.next()) {
        (Some(container), _, _) | (None, Some(container), None) => container,
        (None, Some(_), Some(_)) => {
            return Err(Refusal(StatusCode::BAD_REQUEST, format!("Multiple IDs found with provided prefix: {name}")));
        }
        (None, None, _) => return Err(Refusal(StatusCode::NOT_FOUND, format!("No such container: {name}"))),
    };
    Ok(respond(StatusCode::OK, &wire::inspect(found)))
}

/// Past events from `since` on, then the ones to come until `until`.
fn events(engine: &Engine, query: &Query) -> Result<Response, Refusal> {
    let (since, until) = (query.instant("since").map_err(broken)?, query.instant("until").map_err(broken)?);
    let filters = Arc::new(query.filters().map_err(broken)?);
    // One lock for both, so that no event is missed or told twice.
    let (past, live, now) = {
        let (stage, now) = engine.now();
        let from = since.or_else(|| until.map(|_| Nanos::MIN)).unwrap_or(Nanos::MAX);
        let told = |event: &&Arc<Event>| event.at >= from && until.is_none_or(|until| event.at <= until);
        (stage.kept.iter().filter(told).cloned().collect::<Vec<_>>(), stage.live.subscribe(), now)
    };
    let left = until.map(|until| Duration::from_nanos(u64::try_from(until.saturating_sub(now)).unwrap_or(0)));
    let over = async move {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    let lines = stream::iter(past).chain(to_come(live)).filter_map(move |event| line(&filters, &event));
    let body = Body::from_stream(lines.take_until(over).map(Ok::<Bytes, Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The events to come; a client that is too slow misses some, as it does with the real engine.
fn to_come(live: broadcast::Receiver<Arc<Event>>) -> impl stream::Stream<Item = Arc<Event>> {
    stream::unfold(live, |mut live| async move {
        loop {
            match live.recv().await {
                Ok(event) => return Some((event, live)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

fn line(filters: &Filters, event: &Event) -> std::future::Ready<Option<Bytes>> {
    std::future::ready(filters.take_event(event).then(|| Bytes::from(format!("{}\n", wire::event(event)))))
}

/// What the real engine answers to a parameter that it cannot read.
fn broken(message: String) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
}

fn respond(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixStream;

    use super::*;
    use crate::model::Timestamp;

    /// The rim on a world of its own, whose clock the test moves.
    struct Rim {
        path: PathBuf,
        engine: Engine,
        _directory: tempfile::TempDir,
    }

    const START: Timestamp = Timestamp::from_millis(1_795_000_000_000);

    impl Rim {
        fn start() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("engine.sock");
            let engine = Engine::new(World::new(11, START), Clock::manual(START));
            let listener = UnixListener::bind(&path).unwrap();
            let app = Router::new().fallback(answer).with_state(engine.clone());
            tokio::spawn(axum::serve(listener, app).into_future());
            Self { path, engine, _directory: directory }
        }

        async fn send(&self, request: &str) -> UnixStream {
            let mut stream = UnixStream::connect(&self.path).await.unwrap();
            stream.write_all(format!("{request}\r\nHost: engine\r\n\r\n").as_bytes()).await.unwrap();
            stream
        }

        /// Status and body of an answer that ends.
        async fn get(&self, path: &str) -> (u16, String) {
            let mut answer = String::new();
            self.send(&format!("GET {path} HTTP/1.0")).await.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
        }

        async fn json(&self, path: &str) -> Value {
            let (status, body) = self.get(path).await;
            assert_eq!(status, 200, "{path}: {body}");
            serde_json::from_str(&body).unwrap()
        }

        fn pass(&self, seconds: u64) {
            self.engine.clock.at_least(self.engine.clock.now().plus(Duration::from_secs(seconds)));
        }
    }

    #[tokio::test]
    async fn a_watcher_gets_what_it_asks_with_and_without_a_version() {
        let rim = Rim::start();
        assert_eq!(rim.get("/_ping").await, (200, "OK".to_owned()));
        assert_eq!(rim.json("/v1.41/version").await["ApiVersion"], "1.41");
        assert_eq!(rim.json("/v1.24/info").await["Name"], "till-3");
        let running = rim.json("/containers/json").await;
        let all = rim.json("/v1.40/containers/json?all=1").await;
        assert!(all.as_array().unwrap().len() > running.as_array().unwrap().len());
        let migrate = all.as_array().unwrap().iter().find(|container| container["Names"][0] == "/migrate").unwrap();
        assert_eq!(migrate["State"], "exited");
        let id = migrate["Id"].as_str().unwrap();
        for name in [id, &id[..12], "migrate", "%2Fmigrate"] {
            assert_eq!(rim.json(&format!("/containers/{name}/json")).await["Id"], id);
        }
    }

    #[tokio::test]
    async fn events_are_remembered_up_to_256_and_told_as_they_happen() {
        let rim = Rim::start();
        rim.pass(3600);
        let (_, past) = rim.get("/events?since=0&until=1795003600").await;
        assert_eq!(past.lines().count(), EVENTS_KEPT);
        let (_, none) = rim.get("/events?since=1795003600&until=1795003600").await;
        assert_eq!(none, "");

        let stream = rim.send("GET /v1.41/events?filters=%7B%22event%22%3A%5B%22start%22%5D%7D HTTP/1.1").await;
        let mut lines = BufReader::new(stream).lines();
        while !lines.next_line().await.unwrap().unwrap().is_empty() {}
        let before = world::nanos(rim.engine.clock.now());
        rim.pass(60);
        drop(rim.engine.now());
        let event = loop {
            let line = lines.next_line().await.unwrap().unwrap();
            if let Ok(event @ Value::Object(_)) = serde_json::from_str(&line) {
                break event;
            }
        };
        assert_eq!(event["Action"], "start");
        assert!(event["timeNano"].as_i64().unwrap() >= before);
    }

    #[tokio::test]
    async fn odd_requests_are_refused_in_the_engines_words() {
        let rim = Rim::start();
        let expected = [
            ("/nope", 404, "page not found"),
            ("/containers/nope/json", 404, "No such container: nope"),
            ("/containers//json/", 200, "till-ui"),
            ("/containers/%ff%zz/json", 404, "No such container"),
            ("/v1.99/containers/json", 400, "client version 1.99 is too new. Maximum supported API version is 1.41"),
            ("/v1.2/info", 400, "client version 1.2 is too old"),
            ("/v99999999999.1/info", 404, "page not found"),
            ("/events?since=abc", 500, r#"strconv.ParseInt: parsing \"abc\": invalid syntax"#),
            ("/events?filters=x", 500, "expected value"),
            ("/events?since=-5&until=-99999999999999999999", 500, "invalid syntax"),
            ("/containers/json?filters=%7B%22status%22:7%7D", 500, "invalid filter"),
            ("/containers/json?limit=-3&all=maybe", 200, "migrate"),
        ];
        for (path, status, words) in expected {
            let (told, body) = rim.get(path).await;
            assert!(told == status && body.contains(words), "{path}: {told} {body}");
        }
        let mut refused = String::new();
        rim.send("POST /v1.41/containers/redis/stop HTTP/1.0").await.read_to_string(&mut refused).await.unwrap();
        assert!(refused.starts_with("HTTP/1.0 501") && refused.contains("only to be looked at"), "{refused}");
    }

    #[tokio::test]
    async fn it_serves_until_it_is_told_to_stop() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let asking = async {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"GET /_ping HTTP/1.0\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("api-version: 1.41") && answer.ends_with("OK"), "{answer}");
            drop(stop);
        };
        let (served, ()) = tokio::join!(serve(listener, async { drop(stopped.await) }), asking);
        served.unwrap();
    }
}
