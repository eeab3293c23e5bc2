//! `uptake explain`: down to the request ids.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;
use uptake_connectors::table::Table;
use uptake_model::tally::RequestSet;
use uptake_model::{Epoch, RequestId};

use super::tallies::{open, stored_segment, when};
use super::text::{grouped, percent, table};
use super::top::heading;
use super::{CommandError, Configured};
use crate::data_dir::epoch_length;

#[derive(Subcommand, Debug)]
pub(super) enum Explain {
    /// In which tallies a request counts
    Request {
        /// The request id, as it came in the events
        id: String,
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        #[command(flatten)]
        configured: Configured,
    },
    /// Which requests make up the tally of a video in an epoch
    Video {
        /// The video id, as it came in the events
        id: String,
        /// The epoch's number
        #[arg(long, value_name = "E")]
        epoch: i64,
        /// The segment, as country=BR,device=tv [default: everyone]
        #[arg(long, default_value = "", hide_default_value = true)]
        segment: String,
        /// How many request ids to print of each set
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        #[command(flatten)]
        configured: Configured,
    },
}

impl Explain {
    pub(super) fn run(self) -> Result<(), CommandError> {
        match self {
            Self::Request { id, data, configured } => request(&id, &*open(&data, &configured)?),
            Self::Video { id, epoch, segment, limit, data, configured } => {
                video(&id, Epoch(epoch), &segment, limit, &*open(&data, &configured)?)
            }
        }
    }
}

fn request(id: &str, source: &dyn Table) -> Result<(), CommandError> {
    let length = epoch_length(source)?;
    let request = RequestId::from_text(id.as_bytes());
    let found = source.find_request(request)?;
    let mut out = std::io::stdout().lock();
    let (certain, possible): (Vec<_>, Vec<_>) = found.into_iter().partition(|f| f.is_certain());
    if request.to_string() != id {
        writeln!(out, "request {id} is kept as {request}")?;
    }
    if certain.is_empty() {
        writeln!(
            out,
            "request {id} counts in no sealed tally. Either none of its events were read, or it had no \
             event of the other kind within the horizon, or its epochs are not sealed yet"
        )?;
    } else {
        writeln!(out, "request {id} counts in {} tallies:", certain.len())?;
        let yes = |known: Option<bool>| known.map_or("?", |yes| if yes { "yes" } else { "" }).to_owned();
        let rows: Vec<Vec<String>> = certain
            .iter()
            .map(|f| {
                let segment =
                    if f.segment.is_empty() { "everyone".to_owned() } else { f.segment.to_string() };
                let from = when(length.start(f.epoch));
                vec![f.video_id.to_string(), segment, f.epoch.to_string(), from, yes(f.shown), yes(f.played)]
            })
            .collect();
        write!(out, "{}", table(&["video", "segment", "epoch", "from", "shown", "played"], &rows))?;
    }
    if !possible.is_empty() {
        writeln!(out, "{} tallies are sketches, which cannot be asked for a request", possible.len())?;
    }
    Ok(())
}

fn video(
    id: &str,
    epoch: Epoch,
    segment: &str,
    limit: usize,
    source: &dyn Table,
) -> Result<(), CommandError> {
    let length = epoch_length(source)?;
    let segment = stored_segment(source, segment)?;
    let mut out = std::io::stdout().lock();
    let Some(row) = source.get(id, &segment, epoch)? else {
        let epochs: Vec<String> = source.video(id, &segment)?.iter().map(|r| r.epoch.to_string()).collect();
        let hint = match epochs.len() {
            0 => "it has none in any epoch: none of its events counted".to_owned(),
            _ => format!("it has tallies in the epochs {}", epochs.join(" ")),
        };
        writeln!(out, "{id} has no tally in epoch {epoch}; {hint}")?;
        return Ok(());
    };
    let counts = row.counts;
    writeln!(out, "{id}, {}", heading(&row, length))?;
    writeln!(
        out,
        "played by {} of {} requests that were shown it ({}){}",
        grouped(counts.plays),
        grouped(counts.impressions),
        percent(counts.plays, counts.impressions),
        if counts.exact { "" } else { ", estimated by a sketch" },
    )?;
    let Some(sets) = row.sets else {
        writeln!(out, "the epoch is not sealed yet; the requests are stored when it is")?;
        return Ok(());
    };
    for (name, set) in [("played", &sets.played), ("shown", &sets.shown)] {
        match set {
            RequestSet::Exact(ids) => {
                let shown: Vec<String> =
                    ids.iter().take(limit).map(|&id| RequestId(id).to_string()).collect();
                let more = ids.len() - shown.len();
                let more =
                    if more > 0 { format!(" and {} more", grouped(more as u64)) } else { String::new() };
                writeln!(out, "{name}: {}{more}", shown.join(" "))?;
            }
            RequestSet::Sketch(bytes) => {
                writeln!(out, "{name}: a sketch of {} bytes, which holds no ids", bytes.len())?;
            }
        }
    }
    Ok(())
}
