//! The archive's files: what other programs see of them, and that they appear whole or not.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use uptake_connectors::ArchiveError;
use uptake_connectors::archive::{Archive, DirectoryArchive, Put, TallyPart};
use uptake_model::tally::{Counts, RequestSet, TallySets};
use uptake_model::{Epoch, EpochLength, TallyRow};

fn part() -> TallyPart {
    TallyPart { epoch: Epoch(982_464), length: EpochLength::default(), shard: 0, shards: 1 }
}

fn rows(n: u64) -> Vec<TallyRow> {
    let row = |i: u64| TallyRow {
        video_id: format!("v{i}").into(),
        segment: if i.is_multiple_of(3) { "country=BR" } else { "" }.into(),
        epoch: Epoch(982_464),
        counts: Counts { plays: i, impressions: 2 * i, exact: !i.is_multiple_of(5) },
        sealed: true,
        sets: Some(Arc::new(TallySets {
            played: RequestSet::Exact((0..i).collect()),
            shown: if !i.is_multiple_of(5) {
                RequestSet::Exact((0..2 * i).collect())
            } else {
                RequestSet::Sketch(vec![1; 40])
            },
        })),
    };
    (0..n).map(row).collect()
}

fn names(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn the_same_rows_give_the_same_bytes_in_any_order() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut forth = rows(200);
    let mut back: Vec<_> = rows(200).into_iter().rev().collect();
    let mut archive = DirectoryArchive::open(a.path());
    archive.put_tallies(&part(), &mut forth).unwrap();
    DirectoryArchive::open(b.path()).put_tallies(&part(), &mut back).unwrap();
    let name = "tallies/epoch=2026-01-15T00-00/shard-000-of-001.parquet";
    assert_eq!(names(a.path()), [name], "and nothing else is left");
    assert!(fs::read(a.path().join(name)).unwrap() == fs::read(b.path().join(name)).unwrap());
    assert_eq!(archive.path(&part()), a.path().join(name));
}

#[test]
fn the_columns_are_those_that_others_expect() {
    let directory = tempfile::tempdir().unwrap();
    let mut archive = DirectoryArchive::open(directory.path());
    archive.put_tallies(&part(), &mut rows(8)).unwrap();
    let reader = SerializedFileReader::new(fs::File::open(archive.path(&part())).unwrap()).unwrap();
    let columns = reader.metadata().file_metadata().schema_descr().columns().to_vec();
    let columns: Vec<_> = columns.iter().map(|c| c.path().string()).collect();
    assert_eq!(
        columns,
        [
            "video_id",
            "segment",
            "epoch_number",
            "epoch_start",
            "plays",
            "impressions",
            "exact",
            "played.list.element",
            "shown.list.element",
            "played_sketch",
            "shown_sketch"
        ]
    );
    let row = reader.get_row_iter(None).unwrap().nth(1).unwrap().unwrap().to_json_value();
    assert_eq!(
        row,
        serde_json::json!({
            "video_id": "v1", "segment": "", "epoch_number": 982_464, "plays": 1, "impressions": 2,
            "epoch_start": "2026-01-15 00:00:00.000 +00:00", "exact": true, "played": [0],
            "shown": [0, 1], "played_sketch": null, "shown_sketch": null,
        })
    );
}

#[test]
fn a_damaged_object_is_named_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let mut archive = DirectoryArchive::open(directory.path());
    archive.put_tallies(&part(), &mut rows(20)).unwrap();
    let path = archive.path(&part());
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let errors = [
        archive.read_tallies(&part()).unwrap_err(),
        archive.put_tallies(&part(), &mut rows(60)).unwrap_err(),
        archive.parts().unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, ArchiveError::Corrupt { path: named, .. } if *named == path), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), whole[..whole.len() / 2]);
    // Any other byte that is wrong: an error or the same rows, and no panic.
    let expected = {
        fs::write(&path, &whole).unwrap();
        archive.read_tallies(&part()).unwrap()
    };
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        if let Ok(rows) = archive.read_tallies(&part()) {
            assert!(rows == expected, "byte {at}");
        }
    }
}

#[test]
fn writers_at_once_leave_the_largest() {
    let directory = tempfile::tempdir().unwrap();
    let outcomes: Vec<Put> = std::thread::scope(|scope| {
        let put = |n| {
            let mut archive = DirectoryArchive::open(directory.path());
            move || archive.put_tallies(&part(), &mut rows(n)).unwrap()
        };
        let threads: Vec<_> = (1..=12).map(|i| scope.spawn(put(10 * i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|put| **put == Put::Created).count(), 1);
    let archive = DirectoryArchive::open(directory.path());
    assert_eq!(archive.read_tallies(&part()).unwrap().len(), 120);
    assert!(names(directory.path()).iter().all(|name| !name.ends_with(".tmp")));
}
