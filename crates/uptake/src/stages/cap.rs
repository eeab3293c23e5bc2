//! The cap per member and epoch: a member who plays all day without end moves no row.
//!
//! Off unless configured, because it sends every counting event through one more exchange.

use std::rc::Rc;
use std::sync::Arc;

use uptake_flow::{Context, Emit, KeyedState, Process, Stream};
use uptake_model::{Epoch, MemberHash};

use crate::config::Config;
use crate::pipeline::Books;
use crate::stages::Joined;

/// Cuts what is over the cap, if there is one.
pub fn by_member_and_epoch<'s>(
    joined: Stream<'s, Joined>,
    config: &Arc<Config>,
    books: &Books,
) -> Stream<'s, Joined> {
    let Some(events_max) = config.member_epoch_events_max else { return joined };
    let cap = Cap {
        events_max,
        config: Arc::clone(config),
        counts: KeyedState::default(),
        books: Rc::clone(books),
    };
    joined.key_by(|joined| joined.event().member).process(cap)
}

struct Cap {
    events_max: u32,
    config: Arc<Config>,
    /// Counting events so far; forgotten when the epoch is sealed.
    counts: KeyedState<(MemberHash, Epoch), u32>,
    books: Books,
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
        let sealed_at = self.config.epoch.end(epoch).plus(self.config.join.retention_ms());
        let count = self.counts.entry(&(*member, epoch), Some(sealed_at)).get_or_insert(0);
        if *count < self.events_max {
            *count += 1;
            out.emit(joined);
        } else {
            self.books.borrow_mut().account(event.partition).capped += 1;
        }
    }

    fn end_batch(&mut self, context: Context, _: &mut Emit<'_, Joined>) {
        self.counts.expire(context.watermark, &mut |_, _| {});
    }
}
