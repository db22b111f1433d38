//! A remote-write receiver in this process that keeps every body as it came: for decoders that share no code with ours.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use outhaul::encode::{self, Compression, Message};

use super::http::HttpServer;

/// Takes remote-write 2.0 and nothing else.
pub(crate) struct Captor {
    server: HttpServer,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Captor {
    pub(crate) fn start() -> Self {
        let bodies = Arc::default();
        let app = Router::new().fallback(take).with_state(Arc::clone(&bodies));
        Self { server: HttpServer::start(app), bodies }
    }

    pub(crate) fn write_url(&self) -> String {
        self.server.url("/api/v1/write")
    }

    /// Every body so far, unpacked.
    pub(crate) fn bodies(&self) -> Vec<Vec<u8>> {
        self.bodies.lock().unwrap().clone()
    }
}

async fn take(
    State(bodies): State<Arc<Mutex<Vec<Vec<u8>>>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, String); 1]) {
    let written = |count: usize| [("x-prometheus-remote-write-samples-written", count.to_string())];
    let content_type = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.ends_with(Message::V2.name()) {
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, written(0));
    }
    let Ok(decoded) = encode::decode(&body, Message::V2, Compression::Snappy, 32 << 20) else {
        return (StatusCode::BAD_REQUEST, written(0));
    };
    bodies.lock().unwrap().push(snap::raw::Decoder::new().decompress_vec(&body).unwrap());
    (StatusCode::NO_CONTENT, written(decoded.tally().samples))
}
