//! Running a flow: the workers, the batches, and what stops them.
//!
//! Each worker fills batch after batch from its sources and lets a batch begin only when the one
//! `batches_in_flight` before it is finished everywhere. So every queue is bounded by the size of
//! a few batches, and a slow sink slows the sources.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::{Input, Probe};
use timely::dataflow::{InputHandle, Scope, StreamVec};
use timely::worker::Worker;
use uptake_model::EventTime;

use crate::source::{Batch, Poll, Progress, Source};
use crate::stream::{Record, Stream, TimelyStream};
use crate::watermarks::{self, Watermarks};

/// How a flow is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads, at least 1.
    pub workers: usize,
    /// How often a batch begins when the sources have nothing more to read.
    pub tick: Duration,
    /// How many batches may be under way at once, at least 1.
    pub batches_in_flight: u64,
    /// How far the watermark stays behind the newest event, in milliseconds of event time.
    pub lateness_ms: i64,
}

impl Default for Options {
    /// One worker, a tick of 500 ms, 4 batches in flight, no lateness.
    fn default() -> Self {
        Self { workers: 1, tick: Duration::from_millis(500), batches_in_flight: 4, lateness_ms: 0 }
    }
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source or a sink failed.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
    /// The code of a worker is wrong.
    #[error("worker {worker} panicked: {message}")]
    Panicked {
        /// Which worker.
        worker: usize,
        /// What it said.
        message: String,
    },
    /// The workers could not be started.
    #[error("cannot start {workers} workers: {reason}")]
    Start {
        /// How many.
        workers: usize,
        /// Why not.
        reason: String,
    },
}

/// The first thing that went wrong in any worker; every worker looks at it and stops.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    is_set: AtomicBool,
    first: Mutex<Option<Error>>,
}

impl Failure {
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    fn set(&self, error: Error) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        self.is_set.store(true, Ordering::Release);
    }
}

/// Stops a run from the inside: given to sinks, which have nobody to return an error to.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Failure>);

impl Stop {
    /// Stops all workers; the run ends with `error`, or with an earlier one.
    pub fn fail(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) {
        self.0.set(Error::Failed(error.into()));
    }

    /// Whether something has gone wrong already.
    pub fn is_failing(&self) -> bool {
        self.0.is_set()
    }
}

/// Fills one batch from one source: the source, and where its records go.
trait Feed {
    /// One piece of work; records and progress have been sent when it returns.
    fn poll(&mut self, batch: u64, watermark: EventTime, progress: &mut Vec<Progress>)
    -> Result<Poll, Error>;
    fn advance_to(&mut self, batch: u64);
}

struct TypedFeed<D: Clone + 'static, S> {
    number: u32,
    source: S,
    input: InputHandle<u64, timely::container::CapacityContainerBuilder<Vec<Record<D>>>>,
    records: Vec<Record<D>>,
    /// How many records there were last. What is sent takes its memory along, and growing anew
    /// from nothing each time would copy every record twice.
    expected: usize,
}

impl<D: Clone + 'static, S: Source<D>> Feed for TypedFeed<D, S> {
    fn poll(
        &mut self,
        batch: u64,
        watermark: EventTime,
        progress: &mut Vec<Progress>,
    ) -> Result<Poll, Error> {
        self.records.reserve(self.expected);
        let mut batch =
            Batch { number: batch, source: self.number, watermark, records: &mut self.records, progress };
        let poll = self.source.poll(&mut batch).map_err(Error::Failed)?;
        self.expected = self.records.len();
        self.input.send_batch(&mut self.records);
        self.records.clear();
        Ok(poll)
    }

    fn advance_to(&mut self, batch: u64) {
        self.input.advance_to(batch);
    }
}

struct Inner<'s> {
    scope: Scope<'s, u64>,
    watermarks: StreamVec<'s, u64, EventTime>,
    feeds: RefCell<Vec<Box<dyn Feed>>>,
    probe: ProbeHandle<u64>,
    failure: Arc<Failure>,
}

/// The flow that a worker is building. Every worker builds the same one.
#[derive(Clone)]
pub struct Flow<'s>(Rc<Inner<'s>>);

impl<'s> Flow<'s> {
    /// This worker's number, from 0.
    pub fn worker(&self) -> usize {
        self.0.scope.index()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.0.scope.peers()
    }

    /// A stream of what `source` reads. Sources are asked in the order in which they were added.
    pub fn source<D: Clone + 'static>(&self, source: impl Source<D> + 'static) -> Stream<'s, D> {
        let (input, stream) = self.scope().new_input::<Vec<Record<D>>>();
        let mut feeds = self.0.feeds.borrow_mut();
        let number = feeds.len() as u32;
        feeds.push(Box::new(TypedFeed { number, source, input, records: Vec::new(), expected: 0 }));
        self.stream(stream)
    }

    /// A handle for sinks to stop the run with an error.
    pub fn stop(&self) -> Stop {
        Stop(Arc::clone(&self.0.failure))
    }

    pub(crate) fn scope(&self) -> Scope<'s, u64> {
        self.0.scope
    }

    pub(crate) fn watermarks(&self) -> StreamVec<'s, u64, EventTime> {
        self.0.watermarks.clone()
    }

    pub(crate) fn probe(&self) -> &ProbeHandle<u64> {
        &self.0.probe
    }

    /// A stream of an operator's output; the run waits for it.
    pub(crate) fn stream<D: 'static>(&self, inner: TimelyStream<'s, D>) -> Stream<'s, D> {
        Stream::new(self.clone(), inner)
    }
}

/// Runs the flow that `build` builds in each worker, to the end of its sources. Returns what
/// `build` returned, by worker.
///
/// # Errors
/// The first error of a source or sink, or the first panic: all workers stop then, and what has
/// not been finished is let go of without being taken for finished.
pub fn run<R, F>(options: &Options, build: F) -> Result<Vec<R>, Error>
where
    R: Send + 'static,
    F: Fn(&Flow<'_>) -> R + Send + Sync + 'static,
{
    let failure = Arc::new(Failure::default());
    let workers = options.workers.max(1);
    let config = match workers {
        1 => timely::Config::thread(),
        n => timely::Config::process(n),
    };
    let shared = (options.clone(), Arc::clone(&failure));
    let guards = timely::execute(config, move |worker| {
        let (options, failure) = &shared;
        let index = worker.index();
        // A panic must not leave the other workers waiting for this one.
        let run = std::panic::AssertUnwindSafe(|| run_worker(worker, options, failure, &build));
        match std::panic::catch_unwind(run) {
            Ok(result) => result,
            Err(panic) => {
                failure.set(Error::Panicked { worker: index, message: message_of(&*panic) });
                for dataflow in worker.installed_dataflows() {
                    worker.drop_dataflow(dataflow);
                }
                None
            }
        }
    })
    .map_err(|reason| Error::Start { workers, reason })?;
    let mut results = Vec::with_capacity(workers);
    for (worker, joined) in guards.join().into_iter().enumerate() {
        match joined {
            Ok(result) => results.extend(result),
            Err(message) => failure.set(Error::Panicked { worker, message }),
        }
    }
    match failure.first.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error),
        None => Ok(results),
    }
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

fn run_worker<R>(
    worker: &mut Worker,
    options: &Options,
    failure: &Arc<Failure>,
    build: impl Fn(&Flow<'_>) -> R,
) -> Option<R> {
    let probe = ProbeHandle::new();
    let (result, mut feeds, mut progress_input, newest) = worker.dataflow::<u64, _, _>(|scope| {
        let (progress_input, progress) = scope.new_input::<Vec<Progress>>();
        let Watermarks { stream, newest } =
            watermarks::build(scope, progress, options.lateness_ms, Arc::clone(failure));
        stream.clone().probe_with(&probe);
        let flow = Flow(Rc::new(Inner {
            scope,
            watermarks: stream,
            feeds: RefCell::default(),
            probe: probe.clone(),
            failure: Arc::clone(failure),
        }));
        let result = build(&flow);
        (result, flow.0.feeds.take(), progress_input, newest)
    });

    let mut progress = Vec::new();
    let mut batch = 0u64;
    loop {
        let begun = Instant::now();
        let (mut more, mut ended) = (false, true);
        for feed in &mut feeds {
            let poll = loop {
                match feed.poll(batch, newest.get(), &mut progress) {
                    Ok(Poll::Again) if !failure.is_set() => worker.step(),
                    Ok(poll) => break poll,
                    Err(error) => {
                        failure.set(error);
                        break Poll::End;
                    }
                };
            };
            more |= poll == Poll::Full;
            ended &= poll == Poll::End;
        }
        if ended {
            // Says which batch is this worker's last, if nothing else does.
            progress.push(Progress::NOTHING);
        }
        progress_input.send_batch(&mut progress);
        progress.clear();
        if failure.is_set() || ended {
            break;
        }
        batch += 1;
        feeds.iter_mut().for_each(|feed| feed.advance_to(batch));
        progress_input.advance_to(batch);
        worker.step();
        let oldest = (batch + 1).saturating_sub(options.batches_in_flight.max(1));
        while probe.less_than(&oldest) && !failure.is_set() {
            worker.step_or_park(Some(Duration::from_millis(1)));
        }
        while !more && begun.elapsed() < options.tick && !failure.is_set() {
            worker.step_or_park(Some(options.tick.saturating_sub(begun.elapsed())));
        }
    }
    drop(feeds);
    drop(progress_input);
    while !probe.done() && !failure.is_set() {
        worker.step_or_park(Some(Duration::from_millis(10)));
    }
    if failure.is_set() {
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
        return None;
    }
    Some(result)
}
