//! Live runs as processes of their own: started, watched, killed, and never left behind.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use uptake_sim::{Audience, Dirt, Options, Rng, titles};

use super::{csv, first_difference, say, uptake, without_exact};

/// What ends well ends far sooner, also on a machine that is busy with other things.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// For what reads a whole input.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// Random numbers from a seed that is printed; `UPTAKE_TEST_SEED` runs one again.
pub(crate) fn seeded(test: &str) -> Rng {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 % 1_000_000;
    let seed = std::env::var("UPTAKE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(now);
    say(&format!("{test}: UPTAKE_TEST_SEED={seed}"));
    Rng::new(seed)
}

/// One of some.
pub(crate) fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[(rng.next_u64() % of.len() as u64) as usize]
}

/// A number from the environment.
pub(crate) fn asked(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Polls until something is true; fails with `what` if it does not become so.
#[track_caller]
pub(crate) fn wait_until(what: &str, within: Duration, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None`: by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{:?}\n{}", self.signal, self.stderr);
        self.stderr
    }

    #[track_caller]
    pub(crate) fn fails(self, code: i32, parts: &[&str]) -> String {
        assert_eq!(self.code, Some(code), "{:?}\n{}", self.signal, self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in:\n{}", self.stderr);
        }
        self.stderr
    }
}

/// A running `uptake`, in a process group of its own, which is killed when this is dropped.
pub(crate) struct Live {
    child: Child,
    out: [Arc<Mutex<String>>; 2],
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Live {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).spawn().unwrap();
        let out = [Arc::<Mutex<String>>::default(), Arc::default()];
        let readers = vec![
            follow(child.stdout.take().unwrap(), Arc::clone(&out[0])),
            follow(child.stderr.take().unwrap(), Arc::clone(&out[1])),
        ];
        Self { child, out, readers }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        kill(signal, &self.pid().to_string());
    }

    /// Everything on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.out[1].lock().unwrap().clone()
    }

    /// Everything on standard output so far.
    pub(crate) fn stdout(&self) -> String {
        self.out[0].lock().unwrap().clone()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until standard error has said `part`.
    #[track_caller]
    pub(crate) fn says(&self, part: &str, within: Duration) {
        let begun = Instant::now();
        while !self.stderr().contains(part) {
            assert!(begun.elapsed() < within, "{part:?} was not said within {within:?}:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn end(mut self, within: Duration) -> Ended {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(begun.elapsed() < within, "still running after {within:?}:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(5));
        };
        // A supervisor that was killed leaves its child behind, which has the same outputs.
        let last_words = Instant::now();
        while self.readers.iter().any(|reader| !reader.is_finished())
            && (status.signal().is_none() || last_words.elapsed() < Duration::from_millis(500))
            && last_words.elapsed() < SOON
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        let [stdout, stderr] = [0, 1].map(|n| self.out[n].lock().unwrap().clone());
        assert!(!stderr.contains("panicked"), "the program panicked:\n{stderr}");
        Ended { code: status.code(), signal: status.signal(), stdout, stderr }
    }

    /// kill -9.
    pub(crate) fn kill(self) {
        self.signal("KILL");
        let ended = self.end(SOON);
        assert!(ended.signal == Some(9) || ended.code == Some(0), "{ended:?}");
    }

    /// The process that this one supervises, if there is one now.
    pub(crate) fn supervised(&self) -> Option<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        kill("KILL", &format!("-{}", self.child.id()));
        let _ = self.child.wait();
    }
}

fn follow(
    from: impl std::io::Read + Send + 'static,
    into: Arc<Mutex<String>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            into.lock().unwrap().push_str(&(line + "\n"));
        }
    })
}

/// Sends a signal; `to` is a process, or with a minus a group.
pub(crate) fn kill(signal: &str, to: &str) {
    // It may have ended.
    let _ = Command::new("kill").arg(format!("-{signal}")).arg("--").arg(to).stderr(Stdio::null()).status();
}

/// Whether a process runs.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// The program; `UPTAKE_PROGRAM` tries another build of it.
pub(crate) fn program() -> PathBuf {
    std::env::var_os("UPTAKE_PROGRAM").map_or(env!("CARGO_BIN_EXE_uptake").into(), PathBuf::from)
}

/// `uptake run --data … --set …`, to be added to.
pub(crate) fn run_command(data: &Path, settings: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("run").arg("--data").arg(data);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

/// Runs until everything in the log has been read; it must go well. Returns what was said.
#[track_caller]
pub(crate) fn catch_up(data: &Path, settings: &[&str]) -> String {
    Live::start(run_command(data, settings).arg("--until-caught-up")).end(PATIENCE).ok()
}

/// `uptake append`, which must go well.
#[track_caller]
pub(crate) fn append(data: &Path, files: &[&Path]) {
    let mut command = Command::new(program());
    Live::start(command.arg("append").args(files).arg("--data").arg(data)).end(PATIENCE).ok();
}

/// The books of the last checkpoint, checked; without what says when it was taken.
#[track_caller]
pub(crate) fn ledger_of(data: &Path, cluster: &str) -> Value {
    let data = data.to_str().unwrap();
    let printed = uptake(["ledger", "--json", "--data", data, "--cluster", cluster]).ok();
    let mut books: Value = serde_json::from_str(&printed).unwrap();
    let n = |key: &str| books[key].as_u64().unwrap();
    let classes = ["counted", "waiting", "expired", "filtered", "dead", "duplicate", "late", "capped", "gap"];
    let accounted: u64 = classes.iter().map(|class| n(class)).sum();
    assert_eq!(n("read"), accounted, "{books}");
    assert_eq!(books["balances"], true, "{books}");
    for key in ["checkpoint", "created_ms"] {
        books.as_object_mut().unwrap().remove(key).unwrap();
    }
    books
}

#[track_caller]
pub(crate) fn ledger(data: &Path) -> Value {
    ledger_of(data, "main")
}

/// The table as it is now, also where there is none yet.
pub(crate) fn table_now(data: &Path) -> String {
    match data.join("table.sqlite").exists().then(|| csv_now(data)) {
        Some(Some(csv)) => without_exact(&csv),
        _ => String::new(),
    }
}

fn csv_now(data: &Path) -> Option<String> {
    let printed = uptake(["tallies", "--data", data.to_str().unwrap(), "--format", "csv"]);
    (printed.code == Some(0)).then_some(printed.stdout)
}

/// A stream in a log, with what its table and its books must come to.
pub(crate) struct Streamed {
    /// The data directory that holds the log and was never run.
    pub(crate) data: PathBuf,
    /// The events, as a file.
    pub(crate) file: PathBuf,
    pub(crate) lines: usize,
    /// The table by the plain contract.
    pub(crate) table: String,
    /// The books of a run that nothing disturbed.
    pub(crate) ledger: Value,
    /// How long that took.
    pub(crate) took: Duration,
}

impl Streamed {
    /// An audience of an evening, as many lines as asked for, in the log of `folder`/stream.
    pub(crate) fn audience(folder: &Path, seed: u64, lines: usize) -> Self {
        let (bytes, table) = audience(seed, lines);
        let file = folder.join("events.jsonl");
        std::fs::write(&file, bytes).unwrap();
        Self::of(folder, &[&file], lines, table, &[])
    }

    /// The log of some files. The undisturbed run must come to `table`.
    pub(crate) fn of(folder: &Path, files: &[&Path], lines: usize, table: String, settings: &[&str]) -> Self {
        let data = folder.join("stream");
        append(&data, files);
        let mut stream =
            Self { data, file: files[0].to_owned(), lines, table, ledger: Value::Null, took: Duration::ZERO };
        let undisturbed = stream.copy(&folder.join("undisturbed"));
        let begun = Instant::now();
        catch_up(&undisturbed, settings);
        (stream.took, stream.ledger) = (begun.elapsed(), ledger(&undisturbed));
        stream.check(&undisturbed);
        stream
    }

    /// A data directory of its own with the same log.
    pub(crate) fn copy(&self, to: &Path) -> PathBuf {
        copy_dir(&self.data, to);
        to.to_owned()
    }

    /// The table is the contract's, and the books are those of an undisturbed run.
    #[track_caller]
    pub(crate) fn check(&self, data: &Path) {
        self.check_of(data, "main");
    }

    #[track_caller]
    pub(crate) fn check_of(&self, data: &Path, cluster: &str) {
        self.check_table(data);
        self.check_books(ledger_of(data, cluster), "state");
    }

    /// The watermark ends where it would have. How much of what cannot count any more has been let go
    /// by then, and how many plays are among that, differs by the method of the join: windows go as a whole. The
    /// undisturbed run's is `state`.
    #[track_caller]
    pub(crate) fn check_books(&self, ours: Value, method: &str) {
        let settled = |mut books: Value| {
            let expired = books.as_object_mut().unwrap().remove("expired").unwrap().as_u64().unwrap();
            books["waiting"] = (books["waiting"].as_u64().unwrap() + expired).into();
            if method != "state" {
                let plays = books.as_object_mut().unwrap().remove("expired_plays").unwrap().as_u64().unwrap();
                assert!(plays <= expired, "{plays} of {expired}");
            }
            books
        };
        assert_eq!(settled(ours), settled(self.ledger.clone()));
    }

    #[track_caller]
    pub(crate) fn check_table(&self, data: &Path) {
        let ours = without_exact(&csv(data));
        if let Some(difference) = first_difference(&ours, &self.table) {
            panic!("{} differs from the contract: {difference}", data.display());
        }
    }
}

/// Copies a directory.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Lines of an audience over an evening, some eight hours, dirty but never late, and the table that it knows to be
/// right, counted without any code of uptake.
pub(crate) fn audience(seed: u64, lines: usize) -> (Vec<u8>, String) {
    let requests = lines as f64 / uptake_sim::EVENTS_PER_REQUEST;
    let dirt = Dirt {
        stale_requests: 0.0,
        clocks_off: 0.0,
        truncated: 0.005,
        unknown_kinds: 0.005,
        test_requests: 0.01,
        duplicates: 0.03,
        ..Dirt::default()
    };
    // The evening is busier than the average hour.
    let requests_per_second = requests / (16.0 * 3_600.0);
    let mut audience = Audience::new(Options { seed, dirt, requests_per_second, ..Options::default() });
    let mut bytes = Vec::new();
    assert_eq!(audience.fill(i64::MAX, lines, &mut bytes), lines);
    let table: BTreeMap<(&str, i64), _> = audience
        .truth()
        .table()
        .into_iter()
        .map(|((title, epoch), n)| ((titles()[usize::from(title)].id, epoch), (n.played, n.shown)))
        .collect();
    let mut text = String::from("video_id,epoch,plays,impressions\n");
    for ((video, epoch), (played, shown)) in table {
        text.push_str(&format!("{video},{epoch},{played},{shown}\n"));
    }
    (bytes, text)
}
