//! The reference workload: generated streams of every shape, and for each the answer of the plain
//! contract in Python, line by line.
//!
//! The workload lies in a folder `shared` beside the checkout (or where `UPTAKE_SHARED` says);
//! without it these tests say loudly that they did not run.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::workload::Workload;
use common::{books, contract_py, csv, first_difference, say, without_exact};
use tempfile::TempDir;

const METHODS: [&str; 3] = ["state", "window", "batch-to-window"];
const KINDS: [&str; 2] = ["inner", "left"];
const WORKERS: [&str; 3] = ["1", "2", "4"];
const BATCHES: [&str; 4] = ["50", "1000", "7001", "50000"];

/// A generated stream in a temporary folder.
struct Input {
    workload: &'static Workload,
    name: String,
    folder: TempDir,
    files: Vec<PathBuf>,
    /// By kind and horizon.
    answers: Mutex<Vec<((String, String), String)>>,
}

/// One way to replay a stream.
#[derive(Clone, Copy)]
struct Way {
    method: &'static str,
    kind: &'static str,
    workers: &'static str,
    batch: &'static str,
    horizon: &'static str,
    lateness: &'static str,
}

/// Lines of CSV that were compared, and tables.
static LINES: AtomicUsize = AtomicUsize::new(0);
static TABLES: AtomicUsize = AtomicUsize::new(0);

impl Input {
    /// One generated stream with the contract's answers to it.
    fn new(workload: &'static Workload, seed: u32, events: u32, shape: &[&str]) -> Self {
        let (folder, files) = workload.generate(seed, events, shape);
        let name = format!("seed {seed}, {events} events {}", shape.join(" "));
        Self { workload, name, folder, files, answers: Mutex::default() }
    }

    fn answer(&self, kind: &str, horizon: &str) -> String {
        let mut answers = self.answers.lock().unwrap();
        let key = (kind.to_owned(), horizon.to_owned());
        if let Some((_, answer)) = answers.iter().find(|(known, _)| *known == key) {
            return answer.clone();
        }
        let minutes: i64 = horizon.strip_suffix("min").unwrap().parse().unwrap();
        let ms = (minutes * 60_000).to_string();
        let mut args = vec!["--horizon-ms", &ms];
        args.extend((kind == "left").then_some("--left"));
        let answer = contract_py(&self.workload.bench, &args, &self.files);
        answers.push((key, answer.clone()));
        answer
    }

    /// Replays the stream and compares the table with the contract's.
    fn check(&self, way: Way) {
        let data = tempfile::tempdir().unwrap();
        let settings = [
            format!("join.method={}", way.method),
            format!("join.kind={}", way.kind),
            format!("join.horizon={}", way.horizon),
            format!("join.lateness={}", way.lateness),
            format!("batch.events_max={}", way.batch),
            // The contract knows no cap, and a hot request is far over the usual one.
            "join.request_events_max=off".to_owned(),
        ];
        let mut args = vec!["--workers", way.workers];
        settings.iter().for_each(|setting| args.extend(["--set", setting]));
        let what = format!("{}: {}, {} workers", self.name, settings.join(" "), way.workers);
        let books = books(&[self.folder.path()], data.path(), &args);
        assert_eq!((books.n("late"), books.n("capped")), (0, 0), "{what}: {books:?}");
        let ours = without_exact(&csv(data.path()));
        let theirs = self.answer(way.kind, way.horizon);
        if let Some(difference) = first_difference(&ours, &theirs) {
            panic!("{what}: {difference} of the contract");
        }
        LINES.fetch_add(theirs.lines().count(), Ordering::Relaxed);
        TABLES.fetch_add(1, Ordering::Relaxed);
    }
}

/// Ways in which every method meets every kind, and every number of workers and every size of
/// batches comes up; `turn` shifts what meets what, so that the shapes together try more.
fn ways(turn: usize) -> Vec<Way> {
    let mut ways = Vec::new();
    for number in 0..9 {
        ways.push(Way {
            method: METHODS[number % 3],
            kind: KINDS[number / 3 % 2],
            workers: WORKERS[(number / 2 + turn) % 3],
            batch: BATCHES[(number + number / 4 + turn) % 4],
            horizon: if (number + turn) % 5 == 4 { "1min" } else { "90min" },
            // Events are late by at most 40 minutes, and clocks wrong by two hours.
            lateness: if number % 2 == 0 { "off" } else { "4h" },
        });
    }
    let batches_of_one = Way {
        method: METHODS[turn % 3],
        kind: KINDS[turn % 2],
        // A batch of one record costs every worker its share, so most of these have few.
        workers: ["1", "1", "2", "1", "1", "2", "4"][turn % 7],
        batch: "1",
        horizon: "90min",
        lateness: if turn.is_multiple_of(2) { "4h" } else { "off" },
    };
    ways.push(batches_of_one);
    for (what, all, used) in [
        ("methods", METHODS.as_slice(), ways.iter().map(|w| w.method).collect::<BTreeSet<_>>()),
        ("kinds", KINDS.as_slice(), ways.iter().map(|w| w.kind).collect()),
        ("workers", WORKERS.as_slice(), ways.iter().map(|w| w.workers).collect()),
        ("batches", BATCHES.as_slice(), ways.iter().map(|w| w.batch).collect()),
    ] {
        assert!(all.iter().all(|value| used.contains(value)), "{what} left out in turn {turn}");
    }
    ways
}

fn small(test: &str, turn: usize, shape: &[&str]) {
    let Some(workload) = Workload::find(test) else { return };
    let input = Input::new(workload, 101 + turn as u32, 100_000, shape);
    let ways = ways(turn);
    let count = ways.len();
    ways.into_iter().for_each(|way| input.check(way));
    done(test, count);
}

fn done(test: &str, count: usize) {
    let (tables, lines) = (TABLES.load(Ordering::Relaxed), LINES.load(Ordering::Relaxed));
    say(&format!("{test}: {count} tables equal; so far {tables} tables, {lines} lines"));
}

#[test]
fn small_plain() {
    small("small_plain", 0, &[]);
}

#[test]
fn small_with_a_hot_request() {
    small("small_with_a_hot_request", 1, &["--hot-request"]);
}

#[test]
fn small_with_a_hot_video() {
    small("small_with_a_hot_video", 2, &["--hot-video"]);
}

#[test]
fn small_shuffled() {
    small("small_shuffled", 3, &["--shuffle"]);
}

#[test]
fn small_with_wrong_clocks() {
    small("small_with_wrong_clocks", 4, &["--skew-clock"]);
}

#[test]
fn small_with_empty_ids() {
    small("small_with_empty_ids", 5, &["--empty-ids"]);
}

#[test]
fn small_with_everything_at_once() {
    let shape = ["--hot-request", "--hot-video", "--shuffle", "--skew-clock", "--empty-ids"];
    small("small_with_everything_at_once", 6, &shape);
}

#[test]
fn medium_plain() {
    let Some(workload) = Workload::find("medium_plain") else { return };
    let input = Input::new(workload, 42, 2_000_000, &[]);
    let way = |method, kind, workers, batch, lateness| Way {
        method,
        kind,
        workers,
        batch,
        horizon: "90min",
        lateness,
    };
    let ways = [
        way("state", "inner", "2", "50000", "2h"),
        way("window", "inner", "1", "5000", "off"),
        way("batch-to-window", "inner", "4", "20000", "2h"),
        way("state", "left", "4", "1000", "2h"),
        way("window", "left", "2", "50000", "2h"),
        way("batch-to-window", "left", "1", "50000", "off"),
    ];
    ways.into_iter().for_each(|way| input.check(way));
    done("medium_plain", ways.len());
}
