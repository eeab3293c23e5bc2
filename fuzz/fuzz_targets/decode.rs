//! Any bytes, decoded: `cargo +nightly fuzz run decode`. What must hold is in `src/decode.rs`; the
//! inputs in `corpus/decode` are also replayed by the ordinary tests of `uptake-model`.
#![no_main]

#[path = "../src/decode.rs"]
mod decode;

libfuzzer_sys::fuzz_target!(|input: &[u8]| decode::check(input));
