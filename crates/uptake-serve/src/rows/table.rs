//! Rows straight from the table's tallies, without any state of their own.
//!
//! Popular: plays in the latest epoch. Loved: plays per impression there, drawn towards the rate
//! of all ([`PRIOR`] impressions' worth), so that two of three do not beat two thousand of four
//! thousand. Trending: plays against what was to be expected from this exposure and the rate that
//! the video had in the epochs before, (P + a) / (I · r + a).

use serde_json::{Value, json};
use uptake_connectors::TableError;
use uptake_connectors::table::Table;
use uptake_model::{Epoch, TallyRow};

use super::{Item, Ranked, RowName, Rows};

/// How many impressions the rate of all weighs as much as.
const PRIOR: f64 = 50.0;
/// So many plays more and so many more expected: few plays are no trend.
const DAMPING: f64 = 5.0;
/// How many epochs before the latest say what is usual: a day of half hours.
const EPOCHS_BEFORE: i64 = 48;
/// How many videos of an epoch are candidates.
const CANDIDATES: usize = 500;

/// Ranks by the table alone.
///
/// ```
/// use uptake_connectors::table::{MemoryTable, Table};
/// use uptake_model::{Epoch, TallyRow, tally::Counts};
/// use uptake_serve::rows::{RowName, Rows, TableRows};
/// let row = |video: &str, epoch, plays, impressions| TallyRow {
///     video_id: video.into(), segment: "".into(), epoch: Epoch(epoch),
///     counts: Counts { plays, impressions, exact: true }, sealed: false, sets: None,
/// };
/// let mut table = MemoryTable::new();
/// table.write(&[row("old", 7, 900, 9_000), row("old", 8, 900, 9_000), row("new", 7, 10, 1_000), row("new", 8, 90, 900)])?;
/// let first = |name| TableRows.rank(&table, name, "", 10).map(|ranked| ranked.items[0].video_id.to_string());
/// assert_eq!(first(RowName::Popular)?, "old");
/// assert_eq!(first(RowName::Trending)?, "new");
/// # Ok::<(), uptake_connectors::TableError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct TableRows;

/// What is known of a video in the latest epoch.
struct Numbers {
    epoch: Epoch,
    plays: u64,
    impressions: u64,
    overall_rate: f64,
    usual_rate: f64,
    rate: f64,
    lift: f64,
}

fn shrunk(plays: u64, impressions: u64, towards: f64) -> f64 {
    (plays as f64 + PRIOR * towards) / (impressions as f64 + PRIOR)
}

fn overall(rows: &[TallyRow]) -> f64 {
    let plays: u64 = rows.iter().map(|row| row.counts.plays).sum();
    let impressions: u64 = rows.iter().map(|row| row.counts.impressions).sum();
    if impressions == 0 { 0.0 } else { plays as f64 / impressions as f64 }
}

fn numbers(table: &dyn Table, row: &TallyRow, overall_rate: f64) -> Result<Numbers, TableError> {
    let (mut plays, mut impressions) = (0, 0);
    for before in table.video(&row.video_id, &row.segment)? {
        if before.epoch < row.epoch && before.epoch.0 >= row.epoch.0 - EPOCHS_BEFORE {
            plays += before.counts.plays;
            impressions += before.counts.impressions;
        }
    }
    let usual_rate = shrunk(plays, impressions, overall_rate);
    let expected = row.counts.impressions as f64 * usual_rate;
    Ok(Numbers {
        epoch: row.epoch,
        plays: row.counts.plays,
        impressions: row.counts.impressions,
        overall_rate,
        usual_rate,
        rate: shrunk(row.counts.plays, row.counts.impressions, overall_rate),
        lift: (row.counts.plays as f64 + DAMPING) / (expected + DAMPING),
    })
}

impl Rows for TableRows {
    fn scorer(&self) -> &str {
        "table/1"
    }

    fn rank(
        &self,
        table: &dyn Table,
        row: RowName,
        segment: &str,
        limit: usize,
    ) -> Result<Ranked, TableError> {
        let rows = table.top(segment, None, CANDIDATES.max(limit))?;
        let overall_rate = overall(&rows);
        let mut items = Vec::with_capacity(rows.len());
        for tally in &rows {
            let score = match row {
                RowName::Popular => tally.counts.plays as f64,
                RowName::Loved => shrunk(tally.counts.plays, tally.counts.impressions, overall_rate),
                RowName::Trending => numbers(table, tally, overall_rate)?.lift,
            };
            items.push(Item {
                video_id: tally.video_id.clone(),
                score,
                plays: tally.counts.plays,
                impressions: tally.counts.impressions,
                propensity: 1.0,
                pinned: false,
            });
        }
        items.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.video_id.cmp(&b.video_id)));
        items.truncate(limit);
        Ok(Ranked { epoch: rows.first().map(|row| row.epoch), items })
    }

    fn why(&self, table: &dyn Table, segment: &str, video: &str) -> Result<Value, TableError> {
        let candidates = table.top(segment, None, CANDIDATES)?;
        let Some(latest) = candidates.first().map(|row| row.epoch) else {
            return Ok(json!({ "known": false, "lacks": "there are no tallies in this segment" }));
        };
        let Some(row) = table.get(video, segment, latest)? else {
            return Ok(
                json!({ "known": false, "epoch": latest, "lacks": "nothing counted in the latest epoch" }),
            );
        };
        let n = numbers(table, &row, overall(&candidates))?;
        let mut ranks = serde_json::Map::new();
        for name in RowName::ALL {
            let ranked = self.rank(table, name, segment, CANDIDATES)?;
            let place = ranked.items.iter().position(|item| &*item.video_id == video);
            ranks.insert(name.name().to_owned(), place.map(|place| place + 1).into());
        }
        Ok(json!({
            "known": true,
            "epoch": n.epoch,
            "plays": n.plays,
            "impressions": n.impressions,
            "rate": n.rate,
            "rate_of_all": n.overall_rate,
            "usual_rate": n.usual_rate,
            "expected_plays": n.impressions as f64 * n.usual_rate,
            "lift": n.lift,
            "rank": ranks,
        }))
    }
}
