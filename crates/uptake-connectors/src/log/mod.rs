//! Logs: topics of partitions of records, each at an offset that never changes.
//!
//! An append is durable when it returns and gets consecutive offsets; a read gives back what was
//! appended, in order. Retention drops the oldest records and moves the start offset; what it
//! dropped is out of range, never silently skipped. The append time comes from the caller.
//!
//! A log that others write to as well may have **holes**: offsets that never held a record for us
//! (a transaction's markers, what was aborted, what compaction removed). A read passes over them:
//! offsets rise from record to record, not always by one, and the offset to go on from may be
//! larger than the last record's by more than one. Nothing was lost there. The embedded log and
//! the one in memory have none.

mod embedded;
mod kafka;
mod memory;

pub use embedded::{Durability, EmbeddedLog, LogOptions, Recovered};
pub(crate) use kafka::is_secret;
pub use kafka::{KafkaLog, KafkaOptions, Notices};
pub use memory::MemoryLog;

use crate::error::LogError;
use crate::url::{Backend, Content};

/// The result of a log's operation.
pub type Result<T> = std::result::Result<T, LogError>;

/// What is appended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// The key, which the writer used to choose the partition; may be empty.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

impl Record {
    /// A record of a key and a value.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

/// What is read back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stored {
    /// The record's number in its partition, from 0.
    pub offset: u64,
    /// When it was appended, as the writer said: milliseconds since 1970 UTC.
    pub appended_ms: i64,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// What is read back, where it lies in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredRef<'a> {
    /// The record's number in its partition, from 0.
    pub offset: u64,
    /// When it was appended, as the writer said: milliseconds since 1970 UTC.
    pub appended_ms: i64,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

impl StoredRef<'_> {
    /// A copy that stays.
    pub fn to_stored(self) -> Stored {
        let Self { offset, appended_ms, key, value } = self;
        Stored { offset, appended_ms, key: key.to_vec(), value: value.to_vec() }
    }
}

/// How far a reader is behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lag {
    /// Offsets from the reader's position to the end (holes included).
    pub records: u64,
    /// How long ago the first of them was appended, in milliseconds; 0 where there is none.
    pub ms: i64,
}

/// A log. All methods may be called from many threads at once.
///
/// ```
/// use uptake_connectors::log::{Log, MemoryLog, Record};
/// let log = MemoryLog::new();
/// log.create_topic("plays", 2)?;
/// let first = log.append("plays", 0, &[Record::new("r1", "a"), Record::new("r2", "b")], 1_000)?;
/// assert_eq!(first, 0);
/// let read = log.read("plays", 0, 1, 100, 1 << 20)?;
/// assert_eq!((read[0].offset, read[0].value.as_slice()), (1, b"b".as_slice()));
/// assert_eq!(log.end_offset("plays", 0)?, 2);
/// # Ok::<(), uptake_connectors::LogError>(())
/// ```
pub trait Log: Send + Sync {
    /// Creates `topic` with `partitions` partitions; does nothing if it is there with as many.
    ///
    /// # Errors
    /// The name has other characters than `[a-z0-9._-]`, or the topic has another number of
    /// partitions.
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()>;

    /// How many partitions `topic` has.
    ///
    /// # Errors
    /// There is no such topic.
    fn partitions(&self, topic: &str) -> Result<u32>;

    /// The topics, in the order of their names.
    fn topics(&self) -> Vec<String>;

    /// Appends `records` as one unit at the time `now_ms` and returns the first one's offset
    /// (the end offset where `records` is empty). Durable on return. In a remote log they may be
    /// there twice, the second time at the offset returned, if its server was killed meanwhile.
    ///
    /// # Errors
    /// The topic or partition is unknown, the device is full, the system refuses. Nothing is
    /// left of an append that failed, except in a remote log: there a part of it may be.
    fn append(&self, topic: &str, partition: u32, records: &[Record], now_ms: i64) -> Result<u64>;

    /// Calls `each` with the records from offset `from` on: at most `max_records`, and at most
    /// `max_bytes` of keys and values unless the first record alone is larger. Returns the offset
    /// behind the last one, where the next call goes on; `from` at the end of the partition.
    /// Nothing is allocated for a record. Going on where a call stopped costs least.
    ///
    /// ```
    /// use uptake_connectors::log::{Log, MemoryLog, Record};
    /// let log = MemoryLog::new();
    /// log.create_topic("plays", 1)?;
    /// log.append("plays", 0, &[Record::new("r1", "a"), Record::new("r2", "bc")], 1_000)?;
    /// let mut bytes = 0;
    /// let next = log.read_each("plays", 0, 0, 100, 1 << 20, &mut |record| bytes += record.value.len())?;
    /// assert_eq!((next, bytes), (2, 3));
    /// # Ok::<(), uptake_connectors::LogError>(())
    /// ```
    ///
    /// # Errors
    /// `from` is below the start or beyond the end, or the stored bytes are damaged. Damage
    /// behind the first record is told by the call that begins there.
    fn read_each(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
        each: &mut dyn FnMut(StoredRef<'_>),
    ) -> Result<u64>;

    /// The records that [`Log::read_each`] visits, as copies.
    ///
    /// # Errors
    /// As [`Log::read_each`].
    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>> {
        let mut found = Vec::new();
        self.read_each(topic, partition, from, max_records, max_bytes, &mut |record| {
            found.push(record.to_stored());
        })?;
        Ok(found)
    }

    /// The first offset that is kept; the end offset where nothing is.
    ///
    /// # Errors
    /// The topic or partition is unknown.
    fn start_offset(&self, topic: &str, partition: u32) -> Result<u64>;

    /// The offset that the next record gets.
    ///
    /// # Errors
    /// The topic or partition is unknown.
    fn end_offset(&self, topic: &str, partition: u32) -> Result<u64>;

    /// The end offsets of several partitions, in their order; a remote log is asked once for all.
    ///
    /// # Errors
    /// As [`Log::end_offset`].
    fn end_offsets(&self, of: &[(&str, u32)]) -> Result<Vec<u64>> {
        of.iter().map(|&(topic, partition)| self.end_offset(topic, partition)).collect()
    }

    /// Tells the log how far topics and partitions have been read and kept, as the offset to read
    /// next: only for others to see. Does nothing unless the log has a place for it.
    ///
    /// # Errors
    /// The log cannot keep it now; nothing else depends on it.
    fn report_position(&self, positions: &[(&str, u32, u64)]) -> Result<()> {
        let _ = positions;
        Ok(())
    }

    /// How far a reader that reads `from` next is behind, at the time `now_ms`.
    ///
    /// ```
    /// use uptake_connectors::log::{Lag, Log, MemoryLog, Record};
    /// let log = MemoryLog::new();
    /// log.create_topic("plays", 1)?;
    /// log.append("plays", 0, &[Record::new("r1", "a"), Record::new("r2", "b")], 1_000)?;
    /// assert_eq!(log.lag("plays", 0, 1, 1_500)?, Lag { records: 1, ms: 500 });
    /// # Ok::<(), uptake_connectors::LogError>(())
    /// ```
    ///
    /// # Errors
    /// The topic or partition is unknown, or the stored bytes are damaged.
    fn lag(&self, topic: &str, partition: u32, from: u64, now_ms: i64) -> Result<Lag> {
        let end = self.end_offset(topic, partition)?;
        let from = from.max(self.start_offset(topic, partition)?);
        let mut lag = Lag { records: end.saturating_sub(from), ms: 0 };
        if lag.records > 0 {
            let mut age = |record: StoredRef<'_>| lag.ms = (now_ms - record.appended_ms).max(0);
            self.read_each(topic, partition, from, 1, 0, &mut age)?;
        }
        Ok(lag)
    }

    /// The offset of the first kept record appended at `ms` or later; the end offset where there
    /// is none.
    ///
    /// # Errors
    /// The topic or partition is unknown, or the stored bytes are damaged.
    fn offset_for_time(&self, topic: &str, partition: u32, ms: i64) -> Result<u64>;

    /// Drops records below `offset` as far as that is cheap (an embedded log drops whole
    /// segments) and never one at or above it. Returns the new start offset.
    ///
    /// # Errors
    /// The topic or partition is unknown, or the system refuses.
    fn truncate_before(&self, topic: &str, partition: u32, offset: u64) -> Result<u64>;
}

/// Opens the log that `backend` names; an embedded one also says what it had to repair.
///
/// # Errors
/// As [`EmbeddedLog::open`] and [`KafkaLog::open`].
pub fn open(backend: &Backend, options: LogOptions) -> Result<(Box<dyn Log>, Vec<Recovered>)> {
    match backend {
        Backend::Memory => Ok((Box::new(MemoryLog::new()), Vec::new())),
        Backend::File(directory) => {
            let (log, recovered) = EmbeddedLog::open(directory, options)?;
            Ok((Box::new(log), recovered))
        }
        Backend::Kafka { servers, options: of_url } => {
            let mut kafka = options.kafka;
            for (key, value) in of_url {
                if kafka.client.insert(key.clone(), value.clone()).is_some_and(|other| other != *value) {
                    let what = "is given in the URL and in the configuration, with different values";
                    return Err(LogError::Option { key: key.clone(), what: what.to_owned() });
                }
            }
            Ok((Box::new(KafkaLog::open(servers, kafka)?), Vec::new()))
        }
        _ => Err(backend.cannot_hold(Content::Log).into()),
    }
}

/// The one rule for names of topics, safe in a path on every file system.
fn check_topic_name(topic: &str) -> Result<()> {
    let ok = (1..=200).contains(&topic.len())
        && !topic.starts_with('.')
        && topic.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
    if ok { Ok(()) } else { Err(LogError::TopicName { topic: topic.to_owned() }) }
}

/// A topic has at least one partition and keeps its number.
fn check_partition_count(topic: &str, has: Option<u32>, asked: u32) -> Result<()> {
    if asked == 0 || has.is_some_and(|has| has != asked) {
        return Err(LogError::PartitionCount { topic: topic.to_owned(), has: has.unwrap_or(0), asked });
    }
    Ok(())
}

fn check_offset(topic: &str, partition: u32, offset: u64, start: u64, end: u64) -> Result<()> {
    if (start..=end).contains(&offset) {
        return Ok(());
    }
    Err(LogError::OffsetOutOfRange { topic: topic.to_owned(), partition, offset, start, end })
}
