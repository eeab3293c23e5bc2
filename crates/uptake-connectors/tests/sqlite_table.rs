//! The table's file: what other programs see of it, and what it refuses.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use uptake_connectors::TableError;
use uptake_connectors::table::{FILE_NAME, SqliteTable, Table};
use uptake_model::tally::{Counts, RequestSet, TallySets};
use uptake_model::{Epoch, TallyRow};

fn row(video: &str, plays: u64) -> TallyRow {
    TallyRow {
        video_id: video.into(),
        segment: "".into(),
        epoch: Epoch(982_464),
        counts: Counts { plays, impressions: 10, exact: true },
        sealed: true,
        sets: Some(Arc::new(TallySets {
            played: RequestSet::Exact(vec![1, 0x0102_0304_0506_0708]),
            shown: RequestSet::Sketch(vec![9, 8, 7]),
        })),
    }
}

#[test]
fn other_programs_read_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let mut table = SqliteTable::open(directory.path()).unwrap();
    table.write(&[row("v1", 4)]).unwrap();
    let other = Connection::open(directory.path().join(FILE_NAME)).unwrap();
    let sql = "SELECT video_id, segment, epoch, plays, impressions, exact, sealed, hex(played), hex(shown)
               FROM tallies";
    let found = other
        .query_row(sql, [], |r| {
            Ok((
                (r.get::<_, String>(0)?, r.get::<_, String>(1)?, r.get::<_, i64>(2)?),
                (r.get::<_, i64>(3)?, r.get::<_, i64>(4)?, r.get::<_, i64>(5)?, r.get::<_, i64>(6)?),
                (r.get::<_, String>(7)?, r.get::<_, String>(8)?),
            ))
        })
        .unwrap();
    let sets = ("0001000000000000000807060504030201".to_owned(), "01090807".to_owned());
    assert_eq!(found, (("v1".into(), "".into(), 982_464), (4, 10, 1, 1), sets));
    let version: i64 = other.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap();
    assert_eq!(version, 2);
}

#[test]
fn a_reader_sees_what_the_writer_committed() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = SqliteTable::open(directory.path()).unwrap();
    let mut reader = SqliteTable::open_read_only(directory.path()).unwrap();
    assert!(reader.is_empty().unwrap());
    writer.write(&[row("v1", 4)]).unwrap();
    writer.meta_put("ledger", "{}").unwrap();
    assert_eq!(reader.get("v1", "", Epoch(982_464)).unwrap(), Some(row("v1", 4)));
    assert_eq!(reader.meta_get("ledger").unwrap().as_deref(), Some("{}"));
    assert!(reader.write(&[row("v1", 5)]).is_err());
    // A second writer waits for the first one's transactions.
    let mut second = SqliteTable::open(directory.path()).unwrap();
    std::thread::scope(|scope| {
        for (table, from) in [(&mut writer, 0), (&mut second, 1)] {
            scope.spawn(move || {
                for i in 0..20 {
                    table.write(&[row("v1", 10 + 2 * i + from), row(&format!("w{i}"), 1)]).unwrap();
                }
            });
        }
    });
    assert_eq!(reader.get("v1", "", Epoch(982_464)).unwrap().unwrap().counts.plays, 49);
    // After the writers went the file is whole without them.
    drop((writer, second, reader));
    let reader = SqliteTable::open_read_only(directory.path()).unwrap();
    assert_eq!((reader.segments().unwrap(), reader.top("", None, 99).unwrap().len()), (vec!["".into()], 21));
}

#[test]
fn a_missing_table_says_how_to_make_one() {
    let directory = tempfile::tempdir().unwrap();
    let error = SqliteTable::open_read_only(directory.path()).unwrap_err();
    assert!(matches!(error, TableError::Missing { .. }));
    let path = directory.path().display();
    assert_eq!(
        error.to_string(),
        format!("no table at {path}/table.sqlite: run `uptake replay … --data {path}` first")
    );
    fs::write(directory.path().join(FILE_NAME), "").unwrap();
    assert!(matches!(SqliteTable::open_read_only(directory.path()), Err(TableError::Missing { .. })));
}

#[test]
fn a_newer_or_another_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(SqliteTable::open(directory.path()).unwrap());
    let path = directory.path().join(FILE_NAME);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 3).unwrap();
    for open in [SqliteTable::open, SqliteTable::open_read_only] {
        let error = open(directory.path()).unwrap_err();
        assert!(matches!(error, TableError::Newer { found: 3, known: 2, .. }), "{error}");
    }
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (x)").unwrap();
    assert!(matches!(SqliteTable::open(directory.path()), Err(TableError::Foreign { .. })));
    for content in ["this is no database at all, just some text that is long enough to be read", "x"] {
        fs::write(&path, content).unwrap();
        assert!(matches!(SqliteTable::open(directory.path()), Err(TableError::Foreign { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn a_damaged_set_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut table = SqliteTable::open(directory.path()).unwrap();
    for (n, bytes) in ["", "02", "0001", "0002000000000000000100000000000000"].iter().enumerate() {
        table.write(&[row("v1", 4 + n as u64)]).unwrap();
        let other = Connection::open(directory.path().join(FILE_NAME)).unwrap();
        other.execute(&format!("UPDATE tallies SET played = x'{bytes}'"), []).unwrap();
        let error = table.get("v1", "", Epoch(982_464)).unwrap_err();
        assert!(matches!(error, TableError::Corrupt { .. }) && error.to_string().contains("v1"), "{error}");
    }
}

#[test]
fn many_may_make_the_same_table_at_once() {
    for round in 0..150 {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let opening: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| SqliteTable::open(folder.path()).map(drop).map_err(|e| e.to_string()))
                })
                .collect();
            for one in opening {
                assert_eq!(one.join().unwrap(), Ok(()), "round {round}");
            }
        });
    }
}

/// How the table is asked for `sql`, in the words of the driver.
fn plan(directory: &Path, sql: &str) -> String {
    let other = Connection::open(directory.join(FILE_NAME)).unwrap();
    let mut statement = other.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let lines: Vec<String> = statement.query_map([], |r| r.get(3)).unwrap().map(Result::unwrap).collect();
    lines.join("; ")
}

#[test]
fn an_epoch_is_found_without_a_look_at_the_others() {
    let directory = tempfile::tempdir().unwrap();
    SqliteTable::open(directory.path()).unwrap().write(&[row("v1", 4)]).unwrap();
    let newest = "SELECT max(epoch) FROM tallies WHERE segment = ''";
    let of_it = "SELECT plays FROM tallies WHERE segment = '' AND epoch = 7 ORDER BY plays DESC LIMIT 9";
    for sql in [newest, of_it] {
        let plan = plan(directory.path(), sql);
        assert!(plan.contains("SEARCH tallies USING PRIMARY KEY"), "{sql}: {plan}");
    }
}

/// A table as the first layout had it.
fn of_the_first_layout(directory: &Path) -> Connection {
    let old = Connection::open(directory.join(FILE_NAME)).unwrap();
    old.execute_batch(
        "CREATE TABLE tallies (
            video_id TEXT NOT NULL, segment TEXT NOT NULL, epoch INTEGER NOT NULL,
            plays INTEGER NOT NULL, impressions INTEGER NOT NULL, exact INTEGER NOT NULL,
            sealed INTEGER NOT NULL, played BLOB, shown BLOB,
            PRIMARY KEY (video_id, segment, epoch)) WITHOUT ROWID, STRICT;
        CREATE INDEX tallies_by_epoch ON tallies (segment, epoch);
        CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID, STRICT;
        INSERT INTO meta VALUES ('ledger', '{}');
        INSERT INTO tallies VALUES
            ('a', '', 9, 1, 1, 1, 1, x'000100000000000000', x'000100000000000000'),
            ('b', '', 7, 2, 4, 1, 0, NULL, NULL),
            ('a', '', 7, 3, 4, 1, 0, NULL, NULL),
            ('a', 'x', 8, 1, 2, 0, 1, NULL, NULL);
        PRAGMA application_id = 1431327819;
        PRAGMA user_version = 1;",
    )
    .unwrap();
    old
}

/// All that a reader finds in it.
fn told(table: &SqliteTable) -> String {
    let mut all = Vec::new();
    let each = &mut |row: TallyRow| {
        all.push((row.video_id, row.epoch.0, row.counts, row.sealed));
        Ok(())
    };
    table.scan("", each).unwrap();
    let of_one = ["", "x", "y"].map(|segment| table.video("a", segment).unwrap().len());
    let with_sets = table.get("a", "", Epoch(9)).unwrap();
    let top = table.top("", None, 9).unwrap();
    let (segments, meta) = (table.segments().unwrap(), table.meta_get("ledger").unwrap());
    format!("{all:?} {of_one:?} {with_sets:?} {top:?} {segments:?} {meta:?}")
}

#[test]
fn an_older_table_is_read_as_it_is_and_turned_into_a_new_one_by_who_writes() {
    let directory = tempfile::tempdir().unwrap();
    let old = of_the_first_layout(directory.path());
    let in_order = plan(
        directory.path(),
        "SELECT played FROM tallies INDEXED BY tallies_by_epoch ORDER BY segment, epoch, video_id",
    );
    assert!(!in_order.contains("TEMP B-TREE"), "nothing is sorted to be copied: {in_order}");
    // The oldest have none.
    old.execute_batch("DROP INDEX tallies_by_epoch").unwrap();
    let version = || old.pragma_query_value(None, "user_version", |r| r.get::<_, i64>(0)).unwrap();
    let before = told(&SqliteTable::open_read_only(directory.path()).unwrap());
    assert!(before.contains("[2, 1, 0]"), "{before}");
    assert_eq!(version(), 1, "a reader changes nothing");
    let mut table = SqliteTable::open(directory.path()).unwrap();
    assert_eq!((told(&table), version()), (before.clone(), 2));
    assert_eq!(told(&SqliteTable::open_read_only(directory.path()).unwrap()), before);
    table.write(&[row("b", 9)]).unwrap();
    let names: Vec<String> = old
        .prepare("SELECT name FROM sqlite_schema ORDER BY name")
        .and_then(|mut names| names.query_map([], |row| row.get(0))?.collect())
        .unwrap();
    assert_eq!(names, ["meta", "tallies"], "nothing of the old one is left");
}

/// Rows of an epoch in two segments, sealed or not.
fn of_epoch(epoch: i64, sealed: bool) -> Vec<TallyRow> {
    let videos = (0..20).map(|n| format!("v{n}"));
    let row = |video: String| TallyRow { epoch: Epoch(epoch), sealed, ..row(&video, 3) };
    let rows: Vec<TallyRow> = videos.map(row).collect();
    let elsewhere = rows.iter().map(|row| TallyRow { segment: "country=BR".into(), ..row.clone() });
    rows.iter().cloned().chain(elsewhere).collect()
}

fn epochs(table: &SqliteTable, segment: &str) -> Vec<i64> {
    let mut epochs: Vec<i64> = table.video("v7", segment).unwrap().iter().map(|row| row.epoch.0).collect();
    epochs.sort_unstable();
    epochs
}

#[test]
fn sealed_rows_beyond_what_is_kept_go_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut table = SqliteTable::open(directory.path()).unwrap();
    for epoch in 100..200 {
        table.write(&of_epoch(epoch, epoch != 120)).unwrap();
    }
    assert_eq!(epochs(&table, "").len(), 100, "nothing goes unless it is asked for");
    table.keep_epochs(10);
    // A write of old epochs alone is no reason.
    table.write(&of_epoch(99, true)).unwrap();
    assert_eq!(epochs(&table, "").len(), 101);
    // Of 4,000 rows some more than a thousand go with each write.
    table.write(&of_epoch(200, false)).unwrap();
    assert!((45..=60).contains(&epochs(&table, "").len()), "{:?}", epochs(&table, ""));
    for _ in 0..5 {
        table.write(&of_epoch(200, false)).unwrap();
    }
    let kept: Vec<i64> = [120].into_iter().chain(190..=200).collect();
    for segment in ["", "country=BR"] {
        assert_eq!(epochs(&table, segment), kept);
    }
    table.write(&of_epoch(201, false)).unwrap();
    assert_eq!(epochs(&table, "")[..3], [120, 191, 192]);
}
