//! Events of one request as bytes that need nothing else to be read: no dictionary, no names.

use crate::DamagedState;
use crate::bytes::{check_count, put_u64, put_varint, take_u64, take_varint, unzigzag, zigzag};
use crate::event::{Event, Kind};
use crate::ids::{RequestId, VideoHash};
use crate::join::context::Context;
use crate::time::EventTime;

/// Bytes of the shortest event: head, time, video.
const EVENT_BYTES_MIN: usize = 1 + 1 + 8;

const KIND_BIT: u64 = 1;
const COUNTED_BIT: u64 = 2;
const CONTEXT_BIT: u64 = 4;

fn key(event: &Event) -> (Kind, EventTime, VideoHash) {
    (event.kind, event.time, event.video)
}

/// Appends events of one request, each with whether it counts. What is not needed of an event
/// that counts, its context, is left out.
///
/// As bytes: their number, then per event, ascending by kind, time and video: varint(context
/// follows << 2 | counted << 1 | kind), zigzag varint(time − time before), video, and the context
/// where it is not that of the waiting event before.
pub(crate) fn put(events: &mut [(Event, bool)], out: &mut Vec<u8>) {
    events.sort_unstable_by_key(|(event, _)| key(event));
    put_varint(out, events.len() as u64);
    let (mut time, mut context) = (0, None);
    for (event, counted) in events {
        let own = Some(Context::of(event)).filter(|own| !*counted && context != Some(*own));
        let bits = [(*counted, COUNTED_BIT), (own.is_some(), CONTEXT_BIT)];
        let bits: u64 = bits.into_iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        put_varint(out, bits | event.kind as u64);
        put_varint(out, zigzag(event.time.0.wrapping_sub(time)));
        put_u64(out, event.video.0);
        if let Some(own) = own {
            own.put(out);
        }
        time = event.time.0;
        context = own.or(context);
    }
}

/// Takes what [`put`] wrote, as events of `request`.
pub(crate) fn take(bytes: &mut &[u8], request: RequestId) -> Result<Vec<(Event, bool)>, DamagedState> {
    let n = check_count(take_varint(bytes)?, EVENT_BYTES_MIN, bytes)?;
    let mut events: Vec<(Event, bool)> = Vec::with_capacity(n);
    let (mut time, mut context) = (EventTime(0), None);
    for _ in 0..n {
        let head = take_varint(bytes)?;
        let kind = if head & KIND_BIT != 0 { Kind::Play } else { Kind::Impression };
        time = EventTime(time.0.wrapping_add(unzigzag(take_varint(bytes)?)));
        let video = VideoHash(take_u64(bytes)?);
        if head & CONTEXT_BIT != 0 {
            context = Some(Context::take(bytes)?);
        }
        let mut event = Event { request, video, time, kind, ..Event::default() };
        let counted = head & COUNTED_BIT != 0;
        if !counted {
            let Some(Context { member, dims, partition }) = context else {
                return Err(DamagedState("a waiting event has no context"));
            };
            event = Event { member, dims, partition, ..event };
        }
        if events.last().is_some_and(|(before, _)| key(before) >= key(&event)) {
            return Err(DamagedState("events are out of order"));
        }
        events.push((event, counted));
    }
    Ok(events)
}
