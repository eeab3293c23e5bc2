//! How many bytes a request takes that waits for its play, everything included.
//!
//! Feeds requests of 18 impressions to a keyed state exactly as `stages::join` does, with the
//! program's allocator, and prints what the states say they hold and by how much the process
//! grew. `cargo xtask bench --only state` runs it.
//!
//! `cargo run --release --example state_bytes -- [--requests N] [--members N] [--json]`
//!
//! Members are part of the state only with a cap per member, so without `--members` there are none.

use std::process::ExitCode;

use uptake_flow::KeyedState;
use uptake_model::join::{JoinDictionary, JoinRules, RequestState};
use uptake_model::{Event, EventTime, MemberHash, RequestId, VideoHash};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The mean of the reference workload.
const IMPRESSIONS: u64 = 18;

/// Videos of the reference workload, of which the one at rank k is shown 1/k as often as the
/// first: a video that is shown early, as the popular ones are, has a short number in the state.
const VIDEOS: usize = 10_000;

/// For each rank, how much of all impressions the videos up to it have.
fn popularity() -> Vec<f64> {
    let weights = (1..=VIDEOS).map(|rank| 1.0 / rank as f64);
    let total: f64 = weights.clone().sum();
    weights
        .scan(0.0, |sum, weight| {
            *sum += weight / total;
            Some(*sum)
        })
        .collect()
}

/// Requests whose impressions arrive interleaved: as many as begin in about a second. A state
/// that grows while its neighbours do leaves the allocator more gaps than one that grows alone.
const AT_ONCE: u64 = 1_000;

/// Between two impressions of a page, as the reference workload has it: 20 to 420 ms.
fn gap_ms(random: u64) -> i64 {
    20 + (random % 400) as i64
}

/// SplitMix64.
fn random(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes of the process in memory, by `/proc`.
fn resident_bytes() -> Result<u64, String> {
    let text = std::fs::read_to_string("/proc/self/statm")
        .map_err(|error| format!("cannot read /proc/self/statm, which only Linux has: {error}"))?;
    let pages: Option<u64> = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    // The page size of every system this is measured on; the kernel offers it to C programs only.
    pages.map(|pages| pages * 4096).ok_or_else(|| format!("/proc/self/statm is not understood: {text}"))
}

fn measure(requests: u64, members: u64, json: bool) -> Result<(), String> {
    let popularity = popularity();
    let before = resident_bytes()?;
    let rules = JoinRules::default();
    let mut dictionary = JoinDictionary::default();
    let mut states: KeyedState<RequestId, RequestState> = KeyedState::default();
    let mut times = [EventTime(0); AT_ONCE as usize];
    for first in (0..requests).step_by(AT_ONCE as usize) {
        let page = first..requests.min(first + AT_ONCE);
        times.fill(EventTime(1_768_435_200_000 + first as i64));
        for impression in 0..IMPRESSIONS {
            for (n, time) in page.clone().zip(&mut times) {
                let dice = random(n * IMPRESSIONS + impression);
                *time = time.plus(gap_ms(dice >> 40));
                let share = (random(dice) >> 11) as f64 / (1u64 << 53) as f64;
                let event = Event {
                    request: RequestId(random(n)),
                    video: VideoHash(random(popularity.partition_point(|&p| p < share) as u64)),
                    time: *time,
                    member: match members {
                        0 => MemberHash::NONE,
                        members => MemberHash(1 + random(n ^ 0x6d65) % members),
                    },
                    ..Event::default()
                };
                let deadline = event.time.plus(rules.retention_ms());
                let state = states.entry(&event.request, Some(deadline)).get_or_insert_default();
                state.step(&event, &rules, &mut dictionary, &mut |_| {});
                states.settle(&event.request);
            }
        }
    }
    let grown = resident_bytes()?.saturating_sub(before) as f64;
    let mut own = 0;
    states.each(&mut |_, state| own += state.heap_bytes());
    let (store, dictionary) = (states.heap_bytes(), dictionary.heap_bytes());
    let each = |bytes: usize| bytes as f64 / requests as f64;
    let (all, resident) = (each(own + store + dictionary), grown / requests as f64);
    if json {
        println!(
            "{{\"requests\":{requests},\"impressions\":{IMPRESSIONS},\"members\":{members},\
             \"heap_bytes_per_request\":{all:.2},\"resident_bytes_per_request\":{resident:.2}}}"
        );
    } else {
        println!(
            "{requests} requests of {IMPRESSIONS} impressions, {members} members; bytes for each request:"
        );
        println!("{:8.1}  its events", each(own));
        println!("{:8.1}  slots and index of the store", each(store));
        println!("{:8.1}  its part of the dictionary", each(dictionary));
        println!("{all:8.1}  in all");
        println!("{resident:8.1}  by the growth of the process");
    }
    if states.len() as u64 == requests { Ok(()) } else { Err(format!("{} states are held", states.len())) }
}

fn main() -> ExitCode {
    let (mut requests, mut members, mut json) = (1_000_000, 0, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|n| n.parse().ok());
        match (&*arg, &mut requests, &mut members) {
            ("--json", ..) => json = true,
            ("--requests", place, _) | ("--members", _, place) => match number() {
                Some(n) => *place = n,
                None => {
                    eprintln!("{arg} takes a number");
                    return ExitCode::from(2);
                }
            },
            _ => {
                eprintln!("usage: state_bytes [--requests N] [--members N] [--json]");
                return ExitCode::from(2);
            }
        }
    }
    match measure(requests, members, json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("state_bytes: {error}");
            ExitCode::FAILURE
        }
    }
}
