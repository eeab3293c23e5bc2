//! A request's state as bytes that another worker can load.
//!
//! A small state: varint(events << 2 | plain << 1), varint(context), then per event in the order
//! of the log varint(video << 3 | other context << 2 | counted << 1 | kind), varint(context) where
//! it is another, zigzag varint(time − time before). In a plain one, where all are impressions
//! that wait and share the context, the three bits are left out. One that is copied as it lies, which a plain
//! one can be: varint(events << 2 | 3), varint(context), zigzag varint(base), then the entries of the log. A large
//! state: varint(1), then its events as [`saved_events`] writes them. Videos and contexts are numbers of
//! [`JoinSaver`].

use super::names::{JoinNames, JoinSaver};
use super::{
    CONTEXT_BIT, COUNTED_BIT, Entries, Form, Header, JoinDictionary, KIND_BIT, MIXED, RequestState,
    SMALL_EVENTS_MAX,
};
use crate::DamagedState;
use crate::bytes::{VARINT_BYTES_MAX, put_varint, take_varint, unzigzag, write_varint, zigzag};
use crate::event::{Event, Kind};
use crate::ids::RequestId;
use crate::join::context::Context;
use crate::join::side::{self, Side};
use crate::join::{JoinRules, saved_events};
use crate::time::EventTime;

const EMPTY: u64 = 0;
const LARGE: u64 = 1;
const PLAIN_BIT: u64 = 2;
/// Both bits of the head of a small state.
const AS_IT_LIES: u64 = 3;
/// At least the bytes of the longest entry, three varints.
const ENTRY_BYTES: usize = (3 * VARINT_BYTES_MAX).next_multiple_of(16);

impl RequestState {
    /// Appends the state to `out`. The bytes say where they end; what their numbers stand for is
    /// in [`JoinSaver::names`].
    ///
    /// ```
    /// use uptake_model::join::{JoinDictionary, JoinNames, JoinRules, JoinSaver, RequestState};
    /// use uptake_model::{Event, RequestId};
    /// let (rules, mut dictionary) = (JoinRules::default(), JoinDictionary::default());
    /// let mut state = RequestState::default();
    /// state.step(&Event::default(), &rules, &mut dictionary, &mut |_| {});
    ///
    /// let (mut saver, mut saved) = (JoinSaver::default(), Vec::new());
    /// state.save(&dictionary, &mut saver, &mut saved);
    /// let names = JoinNames::read(&saver.names(&dictionary))?;
    /// let (mut other, mut bytes) = (JoinDictionary::default(), saved.as_slice());
    /// let loaded = RequestState::load(RequestId(0), &mut bytes, &names, &rules, &mut other)?;
    ///
    /// let mut expired = Vec::new();
    /// loaded.expire(RequestId(0), &mut other, &mut |e| expired.push(e));
    /// assert_eq!(expired, [Event::default()]);
    /// # Ok::<(), uptake_model::DamagedState>(())
    /// ```
    pub fn save(&self, dictionary: &JoinDictionary, saver: &mut JoinSaver, out: &mut Vec<u8>) {
        let log = match &self.0 {
            Form::Small(log) if log.is_empty() => return put_varint(out, EMPTY),
            Form::Small(log) => log,
            Form::Large(sides) => {
                put_varint(out, LARGE);
                return saved_events::put(&mut side::events(sides).collect::<Vec<_>>(), out);
            }
        };
        let Header { base, context, taken, kinds, .. } = Header::read(log);
        let plain = kinds & (1 << Kind::Play as u8 | MIXED) == 0;
        let as_it_lies = saver.keeps_videos() && plain;
        let form = if as_it_lies {
            AS_IT_LIES
        } else if plain {
            PLAIN_BIT
        } else {
            0
        };
        put_varint(out, u64::from(taken) << 2 | form);
        put_varint(out, saver.context(context, dictionary));
        if as_it_lies {
            put_varint(out, zigzag(base));
            return out.extend_from_slice(&log[Header::BYTES..]);
        }
        let mut time = 0;
        for entry in Entries::new(log) {
            let mut head = saver.video(entry.video, dictionary);
            // The context of an event that counts is not asked for again.
            let own_context = entry.own_context && !entry.counted;
            if !plain {
                head = head << 3
                    | u64::from(own_context) << 2
                    | u64::from(entry.counted) << 1
                    | entry.kind as u64;
            }
            let delta = zigzag(entry.time.0.wrapping_sub(time));
            time = entry.time.0;
            let mut bytes = [0; ENTRY_BYTES];
            let mut end = write_varint(&mut bytes, 0, head);
            if own_context {
                end = write_varint(&mut bytes, end, saver.context(entry.context, dictionary));
            }
            end = write_varint(&mut bytes, end, delta);
            // As many bytes each time, and those too many taken back: no length to look at for a copy.
            let start = out.len();
            out.extend_from_slice(&bytes);
            out.truncate(start + end);
        }
    }

    /// Takes the state of `request` off the front of `bytes`. It goes on exactly as the one that
    /// was saved.
    ///
    /// # Errors
    ///
    /// If the bytes are damaged or do not belong to `names`. The dictionary may then know videos that no state
    /// refers to, which it forgets with the others.
    pub fn load(
        request: RequestId,
        bytes: &mut &[u8],
        names: &JoinNames,
        rules: &JoinRules,
        dictionary: &mut JoinDictionary,
    ) -> Result<Self, DamagedState> {
        let head = take_varint(bytes)?;
        match head {
            EMPTY => return Ok(Self::default()),
            LARGE => {
                let mut sides: Box<[Side; 2]> = Box::default();
                for (event, counted) in saved_events::take(bytes, request)? {
                    sides[event.kind as usize].take(event, counted, rules);
                }
                return Ok(Self(Form::Large(sides)));
            }
            _ => {}
        }
        let mut log = Vec::new();
        match load_small(&mut log, head, bytes, names, rules, dictionary) {
            Ok(()) => Ok(Self(Form::Small(log))),
            Err(damaged) => {
                Self::end(&log, request, dictionary, &mut |_, _| {});
                Err(damaged)
            }
        }
    }
}

/// Fills an empty log. When it fails, the log holds the events before the damage.
fn load_small(
    log: &mut Vec<u8>,
    head: u64,
    bytes: &mut &[u8],
    names: &JoinNames,
    rules: &JoinRules,
    dictionary: &mut JoinDictionary,
) -> Result<(), DamagedState> {
    let (taken, form) = (head >> 2, head & 3);
    let as_it_lies = form == AS_IT_LIES;
    if form == LARGE || !(1..SMALL_EVENTS_MAX as u64).contains(&taken) {
        return Err(DamagedState("no request has so many events"));
    }
    let shared = names.context(take_varint(bytes)?)?;
    // Times are relative to the first one, or each to the one before.
    let mut time = if as_it_lies { unzigzag(take_varint(bytes)?) } else { 0 };
    let base = time;
    for _ in 0..taken {
        let head = take_varint(bytes)?;
        let (video, bits) = if form == PLAIN_BIT { (head, 0) } else { (head >> 3, head & 7) };
        if as_it_lies && bits != 0 {
            return Err(DamagedState("an event that only waits is something else"));
        }
        let video = names.video(video)?;
        let own_context = bits & CONTEXT_BIT != 0;
        let context = if own_context { names.context(take_varint(bytes)?)? } else { shared };
        let from = if as_it_lies { base } else { time };
        time = unzigzag(take_varint(bytes)?).wrapping_add(from);
        let kind = if bits as u8 & KIND_BIT != 0 { Kind::Play } else { Kind::Impression };
        let counts = bits as u8 & COUNTED_BIT != 0;
        let Context { member, dims, partition } = context;
        let time = EventTime(time);
        let event = Event { request: RequestId::default(), video, time, member, dims, partition, kind };
        if !log.is_empty() {
            let header = Header::read(log);
            let header = header.with(Header::mark(&event), kind, header.compare(log, &event));
            let video = dictionary.videos.intern(video);
            RequestState::append(log, header, (&event, video, counts), rules, dictionary);
        } else if Header::fits(time) {
            RequestState::begin(log, &event, counts, rules, dictionary);
        } else {
            return Err(DamagedState("a small request cannot begin at such a time"));
        }
    }
    Ok(())
}
