//! Position: how much less an impression is worth further down, where the data can tell.
//!
//! Plays of title i in cell c (row, position, device) are Poisson with mean Iᵢ꜀ · rᵢ · θ꜀. The two
//! sides are fitted in turn (each step maximises the likelihood), θ of the first cell being 1. It
//! can be told only where titles were shown in several cells: cells that no chain of titles links
//! to the first one keep the factor 1, and are said to be off.

use std::collections::BTreeMap;

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
        let mut theta: BTreeMap<u32, f64> = self.seen.keys().map(|(_, cell)| (*cell, 1.0)).collect();
        for _ in 0..500 {
            let rates = self.rates(&theta, &linked);
            let mut sums: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
            for (&(title, cell), &(shown, plays)) in &self.seen {
                if let Some(rate) = rates.get(&title).filter(|_| linked.contains(&cell)) {
                    let sum = sums.entry(cell).or_default();
                    sum.0 += plays;
                    sum.1 += shown * rate;
                }
            }
            let scale = sums.get(&first).map_or(1.0, |(plays, shown)| plays / shown);
            let mut moved: f64 = 0.0;
            for (cell, (plays, shown)) in sums {
                let new = if shown > 0.0 && scale > 0.0 { plays / shown / scale } else { 1.0 };
                moved = moved.max((new - theta[&cell]).abs());
                theta.insert(cell, new);
            }
            if moved < 1e-12 {
                break;
            }
        }
        let mut plays: BTreeMap<u32, f64> = BTreeMap::new();
        self.seen.iter().for_each(|((_, cell), seen)| *plays.entry(*cell).or_default() += seen.1);
        let factor = |(cell, factor): (u32, f64)| {
            let identified = linked.contains(&cell);
            let error = if identified { factor / plays[&cell].max(1.0).sqrt() } else { f64::INFINITY };
            (cell, Factor { factor: if identified { factor } else { 1.0 }, error, identified })
        };
        theta.into_iter().map(factor).collect()
    }

    fn rates(&self, theta: &BTreeMap<u32, f64>, linked: &[u32]) -> BTreeMap<u32, f64> {
        let mut sums: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        for (&(title, cell), &(shown, plays)) in self.seen.iter().filter(|((_, c), _)| linked.contains(c)) {
            let sum = sums.entry(title).or_default();
            sum.0 += plays;
            sum.1 += shown * theta[&cell];
        }
        let rate = |(title, (plays, shown)): (u32, (f64, f64))| (title, plays / shown.max(1e-300));
        sums.into_iter().map(rate).collect()
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
