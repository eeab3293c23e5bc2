//! Checkpoints of the formats before are gone on with.
//!
//! `fixtures/checkpoint-v1` and `-v2` hold a checkpoint each that a program of that format took after the first
//! half of the input in `checkpoint-v1`, with two workers: requests of both forms, tallies, sketches, names, a dead
//! letter in the books. The first is of a run's first checkpoint, which has all tallies; the second is of its
//! seventh, after two that had something to save, so that most tallies are made of counted events.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::path::{Path, PathBuf};

use common::live::copy_dir;
use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Record};

const SETTINGS: [&str; 4] =
    ["input.partitions=1", r#"segments=[[],["country"]]"#, "tally.exact_max=16", "tally.sketch_lg_k=5"];

fn fixture(format: &str, name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join(format!("checkpoint-{format}")).join(name)
}

/// When the checkpoint was begun.
fn created_ms(format: &str, number: u32) -> i64 {
    let manifest = fixture(format, &format!("checkpoints/main/manifest-000001-{number:08}.json"));
    let text = std::fs::read_to_string(manifest).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    line["created_ms"].as_i64().unwrap()
}

/// Runs the program; returns what it printed and what it said.
fn uptake(arguments: &[&str]) -> (String, String) {
    let settings = SETTINGS.iter().filter(|_| !matches!(arguments[0], "tallies" | "ledger"));
    let printed = common::uptake(arguments.iter().copied().chain(settings.flat_map(|s| ["--set", *s])));
    assert_eq!(printed.code, Some(0), "{arguments:?}: {}", printed.stderr);
    (printed.stdout, printed.stderr)
}

#[test]
fn checkpoints_of_the_formats_before_are_gone_on_with() {
    is_gone_on_with("v1", 0);
    is_gone_on_with("v2", 6);
}

fn is_gone_on_with(format: &str, number: u32) {
    let place = tempfile::tempdir().unwrap();
    let (old, plain) = (place.path().join("old"), place.path().join("plain"));
    let (old, plain) = (old.to_str().unwrap(), plain.to_str().unwrap());
    let (first, second) = (fixture("v1", "first.jsonl"), fixture("v1", "second.jsonl"));
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    // What the checkpoint has read came before it.
    let now = place.path().join("now");
    uptake(&["append", first, "--data", now.to_str().unwrap()]);
    let (log, _) = EmbeddedLog::open(Path::new(old), LogOptions::default()).unwrap();
    for topic in ["impressions", "plays"] {
        let kept = common::topic(&now, topic);
        let records: Vec<Record> = kept.into_iter().map(|r| Record::new(r.key, r.value)).collect();
        log.create_topic(topic, 1).unwrap();
        log.append(topic, 0, &records, created_ms(format, number) - 1).unwrap();
    }
    drop(log);
    uptake(&["append", second, "--data", old]);
    copy_dir(&fixture(format, "checkpoints"), &Path::new(old).join("checkpoints"));
    let (_, said) = uptake(&["run", "--data", old, "--workers", "3", "--until-caught-up"]);
    assert!(said.contains(&format!("going on from checkpoint 1.{number}")), "{format}: {said}");
    assert!(said.contains("441 records read, 241 counted"), "{format}: {said}");
    uptake(&["replay", first, second, "--data", plain]);
    for segment in ["", "country=BR", "country=DE", "country=US"] {
        let tallies = |data| uptake(&["tallies", "--data", data, "--segment", segment, "--format", "csv"]).0;
        assert_eq!(tallies(old), tallies(plain), "{format}: {segment}");
        assert!(tallies(old).lines().count() > 10);
    }
    let ledger: serde_json::Value =
        serde_json::from_str(&uptake(&["ledger", "--data", old, "--json"]).0).unwrap();
    assert_eq!(
        (&ledger["read"], &ledger["dead"], &ledger["balances"]),
        (&441.into(), &1.into(), &true.into())
    );
}
