//! What a table could not do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{FailureKind, OptionError, RemoteError};
use crate::files::Failed;

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
    /// The device is full, said by the system before the driver came to write.
    #[error("no space left on the device that holds {}; make room and run it again", .path.display())]
    Full {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
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
    /// A server could not do it, or does not answer.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The URL names something else.
    #[error(transparent)]
    Url(#[from] super::UrlError),
    /// An option of the server that makes no sense.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The keyspace or its tables were never made.
    #[error("{url} has no tables of uptake; make them with `uptake migrate`")]
    NoSchema {
        /// The table.
        url: String,
    },
    /// A row of more requests than the order of writes has room for.
    #[error(
        "video {video_id} in epoch {epoch} has more than 2^28 plays and impressions, which {url} cannot hold"
    )]
    TooLarge {
        /// The video.
        video_id: String,
        /// The epoch's number.
        epoch: i64,
        /// The table.
        url: String,
    },
}

impl TableError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match FailureKind::of_io(&source) {
            FailureKind::DeviceFull => Self::Full { path, source },
            _ => Self::Io { operation, path, source },
        }
    }

    pub(crate) fn sqlite(operation: &'static str, path: &Path, source: rusqlite::Error) -> Self {
        let path = path.to_path_buf();
        let extended = source.sqlite_error().map(|error| error.extended_code);
        match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::NoSpace { path, source },
            // The driver could not make room for what its connections share, beside the table.
            _ if extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => Self::NoSpace { path, source },
            Some(rusqlite::ErrorCode::NotADatabase) => Self::Foreign { path },
            _ => Self::Sqlite { operation, path, source },
        }
    }

    /// What the caller can do. Rows are upserts where the larger wins, so writing them again is
    /// always safe.
    pub fn kind(&self) -> FailureKind {
        use rusqlite::ErrorCode as C;
        match self {
            Self::Remote(error) => error.kind,
            Self::NoSpace { .. } | Self::Full { .. } => FailureKind::DeviceFull,
            Self::Io { source, .. } => FailureKind::of_io(source),
            Self::Sqlite { source, .. } => match source.sqlite_error_code() {
                // What the driver says of a file system that is busy, away or not ours for now.
                Some(
                    C::DatabaseBusy
                    | C::DatabaseLocked
                    | C::FileLockingProtocolFailed
                    | C::SystemIoFailure
                    | C::CannotOpen
                    | C::PermissionDenied
                    | C::ReadOnly
                    | C::OutOfMemory
                    | C::OperationInterrupted,
                ) => FailureKind::Transient,
                _ => FailureKind::Permanent,
            },
            _ => FailureKind::Permanent,
        }
    }
}

impl From<Failed> for TableError {
    fn from(failed: Failed) -> Self {
        Self::io(failed.operation, &failed.path, failed.source)
    }
}
