//! Prometheus' `tls_config`: whom to trust, and who we are to the other side.
//!
//! Certificates and keys are given as text or as the name of a file; files are never opened here. A private key is a
//! secret, and so is whatever was written where a certificate belongs, because people mistake one for the other.

use super::raw::Block;
use super::{Secret, SecretSource, unknown};

/// How to trust the other side: Prometheus' `tls_config` (`prometheus/common`, `config/http_config.go`).
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Trust these authorities (a PEM bundle) instead of the system's.
    pub ca: Option<SecretSource>,
    /// Our certificate and its key.
    pub client: Option<ClientCertificate>,
    /// The name that is asked for and that the certificate must bear, where it is not the URL's. A DNS name.
    pub server_name: Option<String>,
    /// The oldest version that is spoken; `None` is TLS 1.2, as in Prometheus.
    pub min_version: Option<TlsVersion>,
    /// The newest version that is spoken; `None` is TLS 1.3.
    pub max_version: Option<TlsVersion>,
    /// Believe anybody. For test benches.
    pub insecure_skip_verify: bool,
}

/// A client certificate, PEM.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The chain.
    pub cert: SecretSource,
    /// The private key.
    pub key: SecretSource,
}

/// A version of TLS that outhaul speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What Prometheus calls versions; the two before 1.2 are known only for what they mean to us.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Written {
    Old,
    Spoken(TlsVersion),
}

const VERSIONS: [(&str, Written); 4] = [
    ("TLS10", Written::Old),
    ("TLS11", Written::Old),
    ("TLS12", Written::Spoken(TlsVersion::Tls12)),
    ("TLS13", Written::Spoken(TlsVersion::Tls13)),
];

/// Whom to trust.
pub(super) fn tls(block: &mut Block<'_>) -> Tls {
    block.block("tls_config", tls_config).unwrap_or_default()
}

fn tls_config(block: &mut Block<'_>) -> Tls {
    block.refused(&unknown::TLS_NOT_YET, unknown::NOT_YET);
    let ca = pem(block, "ca", "ca_file");
    let client = match (pem(block, "cert", "cert_file"), pem(block, "key", "key_file")) {
        (Some(cert), Some(key)) => Some(ClientCertificate { cert, key }),
        (None, None) => None,
        _ => {
            block.wrong_here(
                "a certificate (cert, cert_file) and its key (key, key_file) belong together; set both or neither",
            );
            None
        }
    };
    let server_name = block.parsed("server_name", server_name);
    let (min_version, max_version) = versions(block);
    let insecure_skip_verify = block.flag("insecure_skip_verify").unwrap_or(false);
    if insecure_skip_verify {
        let path = block.path_of("insecure_skip_verify");
        block.report().notice(format!("{path}: anybody is believed to be the receiver"));
    }
    Tls { ca, client, server_name, min_version, max_version, insecure_skip_verify }
}

/// A PEM text, or the file that holds it.
fn pem(block: &mut Block<'_>, key: &'static str, file_key: &'static str) -> Option<SecretSource> {
    let text = block.text(key);
    let file = block.file(file_key);
    if text.is_some() && file.is_some() {
        block.wrong(key, None, format!("at most one of {key} and {file_key} may be set"));
    }
    if text.as_deref().is_some_and(|text| !text.contains("-----BEGIN ")) {
        block.wrong(key, None, format!("is not PEM text; for the name of a file use {file_key}"));
    }
    text.map(|text| SecretSource::Value(Secret::from(text))).or(file.map(SecretSource::File))
}

/// A DNS name; an address has no place in the handshake (RFC 6066, section 3).
fn server_name(text: &str) -> Result<String, String> {
    let as_host = reqwest::Url::parse(&format!("https://{text}/")).ok();
    let is_name = as_host.is_some_and(|url| url.domain().is_some_and(|host| host.eq_ignore_ascii_case(text)));
    if is_name { Ok(text.to_ascii_lowercase()) } else { Err("must be a DNS name, without port".to_owned()) }
}

fn versions(block: &mut Block<'_>) -> (Option<TlsVersion>, Option<TlsVersion>) {
    let min = block.choice("min_version", &VERSIONS);
    let max = block.choice("max_version", &VERSIONS);
    if let (Some(min), Some(max)) = (min, max)
        && max < min
    {
        block.wrong("max_version", None, "is older than min_version");
    } else if max == Some(Written::Old) {
        block.wrong("max_version", None, "outhaul speaks nothing older than TLS12");
    }
    if min == Some(Written::Old) {
        let path = block.path_of("min_version");
        block.report().notice(format!("{path}: outhaul speaks nothing older than TLS12"));
    }
    let spoken = |written: Option<Written>| match written {
        Some(Written::Spoken(version)) => Some(version),
        Some(Written::Old) | None => None,
    };
    (spoken(min), spoken(max))
}
