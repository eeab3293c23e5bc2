//! Any bytes: `cargo +nightly fuzz run saved`. What must hold is in `src/saved.rs`; the inputs in
//! `corpus/saved` are also replayed by the ordinary tests.
#![no_main]

#[path = "../src/saved.rs"]
mod saved;

libfuzzer_sys::fuzz_target!(|input: &[u8]| saved::check(input));
