//! The log on disk: `DIR/log/TOPIC/PARTITION/FIRST-OFFSET.log`.
//!
//! Any number of processes may have the log open, read it and append to it; each sees what the
//! others appended, began and dropped. A frame that broke off at the end of a partition's last
//! segment is not read, and cut away by who opens the log or appends next; damage anywhere else
//! is an error.

mod cursor;
mod frame;
mod partition;
mod segment;
mod state;
mod tape;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use partition::Partition;

use super::{KafkaOptions, Log, Record, Result, StoredRef, check_partition_count, check_topic_name};
use crate::error::LogError;
use crate::faults::point;
use crate::files;

/// The file that says a topic is complete, and how many partitions it has.
const TOPIC_FILE: &str = "partitions";

/// What an append survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// The end of the process: the system has the bytes. A power cut may lose the last seconds.
    #[default]
    Process,
    /// A power cut: the device has the bytes. Every append waits for it (0.1 to 10 ms); readers
    /// do not, and may see it before.
    Power,
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Of an embedded log: what an append survives.
    pub durability: Durability,
    /// Of an embedded log: when a segment file has as many bytes, the next append begins a new one.
    pub segment_bytes: u64,
    /// Of a log in Kafka.
    pub kafka: KafkaOptions,
}

/// What a partition needs of it.
#[derive(Clone, Copy, Debug)]
struct Keeping {
    durability: Durability,
    segment_bytes: u64,
}

impl Default for LogOptions {
    /// Survives the process; segments of 64 MiB, the unit in which retention drops records.
    fn default() -> Self {
        Self { durability: Durability::Process, segment_bytes: 64 << 20, kafka: KafkaOptions::default() }
    }
}

/// What opening a log had to cut away: an append that broke off before it was acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The segment file.
    pub path: PathBuf,
    /// How many bytes were cut off its end.
    pub bytes_cut: u64,
}

/// A log in a directory.
#[derive(Debug)]
pub struct EmbeddedLog {
    directory: PathBuf,
    options: Keeping,
    /// Those that were asked for; others may be on disk.
    topics: RwLock<BTreeMap<String, Topic>>,
}

type Topic = Arc<[Partition]>;

impl EmbeddedLog {
    /// Opens the log in `directory/log`, making it where there is none; also says what it had to
    /// cut away. Reads the last segment of every partition, and waits for those that append
    /// meanwhile.
    ///
    /// # Errors
    /// A file is damaged, or the system refuses.
    pub fn open(directory: &Path, options: LogOptions) -> Result<(Self, Vec<Recovered>)> {
        let directory = directory.join("log");
        files::make_directories(&directory)?;
        let LogOptions { durability, segment_bytes, .. } = options;
        let options = Keeping { durability, segment_bytes };
        let log = Self { directory, options, topics: RwLock::default() };
        let mut recovered = Vec::new();
        for topic in log.topics_on_disk()? {
            for (partition, opened) in (0..).zip(log.topic(&topic)?.iter()) {
                if let Some((path, bytes_cut)) = opened.repair()? {
                    recovered.push(Recovered { topic: topic.clone(), partition, path, bytes_cut });
                }
            }
        }
        Ok((log, recovered))
    }

    /// The topics that are complete. Without its file a topic is being made, or was when the
    /// process ended.
    fn topics_on_disk(&self) -> Result<BTreeSet<String>> {
        let mut topics = BTreeSet::new();
        for path in files::list(&self.directory)? {
            let topic = files::file_name(&path);
            if check_topic_name(&topic).is_ok() && path.join(TOPIC_FILE).exists() {
                topics.insert(topic);
            }
        }
        Ok(topics)
    }

    fn known(&self, topic: &str) -> Option<Topic> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }

    /// The topic, if this process knows it or finds it on disk.
    fn find(&self, topic: &str) -> Result<Option<Topic>> {
        if let Some(known) = self.known(topic) {
            return Ok(Some(known));
        }
        if check_topic_name(topic).is_err() {
            return Ok(None);
        }
        let Some(count) = read_partition_count(&self.directory.join(topic))? else { return Ok(None) };
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Some(topics.entry(topic.to_owned()).or_insert_with(|| self.partitions_of(topic, count)).clone()))
    }

    fn partitions_of(&self, topic: &str, count: u32) -> Topic {
        let directory = self.directory.join(topic);
        let partition =
            |number: u32| Partition::new(&directory.join(number.to_string()), topic, number, self.options);
        (0..count).map(partition).collect()
    }

    fn topic(&self, topic: &str) -> Result<Topic> {
        self.find(topic)?.ok_or_else(|| LogError::UnknownTopic { topic: topic.to_owned() })
    }

    fn with<T>(&self, topic: &str, partition: u32, f: impl FnOnce(&Partition) -> Result<T>) -> Result<T> {
        let all = self.topic(topic)?;
        match all.get(partition as usize) {
            Some(one) => f(one),
            None => Err(LogError::UnknownPartition {
                topic: topic.to_owned(),
                partition,
                partitions: all.len() as u32,
            }),
        }
    }
}

impl Log for EmbeddedLog {
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        check_topic_name(topic)?;
        let count = |all: Topic| all.len() as u32;
        let mut has = self.find(topic)?.map(count);
        check_partition_count(topic, has, partitions)?;
        if has.is_some() {
            return Ok(());
        }
        // One process at a time makes a topic; the others find it complete.
        let _held = files::hold(&self.directory.join(".lock"))?;
        has = self.find(topic)?.map(count);
        check_partition_count(topic, has, partitions)?;
        if has.is_some() {
            return Ok(());
        }
        let directory = self.directory.join(topic);
        for number in 0..partitions {
            files::make_directories(&directory.join(number.to_string()))?;
        }
        for partition in self.partitions_of(topic, partitions).iter() {
            partition.repair()?;
        }
        write_partition_count(&directory, partitions)?;
        self.topic(topic).map(|_| ())
    }

    fn partitions(&self, topic: &str) -> Result<u32> {
        Ok(self.topic(topic)?.len() as u32)
    }

    fn topics(&self) -> Vec<String> {
        // Where the system refuses to list, what is known is the best answer.
        let mut topics = self.topics_on_disk().unwrap_or_default();
        topics.extend(self.topics.read().unwrap_or_else(PoisonError::into_inner).keys().cloned());
        topics.into_iter().collect()
    }

    fn append(&self, topic: &str, partition: u32, records: &[Record], now_ms: i64) -> Result<u64> {
        self.with(topic, partition, |p| p.append(records, now_ms))
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
        self.with(topic, partition, |p| p.read_each(from, max_records, max_bytes, each))
    }

    fn start_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.with(topic, partition, Partition::start)
    }

    fn end_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.with(topic, partition, Partition::end)
    }

    fn offset_for_time(&self, topic: &str, partition: u32, ms: i64) -> Result<u64> {
        self.with(topic, partition, |p| p.offset_for_time(ms))
    }

    fn truncate_before(&self, topic: &str, partition: u32, offset: u64) -> Result<u64> {
        self.with(topic, partition, |p| p.truncate_before(offset))
    }
}

fn read_partition_count(topic: &Path) -> Result<Option<u32>> {
    let path = topic.join(TOPIC_FILE);
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(LogError::Corrupt {
                path,
                position: 0,
                what: "it should hold the number of partitions".to_owned(),
            }),
        },
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(LogError::io("read", &path, e)),
    }
}

/// Under the log's lock.
fn write_partition_count(topic: &Path, partitions: u32) -> Result<()> {
    let path = topic.join(TOPIC_FILE);
    let temporary = topic.join(".partitions.tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        point("temporary file created");
        writeln!(file, "{partitions}")?;
        point("temporary file written");
        file.sync_all()
    };
    write().map_err(|e| LogError::io("write", &path, e))?;
    files::rename(&temporary, &path)?;
    Ok(files::sync_directory(topic)?)
}
