//! What a store of objects could not do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{FailureKind, OptionError, RemoteError};
use crate::files::Failed;

/// A store of objects could not do what was asked.
#[derive(Debug, Error)]
pub enum ObjectsError {
    /// A name that is not safe as a path.
    #[error(
        "\"{name}\" cannot name an object: it {what}; write steps like a/b-1.bin, not beginning with '.'"
    )]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An object cannot lie below another, nor have the name of what others lie below.
    #[error("\"{name}\" cannot be put beside \"{other}\"; name it so that neither lies below the other")]
    Beside {
        /// The name.
        name: String,
        /// An object that is there.
        other: String,
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

impl ObjectsError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match FailureKind::of_io(&source) {
            FailureKind::DeviceFull => Self::NoSpace { path, source },
            _ => Self::Io { operation, path, source },
        }
    }

    /// What the caller can do. Every call is safe to repeat.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Remote(error) => error.kind,
            Self::NoSpace { .. } => FailureKind::DeviceFull,
            Self::Io { source, .. } => FailureKind::of_io(source),
            _ => FailureKind::Permanent,
        }
    }
}

impl From<Failed> for ObjectsError {
    fn from(failed: Failed) -> Self {
        Self::io(failed.operation, &failed.path, failed.source)
    }
}
