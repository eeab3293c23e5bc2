//! The hour of the week: how much more is played per exposure at some hours than at others.
//!
//! f = d(hour of day) · w(hour of week), each the ratio of what was played to what its exposure
//! would bring at the segment's mean rate, drawn to 1 while few epochs of that hour were seen. The
//! sums forget with a half-life of four weeks. Hours are UTC; a segment of a country has its own.

use uptake_model::EpochLength;

/// Hours of a week.
const WEEK: usize = 168;

/// As many epochs of an hour as the expectation that the hour is like any other weighs.
pub const EPOCHS_PRIOR: f64 = 2.0;

/// As many plays as it weighs besides, so that a handful of plays says nothing of an hour.
pub const PLAYS_PRIOR: f64 = 50.0;

/// Of an hour's sums half stays after four weeks.
const HALF_LIFE_WEEKS: f64 = 4.0;

#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Hour {
    plays: f64,
    shown: f64,
    epochs: f64,
}

/// Factors by hour of the week.
///
/// ```
/// use uptake_model::EpochLength;
/// use uptake_trends::hours::Hours;
/// let mut hours = Hours::new(EpochLength::from_ms(3_600_000).unwrap());
/// for day in 0..28 {
///     for hour in 0..24 {
///         let plays = if hour == 20 { 3_000.0 } else { 1_000.0 };
///         hours.add((day * 24 + hour) * 3_600_000, plays, 10_000.0);
///     }
/// }
/// assert!((hours.factor(20 * 3_600_000) / hours.factor(4 * 3_600_000) - 3.0).abs() < 0.3);
/// ```
#[derive(Clone, PartialEq, Debug)]
pub struct Hours {
    by_hour: Box<[Hour; WEEK]>,
    factors: Box<[f64; WEEK]>,
    /// How much of an hour's sums stays whenever an epoch of it is added.
    forgetting: f64,
}

/// Which hour of the week a time lies in; 1970 began on a Thursday.
fn hour_of_week(time_ms: i64) -> usize {
    (time_ms.div_euclid(3_600_000) + 3 * 24).rem_euclid(WEEK as i64) as usize
}

impl Hours {
    /// Nothing is known yet; epochs are of this length.
    pub fn new(epoch_length: EpochLength) -> Self {
        // So many epochs of an hour are seen a week; of a longer one each begins in one hour only.
        let a_week = (3_600_000.0 / epoch_length.ms() as f64).max(1.0);
        Self {
            by_hour: Box::new([Hour::default(); WEEK]),
            factors: Box::new([1.0; WEEK]),
            forgetting: (-1.0 / (HALF_LIFE_WEEKS * a_week)).exp2(),
        }
    }

    /// Adds a finished epoch of the whole segment that began at `time_ms`.
    pub fn add(&mut self, time_ms: i64, plays: f64, shown: f64) {
        let hour = &mut self.by_hour[hour_of_week(time_ms)];
        hour.plays = hour.plays * self.forgetting + plays;
        hour.shown = hour.shown * self.forgetting + shown;
        hour.epochs = hour.epochs * self.forgetting + 1.0;
        self.refit();
    }

    /// By what a rate is multiplied at this time.
    pub fn factor(&self, time_ms: i64) -> f64 {
        self.factors[hour_of_week(time_ms)]
    }

    fn refit(&mut self) {
        let total = |hours: &mut dyn Iterator<Item = &Hour>| {
            hours.fold(Hour::default(), |sum, h| Hour {
                plays: sum.plays + h.plays,
                shown: sum.shown + h.shown,
                epochs: sum.epochs + h.epochs,
            })
        };
        let all = total(&mut self.by_hour.iter());
        if all.shown <= 0.0 || all.plays <= 0.0 {
            return;
        }
        let mean = all.plays / all.shown;
        for day_hour in 0..24 {
            let day = total(&mut self.by_hour.iter().skip(day_hour).step_by(24));
            let of_day = ratio(&day, mean);
            for hour in (day_hour..WEEK).step_by(24) {
                self.factors[hour] = of_day * ratio(&self.by_hour[hour], mean * of_day);
            }
        }
    }
}

/// (P + m)/(I·mean + m), drawn to 1 by the number of epochs seen.
fn ratio(hour: &Hour, mean: f64) -> f64 {
    let raw = (hour.plays + PLAYS_PRIOR) / (hour.shown * mean + PLAYS_PRIOR);
    1.0 + (raw - 1.0) * hour.epochs / (hour.epochs + EPOCHS_PRIOR)
}
