//! What a segment's titles have in common, from the titles themselves (empirical Bayes).
//!
//! For title i with evidence (α, γ) and expected rate mᵢ, where the rate is Gamma(κmᵢ, κ):
//! E α = γmᵢ and Var α = qmᵢ + γ²mᵢ/κ, q being the sum of *squared* discounts times impressions.
//! Summed over titles, κ = Σγ²mᵢ / Σ((α − γmᵢ)² − qmᵢ) (method of moments; Robbins, 1956; Casella,
//! *The American Statistician*, 1985). mᵢ is the estimate of the same title in the parent segment;
//! in the segment of everyone, the mean over all titles.

use crate::rate::{Evidence, Prior};

/// The bounds of κ: below, a prior hardly weighs; above, all titles are alike.
pub const WEIGHT_MIN: f64 = 1e-3;
/// See [`WEIGHT_MIN`].
pub const WEIGHT_MAX: f64 = 1e7;

/// Sums over the titles of a segment.
///
/// ```
/// use uptake_trends::prior::Moments;
/// use uptake_trends::rate::Evidence;
/// let mut moments = Moments::default();
/// for plays in [10.0, 30.0] {
///     moments.add(Evidence { plays, shown: 1000.0 }, 1000.0, 0.02);
/// }
/// // Each title's variance is 20 of Poisson and 1000² × 0.02/κ of the titles; seen was 100.
/// assert_eq!(moments.weight(), Some(20_000.0 / 80.0));
/// ```
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Moments {
    explained: f64,
    excess: f64,
    titles: u64,
}

impl Moments {
    /// Adds a title: its evidence, the impressions weighted by squared discounts, what was expected.
    pub fn add(&mut self, evidence: Evidence, shown_squared: f64, mean: f64) {
        let gap = evidence.plays - evidence.shown * mean;
        self.explained += evidence.shown * evidence.shown * mean;
        self.excess += gap * gap - shown_squared * mean;
        self.titles += 1;
    }

    /// κ; `None` of less than two titles, or if nothing was expected.
    pub fn weight(&self) -> Option<f64> {
        if self.titles < 2 || self.explained <= 0.0 {
            return None;
        }
        // No more variance than Poisson's: all titles are alike as far as one can see.
        let weight = if self.excess > 0.0 { self.explained / self.excess } else { WEIGHT_MAX };
        Some(weight.clamp(WEIGHT_MIN, WEIGHT_MAX))
    }
}

/// The mean rate over titles, each weighted by what κ says it tells: Σwᵢαᵢ/γᵢ / Σwᵢ with
/// wᵢ = γᵢ/(κ + γᵢ), so that a title shown a million times does not speak for all.
pub fn mean_rate(titles: impl Iterator<Item = Evidence>, weight: f64) -> Option<f64> {
    let (mut sum, mut whole) = (0.0, 0.0);
    for title in titles.filter(|title| title.shown > 0.0) {
        sum += title.plays / (weight + title.shown);
        whole += title.shown / (weight + title.shown);
    }
    (whole > 0.0 && sum > 0.0).then(|| sum / whole)
}

/// The prior before a segment has shown anything: a rate of 5 % that weighs 20 impressions.
pub const UNKNOWN: Prior = Prior { mean: 0.05, weight: 20.0 };
