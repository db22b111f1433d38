//! The two signals that stop the program, and the one that does not.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGINT is a person's Ctrl-C, SIGTERM is what systemd, Docker and Kubernetes send.
pub(super) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    /// Starts listening; from now on neither signal ends the process by itself.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves with the next one's name. A hang-up is no reason to stop: who asks for a reload by it must not end up with
    /// no outhaul at all.
    pub(super) async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP is ignored: a changed configuration takes effect at the next start");
                }
            }
        }
    }
}
