//! Any bytes: `cargo +nightly fuzz run texts`. What must hold is in `src/texts.rs`; the inputs in
//! `corpus/texts` are also replayed by the ordinary tests.
#![no_main]

#[path = "../src/texts.rs"]
mod texts;

libfuzzer_sys::fuzz_target!(|input: &[u8]| texts::check(input));
