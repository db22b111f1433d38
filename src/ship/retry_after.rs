//! `Retry-After`: how long a receiver asks us to stay away (RFC 9110, section 10.2.3).
//!
//! Never longer than [`LONGEST`], because a receiver, or whoever answers in its place, must not be able to silence a host
//! for a day; and never "at once", because that is no request to wait at all.

use std::time::{Duration, UNIX_EPOCH};

use crate::model::Timestamp;

/// The longest wait a receiver can ask for.
pub const LONGEST: Duration = Duration::from_secs(300);

/// The wait that `value` asks for, at most [`LONGEST`]; `None` where it asks for none or makes no sense.
///
/// `now` is needed for the form that is a date.
pub fn parse(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only a number too large to hold fails to parse here, and that is longer than the longest.
        value.parse().map_or(LONGEST, Duration::from_secs)
    } else {
        let since_epoch = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
        Timestamp::from_millis(0).plus(since_epoch).since(now)
    };
    (wait > Duration::ZERO).then(|| wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    const EXAMPLE: Timestamp = Timestamp::from_millis(784_111_777_000);

    #[test]
    fn seconds_and_dates_are_understood_and_clamped() {
        let secs = |secs| Some(Duration::from_secs(secs));
        let before = EXAMPLE.minus(Duration::from_secs(7));
        for (value, now, wait) in [
            ("7", EXAMPLE, secs(7)),
            (" 7 ", EXAMPLE, secs(7)),
            ("86400", EXAMPLE, Some(LONGEST)),
            ("99999999999999999999999999", EXAMPLE, Some(LONGEST)),
            ("0", EXAMPLE, None),
            ("-1", EXAMPLE, None),
            ("1.5", EXAMPLE, None),
            ("soon", EXAMPLE, None),
            ("", EXAMPLE, None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", before, secs(7)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", before, secs(7)),
            ("Sun Nov  6 08:49:37 1994", before, secs(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", EXAMPLE, None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Timestamp::MIN, Some(LONGEST)),
        ] {
            assert_eq!(parse(value, now), wait, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_never_exceeds_the_clamp(value in ".{0,40}", now in any::<i64>()) {
            let wait = parse(&value, Timestamp::from_millis(now));
            prop_assert!(wait.is_none_or(|wait| wait > Duration::ZERO && wait <= LONGEST));
        }

        #[test]
        fn dates_of_any_year_never_panic(day in 0u32..99, year in 0u32..9999, hour in 0u32..99, now in any::<i64>()) {
            let value = format!("Sun, {day:02} Nov {year:04} {hour:02}:49:37 GMT");
            prop_assert!(parse(&value, Timestamp::from_millis(now)) <= Some(LONGEST));
        }
    }
}
