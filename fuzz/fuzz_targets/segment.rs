//! The bytes of a segment: whatever lies there, the log opens, gives out what it can and its account balances.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul::buffer::fuzzing;

fuzz_target!(|data: &[u8]| fuzzing::segment(data));
