//! The commands of the trends, on a table that a replay wrote.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Record};

fn uptake(args: &[&str]) -> (bool, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_uptake")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

/// Which titles `uptake rows` prints, in their order.
fn titles(data: &str, more: &[&str]) -> Vec<String> {
    let (ok, rows, err) = uptake(&[&["rows", "--data", data, "--format", "json"], more].concat());
    assert!(ok, "{err}");
    let id = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["video_id"].as_str().unwrap().to_owned()
    };
    rows.lines().map(id).collect()
}

/// 20 epochs of 8 titles at 10 %; in the last one everybody who sees v3 plays it.
fn table(folder: &Path) -> String {
    let mut events = String::new();
    for epoch in 0..20i64 {
        for request in 0..100i64 {
            let time = 1_768_435_200_000 + epoch * 1_800_000 + request * 15_000;
            for title in 0..8i64 {
                let mut event = |kind: &str, time: i64| {
                    let id = epoch * 1000 + request;
                    writeln!(events, "{{\"kind\":\"{kind}\",\"request_id\":\"{id:016x}\",\"video_id\":\"v{title}\",\"timestamp\":{time}}}").unwrap();
                };
                event("impression", time);
                if (request + title) % 10 == 0 || epoch == 19 && title == 3 {
                    event("play", time + 2000);
                }
            }
        }
    }
    let (input, data) = (folder.join("events.jsonl"), folder.join("data"));
    std::fs::write(&input, events).unwrap();
    let data = data.to_str().unwrap().to_owned();
    let (ok, _, err) =
        uptake(&["replay", input.to_str().unwrap(), "--data", &data, "--set", "join.kind=left"]);
    assert!(ok, "{err}");
    data
}

#[test]
fn a_burst_trends_and_the_others_are_told_what_they_lack() {
    let folder = tempfile::tempdir().unwrap();
    let data = table(folder.path());
    let (ok, rows, err) = uptake(&["rows", "--data", &data, "--format", "json"]);
    assert!(ok, "{err}");
    let rows: Vec<serde_json::Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0]["video_id"].as_str(), rows[0]["rising"].as_bool()), (Some("v3"), Some(true)));
    assert!(rows[0]["lift_lower"].as_f64().unwrap() > 3.0, "{rows:?}");
    let (_, popular, _) = uptake(&["rows", "--data", &data, "--row", "popular", "--limit", "2"]);
    assert_eq!(popular.lines().count(), 4, "{popular}");
    let (ok, why, _) = uptake(&["why", "v3", "--data", &data]);
    assert!(ok && why.contains("v3 is number 1 of trending for everyone"), "{why}");
    let (ok, why, _) = uptake(&["why-not", "v1", "--data", &data]);
    assert!(ok && why.contains("its rise may be chance"), "{why}");
    let (ok, _, err) = uptake(&["why", "v99", "--data", &data]);
    assert!(!ok && err.contains("v99: there is no tally"), "{err}");
    let page = folder.path().join("report.html");
    let (ok, scores, err) = uptake(&[
        "eval",
        "progressive",
        "--data",
        &data,
        "--places",
        "3",
        "--json",
        "--html",
        page.to_str().unwrap(),
    ]);
    assert!(ok, "{err}");
    let scores: Vec<serde_json::Value> = serde_json::from_str(&scores).unwrap();
    assert_eq!(scores.len(), 8);
    assert!(std::fs::read_to_string(page).unwrap().contains("<svg"));
}

/// In the last of 20 epochs three titles are played by all who see them: v3 by three members again and
/// again, v5 by as many members as requests, v6 by requests that send more than the cap allows.
#[test]
fn what_few_members_or_requests_beyond_the_caps_push_stands_in_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = String::new();
    for epoch in 0..20i64 {
        for request in 0..100i64 {
            let time = 1_768_435_200_000 + epoch * 1_800_000 + request * 15_000;
            for title in 0..8i64 {
                let mut event = |kind: &str, request: i64, member: i64, time: i64| {
                    let id = epoch * 1000 + request;
                    writeln!(events, "{{\"kind\":\"{kind}\",\"request_id\":\"{id:016x}\",\"video_id\":\"v{title}\",\"member_id\":\"m{member}\",\"timestamp\":{time}}}").unwrap();
                };
                event("impression", request, request, time);
                match title {
                    3 if epoch == 19 => event("play", request, request % 3, time + 2000),
                    5 if epoch == 19 => event("play", request, request, time + 2000),
                    6 if epoch == 19 => {
                        (0..60).for_each(|n| event("play", request, request, time + 2000 + n))
                    }
                    _ if (request + title) % 10 == 0 => event("play", request, request, time + 2000),
                    _ => {}
                }
            }
        }
    }
    let input = folder.path().join("events.jsonl");
    std::fs::write(&input, events).unwrap();
    let rising = |data: &str, settings: &[&str]| {
        let data = folder.path().join(data).to_str().unwrap().to_owned();
        let mut args = vec!["replay", input.to_str().unwrap(), "--data", &data, "--set", "join.kind=left"];
        args.extend(["--set", "join.request_events_max=40"]);
        settings.iter().for_each(|setting| args.extend(["--set", setting]));
        let (ok, _, err) = uptake(&args);
        assert!(ok, "{err}");
        let mut rows = titles(&data, &[]);
        rows.sort();
        (data, rows)
    };
    let (_, all) = rising("off", &["robots.count_members=off"]);
    assert_eq!(all, ["v3", "v5", "v6"], "where nobody looks, all of them rise");
    for method in ["state", "window"] {
        let (data, rows) = rising(method, &[&format!("join.method={method}")]);
        assert_eq!(rows, ["v5"]);
        let why_not = |video: &str| {
            let (ok, why, _) = uptake(&["why-not", video, "--data", &data]);
            assert!(ok, "{why}");
            why
        };
        assert!(why_not("v3").contains("only 3 members played it"), "{}", why_not("v3"));
        assert!(why_not("v6").contains("% of its plays were beyond the caps"), "{}", why_not("v6"));
        // Members are no group that anybody can ask for.
        let (ok, _, err) = uptake(&["rows", "--data", &data, "--segment", "~members"]);
        assert!(!ok && err.contains("dimension=value"), "{err}");
    }
}

/// The titles v0 to v3 stand at the third place, where one in four looks; v4 to v7 at the first, and are worse;
/// v8 to v11 change places. Where the places are kept as a segment, Loved ranks by what they are worth.
#[test]
fn where_places_are_kept_rates_are_corrected_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = String::new();
    for epoch in 0..30i64 {
        for request in 0..200i64 {
            let time = 1_768_435_200_000 + epoch * 1_800_000 + request * 8_000;
            for title in 0..12i64 {
                let place = match title {
                    0..4 => 2,
                    4..8 => 0,
                    _ => (title + epoch) % 3,
                };
                let plays = if title < 4 { [96, 48, 24] } else { [48, 24, 12] }[place as usize];
                let mut event = |kind: &str, time: i64| {
                    let id = epoch * 1000 + request;
                    writeln!(events, "{{\"kind\":\"{kind}\",\"request_id\":\"{id:016x}\",\"video_id\":\"v{title}\",\"row\":\"home\",\"position\":{},\"timestamp\":{time}}}", place + 1).unwrap();
                };
                event("impression", time);
                if (request * 7 + title) % 200 < plays {
                    event("play", time + 2000);
                }
            }
        }
    }
    let input = folder.path().join("events.jsonl");
    std::fs::write(&input, events).unwrap();
    let best = |segments: &str| {
        let data = folder.path().join(segments.len().to_string()).to_str().unwrap().to_owned();
        let segments = format!("segments={segments}");
        let settings = ["--set", "join.kind=left", "--set", &segments];
        let (ok, _, err) =
            uptake(&[&["replay", input.to_str().unwrap(), "--data", &data], &settings[..]].concat());
        assert!(ok, "{err}");
        let mut rows = titles(&data, &["--row", "loved", "--limit", "12"]);
        rows.truncate(4);
        rows.sort();
        rows.join(" ")
    };
    assert_eq!(best("[[]]"), "v4 v5 v6 v7", "by what was played of what was shown");
    let segments = r#"[[], ["row", "position"]]"#;
    assert_eq!(best(segments), "v0 v1 v2 v3");
    let data = folder.path().join(segments.len().to_string());
    let rising = titles(data.to_str().unwrap(), &[]);
    assert!(rising.is_empty(), "what is only weighed otherwise does not rise: {rising:?}");
}

#[test]
fn rows_keep_to_peoples_rules() {
    let folder = tempfile::tempdir().unwrap();
    let data = table(folder.path());
    let row = |name: &str| titles(&data, &["--row", name]);
    assert_eq!(row("trending"), ["v3"]);
    let last = row("popular").last().unwrap().clone();
    let (log, _) = EmbeddedLog::open(Path::new(&data), LogOptions::default()).unwrap();
    log.create_topic("rules", 1).unwrap();
    let put = |op: &str, rule: serde_json::Value| {
        let entry = json!({"at": 0, "by": "ann", "op": op, "rule": rule}).to_string();
        log.append("rules", 0, &[Record::new("", entry)], 0).unwrap();
    };
    let pin = json!({"id": "r1", "action": "pin", "video_id": last, "position": 1, "row": "popular"});
    put("put", pin.clone());
    put("put", json!({"id": "r2", "action": "block", "video_id": "v3"}));
    assert_eq!(row("popular")[0], last);
    assert!(!row("popular").contains(&"v3".to_owned()) && row("trending").is_empty());
    let (_, why, _) = uptake(&["why-not", "v3", "--data", &data]);
    assert!(why.contains("a person blocked it"), "{why}");
    put("delete", pin);
    assert_ne!(row("popular")[0], last);
}

/// The command chooses with the configuration that a server has.
#[test]
fn rows_are_those_that_a_server_with_the_same_configuration_shows() {
    let folder = tempfile::tempdir().unwrap();
    let data = table(folder.path());
    let popular = |more: &[&str]| titles(&data, &[&["--row", "popular"], more].concat());
    let all = popular(&[]);
    assert_eq!(all.len(), 8);
    assert_eq!(popular(&["--limit", "3"]), all[..3], "a limit cuts what is printed");
    let file = folder.path().join("titles.csv");
    let saga: String = (0..8).map(|n| format!("v{n},{}\n", if n < 4 { "saga" } else { "" })).collect();
    std::fs::write(&file, format!("id,franchise\n{saga}")).unwrap();
    let catalogue = format!("rows.catalogue={}", file.display());
    let set = ["--set", &catalogue];
    let of_saga =
        |rows: Vec<String>| rows.iter().filter(|video| ["v0", "v1", "v2", "v3"].contains(&&***video)).count();
    assert_eq!(of_saga(popular(&set)), 1);
    assert_eq!(of_saga(popular(&[&set[..], &["--set", "rows.franchise_max=0"]].concat())), 4);
    std::fs::write(&file, "id\nv5\n").unwrap();
    assert_eq!(popular(&[&set[..], &["--set", "rows.unknown_titles=hide"]].concat()), ["v5"]);
    // What a person pinned stands there before anything is counted of it.
    let (log, _) = EmbeddedLog::open(Path::new(&data), LogOptions::default()).unwrap();
    log.create_topic("rules", 1).unwrap();
    let pin = json!({"id": "r1", "action": "pin", "video_id": "premiere", "position": 2});
    let entry = json!({"at": 0, "by": "ann", "op": "put", "rule": pin}).to_string();
    log.append("rules", 0, &[Record::new("", entry)], 0).unwrap();
    assert_eq!(popular(&[])[1], "premiere");
    let (ok, text, err) = uptake(&["rows", "--data", &data, "--row", "popular"]);
    assert!(ok && text.contains("premiere"), "{text}{err}");
    let (ok, why, err) = uptake(&["why", "premiere", "--data", &data, "--row", "popular"]);
    assert!(ok && why.contains("is number 2 of popular for everyone: a person pinned it"), "{why}{err}");
}

#[test]
fn a_log_of_slots_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("slots.csv");
    let judge = |text: &str| {
        std::fs::write(&file, text).unwrap();
        uptake(&["eval", file.to_str().unwrap(), "--json"])
    };
    let (ok, report, err) = judge("reward,behaviour,target\n1,0.5,1\n0,0.5,0\n0,0.5,1\n1,0.5,0\n");
    assert!(ok, "{err}");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((report["ips"]["value"].as_f64(), report["effective"].as_f64()), (Some(0.5), Some(2.0)));
    let (ok, _, err) = judge("reward,behaviour,target\n1,0,1\n");
    assert!(!ok && err.contains("slot 1: behaviour must be above 0"), "{err}");
}
