//! The clock: wall time, and how long something takes. Whoever starts a run passes one in: the
//! system's, or one that a simulation turns by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use uptake_model::EventTime;

/// A clock; copies show the same time.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicI64, Ordering}};
/// use uptake::clock::Clock;
/// let hands = Arc::new(AtomicI64::new(1_000));
/// let clock = Clock::by_hand(Arc::clone(&hands));
/// let begun = clock.moment();
/// hands.store(1_250, Ordering::Relaxed);
/// assert_eq!((clock.now().0, clock.since(begun).as_millis()), (1_250, 250));
/// ```
#[derive(Clone, Debug)]
pub struct Clock(Hands);

#[derive(Clone, Debug)]
enum Hands {
    /// The system's; moments are counted from when the clock was made.
    System(Instant),
    /// Milliseconds since 1970 UTC.
    ByHand(Arc<AtomicI64>),
}

/// A moment on a clock that never goes back; it means something to this clock alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment(Duration);

impl Moment {
    /// The moment so much later.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Hands::System(Instant::now()))
    }

    /// A clock that shows what `ms` holds, in milliseconds since 1970 UTC.
    pub fn by_hand(ms: Arc<AtomicI64>) -> Self {
        Self(Hands::ByHand(ms))
    }

    /// Wall time.
    pub fn now(&self) -> EventTime {
        match &self.0 {
            Hands::System(_) => crate::data_dir::now(),
            Hands::ByHand(ms) => EventTime(ms.load(Ordering::Acquire)),
        }
    }

    /// This moment, to measure from.
    pub fn moment(&self) -> Moment {
        Moment(match &self.0 {
            Hands::System(begun) => begun.elapsed(),
            Hands::ByHand(ms) => Duration::from_millis(ms.load(Ordering::Acquire).max(0).unsigned_abs()),
        })
    }

    /// How long ago a moment was.
    pub fn since(&self, moment: Moment) -> Duration {
        self.moment().0.saturating_sub(moment.0)
    }
}
