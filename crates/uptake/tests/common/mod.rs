//! Runs the real program in temporary directories and reads what it prints and writes.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]
#![allow(dead_code, reason = "every test binary uses another part of this module")]

pub(crate) mod http;
pub(crate) mod live;
pub(crate) mod servers;
pub(crate) mod workload;

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;
use tempfile::TempDir;
use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Stored};

/// 2024-01-15T00:00Z, the beginning of an epoch: the day on which the tests' events happen.
pub(crate) const DAY_MS: i64 = 1_705_276_800_000;
pub(crate) const MINUTE_MS: i64 = 60_000;
pub(crate) const HALF_HOUR_MS: i64 = 30 * MINUTE_MS;

/// What a run of the program left.
#[derive(Debug)]
pub(crate) struct Printed {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Printed {
    fn of(output: Output) -> Self {
        let printed = Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert!(!printed.stderr.contains("panicked"), "the program panicked:\n{}", printed.stderr);
        assert!(printed.code.is_some(), "the program was killed by a signal: {printed:?}");
        printed
    }

    /// The output of a run that must have gone well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stderr:\n{}\nstdout:\n{}", self.stderr, self.stdout);
        self.stdout
    }

    /// The message of a run that must have failed with `code`, which has to say all of `parts`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> String {
        assert_eq!(self.code, Some(code), "stderr:\n{}\nstdout:\n{}", self.stderr, self.stdout);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
        self.stderr
    }
}

/// Runs `uptake` to its end.
pub(crate) fn uptake<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Printed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uptake"));
    Printed::of(command.args(args).stdin(Stdio::null()).output().unwrap())
}

/// Runs a prepared command to its end.
pub(crate) fn run(command: &mut Command) -> Printed {
    Printed::of(command.stdin(Stdio::null()).output().unwrap())
}

/// The program as somebody who is not root, who may read everything; `None`, loudly, where that cannot be done.
/// `place` is let be read by all.
pub(crate) fn as_another_user(place: &Place, test: &str) -> Option<Command> {
    use std::os::unix::process::CommandExt;
    if !is_root() {
        return Some(Command::new(env!("CARGO_BIN_EXE_uptake")));
    }
    place.allow("", 0o755);
    // A copy, because the folder of the binary may be closed to others.
    let program = place.path("uptake");
    std::fs::copy(env!("CARGO_BIN_EXE_uptake"), &program).unwrap();
    let command = || {
        let mut command = Command::new(&program);
        command.uid(65_534).gid(65_534);
        command
    };
    if command().arg("--version").output().is_err() {
        skip(test, "cannot run a program as another user");
        return None;
    }
    Some(command())
}

/// Whether what is closed to everybody can be read all the same.
fn is_root() -> bool {
    let closed = tempfile::NamedTempFile::new().unwrap();
    std::fs::set_permissions(closed.path(), std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::File::open(closed.path()).is_ok()
}

/// Says something on standard error, also where the output of passing tests is hidden.
pub(crate) fn say(text: &str) {
    use std::io::Write;
    // Straight to the descriptor: what goes through `eprintln!` is captured while a test passes.
    let mut stderr = std::io::stderr().lock();
    writeln!(stderr, "{text}").unwrap();
}

/// A banner that cannot be overlooked.
pub(crate) fn skip(test: &str, reason: &str) {
    let line = "!".repeat(78);
    say(&format!("\n{line}\n!! NOT RUN: {test}\n!! {reason}\n{line}"));
}

/// The ledger of a replay, as `--json` printed it.
#[derive(Debug)]
pub(crate) struct Books(pub(crate) Value);

impl Books {
    /// The number under `key`.
    #[track_caller]
    pub(crate) fn n(&self, key: &str) -> u64 {
        self.0[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {}", self.0))
    }

    /// The number of dead letters for `reason`.
    pub(crate) fn dead(&self, reason: &str) -> u64 {
        self.0["dead_by_reason"][reason].as_u64().unwrap_or(0)
    }

    /// Checks here, independently of what the program says of itself, that nothing is missing.
    #[track_caller]
    fn check(self) -> Self {
        let classes = ["counted", "waiting", "expired", "filtered", "dead", "duplicate", "late", "capped"];
        let accounted: u64 = classes.iter().map(|class| self.n(class)).sum();
        assert_eq!(self.n("read"), accounted, "{}", self.0);
        assert_eq!(self.0["balances"], true, "{}", self.0);
        let sum = |key: &str| -> u64 {
            self.0[key].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum()
        };
        assert_eq!(
            [sum("filtered_by_rule"), sum("dead_by_reason"), sum("late_by_age")],
            [self.n("filtered"), self.n("dead"), self.n("late")],
            "{}",
            self.0
        );
        assert_eq!(self.n("waiting"), 0, "at the end of all input nothing waits: {}", self.0);
        self
    }
}

/// A temporary place for input files and a data directory.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Sets who may do what with a file or folder.
    pub(crate) fn allow(&self, name: &str, mode: u32) {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(self.path(name), permissions).unwrap();
    }

    /// A place in which `events` (see [`events`]) are the file `in/events.jsonl`.
    pub(crate) fn with(events_text: &str) -> Self {
        let place = Self::new();
        place.write("in/events.jsonl", events(events_text));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, with its folders.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Replays `in` into the data directory.
    pub(crate) fn replay(&self, args: &[&str]) -> Printed {
        replay(&[&self.path("in")], &self.data(), args)
    }

    /// Replays `in`, which must go well, and gives the ledger.
    #[track_caller]
    pub(crate) fn books(&self, args: &[&str]) -> Books {
        books(&[&self.path("in")], &self.data(), args)
    }

    /// The tallies of everyone as CSV.
    #[track_caller]
    pub(crate) fn csv(&self) -> String {
        csv(&self.data())
    }

    /// The tallies of everyone as [`told`] tells them.
    #[track_caller]
    pub(crate) fn told(&self) -> String {
        told(&self.csv())
    }
}

/// Runs `uptake replay --json`.
pub(crate) fn replay(paths: &[&Path], data: &Path, args: &[&str]) -> Printed {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uptake"));
    command.arg("replay").args(paths).arg("--data").arg(data).arg("--json").args(args);
    run(&mut command)
}

/// Runs `uptake replay --json`, which must go well, and gives the ledger, checked.
#[track_caller]
pub(crate) fn books(paths: &[&Path], data: &Path, args: &[&str]) -> Books {
    let stdout = replay(paths, data, args).ok();
    Books(serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"))).check()
}

/// The tallies of everyone as CSV.
#[track_caller]
pub(crate) fn csv(data: &Path) -> String {
    uptake(["tallies".as_ref(), "--data".as_ref(), data.as_os_str(), "--format".as_ref(), "csv".as_ref()])
        .ok()
}

/// CSV without its last column, as the plain contract prints it. Every row must be exact.
#[track_caller]
pub(crate) fn without_exact(csv: &str) -> String {
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("video_id,epoch,plays,impressions,exact"));
    let mut text = String::from("video_id,epoch,plays,impressions\n");
    for line in lines {
        let line = line.strip_suffix(",true").unwrap_or_else(|| panic!("not exact: {line}"));
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The first line in which two texts differ, or nothing.
pub(crate) fn first_difference(ours: &str, theirs: &str) -> Option<String> {
    if ours == theirs {
        return None;
    }
    let (mut a, mut b) = (ours.lines(), theirs.lines());
    for line in 1.. {
        let (a, b) = (a.next(), b.next());
        if a != b || a.is_none() {
            return Some(format!("line {line}: {a:?} against {b:?}"));
        }
    }
    None
}

/// Lines of JSON from rows like `i r1 v1 10:00`: i or p, request, video and the time of
/// [`DAY_MS`], then any `name=value`, which become fields. Rows are separated by `|`.
pub(crate) fn events(text: &str) -> String {
    let mut lines = String::new();
    for row in text.split('|').map(str::trim).filter(|row| !row.is_empty()) {
        let mut words = row.split_whitespace();
        let mut word = || words.next().unwrap_or_else(|| panic!("too short: {row}"));
        let kind = match word() {
            "i" => "impression",
            "p" => "play",
            other => other,
        };
        let (request, video, at) = (word(), word(), word());
        let mut event = serde_json::json!({
            "kind": kind, "request_id": request, "video_id": video, "timestamp": DAY_MS + clock(at),
        });
        for (name, value) in words.map(|w| w.split_once('=').unwrap_or_else(|| panic!("{row}"))) {
            event[name] = value.into();
        }
        lines.push_str(&event.to_string());
        lines.push('\n');
    }
    lines
}

/// `10:30` as milliseconds; with seconds behind a further colon.
fn clock(text: &str) -> i64 {
    let mut parts = text.split(':').map(|part| part.parse::<i64>().unwrap());
    let (hours, minutes) = (parts.next().unwrap(), parts.next().unwrap());
    (hours * 60 + minutes) * MINUTE_MS + parts.next().unwrap_or(0) * 1_000
}

/// The rows of a CSV, as `v1 10:00 1/2` for 1 play of 2 impressions, separated by ` | `. The
/// time is the beginning of the half hour on [`DAY_MS`].
#[track_caller]
pub(crate) fn told(csv: &str) -> String {
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        let [video, epoch, plays, impressions, exact] = cells[..] else { panic!("{line}") };
        let minutes = (epoch.parse::<i64>().unwrap() * HALF_HOUR_MS - DAY_MS) / MINUTE_MS;
        let about = if exact == "true" { "" } else { "~" };
        format!("{video} {:02}:{:02} {about}{plays}/{impressions}", minutes / 60, minutes % 60)
    };
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("video_id,epoch,plays,impressions,exact"));
    lines.map(row).collect::<Vec<_>>().join(" | ")
}

/// All records of a topic of the embedded log. Waits for nobody: the program must have ended.
pub(crate) fn topic(data: &Path, topic: &str) -> Vec<Stored> {
    let (log, recovered) = EmbeddedLog::open(data, LogOptions::default()).unwrap();
    assert!(recovered.is_empty(), "a run that ended leaves nothing half written: {recovered:?}");
    let mut records = Vec::new();
    loop {
        let more = log.read(topic, 0, records.len() as u64, 10_000, 64 << 20).unwrap();
        if more.is_empty() {
            return records;
        }
        records.extend(more);
    }
}

/// A dead letter as the embedded log keeps it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Dead {
    pub(crate) source: String,
    pub(crate) line: u64,
    pub(crate) reason: String,
    pub(crate) bytes: Vec<u8>,
}

/// The dead letters in a data directory, by file and line.
pub(crate) fn dead_letters(data: &Path) -> Vec<Dead> {
    let of = |stored: Stored| {
        let key: Value = serde_json::from_slice(&stored.key).unwrap();
        Dead {
            source: key["source"].as_str().unwrap().to_owned(),
            line: key["offset"].as_u64().unwrap(),
            reason: key["reason"].as_str().unwrap().to_owned(),
            bytes: stored.value,
        }
    };
    let mut dead: Vec<Dead> = topic(data, "dead-letters").into_iter().map(of).collect();
    dead.sort();
    dead
}

/// The late events in a data directory.
pub(crate) fn late_events(data: &Path) -> Vec<Value> {
    topic(data, "late").iter().map(|stored| serde_json::from_slice(&stored.value).unwrap()).collect()
}

/// Every file below a folder, by its path there, with its bytes; hidden ones (locks) left out.
pub(crate) fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                files.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

/// The rows of all files below a folder, in their order, as JSON.
pub(crate) fn parquet_rows(folder: &Path) -> Vec<Value> {
    let mut rows = Vec::new();
    for (name, _) in files_below(folder) {
        let reader = SerializedFileReader::new(File::open(folder.join(&name)).unwrap()).unwrap();
        rows.extend(reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_json_value()));
    }
    rows
}

/// The folder with the reference workload and the real data, if this checkout has it beside it.
pub(crate) fn shared(part: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("UPTAKE_SHARED").map_or(beside, PathBuf::from);
    let path = shared.join(part);
    path.exists().then_some(path)
}

/// What `bench/contract.py` says of event files.
pub(crate) fn contract_py(bench: &Path, args: &[&str], files: &[PathBuf]) -> String {
    let output = Command::new("python3").arg(bench.join("contract.py")).args(args).args(files).output();
    let output = output.expect("python3 runs the plain contract");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A folder below the target directory, for what is too large for a temporary file system.
pub(crate) fn in_target(name: &str) -> PathBuf {
    // Cargo's own temporary folder lies directly in the target directory.
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join(name)
}
