//! The three methods against the contract, and against the slides they come from.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::contract;
use crate::ids::{RequestId, VideoHash};

/// Each open request with the time of its last event.
type Requests = HashMap<RequestId, (RequestState, EventTime)>;

/// A join as the pipeline runs it: events in batches, a watermark after each.
enum Method {
    State(Box<(Requests, JoinDictionary)>),
    /// The same, with events of a request taken together where they follow one another.
    Runs(Box<(Requests, JoinDictionary)>),
    Holding(Box<dyn HoldingJoin>),
}

fn methods(rules: JoinRules) -> [(&'static str, Method); 4] {
    [
        ("state", Method::State(Box::default())),
        ("state, by runs", Method::Runs(Box::default())),
        ("window", Method::Holding(Box::new(WindowJoin::new(rules)))),
        ("batch-to-window", Method::Holding(Box::new(BatchToWindow::new(rules)))),
    ]
}

#[derive(Default, Debug, PartialEq)]
struct Outcome {
    counted: Vec<Event>,
    expired: Vec<Event>,
    duplicate: usize,
    capped: usize,
    late: usize,
}

impl Method {
    fn batch(&mut self, events: &[Event], rules: &JoinRules, watermark: EventTime, out: &mut Outcome) {
        let Outcome { counted, expired, duplicate, capped, .. } = out;
        let mut refuse = |arrival| match arrival {
            Arrival::Duplicate => *duplicate += 1,
            Arrival::Capped => *capped += 1,
            Arrival::Counted | Arrival::Waiting => {}
        };
        let by_runs = matches!(self, Self::Runs(_));
        match self {
            Self::State(state) | Self::Runs(state) => {
                let (requests, dictionary) = &mut **state;
                let mut rest = events;
                while let Some((event, others)) = rest.split_first() {
                    let (request, last) =
                        requests.entry(event.request).or_insert((RequestState::default(), event.time));
                    *last = event.time.max(*last);
                    refuse(request.step(event, rules, dictionary, &mut |e| counted.push(e)));
                    rest = others;
                    if by_runs {
                        let run = others.iter().take_while(|other| other.request == event.request).copied();
                        let waiting = request.wait(run, EventTime::MIN, rules, dictionary);
                        rest = &others[waiting..];
                        others[..waiting].iter().for_each(|event| *last = event.time.max(*last));
                    }
                }
                let over: Vec<_> = requests
                    .iter()
                    .filter(|(_, (_, last))| watermark > last.plus(rules.retention_ms()))
                    .map(|(r, _)| *r)
                    .collect();
                for r in over {
                    let (request, _) = requests.remove(&r).unwrap();
                    request.expire(r, dictionary, &mut |e| expired.push(e));
                }
                dictionary.forget_before(watermark);
                if requests.is_empty() && watermark == EventTime::MAX {
                    assert_eq!(dictionary.len(), 0, "every reference was given back");
                }
            }
            Self::Holding(join) => {
                for event in events {
                    refuse(join.step(event, &mut |e| counted.push(e)));
                }
                join.end_batch(
                    watermark,
                    &mut |e| counted.push(e),
                    &mut |_, arrival| refuse(arrival),
                    &mut |e| expired.push(e),
                );
                if watermark == EventTime::MAX {
                    assert_eq!(join.events(), 0);
                }
            }
        }
    }
}

fn run(mut method: Method, events: &[Event], batch: usize, rules: &JoinRules) -> Outcome {
    let (mut out, mut newest, mut watermark) = (Outcome::default(), EventTime::MIN, EventTime::MIN);
    for batch in events.chunks(batch.max(1)) {
        let (late, taken): (Vec<Event>, Vec<Event>) =
            batch.iter().partition(|e| rules.is_late(e.time, watermark));
        out.late += late.len();
        newest = taken.iter().map(|e| e.time).max().max(Some(newest)).unwrap_or(newest);
        watermark = newest.minus(rules.lateness_ms);
        method.batch(&taken, rules, watermark, &mut out);
    }
    method.batch(&[], rules, EventTime::MAX, &mut out);
    let key = |e: &Event| (e.request, e.time, e.video, e.kind);
    out.counted.sort_by_key(key);
    out.expired.sort_by_key(key);
    out
}

/// `"i r1 v1 3 | p r1 v2 5"`: kind, request, video, minute.
fn events(text: &str) -> Vec<Event> {
    text.split('|')
        .filter(|t| !t.trim().is_empty())
        .map(|t| {
            let f: Vec<&str> = t.split_whitespace().collect();
            Event {
                kind: if f[0] == "p" { Kind::Play } else { Kind::Impression },
                request: RequestId(f[1][1..].parse().unwrap()),
                video: VideoHash(f[2][1..].parse().unwrap()),
                time: EventTime((f[3].parse::<f64>().unwrap() * 60_000.0) as i64),
                ..Event::default()
            }
        })
        .collect()
}

fn text(e: &Event) -> String {
    let kind = if e.kind == Kind::Play { 'p' } else { 'i' };
    format!("{kind} r{} v{} {}", e.request.0, e.video.0, e.time.0 / 60_000)
}

#[test]
fn the_walk_through() {
    // What comes in, and what goes out at that step.
    let steps = [
        ("i r1 v1 1", ""),                      // I1 of R1: held, nothing out
        ("i r2 v8 1", ""),                      // I8 of R2: held, nothing out
        ("p r1 v1 30", "i r1 v1 1|p r1 v1 30"), // P1 of R1: (R1,I1), (R1,P1)
        ("i r3 v5 140", ""),                    // I5 of R3; the watermark passes R2, which expires
        ("i r1 v6 80", "i r1 v6 80"),           // I6 of R1, late: (R1,I6)
    ];
    let rules = JoinRules { lateness_ms: 0, horizon_ms: 60 * 60_000, ..JoinRules::default() };
    for (name, mut method) in methods(rules) {
        let mut watermark = EventTime::MIN;
        let mut out = Outcome::default();
        for (event, emitted) in steps {
            let event = events(event);
            assert!(!rules.is_late(event[0].time, watermark));
            watermark = watermark.max(event[0].time);
            out.counted.clear();
            method.batch(&event, &rules, watermark, &mut out);
            let expected: Vec<String> =
                emitted.split('|').filter(|t| !t.is_empty()).map(str::to_owned).collect();
            assert_eq!(out.counted.iter().map(text).collect::<Vec<_>>(), expected, "{name}: {event:?}");
        }
        if name == "state" {
            // Windows are dropped whole, so there R2 goes a little later.
            assert_eq!(out.expired.iter().map(text).collect::<Vec<_>>(), ["i r2 v8 1"], "R2 expires");
        }
    }
}

fn check(input: &str, kind: JoinKind, counted: &str) {
    let rules = JoinRules { kind, horizon_ms: 10 * 60_000, lateness_ms: 1 << 40, ..JoinRules::default() };
    let expected: BTreeSet<String> =
        counted.split('|').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect();
    for batch in [1, 2, 100] {
        for (name, method) in methods(rules) {
            let out = run(method, &events(input), batch, &rules);
            let got: BTreeSet<String> = out.counted.iter().map(text).collect();
            assert_eq!(got, expected, "{name}, batches of {batch}: {input}");
        }
    }
}

#[test]
fn what_counts() {
    use JoinKind::{Inner, Left};
    check("i r1 v1 0", Inner, "");
    check("i r1 v1 0", Left, "i r1 v1 0");
    check("p r1 v1 0", Left, "");
    check("i r1 v1 0 | p r1 v2 5", Inner, "i r1 v1 0 | p r1 v2 5"); // on the request, not the video
    check("i r1 v1 0 | p r2 v1 5", Inner, "");
    check("i r1 v1 0 | p r1 v1 10", Inner, "i r1 v1 0 | p r1 v1 10"); // exactly the horizon
    check("i r1 v1 0 | p r1 v1 10.1", Inner, "");
    check("i r1 v1 0 | p r1 v1 10.1", Left, "i r1 v1 0");
    check("i r1 v1 0 | i r1 v1 0 | p r1 v1 1", Inner, "i r1 v1 0 | p r1 v1 1"); // a duplicate
    // The play reaches one impression and not the other, which another play reaches.
    check("i r1 v1 0 | i r1 v2 15 | p r1 v1 9", Inner, "i r1 v1 0 | i r1 v2 15 | p r1 v1 9");
    check("i r1 v1 0 | i r1 v2 20 | p r1 v1 9", Inner, "i r1 v1 0 | p r1 v1 9");
    check("i r1 v1 0 | i r1 v2 40 | p r1 v1 9 | p r1 v3 25", Inner, "i r1 v1 0 | p r1 v1 9");
}

#[test]
fn the_cap_cuts_and_counts() {
    let rules = JoinRules { request_events_max: 3, ..JoinRules::default() };
    let input = events("i r1 v1 0|i r1 v2 0|i r1 v1 0|p r1 v1 1|p r1 v2 1|i r1 v1 0|i r2 v1 0");
    for (name, method) in methods(rules) {
        let out = run(method, &input, 100, &rules);
        let counted: Vec<_> = out.counted.iter().map(text).collect();
        assert_eq!(counted, ["i r1 v1 0", "i r1 v2 0", "p r1 v1 1"], "{name}");
        assert_eq!((out.duplicate, out.capped, out.expired.len()), (2, 1, 1), "{name}");
    }
}

#[test]
fn a_large_request_is_right_and_linear() {
    // 20,000 events of one request: indexed, or the test would take minutes.
    let rules = JoinRules {
        request_events_max: usize::MAX,
        horizon_ms: 5_000,
        lateness_ms: 1 << 40,
        ..JoinRules::default()
    };
    let input: Vec<Event> = (0..20_000u64)
        .map(|i| Event {
            kind: if i % 13 == 0 { Kind::Play } else { Kind::Impression },
            request: RequestId(7),
            video: VideoHash(i % 50),
            time: EventTime((i * 7919 % 20_011) as i64 * 997),
            ..Event::default()
        })
        .collect();
    let counting = contract::counting(&input, &rules).into_iter().filter(|c| *c).count();
    for (name, method) in methods(rules) {
        assert_eq!(run(method, &input, 1_000, &rules).counted.len(), counting, "{name}");
    }
}

fn event() -> impl Strategy<Value = Event> {
    (0u64..4, 0u64..5, 0i64..120, any::<bool>(), 0u32..2).prop_map(
        |(request, video, minute, play, partition)| Event {
            kind: if play { Kind::Play } else { Kind::Impression },
            request: RequestId(request),
            video: VideoHash(video),
            time: EventTime(minute * 60_000),
            partition,
            ..Event::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the order, the repeats and the batches: each method counts exactly what the
    /// contract says, each event once, and accounts for every event it took.
    #[test]
    fn methods_agree_with_the_contract(
        input in prop::collection::vec(event(), 0..300),
        batch in 1usize..40,
        horizon in 0i64..40,
        lateness in 0i64..200,
        left in any::<bool>(),
    ) {
        let rules = JoinRules {
            kind: if left { JoinKind::Left } else { JoinKind::Inner },
            horizon_ms: horizon * 60_000,
            lateness_ms: lateness * 60_000,
            ..JoinRules::default()
        };
        for (name, method) in methods(rules) {
            let out = run(method, &input, batch, &rules);
            prop_assert_eq!(
                out.counted.len() + out.expired.len() + out.duplicate + out.late, input.len(), "{}: books", name
            );
            if out.late == 0 {
                let mut expected: Vec<Event> = input
                    .iter()
                    .zip(contract::counting(&input, &rules))
                    .filter_map(|(e, counts)| counts.then_some(*e))
                    .collect();
                let key = |e: &Event| (e.request, e.time, e.video, e.kind);
                expected.sort_by_key(key);
                expected.dedup_by_key(|e| key(e));
                let got: Vec<_> = out.counted.iter().map(key).collect();
                prop_assert_eq!(got, expected.iter().map(key).collect::<Vec<_>>(), "{}", name);
            }
        }
    }

    /// Videos that come once each, over days: their numbers stand for others again and again, and never while a
    /// request waits that refers to them, however long it goes on.
    #[test]
    fn an_event_keeps_its_video_however_long_its_request_goes_on(
        steps in prop::collection::vec((0u64..8, 0i64..60, 0i64..300, 0u8..5), 1..300),
        horizon in 0i64..100,
        lateness in 0i64..300,
        batch in 1usize..5,
    ) {
        let rules =
            JoinRules { horizon_ms: horizon * 60_000, lateness_ms: lateness * 60_000, ..JoinRules::default() };
        let mut clock = 1_768_435_200_000;
        let input: Vec<Event> = (0..).zip(steps).map(|(n, (request, forward, back, play))| {
            clock += forward * 60_000;
            Event {
                kind: if play == 0 { Kind::Play } else { Kind::Impression },
                request: RequestId(request), video: VideoHash(n), time: EventTime(clock - back.min(lateness) * 60_000),
                ..Event::default()
            }
        }).collect();
        let counting: Vec<_> =
            input.iter().zip(contract::counting(&input, &rules)).filter_map(|(e, c)| c.then_some(e.video)).collect();
        for (name, method) in methods(rules).into_iter().take(2) {
            let out = run(method, &input, batch, &rules);
            let mut got: Vec<Event> = out.counted.iter().chain(&out.expired).copied().collect();
            got.sort_by_key(|e| e.video);
            prop_assert_eq!((got, out.late), (input.clone(), 0), "{}", name);
            let mut counted: Vec<_> = out.counted.iter().map(|e| e.video).collect();
            counted.sort_unstable();
            prop_assert_eq!(counted, counting.clone(), "{}", name);
        }
    }

    /// Taken together or one by one, events leave the same state behind, to the byte.
    #[test]
    fn a_run_is_its_events_one_by_one(
        steps in prop::collection::vec((0i64..200_000, any::<bool>(), 0u8..40, 0u32..20), 0..150),
        cuts in prop::collection::vec(0usize..30, 150),
        cap in prop_oneof![Just(1_000), 1usize..100],
        from in 0i64..20_000_000, left in any::<bool>(),
    ) {
        let kind = if left { JoinKind::Left } else { JoinKind::Inner };
        let rules = JoinRules { kind, request_events_max: cap, ..JoinRules::default() };
        let mut clock = 0;
        let input: Vec<Event> = (0..).zip(steps).map(|(n, (forward, in_order, play, partition))| {
            clock += forward;
            Event {
                kind: if play == 0 { Kind::Play } else { Kind::Impression },
                video: VideoHash(n % 30), partition: partition.saturating_sub(18),
                time: EventTime(if in_order { clock } else { forward }), ..Event::default()
            }
        }).collect();
        let [mut one, mut other] = [(); 2].map(|()| (RequestState::default(), JoinDictionary::default(), 0, Vec::new()));
        let step = |(state, dictionary, waiting, counted): &mut (RequestState, JoinDictionary, usize, Vec<Event>), event| {
            let arrival = state.step(event, &rules, dictionary, &mut |e| counted.push(e));
            *waiting += usize::from(arrival == Arrival::Waiting);
        };
        input.iter().for_each(|event| step(&mut one, event));
        let (mut rest, mut cuts) = (input.as_slice(), cuts.into_iter());
        while let Some((event, others)) = rest.split_first() {
            step(&mut other, event);
            let run = others.iter().take(cuts.next().unwrap_or(0)).copied();
            let taken = other.0.wait(run, EventTime(from), &rules, &mut other.1);
            prop_assert!(others[..taken].iter().all(|event| event.time.0 >= from), "none is too late");
            other.2 += taken;
            rest = &others[taken..];
        }
        let saved = |(state, dictionary, waiting, counted): (RequestState, JoinDictionary, usize, Vec<Event>)| {
            let (mut saver, mut bytes) = (JoinSaver::default(), Vec::new());
            state.save(&dictionary, &mut saver, &mut bytes);
            (bytes, saver.names(&dictionary), waiting, counted, state.pack().ok())
        };
        prop_assert_eq!(saved(one), saved(other));
    }

    /// Counted without being put together, what never counted is as many of each partition and kind.
    #[test]
    fn what_expires_is_counted_as_it_is(
        input in prop::collection::vec(event(), 0..120), horizon in 0i64..40, left in any::<bool>(),
    ) {
        let kind = if left { JoinKind::Left } else { JoinKind::Inner };
        let rules = JoinRules { kind, horizon_ms: horizon * 60_000, ..JoinRules::default() };
        // Of one kind alone, of one partition alone, or mixed.
        for keep in [|e: &Event| e.kind == Kind::Impression, |e: &Event| e.partition == 0, |_: &Event| true] {
            let [mut one, mut other] = [(); 2].map(|()| (RequestState::default(), JoinDictionary::default()));
            for (state, dictionary) in [&mut one, &mut other] {
                for event in input.iter().filter(|e| keep(e)) {
                    state.step(event, &rules, dictionary, &mut |_| {});
                }
            }
            let (mut events, mut counts) = (BTreeMap::new(), BTreeMap::new());
            let ((state, mut dictionary), (again, mut others)) = (one, other);
            state.expire(RequestId(0), &mut dictionary, &mut |e| {
                *events.entry((e.partition, e.kind as u8)).or_insert(0) += 1;
            });
            again.expire_counted(&mut others, &mut |partition, kind, n| {
                *counts.entry((partition, kind as u8)).or_insert(0) += n;
            });
            prop_assert_eq!(events, counts);
            others.forget_before(EventTime::MAX);
            prop_assert!(others.is_empty(), "nothing is referred to any more");
        }
    }

    /// Small and large forms, and the change from one to the other.
    #[test]
    fn many_events_of_one_request(
        input in prop::collection::vec((0u64..40, 0i64..2_000, any::<bool>()), 0..400),
        horizon in 0i64..60,
    ) {
        let rules = JoinRules { horizon_ms: horizon, ..JoinRules::default() };
        let input: Vec<Event> = input.into_iter().map(|(video, time, play)| Event {
            kind: if play { Kind::Play } else { Kind::Impression },
            request: RequestId(1), video: VideoHash(video), time: EventTime(time), ..Event::default()
        }).collect();
        let distinct: BTreeSet<_> = input.iter().zip(contract::counting(&input, &rules))
            .filter(|(_, c)| *c).map(|(e, _)| (e.time, e.video, e.kind)).collect();
        for (name, method) in methods(rules) {
            let out = run(method, &input, 50, &rules);
            prop_assert_eq!(out.counted.len(), distinct.len(), "{}", name);
        }
    }
}
