//! What can be chosen; the defaults were tuned on the simulated world of `tests/world`.

use serde::{Deserialize, Serialize};
use uptake_model::segment::is_reserved;
use uptake_model::tally::Counts;
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
    /// How many epochs before the current one may still grow, see [`open_epochs`].
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

/// The horizon of the default configuration, in milliseconds.
const HORIZON_MS: i64 = 90 * 60_000;
/// Its lateness.
const LATENESS_MS: i64 = 2 * 3_600_000;

/// Over how many of the last epochs the lift that is shown is.
const LIFT_EPOCHS: i64 = 4;

/// So many epochs before the current one say nothing of what is usual: a rise is looked for in them.
const WINDOW_EPOCHS: i64 = 8;

/// What comes later is so rare that no more is kept ready for it.
const GROWTH_MAX_MS: i64 = 2 * 24 * 3_600_000;
/// The most epochs that are kept as they are.
const OPEN_MAX: i64 = 500;

/// How many epochs before the current one may still grow: one is sealed when the newest event is twice horizon and
/// lateness beyond its end. At least those over which a title is looked at; two days and 500 epochs at most.
///
/// ```
/// use uptake_model::EpochLength;
/// use uptake_trends::options::open_epochs;
/// let of = |minutes: i64| open_epochs(EpochLength::from_ms(minutes * 60_000).unwrap(), 90 * 60_000, 7_200_000);
/// assert_eq!((of(5), of(30), of(60), of(1_440)), (84, 14, 7, 4));
/// ```
pub fn open_epochs(epoch_length: EpochLength, horizon_ms: i64, lateness_ms: i64) -> i64 {
    let growth = horizon_ms.saturating_add(lateness_ms).saturating_mul(2).clamp(0, GROWTH_MAX_MS);
    let length = epoch_length.ms();
    ((growth + length - 1) / length).clamp(LIFT_EPOCHS, OPEN_MAX)
}

/// After so many half-lives a millionth is left of what was known.
const FORGOTTEN_HALF_LIVES: f64 = 20.0;

impl Options {
    /// After how many epochs without a row a title is forgotten, as if there had never been one: 20 half-lives of the
    /// longest memory, 20 weeks by default. What is known of titles is then bounded by those that are on show.
    ///
    /// ```
    /// assert_eq!(uptake_trends::Options::default().forget_epochs(), 20 * 7 * 48);
    /// ```
    pub fn forget_epochs(&self) -> i64 {
        let longest = self.half_lives_hours.iter().copied().fold(self.baseline_half_life_hours, f64::max);
        (FORGOTTEN_HALF_LIVES * longest * 3_600_000.0 / self.epoch_length.ms() as f64) as i64
    }

    /// How many epochs before the current one say nothing of what is usual. Older ones do, whether they may still grow
    /// or not: little comes so late, and a usual rate of half a day ago would take every morning for a rise.
    pub fn window_epochs(&self) -> i64 {
        self.open_epochs.min(WINDOW_EPOCHS)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            epoch_length: EpochLength::default(),
            exposure: Exposure::Impressions,
            half_lives_hours: [0.5, 1.5, 6.0, 48.0],
            popular_memory: 2,
            baseline_half_life_hours: 168.0,
            open_epochs: open_epochs(EpochLength::default(), HORIZON_MS, LATENESS_MS),
            lift_pseudo: 2.0,
            lift_epochs: LIFT_EPOCHS,
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
    /// The defaults for such rows; so many epochs may still grow. Plays are held against time where there are far
    /// fewer impressions than plays in the last day: no stream of rows that are shown is like that, but one of plays
    /// alone in which an impression strayed is.
    ///
    /// ```
    /// use uptake_model::{Epoch, EpochLength, TallyRow, tally::Counts};
    /// use uptake_trends::{Exposure, Options};
    /// let row = |epoch, plays, impressions| TallyRow {
    ///     video_id: "v".into(), segment: "".into(), epoch: Epoch(epoch),
    ///     counts: Counts { plays, impressions, exact: true }, sealed: false, sets: None,
    /// };
    /// let exposure = |rows: &[TallyRow]| Options::for_rows(rows, EpochLength::default(), 14).exposure;
    /// assert_eq!(exposure(&[row(1, 5, 90), row(2, 0, 3)]), Exposure::Impressions);
    /// assert_eq!(exposure(&[row(1, 900, 1), row(2, 900, 0)]), Exposure::Epochs);
    /// ```
    pub fn for_rows(rows: &[TallyRow], epoch_length: EpochLength, open_epochs: i64) -> Self {
        let of_members = || rows.iter().filter(|row| !is_reserved(&row.segment));
        let newest = of_members().map(|row| row.epoch.0).max().unwrap_or_default();
        let lately = of_members().filter(|row| row.epoch.0 > newest - a_day(epoch_length));
        let (plays, impressions) = lately.fold((0u64, 0u64), |(plays, impressions), row| {
            let Counts { plays: p, impressions: i, .. } = row.counts;
            (plays.saturating_add(p), impressions.saturating_add(i))
        });
        let exposure = match impressions > 0 && impressions >= plays / 2 {
            true => Exposure::Impressions,
            false => Exposure::Epochs,
        };
        Self { epoch_length, exposure, open_epochs, ..Self::default() }
    }
}

/// How many epochs a day has; at least one.
pub fn a_day(epoch_length: EpochLength) -> i64 {
    (24 * 3_600_000 / epoch_length.ms()).max(1)
}
