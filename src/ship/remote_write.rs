//! A remote-write 1.0 request: the exact headers around a body.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::client::{Client, ClientOptions, Request};
use super::outcome::Exchange;
use crate::config::{RemoteWrite, Url};

/// What specification 1.0 calls itself (remote-write 1.0, "Protocol").
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-prometheus-remote-write-version"), HeaderValue::from_static("0.1.0"));

/// Not in the specification; Prometheus sends it, and Grafana Mimir makes its `Retry-After` grow with it.
const RETRY_ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");

/// One endpoint's side of HTTP.
#[derive(Debug)]
pub(super) struct Endpoint {
    client: Client,
    url: Url,
}

impl Endpoint {
    pub(super) fn new(config: &RemoteWrite) -> Self {
        let client = Client::new(ClientOptions {
            auth: config.auth.clone(),
            tls: config.tls.clone(),
            headers: config.headers.clone(),
            timeout: config.remote_timeout,
        });
        Self { client, url: config.url.clone() }
    }

    /// For advice that depends on whose receiver it is.
    pub(super) fn host(&self) -> &str {
        self.url.expose().host_str().unwrap_or("")
    }

    /// POSTs a body; `attempt` is 0 for the first try, and the same body is given for the next ones.
    pub(super) async fn post(&mut self, body: Bytes, attempt: u32) -> Exchange {
        self.post_within(body, attempt, self.client.timeout()).await
    }

    /// POSTs a body that is worth less patience than samples are.
    pub(super) async fn post_within(&mut self, body: Bytes, attempt: u32, timeout: Duration) -> Exchange {
        let mut headers = HeaderMap::from_iter([
            VERSION,
            (CONTENT_ENCODING, HeaderValue::from_static("snappy")),
            (CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
        ]);
        if attempt > 0 {
            headers.insert(RETRY_ATTEMPT, attempt.into());
        }
        let request = Request { method: Method::POST, url: self.url.expose().clone(), headers, body };
        self.client.send(&request, timeout.min(self.client.timeout())).await
    }
}
