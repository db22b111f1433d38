//! Native histograms: a distribution in one sample, with buckets that grow exponentially or stand where they were put.
//!
//! A [`NativeHistogram`] obeys the rules of Prometheus' `model/histogram` (`Validate`), because a receiver may refuse a
//! whole request for one that does not; what breaks them cannot be built. Numbers are kept as bits ([`Value`]), as
//! samples are: the stale marker of a histogram series is one in `sum`.

use std::sync::Arc;

use super::{Series, Timestamp, Value};

/// The schema of buckets whose bounds are listed one by one (Prometheus, `CustomBucketsSchema`).
pub const CUSTOM_BUCKETS_SCHEMA: i32 = -53;
/// The schemas of exponential buckets: 2^(2^-schema) is what a bucket's bound is multiplied by to give the next.
const EXPONENTIAL_SCHEMAS: std::ops::RangeInclusive<i32> = -4..=8;

/// A run of buckets that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BucketSpan {
    /// How many buckets are left out before it; for the first span of a side its index, which may be negative.
    pub offset: i32,
    /// How many buckets it has.
    pub length: u32,
}

/// Whether a histogram continues the one before it (remote-write 2.0, `Histogram.ResetHint`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ResetHint {
    /// Nobody looked.
    #[default]
    Unknown = 0,
    /// It began anew.
    Yes = 1,
    /// It continues.
    No = 2,
    /// It is no counter, so the question does not arise.
    Gauge = 3,
}

impl ResetHint {
    /// The hint with this discriminant; an unheard-of one is [`ResetHint::Unknown`].
    pub fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Yes,
            2 => Self::No,
            3 => Self::Gauge,
            _ => Self::Unknown,
        }
    }
}

/// How often what was seen, in the flavour the source counts in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BucketCounts {
    /// Whole observations.
    Integer {
        /// All of them.
        count: u64,
        /// Those too close to zero for a bucket.
        zero_count: u64,
        /// The first bucket's count, then each one's difference from the one before.
        positive_deltas: Vec<i64>,
        /// The same for negative observations.
        negative_deltas: Vec<i64>,
    },
    /// Rates or weights.
    Float {
        /// All of them.
        count: Value,
        /// Those too close to zero for a bucket.
        zero_count: Value,
        /// Each bucket's count.
        positive_counts: Vec<Value>,
        /// The same for negative observations.
        negative_counts: Vec<Value>,
    },
}

/// What a [`NativeHistogram`] is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HistogramParts {
    /// How buckets grow, or [`CUSTOM_BUCKETS_SCHEMA`].
    pub schema: i32,
    /// The sum of all observations; [`Value::STALE`] says that the series ended.
    pub sum: Value,
    /// How far from zero an observation may be and still count as zero.
    pub zero_threshold: Value,
    /// How often what was seen.
    pub counts: BucketCounts,
    /// Where the positive buckets are.
    pub positive_spans: Vec<BucketSpan>,
    /// Where the negative buckets are.
    pub negative_spans: Vec<BucketSpan>,
    /// The upper bounds of custom buckets, without the last one, which is infinite.
    pub custom_values: Vec<Value>,
    /// Whether it continues the one before it.
    pub reset_hint: ResetHint,
}

impl HistogramParts {
    /// A histogram of whole observations without buckets, to be filled.
    pub fn integer(schema: i32, count: u64, sum: f64) -> Self {
        Self::of(
            schema,
            sum,
            BucketCounts::Integer { count, zero_count: 0, positive_deltas: Vec::new(), negative_deltas: Vec::new() },
        )
    }

    /// A histogram of weights without buckets, to be filled.
    pub fn float(schema: i32, count: f64, sum: f64) -> Self {
        let (count, zero_count) = (Value::new(count), Value::new(0.0));
        Self::of(
            schema,
            sum,
            BucketCounts::Float { count, zero_count, positive_counts: Vec::new(), negative_counts: Vec::new() },
        )
    }

    fn of(schema: i32, sum: f64, counts: BucketCounts) -> Self {
        Self {
            schema,
            sum: Value::new(sum),
            zero_threshold: Value::new(0.0),
            counts,
            positive_spans: Vec::new(),
            negative_spans: Vec::new(),
            custom_values: Vec::new(),
            reset_hint: ResetHint::Unknown,
        }
    }
}

/// Why a histogram is not one. The rules are those of Prometheus' `model/histogram/histogram.go`, `Validate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistogramError {
    /// Neither exponential nor custom.
    #[error("schema {0} is neither -53 nor between -4 and 8")]
    Schema(i32),
    /// Spans that promise other buckets than there are.
    #[error("its spans hold {spans} buckets and it has {buckets}")]
    Buckets {
        /// What the spans add up to.
        spans: u64,
        /// What is there.
        buckets: usize,
    },
    /// A span that goes back.
    #[error("a span after the first begins {0} buckets after the one before")]
    SpanOffset(i32),
    /// Less than nothing in a bucket.
    #[error("a bucket or the zero bucket holds a negative count")]
    NegativeCount,
    /// Buckets that do not add up to the total.
    #[error("its buckets hold {buckets} observations and it counts {count}")]
    Count {
        /// In all buckets together.
        buckets: u64,
        /// What `count` says.
        count: u64,
    },
    /// A zero bucket of no width that makes sense.
    #[error("its zero threshold is negative or not a number")]
    ZeroThreshold,
    /// Bounds that do not ascend.
    #[error("its custom bounds do not ascend, or are not finite")]
    CustomBounds,
    /// Exponential buckets with listed bounds, or custom ones with what only exponential ones have.
    #[error("custom bounds go with schema -53, which has no zero bucket and no negative ones")]
    CustomMixed,
    /// A custom bucket past the last bound.
    #[error("a custom bucket stands outside its bounds")]
    CustomIndex,
}

/// A native histogram that obeys the rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NativeHistogram(HistogramParts);

impl NativeHistogram {
    /// Checks `parts`.
    ///
    /// # Errors
    /// When a receiver would refuse it.
    pub fn new(parts: HistogramParts) -> Result<Self, HistogramError> {
        check_schema(&parts)?;
        let (positive, negative) = match &parts.counts {
            BucketCounts::Integer { positive_deltas, negative_deltas, .. } => {
                (positive_deltas.len(), negative_deltas.len())
            }
            BucketCounts::Float { positive_counts, negative_counts, .. } => {
                (positive_counts.len(), negative_counts.len())
            }
        };
        check_spans(&parts.positive_spans, positive)?;
        check_spans(&parts.negative_spans, negative)?;
        check_counts(&parts)?;
        Ok(Self(parts))
    }

    /// What it is made of.
    pub fn parts(&self) -> &HistogramParts {
        &self.0
    }

    /// Gives up what it is made of.
    pub fn into_parts(self) -> HistogramParts {
        self.0
    }

    /// Whether it says that the series ended.
    pub fn is_stale(&self) -> bool {
        self.0.sum.is_stale()
    }

    /// Whether its buckets stand where they were put, which remote-write 1.0 cannot carry.
    pub fn has_custom_buckets(&self) -> bool {
        self.0.schema == CUSTOM_BUCKETS_SCHEMA
    }
}

fn check_schema(parts: &HistogramParts) -> Result<(), HistogramError> {
    let threshold = parts.zero_threshold.number();
    if threshold.is_nan() || threshold < 0.0 {
        return Err(HistogramError::ZeroThreshold);
    }
    if parts.schema == CUSTOM_BUCKETS_SCHEMA {
        return check_custom(parts);
    }
    if !EXPONENTIAL_SCHEMAS.contains(&parts.schema) {
        return Err(HistogramError::Schema(parts.schema));
    }
    if parts.custom_values.is_empty() { Ok(()) } else { Err(HistogramError::CustomMixed) }
}

fn check_custom(parts: &HistogramParts) -> Result<(), HistogramError> {
    let has_zeros = match &parts.counts {
        BucketCounts::Integer { zero_count, .. } => *zero_count != 0,
        BucketCounts::Float { zero_count, .. } => zero_count.number() != 0.0,
    };
    if has_zeros || parts.zero_threshold.number() != 0.0 || !parts.negative_spans.is_empty() {
        return Err(HistogramError::CustomMixed);
    }
    let bounds = || parts.custom_values.iter().map(|bound| bound.number());
    if !bounds().all(f64::is_finite) || bounds().zip(bounds().skip(1)).any(|(low, high)| low >= high) {
        return Err(HistogramError::CustomBounds);
    }
    // One bucket more than bounds: the last one reaches to infinity.
    let buckets = i64::try_from(parts.custom_values.len()).unwrap_or(i64::MAX).saturating_add(1);
    let end = parts.positive_spans.iter().try_fold(0_i64, |end, span| {
        if end == 0 && span.offset < 0 { None } else { Some(end + i64::from(span.offset) + i64::from(span.length)) }
    });
    if end.is_some_and(|end| end <= buckets) { Ok(()) } else { Err(HistogramError::CustomIndex) }
}

fn check_spans(spans: &[BucketSpan], buckets: usize) -> Result<(), HistogramError> {
    if let Some(span) = spans.iter().skip(1).find(|span| span.offset < 0) {
        return Err(HistogramError::SpanOffset(span.offset));
    }
    let held: u64 = spans.iter().map(|span| u64::from(span.length)).sum();
    if held == buckets as u64 { Ok(()) } else { Err(HistogramError::Buckets { spans: held, buckets }) }
}

fn check_counts(parts: &HistogramParts) -> Result<(), HistogramError> {
    match &parts.counts {
        BucketCounts::Integer { count, zero_count, positive_deltas, negative_deltas } => {
            let buckets = sum_of_deltas(positive_deltas)
                .zip(sum_of_deltas(negative_deltas))
                .and_then(|(positive, negative)| positive.checked_add(negative)?.checked_add(*zero_count))
                .ok_or(HistogramError::NegativeCount)?;
            // Observations that are not a number are counted and in no bucket; they show in the sum.
            let fits = if parts.sum.number().is_nan() { buckets <= *count } else { buckets == *count };
            if fits { Ok(()) } else { Err(HistogramError::Count { buckets, count: *count }) }
        }
        // Float counts are not added up: rounding alone would make them differ (Prometheus, `FloatHistogram.Validate`).
        BucketCounts::Float { count, zero_count, positive_counts, negative_counts } => {
            let all = [count, zero_count].into_iter().chain(positive_counts).chain(negative_counts);
            if all.into_iter().any(|count| count.number() < 0.0) { Err(HistogramError::NegativeCount) } else { Ok(()) }
        }
    }
}

/// How many observations the buckets hold; `None` where one would hold less than nothing, or all more than can be counted.
fn sum_of_deltas(deltas: &[i64]) -> Option<u64> {
    let mut sum = 0_u64;
    let mut bucket = 0_i64;
    for delta in deltas {
        bucket = bucket.checked_add(*delta)?;
        sum = sum.checked_add(u64::try_from(bucket).ok()?)?;
    }
    Some(sum)
}

/// One histogram of one series; the time is the snapshot's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSample {
    /// Whose distribution.
    pub series: Arc<Series>,
    /// The distribution.
    pub histogram: Arc<NativeHistogram>,
    /// When it began at zero, where that is known; only remote-write 2.0 carries it.
    pub start: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(offset: i32, length: u32) -> BucketSpan {
        BucketSpan { offset, length }
    }

    fn integer() -> HistogramParts {
        HistogramParts {
            counts: BucketCounts::Integer {
                count: 10,
                zero_count: 1,
                positive_deltas: vec![2, 1, -2],
                negative_deltas: vec![3],
            },
            positive_spans: vec![span(-2, 2), span(3, 1)],
            negative_spans: vec![span(0, 1)],
            zero_threshold: Value::new(0.001),
            ..HistogramParts::integer(3, 10, 18.4)
        }
    }

    fn custom() -> HistogramParts {
        HistogramParts {
            counts: BucketCounts::Integer {
                count: 3,
                zero_count: 0,
                positive_deltas: vec![2, -1],
                negative_deltas: Vec::new(),
            },
            positive_spans: vec![span(0, 1), span(1, 1)],
            custom_values: vec![Value::new(0.1), Value::new(1.0)],
            ..HistogramParts::integer(CUSTOM_BUCKETS_SCHEMA, 3, 2.5)
        }
    }

    #[track_caller]
    fn refused(mut parts: HistogramParts, change: impl FnOnce(&mut HistogramParts)) -> HistogramError {
        assert!(NativeHistogram::new(parts.clone()).is_ok());
        change(&mut parts);
        NativeHistogram::new(parts).unwrap_err()
    }

    #[test]
    fn a_histogram_that_prometheus_would_refuse_cannot_be_built() {
        assert_eq!(refused(integer(), |parts| parts.schema = 9), HistogramError::Schema(9));
        assert_eq!(refused(integer(), |parts| parts.schema = -5), HistogramError::Schema(-5));
        let too_many = refused(integer(), |parts| parts.positive_spans[1].length = u32::MAX);
        assert_eq!(too_many, HistogramError::Buckets { spans: u64::from(u32::MAX) + 2, buckets: 3 });
        assert_eq!(refused(integer(), |parts| parts.positive_spans[1].offset = -1), HistogramError::SpanOffset(-1));
        let threshold = |bad| refused(integer(), |parts| parts.zero_threshold = Value::new(bad));
        assert_eq!(
            (threshold(-0.1), threshold(f64::NAN)),
            (HistogramError::ZeroThreshold, HistogramError::ZeroThreshold)
        );
        let mixed = refused(integer(), |parts| parts.custom_values.push(Value::new(1.0)));
        assert_eq!(mixed, HistogramError::CustomMixed);
    }

    #[test]
    fn counts_are_added_up_where_they_are_exact() {
        let with_deltas = |deltas: [i64; 3]| {
            refused(integer(), |parts| {
                if let BucketCounts::Integer { positive_deltas, .. } = &mut parts.counts {
                    *positive_deltas = deltas.to_vec();
                }
            })
        };
        assert_eq!(with_deltas([2, -3, 1]), HistogramError::NegativeCount);
        assert_eq!(with_deltas([i64::MAX, 1, 0]), HistogramError::NegativeCount);
        assert_eq!(with_deltas([2, 1, -1]), HistogramError::Count { buckets: 11, count: 10 });

        let mut with_nan = integer();
        with_nan.sum = Value::new(f64::NAN);
        if let BucketCounts::Integer { count, .. } = &mut with_nan.counts {
            *count = 12;
        }
        assert!(NativeHistogram::new(with_nan).is_ok(), "two observations were not a number");
    }

    #[test]
    fn float_counts_may_round_but_not_be_negative() {
        let mut parts = HistogramParts::float(0, 0.3, 1.0);
        parts.positive_spans = vec![span(0, 2)];
        let counts = |counts: [f64; 2]| BucketCounts::Float {
            count: Value::new(0.3),
            zero_count: Value::new(0.0),
            positive_counts: counts.map(Value::new).to_vec(),
            negative_counts: Vec::new(),
        };
        parts.counts = counts([0.1, 0.2]);
        assert_eq!(refused(parts, |parts| parts.counts = counts([0.1, -0.2])), HistogramError::NegativeCount);
    }

    #[test]
    fn custom_buckets_have_ascending_bounds_and_nothing_exponential() {
        let bounds =
            |bounds: [f64; 2]| refused(custom(), |parts| parts.custom_values = bounds.map(Value::new).to_vec());
        assert_eq!(bounds([1.0, 1.0]), HistogramError::CustomBounds);
        assert_eq!(bounds([1.0, f64::INFINITY]), HistogramError::CustomBounds);
        assert_eq!(refused(custom(), |parts| parts.negative_spans.push(span(0, 0))), HistogramError::CustomMixed);
        assert_eq!(refused(custom(), |parts| parts.zero_threshold = Value::new(0.1)), HistogramError::CustomMixed);
        assert_eq!(refused(custom(), |parts| parts.positive_spans[1].offset = 2), HistogramError::CustomIndex);
        assert_eq!(refused(custom(), |parts| parts.positive_spans[0].offset = -1), HistogramError::CustomIndex);
    }

    #[test]
    fn reset_hints_survive_their_number() {
        for hint in [ResetHint::Unknown, ResetHint::Yes, ResetHint::No, ResetHint::Gauge] {
            assert_eq!(ResetHint::from_number(hint as u8), hint);
        }
        assert_eq!(ResetHint::from_number(200), ResetHint::Unknown);
    }
}
