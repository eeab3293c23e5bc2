//! The log on disk: `DIR/log/TOPIC/PARTITION/FIRST-OFFSET.log`.
//!
//! A segment is a 24-byte header (magic, version, first offset) and frames, one an append:
//!
//! ```text
//! length u32 | crc32c u32 | first offset u64 | count u32 | appended_ms i64 | records
//! record: key length u32 | value length u32 | key | value
//! ```
//!
//! All numbers are little-endian; `length` counts what follows the checksum, and the checksum
//! covers the length and what follows. A frame that broke off at the end of the last segment is
//! cut away when the log is opened, and reported; damage anywhere else is an error. One process
//! at a time has the log.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::{Log, Record, Result, Stored, check_offset, check_partition_count, check_topic_name};
use crate::error::LogError;

const MAGIC: [u8; 8] = *b"uptkslog";
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 24;
/// Length and checksum, before what the length counts.
const PREFIX_BYTES: u64 = 8;
/// First offset, count and time, the least a frame can have.
const FRAME_HEAD_BYTES: u32 = 20;
/// The largest frame. Below the 4 GiB of its length field, so that a damaged length is noticed.
const FRAME_BYTES_MAX: u64 = 1 << 30;
/// A read starts at most this far before its first record.
const INDEX_EVERY_BYTES: u64 = 64 << 10;
/// The file that says a topic is complete, and how many partitions it has.
const TOPIC_FILE: &str = "partitions";

/// What an append survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// The end of the process: the system has the bytes. A power cut may lose the last seconds.
    #[default]
    Process,
    /// A power cut: the device has the bytes. Every append waits for it (0.1 to 10 ms).
    Power,
}

/// How an embedded log is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogOptions {
    /// What an append survives.
    pub durability: Durability,
    /// When a segment file has as many bytes, the next append begins a new one.
    pub segment_bytes: u64,
}

impl Default for LogOptions {
    /// Survives the process; segments of 64 MiB, the unit in which retention drops records.
    fn default() -> Self {
        Self { durability: Durability::Process, segment_bytes: 64 << 20 }
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
    options: LogOptions,
    topics: RwLock<BTreeMap<String, Topic>>,
    /// Held for the life of the log; the system lets go of it with the process.
    _lock: File,
}

type Topic = Arc<[Mutex<Partition>]>;

impl EmbeddedLog {
    /// Opens the log in `directory/log`, making it where there is none; also says what it had to
    /// cut away. Reads the last segment of every partition.
    ///
    /// # Errors
    /// Another process has it open, a file is damaged, or the system refuses.
    pub fn open(directory: &Path, options: LogOptions) -> Result<(Self, Vec<Recovered>)> {
        let directory = directory.join("log");
        make_directories(&directory)?;
        let lock = lock(&directory)?;
        let mut topics = BTreeMap::new();
        let mut recovered = Vec::new();
        for path in list(&directory)? {
            let topic = file_name(&path);
            if check_topic_name(&topic).is_err() || !path.is_dir() {
                continue;
            }
            // Without its file the topic was being made when the process ended: make it again.
            let Some(count) = read_partition_count(&path)? else { continue };
            let mut partitions = Vec::new();
            for partition in 0..count {
                let (opened, cut) = Partition::open(&path.join(partition.to_string()), options)?;
                if let Some((path, bytes_cut)) = cut {
                    recovered.push(Recovered { topic: topic.clone(), partition, path, bytes_cut });
                }
                partitions.push(Mutex::new(opened));
            }
            topics.insert(topic, partitions.into());
        }
        Ok((Self { directory, options, topics: RwLock::new(topics), _lock: lock }, recovered))
    }

    fn topic(&self, topic: &str) -> Result<Topic> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic).cloned().ok_or_else(|| LogError::UnknownTopic { topic: topic.to_owned() })
    }

    fn with<T>(&self, topic: &str, partition: u32, f: impl FnOnce(&mut Partition) -> Result<T>) -> Result<T> {
        let all = self.topic(topic)?;
        match all.get(partition as usize) {
            Some(one) => f(&mut locked(one)),
            None => Err(LogError::UnknownPartition {
                topic: topic.to_owned(),
                partition,
                partitions: all.len() as u32,
            }),
        }
    }
}

fn locked(partition: &Mutex<Partition>) -> MutexGuard<'_, Partition> {
    // A partition's end moves only after its frame is written whole, so what a panic left is
    // consistent: the next append writes at the old end.
    partition.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log for EmbeddedLog {
    fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        check_topic_name(topic)?;
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let has = topics.get(topic).map(|all| all.len() as u32);
        check_partition_count(topic, has, partitions)?;
        if has.is_some() {
            return Ok(());
        }
        let directory = self.directory.join(topic);
        let mut all = Vec::new();
        for partition in 0..partitions {
            let path = directory.join(partition.to_string());
            make_directories(&path)?;
            all.push(Mutex::new(Partition::open(&path, self.options)?.0));
        }
        write_partition_count(&directory, partitions)?;
        topics.insert(topic.to_owned(), all.into());
        Ok(())
    }

    fn partitions(&self, topic: &str) -> Result<u32> {
        Ok(self.topic(topic)?.len() as u32)
    }

    fn topics(&self) -> Vec<String> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    fn append(&self, topic: &str, partition: u32, records: &[Record], now_ms: i64) -> Result<u64> {
        self.with(topic, partition, |p| p.append(topic, records, now_ms, self.options))
    }

    fn read(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
    ) -> Result<Vec<Stored>> {
        self.with(topic, partition, |p| {
            check_offset(topic, partition, from, p.start(), p.end)?;
            p.read(from, max_records, max_bytes)
        })
    }

    fn start_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.with(topic, partition, |p| Ok(p.start()))
    }

    fn end_offset(&self, topic: &str, partition: u32) -> Result<u64> {
        self.with(topic, partition, |p| Ok(p.end))
    }

    fn offset_for_time(&self, topic: &str, partition: u32, ms: i64) -> Result<u64> {
        self.with(topic, partition, |p| p.offset_for_time(ms))
    }

    fn truncate_before(&self, topic: &str, partition: u32, offset: u64) -> Result<u64> {
        self.with(topic, partition, |p| p.truncate_before(offset))
    }
}

/// One partition: its segments, the last of which is written to.
#[derive(Debug)]
struct Partition {
    directory: PathBuf,
    /// By first offset, never empty.
    segments: Vec<Segment>,
    /// The last segment's file.
    active: File,
    active_bytes: u64,
    /// The offset of the next record.
    end: u64,
    /// Where the last read ended: the frame that has the next offset. Who reads on, as a
    /// consumer does, needs no index.
    cursor: Option<Cursor>,
    /// A frame that could neither be written nor cut back; only opening the log again helps.
    broken: bool,
}

#[derive(Debug)]
struct Segment {
    base: u64,
    path: PathBuf,
    /// Some of its frames, in order; `None` until somebody reads the segment.
    index: Option<Vec<IndexEntry>>,
}

#[derive(Clone, Copy, Debug)]
struct IndexEntry {
    offset: u64,
    position: u64,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    offset: u64,
    segment: u64,
    position: u64,
}

/// Notes every frame that lies far enough behind the last noted one.
fn note(index: &mut Vec<IndexEntry>, offset: u64, position: u64) {
    if index.last().is_none_or(|last| position - last.position >= INDEX_EVERY_BYTES) {
        index.push(IndexEntry { offset, position });
    }
}

impl Partition {
    fn open(directory: &Path, options: LogOptions) -> Result<(Self, Option<(PathBuf, u64)>)> {
        let mut segments = Vec::new();
        for path in list(directory)? {
            let base = file_name(&path).strip_suffix(".log").and_then(|digits| digits.parse().ok());
            if let Some(base) = base {
                segments.push(Segment { base, path, index: None });
            }
        }
        segments.sort_by_key(|segment| segment.base);
        let Some(last) = segments.last_mut() else {
            let (segment, active) = create_segment(directory, 0, options)?;
            return Ok((Self::new(directory, vec![segment], active, HEADER_BYTES, 0), None));
        };
        let open = OpenOptions::new().read(true).write(true).open(&last.path);
        let mut active = open.map_err(|e| LogError::io("open", &last.path, e))?;
        let Tail { bytes, end, cut } = recover(&mut active, last)?;
        let cut = (cut > 0).then(|| (last.path.clone(), cut));
        Ok((Self::new(directory, segments, active, bytes, end), cut))
    }

    fn new(directory: &Path, segments: Vec<Segment>, active: File, active_bytes: u64, end: u64) -> Self {
        let directory = directory.to_path_buf();
        Self { directory, segments, active, active_bytes, end, cursor: None, broken: false }
    }

    fn start(&self) -> u64 {
        self.segments.first().map_or(self.end, |segment| segment.base)
    }

    fn active_path(&self) -> PathBuf {
        self.segments.last().map_or_else(|| self.directory.clone(), |segment| segment.path.clone())
    }

    fn append(&mut self, topic: &str, records: &[Record], now_ms: i64, options: LogOptions) -> Result<u64> {
        let first = self.end;
        if records.is_empty() {
            return Ok(first);
        }
        let path = self.active_path();
        if self.broken {
            return Err(LogError::Corrupt {
                path,
                position: self.active_bytes,
                what: "an append broke off and could not be cut back; restart to repair it".to_owned(),
            });
        }
        let frame = encode_frame(topic, first, records, now_ms)?;
        if self.active_bytes > HEADER_BYTES && self.active_bytes + frame.len() as u64 > options.segment_bytes
        {
            // From here on nobody writes to the old segment, so it is safe for good.
            self.active.sync_all().map_err(|e| LogError::io("flush", &path, e))?;
            let (segment, active) = create_segment(&self.directory, first, options)?;
            self.segments.push(segment);
            self.active = active;
            self.active_bytes = HEADER_BYTES;
        }
        let path = self.active_path();
        let position = self.active_bytes;
        let power = options.durability == Durability::Power;
        if let Err(error) = write_or_cut(&mut self.active, position, &frame, power) {
            self.broken = error.left_behind;
            return Err(LogError::io("append to", &path, error.cause));
        }
        if let Some(segment) = self.segments.last_mut() {
            note(segment.index.get_or_insert_default(), first, position);
        }
        self.active_bytes += frame.len() as u64;
        self.end += records.len() as u64;
        Ok(first)
    }

    /// The frames from the one that has `offset` on, in its segment.
    fn frames_from(&mut self, offset: u64) -> Result<Frames> {
        let place = self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1);
        let until = match self.segments.get(place + 1) {
            Some(next) => Until::Offset(next.base),
            None => Until::Position(self.active_bytes),
        };
        let segment = &mut self.segments[place];
        let cursor = self.cursor.filter(|c| c.segment == segment.base && c.offset == offset);
        let start = match cursor {
            Some(cursor) => cursor.position,
            None => {
                let index = match &mut segment.index {
                    Some(index) => index,
                    index => {
                        index.insert(Frames::open(segment.base, &segment.path, HEADER_BYTES, until)?.index()?)
                    }
                };
                let after = index.partition_point(|entry| entry.offset <= offset);
                index[..after].last().map_or(HEADER_BYTES, |entry| entry.position)
            }
        };
        Frames::open(segment.base, &segment.path, start, until)
    }

    fn read(&mut self, from: u64, max_records: usize, max_bytes: usize) -> Result<Vec<Stored>> {
        let (mut found, mut bytes, mut next) = (Vec::new(), 0usize, from);
        while next < self.end && found.len() < max_records {
            let mut frames = self.frames_from(next)?;
            let segment_first = next;
            while found.len() < max_records {
                let position = frames.position;
                let Some(frame) = frames.next()? else { break };
                if frame.first > next {
                    return Err(frames.corrupt(position, format!("offset {next} is missing")));
                }
                let mut records = Records { bytes: &frames.body[FRAME_HEAD_BYTES as usize..] };
                for offset in frame.first..frame.end() {
                    let Some((key, value)) = records.next() else {
                        return Err(frames.corrupt(position, "a frame has fewer records than it says"));
                    };
                    if offset < next {
                        continue;
                    }
                    bytes = bytes.saturating_add(key.len() + value.len());
                    if found.len() >= max_records || (bytes > max_bytes && !found.is_empty()) {
                        self.cursor = Some(Cursor { offset: next, segment: frames.base, position });
                        return Ok(found);
                    }
                    let (key, value) = (key.to_vec(), value.to_vec());
                    found.push(Stored { offset, appended_ms: frame.appended_ms, key, value });
                    next = offset + 1;
                }
            }
            if next == segment_first {
                return Err(frames.corrupt(frames.position, format!("offset {next} is missing")));
            }
            self.cursor = Some(Cursor { offset: next, segment: frames.base, position: frames.position });
        }
        Ok(found)
    }

    fn offset_for_time(&mut self, ms: i64) -> Result<u64> {
        let mut next = self.start();
        while next < self.end {
            let mut frames = self.frames_from(next)?;
            let segment_first = next;
            while let Some(frame) = frames.next()? {
                if frame.appended_ms >= ms {
                    return Ok(frame.first);
                }
                next = frame.end();
            }
            if next == segment_first {
                return Err(frames.corrupt(frames.position, format!("offset {next} is missing")));
            }
        }
        Ok(self.end)
    }

    fn truncate_before(&mut self, offset: u64) -> Result<u64> {
        // The last segment is written to and stays, even where all of it may go.
        while let [first, second, ..] = self.segments.as_slice()
            && second.base <= offset
        {
            fs::remove_file(&first.path).map_err(|e| LogError::io("remove", &first.path, e))?;
            self.segments.remove(0);
        }
        sync_directory(&self.directory)?;
        Ok(self.start())
    }
}

/// Where a segment's frames end.
#[derive(Clone, Copy, Debug)]
enum Until {
    /// The last segment: at this many bytes.
    Position(u64),
    /// An earlier one: with the file, and the next segment begins with this offset.
    Offset(u64),
}

/// Reads a segment's frames one after the other.
struct Frames {
    base: u64,
    path: PathBuf,
    file: BufReader<File>,
    /// Where the next frame begins.
    position: u64,
    /// Where the last one ends.
    bytes: u64,
    until: Until,
    /// The offset that the next frame must begin with, once one was read.
    expected: Option<u64>,
    /// What the last frame's length counts.
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    first: u64,
    count: u32,
    appended_ms: i64,
}

impl Frame {
    /// The offset behind its last record.
    fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

impl Frames {
    fn open(base: u64, path: &Path, position: u64, until: Until) -> Result<Self> {
        let open = || {
            let mut file = File::open(path)?;
            let mut header = [0; HEADER_BYTES as usize];
            file.read_exact(&mut header)?;
            file.seek(SeekFrom::Start(position))?;
            let bytes = file.metadata()?.len();
            Ok((file, header, bytes))
        };
        let (file, header, file_bytes) = open().map_err(|e| LogError::io("read", path, e))?;
        check_header(path, base, &header)?;
        let bytes = if let Until::Position(bytes) = until { bytes } else { file_bytes };
        let expected = (position == HEADER_BYTES).then_some(base);
        let file = BufReader::with_capacity(64 << 10, file);
        Ok(Self { base, path: path.to_path_buf(), file, position, bytes, until, expected, body: Vec::new() })
    }

    fn corrupt(&self, position: u64, what: impl Into<String>) -> LogError {
        LogError::Corrupt { path: self.path.clone(), position, what: what.into() }
    }

    /// The next frame, whose bytes are then in `body`.
    fn next(&mut self) -> Result<Option<Frame>> {
        if self.position >= self.bytes {
            return match (self.until, self.expected) {
                (Until::Offset(next), Some(end)) if end != next => Err(self.corrupt(
                    self.position,
                    format!("it ends with offset {end}, the next segment begins with {next}"),
                )),
                _ => Ok(None),
            };
        }
        let room = self.bytes - self.position;
        match read_frame(&mut self.file, room, self.expected, &mut self.body) {
            Ok(Ok(frame)) => {
                self.position += PREFIX_BYTES + self.body.len() as u64;
                self.expected = Some(frame.end());
                Ok(Some(frame))
            }
            Ok(Err(what)) => Err(self.corrupt(self.position, what)),
            Err(e) => Err(LogError::io("read", &self.path, e)),
        }
    }

    /// Goes through the segment for its sparse index.
    fn index(mut self) -> Result<Vec<IndexEntry>> {
        let mut index = Vec::new();
        loop {
            let position = self.position;
            match self.next()? {
                Some(frame) => note(&mut index, frame.first, position),
                None => return Ok(index),
            }
        }
    }
}

/// Reads one frame of at most `room` bytes into `body`; the inner error says what is wrong with
/// its bytes.
fn read_frame(
    file: &mut impl Read,
    room: u64,
    expected: Option<u64>,
    body: &mut Vec<u8>,
) -> io::Result<std::result::Result<Frame, &'static str>> {
    body.clear();
    if room < PREFIX_BYTES {
        return Ok(Err("a frame is cut off"));
    }
    let (length, crc) = (read_u32(file)?, read_u32(file)?);
    if length < FRAME_HEAD_BYTES || u64::from(length) > FRAME_BYTES_MAX {
        return Ok(Err("a frame has an impossible length"));
    }
    if u64::from(length) > room - PREFIX_BYTES {
        return Ok(Err("a frame is cut off"));
    }
    body.resize(length as usize, 0);
    file.read_exact(body)?;
    if checksum(length, body) != crc {
        return Ok(Err("a frame's checksum does not fit its bytes"));
    }
    let mut head = body.as_slice();
    let frame = Frame {
        first: u64::from_le_bytes(take(&mut head)),
        count: u32::from_le_bytes(take(&mut head)),
        appended_ms: i64::from_le_bytes(take(&mut head)),
    };
    if expected.is_some_and(|expected| frame.first != expected) {
        return Ok(Err("a frame has another offset than comes next"));
    }
    Ok(Ok(frame))
}

fn read_u32(file: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// The next `N` bytes; zeros where there are fewer, which the length check has ruled out.
fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    match bytes.split_first_chunk() {
        Some((head, rest)) => {
            *bytes = rest;
            *head
        }
        None => [0; N],
    }
}

fn checksum(length: u32, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length.to_le_bytes()), body)
}

/// The records of a frame's body behind its head.
struct Records<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = self.bytes.split_first_chunk()?;
        let (value, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key) as usize)?;
        let (value, rest) = rest.split_at_checked(u32::from_le_bytes(*value) as usize)?;
        self.bytes = rest;
        Some((key, value))
    }
}

fn encode_frame(topic: &str, first: u64, records: &[Record], now_ms: i64) -> Result<Vec<u8>> {
    let bytes: u64 = records.iter().map(|r| 8 + r.key.len() as u64 + r.value.len() as u64).sum();
    let length = u64::from(FRAME_HEAD_BYTES) + bytes;
    if length > FRAME_BYTES_MAX {
        let topic = topic.to_owned();
        return Err(LogError::TooLarge { topic, bytes: length, max: FRAME_BYTES_MAX });
    }
    let mut frame = Vec::with_capacity((PREFIX_BYTES + length) as usize);
    frame.extend_from_slice(&(length as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&first.to_le_bytes());
    // Each record takes 8 bytes at least, so the count is far below 2³².
    frame.extend_from_slice(&(records.len() as u32).to_le_bytes());
    frame.extend_from_slice(&now_ms.to_le_bytes());
    for record in records {
        frame.extend_from_slice(&(record.key.len() as u32).to_le_bytes());
        frame.extend_from_slice(&(record.value.len() as u32).to_le_bytes());
        frame.extend_from_slice(&record.key);
        frame.extend_from_slice(&record.value);
    }
    let crc = checksum(length as u32, &frame[PREFIX_BYTES as usize..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(frame)
}

/// What appending needs of a file; a test puts a full device here.
trait Tape: Write + Seek {
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
    fn flush_to_device(&mut self) -> io::Result<()>;
}

impl Tape for File {
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn flush_to_device(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

#[derive(Debug)]
struct WriteFailed {
    cause: io::Error,
    /// The part that was written could not be cut off.
    left_behind: bool,
}

/// Writes `frame` at `position`, the end of the file, or leaves the file as it was.
fn write_or_cut(
    file: &mut impl Tape,
    position: u64,
    frame: &[u8],
    power: bool,
) -> std::result::Result<(), WriteFailed> {
    let mut write = || {
        file.seek(SeekFrom::Start(position))?;
        file.write_all(frame)?;
        if power { file.flush_to_device() } else { Ok(()) }
    };
    write().map_err(|cause| WriteFailed { cause, left_behind: file.cut(position).is_err() })
}

/// What is left of the last segment.
struct Tail {
    bytes: u64,
    end: u64,
    cut: u64,
}

/// Reads the last segment, cuts off a frame that was not written to its end, and notes the index.
fn recover(file: &mut File, segment: &mut Segment) -> Result<Tail> {
    let path = &segment.path;
    let io = |operation| move |e| LogError::io(operation, path, e);
    let bytes = file.metadata().map_err(io("read"))?.len();
    if bytes < HEADER_BYTES {
        // The process ended while it began this segment.
        file.set_len(0).map_err(io("repair"))?;
        file.rewind().map_err(io("repair"))?;
        file.write_all(&header(segment.base)).map_err(io("repair"))?;
        file.sync_all().map_err(io("flush"))?;
        segment.index = Some(Vec::new());
        return Ok(Tail { bytes: HEADER_BYTES, end: segment.base, cut: bytes });
    }
    let mut head = [0; HEADER_BYTES as usize];
    file.read_exact(&mut head).map_err(io("read"))?;
    check_header(path, segment.base, &head)?;
    let (mut position, mut end) = (HEADER_BYTES, segment.base);
    let mut index = Vec::new();
    let mut reader = BufReader::with_capacity(256 << 10, &mut *file);
    let mut body = Vec::new();
    while position < bytes {
        let frame = read_frame(&mut reader, bytes - position, Some(end), &mut body).map_err(io("read"))?;
        let frame = match frame {
            Ok(frame) => frame,
            Err(what) => {
                // A torn frame is the last thing in the file. A whole one behind it means that
                // acknowledged records are damaged, and cutting would lose them and what follows.
                if frame_follows(file, position, bytes, end).map_err(io("read"))? {
                    let (path, what) = (path.clone(), what.to_owned());
                    return Err(LogError::Corrupt { path, position, what });
                }
                file.set_len(position).map_err(io("repair"))?;
                file.sync_all().map_err(io("flush"))?;
                break;
            }
        };
        note(&mut index, end, position);
        position += PREFIX_BYTES + body.len() as u64;
        end = frame.end();
    }
    segment.index = Some(index);
    Ok(Tail { bytes: position, end, cut: bytes - position })
}

/// Whether a whole frame of a later offset begins anywhere behind `position`.
fn frame_follows(file: &mut File, position: u64, bytes: u64, end: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(position))?;
    let mut rest = Vec::new();
    Read::by_ref(file).take(bytes - position).read_to_end(&mut rest)?;
    for start in 1..rest.len() {
        let mut frame = &rest[start..];
        if frame.len() < (PREFIX_BYTES + u64::from(FRAME_HEAD_BYTES)) as usize {
            break;
        }
        let (length, crc) = (u32::from_le_bytes(take(&mut frame)), u32::from_le_bytes(take(&mut frame)));
        // A frame holds a record at least, so one behind the torn one has a later offset; and no
        // segment has 2⁴⁰ records. That rules out nearly every other place without a checksum.
        let mut head = frame;
        let first = u64::from_le_bytes(take(&mut head));
        let plausible = length >= FRAME_HEAD_BYTES && first > end && first - end < 1 << 40;
        if plausible
            && let Some(body) = frame.get(..length as usize)
            && checksum(length, body) == crc
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn header(base: u64) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..].copy_from_slice(&base.to_le_bytes());
    header
}

fn check_header(path: &Path, base: u64, found: &[u8; HEADER_BYTES as usize]) -> Result<()> {
    let corrupt = |what: String| Err(LogError::Corrupt { path: path.to_path_buf(), position: 0, what });
    let mut rest = found.as_slice();
    if take(&mut rest) != MAGIC {
        return corrupt("it is not a segment of uptake's log".to_owned());
    }
    let version = u32::from_le_bytes(take(&mut rest));
    if version != VERSION {
        return corrupt(format!("it has format {version}, this program reads {VERSION}"));
    }
    if *found != header(base) {
        return corrupt("its name and its header name different offsets".to_owned());
    }
    Ok(())
}

fn create_segment(directory: &Path, base: u64, options: LogOptions) -> Result<(Segment, File)> {
    let path = directory.join(format!("{base:020}.log"));
    let create = || {
        // Truncated, because an earlier attempt may have failed half way; nothing refers to it.
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.write_all(&header(base))?;
        if options.durability == Durability::Power {
            file.sync_all()?;
        }
        Ok(file)
    };
    let file = create().map_err(|e| {
        // Best effort: what stays is an empty segment, which opening repairs.
        let _ = fs::remove_file(&path);
        LogError::io("create", &path, e)
    })?;
    sync_directory(directory)?;
    Ok((Segment { base, path, index: Some(Vec::new()) }, file))
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(".lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|e| LogError::io("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::InUse { directory: directory.to_path_buf() }),
        Err(TryLockError::Error(e)) => Err(LogError::io("lock", &path, e)),
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
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(LogError::io("read", &path, e)),
    }
}

fn write_partition_count(topic: &Path, partitions: u32) -> Result<()> {
    let path = topic.join(TOPIC_FILE);
    let temporary = topic.join(".partitions.tmp");
    let write = || {
        let mut file = File::create(&temporary)?;
        writeln!(file, "{partitions}")?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|e| LogError::io("write", &path, e))?;
    sync_directory(topic)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| LogError::io("list", directory, e);
    let entries = fs::read_dir(directory).map_err(io)?.map(|entry| entry.map(|e| e.path()).map_err(io));
    let mut paths: Vec<_> = entries.collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

fn make_directories(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory).map_err(|e| LogError::io("make the directory", directory, e))?;
    directory.parent().map_or(Ok(()), sync_directory)
}

/// Makes the names in `directory` survive a power cut.
fn sync_directory(directory: &Path) -> Result<()> {
    // Only Unix opens directories as files; elsewhere the file system sees to it.
    if cfg!(unix) && !directory.as_os_str().is_empty() {
        let synced = File::open(directory).and_then(|file| file.sync_all());
        synced.map_err(|e| LogError::io("flush", directory, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A device with room for so many bytes, which may also refuse to cut or to flush.
    struct Device {
        content: Cursor<Vec<u8>>,
        room: usize,
        cuts: bool,
        flushes: bool,
    }

    impl Write for Device {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let free = self.room.saturating_sub(self.content.get_ref().len());
            if free == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.write(&bytes[..bytes.len().min(free)])
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Device {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.content.seek(to)
        }
    }

    impl Tape for Device {
        fn cut(&mut self, bytes: u64) -> io::Result<()> {
            if !self.cuts {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            self.content.get_mut().truncate(bytes as usize);
            Ok(())
        }

        fn flush_to_device(&mut self) -> io::Result<()> {
            if self.flushes { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        }
    }

    #[test]
    fn an_append_that_meets_a_full_device_leaves_nothing() {
        let device = |room| Device { content: Cursor::default(), room, cuts: true, flushes: true };
        for (room, first, second) in [(10, true, true), (9, true, false), (5, true, false), (4, false, false)]
        {
            let mut device = device(room);
            assert_eq!(write_or_cut(&mut device, 0, b"frame", true).is_ok(), first);
            assert_eq!(device.content.get_ref().len(), if first { 5 } else { 0 });
            if first {
                assert_eq!(write_or_cut(&mut device, 5, b"again", true).is_ok(), second);
                assert_eq!(device.content.get_ref().len(), if second { 10 } else { 5 });
            }
        }
        // Refused only when flushed, as some file systems do: not acknowledged, so not there.
        let mut late = Device { flushes: false, ..device(100) };
        let failed = write_or_cut(&mut late, 0, b"frame", true).unwrap_err();
        assert!(!failed.left_behind && late.content.get_ref().is_empty());
        let mut stuck = Device { cuts: false, ..device(3) };
        assert!(write_or_cut(&mut stuck, 0, b"frame", false).unwrap_err().left_behind);
    }

    #[test]
    fn a_full_device_says_what_to_do() {
        let error =
            LogError::io("append to", Path::new("data/log/t/0/1.log"), io::ErrorKind::StorageFull.into());
        assert!(error.is_retryable());
        assert_eq!(
            error.to_string(),
            "no space left on the device that holds data/log/t/0/1.log; make room and run it again"
        );
    }
}
