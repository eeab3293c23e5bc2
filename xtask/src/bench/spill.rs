//! State four times as large as memory may be: what it costs that requests wait on disk.

use std::fs;

use super::measure::{Run, run_for_json};
use super::recovery::{IMPRESSIONS, Requests};
use super::report::{SpillReport, Spread};
use super::{Fresh, replay, same_tables, tallies};
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

/// One round.
struct Pair {
    whole: Measured,
    part: Measured,
    budget_bytes: f64,
}

/// What a replay took.
struct Measured {
    run: Run,
    /// The longest that a checkpoint held the worker up.
    stall_ms: f64,
}

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
    let measured = |name: &str, budget: &str| -> Result<Measured> {
        let data = Fresh::new(folder.join("data"))?;
        let mut command = replay(workspace, &input, &data.0, 1);
        command.args(["--json", "--set", &format!("memory.bytes_max={budget}")]);
        let (run, printed) = run_for_json(&mut command, &folder.join("printed.json"))?;
        tallies(workspace, &data.0, &folder.join(name))?;
        let stall_ms = printed["checkpoints"]["longest_stall_ms"].as_f64();
        let stall_ms =
            stall_ms.ok_or_else(|| Error::Other(format!("nothing about checkpoints in {printed}")))?;
        Ok(Measured { run, stall_ms })
    };
    let (mut pairs, runs) = (Vec::new(), runs.min(RUNS_MAX));
    for n in 1..=runs {
        eprintln!("spill: run {n} of {runs}");
        let whole = measured("in-memory.csv", "off")?;
        let budget = (whole.run.peak_bytes / TIMES) >> 20;
        let part = measured("spilled.csv", &format!("{budget}MiB"))?;
        if !part.run.stderr.contains("memory is short") {
            return Err(Error::Other(format!("nothing was spilled with {budget} MiB: {}", part.run.stderr)));
        }
        if !same_tables(folder, ["in-memory.csv", "spilled.csv"])? {
            return Err(Error::Other("the table differs when requests wait on disk".to_owned()));
        }
        pairs.push(Pair { whole, part, budget_bytes: (budget << 20) as f64 });
    }
    let spread = |value: fn(&Pair) -> f64| Spread::of(pairs.iter().map(value));
    Ok(SpillReport {
        requests: REQUESTS,
        impressions: IMPRESSIONS,
        in_memory_s: spread(|pair| pair.whole.run.wall_s),
        in_memory_peak_bytes: spread(|pair| pair.whole.run.peak_bytes as f64),
        in_memory_stall_ms: spread(|pair| pair.whole.stall_ms),
        budget_bytes: spread(|pair| pair.budget_bytes),
        spilled_s: spread(|pair| pair.part.run.wall_s),
        spilled_peak_bytes: spread(|pair| pair.part.run.peak_bytes as f64),
        spilled_stall_ms: spread(|pair| pair.part.stall_ms),
        cpu_ratio: spread(|pair| pair.part.run.cpu_s() / pair.whole.run.cpu_s()),
    })
}
