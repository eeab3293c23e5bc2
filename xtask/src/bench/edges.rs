//! The reference workload from a real Kafka: into the embedded table, and into Cassandra and S3.
//!
//! The servers run on the same processors, so their time is in the wall time. uptake's own CPU time
//! and the run without Cassandra say where the time goes.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::measure::{Run, run, run_for_json, say_run};
use super::recovery;
use super::report::{EdgesReport, Figures, RecoveryReport, Spread};
use crate::error::{Error, Result};
use crate::process;
use crate::services;
use crate::workspace::Workspace;

/// What keeps the topics apart from those of others.
const PREFIX: &str = "bench-";

/// Starts servers of its own, and measures with one worker; `input` has `lines` events.
///
/// # Errors
/// A server or a program fails, or not everything was read.
pub(super) fn measure(workspace: &Workspace, input: &Path, lines: u64, runs: u32) -> Result<EdgesReport> {
    let servers = services::Running::up(workspace, workspace.target.join("services/bench"))?;
    let folder = super::Fresh::new(workspace.target.join("bench/edges"))?;
    std::fs::create_dir_all(&folder.0).map_err(Error::io("make the folder", &folder.0))?;
    let bench = Bench { workspace, variables: &servers.variables, folder: folder.0.clone() };
    bench.run(bench.command("migrate", "append", &bench.kafka()?))?;
    let mut append = bench.command("append", "append", &bench.kafka()?);
    append.arg(input);
    let appended = bench.run(append)?;
    let (mut embedded, mut remote) = (Vec::new(), Vec::new());
    for n in 0..=runs {
        say_run("edges", n, runs);
        let of_embedded = bench.count(&format!("embedded{n}"), &bench.kafka()?, lines)?;
        let settings = [bench.kafka()?, bench.stores(n)?].concat();
        bench.run(bench.command("migrate", &format!("remote{n}"), &settings))?;
        let of_remote = bench.count(&format!("remote{n}"), &settings, lines)?;
        if n > 0 {
            embedded.push(of_embedded);
            remote.push(of_remote);
        }
    }
    // In this order: the sink alone leaves its server with something to do for a while.
    eprintln!("edges: the source and the sink alone");
    let alone = ["kafka-source", "cassandra-table"];
    let alone = super::parts(workspace, "edges", &alone, &servers.variables, runs)?;
    let rate = |runs: &[Run]| Spread::of(runs.iter().map(|run| lines as f64 / run.wall_s));
    Ok(EdgesReport {
        lines,
        appended_per_s: Spread::of([lines as f64 / appended.wall_s]),
        embedded_per_s: rate(&embedded),
        remote_per_s: rate(&remote),
        embedded: Figures::of(&embedded, lines),
        remote: Figures::of(&remote, lines),
        alone,
    })
}

/// What [`recovery::measure`] measures, from a real Kafka and with checkpoints on a real S3 server.
///
/// # Errors
/// A server or a program fails, or the device is full.
pub(super) fn recovery(workspace: &Workspace, runs: u32) -> Result<RecoveryReport> {
    let servers = services::Running::up(workspace, workspace.target.join("services/bench"))?;
    let bench = Bench { workspace, variables: &servers.variables, folder: PathBuf::new() };
    recovery::measure(workspace, runs, &[bench.kafka()?, bench.archive(0)?].concat())
}

struct Bench<'a> {
    workspace: &'a Workspace,
    variables: &'a [(String, String)],
    folder: PathBuf,
}

impl Bench<'_> {
    fn variable(&self, name: &str) -> Result<&str> {
        let found = self.variables.iter().find(|(known, _)| known == name);
        let missing = || Error::Other(format!("the servers did not say {name}"));
        found.map(|(_, value)| value.as_str()).ok_or_else(missing)
    }

    fn kafka(&self) -> Result<Vec<String>> {
        let url = format!("log.url=kafka://{}", self.variable("UPTAKE_TEST_KAFKA")?);
        Ok(vec![url, format!("kafka.topic_prefix={PREFIX}"), format!("kafka.group={PREFIX}group")])
    }

    /// A setting of what a variable says.
    fn of(&self, key: &str, name: &str) -> Result<String> {
        Ok(format!("{key}={}", self.variable(name)?))
    }

    /// A table and an archive of their own for each run.
    fn stores(&self, n: u32) -> Result<Vec<String>> {
        let table = vec![
            format!("table.url=cassandra://{}/bench{n}", self.variable("UPTAKE_TEST_CASSANDRA")?),
            self.of("cassandra.user", "UPTAKE_TEST_CASSANDRA_USER")?,
            self.of("cassandra.password", "UPTAKE_TEST_CASSANDRA_PASSWORD")?,
            "cassandra.replication=1".to_owned(),
            "cassandra.consistency=ONE".to_owned(),
        ];
        Ok([table, self.archive(n)?].concat())
    }

    /// An archive, which the checkpoints stand beside.
    fn archive(&self, n: u32) -> Result<Vec<String>> {
        Ok(vec![
            format!("archive.url=s3://{}/bench{n}", self.variable("UPTAKE_TEST_S3_BUCKET")?),
            self.of("s3.endpoint", "UPTAKE_TEST_S3")?,
            "s3.allow_http=true".to_owned(),
            "s3.region=us-east-1".to_owned(),
            self.of("s3.access_key_id", "UPTAKE_TEST_S3_KEY")?,
            self.of("s3.secret_access_key", "UPTAKE_TEST_S3_SECRET")?,
        ])
    }

    fn command(&self, what: &str, data: &str, settings: &[String]) -> Command {
        let mut command = process::command(self.workspace.target.join("release/uptake"));
        command.arg(what).arg("--data").arg(self.folder.join(data));
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        command
    }

    fn run(&self, mut command: Command) -> Result<Run> {
        run(&mut command, &self.folder.join("said.txt"))
    }

    /// Reads the topics from their start to their end, with nothing kept from before.
    fn count(&self, data: &str, settings: &[String], lines: u64) -> Result<Run> {
        let mut command = self.command("run", data, settings);
        command.args([
            "--workers",
            "1",
            "--until-caught-up",
            "--json",
            "--set",
            "join.request_events_max=off",
        ]);
        let (took, books) = run_for_json(&mut command, &self.folder.join("said.txt"))?;
        match books["read"].as_u64() == Some(lines) {
            true => Ok(took),
            false => Err(Error::Other(format!("{lines} events are in the log, and the run says {books}"))),
        }
    }
}
