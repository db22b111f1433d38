//! The recorded run of 100 containers (`data/`), replayed as often as one likes.
//!
//! A replay goes on where the one before ended: counters keep growing, clocks go on, gauges repeat, and what was restarted
//! is restarted again. Every number is exact, because growth is added to the decimal that was recorded, not to its double.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use outhaul::model::{Interner, Labels, Metadata, MetricKind, Sample, Series, Snapshot, Timestamp, Value};
use serde::Deserialize;

/// What a line of the fixture is; `data/record.py` writes them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Instants {
        /// The first in milliseconds since 1970, then what lies between one and the next.
        instants_ms: Vec<i64>,
    },
    Series {
        family: String,
        labels: HashMap<String, String>,
        values: String,
        starts: Vec<(usize, i64)>,
    },
    Family {
        family: String,
        kind: String,
        help: String,
    },
}

/// A run of samples of many series.
pub(crate) struct Recording {
    /// Milliseconds since 1970.
    instants: Vec<i64>,
    columns: Vec<Column>,
}

struct Column {
    series: Arc<Series>,
    numbers: Vec<Option<Number>>,
    /// From which instant on which start of the counter holds.
    starts: Vec<(usize, i64)>,
    /// Added with each replay, in the last decimal of the column.
    growth: i64,
    /// The most decimals of any number in the column.
    decimals: u32,
}

#[derive(Clone, Copy)]
enum Number {
    /// At the column's decimals.
    Decimal(i64),
    Other(Value),
}

impl Recording {
    /// The fixture, a zstd-compressed file of JSON lines.
    pub(crate) fn load(path: &Path) -> Self {
        let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let text =
            String::from_utf8(zstd::decode_all(file).expect("the fixture is zstd")).expect("the fixture is text");
        let mut families: HashMap<String, Arc<Metadata>> = HashMap::new();
        let (mut instants, mut columns, mut interner) = (Vec::new(), Vec::new(), Interner::default());
        for line in text.lines() {
            match serde_json::from_str(line).expect("the fixture is JSON lines") {
                Line::Instants { instants_ms } => {
                    instants = instants_ms
                        .iter()
                        .scan(0, |at, step| {
                            *at += step;
                            Some(*at)
                        })
                        .collect();
                }
                Line::Family { family, kind, help } => {
                    families.insert(family.clone(), Arc::new(metadata(family, &kind, help)));
                }
                Line::Series { family, labels, values, starts } => {
                    let labels =
                        labels.into_iter().fold(Labels::builder(), |labels, (name, value)| labels.with(name, value));
                    let series = interner.intern(labels.build().expect("valid labels"), &families[&family]);
                    columns.push(Column::new(series, &values, starts, &instants));
                }
            }
        }
        Self { instants, columns }
    }

    /// Instants in one replay.
    pub(crate) fn len(&self) -> usize {
        self.instants.len()
    }

    /// Series in all.
    pub(crate) fn series(&self) -> usize {
        self.columns.len()
    }

    /// How much later each replay is than the one before: as long as it took, and once the last interval.
    fn duration_ms(&self) -> i64 {
        let [first, .., before, last] = self.instants[..] else { panic!("the fixture has instants") };
        last - first + (last - before)
    }

    /// All snapshots, replay after replay, without end.
    pub(crate) fn replay(&self) -> impl Iterator<Item = Snapshot> + '_ {
        let mut seen = vec![false; self.columns.len()];
        (0_i64..).flat_map(move |round| (0..self.len()).map(move |instant| (round, instant))).map(
            move |(round, instant)| {
                let shift = round * self.duration_ms();
                let samples = self.columns.iter().zip(&mut seen).filter_map(|(column, seen)| {
                    let number = column.numbers[instant];
                    let was_seen = std::mem::replace(seen, number.is_some());
                    match number {
                        Some(number) => Some(column.sample(number, round, instant, shift)),
                        // What is gone is said to be gone, once, as the sampler says it.
                        None => was_seen.then(|| Sample::new(Arc::clone(&column.series), Value::STALE)),
                    }
                });
                Snapshot::new(Timestamp::from_millis(self.instants[instant] + shift), samples.collect())
            },
        )
    }
}

impl Column {
    fn new(series: Arc<Series>, values: &str, starts: Vec<(usize, i64)>, instants: &[i64]) -> Self {
        let mut texts: Vec<Option<&str>> = Vec::with_capacity(instants.len());
        for word in values.split(' ') {
            texts.push(match word {
                "-" => None,
                "=" => texts.last().copied().flatten(),
                number => Some(number),
            });
        }
        assert_eq!(texts.len(), instants.len(), "a column has a number for each instant");
        let decimals = texts.iter().flatten().map(|text| decimals_of(text)).max().unwrap_or(0);
        let numbers: Vec<Option<Number>> =
            texts.iter().map(|text| text.map(|text| Number::new(text, decimals))).collect();
        let whole: Vec<i64> = numbers.iter().filter_map(|number| number.and_then(Number::decimal)).collect();
        let name = series.labels().metric_name();
        let is_clock = name.contains("_timestamp") || name.ends_with("_last_seen") || name.ends_with("_time_seconds");
        let changes = whole.windows(2).any(|pair| pair[0] != pair[1]);
        let counts = !matches!(series.metadata().kind, MetricKind::Gauge | MetricKind::Unknown) && starts.len() < 2;
        let growth = match (&whole[..], instants) {
            ([first, .., last], _) if counts && whole.is_sorted() => last - first,
            (_, [first, .., before, last]) if is_clock && changes => {
                (last - first + (last - before)) * 10_i64.pow(decimals) / 1000
            }
            _ => 0,
        };
        Self { series, numbers, starts, growth, decimals }
    }

    fn sample(&self, number: Number, round: i64, instant: usize, shift: i64) -> Sample {
        let value = match number {
            Number::Decimal(whole) => {
                Value::new((whole + round * self.growth) as f64 / 10_f64.powi(self.decimals.cast_signed()))
            }
            Number::Other(value) => value,
        };
        let sample = Sample::new(Arc::clone(&self.series), value);
        match self.starts.iter().rfind(|(from, _)| *from <= instant) {
            // What was restarted in the recording is restarted in each replay.
            Some((_, start)) if self.starts.len() > 1 => sample.started(Timestamp::from_millis(start + shift)),
            Some((_, start)) => sample.started(Timestamp::from_millis(*start)),
            None => sample,
        }
    }
}

impl Number {
    fn new(text: &str, decimals: u32) -> Self {
        let value: f64 = text.parse().expect("a number");
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{whole}{fraction:0<width$}", width = decimals as usize);
        let exact = digits.parse().ok().filter(|whole: &i64| {
            whole.unsigned_abs() < 1 << 52
                && (*whole as f64 / 10_f64.powi(decimals.cast_signed())).to_bits() == value.to_bits()
        });
        exact.map_or(Self::Other(Value::new(value)), Self::Decimal)
    }

    fn decimal(self) -> Option<i64> {
        if let Self::Decimal(whole) = self { Some(whole) } else { None }
    }
}

/// Decimals of a text such as `0.25`; none where it is not of that form.
fn decimals_of(text: &str) -> u32 {
    let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
    let is_plain = fraction.len() <= 9 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if is_plain && fraction != "0" { u32::try_from(fraction.len()).unwrap_or(0) } else { 0 }
}

fn metadata(family: String, kind: &str, help: String) -> Metadata {
    let kind = [MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram, MetricKind::Summary]
        .into_iter()
        .find(|known| known.word() == kind)
        .unwrap_or_default();
    Metadata { family: family.into(), kind, help: help.into(), unit: "".into() }
}
