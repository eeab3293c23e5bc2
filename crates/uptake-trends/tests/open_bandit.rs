//! The off-policy estimates on real impressions with true propensities, against the Open Bandit
//! Pipeline's; `tests/fixtures/obp_estimators.py` makes its figures.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use serde_json::Value;
use uptake_trends::catalogue::csv_records;
use uptake_trends::eval::offpolicy::{Sample, evaluate};

const ITEMS: usize = 80;

fn policy(name: &str, item: usize, position: usize) -> f64 {
    let weight = |item: usize| 1.0 / (item + 1 + position) as f64;
    match name {
        "smooth" => weight(item) / (0..ITEMS).map(weight).sum::<f64>(),
        _ => f64::from(u8::from(item == (3 * position + 7) % ITEMS)),
    }
}

fn samples(log: &str, name: &str) -> Vec<Sample> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/open_bandit");
    let file = std::fs::File::open(folder.join(format!("{log}.csv.gz"))).unwrap();
    let mut text = String::new();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let mut records = csv_records(&text).into_iter();
    let header = records.next().unwrap();
    let at = |column: &str| header.iter().position(|c| c == column).unwrap();
    let (item, position, click, score) = (at("item_id"), at("position"), at("click"), at("propensity_score"));
    let rows: Vec<(usize, usize, f64, f64)> = records
        .map(|r| {
            let position = r[position].parse::<usize>().unwrap() - 1;
            (r[item].parse().unwrap(), position, r[click].parse().unwrap(), r[score].parse().unwrap())
        })
        .collect();
    assert_eq!(rows.len(), 10_000);
    let mut model = [(1.0, 100.0); ITEMS];
    for (item, _, click, _) in &rows {
        model[*item].0 += click;
        model[*item].1 += 1.0;
    }
    let predicted = |item: usize| model[item].0 / model[item].1;
    rows.into_iter()
        .map(|(item, position, reward, behaviour)| Sample {
            reward,
            behaviour,
            target: policy(name, item, position),
            predicted: predicted(item),
            predicted_target: (0..ITEMS).map(|item| policy(name, item, position) * predicted(item)).sum(),
        })
        .collect()
}

#[test]
fn the_open_bandit_pipeline_says_the_same() {
    let figures: Value = serde_json::from_str(include_str!("fixtures/obp_estimators.json")).unwrap();
    assert_eq!(figures.as_object().unwrap().len(), 4);
    for (key, theirs) in figures.as_object().unwrap() {
        let (log, name) = key.split_once(' ').unwrap();
        let samples = samples(log, name);
        let report = evaluate(&samples, f64::INFINITY, 0.95).unwrap();
        let check = |what: &str, ours: f64| {
            let theirs = theirs[what].as_f64().unwrap();
            assert!((ours - theirs).abs() < 1e-9, "{key} {what}: {ours} is not {theirs}");
        };
        check("ips", report.ips.unwrap().value);
        check("snips", report.snips.unwrap().value);
        check("dm", report.dm.value);
        check("dr", report.dr.unwrap().value);
        if name == "fixed" {
            check("replay", report.replay.unwrap().value);
        }
    }
}

/// 38 clicks of 10,000: no method may claim to know more than that.
#[test]
fn few_clicks_make_wide_intervals() {
    let report = evaluate(&samples("random_all", "smooth"), f64::INFINITY, 0.95).unwrap();
    for value in [report.ips, report.snips, report.dr].map(Option::unwrap) {
        assert!(value.low < report.logged.value && report.logged.value < value.high, "{value:?}");
        assert!(value.high - value.low > 0.2 * value.value);
    }
    assert!(report.effective < 6_000.0, "{}", report.effective);
}
