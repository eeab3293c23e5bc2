//! What rose, who noticed when, and how much each way to make a row costs in plays.

use std::collections::{HashSet, VecDeque};

use serde::Serialize;
use uptake_sim::{Charts, Reranked, Season, row_value};

const HOUR: i64 = 3_600_000;
/// A title's interest has risen when it is as many times its mean of the day before…
const RISEN: f64 = 3.0;
/// …and as many views an hour.
const RISEN_VIEWS: f64 = 4_000.0;
/// It is over at half of that.
const OVER: f64 = RISEN / 2.0;
/// Who stands as far in front has been noticed.
pub(crate) const NOTICED: usize = 10;
/// The most rises that are kept; the oldest go first.
const RISES_MAX: usize = 40;
/// The most points of the curve.
const POINTS_MAX: usize = 192;
/// As long a best row stays the best.
const BEST_FRESH_MS: i64 = 60_000;

/// A title whose interest has risen; times in milliseconds since 1970 UTC.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Rise {
    #[serde(skip)]
    show: u16,
    pub(crate) video_id: &'static str,
    pub(crate) title: &'static str,
    /// When its interest was three times that of the day before.
    pub(crate) since: i64,
    /// How many times it was at most.
    pub(crate) times: f64,
    /// When the Trending row had it among the first ten.
    pub(crate) trending: Option<i64>,
    /// When charts by plays of the day had it there, ranked again daily, half-hourly, always.
    pub(crate) charts: [Option<i64>; 3],
    /// Whether its interest has fallen again.
    pub(crate) is_over: bool,
}

/// A half hour: the part of the plays that each way to make the row loses against the best one.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) at: i64,
    /// The row that Uptake served.
    pub(crate) served: f64,
    /// Charts by plays of the day, ranked again daily, half-hourly, always.
    pub(crate) charts: [f64; 3],
    /// Rows that it is the mean of.
    pub(crate) rows: u32,
}

/// Rises and regret, as the crowd sees them.
#[derive(Debug)]
pub(crate) struct Rises {
    season: &'static Season,
    all: VecDeque<Rise>,
    /// Titles that had risen before anybody looked, until their interest has fallen.
    before: Option<HashSet<u16>>,
    points: VecDeque<Point>,
    open: Option<Open>,
    best: Option<Best>,
}

/// The half hour that goes on: sums.
#[derive(Debug)]
struct Open {
    at: i64,
    best: f64,
    served: f64,
    charts: [f64; 3],
    rows: u32,
}

/// What the best row and the charts are worth.
#[derive(Clone, Copy, Debug)]
struct Best {
    at: i64,
    titles: usize,
    best: f64,
    charts: [f64; 3],
}

impl Rises {
    pub(crate) fn new() -> Self {
        Self {
            season: Season::real(),
            all: VecDeque::new(),
            before: None,
            points: VecDeque::new(),
            open: None,
            best: None,
        }
    }

    /// Looks what has risen by `at`, and which charts have noticed.
    pub(crate) fn look(&mut self, at: i64, charts: &Charts) {
        let is_first = self.before.is_none();
        let before_us = self.before.get_or_insert_default();
        for show in 0..self.season.shows().len() as u16 {
            let views = self.season.views(show, at);
            let known = self.all.iter_mut().find(|rise| rise.show == show && !rise.is_over);
            if known.is_none() && views < RISEN_VIEWS {
                continue;
            }
            let before = (1..=24).map(|hours| self.season.views(show, at - hours * HOUR)).sum::<f64>() / 24.0;
            let times = views / before;
            match known {
                Some(rise) => {
                    rise.times = rise.times.max(times);
                    rise.is_over = times < OVER;
                }
                None if is_first && times >= RISEN => drop(before_us.insert(show)),
                None if times < OVER => drop(before_us.remove(&show)),
                None if times >= RISEN && !before_us.contains(&show) => {
                    let title = &self.season.shows()[usize::from(show)];
                    let (video_id, title) = (title.id, title.name);
                    self.all.push_back(Rise {
                        show,
                        video_id,
                        title,
                        since: at,
                        times,
                        trending: None,
                        charts: [None; 3],
                        is_over: false,
                    });
                }
                None => {}
            }
        }
        while self.all.len() > RISES_MAX {
            self.all.pop_front();
        }
        for (n, chart) in Reranked::ALL.into_iter().enumerate() {
            let first = charts.first(chart, NOTICED);
            for rise in self.all.iter_mut().filter(|rise| !rise.is_over && first.contains(&rise.show)) {
                rise.charts[n].get_or_insert(at);
            }
        }
    }

    /// The Trending row was served.
    pub(crate) fn trending(&mut self, at: i64, shows: &[Option<u16>]) {
        for rise in self.all.iter_mut().filter(|rise| !rise.is_over) {
            if shows.iter().take(NOTICED).flatten().any(|show| *show == rise.show) {
                rise.trending.get_or_insert(at);
            }
        }
    }

    /// A row was served that is to be what people take.
    pub(crate) fn served(&mut self, at: i64, shows: &[Option<u16>], charts: &Charts) {
        let titles = shows.len();
        if titles == 0 {
            return;
        }
        let season = self.season;
        let value = |shows: &[u16]| row_value(shows.iter().map(|show| season.chance(*show, at)));
        let fresh = self.best.filter(|best| (at - best.at).abs() < BEST_FRESH_MS && best.titles == titles);
        let best = fresh.unwrap_or_else(|| {
            let mut order: Vec<u16> = (0..season.shows().len() as u16).collect();
            order.sort_by(|a, b| season.views(*b, at).total_cmp(&season.views(*a, at)));
            order.truncate(titles);
            let charts = Reranked::ALL.map(|chart| value(&charts.first(chart, titles)));
            Best { at, titles, best: value(&order), charts }
        });
        self.best = Some(best);
        let slot = at - at.rem_euclid(HOUR / 2);
        if self.open.as_ref().is_some_and(|open| open.at != slot) {
            self.points.extend(self.open.take().map(Open::point));
            while self.points.len() > POINTS_MAX {
                self.points.pop_front();
            }
        }
        let open =
            self.open.get_or_insert(Open { at: slot, best: 0.0, served: 0.0, charts: [0.0; 3], rows: 0 });
        open.best += best.best;
        open.served += row_value(shows.iter().map(|show| show.map_or(0.0, |show| season.chance(show, at))));
        open.charts.iter_mut().zip(best.charts).for_each(|(sum, one)| *sum += one);
        open.rows += 1;
    }

    /// What has risen, the newest last.
    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = &Rise> {
        self.all.iter()
    }

    /// The curve: half hours that are over.
    pub(crate) fn points(&self) -> impl Iterator<Item = &Point> {
        self.points.iter()
    }
}

impl Open {
    fn point(self) -> Point {
        let lost = |value: f64| 1.0 - value / self.best;
        Point { at: self.at, served: lost(self.served), charts: self.charts.map(lost), rows: self.rows }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_awards_night_is_seen_and_the_robot_is_not() {
        let season = Season::real();
        let mut rises = Rises::new();
        for moment in [Season::MOMENTS[1].clone(), Season::MOMENTS[3].clone()] {
            let charts = Charts::new(moment.at_ms);
            (0..8 * 60).for_each(|minute| rises.look(moment.at_ms + minute * 60_000, &charts));
        }
        let names: Vec<&str> = rises.all().map(|rise| rise.title).collect();
        assert!(["The Artist", "Hugo"].iter().all(|name| names.contains(name)), "{names:?}");
        assert!(!names.contains(&"Bottle Shock"), "{names:?}");
        // The best row loses nothing, and one of what nobody wants nearly all.
        let at = Season::MOMENTS[1].at_ms + 3 * HOUR;
        let mut order: Vec<u16> = (0..season.shows().len() as u16).collect();
        order.sort_by(|a, b| season.views(*b, at).total_cmp(&season.views(*a, at)));
        let row = |shows: &[u16]| shows.iter().copied().map(Some).collect::<Vec<_>>();
        let charts = Charts::new(at);
        rises.served(at, &row(&order[..12]), &charts);
        rises.served(at + HOUR, &row(&order[600..612]), &charts);
        rises.served(at + 2 * HOUR, &row(&order[..12]), &charts);
        let lost: Vec<f64> = rises.points().map(|point| point.served).collect();
        assert!(lost[0].abs() < 1e-9 && lost[1] > 0.8, "{lost:?}");
    }
}
