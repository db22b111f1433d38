//! Prometheus' `oauth2`: a token by the client-credentials grant (RFC 6749, section 4.4).
//!
//! The grant that signs a JWT with a private key is refused by name. Secrets are [`SecretSource`]s; nothing is fetched here.

use std::collections::BTreeMap;
use std::fmt;

use super::environment::Environment;
use super::raw::Block;
use super::{Proxy, Secret, SecretSource, Tls, Url, http, proxy, tls, unknown};

/// How a token is fetched.
#[derive(Clone)]
pub struct OAuth2 {
    /// Public name of this client.
    pub client_id: String,
    /// Its secret; an empty one is allowed, as in Prometheus.
    pub client_secret: SecretSource,
    /// What the token is asked to permit.
    pub scopes: Vec<String>,
    /// Where tokens are made.
    pub token_url: Url,
    /// Further form fields of the request; their values may be secrets.
    pub endpoint_params: BTreeMap<String, String>,
    /// How to trust the maker of tokens; not inherited from the endpoint, as in Prometheus.
    pub tls: Tls,
    /// The proxy on the way to it; not inherited either.
    pub proxy: Option<Proxy>,
}

/// Without the values of parameters, which may be secrets.
impl fmt::Debug for OAuth2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth2")
            .field("client_id", &self.client_id)
            .field("client_secret", &self.client_secret)
            .field("scopes", &self.scopes)
            .field("token_url", &self.token_url)
            .field("endpoint_params", &self.endpoint_params.keys())
            .field("tls", &self.tls)
            .field("proxy", &self.proxy)
            .finish()
    }
}

/// Reads the block.
pub(super) fn oauth2(block: &mut Block<'_>, environment: &Environment) -> Option<OAuth2> {
    block.refused(&unknown::OAUTH2_NOT_YET, unknown::NOT_YET);
    let rule = format!("must be client_credentials; other grants are {}", unknown::NOT_YET);
    block.only("grant_type", &["", "client_credentials"], &rule);
    if !block.has("client_id") {
        block.wrong("client_id", None, "is missing");
    }
    let client_id = block.text("client_id");
    if !block.has("token_url") {
        block.wrong("token_url", None, "is missing; it is where tokens are fetched");
    }
    let token_url = block.parsed("token_url", http::url);
    let secret = http::secret(block, "client_secret", "client_secret_file");
    let proxy = proxy::proxy(block, token_url.as_ref(), environment);
    let tls = tls::tls(block);
    http::check_server_name(block, &tls, proxy.as_ref());
    Some(OAuth2 {
        client_secret: secret.unwrap_or_else(|| SecretSource::Value(Secret::from(String::new()))),
        scopes: block.list("scopes", |scope| Ok(scope.to_owned())),
        endpoint_params: block.texts("endpoint_params").into_iter().collect(),
        tls,
        proxy,
        client_id: client_id?,
        token_url: token_url?,
    })
}
