//! A token endpoint (RFC 6749, section 4.4) that counts its tokens: `token-1`, `token-2` and so on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::http::HttpServer;

/// Whom it knows.
pub(crate) const CLIENT: (&str, &str) = ("roof-3", "a-secret-of-the-roof");

pub(crate) struct TokenMaker {
    server: HttpServer,
    made: Arc<AtomicUsize>,
}

impl TokenMaker {
    pub(crate) fn start() -> Self {
        let made = Arc::new(AtomicUsize::new(0));
        let app = Router::new().route("/token", post(make)).with_state(Arc::clone(&made));
        Self { server: HttpServer::start(app), made }
    }

    pub(crate) fn url(&self) -> String {
        self.server.url("/token")
    }

    /// How many tokens were made.
    pub(crate) fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }
}

/// The client may say who it is in a header or in the form (RFC 6749, section 2.3.1).
async fn make(
    State(made): State<Arc<AtomicUsize>>,
    headers: HeaderMap,
    body: String,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let json = [("content-type", "application/json")];
    let (id, secret) = CLIENT;
    let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let in_header = headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes() == basic.as_bytes());
    let has = |field: String| body.split('&').any(|part| part == field);
    let in_form = has(format!("client_id={id}")) && has(format!("client_secret={secret}"));
    if !(in_header || in_form) {
        return (StatusCode::UNAUTHORIZED, json, r#"{"error":"invalid_client"}"#.to_owned());
    }
    if !has("grant_type=client_credentials".to_owned()) || !has("scope=metrics".to_owned()) {
        return (StatusCode::BAD_REQUEST, json, r#"{"error":"invalid_request"}"#.to_owned());
    }
    let number = made.fetch_add(1, Ordering::Relaxed) + 1;
    let token = format!(r#"{{"access_token":"token-{number}","token_type":"Bearer","expires_in":3600}}"#);
    (StatusCode::OK, json, token)
}
