//! What survives a restart of outhaul, as one blob that is kept with the buffer: the counters, the position in the event
//! stream, and the containers as they were last told.
//!
//! What cannot be read, is of another version or is larger than it could be reads as nothing: then counting starts anew,
//! which a Prometheus counter may.

use serde::{Deserialize, Serialize};

use super::container::Container;
use super::names::{Names, StoredName};
use super::runs::{RunKey, RunSum, Runs};
use super::seen::{Mark, Seen};
use super::table::{MAX_CONTAINERS, Table};

/// Raised when the shape changes in a way that serde's defaults do not bridge.
const VERSION: u32 = 1;
/// The largest blob that is believed, in bytes; [`MAX_CONTAINERS`] take about 5 MB.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The blob's content, as it is read.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    version: u32,
    /// The host's name that series were labelled with.
    pub(crate) hostname: String,
    /// Up to here, in nanoseconds since the Unix epoch, nothing was missed.
    pub(crate) proven_nanos: i64,
    marks: Vec<Mark>,
    containers: Vec<Container>,
    names: Vec<StoredName>,
    runs: Vec<(RunKey, RunSum)>,
}

/// The same, as it is written.
#[derive(Debug, Serialize)]
struct Storing<'a> {
    version: u32,
    hostname: &'a str,
    proven_nanos: i64,
    marks: Vec<Mark>,
    containers: Vec<&'a Container>,
    names: Vec<StoredName>,
    runs: Vec<(&'a RunKey, &'a RunSum)>,
}

/// The blob with which a successor goes on where `table` is.
pub(crate) fn write(table: &Table, hostname: &str, proven_nanos: i64) -> Vec<u8> {
    let storing = Storing {
        version: VERSION,
        hostname,
        proven_nanos,
        marks: table.seen.marks(),
        containers: table.containers.values().collect(),
        names: table.names.stored(),
        runs: table.runs.iter().collect(),
    };
    serde_json::to_vec(&storing).expect("plain data has a JSON form")
}

impl Stored {
    /// Reads a blob; `None` where it is none of ours.
    pub(crate) fn read(blob: &[u8]) -> Option<Self> {
        if blob.len() > MAX_BYTES {
            return None;
        }
        let stored: Self = serde_json::from_slice(blob).ok()?;
        (stored.version == VERSION && stored.containers.len() <= MAX_CONTAINERS).then_some(stored)
    }

    /// Puts it back into an empty table.
    pub(crate) fn restore(self, table: &mut Table) {
        table.seen = Seen::restored(&self.marks);
        table.names = Names::restored(self.names);
        table.runs = Runs::restored(self.runs);
        for container in self.containers {
            table.names.taken(&container.name, &container.id);
            table.containers.insert(container.id.clone(), container);
        }
        table.assume_told();
    }
}
