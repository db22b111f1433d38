//! The local page: `/metrics`, `/-/healthy`, `/-/ready`. Loopback unless configured otherwise.
//!
//! Reads the latest snapshot and the registry; changes nothing, waits for nothing, and shows no secret.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::encode;
use crate::model::{Sample, Snapshot};
use crate::shutdown::{Phase, Shutdown};
use crate::source::own::OwnSource;

/// What the page shows.
pub struct Page {
    latest: watch::Receiver<Arc<Snapshot>>,
    /// Behind a lock because reading refreshes it; held for a gather, never across an await.
    own: Mutex<OwnSource>,
}

impl Page {
    /// A page of the latest snapshot, with `own` read anew for each request.
    pub fn new(latest: watch::Receiver<Arc<Snapshot>>, own: OwnSource) -> Self {
        Self { latest, own: Mutex::new(own) }
    }

    /// Serves until told to stop.
    pub async fn serve(self, listener: TcpListener, mut shutdown: Shutdown) {
        let app = Router::new()
            .route("/", get(index))
            .route("/metrics", get(metrics))
            .route("/-/healthy", get(healthy))
            .route("/-/ready", get(ready))
            .with_state(Arc::new(self));
        let stop = async move { shutdown.reached(Phase::Draining).await };
        tokio::select! {
            served = axum::serve(listener, app) => if let Err(error) = served {
                tracing::warn!(error = %error, "local page ended");
            },
            // Not graceful: a client that keeps its connection open must not keep the program from stopping.
            () = stop => {}
        }
    }

    /// Everything alive: the latest snapshot, with outhaul's own numbers as they are this moment.
    fn present(&self) -> Vec<Sample> {
        let mut samples = self.own.lock().unwrap_or_else(PoisonError::into_inner).samples();
        let fresh: HashSet<_> = samples.iter().map(|sample| sample.series.labels().clone()).collect();
        let latest = Arc::clone(&self.latest.borrow());
        samples.extend(latest.samples.iter().filter(|sample| !fresh.contains(sample.series.labels())).cloned());
        samples
    }
}

async fn index() -> &'static str {
    concat!("outhaul ", env!("CARGO_PKG_VERSION"), "\n\n/metrics\n/-/healthy\n/-/ready\n")
}

async fn metrics(State(page): State<Arc<Page>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, encode::text::CONTENT_TYPE)], encode::text::expose(&page.present()))
}

/// Answering at all is the proof: the one thread that samples and sends is the one that answers.
async fn healthy() -> &'static str {
    "outhaul is healthy.\n"
}

async fn ready(State(page): State<Arc<Page>>) -> (StatusCode, &'static str) {
    if page.latest.borrow().samples.is_empty() {
        (StatusCode::SERVICE_UNAVAILABLE, "outhaul has not sampled yet.\n")
    } else {
        (StatusCode::OK, "outhaul is ready.\n")
    }
}
