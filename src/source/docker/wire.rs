//! What engines answer, as far as it is needed: Docker API 1.40 to 1.56 and Podman's compatible API.
//!
//! Every field may be missing or of another kind (see [`super::lenient`]). `Config.Env` is not among them and never will
//! be: it holds secrets, and what is not read cannot leak.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::{MapAccess, value::MapAccessDeserializer};

use super::api::is_plain_id;
use super::lenient::{Lenient, Loose, lenient};
use crate::model::Timestamp;

/// The longest label value that is kept, in bytes; longer ones are cut. Receivers refuse much longer ones (Mimir: 2048).
pub(crate) const MAX_LABEL_BYTES: usize = 1024;

/// The container labels that Compose sets and `container_info` carries.
pub(crate) const COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// See [`COMPOSE_PROJECT`].
pub(crate) const COMPOSE_SERVICE: &str = "com.docker.compose.service";

macro_rules! lenient_object {
    ($($name:ty),*) => {$(
        impl Lenient for $name {
            fn from_object<'de, A: MapAccess<'de>>(object: A) -> Result<Option<Self>, A::Error> {
                Self::deserialize(MapAccessDeserializer::new(object)).map(Some)
            }
        }
    )*};
}

lenient_object!(ListEntry, HealthObject, Inspect, InspectState, InspectConfig, HealthcheckConfig, HostConfig);
lenient_object!(RestartPolicyObject, WireEvent, Actor, Info);

/// One element of `GET /containers/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ListEntry {
    #[serde(deserialize_with = "lenient")]
    pub(crate) id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) names: Option<Vec<String>>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) image: Option<String>,
    #[serde(rename = "ImageID", deserialize_with = "lenient")]
    pub(crate) image_id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) state: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) status: Option<String>,
    /// Since API 1.52 (moby `daemon/container/view.go`).
    #[serde(deserialize_with = "lenient")]
    pub(crate) health: Option<HealthObject>,
}

impl ListEntry {
    fn has_id(&self) -> bool {
        self.id.as_deref().is_some_and(is_plain_id)
    }
}

/// `Health` of a list element (1.52) and of an inspected state.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HealthObject {
    #[serde(deserialize_with = "lenient")]
    pub(crate) status: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) failing_streak: Option<i64>,
}

/// `GET /containers/{id}/json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Inspect {
    #[serde(deserialize_with = "lenient")]
    pub(crate) id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) name: Option<String>,
    /// The image's id.
    #[serde(deserialize_with = "lenient")]
    pub(crate) image: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) restart_count: Option<i64>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) state: Option<InspectState>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) config: Option<InspectConfig>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) host_config: Option<HostConfig>,
}

/// `State` of an inspected container.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct InspectState {
    #[serde(deserialize_with = "lenient")]
    pub(crate) status: Option<String>,
    #[serde(rename = "OOMKilled", deserialize_with = "lenient")]
    pub(crate) oom_killed: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) exit_code: Option<i64>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) started_at: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) finished_at: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) health: Option<HealthObject>,
}

/// `Config` of an inspected container, without `Env`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct InspectConfig {
    #[serde(deserialize_with = "lenient")]
    pub(crate) image: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) labels: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) healthcheck: Option<HealthcheckConfig>,
}

/// `Config.Healthcheck`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HealthcheckConfig {
    #[serde(deserialize_with = "lenient")]
    pub(crate) test: Option<Vec<String>>,
}

/// `HostConfig` of an inspected container.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct HostConfig {
    #[serde(deserialize_with = "lenient")]
    pub(crate) runtime: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) restart_policy: Option<RestartPolicyObject>,
}

/// `HostConfig.RestartPolicy`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct RestartPolicyObject {
    #[serde(deserialize_with = "lenient")]
    pub(crate) name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) maximum_retry_count: Option<i64>,
}

/// One element of `GET /events`. The legacy lower-case fields are gone with API 1.52 and are not read.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct WireEvent {
    #[serde(deserialize_with = "lenient")]
    pub(crate) r#type: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) action: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) actor: Option<Actor>,
    #[serde(rename = "time", deserialize_with = "lenient")]
    pub(crate) time: Option<i64>,
    #[serde(rename = "timeNano", deserialize_with = "lenient")]
    pub(crate) time_nano: Option<i64>,
    /// Podman's place for the verdict (`pkg/api/handlers/compat`).
    #[serde(deserialize_with = "lenient")]
    pub(crate) health_status: Option<String>,
}

impl WireEvent {
    /// When it happened, in nanoseconds since the Unix epoch.
    pub(crate) fn at_nanos(&self) -> Option<i64> {
        self.time_nano.or_else(|| self.time?.checked_mul(1_000_000_000)).filter(|nanos| *nanos > 0)
    }
}

/// `Actor` of an event.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Actor {
    #[serde(rename = "ID", deserialize_with = "lenient")]
    pub(crate) id: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(crate) attributes: Option<BTreeMap<String, String>>,
}

/// `GET /info`, for the host's name.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Info {
    #[serde(deserialize_with = "lenient")]
    pub(crate) name: Option<String>,
}

/// A list as far as it could be read.
#[derive(Debug)]
pub(crate) struct List {
    /// The elements that are containers.
    pub(crate) entries: Vec<ListEntry>,
    /// How many elements are not.
    pub(crate) odd: usize,
}

impl List {
    /// Reads the body of `GET /containers/json`.
    ///
    /// # Errors
    /// When it is no JSON array.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let elements: Vec<Loose<ListEntry>> = serde_json::from_slice(body)?;
        let count = elements.len();
        let entries: Vec<_> = elements.into_iter().filter_map(|element| element.0).filter(ListEntry::has_id).collect();
        Ok(Self { odd: count - entries.len(), entries })
    }
}

/// Reads a body that must be one object.
pub(crate) fn parse_object<T: Lenient>(body: &[u8]) -> Option<T> {
    serde_json::from_slice::<Loose<T>>(body).ok().and_then(|object| object.0)
}

/// A name as people know it: the engine writes a slash before it.
pub(crate) fn bare_name(name: &str) -> Option<&str> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    (!bare.is_empty()).then_some(cut(bare))
}

/// The container's own name among `Names`, where legacy links appear as `/other/alias`.
pub(crate) fn own_name(names: &[String]) -> Option<&str> {
    let own = names.iter().find(|name| !name.trim_start_matches('/').contains('/')).or(names.first());
    own.and_then(|name| bare_name(name))
}

/// `text`, at most [`MAX_LABEL_BYTES`] of it, cut between characters.
pub(crate) fn cut(text: &str) -> &str {
    if text.len() <= MAX_LABEL_BYTES {
        return text;
    }
    let end = (0..=MAX_LABEL_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}

/// `text`, cut and owned; `None` where it is empty.
pub(crate) fn kept(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(|text| cut(text).to_owned())
}

/// An instant as inspect writes it, RFC 3339; the zero time 0001-01-01 and other times before the epoch mean "never".
pub(crate) fn instant(text: &str) -> Option<Timestamp> {
    let at = text.parse::<jiff::Timestamp>().ok()?;
    (at > jiff::Timestamp::UNIX_EPOCH).then(|| Timestamp::from_millis(at.as_millisecond()))
}

/// Which container labels are kept; all others are dropped where they are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct WantedLabels(BTreeSet<String>);

impl WantedLabels {
    /// The labels in `names`, and Compose's two.
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let compose = [COMPOSE_PROJECT, COMPOSE_SERVICE];
        Self(names.into_iter().chain(compose).map(str::to_owned).collect())
    }

    /// Those of `labels` that are wanted, each value cut to size.
    pub(crate) fn pick(&self, labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        self.0.iter().filter_map(|name| labels.get(name).map(|value| (name.clone(), cut(value).to_owned()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_element_does_not_cost_the_list() {
        let list = List::parse(br#"[{"Id":"a","State":7,"Names":"x"},null,{"Names":["/b"]},{"Id":"c"}]"#).unwrap();
        let ids: Vec<_> = list.entries.iter().map(|entry| entry.id.as_deref().unwrap()).collect();
        assert_eq!((ids, list.odd), (vec!["a", "c"], 2));
        assert!(List::parse(b"{}").is_err());
        assert!(List::parse(b"<html>").is_err());
    }

    #[test]
    fn the_environment_of_a_container_is_never_read() {
        let body = include_bytes!("../../../tests/fixtures/docker/inspect-oom.json");
        assert!(body.windows(7).any(|window| window == b"hunter2"), "the fixture holds a secret");
        let inspect: Inspect = parse_object(body).unwrap();
        assert!(!format!("{inspect:?}").contains("hunter2"));
        assert_eq!(inspect.restart_count, Some(2));
    }

    #[test]
    fn the_own_name_is_the_one_without_a_second_slash() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(own_name(&names(&["/web/db", "/db"])), Some("db"));
        assert_eq!(own_name(&names(&["db"])), Some("db"));
        assert_eq!(own_name(&names(&["/"])), None);
        assert_eq!(own_name(&[]), None);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let long = format!("{}é", "a".repeat(MAX_LABEL_BYTES - 1));
        assert_eq!(cut(&long), "a".repeat(MAX_LABEL_BYTES - 1));
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn the_zero_time_is_never() {
        assert_eq!(instant("0001-01-01T00:00:00Z"), None);
        assert_eq!(instant(""), None);
        assert_eq!(instant("2026-11-21T02:43:24.455080294Z"), Some(Timestamp::from_millis(1_795_229_004_455)));
        assert_eq!(instant("2026-11-21T03:43:24.455080294+01:00"), instant("2026-11-21T02:43:24.455080294Z"));
    }
}
