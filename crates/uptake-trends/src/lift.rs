//! Lift: how much more is played than was to be expected, and whether that can be chance.
//!
//! The number is (P + a)/(e + a), with e = I·r·f; its lower bound is the quantile of the
//! Gamma(P + a, e + a) law. The question whether a title *rises* is not answered by looking at it
//! again and again until it looks large, but by an e-process: Robbins' mixture (*Annals of
//! Mathematical Statistics*, 1970) over lifts beyond 1, which stays below 1/level for ever with
//! probability 1 − level however often one looks.

use crate::special::{gamma_q, gamma_quantile, ln_gamma};

/// (P + a)/(e + a).
///
/// ```
/// use uptake_trends::lift::{lift, lift_lower};
/// assert_eq!(lift(28.0, 8.0, 2.0), 3.0);
/// assert!(lift_lower(28.0, 8.0, 2.0, 0.05) > 2.0 && lift_lower(4.0, 1.0, 2.0, 0.05) < 1.0);
/// ```
pub fn lift(plays: f64, expected: f64, pseudo: f64) -> f64 {
    (plays + pseudo) / (expected + pseudo)
}

/// What the lift is surely beyond, but for `chance`: the quantile of Gamma(P + a, e + a).
pub fn lift_lower(plays: f64, expected: f64, pseudo: f64, chance: f64) -> f64 {
    gamma_quantile(plays + pseudo, chance) / (expected + pseudo)
}

/// The shape of the mixture over lifts: Gamma(½, ½) beyond 1, wide enough for ×1.2 and for ×50.
pub const MIXTURE: f64 = 0.5;

/// ln of the mixture martingale after `plays` where `expected` were expected if nothing happened:
/// ∫₁^∞ λ^S e^(−(λ−1)E) dG(λ), G = Gamma(a, a) cut at 1,
/// = a^a Γ(a+S)/Γ(a) · (a+E)^−(a+S) · e^E · Q(a+S, a+E)/Q(a, a).
///
/// Under Poisson plays with mean at most `expected` it is a supermartingale that begins at 1.
///
/// ```
/// use uptake_trends::lift::ln_mixture;
/// assert!(ln_mixture(0.0, 0.0).abs() < 1e-12);
/// assert!(ln_mixture(10.0, 10.0) < 0.0 && ln_mixture(40.0, 10.0) > 20.0);
/// ```
pub fn ln_mixture(plays: f64, expected: f64) -> f64 {
    let (a, shape, whole) = (MIXTURE, MIXTURE + plays, MIXTURE + expected);
    let closed = a * a.ln() + ln_gamma(shape) - ln_gamma(a) - shape * whole.ln() + expected;
    closed + (gamma_q(shape, whole) / gamma_q(a, a)).max(f64::MIN_POSITIVE).ln()
}

/// A test that goes on. It begins anew whenever it has found less than nothing, so that a quiet
/// year does not hide tomorrow's burst. Each beginning ends in a false alarm with a probability of
/// at most the level, and takes at least an epoch: a title at rest raises one at most every 1/level
/// epochs on average.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Rising {
    plays: f64,
    expected: f64,
    ln_evidence: f64,
    /// Since how many epochs it has been rising; 0 if it is not.
    pub epochs: u32,
    /// Whether the evidence passed the level and the rise goes on.
    pub flagged: bool,
}

/// When a rise is believed, and when it is over.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Level {
    /// ln(1/level).
    pub ln_threshold: f64,
    /// The lift that is nothing yet: the test asks for more than this.
    pub lift_min: f64,
    /// A flagged title whose last whole epoch's lift is below this has come to rest.
    pub lift_end: f64,
}

impl Rising {
    /// Takes an epoch, or what there is of it: its plays, the plays that were expected, and k: how
    /// evenly a title at rest is played (1/k is the variance of its rate from epoch to epoch, relative
    /// to the mean's square). Only an epoch that `is_over` can end a rise: of one that has just begun the
    /// plays of what was shown are still to come.
    ///
    /// Counts that vary more than Poisson's are tempered: both are multiplied by η = 1/(1 + e/k).
    /// For Poisson counts the process stays a supermartingale (λ^η ≤ 1 + η(λ−1)); for negative
    /// binomial ones of shape k it is one to second order in λ − 1.
    pub fn step(&mut self, plays: f64, expected: f64, evenness: f64, is_over: bool, level: &Level) {
        let null = expected * level.lift_min;
        let temper = 1.0 / (1.0 + null / evenness);
        let before = *self;
        self.plays += plays * temper;
        self.expected += null * temper;
        // Most titles most of the time have less than was expected: no special function for them.
        self.ln_evidence = match self.plays <= self.expected && !self.flagged {
            true => -1.0,
            false => ln_mixture(self.plays, self.expected),
        };
        self.epochs += 1;
        self.flagged |= self.ln_evidence >= level.ln_threshold;
        let at_rest = is_over && expected > 0.0 && lift(plays, expected, 1.0) < level.lift_end;
        if before.flagged && at_rest || !self.flagged && self.ln_evidence < 0.0 {
            *self = Self::default();
        }
    }

    /// ln of the evidence that it rises; it is flagged at ln(1/level).
    pub fn ln_evidence(&self) -> f64 {
        self.ln_evidence
    }
}
