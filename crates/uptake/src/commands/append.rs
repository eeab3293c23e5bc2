//! `uptake append`: event files into the log, as a producer would write them.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use uptake_connectors::input::Block;
use uptake_connectors::log::{Durability, Log, Record};
use uptake_model::decode::{DecodeConfig, Decoder, Members, Sink};
use uptake_model::filter::Filters;
use uptake_model::segment::Segments;
use uptake_model::{DimsHash, Epoch, Event, Kind, Reason, RequestId, VideoHash};

use super::text::grouped;
use super::{CommandError, Configured, all_read, event_files};
use crate::config::{Config, UNBOUNDED};
use crate::data_dir::{self, now};
use crate::outputs::notice;

/// Append event files to the log, as a producer would
///
/// What was appended stays. After a failure append the same files again: what is in the log twice
/// counts once.
#[derive(Args, Debug)]
pub(super) struct Append {
    /// Event files (NDJSON, plain or gzip or zstd; Parquet), or folders of them, read in name order
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where the log is
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print the numbers as JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

impl Append {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.configured.load()?;
        let mut files = event_files(&self.paths)?;
        let (log, notices) = data_dir::open_log(&self.data, &config, Durability::default())?;
        notices.iter().for_each(|line| notice(line));
        let mut producer = Producer::new(&*log, &config)?;
        let mut block = Block::default();
        let mut errors = Vec::new();
        while files.next_readable_block(LINES_PER_BLOCK, &mut block, &mut errors) {
            for line in block.bytes.split(|&b| b == b'\n') {
                producer.line(line)?;
            }
            for long in &block.oversized {
                notice(&format!(
                    "{} line {}: longer than a record may be; not appended",
                    block.file,
                    long.line + 1
                ));
            }
        }
        producer.flush()?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let topics: serde_json::Map<_, _> =
                producer.appended.iter().map(|(topic, n)| (topic.clone(), (*n).into())).collect();
            writeln!(out, "{}", serde_json::json!({ "appended": topics }))?;
        } else {
            for (topic, n) in &producer.appended {
                writeln!(out, "{} records appended to {topic}", grouped(*n))?;
            }
        }
        out.flush()?;
        all_read(errors)
    }
}

const LINES_PER_BLOCK: usize = 16_384;
/// Records that wait to be appended to one partition together, in bytes.
const APPEND_BYTES: usize = 1 << 20;

/// Writes events to the partition that their request falls to.
pub(super) struct Producer<'a> {
    log: &'a dyn Log,
    /// The topic of impressions and that of plays, which may be one.
    topics: [String; 2],
    partitions: [u32; 2],
    decoder: Decoder,
    /// By topic and partition: what waits, and how many bytes that is.
    waiting: BTreeMap<(usize, u32), (Vec<Record>, usize)>,
    /// How many records were appended, by topic.
    pub(super) appended: BTreeMap<String, u64>,
}

impl<'a> Producer<'a> {
    pub(super) fn new(log: &'a dyn Log, config: &Config) -> Result<Self, CommandError> {
        let first = config.input_topics.first().cloned().unwrap_or_default();
        let last = config.input_topics.last().cloned().unwrap_or_default();
        let topics = [first, last];
        let partitions = [log.partitions(&topics[0])?, log.partitions(&topics[1])?];
        // A producer judges nothing: it only looks for the request and the kind.
        let decode = DecodeConfig { future_max_ms: UNBOUNDED, ..(*config.decode).clone() };
        let segments = Segments::default();
        let decoder = Decoder::new(decode.into(), &segments, &Filters::none(), config.epoch, Members::None);
        let appended = topics.iter().map(|topic| (topic.clone(), 0)).collect();
        Ok(Self { log, topics, partitions, decoder, waiting: BTreeMap::new(), appended })
    }

    /// Takes a line: an event, or an array of them, or what only the reader will refuse.
    pub(super) fn line(&mut self, line: &[u8]) -> Result<(), CommandError> {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        // The events of an array may be of different requests, each with a partition of its own.
        if line.trim_ascii_start().first() == Some(&b'[')
            && let Ok(elements) = serde_json::from_slice::<Vec<&serde_json::value::RawValue>>(line)
        {
            return elements.into_iter().try_for_each(|element| self.record(element.get().as_bytes()));
        }
        self.record(line)
    }

    fn record(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        let mut found = Found(None);
        self.decoder.decode_block(bytes, now(), 0, &mut found);
        // What cannot be read goes to the reader all the same, who keeps it as a dead letter.
        let (topic, key, request) = match found.0 {
            Some(event) if event.kind == Kind::Play => (1, event.request.to_string(), event.request),
            Some(event) => (0, event.request.to_string(), event.request),
            None => (0, String::new(), RequestId(0)),
        };
        let topic = if self.topics[0] == self.topics[1] { 0 } else { topic };
        let partition = request.partition(self.partitions[topic]);
        let (records, size) = self.waiting.entry((topic, partition)).or_default();
        *size += bytes.len();
        records.push(Record::new(key, bytes));
        if *size >= APPEND_BYTES {
            self.append(topic, partition)?;
        }
        Ok(())
    }

    fn append(&mut self, topic: usize, partition: u32) -> Result<(), CommandError> {
        if let Some((records, _)) = self.waiting.remove(&(topic, partition)) {
            self.log.append(&self.topics[topic], partition, &records, now().0)?;
            *self.appended.entry(self.topics[topic].clone()).or_default() += records.len() as u64;
        }
        Ok(())
    }

    /// Appends what waits.
    pub(super) fn flush(&mut self) -> Result<(), CommandError> {
        while let Some((&(topic, partition), _)) = self.waiting.first_key_value() {
            self.append(topic, partition)?;
        }
        Ok(())
    }
}

/// The event that a line is, if it is one.
struct Found(Option<Event>);

impl Sink for Found {
    fn event(&mut self, event: Event) {
        self.0 = Some(event);
    }
    fn dead(&mut self, _: usize, _: Reason, _: &[u8]) {}
    fn filtered(&mut self, _: usize) {}
    fn blank(&mut self) {}
    fn video(&mut self, _: VideoHash, _: &str, _: Epoch) {}
    fn dims(&mut self, _: DimsHash, _: &[&str], _: Epoch) {}
}
