//! Exploration: one or two places of a row go to titles that may be better than is known, drawn by
//! Thompson sampling (Thompson, *Biometrika*, 1933), with the probability of each draw.
//!
//! What is served is recorded with these, so that another scorer can be judged by it.

use std::sync::Arc;

use crate::rate::Estimate;
use crate::trends::Trends;

/// From how many titles a place is drawn; all of them are logged with every draw.
pub const CANDIDATES_MAX: usize = 10;

/// How many deviations above its rate a title may hope for.
pub const HOPE: f64 = 1.0;

/// The titles of a segment whose rate may be the highest as far as is known, by rate + [`HOPE`]·sd, without
/// those that are thought to be pushed.
pub fn hopeful(trends: &Trends, segment: &str, most: usize) -> Vec<(Arc<str>, Estimate)> {
    let ranked = trends.ranked(segment, |numbers| numbers.estimate.rate + HOPE * numbers.estimate.sd);
    let ranked = ranked.into_iter().map(|(_, numbers)| numbers).filter(|numbers| numbers.suspicion.is_none());
    ranked.take(most).map(|numbers| (numbers.video, numbers.estimate)).collect()
}

/// Random numbers that are the same everywhere: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0, exclusive, to 1.
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 1.0) * (1.0 / (1u64 << 53) as f64)
    }

    /// Normal, mean 0 and deviation 1 (Box and Muller).
    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Gamma of this shape, rate 1 (Marsaglia and Tsang, *ACM TOMS*, 2000).
    pub fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            return self.gamma(shape + 1.0) * self.unit().powf(1.0 / shape);
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.unit().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

/// How many draws a propensity is counted from: its error is at most ±0.016.
pub const DRAWS: u32 = 1000;

/// The chance of each candidate to be the best, counted over [`DRAWS`] draws of all their rates.
///
/// A title is to be drawn from these very shares, so its share is its propensity, exactly.
///
/// ```
/// use uptake_trends::explore::{Random, draw, shares};
/// use uptake_trends::rate::{Evidence, Prior};
/// let of = |plays, shown| Prior { mean: 0.05, weight: 20.0 }.with(Evidence { plays, shown });
/// let shares = shares(&[of(500.0, 5_000.0), of(100.0, 5_000.0)], &mut Random::new(1));
/// assert!(shares[0] > 0.99);
/// assert_eq!(draw(&shares, 0.5), Some(0));
/// ```
pub fn shares(candidates: &[Estimate], random: &mut Random) -> Vec<f64> {
    let mut wins = vec![0u32; candidates.len()];
    if candidates.is_empty() {
        return Vec::new();
    }
    for _ in 0..DRAWS {
        let mut best = (f64::NEG_INFINITY, 0);
        for (at, estimate) in candidates.iter().enumerate() {
            let draw = random.gamma(estimate.shape) / estimate.whole;
            if draw > best.0 {
                best = (draw, at);
            }
        }
        wins[best.1] += 1;
    }
    wins.into_iter().map(|won| f64::from(won) / f64::from(DRAWS)).collect()
}

/// Draws one in proportion to its share, by a number from 0, exclusive, to 1; `None` if all are 0.
pub fn draw(shares: &[f64], unit: f64) -> Option<usize> {
    let whole: f64 = shares.iter().sum();
    let mut left = unit * whole;
    let mut last = None;
    for (at, share) in shares.iter().enumerate().filter(|(_, share)| **share > 0.0) {
        last = Some(at);
        if left <= *share {
            break;
        }
        left -= share;
    }
    last
}
