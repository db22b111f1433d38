//! What outhaul says, on standard error: one line per event, as logfmt or JSON.
//!
//! Trouble that lasts is said once and then at most once a minute: a WARN or ERROR from the same place in the code about
//! the same endpoint, source or container is held back for [`REPEAT_EVERY`], and the next line says how many were held
//! back (`repeated=41`). INFO and below is never held back. Other crates are heard at WARN and above only.
//!
//! Nothing here hides a secret: an event that holds one is wrong where it is made.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{Log, LogFormat};

/// How often a lasting trouble is repeated.
pub const REPEAT_EVERY: Duration = Duration::from_secs(60);

/// The most troubles that are remembered. When it is reached the one said longest ago is forgotten, with the number of
/// its repeats: its next event is said at once, so nothing is hidden, there is only more to read.
pub const MAX_REMEMBERED: usize = 1_024;

/// The beginning of a text from outside, at most `chars_max` characters of it, in one line and without characters that
/// would play with a terminal.
pub fn one_line(text: &str, chars_max: usize) -> String {
    let text: String = text.trim().chars().take(chars_max).map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_owned()
}

/// Fields that tell one trouble from another at the same place in the code.
const SUBJECTS: [&str; 4] = ["endpoint", "source", "container", "reason"];

/// This crate, as tracing targets name it.
const OURS: &str = env!("CARGO_CRATE_NAME");

/// Starts logging to standard error for the rest of the process' life.
///
/// # Errors
/// When logging was started before.
pub fn init(log: &Log) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(subscriber(log, std::io::stderr))
}

/// What [`init`] starts, with lines going to `out`.
pub fn subscriber<W>(log: &Log, out: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Other crates never say more than we do.
    let others = LevelFilter::from_level(log.level).min(LevelFilter::WARN);
    let filter = Targets::new().with_default(others).with_target(OURS, log.level);
    let layer = match log.format {
        LogFormat::Logfmt => {
            let format = CollapseRepeats::new(tracing_logfmt::EventsFormatter::default(), finish_logfmt);
            let fields = tracing_logfmt::FieldsFormatter::default();
            // A failure to write is not reported: the library would do so with `eprintln!`, which panics when nobody reads.
            let layer = tracing_subscriber::fmt::layer().log_internal_errors(false);
            layer.event_format(format).fmt_fields(fields).with_writer(out).boxed()
        }
        LogFormat::Json => {
            let events = tracing_subscriber::fmt::format().json().flatten_event(true);
            let format = CollapseRepeats::new(events, finish_json);
            let fields = tracing_subscriber::fmt::format::JsonFields::new();
            let layer = tracing_subscriber::fmt::layer().log_internal_errors(false);
            layer.event_format(format).fmt_fields(fields).with_writer(out).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(filter))
}

/// Formats as `inner` does, except that repeats are held back.
struct CollapseRepeats<F> {
    inner: F,
    /// Finishes a line: puts the number of repeats into it, where there are any.
    finish: fn(&mut String, u64),
    repeats: Mutex<Repeats>,
}

impl<F> CollapseRepeats<F> {
    fn new(inner: F, finish: fn(&mut String, u64)) -> Self {
        Self { inner, finish, repeats: Mutex::default() }
    }
}

impl<S, N, F> FormatEvent<S, N> for CollapseRepeats<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let verdict = if *event.metadata().level() > Level::WARN {
            Verdict::Say { repeated: 0 }
        } else {
            let mut repeats = self.repeats.lock().unwrap_or_else(PoisonError::into_inner);
            repeats.admit(Trouble::of(event), Instant::now())
        };
        // An event that is formatted as nothing is written as nothing.
        let Verdict::Say { repeated } = verdict else { return Ok(()) };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        (self.finish)(&mut line, repeated);
        out.write_str(&line)
    }
}

fn finish_logfmt(line: &mut String, repeated: u64) {
    *line = without_escaped_apostrophes(line);
    if repeated == 0 {
        return;
    }
    line.truncate(line.trim_end().len());
    line.push_str(" repeated=");
    line.push_str(&repeated.to_string());
    line.push('\n');
}

/// The formatter escapes them, which within double quotes helps nobody.
fn without_escaped_apostrophes(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        if char == '\\' && chars.peek() == Some(&'\'') {
            continue;
        }
        out.push(char);
        if char == '\\' {
            // What it escapes; it may be a backslash itself.
            out.extend(chars.next());
        }
    }
    out
}

fn finish_json(line: &mut String, repeated: u64) {
    if repeated == 0 {
        return;
    }
    let object = line.trim_end().strip_suffix('}').unwrap_or_default().len();
    line.truncate(object);
    line.push_str(",\"repeated\":");
    line.push_str(&repeated.to_string());
    line.push_str("}\n");
}

/// What is wrong, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Trouble {
    callsite: tracing::callsite::Identifier,
    subject: String,
}

impl Trouble {
    fn of(event: &Event<'_>) -> Self {
        let mut subject = Subject(String::new());
        event.record(&mut subject);
        Self { callsite: event.metadata().callsite(), subject: subject.0 }
    }
}

/// Collects the fields that name a subject.
struct Subject(String);

impl Visit for Subject {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if SUBJECTS.contains(&field.name()) {
            // Writing to a string cannot fail.
            write!(self.0, "{}={value:?} ", field.name()).unwrap_or(());
        }
    }
}

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Say it, and how many like it were held back since one was said.
    Say { repeated: u64 },
    /// Say nothing now.
    HoldBack,
}

/// When each trouble was last said, and how often it was held back since.
#[derive(Debug, Default)]
struct Repeats(HashMap<Trouble, Said>);

#[derive(Debug)]
struct Said {
    at: Instant,
    held_back: u64,
}

impl Repeats {
    fn admit(&mut self, trouble: Trouble, now: Instant) -> Verdict {
        if let Some(said) = self.0.get_mut(&trouble) {
            if now.saturating_duration_since(said.at) < REPEAT_EVERY {
                said.held_back += 1;
                return Verdict::HoldBack;
            }
            said.at = now;
            return Verdict::Say { repeated: std::mem::take(&mut said.held_back) };
        }
        if self.0.len() >= MAX_REMEMBERED {
            self.forget_oldest();
        }
        self.0.insert(trouble, Said { at: now, held_back: 0 });
        Verdict::Say { repeated: 0 }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.0.iter().min_by_key(|(_, said)| said.at).map(|(trouble, _)| trouble.clone());
        if let Some(oldest) = oldest {
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn said(level: Level, format: LogFormat, events: impl FnOnce()) -> String {
        let lines = Lines::default();
        let out = lines.clone();
        let subscriber = subscriber(&Log { level, format }, move || out.clone());
        tracing::subscriber::with_default(subscriber, events);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    fn refused(endpoint: &str) {
        tracing::warn!(%endpoint, status = 503, "receiver refused samples");
    }

    #[test]
    fn a_line_is_logfmt() {
        let text = said(Level::INFO, LogFormat::Logfmt, || refused("a b"));
        assert!(text.starts_with("ts=") && text.ends_with('\n') && text.lines().count() == 1, "{text}");
        assert!(text.contains("level=warn target=outhaul::log::tests"), "{text}");
        assert!(text.contains(r#"endpoint="a b" status=503"#), "{text}");
        let text = said(Level::INFO, LogFormat::Logfmt, || refused(r#"this host's "\'""#));
        assert!(text.contains(r#"endpoint="this host's \"\\'\"" status=503"#), "{text}");
    }

    #[test]
    fn a_line_is_a_json_object() {
        let text = said(Level::INFO, LogFormat::Json, || refused("a"));
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["message"], "receiver refused samples");
        assert_eq!(object["status"], 503);
    }

    #[test]
    fn a_line_break_in_a_value_does_not_make_a_second_line() {
        for format in [LogFormat::Logfmt, LogFormat::Json] {
            let text = said(Level::INFO, format, || tracing::info!(answer = "a\nts=forged", "said"));
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn a_repeat_is_held_back_and_another_subject_is_not() {
        let text = said(Level::INFO, LogFormat::Logfmt, || ["a", "b", "a", "b", "a"].into_iter().for_each(refused));
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn information_is_never_held_back() {
        let text = said(Level::INFO, LogFormat::Logfmt, || (0..3).for_each(|_| tracing::info!("started")));
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn other_crates_are_heard_at_warn_and_only_as_far_as_we_are() {
        let others = || {
            tracing::info!(target: "hyper", "chatter");
            tracing::warn!(target: "hyper", "trouble");
            tracing::error!(target: "hyper", "ruin");
            tracing::debug!("ours");
        };
        assert_eq!(said(Level::DEBUG, LogFormat::Logfmt, others).lines().count(), 3);
        assert_eq!(said(Level::ERROR, LogFormat::Logfmt, others).lines().count(), 1);
    }

    fn trouble(subject: &str) -> Trouble {
        let callsite = tracing::callsite!(name: "trouble", kind: tracing::metadata::Kind::EVENT, fields: subject);
        Trouble { callsite: tracing::callsite::Callsite::metadata(callsite).callsite(), subject: subject.to_owned() }
    }

    #[test]
    fn after_a_minute_a_repeat_is_said_with_the_number_held_back() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        assert_eq!(repeats.admit(trouble("a"), start), Verdict::Say { repeated: 0 });
        for second in 1..60 {
            assert_eq!(repeats.admit(trouble("a"), start + Duration::from_secs(second)), Verdict::HoldBack);
        }
        assert_eq!(repeats.admit(trouble("a"), start + REPEAT_EVERY), Verdict::Say { repeated: 59 });
        assert_eq!(repeats.admit(trouble("a"), start + REPEAT_EVERY * 2), Verdict::Say { repeated: 0 });
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes_first() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        for n in 0..=MAX_REMEMBERED as u64 {
            repeats.admit(trouble(&n.to_string()), start + Duration::from_millis(n));
        }
        assert_eq!(repeats.0.len(), MAX_REMEMBERED);
        let later = start + Duration::from_secs(2);
        assert_eq!(repeats.admit(trouble("1"), later), Verdict::HoldBack);
        assert_eq!(repeats.admit(trouble("0"), later), Verdict::Say { repeated: 0 });
    }

    #[test]
    fn the_number_of_repeats_stands_in_the_line() {
        let mut line = "ts=1 a=b\n".to_owned();
        finish_logfmt(&mut line, 3);
        assert_eq!(line, "ts=1 a=b repeated=3\n");
        let mut line = "{\"a\":{\"b\":1}}\n".to_owned();
        finish_json(&mut line, 3);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["repeated"], 3);
        assert!(line.ends_with("}\n"));
    }
}
