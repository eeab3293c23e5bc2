//! The log in Kafka, by the C library that most of the world runs.
//!
//! Partitions are read by assignment, at offsets that the caller keeps: there is no rebalancing,
//! and a checkpoint alone decides where a run goes on. A partition may have holes (compaction,
//! aborted transactions and their markers); what is read skips them, and the offset to go on from
//! lies behind them. Only committed records are read, and the end of a partition is the end of
//! what is committed.
//!
//! An append is acknowledged by all copies when it returns. One that failed may have left a part
//! behind, which a repeat appends again.

mod ask;
#[cfg(feature = "schema-registry")]
mod avro;
#[cfg(all(test, feature = "schema-registry"))]
#[path = "../../../../../fuzz/src/avro.rs"]
mod avro_bytes;
#[cfg(all(test, feature = "schema-registry"))]
#[path = "../../../../../fuzz/src/damaged.rs"]
mod damaged;
mod events;
mod options;
mod reader;
#[cfg_attr(not(feature = "schema-registry"), path = "no_schemas.rs")]
mod schemas;
mod wait;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::BaseConsumer;

pub(crate) use options::is_secret;
pub use options::{KafkaOptions, Notices};

use self::ask::Asker;
use self::events::{Events, Shared};
use self::reader::{Limits, PartitionReader, Read};
use self::schemas::Schemas;
use self::writer::Writer;
use super::{Lag, Log, Record, Result, StoredRef, check_partition_count, check_topic_name};
use crate::error::LogError;

/// A log in Kafka.
///
/// ```no_run
/// use uptake_connectors::log::{KafkaLog, KafkaOptions, Log, Record};
/// let log = KafkaLog::open(&["localhost:9092".into()], KafkaOptions::default())?;
/// log.create_topic("plays", 4)?;
/// log.append("plays", 0, &[Record::new("r1", "{}")], 1_768_435_200_123)?;
/// # Ok::<(), uptake_connectors::LogError>(())
/// ```
pub struct KafkaLog {
    shared: Arc<Shared>,
    servers: String,
    asker: Asker,
    writer: Writer,
    /// Of a registry, if records are written by schemas.
    schemas: Option<Schemas>,
    /// Made with the first read.
    reading: OnceLock<Arc<BaseConsumer<Events>>>,
    /// Those that were asked for.
    topics: RwLock<BTreeMap<String, Partitions>>,
    pump: Pump,
}

/// Of a topic. When there are more, the first ones stay as they are, with their readers.
type Partitions = Arc<[Arc<Partition>]>;

#[derive(Default)]
struct Partition {
    /// An end that was seen; there may be more by now.
    end: AtomicU64,
    reader: Mutex<Option<PartitionReader>>,
}

impl fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaLog").field("url", &self.shared.url).finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// Opens the log at `servers`, each a `host:port`.
    ///
    /// # Errors
    /// An option is unknown or contradicts how a log works; no broker answers within
    /// [`KafkaOptions::ask_timeout`]; the brokers refuse the login.
    pub fn open(servers: &[String], options: KafkaOptions) -> Result<Self> {
        options.check()?;
        let schemas =
            options.schema_registry.as_deref().map(|url| Schemas::new(url, &options)).transpose()?;
        let servers = servers.join(",");
        let shared = Shared::new(format!("kafka://{servers}"), options);
        let writer = Writer::new(Arc::clone(&shared), servers.clone());
        let consumer = consumer(&shared, &servers)?;
        let pump = Pump::start();
        let asker = Asker::new(Arc::clone(&shared), servers.clone(), consumer);
        asker.reach()?;
        pump.add(&asker.consumer);
        let (reading, topics) = (OnceLock::new(), RwLock::default());
        Ok(Self { shared, servers, asker, writer, schemas, reading, topics, pump })
    }

    /// The topic's name as the brokers know it.
    fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.shared.options.topic_prefix)
    }

    fn reading(&self) -> Result<&Arc<BaseConsumer<Events>>> {
        if let Some(made) = self.reading.get() {
            return Ok(made);
        }
        let made = consumer(&self.shared, &self.servers)?;
        let used = self.reading.get_or_init(|| made);
        self.pump.add(used);
        Ok(used)
    }

    fn known(&self, topic: &str) -> Option<Partitions> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }

    /// The topic's partitions: as known, where that is enough for `partition`.
    fn topic(&self, topic: &str, partition: u32) -> Result<Partitions> {
        if let Some(known) = self.known(topic)
            && (partition as usize) < known.len()
        {
            return Ok(known);
        }
        let partitions = self.partitions(topic)?;
        if partition >= partitions {
            return Err(LogError::UnknownPartition { topic: topic.to_owned(), partition, partitions });
        }
        self.known(topic).ok_or_else(|| LogError::UnknownTopic { topic: topic.to_owned() })
    }

    /// Keeps how many partitions a topic has.
    fn learn(&self, topic: &str, partitions: u32) {
        if self.known(topic).is_some_and(|known| known.len() == partitions as usize) {
            return;
        }
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let before = topics.get(topic).map(|known| known.to_vec()).unwrap_or_default();
        let made = (0..partitions as usize).map(|n| before.get(n).cloned().unwrap_or_default());
        let made = made.collect();
        topics.insert(topic.to_owned(), made);
    }

    fn offset_at(&self, topic: &str, partition: u32, at: Offset) -> Result<Option<u64>> {
        self.topic(topic, partition)?;
        Ok(self.asker.offsets(&[(self.name(topic), partition)], at)?.pop().flatten())
    }

    /// The records as they are in the log.
    fn read_raw(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
        each: &mut dyn FnMut(StoredRef<'_>),
    ) -> Result<u64> {
        if max_records == 0 {
            return Ok(from);
        }
        let known = self.topic(topic, partition)?;
        let of = &known[partition as usize];
        let mut end = of.end.load(Ordering::Acquire);
        if from >= end {
            end = self.end_offset(topic, partition)?;
            if from == end {
                return Ok(from);
            }
            if from > end {
                return Err(self.out_of_range(topic, partition, from)?);
            }
        }
        let mut reader = of.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if reader.is_none() {
            *reader = PartitionReader::new(&self.shared, self.reading()?, self.name(topic), partition);
        }
        let Some(reader) = &mut *reader else {
            return Err(LogError::UnknownTopic { topic: topic.to_owned() });
        };
        let limits = Limits { records: max_records, bytes: max_bytes, end };
        for _ in 0..TRIES {
            if let Read::To(next) = reader.read(from, limits, each)? {
                return Ok(next);
            }
            let error = self.out_of_range(topic, partition, from)?;
            if !matches!(&error, LogError::OffsetOutOfRange { start, end, .. } if (start..=end).contains(&&from))
            {
                return Err(error);
            }
        }
        Ok(from)
    }

    fn out_of_range(&self, topic: &str, partition: u32, offset: u64) -> Result<LogError> {
        let start = self.start_offset(topic, partition)?;
        let end = self.end_offset(topic, partition)?.max(start);
        Ok(LogError::OffsetOutOfRange { topic: topic.to_owned(), partition, offset, start, end })
    }
}

fn consumer(shared: &Arc<Shared>, servers: &str) -> Result<Arc<BaseConsumer<Events>>> {
    let config = shared.options.reading(servers);
    let made = config.create_with_context(Events(Arc::clone(shared)));
    Ok(Arc::new(made.map_err(|error| shared.failed("reach", &error))?))
}

/// How often a reader that the brokers sent away from an offset they hold tries again.
const TRIES: usize = 3;

impl Log for KafkaLog {
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        check_topic_name(topic)?;
        let name = self.name(topic);
        let has = self.asker.describe(&name, topic)?.map(|found| found.partitions);
        check_partition_count(topic, has, partitions)?;
        if has.is_none() {
            self.asker.create(&name, topic, partitions)?;
        }
        // The brokers learn of a topic one after the other.
        let until = Instant::now() + self.shared.options.ask_timeout;
        loop {
            if let Some(found) = self.asker.describe(&name, topic)?
                && found.complete
            {
                check_partition_count(topic, Some(found.partitions), partitions)?;
                self.learn(topic, partitions);
                return Ok(());
            }
            if Instant::now() >= until {
                let operation = format!("find a leader for each partition of topic {topic} at");
                return Err(self.shared.late(operation, self.shared.options.ask_timeout));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn partitions(&self, topic: &str) -> Result<u32> {
        match self.asker.describe(&self.name(topic), topic)? {
            Some(found) => {
                self.learn(topic, found.partitions);
                Ok(found.partitions)
            }
            None => Err(LogError::UnknownTopic { topic: topic.to_owned() }),
        }
    }

    fn topics(&self) -> Vec<String> {
        let prefix = &self.shared.options.topic_prefix;
        let names = self.asker.names().unwrap_or_else(|error| {
            self.shared.options.notices.tell(&error.to_string());
            Vec::new()
        });
        let own = names.iter().filter_map(|name| name.strip_prefix(prefix.as_str()));
        let mut topics: Vec<String> = own
            .filter(|topic| check_topic_name(topic).is_ok() && !topic.starts_with("__"))
            .map(str::to_owned)
            .collect();
        topics.sort_unstable();
        topics
    }

    fn append(&self, topic: &str, partition: u32, records: &[Record], now_ms: i64) -> Result<u64> {
        if records.is_empty() {
            return self.end_offset(topic, partition);
        }
        let known = self.topic(topic, partition)?;
        let first = self.writer.append(&self.name(topic), partition, records, now_ms)?;
        known[partition as usize].end.fetch_max(first + records.len() as u64, Ordering::AcqRel);
        Ok(first)
    }

    /// Reads until a limit, or until a record that is there does not come for half a second. The
    /// visitor must not read the same partition.
    fn read_each(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
        each: &mut dyn FnMut(StoredRef<'_>),
    ) -> Result<u64> {
        let Some(schemas) = &self.schemas else {
            return self.read_raw(topic, partition, from, max_records, max_bytes, each);
        };
        let mut failed = None;
        let mut decoded = |record: StoredRef<'_>| {
            // Whoever asks again begins with the record that failed.
            if failed.is_some() {
                return;
            }
            match schemas.json(record.value) {
                Ok(None) => each(record),
                Ok(Some(json)) => each(StoredRef { value: &json, ..record }),
                Err(error) => failed = Some(error),
            }
        };
        let next = self.read_raw(topic, partition, from, max_records, max_bytes, &mut decoded)?;
        failed.map_or(Ok(next), Err)
    }

    fn start_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        Ok(self.offset_at(topic, partition, Offset::Beginning)?.unwrap_or(0))
    }

    fn end_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        Ok(self.end_offsets(&[(topic, partition)])?.pop().unwrap_or(0))
    }

    fn end_offsets(&self, of: &[(&str, u32)]) -> Result<Vec<u64>> {
        let mut asked = Vec::with_capacity(of.len());
        for &(topic, partition) in of {
            self.topic(topic, partition)?;
            asked.push((self.name(topic), partition));
        }
        let ends = self.asker.offsets(&asked, Offset::End)?;
        let ends: Vec<u64> = ends.into_iter().map(|end| end.unwrap_or(0)).collect();
        for (&(topic, partition), &end) in of.iter().zip(&ends) {
            if let Some(known) = self.known(topic) {
                known[partition as usize].end.store(end, Ordering::Release);
            }
        }
        Ok(ends)
    }

    fn offset_for_time(&self, topic: &str, partition: u32, ms: i64) -> Result<u64> {
        // Below zero the protocol has other meanings.
        match self.offset_at(topic, partition, Offset::Offset(ms.max(0)))? {
            Some(offset) => Ok(offset),
            None => self.end_offset(topic, partition),
        }
    }

    fn truncate_before(&self, topic: &str, partition: u32, offset: u64) -> Result<u64> {
        let (start, end) = (self.start_offset(topic, partition)?, self.end_offset(topic, partition)?);
        let offset = offset.min(end);
        if offset <= start {
            return Ok(start);
        }
        self.asker.delete_before(&self.name(topic), partition, offset)?;
        self.start_offset(topic, partition)
    }

    fn report_position(&self, positions: &[(&str, u32, u64)]) -> Result<()> {
        let named = positions.iter().map(|&(topic, partition, offset)| (self.name(topic), partition, offset));
        self.asker.commit(&named.collect::<Vec<_>>())
    }

    /// The oldest record is read with a client of its own, so that the readers are not disturbed.
    fn lag(&self, topic: &str, partition: u32, from: u64, now_ms: i64) -> Result<Lag> {
        let start = self.start_offset(topic, partition)?;
        let end = self.end_offset(topic, partition)?;
        let from = from.max(start);
        let mut lag = Lag { records: end.saturating_sub(from), ms: 0 };
        if lag.records > 0 {
            let consumer = consumer(&self.shared, &self.servers)?;
            let reader = PartitionReader::new(&self.shared, &consumer, self.name(topic), partition);
            if let Some(mut reader) = reader {
                let limits = Limits { records: 1, bytes: 0, end };
                reader.read(from, limits, &mut |record| lag.ms = (now_ms - record.appended_ms).max(0))?;
            }
        }
        Ok(lag)
    }
}

type Clients = Arc<Mutex<Vec<Arc<BaseConsumer<Events>>>>>;

/// Serves what the clients have to say beside records: log lines, errors, refreshed logins.
struct Pump {
    clients: Clients,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    fn start() -> Self {
        let clients = Clients::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (of, stopped) = (Arc::clone(&clients), Arc::clone(&stop));
        let serve = move || {
            while !stopped.load(Ordering::Acquire) {
                let clients = of.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for client in clients {
                    while let Some(said) = client.poll(Duration::ZERO) {
                        // In words it came to the events already.
                        drop(said);
                    }
                }
                std::thread::park_timeout(Duration::from_millis(250));
            }
        };
        let thread = std::thread::Builder::new().name("kafka-events".to_owned()).spawn(serve).ok();
        Self { clients, stop, thread }
    }

    fn add(&self, client: &Arc<BaseConsumer<Events>>) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if !clients.iter().any(|known| Arc::ptr_eq(known, client)) {
            clients.push(Arc::clone(client));
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to tell, and a panic in it was told.
            let _ = thread.join();
        }
    }
}
