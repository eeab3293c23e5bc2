//! The log as a run of its own has it: it reads and leaves nothing behind.

use std::sync::Arc;

use uptake_connectors::LogError;
use uptake_connectors::log::{Log, Record, StoredRef};

/// A log whose dead letters and late events are there already: appends are dropped.
pub(super) struct QuietLog(pub(super) Arc<dyn Log>);

type Result<T> = std::result::Result<T, LogError>;

impl Log for QuietLog {
    fn append(&self, _: &str, _: u32, _: &[Record], _: i64) -> Result<u64> {
        Ok(0)
    }

    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        self.0.create_topic(topic, partitions)
    }

    fn partitions(&self, topic: &str) -> Result<u32> {
        self.0.partitions(topic)
    }

    fn topics(&self) -> Vec<String> {
        self.0.topics()
    }

    fn read_each(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
        each: &mut dyn FnMut(StoredRef<'_>),
    ) -> Result<u64> {
        self.0.read_each(topic, partition, from, max_records, max_bytes, each)
    }

    fn start_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.0.start_offset(topic, partition)
    }

    fn end_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.0.end_offset(topic, partition)
    }

    fn end_offsets(&self, of: &[(&str, u32)]) -> Result<Vec<u64>> {
        self.0.end_offsets(of)
    }

    fn offset_for_time(&self, topic: &str, partition: u32, ms: i64) -> Result<u64> {
        self.0.offset_for_time(topic, partition, ms)
    }

    fn truncate_before(&self, topic: &str, partition: u32, offset: u64) -> Result<u64> {
        self.0.truncate_before(topic, partition, offset)
    }
}
