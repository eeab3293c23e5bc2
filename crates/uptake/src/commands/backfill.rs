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

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use uptake_connectors::archive;
use uptake_model::Epoch;
use uptake_model::ledger::Ledger;

use super::ledger::{json, text_with};
use super::tallies::when;
use super::text::{grouped, table};
use super::whole::{From, Whole, from_time, held, log_input};
use super::{CommandError, Configured, all_read, balanced, event_files, existing};
use crate::config::Config;
use crate::data_dir::{self, DataDir};
use crate::outputs::notice;
use crate::stages::collect::{Input, SharedFiles};
use crate::traces::Traces;
use merge::Merged;

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
    from_time: Option<From>,
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

impl Backfill {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.configured.load()?;
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
        let mut merged = Merged::new(&config, held(&objects, &config)?);
        if self.archive {
            merged.write_archived(&*archive, &mut *table)?;
            return self.print(&config, &merged, None);
        }
        let input = match files {
            Some(files) => Input::Files(Arc::new(SharedFiles::new(files))),
            None => Input::Log(Arc::new(log_input(&*log, &config, self.from())?)),
        };
        let started = Instant::now();
        let run = Whole { data: Some(&self.data), lock: "backfill", workers: self.workers, log };
        let (ledger, found) = run.tallies(&config, &input)?;
        merged.write_found(&found, &mut *table, &mut *archive)?;
        self.print(&config, &merged, Some((&ledger, started.elapsed())))?;
        if let Input::Files(files) = &input {
            all_read(files.take_errors())?;
        }
        balanced(&ledger)
    }

    /// From where the log is read.
    fn from(&self) -> From {
        self.from_offset.map(From::Offset).or(self.from_time).unwrap_or(From::Start)
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
