//! Position: how much less an impression is worth further down, where the data can tell.
//!
//! Plays of title i in cell c (row, position, device) are Poisson with mean Iᵢ꜀ · rᵢ · θ꜀. The two
//! sides are fitted in turn (each step maximises the likelihood), θ of the first cell being 1. It
//! can be told only where titles were shown in several cells: cells that no chain of titles links
//! to the first one keep the factor 1, and are said to be off.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use uptake_model::tally::Counts;

/// What was shown and played of each title in each cell; keys are the caller's.
///
/// ```
/// use uptake_trends::position::Positions;
/// let mut positions = Positions::default();
/// for title in 0..20 {
///     positions.add(title, 0, 1000.0, 40.0 + title as f64);
///     positions.add(title, 1, 1000.0, (40.0 + title as f64) / 2.0); // half as many look there
/// }
/// positions.add(99, 7, 1000.0, 50.0); // a cell in which only one title ever stood
/// let factors = positions.fit(0);
/// assert!((factors[&1].factor - 0.5).abs() < 1e-9 && factors[&1].identified);
/// assert!(factors[&7].factor == 1.0 && !factors[&7].identified);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Positions {
    seen: BTreeMap<(u32, u32), (f64, f64)>,
}

/// The factor of a cell.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Factor {
    /// Effective impressions per impression.
    pub factor: f64,
    /// Its standard error, given the titles' rates.
    pub error: f64,
    /// Whether the data can tell it.
    pub identified: bool,
}

/// As many plays must link a cell to another: those of the titles shown in both, on the smaller side.
pub const LINK_PLAYS_MIN: f64 = 20.0;

/// What an impression in `cell` is worth: its factor, or where the data cannot tell it that of the nearest
/// cell before it that they can, so that cells are to be numbered down a row.
///
/// Who looks at the tenth place has passed the fourth: to take the factor 1 there, while the fourth has
/// 0.3, would be worse than no correction at all.
pub fn worth(factors: &BTreeMap<u32, Factor>, cell: u32) -> f64 {
    let told = factors.range(..=cell).rev().find(|(_, factor)| factor.identified);
    told.map_or(1.0, |(_, factor)| factor.factor)
}

impl Positions {
    /// Adds what was shown and played of a title in a cell.
    pub fn add(&mut self, title: u32, cell: u32, shown: f64, plays: f64) {
        let seen = self.seen.entry((title, cell)).or_default();
        seen.0 += shown;
        seen.1 += plays;
    }

    /// The factors of all cells, relative to `first`.
    pub fn fit(&self, first: u32) -> BTreeMap<u32, Factor> {
        let linked = self.linked(first);
        let cells: BTreeSet<u32> = self.seen.keys().map(|(_, cell)| *cell).collect();
        let cells: Vec<u32> = cells.into_iter().collect();
        let place = |cell: u32| cells.binary_search(&cell).unwrap_or_default();
        // By dense numbers, because all of it is passed over again and again.
        let mut titles = BTreeMap::new();
        let entries: Vec<(usize, usize, f64, f64)> = self
            .seen
            .iter()
            .filter(|((_, cell), _)| linked.contains(cell))
            .map(|(&(title, cell), &(shown, plays))| {
                let next = titles.len();
                (*titles.entry(title).or_insert(next), place(cell), shown, plays)
            })
            .collect();
        let mut theta = vec![1.0; cells.len()];
        let mut plays_of = vec![0.0; cells.len()];
        self.seen.iter().for_each(|((_, cell), seen)| plays_of[place(*cell)] += seen.1);
        for _ in 0..500 {
            let mut rates = vec![(0.0, 0.0); titles.len()];
            for &(title, cell, shown, plays) in &entries {
                rates[title].0 += plays;
                rates[title].1 += shown * theta[cell];
            }
            let mut sums = vec![(0.0, 0.0); cells.len()];
            for &(title, cell, shown, plays) in &entries {
                let (of_title, exposed) = rates[title];
                sums[cell].0 += plays;
                sums[cell].1 += shown * of_title / f64::max(exposed, 1e-300);
            }
            let (plays, expected) = sums.get(place(first)).copied().unwrap_or_default();
            let scale = if expected > 0.0 { plays / expected } else { 1.0 };
            let mut moved: f64 = 0.0;
            for (theta, (plays, expected)) in theta.iter_mut().zip(sums) {
                let new = if expected > 0.0 && scale > 0.0 { plays / expected / scale } else { 1.0 };
                moved = moved.max((new - *theta).abs());
                *theta = new;
            }
            if moved < 1e-12 {
                break;
            }
        }
        let factor = |(at, cell): (usize, &u32)| {
            let identified = linked.contains(cell);
            let error = if identified { theta[at] / plays_of[at].max(1.0).sqrt() } else { f64::INFINITY };
            (*cell, Factor { factor: if identified { theta[at] } else { 1.0 }, error, identified })
        };
        cells.iter().enumerate().map(factor).collect()
    }

    /// The cells that titles link to the first one.
    fn linked(&self, first: u32) -> Vec<u32> {
        let mut by_title: BTreeMap<u32, Vec<(u32, f64)>> = BTreeMap::new();
        for (&(title, cell), seen) in self.seen.iter().filter(|(_, seen)| seen.0 > 0.0) {
            by_title.entry(title).or_default().push((cell, seen.1));
        }
        let mut links: BTreeMap<(u32, u32), f64> = BTreeMap::new();
        for cells in by_title.values() {
            for (a, plays_a) in cells {
                for (b, plays_b) in cells.iter().filter(|(b, _)| a != b) {
                    *links.entry((*a, *b)).or_default() += plays_a.min(*plays_b);
                }
            }
        }
        let mut linked = vec![first];
        let mut at = 0;
        while at < linked.len() {
            let from = linked[at];
            for ((_, to), plays) in links.range((from, 0)..=(from, u32::MAX)) {
                if *plays >= LINK_PLAYS_MIN && !linked.contains(to) {
                    linked.push(*to);
                }
            }
            at += 1;
        }
        linked
    }
}

/// Whether a segment is of those who were shown a title at one place: one of its dimensions is `position`.
///
/// ```
/// use uptake_trends::position::is_place;
/// assert!(is_place("row=home,position=3") && !is_place("country=BR") && !is_place("position="));
/// ```
pub fn is_place(segment: &str) -> bool {
    position(segment).is_some()
}

/// The position that a segment's name says. Asked of every row that is taken in.
fn position(segment: &str) -> Option<u32> {
    segment.split(',').find_map(|part| part.strip_prefix("position=")?.parse().ok())
}

/// The row, device and whatever else a place is in.
fn group(segment: &str) -> String {
    let rest: Vec<&str> = segment.split(',').filter(|part| !part.starts_with("position=")).collect();
    rest.join(",")
}

/// Positions beyond this one count as this one.
const POSITION_MAX: u32 = 999;
/// The fit looks at so many titles, those with the most plays at several places.
const TITLES_MAX: usize = 1_000;
/// A factor is drawn to 1 as by so many plays.
const PLAYS_PSEUDO: f64 = 50.0;
/// How much of what was seen at the places is kept from epoch to epoch: half after 346.
const FORGETTING: f64 = 0.998;

/// What the segments of places say: by how much an impression of a title counts.
///
/// An impression's weight is its place's factor over the mean factor of all impressions, so that the
/// correction moves exposure between titles and adds none; without a linked place all weights are 1.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Rows, devices and so on, by number.
    groups: BTreeMap<String, u32>,
    /// Per title and epoch that may still grow: the places, each with plays and impressions, absolute.
    open: HashMap<(u32, i64), Vec<(u32, Counts)>, foldhash::fast::FixedState>,
    /// What was seen in closed epochs.
    closed: Positions,
    /// The weight of an impression at each place.
    weights: BTreeMap<u32, f64>,
}

impl Places {
    /// Takes in a row of a place.
    pub(crate) fn put(&mut self, video: u32, segment: &str, epoch: i64, counts: Counts) {
        let Some(position) = position(segment) else { return };
        let next = self.groups.len() as u32;
        let group = *self.groups.entry(group(segment)).or_insert(next);
        let cell = group * (POSITION_MAX + 1) + position.min(POSITION_MAX);
        let cells = self.open.entry((video, epoch)).or_default();
        match cells.iter_mut().find(|(known, _)| *known == cell) {
            Some((_, known)) if known.size() < counts.size() => *known = counts,
            Some(_) => {}
            None => cells.push((cell, counts)),
        }
    }

    /// The titles that something is known of, some of them several times.
    pub(crate) fn videos(&self) -> impl Iterator<Item = u32> {
        self.open.keys().map(|(video, _)| *video).chain(self.closed.seen.keys().map(|(video, _)| *video))
    }

    /// Whether any place is worth more than another as far as is known.
    pub(crate) fn are_known(&self) -> bool {
        !self.weights.is_empty()
    }

    /// What an impression of the title in that epoch weighs on average; `None` where that is not known (any more).
    pub(crate) fn weight(&self, video: u32, epoch: i64) -> Option<f64> {
        let cells = self.open.get(&(video, epoch)).filter(|_| self.are_known())?;
        self.mean(cells.iter().map(|(cell, counts)| (*cell, counts.impressions as f64)))
    }

    /// The same for an epoch that is closed: what an impression of the title weighed as a rule.
    pub(crate) fn usual_weight(&self, video: u32) -> Option<f64> {
        let cells = self.closed.seen.range((video, 0)..=(video, u32::MAX));
        self.mean(cells.map(|((_, cell), (shown, _))| (*cell, *shown)))
    }

    fn mean(&self, shown_at: impl Iterator<Item = (u32, f64)>) -> Option<f64> {
        let (mut shown, mut weighed) = (0.0, 0.0);
        for (cell, impressions) in shown_at {
            shown += impressions;
            weighed += impressions * self.weights.get(&cell).unwrap_or(&1.0);
        }
        (shown > 0.0).then(|| weighed / shown)
    }

    /// A new epoch: what cannot grow any more is added up, and the factors are fitted anew.
    pub(crate) fn roll(&mut self, closed: i64) {
        if self.open.is_empty() && self.closed.seen.is_empty() {
            return;
        }
        self.closed.seen.values_mut().for_each(|seen| *seen = (seen.0 * FORGETTING, seen.1 * FORGETTING));
        self.closed.seen.retain(|_, seen| seen.0 >= 0.5);
        let mut all = self.closed.clone();
        let mut done: Vec<(u32, i64)> = Vec::new();
        for (&(video, epoch), cells) in &self.open {
            for (cell, counts) in cells {
                let (shown, plays) = (counts.impressions as f64, counts.plays as f64);
                all.add(video, *cell, shown, plays);
                if epoch <= closed {
                    self.closed.add(video, *cell, shown, plays);
                }
            }
            if epoch <= closed {
                done.push((video, epoch));
            }
        }
        done.iter().for_each(|key| drop(self.open.remove(key)));
        self.weights = all.weights();
    }
}

impl Positions {
    /// What an impression weighs in each cell, 1 on average; empty where no cell is linked to another.
    fn weights(&self) -> BTreeMap<u32, f64> {
        // Titles at one place only say nothing of the factors.
        let mut titles: BTreeMap<u32, (usize, f64)> = BTreeMap::new();
        for ((title, _), (_, plays)) in &self.seen {
            let title = titles.entry(*title).or_default();
            *title = (title.0 + 1, title.1 + plays);
        }
        let mut best: Vec<(u32, f64)> = titles
            .into_iter()
            .filter(|(_, (cells, _))| *cells > 1)
            .map(|(id, (_, plays))| (id, plays))
            .collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        best.truncate(TITLES_MAX);
        let titles: BTreeSet<u32> = best.into_iter().map(|(id, _)| id).collect();
        let looked_at = self.seen.iter().filter(|((title, _), _)| titles.contains(title));
        let looked_at = Self { seen: looked_at.map(|(key, seen)| (*key, *seen)).collect() };
        let mut plays: BTreeMap<u32, f64> = BTreeMap::new();
        looked_at.seen.iter().for_each(|((_, cell), seen)| *plays.entry(*cell).or_default() += seen.1);
        let first = plays.iter().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(a.0))).map(|(cell, _)| *cell);
        let Some(first) = first else { return BTreeMap::new() };
        let mut factors = looked_at.fit(first);
        if factors.values().filter(|factor| factor.identified).count() < 2 {
            return BTreeMap::new();
        }
        // The scale is that of the mean impression at the places that something is known of, and little evidence is
        // drawn to it. An impression elsewhere is one like the mean.
        let mut shown: BTreeMap<u32, f64> = BTreeMap::new();
        self.seen.iter().for_each(|((_, cell), seen)| *shown.entry(*cell).or_default() += seen.0);
        let mean = |of: &dyn Fn(u32) -> Option<f64>| {
            let told = shown.iter().filter_map(|(cell, shown)| Some((shown, shown * of(*cell)?)));
            let (whole, weighed) = told.fold((0.0, 0.0), |sums, one| (sums.0 + one.0, sums.1 + one.1));
            weighed / whole
        };
        let group = |cell: u32| cell / (POSITION_MAX + 1) * (POSITION_MAX + 1);
        let known = |factors: &BTreeMap<u32, Factor>, cell: u32| {
            let told = factors.range(group(cell)..=cell).rev().find(|(_, factor)| factor.identified);
            told.map(|(_, factor)| factor.factor)
        };
        let scale = mean(&|cell| known(&factors, cell));
        for (cell, factor) in &mut factors {
            let of_cell = plays.get(cell).copied().unwrap_or_default();
            factor.factor = (factor.factor / scale).powf(of_cell / (of_cell + PLAYS_PSEUDO));
        }
        let scale = mean(&|cell| known(&factors, cell));
        let weight = |cell: u32| known(&factors, cell).map_or(1.0, |factor| factor / scale);
        shown.keys().map(|cell| (*cell, weight(*cell))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of which nothing links the places is as it is without them, and does not move the others.
    #[test]
    fn places_that_nothing_is_known_of_weigh_as_the_mean() {
        let mut positions = Positions::default();
        for title in 0..12 {
            for (cell, worth) in [(1, 1.0), (2, 0.5), (3, 0.25)] {
                positions.add(title, cell, 2_000.0, 200.0 * worth);
            }
        }
        let elsewhere = POSITION_MAX + 2;
        positions.add(99, elsewhere, 24_000.0, 500.0);
        let weights = positions.weights();
        assert_eq!(weights[&elsewhere], 1.0);
        let mean = (weights[&1] + weights[&2] + weights[&3]) / 3.0;
        assert!((mean - 1.0).abs() < 1e-9 && weights[&1] > 1.5, "{weights:?}");
    }
}
