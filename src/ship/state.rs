//! What an endpoint's shipper lets others see of it.

use std::time::Duration;

use crate::model::Timestamp;

/// How an endpoint is doing: for the Pushgateway's fallback, the page and the demo. Holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointState {
    /// The endpoint's configured name.
    pub name: String,
    /// Its URL without user, password and query.
    pub url: String,
    /// Whether the last request that was settled or failed was delivered.
    pub delivering: bool,
    /// When the first of the attempts began that have failed since the cursor last moved; `None` while nothing is stuck.
    pub stalled_since: Option<Timestamp>,
    /// When samples were last delivered.
    pub last_success: Option<Timestamp>,
    /// The status of the last answer; `None` where the last attempt brought none.
    pub last_status: Option<u16>,
    /// What went wrong last, for people; `None` after a success.
    pub last_error: Option<String>,
    /// Attempts that failed in a row.
    pub consecutive_failures: u32,
    /// How long the shipper waits now before it tries again; `None` while it does not wait.
    pub retry_in: Option<Duration>,
}
