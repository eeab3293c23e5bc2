//! `uptake show`: the pipeline at a pace at which one can watch it.
//!
//! The events come from a simulated audience, or from files. It is the pipeline of `uptake
//! replay` with another source of lines; the screen reads the table as any other program would.
//! In the end the table is compared with what the audience knows of itself.

mod feed;
mod screen;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use uptake_connectors::table::{SqliteTable, Table};
use uptake_flow::Halt;
use uptake_model::decode::DecodeConfig;
use uptake_model::filter::{self, Filters};
use uptake_model::join::JoinKind;
use uptake_model::ledger::Account;
use uptake_sim::{Audience, Counting, EVENTS_PER_REQUEST, titles};

use super::ledger;
use super::place::Place;
use super::replay::workers_or_all;
use super::text::grouped;
use super::{CommandError, Configured, all_read, event_files};
use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::{self, DataDir};
use crate::engine::{self, Setup};
use crate::outputs::notice;
use crate::stages::collect::{Input, SharedFiles};
use feed::{Feed, FilesAtPace, Generated, Limits};
use screen::Screen;

/// How long it runs when nobody says.
const DURATION: Duration = Duration::from_secs(60);

/// With these the screen follows the events at once; a pipeline that nobody watches would only
/// work more for it.
const WRITE_INTERVAL: Duration = Duration::from_millis(200);
const BATCH_TICK: Duration = Duration::from_millis(100);

/// A little less patience than by default, so that requests expire and epochs are sealed while
/// one watches. The audience's phones deliver within an hour, or days late.
const LATENESS_MS: i64 = 90 * 60_000;

/// Count a generated (or given) stream of events before your eyes.
#[derive(Args, Debug)]
pub(super) struct Show {
    /// Event files or folders to replay at a pace [default: a simulated audience]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where to keep the table, the archive and the log [default: nowhere, they are removed]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How many times faster than ours the audience's time runs [default: 600]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    speed: Option<u32>,
    /// Another number is another audience [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// When to end, as 30s or 5min [default: 60s; with files at their end]
    #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
    length: Option<Duration>,
    /// End after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,
    /// How many events come in a second of ours; the audience's evenings are livelier
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..=10_000_000))]
    events_per_second: u32,
    /// Worker threads [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    #[command(flatten)]
    configured: Configured,
}

impl Show {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let config = Arc::new(self.config()?);
        // What can be wrong with the files is told before anything is made.
        let files = match self.paths.is_empty() {
            true => None,
            false => Some(event_files(&self.paths)?),
        };
        let place = Place::new(self.data.as_deref(), "uptake-show-")?;
        let data = DataDir::open(place.path(), &config)?;
        let _lock = data_dir::lock(place.path(), "replay")?;
        data.notices.iter().for_each(|line| notice(line));
        if files.is_none() && !data.table.is_empty()? {
            let path = place.path().display();
            return Err(CommandError::Usage(format!(
                "{path} holds tallies of another run, with which the audience's cannot be compared; \
                 name a new directory, or leave --data out"
            )));
        }
        let limits = Limits { wall: self.wall_limit(), lines: self.events };
        let feed = Arc::new(Feed::new(limits));
        let audience = files.is_none().then(|| Arc::new(Mutex::new(self.audience(&config))));
        let lines = match (files, &audience) {
            (Some(files), _) => {
                SharedFiles::live(FilesAtPace::new(files, self.events_per_second, &config, &feed))
            }
            (None, Some(audience)) => {
                SharedFiles::live(Generated::new(Arc::clone(audience), self.speed(), &feed))
            }
            (None, None) => return Ok(()),
        };
        let lines = Arc::new(lines);
        stop_on_signal(&feed, &place)?;

        let table = SqliteTable::open_read_only(place.path())?;
        let screen = Screen::new(table, &config, &feed, audience.clone(), self.speed());
        let (screen, watch) = screen.start();
        let workers = workers_or_all(self.workers);
        let setup = Setup {
            config: Arc::clone(&config),
            workers,
            data,
            input: Input::Files(Arc::clone(&lines)),
            seals_at_end: true,
            checkpoints: None,
            spill: None,
            keeping: None,
            halt: Halt::default(),
            cluster: None,
            clock: Clock::system(),
            schedule: None,
        };
        let replayed = engine::run(setup, Some(&watch));
        let printed = screen.finish();
        let replayed = replayed?;
        printed?;

        let total = replayed.ledger.total();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\n{}\n", feed.ended_because())?;
        write!(out, "{}", ledger::text(&total, &config))?;
        if !replayed.ledger.balances() {
            return Err(defect("the ledger does not balance"));
        }
        if let Some(audience) = &audience {
            let audience = audience.lock().unwrap_or_else(PoisonError::into_inner);
            let table = SqliteTable::open_read_only(place.path())?;
            writeln!(out, "\n{}", compare(&table, &audience, &total, &config)?)?;
        }
        write!(out, "\n{}", what_next(&place))?;
        out.flush()?;
        all_read(lines.take_errors())
    }

    fn config(&self) -> Result<Config, CommandError> {
        if !self.paths.is_empty() && (self.speed.is_some() || self.seed.is_some()) {
            return Err(CommandError::Usage(
                "--speed and --seed are of the simulated audience; the pace of files is --events-per-second"
                    .to_owned(),
            ));
        }
        let (mut config, default) = (self.configured.load()?, Config::default());
        // What somebody configured stays.
        let instead =
            |value: &mut Duration, default, lively| *value = if *value == default { lively } else { *value };
        instead(&mut config.table_write_interval, default.table_write_interval, WRITE_INTERVAL);
        instead(&mut config.batch_tick, default.batch_tick, BATCH_TICK);
        if self.paths.is_empty() && config.join.lateness_ms == default.join.lateness_ms {
            config.join.lateness_ms = LATENESS_MS;
        }
        Ok(config)
    }

    fn speed(&self) -> u32 {
        self.speed.unwrap_or(600)
    }

    fn wall_limit(&self) -> Option<Duration> {
        let goes_on = !self.paths.is_empty() || self.events.is_some();
        self.length.or((!goes_on).then_some(DURATION))
    }

    fn audience(&self, config: &Config) -> Audience {
        let default = uptake_sim::Options::default();
        let per_second = f64::from(self.events_per_second) / f64::from(self.speed());
        Audience::new(uptake_sim::Options {
            seed: self.seed.unwrap_or(default.seed),
            requests_per_second: per_second / EVENTS_PER_REQUEST,
            counting: Counting {
                horizon_ms: config.join.horizon_ms,
                epoch_ms: config.epoch.ms(),
                impressions_alone: config.join.kind == JoinKind::Left,
            },
            ..default
        })
    }
}

/// The first signal ends the input, so that everything read is counted; the second one the program.
fn stop_on_signal(feed: &Arc<Feed>, place: &Place) -> Result<(), CommandError> {
    let feed = Arc::clone(feed);
    let own = place.own().map(Path::to_owned);
    let handler = move || {
        if feed.interrupt() {
            screen::show_cursor();
            own.iter().for_each(|path| drop(std::fs::remove_dir_all(path)));
            std::process::exit(130);
        }
    };
    ctrlc::set_handler(handler).map_err(|error| CommandError::Other(error.into()))
}

pub(super) fn defect(what: &str) -> CommandError {
    let message = format!("{what}: this is a defect of uptake, please report it with the lines above");
    CommandError::Other(message.into())
}

/// Compares the table with the audience's own truth, row by row, and says how it went.
fn compare(
    table: &dyn Table,
    audience: &Audience,
    total: &Account,
    config: &Config,
) -> Result<String, CommandError> {
    if let Some(why) = not_comparable(total, audience, config) {
        return Ok(format!("The table was not compared with the audience's own truth, because {why}."));
    }
    let mut truth = audience.truth().table();
    let (mut equal, mut estimated, mut differs) = (0u64, 0u64, Vec::new());
    table.scan("", &mut |row| {
        let title = titles().binary_search_by_key(&&*row.video_id, |title| title.id).unwrap_or(usize::MAX);
        let known = truth.remove(&(title as u16, row.epoch.0)).unwrap_or_default();
        let counts = row.counts;
        if !counts.exact {
            estimated += 1;
        } else if (counts.plays, counts.impressions) == (known.played, known.shown) {
            equal += 1;
        } else {
            differs.push(format!("{} in epoch {}", row.video_id, row.epoch));
        }
        Ok(())
    })?;
    let missing = |(title, epoch): &(u16, i64)| {
        format!("{} in epoch {epoch}, which is missing", titles()[usize::from(*title)].id)
    };
    differs.extend(truth.keys().map(missing));
    if let Some(first) = differs.first() {
        let n = differs.len();
        return Err(defect(&format!("{n} tallies differ from the audience's own truth, as {first}")));
    }
    let sketches = match estimated {
        0 => String::new(),
        n => format!(" ({n} more are estimated by sketches)"),
    };
    let sent = audience.sent();
    let unusable = sent.truncated + sent.unknown_kinds + sent.future;
    let found = [
        ("delivered twice", total.duplicate, sent.duplicates),
        ("unusable", total.dead_sum(), unusable),
        ("of test devices", total.filtered_sum(), sent.test),
        ("days late", total.late, sent.stale),
    ];
    if let Some((name, found, sent)) = found.iter().find(|(_, found, sent)| found != sent) {
        return Err(defect(&format!("{found} of {sent} lines {name} were found")));
    }
    let found: Vec<String> = found.iter().map(|(name, n, _)| format!("{} {name}", grouped(*n))).collect();
    Ok(format!(
        "The table equals the audience's own truth: {} rows compared{sketches}.\n\
         Every request was counted once, and nothing that was wrong with it was missed:\n{}.",
        grouped(equal),
        found.join(", "),
    ))
}

/// Why the audience, which knows only the plain rules, cannot say what the table should be.
fn not_comparable(total: &Account, audience: &Audience, config: &Config) -> Option<String> {
    let default_filters =
        Filters::parse(&filter::DEFAULT.map(str::to_owned)).unwrap_or_else(|_| Filters::none());
    let texts =
        |filters: &Filters| (0..filters.count()).map(|i| filters.text(i).to_owned()).collect::<Vec<_>>();
    let stale = audience.sent().stale;
    if texts(&config.filters) != texts(&default_filters) || *config.decode != DecodeConfig::default() {
        Some("it knows nothing of your filters and fields".to_owned())
    } else if !config.segments.names(&[]).any(|name| name.is_empty()) {
        Some("no segment is everyone".to_owned())
    } else if total.capped > 0 {
        Some("it knows nothing of caps".to_owned())
    } else if total.late != stale {
        let (late, stale) = (grouped(total.late), grouped(stale));
        Some(format!("{late} events were late under your settings, and it left out {stale}"))
    } else {
        None
    }
}

/// What to try next.
fn what_next(place: &Place) -> String {
    let (before, data) = match place {
        Place::Own(_) => ("Next:\n  uptake show --data show-data\n", "show-data".to_owned()),
        Place::Given(path) => ("Next:\n", path.display().to_string()),
    };
    format!(
        "{before}  uptake top --data {data}\n  uptake tallies --data {data}\n  \
         uptake replay your-events.jsonl --data your-data\n"
    )
}
