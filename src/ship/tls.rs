//! Whom an endpoint's client trusts, and the certificate it shows.
//!
//! The system's certificate authorities are loaded here and only for https, so that a client for a plain http URL can be
//! built on a host without any. `ca_file` replaces them, as in Prometheus.

use std::path::Path;

use reqwest::{Certificate, ClientBuilder, Identity};
use rustls::RootCertStore;

use super::auth::unprepared;
use super::outcome::Failure;
use crate::config::{ClientCertificate, Tls};

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

/// Adds trust and identity to a client. Reads files, so it does not belong on the runtime's thread.
pub(super) fn configure(builder: ClientBuilder, tls: &Tls, transport: Transport) -> Result<ClientBuilder, Failure> {
    if transport == Transport::Plain {
        return Ok(builder.tls_certs_only([]));
    }
    let builder = match &tls.client {
        Some(certificate) => builder.identity(identity(certificate)?),
        None => builder,
    };
    if tls.insecure_skip_verify {
        return Ok(builder.tls_certs_only([]).tls_danger_accept_invalid_certs(true));
    }
    let roots = match &tls.ca_file {
        Some(path) => roots_from(path)?,
        None => system_roots()?,
    };
    Ok(builder.tls_certs_only(roots))
}

fn roots_from(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let roots = Certificate::from_pem_bundle(&read(path)?)
        .map_err(|_| unprepared(format!("ca_file {} is not a PEM bundle of certificates", path.display())))?;
    if roots.is_empty() {
        return Err(unprepared(format!("ca_file {} holds no certificate", path.display())));
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
    let ClientCertificate { cert_file, key_file } = certificate;
    let mut pem = read(key_file)?;
    pem.push(b'\n');
    pem.extend(read(cert_file)?);
    Identity::from_pem(&pem).map_err(|_| {
        let (cert, key) = (cert_file.display(), key_file.display());
        unprepared(format!("cert_file {cert} and key_file {key} are not a PEM certificate and its key"))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| unprepared(format!("cannot read {}: {error}", path.display())))
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
        let missing = Tls { ca_file: Some("/nonexistent/ca.pem".into()), ..Tls::default() };
        build(&missing, Transport::Plain).unwrap();
        install_crypto_provider();
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pem");
        std::fs::write(&path, "not a certificate").unwrap();
        let client = ClientCertificate { cert_file: path.clone(), key_file: path.clone() };
        for tls in [
            Tls { ca_file: Some(path.clone()), ..Tls::default() },
            Tls { ca_file: Some(dir.path().join("missing/x.pem")), ..Tls::default() },
            Tls { client: Some(client), insecure_skip_verify: true, ca_file: None },
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
