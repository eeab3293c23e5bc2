//! What a run writes to is away for a while, the disk is full, or the log was cut before it was
//! read: counting goes on as long as it can, nothing is lost, and it is said in clear words.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::live::{
    Live, PATIENCE, SOON, Streamed, append, audience, catch_up, ledger, run_command, seeded, table_now,
    wait_until,
};
use common::{Place, csv, files_below, say, skip, uptake};
use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Record};

/// Everything is written soon.
const WATCHED: &[&str] = &["checkpoint.interval=100ms", "batch.tick=50ms", "table.write_interval=50ms"];

/// Two parts of an audience as files, and the whole of it in a log, to compare with. Either moves
/// the watermark so far that epochs are sealed.
fn parts(place: &Place, seed: u64, lines: usize) -> (Streamed, [PathBuf; 2]) {
    let stream = Streamed::audience(&place.path(""), seed, lines);
    let text = std::fs::read_to_string(&stream.file).unwrap();
    let all: Vec<&str> = text.split_inclusive('\n').collect();
    let (a, b) = all.split_at(lines * 7 / 8);
    let parts = [place.write("part/a.jsonl", a.concat()), place.write("part/b.jsonl", b.concat())];
    (stream, parts)
}

/// The lines that speak of something, without who says it.
fn lines_of<'a>(said: &'a str, what: &str) -> Vec<&'a str> {
    said.lines().filter_map(|line| line.strip_prefix("uptake: ")?.strip_prefix(what)).collect()
}

/// One line when it began, one when it was over.
#[track_caller]
fn said_once(said: &str, what: &str) {
    let lines = lines_of(said, &format!("{what}: "));
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].contains("counting goes on, and this is tried again"), "{said}");
    let is_told_why = lines[0].split(';').next().unwrap().split(": ").count() > 1;
    assert!(is_told_why, "what the system said is told: {said}");
    assert!(lines[1].starts_with("works again after "), "{said}");
}

fn dead_letters(data: &Path) -> u64 {
    // While the program runs: only how many there are.
    EmbeddedLog::open(data, LogOptions::default()).unwrap().0.end_offset("dead-letters", 0).unwrap()
}

#[test]
fn a_locked_table_is_waited_for() {
    let place = Place::new();
    let mut rng = seeded("a_locked_table_is_waited_for");
    let (stream, [a, b]) = parts(&place, rng.next_u64() % 1_000, 10_000);
    let data = place.data();
    append(&data, &[&a]);
    // So few are noted for a checkpoint that all tallies are written instead.
    let settings = [WATCHED, &["checkpoint.events_max=100"]].concat();
    let run = Live::start(&mut run_command(&data, &settings));
    wait_until("the first part is counted", PATIENCE, || table_now(&data).lines().count() > 100);
    let lock = rusqlite::Connection::open(data.join("table.sqlite")).unwrap();
    lock.busy_timeout(SOON).unwrap();
    lock.execute_batch("BEGIN EXCLUSIVE").unwrap();
    append(&data, &[&b]);
    // Counting goes on: what cannot be used arrives where it belongs.
    let dead = stream.ledger["dead"].as_u64().unwrap();
    wait_until("all is read", PATIENCE, || dead_letters(&data) >= dead);
    // The program waits for 10 s before it takes that for more than another writer.
    run.says("the table: ", PATIENCE);
    lock.execute_batch("COMMIT").unwrap();
    wait_until("the table is complete", PATIENCE, || table_now(&data) == stream.table);
    run.signal("TERM");
    said_once(&run.end(SOON).ok(), "the table");
    stream.check_table(&data);
    assert_eq!(ledger(&data)["read"], stream.ledger["read"]);
    // All of it is in the checkpoint: a table that is lost comes again from there, as far as its epochs are open.
    let open_rows = || {
        let rows = uptake(["tallies", "--format", "json", "--data", data.to_str().unwrap()]).ok();
        let open = rows.lines().filter(|row| row.contains("\"sealed\":false")).map(str::to_owned);
        open.collect::<Vec<_>>()
    };
    let open = open_rows();
    for name in ["table.sqlite", "table.sqlite-wal", "table.sqlite-shm"] {
        drop(std::fs::remove_file(data.join(name)));
    }
    catch_up(&data, &settings);
    assert!(open.len() > 100 && open_rows() == open, "{} open tallies", open.len());
}

/// A small file system at a place, for as long as it lives.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_path_buf()))
    }

    /// Fails while a file is being written there, so it is tried again.
    fn remount(&self, options: &str) {
        wait_until("remount", SOON, || {
            let options = format!("remount,{options}");
            Command::new("mount").args(["-o", &options]).arg(&self.0).output().unwrap().status.success()
        });
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

const NO_MOUNT: &str = "cannot mount a tmpfs (not root?)";

/// The archive's or the checkpoints' directory takes nothing for a while.
fn outage(test: &str, folder: &str, what: &str) {
    let place = Place::new();
    let mut rng = seeded(test);
    let (stream, [a, b]) = parts(&place, rng.next_u64() % 1_000, 10_000);
    let data = place.data();
    let Some(disk) = Mounted::new(&data.join(folder), "64m") else { return skip(test, NO_MOUNT) };
    append(&data, &[&a]);
    let run = Live::start(&mut run_command(&data, WATCHED));
    let checkpointed =
        || data.join("checkpoints/main").is_dir() && !files_below(&data.join("checkpoints")).is_empty();
    wait_until("the first part is counted", PATIENCE, || {
        table_now(&data).lines().count() > 100 && checkpointed()
    });
    disk.remount("ro");
    append(&data, &[&b]);
    run.says(&format!("{what}: "), PATIENCE);
    // Neither keeps the rows from the table.
    wait_until("the table is complete", PATIENCE, || table_now(&data) == stream.table);
    disk.remount("rw");
    run.says(&format!("{what}: works again"), PATIENCE);
    run.signal("TERM");
    said_once(&run.end(SOON).ok(), what);
    stream.check_table(&data);
    assert_eq!(ledger(&data)["read"], stream.ledger["read"]);
    catch_up(&data, &[]);
    let archive = |data: &Path| files_below(&data.join("tallies"));
    assert!(archive(&data) == archive(&place.path("undisturbed")), "the archive");
}

#[test]
fn an_archive_that_takes_nothing_is_waited_for() {
    outage("an_archive_that_takes_nothing_is_waited_for", "tallies", "the archive");
}

#[test]
fn checkpoints_that_cannot_be_written_are_waited_for() {
    outage("checkpoints_that_cannot_be_written_are_waited_for", "checkpoints", "checkpoints");
}

/// A directory of checkpoints that is gone keeps nothing from being counted, nor the run from
/// stopping; when it is back the next run goes on from there.
#[test]
fn a_run_whose_checkpoints_are_gone_can_be_stopped() {
    let place = Place::new();
    let mut rng = seeded("a_run_whose_checkpoints_are_gone_can_be_stopped");
    let (stream, [a, b]) = parts(&place, rng.next_u64() % 1_000, 10_000);
    let data = place.data();
    append(&data, &[&a]);
    let run = Live::start(&mut run_command(&data, WATCHED));
    wait_until("a checkpoint", PATIENCE, || {
        let names = data.join("checkpoints/main").read_dir();
        names.is_ok_and(|mut all| {
            all.any(|n| n.unwrap().file_name().to_string_lossy().starts_with("manifest-"))
        })
    });
    wait_until("the first part is counted", PATIENCE, || table_now(&data).lines().count() > 100);
    let (there, away) = (data.join("checkpoints"), data.join("away"));
    std::fs::rename(&there, &away).unwrap();
    run.says("checkpoints: ", SOON);
    append(&data, &[&b]);
    wait_until("the table is complete", PATIENCE, || table_now(&data) == stream.table);
    run.signal("TERM");
    let said = run.end(PATIENCE).fails(1, &["the last checkpoint was not made"]);
    assert_eq!(lines_of(&said, "checkpoints: ").len(), 1, "{said}");
    let _ = std::fs::remove_dir_all(&there);
    std::fs::rename(&away, &there).unwrap();
    assert!(catch_up(&data, &[]).contains("going on from checkpoint"));
    stream.check_table(&data);
    assert_eq!(ledger(&data)["read"], stream.ledger["read"]);
}

#[test]
fn a_full_disk_stops_the_run_and_room_lets_it_go_on() {
    let test = "a_full_disk_stops_the_run_and_room_lets_it_go_on";
    let place = Place::new();
    let mut rng = seeded(test);
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 20_000);
    for (folder, left) in [("", 40 << 10), ("checkpoints", 16 << 10), ("tallies", 4 << 10)] {
        let data = place.path(&format!("full-{folder}"));
        // All on one device, or one of them on a device of its own.
        let Some(disk) = Mounted::new(&data.join(folder), "64m") else { return skip(test, NO_MOUNT) };
        let _ = std::fs::remove_dir(data.join("checkpoints/main"));
        for part in std::fs::read_dir(&stream.data).unwrap() {
            let part = part.unwrap().path();
            let to = data.join(part.file_name().unwrap());
            assert!(Command::new("cp").arg("-aT").arg(&part).arg(&to).status().unwrap().success());
        }
        // What is left there is less than what the run writes.
        let (filler, mut bytes) = (data.join(folder).join("filler"), 64 << 20);
        let free = Command::new("df").args(["--output=avail", "-B1"]).arg(&disk.0).output().unwrap();
        let free =
            String::from_utf8_lossy(&free.stdout).lines().last().unwrap().trim().parse::<usize>().unwrap();
        bytes = bytes.min(free.saturating_sub(left));
        std::fs::write(&filler, vec![0; bytes]).unwrap();
        let run = Live::start(run_command(&data, WATCHED).args(["--workers", "2", "--until-caught-up"]));
        let said = run.end(PATIENCE).fails(1, &["no space left on the device that holds", "make room"]);
        assert!(said.lines().last().unwrap().contains("no space left"), "{said}");
        std::fs::remove_file(&filler).unwrap();
        catch_up(&data, &[]);
        stream.check(&data);
    }
}

/// Retention dropped records that were never read: how many is declared, and the rest counts.
#[test]
fn what_retention_dropped_before_it_was_read_is_a_declared_gap() {
    let place = Place::new();
    let mut rng = seeded("what_retention_dropped_before_it_was_read_is_a_declared_gap");
    let (bytes, _) = audience(rng.next_u64() % 1_000, 6_000);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
    let (first, second) = lines.split_at(1_000);
    let file = place.write("first.jsonl", first.concat());
    let data = place.data();
    append(&data, &[&file]);
    catch_up(&data, &[]);
    let before = ledger(&data);
    // The rest comes in small segments, of which the oldest are dropped.
    let options = LogOptions { segment_bytes: 16 << 10, ..LogOptions::default() };
    let (log, _) = EmbeddedLog::open(&data, options).unwrap();
    let mut dropped = 0;
    for partition in 0..4u32 {
        let mine = second.iter().enumerate().filter(|(n, _)| *n as u32 % 4 == partition);
        let records: Vec<Record> = mine.map(|(_, line)| Record::new("", line.trim_ascii_end())).collect();
        let from = log.end_offset("impressions", partition).unwrap();
        let now = uptake::data_dir::now().0;
        for some in records.chunks(20) {
            log.append("impressions", partition, some, now).unwrap();
        }
        // One of them is left as it is, and one loses everything.
        let to = [from, from + 300, from + 900, log.end_offset("impressions", partition).unwrap()];
        let start = log.truncate_before("impressions", partition, to[partition as usize]).unwrap();
        dropped += start.saturating_sub(from);
    }
    assert!(dropped > 1_000, "{dropped}");
    drop(log);
    let kept = topic_lines(&data);
    common::live::copy_dir(&data, &place.path("stopping"));
    let run =
        Live::start(run_command(&place.path("stopping"), &["input.on_gap=stop"]).arg("--until-caught-up"));
    let said =
        run.end(SOON).fails(1, &["the log dropped", "before they were read", "set input.on_gap=declare"]);
    assert_eq!(lines_of(&said, "the log dropped").len(), 1, "{said}");

    let said = catch_up(&data, &[]);
    assert!(said.matches("declared as a gap in the ledger").count() >= 2, "{said}");
    let books = ledger(&data);
    let n = |books: &serde_json::Value, key: &str| books[key].as_u64().unwrap();
    say(&format!("{dropped} records were dropped, {} declared", n(&books, "gap")));
    assert_eq!(n(&books, "gap"), dropped);
    assert_eq!(n(&books, "read"), 6_000, "gaps included");
    assert_eq!(n(&before, "read"), 1_000);
    // A gap is declared once.
    catch_up(&data, &[]);
    assert_eq!(ledger(&data), books);
    // What was read counts as if the rest had never been.
    let all = place.write("kept.jsonl", [first.concat(), kept].concat());
    let unbounded = ["--set", "join.lateness=off", "--set", "join.request_events_max=off"];
    common::books(&[&all], &place.path("replayed"), &unbounded);
    assert_eq!(n(&books, "late"), 0, "{books}");
    assert_eq!(csv(&data), csv(&place.path("replayed")));
}

/// All impressions that the log holds, as lines.
fn topic_lines(data: &Path) -> Vec<u8> {
    let (log, _) = EmbeddedLog::open(data, LogOptions::default()).unwrap();
    let mut lines = Vec::new();
    for partition in 0..4 {
        let mut offset = log.start_offset("impressions", partition).unwrap();
        loop {
            let each = &mut |record: uptake_connectors::log::StoredRef<'_>| {
                lines.extend_from_slice(record.value);
                lines.push(b'\n');
            };
            let next = log.read_each("impressions", partition, offset, 1_000, 64 << 20, each).unwrap();
            if next == offset {
                break;
            }
            offset = next;
        }
    }
    lines
}

/// A log that ends before what was read of it has lost records, or its topic was made anew: who waited for the old
/// offset would never read what is there now.
#[test]
fn a_log_that_ends_before_what_was_read_is_read_on() {
    let place = Place::new();
    let data = place.data();
    let first: Vec<String> = (0..400).map(|n| format!("i a{n} v1 10:00 | p a{n} v1 10:01")).collect();
    append(&data, &[&place.write("first.jsonl", common::events(&first.join(" | ")))]);
    catch_up(&data, &[]);
    std::fs::remove_dir_all(data.join("log/impressions")).unwrap();
    std::fs::remove_dir_all(data.join("log/plays")).unwrap();
    let second = place.write("second.jsonl", common::events("i b1 v2 10:10 | p b1 v2 10:11 | i b2 v2 10:12"));
    append(&data, &[&second]);
    let looked = uptake(["doctor", "--data", data.to_str().unwrap()]);
    assert!(looked.stdout.contains("records before what was read of it"), "{}", looked.stdout);
    common::live::copy_dir(&data, &place.path("stopping"));
    let mut stops = run_command(&place.path("stopping"), &["input.on_gap=stop"]);
    let says = ["ends at offset", "is to be read next", "set input.on_gap=declare"];
    Live::start(stops.arg("--until-caught-up")).end(SOON).fails(1, &says);

    let said = catch_up(&data, &[]);
    assert!(said.contains("going on with what was appended since"), "{said}");
    assert_eq!(common::told(&common::csv(&data)), "v1 10:00 400/400 | v2 10:00 1/1");
    let books = ledger(&data);
    assert_eq!((&books["read"], &books["counted"]), (&803.into(), &802.into()), "{books}");
    // And from there as ever.
    assert!(!catch_up(&data, &[]).contains("going on with what was appended since"));
    assert_eq!(ledger(&data)["read"], books["read"]);

    // Where it has grown again beyond what was read before anybody looked, what stands there is newer.
    std::fs::remove_dir_all(data.join("log/impressions")).unwrap();
    let (log, _) = EmbeddedLog::open(&data, LogOptions::default()).unwrap();
    log.create_topic("impressions", 4).unwrap();
    let later = uptake::data_dir::now().0 + 120_000;
    for n in 0..40 {
        let line = common::events(&format!("i c{n} v3 10:20"));
        log.append("impressions", 0, &[Record::new("", line.trim_end())], later).unwrap();
    }
    assert!(log.end_offset("impressions", 0).unwrap() > 4);
    drop(log);
    let said = catch_up(&data, &[]);
    assert!(said.contains("what came after it was read"), "{said}");
    assert_eq!(ledger(&data)["read"], 843);
}

/// A topic that is no longer configured is not read, whether it is there or not, and what was read of it stays counted.
#[test]
fn topics_of_before_are_not_read_any_more() {
    let place = Place::new();
    let data = place.data();
    append(
        &data,
        &[&place.write("1.jsonl", common::events("i r1 v1 10:00 | p r1 v1 10:01 | i r2 v1 10:02"))],
    );
    catch_up(&data, &[]);
    append(&data, &[&place.write("2.jsonl", common::events("i r3 v1 10:00 | p r3 v1 10:01"))]);
    let other = r#"input.topics=["events"]"#;
    let more = place.write("3.jsonl", common::events("p r2 v1 10:03"));
    let append_to = ["append", more.to_str().unwrap(), "--data", data.to_str().unwrap(), "--set", other];
    uptake(append_to).ok();
    let said = catch_up(&data, &[other]);
    assert!(said.contains("topic plays is not in input.topics"), "{said}");
    assert_eq!(
        common::told(&common::csv(&data)),
        "v1 10:00 2/2",
        "what waited finds its play in the new topic"
    );
    for topic in ["impressions", "plays"] {
        std::fs::remove_dir_all(data.join("log").join(topic)).unwrap();
    }
    catch_up(&data, &[other]);
    assert_eq!(ledger(&data)["read"], 4);
}

/// An embedded log drops what is older than it is to keep, once it was read and no checkpoint needs it.
#[test]
fn a_log_drops_what_is_old_and_read() {
    let place = Place::new();
    let data = place.data();
    let (bytes, _) = audience(5, 4_000);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
    append(&data, &[&place.write("none.jsonl", "")]);
    let (log, _) =
        EmbeddedLog::open(&data, LogOptions { segment_bytes: 8 << 10, ..LogOptions::default() }).unwrap();
    let now = uptake::data_dir::now().0;
    let hour = 3_600_000;
    // Of each partition a half came ten hours ago, and the rest now.
    for (n, some) in lines.chunks(20).enumerate() {
        let records: Vec<Record> = some.iter().map(|line| Record::new("", line.trim_ascii_end())).collect();
        let at = if n < 100 { now - 10 * hour } else { now };
        log.append("impressions", n as u32 % 4, &records, at).unwrap();
    }
    log.create_topic("served-rows", 1).unwrap();
    for n in 0..200 {
        let old = [Record::new("", vec![b'x'; 100])];
        log.append("served-rows", 0, &old, now - (200 - n) * hour / 10).unwrap();
    }
    let starts = || {
        let all = (0..4).map(|n| log.start_offset("impressions", n).unwrap());
        (all.collect::<Vec<_>>(), log.start_offset("served-rows", 0).unwrap())
    };
    let keep = |keep: &'static str| [keep, "checkpoint.keep=1", "checkpoint.interval=50ms"];
    catch_up(&data, &keep("log.keep=off"));
    assert_eq!(starts(), (vec![0; 4], 0));
    let books = ledger(&data);
    catch_up(&data, &keep("log.keep=5h"));
    let (read, served) = starts();
    say(&format!("the log begins at {read:?} of 1000 a partition, that of served rows at {served}"));
    assert!(read.iter().all(|&start| (300..=500).contains(&start)), "{read:?}");
    assert!((50..=150).contains(&served), "{served}");
    // Nothing was dropped that was to be read.
    assert_eq!(ledger(&data)["read"], books["read"]);
    assert_eq!(ledger(&data)["gap"], 0);
    let kafka = ["run", "--data", "x", "--set", "log.url=kafka://localhost", "--set", "log.keep=7d"];
    uptake(kafka).fails(2, &["log.keep: Kafka keeps its records itself"]);
}
