//! Tallies: for each video, epoch and segment, which requests were shown it and which played it.
//!
//! A tally holds sets, not counters, so applying an event twice changes nothing and a row can be
//! written again after a restart. A set is exact up to a configured size and a mergeable sketch
//! beyond. It does not know how rows are stored.

mod hash;
mod id_set;
mod saved;

use std::collections::BTreeSet;
use std::sync::Arc;

use datasketches::theta::{CompactThetaSketch, ThetaSketch, ThetaSketchBuilder};
use serde::{Deserialize, Serialize};

use crate::event::Kind;
use crate::ids::RequestId;
use crate::time::Epoch;

pub use id_set::IdSet;

/// When a set stops being exact, and how fine the sketch is that follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TallyLimits {
    /// The most requests a set holds exactly (8 bytes each).
    pub exact_max: usize,
    /// log₂ of the number of hashes a sketch keeps; its relative standard error is 1/√2^lg_k.
    pub sketch_lg_k: u8,
}

impl Default for TallyLimits {
    /// 262,144 requests exactly (2 MiB), then sketches of 2^14 hashes (128 KiB, ± 0.8 %).
    fn default() -> Self {
        Self { exact_max: 1 << 18, sketch_lg_k: 14 }
    }
}

/// One side of a tally: the requests that were shown the video, or that played it.
#[derive(Debug)]
enum Side {
    Exact(IdSet),
    Sketch(Box<ThetaSketch>),
}

impl Default for Side {
    fn default() -> Self {
        Self::Exact(IdSet::default())
    }
}

fn new_sketch(lg_k: u8) -> Box<ThetaSketch> {
    let sketch = ThetaSketchBuilder::default().lg_k(lg_k).build();
    Box::new(sketch.expect("lg_k was checked when the configuration was read"))
}

impl Side {
    #[inline]
    fn insert(&mut self, request: RequestId, limits: TallyLimits) {
        match self {
            Self::Exact(set) => {
                set.insert(request);
                if set.exceeds(limits.exact_max) {
                    self.promote(limits);
                }
            }
            Self::Sketch(sketch) => sketch.update(request.0),
        }
    }

    #[cold]
    fn promote(&mut self, limits: TallyLimits) {
        if let Self::Exact(set) = self {
            let mut sketch = new_sketch(limits.sketch_lg_k);
            set.as_sorted().iter().for_each(|id| sketch.update(*id));
            *self = Self::Sketch(sketch);
        }
    }

    /// The number of different requests, and whether it is exact.
    ///
    /// A sketch is trimmed first: its hashes are then the 2^lg_k smallest, whatever the order
    /// they came in, so the number depends on the set alone and never falls as the set grows.
    fn count(&mut self, limits: TallyLimits) -> (u64, bool) {
        match self {
            Self::Exact(set) => (set.len() as u64, true),
            Self::Sketch(sketch) => {
                sketch.trim();
                (at_least(sketch.estimate(), sketch.is_estimation_mode(), limits), false)
            }
        }
    }

    fn into_set(self) -> RequestSet {
        match self {
            Self::Exact(set) => RequestSet::Exact(set.into_sorted()),
            Self::Sketch(mut sketch) => {
                sketch.trim();
                RequestSet::Sketch(sketch.compact(true).serialize())
            }
        }
    }
}

/// What a sketch counts: one more than an exact set may hold is the least, as it was one, or the number would fall
/// when a set becomes a sketch.
///
/// A sketch that is smaller than its error allows became one under a lower limit, which was raised since: it is as
/// large as it says. The error of a theta sketch of k hashes is 1/sqrt(k - 1) relative, see "Theta Sketch Framework"
/// (Dasgupta, Lang, Rhodes, Thaler, 2016); no set is eight of them off.
fn at_least(estimate: f64, is_estimated: bool, limits: TallyLimits) -> u64 {
    let (counted, least) = (estimate.round() as u64, limits.exact_max as u64 + 1);
    let error = 1.0 / (f64::from(1u32 << limits.sketch_lg_k) - 1.0).sqrt();
    if is_estimated && estimate >= least as f64 * (1.0 - 8.0 * error) { counted.max(least) } else { counted }
}

/// The two sets of one (video, epoch, segment).
///
/// ```
/// use uptake_model::tally::{Tally, TallyLimits};
/// use uptake_model::{Kind, RequestId};
/// let (mut tally, limits) = (Tally::default(), TallyLimits::default());
/// tally.insert(Kind::Impression, RequestId(1), limits);
/// tally.insert(Kind::Impression, RequestId(1), limits); // a duplicate changes nothing
/// tally.insert(Kind::Play, RequestId(1), limits);
/// assert_eq!(tally.counts(limits).plays, 1);
/// assert_eq!(tally.counts(limits).impressions, 1);
/// ```
#[derive(Debug, Default)]
pub struct Tally {
    shown: Side,
    played: Side,
}

/// The sizes of a tally's sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Requests that played the video.
    pub plays: u64,
    /// Requests that were shown the video.
    pub impressions: u64,
    /// Whether both numbers are exact, not estimates of a sketch.
    pub exact: bool,
}

impl Counts {
    /// The size by which the larger row wins.
    pub fn size(self) -> u64 {
        self.plays.saturating_add(self.impressions)
    }
}

impl Tally {
    /// Adds `request` to one side.
    #[inline]
    pub fn insert(&mut self, kind: Kind, request: RequestId, limits: TallyLimits) {
        match kind {
            Kind::Impression => self.shown.insert(request, limits),
            Kind::Play => self.played.insert(request, limits),
        }
    }

    /// The sizes of the two sets.
    pub fn counts(&mut self, limits: TallyLimits) -> Counts {
        let (plays, plays_exact) = self.played.count(limits);
        let (impressions, impressions_exact) = self.shown.count(limits);
        Counts { plays, impressions, exact: plays_exact && impressions_exact }
    }

    /// Whether nothing was ever added.
    pub fn is_empty(&self) -> bool {
        [&self.shown, &self.played].into_iter().all(|side| matches!(side, Side::Exact(set) if set.is_empty()))
    }

    /// The two sets in their stored form.
    pub fn into_sets(self) -> TallySets {
        TallySets { played: self.played.into_set(), shown: self.shown.into_set() }
    }
}

/// A set of requests as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RequestSet {
    /// Request ids, ascending, without repeats.
    Exact(Vec<u64>),
    /// A compact ordered theta sketch in the format of Apache DataSketches (serial version 3,
    /// default seed), updated with the 64-bit ids; its libraries in other languages read it.
    Sketch(Vec<u8>),
}

impl RequestSet {
    /// Whether the set holds `request`; `None` where only a sketch is left to ask.
    pub fn contains(&self, request: RequestId) -> Option<bool> {
        match self {
            Self::Exact(ids) => Some(ids.binary_search(&request.0).is_ok()),
            Self::Sketch(_) => None,
        }
    }

    /// Whether the set holds one of `requests`; `None` where only a sketch is left to ask.
    pub fn contains_any(&self, requests: &BTreeSet<RequestId>) -> Option<bool> {
        match self {
            Self::Exact(ids) => Some(ids.iter().any(|id| requests.contains(&RequestId(*id)))),
            Self::Sketch(_) => None,
        }
    }

    /// The set's size as its bytes say it: exact, or the sketch's estimate.
    pub fn estimate(&self) -> f64 {
        match self {
            Self::Exact(ids) => ids.len() as f64,
            Self::Sketch(bytes) => CompactThetaSketch::deserialize(bytes).map_or(f64::NAN, |s| s.estimate()),
        }
    }
}

/// Both sets of a tally as they are stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TallySets {
    /// The requests that played the video.
    pub played: RequestSet,
    /// The requests that were shown the video.
    pub shown: RequestSet,
}

/// A tally as a row of the table or of the archive: absolute values, safe to write again.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TallyRow {
    /// The video, as its id came in the events.
    pub video_id: Arc<str>,
    /// The segment in canonical form, `country=BR,device=tv`; empty for everyone.
    pub segment: Arc<str>,
    /// The epoch.
    pub epoch: Epoch,
    /// The sizes of the sets.
    pub counts: Counts,
    /// Whether the epoch is closed: no further event of a run can change the row. A backfill may still add to it.
    pub sealed: bool,
    /// The sets themselves; written when the epoch is sealed, and again by what adds to them later (a backfill) or
    /// takes a request out (an erasure).
    pub sets: Option<Arc<TallySets>>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the order and the repeats, and whenever it is looked at: the same bytes.
        #[test]
        fn a_sketch_depends_on_the_set_alone(seed in any::<u64>(), n in 1usize..6000) {
            let limits = TallyLimits { exact_max: 64, sketch_lg_k: 6 };
            let id = |i: usize| RequestId((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed);
            let (mut forth, mut back) = (Tally::default(), Tally::default());
            let mut last = 0;
            for i in 0..n {
                forth.insert(Kind::Impression, id(i), limits);
                if i % 97 == 0 {
                    let size = forth.counts(limits).size();
                    prop_assert!(size >= last, "a row never shrinks");
                    last = size;
                }
            }
            for i in (0..n).rev().chain(0..n / 2) {
                back.insert(Kind::Impression, id(i), limits);
            }
            prop_assert_eq!(forth.counts(limits), back.counts(limits));
            prop_assert_eq!(forth.counts(limits).exact, n <= 64);
            prop_assert_eq!(forth.into_sets(), back.into_sets());
        }
    }

    #[test]
    fn a_raised_limit_makes_no_sketch_larger() {
        let low = TallyLimits { exact_max: 1_000, sketch_lg_k: 9 };
        let high = TallyLimits { exact_max: 100_000, ..low };
        let id = |i: u64| RequestId(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut tally, mut saved, mut restored) = (Tally::default(), Vec::new(), Tally::default());
        (0..3_000).for_each(|i| tally.insert(Kind::Play, id(i), low));
        tally.save(&mut saved);
        restored.merge_saved(&saved, high).unwrap();
        assert_eq!(restored.counts(high), tally.counts(low));
        // One that holds all its hashes is as large as it says, whatever the limit.
        let few = TallyLimits { exact_max: 100, ..low };
        let (mut tally, mut restored) = (Tally::default(), Tally::default());
        (0..300).for_each(|i| tally.insert(Kind::Play, id(i), few));
        restored.merge_sets(&tally.into_sets(), high).unwrap();
        assert_eq!(restored.counts(high).plays, 300);
        // And none is smaller than the exact set that it was.
        for exact_max in [16, 1_000, 5_000] {
            let limits = TallyLimits { exact_max, ..low };
            for seed in 0..40 {
                let mut tally = Tally::default();
                (0..=exact_max as u64).for_each(|i| tally.insert(Kind::Play, id(i + (seed << 32)), limits));
                assert!(tally.counts(limits).plays > exact_max as u64, "{exact_max} {seed}");
            }
        }
    }

    #[test]
    fn a_sketch_keeps_its_stated_error() {
        let limits = TallyLimits { exact_max: 1000, sketch_lg_k: 12 };
        let mut tally = Tally::default();
        for i in 0..100_000u64 {
            tally.insert(Kind::Play, RequestId(i), limits);
        }
        let counts = tally.counts(limits);
        let error = (counts.plays as f64 / 100_000.0 - 1.0).abs();
        assert!(!counts.exact && error < 4.0 / 64.0, "4 standard errors of 1/√4096, was {error}");
        assert!(
            (tally.into_sets().played.estimate().round() as u64) == counts.plays,
            "others read the same number"
        );
    }
}
