//! Any headers that tell a time, against any clock: no panic, and no wait beyond the clamp.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul::fuzzing;

fuzz_target!(|input: (i64, i64, &str)| {
    let (now, later, text) = input;
    fuzzing::parse_retry_after(text, now);
    fuzzing::skew(text, now, later);
});
