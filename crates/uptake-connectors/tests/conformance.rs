//! What every log, table, archive and store of objects must do, in memory or on disk. A new connector
//! starts with these tests written: call the family's function with a way to make an empty one.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

#[path = "families/log.rs"]
mod log_family;

use std::collections::BTreeMap;

use proptest::prelude::*;
use std::sync::Arc;
use tempfile::TempDir;
use uptake_connectors::archive::{Archive, DirectoryArchive, MemoryArchive, Put, TallyPart};
use uptake_connectors::log::{Durability, EmbeddedLog, Log, LogOptions, MemoryLog};
use uptake_connectors::objects::{DirectoryObjects, MemoryObjects, Objects, PutObject};
use uptake_connectors::table::{MemoryTable, SqliteTable, Table};
use uptake_connectors::{ArchiveError, FailureKind, ObjectsError, TableError};
use uptake_model::tally::{Counts, RequestSet, TallySets};
use uptake_model::{Epoch, EpochLength, RequestId, TallyRow};

/// A connector and the directory it lives in, if any.
struct Made<T: ?Sized> {
    it: Box<T>,
    _directory: Option<TempDir>,
}

fn in_memory<T: ?Sized>(it: Box<T>) -> Made<T> {
    Made { it, _directory: None }
}

fn on_disk<T: ?Sized>(make: impl FnOnce(&std::path::Path) -> Box<T>) -> Made<T> {
    let directory = tempfile::tempdir().unwrap();
    Made { it: make(directory.path()), _directory: Some(directory) }
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
    on_disk::<dyn Archive>(|path| Box::new(DirectoryArchive::open(path).unwrap()))
}

fn memory_objects() -> Made<dyn Objects> {
    in_memory(Box::new(MemoryObjects::new()))
}

fn directory_objects() -> Made<dyn Objects> {
    on_disk::<dyn Objects>(|path| Box::new(DirectoryObjects::open(path).unwrap()))
}

fn log(make: impl Fn() -> Made<dyn Log>) {
    log_family::log(|| {
        let made = make();
        (made.it, made._directory)
    });
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

// --- tables ---

fn row(video: &str, segment: &str, epoch: i64, plays: u64, impressions: u64) -> TallyRow {
    TallyRow {
        video_id: video.into(),
        segment: segment.into(),
        epoch: Epoch(epoch),
        counts: Counts { plays, impressions, exact: true },
        sealed: false,
        sets: None,
    }
}

fn sets(played: &[u64], shown: &[u64]) -> Option<Arc<TallySets>> {
    let exact = |ids: &[u64]| RequestSet::Exact(ids.to_vec());
    Some(Arc::new(TallySets { played: exact(played), shown: exact(shown) }))
}

fn table(make: impl Fn() -> Made<dyn Table>) {
    the_larger_row_wins(&mut *make().it);
    an_equal_row_adds_what_it_brings(&mut *make().it);
    a_table_answers_in_order(&mut *make().it);
    requests_are_found_in_stored_sets(&mut *make().it);
    small_values_are_kept(&mut *make().it);
    counts_too_large_are_refused_whole(&mut *make().it);
    odd_ids_are_ids(&mut *make().it);
}

fn the_larger_row_wins(table: &mut dyn Table) {
    assert!(table.is_empty().unwrap());
    table.write(&[]).unwrap();
    assert!(table.is_empty().unwrap());
    for (plays, impressions, then) in
        [(1, 4, (1, 4)), (1, 3, (1, 4)), (2, 3, (2, 3)), (1, 4, (2, 3)), (0, 6, (0, 6)), (4, 5, (4, 5))]
    {
        table.write(&[row("v", "", 7, plays, impressions)]).unwrap();
        let counts = table.get("v", "", Epoch(7)).unwrap().unwrap().counts;
        assert_eq!((counts.plays, counts.impressions), then);
    }
    assert!(!table.is_empty().unwrap());
    // Twice in one write: the larger, whichever comes first.
    table.write(&[row("w", "", 7, 5, 5), row("w", "", 7, 1, 1), row("w", "", 7, 6, 6)]).unwrap();
    assert_eq!(table.get("w", "", Epoch(7)).unwrap(), Some(row("w", "", 7, 6, 6)));
    assert_eq!(table.get("w", "", Epoch(8)).unwrap(), None);
    assert_eq!(table.get("w", "x=1", Epoch(7)).unwrap(), None);
}

fn an_equal_row_adds_what_it_brings(table: &mut dyn Table) {
    let plain = row("v", "", 1, 1, 2);
    let sealed = TallyRow { sealed: true, ..plain.clone() };
    let full = TallyRow { sets: sets(&[5], &[5, 9]), ..sealed.clone() };
    let get = |table: &dyn Table| table.get("v", "", Epoch(1)).unwrap().unwrap();
    for (written, then) in [
        (&plain, &plain),
        (&sealed, &sealed),
        (&plain, &sealed),
        (&full, &full),
        (&sealed, &full),
        (&full, &full),
    ] {
        table.write(std::slice::from_ref(written)).unwrap();
        assert_eq!(get(table), *then);
    }
    // A late event opened the epoch again: the larger row is all that counts.
    let larger = row("v", "", 1, 2, 2);
    table.write(&[larger.clone(), full]).unwrap();
    assert_eq!(get(table), larger);
}

fn a_table_answers_in_order(table: &mut dyn Table) {
    table
        .write(&[
            row("b", "", 2, 3, 3),
            row("a", "", 2, 3, 3),
            row("c", "", 2, 3, 4),
            row("d", "", 2, 9, 9),
            row("ä", "", 1, 50, 50),
            row("a", "", 1, 1, 1),
            row("a", "", -1, 1, 1),
            row("a", "country=BR", 3, 1, 1),
        ])
        .unwrap();
    let names =
        |rows: Vec<TallyRow>| rows.iter().map(|r| format!("{}{}", r.video_id, r.epoch)).collect::<Vec<_>>();
    assert_eq!(names(table.top("", None, 10).unwrap()), ["d2", "c2", "a2", "b2"]);
    assert_eq!(names(table.top("", None, 2).unwrap()), ["d2", "c2"]);
    assert_eq!(names(table.top("", Some(Epoch(1)), 10).unwrap()), ["ä1", "a1"]);
    assert_eq!(names(table.top("country=BR", None, 10).unwrap()), ["a3"]);
    assert!(table.top("country=DE", None, 10).unwrap().is_empty());
    assert_eq!(names(table.video("a", "").unwrap()), ["a-1", "a1", "a2"]);
    assert!(table.video("x", "").unwrap().is_empty());
    let mut all = Vec::new();
    table
        .scan("", &mut |row| {
            all.push(row);
            Ok(())
        })
        .unwrap();
    assert_eq!(names(all), ["a-1", "a1", "a2", "b2", "c2", "d2", "ä1"]);
    let mut calls = 0;
    let stop = |_| {
        calls += 1;
        Err(TableError::OutOfRange { video_id: String::new(), epoch: 0 })
    };
    assert!(table.scan("", &mut { stop }).is_err(), "the caller's error ends the scan");
    let segments = table.segments().unwrap();
    assert_eq!(segments, [("".into(), 7), ("country=BR".into(), 1)]);
}

fn requests_are_found_in_stored_sets(table: &mut dyn Table) {
    let with = |row: TallyRow, sets| TallyRow { sets, sealed: true, ..row };
    let sketch =
        Arc::new(TallySets { played: RequestSet::Exact(vec![3]), shown: RequestSet::Sketch(vec![1, 2, 3]) });
    table
        .write(&[
            with(row("a", "", 1, 1, 2), sets(&[7], &[7, u64::MAX])),
            with(row("b", "", 1, 0, 2), sets(&[], &[7, 8])),
            with(row("c", "", 1, 1, 1), sets(&[1], &[2])),
            with(row("d", "", 1, 1, 900), Some(sketch.clone())),
            row("e", "", 1, 1, 1),
        ])
        .unwrap();
    assert_eq!(table.get("d", "", Epoch(1)).unwrap().unwrap().sets, Some(sketch));
    let find = |id| {
        let found = table.find_request(RequestId(id)).unwrap();
        found.iter().map(|f| (f.video_id.to_string(), f.played, f.shown)).collect::<Vec<_>>()
    };
    let d = |played| ("d".to_owned(), Some(played), None);
    assert_eq!(
        find(7),
        [("a".into(), Some(true), Some(true)), ("b".into(), Some(false), Some(true)), d(false)]
    );
    assert_eq!(find(u64::MAX), [("a".into(), Some(false), Some(true)), d(false)]);
    assert_eq!(find(3), [d(true)]);
    let certain = |id| table.find_request(RequestId(id)).unwrap().iter().filter(|f| f.is_certain()).count();
    assert_eq!((certain(7), certain(3), certain(4)), (2, 1, 0));
}

fn small_values_are_kept(table: &mut dyn Table) {
    assert_eq!(table.meta_get("ledger").unwrap(), None);
    table.meta_put("ledger", "{}").unwrap();
    table.meta_put("ledger", "{\"read\":1}").unwrap();
    assert_eq!(table.meta_get("ledger").unwrap().as_deref(), Some("{\"read\":1}"));
    assert!(table.is_empty().unwrap());
}

fn counts_too_large_are_refused_whole(table: &mut dyn Table) {
    let error = table.write(&[row("a", "", 1, 1, 1), row("b", "", 1, u64::MAX, 1)]).unwrap_err();
    assert!(error.to_string().contains('b') && error.kind() == FailureKind::Permanent, "{error}");
    assert!(table.is_empty().unwrap());
}

fn odd_ids_are_ids(table: &mut dyn Table) {
    let ids = ["", " ", "'", "\"; DROP TABLE tallies; --", "a\0b", "\u{10ffff}", "v\n1"];
    let rows: Vec<_> = ids.iter().map(|id| row(id, id, 1, 1, 1)).collect();
    table.write(&rows).unwrap();
    for row in rows {
        assert_eq!(table.get(&row.video_id, &row.segment, row.epoch).unwrap(), Some(row));
    }
}

fn any_row() -> impl Strategy<Value = TallyRow> {
    let ids = || prop::collection::btree_set(0u64..6, 0..3).prop_map(|ids| ids.into_iter().collect());
    let set = || {
        prop_oneof![
            ids().prop_map(RequestSet::Exact),
            prop::collection::vec(any::<u8>(), 0..3).prop_map(RequestSet::Sketch),
        ]
    };
    let sets =
        prop::option::of((set(), set()).prop_map(|(played, shown)| Arc::new(TallySets { played, shown })));
    (0..3, 0..2usize, 0..2i64, 0..3u64, 0..3u64, any::<bool>(), any::<bool>(), sets).prop_map(
        |(video, segment, epoch, plays, impressions, exact, sealed, sets)| TallyRow {
            counts: Counts { plays, impressions, exact },
            sealed,
            sets,
            ..row(&format!("v{video}"), ["", "country=BR"][segment], epoch, 0, 0)
        },
    )
}

fn content(table: &dyn Table) -> Vec<TallyRow> {
    let mut keys = Vec::new();
    for segment in ["", "country=BR"] {
        table
            .scan(segment, &mut |row| {
                keys.push(row);
                Ok(())
            })
            .unwrap();
    }
    keys.iter().map(|row| table.get(&row.video_id, &row.segment, row.epoch).unwrap().unwrap()).collect()
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
                table.it.write(&rows[from..rows.len().min(from + n)]).unwrap();
            }
            for rows in rows.rchunks(7) {
                table.it.write(rows).unwrap();
            }
            prop_assert_eq!(&content(&*table.it), &expected);
        }
    }
}

// --- archives ---

fn part(epoch: i64) -> TallyPart {
    TallyPart { epoch: Epoch(epoch), length: EpochLength::default(), shard: 0, shards: 1 }
}

fn archive(make: impl Fn() -> Made<dyn Archive>) {
    what_was_put_is_read(&mut *make().it);
    the_larger_part_stays(&mut *make().it);
    parts_are_listed_in_order(&mut *make().it);
    rows_that_make_no_part_are_refused(&mut *make().it);
}

fn sealed(row: TallyRow, sets: Option<Arc<TallySets>>) -> TallyRow {
    TallyRow { sealed: true, sets, ..row }
}

fn what_was_put_is_read(archive: &mut dyn Archive) {
    let sketch = |bytes: &[u8]| RequestSet::Sketch(bytes.to_vec());
    let exact = |ids: &[u64]| RequestSet::Exact(ids.to_vec());
    let mixed = TallySets { played: exact(&[1]), shown: sketch(&[9; 300]) };
    let sketches = TallySets { played: sketch(&[]), shown: sketch(&[1]) };
    let mut rows = vec![
        sealed(row("v2", "", 5, 2, 3), sets(&[1, u64::MAX], &[0, 1, u64::MAX])),
        sealed(row("v1", "country=BR", 5, 0, 1), sets(&[], &[4])),
        sealed(row("v1", "", 5, 1, 9), Some(mixed.into())),
        sealed(row("ü", "", 5, 1, 1), None),
        sealed(row("v3", "", 5, 0, 0), sets(&[], &[])),
        sealed(row("v0", "", 5, 7, 8), Some(sketches.into())),
    ];
    rows[2].counts.exact = false;
    assert!(matches!(archive.read_tallies(&part(5)), Err(ArchiveError::Missing { .. })));
    assert_eq!(archive.put_tallies(&part(5), &mut rows).unwrap(), Put::Created);
    let names: Vec<_> = rows.iter().map(|r| format!("{}/{}", r.video_id, r.segment)).collect();
    assert_eq!(names, ["v0/", "v1/", "v1/country=BR", "v2/", "v3/", "ü/"], "sorted in place");
    assert_eq!(archive.read_tallies(&part(5)).unwrap(), rows);
    // Enough rows for two row groups, and an epoch without any.
    let mut many: Vec<_> = (0..70_000).map(|i| sealed(row(&format!("v{i:05}"), "", 6, i, i), None)).collect();
    many[69_999].sets = sets(&[3], &(0..40_000).collect::<Vec<_>>());
    archive.put_tallies(&part(6), &mut many).unwrap();
    assert!(archive.read_tallies(&part(6)).unwrap() == many);
    assert_eq!(archive.put_tallies(&part(7), &mut Vec::new()).unwrap(), Put::Created);
    assert_eq!(archive.read_tallies(&part(7)).unwrap(), []);
}

fn the_larger_part_stays(archive: &mut dyn Archive) {
    let mut put =
        |plays| archive.put_tallies(&part(1), &mut vec![sealed(row("v", "", 1, plays, 10), None)]).unwrap();
    let outcomes: Vec<_> = [3, 3, 2, 4, 4, 3].into_iter().map(&mut put).collect();
    assert_eq!(outcomes, [Put::Created, Put::Identical, Put::Kept, Put::Replaced, Put::Identical, Put::Kept]);
    assert_eq!(archive.read_tallies(&part(1)).unwrap()[0].counts.plays, 4);
    // As large and yet another one: the first stays.
    let other = &mut vec![sealed(row("w", "", 1, 4, 10), None)];
    assert_eq!(archive.put_tallies(&part(1), other).unwrap(), Put::Kept);
    // The same object's name for epochs of another length is refused, not overwritten.
    let hour = TallyPart { length: EpochLength::from_ms(3_600_000).unwrap(), epoch: Epoch(0), ..part(0) };
    archive.put_tallies(&part(0), &mut Vec::new()).unwrap();
    let result = archive.put_tallies(&hour, &mut vec![row("v", "", 0, 1, 1)]);
    assert!(matches!(result, Err(ArchiveError::OtherLength { .. })));
    assert!(matches!(archive.read_tallies(&hour), Err(ArchiveError::Missing { .. })));
}

fn parts_are_listed_in_order(archive: &mut dyn Archive) {
    assert_eq!(archive.parts().unwrap(), []);
    let shard = |epoch, shard| TallyPart { shard, shards: 2, ..part(epoch) };
    for put in [shard(982_464, 1), shard(9, 0), shard(982_464, 0), shard(-3, 1)] {
        let mut rows = vec![row("v", "", put.epoch.0, 2, 3), row("w", "", put.epoch.0, 0, 1)];
        assert_eq!(archive.put_tallies(&put, &mut rows).unwrap(), Put::Created);
    }
    let parts = archive.parts().unwrap();
    let names: Vec<_> = parts.iter().map(|info| (info.part.epoch.0, info.part.shard)).collect();
    assert_eq!(names, [(-3, 1), (9, 0), (982_464, 0), (982_464, 1)]);
    assert!(parts.iter().all(|info| info.rows == 2 && info.size == 6 && info.part.shards == 2));
}

fn rows_that_make_no_part_are_refused(archive: &mut dyn Archive) {
    let mut put = |part: &TallyPart, rows: &[TallyRow]| archive.put_tallies(part, &mut rows.to_vec());
    assert!(matches!(
        put(&part(1), &[row("v", "", 2, 1, 1)]),
        Err(ArchiveError::WrongEpoch { part: 1, row: 2 })
    ));
    let twice = [row("v", "", 1, 1, 1), row("w", "", 1, 1, 1), row("v", "", 1, 2, 2)];
    assert!(matches!(put(&part(1), &twice), Err(ArchiveError::Twice { .. })));
    assert!(matches!(put(&part(1), &[row("v", "", 1, u64::MAX, 1)]), Err(ArchiveError::OutOfRange { .. })));
    let wrong = TallyPart { shard: 1, ..part(1) };
    assert!(matches!(put(&wrong, &[]), Err(ArchiveError::Shard { shard: 1, shards: 1 })));
    assert_eq!(archive.parts().unwrap(), []);
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
        table.it.write(&rows).unwrap();
        for epoch in 0..3 {
            let mut expected: Vec<_> = largest.values().filter(|r| r.epoch.0 == epoch).cloned().collect();
            expected.sort_by_key(|r| {
                (std::cmp::Reverse((r.counts.plays, r.counts.impressions)), r.video_id.clone())
            });
            expected.truncate(20);
            assert_eq!(table.it.top("", Some(Epoch(epoch)), 20).unwrap(), expected);
        }
    }
}

// --- objects ---

fn objects(make: impl Fn() -> Made<dyn Objects>) {
    the_first_put_stays(&*make().it);
    ranges_of_an_object(&*make().it);
    objects_are_listed_by_name(&*make().it);
    a_name_is_safe_in_a_path(&*make().it);
    objects_do_not_lie_below_objects(&*make().it);
    of_many_writers_one_wins(&*make().it);
    putting_and_deleting_do_not_disturb_each_other(&*make().it);
}

fn the_first_put_stays(objects: &dyn Objects) {
    assert_eq!(objects.get("a/b").unwrap(), None);
    assert_eq!(objects.put_if_absent("a/b", b"first").unwrap(), PutObject::Created);
    assert_eq!(objects.put_if_absent("a/b", b"second").unwrap(), PutObject::Exists);
    assert_eq!(objects.get("a/b").unwrap().unwrap(), b"first");
    assert_eq!(objects.get("a").unwrap(), None, "a folder is no object");
    assert_eq!(objects.get("a/b/c").unwrap(), None);
    objects.delete("a").unwrap();
    objects.delete("a/b/c").unwrap();
    objects.delete("x/y").unwrap();
    assert_eq!(objects.get("a/b").unwrap().unwrap(), b"first");
    objects.delete("a/b").unwrap();
    objects.delete("a/b").unwrap();
    assert_eq!(objects.get("a/b").unwrap(), None);
    assert_eq!(objects.put_if_absent("a/b", b"").unwrap(), PutObject::Created);
    assert_eq!(objects.get("a/b").unwrap().unwrap(), b"");
    objects.delete("a/b").unwrap();
    assert_eq!(objects.put_if_absent("a", b"now an object").unwrap(), PutObject::Created);
}

fn ranges_of_an_object(objects: &dyn Objects) {
    objects.put_if_absent("a", b"0123456789").unwrap();
    for (start, len, expected) in [
        (0, 10, "0123456789"),
        (0, 3, "012"),
        (4, 3, "456"),
        (8, 5, "89"),
        (10, 1, ""),
        (11, 1, ""),
        (3, 0, ""),
        (5, u64::MAX, "56789"),
        (u64::MAX, u64::MAX, ""),
    ] {
        assert_eq!(
            objects.get_range("a", start, len).unwrap().unwrap(),
            expected.as_bytes(),
            "{start}, {len}"
        );
    }
    assert_eq!(objects.get_range("b", 0, 1).unwrap(), None);
}

fn objects_are_listed_by_name(objects: &dyn Objects) {
    assert_eq!(objects.list("").unwrap(), []);
    for (n, name) in ["run/b/2", "run/a", "run/b/10", "run-2", "run.x", "z", "run/b-1"].iter().enumerate() {
        objects.put_if_absent(name, &vec![0; n]).unwrap();
    }
    let list = |prefix| {
        let found = objects.list(prefix).unwrap().into_iter();
        found.map(|info| format!("{} {}", info.name, info.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(list(""), ["run-2 3", "run.x 4", "run/a 1", "run/b-1 6", "run/b/10 2", "run/b/2 0", "z 5"]);
    assert_eq!(list("run/b"), ["run/b-1 6", "run/b/10 2", "run/b/2 0"]);
    assert_eq!(list("run/b/"), ["run/b/10 2", "run/b/2 0"]);
    assert_eq!(list("run/b/1"), ["run/b/10 2"]);
    assert!(list("x").is_empty() && list("z/").is_empty() && list("/").is_empty() && list("..").is_empty());
}

fn a_name_is_safe_in_a_path(objects: &dyn Objects) {
    let long = "x".repeat(201);
    for name in
        ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", ".a", "a/.b", "a b", "ä", "a\\b", "a\0", &long]
    {
        let refused = |error: ObjectsError| matches!(error, ObjectsError::Name { .. });
        assert!(objects.put_if_absent(name, b"").is_err_and(refused), "{name}");
        assert!(objects.get(name).is_err_and(refused), "{name}");
        assert!(objects.get_range(name, 0, 1).is_err_and(refused), "{name}");
        assert!(objects.delete(name).is_err_and(refused), "{name}");
    }
    for name in ["a", "A-1_b.c=d", "a.b/c..d/0", &long[1..]] {
        assert_eq!(objects.put_if_absent(name, b"").unwrap(), PutObject::Created, "{name}");
    }
}

fn objects_do_not_lie_below_objects(objects: &dyn Objects) {
    objects.put_if_absent("a/b", b"").unwrap();
    for (name, other) in [("a/b/c", "a/b"), ("a/b/c/d", "a/b"), ("a", "a/b")] {
        let error = objects.put_if_absent(name, b"").unwrap_err();
        assert!(matches!(&error, ObjectsError::Beside { other: found, .. } if found == other), "{error}");
    }
    assert_eq!(objects.list("").unwrap().len(), 1);
}

fn of_many_writers_one_wins(objects: &dyn Objects) {
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let put = |i: u8| move || objects.put_if_absent("a/b/c", &vec![i; 100_000]).unwrap();
        let threads: Vec<_> = (0..8).map(|i| scope.spawn(put(i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let winner = outcomes.iter().position(|put| *put == PutObject::Created).unwrap();
    assert_eq!(outcomes.iter().filter(|put| **put == PutObject::Created).count(), 1);
    assert!(objects.get("a/b/c").unwrap().unwrap() == vec![winner as u8; 100_000]);
    assert_eq!(objects.list("").unwrap().len(), 1, "and nothing else is left");
}

fn putting_and_deleting_do_not_disturb_each_other(objects: &dyn Objects) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for i in 0..40 {
                    let name = format!("run/batch/{thread}-{i}");
                    assert_eq!(objects.put_if_absent(&name, name.as_bytes()).unwrap(), PutObject::Created);
                    objects.list("run/").unwrap();
                    assert_eq!(objects.get(&name).unwrap().unwrap(), name.as_bytes());
                    objects.delete(&name).unwrap();
                }
            });
        }
    });
    assert_eq!(objects.list("").unwrap(), []);
}
