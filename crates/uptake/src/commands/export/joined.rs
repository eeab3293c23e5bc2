//! `uptake export joined`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use uptake_connectors::TableError;
use uptake_connectors::log::{self, Log};
use uptake_connectors::objects;
use uptake_connectors::sheet::{Column, Values};
use uptake_connectors::url::Backend;
use uptake_model::{Epoch, Event, EventTime, Kind};

use super::{Files, To};
use crate::commands::tallies::open;
use crate::commands::whole::{From, Whole, from_time, held, log_input};
use crate::commands::{CommandError, all_read, balanced, event_files, existing, existing_log};
use crate::config::Config;
use crate::data_dir::{self, DataDirError};
use crate::outputs::notice;
use crate::stages::collect::{Input, LogInput, SharedFiles};
use crate::stages::keep::Kept;

/// Write the events that count, as Parquet: a file for each epoch and shard
///
/// Reads the log (or files) to its end, joins with join.lateness=off, and writes each event that counts: what the
/// tallies are made of, and what the table no longer tells, to train and to judge by. The names and the bytes of the
/// files depend on the events alone (and on their order where a cap cuts some): doing it again writes nothing. A file
/// that is there with other rows stays, as when events have come late since, unless --replace is given.
///
/// From the log only epochs are written that nothing changes any more: a live run has sealed them, and the log still
/// has all their events. All that counts is held in memory until the end.
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
    /// Write files anew that are there with other rows
    #[arg(long)]
    replace: bool,
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
        // The epochs that are written: from this one on, and before that one.
        let (input, from, until, log, _lock) = match &self.data {
            None => {
                let input = Input::Files(Arc::new(SharedFiles::new(event_files(&self.paths)?)));
                let (log, _) = log::open(&Backend::Memory, config.places.log_options())?;
                (input, Epoch(i64::MIN), Epoch(i64::MAX), log, None)
            }
            Some(data) => {
                let log = existing_log(data, &config)?;
                let lock = data_dir::lock(data, "export")?;
                self.means_the_same(data, &config)?;
                let begin = self.from_time.unwrap_or(From::Start);
                let input = log_input(&*log, &config, begin)?;
                let (from, until) = whole_epochs(data, &*log, (&input, begin), &config)?;
                (Input::Log(Arc::new(input)), from, until, log, Some(lock))
            }
        };
        let run =
            Whole { data: self.data.as_deref(), lock: "export", workers: self.workers, log: log.into() };
        let (ledger, mut kept) = run.joined(&config, &input)?;
        let epochs = std::mem::take(&mut kept.epochs);
        let found = epochs.len();
        let mut whole = 0;
        for (epoch, events) in epochs.into_iter().filter(|(epoch, _)| (from..until).contains(epoch)) {
            whole += 1;
            write(&mut files, epoch, events, &kept, &config)?;
        }
        if whole < found {
            notice(&format!(
                "{} of {found} epochs are not whole yet, or no longer, and were left out: a live run still holds them, \
                 or the log has dropped some of their events",
                found - whole
            ));
        }
        files.tell(&self.to, &[("epochs", whole.into()), ("epochs_left_out", (found - whole).into())])?;
        if let Input::Files(files) = &input {
            all_read(files.take_errors())?;
        }
        balanced(&ledger)
    }

    /// What counts has to be what the tallies there count.
    fn means_the_same(&self, data: &Path, config: &Config) -> Result<(), CommandError> {
        let table = match open(data, &self.to.configured) {
            // Before the first run there is none.
            Err(CommandError::Table(TableError::Missing { .. })) => return Ok(()),
            opened => opened?,
        };
        let place = data_dir::shown(&config.places.table.backend(data));
        match data_dir::other_meaning(&*table, config)? {
            Some((stored, asked)) => Err(DataDirError::OtherMeaning { place, stored, asked }.into()),
            None => Ok(()),
        }
    }
}

/// The epochs of which all events are in this part of the log: the first one, and the first behind them.
fn whole_epochs(
    data: &Path,
    log: &dyn Log,
    (input, begin): (&LogInput, From),
    config: &Config,
) -> Result<(Epoch, Epoch), CommandError> {
    let places = &config.places;
    let objects = objects::open(&existing(data, &places.checkpoints)?, objects::CHECKPOINTS, &places.s3);
    let held = held(&Arc::from(objects.map_err(DataDirError::from)?), config)?;
    let until = held.map_or(Epoch(i64::MAX), |held| held.from);
    // What happened after this was appended after it, too, but for how far a stamp may be ahead.
    let mut kept_from = EventTime::MIN;
    for position in input.partitions.iter().filter(|position| position.offset > 0) {
        let first = log.read(&position.topic, position.partition, position.offset, 1, 0)?;
        let from = match (first.first(), begin) {
            (Some(record), _) => EventTime(record.appended_ms),
            // Nothing came since then; or all that came was dropped, until now as far as one can tell.
            (None, From::Appended(time)) => time,
            (None, _) => data_dir::now(),
        };
        kept_from = kept_from.max(from);
    }
    if kept_from == EventTime::MIN {
        return Ok((Epoch(i64::MIN), until));
    }
    let all_from = kept_from.plus(config.join.horizon_ms).plus(config.decode.future_max_ms);
    let first = config.epoch.epoch(all_from);
    let is_whole = config.epoch.start(first) >= all_from;
    Ok((if is_whole { first } else { Epoch(first.0 + 1) }, until))
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
        let column = |name, values| Column { name, values };
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
