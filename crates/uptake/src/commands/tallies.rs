//! `uptake tallies`: the table as text.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;
use uptake_connectors::table::{self, Table};
use uptake_model::tally::TallyRow;
use uptake_model::{EpochLength, segment};

use super::text::{self, csv_field, grouped, percent};
use super::{CommandError, Configured};
use crate::data_dir::epoch_length;

/// Print the tallies of a segment.
#[derive(Args, Debug)]
pub(super) struct Tallies {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The segment, as country=BR,device=tv [default: everyone]. In ~members plays are the different members
    /// behind a title's plays, and impressions the requests of those; ~capped has the requests of which a cap cut plays
    #[arg(long, default_value = "", hide_default_value = true)]
    segment: String,
    /// For people, as CSV with the columns video_id,epoch,plays,impressions,exact, or as one JSON
    /// object a line
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

/// Opens a data directory's table to read, or the one elsewhere.
pub(super) fn open(data: &Path, configured: &Configured) -> Result<Box<dyn Table>, CommandError> {
    let config = configured.load()?;
    let places = &config.places;
    Ok(table::open_read_only(&places.table.backend(data), &places.cassandra)?)
}

/// The stored name of the segment that was asked for.
pub(super) fn stored_segment(table: &dyn Table, asked: &str) -> Result<String, CommandError> {
    if asked.trim().is_empty() {
        return Ok(String::new());
    }
    let segments = table.segments()?;
    let names = segments.iter().map(|name| &**name);
    segment::find(asked, names).map_err(|what| CommandError::Usage(format!("--segment {asked}: {what}")))
}

impl Tallies {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let source = open(&self.data, &self.configured)?;
        let segment = match self.segment.trim() {
            reserved @ (segment::MEMBERS | segment::CAPPED) => reserved.to_owned(),
            asked => stored_segment(&*source, asked)?,
        };
        let length = epoch_length(&*source)?;
        let mut out = BufWriter::new(std::io::stdout().lock());
        let mut printed = Ok(());
        let mut print = |row: TallyRow, each: &mut dyn FnMut(&TallyRow) -> std::io::Result<()>| {
            if printed.is_ok() {
                printed = each(&row);
            }
            Ok(())
        };
        match self.format {
            Format::Csv => {
                writeln!(out, "video_id,epoch,plays,impressions,exact")?;
                source.scan(&segment, &mut |row| print(row, &mut |row| csv(&mut out, row)))?;
            }
            Format::Json => {
                source.scan(&segment, &mut |row| print(row, &mut |row| json_line(&mut out, row, length)))?;
            }
            Format::Table => {
                let mut rows = Vec::new();
                source.scan(&segment, &mut |row| {
                    rows.push(cells(&row, length));
                    Ok(())
                })?;
                let header = ["video", "epoch", "from", "plays", "impressions", "take rate"];
                write!(out, "{}", text::table(&header, &rows))?;
            }
        }
        printed?;
        Ok(out.flush()?)
    }
}

fn csv(out: &mut impl Write, row: &TallyRow) -> std::io::Result<()> {
    let counts = row.counts;
    writeln!(
        out,
        "{},{},{},{},{}",
        csv_field(&row.video_id),
        row.epoch,
        counts.plays,
        counts.impressions,
        counts.exact
    )
}

fn json_line(out: &mut impl Write, row: &TallyRow, length: EpochLength) -> std::io::Result<()> {
    let line = json!({
        "video_id": row.video_id,
        "segment": row.segment,
        "epoch": row.epoch,
        "epoch_start": length.start(row.epoch).to_string(),
        "plays": row.counts.plays,
        "impressions": row.counts.impressions,
        "exact": row.counts.exact,
        "sealed": row.sealed,
    });
    writeln!(out, "{line}")
}

fn cells(row: &TallyRow, length: EpochLength) -> Vec<String> {
    // A number of a sketch is an estimate.
    let about = if row.counts.exact { "" } else { "~" };
    vec![
        row.video_id.to_string(),
        row.epoch.to_string(),
        when(length.start(row.epoch)),
        format!("{about}{}", grouped(row.counts.plays)),
        format!("{about}{}", grouped(row.counts.impressions)),
        percent(row.counts.plays, row.counts.impressions),
    ]
}

/// An instant to the minute, in UTC: `2026-01-15 09:30`.
pub(super) fn when(time: uptake_model::EventTime) -> String {
    time.to_string().chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}
