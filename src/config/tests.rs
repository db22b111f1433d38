//! The configuration as a whole: from text and variables to a [`Config`] or to the lines a user reads.

use std::collections::BTreeMap;

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

mod documentation;
mod messages;

const FILE: &str = "/etc/outhaul/t.yml";

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let path: Arc<Path> = Arc::from(Path::new(FILE));
    assemble(Some((&path, text)), &variables.iter().copied().collect())
}

pub(super) fn from_text(text: &str) -> Config {
    with(text, &[]).unwrap_or_else(|error| panic!("{error}\nin\n{text}"))
}

fn from_variables(variables: &[(&str, &str)]) -> Config {
    assemble(None, &variables.iter().copied().collect()).unwrap_or_else(|error| panic!("{error}"))
}

/// The lines of the error, without the name of the file.
pub(super) fn wrong(text: &str) -> Vec<String> {
    let error = with(text, &[]).expect_err(text).to_string();
    error.lines().map(|line| line.strip_prefix(&format!("{FILE}:")).unwrap_or(line).to_owned()).collect()
}

/// An endpoint with `keys`, one a line.
pub(super) fn endpoint(keys: &str) -> String {
    format!("remote_write:\n- url: http://h/p\n  {}\n", keys.replace('\n', "\n  "))
}

fn secret(source: &SecretSource) -> &str {
    match source {
        SecretSource::Value(secret) => secret.expose_secret(),
        SecretSource::File(path) => path.to_str().unwrap(),
    }
}

fn basic(auth: &Auth) -> (&str, &str) {
    match auth {
        Auth::Basic { username, password } => (secret(username), secret(password)),
        other => panic!("{other:?}"),
    }
}

const NOT_YET: &str = "valid in Prometheus, not supported by outhaul yet";

#[test]
fn one_variable_is_enough() {
    let config = from_variables(&[("OUTHAUL_REMOTE_WRITE_URL", "http://h:9090/api/v1/write")]);
    assert_eq!(config.docker.len(), 1);
    assert_eq!(config.docker[0].host, "unix:///var/run/docker.sock");
    assert!(config.docker[0].include.is_empty() && config.docker[0].exclude.is_empty());
    assert_eq!(config.global.scrape_interval, Duration::from_secs(15));
    assert_eq!(config.global.scrape_timeout, Duration::from_secs(10));
    assert!(config.global.external_labels.is_empty() && config.global.instance.is_none());
    assert_eq!(config.buffer.path, Path::new("/var/lib/outhaul"));
    assert_eq!(config.buffer.max_bytes, 256 << 20);
    assert_eq!(config.buffer.max_age, Some(Duration::from_secs(604_800)));
    assert_eq!(config.buffer.sync, SyncPolicy::Always);
    assert_eq!(config.web.unwrap().listen_address.to_string(), "127.0.0.1:9797");
    assert_eq!(config.shutdown_grace, Duration::from_secs(5));
    assert_eq!((config.log.level, config.log.format), (tracing::Level::INFO, LogFormat::Logfmt));
    assert!(config.pushgateway.is_none() && config.notices.is_empty());
    let [endpoint] = &config.remote_write[..] else { panic!("one endpoint") };
    assert_eq!(endpoint.name, "h:9090-api-v1-write");
    assert_eq!(endpoint.url.expose().as_str(), "http://h:9090/api/v1/write");
    assert_eq!(endpoint.remote_timeout, Duration::from_secs(30));
    assert!(matches!(endpoint.auth, Auth::None) && endpoint.headers.is_empty());
    assert_eq!(endpoint.queue.max_samples_per_send, 2_000);
    assert_eq!(endpoint.queue.min_backoff, Duration::from_secs(1));
    assert_eq!(endpoint.queue.max_backoff, Duration::from_secs(60));
    assert!(endpoint.metadata.send && endpoint.metadata.send_interval == Duration::from_secs(60));
    assert_eq!(endpoint.max_sample_age, None);
}

#[test]
fn with_nothing_at_all_it_runs_locally_and_says_so() {
    let config = from_variables(&[]);
    assert!(config.remote_write.is_empty() && config.pushgateway.is_none() && config.web.is_some());
    assert!(config.notices[0].starts_with("local only: nothing leaves this host"), "{:?}", config.notices);
}

#[test]
fn the_block_that_grafana_cloud_prints_is_taken() {
    let config = from_text(
        "global:\n  scrape_interval: 60s\nremote_write:\n- url: https://prometheus-us-central1.grafana.net/api/prom/push\n  \
         basic_auth:\n    username: 123456\n    password: 1e5\n",
    );
    assert_eq!(basic(&config.remote_write[0].auth), ("123456", "1e5"));
    assert_eq!(config.remote_write[0].name, "prometheus-us-central1.grafana.net-api-prom-push");
    assert!(config.notices.is_empty(), "{:?}", config.notices);
}

#[test]
fn a_user_in_the_url_is_who_we_are() {
    let auth = |url: &str| from_text(&format!("remote_write:\n- url: {url}\n")).remote_write.remove(0).auth;
    assert_eq!(basic(&auth("https://us%40er:p%3Aw%25@host/push")), ("us@er", "p:w%"));
    assert_eq!(basic(&auth("https://token@host/push")), ("token", ""));
    for (url, rule) in [("https://a%3Ab:c@host", "with a colon in the name"), ("https://a:%ff@host", "not UTF-8")] {
        let problems = wrong(&format!("remote_write:\n- url: {url}\n")).join("\n");
        assert!(problems.contains(rule) && !problems.contains("%ff"), "{problems}");
    }
}

#[test]
fn what_loses_samples_or_ends_series_is_said() {
    let config =
        from_text(&format!("send_unchanged_every: 5m\n{}", endpoint("send_interval: 10s\nmax_sample_age: 3s")));
    let said = config.notices.join("\n");
    assert!(said.contains("send_unchanged_every: longer than 240s"), "{said}");
    assert!(said.contains("max_sample_age: no longer than send_interval"), "{said}");
    let config =
        from_text(&format!("send_unchanged_every: 4m\n{}", endpoint("send_interval: 10s\nmax_sample_age: 1h")));
    assert!(config.notices.is_empty(), "{:?}", config.notices);
}

#[test]
fn the_block_that_mimir_prints_with_a_tuned_queue_is_taken_with_one_notice() {
    let config = from_text(
        "global:\n  evaluation_interval: 1m\nremote_write:\n- url: https://mimir/api/v1/push\n  name: mimir\n  remote_timeout: 30s\n  \
         headers:\n    X-Scope-OrgID: '42'\n  send_exemplars: false\n  send_native_histograms: false\n  follow_redirects: true\n  \
         enable_http2: false\n  protobuf_message: prometheus.WriteRequest\n  write_relabel_configs: []\n  queue_config:\n    capacity: 10000\n    \
         max_shards: 50\n    min_shards: 1\n    max_samples_per_send: 500\n    batch_send_deadline: 5s\n    min_backoff: 30ms\n    \
         max_backoff: 5s\n    retry_on_http_429: true\n    sample_age_limit: 1h\n  metadata_config: {send: false, send_interval: 2m}\n",
    );
    let endpoint = &config.remote_write[0];
    assert_eq!(endpoint.name, "mimir");
    assert_eq!(endpoint.headers, BTreeMap::from([("X-Scope-OrgID".to_owned(), "42".to_owned())]));
    assert_eq!(endpoint.queue.max_samples_per_send, 500);
    assert!(endpoint.queue.retry_on_http_429 && endpoint.http.follow_redirects);
    assert_eq!((endpoint.protocol, endpoint.send_interval), (Protocol::V1, Duration::from_secs(5)));
    assert_eq!(
        (endpoint.queue.min_backoff, endpoint.queue.max_backoff),
        (Duration::from_millis(30), Duration::from_secs(5))
    );
    assert_eq!(endpoint.max_sample_age, Some(Duration::from_secs(3600)));
    assert!(!endpoint.metadata.send && endpoint.metadata.send_interval == Duration::from_secs(120));
    let queue = "remote_write[0].queue_config";
    let expected = format!(
        "accepted, but without effect in outhaul: global.evaluation_interval, {queue}.capacity, {queue}.max_shards, \
         {queue}.min_shards"
    );
    assert_eq!(config.notices, [expected]);
}

#[test]
fn numeric_looking_texts_survive_as_text() {
    let labels = "a: 1.10\n    b: 0123\n    c: 12345678901234567890\n    d: 1e5\n    e: 0x10\n    f: true\n    g: 2026-01-01\n    h: off";
    let config = from_text(&format!("global:\n  external_labels:\n    {labels}\n"));
    let values: Vec<&str> = config.global.external_labels.iter().map(|label| &*label.value).collect();
    assert_eq!(values, ["1.10", "0123", "12345678901234567890", "1e5", "0x10", "true", "2026-01-01", "off"]);
    for password in ["1e5", "0123", "12345678901234567890", "1_000"] {
        let config = from_text(&endpoint(&format!("basic_auth: {{username: 007, password: {password}}}")));
        assert_eq!(basic(&config.remote_write[0].auth), ("007", password));
    }
    let config = from_variables(&[
        ("OUTHAUL_REMOTE_WRITE_URL", "http://localhost/"),
        ("OUTHAUL_REMOTE_WRITE_USERNAME", "1.10"),
        ("OUTHAUL_REMOTE_WRITE_PASSWORD", "${1e5}$$"),
    ]);
    assert_eq!(basic(&config.remote_write[0].auth), ("1.10", "${1e5}$$"));
}

#[test]
fn the_environment_lies_over_the_file() {
    let text = "buffer: {path: /a, max_bytes: 1GiB}\nglobal:\n  external_labels: {instance: one, site: x}\nlog: {level: warn}\nweb: {listen_address: 127.0.0.1:1}\n";
    let variables = [
        ("OUTHAUL_BUFFER_PATH", "/b"),
        ("OUTHAUL__BUFFER__MAX_AGE", "0"),
        ("OUTHAUL_INSTANCE", "two"),
        ("OUTHAUL__LOG__LEVEL", "debug"),
        ("OUTHAUL_LOG_FORMAT", "json"),
        ("OUTHAUL__WEB", "off"),
        ("OUTHAUL__DOCKER", "off"),
        ("OUTHAUL__SHUTDOWN_GRACE", "1s"),
        ("OUTHAUL__GLOBAL__EXTERNAL_LABELS__RACK", "r1"),
        ("OUTHAUL__GLOBAL__SCRAPE_INTERVAL", ""),
        ("PATH", "/bin"),
    ];
    let config = with(text, &variables).unwrap();
    assert_eq!(config.buffer.path, Path::new("/b"));
    assert_eq!((config.buffer.max_bytes, config.buffer.max_age), (1 << 30, None));
    assert_eq!(config.global.instance.as_deref(), Some("two"));
    assert_eq!(config.global.external_labels.to_string(), r#"{rack="r1",site="x"}"#);
    assert_eq!((config.log.level, config.log.format), (tracing::Level::DEBUG, LogFormat::Json));
    assert!(config.web.is_none() && config.docker.is_empty());
    assert_eq!(config.shutdown_grace, Duration::from_secs(1));
    assert_eq!(config.global.scrape_interval, Duration::from_secs(15));
}

#[test]
fn shortcuts_complete_or_replace_what_the_first_endpoint_of_the_file_has() {
    let text = "remote_write:\n- url: https://a/\n  headers: {x-scope-orgid: a, X-Other: b}\n  basic_auth: {username: u, password_file: /p}\n- url: https://b/\n";
    let config = with(text, &[("OUTHAUL_REMOTE_WRITE_PASSWORD", "new"), ("OUTHAUL_REMOTE_WRITE_TENANT", "t")]).unwrap();
    assert_eq!(basic(&config.remote_write[0].auth), ("u", "new"));
    let headers: Vec<(&str, &str)> =
        config.remote_write[0].headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(headers, [("X-Other", "b"), ("X-Scope-OrgID", "t")]);
    assert!(matches!(config.remote_write[1].auth, Auth::None));

    let config = with(text, &[("OUTHAUL_REMOTE_WRITE_BEARER_TOKEN_FILE", "token")]).unwrap();
    let Auth::Authorization { scheme, credentials: SecretSource::File(file) } = &config.remote_write[0].auth else {
        panic!("{:?}", config.remote_write[0].auth)
    };
    assert_eq!((scheme.as_str(), file.as_path()), ("Bearer", Path::new("token")));

    let config = with("remote_write: []", &[("OUTHAUL_REMOTE_WRITE_URL", "https://c/")]).unwrap();
    assert_eq!(config.remote_write[0].name, "c");
    let config =
        with("remote_write:", &[("OUTHAUL_REMOTE_WRITE_URL", "https://c/"), ("OUTHAUL_PUSHGATEWAY_URL", "http://p")]);
    assert_eq!(config.unwrap().pushgateway.unwrap().mode, PushgatewayMode::Fallback);
}

#[test]
fn variables_that_mean_nothing_are_errors_with_the_nearest_name() {
    let table: [(&[(&str, &str)], &str); 12] = [
        (
            &[("OUTHAUL_REMOTE_WRITE_URI", "x")],
            "environment variable OUTHAUL_REMOTE_WRITE_URI: is unknown; did you mean OUTHAUL_REMOTE_WRITE_URL?",
        ),
        (
            &[("OUTHAUL_ZZZZZZZZZZZZ", "x")],
            "environment variable OUTHAUL_ZZZZZZZZZZZZ: is unknown; outhaul reads OUTHAUL__BLOCK__KEY and its documented shortcuts",
        ),
        (
            &[("OUTHAUL__BUFER__PATH", "x")],
            "environment variable OUTHAUL__BUFER__PATH: bufer: unknown key; did you mean buffer?",
        ),
        (
            &[("OUTHAUL__BUFFER__MAXBYTES", "1GB")],
            "environment variable OUTHAUL__BUFFER__MAXBYTES: buffer.maxbytes: unknown key; did you mean max_bytes?",
        ),
        (
            &[("OUTHAUL__BUFFER__MAX_BYTES", "1GB2")],
            "environment variable OUTHAUL__BUFFER__MAX_BYTES: buffer.max_bytes: \"1GB2\": not a size; write a whole number with a unit, such as 64MiB or 1GB (both count in powers of two)",
        ),
        (
            &[("OUTHAUL__REMOTE_WRITE__0__URL", "x")],
            "environment variable OUTHAUL__REMOTE_WRITE__0__URL: remote_write is a list, and items of a list cannot be set by a variable; use a file, or OUTHAUL_REMOTE_WRITE_URL and its companions for the first endpoint",
        ),
        (
            &[("OUTHAUL__A[99999999999]", "x")],
            "environment variable OUTHAUL__A[99999999999]: is not of the form OUTHAUL__BLOCK__KEY",
        ),
        (&[("OUTHAUL__", "x")], "environment variable OUTHAUL__: is not of the form OUTHAUL__BLOCK__KEY"),
        (
            &[("OUTHAUL__BUFFER____PATH", "x")],
            "environment variable OUTHAUL__BUFFER____PATH: is not of the form OUTHAUL__BLOCK__KEY",
        ),
        (
            &[("OUTHAUL_REMOTE_WRITE_TENANT", "x")],
            "environment variable OUTHAUL_REMOTE_WRITE_TENANT: remote_write[0].url: is missing; it is the address to send to",
        ),
        (
            &[("OUTHAUL_LOG_LEVEL", "warn"), ("OUTHAUL__LOG__LEVEL", "info")],
            "environment variable OUTHAUL__LOG__LEVEL: contradicts OUTHAUL_LOG_LEVEL, which sets the same key; unset one of them",
        ),
        (
            &[("DOCKER_HOST", "ssh://u:hunter2@h")],
            "configuration: docker[0].host: from DOCKER_HOST: not the address of an engine; write unix:///var/run/docker.sock, tcp://host:port or http://host:port",
        ),
    ];
    for (variables, expected) in table {
        let error = assemble(None, &variables.iter().copied().collect()).expect_err(expected);
        assert_eq!(error.to_string(), expected);
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_unicode_is_an_error_only_when_it_matters() {
    use std::os::unix::ffi::OsStringExt;
    let bad = || std::ffi::OsString::from_vec(vec![b'a', 0xff]);
    let environment = |name: &str| Environment::of_variables([(name.into(), bad())]);
    assert!(assemble(None, &environment("OTHER")).is_ok());
    for name in ["OUTHAUL_REMOTE_WRITE_PASSWORD", "OUTHAUL__LOG__LEVEL"] {
        let error = assemble(None, &environment(name)).unwrap_err().to_string();
        assert_eq!(error, format!("environment variable {name}: is not valid UTF-8"));
    }
}

#[test]
fn what_kubernetes_sets_for_a_service_of_our_name_is_not_ours() {
    let variables = [
        ("OUTHAUL_SERVICE_HOST", "10.0.0.1"),
        ("OUTHAUL_SERVICE_PORT", "9797"),
        ("OUTHAUL_SERVICE_PORT_HTTP", "9797"),
        ("OUTHAUL_PORT", "tcp://10.0.0.1:9797"),
        ("OUTHAUL_PORT_9797_TCP", "tcp://10.0.0.1:9797"),
        ("OUTHAUL_PORT_9797_TCP_PROTO", "tcp"),
        ("OUTHAUL_PORT_9797_TCP_PORT", "9797"),
        ("OUTHAUL_PORT_9797_TCP_ADDR", "10.0.0.1"),
        ("OUTHAUL_WEB_PORT", "tcp://10.0.0.1:9797"),
    ];
    from_variables(&variables);
    assert!(assemble(None, &[("OUTHAUL_PORT", "9797")].into_iter().collect()).is_err());
}

#[test]
fn values_of_the_file_may_hold_variables() {
    let text = "remote_write:\n- url: https://${HOST}/push\n  basic_auth: {username: '${U:-7}', password: '$${P}'}\n  write_relabel_configs:\n";
    let config = with(text, &[("HOST", "h")]).unwrap();
    assert_eq!(config.remote_write[0].url.expose().as_str(), "https://h/push");
    assert_eq!(basic(&config.remote_write[0].auth), ("7", "${P}"));
    let error = with(text, &[]).unwrap_err().to_string();
    assert_eq!(
        error.lines().next().unwrap(),
        "/etc/outhaul/t.yml:2: remote_write[0].url: environment variable HOST is not set; set it, or write ${NAME:-default}"
    );
    let error = with("buffer: {max_bytes: '${S}'}", &[("S", "hunter2")]).unwrap_err().to_string();
    assert!(error.contains("buffer.max_bytes: <expanded>: not a size") && !error.contains("hunter2"), "{error}");
    // A variable cannot become structure.
    let config = with("global: {external_labels: {a: '${V}'}}", &[("V", "x\nb: y")]).unwrap();
    assert_eq!(config.global.external_labels.get("a"), Some("x\nb: y"));
}

#[test]
fn variables_in_relabelling_stay_as_they_are() {
    let text = "remote_write:\n- url: http://h\n  write_relabel_configs:\n  - {source_labels: [a], regex: 'x${1', target_label: '${1}_b', replacement: '${1}'}\n";
    assert_eq!(from_text(text).remote_write.len(), 1);
}

#[test]
fn harmless_values_are_taken_in_silence() {
    let keys = "send_exemplars: false\nenable_http2: false\nfollow_redirects: true\nprotocol: auto\nprotobuf_message: prometheus.WriteRequest\n\
                proxy_from_environment: false\nround_robin_dns: false\nwrite_relabel_configs: []\ntls_config: {insecure_skip_verify: false}\n\
                max_sample_age: 1h\nqueue_config: {sample_age_limit: 60m}\nmetadata_config:\nheaders: {}";
    let text = format!(
        "profiles: [native]\nsend_unchanged_every: 0s\nscrape_configs: []\ndocker: [{{resources: auto}}]\n{}",
        endpoint(keys)
    );
    assert_eq!(from_text(&text).notices, [""; 0]);
}

#[test]
fn unsafe_settings_are_said_at_start() {
    let text = "web: {listen_address: 0.0.0.0:1}\nbuffer: {sync_interval: 2s}\nremote_write:\n- url: http://192.168.1.1/x?t=hunter2\n  \
                basic_auth: {username: u}\n  enable_http2: true\n  tls_config: {insecure_skip_verify: true}\n";
    let notices = from_text(text).notices;
    let expected = [
        "remote_write[0].basic_auth.password: there is no password",
        "remote_write[0].url: credentials travel unencrypted to http://192.168.1.1/x",
        "remote_write[0].tls_config.insecure_skip_verify: anybody is believed to be the receiver",
        "web.listen_address: anybody who reaches 0.0.0.0:1 can read the local page",
        "accepted, but without effect in outhaul: buffer.sync_interval, remote_write[0].enable_http2",
    ];
    assert_eq!(notices, expected);
}

#[test]
fn one_backoff_that_is_given_moves_the_default_of_the_other() {
    let queue = |keys: &str| from_text(&endpoint(&format!("queue_config: {{{keys}}}"))).remote_write[0].queue.clone();
    assert_eq!(queue("max_backoff: 100ms").min_backoff, Duration::from_millis(100));
    assert_eq!(queue("min_backoff: 5m").max_backoff, Duration::from_secs(300));
    assert_eq!(queue("min_backoff: 2s").max_backoff, Duration::from_secs(60));
}

#[test]
fn names_follow_from_the_url_alone_so_that_order_and_number_do_not_matter() {
    let name = |url: &str| from_text(&format!("remote_write: [{{url: '{url}'}}]")).remote_write[0].name.clone();
    assert_eq!(name("https://u:hunter2@h.example/api/v1/push?token=hunter2"), "h.example-api-v1-push");
    assert_eq!(name("http://[::1]:9090/"), "-::1-:9090");
    let long = name(&format!("http://h/{}", "a".repeat(500)));
    assert!(long.len() == 128 && long != name(&format!("http://h/{}", "a".repeat(501))), "{long}");
}

#[test]
fn names_of_files_are_relative_to_the_file_that_holds_them() {
    let config =
        from_text(&endpoint("basic_auth: {username_file: /u, password_file: p}\ntls_config: {ca_file: ca/x.pem}"));
    assert_eq!(basic(&config.remote_write[0].auth), ("/u", "/etc/outhaul/p"));
    assert_eq!(config.remote_write[0].http.tls.ca.as_ref().map(secret), Some("/etc/outhaul/ca/x.pem"));
}

#[test]
fn what_is_spoken_is_said_in_our_words_or_in_prometheus() {
    let spoken = |keys: &str| from_text(&endpoint(keys)).remote_write[0].protocol;
    for (keys, protocol) in [
        ("name: a", Protocol::Auto),
        ("protocol: auto\nprotobuf_message: prometheus.WriteRequest", Protocol::Auto),
        ("protobuf_message: prometheus.WriteRequest", Protocol::V1),
        ("protobuf_message: io.prometheus.write.v2.Request", Protocol::V2),
        ("protocol: v2\nprotobuf_message: io.prometheus.write.v2.Request", Protocol::V2),
    ] {
        assert_eq!(spoken(keys), protocol, "{keys}");
    }
    let keys = "compression: zstd\nsend_interval: 1m\nsend_exemplars: true\nsend_native_histograms: true\nfollow_redirects: false";
    let config = from_text(&format!("send_unchanged_every: 5m\n{}", endpoint(keys)));
    let [endpoint] = &config.remote_write[..] else { panic!("one endpoint") };
    assert_eq!((endpoint.compression, endpoint.send_interval), (Compression::Zstd, Duration::from_secs(60)));
    assert!(endpoint.send_exemplars && endpoint.send_native_histograms && !endpoint.http.follow_redirects);
    assert_eq!(config.send_unchanged_every, Some(Duration::from_secs(300)));
}

#[test]
fn giving_samples_up_at_429_is_done_only_when_asked_for_and_said() {
    let config = from_text(&endpoint("queue_config: {retry_on_http_429: false}"));
    assert!(!config.remote_write[0].queue.retry_on_http_429);
    let notice = "remote_write[0].queue_config.retry_on_http_429: samples that the receiver answers with 429 are not sent again; they are lost, and counted";
    assert_eq!(config.notices, [notice]);
}

#[test]
fn the_proxy_is_the_one_for_the_url_of_the_endpoint() {
    let proxy = |keys: &str, variables: &[(&str, &str)]| {
        let config = with(&endpoint(keys), variables).unwrap();
        config.remote_write[0].http.proxy.as_ref().map(|proxy| proxy.url.masked())
    };
    let variables = [("HTTP_PROXY", "u:hunter2@env:1"), ("HTTPS_PROXY", "http://tls:1"), ("NO_PROXY", "other")];
    assert_eq!(proxy("proxy_url: http://u:hunter2@p:1", &[]).as_deref(), Some("http://p:1/"));
    assert_eq!(proxy("proxy_url: socks5://p:1\nno_proxy: h", &[]), None);
    assert_eq!(proxy("proxy_url: socks5://p:1\nno_proxy: other", &[]).as_deref(), Some("socks5://p:1"));
    assert_eq!(proxy("name: a", &variables), None, "the environment is not asked unless told to");
    assert_eq!(proxy("proxy_from_environment: true", &variables).as_deref(), Some("http://env:1/"));
    assert_eq!(proxy("proxy_from_environment: true", &[variables[0], ("no_proxy", "h")]), None);
    assert_eq!(proxy("proxy_from_environment: true", &variables[1..]), None, "the URL is not https");
}

#[test]
fn oauth2_is_read_with_its_own_trust_and_way() {
    let keys = "tls_config: {ca_file: a}\noauth2:\n  client_id: c\n  client_secret_file: s\n  token_url: https://t/\n  scopes: [x, y]\n  \
                endpoint_params: {audience: z}\n  tls_config: {server_name: T.example, min_version: TLS13}";
    let config = from_text(&endpoint(keys));
    let Auth::OAuth2(oauth2) = &config.remote_write[0].auth else { panic!("oauth2") };
    assert_eq!((oauth2.client_id.as_str(), secret(&oauth2.client_secret)), ("c", "/etc/outhaul/s"));
    assert_eq!((oauth2.scopes.join(" ").as_str(), oauth2.endpoint_params["audience"].as_str()), ("x y", "z"));
    assert_eq!(oauth2.tls.server_name.as_deref(), Some("t.example"));
    assert_eq!(oauth2.tls.min_version, Some(TlsVersion::Tls13));
    assert!(oauth2.tls.ca.is_none() && oauth2.proxy.is_none());
}

#[test]
fn engines_and_filters_are_read() {
    let text = "docker:\n- include: {names: ['web-*'], labels: [monitor=true, keep], images: [/.*:1/]}\n  container_labels: [a.b]\n- host: tcp://10.0.0.2:2375\n";
    let config = with(text, &[("DOCKER_HOST", "tcp://10.0.0.1:2375")]).unwrap();
    assert_eq!(config.docker[0].host, "tcp://10.0.0.1:2375");
    assert_eq!(config.docker[1].host, "tcp://10.0.0.2:2375");
    let include = &config.docker[0].include;
    assert!(include.names[0].matches("web-1") && include.images[0].matches("x:1"));
    assert!(include.labels[0].value.as_ref().unwrap().matches("true") && include.labels[1].value.is_none());
    assert_eq!(config.docker[0].container_labels, ["a.b"]);
    assert!(from_text("docker: []").docker.is_empty() && from_text("docker: off").docker.is_empty());
    assert_eq!(from_text("docker:").docker.len(), 1);
}

#[test]
fn a_client_key_for_the_engine_is_not_ignored() {
    let variables = [("DOCKER_HOST", "tcp://10.0.0.1:2376"), ("DOCKER_TLS_VERIFY", "1")];
    let error = assemble(None, &variables.into_iter().collect()).unwrap_err().to_string();
    assert!(error.ends_with("from DOCKER_HOST: TLS to an engine (DOCKER_TLS_VERIFY) is not supported yet"), "{error}");
}

#[test]
fn a_pushgateway_alone_is_pushed_to_always() {
    let pushgateway =
        from_text("pushgateway: {url: http://h, basic_auth: {username: u, password: p}}").pushgateway.unwrap();
    assert_eq!(pushgateway.mode, PushgatewayMode::Always);
    assert_eq!((pushgateway.job.as_str(), pushgateway.after), ("outhaul", Duration::from_secs(60)));
    assert_eq!(basic(&pushgateway.auth), ("u", "p"));
    assert!(from_text("pushgateway: {mode: off}").pushgateway.is_none());
}

#[test]
fn several_problems_are_told_at_once_in_the_order_of_their_lines() {
    let lines = wrong("log: {level: x}\nbuffer:\n  max_bytes: 1\n  pth: /x\nweb: {enabled: 3}\n");
    let at: Vec<&str> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(at, ["1", "3", "4", "5"]);
}

#[test]
fn a_file_is_read_or_the_error_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yml");
    let none = Environment::default();
    let error = load(Some(&path), &none).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: cannot read the configuration: No such file", path.display())), "{error}");
    std::fs::write(&path, "buffer: {path: data}").unwrap();
    assert_eq!(load(Some(&path), &none).unwrap().buffer.path, folder.path().join("data"));
    let named = [("OUTHAUL_CONFIG_FILE", path.to_str().unwrap())].into_iter().collect();
    assert_eq!(load(None, &named).unwrap().buffer.path, folder.path().join("data"));
    std::fs::write(&path, vec![b'#'; yaml::MAX_FILE_BYTES + 1]).unwrap();
    assert!(load(Some(&path), &none).unwrap_err().to_string().ends_with("the file is larger than 1048576 bytes"));
    std::fs::write(&path, [b'a', 0xff]).unwrap();
    assert!(load(Some(&path), &none).unwrap_err().to_string().ends_with("the file is not UTF-8 text"));
    assert!(load(Some(folder.path()), &none).unwrap_err().to_string().contains("cannot read the configuration"));
}

/// Everything a user can write, with a secret wherever one may stand.
const FULL: &str = "global: {external_labels: {site: x}}\ndocker:\n- host: tcp://h:1\n  include: {names: [a]}\n  exclude: {names: [b]}\n\
    remote_write:\n- url: https://user:hunter2@host/path?token=hunter2\n  headers: {X-Key: hunter2}\n  tls_config: {ca_file: x}\n  \
    queue_config: {}\n  metadata_config: {}\n  write_relabel_configs: [{target_label: x}]\n- url: https://b/\n  basic_auth:\n    username: hunter2\n    password: hunter2\n- url: https://c/\n  \
    authorization:\n    credentials: hunter2\n- url: https://d/\n  bearer_token: hunter2\n\
    - url: https://e/\n  proxy_url: http://u:hunter2@p:1\n  proxy_connect_header: {X-P: [hunter2]}\n  tls_config:\n    \
    cert: '-----BEGIN hunter2'\n    key: '-----BEGIN hunter2'\n  \
    oauth2:\n    client_id: c\n    client_secret: hunter2\n    token_url: https://u:hunter2@t/?x=hunter2\n    \
    endpoint_params: {p: hunter2}\n    tls_config: {}\n    proxy_url: socks5://u:hunter2@q\n\
    pushgateway:\n  url: https://user:hunter2@host/?x=hunter2\n  tls_config: {}\nbuffer: {}\nweb: {}\nlog: {}\n";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_makes_it_panic(any in "\\PC{0,80}", variable in "[A-Z_\\[\\].0-9]{0,20}", value in "\\PC{0,20}") {
        let name = format!("OUTHAUL_{variable}");
        let _ignored = with(&any, &[(&name, &value)]);
    }

    #[test]
    fn no_change_of_one_place_makes_it_panic_or_tell_a_secret(
        at in 0..FULL.len(), deleted in 0_usize..3, inserted in "[-:\\[\\]{}#&*!|'\" \n\ta0~,$%/@?]{0,3}",
    ) {
        let text = format!("{}{inserted}{}", &FULL[..at], &FULL[(at + deleted).min(FULL.len())..]);
        // Only whole secrets count: what is cut in two is another text.
        if let Err(error) = with(&text, &[]) {
            prop_assert!(!error.to_string().contains("hunter2"), "{error}\n{text}");
        }
    }
}
