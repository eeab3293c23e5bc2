//! Why a chore could not be done.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::typed;

/// Why a chore could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file or folder.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A program that is not there.
    #[error("cannot start `{command}`{hint}")]
    Start {
        /// What was typed.
        command: String,
        /// What to do about it; empty, or begins with a semicolon.
        hint: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A program that says no.
    #[error("`{command}` failed with {status}{output}")]
    Failed {
        /// What was typed.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it printed, on lines of its own, where that was not seen already.
        output: String,
    },
    /// What was printed is not what was expected.
    #[error("cannot read the answer of `{command}`")]
    Answer {
        /// What was typed.
        command: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// Something else, with what to do about it.
    #[error("{0}")]
    Other(String),
    /// It was printed already.
    #[error("failed")]
    Said,
}

/// The result of a chore.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` of an operation on `path`.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { operation, path, source }
    }

    /// For `map_err` of starting `command`, or of waiting for it; `hint` says what to do about it.
    pub(crate) fn start(command: &Command, hint: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let command = typed(command);
        move |source| Self::Start { command, hint, source }
    }

    /// For `map_err` of reading the JSON that `command` printed.
    pub(crate) fn answer(command: &Command) -> impl FnOnce(serde_json::Error) -> Self {
        let command = typed(command);
        move |source| Self::Answer { command, source }
    }

    /// The message and its causes in one line.
    pub(crate) fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}
