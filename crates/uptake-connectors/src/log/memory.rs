//! The log in memory: complete, and gone with the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Log, Record, Result, Stored, StoredRef, check_offset, check_partition_count, check_topic_name};
use crate::error::LogError;

#[derive(Default)]
struct Partition {
    start: u64,
    /// Shared, so that readers visit them without the lock.
    records: VecDeque<Arc<Stored>>,
}

impl Partition {
    fn end(&self) -> u64 {
        self.start + self.records.len() as u64
    }
}

/// A log in memory.
#[derive(Default)]
pub struct MemoryLog {
    topics: Mutex<BTreeMap<String, Vec<Partition>>>,
}

impl MemoryLog {
    /// A log without topics.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Partition>>> {
        // Every change is a single push or pop, so a panic elsewhere leaves nothing half done.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, topic: &str, partition: u32, f: impl FnOnce(&mut Partition) -> Result<T>) -> Result<T> {
        let mut topics = self.lock();
        let Some(all) = topics.get_mut(topic) else {
            return Err(LogError::UnknownTopic { topic: topic.to_owned() });
        };
        let partitions = all.len() as u32;
        match all.get_mut(partition as usize) {
            Some(one) => f(one),
            None => Err(LogError::UnknownPartition { topic: topic.to_owned(), partition, partitions }),
        }
    }
}

impl Log for MemoryLog {
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        check_topic_name(topic)?;
        let mut topics = self.lock();
        check_partition_count(topic, topics.get(topic).map(|all| all.len() as u32), partitions)?;
        topics
            .entry(topic.to_owned())
            .or_insert_with(|| (0..partitions).map(|_| Partition::default()).collect());
        Ok(())
    }

    fn partitions(&self, topic: &str) -> Result<u32> {
        match self.lock().get(topic) {
            Some(all) => Ok(all.len() as u32),
            None => Err(LogError::UnknownTopic { topic: topic.to_owned() }),
        }
    }

    fn topics(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn append(&self, topic: &str, partition: u32, records: &[Record], now_ms: i64) -> Result<u64> {
        self.with(topic, partition, |p| {
            let first = p.end();
            p.records.extend((first..).zip(records).map(|(offset, record)| {
                let Record { key, value } = record.clone();
                Arc::new(Stored { offset, appended_ms: now_ms, key, value })
            }));
            Ok(first)
        })
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
        let found = self.with(topic, partition, |p| {
            check_offset(topic, partition, from, p.start, p.end())?;
            let (mut found, mut bytes) = (Vec::new(), 0usize);
            for record in p.records.range((from - p.start) as usize..).take(max_records) {
                bytes = bytes.saturating_add(record.key.len() + record.value.len());
                if bytes > max_bytes && !found.is_empty() {
                    break;
                }
                found.push(Arc::clone(record));
            }
            Ok(found)
        })?;
        for record in &found {
            let Stored { offset, appended_ms, key, value } = &**record;
            each(StoredRef { offset: *offset, appended_ms: *appended_ms, key, value });
        }
        Ok(from + found.len() as u64)
    }

    fn start_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.with(topic, partition, |p| Ok(p.start))
    }

    fn end_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.with(topic, partition, |p| Ok(p.end()))
    }

    fn offset_for_time(&self, topic: &str, partition: u32, ms: i64) -> Result<u64> {
        self.with(topic, partition, |p| {
            Ok(p.records.iter().find(|r| r.appended_ms >= ms).map_or(p.end(), |r| r.offset))
        })
    }

    fn truncate_before(&self, topic: &str, partition: u32, offset: u64) -> Result<u64> {
        self.with(topic, partition, |p| {
            let drop = offset.min(p.end()).saturating_sub(p.start);
            p.records.drain(..drop as usize);
            p.start += drop;
            Ok(p.start)
        })
    }
}
