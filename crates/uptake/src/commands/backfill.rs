//! `uptake backfill`: count again, without any lateness, and let every row grow that misses
//! something.
//!
//! It is a run of its own in memory, beside a live run: it reads its input to the end, counts by
//! the contract alone, and then unites each tally with the row and the archived object that are
//! there. Sets only grow, so an input that covers an epoch in part makes no row smaller, and the
//! same backfill again changes nothing.
//!
//! An epoch whose state a live run still holds is not sealed here: that is the live run's to do.

mod merge;
mod quiet;

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use uptake_connectors::archive::{self, MemoryArchive};
use uptake_connectors::log::Log;
use uptake_connectors::objects::Objects;
use uptake_connectors::table::MemoryTable;
use uptake_flow::Halt;
use uptake_model::ledger::Ledger;
use uptake_model::{Epoch, EventTime};

use super::ledger::{json, text_with};
use super::replay::workers_or_all;
use super::tallies::when;
use super::text::{grouped, table};
use super::{CommandError, Configured, all_read, balanced, event_files, existing};
use crate::checkpoint::{CheckpointError, PartitionPosition, Store};
use crate::clock::Clock;
use crate::config::{Config, UNBOUNDED};
use crate::data_dir::{self, DataDir};
use crate::engine::{self, Setup, log_positions};
use crate::outputs::notice;
use crate::stages::collect::{Input, LogInput, SharedFiles};
use crate::stages::spill::Spill;
use crate::traces::Traces;
use merge::Merged;
use quiet::QuietLog;

/// Count again, without any lateness, and let every row grow that misses something
///
/// Reads one source to its end, counts with join.lateness=off, and unites what it finds with the
/// table and the archive: rows only grow, so an input that holds an epoch in part harms nothing,
/// and the same backfill twice is the same as once. All state is held in memory until the end.
///
/// It may run beside `uptake run`, with the same configuration. Epochs that the last checkpoint of
/// a live run has sealed are written sealed and archived. Later ones are still the live run's:
/// their rows are written where they are larger, not sealed; run the backfill again when the live
/// run has sealed them. Without a live run every epoch is sealed.
///
/// Dead letters and late events that it meets are counted and not kept again.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["paths", "from_offset", "from_time", "archive"])))]
pub(super) struct Backfill {
    /// Event files (NDJSON, plain or gzip or zstd; Parquet), or folders of them
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The log's input topics, every partition from this offset to its present end
    #[arg(long, value_name = "N")]
    from_offset: Option<u64>,
    /// The log's input topics from what was appended at this time (RFC 3339), or all there is
    #[arg(long, value_name = "TIME|all", value_parser = from_time)]
    from_time: Option<FromTime>,
    /// The rows of the archive, for a table that was lost
    #[arg(long)]
    archive: bool,
    /// Where the log, the table and the archive are
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Worker threads [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Print ledger and changes as JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FromTime {
    All,
    Appended(EventTime),
}

fn from_time(text: &str) -> Result<FromTime, String> {
    if text == "all" {
        return Ok(FromTime::All);
    }
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(FromTime::Appended(EventTime(time.as_millisecond()))),
        Err(_) => Err("not a time, as 2026-01-15T09:30:00Z, nor \"all\"".to_owned()),
    }
}

/// Up to where live runs have sealed.
struct Held {
    /// The first epoch that one of them may still hold.
    from: Epoch,
    /// Which.
    cluster: String,
}

/// What the live runs hold of which `objects` has checkpoints; `None` where there are none.
///
/// A run that goes on later holds what its last checkpoint says. One that has begun and has no
/// checkpoint yet holds everything. A replay of files that was stopped is none: it seals at its end.
fn held(objects: &Arc<dyn Objects>, config: &Config) -> Result<Option<Held>, CheckpointError> {
    let names = objects.list("")?;
    let mut clusters: Vec<&str> = names.iter().filter_map(|o| Some(o.name.split_once('/')?.0)).collect();
    clusters.dedup();
    let mut held: Option<Held> = None;
    for cluster in clusters.into_iter().filter(|cluster| !is_replay(cluster)) {
        let store = Store::new(Arc::clone(objects), cluster);
        // A newer one that is damaged, or gone by now, only leaves more to the live run.
        let manifests = store.manifests()?;
        let watermark =
            manifests.iter().rev().find_map(|(_, name)| Some(store.manifest(name).ok()?.watermark));
        let from = config.sealed_before(watermark.unwrap_or(EventTime::MIN));
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

impl Backfill {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut config = self.configured.load()?;
        let _traces = Traces::start(config.traces.as_ref())?;
        let archive_at = existing(&self.data, &config.places.archive)?;
        let files = match self.paths.is_empty() {
            true => None,
            false => Some(event_files(&self.paths)?),
        };
        if self.archive {
            // Before a new table is told what its rows mean.
            let archive = archive::open(&archive_at, &config.places.s3)?;
            merge::check(&*archive, &data_dir::shown(&archive_at), &config)?;
        }
        let data = DataDir::open(&self.data, &config)?;
        data.notices.iter().for_each(|line| notice(line));
        let _lock = data_dir::lock(&self.data, "backfill")?;
        let DataDir { log, mut table, mut archive, objects, .. } = data;
        // What is sealed follows from the lateness of the live run; only here there is none.
        let mut merged = Merged::new(&config, held(&objects, &config)?);
        config.join.lateness_ms = UNBOUNDED;
        if self.archive {
            merged.write_archived(&*archive, &mut *table)?;
            return self.print(&config, &merged, None);
        }
        let log: Arc<dyn Log> = Arc::new(QuietLog(log));
        let input = match files {
            Some(files) => Input::Files(Arc::new(SharedFiles::new(files))),
            None => Input::Log(Arc::new(self.log_input(&*log, &config)?)),
        };
        let started = Instant::now();
        let (ledger, found) = self.count(config.clone(), log, objects, &input)?;
        merged.write_found(&found, &mut *table, &mut *archive)?;
        self.print(&config, &merged, Some((&ledger, started.elapsed())))?;
        if let Input::Files(files) = &input {
            all_read(files.take_errors())?;
        }
        balanced(&ledger)
    }

    /// Counts the input by the contract alone; nothing is written.
    fn count(
        &self,
        mut config: Config,
        log: Arc<dyn Log>,
        objects: Arc<dyn Objects>,
        input: &Input,
    ) -> Result<(Ledger, MemoryArchive), CommandError> {
        // Rows are taken when they are sealed, all at the end.
        config.table_write_interval = Duration::MAX;
        let found = Arc::new(Mutex::new(MemoryArchive::new()));
        let finished = engine::run(
            Setup {
                workers: workers_or_all(self.workers),
                data: DataDir {
                    log,
                    table: Box::new(MemoryTable::new()),
                    archive: Box::new(Arc::clone(&found)),
                    objects,
                    notices: Vec::new(),
                },
                input: input.clone(),
                seals_at_end: true,
                spill: Spill::new(&self.data, "backfill", &config),
                checkpoints: None,
                halt: Halt::default(),
                cluster: None,
                clock: Clock::system(),
                schedule: None,
                config: Arc::new(config),
            },
            None,
        )?;
        let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((finished.ledger, found))
    }

    /// The input topics from where it was asked for to where they end now.
    fn log_input(&self, log: &dyn Log, config: &Config) -> Result<LogInput, CommandError> {
        let mut partitions = log_positions(log, &config.input_topics, None)?;
        let end = |p: &PartitionPosition| log.end_offset(&p.topic, p.partition);
        let until = partitions.iter().map(end).collect::<Result<Vec<u64>, _>>()?;
        if let Some(from) = self.from_offset {
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
        if let Some(FromTime::Appended(time)) = self.from_time {
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
        Ok(LogInput { partitions, until: Some(until) })
    }

    fn print(
        &self,
        config: &Config,
        merged: &Merged,
        counted: Option<(&Ledger, Duration)>,
    ) -> Result<(), CommandError> {
        let mut out = std::io::stdout().lock();
        if self.json {
            let mut printed = counted.map_or_else(
                || serde_json::json!({}),
                |(ledger, _)| {
                    let mut printed = json(&ledger.total(), config);
                    printed["balances"] = ledger.balances().into();
                    printed
                },
            );
            let epochs =
                merged.epochs.iter().filter(|(_, change)| change.is_one()).map(|(&epoch, change)| {
                    serde_json::json!({
                        "epoch": epoch,
                        "epoch_start": config.epoch.start(epoch).to_string(),
                        "rows": change.rows,
                        "new": change.new,
                        "grown": change.grown,
                        "sealed": change.sealed,
                    })
                });
            printed["epochs"] = epochs.collect::<Vec<_>>().into();
            printed["epochs_seen"] = merged.epochs.len().into();
            printed["rows_seen"] = merged.sum(|change| change.rows).into();
            printed["rows_new"] = merged.sum(|change| change.new).into();
            printed["rows_grown"] = merged.sum(|change| change.grown).into();
            printed["rows_sealed"] = merged.sum(|change| change.sealed).into();
            printed["archive_objects_written"] = merged.objects_written.into();
            printed["held_by"] = merged.held.as_ref().map(|held| held.cluster.as_str()).into();
            printed["held_from_epoch"] =
                merged.held.as_ref().map(|held| held.from.0).filter(|&from| from > i64::MIN).into();
            writeln!(out, "{printed}")?;
            return Ok(out.flush()?);
        }
        if let Some((ledger, took)) = counted {
            let total = ledger.total();
            writeln!(out, "{} records read in {:.1} s\n", grouped(total.read), took.as_secs_f64())?;
            writeln!(out, "{}", text_with(&total, config, "could not be used; not kept again"))?;
        }
        let changed: Vec<_> = merged.epochs.iter().filter(|(_, change)| change.is_one()).collect();
        if !changed.is_empty() {
            let number = |n: u64| if n == 0 { String::new() } else { grouped(n) };
            let row = |(epoch, change): &(&Epoch, &merge::Change)| {
                let numbers = [change.rows, change.new, change.grown, change.sealed].map(number);
                let held = if merged.holds(**epoch) { "live" } else { "" };
                [epoch.to_string(), when(config.epoch.start(**epoch))]
                    .into_iter()
                    .chain(numbers)
                    .chain([held.to_owned()])
                    .collect()
            };
            let rows: Vec<Vec<String>> = changed.iter().map(row).collect();
            let header = ["epoch", "from", "rows", "new", "grown", "sealed", ""];
            writeln!(out, "{}", table(&header, &rows))?;
        }
        writeln!(
            out,
            "{} rows in {} epochs; {} of them new in the table, {} grown, {} now sealed, in {} epochs; \
             {} objects written to the archive",
            grouped(merged.sum(|change| change.rows)),
            grouped(merged.epochs.len() as u64),
            grouped(merged.sum(|change| change.new)),
            grouped(merged.sum(|change| change.grown)),
            grouped(merged.sum(|change| change.sealed)),
            grouped(changed.len() as u64),
            grouped(merged.objects_written),
        )?;
        let live: Vec<Epoch> = merged.epochs.keys().copied().filter(|&epoch| merged.holds(epoch)).collect();
        if let (Some(held), Some(first)) = (&merged.held, live.first()) {
            writeln!(
                out,
                "{} epochs, from {} on, are still held by the live run {}: their rows are not sealed here; \
                 run this again when it has sealed them",
                grouped(live.len() as u64),
                when(config.epoch.start(*first)),
                held.cluster
            )?;
        }
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use uptake_connectors::objects::MemoryObjects;

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
        assert_eq!(from_time("all"), Ok(FromTime::All));
        assert_eq!(from_time("1970-01-01T00:00:01.5Z"), Ok(FromTime::Appended(EventTime(1_500))));
        assert_eq!(from_time("1970-01-01T01:00:00+01:00"), Ok(FromTime::Appended(EventTime(0))));
        for none in ["", "yesterday", "2026-01-15", "2026-01-15T09:30:00", "1768435200123"] {
            assert!(from_time(none).is_err(), "{none}");
        }
    }
}
