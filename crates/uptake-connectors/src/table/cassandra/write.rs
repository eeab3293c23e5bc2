//! Rows grouped by partition, a batch each, many on their way at once.

use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use uptake_model::TallyRow;

use super::schema::BUCKETS;
use super::timestamp::{FIRST, Timestamps, timestamps};
use super::{CassandraTable, Link};
use crate::error::TableError;
use crate::table::Result;
use crate::table::sqlite::encode_set;

/// Rows and bytes of one batch: enough to share a round trip, little enough not to stall a server.
const BATCH_ROWS: usize = 100;
const BATCH_BYTES: usize = 64 << 10;

/// The timestamp of the row's sets; `None` if it has none, or is too large for this table.
pub(in crate::table) fn sets_at(row: &TallyRow) -> Option<i64> {
    row.sets.as_ref()?;
    Written::of(row, "").ok().map(|written| written.at.sets)
}

/// A row as it is written.
struct Written<'a> {
    row: &'a TallyRow,
    at: Timestamps,
    /// Both empty where the row has no sets: a null would be a tombstone, and nothing at all would
    /// leave the sets of a smaller row beside the counts of a larger.
    played: Vec<u8>,
    shown: Vec<u8>,
}

impl<'a> Written<'a> {
    fn of(row: &'a TallyRow, url: &str) -> Result<Self> {
        let (mut played, mut shown, mut sum) = (Vec::new(), Vec::new(), None);
        if let Some(sets) = &row.sets {
            (played, shown) = (encode_set(&sets.played), encode_set(&sets.shown));
            sum = Some(crc32c::crc32c_append(crc32c::crc32c(&played), &shown));
        }
        let too_large = || TableError::TooLarge {
            video_id: row.video_id.to_string(),
            epoch: row.epoch.0,
            url: url.to_owned(),
        };
        Ok(Self { row, at: timestamps(row, sum).ok_or_else(too_large)?, played, shown })
    }

    /// Whether the sets need a write of their own.
    fn is_apart(&self) -> bool {
        self.at.row != self.at.sets
    }

    fn bytes(&self) -> usize {
        100 + self.row.video_id.len() + self.played.len() + self.shown.len()
    }
}

pub(super) fn bucket(video: &str) -> i32 {
    (crc32c::crc32c(video.as_bytes()) % BUCKETS) as i32
}

impl CassandraTable {
    pub(super) async fn write_rows(&self, rows: &[TallyRow]) -> Result<()> {
        let mut written =
            rows.iter().map(|row| Written::of(row, &self.link.url)).collect::<Result<Vec<_>>>()?;
        let (link, statements, concurrency) = (&self.link, &self.statements, self.concurrency);
        // The lists first: a row that is there is then always found.
        let mut epochs: Vec<_> = rows.iter().map(|row| (&*row.segment, row.epoch.0)).collect();
        epochs.sort_unstable();
        epochs.dedup();
        let jobs = epochs
            .iter()
            .map(|(segment, epoch)| put(link, &statements.put_epoch, vec![(*segment, *epoch, FIRST)]));
        stream::iter(jobs).buffer_unordered(concurrency).try_collect::<()>().await?;

        written.sort_unstable_by_key(|w| (&w.row.segment, w.row.epoch, bucket(&w.row.video_id)));
        let same = |a: &Written<'_>, b: &Written<'_>| {
            (&a.row.segment, a.row.epoch, bucket(&a.row.video_id))
                == (&b.row.segment, b.row.epoch, bucket(&b.row.video_id))
        };
        let jobs = written.chunk_by(same).flat_map(|rows| rows.chunks(BATCH_ROWS)).map(|rows| {
            let values = rows.iter().map(|w| {
                let (row, counts) = (w.row, w.row.counts);
                let key = (&*row.segment, row.epoch.0, bucket(&row.video_id), &*row.video_id);
                // Not the row's own timestamp: that of sets would be a second one for the same cells.
                let at = w.at.row;
                (
                    key.0,
                    key.1,
                    key.2,
                    key.3,
                    counts.plays as i64,
                    counts.impressions as i64,
                    counts.exact,
                    row.sealed,
                    at,
                )
            });
            put(link, &statements.put_index, values.collect())
        });
        stream::iter(jobs).buffer_unordered(concurrency).try_collect::<()>().await?;

        written.sort_unstable_by_key(|w| (&w.row.video_id, &w.row.segment));
        let same = |a: &Written<'_>, b: &Written<'_>| {
            (&a.row.video_id, &a.row.segment) == (&b.row.video_id, &b.row.segment)
        };
        let jobs = written.chunk_by(same).flat_map(by_bytes).map(|rows| {
            let values = rows.iter().map(|w| {
                let (row, counts) = (w.row, w.row.counts);
                let none: &[u8] = &[];
                let (played, shown) = if w.is_apart() { (none, none) } else { (&*w.played, &*w.shown) };
                let counts = (counts.plays as i64, counts.impressions as i64, counts.exact, row.sealed);
                (
                    &*row.video_id,
                    &*row.segment,
                    row.epoch.0,
                    counts.0,
                    counts.1,
                    counts.2,
                    counts.3,
                    played,
                    shown,
                    w.at.row,
                )
            });
            put(link, &statements.put_row, values.collect())
        });
        stream::iter(jobs).buffer_unordered(concurrency).try_collect::<()>().await?;

        let jobs = written.iter().filter(|w| w.is_apart()).map(|w| {
            let row = w.row;
            let values = (w.at.sets, &*w.played, &*w.shown, &*row.video_id, &*row.segment, row.epoch.0);
            put(link, &statements.put_sets, vec![values])
        });
        stream::iter(jobs).buffer_unordered(concurrency).try_collect().await
    }
}

/// Cuts the rows of a partition so that no batch is too large.
fn by_bytes<'a, 'b>(mut rows: &'a [Written<'b>]) -> impl Iterator<Item = &'a [Written<'b>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |w: &&Written<'_>| {
            bytes += w.bytes();
            bytes <= BATCH_BYTES
        };
        let n = rows.iter().take(BATCH_ROWS).take_while(fits).count().max(1).min(rows.len());
        let (first, rest) = rows.split_at(n);
        rows = rest;
        (n > 0).then_some(first)
    })
}

/// Writes the rows of one partition.
async fn put<V: SerializeRow>(link: &Link, statement: &PreparedStatement, values: Vec<V>) -> Result<()> {
    let done = if let [values] = &*values {
        link.session.execute_unpaged(statement, values).await.map(drop)
    } else {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        values.iter().for_each(|_| batch.append_statement(statement.clone()));
        link.session.batch(&batch, values).await.map(drop)
    };
    Ok(done.map_err(|e| link.refused("write to", e))?)
}
