//! Running a flow: how, by how many workers in how many processes, and what stops them.

use std::any::Any;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use timely::WorkerConfig;
use timely::communication::AllocatorBuilder;
use timely::worker::Worker;
use uptake_model::EventTime;

use crate::cluster::{Cluster, Network};
use crate::flow::Flow;
use crate::worker::{self, Schedule};

/// How a flow is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads in this process, at least 1; in a cluster the same in each.
    pub workers: usize,
    /// How often a batch begins when the sources have nothing more to read.
    pub tick: Duration,
    /// How many batches may be under way at once, at least 1.
    pub batches_in_flight: u64,
    /// How far the watermark stays behind the newest event, in milliseconds of event time.
    pub lateness_ms: i64,
    /// Where the watermark stands at the start: that of the checkpoint the flow goes on from,
    /// or [`EventTime::MIN`].
    pub watermark: EventTime,
    /// Whether the end of the sources is the end of all: what waits then is over. Otherwise it
    /// is kept as when the run is halted, for one that goes on.
    pub seals_at_end: bool,
    /// When to take checkpoints, if any.
    pub checkpoints: Option<Arc<dyn Checkpoints>>,
    /// Stops the run in good order.
    pub halt: Halt,
    /// The processes that run the flow together, if there are several.
    pub cluster: Option<Cluster>,
    /// For tests that replay one order of events.
    pub schedule: Option<Arc<dyn Schedule>>,
}

impl Default for Options {
    /// One worker, a tick of 500 ms, 4 batches in flight, no lateness, no checkpoints.
    fn default() -> Self {
        Self {
            workers: 1,
            tick: Duration::from_millis(500),
            batches_in_flight: 4,
            lateness_ms: 0,
            watermark: EventTime::MIN,
            seals_at_end: true,
            checkpoints: None,
            halt: Halt::default(),
            cluster: None,
            schedule: None,
        }
    }
}

/// Decides when a checkpoint is taken.
pub trait Checkpoints: Send + Sync + std::fmt::Debug {
    /// Asked by worker 0 alone, at the end of each batch, of those after a halt at the last one only: the
    /// number of the checkpoint that is to hold the state after it, if one is due. `last`: nothing follows
    /// this batch.
    ///
    /// Every source and operator of every worker is then asked for its part.
    fn due(&self, watermark: EventTime, last: bool) -> Option<u64>;

    /// Told how long a worker stood still while one of its operators gave its part.
    fn stalled(&self, _number: u64, _worker: usize, _took: Duration) {}
}

/// Stops a run from the outside, in good order: batches that began are finished, a last
/// checkpoint is taken, and what waits is not taken for over.
#[derive(Clone, Debug, Default)]
pub struct Halt(Arc<AtomicBool>);

impl Halt {
    /// Asks the run to stop. In a cluster all processes do.
    pub fn halt(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was asked to.
    pub fn is_halted(&self) -> bool {
        self.0.load(Ordering::Acquire)
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
    /// The processes of the cluster could not be brought together.
    #[error("the cluster did not come together: {reason}")]
    Cluster {
        /// Why not, and what to do.
        reason: String,
    },
    /// Some processes of the cluster did not come.
    #[error(
        "the cluster did not come together: waited {} s for process {missing}; \
         start all processes with the same hosts file",
        waited.as_secs()
    )]
    Missing {
        /// Their numbers and addresses.
        missing: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Another process of the cluster is gone.
    #[error("lost process {process} ({address}): {reason}; all processes of the cluster stop")]
    PeerLost {
        /// Its number.
        process: usize,
        /// Where it was.
        address: String,
        /// What the connection said.
        reason: String,
    },
    /// A process hangs, or the network has come apart.
    #[error(
        "no batch was finished for {} s: another process hangs or cannot be reached; \
         all processes of the cluster stop",
        waited.as_secs()
    )]
    NoProgress {
        /// How long was waited.
        waited: Duration,
    },
}

impl Error {
    /// Whether starting again helps as soon as other processes are back: the cause lies there.
    pub fn is_of_the_cluster(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::PeerLost { .. } | Self::NoProgress { .. })
    }
}

/// The first thing that went wrong in any worker; every worker looks at it and stops.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    is_set: AtomicBool,
    first: Mutex<Option<Error>>,
    /// Connections to other processes.
    sockets: Mutex<Vec<TcpStream>>,
}

impl Failure {
    pub(crate) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// These are cut by a failure, so that the other processes notice at once.
    pub(crate) fn cuts(&self, sockets: Vec<TcpStream>) {
        *self.sockets.lock().unwrap_or_else(PoisonError::into_inner) = sockets;
        if self.is_set() {
            self.cut();
        }
    }

    fn cut(&self) {
        for socket in self.sockets.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // It may be gone already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    pub(crate) fn set(&self, error: Error) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(error);
        // Before anybody acts on it.
        self.cut();
        self.is_set.store(true, Ordering::Release);
    }

    fn take(&self) -> Option<Error> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Stops a run from the inside: given to sinks, which have nobody to return an error to.
#[derive(Clone, Debug)]
pub struct Stop(pub(crate) Arc<Failure>);

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

/// Runs the flow that `build` builds in each worker, to the end of its sources or until it is
/// halted. Returns what `build` returned, by worker of this process; nothing if the run was halted
/// before the processes of its cluster were together.
///
/// # Errors
/// The first error of a source or sink, or the first panic: all workers stop then, and what has
/// not been finished is let go of without being taken for finished. In a cluster also when
/// another process is lost, or the processes do not find together.
pub fn run<R, F>(options: &Options, build: F) -> Result<Vec<R>, Error>
where
    R: Send + 'static,
    F: Fn(&Flow<'_>) -> R + Send + Sync + 'static,
{
    let failure = Arc::new(Failure::default());
    let Some((builders, network)) = allocators(options, &failure)? else { return Ok(Vec::new()) };
    let workers = builders.len();
    let shared = (options.clone(), Arc::clone(&failure));
    let guards =
        timely::execute::execute_from(builders, Box::new(()), WorkerConfig::default(), move |worker| {
            let (options, failure) = &shared;
            work(worker, options, failure, &build)
        })
        .map_err(|reason| Error::Start { workers, reason })?;
    let mut results = Vec::with_capacity(workers);
    for (worker, joined) in guards.join().into_iter().enumerate() {
        match joined {
            Ok(result) => results.extend(result),
            Err(message) => failure.set(Error::Panicked { worker, message }),
        }
    }
    if let Some(network) = network {
        network.close(failure.is_set());
    }
    match failure.take() {
        Some(error) => Err(error),
        None => Ok(results),
    }
}

type Allocators = (Vec<AllocatorBuilder>, Option<Network>);

/// What the workers are built of; `None` if the run was halted before there was any.
fn allocators(options: &Options, failure: &Arc<Failure>) -> Result<Option<Allocators>, Error> {
    let workers = options.workers.max(1);
    if let Some(cluster) = options.cluster.as_ref().filter(|cluster| cluster.addresses.len() > 1) {
        let connected = cluster.connect(workers, failure, &options.halt)?;
        return Ok(connected.map(|(builders, network)| (builders, Some(network))));
    }
    let config = match workers {
        1 => timely::CommunicationConfig::Thread,
        n => timely::CommunicationConfig::Process(n),
    };
    let (builders, _) = config.try_build().map_err(|reason| Error::Start { workers, reason })?;
    Ok(Some((builders, None)))
}

fn work<R>(
    worker: &mut Worker,
    options: &Options,
    failure: &Arc<Failure>,
    build: &impl Fn(&Flow<'_>) -> R,
) -> Option<R> {
    let index = worker.index();
    // A panic must not leave the other workers waiting for this one.
    let run = std::panic::AssertUnwindSafe(|| worker::run(worker, options, failure, build));
    let result = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        failure.set(Error::Panicked { worker: index, message: message_of(&*panic) });
        None
    });
    // What the others still say about the end must be heard, unless one of them is gone.
    let farewell = std::panic::AssertUnwindSafe(|| {
        while worker.has_dataflows() && !failure.is_set() {
            match &options.schedule {
                None => drop(worker.step_or_park(Some(Duration::from_millis(10)))),
                Some(schedule) => {
                    schedule.turn(index);
                    worker.step();
                }
            }
        }
    });
    if let Err(panic) = std::panic::catch_unwind(farewell) {
        failure.set(Error::Panicked { worker: index, message: message_of(&*panic) });
    }
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
    if let Some(schedule) = &options.schedule {
        schedule.leave(index);
    }
    result
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
