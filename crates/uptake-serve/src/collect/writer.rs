//! Group commit: what many requests bring to a partition meanwhile is appended together.
//!
//! A lane is a thread that appends. While it does, records of its partitions gather behind it;
//! it then takes all of them at once. Who waits is answered when their records are in the log.
//! What waits is bounded by permits, one for each record.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use uptake_connectors::log::{Log, Record};

use crate::clock::Now;
use crate::metrics::Metrics;

/// Threads that append. More do not help: an embedded log is bound by the processor, a remote
/// one batches by itself.
const LANES: usize = 4;
/// The most records of an append.
const RECORDS_MAX: usize = 1 << 16;

/// Records for one partition.
pub(crate) struct Batch {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) records: Vec<Record>,
}

struct Job {
    batch: Batch,
    done: oneshot::Sender<bool>,
    /// Held until the records are in the log, also where nobody waits any more.
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Why records were not appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotWritten {
    /// Too many wait.
    Full,
    /// The log refuses; some of them may be there.
    Failed,
}

/// Appends to the log.
pub(crate) struct Writer {
    /// Empty when it is closed.
    lanes: Mutex<Vec<Sender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    permits: Arc<Semaphore>,
}

impl Writer {
    pub(crate) fn start(
        log: &Arc<dyn Log>,
        records_max: usize,
        metrics: &Arc<Metrics>,
        now: &Now,
    ) -> std::io::Result<Self> {
        let (mut lanes, mut threads) = (Vec::new(), Vec::new());
        for n in 0..LANES {
            let (sender, receiver) = channel();
            let (log, metrics, now) = (Arc::clone(log), Arc::clone(metrics), Arc::clone(now));
            let lane = std::thread::Builder::new().name(format!("append-{n}"));
            threads.push(lane.spawn(move || run(&*log, &receiver, &metrics, &now))?);
            lanes.push(sender);
        }
        let permits = Arc::new(Semaphore::new(records_max));
        Ok(Self { lanes: Mutex::new(lanes), threads: Mutex::new(threads), permits })
    }

    /// Appends batches; they are durable when this returns.
    pub(crate) async fn append(&self, batches: Vec<Batch>) -> Result<(), NotWritten> {
        let count: usize = batches.iter().map(|batch| batch.records.len()).sum();
        if count == 0 {
            return Ok(());
        }
        let wanted = u32::try_from(count).unwrap_or(u32::MAX);
        let permit =
            Arc::clone(&self.permits).try_acquire_many_owned(wanted).map_err(|_| NotWritten::Full)?;
        let permit = Arc::new(permit);
        let mut waiting = Vec::with_capacity(batches.len());
        {
            let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            if lanes.is_empty() {
                return Err(NotWritten::Full);
            }
            for batch in batches {
                let mut hasher = DefaultHasher::new();
                (&batch.topic, batch.partition).hash(&mut hasher);
                let lane = &lanes[(hasher.finish() % lanes.len() as u64) as usize];
                let (done, is_done) = oneshot::channel();
                waiting.push(is_done);
                if lane.send(Job { batch, done, _permit: Arc::clone(&permit) }).is_err() {
                    return Err(NotWritten::Failed);
                }
            }
        }
        let mut all = Ok(());
        for is_done in waiting {
            if is_done.await != Ok(true) {
                all = Err(NotWritten::Failed);
            }
        }
        all
    }

    /// Appends what waits, and takes nothing more.
    pub(crate) fn close(&self) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

fn run(log: &dyn Log, jobs: &Receiver<Job>, metrics: &Metrics, now: &Now) {
    while let Ok(first) = jobs.recv() {
        let mut count = first.batch.records.len();
        let mut groups: BTreeMap<(Arc<str>, u32), Vec<Job>> = BTreeMap::new();
        let key = |job: &Job| (Arc::clone(&job.batch.topic), job.batch.partition);
        groups.entry(key(&first)).or_default().push(first);
        while count < RECORDS_MAX
            && let Ok(job) = jobs.try_recv()
        {
            count += job.batch.records.len();
            groups.entry(key(&job)).or_default().push(job);
        }
        for ((topic, partition), mut group) in groups {
            let records: Vec<Record> =
                group.iter_mut().flat_map(|job| std::mem::take(&mut job.batch.records)).collect();
            let appended = log.append(&topic, partition, &records, now().0);
            metrics.append(records.len(), appended.is_ok());
            if let Err(error) = &appended {
                metrics.say_not_appended(&topic, partition, error);
            }
            for job in group {
                // Who does not wait any more has gone away.
                let _ = job.done.send(appended.is_ok());
            }
        }
    }
}
