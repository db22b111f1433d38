//! One instant of some series.

use std::fmt;
use std::sync::Arc;

use super::{Exemplar, HistogramSample, Series, Timestamp};

/// A sample's value as the bits of an IEEE 754 double.
///
/// Bits rather than `f64`, because a stale marker is a signalling NaN: equality, hashing and transport must neither
/// quieten it nor treat it as unequal to itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Value(u64);

impl Value {
    /// Says "this series ended": bits 0x7ff0000000000002 (remote-write specification, "Stale Markers").
    pub const STALE: Self = Self(0x7ff0_0000_0000_0002);

    /// From a number.
    pub fn new(number: f64) -> Self {
        Self(number.to_bits())
    }

    /// From bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The number; [`Value::STALE`] reads as some NaN.
    pub fn number(self) -> f64 {
        f64::from_bits(self.0)
    }

    /// Whether this is the stale marker.
    pub fn is_stale(self) -> bool {
        self == Self::STALE
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_stale() { f.write_str("stale") } else { write!(f, "{:?}", self.number()) }
    }
}

/// One value of one series; the time is the [`Snapshot`]'s.
#[derive(Clone, PartialEq, Eq)]
pub struct Sample {
    /// Whose value.
    pub series: Arc<Series>,
    /// The value.
    pub value: Value,
    /// For a counter, when it began at zero, where that is known; only remote-write 2.0 carries it.
    pub start: Option<Timestamp>,
}

impl Sample {
    /// A value of a series that is no counter, or whose beginning nobody knows.
    pub fn new(series: Arc<Series>, value: Value) -> Self {
        Self { series, value, start: None }
    }

    /// The same, of a counter that began at zero at `start`.
    #[must_use]
    pub fn started(self, start: Timestamp) -> Self {
        Self { start: Some(start), ..self }
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.series.labels(), self.value)?;
        self.start.map_or(Ok(()), |start| write!(f, " since {start:?}"))
    }
}

/// What some series were at one instant. No series stands in it twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// When.
    pub at: Timestamp,
    /// What.
    pub samples: Vec<Sample>,
    /// What is a distribution rather than a number.
    pub histograms: Vec<HistogramSample>,
    /// Examples of what was counted, of series that stand in this snapshot.
    pub exemplars: Vec<Exemplar>,
}

impl Snapshot {
    /// `samples` at one instant; no series may stand in them twice.
    pub fn new(at: Timestamp, samples: Vec<Sample>) -> Self {
        Self { at, samples, histograms: Vec::new(), exemplars: Vec::new() }
    }

    /// The series of its samples, native histograms included.
    pub fn series(&self) -> impl Iterator<Item = &Arc<Series>> {
        let samples = self.samples.iter().map(|sample| &sample.series);
        samples.chain(self.histograms.iter().map(|sample| &sample.series))
    }

    /// How many samples it has, native histograms included. Exemplars are notes on samples, and not counted.
    pub fn sample_count(&self) -> usize {
        self.samples.len() + self.histograms.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stale_marker_is_equal_to_itself_and_to_no_other_nan() {
        assert_eq!(Value::from_bits(0x7ff0_0000_0000_0002), Value::STALE);
        assert_ne!(Value::new(f64::NAN), Value::STALE);
        assert!(Value::STALE.number().is_nan());
    }

    #[test]
    fn negative_zero_is_kept_apart_from_zero() {
        assert_ne!(Value::new(0.0), Value::new(-0.0));
    }
}
