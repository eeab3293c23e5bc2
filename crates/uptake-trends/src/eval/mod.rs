//! Evaluation without an experiment: what another scorer would have brought, from a log.
//!
//! [`offpolicy`] judges a policy by what another one served, with its propensities; [`progressive`]
//! ranks with the past only and scores on what comes next, for logs without propensities;
//! [`served`] makes samples for the former from rows that were served. [`nab`] scores detections of labelled bursts.

pub mod nab;
pub mod offpolicy;
pub mod progressive;
pub mod served;

/// The lower bound of Wilson's interval of a rate (*JASA*, 1927).
///
/// ```
/// let bound = uptake_trends::eval::wilson_lower(10.0, 100.0, 1.959963984540054);
/// assert!((bound - 0.05522914).abs() < 1e-8);
/// ```
pub fn wilson_lower(plays: f64, shown: f64, z: f64) -> f64 {
    if shown <= 0.0 {
        return 0.0;
    }
    let (rate, square) = ((plays / shown).min(1.0), z * z);
    let middle = rate + square / (2.0 * shown);
    let width = z * (rate * (1.0 - rate) / shown + square / (4.0 * shown * shown)).sqrt();
    ((middle - width) / (1.0 + square / shown)).max(0.0)
}
