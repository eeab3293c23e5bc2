//! The larger row wins: a row's rank as the timestamp of its cells.
//!
//! Cassandra keeps, cell by cell, the write with the larger timestamp. Two with the same one it
//! tells apart by when they expire, so by when they were written, which no order may depend on.
//! Therefore **a cell has one value for each timestamp**, and this is how:
//!
//! | bits | what |
//! |---|---|
//! | 28 | plays + impressions |
//! | 28 | plays |
//! | 1 | exact |
//! | 6 | 0: neither sealed nor sets; 1: sealed; 2 to 63: with sets, by a checksum of them |
//!
//! The sum counts up from the least timestamp there is: all are below zero and so before any
//! time that a clock says. An operator's `DELETE` therefore deletes, and ScyllaDB, which refuses
//! timestamps of the future, takes them.

use uptake_model::TallyRow;

/// Plays and impressions of a row stay below this.
pub(super) const SIZE_MAX: u64 = 1 << 28;

/// The least timestamp that a write may have.
pub(super) const FIRST: i64 = i64::MIN + 1;

/// The timestamps of one row's write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Timestamps {
    /// Of the counts and the sealed flag.
    pub(super) row: i64,
    /// Of the sets; the row's where all is written at once.
    pub(super) sets: i64,
}

/// The timestamps of `row`, whose encoded sets have the checksum `sets`; `None` if it is too large.
pub(super) fn timestamps(row: &TallyRow, sets: Option<u32>) -> Option<Timestamps> {
    let (size, plays) = (row.counts.size(), row.counts.plays);
    if size >= SIZE_MAX {
        return None;
    }
    let rank = (size << 28 | plays) << 1 | u64::from(row.counts.exact);
    let at = |last: u64| FIRST.wrapping_add_unsigned(rank << 6 | last);
    let sets = sets.map(|sum| at(2 + u64::from(sum % 62)));
    let plain = at(u64::from(row.sealed));
    // One write for all, unless sets came without the flag: it must not be taken back by them.
    let row = if row.sealed { sets.unwrap_or(plain) } else { plain };
    Some(Timestamps { row, sets: sets.unwrap_or(row) })
}

#[cfg(test)]
mod tests {
    use uptake_model::Epoch;
    use uptake_model::tally::Counts;

    use super::*;
    use crate::table::rank;

    fn row(plays: u64, impressions: u64, exact: bool, sealed: bool) -> TallyRow {
        let counts = Counts { plays, impressions, exact };
        TallyRow { video_id: "v".into(), segment: "".into(), epoch: Epoch(1), counts, sealed, sets: None }
    }

    #[test]
    fn timestamps_are_in_the_order_of_rows() {
        let large = SIZE_MAX - 1;
        let mut all = Vec::new();
        for (plays, impressions) in
            [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (large, 0), (0, large), (large / 2, large / 2)]
        {
            for exact in [false, true] {
                for (sealed, sets) in [(false, None), (true, None), (false, Some(5)), (true, Some(u32::MAX))]
                {
                    let row = row(plays, impressions, exact, sealed);
                    let at = timestamps(&row, sets).unwrap();
                    assert!(at.row < 0 && at.sets < 0 && at.row >= FIRST && at.sets >= at.row);
                    all.push((rank(&row), sealed, at));
                }
            }
        }
        for (a, a_sealed, a_at) in &all {
            for (b, b_sealed, b_at) in &all {
                if a < b {
                    assert!(a_at.sets < b_at.row, "nothing of a smaller row outlives a larger one");
                }
                // The sealed cell is a function of its timestamp.
                assert!(a_at.row != b_at.row || a_sealed == b_sealed);
            }
        }
        assert_eq!(timestamps(&row(1, large, true, true), None), None);
    }
}
