//! The log as a source: each worker reads the partitions that fall to it, the one whose events
//! are furthest behind first.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use uptake_connectors::LogError;
use uptake_connectors::input::Buffer;
use uptake_connectors::log::{Log, StoredRef};
use uptake_flow::{Batch, Poll, Source};
use uptake_model::ledger::Ledger;
use uptake_model::{EventTime, RequestId};

use super::{Origin, Reader};
use crate::checkpoint::{Fragment, PartitionPosition};
use crate::clock::Moment;
use crate::config::OnGap;
use crate::outputs::notice;
use crate::stages::Arrived;

/// The partitions of the input, in the order of the ledger's numbers, and where to begin.
#[derive(Clone, Debug)]
pub struct LogInput {
    /// Where each partition is read on.
    pub partitions: Vec<PartitionPosition>,
    /// Where to stop: for each partition the offset that is not read any more. Without it the
    /// input never ends.
    pub until: Option<Vec<u64>>,
}

/// About how many bytes are read at once: they stay in a core's cache until they are decoded.
const READ_BYTES: usize = 256 << 10;
/// Records of one read.
const READ_RECORDS: usize = 16_384;

struct Partition {
    /// In the ledger and for the watermark.
    number: u32,
    topic: Arc<str>,
    partition: u32,
    /// To be read next.
    offset: u64,
    /// As the log said at the start of the batch.
    end: u64,
    until: Option<u64>,
    newest: Option<EventTime>,
    /// What is there did not come when it was asked for: a later batch asks again. It is not
    /// read up, so the watermark waits for it.
    stalled: bool,
    /// Since when the log has ended before the offset that is to be read next.
    beyond: Option<Moment>,
}

impl Partition {
    fn is_read_up(&self) -> bool {
        self.offset >= self.end && self.beyond.is_none()
    }

    fn went_back(&self, end: u64, since: Duration) -> String {
        format!(
            "{}/{} has ended at offset {end} for {} s, and {} is to be read next: the log lost records that were read, \
             or the topic was made anew; run again to go on as input.on_gap says (--supervise does)",
            self.topic,
            self.partition,
            since.as_secs(),
            self.offset
        )
    }
}

/// One worker's part of reading the log.
pub(super) struct LogSource {
    log: Arc<dyn Log>,
    reader: Reader,
    partitions: Vec<Partition>,
    /// Whether the input has an end.
    ends: bool,
    batch: Option<u64>,
    chunk: Chunk,
    /// The partitions of the whole input by topic, and when they were counted last.
    counted: (Vec<(Arc<str>, u32)>, Moment),
}

/// For so long a log may end before what is to be read next: a replica that has just taken over may not know yet how
/// far it goes. After that it has lost records.
const BEYOND_MAX: Duration = Duration::from_secs(10);

/// How often it is looked for new partitions.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// Which partition is read next.
enum Turn {
    /// This one, by its place here.
    Of(usize),
    /// None now: those that have more are too far ahead of what others read.
    Wait,
    /// All have been read to their end.
    Nobody,
}

/// Records of one read that are decoded together.
#[derive(Default)]
struct Chunk {
    lines: Buffer,
    /// The first record's offset and time; all have the same time, and offsets without a hole.
    first: u64,
    appended_ms: i64,
    records: usize,
}

impl LogSource {
    pub(super) fn new(
        log: Arc<dyn Log>,
        input: &LogInput,
        worker: usize,
        workers: usize,
        reader: Reader,
    ) -> Self {
        // Those of topics that are no longer configured keep their place in ledger and checkpoints, and nothing more.
        let is_read = |topic: &str| reader.config.reads(topic);
        let read = input.partitions.iter().enumerate().filter(|(_, position)| is_read(&position.topic));
        let mine = read.filter(|(number, _)| number % workers == worker);
        let partitions = mine.map(|(number, position)| Partition {
            number: number as u32,
            topic: position.topic.as_str().into(),
            partition: position.partition,
            offset: position.offset,
            end: 0,
            until: input.until.as_ref().and_then(|until| until.get(number).copied()),
            newest: position.newest,
            stalled: false,
            beyond: None,
        });
        let partitions = partitions.collect();
        let mut counted: Vec<(Arc<str>, u32)> = Vec::new();
        for position in input.partitions.iter().filter(|position| is_read(&position.topic)) {
            match counted.iter_mut().find(|(topic, _)| **topic == *position.topic) {
                Some((_, partitions)) => *partitions = (*partitions).max(position.partition + 1),
                None => counted.push((position.topic.as_str().into(), position.partition + 1)),
            }
        }
        let counted = (counted, reader.outlets.clock.moment());
        Self {
            log,
            reader,
            partitions,
            ends: input.until.is_some(),
            batch: None,
            chunk: Chunk::default(),
            counted,
        }
    }

    /// Asks how far each partition goes, and says which have been read to their end.
    fn begin_batch(
        &mut self,
        batch: &mut Batch<'_, (RequestId, Arrived)>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.look_for_new_partitions()?;
        let of: Vec<(&str, u32)> = self.partitions.iter().map(|p| (&*p.topic, p.partition)).collect();
        let ends = self.log.end_offsets(&of)?;
        let clock = &self.reader.outlets.clock;
        for (partition, end) in self.partitions.iter_mut().zip(ends) {
            partition.beyond =
                (end < partition.offset).then(|| partition.beyond.unwrap_or_else(|| clock.moment()));
            if let Some(since) = partition.beyond.filter(|since| clock.since(*since) > BEYOND_MAX) {
                return Err(partition.went_back(end, clock.since(since)).into());
            }
            partition.end = partition.until.map_or(end, |until| until.min(end));
            partition.stalled = false;
            batch.progress(partition.number, partition.newest, partition.is_read_up());
        }
        Ok(())
    }

    /// A partition gets its number in the ledger when a run begins, so that all workers and
    /// checkpoints agree on it: a new one ends this run, and the next one reads it from its start.
    fn look_for_new_partitions(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        let (counted, last) = &mut self.counted;
        let clock = &self.reader.outlets.clock;
        if self.ends || self.reader.worker != 0 || clock.since(*last) < COUNT_EVERY {
            return Ok(());
        }
        *last = clock.moment();
        for (topic, before) in counted {
            let now = self.log.partitions(topic)?;
            if now > *before {
                return Err(format!(
                    "topic {topic} has {now} partitions now, {before} when this run began; run again to go on \
                     from the last checkpoint with all of them (--supervise does)"
                )
                .into());
            }
        }
        Ok(())
    }

    /// The partition to read next: of those that have more the one that is furthest behind in
    /// event time, unless even that is too far ahead of what others read.
    fn turn(&self, watermark: EventTime) -> Turn {
        let open = self.partitions.iter().enumerate().filter(|(_, p)| !p.is_read_up());
        let key = |p: &Partition| (p.stalled || p.beyond.is_some(), p.newest);
        let Some((index, furthest_behind)) = open.min_by_key(|(_, p)| key(p)) else {
            return Turn::Nobody;
        };
        if furthest_behind.stalled || furthest_behind.beyond.is_some() {
            return Turn::Wait;
        }
        let config = &self.reader.config;
        let ahead =
            |newest: EventTime| newest.minus(config.join.lateness_ms) > watermark.plus(config.input_pace_ms);
        if watermark > EventTime::MIN && furthest_behind.newest.is_some_and(ahead) {
            return Turn::Wait;
        }
        Turn::Of(index)
    }

    /// Retention dropped what was to be read next.
    fn gap(&mut self, index: usize, start: u64) -> Result<(), Box<dyn Error + Send + Sync>> {
        let partition = &mut self.partitions[index];
        let lost = start.saturating_sub(partition.offset);
        let (topic, number) = (&partition.topic, partition.partition);
        if self.reader.config.on_gap == OnGap::Stop {
            return Err(format!(
                "the log dropped {lost} records of {topic}/{number} before they were read (offsets {} to {}). \
                 To go on without them set input.on_gap=declare",
                partition.offset,
                start - 1
            )
            .into());
        }
        notice(&format!(
            "{topic}/{number}: the log dropped {lost} records before they were read; declared as a gap in the ledger"
        ));
        self.reader.books.ledger.account(partition.number).add_gap(lost);
        partition.offset = start;
        Ok(())
    }

    /// Reads and decodes a piece of a partition.
    fn read(
        &mut self,
        index: usize,
        room: usize,
        batch: &mut Batch<'_, (RequestId, Arrived)>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let partition = &mut self.partitions[index];
        let to_end = usize::try_from(partition.end - partition.offset).unwrap_or(usize::MAX);
        let records_max = room.min(READ_RECORDS).min(to_end);
        let (number, from) = (partition.number, partition.offset);
        let (chunk, reader) = (&mut self.chunk, &mut self.reader);
        let place = Origin {
            source: &partition.topic,
            partition: partition.partition,
            first: 0,
            of_one_record: false,
        };
        let mut newest = None;
        let mut decoded = 0;
        let read = self.log.read_each(
            &partition.topic,
            partition.partition,
            from,
            records_max,
            READ_BYTES,
            &mut |record| {
                decoded += 1;
                let alone = record.value.contains(&b'\n');
                if alone || !chunk.is_followed_by(&record) {
                    newest = newest.max(chunk.decode(reader, batch, number, place));
                }
                if alone {
                    newest = newest.max(decode_alone(reader, batch, number, place, &record));
                } else {
                    chunk.add(&record);
                }
            },
        );
        newest = newest.max(chunk.decode(reader, batch, number, place));
        partition.newest = partition.newest.max(newest);
        match read {
            Ok(next) => {
                partition.stalled = next == from;
                partition.offset = next;
            }
            Err(LogError::OffsetOutOfRange { start, offset, .. }) if offset < start => {
                return self.gap(index, start);
            }
            Err(error) => return Err(error.into()),
        }
        batch.progress(number, newest, partition.is_read_up());
        self.reader.took(decoded)
    }
}

impl Chunk {
    /// Whether the record may be decoded together with those here.
    fn is_followed_by(&self, record: &StoredRef<'_>) -> bool {
        self.records == 0
            || (self.appended_ms == record.appended_ms && self.first + self.records as u64 == record.offset)
    }

    fn add(&mut self, record: &StoredRef<'_>) {
        if self.records == 0 {
            (self.first, self.appended_ms) = (record.offset, record.appended_ms);
        }
        self.lines.extend_from_slice(record.value);
        self.lines.extend_from_slice(b"\n");
        self.records += 1;
    }

    fn decode(
        &mut self,
        reader: &mut Reader,
        batch: &mut Batch<'_, (RequestId, Arrived)>,
        number: u32,
        place: Origin<'_>,
    ) -> Option<EventTime> {
        if self.records == 0 {
            return None;
        }
        let place = Origin { first: self.first, ..place };
        let newest = reader.decode(batch, number, &self.lines, EventTime(self.appended_ms), place);
        self.lines.clear();
        self.records = 0;
        newest
    }
}

/// A record of several lines: one event with line breaks in it, or an event on each line.
fn decode_alone(
    reader: &mut Reader,
    batch: &mut Batch<'_, (RequestId, Arrived)>,
    number: u32,
    place: Origin<'_>,
    record: &StoredRef<'_>,
) -> Option<EventTime> {
    let arrived = EventTime(record.appended_ms);
    let place = Origin { first: record.offset, of_one_record: true, ..place };
    let is_one = serde_json::from_slice::<&serde_json::value::RawValue>(record.value).is_ok();
    if !is_one {
        return reader.decode(batch, number, record.value, arrived, place);
    }
    // Between the parts of a JSON text a line break is as good as a space, and inside of a string
    // there can be none.
    let line: Vec<u8> =
        record.value.iter().map(|&b| if matches!(b, b'\n' | b'\r') { b' ' } else { b }).collect();
    reader.decode(batch, number, &line, arrived, place)
}

impl Source<(RequestId, Arrived)> for LogSource {
    /// The next offset of each partition and the newest event time before it, and the books.
    type Position = (Vec<(u32, u64, Option<EventTime>)>, Ledger);

    fn position(&self) -> Self::Position {
        let offsets = self.partitions.iter().map(|p| (p.number, p.offset, p.newest)).collect();
        (offsets, self.reader.books.ledger.clone())
    }

    fn checkpoint(&mut self, number: u64, (offsets, ledger): Self::Position) {
        self.reader.submit(number, ledger, Fragment::Log(offsets));
    }

    fn poll(
        &mut self,
        batch: &mut Batch<'_, (RequestId, Arrived)>,
    ) -> Result<Poll, Box<dyn Error + Send + Sync>> {
        if self.reader.has_ended() {
            return Ok(Poll::End);
        }
        if self.batch != Some(batch.number()) {
            self.batch = Some(batch.number());
            self.begin_batch(batch)?;
        }
        let room = self.reader.room(batch);
        if room == 0 {
            self.reader.end_batch()?;
            return Ok(Poll::Full);
        }
        if self.reader.is_held_up()? {
            self.reader.end_batch()?;
            return Ok(Poll::Idle);
        }
        let index = match self.turn(batch.watermark()) {
            Turn::Of(index) => index,
            Turn::Wait => {
                self.reader.end_batch()?;
                return Ok(Poll::Full);
            }
            Turn::Nobody if self.ends => {
                self.reader.end()?;
                return Ok(Poll::End);
            }
            Turn::Nobody => {
                self.reader.end_batch()?;
                return Ok(Poll::Idle);
            }
        };
        self.read(index, room, batch)?;
        Ok(Poll::Again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_begins_a_new_chunk() {
        let record = |offset, appended_ms| StoredRef { offset, appended_ms, key: b"", value: b"{}" };
        let mut chunk = Chunk::default();
        assert!(chunk.is_followed_by(&record(7, 1)));
        chunk.add(&record(7, 1));
        chunk.add(&record(8, 1));
        assert!(chunk.is_followed_by(&record(9, 1)));
        assert!(!chunk.is_followed_by(&record(10, 1)), "the second line of a chunk is its second offset");
        assert!(!chunk.is_followed_by(&record(9, 2)), "of another time");
    }
}
