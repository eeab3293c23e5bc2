//! Saved joins go on as those that were never saved, and damaged ones are refused.

use proptest::prelude::*;

use super::*;
use crate::ids::{DimsHash, MemberHash, VideoHash};

/// Events of `requests` requests, most of them of the first, so that it becomes large; some at
/// times beyond what a small state holds.
fn events(requests: u64, n: usize) -> impl Strategy<Value = Vec<Event>> {
    let context = (0u64..3, 0u64..3, prop_oneof![0u32..3, Just(u32::MAX)]);
    let request = prop_oneof![2 => Just(0), 1 => 0..requests];
    let event = (request, 0u64..30, 0i64..4_000, prop_oneof![3 => Just(false), 1 => Just(true)], context);
    let base = prop_oneof![8 => Just(1_768_435_200_000), 1 => Just(1 << 60), 1 => Just(-(1 << 47))];
    (base, prop::collection::vec(event, 0..n)).prop_map(|(base, events)| {
        let event = |(request, video, time, play, (member, dims, partition))| Event {
            kind: if play { Kind::Play } else { Kind::Impression },
            request: RequestId(request),
            video: VideoHash(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(video)),
            time: EventTime(time).plus(base),
            member: MemberHash(member),
            dims: DimsHash(dims << 40),
            partition,
        };
        events.into_iter().map(event).collect()
    })
}

fn rules() -> impl Strategy<Value = JoinRules> {
    let cap = prop_oneof![1 => 0usize..200, 3 => Just(1_000)];
    (any::<bool>(), prop_oneof![0i64..60, 0i64..4_000], cap).prop_map(|(left, horizon_ms, cap)| JoinRules {
        kind: if left { JoinKind::Left } else { JoinKind::Inner },
        horizon_ms,
        lateness_ms: 100,
        request_events_max: cap,
        ..JoinRules::default()
    })
}

/// The states of some requests, and all that ever came out of them.
#[derive(Default)]
struct States {
    requests: Vec<RequestState>,
    dictionary: JoinDictionary,
    arrivals: Vec<Arrival>,
    counted: Vec<Event>,
}

impl States {
    fn step(&mut self, events: &[Event], rules: &JoinRules) {
        for event in events {
            let counted = &mut |e| self.counted.push(e);
            let state = &mut self.requests[event.request.0 as usize];
            self.arrivals.push(state.step(event, rules, &mut self.dictionary, counted));
        }
    }

    fn expire(mut self) -> Vec<Event> {
        let mut expired = Vec::new();
        for (request, state) in (0..).zip(self.requests) {
            state.expire(RequestId(request), &mut self.dictionary, &mut |e| expired.push(e));
        }
        self.dictionary.forget_before(EventTime::MAX);
        assert!(self.dictionary.is_empty(), "every reference was given back");
        expired
    }

    /// A saver for so many states that videos keep their numbers, or for so few that none does.
    fn saver(&self, keeps_videos: bool) -> JoinSaver {
        let mut saver = JoinSaver::default();
        saver.begin(&self.dictionary, if keeps_videos { usize::MAX } else { 0 });
        saver
    }

    fn save(&self, saver: &mut JoinSaver) -> (Vec<u8>, Vec<u8>) {
        let mut saved = Vec::new();
        self.requests.iter().for_each(|state| state.save(&self.dictionary, saver, &mut saved));
        (saved, saver.names(&self.dictionary))
    }
}

const REQUESTS: u64 = 3;

fn states() -> States {
    States { requests: (0..REQUESTS).map(|_| RequestState::default()).collect(), ..States::default() }
}

fn load(saved: &[u8], names: &[u8], rules: &JoinRules, into: &mut States) -> Result<(), DamagedState> {
    let (names, mut bytes) = (JoinNames::read(names)?, saved);
    for request in 0..REQUESTS {
        let (request, dictionary) = (RequestId(request), &mut into.dictionary);
        into.requests.push(RequestState::load(request, &mut bytes, &names, rules, dictionary)?);
    }
    crate::bytes::check_end(bytes)
}

fn holding(rules: JoinRules) -> [Box<dyn HoldingJoin>; 2] {
    [Box::new(WindowJoin::new(rules)), Box::new(BatchToWindow::new(rules))]
}

fn saved(join: &dyn HoldingJoin) -> Vec<(RequestId, Vec<u8>)> {
    let mut saved = Vec::new();
    join.save(&mut |request, bytes| saved.push((request, bytes.to_vec())));
    saved.sort();
    saved
}

/// What comes out of batches of ten: arrivals, counted, refused and, sorted, expired events.
type Batches = (Vec<Arrival>, Vec<Event>, Vec<(Event, Arrival)>, Vec<Event>);

fn run(join: &mut dyn HoldingJoin, events: &[Event], watermarks: &[EventTime]) -> Batches {
    let (mut arrivals, mut counted, mut refused, mut expired) = Batches::default();
    for (batch, watermark) in events.chunks(10).zip(watermarks) {
        arrivals.extend(batch.iter().map(|event| join.step(event, &mut |e| counted.push(e))));
        let refused = &mut |event, arrival| refused.push((event, arrival));
        join.end_batch(*watermark, &mut |e| counted.push(e), refused, &mut |e| expired.push(e));
    }
    expired.sort_by_key(|e| (e.request, e.kind, e.time, e.video));
    (arrivals, counted, refused, expired)
}

/// All that is left and never counted.
fn flush(join: &mut dyn HoldingJoin) -> Vec<Event> {
    let mut expired = Vec::new();
    join.end_batch(EventTime::MAX, &mut |_| {}, &mut |_, _| {}, &mut |e| expired.push(e));
    expired.sort_by_key(|e| (e.request, e.kind, e.time, e.video));
    expired
}

/// The bytes with one of them changed.
fn damage(bytes: &[u8], at: usize, flip: u8) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    if let Some(byte) = damaged.get_mut(at) {
        *byte ^= flip;
    }
    damaged
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Saved and loaded at any moment, a request goes on as if nothing had happened.
    #[test]
    fn request_states_go_on(
        input in events(REQUESTS, 500), moment in 0usize..500, rules in rules(), used in 0u64..40,
        keeps_videos in any::<bool>(),
    ) {
        let mut one = states();
        let (before, after) = input.split_at(moment.min(input.len()));
        one.step(before, &rules);
        let mut saver = one.saver(keeps_videos);
        let (bytes, names) = one.save(&mut saver);

        // Into a dictionary that is in use already, with other numbers.
        let mut two = States { arrivals: one.arrivals.clone(), counted: one.counted.clone(), ..States::default() };
        let mut other = RequestState::default();
        for video in 0..used {
            let event = Event { video: VideoHash(video), member: MemberHash(video), ..Event::default() };
            other.step(&event, &rules, &mut two.dictionary, &mut |_| {});
        }
        load(&bytes, &names, &rules, &mut two).unwrap();
        let anew = |states: &States| states.save(&mut JoinSaver::default());
        prop_assert_eq!(anew(&one), anew(&two), "saved again");

        one.step(after, &rules);
        two.step(after, &rules);
        other.expire(RequestId(0), &mut two.dictionary, &mut |_| {});
        prop_assert_eq!(&one.arrivals, &two.arrivals);
        prop_assert_eq!(&one.counted, &two.counted);

        // The saver can be used again, though the dictionary has changed.
        saver.begin(&one.dictionary, 1_000);
        let mut three = States::default();
        let (bytes, names) = one.save(&mut saver);
        load(&bytes, &names, &rules, &mut three).unwrap();
        let expired = one.expire();
        prop_assert_eq!(&expired, &two.expire());
        prop_assert_eq!(&expired, &three.expire());
    }

    #[test]
    fn holding_joins_go_on(
        input in events(REQUESTS, 300), moment in 0usize..30, rules in rules(), step in 0i64..4_000,
    ) {
        let (mut newest, mut watermarks) = (EventTime::MIN, Vec::new());
        for batch in input.chunks(10) {
            newest = batch.iter().map(|e| e.time).fold(newest, EventTime::max);
            watermarks.push(newest.minus(step));
        }
        let (before, after) = input.split_at((moment * 10).min(input.len()));
        let (passed, to_come) = watermarks.split_at(before.len().div_ceil(10));
        for (mut one, mut two) in holding(rules).into_iter().zip(holding(rules)) {
            run(&mut *one, before, passed);
            for (request, bytes) in saved(&*one) {
                two.load(request, &bytes).unwrap();
                prop_assert!(two.load(request, &bytes).is_err(), "the same request again");
            }
            prop_assert_eq!(one.events(), two.events());
            prop_assert_eq!(saved(&*one), saved(&*two));
            prop_assert_eq!(run(&mut *one, after, to_come), run(&mut *two, after, to_come));
            prop_assert_eq!(flush(&mut *one), flush(&mut *two));
            prop_assert_eq!(two.events(), 0);
        }
    }

    /// Truncated anywhere or changed anywhere: an error, or another state that works; never more
    /// memory than in proportion to the bytes; nothing is left behind in the dictionary.
    #[test]
    fn damaged_request_states_do_no_harm(
        input in events(REQUESTS, 300), rules in rules(), at in any::<prop::sample::Index>(), flip in 1u8..,
        keeps_videos in any::<bool>(),
    ) {
        let mut whole = states();
        whole.step(&input, &rules);
        let (bytes, names) = whole.save(&mut whole.saver(keeps_videos));
        let at = at.index(bytes.len() + names.len());
        let try_load = |bytes: &[u8], names: &[u8]| {
            let mut loaded = States::default();
            let result = load(bytes, names, &rules, &mut loaded);
            let heap: usize = loaded.requests.iter().map(RequestState::heap_bytes).sum();
            assert!(heap <= 1_024 + 32 * bytes.len(), "{heap} bytes of {}", bytes.len());
            if result.is_ok() {
                loaded.step(&input, &rules);
            }
            loaded.expire();
            result
        };
        prop_assert!(try_load(&bytes[..at.min(bytes.len() - 1)], &names).is_err());
        prop_assert!(try_load(&bytes, &names[..at % names.len()]).is_err());
        // Whether a flip shows depends on where it is.
        let _ = try_load(&damage(&bytes, at, flip), &names);
        let _ = try_load(&bytes, &damage(&names, at.saturating_sub(bytes.len()), flip));
        let _ = try_load(&damage(&bytes, at, 0x80), &names);
    }

    #[test]
    fn damaged_holding_joins_do_no_harm(
        input in events(REQUESTS, 100), rules in rules(), at in any::<prop::sample::Index>(), flip in 1u8..,
    ) {
        let mut whole = WindowJoin::new(rules);
        run(&mut whole, &input, &[EventTime::MIN; 10]);
        for (request, bytes) in saved(&whole) {
            let at = at.index(bytes.len());
            for damaged in [damage(&bytes, at, flip), damage(&bytes, at, 0x80)] {
                let mut join = WindowJoin::new(rules);
                if join.load(request, &damaged).is_err() {
                    prop_assert_eq!(join.events(), 0, "as before");
                }
                run(&mut join, &input, &[EventTime::MAX; 10]);
                flush(&mut join);
                prop_assert_eq!(join.events(), 0);
            }
            for end in 0..bytes.len() {
                prop_assert!(WindowJoin::new(rules).load(request, &bytes[..end]).is_err());
            }
            let longer = [bytes.as_slice(), &[0]].concat();
            prop_assert!(WindowJoin::new(rules).load(request, &longer).is_err());
        }
    }

    #[test]
    fn any_bytes_do_no_harm(
        bytes in prop::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..200),
        names in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..100),
    ) {
        let rules = JoinRules::default();
        let mut loaded = States::default();
        let _ = load(&bytes, &names, &rules, &mut loaded);
        loaded.expire();
        let _ = WindowJoin::new(rules).load(RequestId(0), &bytes);
    }
}

#[test]
fn a_state_is_damaged_at_every_length_but_its_own() {
    let rules = JoinRules::default();
    let mut one = states();
    let shown = Event { member: MemberHash(5), ..Event::default() };
    for i in 0..40 {
        let event =
            Event { video: VideoHash(i), time: EventTime(i as i64), partition: i as u32 % 2, ..shown };
        one.step(&[event], &rules);
    }
    for keeps_videos in [false, true] {
        let (bytes, names) = one.save(&mut one.saver(keeps_videos));
        for end in 0..bytes.len() {
            let mut loaded = States::default();
            assert!(load(&bytes[..end], &names, &rules, &mut loaded).is_err(), "{end} of {}", bytes.len());
            loaded.expire();
        }
        for end in 0..names.len() {
            assert!(JoinNames::read(&names[..end]).is_err(), "{end} of {}", names.len());
        }
        assert!(JoinNames::read(&[names.as_slice(), &[0]].concat()).is_err());
    }
}

#[test]
fn videos_keep_their_numbers_where_most_are_needed() {
    let rules = JoinRules::default();
    let mut all =
        States { requests: (0..10).map(|_| RequestState::default()).collect(), ..States::default() };
    let shown =
        |request, video| Event { request: RequestId(request), video: VideoHash(video), ..Event::default() };
    // Many videos, of which the last request has two.
    (0..60).for_each(|video| all.step(&[shown(video % 9, video)], &rules));
    all.step(&[shown(9, 7), shown(9, 3)], &rules);
    let saved = |saver: &mut JoinSaver, requests: &[RequestState]| {
        saver.begin(&all.dictionary, 4 * requests.len());
        let mut bytes = Vec::new();
        requests.iter().for_each(|state| state.save(&all.dictionary, saver, &mut bytes));
        let names = saver.names(&all.dictionary);
        (bytes, names)
    };
    let mut saver = JoinSaver::default();
    // Of ten requests all keep their numbers, of one it has some of its own.
    for (requests, videos) in [(9..10, 2), (0..10, 60), (9..10, 2)] {
        let (bytes, names) = saved(&mut saver, &all.requests[requests.clone()]);
        assert_eq!(names[0], videos, "{requests:?}");
        let names = JoinNames::read(&names).unwrap();
        let (mut rest, mut dictionary) = (bytes.as_slice(), JoinDictionary::default());
        for request in requests {
            let id = RequestId(request as u64);
            let state = RequestState::load(id, &mut rest, &names, &rules, &mut dictionary).unwrap();
            let mut expired = Vec::new();
            state.expire(id, &mut dictionary, &mut |event| expired.push(event.video.0));
            let expected =
                if request == 9 { vec![7, 3] } else { (0..60).filter(|v| v % 9 == request as u64).collect() };
            assert_eq!(expired, expected);
        }
        assert!(rest.is_empty());
    }
}

#[test]
fn a_log_is_loaded_only_at_a_length_it_can_have() {
    let rules = JoinRules::default();
    let names = JoinNames::read(&[[1].as_slice(), &[7; 8], &[1, 0]].concat()).unwrap();
    // Impressions of one video, a millisecond apart.
    let load = |events: u64| {
        let mut bytes = Vec::new();
        crate::bytes::put_varint(&mut bytes, events << 2 | 2);
        bytes.push(0);
        (0..events).for_each(|_| bytes.extend([0, 2]));
        let mut dictionary = JoinDictionary::default();
        let state = RequestState::load(RequestId(1), &mut &*bytes, &names, &rules, &mut dictionary);
        dictionary.forget_before(EventTime::MAX);
        (state.is_ok(), dictionary.is_empty())
    };
    assert_eq!((load(1), load(95)), ((true, false), (true, false)));
    assert_eq!((load(96), load(300)), ((false, true), (false, true)));
}

#[test]
fn events_that_no_join_saves_are_refused() {
    let load = |head: &[u8], tail: &[u8]| {
        let [mut bytes, video] = [head.to_vec(), vec![7; 8]];
        bytes.extend(&video);
        bytes.extend(tail);
        WindowJoin::new(JoinRules::default()).load(RequestId(1), &bytes).is_ok()
    };
    let counted = |kind: u8, delta: u8, video: u8| [vec![2 | kind, delta], vec![video; 8]].concat();
    assert!(load(&[1, 2, 0], &[]), "one that counts");
    assert!(load(&[2, 2, 0], &counted(0, 0, 8)), "another video");
    assert!(load(&[2, 2, 0], &counted(1, 1, 7)) && !load(&[2, 3, 0], &counted(0, 2, 7)), "impressions first");
    assert!(!load(&[2, 2, 0], &counted(0, 0, 7)), "twice the same");
    assert!(!load(&[2, 2, 0], &counted(0, 1, 7)), "back in time");
    assert!(load(&[1, 4, 0], &[0]) && !load(&[1, 0, 0], &[]), "waiting with and without its context");
}

#[test]
fn waiting_events_share_their_context() {
    let shown = Event { member: MemberHash(5), dims: DimsHash(6), ..Event::default() };
    let mut join = WindowJoin::new(JoinRules::default());
    for i in 0..100 {
        join.step(&Event { time: EventTime(i), ..shown }, &mut |_| {});
    }
    assert!(saved(&join)[0].1.len() < 100 * (1 + 1 + 8) + 20);
}

#[test]
fn huge_counts_are_refused_before_anything_is_reserved() {
    let mut huge = Vec::new();
    crate::bytes::put_varint(&mut huge, 1 << 60);
    assert!(JoinNames::read(&huge).is_err());
    assert!(WindowJoin::new(JoinRules::default()).load(RequestId(0), &huge).is_err());
    let names = JoinNames::read(&[0, 0]).unwrap();
    let large = [&[1], huge.as_slice()].concat();
    for damaged in [huge, large] {
        let (rules, mut dictionary) = (JoinRules::default(), JoinDictionary::default());
        let bytes = &mut damaged.as_slice();
        assert!(RequestState::load(RequestId(0), bytes, &names, &rules, &mut dictionary).is_err());
    }
}
