//! A deployment on this machine, with its crowd.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use uptake_connectors::log::Durability;
use uptake_connectors::table::{SqliteTable, Table};
use uptake_model::Epoch;
use uptake_sim::{Moment, Season};

use super::Demo;
use super::control::{Check, Shared, routes};
use super::others::Others;
use super::pipeline::Pipeline;
use crate::commands::append::Producer;
use crate::commands::serve::{Serving, World};
use crate::commands::simulate::{counting, failed};
use crate::commands::{CommandError, Configured, balanced, cannot, ledger};
use crate::config::Config;
use crate::crowd::{Crowd, Options, Report, Site, SiteError, Tallies};
use crate::data_dir;

/// What came before a moment is of as many hours.
const HISTORY_HOURS: i64 = 48;
const HOUR: i64 = 3_600_000;
/// At the end nothing was taken for as long: the rest is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the tallies may take to be complete at the end.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// How often past tallies are compared.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Epochs in which something may still come: reports are kept for an hour.
const EPOCHS_OPEN: i64 = 4;

/// What differs from the defaults: whoever configures one of these wins.
const SETTINGS: [&str; 7] = [
    "join.kind=left",
    "table.write_interval=200ms",
    "batch.tick=100ms",
    "checkpoint.interval=2s",
    "serve.rate_per_second=off",
    "serve.connections_max=2000",
    "rows.places=12",
];

/// A deployment whose history was counted.
pub(super) struct Prepared {
    folder: PathBuf,
    moment: Moment,
    config: Config,
    settings: Vec<OsString>,
    crowd: Arc<Crowd>,
    others: Arc<Mutex<Others>>,
}

/// One that runs.
pub(super) struct Deployment {
    prepared: Prepared,
    serving: Serving,
    pipeline: Pipeline,
    runtime: Runtime,
    running: JoinHandle<()>,
}

impl Deployment {
    /// Makes a data directory in which what happened before `moment` is counted.
    pub(super) fn prepare(
        demo: &Demo,
        folder: &Path,
        moment: Moment,
        shared: &Arc<Shared>,
    ) -> Result<Prepared, CommandError> {
        let titles = folder.join("titles.csv");
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&titles, Season::real().catalogue()));
        written.map_err(cannot("write to", folder.display()))?;
        let mut all: Vec<String> = SETTINGS.map(str::to_owned).to_vec();
        all.push(format!("rows.catalogue={}", titles.display()));
        all.extend(demo.configured.settings.iter().cloned());
        let configured = Configured { config: demo.configured.config.clone(), settings: all };
        let config = configured.load()?;
        let settings = configured.arguments();

        let site = Site::new(&format!("http://{}", demo.listen), None).map_err(|error| failed(&error))?;
        let options = Options {
            seed: demo.seed,
            visits_per_second: demo.visits_per_second,
            speed: demo.speed,
            counting: counting(&config),
            season_from: moment.at_ms - HISTORY_HOURS * HOUR,
            robot: true,
        };
        let clock = Arc::clone(&shared.clock);
        let crowd = Crowd::new(site, options, move || clock.now(), |at| at);
        let (log, _) = data_dir::open_log(folder, &config, Durability::default())?;
        let mut producer = Producer::new(&*log, &config)?;
        crowd.history(moment.at_ms - HISTORY_HOURS * HOUR, moment.at_ms, |line| producer.line(line))?;
        producer.flush()?;
        drop(producer);
        let others = Others::new(log, &config, counting(&config))?;
        Pipeline::catch_up(folder, &settings)?;
        let others = Arc::new(Mutex::new(others));
        Ok(Prepared { folder: folder.to_owned(), moment, config, settings, crowd, others })
    }

    /// Ends, for another one to begin.
    pub(super) fn abandon(self, shared: &Arc<Shared>) -> Result<(), CommandError> {
        shared.clock.set_pace(None, Some(true));
        self.running.abort();
        // Visits that are under way end with the runtime.
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        self.pipeline.stop()?;
        self.serving.stop()
    }

    /// Sends what is still to be sent, waits until it is counted, and compares.
    pub(super) fn end(self, shared: &Arc<Shared>) -> Result<(Report, (String, Value)), CommandError> {
        let Self { prepared, serving, pipeline, runtime, running } = self;
        let crowd = Arc::clone(&prepared.crowd);
        shared.clock.set_pace(None, Some(false));
        crowd.close();
        crate::outputs::notice(
            "nobody comes any more; what is kept back is sent now, and the tallies are compared",
        );
        let report = runtime.block_on(async {
            running.await.map_err(|error| CommandError::Other(error.into()))?;
            let of_others = || of_others(&prepared.others, i64::MIN..i64::MAX);
            crowd.report(SETTLED_WITHIN, of_others).await.map_err(|error| failed(&error))
        })?;
        runtime.shutdown_timeout(Duration::from_secs(1));
        pipeline.stop()?;
        serving.stop()?;
        let ledger = ledger::newest(&prepared.folder, &prepared.config)?;
        balanced(&ledger)?;
        let total = ledger.total();
        Ok((report, (ledger::text(&total, &prepared.config), ledger::json(&total, &prepared.config))))
    }
}

impl Prepared {
    /// Begins at its moment.
    pub(super) fn start(
        self,
        listener: &TcpListener,
        shared: &Arc<Shared>,
    ) -> Result<Deployment, CommandError> {
        shared.clock.set(self.moment.at_ms);
        let clock = Arc::clone(&shared.clock);
        let now = Arc::new(move || uptake_model::EventTime(clock.now()));
        // The same socket for each deployment: whoever asks while one follows another waits a moment.
        let listener = Some(listener.try_clone()?);
        let world = World { now, routes: routes(shared), listener };
        let serving = Serving::start(&self.folder, &self.config, None, world)?;
        let pipeline = Pipeline::start(&self.folder, &self.settings, shared)?;
        shared.begins(self.moment.clone(), &self.crowd, pipeline.inner_of(), &self.folder);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("crowd")
            .enable_all()
            .build()?;
        let running = runtime.spawn(Arc::clone(&self.crowd).run(PATIENCE));
        runtime.spawn(tell(Arc::clone(shared)));
        runtime.spawn(check(
            Arc::clone(shared),
            Arc::clone(&self.crowd),
            self.folder.clone(),
            self.config.epoch.ms(),
            self.moment.at_ms - HISTORY_HOURS * HOUR,
            Arc::clone(&self.others),
        ));
        shared.clock.set_pace(None, Some(false));
        shared.say(&format!("It is {}. The crowd comes.", self.moment.what));
        Ok(Deployment { prepared: self, serving, pipeline, runtime, running })
    }
}

async fn tell(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        shared.tell();
    }
}

/// Compares the tallies of epochs that are over with what the crowd knows, again and again until all of an epoch
/// are equal; at the end of the demo everything is compared once more.
async fn check(
    shared: Arc<Shared>,
    crowd: Arc<Crowd>,
    folder: PathBuf,
    epoch_ms: i64,
    from_ms: i64,
    others: Arc<Mutex<Others>>,
) {
    let (mut next, mut open, mut settled) = (from_ms.div_euclid(epoch_ms), BTreeSet::new(), 0);
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let past = (shared.clock.now().div_euclid(epoch_ms) - EPOCHS_OPEN).max(next);
        open.extend(next..past);
        next = past;
        let (crowd, others) = (Arc::clone(&crowd), Arc::clone(&others));
        let (folder, epochs) = (folder.clone(), open.clone());
        let checked = tokio::task::spawn_blocking(move || {
            let table = SqliteTable::open_read_only(&folder).ok()?;
            let each = epochs.into_iter().map(|epoch| {
                let (it, counted) = (epoch..epoch + 1, tallies(&table, epoch)?);
                let of_others = of_others(&others, it.clone()).ok()?;
                Some((epoch, crowd.compare_some(it, &counted, &of_others)))
            });
            each.collect::<Option<Vec<_>>>()
        });
        let Ok(Some(compared)) = checked.await else { continue };
        let mut check = Check { equal: settled, differing: Vec::new() };
        for (epoch, (equal, differing)) in compared {
            check.equal += equal;
            if differing.is_empty() {
                open.remove(&epoch);
                settled += equal;
            }
            check.differing.extend(differing);
        }
        shared.checked(check);
    }
}

fn of_others(others: &Mutex<Others>, epochs: Range<i64>) -> Result<Tallies, SiteError> {
    let mut others = others.lock().unwrap_or_else(PoisonError::into_inner);
    others.tallies(epochs).map_err(|error| SiteError::Later(error.to_string()))
}

/// What a table holds of the season's titles in an epoch.
fn tallies(table: &dyn Table, epoch: i64) -> Option<Tallies> {
    let rows = table.top("", Some(Epoch(epoch)), usize::MAX).ok()?;
    let all = rows.into_iter().filter_map(|row| {
        let (show, counts) = (Season::real().by_id(&row.video_id)?, row.counts);
        Some(((show, row.epoch.0), (counts.plays, counts.impressions, counts.exact)))
    });
    Some(all.collect())
}
