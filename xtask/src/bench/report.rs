//! What was measured, as a table for people and as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::measure::Run;
use crate::error::{Error, Result};

/// The middle of some runs, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// # Panics
    /// Of nothing.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let n = values.len();
        assert!(n > 0, "the spread of no runs");
        let median = (values[(n - 1) / 2] + values[n / 2]) / 2.0;
        Self { median, min: values[0], max: values[n - 1] }
    }

    /// The same in a unit that is so much larger.
    fn over(self, unit: f64) -> Self {
        Self { median: self.median / unit, min: self.min / unit, max: self.max / unit }
    }

    fn with(&self, decimals: usize) -> String {
        format!("{:.decimals$} ({:.decimals$}–{:.decimals$})", self.median, self.min, self.max)
    }
}

/// What a program took, over its runs.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// User and system time, in seconds per million lines of input.
    cpu_s_per_million: Spread,
    /// From start to end, in seconds.
    wall_s: Spread,
    /// The most memory at once.
    peak_bytes: Spread,
}

impl Figures {
    pub(super) fn of(runs: &[Run], lines: u64) -> Self {
        let millions = lines as f64 / 1e6;
        Self {
            cpu_s_per_million: Spread::of(runs.iter().map(|run| run.cpu_s() / millions)),
            wall_s: Spread::of(runs.iter().map(|run| run.wall_s)),
            peak_bytes: Spread::of(runs.iter().map(|run| run.peak_bytes as f64)),
        }
    }
}

/// The programs on one input.
#[derive(Debug, Serialize)]
pub(super) struct InputReport {
    pub(super) name: String,
    pub(super) lines: u64,
    /// CPU time of uptake with one worker over that of the floor, pair by pair.
    pub(super) cpu_ratio: Spread,
    /// Wall time of uptake with one worker over that with two, pair by pair.
    pub(super) speedup: Spread,
    pub(super) floor: Figures,
    pub(super) uptake: Figures,
    pub(super) uptake_two_workers: Figures,
}

/// What an example prints of a part: of the hot path, or at its edges.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PartReport {
    part: String,
    /// "an event", "a row" or "a record"; and how many of them.
    unit: String,
    count: u64,
    ns_each: f64,
    floor_ns_each: f64,
    /// Its time over that of the floor, pass by pass.
    ratio: Spread,
}

impl fmt::Display for PartReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, unit, ns_each, floor_ns_each, ratio, .. } = self;
        let ratio = ratio.with(2);
        writeln!(f, "{part:<22}{ns_each:>8.1} ns {unit}, floor {floor_ns_each:>7.1}: {ratio} × its floor")
    }
}

/// What the example `state_bytes` prints.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StateReport {
    requests: u64,
    impressions: u64,
    members: u64,
    /// As the states, their index and the dictionary account for themselves.
    heap_bytes_per_request: f64,
    /// By the growth of the process.
    resident_bytes_per_request: f64,
}

/// One run of the benchmark.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Seconds since 1970 UTC.
    pub(super) time: u64,
    pub(super) commit: String,
    pub(super) processors: usize,
    /// What else ran on the machine.
    pub(super) load_before: f64,
    pub(super) events: u64,
    pub(super) seed: u64,
    pub(super) runs: u32,
    pub(super) inputs: Vec<InputReport>,
    pub(super) parts: Vec<PartReport>,
    pub(super) state: Vec<StateReport>,
    pub(super) recovery: Option<RecoveryReport>,
    /// The same from a real Kafka, with checkpoints on a real S3 server.
    pub(super) recovery_edges: Option<RecoveryReport>,
    pub(super) spill: Option<SpillReport>,
    pub(super) processes: Option<ProcessesReport>,
    pub(super) edges: Option<EdgesReport>,
    pub(super) serve: Option<ServeReport>,
}

/// The server over HTTP. For the collector it has one processor, and the client another.
#[derive(Debug, Serialize)]
pub(super) struct ServeReport {
    /// Events of a run, in bodies of 20 from 32 connections.
    pub(super) events: u64,
    /// Events taken a second, durable when answered.
    pub(super) events_per_s: Spread,
    pub(super) batch_p99_ms: Spread,
    pub(super) cpu_us_per_event: Spread,
    /// CPU time over that of a server that reads the same bodies and does nothing for its answers.
    pub(super) collector_cpu_ratio: Spread,
    /// Rows at 5,000 a second.
    pub(super) row_p50_ms: Spread,
    pub(super) row_p99_ms: Spread,
    pub(super) rows_cpu_ratio: Spread,
    /// As the client says it.
    pub(super) streams: serde_json::Value,
    pub(super) hostile: serde_json::Value,
}

impl fmt::Display for ServeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let k = self.events_per_s.over(1e3).with(0);
        writeln!(f, "\nthe server over HTTP, a client beside it; for the collector on a processor each")?;
        writeln!(
            f,
            "  collector    {k} k events/s in bodies of 20, durable (goal: 100); p99 of a body {} ms; {} µs of CPU an \
             event, {} × that of a server that does nothing",
            self.batch_p99_ms.with(1),
            self.cpu_us_per_event.with(2),
            self.collector_cpu_ratio.with(1)
        )?;
        writeln!(
            f,
            "  rows         5 k/s: p50 {} ms, p99 {} ms (goal: 5); {} × the CPU of a server that does nothing",
            self.row_p50_ms.with(2),
            self.row_p99_ms.with(2),
            self.rows_cpu_ratio.with(1)
        )?;
        writeln!(f, "  subscribers  {}\n  misbehaving  {}", self.streams, self.hostile)
    }
}

/// The reference workload from Kafka, one worker; the servers run on the same processors.
#[derive(Debug, Serialize)]
pub(super) struct EdgesReport {
    pub(super) lines: u64,
    /// Events that `uptake append` put into Kafka, a second.
    pub(super) appended_per_s: Spread,
    /// Events from Kafka into the embedded table, a second.
    pub(super) embedded_per_s: Spread,
    /// Events from Kafka into Cassandra and S3, a second.
    pub(super) remote_per_s: Spread,
    pub(super) embedded: Figures,
    pub(super) remote: Figures,
    /// The source and the sink alone.
    pub(super) alone: Vec<PartReport>,
}

impl fmt::Display for EdgesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thousands = |spread: Spread| format!("{} k events/s", spread.over(1e3).with(0));
        writeln!(f, "\n{} events through servers on this machine, one worker", self.lines)?;
        writeln!(f, "  appended to Kafka           {}", thousands(self.appended_per_s))?;
        for (name, rate, figures) in [
            ("Kafka to embedded table   ", self.embedded_per_s, &self.embedded),
            ("Kafka to Cassandra and S3 ", self.remote_per_s, &self.remote),
        ] {
            let cpu = figures.cpu_s_per_million.with(2);
            writeln!(f, "  {name}  {}; uptake's own CPU s per M events {cpu}", thousands(rate))?;
        }
        writeln!(f, "goal: at least 150 k events/s from Kafka into Cassandra\n")?;
        self.alone.iter().try_for_each(|part| part.fmt(f))
    }
}

/// A run with many waiting requests, killed and started again.
#[derive(Debug, Serialize)]
pub(super) struct RecoveryReport {
    pub(super) requests: u64,
    pub(super) impressions: u64,
    /// From the start of the process that goes on until it has read what came since and taken a
    /// checkpoint of its own.
    pub(super) caught_up_s: Spread,
    /// The most memory of that process.
    pub(super) peak_bytes: Spread,
    /// The longest that a checkpoint held a worker up, while new requests came all the time.
    pub(super) stall_ms: Spread,
    /// Bytes of a checkpoint in the mean, there.
    pub(super) checkpoint_bytes: Spread,
}

/// The same input with all state in memory, and with a budget of a quarter of what that took.
#[derive(Debug, Serialize)]
pub(super) struct SpillReport {
    pub(super) requests: u64,
    pub(super) impressions: u64,
    pub(super) in_memory_s: Spread,
    pub(super) in_memory_peak_bytes: Spread,
    /// The longest that a checkpoint held the worker up.
    pub(super) in_memory_stall_ms: Spread,
    pub(super) budget_bytes: Spread,
    pub(super) spilled_s: Spread,
    pub(super) spilled_peak_bytes: Spread,
    pub(super) spilled_stall_ms: Spread,
    /// CPU time with the budget over that without.
    pub(super) cpu_ratio: Spread,
}

impl fmt::Display for SpillReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |spread: Spread| spread.over(1e6).with(0);
        writeln!(f, "\n{} requests of {} impressions, larger than memory", self.requests, self.impressions)?;
        let (seconds, peak) = (self.in_memory_s.with(1), mb(self.in_memory_peak_bytes));
        let stall = self.in_memory_stall_ms.with(0);
        writeln!(
            f,
            "  in memory              {seconds} s, peak {peak} MB; a checkpoint holds the worker up for {stall} ms"
        )?;
        let (seconds, peak) = (self.spilled_s.with(1), mb(self.spilled_peak_bytes));
        writeln!(
            f,
            "  {:<23}{seconds} s, peak {peak} MB, {} × the CPU; for {} ms",
            format!("with {} MB", mb(self.budget_bytes)),
            self.cpu_ratio.with(2),
            self.spilled_stall_ms.with(0)
        )
    }
}

/// Two processes with a worker each beside one with two, from the same log.
#[derive(Debug, Serialize)]
pub(super) struct ProcessesReport {
    pub(super) events: u64,
    pub(super) threads_s: Spread,
    pub(super) processes_s: Spread,
    /// How fast two processes are, over two threads.
    pub(super) speed_ratio: Spread,
    /// CPU time of two processes over that of two threads.
    pub(super) cpu_ratio: Spread,
}

impl fmt::Display for ProcessesReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{} events from the log, two workers", self.events)?;
        writeln!(f, "  in one process         {} s", self.threads_s.with(2))?;
        writeln!(
            f,
            "  in a process each      {} s, {} × as fast (goal: 0.8), {} × the CPU",
            self.processes_s.with(2),
            self.speed_ratio.with(2),
            self.cpu_ratio.with(2)
        )
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |spread: Spread| spread.over(1e6).with(1);
        writeln!(f, "\n{} waiting requests of {} impressions", self.requests, self.impressions)?;
        writeln!(
            f,
            "  kill -9 to caught up   {} s, peak {} MB",
            self.caught_up_s.with(2),
            mb(self.peak_bytes)
        )?;
        writeln!(
            f,
            "  checkpoint             holds a worker up for {} ms, {} MB each",
            self.stall_ms.with(1),
            mb(self.checkpoint_bytes)
        )
    }
}

impl Report {
    /// In one line.
    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::Other(format!("cannot write the report: {error}")))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.inputs.is_empty() {
            self.programs(f)?;
        }
        if let Some(recovery) = &self.recovery {
            recovery.fmt(f)?;
        }
        if let Some(recovery) = &self.recovery_edges {
            write!(f, "\nfrom Kafka, checkpoints on S3:{recovery}")?;
        }
        if let Some(spill) = &self.spill {
            spill.fmt(f)?;
        }
        if let Some(processes) = &self.processes {
            processes.fmt(f)?;
        }
        if let Some(edges) = &self.edges {
            edges.fmt(f)?;
        }
        if let Some(serve) = &self.serve {
            serve.fmt(f)?;
        }
        self.parts.iter().try_for_each(|part| part.fmt(f))?;
        for state in &self.state {
            writeln!(
                f,
                "a waiting request of {} impressions, {} requests of {} members: {:.1} bytes by its own account, \
                 {:.1} by the growth of the process (goal: at most 150)",
                state.impressions,
                state.requests,
                state.members,
                state.heap_bytes_per_request,
                state.resident_bytes_per_request
            )?;
        }
        writeln!(f, "added to target/bench/history.jsonl, commit {}", self.commit)
    }
}

impl Report {
    fn programs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "median (least–most) of {} runs in turns, seed {}, {} processors, load before {:.1}\n",
            self.runs, self.seed, self.processors, self.load_before
        )?;
        let header = ["input", "program", "CPU s per M events", "wall s", "peak MB", "against"];
        let mut rows = vec![header.map(str::to_owned)];
        for input in &self.inputs {
            let against = [
                String::new(),
                format!("{} × floor's CPU", input.cpu_ratio.with(2)),
                format!("{} × as fast as one", input.speedup.with(2)),
            ];
            let programs = [
                ("floor", &input.floor),
                ("one worker", &input.uptake),
                ("two workers", &input.uptake_two_workers),
            ];
            for ((program, figures), against) in programs.into_iter().zip(against) {
                rows.push([
                    if program == "floor" { input.name.clone() } else { String::new() },
                    program.to_owned(),
                    figures.cpu_s_per_million.with(3),
                    figures.wall_s.with(2),
                    format!("{:.0}", figures.peak_bytes.median / 1e6),
                    against,
                ]);
            }
        }
        let mut widths = [0; 6];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        writeln!(f)?;
        if let Some((plain, others)) = self.inputs.split_first()
            && plain.name == "plain"
        {
            for other in others {
                let times = other.uptake.cpu_s_per_million.median / plain.uptake.cpu_s_per_million.median;
                writeln!(f, "{}: {times:.2} × the CPU of plain (goal: at most 1.3)", other.name)?;
            }
        }
        writeln!(
            f,
            "goals: at most 2.0 × the floor's CPU, then 1.5; two workers 1.7 × as fast as one; peak at most \
             2 × the floor's and 64 MB\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::made_up;
    use super::*;

    #[test]
    fn a_spread_is_of_the_sorted_values() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).with(1), "2.0 (1.0–3.0)");
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).with(1), "2.5 (1.0–4.0)");
        assert_eq!(Spread::of([7.0]).with(0), "7 (7–7)");
    }

    #[test]
    fn a_report_says_the_same_in_both_forms() {
        let input = |name: &str, cpu: f64| InputReport {
            name: name.into(),
            lines: 2_000_000,
            cpu_ratio: Spread::of([cpu / 0.5]),
            speedup: Spread::of([1.75]),
            floor: Figures::of(&[made_up(0.5, 0.5, 60_000_000)], 2_000_000),
            uptake: Figures::of(&[made_up(cpu, cpu, 150_000_000)], 2_000_000),
            uptake_two_workers: Figures::of(&[made_up(cpu, cpu / 1.75, 170_000_000)], 2_000_000),
        };
        let report = Report {
            time: 1,
            commit: "abc".into(),
            processors: 2,
            load_before: 0.5,
            events: 2_000_000,
            seed: 42,
            runs: 1,
            inputs: vec![input("plain", 1.0), input("hot-video", 1.2)],
            parts: vec![PartReport {
                part: "decode".into(),
                unit: "an event".into(),
                count: 2_000_000,
                ns_each: 80.0,
                floor_ns_each: 40.0,
                ratio: Spread::of([2.0]),
            }],
            state: Vec::new(),
            recovery: None,
            recovery_edges: None,
            spill: None,
            processes: None,
            edges: None,
            serve: None,
        };
        let text = report.to_string();
        for part in [
            "0.250 (0.250–0.250)",
            "2.00 (2.00–2.00) × floor's CPU",
            "1.75",
            "hot-video: 1.20 × the CPU",
            "2.00 (2.00–2.00) × its floor",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!(json["inputs"][0]["cpu_ratio"]["median"], 2.0);
        assert_eq!(json["inputs"][1]["uptake"]["cpu_s_per_million"]["max"], 0.6);
    }
}
