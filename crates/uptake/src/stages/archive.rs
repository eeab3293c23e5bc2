//! The archive stage: the rows of a sealed epoch, from all workers, as one object per shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use uptake_connectors::archive::TallyPart;
use uptake_flow::{Context, Emit, Flow, Process, Stream};
use uptake_model::ledger::Ledger;
use uptake_model::tally::TallyRow;
use uptake_model::{Epoch, VideoHash};

use crate::checkpoint::{Fragment, Sections, Stage};
use crate::config::Config;
use crate::stages::outlets::Outlets;

/// Writes each sealed epoch once. All rows of an epoch come in one batch, because every worker
/// seals by the same watermark.
pub fn by_epoch<'s>(flow: &Flow<'s>, sealed: Stream<'s, TallyRow>, config: &Arc<Config>, outlets: &Outlets) {
    let shards = config.archive_shards;
    let objects = Objects {
        config: Arc::clone(config),
        parts: BTreeMap::new(),
        outlets: outlets.clone(),
        worker: flow.worker(),
    };
    let part_of = move |row: &TallyRow| {
        (row.epoch, (VideoHash::from_text(row.video_id.as_bytes()).0 % u64::from(shards)) as u32)
    };
    sealed.key_by(part_of).process(objects);
}

struct Objects {
    config: Arc<Config>,
    parts: BTreeMap<(Epoch, u32), Vec<TallyRow>>,
    outlets: Outlets,
    worker: usize,
}

impl Process<(Epoch, u32), TallyRow> for Objects {
    type Side = ();
    type Out = ();

    fn record(&mut self, part: &(Epoch, u32), row: TallyRow, _: Context, _: &mut Emit<'_, ()>) {
        self.parts.entry(*part).or_default().push(row);
    }

    fn end_batch(&mut self, _: Context, _: &mut Emit<'_, ()>) {
        while let Some(((epoch, shard), rows)) = self.parts.pop_first() {
            let (length, shards) = (self.config.epoch, self.config.archive_shards);
            self.outlets.outputs.archive(TallyPart { epoch, length, shard, shards }, rows);
        }
    }

    /// Nothing is held; but what was handed over must be written before the checkpoint counts.
    fn checkpoint(&mut self, number: u64) {
        let (sections, ledger) = (Sections::default(), Ledger::default());
        self.outlets.submit(number, self.worker, Stage::Archive, sections, ledger, Fragment::Nothing);
    }
}
