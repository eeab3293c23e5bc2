//! Mistakes in a backend's URL.

use thiserror::Error;

/// A mistake in a backend's URL.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    /// No scheme, or one nobody knows.
    #[error("\"{url}\" names no backend: write memory:, file:PATH or kafka://HOST:PORT")]
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
    /// A mistake in the URL of a log in Kafka. It is not shown whole: there may be a secret in it.
    #[error("kafka URL: {what}")]
    Kafka {
        /// What is wrong, and what to write instead.
        what: String,
    },
    /// `file:` without a path.
    #[error("\"{url}\" has no path: write file:PATH, as in file:data")]
    NoPath {
        /// As it was given.
        url: String,
    },
}
