//! Off-policy estimates: replay, IPS, SNIPS, direct method, doubly robust.
//!
//! For a slot n: wₙ = min(πe/πb, clip), rₙ its reward, q̂ the predicted reward of each candidate,
//! q̂e = Σ πe(a) q̂(a), q̂ₙ that of the title shown.
//!
//! - replay: the mean of rₙ where the policy would have put the same title there (Li, Chu, Langford,
//!   Wang, WSDM 2011; unbiased if what was logged was drawn uniformly);
//! - IPS: mean of wₙrₙ (Horvitz and Thompson, *JASA*, 1952);
//! - SNIPS: Σwₙrₙ / Σwₙ (Swaminathan and Joachims, NIPS 2015);
//! - DM: mean of q̂e;
//! - DR: mean of q̂e + wₙ(rₙ − q̂ₙ) (Dudík, Langford, Li, ICML 2011).
//!
//! Intervals are normal ones from the spread of the terms (for SNIPS, of its linearisation). The
//! effective sample size is (Σw)²/Σw² (Kish, 1965). Where no weight is above 0 nothing that was logged speaks of the
//! policy, so IPS, SNIPS and DR say nothing.

use serde::{Deserialize, Serialize};

use crate::special::normal_quantile;

/// A logged slot, as the policy that is judged sees it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// What came of it: 1 for a play.
    pub reward: f64,
    /// The probability with which what was shown was shown.
    pub behaviour: f64,
    /// The probability with which the judged policy shows the same there.
    pub target: f64,
    /// The predicted reward of what was shown.
    #[serde(default)]
    pub predicted: f64,
    /// The predicted reward of what the judged policy shows: its mean over the policy.
    #[serde(default)]
    pub predicted_target: f64,
}

/// An estimate with its interval.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Value {
    /// The estimated reward per slot.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
    /// The interval.
    pub low: f64,
    /// See `low`.
    pub high: f64,
}

/// All estimates of one policy.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Slots.
    pub samples: usize,
    /// Slots that replay can use.
    pub matched: usize,
    /// (Σw)²/Σw².
    pub effective: f64,
    /// The largest weight before clipping.
    pub weight_max: f64,
    /// The reward of what was logged.
    pub logged: Value,
    /// Replay.
    pub replay: Option<Value>,
    /// Inverse propensity scores.
    pub ips: Option<Value>,
    /// Self-normalised ones.
    pub snips: Option<Value>,
    /// The direct method.
    pub dm: Value,
    /// Doubly robust.
    pub dr: Option<Value>,
}

/// Judges a policy; `None` without samples. `clip` bounds the weights, `confidence` is that of the
/// intervals.
///
/// ```
/// use uptake_trends::eval::offpolicy::{Sample, evaluate};
/// let s = |reward, behaviour, target| Sample { reward, behaviour, target, predicted: 0.0, predicted_target: 0.0 };
/// let log = [s(1.0, 0.5, 1.0), s(0.0, 0.5, 0.0), s(0.0, 0.5, 1.0), s(1.0, 0.5, 0.0)];
/// let report = evaluate(&log, f64::INFINITY, 0.95).unwrap();
/// assert_eq!((report.ips.unwrap().value, report.snips.unwrap().value, report.effective), (0.5, 0.5, 2.0));
/// assert_eq!(report.replay.unwrap().value, 0.5);
/// let never = evaluate(&[s(1.0, 0.5, 0.0)], f64::INFINITY, 0.95).unwrap();
/// assert!(never.ips.is_none() && never.snips.is_none() && never.dr.is_none());
/// ```
pub fn evaluate(samples: &[Sample], clip: f64, confidence: f64) -> Option<Report> {
    if samples.is_empty() {
        return None;
    }
    let z = normal_quantile(0.5 + confidence / 2.0);
    let mean_of = |terms: &[f64]| value(terms, z);
    let weights: Vec<f64> = samples.iter().map(|s| (s.target / s.behaviour).min(clip)).collect();
    let of = |term: &dyn Fn(&Sample, f64) -> f64| -> Vec<f64> {
        samples.iter().zip(&weights).map(|(sample, weight)| term(sample, *weight)).collect()
    };
    let (sum, squares) = weights.iter().fold((0.0, 0.0), |(a, b), w| (a + w, b + w * w));
    let ips = mean_of(&of(&|s, w| w * s.reward));
    let mean_weight = sum / samples.len() as f64;
    let ratio = ips.value / mean_weight;
    let linear = mean_of(&of(&|s, w| w * (s.reward - ratio) / mean_weight));
    let snips = Value {
        value: ratio,
        error: linear.error,
        low: ratio - z * linear.error,
        high: ratio + z * linear.error,
    };
    let matched: Vec<f64> = samples.iter().filter(|s| s.target > 0.5).map(|s| s.reward).collect();
    Some(Report {
        samples: samples.len(),
        matched: matched.len(),
        effective: if squares > 0.0 { sum * sum / squares } else { 0.0 },
        weight_max: samples.iter().map(|s| s.target / s.behaviour).fold(0.0, f64::max),
        logged: mean_of(&of(&|s, _| s.reward)),
        replay: (!matched.is_empty()).then(|| mean_of(&matched)),
        ips: (sum > 0.0).then_some(ips),
        snips: (sum > 0.0).then_some(snips),
        dm: mean_of(&of(&|s, _| s.predicted_target)),
        dr: (sum > 0.0).then(|| mean_of(&of(&|s, w| s.predicted_target + w * (s.reward - s.predicted)))),
    })
}

fn value(terms: &[f64], z: f64) -> Value {
    let n = terms.len() as f64;
    let mean = terms.iter().sum::<f64>() / n;
    let spread = terms.iter().map(|term| (term - mean) * (term - mean)).sum::<f64>();
    let error = if n > 1.0 { (spread / (n - 1.0) / n).sqrt() } else { f64::INFINITY };
    Value { value: mean, error, low: mean - z * error, high: mean + z * error }
}
