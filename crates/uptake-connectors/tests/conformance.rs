//! What every log, table, archive and store of objects must do, in memory or on disk. A new connector
//! starts with these tests written: call the family's function with a way to make an empty one.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod families;

use std::collections::BTreeMap;

use families::archive::archive;
use families::log::log;
use families::objects::objects;
use families::table::{any_row, content, row, table};
use proptest::prelude::*;
use tempfile::TempDir;
use uptake_connectors::archive::{Archive, DirectoryArchive, MemoryArchive};
use uptake_connectors::log::{Durability, EmbeddedLog, Log, LogOptions, MemoryLog};
use uptake_connectors::objects::{CHECKPOINTS, DirectoryObjects, MemoryObjects, Objects};
use uptake_connectors::table::{MemoryTable, SqliteTable, Table};
use uptake_model::{Epoch, TallyRow};

/// A connector and the directory it lives in, if any.
type Made<T> = (Box<T>, Option<TempDir>);

fn in_memory<T: ?Sized>(it: Box<T>) -> Made<T> {
    (it, None)
}

fn on_disk<T: ?Sized>(make: impl FnOnce(&std::path::Path) -> Box<T>) -> Made<T> {
    let directory = tempfile::tempdir().unwrap();
    (make(directory.path()), Some(directory))
}

fn memory_log() -> Made<dyn Log> {
    in_memory(Box::new(MemoryLog::new()))
}

fn embedded_log() -> Made<dyn Log> {
    on_disk::<dyn Log>(|path| Box::new(EmbeddedLog::open(path, LogOptions::default()).unwrap().0))
}

/// Segments so small that nearly every append begins one.
fn embedded_log_of_tiny_segments() -> Made<dyn Log> {
    let options = LogOptions { durability: Durability::Power, segment_bytes: 100, ..LogOptions::default() };
    on_disk::<dyn Log>(|path| Box::new(EmbeddedLog::open(path, options).unwrap().0))
}

fn memory_table() -> Made<dyn Table> {
    in_memory(Box::new(MemoryTable::new()))
}

fn sqlite_table() -> Made<dyn Table> {
    on_disk::<dyn Table>(|path| Box::new(SqliteTable::open(path).unwrap()))
}

fn memory_archive() -> Made<dyn Archive> {
    in_memory(Box::new(MemoryArchive::new()))
}

fn directory_archive() -> Made<dyn Archive> {
    on_disk::<dyn Archive>(|path| Box::new(DirectoryArchive::open(path)))
}

fn memory_objects() -> Made<dyn Objects> {
    in_memory(Box::new(MemoryObjects::new()))
}

fn directory_objects() -> Made<dyn Objects> {
    on_disk::<dyn Objects>(|path| Box::new(DirectoryObjects::open(path, CHECKPOINTS).unwrap()))
}

#[test]
fn memory_log_conforms() {
    log(memory_log);
}

#[test]
fn embedded_log_conforms() {
    log(embedded_log);
}

#[test]
fn embedded_log_of_tiny_segments_conforms() {
    log(embedded_log_of_tiny_segments);
}

#[test]
fn memory_table_conforms() {
    table(memory_table);
}

#[test]
fn sqlite_table_conforms() {
    table(sqlite_table);
}

#[test]
fn memory_archive_conforms() {
    archive(memory_archive);
}

#[test]
fn directory_archive_conforms() {
    archive(directory_archive);
}

#[test]
fn memory_objects_conform() {
    objects(memory_objects);
}

#[test]
fn directory_objects_conform() {
    objects(directory_objects);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any order of the writes, any cut into transactions, any repeats: one table.
    #[test]
    fn writes_commute(
        rows in prop::collection::vec(any_row(), 1..40),
        order in prop::collection::vec((any::<prop::sample::Index>(), 1usize..5), 0..20),
    ) {
        let mut plain = MemoryTable::new();
        plain.write(&rows).unwrap();
        let expected = content(&plain);
        for make in [memory_table, sqlite_table] {
            let mut table = make();
            for (from, n) in &order {
                let from = from.index(rows.len());
                table.0.write(&rows[from..rows.len().min(from + n)]).unwrap();
            }
            for rows in rows.rchunks(7) {
                table.0.write(rows).unwrap();
            }
            prop_assert_eq!(&content(&*table.0), &expected);
        }
    }
}

/// The oracle of `find`: sorted keys and a plain fold, beside both tables' `top`.
#[test]
fn top_is_what_sorting_gives() {
    let rows: Vec<_> = (0..300u64)
        .map(|i| row(&format!("v{}", i % 97), "", (i % 3) as i64, i * 7 % 11, i * 5 % 13))
        .collect();
    let mut largest = BTreeMap::<(String, i64), TallyRow>::new();
    for row in &rows {
        let kept = largest.entry((row.video_id.to_string(), row.epoch.0)).or_insert(row.clone());
        if (row.counts.size(), row.counts.plays) > (kept.counts.size(), kept.counts.plays) {
            *kept = row.clone();
        }
    }
    for make in [memory_table, sqlite_table] {
        let mut table = make();
        table.0.write(&rows).unwrap();
        for epoch in 0..3 {
            let mut expected: Vec<_> = largest.values().filter(|r| r.epoch.0 == epoch).cloned().collect();
            expected.sort_by_key(|r| {
                (std::cmp::Reverse((r.counts.plays, r.counts.impressions)), r.video_id.clone())
            });
            expected.truncate(20);
            assert_eq!(table.0.top("", Some(Epoch(epoch)), 20).unwrap(), expected);
        }
    }
}
