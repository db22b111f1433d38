//! Whom an endpoint's client trusts, and the certificate it shows.
//!
//! The system's certificate authorities are loaded here and only for https, so that a client for a plain http URL can be
//! built on a host without any. A configured authority replaces them, as in Prometheus. No error shows what is in a file.

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use reqwest::{Certificate, ClientBuilder, Identity};
use rustls::RootCertStore;
use secrecy::ExposeSecret as _;

use super::auth::unprepared;
use super::outcome::Failure;
use crate::config::{ClientCertificate, SecretSource, Tls, TlsVersion};

/// Whether a client will speak TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    /// http.
    Plain,
    /// https.
    Tls,
}

/// Makes ring the program's cryptography. `main` calls this first, and so does every test that builds a client.
pub fn install_crypto_provider() {
    // An error means that a provider is installed already, which is just as well.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// What tells that files of a [`Tls`] were changed or replaced.
pub(super) type FileStamps = Vec<Option<FileStamp>>;

/// One file: inode, change and modification time, length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    identity: (u64, i64, i64),
    modified: Option<SystemTime>,
    len: u64,
}

/// The stamps of the files that a client of this kind reads; `None` for one that cannot be looked at.
pub(super) async fn stamps(tls: &Tls, transport: Transport) -> FileStamps {
    let client = tls.client.iter().flat_map(|client| [&client.cert, &client.key]);
    let mut stamps = Vec::new();
    for source in tls.ca.iter().chain(client).filter(|_| transport == Transport::Tls) {
        if let SecretSource::File(path) = source {
            stamps.push(tokio::fs::metadata(path).await.ok().map(|metadata| stamp(&metadata)));
        }
    }
    stamps
}

fn stamp(metadata: &std::fs::Metadata) -> FileStamp {
    #[cfg(unix)]
    let identity = {
        use std::os::unix::fs::MetadataExt as _;
        (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
    };
    #[cfg(not(unix))]
    let identity = (0, 0, 0);
    FileStamp { identity, modified: metadata.modified().ok(), len: metadata.len() }
}

/// Adds trust and identity to a client. Reads files, so it does not belong on the runtime's thread.
pub(super) fn configure(builder: ClientBuilder, tls: &Tls, transport: Transport) -> Result<ClientBuilder, Failure> {
    if transport == Transport::Plain {
        return Ok(builder.tls_certs_only([]));
    }
    let builder = match &tls.client {
        Some(certificate) => builder.identity(identity(certificate)?),
        None => builder,
    };
    let builder = match tls.min_version {
        Some(version) => builder.tls_version_min(spoken(version)),
        None => builder,
    };
    let builder = match tls.max_version {
        Some(version) => builder.tls_version_max(spoken(version)),
        None => builder,
    };
    if tls.insecure_skip_verify {
        return Ok(builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true));
    }
    let roots = match &tls.ca {
        Some(source) => roots_from(source)?,
        None => system_roots()?,
    };
    Ok(builder.tls_certs_only(roots))
}

fn spoken(version: TlsVersion) -> reqwest::tls::Version {
    match version {
        TlsVersion::Tls12 => reqwest::tls::Version::TLS_1_2,
        TlsVersion::Tls13 => reqwest::tls::Version::TLS_1_3,
    }
}

fn roots_from(source: &SecretSource) -> Result<Vec<Certificate>, Failure> {
    let name = Named("ca", source);
    let roots = Certificate::from_pem_bundle(&read(source)?)
        .map_err(|_| unprepared(format!("{name} is not a PEM bundle of certificates")))?;
    if roots.is_empty() {
        return Err(unprepared(format!("{name} holds no certificate")));
    }
    Ok(roots)
}

/// A certificate that rustls cannot use costs only itself: system bundles hold odd ones.
fn system_roots() -> Result<Vec<Certificate>, Failure> {
    let loaded = rustls_native_certs::load_native_certs();
    let usable = loaded.certs.into_iter().filter(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
    let roots: Vec<Certificate> = usable.filter_map(|usable| Certificate::from_der(&usable).ok()).collect();
    if roots.is_empty() {
        let why = loaded.errors.first().map_or(String::new(), |error| format!(" ({error})"));
        let message = format!(
            "this host has no certificate authorities to check https with{why}: install the package ca-certificates, or set tls_config.ca_file"
        );
        return Err(unprepared(message));
    }
    Ok(roots)
}

fn identity(certificate: &ClientCertificate) -> Result<Identity, Failure> {
    let ClientCertificate { cert, key } = certificate;
    let mut pem = read(key)?;
    pem.push(b'\n');
    pem.extend(read(cert)?);
    Identity::from_pem(&pem).map_err(|_| {
        let (cert, key) = (Named("cert", cert), Named("key", key));
        unprepared(format!("{cert} and {key} are not a PEM certificate and its key"))
    })
}

/// What a text is called where something is wrong with it.
struct Named<'a>(&'static str, &'a SecretSource);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            SecretSource::Value(_) => write!(f, "tls_config.{}", self.0),
            SecretSource::File(path) => write!(f, "{}_file {}", self.0, path.display()),
        }
    }
}

fn read(source: &SecretSource) -> Result<Vec<u8>, Failure> {
    let file = |path: &PathBuf| {
        std::fs::read(path).map_err(|error| unprepared(format!("cannot read {}: {error}", path.display())))
    };
    match source {
        SecretSource::Value(text) => Ok(text.expose_secret().as_bytes().to_vec()),
        SecretSource::File(path) => file(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(tls: &Tls, transport: Transport) -> Result<(), String> {
        install_crypto_provider();
        let builder = configure(reqwest::Client::builder(), tls, transport).map_err(|failure| failure.message)?;
        builder.build().map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_client_for_http_needs_no_certificate_and_looks_at_none() {
        let missing = Tls { ca: Some(SecretSource::File("/nonexistent/ca.pem".into())), ..Tls::default() };
        build(&missing, Transport::Plain).unwrap();
        install_crypto_provider();
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pem");
        std::fs::write(&path, "not a certificate").unwrap();
        let file = |name: &str| SecretSource::File(dir.path().join(name));
        let client = ClientCertificate { cert: file("x.pem"), key: file("x.pem") };
        for tls in [
            Tls { ca: Some(file("x.pem")), ..Tls::default() },
            Tls { ca: Some(file("missing/x.pem")), ..Tls::default() },
            Tls { client: Some(client), insecure_skip_verify: true, ..Tls::default() },
        ] {
            let error = build(&tls, Transport::Tls).unwrap_err();
            assert!(error.contains("x.pem"), "{error}");
        }
    }

    #[test]
    fn believing_anybody_needs_no_authorities() {
        build(&Tls { insecure_skip_verify: true, ..Tls::default() }, Transport::Tls).unwrap();
    }
}
