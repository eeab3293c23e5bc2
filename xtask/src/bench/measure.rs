//! What one run of a program takes.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wait4::Wait4;

use crate::error::{Error, Result};
use crate::process::typed;

/// What one run took.
#[derive(Clone, Debug)]
pub(super) struct Run {
    cpu: Duration,
    /// From its start to its end, in seconds.
    pub(super) wall_s: f64,
    /// The most memory it had at once.
    ///
    /// The system counts what the process had before it became the program, so ours is a lower
    /// limit of this figure: some MB, far below what is measured here.
    pub(super) peak_bytes: u64,
    /// What it said beside its answer.
    pub(super) stderr: String,
}

impl Run {
    /// User and system time of all its threads, in seconds.
    pub(super) fn cpu_s(&self) -> f64 {
        self.cpu.as_secs_f64()
    }
}

/// Runs the program to its end. Its answer goes to the file `stdout`, so that nobody has to keep up
/// with it.
///
/// # Errors
/// It cannot be started, or it fails.
pub(super) fn run(command: &mut Command, stdout: &Path) -> Result<Run> {
    let said = stdout.with_extension("stderr");
    let file = |path: &Path| File::create(path).map(Stdio::from).map_err(Error::io("create", path));
    command.stdout(file(stdout)?).stderr(file(&said)?);
    let started = Instant::now();
    let child = command.spawn().map_err(Error::start(command, ""))?;
    let used = child.wait4().map_err(Error::start(command, ""))?;
    let wall_s = started.elapsed().as_secs_f64();
    let stderr = fs::read_to_string(&said).map_err(Error::io("read", &said))?;
    if !used.status.success() {
        let output = format!("\n{}", stderr.trim_end());
        return Err(Error::Failed { command: typed(command), status: used.status, output });
    }
    let usage = used.rusage;
    Ok(Run { cpu: usage.utime + usage.stime, wall_s, peak_bytes: usage.maxrss, stderr })
}

/// Runs a program that prints JSON, which stays in the file `stdout`.
///
/// # Errors
/// As [`run`], or it prints something else.
pub(super) fn run_for_json(command: &mut Command, stdout: &Path) -> Result<(Run, serde_json::Value)> {
    let took = run(command, stdout)?;
    let printed = fs::read(stdout).map_err(Error::io("read", stdout))?;
    Ok((took, json(&printed)?))
}

/// What a program printed, as JSON.
///
/// # Errors
/// It is none.
pub(super) fn json(printed: &[u8]) -> Result<serde_json::Value> {
    serde_json::from_slice(printed).map_err(|e| Error::Other(format!("the run printed no JSON: {e}")))
}

/// Says which run begins; number 0 warms up.
pub(super) fn say_run(of: &str, n: u32, runs: u32) {
    match n {
        0 => eprintln!("{of}: warm-up"),
        n => eprintln!("{of}: run {n} of {runs}"),
    }
}

#[cfg(test)]
pub(super) fn made_up(cpu_s: f64, wall_s: f64, peak_bytes: u64) -> Run {
    Run { cpu: Duration::from_secs_f64(cpu_s), wall_s, peak_bytes, stderr: String::new() }
}
