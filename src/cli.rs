//! Arguments → configuration → runtime → exit code. One file per subcommand.
//!
//! The only place that prints to the terminal, and the only one that knows exit codes.

mod buffer;
mod check;
mod decode;
mod demo;
mod once;
mod receive;
mod run;
mod signals;

use std::ffi::OsString;
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::agent::AgentError;
use crate::config::{self, Config, Environment};
use crate::log;

/// Why the program ended, for whoever started it. The numbers 64, 70 and 73 are those of `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// The work failed.
    Failed = 1,
    /// Usage or configuration (`EX_USAGE`).
    Usage = 64,
    /// A vital task died (`EX_SOFTWARE`).
    Died = 70,
    /// The buffer is in use or unusable (`EX_CANTCREAT`).
    Buffer = 73,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Pushes what this host's containers are doing by Prometheus remote-write, and keeps it on disk while the line is down.
#[derive(Debug, Parser)]
#[command(name = "outhaul", version, long_version = LONG_VERSION, disable_help_subcommand = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// As the Prometheus family prints it: name and version first, then what it was built for.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\n  minimum rust version: ",
    env!("CARGO_PKG_RUST_VERSION"),
    "\n  license:              ",
    env!("CARGO_PKG_LICENSE"),
);

#[derive(Debug, Subcommand)]
enum Command {
    /// Sample and ship until stopped
    Run(Configured),
    /// Take one snapshot, deliver it, and exit; exit code 1 if it could not be delivered
    Once(once::Options),
    /// Check the configuration and touch nothing else
    Check(Configured),
    /// Show all of it in one process, with nothing to set up
    Demo(demo::Options),
    /// Be a remote-write receiver that prints what it gets
    Receive(receive::Options),
    /// Look into the buffer, check it, carry its samples away, send or drop them
    #[command(subcommand)]
    Buffer(buffer::Command),
    /// Print a captured remote-write request body
    Decode(decode::Options),
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Configured {
    /// The YAML file; /etc/outhaul/outhaul.yml where it exists and none is named
    #[arg(long = "config.file", value_name = "FILE", env = "OUTHAUL_CONFIG_FILE")]
    config_file: Option<PathBuf>,
}

impl Configured {
    /// Loads and validates, or says on stderr what is wrong.
    fn load(&self) -> Result<Config, Exit> {
        config::load(self.config_file.as_deref(), &Environment::of_process()).map_err(|error| {
            complain(&error);
            Exit::Usage
        })
    }
}

/// The whole program.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return unparsed(&error).into(),
    };
    match arguments.command {
        Command::Run(configured) => run::main(&configured),
        Command::Once(options) => once::main(&options),
        Command::Check(configured) => check::main(&configured),
        Command::Demo(options) => demo::main(&options),
        Command::Receive(options) => receive::main(&options),
        Command::Buffer(command) => buffer::main(&command),
        Command::Decode(options) => decode::main(&options),
    }
    .unwrap_or_else(|exit| exit)
    .into()
}

/// Help and version are answers; anything else is a mistake in the command line.
fn unparsed(error: &clap::Error) -> Exit {
    // Nobody is left to tell when even this cannot be printed.
    drop(error.print());
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Fine,
        _ => Exit::Usage,
    }
}

/// Says what went wrong, on stderr, a line a problem.
fn complain(problem: &dyn std::fmt::Display) {
    let mut out = std::io::stderr().lock();
    for line in problem.to_string().lines() {
        drop(writeln!(out, "outhaul: {line}"));
    }
}

/// Says something on stdout; `Err` when nobody listens any more (a closed pipe), which ends the program quietly, or when it
/// cannot be written, which does not.
fn say(text: &dyn std::fmt::Display) -> Result<(), Exit> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(|error| {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Exit::Fine;
        }
        complain(&format_args!("the output cannot be written: {error}"));
        Exit::Failed
    })
}

/// From here on, what the program has to say goes to stderr as configured.
fn start_logging(config: &Config) -> Result<(), Exit> {
    log::init(&config.log).map_err(|error| {
        complain(&format_args!("logging cannot start: {error}"));
        Exit::Failed
    })
}

/// Runs `work` on the one-threaded runtime everything lives on.
fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        complain(&format_args!("the runtime cannot start: {error}"));
        Exit::Failed
    })?;
    Ok(runtime.block_on(work))
}

/// The exit code for an agent that ended badly, having said why.
fn ended(error: &AgentError) -> Exit {
    complain(error);
    match error {
        AgentError::Buffer(_) => Exit::Buffer,
        AgentError::TaskDied { .. } => Exit::Died,
        AgentError::Source(_) => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_and_version_are_fine_and_mistakes_are_usage_errors() {
        let exit = |arguments: &[&str]| unparsed(&Arguments::try_parse_from(arguments).unwrap_err());
        assert_eq!(exit(&["outhaul", "--help"]), Exit::Fine);
        assert_eq!(exit(&["outhaul", "--version"]), Exit::Fine);
        assert_eq!(exit(&["outhaul"]), Exit::Usage);
        assert_eq!(exit(&["outhaul", "rnu"]), Exit::Usage);
    }
}
