//! A process may end at any step of a write: what was acknowledged is there, what was not is
//! there whole or not at all, and the same work done again ends in the same place.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use uptake_connectors::archive::{Archive, DirectoryArchive, Put, TallyPart};
use uptake_connectors::faults;
use uptake_connectors::log::{Durability, EmbeddedLog, Log, LogOptions, Record};
use uptake_connectors::objects::{CHECKPOINTS, DirectoryObjects, Objects};
use uptake_connectors::table::{SqliteTable, Table};
use uptake_model::tally::Counts;
use uptake_model::{Epoch, EpochLength, TallyRow};

const RECORDS: u64 = 8;

/// Which objects are put; the first one is deleted again.
const OBJECTS: [&str; 3] = ["run/1/state", "run/2/state", "run/3/state"];

fn options() -> LogOptions {
    // Some segments, so that beginning one and dropping one are among the steps.
    LogOptions { durability: Durability::Power, segment_bytes: 150, ..LogOptions::default() }
}

fn record(i: u64) -> Record {
    Record::new("k", format!("record {i}"))
}

fn row(plays: u64) -> TallyRow {
    TallyRow {
        video_id: "v".into(),
        segment: "".into(),
        epoch: Epoch(7),
        counts: Counts { plays, impressions: 9, exact: true },
        sealed: true,
        sets: None,
    }
}

fn part() -> TallyPart {
    TallyPart { epoch: Epoch(7), length: EpochLength::default(), shard: 0, shards: 1 }
}

/// All that this crate writes, begun anew or gone on with; says what is done.
fn work(directory: &Path, done: &mut dyn FnMut(String)) {
    let (log, _) = EmbeddedLog::open(directory, options()).unwrap();
    log.create_topic("t", 2).unwrap();
    done("topic".into());
    for i in log.end_offset("t", 1).unwrap()..RECORDS {
        assert_eq!(log.append("t", 1, &[record(i)], i as i64).unwrap(), i);
        done(format!("record {i}"));
    }
    log.truncate_before("t", 1, 4).unwrap();
    done("retention".into());
    let mut table = SqliteTable::open(directory).unwrap();
    let mut archive = DirectoryArchive::open(directory);
    for plays in [1, 2] {
        table.write(&[row(plays)]).unwrap();
        done(format!("row {plays}"));
        archive.put_tallies(&part(), &mut vec![row(plays)]).unwrap();
        done(format!("part {plays}"));
    }
    table.meta_put("ledger", "{}").unwrap();
    done("meta".into());
    let objects = DirectoryObjects::open(directory, CHECKPOINTS).unwrap();
    for name in OBJECTS {
        objects.put_if_absent(name, name.as_bytes()).unwrap();
        done(name.into());
    }
    objects.delete(OBJECTS[0]).unwrap();
    done("delete".into());
}

/// The beginning of each line in which the working process says what it has done.
const DONE: &str = "done: ";

#[test]
#[ignore = "a process that another test starts"]
fn a_process_that_works() {
    let (Some(directory), Ok(after)) =
        (std::env::var_os("UPTAKE_TEST_DIRECTORY"), std::env::var("UPTAKE_TEST_CRASH_POINT"))
    else {
        return;
    };
    faults::arm(after.parse().unwrap());
    work(Path::new(&directory), &mut |what| println!("\n{DONE}{what}"));
}

fn process(directory: &Path, after: u64) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_that_works", "--ignored", "--nocapture"]).stdin(Stdio::null());
    command.env("UPTAKE_TEST_DIRECTORY", directory).env("UPTAKE_TEST_CRASH_POINT", after.to_string());
    command.output().unwrap()
}

/// What must be there of what the process said was done, and nothing that was not begun.
fn check(directory: &Path, done: &[&str]) {
    let is_done = |what: &str| done.contains(&what);
    let (log, _) = EmbeddedLog::open(directory, options()).unwrap();
    if is_done("topic") {
        let (start, end) = (log.start_offset("t", 1).unwrap(), log.end_offset("t", 1).unwrap());
        let acknowledged = done.iter().filter(|what| what.starts_with("record")).count() as u64;
        assert!(end == acknowledged || end == acknowledged + 1, "{end} of {acknowledged} records");
        assert!(start <= 4 && (start == 0 || acknowledged == RECORDS));
        let read = log.read("t", 1, start, usize::MAX, usize::MAX).unwrap();
        let read: Vec<_> = read.into_iter().map(|r| Record::new(r.key, r.value)).collect();
        assert_eq!(read, (start..end).map(record).collect::<Vec<_>>());
    }
    if let Ok(table) = SqliteTable::open_read_only(directory) {
        let plays = table.get("v", "", Epoch(7)).unwrap().map_or(0, |row| row.counts.plays);
        assert!(plays >= if is_done("row 2") { 2 } else { u64::from(is_done("row 1")) });
        assert!(table.meta_get("ledger").unwrap().is_some() || !is_done("meta"));
    } else {
        assert!(!is_done("row 1"));
    }
    if done.iter().any(|what| what.starts_with("part")) {
        let rows = DirectoryArchive::open(directory).read_tallies(&part()).unwrap();
        assert!(rows[0].counts.plays >= if is_done("part 2") { 2 } else { 1 });
    }
    let objects = DirectoryObjects::open(directory, CHECKPOINTS).unwrap();
    for name in OBJECTS {
        let found = objects.get(name).unwrap();
        assert!(found.is_some() || !is_done(name) || name == OBJECTS[0], "{name}");
        assert!(found.is_none_or(|bytes| bytes == name.as_bytes()), "whole or not at all");
    }
}

#[test]
fn the_work_survives_a_crash_at_every_point() {
    let mut points = Vec::new();
    for after in 1.. {
        let directory = tempfile::tempdir().unwrap();
        let output = process(directory.path(), after);
        let text = String::from_utf8(output.stdout).unwrap();
        let done: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(DONE)).collect();
        if output.status.success() {
            break;
        }
        let said = String::from_utf8(output.stderr).unwrap();
        let what = said.lines().find_map(|line| line.strip_prefix(&format!("crash point {after}: ")));
        points.push(what.unwrap_or_else(|| panic!("{said}")).to_owned());
        check(directory.path(), &done);
        // The same work again, to its end, and once more.
        for _ in 0..2 {
            work(directory.path(), &mut |_| {});
        }
        let objects = DirectoryObjects::open(directory.path(), CHECKPOINTS).unwrap();
        let left: Vec<_> = objects.list("").unwrap().into_iter().map(|info| info.name).collect();
        assert_eq!(left, OBJECTS[1..]);
        let mut archive = DirectoryArchive::open(directory.path());
        assert_eq!(archive.put_tallies(&part(), &mut vec![row(2)]).unwrap(), Put::Identical);
    }
    let count = |what: &str| points.iter().filter(|point| *point == what).count() as u64;
    assert_eq!((count("half of a frame written"), count("frame flushed")), (RECORDS, RECORDS));
    assert_eq!(count("transaction committed"), 4);
    assert_eq!((count("linked"), count("renamed")), (OBJECTS.len() as u64 + 1, 2));
    for what in ["segment created", "full segment flushed", "folder removed", "temporary file flushed"] {
        assert!(count(what) > 0, "{what} is no point");
    }
}

#[test]
fn a_process_that_is_not_armed_counts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    work(directory.path(), &mut |_| {});
    assert_eq!(faults::passed(), 0);
}
