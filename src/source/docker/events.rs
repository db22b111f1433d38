//! An engine's events: from bytes to [`Event`]s. Pure; the connection is in [`super::reader`].
//!
//! Docker writes one JSON object after the other, with or without line ends, from API 1.52 on also as JSON text
//! sequences (RFC 7464). Podman says `remove` for `destroy`, puts the verdict of a healthcheck in a field of its own and
//! repeats it for every probe. An event that makes no sense is counted and passed over; broken JSON ends the stream.

use std::collections::BTreeMap;

use super::api::is_plain_id;
use super::lenient::Loose;
use super::state::Health;
use super::wire::{WantedLabels, WireEvent, bare_name, kept};
use crate::model::Timestamp;

/// The largest event that is accepted, in bytes; an event carries all labels of its container.
const MAX_EVENT_BYTES: usize = 256 * 1024;

/// The actions asked for; anything else stays on the engine's side, above all the three `exec_*` events of every probe.
pub(crate) const ACTIONS: [&str; 15] = [
    "create",
    "start",
    "restart",
    "die",
    "died",
    "oom",
    "kill",
    "stop",
    "pause",
    "unpause",
    "rename",
    "update",
    "destroy",
    "remove",
    "health_status",
];

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// When, in nanoseconds since the Unix epoch, by the engine's clock.
    pub(crate) at_nanos: i64,
    /// The container.
    pub(crate) id: String,
    /// What.
    pub(crate) action: Action,
    /// The container's name; after a rename the new one.
    pub(crate) name: Option<String>,
    /// The image as the container was created from it.
    pub(crate) image: Option<String>,
    /// Those of the container's labels that are wanted.
    pub(crate) labels: BTreeMap<String, String>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It was made.
    Create,
    /// A run began.
    Start,
    /// A run ended.
    Die(Death),
    /// The kernel killed something in it for memory.
    Oom,
    /// Somebody sent it a signal or asked it to stop: the engine will not restart it by policy.
    Kill,
    /// It was stopped on demand.
    Stop,
    /// Frozen.
    Pause,
    /// Thawed.
    Unpause,
    /// It has another name.
    Rename,
    /// Its settings changed.
    Update,
    /// It is gone.
    Destroy,
    /// Its healthcheck gave a verdict.
    Health(Health),
    /// Nothing that changes a number.
    Other,
}

impl Action {
    /// Docker's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start => "start",
            Self::Die(_) => "die",
            Self::Oom => "oom",
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Unpause => "unpause",
            Self::Rename => "rename",
            Self::Update => "update",
            Self::Destroy => "destroy",
            Self::Health(health) => health.word(),
            Self::Other => "other",
        }
    }
}

/// Who tells that a container died of a kill for memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OomNotice {
    /// An `oom` event before the `die`, or nobody.
    #[default]
    Elsewhere,
    /// The `die` itself: Podman's way, which has no event of its own.
    Itself,
    /// An `oom` event that came after the `die`.
    After,
}

/// What a `die` event tells of the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Death {
    /// The exit code.
    pub(crate) exit_code: Option<i64>,
    /// Who tells whether it was a kill for memory.
    pub(crate) oom: OomNotice,
    /// How long it ran, in whole seconds (Docker 24.0).
    pub(crate) ran_seconds: Option<i64>,
}

impl Event {
    /// When, as samples are stamped.
    pub(crate) fn at(&self) -> Timestamp {
        Timestamp::from_nanos(self.at_nanos)
    }

    /// A number that stays the same when the event is replayed, across restarts of this program: FNV-1a, 64 bit.
    pub(crate) fn fingerprint(&self) -> u64 {
        let parts = [self.id.as_bytes(), self.action.word().as_bytes(), &self.at_nanos.to_le_bytes()];
        parts
            .concat()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
    }

    fn from_wire(wire: WireEvent, wanted: &WantedLabels) -> Option<Self> {
        let at_nanos = wire.at_nanos()?;
        let actor = wire.actor?;
        let attributes = actor.attributes.unwrap_or_default();
        let attribute = |name: &str| attributes.get(name).map(String::as_str);
        Some(Self {
            at_nanos,
            id: kept(actor.id.as_deref()).filter(|id| is_plain_id(id))?,
            action: action(&wire.action?, wire.health_status.as_deref(), &attribute),
            name: attribute("name").and_then(bare_name).map(str::to_owned),
            image: kept(attribute("image")),
            labels: wanted.pick(&attributes),
        })
    }
}

fn action<'a>(word: &str, verdict: Option<&str>, attribute: &impl Fn(&str) -> Option<&'a str>) -> Action {
    let (word, tail) = word.split_once(':').map_or((word, None), |(word, tail)| (word, Some(tail.trim())));
    match word {
        "create" => Action::Create,
        "start" => Action::Start,
        "die" | "died" => Action::Die(Death {
            exit_code: attribute("exitCode").or(attribute("containerExitCode")).and_then(|code| code.parse().ok()),
            oom: if attribute("oomKilled") == Some("true") { OomNotice::Itself } else { OomNotice::Elsewhere },
            ran_seconds: attribute("execDuration").and_then(|seconds| seconds.parse().ok()),
        }),
        "oom" => Action::Oom,
        "kill" => Action::Kill,
        "stop" => Action::Stop,
        "pause" => Action::Pause,
        "unpause" => Action::Unpause,
        "rename" => Action::Rename,
        "update" => Action::Update,
        "destroy" | "remove" => Action::Destroy,
        "health_status" => tail.or(verdict).and_then(Health::parse).map_or(Action::Other, Action::Health),
        _ => Action::Other,
    }
}

/// Why a stream of events cannot be read on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    /// Not JSON.
    #[error("the event stream is not JSON: {0}")]
    Broken(String),
    /// Larger than [`MAX_EVENT_BYTES`].
    #[error("an event is larger than {MAX_EVENT_BYTES} bytes")]
    TooLarge,
}

/// Puts events together from whatever pieces arrive.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    partial: Vec<u8>,
}

/// What one piece completed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// In the order they were sent.
    pub(crate) events: Vec<Event>,
    /// Elements that are no container event.
    pub(crate) odd: u64,
    /// The time of the first element, of whatever kind, in nanoseconds since the Unix epoch.
    pub(crate) oldest_nanos: Option<i64>,
}

impl Decoder {
    /// Takes a piece.
    ///
    /// # Errors
    /// When what arrived cannot become an event any more.
    pub(crate) fn push(&mut self, piece: &[u8], wanted: &WantedLabels) -> Result<Decoded, StreamError> {
        // The record separator of JSON text sequences; it cannot occur inside JSON.
        self.partial.extend(piece.iter().copied().filter(|byte| *byte != 0x1e));
        let mut decoded = Decoded::default();
        let mut stream = serde_json::Deserializer::from_slice(&self.partial).into_iter::<Loose<WireEvent>>();
        let mut done = 0;
        while let Some(element) = stream.next() {
            match element {
                Ok(Loose(wire)) => {
                    decoded.oldest_nanos = decoded.oldest_nanos.or(wire.as_ref().and_then(WireEvent::at_nanos));
                    match wire.filter(is_container).and_then(|wire| Event::from_wire(wire, wanted)) {
                        Some(event) => decoded.events.push(event),
                        None => decoded.odd += 1,
                    }
                }
                Err(error) if error.is_eof() => break,
                Err(error) => return Err(StreamError::Broken(error.to_string())),
            }
            done = stream.byte_offset();
        }
        self.partial.drain(..done);
        if self.partial.len() > MAX_EVENT_BYTES { Err(StreamError::TooLarge) } else { Ok(decoded) }
    }
}

fn is_container(wire: &WireEvent) -> bool {
    wire.r#type.as_deref().is_none_or(|kind| kind == "container")
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every event of a recorded stream.
    pub(crate) fn recorded(stream: &[u8]) -> Vec<Event> {
        Decoder::default().push(stream, &WantedLabels::new([])).unwrap().events
    }

    const STREAM: &[u8] = include_bytes!("../../../tests/fixtures/docker/events.jsonl");

    #[test]
    fn a_recorded_stream_reads_the_same_in_pieces_of_any_size() {
        let whole = recorded(STREAM);
        assert_eq!(whole.len(), 49);
        for size in [1, 7, 300, 4096] {
            let mut decoder = Decoder::default();
            let pieces: Vec<Event> =
                STREAM.chunks(size).flat_map(|p| decoder.push(p, &WantedLabels::new([])).unwrap().events).collect();
            assert_eq!(pieces, whole, "pieces of {size}");
        }
    }

    #[test]
    fn podman_events_mean_the_same() {
        let events = recorded(include_bytes!("../../../tests/fixtures/docker/podman-events.jsonl"));
        let actions: Vec<Action> = events.iter().map(|event| event.action).collect();
        let death = Death { exit_code: Some(137), oom: OomNotice::Itself, ran_seconds: None };
        assert_eq!(
            actions,
            [Action::Create, Action::Start, Action::Health(Health::Healthy), Action::Die(death), Action::Destroy]
        );
        assert_eq!(events[0].name.as_deref(), Some("pod-web"));
    }

    #[test]
    fn json_text_sequences_and_objects_without_line_ends_are_read() {
        let one = r#"{"Type":"container","Action":"start","Actor":{"ID":"a"},"time":1,"timeNano":1000000001}"#;
        for stream in [format!("\u{1e}{one}\n\u{1e}{one}\n"), format!("{one}{one}"), format!("{one}\r\n{one}\r\n")] {
            assert_eq!(recorded(stream.as_bytes()).len(), 2, "{stream:?}");
        }
    }

    #[test]
    fn an_event_that_makes_no_sense_is_counted_and_passed_over() {
        let stream = br#"{"Type":"network","Action":"connect","Actor":{"ID":"n"},"timeNano":5}
            7 null {"Action":"start"} {"Action":"start","Actor":{"ID":""},"timeNano":5}
            {"Action":"start","Actor":{"ID":"a","Attributes":{"name":7}},"timeNano":5}"#;
        let decoded = Decoder::default().push(stream, &WantedLabels::new([])).unwrap();
        assert_eq!((decoded.events.len(), decoded.odd), (1, 5));
    }

    #[test]
    fn what_can_never_become_an_event_ends_the_stream() {
        let mut decoder = Decoder::default();
        assert!(matches!(decoder.push(b"<html>", &WantedLabels::new([])), Err(StreamError::Broken(_))));
        let endless = vec![b'['; MAX_EVENT_BYTES + 1];
        assert!(Decoder::default().push(&endless, &WantedLabels::new([])).is_err());
        let long = [b"\"", "a".repeat(MAX_EVENT_BYTES).as_bytes()].concat();
        assert_eq!(Decoder::default().push(&long, &WantedLabels::new([])), Err(StreamError::TooLarge));
    }

    #[test]
    fn a_label_cannot_pretend_to_be_an_exit_code_on_another_event() {
        let stream = br#"{"Action":"start","Actor":{"ID":"a","Attributes":{"exitCode":"9"}},"timeNano":5}"#;
        assert_eq!(recorded(stream)[0].action, Action::Start);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_odd(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)) {
            let mut decoder = Decoder::default();
            for piece in pieces {
                if decoder.push(&piece, &WantedLabels::new([])).is_err() {
                    break;
                }
            }
        }
    }
}
