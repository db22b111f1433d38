//! outhaul hauls container state out of hosts that nobody can reach in.

pub mod agent;
pub mod buffer;
pub mod cli;
pub mod clock;
pub mod config;
pub mod encode;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod log;
pub mod model;
pub mod receive;
pub mod relabel;
pub mod sampler;
pub mod ship;
pub mod shutdown;
pub mod source;
pub mod staleness;
pub mod telemetry;
pub mod web;

/// Generated from `proto/` by `build.rs`. Whole requests are written and read field by field, so some of it serves tests only.
#[allow(dead_code, missing_docs, unreachable_pub, clippy::pedantic)]
pub(crate) mod proto {
    include!(concat!(env!("OUT_DIR"), "/prometheus.rs"));

    pub(crate) mod v2 {
        include!(concat!(env!("OUT_DIR"), "/io.prometheus.write.v2.rs"));
    }
}
