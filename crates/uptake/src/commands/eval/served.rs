//! `uptake eval served`: the draws of served rows, and what came of them.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, json};
use uptake_connectors::log::Log;
use uptake_model::decode::{Decoded, Decoder, Members};
use uptake_model::{EventTime, Kind, RequestId, VideoHash};
use uptake_serve::SERVED_ROWS;
use uptake_trends::eval::offpolicy::{Report, evaluate};
use uptake_trends::eval::served::{Candidate, Draw, JUDGED, samples};

use super::{To, html, name, rate};
use crate::commands::rows::{Row, tallies};
use crate::commands::tallies::{open, stored_segment};
use crate::commands::text::table;
use crate::commands::{CommandError, Configured, each_record, existing_log};
use crate::config::Config;
use crate::data_dir::epoch_length;

/// Judge other ways to choose by the places that served rows drew, with what was played
#[derive(Args, Debug)]
pub(super) struct Served {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Which row
    #[arg(long, value_enum, default_value_t = Row::Loved)]
    row: Row,
    /// The segment, as country=BR,device=tv [default: everyone]
    #[arg(long, default_value = "", hide_default_value = true)]
    segment: String,
    /// No weight counts more than this [default: no bound]
    #[arg(long, value_parser = super::positive)]
    clip: Option<f64>,
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    configured: Configured,
}

/// The confidence of the intervals.
const CONFIDENCE: f64 = 0.95;

/// What a record of served-rows says that is needed here.
#[derive(Deserialize)]
struct Record {
    request_id: String,
    served_at: i64,
    row: String,
    segment: String,
    items: Vec<Item>,
    /// The draw of the last place that was drawn, of the one before it, and so on.
    #[serde(default)]
    draws: Vec<Vec<Candidate>>,
}

#[derive(Deserialize)]
struct Item {
    video_id: Arc<str>,
    #[serde(default)]
    explored: bool,
}

impl Served {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.configured.load()?;
        let log = existing_log(&self.data, &config)?;
        let source = open(&self.data, &self.configured)?;
        let segment = stored_segment(&*source, &self.segment)?;
        let length = epoch_length(&*source)?;
        let rows: Vec<_> =
            tallies(&*source, &segment)?.into_iter().filter(|row| *row.segment == *segment).collect();
        let played = played(&*log, &config)?;
        let mut draws = Vec::new();
        let mut served = 0u64;
        each(&*log, SERVED_ROWS, &mut |value| {
            let Ok(record) = serde_json::from_slice::<Record>(value) else { return };
            if record.row != self.row.name().as_str() || record.segment != segment {
                return;
            }
            served += 1;
            let request = RequestId::from_text(record.request_id.as_bytes());
            let drawn = record.items.iter().rev().filter(|item| item.explored);
            for (item, candidates) in drawn.zip(record.draws) {
                let Some(shown) = candidates.iter().position(|one| one.video_id == item.video_id) else {
                    continue;
                };
                let is_played = played.contains(&(request, VideoHash::from_text(item.video_id.as_bytes())));
                let epoch = length.epoch(EventTime(record.served_at));
                draws.push(Draw { epoch, candidates, shown, is_played });
            }
        })?;
        let hours = length.ms() as f64 / 3_600_000.0;
        let judged = JUDGED.into_iter().filter_map(|ranking| {
            let samples = samples(&draws, ranking, &rows, hours);
            Some((name(ranking), evaluate(&samples, self.clip.unwrap_or(f64::INFINITY), CONFIDENCE)?))
        });
        let judged: Vec<(String, Report)> = judged.collect();
        self.print(served, draws.len(), &judged)
    }

    fn print(&self, served: u64, draws: usize, judged: &[(String, Report)]) -> Result<(), CommandError> {
        let note = format!("{served} rows were served, with {draws} places that were drawn; 95 % intervals.");
        let bar = |(name, report): &(String, Report)| html::Bar {
            name: name.clone(),
            value: report.dr.value,
            low: report.dr.low,
            high: report.dr.high,
        };
        let bars: Vec<html::Bar> = judged.iter().map(bar).collect();
        self.to.html("Plays per drawn place, doubly robust", &note, &bars)?;
        let mut out = std::io::stdout().lock();
        if self.to.json {
            let rankings: Map<_, _> =
                judged.iter().map(|(name, report)| (name.clone(), json!(report))).collect();
            writeln!(out, "{}", json!({ "served": served, "draws": draws, "rankings": rankings }))?;
            return Ok(());
        }
        writeln!(out, "{note}")?;
        if judged.is_empty() {
            writeln!(out, "nothing can be judged: rows of five and more draw places (rows.explore_rows)")?;
            return Ok(());
        }
        let cells: Vec<Vec<String>> = judged
            .iter()
            .map(|(name, r)| {
                let [ips, snips, dr] = [r.ips, r.snips, r.dr].map(|value| rate(value.value));
                let (low, high) = (rate(r.dr.low), rate(r.dr.high));
                vec![name.clone(), ips, snips, dr, low, high, format!("{:.1}", r.effective)]
            })
            .collect();
        let header = ["choice", "IPS", "SNIPS", "DR", "from", "to", "effective"];
        write!(out, "{}", table(&header, &cells))?;
        Ok(())
    }
}

/// Which requests played which videos.
fn played(log: &dyn Log, config: &Config) -> Result<HashSet<(RequestId, VideoHash)>, CommandError> {
    let mut decoder = Decoder::new(
        Arc::clone(&config.decode),
        &config.segments,
        &config.filters,
        config.epoch,
        Members::None,
    );
    let mut found = HashSet::new();
    for topic in &config.input_topics {
        each(log, topic, &mut |value| {
            let mut decoded = Decoded::default();
            decoder.decode_block(value, EventTime(i64::MAX / 2), 0, &mut decoded);
            let plays = decoded.events.iter().filter(|event| event.kind == Kind::Play);
            found.extend(plays.map(|event| (event.request, event.video)));
        })?;
    }
    Ok(found)
}

/// Shows the values of all records that a topic has now.
fn each(log: &dyn Log, topic: &str, see: &mut dyn FnMut(&[u8])) -> Result<(), CommandError> {
    let missing = |_| CommandError::Usage(format!("the log has no topic {topic}: nothing was served yet"));
    for partition in 0..log.partitions(topic).map_err(missing)? {
        each_record(log, topic, partition, &mut |record| see(record.value))?;
    }
    Ok(())
}
