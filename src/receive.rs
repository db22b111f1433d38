//! A remote-write receiver for versions 1.0 and 2.0: for `outhaul receive`, the demo, and tests.
//!
//! It takes what the specification allows and says no to the rest with the status that says why, so that it stands in for
//! a real receiver. Whatever it is sent, it does not panic and holds no more than a request's worth per connection. What
//! it has taken it hands on in the order in which it came; a taker that is slow slows the senders, and is never skipped.

mod line;
mod print;

use std::future::Future;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use self::line::CuttableListener;
pub use self::line::Line;
pub use self::print::{histogram_json, json, labels_json, print};
use crate::encode::{self, Compression, Decoded, Message};

/// The largest request, compressed and unpacked alike: the limit of Prometheus' own receiver (storage/remote, 3.x).
pub const REQUEST_BYTES_MAX: usize = 32 << 20;

/// Receives until `until` resolves, on any path, and hands on what was taken.
///
/// A request is answered with 204 once it has been handed on. While `line` is cut nobody gets through.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    taken: mpsc::Sender<Decoded>,
    line: Line,
    until: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let router = Router::new().fallback(receive).layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX)).with_state(taken);
    axum::serve(CuttableListener::new(listener, line), router).with_graceful_shutdown(until).await
}

/// A status, what remote-write 2.0 wants said beside it, and a text.
type Answer = (StatusCode, HeaderMap, String);

async fn receive(
    State(taken): State<mpsc::Sender<Decoded>>,
    method: Method,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    match take(&taken, &method, &headers, body).await {
        Ok(written) => (StatusCode::NO_CONTENT, written, String::new()),
        Err((status, text)) => (status, HeaderMap::new(), text),
    }
}

/// Why a request is refused.
type Refusal = (StatusCode, String);

async fn take(
    taken: &mpsc::Sender<Decoded>,
    method: &Method,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<HeaderMap, Refusal> {
    if method != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "remote-write is a POST".to_owned()));
    }
    let (message, compression) = (message(headers)?, compression(headers)?);
    let body = body.map_err(|rejection| (rejection.status(), rejection.body_text()))?;
    let decoded = encode::decode(&body, message, compression, REQUEST_BYTES_MAX).map_err(|error| {
        let status = if error.is_too_large() { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
        (status, error.to_string())
    })?;
    let written = written(message, &decoded);
    let gone = |_| (StatusCode::SERVICE_UNAVAILABLE, "the receiver is stopping".to_owned());
    taken.send(decoded).await.map(|()| written).map_err(gone)
}

fn header(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").trim()
}

fn compression(headers: &HeaderMap) -> Result<Compression, Refusal> {
    let encoding = header(headers, CONTENT_ENCODING);
    Compression::from_content_encoding(encoding).ok_or_else(|| {
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("content-encoding must be snappy or zstd, not {encoding:?}"))
    })
}

/// Which message the `Content-Type` announces (remote-write 2.0, "Protocol").
///
/// As Prometheus does (`storage/remote`, `ParseProtoMsg`), a parameter counts only when its name is `proto` without a
/// space before it, and without one the message is that of 1.0.
fn message(headers: &HeaderMap) -> Result<Message, Refusal> {
    let content_type = header(headers, CONTENT_TYPE);
    let mut parts = content_type.split(';');
    let is_protobuf = parts.next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/x-protobuf"));
    let mut named = parts.filter_map(|parameter| parameter.strip_prefix("proto="));
    let message = named.next().map_or(Some(Message::V1), Message::from_name);
    message.filter(|_| is_protobuf).ok_or_else(|| {
        let text = format!(
            "content-type must be application/x-protobuf with proto={} or proto={} or none, not {content_type:?}",
            Message::V1.name(),
            Message::V2.name()
        );
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, text)
    })
}

/// How much was taken, which a sender of 2.0 must be told (remote-write 2.0, "Required Written Response Headers").
fn written(message: Message, decoded: &Decoded) -> HeaderMap {
    if message == Message::V1 {
        return HeaderMap::new();
    }
    let tally = decoded.tally();
    let counts = [
        ("x-prometheus-remote-write-samples-written", tally.samples),
        ("x-prometheus-remote-write-histograms-written", tally.histograms),
        ("x-prometheus-remote-write-exemplars-written", tally.exemplars),
    ];
    counts.into_iter().map(|(name, count)| (HeaderName::from_static(name), HeaderValue::from(count))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::JoinHandle;

    use super::*;
    use crate::encode::{Encoder, Format, Part};
    use crate::model::{Labels, Metadata, MetricKind, Sample, Series, Timestamp, Value};
    use crate::ship::install_crypto_provider;

    struct Rig {
        url: String,
        client: reqwest::Client,
        taken: mpsc::Receiver<Decoded>,
        line: Line,
        stop: tokio::sync::oneshot::Sender<()>,
        task: JoinHandle<std::io::Result<()>>,
    }

    async fn start() -> Rig {
        install_crypto_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/api/v1/write", listener.local_addr().unwrap());
        let (sender, taken) = mpsc::channel(16);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let line = Line::default();
        let task = tokio::spawn(serve(listener, sender, line.clone(), async { stopped.await.unwrap_or(()) }));
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Rig { url, client, taken, line, stop, task }
    }

    impl Rig {
        async fn post(
            &self,
            content_type: &str,
            encoding: &str,
            body: impl Into<reqwest::Body>,
        ) -> reqwest::Result<u16> {
            let request = self.client.post(&self.url).body(body);
            let request = request.header("content-type", content_type).header("content-encoding", encoding);
            Ok(request.send().await?.status().as_u16())
        }
    }

    fn body_of(message: Message, compression: Compression) -> Bytes {
        let labels = Labels::builder().with("__name__", "up").build().unwrap();
        let series = Arc::new(Series::new(labels, Arc::new(Metadata::of("up", MetricKind::Gauge, ""))));
        let samples = [Sample::new(series, Value::STALE)];
        let parts = [Part::new(Timestamp::from_millis(5), &samples)];
        Encoder::new(Labels::empty(), None).encode(&parts, Format::new(message, compression)).bytes
    }

    fn body() -> Bytes {
        body_of(Message::V1, Compression::Snappy)
    }

    const V1: &str = "application/x-protobuf";

    #[tokio::test]
    async fn what_is_taken_is_handed_on_and_answered_with_204() {
        let mut rig = start().await;
        for content_type in
            [V1, "application/x-protobuf; charset=utf-8", "application/x-protobuf;proto=prometheus.WriteRequest"]
        {
            assert_eq!(rig.post(content_type, "snappy", body()).await.unwrap(), 204);
            let decoded = rig.taken.recv().await.unwrap();
            assert_eq!(decoded.series[0].samples, [(Timestamp::from_millis(5), Value::STALE)]);
        }
        rig.stop.send(()).unwrap();
        drop(rig.client);
        rig.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn version_2_is_told_how_much_was_written_and_version_1_is_not() {
        let mut rig = start().await;
        for (message, compression, written) in [
            (Message::V2, Compression::Snappy, Some(["1", "0", "0"])),
            (Message::V2, Compression::Zstd, Some(["1", "0", "0"])),
            (Message::V1, Compression::Zstd, None),
        ] {
            let request = rig.client.post(&rig.url).body(body_of(message, compression));
            let request = request.header("content-type", message.content_type());
            let answer = request.header("content-encoding", compression.content_encoding()).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), 204);
            let said = ["samples", "histograms", "exemplars"].map(|what| {
                let header = answer.headers().get(format!("X-Prometheus-Remote-Write-{what}-Written"));
                header.map(|value| value.to_str().unwrap().to_owned())
            });
            assert_eq!(
                said,
                written.map_or([None; 3], |counts| counts.map(Some)).map(|count| count.map(str::to_owned))
            );
            let decoded = rig.taken.recv().await.unwrap();
            assert_eq!(decoded.series[0].samples, [(Timestamp::from_millis(5), Value::STALE)]);
        }
    }

    #[tokio::test]
    async fn a_parameter_behind_a_space_is_not_seen_as_in_prometheus() {
        let mut rig = start().await;
        let spaced = "application/x-protobuf; proto=io.prometheus.write.v2.Request";
        assert_eq!(rig.post(spaced, "snappy", body_of(Message::V2, Compression::Snappy)).await.unwrap(), 204);
        assert_eq!(rig.taken.recv().await.unwrap(), Decoded::default(), "a 2.0 message read as 1.0 holds nothing");
    }

    #[tokio::test]
    async fn what_cannot_be_taken_is_refused_with_the_reason() {
        let rig = start().await;
        for (content_type, encoding, body, status) in [
            (V1, "gzip", body(), 415),
            ("application/json", "snappy", body(), 415),
            ("application/x-protobuf;proto=io.prometheus.write.v3.Request", "snappy", body(), 415),
            (Message::V2.content_type(), "snappy", body(), 400),
            (Message::V2.content_type(), "zstd", body(), 400),
            (V1, "snappy", Bytes::from_static(b"garbage"), 400),
            (V1, "snappy", Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f]), 413),
            (V1, "snappy", Bytes::new(), 400),
        ] {
            assert_eq!(rig.post(content_type, encoding, body).await.unwrap(), status, "{content_type} {encoding}");
        }
        let get = rig.client.get(&rig.url).send().await.unwrap();
        assert_eq!(get.status().as_u16(), 405);
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_refused() {
        let rig = start().await;
        let answer = rig.post(V1, "snappy", vec![0; REQUEST_BYTES_MAX + 1]).await;
        // The receiver answers before it has read everything; a client that is still writing may see a reset instead.
        assert!(answer.as_ref().is_ok_and(|status| *status == 413) || answer.is_err(), "{answer:?}");
        assert_eq!(rig.post(V1, "snappy", body()).await.unwrap(), 204, "and goes on receiving");
    }

    #[tokio::test]
    async fn a_cut_line_lets_nobody_through_not_even_on_an_open_connection() {
        let rig = start().await;
        assert_eq!(rig.post(V1, "snappy", body()).await.unwrap(), 204);
        rig.line.cut();
        for _ in 0..3 {
            assert!(rig.post(V1, "snappy", body()).await.is_err());
        }
        rig.line.mend();
        tokio::time::timeout(Duration::from_secs(10), async { while rig.post(V1, "snappy", body()).await.is_err() {} })
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_taker_that_has_gone_is_trouble_and_not_success() {
        let mut rig = start().await;
        rig.taken.close();
        assert_eq!(rig.post(V1, "snappy", body()).await.unwrap(), 503);
    }
}
