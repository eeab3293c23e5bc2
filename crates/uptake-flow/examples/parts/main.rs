//! The parts of the hot path, each alone on events in memory, and beside it a *floor*: the least
//! that any program would have to do for the same.
//!
//! `cargo run --release -p uptake-flow --example parts -- [PART...] [--events N] [--passes N] [--json]`
//!
//! prints nanoseconds per event, the median of the passes, and the ratio to the floor, pass by pass.
//! `cargo xtask bench --only parts` keeps them, and `cargo xtask test` counts instructions with it.

mod exchange;
mod passes;

use std::collections::HashMap;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use exchange::{exchange, exchange_floor};
use foldhash::fast::RandomState;
use passes::{Asked, Work, random};
use uptake_flow::{EventTime, KeyedState, Tracking};
use uptake_model::decode::{DecodeConfig, Decoder, Members, Sink};
use uptake_model::filter::Filters;
use uptake_model::join::{
    BatchToWindow, HoldingJoin, JoinDictionary, JoinRules, JoinSaver, RequestState, WindowJoin,
};
use uptake_model::segment::Segments;
use uptake_model::tally::{Tally, TallyLimits};
use uptake_model::{DimsHash, Epoch, EpochLength, Event, Kind, Reason, RequestId, VideoHash};

/// Events of a batch, as the pipeline has it while it is behind.
const BATCH: usize = 100_000;
/// Bytes of a block, as the pipeline reads them.
const BLOCK_BYTES: usize = 256 << 10;
const VIDEOS: u64 = 10_000;
const IMPRESSIONS: u64 = 18;
/// Requests whose events come interleaved.
const AT_ONCE: u64 = 1_000;
/// A play for so many in a hundred requests.
const PLAYED_PERCENT: u64 = 15;

/// Requests of 18 impressions, a thousand at a time, and some plays; as in the reference workload
/// videos are the more popular the smaller their number.
fn events(count: usize) -> Vec<Event> {
    let mut events = Vec::with_capacity(count + (AT_ONCE * (IMPRESSIONS + 1)) as usize);
    let mut first = 0;
    while events.len() < count {
        for n in 0..=IMPRESSIONS {
            for request in first..first + AT_ONCE {
                let id = random(request);
                let draw = random(id ^ n << 40);
                // The logarithm of an even draw: the share of each video falls as 1/rank.
                let rank = (VIDEOS as f64).powf((draw >> 11) as f64 / (1u64 << 53) as f64) as u64 - 1;
                let kind = if n < IMPRESSIONS { Kind::Impression } else { Kind::Play };
                if kind == Kind::Play && id % 100 >= PLAYED_PERCENT {
                    continue;
                }
                let time = EventTime(1_768_435_200_000 + (request / 10 + n * 220) as i64);
                let video = VideoHash(random(rank ^ 1 << 50));
                events.push(Event { request: RequestId(id), video, time, kind, ..Event::default() });
            }
        }
        first += AT_ONCE;
    }
    events.truncate(count);
    events
}

fn lines(events: &[Event]) -> Vec<Vec<u8>> {
    let mut blocks = vec![Vec::new()];
    for event in events {
        let kind = if event.kind == Kind::Play { "play" } else { "impression" };
        let line = format!(
            "{{\"kind\":\"{kind}\",\"request_id\":\"{:016x}\",\"video_id\":\"v{}\",\"member_id\":\"m{}\",\"timestamp\":{},\
             \"country\":\"BR\",\"device\":\"tv\",\"row\":\"trending\",\"position\":{}}}\n",
            event.request.0,
            event.video.0 % VIDEOS,
            event.request.0 % 200_000,
            event.time.0,
            event.time.0 % 40
        );
        if blocks.last().is_some_and(|block: &Vec<u8>| block.len() + line.len() > BLOCK_BYTES) {
            blocks.push(Vec::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.extend_from_slice(line.as_bytes());
        }
    }
    blocks
}

/// Takes what is decoded and uses every part of it, so that none of the work can be left out.
#[derive(Default)]
struct Sum(u64);

impl Sink for Sum {
    fn event(&mut self, event: Event) {
        let ids = event.request.0 ^ event.video.0 ^ event.member.0 ^ event.dims.0;
        self.0 = self.0.wrapping_add(ids ^ event.time.0 as u64 ^ event.kind as u64);
    }
    fn dead(&mut self, _: usize, _: Reason, _: &[u8]) {}
    fn filtered(&mut self, _: usize) {}
    fn blank(&mut self) {}
    fn video(&mut self, _: VideoHash, _: &str, _: Epoch) {}
    fn dims(&mut self, _: DimsHash, _: &[&str], _: Epoch) {}
}

fn decode(blocks: &[Vec<u8>]) -> u64 {
    let Ok(segments) = Segments::new(vec![vec![]]) else { return 0 };
    let config = DecodeConfig::default().into();
    let mut decoder =
        Decoder::new(config, &segments, &Filters::default(), EpochLength::default(), Members::None);
    let mut sum = Sum::default();
    for block in blocks {
        decoder.decode_block(block, EventTime::LATEST, 0, &mut sum);
    }
    sum.0
}

/// The four values of each line by where they stand behind their names, without a check of anything.
fn decode_floor(blocks: &[Vec<u8>]) -> u64 {
    let hasher = RandomState::default();
    let mut sum = 0u64;
    for block in blocks {
        let mut rest = block.as_slice();
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            let kind_end = 9 + memchr::memchr(b'"', &line[9..]).unwrap_or(0);
            let request = &line[kind_end + 16..kind_end + 32];
            let id = request.iter().fold(0u64, |id, b| id << 4 | u64::from((b & 15) + (b >> 6) * 9));
            let video_at = kind_end + 45;
            let video_end = video_at + memchr::memchr(b'"', &line[video_at..]).unwrap_or(0);
            let video = std::hash::BuildHasher::hash_one(&hasher, &line[video_at..video_end]);
            let member_at = video_end + 15;
            let time_at = member_at + memchr::memchr(b'"', &line[member_at..]).unwrap_or(0) + 14;
            let digits = line[time_at..].iter().take_while(|b| b.is_ascii_digit());
            let time = digits.fold(0u64, |time, b| time * 10 + u64::from(b - b'0'));
            sum = sum.wrapping_add(id ^ video ^ time ^ (kind_end as u64));
        }
    }
    sum
}

fn join_state(events: &[Event]) -> u64 {
    let (rules, mut dictionary, mut sum) = (JoinRules::default(), JoinDictionary::default(), 0u64);
    let mut states: KeyedState<RequestId, RequestState> = KeyedState::default();
    for event in events {
        let deadline = event.time.plus(rules.retention_ms());
        let state = states.entry(&event.request, Some(deadline)).get_or_insert_default();
        state.step(event, &rules, &mut dictionary, &mut |counted| sum = sum.wrapping_add(counted.video.0));
    }
    let mut waiting = 0;
    states.expire(EventTime::MAX, &mut |_, state| {
        state.expire_counted(&mut dictionary, &mut |_, _, events| waiting += events);
    });
    sum ^ waiting
}

fn join_holding(events: &[Event], mut join: impl HoldingJoin) -> u64 {
    let (mut sum, mut waiting) = (0u64, 0u64);
    for batch in events.chunks(BATCH) {
        for event in batch {
            join.step(event, &mut |counted| sum = sum.wrapping_add(counted.video.0));
        }
        let mut counted = |event: Event| sum = sum.wrapping_add(event.video.0);
        join.end_batch(EventTime(0), &mut counted, &mut |_, _| {}, &mut |_| waiting += 1);
    }
    let mut counted = |event: Event| sum = sum.wrapping_add(event.video.0);
    join.end_batch(EventTime::MAX, &mut counted, &mut |_, _| {}, &mut |_| waiting += 1);
    sum ^ waiting
}

/// Whether a request was played, and until then what it showed: videos and times.
type Shown = (bool, Vec<(u64, i64)>);

/// A list for each request until its play comes: no duplicates, no horizon, no deadline.
fn join_floor(events: &[Event]) -> u64 {
    let mut waiting: HashMap<u64, Shown, RandomState> = HashMap::default();
    let mut sum = 0u64;
    for event in events {
        let (played, list) = waiting.entry(event.request.0).or_default();
        *played |= event.kind == Kind::Play;
        if *played {
            sum = list.drain(..).fold(sum, |sum, (video, _)| sum.wrapping_add(video));
            sum = sum.wrapping_add(event.video.0);
        } else {
            list.push((event.video.0, event.time.0));
        }
    }
    sum ^ waiting.values().map(|(_, list)| list.len() as u64).sum::<u64>()
}

fn tallies(events: &[Event]) -> u64 {
    let (limits, epochs) = (TallyLimits::default(), EpochLength::default());
    let mut tallies: KeyedState<(VideoHash, Epoch), Tally> = KeyedState::default();
    for event in events {
        let key = (event.video, epochs.epoch(event.time));
        tallies.entry(&key, None).get_or_insert_default().insert(event.kind, event.request, limits);
    }
    let mut sum = 0;
    for part in 0..tallies.parts() {
        tallies.part(part, &mut |_, tally, _| sum += tally.counts(limits).size());
    }
    sum
}

/// A list for each video and epoch, made a set in the end.
fn tallies_floor(events: &[Event]) -> u64 {
    let epochs = EpochLength::default();
    let mut lists: HashMap<(VideoHash, Epoch), [Vec<u64>; 2], RandomState> = HashMap::default();
    for event in events {
        let key = (event.video, epochs.epoch(event.time));
        lists.entry(key).or_default()[event.kind as usize].push(event.request.0);
    }
    let mut sum = 0;
    for list in lists.values_mut().flatten() {
        list.sort_unstable();
        list.dedup();
        sum += list.len() as u64;
    }
    sum
}

/// The states of all requests and those that changed, as a checkpoint has them.
fn checkpoint(events: &[Event]) -> impl FnMut() -> u64 {
    let (rules, mut dictionary) = (JoinRules::default(), JoinDictionary::default());
    let mut states: KeyedState<RequestId, RequestState> = KeyedState::default();
    states.track(Tracking::Checkpoint);
    for event in events {
        let deadline = event.time.plus(rules.retention_ms());
        let state = states.entry(&event.request, Some(deadline)).get_or_insert_default();
        state.step(event, &rules, &mut dictionary, &mut |_| {});
    }
    let mut saver = JoinSaver::default();
    move || {
        let mut bytes = Vec::new();
        saver.begin(&dictionary, states.len());
        for part in 0..states.parts() {
            states.part(part, &mut |_, state, _| state.save(&dictionary, &mut saver, &mut bytes));
        }
        bytes.len() as u64
    }
}

/// As many bytes as a state has, copied.
fn checkpoint_floor(events: &[Event]) -> impl FnMut() -> u64 {
    let requests = events.len() as u64 / IMPRESSIONS;
    let states: Vec<Vec<u8>> = (0..requests).map(|n| vec![n as u8; 80]).collect();
    move || {
        let mut bytes = Vec::new();
        states.iter().for_each(|state| bytes.extend_from_slice(state));
        black_box(&bytes).len() as u64
    }
}

const PARTS: [&str; 7] =
    ["decode", "exchange", "join-state", "join-window", "join-batch-to-window", "tallies", "checkpoint"];

/// A part and its floor.
fn part<'a>(name: &str, events: &'a Arc<Vec<Event>>, blocks: &'a [Vec<u8>]) -> Option<(Work<'a>, Work<'a>)> {
    let rules = JoinRules::default();
    Some(match name {
        "decode" => (Box::new(|| decode(blocks)), Box::new(|| decode_floor(blocks))),
        "exchange" => (Box::new(|| exchange(events)), Box::new(|| exchange_floor(events))),
        "join-state" => (Box::new(|| join_state(events)), Box::new(|| join_floor(events))),
        "join-window" => {
            (Box::new(move || join_holding(events, WindowJoin::new(rules))), Box::new(|| join_floor(events)))
        }
        "join-batch-to-window" => (
            Box::new(move || join_holding(events, BatchToWindow::new(rules))),
            Box::new(|| join_floor(events)),
        ),
        "tallies" => (Box::new(|| tallies(events)), Box::new(|| tallies_floor(events))),
        "checkpoint" => (Box::new(checkpoint(events)), Box::new(checkpoint_floor(events))),
        _ => return None,
    })
}

fn main() -> ExitCode {
    let asked = match Asked::read(&PARTS, 2_000_000, 5) {
        Ok(asked) => asked,
        Err(what) => {
            eprintln!("{what}");
            return ExitCode::from(2);
        }
    };
    let events = Arc::new(events(asked.count));
    let blocks = if asked.parts.iter().any(|name| name == "decode") { lines(&events) } else { Vec::new() };
    for name in &asked.parts {
        if let Some(part) = part(name, &events, &blocks) {
            asked.measure(name, "an event", part);
        }
    }
    ExitCode::SUCCESS
}
