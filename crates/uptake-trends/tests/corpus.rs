//! Replays the inputs that the fuzz target `texts` starts from, and whatever it has found, without needing
//! the fuzzer or its compiler.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[path = "../../../fuzz/src/texts.rs"]
mod texts;

#[test]
fn texts_are_refused_or_mean_the_same_to_every_decoder() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/texts");
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        let input = std::fs::read(&path).unwrap();
        let text = input.split_first().map_or(&[][..], |(_, text)| text);
        for choice in 0..4 {
            texts::check(&[&[choice], text].concat());
        }
        count += 1;
    }
    assert!(count >= 7, "only {count} inputs in {}", directory.display());
}
