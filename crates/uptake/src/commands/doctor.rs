//! `uptake doctor`: looks at a deployment from outside, and says what to do about what it finds.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::iter::successors;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use uptake_connectors::log::Log;
use uptake_connectors::{TableError, archive, table};
use uptake_model::EventTime;
use uptake_serve::RULES;

use super::text::grouped;
use super::{CommandError, Configured, dead_letters, existing, existing_checkpoints, existing_log};
use crate::checkpoint::{InputPosition, Manifest};
use crate::config::Config;
use crate::data_dir::{DEAD_LETTERS, LATE, now, other_meaning};
use crate::outputs::with_causes;

/// A checkpoint that is older, while records wait to be read, is none of a run that goes on.
const STALE_MS: i64 = 2 * 60_000;
/// A clock that is further ahead is wrong.
const AHEAD_MS: i64 = 60_000;
/// With more of them than one in as many records something is wrong with the producers.
const ODD: u64 = 50;

/// Check a deployment: log, table, archive, checkpoints, lag, clocks, and what could not be used
///
/// Reads only, beside runs and servers that go on. Each line says how it is, and what to do where it is not well. Exit
/// code 1 if something is wrong; what is only to be looked at does not change it.
#[derive(Args, Debug)]
pub(super) struct Doctor {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print the findings as JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// How something is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Well,
    Look,
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    found: String,
    /// What to do, where it is not well.
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Well => "well",
            State::Look => "look",
            State::Wrong => "WRONG",
        };
        write!(f, "{state:<6} {:<12} {}", self.what, self.found)?;
        match &self.todo {
            Some(todo) => write!(f, "\n{:20}{todo}", ""),
            None => Ok(()),
        }
    }
}

/// What is found one after the other.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn well(&mut self, what: &'static str, found: impl Into<String>) {
        self.0.push(Finding { what, state: State::Well, found: found.into(), todo: None });
    }
    fn look(&mut self, what: &'static str, found: impl Into<String>, todo: impl Into<String>) {
        self.0.push(Finding { what, state: State::Look, found: found.into(), todo: Some(todo.into()) });
    }
    fn wrong(&mut self, what: &'static str, found: impl Into<String>, todo: impl Into<String>) {
        self.0.push(Finding { what, state: State::Wrong, found: found.into(), todo: Some(todo.into()) });
    }
    /// It could not be looked at. Where that is not ours to do, no other advice helps.
    fn failed(&mut self, what: &'static str, error: &(dyn Error + 'static), todo: &str) {
        let mut causes = successors(Some(error), |&error| error.source());
        let is_refused = causes.any(|error| {
            error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
        });
        let todo = if is_refused { "let this user read it, or ask as the one who runs uptake" } else { todo };
        self.wrong(what, with_causes(error), todo);
    }
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.configured.load()?;
        let mut found = Findings::default();
        let log = self.log(&config, &mut found);
        self.table(&config, &mut found)?;
        self.archive(&config, &mut found)?;
        let newest = self.checkpoints(&config, &mut found)?;
        if let (Some(log), Some(manifest)) = (&log, &newest) {
            reading(&**log, &config, manifest, &mut found);
            clocks(&**log, &config, manifest, &mut found);
            leftovers(&**log, manifest, &mut found);
        }
        if let Some(log) = &log {
            rules(&**log, &mut found);
        }
        serving(&config, &mut found);
        let mut out = std::io::stdout().lock();
        if self.json {
            let text = serde_json::to_string(&found.0).map_err(|error| CommandError::Other(error.into()))?;
            writeln!(out, "{text}")?;
        } else {
            found.0.iter().try_for_each(|finding| writeln!(out, "{finding}"))?;
        }
        out.flush()?;
        match found.0.iter().filter(|finding| finding.state == State::Wrong).count() {
            0 => Ok(()),
            n => Err(CommandError::Other(format!("{n} things are wrong; see above").into())),
        }
    }

    fn log(&self, config: &Config, found: &mut Findings) -> Option<Box<dyn Log>> {
        let log = match existing_log(&self.data, config) {
            Ok(log) => log,
            Err(error) => {
                found.failed(
                    "log",
                    &error,
                    "start `uptake run` or `uptake migrate` there, or correct --data and log.url",
                );
                return None;
            }
        };
        let mut records = 0;
        for topic in &config.input_topics {
            match size(&*log, topic) {
                Ok(n) => records += n,
                Err(error) => {
                    found.failed("log", &error, "`uptake migrate` makes the topics; input.topics names them");
                    return Some(log);
                }
            }
        }
        let (topics, at) = (config.input_topics.join(", "), config.places.log.backend(&self.data));
        match records {
            0 => found.look("log", format!("{at}: no record in {topics}"), "do producers write there?"),
            n => found.well("log", format!("{at}: {} records in {topics}", grouped(n))),
        }
        Some(log)
    }

    fn table(&self, config: &Config, found: &mut Findings) -> Result<(), CommandError> {
        let backend = existing(&self.data, &config.places.table)?;
        let table = match table::open_read_only(&backend, &config.places.cassandra) {
            Ok(table) => table,
            Err(error @ TableError::Missing { .. }) => {
                found.look("table", error.to_string(), "a run makes it, or `uptake migrate`");
                return Ok(());
            }
            Err(error) => {
                found.failed("table", &error, "correct table.url, or what it names");
                return Ok(());
            }
        };
        let read = table.segments().and_then(|segments| Ok((segments, other_meaning(&*table, config)?)));
        match read {
            Err(error) => found.failed(
                "table",
                &error,
                "see the error; the table can be made anew by `uptake backfill`",
            ),
            Ok((_, Some((stored, asked)))) => found.wrong(
                "table",
                format!("it holds tallies of another meaning ({stored}) than this configuration ({asked})"),
                "give the configuration of the run, or use another table",
            ),
            Ok((segments, None)) => {
                found.well("table", format!("{backend}: tallies of {} segments", segments.len()));
            }
        }
        Ok(())
    }

    fn archive(&self, config: &Config, found: &mut Findings) -> Result<(), CommandError> {
        let backend = existing(&self.data, &config.places.archive)?;
        let parts = archive::open(&backend, &config.places.s3).and_then(|archive| archive.parts());
        match parts {
            Ok(parts) => found.well("archive", format!("{backend}: {} objects", grouped(parts.len() as u64))),
            Err(error) => found.failed("archive", &error, "correct archive.url, or what it names"),
        }
        Ok(())
    }

    fn checkpoints(&self, config: &Config, found: &mut Findings) -> Result<Option<Manifest>, CommandError> {
        let backend = existing(&self.data, &config.places.checkpoints)?;
        let store = existing_checkpoints(&self.data, config, super::run::CLUSTER);
        let newest = match store.and_then(|store| Ok(store.newest()?)) {
            Ok(newest) => newest,
            Err(error) => {
                found.failed("checkpoints", &error, "correct checkpoint.url, or what it names");
                return Ok(None);
            }
        };
        newest.refused.iter().for_each(|line| {
            found.look("checkpoints", line.clone(), "it is passed over; its objects were damaged or deleted");
        });
        let Some((manifest, _)) = newest.checkpoint else {
            found.look("checkpoints", format!("{backend}: none yet"), "`uptake run` takes them");
            return Ok(None);
        };
        let bytes: u64 = manifest.segments.iter().map(|segment| segment.bytes).sum();
        let number = crate::checkpoint::Number(manifest.number);
        let age = ago(now().0 - manifest.created_ms);
        if manifest.ledger.balances() {
            let read = grouped(manifest.ledger.total().read);
            found.well(
                "checkpoints",
                format!(
                    "{number}, {age} old, {} KiB; its books balance: {read} records",
                    grouped(bytes >> 10)
                ),
            );
        } else {
            found.wrong(
                "checkpoints",
                "its books do not balance",
                "this is a defect of uptake; please report it with `uptake ledger`",
            );
        }
        Ok(Some(manifest))
    }
}

fn size(log: &dyn Log, topic: &str) -> Result<u64, uptake_connectors::LogError> {
    (0..log.partitions(topic)?)
        .map(|partition| {
            Ok(log.end_offset(topic, partition)?.saturating_sub(log.start_offset(topic, partition)?))
        })
        .sum()
}

/// How long, for people.
fn ago(ms: i64) -> String {
    match ms.max(0) / 1_000 {
        s if s < 120 => format!("{s} s"),
        s if s < 7_200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

/// Whether somebody reads, and how far behind.
fn reading(log: &dyn Log, config: &Config, manifest: &Manifest, found: &mut Findings) {
    let InputPosition::Log(read) = &manifest.input else {
        found.well("reading", "the newest checkpoint is of files");
        return;
    };
    let (mut lag, mut gone, mut back) = (0, 0, 0);
    for topic in &config.input_topics {
        let Ok(partitions) = log.partitions(topic) else { continue };
        for partition in 0..partitions {
            let of = |place: &&crate::checkpoint::PartitionPosition| {
                place.topic == *topic && place.partition == partition
            };
            let offset = read.iter().find(of).map_or(0, |place| place.offset);
            let end = log.end_offset(topic, partition).unwrap_or(offset);
            lag += end.saturating_sub(offset);
            back += offset.saturating_sub(end);
            gone += log.start_offset(topic, partition).unwrap_or(0).saturating_sub(offset);
        }
    }
    let age = now().0 - manifest.created_ms;
    if back > 0 {
        let words = format!("the log ends {} records before what was read of it", grouped(back));
        found.wrong(
            "reading",
            words,
            "it lost records, or a topic was made anew: start the run again, it goes on as input.on_gap says",
        );
    }
    if gone > 0 {
        let words = format!("{} records were deleted from the log before they were read", grouped(gone));
        found.wrong(
            "reading",
            words,
            "keep the log longer than a run may be away; `uptake backfill` from what still has them",
        );
    }
    match lag {
        0 => found.well("reading", "everything in the log was read"),
        n if age > STALE_MS => found.wrong(
            "reading",
            format!("{} records wait, and the newest checkpoint is {} old", grouped(n), ago(age)),
            "no run goes on: start `uptake run --supervise`, or look at what it says",
        ),
        n => found.well("reading", format!("{} records behind the newest checkpoint", grouped(n))),
    }
}

/// Whether the clocks of producers, log and this machine agree.
fn clocks(log: &dyn Log, config: &Config, manifest: &Manifest, found: &mut Findings) {
    let here = now();
    let mut newest = i64::MIN;
    for topic in &config.input_topics {
        for partition in 0..log.partitions(topic).unwrap_or(0) {
            let end = log.end_offset(topic, partition).unwrap_or(0);
            let last = end.checked_sub(1).and_then(|at| log.read(topic, partition, at, 1, 1 << 20).ok());
            newest = newest
                .max(last.into_iter().flatten().map(|record| record.appended_ms).max().unwrap_or(i64::MIN));
        }
    }
    let (by_log, by_events) = (newest.saturating_sub(here.0), manifest.watermark.0.saturating_sub(here.0));
    if by_log > AHEAD_MS {
        found.wrong(
            "clocks",
            format!("the newest record is {} ahead of this machine", ago(by_log)),
            "let all machines use NTP",
        );
    } else if by_events > AHEAD_MS {
        let words = format!("the watermark is {} ahead of this machine", ago(by_events));
        found.wrong(
            "clocks",
            words,
            "events from the future: let the producers use NTP, and lower events.future_max",
        );
    } else if newest == i64::MIN {
        found.well("clocks", "there is no record to judge them by");
    } else {
        let quiet = ago(here.0.saturating_sub(newest));
        let watermark = match manifest.watermark {
            EventTime::MIN => "no watermark yet".to_owned(),
            watermark => format!("the watermark is {watermark}"),
        };
        found.well("clocks", format!("the newest record is {quiet} old, {watermark}"));
    }
}

/// Dead letters and late events, against what was read.
fn leftovers(log: &dyn Log, manifest: &Manifest, found: &mut Findings) {
    let total = manifest.ledger.total();
    let again = dead_letters::replayed(log).unwrap_or(0);
    for (what, topic, n, again, todo) in [
        (
            "dead letters",
            DEAD_LETTERS,
            total.dead_sum(),
            again,
            "`uptake dead-letters list` says which; after a fix, `replay` them",
        ),
        (
            "late",
            LATE,
            total.late,
            0,
            "`uptake late list` says which; `uptake backfill` counts them; see join.lateness",
        ),
    ] {
        let kept = size(log, topic).unwrap_or(0);
        let mut words = format!(
            "{} of {} records; {} in the topic {topic}",
            grouped(n),
            grouped(total.read),
            grouped(kept)
        );
        if again > 0 {
            words.push_str(&format!(", {} of them appended again", grouped(again)));
        }
        if n.saturating_sub(again).saturating_mul(ODD) > total.read {
            found.look(what, words, todo);
        } else {
            found.well(what, words);
        }
    }
}

/// Whether people's rules were dropped with old records.
fn rules(log: &dyn Log, found: &mut Findings) {
    // No topic, no rules: a server makes it.
    let lost = log.start_offset(RULES, 0).unwrap_or(0);
    if lost > 0 {
        found.look(
            "rules",
            format!("the first {} records of the topic {RULES} were dropped: the rules in them hold no more", grouped(lost)),
            "let the topic keep its records (in Kafka retention.ms=-1 and retention.bytes=-1), and set those rules again",
        );
    }
}

/// Whether a server with this configuration lets in whom it should not.
fn serving(config: &Config, found: &mut Findings) {
    let serve = &config.serve;
    let host = serve.listen.rsplit_once(':').map_or("", |(host, _)| host);
    let is_loopback = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let is_own = is_loopback && serve.proxies == 0;
    let is_given = |variable: &str| std::env::var(variable).is_ok_and(|text| !text.trim().is_empty());
    let has_keys = serve.write_keys_file.is_some() || is_given("UPTAKE_WRITE_KEYS");
    let has_token = serve.admin_token_file.is_some() || is_given("UPTAKE_ADMIN_TOKEN");
    let senders = if has_keys { "with write keys" } else { "this machine only" };
    let admins = match (has_token, is_own) {
        (true, _) => "rules and operations with the admin token",
        (false, true) => {
            "rules and operations without a token, for this machine: with a proxy in front set UPTAKE_ADMIN_TOKEN"
        }
        (false, false) => "rules and operations closed, for there is no admin token",
    };
    if is_own || has_keys {
        found.well("serving", format!("on {}, {senders}; {admins}", serve.listen));
    } else {
        let words = format!(
            "serve.listen is {}{}, and anybody who reaches it may send events; {admins}",
            serve.listen,
            if is_loopback { " behind a proxy" } else { "" },
        );
        found.look(
            "serving",
            words,
            "set serve.write_keys_file, or keep it behind a proxy that asks who it is",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uptake_connectors::log::{MemoryLog, Record};

    #[test]
    fn rules_that_were_dropped_are_told() {
        let log = MemoryLog::new();
        let looked = || {
            let mut found = Findings::default();
            rules(&log, &mut found);
            found.0
        };
        assert!(looked().is_empty(), "no server was started");
        log.create_topic(RULES, 1).unwrap();
        log.append(RULES, 0, &[Record::new("r1", "{}"), Record::new("r2", "{}")], 0).unwrap();
        assert!(looked().is_empty());
        log.truncate_before(RULES, 0, 1).unwrap();
        assert!(looked()[0].found.contains("first 1 records"), "{:?}", looked());
    }
}
