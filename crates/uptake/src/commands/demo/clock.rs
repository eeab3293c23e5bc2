//! The clock of a world that runs faster than ours, and can stand still.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A clock that server and crowd share.
#[derive(Debug)]
pub(super) struct WorldClock(Mutex<Hands>);

#[derive(Debug)]
struct Hands {
    /// What it showed when it was set last, in milliseconds since 1970 UTC.
    shown: f64,
    set: Instant,
    speed: f64,
    is_paused: bool,
}

impl Hands {
    fn now(&self) -> f64 {
        let speed = if self.is_paused { 0.0 } else { self.speed };
        self.shown + self.set.elapsed().as_secs_f64() * 1e3 * speed
    }
}

impl WorldClock {
    pub(super) fn new(now_ms: i64, speed: f64) -> Self {
        Self(Mutex::new(Hands { shown: now_ms as f64, set: Instant::now(), speed, is_paused: true }))
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it shows.
    pub(super) fn now(&self) -> i64 {
        self.hands().now() as i64
    }

    /// How many times faster than ours it runs, and whether it stands still.
    pub(super) fn pace(&self) -> (f64, bool) {
        let hands = self.hands();
        (hands.speed, hands.is_paused)
    }

    /// Changes how it runs; it goes on from what it shows.
    pub(super) fn set_pace(&self, speed: Option<f64>, is_paused: Option<bool>) {
        let mut hands = self.hands();
        (hands.shown, hands.set) = (hands.now(), Instant::now());
        hands.speed = speed.unwrap_or(hands.speed);
        hands.is_paused = is_paused.unwrap_or(hands.is_paused);
    }

    /// Sets it.
    pub(super) fn set(&self, now_ms: i64) {
        let mut hands = self.hands();
        (hands.shown, hands.set) = (now_ms as f64, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_still_and_goes_on_from_there() {
        let clock = WorldClock::new(1_000, 1e6);
        assert_eq!((clock.now(), clock.now()), (1_000, 1_000), "paused at first");
        clock.set_pace(None, Some(false));
        let begun = Instant::now();
        while clock.now() < 50_000 {
            assert!(begun.elapsed().as_secs() < 10);
        }
        clock.set_pace(Some(2.0), Some(true));
        let at = clock.now();
        assert!(at >= 50_000 && clock.now() == at && clock.pace() == (2.0, true));
        clock.set(7);
        assert_eq!(clock.now(), 7);
    }
}
