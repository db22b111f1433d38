//! What our packer makes of any message comes back from a decoder that is not ours, is never too long, and does not depend on
//! what was packed before.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use outhaul::encode::{Compression, Packer};

thread_local! {
    static USED: RefCell<Packer> = RefCell::new(Packer::new());
}

fuzz_target!(|data: &[u8]| {
    let Some((&repeats, content)) = data.split_first() else { return };
    let message = content.repeat(usize::from(repeats).max(1));
    let packed = USED.with_borrow_mut(|packer| packer.pack(&message, Compression::Snappy));
    assert_eq!(packed, Packer::new().pack(&message, Compression::Snappy));
    assert!(packed.len() <= snap::raw::max_compress_len(message.len()));
    assert_eq!(snap::raw::Decoder::new().decompress_vec(&packed).expect("a snappy block"), message);
});
