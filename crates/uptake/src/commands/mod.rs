//! The command line.

mod append;
mod backfill;
mod canary;
mod dead_letters;
mod demo;
mod doctor;
mod erase;
mod eval;
mod explain;
mod export;
mod late;
mod ledger;
mod manual;
mod migrate;
mod place;
mod replay;
mod rows;
mod run;
mod serve;
mod show;
mod simulate;
mod supervise;
mod tallies;
pub(crate) mod text;
mod top;
mod whole;
mod why;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use uptake_connectors::input::{EventFiles, InputOptions};
use uptake_connectors::log::{self, Log, StoredRef};
use uptake_connectors::objects::Objects;
use uptake_connectors::table::Table;
use uptake_connectors::{
    ArchiveError, Backend, FailureKind, InputError, LogError, ObjectsError, RemoteError, TableError,
};
use uptake_connectors::{notices, objects};
use uptake_model::ledger::Ledger;

use crate::checkpoint::{CheckpointError, Store};
use crate::config::{Config, ConfigError, Place, reference};
use crate::data_dir::{self, DataDirError};
use crate::engine::EngineError;
use crate::outputs::notice;

/// The exit code where the same command may work later (EX_TEMPFAIL).
const TRY_AGAIN: u8 = 75;

/// The exit code of what failed because a server (Kafka, Cassandra, S3) does not answer.
const AWAY: u8 = 69;

/// Turns what people are shown and what they play into tallies, counting every request once.
#[derive(Parser, Debug)]
#[command(version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Read event files to their end, join, count, and write table and archive
    Replay(replay::Replay),
    /// Read the log as it grows, join, count, and write table and archive, until told to stop
    Run(run::Run),
    // Its long help stands with its arguments.
    Serve(serve::Serve),
    /// Append event files to the log, as a producer would
    Append(append::Append),
    // Its long help stands with its arguments.
    Backfill(backfill::Backfill),
    /// List what could not be used, or append it again after a fix
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// List what came too late
    #[command(subcommand)]
    Late(late::Late),
    /// Print what became of every record that was read, as of the last checkpoint
    Ledger(ledger::LedgerOf),
    // Its long help stands with its arguments.
    Doctor(doctor::Doctor),
    /// Print the tallies of a segment
    Tallies(tallies::Tallies),
    /// Print the most played videos of an epoch
    Top(top::Top),
    /// Print a row: what is popular, loved or trending
    Rows(rows::Rows),
    /// Say why a title stands in a row, or what it lacks to
    Why(why::Why),
    /// Say what a title lacks to stand in a row; the same answer as `why`
    WhyNot(why::Why),
    /// Judge a scorer by a log of what was served, or by what came next
    Eval(eval::Eval),
    /// Say what is known of a request or of a video's tally
    #[command(subcommand)]
    Explain(explain::Explain),
    /// Write joined events, late events, dead letters or served rows as Parquet
    #[command(subcommand)]
    Export(export::Export),
    // Its long help stands with its arguments.
    Erase(erase::Erase),
    // Its long help stands with its arguments.
    Canary(canary::Canary),
    // Its long help stands with its arguments.
    Demo(demo::Demo),
    /// Count a generated (or given) stream of events before your eyes, in the terminal
    Show(show::Show),
    // Its long help stands with its arguments.
    Simulate(simulate::Simulate),
    /// Make the topics and tables that are missing where the URLs point, and say what is there
    Migrate(migrate::Migrate),
    /// Print the configuration reference: every key with its default
    Config,
    // Its long help stands with its arguments.
    Completions(manual::Completions),
    /// Print the manual page, or write one for each command
    Man(manual::Man),
}

/// How a run is configured.
#[derive(Args, Debug, Clone, Default)]
struct Configured {
    /// A configuration file (TOML); see `uptake config`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting, as join.kind=left; wins over the file; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

impl Configured {
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), &self.settings)
    }

    /// The same as arguments of another command.
    fn arguments(&self) -> Vec<OsString> {
        let file = self.config.iter().flat_map(|file| ["--config".into(), file.clone().into_os_string()]);
        file.chain(self.settings.iter().flat_map(|one| ["--set".into(), one.into()])).collect()
    }
}

/// A duration as in the configuration.
fn duration(text: &str) -> Result<Duration, String> {
    let span: Option<jiff::Span> = text.parse().ok();
    let exact = span.and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).ok());
    match exact.and_then(|exact| Duration::try_from(exact).ok()) {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("not a duration, as 30s, 5min or 1h".to_owned()),
    }
}

/// Where something must be there: a command that only looks makes no data directory.
fn existing(data: &Path, place: &Place) -> Result<Backend, CommandError> {
    match !place.is_data() || is_directory(data)? {
        true => Ok(place.backend(data)),
        false => Err(CommandError::Usage(format!("{}: there is no such directory", data.display()))),
    }
}

/// Whether there is such a directory. One that cannot be looked at is an error, and not a missing one.
fn is_directory(path: &Path) -> Result<bool, CommandError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(cannot("look at", path.display())(error)),
    }
}

/// For `map_err`: what the system did not let us do, and with what.
fn cannot(operation: &'static str, what: impl fmt::Display) -> impl FnOnce(io::Error) -> CommandError {
    move |source| CommandError::System { operation, what: what.to_string(), source }
}

/// This program, to be run once more.
fn this_program() -> Result<PathBuf, CommandError> {
    std::env::current_exe().map_err(cannot("find", "this program's own file"))
}

/// The checkpoints of a cluster that are there.
fn existing_checkpoints(data: &Path, config: &Config, cluster: &str) -> Result<Store, CommandError> {
    Ok(Store::new(existing_objects(data, config)?, cluster))
}

/// The checkpoints of all clusters that are there.
fn existing_objects(data: &Path, config: &Config) -> Result<Arc<dyn Objects>, CommandError> {
    let backend = existing(data, &config.places.checkpoints)?;
    let objects = objects::open(&backend, objects::CHECKPOINTS, &config.places.s3);
    Ok(Arc::from(objects.map_err(DataDirError::from)?))
}

/// Opens event files; says which of a folder's are left out.
fn event_files(paths: &[PathBuf]) -> Result<EventFiles, CommandError> {
    let files = EventFiles::open(paths, InputOptions::default())?;
    for path in files.skipped() {
        notice(&format!("not read, its name is not that of an event file: {}", path.display()));
    }
    Ok(files)
}

/// An error if the books that were just printed do not balance.
fn balanced(ledger: &Ledger) -> Result<(), CommandError> {
    if ledger.balances() {
        return Ok(());
    }
    let message =
        "the ledger does not balance: this is a defect of uptake, please report it with the ledger above";
    Err(CommandError::Other(message.into()))
}

/// Says of each file that was not read to its end why.
///
/// # Errors
/// That of the last one, if there is any.
fn all_read(mut errors: Vec<InputError>) -> Result<(), CommandError> {
    let last = errors.pop();
    errors.iter().for_each(|error| notice(&error.to_string()));
    last.map_or(Ok(()), |error| Err(error.into()))
}

/// Who counts from nothing into a table that has rows is told that the larger row stays: the rows of two inputs are
/// not added up, because the same input may be counted twice.
fn tell_tallies_from_before(table: &dyn Table, place: &Backend) -> Result<(), CommandError> {
    if !table.is_empty()? {
        notice(&format!(
            "{} has tallies from before. Of a row that is there already the larger one stays, they are not added up: \
             right for the same input once more, and for epochs that are new. Other input of the same epochs is added \
             by uptake backfill",
            data_dir::shown(place)
        ));
    }
    Ok(())
}

/// Whether the log is elsewhere, or in the data directory: a replay leaves none.
fn may_have_log(data: &Path, config: &Config) -> Result<bool, CommandError> {
    Ok(!config.places.log.is_data() || is_directory(&data.join("log"))?)
}

/// Opens the log of a data directory that is there, or the log elsewhere.
fn existing_log(data: &Path, config: &Config) -> Result<Box<dyn Log>, CommandError> {
    let backend = existing(data, &config.places.log)?;
    if !may_have_log(data, config)? {
        return Err(CommandError::Usage(format!("{} holds no log: it is no data directory", data.display())));
    }
    let (log, recovered) = log::open(&backend, config.places.log_options())?;
    data_dir::repaired(&recovered).for_each(|line| notice(&line));
    Ok(log)
}

/// Records that are read at once.
const READ_RECORDS: usize = 16_384;
const READ_BYTES: usize = 4 << 20;

/// Shows each record that a partition of a topic has now. What is shown is the log's own memory: who wants to
/// append meanwhile reads copies.
fn each_record(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    see: &mut dyn FnMut(StoredRef<'_>),
) -> Result<(), LogError> {
    let (mut next, end) = (log.start_offset(topic, partition)?, log.end_offset(topic, partition)?);
    while next < end {
        next = log.read_each(topic, partition, next, READ_RECORDS, READ_BYTES, see)?;
    }
    Ok(())
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// What was typed is wrong; nothing was done.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong; nothing was done.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The input cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] crate::data_dir::DataDirError),
    /// The table cannot be used.
    #[error(transparent)]
    Table(#[from] uptake_connectors::TableError),
    /// The run stopped.
    #[error(transparent)]
    Run(#[from] crate::engine::EngineError),
    /// The log cannot be used.
    #[error(transparent)]
    Log(#[from] uptake_connectors::LogError),
    /// The archive cannot be used.
    #[error(transparent)]
    Archive(#[from] uptake_connectors::ArchiveError),
    /// The checkpoints cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    /// The server cannot begin.
    #[error(transparent)]
    Serve(#[from] uptake_serve::ServeError),
    /// Spans cannot be sent.
    #[error("cannot send spans to traces.url: {0}")]
    Traces(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The system does not let us do something.
    #[error("cannot {operation} {what}")]
    System {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something else.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
    /// Nobody reads what is printed, or it cannot be written.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

impl CommandError {
    /// 2 for what the caller can put right by typing it otherwise: also where a path names nothing, and where a
    /// configuration does not fit what is there. 75 where other processes of the
    /// cluster are away and 69 where a server is, so that the same may work later, 1 for everything
    /// else.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_)
            | Self::Config(_)
            | Self::Input(InputError::Nothing | InputError::Paths { .. })
            | Self::Table(TableError::Missing { .. })
            | Self::DataDir(DataDirError::OtherMeaning { .. }) => ExitCode::from(2),
            Self::Run(EngineError::Run(error)) if error.is_of_the_cluster() => ExitCode::from(TRY_AGAIN),
            _ if self.says_that_a_server_is_away() => ExitCode::from(AWAY),
            _ => ExitCode::FAILURE,
        }
    }

    fn says_that_a_server_is_away(&self) -> bool {
        let of = |error: &RemoteError| error.kind == FailureKind::Transient;
        let of_log =
            |error: &LogError| matches!(error, LogError::Remote { kind: FailureKind::Transient, .. });
        match self {
            Self::Log(error) | Self::DataDir(DataDirError::Log(error)) => of_log(error),
            Self::Table(TableError::Remote(error))
            | Self::Archive(ArchiveError::Remote(error))
            | Self::DataDir(
                DataDirError::Table(TableError::Remote(error))
                | DataDirError::Archive(ArchiveError::Remote(error))
                | DataDirError::Objects(ObjectsError::Remote(error)),
            )
            | Self::Checkpoint(CheckpointError::Objects(ObjectsError::Remote(error))) => of(error),
            _ => false,
        }
    }

    /// Whether the reader of our output went away, as `head` does, which is no failure.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Print(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Cli {
    /// Runs the command that was asked for.
    ///
    /// # Errors
    /// What went wrong, to be printed.
    pub fn run(self) -> Result<(), CommandError> {
        notices::is_json().map_err(CommandError::Usage)?;
        match self.command {
            Command::Replay(replay) => replay.run(),
            Command::Run(run) => run.run(),
            Command::Serve(serve) => serve.run(),
            Command::Append(append) => append.run(),
            Command::Backfill(backfill) => backfill.run(),
            Command::DeadLetters(dead_letters) => dead_letters.run(),
            Command::Late(late) => late.run(),
            Command::Ledger(ledger) => ledger.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Erase(erase) => erase.run(),
            Command::Canary(canary) => canary.run(),
            Command::Tallies(tallies) => tallies.run(),
            Command::Top(top) => top.run(),
            Command::Rows(rows) => rows.run(),
            Command::Why(why) | Command::WhyNot(why) => why.run(),
            Command::Eval(eval) => eval.run(),
            Command::Explain(explain) => explain.run(),
            Command::Export(export) => export.run(),
            Command::Demo(demo) => demo.run(),
            Command::Show(show) => show.run(),
            Command::Simulate(simulate) => simulate.run(),
            Command::Migrate(migrate) => migrate.run(),
            Command::Completions(completions) => completions.run(),
            Command::Man(man) => man.run(),
            Command::Config => Ok(io::Write::write_all(&mut io::stdout().lock(), reference().as_bytes())?),
        }
    }
}
