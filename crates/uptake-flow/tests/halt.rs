//! What a run that is stopped leaves to the one that goes on from it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::error::Error;
use std::sync::{Arc, Condvar, Mutex};

use uptake_flow::{Batch, Checkpoints, EventTime, Halt, Options, Poll, Schedule, Source, run};

/// Worker 0 takes no step before worker 1 has read.
#[derive(Debug, Default)]
struct WorkerOneFirst {
    has_read: Mutex<bool>,
    changed: Condvar,
}

impl Schedule for WorkerOneFirst {
    fn turn(&self, worker: usize) {
        if worker == 0 {
            let has_read = self.has_read.lock().unwrap();
            drop(self.changed.wait_while(has_read, |has_read| !*has_read).unwrap());
        }
    }

    fn leave(&self, _: usize) {}
}

/// Each worker has a partition with one record, and whoever reads first halts the run.
struct OneRecord {
    worker: usize,
    order: Arc<WorkerOneFirst>,
    halt: Halt,
    read: bool,
}

impl Source<u64> for OneRecord {
    type Position = ();

    fn position(&self) {}

    fn poll(&mut self, batch: &mut Batch<'_, u64>) -> Result<Poll, Box<dyn Error + Send + Sync>> {
        if !std::mem::replace(&mut self.read, true) {
            let time = EventTime(1_000 * (1 + self.worker as i64));
            batch.push(time, 1);
            batch.progress(self.worker as u32, Some(time), true);
            self.halt.halt();
            *self.order.has_read.lock().unwrap() = true;
            self.order.changed.notify_all();
        }
        Ok(Poll::Idle)
    }
}

/// Remembers the watermark that a last checkpoint would have.
#[derive(Debug, Default)]
struct LastWatermark(Mutex<Option<EventTime>>);

impl Checkpoints for LastWatermark {
    fn due(&self, watermark: EventTime, last: bool) -> Option<u64> {
        if last {
            *self.0.lock().unwrap() = Some(watermark);
        }
        None
    }
}

/// The watermark went on with the worker that had read, and what the other one had not begun to
/// read was late for the run that went on from there.
#[test]
fn a_worker_that_is_stopped_before_it_reads_holds_the_watermark() {
    let (order, last, halt) =
        (Arc::<WorkerOneFirst>::default(), Arc::<LastWatermark>::default(), Halt::default());
    let options = Options {
        workers: 2,
        checkpoints: Some(Arc::clone(&last) as Arc<dyn Checkpoints>),
        halt: halt.clone(),
        schedule: Some(Arc::clone(&order) as Arc<dyn Schedule>),
        ..Options::default()
    };
    run(&options, move |flow| {
        let (worker, order, halt) = (flow.worker(), Arc::clone(&order), halt.clone());
        flow.source(OneRecord { worker, order, halt, read: false });
    })
    .unwrap();
    assert_eq!(*last.0.lock().unwrap(), Some(EventTime::MIN));
}
