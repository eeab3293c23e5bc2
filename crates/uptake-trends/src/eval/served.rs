//! Off-policy samples from what was served: places that were drawn, with all that could have been.
//!
//! A place of a row is drawn from candidates with known shares (see [`crate::explore`]), and all of
//! them are logged with it. So another way to choose among them can be judged: where it would have
//! chosen what was drawn, its outcome is known, and how rarely that was drawn is known too.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uptake_model::{Epoch, TallyRow};

use super::offpolicy::Sample;
use super::progressive::{DAY, Ranking, past_score};

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

/// The samples of a ranking that would have taken its best candidate. `rows` are the tallies of the
/// segment; of them only epochs before the draw's own are used.
///
/// ```
/// use uptake_model::Epoch;
/// use uptake_trends::eval::progressive::Ranking;
/// use uptake_trends::eval::served::{Candidate, Draw, samples};
/// let one = |video: &str, share, rate| Candidate { video_id: video.into(), share, rate };
/// let candidates = vec![one("a", 0.25, 0.1), one("b", 0.75, 0.3)];
/// let draw = |shown, is_played| Draw { epoch: Epoch(9), candidates: candidates.clone(), shown, is_played };
/// let samples = samples(&[draw(0, false), draw(1, true)], Ranking::Loved, &[], 0.5);
/// assert_eq!((samples[0].behaviour, samples[0].target), (0.25, 0.0));
/// assert_eq!((samples[1].reward, samples[1].target, samples[1].predicted_target), (1.0, 1.0, 0.3));
/// ```
pub fn samples(draws: &[Draw], ranking: Ranking, rows: &[TallyRow], epoch_hours: f64) -> Vec<Sample> {
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
        let known: Vec<_> = all.iter().filter(|at| at.0 <= last && at.0 > last - DAY).copied().collect();
        past_score(ranking, &known, last, epoch_hours)
    };
    let sample =
        |draw: &Draw| {
            let scores = draw.candidates.iter().map(|candidate| score(candidate, draw.epoch.0 - 1));
            // Of equal ones the first.
            let best = scores.enumerate().fold((0, f64::NEG_INFINITY), |best, (at, score)| {
                if score > best.1 { (at, score) } else { best }
            });
            let (shown, chosen) = (draw.candidates.get(draw.shown)?, draw.candidates.get(best.0)?);
            Some(Sample {
                reward: f64::from(u8::from(draw.is_played)),
                behaviour: shown.share,
                target: if best.0 == draw.shown { 1.0 } else { 0.0 },
                predicted: shown.rate,
                predicted_target: chosen.rate,
            })
        };
    draws.iter().filter_map(sample).filter(|sample| sample.behaviour > 0.0).collect()
}
