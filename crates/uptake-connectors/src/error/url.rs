//! Mistakes in a backend's URL.

use thiserror::Error;

/// A mistake in a backend's URL.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    /// No scheme, or one nobody knows.
    #[error("\"{url}\" names no backend: write {known}")]
    Unknown {
        /// As it was given.
        url: String,
        /// What can be written.
        known: &'static str,
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
    /// A URL of Cassandra that names no host or keyspace.
    #[error("\"{url}\": write cassandra://HOST[:PORT][,HOST]/KEYSPACE; user and password are options")]
    Cassandra {
        /// As it was given, without what may be a password.
        url: String,
    },
    /// A URL of a store of objects that names no bucket.
    #[error("\"{url}\": write {scheme}://BUCKET or {scheme}://BUCKET/PREFIX; keys are options")]
    Bucket {
        /// As it was given, without what may be a password.
        url: String,
        /// The part before the colon.
        scheme: &'static str,
    },
    /// A backend that has other things than this.
    #[error("{url} cannot hold {what}; use {instead}")]
    OtherThing {
        /// The backend.
        url: String,
        /// What was asked for.
        what: &'static str,
        /// What can hold it.
        instead: &'static str,
    },
}
