//! The cap per member and epoch: a member who plays all day without end moves no row.
//!
//! Off unless configured, because it sends every counting event through one more exchange.

use std::sync::Arc;

use uptake_flow::{Context, Emit, EventTime, Flow, KeyedState, Process, Stream, Tracking, shard};
use uptake_model::{Epoch, MemberHash};

use crate::checkpoint::{
    CheckpointError, Fields, Fragment, Restored, SectionKind, Sections, Stage, each_due, for_own_shards,
    shard_buffers,
};
use crate::config::Config;
use crate::stages::Joined;
use crate::stages::outlets::{Books, Outlets};

/// Cuts what is over the cap, if there is one.
pub fn by_member_and_epoch<'s>(
    flow: &Flow<'s>,
    joined: Stream<'s, Joined>,
    config: &Arc<Config>,
    outlets: &Outlets,
    restored: Option<&Restored>,
) -> Stream<'s, Joined> {
    let Some(events_max) = config.member_epoch_events_max else { return joined };
    let mut cap = Cap {
        events_max,
        config: Arc::clone(config),
        counts: KeyedState::default(),
        books: outlets.books(),
        outlets: outlets.clone(),
        worker: flow.worker(),
    };
    if outlets.checkpoints.is_some() {
        cap.counts.track(Tracking::Checkpoint);
    }
    if let Some(restored) = restored
        && let Err(error) = cap.restore(restored, flow)
    {
        flow.stop().fail(error);
    }
    joined.key_by(|joined| joined.event().member).process(cap)
}

struct Cap {
    events_max: u32,
    config: Arc<Config>,
    /// Counting events so far; forgotten when the epoch is sealed.
    counts: KeyedState<(MemberHash, Epoch), u32>,
    books: Books,
    outlets: Outlets,
    worker: usize,
}

impl Cap {
    fn restore(&mut self, restored: &Restored, flow: &Flow<'_>) -> Result<(), CheckpointError> {
        for_own_shards(flow, |shard| {
            for section in restored.sections(SectionKind::Members, shard) {
                let (segment, bytes) = section?;
                let mut fields = Fields::new(segment, &bytes);
                while !fields.is_empty() {
                    let (member, epoch) = (MemberHash(fields.u64()?), Epoch(fields.i64()?));
                    let sealed_at = self.config.sealed_at(epoch);
                    let count = self.counts.entry(&(member, epoch), Some(sealed_at)).get_or_insert(0);
                    *count = (*count).max(fields.u32()?);
                }
            }
            Ok(())
        })?;
        self.counts.expire(restored.manifest.watermark, &mut |_, _| {});
        Ok(())
    }
}

impl Process<MemberHash, Joined> for Cap {
    type Side = ();
    type Out = Joined;

    fn record(&mut self, member: &MemberHash, joined: Joined, _: Context, out: &mut Emit<'_, Joined>) {
        let event = match joined {
            Joined::Counted(event) if *member != MemberHash::NONE => event,
            other => return out.emit(other),
        };
        let epoch = self.config.epoch.epoch(event.time);
        let sealed_at = self.config.sealed_at(epoch);
        let count = self.counts.entry(&(*member, epoch), Some(sealed_at)).get_or_insert(0);
        if *count < self.events_max {
            *count += 1;
            out.emit(joined);
        } else {
            self.books.ledger.account(event.partition).capped += 1;
            if self.config.tells_cut(event.kind) {
                out.emit(Joined::Cut(event));
            }
        }
    }

    fn end_batch(&mut self, context: Context, _: &mut Emit<'_, Joined>) {
        self.counts.expire(context.watermark, &mut |_, _| {});
        self.books.publish();
    }

    /// An entry: member u64, epoch i64, number of events u32.
    fn checkpoint(&mut self, number: u64) {
        let mut shards = shard_buffers();
        let mut save = |(member, epoch): &(MemberHash, Epoch), count: &mut u32, _: Option<EventTime>| {
            let out = &mut shards[shard(member) as usize];
            out.extend_from_slice(&member.0.to_le_bytes());
            out.extend_from_slice(&epoch.0.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
        };
        each_due(number, &mut self.counts, &mut save);
        let mut sections = Sections::default();
        sections.put_shards(SectionKind::Members, shards);
        let ledger = self.books.ledger.clone();
        self.outlets.submit(number, self.worker, Stage::Cap, sections, ledger, Fragment::Nothing);
    }
}
