//! `outhaul run`: sample and ship until stopped.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::signals::StopSignals;
use super::{Configured, Exit, block_on, complain, ended, start_logging};
use crate::agent;
use crate::config::Config;

/// Within this time a signal is the same one again: supervisors signal a process and then its group.
const DOUBLE_SIGNAL: Duration = Duration::from_millis(500);

pub(super) fn main(configured: &Configured) -> Result<Exit, Exit> {
    let config = configured.load()?;
    start_logging(&config)?;
    block_on(run(config))?
}

/// Runs until a signal; the second signal exits at once and loses nothing, because everything is in the buffer already.
async fn run(config: Config) -> Result<Exit, Exit> {
    let mut signals = StopSignals::listen().map_err(|error| {
        complain(&format_args!("signals cannot be handled: {error}"));
        Exit::Failed
    })?;
    let (stop, stopped) = oneshot::channel::<()>();
    let mut agent = std::pin::pin!(agent::run(config, async { drop(stopped.await) }));
    let mut stop = Some(stop);
    let mut stopping_since: Option<Instant> = None;
    loop {
        tokio::select! {
            result = &mut agent => return result.map(|()| Exit::Fine).map_err(|error| ended(&error)),
            name = signals.next() => {
                if stopping_since.is_some_and(|since| since.elapsed() < DOUBLE_SIGNAL) {
                    continue;
                }
                stopping_since.get_or_insert_with(Instant::now);
                let Some(stop) = stop.take() else {
                    tracing::info!(signal = name, "stopping at once");
                    return Ok(Exit::Fine);
                };
                tracing::info!(signal = name, "stopping; send the signal again to stop at once");
                drop(stop);
            }
        }
    }
}
