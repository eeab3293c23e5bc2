//! How long the past is remembered: a few half-lives in parallel, weighted by how well each
//! foretold what came next.
//!
//! Before a tick is added, each half-life says how likely its plays are (negative binomial, given
//! the tick's impressions). The logarithms are summed with forgetting, and the weights are their
//! exponentials: dynamic model averaging (Raftery, Kárný and Ettler, *Technometrics*, 2010). The
//! segment has a mean over its titles, and each title a sum of its own, so that one can be in a hurry when
//! the others are not.

use serde::{Deserialize, Serialize};

/// How many half-lives run in parallel.
pub const MEMORIES: usize = 4;

/// How much of its titles' log scores a segment keeps from epoch to epoch: half after 35.
pub const SEGMENT_FORGETTING: f64 = 0.98;

/// How much of it a title keeps: half after 3.
pub const TITLE_FORGETTING: f64 = 0.8;

/// A segment's score is the mean per title times this many: the weight its habit has against what a
/// title itself shows.
pub const SEGMENT_STRENGTH: f64 = 20.0;

/// As many titles of an epoch weighs it that no half-life is better than another: a few titles make no habit.
pub const SEGMENT_PSEUDO: f64 = 50.0;

/// Sums of log scores, one per half-life.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Scores(pub [f32; MEMORIES]);

impl Scores {
    /// One tick: what was before is forgotten a little, then the tick's log scores are added.
    pub fn tick(&mut self, forgetting: f64, ln_scores: [f64; MEMORIES]) {
        for (sum, score) in self.0.iter_mut().zip(ln_scores) {
            // A score of −∞ would end a half-life for good.
            *sum = (f64::from(*sum) * forgetting + score.max(-50.0)) as f32;
        }
    }
}

/// What a segment's titles have shown in common: the log scores of all of them, epoch by epoch.
///
/// ```
/// use uptake_trends::memory::Habit;
/// let mut habit = Habit::default();
/// habit.tick([0.0, -50.0, -100.0, -150.0], 50); // of 50 titles in one epoch
/// assert_eq!(habit.scores().0, [0.0, -10.0, -20.0, -30.0], "20 times the mean, drawn to 0 by as many");
/// ```
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Habit {
    sums: [f64; MEMORIES],
    titles: f64,
}

impl Habit {
    /// A finished epoch: the sums of its titles' log scores, and how many titles they are of.
    pub fn tick(&mut self, ln_scores: [f64; MEMORIES], titles: u64) {
        for (sum, score) in self.sums.iter_mut().zip(ln_scores) {
            *sum = *sum * SEGMENT_FORGETTING + score;
        }
        self.titles = self.titles * SEGMENT_FORGETTING + titles as f64;
    }

    /// The segment's part of the weights: the mean per title, times [`SEGMENT_STRENGTH`].
    pub fn scores(&self) -> Scores {
        Scores(self.sums.map(|sum| (SEGMENT_STRENGTH * sum / (self.titles + SEGMENT_PSEUDO)) as f32))
    }
}

/// Weights that sum to 1, from the scores of a segment and of a title.
///
/// ```
/// use uptake_trends::memory::{Scores, weights};
/// let even = weights(Scores::default(), Scores::default());
/// assert_eq!(even, [0.25; 4]);
/// let mut title = Scores::default();
/// title.tick(0.8, [-1.0, -3.0, -5.0, -9.0]); // the shortest memory foretold it best
/// assert!(weights(Scores::default(), title)[0] > 0.8);
/// ```
pub fn weights(segment: Scores, title: Scores) -> [f64; MEMORIES] {
    let sums: [f64; MEMORIES] = std::array::from_fn(|j| f64::from(segment.0[j]) + f64::from(title.0[j]));
    let best = sums.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let raw = sums.map(|sum| (sum - best).exp());
    let whole: f64 = raw.iter().sum();
    raw.map(|weight| weight / whole)
}
