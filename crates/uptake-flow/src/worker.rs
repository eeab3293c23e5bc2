//! One worker: it fills batch after batch from its sources and lets a batch begin only when the
//! one `batches_in_flight` before it is finished everywhere. So every queue is bounded by the
//! size of a few batches, and a slow sink slows the sources.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use timely::dataflow::InputHandle;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::{Input, Probe};
use timely::worker::Worker;

use crate::ends::{self, Ends, Heard};
use crate::flow::{Feed, Flow, Inner};
use crate::run::{Error, Failure, Options};
use crate::source::{Poll, Progress};

/// Who decides when a worker of the run takes its next step; for tests that replay one order of
/// events by a seed. Without it the system's threads do.
///
/// From its first turn, before it builds its flow, until it leaves, a worker does nothing except
/// between two turns of its own.
pub trait Schedule: Send + Sync + std::fmt::Debug {
    /// Returns when it is this worker's turn. A panic ends the run, as one of the worker's own.
    fn turn(&self, worker: usize);
    /// This worker does nothing any more.
    fn leave(&self, worker: usize);
}

struct Running<'w> {
    worker: &'w mut Worker,
    options: &'w Options,
    failure: &'w Arc<Failure>,
    probe: ProbeHandle<u64>,
    feeds: Vec<Box<dyn Feed>>,
    heard: Rc<Heard>,
}

pub(crate) fn run<R>(
    worker: &mut Worker,
    options: &Options,
    failure: &Arc<Failure>,
    build: impl Fn(&Flow<'_>) -> R,
) -> Option<R> {
    if let Some(schedule) = &options.schedule {
        schedule.turn(worker.index());
    }
    let probe = ProbeHandle::new();
    let (result, feeds, progress, heard) = worker.dataflow::<u64, _, _>(|scope| {
        let (progress_input, progress) = scope.new_input::<Vec<Progress>>();
        let Ends { stream, heard } = ends::build(scope, progress, options, Arc::clone(failure));
        stream.clone().probe_with(&probe);
        // From when a batch was filled until its checkpoint is heard of, as many others can have
        // been as are in flight, and some that are on their way.
        let positions_max = options.checkpoints.as_ref().map_or(0, |_| options.batches_in_flight + 4);
        let flow = Flow(Rc::new(Inner {
            scope,
            ends: stream,
            feeds: RefCell::default(),
            probe: probe.clone(),
            failure: Arc::clone(failure),
            watermark_at_start: options.watermark,
            positions_max: positions_max as usize,
            checkpoints: options.checkpoints.clone(),
        }));
        let result = build(&flow);
        (result, flow.0.feeds.take(), progress_input, heard)
    });
    let mut running = Running { worker, options, failure, probe, feeds, heard };
    running.fill(progress);
    running.drain();
    (!failure.is_set()).then_some(result)
}

impl Running<'_> {
    fn step(&mut self) {
        self.park(Duration::ZERO);
    }

    /// Works, and if there is nothing to do sleeps until there is, or until `most` has passed.
    fn park(&mut self, most: Duration) {
        match &self.options.schedule {
            None => drop(self.worker.step_or_park(Some(most))),
            Some(schedule) => {
                schedule.turn(self.worker.index());
                self.worker.step();
            }
        }
        // While a batch is being filled the sources are busy; they are told right after.
        if !self.feeds.is_empty() {
            let due = std::mem::take(&mut *self.heard.checkpoints.borrow_mut());
            for (number, batch) in due {
                self.feeds.iter_mut().for_each(|feed| feed.checkpoint(number, batch));
            }
        }
    }

    /// Fills batches until the sources end, the run is halted or something fails.
    fn fill(
        &mut self,
        mut progress_input: InputHandle<u64, timely::container::CapacityContainerBuilder<Vec<Progress>>>,
    ) {
        let mut progress = Vec::new();
        let mut batch = 0u64;
        loop {
            let begun = Instant::now();
            let halted = self.options.halt.is_halted() || self.heard.halt.get();
            let (mut more, mut ended) = (false, true);
            // Taken out, so that the worker can take steps in between.
            let mut feeds = std::mem::take(&mut self.feeds);
            for feed in feeds.iter_mut().filter(|_| !halted) {
                let poll = self.poll(&mut **feed, batch, &mut progress);
                more |= poll == Poll::Full;
                ended &= poll == Poll::End;
            }
            self.feeds = feeds;
            if ended {
                // Says which batch is this worker's last, if nothing else does.
                progress.push(if halted { Progress::HALT } else { Progress::NOTHING });
            }
            progress_input.send_batch(&mut progress);
            progress.clear();
            self.feeds.iter_mut().for_each(|feed| feed.advance(batch, batch + 1));
            if self.failure.is_set() || ended {
                return;
            }
            batch += 1;
            progress_input.advance_to(batch);
            self.step();
            self.wait_for((batch + 1).saturating_sub(self.options.batches_in_flight.max(1)));
            let stepped = self.options.schedule.is_some();
            let is_halted = |this: &Self| this.options.halt.is_halted() || this.heard.halt.get();
            while !more
                && !stepped
                && begun.elapsed() < self.options.tick
                && !self.failure.is_set()
                && !is_halted(self)
            {
                // A signal to halt wakes nobody: look for it a few times in a long tick.
                let left = self.options.tick.saturating_sub(begun.elapsed());
                self.park(left.min(Duration::from_millis(50)));
            }
        }
    }

    fn poll(&mut self, feed: &mut dyn Feed, batch: u64, progress: &mut Vec<Progress>) -> Poll {
        loop {
            match feed.poll(batch, self.heard.watermark.get(), progress) {
                Ok(Poll::Again) if !self.failure.is_set() => self.step(),
                Ok(poll) => return poll,
                Err(error) => {
                    self.failure.set(error);
                    return Poll::End;
                }
            }
        }
    }

    /// Works until every batch before `oldest` is finished.
    fn wait_for(&mut self, oldest: u64) {
        let mut moved = (Instant::now(), None);
        while self.probe.less_than(&oldest) && !self.failure.is_set() {
            self.park(Duration::from_millis(1));
            self.check_deadline(&mut moved);
        }
    }

    /// Works until everything is finished.
    fn drain(&mut self) {
        let mut moved = (Instant::now(), None);
        // The sources stay until then: a last checkpoint asks them where they stand.
        self.feeds.iter_mut().for_each(|feed| feed.close());
        while !self.probe.done() && !self.failure.is_set() {
            self.park(Duration::from_millis(10));
            self.check_deadline(&mut moved);
        }
    }

    /// In a cluster a peer that hangs, or that the network cut off, shows in a batch that does
    /// not finish: a connection alone may take hours to be given up. `moved` is when the oldest
    /// unfinished batch became that, and which it is: a worker that has nothing more to read may
    /// wait for long while the others go on.
    fn check_deadline(&self, moved: &mut (Instant, Option<u64>)) {
        let Some(cluster) = &self.options.cluster else { return };
        let oldest = self.probe.with_frontier(|frontier| frontier.first().copied());
        if oldest != moved.1 {
            *moved = (Instant::now(), oldest);
        }
        if moved.0.elapsed() > cluster.progress_deadline {
            self.failure.set(Error::NoProgress { waited: cluster.progress_deadline });
        }
    }
}
