//! The archive stage: the rows of a sealed epoch, from all workers, as one object per shard.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use uptake_connectors::archive::{Archive, TallyPart};
use uptake_flow::{Context, Emit, Flow, Process, Stop, Stream};
use uptake_model::tally::TallyRow;
use uptake_model::{Epoch, VideoHash};

use crate::config::Config;
use crate::stages::aggregate::Outlets;

/// Writes each sealed epoch once. All rows of an epoch come in one batch, because every worker
/// seals by the same watermark.
pub fn by_epoch<'s>(flow: &Flow<'s>, sealed: Stream<'s, TallyRow>, config: &Arc<Config>, outlets: &Outlets) {
    let shards = config.archive_shards;
    let objects = Objects {
        config: Arc::clone(config),
        parts: BTreeMap::new(),
        archive: Arc::clone(&outlets.archive),
        stop: flow.stop(),
    };
    let part_of = move |row: &TallyRow| {
        (row.epoch, (VideoHash::from_text(row.video_id.as_bytes()).0 % u64::from(shards)) as u32)
    };
    sealed.key_by(part_of).process(objects);
}

struct Objects {
    config: Arc<Config>,
    parts: BTreeMap<(Epoch, u32), Vec<TallyRow>>,
    archive: Arc<Mutex<Box<dyn Archive>>>,
    stop: Stop,
}

impl Process<(Epoch, u32), TallyRow> for Objects {
    type Side = ();
    type Out = ();

    fn record(&mut self, part: &(Epoch, u32), row: TallyRow, _: Context, _: &mut Emit<'_, ()>) {
        self.parts.entry(*part).or_default().push(row);
    }

    fn end_batch(&mut self, _: Context, _: &mut Emit<'_, ()>) {
        while let Some(((epoch, shard), mut rows)) = self.parts.pop_first() {
            let (length, shards) = (self.config.epoch, self.config.archive_shards);
            let part = TallyPart { epoch, length, shard, shards };
            let mut archive = self.archive.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = archive.put_tallies(&part, &mut rows) {
                return self.stop.fail(error);
            }
        }
    }
}
