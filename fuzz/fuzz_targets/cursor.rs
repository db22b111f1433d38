//! The bytes of cursors and of the log's own notes: the worst they cost is samples sent again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul::buffer::fuzzing;

fuzz_target!(|data: &[u8]| fuzzing::cursor(data));
