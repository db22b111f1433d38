//! One HTTP client for one place: bounded in time, in what it reads, and in whom it talks to.
//!
//! Invariants: no request takes longer than its timeout; at most [`TEXT_BYTES_MAX`] of an answer's body are kept and
//! little more is read; credentials go to the configured host only; nothing from the environment is used. The client is
//! built when first needed and again after failures over TLS, so a certificate file that comes late, or is renewed, needs
//! no restart.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::Instant;

use super::auth::{authorization, unprepared};
use super::outcome::{Answer, Exchange, Failure, FailureKind};
use super::tls::{self, Transport};
use crate::config::{Auth, Tls};
use crate::log;

/// The most of an answer's body that is kept; Prometheus keeps as much.
pub(super) const TEXT_BYTES_MAX: usize = 1024;
/// How long the body of an answer whose status is known may take.
const TEXT_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Less than the 60 s after which usual load balancers close an idle connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// How old a client for TLS must be before a failure makes it read its certificate files again.
const REBUILD_AFTER: Duration = Duration::from_secs(60);
/// The most redirects that are followed for one request.
const REDIRECTS_MAX: usize = 3;
/// The longest error text, in characters.
const MESSAGE_CHARS_MAX: usize = 512;
/// Shorter ones cannot be told from ordinary words.
const SECRET_LEN_MIN: usize = 4;
/// The most header fields of an answer.
const ANSWER_HEADERS_MAX: usize = 100;

/// Headers that configured ones never override: those of Prometheus' `reservedHeaders` (config/config.go) that a request
/// of ours could carry. Those that we set are not listed, because ours are set last.
const RESERVED: [&str; 7] = [
    "host",
    "content-length",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "proxy-authorization",
    "accept-encoding",
];

/// How to talk to one place.
#[derive(Debug)]
pub(super) struct ClientOptions {
    pub(super) auth: Auth,
    pub(super) tls: Tls,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) timeout: Duration,
}

/// A request, complete but for credentials.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Client {
    options: ClientOptions,
    configured_headers: HeaderMap,
    built: Option<Built>,
    /// Whether the last answer left a connection open that the next request will use.
    kept_alive: bool,
}

#[derive(Debug)]
struct Built {
    client: reqwest::Client,
    transport: Transport,
    at: Instant,
}

impl Client {
    pub(super) fn new(options: ClientOptions) -> Self {
        let configured_headers = configured_headers(&options.headers);
        Self { options, configured_headers, built: None, kept_alive: false }
    }

    /// The total timeout of a request.
    pub(super) fn timeout(&self) -> Duration {
        self.options.timeout
    }

    /// Sends a request within `timeout` and reads what matters of the answer.
    pub(super) async fn send(&mut self, request: &Request, timeout: Duration) -> Exchange {
        let exchange = match tokio::time::timeout(timeout, self.send_and_follow(request)).await {
            Ok(exchange) => exchange,
            Err(_) => Err(Failure { kind: FailureKind::Timeout, message: format!("no answer within {timeout:?}") }),
        };
        if exchange.is_err() {
            self.kept_alive = false;
            let outdated = |built: &Built| built.transport == Transport::Tls && built.at.elapsed() >= REBUILD_AFTER;
            if self.built.as_ref().is_some_and(outdated) {
                self.built = None;
            }
        }
        exchange
    }

    async fn send_and_follow(&mut self, request: &Request) -> Exchange {
        let mut headers = self.configured_headers.clone();
        headers.extend(request.headers.clone());
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("outhaul/", env!("CARGO_PKG_VERSION"))));
        if let Some(value) = authorization(&self.options.auth).await? {
            headers.insert(AUTHORIZATION, value);
        }
        let mut request = Request { headers, ..request.clone() };
        let secrets = secrets(&request.headers);
        for _ in 0..REDIRECTS_MAX {
            let answer = self.send_once(&request).await?;
            match redirect(&request.url, &answer) {
                Some(url) => request.url = url,
                None => return Ok(without(&secrets, answer)),
            }
        }
        Ok(without(&secrets, self.send_once(&request).await?))
    }

    async fn send_once(&mut self, request: &Request) -> Exchange {
        let client = self.client_for(&request.url).await?;
        let sent = match client.execute(to_reqwest(request)).await {
            // The other side closed an idle connection at the moment we used it: that is no failure of the endpoint.
            Err(error) if self.kept_alive && is_broken(&error) => {
                self.kept_alive = false;
                client.execute(to_reqwest(request)).await
            }
            sent => sent,
        };
        let answer = read_answer(sent.map_err(failure)?).await;
        self.kept_alive = true;
        Ok(answer)
    }

    async fn client_for(&mut self, url: &Url) -> Result<reqwest::Client, Failure> {
        let transport = if url.scheme() == "https" { Transport::Tls } else { Transport::Plain };
        if let Some(built) = &self.built
            && built.transport == transport
        {
            return Ok(built.client.clone());
        }
        let tls = self.options.tls.clone();
        let client = tokio::task::spawn_blocking(move || build(&tls, transport)).await;
        let client = client.map_err(|_| unprepared("the http client could not be built in time".to_owned()))??;
        self.built = Some(Built { client: client.clone(), transport, at: Instant::now() });
        Ok(client)
    }
}

fn build(tls: &Tls, transport: Transport) -> Result<reqwest::Client, Failure> {
    let builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .http1_max_headers(ANSWER_HEADERS_MAX)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(1);
    tls::configure(builder, tls, transport)?
        .build()
        .map_err(|error| unprepared(format!("the http client cannot be built: {}", chain(&error))))
}

/// Every secret of a request in every form in which an answer might repeat it.
fn secrets(headers: &HeaderMap) -> Vec<String> {
    let mut secrets = Vec::new();
    for value in headers.values().filter(|value| value.is_sensitive()) {
        let Ok(text) = value.to_str() else { continue };
        let credentials = text.split_once(' ').map_or(text, |(_, credentials)| credentials);
        let pair = STANDARD.decode(credentials).ok().and_then(|pair| String::from_utf8(pair).ok());
        let password = pair.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, password)| password.to_owned());
        secrets.extend([text.to_owned(), credentials.to_owned()]);
        secrets.extend(pair.into_iter().chain(password));
    }
    secrets.retain(|secret| secret.len() >= SECRET_LEN_MIN);
    // The longest first, so that none is cut in two by one that is part of it.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// An answer as it may be shown: a debug proxy that echoes the request must not get its secrets into our log.
fn without(secrets: &[String], mut answer: Answer) -> Answer {
    for secret in secrets {
        answer.text = answer.text.replace(secret.as_str(), "<secret>");
        answer.location = answer.location.map(|location| location.replace(secret.as_str(), "<secret>"));
    }
    // The text was cut somewhere, perhaps within a secret.
    let cut = secrets.iter().filter_map(|secret| {
        (SECRET_LEN_MIN..secret.len())
            .rev()
            .filter_map(|len| secret.get(..len))
            .find(|part| answer.text.ends_with(part))
    });
    let cut = cut.map(str::len).max().unwrap_or(0);
    answer.text.truncate(answer.text.len() - cut);
    answer
}

/// What a user adds, without what is not the user's to set; a name or value that fits no header was refused by the configuration.
fn configured_headers(configured: &BTreeMap<String, String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in configured {
        if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
            continue;
        }
        if let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            // Any header may be a credential.
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers
}

fn to_reqwest(request: &Request) -> reqwest::Request {
    let mut made = reqwest::Request::new(request.method.clone(), request.url.clone());
    made.headers_mut().extend(request.headers.clone());
    *made.body_mut() = Some(request.body.clone().into());
    made
}

/// Where a 307 or 308 leads, if it stays on the host and does not leave TLS: a method and a body may be sent there again
/// (RFC 9110, sections 15.4.8 and 15.4.9). Every other redirect is an answer like any other.
fn redirect(from: &Url, answer: &Answer) -> Option<Url> {
    if !matches!(answer.status, 307 | 308) {
        return None;
    }
    let to = from.join(answer.location.as_deref()?).ok()?;
    let same_port = to.port_or_known_default() == from.port_or_known_default();
    let upgrade = from.scheme() == "http" && to.scheme() == "https";
    let allowed = to.host() == from.host() && (upgrade || (to.scheme() == from.scheme() && same_port));
    allowed.then_some(to)
}

async fn read_answer(mut response: Response) -> Answer {
    let header = |name: HeaderName| response.headers().get(name)?.to_str().ok().map(one_line);
    let (retry_after, content_type, location) = (header(RETRY_AFTER), header(CONTENT_TYPE), header(LOCATION));
    let status = response.status();
    let mut head = Vec::new();
    if status != StatusCode::NO_CONTENT {
        // A body that stalls or breaks changes nothing: the status has been said.
        drop(tokio::time::timeout(TEXT_TIMEOUT, read_head(&mut response, &mut head)).await);
    }
    let text = one_line(&String::from_utf8_lossy(&head));
    Answer { status: status.as_u16(), retry_after, content_type, location, text }
}

async fn read_head(response: &mut Response, head: &mut Vec<u8>) {
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = TEXT_BYTES_MAX - head.len();
        head.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
}

/// A receiver's words, fit for one line of a log.
fn one_line(text: &str) -> String {
    log::one_line(text, TEXT_BYTES_MAX)
}

/// Whether the connection was there and broke, or carried nonsense.
fn is_broken(error: &reqwest::Error) -> bool {
    !error.is_timeout() && !error.is_connect() && !error.is_builder()
}

fn failure(error: reqwest::Error) -> Failure {
    // The URL may carry credentials; whoever logs this adds the masked one.
    let error = error.without_url();
    let kind = if error.is_timeout() {
        FailureKind::Timeout
    } else if error.is_dns() {
        FailureKind::Dns
    } else if error.is_connect() {
        FailureKind::Connect
    } else if error.is_builder() {
        FailureKind::Unprepared
    } else {
        FailureKind::Broken
    };
    Failure { kind, message: chain(&error) }
}

/// An error and its causes, each said once.
fn chain(error: &reqwest::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    log::one_line(&message, MESSAGE_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_repeats_our_secrets_is_shown_without_them() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("authorization", "Basic dTpnZWhlaW0="), ("x-api-key", "opensesame"), ("x-plain", "harmless")]
        {
            let mut value = HeaderValue::from_static(value);
            value.set_sensitive(name != "x-plain");
            headers.insert(name, value);
        }
        let echo = |text: &str| {
            let answer =
                Answer { text: text.to_owned(), location: Some("/?key=opensesame".to_owned()), ..Answer::default() };
            without(&secrets(&headers), answer)
        };
        let shown = echo("dTpnZWhlaW0= u:geheim geheim opensesame harmless");
        assert_eq!(shown.text, "<secret> <secret> <secret> <secret> harmless");
        assert_eq!(shown.location.as_deref(), Some("/?key=<secret>"));
        assert_eq!(echo("x-api-key: opense").text, "x-api-key: ", "a secret that the cut halved");
    }

    #[test]
    fn a_redirect_is_followed_only_where_credentials_may_go() {
        let from = Url::parse("http://a.example:8080/push").unwrap();
        let secure = Url::parse("https://a.example/push").unwrap();
        for (from, status, location, to) in [
            (&from, 308, "/other/", Some("http://a.example:8080/other/")),
            (&from, 307, "http://a.example:8080/x", Some("http://a.example:8080/x")),
            (&from, 308, "https://a.example/push", Some("https://a.example/push")),
            (&from, 308, "http://a.example:9090/push", None),
            (&from, 308, "http://b.example:8080/push", None),
            (&from, 308, "//b.example/push", None),
            (&from, 302, "/login", None),
            (&from, 301, "/push/", None),
            (&secure, 308, "http://a.example/push", None),
            (&secure, 308, "https://a.example:444/push", None),
            (&from, 308, "http://[", None),
        ] {
            let answer = Answer { status, location: Some(location.to_owned()), ..Answer::default() };
            let expected = to.map(|to| Url::parse(to).unwrap());
            assert_eq!(redirect(from, &answer), expected, "{from} {status} {location}");
        }
    }

    #[test]
    fn configured_headers_never_touch_the_reserved_ones() {
        let configured = [("X-Scope-OrgID", "t"), ("Host", "evil"), ("content-LENGTH", "0"), ("bad name", "x")];
        let configured = configured.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let headers = configured_headers(&configured);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-scope-orgid"]);
        assert_eq!(format!("{:?}", headers["x-scope-orgid"]), "Sensitive");
    }

    #[test]
    fn a_receivers_words_become_one_line() {
        assert_eq!(one_line(" a\r\nb\x1b[31mc\0 "), "a  b [31mc");
        assert_eq!(one_line(&"x".repeat(5000)).len(), TEXT_BYTES_MAX);
    }
}
