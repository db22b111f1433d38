//! What operators replace while the agent runs, and which TLS is spoken.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Stage, assert_same, endpoint, of_way};
use crate::bed::{Authority, Nginx, Prometheus, PrometheusOptions, Site, eventually};

const NAME: &str = "metrics.test";
const PASSWORDS: [&str; 2] = ["before-the-change", "after-the-change"];
const TOKENS: [&str; 2] = ["the-first-token", "the-second-token"];

struct Files<'a>(&'a Path);

impl Files<'_> {
    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Puts a file in the place of another in one step, as whoever renews certificates does.
    fn replace(&self, old: &str, new: impl AsRef<[u8]>) {
        fs::write(self.file("new"), new).unwrap();
        fs::rename(self.file("new"), self.file(old)).unwrap();
    }

    /// What nginx noted of each request that came by TLS: version, serial number of the client's certificate, what it showed.
    fn seen(&self) -> Vec<String> {
        fs::read_to_string(self.file("seen")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

fn basic(password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("metrics:{password}")))
}

/// `strict` asks for a certificate and a password or token; `lax` for nothing.
fn servers(files: &Files, strict: &Site, lax: &Site, versions: &str, pair: &str, upstream: u16) -> String {
    let allowed = PASSWORDS.map(basic).into_iter().chain(TOKENS.map(|token| format!("Bearer {token}")));
    let allowed = allowed.map(|value| format!("\"{value}\" 1;")).collect::<Vec<_>>().join(" ");
    let server = |site: &Site, more: &str| {
        format!(
            "server {{ listen 127.0.0.1:{} ssl; server_name {NAME}; ssl_certificate {}; ssl_certificate_key {};\n\
             access_log {} seen; {more} location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }}\n",
            site.port,
            files.file(&format!("{pair}.pem")),
            files.file(&format!("{pair}.key")),
            files.file("seen"),
        )
    };
    let guard = format!(
        "ssl_client_certificate {}; ssl_verify_client on; if ($allowed = 0) {{ return 401; }}",
        files.file("clients.pem")
    );
    format!(
        "log_format seen '$request_uri $status $ssl_protocol $ssl_client_serial $http_authorization {pair}';\n\
         map $http_authorization $allowed {{ default 0; {allowed} }}\n{}{}",
        server(strict, &guard),
        server(lax, &format!("ssl_protocols {versions};")),
    )
}

#[test]
fn certificates_passwords_and_tokens_that_are_replaced_are_taken_up_by_the_next_request() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files(directory.path());
    let clients = Authority::new(directory.path(), "clients");
    let (first, second) = (Authority::new(directory.path(), "first"), Authority::new(directory.path(), "second"));
    let pairs = [clients.issue("client-1", "edge.test"), clients.issue("client-2", "edge.test")];
    first.issue("server-1", NAME);
    second.issue("server-2", NAME);
    let content = |path: &Path| fs::read(path).unwrap();
    files.replace("ours.pem", content(&pairs[0].cert));
    files.replace("ours.key", content(&pairs[0].key));
    files.replace("ca.pem", content(&first.file("pem")));
    files.replace("password", PASSWORDS[0]);
    files.replace("token", TOKENS[0]);

    let prometheus = Prometheus::start(PrometheusOptions::default());
    let (strict, lax) = (Site::new(), Site::new());
    let servers = |pair: &str| servers(&files, &strict, &lax, "TLSv1.2 TLSv1.3", pair, prometheus.port());
    let nginx = Nginx::start(&servers("server-1"), strict.port);
    let way = |name: &str, auth: &str| {
        let url = format!("https://127.0.0.1:{}/api/v1/write?{name}", strict.port);
        let tls = format!(
            "tls_config: {{ca_file: \"{}\", cert_file: \"{}\", key_file: \"{}\", server_name: {NAME}}}",
            files.file("ca.pem"),
            files.file("ours.pem"),
            files.file("ours.key")
        );
        endpoint(name, &url, &format!(", {tls}, {auth}"))
    };
    let basic_auth = format!("basic_auth: {{username: metrics, password_file: \"{}\"}}", files.file("password"));
    let bearer = format!("authorization: {{credentials_file: \"{}\"}}", files.file("token"));
    let mut stage = Stage::start("1s", &[way("password", &basic_auth), way("token", &bearer)]);
    let expect = |parts: &[&str]| {
        let shows = |line: &String| parts.iter().all(|part| line.contains(part));
        eventually(&format!("a request shows {parts:?}"), || files.seen().iter().any(shows));
    };
    let ways = ["password", "token"];
    let serial = |number: usize| serial(&pairs[number].cert);
    expect(&[" 204 ", &serial(0), &basic(PASSWORDS[0])]);
    expect(&[" 204 ", &serial(0), TOKENS[0]]);

    files.replace("password", PASSWORDS[1]);
    files.replace("token", TOKENS[1]);
    expect(&[" 204 ", &basic(PASSWORDS[1])]);
    expect(&[" 204 ", TOKENS[1]]);
    // One after the other: in between they do not fit each other.
    files.replace("ours.pem", content(&pairs[1].cert));
    stage.recorder.wait_for_ticks(stage.recorder.ticks().len() + 2);
    files.replace("ours.key", content(&pairs[1].key));
    expect(&[" 204 ", &serial(1), &basic(PASSWORDS[1])]);
    expect(&[" 204 ", &serial(1), TOKENS[1]]);
    files.replace("ca.pem", [content(&first.file("pem")), content(&second.file("pem"))].concat());
    nginx.reload(&servers("server-2"));
    expect(&[" 204 ", &basic(PASSWORDS[1]), "server-2"]);
    expect(&[" 204 ", TOKENS[1], "server-2"]);
    files.replace("ca.pem", content(&second.file("pem")));
    stage.recorder.wait_for_ticks(stage.recorder.ticks().len() + 3);
    stage.wait_until_drained(&prometheus, &ways);
    stage.assert_balanced(&ways);

    let log = stage.agent.log();
    let complaints = log.lines().filter(|line| line.contains("level=warn") && !line.contains("files cannot be used"));
    assert_eq!(complaints.collect::<Vec<_>>(), Vec::<&str>::new(), "nobody is bothered");
    assert!(PASSWORDS.iter().chain(&TOKENS).all(|secret| !log.contains(secret)));
    stage.agent.terminate();
    let (taken, answered) = (stage.recorder.samples(), prometheus.all_samples());
    for way in ways {
        assert_same(way, &taken, &of_way(&answered, way));
    }
}

/// A certificate's serial number as nginx writes it.
fn serial(cert: &Path) -> String {
    let output = std::process::Command::new("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(cert).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    format!(" {} ", text.trim().strip_prefix("serial=").unwrap())
}

#[test]
fn which_version_of_tls_is_spoken_and_whether_anybody_is_believed_is_as_configured() {
    let directory = tempfile::tempdir().unwrap();
    let files = Files(directory.path());
    Authority::new(directory.path(), "clients");
    let authority = Authority::new(directory.path(), "authority");
    authority.issue("server", NAME);
    let prometheus = Prometheus::start(PrometheusOptions::default());
    let (strict, lax) = (Site::new(), Site::new());
    let servers = |versions: &str| servers(&files, &strict, &lax, versions, "server", prometheus.port());
    let nginx = Nginx::start(&servers("TLSv1.2"), lax.port);
    let way = |name: &str, tls: &str| {
        let url = format!("https://127.0.0.1:{}/api/v1/write?{name}", lax.port);
        endpoint(name, &url, &format!(", tls_config: {{{tls}}}"))
    };
    let trusted = format!("ca_file: \"{}\", server_name: {NAME}", authority.file("pem").display());
    let ways = ["newest", "older", "careless"];
    let mut stage = Stage::start(
        "1s",
        &[
            way("newest", &format!("{trusted}, min_version: TLS13")),
            way("older", &format!("{trusted}, max_version: TLS12")),
            way("careless", "insecure_skip_verify: true"),
        ],
    );
    stage.expect_to_say("newest", &["level=warn", "samples are kept", "ProtocolVersion", "min_version"]);
    stage.wait_until_drained(&prometheus, &["older", "careless"]);
    assert_eq!(stage.fate("newest", "delivered"), 0.0);
    stage.assert_balanced(&ways);

    nginx.reload(&servers("TLSv1.2 TLSv1.3"));
    stage.wait_until_drained(&prometheus, &ways);
    stage.recorder.wait_for_ticks(stage.recorder.ticks().len() + 2);
    stage.wait_until_drained(&prometheus, &ways);
    stage.assert_balanced(&ways);
    stage.agent.terminate();
    let seen = files.seen();
    let spoken = |way: &str| {
        let of_way = seen.iter().filter(|line| line.starts_with(&format!("/api/v1/write?{way} ")));
        let mut versions: Vec<&str> = of_way.map(|line| line.split(' ').nth(2).unwrap()).collect();
        versions.dedup();
        versions
    };
    assert_eq!(spoken("newest"), ["TLSv1.3"]);
    assert_eq!(spoken("older"), ["TLSv1.2"]);
    // The newest that both speak, and nginx spoke only the older one at first.
    assert_eq!(spoken("careless"), ["TLSv1.2", "TLSv1.3"]);
    let (taken, answered) = (stage.recorder.samples(), prometheus.all_samples());
    for way in ways {
        assert_same(way, &taken, &of_way(&answered, way));
    }
}
