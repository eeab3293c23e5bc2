//! The edges of Uptake: logs, tables, archives, objects and input files behind one shape each.
//!
//! A connector translates between model values and somebody's bytes and decides nothing: no
//! clock is read here (but to tell what a crash left long ago), nothing is counted, nothing is
//! dropped. Every family has a trait, a
//! complete form in memory, an embedded form on disk, and an error type of its own; one
//! conformance suite (`tests/conformance.rs`) runs against all of them. A [`url::Backend`]
//! (`memory:`, `file:PATH`, `cassandra://…`, `s3://…`) picks the form.

pub mod archive;
pub mod error;
pub mod faults;
mod files;
mod guard;
pub mod input;
pub mod log;
pub mod notices;
pub mod objects;
pub mod options;
mod runtime;
pub mod sheet;
mod store;

pub mod table;
pub mod url;

pub use error::{
    ArchiveError, FailureKind, InputError, LogError, ObjectsError, RemoteError, TableError, UrlError,
};
pub use options::Options;
pub use url::Backend;
