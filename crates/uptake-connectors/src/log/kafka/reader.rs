//! Reading by assignment: one consumer, a queue of its own for each partition, our own offsets.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage, Timestamp};
use rdkafka::{Offset, TopicPartitionList};

use super::super::{Result, StoredRef};
use super::events::{Events, Shared, kind_of};
use crate::error::FailureKind;

/// How long a record that is there is waited for, when the fetches go on and when they just began.
const PATIENCE: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(3)];
/// How long to wait for more behind the end of a partition as the driver saw it last.
const PATIENCE_AT_END: Duration = Duration::from_millis(20);

/// One partition, and where its fetches are.
pub(super) struct PartitionReader {
    shared: Arc<Shared>,
    consumer: Arc<BaseConsumer<Events>>,
    queue: PartitionQueue<Events>,
    /// As the brokers know it.
    topic: String,
    partition: i32,
    assigned: bool,
    /// What the queue gives next is at or behind it.
    next: u64,
    /// Taken from the queue and not handed out.
    held: Option<OwnedMessage>,
}

/// How a read ended.
pub(super) enum Read {
    /// All below this offset was handed out, or is a hole.
    To(u64),
    /// The brokers do not hold the offset it began at.
    OutOfRange,
}

/// What limits a read.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// An end of the partition that was seen before the read.
    pub(super) end: u64,
}

impl PartitionReader {
    pub(super) fn new(
        shared: &Arc<Shared>,
        consumer: &Arc<BaseConsumer<Events>>,
        topic: String,
        partition: u32,
    ) -> Option<Self> {
        let partition = i32::try_from(partition).ok()?;
        // The queue is split off before the partition is assigned, so that nothing of it ever
        // comes to the consumer's common queue.
        let queue = consumer.split_partition_queue(&topic, partition)?;
        let (shared, consumer) = (Arc::clone(shared), Arc::clone(consumer));
        Some(Self { shared, consumer, queue, topic, partition, assigned: false, next: 0, held: None })
    }

    /// Hands the records from `from` on to `each`.
    pub(super) fn read(
        &mut self,
        from: u64,
        limits: Limits,
        each: &mut dyn FnMut(StoredRef<'_>),
    ) -> Result<Read> {
        // Whether the fetches were begun at `next` after the end was asked for: then an end of the
        // partition that the driver tells is not an older one.
        let mut begun = false;
        if !self.assigned || from != self.next {
            self.begin(from)?;
            begun = true;
        }
        let (mut records, mut bytes) = (0, 0usize);
        let mut at_end = false;
        while records < limits.records && self.next < limits.end {
            if let Some(held) = self.held.take() {
                let size = size(&held);
                if offset(&held) >= limits.end {
                    self.held = Some(held);
                    self.next = limits.end;
                    break;
                }
                if records > 0 && bytes.saturating_add(size) > limits.bytes {
                    self.held = Some(held);
                    break;
                }
                (records, bytes) = (records + 1, bytes.saturating_add(size));
                self.next = offset(&held) + 1;
                each(stored(&held));
                continue;
            }
            let patience = if at_end { PATIENCE_AT_END } else { PATIENCE[usize::from(begun)] };
            match self.queue.poll(patience) {
                Some(Ok(message)) => {
                    (begun, at_end) = (false, false);
                    let (at, size) = (offset(&message), size(&message));
                    if at < self.next {
                        continue;
                    }
                    if at >= limits.end || (records > 0 && bytes.saturating_add(size) > limits.bytes) {
                        self.held = Some(message.detach());
                        continue;
                    }
                    (records, bytes) = (records + 1, bytes.saturating_add(size));
                    self.next = at + 1;
                    each(stored(&message));
                }
                // All up to the end is holes: markers and records of transactions, or compacted.
                Some(Err(KafkaError::PartitionEOF(_))) if begun => self.next = limits.end,
                Some(Err(KafkaError::PartitionEOF(_))) => at_end = true,
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        self.end();
                        if records == 0 {
                            return Ok(Read::OutOfRange);
                        }
                        break;
                    }
                    Some(code) if kind_of(code) == FailureKind::Transient => {}
                    _ if records > 0 => break,
                    _ => {
                        self.end();
                        return Err(self.shared.failed(self.operation(), &error));
                    }
                },
                // The end that was told may be an older one: begin again, and hear it anew.
                None if at_end => {
                    self.begin(self.next)?;
                    (begun, at_end) = (true, false);
                }
                None => break,
            }
        }
        Ok(Read::To(self.next))
    }

    fn operation(&self) -> String {
        format!("read topic {} partition {} of", self.topic, self.partition)
    }

    /// Makes the fetches begin at an offset; what was fetched before is dropped.
    fn begin(&mut self, offset: u64) -> Result<()> {
        self.held = None;
        let at = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        let sought = self.assigned
            && self.consumer.seek(&self.topic, self.partition, at, Duration::from_secs(2)).is_ok();
        if !sought {
            self.end();
            let mut list = TopicPartitionList::new();
            let added = list.add_partition_offset(&self.topic, self.partition, at);
            added
                .and_then(|()| self.consumer.incremental_assign(&list))
                .map_err(|error| self.shared.failed(self.operation(), &error))?;
            self.assigned = true;
        }
        self.next = offset;
        Ok(())
    }

    /// Ends the fetches.
    fn end(&mut self) {
        if std::mem::take(&mut self.assigned) {
            let mut list = TopicPartitionList::new();
            list.add_partition(&self.topic, self.partition);
            // It is assigned, and a client that is gone has nothing to end.
            let _ = self.consumer.incremental_unassign(&list);
        }
        self.held = None;
    }
}

fn offset(message: &impl Message) -> u64 {
    u64::try_from(message.offset()).unwrap_or(0)
}

fn size(message: &impl Message) -> usize {
    message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len)
}

/// When a record came: by the broker, or as its producer says, who may say anything, but not later than it is read.
fn arrived(timestamp: Timestamp, now_ms: i64) -> i64 {
    match timestamp {
        Timestamp::LogAppendTime(ms) => ms,
        Timestamp::CreateTime(ms) if ms > 0 => ms.min(now_ms),
        Timestamp::CreateTime(_) | Timestamp::NotAvailable => now_ms,
    }
}

/// A record without a value (a tombstone) is one with an empty value.
fn stored(message: &impl Message) -> StoredRef<'_> {
    StoredRef {
        offset: offset(message),
        appended_ms: arrived(message.timestamp(), crate::notices::now_ms()),
        key: message.key().unwrap_or_default(),
        value: message.payload().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_cannot_let_the_future_in() {
        let now = 1_768_435_260_456;
        assert_eq!(arrived(Timestamp::CreateTime(now - 5), now), now - 5);
        assert_eq!(arrived(Timestamp::CreateTime(now + 864_000_000), now), now);
        assert_eq!(arrived(Timestamp::LogAppendTime(now + 5), now), now + 5);
        assert_eq!(arrived(Timestamp::NotAvailable, now), now);
        assert_eq!(arrived(Timestamp::CreateTime(-1), now), now);
    }
}
