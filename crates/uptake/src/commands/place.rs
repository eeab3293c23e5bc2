//! Where a run keeps its data: where it was told to, or in a directory of its own that is removed in the end.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{CommandError, cannot};

/// A data directory that is this run's own, or somebody's.
pub(super) enum Place {
    Own(TempDir),
    Given(PathBuf),
}

impl Place {
    /// The directory that was given, or a new one whose name begins with `prefix`.
    pub(super) fn new(given: Option<&Path>, prefix: &str) -> Result<Self, CommandError> {
        Ok(match given {
            Some(path) => Self::Given(path.to_owned()),
            None => Self::Own({
                let made = tempfile::Builder::new().prefix(prefix).tempdir();
                made.map_err(cannot("make a directory in", std::env::temp_dir().display()))?
            }),
        })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Own(directory) => directory.path(),
            Self::Given(path) => path,
        }
    }

    /// What nobody asked to be kept: who ends the program at once has to remove it.
    pub(super) fn own(&self) -> Option<&Path> {
        match self {
            Self::Own(directory) => Some(directory.path()),
            Self::Given(_) => None,
        }
    }
}
