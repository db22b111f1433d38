//! Prometheus' proxy settings: which proxy, if any, stands between us and one URL.
//!
//! Decided once, at start: what comes out is the proxy for this URL or none, so nothing downstream reads the environment
//! or compares host names. The rules are those of Go's `golang.org/x/net/http/httpproxy`, which Prometheus uses.

use std::net::IpAddr;

use super::environment::Environment;
use super::raw::Block;
use super::{Secret, Url};

/// The proxy for one URL.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// `http`, `https`, `socks5` (names are resolved here) or `socks5h` (names are resolved there); may hold a user.
    pub url: Url,
    /// Headers of the CONNECT request, which precedes TLS to the receiver.
    pub connect_headers: Vec<(String, Secret)>,
}

const HINT: &str = "write it as http://host:port, https://host:port or socks5://host:port";

/// The proxy that the block asks for, for requests to `target`.
pub(super) fn proxy(block: &mut Block<'_>, target: Option<&Url>, environment: &Environment) -> Option<Proxy> {
    let given = block.has("proxy_url");
    let url = block.parsed("proxy_url", proxy_url);
    let no_proxy = block.text("no_proxy").filter(|list| !list.is_empty());
    let from_environment = block.flag("proxy_from_environment").unwrap_or(false);
    let connect_headers = connect_headers(block);
    // The exclusions and their order are those of `ProxyConfig.Validate` (prometheus/common, config/http_config.go).
    if from_environment && given {
        block.wrong("proxy_from_environment", None, "proxy_url may not be set along with it");
    }
    if from_environment && no_proxy.is_some() {
        block.wrong("proxy_from_environment", None, "no_proxy may not be set along with it; NO_PROXY is read");
    } else if no_proxy.is_some() && !given {
        block.wrong("no_proxy", None, "has no meaning without proxy_url");
    }
    if !connect_headers.is_empty() && !given && !from_environment {
        block.wrong("proxy_connect_header", None, "has no meaning without proxy_url or proxy_from_environment");
    }
    let target = target?;
    let url = if from_environment {
        of_environment(block, target, environment)?
    } else {
        url.filter(|_| no_proxy.as_deref().is_none_or(|list| !is_direct(target, list)))?
    };
    Some(Proxy { url, connect_headers })
}

fn proxy_url(text: &str) -> Result<Url, String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("not a URL: {error}; {HINT}"))?;
    let known = matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h");
    if known && url.has_host() { Ok(Url::new(url)) } else { Err(format!("not the URL of a proxy; {HINT}")) }
}

fn connect_headers(block: &mut Block<'_>) -> Vec<(String, Secret)> {
    let path = block.path_of("proxy_connect_header");
    let mut headers = Vec::new();
    for (name, values) in block.lists("proxy_connect_header") {
        let fits = values.iter().all(|value| reqwest::header::HeaderValue::from_str(value).is_ok());
        if reqwest::header::HeaderName::try_from(&name).is_err() || !fits {
            let path = super::problem::join(&path, &name);
            block.report().wrong(&path, None, "is not a header: a name, and values of printable ASCII on one line");
        }
        headers.extend(values.into_iter().map(|value| (name.clone(), Secret::from(value))));
    }
    headers
}

/// The proxy that the process' environment names for `target`.
fn of_environment(block: &Block<'_>, target: &Url, environment: &Environment) -> Option<Url> {
    let scheme = target.expose().scheme();
    let names = if scheme == "https" { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] };
    let text = |names: [&str; 2]| names.into_iter().find_map(|name| environment.text(name));
    let no_proxy = text(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let written = text(names)?;
    // A proxy without a scheme is an http proxy, by long custom.
    let written = if written.contains("://") { written.to_owned() } else { format!("http://{written}") };
    let wrong = |rule: String| block.wrong("proxy_from_environment", None, format!("{}: {rule}", names[0]));
    let proxy = proxy_url(&written).map_err(wrong).ok()?;
    (!is_direct(target, no_proxy)).then_some(proxy)
}

/// Whether `target` is reached without a proxy under a `no_proxy` list (httpproxy, `config.useProxy`).
fn is_direct(target: &Url, no_proxy: &str) -> bool {
    let url = target.expose();
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
    let port = url.port_or_known_default();
    let ip = host.parse::<IpAddr>().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return true;
    }
    no_proxy.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        entry == "*" || in_network(ip, &entry) || is_named(&host, port, &entry)
    })
}

fn in_network(ip: Option<IpAddr>, entry: &str) -> bool {
    let Some((network, bits)) = entry.split_once('/') else { return false };
    let (Ok(network), Ok(bits), Some(ip)) = (network.parse::<IpAddr>(), bits.parse::<u32>(), ip) else { return false };
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        _ => false,
    }
}

/// `host`, `host:port`, `.domain` (only below it), `*.domain` likewise, or `domain` (itself and below it).
fn is_named(host: &str, port: Option<u16>, entry: &str) -> bool {
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse::<u16>().ok()),
        _ => (entry, None),
    };
    if wanted.is_some() && wanted != port {
        return false;
    }
    let name = name.trim_matches(['[', ']']);
    let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    let below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| !rest.is_empty());
    if name.starts_with('.') {
        return below(name);
    }
    host == name || (name.parse::<IpAddr>().is_err() && below(&format!(".{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_exceptions_is_read_as_go_reads_it() {
        let direct = |url: &str, list: &str| is_direct(&Url::new(url.parse().unwrap()), list);
        for (url, list) in [
            ("http://localhost:1/", ""),
            ("http://127.0.0.5/", ""),
            ("http://[::1]/", ""),
            ("http://a.example/", "*"),
            ("http://A.example/", "b.example, a.EXAMPLE"),
            ("http://x.a.example/", "a.example"),
            ("http://x.a.example/", ".a.example"),
            ("http://x.a.example/", "*.a.example"),
            ("http://a.example:8080/", "a.example:8080"),
            ("https://a.example/", "a.example:443"),
            ("http://10.1.2.3/", "10.0.0.0/8"),
            ("http://10.1.2.3/", "0.0.0.0/0"),
            ("http://10.1.2.3:9/", "10.1.2.3"),
            ("http://[fd00::1]/", "fd00::/8"),
            ("http://[fd00::1]:9/", "[fd00::1]:9"),
        ] {
            assert!(direct(url, list), "{url} with {list}");
        }
        for (url, list) in [
            ("http://a.example/", ""),
            ("http://a.example/", " , ,"),
            ("http://a.example/", ".a.example"),
            ("http://xa.example/", "a.example"),
            ("http://a.example:81/", "a.example:80"),
            ("http://11.1.2.3/", "10.0.0.0/8"),
            ("http://10.1.2.3/", "10.0.0.0/33"),
            ("http://1.10.1.2.3.example/", "10.1.2.3"),
        ] {
            assert!(!direct(url, list), "{url} with {list}");
        }
    }
}
