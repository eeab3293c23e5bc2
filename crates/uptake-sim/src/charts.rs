//! Rows as others would make them: by plays of the last day, ranked again daily, every half hour, or always.

use crate::season::Season;
use crate::world::{HOUR, MINUTE};

const SLOT: i64 = 30 * MINUTE;
const SLOTS: usize = 48;

/// When a chart is ranked again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reranked {
    /// At midnight UTC.
    Daily,
    /// At each full and half hour.
    HalfHourly,
    /// Whenever somebody looks.
    Live,
}

impl Reranked {
    /// All of them, the slowest first.
    pub const ALL: [Self; 3] = [Self::Daily, Self::HalfHourly, Self::Live];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::HalfHourly => "half-hourly",
            Self::Live => "live",
        }
    }
}

/// Plays of the last 24 hours by title, and the charts made of them.
///
/// ```
/// use uptake_sim::{Charts, Reranked};
/// let mut charts = Charts::new(0);
/// charts.played(7, 1_000);
/// assert_eq!(charts.first(Reranked::Live, 1), [7]);
/// assert_ne!(charts.first(Reranked::HalfHourly, 1), [7], "not before the half hour is over");
/// charts.advance(30 * 60_000);
/// assert_eq!(charts.first(Reranked::HalfHourly, 1), [7]);
/// ```
#[derive(Clone, Debug)]
pub struct Charts {
    /// By title, plays of each half hour of a day, that of the newest at `slot % SLOTS`.
    plays: Vec<[u32; SLOTS]>,
    slot: i64,
    half_hourly: Vec<u16>,
    daily: Vec<u16>,
}

impl Charts {
    /// Nothing was played before `at_ms`.
    pub fn new(at_ms: i64) -> Self {
        let titles = Season::real().shows().len();
        let order: Vec<u16> = (0..titles as u16).collect();
        Self {
            plays: vec![[0; SLOTS]; titles],
            slot: at_ms.div_euclid(SLOT),
            half_hourly: order.clone(),
            daily: order,
        }
    }

    /// A title was played; what is older than a day counts no more.
    pub fn played(&mut self, show: u16, at_ms: i64) {
        self.advance(at_ms);
        let slot = at_ms.div_euclid(SLOT);
        if slot > self.slot - SLOTS as i64 {
            self.plays[usize::from(show)][slot.rem_euclid(SLOTS as i64) as usize] += 1;
        }
    }

    /// Lets time pass.
    pub fn advance(&mut self, at_ms: i64) {
        let now = at_ms.div_euclid(SLOT);
        while self.slot < now {
            self.half_hourly = self.ranked();
            self.slot += 1;
            if self.slot.rem_euclid(24 * HOUR / SLOT) == 0 {
                self.daily.clone_from(&self.half_hourly);
            }
            let at = self.slot.rem_euclid(SLOTS as i64) as usize;
            self.plays.iter_mut().for_each(|plays| plays[at] = 0);
        }
    }

    fn ranked(&self) -> Vec<u16> {
        let mut order: Vec<u16> = (0..self.plays.len() as u16).collect();
        order
            .sort_by_cached_key(|show| std::cmp::Reverse(self.plays[usize::from(*show)].iter().sum::<u32>()));
        order
    }

    /// The first titles of a chart.
    pub fn first(&self, chart: Reranked, titles: usize) -> Vec<u16> {
        let mut order = match chart {
            Reranked::Daily => self.daily.clone(),
            Reranked::HalfHourly => self.half_hourly.clone(),
            Reranked::Live => self.ranked(),
        };
        order.truncate(titles);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charts_are_ranked_when_they_say_and_forget_after_a_day() {
        let mut charts = Charts::new(0);
        let first = |charts: &Charts| Reranked::ALL.map(|chart| charts.first(chart, 1)[0]);
        (0..9).for_each(|_| charts.played(4, 10 * MINUTE));
        assert_eq!(first(&charts), [0, 0, 4]);
        charts.advance(HOUR);
        assert_eq!(first(&charts), [0, 4, 4]);
        (0..5).for_each(|_| charts.played(9, 20 * HOUR));
        charts.advance(24 * HOUR);
        assert_eq!(first(&charts), [4, 4, 9], "those of the first half hour are a day old");
        charts.advance(25 * HOUR);
        assert_eq!(first(&charts), [4, 9, 9]);
    }
}
