//! The log on disk: what a crash and damage do to it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;
use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Record, Recovered, Stored};
use uptake_connectors::{FailureKind, LogError};

fn open(directory: &Path, segment_bytes: u64) -> Result<(EmbeddedLog, Vec<Recovered>), LogError> {
    EmbeddedLog::open(directory, LogOptions { segment_bytes, ..LogOptions::default() })
}

fn record(i: u64) -> Record {
    Record::new(format!("k{i}"), format!("value {i}"))
}

/// A log of `appends` appends of 3 records each, closed again; and its segment files.
fn written(appends: u64, segment_bytes: u64) -> (TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let (log, recovered) = open(directory.path(), segment_bytes).unwrap();
    assert_eq!(recovered, []);
    log.create_topic("t", 1).unwrap();
    for i in 0..appends {
        log.append("t", 0, &[record(3 * i), record(3 * i + 1), record(3 * i + 2)], i as i64).unwrap();
    }
    let files = segments(directory.path());
    (directory, files)
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("log/t/0")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    paths
}

/// What there is from `start` on. A read ends before damage, which the next one tells.
fn read_all(log: &EmbeddedLog, start: u64) -> Result<Vec<Stored>, LogError> {
    let mut all = Vec::new();
    loop {
        let read = log.read("t", 0, start + all.len() as u64, usize::MAX, usize::MAX)?;
        if read.is_empty() {
            return Ok(all);
        }
        all.extend(read);
    }
}

fn holds(log: &EmbeddedLog, records: u64) {
    assert_eq!(log.end_offset("t", 0).unwrap(), records);
    let start = log.start_offset("t", 0).unwrap();
    let read = read_all(log, start).unwrap();
    assert_eq!(read.len() as u64, records - start);
    for (stored, i) in read.into_iter().zip(start..) {
        assert_eq!((stored.offset, Record::new(stored.key, stored.value)), (i, record(i)));
    }
}

#[test]
fn a_log_is_the_same_after_opening_it_again() {
    for segment_bytes in [64, 300, 1 << 20] {
        let (directory, files) = written(20, segment_bytes);
        assert_eq!(files.len() == 1, segment_bytes == 1 << 20, "{files:?}");
        let (log, recovered) = open(directory.path(), segment_bytes).unwrap();
        assert_eq!((recovered, log.topics()), (vec![], vec!["t".to_owned()]));
        holds(&log, 60);
        assert_eq!(log.offset_for_time("t", 0, 7).unwrap(), 21);
        assert_eq!(log.append("t", 0, &[record(60)], 99).unwrap(), 60);
        holds(&log, 61);
        let start = log.truncate_before("t", 0, 40).unwrap();
        drop(log);
        let (log, _) = open(directory.path(), segment_bytes).unwrap();
        assert_eq!(log.start_offset("t", 0).unwrap(), start);
        holds(&log, 61);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A crash leaves any part of the last append: all before it stays, and appending goes on.
    #[test]
    fn a_torn_tail_is_cut_and_reported(
        keep in any::<prop::sample::Index>(),
        junk in prop::collection::vec(any::<u8>(), 0..40),
        zeros in any::<bool>(),
    ) {
        let (directory, files) = written(4, 1 << 20);
        let whole = fs::read(&files[0]).unwrap();
        let (log, _) = open(directory.path(), 1 << 20).unwrap();
        log.append("t", 0, &[record(12), record(13)], 9).unwrap();
        drop(log);
        let mut torn = fs::read(&files[0]).unwrap();
        let keep = keep.index(torn.len() - whole.len());
        torn.truncate(whole.len() + keep);
        torn.extend(junk.iter().map(|byte| if zeros { 0 } else { *byte }));
        let cut = (torn.len() - whole.len()) as u64;
        fs::write(&files[0], torn).unwrap();
        let (log, recovered) = open(directory.path(), 1 << 20).unwrap();
        let expected = Recovered { topic: "t".into(), partition: 0, path: files[0].clone(), bytes_cut: cut };
        prop_assert_eq!(recovered, if cut > 0 { vec![expected] } else { vec![] });
        prop_assert_eq!(fs::read(&files[0]).unwrap(), whole);
        holds(&log, 12);
        log.append("t", 0, &[record(12)], 9).unwrap();
        holds(&log, 13);
    }

    /// Damage to what was acknowledged is told with its place, or it is the last append that is
    /// cut off and reported; wrong records are never read, and nothing panics.
    #[test]
    fn damage_is_never_read_as_records(
        file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), flip in 1u8..=255,
    ) {
        let (directory, files) = written(10, 300);
        let path = &files[file.index(files.len())];
        let mut bytes = fs::read(path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        fs::write(path, bytes).unwrap();
        match open(directory.path(), 300) {
            Err(LogError::Corrupt { path: named, .. }) => prop_assert_eq!(&named, path),
            Err(other) => return Err(TestCaseError::fail(format!("{other}"))),
            Ok((log, recovered)) => match read_all(&log, 0) {
                Err(LogError::Corrupt { path: named, .. }) => prop_assert_eq!(&named, path),
                Err(other) => return Err(TestCaseError::fail(format!("{other}"))),
                Ok(read) => {
                    prop_assert!(!recovered.is_empty() && path == files.last().unwrap());
                    holds(&log, read.len() as u64);
                    prop_assert_eq!(read.len(), 27, "only the last append may go");
                }
            },
        }
    }
}

#[test]
fn damage_in_the_middle_names_file_and_position() {
    let (directory, files) = written(4, 1 << 20);
    let mut bytes = fs::read(&files[0]).unwrap();
    let second = 24 + 8 + u32::from_le_bytes(*bytes[24..].first_chunk().unwrap()) as usize;
    bytes[second + 40] ^= 1;
    fs::write(&files[0], bytes).unwrap();
    let error = open(directory.path(), 1 << 20).map(|_| ()).unwrap_err();
    let text = error.to_string();
    let path = files[0].display().to_string();
    assert!(text.contains(&path) && text.contains(&format!("byte {second}")), "{text}");
    assert!(text.contains("checksum") && error.kind() == FailureKind::Permanent, "{text}");
}

#[test]
fn a_segment_that_was_only_begun_is_repaired() {
    for header_bytes in [0, 5, 23] {
        let (directory, files) = written(3, 1 << 20);
        let begun = files[0].with_file_name(format!("{:020}.log", 9));
        fs::write(&begun, &fs::read(&files[0]).unwrap()[..header_bytes]).unwrap();
        let (log, recovered) = open(directory.path(), 1 << 20).unwrap();
        assert_eq!(recovered.iter().map(|r| r.bytes_cut).sum::<u64>(), header_bytes as u64);
        holds(&log, 9);
        assert_eq!(log.append("t", 0, &[record(9)], 1).unwrap(), 9);
        holds(&log, 10);
    }
}

#[test]
fn a_lost_segment_is_an_error_not_a_gap() {
    let (directory, files) = written(10, 200);
    fs::remove_file(&files[1]).unwrap();
    let (log, _) = open(directory.path(), 200).unwrap();
    let whole = log.read("t", 0, 0, usize::MAX, usize::MAX).unwrap().len() as u64;
    assert!(whole > 0 && whole < 30, "what lies before the gap is read");
    let error = log.read("t", 0, whole, usize::MAX, usize::MAX).unwrap_err();
    assert!(matches!(&error, LogError::Corrupt { path, .. } if *path == files[0]), "{error}");
}

#[test]
fn a_topic_that_was_only_begun_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("log/half/0")).unwrap();
    let (log, _) = open(directory.path(), 1 << 20).unwrap();
    assert!(log.topics().is_empty());
    log.create_topic("half", 2).unwrap();
    drop(log);
    let (log, _) = open(directory.path(), 1 << 20).unwrap();
    assert_eq!(log.partitions("half").unwrap(), 2);
}

/// The first format, written once by hand: what was on disk then is read for ever.
#[test]
fn a_log_of_format_1_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let partition = directory.path().join("log/plays/0");
    fs::create_dir_all(&partition).unwrap();
    fs::write(directory.path().join("log/plays/partitions"), "1\n").unwrap();
    let mut body = Vec::new();
    body.extend_from_slice(&40u64.to_le_bytes());
    body.extend_from_slice(&1u32.to_le_bytes());
    body.extend_from_slice(&1_768_435_200_123i64.to_le_bytes());
    body.extend_from_slice(&[2, 0, 0, 0, 3, 0, 0, 0]);
    body.extend_from_slice(b"r1abc");
    let length = (body.len() as u32).to_le_bytes();
    let crc = crc32c::crc32c(&[&length, body.as_slice()].concat());
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(partition.join("00000000000000000040.log"))
        .unwrap();
    file.write_all(b"uptkslog\x01\0\0\0\0\0\0\0\x28\0\0\0\0\0\0\0").unwrap();
    file.write_all(&[&length, &crc.to_le_bytes()[..], body.as_slice()].concat()).unwrap();
    let (log, recovered) = open(directory.path(), 1 << 20).unwrap();
    assert_eq!(recovered, []);
    assert_eq!((log.start_offset("plays", 0).unwrap(), log.end_offset("plays", 0).unwrap()), (40, 41));
    let read = log.read("plays", 0, 40, 10, 10).unwrap();
    assert_eq!((read[0].offset, read[0].appended_ms), (40, 1_768_435_200_123));
    assert_eq!((read[0].key.as_slice(), read[0].value.as_slice()), (b"r1".as_slice(), b"abc".as_slice()));
}

#[test]
fn reading_on_needs_no_index_and_jumping_finds_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (log, _) = open(directory.path(), 1 << 20).unwrap();
    log.create_topic("t", 1).unwrap();
    let value = vec![b'v'; 1_000];
    for i in 0..3_000u64 {
        log.append("t", 0, &[Record::new(i.to_string(), value.clone())], i as i64).unwrap();
    }
    for from in [0, 2_999, 1_500, 1_501, 64, 63, 2_100, 0] {
        for limit in [1, 7, 100] {
            let read = log.read("t", 0, from, limit, usize::MAX).unwrap();
            assert!(read.iter().map(|r| r.offset).eq(from..3_000.min(from + limit as u64)));
            assert!(read.iter().all(|r| r.key == r.offset.to_string().into_bytes()));
        }
    }
}
