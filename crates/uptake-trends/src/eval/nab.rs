//! The score of the Numenta Anomaly Benchmark: a detection in a labelled window counts the more the earlier it comes,
//! one outside costs.
//!
//! Lavin, Ahmad, *Evaluating Real-Time Anomaly Detection Algorithms*, ICMLA 2015; its standard profile: a window that
//! is found up to 1, one that is missed −1, a detection outside up to −0.11.

/// What a detection outside of all windows costs at most.
const FALSE_ALARM: f64 = 0.11;
/// Rows at the beginning of a series that are for learning: 15 % of them, at most as many of 5,000.
const LEARNING: f64 = 0.15;

/// A series: the detector's score of each row, and the labelled windows as first and last row.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Series {
    /// How strange each row is; 0 for not at all.
    pub scores: Vec<f64>,
    /// The windows, in order.
    pub windows: Vec<(usize, usize)>,
}

impl Series {
    /// How many rows at the beginning are for learning: they are not scored.
    pub fn learning(&self) -> usize {
        (self.scores.len().min(5_000) as f64 * LEARNING) as usize
    }
}

/// 1 at the left end of a window (−1), 0 at its right end (0), towards −1 behind it.
fn sigmoid(at: f64) -> f64 {
    if at > 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * at).exp()) - 1.0 }
}

/// The score over all series where rows of at least `threshold` are detections: 100 for who finds every window in its
/// first row and nothing else, 0 for who detects nothing.
///
/// ```
/// use uptake_trends::eval::nab::{Series, score};
/// let with = |row: Option<usize>| {
///     let mut series = Series { scores: vec![0.0; 100], windows: vec![(40, 60)] };
///     row.map(|row| series.scores[row] = 1.0);
///     score(&[series], 0.5)
/// };
/// assert_eq!((with(None), with(Some(40))), (0.0, 100.0));
/// assert!(with(Some(40)) > with(Some(50)) && with(Some(50)) > 90.0);
/// assert!((with(Some(20)) - -5.5).abs() < 1e-12, "0.11 of the 2 between nothing and all");
/// ```
pub fn score(all: &[Series], threshold: f64) -> f64 {
    let (mut raw, mut windows) = (0.0, 0.0);
    for series in all {
        let learning = series.learning();
        let scored: Vec<(usize, usize)> =
            series.windows.iter().copied().filter(|(_, last)| *last >= learning).collect();
        let mut best: Vec<f64> = vec![-1.0; scored.len()];
        for (row, _) in
            series.scores.iter().enumerate().skip(learning).filter(|(_, score)| **score >= threshold)
        {
            if let Some(window) = scored.iter().position(|(first, last)| (*first..=*last).contains(&row)) {
                let (first, last) = scored[window];
                let width = (last - first + 1) as f64;
                let found = sigmoid(-((last - row + 1) as f64) / width) / sigmoid(-1.0);
                best[window] = best[window].max(found);
            } else {
                let before = scored.iter().rev().find(|(_, last)| *last < row);
                let behind = before.map_or(-1.0, |(first, last)| {
                    sigmoid((row - last) as f64 / ((last - first).max(1)) as f64)
                });
                raw += FALSE_ALARM * behind;
            }
        }
        raw += best.iter().sum::<f64>();
        windows += scored.len() as f64;
    }
    100.0 * (raw + windows) / (2.0 * windows)
}

/// The best score over all thresholds, and that threshold: what the benchmark reports.
///
/// ```
/// use uptake_trends::eval::nab::{Series, best};
/// let mut series = Series { scores: vec![0.0; 100], windows: vec![(40, 60)] };
/// (series.scores[40], series.scores[80]) = (0.9, 0.2);
/// assert_eq!(best(&[series]), (100.0, 0.9));
/// ```
pub fn best(all: &[Series]) -> (f64, f64) {
    let mut thresholds: Vec<f64> = all.iter().flat_map(|series| series.scores.iter().copied()).collect();
    thresholds.retain(|score| *score > 0.0);
    thresholds.sort_unstable_by(f64::total_cmp);
    thresholds.dedup();
    let each = thresholds.into_iter().map(|threshold| (score(all, threshold), threshold));
    each.fold((0.0, f64::INFINITY), |best, one| if one.0 > best.0 { one } else { best })
}
