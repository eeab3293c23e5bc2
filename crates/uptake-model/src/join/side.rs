//! One kind of event of one request, when there are many of them: every question in O(log n).

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use crate::event::{Event, Kind};
use crate::ids::VideoHash;
use crate::join::JoinRules;
use crate::time::EventTime;

/// The impressions or the plays of a request.
#[derive(Debug, Default)]
pub(crate) struct Side {
    /// Every event ever taken, to know duplicates.
    seen: HashSet<(EventTime, VideoHash), FixedState>,
    /// The times taken, as intervals first → last whose neighbours lie at most 2 H apart: a time
    /// has a partner here exactly if it lies within H of one of the intervals, because two
    /// neighbours at most 2 H apart leave no gap between what they reach.
    reach: BTreeMap<EventTime, EventTime>,
    /// The events that do not count yet.
    waiting: BTreeMap<(EventTime, VideoHash), Event>,
}

impl Side {
    /// Events taken.
    pub(crate) fn len(&self) -> usize {
        self.seen.len()
    }

    pub(crate) fn has_seen(&self, event: &Event) -> bool {
        self.seen.contains(&(event.time, event.video))
    }

    /// Whether an event of the other kind at `time` has a partner here.
    pub(crate) fn reaches(&self, time: EventTime, rules: &JoinRules) -> bool {
        let near = |(first, last): (&EventTime, &EventTime)| {
            first.minus(rules.horizon_ms) <= time && time <= last.plus(rules.horizon_ms)
        };
        self.reach.range(..=time).next_back().is_some_and(near)
            || self.reach.range(time..).next().is_some_and(near)
    }

    /// Takes an event that is not a duplicate; it waits unless it counts.
    pub(crate) fn take(&mut self, event: Event, counts: bool, rules: &JoinRules) {
        self.seen.insert((event.time, event.video));
        if !counts {
            self.waiting.insert((event.time, event.video), event);
        }
        let width = rules.horizon_ms.saturating_mul(2);
        let (mut first, mut last) = (event.time, event.time);
        if let Some((&f, &l)) = self.reach.range(..=event.time).next_back()
            && l.plus(width) >= event.time
        {
            (first, last) = (f, last.max(l));
        }
        if let Some((&f, &l)) = self.reach.range(event.time..).next()
            && event.time.plus(width) >= f
        {
            self.reach.remove(&f);
            last = last.max(l);
        }
        self.reach.insert(first, last);
    }

    /// Wakes the waiting events that have `time` of the other kind as a partner.
    pub(crate) fn wake(&mut self, time: EventTime, rules: &JoinRules, counted: &mut dyn FnMut(Event)) {
        let from = (time.minus(rules.horizon_ms), VideoHash(0));
        let to = (time.plus(rules.horizon_ms), VideoHash(u64::MAX));
        while let Some((&key, _)) = self.waiting.range(from..=to).next() {
            if let Some(event) = self.waiting.remove(&key) {
                counted(event);
            }
        }
    }

    /// The events that never counted.
    pub(crate) fn into_waiting(self) -> impl Iterator<Item = Event> {
        self.waiting.into_values()
    }

    /// Every event taken with whether it counts, in no order; of those that count, only time and
    /// video are known.
    fn events(&self, kind: Kind) -> impl Iterator<Item = (Event, bool)> {
        self.seen.iter().map(move |&(time, video)| match self.waiting.get(&(time, video)) {
            Some(event) => (*event, false),
            None => (Event { kind, time, video, ..Event::default() }, true),
        })
    }

    /// Bytes held on the heap, estimated for the trees.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.seen.capacity() * (size_of::<(EventTime, VideoHash)>() + 1)
            + self.reach.len() * 24
            + self.waiting.len() * (size_of::<Event>() + 24)
    }
}

/// Every event of both sides with whether it counts, in no order; of those that count, only kind,
/// time and video are known.
pub(crate) fn events(sides: &[Side; 2]) -> impl Iterator<Item = (Event, bool)> {
    let [impressions, plays] = sides;
    impressions.events(Kind::Impression).chain(plays.events(Kind::Play))
}

/// Takes `event` of a request with these two sides, by the contract.
pub(crate) fn accept(
    sides: &mut [Side; 2],
    event: &Event,
    rules: &JoinRules,
    counted: &mut dyn FnMut(Event),
) -> crate::join::Arrival {
    use crate::join::Arrival;
    let [impressions, plays] = sides;
    let full = impressions.len() + plays.len() >= rules.request_events_max;
    let (own, other) = match event.kind {
        Kind::Impression => (impressions, plays),
        Kind::Play => (plays, impressions),
    };
    if own.has_seen(event) {
        return Arrival::Duplicate;
    }
    if full {
        return Arrival::Capped;
    }
    let counts = rules.counts_alone(event.kind) || other.reaches(event.time, rules);
    other.wake(event.time, rules, counted);
    own.take(*event, counts, rules);
    if counts {
        counted(*event);
        Arrival::Counted
    } else {
        Arrival::Waiting
    }
}
