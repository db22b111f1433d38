//! The integration tests: the real binary against real servers.
//!
//! Run them with `tests/run`, which installs and starts what they need. A missing server fails a test; it does not skip it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what a test says is read on a terminal")]
#![allow(clippy::float_cmp, reason = "numbers are compared bit for bit on purpose")]

mod bed;
mod buffer;
mod commands;
mod containers;
mod decoder;
mod mixin;
mod outage;
mod pushgateway;
mod relabel;
mod send_interval;
mod starts;
mod torture;
mod trouble;
mod wire;
