//! What an archive could not do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{FailureKind, OptionError, RemoteError};
use crate::files::Failed;

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
    /// A server could not do it, or does not answer.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The URL names something else.
    #[error(transparent)]
    Url(#[from] super::UrlError),
    /// An option of the server that makes no sense.
    #[error(transparent)]
    Option(#[from] OptionError),
}

impl ArchiveError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match FailureKind::of_io(&source) {
            FailureKind::DeviceFull => Self::NoSpace { path, source },
            _ => Self::Io { operation, path, source },
        }
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

    /// What the caller can do. Putting a part again is always safe.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Remote(error) => error.kind,
            Self::NoSpace { .. } => FailureKind::DeviceFull,
            Self::Io { source, .. } => FailureKind::of_io(source),
            _ => FailureKind::Permanent,
        }
    }
}

impl From<Failed> for ArchiveError {
    fn from(failed: Failed) -> Self {
        Self::io(failed.operation, &failed.path, failed.source)
    }
}
