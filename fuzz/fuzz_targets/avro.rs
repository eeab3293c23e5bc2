//! Any bytes: `cargo +nightly fuzz run avro`. What must hold is in `src/avro.rs`; the inputs in
//! `corpus/avro` are also replayed by the ordinary tests.
#![no_main]

#[path = "../../crates/uptake-connectors/src/log/kafka/avro.rs"]
mod avro;
#[path = "../src/avro.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|input: &[u8]| check::check(input));
