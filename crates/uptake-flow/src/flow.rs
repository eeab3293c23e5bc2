//! The flow that a worker builds: its sources, and what its operators share.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use timely::dataflow::operators::Input;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::{InputHandle, Scope, StreamVec};
use uptake_model::EventTime;

use crate::ends::End;
use crate::run::{Checkpoints, Error, Failure, Stop};
use crate::source::{Batch, Poll, Progress, Source};
use crate::stream::{Record, Stream, TimelyStream};
use crate::{Key, hash_of, shard_of};

/// Fills one batch from one source: the source, and where its records go.
pub(crate) trait Feed {
    /// One piece of work; records and progress have been sent when it returns.
    fn poll(&mut self, batch: u64, watermark: EventTime, progress: &mut Vec<Progress>)
    -> Result<Poll, Error>;
    /// Ends the filling of `batch`; `next` is the one to fill now.
    fn advance(&mut self, batch: u64, next: u64);
    /// Lets the source take its part of a checkpoint of the state after `batch`.
    fn checkpoint(&mut self, number: u64, batch: u64);
    /// Nothing more will be read.
    fn close(&mut self);
}

struct TypedFeed<D: Clone + 'static, S: Source<D>> {
    number: u32,
    source: S,
    /// `None` when nothing more will be read.
    input: Option<InputHandle<u64, timely::container::CapacityContainerBuilder<Vec<Record<D>>>>>,
    records: Vec<Record<D>>,
    /// How many records there were last. What is sent takes its memory along, and growing anew
    /// from nothing each time would copy every record twice; so would growing for the last few.
    expected: usize,
    /// Where the source stood at the end of each batch from which a checkpoint may still be taken.
    positions: VecDeque<(u64, S::Position)>,
    /// How many of them are needed: 0 without checkpoints.
    positions_max: usize,
}

impl<D: Clone + 'static, S: Source<D>> Feed for TypedFeed<D, S> {
    fn poll(
        &mut self,
        batch: u64,
        watermark: EventTime,
        progress: &mut Vec<Progress>,
    ) -> Result<Poll, Error> {
        self.records.reserve(self.expected + self.expected / 8);
        let mut batch =
            Batch { number: batch, source: self.number, watermark, records: &mut self.records, progress };
        let poll = self.source.poll(&mut batch).map_err(Error::Failed)?;
        self.expected = self.records.len();
        if let Some(input) = &mut self.input {
            input.send_batch(&mut self.records);
        }
        self.records.clear();
        Ok(poll)
    }

    fn advance(&mut self, batch: u64, next: u64) {
        if self.positions_max > 0 {
            if self.positions.len() == self.positions_max {
                self.positions.pop_front();
            }
            self.positions.push_back((batch, self.source.position()));
        }
        if let Some(input) = &mut self.input {
            input.advance_to(next);
        }
    }

    fn checkpoint(&mut self, number: u64, batch: u64) {
        // A worker that had nothing more to read ended before the batch: it stands where it stood.
        let then = self.positions.iter().rev().find(|(b, _)| *b <= batch);
        let position = then.map_or_else(|| self.source.position(), |(_, position)| position.clone());
        self.source.checkpoint(number, position);
    }

    fn close(&mut self) {
        self.input = None;
    }
}

pub(crate) struct Inner<'s> {
    pub(crate) scope: Scope<'s, u64>,
    pub(crate) ends: StreamVec<'s, u64, End>,
    pub(crate) feeds: RefCell<Vec<Box<dyn Feed>>>,
    pub(crate) probe: ProbeHandle<u64>,
    pub(crate) failure: Arc<Failure>,
    pub(crate) watermark_at_start: EventTime,
    pub(crate) positions_max: usize,
    pub(crate) checkpoints: Option<Arc<dyn Checkpoints>>,
}

/// The flow that a worker is building. Every worker builds the same one.
#[derive(Clone)]
pub struct Flow<'s>(pub(crate) Rc<Inner<'s>>);

impl<'s> Flow<'s> {
    /// This worker's number, from 0, over all processes.
    pub fn worker(&self) -> usize {
        self.0.scope.index()
    }

    /// How many workers there are, in all processes.
    pub fn workers(&self) -> usize {
        self.0.scope.peers()
    }

    /// Whether the records of `key` in a keyed stream come to this worker.
    pub fn is_mine(&self, key: &impl Key) -> bool {
        self.has_shard(shard_of(hash_of(key)))
    }

    /// Whether the keys of a virtual shard come to this worker; see [`crate::shard`].
    pub fn has_shard(&self, shard: u32) -> bool {
        shard as usize % self.workers() == self.worker()
    }

    /// A stream of what `source` reads. Sources are asked in the order in which they were added.
    pub fn source<D: Clone + 'static>(&self, source: impl Source<D> + 'static) -> Stream<'s, D> {
        let (input, stream) = self.scope().new_input::<Vec<Record<D>>>();
        let mut feeds = self.0.feeds.borrow_mut();
        let number = feeds.len() as u32;
        feeds.push(Box::new(TypedFeed {
            number,
            source,
            input: Some(input),
            records: Vec::new(),
            expected: 0,
            positions: VecDeque::new(),
            positions_max: self.0.positions_max,
        }));
        self.stream(stream)
    }

    /// A handle for sinks to stop the run with an error.
    pub fn stop(&self) -> Stop {
        Stop(Arc::clone(&self.0.failure))
    }

    pub(crate) fn scope(&self) -> Scope<'s, u64> {
        self.0.scope
    }

    pub(crate) fn ends(&self) -> StreamVec<'s, u64, End> {
        self.0.ends.clone()
    }

    pub(crate) fn watermark_at_start(&self) -> EventTime {
        self.0.watermark_at_start
    }

    pub(crate) fn checkpoints(&self) -> Option<Arc<dyn Checkpoints>> {
        self.0.checkpoints.clone()
    }

    pub(crate) fn probe(&self) -> &ProbeHandle<u64> {
        &self.0.probe
    }

    /// A stream of an operator's output; the run waits for it.
    pub(crate) fn stream<D: 'static>(&self, inner: TimelyStream<'s, D>) -> Stream<'s, D> {
        Stream::new(self.clone(), inner)
    }
}
