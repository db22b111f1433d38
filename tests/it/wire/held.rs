//! What waiting alone does not mend: samples are kept, one line says why, and a corrected file is enough.
//!
//! All ways are one test, because a way that is held is looked at again only after half a minute.

use std::fs;
use std::path::Path;

use super::{Stage, assert_same, endpoint, of_way};
use crate::bed::{Authority, Nginx, Prometheus, PrometheusOptions, Site};

const NAME: &str = "metrics.test";
const PASSWORD: &str = "correct-horse";
/// The ways on which something is wrong; that of the last five is not in a file.
const BROKEN: [&str; 9] = [
    "foreign-certificate",
    "missing-certificate",
    "wrong-authority",
    "wrong-password",
    "login",
    "portal",
    "too-old",
    "no-certificate",
    "wrong-name",
];
/// Those on which nothing is.
const WELL: [&str; 2] = ["right", "believed"];

/// The doors of the receiver.
struct Doors {
    /// Behind TLS, with a certificate and a password asked for.
    tls: Site,
    /// Behind TLS of one version only.
    old: Site,
    /// That sends people to a login page.
    plain: Site,
}

impl Doors {
    fn http(&self, directory: &Path, version: &str, pages: &str, upstream: u16) -> String {
        let file = |name: &str| directory.join(name).display().to_string();
        let certificate =
            format!("ssl_certificate {}; ssl_certificate_key {};", file("server.pem"), file("server.key"));
        let pass = format!("location / {{ proxy_pass http://127.0.0.1:{upstream}; }}");
        format!(
            "server {{ listen 127.0.0.1:{} ssl; server_name {NAME}; {certificate}\n\
             ssl_client_certificate {}; ssl_verify_client on; auth_basic receiver; auth_basic_user_file {};\n{pass} }}\n\
             server {{ listen 127.0.0.1:{} ssl; ssl_protocols {version}; {certificate} {pass} }}\n{}",
            self.tls.port,
            file("trusted.pem"),
            file("passwords"),
            self.old.port,
            self.plain.plain(pages),
        )
    }
}

/// The ways, each with something else that is wrong.
fn endpoints(directory: &Path, doors: &Doors) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let url = |site: &Site| format!("https://127.0.0.1:{}/api/v1/write", site.port);
    let old = |name: &str, settings: &str| endpoint(name, &url(&doors.old), &format!(", tls_config: {{{settings}}}"));
    let too_old = format!("ca_file: \"{}\", server_name: {NAME}, min_version: TLS13", file("trusted.pem"));
    let secure = |name: &str, ca: &str, client: &str, password: &str| {
        let client = match client {
            "" => String::new(),
            name => format!(
                ", cert_file: \"{}\", key_file: \"{}\"",
                file(&format!("{name}.pem")),
                file(&format!("{name}.key"))
            ),
        };
        let more = format!(
            ", basic_auth: {{username: metrics, password_file: \"{}\"}}, \
             tls_config: {{ca_file: \"{}\", server_name: {NAME}{client}}}",
            file(password),
            file(ca),
        );
        endpoint(name, &url(&doors.tls), &more)
    };
    vec![
        secure("right", "trusted.pem", "ours", "password"),
        secure("no-certificate", "trusted.pem", "", "password"),
        secure("foreign-certificate", "trusted.pem", "certificate", "password"),
        secure("missing-certificate", "trusted.pem", "missing", "password"),
        secure("wrong-authority", "authority.pem", "ours", "password"),
        secure("wrong-password", "trusted.pem", "ours", "wrong-password"),
        secure("wrong-name", "trusted.pem", "ours", "password").replace(NAME, "other.test"),
        endpoint("login", &doors.plain.url("/login"), ""),
        endpoint("portal", &doors.plain.url("/portal"), ""),
        // Neither the authority nor the name is known.
        old("believed", "insecure_skip_verify: true"),
        old("too-old", &too_old),
    ]
}

/// Waits until each of them has said why.
fn expect_reasons(stage: &Stage, directory: &Path) {
    let key = directory.join("missing.key").display().to_string();
    stage.expect_to_say("no-certificate", &["level=warn", "400", "No required SSL certificate was sent", "cert_file"]);
    stage.expect_to_say("foreign-certificate", &["level=warn", "400", "The SSL certificate error", "cert_file"]);
    stage.expect_to_say("missing-certificate", &["level=warn", &key, "No such file"]);
    stage.expect_to_say("wrong-authority", &["level=warn", "UnknownIssuer"]);
    stage.expect_to_say("wrong-password", &["level=warn", "status 401", "check the username and password"]);
    stage.expect_to_say("wrong-name", &["level=warn", "other.test", NAME]);
    stage.expect_to_say("login", &["level=warn", "status 302, redirected to", "/sign-in", "login page"]);
    stage.expect_to_say("portal", &["level=warn", "a web page answered"]);
    stage.expect_to_say("too-old", &["level=warn", "ProtocolVersion"]);
}

#[test]
fn what_only_an_operator_can_mend_is_held_and_said_and_delivered_once_the_files_are_right() {
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str| files.path().join(name).display().to_string();
    let (trusted, foreign) = (Authority::new(files.path(), "trusted"), Authority::new(files.path(), "foreign"));
    trusted.issue("server", NAME);
    let ours = trusted.issue("ours", "edge.test");
    let theirs = foreign.issue("theirs", "edge.test");
    fs::write(file("passwords"), format!("metrics:{{PLAIN}}{PASSWORD}\n")).unwrap();
    fs::write(file("password"), format!("{PASSWORD}\n")).unwrap();

    // Each way has files of its own, of which one is wrong.
    fs::copy(&theirs.cert, file("certificate.pem")).unwrap();
    fs::copy(&theirs.key, file("certificate.key")).unwrap();
    fs::copy(foreign.file("pem"), file("authority.pem")).unwrap();
    fs::write(file("wrong-password"), "battery-staple").unwrap();

    let prometheus = Prometheus::start(PrometheusOptions::default());
    let doors = Doors { tls: Site::new(), old: Site::new(), plain: Site::new() };
    let login = "location = /login { return 302 /sign-in; }\n\
                 location = /portal { default_type text/html; return 200 '<html><title>Welcome</title></html>'; }";
    let nginx = Nginx::start(&doors.http(files.path(), "TLSv1.2", login, prometheus.port()), doors.tls.port);

    let mut stage = Stage::start("2s", &endpoints(files.path(), &doors));
    expect_reasons(&stage, files.path());
    stage.wait_until_drained(&prometheus, &WELL);
    for way in BROKEN {
        assert_eq!(stage.fate(way, "delivered"), 0.0, "{way}");
        assert_eq!(prometheus.raw(&format!("outhaul_up{{way=\"{way}\"}}")), [], "{way}");
    }
    stage.assert_balanced(&BROKEN);

    fs::copy(&ours.cert, file("certificate.pem")).unwrap();
    fs::copy(&ours.key, file("certificate.key")).unwrap();
    fs::copy(&ours.key, file("missing.key")).unwrap();
    fs::copy(&ours.cert, file("missing.pem")).unwrap();
    fs::copy(trusted.file("pem"), file("authority.pem")).unwrap();
    fs::write(file("wrong-password"), PASSWORD).unwrap();
    let pass = format!("proxy_pass http://127.0.0.1:{}/api/v1/write;", prometheus.port());
    let open = format!("location = /login {{ {pass} }} location = /portal {{ {pass} }}");
    nginx.reload(&doors.http(files.path(), "TLSv1.3", &open, prometheus.port()));

    let mended = &BROKEN[..7];
    stage.wait_until_drained(&prometheus, mended);
    stage.assert_balanced(&BROKEN);
    assert!(!stage.agent.log().contains(PASSWORD) && !stage.agent.log().contains("battery-staple"));
    stage.agent.terminate();
    let (taken, answered) = (stage.recorder.samples(), prometheus.all_samples());
    for way in WELL.iter().chain(mended) {
        assert_same(way, &taken, &of_way(&answered, way));
    }
}
