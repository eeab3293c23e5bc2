//! Random choices, all from one seed.

use uptake_sim::Rng;

/// Where all choices of one purpose come from.
#[derive(Clone, Debug)]
pub(crate) struct Dice(Rng);

impl Dice {
    /// The choices of a purpose: those of another purpose do not move them.
    pub(crate) fn of(seed: u64, purpose: u64) -> Self {
        Self(Rng::new(Rng::new(seed).next_u64() ^ Rng::new(!purpose).next_u64()))
    }

    /// From 0 to less than `n`, which is not 0.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// From `least` to `most`, both included.
    pub(crate) fn within(&mut self, least: i64, most: i64) -> i64 {
        least + self.below((most - least + 1) as u64) as i64
    }

    /// True once in `n` times on average; never if `n` is 0.
    pub(crate) fn once_in(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == 0
    }

    /// True with a probability in percent.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}
