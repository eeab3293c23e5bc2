//! How long the log keeps what was read: an embedded one would else grow until its disk is full.

use std::collections::VecDeque;
use std::time::Duration;

use uptake_connectors::LogError;
use uptake_connectors::log::Log;
use uptake_serve::SERVED_ROWS;

use super::PartitionPosition;
use crate::clock::{Clock, Moment};
use crate::outputs::notice;

/// How often it is looked for what may go.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Deletes what is old and was read.
pub(super) struct Retention {
    keep_ms: i64,
    /// Where the kept checkpoints go on, the oldest first: of what comes behind nothing may go.
    positions: VecDeque<Vec<PartitionPosition>>,
    checkpoints: usize,
    looked: Option<Moment>,
    said: bool,
}

impl Retention {
    /// Records are kept for so long, and so many checkpoints are.
    pub(super) fn new(keep: Duration, checkpoints: usize) -> Self {
        Self {
            keep_ms: i64::try_from(keep.as_millis()).unwrap_or(i64::MAX),
            positions: VecDeque::new(),
            checkpoints,
            looked: None,
            said: false,
        }
    }

    /// A checkpoint that goes on at `position` was made.
    pub(super) fn checkpointed(&mut self, log: &dyn Log, position: &[PartitionPosition], clock: &Clock) {
        self.positions.push_back(position.to_vec());
        if self.positions.len() > self.checkpoints {
            self.positions.pop_front();
        }
        // Checkpoints of a run before may be among those that are kept, until there are enough of this one.
        let is_known = self.positions.len() == self.checkpoints;
        if !is_known || self.looked.is_some_and(|at| clock.since(at) < LOOK_EVERY) {
            return;
        }
        self.looked = Some(clock.moment());
        let before = clock.now().0.saturating_sub(self.keep_ms);
        let oldest = self.positions.front().into_iter().flatten();
        let read = oldest.map(|at| (at.topic.as_str(), at.partition, at.offset));
        let served = (0..log.partitions(SERVED_ROWS).unwrap_or(0)).map(|n| (SERVED_ROWS, n, u64::MAX));
        for (topic, partition, most) in read.chain(served) {
            if let Err(error) = drop_before(log, topic, partition, before, most)
                && !std::mem::replace(&mut self.said, true)
            {
                // Nothing is lost by it, and it is tried again.
                notice(&format!("what is older than log.keep cannot be deleted: {error}"));
            }
        }
    }
}

/// Drops what was appended before a time, and no record from an offset on.
fn drop_before(log: &dyn Log, topic: &str, partition: u32, ms: i64, most: u64) -> Result<(), LogError> {
    let offset = log.offset_for_time(topic, partition, ms)?.min(most);
    if offset > log.start_offset(topic, partition)? {
        log.truncate_before(topic, partition, offset)?;
    }
    Ok(())
}
