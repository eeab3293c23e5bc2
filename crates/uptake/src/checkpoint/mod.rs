//! Checkpoints: how far the input was read and all state as it was there, as one unit.
//!
//! After a batch that worker 0 names, every stage of every worker hands over its part: the
//! sources their positions, the joins and the tallies what changed since the checkpoint before
//! and one part in [`ROUND`] of everything. A thread writes a segment per worker, waits until
//! table and archive have taken what was sealed before, and puts the manifest, which makes the
//! checkpoint. Who restarts reads the newest manifest whose objects are whole.

mod coordinator;
mod fields;
mod manifest;
mod restore;
mod retention;
mod segment;
mod store;

use std::hash::Hash;
use std::path::PathBuf;
use std::time::Duration;

use uptake_connectors::ObjectsError;
use uptake_flow::{EventTime, Flow, KeyedState, SHARDS, Tracking};

pub use coordinator::{CheckpointThread, Coordinator, Fragment, Part, Plan, Stage, Stats, Tickets};
pub use fields::{Fields, put_part};
pub use manifest::{InputPosition, Manifest, PartitionPosition, SegmentInfo};
pub use restore::{Restored, Section};
pub use segment::{SectionKind, Sections, Segment};
pub use store::{Newest, Number, Store};

/// In how many checkpoints every state is written at least once, changed or not: what is older
/// than so many checkpoints is never needed.
pub const ROUND: usize = 32;

/// What came of a look at the work that a thread of its own does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pump {
    /// Nothing is to be done.
    Nothing,
    /// Something is to be done, when others are ready or some time has passed.
    Later,
    /// Something was done.
    Worked,
}

/// An empty buffer for each virtual shard.
pub fn shard_buffers() -> Vec<Vec<u8>> {
    (0..SHARDS).map(|_| Vec::new()).collect()
}

/// Calls `save` with every state that belongs into checkpoint `number`: this checkpoint's part of
/// all, and before it those that were touched since the one before.
pub fn each_due<K: Eq + Hash + Clone, S>(
    number: u64,
    states: &mut KeyedState<K, S>,
    save: &mut dyn FnMut(&K, &mut S, Option<EventTime>),
) {
    // One that takes everything need not write the touched ones twice.
    let takes_all = (0..ROUND).all(|part| Coordinator::takes_part(number, part));
    states.drain_touched(Tracking::Checkpoint, &mut |key, state, deadline| {
        if !takes_all {
            save(key, state, deadline);
        }
    });
    for part in (0..states.parts()).filter(|&part| Coordinator::takes_part(number, part)) {
        states.part(part, save);
    }
}

/// About how many states in memory [`each_due`] saves.
pub fn count_due<K: Eq + Hash + Clone, S>(number: u64, states: &KeyedState<K, S>) -> usize {
    let parts = (0..ROUND).filter(|&part| Coordinator::takes_part(number, part)).count();
    (states.touched(Tracking::Checkpoint) + states.held() / ROUND * parts).min(states.held())
}

/// Calls `each` with every virtual shard whose keys come to this worker.
///
/// # Errors
/// The first error of `each`.
pub fn for_own_shards(
    flow: &Flow<'_>,
    each: impl FnMut(u32) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    (0..SHARDS).filter(|&shard| flow.has_shard(shard)).try_for_each(each)
}

/// Why a checkpoint cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Its bytes are not what was written.
    #[error("{name} cannot be used: {what}")]
    Damaged {
        /// The object.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// An object that a manifest names is gone.
    #[error("{name} is missing")]
    Missing {
        /// The object.
        name: String,
    },
    /// There are checkpoints, and none can be read.
    #[error(
        "none of the {tried} checkpoints of cluster {cluster} can be read ({last}); put back what \
         is missing, or delete them to begin with the start of the log"
    )]
    NoneReadable {
        /// The cluster.
        cluster: String,
        /// How many there are.
        tried: usize,
        /// What is wrong with the oldest of them.
        last: String,
    },
    /// Somebody else goes on from the checkpoints.
    #[error(
        "another process has taken over the checkpoints of cluster {cluster}; only one may run. \
         For a second cluster beside it give it a name of its own with --cluster"
    )]
    TakenOver {
        /// The cluster.
        cluster: String,
    },
    /// What it is written to, or what has to be written before it, is away.
    #[error(
        "the last checkpoint was not made, what is named above is away for {} s; \
         the next run goes on from the one before",
        waited.as_secs()
    )]
    NotMade {
        /// How long was waited.
        waited: Duration,
    },
    /// Other processes of the cluster did not write their parts of the last one.
    #[error(
        "the last checkpoint was not made: another process did not write its part within {} s; \
         the next run goes on from the one before",
        waited.as_secs()
    )]
    PartsMissing {
        /// How long was waited.
        waited: Duration,
    },
    /// It holds state of another meaning.
    #[error(
        "the checkpoint was written with another configuration ({stored}); this run has {asked}. \
         Use the same configuration, or another --data directory"
    )]
    OtherMeaning {
        /// What the checkpoint says.
        stored: String,
        /// What the configuration says.
        asked: String,
    },
    /// It was taken of another kind of input.
    #[error("the checkpoint was taken while reading {stored}, this run reads {asked}")]
    OtherInput {
        /// What was read then.
        stored: &'static str,
        /// What is to be read.
        asked: &'static str,
    },
    /// There is no room for a copy on the local disk.
    #[error("a checkpoint cannot be copied to {}: {source}. Make room there", folder.display())]
    Spool {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The object store.
    #[error(transparent)]
    Objects(#[from] ObjectsError),
}

impl CheckpointError {
    /// Whether it says nothing about the checkpoint: only that something else refuses to serve.
    pub fn is_of_storage(&self) -> bool {
        matches!(self, Self::Objects(_) | Self::Spool { .. })
    }

    pub(crate) fn damaged(name: &str, what: impl Into<String>) -> Self {
        Self::Damaged { name: name.to_owned(), what: what.into() }
    }
}
