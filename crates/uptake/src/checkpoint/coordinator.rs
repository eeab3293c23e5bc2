//! Takes the parts of a checkpoint from all stages of this process's workers and makes it one.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use uptake_connectors::FailureKind;
use uptake_connectors::log::Log;
use uptake_flow::{Checkpoints, EventTime};
use uptake_model::join::JoinRules;
use uptake_model::ledger::Ledger;

use super::manifest::{InputPosition, Manifest, SegmentInfo};
use super::retention::Retention;
use super::segment::Sections;
use super::store::{Number, Store};
use super::{CheckpointError, Pump, ROUND};
use crate::clock::Moment;
use crate::outputs::{Backoff, Outputs, notice};
use crate::traces;

/// How long the end of a run waits for a store, a table or an archive that is away. Nothing is
/// lost without the last checkpoint, and who stops a service does not wait for longer.
const OUTAGE_AT_END_MAX: Duration = Duration::from_secs(10);

/// A stage of the pipeline, as far as it has a part in checkpoints.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Reads the input.
    Collect,
    /// Joins by request.
    Join,
    /// Caps by member and epoch.
    Cap,
    /// Counts.
    Aggregate,
    /// Writes sealed epochs.
    Archive,
}

/// What table and archive had been handed when a part was taken; see [`Outputs::tickets`].
pub type Tickets = (u64, u64);

/// What one stage of one worker adds to a checkpoint.
#[derive(Debug)]
pub struct Part {
    /// Which stage.
    pub stage: Stage,
    /// Its state.
    pub sections: Sections,
    /// Its books.
    pub ledger: Ledger,
    /// How far it has read, if it reads.
    pub input: Fragment,
    /// What must be durable before the checkpoint is.
    pub tickets: Tickets,
}

/// What one stage of one worker says beside its state, for the manifest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Fragment {
    /// Nothing.
    #[default]
    Nothing,
    /// Of the join: so many of its requests were on the local disk.
    Spilled(u64),
    /// Of the log: the number of each partition it reads, the offset to read next, and the newest
    /// event time before it.
    Log(Vec<(u32, u64, Option<EventTime>)>),
    /// Of files: the blocks it read since the checkpoint before, as number, file, first line and
    /// number of lines.
    Files(Vec<(u64, usize, u64, u64)>),
}

/// What a coordinator has to know beforehand.
#[derive(Debug, Clone)]
pub struct Plan {
    /// This process and how many there are.
    pub process: (usize, usize),
    /// Workers of this process.
    pub workers: usize,
    /// The stages that hand in a part.
    pub stages: Vec<Stage>,
    /// How often a checkpoint is taken.
    pub interval: Duration,
    /// How many are kept.
    pub keep: usize,
    /// At the end of a run: how long the other processes may take to write their parts.
    pub parts_deadline: Duration,
    /// The number of the first one.
    pub first: Number,
    /// What the tallies mean.
    pub meaning: String,
    /// By which events are late and tallies are sealed.
    pub rules: JoinRules,
    /// Where the input and the books stood at the start.
    pub start: (InputPosition, Ledger),
}

struct Pending {
    number: Number,
    watermark: EventTime,
    created_ms: i64,
    begun: Moment,
    /// Parts by worker of this process.
    parts: Vec<Vec<Part>>,
    /// What the parts came to: the segment of each worker and how far they had read.
    encoded: Option<(Vec<Vec<u8>>, Ledger, Vec<Fragment>)>,
    /// What was written, once it is.
    written: Option<Manifest>,
}

struct State {
    next: Number,
    /// When the last one was committed, or the run began.
    last: Moment,
    /// Enough has changed that the interval is not waited for.
    urgent: bool,
    /// What is being made, oldest first: more than one only at the end of a run.
    pending: VecDeque<Pending>,
    /// Segments by the checkpoint they were written for, oldest first.
    segments: VecDeque<(Number, Vec<SegmentInfo>)>,
    position: InputPosition,
    /// Of files: the number of the next block of the unbroken beginning, and what lies beyond.
    blocks: (u64, BTreeMap<u64, (usize, u64, u64)>),
    stats: Stats,
    /// The last checkpoint that a worker stood still for, and for how long, by worker.
    stalls: BTreeMap<usize, (u64, Duration)>,
    backoff: Backoff,
    error: Option<CheckpointError>,
    failed: bool,
    /// Since when nothing more is handed in.
    closing: Option<Moment>,
}

/// The checkpoints of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// How many were made.
    pub taken: u64,
    /// The bytes of this process's segments, of all of them.
    pub bytes: u64,
    /// The longest that one took, from its batch until it counted.
    pub longest: Duration,
    /// The longest that a worker stood still for one.
    pub longest_stall: Duration,
}

impl State {
    fn is_done(&self) -> bool {
        self.pending.is_empty() || self.failed
    }
}

/// Makes checkpoints of the parts that the stages hand in.
pub struct Coordinator {
    plan: Plan,
    store: Store,
    outputs: Outputs,
    state: Mutex<State>,
    changed: Condvar,
    /// The log that is told how far it was read.
    log: Option<Arc<dyn Log>>,
    /// What it keeps, unless that is all.
    retention: Option<Mutex<Retention>>,
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Coordinator {
    /// A coordinator that writes to `store` when `outputs` have taken what was sealed before.
    pub fn new(plan: Plan, store: Store, outputs: Outputs) -> Self {
        let state = State {
            next: plan.first,
            last: outputs.clock().moment(),
            urgent: false,
            pending: VecDeque::new(),
            segments: VecDeque::new(),
            position: plan.start.0.clone(),
            blocks: Default::default(),
            stats: Stats::default(),
            stalls: BTreeMap::new(),
            backoff: Backoff::new(outputs.clock()),
            error: None,
            failed: false,
            closing: None,
        };
        Self {
            plan,
            store,
            outputs,
            state: Mutex::new(state),
            changed: Condvar::new(),
            log: None,
            retention: None,
        }
    }

    /// Tells `log` with each checkpoint how far it was read, for tools that show lag.
    pub fn reporting_to(mut self, log: Arc<dyn Log>) -> Self {
        self.log = Some(log);
        self
    }

    /// Lets the log drop what is older and was read.
    pub fn keeping_log_for(mut self, keep: Duration) -> Self {
        self.retention = Some(Mutex::new(Retention::new(keep, self.plan.keep)));
        self
    }

    fn report(&self, position: &InputPosition) {
        let (Some(log), InputPosition::Log(partitions)) = (&self.log, position) else { return };
        if let Some(retention) = &self.retention {
            let mut retention = retention.lock().unwrap_or_else(PoisonError::into_inner);
            retention.checkpointed(&**log, partitions, self.outputs.clock());
        }
        let positions: Vec<_> = partitions.iter().map(|p| (&*p.topic, p.partition, p.offset)).collect();
        // Nothing depends on it: a run goes on from its checkpoint.
        if let Err(error) = log.report_position(&positions) {
            notice(&error.to_string());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which parts of all state belong into checkpoint `number`, beside what has changed: the
    /// first checkpoint of a run takes everything, so that none needs one of an earlier run.
    pub fn takes_part(number: u64, part: usize) -> bool {
        let within = Number(number).within();
        within == 0 || part % ROUND == (within % ROUND as u64) as usize
    }

    /// Asks for a checkpoint before the interval is over, because much has changed.
    pub fn hurry(&self) {
        self.lock().urgent = true;
    }

    /// Takes the part of a stage of a worker of this process, by its number here.
    pub fn submit(&self, number: u64, worker: usize, part: Part) {
        let mut state = self.lock();
        let number = Number(number);
        if !state.pending.iter().any(|pending| pending.number == number) {
            // The first part in a process that did not decide on the checkpoint itself.
            let pending = self.pending(number, EventTime::MIN);
            state.pending.push_back(pending);
        }
        if let Some(pending) = state.pending.iter_mut().find(|pending| pending.number == number) {
            pending.parts[worker].push(part);
        }
        self.changed.notify_all();
    }

    fn pending(&self, number: Number, watermark: EventTime) -> Pending {
        Pending {
            number,
            watermark,
            created_ms: self.outputs.clock().now().0,
            begun: self.outputs.clock().moment(),
            parts: (0..self.plan.workers).map(|_| Vec::new()).collect(),
            encoded: None,
            written: None,
        }
    }

    /// The checkpoints of this run so far.
    pub fn stats(&self) -> Stats {
        self.lock().stats
    }

    /// Does what can be done now.
    pub fn pump(&self) -> Pump {
        let mut state = self.lock();
        if state.failed || !state.backoff.is_over() {
            return if state.failed { Pump::Nothing } else { Pump::Later };
        }
        let Some(pending) = state.pending.front() else { return Pump::Nothing };
        if pending.parts.iter().any(|parts| parts.len() < self.plan.stages.len()) {
            return Pump::Later;
        }
        let tickets = pending.parts.iter().flatten().map(|part| part.tickets);
        let tickets = tickets.fold((0, 0), |a: Tickets, b| (a.0.max(b.0), a.1.max(b.1)));
        if !self.outputs.have_done(tickets) {
            // What an output that gave up did not take it never will. It says so itself.
            state.failed = self.outputs.have_failed();
            return Pump::Later;
        }
        // Nobody else changes what is pending while its parts are complete.
        let Some(mut pending) = state.pending.pop_front() else { return Pump::Nothing };
        drop(state);
        let result = self.make(&mut pending);
        let mut state = self.lock();
        match result {
            Ok(true) => {
                state.backoff.worked("checkpoints");
                state.last = self.outputs.clock().moment();
                state.urgent = false;
                self.changed.notify_all();
                Pump::Worked
            }
            Ok(false) => {
                state.pending.push_front(pending);
                Pump::Later
            }
            Err(CheckpointError::Objects(error)) if error.kind() == FailureKind::Transient => {
                state.pending.push_front(pending);
                state.backoff.failed("checkpoints", &error);
                Pump::Later
            }
            Err(error) => {
                state.failed = true;
                state.error = Some(error);
                self.changed.notify_all();
                Pump::Nothing
            }
        }
    }

    /// Writes what is pending as far as that is possible; false if other processes are not ready.
    fn make(&self, pending: &mut Pending) -> Result<bool, CheckpointError> {
        let number = pending.number;
        let (process, processes) = self.plan.process;
        if pending.written.is_none() {
            let written = traces::span("checkpoint segments", &[], || self.write(pending))?;
            pending.written = Some(written);
        }
        let Some(written) = &pending.written else { return Ok(false) };
        if process > 0 {
            self.store.put_part(number, process, written)?;
            self.finish(pending);
            return Ok(true);
        }
        let mut others = Vec::new();
        for process in 1..processes {
            match self.store.part(number, process)? {
                Some(part) => others.push(part),
                None => return Ok(false),
            }
        }
        let manifest = self.manifest(written, others);
        traces::span("checkpoint commit", &[], || self.store.commit(&manifest))?;
        self.report(&manifest.input);
        self.store.retain(self.plan.keep)?;
        {
            let mut state = self.lock();
            state.position = manifest.input.clone();
            let of_this = manifest.segments.into_iter().filter(|s| s.number == number.0);
            let of_this: Vec<SegmentInfo> = of_this.collect();
            state.segments.push_back((number, of_this));
            if state.segments.len() > ROUND {
                state.segments.pop_front();
            }
        }
        self.finish(pending);
        Ok(true)
    }

    fn finish(&self, pending: &Pending) {
        let bytes: u64 = pending.written.iter().flat_map(|m| &m.segments).map(|s| s.bytes).sum();
        let took = self.outputs.clock().since(pending.begun);
        let about = [("number", pending.number.0), ("bytes", bytes), ("workers", self.plan.workers as u64)];
        traces::span_of("checkpoint", pending.created_ms, took, &about);
        let stats = &mut self.lock().stats;
        stats.taken += 1;
        stats.bytes += bytes;
        stats.longest = stats.longest.max(took);
    }

    /// Writes the segments of this process.
    fn write(&self, pending: &mut Pending) -> Result<Manifest, CheckpointError> {
        let (segments, ledger, fragments) = pending.encoded.get_or_insert_with(|| {
            let (mut segments, mut ledger, mut fragments) = (Vec::new(), Ledger::default(), Vec::new());
            for parts in &mut pending.parts {
                let mut sections = Sections::default();
                for part in parts {
                    sections.absorb(std::mem::take(&mut part.sections));
                    ledger.merge(&part.ledger);
                    fragments.push(std::mem::take(&mut part.input));
                }
                segments.push(sections.encode());
            }
            (segments, ledger, fragments)
        });
        let mut written = Manifest::new(pending.number.0, self.plan.meaning.clone(), pending.created_ms);
        written.watermark = pending.watermark;
        written.lateness_ms = Some(self.plan.rules.lateness_ms);
        written.late_before = Some(self.plan.rules.late_before(pending.watermark));
        written.ledger = ledger.clone();
        for (worker, segment) in segments.iter().enumerate() {
            let worker = self.plan.process.0 * self.plan.workers + worker;
            written.segments.push(self.store.put_segment(pending.number, worker, segment)?);
        }
        let spilled = |of: &Fragment| if let Fragment::Spilled(requests) = of { *requests } else { 0 };
        written.spilled = fragments.iter().map(spilled).sum();
        written.input = self.position(fragments);
        Ok(written)
    }

    /// Where the input stands with what this process has read.
    fn position(&self, fragments: &[Fragment]) -> InputPosition {
        let mut state = self.lock();
        let state = &mut *state;
        let mut position = state.position.clone();
        for fragment in fragments {
            match (fragment, &mut position) {
                (Fragment::Log(offsets), InputPosition::Log(partitions)) => {
                    for &(number, offset, newest) in offsets {
                        if let Some(partition) = partitions.get_mut(number as usize) {
                            partition.advance(offset, newest);
                        }
                    }
                }
                (Fragment::Files(blocks), InputPosition::Files { .. }) => {
                    let blocks =
                        blocks.iter().map(|&(block, file, line, lines)| (block, (file, line, lines)));
                    state.blocks.1.extend(blocks);
                }
                _ => {}
            }
        }
        if let InputPosition::Files { file, line, beyond, .. } = &mut position {
            let (next, blocks) = &mut state.blocks;
            while let Some((f, first, lines)) = blocks.remove(next) {
                (*file, *line) = (f, first + lines);
                *next += 1;
            }
            *beyond = blocks.values().copied().collect();
        }
        position
    }

    /// The manifest of this process's and the other processes' parts.
    fn manifest(&self, written: &Manifest, others: Vec<Manifest>) -> Manifest {
        let mut manifest = written.clone();
        manifest.ledger.merge(&self.plan.start.1);
        for other in others {
            manifest.ledger.merge(&other.ledger);
            manifest.spilled += other.spilled;
            manifest.segments.extend(other.segments);
            if let (InputPosition::Log(all), InputPosition::Log(some)) = (&mut manifest.input, &other.input) {
                all.iter_mut().zip(some).for_each(|(a, b)| a.advance(b.offset, b.newest));
            }
        }
        let new = std::mem::take(&mut manifest.segments);
        let state = self.lock();
        // With the new one there are as many as make a round.
        let skip = state.segments.len().saturating_sub(ROUND - 1);
        manifest.segments =
            state.segments.iter().skip(skip).flat_map(|(_, s)| s.clone()).chain(new).collect();
        manifest
    }

    /// When the run has ended, nothing else says that what the last checkpoint waits for will not
    /// come: that an output gave up, or is away, or that another process died before it wrote its
    /// part.
    fn check_deadline(&self, state: &mut State) {
        let (Some(pending), Some(since)) = (state.pending.front(), state.closing) else { return };
        let (waited, deadline) = (self.outputs.clock().since(since), self.plan.parts_deadline);
        let waits_for_parts = pending.written.is_some() && self.plan.process.1 > 1;
        let is_failing = !state.backoff.lasting().is_zero() || self.outputs.are_failing();
        if self.outputs.have_failed() {
            // Its error is the run's.
            state.failed = true;
        } else if is_failing && waited > OUTAGE_AT_END_MAX {
            state.error = Some(CheckpointError::NotMade { waited });
            state.failed = true;
        } else if waits_for_parts && waited > deadline {
            state.error = Some(CheckpointError::PartsMissing { waited: deadline });
            state.failed = true;
        }
    }

    /// Why no more checkpoints can be made, once.
    pub fn take_error(&self) -> Option<CheckpointError> {
        self.lock().error.take()
    }

    /// Whether no checkpoint is under way, or none ever will be whole again.
    pub fn is_done(&self) -> bool {
        self.lock().is_done()
    }

    /// No checkpoint will begin any more; after a failed run, what is under way is let go of.
    pub fn close(&self, failed: bool) {
        let mut state = self.lock();
        state.closing = Some(self.outputs.clock().moment());
        // Not taken out of the queue: the one being made is not in it, and would come back.
        state.failed |= failed;
        self.changed.notify_all();
    }

    /// Starts a thread that makes the checkpoints.
    pub fn start(self: &Arc<Self>) -> CheckpointThread {
        let coordinator = Arc::clone(self);
        let thread = std::thread::spawn(move || {
            loop {
                if coordinator.pump() == Pump::Worked {
                    continue;
                }
                let mut state = coordinator.lock();
                let idle = state.is_done();
                if state.closing.is_some() && idle {
                    return;
                }
                coordinator.check_deadline(&mut state);
                let wait = if idle { Duration::from_secs(1) } else { Duration::from_millis(5) };
                drop(coordinator.changed.wait_timeout(state, wait));
            }
        });
        CheckpointThread { coordinator: Arc::clone(self), thread }
    }
}

impl Checkpoints for Coordinator {
    fn stalled(&self, number: u64, worker: usize, took: Duration) {
        let mut state = self.lock();
        // What its operators took for one checkpoint, added up.
        let (of, sum) = state.stalls.entry(worker).or_default();
        *sum = if *of == number { *sum + took } else { took };
        *of = number;
        let sum = *sum;
        // The first one takes all state at once, before the run has caught up.
        if Number(number).within() > 0 {
            state.stats.longest_stall = state.stats.longest_stall.max(sum);
        }
    }

    fn due(&self, watermark: EventTime, last: bool) -> Option<u64> {
        // At the end of all input everything is sealed: there is no state to go on with.
        if watermark == EventTime::MAX {
            return None;
        }
        let mut state = self.lock();
        let due = state.urgent || self.outputs.clock().since(state.last) >= self.plan.interval;
        if !(due || last) || state.failed {
            return None;
        }
        // The last one waits behind one that is still being made; any other is put off.
        if !last && !state.pending.is_empty() {
            return None;
        }
        let number = state.next;
        state.next = number.next();
        let pending = self.pending(number, watermark);
        state.pending.push_back(pending);
        Some(number.0)
    }
}

/// The thread that makes checkpoints.
pub struct CheckpointThread {
    coordinator: Arc<Coordinator>,
    thread: JoinHandle<()>,
}

impl CheckpointThread {
    /// Waits for a checkpoint that is under way, unless the run failed and it never will be whole.
    ///
    /// # Errors
    /// Why it cannot be made, if nobody took that before.
    pub fn finish(self, failed: bool) -> Result<(), CheckpointError> {
        self.coordinator.close(failed);
        // It does nothing that could panic; an error is in the coordinator.
        drop(self.thread.join());
        self.coordinator.take_error().map_or(Ok(()), Err)
    }
}
