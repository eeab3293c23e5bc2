//! Uptake turns what people are shown and what they play into what is trending, and counts every
//! request once however often, late or out of order its events arrive.
//!
//! [`pipeline`] is the place to begin: it reads as the data flows.

mod catalogue;
pub mod checkpoint;
pub mod clock;
pub mod commands;
pub mod config;
mod crowd;
pub mod data_dir;
pub mod engine;
pub mod memory;
pub mod outputs;
pub mod pipeline;
pub mod stages;
pub mod traces;
