//! Crash points: ends the process in the middle of a write, for tests only.
//!
//! Every place in this crate that changes something durable passes a point before and after each
//! single step. A test arms the N-th point in a process of its own, lets it die there, and looks
//! at what is left. A process that is not armed, as all but those of tests, pays one load a point.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which point ends the process; 0 where none does.
static ARMED: AtomicU64 = AtomicU64::new(0);

/// How many points were passed since the process was armed.
static PASSED: AtomicU64 = AtomicU64::new(0);

/// From here on, the `after`-th point (from 1) ends the process with [`std::process::abort`],
/// after it printed `crash point N: what` to stderr. With `u64::MAX` the points are only counted;
/// 0 disarms. For tests only.
///
/// ```
/// use uptake_connectors::faults;
/// use uptake_connectors::objects::{CHECKPOINTS, DirectoryObjects, Objects};
/// let directory = tempfile::tempdir()?;
/// let objects = DirectoryObjects::open(directory.path(), CHECKPOINTS)?;
/// faults::arm(u64::MAX);
/// objects.put_if_absent("a", b"1")?;
/// assert!(faults::passed() > 5); // created, written, flushed, linked, …
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn arm(after: u64) {
    PASSED.store(0, Ordering::SeqCst);
    ARMED.store(after, Ordering::SeqCst);
}

/// How many points were passed since [`arm`]; a process that is not armed counts none. For tests
/// only.
pub fn passed() -> u64 {
    PASSED.load(Ordering::SeqCst)
}

/// Whether points are counted: a step may then be taken in two halves.
pub(crate) fn is_armed() -> bool {
    ARMED.load(Ordering::Relaxed) != 0
}

/// A place where the process may end; `what` says what was done last.
pub(crate) fn point(what: &'static str) {
    if is_armed() {
        reach(what);
    }
}

#[cold]
fn reach(what: &'static str) {
    let number = PASSED.fetch_add(1, Ordering::SeqCst) + 1;
    if number == ARMED.load(Ordering::SeqCst) {
        eprintln!("crash point {number}: {what}");
        std::process::abort();
    }
}
