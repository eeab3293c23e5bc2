//! Position factors on a real search log, fitted on its earlier days and judged on the later ones.
//!
//! The log's licence keeps it out of this repository: where it does not lie beside the checkout, this
//! is skipped, and says so.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use uptake_trends::catalogue::csv_records;
use uptake_trends::position::{Positions, worth};
use uptake_trends::rate::{Evidence, Prior};

/// An item shown at a position (from 0) of a query's page, and whether it was clicked.
struct Shown {
    title: u32,
    position: u32,
    is_clicked: bool,
}

fn folder() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().map(|up| up.join("shared/data/clara2")).find(|path| path.is_dir());
    if found.is_none() {
        let line = "!".repeat(78);
        eprintln!(
            "\n{line}\n!! SKIPPED: position factors on a real log\n!! no shared/data/clara2 beside this checkout\n{line}"
        );
    }
    found
}

fn table(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let mut records = csv_records(&text).into_iter();
    let header = records.next().unwrap();
    records.map(|record| header.iter().cloned().zip(record).collect()).collect()
}

/// All that was shown, in the order of time. A title is an item under a query: what an item is worth
/// depends on what was asked.
fn read(folder: &Path) -> Vec<Shown> {
    let clicks: BTreeSet<(String, String)> = table(&folder.join("clicks.csv.gz"))
        .into_iter()
        .map(|click| (click["request_id"].clone(), click["item_id"].clone()))
        .collect();
    let mut titles: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut all = Vec::new();
    for request in table(&folder.join("requests.csv.gz")) {
        let mut seen = BTreeSet::new();
        for (position, item) in request["items"].split(' ').enumerate() {
            // A few pages list an item twice: its first place is the one that counts.
            if !seen.insert(item) {
                continue;
            }
            let next = titles.len() as u32;
            let title = *titles.entry((request["query_id"].clone(), item.to_owned())).or_insert(next);
            let is_clicked = clicks.contains(&(request["request_id"].clone(), item.to_owned()));
            all.push(Shown { title, position: position as u32, is_clicked });
        }
    }
    all
}

/// The mean ln of the probability that each later impression's outcome was given. `factor` says how
/// much an impression at a position is worth; the prior is the mean of all titles, weighing `weight`.
fn log_score(earlier: &[Shown], later: &[Shown], factor: &dyn Fn(u32) -> f64, weight: f64) -> f64 {
    let mut evidence: BTreeMap<u32, Evidence> = BTreeMap::new();
    let mut whole = Evidence::default();
    for shown in earlier {
        let (plays, exposure) = (f64::from(u8::from(shown.is_clicked)), factor(shown.position));
        evidence.entry(shown.title).or_default().tick(1.0, plays, exposure);
        whole.tick(1.0, plays, exposure);
    }
    let prior = Prior { mean: whole.plays / whole.shown, weight };
    let of = |shown: &Shown| {
        let rate = prior.with(evidence.get(&shown.title).copied().unwrap_or_default()).rate;
        let chance = (rate * factor(shown.position)).clamp(1e-9, 1.0 - 1e-9);
        if shown.is_clicked { chance.ln() } else { (1.0 - chance).ln() }
    };
    later.iter().map(of).sum::<f64>() / later.len() as f64
}

#[test]
fn factors_fall_as_people_look_down_a_page_and_predict_later_days_better() {
    let Some(folder) = folder() else { return };
    let all = read(&folder);
    assert!(all.len() > 250_000, "{}", all.len());
    let (earlier, later) = all.split_at(all.len() * 7 / 10);
    let mut positions = Positions::default();
    for shown in earlier {
        positions.add(shown.title, shown.position, 1.0, f64::from(u8::from(shown.is_clicked)));
    }
    let factors = positions.fit(0);
    let mut raw = [(0.0, 0.0); 10];
    for shown in earlier {
        raw[shown.position as usize].0 += f64::from(u8::from(shown.is_clicked));
        raw[shown.position as usize].1 += 1.0;
    }
    for (position, factor) in &factors {
        let (clicked, shown) = raw[*position as usize];
        println!(
            "position {:>2}: clicks {:.4} of the impressions ({:.3} of the first), factor {:.3} ± {:.3}{}",
            position + 1,
            clicked / shown,
            clicked / shown / (raw[0].0 / raw[0].1),
            factor.factor,
            factor.error,
            if factor.identified { "" } else { ", not identified" }
        );
    }
    let identified: Vec<f64> = factors.values().filter(|of| of.identified).map(|of| of.factor).collect();
    assert!(identified.len() >= 4, "{factors:?}");
    assert_eq!(identified[0], 1.0);
    for (above, below) in factors.values().zip(factors.values().skip(1)).take(identified.len() - 1) {
        let doubt = 2.0 * (above.error.powi(2) + below.error.powi(2)).sqrt();
        assert!(below.factor < above.factor + doubt, "it does not fall: {factors:?}");
    }
    assert!(identified.last() < Some(&0.6), "{factors:?}");

    let factor = |position: u32| worth(&factors, position);
    for weight in [1.0, 2.0, 5.0, 10.0, 20.0, 50.0] {
        let (plain, corrected) =
            (log_score(earlier, later, &|_| 1.0, weight), log_score(earlier, later, &factor, weight));
        println!(
            "weight of the prior {weight:>2}: ln score {plain:.5} uncorrected, {corrected:.5} corrected"
        );
        assert!(corrected > plain + 0.003, "{corrected} {plain}");
    }
}
