//! `uptake late`: what came too late to be joined, as the log keeps it.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;
use serde::Deserialize;
use uptake_model::ledger::Account;
use uptake_model::{Epoch, EventTime};

use super::ledger::{late_ages, late_by_age};
use super::tallies::{open, when};
use super::text::{grouped, table};
use super::{CommandError, Configured, each_record, existing_log};
use crate::data_dir::{LATE, epoch_length};
use crate::outputs::notice;

#[derive(Subcommand, Debug)]
pub(super) enum Late {
    /// Print how many events came too late, by their epoch and by how late they were
    ///
    /// Each event is counted once, also if it was kept twice around a crash. The age is how far
    /// behind the watermark the event was. `uptake backfill` counts them after all.
    List {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Print one JSON object a line for each epoch, for a script
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
}

/// What the log keeps of a late event.
#[derive(Deserialize)]
pub(super) struct LateEvent {
    pub(super) kind: String,
    pub(super) request_id: String,
    pub(super) video_id: Option<String>,
    pub(super) timestamp: i64,
    pub(super) age_ms: i64,
    #[serde(default)]
    pub(super) dimensions: BTreeMap<String, String>,
}

impl Late {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let Self::List { data, json, configured } = self;
        let config = configured.load()?;
        let log = existing_log(&data, &config)?;
        // Without a table nobody has said otherwise.
        let length = open(&data, &configured)
            .map_or_else(|_| Ok(Default::default()), |table| epoch_length(&*table))?;
        let mut epochs: BTreeMap<Epoch, Account> = BTreeMap::new();
        let (mut seen, mut others) = (HashSet::new(), 0u64);
        if log.partitions(LATE).is_ok() {
            each_record(&*log, LATE, 0, &mut |record| {
                let Ok(event) = serde_json::from_slice::<LateEvent>(record.value) else {
                    return others += 1;
                };
                let epoch = length.epoch(EventTime(event.timestamp));
                if seen.insert((event.kind, event.request_id, event.video_id, event.timestamp)) {
                    epochs.entry(epoch).or_default().add_late(event.age_ms);
                }
            })?;
        }
        if others > 0 {
            notice(&format!("{others} records of the topic {LATE} are no late events; left out"));
        }
        let mut out = std::io::stdout().lock();
        if json {
            for (&epoch, account) in &epochs {
                let line = serde_json::json!({
                    "epoch": epoch,
                    "epoch_start": length.start(epoch).to_string(),
                    "late": account.late,
                    "late_by_age": late_by_age(account),
                });
                writeln!(out, "{line}")?;
            }
            return Ok(out.flush()?);
        }
        let total: u64 = epochs.values().map(|account| account.late).sum();
        if total > 0 {
            let ages: Vec<String> = late_ages().collect();
            let header: Vec<&str> =
                ["epoch", "from", "late"].into_iter().chain(ages.iter().map(String::as_str)).collect();
            let row = |(&epoch, account): (&Epoch, &Account)| {
                let numbers = [account.late].into_iter().chain(account.late_by_age);
                let numbers = numbers.map(|n| if n == 0 { String::new() } else { grouped(n) });
                [epoch.to_string(), when(length.start(epoch))].into_iter().chain(numbers).collect()
            };
            let rows: Vec<Vec<String>> = epochs.iter().map(row).collect();
            writeln!(out, "{}", table(&header, &rows))?;
        }
        writeln!(out, "{} late events in {} epochs", grouped(total), grouped(epochs.len() as u64))?;
        Ok(out.flush()?)
    }
}
