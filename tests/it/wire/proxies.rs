//! Through real proxies of each kind, and past a guard that wants a token.

use std::fs;

use super::{Stage, assert_same, endpoint, of_way};
use crate::bed::{
    Authority, CLIENT, Microsocks, Nginx, Prometheus, PrometheusOptions, Site, Tinyproxy, TokenMaker, eventually,
    outhaul,
};

#[test]
fn a_forward_proxy_is_asked_for_http_and_tunnels_https() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new(files.path(), "authority");
    // The name that counts through a proxy is the one in the URL.
    let server = authority.issue("server", "localhost");
    let prometheus = Prometheus::start(PrometheusOptions::default());
    let (tls, plain) = (Site::new(), Site::new());
    let pass = format!("location / {{ proxy_pass http://127.0.0.1:{}; }}", prometheus.port());
    let http = format!(
        "server {{ listen 127.0.0.1:{} ssl; ssl_certificate {}; ssl_certificate_key {}; {pass} }}\n{}",
        tls.port,
        server.cert.display(),
        server.key.display(),
        plain.plain(&pass),
    );
    let nginx = Nginx::start(&http, tls.port);
    let proxy = Tinyproxy::start(tls.port);
    let trusted = format!("tls_config: {{ca_file: \"{}\"}}", authority.file("pem").display());
    let ways = ["http", "https"];
    let mut stage = Stage::start(
        "1s",
        &[
            endpoint("http", &plain.url("/api/v1/write"), &format!(", proxy_url: \"{}\"", proxy.url())),
            endpoint(
                "https",
                &format!("https://localhost:{}/api/v1/write", tls.port),
                &format!(", proxy_url: \"{}\", {trusted}", proxy.url()),
            ),
        ],
    );
    stage.recorder.wait_for_ticks(4);
    stage.wait_until_drained(&prometheus, &ways);
    stage.assert_balanced(&ways);
    stage.agent.terminate();

    let (taken, answered) = (stage.recorder.samples(), prometheus.all_samples());
    for way in ways {
        assert_same(way, &taken, &of_way(&answered, way));
    }
    let log = proxy.log();
    assert!(log.contains(&format!("CONNECT localhost:{}", tls.port)), "{log}");
    let requests = nginx.requests();
    // The proxy writes its name into what it can read.
    assert!(requests.iter().any(|line| line.contains("the-wall")), "{requests:#?}");
    assert!(requests.iter().any(|line| !line.contains("the-wall")), "{requests:#?}");
}

#[test]
fn a_socks_proxy_carries_http_and_https_and_looks_names_up_where_it_is_asked_to() {
    let files = tempfile::tempdir().unwrap();
    let authority = Authority::new(files.path(), "authority");
    let server = authority.issue("server", "localhost");
    let prometheus = Prometheus::start(PrometheusOptions::default());
    let (tls, proxy) = (Site::new(), Microsocks::start());
    let http = format!(
        "server {{ listen 127.0.0.1:{} ssl; ssl_certificate {}; ssl_certificate_key {};\n\
         location / {{ proxy_pass http://127.0.0.1:{}; }} }}\n",
        tls.port,
        server.cert.display(),
        server.key.display(),
        prometheus.port(),
    );
    let _nginx = Nginx::start(&http, tls.port);
    let way = |name: &str, url: &str, scheme: &str, more: &str| {
        endpoint(name, url, &format!(", proxy_url: \"{}\"{more}", proxy.url(scheme)))
    };
    let trusted = format!(", tls_config: {{ca_file: \"{}\"}}", authority.file("pem").display());
    let ways = ["plain", "there", "secure"];
    let mut stage = Stage::start(
        "1s",
        &[
            way("plain", &prometheus.write_url(), "socks5", ""),
            way("there", &prometheus.write_url().replace("127.0.0.1", "localhost"), "socks5h", ""),
            way("secure", &format!("https://localhost:{}/api/v1/write", tls.port), "socks5h", &trusted),
        ],
    );
    stage.recorder.wait_for_ticks(4);
    stage.wait_until_drained(&prometheus, &ways);
    stage.assert_balanced(&ways);
    stage.agent.terminate();
    let log = proxy.log();
    for target in [
        format!("connected to 127.0.0.1:{}", prometheus.port()),
        format!("connected to localhost:{}", prometheus.port()),
        format!("connected to localhost:{}", tls.port),
    ] {
        assert!(log.contains(&target), "{target}: {log}");
    }
    let (taken, answered) = (stage.recorder.samples(), prometheus.all_samples());
    for way in ways {
        assert_same(way, &taken, &of_way(&answered, way));
    }
}

#[test]
fn a_proxy_is_used_where_it_is_asked_for_and_not_for_its_exceptions_be_they_of_the_environment_or_given() {
    let prometheus = Prometheus::start(PrometheusOptions::default());
    let site = Site::new();
    // To a proxy the whole URL is said, of which nginx takes the host as it takes that of a header.
    let rules =
        format!("server_name receiver.test; location / {{ proxy_pass http://127.0.0.1:{}; }}", prometheus.port());
    let nginx = Nginx::start(&site.plain(&rules), site.port);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("outhaul.yml");
    let endpoint = "url: \"http://receiver.test/api/v1/write\"";
    let given = format!(", proxy_url: \"{}\"", site.url(""));
    for (more, no_proxy, arrives) in [
        (", proxy_from_environment: true", "other.test", true),
        (", proxy_from_environment: true", "other.test, receiver.test", false),
        ("", "", false),
        (&format!("{given}, no_proxy: other.test"), "receiver.test", true),
        (&format!("{given}, no_proxy: receiver.test"), "other.test", false),
    ] {
        std::fs::write(&file, format!("docker: off\nremote_write: [{{{endpoint}{more}}}]\n")).unwrap();
        let mut once = outhaul();
        once.args(["once", "--config.file"]).arg(&file).env("OUTHAUL_BUFFER_PATH", directory.path().join("buffer"));
        let output = once.env("HTTP_PROXY", site.url("")).env("NO_PROXY", no_proxy).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), arrives, "{more} with {no_proxy:?}: {said}");
        assert!(arrives || said.contains("dns error"), "{said}");
    }
    let requests = nginx.requests();
    assert!(!requests.is_empty() && requests.iter().all(|line| line.starts_with("POST /api/v1/write")), "{requests:?}");
    assert!(!prometheus.all_samples().is_empty());
}

#[test]
fn a_token_is_fetched_once_and_again_when_it_was_withdrawn() {
    let files = tempfile::tempdir().unwrap();
    let (id, secret) = CLIENT;
    let secret_file = files.path().join("secret");
    fs::write(&secret_file, format!("{secret}\n")).unwrap();
    let prometheus = Prometheus::start(PrometheusOptions::default());
    let (maker, site) = (TokenMaker::start(), Site::new());
    let guarded = |token: &str| {
        let rules = format!(
            "if ($allowed = 0) {{ return 401; }} location / {{ proxy_pass http://127.0.0.1:{}; }}",
            prometheus.port()
        );
        format!("map $http_authorization $allowed {{ default 0; \"Bearer {token}\" 1; }}\n{}", site.plain(&rules))
    };
    let nginx = Nginx::start(&guarded("token-1"), site.port);
    let oauth2 = format!(
        ", oauth2: {{client_id: {id}, client_secret_file: \"{}\", token_url: \"{}\", scopes: [metrics]}}",
        secret_file.display(),
        maker.url(),
    );
    let mut stage = Stage::start("1s", &[endpoint("token", &site.url("/api/v1/write"), &oauth2)]);
    stage.recorder.wait_for_ticks(3);
    stage.wait_until_drained(&prometheus, &["token"]);
    assert_eq!(maker.made(), 1, "one token is for many requests");

    nginx.reload(&guarded("token-2"));
    eventually("a new token is fetched", || maker.made() == 2);
    let ticks = stage.recorder.ticks().len();
    stage.recorder.wait_for_ticks(ticks + 2);
    stage.wait_until_drained(&prometheus, &["token"]);
    stage.assert_balanced(&["token"]);
    assert!(!stage.says("token", &["level=warn"]), "a withdrawn token is nobody's trouble: {}", stage.agent.log());
    assert!(!stage.agent.log().contains(secret) && !stage.agent.log().contains("token-1"));
    stage.agent.terminate();
    assert_eq!(maker.made(), 2);
    assert_same("token", &stage.recorder.samples(), &of_way(&prometheus.all_samples(), "token"));
}
