//! What every archive must do.

use std::sync::Arc;

use uptake_connectors::ArchiveError;
use uptake_connectors::archive::{Archive, Put, TallyPart};
use uptake_model::tally::{RequestSet, TallySets};
use uptake_model::{Epoch, EpochLength, TallyRow};

use super::table::{row, sets};

/// Runs all of it; `make` makes an empty one and what keeps it alive.
pub(crate) fn archive<K>(make: impl Fn() -> (Box<dyn Archive>, K)) {
    what_was_put_is_read(&mut *make().0);
    the_larger_part_stays(&mut *make().0);
    parts_are_listed_in_order(&mut *make().0);
    rows_that_make_no_part_are_refused(&mut *make().0);
}

fn part(epoch: i64) -> TallyPart {
    TallyPart { epoch: Epoch(epoch), length: EpochLength::default(), shard: 0, shards: 1 }
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
    // What must leave is replaced, whatever is larger.
    let less = &mut vec![sealed(row("w", "", 1, 1, 2), None)];
    archive.replace_tallies(&part(1), less).unwrap();
    assert_eq!(&archive.read_tallies(&part(1)).unwrap(), less);
    archive.replace_tallies(&part(9), &mut vec![sealed(row("w", "", 9, 1, 2), None)]).unwrap();
    assert_eq!(archive.read_tallies(&part(9)).unwrap().len(), 1);
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
