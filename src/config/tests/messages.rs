//! Every rule has its message, which names the place.

use super::*;

#[test]
fn every_rule_has_its_message() {
    const SERVER: &str = "belongs to a Prometheus server; outhaul only sends, so remove it here";
    let table = [
        ("remote_wirte: []", "1: remote_wirte: unknown key; did you mean remote_write?".to_owned()),
        ("a[99999999999]: 1", "1: a…: unknown key; known at the top level: buffer, docker, global, log, profiles, pushgateway, remote_write, send_unchanged_every, shutdown_grace, web".to_owned()),
        ("remote_write: {url: http://h}", "1: remote_write: expected a list, found a block of keys; each item begins with `- `".to_owned()),
        ("remote_write: [http://h]", "1: remote_write[0]: expected a block of keys, found a plain value".to_owned()),
        ("remote_write: [null]", "1: remote_write[0]: expected a block of keys, found nothing".to_owned()),
        ("buffer: /x", "1: buffer: expected a block of keys, found a plain value".to_owned()),
        ("buffer: {path: [x]}", "1: buffer.path: expected a value, found a list".to_owned()),
        ("buffer: {path: ''}", "1: buffer.path: \"\": the name of a file may not be empty".to_owned()),
        ("buffer: {max_bytes: 1048575}", "1: buffer.max_bytes: \"1048575\": must be at least 1MiB".to_owned()),
        ("buffer: {sync: sometimes}", "1: buffer.sync: \"sometimes\": must be one of always, interval, never".to_owned()),
        ("buffer: {sync: interval, sync_interval: 0s}", "1: buffer.sync_interval: \"0s\": must be longer than 0s; for no delay use sync: always".to_owned()),
        ("scrape_configs: [{job_name: x}]", "1: scrape_configs: not supported yet".to_owned()),
        ("portainer: [{url: x}]", "1: portainer: not supported yet".to_owned()),
        ("profiles: [native, cadvisor]", "1: profiles[1]: \"cadvisor\": must be native; other profiles are not supported yet".to_owned()),
        ("send_unchanged_every: 1", "1: send_unchanged_every: \"1\": a duration needs a unit, such as 1s".to_owned()),
        ("rule_files: [x]", format!("1: rule_files: {SERVER}")),
        ("alerting: {}", format!("1: alerting: {SERVER}")),
        ("scrape_config_files: [x]", format!("1: scrape_config_files: {NOT_YET}")),
        ("shutdown_grace: 5", "1: shutdown_grace: \"5\": a duration needs a unit, such as 5s".to_owned()),
        ("global: {scrape_interval: 500ms}", "1: global.scrape_interval: \"500ms\": must be at least 1s".to_owned()),
        ("global: {scrape_interval: 5s, scrape_timeout: 6s}", "1: global.scrape_timeout: \"6s\": must be at most scrape_interval, which is 5s".to_owned()),
        ("global: {scrape_timeout: 0s}", "1: global.scrape_timeout: \"0s\": must be longer than 0s".to_owned()),
        ("global: {external_labels: {a-b: c}}", "1: global.external_labels.a-b: is not a label name: letters, digits and _, and no digit first".to_owned()),
        ("global: {external_labels: {__a: c}}", "1: global.external_labels.__a: label names that begin with __ are reserved".to_owned()),
        ("global: {external_labels: {instance: ''}}", "1: global.external_labels.instance: may not be empty; leave it out for the name of the host".to_owned()),
        ("global: {external_labels: {a: }}", "1: global.external_labels: a name in here has no value; an empty one is written \"\"".to_owned()),
        ("docker: yes", "1: docker: expected a list, found a plain value; each item begins with `- `".to_owned()),
        ("docker: [{host: 'unix://x'}]", "1: docker[0].host: \"unix://x\": the path of a socket is absolute; write unix:///var/run/docker.sock, tcp://host:port or http://host:port".to_owned()),
        ("docker: [{host: 'tcp://h'}]", "1: docker[0].host: \"tcp://h\": the port is missing (engines listen on 2375); write unix:///var/run/docker.sock, tcp://host:port or http://host:port".to_owned()),
        ("docker: [{host: 'tcp://u:hunter2@h:1'}]", "1: docker[0].host: \"tcp://h:1\": an engine's address has no user".to_owned()),
        ("docker: [{host: 'https://h:1'}]", "1: docker[0].host: \"https://h:1/\": TLS to an engine is not supported yet; write unix:///var/run/docker.sock, tcp://host:port or http://host:port".to_owned()),
        ("docker: [{}, {}]", "1: docker[1].host: \"unix:///var/run/docker.sock\": two engines have this host".to_owned()),
        ("docker: [{resources: stats}]", "1: docker[0].resources: \"stats\": must be auto or off; anything else is not supported yet".to_owned()),
        ("docker: [{include: {names: [/(/]}}]", "1: docker[0].include.names[0]: \"/(/\": not a regular expression: unclosed group".to_owned()),
        ("docker: [{exclude: {labels: ['=x']}}]", "1: docker[0].exclude.labels[0]: \"=x\": a label pattern is key or key=pattern, and the key may not be empty".to_owned()),
        ("docker: [{container_labels: [a.b, a_b]}]", "1: docker[0].container_labels: \"a_b\": becomes the same label as a.b".to_owned()),
        ("docker: [{tls_config: {}}]", "1: docker[0].tls_config: not supported yet".to_owned()),
        ("web: {listen_address: ':9797'}", "1: web.listen_address: \":9797\": must be an IP address and a port: 127.0.0.1:9797 for this host only, 0.0.0.0:9797 for every interface".to_owned()),
        ("web: {enabled: maybe}", "1: web.enabled: \"maybe\": must be true or false".to_owned()),
        ("log: {level: loud}", "1: log.level: \"loud\": must be one of error, warn, info, debug, trace".to_owned()),
        ("log: {format: xml}", "1: log.format: \"xml\": must be one of logfmt, json".to_owned()),
        ("pushgateway: {url: http://h, mode: fallback}", "1: pushgateway.mode: \"fallback\": there is no remote_write to fall back from; use always".to_owned()),
        ("pushgateway: {mode: always}", "1: pushgateway.url: is missing; it is the address to send to".to_owned()),
        ("pushgateway: {url: http://h/metrics/job/x}", "1: pushgateway.url: is the address of the Pushgateway itself; leave out /metrics/job/…".to_owned()),
        ("pushgateway: {url: http://h, job: ''}", "1: pushgateway.job: \"\": may not be empty".to_owned()),
        ("remote_write: [{name: a}]", "1: remote_write[0].url: is missing; it is the address to send to".to_owned()),
        ("remote_write: [{url: ''}]", "1: remote_write[0].url: not a URL: relative URL without a base; write it as http://host:port/path or https://host/path".to_owned()),
        ("remote_write: [{url: 'ftp://u:hunter2@h'}]", "1: remote_write[0].url: not an http or https URL; write it as http://host:port/path or https://host/path".to_owned()),
        ("remote_write: [{url: 'http://u:hunter2h'}]", "1: remote_write[0].url: not a URL: invalid port number; write it as http://host:port/path or https://host/path".to_owned()),
        ("remote_write: [{url: http://h}, {url: http://h}]", "1: remote_write[1].name: \"h\": two endpoints have this name; give each a `name` of its own, it decides which backlog is whose".to_owned()),
    ];
    for (text, expected) in table {
        assert_eq!(wrong(text), [expected], "{text}");
    }
}

#[test]
fn every_rule_of_an_endpoint_has_its_message() {
    let table = [
        ("nam: x", "nam: unknown key; did you mean name?".to_owned()),
        ("name: ''", "name: \"\": may not be empty; leave it out, or give the endpoint a name".to_owned()),
        ("name: \"a\\nb\"", "name: \"a\\nb\": must be at most 128 bytes on one line".to_owned()),
        ("remote_timeout: 0s", "remote_timeout: \"0s\": must be longer than 0s".to_owned()),
        ("headers: {Authorization: hunter2}", "headers.Authorization: is set by basic_auth or authorization; use one of these blocks".to_owned()),
        ("headers: {content-TYPE: hunter2}", "headers.content-TYPE: is a header of the protocol and cannot be changed".to_owned()),
        ("headers: {Retry-Attempt: 1}", "headers.Retry-Attempt: is a header of the protocol and cannot be changed".to_owned()),
        ("headers: {'a b': hunter2}", "headers.a…: is not the name of a header".to_owned()),
        ("headers: {a: \"hunter2\\nb: c\"}", "headers.a: the value of a header must be printable ASCII on one line".to_owned()),
        ("headers: {A: hunter2, a: hunter2}", "headers.a: this header is given twice".to_owned()),
        ("headers: {a: [hunter2]}", "headers.a: expected a value, found a list".to_owned()),
        ("basic_auth: u:hunter2", "basic_auth: expected a block of keys, found a plain value".to_owned()),
        ("basic_auth: {password: hunter2}", "basic_auth.username: is missing".to_owned()),
        ("basic_auth: {username: a, username_file: b, password: c}", "basic_auth.username: at most one of username and username_file may be set".to_owned()),
        ("basic_auth: {username: a, password: hunter2, password_file: b}", "basic_auth.password: at most one of password and password_file may be set".to_owned()),
        ("basic_auth: {username: 'a:b', password: c}", "basic_auth.username: may not hold a colon".to_owned()),
        ("basic_auth: {username: a, passwrod: hunter2}", "basic_auth.passwrod: unknown key; did you mean password?".to_owned()),
        ("basic_auth: {username: a, password hunter2}", "basic_auth.…: unknown key; a key and its value are written `key: value`".to_owned()),
        ("basic_auth: {username: a, hunter2}", "basic_auth.…: unknown key; known in remote_write[0].basic_auth: password, password_file, username, username_file".to_owned()),
        ("headers: {X-Key, hunter2}", "headers: a name in here has no value; an empty one is written \"\"".to_owned()),
        ("authorization: {type: Basic, credentials: hunter2}", "authorization.type: use basic_auth for this scheme".to_owned()),
        ("authorization: {type: 'a b', credentials: hunter2}", "authorization.type: \"a b\": is not an authentication scheme, such as Bearer".to_owned()),
        ("authorization: {type: Bearer}", "authorization.credentials: is missing; set it or credentials_file".to_owned()),
        ("authorization: {credentials: \"hunter2\\n\"}", "authorization.credentials: must be printable ASCII on one line".to_owned()),
        ("bearer_token: hunter2\nbearer_token_file: b", "bearer_token: at most one of bearer_token and bearer_token_file may be set".to_owned()),
        ("basic_auth: {username: a, password: b}\nauthorization: {credentials: c}", ": at most one way to authenticate may be set, found basic_auth and authorization".to_owned()),
        ("bearer_token: hunter2\nbasic_auth: {username: a, password: b}", ": at most one way to authenticate may be set, found basic_auth and bearer_token".to_owned()),
        ("sigv4: {}", "sigv4: signing for AWS is not supported by outhaul; send through a proxy that signs, such as aws-sigv4-proxy".to_owned()),
        ("azuread: {}", "azuread: Azure's managed identities are not supported by outhaul; use oauth2 with a client secret".to_owned()),
        ("google_iam: {}", "google_iam: Google's service accounts are not supported by outhaul; send through a collector that has them".to_owned()),
        ("http_headers: {a: {values: [hunter2]}}", "http_headers: valid in Prometheus, not supported by outhaul; use headers".to_owned()),
        ("max_sample_age: 1h\nqueue_config: {sample_age_limit: 2h}", "max_sample_age: contradicts queue_config.sample_age_limit, which means the same; set one".to_owned()),
        ("queue_config: {max_samples_per_send: 0}", "queue_config.max_samples_per_send: \"0\": must be a whole number from 1 to 100000".to_owned()),
        ("queue_config: {max_samples_per_send: 1e3}", "queue_config.max_samples_per_send: \"1e3\": must be a whole number from 1 to 100000".to_owned()),
        ("queue_config: {min_backoff: 2m, max_backoff: 1m}", "queue_config.min_backoff: 120s is longer than max_backoff, 60s".to_owned()),
        ("queue_config: {min_backoff: 0s}", "queue_config.min_backoff: \"0s\": must be longer than 0s".to_owned()),
        ("queue_config: {min_bakoff: 1s}", "queue_config.min_bakoff: unknown key; did you mean min_backoff?".to_owned()),
        ("metadata_config: {send_interval: 10ms}", "metadata_config.send_interval: must be at least 1s".to_owned()),
    ];
    check_rules(&table);
}

#[test]
fn every_rule_of_the_way_to_a_receiver_has_its_message() {
    let table = [
        ("tls_config: {cert_file: a}", "tls_config: a certificate (cert, cert_file) and its key (key, key_file) belong together; set both or neither".to_owned()),
        ("tls_config: {key: '-----BEGIN hunter2'}", "tls_config: a certificate (cert, cert_file) and its key (key, key_file) belong together; set both or neither".to_owned()),
        ("tls_config: {ca: hunter2}", "tls_config.ca: is not PEM text; for the name of a file use ca_file".to_owned()),
        ("tls_config: {ca: '-----BEGIN x', ca_file: b}", "tls_config.ca: at most one of ca and ca_file may be set".to_owned()),
        ("tls_config: {cert: hunter2, key_file: b}", "tls_config.cert: is not PEM text; for the name of a file use cert_file".to_owned()),
        ("tls_config: {server_name: 10.0.0.1}", "tls_config.server_name: \"10.0.0.1\": must be a DNS name, without port".to_owned()),
        ("tls_config: {server_name: 'a:1'}", "tls_config.server_name: \"a:1\": must be a DNS name, without port".to_owned()),
        ("tls_config: {server_name: a}\nproxy_url: http://p:1", "tls_config: server_name through a proxy is not supported yet; use the name in the URL".to_owned()),
        ("tls_config: {min_version: TLS14}", "tls_config.min_version: \"TLS14\": must be one of TLS10, TLS11, TLS12, TLS13".to_owned()),
        ("tls_config: {max_version: TLS11}", "tls_config.max_version: outhaul speaks nothing older than TLS12".to_owned()),
        ("tls_config: {min_version: TLS13, max_version: TLS12}", "tls_config.max_version: is older than min_version".to_owned()),
        ("tls_config: {ca_ref: a}", format!("tls_config.ca_ref: {NOT_YET}")),
        ("oauth2: {token_url: http://t}", "oauth2.client_id: is missing".to_owned()),
        ("oauth2: {client_id: a}", "oauth2.token_url: is missing; it is where tokens are fetched".to_owned()),
        ("oauth2: {client_id: a, token_url: 'ftp://u:hunter2@h'}", "oauth2.token_url: not an http or https URL; write it as http://host:port/path or https://host/path".to_owned()),
        ("oauth2: {client_id: a, token_url: http://t, client_secret: hunter2, client_secret_file: b}", "oauth2.client_secret: at most one of client_secret and client_secret_file may be set".to_owned()),
        ("oauth2: {client_id: a, token_url: http://t, grant_type: x}", format!("oauth2.grant_type: \"x\": must be client_credentials; other grants are {NOT_YET}")),
        ("oauth2: {client_id: a, token_url: http://t, client_certificate_key: hunter2}", format!("oauth2.client_certificate_key: {NOT_YET}")),
        ("oauth2: {client_id: a, token_url: http://t}\nbasic_auth: {username: a, password: hunter2}", ": at most one way to authenticate may be set, found basic_auth and oauth2".to_owned()),
        ("proxy_url: u:hunter2@h", "proxy_url: not the URL of a proxy; write it as http://host:port, https://host:port or socks5://host:port".to_owned()),
        ("proxy_url: http://p\nproxy_from_environment: true", "proxy_from_environment: proxy_url may not be set along with it".to_owned()),
        ("no_proxy: a\nproxy_from_environment: true", "proxy_from_environment: no_proxy may not be set along with it; NO_PROXY is read".to_owned()),
        ("no_proxy: a", "no_proxy: has no meaning without proxy_url".to_owned()),
        ("proxy_connect_header: {a: [hunter2]}", "proxy_connect_header: has no meaning without proxy_url or proxy_from_environment".to_owned()),
        ("proxy_url: http://p\nproxy_connect_header: {a: hunter2}", "proxy_connect_header.a: expected a list, found a plain value".to_owned()),
        ("proxy_url: http://p\nproxy_connect_header: {a: [\"hunter2\\n\"]}", "proxy_connect_header.a: is not a header: a name, and values of printable ASCII on one line".to_owned()),
        ("round_robin_dns: true", format!("round_robin_dns: true is {NOT_YET}")),
        ("queue_config: {retry_on_http_429: maybe}", "queue_config.retry_on_http_429: \"maybe\": must be true or false".to_owned()),
        ("send_interval: 1m\nqueue_config: {batch_send_deadline: 5s}", "send_interval: contradicts queue_config.batch_send_deadline, which means the same; set one".to_owned()),
        ("compression: gzip", "compression: \"gzip\": must be one of snappy, zstd".to_owned()),
        ("compression: zstd\nprotocol: v2", "compression: \"zstd\": exists only for remote-write 1.0, as VictoriaMetrics takes it".to_owned()),
        ("protobuf_message: x", "protobuf_message: \"x\": must be one of prometheus.WriteRequest, io.prometheus.write.v2.Request".to_owned()),
        ("protocol: v3", "protocol: \"v3\": must be one of auto, v1, v2".to_owned()),
        ("protocol: v1\nprotobuf_message: io.prometheus.write.v2.Request", "protobuf_message: contradicts protocol, which means the same; set one".to_owned()),
    ];
    check_rules(&table);
}

/// That an endpoint with these keys breaks this one rule.
fn check_rules(table: &[(&str, String)]) {
    for (keys, expected) in table {
        let lines = wrong(&endpoint(keys));
        let separator = if expected.starts_with(':') { "" } else { "." };
        let [line] = &lines[..] else { panic!("{keys}: {lines:?}") };
        let line = line.split_once(": ").unwrap().1;
        assert_eq!(line, format!("remote_write[0]{separator}{expected}"), "{keys}");
    }
}
