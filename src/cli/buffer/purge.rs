//! `buffer purge`: drop samples on purpose, counted.

use std::io::{IsTerminal as _, Write as _};

use clap::Args;
use serde_json::json;

use super::dump::instant;
use super::text::{bytes, count};
use super::{Place, check_endpoint};
use crate::buffer::upkeep::{Purge, Purged, Upkeep, would_purge};
use crate::cli::{Exit, complain, say};

pub(super) const HELP: &str = "Needs the buffer for itself: stop the agent first. Asks before it drops anything that is still wanted, unless --yes. What is
dropped is counted for every endpoint as evicted, reason purged.

--before drops, for each endpoint, what lies before the first record that is not older; --delivered drops only files that
nobody waits for any more, and never a sample.

Examples:
  outhaul buffer purge --before 2d
  outhaul buffer purge --all --endpoint old-receiver --yes

Exit codes: 0 fine, 1 not confirmed, 64 usage or configuration, 73 the buffer is in use or unusable.";

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = false, args = ["before", "delivered", "all"])]
pub(in crate::cli) struct Options {
    #[command(flatten)]
    place: Place,
    /// What is older than this
    #[arg(long, value_name = "TIME")]
    before: Option<String>,
    /// Only what no endpoint waits for any more
    #[arg(long)]
    delivered: bool,
    /// Everything
    #[arg(long)]
    all: bool,
    /// Only for this endpoint
    #[arg(long, value_name = "NAME", conflicts_with = "delivered")]
    endpoint: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(super) fn main(options: &Options) -> Result<Exit, Exit> {
    let before = instant("--before", options.before.as_ref())?;
    let found = options.place.find()?;
    let inspection = found.inspect()?;
    if let Some(name) = &options.endpoint {
        check_endpoint(&inspection, name)?;
    }
    let what = match before {
        Some(time) => Purge::Before(time),
        None if options.all => Purge::All,
        // Opening the log removes what everybody has passed.
        None => Purge::Through(0),
    };
    let endpoint = options.endpoint.as_deref();
    let used_before = inspection.used_bytes;
    let mut upkeep = found.upkeep(&inspection)?;
    let purged = if options.delivered {
        Ok(Purged { samples: Vec::new(), used_bytes: (used_before, 0) })
    } else {
        purge(&mut upkeep, what, endpoint, options.yes)
    };
    upkeep.close();
    let purged = purged?;
    let used_after = found.inspect()?.used_bytes;
    tell(options, &purged, (used_before, used_after))
}

fn purge(upkeep: &mut Upkeep, what: Purge, endpoint: Option<&str>, yes: bool) -> Result<Purged, Exit> {
    let wanted = would_purge(&upkeep.inspect().map_err(|error| super::unusable(&error))?, what, endpoint);
    if !yes && wanted.iter().any(|(_, samples)| *samples > 0) && !is_confirmed(&wanted)? {
        complain(&"nothing was dropped");
        return Err(Exit::Failed);
    }
    upkeep.purge(what, endpoint).map_err(|error| super::unusable(&error))
}

fn tell(options: &Options, purged: &Purged, (before, after): (u64, u64)) -> Result<Exit, Exit> {
    let freed = before.saturating_sub(after);
    if options.place.json {
        let samples = purged.samples.iter().map(|(name, samples)| json!({"name": name, "purged_samples": samples}));
        say(&json!({"endpoints": samples.collect::<Vec<_>>(), "freed_bytes": freed, "used_bytes": after}))?;
        return Ok(Exit::Fine);
    }
    for (name, samples) in &purged.samples {
        say(&format_args!("{name}: {} samples dropped", count(*samples)))?;
    }
    say(&format_args!("{} freed, {} in use", bytes(freed), bytes(after)))?;
    Ok(Exit::Fine)
}

fn is_confirmed(wanted: &[(String, u64)]) -> Result<bool, Exit> {
    if !std::io::stdin().is_terminal() {
        complain(&"this drops samples that were not delivered, and nobody is here to be asked; say --yes");
        return Err(Exit::Usage);
    }
    for (name, samples) in wanted {
        complain(&format_args!("{} samples that {name} still waits for will be dropped for good", count(*samples)));
    }
    drop(write!(std::io::stderr().lock(), "outhaul: drop them? [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}
