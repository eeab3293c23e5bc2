//! Real logs instead of generated ones: a search engine's page loads, and a shop's
//! recommendations.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use common::{Place, contract_py, first_difference, shared, skip, without_exact};
use serde_json::json;

/// Sums over a CSV: rows, plays, impressions.
fn sums(csv: &str) -> (usize, u64, u64) {
    let (mut rows, mut plays, mut impressions) = (0, 0, 0);
    for line in csv.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        rows += 1;
        plays += cells[2].parse::<u64>().unwrap();
        impressions += cells[3].parse::<u64>().unwrap();
    }
    (rows, plays, impressions)
}

/// 67 days of page loads with real lags, reloads and plays without an impression. The log's
/// licence keeps it out of this repository.
#[test]
fn a_search_log_of_67_days() {
    let (Some(bench), Some(log)) = (shared("bench/clara2_events.py"), shared("data/clara2")) else {
        return skip("a_search_log_of_67_days", "no shared/data/clara2 beside this checkout");
    };
    let made = Command::new("python3").arg(&bench).arg(log).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let place = Place::new();
    let file = place.write("in/events.jsonl", made.stdout);
    let mut plays_expired = BTreeMap::new();
    for (horizon, minutes, kind, method, workers) in [
        ("90min", 90, "inner", "state", "2"),
        ("90min", 90, "left", "window", "1"),
        ("1min", 1, "inner", "batch-to-window", "4"),
        ("1min", 1, "left", "state", "1"),
    ] {
        let (horizon_set, kind_set) = (format!("join.horizon={horizon}"), format!("join.kind={kind}"));
        let method = format!("join.method={method}");
        // The log runs in the order of time, so nothing is late; the usual cap stays on.
        let args = ["--workers", workers, "--set", &horizon_set, "--set", &kind_set, "--set", &method];
        let data = place.path(&format!("data-{horizon}-{kind}"));
        let books = common::books(&[&file], &data, &args);
        let ours = without_exact(&common::csv(&data));
        let ms = (minutes * 60_000).to_string();
        let mut asked = vec!["--horizon-ms", &ms];
        asked.extend((kind == "left").then_some("--left"));
        let theirs = contract_py(bench.parent().unwrap(), &asked, std::slice::from_ref(&file));
        assert_eq!(first_difference(&ours, &theirs), None, "{horizon} {kind}");
        // 25,676 page loads of 10 items and 9,253 clicks.
        assert_eq!((books.n("read"), books.n("dead"), books.n("late")), (266_013, 0, 0), "{books:?}");
        match (horizon, kind) {
            ("90min", "inner") => assert_eq!(sums(&ours), (57_439, 7_539, 64_185)),
            // 596 clicks have no page load; others came more than the horizon after it.
            (_, "left") => assert!(books.n("organic") >= 590, "{books:?}"),
            _ => {}
        }
        match kind {
            // Every impression counts.
            "left" => assert_eq!(books.n("expired"), books.n("organic"), "{books:?}"),
            _ => assert_eq!(books.n("organic"), 0, "{books:?}"),
        }
        // Plays count alike under both.
        plays_expired.entry(horizon).or_insert_with(Vec::new).push(books.n("expired_plays"));
    }
    for (horizon, plays) in plays_expired {
        assert!(plays.len() == 2 && plays[0] == plays[1] && plays[0] >= 590, "{horizon}: {plays:?}");
    }
}

/// Two samples of a week of a shop's recommendations (see `fixtures/open_bandit`): every row is a
/// request of its own with one impression, and a play at the same time where it was clicked.
#[test]
fn a_shops_recommendations() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/open_bandit");
    let place = Place::new();
    // The plain contract for this mapping: no join is needed to say what it must come to.
    let (mut shown, mut played) = (BTreeMap::new(), BTreeMap::new());
    let (mut lines, mut clicks) = (String::new(), 0);
    for sample in ["random_all", "bts_all"] {
        let mut text = String::new();
        let packed = std::fs::File::open(folder.join(format!("{sample}.csv.gz"))).unwrap();
        flate2::read::MultiGzDecoder::new(packed).read_to_string(&mut text).unwrap();
        let mut rows = text.lines();
        let header: Vec<&str> = rows.next().unwrap().split(',').collect();
        let column = |name: &str| header.iter().position(|h| *h == name).unwrap();
        let (at, item) = (column("timestamp"), column("item_id"));
        let (position, click) = (column("position"), column("click"));
        for (number, row) in rows.enumerate() {
            let cells: Vec<&str> = row.split(',').collect();
            let time = format!("{}Z", cells[at].replace(' ', "T").replace("+00:00", ""));
            let time = time.parse::<jiff::Timestamp>().unwrap().as_millisecond();
            let (request, video) = (format!("{sample}-{number}"), format!("all-{}", cells[item]));
            let position: u32 = cells[position].parse().unwrap();
            let event = json!({"kind": "impression", "request_id": request, "video_id": video,
                "timestamp": time, "row": sample, "position": position});
            lines.push_str(&format!("{event}\n"));
            let key = (video.clone(), time.div_euclid(1_800_000));
            shown.entry(key.clone()).or_insert_with(BTreeSet::new).insert(request.clone());
            if cells[click] == "1" {
                clicks += 1;
                let play =
                    json!({"kind": "play", "request_id": request, "video_id": video, "timestamp": time});
                lines.push_str(&format!("{play}\n"));
                played.entry(key).or_insert_with(BTreeSet::new).insert(request);
            }
        }
    }
    place.write("in/events.jsonl", &lines);

    // Left: every impression counts. Inner: only the clicked ones.
    let mut left = String::from("video_id,epoch,plays,impressions,exact\n");
    let mut inner = left.clone();
    for (key, requests) in &shown {
        let plays = played.get(key).map_or(0, BTreeSet::len);
        let (video, epoch) = key;
        left.push_str(&format!("{video},{epoch},{plays},{},true\n", requests.len()));
        if plays > 0 {
            inner.push_str(&format!("{video},{epoch},{plays},{plays},true\n"));
        }
    }
    for (kind, expected, counted) in [("left", &left, 20_080), ("inner", &inner, 160)] {
        for (method, workers) in [("state", "2"), ("window", "1"), ("batch-to-window", "4")] {
            let data = place.path(&format!("data-{kind}-{method}"));
            let (kind, method) = (format!("join.kind={kind}"), format!("join.method={method}"));
            // Two samples of the same week follow each other in one file: nothing is late.
            let args = ["--workers", workers, "--set", "join.lateness=off", "--set", &kind, "--set", &method];
            let books = common::books(&[&place.path("in")], &data, &args);
            assert_eq!(first_difference(&common::csv(&data), expected), None, "{kind} {method}");
            assert_eq!((books.n("read"), books.n("counted")), (20_080, counted), "{books:?}");
        }
    }
    // 38 and 42 clicks, as the origin says.
    assert_eq!(clicks, 80);
    let (_, plays, impressions) = sums(&left);
    assert_eq!((plays, impressions), (80, 20_000));
}
