//! `uptake show`, run as anyone would run it, without a terminal.

use std::path::Path;
use std::process::{Command, Output};

fn uptake(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_uptake")).args(arguments).output().expect("the binary runs")
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!err.contains("panicked"), "{out}{err}");
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

/// The number behind `name` in the ledger.
fn entry(text: &str, name: &str) -> u64 {
    let line = text.lines().rev().find(|line| line.split_whitespace().next() == Some(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    let number = line.split_whitespace().nth(1).map(|n| n.replace(',', ""));
    number.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no number in {line}"))
}

fn tallies(data: &Path) -> String {
    text(&uptake(&["tallies", "--data", &data.to_string_lossy(), "--format", "csv"]))
}

#[test]
fn it_counts_every_request_once() {
    let shown = text(&uptake(&["show", "--for", "5s", "--seed", "3", "--workers", "2"]));
    assert!(shown.contains("The table equals the audience's own truth: "), "{shown}");
    assert!(shown.contains("every record is accounted for"), "{shown}");
    assert!(shown.contains("Ended after 5 s."), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no control sequences where there is no terminal:\n{shown}");
    let parts = ["counted", "waiting", "expired", "filtered", "dead", "duplicate", "late", "capped"];
    assert_eq!(entry(&shown, "read"), parts.iter().map(|name| entry(&shown, name)).sum::<u64>(), "{shown}");
    assert!(entry(&shown, "counted") > 0 && entry(&shown, "duplicate") > 0, "{shown}");
}

#[test]
fn the_same_seed_comes_to_the_same_table() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, seed: &str, workers: &str| {
        let data = folder.path().join(name);
        let mut arguments = vec!["show", "--events", "60000", "--events-per-second", "60000"];
        arguments.extend(["--speed", "6000", "--seed", seed, "--workers", workers]);
        arguments.extend(["--data", data.to_str().unwrap()]);
        let shown = text(&uptake(&arguments));
        assert!(shown.contains("The table equals the audience's own truth: "), "{shown}");
        assert_eq!(entry(&shown, "read"), 60_000, "{shown}");
        tallies(&data)
    };
    let table = run("one", "5", "1");
    assert!(table.lines().count() > 300, "{table}");
    assert!(run("two", "5", "2") == table, "the same seed came to another table");
    assert!(run("other", "6", "1") != table, "another seed came to the same table");
    // The audience's table is not mixed with another one.
    let again = uptake(&["show", "--data", folder.path().join("one").to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("tallies of another run"));
}

#[test]
fn under_other_rules_the_table_is_the_truth_too() {
    let run = |settings: &[&str]| {
        let mut arguments = vec!["show", "--events", "40000", "--events-per-second", "40000"];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        text(&uptake(&arguments))
    };
    let equal = "The table equals the audience's own truth: ";
    assert!(run(&["join.kind=left", "epoch.length=10min"]).contains(equal));
    assert!(run(&["join.horizon=30s", "join.method=window"]).contains(equal));
    assert!(run(&["filters=[]"]).contains("was not compared with the audience's own truth, because"));
}

#[test]
fn files_are_replayed_at_a_pace() {
    let folder = tempfile::tempdir().unwrap();
    let mut audience = uptake_sim::Audience::new(uptake_sim::Options::default());
    let mut lines = Vec::new();
    audience.fill(i64::MAX, 30_000, &mut lines);
    let path = folder.path().join("events.jsonl");
    std::fs::write(&path, &lines).unwrap();
    let file = path.to_str().unwrap();
    let shown = text(&uptake(&["show", file, "--events-per-second", "60000"]));
    assert_eq!(entry(&shown, "read"), 30_000, "{shown}");
    assert!(shown.contains("Ended with the last file"), "{shown}");
    let (paced, replayed) = (folder.path().join("paced"), folder.path().join("replayed"));
    let (paced_to, replayed_to) = (paced.to_str().unwrap(), replayed.to_str().unwrap());
    text(&uptake(&["show", file, "--events-per-second", "1000000", "--data", paced_to]));
    text(&uptake(&["replay", file, "--data", replayed_to]));
    assert_eq!(tallies(&paced), tallies(&replayed));
    let wrong = uptake(&["show", file, "--speed", "9"]);
    assert_eq!(wrong.status.code(), Some(2));
}
