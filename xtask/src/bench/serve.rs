//! The collector and the rows over HTTP, beside a server that does nothing for its answers (the floor); how many
//! subscribers it holds; and what becomes of clients that send too much or too slowly.
//!
//! For the collector, server and client have a processor each where the system lets them be bound to one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use wait4::Wait4;

use super::measure::say_run;
use super::report::{ServeReport, Spread};
use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// Batches of 20 events.
const BATCHES: u64 = 40_000;
const EVENTS_OF_A_BATCH: u64 = 20;
const ROWS_SECONDS: &str = "20";
/// How long a server may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);

/// Measures; `input` is what the table is made of.
///
/// # Errors
/// A program fails, or says what cannot be read.
pub(super) fn measure(workspace: &Workspace, input: &Path, runs: u32) -> Result<ServeReport> {
    let folder = super::Fresh::new(workspace.target.join("bench/serve"))?;
    fs::create_dir_all(&folder.0).map_err(Error::io("make the folder", &folder.0))?;
    let bench = Bench { target: workspace.target.clone(), folder: folder.0.clone() };
    eprintln!("serve: a table of 10,000 titles");
    process::output(&mut super::replay(workspace, input, &bench.folder.join("data"), 1), "")?;
    let (mut per_s, mut batch_ms, mut collector_ratio, mut server_cpu) = (vec![], vec![], vec![], vec![]);
    let (mut row_p50, mut row_p99, mut rows_ratio) = (vec![], vec![], vec![]);
    for n in 0..=runs {
        say_run("serve", n, runs);
        let batches = BATCHES.to_string();
        let collector = ["collector", "--batches", &batches];
        let rows = ["rows", "--seconds", ROWS_SECONDS];
        let (_, of_floor) = bench.run(Bound::Apart, &bench.floor(), &collector)?;
        let (said, of_server) = bench.run(Bound::Apart, &bench.server("serve", &[]), &collector)?;
        let (_, rows_of_floor) = bench.run(Bound::Not, &bench.floor(), &rows)?;
        let (rows_said, rows_of_server) = bench.run(Bound::Not, &bench.server("serve", &[]), &rows)?;
        if n == 0 {
            continue;
        }
        let number = |said: &Value, path: &str| {
            let found = said.pointer(path).and_then(Value::as_f64);
            found.ok_or_else(|| Error::Other(format!("the client says no {path}: {said}")))
        };
        per_s.push(number(&said, "/events_per_s")?);
        batch_ms.push(number(&said, "/batch_ms/p99")?);
        collector_ratio.push(of_server / of_floor);
        server_cpu.push(of_server * 1e6 / (BATCHES * EVENTS_OF_A_BATCH) as f64);
        row_p50.push(number(&rows_said, "/ms/p50")?);
        row_p99.push(number(&rows_said, "/ms/p99")?);
        rows_ratio.push(rows_of_server / rows_of_floor);
    }
    eprintln!("serve: subscribers, and clients that misbehave");
    let live = bench.server("run", &["join.request_events_max=off"]);
    let (streams, _) = bench.run(Bound::Not, &live, &["streams", "--connections", "10000"])?;
    let (hostile, _) = bench.run(Bound::Not, &bench.server("serve", &[]), &["hostile"])?;
    Ok(ServeReport {
        events: BATCHES * EVENTS_OF_A_BATCH,
        events_per_s: Spread::of(per_s),
        batch_p99_ms: Spread::of(batch_ms),
        cpu_us_per_event: Spread::of(server_cpu),
        collector_cpu_ratio: Spread::of(collector_ratio),
        row_p50_ms: Spread::of(row_p50),
        row_p99_ms: Spread::of(row_p99),
        rows_cpu_ratio: Spread::of(rows_ratio),
        streams,
        hostile,
    })
}

struct Bench {
    target: PathBuf,
    folder: PathBuf,
}

/// Where server and client run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bound {
    /// On a processor each.
    Apart,
    /// Wherever there is one.
    Not,
}

/// A program and its arguments.
type Line = Vec<String>;

impl Bench {
    fn load(&self) -> String {
        self.target.join("release/examples/load").display().to_string()
    }

    fn floor(&self) -> Line {
        vec![self.load(), "floor".to_owned()]
    }

    /// `uptake serve`, or `uptake run` that serves.
    fn server(&self, what: &str, settings: &[&str]) -> Line {
        let listen = if what == "run" { "--serve" } else { "--listen" };
        let program = self.target.join("release/uptake").display().to_string();
        let data = self.folder.join("data").display().to_string();
        let mut line: Line =
            [&program, what, "--data", &data, listen, "127.0.0.1:0"].map(str::to_owned).into();
        let open = ["serve.rate_per_second=off", "serve.connections_max=12000", "serve.streams_max=11000"];
        for setting in open.iter().chain(settings) {
            line.extend(["--set".to_owned(), (*setting).to_owned()]);
        }
        line
    }

    /// Starts a server, has a client ask it, and ends it: what the client said, and the CPU seconds of the server.
    fn run(&self, bound: Bound, server: &Line, client: &[&str]) -> Result<(Value, f64)> {
        let said = self.folder.join("said.txt");
        let file = File::create(&said).map_err(Error::io("create", &said))?;
        let other = file.try_clone().map_err(Error::io("open", &said))?;
        let mut command = bound.command(0, server);
        // A run ends when its standard input does; this one stays.
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(other)
            .spawn()
            .map_err(Error::start(&command, ""))?;
        let answer = self.address(&said).and_then(|at| {
            let mut line: Line = vec![self.load()];
            line.extend(client.iter().map(|text| (*text).to_owned()));
            line.extend(["--at".to_owned(), at]);
            let mut command = bound.command(1, &line);
            let answer = process::output(&mut command, "")?;
            serde_json::from_slice::<Value>(&answer).map_err(Error::answer(&command))
        });
        // It has written down all that it took: nothing is left to be done.
        let killed = child.kill();
        let used = child.wait4().map_err(Error::start(&command, ""))?;
        killed.map_err(|error| Error::Other(format!("cannot end the server: {error}")))?;
        Ok((answer?, (used.rusage.utime + used.rusage.stime).as_secs_f64()))
    }

    /// What the server says of where it is.
    fn address(&self, said: &Path) -> Result<String> {
        let begun = Instant::now();
        while begun.elapsed() < BEGINS_WITHIN {
            let text = fs::read_to_string(said).map_err(Error::io("read", said))?;
            if let Some((_, rest)) = text.split_once("serving on http://") {
                let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
                if let Some(end) = end {
                    return Ok(rest[..end].trim_end_matches(['.', ':']).to_owned());
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let text = fs::read_to_string(said).unwrap_or_default();
        Err(Error::Other(format!("the server did not say where it is: {text}")))
    }
}

impl Bound {
    /// A program on that processor, where there is `taskset` and more than one.
    fn command(self, processor: u32, line: &Line) -> Command {
        let has_two = std::thread::available_parallelism().is_ok_and(|n| n.get() > 1);
        if self == Self::Apart && has_two && process::command("taskset").arg("--version").output().is_ok() {
            let mut command = process::command("taskset");
            command.args(["-c", &processor.to_string()]).args(line);
            return command;
        }
        let mut command = process::command(&line[0]);
        command.args(&line[1..]);
        command
    }
}
