//! `outhaul once`: one snapshot, delivered or exit 1.

use clap::Args;

use super::{Configured, Exit, block_on, complain, ended, say, start_logging};
use crate::{agent, encode};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    configured: Configured,
    /// Say that every series ends with this snapshot (stale markers): for a host or runner that goes away
    #[arg(long)]
    end: bool,
}

pub(super) fn main(options: &Options) -> Result<Exit, Exit> {
    let config = options.configured.load()?;
    start_logging(&config)?;
    let local_only = config.remote_write.is_empty() && config.pushgateway.is_none();
    let end = if options.end { agent::End::Marked } else { agent::End::Unmarked };
    let outcome = block_on(agent::once(config, end))?.map_err(|error| ended(&error))?;
    if local_only {
        say(&encode::text::expose(&outcome.snapshot.samples).trim_end())?;
    }
    for line in &outcome.delivered {
        say(line)?;
    }
    for problem in &outcome.problems {
        complain(problem);
    }
    if outcome.problems.is_empty() { Ok(Exit::Fine) } else { Err(Exit::Failed) }
}
