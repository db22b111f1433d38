//! The engine's HTTP API: GET requests over bollard's transport, answers as bounded bytes.
//!
//! bollard knows the sockets and speaks the HTTP; its typed calls are not used, because its models are strict: one
//! container in a state it does not know fails the whole list, its event model drops Podman's `HealthStatus`, and its
//! line decoder stumbles over CRLF at a read boundary. Its one public way to the bytes of an answer is a call that
//! returns a body as it comes (`export_container`); each request replaces that call's path by its own with bollard's
//! request modifier. Paths carry no version: the engine answers at its newest, and the reading is tolerant.
//!
//! Only GET is ever sent. Every answer has a deadline and a size limit, except the event stream, which has neither by
//! nature and is bounded event by event. (The text of an error status is read by bollard before we see it; it has the
//! deadline, and only its beginning is kept.)

use std::error::Error as _;
use std::io::ErrorKind;
use std::sync::OnceLock;
use std::time::Duration;

use bollard::errors::Error as BollardError;
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};

use crate::log;
use crate::source::{FailureReason, SourceError};

/// The longest wait for the head of an answer, in seconds.
const HEAD_SECONDS: u64 = 30;
/// How much of an engine's error text is kept, in characters.
const MAX_ERROR_TEXT: usize = 200;
/// What outhaul calls itself to the engine.
const USER_AGENT: &str = concat!("outhaul/", env!("CARGO_PKG_VERSION"));

/// An engine that may or may not be there.
#[derive(Debug)]
pub(crate) struct Api {
    host: Host,
    client: OnceLock<Docker>,
}

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// The path of a socket.
    Unix(String),
    /// `host:port`, as configured; may hold credentials.
    Tcp(String),
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ApiError {
    /// Nobody was reached, or the line broke.
    Line(ErrorKind, String),
    /// No answer in time.
    Timeout(Duration),
    /// An error status, with what the engine said.
    Status(u16, String),
    /// More bytes than the limit.
    TooLarge(usize),
    /// Not what such a request is answered with.
    Nonsense(String),
}

impl ApiError {
    /// For counting.
    pub(crate) fn reason(&self) -> FailureReason {
        match self {
            Self::Line(..) => FailureReason::Unreachable,
            Self::Timeout(_) => FailureReason::Timeout,
            Self::Status(..) => FailureReason::Refused,
            Self::TooLarge(_) | Self::Nonsense(_) => FailureReason::Decode,
        }
    }

    fn from_bollard(error: &BollardError) -> Self {
        match error {
            BollardError::DockerResponseServerError { status_code, message } => {
                Self::Status(*status_code, one_line(message))
            }
            BollardError::RequestTimeoutError => Self::Timeout(Duration::from_secs(HEAD_SECONDS)),
            BollardError::SocketNotFoundError(_) => Self::Line(ErrorKind::NotFound, String::new()),
            other => Self::from_chain(other),
        }
    }

    /// The innermost cause says most: an I/O error, or that what answered is no HTTP.
    fn from_chain(error: &BollardError) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(io) = inner.downcast_ref::<std::io::Error>() {
                return Self::Line(io.kind(), one_line(&io.to_string()));
            }
            text = inner.to_string();
            cause = inner.source();
        }
        // hyper names what it could not parse: "invalid HTTP version parsed", "invalid HTTP status-code parsed".
        if text.starts_with("invalid ") {
            return Self::Nonsense(one_line(&text));
        }
        Self::Line(ErrorKind::Other, one_line(&text))
    }
}

impl Api {
    /// An engine at `host`: `unix:///path`, `tcp://host:port` or `http://host:port`. It need not be there yet.
    ///
    /// # Errors
    /// When `host` is none of these.
    pub(crate) fn new(host: &str) -> Result<Self, SourceError> {
        let host = if let Some(path) = host.strip_prefix("unix://") {
            Host::Unix(path.to_owned())
        } else if let Some(address) = host.strip_prefix("tcp://").or(host.strip_prefix("http://")) {
            Host::Tcp(address.trim_end_matches('/').to_owned())
        } else {
            let kind = host.split("://").next().unwrap_or("");
            return Err(SourceError {
                reason: FailureReason::Refused,
                message: format!("a docker host cannot begin with {kind:?}: use unix://, tcp:// or http://"),
            });
        };
        Ok(Self { host, client: OnceLock::new() })
    }

    /// Whether the line can die without either end noticing.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.host, Host::Tcp(_))
    }

    /// The body of the answer to `GET path`, as it comes.
    ///
    /// # Errors
    /// When there is no socket. Everything else is an item of the stream.
    pub(crate) fn stream(&self, path: &str) -> Result<BoxStream<'static, Result<Bytes, ApiError>>, ApiError> {
        let client = self.client()?;
        let path = path.to_owned();
        let carrier = client.with_request_modifier(move |mut request| {
            let uri = request.uri();
            let authority = uri.authority().map_or("", |authority| authority.as_str());
            // A path that is no path leaves a request for a container without a name, which no engine has.
            if let Ok(uri) = format!("{}://{authority}{path}", uri.scheme_str().unwrap_or("http")).parse() {
                *request.uri_mut() = uri;
            }
            if let Ok(agent) = USER_AGENT.parse() {
                request.headers_mut().insert("user-agent", agent);
            }
            request
        });
        let body = carrier.export_container("");
        Ok(body.map(|piece| piece.map_err(|error| ApiError::from_bollard(&error))).boxed())
    }

    /// The whole body of the answer to `GET path`.
    ///
    /// # Errors
    /// When there is none within `deadline`, or it is larger than `limit` bytes.
    pub(crate) async fn get(&self, path: &str, limit: usize, deadline: Duration) -> Result<Vec<u8>, ApiError> {
        let collect = async {
            let mut pieces = self.stream(path)?;
            let mut body = Vec::new();
            while let Some(piece) = pieces.next().await {
                let piece = piece?;
                if body.len() + piece.len() > limit {
                    return Err(ApiError::TooLarge(limit));
                }
                body.extend_from_slice(&piece);
            }
            Ok(body)
        };
        tokio::time::timeout(deadline, collect).await.unwrap_or(Err(ApiError::Timeout(deadline)))
    }

    fn client(&self) -> Result<Docker, ApiError> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        let made = match &self.host {
            Host::Unix(path) => Docker::connect_with_unix(path, HEAD_SECONDS, API_DEFAULT_VERSION),
            Host::Tcp(address) => Docker::connect_with_http(address, HEAD_SECONDS, API_DEFAULT_VERSION),
        };
        let made = made.map_err(|error| ApiError::from_bollard(&error))?;
        Ok(self.client.get_or_init(|| made).clone())
    }

    /// `error` for people: what happened to `request`, and what to do.
    pub(crate) fn explain(&self, request: &str, error: &ApiError) -> SourceError {
        let at = self.shown();
        let message = match error {
            ApiError::Line(kind, text) => self.explain_line(*kind, text),
            ApiError::Timeout(deadline) => {
                format!("{at} did not answer {request} within {deadline:?}: the engine hangs or is overloaded")
            }
            ApiError::Status(status @ (401 | 403), text) => {
                let section = if request.contains("/events") { "EVENTS" } else { "CONTAINERS" };
                format!(
                    "{at} refuses {request} (status {status}: {text}): allow it; docker-socket-proxy does with {section}=1"
                )
            }
            ApiError::Status(404, text) => {
                format!("{at} does not know {request} (status 404: {text}): is that a Docker engine?")
            }
            ApiError::Status(status, text) => format!("{at} answers {request} with status {status}: {text}"),
            ApiError::TooLarge(limit) => format!("{at} answers {request} with more than {limit} bytes"),
            ApiError::Nonsense(text) => {
                format!("what answers at {at} to {request} is no Docker engine ({text}): check the docker host")
            }
        };
        SourceError { reason: error.reason(), message }
    }

    fn explain_line(&self, kind: ErrorKind, text: &str) -> String {
        let at = self.shown();
        match (&self.host, kind) {
            (Host::Unix(path), ErrorKind::NotFound) => format!(
                "no engine at {at}: the socket does not exist; start the engine, set DOCKER_HOST, or mount the socket \
                 into outhaul's container with -v {path}:{path}"
            ),
            (Host::Unix(path), ErrorKind::PermissionDenied) => {
                format!("may not open {at}: {}", advise_on_owner(path))
            }
            (_, ErrorKind::ConnectionRefused) => format!("nobody listens at {at}: start the engine"),
            _ => format!("cannot reach the engine at {at}: {text}"),
        }
    }

    /// The host, without credentials.
    fn shown(&self) -> String {
        match &self.host {
            Host::Unix(path) => format!("unix://{path}"),
            Host::Tcp(address) => format!("tcp://{}", address.rsplit('@').next().unwrap_or(address)),
        }
    }
}

/// Who may open the socket at `path`, and how to become one of them.
fn advise_on_owner(path: &str) -> String {
    use std::os::unix::fs::MetadataExt;

    let Ok(metadata) = std::fs::metadata(path) else {
        return "its directory may not be entered either; run outhaul as a user who may".into();
    };
    let gid = metadata.gid();
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let group = group_name(&groups, gid).map_or_else(|| format!("{gid}"), |name| format!("{name} (gid {gid})"));
    format!(
        "it belongs to group {group}; add outhaul's user to that group, or run outhaul's container with --group-add {gid}"
    )
}

fn group_name(groups: &str, gid: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then_some(name)
    })
}

/// The beginning of an engine's words, fit for one line of a log.
pub(crate) fn one_line(text: &str) -> String {
    log::one_line(text, MAX_ERROR_TEXT)
}

/// `text` as the value of a query parameter: everything but letters, digits and `-._~` is escaped (RFC 3986, 2.3).
pub(crate) fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let digit = |half: u8| char::from(b"0123456789ABCDEF"[usize::from(half)]);
            escaped.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
        escaped
    })
}

/// Whether `id` can stand in a path as it is. Engines' ids are hexadecimal.
pub(crate) fn is_plain_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_another_kind_is_refused_by_name() {
        let error = Api::new("ssh://host").unwrap_err();
        assert!(error.message.contains("\"ssh\""), "{error}");
    }

    #[tokio::test]
    async fn a_missing_socket_says_what_to_do() {
        let api = Api::new("unix:///nonexistent/docker.sock").unwrap();
        let error = api.get("/containers/json", 10, Duration::from_secs(1)).await.unwrap_err();
        let told = api.explain("GET /containers/json", &error);
        assert_eq!(told.reason, FailureReason::Unreachable);
        assert!(told.message.contains("does not exist; start the engine"), "{told}");
    }

    #[test]
    fn a_refusal_names_what_a_proxy_must_allow() {
        let api = Api::new("tcp://user:hunter2@proxy:2375").unwrap();
        let error = ApiError::Status(403, "Forbidden".into());
        let list = api.explain("GET /containers/json", &error);
        assert!(list.message.contains("CONTAINERS=1"), "{list}");
        assert!(api.explain("GET /events", &error).message.contains("EVENTS=1"));
        assert!(!list.message.contains("hunter2"), "{list}");
    }

    #[test]
    fn the_group_of_a_socket_is_named() {
        let groups = "root:x:0:\nbroken\ndocker:x:998:me\n";
        assert_eq!(group_name(groups, 998), Some("docker"));
        assert_eq!(group_name(groups, 5), None);
    }

    #[test]
    fn text_from_outside_stays_on_its_line() {
        assert_eq!(one_line(" a\nb\u{7}c "), "a b c");
        assert_eq!(one_line(&"x".repeat(1000)).len(), MAX_ERROR_TEXT);
        assert_eq!(escape("{\"a\"}~"), "%7B%22a%22%7D~");
        assert!(!is_plain_id("../x") && !is_plain_id("a/b") && !is_plain_id("") && is_plain_id("0a.b-c_D"));
    }
}
