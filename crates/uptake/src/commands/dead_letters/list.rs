//! `uptake dead-letters list`.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::Value;
use uptake_connectors::log::Log;
use uptake_model::{EventTime, Reason};

use super::super::text::{grouped, visible};
use super::{Letter, each_letter, reason};
use crate::commands::{CommandError, Configured, existing_log};

/// Print what could not be used: when, why, where it was read, and its bytes
#[derive(Args, Debug)]
pub(in crate::commands) struct List {
    /// The data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only those for this reason, as not-json
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<Reason>,
    /// Print one JSON object a line, for a script: bytes that are no text as bytes_base64
    #[arg(long)]
    json: bool,
    /// Print only the newest; all are counted
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    configured: Configured,
}

/// Where nobody says how wide the screen is.
const WIDTH: usize = 120;
/// Bytes of a record are shown at least so wide.
const BYTES_WIDTH_LEAST: usize = 30;

impl List {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let log = existing_log(&self.data, &self.configured.load()?)?;
        let width = console::Term::stdout().size_checked().map_or(WIDTH, |(_, columns)| columns.into());
        let mut counts: BTreeMap<Reason, u64> = BTreeMap::new();
        let mut replayed = 0;
        let mut lines = VecDeque::new();
        let mut out = BufWriter::new(std::io::stdout().lock());
        each_letter(&*log, &mut |letter| {
            if self.reason.is_some_and(|reason| reason != letter.key.reason) {
                return Ok(());
            }
            *counts.entry(letter.key.reason).or_default() += 1;
            replayed += u64::from(letter.replayed);
            if self.json && self.limit.is_none() {
                return Ok(writeln!(out, "{}", json(&letter))?);
            }
            lines.push_back(if self.json { vec![json(&letter).to_string()] } else { cells(&letter, width) });
            if self.limit.is_some_and(|limit| lines.len() > limit) {
                lines.pop_front();
            }
            Ok(())
        })?;
        if self.json {
            lines.iter().flatten().try_for_each(|line| writeln!(out, "{line}"))?;
            return Ok(out.flush()?);
        }
        print(&mut out, &lines, width)?;
        let total: u64 = counts.values().sum();
        let again = match replayed {
            0 => String::new(),
            n => format!(", {} of them appended to the input again", grouped(n)),
        };
        writeln!(out, "{} dead letters{again}", grouped(total))?;
        for (reason, n) in counts {
            writeln!(out, "{:>12}  {reason}", grouped(n))?;
        }
        Ok(out.flush()?)
    }
}

/// How many letters there are, by reason, and the newest of them.
pub(in crate::commands) fn newest(log: &dyn Log, limit: usize) -> Result<Value, CommandError> {
    let mut counts: BTreeMap<Reason, u64> = BTreeMap::new();
    let (mut replayed, mut letters) = (0u64, VecDeque::new());
    each_letter(log, &mut |letter| {
        *counts.entry(letter.key.reason).or_default() += 1;
        replayed += u64::from(letter.replayed);
        letters.push_back(letter);
        if letters.len() > limit {
            letters.pop_front();
        }
        Ok(())
    })?;
    let by_reason: serde_json::Map<_, _> =
        counts.iter().map(|(reason, n)| (reason.to_string(), (*n).into())).collect();
    let newest: Vec<Value> = letters.iter().rev().map(json).collect();
    let total = counts.values().sum::<u64>();
    Ok(
        serde_json::json!({ "letters": total, "replayed": replayed, "by_reason": by_reason, "newest": newest }),
    )
}

fn json(letter: &Letter) -> Value {
    let key = &letter.key;
    let mut line = serde_json::json!({
        "number": letter.number,
        "reason": key.reason,
        "source": key.source,
        "partition": key.partition,
        "offset": key.offset,
        "appended_ms": letter.appended_ms,
        "replayed": letter.replayed,
    });
    match std::str::from_utf8(&letter.bytes) {
        Ok(text) => line["bytes"] = text.into(),
        Err(_) => line["bytes_base64"] = STANDARD.encode(&letter.bytes).into(),
    }
    line
}

fn cells(letter: &Letter, width: usize) -> Vec<String> {
    let time: String = EventTime(letter.appended_ms).to_string().chars().take(19).collect();
    let key = &letter.key;
    let origin = visible(format!("{}/{}@{}", key.source, key.partition, key.offset).as_bytes(), usize::MAX);
    let bytes = visible(&letter.bytes, width);
    vec![letter.number.to_string(), time.replace('T', " "), key.reason.to_string(), origin, bytes]
}

/// A table of letters, the bytes cut to what is left of the width.
fn print(out: &mut impl Write, lines: &VecDeque<Vec<String>>, width: usize) -> std::io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let header = ["number", "time", "reason", "place"];
    let widest = |column: usize| {
        let cells = lines.iter().map(|cells| console::measure_text_width(&cells[column]));
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths = [0, 1, 2, 3].map(widest);
    let rest = width.saturating_sub(widths.iter().map(|w| w + 2).sum()).max(BYTES_WIDTH_LEAST);
    let mut line = |cells: [&str; 4], bytes: &str| {
        let [number, time, reason, place] = cells;
        let gap = " ".repeat(widths[3].saturating_sub(console::measure_text_width(place)));
        let bytes = console::truncate_str(bytes, rest, "…");
        writeln!(
            out,
            "{number:>0$}  {time:<1$}  {reason:<2$}  {place}{gap}  {bytes}",
            widths[0], widths[1], widths[2]
        )
    };
    line(header, "bytes")?;
    for cells in lines {
        line([&cells[0], &cells[1], &cells[2], &cells[3]], &cells[4])?;
    }
    writeln!(out)
}
