//! One run of the pipeline: what it reads, where results go, the checkpoints, and how it ends.

use std::collections::BTreeSet;
use std::sync::Arc;

use uptake_connectors::log::{Log, Stored};
use uptake_connectors::{Backend, LogError};
use uptake_flow::{Cluster, EventTime, Halt, Options, Schedule};
use uptake_model::join::JoinRules;
use uptake_model::ledger::Ledger;

use crate::checkpoint::{
    CheckpointError, CheckpointThread, Coordinator, InputPosition, Manifest, Number, PartitionPosition, Plan,
    Restored, Stats, Store,
};
use crate::clock::Clock;
use crate::config::{Config, JoinMethod, OnGap, Place};
use crate::data_dir::{DataDir, meaning};
use crate::memory::Memory;
use crate::outputs::{OutputError, OutputThreads, Outputs, notice};
use crate::pipeline;
use crate::stages::collect::Input;
use crate::stages::keep::Keeping;
use crate::stages::outlets::{Accounts, Outlets, Restoring};
use crate::stages::spill::Spill;

/// Everything a run needs.
pub struct Setup {
    /// The configuration.
    pub config: Arc<Config>,
    /// Worker threads of this process.
    pub workers: usize,
    /// Where results go.
    pub data: DataDir,
    /// What is read.
    pub input: Input,
    /// Whether the end of the input is the end of all: what waits then is over, and every epoch
    /// is sealed. Otherwise the run can be gone on with.
    pub seals_at_end: bool,
    /// Where checkpoints are, if any are taken.
    pub checkpoints: Option<Checkpointing>,
    /// Where requests go that memory has no room for, if they may.
    pub spill: Option<Spill>,
    /// Takes what counts, where that is wanted in place of its tallies. Such a run takes no checkpoints.
    pub keeping: Option<Keeping>,
    /// Stops the run.
    pub halt: Halt,
    /// The processes that run together, if there are several.
    pub cluster: Option<Cluster>,
    /// What time it is.
    pub clock: Clock,
    /// For tests that replay one order of events: the run then has no threads for table, archive
    /// and checkpoints. The schedule pumps them, which `watch` hears of, and at the end the run
    /// does, taking turns with a number one behind the last worker's.
    pub schedule: Option<Arc<dyn Schedule>>,
}

/// The checkpoints of a run.
pub struct Checkpointing {
    /// Where they are.
    pub store: Store,
    /// The one to go on from.
    pub restored: Option<Restored>,
    /// Where the input is read from, if there is none.
    pub start: InputPosition,
}

/// What a run came to.
#[derive(Debug)]
pub struct Finished {
    /// The books, of this process.
    pub ledger: Ledger,
    /// Rows written to the table, repeats included.
    pub rows: usize,
    /// The checkpoints it took.
    pub checkpoints: Stats,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It stopped.
    #[error(transparent)]
    Run(#[from] uptake_flow::Error),
    /// Table or archive gave up.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The checkpoints.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// What state in a checkpoint means: only the same configuration can go on from it.
pub fn state_meaning(config: &Config) -> String {
    let method = match config.join_method {
        JoinMethod::State => "state",
        JoinMethod::Window => "window",
        JoinMethod::BatchToWindow => "batch-to-window",
    };
    let segments: String = config.segment_forms().iter().map(|name| format!("[{name}]")).collect();
    format!("{} join.method={method} segments={segments}", meaning(config))
}

/// Where each partition of the input topics is read on: as the checkpoint says, the new ones from
/// their start. The order is that of the ledger's numbers, which never change.
///
/// # Errors
/// The log refuses, or the checkpoint is of another kind of input.
pub fn log_positions(
    log: &dyn Log,
    topics: &[String],
    restored: Option<&Restored>,
) -> Result<Vec<PartitionPosition>, Box<dyn std::error::Error + Send + Sync>> {
    let mut positions = match restored.map(Restored::input) {
        None | Some(InputPosition::Beginning) => Vec::new(),
        Some(InputPosition::Log(positions)) => positions.clone(),
        Some(InputPosition::Files { .. }) => {
            return Err(CheckpointError::OtherInput { stored: "files", asked: "the log" }.into());
        }
    };
    let known: BTreeSet<(String, u32)> = positions.iter().map(|p| (p.topic.clone(), p.partition)).collect();
    for topic in topics {
        for partition in 0..log.partitions(topic)? {
            if !known.contains(&(topic.clone(), partition)) {
                let offset = log.start_offset(topic, partition)?;
                positions.push(PartitionPosition { topic: topic.clone(), partition, offset, newest: None });
            }
        }
    }
    Ok(positions)
}

/// How long before a checkpoint was begun a record may have been appended that it has not: clocks differ. What is
/// read twice counts once.
const CLOCKS_DIFFER_MS: i64 = 60_000;

/// Puts positions that the log has gone back behind to where what was appended since the checkpoint begins: it lost
/// records that were read, as an embedded one may by a power cut, or its topic was made anew. Who waited for the old
/// offset to come would never read what stands before it.
///
/// # Errors
/// `input.on_gap` is "stop", or the log refuses.
pub fn within_log(
    log: &dyn Log,
    config: &Config,
    positions: &mut [PartitionPosition],
    restored: Option<&Restored>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Some(restored) = restored else { return Ok(()) };
    // Its records have copies, and times that producers may make up.
    let is_kafka = matches!(config.places.log, Place::Url(Backend::Kafka { .. }));
    let since = EventTime(restored.manifest.created_ms.saturating_sub(CLOCKS_DIFFER_MS));
    for position in positions.iter_mut().filter(|position| config.reads(&position.topic)) {
        let (topic, partition) = (position.topic.as_str(), position.partition);
        let end = log.end_offset(topic, partition)?;
        let found = if end < position.offset {
            format!("ends at offset {end}, and {} is to be read next", position.offset)
        } else if !is_kafka && was_appended_since(log, position, restored.manifest.created_ms)? {
            format!("has at offset {} what came after it was read", position.offset.saturating_sub(1))
        } else {
            continue;
        };
        let found = format!(
            "{topic}/{partition} {found}: the log lost records that were read, or the topic was made anew"
        );
        if config.on_gap == OnGap::Stop {
            return Err(format!(
                "{found}. To go on with what was appended since {since} set input.on_gap=declare"
            )
            .into());
        }
        position.offset = log.offset_for_time(topic, partition, since.0)?.min(end);
        notice(&format!(
            "{found}; going on with what was appended since {since}, at offset {}",
            position.offset
        ));
    }
    Ok(())
}

/// Whether the last record that a checkpoint says was read came after the checkpoint was begun: the log went back, and
/// has grown again since.
fn was_appended_since(log: &dyn Log, position: &PartitionPosition, ms: i64) -> Result<bool, LogError> {
    let (topic, partition) = (position.topic.as_str(), position.partition);
    let Some(last) = position.offset.checked_sub(1) else { return Ok(false) };
    if last < log.start_offset(topic, partition)? {
        return Ok(false);
    }
    let read = log.read(topic, partition, last, 1, 0)?;
    let is_newer =
        |record: &Stored| record.offset == last && record.appended_ms > ms.saturating_add(CLOCKS_DIFFER_MS);
    Ok(read.first().is_some_and(is_newer))
}

/// Runs the pipeline until its input ends or it is halted. `watch` is given the outlets before it
/// begins.
///
/// # Errors
/// What stopped it. What was written until then stays, and a run from the last checkpoint
/// converges to the same table.
pub fn run(setup: Setup, watch: Option<&dyn Fn(&Outlets)>) -> Result<Finished, EngineError> {
    let Setup {
        config,
        workers,
        data,
        input,
        seals_at_end,
        checkpoints,
        spill,
        keeping,
        halt,
        cluster,
        clock,
        schedule,
    } = setup;
    let config = match checkpoints.as_ref().and_then(|checkpointing| checkpointing.restored.as_ref()) {
        Some(restored) => closed_as(&config, &restored.manifest),
        None => config,
    };
    let outputs = Outputs::new(data.table, data.archive, config.output_retry_for, &clock);
    let process = cluster.as_ref().map_or((0, 1), |cluster| (cluster.process, cluster.addresses.len()));
    let (coordinator, restored) = match checkpoints {
        None => (None, None),
        Some(checkpointing) => {
            let (coordinator, restored) =
                coordinate(&config, workers, process, checkpointing, &outputs, &data.log)?;
            (Some(coordinator), restored)
        }
    };
    // Of a cluster, process 0 keeps the books of what was before.
    let before = restored.as_ref().filter(|_| process.0 == 0).map(|r| r.manifest.ledger.clone());
    let outlets = Outlets {
        log: data.log,
        outputs: outputs.clone(),
        accounts: Accounts::starting_with(before.unwrap_or_default()),
        checkpoints: coordinator.clone(),
        restored: Restoring::new(restored.clone(), workers),
        workers,
        memory: Arc::new(Memory::new(config.memory_max)),
        spill,
        keeping,
        clock,
    };
    if let Some(watch) = watch {
        watch(&outlets);
    }
    let options = Options {
        workers,
        tick: config.batch_tick,
        batches_in_flight: config.batches_in_flight,
        lateness_ms: config.join.lateness_ms,
        watermark: restored.as_ref().map_or(EventTime::MIN, |r| r.manifest.watermark),
        seals_at_end,
        checkpoints: coordinator.clone().map(|c| c as Arc<dyn uptake_flow::Checkpoints>),
        halt,
        cluster,
        schedule: schedule.clone(),
    };
    drop(restored);
    let writers = Writers::start(&outputs, coordinator.clone(), workers, schedule);
    let accounts = outlets.accounts.clone();
    let ran = uptake_flow::run(&options, move |flow| pipeline::build(flow, &config, &input, &outlets));
    let (checkpointed, written) = writers.finish(ran.is_err());
    ran?;
    checkpointed?;
    written?;
    let checkpoints = coordinator.map_or_else(Stats::default, |coordinator| coordinator.stats());
    Ok(Finished { ledger: accounts.ledger(), rows: outputs.rows_written(), checkpoints })
}

/// What writes table, archive and checkpoints beside the workers.
enum Writers {
    /// A thread for each.
    Threads(OutputThreads, Option<CheckpointThread>),
    /// A schedule, which is asked for turns under this number at the end.
    Schedule(Outputs, Option<Arc<Coordinator>>, usize, Arc<dyn Schedule>),
}

impl Writers {
    fn start(
        outputs: &Outputs,
        coordinator: Option<Arc<Coordinator>>,
        workers: usize,
        schedule: Option<Arc<dyn Schedule>>,
    ) -> Self {
        match schedule {
            None => Self::Threads(outputs.start(), coordinator.as_ref().map(Coordinator::start)),
            Some(schedule) => Self::Schedule(outputs.clone(), coordinator, workers, schedule),
        }
    }

    /// The last checkpoint needs what table and archive still write, so they end after it.
    fn finish(self, failed: bool) -> (Result<(), CheckpointError>, Result<(), OutputError>) {
        match self {
            Self::Threads(outputs, checkpoints) => {
                let checkpointed = checkpoints.map_or(Ok(()), |thread| thread.finish(failed));
                let written = outputs.finish(failed || checkpointed.is_err());
                (checkpointed, written)
            }
            Self::Schedule(outputs, coordinator, number, schedule) => {
                let mut checkpointed = Ok(());
                if let Some(coordinator) = coordinator {
                    coordinator.close(failed);
                    while !coordinator.is_done() {
                        schedule.turn(number);
                        outputs.pump_table();
                        outputs.pump_archive();
                        coordinator.pump();
                    }
                    checkpointed = coordinator.take_error().map_or(Ok(()), Err);
                }
                outputs.close(failed || checkpointed.is_err());
                while !outputs.are_done() {
                    schedule.turn(number);
                    outputs.pump_table();
                    outputs.pump_archive();
                }
                (checkpointed, outputs.take_error().map_or(Ok(()), Err))
            }
        }
    }
}

type Coordinated = (Arc<Coordinator>, Option<Arc<Restored>>);

fn coordinate(
    config: &Config,
    workers: usize,
    process: (usize, usize),
    checkpointing: Checkpointing,
    outputs: &Outputs,
    log: &Arc<dyn Log>,
) -> Result<Coordinated, CheckpointError> {
    let Checkpointing { store, restored, start } = checkpointing;
    // Worker 0 numbers the checkpoints; what other processes begin with is never used.
    let run = if process.0 == 0 { store.begin_run()? } else { 0 };
    let start = match &restored {
        Some(restored) => (with_new_partitions(restored.input(), start), restored.manifest.ledger.clone()),
        None => (start, Ledger::default()),
    };
    if let Some(restored) = &restored {
        let (number, segments) = (Number(restored.manifest.number), restored.segments.len());
        notice(&format!("going on from checkpoint {number} ({segments} segments)"));
    }
    let plan = Plan {
        process,
        workers,
        stages: pipeline::stages(config),
        interval: config.checkpoint_interval,
        keep: config.checkpoint_keep,
        parts_deadline: config.cluster_progress_deadline,
        first: Number::first(run),
        meaning: state_meaning(config),
        rules: config.join,
        start,
    };
    let mut coordinator = Coordinator::new(plan, store, outputs.clone()).reporting_to(Arc::clone(log));
    if let Some(keep) = config.log_keep {
        coordinator = coordinator.keeping_log_for(keep);
    }
    let coordinator = Arc::new(coordinator);
    Ok((coordinator, restored.map(Arc::new)))
}

/// The configuration of a run that goes on from a checkpoint: what was too late there stays too late. With more lateness
/// than before an event could else be taken whose epoch was sealed and let go of, and its tally begin anew.
fn closed_as(config: &Arc<Config>, manifest: &Manifest) -> Arc<Config> {
    let lateness_ms = manifest.lateness_ms.unwrap_or(config.join.lateness_ms);
    let then = JoinRules { lateness_ms, ..config.join };
    let closed_before = manifest.late_before.unwrap_or_else(|| then.late_before(manifest.watermark));
    let join = JoinRules { closed_before, ..config.join };
    Arc::new(Config { join, ..Config::clone(config) })
}

/// The position of a checkpoint, with the partitions that have come since.
fn with_new_partitions(restored: &InputPosition, start: InputPosition) -> InputPosition {
    match (restored, start) {
        (InputPosition::Log(_), now @ InputPosition::Log(_)) => now,
        (restored, _) => restored.clone(),
    }
}
