//! The pipeline, in the order in which the data flows, one step a line.
//!
//! collect → join → cap → aggregate → archive. Decoding and filtering are part of collecting;
//! the transform to segments is part of aggregating, on the worker that has the video's tallies,
//! so that one event travels instead of one update per segment. The table is written by the
//! aggregate, the archive by the stage behind it. Who wants the joined events themselves has them
//! kept in the place of both.

use std::sync::Arc;

use uptake_flow::Flow;

use crate::checkpoint::Stage;
use crate::config::Config;
use crate::stages::collect::Input;
use crate::stages::outlets::Outlets;
use crate::stages::{aggregate, archive, cap, collect, join, keep};

/// Builds one worker's part of the pipeline.
pub fn build(flow: &Flow<'_>, config: &Arc<Config>, input: &Input, outlets: &Outlets) {
    let restored = outlets.restored.for_a_worker();
    let restored = restored.as_deref();
    let (events, names) = collect::collect(flow, config, input, outlets);
    let joined = join::by_request(flow, events, config, outlets, restored);
    let joined = cap::by_member_and_epoch(flow, joined, config, outlets, restored);
    if let Some(keeping) = &outlets.keeping {
        return keep::by_video(flow, (joined, names), (config, outlets, keeping));
    }
    let sealed = aggregate::by_video_and_epoch(flow, (joined, names), config, outlets, restored);
    archive::by_epoch(flow, sealed, config, outlets);
}

/// The stages that have a part in checkpoints.
pub fn stages(config: &Config) -> Vec<Stage> {
    let cap = config.member_epoch_events_max.map(|_| Stage::Cap);
    let stages = [Some(Stage::Collect), Some(Stage::Join), cap, Some(Stage::Aggregate), Some(Stage::Archive)];
    stages.into_iter().flatten().collect()
}
