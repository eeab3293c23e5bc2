//! `uptake eval served`: the draws of served rows, and what came of them.
//!
//! A draw counts when all its plays can be in the log: not before a horizon has passed, and not where the log has
//! dropped records that were appended after it.

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
use uptake_trends::eval::served::{Candidate, Draw, JUDGED, Samples, samples};

use super::{To, Value, html, name, rate};
use crate::commands::rows::{Row, tallies};
use crate::commands::tallies::{open, stored_segment};
use crate::commands::text::{percent, table};
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

/// What the log says of the draws.
#[derive(Default)]
struct Found {
    served: u64,
    draws: Vec<Draw>,
    /// Draws whose horizon is not over.
    too_young: u64,
    /// Draws of which plays may have been dropped.
    dropped: u64,
}

/// A way to choose, judged.
struct Judged {
    name: String,
    report: Report,
    /// Of how many draws its best candidate could not be drawn.
    unsupported: usize,
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
        let Plays { played, newest, kept_from } = plays(&*log, &config)?;
        let mut found = Found::default();
        each(&*log, SERVED_ROWS, &mut |seen| {
            let Ok(record) = serde_json::from_slice::<Record>(seen.value) else { return };
            if record.row != self.row.name().as_str() || record.segment != segment {
                return;
            }
            found.served += 1;
            let request = RequestId::from_text(record.request_id.as_bytes());
            let drawn = record.items.iter().rev().filter(|item| item.explored);
            for (item, candidates) in drawn.zip(record.draws) {
                let Some(shown) = candidates.iter().position(|one| one.video_id == item.video_id) else {
                    continue;
                };
                match EventTime(record.served_at) {
                    at if at > newest.minus(config.join.horizon_ms) => {
                        found.too_young += 1;
                        continue;
                    }
                    at if at < kept_from => {
                        found.dropped += 1;
                        continue;
                    }
                    _ => {}
                }
                let is_played = played.contains(&(request, VideoHash::from_text(item.video_id.as_bytes())));
                let epoch = length.epoch(EventTime(record.served_at));
                found.draws.push(Draw { epoch, candidates, shown, is_played });
            }
        })?;
        let judged = JUDGED.into_iter().filter_map(|ranking| {
            let Samples { samples, unsupported } = samples(&found.draws, ranking, &rows, length);
            let report = evaluate(&samples, self.clip.unwrap_or(f64::INFINITY), CONFIDENCE)?;
            Some(Judged { name: name(ranking), report, unsupported })
        });
        let judged: Vec<Judged> = judged.collect();
        self.print(&found, &judged)
    }

    fn print(&self, found: &Found, judged: &[Judged]) -> Result<(), CommandError> {
        let Found { served, draws, too_young, dropped } = found;
        let draws = draws.len();
        let note = format!(
            "{served} rows were served, with {draws} drawn places that can be judged ({too_young} are younger than \
             the horizon, of {dropped} the log has dropped plays); 95 % intervals."
        );
        let bar = |Judged { name, report, .. }: &Judged| {
            let Value { value, low, high, .. } = report.dr?;
            Some(html::Bar { name: name.clone(), value, low, high })
        };
        let bars: Vec<html::Bar> = judged.iter().filter_map(bar).collect();
        self.to.html("Plays per drawn place, doubly robust", &note, &bars)?;
        let mut out = std::io::stdout().lock();
        if self.to.json {
            let ranking = |Judged { name, report, unsupported }: &Judged| {
                let mut said = json!(report);
                said["unsupported"] = json!(unsupported);
                (name.clone(), said)
            };
            let rankings: Map<_, _> = judged.iter().map(ranking).collect();
            let said = json!({
                "served": served, "draws": draws, "too_young": too_young, "dropped": dropped, "rankings": rankings,
            });
            writeln!(out, "{said}")?;
            return Ok(());
        }
        writeln!(out, "{note}")?;
        if judged.is_empty() {
            writeln!(out, "nothing can be judged: rows of five and more draw places (rows.explore_rows)")?;
            return Ok(());
        }
        let cells: Vec<Vec<String>> = judged
            .iter()
            .map(|Judged { name, report: r, unsupported }| {
                let told = |number: Option<f64>| number.map_or_else(|| "–".to_owned(), rate);
                let [ips, snips, dr] = [r.ips, r.snips, r.dr].map(|value| told(value.map(|v| v.value)));
                let (low, high) = (told(r.dr.map(|v| v.low)), told(r.dr.map(|v| v.high)));
                let never = percent(*unsupported as u64, r.samples as u64);
                vec![name.clone(), ips, snips, dr, low, high, format!("{:.1}", r.effective), never]
            })
            .collect();
        let header = ["choice", "IPS", "SNIPS", "DR", "from", "to", "effective", "never drawn"];
        write!(out, "{}", table(&header, &cells))?;
        Ok(())
    }
}

/// The plays that the log has.
struct Plays {
    /// Which requests played which videos.
    played: HashSet<(RequestId, VideoHash)>,
    /// How far the events are.
    newest: EventTime,
    /// What was appended from here on is still in the log.
    kept_from: EventTime,
}

fn plays(log: &dyn Log, config: &Config) -> Result<Plays, CommandError> {
    let mut decoder = Decoder::new(
        Arc::clone(&config.decode),
        &config.segments,
        &config.filters,
        config.epoch,
        Members::None,
    );
    let mut found = Plays { played: HashSet::new(), newest: EventTime::MIN, kept_from: EventTime::MIN };
    for topic in &config.input_topics {
        each(log, topic, &mut |record| {
            // The first record that a partition still has, of those that it had.
            if record.is_first && record.offset > 0 {
                found.kept_from = found.kept_from.max(EventTime(record.appended_ms));
            }
            let mut decoded = Decoded::default();
            // As the pipeline does: a stamp far ahead of its arrival says nothing of how far the events are.
            decoder.decode_block(record.value, EventTime(record.appended_ms), 0, &mut decoded);
            for event in &decoded.events {
                found.newest = found.newest.max(event.time);
                if event.kind == Kind::Play {
                    found.played.insert((event.request, event.video));
                }
            }
        })?;
    }
    Ok(found)
}

/// A record of a topic.
struct Seen<'a> {
    value: &'a [u8],
    offset: u64,
    appended_ms: i64,
    /// Whether it is the oldest of its partition.
    is_first: bool,
}

/// Shows all records that a topic has now.
fn each(log: &dyn Log, topic: &str, see: &mut dyn FnMut(Seen<'_>)) -> Result<(), CommandError> {
    let missing = |_| CommandError::Usage(format!("the log has no topic {topic}: nothing was served yet"));
    for partition in 0..log.partitions(topic).map_err(missing)? {
        let mut is_first = true;
        each_record(log, topic, partition, &mut |record| {
            let (value, offset, appended_ms) = (record.value, record.offset, record.appended_ms);
            see(Seen { value, offset, appended_ms, is_first: std::mem::take(&mut is_first) });
        })?;
    }
    Ok(())
}
