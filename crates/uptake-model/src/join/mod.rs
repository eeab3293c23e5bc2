//! The join: which events count, by the contract of [`crate::contract`].
//!
//! Three methods come to one answer. [`RequestState`] keeps one compact state per request (the
//! default); [`WindowJoin`] keeps both sides in event-time windows; [`BatchToWindow`] joins each
//! batch to the windows and the windows slide by one batch. All take events in any order, any
//! number of times; none reads a clock.

mod batch_to_window;
mod context;
mod dated;
mod interner;
mod numbered;
mod request;
mod saved_events;
mod side;
mod window;

use serde::{Deserialize, Serialize};

pub use batch_to_window::BatchToWindow;
pub use request::{JoinDictionary, JoinNames, JoinSaver, RequestState};
pub use window::WindowJoin;

use crate::DamagedState;
use crate::event::{Event, Kind};
use crate::ids::RequestId;
use crate::time::EventTime;

/// Which events count without a partner.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JoinKind {
    /// An event counts only with an event of the other kind within the horizon.
    #[default]
    Inner,
    /// Every impression counts; a play counts only with an impression within the horizon.
    Left,
}

/// The rules of the join. All durations are milliseconds of event time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JoinRules {
    /// Inner or left.
    pub kind: JoinKind,
    /// H: how far apart the two events of a pair may lie.
    pub horizon_ms: i64,
    /// How far behind the newest event an event may come and still surely find its partner.
    pub lateness_ms: i64,
    /// The most events of one request that are taken; the rest is cut and counted.
    pub request_events_max: usize,
    /// What happened before is too late, wherever the watermark stands: an earlier run with less lateness has let go
    /// of it.
    pub closed_before: EventTime,
}

impl Default for JoinRules {
    /// Inner, 90 minutes, 2 hours, 1,000 events.
    fn default() -> Self {
        Self {
            kind: JoinKind::Inner,
            horizon_ms: 90 * 60_000,
            lateness_ms: 2 * 3_600_000,
            request_events_max: 1_000,
            closed_before: EventTime::MIN,
        }
    }
}

impl JoinRules {
    /// Whether two events of one request and of different kinds make a pair.
    #[inline]
    pub(crate) fn pair(&self, a: EventTime, b: EventTime) -> bool {
        a.0.abs_diff(b.0) <= self.horizon_ms as u64
    }

    /// Whether an event of this kind counts without a partner.
    #[inline]
    pub(crate) fn counts_alone(&self, kind: Kind) -> bool {
        self.kind == JoinKind::Left && kind == Kind::Impression
    }

    /// Whether an event comes too late: the watermark has passed it by more than horizon and
    /// lateness, so what it would have joined may be gone.
    #[inline]
    pub fn is_late(&self, time: EventTime, watermark: EventTime) -> bool {
        time < self.late_before(watermark)
    }

    /// The earliest time that is not too late.
    #[inline]
    pub fn late_before(&self, watermark: EventTime) -> EventTime {
        watermark.minus(self.horizon_ms).minus(self.lateness_ms).max(self.closed_before)
    }

    /// How long after an event its state is kept, judged by the watermark.
    ///
    /// An event that is not late may lie up to H before the oldest event that is accepted, and
    /// that one lies H + lateness behind the watermark: hence 2 H + lateness. With it the answer
    /// is exact whenever no event was late, not only when events are late by less than H.
    pub fn retention_ms(&self) -> i64 {
        self.horizon_ms.saturating_mul(2).saturating_add(self.lateness_ms)
    }
}

/// What became of an event when it arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// It counts.
    Counted,
    /// It waits: for its request's other half, or for the end of its batch.
    Waiting,
    /// It was there before.
    Duplicate,
    /// Its request has had as many events as the cap allows.
    Capped,
}

/// A join that holds the state of all its requests itself.
pub trait HoldingJoin {
    /// Takes one event. `counted` is called for each event that counts from now on: those that
    /// waited for this one, then the event itself.
    fn step(&mut self, event: &Event, counted: &mut dyn FnMut(Event)) -> Arrival;

    /// Ends a batch: joins what was put off, then lets go of what the watermark has passed.
    /// `refused` is called with each event put off by `accept` that turned out to be a duplicate
    /// or over the cap, `expired` with each event that never counted.
    fn end_batch(
        &mut self,
        watermark: EventTime,
        counted: &mut dyn FnMut(Event),
        refused: &mut dyn FnMut(Event, Arrival),
        expired: &mut dyn FnMut(Event),
    );

    /// Events held, counted and waiting.
    fn events(&self) -> usize;

    /// Calls `each` with every request and its events as bytes that any such join can load.
    /// Only between batches: what was put off in a batch is not saved.
    fn save(&self, each: &mut dyn FnMut(RequestId, &[u8]));

    /// Takes the events of a request that it does not have yet, as [`HoldingJoin::save`] gave
    /// them. They go on exactly as where they were saved.
    ///
    /// # Errors
    ///
    /// If the bytes are damaged or the request is there already. The join is then as before.
    fn load(&mut self, request: RequestId, bytes: &[u8]) -> Result<(), DamagedState>;
}

#[cfg(test)]
mod saved_tests;
#[cfg(test)]
mod tests;
