//! The event stream's reader: a future of its own, so that the engine never waits for sampling.
//!
//! Docker drops what a subscriber does not take within 100 ms, so the reader only decodes and passes on, through a
//! bounded channel, without waiting; what finds the channel full is lost, counted, and made known as a gap. A broken
//! stream is opened again with `since`, a little before the last event, so that nothing falls between two streams; what
//! comes twice is recognised by the table. Whether `since` reaches far enough is asked first: Docker keeps the last 256
//! events of any kind, and none across its own restart.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::api::{Api, ApiError, escape};
use super::events::{ACTIONS, Decoder, Event};
use super::seen::OVERLAP;
use super::self_metrics::SourceMetrics;
use super::wire::WantedLabels;
use crate::clock::Clock;
use crate::source::FailureReason;

/// How many events may wait for sampling.
pub(crate) const QUEUED_EVENTS: usize = 1024;
/// The first wait before the stream is opened again; it doubles.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait before the stream is opened again.
const LAST_BACKOFF: Duration = Duration::from_secs(30);
/// How long a replay may stay silent; it is not live, so silence is its end.
const REPLAY_SILENCE: Duration = Duration::from_secs(5);
/// How long catching up may take; an engine whose clock is behind would replay for ever. The rest comes with the live stream.
const CATCH_UP: Duration = Duration::from_secs(10);
/// A stream that lasted this long was a good one: the next is opened at once.
const GOOD_STREAM: Duration = Duration::from_secs(10);
/// A remote stream is opened anew this often, because a line can die without a word.
const REMOTE_STREAM_AGE: Duration = Duration::from_secs(300);

/// What the reader passes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    /// Something happened.
    Event(Event),
    /// Something may have happened that will never be heard of.
    Gap,
}

/// How the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamStatus {
    /// Being opened; what was missed is being replayed.
    Opening,
    /// Open, and everything before is passed on.
    Up,
    /// Could not be opened, or broke.
    Down(FailureReason),
}

/// What reader and source share besides the channel.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// Wakes the reader out of its wait, or makes it open the stream anew.
    pub(crate) nudge: Arc<Notify>,
    /// Up to here, in nanoseconds since the Unix epoch, a list proved that nothing was missed.
    pub(crate) proven_nanos: Arc<AtomicI64>,
}

/// Reads one engine's events. A future to be run beside the source; it ends when the source is dropped.
#[derive(Debug)]
pub struct EventReader {
    pub(crate) name: String,
    pub(crate) api: Arc<Api>,
    pub(crate) wanted: WantedLabels,
    pub(crate) feed: mpsc::Sender<Feed>,
    pub(crate) status: watch::Sender<StreamStatus>,
    pub(crate) shared: Shared,
    pub(crate) metrics: SourceMetrics,
    pub(crate) clock: Clock,
    /// The time of the last event passed on, in nanoseconds since the Unix epoch.
    pub(crate) position: Position,
    /// A gap that is not passed on yet.
    pub(crate) owed: Owed,
}

/// Where in the stream to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// Nothing was asked before: from here on.
    Fresh(i64),
    /// The stream was open from here on, and nothing happened.
    Quiet(i64),
    /// Everything up to here was heard.
    Heard(i64),
}

impl Position {
    /// Up to where it must be proven that the engine remembers; nothing is to be proven the first time.
    fn to_prove(self) -> Option<i64> {
        match self {
            Self::Fresh(_) => None,
            Self::Quiet(at) | Self::Heard(at) => Some(at),
        }
    }
}

/// Whether the source must still be told of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    Nothing,
    Gap,
}

/// Why a stream is not read on.
enum End {
    /// It broke.
    Broken(ApiError),
    /// It is to be opened anew.
    Renewed,
    /// Nobody listens any more.
    Unheard,
}

impl EventReader {
    /// Reads until the source is dropped.
    pub async fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let opened = Instant::now();
            let end = self.session().await;
            match end {
                End::Unheard => return,
                End::Renewed => backoff = FIRST_BACKOFF,
                End::Broken(error) => {
                    let told = self.api.explain("GET /events", &error);
                    tracing::warn!(source = %self.name, error = %told, "event stream is down, opening it again");
                    self.set_status(StreamStatus::Down(told.reason));
                    if opened.elapsed() >= GOOD_STREAM {
                        backoff = FIRST_BACKOFF;
                    }
                    tokio::select! {
                        () = sleep(backoff) => {}
                        () = self.shared.nudge.notified() => {}
                        () = self.feed.closed() => return,
                    }
                    backoff = (backoff * 2).min(LAST_BACKOFF);
                    self.set_status(StreamStatus::Opening);
                }
            }
            self.metrics.reconnects.inc();
        }
    }

    fn set_status(&self, status: StreamStatus) {
        self.metrics.stream_up.set(if status == StreamStatus::Up { 1.0 } else { 0.0 });
        self.status.send_replace(status);
    }

    /// Opens the stream, catches up, and reads until it ends.
    async fn session(&mut self) -> End {
        match self.catch_up().await {
            ControlFlow::Continue(()) => {}
            ControlFlow::Break(end) => return end,
        }
        let live = match self.api.stream(&Self::events_path(self.since(), None)) {
            Ok(live) => live,
            Err(error) => return End::Broken(error),
        };
        if *self.status.borrow() != StreamStatus::Up {
            tracing::info!(source = %self.name, "event stream is up");
            self.set_status(StreamStatus::Up);
        }
        self.follow(live).await
    }

    /// Passes on what happened since the last event, after asking whether all of it is still there.
    async fn catch_up(&mut self) -> ControlFlow<End> {
        if let Some(position) = self.position.to_prove() {
            let proven = position.max(self.shared.proven_nanos.load(Ordering::Relaxed));
            match self.oldest().await {
                Ok(Some(oldest)) if oldest <= proven => {}
                Ok(_) => self.note_gap("the engine does not remember far enough back"),
                Err(error) => return ControlFlow::Break(End::Broken(error)),
            }
        }
        let path = Self::events_path(self.since(), Some(self.until()));
        let mut replay = match self.api.stream(&path) {
            Ok(replay) => replay,
            Err(error) => return ControlFlow::Break(End::Broken(error)),
        };
        let mut decoder = Decoder::default();
        let limit = Instant::now() + CATCH_UP;
        while let Ok(Some(piece)) = timeout_at(limit.min(Instant::now() + REPLAY_SILENCE), replay.next()).await {
            let events = match piece.and_then(|piece| self.decode(&mut decoder, &piece)) {
                Ok(events) => events,
                Err(error) => return ControlFlow::Break(End::Broken(error)),
            };
            for event in events {
                self.advance(&event);
                // A replay waits for us, unlike what is live.
                if self.feed.send(Feed::Event(event)).await.is_err() {
                    return ControlFlow::Break(End::Unheard);
                }
            }
        }
        if let Position::Fresh(start) = self.position {
            self.position = Position::Quiet(start);
        }
        ControlFlow::Continue(())
    }

    /// The time of the oldest event the engine remembers, of any kind.
    async fn oldest(&self) -> Result<Option<i64>, ApiError> {
        let mut all = self.api.stream(&format!("/events?since=0&until={}", seconds(self.until())))?;
        let mut decoder = Decoder::default();
        while let Ok(Some(piece)) = timeout(REPLAY_SILENCE, all.next()).await {
            let heard = decoder.push(&piece?, &self.wanted).map_err(|error| nonsense(&error))?;
            if let Some(oldest) = heard.oldest_nanos {
                return Ok(Some(oldest));
            }
        }
        Ok(None)
    }

    async fn follow(&mut self, mut live: BoxStream<'static, Result<bytes::Bytes, ApiError>>) -> End {
        let feed = self.feed.clone();
        let nudge = Arc::clone(&self.shared.nudge);
        let mut decoder = Decoder::default();
        let renew = Instant::now() + REMOTE_STREAM_AGE;
        loop {
            tokio::select! {
                piece = live.next() => {
                    let Some(piece) = piece else {
                        return End::Broken(ApiError::Line(std::io::ErrorKind::UnexpectedEof, "the stream ended".into()));
                    };
                    match piece.and_then(|piece| self.decode(&mut decoder, &piece)) {
                        Ok(events) => events.into_iter().for_each(|event| self.pass_on(event)),
                        Err(error) => return End::Broken(error),
                    }
                }
                permit = feed.reserve(), if self.owed == Owed::Gap => {
                    let Ok(permit) = permit else { return End::Unheard };
                    permit.send(Feed::Gap);
                    self.owed = Owed::Nothing;
                }
                () = nudge.notified() => return End::Renewed,
                () = sleep_until(renew), if self.api.is_remote() => return End::Renewed,
                () = feed.closed() => return End::Unheard,
            }
        }
    }

    fn decode(&self, decoder: &mut Decoder, piece: &[u8]) -> Result<Vec<Event>, ApiError> {
        let heard = decoder.push(piece, &self.wanted).map_err(|error| nonsense(&error))?;
        self.metrics.odd.inc_by(heard.odd);
        Ok(heard.events)
    }

    /// Passes a live event on without waiting.
    fn pass_on(&mut self, event: Event) {
        self.advance(&event);
        if self.feed.try_send(Feed::Event(event)).is_err() {
            self.metrics.dropped.inc();
            if self.owed == Owed::Nothing {
                self.note_gap("sampling does not keep up");
            }
        }
    }

    fn advance(&mut self, event: &Event) {
        self.metrics.events.inc();
        self.position = Position::Heard(event.at_nanos);
    }

    fn note_gap(&mut self, reason: &'static str) {
        self.metrics.gaps.inc();
        self.owed = Owed::Gap;
        tracing::warn!(source = %self.name, reason, "events are missing, asking every container for its state");
    }

    /// From where to ask, in nanoseconds since the Unix epoch.
    fn since(&self) -> i64 {
        match self.position {
            Position::Fresh(start) | Position::Quiet(start) => start,
            Position::Heard(last) => last.saturating_sub(i64::try_from(OVERLAP.as_nanos()).unwrap_or(i64::MAX)),
        }
    }

    /// Until when to replay, in nanoseconds since the Unix epoch: now, and never before `since`, which engines refuse; an
    /// engine whose clock is ahead gave us a position in our future.
    fn until(&self) -> i64 {
        let heard = self.position.to_prove().unwrap_or(0);
        self.clock.now().millis().saturating_mul(1_000_000).max(heard).max(self.since())
    }

    fn events_path(since: i64, until: Option<i64>) -> String {
        let actions = ACTIONS.map(|action| format!("\"{action}\"")).join(",");
        let filters = escape(&format!("{{\"type\":[\"container\"],\"event\":[{actions}]}}"));
        let until = until.map_or(String::new(), |until| format!("&until={}", seconds(until)));
        format!("/events?since={}{until}&filters={filters}", seconds(since))
    }
}

fn nonsense(error: &super::events::StreamError) -> ApiError {
    ApiError::Nonsense(super::api::one_line(&error.to_string()))
}

/// An instant as the engine reads it (`api/types/time`): seconds and nanoseconds.
fn seconds(nanos: i64) -> String {
    let nanos = nanos.max(0);
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_with_all_their_digits() {
        assert_eq!(seconds(1_795_226_444_035_857_779), "1795226444.035857779");
        assert_eq!(seconds(5), "0.000000005");
        assert_eq!(seconds(-5), "0.000000000");
    }
}
