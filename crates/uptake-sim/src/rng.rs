//! Random numbers that are the same on every machine and in every release.

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): one addition and a mixing function, which is
/// good enough for people who do not exist, and cannot change under us as a library's can.
///
/// ```
/// use uptake_sim::Rng;
/// assert_eq!(Rng::new(0).next_u64(), 0xe220_a839_7b1d_cdaf); // the published first value
/// ```
#[derive(Clone, Debug)]
pub struct Rng(u64);

/// The golden ratio as a fraction of 2⁶⁴: the step between two states.
pub(crate) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's mixing function: each number goes to another one, and none is hit twice.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

impl Rng {
    /// The sequence that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A sequence of its own for a purpose: the same seed and purpose give the same one.
    pub(crate) fn of(seed: u64, purpose: u64) -> Self {
        Self(mix(seed ^ mix(purpose)))
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// From 0 to less than 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// From 0 to less than `n`.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        (((self.next_u64() >> 32) * u64::from(n)) >> 32) as u32
    }

    /// From `least` to less than `most`.
    pub(crate) fn between(&mut self, least: i64, most: i64) -> i64 {
        least + (self.unit() * (most - least) as f64) as i64
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// About normal, mean 0 and deviation 1: the sum of twelve uniform numbers. It needs no
    /// logarithm, whose last digit differs between platforms, and ends at ±6.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// About log-normal.
    pub(crate) fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        median * exp(sigma * self.normal())
    }
}

/// e^x for |x| up to some tens, from additions and multiplications only.
fn exp(x: f64) -> f64 {
    let x = x / 64.0;
    let mut series = 1.0;
    for n in (1..=8).rev() {
        series = 1.0 + x * series / f64::from(n);
    }
    for _ in 0..6 {
        series *= series;
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_many_digits() {
        for x in [-9.0f64, -1.0, 0.0, 0.5, 3.0, 9.0] {
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-9, "{x}");
        }
    }

    #[test]
    fn numbers_are_spread_as_they_should_be() {
        let mut rng = Rng::new(1);
        let n = 100_000;
        let normal: Vec<f64> = (0..n).map(|_| rng.normal()).collect();
        let mean = normal.iter().sum::<f64>() / f64::from(n);
        let variance = normal.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / f64::from(n);
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        let mut counts = [0u32; 7];
        (0..n).for_each(|_| counts[rng.below(7) as usize] += 1);
        assert!(counts.iter().all(|c| c.abs_diff(n as u32 / 7) < 500), "{counts:?}");
    }
}
