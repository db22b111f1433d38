//! What an answer means: the one status table of the program.
//!
//! Pure: an [`Exchange`] goes in, an [`Outcome`] comes out, and what follows from it is the shipper's business. The rule
//! behind the table: samples are given up only where a receiver that has looked at them says that they are the problem.
//! Whatever may be about us, the way, or the moment keeps them.

use std::time::Duration;

use super::retry_after;
use crate::encode::{Compression, Message, Tally};
use crate::model::Timestamp;

/// What came of one request.
pub type Exchange = Result<Answer, Failure>;

/// An HTTP answer, as far as it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// 100 to 999.
    pub status: u16,
    /// The header `Retry-After`.
    pub retry_after: Option<String>,
    /// The header `Content-Type`.
    pub content_type: Option<String>,
    /// The header `Location`.
    pub location: Option<String>,
    /// What the receiver says it wrote in `X-Prometheus-Remote-Write-*-Written` (remote-write 2.0, "Required Written Response
    /// Headers"), where a header that is not there means 0; `None` where none is.
    pub written: Option<Tally>,
    /// The receiver's clock, by its header `Date`.
    pub date: Option<Timestamp>,
    /// The beginning of the body, made fit for one line of a log.
    pub text: String,
    /// Whether it is known that there is no body.
    pub is_empty: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What failed.
    pub kind: FailureKind,
    /// One line for people, without secrets.
    pub message: String,
}

/// What failed. A closed set: it is the label `code` where there is no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The request could not be made: a credential or certificate file is not as it must be. Nothing was sent.
    Unprepared,
    /// The host name has no address.
    Dns,
    /// No connection, or no TLS session.
    Connect,
    /// No complete answer in time.
    Timeout,
    /// The connection broke, or what came was no HTTP.
    Broken,
    /// The server of `token_url` is in trouble or out of reach. Nothing was sent.
    NoToken {
        /// What its `Retry-After` asks for, clamped.
        after: Option<Duration>,
    },
    /// It refuses us, or what it gives is no token. Nothing was sent.
    TokenRefused,
}

impl FailureKind {
    fn word(self) -> &'static str {
        match self {
            Self::Unprepared => "unprepared",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::NoToken { .. } => "no_token",
            Self::TokenRefused => "token_refused",
        }
    }
}

/// What an answer means for the samples that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has them.
    Delivered,
    /// The receiver will never take them: count them and go on.
    Refused,
    /// The receiver has so many of them and will never take the rest.
    Partial {
        /// What it has.
        written: Tally,
    },
    /// The receiver does not understand the message: send the same in the next format, if there is one. If there is none, it
    /// is what `otherwise` says.
    Misunderstood {
        /// What it means where no other format is left.
        otherwise: Otherwise,
    },
    /// Asked for less by a receiver whose samples are not to be sent again (`retry_on_http_429: false`).
    GivenUp,
    /// Too many at once: send fewer.
    TooLarge,
    /// Nothing is wrong with them, but waiting alone will not help: keep them, tell the operator, look again now and then.
    Held,
    /// Nothing is wrong with them: try again, after this long where the receiver asked for it.
    Retry {
        /// What `Retry-After` asks for, clamped.
        after: Option<Duration>,
    },
}

/// What a misunderstood request means where no other format is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// See [`Outcome::Refused`].
    Refused,
    /// See [`Outcome::Held`].
    Held,
}

/// What a request was, as far as the meaning of its answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The message.
    pub message: Message,
    /// What it was packed with.
    pub compression: Compression,
    /// Whether samples answered with 429 are sent again.
    pub retry_on_http_429: bool,
}

impl Asked {
    /// What every receiver understands.
    pub const PLAIN: Self = Self { message: Message::V1, compression: Compression::Snappy, retry_on_http_429: true };

    /// Whether a receiver may not understand it, so that its 400 may be about the format: remote-write 2.0 says so of
    /// receivers of 1.0 ("Protocol"), and `VictoriaMetrics`' own sender expects it for zstd.
    fn is_daring(self) -> bool {
        self.message == Message::V2 || self.compression != Compression::Snappy
    }
}

/// The table.
pub fn classify(exchange: &Exchange, asked: Asked, now: Timestamp) -> Outcome {
    let answer = match exchange {
        Ok(answer) => answer,
        Err(Failure { kind: FailureKind::Unprepared | FailureKind::TokenRefused, .. }) => return Outcome::Held,
        Err(Failure { kind: FailureKind::NoToken { after }, .. }) => return Outcome::Retry { after: *after },
        Err(_) => return Outcome::Retry { after: None },
    };
    match answer.status {
        // A login page or a captive portal answers anything with 200.
        200..=299 if is_page(answer) => Outcome::Held,
        // A receiver of 1.0 takes a message of 2.0 for an empty one of its own: it stores nothing, and says that all is well.
        200..=299 if asked.message == Message::V2 && answer.written.is_none() => {
            Outcome::Misunderstood { otherwise: Otherwise::Held }
        }
        200..=299 => Outcome::Delivered,
        415 if asked.is_daring() => Outcome::Misunderstood { otherwise: Otherwise::Held },
        413 => Outcome::TooLarge,
        400 | 401 | 409 | 422 if is_tenant_missing(answer) => Outcome::Held,
        400 if asked.is_daring() && answer.written.is_none() => {
            let otherwise = if is_html(answer) { Otherwise::Held } else { Otherwise::Refused };
            Outcome::Misunderstood { otherwise }
        }
        // No receiver speaks HTML: a proxy, a gateway or a wrong port does, and has not looked at the samples.
        400 | 409 | 422 if is_html(answer) => Outcome::Held,
        400 | 409 | 422
            if asked.message == Message::V2
                && let Some(written) = answer.written.filter(|written| written.points() > 0) =>
        {
            Outcome::Partial { written }
        }
        400 | 409 | 422 => Outcome::Refused,
        429 if !asked.retry_on_http_429 => Outcome::GivenUp,
        408 | 425 | 429 => retry(answer, now),
        // Every other 3xx and 4xx is about who we are, or where we knock.
        300..=499 => Outcome::Held,
        // 5xx, the overload status 529 of Grafana Mimir, and numbers that mean nothing.
        _ => retry(answer, now),
    }
}

fn retry(answer: &Answer, now: Timestamp) -> Outcome {
    Outcome::Retry { after: answer.retry_after.as_deref().and_then(|value| retry_after::parse(value, now)) }
}

/// A web page in place of an answer: it has a body, which many servers call HTML also where there is none, and it knows
/// nothing of what was written.
fn is_page(answer: &Answer) -> bool {
    is_html(answer) && !answer.is_empty && answer.written.is_none()
}

fn is_html(answer: &Answer) -> bool {
    let begins = |text: &str, with: &str| text.get(..with.len()).is_some_and(|head| head.eq_ignore_ascii_case(with));
    let declared = answer.content_type.as_deref().map_or("", str::trim_start);
    let text = answer.text.trim_start();
    begins(declared, "text/html")
        || begins(declared, "application/xhtml")
        || begins(text, "<!doctype html")
        || begins(text, "<html")
}

/// Cortex and its descendants say "no org id" when the tenant's header is missing.
fn is_tenant_missing(answer: &Answer) -> bool {
    answer.text.contains("no org id")
}

/// The value of the label `code`: the status, or what failed. Bounded, whatever a receiver invents.
pub fn code(exchange: &Exchange) -> String {
    match exchange {
        Ok(answer) if (100..600).contains(&answer.status) => answer.status.to_string(),
        Ok(_) => "other".to_owned(),
        Err(failure) => failure.kind.word().to_owned(),
    }
}

/// What happened, in one line: the status and the receiver's words, or the failure.
pub fn describe(exchange: &Exchange) -> String {
    match exchange {
        Err(failure) => failure.message.clone(),
        Ok(Answer { status, location: Some(location), .. }) if (300..400).contains(status) => {
            format!("status {status}, redirected to {}", mask(location))
        }
        Ok(answer) if answer.text.is_empty() => format!("status {}", answer.status),
        Ok(answer) => format!("status {}: {}", answer.status, answer.text),
    }
}

/// A redirect's target without what may be secret: login pages are given tokens in the query.
fn mask(location: &str) -> String {
    match reqwest::Url::parse(location) {
        Ok(url) => crate::config::Url::new(url).masked(),
        Err(_) => location.split(['?', '#']).next().unwrap_or("").to_owned(),
    }
}

/// What a person can do about it; empty where there is nothing to do but wait.
pub fn advice(exchange: &Exchange, host: &str) -> &'static str {
    let answer = match exchange {
        Ok(answer) => answer,
        Err(failure) => return tls_advice(&failure.message).unwrap_or(failure_advice(failure.kind)),
    };
    let is_grafana_cloud = host.ends_with(".grafana.net");
    match answer.status {
        200..=299 if is_page(answer) => "a web page answered: a captive portal, a login page or a wrong url",
        // Only a message that was not understood gets here.
        200..=299 => {
            "the receiver says nothing of what it wrote: it does not take remote-write 2.0; set protocol to auto"
        }
        300..=399 => "set the url to the address it redirects to; if that is a login page, the url is wrong",
        400 if answer.text.contains("HTTPS port") => "the port speaks https: begin the url with https://",
        // The words of nginx, which answers 400 for what it counts as 495 and 496.
        400 if answer.text.contains("SSL certificate") => {
            "the server wants a client certificate of an authority that it trusts: cert_file and key_file of tls_config"
        }
        400 | 401 if is_tenant_missing(answer) => "name the tenant: headers: {X-Scope-OrgID: ...}",
        400 | 409 | 422 if is_html(answer) => "a web page answered: a proxy or a wrong url stands before the receiver",
        400 | 409 | 422 => refusal_advice(&answer.text),
        401 if is_grafana_cloud => {
            "the username must be the numeric instance id, the password an access policy token with metrics:write"
        }
        401 => "check the username and password, or the token",
        403 if is_grafana_cloud => "the access policy token lacks the scope metrics:write",
        403 => "the credentials are known but may not write here, or a firewall stands before the receiver",
        404 => {
            "check the path: Prometheus and VictoriaMetrics /api/v1/write (Prometheus needs \
             --web.enable-remote-write-receiver), Mimir /api/v1/push, Grafana Cloud /api/prom/push"
        }
        405 => "the url is not a remote-write endpoint",
        407 => "a proxy wants credentials of its own",
        // Where a request can be made smaller, that is done and this is not said.
        413 => "this request cannot be made smaller: raise the limit of the receiver, or of a proxy before it",
        415 => {
            "the receiver takes no version of remote-write that it was sent: check the path, and that protocol is auto"
        }
        408 | 425 | 429 => "the receiver asks for less; nothing to do unless it goes on",
        _ if (300..500).contains(&answer.status) => "check the url and the credentials",
        _ => "the receiver is in trouble; nothing to do here",
    }
}

/// By rustls' words (`rustls::AlertDescription`, `rustls::CertificateError`, `rustls::PeerIncompatible`).
fn tls_advice(message: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["alert: ProtocolVersion", "peer is incompatible"]) {
        Some("the server speaks no version of TLS that is allowed here: see min_version and max_version of tls_config")
    } else if says(&["UnknownIssuer"]) {
        Some("the server's certificate is of no authority that is trusted here: set ca_file of tls_config")
    } else if says(&["NotValidForName", "not valid for name"]) {
        Some("the server's certificate is for another name: use that in the url, or set server_name of tls_config")
    } else if says(&["Expired", "NotValidYet", "certificate expired", "not valid yet"]) {
        Some("the server's certificate is out of date, or this host's clock is wrong")
    } else if says(&["CertificateRequired", "alert: UnknownCA", "alert: BadCertificate"]) {
        Some(
            "the server wants a client certificate of an authority that it trusts: cert_file and key_file of tls_config",
        )
    } else {
        None
    }
}

fn failure_advice(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Unprepared => "put the file right; it is read again for the next attempt",
        FailureKind::Dns => "check the host name in the url and this host's resolver",
        FailureKind::Connect => "check the url, the network, and for https the certificate and this host's clock",
        FailureKind::Timeout => "the network or the receiver is slow, or a firewall swallows the packets",
        FailureKind::Broken => "the connection broke, or something that is no http server answers there",
        FailureKind::NoToken { .. } => "the server of oauth2's token_url is in trouble or out of reach",
        FailureKind::TokenRefused => "check client_id, client_secret, scopes and token_url of oauth2",
    }
}

/// The words of Grafana Mimir's error catalogue and of Prometheus' storage, matched loosely.
fn refusal_advice(text: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["too-old", "too old", "out of bounds"]) {
        "the backlog is older than the receiver takes: raise its out_of_order_time_window, or set max_sample_age here"
    } else if says(&["too-far-in-future", "too far in the future", "too far in future"]) {
        "this host's clock is fast: check its time synchronisation"
    } else if says(&["out-of-order", "out of order"]) {
        "another sender writes the same series, or samples came twice: raise the receiver's out_of_order_time_window"
    } else if says(&["duplicate-timestamp", "duplicate sample", "duplicate timestamp"]) {
        "the receiver already has other values for these instants: does another host use the same instance label?"
    } else if says(&["max-series", "limit"]) {
        "a limit of the receiver is reached: raise it, or send fewer series"
    } else {
        "the receiver's words say which sample it does not take"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000);

    fn answer(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    fn retry(after: Option<u64>) -> Outcome {
        Outcome::Retry { after: after.map(Duration::from_secs) }
    }

    #[test]
    fn every_status_has_the_outcome_of_the_table() {
        let rows: &[(&[u16], Outcome)] = &[
            (&[200, 202, 204, 299], Outcome::Delivered),
            (&[400, 409, 422], Outcome::Refused),
            (&[413], Outcome::TooLarge),
            (&[401, 403, 404, 405, 407], Outcome::Held),
            (&[300, 301, 302, 303, 304, 307, 308, 399], Outcome::Held),
            (&[402, 406, 410, 411, 415, 418, 421, 426, 428, 431, 451, 499], Outcome::Held),
            (&[408, 425, 429], retry(None)),
            (&[500, 501, 502, 503, 504, 507, 529, 599], retry(None)),
            (&[100, 103, 600, 999], retry(None)),
        ];
        for (statuses, outcome) in rows {
            for status in *statuses {
                assert_eq!(classify(&Ok(answer(*status)), Asked::PLAIN, NOW), *outcome, "status {status}");
            }
        }
    }

    #[test]
    fn a_web_page_is_not_a_receiver() {
        for (content_type, text, outcome) in [
            (Some("text/html; charset=utf-8"), "Log in", Outcome::Held),
            (Some("TEXT/HTML"), "x", Outcome::Held),
            (Some("text/plain"), "  <!DOCTYPE html><title>Log in", Outcome::Held),
            (None, "<html>", Outcome::Held),
            (None, "<ht", Outcome::Delivered),
            (Some("text/plain"), "ok", Outcome::Delivered),
            (Some("application/json"), "é<html>", Outcome::Delivered),
        ] {
            let page = Answer { content_type: content_type.map(str::to_owned), text: text.to_owned(), ..answer(200) };
            assert_eq!(classify(&Ok(page), Asked::PLAIN, NOW), outcome, "{content_type:?} {text:?}");
        }
        let declared = Answer { content_type: Some("text/html".to_owned()), ..answer(200) };
        let stalled = Ok(declared.clone());
        assert_eq!(classify(&stalled, Asked::PLAIN, NOW), Outcome::Held, "a body may be to come");
        let none = Answer { is_empty: true, ..declared };
        assert_eq!(classify(&Ok(none.clone()), Asked::PLAIN, NOW), Outcome::Delivered, "no page without a body");
        let v2 = Asked { message: Message::V2, ..Asked::PLAIN };
        let knowing = Answer { text: "<html>".into(), is_empty: false, written: Some(Tally::default()), ..none };
        assert_eq!(classify(&Ok(knowing), v2, NOW), Outcome::Delivered, "no page knows what was written");
        let page = |status| Ok(Answer { text: "<html>".into(), ..answer(status) });
        assert_eq!(
            classify(&page(400), Asked::PLAIN, NOW),
            Outcome::Held,
            "a proxy's 400 says nothing about the samples"
        );
        assert_eq!(classify(&page(413), Asked::PLAIN, NOW), Outcome::TooLarge, "a proxy's size limit is a size limit");
        assert_eq!(classify(&page(502), Asked::PLAIN, NOW), retry(None), "a proxy's 502 is like any other");
    }

    #[test]
    fn a_missing_tenant_is_no_fault_of_the_samples() {
        assert_eq!(classify(&Ok(Answer { text: "no org id".into(), ..answer(400) }), Asked::PLAIN, NOW), Outcome::Held);
    }

    #[test]
    fn a_receiver_may_say_when_to_come_back() {
        for status in [408, 429, 503, 529] {
            let asked = |value: &str| Ok(Answer { retry_after: Some(value.to_owned()), ..answer(status) });
            assert_eq!(classify(&asked("7"), Asked::PLAIN, NOW), retry(Some(7)), "status {status}");
            assert_eq!(classify(&asked("86400"), Asked::PLAIN, NOW), retry(Some(300)), "status {status}");
            assert_eq!(classify(&asked("nonsense"), Asked::PLAIN, NOW), retry(None), "status {status}");
        }
    }

    #[test]
    fn no_answer_is_a_reason_to_try_again_and_no_credentials_one_to_hold() {
        let failure = |kind| Err(Failure { kind, message: String::new() });
        for kind in [FailureKind::Dns, FailureKind::Connect, FailureKind::Timeout, FailureKind::Broken] {
            assert_eq!(classify(&failure(kind), Asked::PLAIN, NOW), retry(None), "{kind:?}");
        }
        for kind in [FailureKind::Unprepared, FailureKind::TokenRefused] {
            assert_eq!(classify(&failure(kind), Asked::PLAIN, NOW), Outcome::Held, "{kind:?}");
        }
        let busy = FailureKind::NoToken { after: Some(Duration::from_secs(3)) };
        assert_eq!(classify(&failure(busy), Asked::PLAIN, NOW), retry(Some(3)));
    }

    #[test]
    fn a_receiver_that_may_not_understand_is_told_from_one_that_refuses() {
        let held = Outcome::Misunderstood { otherwise: Otherwise::Held };
        let refused = Outcome::Misunderstood { otherwise: Otherwise::Refused };
        let v2 = Asked { message: Message::V2, ..Asked::PLAIN };
        let zstd = Asked { compression: Compression::Zstd, ..Asked::PLAIN };
        let tally = |samples| Tally { samples, ..Tally::default() };
        let written = |samples| Some(tally(samples));
        for (asked, status, said, outcome) in [
            (v2, 204, written(0), Outcome::Delivered),
            (v2, 204, None, held),
            (v2, 415, None, held),
            (v2, 415, written(0), held),
            (v2, 400, None, refused),
            (v2, 400, written(0), Outcome::Refused),
            (v2, 400, written(3), Outcome::Partial { written: tally(3) }),
            (v2, 422, written(3), Outcome::Partial { written: tally(3) }),
            (v2, 409, None, Outcome::Refused),
            (v2, 408, None, retry(None)),
            (v2, 429, None, retry(None)),
            (v2, 503, None, retry(None)),
            (v2, 413, None, Outcome::TooLarge),
            (zstd, 204, None, Outcome::Delivered),
            (zstd, 415, None, held),
            (zstd, 400, None, refused),
            (Asked::PLAIN, 204, None, Outcome::Delivered),
            (Asked::PLAIN, 415, None, Outcome::Held),
            (Asked::PLAIN, 400, written(3), Outcome::Refused),
        ] {
            let answer = Answer { written: said, ..answer(status) };
            assert_eq!(classify(&Ok(answer), asked, NOW), outcome, "{asked:?} {status} {said:?}");
        }
        let page = Answer { text: "<html>".into(), ..answer(400) };
        assert_eq!(classify(&Ok(page), v2, NOW), held, "a proxy may object to the format as well");
        let tenant = Answer { text: "no org id".into(), ..answer(400) };
        assert_eq!(classify(&Ok(tenant), v2, NOW), Outcome::Held);
    }

    #[test]
    fn a_429_gives_samples_up_only_where_somebody_asked_for_that() {
        let asked = Asked { retry_on_http_429: false, ..Asked::PLAIN };
        assert_eq!(classify(&Ok(answer(429)), asked, NOW), Outcome::GivenUp);
        assert_eq!(classify(&Ok(answer(503)), asked, NOW), retry(None));
    }

    #[test]
    fn codes_are_a_bounded_set() {
        assert_eq!(code(&Ok(answer(204))), "204");
        assert_eq!(code(&Ok(answer(999))), "other");
        assert_eq!(code(&Err(Failure { kind: FailureKind::Dns, message: String::new() })), "dns");
    }

    #[test]
    fn everything_that_is_not_delivered_comes_with_advice() {
        for status in (100..=999).filter(|status| !(200..300).contains(status)) {
            assert!(!advice(&Ok(answer(status)), "example.org").is_empty(), "status {status}");
        }
        assert!(advice(&Ok(answer(401)), "prometheus-eu.grafana.net").contains("numeric instance id"));
        assert!(!advice(&Ok(answer(401)), "grafana.net.example.org").contains("numeric instance id"));
        assert!(advice(&Ok(Answer { text: "out of bounds".into(), ..answer(400) }), "x").contains("out_of_order"));
        for (words, expected) in [
            ("received fatal alert: ProtocolVersion", "min_version"),
            ("invalid peer certificate: UnknownIssuer", "ca_file"),
            ("invalid peer certificate: certificate not valid for name \"a\"", "server_name"),
            ("invalid peer certificate: Expired", "clock"),
            ("received fatal alert: CertificateRequired", "cert_file"),
            ("Connection refused", "the network"),
        ] {
            let failed = Err(Failure { kind: FailureKind::Connect, message: words.to_owned() });
            assert!(advice(&failed, "x").contains(expected), "{words}");
        }
    }

    #[test]
    fn a_description_is_the_status_and_the_receivers_words() {
        assert_eq!(describe(&Ok(answer(503))), "status 503");
        assert_eq!(describe(&Ok(Answer { text: "slow down".into(), ..answer(429) })), "status 429: slow down");
        for (location, shown) in
            [("/login?state=hunter2", "/login"), ("https://u:hunter2@h/login?state=hunter2#x", "https://h/login")]
        {
            let redirect = Answer { location: Some(location.into()), ..answer(302) };
            assert_eq!(describe(&Ok(redirect)), format!("status 302, redirected to {shown}"));
        }
    }
}
