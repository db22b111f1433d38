//! Where samples come from.
//!
//! A [`Source`] is a thin asynchronous rim around pure mapping code. It knows the data model and its own configuration,
//! and nothing of what happens to a sample afterwards: no buffer, no endpoint, no clock of its own for stamping.
//!
//! Adding a source is one file in this folder and one line in `agent.rs`.

pub mod docker;
pub mod own;

use std::future::Future;
use std::pin::Pin;

use crate::model::{Sample, Timestamp};

/// A future a source hands out; boxed so that sources of different kinds stand in one list.
pub type SourceFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How much an [`Observation`] speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only what changed. A series that ended is in it with [`crate::model::Value::STALE`]; one that is missing lives on.
    Change,
    /// All the source knows: a series that is missing has ended.
    Everything,
}

/// What a source saw at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// When it was so, by the clock of what is observed.
    pub at: Timestamp,
    /// Whether silence about a series means its end.
    pub scope: Scope,
    /// No series twice.
    pub samples: Vec<Sample>,
}

/// Why a source could not tell. A closed set: it is both a log field and the label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// Nobody answers there, or the line broke.
    Unreachable,
    /// No answer within the deadline.
    Timeout,
    /// Somebody answers and says no.
    Refused,
    /// The answer makes no sense.
    Decode,
}

impl FailureReason {
    /// Every reason, so that each has its counter from the start.
    pub const ALL: [Self; 4] = [Self::Unreachable, Self::Timeout, Self::Refused, Self::Decode];

    /// The label value.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
            Self::Decode => "decode",
        }
    }
}

/// Why a source could not tell, for people: what happened, to what, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// For counting.
    pub reason: FailureReason,
    /// One line, lower case.
    pub message: String,
}

/// Something that can be sampled.
pub trait Source: Send {
    /// The value of the label `source`; unique among the sources of one agent.
    fn name(&self) -> &str;

    /// What happened between two ticks, one instant at a time and in time order; never resolves for a source without events.
    ///
    /// Cancel-safe: dropping the future loses nothing, the next call yields it.
    fn next_event(&mut self) -> SourceFuture<'_, Observation>;

    /// Everything, as it was at `at`; before it, in time order, the changes up to `at` that were still under way.
    ///
    /// The last observation is the one at `at` with [`Scope::Everything`]. The caller imposes the deadline, so this is
    /// cancel-safe too: what was cut short is caught up by the next call.
    ///
    /// # Errors
    /// When the whole source cannot tell. One bad item costs only itself and is no error.
    fn sample(&mut self, at: Timestamp) -> SourceFuture<'_, Result<Vec<Observation>, SourceError>>;

    /// What must survive a restart (counters, position in an event stream), or `None` where nothing changed since last asked.
    ///
    /// Called after the observations so far were appended to the buffer.
    fn take_state(&mut self) -> Option<Vec<u8>> {
        None
    }
}
