//! `uptake run --supervise`: a parent that starts the run again when it fails.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use uptake_connectors::notices::{message_of, say};

use super::{AWAY, CommandError, TRY_AGAIN, cannot};
use crate::outputs::notice;

/// Set in the environment of a supervised run: its standard input is a pipe from the supervisor.
pub(super) const SUPERVISED: &str = "UPTAKE_SUPERVISED";

/// The first pause before a restart; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest pause where other processes of the cluster are away: who pauses for longer than
/// they wait for one another would never meet them.
const PAUSE_FOR_OTHERS: Duration = Duration::from_secs(1);
/// The longest pause where a server is away: who pauses for longer is late when it comes back.
const PAUSE_FOR_SERVERS: Duration = Duration::from_secs(5);
/// The longest pause.
const PAUSE_MOST: Duration = Duration::from_secs(30);
/// A run that lasted as long was no failure at the start.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// As many failures with the same last words, one after the other, do not get better.
const SAME_FAILURES_MAX: u32 = 5;

/// Runs this same command without `--supervise`, again and again until it ends well. `ends`: the
/// run ends by itself.
pub(super) fn supervise(ends: bool) -> Result<(), CommandError> {
    let program = super::this_program()?;
    let arguments: Vec<_> = std::env::args_os().skip(1).filter(|a| a != "--supervise").collect();
    let stopping = Arc::new(AtomicBool::new(false));
    // Closing it tells the child to stop.
    let pipe = Arc::new(Mutex::new(None));
    let (flag, its_pipe) = (Arc::clone(&stopping), Arc::clone(&pipe));
    let handler = move || {
        flag.store(true, Ordering::Release);
        drop(its_pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
    };
    ctrlc::set_handler(handler).map_err(|error| CommandError::Other(error.into()))?;

    let (mut pause, mut last_words, mut same) = (PAUSE_FIRST, String::new(), 0);
    loop {
        let begun = Instant::now();
        let mut child = Command::new(&program)
            .args(&arguments)
            .env(SUPERVISED, "1")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot("start", program.display()))?;
        *pipe.lock().unwrap_or_else(PoisonError::into_inner) = child.stdin.take();
        if stopping.load(Ordering::Acquire) {
            drop(pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        let mut words = pass_on(&mut child);
        let status = child.wait().map_err(cannot("wait for", program.display()))?;
        if status.success() {
            return Ok(());
        }
        let ended = match status.code() {
            Some(code) => format!("exit code {code}"),
            None => status.to_string(),
        };
        if stopping.load(Ordering::Acquire) {
            return Err(CommandError::Other(format!("the run did not end well: {ended}").into()));
        }
        if status.code() == Some(2) {
            return Err(CommandError::Usage("not restarted: it would fail the same way".to_owned()));
        }
        if begun.elapsed() >= HEALTHY_AFTER {
            (pause, same) = (PAUSE_FIRST, 0);
        }
        // That it was killed from outside, or that a server or other processes of its cluster are
        // away, says nothing of the next time. But those of a cluster that ends do not come back.
        let of_others = status.code() == Some(TRY_AGAIN.into());
        let of_servers = status.code() == Some(AWAY.into());
        if status.code().is_none() || of_servers || (of_others && !ends) {
            words.clear();
        }
        if of_others {
            pause = pause.min(PAUSE_FOR_OTHERS);
        }
        if of_servers {
            pause = pause.min(PAUSE_FOR_SERVERS);
        }
        same = if words == last_words { same + 1 } else { 1 };
        if same >= SAME_FAILURES_MAX && !words.is_empty() {
            return Err(CommandError::Other(
                format!("gave up after {same} failures of the same kind in a row; see the line above").into(),
            ));
        }
        last_words = words;
        notice(&format!("the run ended ({ended}); starting again in {:.1} s", pause.as_secs_f64()));
        let until = Instant::now() + pause;
        while Instant::now() < until && !stopping.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if stopping.load(Ordering::Acquire) {
            return Ok(());
        }
        pause = (pause * 2).min(PAUSE_MOST);
    }
}

/// Passes on what the child says; returns its last words if they are an error.
fn pass_on(child: &mut Child) -> String {
    let mut last = String::new();
    let Some(stderr) = child.stderr.take() else { return last };
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        say(&line);
        last = message_of(&line);
    }
    // What every run says at its start is no reason for its end.
    if last.contains("SIGTERM or Ctrl-C stops") || last.contains("going on from checkpoint") {
        last.clear();
    }
    last
}
