//! Trends: from tallies to rows of titles, with the reasons.
//!
//! Plain values and arithmetic: no file, socket or clock. [`Trends`] takes tallies and estimates each
//! title's rate and lift per segment; `docs/trends.md` says every formula with its source.

pub mod catalogue;
mod cell;
pub mod eval;
pub mod explore;
pub mod hours;
pub mod lift;
pub mod memory;
pub mod options;
mod past;
pub mod position;
pub mod prior;
pub mod rate;
pub mod robots;
pub mod rows;
pub mod rules;
pub mod special;
pub mod tree;
mod trends;
pub mod why;

pub use catalogue::{Catalogue, Title};
pub use options::{Exposure, Options};
pub use past::Past;
pub use rows::{RowName, RowOptions, Shelf};
pub use rules::Rules;
pub use trends::{Numbers, Refreshed, Trends};
