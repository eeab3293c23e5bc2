//! What can be chosen; the defaults were tuned on the simulated world of `tests/world`.

use serde::{Deserialize, Serialize};
use uptake_model::segment::is_reserved;
use uptake_model::{EpochLength, TallyRow};

use crate::memory::MEMORIES;

/// What a title's plays are held against.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exposure {
    /// The impressions of the tallies.
    #[default]
    Impressions,
    /// Time: the stream has no impressions, and a rate is plays per epoch.
    Epochs,
}

/// How the trends are computed.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// The length of an epoch.
    pub epoch_length: EpochLength,
    /// What plays are held against.
    pub exposure: Exposure,
    /// The half-lives that run in parallel, shortest first, in hours.
    pub half_lives_hours: [f64; MEMORIES],
    /// Which of them **Popular** counts plays with.
    pub popular_memory: usize,
    /// How long the usual rate of a title is remembered, in hours.
    pub baseline_half_life_hours: f64,
    /// How many epochs before the current one may still grow: horizon and lateness, rounded up.
    pub open_epochs: i64,
    /// a in (P + a)/(e + a).
    pub lift_pseudo: f64,
    /// How many of the last epochs the lift that is shown is over.
    pub lift_epochs: i64,
    /// The chance of a lift below its lower bound.
    pub lift_chance: f64,
    /// The level of the test: at rest, a title raises a false alarm every 1/level epochs at most.
    pub level: f64,
    /// A lift up to this is nothing yet.
    pub lift_min: f64,
    /// A rise is over when a whole epoch's lift is below this.
    pub lift_end: f64,
    /// How evenly a title at rest is played: 1/k is the relative variance from epoch to epoch.
    pub evenness: f64,
    /// How much an epoch during a rise adds to the usual rate.
    pub rising_weight: f64,
    /// Deviations taken off a rate before **Loved** ranks it.
    pub loved_z: f64,
    /// Less discounted exposure than this is too little to enter Loved or Trending.
    pub evidence_min: f64,
    /// Less plays in the last epochs than this is too little to enter Trending.
    pub rising_plays_min: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            epoch_length: EpochLength::default(),
            exposure: Exposure::Impressions,
            half_lives_hours: [0.5, 1.5, 6.0, 48.0],
            popular_memory: 2,
            baseline_half_life_hours: 168.0,
            open_epochs: 8,
            lift_pseudo: 2.0,
            lift_epochs: 4,
            lift_chance: 0.05,
            level: 1e-4,
            lift_min: 1.25,
            lift_end: 1.1,
            evenness: 50.0,
            rising_weight: 0.1,
            loved_z: 0.5,
            evidence_min: 5.0,
            rising_plays_min: 5.0,
        }
    }
}

impl Options {
    /// The defaults for such rows: without any impression, plays are held against time.
    pub fn for_rows(rows: &[TallyRow], epoch_length: EpochLength) -> Self {
        let exposure = match rows.iter().any(|row| row.counts.impressions > 0 && !is_reserved(&row.segment)) {
            true => Exposure::Impressions,
            false => Exposure::Epochs,
        };
        Self { epoch_length, exposure, ..Self::default() }
    }
}
