//! From the buffer to the endpoints, and the present to a Pushgateway.
//!
//! One [`Shipper`] per remote-write endpoint, one request in flight, oldest first; endpoints share nothing but the buffer.
//! Only an outcome that settles a sample moves the cursor ([`outcome`] is the program's one table of what answers mean).
//! Nothing in here gives up, spawns a task, or looks at the environment.

mod auth;
pub mod backoff;
mod batch;
mod client;
mod connection;
mod families;
mod metrics;
mod negotiate;
pub mod outcome;
mod pace;
mod part_size;
mod poison;
mod pushgateway;
mod remote_write;
mod report;
mod request;
pub mod retry_after;
mod shipper;
mod state;
mod suspicion;
mod tls;
mod token;
mod unchanged;

#[cfg(test)]
mod scripted;
#[cfg(test)]
mod tests;

pub use metrics::Metrics;
pub use pushgateway::{PushError, Pushgateway, PushgatewayOptions};
pub use shipper::{Shipper, ShipperOptions};
pub use state::EndpointState;
pub use tls::install_crypto_provider;
