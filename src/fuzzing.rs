//! Doors for `fuzz/` to what the rooms keep to themselves; built only with `--cfg fuzzing`.
//!
//! One function a target, with plain types, so that no room becomes public for the fuzzer's sake.

use crate::model::Timestamp;
use crate::ship::retry_after;

/// Parses a `Retry-After` header; panics where the promise of the room is broken.
pub fn parse_retry_after(value: &str, now_millis: i64) {
    if let Some(wait) = retry_after::parse(value, Timestamp::from_millis(now_millis)) {
        assert!(!wait.is_zero() && wait <= retry_after::LONGEST, "{wait:?} for {value:?}");
    }
}

/// Measures the clock against a `Date` header.
pub fn skew(date: &str, sent_millis: i64, received_millis: i64) {
    let at = Timestamp::from_millis;
    crate::clock::skew_millis(date, at(sent_millis), at(received_millis));
}
