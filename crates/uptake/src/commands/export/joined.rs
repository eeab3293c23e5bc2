//! `uptake export joined`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use uptake_connectors::TableError;
use uptake_connectors::log::{Log, MemoryLog};
use uptake_connectors::sheet::Values;
use uptake_model::{Epoch, Event, EventTime, Kind};

use super::{Files, To, column};
use crate::commands::tallies::open;
use crate::commands::whole::{From, Whole, from_time, held, log_input};
use crate::commands::{
    CommandError, READ_BYTES, all_read, balanced, event_files, existing_log, existing_objects,
};
use crate::config::Config;
use crate::data_dir;
use crate::outputs::notice;
use crate::stages::collect::{Input, LogInput, SharedFiles};
use crate::stages::keep::Kept;

/// The lock that is held in the data directory, and the folder there for what memory has no room for.
const LOCK: &str = "export-joined";

/// Write the events that count, as Parquet: a file for each epoch and shard
///
/// Reads the log (or files) to its end, joins with join.lateness=off, and writes each event that counts: what the
/// tallies are made of, and what the table no longer tells, to train and to judge by. The names and the bytes of the
/// files depend on the events alone (and on their order where a cap cuts some): doing it again writes nothing. A file
/// that is there with other rows stays, as when events have come late since, unless --replace is given.
///
/// From the log only epochs are written that nothing changes any more: a live run has sealed them by its newest
/// checkpoint, and the log still has all their events, as far as the times of its oldest records say. From files all are.
/// All that counts is held in memory until the end.
#[derive(Args, Debug)]
pub(in crate::commands) struct Joined {
    /// Event files (NDJSON, plain or gzip or zstd; Parquet) to read instead of the log, or folders of them
    #[arg(value_name = "PATH", required_unless_present = "data", conflicts_with = "data")]
    paths: Vec<PathBuf>,
    /// The data directory, whose log is read
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The log from what was appended at this time (RFC 3339) [default: all there is]
    #[arg(long, value_name = "TIME|all", value_parser = from_time, conflicts_with = "paths")]
    from_time: Option<From>,
    /// Write files anew that are there with other rows; who reads meanwhile may miss one
    #[arg(long)]
    replace: bool,
    /// Write also epochs that a live run may still change, or of which the log has dropped events
    #[arg(long, conflicts_with = "paths")]
    all: bool,
    /// Worker threads [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    #[command(flatten)]
    to: To,
}

impl Joined {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.to.configured.load()?;
        let mut files = Files::open(&self.to.to, "joined", &config, self.replace)?;
        let mut whole = Epoch(i64::MIN)..Epoch(i64::MAX);
        let (input, log, _lock) = match &self.data {
            None => {
                let input = Input::Files(Arc::new(SharedFiles::new(event_files(&self.paths)?)));
                (input, Box::<MemoryLog>::default() as Box<dyn Log>, None)
            }
            Some(data) => {
                let log = existing_log(data, &config)?;
                let lock = data_dir::lock(data, LOCK)?;
                self.means_the_same(data, &config)?;
                // Before the log's ends: what a run seals after this may not have been read here.
                if !self.all {
                    whole.end = sealed_before(data, &config)?;
                }
                let begin = self.from_time.unwrap_or(From::Start);
                let input = log_input(&*log, &config, begin)?;
                if !self.all {
                    whole.start = kept_from(&*log, &input, begin, &config)?;
                }
                (Input::Log(Arc::new(input)), log, Some(lock))
            }
        };
        let run = Whole { data: self.data.as_deref(), lock: LOCK, workers: self.workers, log: log.into() };
        let (ledger, mut kept) = run.joined(&config, &input)?;
        // What was read in part is not written: it would stay.
        if let Input::Files(files) = &input {
            all_read(files.take_errors())?;
        }
        balanced(&ledger)?;
        let gap = ledger.total().gap;
        if gap > 0 {
            let message = format!(
                "the log dropped {gap} records before they were read; nothing was written, run it again"
            );
            return Err(CommandError::Other(message.into()));
        }
        let epochs = std::mem::take(&mut kept.epochs);
        let (found, mut written) = (epochs.len(), 0);
        for (epoch, events) in epochs.into_iter().filter(|(epoch, _)| whole.contains(epoch)) {
            written += 1;
            write(&mut files, epoch, events, &kept, &config)?;
        }
        let left_out = found - written;
        if left_out > 0 {
            notice(&format!(
                "{left_out} of {found} epochs are not whole yet, or no longer, and were left out: a live run still \
                 holds them, or the log has dropped some of their events; --all writes them as they are"
            ));
        }
        let more = [("epochs", written.into()), ("epochs_left_out", left_out.into())];
        files.tell(&self.to, "stay until they are deleted, or --replace writes them anew", &more)
    }

    /// What counts has to be what the tallies there count.
    fn means_the_same(&self, data: &Path, config: &Config) -> Result<(), CommandError> {
        let table = match open(data, &self.to.configured) {
            // Before the first run there is none.
            Err(CommandError::Table(TableError::Missing { .. })) => return Ok(()),
            opened => opened?,
        };
        Ok(data_dir::check_meaning(&*table, &config.places.table.backend(data), config)?)
    }
}

/// The first epoch that a live run may still change.
fn sealed_before(data: &Path, config: &Config) -> Result<Epoch, CommandError> {
    match held(&existing_objects(data, config)?, config)? {
        Some(held) => Ok(held.from),
        None => Err(CommandError::Usage(
            "no live run has a checkpoint there, so no epoch is known to be whole; --all writes them as they are"
                .to_owned(),
        )),
    }
}

/// So many records of a partition are asked when the first of them was appended: in Kafka producers say the time, not
/// always in order.
const FIRST_RECORDS: usize = 1_000;

/// The first epoch of which this part of the log has all events.
fn kept_from(log: &dyn Log, input: &LogInput, begin: From, config: &Config) -> Result<Epoch, CommandError> {
    // What happened after this was appended after it, too, but for how far a stamp may be ahead.
    let mut kept_from = EventTime::MIN;
    let ends = input.until.iter().flatten();
    for (position, &end) in input.partitions.iter().zip(ends).filter(|(position, _)| position.offset > 0) {
        let first =
            log.read(&position.topic, position.partition, position.offset, FIRST_RECORDS, READ_BYTES)?;
        let latest = first.iter().map(|record| EventTime(record.appended_ms)).max();
        let from = match (latest, begin) {
            (Some(latest), _) => latest,
            // Nothing came since then.
            (None, From::Appended(time)) if position.offset >= end => time,
            // All that came was dropped, until now as far as one can tell.
            _ => data_dir::now(),
        };
        kept_from = kept_from.max(from);
    }
    if kept_from == EventTime::MIN {
        return Ok(Epoch(i64::MIN));
    }
    let all_from = kept_from.plus(config.join.horizon_ms).plus(config.decode.future_max_ms);
    let first = config.epoch.epoch(all_from);
    Ok(if config.epoch.start(first) >= all_from { first } else { Epoch(first.0 + 1) })
}

/// Names of columns that a dimension cannot have.
const OWN: [&str; 5] = ["request_id", "kind", "video_id", "timestamp", "epoch_number"];

/// The name of a dimension's column.
fn dimension(name: &str) -> String {
    if OWN.contains(&name) { format!("dimension.{name}") } else { name.to_owned() }
}

/// Writes the files of an epoch.
fn write(
    files: &mut Files,
    epoch: Epoch,
    events: Vec<Event>,
    kept: &Kept,
    config: &Config,
) -> Result<(), CommandError> {
    let shards = config.archive_shards;
    let mut parts: BTreeMap<u32, Vec<(&str, Event)>> = BTreeMap::new();
    for event in events {
        let Some(video) = kept.videos.get(&event.video) else {
            let message = format!("the name of video {:016x} was not told before its events", event.video.0);
            return Err(CommandError::Other(message.into()));
        };
        parts.entry(event.request.partition(shards)).or_default().push((&**video, event));
    }
    let names: Vec<String> = config.segments.dimensions().iter().map(|name| dimension(name)).collect();
    for (shard, mut rows) in parts {
        rows.sort_unstable_by_key(|(video, event)| {
            (event.time, event.request, event.kind, *video, event.dims)
        });
        let kind = |kind| if kind == Kind::Play { "play" } else { "impression" };
        let mut columns = vec![
            column("request_id", Values::Ids(rows.iter().map(|(_, event)| event.request.0).collect())),
            column("kind", Values::Texts(rows.iter().map(|(_, event)| Some(kind(event.kind))).collect())),
            column("video_id", Values::Texts(rows.iter().map(|(video, _)| Some(*video)).collect())),
            column("timestamp", Values::Times(rows.iter().map(|(_, event)| event.time.0).collect())),
            column("epoch_number", Values::Numbers(vec![Some(epoch.0); rows.len()])),
        ];
        for (n, name) in names.iter().enumerate() {
            let value = |(_, event): &(&str, Event)| {
                let value = kept.dims.get(&event.dims)?.get(n)?.as_str();
                (!value.is_empty()).then_some(value)
            };
            columns.push(column(name, Values::Texts(rows.iter().map(value).collect())));
        }
        let name = format!("epoch={}/shard-{shard:03}-of-{shards:03}.parquet", config.epoch.label(epoch));
        files.put(&name, &columns, rows.len())?;
    }
    Ok(())
}
