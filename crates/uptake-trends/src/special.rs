//! Special functions: what the estimates need of gamma, normal and negative binomial laws.
//!
//! Checked against SciPy to 1e-9 (`tests/special.rs`). Nothing here allocates.

/// ln Γ(x) for x > 0.
pub fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// The lower regularised incomplete gamma function P(a, x): the chance that a Gamma(a, 1) variable
/// is at most x. Series below a + 1, continued fraction (modified Lentz) above: Press et al.,
/// *Numerical Recipes*, 6.2; DLMF 8.11.4 and 8.9.2.
///
/// ```
/// let p = uptake_trends::special::gamma_p(1.0, 2.0); // an exponential law
/// assert!((p - (1.0 - (-2.0f64).exp())).abs() < 1e-14);
/// ```
pub fn gamma_p(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x < a + 1.0 { lower_series(a, x) } else { 1.0 - upper_fraction(a, x) }
}

/// The upper one, 1 − P(a, x), without cancellation.
pub fn gamma_q(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if x < a + 1.0 { 1.0 - lower_series(a, x) } else { upper_fraction(a, x) }
}

/// More steps than either expansion takes: about √a of them are needed near x = a.
fn steps_max(a: f64) -> usize {
    200 + (8.0 * a.sqrt()) as usize
}

fn lower_series(a: f64, x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (1.0 / a, 1.0 / a, a);
    for _ in 0..steps_max(a) {
        n += 1.0;
        term *= x / n;
        sum += term;
        if term < sum * 1e-17 {
            break;
        }
    }
    sum * (a * x.ln() - x - ln_gamma(a)).exp()
}

fn upper_fraction(a: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / TINY;
    let mut d = 1.0 / b;
    let mut h = d;
    for i in 1..steps_max(a) {
        let i = i as f64;
        let an = -i * (i - a);
        b += 2.0;
        d = 1.0 / or_tiny(an * d + b, TINY);
        c = or_tiny(b + an / c, TINY);
        h *= d * c;
        if (d * c - 1.0).abs() < 1e-16 {
            break;
        }
    }
    h * (a * x.ln() - x - ln_gamma(a)).exp()
}

fn or_tiny(x: f64, tiny: f64) -> f64 {
    if x.abs() < tiny { tiny } else { x }
}

/// The x with P(a, x) = p: Wilson and Hilferty's approximation (1931), then Newton's steps kept
/// inside a bracket.
///
/// ```
/// let median = uptake_trends::special::gamma_quantile(1.0, 0.5);
/// assert!((median - 2.0f64.ln()).abs() < 1e-12);
/// ```
pub fn gamma_quantile(a: f64, p: f64) -> f64 {
    if p <= 0.0 {
        return 0.0;
    }
    let cube = 1.0 - 1.0 / (9.0 * a) + normal_quantile(p) / (3.0 * a.sqrt());
    let small = ((p.ln() + ln_gamma(a + 1.0)) / a).exp();
    let mut x = if a > 0.5 && cube > 0.1 { a * cube * cube * cube } else { small };
    let (mut low, mut high) = (0.0, f64::INFINITY);
    for _ in 0..200 {
        let gap = gamma_p(a, x) - p;
        if gap > 0.0 {
            high = x
        } else {
            low = x
        }
        let density = ((a - 1.0) * x.ln() - x - ln_gamma(a)).exp();
        let mut next = x - gap / density;
        if !(next > low && next < high) {
            next = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * x + 1e-300 };
        }
        if (next - x).abs() <= 1e-14 * x {
            return next;
        }
        x = next;
    }
    x
}

/// Φ(z), the normal law's distribution function.
pub fn normal_cdf(z: f64) -> f64 {
    0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2)
}

/// The z with Φ(z) = p: Newton's steps from a bracket that holds every p a double can say.
pub fn normal_quantile(p: f64) -> f64 {
    if !(p > 0.0 && p < 1.0) {
        return if p <= 0.0 { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    // Halley's method on Φ in the lower tail, from the tail's leading term.
    let t = (-2.0 * p.ln()).sqrt();
    let mut z = if p < 0.2 { -(t - (t.ln() + 0.92) / t) } else { (p - 0.5) * 2.5 };
    for _ in 0..60 {
        let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let step = (normal_cdf(z) - p) / density;
        let step = step / (1.0 + 0.5 * z * step);
        z -= step;
        if step.abs() < 1e-15 * z.abs().max(1.0) {
            break;
        }
    }
    z
}

/// ln P(n) where n is Poisson with a mean `exposure` × λ and λ is Gamma(`shape`, `rate`): a negative
/// binomial law. It is what one expects of the next tick before seeing it.
///
/// ```
/// // Much is known of λ = 2: the law is Poisson's, and P(0) = e⁻².
/// let ln_p = uptake_trends::special::neg_binomial_ln(0.0, 1.0, 2e9, 1e9);
/// assert!((ln_p + 2.0).abs() < 1e-6);
/// ```
pub fn neg_binomial_ln(n: f64, exposure: f64, shape: f64, rate: f64) -> f64 {
    if exposure <= 0.0 {
        return if n <= 0.0 { 0.0 } else { f64::NEG_INFINITY };
    }
    let whole = rate + exposure;
    let coefficient = if n <= 0.0 { 0.0 } else { ln_gamma(shape + n) - ln_gamma(shape) - ln_gamma(n + 1.0) };
    coefficient - shape * (exposure / rate).ln_1p() + n * (exposure / whole).ln()
}
