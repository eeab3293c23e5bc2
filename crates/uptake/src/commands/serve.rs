//! `uptake serve`: events in over HTTP, rows out. Also beside a run, as `uptake run --serve`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use clap::Args;
use serde_json::Value;
use tokio::sync::watch;
use uptake_connectors::TableError;
use uptake_connectors::log::{Durability, Log};
use uptake_connectors::objects::{self, Objects};
use uptake_connectors::table::{self, Table};
use uptake_serve::clock::Now;
use uptake_serve::rows::{RowName, TrendsRows};
use uptake_serve::settings::Secrets;
use uptake_serve::{Books, Parts, ReadUpTo, Server};

use super::{CommandError, Configured, dead_letters};
use crate::catalogue::Watched;
use crate::checkpoint::{InputPosition, Number, Store};
use crate::config::{Config, is_address};
use crate::data_dir;
use crate::outputs::notice;
use crate::traces::Traces;

/// Take events over HTTP into the log, and serve rows from the table
///
/// The collector is POST /v1/events; what was answered with 202 is in the log, which `uptake run`
/// reads. Rows are at /v1/rows/popular, loved and trending, everything else at /docs. Any number of
/// such processes may share a data directory. SIGTERM or Ctrl-C stops: what has begun is finished.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Where the log, the table and the checkpoints are
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to listen; port 0 for any that is free [default: serve.listen, 127.0.0.1:8080]
    #[arg(long, value_name = "HOST:PORT", value_parser = address)]
    listen: Option<String>,
    #[command(flatten)]
    configured: Configured,
}

/// An address on the command line.
pub(super) fn address(text: &str) -> Result<String, String> {
    if is_address(text) { Ok(text.to_owned()) } else { Err("not of the form host:port".to_owned()) }
}

impl Serve {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = self.configured.load()?;
        let _traces = Traces::start(config.traces.as_ref())?;
        let serving = Serving::start(&self.data, &config, self.listen, World::default())?;
        let stop = serving.stop.clone();
        // The first signal stops in good order, the second one at once.
        let handler = move || {
            if stop.send_replace(true) {
                std::process::exit(130);
            }
        };
        ctrlc::set_handler(handler).map_err(|error| CommandError::Other(error.into()))?;
        serving.wait()
    }
}

/// What a server finds around it.
pub(super) struct World {
    /// What time it is where the events happen.
    pub(super) now: Now,
    /// Routes beside the server's own.
    pub(super) routes: Router,
    /// A socket that listens already.
    pub(super) listener: Option<TcpListener>,
}

impl Default for World {
    /// The system's time, no other routes, and a socket of its own.
    fn default() -> Self {
        Self { now: uptake_serve::clock::system(), routes: Router::new(), listener: None }
    }
}

/// A server in threads of its own.
pub(super) struct Serving {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Serving {
    /// Listens, and serves from now on.
    pub(super) fn start(
        data: &Path,
        config: &Config,
        listen: Option<String>,
        world: World,
    ) -> Result<Self, CommandError> {
        let mut settings = config.serve.clone();
        if let Some(listen) = listen {
            settings.listen = listen;
        }
        let durability = if settings.survives_power_cut { Durability::Power } else { Durability::Process };
        let (log, notices) = data_dir::open_log(data, config, durability)?;
        notices.iter().for_each(|line| notice(line));
        let secrets = Secrets::load(&settings, &data.join("keys"))
            .map_err(|error| CommandError::Usage(error.to_string()))?;
        let parts = parts(data, config, log, world)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("serve").build()?;
        let server = runtime.block_on(Server::bind(settings, &secrets, parts))?;
        let scheme = if server.is_tls() { "https" } else { "http" };
        notice(&format!("serving on {scheme}://{}; SIGTERM or Ctrl-C stops", server.address()));
        let stop = watch::Sender::new(false);
        let mut stopping = stop.subscribe();
        let thread = std::thread::Builder::new().name("serve".to_owned()).spawn(move || {
            runtime.block_on(server.run(async move {
                // That nobody can tell us any more is a stop too.
                let _ = stopping.wait_for(|stop| *stop).await;
            }));
        })?;
        Ok(Self { stop, thread })
    }

    /// Stops in good order: what was taken is in the log when this returns.
    pub(super) fn stop(self) -> Result<(), CommandError> {
        self.stop.send_replace(true);
        self.wait()
    }

    fn wait(self) -> Result<(), CommandError> {
        match self.thread.join() {
            Ok(()) => Ok(()),
            Err(_) => Err(CommandError::Other("the server met a defect of its own and ended".into())),
        }
    }
}

fn parts(data: &Path, config: &Config, log: Arc<dyn Log>, world: World) -> Result<Parts, CommandError> {
    let places = &config.places;
    let objects = objects::open(&places.checkpoints.backend(data), objects::CHECKPOINTS, &places.s3);
    let objects: Arc<dyn Objects> = Arc::from(objects.map_err(data_dir::DataDirError::from)?);
    let (table_at, options) = (places.table.backend(data), places.cassandra.clone());
    let open_table = move || -> Result<Option<Box<dyn Table>>, TableError> {
        match table::open_read_only(&table_at, &options) {
            Ok(table) => Ok(Some(table)),
            // The run that makes it has not begun yet.
            Err(TableError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    Ok(Parts {
        log,
        open_table: Box::new(open_table),
        rows: Arc::new(TrendsRows::new(config.epoch, config.open_epochs(config.epoch), explore_rows(config))),
        books: Arc::new(Checkpoints { data: data.to_owned(), objects, config: config.clone() }),
        decode: Arc::clone(&config.decode),
        input_topics: config.input_topics.clone(),
        epoch: config.epoch,
        now: world.now,
        routes: world.routes,
        listener: world.listener,
        load_catalogue: match &config.catalogue {
            None => Box::new(|| Ok(None)),
            Some(path) => {
                let watched = Watched::new(path.clone(), config.hides_unknown_titles);
                Box::new(move || watched.changed())
            }
        },
    })
}

fn explore_rows(config: &Config) -> &[RowName] {
    if config.serve.explore_slots == 0 { &[] } else { &config.serve.explore_rows }
}

/// The books of the main cluster's newest checkpoint.
struct Checkpoints {
    data: PathBuf,
    objects: Arc<dyn Objects>,
    config: Config,
}

impl Books for Checkpoints {
    fn newest(&self) -> Result<Option<(Value, Vec<ReadUpTo>)>, String> {
        let store = Store::new(Arc::clone(&self.objects), super::run::CLUSTER);
        let manifests = store.manifests().map_err(|error| error.to_string())?;
        // One that is just being deleted, or damaged, leaves the one before it.
        let Some(manifest) = manifests.iter().rev().find_map(|(_, name)| store.manifest(name).ok()) else {
            return Ok(None);
        };
        let mut books = super::ledger::json(&manifest.ledger.total(), &self.config);
        books["checkpoint"] = Number(manifest.number).to_string().into();
        books["state_bytes"] = manifest.segments.iter().map(|segment| segment.bytes).sum::<u64>().into();
        books["spilled"] = manifest.spilled.into();
        books["created_ms"] = manifest.created_ms.into();
        books["watermark_ms"] = match manifest.watermark {
            uptake_model::EventTime::MIN => Value::Null,
            watermark => watermark.0.into(),
        };
        let read = match manifest.input {
            InputPosition::Log(partitions) => partitions
                .into_iter()
                .map(|at| ReadUpTo { topic: at.topic, partition: at.partition, offset: at.offset })
                .collect(),
            _ => Vec::new(),
        };
        Ok(Some((books, read)))
    }

    fn dead_letters(&self, limit: usize) -> Result<Value, String> {
        let log = super::existing_log(&self.data, &self.config).map_err(|error| error.to_string())?;
        dead_letters::newest(&*log, limit).map_err(|error| error.to_string())
    }

    fn replay_dead_letters(&self, reason: Option<&str>, dry_run: bool) -> Result<Value, String> {
        let done = dead_letters::again(&self.data, &self.config, reason, dry_run);
        done.map_err(|error| error.to_string())
    }
}
