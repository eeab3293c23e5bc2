//! The join of each batch to the windows: the batch's new plays to the windowed impressions, its
//! new impressions to the windowed plays, and new with new; then the windows slide by the batch.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::DamagedState;
use crate::event::Event;
use crate::ids::RequestId;
use crate::join::side::Side;
use crate::join::{Arrival, HoldingJoin, JoinRules, WindowJoin};
use crate::time::EventTime;

/// Windows of both sides, and the batch that is to be joined to them.
#[derive(Debug)]
pub struct BatchToWindow {
    windows: WindowJoin,
    batch: Vec<Event>,
}

impl BatchToWindow {
    /// An empty join.
    pub fn new(rules: JoinRules) -> Self {
        Self { windows: WindowJoin::new(rules), batch: Vec::new() }
    }
}

impl HoldingJoin for BatchToWindow {
    /// Only stores the event: what becomes of it shows at the end of the batch.
    fn step(&mut self, event: &Event, _counted: &mut dyn FnMut(Event)) -> Arrival {
        self.batch.push(*event);
        Arrival::Waiting
    }

    fn end_batch(
        &mut self,
        watermark: EventTime,
        counted: &mut dyn FnMut(Event),
        refused: &mut dyn FnMut(Event, Arrival),
        expired: &mut dyn FnMut(Event),
    ) {
        // Which of the batch is new: neither in the windows nor earlier in the batch, nor over the cap.
        let rules = *self.windows.rules();
        let mut new: HashMap<RequestId, [Side; 2], FixedState> = HashMap::default();
        let mut events = std::mem::take(&mut self.batch);
        events.retain(|event| {
            let reason = self.windows.refuses(event).or_else(|| {
                let sides = new.get(&event.request)?;
                if sides[event.kind as usize].has_seen(event) {
                    return Some(Arrival::Duplicate);
                }
                let taken = sides.iter().map(Side::len).sum::<usize>() + self.windows.taken(event.request);
                (taken >= rules.request_events_max).then_some(Arrival::Capped)
            });
            match reason {
                Some(arrival) => refused(*event, arrival),
                None => new.entry(event.request).or_default()[event.kind as usize].take(*event, true, &rules),
            }
            reason.is_none()
        });
        // New to windowed, both ways, and new with new.
        for event in &events {
            self.windows.wake(event, counted);
        }
        let counts: Vec<bool> = events
            .iter()
            .map(|event| {
                rules.counts_alone(event.kind)
                    || self.windows.reaches(event)
                    || new[&event.request][event.kind.other() as usize].reaches(event.time, &rules)
            })
            .collect();
        for (event, counts) in events.drain(..).zip(counts) {
            if counts {
                counted(event);
            }
            self.windows.insert(event, counts);
        }
        self.batch = events;
        self.windows.slide(watermark, expired);
    }

    fn events(&self) -> usize {
        self.windows.events() + self.batch.len()
    }

    fn save(&self, each: &mut dyn FnMut(RequestId, &[u8])) {
        debug_assert!(self.batch.is_empty(), "saved in the middle of a batch");
        self.windows.save(each);
    }

    fn load(&mut self, request: RequestId, bytes: &[u8]) -> Result<(), DamagedState> {
        self.windows.load(request, bytes)
    }
}
