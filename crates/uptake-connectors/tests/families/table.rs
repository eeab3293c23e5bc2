//! What every table must do.

use std::sync::Arc;

use proptest::prelude::*;
use uptake_connectors::table::{MemoryTable, Table, without};
use uptake_connectors::{FailureKind, TableError};
use uptake_model::tally::{Counts, RequestSet, TallySets};
use uptake_model::{Epoch, RequestId, TallyRow};

/// Runs all of it; `make` makes an empty one and what keeps it alive.
pub(crate) fn table<K>(make: impl Fn() -> (Box<dyn Table>, K)) {
    the_larger_row_wins(&mut *make().0);
    an_equal_row_adds_what_it_brings(&mut *make().0);
    a_table_answers_in_order(&mut *make().0);
    requests_are_found_in_stored_sets(&mut *make().0);
    a_row_without_some_requests_wins(&mut *make().0);
    small_values_are_kept(&mut *make().0);
    counts_too_large_are_refused_whole(&mut *make().0);
    odd_ids_are_ids(&mut *make().0);
    writes_of_a_growing_tally_commute(&make);
}

pub(crate) fn row(video: &str, segment: &str, epoch: i64, plays: u64, impressions: u64) -> TallyRow {
    TallyRow {
        video_id: video.into(),
        segment: segment.into(),
        epoch: Epoch(epoch),
        counts: Counts { plays, impressions, exact: true },
        sealed: false,
        sets: None,
    }
}

pub(crate) fn sets(played: &[u64], shown: &[u64]) -> Option<Arc<TallySets>> {
    let exact = |ids: &[u64]| RequestSet::Exact(ids.to_vec());
    Some(Arc::new(TallySets { played: exact(played), shown: exact(shown) }))
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
    assert_eq!(segments, ["".into(), "country=BR".into()]);
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

/// Whatever the sets: what was erased stays so when the old row is written again.
fn a_row_without_some_requests_wins(table: &mut dyn Table) {
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state ^ state >> 29
    };
    for epoch in 0..100 {
        let shown: Vec<u64> = (0..9).map(|id| (id + 1) * 1_000 + epoch as u64).collect();
        let old = TallyRow { sealed: true, sets: sets(&shown[3..5], &shown), ..row("v", "", epoch, 2, 9) };
        let (gone, both) = ([RequestId(shown[0]), RequestId(shown[4])], [true, false]);
        table.write(std::slice::from_ref(&old)).unwrap();
        let new = both.map(|by_timestamp| without(&old, &gone.into(), by_timestamp, &mut random).unwrap());
        assert_eq!(new[1].counts, old.counts);
        // Each table takes the one that is made for its rule; the other one may win or not.
        table.write(&new[..1]).unwrap();
        table.write(&new[1..]).unwrap();
        table.write(std::slice::from_ref(&old)).unwrap();
        let stored = table.get("v", "", Epoch(epoch)).unwrap().unwrap();
        assert!(new.contains(&stored), "{stored:?}");
        assert_eq!(stored.counts.plays, 2);
    }
    let certain = |id| table.find_request(RequestId(id)).unwrap().iter().filter(|f| f.is_certain()).count();
    assert_eq!((certain(1_000), certain(5_050), certain(2_000)), (0, 0, 1));
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

pub(crate) fn any_row() -> impl Strategy<Value = TallyRow> {
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

pub(crate) fn content(table: &dyn Table) -> Vec<TallyRow> {
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

/// Tallies as they grow: of one size a tally has one pair of sets. Whatever order they are written
/// in, however cut and repeated, the table is that in memory.
fn writes_of_a_growing_tally_commute<K>(make: &impl Fn() -> (Box<dyn Table>, K)) {
    let grown = |video: u64, epoch: i64, size: u64| {
        let (shown, played): (Vec<u64>, Vec<u64>) = ((0..size).collect(), (0..size / 3).collect());
        let counts = Counts { plays: size / 3, impressions: size, exact: true };
        let sets = size.is_multiple_of(2).then(|| sets(&played, &shown)).flatten();
        let plain = row(&format!("v{video}"), ["", "country=BR"][video as usize % 2], epoch, 0, 0);
        TallyRow { counts, sealed: sets.is_some(), sets, ..plain }
    };
    let rows: Vec<TallyRow> = (0..120).map(|i| grown(i % 5, (i % 3) as i64, i * 37 % 19)).collect();
    let mut plain = MemoryTable::new();
    plain.write(&rows).unwrap();
    let expected = content(&plain);
    for (step, cut) in [(1, 120), (7, 11), (113, 5)] {
        let (mut table, _kept) = make();
        let order: Vec<TallyRow> = (0..240).map(|i| rows[i * step % rows.len()].clone()).collect();
        order.chunks(cut).for_each(|rows| table.write(rows).unwrap());
        assert_eq!(content(&*table), expected, "every {step}th, {cut} at a time");
    }
}
