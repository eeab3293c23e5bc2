//! A title's past epochs, as the scorer would have judged each when it was over.
//!
//! The same arithmetic as for the present, epoch after epoch, with the priors, the hours of the week and the weights
//! of the segment's half-lives as they are known today: what is drawn is what is meant by "usual", "rate" and "rising"
//! everywhere else.

use uptake_model::{Epoch, TallyRow};

use crate::cell::Cell;
use crate::rate::Estimate;
use crate::trends::{Trends, View};

/// An epoch of a title.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Past {
    /// Which.
    pub epoch: Epoch,
    /// The rate, plays per impression, by all that was known when the epoch was over.
    pub estimate: Estimate,
    /// The plays that its impressions, its usual rate and the hour of the week let expect.
    pub expected_plays: f64,
    /// Whether a rise was believed.
    pub rising: bool,
}

impl Trends {
    /// The epochs of a title that have rows, oldest first; empty where it is not known in the segment. `rows` are its
    /// tallies of that segment in the order of their epochs.
    ///
    /// ```
    /// use uptake_model::{Epoch, EpochLength, TallyRow, tally::Counts};
    /// use uptake_trends::{Options, Trends};
    /// let row = |epoch, plays| TallyRow {
    ///     video_id: "v1".into(),
    ///     segment: "".into(),
    ///     epoch: Epoch(epoch),
    ///     counts: Counts { plays, impressions: 400, exact: true },
    ///     sealed: false,
    ///     sets: None,
    /// };
    /// let rows: Vec<TallyRow> = (0..60).map(|epoch| row(epoch, if epoch < 55 { 20 } else { 100 })).collect();
    /// let mut trends = Trends::new(Options::default());
    /// trends.replay(&rows, |epoch| EpochLength::default().end(epoch), |_, _| {});
    /// let past = trends.past("v1", "", &rows);
    /// assert_eq!(past.len(), 60);
    /// assert!((past[50].expected_plays - 20.0).abs() < 1.0 && !past[50].rising);
    /// assert!((past[57].expected_plays - 20.0).abs() < 2.0 && past[57].rising);
    /// ```
    pub fn past(&self, video: &str, segment: &str, rows: &[TallyRow]) -> Vec<Past> {
        let (Some(View { context, weights }), Some(first)) = (self.view(video, segment), rows.first()) else {
            return Vec::new();
        };
        // The expected plays of the last epoch alone.
        let options = crate::Options { lift_epochs: 1, ..context.options.clone() };
        let mut cell = Cell::new(first.epoch.0);
        // What the segment learns from it is known to it already.
        let mut ignored = |_, _| {};
        let each = rows.iter().map(|row| {
            let epoch = row.epoch.0;
            let part = if epoch == context.epoch { context.part } else { 1.0 };
            let context = crate::cell::Context { options: &options, epoch, part, ..context };
            cell.put(
                epoch,
                row.counts.plays,
                row.counts.impressions,
                self.impression_weight(video, row.epoch),
            );
            cell.look(&context, &mut ignored);
            let view = &cell.view;
            let sums = cell.sums_at(epoch, &options);
            Past {
                epoch: row.epoch,
                estimate: crate::trends::mix(context.prior, sums, weights(view.now.scores)),
                expected_plays: view.recent_expected,
                rising: view.now.rising.flagged,
            }
        });
        each.collect()
    }
}
