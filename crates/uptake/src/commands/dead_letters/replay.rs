//! `uptake dead-letters replay`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use uptake_connectors::log::{Log, Record};
use uptake_model::decode::{Decoded, Decoder, Members};
use uptake_model::{EventTime, Reason};

use super::super::append::Producer;
use super::super::text::grouped;
use super::{Letter, Replayed, each_letter, reason};
use crate::commands::{CommandError, Configured, existing_log};
use crate::config::Config;
use crate::data_dir::{self, DEAD_LETTERS, DEAD_LETTERS_REPLAYED, DataDir, now};
use crate::outputs::notice;

/// Append dead letters to the input again, after a fix of the configuration
#[derive(Args, Debug)]
pub(in crate::commands) struct Replay {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only those for this reason, as unknown-kind
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<Reason>,
    /// Only those from this number on (`uptake dead-letters list` prints them)
    #[arg(long, value_name = "N")]
    from_offset: Option<u64>,
    /// Append nothing: say how many could be used now
    #[arg(long)]
    dry_run: bool,
    /// Print the numbers as JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// After as many bytes what was appended is written down. A crash repeats no more than these.
const WRITE_DOWN_BYTES: usize = 8 << 20;

/// What became of the letters that were asked for.
#[derive(Default)]
struct Done {
    letters: u64,
    before: u64,
    /// Usable now; appended, unless it was a dry run.
    usable: u64,
    /// Of those: filtered by a rule when they are read.
    filtered: u64,
    unusable: BTreeMap<Reason, u64>,
}

/// Which letters are asked for.
#[derive(Clone, Copy, Default)]
pub(super) struct Wanted {
    pub(super) reason: Option<Reason>,
    pub(super) from_offset: u64,
}

impl Wanted {
    /// How many could be used now.
    fn count(self, log: &dyn Log, config: &Config) -> Result<Done, CommandError> {
        let mut done = Done::default();
        self.each_usable(log, config, &mut done, &mut |_| Ok(()))?;
        Ok(done)
    }

    /// Appends those that can be used now; also returns how many records, by topic.
    fn append(self, path: &Path, config: &Config) -> Result<(Done, BTreeMap<String, u64>), CommandError> {
        let data = DataDir::open(path, config)?;
        data.notices.iter().for_each(|line| notice(line));
        // Two at once would append everything twice.
        let _lock = data_dir::lock(path, DEAD_LETTERS)?;
        data.log.create_topic(DEAD_LETTERS_REPLAYED, 1)?;
        let mut producer = Producer::new(&*data.log, config)?;
        let (mut done, mut replayed, mut bytes) = (Done::default(), Replayed::default(), 0);
        self.each_usable(&*data.log, config, &mut done, &mut |letter| {
            producer.line(&letter.bytes)?;
            replayed.add(letter.number);
            bytes += letter.bytes.len();
            if bytes >= WRITE_DOWN_BYTES {
                producer.flush()?;
                write_down(&*data.log, &std::mem::take(&mut replayed))?;
                bytes = 0;
            }
            Ok(())
        })?;
        producer.flush()?;
        write_down(&*data.log, &replayed)?;
        Ok((done, producer.appended))
    }

    /// Calls `each` with the letters that were asked for, not appended before, and usable now.
    fn each_usable(
        self,
        log: &dyn Log,
        config: &Config,
        done: &mut Done,
        each: &mut dyn FnMut(Letter) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        let mut decoder = Decoder::new(
            config.decode.clone(),
            &config.segments,
            &config.filters,
            config.epoch,
            Members::None,
        );
        // It arrives when it is appended.
        let arrives = now();
        each_letter(log, &mut |letter| {
            let other = self.reason.is_some_and(|reason| reason != letter.key.reason);
            if other || letter.number < self.from_offset {
                return Ok(());
            }
            done.letters += 1;
            if letter.replayed {
                done.before += 1;
                return Ok(());
            }
            match usable(&mut decoder, &letter.bytes, arrives) {
                Err(reason) => *done.unusable.entry(reason).or_default() += 1,
                Ok(is_filtered) => {
                    done.usable += 1;
                    done.filtered += u64::from(is_filtered);
                    each(letter)?;
                }
            }
            Ok(())
        })
    }
}

/// The same for the API: what became of the letters.
pub(in crate::commands) fn again(
    data: &Path,
    config: &Config,
    reason: Option<&str>,
    dry_run: bool,
) -> Result<Value, CommandError> {
    let wanted = Wanted {
        reason: reason.map(super::reason).transpose().map_err(CommandError::Usage)?,
        from_offset: 0,
    };
    if dry_run {
        return Ok(wanted.count(&*existing_log(data, config)?, config)?.json(None));
    }
    let (done, appended) = wanted.append(data, config)?;
    Ok(done.json(Some(&appended)))
}

impl Done {
    fn json(&self, appended: Option<&BTreeMap<String, u64>>) -> Value {
        let by_reason: serde_json::Map<_, _> =
            self.unusable.iter().map(|(reason, n)| (reason.to_string(), (*n).into())).collect();
        serde_json::json!({
            "dry_run": appended.is_none(),
            "letters": self.letters,
            "replayed_before": self.before,
            "usable": self.usable,
            "filtered": self.filtered,
            "unusable": self.unusable.values().sum::<u64>(),
            "unusable_by_reason": by_reason,
            "appended": appended,
        })
    }
}

impl Replay {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.configured.load()?;
        let log = existing_log(&self.data, &config)?;
        let end = if log.partitions(DEAD_LETTERS).is_ok() { log.end_offset(DEAD_LETTERS, 0)? } else { 0 };
        if let Some(from) = self.from_offset.filter(|&from| from > end) {
            return Err(CommandError::Usage(format!(
                "--from-offset {from}: the topic {DEAD_LETTERS} ends at offset {end}"
            )));
        }
        let wanted = Wanted { reason: self.reason, from_offset: self.from_offset.unwrap_or(0) };
        if self.dry_run {
            return self.print(&wanted.count(&*log, &config)?, None);
        }
        let (done, appended) = wanted.append(&self.data, &config)?;
        self.print(&done, Some(&appended))
    }

    fn print(&self, done: &Done, appended: Option<&BTreeMap<String, u64>>) -> Result<(), CommandError> {
        let mut out = std::io::stdout().lock();
        let unusable: u64 = done.unusable.values().sum();
        if self.json {
            writeln!(out, "{}", done.json(appended))?;
            return Ok(out.flush()?);
        }
        let usable = match appended {
            None => "could be used now",
            Some(_) => "could be used now, and were appended",
        };
        let rows = [
            ("dead letters", done.letters, ""),
            ("  before", done.before, "were appended before"),
            ("  usable", done.usable, usable),
            ("  unusable", unusable, "cannot be used under this configuration either; they stay"),
        ];
        let width = grouped(done.letters).len();
        for (name, n, note) in rows {
            writeln!(out, "{}", format!("{name:12} {:>width$}  {note}", grouped(n)).trim_end())?;
        }
        for (reason, n) in &done.unusable {
            writeln!(out, "{:12} {:>width$}    {} {reason}", "", "", grouped(*n))?;
        }
        if done.filtered > 0 {
            writeln!(
                out,
                "{} of the usable are dropped by a filter when they are read",
                grouped(done.filtered)
            )?;
        }
        for (topic, n) in appended.into_iter().flatten() {
            writeln!(out, "{} records appended to {topic}", grouped(*n))?;
        }
        Ok(out.flush()?)
    }
}

/// Whether a record holds an event, and whether a filter drops all it holds.
fn usable(decoder: &mut Decoder, bytes: &[u8], arrives: EventTime) -> Result<bool, Reason> {
    let mut decoded = Decoded::default();
    decoder.decode_block(bytes, arrives, 0, &mut decoded);
    match (decoded.events.is_empty(), decoded.filtered.is_empty(), decoded.dead.first()) {
        (false, ..) => Ok(false),
        (true, false, _) => Ok(true),
        (true, true, Some((_, reason, _))) => Err(*reason),
        // Nothing but white space, which was no dead letter.
        (true, true, None) => Err(Reason::NotJson),
    }
}

/// Says which letters the input has again.
fn write_down(log: &dyn Log, replayed: &Replayed) -> Result<(), CommandError> {
    if replayed.ranges.is_empty() {
        return Ok(());
    }
    let value = serde_json::to_vec(replayed).map_err(|error| CommandError::Other(error.into()))?;
    log.append(DEAD_LETTERS_REPLAYED, 0, &[Record::new("", value)], now().0)?;
    Ok(())
}
