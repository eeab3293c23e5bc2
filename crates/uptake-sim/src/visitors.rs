//! Visitors of a site: what they come for, how far they look, what they play, and what their devices do with it.

use crate::rng::Rng;
use crate::season::Season;
use crate::world::{DEVICES, HOUR, MINUTE};

/// Somebody who looks at one row or one page of results.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visitor {
    /// Who: several visits may be of one member.
    pub member: u32,
    /// On what.
    pub device: &'static str,
    /// How far the device's clock is ahead, in milliseconds.
    pub clock_ahead_ms: i64,
    /// How long the device keeps its reports to itself.
    pub held_ms: i64,
    /// When it sends them all once more, counted from the first time.
    pub again_after_ms: Option<i64>,
}

/// What a visitor comes for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Visit {
    /// To look at a row.
    Row(&'static str),
    /// To find a title: the places in [`Season::shows`] of what is found, the one that was meant first.
    Search(Vec<u16>),
}

/// Something that a visitor sees or plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Act {
    /// When, in milliseconds since the row was there.
    pub after_ms: i64,
    /// Which place of the row, from 0.
    pub place: usize,
    /// Whether it is played, not only seen.
    pub is_play: bool,
}

/// What may be wrong with the world of the visitors, beside what is always wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trouble {
    /// Every device sends everything twice.
    pub all_twice: bool,
    /// A quarter of the devices keep their reports for an hour.
    pub quarter_held: bool,
    /// Every clock is wrong, by up to three days.
    pub clocks_wrong: bool,
}

/// One after the other.
#[derive(Clone, Debug)]
pub struct Visitors {
    rng: Rng,
    season: &'static Season,
    /// Sums of the interest in the titles up to each one, as of a moment.
    interest: Vec<f64>,
    interest_at_ms: i64,
}

/// How many members there are.
const MEMBERS: u32 = 50_000;
/// The part of the visits that search.
const SEARCHING: f64 = 0.35;
/// Who has looked at a place looks at the next one with this probability.
const GOES_ON: f64 = 0.88;
/// How much likelier than on a row the title that was searched for is played.
const MEANT: f64 = 4.0;
/// How old the interest may be that searches are drawn from.
const INTEREST_FRESH_MS: u64 = 5 * MINUTE as u64;

/// The chance that a visitor plays something of a row, each title being taken with its chance if it is seen: the
/// visitor looks from the first place on, goes on with a fixed probability, and stops with the first play.
///
/// This is the cascade model of Craswell, Zoeter, Taylor and Ramsey (WSDM 2008) with an end to patience.
///
/// ```
/// use uptake_sim::row_value;
/// assert_eq!(row_value([0.5]), 0.5);
/// assert!(row_value([0.5, 0.1]) > row_value([0.1, 0.5]), "the best one first");
/// ```
pub fn row_value(chances: impl IntoIterator<Item = f64>) -> f64 {
    let (mut value, mut reaches) = (0.0, 1.0);
    for chance in chances {
        value += reaches * chance;
        reaches *= (1.0 - chance) * GOES_ON;
    }
    value
}

impl Visitors {
    /// Other numbers are other visitors.
    pub fn new(seed: u64) -> Self {
        let season = Season::real();
        Self { rng: Rng::of(seed, 0x7669_7369), season, interest: Vec::new(), interest_at_ms: i64::MIN }
    }

    /// How lively it is, about 1 on average over the day: the season's evenings are those of America.
    pub fn rhythm(at_ms: i64) -> f64 {
        // Views of all pages by hour of the day (UTC), as in the season: 1.12 M at 9 h, 1.74 M at 22 h.
        let hour = (at_ms.rem_euclid(24 * HOUR)) as f64 / HOUR as f64;
        let away = (hour - 21.0).abs().min(24.0 - (hour - 21.0).abs());
        1.25 - 0.5 * away / 12.0
    }

    /// The next one, at `at_ms` of the season.
    pub fn next(&mut self, at_ms: i64, trouble: Trouble) -> (Visitor, Visit) {
        let rng = &mut self.rng;
        let mut of_100 = rng.below(100);
        let mut device = DEVICES[0].0;
        for (name, share) in DEVICES {
            device = name;
            if of_100 < share {
                break;
            }
            of_100 -= share;
        }
        let clock_ahead_ms = match (trouble.clocks_wrong, rng.chance(0.04)) {
            (true, _) => rng.between(-72 * HOUR, 72 * HOUR),
            (false, true) => rng.between(-4 * HOUR, 4 * HOUR),
            (false, false) => rng.between(-2_000, 2_000),
        };
        let held_ms = match (trouble.quarter_held && rng.chance(0.25), rng.chance(0.06)) {
            (true, _) => HOUR,
            (false, true) => rng.between(2 * MINUTE, 40 * MINUTE),
            (false, false) => rng.between(500, 4_000),
        };
        let twice = trouble.all_twice || rng.chance(0.05);
        let again_after_ms = twice.then(|| rng.between(MINUTE / 2, 10 * MINUTE));
        let member = rng.below(MEMBERS);
        let visitor = Visitor { member, device, clock_ahead_ms, held_ms, again_after_ms };
        if self.rng.chance(SEARCHING) {
            return (visitor, Visit::Search(self.results(at_ms)));
        }
        let row = match self.rng.below(10) {
            0..5 => "trending",
            5..8 => "loved",
            _ => "popular",
        };
        (visitor, Visit::Row(row))
    }

    /// What a search finds: the title that was meant, by the interest in it, and others.
    fn results(&mut self, at_ms: i64) -> Vec<u16> {
        if at_ms.abs_diff(self.interest_at_ms) >= INTEREST_FRESH_MS {
            let mut sum = 0.0;
            let up_to = |show| {
                sum += self.season.views(show, at_ms);
                sum
            };
            self.interest = (0..self.season.shows().len() as u16).map(up_to).collect();
            self.interest_at_ms = at_ms;
        }
        let drawn = self.rng.unit() * self.interest.last().copied().unwrap_or_default();
        let meant = self.interest.partition_point(|sum| *sum <= drawn).min(self.interest.len() - 1) as u16;
        let mut found = vec![meant];
        for _ in 0..2 {
            let other = self.rng.below(self.interest.len() as u32) as u16;
            if !found.contains(&other) {
                found.push(other);
            }
        }
        found
    }

    /// What becomes of a row: `shows` are its titles' places in the season, where they are of it.
    pub fn browse(&mut self, at_ms: i64, shows: &[Option<u16>]) -> Vec<Act> {
        let chances: Vec<f64> =
            shows.iter().map(|show| show.map_or(0.02, |show| self.season.chance(show, at_ms))).collect();
        self.look(&chances)
    }

    /// What becomes of a page of results.
    pub fn found(&mut self, at_ms: i64, shows: &[u16]) -> Vec<Act> {
        let mut chances: Vec<f64> = shows.iter().map(|show| self.season.chance(*show, at_ms)).collect();
        if let Some(meant) = chances.first_mut() {
            *meant = (*meant * MEANT).min(0.9);
        }
        self.look(&chances)
    }

    fn look(&mut self, chances: &[f64]) -> Vec<Act> {
        let (mut acts, mut after_ms) = (Vec::new(), 0);
        for (place, chance) in chances.iter().enumerate() {
            after_ms += self.rng.between(1_000, 3_000);
            acts.push(Act { after_ms, place, is_play: false });
            if self.rng.chance(*chance) {
                after_ms += self.rng.between(500, 8_000);
                acts.push(Act { after_ms, place, is_play: true });
                break;
            }
            if !self.rng.chance(GOES_ON) {
                break;
            }
        }
        acts
    }

    /// A number for a request that the site's own pages make up.
    pub fn request(&mut self) -> u64 {
        self.rng.next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the awards night begins.
    fn awards() -> i64 {
        Season::MOMENTS[1].at_ms
    }

    #[test]
    fn a_row_is_worth_what_visitors_make_of_it() {
        let mut visitors = Visitors::new(5);
        let shows: Vec<Option<u16>> = (0..12).map(Some).collect();
        let chances = |at| shows.iter().flatten().map(move |show| Season::real().chance(*show, at));
        let visits = 40_000;
        let plays =
            (0..visits).filter(|_| visitors.browse(awards(), &shows).iter().any(|act| act.is_play)).count();
        let (share, value) = (plays as f64 / f64::from(visits), row_value(chances(awards())));
        assert!((share - value).abs() < 0.01, "{share} {value}");
    }

    #[test]
    fn acts_are_in_order_and_a_play_is_the_last() {
        let mut visitors = Visitors::new(6);
        for _ in 0..2_000 {
            let (_, visit) = visitors.next(awards(), Trouble::default());
            let acts = match visit {
                Visit::Row(_) => visitors.browse(awards(), &[Some(3), None, Some(9), Some(600)]),
                Visit::Search(shows) => visitors.found(awards(), &shows),
            };
            assert!(acts.is_sorted_by_key(|act| act.after_ms) && !acts.is_empty());
            let plays = acts.iter().filter(|act| act.is_play).count();
            assert!(plays <= 1 && acts.iter().rev().skip(1).all(|act| !act.is_play));
        }
    }

    #[test]
    fn searches_follow_the_interest_and_trouble_is_trouble() {
        let season = Season::real();
        let hugo = season.find("Hugo").unwrap();
        let meant = |at_ms| {
            let mut visitors = Visitors::new(7);
            let all = (0..20_000).map(|_| visitors.next(at_ms, Trouble::default()).1);
            all.filter(|visit| matches!(visit, Visit::Search(shows) if shows[0] == hugo)).count()
        };
        assert!(meant(awards() + 2 * HOUR) > 10 * meant(awards() - 24 * HOUR));
        let trouble = Trouble { all_twice: true, quarter_held: true, clocks_wrong: true };
        let mut visitors = Visitors::new(8);
        let all: Vec<Visitor> = (0..4_000).map(|_| visitors.next(awards(), trouble).0).collect();
        assert!(all.iter().all(|visitor| visitor.again_after_ms.is_some()));
        let held = all.iter().filter(|visitor| visitor.held_ms == HOUR).count();
        assert!((900..1_100).contains(&held), "{held}");
        assert!(all.iter().filter(|visitor| visitor.clock_ahead_ms.abs() > HOUR).count() > 3_800);
    }
}
