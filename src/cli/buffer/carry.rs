//! `buffer export` and `import`: samples travel in a pocket where no network goes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::show::Progress;
use super::text::{bytes, count, counted};
use super::{Found, Place, check_endpoint, failed};
use crate::buffer::carry::{self, ExportFile, Exported};
use crate::buffer::inspect::{Inspection, Selection};
use crate::buffer::upkeep::{Imported, Purge, Upkeep};
use crate::cli::{Exit, complain, say};
use crate::clock::Clock;
use crate::config;
use crate::model::Timestamp;

pub(super) const EXPORT_HELP: &str = "Writes what is pending (for any endpoint, or the one that is named) to a file that checks itself. The file appears when it is
complete and on disk, and replaces none without --overwrite; `-` is stdout. Without --purge this takes no lock and changes nothing: safe while an agent runs.

Examples:
  outhaul buffer export /media/stick/till-3.ohx
  outhaul buffer export --endpoint mimir --purge /media/stick/till-3.ohx
  outhaul buffer export - | ssh hub 'outhaul buffer import -'

Exit codes: 0 fine, 1 some records could not be read or the file not written, 64 usage or configuration, 73 no buffer, or (with
--purge) it is in use.";

pub(super) const IMPORT_HELP: &str = "Appends the samples of a file to this buffer, for all its endpoints, with their original times. The agent here sends them
when it runs again. Stop it first: this needs the buffer for itself.

What was imported is remembered by the buffer it comes from and its position there: a file that is imported twice, or two that
overlap, add nothing twice (--again overrides). An import that was interrupted goes on where it was. Nothing is evicted to make
room. What a damaged or cut-off file still holds is imported.

Exit codes: 0 everything was imported or known, 1 something could not be, 64 usage or configuration, 73 the buffer is in use or
unusable.";

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportOptions {
    /// The file to write; - is stdout
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Only what this endpoint still waits for
    #[arg(long, value_name = "NAME", conflicts_with = "all")]
    endpoint: Option<String>,
    /// Everything that is on disk, also what was delivered
    #[arg(long)]
    all: bool,
    /// Then drop what was exported (counted as purged); needs the buffer for itself
    #[arg(long, conflicts_with = "all")]
    purge: bool,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ImportOptions {
    /// The file to read; - is stdin
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Also what was imported before
    #[arg(long)]
    again: bool,
    /// With --path: never let the buffer grow beyond this; use the bound of the agent that will send it
    #[arg(long, value_name = "SIZE", value_parser = config::size)]
    max_bytes: Option<u64>,
}

pub(super) fn export(options: &ExportOptions) -> Result<Exit, Exit> {
    // With --purge, the file before may hold samples that are nowhere else.
    if !options.overwrite && is_there(&options.file) {
        let file = options.file.display();
        complain(&format_args!("{file} is there already; name another file, or replace it with --overwrite"));
        return Err(Exit::Usage);
    }
    let found = options.place.find()?;
    let inspection = found.inspect()?;
    if let Some(name) = &options.endpoint {
        check_endpoint(&inspection, name)?;
    }
    let mut upkeep = if options.purge { Some(found.upkeep(&inspection)?) } else { None };
    let exported = write_and_purge(options, &found, inspection, upkeep.as_mut());
    if let Some(upkeep) = upkeep {
        upkeep.close();
    }
    let exported = exported?;
    tell_exported(options, &exported)?;
    if exported.damaged > 0 {
        return Err(failed(&format_args!("{} records could not be read and are not in the file", exported.damaged)));
    }
    Ok(Exit::Fine)
}

fn write_and_purge(
    options: &ExportOptions,
    found: &Found,
    inspection: Inspection,
    upkeep: Option<&mut Upkeep>,
) -> Result<Exported, Exit> {
    let inspection = if upkeep.is_some() { found.inspect()? } else { inspection };
    let passed = match &options.endpoint {
        _ if options.all => 0,
        Some(name) => inspection.endpoint(name).map_or(0, |endpoint| endpoint.acked.number()),
        None => inspection.passed_by_all(),
    };
    let selection = Selection { from: Some(passed + 1), ..Selection::default() };
    let mut progress = Progress::new("exporting");
    let written = write(options, &inspection, selection, &mut progress);
    drop(progress);
    let exported = written
        .map_err(|error| failed(&format_args!("{} cannot be written: {error}", named(&options.file, "stdout"))))?;
    if let (Some(upkeep), Some(last)) = (upkeep, exported.last_position) {
        upkeep.purge(Purge::Through(last), options.endpoint.as_deref()).map_err(|error| super::unusable(&error))?;
    }
    Ok(exported)
}

fn tell_exported(options: &ExportOptions, exported: &Exported) -> Result<(), Exit> {
    let is_stdout = is_stdio(&options.file);
    let text = if options.place.json {
        json!({
            "file": options.file,
            "snapshots": exported.snapshots,
            "samples": exported.samples,
            "bytes": exported.bytes,
            "first_at_ms": exported.instants.map(|(first, _)| first.millis()),
            "newest_at_ms": exported.instants.map(|(_, newest)| newest.millis()),
            "last_position": exported.last_position,
            "damaged_records": exported.damaged,
            "purged": options.purge,
        })
        .to_string()
    } else {
        let purged = if options.purge { ", and dropped from the buffer" } else { "" };
        let samples = count(exported.samples);
        format!("exported {samples} samples{}, {}{purged}", range(exported.instants), bytes(exported.bytes))
    };
    if is_stdout {
        complain(&text);
        return Ok(());
    }
    say(&text)
}

fn is_stdio(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn is_there(file: &Path) -> bool {
    !is_stdio(file) && file.symlink_metadata().is_ok()
}

fn named(file: &Path, stream: &str) -> String {
    if is_stdio(file) { stream.to_owned() } else { file.display().to_string() }
}

fn range(instants: Option<(Timestamp, Timestamp)>) -> String {
    instants.map_or_else(String::new, |(first, newest)| format!(" from {first} to {newest}"))
}

/// Writes a file that is either not there or whole: under another name first, forced to the disk, then renamed.
fn write(
    options: &ExportOptions,
    inspection: &Inspection,
    selection: Selection,
    progress: &mut Progress,
) -> io::Result<Exported> {
    let file = options.file.as_path();
    let now = Clock::system().now();
    let mut told = |done, total| progress.bytes(done, total);
    if is_stdio(file) {
        let mut out = BufWriter::new(io::stdout().lock());
        return carry::export(inspection, selection, now, &mut out, &mut told);
    }
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new().prefix(".outhaul-export-").tempfile_in(parent)?;
    let mut out = BufWriter::new(temporary.as_file_mut());
    let exported = carry::export(inspection, selection, now, &mut out, &mut told)?;
    out.flush()?;
    drop(out);
    temporary.as_file().sync_all()?;
    // Asked again, because that took a while; not every file system of a stick can do both at once.
    if !options.overwrite && is_there(file) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    temporary.persist(file).map_err(|error| error.error)?;
    File::open(parent)?.sync_all()?;
    Ok(exported)
}

pub(super) fn import(options: &ImportOptions) -> Result<Exit, Exit> {
    let found = options.place.find()?;
    let settings = import_settings(options, &found)?;
    let spooled = spool(&options.file).map_err(|error| failed(&format_args!("stdin cannot be read: {error}")))?;
    let path = spooled.as_ref().map_or(options.file.as_path(), |spooled| spooled.path());
    let file = ExportFile::open(path).map_err(|error| failed(&error))?;
    let mut upkeep = Upkeep::open(settings).map_err(|error| super::in_use(&error))?;
    let mut progress = Progress::new("importing");
    let imported = upkeep.import(&file, options.again, &mut |done, total| progress.bytes(done, total));
    drop(progress);
    upkeep.close();
    tell_imported(options, &found, &file, &imported)
}

/// What the buffer is opened with; never without a bound, and never without anybody who would send what is imported.
fn import_settings(options: &ImportOptions, found: &Found) -> Result<crate::buffer::Options, Exit> {
    let usage = |problem: &str| {
        complain(&problem);
        Exit::Usage
    };
    let names = match &found.config {
        Some(config) => config.remote_write.iter().map(|endpoint| endpoint.name.clone()).collect(),
        None => found.inspect()?.endpoint_names(),
    };
    if names.is_empty() {
        return Err(usage(
            "no endpoint would send what is imported; configure remote_write, or let an agent use the buffer first",
        ));
    }
    let bound = options.max_bytes.or(found.max_bytes());
    let Some(max_bytes) = bound else {
        return Err(usage(
            "with --path, --max-bytes is needed: the agent's buffer.max_bytes, beyond which it would drop samples",
        ));
    };
    let min_free = found.config.as_ref().and_then(|config| config.buffer.min_free);
    Ok(crate::buffer::Options { max_bytes, min_free, ..found.options(names) })
}

/// Stdin cannot be read twice, so it goes to a file that is gone when it is closed.
fn spool(file: &Path) -> io::Result<Option<tempfile::NamedTempFile>> {
    if !is_stdio(file) {
        return Ok(None);
    }
    let mut spooled = tempfile::NamedTempFile::new()?;
    io::copy(&mut io::stdin().lock(), spooled.as_file_mut())?;
    Ok(Some(spooled))
}

fn tell_imported(options: &ImportOptions, found: &Found, file: &ExportFile, imported: &Imported) -> Result<Exit, Exit> {
    let read = imported.snapshots + imported.known;
    let missing = file.promised.map(|(snapshots, _)| snapshots.saturating_sub(read));
    let is_whole = imported.stopped.is_some() || (missing == Some(0) && file.stray_bytes == 0);
    if options.place.json {
        say(&json!({
            "file": options.file,
            "snapshots": imported.snapshots,
            "samples": imported.samples,
            "first_at_ms": imported.instants.map(|(first, _)| first.millis()),
            "newest_at_ms": imported.instants.map(|(_, newest)| newest.millis()),
            "known_snapshots": imported.known,
            "maybe_doubled_snapshots": imported.maybe_doubled,
            "damaged_records": imported.damaged,
            "missing_snapshots": missing,
            "complete": is_whole && imported.stopped.is_none() && imported.damaged == 0,
            "stopped": imported.stopped.as_ref().map(ToString::to_string),
        }))?;
    } else {
        say(&format_args!("imported {} samples{}", count(imported.samples), range(imported.instants)))?;
        if imported.known > 0 {
            say(&format_args!(
                "{} imported before, left out now; --again takes them too",
                counted(imported.known, "snapshot")
            ))?;
        }
    }
    if imported.maybe_doubled > 0 {
        complain(&format_args!(
            "up to {} snapshots may now be in the buffer's history twice: an import was interrupted and sent meanwhile",
            imported.maybe_doubled
        ));
    }
    warn_of_age(found, imported);
    if let Some(stopped) = &imported.stopped {
        return Err(failed(stopped));
    }
    if imported.damaged > 0 || !is_whole {
        let wrong = what_is_wrong(missing, file.stray_bytes, imported.damaged);
        return Err(failed(&format_args!(
            "{} is not whole: {wrong}; what could be read was imported",
            named(&options.file, "stdin")
        )));
    }
    Ok(Exit::Fine)
}

fn what_is_wrong(missing_snapshots: Option<u64>, stray_bytes: u64, damaged_records: u64) -> String {
    let mut wrong = Vec::new();
    match missing_snapshots {
        None => wrong.push("it is cut off or its end is damaged".to_owned()),
        Some(0) => {}
        Some(missing) => wrong.push(format!("{} missing", counted(missing, "snapshot"))),
    }
    if damaged_records > 0 {
        wrong.push(format!("{} damaged", counted(damaged_records, "record")));
    }
    if stray_bytes > 0 {
        wrong.push(format!("{} of it belong to no export", counted(stray_bytes, "byte")));
    }
    wrong.join(", ")
}

/// An agent drops what is too old, which nobody expects of what was just carried here.
fn warn_of_age(found: &Found, imported: &Imported) {
    let max_age = found.config.as_ref().and_then(|config| config.buffer.max_age);
    if let (Some(max_age), Some((first, _))) = (max_age, imported.instants)
        && Clock::system().now().since(first) > max_age
    {
        complain(
            &"some of it is older than buffer.max_age, and an agent will drop that; raise it, or use `outhaul buffer drain` first",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said_as_far_as_it_is_so() {
        assert_eq!(what_is_wrong(Some(0), 12, 0), "12 bytes of it belong to no export");
        assert_eq!(what_is_wrong(Some(1), 0, 2), "1 snapshot missing, 2 records damaged");
        assert_eq!(what_is_wrong(None, 0, 0), "it is cut off or its end is damaged");
    }
}
