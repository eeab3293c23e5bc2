//! `uptake erase`: what is kept of a member's requests leaves table and archive, and a report says what is left where.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;
use uptake_connectors::Backend;
use uptake_connectors::archive::{self, Archive};
use uptake_connectors::log::Log;
use uptake_connectors::table::{self, Table, without};
use uptake_model::decode::{Decoded, Decoder, Members};
use uptake_model::filter::Filters;
use uptake_model::segment::Segments;
use uptake_model::{EventTime, MemberHash, RequestId, TallyRow};
use uptake_serve::ids::Pseudonyms;
use uptake_serve::settings::member_key;

use super::text::grouped;
use super::{
    CommandError, Configured, each_record, existing, existing_checkpoints, existing_log, may_have_log,
};
use crate::config::Config;
use crate::data_dir::DEAD_LETTERS;
use crate::outputs::notice;
use crate::stages::search::requests_held;

/// Erase a member's requests from table and archive, and say what is left where
///
/// The requests are those under which the log has events of the member, and those that are given. In each stored set of
/// a sealed tally a number that nobody has takes the place of the request id: the numbers of plays and impressions stay,
/// and whoever writes the old row again does not bring it back. Runs and servers may go on beside it. What is not sealed
/// yet is told, with the time from which the same command erases it. Exports are copies that it does not look at. One of
/// --member and --request must be given. Exit code 1 if something is left in the state, the table or the archive.
#[derive(Args, Debug)]
pub(super) struct Erase {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The member id, as the page knows it or as the log has it; may be repeated
    #[arg(long = "member", value_name = "ID", required_unless_present = "requests")]
    members: Vec<String>,
    /// A request id, where the log no longer has the events; may be repeated
    #[arg(long = "request", value_name = "ID")]
    requests: Vec<String>,
    /// Only say what would be erased
    #[arg(long)]
    dry_run: bool,
    /// Which cluster's checkpoints
    #[arg(long, default_value = "main")]
    cluster: String,
    /// Print the report as JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// What was found, and what became of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    dry_run: bool,
    requests: usize,
    /// Records of the input's topics that are of the member.
    log_records: BTreeMap<String, u64>,
    /// Dead letters with the member's id in them.
    dead_letters: u64,
    /// Rows of the table that held one of the requests.
    table_rows: usize,
    /// Rows of the archive that did, and objects that were written anew.
    archive_rows: usize,
    archive_objects: usize,
    /// Rows that could not be changed.
    stuck: usize,
    /// Sealed rows whose sets are sketches, which hold no ids and cannot be asked.
    sketches: usize,
    /// Requests that the newest checkpoint still has, waiting or in tallies that are not sealed.
    in_state: usize,
    /// From when on the same command finds nothing of it there, in event time.
    state_until: Option<String>,
}

impl Erase {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.configured.load()?;
        self.is_there(&config)?;
        let (data, mut report) = (&*self.data, Report { dry_run: self.dry_run, ..Report::default() });
        let mut requests: BTreeSet<RequestId> =
            self.requests.iter().map(|id| RequestId::from_text(id.as_bytes())).collect();
        let mut newest = EventTime::MIN;
        if !self.members.is_empty() && may_have_log(data, &config)? {
            let names = names(data, &config, &self.members)?;
            let log = existing_log(data, &config)?;
            newest = of_members(&*log, &config, &names, &mut requests, &mut report)?;
        }
        report.requests = requests.len();
        let places = &config.places;
        let backend = existing(data, &places.table)?;
        let mut exchange = Exchange {
            requests: &requests,
            by_timestamp: matches!(backend, Backend::Cassandra { .. }),
            random: &mut random(),
        };
        let mut table = table::open(&backend, &places.cassandra)?;
        let mut archive = archive::open(&existing(data, &places.archive)?, &places.s3)?;
        let erased = erase_archived(&mut *archive, &mut exchange, self.dry_run, &mut report)?;
        erase_stored(&mut *table, &mut exchange, erased, self.dry_run, &mut report)?;
        self.look_at_state(&config, &requests, newest, &mut report)?;
        self.print(&report)?;
        match report.in_state + report.stuck {
            0 => Ok(()),
            _ if self.dry_run => Ok(()),
            left => Err(CommandError::Other(format!("{} are left, see above", grouped(left as u64)).into())),
        }
    }

    /// A mistyped directory would be said to hold nothing of the member.
    fn is_there(&self, config: &Config) -> Result<(), CommandError> {
        let (places, data) = (&config.places, &self.data);
        existing(data, &places.table)?;
        let stored = [(&places.table, table::FILE_NAME), (&places.archive, "tallies")];
        let is_stored = stored.iter().any(|(place, name)| !place.is_data() || data.join(name).exists());
        if !is_stored && !may_have_log(data, config)? {
            let said = format!("{} holds no log, table or archive: it is no data directory", data.display());
            return Err(CommandError::Usage(said));
        }
        Ok(())
    }

    /// What the newest checkpoint has of the requests.
    fn look_at_state(
        &self,
        config: &Config,
        requests: &BTreeSet<RequestId>,
        newest: EventTime,
        report: &mut Report,
    ) -> Result<(), CommandError> {
        let store = existing_checkpoints(&self.data, config, &self.cluster)?;
        let found = store.newest()?;
        found.refused.iter().for_each(|line| notice(line));
        let Some((_, segments)) = found.checkpoint else { return Ok(()) };
        report.in_state = requests_held(&segments, requests, config.tally)?.len();
        if report.in_state > 0 && newest > EventTime::MIN {
            let sealed = config.sealed_at(config.epoch.epoch(newest));
            report.state_until = Some(sealed.to_string());
        }
        Ok(())
    }

    fn print(&self, report: &Report) -> Result<(), CommandError> {
        let mut out = std::io::stdout().lock();
        if self.json {
            let text = serde_json::to_string(report).map_err(|e| CommandError::Other(e.into()))?;
            return Ok(writeln!(out, "{text}")?);
        }
        let n = |count: usize| grouped(count as u64);
        let done = if self.dry_run { "hold one of them" } else { "held one of them and hold none now" };
        writeln!(out, "{:<12} {}", "requests", n(report.requests))?;
        writeln!(out, "{:<12} {} rows {done}", "table", n(report.table_rows))?;
        let objects =
            if self.dry_run { String::new() } else { format!(", in {} objects", n(report.archive_objects)) };
        writeln!(out, "{:<12} {} rows {done}{objects}", "archive", n(report.archive_rows))?;
        if report.stuck > 0 {
            writeln!(
                out,
                "{:<12} {} rows are sketches in part and stay as they are",
                "left",
                n(report.stuck)
            )?;
        }
        if report.sketches > 0 {
            writeln!(
                out,
                "{:<12} {} rows hold hashes of a sample, and no ids",
                "sketches",
                n(report.sketches)
            )?;
        }
        match (report.in_state, &report.state_until) {
            (0, _) => writeln!(out, "{:<12} the newest checkpoint has none of them", "state")?,
            (left, until) => {
                let until =
                    until.as_ref().map(|until| format!(" about {until} (event time)")).unwrap_or_default();
                writeln!(
                    out,
                    "{:<12} {} wait or are in epochs that are not sealed: run this again when they are{until}, and \
                     {} checkpoints later",
                    "state",
                    n(left),
                    crate::checkpoint::ROUND
                )?;
            }
        }
        for (topic, records) in &report.log_records {
            writeln!(
                out,
                "{:<12} {} records in {topic}, until the log drops them",
                "log",
                grouped(*records)
            )?;
        }
        if report.dead_letters > 0 {
            writeln!(out, "{:<12} {} dead letters name the member", "log", grouped(report.dead_letters))?;
        }
        Ok(())
    }
}

/// The members' ids, and the pseudonyms that the collector gives them.
fn names(data: &Path, config: &Config, members: &[String]) -> Result<BTreeSet<String>, CommandError> {
    let key = member_key(&config.serve, &data.join("keys"));
    let key = key.map_err(|error| CommandError::Usage(error.to_string()))?;
    let pseudonyms = key.map(|key| Pseudonyms::new(&key));
    let own = members.iter().flat_map(|member| pseudonyms.as_ref().map(|all| all.of(member)));
    Ok(members.iter().cloned().chain(own).collect())
}

/// Adds the requests of the members' events; returns when the newest of them happened.
fn of_members(
    log: &dyn Log,
    config: &Config,
    names: &BTreeSet<String>,
    requests: &mut BTreeSet<RequestId>,
    report: &mut Report,
) -> Result<EventTime, CommandError> {
    let hashes: BTreeSet<MemberHash> =
        names.iter().map(|name| MemberHash::from_text(name.as_bytes())).collect();
    let (segments, nothing) = (Segments::default(), Filters::none());
    let mut decoder =
        Decoder::new(Arc::clone(&config.decode), &segments, &nothing, config.epoch, Members::All);
    let mut newest = EventTime::MIN;
    for topic in &config.input_topics {
        for partition in 0..log.partitions(topic)? {
            each_record(log, topic, partition, &mut |record| {
                let mut decoded = Decoded::default();
                decoder.decode_block(record.value, EventTime(i64::MAX / 2), 0, &mut decoded);
                let of_members = decoded.events.iter().filter(|event| hashes.contains(&event.member));
                let mut is_one = false;
                for event in of_members {
                    requests.insert(event.request);
                    newest = newest.max(event.time);
                    is_one = true;
                }
                if is_one {
                    *report.log_records.entry(topic.clone()).or_default() += 1;
                }
            })?;
        }
    }
    for partition in 0..log.partitions(DEAD_LETTERS).unwrap_or(0) {
        each_record(log, DEAD_LETTERS, partition, &mut |record| {
            let text = String::from_utf8_lossy(record.value);
            report.dead_letters += u64::from(names.iter().any(|name| text.contains(name.as_str())));
        })?;
    }
    Ok(newest)
}

/// Numbers that nobody can foretell: the keys of the hash are the system's random bytes.
fn random() -> impl FnMut() -> u64 {
    let state = RandomState::new();
    let mut drawn = 0u64;
    move || {
        drawn += 1;
        state.hash_one(drawn)
    }
}

/// How requests leave rows.
struct Exchange<'a> {
    requests: &'a BTreeSet<RequestId>,
    /// Whether the table is Cassandra.
    by_timestamp: bool,
    random: &'a mut dyn FnMut() -> u64,
}

impl Exchange<'_> {
    fn without(&mut self, row: &TallyRow) -> Option<TallyRow> {
        without(row, self.requests, self.by_timestamp, self.random)
    }
}

/// Whether some set of the row holds one of the requests, and whether one is a sketch.
fn holds(row: &TallyRow, requests: &BTreeSet<RequestId>) -> (bool, bool) {
    let Some(sets) = row.sets.as_deref() else { return (false, false) };
    let each = [&sets.played, &sets.shown].map(|set| set.contains_any(requests));
    (each.contains(&Some(true)), each.contains(&None))
}

/// Takes the requests out of the archive; returns the new rows, for the table to have the same.
fn erase_archived(
    archive: &mut dyn Archive,
    exchange: &mut Exchange<'_>,
    dry_run: bool,
    report: &mut Report,
) -> Result<Vec<TallyRow>, CommandError> {
    let mut erased = Vec::new();
    for info in archive.parts()? {
        let mut rows = archive.read_tallies(&info.part)?;
        let mut changed = false;
        for row in &mut rows {
            let (held, sketch) = holds(row, exchange.requests);
            report.sketches += usize::from(sketch);
            report.archive_rows += usize::from(held);
            if !held || dry_run {
                continue;
            }
            match exchange.without(row) {
                Some(new) => {
                    *row = new.clone();
                    erased.push(new);
                    changed = true;
                }
                None => report.stuck += 1,
            }
        }
        if changed {
            archive.replace_tallies(&info.part, &mut rows)?;
            report.archive_objects += 1;
        }
    }
    Ok(erased)
}

/// Takes the requests out of the table: the rows of the archive take the place of its own, and what is not in the
/// archive is changed alike.
fn erase_stored(
    table: &mut dyn Table,
    exchange: &mut Exchange<'_>,
    erased: Vec<TallyRow>,
    dry_run: bool,
    report: &mut Report,
) -> Result<(), CommandError> {
    let requests = exchange.requests;
    let mut found: BTreeSet<(Arc<str>, Arc<str>, i64)> = BTreeSet::new();
    let mut look = |table: &dyn Table| -> Result<Vec<TallyRow>, CommandError> {
        let mut rows: BTreeMap<(Arc<str>, Arc<str>, i64), TallyRow> = BTreeMap::new();
        for request in requests {
            for place in table.find_request(*request)?.into_iter().filter(|found| found.is_certain()) {
                let key = (place.video_id, place.segment, place.epoch.0);
                if !rows.contains_key(&key)
                    && let Some(row) = table.get(&key.0, &key.1, place.epoch)?
                {
                    found.insert(key.clone());
                    rows.insert(key, row);
                }
            }
        }
        Ok(rows.into_values().collect())
    };
    let stored = look(table)?;
    if dry_run {
        report.table_rows = stored.len();
        return Ok(());
    }
    table.write(&erased)?;
    // Another set than the archive's: of a run that began anew from an older checkpoint, or from a copy.
    let left = look(table)?;
    if !left.is_empty() {
        let own: Vec<TallyRow> = left.iter().filter_map(|row| exchange.without(row)).collect();
        table.write(&own)?;
        report.stuck += look(table)?.len();
    }
    report.table_rows = found.len();
    Ok(())
}
