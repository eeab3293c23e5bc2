//! Progressive evaluation: rank with what is known at the end of an epoch, score on the next one.
//!
//! A log of what one row showed says nothing of titles that were hardly shown, so a ranking is scored
//! on the next epoch's impressions of its titles, and the part of them that had any is reported with
//! it. It ranks rankings; it does not say what a row would have brought.
//!
//! Tallies are as they are in the end. With an inner join an impression counts because of a play that came up to
//! a horizon later, so the last epochs that a ranking knows have a little of what came after them. It is the same
//! for all rankings.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uptake_model::{Epoch, TallyRow};

use super::wilson_lower;
use crate::options::{Exposure, Options, a_day};
use crate::rows::{RowName, score};
use crate::trends::Trends;

/// A way to rank.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ranking {
    /// The row Loved.
    Loved,
    /// The row Popular.
    Popular,
    /// The row Trending; where fewer rise than there are places, Loved follows.
    Trending,
    /// Plays of the last day.
    Plays,
    /// Plays of the last epoch over those of the one before, each and one.
    Growth,
    /// Plays of the last day, each over (its age in hours + 2)^1.8, as news sites rank.
    Gravity,
    /// Plays per impression of the last day.
    RawRate,
    /// The lower bound of Wilson's interval of the same.
    Wilson,
}

impl Ranking {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Loved,
        Self::Popular,
        Self::Trending,
        Self::Plays,
        Self::Growth,
        Self::Gravity,
        Self::RawRate,
        Self::Wilson,
    ];
}

/// How a ranking did.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Score {
    /// Which one.
    pub ranking: Ranking,
    /// The mean over epochs of the next epoch's take rate of its titles; without impressions, of
    /// their plays.
    pub next: f64,
    /// Its standard error over epochs.
    pub error: f64,
    /// Which part of its titles were shown (or played) in the next epoch at all.
    pub seen: f64,
    /// Which part of its titles change from epoch to epoch.
    pub churn: f64,
    /// Epochs.
    pub epochs: usize,
}

/// Ranks the titles of `segment` epoch by epoch; its first `warm_up` epochs are not scored. `rows` are those of the
/// segment and of all that the scorer reads with it: the segments it leans on, the reserved ones, the places.
pub fn progressive(
    rows: &[TallyRow],
    segment: &str,
    places: usize,
    warm_up: usize,
    options: Options,
) -> Vec<Score> {
    let mut epochs: BTreeMap<i64, Vec<&TallyRow>> = BTreeMap::new();
    rows.iter().filter(|row| *row.segment == *segment).for_each(|row| {
        epochs.entry(row.epoch.0).or_default().push(row);
    });
    let mut all: BTreeMap<i64, Vec<&TallyRow>> = BTreeMap::new();
    rows.iter().for_each(|row| all.entry(row.epoch.0).or_default().push(row));
    let (length, exposure) = (options.epoch_length, options.exposure);
    let mut trends = Trends::new(options);
    let mut past: BTreeMap<Arc<str>, Vec<(i64, f64, f64)>> = BTreeMap::new();
    let mut marks: BTreeMap<Ranking, Vec<(f64, f64, f64)>> = BTreeMap::new();
    let mut before: BTreeMap<Ranking, Vec<Arc<str>>> = BTreeMap::new();
    let numbers: Vec<i64> = epochs.keys().copied().collect();
    for (n, pair) in numbers.windows(2).enumerate() {
        let (epoch, next) = (pair[0], pair[1]);
        let later = all.split_off(&(epoch + 1));
        for (at, rows) in std::mem::replace(&mut all, later) {
            rows.into_iter().for_each(|row| trends.ingest(row));
            trends.refresh(length.end(Epoch(at)));
        }
        for row in &epochs[&epoch] {
            let of = past.entry(row.video_id.clone()).or_default();
            of.push((epoch, row.counts.plays as f64, row.counts.impressions as f64));
        }
        past.retain(|_, of| {
            of.retain(|(at, _, _)| *at > epoch - a_day(length));
            !of.is_empty()
        });
        if n < warm_up {
            continue;
        }
        let outcome: BTreeMap<&str, (f64, f64)> = epochs[&next]
            .iter()
            .map(|row| (&*row.video_id, (row.counts.plays as f64, row.counts.impressions as f64)))
            .collect();
        for ranking in Ranking::ALL {
            let chosen =
                rank(ranking, &trends, segment, &past, epoch, places, length.ms() as f64 / 3_600_000.0);
            let found: Vec<(f64, f64)> = chosen.iter().filter_map(|v| outcome.get(&**v)).copied().collect();
            let reward: f64 = match exposure {
                Exposure::Epochs => found.iter().map(|(plays, _)| plays).sum(),
                Exposure::Impressions => {
                    let rates = found.iter().filter(|(_, shown)| *shown > 0.0);
                    let rates: Vec<f64> = rates.map(|(plays, shown)| plays / shown).collect();
                    rates.iter().sum::<f64>() / rates.len().max(1) as f64
                }
            };
            let kept =
                before.get(&ranking).map_or(0, |old| chosen.iter().filter(|v| old.contains(v)).count());
            let churn = 1.0 - kept as f64 / chosen.len().max(1) as f64;
            let seen = found.len() as f64 / chosen.len().max(1) as f64;
            marks.entry(ranking).or_default().push((reward, seen, churn));
            before.insert(ranking, chosen);
        }
    }
    marks.into_iter().map(|(ranking, marks)| mark(ranking, &marks)).collect()
}

fn mark(ranking: Ranking, marks: &[(f64, f64, f64)]) -> Score {
    let n = marks.len() as f64;
    let mean = |of: &dyn Fn(&(f64, f64, f64)) -> f64| marks.iter().map(of).sum::<f64>() / n;
    let next = mean(&|mark| mark.0);
    let spread = marks.iter().map(|mark| (mark.0 - next).powi(2)).sum::<f64>();
    Score {
        ranking,
        next,
        error: if n > 1.0 { (spread / (n - 1.0) / n).sqrt() } else { f64::INFINITY },
        seen: mean(&|mark| mark.1),
        churn: if marks.len() > 1 {
            marks[1..].iter().map(|mark| mark.2).sum::<f64>() / (n - 1.0)
        } else {
            0.0
        },
        epochs: marks.len(),
    }
}

fn rank(
    ranking: Ranking,
    trends: &Trends,
    segment: &str,
    past: &BTreeMap<Arc<str>, Vec<(i64, f64, f64)>>,
    epoch: i64,
    places: usize,
    epoch_hours: f64,
) -> Vec<Arc<str>> {
    let row = match ranking {
        Ranking::Loved => Some(RowName::Loved),
        Ranking::Popular => Some(RowName::Popular),
        Ranking::Trending => Some(RowName::Trending),
        _ => None,
    };
    if let Some(row) = row {
        let ranked = trends.ranked(segment, |numbers| match score(trends, row, numbers) {
            // A lift is above 0 and a rate at most about 1: the rising ones stand first.
            Ok(score) if row == RowName::Trending => 1e6 + score,
            Ok(score) => score,
            Err(_) => score(trends, RowName::Loved, numbers).unwrap_or(-1.0),
        });
        return ranked.into_iter().take(places).map(|(_, numbers)| numbers.video).collect();
    }
    let mut all: Vec<(f64, &Arc<str>)> =
        past.iter().map(|(video, of)| (past_score(ranking, of, epoch, epoch_hours), video)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    all.into_iter().take(places).map(|(_, video)| video.clone()).collect()
}

/// The score of a title by a plain ranking, from its epochs with their plays and impressions; `epoch`
/// is the last one.
pub(super) fn past_score(ranking: Ranking, of: &[(i64, f64, f64)], epoch: i64, epoch_hours: f64) -> f64 {
    let plays: f64 = of.iter().map(|e| e.1).sum();
    let shown: f64 = of.iter().map(|e| e.2).sum();
    let at = |epoch: i64| of.iter().find(|e| e.0 == epoch).map_or(0.0, |e| e.1);
    match ranking {
        Ranking::Growth => (at(epoch) + 1.0) / (at(epoch - 1) + 1.0),
        Ranking::Gravity => {
            of.iter().map(|e| e.1 / ((epoch - e.0) as f64 * epoch_hours + 2.0).powf(1.8)).sum()
        }
        Ranking::RawRate => plays / shown.max(1.0),
        Ranking::Wilson => wilson_lower(plays, shown, 1.96),
        _ => plays,
    }
}
