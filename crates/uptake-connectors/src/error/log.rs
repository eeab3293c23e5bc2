//! What a log could not do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::FailureKind;
use crate::files::Failed;

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
    /// A record is larger than the topic takes.
    #[error(
        "a record of {bytes} bytes is larger than topic {topic} takes; raise its max.message.bytes \
         (and replica.fetch.max.bytes of the brokers)"
    )]
    RecordTooLarge {
        /// The topic.
        topic: String,
        /// Bytes of the largest record of the append.
        bytes: usize,
    },
    /// An option of a remote log that is unknown, or contradicts another or the way a log works.
    #[error("kafka option {key}: {what}")]
    Option {
        /// Its name. The value is not told: it may be secret.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A remote log did not do it.
    #[error("cannot {operation} {url}: {reason}; {advice}")]
    Remote {
        /// What was tried, as a verb.
        operation: String,
        /// Where.
        url: String,
        /// What the driver or the broker said, without secrets.
        reason: String,
        /// What to look at.
        advice: &'static str,
        /// What the caller can do.
        kind: FailureKind,
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
    /// The URL names something else.
    #[error(transparent)]
    Url(#[from] super::UrlError),
}

impl LogError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match FailureKind::of_io(&source) {
            FailureKind::DeviceFull => Self::NoSpace { path, source },
            _ => Self::Io { operation, path, source },
        }
    }

    /// What the caller can do. An append that failed has left nothing behind, so it is safe to
    /// repeat; in a remote log a repeat may come behind a part of it.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NoSpace { .. } => FailureKind::DeviceFull,
            Self::Io { source, .. } => FailureKind::of_io(source),
            Self::Remote { kind, .. } => *kind,
            _ => FailureKind::Permanent,
        }
    }
}

impl From<Failed> for LogError {
    fn from(failed: Failed) -> Self {
        Self::io(failed.operation, &failed.path, failed.source)
    }
}
