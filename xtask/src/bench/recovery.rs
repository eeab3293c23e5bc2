//! A million waiting requests: how long from `kill -9` until a new process has caught up, and how
//! long a checkpoint holds a worker up meanwhile.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::measure::{json, run};
use super::report::{RecoveryReport, Spread};
use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

const REQUESTS: u64 = 1_000_000;
/// Of each request.
pub(super) const IMPRESSIONS: u64 = 18;
const VIDEOS: u64 = 10_000;
/// 2026-01-15T00:00Z.
const START_MS: u64 = 1_768_435_200_000;
/// The requests begin within this time, so that none expires.
const WITHIN_MS: u64 = 50 * 60_000;
/// Requests of a file, and of what comes while the run is live.
const PIECE: u64 = 50_000;
const LIVE_PIECE: u64 = 500;
/// How many live pieces come, and how often.
const LIVE_PIECES: u64 = 60;
const LIVE_EVERY: Duration = Duration::from_millis(300);
/// A run that was started has its state and has begun to read after this time, on any machine
/// that is fit for benchmarks.
const SETTLE: Duration = Duration::from_secs(6);

/// Measures with one worker and these settings, on parts in `target/bench/recovery`, which takes 5 GB there.
///
/// # Errors
/// A program fails, or the device is full.
pub(super) fn measure(workspace: &Workspace, runs: u32, settings: &[String]) -> Result<RecoveryReport> {
    let folder = workspace.target.join("bench/recovery");
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    fs::create_dir_all(&folder).map_err(Error::io("make the folder", &folder))?;
    let bench = Recovery {
        program: workspace.target.join("release/uptake"),
        data: folder.join("data"),
        settings: settings.to_vec(),
        folder,
    };
    if !settings.is_empty() {
        run(&mut bench.command(&["migrate"]), &bench.folder.join("migrate.txt"))?;
    }
    let mut next = 0;
    eprintln!("recovery: {REQUESTS} requests");
    while next < REQUESTS {
        bench.append(&mut next, PIECE)?;
    }
    bench.catch_up()?;
    let (mut caught_up, mut peaks, mut stalls, mut sizes) = (vec![], vec![], vec![], vec![]);
    for n in 1..=runs {
        eprintln!("recovery: run {n} of {runs}");
        let mut live = bench.live(&[])?;
        std::thread::sleep(SETTLE);
        bench.append(&mut next, PIECE / 10)?;
        live.kill()
            .and_then(|()| live.wait())
            .map_err(|e| Error::Other(format!("cannot kill the run: {e}")))?;
        let again = bench.catch_up()?;
        caught_up.push(again.wall_s);
        peaks.push(again.peak_bytes as f64);
        let (stall, size) = bench.stall(&mut next)?;
        stalls.push(stall);
        sizes.push(size);
    }
    let report = RecoveryReport {
        requests: REQUESTS,
        impressions: IMPRESSIONS,
        caught_up_s: Spread::of(caught_up),
        peak_bytes: Spread::of(peaks),
        stall_ms: Spread::of(stalls),
        checkpoint_bytes: Spread::of(sizes),
    };
    fs::remove_dir_all(&bench.folder).map_err(Error::io("remove", &bench.folder))?;
    Ok(report)
}

struct Recovery {
    folder: PathBuf,
    program: PathBuf,
    data: PathBuf,
    settings: Vec<String>,
}

impl Recovery {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = process::command(&self.program);
        command.arg(arguments[0]).arg("--data").arg(&self.data).args(&arguments[1..]);
        command.args(self.settings.iter().flat_map(|setting| ["--set", setting]));
        command
    }

    /// Appends requests `next` and following to the log.
    fn append(&self, next: &mut u64, requests: u64) -> Result<()> {
        let file = self.folder.join("piece.jsonl");
        let all = Requests { in_all: REQUESTS, played: None };
        all.write(&file, *next..*next + requests).map_err(Error::io("write", &file))?;
        *next += requests;
        run(self.command(&["append"]).arg(&file), &self.folder.join("append.txt")).map(drop)
    }

    fn catch_up(&self) -> Result<super::measure::Run> {
        let mut command = self.command(&["run", "--workers", "1", "--until-caught-up"]);
        run(&mut command, &self.folder.join("run.txt"))
    }

    fn live(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(&["run", "--workers", "1"]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map_err(Error::start(&command, ""))
    }

    /// The longest stall in milliseconds and the mean size of a checkpoint, of a live run to
    /// which requests come all the time.
    fn stall(&self, next: &mut u64) -> Result<(f64, f64)> {
        let live = self.live(&["--json", "--set", "checkpoint.interval=1s"])?;
        std::thread::sleep(SETTLE);
        for _ in 0..LIVE_PIECES {
            self.append(next, LIVE_PIECE)?;
            std::thread::sleep(LIVE_EVERY);
        }
        let pid = live.id().to_string();
        process::run(process::command("kill").arg(&pid), "")?;
        let output = live.wait_with_output().map_err(|e| Error::Other(format!("the live run: {e}")))?;
        let printed = json(&output.stdout)?;
        let number = |key: &str| printed["checkpoints"][key].as_f64().unwrap_or(f64::NAN);
        Ok((number("longest_stall_ms"), number("bytes") / number("taken")))
    }
}

/// Requests that wait for their play.
pub(super) struct Requests {
    /// So many begin within the fifty minutes; more begin there again.
    pub(super) in_all: u64,
    /// Every so many-th is played after all, when a quarter of all have come after it.
    pub(super) played: Option<u64>,
}

impl Requests {
    /// Writes some of them, each with its impressions.
    pub(super) fn write(&self, path: &Path, some: Range<u64>) -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for request in some {
            for n in 0..IMPRESSIONS {
                self.event(&mut file, "impression", request, n)?;
            }
            let earlier = self.played.zip(request.checked_sub(self.in_all / 4));
            if let Some((_, earlier)) = earlier.filter(|(every, earlier)| earlier.is_multiple_of(*every)) {
                self.event(&mut file, "play", earlier, 0)?;
            }
        }
        file.flush()
    }

    /// The `n`-th impression of a request, or the play of its video.
    fn event(&self, file: &mut impl Write, kind: &str, request: u64, n: u64) -> std::io::Result<()> {
        let time = START_MS + request % self.in_all * WITHIN_MS / self.in_all + n * 200;
        // Any odd number makes 64-bit ids that differ.
        let id = request.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let draw = (id ^ n << 7).wrapping_mul(0xd134_2543_de82_ef95) >> 33;
        // Few videos are shown often, most seldom: the square of an even draw.
        let video = draw % VIDEOS * (draw / VIDEOS % VIDEOS) / VIDEOS;
        writeln!(
            file,
            r#"{{"kind":"{kind}","request_id":"{id:016x}","video_id":"v{video}","timestamp":{time},"country":"BR","device":"tv"}}"#
        )
    }
}
