//! `outhaul buffer`: look into a buffer, check it, carry its samples away and back, send or drop them.
//!
//! What only looks takes no lock and is safe on a running agent's directory; what changes something needs the lock, so a
//! running agent is never surprised. Tables are for people; `--json` is for machines and stays as docs/BUFFER.md says.

mod carry;
mod drain;
mod dump;
mod look;
mod matcher;
mod purge;
mod quarantine;
mod show;
mod text;
mod time;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{Configured, Exit, complain};
use crate::buffer::inspect::{InspectError, Inspection};
use crate::buffer::upkeep::Upkeep;
use crate::buffer::{self, OpenError, SyncPolicy};
use crate::config::Config;

/// Which buffer, and how to answer.
#[derive(Clone, Debug, Args)]
pub(super) struct Place {
    /// The buffer's directory, as buffer.path names it; without it, the configuration's
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    #[command(flatten)]
    configured: Configured,
    /// Answer in JSON, with exact numbers
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Who uses the buffer, how full it is, what each endpoint still waits for
    #[command(after_help = look::STATUS_HELP)]
    Status(Place),
    /// The files of the buffer: segments with positions, instants and samples
    Ls(Place),
    /// Check every checksum and decode every sample; exit code 1 if anything is damaged
    #[command(after_help = verify::HELP)]
    Verify(Place),
    /// Print the samples: as JSON lines, for promtool, or as the bytes on disk
    #[command(after_help = dump::HELP)]
    Dump(dump::Options),
    /// Write what is pending to a file that can be carried to another host
    #[command(after_help = carry::EXPORT_HELP)]
    Export(carry::ExportOptions),
    /// Take in what another host exported, to be sent from here
    #[command(after_help = carry::IMPORT_HELP)]
    Import(carry::ImportOptions),
    /// Send everything that is pending, and end
    #[command(after_help = drain::HELP)]
    Drain(drain::Options),
    /// Drop samples: the old, the delivered, or all
    #[command(after_help = purge::HELP)]
    Purge(purge::Options),
    /// What receivers refused: look at it, send it again
    #[command(subcommand, after_help = quarantine::HELP)]
    Quarantine(quarantine::Command),
}

pub(super) fn main(command: &Command) -> Result<Exit, Exit> {
    match command {
        Command::Status(place) => look::status(place),
        Command::Ls(place) => look::ls(place),
        Command::Verify(place) => verify::main(place),
        Command::Dump(options) => dump::main(options),
        Command::Export(options) => carry::export(options),
        Command::Import(options) => carry::import(options),
        Command::Drain(options) => drain::main(options),
        Command::Purge(options) => purge::main(options),
        Command::Quarantine(command) => quarantine::main(command),
    }
}

/// More than any disk has, and far enough from overflow.
const UNBOUNDED_BYTES: u64 = 1 << 60;
/// How much work a power cut may undo; undone work is done again.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// A place that was found out.
struct Found {
    path: PathBuf,
    /// What is configured, unless only a directory was named.
    config: Option<Config>,
}

impl Place {
    /// From the arguments or the configuration; says on stderr what is wrong with it.
    fn find(&self) -> Result<Found, Exit> {
        let only_a_path = self.configured.config_file.is_none();
        let config = match &self.path {
            Some(_) if only_a_path => None,
            _ => Some(self.configured.load()?),
        };
        let configured = config.as_ref().map(|config| config.buffer.path.clone());
        Ok(Found { path: self.path.clone().or(configured).unwrap_or_default(), config })
    }
}

impl Found {
    fn inspect(&self) -> Result<Inspection, Exit> {
        Inspection::open(&self.path).map_err(|error| unusable(&error))
    }

    /// Whose accounts are kept while the buffer is changed: everybody's who has a place here or will have one.
    fn endpoint_names(&self, inspection: &Inspection) -> Vec<String> {
        let mut names = inspection.endpoint_names();
        let configured = self.config.iter().flat_map(|config| &config.remote_write);
        let missing: Vec<String> =
            configured.map(|endpoint| &endpoint.name).filter(|name| !names.contains(name)).cloned().collect();
        names.extend(missing);
        names
    }

    /// How a buffer is opened to drop what is in it, which makes it no larger.
    fn options(&self, endpoints: Vec<String>) -> buffer::Options {
        buffer::Options {
            path: self.path.clone(),
            max_bytes: UNBOUNDED_BYTES,
            max_age: None,
            min_free: Some(0),
            sync: SyncPolicy::Interval(SYNC_INTERVAL),
            endpoints,
        }
    }

    fn upkeep(&self, inspection: &Inspection) -> Result<Upkeep, Exit> {
        Upkeep::open(self.options(self.endpoint_names(inspection))).map_err(|error| in_use(&error))
    }

    fn max_bytes(&self) -> Option<u64> {
        self.config.as_ref().map(|config| config.buffer.max_bytes)
    }
}

/// Says why a buffer cannot be looked at.
fn unusable(error: &InspectError) -> Exit {
    complain(error);
    Exit::Buffer
}

/// Says why a buffer cannot be had.
fn in_use(error: &OpenError) -> Exit {
    complain(error);
    Exit::Buffer
}

/// Says which endpoints there are, where there is none of this name.
fn check_endpoint(inspection: &Inspection, name: &str) -> Result<(), Exit> {
    if inspection.endpoint(name).is_some() {
        return Ok(());
    }
    let names = inspection.endpoint_names();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    complain(&format_args!("no endpoint {name} has a place in this buffer; those that have: {known}"));
    Err(Exit::Usage)
}

/// Says that something failed which is neither usage nor the buffer.
fn failed(problem: &dyn std::fmt::Display) -> Exit {
    complain(problem);
    Exit::Failed
}
