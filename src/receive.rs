//! A remote-write 1.0 receiver: for `outhaul receive`, the demo, and tests.
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
use axum::http::{HeaderMap, Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use self::line::CuttableListener;
pub use self::line::Line;
pub use self::print::print;
use crate::encode::v1::{self, DecodeError, Decoded};

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

type Answer = (StatusCode, String);

async fn receive(
    State(taken): State<mpsc::Sender<Decoded>>,
    method: Method,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    if method != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, "remote-write is a POST".to_owned());
    }
    if let Err(answer) = check_headers(&headers) {
        return answer;
    }
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return (rejection.status(), rejection.body_text()),
    };
    let decoded = match v1::decode(&body, REQUEST_BYTES_MAX) {
        Ok(decoded) => decoded,
        Err(error @ DecodeError::TooLarge { .. }) => return (StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()),
    };
    match taken.send(decoded).await {
        Ok(()) => (StatusCode::NO_CONTENT, String::new()),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the receiver is stopping".to_owned()),
    }
}

/// The two headers that say what the body is (remote-write 1.0, "Protocol").
fn check_headers(headers: &HeaderMap) -> Result<(), Answer> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").trim();
    let encoding = value(CONTENT_ENCODING);
    if !encoding.eq_ignore_ascii_case("snappy") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("content-encoding must be snappy, not {encoding:?}")));
    }
    let mut parts = value(CONTENT_TYPE).split(';').map(str::trim);
    let is_protobuf = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/x-protobuf"));
    let is_v1 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, message)) => !name.eq_ignore_ascii_case("proto") || message == "prometheus.WriteRequest",
        None => true,
    });
    if is_protobuf && is_v1 {
        return Ok(());
    }
    let text = "content-type must be application/x-protobuf with proto=prometheus.WriteRequest or none".to_owned();
    Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::JoinHandle;

    use super::*;
    use crate::encode::Part;
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

    fn body() -> Bytes {
        let labels = Labels::builder().with("__name__", "up").build().unwrap();
        let series = Arc::new(Series::new(labels, Arc::new(Metadata::of("up", MetricKind::Gauge, ""))));
        let samples = [Sample::new(series, Value::STALE)];
        v1::write_request([Part { at: Timestamp::from_millis(5), samples: &samples }], &Labels::empty()).bytes
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
    async fn what_cannot_be_taken_is_refused_with_the_reason() {
        let rig = start().await;
        for (content_type, encoding, body, status) in [
            (V1, "gzip", body(), 415),
            ("application/json", "snappy", body(), 415),
            ("application/x-protobuf;proto=io.prometheus.write.v2.Request", "snappy", body(), 415),
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
