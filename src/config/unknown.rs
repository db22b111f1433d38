//! Keys that mean nothing here: the nearest known name, and why a key that Prometheus knows is refused.

/// How an unsupported value or key of Prometheus is refused.
pub(super) const NOT_YET: &str = "valid in Prometheus, not supported by outhaul yet";

/// How a part of outhaul that does not exist yet is refused.
pub(super) const PLANNED: &str = "not supported yet";

/// How a block of a Prometheus server is refused.
pub(super) const FOR_A_SERVER: &str = "belongs to a Prometheus server; outhaul only sends, so remove it here";

/// Top-level blocks of outhaul's own that come later.
pub(super) const PLANNED_BLOCKS: [&str; 4] = ["portainer", "dockerhub", "scrape_configs", "send_interval"];

/// Top-level blocks that only a server has (Prometheus 3, "Configuration").
pub(super) const SERVER_BLOCKS: [&str; 6] = ["rule_files", "alerting", "remote_read", "storage", "tracing", "otlp"];

/// Top-level keys of Prometheus that would change what arrives.
pub(super) const TOP_LEVEL_NOT_YET: [&str; 1] = ["scrape_config_files"];

/// Keys of `global` that say nothing about what outhaul does (Prometheus 3, "Configuration", `<global>`).
pub(super) const GLOBAL_WITHOUT_EFFECT: [&str; 20] = [
    "evaluation_interval",
    "rule_query_offset",
    "query_log_file",
    "scrape_failure_log_file",
    "body_size_limit",
    "sample_limit",
    "label_limit",
    "label_name_length_limit",
    "label_value_length_limit",
    "target_limit",
    "keep_dropped_targets",
    "metric_name_validation_scheme",
    "metric_name_escaping_scheme",
    "scrape_protocols",
    "scrape_classic_histograms",
    "scrape_native_histograms",
    "always_scrape_classic_histograms",
    "convert_classic_histograms_to_nhcb",
    "extra_scrape_metrics",
    "runtime",
];

/// Ways to sign a request for one cloud, and why they are not here.
pub(super) const CLOUD_AUTH: [(&str, &str); 3] = [
    ("sigv4", "signing for AWS is not supported by outhaul; send through a proxy that signs, such as aws-sigv4-proxy"),
    ("azuread", "Azure's managed identities are not supported by outhaul; use oauth2 with a client secret"),
    ("google_iam", "Google's service accounts are not supported by outhaul; send through a collector that has them"),
];

/// Keys of Prometheus' `http_config` for which there is another way.
pub(super) const HTTP_NOT_YET: [&str; 1] = ["http_headers"];

/// Keys of Prometheus' `oauth2` that belong to the grant by a signed JWT, or name a secret kept elsewhere.
pub(super) const OAUTH2_NOT_YET: [&str; 9] = [
    "client_secret_ref",
    "client_certificate_key_id",
    "client_certificate_key",
    "client_certificate_key_file",
    "signature_algorithm",
    "iss",
    "audience",
    "claims",
    "client_certificate_key_ref",
];

/// Keys of Prometheus' `basic_auth` that name a secret kept elsewhere.
pub(super) const BASIC_AUTH_NOT_YET: [&str; 2] = ["username_ref", "password_ref"];

/// Keys of Prometheus' `authorization` likewise.
pub(super) const AUTHORIZATION_NOT_YET: [&str; 1] = ["credentials_ref"];

/// Keys of Prometheus' `tls_config` that name a text kept elsewhere.
pub(super) const TLS_NOT_YET: [&str; 3] = ["ca_ref", "cert_ref", "key_ref"];

/// The longest name for which a nearest one is looked for, in bytes.
const MAX_COMPARED_BYTES: usize = 64;

/// What is wrong with `key`, which nobody asked for in the block at `path`.
pub(super) fn rule(path: &str, key: &str, known: &[&'static str]) -> String {
    if key.contains([':', ' ', '=']) {
        return "unknown key; a key and its value are written `key: value`".to_owned();
    }
    if let Some(nearest) = nearest(key, known.iter().copied()) {
        return format!("unknown key; did you mean {nearest}?");
    }
    let here = if path.is_empty() { "at the top level".to_owned() } else { format!("in {path}") };
    let mut names: Vec<&str> = known.iter().copied().filter(|name| !is_refused(path, name)).collect();
    names.sort_unstable();
    names.dedup();
    format!("unknown key; known {here}: {}", names.join(", "))
}

/// Whether a known name of the block at `path` is known only for being refused or ignored, so that nobody needs to be told of it.
fn is_refused(path: &str, name: &str) -> bool {
    if path.is_empty() && PLANNED_BLOCKS.contains(&name) {
        return true;
    }
    let lists: [&[&str]; 8] = [
        &SERVER_BLOCKS,
        &TOP_LEVEL_NOT_YET,
        &GLOBAL_WITHOUT_EFFECT,
        &HTTP_NOT_YET,
        &OAUTH2_NOT_YET,
        &BASIC_AUTH_NOT_YET,
        &AUTHORIZATION_NOT_YET,
        &TLS_NOT_YET,
    ];
    lists.iter().any(|list| list.contains(&name)) || CLOUD_AUTH.iter().any(|(key, _)| *key == name)
}

/// The known name that `name` was probably meant to be: at most a third of its letters are wrong.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > MAX_COMPARED_BYTES {
        return None;
    }
    let same = name.to_ascii_lowercase().replace('-', "_");
    let distances = known.into_iter().map(|candidate| {
        let lower = candidate.to_ascii_lowercase();
        (distance(same.as_bytes(), lower.as_bytes()), candidate)
    });
    let (wrong, nearest) = distances.min()?;
    (wrong <= nearest.len().max(3) / 3).then_some(nearest)
}

/// How many bytes must be put in, taken out, changed, or swapped with their neighbour to make `a` into `b`
/// (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, byte) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in b.iter().enumerate() {
            let changed = above[column] + usize::from(byte != other);
            let mut least = changed.min(above[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *byte == b[column - 1] && a[row - 1] == *other {
                least = least.min(before[column - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits_and_swaps() {
        let table = [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "ab", 1),
            ("abc", "abcd", 1),
            ("abc", "axc", 1),
            ("abcd", "acbd", 1),
        ];
        for (a, b, expected) in table {
            assert_eq!(distance(a.as_bytes(), b.as_bytes()), expected, "{a} {b}");
        }
        assert_eq!(distance(b"kitten", b"sitting"), 3);
    }

    #[test]
    fn a_name_that_is_refused_at_the_top_level_may_be_known_below_it() {
        assert_eq!(rule("", "zzzzzzzzzz", &["web", "send_interval"]), "unknown key; known at the top level: web");
        let told = rule("remote_write[0]", "zzzzzzzzzz", &["url", "send_interval"]);
        assert_eq!(told, "unknown key; known in remote_write[0]: send_interval, url");
    }

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let known = ["remote_write", "docker", "buffer", "url"];
        let table = [
            ("remotewrite", Some("remote_write")),
            ("remote-write", Some("remote_write")),
            ("Docker", Some("docker")),
            ("bufer", Some("buffer")),
            ("uri", Some("url")),
            ("kubernetes", None),
        ];
        for (name, expected) in table {
            assert_eq!(nearest(name, known), expected, "{name}");
        }
        assert_eq!(nearest(&"x".repeat(100), known), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn a_key_that_is_near_nothing_is_answered_with_what_there_is() {
        let rule = rule("web", "certificate", &["listen_address", "enabled", "listen_address"]);
        assert_eq!(rule, "unknown key; known in web: enabled, listen_address");
    }
}
