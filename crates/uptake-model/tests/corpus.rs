//! Replays the inputs that the fuzz targets start from, and whatever they have found, without needing
//! the fuzzer or its compiler.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[path = "../../../fuzz/src/damaged.rs"]
mod damaged;
#[path = "../../../fuzz/src/decode.rs"]
mod decode;
#[path = "../../../fuzz/src/saved.rs"]
mod saved;

/// The inputs of a target, of which there are at least so many.
fn corpus(target: &str, least: usize) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        inputs.push(std::fs::read(&path).unwrap());
    }
    assert!(inputs.len() >= least, "only {} inputs in {}", inputs.len(), directory.display());
    inputs
}

#[test]
fn the_corpus_decodes_as_it_must() {
    for input in corpus("decode", 30) {
        for choice in 0..3 {
            let block = input.split_first().map_or(&[][..], |(_, block)| block);
            decode::check(&[&[choice], block].concat());
        }
    }
}

#[test]
fn saved_state_is_refused_or_means_the_same_again() {
    for input in corpus("saved", 8) {
        damaged::with_damage(&input, saved::check);
    }
}
