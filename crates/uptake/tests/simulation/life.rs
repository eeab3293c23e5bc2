//! The life of a cluster: one run after another, each from the newest whole checkpoint, until
//! everything has been read.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use uptake::checkpoint::{CheckpointError, InputPosition, Restored, Store};
use uptake::data_dir::DataDir;
use uptake::engine::{self, Checkpointing, Setup, log_positions, state_meaning};
use uptake::stages::collect::{Input, LogInput};
use uptake::stages::spill::Spill;
use uptake_connectors::log::Log;
use uptake_connectors::objects::Objects;
use uptake_flow::Halt;
use uptake_model::ledger::Ledger;

use crate::case::{End, Last};
use crate::dice::Dice;
use crate::edges::{SimulatedArchive, SimulatedLog, SimulatedObjects, SimulatedTable, Way};
use crate::world::{Handles, Turns, World};

/// What a cluster came to.
pub(crate) struct Lived {
    /// The books of its last run; `None` for a rival that gave up.
    pub(crate) ledger: Option<Ledger>,
    pub(crate) last: Option<Last>,
    pub(crate) epochs_open: bool,
}

/// How one attempt at a run ended.
enum Ended {
    Well(Box<Ledger>),
    Badly,
}

/// Runs a cluster to its end.
pub(crate) fn live(world: &Arc<World>, cluster: usize) -> Lived {
    let (name, runs, last) = world.case.clusters[cluster];
    let mut dice = Dice::of(world.case.seed, 100 + cluster as u64);
    world.turn(cluster, 0);
    for _ in 0..runs {
        let at = 1 + dice.below(world.case.rates.turns);
        let end = match dice.below(10) {
            0..=5 => End::Crash(at),
            6..=8 => End::Halt(at),
            _ => End::CaughtUp,
        };
        let _ = run(world, cluster, name, &mut dice, end);
        for _ in 0..dice.below(20) {
            world.turn(cluster, 0);
        }
    }
    let Some(last) = last else { return Lived { ledger: None, last: None, epochs_open: true } };
    while !world.has_all() {
        world.turn(cluster, 0);
    }
    let ends: &[End] = match last {
        Last::Sealed => &[End::Sealed],
        Last::CaughtUp => &[End::CaughtUp],
        Last::CaughtUpThenSealed => &[End::CaughtUp, End::Sealed],
    };
    let mut ledger = None;
    for end in ends {
        for attempt in 0.. {
            // Whoever repairs things comes at some time.
            world.lock().clusters[cluster].calm = attempt > 10;
            if let Ended::Well(books) = run(world, cluster, name, &mut dice, *end) {
                ledger = Some(*books);
                break;
            }
            assert!(attempt < 40, "nothing fails any more, and yet it does not come to its end");
            world.turn(cluster, 0);
        }
    }
    Lived { ledger, last: Some(last), epochs_open: last == Last::CaughtUp }
}

/// One run, from the newest checkpoint.
fn run(world: &Arc<World>, cluster: usize, name: &'static str, dice: &mut Dice, end: End) -> Ended {
    let tried = catch_unwind(AssertUnwindSafe(|| attempt(world, cluster, name, dice, end)));
    let (was_dead, was_excused) = world.run_ends(cluster);
    world.trace(format_args!("{cluster}: run ended, dead {was_dead}"));
    if world.lock().violation.is_some() {
        resume_unwind(Box::new("violated"));
    }
    match tried {
        Ok(Ok(ledger)) => {
            if !ledger.balances() {
                world.violated(format!("the books of a run do not balance: {ledger:?}"));
            }
            Ended::Well(Box::new(ledger))
        }
        Ok(Err(_)) | Err(_) if was_dead => Ended::Badly,
        Ok(Err(error)) => {
            let error = with_causes(&*error);
            let is_rival = world.case.clusters.iter().filter(|(other, ..)| *other == name).count() > 1;
            if !(was_excused || is_rival && error.contains("taken over")) {
                world.violated(format!("a run failed for no reason: {error}"));
            }
            world.lock().counts.failures += 1;
            Ended::Badly
        }
        Err(panic) => resume_unwind(panic),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let cause = error.source().map(|cause| format!(": {}", with_causes(cause)));
    error.to_string() + &cause.unwrap_or_default()
}

fn attempt(
    world: &Arc<World>,
    cluster: usize,
    name: &'static str,
    dice: &mut Dice,
    end: End,
) -> Result<Ledger, AnyError> {
    let way = || Way { world: Arc::clone(world), cluster };
    let config = world.case.config(dice);
    let workers = dice.within(1, 3) as usize;
    world.lock().counts.runs += 1;
    let objects: Arc<dyn Objects> = Arc::new(SimulatedObjects(way()));
    let store = Store::new(Arc::clone(&objects), name);
    let restored = match Restored::newest(&store, &state_meaning(&config)) {
        Ok((restored, _)) => restored,
        Err(error @ CheckpointError::NoneReadable { .. }) => {
            let whole = world.lock().committed.iter().rev().find(|(of, _)| of == name).map(|(_, n)| *n);
            if let Some(number) = whole {
                world.violated(format!("checkpoint {number} was whole, and yet: {error}"));
                return Err(error.into());
            }
            // Torn on the first attempt: whoever runs it does as the message says.
            store.clear()?;
            None
        }
        Err(error) => return Err(error.into()),
    };
    {
        let mut state = world.lock();
        let newest = state.committed.iter().filter(|(of, _)| of == name).map(|(_, number)| *number).max();
        let found = restored.as_ref().map(|restored| restored.manifest.number);
        if newest.map(|number| number.0) != found {
            drop(state);
            world.violated(format!("{newest:?} is the newest checkpoint, and {found:?} was found"));
            return Err("the newest checkpoint is lost".into());
        }
        state.counts.restores += u64::from(restored.is_some());
    }
    world.trace(format_args!("{cluster}: {end:?} {workers} {:?}", restored.as_ref().map(|r| &r.manifest)));
    let log: Arc<dyn Log> = Arc::new(SimulatedLog(way()));
    let partitions = log_positions(&*log, &config.input_topics, restored.as_ref())?;
    let ends = || -> Result<Vec<u64>, AnyError> {
        partitions.iter().map(|p| Ok(log.end_offset(&p.topic, p.partition)?)).collect()
    };
    let until = if matches!(end, End::CaughtUp | End::Sealed) { Some(ends()?) } else { None };
    let data = DataDir {
        log,
        table: Box::new(SimulatedTable { way: way(), written: BTreeMap::new() }),
        archive: Box::new(SimulatedArchive(way())),
        objects,
        notices: Vec::new(),
    };
    // Some runs have room for few requests, some for none, most for all.
    let folder = tempfile::tempdir()?;
    let held_max = [usize::MAX, 0, 3, 20][dice.within(0, 3) as usize];
    let spill = Spill { folder: folder.path().to_owned(), held_max: Some(held_max) };
    let halt = Halt::default();
    let watch_halt = halt.clone();
    let setup = Setup {
        config,
        workers,
        data,
        input: Input::Log(Arc::new(LogInput { partitions: partitions.clone(), until })),
        seals_at_end: end == End::Sealed,
        checkpoints: Some(Checkpointing { store, restored, start: InputPosition::Log(partitions) }),
        spill: Some(spill),
        keeping: None,
        halt,
        cluster: None,
        clock: world.clock(),
        schedule: Some(Arc::new(Turns { world: Arc::clone(world), cluster, workers })),
    };
    let finished = engine::run(
        setup,
        Some(&|outlets| {
            let handles = Handles {
                outputs: outlets.outputs.clone(),
                coordinator: outlets.checkpoints.clone(),
                halt: watch_halt.clone(),
            };
            world.run_begins(cluster, handles, end, workers);
        }),
    )?;
    Ok(finished.ledger)
}
