//! The take rate of a title, as a discounted Gamma-Poisson model estimates it.
//!
//! Agarwal, Chen and Elango, "Spatio-temporal models for estimating click-through rate", WWW 2009:
//! at each tick α ← δα + P and γ ← δγ + I; given a prior of mean μ that weighs as much as κ
//! impressions, the rate is (κμ + α)/(κ + γ) and its deviation √(κμ + α)/(κ + γ). A tick is an
//! epoch here, so α and γ are functions of the tallies alone and not of when they were looked at.

use serde::{Deserialize, Serialize};

/// Discounted sums: what was played of what was shown.
///
/// ```
/// use uptake_trends::rate::{Evidence, Prior};
/// let mut evidence = Evidence::default();
/// evidence.tick(0.5, 4.0, 100.0);
/// evidence.tick(0.5, 6.0, 100.0);
/// assert_eq!((evidence.plays, evidence.shown), (8.0, 150.0));
/// let estimate = Prior { mean: 0.02, weight: 50.0 }.with(evidence);
/// assert_eq!(estimate.rate, 9.0 / 200.0);
/// assert_eq!(estimate.sd, 3.0 / 200.0);
/// ```
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Evidence {
    /// α: discounted plays.
    pub plays: f64,
    /// γ: discounted impressions (or whatever the exposure is counted in).
    pub shown: f64,
}

impl Evidence {
    /// One tick: α ← δα + P, γ ← δγ + I.
    pub fn tick(&mut self, discount: f64, plays: f64, shown: f64) {
        self.plays = discount * self.plays + plays;
        self.shown = discount * self.shown + shown;
    }

    /// The same some ticks later, or `weight` of it.
    pub fn times(self, weight: f64) -> Self {
        Self { plays: self.plays * weight, shown: self.shown * weight }
    }
}

/// What is expected of a title before anything is seen of it: Gamma(κμ, κ).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Prior {
    /// μ: the expected rate.
    pub mean: f64,
    /// κ: as many impressions as the expectation weighs.
    pub weight: f64,
}

impl Prior {
    /// The estimate from this prior and `evidence`.
    pub fn with(self, evidence: Evidence) -> Estimate {
        let (shape, whole) = (self.weight * self.mean + evidence.plays, self.weight + evidence.shown);
        Estimate { rate: shape / whole, sd: shape.sqrt() / whole, shape, whole }
    }

    /// Which part of that estimate is this prior: κ/(κ + γ).
    pub fn part(self, evidence: Evidence) -> f64 {
        self.weight / (self.weight + evidence.shown)
    }
}

/// A rate and how sure it is; the law of the rate is Gamma(`shape`, `whole`).
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Estimate {
    /// (κμ + α)/(κ + γ).
    pub rate: f64,
    /// √(κμ + α)/(κ + γ).
    pub sd: f64,
    /// κμ + α.
    pub shape: f64,
    /// κ + γ.
    pub whole: f64,
}

impl Estimate {
    /// The rate less `z` deviations, never below 0.
    pub fn lower(&self, z: f64) -> f64 {
        (self.rate - z * self.sd).max(0.0)
    }
}

/// How much is left of a tick's weight after `ticks` ticks of `tick_hours`, if half is left after
/// `half_life_hours`.
pub fn discount(half_life_hours: f64, tick_hours: f64, ticks: i64) -> f64 {
    (-(ticks as f64) * tick_hours / half_life_hours).exp2()
}
