//! `uptake top`: what was played most in an epoch.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use uptake_model::tally::TallyRow;
use uptake_model::{Epoch, EpochLength};

use super::tallies::{open, stored_segment, when};
use super::text::{grouped, percent, table};
use super::{CommandError, Configured};
use crate::data_dir::epoch_length;

/// Print the most played videos of an epoch.
#[derive(Args, Debug)]
pub(super) struct Top {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The segment, as country=BR,device=tv [default: everyone]
    #[arg(long, default_value = "", hide_default_value = true)]
    segment: String,
    /// The epoch's number [default: the latest one]
    #[arg(long, value_name = "E")]
    epoch: Option<i64>,
    /// How many videos
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    configured: Configured,
}

impl Top {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let source = open(&self.data, &self.configured)?;
        let segment = stored_segment(&*source, &self.segment)?;
        let length = epoch_length(&*source)?;
        let rows = source.top(&segment, self.epoch.map(Epoch), self.limit as usize)?;
        let mut out = std::io::stdout().lock();
        match rows.first() {
            None => writeln!(out, "no tallies in that epoch and segment")?,
            Some(first) => {
                writeln!(out, "{}", heading(first, length))?;
                write!(out, "{}", top_table(&rows))?;
            }
        }
        Ok(())
    }
}

/// Which epoch and segment a row is of.
pub(super) fn heading(row: &TallyRow, length: EpochLength) -> String {
    let (from, to) = (when(length.start(row.epoch)), when(length.end(row.epoch)));
    let who = if row.segment.is_empty() { "everyone" } else { &row.segment };
    format!("{from} to {} UTC (epoch {}), {who}", to.split(' ').next_back().unwrap_or_default(), row.epoch)
}

/// Rows by rank.
pub(super) fn top_table(rows: &[TallyRow]) -> String {
    let cells: Vec<Vec<String>> = (1..)
        .zip(rows)
        .map(|(rank, row)| {
            vec![
                format!("{rank:>3}  {}", row.video_id),
                grouped(row.counts.plays),
                grouped(row.counts.impressions),
                percent(row.counts.plays, row.counts.impressions),
            ]
        })
        .collect();
    table(&["     video", "plays", "impressions", "take rate"], &cells)
}
