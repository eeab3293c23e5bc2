//! A backfill comes to what the contract says of all events, beside a live run and without one,
//! and never takes anything away.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    DAY_MS, HALF_HOUR_MS, MINUTE_MS, Place, Printed, books, csv, files_below, topic, uptake, without_exact,
};
use serde_json::{Value, json};

const HORIZON_MS: i64 = 10 * MINUTE_MS;

/// One topic of one partition, so that an event behind others is late for sure.
const LIVE: [&str; 12] = [
    "--set",
    r#"input.topics=["events"]"#,
    "--set",
    "input.partitions=1",
    "--set",
    "join.horizon=10min",
    "--set",
    "join.lateness=1min",
    "--set",
    "batch.events_max=10",
    "--set",
    "checkpoint.interval=50ms",
];

fn on(data: &Path, args: &[&str]) -> Printed {
    uptake([args, &["--data", data.to_str().unwrap()]].concat())
}

/// With the settings of the live run.
fn live(data: &Path, args: &[&str]) -> Printed {
    on(data, &[args, &LIVE[..]].concat())
}

/// `backfill --json`, which must go well.
#[track_caller]
fn backfill(data: &Path, args: &[&str]) -> Value {
    let printed: Value =
        serde_json::from_str(&live(data, &[&["backfill", "--json"], args].concat()).ok()).unwrap();
    if printed["read"].is_u64() {
        assert_eq!((&printed["late"], &printed["waiting"]), (&json!(0), &json!(0)), "{printed}");
    }
    printed
}

#[derive(Clone)]
struct Event {
    play: bool,
    request: u64,
    video: u64,
    time: i64,
}

impl Event {
    fn line(&self) -> String {
        let kind = if self.play { "play" } else { "impression" };
        let (request, video, time) = (self.request, self.video, self.time);
        format!(
            r#"{{"kind":"{kind}","request_id":"{request:016x}","video_id":"v{video}","timestamp":{time}}}"#
        ) + "\n"
    }
}

/// Six hours from `hour` on in which a tenth of the events comes about an hour late, with some junk.
fn stream(hour: i64, seed: u64) -> (Vec<Event>, String) {
    let mut random = seed;
    let mut next = move |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let mut arriving: Vec<(i64, Event)> = Vec::new();
    for n in 0..600 {
        let request = (seed << 32) + n;
        let begin = DAY_MS + hour * 60 * MINUTE_MS + next(6 * 3_600_000) as i64;
        for _ in 0..=next(4) {
            let time = begin + next(8 * 60_000) as i64;
            let delay = if next(10) == 0 { 60 * MINUTE_MS } else { 0 };
            let event = Event { play: next(3) == 0, request, video: next(6), time };
            arriving.push((time + delay, event));
        }
    }
    arriving.sort_by_key(|(at, _)| *at);
    let events: Vec<Event> = arriving.into_iter().map(|(_, event)| event).collect();
    let mut text = String::from("junk\n");
    events.iter().for_each(|event| text += &event.line());
    (events, text)
}

/// The contract, as plainly as it can be said.
fn contract(events: &[Event]) -> String {
    let mut table: BTreeMap<(String, i64), [BTreeSet<u64>; 2]> = BTreeMap::new();
    for event in events {
        let counts = events.iter().any(|other| {
            other.request == event.request
                && other.play != event.play
                && (other.time - event.time).abs() <= HORIZON_MS
        });
        if counts {
            let key = (format!("v{}", event.video), event.time.div_euclid(HALF_HOUR_MS));
            table.entry(key).or_default()[usize::from(event.play)].insert(event.request);
        }
    }
    let mut text = String::from("video_id,epoch,plays,impressions\n");
    for ((video, epoch), [shown, played]) in table {
        text += &format!("{video},{epoch},{},{}\n", played.len(), shown.len());
    }
    text
}

/// Everything the table says, the seals included.
fn rows(data: &Path) -> Vec<Value> {
    let text = on(data, &["tallies", "--format", "json"]).ok();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The objects of a plain batch run over all events, by name.
fn batch_run(place: &Place, name: &str, text: &str) -> PathBuf {
    let file = place.write(&format!("{name}.jsonl"), text);
    let data = place.path(name);
    books(&[&file], &data, &["--set", "join.lateness=off", "--set", "join.horizon=10min"]);
    data
}

/// Holds the archive against that of a batch run over all events: every object there is, is the
/// same to the byte, and each sealed row of the table is in one. Returns how many there are.
#[track_caller]
fn check_archive(data: &Path, batch: &Path) -> usize {
    let (ours, theirs) = (files_below(&data.join("tallies")), files_below(&batch.join("tallies")));
    let theirs: BTreeMap<_, _> = theirs.into_iter().collect();
    for (name, bytes) in &ours {
        assert!(theirs.get(name) == Some(bytes), "{name} is not what a batch run writes");
    }
    let sealed: BTreeSet<i64> = rows(data)
        .iter()
        .filter(|row| row["sealed"] == true)
        .map(|row| row["epoch"].as_i64().unwrap())
        .collect();
    assert_eq!(ours.len(), sealed.len(), "one object for each sealed epoch");
    ours.len()
}

fn append(place: &Place, text: &str) {
    let file = place.write("append.jsonl", text);
    live(&place.data(), &["append", file.to_str().unwrap()]).ok();
}

#[test]
fn a_backfill_comes_to_the_contract_of_all_events() {
    let place = Place::new();
    let data = place.data();
    let (mut events, text) = stream(0, 1);
    append(&place, &text);
    live(&data, &["run", "--until-caught-up", "--workers", "1"]).ok();
    let late = topic(&data, "late");
    assert!(late.len() > 20, "{} late", late.len());
    assert_ne!(without_exact(&csv(&data)), contract(&events), "the live run misses what was late");
    let batch = batch_run(&place, "batch", &text);

    let found = backfill(&data, &["--from-time", "all"]);
    assert_eq!(without_exact(&csv(&data)), contract(&events));
    assert_eq!((&found["read"], &found["dead"]), (&json!(events.len() + 1), &json!(1)));
    assert!(found["rows_grown"].as_u64() > Some(10), "{found}");
    // The newest epochs are still the live run's.
    assert_eq!(found["held_by"], "main");
    let held = found["held_from_epoch"].as_i64().unwrap();
    for row in rows(&data) {
        assert_eq!(row["sealed"], row["epoch"].as_i64() < Some(held), "{row}");
    }
    let objects = check_archive(&data, &batch);
    assert!(objects >= 10);
    // What it met was kept already.
    assert_eq!((topic(&data, "late").len(), topic(&data, "dead-letters").len()), (late.len(), 1));

    // Again, with other workers, from anywhere, or from the archive: nothing changes.
    let before = (rows(&data), files_below(&data.join("tallies")));
    let middle = (events.len() / 2).to_string();
    let beyond = (events.len() + 1).to_string();
    for source in [
        &["--from-time", "all", "--workers", "3"][..],
        &["--from-offset", "0"],
        &["--from-offset", &middle],
        &["--from-offset", &beyond],
        &["--from-time", "2024-01-01T00:00:00Z"],
        &["--archive"],
    ] {
        let again = backfill(&data, source);
        let changes = ["rows_new", "rows_grown", "rows_sealed", "archive_objects_written"];
        assert!(changes.iter().all(|key| again[key] == 0) && again["epochs"] == json!([]), "{again}");
        assert!((rows(&data), files_below(&data.join("tallies"))) == before, "{source:?}");
    }
    let text_for_people = live(&data, &["backfill", "--from-time", "all"]).ok();
    for part in
        ["not kept again", "0 grown", "still held by the live run main", "every record is accounted for"]
    {
        assert!(text_for_people.contains(part), "{part:?} is not in:\n{text_for_people}");
    }

    // The live run goes on where it was and seals the rest; the backfill then brings in what it missed.
    let (more, more_text) = stream(12, 2);
    append(&place, &more_text);
    live(&data, &["run", "--until-caught-up", "--workers", "1"]).ok();
    events.extend(more);
    backfill(&data, &["--from-time", "all"]);
    assert_eq!(without_exact(&csv(&data)), contract(&events));
    let batch = batch_run(&place, "batch-2", &(text + &more_text));
    assert!(check_archive(&data, &batch) > objects);
    let six: i64 = DAY_MS / HALF_HOUR_MS + 12;
    assert!(rows(&data).iter().all(|row| row["sealed"] == true || row["epoch"].as_i64() > Some(six)));
}

#[test]
fn files_and_parts_of_them_make_rows_grow() {
    let place = Place::new();
    let data = place.data();
    let (events, text) = stream(0, 3);
    let batch = batch_run(&place, "batch", &text);
    // A replay that misses what was late, and no live run at all.
    let file = place.write("all.jsonl", &text);
    let settings =
        ["--set", "join.horizon=10min", "--set", "join.lateness=1min", "--set", "batch.events_max=10"];
    let missed = books(&[&file], &data, &[&settings[..], &["--workers", "1"]].concat());
    assert!(missed.n("late") > 20);
    // Two halves of the requests, each by itself: the sets are united.
    let half = |odd: u64| -> String {
        events.iter().filter(|event| event.request % 2 == odd).map(Event::line).collect()
    };
    for odd in [0, 1] {
        let half = place.write(&format!("half-{odd}.jsonl"), half(odd));
        let found = backfill(&data, &[half.to_str().unwrap()]);
        assert!(found["rows_grown"].as_u64() > Some(0) && found["held_by"].is_null(), "{found}");
    }
    assert_eq!(without_exact(&csv(&data)), contract(&events));
    assert_eq!(check_archive(&data, &batch), files_below(&batch.join("tallies")).len());
    assert!(rows(&data) == rows(&batch));
    assert_eq!(backfill(&data, &[file.to_str().unwrap()])["epochs"], json!([]));
    assert_eq!(topic(&data, "dead-letters").len(), 1, "the replay's");

    // The table is lost; the archive has all of it, down to the requests.
    for name in ["table.sqlite", "table.sqlite-wal", "table.sqlite-shm"] {
        drop(std::fs::remove_file(data.join(name)));
    }
    let restored = backfill(&data, &["--archive"]);
    assert_eq!(restored["rows_new"].as_u64(), Some(rows(&batch).len() as u64), "{restored}");
    assert!(rows(&data) == rows(&batch));
    let request = format!("{:016x}", events.iter().find(|event| event.play).unwrap().request);
    let explained = |data| on(data, &["explain", "request", &request]).ok();
    assert_eq!(explained(&data), explained(&batch));
}

/// A run of the program that is killed when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Running {
    fn start(data: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uptake"));
        command
            .args(["run", "--workers", "1", "--set", "batch.tick=10ms"])
            .args(LIVE)
            .arg("--data")
            .arg(data);
        Self(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Waits until a checkpoint says that so many records were read.
    fn has_read(&mut self, data: &Path, records: usize) {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let printed = on(data, &["ledger", "--json"]);
            let ledger: Value = serde_json::from_str(&printed.stdout).unwrap_or_default();
            if ledger["read"].as_u64() == Some(records as u64) {
                return;
            }
            assert!(self.0.try_wait().unwrap().is_none(), "the run ended");
            assert!(Instant::now() < until, "{ledger}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(mut self) {
        Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn a_backfill_beside_a_live_run_disturbs_nothing() {
    let place = Place::new();
    let data = place.data();
    std::fs::create_dir(&data).unwrap();
    let (mut events, text) = stream(0, 4);
    append(&place, &text);
    let mut run = Running::start(&data);
    run.has_read(&data, events.len() + 1);
    let found = backfill(&data, &["--from-time", "all"]);
    assert_eq!(found["held_by"], "main");
    assert_eq!(without_exact(&csv(&data)), contract(&events));
    // More comes, read by both.
    let (more, more_text) = stream(5, 5);
    append(&place, &more_text);
    backfill(&data, &["--from-time", "all"]);
    events.extend(more);
    assert_eq!(without_exact(&csv(&data)), contract(&events), "whatever the live run has read of it");
    run.has_read(&data, events.len() + 2);
    assert_eq!(without_exact(&csv(&data)), contract(&events));
    run.stop();
    let balanced: Value = serde_json::from_str(&on(&data, &["ledger", "--json"]).ok()).unwrap();
    assert_eq!(balanced["balances"], true);
    backfill(&data, &["--from-time", "all"]);
    assert_eq!(without_exact(&csv(&data)), contract(&events));
    check_archive(&data, &batch_run(&place, "batch", &(text + &more_text)));
    // Goes on from its own checkpoint, which the backfills have not touched.
    let stderr = live(&data, &["run", "--until-caught-up"]);
    assert!(stderr.stderr.contains("going on from checkpoint"), "{}", stderr.stderr);
    assert_eq!(without_exact(&csv(&data)), contract(&events));
}

#[test]
fn late_events_are_listed_by_age_and_epoch() {
    let place = Place::new();
    let data = place.data();
    let (_, text) = stream(0, 6);
    append(&place, &text);
    live(&data, &["run", "--until-caught-up", "--workers", "1"]).ok();
    let kept = topic(&data, "late");
    let distinct: BTreeSet<String> = kept
        .iter()
        .map(|record| {
            let mut event: Value = serde_json::from_slice(&record.value).unwrap();
            event.as_object_mut().unwrap().remove("age_ms");
            event.to_string()
        })
        .collect();
    let list = || -> Vec<Value> {
        let text = on(&data, &["late", "list", "--json"]).ok();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let epochs = list();
    let late: u64 = epochs.iter().map(|epoch| epoch["late"].as_u64().unwrap()).sum();
    assert_eq!(late, distinct.len() as u64);
    for epoch in &epochs {
        let ages = epoch["late_by_age"].as_object().unwrap();
        assert_eq!(ages.keys().collect::<Vec<_>>(), ["0-1h", "1-3h", "12-24h", "24h-", "3-6h", "6-12h"]);
        assert_eq!(ages.values().map(|n| n.as_u64().unwrap()).sum::<u64>(), epoch["late"].as_u64().unwrap());
    }
    assert_eq!(epochs[0]["epoch_start"], "2024-01-15T00:00:00.000Z");
    let text = on(&data, &["late", "list"]).ok();
    assert!(text.contains("24h-") && text.contains("2024-01-15 00:30"), "{text}");
    assert!(text.ends_with(&format!("\n{late} late events in {} epochs\n", epochs.len())), "{text}");
    // Kept twice around a crash, they are the same events.
    {
        use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Record};
        let (log, _) = EmbeddedLog::open(&data, LogOptions::default()).unwrap();
        let again: Vec<Record> = kept.iter().map(|r| Record::new(r.key.clone(), r.value.clone())).collect();
        log.append("late", 0, &again, 1).unwrap();
    }
    assert_eq!(list(), epochs);
}

#[test]
fn mistakes_are_told() {
    let place = Place::with("i r1 v1 10:00 | p r1 v1 10:01");
    let (data, file) = (place.data(), place.path("in/events.jsonl"));
    let file = file.to_str().unwrap();
    append(&place, &common::events("i r1 v1 10:00 | p r1 v1 10:01"));
    let backfill = |args: &[&str]| live(&data, &[&["backfill"], args].concat());
    on(&place.path("nowhere"), &["backfill", "--archive"]).fails(2, &["nowhere", "no such directory"]);
    assert!(!place.path("nowhere").exists());
    let input = place.path("in");
    on(&input, &["backfill", "--archive"]).fails(2, &["holds no tallies", "archive.url"]);
    assert_eq!(common::files_below(&input).len(), 1, "nothing is made where nothing is");
    backfill(&[]).fails(2, &["--from-offset", "--from-time", "--archive"]);
    backfill(&[file, "--archive"]).fails(2, &["--archive", "cannot be used with"]);
    backfill(&["--from-offset", "0", "--from-time", "all"]).fails(2, &["cannot be used with"]);
    backfill(&["--from-offset", "3"]).fails(2, &["--from-offset 3", "events", "offset 2"]);
    backfill(&["--from-offset", "-1"]).fails(2, &["--from-offset"]);
    backfill(&["--from-time", "yesterday"]).fails(2, &["yesterday", "2026-01-15T09:30:00Z"]);
    backfill(&["--from-time", "9999-01-01T00:00:00Z"]).fails(2, &["9999-01-01", "nothing was appended"]);
    backfill(&["no-such-file.jsonl"]).fails(2, &["no-such-file.jsonl"]);
    backfill(&["--from-offset", "0", "--set", "join.kind=left"]).fails(2, &["another meaning"]);
    backfill(&["--from-offset", "2"]).ok();
    assert_eq!(csv(&data).lines().count(), 1);
    backfill(&["--from-offset", "0"]).ok();
    // Where the table is lost nobody says how long an epoch was but the archive.
    for name in ["table.sqlite", "table.sqlite-wal", "table.sqlite-shm"] {
        drop(std::fs::remove_file(data.join(name)));
    }
    backfill(&["--archive", "--set", "epoch.length=10min"]).fails(2, &["1800000 ms", "epoch.length"]);
    backfill(&["--archive"]).ok();
    assert_eq!(common::told(&csv(&data)), "v1 10:00 1/1");
}
