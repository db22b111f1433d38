//! A remote-write receiver in this process that keeps every body as it came: for decoders that share no code with ours, and
//! to count bytes.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use outhaul::encode::{self, Compression, Decoded, Message};

use super::http::HttpServer;

/// The largest body that is read.
const BODY_BYTES_MAX: usize = 32 << 20;

/// Takes both versions of remote-write, packed with snappy.
pub(crate) struct Captor {
    server: HttpServer,
    bodies: Arc<Mutex<Vec<Captured>>>,
}

/// A request's body.
#[derive(Clone)]
pub(crate) struct Captured {
    pub(crate) message: Message,
    pub(crate) packed: Bytes,
}

impl Captured {
    pub(crate) fn unpacked(&self) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(&self.packed).unwrap()
    }

    /// What our own decoder makes of it.
    pub(crate) fn decoded(&self) -> Decoded {
        encode::decode(&self.packed, self.message, Compression::Snappy, BODY_BYTES_MAX).unwrap()
    }
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

    /// Every body so far.
    pub(crate) fn bodies(&self) -> Vec<Captured> {
        self.bodies.lock().unwrap().clone()
    }
}

async fn take(
    State(bodies): State<Arc<Mutex<Vec<Captured>>>>,
    headers: HeaderMap,
    packed: Bytes,
) -> (StatusCode, HeaderMap) {
    let content_type = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let message = if content_type.ends_with(Message::V2.name()) { Message::V2 } else { Message::V1 };
    let Ok(decoded) = encode::decode(&packed, message, Compression::Snappy, BODY_BYTES_MAX) else {
        return (StatusCode::BAD_REQUEST, HeaderMap::new());
    };
    bodies.lock().unwrap().push(Captured { message, packed });
    let mut written = HeaderMap::new();
    written.insert("x-prometheus-remote-write-samples-written", decoded.tally().samples.into());
    (StatusCode::NO_CONTENT, written)
}
