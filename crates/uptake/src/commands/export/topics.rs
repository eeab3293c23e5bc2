//! `uptake export late`, `dead-letters` and `served-rows`: topics of the log, in files of ranges of their offsets.
//!
//! A file's name says which records it has, so the files say themselves where the next export goes on.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use uptake_connectors::LogError;
use uptake_connectors::log::{Log, Stored};
use uptake_connectors::sheet::Values;
use uptake_model::RequestId;
use uptake_serve::SERVED_ROWS;

use super::{Files, To, column};
use crate::commands::late::LateEvent;
use crate::commands::text::grouped;
use crate::commands::{CommandError, READ_BYTES, READ_RECORDS, existing_log};
use crate::data_dir::{self, DEAD_LETTERS, DataDirError, LATE};
use crate::outputs::notice;
use crate::stages::collect::DeadLetterKey;

/// A file has at most so many records, and so many bytes of them or those of one more read.
const FILE_RECORDS: usize = 1 << 18;
const FILE_BYTES: usize = 64 << 20;

/// Each export goes on where the files of the one before end. One at a time may write to a place: of two on several
/// machines both would begin there.
#[derive(Args, Debug)]
pub(in crate::commands) struct Topic {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    to: To,
}

/// A topic that can be exported.
pub(super) struct Exported {
    topic: &'static str,
    /// What its records are called.
    records: &'static str,
    /// Writes records as a file of this name; says how many of them are something else.
    write: fn(&mut Files, &str, &[Stored]) -> Result<u64, CommandError>,
}

/// What came too late.
pub(super) const LATE_EVENTS: Exported = Exported { topic: LATE, records: "late events", write: late };
/// What could not be used.
pub(super) const LETTERS: Exported =
    Exported { topic: DEAD_LETTERS, records: "dead letters", write: dead_letters };
/// What was served.
pub(super) const SERVED: Exported =
    Exported { topic: SERVED_ROWS, records: "served rows", write: served_rows };

impl Topic {
    pub(super) fn run(&self, exported: &Exported) -> Result<(), CommandError> {
        let config = self.to.configured.load()?;
        let mut files = Files::open(&self.to.to, exported.topic, &config, false)?;
        let log = existing_log(&self.data, &config)?;
        let _lock = data_dir::lock(&self.data, &format!("export-{}", exported.topic))?;
        let (mut others, mut dropped) = (0, 0);
        match log.partitions(exported.topic) {
            Ok(partitions) => {
                for partition in 0..partitions {
                    let (other, lost) = export(&*log, exported, partition, &mut files)?;
                    (others, dropped) = (others + other, dropped + lost);
                }
            }
            Err(LogError::UnknownTopic { .. }) => notice(&format!("the log has no topic {}", exported.topic)),
            Err(error) => return Err(error.into()),
        }
        if others > 0 {
            notice(&format!(
                "{} records of the topic {} are no {}; left out",
                grouped(others),
                exported.topic,
                exported.records
            ));
        }
        files.tell(
            &self.to,
            "are of another topic: name another place",
            &[("left_out", others.into()), ("dropped", dropped.into())],
        )
    }
}

/// Writes what a partition has behind what the files have; says how many records are something else, and how many the
/// log had dropped before.
fn export(
    log: &dyn Log,
    exported: &Exported,
    partition: u32,
    files: &mut Files,
) -> Result<(u64, u64), CommandError> {
    let topic = exported.topic;
    let folder = format!("partition={partition}/");
    let listed = files.objects.list(&folder).map_err(DataDirError::from)?;
    let next = listed.iter().filter_map(|file| last_offset(file.name.strip_prefix(&folder)?)).max();
    let next = next.map_or(0, |last| last + 1);
    let (start, end) = (log.start_offset(topic, partition)?, log.end_offset(topic, partition)?);
    if end < next {
        notice(&format!(
            "{topic}/{partition} ends at offset {end}, and the files have records up to {}: the topic was made anew; \
             export it to another place",
            next - 1
        ));
    }
    let dropped = start.saturating_sub(next);
    if dropped > 0 {
        let dropped = grouped(dropped);
        notice(&format!(
            "the log dropped {dropped} records of {topic}/{partition} before they were exported"
        ));
    }
    let (mut from, mut others) = (next.max(start), 0);
    while from < end {
        let (mut records, mut bytes, first) = (Vec::new(), 0, from);
        while from < end && records.len() < FILE_RECORDS && bytes < FILE_BYTES {
            let read =
                log.read(topic, partition, from, READ_RECORDS.min(FILE_RECORDS - records.len()), READ_BYTES)?;
            let Some(last) = read.last() else { break };
            from = last.offset + 1;
            bytes += read.iter().map(|record| record.key.len() + record.value.len()).sum::<usize>();
            records.extend(read);
        }
        // What is there did not come: the next export has it.
        let Some(last) = records.last() else { break };
        let name = format!("{folder}offsets-{first:020}-{:020}.parquet", last.offset);
        others += (exported.write)(files, &name, &records)?;
    }
    Ok((others, dropped))
}

/// The last offset that a file of this name has.
fn last_offset(name: &str) -> Option<u64> {
    let (_, last) = name.strip_prefix("offsets-")?.strip_suffix(".parquet")?.split_once('-')?;
    last.parse().ok()
}

/// An offset, which the log keeps below 2⁶³.
fn offset(record: &Stored) -> Option<i64> {
    i64::try_from(record.offset).ok()
}

fn late(files: &mut Files, name: &str, records: &[Stored]) -> Result<u64, CommandError> {
    let (mut events, mut dimensions) = (Vec::new(), Vec::new());
    for record in records {
        let Ok(event) = serde_json::from_slice::<LateEvent>(&record.value) else { continue };
        dimensions.push(serde_json::to_string(&event.dimensions).unwrap_or_default());
        events.push((record, event));
    }
    let columns = [
        column("offset", Values::Numbers(events.iter().map(|(record, _)| offset(record)).collect())),
        column("appended_at", Values::Times(events.iter().map(|(record, _)| record.appended_ms).collect())),
        column("request_id", Values::Ids(events.iter().map(|(_, event)| id(&event.request_id)).collect())),
        column("kind", Values::Texts(events.iter().map(|(_, event)| Some(event.kind.as_str())).collect())),
        column(
            "video_id",
            Values::Texts(events.iter().map(|(_, event)| event.video_id.as_deref()).collect()),
        ),
        column("timestamp", Values::Times(events.iter().map(|(_, event)| event.timestamp).collect())),
        column("age_ms", Values::Numbers(events.iter().map(|(_, event)| Some(event.age_ms)).collect())),
        column("dimensions", Values::Texts(dimensions.iter().map(|json| Some(json.as_str())).collect())),
    ];
    files.put(name, &columns, events.len())?;
    Ok((records.len() - events.len()) as u64)
}

/// A request's number, as the sets of tallies have it.
fn id(text: &str) -> u64 {
    RequestId::from_text(text.as_bytes()).0
}

fn dead_letters(files: &mut Files, name: &str, records: &[Stored]) -> Result<u64, CommandError> {
    let key = |record: &'_ Stored| serde_json::from_slice::<DeadLetterKey>(&record.key).ok();
    let letters: Vec<(&Stored, DeadLetterKey)> =
        records.iter().filter_map(|record| Some((record, key(record)?))).collect();
    let columns = [
        column("offset", Values::Numbers(letters.iter().map(|(record, _)| offset(record)).collect())),
        column("appended_at", Values::Times(letters.iter().map(|(record, _)| record.appended_ms).collect())),
        column("reason", Values::Texts(letters.iter().map(|(_, key)| Some(key.reason.name())).collect())),
        column("source", Values::Texts(letters.iter().map(|(_, key)| Some(key.source.as_str())).collect())),
        column(
            "source_partition",
            Values::Numbers(letters.iter().map(|(_, key)| Some(key.partition.into())).collect()),
        ),
        column(
            "source_offset",
            Values::Numbers(letters.iter().map(|(_, key)| i64::try_from(key.offset).ok()).collect()),
        ),
        column("bytes", Values::Bytes(letters.iter().map(|(record, _)| record.value.as_slice()).collect())),
    ];
    files.put(name, &columns, letters.len())?;
    Ok((records.len() - letters.len()) as u64)
}

/// A served row, as its topic has it.
#[derive(Deserialize)]
struct ServedRow {
    request_id: String,
    served_at: i64,
    row: String,
    segment: String,
    scorer: Option<String>,
    epoch: Option<i64>,
    items: Vec<Place>,
}

/// A place of a served row.
#[derive(Deserialize)]
struct Place {
    video_id: String,
    position: i64,
    score: Option<f64>,
    propensity: Option<f64>,
    #[serde(default)]
    pinned: bool,
    #[serde(default)]
    explored: bool,
}

fn served_rows(files: &mut Files, name: &str, records: &[Stored]) -> Result<u64, CommandError> {
    let row = |record: &'_ Stored| serde_json::from_slice::<ServedRow>(&record.value).ok();
    let rows: Vec<(&Stored, ServedRow)> =
        records.iter().filter_map(|record| Some((record, row(record)?))).collect();
    let places: Vec<(&Stored, &ServedRow, &Place)> = rows
        .iter()
        .flat_map(|(record, row)| row.items.iter().map(move |place| (*record, row, place)))
        .collect();
    let columns = [
        column("offset", Values::Numbers(places.iter().map(|(record, ..)| offset(record)).collect())),
        column("served_at", Values::Times(places.iter().map(|(_, row, _)| row.served_at).collect())),
        column("request_id", Values::Ids(places.iter().map(|(_, row, _)| id(&row.request_id)).collect())),
        column("row", Values::Texts(places.iter().map(|(_, row, _)| Some(row.row.as_str())).collect())),
        column(
            "segment",
            Values::Texts(places.iter().map(|(_, row, _)| Some(row.segment.as_str())).collect()),
        ),
        column("scorer", Values::Texts(places.iter().map(|(_, row, _)| row.scorer.as_deref()).collect())),
        column("epoch_number", Values::Numbers(places.iter().map(|(_, row, _)| row.epoch).collect())),
        column("position", Values::Numbers(places.iter().map(|(.., place)| Some(place.position)).collect())),
        column(
            "video_id",
            Values::Texts(places.iter().map(|(.., place)| Some(place.video_id.as_str())).collect()),
        ),
        column("score", Values::Reals(places.iter().map(|(.., place)| place.score).collect())),
        column("propensity", Values::Reals(places.iter().map(|(.., place)| place.propensity).collect())),
        column("pinned", Values::Flags(places.iter().map(|(.., place)| place.pinned).collect())),
        column("explored", Values::Flags(places.iter().map(|(.., place)| place.explored).collect())),
    ];
    files.put(name, &columns, places.len())?;
    Ok((records.len() - rows.len()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_where_the_next_one_begins() {
        let name = format!("offsets-{:020}-{:020}.parquet", 7, 1_234);
        assert_eq!(last_offset(&name), Some(1_234));
        for other in ["", "offsets-1.parquet", "offsets-1-x.parquet", "offsets-1-2.parquet.tmp", "notes.txt"]
        {
            assert_eq!(last_offset(other), None, "{other}");
        }
    }
}
