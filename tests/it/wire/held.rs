//! What waiting alone does not mend: samples are kept, one line says why, and a corrected file is enough.
//!
//! All ways are one test, because a way that is held is looked at again only after half a minute.

use std::fs;
use std::path::Path;

use super::{Stage, assert_same, endpoint, of_way};
use crate::bed::{Authority, Nginx, Prometheus, PrometheusOptions, Site};

const NAME: &str = "metrics.test";
const PASSWORD: &str = "correct-horse";
/// The ways on which something is wrong; that of the last two is not in a file.
const BROKEN: [&str; 8] = [
    "foreign-certificate",
    "missing-certificate",
    "wrong-authority",
    "wrong-password",
    "login",
    "portal",
    "no-certificate",
    "wrong-name",
];

/// A receiver behind TLS that asks for a certificate and a password, beside one that sends people to a login page.
fn guarded(tls: &Site, plain: &Site, directory: &Path, pages: &str, upstream: u16) -> String {
    let file = |name: &str| directory.join(name).display().to_string();
    format!(
        "server {{ listen 127.0.0.1:{} ssl; server_name {NAME};\n\
         ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client on;\n\
         auth_basic receiver; auth_basic_user_file {};\n\
         location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }}\n{}",
        tls.port,
        file("server.pem"),
        file("server.key"),
        file("trusted.pem"),
        file("passwords"),
        plain.plain(pages),
    )
}

/// The ways, each with something else that is wrong.
fn endpoints(directory: &Path, tls: &Site, plain: &Site) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let secure = |name: &str, ca: &str, client: &str, password: &str| {
        let url = format!("https://127.0.0.1:{}/api/v1/write", tls.port);
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
        endpoint(name, &url, &more)
    };
    vec![
        secure("right", "trusted.pem", "ours", "password"),
        secure("no-certificate", "trusted.pem", "", "password"),
        secure("foreign-certificate", "trusted.pem", "certificate", "password"),
        secure("missing-certificate", "trusted.pem", "missing", "password"),
        secure("wrong-authority", "authority.pem", "ours", "password"),
        secure("wrong-password", "trusted.pem", "ours", "wrong-password"),
        secure("wrong-name", "trusted.pem", "ours", "password").replace(NAME, "other.test"),
        endpoint("login", &plain.url("/login"), ""),
        endpoint("portal", &plain.url("/portal"), ""),
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
    let (tls, plain) = (Site::new(), Site::new());
    let login = "location = /login { return 302 /sign-in; }\n\
                 location = /portal { default_type text/html; return 200 '<html><title>Welcome</title></html>'; }";
    let nginx = Nginx::start(&guarded(&tls, &plain, files.path(), login, prometheus.port()), tls.port);

    let mut stage = Stage::start("2s", &endpoints(files.path(), &tls, &plain));
    expect_reasons(&stage, files.path());
    stage.wait_until_drained(&prometheus, &["right"]);
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
    nginx.reload(&guarded(&tls, &plain, files.path(), &open, prometheus.port()));

    let mended = &BROKEN[..6];
    stage.wait_until_drained(&prometheus, mended);
    stage.assert_balanced(&BROKEN);
    assert!(!stage.agent.log().contains(PASSWORD) && !stage.agent.log().contains("battery-staple"));
    stage.agent.terminate();
    let (taken, answered) = (stage.recorder.samples(), prometheus.all_samples());
    assert_same("right", &taken, &of_way(&answered, "right"));
    for way in mended {
        assert_same(way, &taken, &of_way(&answered, way));
    }
}
