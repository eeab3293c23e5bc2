//! The special functions against SciPy; `tests/fixtures/special.py` makes the values.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use serde_json::Value;
use uptake_trends::lift::ln_mixture;
use uptake_trends::special::{gamma_p, gamma_q, gamma_quantile, neg_binomial_ln, normal_quantile};

fn check(name: &str, of: impl Fn(&[f64]) -> f64, arguments: usize, at: usize) {
    let all: Value = serde_json::from_str(include_str!("fixtures/special.json")).unwrap();
    let rows = all[name].as_array().unwrap();
    assert!(rows.len() >= 5, "{name}");
    for row in rows {
        let row: Vec<f64> = row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
        let (ours, theirs) = (of(&row[..arguments]), row[at]);
        let apart = (ours - theirs).abs() / theirs.abs().max(1e-3);
        assert!(apart < 1e-9, "{name}{row:?}: {ours} is not {theirs}, {apart:e} apart");
    }
}

#[test]
fn scipy_says_the_same() {
    check("gamma", |x| gamma_p(x[0], x[1]), 2, 2);
    check("gamma", |x| gamma_q(x[0], x[1]), 2, 3);
    check("gamma_quantile", |x| gamma_quantile(x[0], x[1]), 2, 2);
    check("normal_quantile", |x| normal_quantile(x[0]), 1, 1);
    check("neg_binomial", |x| neg_binomial_ln(x[0], x[1], x[2], x[3]), 4, 4);
    check("ln_mixture", |x| ln_mixture(x[0], x[1]), 2, 2);
}
