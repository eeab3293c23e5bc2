//! Dead letters: what is printed of them, and how they come back after a fix, each once.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Place, Printed, csv, dead_letters, events, told, topic, uptake};
use serde_json::{Value, json};
use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Record};

/// Some of theirs call an impression a view; some lines are nothing at all.
const MIXED: &str = "view r1 v1 10:00 | p r1 v1 10:01 | view r2 v2 10:00 | view r2 v1 10:02 device=test |
    p r2 v2 10:03 | start r3 v1 10:00";
const VIEWS: [&str; 2] = ["--set", r#"events.kind.impression=["impression","view"]"#];

fn on(data: &Path, args: &[&str]) -> Printed {
    uptake([args, &["--data", data.to_str().unwrap()]].concat())
}

/// Appends what is in `in` and runs to its end.
fn append_and_run(place: &Place, args: &[&str]) {
    on(&place.data(), &["append", place.path("in").to_str().unwrap()]).ok();
    run(place, args);
}

fn run(place: &Place, args: &[&str]) {
    on(&place.data(), &[&["run", "--until-caught-up", "--workers", "2"], args].concat()).ok();
}

/// [`MIXED`] and some junk, appended and read.
fn mixed() -> Place {
    let place = Place::new();
    let mut file = events(MIXED).into_bytes();
    file.extend_from_slice(b"not json \x1b[2J\x07\n\xff\xfe\n");
    place.write("in/events.jsonl", file);
    append_and_run(&place, &[]);
    place
}

fn lines(printed: Printed) -> Vec<Value> {
    printed.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `dead-letters replay --json`.
#[track_caller]
fn replay(place: &Place, args: &[&str]) -> Value {
    serde_json::from_str(&on(&place.data(), &[&["dead-letters", "replay", "--json"], args].concat()).ok())
        .unwrap()
}

/// How many records the input topics have.
fn appended(place: &Place) -> u64 {
    let (log, _) = EmbeddedLog::open(&place.data(), LogOptions::default()).unwrap();
    let end =
        |topic| (0..log.partitions(topic).unwrap()).map(|p| log.end_offset(topic, p).unwrap()).sum::<u64>();
    end("impressions") + end("plays")
}

#[test]
fn a_list_for_scripts() {
    let place = mixed();
    let list =
        |args: &[&str]| lines(on(&place.data(), &[&["dead-letters", "list", "--json"], args].concat()));
    let all = list(&[]);
    assert_eq!(all.len(), 6, "{all:?}");
    let kept = dead_letters(&place.data());
    for letter in &all {
        let there = kept.iter().find(|dead| {
            dead.source == letter["source"]
                && dead.line == letter["offset"]
                && dead.reason == letter["reason"]
                && letter["bytes"].as_str().is_none_or(|text| text.as_bytes() == dead.bytes)
        });
        assert!(there.is_some(), "{letter}");
        assert!(letter["partition"].is_u64() && letter["appended_ms"].as_i64().unwrap() > common::DAY_MS);
        assert_eq!(letter["replayed"], false);
    }
    let views = list(&["--reason", "unknown-kind"]);
    assert_eq!(views.len(), 4);
    assert!(views.iter().all(|letter| letter["source"] == "impressions"), "{views:?}");
    let broken = list(&["--reason", "not-utf8"]);
    assert_eq!((&broken[0]["bytes_base64"], &broken[0]["bytes"]), (&json!("//4="), &Value::Null));
    assert_eq!(list(&["--reason", "not-json"])[0]["bytes"], "not json \u{1b}[2J\u{7}");
    assert_eq!(list(&["--limit", "2"]), all[4..], "the newest");
    assert!(list(&["--reason", "too-long"]).is_empty());
}

#[test]
fn a_list_for_people() {
    let place = mixed();
    let text = on(&place.data(), &["dead-letters", "list"]).ok();
    assert!(!text.contains('\u{1b}') && text.contains(r"not json \u{1b}[2J\u{7}"), "{text}");
    assert!(text.contains(r"\xff\xfe"), "{text}");
    let mut rows = text.lines();
    let header: Vec<&str> = rows.next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["number", "time", "reason", "place", "bytes"]);
    assert!(rows.all(|row| row.chars().count() <= 120), "{text}");
    assert!(text.contains("…"), "a long record is cut:\n{text}");
    let end =
        "\n6 dead letters\n           1  not-utf8\n           1  not-json\n           4  unknown-kind\n";
    assert!(text.ends_with(end), "{text}");
    let one = on(&place.data(), &["dead-letters", "list", "--limit", "1", "--reason", "unknown-kind"]).ok();
    assert_eq!(one.lines().count(), 5, "a header, one letter, what there is in all:\n{one}");
    // Where nothing is dead.
    let clean = Place::with("i r1 v1 10:00");
    append_and_run(&clean, &[]);
    assert_eq!(on(&clean.data(), &["dead-letters", "list"]).ok(), "0 dead letters\n");
    assert_eq!(on(&clean.data(), &["dead-letters", "list", "--json"]).ok(), "");
}

/// A run that was killed reads some records again, and keeps what it cannot use again.
#[test]
fn a_letter_that_is_kept_twice_is_one() {
    let place = mixed();
    let all = topic(&place.data(), "dead-letters");
    {
        let (log, _) = EmbeddedLog::open(&place.data(), LogOptions::default()).unwrap();
        let again: Vec<Record> = all.iter().map(|r| Record::new(r.key.clone(), r.value.clone())).collect();
        log.append("dead-letters", 0, &again, 1).unwrap();
    }
    assert_eq!(lines(on(&place.data(), &["dead-letters", "list", "--json"])).len(), 6);
    let before = appended(&place);
    assert_eq!(replay(&place, &VIEWS)["usable"], 3);
    assert_eq!(appended(&place), before + 3);
    assert_eq!(replay(&place, &VIEWS)["usable"], 0);
    // Also when the repetition comes after the replay.
    {
        let (log, _) = EmbeddedLog::open(&place.data(), LogOptions::default()).unwrap();
        let again: Vec<Record> = all.iter().map(|r| Record::new(r.key.clone(), r.value.clone())).collect();
        log.append("dead-letters", 0, &again, 1).unwrap();
    }
    assert_eq!(replay(&place, &VIEWS)["usable"], 0);
    assert_eq!(appended(&place), before + 3);
}

#[test]
fn after_a_fix_the_letters_count() {
    let place = mixed();
    assert_eq!(csv(&place.data()).lines().count(), 1, "without the views nothing counts");
    let before = appended(&place);
    // Nothing has changed: nothing is appended.
    let none = replay(&place, &[]);
    assert_eq!((&none["letters"], &none["usable"], &none["unusable"]), (&json!(6), &json!(0), &json!(6)));
    // What a fix would do, without doing it.
    let dry = replay(&place, &[&["--dry-run"], &VIEWS[..]].concat());
    assert_eq!(dry["unusable_by_reason"], json!({"not-json": 1, "not-utf8": 1, "unknown-kind": 1}));
    assert_eq!((&dry["usable"], &dry["filtered"], &dry["dry_run"]), (&json!(3), &json!(1), &json!(true)));
    assert_eq!(appended(&place), before);
    let text = on(&place.data(), &[&["dead-letters", "replay", "--dry-run"], &VIEWS[..]].concat()).ok();
    assert!(text.contains("usable     3  could be used now\n"), "{text}");
    // For another reason, and from another number on, there is nothing.
    for other in [["--reason", "not-json"], ["--from-offset", "6"]] {
        assert_eq!(replay(&place, &[&other[..], &VIEWS[..]].concat())["usable"], 0, "{other:?}");
    }
    let done = replay(&place, &VIEWS);
    assert_eq!(done["appended"], json!({"impressions": 3, "plays": 0}));
    run(&place, &VIEWS);
    assert_eq!(told(&csv(&place.data())), "v1 10:00 1/1 | v2 10:00 1/1");
    // Once more does nothing, and the list knows.
    let again = replay(&place, &VIEWS);
    assert_eq!((&again["replayed_before"], &again["usable"]), (&json!(3), &json!(0)), "{again}");
    assert_eq!(appended(&place), before + 3);
    let text = on(&place.data(), &["dead-letters", "list"]).ok();
    assert!(text.contains("6 dead letters, 3 of them appended to the input again"), "{text}");
    // A later fix finds what the first one left.
    let more = [VIEWS[0], VIEWS[1], "--set", r#"events.kind.play=["play","start"]"#];
    assert_eq!(replay(&place, &more)["appended"], json!({"impressions": 0, "plays": 1}));
    assert_eq!(replay(&place, &more)["replayed_before"], 4);
}

/// Wherever a replay breaks off, the next one goes on: nothing is lost, and what is appended twice
/// is a duplicate.
#[test]
fn a_replay_that_breaks_off_loses_nothing() {
    let place = mixed();
    let before = appended(&place);
    let mut broke_off = 0;
    // Each step that changes something durable, one after the other.
    for n in 1.. {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uptake"));
        command.args(["dead-letters", "replay", "--data"]).arg(place.data()).args(VIEWS);
        let output = command.env("UPTAKE_CRASH_AT", n.to_string()).output().unwrap();
        if output.status.success() {
            break;
        }
        assert!(String::from_utf8_lossy(&output.stderr).contains("crash point"), "{output:?}");
        broke_off += 1;
    }
    assert!(broke_off > 10 && appended(&place) >= before + 3, "{broke_off}");
    assert_eq!(replay(&place, &VIEWS)["usable"], 0);
    run(&place, &VIEWS);
    assert_eq!(told(&csv(&place.data())), "v1 10:00 1/1 | v2 10:00 1/1");
    let ledger: Value = serde_json::from_str(&on(&place.data(), &["ledger", "--json"]).ok()).unwrap();
    assert_eq!((&ledger["counted"], &ledger["balances"]), (&json!(4), &json!(true)), "{ledger}");
}

#[test]
fn mistakes_are_told() {
    let place = mixed();
    let data = place.data();
    for command in [["dead-letters", "list"], ["dead-letters", "replay"], ["late", "list"]] {
        on(&place.path("nowhere"), &command).fails(2, &["nowhere", "no such directory"]);
        on(&place.path("in"), &command).fails(2, &["no data directory"]);
    }
    assert!(!place.path("nowhere").exists() && !place.path("in/log").exists(), "nothing was made");
    on(&data, &["dead-letters", "list", "--reason", "json"]).fails(2, &["json", "not-an-object"]);
    on(&data, &["dead-letters", "replay", "--from-offset", "7"]).fails(2, &["--from-offset 7", "offset 6"]);
    on(&data, &["dead-letters", "replay", "--from-offset", "x"]).fails(2, &["--from-offset"]);
    on(&data, &["dead-letters", "replay", "--set", "events.kind.impressions=[]"]).fails(2, &["did you mean"]);
}
