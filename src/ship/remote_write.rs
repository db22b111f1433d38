//! A remote-write request: the exact headers around a body.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use super::client::{Client, ClientOptions, Request};
use super::outcome::Exchange;
use crate::config::{RemoteWrite, Url};
use crate::encode::{Compression, Message};

const VERSION: HeaderName = HeaderName::from_static("x-prometheus-remote-write-version");
/// What `VictoriaMetrics`' own sender says instead of the version when it sends zstd (vmagent, `remotewrite/client.go`).
const VM_VERSION: HeaderName = HeaderName::from_static("x-victoriametrics-remote-write-version");

/// Not in the specification; Prometheus sends it, and Grafana Mimir makes its `Retry-After` grow with it.
const RETRY_ATTEMPT: HeaderName = HeaderName::from_static("retry-attempt");

/// A body and what it is.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) message: Message,
    pub(super) compression: Compression,
    pub(super) body: Bytes,
    /// 0 for the first try; the same body is given for the next ones.
    pub(super) attempt: u32,
}

impl Envelope {
    fn headers(&self) -> HeaderMap {
        let (name, version) = match self.compression {
            Compression::Snappy => (VERSION, self.message.version()),
            Compression::Zstd => (VM_VERSION, "1"),
        };
        let mut headers = HeaderMap::from_iter([
            (name, HeaderValue::from_static(version)),
            (CONTENT_ENCODING, HeaderValue::from_static(self.compression.content_encoding())),
            (CONTENT_TYPE, HeaderValue::from_static(self.message.content_type())),
        ]);
        if self.attempt > 0 {
            headers.insert(RETRY_ATTEMPT, self.attempt.into());
        }
        headers
    }
}

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
            http: config.http.clone(),
            headers: config.headers.clone(),
            timeout: config.remote_timeout,
        });
        Self { client, url: config.url.clone() }
    }

    /// For advice that depends on whose receiver it is.
    pub(super) fn host(&self) -> &str {
        self.url.expose().host_str().unwrap_or("")
    }

    /// POSTs a body.
    pub(super) async fn post(&mut self, envelope: Envelope) -> Exchange {
        self.post_within(envelope, self.client.timeout()).await
    }

    /// POSTs a body that is worth less patience than samples are.
    pub(super) async fn post_within(&mut self, envelope: Envelope, timeout: Duration) -> Exchange {
        let headers = envelope.headers();
        let request = Request { method: Method::POST, url: self.url.expose().clone(), headers, body: envelope.body };
        self.client.send(&request, timeout.min(self.client.timeout())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_body_has_the_headers_of_its_specification() {
        let headers = |message, compression, attempt| {
            let headers = Envelope { message, compression, body: Bytes::new(), attempt }.headers();
            let mut pairs: Vec<String> =
                headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
            pairs.sort();
            pairs
        };
        assert_eq!(
            headers(Message::V1, Compression::Snappy, 0),
            [
                "content-encoding: snappy",
                "content-type: application/x-protobuf",
                "x-prometheus-remote-write-version: 0.1.0"
            ]
        );
        assert_eq!(
            headers(Message::V2, Compression::Snappy, 3),
            [
                "content-encoding: snappy",
                "content-type: application/x-protobuf;proto=io.prometheus.write.v2.Request",
                "retry-attempt: 3",
                "x-prometheus-remote-write-version: 2.0.0"
            ]
        );
        assert_eq!(
            headers(Message::V1, Compression::Zstd, 0),
            [
                "content-encoding: zstd",
                "content-type: application/x-protobuf",
                "x-victoriametrics-remote-write-version: 1"
            ]
        );
    }
}
