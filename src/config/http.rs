//! What remote-write endpoints and the Pushgateway share: the URL, who we are, whom to trust (Prometheus' `http_config`).
//!
//! Secrets go straight from the text into a [`Secret`]; files of secrets are named here and never opened.

use percent_encoding::percent_decode_str;

use super::environment::Environment;
use super::raw::Block;
use super::{Auth, Http, Proxy, Secret, SecretSource, Tls, Url, oauth2, proxy, tls, unknown};

/// A whole URL of a receiver.
///
/// # Errors
/// The rule that was broken.
pub(super) fn url(text: &str) -> Result<Url, String> {
    const HINT: &str = "write it as http://host:port/path or https://host/path";
    let url = reqwest::Url::parse(text).map_err(|error| format!("not a URL: {error}; {HINT}"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(Url::new(url)),
        "http" | "https" => Err(format!("a URL needs a host; {HINT}")),
        _ => Err(format!("not an http or https URL; {HINT}")),
    }
}

/// The URL at `key`, which must be there.
pub(super) fn required_url(block: &mut Block<'_>, key: &'static str) -> Option<Url> {
    if !block.has(key) {
        block.wrong(key, None, "is missing; it is the address to send to");
    }
    block.parsed(key, url)
}

/// How to prove who we are; at most one way, of which a user in the URL is one.
pub(super) fn auth(block: &mut Block<'_>, url: Option<&Url>, environment: &Environment) -> Auth {
    let basic = block.block("basic_auth", basic_auth);
    let authorization = block.block("authorization", authorization);
    let bearer = secret(block, "bearer_token", "bearer_token_file");
    let oauth2 = block.block("oauth2", |block| oauth2::oauth2(block, environment));
    let ways = [
        ("basic_auth", basic.is_some()),
        ("authorization", authorization.is_some()),
        ("oauth2", oauth2.is_some()),
        ("bearer_token", bearer.is_some()),
        ("a user in the URL", url.is_some_and(has_user)),
    ];
    let found: Vec<&str> = ways.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name).collect();
    if found.len() > 1 {
        block.wrong_here(format!("at most one way to authenticate may be set, found {}", found.join(" and ")));
    }
    let bearer = bearer.map(|credentials| Auth::Authorization { scheme: "Bearer".to_owned(), credentials });
    let oauth2 = oauth2.flatten().map(|oauth2| Auth::OAuth2(Box::new(oauth2)));
    let in_url = url.filter(|url| has_user(url)).and_then(|url| user_of(block, url));
    let auth = basic.or(authorization).flatten().or(bearer).or(oauth2).or(in_url).unwrap_or(Auth::None);
    if let Some(url) = url {
        warn_of_plain_text(block, url, !matches!(auth, Auth::None));
    }
    if let Auth::OAuth2(oauth2) = &auth {
        warn_of_plain_text(block, &oauth2.token_url, true);
    }
    auth
}

fn has_user(url: &Url) -> bool {
    !url.expose().username().is_empty() || url.expose().password().is_some()
}

/// The user and password of a URL, as RFC 3986, section 3.2.1 writes them.
fn user_of(block: &mut Block<'_>, url: &Url) -> Option<Auth> {
    let plain = |text: &str| percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned);
    let url = url.expose();
    match (plain(url.username()), plain(url.password().unwrap_or_default())) {
        // RFC 7617, section 2: the first colon ends the name.
        (Ok(name), Ok(password)) if !name.contains(':') => {
            let [username, password] = [name, password].map(|text| SecretSource::Value(Secret::from(text)));
            Some(Auth::Basic { username, password })
        }
        (Ok(_), Ok(_)) => {
            block.wrong("url", None, "holds a user with a colon in the name, which no header can carry");
            None
        }
        _ => {
            block.wrong("url", None, "holds a user or a password that is not UTF-8");
            None
        }
    }
}

fn warn_of_plain_text(block: &Block<'_>, url: &Url, has_credentials: bool) {
    let address = url.expose();
    let host = address.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if address.scheme() == "http" && has_credentials && !is_local {
        block.report().notice(format!("{}: credentials travel unencrypted to {}", block.path_of("url"), url.masked()));
    }
}

fn basic_auth(block: &mut Block<'_>) -> Option<Auth> {
    block.refused(&unknown::BASIC_AUTH_NOT_YET, unknown::NOT_YET);
    if !block.has("username") && !block.has("username_file") {
        block.wrong("username", None, "is missing");
    }
    let username = secret(block, "username", "username_file");
    if let Some(SecretSource::Value(name)) = &username
        && secrecy::ExposeSecret::expose_secret(name).contains(':')
    {
        // RFC 7617, section 2: the first colon ends the name.
        block.wrong("username", None, "may not hold a colon");
    }
    if !block.has("password") && !block.has("password_file") {
        block.report().notice(format!("{}: there is no password", block.path_of("password")));
    }
    let password = secret(block, "password", "password_file");
    let password = password.unwrap_or_else(|| SecretSource::Value(Secret::from(String::new())));
    Some(Auth::Basic { username: username?, password })
}

fn authorization(block: &mut Block<'_>) -> Option<Auth> {
    block.refused(&unknown::AUTHORIZATION_NOT_YET, unknown::NOT_YET);
    let scheme = block.text("type").unwrap_or_else(|| "Bearer".to_owned());
    if scheme.eq_ignore_ascii_case("basic") {
        block.wrong("type", None, "use basic_auth for this scheme");
    } else if reqwest::header::HeaderName::try_from(&scheme).is_err() {
        // RFC 9110, section 11.1: a scheme is a token, as a field name is.
        block.wrong("type", Some(&scheme), "is not an authentication scheme, such as Bearer");
    }
    if !block.has("credentials") && !block.has("credentials_file") {
        block.wrong("credentials", None, "is missing; set it or credentials_file");
    }
    let credentials = secret(block, "credentials", "credentials_file")?;
    Some(Auth::Authorization { scheme, credentials })
}

/// A secret, or the file that holds it.
pub(super) fn secret(block: &mut Block<'_>, key: &'static str, file_key: &'static str) -> Option<SecretSource> {
    let value = block.text(key);
    let file = block.file(file_key);
    if value.is_some() && file.is_some() {
        block.wrong(key, None, format!("at most one of {key} and {file_key} may be set"));
    }
    let in_header = |text: &str| reqwest::header::HeaderValue::from_str(text).is_ok();
    if value.as_deref().is_some_and(|text| !in_header(text) && matches!(key, "credentials" | "bearer_token")) {
        block.wrong(key, None, "must be printable ASCII on one line");
    }
    value.map(|text| SecretSource::Value(Secret::from(text))).or(file.map(SecretSource::File))
}

/// A name for TLS beside the URL's needs a connection of our own, which a proxy's is not.
pub(super) fn check_server_name(block: &Block<'_>, tls: &Tls, proxy: Option<&Proxy>) {
    if tls.server_name.is_some() && proxy.is_some() {
        block.wrong("tls_config", None, "server_name through a proxy is not supported yet; use the name in the URL");
    }
}

/// Prometheus' `http_config`, but for how to prove who we are.
pub(super) fn http(block: &mut Block<'_>, url: Option<&Url>, environment: &Environment) -> Http {
    let tls = tls::tls(block);
    let proxy = proxy::proxy(block, url, environment);
    check_server_name(block, &tls, proxy.as_ref());
    // HTTP/1.1 is spoken either way: with one request in flight there is nothing that HTTP/2 could put beside it.
    if block.flag("enable_http2") == Some(true) {
        block.without_effect("enable_http2");
    }
    block.refused(&unknown::HTTP_NOT_YET, "valid in Prometheus, not supported by outhaul; use headers");
    Http { tls, proxy, follow_redirects: block.flag("follow_redirects").unwrap_or(true) }
}
