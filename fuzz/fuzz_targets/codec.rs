//! The buffer's codec: hostile payloads are damage, and any values come back bit for bit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul::buffer::fuzzing;

fuzz_target!(|data: &[u8]| fuzzing::codec(data));
