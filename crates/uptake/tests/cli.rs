//! What the commands promise to people and scripts: formats, segments, explanations, inputs of
//! every packing, caps, lateness, and the same bytes when the same is done twice.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{
    DAY_MS, HALF_HOUR_MS, Place, books, csv, events, files_below, late_events, replay, told, uptake,
};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::{Value, json};

/// Two countries, two devices, three requests that play.
const DAY: &str = "
    i 00000000000000a1 v1 10:00 country=BR device=tv | i 00000000000000a1 v2 10:00 country=BR device=tv |
    p 00000000000000a1 v1 10:01 country=BR device=tv |
    i 00000000000000a2 v1 10:05 country=BR device=web | p 00000000000000a2 v1 10:40 country=BR device=web |
    i r3 v2 10:10 country=US device=tv | p r3 v2 10:11 country=US device=tv |
    i r4 v1 10:12 country=US device=tv";
const DAY_TOLD: &str = "v1 10:00 1/2 | v1 10:30 1/0 | v2 10:00 1/2";

const SEGMENTS: &str = r#"segments=[[],["country"],["country","device"]]"#;

/// The epoch that begins at 10:00 of the tests' day.
const TEN: i64 = DAY_MS / HALF_HOUR_MS + 20;

/// Runs a command on a data directory.
fn on(data: &Path, args: &[&str]) -> common::Printed {
    let mut all: Vec<&str> = args.to_vec();
    all.extend(["--data", data.to_str().unwrap()]);
    uptake(all)
}

/// `tallies --format csv` of a segment, told.
fn segment(place: &Place, segment: &str) -> String {
    told(&on(&place.data(), &["tallies", "--format", "csv", "--segment", segment]).ok())
}

/// Checks what a stream of events comes to, with settings.
#[track_caller]
fn check(events_text: &str, settings: &[&str], expected: &str) {
    let place = Place::with(events_text);
    let mut args = Vec::new();
    settings.iter().for_each(|setting| args.extend(["--set", setting]));
    place.books(&args);
    assert_eq!(place.told(), expected, "{events_text} with {settings:?}");
}

#[test]
fn what_counts() {
    check("i r1 v1 10:00 | p r1 v1 10:01", &[], "v1 10:00 1/1");
    check("i r1 v1 10:00 | i r1 v1 10:00 | p r1 v1 10:01", &[], "v1 10:00 1/1"); // a duplicate
    check("i r1 v1 10:00 | i r1 v1 10:07 | p r1 v1 10:01", &[], "v1 10:00 1/1"); // seen twice
    check("p r2 v1 10:01", &[], ""); // never shown
    check("i r2 v1 10:01", &[], ""); // never played
    check("p r1 v1 10:01 | i r1 v1 10:00", &[], "v1 10:00 1/1"); // the play came first
    // The join is on the request: all that was shown with it counts, the play's video or not.
    check("i r1 v1 10:00 | i r1 v2 10:00 | p r1 v2 10:01", &[], "v1 10:00 0/1 | v2 10:00 1/1");
    check("i r1 v1 10:00 | p r1 v9 10:01", &[], "v1 10:00 0/1 | v9 10:00 1/0");
    check("i r1 v1 10:00 | p r2 v1 10:01", &[], ""); // another request
    // Each event in the epoch of its own time.
    check("i r1 v1 10:29 | p r1 v1 10:31", &[], "v1 10:00 0/1 | v1 10:30 1/0");
    check("i r1 v1 10:29:59 | p r1 v1 10:30", &[], "v1 10:00 0/1 | v1 10:30 1/0");
    // Exactly the horizon apart, and a second more.
    check("i r1 v1 10:00 | p r1 v1 11:30", &[], "v1 10:00 0/1 | v1 11:30 1/0");
    check("i r1 v1 10:00 | p r1 v1 11:30:01", &[], "");
    check("i r1 v1 10:00 | p r1 v1 11:30", &["join.horizon=1h"], "");
    check("i r1 v1 10:00 | p r1 v1 10:00", &["join.horizon=0s"], "v1 10:00 1/1");
    // A late impression of an active request counts.
    check(
        "i r1 v1 10:00 | p r1 v1 10:01 | i r9 v9 10:50 | i r1 v6 10:20",
        &[],
        "v1 10:00 1/1 | v6 10:00 0/1",
    );
    // Left: every impression counts, a play only with an impression.
    check("i r1 v1 10:00 | p r2 v1 10:01", &["join.kind=left"], "v1 10:00 0/1");
    check("i r1 v1 10:00 | p r1 v1 12:00", &["join.kind=left"], "v1 10:00 0/1");
    check("i r1 v1 10:00 | p r1 v1 10:01", &["join.kind=left"], "v1 10:00 1/1");
    // A test device does not count, wherever it says so.
    check("i r1 v1 10:00 device=test | p r1 v1 10:01", &[], "");
    check("i r1 v1 10:00 device=test | p r1 v1 10:01", &["filters=[]"], "v1 10:00 1/1");
}

#[test]
fn twice_the_same_is_the_same_to_the_byte() {
    let place = Place::with(DAY);
    let first = place.books(&["--workers", "2", "--set", SEGMENTS]);
    let (table, archive) = (place.csv(), files_below(&place.path("data/tallies")));
    assert_eq!(told(&table), DAY_TOLD);
    let names: Vec<&str> = archive.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "epoch=2024-01-15T10-00/shard-000-of-001.parquet",
            "epoch=2024-01-15T10-30/shard-000-of-001.parquet"
        ]
    );
    // Into the same data directory: nothing is counted again.
    let second = place.books(&["--workers", "1", "--set", SEGMENTS]);
    assert_eq!(second.n("counted"), first.n("counted"));
    assert_eq!(place.csv(), table);
    assert!(files_below(&place.path("data/tallies")) == archive);
    // Into another one, with other workers, batches and method.
    let other = place.path("other");
    let args =
        ["--workers", "4", "--set", SEGMENTS, "--set", "batch.events_max=1", "--set", "join.method=window"];
    books(&[&place.path("in")], &other, &args);
    assert_eq!(csv(&other), table);
    assert!(files_below(&other.join("tallies")) == archive);
}

#[test]
fn csv_is_sorted_bytewise_and_by_epoch() {
    let ids = ["v10", "v2", "V2", "é", "z", "a b", "-1", "v"];
    let mut file = String::new();
    for (number, id) in ids.iter().enumerate() {
        for (kind, minutes) in [("impression", 700), ("play", 650), ("impression", 620)] {
            let event = json!({"kind": kind, "request_id": format!("r{number}"), "video_id": id,
                "timestamp": DAY_MS + minutes * 60_000});
            file.push_str(&format!("{event}\n"));
        }
    }
    let place = Place::new();
    place.write("in/events.jsonl", file);
    place.books(&[]);
    let text = place.csv();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("video_id,epoch,plays,impressions,exact"));
    let keys: Vec<(&str, i64)> =
        lines.map(|l| l.split(',').collect::<Vec<_>>()).map(|c| (c[0], c[1].parse().unwrap())).collect();
    assert_eq!(keys.len(), 3 * ids.len());
    assert!(keys.windows(2).all(|w| w[0] < w[1]), "{keys:?}");
}

#[test]
fn segments_are_asked_for_in_any_order() {
    let place = Place::with(DAY);
    place.books(&["--set", SEGMENTS]);
    assert_eq!(place.told(), DAY_TOLD);
    assert_eq!(segment(&place, ""), DAY_TOLD);
    assert_eq!(segment(&place, "country=BR"), "v1 10:00 1/2 | v1 10:30 1/0 | v2 10:00 0/1");
    assert_eq!(segment(&place, "country=US"), "v2 10:00 1/1");
    assert_eq!(segment(&place, "country=BR,device=tv"), "v1 10:00 1/1 | v2 10:00 0/1");
    assert_eq!(segment(&place, "device=tv, country=BR"), "v1 10:00 1/1 | v2 10:00 0/1");
    assert_eq!(segment(&place, "device=web,country=BR"), "v1 10:00 0/1 | v1 10:30 1/0");
    // A group nobody was in has no tallies.
    assert_eq!(segment(&place, "country=FR"), "");
    for unknown in ["device=tv", "city=Rio", "country=BR,device=tv,row=x"] {
        on(&place.data(), &["tallies", "--segment", unknown]).fails(2, &[unknown, "[country,device]"]);
    }
    on(&place.data(), &["tallies", "--segment", "BR"]).fails(2, &["dimension=value"]);
}

/// More than one block of input: the names of a segment's values are there when they are needed.
#[test]
fn segments_of_an_input_of_many_blocks() {
    let place = Place::new();
    let mut file = String::new();
    for number in 0..5_000 {
        let country = ["BR", "US", "FR"][number % 3];
        let row = format!("r{number} v{} 10:00 country={country}", number % 11);
        file.push_str(&events(&format!("i {row} | p {row}")));
    }
    place.write("in/events.jsonl", file);
    for workers in ["1", "2", "4"] {
        let data = place.path(&format!("data-{workers}"));
        let books = books(&[&place.path("in")], &data, &["--workers", workers, "--set", SEGMENTS]);
        assert_eq!(books.n("counted"), 10_000);
        let text = on(&data, &["tallies", "--format", "csv", "--segment", "country=FR"]).ok();
        let plays: u64 =
            text.lines().skip(1).map(|l| l.split(',').nth(2).unwrap().parse::<u64>().unwrap()).sum();
        assert_eq!(plays, 1_666, "{workers} workers");
    }
}

#[test]
fn values_of_dimensions_may_hold_anything() {
    let place = Place::new();
    let mut file = String::new();
    for (request, country) in
        [("r1", json!("a,b=c%")), ("r2", json!("")), ("r3", json!(7)), ("r4", json!("日本"))]
    {
        for kind in ["impression", "play"] {
            let event = json!({"kind": kind, "request_id": request, "video_id": request,
                "timestamp": DAY_MS, "dimensions": {"country": country}});
            file.push_str(&format!("{event}\n"));
        }
    }
    place.write("in/events.jsonl", file);
    place.books(&["--set", r#"segments=[["country"]]"#]);
    for (asked, video) in
        [("country=", "r2"), ("country=7", "r3"), ("country=日本", "r4"), ("country=a%2Cb%3Dc%25", "r1")]
    {
        assert_eq!(segment(&place, asked), format!("{video} 00:00 1/1"), "{asked}");
    }
}

#[test]
fn json_is_one_object_a_line() {
    let place = Place::with(DAY);
    place.books(&["--set", SEGMENTS]);
    let text = on(&place.data(), &["tallies", "--format", "json", "--segment", "country=US"]).ok();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = json!({"video_id": "v2", "segment": "country=US", "epoch": TEN,
        "epoch_start": "2024-01-15T10:00:00.000Z", "plays": 1, "impressions": 1, "exact": true, "sealed": true});
    assert_eq!(rows, [expected]);
}

#[test]
fn tables_for_people() {
    let place = Place::with(DAY);
    let printed =
        uptake(["replay", place.path("in").to_str().unwrap(), "--data", place.data().to_str().unwrap()]);
    let text = printed.ok();
    for part in
        ["1 files read", "read", "counted", "expired", "every record is accounted for", "rows written"]
    {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
    let text = on(&place.data(), &["tallies"]).ok();
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let ten = TEN.to_string();
    assert_eq!(words[0], ["video", "epoch", "from", "plays", "impressions", "take", "rate"]);
    assert_eq!(words[1], ["v1", &ten, "2024-01-15", "10:00", "1", "2", "50.0", "%"]);
    assert_eq!(words.len(), 4);
}

#[test]
fn top_is_by_plays_of_one_epoch() {
    let place =
        Place::with(&format!("{DAY} | i r7 v2 10:13 | p r7 v2 10:14 | i r8 v3 10:13 | p r8 v1 10:14"));
    place.books(&["--set", SEGMENTS]);
    // v1 and v2 with 2 plays each: v2 was shown more.
    let top = on(&place.data(), &["top", "--epoch", &TEN.to_string(), "--limit", "2"]).ok();
    let rows: Vec<Vec<&str>> = top.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(top.starts_with(&format!("2024-01-15 10:00 to 10:30 UTC (epoch {TEN}), everyone\n")), "{top}");
    assert_eq!(
        rows[2..],
        [vec!["1", "v2", "2", "3", "66.7", "%"], vec!["2", "v1", "2", "2", "100.0", "%"]],
        "{top}"
    );
    // Without an epoch, the latest that has tallies.
    let latest = on(&place.data(), &["top"]).ok();
    assert!(latest.contains(&format!("(epoch {})", TEN + 1)) && latest.contains("v1"), "{latest}");
    let us = on(&place.data(), &["top", "--segment", "country=US"]).ok();
    assert!(us.contains("country=US") && us.contains("v2") && !us.contains("v1"), "{us}");
    let none = on(&place.data(), &["top", "--epoch", "1"]).ok();
    assert!(none.contains("no tallies"), "{none}");
    on(&place.data(), &["top", "--segment", "city=Rio"]).fails(2, &["city=Rio"]);
}

#[test]
fn explain_goes_down_to_the_requests() {
    let place = Place::with(DAY);
    place.books(&["--set", SEGMENTS]);
    let data = place.data();
    let text = on(&data, &["explain", "request", "00000000000000a1"]).ok();
    // Two videos, each in three segments.
    assert!(text.contains("request 00000000000000a1 counts in 6 tallies"), "{text}");
    let of_v1: Vec<&str> = text.lines().filter(|l| l.starts_with("v1") && l.contains("everyone")).collect();
    assert_eq!(of_v1.len(), 1, "{text}");
    let words: Vec<&str> = of_v1[0].split_whitespace().collect();
    assert_eq!(words, ["v1", "everyone", &TEN.to_string(), "2024-01-15", "10:00", "yes", "yes"]);
    // An id that is no number is kept as its hash, and found by its text or by the hash.
    let text = on(&data, &["explain", "request", "r3"]).ok();
    let hash = text.lines().next().unwrap().strip_prefix("request r3 is kept as ").unwrap().to_owned();
    assert!(text.contains("counts in 3 tallies"), "{text}");
    assert!(on(&data, &["explain", "request", &hash]).ok().contains("counts in 3 tallies"));
    for nowhere in ["r4", "never-heard-of"] {
        assert!(on(&data, &["explain", "request", nowhere]).ok().contains("counts in no sealed tally"));
    }

    let ten = TEN.to_string();
    let text = on(&data, &["explain", "video", "v1", "--epoch", &ten]).ok();
    assert!(text.contains("played by 1 of 2 requests that were shown it (50.0 %)"), "{text}");
    assert!(text.contains("played: 00000000000000a1\n"), "{text}");
    assert!(text.contains("shown: 00000000000000a1 00000000000000a2\n"), "{text}");
    let text = on(&data, &["explain", "video", "v1", "--epoch", &ten, "--limit", "1"]).ok();
    assert!(text.contains("shown: 00000000000000a1 and 1 more\n"), "{text}");
    let tv = ["explain", "video", "v1", "--epoch", &ten, "--segment", "device=tv,country=BR"];
    let text = on(&data, &tv).ok();
    assert!(text.contains("country=BR,device=tv") && text.contains("shown: 00000000000000a1\n"), "{text}");
    // Where it has none, where it has some.
    let text = on(&data, &["explain", "video", "v1", "--epoch", "7"]).ok();
    assert!(text.contains(&format!("it has tallies in the epochs {ten} {}", TEN + 1)), "{text}");
    let text = on(&data, &["explain", "video", "v77", "--epoch", &ten]).ok();
    assert!(text.contains("none of its events counted"), "{text}");
}

#[test]
fn the_printed_configuration_is_a_configuration() {
    let place = Place::with(DAY);
    let reference = uptake(["config"]).ok();
    let file = place.write("uptake.toml", &reference);
    place.books(&["--config", file.to_str().unwrap()]);
    assert_eq!(place.told(), DAY_TOLD);
    // A setting wins over the file.
    let left = place.path("left");
    books(&[&place.path("in")], &left, &["--config", file.to_str().unwrap(), "--set", "join.kind=left"]);
    assert_eq!(told(&csv(&left)), "v1 10:00 1/3 | v1 10:30 1/0 | v2 10:00 1/2");
}

#[test]
fn epochs_of_another_length() {
    let place = Place::with(DAY);
    place.books(&["--set", "epoch.length=10min"]);
    let ten = DAY_MS / 600_000 + 60;
    let expected = format!(
        "video_id,epoch,plays,impressions,exact\nv1,{ten},1,2,true\nv1,{},1,0,true\nv2,{ten},0,1,true\nv2,{},1,1,true\n",
        ten + 4,
        ten + 1
    );
    assert_eq!(place.csv(), expected);
    let json = on(&place.data(), &["tallies", "--format", "json"]).ok();
    assert!(json.contains("\"2024-01-15T10:40:00.000Z\""), "{json}");
    let top = on(&place.data(), &["top", "--epoch", &ten.to_string()]).ok();
    assert!(top.contains("2024-01-15 10:00 to 10:10 UTC"), "{top}");
    assert!(place.path("data/tallies/epoch=2024-01-15T10-40/shard-000-of-001.parquet").exists());
}

#[test]
fn a_data_directory_keeps_its_meaning() {
    let place = Place::with(DAY);
    place.books(&[]);
    let before = place.csv();
    for other in ["epoch.length=10min", "join.kind=left", "join.horizon=1h", "archive.shards=4"] {
        place
            .replay(&["--set", other])
            .fails(2, &["another meaning", "--data", place.data().to_str().unwrap()]);
        assert_eq!(place.csv(), before, "{other}");
    }
    // What does not change the meaning may change.
    for same in ["join.method=window", "batch.events_max=3", "join.horizon=5400s", "epoch.length=1800s"] {
        place.books(&["--set", same]);
        assert_eq!(place.csv(), before, "{same}");
    }
}

/// A table of rows as a Parquet file, as other people's tools write it.
fn write_parquet(path: &Path, rows: &[Value]) {
    let schema = "message events { required binary kind (UTF8); required binary request_id (UTF8); \
        required binary video_id (UTF8); required int64 timestamp; optional binary country (UTF8); \
        optional binary device (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
    let mut writer =
        SerializedFileWriter::new(std::fs::File::create(path).unwrap(), schema, properties).unwrap();
    // Several row groups.
    for rows in rows.chunks(3) {
        let mut group = writer.next_row_group().unwrap();
        for name in ["kind", "request_id", "video_id", "timestamp", "country", "device"] {
            let mut column = group.next_column().unwrap().unwrap();
            if name == "timestamp" {
                let times: Vec<i64> = rows.iter().map(|row| row[name].as_i64().unwrap()).collect();
                column.typed::<Int64Type>().write_batch(&times, None, None).unwrap();
            } else {
                let there: Vec<i16> = rows.iter().map(|row| i16::from(row[name].is_string())).collect();
                let texts: Vec<ByteArray> =
                    rows.iter().filter_map(|row| row[name].as_str()).map(Into::into).collect();
                let levels = ["country", "device"].contains(&name).then_some(there.as_slice());
                column.typed::<ByteArrayType>().write_batch(&texts, levels, None).unwrap();
            }
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn inputs_of_every_packing_give_one_table() {
    let place = Place::new();
    let lines = events(DAY);
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let gzip = |text: &str| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(text.as_bytes()).unwrap();
        packer.finish().unwrap()
    };
    let half = lines.match_indices('\n').nth(3).unwrap().0 + 1;
    let (first, second) = lines.split_at(half);
    place.write("plain/a.jsonl", &lines);
    place.write("array/a.json", Value::Array(rows.clone()).to_string());
    place.write("gzip/a.jsonl.gz", gzip(&lines));
    // Two gzip files one behind the other are one gzip file.
    place.write("gzips/a.ndjson.gz", [gzip(first), gzip(second)].concat());
    place.write("zstd/a.jsonl.zst", zstd::encode_all(lines.as_bytes(), 3).unwrap());
    // What a file is shows in its bytes, not in its name.
    place.write("misnamed/a.jsonl", gzip(&lines));
    std::fs::create_dir(place.path("parquet")).unwrap();
    write_parquet(&place.path("parquet/a.parquet"), &rows);
    place.write("mixed/1/a.jsonl", first);
    place.write("mixed/2/b.jsonl.zst", zstd::encode_all(second.as_bytes(), 3).unwrap());
    place.write("mixed/3/_SUCCESS", "");
    for folder in ["plain", "array", "gzip", "gzips", "zstd", "misnamed", "parquet", "mixed"] {
        let data = place.path(&format!("data-{folder}"));
        let books = books(&[&place.path(folder)], &data, &["--set", SEGMENTS]);
        assert_eq!((books.n("read"), books.n("dead")), (8, 0), "{folder}: {books:?}");
        assert_eq!(told(&csv(&data)), DAY_TOLD, "{folder}");
        let us = on(&data, &["tallies", "--format", "csv", "--segment", "country=US"]).ok();
        assert_eq!(told(&us), "v2 10:00 1/1", "{folder}");
    }
    // Files named one by one, the same one twice: an event applied twice changes nothing.
    let (plain, packed) = (place.path("plain/a.jsonl"), place.path("gzip/a.jsonl.gz"));
    let books = books(&[&plain, &packed, &plain], &place.data(), &[]);
    assert_eq!((books.n("read"), books.n("files"), books.n("duplicate")), (24, 3, 16), "{books:?}");
    assert_eq!(place.told(), DAY_TOLD);
}

#[test]
fn other_peoples_events_are_mapped() {
    let nested = |kind: &str, at: Value| {
        json!({"meta": {"type": kind, "at": at}, "ctx": {"page_view_id": "r1", "geo": {"country": "BR"}},
            "item": {"id": "v1"}, "request_id": "not this one"})
    };
    let seconds = DAY_MS / 1_000;
    for (unit, shown, played) in [
        ("ms", json!(DAY_MS), json!(DAY_MS + 90_500)),
        ("s", json!(seconds), json!(seconds as f64 + 90.5)),
        ("us", json!(DAY_MS * 1_000), json!(DAY_MS * 1_000 + 90_500_000)),
        ("ns", json!(DAY_MS * 1_000_000), json!(DAY_MS * 1_000_000 + 90_500_000_000)),
        ("rfc3339", json!("2024-01-15T00:00:00Z"), json!("2024-01-15T01:01:30.5+01:00")),
    ] {
        let place = Place::new();
        let lines = format!("{}\n{}\n", nested("view", shown), nested("start", played));
        place.write("in/theirs.jsonl", lines);
        let config = place.write(
            "uptake.toml",
            format!(
                "segments = [[], [\"country\"]]\nfilters = []\n[events]\ntimestamp_unit = \"{unit}\"\n\
                 [events.kind]\nimpression = [\"view\"]\nplay = [\"start\", \"resume\"]\n\
                 [events.fields]\nkind = \"meta.type\"\nrequest_id = \"ctx.page_view_id\"\n\
                 video_id = \"item.id\"\ntimestamp = \"meta.at\"\ndimensions = {{ country = \"ctx.geo.country\" }}\n\
                 [join]\nhorizon = \"90500ms\"\n"
            ),
        );
        let books = place.books(&["--config", config.to_str().unwrap()]);
        assert_eq!((books.n("counted"), books.n("dead")), (2, 0), "{unit}: {books:?}");
        assert_eq!(segment(&place, "country=BR"), "v1 00:00 1/1", "{unit}");
        // A millisecond less, and the pair lies beyond the horizon.
        let closer = place.path("closer");
        let args = ["--config", config.to_str().unwrap(), "--set", "join.horizon=90499ms"];
        assert_eq!(common::books(&[&place.path("in")], &closer, &args).n("counted"), 0, "{unit}");
    }
    // A timestamp of another unit is a dead letter, not a wrong epoch.
    let place = Place::with("i r1 v1 10:00 | p r1 v1 10:01");
    assert_eq!(place.books(&["--set", "events.timestamp_unit=rfc3339"]).dead("no-timestamp"), 2);
}

#[test]
fn what_filters_drop_is_counted_by_rule() {
    let place = Place::with(
        "i r1 v1 10:00 | p r1 v1 10:01 | i r2 v1 10:00 device=test | i r3 v1 10:00 member_id=m9 |
         p r3 v1 10:01 member_id=m9 | p r1 v2 10:02 watch=short | i r4 v1 10:00 device=test member_id=m9",
    );
    let rules =
        [r#"device = "test""#, r#"member_id in ["m8", "m9"]"#, r#"kind = "play" and watch = "short""#];
    let setting = format!("filters={}", json!(rules));
    let books = place.books(&["--set", &setting]);
    // The first rule that fits takes the event.
    let by_rule = json!({rules[0]: 2, rules[1]: 2, rules[2]: 1});
    assert_eq!((&books.0["filtered_by_rule"], books.n("filtered")), (&by_rule, 5));
    assert_eq!(place.told(), "v1 10:00 1/1");
}

#[test]
fn a_request_has_a_cap() {
    let mut rows = String::new();
    (0..100).for_each(|n| rows.push_str(&format!("i r1 v{n} 10:00 | ")));
    rows.push_str("i r2 v1 10:00 | p r2 v1 10:01 | p r1 v1 10:01");
    for (method, kind) in
        [("state", "inner"), ("window", "inner"), ("batch-to-window", "left"), ("state", "left")]
    {
        let place = Place::with(&rows);
        let settings = [format!("join.method={method}"), format!("join.kind={kind}")];
        let cap = ["--set", "join.request_events_max=40", "--set", &settings[0], "--set", &settings[1]];
        let books = place.books(&[&["--workers", "1"], cap.as_slice()].concat());
        assert_eq!(books.n("capped"), 61, "{method} {kind}: {books:?}");
        let off = place.path("off");
        let args = ["--set", "join.request_events_max=off", "--set", &settings[0], "--set", &settings[1]];
        let books = common::books(&[&place.path("in")], &off, &args);
        assert_eq!((books.n("capped"), books.n("counted")), (0, 103), "{method} {kind}: {books:?}");
    }
}

#[test]
fn a_member_has_a_cap_per_epoch() {
    let mut rows = String::new();
    for n in 0..50 {
        rows.push_str(&format!("i r{n} v{n} 10:00 member_id=robot | p r{n} v{n} 10:01 member_id=robot | "));
        rows.push_str(&format!("i n{n} w{n} 10:00 | p n{n} w{n} 10:01 | "));
    }
    rows.push_str("i h v1 10:00 member_id=human | p h v1 10:31 member_id=human | ");
    rows.push_str("i x v1 10:40 member_id=robot | p x v1 10:41 member_id=robot");
    let place = Place::with(&rows);
    for workers in ["1", "4"] {
        let data = place.path(&format!("data-{workers}"));
        let args = ["--workers", workers, "--set", "join.member_epoch_events_max=30"];
        let books = books(&[&place.path("in")], &data, &args);
        // 100 events of the robot in one epoch; those without a member have no cap.
        assert_eq!((books.n("capped"), books.n("counted")), (70, 134), "{books:?}");
    }
    assert_eq!(place.books(&[]).n("capped"), 0, "off unless configured");
}

/// Forty days of quiet traffic in the order of time: however many workers read one file, none of
/// them runs so far ahead that what another one has in its hands comes too late.
#[test]
fn an_input_in_order_is_never_late() {
    let place = Place::new();
    let mut file = String::new();
    for minute in 0..60_000 {
        let at = DAY_MS + minute * 60_000;
        for kind in ["impression", "play"] {
            file.push_str(&format!(
                "{{\"kind\":\"{kind}\",\"request_id\":\"r{minute}\",\"video_id\":\"v1\",\"timestamp\":{at}}}\n"
            ));
        }
    }
    place.write("in/events.jsonl", file);
    for workers in ["1", "2", "4"] {
        let data = place.path(&format!("data-{workers}"));
        // Long epochs, because each makes a file in the archive.
        let args = ["--workers", workers, "--set", "epoch.length=1d"];
        let books = books(&[&place.path("in")], &data, &args);
        assert_eq!((books.n("late"), books.n("counted")), (0, 120_000), "{workers} workers: {books:?}");
    }
}

/// With `batch.events_max=1` the watermark follows every event, so what is late is exact.
#[test]
fn late_events_are_counted_and_kept() {
    let text = "i r1 v1 10:00 country=BR | p r1 v1 10:01 country=BR | i r2 v2 15:00 country=US |
                i 00000000000000a1 v3 10:00 country=BR | p r2 v2 15:01 country=US | p late v4 13:56 | i r2 v5 14:00";
    let settings = ["--set", "join.lateness=1min", "--set", "join.horizon=1h", "--set", "batch.events_max=1"];
    for method in ["state", "window", "batch-to-window"] {
        let place = Place::with(text);
        let method = format!("join.method={method}");
        let segments = r#"segments=[[],["country"]]"#;
        let args = [settings.as_slice(), &["--workers", "1", "--set", &method, "--set", segments]].concat();
        let books = place.books(&args);
        // 10:00 and 13:56 lie more than horizon and lateness behind the watermarks of 14:59 and
        // 15:00; 14:00 does not, and is exactly the horizon away from the play's impression, but
        // 61 minutes from the play.
        assert_eq!((books.n("late"), books.n("counted"), books.n("expired")), (2, 4, 1), "{books:?}");
        assert_eq!(books.0["late_by_age"]["3-6h"], 1, "{books:?}");
        assert_eq!(books.0["late_by_age"]["1-3h"], 1, "{books:?}");
        assert_eq!(place.told(), "v1 10:00 1/1 | v2 15:00 1/1");
        let mut late = late_events(&place.data());
        late.sort_by_key(|event| event["timestamp"].as_i64());
        assert_eq!(late.len(), 2);
        let (first, second) = (&late[0], &late[1]);
        assert_eq!(
            (&first["kind"], &first["request_id"], &first["video_id"], &first["timestamp"]),
            (&json!("impression"), &json!("00000000000000a1"), &json!("v3"), &json!(DAY_MS + 600 * 60_000))
        );
        assert_eq!(
            (&first["dimensions"], &first["age_ms"]),
            (&json!({"country": "BR"}), &json!(299 * 60_000))
        );
        assert_eq!((&second["kind"], &second["video_id"]), (&json!("play"), &json!("v4")));
        // Wide enough, nothing is late.
        let wide = place.path("wide");
        let method = ["--set", &method, "--set", "join.horizon=1h"];
        assert_eq!(common::books(&[&place.path("in")], &wide, &method).n("late"), 0);
    }
}

/// How late an event was is the same in the ledger and in the late log: by the watermark that judged it.
#[test]
fn a_late_event_has_one_age() {
    let place = Place::with("i r1 v1 10:00 | i r2 v2 15:00 | i late v3 10:00 | i r4 v4 20:00");
    let settings = ["--set", "join.lateness=0s", "--set", "join.horizon=1h", "--set", "batch.events_max=2"];
    let books = place.books(&[&settings[..], &["--workers", "1"]].concat());
    let late = late_events(&place.data());
    assert_eq!(late.len(), 1);
    assert_eq!((&late[0]["age_ms"], &books.0["late_by_age"]["3-6h"]), (&json!(5 * 3_600_000), &json!(1)));
}

/// The late log keeps the video of every late event, also of one whose name was known before.
#[test]
fn a_late_event_of_a_known_video_keeps_its_name() {
    let mut rows = String::from("i r1 v1 10:00 | p r1 v1 10:01 | i r2 v2 20:00 | p r2 v2 20:01");
    for number in 0..40 {
        rows.push_str(&format!(
            " | i late{number} v{} 10:0{} | i s{number} w 20:{:02}",
            number % 4,
            number % 7,
            number + 2
        ));
    }
    for (workers, batch) in [("1", "1"), ("2", "1"), ("4", "4"), ("2", "7"), ("1", "50000")] {
        let place = Place::with(&rows);
        let batch = format!("batch.events_max={batch}");
        let args = [
            "--workers",
            workers,
            "--set",
            &batch,
            "--set",
            "join.lateness=1s",
            "--set",
            "join.horizon=1min",
        ];
        let books = place.books(&args);
        let late = late_events(&place.data());
        assert_eq!(late.len() as u64, books.n("late"));
        let nameless = late.iter().filter(|event| !event["video_id"].is_string()).count();
        assert_eq!(nameless, 0, "{workers} workers, {batch}: {nameless} of {} have no video", late.len());
    }
}

/// Late events brought back as input, with a lateness that takes them in: the whole table.
#[test]
fn the_late_log_is_a_backfill() {
    let text = "i r1 v1 10:00 | i r2 v2 18:00 | p r2 v2 18:01 | p r1 v1 10:05 | i r1 v3 10:06";
    let place = Place::with(text);
    let settings = ["--set", "join.lateness=1min", "--set", "batch.events_max=1", "--workers", "1"];
    assert_eq!(place.books(&settings).n("late"), 2);
    let late: String = late_events(&place.data()).iter().map(|event| format!("{event}\n")).collect();
    place.write("in/late.jsonl", late);
    let books = place.books(&["--set", "join.lateness=off"]);
    assert_eq!((books.n("late"), books.n("duplicate"), books.n("dead")), (0, 2, 0), "{books:?}");
    assert_eq!(place.told(), "v1 10:00 1/1 | v2 18:00 1/1 | v3 10:00 0/1");
}

/// A tally beyond the exact size says so, everywhere it is shown.
#[test]
fn a_sketch_says_that_it_is_one() {
    let place = Place::new();
    let mut file = String::new();
    (0..3_000).for_each(|n| file.push_str(&events(&format!("i r{n} hot 10:00 | p r{n} hot 10:01"))));
    file.push_str(&events("i r1 cold 10:00"));
    place.write("in/events.jsonl", file);
    let args = ["--set", "tally.exact_max=100", "--set", "tally.sketch_lg_k=12"];
    place.books(&args);
    let text = place.csv();
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!((rows[0][0], rows[0][4], rows[1][0], rows[1][4]), ("cold", "true", "hot", "false"));
    for estimate in &rows[1][2..4] {
        // Four standard errors of 1/√4096.
        let estimate: f64 = estimate.parse().unwrap();
        assert!((estimate / 3_000.0 - 1.0).abs() < 4.0 / 64.0, "{estimate}");
    }
    assert!(on(&place.data(), &["tallies"]).ok().contains('~'));
    let ten = TEN.to_string();
    let explained = on(&place.data(), &["explain", "video", "hot", "--epoch", &ten]).ok();
    assert!(explained.contains("estimated by a sketch"), "{explained}");
    let request = on(&place.data(), &["explain", "request", "r1"]).ok();
    assert!(request.contains("cold") && request.contains("sketches"), "{request}");
    // Whatever the workers and batches: the same numbers.
    let other = place.path("other");
    let others = [args.as_slice(), &["--workers", "4", "--set", "batch.events_max=100"]].concat();
    books(&[&place.path("in")], &other, &others);
    assert_eq!(csv(&other), text);
}

#[test]
fn a_closed_output_is_no_error() {
    let place = Place::new();
    let mut file = String::new();
    // More rows than a pipe holds.
    (0..8_000).for_each(|n| {
        file.push_str(&events(&format!("i r{n} video-number-{n} 10:00 | p r{n} video-number-{n} 10:01")))
    });
    place.write("in/events.jsonl", file);
    place.books(&[]);
    let data = place.data();
    for args in [
        vec!["tallies", "--format", "csv"],
        vec!["tallies", "--format", "json"],
        vec!["tallies"],
        vec!["top", "--limit", "100000"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uptake"));
        command.args(&args).arg("--data").arg(&data).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut first = String::new();
        // As `head -1` does: one line, then the pipe is closed.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{args:?}: {:?} {stderr}", output.status);
        assert!(!first.is_empty());
    }
}

#[test]
fn help_and_version() {
    let help = uptake(["--help"]).ok();
    for command in ["replay", "tallies", "top", "explain", "config"] {
        assert!(help.contains(command), "{command} is not in:\n{help}");
        uptake([command, "--help"]).ok();
    }
    assert!(uptake(["--version"]).ok().starts_with("uptake "));
    uptake(["no-such-command"]).fails(2, &["no-such-command"]);
    // Without a command: what there is.
    assert!(uptake([""; 0]).fails(2, &[]).contains("replay"));
}

/// Only in a folder do names decide what is read.
#[test]
fn a_file_that_is_named_is_read_whatever_its_name() {
    let place = Place::with(DAY);
    let file = place.path("in/events.jsonl");
    let odd = place.write("no-extension", std::fs::read(&file).unwrap());
    replay(&[&odd], &place.data(), &[]).ok();
    assert_eq!(place.told(), DAY_TOLD);
}

#[test]
fn shells_and_man_know_every_command() {
    let place = Place::new();
    let help = uptake(["--help"]).ok();
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 20, "{commands:?}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = uptake(["completions", shell]).ok();
        let missing: Vec<_> = commands.iter().filter(|name| !text.contains(**name)).collect();
        assert!(missing.is_empty(), "{shell}: {missing:?}");
    }
    assert!(uptake(["man"]).ok().starts_with(".ie"));
    let folder = place.path("man");
    uptake(["man", "--to", folder.to_str().unwrap()]).ok();
    for name in commands {
        let page = std::fs::read_to_string(folder.join(format!("uptake-{name}.1"))).unwrap();
        assert!(page.contains(".SH"), "{name}");
    }
}

#[test]
fn notices_are_text_or_json_and_nothing_else() {
    let place = Place::with(DAY);
    let said = |format: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uptake"));
        let command =
            command.env("UPTAKE_LOG_FORMAT", format).arg("ledger").arg("--data").arg(place.path("no"));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = said("text");
    assert_eq!(code, Some(2));
    let message = text.strip_prefix("uptake: ").unwrap().trim_end();
    let (code, line) = said("json");
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((code, line["message"].as_str()), (Some(2), Some(message)));
    assert!(line["time_ms"].as_u64() > Some(1_700_000_000_000) && line["process"].is_u64(), "{line}");
    let (code, text) = said("xml");
    assert_eq!(code, Some(2));
    assert!(text.contains("UPTAKE_LOG_FORMAT: \"xml\" is neither"), "{text}");
}

#[test]
fn a_table_keeps_as_much_as_it_is_told() {
    let place = Place::with(
        "i r1 v1 10:00 | p r1 v1 10:01 | i r2 v1 15:00 | p r2 v1 15:01 | i r3 v1 15:40 | p r3 v1 15:41",
    );
    place.replay(&["--set", "table.keep=1h"]).ok();
    let rows = |csv: String| csv.lines().count() - 1;
    assert_eq!(rows(place.csv()), 2, "{}", place.csv());
    let archived = files_below(&place.data().join("tallies")).len();
    assert_eq!(archived, 3, "the archive has all");
    place.replay(&["--set", "table.keep=10min"]).fails(2, &["table.keep"]);
    let cassandra = ["--set", "table.url=cassandra://127.0.0.1/uptake", "--set", "table.keep=90d"];
    place.replay(&cassandra).fails(2, &["table.keep", "cassandra.ttl"]);
}
