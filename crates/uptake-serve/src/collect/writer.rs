//! Group commit: what many requests bring to a partition meanwhile is appended together.
//!
//! A lane is a thread that appends. While it does, records of its partitions gather behind it;
//! it then takes all of them at once. Who waits is answered when their records are in the log.
//! What waits is bounded by permits, one for each record and one for each of its bytes.

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
    _permits: Arc<[OwnedSemaphorePermit; 2]>,
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
    bytes: Arc<Semaphore>,
    bytes_max: usize,
}

impl Writer {
    pub(crate) fn start(
        log: &Arc<dyn Log>,
        records_max: usize,
        bytes_max: usize,
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
        let bytes = Arc::new(Semaphore::new(bytes_max));
        Ok(Self { lanes: Mutex::new(lanes), threads: Mutex::new(threads), permits, bytes, bytes_max })
    }

    /// Appends batches; they are durable when this returns.
    pub(crate) async fn append(&self, batches: Vec<Batch>) -> Result<(), NotWritten> {
        let count: usize = batches.iter().map(|batch| batch.records.len()).sum();
        if count == 0 {
            return Ok(());
        }
        let records = batches.iter().flat_map(|batch| &batch.records);
        let bytes: usize = records.map(|record| record.key.len() + record.value.len()).sum();
        let take = |of: &Arc<Semaphore>, wanted: usize| {
            let wanted = u32::try_from(wanted).unwrap_or(u32::MAX);
            Arc::clone(of).try_acquire_many_owned(wanted).map_err(|_| NotWritten::Full)
        };
        // What is larger than all that may wait goes alone.
        let permits = Arc::new([take(&self.permits, count)?, take(&self.bytes, bytes.min(self.bytes_max))?]);
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
                if lane.send(Job { batch, done, _permits: Arc::clone(&permits) }).is_err() {
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
            metrics.append(&topic, records.len(), appended.is_ok());
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

#[cfg(test)]
mod tests {
    use super::*;
    use uptake_connectors::log::MemoryLog;

    #[test]
    fn what_waits_is_bounded_by_records_and_by_bytes() {
        let log = MemoryLog::new();
        log.create_topic("plays", 1).unwrap();
        let log: Arc<dyn Log> = Arc::new(log);
        let writer = Writer::start(&log, 10, 100, &Arc::default(), &crate::clock::system()).unwrap();
        let append = |records: usize, bytes: usize| {
            let records = (0..records).map(|_| Record::new("", vec![b'x'; bytes])).collect();
            writer.append(vec![Batch { topic: "plays".into(), partition: 0, records }])
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let held = Arc::clone(&writer.bytes).try_acquire_many_owned(60).unwrap();
        assert_eq!(runtime.block_on(append(1, 41)), Err(NotWritten::Full));
        assert_eq!(runtime.block_on(append(4, 10)), Ok(()));
        drop(held);
        assert_eq!(runtime.block_on(append(11, 1)), Err(NotWritten::Full));
        // Who is answered may be so before the lane has let go.
        while writer.bytes.available_permits() < 100 {
            std::thread::yield_now();
        }
        assert_eq!(runtime.block_on(append(1, 1_000)), Ok(()), "a large one goes alone");
        writer.close();
        assert_eq!((writer.permits.available_permits(), writer.bytes.available_permits()), (10, 100));
    }
}
