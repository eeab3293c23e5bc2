//! Whether a checkpoint has something of some requests: for those who must be sure that it has not.

use std::collections::BTreeSet;

use uptake_flow::SHARDS;
use uptake_model::RequestId;
use uptake_model::tally::{RequestSet, Tally, TallyLimits};

use super::aggregate::{Behind, each_counted};
use crate::checkpoint::{CheckpointError, Fields, SectionKind, Segment};

/// Those of `requests` that some segment has: waiting in the join, in a tally, or counted since the last whole
/// tally. A sketch holds no ids.
///
/// # Errors
/// A segment is damaged.
pub fn requests_held(
    segments: &[Segment],
    requests: &BTreeSet<RequestId>,
    limits: TallyLimits,
) -> Result<BTreeSet<RequestId>, CheckpointError> {
    let mut held = BTreeSet::new();
    for segment in segments {
        for shard in 0..SHARDS {
            let mut see = |request: RequestId| {
                if requests.contains(&request) {
                    held.insert(request);
                }
            };
            let bytes = segment.section(SectionKind::Requests, shard)?;
            let mut fields = Fields::new(segment, &bytes);
            while !fields.is_empty() {
                see(RequestId(fields.u64()?));
                let _deadline_and_state = (fields.i64()?, fields.part()?);
            }
            let bytes = segment.section(SectionKind::Tallies, shard)?;
            let mut fields = Fields::new(segment, &bytes);
            while !fields.is_empty() {
                let _key = (fields.u64()?, fields.i64()?, fields.text()?);
                let mut tally = Tally::default();
                let read = tally.merge_saved(fields.part()?, limits);
                read.map_err(|error| segment.damaged(error.to_string()))?;
                let sets = tally.into_sets();
                for set in [sets.played, sets.shown] {
                    if let RequestSet::Exact(ids) = set {
                        ids.into_iter().map(RequestId).for_each(&mut see);
                    }
                }
            }
            each_counted(segment, shard, |counted| {
                see(counted.request);
                Ok(())
            })?;
            let bytes = segment.section(SectionKind::Behind, shard)?;
            let mut fields = Fields::new(segment, &bytes);
            while !fields.is_empty() {
                see(Behind::load(&mut fields)?.request);
            }
        }
    }
    Ok(held)
}
