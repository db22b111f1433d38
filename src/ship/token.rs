//! A token by OAuth 2.0's client-credentials grant (RFC 6749, section 4.4): fetched when needed, kept until it expires.
//!
//! Invariants: the client's secret goes to the token URL only, and no redirect is followed there; no error shows a secret
//! or a token; a token is fetched anew only when it expires or somebody does not take it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, USER_AGENT};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use tokio::time::Instant;

use super::auth::{self, Freshness, sensitive, unprepared};
use super::client::{OUR_NAME, Request, all_secrets, escaped, form, hidden, without};
use super::connection::Connection;
use super::outcome::{Answer, Failure, FailureKind, describe};
use super::retry_after;
use crate::config::{Http, OAuth2, Secret};
use crate::model::Timestamp;

/// The most of a token answer that is read; tokens are a few kilobytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long before its end a token is no longer used (Go's `oauth2` package, `defaultExpiryDelta`, which Prometheus uses).
const EARLY: Duration = Duration::from_secs(10);
/// The longest a token is kept, whatever its maker says.
const KEPT_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Where the client's name and secret stand. Makers of tokens must take the header (RFC 6749, section 2.3.1), and some
/// take only the form; like Go's `oauth2` package, what works is found out and remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Unknown,
    Header,
    Form,
}

/// See the module.
#[derive(Debug)]
pub(super) struct TokenSource {
    config: OAuth2,
    connection: Connection,
    style: Style,
    kept: Option<Token>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    until: Option<Instant>,
}

/// A token answer (RFC 6749, section 5.1).
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(default)]
    token_type: String,
    /// A number; some makers write it as text.
    expires_in: Option<serde_json::Value>,
}

impl TokenSource {
    pub(super) fn new(config: OAuth2) -> Self {
        let http = Http { tls: config.tls.clone(), proxy: config.proxy.clone(), follow_redirects: false };
        Self { config, connection: Connection::new(http), style: Style::Unknown, kept: None }
    }

    /// The header with a token that has not expired.
    pub(super) async fn header(&mut self) -> Result<(HeaderValue, Freshness), Failure> {
        let now = Instant::now();
        if let Some(token) = self.kept.as_ref().filter(|token| token.until.is_none_or(|until| now < until)) {
            return Ok((token.header.clone(), Freshness::Kept));
        }
        let token = self.fetch().await?;
        let header = token.header.clone();
        self.kept = Some(token);
        Ok((header, Freshness::New))
    }

    /// Lets go of the token.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    async fn fetch(&mut self) -> Result<Token, Failure> {
        let secret = auth::read(&self.config.client_secret).await?;
        let first = if self.style == Style::Form { Style::Form } else { Style::Header };
        let (mut answer, mut body) = self.ask(first, &secret).await?;
        let mut style = first;
        if self.style == Style::Unknown && matches!(answer.status, 400 | 401) {
            style = Style::Form;
            (answer, body) = self.ask(style, &secret).await?;
        }
        if !(200..300).contains(&answer.status) {
            return Err(self.refusal(answer));
        }
        self.style = style;
        self.token(&body)
    }

    async fn ask(&mut self, style: Style, secret: &Secret) -> Result<(Answer, Vec<u8>), Failure> {
        let request = self.request(style, secret)?;
        let parameters = self.config.endpoint_params.values().map(String::as_str);
        let given = parameters.chain([secret.expose_secret()]).flat_map(|text| [text.to_owned(), escaped(text)]);
        let mut secrets = self.connection.secrets();
        secrets.extend(given);
        let secrets = all_secrets(&request, secrets);
        match self.connection.exchange(&request, ANSWER_BYTES_MAX).await {
            Ok((answer, body)) => Ok((without(&secrets, answer), body)),
            Err(failure) => {
                self.connection.note_failure();
                Err(self.trouble(None, &hidden(&secrets, &failure.message)))
            }
        }
    }

    fn request(&self, style: Style, secret: &Secret) -> Result<Request, Failure> {
        let config = &self.config;
        let scopes = config.scopes.join(" ");
        let mut fields = vec![("grant_type", "client_credentials")];
        if !scopes.is_empty() {
            fields.push(("scope", &scopes));
        }
        fields.extend(config.endpoint_params.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut headers = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("application/json")),
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            (USER_AGENT, OUR_NAME),
        ]);
        if style == Style::Form {
            fields.extend([("client_id", config.client_id.as_str()), ("client_secret", secret.expose_secret())]);
        } else {
            // Both are form-encoded before they are joined (RFC 6749, section 2.3.1).
            let pair = format!("{}:{}", escaped(&config.client_id), escaped(secret.expose_secret()));
            let value = sensitive(&format!("Basic {}", STANDARD.encode(pair)));
            let value =
                value.ok_or_else(|| unprepared("the oauth2 client_secret cannot stand in a header".to_owned()))?;
            headers.insert(AUTHORIZATION, value);
        }
        let url = config.token_url.expose().clone();
        Ok(Request { method: Method::POST, url, headers, body: Bytes::from(form(fields)) })
    }

    fn what(&self) -> String {
        format!("no token from {}", self.config.token_url.masked())
    }

    /// There is no token now.
    pub(super) fn trouble(&self, after: Option<Duration>, message: &str) -> Failure {
        Failure { kind: FailureKind::NoToken { after }, message: format!("{}: {message}", self.what()) }
    }

    fn refused(&self, message: &str) -> Failure {
        Failure { kind: FailureKind::TokenRefused, message: format!("{}: {message}", self.what()) }
    }

    /// A maker of tokens in trouble is waited for; one that refuses us is a matter for a person.
    fn refusal(&self, answer: Answer) -> Failure {
        if matches!(answer.status, 408 | 425 | 429 | 500..) {
            // A date that it names is by its own clock.
            let now = answer.date.unwrap_or(Timestamp::MIN);
            let after = answer.retry_after.as_deref().and_then(|text| retry_after::parse(text, now));
            return self.trouble(after, &describe(&Ok(answer)));
        }
        self.refused(&describe(&Ok(answer)))
    }

    /// The token of an answer, of which nothing is ever shown.
    fn token(&self, body: &[u8]) -> Result<Token, Failure> {
        let wrong = |rule: &str| self.refused(rule);
        let granted: Granted =
            serde_json::from_slice(body).map_err(|_| wrong("the answer is not a token answer in JSON"))?;
        let token = &granted.access_token;
        if token.is_empty() {
            return Err(wrong("the answer holds an empty token"));
        }
        let is_bearer = granted.token_type.is_empty() || granted.token_type.eq_ignore_ascii_case("bearer");
        let scheme = if is_bearer { "Bearer" } else { &granted.token_type };
        let header = sensitive(&format!("{scheme} {token}")).ok_or_else(|| wrong("the token fits no header"))?;
        let seconds = granted.expires_in.and_then(|value| match value {
            serde_json::Value::String(text) => text.parse().ok(),
            value => value.as_u64(),
        });
        let life = seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        let until = life.map(|life| Instant::now() + life.min(KEPT_MAX).saturating_sub(EARLY));
        Ok(Token { header, until })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::auth::Credentials;
    use super::super::client::{Client, ClientOptions};
    use super::super::install_crypto_provider;
    use super::super::scripted::{Reply, Server, answer, no_content, status};
    use super::*;
    use crate::config::{Auth, SecretSource, Tls, Url};

    fn oauth2(url: &reqwest::Url) -> OAuth2 {
        OAuth2 {
            client_id: "roof 3".to_owned(),
            client_secret: SecretSource::Value(Secret::from("hunter2&x")),
            scopes: vec!["metrics:write".to_owned(), "b".to_owned()],
            token_url: Url::new(url.clone()),
            endpoint_params: BTreeMap::from([("audience".to_owned(), "hunter3".to_owned())]),
            tls: Tls::default(),
            proxy: None,
        }
    }

    fn granted(token: &str, life: &str) -> Reply {
        answer(
            "200 OK",
            "",
            &format!("{{\"access_token\":\"{token}\",\"token_type\":\"bearer\",\"expires_in\":{life}}}"),
        )
    }

    async fn header(source: &mut TokenSource) -> String {
        source.header().await.unwrap().0.to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_token_is_asked_for_as_the_rfc_says_and_kept() {
        install_crypto_provider();
        let mut server = Server::replying([granted("t1", "3600")]).await;
        let mut source = TokenSource::new(oauth2(&server.url));
        assert_eq!(header(&mut source).await, "Bearer t1");
        assert_eq!(header(&mut source).await, "Bearer t1");
        let seen = server.next().await;
        let pair = STANDARD.encode("roof+3:hunter2%26x");
        assert_eq!(seen.header("authorization"), Some(format!("Basic {pair}").as_str()));
        let body = String::from_utf8(seen.body).unwrap();
        assert_eq!(body, "grant_type=client_credentials&scope=metrics%3Awrite+b&audience=hunter3");
        assert!(server.requests.try_recv().is_err(), "one token is enough");
        assert!(!format!("{source:?}").contains("t1") && !format!("{source:?}").contains("hunter"), "{source:?}");
    }

    #[tokio::test]
    async fn a_token_near_its_end_is_not_used() {
        install_crypto_provider();
        let server = Server::replying([granted("t1", "\"9\""), granted("t2", "60")]).await;
        let mut source = TokenSource::new(oauth2(&server.url));
        assert_eq!(header(&mut source).await, "Bearer t1");
        assert_eq!(header(&mut source).await, "Bearer t2");
        assert_eq!(header(&mut source).await, "Bearer t2");
    }

    #[tokio::test]
    async fn a_maker_of_tokens_that_wants_the_secret_in_the_form_gets_it_there_from_then_on() {
        install_crypto_provider();
        let refuses = status("401 Unauthorized");
        let mut server = Server::replying([refuses, granted("t1", "1"), granted("t2", "60")]).await;
        let mut source = TokenSource::new(oauth2(&server.url));
        assert_eq!(header(&mut source).await, "Bearer t1");
        assert_eq!(header(&mut source).await, "Bearer t2");
        let with_header = [server.next().await, server.next().await, server.next().await];
        assert_eq!(with_header.each_ref().map(|seen| seen.header("authorization").is_some()), [true, false, false]);
        let body = String::from_utf8_lossy(&with_header[1].body).into_owned();
        assert!(body.ends_with("&client_id=roof+3&client_secret=hunter2%26x"), "{body}");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_without_a_secret_and_held_or_tried_again() {
        install_crypto_provider();
        let echo = answer("400 Bad Request", "", "invalid_client hunter2&x hunter3 client_secret=hunter2%26x");
        let three = Some(Duration::from_secs(3));
        for (replies, kind, words) in [
            (
                vec![echo.clone(), echo],
                FailureKind::TokenRefused,
                "invalid_client <secret> <secret> client_secret=<secret>",
            ),
            (vec![status("503 x")], FailureKind::NoToken { after: None }, "status 503"),
            (vec![answer("429 x", "Retry-After: 3\r\n", "")], FailureKind::NoToken { after: three }, "status 429"),
            (vec![answer("200 OK", "", "hunter2")], FailureKind::TokenRefused, "not a token answer"),
            (vec![granted("", "1")], FailureKind::TokenRefused, "an empty token"),
            (vec![granted("a\\nb", "1")], FailureKind::TokenRefused, "fits no header"),
        ] {
            let server = Server::replying(replies).await;
            let failure = TokenSource::new(oauth2(&server.url)).header().await.unwrap_err();
            assert_eq!(failure.kind, kind, "{failure}");
            assert!(failure.message.contains(words) && !failure.message.contains("hunter"), "{failure}");
            assert!(failure.message.starts_with("no token from http://127.0.0.1:"), "{failure}");
        }
    }

    #[tokio::test]
    async fn a_token_that_was_withdrawn_is_replaced_once() {
        install_crypto_provider();
        let tokens = Server::replying([granted("t1", "3600"), granted("t2", "3600"), granted("t3", "3600")]).await;
        let refuses = || status("401 Unauthorized");
        let mut receiver = Server::replying([no_content(), refuses(), no_content(), refuses(), refuses()]).await;
        let auth = Auth::OAuth2(Box::new(oauth2(&tokens.url)));
        assert!(matches!(Credentials::new(auth.clone()), Credentials::Fetched(_)));
        let mut client = Client::new(ClientOptions {
            auth,
            http: Http::default(),
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(30),
        });
        let (url, headers) = (receiver.url.clone(), HeaderMap::new());
        let request = Request { method: Method::POST, url, headers, body: Bytes::from_static(b"x") };
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(client.send(&request, Duration::from_secs(30)).await.unwrap().status);
        }
        assert_eq!(statuses, [204, 204, 401]);
        let mut tokens = Vec::new();
        while let Ok(seen) = receiver.requests.try_recv() {
            tokens.push(seen.header("authorization").unwrap().to_owned());
        }
        assert_eq!(tokens, ["Bearer t1", "Bearer t1", "Bearer t2", "Bearer t2", "Bearer t3"]);
    }
}
