//! `uptake ledger`: what became of every record that was read, as of the last checkpoint.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use uptake_model::Reason;
use uptake_model::join::JoinKind;
use uptake_model::ledger::{Account, LATE_AGE_HOURS, Ledger};

use super::replay::LAST_REPLAY;
use super::text::grouped;
use super::{CommandError, Configured, balanced, existing_checkpoints};
use crate::checkpoint::{InputPosition, Manifest, Number, Stats};
use crate::config::Config;

/// Print what became of every record that was read, as of the last checkpoint
#[derive(Args, Debug)]
pub(super) struct LedgerOf {
    /// Where the checkpoints are
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The cluster whose books to print [default: the last of the main cluster's run and replays]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Each partition of the input by itself
    #[arg(long)]
    partitions: bool,
    /// Print JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// What is said where no checkpoint is.
fn no_books(place: &impl std::fmt::Display) -> String {
    format!(
        "{place} has no books yet: nothing was run there, or the run's first checkpoint is still to come \
         (checkpoint.interval)"
    )
}

/// The books of the newest checkpoint of the main cluster.
pub(super) fn newest(data: &Path, config: &Config) -> Result<Ledger, CommandError> {
    let newest = existing_checkpoints(data, config, super::run::CLUSTER)?.newest()?;
    let (manifest, _) =
        newest.checkpoint.ok_or_else(|| CommandError::Other(no_books(&data.display()).into()))?;
    Ok(manifest.ledger)
}

impl LedgerOf {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.configured.load()?;
        let backend = super::existing(&self.data, &config.places.checkpoints)?;
        let clusters = match &self.cluster {
            Some(cluster) => vec![cluster.as_str()],
            None => vec![super::run::CLUSTER, LAST_REPLAY],
        };
        let mut found: Vec<(&str, Manifest)> = Vec::new();
        for cluster in clusters {
            let newest = existing_checkpoints(&self.data, &config, cluster)?.newest()?;
            newest.refused.iter().for_each(|line| crate::outputs::notice(line));
            found.extend(newest.checkpoint.map(|(manifest, _)| (cluster, manifest)));
        }
        let Some((cluster, manifest)) = found.into_iter().max_by_key(|(_, m)| m.created_ms) else {
            let data = crate::data_dir::shown(&backend);
            return Err(CommandError::Other(match &self.cluster {
                Some(cluster) => format!("{data} has no checkpoint of cluster {cluster}").into(),
                None => no_books(&data).into(),
            }));
        };
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", self.as_json(&manifest, &config))?;
        } else {
            self.as_text(&mut out, cluster, &manifest, &config)?;
        }
        balanced(&manifest.ledger)
    }

    fn as_json(&self, manifest: &Manifest, config: &Config) -> serde_json::Value {
        let mut printed = json(&manifest.ledger.total(), config);
        printed["balances"] = manifest.ledger.balances().into();
        printed["checkpoint"] = Number(manifest.number).to_string().into();
        printed["created_ms"] = manifest.created_ms.into();
        printed["watermark_ms"] = manifest.watermark.0.into();
        if let (true, InputPosition::Log(partitions)) = (self.partitions, &manifest.input) {
            let accounts = manifest.ledger.accounts();
            let list = partitions.iter().enumerate().map(|(number, position)| {
                let mut one = json(accounts.get(number).unwrap_or(&Account::default()), config);
                one["topic"] = position.topic.as_str().into();
                one["partition"] = position.partition.into();
                one["offset"] = position.offset.into();
                one
            });
            printed["partitions"] = list.collect::<Vec<_>>().into();
        }
        printed
    }

    fn as_text(
        &self,
        out: &mut impl Write,
        cluster: &str,
        manifest: &Manifest,
        config: &Config,
    ) -> std::io::Result<()> {
        let at =
            jiff::Timestamp::from_millisecond(manifest.created_ms).map_or(String::new(), |t| t.to_string());
        if cluster == LAST_REPLAY {
            writeln!(out, "the replay that ended at {at}\n")?;
        } else {
            writeln!(out, "cluster {cluster}, checkpoint {} of {at}\n", Number(manifest.number))?;
        }
        if let (true, InputPosition::Log(partitions)) = (self.partitions, &manifest.input) {
            for (number, position) in partitions.iter().enumerate() {
                let account = manifest.ledger.accounts().get(number).cloned().unwrap_or_default();
                writeln!(
                    out,
                    "{}/{} up to offset {}",
                    position.topic,
                    position.partition,
                    grouped(position.offset)
                )?;
                writeln!(out, "{}", text(&account, config))?;
            }
        }
        write!(out, "{}", text(&manifest.ledger.total(), config))
    }
}

/// The ledger for people.
pub(super) fn text(total: &Account, config: &Config) -> String {
    text_with(total, config, "could not be used; kept in the log's topic dead-letters")
}

/// The same, with another note on what could not be used.
pub(super) fn text_with(total: &Account, config: &Config, dead: &str) -> String {
    let mut rows: Vec<(String, u64, String)> = vec![
        ("read".into(), total.read, "records".into()),
        ("  counted".into(), total.counted, "joined, and in the tallies".into()),
        ("  waiting".into(), total.waiting, "for the other half of their request".into()),
        ("  expired".into(), total.expired, expired_note(total, config)),
        ("  filtered".into(), total.filtered_sum(), String::new()),
    ];
    for (rule, &n) in total.filtered.iter().enumerate().filter(|(_, n)| **n > 0) {
        rows.push((String::new(), n, format!("by {}", config.filters.text(rule))));
    }
    rows.push(("  dead".into(), total.dead_sum(), dead.into()));
    for (reason, &n) in Reason::ALL.iter().zip(&total.dead).filter(|(_, n)| **n > 0) {
        rows.push((String::new(), n, reason.to_string()));
    }
    rows.push(("  duplicate".into(), total.duplicate, "delivered again".into()));
    rows.push(("  late".into(), total.late, "too late to be joined; kept in the log's topic late".into()));
    rows.push(("  capped".into(), total.capped, "over the cap of their request or member".into()));
    if total.gap > 0 {
        rows.push(("  gap".into(), total.gap, "dropped by the log before they were read".into()));
    }
    let width = rows.iter().map(|(_, n, _)| grouped(*n).len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, n, note) in rows {
        let n = grouped(n);
        // A part of a number stands behind it, indented.
        let line = if name.is_empty() {
            format!("{:12} {:>width$}    {n} {note}", "", "")
        } else {
            format!("{name:12} {n:>width$}  {note}")
        };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let balance = if total.balances() { "every record is accounted for" } else { "DOES NOT BALANCE" };
    text.push_str(&format!("{balance}\n"));
    text
}

fn expired_note(total: &Account, config: &Config) -> String {
    let plays = grouped(total.expired_plays);
    let plays = match (total.expired_plays, config.join.kind) {
        (0, _) => String::new(),
        (_, JoinKind::Left) => format!("; {plays} organic plays"),
        (_, JoinKind::Inner) => format!("; {plays} of them plays"),
    };
    format!("their request never brought its other half{plays}")
}

/// The ledger for scripts.
pub(super) fn json(total: &Account, config: &Config) -> serde_json::Value {
    let filtered: serde_json::Map<_, _> = (total.filtered.iter().enumerate())
        .map(|(rule, n)| (config.filters.text(rule).to_owned(), serde_json::json!(n)))
        .collect();
    let dead: serde_json::Map<_, _> = Reason::ALL
        .iter()
        .zip(&total.dead)
        .filter(|(_, n)| **n > 0)
        .map(|(r, n)| (r.to_string(), serde_json::json!(n)))
        .collect();
    serde_json::json!({
        "read": total.read,
        "counted": total.counted,
        "waiting": total.waiting,
        "expired": total.expired,
        "expired_plays": total.expired_plays,
        "organic": if config.join.kind == JoinKind::Left { total.expired_plays } else { 0 },
        "filtered": total.filtered_sum(),
        "filtered_by_rule": filtered,
        "dead": total.dead_sum(),
        "dead_by_reason": dead,
        "duplicate": total.duplicate,
        "late": total.late,
        "late_by_age": late_by_age(total),
        "capped": total.capped,
        "gap": total.gap,
        "blank": total.blank,
        "balances": total.balances(),
    })
}

/// What the checkpoints of a run took, for scripts.
pub(super) fn checkpoints_json(taken: Stats) -> serde_json::Value {
    serde_json::json!({
        "taken": taken.taken,
        "bytes": taken.bytes,
        "longest_ms": taken.longest.as_millis() as u64,
        "longest_stall_ms": taken.longest_stall.as_secs_f64() * 1e3,
    })
}

/// The names of the age classes of late events: `0-1h`, `1-3h` and so on to `24h-`.
pub(super) fn late_ages() -> impl Iterator<Item = String> {
    let from = [0].into_iter().chain(LATE_AGE_HOURS);
    let to = LATE_AGE_HOURS.into_iter().map(Some).chain([None]);
    from.zip(to).map(|(from, to)| to.map_or(format!("{from}h-"), |to| format!("{from}-{to}h")))
}

/// The late events of an account by age, for scripts.
pub(super) fn late_by_age(account: &Account) -> serde_json::Value {
    late_ages().zip(&account.late_by_age).map(|(age, n)| (age, serde_json::json!(n))).collect()
}
