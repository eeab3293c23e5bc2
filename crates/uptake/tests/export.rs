//! What is exported is what was counted, late, unusable or served: no more, no less, and once.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::live::{catch_up, seeded};
use common::{
    HALF_HOUR_MS, MINUTE_MS, Place, Printed, events, files_below, late_events, parquet_rows, topic, uptake,
};
use serde_json::{Value, json};
use uptake_model::contract;
use uptake_model::join::JoinRules;
use uptake_model::{Event, EventTime, Kind, RequestId, VideoHash};
use uptake_sim::Rng;

/// 2026-01-15T00:00Z.
const START_MS: i64 = 1_768_435_200_000;

fn export(args: &[&str]) -> Value {
    serde_json::from_str(&uptake([&["export"], args, &["--json"]].concat()).ok()).unwrap()
}

fn on(data: &Path, args: &[&str]) -> Printed {
    uptake([args, &["--data", data.to_str().unwrap()]].concat())
}

fn below(rng: &mut Rng, n: u64) -> i64 {
    (rng.next_u64() % n) as i64
}

/// Events of some requests over six hours, some of them twice.
fn some_events(rng: &mut Rng) -> Vec<Event> {
    let mut all = Vec::new();
    for request in 0..400u64 {
        let start = START_MS + below(rng, 12 * HALF_HOUR_MS as u64);
        for _ in 0..1 + below(rng, 11) {
            let event = Event {
                request: RequestId(request.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 << 63),
                video: VideoHash::from_text(format!("v{}", below(rng, 20)).as_bytes()),
                time: EventTime(start + below(rng, 200) * MINUTE_MS),
                kind: if below(rng, 5) == 0 { Kind::Play } else { Kind::Impression },
                ..Event::default()
            };
            all.push(event);
            if below(rng, 20) == 0 {
                all.push(event);
            }
        }
    }
    all
}

fn shuffle(events: &mut [Event], rng: &mut Rng) {
    for n in (1..events.len()).rev() {
        events.swap(n, below(rng, n as u64 + 1) as usize);
    }
}

fn line(event: &Event, videos: &BTreeMap<VideoHash, String>) -> String {
    let kind = if event.kind == Kind::Play { "play" } else { "impression" };
    let country = if event.request.0.is_multiple_of(3) { r#","country":"BR""# } else { "" };
    format!(
        "{{\"kind\":\"{kind}\",\"request_id\":\"{}\",\"video_id\":\"{}\",\"timestamp\":{}{country}}}\n",
        event.request, videos[&event.video], event.time.0
    )
}

#[test]
fn joined_events_are_those_of_the_contract() {
    let mut rng = seeded("joined_events_are_those_of_the_contract");
    let ids = (0..20).map(|n| format!("v{n}"));
    let videos: BTreeMap<_, _> = ids.map(|id| (VideoHash::from_text(id.as_bytes()), id)).collect();
    let settings = ["--set", r#"segments=[[],["country"]]"#, "--set", "archive.shards=3"];
    for _ in 0..6 {
        let mut all = some_events(&mut rng);
        let counts = contract::counting(&all, &JoinRules::default());
        let expected: BTreeSet<(u64, bool, String, i64)> = all
            .iter()
            .zip(&counts)
            .filter(|(_, counts)| **counts)
            .map(|(e, _)| (e.request.0, e.kind == Kind::Play, videos[&e.video].clone(), e.time.0))
            .collect();
        assert!(expected.len() > 100 && expected.len() < all.len(), "{} of {}", expected.len(), all.len());
        let place = Place::new();
        let mut exports = Vec::new();
        for (n, workers) in [(0, "1"), (1, "2")] {
            shuffle(&mut all, &mut rng);
            // What cannot be used is in no export, and keeps none from being written.
            let text: String =
                all.iter().map(|event| line(event, &videos)).collect::<String>() + "nonsense\n";
            let file = place.write(&format!("in{n}/events.jsonl"), text);
            let to = place.path(&format!("out{n}"));
            let args = [file.to_str().unwrap(), "--to", to.to_str().unwrap(), "--workers", workers];
            let told = export(&[&["joined"], &args[..], &settings].concat());
            assert_eq!(told["rows"], json!(expected.len()), "{told}");
            let again = export(&[&["joined"], &args[..], &settings].concat());
            assert_eq!((&again["written"], &again["same"]), (&json!(0), &told["written"]), "{again}");
            exports.push(files_below(&to));
            let mut found = BTreeSet::new();
            for row in parquet_rows(&to) {
                let is_br = row["request_id"].as_u64().unwrap().is_multiple_of(3);
                assert_eq!(row["country"], if is_br { json!("BR") } else { Value::Null });
                let time = row["epoch_number"].as_i64().unwrap();
                let request = row["request_id"].as_u64().unwrap();
                let video = row["video_id"].as_str().unwrap().to_owned();
                let at: jiff::Timestamp =
                    row["timestamp"].as_str().unwrap().replace(" +00:00", "Z").parse().unwrap();
                assert_eq!(at.as_millisecond().div_euclid(HALF_HOUR_MS), time);
                assert!(
                    found.insert((request, row["kind"] == "play", video, at.as_millisecond())),
                    "twice: {row}"
                );
            }
            assert_eq!(found, expected);
        }
        assert_eq!(exports[0], exports[1], "other workers and another order, other bytes");
    }
}

#[test]
fn a_file_with_other_rows_stays_unless_it_is_to_be_replaced() {
    let place = Place::with("i r1 v1 10:00 | p r1 v1 10:01");
    let (some, out) = (place.path("in"), place.path("out"));
    let args =
        |input: &Path| ["joined", input.to_str().unwrap(), "--to", out.to_str().unwrap()].map(str::to_owned);
    let told = |input: &Path, more: &[&str]| {
        let args = args(input);
        export(&[&args.iter().map(String::as_str).collect::<Vec<_>>()[..], more].concat())
    };
    assert_eq!(told(&some, &[])["written"], 1);
    let more = place.write("more/events.jsonl", events("i r1 v1 10:00 | p r1 v1 10:01 | i r1 v2 10:00"));
    let kept = told(&more, &[]);
    assert_eq!((&kept["written"], kept["other"].as_array().unwrap().len()), (&json!(0), 1), "{kept}");
    assert_eq!(parquet_rows(&out).len(), 2);
    assert_eq!(told(&more, &["--replace"])["written"], 1);
    assert_eq!(parquet_rows(&out).len(), 3);
}

#[test]
fn what_a_live_run_still_holds_is_left_out() {
    let place = Place::with(
        "i r1 v1 10:00 | p r1 v1 10:01 | i r2 v1 11:00 | p r2 v1 11:01 | i r3 v1 18:00 | p r3 v1 18:01",
    );
    let (data, out) = (place.data(), place.path("out"));
    let settings = ["join.horizon=10min", "join.lateness=1min"];
    on(&data, &["append", place.path("in").to_str().unwrap()]).ok();
    let joined = || {
        let paths = ["joined", "--data", data.to_str().unwrap(), "--to", out.to_str().unwrap()];
        export(&[&paths[..], &["--set", settings[0], "--set", settings[1]]].concat())
    };
    catch_up(&data, &settings);
    // By the watermark of 18:01 less the lateness everything before half past five is sealed.
    let told = joined();
    assert_eq!((&told["epochs"], &told["epochs_left_out"], &told["rows"]), (&json!(2), &json!(1), &json!(4)));
    let later = place.write("later/events.jsonl", events("i r9 v9 23:50"));
    on(&data, &["append", later.to_str().unwrap()]).ok();
    catch_up(&data, &settings);
    let told = joined();
    assert_eq!((&told["written"], &told["same"], &told["rows"]), (&json!(1), &json!(2), &json!(6)), "{told}");
    assert_eq!(parquet_rows(&out).len(), 6);
    let paths = ["export", "joined", "--data", data.to_str().unwrap(), "--to", out.to_str().unwrap()];
    uptake(paths).fails(2, &["another meaning", "join.horizon=600000ms"]);
    // By the lateness of the run: a day ago nothing was sealed, whatever is said here.
    let slow = place.path("slow");
    on(&slow, &["append", place.path("in").to_str().unwrap()]).ok();
    let paths = ["--data", slow.to_str().unwrap(), "--to", out.to_str().unwrap()];
    let refused = uptake([&["export", "joined"], &paths[..]].concat());
    refused.fails(2, &["no live run has a checkpoint there", "--all"]);
    catch_up(&slow, &["join.lateness=24h"]);
    assert_eq!(export(&[&["joined"], &paths[..]].concat())["epochs"], 0);
    assert_eq!(export(&[&["joined", "--all", "--replace"], &paths[..]].concat())["epochs"], 3);
}

#[test]
fn files_that_cannot_be_read_to_their_end_write_nothing() {
    use std::io::Write;
    let place = Place::with("i r1 v1 10:00 | p r1 v1 10:01");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(events("i r2 v2 10:00 | p r2 v2 10:01").as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let more = place.write("in/more.jsonl.gz", &packed[..packed.len() - 12]);
    let (input, out) = (place.path("in"), place.path("out"));
    let paths = ["export", "joined", input.to_str().unwrap(), "--to", out.to_str().unwrap()];
    uptake(paths).fails(1, &["more.jsonl.gz"]);
    assert!(!out.exists());
    std::fs::write(more, packed).unwrap();
    uptake(paths).ok();
    assert_eq!(parquet_rows(&out).len(), 4);
}

#[test]
fn late_events_and_dead_letters_are_exported_once() {
    let place = Place::with("i r1 v1 10:00 | p r1 v1 10:01 | i r9 v9 20:00 country=BR");
    let (data, out) = (place.data(), place.path("out"));
    let settings = [r#"input.topics=["events"]"#, "input.partitions=1"];
    let append = |name: &str, text: &str| {
        let file = place.write(name, text);
        on(&data, &["append", file.to_str().unwrap(), "--set", settings[0], "--set", settings[1]]).ok();
        catch_up(&data, &settings);
    };
    append("first/events.jsonl", &(events("i r1 v1 10:00 | p r1 v1 10:01 | i r9 v9 20:00") + "nonsense\n"));
    append("second/events.jsonl", &(events("i r2 v2 10:00 | p r2 v2 10:01") + "{\"a\":1}\n\n"));
    let exported =
        |what: &str| export(&[what, "--data", data.to_str().unwrap(), "--to", out.to_str().unwrap()]);
    assert_eq!(exported("late")["rows"], 2);
    assert_eq!(exported("dead-letters")["rows"], 2);
    for what in ["late", "dead-letters"] {
        assert_eq!(
            exported(what),
            json!({"rows": 0, "written": 0, "same": 0, "other": [], "left_out": 0, "dropped": 0})
        );
    }
    append("third/events.jsonl", &(events("i r3 v3 10:00") + "more nonsense\n"));
    assert_eq!(
        (exported("late")["rows"].clone(), exported("dead-letters")["rows"].clone()),
        (json!(1), json!(1))
    );

    let late = parquet_rows(&out.join("late"));
    let kept = late_events(&data);
    assert_eq!(late.len(), kept.len());
    for (n, (row, event)) in late.iter().zip(&kept).enumerate() {
        let id = RequestId::from_text(event["request_id"].as_str().unwrap().as_bytes()).0;
        assert_eq!((&row["offset"], &row["request_id"]), (&json!(n), &json!(id)));
        for column in ["kind", "video_id", "age_ms"] {
            assert_eq!(row[column], event[column], "{row}");
        }
    }
    let letters = parquet_rows(&out.join("dead-letters"));
    let bytes = topic(&data, "dead-letters").into_iter().map(|record| record.value);
    let reasons: Vec<&str> = letters.iter().map(|row| row["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["not-json", "no-kind", "not-json"]);
    let exported: Vec<usize> = letters.iter().map(|row| row["offset"].as_u64().unwrap() as usize).collect();
    assert_eq!((exported, bytes.count()), (vec![0, 1, 2], 3));
}

#[test]
fn where_it_goes_is_refused_where_it_cannot() {
    let place = Place::with("i r1 v1 10:00 | p r1 v1 10:01");
    let input = place.path("in");
    let to = |to: &str| uptake(["export", "joined", input.to_str().unwrap(), "--to", to]);
    to("kafka://host:9092").fails(2, &["--to", "kafka://host:9092", "an archive"]);
    to("memory:").fails(2, &["--to", "directory"]);
    let missing = place.path("nothing");
    uptake(["export", "late", "--data", missing.to_str().unwrap(), "--to", "x"])
        .fails(2, &["no such directory"]);
    assert!(!missing.exists());
}
