//! `uptake replay`: files in, tallies out.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use uptake_connectors::input::{EventFiles, InputOptions};
use uptake_flow::Options;
use uptake_model::Reason;
use uptake_model::ledger::{Account, LATE_AGE_HOURS, Ledger};

use super::text::grouped;
use super::{CommandError, Configured};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::pipeline;
use crate::stages::aggregate::Outlets;
use crate::stages::collect::SharedFiles;
use crate::stages::table_writer::TableWriter;

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

impl Replay {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let mut config = self.configured.load()?;
        // Nobody waits for a row while the input is still being read.
        config.table_write_interval = config.table_write_interval.max(WRITE_INTERVAL_LEAST);
        let config = Arc::new(config);
        let files = EventFiles::open(&self.paths, InputOptions::default())?;
        for path in files.skipped() {
            eprintln!("uptake: not read, its name is not that of an event file: {}", path.display());
        }
        let count = files.files().len();
        let data = DataDir::open(&self.data, &config)?;
        data.notices.iter().for_each(|notice| eprintln!("uptake: {notice}"));
        let files = Arc::new(SharedFiles::new(files));
        let started = Instant::now();
        let replayed = {
            let bar = Bar::start(&files);
            let replayed = replay(&config, workers_or_all(self.workers), &files, data, None);
            bar.finish();
            replayed?
        };
        let seconds = started.elapsed().as_secs_f64();
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", ledger_json(&replayed, &config, count, seconds))?;
        } else {
            let total = replayed.ledger.total();
            let rate = total.read as f64 / seconds.max(1e-9);
            writeln!(
                out,
                "{count} files read in {seconds:.1} s, {} records a second\n",
                grouped(rate as u64)
            )?;
            write!(out, "{}", ledger_text(&total, &config))?;
            writeln!(
                out,
                "\n{} rows written to the table in {}",
                grouped(replayed.rows as u64),
                self.data.display()
            )?;
        }
        out.flush()?;
        if let Some(error) = files.take_error() {
            return Err(error.into());
        }
        if replayed.ledger.balances() {
            return Ok(());
        }
        let message =
            "the ledger does not balance: this is a defect of uptake, please report it with the ledger above";
        Err(CommandError::Other(message.into()))
    }
}

/// What a replay came to.
pub(super) struct Replayed {
    pub(super) ledger: Ledger,
    /// Rows written to the table, repeats included.
    pub(super) rows: usize,
}

/// Runs the pipeline over files to their end. `watch` is given the outlets before it begins.
pub(super) fn replay(
    config: &Arc<Config>,
    workers: usize,
    files: &Arc<SharedFiles>,
    data: DataDir,
    watch: Option<&dyn Fn(&Outlets)>,
) -> Result<Replayed, CommandError> {
    let (table, thread) = TableWriter::start(data.table);
    let outlets = Outlets {
        log: data.log.into(),
        table,
        archive: Arc::new(Mutex::new(data.archive)),
        ledgers: Arc::new(Mutex::new(vec![Ledger::default(); workers])),
    };
    if let Some(watch) = watch {
        watch(&outlets);
    }
    let options = Options {
        workers,
        tick: config.batch_tick,
        batches_in_flight: config.batches_in_flight,
        lateness_ms: config.join.lateness_ms,
    };
    let ledgers = outlets.clone();
    let run = {
        let (config, files) = (Arc::clone(config), Arc::clone(files));
        uptake_flow::run(&options, move |flow| pipeline::over_files(flow, &config, &files, &outlets))
    };
    let ledger = ledgers.ledger();
    drop(ledgers);
    run?;
    let (_, rows) = thread.join()?;
    Ok(Replayed { ledger, rows })
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

/// The ledger for people.
pub(super) fn ledger_text(total: &Account, config: &Config) -> String {
    let mut rows: Vec<(String, u64, String)> = vec![
        ("read".into(), total.read, "records".into()),
        ("  counted".into(), total.counted, "joined, and in the tallies".into()),
        ("  waiting".into(), total.waiting, "for the other half of their request".into()),
        ("  expired".into(), total.expired, expired_note(total)),
        ("  filtered".into(), total.filtered_sum(), String::new()),
    ];
    for (rule, &n) in total.filtered.iter().enumerate().filter(|(_, n)| **n > 0) {
        rows.push((String::new(), n, format!("by {}", config.filters.text(rule))));
    }
    rows.push((
        "  dead".into(),
        total.dead_sum(),
        "could not be used; kept in the log's topic dead-letters".into(),
    ));
    for (reason, &n) in Reason::ALL.iter().zip(&total.dead).filter(|(_, n)| **n > 0) {
        rows.push((String::new(), n, reason.to_string()));
    }
    rows.push(("  duplicate".into(), total.duplicate, "delivered again".into()));
    rows.push(("  late".into(), total.late, "too late to be joined; kept in the log's topic late".into()));
    rows.push(("  capped".into(), total.capped, "over the cap of their request or member".into()));
    let width = rows.iter().map(|(_, n, _)| grouped(*n).len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, n, note) in rows {
        let n = grouped(n);
        // A part of a number stands behind it, indented.
        let line = if name.is_empty() {
            format!("{:12} {:>width$}    {n} {note}", "", "")
        } else {
            format!("{name:12} {n:>width$}  {note}")
        };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let balance = if total.balances() { "every record is accounted for" } else { "DOES NOT BALANCE" };
    text.push_str(&format!("{balance}\n"));
    text
}

fn expired_note(total: &Account) -> String {
    match total.organic {
        0 => "their request never brought its other half".to_owned(),
        n => format!("their request never brought its other half; {} organic plays", grouped(n)),
    }
}

/// The ledger for scripts.
fn ledger_json(replayed: &Replayed, config: &Config, files: usize, seconds: f64) -> serde_json::Value {
    let total = replayed.ledger.total();
    let filtered: serde_json::Map<_, _> = (total.filtered.iter().enumerate())
        .map(|(rule, n)| (config.filters.text(rule).to_owned(), json!(n)))
        .collect();
    let dead: serde_json::Map<_, _> = Reason::ALL
        .iter()
        .zip(&total.dead)
        .filter(|(_, n)| **n > 0)
        .map(|(r, n)| (r.to_string(), json!(n)))
        .collect();
    let mut from = 0;
    let ages = LATE_AGE_HOURS.iter().map(|&to| {
        let name = format!("{from}-{to}h");
        from = to;
        name
    });
    let ages: Vec<String> = ages.collect();
    let last = format!("{}h-", LATE_AGE_HOURS[LATE_AGE_HOURS.len() - 1]);
    let late: serde_json::Map<_, _> =
        ages.into_iter().chain([last]).zip(&total.late_by_age).map(|(age, n)| (age, json!(n))).collect();
    json!({
        "read": total.read,
        "counted": total.counted,
        "waiting": total.waiting,
        "expired": total.expired,
        "organic": total.organic,
        "filtered": total.filtered_sum(),
        "filtered_by_rule": filtered,
        "dead": total.dead_sum(),
        "dead_by_reason": dead,
        "duplicate": total.duplicate,
        "late": total.late,
        "late_by_age": late,
        "capped": total.capped,
        "blank": total.blank,
        "balances": replayed.ledger.balances(),
        "rows_written": replayed.rows,
        "files": files,
        "seconds": seconds,
    })
}
