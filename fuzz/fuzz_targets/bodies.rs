//! Any bytes: `cargo +nightly fuzz run bodies`. What must hold is in `src/bodies.rs`; the inputs in
//! `corpus/bodies` are also replayed by the ordinary tests.
#![no_main]
// The modules have more for the server than is used here.
#![allow(dead_code)]

#[path = "../../crates/uptake-serve/src/collect/body.rs"]
mod body;
#[path = "../src/bodies.rs"]
mod check;
#[path = "../../crates/uptake-serve/src/problem.rs"]
mod problem;

libfuzzer_sys::fuzz_target!(|input: &[u8]| check::check(input));
