//! The collector and the API: events in from browsers, rows out to them.
//!
//! A [`Server`] appends to a log, reads a table and asks a [`rows::Rows`] what to show; it holds no
//! state that another process over the same log and table would miss, so there may be many. It
//! holds no engine: what counts is decided where the log is read.

mod access;
mod app;
mod assets;
pub mod clock;
mod collect;
pub mod ids;
mod letters;
mod metrics;
mod operations;
mod patience;
mod pipeline;
pub mod problem;
mod process;
pub mod rows;
mod rules;
mod server;
pub mod settings;
mod tables;
mod timeline;
mod traces;
mod videos;

pub use access::is_local;
pub use app::{LoadCatalogue, SERVED_ROWS, ServeError};
pub use assets::page_file;
pub use pipeline::{Books, ReadUpTo};
pub use rules::{RULES, rules_of};
pub use server::{Parts, Server};
pub use tables::OpenTable;
pub use traces::TRACER;
