//! The `Authorization` header, made anew for each request so that a rotated token file needs no restart.
//!
//! No secret leaves this file except inside a header value that is marked sensitive; errors name the file, never what is
//! in it.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use secrecy::ExposeSecret as _;
use tokio::io::AsyncReadExt as _;

use super::outcome::{Failure, FailureKind};
use super::token::TokenSource;
use crate::config::{Auth, Secret, SecretSource};

/// The most of a secret file that is read; tokens are far smaller.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Whether a credential was made for this request, or may have been withdrawn since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Nothing newer can be had.
    New,
    /// It was kept.
    Kept,
}

/// What an endpoint's requests are signed with.
#[derive(Debug)]
pub(super) enum Credentials {
    /// What the configuration, or a file that it names, holds.
    Given(Auth),
    /// A token that is fetched.
    Fetched(Box<TokenSource>),
}

impl Credentials {
    pub(super) fn new(auth: Auth) -> Self {
        match auth {
            Auth::OAuth2(oauth2) => Self::Fetched(Box::new(TokenSource::new(*oauth2))),
            auth => Self::Given(auth),
        }
    }

    /// The header's value; `None` where no credentials are configured.
    pub(super) async fn header(&mut self) -> Result<(Option<HeaderValue>, Freshness), Failure> {
        match self {
            Self::Given(auth) => Ok((authorization(auth).await?, Freshness::New)),
            Self::Fetched(source) => source.header().await.map(|(value, freshness)| (Some(value), freshness)),
        }
    }

    /// What to say when they could not be had in time.
    pub(super) fn late(&self, timeout: Duration) -> Failure {
        match self {
            Self::Given(_) => unprepared(format!("the credentials could not be read within {timeout:?}")),
            Self::Fetched(source) => source.trouble(None, &format!("no answer within {timeout:?}")),
        }
    }

    /// Lets go of what was kept, because the receiver does not take it.
    pub(super) fn forget(&mut self) {
        if let Self::Fetched(source) = self {
            source.forget();
        }
    }
}

/// The header of credentials that are given; `None` where there are none.
async fn authorization(auth: &Auth) -> Result<Option<HeaderValue>, Failure> {
    let (text, source) = match auth {
        Auth::None | Auth::OAuth2(_) => return Ok(None),
        Auth::Basic { username, password } => {
            let (user, secret) = (read(username).await?, read(password).await?);
            let pair = Secret::from(format!("{}:{}", user.expose_secret(), secret.expose_secret()));
            (Secret::from(format!("Basic {}", STANDARD.encode(pair.expose_secret()))), password)
        }
        Auth::Authorization { scheme, credentials } => {
            let secret = read(credentials).await?;
            (Secret::from(format!("{scheme} {}", secret.expose_secret())), credentials)
        }
    };
    let value = sensitive(text.expose_secret()).ok_or_else(|| {
        unprepared(format!("{} cannot stand in a header: it holds a line break or worse", name(source)))
    })?;
    Ok(Some(value))
}

/// A header's value that no debug text shows.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn name(source: &SecretSource) -> String {
    match source {
        SecretSource::Value(_) => "the configured credential".to_owned(),
        SecretSource::File(path) => format!("the credential in {}", path.display()),
    }
}

pub(super) async fn read(source: &SecretSource) -> Result<Secret, Failure> {
    match source {
        SecretSource::Value(secret) => Ok(secret.clone()),
        SecretSource::File(path) => read_file(path).await,
    }
}

/// One trailing newline is the editor's, not part of the secret.
async fn read_file(path: &Path) -> Result<Secret, Failure> {
    let failed = |error: std::io::Error| unprepared(format!("cannot read the secret file {}: {error}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut text = String::new();
    file.take(SECRET_BYTES_MAX).read_to_string(&mut text).await.map_err(failed)?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(unprepared(format!("the secret file {} is empty", path.display())));
    }
    Ok(Secret::from(secret))
}

pub(super) fn unprepared(message: String) -> Failure {
    Failure { kind: FailureKind::Unprepared, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> SecretSource {
        SecretSource::Value(Secret::from(text))
    }

    async fn header(auth: &Auth) -> Result<String, Failure> {
        Ok(authorization(auth).await?.map_or(String::new(), |value| value.to_str().unwrap().to_owned()))
    }

    #[tokio::test]
    async fn credentials_become_the_header_of_their_scheme() {
        // The example of RFC 7617, section 2.
        let basic = Auth::Basic { username: value("Aladdin"), password: value("open sesame") };
        assert_eq!(header(&basic).await.unwrap(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        let bearer = Auth::Authorization { scheme: "Bearer".into(), credentials: value("t") };
        assert_eq!(header(&bearer).await.unwrap(), "Bearer t");
        assert_eq!(header(&Auth::None).await.unwrap(), "");
        let sensitive = authorization(&bearer).await.unwrap().unwrap();
        assert_eq!(format!("{sensitive:?}"), "Sensitive");
    }

    #[tokio::test]
    async fn a_secret_file_is_read_anew_each_time_without_its_last_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let auth = Auth::Authorization { scheme: "Bearer".into(), credentials: SecretSource::File(path.clone()) };
        let missing = header(&auth).await.unwrap_err();
        assert_eq!(missing.kind, FailureKind::Unprepared);
        assert!(missing.message.contains(&*path.to_string_lossy()), "{missing}");
        for (content, expected) in [("a\n", "Bearer a"), ("b\r\n", "Bearer b"), (" c \n", "Bearer  c ")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(header(&auth).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_secret_that_fits_no_header_is_refused_without_being_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let auth = Auth::Authorization { scheme: "Bearer".into(), credentials: SecretSource::File(path.clone()) };
        for content in ["hunter2\nhunter3\n", "\n", ""] {
            std::fs::write(&path, content).unwrap();
            let error = header(&auth).await.unwrap_err();
            assert!(!error.message.contains("hunter"), "{error}");
            assert!(error.message.contains("token"), "{error}");
        }
    }
}
