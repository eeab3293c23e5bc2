//! Garbage of every kind goes in: the program never panics, nothing disappears silently, what was
//! there before is safe, and the message says which file and what to do.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{
    Dead, Place, as_another_user, books, csv, dead_letters, events, replay, run, skip, told, uptake,
};

const GOOD: &str = "i r1 v1 10:00 | p r1 v1 10:01";
const GOOD_TOLD: &str = "v1 10:00 1/1";

/// An event with one field as given, in JSON.
fn with(field: &str, value: &str) -> Vec<u8> {
    let mut line = String::from("{");
    for (name, usual) in [
        ("kind", "\"impression\""),
        ("request_id", "\"bad\""),
        ("video_id", "\"bad\""),
        ("timestamp", "1705276800000"),
    ] {
        let value = if name == field { value } else { usual };
        line.push_str(&format!("\"{name}\":{value},"));
    }
    line.push_str("\"x\":1}");
    line.into_bytes()
}

#[test]
fn every_unusable_line_is_a_dead_letter_with_its_bytes_its_reason_and_its_place() {
    let tomorrow = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() + 86_400_000;
    let long_id = format!("\"{}\"", "x".repeat(1_025));
    let deep = |open: &str, n: usize| open.repeat(n).into_bytes();
    #[rustfmt::skip]
    let rows: Vec<(Vec<u8>, &str)> = vec![
        // Not JSON, or not an object.
        (br#"{"kind":"impression","request_id":"bad","video_"#.to_vec(), "not-json"),
        (br#"{"kind":"impression","request_id":"bad","video_id":"bad","timestamp":1705276800000"#.to_vec(), "not-json"),
        (br#"{"kind":"play","request_id":"bad","video_id":"bad","timestamp":1705276800000}}"#.to_vec(), "not-json"),
        (br#"{"kind":"play","request_id":"bad","video_id":"bad","timestamp":1705276800000} {"#.to_vec(), "not-json"),
        (br#"{'kind':'play'}"#.to_vec(), "not-json"),
        (br#"{"kind":"play","request_id":"\ud800","video_id":"bad","timestamp":1705276800000}"#.to_vec(), "not-json"),
        (br#"video_id,epoch,plays"#.to_vec(), "not-json"),
        (br#"NaN"#.to_vec(), "not-json"),
        (b"\0\0\0\0\0\0\0\0".to_vec(), "not-json"),
        (b"{\"kind\":\"play\",\"request_id\":\"a\0b\",\"video_id\":\"bad\",\"timestamp\":1705276800000}".to_vec(), "not-json"),
        (b"\x1b[31mred\x1b[0m".to_vec(), "not-json"),
        (b"null".to_vec(), "not-an-object"),
        (b"42".to_vec(), "not-an-object"),
        (b"\"text\"".to_vec(), "not-an-object"),
        (b"true".to_vec(), "not-an-object"),
        (deep("[", 200_000), "not-json"),
        (deep("{\"a\":", 200_000), "not-json"),
        // Not UTF-8.
        (b"\xff\xfe\xfd".to_vec(), "not-utf8"),
        (b"{\"kind\":\"play\",\"request_id\":\"caf\xe9\",\"video_id\":\"bad\",\"timestamp\":1705276800000}".to_vec(), "not-utf8"),
        (b"{\"kind\":\"play\",\"request_id\":\"bad\",\"video_id\":\"bad\",\"timestamp\":1705276800000,\"title\":\"\xc3\"}".to_vec(), "not-utf8"),
        // Kinds.
        (with("kind", "\"hover\""), "unknown-kind"),
        (with("kind", "\"Impression\""), "unknown-kind"),
        (with("kind", "\"\""), "unknown-kind"),
        (with("kind", "7"), "no-kind"),
        (with("kind", "null"), "no-kind"),
        (b"{}".to_vec(), "no-kind"),
        // Ids.
        (with("request_id", "\"\""), "no-request-id"),
        (with("request_id", "12"), "no-request-id"),
        (with("request_id", "null"), "no-request-id"),
        (with("request_id", "[\"r\"]"), "no-request-id"),
        (with("request_id", &long_id), "id-too-long"),
        (with("video_id", "\"\""), "no-video-id"),
        (with("video_id", "{\"id\":\"v\"}"), "no-video-id"),
        (with("video_id", "false"), "no-video-id"),
        (with("video_id", &long_id), "id-too-long"),
        // Timestamps.
        (with("timestamp", "\"1705276800000\""), "no-timestamp"),
        (with("timestamp", "1705276800000.5"), "no-timestamp"),
        (with("timestamp", "1.7e12"), "no-timestamp"),
        (with("timestamp", "true"), "no-timestamp"),
        (with("timestamp", "null"), "no-timestamp"),
        (with("timestamp", "\"2024-01-15T00:00:00Z\""), "no-timestamp"),
        (with("timestamp", "-1"), "timestamp-out-of-range"),
        (with("timestamp", "-9223372036854775808"), "timestamp-out-of-range"),
        (with("timestamp", "9223372036854775807"), "timestamp-out-of-range"),
        (with("timestamp", "9223372036854775808"), "timestamp-out-of-range"),
        (with("timestamp", "99999999999999999999999999999999999999999"), "timestamp-out-of-range"),
        (with("timestamp", "253402300800000"), "timestamp-out-of-range"),
        (with("timestamp", "253402300799999"), "timestamp-in-future"),
        (with("timestamp", &tomorrow.to_string()), "timestamp-in-future"),
    ];
    let (mut file, mut expected) = (Vec::new(), Vec::new());
    let place = Place::new();
    let path = place.path("in/garbage.jsonl");
    for (number, (bytes, reason)) in (0..).zip(&rows) {
        // A good event stands before each one, so that none hides its neighbours.
        let kind = if number % 2 == 0 { "i" } else { "p" };
        file.extend_from_slice(events(&format!("{kind} r{} v1 10:00", number / 2)).as_bytes());
        file.extend_from_slice(bytes);
        file.push(b'\n');
        let (source, line) = (path.to_string_lossy().into_owned(), 2 * number + 1);
        expected.push(Dead { source, line, reason: (*reason).to_owned(), bytes: bytes.clone() });
    }
    place.write("in/garbage.jsonl", &file);
    let pairs = rows.len() / 2;
    for workers in ["1", "2", "4"] {
        let data = place.path(&format!("data-{workers}"));
        let books = books(&[&path], &data, &["--workers", workers]);
        assert_eq!(
            (books.n("read"), books.n("dead")),
            (2 * rows.len() as u64, rows.len() as u64),
            "{books:?}"
        );
        for reason in rows.iter().map(|(_, reason)| *reason) {
            let count = rows.iter().filter(|(_, r)| *r == reason).count() as u64;
            assert_eq!(books.dead(reason), count, "{reason}: {books:?}");
        }
        for (found, expected) in dead_letters(&data).iter().zip(&expected) {
            let text = String::from_utf8_lossy(&expected.bytes[..expected.bytes.len().min(200)]);
            assert!(
                found == expected,
                "line {}, {}, {text}: {} {}",
                expected.line,
                expected.reason,
                found.line,
                found.reason
            );
        }
        assert_eq!(dead_letters(&data).len(), expected.len());
        assert_eq!(told(&csv(&data)), format!("v1 10:00 {pairs}/{pairs}"));
    }
}

#[test]
fn odd_but_valid_lines_count() {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let mut file = Vec::new();
    // A line ended by CR LF, blank lines, an event with everything escaped, keys in another order,
    // unknown fields, an array of events, white space around, and no end after the last line.
    file.extend_from_slice(events("i r1 v1 10:00").trim_end().as_bytes());
    file.extend_from_slice(b"\r\n\r\n   \n\t\n[]\n");
    file.extend_from_slice(
        br#"{"\u006bind":"pl\u0061y","request_id":"\u00721","video_id":"v\u0031","timestamp":1705312860000}"#,
    );
    file.push(b'\n');
    file.extend_from_slice(
        br#"{"timestamp":1705312800000,"video_id":"v2","title":"\ud83d\ude00 \\\" caf\u00e9","request_id":"r2","kind":"impression"}"#,
    );
    file.push(b'\n');
    let play = r#"{"kind":"play","request_id":"r2","video_id":"v2","timestamp":1705312800000}"#;
    file.extend_from_slice(format!("  [ {play} , {play} ]  \r\n").as_bytes());
    let shown = r#""kind":"impression","request_id":"r3","video_id":"v3","timestamp":1705312800000"#;
    file.extend_from_slice(format!("{{{shown},\"extra\":{deep}}}\n").as_bytes());
    file.extend_from_slice(br#"{"kind":"play","request_id":"r3","video_id":"v3","timestamp":1705312800000}"#);
    let place = Place::new();
    place.write("in/odd.jsonl", file);
    let books = place.books(&[]);
    assert_eq!((books.n("read"), books.n("blank"), books.n("duplicate")), (7, 4, 1), "{books:?}");
    assert_eq!(place.told(), "v1 10:00 1/1 | v2 10:00 1/1 | v3 10:00 1/1");
}

/// Editors and spreadsheets put a byte order mark before the first line.
#[test]
fn a_byte_order_mark_hides_no_event() {
    let place = Place::new();
    place.write("in/bom.jsonl", format!("\u{feff}{}", events(GOOD)));
    let books = place.books(&[]);
    assert_eq!((books.n("read"), books.n("dead")), (2, 0), "{books:?}");
    assert_eq!(place.told(), GOOD_TOLD);
}

/// Text that a shell or a spreadsheet may trip over comes out as it went in.
#[test]
fn odd_ids_come_out_as_they_went_in() {
    let place = Place::new();
    let ids = ["a,b", "say \"v\"", "two\nlines", "nul\0byte", "=1+1", " v ", "\u{1f3ac}", "%2C", "v\r"];
    let mut file = String::new();
    for (number, id) in ids.iter().enumerate() {
        for kind in ["impression", "play"] {
            let event = serde_json::json!({"kind": kind, "request_id": format!("{id}{number}"),
                "video_id": id, "timestamp": common::DAY_MS});
            file.push_str(&format!("{event}\n"));
        }
    }
    place.write("in/odd.jsonl", file);
    assert_eq!(place.books(&[]).n("counted"), 2 * ids.len() as u64);
    let data = place.data();
    let json = uptake(["tallies", "--format", "json", "--data", data.to_str().unwrap()]).ok();
    let mut found: Vec<String> = json
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|row| row["video_id"].as_str().unwrap().to_owned())
        .collect();
    assert!(found.is_sorted(), "{found:?}");
    let mut ids = ids.map(str::to_owned);
    ids.sort();
    found.sort();
    assert_eq!(found, ids);
    for quoted in ["\"a,b\",", "\"say \"\"v\"\"\",", "\"two\nlines\",", "\"v\r\","] {
        assert!(place.csv().contains(quoted), "{quoted:?} is not in {}", place.csv());
    }
}

#[test]
fn long_lines_are_dead_letters_and_their_neighbours_count() {
    let place = Place::new();
    let long = |bytes: usize| {
        let mut line = with("x", "1");
        line.truncate(line.len() - 1);
        line.extend_from_slice(b",\"padding\":\"");
        line.resize(bytes - 2, b'p');
        line.extend_from_slice(b"\"}");
        line
    };
    let (ten, forty) = (long(10 << 20), long(40 << 20));
    let mut file = Vec::new();
    for line in [&ten, &forty] {
        file.extend_from_slice(events("i r1 v1 10:00").as_bytes());
        file.extend_from_slice(line);
        file.push(b'\n');
    }
    file.extend_from_slice(events("p r1 v1 10:01").as_bytes());
    // The last line is a long one without an end.
    file.extend_from_slice(&forty);
    let path = place.write("in/long.jsonl", file);
    let source = path.to_string_lossy().into_owned();
    for workers in ["1", "4"] {
        let data = place.path(&format!("data-{workers}"));
        let books = books(&[&path], &data, &["--workers", workers]);
        assert_eq!((books.n("read"), books.dead("too-long")), (6, 3), "{books:?}");
        assert_eq!(told(&csv(&data)), GOOD_TOLD);
        let dead = dead_letters(&data);
        assert!(dead.iter().all(|d| d.reason == "too-long" && d.source == source));
        assert_eq!(dead.iter().map(|d| d.line).collect::<Vec<_>>(), [1, 3, 5]);
        assert!(dead[0].bytes == ten, "a long line is kept whole");
        // A line beyond 16 MiB is never in memory whole: its beginning is kept.
        assert!([1, 2].iter().all(|&d| dead[d].bytes == forty[..64 << 10]), "{}", dead[1].bytes.len());
    }
    // Where long records are usual, they are allowed.
    let allowed = place.path("data-allowed");
    let books = books(&[&path], &allowed, &["--set", "events.bytes_max=16777216"]);
    assert_eq!((books.dead("too-long"), books.n("expired")), (2, 1), "{books:?}");
}

/// More bytes of dead letters in one batch than the log takes in one append.
#[test]
fn many_long_lines_in_one_batch_stop_nothing() {
    let place = Place::new();
    // 1.2 GB of long lines that compress to almost nothing.
    let file = std::fs::File::create(place.path("long.jsonl.gz")).unwrap();
    let mut packer = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    let mut line = vec![b'x'; 15 << 20];
    line.push(b'\n');
    (0..80).for_each(|_| packer.write_all(&line).unwrap());
    packer.write_all(events(GOOD).as_bytes()).unwrap();
    packer.finish().unwrap();
    let books = books(&[&place.path("long.jsonl.gz")], &place.data(), &["--workers", "1"]);
    assert_eq!((books.n("read"), books.dead("too-long")), (82, 80), "{books:?}");
    assert_eq!(place.told(), GOOD_TOLD);
}

#[test]
fn files_that_hold_nothing_are_no_error() {
    let place = Place::new();
    place.write("in/empty.jsonl", "");
    let first = place.books(&[]);
    assert_eq!((first.n("read"), first.n("files"), first.n("rows_written")), (0, 1, 0), "{first:?}");
    assert_eq!(place.csv(), "video_id,epoch,plays,impressions,exact\n");
    place.write("in/blank.jsonl", "\n\n  \n");
    place.write("in/ends.jsonl", "\n");
    place.write("in/good.jsonl", events(GOOD));
    let books = place.books(&[]);
    assert_eq!((books.n("read"), books.n("files"), books.n("blank")), (2, 4, 4), "{books:?}");
    assert_eq!(place.told(), GOOD_TOLD);
}

#[test]
fn paths_that_cannot_be_read_are_all_named_and_nothing_is_done() {
    let place = Place::new();
    let good = place.write("good.jsonl", events(GOOD));
    let notes = place.write("notes/readme.txt", "no events").parent().unwrap().to_path_buf();
    std::fs::create_dir(place.path("x.jsonl")).unwrap();
    let (missing, empty) = (place.path("missing.jsonl"), place.path("x.jsonl"));
    std::os::unix::fs::symlink(place.path("nowhere"), place.path("dangling.jsonl")).unwrap();
    std::os::unix::fs::symlink(place.path("round.jsonl"), place.path("round.jsonl")).unwrap();
    let (dangling, round) = (place.path("dangling.jsonl"), place.path("round.jsonl"));
    let data = place.data();
    let bad = [&notes, &missing, &empty, &dangling, &round];
    let mut paths: Vec<&Path> = vec![&good];
    paths.extend(bad.iter().map(|path| path.as_path()));
    let names: Vec<String> = bad.iter().map(|path| format!("{}: ", path.display())).collect();
    replay(&paths, &data, &[]).fails(2, &names.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!data.exists(), "nothing is made before the input is known to be there");
    for path in bad {
        replay(&[path], &data, &[]).fails(2, &[path.to_str().unwrap()]);
    }
    // No path at all is a mistake in what was typed.
    replay(&[], &data, &[]).fails(2, &["PATH"]);
    assert!(!data.exists());
}

#[test]
fn a_folder_named_like_a_file_is_a_folder() {
    let place = Place::new();
    place.write("in/x.jsonl/a.jsonl", events(GOOD));
    place.write("in/x.jsonl/readme.txt", "no events");
    let printed = place.replay(&[]);
    assert!(printed.stderr.contains("readme.txt"), "what is not read is named: {}", printed.stderr);
    printed.ok();
    assert_eq!(place.told(), GOOD_TOLD);
}

#[test]
fn a_file_that_may_not_be_read_is_named() {
    let place = Place::new();
    place.write("in/locked.jsonl", events(GOOD));
    place.allow("in", 0o755);
    place.allow("in/locked.jsonl", 0);
    let Some(mut command) = as_another_user(&place, "a_file_that_may_not_be_read_is_named") else { return };
    command.arg("replay").arg(place.path("in")).arg("--data").arg(place.data());
    run(&mut command).fails(2, &["locked.jsonl: may not be read"]);
}

/// A file that broke off: the error names it and says why, the table from before is as it was or
/// larger, and the repaired file brings the rest.
#[test]
fn a_compressed_file_that_broke_off_is_named_and_what_was_before_is_safe() {
    let mut text = String::new();
    for request in 0..20_000 {
        text.push_str(&events(&format!(
            "i x{request} v{} 11:00 | p x{request} v{} 11:01",
            request % 7,
            request % 5
        )));
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(text.as_bytes(), 3).unwrap();
    let mut flipped = gzip.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    for (name, whole, broken) in [
        ("cut.jsonl.gz", &gzip, gzip[..gzip.len() / 2].to_vec()),
        ("cut.jsonl.zst", &zstd, zstd[..zstd.len() / 2].to_vec()),
        ("flipped.jsonl.gz", &gzip, flipped),
        ("head.jsonl.gz", &gzip, gzip[..5].to_vec()),
    ] {
        let place = Place::new();
        let before = place.write("before.jsonl", events(GOOD));
        let (file, data) = (place.write(name, broken), place.data());
        books(&[&before], &data, &[]);
        let message = replay(&[&file], &data, &["--workers", "2"]).fails(1, &[name]);
        assert!(message.trim_end().lines().count() <= 2, "one clear line: {message}");
        assert!(told(&csv(&data)).contains(GOOD_TOLD), "{name}: {}", told(&csv(&data)));
        std::fs::write(&file, whole).unwrap();
        let books = books(&[&file], &data, &[]);
        assert_eq!(books.n("counted"), 40_000, "{books:?}");
        let clean = place.path("clean");
        common::books(&[&before, &file], &clean, &["--set", "join.lateness=off"]);
        assert_eq!(csv(&data), csv(&clean), "{name}");
    }
}

/// A file that is damaged is named, and keeps no other from being read or appended.
#[test]
fn a_damaged_file_keeps_no_other_from_being_read() {
    let place = Place::new();
    let (first, last) = ("i r1 v1 10:00 | p r1 v1 10:01", "i r2 v2 10:00 | p r2 v2 10:01");
    place.write("in/1.jsonl", events(first));
    place.write("in/2.jsonl.gz", [0x1f, 0x8b, 8, 0]);
    place.write("in/3.jsonl", events(last));
    place.write("in/4.jsonl.gz", [0x1f, 0x8b, 8, 0]);
    let told = "v1 10:00 1/1 | v2 10:00 1/1";
    let printed = place.replay(&[]);
    assert!(printed.stdout.contains("\"counted\":4"), "{}", printed.stdout);
    printed.fails(1, &["2.jsonl.gz", "4.jsonl.gz"]);
    assert_eq!(place.told(), told);
    // The same for what is appended: it is in the log, and the command says how much.
    let (input, data) = (place.path("in"), place.path("live"));
    let on = |args: &[&str]| uptake([args, &["--data", data.to_str().unwrap()]].concat());
    let appended = on(&["append", input.to_str().unwrap()]);
    assert!(appended.stdout.contains("2 records appended to plays"), "{}", appended.stdout);
    appended.fails(1, &["2.jsonl.gz", "4.jsonl.gz"]);
    on(&["run", "--until-caught-up"]).ok();
    assert_eq!(common::told(&csv(&data)), told);
}

/// Two inputs of one epoch in two replays are not added up, and whoever does that is told.
#[test]
fn who_counts_other_input_into_a_table_is_told_that_the_larger_row_stays() {
    let place = Place::new();
    let first =
        place.write("1.jsonl", events("i r1 v1 10:00 | p r1 v1 10:01 | i r2 v1 10:00 | p r2 v1 10:01"));
    let other = place.write("2.jsonl", events("i r3 v1 10:00 | p r3 v1 10:01"));
    let said = "the larger one stays";
    let printed = replay(&[&first], &place.data(), &[]);
    assert!(!printed.stderr.contains(said), "{}", printed.stderr);
    let printed = replay(&[&other], &place.data(), &[]);
    assert!(
        printed.stderr.contains(said) && printed.stderr.contains("uptake backfill"),
        "{}",
        printed.stderr
    );
    assert_eq!(place.told(), "v1 10:00 2/2");
    let (other, data) = (other.to_str().unwrap(), place.data());
    uptake(["backfill", other, "--data", data.to_str().unwrap()]).ok();
    assert_eq!(place.told(), "v1 10:00 3/3");
}

/// A message says why, not only where.
#[test]
fn a_read_error_tells_its_cause() {
    let place = Place::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(events(GOOD).repeat(1_000).as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let file = place.write("cut.jsonl.gz", &gzip[..gzip.len() - 20]);
    let message = replay(&[&file], &place.data(), &[]).fails(1, &["cut.jsonl.gz"]);
    let says = ["end of file", "eof", "broke off", "truncated", "corrupt"];
    assert!(says.iter().any(|cause| message.to_lowercase().contains(cause)), "{message}");
}

/// "Everything before was read" must be true, or not be said.
#[test]
fn what_a_read_error_says_of_the_lines_before_is_true() {
    let place = Place::new();
    place.write("in/1.jsonl", events(GOOD));
    place.write("in/2.jsonl.gz", [0x1f, 0x8b, 8, 0]);
    let message = place.replay(&[]).fails(1, &["2.jsonl.gz"]);
    if message.contains("everything before was read") {
        assert_eq!(place.told(), GOOD_TOLD, "{message}");
    }
}

#[test]
fn a_file_that_only_says_it_is_parquet_is_named() {
    let place = Place::new();
    let file = place.write("in/not.parquet", [b"PAR1".as_slice(), &[0xff; 2_000], b"PAR1"].concat());
    let half = place.write("half/half.parquet", b"PAR1");
    for path in [&file, &half] {
        replay(&[path], &place.data(), &[]).fails(1, &[path.to_str().unwrap()]);
    }
    // By its name alone a file of lines is not taken for Parquet.
    let lines = place.write("lines.parquet", events(GOOD));
    books(&[&lines], &place.data(), &[]);
    assert_eq!(place.told(), GOOD_TOLD);
}

#[test]
fn mistakes_in_the_configuration_are_told_all_at_once() {
    let place = Place::with(GOOD);
    let file =
        place.write("uptake.toml", "[join]\nkind = \"outer\"\nhorizn = \"1h\"\n[batch]\nevents_max = 0\n");
    let config = file.to_str().unwrap();
    let args =
        ["--config", config, "--set", "join.lateness=soon", "--set", "epoch.length=1", "--set", "nonsense"];
    let message = place.replay(&args).fails(
        2,
        &[
            "join.kind: ",
            "join.horizn: there is no such key; did you mean join.horizon?",
            "batch.events_max: ",
            "join.lateness: ",
            "epoch.length: ",
            "--set nonsense",
            "6 mistakes",
            "uptake config",
        ],
    );
    assert!(!place.data().exists(), "nothing was done: {message}");
    place.replay(&["--config", "/nowhere/uptake.toml"]).fails(2, &["/nowhere/uptake.toml"]);
    let broken = place.write("broken.toml", "[join\n");
    place.replay(&["--config", broken.to_str().unwrap()]).fails(2, &["broken.toml", "is not TOML"]);
    // What the command line itself refuses.
    place.replay(&["--workers", "0"]).fails(2, &["--workers"]);
    place.replay(&["--workers", "many"]).fails(2, &["--workers"]);
    place.replay(&["--wrokers", "1"]).fails(2, &["--wrokers"]);
    assert!(!place.data().exists());
}

#[test]
fn a_second_process_on_the_same_data_directory_is_refused() {
    let place = Place::with(GOOD);
    place.books(&[]);
    let before = place.csv();
    {
        let _held = uptake::data_dir::lock(&place.data(), "replay").unwrap();
        place.replay(&[]).fails(1, &["in use by another process", place.data().to_str().unwrap()]);
        assert_eq!(place.csv(), before, "reading goes on");
    }
    place.books(&[]);
    assert_eq!(place.csv(), before);
}

/// The same with two replays: the first waits for its input, which is a pipe.
#[test]
fn a_second_replay_leaves_the_first_alone() {
    let place = Place::with(GOOD);
    let pipe = place.path("pipe.jsonl");
    if !Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        return skip("a_second_replay_leaves_the_first_alone", "mkfifo is not there");
    }
    let mut first = Command::new(env!("CARGO_BIN_EXE_uptake"));
    first.arg("replay").arg(&pipe).arg("--data").arg(place.data()).arg("--json");
    let first =
        first.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // The pipe opens when the first replay has its data directory and begins to read.
    let mut writer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    place.replay(&[]).fails(1, &["in use by another process"]);
    writer.write_all(events("i r9 v9 12:00 | p r9 v9 12:00").as_bytes()).unwrap();
    drop(writer);
    let output = first.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(place.told(), "v9 12:00 1/1");
}

#[test]
fn data_directories_that_are_none() {
    let place = Place::with(GOOD);
    place.write("data", "a file");
    place.replay(&[]).fails(1, &[place.data().to_str().unwrap()]);
    assert_eq!(std::fs::read(place.data()).unwrap(), b"a file");
    let below = place.path("data/below");
    replay(&[&place.path("in")], &below, &[]).fails(1, &[below.to_str().unwrap()]);
    // Somebody else's table is left alone.
    let foreign = place.path("foreign");
    place.write("foreign/table.sqlite", "this is not a table");
    replay(&[&place.path("in")], &foreign, &[]).fails(1, &["table.sqlite", "not a table of uptake"]);
    assert_eq!(std::fs::read(place.path("foreign/table.sqlite")).unwrap(), b"this is not a table");
    // Reading where nothing was written.
    let none = place.path("none");
    for command in ["tallies", "top"] {
        uptake([command, "--data", none.to_str().unwrap()]).fails(2, &["no table at", "uptake replay"]);
    }
    assert!(!none.exists());
}

/// A small file system, for as long as it lives.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_path_buf()))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let output = Command::new("mount").args(["-o", &options]).arg(&self.0).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: a file that is still open must not keep the mount after the test.
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

/// Many rows, several megabytes of table, and some dead letters.
fn many_rows() -> String {
    let mut text = String::new();
    for number in 0..20_000 {
        let video = format!("a-video-with-a-rather-long-name-{number}");
        text.push_str(&events(&format!("i r{number} {video} 10:00 | p r{number} {video} 10:01")));
        if number % 10 == 0 {
            text.push_str("{\"kind\":\"hover\"}\n");
        }
    }
    text
}

#[test]
fn a_full_disk_stops_the_run_and_room_lets_it_finish() {
    let place = Place::new();
    place.write("in/events.jsonl", many_rows());
    let Some(disk) = Mounted::new(&place.data(), "1m") else {
        return skip("a_full_disk_stops_the_run_and_room_lets_it_finish", "cannot mount a tmpfs (not root?)");
    };
    for workers in ["1", "2"] {
        place.replay(&["--workers", workers]).fails(1, &["no space left on the device", "make room"]);
    }
    disk.remount("size=64m");
    let books = place.books(&[]);
    assert_eq!((books.n("read"), books.n("dead")), (42_000, 2_000), "{books:?}");
    let clean = place.path("clean");
    common::books(&[&place.path("in")], &clean, &[]);
    assert_eq!(place.csv(), csv(&clean));
    let archive = |data: &Path| common::files_below(&data.join("tallies"));
    assert!(archive(&place.data()) == archive(&clean), "the archive too");
}

/// The log of dead letters fills the disk before any row is written.
#[test]
fn a_disk_full_of_dead_letters_stops_the_run() {
    let place = Place::new();
    place.write("in/events.jsonl", format!("{}\n", "garbage ".repeat(100)).repeat(3_000) + &events(GOOD));
    let Some(disk) = Mounted::new(&place.data(), "1m") else {
        return skip("a_disk_full_of_dead_letters_stops_the_run", "cannot mount a tmpfs (not root?)");
    };
    place.replay(&[]).fails(1, &["no space left on the device"]);
    disk.remount("size=64m");
    assert_eq!(place.books(&[]).n("dead"), 3_000);
    assert_eq!(place.told(), GOOD_TOLD);
    assert!(dead_letters(&place.data()).len() >= 3_000, "nothing is left of an append that failed");
}

#[test]
fn a_read_only_disk_is_told_and_its_table_can_be_read() {
    let place = Place::with(GOOD);
    let Some(disk) = Mounted::new(&place.data(), "16m") else {
        return skip(
            "a_read_only_disk_is_told_and_its_table_can_be_read",
            "cannot mount a tmpfs (not root?)",
        );
    };
    place.books(&[]);
    disk.remount("ro");
    assert_eq!(place.told(), GOOD_TOLD, "reading needs no writing");
    let message = place.replay(&[]).fails(1, &[place.data().to_str().unwrap()]);
    assert!(message.to_lowercase().contains("read-only"), "it says why: {message}");
}
