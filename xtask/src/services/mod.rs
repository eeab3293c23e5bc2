//! `cargo xtask services`: a real Kafka, Cassandra and S3 server on free ports of this machine.
//!
//! They are installed once, under `target/services`, in the versions that `xtask/services/pom.xml`
//! and [`install`] name, and each `up` begins with no data. Every server has a folder with its
//! `pid`, its `log` and `start`, a script that starts it again on the same port and data.

mod install;
mod ready;
mod server;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Args, Subcommand, ValueEnum};

use crate::error::{Error, Result};
use crate::workspace::Workspace;
use server::Server;
pub(crate) use server::free_ports;

/// Start, stop and show the servers that tests run against
#[derive(Args, Debug)]
pub(crate) struct Services {
    #[command(subcommand)]
    action: Action,
    /// Where their data, logs and pids are; target/services/run if not given
    #[arg(long, global = true, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Install them if need be, start them without data, and print the variables that tests want
    Up {
        /// Which ones, separated by commas; all if not given
        #[arg(long, value_delimiter = ',')]
        only: Vec<Kind>,
    },
    /// Stop those that were started from the folder, and no other
    Down,
    /// Say which ones run
    Status,
}

/// A kind of server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// Apache Kafka.
    Kafka,
    /// Apache Cassandra.
    Cassandra,
    /// The Versity gateway, over a directory.
    S3,
}

impl Kind {
    /// All of them, the one that takes longest to install first.
    pub(crate) const ALL: [Self; 3] = [Self::S3, Self::Cassandra, Self::Kafka];

    fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Cassandra => "cassandra",
            Self::S3 => "s3",
        }
    }
}

impl Services {
    pub(crate) fn run(self) -> Result<()> {
        let workspace = Workspace::read()?;
        let folder = self.folder.unwrap_or_else(|| workspace.target.join("services/run"));
        match self.action {
            Action::Up { only } => {
                let kinds = if only.is_empty() { Kind::ALL.to_vec() } else { only };
                let variables = up(&workspace, &folder, &kinds)?;
                say("");
                for (name, value) in variables {
                    say(&format!("export {name}={value}"));
                }
                Ok(())
            }
            Action::Down => {
                let stopped = down(&folder)?;
                if stopped == 0 {
                    say(&format!("nothing runs from {}", folder.display()));
                }
                Ok(())
            }
            Action::Status => {
                for kind in Kind::ALL {
                    let server = Server::of(&folder, kind);
                    let state = server.pid().map_or("stopped".to_owned(), |pid| format!("runs, pid {pid}"));
                    say(&format!("{:<10} {state}, {}", kind.name(), server.folder().display()));
                }
                let file = folder.join("env");
                if let Ok(variables) = fs::read_to_string(&file) {
                    say(variables.trim_end());
                }
                Ok(())
            }
        }
    }
}

/// Prints a line; it is no failure that nobody reads it.
fn say(line: &str) {
    drop(writeln!(std::io::stdout().lock(), "{line}"));
}

/// Variables of the environment, by name.
pub(crate) type Variables = Vec<(String, String)>;

/// Installs and starts servers without data and waits until they answer; what ran from the folder
/// before is stopped. Returns the variables that say where they are.
///
/// # Errors
/// A server cannot be installed or does not answer; then none is left running.
pub(crate) fn up(workspace: &Workspace, folder: &Path, kinds: &[Kind]) -> Result<Variables> {
    let began = Instant::now();
    down(folder)?;
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let folder = &fs::canonicalize(folder).map_err(Error::io("find", folder))?;
    let made = start_all(workspace, folder, kinds);
    if made.is_err() {
        down(folder)?;
    }
    let mut variables = made?;
    variables.push(("UPTAKE_TEST_SERVICES".into(), folder.display().to_string()));
    let lines: String = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let file = folder.join("env");
    fs::write(&file, lines).map_err(Error::io("write", &file))?;
    say(&format!("all answer after {:.1} s", began.elapsed().as_secs_f64()));
    Ok(variables)
}

/// Servers that are stopped when this is dropped, or when this process is gone.
pub(crate) struct Running {
    folder: PathBuf,
    /// The variables that say where they are.
    pub(crate) variables: Variables,
}

impl Running {
    /// All servers, as [`up`].
    pub(crate) fn up(workspace: &Workspace, folder: PathBuf) -> Result<Self> {
        let variables = up(workspace, &folder, &Kind::ALL)?;
        let running = Self { folder, variables };
        server::stop_with_us(&running.folder)?;
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nobody is left to be told; the next `up` stops what still runs.
        drop(down(&self.folder));
    }
}

/// Installs and starts at once what is to be had: a server that is there starts while another one
/// is still being built.
fn start_all(workspace: &Workspace, folder: &Path, kinds: &[Kind]) -> Result<Variables> {
    let ports = server::free_ports(kinds.len() * server::PORTS)?;
    std::thread::scope(|scope| {
        let each = kinds.iter().zip(ports.chunks(server::PORTS));
        let threads: Vec<_> = each
            .map(|(kind, ports)| {
                scope.spawn(move || {
                    let began = Instant::now();
                    let installed = install::install(workspace, *kind)?;
                    let installing = began.elapsed().as_secs_f64();
                    let server = Server::of(folder, *kind);
                    let variables = server.create(workspace, &installed, ports)?;
                    server.start()?;
                    ready::wait(&server, *kind, ports[0])?;
                    let all = began.elapsed().as_secs_f64();
                    say(&format!(
                        "{} answers on port {} after {all:.1} s ({installing:.1} s of it to install)",
                        kind.name(),
                        ports[0]
                    ));
                    Ok(variables)
                })
            })
            .collect();
        let mut variables = Variables::new();
        let mut failed = None;
        for thread in threads {
            match thread.join() {
                Ok(Ok(more)) => variables.extend(more),
                Ok(Err(error)) => failed = Some(error),
                Err(_) => failed = Some(Error::Other("a thread that starts a server panicked".into())),
            }
        }
        failed.map_or(Ok(variables), Err)
    })
}

/// Stops the servers that were started from `folder`, also by another process and also after a
/// crash; says how many.
///
/// # Errors
/// One cannot be stopped.
pub(crate) fn down(folder: &Path) -> Result<usize> {
    let mut stopped = 0;
    for kind in Kind::ALL {
        if let Some(pid) = Server::of(folder, kind).stop()? {
            say(&format!("stopped {}, pid {pid}", kind.name()));
            stopped += 1;
        }
    }
    let file = folder.join("env");
    if file.exists() {
        fs::remove_file(&file).map_err(Error::io("remove", &file))?;
    }
    Ok(stopped)
}
