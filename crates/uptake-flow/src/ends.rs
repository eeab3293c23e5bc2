//! The ends of batches: worker 0 hears how far every partition of every source has come, and
//! tells all workers the watermark after each batch, whether a checkpoint is taken there, and
//! whether to stop. A batch without data ends too, so timeouts fire.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::Operator;
use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::{Scope, StreamVec};
use uptake_model::EventTime;
use uptake_model::watermark::Watermark;

use crate::run::{Failure, Options};
use crate::source::Progress;

/// What worker 0 says at the end of a batch.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct End {
    /// The watermark after the batch.
    pub(crate) watermark: EventTime,
    /// The number of the checkpoint that holds the state after this batch, if one is taken.
    pub(crate) checkpoint: Option<u64>,
    /// The run is being stopped: no worker shall begin another batch.
    pub(crate) halt: bool,
    /// Nothing follows this batch.
    pub(crate) last: bool,
}

/// What a worker has heard of the ends of batches, for its sources.
#[derive(Debug)]
pub(crate) struct Heard {
    /// The newest watermark.
    pub(crate) watermark: Cell<EventTime>,
    /// Whether the run is being stopped.
    pub(crate) halt: Cell<bool>,
    /// Checkpoints that the sources have not been told of: their number and batch.
    pub(crate) checkpoints: RefCell<VecDeque<(u64, u64)>>,
}

/// The stream of ends, and what this worker has heard of it.
pub(crate) struct Ends<'s> {
    pub(crate) stream: StreamVec<'s, u64, End>,
    pub(crate) heard: Rc<Heard>,
}

pub(crate) fn build<'s>(
    scope: Scope<'s, u64>,
    progress: StreamVec<'s, u64, Progress>,
    options: &Options,
    failure: Arc<Failure>,
) -> Ends<'s> {
    let is_leader = scope.index() == 0;
    let (checkpoints, seals_at_end) = (options.checkpoints.clone(), options.seals_at_end);
    let at_start = options.watermark;
    let mut tracker = Watermark::new(options.lateness_ms).starting_at(at_start);
    let stream = progress
        .unary_frontier(Exchange::new(|_: &Progress| 0), "ends", move |cap, _| {
            // Only worker 0 speaks; the others give up the right to at once.
            let mut cap = is_leader.then_some(cap);
            let mut halt = false;
            let mut watermark = at_start;
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
                let due = |watermark, last| checkpoints.as_ref().and_then(|c| c.due(watermark, last));
                while *held.time() < reached_or_end {
                    let batch = *held.time();
                    let progress = heard.remove(&batch).unwrap_or_default();
                    for p in progress {
                        halt |= p == Progress::HALT;
                        let next = partitions.len() as u32;
                        let number = *partitions.entry((p.source, p.partition)).or_insert(next);
                        match p.piece {
                            Some(piece) => tracker.observe_piece(number, piece, p.newest),
                            None => tracker.observe(number, p.newest, p.idle),
                        }
                    }
                    // A worker that stops says no more about its partitions: it may not have begun
                    // to read one, or have taken for read what has grown since. So the watermark
                    // stands still from its last batch on, however much further others have read.
                    if !halt {
                        watermark = tracker.advance();
                    }
                    let checkpoint = if halt { None } else { due(watermark, false) };
                    output.session(&*held).give(End { watermark, checkpoint, halt, last: false });
                    held.downgrade(&(batch + 1));
                }
                if reached.is_none() {
                    // The end of a run that failed is no end of input: what waits is not over.
                    if !failure.is_set() {
                        // A run that was stopped keeps what waits, for the one that goes on.
                        let goes_on = halt || !seals_at_end;
                        let watermark = if goes_on { watermark } else { EventTime::MAX };
                        let checkpoint = due(watermark, true);
                        output.session(&*held).give(End { watermark, checkpoint, halt, last: true });
                    }
                    cap = None;
                }
            }
        })
        .container::<Vec<_>>()
        .broadcast();
    let heard = Rc::new(Heard {
        watermark: Cell::new(options.watermark),
        halt: Cell::new(false),
        checkpoints: RefCell::default(),
    });
    let listener = Rc::clone(&heard);
    let stream = stream
        .unary(Pipeline, "heard ends", move |_, _| {
            move |input, output| {
                input.for_each(|cap, data| {
                    let batch = cap.least().copied().unwrap_or_default();
                    for end in data.iter() {
                        listener.watermark.set(end.watermark.max(listener.watermark.get()));
                        listener.halt.set(listener.halt.get() || end.halt);
                        let number = end.checkpoint.map(|number| (number, batch));
                        listener.checkpoints.borrow_mut().extend(number);
                    }
                    output.session(&cap).give_container(data);
                });
            }
        })
        .container::<Vec<_>>();
    Ends { stream, heard }
}
