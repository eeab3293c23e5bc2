//! Where sealed and changed tallies go: table and archive, each written by a thread of its own,
//! so that counting goes on while they are slow or away.
//!
//! What is handed over is written in order and tried again while that may help. Nothing here
//! makes anybody wait: the queue holds what the tallies no longer do, and the sources stop
//! reading while it is long.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use uptake_connectors::archive::{Archive, TallyPart};
use uptake_connectors::notices;
use uptake_connectors::table::Table;
use uptake_connectors::{ArchiveError, FailureKind, TableError};
use uptake_model::tally::TallyRow;

use crate::checkpoint::{Pump, Tickets};
use crate::clock::{Clock, Moment};
use crate::traces;

/// The first pause after a failure; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause.
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// While as many rows wait, nothing more is read.
const ROWS_BEHIND_MAX: usize = 1 << 20;

/// Whether notices are kept to oneself.
static SILENT: AtomicBool = AtomicBool::new(false);

/// From here on this process keeps its notices to itself: for simulations, where a thousand runs
/// fail on purpose.
pub fn keep_silent() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Says something to whoever watches the process.
pub fn notice(line: &str) {
    if !SILENT.load(Ordering::Relaxed) {
        notices::notice(line);
    }
}

/// What went wrong and why, as far as one does not say the other already.
///
/// ```
/// use uptake::outputs::with_causes;
/// let error = uptake_connectors::table::SqliteTable::open("/proc/none".as_ref()).unwrap_err();
/// assert!(with_causes(&error).starts_with("cannot make the directory /proc/none: "));
/// ```
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.contains(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        cause = error.source();
    }
    text
}

/// When to try again what failed.
#[derive(Debug)]
pub struct Backoff {
    clock: Clock,
    /// When it failed first, and when to try again.
    since: Option<(Moment, Moment)>,
    pause: Duration,
}

impl Backoff {
    /// Nothing has failed yet.
    pub fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), since: None, pause: Duration::ZERO }
    }

    /// Whether it may be tried again.
    pub fn is_over(&self) -> bool {
        self.since.is_none_or(|(_, until)| self.clock.moment() >= until)
    }

    /// How long it has been failing.
    pub fn lasting(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |(since, _)| self.clock.since(since))
    }

    /// It failed: pauses, and says so the first time.
    pub fn failed(&mut self, what: &str, error: &dyn std::error::Error) {
        let now = self.clock.moment();
        self.pause = if self.since.is_some() { (self.pause * 2).min(PAUSE_MOST) } else { PAUSE_FIRST };
        if self.since.is_none() {
            notice(&format!("{what}: {}; counting goes on, and this is tried again", with_causes(error)));
        }
        let since = self.since.map_or(now, |(since, _)| since);
        self.since = Some((since, now.plus(self.pause)));
    }

    /// It worked: says so if it had not before.
    pub fn worked(&mut self, what: &str) {
        if self.since.is_some() {
            notice(&format!("{what}: works again after {:.1} s", self.lasting().as_secs_f64()));
        }
        self.since = None;
    }
}

/// Why an output gave up.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
}

impl OutputError {
    fn kind(&self) -> FailureKind {
        match self {
            Self::Table(error) => error.kind(),
            Self::Archive(error) => error.kind(),
        }
    }
}

/// Something that jobs are written to.
trait Target: Send {
    type Job: Send;
    const NAME: &'static str;
    const SPAN: &'static str;
    fn put(&mut self, job: &mut Self::Job) -> Result<(), OutputError>;
    fn rows(job: &Self::Job) -> usize;
}

impl Target for Box<dyn Table> {
    type Job = Vec<TallyRow>;
    const NAME: &'static str = "the table";
    const SPAN: &'static str = "table write";

    fn put(&mut self, job: &mut Vec<TallyRow>) -> Result<(), OutputError> {
        Ok(self.write(job)?)
    }

    fn rows(job: &Vec<TallyRow>) -> usize {
        job.len()
    }
}

impl Target for Box<dyn Archive> {
    type Job = (TallyPart, Vec<TallyRow>);
    const NAME: &'static str = "the archive";
    const SPAN: &'static str = "archive put";

    fn put(&mut self, (part, rows): &mut Self::Job) -> Result<(), OutputError> {
        self.put_tallies(part, rows)?;
        Ok(())
    }

    fn rows((_, rows): &Self::Job) -> usize {
        rows.len()
    }
}

struct State<J> {
    queue: VecDeque<J>,
    /// Rows that wait, those being written included.
    waiting: usize,
    /// Jobs handed over and jobs done.
    handed: u64,
    done: u64,
    rows_written: usize,
    backoff: Backoff,
    error: Option<OutputError>,
    failed: bool,
    closing: bool,
}

impl<J> State<J> {
    fn is_done(&self) -> bool {
        self.queue.is_empty() || self.failed
    }
}

/// The queue before one output, and what became of its jobs.
struct Line<T: Target> {
    state: Mutex<State<T::Job>>,
    changed: Condvar,
    target: Mutex<T>,
    give_up_after: Duration,
}

impl<T: Target> Line<T> {
    fn new(target: T, give_up_after: Duration, clock: &Clock) -> Self {
        let state = State {
            queue: VecDeque::new(),
            waiting: 0,
            handed: 0,
            done: 0,
            rows_written: 0,
            backoff: Backoff::new(clock),
            error: None,
            failed: false,
            closing: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), target: Mutex::new(target), give_up_after }
    }

    fn lock(&self) -> MutexGuard<'_, State<T::Job>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand(&self, job: T::Job) {
        let mut state = self.lock();
        state.handed += 1;
        state.waiting += T::rows(&job);
        state.queue.push_back(job);
        self.changed.notify_all();
    }

    /// Writes the next job, if it is time to.
    fn pump(&self) -> Pump {
        let mut state = self.lock();
        if state.failed {
            return Pump::Nothing;
        }
        if !state.backoff.is_over() {
            return Pump::Later;
        }
        let Some(mut job) = state.queue.pop_front() else { return Pump::Nothing };
        drop(state);
        let rows = T::rows(&job);
        let result = traces::span(T::SPAN, &[("rows", rows as u64)], || {
            self.target.lock().unwrap_or_else(PoisonError::into_inner).put(&mut job)
        });
        let mut state = self.lock();
        match result {
            Ok(()) => {
                state.done += 1;
                state.waiting -= rows;
                state.rows_written += rows;
                state.backoff.worked(T::NAME);
                self.changed.notify_all();
                Pump::Worked
            }
            Err(error) => {
                state.queue.push_front(job);
                let lasting = state.backoff.lasting();
                if error.kind() == FailureKind::Transient && lasting < self.give_up_after {
                    state.backoff.failed(T::NAME, &error);
                    return Pump::Later;
                }
                state.failed = true;
                state.error = Some(error);
                self.changed.notify_all();
                Pump::Nothing
            }
        }
    }

    fn is_done(&self) -> bool {
        self.lock().is_done()
    }

    fn close(&self, failed: bool) {
        let mut state = self.lock();
        state.closing = true;
        state.failed |= failed;
        self.changed.notify_all();
    }

    /// Pumps until closed and empty, or failed.
    fn work(&self) {
        loop {
            let pumped = self.pump();
            if pumped == Pump::Worked {
                continue;
            }
            let state = self.lock();
            if state.closing && state.is_done() {
                return;
            }
            let wait = if pumped == Pump::Later { PAUSE_FIRST } else { Duration::from_secs(60) };
            // A job that came since the look at the queue must not wait for the next one.
            if pumped == Pump::Later || state.is_done() {
                drop(self.changed.wait_timeout(state, wait));
            }
        }
    }
}

/// Table and archive, shared by all workers of a process.
#[derive(Clone)]
pub struct Outputs {
    table: Arc<Line<Box<dyn Table>>>,
    archive: Arc<Line<Box<dyn Archive>>>,
    clock: Clock,
}

impl Outputs {
    /// Outputs to a table and an archive that give up after failing for so long.
    pub fn new(
        table: Box<dyn Table>,
        archive: Box<dyn Archive>,
        give_up_after: Duration,
        clock: &Clock,
    ) -> Self {
        Self {
            table: Arc::new(Line::new(table, give_up_after, clock)),
            archive: Arc::new(Line::new(archive, give_up_after, clock)),
            clock: clock.clone(),
        }
    }

    /// The clock that everything here goes by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Hands rows over to the table.
    pub fn write(&self, rows: Vec<TallyRow>) {
        if !rows.is_empty() {
            self.table.hand(rows);
        }
    }

    /// Hands a part over to the archive.
    pub fn archive(&self, part: TallyPart, rows: Vec<TallyRow>) {
        self.archive.hand((part, rows));
    }

    /// What was handed over to the table so far, for [`Outputs::table_has`].
    pub fn handed_to_table(&self) -> u64 {
        self.table.lock().handed
    }

    /// Whether the table has written what had been handed over then.
    pub fn table_has(&self, handed: u64) -> bool {
        self.table.lock().done >= handed
    }

    /// Whether so much waits that no more should be read.
    pub fn are_behind(&self) -> bool {
        self.table.lock().waiting.max(self.archive.lock().waiting) > ROWS_BEHIND_MAX
    }

    /// Whether one is away for now.
    pub fn are_failing(&self) -> bool {
        !(self.table.lock().backoff.lasting() + self.archive.lock().backoff.lasting()).is_zero()
    }

    /// Whether one has given up.
    pub fn have_failed(&self) -> bool {
        self.table.lock().failed || self.archive.lock().failed
    }

    /// What was handed over so far, for [`Outputs::have_done`].
    pub fn tickets(&self) -> Tickets {
        (self.table.lock().handed, self.archive.lock().handed)
    }

    /// Whether everything that had been handed over then is written.
    pub fn have_done(&self, tickets: Tickets) -> bool {
        self.table.lock().done >= tickets.0 && self.archive.lock().done >= tickets.1
    }

    /// Why an output gave up, once.
    pub fn take_error(&self) -> Option<OutputError> {
        self.table.lock().error.take().or_else(|| self.archive.lock().error.take())
    }

    /// Rows written to the table, repeats included.
    pub fn rows_written(&self) -> usize {
        self.table.lock().rows_written
    }

    /// Writes one job to the table, for a run without threads.
    pub fn pump_table(&self) -> Pump {
        self.table.pump()
    }

    /// Puts one part into the archive, for a run without threads.
    pub fn pump_archive(&self) -> Pump {
        self.archive.pump()
    }

    /// Whether nothing waits to be written, or never will be.
    pub fn are_done(&self) -> bool {
        self.table.is_done() && self.archive.is_done()
    }

    /// Nothing more will be handed over; after a failed run, what is not written is let go of.
    pub fn close(&self, failed: bool) {
        self.table.close(failed);
        self.archive.close(failed);
    }

    /// Starts the threads that write.
    pub fn start(&self) -> OutputThreads {
        let (table, archive) = (Arc::clone(&self.table), Arc::clone(&self.archive));
        let threads = [std::thread::spawn(move || table.work()), std::thread::spawn(move || archive.work())];
        OutputThreads { outputs: self.clone(), threads }
    }
}

/// The threads that write, to wait for.
pub struct OutputThreads {
    outputs: Outputs,
    threads: [JoinHandle<()>; 2],
}

impl OutputThreads {
    /// Waits until everything is written; after a failed run lets go of what is not.
    ///
    /// # Errors
    /// Why one gave up, if nobody took it before.
    pub fn finish(self, failed: bool) -> Result<(), OutputError> {
        self.outputs.close(failed);
        for thread in self.threads {
            // They do nothing that could panic; an error is in the line.
            drop(thread.join());
        }
        self.outputs.take_error().map_or(Ok(()), Err)
    }
}
