//! Mistakes in a backend's URL.

use thiserror::Error;

/// A mistake in a backend's URL.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    /// No scheme, or one nobody knows.
    #[error("\"{url}\" names no backend: write memory: or file:PATH")]
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
