//! Off-policy samples from what was served: places that were drawn, with all that could have been.
//!
//! A place of a row is drawn from candidates with known shares (see [`crate::explore`]), and all of
//! them are logged with it. So another way to choose among them can be judged: where it would have
//! chosen what was drawn, its outcome is known, and how rarely that was drawn is known too.
//!
//! Of a candidate that could not be drawn the log can say nothing: the choice is judged among the others, and how
//! often its best is one of those is told. The predictions are logged rates, plays per impression, where the reward is
//! plays per served place: they make the doubly robust estimate less sharp than it could be, and no less right.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uptake_model::{Epoch, EpochLength, TallyRow};

use super::offpolicy::Sample;
use super::progressive::{Ranking, past_score};
use crate::options::a_day;

/// A title that could have been drawn.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// The title.
    pub video_id: Arc<str>,
    /// The probability with which it was to be drawn.
    pub share: f64,
    /// Its rate as it was estimated then.
    pub rate: f64,
}

/// A place that was drawn, and what came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct Draw {
    /// The epoch in which the row was served.
    pub epoch: Epoch,
    /// Whom it was drawn from.
    pub candidates: Vec<Candidate>,
    /// Which one was drawn.
    pub shown: usize,
    /// Whether the request played it.
    pub is_played: bool,
}

/// How [`Ranking`]s that need the past only would have chosen, and the choice by the logged rates,
/// which is that of Loved without a draw.
pub const JUDGED: [Ranking; 6] =
    [Ranking::Loved, Ranking::Plays, Ranking::Growth, Ranking::Gravity, Ranking::RawRate, Ranking::Wilson];

/// The samples of a ranking.
#[derive(Clone, PartialEq, Debug)]
pub struct Samples {
    /// One for each draw.
    pub samples: Vec<Sample>,
    /// Of how many draws the best candidate could not be drawn, so that the best of the others is judged.
    pub unsupported: usize,
}

/// The samples of a ranking that would have taken the best candidate that could be drawn. `rows` are the tallies of the
/// segment; of them only epochs before the draw's own are used.
///
/// ```
/// use uptake_model::{Epoch, EpochLength};
/// use uptake_trends::eval::progressive::Ranking;
/// use uptake_trends::eval::served::{Candidate, Draw, samples};
/// let one = |video: &str, share, rate| Candidate { video_id: video.into(), share, rate };
/// let candidates = vec![one("a", 0.25, 0.1), one("b", 0.75, 0.3)];
/// let draw = |shown, is_played| Draw { epoch: Epoch(9), candidates: candidates.clone(), shown, is_played };
/// let length = EpochLength::default();
/// let samples = samples(&[draw(0, false), draw(1, true)], Ranking::Loved, &[], length).samples;
/// assert_eq!((samples[0].behaviour, samples[0].target), (0.25, 0.0));
/// assert_eq!((samples[1].reward, samples[1].target, samples[1].predicted_target), (1.0, 1.0, 0.3));
/// ```
pub fn samples(draws: &[Draw], ranking: Ranking, rows: &[TallyRow], epoch_length: EpochLength) -> Samples {
    let epoch_hours = epoch_length.ms() as f64 / 3_600_000.0;
    let mut past: BTreeMap<&str, Vec<(i64, f64, f64)>> = BTreeMap::new();
    for row in rows {
        let counts = (row.epoch.0, row.counts.plays as f64, row.counts.impressions as f64);
        past.entry(&row.video_id).or_default().push(counts);
    }
    let score = |candidate: &Candidate, last: i64| {
        if ranking == Ranking::Loved {
            return candidate.rate;
        }
        let all = past.get(&*candidate.video_id).map_or(&[][..], Vec::as_slice);
        let known: Vec<_> =
            all.iter().filter(|at| at.0 <= last && at.0 > last - a_day(epoch_length)).copied().collect();
        past_score(ranking, &known, last, epoch_hours)
    };
    let mut unsupported = 0;
    let sample = |draw: &Draw| {
        // The best of all, and of those that could be drawn; of equal ones the first.
        let (mut best, mut drawable) = ((0, f64::NEG_INFINITY), (0, f64::NEG_INFINITY));
        for (at, candidate) in draw.candidates.iter().enumerate() {
            let score = score(candidate, draw.epoch.0 - 1);
            if score > best.1 {
                best = (at, score);
            }
            if score > drawable.1 && candidate.share > 0.0 {
                drawable = (at, score);
            }
        }
        let (shown, chosen) = (draw.candidates.get(draw.shown)?, draw.candidates.get(drawable.0)?);
        if shown.share <= 0.0 {
            return None;
        }
        unsupported += usize::from(best.0 != drawable.0);
        Some(Sample {
            reward: f64::from(u8::from(draw.is_played)),
            behaviour: shown.share,
            target: if drawable.0 == draw.shown { 1.0 } else { 0.0 },
            predicted: shown.rate,
            predicted_target: chosen.rate,
        })
    };
    let samples = draws.iter().filter_map(sample).collect();
    Samples { samples, unsupported }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the log's own policy never draws is no part of what can be judged by it.
    #[test]
    fn the_best_that_could_be_drawn_is_judged() {
        let one = |video: &str, share, rate| Candidate { video_id: video.into(), share, rate };
        let candidates = vec![one("never", 0.0, 0.9), one("often", 0.75, 0.3), one("seldom", 0.25, 0.1)];
        let draw = |shown| Draw { epoch: Epoch(9), candidates: candidates.clone(), shown, is_played: true };
        let of = samples(&[draw(1), draw(2)], Ranking::Loved, &[], EpochLength::default());
        let targets: Vec<f64> = of.samples.iter().map(|sample| sample.target).collect();
        assert_eq!((targets, of.unsupported), (vec![1.0, 0.0], 2));
        assert!(of.samples.iter().all(|sample| sample.predicted_target == 0.3), "{of:?}");
    }
}
