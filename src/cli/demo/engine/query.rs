//! What a request asks for: the query parameters of the Docker API, filters above all. Pure.
//!
//! Nothing a client sends makes it fail harder than an error of one line.

use std::collections::BTreeMap;

use serde_json::Value;

use super::world::{Container, Event, Health, Nanos};

/// The parameters behind the question mark; of one that is there twice, the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads `a=b&c=d`; what is not percent-encoded properly is taken as it stands.
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A switch, by the engine's rule (moby `api/server/httputils/form.go`).
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| !matches!(value.trim().to_lowercase().as_str(), "0" | "no" | "false" | "none"))
    }

    /// An instant, given as `seconds[.nanoseconds]`.
    ///
    /// # Errors
    /// When it is something else, in the words of the real engine.
    pub(super) fn instant(&self, name: &str) -> Result<Option<Nanos>, String> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
        let refused = |part: &str| format!("strconv.ParseInt: parsing \"{part}\": invalid syntax");
        let seconds: Nanos = seconds.parse().map_err(|_| refused(seconds))?;
        if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refused(fraction));
        }
        let nanos: Nanos = format!("{fraction:0<9.9}").parse().map_err(|_| refused(fraction))?;
        Ok(Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanos)))
    }

    /// The filters.
    ///
    /// # Errors
    /// When they are not the JSON they should be.
    pub(super) fn filters(&self) -> Result<Filters, String> {
        self.get("filters").map_or_else(|| Ok(Filters::default()), Filters::parse)
    }
}

/// Undoes percent-encoding, and `+` for a space.
pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()).filter(|_| *first == b'%');
        let byte = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a request asks to see: name → accepted values, from the query parameter `filters`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads both spellings, `{"type":["container"]}` and the older `{"type":{"container":true}}`.
    ///
    /// # Errors
    /// When the text is neither; the message is the parser's.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let parsed: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let values = |(name, value): (String, Value)| {
            let values = match value {
                Value::Array(values) => values.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
                Value::Object(values) => {
                    values.into_iter().filter(|(_, on)| *on == Value::Bool(true)).map(|(value, _)| value).collect()
                }
                _ => return Err(format!("invalid filter '{name}'")),
            };
            Ok((name, values))
        };
        parsed.into_iter().map(values).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a filter is absent, or one of its values is accepted.
    fn any(&self, name: &str, accept: impl Fn(&str) -> bool) -> bool {
        self.0.get(name).is_none_or(|values| values.is_empty() || values.iter().any(|value| accept(value)))
    }

    /// Labels are the exception: every one must be there.
    fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let matches = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|known| known == value),
            None => labels.contains_key(wanted),
        };
        self.0.get("label").is_none_or(|wanted| wanted.iter().all(matches))
    }

    /// Whether an event is asked for (moby `daemon/events/filter.go`). An unknown filter is ignored.
    pub(super) fn take_event(&self, event: &Event) -> bool {
        let name = event.attributes.get("name").map_or("", String::as_str);
        let action = |wanted: &str| {
            // Without a colon these three stand for all of their kind.
            let kinds = ["health_status", "exec_create", "exec_start"];
            event.action == wanted || kinds.contains(&wanted) && event.action.starts_with(wanted)
        };
        self.any("type", |kind| kind == "container")
            && self.any("event", action)
            && self.any("container", |wanted| wanted == name || !wanted.is_empty() && event.id.starts_with(wanted))
            && self.any("image", |wanted| wanted == event.image || event.image.split(':').next() == Some(wanted))
            && self.any("scope", |scope| scope == "local")
            && self.labels(&event.attributes)
    }

    /// Whether a container is asked for. An unknown filter is ignored.
    pub(super) fn take_container(&self, container: &Container) -> bool {
        let health = container.health().map_or("none", Health::word);
        self.any("id", |wanted| container.id.starts_with(wanted))
            && self.any("name", |wanted| container.name.contains(wanted.trim_start_matches('/')))
            && self.any("status", |wanted| wanted == container.state.word())
            && self.any("health", |wanted| wanted == health)
            && self.any("ancestor", |wanted| {
                wanted == container.image || container.image.split(':').next() == Some(wanted)
            })
            && self.labels(&container.labels)
    }

    /// Whether containers are asked for by their state, which shows stopped ones too.
    pub(super) fn names_status(&self) -> bool {
        self.0.contains_key("status")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(action: &str) -> Event {
        let attributes = [("name", "printer"), ("image", "till/printer:1.9.0"), ("site", "roof")];
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Event { action: action.into(), id: "abc123".into(), image: "till/printer:1.9.0".into(), attributes, at: 0 }
    }

    #[test]
    fn both_spellings_of_filters_are_understood() {
        let old = Filters::parse(r#"{"type":{"container":true,"image":false}}"#).unwrap();
        assert_eq!(old, Filters::parse(r#"{"type":["container"]}"#).unwrap());
        assert!(Filters::parse("x").is_err());
        assert!(Filters::parse(r#"{"type":7}"#).is_err());
    }

    #[test]
    fn an_event_is_taken_when_every_filter_takes_it() {
        let takes = |filters: &str, action: &str| Filters::parse(filters).unwrap().take_event(&event(action));
        assert!(takes("{}", "die"));
        assert!(takes(r#"{"type":["network","container"],"event":["die"]}"#, "die"));
        assert!(!takes(r#"{"type":["network"]}"#, "die"));
        assert!(!takes(r#"{"event":["die"]}"#, "start"));
        assert!(takes(r#"{"event":["health_status"]}"#, "health_status: healthy"));
        assert!(!takes(r#"{"event":["health_status: unhealthy"]}"#, "health_status: healthy"));
        assert!(!takes(r#"{"event":["exec_die"]}"#, "exec_create: x"));
        assert!(takes(r#"{"container":["abc"],"label":["site","site=roof"],"image":["till/printer"]}"#, "die"));
        assert!(!takes(r#"{"label":["site","site=cellar"]}"#, "die"));
        assert!(!takes(r#"{"container":[""]}"#, "die"));
    }

    #[test]
    fn instants_are_seconds_with_up_to_nine_digits_behind_the_point() {
        let instant = |text: &str| Query::parse(&format!("since={text}")).instant("since");
        assert_eq!(instant("12"), Ok(Some(12_000_000_000)));
        assert_eq!(instant("12.5"), Ok(Some(12_500_000_000)));
        assert_eq!(instant("12.000000001"), Ok(Some(12_000_000_001)));
        assert_eq!(instant("12.0000000019"), Ok(Some(12_000_000_001)));
        assert_eq!(instant(""), Ok(None));
        assert_eq!(instant("abc"), Err("strconv.ParseInt: parsing \"abc\": invalid syntax".into()));
        assert!(instant("1.x").is_err());
        assert_eq!(instant("9223372036854775807"), Ok(Some(Nanos::MAX)));
    }

    #[test]
    fn switches_follow_the_engines_rule() {
        let on = |text: &str| Query::parse(text).is_on("all");
        assert!(on("all=1") && on("all=true") && on("size=0&all=True"));
        assert!(!on("all=0") && !on("all=False") && !on("all=") && !on(""));
    }

    proptest! {
        #[test]
        fn nothing_in_a_query_can_make_it_panic(text in "\\PC*", json in "[\\[\\]{}:,\"a-z0-9]*") {
            let query = Query::parse(&text);
            drop((query.instant("since"), query.filters()));
            drop(Filters::parse(&json));
        }

        #[test]
        fn what_was_encoded_is_decoded(text in "\\PC*") {
            let encoded = text.bytes().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
            prop_assert_eq!(decode(&encoded), text);
        }
    }
}
