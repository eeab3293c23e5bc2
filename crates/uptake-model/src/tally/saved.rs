//! Tallies as bytes that another process can load, and add to what it has itself.
//!
//! Per side: varint(values << 3 | beyond << 2 | sketch << 1 | deltas), then the values, which
//! ascend: as varints of their differences, or as 8 bytes each where that is shorter. The values
//! of an exact set are its ids. Those of a sketch are the hashes it keeps; where it does not keep
//! all (`beyond`), the next larger one follows, its theta. As a sketch is determined by the
//! 2^lg_k + 1 smallest hashes of its set, so is a union by those of its parts.

use datasketches::theta::{CompactThetaSketch, ThetaSketch};

use super::hash::{HASH_END, OfHash};
use super::{RequestSet, Side, Tally, TallyLimits, TallySets};
use crate::DamagedState;
use crate::bytes::{check_count, check_end, put_u64, put_varint, take_u64, take_varint, varint_bytes};

const DELTAS_BIT: u64 = 1;
const SKETCH_BIT: u64 = 2;
const BEYOND_BIT: u64 = 4;

impl Tally {
    /// Appends both sets to `out`.
    ///
    /// ```
    /// use uptake_model::tally::{Tally, TallyLimits};
    /// use uptake_model::{Kind, RequestId};
    /// let (limits, mut saved) = (TallyLimits::default(), Vec::new());
    /// let (mut one, mut two) = (Tally::default(), Tally::default());
    /// one.insert(Kind::Play, RequestId(1), limits);
    /// one.save(&mut saved);
    /// two.insert(Kind::Play, RequestId(2), limits);
    /// two.merge_saved(&saved, limits)?;
    /// two.merge_saved(&saved, limits)?; // once more changes nothing
    /// assert_eq!(two.counts(limits).plays, 2);
    /// # Ok::<(), uptake_model::DamagedState>(())
    /// ```
    pub fn save(&mut self, out: &mut Vec<u8>) {
        self.played.save(out);
        self.shown.save(out);
    }

    /// Adds all that was saved: the tally is then as if every id had been inserted into it.
    ///
    /// # Errors
    ///
    /// If the bytes are damaged, or hold a sketch that is coarser than `limits` ask for. The
    /// tally is then as before.
    pub fn merge_saved(&mut self, mut bytes: &[u8], limits: TallyLimits) -> Result<(), DamagedState> {
        let played = Saved::take(&mut bytes, limits)?;
        let shown = Saved::take(&mut bytes, limits)?;
        check_end(bytes)?;
        self.played.merge(played, limits);
        self.shown.merge(shown, limits);
        Ok(())
    }

    /// Adds sets as they are stored: the tally is then as if every id had been inserted into it.
    ///
    /// ```
    /// use uptake_model::tally::{Tally, TallyLimits};
    /// use uptake_model::{Kind, RequestId};
    /// let limits = TallyLimits::default();
    /// let (mut one, mut two) = (Tally::default(), Tally::default());
    /// one.insert(Kind::Play, RequestId(1), limits);
    /// two.insert(Kind::Play, RequestId(2), limits);
    /// two.merge_sets(&one.into_sets(), limits)?;
    /// assert_eq!(two.counts(limits).plays, 2);
    /// # Ok::<(), uptake_model::DamagedState>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If a sketch is damaged, or coarser than `limits` ask for. The tally is then as before.
    pub fn merge_sets(&mut self, sets: &TallySets, limits: TallyLimits) -> Result<(), DamagedState> {
        let (played, shown) = (Saved::of(&sets.played, limits)?, Saved::of(&sets.shown, limits)?);
        self.played.merge(played, limits);
        self.shown.merge(shown, limits);
        Ok(())
    }
}

/// One side as it was read.
enum Saved {
    Ids(Vec<u64>),
    Hashes(Vec<u64>),
}

impl Saved {
    fn of(set: &RequestSet, limits: TallyLimits) -> Result<Self, DamagedState> {
        let bytes = match set {
            RequestSet::Exact(ids) => return Ok(Self::Ids(ids.clone())),
            RequestSet::Sketch(bytes) => bytes,
        };
        let sketch =
            CompactThetaSketch::deserialize(bytes).map_err(|_| DamagedState("bytes that are no sketch"))?;
        let mut hashes: Vec<u64> = sketch.iter().map(|entry| entry.hash()).collect();
        hashes.sort_unstable();
        if sketch.is_estimation_mode() {
            hashes.push(sketch.theta64());
            check_fine(&hashes, limits)?;
        }
        Ok(Self::Hashes(hashes))
    }

    fn take(bytes: &mut &[u8], limits: TallyLimits) -> Result<Self, DamagedState> {
        let head = take_varint(bytes)?;
        let values = take_ascending(head >> 3, head & DELTAS_BIT != 0, bytes)?;
        if head & SKETCH_BIT == 0 {
            return Ok(Self::Ids(values));
        }
        if !matches!(*values, [first, .., last] if first > 0 && last < HASH_END) {
            return Err(DamagedState("no sketch keeps such hashes"));
        }
        if head & BEYOND_BIT != 0 {
            check_fine(&values, limits)?;
        }
        Ok(Self::Hashes(values))
    }
}

/// Fewer hashes than a sketch of today keeps would pass for all there are below its theta.
fn check_fine(hashes: &[u64], limits: TallyLimits) -> Result<(), DamagedState> {
    if hashes.len() <= 1 << limits.sketch_lg_k {
        return Err(DamagedState("a sketch is coarser than configured"));
    }
    Ok(())
}

impl Side {
    fn save(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::Exact(set) => put_ascending(0, set.as_sorted(), out),
            Self::Sketch(sketch) => {
                sketch.trim();
                let mut hashes: Vec<u64> = sketch.iter().map(|entry| entry.hash()).collect();
                hashes.sort_unstable();
                let beyond = sketch.is_estimation_mode();
                if beyond {
                    hashes.push(sketch.theta64());
                }
                put_ascending(SKETCH_BIT | if beyond { BEYOND_BIT } else { 0 }, &hashes, out);
            }
        }
    }

    fn merge(&mut self, saved: Saved, limits: TallyLimits) {
        match (&mut *self, saved) {
            (Self::Exact(set), Saved::Ids(ids)) => {
                set.add_sorted(ids);
                if set.exceeds(limits.exact_max) {
                    self.promote(limits);
                }
            }
            (Self::Sketch(sketch), Saved::Ids(ids)) => ids.into_iter().for_each(|id| sketch.update(id)),
            (Self::Sketch(sketch), Saved::Hashes(hashes)) => add_hashes(sketch, hashes),
            (Self::Exact(_), Saved::Hashes(hashes)) => {
                self.promote(limits);
                self.merge(Saved::Hashes(hashes), limits);
            }
        }
    }
}

fn add_hashes(sketch: &mut ThetaSketch, hashes: Vec<u64>) {
    hashes.into_iter().for_each(|hash| sketch.update(OfHash(hash)));
}

fn put_ascending(bits: u64, values: &[u64], out: &mut Vec<u8>) {
    let deltas = || values.iter().scan(0, |before, &v| Some(v - std::mem::replace(before, v)));
    let short = deltas().map(varint_bytes).sum::<usize>() < 8 * values.len();
    put_varint(out, (values.len() as u64) << 3 | bits | if short { DELTAS_BIT } else { 0 });
    if short {
        deltas().for_each(|delta| put_varint(out, delta));
    } else {
        values.iter().for_each(|v| put_u64(out, *v));
    }
}

fn take_ascending(n: u64, deltas: bool, bytes: &mut &[u8]) -> Result<Vec<u64>, DamagedState> {
    let n = check_count(n, if deltas { 1 } else { 8 }, bytes)?;
    let mut values: Vec<u64> = Vec::with_capacity(n);
    for _ in 0..n {
        let before = values.last().copied();
        let value = if deltas {
            before.unwrap_or(0).checked_add(take_varint(bytes)?)
        } else {
            Some(take_u64(bytes)?)
        };
        match value {
            Some(value) if before.is_none_or(|before| before < value) => values.push(value),
            _ => return Err(DamagedState("a set does not ascend")),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::Kind;
    use crate::ids::RequestId;

    /// Ids of a small range come more than once and next to each other, those of a large one not.
    fn id(n: u64, spread: bool) -> RequestId {
        RequestId(if spread { n.wrapping_mul(0x9e37_79b9_7f4a_7c15) } else { n })
    }

    fn limits() -> impl Strategy<Value = TallyLimits> {
        let exact_max = prop_oneof![Just(8usize), Just(100), Just(5_000)];
        (exact_max, 5u8..8).prop_map(|(exact_max, sketch_lg_k)| TallyLimits { exact_max, sketch_lg_k })
    }

    fn part(ids: &[(u64, bool)], spread: bool, limits: TallyLimits) -> Tally {
        let mut tally = Tally::default();
        for (n, play) in ids {
            let kind = if *play { Kind::Play } else { Kind::Impression };
            tally.insert(kind, id(*n, spread), limits);
        }
        tally
    }

    fn saved(tally: &mut Tally) -> Vec<u8> {
        let mut out = Vec::new();
        tally.save(&mut out);
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// However the ids came to different tallies, and in whatever order those are merged,
        /// with events in between: the same as if all had been inserted into one.
        #[test]
        fn merged_tallies_depend_on_the_set_alone(
            ids in prop::collection::vec((0u64..2_000, any::<bool>()), 0..3_000),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            merged_later in prop::collection::vec(any::<bool>(), 7),
            spread in any::<bool>(),
            limits in limits(),
            look in any::<bool>(),
        ) {
            let mut all = part(&ids, spread, limits);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(ids.len() + 1)).collect();
            cuts.extend([0, ids.len()]);
            cuts.sort_unstable();
            let mut merged = Tally::default();
            let mut later = Vec::new();
            for (ends, is_later) in cuts.windows(2).zip(merged_later) {
                let ids = &ids[ends[0]..ends[1]];
                if is_later {
                    // Half of it also comes directly.
                    let mut half = part(&ids[..ids.len() / 2], spread, limits);
                    if look {
                        half.counts(limits);
                    }
                    half.merge_saved(&saved(&mut part(ids, spread, limits)), limits).unwrap();
                    later.push(saved(&mut half));
                } else {
                    for (n, play) in ids {
                        let kind = if *play { Kind::Play } else { Kind::Impression };
                        merged.insert(kind, id(*n, spread), limits);
                    }
                }
            }
            for saved in later.iter().rev().chain(&later) {
                merged.merge_saved(saved, limits).unwrap();
            }
            prop_assert_eq!(merged.is_empty(), ids.is_empty());
            prop_assert_eq!(merged.counts(limits), all.counts(limits));
            prop_assert_eq!(saved(&mut merged), saved(&mut all));
            prop_assert_eq!(merged.into_sets(), all.into_sets());
        }

        /// Sets as a table stores them, that have ids in common or none: the same as one tally.
        #[test]
        fn stored_sets_are_united(
            ids in prop::collection::vec((0u64..2_000, any::<bool>()), 0..3_000),
            cut in any::<prop::sample::Index>(),
            common in 0usize..500,
            spread in any::<bool>(),
            limits in limits(),
        ) {
            let cut = cut.index(ids.len() + 1);
            let stored = part(&ids[..(cut + common).min(ids.len())], spread, limits).into_sets();
            let mut united = part(&ids[cut..], spread, limits);
            united.merge_sets(&stored, limits).unwrap();
            united.merge_sets(&stored, limits).unwrap();
            let mut all = part(&ids, spread, limits);
            prop_assert_eq!(united.counts(limits), all.counts(limits));
            prop_assert_eq!(united.into_sets(), all.into_sets());
        }

        #[test]
        fn damaged_tallies_do_no_harm(
            ids in prop::collection::vec((0u64..2_000, any::<bool>()), 0..300),
            limits in limits(),
            spread in any::<bool>(),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let whole = saved(&mut part(&ids, spread, limits));
            for end in 0..whole.len() {
                let mut tally = Tally::default();
                prop_assert!(tally.merge_saved(&whole[..end], limits).is_err());
                prop_assert!(tally.is_empty());
            }
            prop_assert!(Tally::default().merge_saved(&[&whole[..], &[0]].concat(), limits).is_err());
            for flip in [flip, 0x80] {
                let mut damaged = whole.clone();
                damaged[at.index(whole.len())] ^= flip;
                let mut tally = part(&ids, spread, limits);
                if tally.merge_saved(&damaged, limits).is_err() {
                    prop_assert_eq!(saved(&mut tally), whole.clone(), "as before");
                } else {
                    tally.insert(Kind::Play, RequestId(1), limits);
                    tally.counts(limits);
                    tally.into_sets();
                }
            }
        }

        #[test]
        fn any_bytes_do_no_harm(
            bytes in prop::collection::vec(prop_oneof![0u8..32, any::<u8>()], 0..100), limits in limits(),
        ) {
            let mut tally = Tally::default();
            let _ = tally.merge_saved(&bytes, limits);
            tally.counts(limits);
        }
    }

    #[test]
    fn ids_that_lie_close_are_saved_short() {
        let limits = TallyLimits::default();
        let close: Vec<_> = (0..1_000).map(|n| (n, true)).collect();
        assert!(saved(&mut part(&close, false, limits)).len() < 1_010);
        assert!(saved(&mut part(&close, true, limits)).len() < 8 * 1_000);
        assert!(saved(&mut part(&close[..3], true, limits)).len() <= 2 + 3 * 8);
        assert_eq!(saved(&mut Tally::default()), [0, 0]);
    }

    #[test]
    fn sketches_of_another_fineness() {
        let limits = |sketch_lg_k| TallyLimits { exact_max: 8, sketch_lg_k };
        let ids: Vec<_> = (0..5_000).map(|n| (n, true)).collect();
        let [fine, coarse] = [7, 6].map(|lg_k| saved(&mut part(&ids, true, limits(lg_k))));
        let mut tally = Tally::default();
        tally.merge_saved(&fine, limits(6)).unwrap();
        assert_eq!(saved(&mut tally), coarse, "a finer one becomes coarser");
        let refused = Tally::default().merge_saved(&coarse, limits(7));
        assert_eq!(refused, Err(DamagedState("a sketch is coarser than configured")));
        // One that still keeps every hash is as fine as any.
        let few = saved(&mut part(&ids[..30], true, limits(6)));
        let mut tally = Tally::default();
        tally.merge_saved(&few, limits(7)).unwrap();
        assert_eq!(tally.into_sets(), part(&ids[..30], true, limits(7)).into_sets());
    }

    #[test]
    fn what_no_set_can_be_is_refused() {
        let limits = TallyLimits { exact_max: 8, sketch_lg_k: 5 };
        let merge = |bits: u64, values: &[u64]| {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, (values.len() as u64) << 3 | bits);
            values.iter().for_each(|v| put_u64(&mut bytes, *v));
            bytes.push(0);
            Tally::default().merge_saved(&bytes, limits).is_ok()
        };
        assert!(merge(0, &[0, 1, u64::MAX]));
        assert!(!merge(0, &[1, 1]) && !merge(0, &[2, 1]));
        assert!(merge(SKETCH_BIT, &[1, HASH_END - 1]));
        assert!(!merge(SKETCH_BIT, &[]) && !merge(SKETCH_BIT, &[0, 1]) && !merge(SKETCH_BIT, &[1, HASH_END]));
        // 32 hashes and theta.
        let hashes: Vec<u64> = (1..=33).collect();
        assert!(merge(SKETCH_BIT | BEYOND_BIT, &hashes));
        assert!(!merge(SKETCH_BIT | BEYOND_BIT, &hashes[..32]));
        let overflow = [3 << 3 | DELTAS_BIT as u8, 1, 1].into_iter().chain([0xff; 9]).chain([1, 0]);
        assert!(Tally::default().merge_saved(&overflow.collect::<Vec<_>>(), limits).is_err());
    }

    #[test]
    fn huge_counts_are_refused_before_anything_is_reserved() {
        for bits in 0..8 {
            let mut huge = Vec::new();
            put_varint(&mut huge, 1 << 60 | bits);
            huge.extend([1; 20]);
            assert!(Tally::default().merge_saved(&huge, TallyLimits::default()).is_err());
        }
    }
}
