//! One log, several processes: what one appends, begins, drops and leaves behind in a crash, the
//! others see.
//!
//! An `EmbeddedLog` knows of another on the same directory only what is on disk, so two of them in
//! one process are as good as two processes; one test uses real ones.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use uptake_connectors::log::{Durability, EmbeddedLog, Log, LogOptions, Record, Stored};
use uptake_connectors::{FailureKind, LogError};

fn open(directory: &Path, segment_bytes: u64) -> EmbeddedLog {
    EmbeddedLog::open(directory, LogOptions { segment_bytes, ..LogOptions::default() }).unwrap().0
}

fn one(text: impl Into<String>) -> [Record; 1] {
    [Record::new("k", text.into())]
}

fn texts(read: &[Stored]) -> Vec<String> {
    read.iter().map(|stored| String::from_utf8(stored.value.clone()).unwrap()).collect()
}

fn all(log: &EmbeddedLog) -> Vec<String> {
    let start = log.start_offset("t", 0).unwrap();
    texts(&log.read("t", 0, start, usize::MAX, usize::MAX).unwrap())
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("log/t/0")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

fn add(path: &Path, bytes: &[u8]) {
    File::options().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

/// What `append` of this record adds to the last segment of a log that holds `before`.
fn frame_after(before: &[&str], text: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path(), 1 << 20);
    log.create_topic("t", 1).unwrap();
    for text in before {
        log.append("t", 0, &one(*text), 1).unwrap();
    }
    let path = &segments(directory.path())[0];
    let bytes = fs::metadata(path).unwrap().len() as usize;
    log.append("t", 0, &one(text), 1).unwrap();
    fs::read(path).unwrap()[bytes..].to_vec()
}

#[test]
fn appends_of_four_are_one_sequence_that_readers_see_grow() {
    const WRITERS: usize = 4;
    const APPENDS: usize = 300;
    for segment_bytes in [150, 3_000, 1 << 20] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        open(path, segment_bytes).create_topic("t", 1).unwrap();
        let written = AtomicBool::new(false);
        let (said, seen) = std::thread::scope(|scope| {
            let writer = |writer: usize| {
                let log = open(path, segment_bytes);
                move || {
                    let append = |i: usize| {
                        let records: Vec<_> =
                            (0..1 + i % 3).map(|n| Record::new("k", format!("{writer}/{i}/{n}"))).collect();
                        let first = log.append("t", 0, &records, i as i64).unwrap();
                        assert!(log.end_offset("t", 0).unwrap() >= first + records.len() as u64);
                        (first, records)
                    };
                    (0..APPENDS).map(append).collect::<Vec<_>>()
                }
            };
            let reader = |step: usize| {
                let (log, written) = (open(path, segment_bytes), &written);
                move || {
                    let mut seen = Vec::new();
                    loop {
                        let last = written.load(Ordering::Acquire);
                        let end = log.end_offset("t", 0).unwrap();
                        assert!(end >= seen.len() as u64);
                        let read = log.read("t", 0, seen.len() as u64, step, usize::MAX).unwrap();
                        assert!(end <= seen.len() as u64 || !read.is_empty(), "what was announced is there");
                        if read.is_empty() && last {
                            return seen;
                        }
                        assert!(read.iter().map(|r| r.offset).eq((seen.len() as u64..).take(read.len())));
                        seen.extend(texts(&read));
                    }
                }
            };
            let readers: Vec<_> = [1, 7, 1_000].into_iter().map(|step| scope.spawn(reader(step))).collect();
            let writers: Vec<_> = (0..WRITERS).map(|i| scope.spawn(writer(i))).collect();
            let said: Vec<_> = writers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            written.store(true, Ordering::Release);
            let seen: Vec<_> = readers.into_iter().map(|thread| thread.join().unwrap()).collect();
            (said, seen)
        });
        let content = all(&open(path, segment_bytes));
        let total: usize = said.iter().map(|(_, records)| records.len()).sum();
        assert_eq!(content.len(), total, "nothing is lost or doubled");
        for (first, records) in &said {
            for (text, record) in content[*first as usize..].iter().zip(records) {
                assert_eq!(text.as_bytes(), record.value, "each where its writer was told");
            }
        }
        for seen in seen {
            assert!(seen == content, "readers see the same sequence");
        }
    }
}

/// Runs `what` of this file's tests in a process of its own.
fn process(what: &str, directory: &Path, number: usize) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", what, "--ignored", "--nocapture"]).env("UPTAKE_TEST_DIRECTORY", directory);
    command.env("UPTAKE_TEST_NUMBER", number.to_string()).stdout(Stdio::null());
    command
}

#[test]
#[ignore = "a process that another test starts"]
fn a_process_that_appends() {
    let (Some(directory), Ok(number)) =
        (std::env::var_os("UPTAKE_TEST_DIRECTORY"), std::env::var("UPTAKE_TEST_NUMBER"))
    else {
        return;
    };
    let log = open(Path::new(&directory), 2_000);
    log.create_topic("t", 1).unwrap();
    for i in 0..300 {
        log.append("t", 0, &one(format!("{number}/{i}")), 1).unwrap();
    }
}

#[test]
fn real_processes_share_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path(), 2_000);
    let start = |i| process("a_process_that_appends", directory.path(), i).spawn().unwrap();
    let children: Vec<_> = (0..3).map(start).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let content = all(&log);
    assert_eq!(content.len(), 900);
    for number in 0..3 {
        let of_one = content.iter().filter_map(|text| text.strip_prefix(&format!("{number}/")));
        assert!(of_one.eq((0..300).map(|i| i.to_string()).collect::<Vec<_>>()), "in its order");
    }
}

#[test]
fn a_torn_tail_is_not_there_for_readers_and_cut_by_the_next_append() {
    let frame = frame_after(&["a"], "b");
    for torn in 1..frame.len() {
        let directory = tempfile::tempdir().unwrap();
        let (one_log, other) = (open(directory.path(), 1 << 20), open(directory.path(), 1 << 20));
        one_log.create_topic("t", 1).unwrap();
        one_log.append("t", 0, &one("a"), 1).unwrap();
        let path = &segments(directory.path())[0];
        add(path, &frame[..torn]);
        for log in [&one_log, &other] {
            assert_eq!((log.end_offset("t", 0).unwrap(), all(log)), (1, vec!["a".to_owned()]));
        }
        assert_eq!(other.append("t", 0, &one("c"), 1).unwrap(), 1);
        assert_eq!(one_log.append("t", 0, &one("d"), 1).unwrap(), 2);
        for log in [&one_log, &other, &open(directory.path(), 1 << 20)] {
            assert_eq!(all(log), ["a", "c", "d"]);
        }
    }
}

#[test]
fn a_frame_that_is_being_written_is_there_once_it_is_whole() {
    let frame = frame_after(&["a"], "b");
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path(), 1 << 20);
    log.create_topic("t", 1).unwrap();
    log.append("t", 0, &one("a"), 1).unwrap();
    let path = &segments(directory.path())[0];
    let before = fs::metadata(path).unwrap().len();
    for at in 0..frame.len() {
        assert_eq!(log.end_offset("t", 0).unwrap(), 1, "{at} bytes");
        assert_eq!(log.read("t", 0, 1, 9, 9).unwrap(), []);
        add(path, &frame[at..=at]);
    }
    assert_eq!(all(&log), ["a", "b"]);
    // Some file systems tell the length before they have the bytes.
    File::options().write(true).open(path).unwrap().set_len(before).unwrap();
    assert_eq!(log.end_offset("t", 0).unwrap(), 1, "an append that could not be flushed is gone");
    File::options().write(true).open(path).unwrap().set_len(before + frame.len() as u64).unwrap();
    assert_eq!(log.end_offset("t", 0).unwrap(), 1);
    let mut bytes = fs::read(path).unwrap();
    bytes[before as usize..].copy_from_slice(&frame);
    fs::write(path, bytes).unwrap();
    assert_eq!(all(&log), ["a", "b"]);
}

/// A reader had seen an append that could not be flushed and was cut away, and others appended
/// beyond that place before it looked again.
#[test]
fn an_append_that_was_seen_and_cut_away_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let (log, other) = (open(directory.path(), 1 << 20), open(directory.path(), 1 << 20));
    log.create_topic("t", 1).unwrap();
    log.append("t", 0, &one("a"), 1).unwrap();
    let path = &segments(directory.path())[0];
    let before = fs::metadata(path).unwrap().len();
    other.append("t", 0, &one("b"), 1).unwrap();
    assert_eq!(all(&log), ["a", "b"]);
    File::options().write(true).open(path).unwrap().set_len(before).unwrap();
    for text in ["a longer one", "d", "e"] {
        open(directory.path(), 1 << 20).append("t", 0, &one(text), 1).unwrap();
    }
    assert_eq!(all(&log), ["a", "a longer one", "d", "e"]);
    assert_eq!(other.append("t", 0, &one("f"), 1).unwrap(), 4);
}

#[test]
fn damage_before_whole_frames_is_an_error_and_nothing_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let (log, other) = (open(directory.path(), 1 << 20), open(directory.path(), 1 << 20));
    log.create_topic("t", 1).unwrap();
    log.append("t", 0, &one("a"), 1).unwrap();
    let path = &segments(directory.path())[0];
    let damaged = fs::metadata(path).unwrap().len();
    other.append("t", 0, &one("b"), 1).unwrap();
    other.append("t", 0, &one("c"), 1).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[damaged as usize + 30] ^= 1;
    fs::write(path, &bytes).unwrap();
    for error in [
        log.end_offset("t", 0).unwrap_err(),
        log.append("t", 0, &one("d"), 1).unwrap_err(),
        EmbeddedLog::open(directory.path(), LogOptions::default()).map(|_| ()).unwrap_err(),
    ] {
        assert!(
            matches!(&error, LogError::Corrupt { position, .. } if *position == damaged)
                && error.kind() == FailureKind::Permanent,
            "{error}"
        );
    }
    assert_eq!(fs::read(path).unwrap(), bytes);
}

#[test]
fn what_another_dropped_is_out_of_range() {
    let directory = tempfile::tempdir().unwrap();
    let (log, other) = (open(directory.path(), 100), open(directory.path(), 100));
    log.create_topic("t", 1).unwrap();
    for i in 0..30 {
        log.append("t", 0, &one(i.to_string()), i).unwrap();
    }
    // One reader is in the middle of what goes, another never looked.
    assert_eq!(log.read("t", 0, 0, 3, usize::MAX).unwrap().len(), 3);
    let start = other.truncate_before("t", 0, 20).unwrap();
    assert!(start > 10 && start <= 20);
    for log in [&log, &other] {
        for offset in [0, 3, start - 1] {
            let error = log.read("t", 0, offset, 1, 1).unwrap_err();
            assert!(
                matches!(error, LogError::OffsetOutOfRange { start: s, end: 30, .. } if s == start),
                "{error}"
            );
        }
        assert_eq!(log.start_offset("t", 0).unwrap(), start);
        assert_eq!(log.offset_for_time("t", 0, 0).unwrap(), start);
        assert_eq!(all(log).len() as u64, 30 - start);
    }
    // Even the segment that the first one took for the last.
    for i in 30..40 {
        other.append("t", 0, &one(i.to_string()), i).unwrap();
    }
    let start = other.truncate_before("t", 0, 40).unwrap();
    assert!(start > 35);
    assert_eq!((log.start_offset("t", 0).unwrap(), log.end_offset("t", 0).unwrap()), (start, 40));
    assert_eq!(log.append("t", 0, &one("40"), 40).unwrap(), 40);
    assert_eq!(all(&other).last().unwrap(), "40");
}

#[test]
fn readers_meet_retention_at_any_moment() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    open(path, 200).create_topic("t", 1).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let log = open(path, 200);
            for i in 0..3_000u64 {
                assert_eq!(log.append("t", 0, &one(i.to_string()), 1).unwrap(), i);
                if i % 7 == 0 {
                    log.truncate_before("t", 0, i.saturating_sub(15)).unwrap();
                }
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let log = open(path, 200);
                let mut next = 0;
                while next < 3_000 {
                    match log.read("t", 0, next, 10, usize::MAX) {
                        Ok(read) => {
                            for stored in read {
                                assert_eq!(stored.value, stored.offset.to_string().into_bytes());
                                assert_eq!(stored.offset, next);
                                next += 1;
                            }
                        }
                        Err(LogError::OffsetOutOfRange { .. }) => {
                            let start = log.start_offset("t", 0).unwrap();
                            assert!(start > next);
                            next = start;
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
}

#[test]
fn topics_made_by_another_are_found_and_made_once() {
    let directory = tempfile::tempdir().unwrap();
    let (log, other) = (open(directory.path(), 1 << 20), open(directory.path(), 1 << 20));
    assert!(matches!(log.end_offset("t", 0), Err(LogError::UnknownTopic { .. })));
    other.create_topic("t", 2).unwrap();
    assert_eq!((log.topics(), log.partitions("t").unwrap()), (vec!["t".to_owned()], 2));
    assert!(matches!(log.create_topic("t", 3), Err(LogError::PartitionCount { has: 2, .. })));
    log.create_topic("t", 2).unwrap();
    assert_eq!(log.append("t", 1, &one("a"), 1).unwrap(), 0);
    assert_eq!(other.end_offset("t", 1).unwrap(), 1);
    // At the same time, with different ideas of it: one idea wins, and nothing is lost.
    for round in 0..20 {
        let topic = format!("race-{round}");
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let make = |partitions: u32| {
                let (log, topic) = (open(directory.path(), 1 << 20), &topic);
                move || match log.create_topic(topic, partitions) {
                    Ok(()) => {
                        log.append(topic, partitions - 1, &one("a"), 1).unwrap();
                        Ok(partitions)
                    }
                    Err(LogError::PartitionCount { has, .. }) => Err(has),
                    Err(other) => panic!("{other}"),
                }
            };
            let threads: Vec<_> = [1, 2, 2, 3].map(|n| scope.spawn(make(n))).into_iter().collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let has = log.partitions(&topic).unwrap();
        assert!(outcomes.iter().all(|outcome| *outcome == Ok(has) || *outcome == Err(has)), "{outcomes:?}");
        let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
        assert!(made > 0);
        assert_eq!(log.end_offset(&topic, has - 1).unwrap(), made);
    }
}

/// What one of three logs on one directory does.
#[derive(Clone, Debug)]
enum Act {
    Append(usize),
    Read(prop::sample::Index, usize, usize),
    End,
    Truncate(prop::sample::Index),
    /// A crash in the middle of an append: so many bytes of its frame.
    Tear(prop::sample::Index),
    /// A crash while a segment was begun: so many bytes of its header.
    Begin(usize),
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    let place = any::<prop::sample::Index>;
    prop_oneof![
        6 => (1usize..5).prop_map(Act::Append),
        6 => (place(), 0usize..9, prop_oneof![Just(usize::MAX), 0usize..60]).prop_map(|(a, b, c)| Act::Read(a, b, c)),
        2 => Just(Act::End),
        1 => place().prop_map(Act::Truncate),
        2 => place().prop_map(Act::Tear),
        1 => (0usize..24).prop_map(Act::Begin),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever three do in turn, each sees at every moment the one sequence of what was
    /// appended. A failing sequence is printed with its seed.
    #[test]
    fn three_are_as_one(
        acts in prop::collection::vec((0usize..3, act()), 1..60),
        segment_bytes in prop_oneof![Just(100u64), Just(400), Just(1 << 20)],
        power in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let durability = if power { Durability::Power } else { Durability::Process };
        let open = || {
            let options = LogOptions { durability, segment_bytes, ..LogOptions::default() };
            EmbeddedLog::open(directory.path(), options).unwrap().0
        };
        let mut logs = [open(), open(), open()];
        logs[0].create_topic("t", 1).unwrap();
        let (mut content, mut start) = (Vec::<String>::new(), 0);
        for (who, act) in acts {
            let log = &logs[who];
            let end = content.len() as u64;
            match act {
                Act::Append(n) => {
                    let new: Vec<_> = (0..n).map(|i| format!("record {}", end as usize + i)).collect();
                    let records: Vec<_> = new.iter().map(|text| Record::new("k", text.as_str())).collect();
                    prop_assert_eq!(log.append("t", 0, &records, end as i64).unwrap(), end);
                    content.extend(new);
                }
                Act::Read(from, records, bytes) => {
                    let from = from.index(content.len() + 1) as u64;
                    let read = log.read("t", 0, from, records, bytes);
                    if from < start {
                        let is_out_of_range = matches!(read, Err(LogError::OffsetOutOfRange { .. }));
                        prop_assert!(is_out_of_range, "offset {} before {}", from, start);
                        continue;
                    }
                    let read = read.unwrap();
                    let fits = |n: usize| {
                        let sum: usize = content[from as usize..][..n].iter().map(|text| 1 + text.len()).sum();
                        n <= records && (sum <= bytes || n == 1)
                    };
                    let most = (0..=content.len() - from as usize).rev().find(|n| *n == 0 || fits(*n)).unwrap();
                    prop_assert!(texts(&read) == content[from as usize..][..most]);
                    prop_assert!(read.iter().map(|r| r.offset).eq(from..from + most as u64));
                }
                Act::End => {
                    prop_assert_eq!(log.end_offset("t", 0).unwrap(), end);
                    prop_assert_eq!(log.start_offset("t", 0).unwrap(), start);
                }
                Act::Truncate(before) => {
                    let before = before.index(content.len() + 1) as u64;
                    let new = log.truncate_before("t", 0, before).unwrap();
                    prop_assert!(new >= start && new <= before.max(start));
                    start = new;
                }
                Act::Tear(bytes) => {
                    let last = segments(directory.path()).pop().unwrap();
                    // Any frame will do but a whole one with the right offset.
                    let frame = frame_after(&["some"], "record");
                    if fs::metadata(&last).unwrap().len() < 24 {
                        continue; // nobody writes a frame to a segment without its header
                    }
                    add(&last, &frame[..bytes.index(frame.len())]);
                }
                Act::Begin(bytes) => {
                    // Only who has cut what was torn begins a segment.
                    log.append("t", 0, &one("x"), 0).unwrap();
                    content.push("x".to_owned());
                    let files = segments(directory.path());
                    let next = files[0].with_file_name(format!("{:020}.log", content.len()));
                    fs::write(next, &fs::read(&files[0]).unwrap()[..bytes]).unwrap();
                }
                Act::Reopen => logs[who] = open(),
            }
        }
        for log in &logs {
            prop_assert!(all(log) == content[start as usize..]);
        }
    }
}
