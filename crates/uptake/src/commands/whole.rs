//! A run of its own over input that has an end, beside a live run: in memory, by the contract alone, without any
//! lateness. It writes nothing by itself.

mod quiet;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uptake_connectors::archive::{Archive, MemoryArchive};
use uptake_connectors::log::Log;
use uptake_connectors::objects::{MemoryObjects, Objects};
use uptake_connectors::table::MemoryTable;
use uptake_flow::Halt;
use uptake_model::join::JoinRules;
use uptake_model::ledger::Ledger;
use uptake_model::{Epoch, EventTime};

use super::CommandError;
use super::replay::workers_or_all;
use crate::checkpoint::{CheckpointError, PartitionPosition, Store};
use crate::clock::Clock;
use crate::config::{Config, UNBOUNDED};
use crate::data_dir::DataDir;
use crate::engine::{self, Setup, log_positions};
use crate::outputs::notice;
use crate::stages::collect::{Input, LogInput};
use crate::stages::keep::{Keeping, Kept};
use crate::stages::spill::Spill;
use quiet::QuietLog;

/// Up to where live runs have sealed.
pub(super) struct Held {
    /// The first epoch that one of them may still hold.
    pub(super) from: Epoch,
    /// Which.
    pub(super) cluster: String,
}

/// What the live runs hold of which `objects` has checkpoints; `None` where there are none.
///
/// A run that goes on later holds what its last checkpoint says. One that has begun and has no
/// checkpoint yet holds everything. A replay of files that was stopped is none: it seals at its end.
pub(super) fn held(objects: &Arc<dyn Objects>, config: &Config) -> Result<Option<Held>, CheckpointError> {
    let names = objects.list("")?;
    let mut clusters: Vec<&str> = names.iter().filter_map(|o| Some(o.name.split_once('/')?.0)).collect();
    clusters.dedup();
    let mut held: Option<Held> = None;
    for cluster in clusters.into_iter().filter(|cluster| !is_replay(cluster)) {
        let store = Store::new(Arc::clone(objects), cluster);
        // A newer one that is damaged, or gone by now, only leaves more to the live run.
        let manifests = store.manifests()?;
        let manifest = manifests.iter().rev().find_map(|(_, name)| store.manifest(name).ok());
        let from = manifest.map_or(Epoch(i64::MIN), |manifest| {
            // By the lateness of the run that holds it.
            let lateness_ms = manifest.lateness_ms.unwrap_or(config.join.lateness_ms);
            config.sealed_before_by(&JoinRules { lateness_ms, ..config.join }, manifest.watermark)
        });
        if held.as_ref().is_none_or(|held| from < held.from) {
            held = Some(Held { from, cluster: cluster.to_owned() });
        }
    }
    Ok(held)
}

/// Whether the checkpoints are those of `uptake replay`.
fn is_replay(cluster: &str) -> bool {
    cluster.starts_with(super::replay::PREFIX)
}

/// From where the log is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum From {
    /// From where it begins.
    Start,
    /// From this offset of every partition.
    Offset(u64),
    /// From what was appended at this time.
    Appended(EventTime),
}

/// A time, or all there is.
pub(super) fn from_time(text: &str) -> Result<From, String> {
    if text == "all" {
        return Ok(From::Start);
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(From::Appended(EventTime(time.as_millisecond()))),
        Err(_) => Err("not a time, as 2026-01-15T09:30:00Z, nor \"all\"".to_owned()),
    }
}

/// The input topics from where it was asked for to where they end now.
pub(super) fn log_input(log: &dyn Log, config: &Config, from: From) -> Result<LogInput, CommandError> {
    let mut partitions = log_positions(log, &config.input_topics, None)?;
    let end = |p: &PartitionPosition| log.end_offset(&p.topic, p.partition);
    let until = partitions.iter().map(end).collect::<Result<Vec<u64>, _>>()?;
    match from {
        From::Start => {}
        From::Offset(from) => {
            let last = until.iter().copied().max().unwrap_or(0);
            if from > last {
                return Err(CommandError::Usage(format!(
                    "--from-offset {from}: the longest partition of {} ends at offset {last}",
                    config.input_topics.join(", ")
                )));
            }
            for (position, &end) in partitions.iter_mut().zip(&until) {
                if from < position.offset {
                    notice(&format!(
                        "{}/{} begins at offset {}: what was before was dropped",
                        position.topic, position.partition, position.offset
                    ));
                }
                position.offset = from.clamp(position.offset, end);
            }
        }
        From::Appended(time) => {
            for position in &mut partitions {
                position.offset = log.offset_for_time(&position.topic, position.partition, time.0)?;
            }
            if partitions.iter().zip(&until).all(|(position, &end)| position.offset >= end) {
                return Err(CommandError::Usage(format!(
                    "--from-time {time}: nothing was appended to {} since",
                    config.input_topics.join(", ")
                )));
            }
        }
    }
    Ok(LogInput { partitions, until: Some(until) })
}

/// A run over all of an input.
pub(super) struct Whole<'a> {
    /// The data directory where requests go that memory has no room for, if there is one.
    pub(super) data: Option<&'a Path>,
    /// The name of the lock that is held there.
    pub(super) lock: &'static str,
    /// Worker threads, if they are given.
    pub(super) workers: Option<u16>,
    /// The log, which is only read.
    pub(super) log: Arc<dyn Log>,
}

impl Whole<'_> {
    /// What the input comes to: the rows of its tallies, all sealed, as the parts that an archive has.
    pub(super) fn tallies(
        &self,
        config: &Config,
        input: &Input,
    ) -> Result<(Ledger, MemoryArchive), CommandError> {
        let found = Arc::new(Mutex::new(MemoryArchive::new()));
        let ledger = self.run(config, input, Box::new(Arc::clone(&found)), None)?;
        let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((ledger, found))
    }

    /// The events of the input that count.
    pub(super) fn joined(&self, config: &Config, input: &Input) -> Result<(Ledger, Kept), CommandError> {
        let keeping = Keeping::default();
        let ledger = self.run(config, input, Box::new(MemoryArchive::new()), Some(keeping.clone()))?;
        Ok((ledger, keeping.take()))
    }

    fn run(
        &self,
        config: &Config,
        input: &Input,
        archive: Box<dyn Archive>,
        keeping: Option<Keeping>,
    ) -> Result<Ledger, CommandError> {
        let mut config = config.clone();
        config.join.lateness_ms = UNBOUNDED;
        // Rows are taken when they are sealed, all at the end.
        config.table_write_interval = Duration::MAX;
        let finished = engine::run(
            Setup {
                workers: workers_or_all(self.workers),
                data: DataDir {
                    log: Arc::new(QuietLog(Arc::clone(&self.log))),
                    table: Box::new(MemoryTable::new()),
                    archive,
                    objects: Arc::new(MemoryObjects::new()),
                    notices: Vec::new(),
                },
                input: input.clone(),
                seals_at_end: true,
                spill: self.data.and_then(|data| Spill::new(data, self.lock, &config)),
                keeping,
                checkpoints: None,
                halt: Halt::default(),
                cluster: None,
                clock: Clock::system(),
                schedule: None,
                config: Arc::new(config),
            },
            None,
        )?;
        Ok(finished.ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Manifest, Number};

    const HOUR: i64 = 3_600_000;

    fn checkpoint(objects: &Arc<dyn Objects>, cluster: &str, watermark: i64) {
        let store = Store::new(Arc::clone(objects), cluster);
        let run = store.begin_run().unwrap();
        let mut manifest = Manifest::new(Number::first(run).0, "".into(), 0);
        manifest.watermark = EventTime(watermark);
        store.commit(&manifest).unwrap();
    }

    #[test]
    fn the_live_run_that_is_furthest_behind_decides() {
        let objects: Arc<dyn Objects> = Arc::new(MemoryObjects::new());
        let config = Config::default();
        let from = |objects| held(objects, &config).unwrap().map(|held| (held.cluster, held.from.0));
        assert_eq!(from(&objects), None);
        checkpoint(&objects, "replay-0123456789abcdef", 1_000 * HOUR);
        assert_eq!(from(&objects), None, "a stopped replay is no live run");
        checkpoint(&objects, "main", 105 * HOUR + 1_000);
        // Twice the horizon and the lateness are five hours, and two epochs an hour.
        assert_eq!(from(&objects), Some(("main".into(), 200)));
        checkpoint(&objects, "main", 106 * HOUR + 1_000);
        assert_eq!(from(&objects), Some(("main".into(), 202)), "the newest one");
        checkpoint(&objects, "other", 104 * HOUR + 1_000);
        assert_eq!(from(&objects), Some(("other".into(), 198)));
        Store::new(Arc::clone(&objects), "third").begin_run().unwrap();
        assert_eq!(from(&objects), Some(("third".into(), i64::MIN)), "without a checkpoint: everything");
    }

    #[test]
    fn times() {
        assert_eq!(from_time("all"), Ok(From::Start));
        assert_eq!(from_time("1970-01-01T00:00:01.5Z"), Ok(From::Appended(EventTime(1_500))));
        assert_eq!(from_time("1970-01-01T01:00:00+01:00"), Ok(From::Appended(EventTime(0))));
        for none in ["", "yesterday", "2026-01-15", "2026-01-15T09:30:00", "1768435200123"] {
            assert!(from_time(none).is_err(), "{none}");
        }
    }
}
