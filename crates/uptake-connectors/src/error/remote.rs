//! What all servers can do wrong, in one shape.

use std::error::Error;
use std::fmt;

use super::FailureKind;

/// A server did not do what was asked. Its text names the operation, the server and what to check;
/// what the driver said is the `source`.
#[derive(Debug)]
pub struct RemoteError {
    /// What was tried, as a verb with its object.
    pub operation: &'static str,
    /// The server, as its URL without secrets.
    pub url: String,
    /// What went wrong in a few words, and what to check.
    pub advice: String,
    /// What the caller can do.
    pub kind: FailureKind,
    /// What the driver said.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.operation, self.url, self.advice)
    }
}

impl Error for RemoteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn Error + 'static))
    }
}

/// An option that nobody knows, or a value that makes no sense. Values are never shown: they may
/// be secrets.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("option {key} {what}")]
pub struct OptionError {
    /// The option's name.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
}
