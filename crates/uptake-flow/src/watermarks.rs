//! One watermark for all workers: worker 0 hears how far every partition of every source has
//! come, and tells all workers the watermark after each batch. The message doubles as the end
//! of the batch, so timeouts fire in batches without data too.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Operator;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::{Scope, StreamVec};
use uptake_model::EventTime;
use uptake_model::watermark::Watermark;

use crate::run::Failure;
use crate::source::Progress;

/// The stream of watermarks, and the newest one this worker has heard of.
pub(crate) struct Watermarks<'s> {
    pub(crate) stream: StreamVec<'s, u64, EventTime>,
    pub(crate) newest: Rc<Cell<EventTime>>,
}

pub(crate) fn build<'s>(
    scope: Scope<'s, u64>,
    progress: StreamVec<'s, u64, Progress>,
    lateness_ms: i64,
    failure: Arc<Failure>,
) -> Watermarks<'s> {
    let is_leader = scope.index() == 0;
    let stream = progress
        .unary_frontier(Exchange::new(|_: &Progress| 0), "watermark", move |cap, _| {
            // Only worker 0 speaks; the others give up the right to at once.
            let mut cap = is_leader.then_some(cap);
            let mut tracker = Watermark::new(lateness_ms);
            let mut partitions: HashMap<(u32, u32), u32> = HashMap::new();
            let mut heard: BTreeMap<u64, Vec<Progress>> = BTreeMap::new();
            move |(input, frontier), output| {
                input.for_each(|c, data| {
                    if let Some(&batch) = c.least() {
                        heard.entry(batch).or_default().append(data);
                    }
                });
                let Some(held) = &mut cap else { return };
                // Where the workers are; past the end of input, behind the last batch of any.
                let reached = frontier.frontier().first().copied();
                let last = || heard.last_key_value().map(|(last, _)| last + 1);
                let reached_or_end = reached.or_else(last).unwrap_or(0);
                while *held.time() < reached_or_end {
                    let batch = *held.time();
                    let progress = heard.remove(&batch).unwrap_or_default();
                    for p in progress {
                        let next = partitions.len() as u32;
                        let number = *partitions.entry((p.source, p.partition)).or_insert(next);
                        match p.piece {
                            Some(piece) => tracker.observe_piece(number, piece, p.newest),
                            None => tracker.observe(number, p.newest, p.idle),
                        }
                    }
                    output.session(&*held).give(tracker.advance());
                    held.downgrade(&(batch + 1));
                }
                if reached.is_none() {
                    // The end of all input, unless it is the end of a run that failed: then what
                    // waits must not be taken for over.
                    if !failure.is_set() {
                        output.session(&*held).give(EventTime::MAX);
                    }
                    cap = None;
                }
            }
        })
        .container::<Vec<_>>()
        .broadcast();
    let newest = Rc::new(Cell::new(EventTime::MIN));
    let cell = newest.clone();
    let stream = stream
        .unary(Pipeline, "newest watermark", move |_, _| {
            move |input, output| {
                input.for_each(|cap, data| {
                    if let Some(&last) = data.last() {
                        cell.set(last.max(cell.get()));
                    }
                    output.session(&cap).give_container(data);
                });
            }
        })
        .container::<Vec<_>>();
    Watermarks { stream, newest }
}
