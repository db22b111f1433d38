//! How far our clock is from a receiver's, by the `Date` of its answers (RFC 9110, section 6.6.1).
//!
//! A receiver refuses samples that are far in its future, and takes late ones only within its window; so a host whose clock is
//! wrong loses data without an error of its own. It is said once when it begins and once when it ends, and shown as a metric.

use std::time::{Duration, UNIX_EPOCH};

use prometheus::{Gauge, GaugeVec};

use crate::model::Timestamp;
use crate::telemetry::Registry;

/// From which difference on it is said. Prometheus and Mimir refuse samples that are more than ten minutes ahead
/// (`storage/remote/write_handler.go`, `maxAheadTime`; Mimir, `creation_grace_period`).
pub const TOLERANCE: Duration = Duration::from_secs(600);

/// A `Date` has no parts of a second.
const RESOLUTION_MILLIS: i64 = 1_000;

/// The skew against all receivers, as a metric.
#[derive(Clone)]
pub struct SkewMetric(GaugeVec);

impl SkewMetric {
    /// Registers `outhaul_clock_skew_seconds`.
    pub fn register(registry: &Registry) -> Self {
        let help =
            "How far this host's clock is ahead of the receiver's, by the Date of its last answer; negative is behind.";
        Self(registry.gauges("outhaul_clock_skew_seconds", help, &["endpoint"]))
    }

    /// The skew against the receiver of one endpoint; the metric appears with its first answer.
    pub fn of(&self, endpoint: &str) -> Skew {
        Skew { endpoint: endpoint.to_owned(), metric: self.clone(), gauge: None, told: Side::Right }
    }
}

/// The skew against one receiver.
pub struct Skew {
    endpoint: String,
    metric: SkewMetric,
    gauge: Option<Gauge>,
    /// What was said last.
    told: Side,
}

/// Where our clock stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Behind,
    /// Within [`TOLERANCE`].
    Right,
    Ahead,
}

/// What there is to say about a skew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Our clock is ahead, by this many milliseconds.
    Ahead(i64),
    /// Our clock is behind, by this many milliseconds.
    Behind(i64),
    /// The clocks agree again.
    Agrees,
}

impl Skew {
    /// Takes the `Date` of an answer to a request that went out at `sent` and whose answer's head was there at `received`, by
    /// our clock. Says what is new, in the log too; a value that is no date is passed over.
    pub fn observe(&mut self, date: &str, sent: Timestamp, received: Timestamp) -> Option<Said> {
        self.told(skew_millis(date, sent, received)?)
    }

    /// The same for a `Date` that has been read.
    pub fn observe_at(&mut self, date: Timestamp, sent: Timestamp, received: Timestamp) -> Option<Said> {
        self.told(proved(date.millis(), sent, received))
    }

    fn told(&mut self, skew: i64) -> Option<Said> {
        let gauge = self.gauge.get_or_insert_with(|| self.metric.0.with_label_values(&[&self.endpoint]));
        gauge.set(skew as f64 / 1_000.0);
        let is_wrong = skew.unsigned_abs() > u64::try_from(TOLERANCE.as_millis()).unwrap_or(u64::MAX);
        let side = match (is_wrong, skew) {
            (false, _) => Side::Right,
            (true, 0..) => Side::Ahead,
            (true, _) => Side::Behind,
        };
        if side == std::mem::replace(&mut self.told, side) {
            return None;
        }
        let said = match side {
            Side::Right => Said::Agrees,
            Side::Ahead => Said::Ahead(skew),
            Side::Behind => Said::Behind(-skew),
        };
        self.log(said);
        Some(said)
    }

    fn log(&self, said: Said) {
        let endpoint = self.endpoint.as_str();
        match said {
            Said::Ahead(millis) => tracing::error!(
                endpoint,
                seconds = millis / 1_000,
                "this host's clock is ahead of the receiver's; samples from the future are refused there: set the clock, and keep it by NTP"
            ),
            Said::Behind(millis) => tracing::error!(
                endpoint,
                seconds = millis / 1_000,
                "this host's clock is behind the receiver's; samples may be too old there: set the clock, and keep it by NTP"
            ),
            Said::Agrees => tracing::info!(endpoint, "this host's clock and the receiver's agree again"),
        }
    }
}

/// How far our clock is ahead, at least: the answer was made somewhen between `sent` and `received`, and within the second that
/// `date` names, so a slow line is not taken for a wrong clock. Negative is behind; `None` when `date` is no date.
pub fn skew_millis(date: &str, sent: Timestamp, received: Timestamp) -> Option<i64> {
    let since_epoch = httpdate::parse_http_date(date.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(proved(i64::try_from(since_epoch.as_millis()).ok()?, sent, received))
}

fn proved(from: i64, sent: Timestamp, received: Timestamp) -> i64 {
    let ahead = sent.millis().saturating_sub(from.saturating_add(RESOLUTION_MILLIS));
    let behind = from.saturating_sub(received.millis());
    if ahead > 0 { ahead } else { -behind.max(0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of RFC 9110, section 5.6.7.
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const MILLIS: i64 = 784_111_777_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(MILLIS + millis)
    }

    #[test]
    fn the_skew_is_what_the_answer_proves_and_no_more() {
        let table = [
            ((0, 0), 0),
            ((-5_000, 30_000), 0),
            ((900, 950), 0),
            ((61_000, 90_000), 60_000),
            ((-90_000, -60_000), -60_000),
            ((1_001, 1_002), 1),
        ];
        for ((sent, received), expected) in table {
            assert_eq!(skew_millis(DATE, at(sent), at(received)), Some(expected), "{sent} {received}");
        }
        assert_eq!(skew_millis("soon", at(0), at(0)), None);
        assert_eq!(skew_millis(" Sunday, 06-Nov-94 08:49:37 GMT ", at(0), at(0)), Some(0));
    }

    #[test]
    fn a_wrong_clock_is_said_once_and_so_is_its_end() {
        let registry = Registry::new();
        let metric = SkewMetric::register(&registry);
        assert!(registry.gather().is_empty(), "nothing is known before the first answer");
        let mut skew = metric.of("a");
        let mut told = |millis: i64| skew.observe(DATE, at(millis), at(millis));
        assert_eq!(told(0), None);
        assert_eq!(told(601_000), None, "ten minutes are not more than ten minutes");
        assert_eq!(told(601_001), Some(Said::Ahead(600_001)));
        assert_eq!(told(700_000), None);
        assert_eq!(told(0), Some(Said::Agrees));
        assert_eq!(told(-600_001), Some(Said::Behind(600_001)));
        let value = registry.gather()[0].get_metric()[0].get_gauge().get_value();
        assert!((value + 600.001).abs() < 1e-9, "{value}");
    }

    proptest! {
        #[test]
        fn no_header_and_no_clock_makes_it_panic(date in ".{0,40}", sent in any::<i64>(), received in any::<i64>()) {
            let (sent, received) = (Timestamp::from_millis(sent), Timestamp::from_millis(received));
            skew_millis(&date, sent, received);
            prop_assert!(skew_millis(DATE, sent, received).is_some());
        }
    }
}
