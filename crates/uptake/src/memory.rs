//! The memory of this process against its budget, so that a run stops with a clear line and goes
//! on later, where the system would end it at any moment.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often the system is asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// While memory is tight, nothing is read for so long, so that what was read can leave it: a
/// checkpoint be written, requests go to disk.
const PAUSE: Duration = Duration::from_millis(400);
/// Then something is for so long, because a worker gives memory back to the system when it uses
/// memory, and so on in turns.
const READ: Duration = Duration::from_millis(100);
/// For how long a little more may be held than the budget allows: a checkpoint in the making.
const GRACE: Duration = Duration::from_secs(5);

/// A budget: so many bytes, or a part of what the machine (or its container) has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Budget {
    /// None.
    Off,
    /// Bytes.
    Bytes(u64),
    /// Hundredths of the machine's memory.
    Percent(u8),
}

impl Budget {
    /// Reads "off", "80%", "512MiB", "2GiB" or a number of bytes.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "off" {
            return Some(Self::Off);
        }
        if let Some(percent) = text.strip_suffix('%') {
            return percent.trim().parse().ok().filter(|p| (1..=100).contains(p)).map(Self::Percent);
        }
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("", 0)];
        let (digits, shift) =
            units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)))?;
        let bytes = digits.trim().parse::<u64>().ok()?.checked_mul(1 << shift)?;
        (bytes >= 1 << 20).then_some(Self::Bytes(bytes))
    }

    /// In bytes; `None` where there is no budget or the machine does not say what it has.
    pub fn bytes(self) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Percent(percent) => machine_bytes().map(|all| all / 100 * u64::from(percent)),
        }
    }
}

/// What the machine has, or its container may use.
fn machine_bytes() -> Option<u64> {
    let machine = kib_of("/proc/meminfo", "MemTotal:")?;
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container = container.and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    Some(machine.min(container))
}

/// What a process holds in memory, in bytes; `None` where the system does not say.
pub(crate) fn held_by(process: u32) -> Option<u64> {
    kib_of(&format!("/proc/{process}/status"), "VmRSS:")
}

/// A value that a file of the system gives in KiB, in bytes.
fn kib_of(path: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The process's memory against its budget; shared by all workers.
#[derive(Debug)]
pub struct Memory {
    bytes_max: Option<u64>,
    looked: Mutex<Looked>,
}

#[derive(Debug, Default)]
struct Looked {
    last: Option<Instant>,
    /// What the process held then, in bytes.
    held: u64,
    /// Since when more is held than the budget allows.
    over_since: Option<Instant>,
    /// While memory is tight: until when nothing is read, and then, once somebody has asked,
    /// until when something is.
    turn: Option<(Instant, Option<Instant>)>,
}

/// More is held than the budget allows.
#[derive(Debug, thiserror::Error)]
pub struct OverBudget {
    held: u64,
    bytes_max: u64,
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        write!(
            f,
            "this process holds {} MiB of memory and may hold {} MiB (memory.bytes_max). Raise that, lower \
             join.lateness or join.horizon, or spread the run over more hosts; nothing is lost, the next run \
             goes on from the last checkpoint",
            mib(self.held),
            mib(self.bytes_max)
        )
    }
}

impl Memory {
    /// Memory with a budget. Where the system does not say what a process holds there is none.
    pub fn new(budget: Budget) -> Self {
        Self { bytes_max: budget.bytes(), looked: Mutex::default() }
    }

    fn look(&self) -> MutexGuard<'_, Looked> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.last.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            let now = Instant::now();
            looked.last = Some(now);
            looked.held = held_by(std::process::id()).unwrap_or(0);
            let held = looked.held;
            let more_than = |percent| self.bytes_max.is_some_and(|most| held > most / 100 * percent);
            looked.turn = looked.turn.or(Some((now + PAUSE, None))).filter(|_| more_than(90));
            looked.over_since = more_than(100).then_some(looked.over_since.unwrap_or(now));
        }
        looked
    }

    /// Whether so little is left that nothing should be read for the moment.
    ///
    /// # Errors
    /// More is held than the budget allows: a tenth more, or anything for some seconds.
    pub fn is_tight(&self) -> Result<bool, OverBudget> {
        let Some(bytes_max) = self.bytes_max else { return Ok(false) };
        let mut looked = self.look();
        let (held, now) = (looked.held, Instant::now());
        if held > bytes_max / 10 * 11 || looked.over_since.is_some_and(|since| now - since >= GRACE) {
            return Err(OverBudget { held, bytes_max });
        }
        let Some((pause_until, read_until)) = &mut looked.turn else { return Ok(false) };
        if now < *pause_until {
            return Ok(true);
        }
        // Who asks seldom shall not always find a pause.
        let read_until = *read_until.get_or_insert(now + READ);
        if now >= read_until {
            looked.turn = Some((now + PAUSE, None));
        }
        Ok(now >= read_until)
    }

    /// After so many records of one worker a checkpoint takes about a tenth of the budget while it
    /// is made: at most 30 bytes a record, twice.
    pub fn checkpoint_events_max(&self) -> usize {
        self.bytes_max.map_or(usize::MAX, |most| usize::try_from(most / 600).unwrap_or(usize::MAX))
    }
}

/// States that a worker holds at least, however short memory is: putting away fewer than the
/// requests of a moment would do nothing else.
const STATES_LEAST: usize = 1_000;

/// How many states a worker may hold, as the process's memory allows.
///
/// What states free is used again and seldom given back to the system, so that the process's memory
/// says when there are too many, and not when there are few enough. So when it is short the number
/// of states there are becomes the most that there may be; when it grows in spite of that, or
/// little is left, there may be fewer; when there is plenty of it again, any number.
#[derive(Debug)]
pub struct Room {
    memory: Arc<Memory>,
    states_max: Option<usize>,
    /// What the process held when `states_max` was set.
    held_then: u64,
}

impl Room {
    /// Room in the memory of this process.
    pub fn new(memory: Arc<Memory>) -> Self {
        Self { memory, states_max: None, held_then: 0 }
    }

    /// How many of `states` states are to be put away.
    pub fn excess(&mut self, states: usize) -> usize {
        let Some(bytes_max) = self.memory.bytes_max else { return 0 };
        let held = self.memory.look().held;
        self.excess_of(states, held, bytes_max)
    }

    fn excess_of(&mut self, states: usize, held: u64, bytes_max: u64) -> usize {
        let percent = |percent: u64| bytes_max / 100 * percent;
        if held < percent(35) {
            (self.states_max, self.held_then) = (None, 0);
        } else if held > percent(50) && (held > self.held_then + percent(2) || held > percent(75)) {
            let fewer = self.states_max.map_or(states, |most| states.min(most / 8 * 7));
            (self.states_max, self.held_then) = (Some(fewer.max(STATES_LEAST)), held);
        }
        match self.states_max {
            // An eighth at a time: each time costs something.
            Some(most) if states >= most => states - most / 8 * 7,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_as_people_write_them() {
        for (text, budget) in [
            ("off", Some(Budget::Off)),
            ("80%", Some(Budget::Percent(80))),
            ("512MiB", Some(Budget::Bytes(512 << 20))),
            ("2 GiB", Some(Budget::Bytes(2 << 30))),
            ("1048576", Some(Budget::Bytes(1 << 20))),
            ("0%", None),
            ("101%", None),
            ("10", None),
            ("5GB", None),
            ("much", None),
            ("99999999999TiB", None),
        ] {
            assert_eq!(Budget::parse(text), budget, "{text}");
        }
    }

    #[test]
    fn room_is_what_there_was_when_memory_became_short() {
        let mut room = Room::new(Arc::new(Memory::new(Budget::Off)));
        let mut excess = |states, held| room.excess_of(states, held, 1000);
        assert_eq!(excess(900_000, 490), 0);
        assert_eq!(excess(800_000, 510), 100_000);
        // What was put away has made no difference to the process.
        assert_eq!((excess(700_000, 515), excess(799_999, 515)), (0, 0));
        assert_eq!(excess(810_000, 515), 110_000);
        // Something else takes more.
        assert_eq!(excess(790_000, 540), 790_000 - 87_500 * 7);
        assert_eq!((excess(699_999, 450), excess(700_000, 450)), (0, 87_500));
        // Little is left.
        assert_eq!((excess(600_000, 760), excess(500_000, 760)), (75_000, 62_500));
        // There is plenty again.
        assert_eq!((excess(5_000_000, 340), excess(5_000_000, 450)), (0, 0));
        assert_eq!(excess(10, 900), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_held_is_seen() {
        assert!(!Memory::new(Budget::Off).is_tight().unwrap());
        assert!(!Memory::new(Budget::Bytes(1 << 50)).is_tight().unwrap());
        let over = Memory::new(Budget::Bytes(1 << 20));
        // A little over is so only when it lasts.
        let held = held_by(std::process::id()).unwrap();
        let little = Memory::new(Budget::Bytes(held / 100 * 97));
        assert!(little.is_tight().unwrap());
        // After a pause something is read whenever the next one asks, and then comes a pause.
        little.looked.lock().unwrap().turn = Some((Instant::now(), None));
        assert!(!little.is_tight().unwrap());
        little.looked.lock().unwrap().turn = Some((Instant::now(), Some(Instant::now())));
        assert!(little.is_tight().unwrap() && little.is_tight().unwrap());
        let long_ago = Instant::now().checked_sub(GRACE).unwrap();
        little.looked.lock().unwrap().over_since = Some(long_ago);
        little.is_tight().unwrap_err();
        let said = over.is_tight().unwrap_err().to_string();
        assert!(said.contains("may hold 1 MiB (memory.bytes_max)"), "{said}");
        assert!(Budget::Percent(50).bytes().is_some_and(|bytes| bytes > 1 << 28));
    }
}
