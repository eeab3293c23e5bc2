//! The contract, as plainly as it can be said: all events in memory, no batches, no order, no time.
//!
//! An event counts if and only if its request has an event of the other kind within the horizon.
//! Every join method, batch size, worker count, crash and replay must come to the same table as
//! these few lines; the tests compare them. It is not used in production.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Event, Kind};
use crate::ids::{RequestId, VideoHash};
use crate::join::{JoinKind, JoinRules};
use crate::time::{Epoch, EpochLength};

/// The requests that played and that were shown a video in an epoch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sets {
    /// Requests with a counting play.
    pub played: BTreeSet<RequestId>,
    /// Requests with a counting impression.
    pub shown: BTreeSet<RequestId>,
}

/// For each event, whether it counts. Quadratic in the events of a request.
pub fn counting(events: &[Event], rules: &JoinRules) -> Vec<bool> {
    let mut requests: BTreeMap<RequestId, Vec<&Event>> = BTreeMap::new();
    for event in events {
        requests.entry(event.request).or_default().push(event);
    }
    let matched = |event: &Event| {
        requests[&event.request].iter().any(|other| {
            other.kind != event.kind && other.time.0.abs_diff(event.time.0) <= rules.horizon_ms.unsigned_abs()
        })
    };
    events
        .iter()
        .map(|event| (rules.kind == JoinKind::Left && event.kind == Kind::Impression) || matched(event))
        .collect()
}

/// The table that the events come to.
pub fn tallies(
    events: &[Event],
    rules: &JoinRules,
    length: EpochLength,
) -> BTreeMap<(VideoHash, Epoch), Sets> {
    let mut table: BTreeMap<_, Sets> = BTreeMap::new();
    for (event, counts) in events.iter().zip(counting(events, rules)) {
        if counts {
            let sets = table.entry((event.video, length.epoch(event.time))).or_default();
            match event.kind {
                Kind::Play => sets.played.insert(event.request),
                Kind::Impression => sets.shown.insert(event.request),
            };
        }
    }
    table
}
