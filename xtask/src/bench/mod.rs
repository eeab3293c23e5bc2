//! `cargo xtask bench`: uptake beside a hand-written loop without an engine (the floor), on the
//! same input, run in turns.
//!
//! CPU time is what is compared, because it is the steadiest figure on a machine that does other
//! things too, and pair by pair, because what else the machine does changes from minute to minute.
//! Both must give the same answer, or nothing is reported.

mod edges;
mod measure;
mod processes;
mod recovery;
mod reference;
mod report;
mod serve;
mod spill;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;
use measure::{Run, run, say_run};
use reference::Reference;
use report::{InputReport, PartReport, Report, Spread, StateReport};

/// The seed of every input. A fixed one, so that the numbers of two days compare.
const SEED: u64 = 42;

/// Measure uptake against the hand-written loop, side by side
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// The folder with the reference workload: its generator `gen` and the hand-written loop `floor`
    /// [default: the variable UPTAKE_SHARED, or ../shared/bench beside the repository]
    #[arg(long, value_name = "DIR")]
    shared: Option<PathBuf>,
    /// Events of each input
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    events: u64,
    /// Measured runs of each program and input, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Measure only this; may be repeated
    #[arg(long, value_name = "NAME", value_enum)]
    only: Vec<What>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum What {
    /// The reference workload
    Plain,
    /// 30 % of the impressions are of one video
    HotVideo,
    /// 5 % of the events are of one request
    HotRequest,
    /// The parts of the hot path alone, each beside a floor of its own
    Parts,
    /// Bytes held for a request that waits for its play
    State,
    /// A million waiting requests: from `kill -9` to caught up, and what a checkpoint holds up
    Recovery,
    /// The same from a real Kafka, with checkpoints on a real S3 server, which it starts
    RecoveryEdges,
    /// State four times as large as memory may be, which takes 16 GB on disk
    Spill,
    /// Two processes on the loopback against two threads
    Processes,
    /// The reference workload from a real Kafka into a real Cassandra and S3 server, which it starts
    Edges,
    /// The collector, rows and subscribers over HTTP, and clients that misbehave
    Serve,
}

impl What {
    const INPUTS: [Self; 3] = [Self::Plain, Self::HotVideo, Self::HotRequest];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::HotVideo => "hot-video",
            Self::HotRequest => "hot-request",
            Self::Parts => "parts",
            Self::State => "state",
            Self::Recovery => "recovery",
            Self::RecoveryEdges => "recovery-edges",
            Self::Spill => "spill",
            Self::Processes => "processes",
            Self::Edges => "edges",
            Self::Serve => "serve",
        }
    }

    /// What the generator is told beside seed and size.
    fn generator_options(self) -> &'static [&'static str] {
        match self {
            Self::HotVideo => &["--hot-video"],
            Self::HotRequest => &["--hot-request"],
            Self::Plain
            | Self::Parts
            | Self::State
            | Self::Recovery
            | Self::RecoveryEdges
            | Self::Spill
            | Self::Processes
            | Self::Edges
            | Self::Serve => &[],
        }
    }
}

impl Bench {
    pub(crate) fn run(self) -> Result<()> {
        let workspace = Workspace::read()?;
        let inputs: Vec<What> = What::INPUTS.into_iter().filter(|what| self.wants(*what)).collect();
        let mut report = Report {
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            commit: commit(&workspace),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            load_before: 0.0,
            events: self.events,
            seed: SEED,
            runs: self.runs,
            inputs: Vec::new(),
            parts: Vec::new(),
            state: Vec::new(),
            recovery: None,
            recovery_edges: None,
            spill: None,
            processes: None,
            edges: None,
            serve: None,
        };
        self.build(&workspace)?;
        if self.wants(What::Parts) {
            eprintln!("parts");
            report.parts = parts(&workspace, "parts", &[], &[], self.runs)?;
            report.parts.extend(parts(&workspace, "edges", &["table", "archive"], &[], self.runs)?);
        }
        let of_the_log = [What::Processes, What::Edges, What::Serve];
        if !inputs.is_empty() || of_the_log.iter().any(|what| self.wants(*what)) {
            let reference = Reference::build(&workspace, &self.shared(&workspace))?;
            let folders = inputs
                .iter()
                .map(|what| reference.input(what.name(), what.generator_options(), self.events, SEED));
            let folders = folders.collect::<Result<Vec<_>>>()?;
            report.load_before = load();
            for (what, folder) in inputs.iter().zip(folders) {
                report.inputs.push(self.compare(&workspace, &reference, *what, &folder)?);
            }
            if self.wants(What::Processes) {
                let input = reference.input(What::Plain.name(), &[], self.events, SEED)?;
                report.processes = Some(processes::measure(&workspace, &input, self.events, self.runs)?);
            }
            if self.wants(What::Edges) {
                let input = reference.input(What::Plain.name(), &[], self.events, SEED)?;
                report.edges = Some(edges::measure(&workspace, &input, self.events, self.runs)?);
            }
            if self.wants(What::Serve) {
                let input = reference.input(What::Plain.name(), &[], self.events, SEED)?;
                report.serve = Some(serve::measure(&workspace, &input, self.runs)?);
            }
        }
        if self.wants(What::State) {
            // Members are not part of the state unless a cap per member is configured; then with as
            // many as the reference workload has.
            for members in [0, 200_000] {
                report.state.push(state(&workspace, members)?);
            }
        }
        if self.wants(What::Recovery) {
            report.recovery = Some(recovery::measure(&workspace, self.runs, &[])?);
        }
        if self.wants(What::RecoveryEdges) {
            report.recovery_edges = Some(edges::recovery(&workspace, self.runs)?);
        }
        if self.wants(What::Spill) {
            report.spill = Some(spill::measure(&workspace, self.runs)?);
        }
        keep(&workspace, &report)?;
        if self.json {
            println!("{}", report.to_json()?);
        } else {
            print!("{report}");
        }
        Ok(())
    }

    fn shared(&self, workspace: &Workspace) -> PathBuf {
        let said = self.shared.clone().or_else(|| std::env::var_os("UPTAKE_SHARED").map(PathBuf::from));
        said.unwrap_or_else(|| workspace.root.join("../shared/bench"))
    }

    fn wants(&self, what: What) -> bool {
        self.only.is_empty() || self.only.contains(&what)
    }

    /// The program, and the examples that measure what is asked for.
    fn build(&self, workspace: &Workspace) -> Result<()> {
        let mut command = process::cargo();
        command.args(["build", "--release", "--locked", "--package", "uptake", "--bin", "uptake"]);
        let examples: [(&[What], &str, &str); 4] = [
            (&[What::Parts], "uptake-flow", "parts"),
            (&[What::Parts, What::Edges], "uptake-connectors", "edges"),
            (&[What::State], "uptake", "state_bytes"),
            (&[What::Serve], "uptake-serve", "load"),
        ];
        for (of, package, example) in examples {
            if of.iter().any(|what| self.wants(*what)) {
                command.args(["--package", package, "--example", example]);
            }
        }
        command.current_dir(&workspace.root);
        eprintln!("{}", process::typed(&command));
        process::run(&mut command, "")
    }

    /// Runs the floor, uptake with one worker and uptake with two, in turns.
    fn compare(
        &self,
        workspace: &Workspace,
        reference: &Reference,
        what: What,
        input: &Path,
    ) -> Result<InputReport> {
        let [mut floor, mut one, mut two] = [const { Vec::new() }; 3];
        let mut lines = 0;
        for round in 0..=self.runs {
            let warm_up = round == 0;
            say_run(what.name(), round, self.runs);
            let answer = reference.folder.join("answer-floor.csv");
            let of_floor = run(process::command(&reference.floor).arg(input), &answer)?;
            lines = lines_read(&of_floor)?;
            let [of_one, of_two] = [1, 2].map(|workers| {
                let data = Fresh::new(reference.folder.join("data"))?;
                let ledger = reference.folder.join("ledger.txt");
                let of_uptake = run(&mut replay(workspace, input, &data.0, workers), &ledger)?;
                if warm_up {
                    same_answer(workspace, reference, &answer, &data.0)?;
                }
                Ok(of_uptake)
            });
            let (of_one, of_two) = (of_one?, of_two?);
            if !warm_up {
                floor.push(of_floor);
                one.push(of_one);
                two.push(of_two);
            }
        }
        let pairs = |a: &[Run], b: &[Run], value: fn(&Run) -> f64| {
            Spread::of(a.iter().zip(b).map(|(a, b)| value(a) / value(b)))
        };
        Ok(InputReport {
            name: what.name().to_owned(),
            lines,
            cpu_ratio: pairs(&one, &floor, Run::cpu_s),
            speedup: pairs(&one, &two, |run| run.wall_s),
            floor: report::Figures::of(&floor, lines),
            uptake: report::Figures::of(&one, lines),
            uptake_two_workers: report::Figures::of(&two, lines),
        })
    }
}

/// A folder that is not there before and not after.
struct Fresh(PathBuf);

impl Fresh {
    fn new(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(Self(path))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // What cannot be removed now is removed, or complained about, the next time.
        drop(fs::remove_dir_all(&self.0));
    }
}

fn replay(workspace: &Workspace, input: &Path, data: &Path, workers: u32) -> std::process::Command {
    let mut command = process::command(workspace.target.join("release/uptake"));
    command.arg("replay").arg(input).arg("--data").arg(data);
    // The floor has no cap, and one hot request has far more events than the default one.
    command.args(["--workers", &workers.to_string(), "--set", "join.request_events_max=off"]);
    command
}

/// How many lines the floor says it read.
fn lines_read(floor: &Run) -> Result<u64> {
    let lines = floor.stderr.split_whitespace().find_map(|word| word.strip_prefix("lines=")?.parse().ok());
    lines.ok_or_else(|| {
        Error::Other(format!("the floor did not say how many lines it read: {}", floor.stderr))
    })
}

/// Writes the table in `data` to a file.
fn tallies(workspace: &Workspace, data: &Path, to: &Path) -> Result<()> {
    let mut command = process::command(workspace.target.join("release/uptake"));
    run(command.args(["tallies", "--format", "csv", "--data"]).arg(data), to).map(drop)
}

/// Whether two files of tables in a folder are the same.
fn same_tables(folder: &Path, names: [&str; 2]) -> Result<bool> {
    let [one, other] = names.map(|name| {
        let path = folder.join(name);
        fs::read(&path).map_err(Error::io("read", &path))
    });
    Ok(one? == other?)
}

/// Both have the same rows, or the comparison means nothing.
fn same_answer(workspace: &Workspace, reference: &Reference, floor: &Path, data: &Path) -> Result<()> {
    let path = reference.folder.join("answer-uptake.csv");
    tallies(workspace, data, &path)?;
    let read = |path: &Path| fs::read_to_string(path).map_err(Error::io("read", path));
    let (expected, found) = (read(floor)?, read(&path)?);
    let mut expected: Vec<&str> = expected.lines().collect();
    // The header and the column `exact` are uptake's own.
    let mut found: Vec<&str> =
        found.lines().skip(1).filter_map(|line| Some(line.rsplit_once(',')?.0)).collect();
    expected.sort_unstable();
    found.sort_unstable();
    if expected == found {
        return Ok(());
    }
    let only = |these: &[&str], others: &[&str]| -> Vec<String> {
        let differ = these.iter().filter(|row| others.binary_search(row).is_err());
        differ.take(5).map(|row| (*row).to_owned()).collect()
    };
    Err(Error::Other(format!(
        "uptake and the floor disagree, so there is nothing to compare. Rows are video, epoch, plays, \
         impressions; some that only the floor has: {:?}, that only uptake has: {:?}",
        only(&expected, &found),
        only(&found, &expected)
    )))
}

/// What an example measures of parts, a line for each.
fn parts(
    workspace: &Workspace,
    example: &str,
    asked: &[&str],
    variables: &[(String, String)],
    passes: u32,
) -> Result<Vec<PartReport>> {
    let mut command = process::command(workspace.target.join("release/examples").join(example));
    command.args(asked).args(["--json", "--passes", &passes.to_string()]);
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    let answer = process::output(&mut command, "")?;
    let lines = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(Error::answer(&command))).collect()
}

/// What the example `state_bytes` measures.
fn state(workspace: &Workspace, members: u64) -> Result<StateReport> {
    eprintln!("state: {members} members");
    let mut command = process::command(workspace.target.join("release/examples/state_bytes"));
    command.args(["--json", "--members", &members.to_string()]);
    let answer = process::output(&mut command, "")?;
    serde_json::from_slice(&answer).map_err(Error::answer(&command))
}

/// The commit that is measured; ends in `+` if the files differ from it.
fn commit(workspace: &Workspace) -> String {
    let git = |args: &[&str]| {
        let output = process::command("git").current_dir(&workspace.root).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|files| !files.is_empty());
    if changed { commit + "+" } else { commit }
}

/// Processes that wanted to run in the last minute, on average; 0 where the system does not say.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Adds the report to the history of all reports.
fn keep(workspace: &Workspace, report: &Report) -> Result<()> {
    let folder = workspace.target.join("bench");
    fs::create_dir_all(&folder).map_err(Error::io("make the folder", &folder))?;
    let path = folder.join("history.jsonl");
    let line = report.to_json()? + "\n";
    let mut file =
        OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io("open", &path))?;
    file.write_all(line.as_bytes()).map_err(Error::io("write", &path))
}
