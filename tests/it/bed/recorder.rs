//! A remote-write receiver in this process that takes everything and forgets nothing: the witness of what outhaul took.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use outhaul::encode::{self, Compression, Message};

use super::http::HttpServer;
use super::{Samples, eventually};

pub(crate) struct Recorder {
    server: HttpServer,
    record: Arc<Mutex<Record>>,
    mood: Arc<Mutex<Mood>>,
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Takes it and says so.
    #[default]
    Well,
    /// Does not take it, and says so.
    Down,
    /// Takes it, and says that it did not.
    Forgetful,
}

#[derive(Default)]
struct Record {
    samples: Samples,
    /// How many of them were stale markers, by series.
    stale: BTreeMap<String, Vec<i64>>,
    contradictions: Vec<String>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let mood = Arc::new(Mutex::new(Mood::Well));
        let app = Router::new().fallback(take).with_state((Arc::clone(&record), Arc::clone(&mood)));
        Self { server: HttpServer::start(app), record, mood }
    }

    /// How requests are answered from now on.
    pub(crate) fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port()
    }

    pub(crate) fn write_url(&self) -> String {
        self.server.url("/api/v1/write")
    }

    /// Every sample but the stale markers, which Prometheus does not show either.
    pub(crate) fn samples(&self) -> Samples {
        self.record.lock().unwrap().samples.clone()
    }

    /// When the series whose name holds each of `parts` were marked stale.
    pub(crate) fn stale_marks(&self, parts: &[&str]) -> Vec<i64> {
        let record = self.record.lock().unwrap();
        record
            .stale
            .iter()
            .filter(|(name, _)| parts.iter().all(|part| name.contains(part)))
            .flat_map(|(_, marks)| marks.clone())
            .collect()
    }

    /// Where one series had two values at one instant.
    pub(crate) fn contradictions(&self) -> Vec<String> {
        self.record.lock().unwrap().contradictions.clone()
    }

    /// When outhaul ticked.
    pub(crate) fn ticks(&self) -> Vec<i64> {
        let record = self.record.lock().unwrap();
        let ticks = record.samples.iter().find(|(name, _)| name.contains("__name__=\"outhaul_up\""));
        ticks.map(|(_, samples)| samples.keys().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn wait_for_ticks(&self, count: usize) {
        eventually(&format!("{count} ticks"), || self.ticks().len() >= count);
    }
}

type Shared = (Arc<Mutex<Record>>, Arc<Mutex<Mood>>);

async fn take(State((record, mood)): State<Shared>, body: Bytes) -> StatusCode {
    let mood = *mood.lock().unwrap();
    if mood == Mood::Down {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let Ok(request) = encode::decode(&body, Message::V1, Compression::Snappy, 32 << 20) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut record = record.lock().unwrap();
    for series in request.series {
        let labels = series.labels.iter().map(|label| (label.name.to_string(), label.value.to_string())).collect();
        let name = super::prometheus::series_name(&labels);
        for (at, value) in series.samples {
            if value.is_stale() {
                record.stale.entry(name.clone()).or_default().push(at.millis());
                continue;
            }
            let text = super::prometheus::number(value.number());
            let before = record.samples.entry(name.clone()).or_default().insert(at.millis(), text.clone());
            if before.as_ref().is_some_and(|before| *before != text) {
                record.contradictions.push(format!("{name} at {}: {before:?} and {text}", at.millis()));
            }
        }
    }
    if mood == Mood::Forgetful { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
}
