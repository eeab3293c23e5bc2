//! The state of one request: every event of it that was taken, in about four bytes each.
//!
//! A small request is a log of varints, scanned when a new event may be a duplicate or have a
//! partner, which for the usual twenty events is faster than any index and takes no room. A request beyond
//! [`SMALL_EVENTS_MAX`] events becomes indexed, so that one hot request costs no more per event.

mod names;
mod saved;

use std::cmp::Ordering;

pub use names::{JoinNames, JoinSaver};

use crate::bytes::{VARINT_BYTES_MAX, unzigzag, write_varint, zigzag};
use crate::event::{Event, Kind};
use crate::ids::{RequestId, VideoHash};
use crate::join::context::Context;
use crate::join::dated::Dated;
use crate::join::interner::Interner;
use crate::join::side::{self, Side};
use crate::join::{Arrival, JoinRules};
use crate::time::EventTime;

/// The most events that are scanned rather than looked up. Scanning costs about 2 ns an event,
/// an indexed step about 200 ns, so they meet near a hundred.
const SMALL_EVENTS_MAX: usize = 96;

/// The numbers that stand for videos and contexts in the request states of one worker.
///
/// A context is let go of by the last request that refers to it. A video is kept for as long as any request
/// that refers to it can wait, and an hour more: to give each of them back when its request ends would be to
/// walk through all events of all requests, of which most end as they are.
#[derive(Debug, Default)]
pub struct JoinDictionary {
    videos: Dated<VideoHash>,
    contexts: Interner<Context>,
}

impl JoinDictionary {
    /// Forgets, now and then, the videos that no request refers to any more: those of which every event lies
    /// before `watermark` by more than the rules' retention have ended. At [`EventTime::MAX`] all have.
    ///
    /// ```
    /// use uptake_model::join::{JoinDictionary, JoinRules, RequestState};
    /// use uptake_model::{Event, EventTime};
    /// let (rules, mut dictionary) = (JoinRules::default(), JoinDictionary::default());
    /// let mut state = RequestState::default();
    /// state.step(&Event::default(), &rules, &mut dictionary, &mut |_| {});
    /// state.expire(Event::default().request, &mut dictionary, &mut |_| {});
    /// dictionary.forget_before(EventTime::MAX);
    /// assert!(dictionary.is_empty());
    /// ```
    pub fn forget_before(&mut self, watermark: EventTime) {
        self.videos.forget_before(watermark);
    }

    /// Keeps all videos that are known at least until the watermark has passed `time`: for requests that were
    /// loaded and that wait for longer than the rules of today would let them.
    pub fn keep_until(&mut self, time: EventTime) {
        self.videos.keep_all(time);
    }

    /// Bytes held on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.videos.heap_bytes() + self.contexts.heap_bytes()
    }

    /// Values that are kept. Videos stay for a while after the last request that refers to them, see
    /// [`JoinDictionary::forget_before`].
    pub fn len(&self) -> usize {
        self.videos.len() + self.contexts.len()
    }

    /// Whether no value is kept.
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
    /// Empty, or a [`Header`] and then one [`Entry`] after another.
    Small(Vec<u8>),
    Large(Box<[Side; 2]>),
}

impl Default for RequestState {
    fn default() -> Self {
        Self(Form::Small(Vec::new()))
    }
}

/// What is known of a small log without walking it. In bytes, little-endian: marks 4, base 6,
/// context 4, taken 1, kinds 1.
#[derive(Clone, Copy)]
struct Header {
    /// A bit for each event taken, by its hash: an event whose bit is not set is no duplicate.
    marks: u32,
    /// The time of the first event, to which the others are relative.
    base: i64,
    /// The context of the first event, which most others share.
    context: u32,
    /// Events taken.
    taken: u8,
    /// A bit for each kind taken: without the other kind there is no partner to look for. And
    /// [`WENT_BACK`] and [`MIXED`].
    kinds: u8,
}

/// Of a header's kinds: an event came whose time lies before that of the one before it. As long as none did,
/// an event later than the last one is later than all, and no duplicate.
const WENT_BACK: u8 = 4;
/// Of a header's kinds: an event counts alone, or has another context than the first. As long as none does, and
/// none is a play, the entries need say no more than videos and times.
const MIXED: u8 = 8;
/// Of a header's kinds: an event came more than [`SPAN_MS`] after the first one.
const LONG: u8 = 16;

/// Videos of a request are kept as if its last event came so much after its first one. One that goes on for
/// longer keeps all its videos anew with each further event.
const SPAN_MS: i64 = 3_600_000;

impl Header {
    const BYTES: usize = 16;
    /// Where the kinds stand.
    const KINDS: usize = 15;

    /// Whether a time can be the base: ± 4,400 years around 1970.
    fn fits(time: EventTime) -> bool {
        time.0 << 16 >> 16 == time.0
    }

    #[inline]
    fn read(log: &[u8]) -> Self {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&log[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let (low, high) = (word(0), word(8));
        Self {
            marks: low as u32,
            base: ((low >> 32 | high << 32) << 16) as i64 >> 16,
            context: (high >> 16) as u32,
            taken: (high >> 48) as u8,
            kinds: (high >> 56) as u8,
        }
    }

    #[inline]
    fn write(self, log: &mut [u8]) {
        let base = self.base as u64 & 0xffff_ffff_ffff;
        let low = u64::from(self.marks) | base << 32;
        let high = base >> 32
            | u64::from(self.context) << 16
            | u64::from(self.taken) << 48
            | u64::from(self.kinds) << 56;
        log[..8].copy_from_slice(&low.to_le_bytes());
        log[8..16].copy_from_slice(&high.to_le_bytes());
    }

    #[inline]
    fn mark(event: &Event) -> u32 {
        let mixed = (event.video.0 ^ event.time.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        1 << (((mixed >> 58) as u32 ^ event.kind as u32) & 31)
    }

    /// The time of the last event of a log that has one.
    #[inline]
    fn last(&self, log: &[u8]) -> i64 {
        // The log ends with that time's varint: all bytes of it but the last say that more follow, and the byte
        // before it, which ends another varint, does not.
        let mut at = log.len() - 1;
        let mut delta = u64::from(log[at]);
        while log[at - 1] >= 0x80 {
            at -= 1;
            delta = delta << 7 | u64::from(log[at] & 0x7f);
        }
        self.base.wrapping_add(unzigzag(delta))
    }

    /// How the time of an event lies to that of the last one of a log that has one.
    #[inline]
    fn compare(&self, log: &[u8], event: &Event) -> Ordering {
        event.time.0.cmp(&self.last(log))
    }

    /// The header once an event of this mark and kind is taken, too, which lies so to the last one.
    #[inline]
    fn with(self, mark: u32, kind: Kind, to_last: Ordering) -> Self {
        let kinds = 1 << kind as u8 | if to_last == Ordering::Less { WENT_BACK } else { 0 };
        Self { marks: self.marks | mark, taken: self.taken + 1, kinds: self.kinds | kinds, ..self }
    }
}

/// One event of a small log.
///
/// As bytes: varint(video << 3 | other context << 2 | counted << 1 | kind), then, where the
/// context is not the header's, varint(context), then zigzag varint(time − base).
#[derive(Clone, Copy)]
struct Entry {
    /// Where its first byte stands.
    at: usize,
    video: u32,
    context: u32,
    /// Whether the entry holds a reference to its context itself.
    own_context: bool,
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
    base: i64,
    context: u32,
}

impl<'a> Entries<'a> {
    #[inline]
    fn new(log: &'a [u8]) -> Self {
        if log.is_empty() {
            return Self { log, at: 0, base: 0, context: 0 };
        }
        let Header { base, context, .. } = Header::read(log);
        Self { log, at: Header::BYTES, base, context }
    }

    #[inline(always)]
    fn varint(&mut self) -> u64 {
        let first = self.log[self.at];
        self.at += 1;
        if first < 0x80 {
            return u64::from(first);
        }
        let second = self.log[self.at];
        self.at += 1;
        let value = u64::from(first & 0x7f) | u64::from(second & 0x7f) << 7;
        if second < 0x80 { value } else { self.long_varint(value) }
    }

    fn long_varint(&mut self, mut value: u64) -> u64 {
        let mut shift = 14;
        loop {
            let byte = self.log[self.at];
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    #[inline(always)]
    fn next(&mut self) -> Option<Entry> {
        if self.at >= self.log.len() {
            return None;
        }
        let at = self.at;
        let head = self.varint();
        let own_context = head & CONTEXT_BIT != 0;
        let context = if own_context { self.varint() as u32 } else { self.context };
        let delta = unzigzag(self.varint());
        Some(Entry {
            at,
            video: (head >> 3) as u32,
            context,
            own_context,
            time: EventTime(self.base.wrapping_add(delta)),
            kind: if head as u8 & KIND_BIT != 0 { Kind::Play } else { Kind::Impression },
            counted: head as u8 & COUNTED_BIT != 0,
        })
    }
}

/// Bytes of entries that are gathered before they are written; a page of 18 impressions has about 80.
const RUN_BYTES: usize = 256;

/// Bytes of the longest entry: varints of 35, 32 and 64 bits.
const ENTRY_BYTES_MAX: usize = 5 + 5 + VARINT_BYTES_MAX;

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
            Form::Small(log) if !log.is_empty() => log,
            Form::Small(_) => return self.first(event, rules, dictionary, counted),
            Form::Large(sides) => return side::accept(sides, event, rules, counted),
        };
        let header = Header::read(log);
        let mark = Header::mark(event);
        let video = dictionary.videos.intern(event.video);
        let (mut partner, mut wakes) = (false, false);
        let to_last = header.compare(log, event);
        let is_newest = header.kinds & WENT_BACK == 0 && to_last == Ordering::Greater;
        // Most events are impressions of a request without a play, and new: nothing to look for.
        if header.marks & mark != 0 && !is_newest || header.kinds & 1 << event.kind.other() as u8 != 0 {
            for entry in Entries::new(log) {
                if entry.kind == event.kind {
                    if entry.time == event.time && entry.video == video {
                        return Arrival::Duplicate;
                    }
                } else if rules.pair(entry.time, event.time) {
                    partner = true;
                    wakes |= !entry.counted;
                }
            }
        }
        if usize::from(header.taken) >= rules.request_events_max {
            Self::prolong_small(log, header, event.time, rules, dictionary);
            return Arrival::Capped;
        }
        if wakes {
            Self::wake(log, event, rules, dictionary, counted);
        }
        let counts = partner || rules.counts_alone(event.kind);
        if counts {
            counted(*event);
        }
        let header = header.with(mark, event.kind, to_last);
        Self::append(log, header, (event, video, counts), rules, dictionary);
        if usize::from(header.taken) >= SMALL_EVENTS_MAX {
            self.enlarge(event.request, rules, dictionary);
        }
        if counts { Arrival::Counted } else { Arrival::Waiting }
    }

    /// Says that the state is kept as for an event at `time` that was not taken, because it is too late: what the
    /// state refers to must be known for as long.
    pub fn prolong(&mut self, time: EventTime, rules: &JoinRules, dictionary: &mut JoinDictionary) {
        if let Form::Small(log) = &mut self.0
            && !log.is_empty()
        {
            let header = Header::read(log);
            Self::prolong_small(log, header, time, rules, dictionary);
        }
    }

    #[inline]
    fn prolong_small(
        log: &mut [u8],
        mut header: Header,
        time: EventTime,
        rules: &JoinRules,
        dictionary: &mut JoinDictionary,
    ) {
        Self::keep_if_long(log, &mut header, time, rules, dictionary);
        header.write(log);
    }

    /// Takes events off the front of `events` for as long as all they do is wait, with no duplicate or partner to
    /// look for: impressions, each later than all before, of a request without a play. Returns how many; what
    /// [`RequestState::step`] would make of each is the same, at several times the cost.
    ///
    /// `from` is the earliest time that is not too late.
    ///
    /// ```
    /// use uptake_model::join::{Arrival, JoinDictionary, JoinRules, RequestState};
    /// use uptake_model::{Event, EventTime, Kind};
    /// let (rules, mut dictionary) = (JoinRules::default(), JoinDictionary::default());
    /// let mut state = RequestState::default();
    /// let events = [0, 1, 2, 2].map(|time| Event { time: EventTime(time), ..Event::default() });
    /// state.step(&events[0], &rules, &mut dictionary, &mut |_| {});
    /// let waiting = state.wait(events[1..].iter().copied(), EventTime(0), &rules, &mut dictionary);
    /// assert_eq!(waiting, 2); // The last one is a duplicate.
    /// ```
    pub fn wait(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        from: EventTime,
        rules: &JoinRules,
        dictionary: &mut JoinDictionary,
    ) -> usize {
        let log = match &mut self.0 {
            Form::Small(log) if !log.is_empty() => log,
            _ => return 0,
        };
        let mut header = Header::read(log);
        let others = 1 << Kind::Play as u8 | WENT_BACK | LONG;
        if header.kinds & others != 0 || rules.counts_alone(Kind::Impression) {
            return 0;
        }
        let room = rules.request_events_max.min(SMALL_EVENTS_MAX - 1).saturating_sub(header.taken.into());
        let context = dictionary.contexts.get(header.context);
        // Each is to be later than this one and so, in the end, than all.
        let mut before = header.last(log).max(from.0.saturating_sub(1));
        let until = header.base.saturating_add(SPAN_MS);
        // One copy, and room for all of them at once, when the last one is known.
        let mut bytes = [0; RUN_BYTES + ENTRY_BYTES_MAX];
        let (mut end, mut taken) = (0, 0);
        for event in events.into_iter().take(room) {
            let time = event.time.0;
            let waits = event.kind == Kind::Impression && before < time && time <= until;
            if !waits || end > RUN_BYTES || Context::of(&event) != context {
                break;
            }
            before = time;
            let video = dictionary.videos.intern(event.video);
            dictionary.videos.keep(video, Self::kept_until(time, rules));
            header.marks |= Header::mark(&event);
            end = write_varint(&mut bytes, end, u64::from(video) << 3);
            end = write_varint(&mut bytes, end, zigzag(time.wrapping_sub(header.base)));
            taken += 1;
        }
        if taken > 0 {
            header.taken += taken;
            header.write(log);
            Self::put(log, &bytes[..end]);
        }
        taken.into()
    }

    /// Takes the first event.
    fn first(
        &mut self,
        event: &Event,
        rules: &JoinRules,
        dictionary: &mut JoinDictionary,
        counted: &mut dyn FnMut(Event),
    ) -> Arrival {
        let Form::Small(log) = &mut self.0 else { return Arrival::Duplicate };
        if !Header::fits(event.time) {
            let mut sides = Box::<[Side; 2]>::default();
            let arrival = side::accept(&mut sides, event, rules, counted);
            self.0 = Form::Large(sides);
            return arrival;
        }
        let counts = rules.counts_alone(event.kind);
        if counts {
            counted(*event);
        }
        Self::begin(log, event, counts, rules, dictionary);
        if counts { Arrival::Counted } else { Arrival::Waiting }
    }

    /// Writes the first event, whose time fits, into an empty log.
    fn begin(
        log: &mut Vec<u8>,
        event: &Event,
        counts: bool,
        rules: &JoinRules,
        dictionary: &mut JoinDictionary,
    ) {
        let video = dictionary.videos.intern(event.video);
        let context = dictionary.contexts.intern(Context::of(event));
        dictionary.contexts.acquire(context);
        let (marks, kinds) = (Header::mark(event), 1 << event.kind as u8);
        let header = Header { marks, base: event.time.0, context, taken: 1, kinds };
        log.reserve_exact(2 * Header::BYTES);
        log.resize(Header::BYTES, 0);
        Self::append(log, header, (event, video, counts), rules, dictionary);
    }

    /// Writes an event with its video's number and whether it counts behind the others, and the header that
    /// includes it.
    #[inline]
    fn append(
        log: &mut Vec<u8>,
        mut header: Header,
        (event, video, counts): (&Event, u32, bool),
        rules: &JoinRules,
        dictionary: &mut JoinDictionary,
    ) {
        header.kinds |= if counts { MIXED } else { 0 };
        let last = Self::keep_if_long(log, &mut header, event.time, rules, dictionary);
        dictionary.videos.keep(video, Self::kept_until(last, rules));
        header.write(log);
        let context = Context::of(event);
        let own_context = dictionary.contexts.get(header.context) != context;
        let bits = u64::from(event.kind as u8) | u64::from(counts) << 1 | u64::from(own_context) << 2;
        let mut bytes = [0; ENTRY_BYTES_MAX];
        let mut end = write_varint(&mut bytes, 0, u64::from(video) << 3 | bits);
        if own_context {
            log[Header::KINDS] |= MIXED;
            let context = dictionary.contexts.intern(context);
            dictionary.contexts.acquire(context);
            end = write_varint(&mut bytes, end, u64::from(context));
        }
        let delta = event.time.0.wrapping_sub(header.base);
        end = write_varint(&mut bytes, end, zigzag(delta));
        Self::put(log, &bytes[..end]);
    }

    /// Keeps the videos anew of a state that a time makes last for longer than the span, or that did so before.
    /// Whatever the order, a state ends no later than its retention after a time within the span, or the span is
    /// exceeded. Returns the time by which what is added now is to be kept.
    #[inline(always)]
    fn keep_if_long(
        log: &[u8],
        header: &mut Header,
        time: EventTime,
        rules: &JoinRules,
        dictionary: &mut JoinDictionary,
    ) -> i64 {
        let last = time.0.max(header.base);
        if last.saturating_sub(header.base) > SPAN_MS || header.kinds & LONG != 0 {
            header.kinds |= LONG;
            return Self::keep_anew(log, last, rules, dictionary);
        }
        last
    }

    /// Writes bytes behind the others.
    #[inline]
    fn put(log: &mut Vec<u8>, bytes: &[u8]) {
        // Room in steps of 16 bytes: doubling would waste a third of a state that waits.
        if log.capacity() - log.len() < bytes.len() {
            log.reserve_exact((log.len() + bytes.len()).next_multiple_of(16) - log.len());
        }
        log.extend_from_slice(bytes);
    }

    /// Until when a video is kept that a request refers to whose last event came at `last`, or will within the span.
    #[inline]
    fn kept_until(last: i64, rules: &JoinRules) -> EventTime {
        EventTime(last).plus(rules.retention_ms()).plus(SPAN_MS)
    }

    /// Keeps all videos of a log for as long as its last event and one at `last` ask for; returns the later time.
    #[cold]
    fn keep_anew(log: &[u8], last: i64, rules: &JoinRules, dictionary: &mut JoinDictionary) -> i64 {
        let last = Entries::new(log).map(|entry| entry.time.0).fold(last, i64::max);
        for entry in Entries::new(log) {
            dictionary.videos.keep(entry.video, Self::kept_until(last, rules));
        }
        last
    }

    /// Lets the waiting events count that have `event` as a partner.
    fn wake(
        log: &mut [u8],
        event: &Event,
        rules: &JoinRules,
        dictionary: &JoinDictionary,
        counted: &mut dyn FnMut(Event),
    ) {
        let mut from = Header::BYTES;
        loop {
            let mut entries = Entries { at: from, ..Entries::new(log) };
            let woken = |e: &Entry| e.kind != event.kind && !e.counted && rules.pair(e.time, event.time);
            let Some(entry) = entries.find(woken) else { return };
            from = entries.at;
            counted(dictionary.event(event.request, entry));
            log[entry.at] |= COUNTED_BIT;
        }
    }

    /// Turns the log into the indexed form.
    #[cold]
    fn enlarge(&mut self, request: RequestId, rules: &JoinRules, dictionary: &mut JoinDictionary) {
        let Form::Small(log) = &mut self.0 else { return };
        let log = std::mem::take(log);
        let mut sides: Box<[Side; 2]> = Box::default();
        Self::end(&log, request, dictionary, &mut |event, counted| {
            sides[event.kind as usize].take(event, counted, rules);
        });
        self.0 = Form::Large(sides);
    }

    /// Ends the request: `expired` is called for each event that never counted.
    #[inline]
    pub fn expire(
        self,
        request: RequestId,
        dictionary: &mut JoinDictionary,
        expired: &mut (impl FnMut(Event) + ?Sized),
    ) {
        match self.0 {
            Form::Small(log) => Self::end(&log, request, dictionary, &mut |event, counted| {
                if !counted {
                    expired(event);
                }
            }),
            Form::Large(sides) => sides.into_iter().flat_map(Side::into_waiting).for_each(expired),
        }
    }

    /// Ends the request as [`RequestState::expire`] does, without putting its events together: `expired` is told
    /// how many events of which partition and kind never counted, perhaps in several parts.
    #[inline]
    pub fn expire_counted(
        self,
        dictionary: &mut JoinDictionary,
        expired: &mut (impl FnMut(u32, Kind, u64) + ?Sized),
    ) {
        if let Form::Small(log) = &self.0
            && !log.is_empty()
        {
            // Most requests end as a page that nobody played from: all its events have one answer.
            let Header { context, taken, kinds, .. } = Header::read(log);
            if kinds & (1 << Kind::Play as u8 | MIXED) == 0 {
                expired(dictionary.contexts.get(context).partition, Kind::Impression, u64::from(taken));
                return dictionary.contexts.release(context);
            }
        }
        let no_id = RequestId::default();
        self.expire(no_id, dictionary, &mut |event| expired(event.partition, event.kind, 1));
    }

    /// Hands over every event of a log with whether it counts, and gives back what it refers to.
    fn end(
        log: &[u8],
        request: RequestId,
        dictionary: &mut JoinDictionary,
        each: &mut impl FnMut(Event, bool),
    ) {
        let entries = Entries::new(log);
        let base_context = entries.context;
        for entry in entries {
            each(dictionary.event(request, entry), entry.counted);
            if entry.own_context {
                dictionary.contexts.release(entry.context);
            }
        }
        if !log.is_empty() {
            dictionary.contexts.release(base_context);
        }
    }

    /// The bytes that [`RequestState::unpack`] makes the state of again, in this process and with the
    /// same dictionary, in which what they refer to stays.
    ///
    /// # Errors
    /// The state, if it is one with so many events that it is indexed.
    pub fn pack(self) -> Result<Vec<u8>, Self> {
        match self.0 {
            Form::Small(log) => Ok(log),
            Form::Large(_) => Err(self),
        }
    }

    /// The state that [`RequestState::pack`] gave these bytes of.
    ///
    /// ```
    /// use uptake_model::Event;
    /// use uptake_model::join::{Arrival, JoinDictionary, JoinRules, RequestState};
    /// let (rules, mut dictionary) = (JoinRules::default(), JoinDictionary::default());
    /// let mut state = RequestState::default();
    /// state.step(&Event::default(), &rules, &mut dictionary, &mut |_| {});
    /// let mut again = RequestState::unpack(state.pack().unwrap());
    /// let arrival = again.step(&Event::default(), &rules, &mut dictionary, &mut |_| {});
    /// assert_eq!(arrival, Arrival::Duplicate);
    /// ```
    pub fn unpack(bytes: Vec<u8>) -> Self {
        Self(Form::Small(bytes))
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
    fn times_of_any_size_are_kept() {
        let times = [0, -1, (1 << 47) - 1, -(1 << 47), 1 << 47, EventTime::LATEST.0, i64::MAX, i64::MIN];
        for base in times {
            let rules = JoinRules::default();
            let (mut state, mut dictionary) = (RequestState::default(), JoinDictionary::default());
            let event = |time| Event { time: EventTime(time), ..Event::default() };
            for time in times.iter().skip_while(|t| **t != base).chain(&times) {
                state.step(&event(*time), &rules, &mut dictionary, &mut |_| {});
            }
            let mut expired = Vec::new();
            state.expire(RequestId(0), &mut dictionary, &mut |e| expired.push(e.time.0));
            dictionary.forget_before(EventTime::MAX);
            expired.sort_unstable();
            let mut all = times.to_vec();
            all.sort_unstable();
            assert_eq!((expired, dictionary.is_empty()), (all, true), "first {base}");
        }
    }

    /// An event that is too late, or beyond the cap, makes the state stay longer: what it refers to stays as well.
    #[test]
    fn an_event_that_is_not_taken_keeps_what_the_state_refers_to() {
        for request_events_max in [2, usize::MAX] {
            let rules = JoinRules { request_events_max, ..JoinRules::default() };
            let mut dictionary = JoinDictionary::default();
            let seen = |request, video, minute: i64| Event {
                request: RequestId(request),
                video: VideoHash(video),
                time: EventTime(minute * 60_000),
                ..Event::default()
            };
            let step = |state: &mut RequestState, event: &Event, dictionary: &mut JoinDictionary| {
                state.step(event, &rules, dictionary, &mut |_| {})
            };
            let (mut state, mut other) = (RequestState::default(), RequestState::default());
            step(&mut state, &seen(1, 1, 0), &mut dictionary);
            step(&mut state, &seen(1, 2, 0), &mut dictionary);
            let beyond = seen(1, 3, 88);
            match request_events_max {
                2 => assert_eq!(step(&mut state, &beyond, &mut dictionary), Arrival::Capped),
                _ => state.prolong(beyond.time, &rules, &mut dictionary),
            }
            // The state ends when the watermark has passed minute 88 by the retention, at 388.
            dictionary.forget_before(EventTime(382 * 60_000));
            for video in 4..8 {
                step(&mut other, &seen(2, video, 380), &mut dictionary);
            }
            let mut held = Vec::new();
            state.expire(RequestId(1), &mut dictionary, &mut |event| held.push(event.video.0));
            assert_eq!(held, [1, 2]);
        }
    }

    /// The shortcut for events in order sees what a look at all of them would: a duplicate is one in whatever
    /// order of whatever times it comes, also after the state was saved.
    #[test]
    fn a_duplicate_is_found_in_any_order_of_times() {
        use proptest::prelude::*;
        let times = prop::collection::vec((0i64..400, 0u64..3, any::<bool>()), 1..60);
        let cases = ProptestConfig::with_cases(2_000);
        let seeded = |(steps, scale): (Vec<(i64, u64, bool)>, i64)| {
            let rules = JoinRules::default();
            let (mut state, mut dictionary) = (RequestState::default(), JoinDictionary::default());
            let mut seen = std::collections::BTreeSet::new();
            for (n, (time, video, in_order)) in steps.into_iter().enumerate() {
                // Steps in order, with jumps back in between.
                let time = EventTime(scale * if in_order { n as i64 * 7 } else { time });
                let event = Event { video: VideoHash(video), time, ..Event::default() };
                let arrival = state.step(&event, &rules, &mut dictionary, &mut |_| {});
                let expected = if seen.insert((time, video)) { Arrival::Waiting } else { Arrival::Duplicate };
                assert_eq!(arrival, expected, "event {n}");
                if n % 5 == 4 {
                    let (mut saver, mut bytes) = (JoinSaver::default(), Vec::new());
                    state.save(&dictionary, &mut saver, &mut bytes);
                    let names = JoinNames::read(&saver.names(&dictionary)).unwrap();
                    let mut rest = bytes.as_slice();
                    let again = RequestState::load(RequestId(0), &mut rest, &names, &rules, &mut dictionary);
                    std::mem::replace(&mut state, again.unwrap()).expire(
                        RequestId(0),
                        &mut dictionary,
                        &mut |_| {},
                    );
                }
            }
        };
        proptest!(cases, |(of in (times, prop::sample::select(vec![-1_000_000i64, -1, 1, 50, 1 << 30])))| seeded(of));
    }

    #[test]
    fn a_waiting_request_of_18_impressions_is_small() {
        let (rules, mut dictionary) = (JoinRules::default(), JoinDictionary::default());
        // 10,000 videos in use, so that a number takes two bytes or three.
        for v in 0..10_000 {
            let video = dictionary.videos.intern(VideoHash(v));
            dictionary.videos.keep(video, EventTime::MAX);
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
        assert!(state.heap_bytes() <= 96, "{} bytes", state.heap_bytes());
    }
}
