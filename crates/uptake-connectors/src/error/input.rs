//! Why event files could not be read.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::FailureKind;

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
         everything before was read. Repair it, and read all of the input again: what comes twice counts once"
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
    /// What the caller can do.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Read { source, .. } => FailureKind::of_io(source),
            _ => FailureKind::Permanent,
        }
    }
}
