//! Instants as people type them: RFC 3339, Unix seconds or milliseconds, or how long ago. Pure.

use crate::config;
use crate::model::Timestamp;

/// From this number on it is milliseconds: as seconds it would be the year 5138.
const MILLIS_FROM: f64 = 1e11;

const RULE: &str =
    "not a time; write RFC 3339 (2026-11-21T05:00:00Z), Unix seconds or milliseconds, or how long ago (2h, 1d12h)";

/// The instant `text` means at `now`.
///
/// # Errors
/// How to write one.
pub(super) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(number) = text.parse::<i64>() {
        let is_millis = number.unsigned_abs() as f64 >= MILLIS_FROM;
        let millis = if is_millis { Some(number) } else { number.checked_mul(1000) };
        return millis.map(Timestamp::from_millis).ok_or_else(|| RULE.to_owned());
    }
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.abs() < MILLIS_FROM
    {
        #[expect(clippy::cast_possible_truncation, reason = "below 1e14")]
        return Ok(Timestamp::from_millis((seconds * 1000.0).round() as i64));
    }
    if text == "now" {
        return Ok(now);
    }
    if let Ok(ago) = config::duration(text) {
        return Ok(now.minus(ago));
    }
    text.parse::<jiff::Timestamp>().map(|at| Timestamp::from_millis(at.as_millisecond())).map_err(|_| RULE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_one_instant_means_it() {
        let now = Timestamp::from_millis(1_795_226_444_000);
        for text in
            ["1795219244", "1795219244000", "1795219244.0", "2h", "2026-11-21T00:00:44Z", "2026-11-21T01:00:44+01:00"]
        {
            assert_eq!(parse(text, now), Ok(Timestamp::from_millis(1_795_219_244_000)), "{text}");
        }
        assert_eq!(parse("now", now), Ok(now));
        assert_eq!(parse("1795219244.035", now), Ok(Timestamp::from_millis(1_795_219_244_035)));
    }

    #[test]
    fn what_is_no_time_is_told_how_to_write_one() {
        for text in ["", "yesterday", "2h ago", "NaN", "inf", "1e300", "9223372036854775807x", "2026-11-21"] {
            assert!(parse(text, Timestamp::from_millis(0)).is_err_and(|rule| rule.contains("RFC 3339")), "{text}");
        }
    }
}
