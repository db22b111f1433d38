//! The log for the asynchronous world: one thread owns it, everybody else sends commands.
//!
//! File operations never block the runtime. Commands are served in order, one at a time; when the thread is behind, senders
//! wait. The numbers are published after every command that changes them.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot, watch};

use crate::model::Snapshot;

use super::fs::{Fs, RealFs};
use super::log::{Log, LogOptions};
use super::quarantine::{Requeued, Verdict};
use super::{AppendError, Appended, EndpointId, Fates, Lease, Limits, OpenError, Options, Position, Status};

/// Commands waiting for the thread.
const QUEUE_MAX: usize = 64;

enum Command {
    Append(Snapshot, oneshot::Sender<Result<Appended, AppendError>>),
    Next(EndpointId, Limits, oneshot::Sender<Option<Lease>>),
    Ack(EndpointId, Position, Fates, oneshot::Sender<()>),
    Quarantine(EndpointId, Vec<Snapshot>, Verdict, oneshot::Sender<()>),
    Requeued(EndpointId, oneshot::Sender<Option<Requeued>>),
    SettleRequeued(EndpointId, String, Fates, oneshot::Sender<()>),
    SaveState(String, Vec<u8>, oneshot::Sender<io::Result<()>>),
    LoadState(String, oneshot::Sender<Option<Vec<u8>>>),
    Close(oneshot::Sender<()>),
}

/// A handle on the buffer; clones share one. Dropping the last closes it.
#[derive(Clone, Debug)]
pub struct Buffer {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Status>>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Command")
    }
}

impl Buffer {
    /// Opens the buffer and starts its thread. Blocks while the directory is read.
    ///
    /// # Errors
    /// When another process has it, or its directory cannot be made, locked or listed. A file's content is never a reason.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        Self::open_log(LogOptions::new(options))
    }

    /// Opens a buffer that is only to be emptied: it does not grow beyond `max_bytes`, and nothing that is there is evicted.
    ///
    /// # Errors
    /// As for [`Buffer::open`].
    pub fn open_to_drain(options: Options) -> Result<Self, OpenError> {
        Self::open_log(LogOptions::keeping_everything(options))
    }

    fn open_log(options: LogOptions) -> Result<Self, OpenError> {
        let path = options.dir.clone();
        let unusable = |source: io::Error| OpenError::Unusable { path: path.clone(), source };
        let log = Log::open(RealFs, options)?;
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        let (publish, status) = watch::channel(Arc::new(log.status()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(unusable)?;
        std::thread::Builder::new()
            .name("outhaul-buffer".to_owned())
            .spawn(move || runtime.block_on(serve(log, queue, publish)))
            .map_err(unusable)?;
        Ok(Self { commands, status })
    }

    /// Keeps a snapshot. When it returns the snapshot is as durable as the sync policy asks, or says that it is not.
    ///
    /// Cancelling the future does not take the snapshot back.
    ///
    /// # Errors
    /// When it is too large for this buffer, or the buffer is closed. A full or failing disk is no error.
    pub async fn append(&self, snapshot: Snapshot) -> Result<Appended, AppendError> {
        self.ask(|reply| Command::Append(snapshot, reply)).await.unwrap_or(Err(AppendError::Closed))
    }

    /// The oldest snapshots `endpoint` has not acknowledged; `None` when there are none now. Reading is not consuming:
    /// asked again without an acknowledgement, it gives the same, within `limits`.
    ///
    /// The first lease after a start ends where the last one before ended, so that a request that may have been received
    /// is made again as it was.
    pub async fn next(&self, endpoint: EndpointId, limits: Limits) -> Option<Lease> {
        self.ask(|reply| Command::Next(endpoint, limits, reply)).await.flatten()
    }

    /// Settles the current lease of `endpoint` up to and including `through`; `fates` must add up to the samples settled.
    pub async fn ack(&self, endpoint: EndpointId, through: Position, fates: Fates) {
        // A closed buffer gives the lease again after the next start.
        self.ask(|reply| Command::Ack(endpoint, through, fates, reply)).await;
    }

    /// Keeps samples of the current lease that the receiver of `endpoint` will never take, for people to look at. They are
    /// still to be acknowledged as refused.
    pub async fn quarantine(&self, endpoint: EndpointId, snapshots: Vec<Snapshot>, verdict: Verdict) {
        self.ask(|reply| Command::Quarantine(endpoint, snapshots, verdict, reply)).await;
    }

    /// Refused samples of `endpoint` that somebody wants sent again. They are older than what was delivered since.
    pub async fn requeued(&self, endpoint: EndpointId) -> Option<Requeued> {
        self.ask(|reply| Command::Requeued(endpoint, reply)).await.flatten()
    }

    /// What became of requeued samples; they leave the quarantine. What was refused again must have been quarantined again.
    pub async fn settle_requeued(&self, endpoint: EndpointId, id: &str, fates: Fates) {
        self.ask(|reply| Command::SettleRequeued(endpoint, id.to_owned(), fates, reply)).await;
    }

    /// The numbers, whenever they change: how a shipper waits for data. Ends when the buffer is closed.
    pub fn changes(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// The numbers now.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status.borrow())
    }

    /// Replaces the value kept under `name`, at most 16 MiB. After a failure this one or the one before is found later.
    ///
    /// # Errors
    /// When it is too long, there is no room, the file system says no, or the buffer is closed.
    pub async fn save_state(&self, name: &str, bytes: Vec<u8>) -> io::Result<()> {
        let closed = || Err(io::Error::new(io::ErrorKind::BrokenPipe, AppendError::Closed));
        self.ask(|reply| Command::SaveState(name.to_owned(), bytes, reply)).await.unwrap_or_else(closed)
    }

    /// The value kept under `name`; `None` also when it is damaged.
    pub async fn load_state(&self, name: &str) -> Option<Vec<u8>> {
        self.ask(|reply| Command::LoadState(name.to_owned(), reply)).await.flatten()
    }

    /// Forces everything to the disk and gives up the lock. Other handles find the buffer closed.
    pub async fn close(self) {
        self.ask(Command::Close).await;
    }

    /// `None` when the thread is gone.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// Serves until told to close or nobody is left to ask.
async fn serve<F: Fs>(mut log: Log<F>, mut queue: mpsc::Receiver<Command>, publish: watch::Sender<Arc<Status>>) {
    loop {
        let due = log.deadline();
        let command = tokio::select! {
            biased;
            command = queue.recv() => command,
            () = until(due) => {
                log.tick(Instant::now());
                publish.send_replace(Arc::new(log.status()));
                continue;
            }
        };
        let changed = match command {
            Some(Command::Close(reply)) => {
                close(&mut log, &publish);
                // Whoever asked may have gone.
                reply.send(()).ok();
                return;
            }
            Some(command) => obey(&mut log, command),
            None => return close(&mut log, &publish),
        };
        if let Changed::Yes(reply) = changed {
            // Whoever asks whenever something changes must be able to rest: what others do to the disk is no change.
            publish.send_if_modified(|published| {
                let status = log.status();
                let changed = **published != Status { free_bytes: published.free_bytes, ..status.clone() };
                *published = Arc::new(status);
                changed
            });
            reply();
        }
    }
}

/// Whether a command changed the numbers; the answer is given after they are published.
enum Changed {
    Yes(Box<dyn FnOnce()>),
    No,
}

/// Carries a command out. A receiver that has gone does not want its answer, which is no failure.
fn obey<F: Fs>(log: &mut Log<F>, command: Command) -> Changed {
    match command {
        Command::Append(snapshot, reply) => {
            let result = log.append(snapshot, Instant::now());
            Changed::Yes(Box::new(move || drop(reply.send(result))))
        }
        Command::Next(endpoint, limits, reply) => {
            let lease = log.next(endpoint.0, limits);
            Changed::Yes(Box::new(move || drop(reply.send(lease))))
        }
        Command::Ack(endpoint, through, fates, reply) => {
            log.ack(endpoint.0, through.0, fates);
            log.note_ack(endpoint.0, Instant::now());
            Changed::Yes(Box::new(move || reply.send(()).unwrap_or_default()))
        }
        Command::Quarantine(endpoint, snapshots, verdict, reply) => {
            log.quarantine(endpoint.0, &snapshots, &verdict);
            Changed::Yes(Box::new(move || reply.send(()).unwrap_or_default()))
        }
        Command::Requeued(endpoint, reply) => {
            drop(reply.send(log.requeued(endpoint.0)));
            Changed::No
        }
        Command::SettleRequeued(endpoint, id, fates, reply) => {
            log.settle_requeued(endpoint.0, &id, fates);
            Changed::Yes(Box::new(move || reply.send(()).unwrap_or_default()))
        }
        Command::SaveState(name, value, reply) => {
            let result = log.save_state(&name, &value);
            Changed::Yes(Box::new(move || drop(reply.send(result))))
        }
        Command::LoadState(name, reply) => {
            drop(reply.send(log.load_state(&name)));
            Changed::No
        }
        Command::Close(_) => Changed::No,
    }
}

fn close<F: Fs>(log: &mut Log<F>, publish: &watch::Sender<Arc<Status>>) {
    log.close(Instant::now());
    let status = Arc::new(log.status());
    tracing::info!(segments = status.segments, used_bytes = status.used_bytes, "buffer closed");
    publish.send_replace(status);
}

async fn until(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
