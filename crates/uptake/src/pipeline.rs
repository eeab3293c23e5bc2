//! The pipeline, in the order in which the data flows, one step a line.
//!
//! collect → join → cap → aggregate → archive. Decoding and filtering are part of collecting;
//! the transform to segments is part of aggregating, on the worker that has the video's tallies,
//! so that one event travels instead of one update per segment. The table is written by the
//! aggregate, the archive by the stage behind it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use uptake_flow::Flow;
use uptake_model::ledger::Ledger;

use crate::config::Config;
use crate::stages::aggregate::Outlets;
use crate::stages::collect::SharedFiles;
use crate::stages::{aggregate, archive, cap, collect, join};

/// The books of one worker, shared by its stages. Each stage writes down what it takes.
pub type Books = Rc<RefCell<Ledger>>;

/// Builds one worker's part of the pipeline over event files.
pub fn over_files(flow: &Flow<'_>, config: &Arc<Config>, files: &Arc<SharedFiles>, outlets: &Outlets) {
    let books = Books::default();
    let (events, names) = collect::from_files(flow, config, files, outlets, &books);
    let joined = join::by_request(events, config, &books);
    let joined = cap::by_member_and_epoch(joined, config, &books);
    let sealed = aggregate::by_video_and_epoch(flow, joined, names, config, outlets, &books);
    archive::by_epoch(flow, sealed, config, outlets);
}
