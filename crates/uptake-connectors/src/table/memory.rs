//! The table in memory: complete, and gone with the process. It also is the plain statement of
//! what the others must do.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uptake_model::{Epoch, RequestId, TallyRow};

use super::sqlite::encode_set;
use super::{Found, Result, Table, by_plays, check_range, rank};

type Key = (Arc<str>, Arc<str>, Epoch);

/// A table in memory.
#[derive(Debug, Default)]
pub struct MemoryTable {
    rows: BTreeMap<Key, TallyRow>,
    meta: BTreeMap<String, String>,
}

impl MemoryTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    fn without_sets<'a>(&'a self, segment: &'a str) -> impl Iterator<Item = TallyRow> + 'a {
        self.rows.values().filter(move |row| &*row.segment == segment).map(bare)
    }
}

fn bare(row: &TallyRow) -> TallyRow {
    TallyRow {
        video_id: row.video_id.clone(),
        segment: row.segment.clone(),
        epoch: row.epoch,
        counts: row.counts,
        sealed: row.sealed,
        sets: None,
    }
}

/// Puts `new` in the place of `stored`, adds it to it, or leaves it: the larger row wins.
fn merge(stored: &mut TallyRow, new: &TallyRow) {
    match rank(new).cmp(&rank(stored)) {
        Ordering::Less => {}
        Ordering::Greater => *stored = new.clone(),
        Ordering::Equal => {
            stored.sealed |= new.sealed;
            let bytes = |row: &TallyRow| {
                row.sets.as_ref().map(|sets| (encode_set(&sets.played), encode_set(&sets.shown)))
            };
            if new.sets.is_some() && bytes(new) > bytes(stored) {
                stored.sets = new.sets.clone();
            }
        }
    }
}

impl Table for MemoryTable {
    fn write(&mut self, rows: &[TallyRow]) -> Result<()> {
        check_range(rows)?;
        for row in rows {
            self.rows
                .entry((row.video_id.clone(), row.segment.clone(), row.epoch))
                .and_modify(|stored| merge(stored, row))
                .or_insert_with(|| row.clone());
        }
        Ok(())
    }

    fn get(&self, video: &str, segment: &str, epoch: Epoch) -> Result<Option<TallyRow>> {
        Ok(self.rows.get(&(video.into(), segment.into(), epoch)).cloned())
    }

    fn scan(&self, segment: &str, each: &mut dyn FnMut(TallyRow) -> Result<()>) -> Result<()> {
        self.without_sets(segment).try_for_each(each)
    }

    fn top(&self, segment: &str, epoch: Option<Epoch>, limit: usize) -> Result<Vec<TallyRow>> {
        let latest = || self.without_sets(segment).map(|row| row.epoch).max();
        let Some(epoch) = epoch.or_else(latest) else { return Ok(Vec::new()) };
        let mut rows: Vec<_> = self.without_sets(segment).filter(|row| row.epoch == epoch).collect();
        rows.sort_by(by_plays);
        rows.truncate(limit);
        Ok(rows)
    }

    fn video(&self, video: &str, segment: &str) -> Result<Vec<TallyRow>> {
        let key = |epoch| (video.into(), segment.into(), Epoch(epoch));
        Ok(self.rows.range(key(i64::MIN)..=key(i64::MAX)).map(|(_, row)| bare(row)).collect())
    }

    fn find_request(&self, request: RequestId) -> Result<Vec<Found>> {
        let found = self.rows.values().filter_map(|row| {
            let sets = row.sets.as_ref()?;
            let (played, shown) = (sets.played.contains(request), sets.shown.contains(request));
            (played != Some(false) || shown != Some(false)).then(|| Found {
                video_id: row.video_id.clone(),
                segment: row.segment.clone(),
                epoch: row.epoch,
                played,
                shown,
            })
        });
        Ok(found.collect())
    }

    fn segments(&self) -> Result<Vec<Arc<str>>> {
        let names: BTreeSet<&Arc<str>> = self.rows.values().map(|row| &row.segment).collect();
        Ok(names.into_iter().cloned().collect())
    }

    fn meta_get(&self, key: &str) -> Result<Option<String>> {
        Ok(self.meta.get(key).cloned())
    }

    fn meta_put(&mut self, key: &str, value: &str) -> Result<()> {
        self.meta.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    fn is_empty(&self) -> Result<bool> {
        Ok(self.rows.is_empty())
    }
}
