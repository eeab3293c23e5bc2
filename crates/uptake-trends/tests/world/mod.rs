//! A simulated world that knows every title's true take rate: 2,000 titles, the day's cycle, bursts,
//! new titles, and exposure that follows the row. Each way to choose the row lives in a world of its
//! own with the same fates.

use std::collections::BTreeMap;
use std::sync::Arc;

use uptake_model::tally::Counts;
use uptake_model::{Epoch, EpochLength, EventTime, TallyRow};
use uptake_trends::explore::{CANDIDATES_MAX, Random, hopeful, shares};
use uptake_trends::rows::{Choice, RowName, RowOptions, Shelf, candidates};
use uptake_trends::{Catalogue, Options, Rules, Trends};

pub(crate) const TITLES: usize = 2_000;
pub(crate) const PLACES: usize = 20;
/// Refreshes per epoch: also in its middle.
const PARTS: u64 = 2;
/// Which part of the impressions the row gets; the rest is browsing.
const ROW_PART: f64 = 0.4;

/// What one title's fate is.
struct Title {
    rate: f64,
    browse: f64,
    peak_hour: f64,
    born: i64,
    bursts: Vec<(i64, i64, f64)>,
}

pub(crate) struct World {
    titles: Vec<Title>,
    epochs: i64,
}

fn poisson(mean: f64, random: &mut Random) -> u64 {
    if mean > 40.0 {
        return (mean + mean.sqrt() * random.normal()).round().max(0.0) as u64;
    }
    let (mut n, mut product, limit) = (0, random.unit(), (-mean).exp());
    while product > limit {
        n += 1;
        product *= random.unit();
    }
    n
}

impl World {
    /// `burst_days`: after how many days, on average, a title bursts again.
    pub(crate) fn new(seed: u64, epochs: i64, burst_days: f64) -> Self {
        let calm = burst_days * 48.0;
        let mut random = Random::new(seed);
        let titles = (0..TITLES)
            .map(|i| {
                // Bursts are ×2 to ×5 and last 3 to 12 hours.
                let mut bursts = Vec::new();
                let mut at = (-random.unit().ln() * calm) as i64;
                while at < epochs {
                    let length = 6 + (random.unit() * 18.0) as i64;
                    bursts.push((at, at + length, 2.0 + 3.0 * random.unit()));
                    at += length + (-random.unit().ln() * calm) as i64;
                }
                Title {
                    rate: (0.03 * (0.5 * random.normal()).exp()).min(0.2),
                    browse: 1.0 / (20.0 + random.unit() * TITLES as f64),
                    peak_hour: random.unit() * 24.0,
                    // One in twenty is new at some time.
                    born: if i % 20 == 0 { (random.unit() * epochs as f64) as i64 } else { 0 },
                    bursts,
                }
            })
            .collect();
        Self { titles, epochs }
    }

    /// The chance that somebody who sees it plays it.
    pub(crate) fn rate(&self, title: usize, epoch: i64) -> f64 {
        let t = &self.titles[title];
        let burst = t.bursts.iter().find(|(from, to, _)| (*from..*to).contains(&epoch));
        let hour = (epoch as f64 / 2.0 - t.peak_hour) * std::f64::consts::TAU / 24.0;
        (t.rate * (1.0 + 0.15 * hour.cos()) * burst.map_or(1.0, |burst| burst.2)).min(0.6)
    }

    fn is_there(&self, title: usize, epoch: i64) -> bool {
        self.titles[title].born <= epoch
    }

    /// The true rates of the best row, summed.
    fn oracle(&self, epoch: i64) -> f64 {
        let there = (0..TITLES).filter(|title| self.is_there(*title, epoch));
        let mut rates: Vec<f64> = there.map(|title| self.rate(title, epoch)).collect();
        rates.sort_by(|a, b| b.total_cmp(a));
        rates[..PLACES].iter().sum()
    }
}

/// How a row is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Chooser {
    Loved,
    Trending,
    /// Plays of the last day.
    Plays,
    /// Plays of the last epoch over those of the one before.
    Growth,
    /// Plays per impression of the last day.
    RawRate,
    /// The lower bound of Wilson's interval of the same.
    Wilson,
}

#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Outcome {
    /// Of the oracle row's take rate.
    pub(crate) share: f64,
    /// Which part of the row's places, drawn ones by their chances, go to another title at a refresh.
    pub(crate) churn: f64,
    /// Believed rises that were none, and all, where that was looked at.
    pub(crate) false_rises: u64,
    pub(crate) rises: u64,
}

pub(crate) fn live(
    world: &World,
    chooser: Chooser,
    per_epoch: f64,
    warm_up: i64,
    seed: u64,
    options: Options,
    (row_options, drawn_places): (&RowOptions, usize),
) -> Outcome {
    let length = EpochLength::default();
    let start = 980_000;
    let mut random = Random::new(seed);
    let names: Vec<Arc<str>> = (0..TITLES).map(|i| Arc::from(format!("v{i:04}"))).collect();
    let index: BTreeMap<Arc<str>, usize> = names.iter().cloned().zip(0..).collect();
    let mut trends = Trends::new(options);
    let mut shelf = Shelf::default();
    let (rules, catalogue) = (Rules::default(), Catalogue::default());
    let mut history: Vec<Vec<(u64, u64)>> = vec![vec![(0, 0); TITLES]; 50];
    // How many places each title has, which is a part of one where they are drawn.
    let mut row: BTreeMap<usize, f64> = (0..PLACES).map(|title| (title, 1.0)).collect();
    let (mut share_sum, mut churns, mut n) = (0.0, 0.0, 0.0);
    let (mut false_rises, mut rises) = (0, 0);
    for epoch in 0..world.epochs {
        let mut now = vec![(0u64, 0u64); TITLES];
        let hour = (epoch as f64 / 2.0 - 20.0) * std::f64::consts::TAU / 24.0;
        let crowd = per_epoch * (1.0 + 0.6 * hour.cos());
        let browse: f64 =
            (0..TITLES).filter(|t| world.is_there(*t, epoch)).map(|t| world.titles[t].browse).sum();
        for part in 1..=PARTS {
            let crowd = crowd / PARTS as f64;
            for title in (0..TITLES).filter(|title| world.is_there(*title, epoch)) {
                let placed = row.get(&title).unwrap_or(&0.0) * ROW_PART / PLACES as f64;
                let shown = crowd * (placed + (1.0 - ROW_PART) * world.titles[title].browse / browse);
                let shown = poisson(shown, &mut random);
                let plays = poisson(shown as f64 * world.rate(title, epoch), &mut random).min(shown);
                now[title].0 += plays;
                now[title].1 += shown;
            }
            let time = length.start(Epoch(start + epoch)).plus(length.ms() * part as i64 / PARTS as i64);
            let next = choose(
                chooser,
                &now,
                &history,
                &mut trends,
                &mut shelf,
                (&names, &index),
                start + epoch,
                time,
                &Choice { options: row_options, rules: &rules, catalogue: &catalogue, now: time },
            );
            // As rows are served: the last places are drawn for each request from titles that may be better.
            let fixed = &next[..next.len() - drawn_places.min(next.len())];
            let mut next: BTreeMap<usize, f64> = fixed.iter().map(|title| (*title, 1.0)).collect();
            if drawn_places > 0 {
                let mut drawn = hopeful(&trends, "", PLACES + CANDIDATES_MAX);
                drawn.retain(|(video, _)| !next.contains_key(&index[video]));
                drawn.truncate(CANDIDATES_MAX);
                let estimates: Vec<_> = drawn.iter().map(|(_, estimate)| *estimate).collect();
                for ((video, _), share) in drawn.iter().zip(shares(&estimates, &mut random)) {
                    next.insert(index[video], share * drawn_places as f64);
                }
            }
            if epoch >= warm_up {
                let kept: f64 =
                    row.iter().map(|(title, has)| has.min(*next.get(title).unwrap_or(&0.0))).sum();
                churns += 1.0 - kept / PLACES as f64;
                // The row is looked at in what comes next.
                let at = if part == PARTS { epoch + 1 } else { epoch };
                let sum: f64 = next.iter().map(|(title, places)| places * world.rate(*title, at)).sum();
                share_sum += sum / world.oracle(at);
                n += 1.0;
            }
            row = next;
        }
        if epoch >= warm_up && chooser == Chooser::Trending {
            for numbers in trends.rising("") {
                rises += 1;
                let title = index[&numbers.video];
                let lately =
                    (epoch - 6..=epoch).any(|e| world.rate(title, e) > 1.7 * world.titles[title].rate);
                false_rises += u64::from(!lately);
            }
        }
        history.push(now);
        history.remove(0);
    }
    Outcome { share: share_sum / n, churn: churns / n, false_rises, rises }
}

#[allow(clippy::too_many_arguments, reason = "one place that knows all ways to choose")]
fn choose(
    chooser: Chooser,
    now: &[(u64, u64)],
    history: &[Vec<(u64, u64)>],
    trends: &mut Trends,
    shelf: &mut Shelf,
    (names, index): (&[Arc<str>], &BTreeMap<Arc<str>, usize>),
    epoch: i64,
    time: EventTime,
    choice: &Choice,
) -> Vec<usize> {
    if matches!(chooser, Chooser::Loved | Chooser::Trending) {
        for (title, (plays, impressions)) in now.iter().enumerate().filter(|(_, n)| n.1 > 0) {
            trends.ingest(&TallyRow {
                video_id: names[title].clone(),
                segment: "".into(),
                epoch: Epoch(epoch),
                counts: Counts { plays: *plays, impressions: *impressions, exact: true },
                sealed: false,
                sets: None,
            });
        }
        trends.refresh(time);
        let row = if chooser == Chooser::Loved { RowName::Loved } else { RowName::Trending };
        shelf.update(row, "", candidates(trends, row, ""), choice);
        return shelf.placed().iter().map(|placed| index[&placed.video]).collect();
    }
    let day = |title: usize| {
        history
            .iter()
            .rev()
            .take(47)
            .map(|past| past[title])
            .chain([now[title]])
            .fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    let last = |title: usize| history.last().map_or(0, |past| past[title].0) as f64;
    let score = |title: usize| match chooser {
        Chooser::Plays => day(title).0 as f64,
        Chooser::Growth => (now[title].0 as f64 + 1.0) / (last(title) + 1.0),
        Chooser::RawRate => day(title).0 as f64 / (day(title).1 as f64).max(1.0),
        _ => wilson(day(title)),
    };
    let mut order: Vec<(f64, usize)> = (0..TITLES).map(|title| (score(title), title)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order[..PLACES].iter().map(|(_, title)| *title).collect()
}

fn wilson((plays, shown): (u64, u64)) -> f64 {
    uptake_trends::eval::wilson_lower(plays as f64, shown as f64, 1.96)
}
