//! Rows by the trends' own scorer, kept up with the table.
//!
//! What is known of a segment is built from the table's rows when somebody first asks for it; from
//! then on only the epochs that may still grow are read again. Nothing is kept that the table does
//! not have, so any number of processes, started whenever, rank alike but for who stands where by
//! hysteresis.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uptake_connectors::TableError;
use uptake_connectors::table::Table;
use uptake_model::segment::{CAPPED, MEMBERS, is_reserved};
use uptake_model::{Epoch, EpochLength, EventTime, TallyRow};
use uptake_trends::explore::{CANDIDATES_MAX, Random, hopeful, shares};
use uptake_trends::position::is_place;
use uptake_trends::rate::{Estimate, Evidence};
use uptake_trends::rows::{Choice, Groups, Lacks, Placed, candidates};
use uptake_trends::{Exposure, Options, Past, RowName, Shelf, Trends, tree, why};

use super::{Candidate, Item, Ranked, Rows};
use crate::ids::random;

/// Several rows of a segment that are looked at together read the table once.
const FRESH: Duration = Duration::from_millis(100);
/// The most segments that are known; one more pushes out the one that nobody asked for longest.
pub(crate) const SEGMENTS_KNOWN: usize = 64;
/// How long the epochs stay as they were read over which no lift is taken any more: little comes so late.
const OLDER: Duration = Duration::from_secs(5);
/// How long it is taken as known at which places titles were shown.
const PLACES: Duration = Duration::from_secs(60);
/// How long the titles that a row may draw from stay the same: to find them, all are looked at.
const DRAWN_FROM: Duration = Duration::from_secs(10);
/// How many of those are titles of the catalogue that nobody was shown yet, newest first.
const UNSEEN_MAX: usize = 3;
/// The most videos of an epoch that are read.
const VIDEOS_MAX: usize = 10_000_000;

/// Ranks by rate and lift as [`uptake_trends`] estimates them.
///
/// ```
/// use uptake_connectors::table::{MemoryTable, Table};
/// use uptake_model::{Epoch, EpochLength, EventTime, TallyRow, tally::Counts};
/// use uptake_serve::rows::{RowName, Rows, TrendsRows};
/// use uptake_trends::rows::Choice;
/// let row = |video: &str, epoch, plays, impressions| TallyRow {
///     video_id: video.into(), segment: "".into(), epoch: Epoch(epoch),
///     counts: Counts { plays, impressions, exact: true }, sealed: false, sets: None,
/// };
/// let mut table = MemoryTable::new();
/// table.write(&[row("old", 7, 90, 9_000), row("new", 7, 10, 1_000)])?;
/// let rows = TrendsRows::new(EpochLength::default(), 14, &[]);
/// let (options, rules, catalogue) = Default::default();
/// let choice = Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(0) };
/// assert_eq!(&*rows.rank(&table, RowName::Popular, "", 10, &choice)?.items[0].video_id, "old");
/// assert!(rows.rank(&table, RowName::Trending, "", 10, &choice)?.items.is_empty(), "nothing has risen");
/// # Ok::<(), uptake_connectors::TableError>(())
/// ```
pub struct TrendsRows {
    length: EpochLength,
    open_epochs: i64,
    exploring: Vec<RowName>,
    known: Mutex<HashMap<String, Known>>,
    /// The newest epoch of everyone and its counts, for those who must not wait.
    everyone: RwLock<Option<(Epoch, Arc<Counts>)>>,
}

/// Plays and impressions of an epoch, by video.
type Counts = HashMap<Arc<str>, (u64, u64)>;

/// What is known of a segment.
struct Known {
    trends: Trends,
    rows: BTreeMap<RowName, Ordered>,
    /// It and those it leans on.
    segments: Vec<Arc<str>>,
    epoch: Epoch,
    /// Of that epoch.
    counts: Arc<Counts>,
    read_at: Instant,
    /// When all epochs that may still grow were read.
    older_at: Instant,
    /// When it was read where titles were shown.
    places_at: Instant,
    /// By which rules its titles were chosen.
    rules: u64,
    hopeful_at: Option<Instant>,
    /// Titles that may be better than is known, most hopeful first.
    hopeful: Vec<(Arc<str>, Estimate)>,
}

/// A row's titles when it was looked at last.
#[derive(Default)]
struct Ordered {
    /// Who stands in it.
    shelf: Shelf,
    /// Whom its explored places are drawn from.
    drawn_from: Vec<Candidate>,
}

impl TrendsRows {
    /// Nothing is known yet; the table's epochs are of this length, so many of them may still grow
    /// ([`open_epochs`](uptake_trends::options::open_epochs)), and those rows are to explore.
    pub fn new(length: EpochLength, open_epochs: i64, exploring: &[RowName]) -> Self {
        let (known, everyone) = (Mutex::default(), RwLock::default());
        Self { length, open_epochs, exploring: exploring.to_vec(), known, everyone }
    }

    /// Does something with what is known of a segment now; `None` where nothing was counted.
    fn with<T>(
        &self,
        table: &dyn Table,
        segment: &str,
        choice: &Choice<'_>,
        ask: impl FnOnce(&Known) -> T,
    ) -> Result<Option<T>, TableError> {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(segment) {
            if known.read_at.elapsed() >= FRESH {
                known.catch_up(table, self.length, choice.now)?;
                self.note_everyone(segment, known);
                known.choose(&self.exploring, choice);
            } else if known.rules != choice.rules.version() {
                known.choose(&self.exploring, choice);
            }
            return Ok(Some(ask(known)));
        }
        let Some(mut known) = Known::load(table, segment, self, choice.now)? else { return Ok(None) };
        self.note_everyone(segment, &known);
        known.choose(&self.exploring, choice);
        if all.len() >= SEGMENTS_KNOWN {
            let oldest = all.iter().min_by_key(|(_, known)| known.read_at).map(|(name, _)| name.clone());
            oldest.and_then(|name| all.remove(&name));
        }
        let answer = ask(&known);
        all.insert(segment.to_owned(), known);
        Ok(Some(answer))
    }

    fn note_everyone(&self, segment: &str, known: &Known) {
        if segment.is_empty() {
            let counts = (known.epoch, Arc::clone(&known.counts));
            *self.everyone.write().unwrap_or_else(PoisonError::into_inner) = Some(counts);
        }
    }
}

impl Known {
    fn load(
        table: &dyn Table,
        segment: &str,
        of: &TrendsRows,
        now: EventTime,
    ) -> Result<Option<Self>, TableError> {
        let Some(Lineage { segments, rows }) = read_lineage(table, segment)? else { return Ok(None) };
        let Some(epoch) = rows.iter().map(|row| row.epoch).max() else { return Ok(None) };
        let mut known = Self {
            trends: Trends::new(Options::for_rows(&rows, of.length, of.open_epochs)),
            rows: RowName::ALL.into_iter().map(|row| (row, Ordered::default())).collect(),
            segments,
            epoch,
            counts: Arc::default(),
            read_at: Instant::now(),
            older_at: Instant::now(),
            places_at: Instant::now(),
            rules: 0,
            hopeful_at: None,
            hopeful: Vec::new(),
        };
        known.trends.replay(&rows, |epoch| as_of(epoch, of.length, now), |_, _| {});
        known.note_counts(rows.iter());
        Ok(Some(known))
    }

    /// The largest of the segments that it leans on: whatever is counted is counted there.
    fn root(&self) -> &Arc<str> {
        let of_members = |name: &&Arc<str>| !is_reserved(name) && !is_place(name);
        self.segments.iter().rfind(of_members).unwrap_or(&self.segments[0])
    }

    /// Takes in what has changed of the epochs that may still grow.
    fn catch_up(&mut self, table: &dyn Table, length: EpochLength, now: EventTime) -> Result<(), TableError> {
        let (open_epochs, lift_epochs) = {
            let options = self.trends.options();
            (options.open_epochs, options.lift_epochs)
        };
        // Time goes on also where nothing is counted in the segment itself.
        let newest = table.top(self.root(), None, 1)?.first().map_or(self.epoch, |row| row.epoch);
        let newest = newest.max(self.epoch);
        let first = match newest > self.epoch || self.older_at.elapsed() >= OLDER {
            true => {
                self.older_at = Instant::now();
                self.epoch.0 - open_epochs
            }
            false => newest.0 - lift_epochs + 1,
        };
        // What was shown where moves slowly, and there are many places.
        let with_places = newest > self.epoch || self.places_at.elapsed() >= PLACES;
        if with_places {
            self.places_at = Instant::now();
        }
        if newest > self.epoch {
            // A title may have been shown where none was before.
            let stored = table.segments()?.into_iter().filter(|name| is_place(name));
            let new: Vec<Arc<str>> = stored.filter(|name| !self.segments.contains(name)).collect();
            self.segments.extend(new);
        }
        let mut latest = Vec::new();
        for epoch in (first..=newest.0).map(Epoch) {
            let is_lately = epoch.0 > newest.0 - lift_epochs;
            let is_asked = |segment: &&Arc<str>| match () {
                () if is_place(segment) => with_places,
                () if is_reserved(segment) => is_lately,
                () => true,
            };
            for segment in self.segments.iter().filter(is_asked) {
                let rows = table.top(segment, Some(epoch), VIDEOS_MAX)?;
                rows.iter().for_each(|row| self.trends.ingest(row));
                if epoch == newest && *segment == self.segments[0] {
                    latest = rows;
                }
            }
        }
        self.epoch = newest;
        self.trends.refresh(as_of(self.epoch, length, now));
        self.note_counts(latest.iter());
        self.read_at = Instant::now();
        Ok(())
    }

    fn note_counts<'a>(&mut self, latest: impl Iterator<Item = &'a TallyRow>) {
        let of_it = latest.filter(|row| row.segment == self.segments[0] && row.epoch == self.epoch);
        let counts = of_it.map(|row| (Arc::clone(&row.video_id), (row.counts.plays, row.counts.impressions)));
        self.counts = Arc::new(counts.collect());
    }

    /// Chooses who stands in the rows.
    fn choose(&mut self, exploring: &[RowName], choice: &Choice<'_>) {
        self.rules = choice.rules.version();
        let segment = Arc::clone(&self.segments[0]);
        // Where plays are held against time, to be shown teaches nothing.
        let explores = !exploring.is_empty() && self.trends.options().exposure == Exposure::Impressions;
        if explores && self.hopeful_at.is_none_or(|at| at.elapsed() >= DRAWN_FROM) {
            self.hopeful = self.find_hopeful(&segment, choice);
            self.hopeful_at = Some(Instant::now());
        }
        let mut rows = std::mem::take(&mut self.rows);
        for (row, ordered) in &mut rows {
            ordered.shelf.update(*row, &segment, candidates(&self.trends, *row, &segment), choice);
            if explores && exploring.contains(row) {
                ordered.drawn_from = self.drawn_from(*row, &segment, &ordered.shelf, choice);
            }
        }
        self.rows = rows;
    }

    /// Those titles whose rate may be the highest, as far as is known, and some that nobody saw.
    fn find_hopeful(&self, segment: &str, choice: &Choice<'_>) -> Vec<(Arc<str>, Estimate)> {
        // The first of them stand in the row: that many more are looked at.
        let seen = hopeful(&self.trends, segment, choice.options.places + CANDIDATES_MAX);
        let mut unseen: Vec<_> = choice
            .catalogue
            .titles()
            .filter(|title| choice.catalogue.is_available(&title.id, choice.now))
            .filter(|title| self.trends.numbers(&title.id, segment).is_none())
            .collect();
        unseen.sort_by_key(|title| (std::cmp::Reverse((title.available_from_ms, title.year)), &title.id));
        let prior = self.trends.segment_prior(segment).map(|prior| prior.with(Evidence::default()));
        let unseen = unseen.into_iter().take(UNSEEN_MAX);
        unseen.filter_map(|title| Some((Arc::from(&*title.id), prior?))).chain(seen).collect()
    }

    fn drawn_from(&self, row: RowName, segment: &str, shelf: &Shelf, choice: &Choice<'_>) -> Vec<Candidate> {
        // Whom a genre or a franchise has no place for; the last place that no rule holds is the one that is drawn.
        let groups_of = |video: &str| Groups::of(video, choice.options, choice.catalogue);
        let drawn = shelf.placed().iter().rposition(|placed| !placed.pinned);
        let mut groups = Groups::default();
        for (_, placed) in shelf.placed().iter().enumerate().filter(|(at, _)| Some(*at) != drawn) {
            groups.take(&groups_of(&placed.video));
        }
        let is_placed = |video: &str| shelf.placed().iter().any(|placed| *placed.video == *video);
        let is_shown = |video: &str| {
            !is_placed(video)
                && choice.catalogue.is_available(video, choice.now)
                && !choice.rules.is_blocked(video, row, segment, choice.now)
                && groups.full(&groups_of(video)).is_none()
        };
        let all = self.hopeful.iter().filter(|(video, _)| is_shown(video)).take(CANDIDATES_MAX);
        let all: Vec<&(Arc<str>, Estimate)> = all.collect();
        let estimates: Vec<Estimate> = all.iter().map(|(_, estimate)| *estimate).collect();
        let shares = shares(&estimates, &mut Random::new(random::<8>().map_or(0, u64::from_le_bytes)));
        let candidate = |((video, estimate), share): (&(Arc<str>, Estimate), f64)| Candidate {
            item: self.item(&Placed { video: Arc::clone(video), score: estimate.rate, pinned: false }),
            share,
            rate: estimate.rate,
        };
        all.into_iter().zip(shares).map(candidate).collect()
    }

    fn item(&self, placed: &Placed) -> Item {
        let (plays, impressions) = self.counts.get(&placed.video).copied().unwrap_or_default();
        Item { plays, impressions, ..Item::of(placed) }
    }

    /// Who stands in the row, and behind them who would come next.
    fn ranked(&self, row: RowName, limit: usize) -> Ranked {
        let Ordered { shelf, drawn_from } = &self.rows[&row];
        let items = shelf.placed().iter().chain(shelf.behind()).take(limit);
        let items = items.map(|placed| self.item(placed)).collect();
        Ranked { epoch: Some(self.epoch), items, candidates: drawn_from.clone() }
    }
}

/// A row in which nobody stands but whom a person pinned: nothing was counted yet.
pub(crate) fn only_pinned(row: RowName, segment: &str, choice: &Choice<'_>) -> Ranked {
    let mut shelf = Shelf::default();
    shelf.update(row, segment, Vec::new(), choice);
    Ranked { items: shelf.placed().iter().chain(shelf.behind()).map(Item::of).collect(), ..Ranked::default() }
}

impl Item {
    fn of(placed: &Placed) -> Self {
        Self {
            video_id: Arc::clone(&placed.video),
            score: placed.score,
            plays: 0,
            impressions: 0,
            propensity: 1.0,
            pinned: placed.pinned,
            explored: false,
            title: None,
            year: None,
            genres: Vec::new(),
        }
    }
}

/// A segment and those it leans on.
#[derive(Clone, PartialEq, Debug)]
pub struct Lineage {
    /// Their names, smallest first, then those that say who is behind the plays, and at which places titles
    /// were shown.
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
    let stored = stored.iter().map(|name| &**name).filter(|name| !is_reserved(name));
    let (places, known): (Vec<&str>, Vec<&str>) = stored.partition(|name| is_place(name));
    if !known.contains(&segment) {
        return Ok(None);
    }
    // The reserved ones may come later than who is asked for.
    let others = [MEMBERS, CAPPED].into_iter().chain(places);
    let segments: Vec<Arc<str>> =
        tree::lineage(segment, &known).into_iter().chain(others).map(Arc::from).collect();
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
fn as_of(epoch: Epoch, length: EpochLength, now: EventTime) -> EventTime {
    let (start, end) = (length.start(epoch), length.end(epoch));
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
        choice: &Choice<'_>,
    ) -> Result<Ranked, TableError> {
        let ranked = self.with(table, segment, choice, |known| known.ranked(row, limit))?;
        Ok(ranked.unwrap_or_else(|| only_pinned(row, segment, choice)))
    }

    fn plays(&self, video: &str) -> Option<(Epoch, u64)> {
        let everyone = self.everyone.read().unwrap_or_else(PoisonError::into_inner);
        let (epoch, counts) = everyone.as_ref()?;
        Some((*epoch, counts.get(video).map_or(0, |(plays, _)| *plays)))
    }

    fn past(
        &self,
        table: &dyn Table,
        segment: &str,
        video: &str,
        rows: &[TallyRow],
        choice: &Choice<'_>,
    ) -> Result<Vec<Past>, TableError> {
        let past = self.with(table, segment, choice, |known| known.trends.past(video, segment, rows))?;
        Ok(past.unwrap_or_default())
    }

    fn why(
        &self,
        table: &dyn Table,
        segment: &str,
        video: &str,
        choice: &Choice<'_>,
    ) -> Result<Value, TableError> {
        let answer = self.with(table, segment, choice, |known| {
            let why_of = |(row, Ordered { shelf, .. }): (&RowName, &Ordered)| {
                why::why(&known.trends, shelf, *row, segment, video, choice)
            };
            let all: Vec<why::Why> = known.rows.iter().map(why_of).collect();
            let lacks = "nothing was counted of it in this segment";
            if all.iter().all(|why| why.lacks == Some(Lacks::Unseen)) {
                return json!({ "known": false, "lacks": lacks });
            }
            let is_known = all.iter().any(|why| why.counted.is_some());
            let words: BTreeMap<&str, String> =
                all.iter().map(|why| (why.row.as_str(), why.to_string())).collect();
            let rank: BTreeMap<&str, Option<usize>> =
                all.iter().map(|why| (why.row.as_str(), why.place)).collect();
            let rows: BTreeMap<&str, &why::Why> = all.iter().map(|why| (why.row.as_str(), why)).collect();
            // Of a title that a person pinned or blocked there may be no numbers.
            let lacks = (!is_known).then_some(lacks);
            json!({
                "known": is_known, "lacks": lacks, "epoch": known.epoch, "rank": rank, "words": words, "rows": rows,
            })
        })?;
        Ok(answer
            .unwrap_or_else(|| json!({ "known": false, "lacks": "there are no tallies in this segment" })))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use uptake_connectors::table::MemoryTable;
    use uptake_model::tally::Counts;
    use uptake_trends::{Catalogue, RowOptions, Rules, Title};

    use super::*;

    fn row(video: &str, segment: &str, epoch: i64, plays: u64) -> TallyRow {
        TallyRow {
            video_id: video.into(),
            segment: segment.into(),
            epoch: Epoch(epoch),
            counts: Counts { plays, impressions: 100, exact: true },
            sealed: false,
            sets: None,
        }
    }

    #[test]
    fn a_quiet_segment_goes_on_with_the_stream() {
        let (options, rules, catalogue) = (RowOptions::default(), Rules::default(), Catalogue::default());
        let choice = Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(0) };
        let mut table = MemoryTable::new();
        table.write(&[row("v", "", 100, 10), row("v", "country=BR", 100, 10)]).unwrap();
        let rows = TrendsRows::new(EpochLength::default(), 14, &[]);
        let ranked = rows.rank(&table, RowName::Popular, "country=BR", 10, &choice).unwrap();
        assert_eq!((ranked.epoch, ranked.items[0].score), (Some(Epoch(100)), 10.0));
        table.write(&[row("v", "", 112, 10)]).unwrap();
        std::thread::sleep(FRESH);
        let ranked = rows.rank(&table, RowName::Popular, "country=BR", 10, &choice).unwrap();
        assert_eq!(ranked.epoch, Some(Epoch(112)));
        assert!((ranked.items[0].score - 5.0).abs() < 1e-9, "six hours are a half-life: {ranked:?}");
    }

    /// Growth of an epoch long past comes to the same as if the server had just been started.
    #[test]
    fn what_comes_late_is_taken_in_while_an_epoch_may_grow() {
        let (options, rules, catalogue) = (RowOptions::default(), Rules::default(), Catalogue::default());
        let choice = Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(0) };
        let mut table = MemoryTable::new();
        let epochs = 100..=113;
        let all: Vec<TallyRow> =
            epochs.flat_map(|epoch| [row("v", "", epoch, 10), row("w", "", epoch, 5)]).collect();
        table.write(&all).unwrap();
        let rows = TrendsRows::new(EpochLength::default(), 14, &[]);
        let ranked = |rows: &TrendsRows, table: &MemoryTable| {
            rows.rank(table, RowName::Popular, "", 10, &choice).unwrap().items
        };
        ranked(&rows, &table);
        // The first epoch may grow until the end of the last one is 14 epochs behind.
        table.write(&[row("v", "", 100, 60), row("v", "", 114, 10)]).unwrap();
        std::thread::sleep(FRESH);
        let fresh = TrendsRows::new(EpochLength::default(), 14, &[]);
        assert_eq!(ranked(&rows, &table), ranked(&fresh, &table));
    }

    /// A franchise has one place, also where it is drawn; a pinned title of nobody's tallies is told as it stands.
    #[test]
    fn a_drawn_place_keeps_to_the_caps_and_a_pin_is_told() {
        let part = |id: &str| Title { id: id.into(), franchise: Some("saga".into()), ..Title::default() };
        let catalogue = Catalogue::new(vec![part("s1"), part("s2"), part("s3")]);
        let options = RowOptions { places: 5, ..RowOptions::default() };
        let mut rules = Rules::default();
        rules.set(
            serde_json::from_str(r#"{"id":"1","action":"pin","video_id":"premiere","position":2}"#).unwrap(),
        );
        let choice = Choice { options: &options, rules: &rules, catalogue: &catalogue, now: EventTime(0) };
        let mut table = MemoryTable::new();
        let titles = ["s1", "s2", "s3", "a", "b", "c", "d", "e", "f"];
        let all: Vec<TallyRow> = (30..).zip(titles).map(|(n, video)| row(video, "", 100, 60 - n)).collect();
        table.write(&all).unwrap();
        let rows = TrendsRows::new(EpochLength::default(), 14, &[RowName::Loved]);
        let ranked = rows.rank(&table, RowName::Loved, "", 5, &choice).unwrap();
        assert_eq!((&*ranked.items[0].video_id, &*ranked.items[1].video_id), ("s1", "premiere"));
        let from: Vec<&str> = ranked.candidates.iter().map(|one| &*one.item.video_id).collect();
        assert_eq!(from, ["d", "e", "f"]);
        let shares: f64 = ranked.candidates.iter().map(|one| one.share).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{ranked:?}");
        let why = rows.why(&table, "", "premiere", &choice).unwrap();
        assert_eq!((&why["known"], &why["rank"]["loved"]), (&json!(false), &json!(2)), "{why}");
        assert!(why["words"]["loved"].as_str().unwrap().contains("a person pinned it"), "{why}");
        let why = rows.why(&table, "", "nobody's", &choice).unwrap();
        assert_eq!((&why["known"], why.get("words")), (&json!(false), None), "{why}");
    }
}
