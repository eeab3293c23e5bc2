//! Records between two workers, each to where its key lives.

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use uptake_flow::{Batch, Context, Emit, EventTime, Options, Poll, Process, Source, run, shard};
use uptake_model::{Event, RequestId};

/// Records pushed between two turns of the engine, as many as a block of input has.
const BLOCK: usize = 1_500;
/// Records of a batch, as the pipeline has it while it is behind.
const BATCH: usize = 100_000;

/// Every second block of the events.
struct Half {
    events: Arc<Vec<Event>>,
    worker: usize,
    block: usize,
}

impl Source<(RequestId, Event)> for Half {
    type Position = ();

    fn position(&self) {}

    fn poll(
        &mut self,
        batch: &mut Batch<'_, (RequestId, Event)>,
    ) -> Result<Poll, Box<dyn std::error::Error + Send + Sync>> {
        let partition = self.worker as u32;
        let Some(block) = self.events.chunks(BLOCK).nth(2 * self.block + self.worker) else {
            batch.progress(partition, None, true);
            return Ok(Poll::End);
        };
        self.block += 1;
        block.iter().for_each(|event| batch.push(event.time, (event.request, *event)));
        batch.progress(partition, block.iter().map(|event| event.time).max(), false);
        Ok(if self.block.is_multiple_of(BATCH / BLOCK / 2) { Poll::Full } else { Poll::Again })
    }
}

/// Uses every part of what arrives, and keeps nothing.
struct Sum(u64, Arc<Mutex<u64>>);

impl Process<RequestId, Event> for Sum {
    type Side = ();
    type Out = ();

    fn record(&mut self, _: &RequestId, event: Event, _: Context, _: &mut Emit<'_, ()>) {
        self.0 = self.0.wrapping_add(sum(&event));
    }

    fn end_batch(&mut self, _: Context, _: &mut Emit<'_, ()>) {
        if let Ok(mut all) = self.1.lock() {
            *all = all.wrapping_add(std::mem::take(&mut self.0));
        }
    }
}

fn sum(event: &Event) -> u64 {
    event.request.0 ^ event.video.0 ^ event.member.0 ^ event.dims.0 ^ event.time.0 as u64
}

/// Two workers that each read one half of the events and take those whose requests are theirs.
pub(crate) fn exchange(events: &Arc<Vec<Event>>) -> u64 {
    let all = Arc::new(Mutex::new(0));
    let (events, into) = (Arc::clone(events), Arc::clone(&all));
    let options = Options { workers: 2, lateness_ms: 60_000, ..Options::default() };
    let ran = run(&options, move |flow| {
        let half = Half { events: Arc::clone(&events), worker: flow.worker(), block: 0 };
        flow.source(half).keyed().process(Sum(0, Arc::clone(&into))).for_each(|_, _, ()| {});
    });
    debug_assert!(ran.is_ok());
    all.lock().map_or(0, |all| *all)
}

/// Two threads with a channel of blocks to each other: no batches, no watermark, no end that all know of.
pub(crate) fn exchange_floor(events: &Arc<Vec<Event>>) -> u64 {
    let (to_first, of_first) = sync_channel::<Vec<(EventTime, RequestId, Event)>>(8);
    let (to_second, of_second) = sync_channel(8);
    let half = |worker: usize, other: std::sync::mpsc::SyncSender<_>, own: std::sync::mpsc::Receiver<_>| {
        let events = Arc::clone(events);
        move || {
            let mut all = 0u64;
            let take = |all: &mut u64, block: Vec<(EventTime, RequestId, Event)>| {
                *all = block.iter().fold(*all, |all, (_, _, event)| all.wrapping_add(sum(event)));
            };
            for block in events.chunks(BLOCK).skip(worker).step_by(2) {
                let mut there = Vec::with_capacity(BLOCK);
                for event in block {
                    if shard(&event.request) as usize % 2 == worker {
                        all = all.wrapping_add(sum(event));
                    } else {
                        there.push((event.time, event.request, *event));
                    }
                }
                // The other one may wait for room here while this one waits for room there.
                let mut full = other.try_send(there);
                while let Err(std::sync::mpsc::TrySendError::Full(there)) = full {
                    match own.try_recv() {
                        Ok(block) => take(&mut all, block),
                        Err(_) => std::thread::yield_now(),
                    }
                    full = other.try_send(there);
                }
                while let Ok(block) = own.try_recv() {
                    take(&mut all, block);
                }
            }
            drop(other);
            while let Ok(block) = own.recv() {
                take(&mut all, block);
            }
            all
        }
    };
    let (first, second) = (half(0, to_second, of_first), half(1, to_first, of_second));
    std::thread::scope(|scope| {
        let beside = scope.spawn(first);
        let own = second();
        beside.join().map_or(0, |other| own.wrapping_add(other))
    })
}
