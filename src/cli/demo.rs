//! `outhaul demo`: engine, agent, buffer and receiver in one process, with nothing to set up.
//!
//! The agent is the real one, on a configuration made here; the line to the receiver can be cut and mended while one looks.
//! Where no Docker engine answers, a simulated one takes its place on a socket of its own, and the first line says so.

mod engine;
mod terminal;
mod view;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::signals::StopSignals;
use super::{Exit, block_on, complain, ended, say};
use crate::agent::{Agent, Watches};
use crate::config::{self, Config, Environment};
use crate::encode::Decoded;
use crate::receive::{self, Line};
use crate::source::docker;
use terminal::{Key, Screen};
use view::{Received, Scene};

/// How often the picture is drawn anew.
const FRAME: Duration = Duration::from_millis(250);

/// How long after a tick arrived its line is printed: the acknowledgement is on its way back just then.
const LINE_DELAY: Duration = Duration::from_millis(200);

/// Requests taken and not yet counted.
const REQUESTS_WAITING_MAX: usize = 16;

/// The series by which the receiver sees whether a tick is missing.
const TICK_COUNTER: &str = "outhaul_ticks_total";

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Use the simulated engine even where a real one answers
    #[arg(long)]
    simulated: bool,
    /// How often to sample
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    interval: String,
}

pub(super) fn main(options: &Options) -> Result<Exit, Exit> {
    block_on(demo(options))?
}

async fn demo(options: &Options) -> Result<Exit, Exit> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        complain(&format_args!("{what}: {error}"));
        Exit::Failed
    };
    let directory = tempfile::Builder::new()
        .prefix("outhaul-demo-")
        .tempdir()
        .map_err(|error| failed("no temporary directory", &error))?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| failed("no port to receive on", &error))?;
    let receiver_url =
        format!("http://{}/api/v1/write", listener.local_addr().map_err(|error| failed("no port", &error))?);

    let engine = Engine::find(options.simulated, directory.path()).await?;
    let config = configuration(options, &engine.host, directory.path(), &receiver_url)?;
    let agent = Agent::build(config).await.map_err(|error| ended(&error))?;
    let line = Line::default();
    let (taken, arrived) = mpsc::channel(REQUESTS_WAITING_MAX);
    let show = Show {
        engine: engine.words,
        watches: agent.watches().clone(),
        line: line.clone(),
        arrived,
        received: Received::default(),
        last_tick: None,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let agent = async { agent.run(async { drop(stopped.await) }).await.map_err(|error| ended(&error)) };
    let mut shown = Ok(());
    let show = async {
        let (result, mut arrived) = show.run().await;
        shown = result;
        drop(stop);
        // What the agent still sends is still received.
        while arrived.recv().await.is_some() {}
    };
    let simulation = async {
        match engine.socket {
            Some(socket) => engine::serve(socket, std::future::pending()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // The agent ends once the show is over; receiver and engine live until then, so that the last samples arrive.
        over = agent => over.and(shown).map(|()| Exit::Fine),
        () = show => Err(Exit::Failed),
        broke = receive::serve(listener, taken, line, std::future::pending()) => Err(failed("the receiver ended", &reason(broke))),
        broke = simulation => Err(failed("the simulated engine ended", &reason(broke))),
    }
}

fn reason(result: std::io::Result<()>) -> String {
    result.err().map_or_else(|| "it should not have".to_owned(), |error| error.to_string())
}

/// The engine the demo looks at.
struct Engine {
    /// In words, for the first line.
    words: String,
    /// Where it listens.
    host: String,
    /// The simulated engine's socket, where there is need of one.
    socket: Option<UnixListener>,
}

impl Engine {
    /// The local engine, or a simulated one on a socket in `directory`.
    async fn find(simulated: bool, directory: &Path) -> Result<Self, Exit> {
        // Nothing of the user's configuration but where the engine is: the demo must run whatever else is set.
        let environment: Environment =
            std::env::var("DOCKER_HOST").into_iter().map(|host| ("DOCKER_HOST", host)).collect();
        let path = directory.join("defaults.yml");
        let defaults = write(&path, "").and_then(|()| {
            config::load(Some(&path), &environment).map_err(|error| {
                complain(&error);
                Exit::Usage
            })
        })?;
        let local = defaults.docker.into_iter().next();
        if !simulated
            && let Some(local) = local
            && let Ok(name) = docker::host_name(&local).await
        {
            return Ok(Self { words: format!("the Docker engine of {name}"), host: local.host, socket: None });
        }
        let path = directory.join("engine.sock");
        let socket = UnixListener::bind(&path).map_err(|error| {
            complain(&format_args!("{}: {error}", path.display()));
            Exit::Failed
        })?;
        let words = if simulated { "a simulated engine" } else { "no Docker engine answers here, so a simulated one" };
        Ok(Self { words: words.to_owned(), host: format!("unix://{}", path.display()), socket: Some(socket) })
    }
}

/// The demo's configuration, written as a user would write it.
fn configuration(options: &Options, engine: &str, directory: &Path, receiver: &str) -> Result<Config, Exit> {
    let text = format!(
        "global: {{scrape_interval: {}}}\n\
         docker: [{{host: \"{engine}\"}}]\n\
         remote_write: [{{name: demo, url: \"{receiver}\", queue_config: {{min_backoff: 200ms, max_backoff: 1s}}}}]\n\
         buffer: {{path: \"{}\", max_bytes: 64MiB}}\n\
         web: {{enabled: false}}\n",
        options.interval,
        directory.join("buffer").display(),
    );
    let path = directory.join("demo.yml");
    write(&path, &text)?;
    config::load(Some(&path), &Environment::default()).map_err(|error| {
        complain(&error);
        Exit::Usage
    })
}

fn write(path: &Path, text: &str) -> Result<(), Exit> {
    std::fs::write(path, text).map_err(|error| {
        complain(&format_args!("{}: {error}", path.display()));
        Exit::Failed
    })
}

/// What is on the screen, and what it is drawn from.
struct Show {
    engine: String,
    watches: Watches,
    line: Line,
    arrived: mpsc::Receiver<Decoded>,
    received: Received,
    /// The newest value of outhaul's own tick counter that the receiver saw.
    last_tick: Option<f64>,
}

impl Show {
    /// Runs until somebody has seen enough; gives back what still arrives.
    async fn run(mut self) -> (Result<(), Exit>, mpsc::Receiver<Decoded>) {
        (self.watched().await, self.arrived)
    }

    async fn watched(&mut self) -> Result<(), Exit> {
        let mut signals = StopSignals::listen().map_err(|error| {
            complain(&format_args!("signals cannot be handled: {error}"));
            Exit::Failed
        })?;
        if terminal::is_interactive()
            && let Ok(screen) = Screen::enter()
        {
            let shown = self.on_screen(&screen, &mut signals).await;
            drop(screen);
            // What was on the screen is gone with it; this stays.
            let present = Arc::clone(&self.watches.latest.borrow());
            say(&format_args!("outhaul demo: {}", view::line(&self.scene(&present))))?;
            return shown;
        }
        self.in_lines(&mut signals).await
    }

    async fn on_screen(&mut self, screen: &Screen, signals: &mut StopSignals) -> Result<(), Exit> {
        let mut keys = terminal::keys();
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = frames.tick() => {
                    let (width, height) = Screen::size();
                    let present = Arc::clone(&self.watches.latest.borrow());
                    let lines = view::screen(&self.scene(&present), width, height);
                    if screen.draw(&lines).is_err() {
                        return Ok(());
                    }
                }
                Some(request) = self.arrived.recv() => self.count(&request),
                key = keys.recv() => match key {
                    Some(Key::Line) => if self.line.is_cut() { self.line.mend() } else { self.line.cut() },
                    Some(Key::Quit) | None => return Ok(()),
                },
                _ = signals.next() => return Ok(()),
            }
        }
    }

    /// A line a tick.
    async fn in_lines(&mut self, signals: &mut StopSignals) -> Result<(), Exit> {
        say(&format_args!("outhaul demo: {}", self.engine))?;
        let mut due: Option<Instant> = None;
        loop {
            tokio::select! {
                Some(request) = self.arrived.recv() => {
                    let before = self.last_tick;
                    self.count(&request);
                    if self.last_tick != before {
                        due.get_or_insert(Instant::now() + LINE_DELAY);
                    }
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = None;
                    let present = Arc::clone(&self.watches.latest.borrow());
                    say(&view::line(&self.scene(&present)))?;
                }
                _ = signals.next() => return Ok(()),
            }
        }
    }

    fn scene<'a>(&'a self, present: &'a crate::model::Snapshot) -> Scene<'a> {
        let status = Arc::clone(&self.watches.buffer.borrow());
        let ledger = status.endpoints.first().map(|endpoint| endpoint.ledger).unwrap_or_default();
        Scene {
            engine: &self.engine,
            present,
            line_up: !self.line.is_cut(),
            appended: ledger.appended,
            delivered: ledger.delivered,
            backlog: ledger.pending,
            received: self.received,
        }
    }

    /// Counts what arrived, and looks for gaps: outhaul's own tick counter must rise by one each time.
    fn count(&mut self, request: &Decoded) {
        for series in &request.series {
            self.received.samples += series.samples.len() as u64;
            if series.labels.metric_name() != TICK_COUNTER {
                continue;
            }
            for tick in series.samples.iter().map(|(_, value)| value.number()) {
                if self.last_tick.is_some_and(|last| tick <= last) {
                    continue;
                }
                self.received.ticks += 1;
                let expected = self.last_tick.map_or(tick, |last| last + 1.0);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a small whole number, zero at least"
                )]
                let missing = (tick - expected) as u64;
                self.received.gaps += missing;
                self.last_tick = Some(tick);
            }
        }
    }
}
