//! The pipeline in a process of its own, started again whenever it ends.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::control::Shared;
use crate::commands::supervise::SUPERVISED;
use crate::commands::{CommandError, cannot};
use crate::memory::held_by;

/// What it is called where the system does not let us run it.
const A_PIPELINE: &str = "the pipeline of the demo";
/// How often one looks whether it still runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// It is started again after as long.
const PAUSE: Duration = Duration::from_millis(500);
/// How long it may take to end in good order.
const END_WITHIN: Duration = Duration::from_secs(20);

/// A pipeline that runs.
pub(super) struct Pipeline {
    inner: Arc<Inner>,
    thread: JoinHandle<()>,
}

/// What may be done to it.
pub(super) struct Inner {
    folder: PathBuf,
    settings: Vec<OsString>,
    child: Mutex<Option<Child>>,
    stopping: AtomicBool,
    pub(super) starts: AtomicU64,
}

impl Inner {
    fn command(&self, more: &[&str]) -> std::io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("run").arg("--data").arg(&self.folder).args(more).args(&self.settings);
        let said = OpenOptions::new().create(true).append(true).open(self.folder.join("pipeline.log"))?;
        // It ends when we do, also where we are killed: its standard input ends then.
        command.env(SUPERVISED, "1").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(said);
        Ok(command)
    }

    fn spawn(&self) -> std::io::Result<()> {
        let child = self.command(&[])?.spawn()?;
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        self.starts.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Ends it as `kill -9` does; says whether it ran.
    pub(super) fn kill(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_mut().is_some_and(|child| child.kill().is_ok())
    }

    /// What it holds in memory, in bytes.
    pub(super) fn memory(&self) -> Option<u64> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        held_by(child.as_ref()?.id())
    }

    fn has_ended(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.as_mut().is_none_or(|child| child.try_wait().is_ok_and(|ended| ended.is_some()))
    }

    fn watch(&self, shared: &Shared) {
        while !self.stopping.load(Ordering::Acquire) {
            std::thread::sleep(LOOK_EVERY);
            if !self.has_ended() || self.stopping.load(Ordering::Acquire) {
                continue;
            }
            std::thread::sleep(PAUSE);
            match self.spawn() {
                Ok(()) => shared.say("The pipeline has started again, from its newest checkpoint."),
                Err(error) => shared.say(&format!("The pipeline cannot be started: {error}")),
            }
        }
    }
}

impl Pipeline {
    /// Counts what is in the log of `folder`, and returns when it has.
    pub(super) fn catch_up(folder: &Path, settings: &[OsString]) -> Result<(), CommandError> {
        let inner = Self::inner(folder, settings);
        let run = || inner.command(&["--until-caught-up"])?.spawn()?.wait();
        match run().map_err(cannot("run", A_PIPELINE))?.success() {
            true => Ok(()),
            false => Err(said(folder)),
        }
    }

    /// Starts it.
    pub(super) fn start(
        folder: &Path,
        settings: &[OsString],
        shared: &Arc<Shared>,
    ) -> Result<Self, CommandError> {
        let inner = Arc::new(Self::inner(folder, settings));
        inner.spawn().map_err(cannot("run", A_PIPELINE))?;
        let (watched, shared) = (Arc::clone(&inner), Arc::clone(shared));
        let thread = std::thread::Builder::new().name("pipeline".to_owned());
        let thread = thread.spawn(move || watched.watch(&shared)).map_err(cannot("watch", A_PIPELINE))?;
        Ok(Self { inner, thread })
    }

    fn inner(folder: &Path, settings: &[OsString]) -> Inner {
        Inner {
            folder: folder.to_owned(),
            settings: settings.to_vec(),
            child: Mutex::new(None),
            stopping: AtomicBool::new(false),
            starts: AtomicU64::new(0),
        }
    }

    pub(super) fn inner_of(&self) -> Arc<Inner> {
        Arc::clone(&self.inner)
    }

    /// Ends it in good order, with a last checkpoint.
    pub(super) fn stop(self) -> Result<(), CommandError> {
        self.inner.stopping.store(true, Ordering::Release);
        if self.thread.join().is_err() {
            return Err(CommandError::Other("the watcher of the pipeline met a defect".into()));
        }
        let child = self.inner.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut child) = child else { return Ok(()) };
        drop(child.stdin.take());
        let begun = Instant::now();
        while begun.elapsed() < END_WITHIN {
            if let Some(status) = child.try_wait().map_err(cannot("wait for", A_PIPELINE))? {
                return if status.success() { Ok(()) } else { Err(said(&self.inner.folder)) };
            }
            std::thread::sleep(LOOK_EVERY);
        }
        child.kill().and_then(|()| child.wait()).map_err(cannot("end", A_PIPELINE))?;
        Err(CommandError::Other(format!("the pipeline did not end within {} s", END_WITHIN.as_secs()).into()))
    }
}

/// What the pipeline said last, as an error.
fn said(folder: &Path) -> CommandError {
    let text = std::fs::read_to_string(folder.join("pipeline.log")).unwrap_or_default();
    let last = text.lines().last().unwrap_or("it said nothing");
    CommandError::Other(format!("the pipeline failed: {last}").into())
}
