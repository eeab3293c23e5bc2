//! The live run through the real program: what producers append shows in the table, records of
//! every form are read, a stopped replay goes on, and the budget of memory is kept.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::live::{Live, PATIENCE, SOON, program, wait_until};
use common::{DAY_MS, MINUTE_MS, Place, csv, events, told, uptake};
use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Record};
use uptake_connectors::{Backend, Options, objects};

fn start(command: &str, args: &[&str]) -> Live {
    Live::start(Command::new(program()).arg(command).args(args))
}

/// Waits until something holds; nothing here takes longer than a loaded machine makes it.
fn eventually(what: &str, holds: impl FnMut() -> bool) {
    wait_until(what, PATIENCE, holds);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn append(place: &Place, name: &str, lines: &str) {
    let file = place.write(&format!("{name}.jsonl"), lines);
    uptake(["append", text(&file), "--data", text(&place.data())]).ok();
}

/// Runs until everything in the log has been read; returns the ledger.
fn catch_up(place: &Place, args: &[&str]) -> serde_json::Value {
    let data = place.data();
    uptake(["run", "--data", text(&data), "--until-caught-up"].iter().chain(args)).ok();
    let ledger = uptake(["ledger", "--data", text(&data), "--json"]).ok();
    serde_json::from_str(&ledger).unwrap()
}

#[test]
fn what_is_appended_shows_in_the_table_while_the_run_goes_on() {
    let place = Place::new();
    append(&place, "first", &events("i r1 v1 10:00 | i r1 v2 10:00"));
    let data = place.data();
    let _run = start("run", &["--data", text(&data), "--workers", "2"]);
    append(&place, "second", &events("p r1 v1 10:05 | i r2 v1 10:01"));
    // Appending makes no table: the run does, when it has begun.
    let begun = || uptake(["tallies", "--data", text(&data)]).code == Some(0);
    eventually("the table", begun);
    eventually("the joined request", || told(&csv(&data)) == "v1 10:00 1/1 | v2 10:00 0/1");
    append(&place, "third", &events("p r2 v9 10:20"));
    eventually("the second request", || told(&csv(&data)) == "v1 10:00 1/2 | v2 10:00 0/1 | v9 10:00 1/0");
}

/// A record may hold one event over several lines, several events on a line each, or a list.
#[test]
fn records_of_every_form_are_read() {
    let place = Place::new();
    let data = place.data();
    append(&place, "plain", &events("i r1 v1 10:00"));
    {
        let (log, _) = EmbeddedLog::open(&data, LogOptions::default()).unwrap();
        let pretty = serde_json::to_string_pretty(&serde_json::json!({
            "kind": "play", "request_id": "r1", "video_id": "v1", "timestamp": DAY_MS + 601 * MINUTE_MS,
        }));
        let lines = events("i r1 v2 10:00 | i r1 v3 10:00");
        let broken = "{\"kind\":\n\"play\", no";
        let list = format!("[{}]", events("i r1 v4 10:00 | i r1 v5 10:00").trim().replace('\n', ","));
        let records = [pretty.unwrap(), lines, broken.to_owned(), list, String::new()];
        let records = records.map(|value| Record::new("", value));
        log.append("impressions", 1, &records, 1_800_000_000_000).unwrap();
    }
    let ledger = catch_up(&place, &["--workers", "1"]);
    let expected = "v1 10:00 1/1 | v2 10:00 0/1 | v3 10:00 0/1 | v4 10:00 0/1 | v5 10:00 0/1";
    assert_eq!(told(&csv(&data)), expected);
    // The broken one is of two lines, neither of which is an event; both lie at its offset.
    let dead = common::dead_letters(&data);
    assert!(dead.iter().all(|d| (d.source.as_str(), d.line) == ("impressions", 2)), "{dead:?}");
    assert_eq!(ledger["dead"], dead.len());
    assert_eq!((&ledger["balances"], &ledger["read"]), (&true.into(), &(6 + dead.len()).into()));
}

/// The arrival that the guard against future stamps compares with is that of the log, so a
/// record is judged the same whenever it is read.
#[test]
fn a_stamp_is_compared_with_the_arrival_in_the_log() {
    let place = Place::new();
    append(&place, "nothing", "\n");
    {
        let (log, _) = EmbeddedLog::open(&place.data(), LogOptions::default()).unwrap();
        let record = |text| [Record::new("", events(text).trim())];
        let at = |minutes: i64| DAY_MS + minutes * MINUTE_MS;
        log.append("impressions", 0, &record("i r1 v1 10:00"), at(600)).unwrap();
        log.append("impressions", 0, &record("i r1 v2 10:00"), at(590)).unwrap();
        log.append("plays", 0, &record("p r1 v1 10:01"), at(601)).unwrap();
    }
    let ledger = catch_up(&place, &[]);
    assert_eq!(ledger["dead_by_reason"]["timestamp-in-future"], 1, "{ledger}");
    assert_eq!(told(&csv(&place.data())), "v1 10:00 1/1");
}

/// With one topic for both kinds, and with many partitions that are far apart in event time.
#[test]
fn topics_and_partitions_as_configured() {
    let place = Place::new();
    let rows: Vec<String> = (0..400)
        .map(|n| format!("i r{n} v{} 10:{:02} | p r{n} v{} 10:{:02}", n % 7, n % 60, n % 7, n % 60))
        .collect();
    let lines = events(&rows.join(" | "));
    let file = place.write("all.jsonl", &lines);
    let settings =
        ["--set", r#"input.topics=["events"]"#, "--set", "input.partitions=13", "--set", "input.pace=1ms"];
    let data = place.data();
    uptake(["append", text(&file), "--data", text(&data)].iter().chain(&settings)).ok();
    let run =
        ["run", "--data", text(&data), "--until-caught-up", "--workers", "3", "--set", "batch.events_max=7"];
    uptake(run.iter().chain(&settings)).ok();
    let plain = Place::new();
    plain.write("in/all.jsonl", &lines);
    plain.books(&[]);
    assert_eq!(csv(&data), plain.csv());
}

/// A replay that was killed goes on where its last checkpoint was, and comes to the same.
#[test]
fn a_stopped_replay_goes_on() {
    let place = Place::new();
    let row = |n: u64| format!("i r{n} v{} 10:{:02} | p r{n} v{} 10:{:02}", n % 50, n % 60, n % 50, n % 60);
    for file in 0..8 {
        let rows: Vec<String> = (file * 3_000..(file + 1) * 3_000).map(row).collect();
        place.write(&format!("in/{file}.jsonl"), events(&rows.join(" | ")));
    }
    let (data, input) = (place.data(), place.path("in"));
    let settings = ["--set", "checkpoint.interval=10ms", "--set", "batch.events_max=500", "--workers", "2"];
    let arguments: Vec<&str> = [text(&input), "--data", text(&data)].into_iter().chain(settings).collect();
    let mut went_on = 0;
    for pause_ms in [150, 250, 400] {
        let replay = start("replay", &arguments);
        std::thread::sleep(Duration::from_millis(pause_ms));
        replay.signal("KILL");
        went_on += u32::from(replay.end(SOON).code != Some(0));
    }
    let last = place.replay(&settings);
    println!("{went_on} replays were killed; the last one said:\n{}", last.stderr);
    let books: serde_json::Value = serde_json::from_str(&last.ok()).unwrap();
    assert_eq!((&books["read"], &books["balances"]), (&48_000.into(), &true.into()), "{books}");
    let plain = Place::new();
    let often = ["--workers", "1", "--set", "checkpoint.events_max=1000", "--set", "batch.events_max=500"];
    let fresh = common::books(&[&input], &plain.data(), &often);
    assert_eq!((&books["counted"], &books["expired"]), (&fresh.0["counted"], &fresh.0["expired"]));
    let took = &fresh.0["checkpoints"];
    assert!(took["taken"].as_u64() > Some(1) && took["bytes"].as_u64() > Some(1), "{took}");
    assert!(took["longest_stall_ms"].as_f64() > Some(0.0), "{took}");
    assert_eq!(place.csv(), plain.csv());
    let objects =
        objects::open(&Backend::File(data.clone()), objects::CHECKPOINTS, &Options::default()).unwrap();
    let left: Vec<String> = objects.list("").unwrap().into_iter().map(|object| object.name).collect();
    let books_only = left.iter().all(|name| name.starts_with("replay-last/"));
    assert!(books_only && !left.is_empty(), "a replay that came to its end leaves its books: {left:?}");
    let kept = uptake(["ledger", "--data", text(&data), "--json"]).ok();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!((&kept["read"], &kept["counted"]), (&books["read"], &books["counted"]));
}

#[cfg(target_os = "linux")]
#[test]
fn the_budget_of_memory_is_kept_and_the_run_goes_on_later() {
    let place = Place::new();
    let rows: Vec<String> = (0..30_000).map(|n| format!("i r{n} v{} 10:00", n % 50)).collect();
    append(&place, "many", &events(&rows.join(" | ")));
    append(&place, "plays", &events("p r7 v7 10:01"));
    let data = place.data();
    let tight = ["--set", "memory.bytes_max=4MiB"];
    let said = uptake(["run", "--data", text(&data), "--until-caught-up"].iter().chain(&tight))
        .fails(1, &["may hold 4 MiB (memory.bytes_max)", "Raise that", "nothing is lost"]);
    assert!(!said.contains("stopped:"), "{said}");
    let ledger = catch_up(&place, &[]);
    assert_eq!((&ledger["read"], &ledger["counted"]), (&30_001.into(), &2.into()));
    uptake(["run", "--data", text(&data), "--set", "memory.bytes_max=lots"])
        .fails(2, &["memory.bytes_max: "]);
}
