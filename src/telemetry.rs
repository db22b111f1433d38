//! outhaul's own numbers: one registry, handed in, never global.
//!
//! Each room registers the metrics it changes, beside the code that changes them, in a struct of its own; this file only
//! knows how to make them. A name or label set that the library refuses, or a name registered twice, is a bug of ours and
//! panics at start, before any sample is taken.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts};

/// Makes and remembers metrics. Clones share one registry.
#[derive(Clone, Default)]
pub struct Registry(prometheus::Registry);

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter without labels.
    ///
    /// # Panics
    /// When the name is taken or not a metric name.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help))
    }

    /// A counter of something that is no whole number, such as seconds.
    ///
    /// # Panics
    /// When the name is taken or not a metric name.
    pub fn sum(&self, name: &str, help: &str) -> Counter {
        self.register(Counter::new(name, help))
    }

    /// Counters of one name, told apart by `labels`.
    ///
    /// # Panics
    /// When the name is taken, or a name is not a valid one.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A gauge without labels.
    ///
    /// # Panics
    /// When the name is taken or not a metric name.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(name, help))
    }

    /// Gauges of one name, told apart by `labels`.
    ///
    /// # Panics
    /// When the name is taken, or a name is not a valid one.
    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.register(GaugeVec::new(Opts::new(name, help), labels))
    }

    /// A histogram without labels; `buckets` are upper bounds in the metric's unit.
    ///
    /// # Panics
    /// When the name is taken, or buckets do not rise.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
    }

    /// Histograms of one name, told apart by `labels`; `buckets` are upper bounds in the metric's unit.
    ///
    /// # Panics
    /// When the name is taken, a name is not a valid one, or buckets do not rise.
    pub fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
    }

    /// The state of every metric, sorted by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.0.gather()
    }

    /// The number of a counter or gauge, of all its label sets together.
    #[cfg(test)]
    pub(crate) fn value(&self, name: &str) -> f64 {
        let families = self.gather();
        let family = families.iter().find(|family| family.name() == name).expect(name);
        family.get_metric().iter().map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value()).sum()
    }

    fn register<M: Collector + Clone + 'static>(&self, made: prometheus::Result<M>) -> M {
        let metric = made.unwrap_or_else(|error| panic!("BUG: a metric of our own is invalid: {error}"));
        if let Err(error) = self.0.register(Box::new(metric.clone())) {
            panic!("BUG: a metric of our own cannot be registered: {error}");
        }
        metric
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_registered_is_gathered() {
        let registry = Registry::new();
        registry.counters("b_total", "b", &["reason"]).with_label_values(&["x"]).inc_by(3);
        registry.gauge("a", "a").set(1.5);
        let families = registry.gather();
        let names: Vec<&str> = families.iter().map(MetricFamily::name).collect();
        assert_eq!(names, ["a", "b_total"]);
    }

    #[test]
    #[should_panic(expected = "BUG")]
    fn a_name_is_registered_once() {
        let registry = Registry::new();
        registry.counter("a_total", "a");
        registry.counter("a_total", "a");
    }
}
