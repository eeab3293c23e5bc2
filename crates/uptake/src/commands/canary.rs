//! `uptake canary`: a changed configuration beside the one that runs, and what would be different.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Record};
use uptake_connectors::table::{SqliteTable, Table};
use uptake_model::{EpochLength, segment};

use super::place::Place;
use super::rows::{Of, Row};
use super::tallies::{stored_segment, when};
use super::text::{self, grouped};
use super::{CommandError, Configured, READ_BYTES, READ_RECORDS, cannot, existing_log, ledger};
use crate::config::Config;
use crate::data_dir::{epoch_length, now};
use crate::outputs::notice;

/// Count the log with a changed configuration too, and say what would be different
///
/// Copies what the log has into two directories of its own, counts one with the configuration as it is and one with
/// the changes of --with, and compares tallies, rows and ledgers. Nothing is written where the live run writes, so it
/// may run beside it. What differs is no mistake by itself: it is what would change.
#[derive(Args, Debug)]
pub(super) struct Canary {
    /// Where the log is
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A changed setting, as join.kind=left; may be repeated
    #[arg(long = "with", value_name = "KEY=VALUE", required_unless_present = "with_config")]
    with: Vec<String>,
    /// The changed configuration as a file, in the place of --config
    #[arg(long, value_name = "FILE")]
    with_config: Option<PathBuf>,
    /// Of what arrived in the last 6h, say, alone [default: all that the log has]
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    since: Option<Duration>,
    /// The segment to compare, as country=BR,device=tv [default: everyone]
    #[arg(long, default_value = "", hide_default_value = true)]
    segment: String,
    /// How many places of the rows to compare
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    places: u32,
    /// Exit with 1 if more than so many percent of the tallies differ
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    differ_max: Option<u8>,
    /// Print JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// Both write into their own directory, wherever the live run does.
const OWN_PLACES: [&str; 4] = ["log.url=file:", "table.url=file:", "archive.url=file:", "checkpoint.url="];
/// The most differences that are listed.
const LISTED: usize = 20;
/// How often it is told how far copying is.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// One of the two.
struct Side {
    folder: PathBuf,
    configured: Configured,
    config: Config,
}

/// A row's name, and who has its places before and after.
type InRow = (&'static str, Vec<Arc<str>>, Vec<Arc<str>>);

/// Plays, impressions, and whether they are exact, by epoch and video.
type Counts = BTreeMap<(i64, Arc<str>), (u64, u64, bool)>;

impl Canary {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let live = self.configured.load()?;
        let mut changed = self.configured.clone();
        changed.config = self.with_config.clone().or(changed.config);
        changed.settings.extend(self.with.iter().cloned());
        let other = changed.load()?;
        if live.epoch != other.epoch {
            let message = "epoch.length: tallies of epochs of different length cannot be compared";
            return Err(CommandError::Usage(message.to_owned()));
        }
        for config in [&live, &other] {
            kept_segment(config, &self.segment)?;
        }
        let place = Place::new(None, "uptake-canary-")?;
        let own = place.own().map(Path::to_owned);
        ctrlc::set_handler(move || {
            own.iter().for_each(|path| drop(std::fs::remove_dir_all(path)));
            std::process::exit(130);
        })
        .map_err(|error| CommandError::Other(error.into()))?;
        let sides = [("as-it-is", &self.configured), ("changed", &changed)]
            .map(|(name, configured)| Side::new(place.path().join(name), configured));
        let sides = sides.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.copy(&live, &sides)?;
        for side in &sides {
            side.count()?;
        }
        let [before, after] = sides.as_slice() else { return Ok(()) };
        let found = self.compare(before, after)?;
        let mut out = std::io::stdout().lock();
        match self.json {
            true => writeln!(out, "{}", found.json())?,
            false => write!(out, "{}", found.text())?,
        }
        out.flush()?;
        match self.differ_max.filter(|&most| found.percent_differing() > f64::from(most)) {
            None => Ok(()),
            Some(most) => Err(CommandError::Other(
                format!("{:.1} % of the tallies differ, and {most} % may", found.percent_differing()).into(),
            )),
        }
    }

    /// Copies the input, record by record with the time of its arrival.
    fn copy(&self, live: &Config, sides: &[Side]) -> Result<(), CommandError> {
        let log = existing_log(&self.data, live)?;
        let logs = sides.iter().map(|side| EmbeddedLog::open(&side.folder, LogOptions::default()));
        let logs = logs.map(|opened| opened.map(|(log, _)| log)).collect::<Result<Vec<_>, _>>()?;
        let mut topics: Vec<&String> = sides.iter().flat_map(|side| &side.config.input_topics).collect();
        topics.sort_unstable();
        topics.dedup();
        let mut parts: Vec<(&String, u32, u64, u64)> = Vec::new();
        for topic in topics {
            let partitions = log.partitions(topic)?;
            logs.iter().try_for_each(|to| to.create_topic(topic, partitions))?;
            for partition in 0..partitions {
                let start = match self.since {
                    None => log.start_offset(topic, partition)?,
                    Some(since) => {
                        let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
                        log.offset_for_time(topic, partition, now().0.saturating_sub(since))?
                    }
                };
                parts.push((topic, partition, start, log.end_offset(topic, partition)?));
            }
        }
        let all: u64 = parts.iter().map(|(_, _, start, end)| end - start).sum();
        notice(&format!("copying {} records of the log", grouped(all)));
        let (mut copied, mut told) = (0, Instant::now());
        for (topic, partition, mut next, end) in parts {
            while next < end {
                // Those that arrived together are appended together, at the time they had.
                let mut groups: Vec<(i64, Vec<Record>)> = Vec::new();
                next = log.read_each(topic, partition, next, READ_RECORDS, READ_BYTES, &mut |record| {
                    if record.offset >= end {
                        return;
                    }
                    let copy = Record::new(record.key, record.value);
                    match groups.last_mut().filter(|(at, _)| *at == record.appended_ms) {
                        Some((_, group)) => group.push(copy),
                        None => groups.push((record.appended_ms, vec![copy])),
                    }
                })?;
                for (at, group) in &groups {
                    logs.iter().try_for_each(|to| to.append(topic, partition, group, *at).map(drop))?;
                    copied += group.len() as u64;
                }
                if told.elapsed() >= TELL_EVERY {
                    notice(&format!("copied {} of {} records", grouped(copied), grouped(all)));
                    told = Instant::now();
                }
            }
        }
        Ok(())
    }

    fn compare(&self, before: &Side, after: &Side) -> Result<Found, CommandError> {
        let tables = [before, after].map(|side| side.table());
        let [table_before, table_after] = tables;
        let (table_before, table_after) = (table_before?, table_after?);
        let length = epoch_length(&table_before)?;
        let counts = [self.counts(&table_before)?, self.counts(&table_after)?];
        let mut rows = Vec::new();
        for row in [Row::Popular, Row::Loved, Row::Trending] {
            let placed = |side: &Side| -> Result<Vec<Arc<str>>, CommandError> {
                let of = Of::new(&side.folder, &self.segment, &side.configured);
                let loaded = of.load(row.name())?;
                Ok(loaded.line(self.places as usize).map(|placed| Arc::clone(&placed.video)).collect())
            };
            rows.push((row.name().as_str(), placed(before)?, placed(after)?));
        }
        let ledgers = [before.ledger()?, after.ledger()?];
        Ok(Found::new(counts, rows, ledgers, length))
    }

    /// The tallies of the segment; none where nothing has it.
    fn counts(&self, table: &dyn Table) -> Result<Counts, CommandError> {
        let mut counts = Counts::new();
        table.scan(&stored_segment(table, &self.segment)?, &mut |row| {
            let of = (row.counts.plays, row.counts.impressions, row.counts.exact);
            counts.insert((row.epoch.0, row.video_id), of);
            Ok(())
        })?;
        Ok(counts)
    }
}

/// Whether runs with this configuration keep the segment, as far as can be said before one has.
fn kept_segment(config: &Config, asked: &str) -> Result<(), CommandError> {
    let found = segment::find(asked, config.segment_forms().iter().map(|name| &**name));
    found.map(drop).map_err(|what| CommandError::Usage(format!("--segment {asked}: {what}")))
}

impl Side {
    fn new(folder: PathBuf, configured: &Configured) -> Result<Self, CommandError> {
        let mut configured = configured.clone();
        configured.settings.extend(OWN_PLACES.map(str::to_owned));
        std::fs::create_dir_all(&folder).map_err(cannot("make", folder.display()))?;
        Ok(Self { config: configured.load()?, folder, configured })
    }

    /// Counts all of it, as a run of its own.
    fn count(&self) -> Result<(), CommandError> {
        let what = self.folder.file_name().unwrap_or_default().to_string_lossy().replace('-', " ");
        notice(&format!("counting with the configuration {what}"));
        let program = super::this_program()?;
        let mut command = Command::new(&program);
        command.args(["run", "--until-caught-up", "--data"]).arg(&self.folder);
        command.args(self.configured.arguments());
        let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
        match ended.map_err(cannot("start", program.display()))?.success() {
            true => Ok(()),
            false => {
                let message = format!("the run with the configuration {what} failed; see the line above");
                Err(CommandError::Other(message.into()))
            }
        }
    }

    fn table(&self) -> Result<SqliteTable, CommandError> {
        Ok(SqliteTable::open_read_only(&self.folder)?)
    }

    fn ledger(&self) -> Result<Value, CommandError> {
        let newest = ledger::newest(&self.folder, &self.config)?;
        super::balanced(&newest)?;
        Ok(ledger::json(&newest.total(), &self.config))
    }
}

/// A tally of which the two say something else; `None` where one of them has none.
struct Differing {
    epoch: i64,
    video: Arc<str>,
    before: Option<(u64, u64)>,
    after: Option<(u64, u64)>,
}

impl Differing {
    fn size(&self) -> u64 {
        let (before, after) = (self.before.unwrap_or_default(), self.after.unwrap_or_default());
        before.0.abs_diff(after.0) + before.1.abs_diff(after.1)
    }
}

/// What was found.
struct Found {
    equal: u64,
    /// The largest differences first.
    differing: Vec<Differing>,
    /// Plays and impressions in all, before and after.
    sums: [(u64, u64); 2],
    rows: Vec<InRow>,
    ledgers: [Value; 2],
    length: EpochLength,
}

/// The classes of a ledger.
const CLASSES: [&str; 9] =
    ["read", "counted", "waiting", "expired", "filtered", "dead", "duplicate", "late", "capped"];

impl Found {
    fn new(counts: [Counts; 2], rows: Vec<InRow>, ledgers: [Value; 2], length: EpochLength) -> Self {
        let [before, after] = counts;
        let sum =
            |counts: &Counts| counts.values().fold((0, 0), |(plays, shown), of| (plays + of.0, shown + of.1));
        let sums = [sum(&before), sum(&after)];
        let (mut equal, mut differing) = (0, Vec::new());
        let mut keys: Vec<&(i64, Arc<str>)> = before.keys().chain(after.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let (one, other) = (before.get(key), after.get(key));
            if one == other {
                equal += 1;
            } else {
                let of = |counts: Option<&(u64, u64, bool)>| counts.map(|of| (of.0, of.1));
                let (epoch, video) = (key.0, Arc::clone(&key.1));
                differing.push(Differing { epoch, video, before: of(one), after: of(other) });
            }
        }
        // A stable order: by size, then by epoch and video.
        differing.sort_by_key(|differing| std::cmp::Reverse(differing.size()));
        Self { equal, differing, sums, rows, ledgers, length }
    }

    fn percent_differing(&self) -> f64 {
        let differing = self.differing.len() as f64;
        100.0 * differing / (differing + self.equal as f64).max(1.0)
    }

    fn json(&self) -> Value {
        let differing = self.differing.iter().take(LISTED).map(|one| {
            json!({
                "video_id": one.video, "epoch": one.epoch,
                "before": one.before.map(|(plays, impressions)| json!({"plays": plays, "impressions": impressions})),
                "after": one.after.map(|(plays, impressions)| json!({"plays": plays, "impressions": impressions})),
            })
        });
        let rows = self
            .rows
            .iter()
            .map(|(name, before, after)| json!({"row": name, "before": before, "after": after}));
        let [(plays, impressions), (plays_after, impressions_after)] = self.sums;
        json!({
            "equal": self.equal, "differing": self.differing.len(), "percent_differing": self.percent_differing(),
            "plays": [plays, plays_after], "impressions": [impressions, impressions_after],
            "largest": differing.collect::<Vec<_>>(), "rows": rows.collect::<Vec<_>>(),
            "ledger": {"before": self.ledgers[0], "after": self.ledgers[1]},
        })
    }

    fn text(&self) -> String {
        let change = |before: u64, after: u64| match after.cmp(&before) {
            std::cmp::Ordering::Equal => String::new(),
            std::cmp::Ordering::Greater => format!("+{}", grouped(after - before)),
            std::cmp::Ordering::Less => format!("-{}", grouped(before - after)),
        };
        let line = |name: &str, before: u64, after: u64| {
            vec![name.to_owned(), grouped(before), grouped(after), change(before, after)]
        };
        let class = |side: usize, name: &str| self.ledgers[side][name].as_u64().unwrap_or_default();
        let mut lines: Vec<Vec<String>> =
            CLASSES.iter().map(|name| line(name, class(0, name), class(1, name))).collect();
        let [before, after] = self.sums;
        lines.push(line("plays", before.0, after.0));
        lines.push(line("impressions", before.1, after.1));
        let mut text = text::table(&["", "as it is", "changed", ""], &lines);
        let all = self.equal + self.differing.len() as u64;
        let (differing, percent) = (grouped(self.differing.len() as u64), self.percent_differing());
        text.push_str(&format!("\n{differing} of {} tallies differ ({percent:.1} %)\n", grouped(all)));
        if !self.differing.is_empty() {
            let of = |counts: Option<(u64, u64)>| {
                counts.map_or("none".to_owned(), |(plays, shown)| {
                    format!("{}/{}", grouped(plays), grouped(shown))
                })
            };
            let lines: Vec<Vec<String>> = self
                .differing
                .iter()
                .take(LISTED)
                .map(|one| {
                    let from = when(self.length.start(uptake_model::Epoch(one.epoch)));
                    vec![one.video.to_string(), from, of(one.before), of(one.after)]
                })
                .collect();
            text.push('\n');
            text.push_str(&text::table(&["video", "from", "plays/impressions", "changed"], &lines));
            if self.differing.len() > LISTED {
                text.push_str(&format!("and {} more\n", grouped((self.differing.len() - LISTED) as u64)));
            }
        }
        for (name, before, after) in &self.rows {
            text.push_str(&format!("\n{name}: {}\n", moves(before, after)));
        }
        text
    }
}

/// What is different between two rows, in words.
fn moves(before: &[Arc<str>], after: &[Arc<str>]) -> String {
    let places: HashMap<&Arc<str>, usize> = before.iter().zip(1..).collect();
    let mut said = Vec::new();
    for (video, place) in after.iter().zip(1..) {
        match places.get(video) {
            None => said.push(format!("{video} comes in at {place}")),
            Some(&was) if was != place => said.push(format!("{video} {was} → {place}")),
            Some(_) => {}
        }
    }
    said.extend(before.iter().filter(|video| !after.contains(video)).map(|video| format!("{video} leaves")));
    match (said.is_empty(), before.len()) {
        (true, 0) => "empty, as it was".to_owned(),
        (true, places) => format!("the same {places} places"),
        (false, _) => said.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_different_between_two_rows() {
        let row = |names: &str| names.split_whitespace().map(Arc::from).collect::<Vec<Arc<str>>>();
        assert_eq!(moves(&row("a b c"), &row("a b c")), "the same 3 places");
        assert_eq!(moves(&[], &[]), "empty, as it was");
        assert_eq!(moves(&row("a b c"), &row("b d a")), "b 2 → 1, d comes in at 2, a 1 → 3, c leaves");
    }
}
