//! How old a row is: from the moment a play is in the log to the row that counts it.
//!
//! Measured on single plays, of titles that nobody played for some seconds, so that a count that has grown has grown
//! by this one. What never counts, as a play without an impression, is let go.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// A title that nobody played for as long is quiet.
const QUIET: Duration = Duration::from_secs(5);
/// Titles by hash; two that share a place are both less often quiet.
const PLACES: usize = 4_096;
/// The most plays that are waited for.
const WAITING_MAX: usize = 64;
/// As long is waited for one.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Of as many, and no older, are the figures.
const KEPT_MAX: usize = 1_000;
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Ages of the last minutes, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Ages {
    p50: u64,
    p95: u64,
    p99: u64,
    measured: usize,
}

/// Measures.
pub(crate) struct RowAge {
    begun: Instant,
    /// When a title of the place was played last, in milliseconds since the beginning, and 1.
    played: Box<[AtomicU64]>,
    /// How many are waited for.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: HashMap<Arc<str>, Waiting>,
    ages: VecDeque<(Instant, Duration)>,
}

struct Waiting {
    since: Instant,
    /// The epoch's number and its plays before.
    epoch: i64,
    before: u64,
}

impl RowAge {
    pub(crate) fn new() -> Self {
        let played = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { begun: Instant::now(), played, waiting: AtomicUsize::new(0), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A play is in the log. `plays` says what the row has of its title now: an epoch, and plays.
    pub(crate) fn took(&self, video: &str, plays: impl FnOnce() -> Option<(i64, u64)>) {
        let mut hasher = DefaultHasher::new();
        video.hash(&mut hasher);
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        let last = self.played[(hasher.finish() % PLACES as u64) as usize].swap(now, Ordering::Relaxed);
        let is_quiet = last == 0 || now.saturating_sub(last) >= QUIET.as_millis() as u64;
        // Most plays are of titles that are played all the time, while nothing is waited for: no lock for them.
        if !is_quiet && self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut state = self.state();
        // A second one is on its way: which of them is counted first cannot be told.
        state.waiting.remove(video);
        if is_quiet
            && state.waiting.len() < WAITING_MAX
            && let Some((epoch, before)) = plays()
        {
            state.waiting.insert(video.into(), Waiting { since: Instant::now(), epoch, before });
        }
        self.waiting.store(state.waiting.len(), Ordering::Relaxed);
    }

    /// The row was looked at: `plays` says what it has of a title.
    pub(crate) fn look(&self, plays: impl Fn(&str) -> Option<(i64, u64)>) {
        let State { waiting, ages } = &mut *self.state();
        waiting.retain(|video, one| {
            if one.since.elapsed() > WAIT_MAX {
                return false;
            }
            match plays(video) {
                Some((epoch, now)) if epoch == one.epoch && now <= one.before => true,
                Some((epoch, _)) if epoch == one.epoch => {
                    ages.push_back((Instant::now(), one.since.elapsed()));
                    false
                }
                // The next epoch has begun: it may be counted there or have been counted here.
                _ => false,
            }
        });
        self.waiting.store(waiting.len(), Ordering::Relaxed);
        while ages.len() > KEPT_MAX || ages.front().is_some_and(|(at, _)| at.elapsed() > KEPT_FOR) {
            ages.pop_front();
        }
    }

    /// The figures; none where nothing was measured in the last minutes.
    pub(crate) fn ages(&self) -> Option<Ages> {
        let state = self.state();
        let mut sorted: Vec<Duration> = state.ages.iter().map(|(_, age)| *age).collect();
        sorted.sort_unstable();
        let at = |part: f64| sorted[(part * (sorted.len() - 1) as f64).round() as usize].as_millis() as u64;
        (!sorted.is_empty()).then(|| Ages {
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            measured: sorted.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_told_is_measured() {
        let age = RowAge::new();
        age.look(|_| Some((7, 1)));
        assert_eq!(age.ages(), None);
        age.took("a", || Some((7, 3)));
        age.look(|_| Some((7, 3)));
        assert_eq!(age.ages(), None, "not counted yet");
        age.look(|_| Some((7, 4)));
        assert_eq!(age.ages().map(|ages| ages.measured), Some(1));
        age.took("a", || panic!("it was played a moment ago"));
        age.took("b", || Some((7, 0)));
        age.took("b", || panic!("so was this"));
        age.look(|_| Some((7, 9)));
        age.took("c", || Some((7, 0)));
        age.look(|_| Some((8, 9)));
        age.took("d", || None);
        age.look(|_| Some((7, 9)));
        assert_eq!(age.ages().map(|ages| ages.measured), Some(1), "{:?}", age.ages());
    }
}
