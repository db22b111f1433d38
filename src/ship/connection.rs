//! One connection to one place, as it is configured: TLS, proxy, and when to make it anew.
//!
//! Invariants: no more than a bounded part of an answer is read; certificate files that change are read again before the
//! next request; a connection is not used for ever, so that a name whose address changed is asked for again; a connection
//! that the other side had closed while it was idle is no failure. Never follows a redirect, never adds a credential but the
//! proxy's own, never reads the environment.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    CONNECTION, CONTENT_TYPE, DATE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
};
use reqwest::{Response, StatusCode, Url};
use secrecy::ExposeSecret as _;
use tokio::time::Instant;

use super::auth::unprepared;
use super::client::Request;
use super::outcome::{Answer, Failure, FailureKind};
use super::tls::{self, FileStamps, Transport};
use crate::config::{Http, Proxy};
use crate::encode::Tally;
use crate::log;
use crate::model::Timestamp;

/// The most of an answer's body that is kept for people; Prometheus keeps as much.
pub(super) const TEXT_BYTES_MAX: usize = 1024;
/// How long the body of an answer whose status is known may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Less than the 60 s after which usual load balancers close an idle connection.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// How long one connection is used before the next request is its last: a receiver that moved is found within it.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(15 * 60);
/// How old a client for TLS must be before a failure makes it read the system's authorities again.
const REBUILD_AFTER: Duration = Duration::from_secs(60);
/// The longest error text, in characters.
const MESSAGE_CHARS_MAX: usize = 512;
/// The most header fields of an answer.
const ANSWER_HEADERS_MAX: usize = 100;

/// The headers that say what a receiver wrote.
const WRITTEN: [HeaderName; 3] = [
    HeaderName::from_static("x-prometheus-remote-write-samples-written"),
    HeaderName::from_static("x-prometheus-remote-write-histograms-written"),
    HeaderName::from_static("x-prometheus-remote-write-exemplars-written"),
];

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    http: Http,
    built: Option<Built>,
    /// Since when the connection that the next request will use is there, if one was left open.
    open_since: Option<Instant>,
    /// Whether the last answer makes it worth looking for another server.
    is_suspect: bool,
}

#[derive(Debug)]
struct Built {
    client: reqwest::Client,
    transport: Transport,
    /// What the URL's host was: it is looked up in place of a configured server name.
    host: String,
    files: FileStamps,
    at: Instant,
}

impl Connection {
    pub(super) fn new(http: Http) -> Self {
        Self { http, built: None, open_since: None, is_suspect: false }
    }

    pub(super) fn follows_redirects(&self) -> bool {
        self.http.follow_redirects
    }

    /// What neither an answer nor an error may show.
    pub(super) fn secrets(&self) -> Vec<String> {
        let Some(proxy) = &self.http.proxy else { return Vec::new() };
        let headers = proxy.connect_headers.iter().map(|(_, value)| value.expose_secret().to_owned());
        let url = proxy.url.expose();
        let (name, password) = (url.username(), url.password().unwrap_or_default());
        // As they are written, and as they are sent.
        let plain = [name, password].map(|text| percent_decode_str(text).decode_utf8_lossy().into_owned());
        let pair = STANDARD.encode(plain.join(":"));
        // A name without a password is a token.
        let user = if password.is_empty() { [name.to_owned(), plain[0].clone()] } else { Default::default() };
        headers.chain(user).chain([password.to_owned(), plain[1].clone(), pair]).collect()
    }

    /// One request and as much of its answer's body as `body_max`.
    pub(super) async fn exchange(&mut self, request: &Request, body_max: usize) -> Result<(Answer, Vec<u8>), Failure> {
        let client = self.client_for(&request.url).await?;
        let is_last = self.is_suspect || self.open_since.is_some_and(|since| since.elapsed() >= CONNECTION_AGE_MAX);
        let sent = match client.execute(self.made(request, is_last)).await {
            // The other side closed an idle connection at the moment we used it: that is no failure of the endpoint.
            Err(error) if self.open_since.is_some() && is_broken(&error) => {
                self.open_since = None;
                client.execute(self.made(request, is_last)).await
            }
            sent => sent,
        };
        let (answer, body) = read_answer(sent.map_err(failure)?, body_max).await;
        self.is_suspect = answer.status >= 500;
        if is_last {
            self.open_since = None;
        } else {
            self.open_since.get_or_insert_with(Instant::now);
        }
        Ok((answer, body))
    }

    /// To be told of every failure, also of one that the caller's patience made.
    pub(super) fn note_failure(&mut self) {
        self.open_since = None;
        let outdated = |built: &Built| built.transport == Transport::Tls && built.at.elapsed() >= REBUILD_AFTER;
        if self.built.as_ref().is_some_and(outdated) {
            self.built = None;
        }
    }

    async fn client_for(&mut self, url: &Url) -> Result<reqwest::Client, Failure> {
        let transport = if url.scheme() == "https" { Transport::Tls } else { Transport::Plain };
        let files = tls::stamps(&self.http.tls, transport).await;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let same = |built: &&Built| built.transport == transport && built.host == host;
        let kept = self.built.as_ref().filter(same).map(|built| (built.client.clone(), built.files == files));
        if let Some((client, true)) = kept {
            return Ok(client);
        }
        let (http, name) = (self.http.clone(), host.to_owned());
        let built = tokio::task::spawn_blocking(move || build(&http, transport, &name)).await;
        let built = built.unwrap_or_else(|_| Err(unprepared("the http client could not be built in time".to_owned())));
        match (built, kept) {
            (Ok(client), _) => {
                let built =
                    Built { client: client.clone(), transport, host: host.to_owned(), files, at: Instant::now() };
                (self.built, self.open_since) = (Some(built), None);
                Ok(client)
            }
            // Files are replaced one after the other: until they fit each other the old ones serve.
            (Err(failure), Some((client, _))) => {
                tracing::warn!(error = %failure, "changed certificate files cannot be used; the ones before still are");
                Ok(client)
            }
            (Err(failure), None) => Err(failure),
        }
    }

    fn made(&self, request: &Request, is_last: bool) -> reqwest::Request {
        let mut made = reqwest::Request::new(request.method.clone(), request.url.clone());
        made.headers_mut().extend(request.headers.clone());
        // Who we are stands in a header.
        let is_plain = made.url_mut().set_username("").and(made.url_mut().set_password(None)).is_ok();
        debug_assert!(is_plain, "a URL with a host may lose its user");
        if is_last {
            made.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let name = self.http.tls.server_name.as_deref().filter(|_| request.url.scheme() == "https");
        if let Some(name) = name
            && let Ok(host) = HeaderValue::from_str(&authority(&request.url))
            && made.url_mut().set_host(Some(name)).is_ok()
        {
            made.headers_mut().insert(HOST, host);
        }
        *made.body_mut() = Some(request.body.clone().into());
        made
    }
}

/// Host and port as they stand in a URL.
fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn build(http: &Http, transport: Transport, host: &str) -> Result<reqwest::Client, Failure> {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .http1_only()
        .http1_max_headers(ANSWER_HEADERS_MAX)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(1);
    let builder = match &http.proxy {
        Some(proxy) => builder.proxy(through(proxy, transport)?),
        None => builder.no_proxy(),
    };
    let builder = match (&http.tls.server_name, transport) {
        (Some(_), Transport::Tls) => builder.dns_resolver(Elsewhere(host.to_owned())),
        _ => builder,
    };
    // A proxy that is itself reached by TLS needs authorities even where the receiver does not.
    let is_proxy_tls = http.proxy.as_ref().is_some_and(|proxy| proxy.url.expose().scheme() == "https");
    let transport = if is_proxy_tls { Transport::Tls } else { transport };
    tls::configure(builder, &http.tls, transport)?
        .build()
        .map_err(|error| unprepared(format!("the http client cannot be built: {}", chain(&error))))
}

fn through(proxy: &Proxy, transport: Transport) -> Result<reqwest::Proxy, Failure> {
    let made = reqwest::Proxy::all(proxy.url.expose().clone())
        .map_err(|error| unprepared(format!("proxy_url cannot be used: {}", chain(&error.without_url()))))?;
    if transport == Transport::Plain {
        // Without TLS there is no CONNECT, and the headers would travel on to the receiver.
        return Ok(made);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &proxy.connect_headers {
        if let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::from_str(value.expose_secret())) {
            value.set_sensitive(true);
            headers.append(name, value);
        }
    }
    Ok(if headers.is_empty() { made } else { made.headers(headers) })
}

/// Looks up the URL's host in place of the name that TLS is told.
#[derive(Debug)]
struct Elsewhere(String);

impl Resolve for Elsewhere {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // Port 0 stands for the URL's.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

async fn read_answer(mut response: Response, body_max: usize) -> (Answer, Vec<u8>) {
    let header = |name: HeaderName| response.headers().get(name)?.to_str().ok().map(one_line);
    let (retry_after, content_type, location) = (header(RETRY_AFTER), header(CONTENT_TYPE), header(LOCATION));
    let date = header(DATE).and_then(|text| date(&text));
    let written = written(response.headers());
    let status = response.status();
    let (mut body, mut is_empty) = (Vec::new(), true);
    if status != StatusCode::NO_CONTENT {
        // A body that stalls or breaks changes nothing: the status has been said.
        let read = tokio::time::timeout(BODY_TIMEOUT, read_body(&mut response, &mut body, body_max)).await;
        is_empty = body.is_empty() && matches!(read, Ok(Read::Whole));
    }
    let text = one_line(&String::from_utf8_lossy(&body[..body.len().min(TEXT_BYTES_MAX)]));
    (Answer { status: status.as_u16(), retry_after, content_type, location, written, date, text, is_empty }, body)
}

/// How far a body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Whole,
    Partly,
}

async fn read_body(response: &mut Response, body: &mut Vec<u8>, body_max: usize) -> Read {
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let room = body_max - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if chunk.len() > room {
                    return Read::Partly;
                }
            }
            Ok(None) => return Read::Whole,
            Err(_) => return Read::Partly,
        }
    }
}

/// What a receiver says it wrote. A header that holds no number says that there is one, and nothing more.
fn written(headers: &HeaderMap) -> Option<Tally> {
    let count = |name: &HeaderName| {
        Some(headers.get(name)?.to_str().ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0))
    };
    let [samples, histograms, exemplars] = WRITTEN.each_ref().map(count);
    samples.or(histograms).or(exemplars)?;
    let or_zero = |count: Option<usize>| count.unwrap_or(0);
    Some(Tally { samples: or_zero(samples), histograms: or_zero(histograms), exemplars: or_zero(exemplars) })
}

fn date(text: &str) -> Option<Timestamp> {
    let since_epoch = httpdate::parse_http_date(text.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(0).plus(since_epoch))
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

/// Words of the libraries that say no more than that there is a cause.
const EMPTY_WORDS: [&str; 2] = ["error sending request", "client error ("];

/// An error and its causes, each said once.
fn chain(error: &reqwest::Error) -> String {
    let mut message = String::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        next = error.source();
        let text = error.to_string();
        let is_empty = EMPTY_WORDS.iter().any(|words| text.starts_with(words)) && next.is_some();
        if is_empty || message.contains(&text) {
            continue;
        }
        if !message.is_empty() {
            message.push_str(": ");
        }
        message.push_str(&text);
    }
    log::one_line(&message, MESSAGE_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::scripted::Server;
    use super::*;

    #[test]
    fn a_receivers_words_become_one_line() {
        assert_eq!(one_line(" a\r\nb\x1b[31mc\0 "), "a  b [31mc");
        assert_eq!(one_line(&"x".repeat(5000)).len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn what_was_written_is_told_from_silence() {
        let of = |pairs: &[(HeaderName, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
            written(&pairs.collect())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(WRITTEN[0].clone(), "7")]), Some(Tally { samples: 7, ..Tally::default() }));
        assert_eq!(of(&[(WRITTEN[2].clone(), "x")]), Some(Tally::default()));
        let all = [(WRITTEN[0].clone(), "1"), (WRITTEN[1].clone(), "2"), (WRITTEN[2].clone(), " 3 ")];
        assert_eq!(of(&all), Some(Tally { samples: 1, histograms: 2, exemplars: 3 }));
    }

    #[test]
    fn a_receivers_date_is_a_timestamp() {
        assert_eq!(date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Timestamp::from_millis(784_111_777_000)));
        assert_eq!(date("yesterday"), None);
    }

    #[tokio::test]
    async fn a_connection_is_not_used_for_ever() {
        super::super::install_crypto_provider();
        let mut server = Server::replying([]).await;
        let mut connection = Connection::new(Http::default());
        let (method, url) = (reqwest::Method::POST, server.url.clone());
        let request = Request { method, url, headers: HeaderMap::new(), body: bytes::Bytes::from_static(b"x") };
        let mut connections = Vec::new();
        for _ in 0..4 {
            connection.exchange(&request, TEXT_BYTES_MAX).await.unwrap();
            connections.push(server.next().await.connection);
            if connections.len() == 2 {
                connection.open_since = Instant::now().checked_sub(CONNECTION_AGE_MAX);
            }
        }
        assert_eq!(connections, [0, 0, 0, 1], "the first request after that time is the last on its connection");
    }
}
