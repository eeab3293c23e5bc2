//! Replays the inputs that the fuzz target starts from, and whatever it has found, without needing
//! the fuzzer or its compiler.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[path = "../../../fuzz/src/decode.rs"]
mod decode;

#[test]
fn the_corpus_decodes_as_it_must() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/decode");
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        let input = std::fs::read(&path).unwrap();
        for choice in 0..3 {
            let block = input.split_first().map_or(&[][..], |(_, block)| block);
            decode::check(&[&[choice], block].concat());
        }
        count += 1;
    }
    assert!(count >= 30, "only {count} inputs in {}", directory.display());
}
