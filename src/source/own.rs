//! outhaul's own numbers as a source like any other, so that they travel the same pipe.
//!
//! Never fails and has no events. What it tells is read from the registry at the instant of the tick, after
//! the caller's `refresh` brought the gauges that mirror other rooms' state up to date.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::{Observation, Scope, Source, SourceError, SourceFuture};
use crate::clock::start_before;
use crate::model::{Interner, LabelsBuilder, Metadata, MetricKind, Sample, Target, Timestamp, Value};
use crate::telemetry::Registry;

/// The source named `outhaul`.
pub struct OwnSource {
    registry: Registry,
    target: Target,
    refresh: Box<dyn Fn() + Send>,
    /// When everything in the registry was zero.
    start: Option<Timestamp>,
    /// Families for which that is not so.
    older: &'static [&'static str],
    interner: Interner,
    metadata: HashMap<String, Arc<Metadata>>,
}

impl OwnSource {
    /// Tells the numbers of `registry` under the labels of `target`; `refresh` is called before each reading.
    pub fn new(registry: Registry, target: Target, refresh: Box<dyn Fn() + Send>) -> Self {
        Self {
            registry,
            target,
            refresh,
            start: None,
            older: &[],
            interner: Interner::default(),
            metadata: HashMap::new(),
        }
    }

    /// The same, of a registry in which everything was zero just before `now`, but the families `older`, which go on from
    /// before. A clock that cannot be right tells no start.
    #[must_use]
    pub fn started(self, now: Timestamp, older: &'static [&'static str]) -> Self {
        Self { start: start_before(now), older, ..self }
    }

    /// The numbers as they are now.
    pub fn samples(&mut self) -> Vec<Sample> {
        (self.refresh)();
        let mut samples = Vec::new();
        for family in self.registry.gather() {
            self.family(&family, &mut samples);
        }
        self.interner.forget_unused();
        samples
    }

    fn family(&mut self, family: &MetricFamily, samples: &mut Vec<Sample>) {
        let metadata = self.metadata_of(family);
        let name = family.name();
        let counts = matches!(metadata.kind, MetricKind::Counter | MetricKind::Histogram);
        let start = self.start.filter(|_| counts && !self.older.contains(&name));
        for metric in family.get_metric() {
            let labels = |name: &str| {
                metric
                    .get_label()
                    .iter()
                    .fold(self.target.series(name), |labels, pair| labels.with(pair.name(), pair.value()))
            };
            let mut push = |labels: LabelsBuilder, number: f64| {
                let series = self.interner.intern(labels.build_lossy(), &metadata);
                samples.push(Sample { series, value: Value::new(number), start });
            };
            match family.get_field_type() {
                MetricType::COUNTER => push(labels(name), metric.get_counter().get_value()),
                MetricType::HISTOGRAM => histogram(name, metric, labels, push),
                _ => push(labels(name), metric.get_gauge().get_value()),
            }
        }
    }

    fn metadata_of(&mut self, family: &MetricFamily) -> Arc<Metadata> {
        let made = || {
            Arc::new(Metadata {
                family: family.name().to_owned().into(),
                kind: match family.get_field_type() {
                    MetricType::COUNTER => MetricKind::Counter,
                    MetricType::HISTOGRAM => MetricKind::Histogram,
                    _ => MetricKind::Gauge,
                },
                help: family.help().to_owned().into(),
                unit: "".into(),
            })
        };
        Arc::clone(self.metadata.entry(family.name().to_owned()).or_insert_with(made))
    }
}

/// A classic histogram as its `_bucket`, `_sum` and `_count` series, as the text format and remote-write carry it.
fn histogram(
    name: &str,
    metric: &Metric,
    labels: impl Fn(&str) -> LabelsBuilder,
    mut push: impl FnMut(LabelsBuilder, f64),
) {
    let histogram = metric.get_histogram();
    let bucket = format!("{name}_bucket");
    for step in histogram.get_bucket() {
        push(labels(&bucket).with("le", step.upper_bound().to_string()), step.cumulative_count() as f64);
    }
    push(labels(&bucket).with("le", "+Inf"), histogram.get_sample_count() as f64);
    push(labels(&format!("{name}_sum")), histogram.get_sample_sum());
    push(labels(&format!("{name}_count")), histogram.get_sample_count() as f64);
}

impl Source for OwnSource {
    fn name(&self) -> &'static str {
        "outhaul"
    }

    fn next_event(&mut self) -> SourceFuture<'_, Observation> {
        Box::pin(std::future::pending())
    }

    fn sample(&mut self, at: Timestamp) -> SourceFuture<'_, Result<Vec<Observation>, SourceError>> {
        let samples = self.samples();
        Box::pin(std::future::ready(Ok(vec![Observation { at, scope: Scope::Everything, samples }])))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::SANE_SINCE;

    #[test]
    fn every_metric_kind_becomes_the_series_prometheus_would_scrape() {
        let registry = Registry::new();
        registry.counters("c_total", "a counter", &["reason"]).with_label_values(&["size"]).inc_by(4);
        let gauge = registry.gauge("g", "a gauge");
        registry.histogram("h_seconds", "a histogram", &[0.5, 1.0]).observe(0.7);
        let refresh = Box::new(move || gauge.set(2.5));
        let mut own = OwnSource::new(registry, Target::new("roof-3"), refresh);

        let told: Vec<String> = own.samples().iter().map(|sample| format!("{sample:?}")).collect();
        let host = r#"instance="roof-3",job="outhaul""#;
        let expected = [
            format!(r#"c_total{{{host},reason="size"}} 4.0"#),
            format!("g{{{host}}} 2.5"),
            format!(r#"h_seconds_bucket{{{host},le="0.5"}} 0.0"#),
            format!(r#"h_seconds_bucket{{{host},le="1"}} 1.0"#),
            format!(r#"h_seconds_bucket{{{host},le="+Inf"}} 1.0"#),
            format!("h_seconds_sum{{{host}}} 0.7"),
            format!("h_seconds_count{{{host}}} 1.0"),
        ];
        assert_eq!(told, expected);
        let mut own = own.started(SANE_SINCE, &["h_seconds"]);
        let starts: Vec<Option<Timestamp>> = own.samples().iter().map(|sample| sample.start).collect();
        assert_eq!(starts, [Some(SANE_SINCE.minus(Duration::from_millis(1))), None, None, None, None, None, None]);
        assert_eq!(&own.samples()[2].series.metadata().family, "h_seconds");
        let mut wrong = own.started(Timestamp::from_millis(7), &[]);
        assert!(wrong.samples().iter().all(|sample| sample.start.is_none()), "a clock in 1970 tells no start");
    }
}
