//! What can go wrong at the edges: one enum a family.
//!
//! Each variant names the operation and the object and keeps its cause as `source`, without
//! repeating it in its own text. `is_retryable` says whether doing the same again may succeed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Whether the device or the quota is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the same operation may succeed a moment later, without anybody doing anything.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::ResourceBusy
    )
}

/// A mistake in a backend's URL.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    /// No scheme, or one nobody knows.
    #[error("\"{url}\" names no backend: write memory: or file:PATH")]
    Unknown {
        /// As it was given.
        url: String,
    },
    /// A known remote system that this program was built without.
    #[error("\"{url}\": {scheme} is not built into this program; use memory: or file:PATH")]
    NotBuiltIn {
        /// As it was given.
        url: String,
        /// The part before the colon.
        scheme: String,
    },
    /// `file:` without a path.
    #[error("\"{url}\" has no path: write file:PATH, as in file:data")]
    NoPath {
        /// As it was given.
        url: String,
    },
}

/// A log could not do what was asked.
#[derive(Debug, Error)]
pub enum LogError {
    /// A topic's name has other characters than a-z, 0-9, dot, underscore and hyphen, begins with
    /// a dot, is empty or longer than 200 bytes.
    #[error("\"{topic}\" cannot be a topic: use a-z, 0-9, '.', '_' and '-', not beginning with '.'")]
    TopicName {
        /// The name.
        topic: String,
    },
    /// The topic was never created.
    #[error("there is no topic {topic}")]
    UnknownTopic {
        /// The name.
        topic: String,
    },
    /// The topic has fewer partitions.
    #[error("topic {topic} has {partitions} partitions, so there is no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for, from 0.
        partition: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A topic keeps the number of partitions it was created with.
    #[error("topic {topic} has {has} partitions and cannot be changed to {asked}")]
    PartitionCount {
        /// The topic.
        topic: String,
        /// How many it has.
        has: u32,
        /// How many were asked for (0 is never possible).
        asked: u32,
    },
    /// An offset that retention has dropped, or that was never written.
    #[error("topic {topic} partition {partition} holds offsets {start} to {end}, not {offset}")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// The first offset that is kept.
        start: u64,
        /// The offset that the next record gets.
        end: u64,
    },
    /// One append holds more than a frame can.
    #[error("an append of {bytes} bytes to topic {topic} is larger than {max} bytes; split it")]
    TooLarge {
        /// The topic.
        topic: String,
        /// Bytes of the frame.
        bytes: u64,
        /// The most that one append may hold.
        max: u64,
    },
    /// Another process has the log open.
    #[error(
        "the log in {} is in use by another process; stop that one or name another directory",
        .directory.display()
    )]
    InUse {
        /// The log's directory.
        directory: PathBuf,
    },
    /// The device is full. What was there before is kept and consistent.
    #[error("no space left on the device that holds {}; make room and run it again", .path.display())]
    NoSpace {
        /// The file that was written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error("{} is damaged at byte {position}: {what}", .path.display())]
    Corrupt {
        /// The segment file.
        path: PathBuf,
        /// Bytes from the beginning of the file.
        position: u64,
        /// What is wrong there.
        what: String,
    },
    /// Anything else the system refused.
    #[error("cannot {operation} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl LogError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if is_full(&source) { Self::NoSpace { path, source } } else { Self::Io { operation, path, source } }
    }

    /// Whether the same call may succeed later: the device was full or the system was busy. An
    /// append that failed has left nothing behind, so it is safe to repeat.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => is_passing(source),
            _ => false,
        }
    }
}

/// A table could not do what was asked.
#[derive(Debug, Error)]
pub enum TableError {
    /// Nothing was written yet.
    #[error(
        "no table at {}: run `uptake replay … --data {}` first",
        .path.display(),
        .path.parent().unwrap_or(Path::new(".")).display()
    )]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// A file of that name which is something else.
    #[error("{} is not a table of uptake; name another directory", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Written by a newer release.
    #[error(
        "{} has table format {found}, this program reads up to {known}; use the newer uptake",
        .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: i64,
        /// The newest format this program knows.
        known: i64,
    },
    /// A count or an epoch beyond what the table can hold.
    #[error("a count of video {video_id} in epoch {epoch} is too large to store")]
    OutOfRange {
        /// The video.
        video_id: String,
        /// The epoch's number.
        epoch: i64,
    },
    /// A stored value is not what was written.
    #[error("{} holds a damaged row: {what}", .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which row.
        what: String,
    },
    /// The device is full. What was there before is kept; the write left nothing behind.
    #[error("no space left on the device that holds {}; make room and run it again", .path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
        /// What the driver said.
        source: rusqlite::Error,
    },
    /// The directory could not be made.
    #[error("cannot {operation} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else the driver refused.
    #[error("cannot {operation} the table {}", .path.display())]
    Sqlite {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the driver said.
        source: rusqlite::Error,
    },
}

impl TableError {
    pub(crate) fn sqlite(operation: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::NoSpace { path, source },
            Some(rusqlite::ErrorCode::NotADatabase) => Self::Foreign { path },
            _ => Self::Sqlite { operation, path, source },
        }
    }

    /// Whether the same call may succeed later. Rows are upserts where the larger wins, so
    /// writing them again is always safe.
    pub fn is_retryable(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, SystemIoFailure};
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => is_full(source) || is_passing(source),
            Self::Sqlite { source, .. } => {
                matches!(source.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | SystemIoFailure))
            }
            _ => false,
        }
    }
}

/// An archive could not do what was asked.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// A row of another epoch than its part.
    #[error("a row of epoch {row} cannot go into the part of epoch {part}")]
    WrongEpoch {
        /// The part's epoch.
        part: i64,
        /// The row's epoch.
        row: i64,
    },
    /// Two rows for one video and segment in one part.
    #[error("video {video_id} has two rows for segment \"{segment}\" in epoch {epoch}")]
    Twice {
        /// The video.
        video_id: String,
        /// The segment.
        segment: String,
        /// The epoch's number.
        epoch: i64,
    },
    /// A shard number that is not below the number of shards, or no shards.
    #[error("there is no shard {shard} of {shards}")]
    Shard {
        /// The number, from 0.
        shard: u32,
        /// How many there are.
        shards: u32,
    },
    /// A count beyond 2⁶³ − 1.
    #[error("a count of video {video_id} in epoch {epoch} is too large to store")]
    OutOfRange {
        /// The video.
        video_id: String,
        /// The epoch's number.
        epoch: i64,
    },
    /// An object of that name was written with another epoch length.
    #[error(
        "{} was written with epochs of {found_ms} ms, these are of {asked_ms} ms; name another directory",
        .path.display()
    )]
    OtherLength {
        /// The object.
        path: PathBuf,
        /// The length it was written with, in milliseconds.
        found_ms: i64,
        /// The length asked for, in milliseconds.
        asked_ms: i64,
    },
    /// The part was never put.
    #[error("the archive has no {}", .path.display())]
    Missing {
        /// The object.
        path: PathBuf,
    },
    /// An object is not what was written.
    #[error("{} is damaged: {what}; move it away and run it again", .path.display())]
    Corrupt {
        /// The object.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The Parquet library refused.
    #[error("cannot {operation} {}", .path.display())]
    Parquet {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The object.
        path: PathBuf,
        /// What the library said.
        source: parquet::errors::ParquetError,
    },
    /// The device is full. Nothing was left behind.
    #[error("no space left on the device that holds {}; make room and run it again", .path.display())]
    NoSpace {
        /// The file that was written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else the system refused.
    #[error("cannot {operation} {}", .path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ArchiveError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if is_full(&source) { Self::NoSpace { path, source } } else { Self::Io { operation, path, source } }
    }

    pub(crate) fn parquet(
        operation: &'static str,
        path: &Path,
        source: parquet::errors::ParquetError,
    ) -> Self {
        // The library wraps what the system said; a full device is told apart all the same.
        match source {
            parquet::errors::ParquetError::External(inner) => match inner.downcast::<io::Error>() {
                Ok(inner) => Self::io(operation, path, *inner),
                Err(inner) => Self::Parquet {
                    operation,
                    path: path.to_path_buf(),
                    source: parquet::errors::ParquetError::External(inner),
                },
            },
            source => Self::Parquet { operation, path: path.to_path_buf(), source },
        }
    }

    /// Whether the same call may succeed later. Putting a part again is always safe.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Io { source, .. } => is_passing(source),
            _ => false,
        }
    }
}

/// What is wrong with one path that was given as input.
#[derive(Debug)]
pub struct PathProblem {
    /// The path.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for PathProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

/// Event files could not be read.
#[derive(Debug, Error)]
pub enum InputError {
    /// No path at all.
    #[error("no event file was named: name files, or folders that hold them")]
    Nothing,
    /// Some of the paths cannot be used; all of them are listed, one a line.
    #[error("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Paths {
        /// Every path that cannot be used.
        problems: Vec<PathProblem>,
    },
    /// A file broke off or is damaged.
    #[error(
        "cannot read {path} beyond line {lines} (byte {bytes} of its text), where it broke off or is damaged; \
         everything before was counted, and it is safe to replay the repaired file"
    )]
    Read {
        /// The file.
        path: String,
        /// Lines (or rows) that were delivered before.
        lines: u64,
        /// Bytes of text read before, after decompression.
        bytes: u64,
        /// What the system or the decompressor said.
        source: io::Error,
    },
    /// A column of a Parquet file has a type that has no JSON form here.
    #[error("column {column} of {path} has type {kind}, which is not read; leave it out of the file")]
    Column {
        /// The file.
        path: String,
        /// The column's path in the schema.
        column: String,
        /// Its type.
        kind: String,
    },
}

impl InputError {
    /// Whether reading again may succeed without a repair.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Read { source, .. } if is_passing(source))
    }
}
