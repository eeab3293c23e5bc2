//! The world the audience lives in: countries, hours of the day, and what happens to titles.

use crate::rng::Rng;
use crate::titles::{Title, titles};

pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;

/// A country, its share of the members in percent, and the difference of its clocks in minutes.
pub(crate) struct Country {
    pub(crate) code: &'static str,
    pub(crate) share: u32,
    offset_minutes: i64,
}

const fn country(code: &'static str, share: u32, offset_minutes: i64) -> Country {
    Country { code, share, offset_minutes }
}

pub(crate) const COUNTRIES: [Country; 10] = [
    country("US", 38, -300),
    country("GB", 12, 0),
    country("BR", 10, -180),
    country("DE", 9, 60),
    country("FR", 8, 60),
    country("MX", 6, -360),
    country("IN", 6, 330),
    country("NG", 4, 60),
    country("JP", 4, 540),
    country("AU", 3, 600),
];

pub(crate) const DEVICES: [(&str, u32); 4] = [("tv", 44), ("phone", 31), ("web", 17), ("tablet", 8)];

/// How many people watch at each full hour of local time; about 1 on average over the day.
const DAY: [f64; 24] = [
    0.9, 0.55, 0.35, 0.22, 0.18, 0.2, 0.3, 0.45, 0.6, 0.7, 0.75, 0.85, 0.95, 1.0, 1.0, 1.05, 1.15, 1.35, 1.6,
    1.9, 2.15, 2.15, 1.8, 1.35,
];

impl Country {
    /// The hour of the day there, with its fraction.
    pub(crate) fn hour(&self, at_ms: i64) -> f64 {
        (at_ms + self.offset_minutes * MINUTE).rem_euclid(24 * HOUR) as f64 / HOUR as f64
    }

    /// How lively it is there, about 1 on average over the day.
    pub(crate) fn rhythm(&self, at_ms: i64) -> f64 {
        let hour = self.hour(at_ms);
        let (from, part) = (hour as usize % 24, hour - (hour as usize) as f64);
        DAY[from] * (1.0 - part) + DAY[(from + 1) % 24] * part
    }
}

/// How much more than usual a film is liked at an hour of the day.
pub(crate) fn taste(genres: &str, hour: f64) -> f64 {
    let near = |peak: f64, width: f64| {
        let apart = (hour - peak).abs();
        (1.0 - apart.min(24.0 - apart) / width).max(0.0)
    };
    let of = |names: &[&str]| names.iter().any(|name| genres.contains(name));
    if of(&["Animated", "Family"]) {
        0.6 + 1.4 * near(16.5, 5.0)
    } else if of(&["Horror", "Thriller", "Noir"]) {
        0.6 + 1.2 * near(23.0, 5.0)
    } else if of(&["Comedy", "Romance", "Musical"]) {
        0.8 + 0.6 * near(20.0, 5.0)
    } else {
        1.0
    }
}

/// Something that changes the interest in a title for some hours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Happening {
    /// Which title: its place in [`crate::titles`].
    pub title: usize,
    /// What is said to have happened, as in "wins on the awards night". It is invented.
    pub what: &'static str,
    /// Whether the title is shown for the first time.
    pub is_premiere: bool,
    /// When it begins, in milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// When all is as before.
    pub until_ms: i64,
}

/// How much a happening raises the interest in its title.
const BURST: f64 = 5.0;
/// How long the interest rises, and falls.
const RISE: i64 = 12 * MINUTE;
const FALL: i64 = 40 * MINUTE;

impl Happening {
    /// By what the interest in its title is multiplied.
    fn interest(&self, at_ms: i64) -> f64 {
        let rising = (at_ms - self.from_ms) as f64 / RISE as f64;
        let falling = (self.until_ms - at_ms) as f64 / FALL as f64;
        let most = if self.is_premiere { 3.0 } else { BURST };
        1.0 + (most - 1.0) * rising.min(falling).clamp(0.0, 1.0)
    }
}

const CAUSES: [&str; 6] = [
    "a scene of it is shared everywhere",
    "its theme is in the news",
    "a restored copy comes out",
    "a talk show speaks of it",
    "its song is number one",
    "a quiz asks about it",
];
const AWARDS: &str = "wins on the awards night";
const PREMIERE: &str = "is new in the catalogue";

/// The first happening comes after this much time, the others follow at about this distance.
const FIRST: i64 = 50 * MINUTE;
const BETWEEN: i64 = 80 * MINUTE;

/// All titles with their fates.
pub(crate) struct World {
    rng: Rng,
    pub(crate) titles: &'static [Title],
    /// By title: how much of the page it gets by itself.
    weight: Vec<f64>,
    /// By title: the chance that somebody who sees it plays it.
    pub(crate) take_rate: Vec<f64>,
    /// By title: from when on it is shown.
    shown_from: Vec<i64>,
    /// Begun or to come, in order; made as time goes on.
    happenings: Vec<Happening>,
    next_ms: i64,
    next_number: usize,
    /// Titles that are to come.
    to_come: Vec<usize>,
}

impl World {
    pub(crate) fn new(seed: u64, count: usize, start_ms: i64) -> Self {
        let titles = &titles()[..count];
        let mut rng = Rng::of(seed, 0x0077_6f72_6c64);
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, rng.below(i as u32 + 1) as usize);
        }
        let mut weight = vec![0.0; count];
        for (rank, &title) in order.iter().enumerate() {
            weight[title] = 1.0 / (rank as f64 + 12.0);
        }
        let take_rate = (0..count).map(|_| rng.log_normal(0.035, 0.5).min(0.15)).collect();
        let mut shown_from = vec![i64::MIN; count];
        let to_come: Vec<usize> = order.iter().skip(5).step_by(14).take(count / 15).copied().collect();
        to_come.iter().for_each(|&title| shown_from[title] = i64::MAX);
        Self {
            rng,
            titles,
            weight,
            take_rate,
            shown_from,
            happenings: Vec::new(),
            next_ms: start_ms + FIRST,
            next_number: 0,
            to_come,
        }
    }

    /// What is under way at `at_ms`, which must not go back.
    pub(crate) fn happening(&self, at_ms: i64) -> impl Iterator<Item = &Happening> {
        self.happenings.iter().filter(move |h| h.from_ms <= at_ms && at_ms < h.until_ms)
    }

    /// Lets time pass: things begin and are forgotten.
    pub(crate) fn advance(&mut self, at_ms: i64) {
        while self.next_ms <= at_ms {
            let from_ms = self.next_ms;
            self.begin(from_ms);
            self.next_ms = from_ms + self.rng.between(BETWEEN / 2, BETWEEN * 3 / 2);
            self.next_number += 1;
        }
        self.happenings.retain(|h| h.until_ms > at_ms);
    }

    fn begin(&mut self, from_ms: i64) {
        let until_ms = from_ms + self.rng.between(2 * HOUR, 4 * HOUR);
        let happening = |title, what| Happening { title, what, is_premiere: false, from_ms, until_ms };
        match self.next_number % 4 {
            1 if !self.to_come.is_empty() => {
                let title = self.to_come.swap_remove(self.rng.below(self.to_come.len() as u32) as usize);
                self.shown_from[title] = from_ms;
                self.happenings.push(Happening { is_premiere: true, ..happening(title, PREMIERE) });
            }
            2 => {
                for _ in 0..3 {
                    let title = self.quiet_title();
                    self.happenings.push(happening(title, AWARDS));
                }
            }
            _ => {
                let title = self.quiet_title();
                let what = CAUSES[self.rng.below(CAUSES.len() as u32) as usize];
                self.happenings.push(happening(title, what));
            }
        }
    }

    /// A title that is shown and of which nobody speaks yet.
    fn quiet_title(&mut self) -> usize {
        let mut title = 0;
        for _ in 0..32 {
            title = self.rng.below(self.titles.len() as u32) as usize;
            let taken = self.happenings.iter().any(|h| h.title == title);
            if !taken && self.shown_from[title] == i64::MIN {
                break;
            }
        }
        title
    }

    /// By what the interest in each title is multiplied.
    pub(crate) fn interest(&self, at_ms: i64) -> Vec<f64> {
        let mut interest = vec![1.0; self.titles.len()];
        self.happening(at_ms).for_each(|h| interest[h.title] *= h.interest(at_ms));
        interest
    }

    /// How much of the page each title gets: editors give more to what people ask for, and
    /// nothing to what is not there yet.
    pub(crate) fn shares(&self, at_ms: i64, interest: &[f64]) -> Vec<f64> {
        let share = |title: usize| match self.shown_from[title] <= at_ms {
            true => self.weight[title] * (1.0 + (interest[title] - 1.0) * 0.4),
            false => 0.0,
        };
        (0..self.titles.len()).map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_an_evening() {
        let gb = &COUNTRIES[1];
        assert!(gb.rhythm(20 * HOUR) > 2.0 && gb.rhythm(4 * HOUR) < 0.3);
        let mean = (0..24 * 60).map(|m| gb.rhythm(m * MINUTE)).sum::<f64>() / (24.0 * 60.0);
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        assert_eq!(COUNTRIES.iter().map(|c| c.share).sum::<u32>(), 100);
        assert_eq!(DEVICES.iter().map(|d| d.1).sum::<u32>(), 100);
        assert!(taste("Horror", 23.0) > 2.0 * taste("Horror", 12.0));
    }

    #[test]
    fn things_happen_and_pass() {
        let mut world = World::new(7, 200, 0);
        let (mut most, mut premieres) = (1.0f64, 0);
        for minute in 0..24 * 60 {
            let at = minute * MINUTE;
            world.advance(at);
            let interest = world.interest(at);
            most = interest.iter().copied().fold(most, f64::max);
            let shares = world.shares(at, &interest);
            premieres = shares.iter().filter(|s| **s > 0.0).count();
        }
        assert!((BURST..=2.0 * BURST).contains(&most), "{most}");
        assert!((188..=200).contains(&premieres), "{premieres}");
    }
}
