//! The join over event-time windows: both sides held in windows of a fixed width, joined by
//! request, each window dropped whole once nothing that may still come can reach it.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::DamagedState;
use crate::bytes::check_end;
use crate::event::Event;
use crate::ids::RequestId;
use crate::join::side::{self, Side};
use crate::join::{Arrival, HoldingJoin, JoinRules, saved_events};
use crate::time::EventTime;

type Window = HashMap<RequestId, [Side; 2], FixedState>;

/// Both sides of all requests in event-time windows.
#[derive(Debug)]
pub struct WindowJoin {
    rules: JoinRules,
    /// At least H, so that a partner lies in the same window or in a neighbour.
    width_ms: i64,
    windows: BTreeMap<i64, Window>,
    /// Events taken per request over all windows, for the cap.
    taken: HashMap<RequestId, usize, FixedState>,
    events: usize,
}

impl WindowJoin {
    /// An empty join.
    pub fn new(rules: JoinRules) -> Self {
        let width_ms = rules.horizon_ms.max(60_000);
        Self { rules, width_ms, windows: BTreeMap::new(), taken: HashMap::default(), events: 0 }
    }

    fn window_of(&self, time: EventTime) -> i64 {
        time.0.div_euclid(self.width_ms)
    }

    /// Whether the event was taken before, or may not be taken.
    pub(crate) fn refuses(&self, event: &Event) -> Option<Arrival> {
        let sides = self.windows.get(&self.window_of(event.time)).and_then(|w| w.get(&event.request));
        if sides.is_some_and(|s| s[event.kind as usize].has_seen(event)) {
            return Some(Arrival::Duplicate);
        }
        (self.taken(event.request) >= self.rules.request_events_max).then_some(Arrival::Capped)
    }

    /// Whether a windowed event of the other kind is a partner of `event`.
    pub(crate) fn reaches(&self, event: &Event) -> bool {
        let window = self.window_of(event.time);
        self.windows.range(window - 1..=window + 1).any(|(_, w)| {
            w.get(&event.request)
                .is_some_and(|s| s[event.kind.other() as usize].reaches(event.time, &self.rules))
        })
    }

    /// Lets the windowed events count that have `event` as a partner.
    pub(crate) fn wake(&mut self, event: &Event, counted: &mut dyn FnMut(Event)) {
        let window = self.window_of(event.time);
        for (_, w) in self.windows.range_mut(window - 1..=window + 1) {
            if let Some(sides) = w.get_mut(&event.request) {
                sides[event.kind.other() as usize].wake(event.time, &self.rules, counted);
            }
        }
    }

    /// Puts an event into its window.
    pub(crate) fn insert(&mut self, event: Event, counts: bool) {
        let window = self.window_of(event.time);
        let sides = self.windows.entry(window).or_default().entry(event.request).or_default();
        sides[event.kind as usize].take(event, counts, &self.rules);
        *self.taken.entry(event.request).or_default() += 1;
        self.events += 1;
    }

    /// Drops the windows that lie wholly before the reach of anything that may still come.
    pub(crate) fn slide(&mut self, watermark: EventTime, expired: &mut dyn FnMut(Event)) {
        let keep_from = watermark.minus(self.rules.retention_ms());
        while let Some(first) = self.windows.first_entry() {
            if EventTime(first.key().saturating_add(1).saturating_mul(self.width_ms)) > keep_from {
                break;
            }
            for (request, sides) in first.remove() {
                let taken = sides.iter().map(Side::len).sum::<usize>();
                self.events -= taken;
                if let Some(n) = self.taken.get_mut(&request) {
                    *n -= taken;
                    if *n == 0 {
                        self.taken.remove(&request);
                    }
                }
                sides.into_iter().flat_map(Side::into_waiting).for_each(&mut *expired);
            }
        }
    }

    /// Events of `request` in all windows.
    pub(crate) fn taken(&self, request: RequestId) -> usize {
        self.taken.get(&request).copied().unwrap_or(0)
    }

    pub(crate) fn rules(&self) -> &JoinRules {
        &self.rules
    }
}

impl HoldingJoin for WindowJoin {
    fn step(&mut self, event: &Event, counted: &mut dyn FnMut(Event)) -> Arrival {
        if let Some(refused) = self.refuses(event) {
            return refused;
        }
        let counts = self.rules.counts_alone(event.kind) || self.reaches(event);
        self.wake(event, counted);
        self.insert(*event, counts);
        if counts {
            counted(*event);
            Arrival::Counted
        } else {
            Arrival::Waiting
        }
    }

    fn end_batch(
        &mut self,
        watermark: EventTime,
        _counted: &mut dyn FnMut(Event),
        _refused: &mut dyn FnMut(Event, Arrival),
        expired: &mut dyn FnMut(Event),
    ) {
        self.slide(watermark, expired);
    }

    fn events(&self) -> usize {
        self.events
    }

    fn save(&self, each: &mut dyn FnMut(RequestId, &[u8])) {
        let (mut events, mut bytes) = (Vec::new(), Vec::new());
        for &request in self.taken.keys() {
            events.clear();
            events.extend(self.windows.values().filter_map(|w| w.get(&request)).flat_map(side::events));
            bytes.clear();
            saved_events::put(&mut events, &mut bytes);
            each(request, &bytes);
        }
    }

    fn load(&mut self, request: RequestId, mut bytes: &[u8]) -> Result<(), DamagedState> {
        let events = saved_events::take(&mut bytes, request)?;
        check_end(bytes)?;
        if self.taken(request) > 0 {
            return Err(DamagedState("a request is there twice"));
        }
        events.into_iter().for_each(|(event, counts)| self.insert(event, counts));
        Ok(())
    }
}
