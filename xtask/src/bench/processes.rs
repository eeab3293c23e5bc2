//! Two processes with a worker each, which talk over the loopback, against one process with two workers: what it costs to
//! put events into bytes and on the wire, and to find one another.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::measure::{Run, run, say_run};
use super::report::{ProcessesReport, Spread};
use super::{Fresh, same_tables, tallies};
use crate::error::{Error, Result};
use crate::process;
use crate::services::free_ports;
use crate::workspace::Workspace;

/// One round: the wall and CPU seconds of one process, and of two.
struct Round {
    threads: (f64, f64),
    processes: (f64, f64),
}

/// Measures in turns, each on a copy of the same log, after a round that warms up.
///
/// # Errors
/// A program fails, the device is full, or the two do not have the same table.
pub(super) fn measure(
    workspace: &Workspace,
    input: &Path,
    events: u64,
    runs: u32,
) -> Result<ProcessesReport> {
    let folder = Fresh::new(workspace.target.join("bench/processes"))?;
    let folder = &folder.0;
    fs::create_dir_all(folder).map_err(Error::io("make the folder", folder))?;
    let log = folder.join("log");
    let mut append = process::command(workspace.target.join("release/uptake"));
    run(append.arg("append").arg(input).arg("--data").arg(&log), &folder.join("append.txt"))?;
    let mut rounds = Vec::new();
    for n in 0..=runs {
        say_run("processes", n, runs);
        let data = Fresh::new(folder.join("threads"))?;
        copy(&log, &data.0)?;
        let of_one = run(command(workspace, &data.0).args(["--workers", "2"]), &folder.join("threads.txt"))?;
        tallies(workspace, &data.0, &folder.join("threads.csv"))?;
        drop(data);
        let data = Fresh::new(folder.join("processes"))?;
        copy(&log, &data.0)?;
        let processes = cluster(workspace, folder, &data.0)?;
        tallies(workspace, &data.0, &folder.join("processes.csv"))?;
        if !same_tables(folder, ["threads.csv", "processes.csv"])? {
            return Err(Error::Other("two processes come to another table than one".to_owned()));
        }
        if n > 0 {
            rounds.push(Round { threads: (of_one.wall_s, of_one.cpu_s()), processes });
        }
    }
    let spread = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
    Ok(ProcessesReport {
        events,
        threads_s: spread(|of| of.threads.0),
        processes_s: spread(|of| of.processes.0),
        speed_ratio: spread(|of| of.threads.0 / of.processes.0),
        cpu_ratio: spread(|of| of.processes.1 / of.threads.1),
    })
}

fn command(workspace: &Workspace, data: &Path) -> Command {
    let mut command = process::command(workspace.target.join("release/uptake"));
    command.args(["run", "--until-caught-up", "--set", "join.request_events_max=off", "--data"]).arg(data);
    command
}

/// Two processes, from the start of the first to the end of the last: wall and CPU seconds.
fn cluster(workspace: &Workspace, folder: &Path, data: &Path) -> Result<(f64, f64)> {
    let hosts = folder.join("hosts");
    let lines = free_ports(2)?.iter().map(|port| format!("127.0.0.1:{port}\n")).collect::<String>();
    fs::write(&hosts, lines).map_err(Error::io("write", &hosts))?;
    let started = Instant::now();
    let runs: Vec<Result<Run>> = std::thread::scope(|scope| {
        let start = |number: usize| {
            let mut command = command(workspace, data);
            command.arg("--hosts").arg(&hosts).args(["--process", &number.to_string(), "--workers", "1"]);
            let said = folder.join(format!("process-{number}.txt"));
            scope.spawn(move || run(&mut command, &said))
        };
        let started = [0, 1].map(start);
        let panicked = |_| Err(Error::Other("a process could not be waited for".to_owned()));
        started.into_iter().map(|process| process.join().unwrap_or_else(panicked)).collect()
    });
    let wall = started.elapsed().as_secs_f64();
    let runs = runs.into_iter().collect::<Result<Vec<_>>>()?;
    Ok((wall, runs.iter().map(Run::cpu_s).sum()))
}

/// Copies a folder, which is not there yet.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::io("make the folder", to))?;
    let entries = fs::read_dir(from).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    for entry in entries.map_err(Error::io("read", from))? {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copy(&from, &to)?,
            false => drop(fs::copy(&from, &to).map_err(Error::io("copy", &from))?),
        }
    }
    Ok(())
}
