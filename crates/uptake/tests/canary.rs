//! The canary: what a changed configuration would change, and that looking at it changes nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use common::{Place, Printed, dead_letters, events, files_below, uptake};
use serde_json::{Value, json};

/// Some call an impression a view; a request of two titles, one that only looked.
const MIXED: &str = "i r1 v1 10:00 | p r1 v1 10:01 | view r2 v2 10:00 | view r2 v1 10:02 | p r2 v2 10:03 |
    i r3 v1 10:20 country=BR | i r4 v2 10:40 | p r4 v2 10:41";
const VIEWS: &str = r#"events.kind.impression=["impression","view"]"#;

fn canary(place: &Place, args: &[&str]) -> Printed {
    uptake([&["canary", "--data", place.data().to_str().unwrap()], args].concat())
}

fn json_of(place: &Place, args: &[&str]) -> Value {
    serde_json::from_str(&canary(place, &[&["--json"], args].concat()).ok()).unwrap()
}

/// A data directory with a log that was read.
fn live() -> Place {
    let place = Place::new();
    place.write("in/events.jsonl", events(MIXED));
    let data = place.data();
    let on = |args: &[&str]| uptake([args, &["--data", data.to_str().unwrap()]].concat());
    on(&["append", place.path("in").to_str().unwrap()]).ok();
    on(&["run", "--until-caught-up"]).ok();
    place
}

#[test]
fn what_would_change_is_told_and_nothing_is_touched() {
    let place = live();
    let before = files_below(&place.data());
    let same = json_of(&place, &["--with", "batch.events_max=3"]);
    assert_eq!((&same["equal"], &same["differing"]), (&json!(2), &json!(0)), "{same}");
    assert_eq!(same["ledger"]["before"], same["ledger"]["after"]);
    assert!(same["rows"].as_array().unwrap().iter().all(|row| row["before"] == row["after"]), "{same}");

    let views = json_of(&place, &["--with", VIEWS]);
    // v1 and v2 at 10:00 are shown once more each, and the play of r2 counts.
    let largest = &views["largest"];
    assert_eq!((&views["equal"], &views["differing"]), (&json!(1), &json!(2)), "{views}");
    assert_eq!(largest[0]["before"], Value::Null, "{views}");
    assert_eq!(largest[0]["after"], json!({"plays": 1, "impressions": 1}));
    assert_eq!(largest[1]["before"], json!({"plays": 1, "impressions": 1}));
    assert_eq!(largest[1]["after"], json!({"plays": 1, "impressions": 2}));
    assert_eq!((&views["plays"], &views["impressions"]), (&json!([2, 3]), &json!([2, 4])));
    assert_eq!([&views["ledger"]["before"]["dead"], &views["ledger"]["after"]["dead"]], [2, 0]);
    assert!(files_below(&place.data()) == before, "the live directory is as it was");
    assert_eq!(dead_letters(&place.data()).len(), 2);

    let text = canary(&place, &["--with", VIEWS]).ok();
    for part in ["2 of 3 tallies differ (66.7 %)", "dead", "-2", "popular: "] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn it_may_be_a_gate() {
    let place = live();
    canary(&place, &["--with", VIEWS, "--differ-max", "70"]).ok();
    canary(&place, &["--with", VIEWS, "--differ-max", "60"])
        .fails(1, &["66.7 % of the tallies differ, and 60 % may"]);
    // What was said long ago is left out.
    let none = canary(&place, &["--with", VIEWS, "--since", "1ms", "--differ-max", "0"]).ok();
    assert!(none.contains("0 of 0 tallies differ"), "{none}");
}

#[test]
fn what_cannot_be_compared_is_refused_before_anything_is_copied() {
    let place = live();
    canary(&place, &[]).fails(2, &["--with"]);
    canary(&place, &["--with", "join.kind=outer"]).fails(2, &["join.kind"]);
    canary(&place, &["--with", "epoch.length=15min"]).fails(2, &["epoch.length", "cannot be compared"]);
    let unknown = canary(&place, &["--with", VIEWS, "--segment", "country=BR"]);
    let said = unknown.fails(2, &["--segment country=BR: no segment is kept"]);
    assert!(!said.contains("copying"), "{said}");
    canary(&place, &["--with", r#"input.topics=["others"]"#]).fails(1, &["others"]);
}
