//! The world around the runs: what comes to the log and when, the clock, what fails and who dies.
//!
//! It moves on by one turn each time the baton is handed on, and nothing here happens otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uptake::checkpoint::{Coordinator, Number};
use uptake::clock::Clock;
use uptake::outputs::Outputs;
use uptake_connectors::archive::MemoryArchive;
use uptake_connectors::log::{Log, MemoryLog, Record};
use uptake_connectors::objects::MemoryObjects;
use uptake_connectors::table::MemoryTable;
use uptake_flow::{Halt, Schedule};
use uptake_model::{EventTime, TallyRow};

use crate::baton::Baton;
use crate::case::{Case, End};
use crate::dice::Dice;
use crate::events::{Arrival, RowKey, START_MS};

/// After as many turns something does not end.
const TURNS_MAX: u64 = 500_000;

/// What a run can be stopped and pumped by.
pub(crate) struct Handles {
    pub(crate) outputs: Outputs,
    pub(crate) coordinator: Option<Arc<Coordinator>>,
    pub(crate) halt: Halt,
}

/// What the world knows of a cluster's running run.
#[derive(Default)]
pub(crate) struct Cluster {
    handles: Option<Arc<Handles>>,
    /// When it ends, and how.
    end: Option<End>,
    begun_at: u64,
    /// It runs no more; whatever it still does has no effect.
    pub(crate) dead: bool,
    /// Something happened that may end the run.
    pub(crate) excused: bool,
    /// Nothing fails any more.
    pub(crate) calm: bool,
    /// For each edge, until which turn it is away.
    away_until: [u64; 4],
    /// How many batches each partition has begun, by its place among all.
    batches: Vec<usize>,
    /// The newest event time in the log when the first worker began each batch.
    newest_at_batch: Vec<i64>,
}

/// What cannot be.
#[derive(Clone, Debug)]
pub(crate) struct Violation(pub(crate) String);

/// What is shared by everyone in a simulation.
pub(crate) struct State {
    dice: Dice,
    pub(crate) turns: u64,
    next_arrival: usize,
    newest: i64,
    /// Topic, partition and offset of each record so far.
    pub(crate) at: Vec<(String, u32, u64)>,
    pub(crate) clusters: Vec<Cluster>,
    trace: DefaultHasher,
    pub(crate) violation: Option<Violation>,
    /// Objects that are not what was to be written.
    pub(crate) torn: BTreeSet<String>,
    /// The newest checkpoint that was committed, by name of the cluster.
    pub(crate) committed: Vec<(String, Number)>,
    /// The watermark of the newest checkpoint, by name of the cluster.
    pub(crate) watermarks: BTreeMap<String, EventTime>,
    pub(crate) counts: Counts,
    /// What rows were sealed with, in table and archive.
    pub(crate) sealed: BTreeMap<RowKey, BTreeSet<(u64, u64)>>,
}

/// What happened in a simulation.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) turns: u64,
    pub(crate) runs: u64,
    pub(crate) restores: u64,
    pub(crate) crashes: u64,
    pub(crate) failures: u64,
    pub(crate) faults: u64,
    pub(crate) torn: u64,
    pub(crate) checkpoints: u64,
    pub(crate) archived: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.turns += other.turns;
        self.runs += other.runs;
        self.restores += other.restores;
        self.crashes += other.crashes;
        self.failures += other.failures;
        self.faults += other.faults;
        self.torn += other.torn;
        self.checkpoints += other.checkpoints;
        self.archived += other.archived;
    }
}

/// One simulation.
pub(crate) struct World {
    pub(crate) case: Case,
    pub(crate) baton: Baton,
    pub(crate) log: MemoryLog,
    pub(crate) table: Arc<Mutex<MemoryTable>>,
    pub(crate) archive: Arc<Mutex<MemoryArchive>>,
    pub(crate) objects: MemoryObjects,
    hands: Arc<AtomicI64>,
    /// Whether every step is printed.
    tells: bool,
    state: Mutex<State>,
}

/// What is outside of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Edge {
    Table,
    Archive,
    Objects,
    Log,
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Done,
    /// It fails and has no effect.
    Refused,
    /// It is done, and fails all the same.
    Unheard,
    /// The device is full.
    Full,
    /// Half of it is done, and the caller dies.
    Torn(u64),
    /// The caller is dead already.
    Dead,
}

impl World {
    pub(crate) fn new(case: Case) -> Arc<Self> {
        let log = MemoryLog::new();
        let topics = case.topics.iter().copied().chain([("dead-letters", 1), ("late", 1)]);
        topics.for_each(|(topic, partitions)| log.create_topic(topic, partitions).expect("a new topic"));
        let state = State {
            dice: Dice::of(case.seed, 2),
            turns: 0,
            next_arrival: 0,
            newest: case.arrivals.iter().find_map(Arrival::newest).unwrap_or(0),
            at: Vec::new(),
            clusters: case.clusters.iter().map(|_| Cluster::default()).collect(),
            trace: DefaultHasher::new(),
            violation: None,
            torn: BTreeSet::new(),
            committed: Vec::new(),
            watermarks: BTreeMap::new(),
            counts: Counts::default(),
            sealed: BTreeMap::new(),
        };
        Arc::new(Self {
            baton: Baton::new(Dice::of(case.seed, 3), case.clusters.len()),
            case,
            log,
            table: Arc::default(),
            archive: Arc::default(),
            objects: MemoryObjects::new(),
            hands: Arc::new(AtomicI64::new(START_MS)),
            tells: std::env::var_os("UPTAKE_SIMULATE_TRACE").is_some(),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock::by_hand(Arc::clone(&self.hands))
    }

    /// Writes down what happened.
    pub(crate) fn trace(&self, what: fmt::Arguments<'_>) {
        struct Into<'a>(&'a mut DefaultHasher);
        impl Write for Into<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.write(text.as_bytes());
                Ok(())
            }
        }
        if self.tells {
            eprintln!("{what}");
        }
        // Writing to a hash does not fail.
        let _ = Into(&mut self.lock().trace).write_fmt(what);
    }

    /// A number that is the same if everything was.
    pub(crate) fn traced(&self) -> u64 {
        self.lock().trace.finish()
    }

    /// Something is as it must never be: the simulation ends.
    pub(crate) fn violated(&self, what: impl Into<String>) {
        self.lock().violation.get_or_insert(Violation(what.into()));
    }

    /// These rows were sealed, as they stand.
    pub(crate) fn sealed<'a>(&self, rows: impl Iterator<Item = &'a TallyRow>) {
        let mut state = self.lock();
        for row in rows {
            let key = (row.segment.to_string(), row.video_id.to_string(), row.epoch.0);
            state.sealed.entry(key).or_default().insert((row.counts.plays, row.counts.impressions));
        }
    }

    pub(crate) fn has_all(&self) -> bool {
        self.lock().next_arrival == self.case.arrivals.len()
    }

    /// What whoever sits there does while others have the baton, and returns when it is back. The
    /// death of the run shows in a panic that nobody hears of.
    pub(crate) fn turn(&self, cluster: usize, number: usize) {
        let seat = (cluster, number);
        if self.baton.is_held_by(seat) {
            self.tick(seat);
        }
        self.baton.turn(seat);
        let state = self.lock();
        if state.violation.is_some() || state.clusters[cluster].dead {
            drop(state);
            std::panic::resume_unwind(Box::new("its run is dead".to_owned()));
        }
    }

    fn tick(&self, (cluster, number): (usize, usize)) {
        self.trace(format_args!("turn of {cluster}.{number}"));
        let pumps = {
            let mut state = self.lock();
            let state = &mut *state;
            state.turns += 1;
            if state.turns > TURNS_MAX {
                state.violation.get_or_insert(Violation("it does not end".to_owned()));
                return;
            }
            let ms = state.dice.below(self.case.rates.clock_ms + 1);
            self.hands.fetch_add(ms as i64, Ordering::AcqRel);
            self.append(state);
            let mut pumps = Vec::new();
            for cluster in &mut state.clusters {
                let Some(handles) = cluster.handles.clone().filter(|_| !cluster.dead) else { continue };
                let age = state.turns - cluster.begun_at;
                match cluster.end {
                    Some(End::Crash(at)) if age >= at => {
                        cluster.dead = true;
                        state.counts.crashes += 1;
                        continue;
                    }
                    Some(End::Halt(at)) if age >= at => handles.halt.halt(),
                    _ => {}
                }
                let order = state.dice.below(3);
                for n in 0..3 {
                    let which = ((n + order) % 3) as usize;
                    if state.dice.once_in(self.case.rates.pump[which]) {
                        pumps.push((Arc::clone(&handles), which));
                    }
                }
            }
            pumps
        };
        for (handles, which) in pumps {
            let done = match (which, &handles.coordinator) {
                (0, _) => Some(handles.outputs.pump_table()),
                (1, _) => Some(handles.outputs.pump_archive()),
                (_, Some(coordinator)) => Some(coordinator.pump()),
                _ => None,
            };
            self.trace(format_args!("pump {which}: {done:?}"));
        }
    }

    /// Records come to the log: so many that no worker that stands still falls further behind
    /// than what the lateness promises to bear, which is a matter of real time.
    fn append(&self, state: &mut State) {
        let (once_in, most) = self.case.rates.append;
        let hurried = state.clusters.iter().all(|cluster| cluster.handles.is_none());
        if !hurried && !state.dice.once_in(once_in) {
            return;
        }
        for _ in 0..1 + state.dice.below(most) {
            let Some(arrival) = self.case.arrivals.get(state.next_arrival) else { return };
            let newest = arrival.newest().unwrap_or(i64::MIN).max(state.newest);
            if let Some(lateness) = self.case.times.lateness_ms {
                let bearable = lateness + self.case.times.horizon_ms;
                let behind = |cluster: &Cluster| {
                    // A worker that stops stays with what it said in its last batch.
                    let batches = cluster.batches.iter().min().copied().unwrap_or(0);
                    cluster
                        .newest_at_batch
                        .get(batches.saturating_sub(1))
                        .copied()
                        .filter(|_| cluster.handles.is_some())
                };
                let mut furthest = state.clusters.iter().filter_map(behind);
                if furthest.any(|then| newest - then > bearable) {
                    return;
                }
            }
            state.newest = newest;
            state.next_arrival += 1;
            let (topic, partition) = self.case.partition(arrival.partition);
            let record = Record::new("", arrival.value.clone());
            let offset =
                self.log.append(topic, partition, &[record], arrival.appended_ms).expect("a known topic");
            state.at.push((topic.to_owned(), partition, offset));
        }
    }

    /// A worker begins a batch of this partition.
    pub(crate) fn begins_batch(&self, cluster: usize, topic: &str, partition: u32) {
        let mut state = self.lock();
        let newest = state.newest;
        let cluster = &mut state.clusters[cluster];
        let before = self.case.topics.iter().take_while(|(name, _)| *name != topic);
        let at = before.map(|(_, partitions)| *partitions as usize).sum::<usize>() + partition as usize;
        if let Some(batches) = cluster.batches.get_mut(at) {
            if cluster.newest_at_batch.len() == *batches {
                cluster.newest_at_batch.push(newest);
            }
            *batches += 1;
        }
    }

    /// A run has its parts and begins to work.
    pub(crate) fn run_begins(&self, cluster: usize, handles: Handles, end: End, workers: usize) {
        {
            let mut state = self.lock();
            let turns = state.turns;
            let partitions = self.case.topics.iter().map(|(_, partitions)| *partitions as usize).sum();
            let cluster = &mut state.clusters[cluster];
            cluster.handles = Some(Arc::new(handles));
            (cluster.end, cluster.begun_at) = (Some(end), turns);
            cluster.batches = vec![0; partitions];
            cluster.newest_at_batch.clear();
        }
        self.baton.begin(cluster, workers);
    }

    /// A run is over; says whether it died, and whether something excuses its failing.
    pub(crate) fn run_ends(&self, cluster: usize) -> (bool, bool) {
        let mut state = self.lock();
        let cluster = &mut state.clusters[cluster];
        let was = (cluster.dead, cluster.excused);
        *cluster = Cluster { calm: cluster.calm, away_until: cluster.away_until, ..Cluster::default() };
        was
    }

    /// What becomes of a call. `changes`: it may be done and fail all the same.
    pub(crate) fn fate(&self, cluster: usize, edge: Edge, changes: bool) -> Fate {
        let mut state = self.lock();
        let state = &mut *state;
        let rates = &self.case.rates;
        let of = &mut state.clusters[cluster];
        if of.dead {
            return Fate::Dead;
        }
        if of.calm {
            return Fate::Done;
        }
        let is_starting = of.handles.is_none();
        if edge == Edge::Log {
            if !state.dice.once_in(rates.log_fault) {
                return Fate::Done;
            }
            of.excused = true;
            state.counts.faults += 1;
            return if changes && state.dice.once_in(2) { Fate::Unheard } else { Fate::Refused };
        }
        // A run that is starting, or whose outputs give up soon, may end for it.
        let may_end = is_starting || (edge != Edge::Objects && self.case.gives_up());
        if of.away_until[edge as usize] > state.turns {
            of.excused |= may_end;
            return Fate::Refused;
        }
        if changes && edge == Edge::Objects && state.dice.once_in(rates.torn) {
            of.dead = true;
            state.counts.torn += 1;
            return Fate::Torn(state.dice.below(u64::MAX));
        }
        if !state.dice.once_in(rates.fault) {
            return Fate::Done;
        }
        state.counts.faults += 1;
        if state.dice.once_in(rates.outage) {
            of.away_until[edge as usize] = state.turns + 1 + state.dice.below(200);
        }
        of.excused |= may_end;
        match state.dice.below(10) {
            0 if changes => {
                of.excused = true;
                Fate::Full
            }
            1..=4 if changes => Fate::Unheard,
            _ => Fate::Refused,
        }
    }
}

/// What the engine sees of the world's turns.
pub(crate) struct Turns {
    pub(crate) world: Arc<World>,
    pub(crate) cluster: usize,
    pub(crate) workers: usize,
}

impl fmt::Debug for Turns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "turns of {}", self.cluster)
    }
}

impl Schedule for Turns {
    fn turn(&self, worker: usize) {
        self.world.turn(self.cluster, if worker == self.workers { 0 } else { worker + 1 });
    }

    fn leave(&self, worker: usize) {
        self.world.baton.leave((self.cluster, worker + 1));
    }
}
