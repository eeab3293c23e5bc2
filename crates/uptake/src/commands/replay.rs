//! `uptake replay`: files in, tallies out.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use uptake_connectors::input::{EventFiles, LinesRead};
use uptake_flow::Halt;
use uptake_model::EventTime;
use uptake_model::ledger::Ledger;

use super::ledger::{checkpoints_json, json, text};
use super::text::grouped;
use super::{CommandError, Configured, all_read, balanced, event_files, tell_tallies_from_before};
use crate::checkpoint::{InputPosition, Manifest, Number, Restored, Store};
use crate::clock::Clock;
use crate::config::Config;
use crate::data_dir::{self, DataDir, now};
use crate::engine::{self, Checkpointing, Setup, state_meaning};
use crate::outputs::notice;
use crate::stages::collect::{Input, SharedFiles};
use crate::stages::spill::Spill;
use crate::traces::Traces;

/// Read event files to their end, join, count, and write table and archive.
#[derive(Args, Debug)]
pub(super) struct Replay {
    /// Event files (NDJSON, plain or gzip or zstd; Parquet), or folders of them, read in name order
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where the table, the archive and the log are
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Worker threads [default: one per processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Read everything anew, also where a replay of the same files was stopped before its end
    #[arg(long)]
    from_start: bool,
    /// Print the ledger as JSON, for a script
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    configured: Configured,
}

/// A replay writes changed tallies no more often than this, so that most are written once.
const WRITE_INTERVAL_LEAST: Duration = Duration::from_secs(10);

/// How many workers when nobody says.
pub(super) fn workers_or_all(workers: Option<u16>) -> usize {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    workers.map_or_else(all, usize::from)
}

/// What a replay of these files under this configuration is called: a stopped one is gone on with
/// only by the same. All that decides what becomes of a record belongs to it: who stops a replay, mends the mapping of
/// the events and starts again wants what was read before to be read as it is now.
fn fingerprint(files: &EventFiles, config: &Config) -> String {
    let Config { decode, filters, join, member_epoch_events_max, counts_members, tally, .. } = config;
    let mut text = state_meaning(config);
    text.push_str(&format!(
        "\n{decode:?} {filters:?} {join:?} {member_epoch_events_max:?} {counts_members} {tally:?} {}",
        config.archive_shards
    ));
    for path in files.files() {
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        text.push_str(&format!("\n{} {size}", path.display()));
    }
    // Any good hash of a text does.
    uptake_model::RequestId::from_text(text.as_bytes()).to_string()
}

/// Passes over what a stopped replay has read.
fn pass_over(mut files: EventFiles, restored: Option<&Restored>) -> EventFiles {
    if let Some(InputPosition::Files { file, line, beyond, .. }) = restored.map(Restored::input) {
        files.skip_before(*file, *line);
        let read =
            beyond.iter().map(|&(file_index, first_line, lines)| LinesRead { file_index, first_line, lines });
        files.skip(read.collect());
    }
    files
}

/// The checkpoints of replays are below names that begin so, which no cluster may have.
pub(super) const PREFIX: &str = "replay-";
/// Where the books of the last replay that came to its end are kept: a checkpoint without state.
pub(super) const LAST_REPLAY: &str = "replay-last";

fn keep_books(store: &Store, ledger: &Ledger, config: &Config) -> Result<(), CommandError> {
    let number = Number::first(store.begin_run()?);
    let mut manifest = Manifest::new(number.0, state_meaning(config), now().0);
    manifest.watermark = EventTime::MAX;
    manifest.ledger = ledger.clone();
    store.commit(&manifest)?;
    Ok(store.retain(1)?)
}

impl Replay {
    /// The checkpoint of a replay of the same files that was stopped, if there is one.
    fn resumable(&self, store: &Store, config: &Config) -> Result<Option<Restored>, CommandError> {
        if self.from_start {
            store.clear()?;
            return Ok(None);
        }
        // What cannot be gone on with is begun anew: that is right in any case, only slower.
        match Restored::newest(store, &state_meaning(config)) {
            Ok((restored, refused)) => {
                refused.iter().for_each(|line| notice(line));
                Ok(restored)
            }
            Err(error) if error.is_of_storage() => Err(error.into()),
            Err(error) => {
                notice(&format!("{error}; reading from the start"));
                store.clear()?;
                Ok(None)
            }
        }
    }

    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut config = self.configured.load()?;
        let _traces = Traces::start(config.traces.as_ref())?;
        // Nobody waits for a row while the input is still being read.
        config.table_write_interval = config.table_write_interval.max(WRITE_INTERVAL_LEAST);
        let config = Arc::new(config);
        let files = event_files(&self.paths)?;
        let count = files.files().len();
        let data = DataDir::open(&self.data, &config)?;
        data.notices.iter().for_each(|line| notice(line));
        let _lock = data_dir::lock(&self.data, "replay")?;
        let fingerprint = fingerprint(&files, &config);
        let spill = Spill::new(&self.data, "replay", &config);
        let store = Store::new(Arc::clone(&data.objects), format!("{PREFIX}{fingerprint}"))
            .spooling_to(spill.as_ref().map(|spill| spill.folder.as_path()));
        let books_store = Store::new(Arc::clone(&data.objects), LAST_REPLAY);
        let restored = self.resumable(&store, &config)?;
        if restored.is_none() {
            tell_tallies_from_before(&*data.table, &config.places.table.backend(&self.data))?;
        }
        let files = Arc::new(SharedFiles::new(pass_over(files, restored.as_ref())));
        let started = Instant::now();
        let setup = Setup {
            workers: workers_or_all(self.workers),
            data,
            input: Input::Files(Arc::clone(&files)),
            seals_at_end: true,
            spill,
            keeping: None,
            checkpoints: Some(Checkpointing {
                store: store.clone(),
                restored,
                start: InputPosition::Files { fingerprint, file: 0, line: 0, beyond: Vec::new() },
            }),
            halt: Halt::default(),
            cluster: None,
            clock: Clock::system(),
            schedule: None,
            config: Arc::clone(&config),
        };
        let replayed = {
            let bar = Bar::start(&files);
            let replayed = engine::run(setup, None);
            bar.finish();
            replayed?
        };
        // There is nothing left to go on with, but `uptake ledger` shows the books.
        store.clear()?;
        keep_books(&books_store, &replayed.ledger, &config)?;
        let seconds = started.elapsed().as_secs_f64();
        let errors = files.take_errors();
        let mut out = std::io::stdout().lock();
        if self.json {
            let mut printed = json(&replayed.ledger.total(), &config);
            printed["balances"] = replayed.ledger.balances().into();
            printed["checkpoints"] = checkpoints_json(replayed.checkpoints);
            printed["rows_written"] = replayed.rows.into();
            printed["files"] = count.into();
            printed["seconds"] = seconds.into();
            writeln!(out, "{printed}")?;
        } else {
            let total = replayed.ledger.total();
            let rate = total.read as f64 / seconds.max(1e-9);
            writeln!(
                out,
                "{}{count} files read in {seconds:.1} s, {} records a second\n",
                if errors.is_empty() { String::new() } else { format!("{} of ", count - errors.len()) },
                grouped(rate as u64)
            )?;
            write!(out, "{}", text(&total, &config))?;
            writeln!(
                out,
                "\n{} rows written to the table in {}",
                grouped(replayed.rows as u64),
                data_dir::shown(&config.places.table.backend(&self.data))
            )?;
        }
        out.flush()?;
        all_read(errors)?;
        balanced(&replayed.ledger)
    }
}

/// A progress bar over the bytes of the files, if somebody is there to see it.
struct Bar {
    bar: ProgressBar,
    done: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Bar {
    fn start(files: &Arc<SharedFiles>) -> Self {
        let (_, total) = files.progress();
        let bar = ProgressBar::new(total);
        let template = "{bar:32} {percent:>3} %  {bytes} of {total_bytes}, {bytes_per_sec}, {eta} to go";
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let done = Arc::new(AtomicBool::new(false));
        let thread = (!bar.is_hidden()).then(|| {
            let (bar, done, files) = (bar.clone(), Arc::clone(&done), Arc::clone(files));
            std::thread::spawn(move || {
                while !done.load(Ordering::Acquire) {
                    bar.set_position(files.progress().0);
                    std::thread::park_timeout(Duration::from_millis(200));
                }
            })
        });
        Self { bar, done, thread }
    }

    fn finish(mut self) {
        self.done.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread does nothing that could panic.
            drop(thread.join());
        }
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_replay_that_counts_the_same_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "{}\n").unwrap();
        let of = |settings: &[&str]| {
            let settings: Vec<String> = settings.iter().map(|&one| one.to_owned()).collect();
            let files = EventFiles::open(std::slice::from_ref(&path), Default::default()).unwrap();
            fingerprint(&files, &Config::load(None, &settings).unwrap())
        };
        for other in [
            "events.fields.request_id=\"id\"",
            "events.future_max=1h",
            "filters=['device = \"fridge\"']",
            "join.lateness=off",
            "join.request_events_max=7",
            "join.member_epoch_events_max=7",
            "tally.exact_max=70",
            "archive.shards=2",
            "robots.count_members=off",
        ] {
            assert_ne!(of(&[other]), of(&[]), "{other}");
        }
        for same in ["batch.events_max=7", "table.write_interval=3s", "checkpoint.interval=1s"] {
            assert_eq!(of(&[same]), of(&[]), "{same}");
        }
    }
}
