//! What is promised of the audience: its bytes, its dirt, and that its truth is the contract.

use std::collections::BTreeMap;
use std::sync::Arc;

use uptake_model::decode::{DecodeConfig, Decoded, Decoder, Members};
use uptake_model::filter::Filters;
use uptake_model::join::{JoinKind, JoinRules};
use uptake_model::segment::Segments;
use uptake_model::{EpochLength, EventTime, Kind, Reason, VideoHash, contract};
use uptake_sim::{Audience, Counting, Dirt, EVENTS_PER_REQUEST, Options, titles};

const HOUR: i64 = 3_600_000;

fn lines(options: &Options, count: usize) -> (Vec<u8>, Audience) {
    let mut audience = Audience::new(options.clone());
    let mut bytes = Vec::new();
    assert_eq!(audience.fill(i64::MAX, count, &mut bytes), count);
    (bytes, audience)
}

fn decode(bytes: &[u8], now: EventTime) -> Decoded {
    let (config, mut decoded) = (Arc::new(DecodeConfig::default()), Decoded::default());
    let segments = Segments::default();
    Decoder::new(config, &segments, &Filters::default(), EpochLength::default(), Members::None).decode_block(
        bytes,
        now,
        0,
        &mut decoded,
    );
    decoded
}

/// FNV-1a, to hold the bytes to what they were.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let options = Options::default();
    let (bytes, audience) = lines(&options, 50_000);
    let mut again = Vec::new();
    // However the lines are asked for.
    let mut other = Audience::new(options.clone());
    let mut until_ms = options.start_ms;
    while other.sent().lines() < 50_000 {
        until_ms += 777;
        let left = 50_000 - other.sent().lines() as usize;
        other.fill(until_ms, left.min(100), &mut again);
    }
    assert!(bytes == again, "asked for in small pieces, the lines are others");
    assert_eq!(audience.sent(), other.sent());
    assert_eq!(audience.truth().table(), other.truth().table());
    assert_ne!(lines(&Options { seed: 2, ..options }, 50_000).0, bytes);
    // On another machine too; a change of the simulation changes this number.
    assert_eq!(fingerprint(&bytes), 0xeb4a_66fd_3891_c0f0, "{:#x}", fingerprint(&bytes));
}

#[test]
fn the_truth_is_the_contract() {
    for (seed, rate, kind) in [(1, 0.5, JoinKind::Inner), (2, 5.0, JoinKind::Inner), (3, 0.5, JoinKind::Left)]
    {
        let counting = Counting { impressions_alone: kind == JoinKind::Left, ..Counting::default() };
        let dirt = Dirt { clocks_off: 0.05, offline_requests: 0.05, ..Dirt::default() };
        let options = Options { seed, requests_per_second: rate, counting, dirt, ..Options::default() };
        let (bytes, audience) = lines(&options, 120_000);
        let now = EventTime(audience.now_ms() + HOUR);
        let mut events = decode(&bytes, now).events;
        let all = events.len();
        events.retain(|event| event.time.0 > options.start_ms - 24 * HOUR);
        assert_eq!((all - events.len()) as u64, audience.sent().stale);

        let rules = JoinRules { kind, ..JoinRules::default() };
        let expected = contract::tallies(&events, &rules, EpochLength::default());
        let expected: BTreeMap<_, _> = expected
            .into_iter()
            .map(|((video, epoch), sets)| ((video, epoch.0), (sets.played.len(), sets.shown.len())))
            .collect();
        let truth: BTreeMap<_, _> = audience
            .truth()
            .table()
            .into_iter()
            .map(|((title, epoch), requests)| {
                let video = VideoHash::from_text(titles()[usize::from(title)].id.as_bytes());
                ((video, epoch), (requests.played as usize, requests.shown as usize))
            })
            .collect();
        assert!(truth.len() > 100, "{} rows", truth.len());
        assert!(truth == expected, "seed {seed}: the truth is not the contract");
    }
}

#[test]
fn the_dirt_is_as_configured() {
    let dirt = Dirt {
        duplicates: 0.02,
        truncated: 0.004,
        unknown_kinds: 0.003,
        future: 0.002,
        test_requests: 0.05,
        stale_requests: 0.01,
        ..Dirt::default()
    };
    let options = Options { requests_per_second: 2.0, dirt, ..Options::default() };
    let (bytes, audience) = lines(&options, 400_000);
    let sent = audience.sent();
    assert_eq!(sent.lines(), 400_000);
    let events = (sent.impressions + sent.plays) as f64;
    for (name, n, rate) in [
        ("duplicates", sent.duplicates, dirt.duplicates),
        ("truncated", sent.truncated, dirt.truncated),
        ("unknown kinds", sent.unknown_kinds, dirt.unknown_kinds),
        ("future", sent.future, dirt.future),
        ("test", sent.test, dirt.test_requests),
        ("stale", sent.stale, dirt.stale_requests),
    ] {
        let measured = n as f64 / events;
        assert!((measured / rate - 1.0).abs() < 0.25, "{name}: {measured:.4} of {rate}");
    }
    let decoded = decode(&bytes, EventTime(audience.now_ms() + HOUR));
    let dead = |reason| decoded.dead.iter().filter(|(_, r, _)| *r == reason).count() as u64;
    assert_eq!(dead(Reason::NotJson), sent.truncated);
    assert_eq!(dead(Reason::UnknownKind), sent.unknown_kinds);
    assert_eq!(dead(Reason::TimestampInFuture), sent.future);
    assert_eq!(decoded.filtered.len() as u64, sent.test);
    let total = decoded.events.len() + decoded.dead.len() + decoded.filtered.len();
    assert_eq!(total, 400_000, "every line is one or the other");
}

#[test]
fn without_dirt_every_line_is_an_event_in_its_time() {
    let options = Options { dirt: Dirt::NONE, ..Options::default() };
    let (bytes, audience) = lines(&options, 100_000);
    let decoded = decode(&bytes, EventTime(audience.now_ms() + HOUR));
    assert_eq!(decoded.events.len(), 100_000);
    assert!(decoded.events.iter().all(|e| e.time.0 >= options.start_ms && e.time.0 < audience.now_ms()));
    let plays = decoded.events.iter().filter(|e| e.kind == Kind::Play).count();
    assert!((2_000..10_000).contains(&plays), "{plays} plays");
}

#[test]
fn a_request_sends_about_as_many_events_as_is_said() {
    let options = Options { dirt: Dirt::NONE, requests_per_second: 10.0, ..Options::default() };
    let mut audience = Audience::new(options.clone());
    let mut bytes = Vec::new();
    // A whole day, so that the rhythm evens out.
    let n = audience.fill(options.start_ms + 24 * HOUR, usize::MAX, &mut bytes);
    let measured = n as f64 / (10.0 * 86_400.0);

    assert!((measured / EVENTS_PER_REQUEST - 1.0).abs() < 0.08, "{measured}");
}

#[test]
fn what_the_world_speaks_of_is_played_more() {
    let options = Options { requests_per_second: 20.0, dirt: Dirt::NONE, ..Options::default() };
    let mut audience = Audience::new(options.clone());
    let (mut bytes, mut at_ms) = (Vec::new(), options.start_ms);
    let burst = loop {
        at_ms += HOUR / 6;
        audience.fill(at_ms, usize::MAX, &mut bytes);
        bytes.clear();
        if let Some(happening) = audience.happening().find(|h| !h.is_premiere) {
            break happening.clone();
        }
    };
    audience.fill(burst.until_ms, usize::MAX, &mut bytes);
    let table = audience.truth().table();
    let plays = |epoch: i64| table.get(&(burst.title as u16, epoch)).map_or(0, |r| r.played);
    let (before, during) = (burst.from_ms / (HOUR / 2) - 1, burst.from_ms / (HOUR / 2) + 2);
    assert!(plays(during) > 3 * plays(before), "{} then {}", plays(before), plays(during));
}
