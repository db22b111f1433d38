//! Remote-write bodies that anybody may send to `outhaul receive`: an error or a request, never a panic, never much memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outhaul::encode::{Compression, Message, decode};

const MESSAGE_BYTES_MAX: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    for message in [Message::V1, Message::V2] {
        for compression in [Compression::Snappy, Compression::Zstd] {
            decode(data, message, compression, MESSAGE_BYTES_MAX).ok();
        }
        // Packed as it should be, so that the message itself is reached.
        let packed = snap::raw::Encoder::new().compress_vec(data).expect("a small block");
        decode(&packed, message, Compression::Snappy, MESSAGE_BYTES_MAX).ok();
    }
});
