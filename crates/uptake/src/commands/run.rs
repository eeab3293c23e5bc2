//! `uptake run`: the log in as it grows, tallies out, until told to stop.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use uptake_flow::{Cluster, Halt};

use super::replay::workers_or_all;
use super::serve::{Serving, World};
use super::supervise::{SUPERVISED, supervise};
use super::text::grouped;
use super::{CommandError, Configured, tell_tallies_from_before};
use crate::checkpoint::{InputPosition, PartitionPosition, Restored, Store};
use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::{self, DataDir};
use crate::engine::{self, Checkpointing, Setup, log_positions, state_meaning, within_log};
use crate::outputs::notice;
use crate::stages::collect::{Input, LogInput};
use crate::stages::spill::Spill;
use crate::traces::Traces;

/// The name of a cluster that was given none.
pub(super) const CLUSTER: &str = "main";

/// Read the log as it grows, join, count, and write table and archive, until told to stop
#[derive(Args, Debug)]
pub(super) struct Run {
    /// Where the log, the table, the archive and the checkpoints are
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Worker threads of each process [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// The name of this cluster: a second one beside it reads the same log and writes the same table
    #[arg(long, value_name = "NAME", default_value = CLUSTER, value_parser = cluster_name)]
    cluster: String,
    /// Restart after a failure, from the last checkpoint
    #[arg(long)]
    supervise: bool,
    /// A file with a line `host:port` for each process of the cluster; a private network
    #[arg(long, value_name = "FILE", requires = "process")]
    hosts: Option<PathBuf>,
    /// Which line of the hosts file this process is, from 0
    #[arg(long, value_name = "I", requires = "hosts")]
    process: Option<usize>,
    /// Also take events and serve rows at this address, as `uptake serve` does
    #[arg(long, value_name = "HOST:PORT", value_parser = super::serve::address)]
    serve: Option<String>,
    /// Stop when everything that is in the log now has been read and written
    #[arg(long)]
    until_caught_up: bool,
    /// When it stops, print the ledger and what its checkpoints took as JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// A cluster's name is part of the names of its checkpoints.
fn cluster_name(text: &str) -> Result<String, String> {
    let ok = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if text.starts_with(super::replay::PREFIX) {
        return Err("names that begin with replay- are those of replays".to_owned());
    }
    if !text.is_empty() && text.len() <= 60 && text.bytes().all(ok) {
        return Ok(text.to_owned());
    }
    Err("a name is of lower-case letters, digits, - and _, at most 60".to_owned())
}

impl Run {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = Arc::new(self.configured.load()?);
        let _traces = Traces::start(config.traces.as_ref())?;
        let addresses = self.hosts.as_deref().map(hosts).transpose()?;
        let process = self.process.unwrap_or(0);
        if let Some(addresses) = &addresses
            && process >= addresses.len()
        {
            let n = addresses.len();
            return Err(CommandError::Usage(format!(
                "--process {process}: the hosts file names {n} processes, 0 to {}",
                n - 1
            )));
        }
        if self.supervise {
            return supervise(self.until_caught_up);
        }
        let halt = Halt::default();
        stop_on_signal(&halt)?;
        let data = DataDir::open(&self.data, &config)?;
        data.notices.iter().for_each(|line| notice(line));
        let lock = format!("{}-{process}", self.cluster);
        let _lock = data_dir::lock(&self.data, &lock)?;
        let spill = Spill::new(&self.data, &lock, &config);
        let store = Store::new(Arc::clone(&data.objects), self.cluster.clone())
            .spooling_to(spill.as_ref().map(|spill| spill.folder.as_path()));
        let (restored, refused) = Restored::newest(&store, &state_meaning(&config))?;
        refused.iter().for_each(|line| notice(line));
        if restored.is_none() {
            tell_tallies_from_before(&*data.table, &config.places.table.backend(&self.data))?;
        }
        let mut partitions = log_positions(&*data.log, &config.input_topics, restored.as_ref())?;
        within_log(&*data.log, &config, &mut partitions, restored.as_ref())?;
        tell_topics_from_before(&partitions, &config);
        let until = match self.until_caught_up {
            true => Some(ends(&data, &partitions, &config)?),
            false => None,
        };
        let cluster = addresses.map(|addresses| {
            let restored = restored.as_ref().map(|r| r.manifest.number);
            Cluster {
                process,
                addresses,
                fingerprint: fingerprint(&config, &self.cluster, restored),
                start_deadline: config.cluster_start_deadline,
                progress_deadline: config.cluster_progress_deadline,
            }
        });
        let start_serving = |listen| Serving::start(&self.data, &config, Some(listen), World::default());
        let serving = self.serve.map(start_serving).transpose()?;
        let topics = config.input_topics.join(", ");
        let read = partitions.iter().filter(|position| config.reads(&position.topic)).count();
        notice(&format!("reading {topics}: {read} partitions; SIGTERM or Ctrl-C stops"));
        let printed_by = Arc::clone(&config);
        let finished = engine::run(
            Setup {
                workers: workers_or_all(self.workers),
                input: Input::Log(Arc::new(LogInput { partitions: partitions.clone(), until })),
                seals_at_end: false,
                spill,
                keeping: None,
                checkpoints: Some(Checkpointing { store, restored, start: InputPosition::Log(partitions) }),
                halt,
                cluster,
                clock: Clock::system(),
                schedule: None,
                config,
                data,
            },
            None,
        );
        // What the server took is in the log by then, for the next run to read.
        if let Some(serving) = serving {
            serving.stop()?;
        }
        let finished = finished?;
        let (total, taken) = (finished.ledger.total(), finished.checkpoints);
        if self.json {
            let mut printed = super::ledger::json(&total, &printed_by);
            printed["checkpoints"] = super::ledger::checkpoints_json(taken);
            writeln!(std::io::stdout().lock(), "{printed}")?;
        }
        notice(&format!(
            "stopped: {} records read, {} counted; {} checkpoints, the longest took {} ms; \
             going on from here next time",
            grouped(total.read),
            grouped(total.counted),
            taken.taken,
            taken.longest.as_millis()
        ));
        Ok(())
    }
}

/// The offset where each partition ends now; of those that are not read, where it was read to.
fn ends(data: &DataDir, partitions: &[PartitionPosition], config: &Config) -> Result<Vec<u64>, CommandError> {
    let end = |p: &PartitionPosition| match config.reads(&p.topic) {
        true => data.log.end_offset(&p.topic, p.partition),
        false => Ok(p.offset),
    };
    Ok(partitions.iter().map(end).collect::<Result<_, _>>()?)
}

/// Says which topics of the checkpoint are not read any more.
fn tell_topics_from_before(partitions: &[PartitionPosition], config: &Config) {
    let topics: BTreeSet<&str> = partitions.iter().map(|position| position.topic.as_str()).collect();
    for topic in topics.into_iter().filter(|topic| !config.reads(topic)) {
        notice(&format!(
            "topic {topic} is not in input.topics and is not read any more; what was read stays counted"
        ));
    }
}

/// The addresses in a hosts file.
fn hosts(path: &Path) -> Result<Vec<String>, CommandError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| CommandError::Usage(format!("--hosts {}: {error}", path.display())))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    let addresses: Vec<String> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let wrong: Vec<&String> = addresses
        .iter()
        .filter(|a| {
            a.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        })
        .collect();
    if addresses.is_empty() || !wrong.is_empty() {
        return Err(CommandError::Usage(format!(
            "--hosts {}: a line `host:port` is needed for each process; wrong: {wrong:?}",
            path.display()
        )));
    }
    Ok(addresses)
}

/// What the processes of a cluster must agree on.
fn fingerprint(config: &Config, cluster: &str, restored: Option<u64>) -> u64 {
    let text = format!("{} {config:?} {cluster} {restored:?}", env!("CARGO_PKG_VERSION"));
    uptake_model::RequestId::from_text(text.as_bytes()).0
}

/// The first signal stops the run in good order, the second one at once. Under a supervisor the
/// end of the supervisor does the same as a signal.
fn stop_on_signal(halt: &Halt) -> Result<(), CommandError> {
    let (halting, signalled) = (halt.clone(), AtomicBool::new(false));
    // Of a signal to a whole process group the supervisor may tell first: that is still the first.
    let handler = move || {
        if signalled.swap(true, Ordering::AcqRel) {
            std::process::exit(130);
        }
        halting.halt();
    };
    ctrlc::set_handler(handler).map_err(|error| CommandError::Other(error.into()))?;
    if std::env::var_os(SUPERVISED).is_some() {
        let halt = halt.clone();
        std::thread::spawn(move || {
            // Nothing is ever written there: it ends when the supervisor closes it or dies.
            let _ = std::io::stdin().read(&mut [0]);
            halt.halt();
        });
    }
    Ok(())
}
