//! State four times as large as memory may be: what it costs that requests wait on disk.

use std::fs;

use super::measure::{Run, run};
use super::recovery::{IMPRESSIONS, Requests};
use super::report::{SpillReport, Spread};
use super::{Fresh, replay, tallies};
use crate::error::{Error, Result};
use crate::workspace::Workspace;

/// With their impressions 99 million events, in 14 GB.
const REQUESTS: u64 = 5_500_000;
/// Every so many-th request is played, when a quarter of all have come after it.
const PLAYED: u64 = 100;
/// State is so many times as large as memory may be.
const TIMES: u64 = 4;
/// Runs take minutes, and are long enough for few of them to agree.
const RUNS_MAX: u32 = 3;

/// In memory, with a budget, and the budget in bytes: what each took, and its longest stall in milliseconds.
type Pair = ((Run, f64), (Run, f64), f64);

/// Measures with one worker, on files in `target/bench/spill`, which take 16 GB there.
///
/// # Errors
/// A program fails, the device is full, nothing was spilled, or the two do not have the same table.
pub(super) fn measure(workspace: &Workspace, runs: u32) -> Result<SpillReport> {
    let folder = Fresh::new(workspace.target.join("bench/spill"))?;
    let folder = &folder.0;
    fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
    let input = folder.join("events.jsonl");
    eprintln!("spill: {REQUESTS} requests");
    let requests = Requests { in_all: REQUESTS, played: Some(PLAYED) };
    requests.write(&input, 0..REQUESTS).map_err(Error::io("write", &input))?;
    // What it took, and the longest that a checkpoint held a worker up, in milliseconds.
    let measured = |name: &str, budget: &str| -> Result<(Run, f64)> {
        let data = Fresh::new(folder.join("data"))?;
        let mut command = replay(workspace, &input, &data.0, 1);
        command.args(["--json", "--set", &format!("memory.bytes_max={budget}")]);
        let printed = folder.join("printed.json");
        let run = run(&mut command, &printed)?;
        tallies(workspace, &data.0, &folder.join(name))?;
        let printed = fs::read(&printed).map_err(Error::io("read", &printed))?;
        let printed: serde_json::Value = serde_json::from_slice(&printed)
            .map_err(|error| Error::Other(format!("the replay printed no JSON: {error}")))?;
        let stall = printed["checkpoints"]["longest_stall_ms"].as_f64();
        Ok((run, stall.ok_or_else(|| Error::Other(format!("nothing about checkpoints in {printed}")))?))
    };
    let (mut pairs, runs) = (Vec::new(), runs.min(RUNS_MAX));
    for n in 1..=runs {
        eprintln!("spill: run {n} of {runs}");
        let whole = measured("in-memory.csv", "off")?;
        let budget = (whole.0.peak_bytes / TIMES) >> 20;
        let part = measured("spilled.csv", &format!("{budget}MiB"))?;
        if !part.0.stderr.contains("memory is short") {
            return Err(Error::Other(format!("nothing was spilled with {budget} MiB: {}", part.0.stderr)));
        }
        let [whole_table, part_table] = ["in-memory.csv", "spilled.csv"].map(|name| {
            let path = folder.join(name);
            fs::read(&path).map_err(Error::io("read", &path))
        });
        if whole_table? != part_table? {
            return Err(Error::Other("the table differs when requests wait on disk".to_owned()));
        }
        pairs.push((whole, part, (budget << 20) as f64));
    }
    let spread = |value: fn(&Pair) -> f64| Spread::of(pairs.iter().map(value));
    Ok(SpillReport {
        requests: REQUESTS,
        impressions: IMPRESSIONS,
        in_memory_s: spread(|((whole, _), ..)| whole.wall_s),
        in_memory_peak_bytes: spread(|((whole, _), ..)| whole.peak_bytes as f64),
        in_memory_stall_ms: spread(|((_, stall), ..)| *stall),
        budget_bytes: spread(|(.., budget)| *budget),
        spilled_s: spread(|(_, (part, _), _)| part.wall_s),
        spilled_peak_bytes: spread(|(_, (part, _), _)| part.peak_bytes as f64),
        spilled_stall_ms: spread(|(_, (_, stall), _)| *stall),
        cpu_ratio: spread(|((whole, _), (part, _), _)| part.cpu_s() / whole.cpu_s()),
    })
}
