//! One HTTP client for one place: bounded in time, and in whom it talks to.
//!
//! Invariants: no request takes longer than its timeout; credentials go to the configured host only, and are read anew for
//! each request, so that a rotated one needs no restart; nothing that is shown of an answer or an error repeats a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Method, Url};

use super::auth::{Credentials, Freshness};
use super::connection::{Connection, TEXT_BYTES_MAX};
use super::outcome::{Answer, Exchange, Failure, FailureKind};
use crate::config::{self, Auth, Http};

/// What we call ourselves.
pub(super) const OUR_NAME: HeaderValue = HeaderValue::from_static(concat!("outhaul/", env!("CARGO_PKG_VERSION")));
/// The most redirects that are followed for one request.
const REDIRECTS_MAX: usize = 3;
/// Shorter ones cannot be told from ordinary words.
const SECRET_LEN_MIN: usize = 4;

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
    pub(super) http: Http,
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
    credentials: Credentials,
    configured_headers: HeaderMap,
    timeout: Duration,
    connection: Connection,
    stage: Stage,
    /// Where a redirect that was said leads.
    said_redirect: Option<Url>,
}

/// What a request that takes too long was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Credentials,
    Answer,
}

impl Client {
    pub(super) fn new(options: ClientOptions) -> Self {
        Self {
            credentials: Credentials::new(options.auth),
            configured_headers: configured_headers(&options.headers),
            timeout: options.timeout,
            connection: Connection::new(options.http),
            stage: Stage::Answer,
            said_redirect: None,
        }
    }

    /// The total timeout of a request.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request within `timeout` and reads what matters of the answer.
    pub(super) async fn send(&mut self, request: &Request, timeout: Duration) -> Exchange {
        let exchange = match tokio::time::timeout(timeout, self.send_authorized(request)).await {
            Ok(exchange) => exchange,
            Err(_) if self.stage == Stage::Credentials => Err(self.credentials.late(timeout)),
            Err(_) => Err(Failure { kind: FailureKind::Timeout, message: format!("no answer within {timeout:?}") }),
        };
        if exchange.is_err() {
            self.connection.note_failure();
        }
        exchange
    }

    async fn send_authorized(&mut self, request: &Request) -> Exchange {
        let (header, freshness) = self.authorization().await?;
        let answer = self.send_and_follow(request, header).await?;
        if answer.status != 401 || freshness == Freshness::New {
            return Ok(answer);
        }
        // A token that was fetched earlier may have been withdrawn since: once, with a new one.
        self.credentials.forget();
        let (header, _) = self.authorization().await?;
        self.send_and_follow(request, header).await
    }

    async fn authorization(&mut self) -> Result<(Option<HeaderValue>, Freshness), Failure> {
        self.stage = Stage::Credentials;
        let header = self.credentials.header().await;
        self.stage = Stage::Answer;
        header
    }

    async fn send_and_follow(&mut self, request: &Request, authorization: Option<HeaderValue>) -> Exchange {
        let mut headers = self.configured_headers.clone();
        headers.extend(request.headers.clone());
        headers.insert(USER_AGENT, OUR_NAME);
        headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        let mut request = Request { headers, ..request.clone() };
        let secrets = all_secrets(&request, self.connection.secrets());
        for _ in 0..REDIRECTS_MAX {
            let answer = self.send_once(&request, &secrets).await?;
            match redirect(&request.url, &answer).filter(|_| self.connection.follows_redirects()) {
                Some(url) => {
                    self.say_redirect(&request.url, &url);
                    request.url = url;
                }
                None => return Ok(without(&secrets, answer)),
            }
        }
        Ok(without(&secrets, self.send_once(&request, &secrets).await?))
    }

    /// A redirect that is followed costs every request twice.
    fn say_redirect(&mut self, from: &Url, to: &Url) {
        if self.said_redirect.as_ref() == Some(to) {
            return;
        }
        self.said_redirect = Some(to.clone());
        let masked = |url: &Url| config::Url::new(url.clone()).masked();
        tracing::warn!(url = %masked(from), to = %masked(to), "redirected; set the url to where it leads, so that nothing is sent twice");
    }

    async fn send_once(&mut self, request: &Request, secrets: &[String]) -> Exchange {
        match self.connection.exchange(request, TEXT_BYTES_MAX).await {
            Ok((answer, _)) => Ok(answer),
            Err(failure) => Err(Failure { message: hidden(secrets, &failure.message), ..failure }),
        }
    }
}

/// Every secret of a request in every form in which an answer might repeat it, and `more`.
pub(super) fn all_secrets(request: &Request, more: Vec<String>) -> Vec<String> {
    let mut secrets = more;
    for value in request.headers.values().filter(|value| value.is_sensitive()) {
        // As an answer's text is read.
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        let credentials = text.split_once(' ').map_or(text.as_str(), |(_, credentials)| credentials).to_owned();
        if let Some(pair) = STANDARD.decode(&credentials).ok().and_then(|pair| String::from_utf8(pair).ok()) {
            // A name without a password is a token.
            let secret = match pair.split_once(':') {
                Some((name, "")) => name,
                Some((_, password)) => password,
                None => &pair,
            };
            secrets.extend([secret.to_owned(), pair]);
        }
        secrets.extend([text, credentials]);
    }
    // A key may stand in the query, and be repeated as it is written or as it is meant.
    secrets.extend(request.url.query().map(str::to_owned));
    for (_, value) in request.url.query_pairs() {
        secrets.extend([escaped(&value), value.into_owned()]);
    }
    secrets.retain(|secret| secret.len() >= SECRET_LEN_MIN);
    // The longest first, so that none is cut in two by one that is part of it.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// `application/x-www-form-urlencoded`.
pub(super) fn form<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut url = Url::parse("http://form/").expect("BUG: a constant URL");
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

/// One text of it.
pub(super) fn escaped(text: &str) -> String {
    form([("", text)]).trim_start_matches('=').to_owned()
}

/// A text without any of `secrets`.
pub(super) fn hidden(secrets: &[String], text: &str) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "<secret>"))
}

/// An answer as it may be shown: a debug proxy that echoes the request must not get its secrets into our log.
pub(super) fn without(secrets: &[String], mut answer: Answer) -> Answer {
    answer.text = hidden(secrets, &answer.text);
    answer.location = answer.location.map(|location| hidden(secrets, &location));
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

#[cfg(test)]
mod tests {
    use super::super::scripted::{Server, answer, no_content, status};
    use super::*;
    use crate::config::Proxy;

    #[test]
    fn an_answer_that_repeats_our_secrets_is_shown_without_them() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Basic dTpnZWhlaW0="),
            ("x-token", "Basic dG9rZW4tYXMtdXNlcjo="),
            ("x-api-key", "opensesame"),
            ("x-place", "caf\u{e9}"),
            ("x-plain", "harmless"),
        ] {
            let mut value = HeaderValue::try_from(value).unwrap();
            value.set_sensitive(name != "x-plain");
            headers.insert(name, value);
        }
        let url = Url::parse("http://h/push?tenant=a&key=s%26same%20street").unwrap();
        let request = Request { headers, ..request(&url) };
        let echo = |text: &str| {
            let answer =
                Answer { text: text.to_owned(), location: Some("/?key=opensesame".to_owned()), ..Answer::default() };
            without(&all_secrets(&request, Vec::new()), answer)
        };
        let shown = echo("dTpnZWhlaW0= u:geheim geheim opensesame harmless");
        assert_eq!(shown.text, "<secret> <secret> <secret> <secret> harmless");
        assert_eq!(shown.location.as_deref(), Some("/?key=<secret>"));
        assert_eq!(echo("x-api-key: opense").text, "x-api-key: ", "a secret that the cut halved");
        assert_eq!(echo("caf\u{e9} at /push?tenant=a&key=s%26same%20street!").text, "<secret> at /push?<secret>!");
        assert_eq!(echo("no key s&same street, s%26same+street").text, "no key <secret>, <secret>");
        assert_eq!(echo("a token-as-user here").text, "a <secret> here");
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

    fn client(http: Http) -> Client {
        super::super::install_crypto_provider();
        let (auth, headers) = (Auth::None, BTreeMap::new());
        Client::new(ClientOptions { auth, http, headers, timeout: Duration::from_secs(30) })
    }

    fn request(url: &Url) -> Request {
        Request { method: Method::POST, url: url.clone(), headers: HeaderMap::new(), body: Bytes::from_static(b"x") }
    }

    #[tokio::test]
    async fn a_connection_is_left_after_trouble_so_that_another_server_may_be_found() {
        let mut server = Server::replying([no_content(), status("503 x")]).await;
        let mut client = client(Http::default());
        let mut connections = Vec::new();
        for _ in 0..5 {
            client.send(&request(&server.url), Duration::from_secs(30)).await.unwrap();
            connections.push(server.next().await.connection);
        }
        assert_eq!(connections, [0, 0, 0, 1, 1], "the request after the trouble is the last on its connection");
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed_where_that_is_switched_off() {
        let server = Server::replying([answer("308 x", "location: /other\r\n", "")]).await;
        let mut client = client(Http { follow_redirects: false, ..Http::default() });
        let answer = client.send(&request(&server.url), Duration::from_secs(30)).await.unwrap();
        assert_eq!((answer.status, answer.location.as_deref()), (308, Some("/other")));
    }

    #[tokio::test]
    async fn the_receivers_counts_and_clock_are_handed_on() {
        let headers = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Prometheus-Remote-Write-Samples-Written: 3\r\n";
        let server = Server::replying([answer("200 OK", headers, "")]).await;
        let answer = client(Http::default()).send(&request(&server.url), Duration::from_secs(30)).await.unwrap();
        assert_eq!(answer.written.map(|written| written.samples), Some(3));
        assert_eq!(answer.date.map(crate::model::Timestamp::millis), Some(784_111_777_000));
    }

    #[tokio::test]
    async fn a_proxy_is_spoken_to_in_place_of_the_receiver_and_its_password_is_not_shown() {
        let mut proxy = Server::replying([answer("407 x", "", "you are u:hunter2secret")]).await;
        let mut url = proxy.url.clone();
        url.set_username("u").unwrap();
        url.set_password(Some("hunter2secret")).unwrap();
        let proxy_config = Proxy { url: crate::config::Url::new(url), connect_headers: Vec::new() };
        let mut client = client(Http { proxy: Some(proxy_config), ..Http::default() });
        let to = Url::parse("http://name:word@receiver.invalid/push").unwrap();
        let answer = client.send(&request(&to), Duration::from_secs(30)).await.unwrap();
        assert_eq!((answer.status, answer.text.as_str()), (407, "you are u:<secret>"));
        let seen = proxy.next().await;
        assert_eq!(seen.path(), "http://receiver.invalid/push");
        let pair = STANDARD.encode("u:hunter2secret");
        assert_eq!(seen.header("proxy-authorization"), Some(format!("Basic {pair}").as_str()));
    }

    #[tokio::test]
    async fn a_receiver_behind_tls_is_asked_for_by_connect_with_the_headers_for_it() {
        let mut proxy = Server::replying([answer("403 no", "", "")]).await;
        let connect_headers = vec![("X-Proxy-Key".to_owned(), crate::config::Secret::from("hunter2"))];
        let proxy_config = Proxy { url: crate::config::Url::new(proxy.url.clone()), connect_headers };
        let tls = crate::config::Tls { insecure_skip_verify: true, ..crate::config::Tls::default() };
        let mut client = client(Http { proxy: Some(proxy_config), tls, ..Http::default() });
        let to = Url::parse("https://receiver.invalid/push").unwrap();
        let failure = client.send(&request(&to), Duration::from_secs(30)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Connect, "{failure}");
        let seen = proxy.next().await;
        assert_eq!((seen.method(), seen.path()), ("CONNECT", "receiver.invalid:443"));
        assert_eq!(seen.header("x-proxy-key"), Some("hunter2"));
        assert!(!format!("{client:?}").contains("hunter2"));
    }
}
