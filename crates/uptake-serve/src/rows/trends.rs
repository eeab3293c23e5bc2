//! Rows by the trends' own scorer, kept up with the table.
//!
//! What is known of a segment is built from the table's rows when somebody first asks for it; from
//! then on only the epochs that may still grow are read again. Nothing is kept that the table does
//! not have, so any number of processes, started whenever, rank alike but for who stands where by
//! hysteresis.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uptake_connectors::TableError;
use uptake_connectors::table::Table;
use uptake_model::{Epoch, EpochLength, EventTime, TallyRow};
use uptake_trends::rows::{Choice, candidates};
use uptake_trends::{Catalogue, Options, RowName, RowOptions, Rules, Shelf, Trends, tree, why};

use super::{Item, Ranked, Rows};
use crate::clock::now_ms;

/// Several rows of a segment that are looked at together read the table once.
const FRESH: Duration = Duration::from_millis(100);
/// The most segments that are kept; one more pushes out the one that nobody asked for longest.
const SEGMENTS_MAX: usize = 64;
/// The most videos of an epoch that are read.
const VIDEOS_MAX: usize = 10_000_000;

/// Ranks by rate and lift as [`uptake_trends`] estimates them.
///
/// ```
/// use uptake_connectors::table::{MemoryTable, Table};
/// use uptake_model::{Epoch, EpochLength, TallyRow, tally::Counts};
/// use uptake_serve::rows::{RowName, Rows, TrendsRows};
/// let row = |video: &str, epoch, plays, impressions| TallyRow {
///     video_id: video.into(), segment: "".into(), epoch: Epoch(epoch),
///     counts: Counts { plays, impressions, exact: true }, sealed: false, sets: None,
/// };
/// let mut table = MemoryTable::new();
/// table.write(&[row("old", 7, 90, 9_000), row("new", 7, 10, 1_000)])?;
/// let rows = TrendsRows::new(EpochLength::default());
/// assert_eq!(&*rows.rank(&table, RowName::Popular, "", 10)?.items[0].video_id, "old");
/// assert!(rows.rank(&table, RowName::Trending, "", 10)?.items.is_empty(), "nothing has risen");
/// # Ok::<(), uptake_connectors::TableError>(())
/// ```
pub struct TrendsRows {
    length: EpochLength,
    known: Mutex<HashMap<String, Known>>,
}

/// What is known of a segment.
struct Known {
    trends: Trends,
    rows: BTreeMap<RowName, Ordered>,
    /// It and those it leans on.
    segments: Vec<Arc<str>>,
    epoch: Epoch,
    /// Plays and impressions of that epoch.
    counts: HashMap<Arc<str>, (u64, u64)>,
    read_at: Instant,
}

/// A row's titles when it was looked at last.
#[derive(Default)]
struct Ordered {
    /// Who stands in it.
    shelf: Shelf,
    /// All that lack nothing, best first.
    candidates: Vec<(f64, Arc<str>)>,
}

impl TrendsRows {
    /// Nothing is known yet; the table's epochs are of this length.
    pub fn new(length: EpochLength) -> Self {
        Self { length, known: Mutex::default() }
    }

    /// Does something with what is known of a segment now; `None` where nothing was counted.
    fn with<T>(
        &self,
        table: &dyn Table,
        segment: &str,
        ask: impl FnOnce(&Known) -> T,
    ) -> Result<Option<T>, TableError> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(segment) {
            if known.read_at.elapsed() >= FRESH {
                known.catch_up(table, self.length)?;
            }
            return Ok(Some(ask(known)));
        }
        let Some(known) = Known::load(table, segment, self.length)? else { return Ok(None) };
        if all.len() >= SEGMENTS_MAX {
            let oldest = all.iter().min_by_key(|(_, known)| known.read_at).map(|(name, _)| name.clone());
            oldest.and_then(|name| all.remove(&name));
        }
        let answer = ask(&known);
        all.insert(segment.to_owned(), known);
        Ok(Some(answer))
    }
}

impl Known {
    fn load(table: &dyn Table, segment: &str, length: EpochLength) -> Result<Option<Self>, TableError> {
        let Some(Lineage { segments, rows }) = read_lineage(table, segment)? else { return Ok(None) };
        let Some(epoch) = rows.iter().map(|row| row.epoch).max() else { return Ok(None) };
        let mut known = Self {
            trends: Trends::new(Options::for_rows(&rows, length)),
            rows: RowName::ALL.into_iter().map(|row| (row, Ordered::default())).collect(),
            segments,
            epoch,
            counts: HashMap::new(),
            read_at: Instant::now(),
        };
        known.trends.replay(&rows, |epoch| as_of(epoch, length), |_, _| {});
        known.look(rows.iter(), length);
        Ok(Some(known))
    }

    /// Takes in what has changed of the epochs that may still grow.
    fn catch_up(&mut self, table: &dyn Table, length: EpochLength) -> Result<(), TableError> {
        let first = self.epoch.0 - self.trends.options().open_epochs;
        let newest = table.top(&self.segments[0], None, 1)?.first().map_or(self.epoch, |row| row.epoch);
        let mut latest = Vec::new();
        for epoch in (first..=newest.0).map(Epoch) {
            for segment in &self.segments {
                let rows = table.top(segment, Some(epoch), VIDEOS_MAX)?;
                rows.iter().for_each(|row| self.trends.ingest(row));
                if epoch == newest && *segment == self.segments[0] {
                    latest = rows;
                }
            }
        }
        self.epoch = newest.max(self.epoch);
        self.trends.refresh(as_of(self.epoch, length));
        self.look(latest.iter(), length);
        self.read_at = Instant::now();
        Ok(())
    }

    fn look<'a>(&mut self, latest: impl Iterator<Item = &'a TallyRow>, length: EpochLength) {
        let of_it = latest.filter(|row| row.segment == self.segments[0] && row.epoch == self.epoch);
        self.counts = of_it
            .map(|row| (Arc::clone(&row.video_id), (row.counts.plays, row.counts.impressions)))
            .collect();
        // People's rules are applied when a row is served: they hold at once.
        let (rules, catalogue, options) = (Rules::default(), Catalogue::default(), RowOptions::default());
        let now = as_of(self.epoch, length);
        let choice = Choice { options: &options, rules: &rules, catalogue: &catalogue, now };
        for (row, ordered) in &mut self.rows {
            ordered.candidates = candidates(&self.trends, *row, &self.segments[0]);
            ordered.shelf.update(*row, &self.segments[0], ordered.candidates.clone(), &choice);
        }
    }

    /// Who stands in the row, and behind them who would come next.
    fn ranked(&self, row: RowName, limit: usize) -> Ranked {
        let Ordered { shelf, candidates } = &self.rows[&row];
        let placed = shelf.placed().iter().map(|placed| (placed.score, &placed.video));
        let is_placed: std::collections::HashSet<&Arc<str>> =
            placed.clone().map(|(_, video)| video).collect();
        let next = candidates.iter().map(|(score, video)| (*score, video));
        let items = placed.chain(next.filter(|(_, video)| !is_placed.contains(video))).take(limit);
        let items = items.map(|(score, video)| {
            let (plays, impressions) = self.counts.get(video).copied().unwrap_or_default();
            let video_id = Arc::clone(video);
            Item { video_id, score, plays, impressions, propensity: 1.0, pinned: false }
        });
        Ranked { epoch: Some(self.epoch), items: items.collect() }
    }
}

/// A segment and those it leans on.
#[derive(Clone, PartialEq, Debug)]
pub struct Lineage {
    /// Their names, smallest first.
    pub segments: Vec<Arc<str>>,
    /// The rows of all of them.
    pub rows: Vec<TallyRow>,
}

/// Reads `segment` and those it leans on; `None` where nothing was ever counted in it.
///
/// ```
/// use uptake_connectors::table::{MemoryTable, Table};
/// use uptake_model::{Epoch, TallyRow, tally::Counts};
/// use uptake_serve::rows::{Lineage, read_lineage};
/// let row = |segment: &str| TallyRow {
///     video_id: "v".into(), segment: segment.into(), epoch: Epoch(7),
///     counts: Counts { plays: 1, impressions: 9, exact: true }, sealed: false, sets: None,
/// };
/// let mut table = MemoryTable::new();
/// table.write(&[row(""), row("country=BR"), row("country=US")])?;
/// let Lineage { segments, rows } = read_lineage(&table, "country=BR")?.unwrap();
/// assert_eq!((&*segments[0], &*segments[1], rows.len()), ("country=BR", "", 2));
/// assert!(read_lineage(&table, "country=FR")?.is_none());
/// # Ok::<(), uptake_connectors::TableError>(())
/// ```
///
/// # Errors
/// If the table cannot be read.
pub fn read_lineage(table: &dyn Table, segment: &str) -> Result<Option<Lineage>, TableError> {
    let stored = table.segments()?;
    let known: Vec<&str> = stored.iter().map(|(name, _)| &**name).collect();
    if !known.contains(&segment) {
        return Ok(None);
    }
    let segments: Vec<Arc<str>> = tree::lineage(segment, &known).into_iter().map(Arc::from).collect();
    let mut rows = Vec::new();
    for segment in &segments {
        table.scan(segment, &mut |row| {
            rows.push(row);
            Ok(())
        })?;
    }
    Ok(Some(Lineage { segments, rows }))
}

/// How far the stream is: now, if the epoch is going on, or its end.
fn as_of(epoch: Epoch, length: EpochLength) -> EventTime {
    let (start, end) = (length.start(epoch), length.end(epoch));
    let now = EventTime(now_ms());
    if now > start && now < end { now } else { end }
}

impl Rows for TrendsRows {
    fn scorer(&self) -> &str {
        "trends/1"
    }

    fn rank(
        &self,
        table: &dyn Table,
        row: RowName,
        segment: &str,
        limit: usize,
    ) -> Result<Ranked, TableError> {
        Ok(self.with(table, segment, |known| known.ranked(row, limit))?.unwrap_or_default())
    }

    fn why(&self, table: &dyn Table, segment: &str, video: &str) -> Result<Value, TableError> {
        let answer = self.with(table, segment, |known| {
            let all: Option<Vec<_>> = known
                .rows
                .iter()
                .map(|(row, Ordered { shelf, .. })| why::why(&known.trends, shelf, *row, segment, video))
                .collect();
            let Some(all) = all else {
                return json!({ "known": false, "lacks": "nothing was counted of it in this segment" });
            };
            let words: BTreeMap<&str, String> =
                all.iter().map(|why| (why.row.as_str(), why.to_string())).collect();
            let rank: BTreeMap<&str, Option<usize>> =
                all.iter().map(|why| (why.row.as_str(), why.place)).collect();
            let rows: BTreeMap<&str, &why::Why> = all.iter().map(|why| (why.row.as_str(), why)).collect();
            json!({ "known": true, "epoch": known.epoch, "rank": rank, "words": words, "rows": rows })
        })?;
        Ok(answer
            .unwrap_or_else(|| json!({ "known": false, "lacks": "there are no tallies in this segment" })))
    }
}
