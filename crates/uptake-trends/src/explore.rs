//! Exploration: one or two places of a row go to titles that may be better than is known, drawn by
//! Thompson sampling (Thompson, *Biometrika*, 1933), with the probability of each draw.
//!
//! What was served is recorded with its propensities, so that another scorer can be judged by it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::rate::Estimate;

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

/// Draws a title for a place, in proportion to the chance that it is the best: returns which one,
/// and the probability with which it was to be drawn.
///
/// The probability is counted over [`DRAWS`] draws and the title is then drawn from these very
/// shares, so the propensity is exact for what was done.
///
/// ```
/// use uptake_trends::explore::{Random, thompson};
/// use uptake_trends::rate::{Evidence, Prior};
/// let of = |plays, shown| Prior { mean: 0.05, weight: 20.0 }.with(Evidence { plays, shown });
/// let sure = [of(500.0, 5_000.0), of(100.0, 5_000.0)];
/// let (which, propensity) = thompson(&sure, &mut Random::new(1)).unwrap();
/// assert!(which == 0 && propensity > 0.99);
/// ```
pub fn thompson(candidates: &[Estimate], random: &mut Random) -> Option<(usize, f64)> {
    let mut wins = vec![0u32; candidates.len()];
    for _ in 0..DRAWS {
        let mut best = (f64::NEG_INFINITY, 0);
        for (at, estimate) in candidates.iter().enumerate() {
            let draw = random.gamma(estimate.shape) / estimate.whole;
            if draw > best.0 {
                best = (draw, at);
            }
        }
        *wins.get_mut(best.1)? += 1;
    }
    let mut left = (random.unit() * f64::from(DRAWS)).ceil() as u32;
    for (at, &won) in wins.iter().enumerate() {
        if left <= won {
            return Some((at, f64::from(won) / f64::from(DRAWS)));
        }
        left -= won;
    }
    None
}

/// A row as it was served.
///
/// ```
/// use uptake_trends::explore::{Served, Slot};
/// let slot = Slot { video: "v1".into(), position: 1, propensity: 1.0 };
/// let served = Served {
///     request_id: "7f3a91c04be2d655".into(), row: "loved".into(), segment: "".into(),
///     at_ms: 0, scorer: "1".into(), slots: vec![slot],
/// };
/// let line = serde_json::to_string(&served).unwrap();
/// assert_eq!(serde_json::from_str::<Served>(&line).unwrap(), served);
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Served {
    /// The request: the plays that come of it carry the same id.
    pub request_id: String,
    /// The row's name.
    pub row: String,
    /// The segment.
    pub segment: String,
    /// When, in ms since 1970.
    pub at_ms: i64,
    /// Which scorer chose: [`SCORER`] and whatever the caller adds.
    pub scorer: String,
    /// What stood where.
    pub slots: Vec<Slot>,
}

/// A place of a served row.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Slot {
    /// The title.
    pub video: Arc<str>,
    /// From 1.
    pub position: u32,
    /// The probability with which it was put there; 1 where nothing was drawn.
    pub propensity: f64,
}

/// The version of the formulas; it changes when a ranking can.
pub const SCORER: &str = "1";
