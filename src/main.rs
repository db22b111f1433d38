//! outhaul.
fn main() {}
