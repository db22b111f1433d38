//! What remote-write endpoints and the Pushgateway share: the URL, who we are, whom to trust (Prometheus' `http_config`).
//!
//! Secrets go straight from the text into a [`Secret`]; files of secrets are named here and never opened.

use super::raw::Block;
use super::{Auth, ClientCertificate, Secret, SecretSource, Tls, Url, unknown};

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

/// How to prove who we are; at most one way, and none at all where the URL carries a user.
pub(super) fn auth(block: &mut Block<'_>, url: Option<&Url>) -> Auth {
    let basic = block.block("basic_auth", basic_auth);
    let authorization = block.block("authorization", authorization);
    let bearer = secret(block, "bearer_token", "bearer_token_file");
    block.refused(&["oauth2"], unknown::NOT_YET);
    let ways = [
        ("basic_auth", basic.is_some()),
        ("authorization", authorization.is_some()),
        ("bearer_token", bearer.is_some()),
        ("a user in the URL", url.is_some_and(has_user)),
    ];
    let found: Vec<&str> = ways.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name).collect();
    if found.len() > 1 {
        block.wrong_here(format!("at most one way to authenticate may be set, found {}", found.join(" and ")));
    }
    let bearer = bearer.map(|credentials| Auth::Authorization { scheme: "Bearer".to_owned(), credentials });
    let auth = basic.or(authorization).flatten().or(bearer).unwrap_or(Auth::None);
    if let Some(url) = url {
        warn_of_plain_text(block, url, &auth);
    }
    auth
}

fn has_user(url: &Url) -> bool {
    !url.expose().username().is_empty() || url.expose().password().is_some()
}

fn warn_of_plain_text(block: &Block<'_>, url: &Url, auth: &Auth) {
    let address = url.expose();
    let host = address.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let has_secret = has_user(url) || !matches!(auth, Auth::None);
    if address.scheme() == "http" && has_secret && !is_local {
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
fn secret(block: &mut Block<'_>, key: &'static str, file_key: &'static str) -> Option<SecretSource> {
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

/// Whom to trust.
pub(super) fn tls(block: &mut Block<'_>) -> Tls {
    block.block("tls_config", tls_config).unwrap_or_default()
}

fn tls_config(block: &mut Block<'_>) -> Tls {
    block.refused(&unknown::TLS_NOT_YET, unknown::NOT_YET);
    let ca_file = block.file("ca_file");
    let client = match (block.file("cert_file"), block.file("key_file")) {
        (Some(cert_file), Some(key_file)) => Some(ClientCertificate { cert_file, key_file }),
        (None, None) => None,
        _ => {
            block.wrong_here("cert_file and key_file belong together; set both or neither");
            None
        }
    };
    let insecure_skip_verify = block.flag("insecure_skip_verify").unwrap_or(false);
    if insecure_skip_verify {
        block
            .report()
            .notice(format!("{}: anybody is believed to be the receiver", block.path_of("insecure_skip_verify")));
    }
    Tls { ca_file, client, insecure_skip_verify }
}

/// The other keys of `http_config`: harmless, or refused.
pub(super) fn other_http_keys(block: &mut Block<'_>) {
    block.only_flag("follow_redirects", true);
    block.only_flag("proxy_from_environment", false);
    // HTTP/1.1 is spoken either way, which changes nothing that arrives.
    if block.flag("enable_http2") == Some(true) {
        block.without_effect("enable_http2");
    }
    let rest: Vec<&str> = unknown::HTTP_NOT_YET.into_iter().filter(|key| *key != "oauth2").collect();
    block.refused(&rest, unknown::NOT_YET);
}
