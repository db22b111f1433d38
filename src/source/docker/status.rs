//! The grammar of the list's `Status` text (moby `daemon/container/state.go`, `String`), anchored at both ends.
//!
//! Below API 1.52 this text is the only place where a list tells health and the last exit code. It is matched whole:
//! "Restarting (1) 5 seconds ago" contains "starting" and is no health. Text that does not fit tells nothing.

use super::state::Health;

/// What a `Status` text tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StatusText {
    /// `Up D`, `Up D (healthy)`, `Up D (unhealthy)`, `Up D (health: starting)`.
    ///
    /// No verdict means no healthcheck on Docker; Podman never writes one.
    Up(Option<Health>),
    /// `Up D (Paused)`.
    Paused,
    /// `Exited (code) D ago`, `Restarting (code) D ago`.
    Ended(i64),
    /// Anything else: `Created`, `Dead`, `Removal In Progress`, nothing, another engine's words.
    Other,
}

impl StatusText {
    /// Reads a text.
    pub(crate) fn parse(text: &str) -> Self {
        if let Some(rest) = text.strip_prefix("Up ") {
            return parse_up(rest);
        }
        text.strip_prefix("Exited (")
            .or_else(|| text.strip_prefix("Restarting ("))
            .and_then(|rest| rest.split_once(')'))
            .filter(|(_, ago)| ago.is_empty() || (ago.starts_with(' ') && ago.ends_with(" ago")))
            .and_then(|(code, _)| code.parse().ok())
            .map_or(Self::Other, Self::Ended)
    }
}

fn parse_up(rest: &str) -> StatusText {
    let Some((_, word)) = rest.strip_suffix(')').and_then(|rest| rest.rsplit_once(" (")) else {
        return if rest.contains(['(', ')']) { StatusText::Other } else { StatusText::Up(None) };
    };
    match word {
        "Paused" => StatusText::Paused,
        "healthy" => StatusText::Up(Some(Health::Healthy)),
        "unhealthy" => StatusText::Up(Some(Health::Unhealthy)),
        "health: starting" => StatusText::Up(Some(Health::Starting)),
        _ => StatusText::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_text_of_the_engine_is_read() {
        for (text, meaning) in [
            ("Up 3 minutes", StatusText::Up(None)),
            ("Up Less than a second", StatusText::Up(None)),
            ("Up 2 seconds (healthy)", StatusText::Up(Some(Health::Healthy))),
            ("Up 2 seconds (unhealthy)", StatusText::Up(Some(Health::Unhealthy))),
            ("Up 2 seconds (health: starting)", StatusText::Up(Some(Health::Starting))),
            ("Up 5 seconds (Paused)", StatusText::Paused),
            ("Exited (137) 7 seconds ago", StatusText::Ended(137)),
            ("Restarting (3) Less than a second ago", StatusText::Ended(3)),
            ("Exited (-1) 2 weeks ago", StatusText::Ended(-1)),
            ("Created", StatusText::Other),
            ("Dead", StatusText::Other),
            ("Removal In Progress", StatusText::Other),
            ("", StatusText::Other),
        ] {
            assert_eq!(StatusText::parse(text), meaning, "{text}");
        }
    }

    #[test]
    fn a_word_in_the_wrong_place_is_no_health() {
        for text in [
            "Restarting (1) 5 seconds ago (healthy)",
            "unhealthy",
            "Up (healthy) 3 minutes",
            "Up 3 minutes (Healthy)",
            "Up 3 minutes (health: starting) ",
            "Exited (healthy) 1 second ago",
            "Exited (1) 1 second",
            "Exited (99999999999999999999) 1 second ago",
        ] {
            assert_eq!(StatusText::parse(text), StatusText::Other, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in ".*") {
            StatusText::parse(&text);
            StatusText::parse(&format!("Up {text})"));
        }
    }
}
