//! The state of one request: every event of it that was taken, in about four bytes each.
//!
//! A small request is a log of varints that is scanned whole for each new event, which for the
//! usual twenty events is faster than any index and takes no room. A request beyond
//! [`SMALL_EVENTS_MAX`] events becomes indexed, so that one hot request costs no more per event.

use crate::event::{Event, Kind};
use crate::ids::{DimsHash, MemberHash, RequestId, VideoHash};
use crate::join::interner::Interner;
use crate::join::side::{self, Side};
use crate::join::{Arrival, JoinRules};
use crate::time::EventTime;

/// The most events that are scanned rather than looked up. Scanning costs about 2 ns an event,
/// an indexed step about 200 ns, so they meet near a hundred.
const SMALL_EVENTS_MAX: usize = 96;

/// What the events of a request usually share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Context {
    member: MemberHash,
    dims: DimsHash,
    partition: u32,
}

/// The numbers that stand for videos and contexts in the request states of one worker.
#[derive(Debug, Default)]
pub struct JoinDictionary {
    videos: Interner<VideoHash>,
    contexts: Interner<Context>,
}

impl JoinDictionary {
    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.videos.heap_bytes() + self.contexts.heap_bytes()
    }

    /// Values in use: 0 once every request has been let go.
    pub fn len(&self) -> usize {
        self.videos.len() + self.contexts.len()
    }

    /// Whether no request refers to anything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The events of one request that were taken, and which of them count.
///
/// ```
/// use uptake_model::join::{Arrival, JoinDictionary, JoinRules, RequestState};
/// use uptake_model::{Event, EventTime, Kind, VideoHash};
/// let (rules, mut dictionary) = (JoinRules::default(), JoinDictionary::default());
/// let mut state = RequestState::default();
/// let shown = Event { video: VideoHash(1), time: EventTime(0), ..Event::default() };
/// let played = Event { kind: Kind::Play, time: EventTime(60_000), ..shown };
/// let mut out = Vec::new();
/// assert_eq!(state.step(&shown, &rules, &mut dictionary, &mut |e| out.push(e)), Arrival::Waiting);
/// assert_eq!(state.step(&played, &rules, &mut dictionary, &mut |e| out.push(e)), Arrival::Counted);
/// assert_eq!(out, [shown, played]);
/// ```
#[derive(Debug)]
pub struct RequestState(Form);

#[derive(Debug)]
enum Form {
    /// See [`Entry`] for the format.
    Small(Vec<u8>),
    Large(Box<[Side; 2]>),
}

impl Default for RequestState {
    fn default() -> Self {
        Self(Form::Small(Vec::new()))
    }
}

/// One event of a small log.
///
/// As bytes: varint(video << 3 | new context << 2 | counted << 1 | kind), then, where the context
/// is another than the entry's before, varint(context), then zigzag varint(time − time before).
#[derive(Clone, Copy)]
struct Entry {
    /// Where its first byte stands.
    at: usize,
    video: u32,
    context: u32,
    time: EventTime,
    kind: Kind,
    counted: bool,
}

const KIND_BIT: u8 = 1;
const COUNTED_BIT: u8 = 2;
const CONTEXT_BIT: u64 = 4;

/// Walks a small log.
struct Entries<'a> {
    log: &'a [u8],
    at: usize,
    context: u32,
    time: i64,
}

impl<'a> Entries<'a> {
    fn new(log: &'a [u8]) -> Self {
        Self { log, at: 0, context: 0, time: 0 }
    }

    #[inline]
    fn varint(&mut self) -> u64 {
        let first = self.log[self.at];
        self.at += 1;
        if first < 0x80 {
            return u64::from(first);
        }
        let second = self.log[self.at];
        self.at += 1;
        let mut value = u64::from(first & 0x7f) | u64::from(second & 0x7f) << 7;
        if second >= 0x80 {
            let mut shift = 14;
            loop {
                let byte = self.log[self.at];
                self.at += 1;
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
                shift += 7;
            }
        }
        value
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        if self.at >= self.log.len() {
            return None;
        }
        let at = self.at;
        let head = self.varint();
        if head & CONTEXT_BIT != 0 {
            self.context = self.varint() as u32;
        }
        let zigzag = self.varint();
        self.time = self.time.wrapping_add((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
        Some(Entry {
            at,
            video: (head >> 3) as u32,
            context: self.context,
            time: EventTime(self.time),
            kind: if head as u8 & KIND_BIT != 0 { Kind::Play } else { Kind::Impression },
            counted: head as u8 & COUNTED_BIT != 0,
        })
    }
}

fn push_varint(log: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        log.push(value as u8 | 0x80);
        value >>= 7;
    }
    log.push(value as u8);
}

impl RequestState {
    /// Takes one event of this request. `counted` is called for each event that counts from now
    /// on: those that waited for this one, then the event itself.
    #[inline]
    pub fn step(
        &mut self,
        event: &Event,
        rules: &JoinRules,
        dictionary: &mut JoinDictionary,
        counted: &mut dyn FnMut(Event),
    ) -> Arrival {
        let log = match &mut self.0 {
            Form::Small(log) => log,
            Form::Large(sides) => return side::accept(sides, event, rules, counted),
        };
        let video = dictionary.videos.find(&event.video);
        let mut entries = Entries::new(log);
        let (mut taken, mut partner, mut wakes) = (0, false, false);
        for entry in &mut entries {
            taken += 1;
            if entry.kind == event.kind {
                if entry.time == event.time && Some(entry.video) == video {
                    return Arrival::Duplicate;
                }
            } else if rules.pair(entry.time, event.time) {
                partner = true;
                wakes |= !entry.counted;
            }
        }
        if taken >= rules.request_events_max {
            return Arrival::Capped;
        }
        let (last_time, last_context) = (entries.time, entries.context);
        if wakes {
            Self::wake(log, event, rules, dictionary, counted);
        }
        let counts = partner || rules.counts_alone(event.kind);
        if counts {
            counted(*event);
        }

        let context = Context { member: event.member, dims: event.dims, partition: event.partition };
        let new_context = taken == 0 || dictionary.contexts.get(last_context) != context;
        // Room in steps of 16 bytes: doubling would waste a third of a state that waits.
        if log.capacity() - log.len() < 28 {
            let grown = (log.len() + 28 + 15) / 16 * 16;
            log.reserve_exact(grown - log.len());
        }
        let video = dictionary.videos.acquire(event.video);
        let bits = u64::from(event.kind as u8) | u64::from(counts) << 1 | u64::from(new_context) << 2;
        push_varint(log, u64::from(video) << 3 | bits);
        if new_context {
            push_varint(log, u64::from(dictionary.contexts.acquire(context)));
        }
        let delta = event.time.0.wrapping_sub(last_time);
        push_varint(log, (delta << 1 ^ delta >> 63) as u64);
        if taken + 1 >= SMALL_EVENTS_MAX {
            self.enlarge(event.request, rules, dictionary);
        }
        if counts { Arrival::Counted } else { Arrival::Waiting }
    }

    /// Lets the waiting events count that have `event` as a partner.
    fn wake(
        log: &mut [u8],
        event: &Event,
        rules: &JoinRules,
        dictionary: &JoinDictionary,
        counted: &mut dyn FnMut(Event),
    ) {
        let mut from = Entries::new(log);
        loop {
            // The bit of an entry is set behind the walk, so the walk can be taken up again.
            let Some(entry) =
                from.find(|e| e.kind != event.kind && !e.counted && rules.pair(e.time, event.time))
            else {
                return;
            };
            let (at, context, time) = (from.at, from.context, from.time);
            counted(dictionary.event(event.request, entry));
            log[entry.at] |= COUNTED_BIT;
            from = Entries { log, at, context, time };
        }
    }

    /// Turns the log into the indexed form.
    #[cold]
    fn enlarge(&mut self, request: RequestId, rules: &JoinRules, dictionary: &mut JoinDictionary) {
        let Form::Small(log) = &self.0 else { return };
        let mut sides: Box<[Side; 2]> = Box::default();
        for entry in Entries::new(log) {
            sides[entry.kind as usize].take(dictionary.event(request, entry), entry.counted, rules);
        }
        Self::release(log, dictionary);
        self.0 = Form::Large(sides);
    }

    /// Ends the request: `expired` is called for each event that never counted.
    pub fn expire(self, request: RequestId, dictionary: &mut JoinDictionary, expired: &mut dyn FnMut(Event)) {
        match self.0 {
            Form::Small(log) => {
                for entry in Entries::new(&log).filter(|e| !e.counted) {
                    expired(dictionary.event(request, entry));
                }
                Self::release(&log, dictionary);
            }
            Form::Large(sides) => sides.into_iter().flat_map(Side::into_waiting).for_each(expired),
        }
    }

    /// Gives back what a log refers to.
    fn release(log: &[u8], dictionary: &mut JoinDictionary) {
        let mut context = None;
        for entry in Entries::new(log) {
            dictionary.videos.release(entry.video);
            // One reference was taken wherever the context changes.
            if context != Some(entry.context) {
                dictionary.contexts.release(entry.context);
                context = Some(entry.context);
            }
        }
    }

    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Form::Small(log) => log.capacity(),
            Form::Large(sides) => size_of::<[Side; 2]>() + sides.iter().map(Side::heap_bytes).sum::<usize>(),
        }
    }
}

impl JoinDictionary {
    fn event(&self, request: RequestId, entry: Entry) -> Event {
        let Context { member, dims, partition } = self.contexts.get(entry.context);
        let video = self.videos.get(entry.video);
        Event { request, video, time: entry.time, member, dims, partition, kind: entry.kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_request_of_18_impressions_is_small() {
        let (rules, mut dictionary) = (JoinRules::default(), JoinDictionary::default());
        // 10,000 videos in use, so that a number takes two bytes or three.
        for v in 0..10_000 {
            dictionary.videos.acquire(VideoHash(v));
        }
        let mut state = RequestState::default();
        for i in 0..18u64 {
            let event = Event {
                request: RequestId(1),
                video: VideoHash(i * i * 29),
                time: EventTime(1_768_435_200_000 + i as i64 * 210),
                ..Event::default()
            };
            state.step(&event, &rules, &mut dictionary, &mut |_| {});
        }
        assert!(state.heap_bytes() <= 112, "{} bytes", state.heap_bytes());
    }
}
