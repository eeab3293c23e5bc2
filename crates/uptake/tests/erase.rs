//! A member's requests leave table, archive and state, and nothing else changes.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use uptake_connectors::archive::{Archive, DirectoryArchive};
use uptake_connectors::table::{SqliteTable, Table};
use uptake_model::RequestId;
use uptake_model::tally::RequestSet;

const START: i64 = 1_768_435_200_000;

fn uptake(args: &[&str]) -> (bool, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_uptake")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

/// Events of `epochs`: 40 members, each with a request an epoch that is shown four titles and plays one.
fn events(epochs: std::ops::Range<i64>) -> String {
    let mut lines = String::new();
    for epoch in epochs {
        for member in 0..40i64 {
            let (request, time) = (epoch * 1_000 + member, START + epoch * 1_800_000 + member * 1_000);
            let mut event = |kind: &str, video: i64, time: i64| {
                let id = request as u64;
                writeln!(lines, "{{\"kind\":\"{kind}\",\"request_id\":\"{id:016x}\",\"video_id\":\"v{video}\",\"member_id\":\"m{member}\",\"timestamp\":{time}}}").unwrap();
            };
            (0..4).for_each(|video| event("impression", (video + member) % 7, time));
            event("play", member % 7, time + 5_000);
        }
    }
    lines
}

fn append_and_run(folder: &Path, data: &str, text: &str) {
    let input = folder.join("events.jsonl");
    std::fs::write(&input, text).unwrap();
    let (ok, _, err) = uptake(&["append", input.to_str().unwrap(), "--data", data]);
    assert!(ok, "{err}");
    let (ok, _, err) = uptake(&["run", "--data", data, "--until-caught-up"]);
    assert!(ok, "{err}");
}

/// All ids in the stored sets of the table and of the archive.
fn ids(data: &str) -> [Vec<u64>; 2] {
    let mut all = [Vec::new(), Vec::new()];
    let table = SqliteTable::open_read_only(Path::new(data)).unwrap();
    let archive = DirectoryArchive::open(Path::new(data));
    for info in archive.parts().unwrap() {
        for row in archive.read_tallies(&info.part).unwrap() {
            let stored = table.get(&row.video_id, &row.segment, row.epoch).unwrap().unwrap();
            assert_eq!(stored, row, "table and archive have the same");
            for (all, row) in all.iter_mut().zip([&stored, &row]) {
                let sets = row.sets.as_ref().map(|sets| [sets.played.clone(), sets.shown.clone()]);
                for set in sets.into_iter().flatten() {
                    let RequestSet::Exact(ids) = set else { panic!("a sketch") };
                    all.extend(ids);
                }
            }
        }
    }
    all
}

fn tallies(data: &str) -> String {
    let (ok, rows, err) = uptake(&["tallies", "--data", data, "--format", "csv"]);
    assert!(ok, "{err}");
    rows
}

#[test]
fn a_members_requests_leave_and_every_number_stays() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").to_str().unwrap().to_owned();
    // The last epochs stay open: their requests are in the state.
    append_and_run(folder.path(), &data, &events(0..20));
    let mut of_member: Vec<u64> = (0..20).map(|epoch| (epoch * 1_000 + 7) as u64).collect();
    let (before, numbers) = (ids(&data), tallies(&data));
    assert!(before.iter().all(|ids| ids.contains(&of_member[0])));

    let erase = |more: &[&str]| {
        let (ok, out, err) =
            uptake(&[&["erase", "--data", &data, "--member", "m7", "--json"], more].concat());
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out} {err}"));
        (ok, report)
    };
    let (ok, planned) = erase(&["--dry-run"]);
    assert!(ok && planned["requests"] == 20, "{planned}");
    assert_eq!(ids(&data), before, "a dry run changes nothing");
    let (ok, report) = erase(&[]);
    assert!(!ok && report["in_state"].as_u64() > Some(0) && report["state_until"].is_string(), "{report}");
    assert_eq!(report["table_rows"], planned["table_rows"]);
    assert_eq!(report["archive_rows"], planned["archive_rows"]);
    assert_eq!(report["log_records"], serde_json::json!({"impressions": 80, "plays": 20}));
    let after = ids(&data);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.len(), after.len());
        assert!(!after.iter().any(|id| of_member.contains(id)));
        let count = |ids: &[u64]| {
            let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
            ids.iter()
                .filter(|id| !of_member.contains(id))
                .for_each(|id| *counts.entry(*id).or_default() += 1);
            counts
        };
        let (before, after) = (count(before), count(after));
        assert!(before.iter().all(|(id, n)| after.get(id) == Some(n)), "the others' ids are untouched");
    }
    assert_eq!(tallies(&data), numbers);

    // The stream goes on: the run seals what was open, and the same command takes that out too.
    of_member.extend((20..60).map(|epoch| (epoch * 1_000 + 7) as u64));
    for epoch in 20..60 {
        // Many checkpoints: what is sealed stands in older ones for a while.
        append_and_run(folder.path(), &data, &events(epoch..epoch + 1).replace("\"m7\"", "\"m8\""));
    }
    let (ok, report) = erase(&[]);
    assert!(ok && report["in_state"] == 0 && report["archive_rows"].as_u64() > Some(0), "{report}");
    assert!(!ids(&data).iter().flatten().any(|id| of_member[..20].contains(id)));
    let (ok, report) = erase(&[]);
    assert!(ok && report["table_rows"] == 0 && report["archive_rows"] == 0, "nothing is left: {report}");
    let (_, text, _) = uptake(&["explain", "request", &RequestId(7).to_string(), "--data", &data]);
    assert!(text.contains("counts in no sealed tally"), "{text}");
    // A request that is told by its id, without the log.
    let one = RequestId(8).to_string();
    let (ok, out, err) = uptake(&["erase", "--data", &data, "--request", &one]);
    assert!(ok && out.contains("rows held one of them and hold none now"), "{out} {err}");
    assert!(!ids(&data).iter().flatten().any(|id| *id == 8));
}

#[test]
fn an_erase_names_what_it_cannot_do() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let (ok, _, err) = uptake(&["erase", "--data", nowhere.to_str().unwrap(), "--member", "m1"]);
    assert!(!ok && err.contains("there is no such directory"), "{err}");
    assert!(!nowhere.exists());
    let (ok, _, err) = uptake(&["erase", "--data", nowhere.to_str().unwrap()]);
    assert!(!ok && err.contains("--member"), "{err}");
    // A mistyped directory holds nothing of anybody: that must not look like an erasure.
    std::fs::create_dir(&nowhere).unwrap();
    let (ok, _, err) = uptake(&["erase", "--data", nowhere.to_str().unwrap(), "--member", "m1"]);
    assert!(!ok && err.contains("it is no data directory"), "{err}");
    assert_eq!(std::fs::read_dir(&nowhere).unwrap().count(), 0);
}
