//! What a backfill found, united with what is there.
//!
//! A row with sets is united with the sets that are stored; where one of the two has none, the
//! larger row wins, as always. So a row never loses a request, and never its seal.

use std::collections::BTreeMap;
use std::sync::Arc;

use uptake_connectors::ArchiveError;
use uptake_connectors::archive::{Archive, MemoryArchive, Put, TallyPart};
use uptake_connectors::table::Table;
use uptake_model::tally::{Tally, TallyLimits};
use uptake_model::{Epoch, TallyRow};

use crate::commands::CommandError;
use crate::commands::whole::Held;
use crate::config::Config;

/// What became of the rows of an epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Change {
    /// Rows that were found.
    pub(super) rows: u64,
    /// Rows that the table did not have.
    pub(super) new: u64,
    /// Rows that are larger now.
    pub(super) grown: u64,
    /// Rows of the table that were not sealed and are now.
    pub(super) sealed: u64,
}

impl Change {
    /// Whether anything is other than before.
    pub(super) fn is_one(&self) -> bool {
        self.new + self.grown + self.sealed > 0
    }
}

/// Checks that the archive, which is at `place`, has epochs, and that they are of the configured length.
pub(super) fn check(archive: &dyn Archive, place: &str, config: &Config) -> Result<(), CommandError> {
    let parts = archive.parts()?;
    if parts.is_empty() {
        return Err(CommandError::Usage(format!(
            "the archive in {place} holds no tallies; correct --data or archive.url"
        )));
    }
    match parts.iter().find(|info| info.part.length != config.epoch) {
        None => Ok(()),
        Some(other) => Err(CommandError::Usage(format!(
            "the archive has epochs of {} ms ({}), the configuration of {} ms; set epoch.length",
            other.part.length.ms(),
            other.part.name(),
            config.epoch.ms()
        ))),
    }
}

/// What was united so far.
pub(super) struct Merged {
    limits: TallyLimits,
    pub(super) held: Option<Held>,
    pub(super) epochs: BTreeMap<Epoch, Change>,
    /// Objects of the archive that are new or larger.
    pub(super) objects_written: u64,
}

impl Merged {
    pub(super) fn new(config: &Config, held: Option<Held>) -> Self {
        Self { limits: config.tally, held, epochs: BTreeMap::new(), objects_written: 0 }
    }

    /// Whether a live run may still hold the epoch.
    pub(super) fn holds(&self, epoch: Epoch) -> bool {
        self.held.as_ref().is_some_and(|held| epoch >= held.from)
    }

    /// One number of all epochs added up.
    pub(super) fn sum(&self, number: impl Fn(&Change) -> u64) -> u64 {
        self.epochs.values().map(number).sum()
    }

    /// Writes what was found to table and archive, epoch by epoch.
    pub(super) fn write_found(
        &mut self,
        found: &MemoryArchive,
        table: &mut dyn Table,
        archive: &mut dyn Archive,
    ) -> Result<(), CommandError> {
        for info in found.parts()? {
            let rows = found.read_tallies(&info.part)?;
            self.write_rows(&rows, table)?;
            if !self.holds(info.part.epoch) {
                self.put_part(&info.part, rows, archive)?;
            }
        }
        Ok(())
    }

    /// Writes the rows of the archive to the table.
    pub(super) fn write_archived(
        &mut self,
        archive: &dyn Archive,
        table: &mut dyn Table,
    ) -> Result<(), CommandError> {
        for info in archive.parts()? {
            self.write_rows(&archive.read_tallies(&info.part)?, table)?;
        }
        Ok(())
    }

    fn write_rows(&mut self, found: &[TallyRow], table: &mut dyn Table) -> Result<(), CommandError> {
        let mut rows = Vec::new();
        for row in found {
            let stored = table.get(&row.video_id, &row.segment, row.epoch)?;
            let row = self.for_table(row, stored.as_ref());
            let change = self.epochs.entry(row.epoch).or_default();
            change.rows += 1;
            let seals = match &stored {
                None => {
                    change.new += 1;
                    false
                }
                Some(stored) if row.counts.size() > stored.counts.size() => {
                    change.grown += 1;
                    row.sealed && !stored.sealed
                }
                // It is in the table as it is found, or larger.
                Some(stored) => {
                    if row.counts != stored.counts || stored.sealed || !row.sealed {
                        continue;
                    }
                    true
                }
            };
            change.sealed += u64::from(seals);
            rows.push(row);
        }
        Ok(table.write(&rows)?)
    }

    /// A row as the table is to have it.
    fn for_table(&self, found: &TallyRow, stored: Option<&TallyRow>) -> TallyRow {
        match stored {
            // What is sealed stays so: its sets are there to be added to.
            Some(stored) if stored.sealed || !self.holds(found.epoch) => self.united(found, stored),
            _ if self.holds(found.epoch) => TallyRow { sealed: false, sets: None, ..found.clone() },
            _ => found.clone(),
        }
    }

    fn put_part(
        &mut self,
        part: &TallyPart,
        found: Vec<TallyRow>,
        archive: &mut dyn Archive,
    ) -> Result<(), CommandError> {
        let stored = match archive.read_tallies(part) {
            Ok(rows) => rows,
            Err(ArchiveError::Missing { .. }) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let key = |row: &TallyRow| (Arc::clone(&row.video_id), Arc::clone(&row.segment));
        let mut rows: BTreeMap<_, TallyRow> = stored.into_iter().map(|row| (key(&row), row)).collect();
        for row in found {
            let row = match rows.get(&key(&row)) {
                Some(stored) => self.united(&row, stored),
                None => row,
            };
            rows.insert(key(&row), row);
        }
        let put = archive.put_tallies(part, &mut rows.into_values().collect())?;
        self.objects_written += u64::from(matches!(put, Put::Created | Put::Replaced));
        Ok(())
    }

    /// The sealed row of both rows' requests; the larger row where one has no sets to unite.
    fn united(&self, found: &TallyRow, stored: &TallyRow) -> TallyRow {
        let grown = found.counts.size() > stored.counts.size();
        let adds = stored.sets.is_none() && found.sets.is_some();
        let larger = if grown || adds { found } else { stored };
        let (Some(ours), Some(theirs)) = (&found.sets, &stored.sets) else { return larger.clone() };
        if ours == theirs {
            return found.clone();
        }
        let mut tally = Tally::default();
        let merged = tally.merge_sets(ours, self.limits).and_then(|()| tally.merge_sets(theirs, self.limits));
        let counts = tally.counts(self.limits);
        // A sketch that is coarser than today's cannot be added to.
        if merged.is_err() || counts.size() < larger.counts.size() {
            return larger.clone();
        }
        TallyRow { counts, sets: Some(Arc::new(tally.into_sets())), ..found.clone() }
    }
}

#[cfg(test)]
mod tests {
    use uptake_connectors::table::MemoryTable;
    use uptake_model::{Kind, RequestId};

    use super::*;

    const EPOCH: Epoch = Epoch(100);

    fn row(requests: &[u64], limits: TallyLimits) -> TallyRow {
        let mut tally = Tally::default();
        requests.iter().for_each(|&id| tally.insert(Kind::Impression, RequestId(id), limits));
        TallyRow {
            video_id: "v1".into(),
            segment: "".into(),
            epoch: EPOCH,
            counts: tally.counts(limits),
            sealed: true,
            sets: Some(Arc::new(tally.into_sets())),
        }
    }

    /// What a row that is found makes of a row that is stored.
    fn merge(stored: Option<TallyRow>, found: TallyRow, held_from: Option<i64>) -> (TallyRow, Change) {
        let held = held_from.map(|from| Held { from: Epoch(from), cluster: "main".into() });
        let mut merged = Merged::new(&Config::default(), held);
        let mut table = MemoryTable::new();
        stored.iter().for_each(|row| table.write(std::slice::from_ref(row)).unwrap());
        merged.write_rows(std::slice::from_ref(&found), &mut table).unwrap();
        let first = (table.get("v1", "", EPOCH).unwrap().unwrap(), merged.epochs[&EPOCH]);
        let mut again = Merged::new(&Config::default(), merged.held);
        again.write_rows(&[found], &mut table).unwrap();
        assert!(!again.epochs[&EPOCH].is_one(), "twice changes nothing");
        assert_eq!(table.get("v1", "", EPOCH).unwrap().as_ref(), Some(&first.0));
        first
    }

    #[test]
    fn sets_are_united() {
        let limits = TallyLimits::default();
        let row = |requests: &[u64]| row(requests, limits);
        let change = |new, grown, sealed| Change { rows: 1, new, grown, sealed };
        // An input that has the epoch in part takes nothing away, and adds what was missed.
        assert_eq!(merge(Some(row(&[1, 2, 3])), row(&[3]), None), (row(&[1, 2, 3]), change(0, 0, 0)));
        assert_eq!(merge(Some(row(&[1, 2])), row(&[2, 3]), None), (row(&[1, 2, 3]), change(0, 1, 0)));
        assert_eq!(merge(Some(row(&[1])), row(&[2, 3]), None), (row(&[1, 2, 3]), change(0, 1, 0)));
        assert_eq!(merge(None, row(&[1]), None), (row(&[1]), change(1, 0, 0)));
        // What was never sealed is.
        let open = |requests: &[u64]| TallyRow { sealed: false, sets: None, ..row(requests) };
        assert_eq!(merge(Some(open(&[1, 2])), row(&[1, 2]), None), (row(&[1, 2]), change(0, 0, 1)));
        assert_eq!(merge(Some(open(&[1])), row(&[1, 2]), None), (row(&[1, 2]), change(0, 1, 1)));
        assert_eq!(merge(Some(open(&[1, 2])), row(&[1]), None), (open(&[1, 2]), change(0, 0, 0)));
        // An epoch that a live run holds: the larger row wins, and is not sealed.
        assert_eq!(merge(None, row(&[1]), Some(100)), (open(&[1]), change(1, 0, 0)));
        assert_eq!(merge(Some(open(&[1])), row(&[1, 2]), Some(99)), (open(&[1, 2]), change(0, 1, 0)));
        assert_eq!(merge(Some(open(&[1, 2])), row(&[1]), Some(99)), (open(&[1, 2]), change(0, 0, 0)));
        assert_eq!(merge(Some(open(&[1])), row(&[1]), Some(100)), (open(&[1]), change(0, 0, 0)));
        // One that it does not hold any more, and a row that was sealed all the same.
        assert_eq!(merge(None, row(&[1]), Some(101)), (row(&[1]), change(1, 0, 0)));
        assert_eq!(merge(Some(row(&[1])), row(&[2]), Some(99)), (row(&[1, 2]), change(0, 1, 0)));
    }

    #[test]
    fn sketches_are_united() {
        let limits = Config::default().tally;
        let ids = |range: std::ops::Range<u64>| -> Vec<u64> {
            range.map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect()
        };
        let n = limits.exact_max as u64;
        let (sketch, exact) = (row(&ids(0..n + 1_000), limits), row(&ids(n..n + 5_000), limits));
        let all = row(&ids(0..n + 5_000), limits);
        assert_eq!(merge(Some(sketch.clone()), exact.clone(), None).0, all);
        assert_eq!(merge(Some(exact), sketch.clone(), None).0, all);
        // A coarser sketch of before: the larger row wins.
        let coarse = row(&ids(0..n + 90_000), TallyLimits { sketch_lg_k: 8, ..limits });
        assert_eq!(merge(Some(coarse.clone()), sketch, None).0, coarse);
    }
}
