//! State that is larger than memory may be, through the real program: requests that wait go to
//! disk, the books and the table are those of a run with all of it in memory, and a restart needs
//! no more memory than the run before it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use common::{DAY_MS, Place, csv, uptake};
use serde_json::Value;

/// Requests of two impressions each, which take some 90 bytes a request while they wait.
const REQUESTS: u64 = 1_500_000;
/// Every so many-th request is played, when a quarter of all have come after it.
const PLAYED: u64 = 50;
const BUDGET: &str = "memory.bytes_max=112MiB";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn line(kind: &str, request: u64, video: u64, after_ms: u64) -> String {
    // Any odd number makes 64-bit ids that differ; the requests begin within 50 minutes.
    let id = request.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let time = DAY_MS as u64 + request * 50 * 60_000 / REQUESTS + after_ms;
    format!(r#"{{"kind":"{kind}","request_id":"{id:016x}","video_id":"v{video}","timestamp":{time}}}"#) + "\n"
}

/// The impressions of all requests, and between them the plays of some.
fn write(place: &Place) -> PathBuf {
    let path = place.path("many.jsonl");
    let mut file = BufWriter::new(std::fs::File::create(&path).unwrap());
    let mut lines = String::new();
    for request in 0..REQUESTS {
        for shown in 0..2 {
            write!(lines, "{}", line("impression", request, (request * 7 + shown) % 1_000, shown)).unwrap();
        }
        let earlier = request.checked_sub(REQUESTS / 4).filter(|earlier| earlier.is_multiple_of(PLAYED));
        if let Some(earlier) = earlier {
            lines += &line("play", earlier, earlier * 7 % 1_000, 1_000);
        }
        if lines.len() > 1 << 20 {
            file.write_all(lines.as_bytes()).unwrap();
            lines.clear();
        }
    }
    file.write_all(lines.as_bytes()).unwrap();
    file.flush().unwrap();
    path
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn state_larger_than_the_budget_of_memory_comes_to_the_same_table() {
    let place = Place::new();
    let input = write(&place);
    let replay = |name: &str, settings: &[&str]| {
        let data = place.path(name);
        let command = ["replay", text(&input), "--workers", "1", "--json", "--data", text(&data)];
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        (uptake(command.into_iter().chain(settings)), data)
    };
    let (in_memory, everything) = replay("in-memory", &["memory.bytes_max=off"]);
    let expected = json(&in_memory.ok());
    let plays = (REQUESTS - REQUESTS / 4).div_ceil(PLAYED);
    assert_eq!(expected["counted"], 3 * plays, "a play and the two impressions of its request: {expected}");

    let (stops, _) = replay("stops", &[BUDGET, "memory.spill=off"]);
    stops.fails(1, &["may hold 112 MiB (memory.bytes_max)", "nothing is lost"]);

    let (spills, data) = replay("spills", &[BUDGET]);
    assert!(spills.stderr.contains("memory is short"), "{}", spills.stderr);
    assert_eq!(json(&spills.ok())["counted"], expected["counted"]);
    assert!(!data.join("spill").exists(), "what was put on disk is gone with the run");
    assert!(csv(&data) == csv(&everything), "the tables differ");
}

/// The disk that should take the requests does not: the run stops with a line that says what to do.
#[test]
fn a_disk_that_does_not_take_them_stops_the_run() {
    let place = Place::new();
    let (input, data) = (write(&place), place.data());
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("spill"), "a file where a folder should be").unwrap();
    let command = ["replay", text(&input), "--workers", "1", "--data", text(&data), "--set", BUDGET];
    uptake(command).fails(1, &["requests that wait cannot be kept in", "Make room there", "nothing is lost"]);
}

fn newest_manifest(data: &Path) -> Value {
    let folder = data.join("checkpoints/main");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let newest = files.filter(|file| file.extension().is_some_and(|e| e == "json")).max().unwrap();
    json(std::fs::read_to_string(newest).unwrap().lines().next().unwrap())
}

#[test]
fn a_restart_needs_no_more_memory_than_the_run_before_it() {
    let place = Place::new();
    let (input, data) = (write(&place), place.data());
    uptake(["append", text(&input), "--data", text(&data)]).ok();
    let run = || {
        uptake([
            "run",
            "--data",
            text(&data),
            "--workers",
            "1",
            "--until-caught-up",
            "--json",
            "--set",
            BUDGET,
        ])
    };
    let first = run();
    assert!(first.stderr.contains("memory is short"), "{}", first.stderr);
    let plays = (REQUESTS - REQUESTS / 4).div_ceil(PLAYED);
    let books = json(&first.ok());
    assert_eq!(books["counted"], 3 * plays);
    let spilled = newest_manifest(&data)["spilled"].as_u64().unwrap();
    assert!(spilled > 0 && spilled < REQUESTS, "the checkpoint says that {spilled} requests wait on disk");
    // The run that goes on from the checkpoint knows the requests that nobody has played yet.
    let more: String = (1..=1_000).map(|n| line("play", n * PLAYED + 1, 3, 2_000)).collect();
    uptake(["append", text(&place.write("more.jsonl", &more)), "--data", text(&data)]).ok();
    let second = run();
    assert!(second.stderr.contains("memory is short"), "{}", second.stderr);
    let books = json(&second.ok());
    assert_eq!((&books["counted"], &books["balances"]), (&(3 * (plays + 1_000)).into(), &true.into()));
}
