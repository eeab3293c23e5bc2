//! Real bursts: hourly page views, and mentions every five minutes. And what 100,000 titles cost.
//!
//!     cargo run --release -p uptake-trends --example real -- DATA   (the folder with the data sets)
//!     cargo run --release -p uptake-trends --example real -- scale

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use flate2::read::GzDecoder;
use uptake_model::tally::Counts;
use uptake_model::{Epoch, EpochLength, EventTime, TallyRow};
use uptake_trends::catalogue::csv_records;
use uptake_trends::eval::nab;
use uptake_trends::explore::Random;
use uptake_trends::{Exposure, Options, Trends};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let argument = std::env::args().nth(1).ok_or("which folder, or scale?")?;
    if argument == "scale" {
        scale();
        return Ok(());
    }
    let folder = Path::new(&argument);
    for (name, show) in [("wiki_hourly_top1000", wiki as fn(&Path) -> Result<()>), ("tweet_volume", tweets)] {
        match folder.join(name).is_dir() {
            true => show(&folder.join(name))?,
            false => println!("*** SKIPPED: no {name} in {}", folder.display()),
        }
    }
    Ok(())
}

fn table(path: &Path) -> Result<Vec<Vec<String>>> {
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path)?).read_to_string(&mut text)?;
    Ok(csv_records(&text).into_iter().skip(1).collect())
}

fn ms(text: &str) -> Result<i64> {
    let text = text.trim_end_matches('Z').replace(' ', "T") + "Z";
    Ok(text.parse::<jiff::Timestamp>()?.as_millisecond())
}

fn row(video: &Arc<str>, epoch: i64, plays: u64) -> TallyRow {
    let counts = Counts { plays, impressions: 0, exact: true };
    TallyRow {
        video_id: video.clone(),
        segment: "".into(),
        epoch: Epoch(epoch),
        counts,
        sealed: false,
        sets: None,
    }
}

/// Views are plays, an epoch is an hour. A page that left the first 1,000 has the views of the last one
/// in it until a week later: it is absent, not zero.
fn wiki(folder: &Path) -> Result<()> {
    let length = EpochLength::from_ms(3_600_000).ok_or("an hour")?;
    let mut hours: BTreeMap<i64, BTreeMap<Arc<str>, u64>> = BTreeMap::new();
    let mut names: HashMap<String, Arc<str>> = HashMap::new();
    for file in ["top_2012-02-14", "top_2012-02-21", "top_2012-02-28", "top_2012-03-06"] {
        for record in table(&folder.join(format!("{file}.csv.gz")))? {
            let name = names.entry(record[2].clone()).or_insert_with(|| record[2].as_str().into()).clone();
            let epoch = ms(&record[0])? / 3_600_000 - 1;
            *hours.entry(epoch).or_default().entry(name).or_default() += record[3].parse::<u64>()?;
        }
    }
    let options = Options {
        epoch_length: length,
        exposure: Exposure::Epochs,
        open_epochs: 8,
        lift_min: 2.0,
        evenness: 4.0,
        ..Options::default()
    };
    let mut trends = Trends::new(options);
    let mut seen: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    let mut flagged: BTreeMap<Arc<str>, Vec<i64>> = BTreeMap::new();
    let mut suspicious: BTreeMap<Arc<str>, i64> = BTreeMap::new();
    let first = *hours.keys().next().ok_or("no hours")?;
    let began = Instant::now();
    for (epoch, pages) in &hours {
        let least = pages.values().min().copied().unwrap_or(0);
        pages.keys().for_each(|page| _ = seen.insert(page.clone(), *epoch));
        seen.retain(|_, last| epoch - *last < 168);
        for page in seen.keys() {
            trends.ingest(&row(page, *epoch, pages.get(page).copied().unwrap_or(least)));
        }
        trends.refresh(length.end(Epoch(*epoch)));
        for numbers in trends.rising("") {
            match numbers.suspicion {
                Some(_) => _ = suspicious.entry(numbers.video).or_insert(*epoch),
                None => flagged.entry(numbers.video).or_default().push(*epoch),
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let (mut bursts, mut hit, mut delays) = (0, 0, Vec::new());
    let (mut quiet, mut quiet_flagged) = (0, 0);
    let mut labelled = BTreeSet::new();
    for record in table(&folder.join("labelled_bursts.csv.gz"))? {
        let (page, kind) = (&record[0], &record[1]);
        labelled.insert(page.clone());
        let (from, to) = (ms(&record[4])? / 3_600_000 - 1, ms(&record[5])? / 3_600_000 - 1);
        let of = flagged.get(&**page).cloned().unwrap_or_default();
        if kind == "suspected_bot" || kind == "constant_noise" {
            quiet += 1;
            quiet_flagged += usize::from(!of.is_empty());
            println!(
                "  {kind}: {page}: flagged in {} hours, suspicious: {}",
                of.len(),
                suspicious.contains_key(&**page)
            );
            continue;
        }
        if from - first < 24 {
            println!("  not counted, within the first day: {page}");
            continue;
        }
        bursts += 1;
        match of.iter().find(|epoch| (from - 24..=to).contains(*epoch)) {
            Some(epoch) => {
                hit += 1;
                delays.push(epoch - from);
            }
            None => println!("  missed: {page} ({kind})"),
        }
    }
    delays.sort_unstable();
    let weeks = hours.len() as f64 / 168.0;
    println!(
        "wiki: {hit} of {bursts} labelled bursts flagged; hours from half the peak to the flag: median {:?}, all {delays:?}",
        delays.get(delays.len() / 2)
    );
    println!("wiki: {quiet_flagged} of {quiet} robots and noise pages flagged at some time");
    // Of the catalogue's pages: how often a flag begins, and where nothing much happened.
    let titles: BTreeSet<String> =
        table(&folder.join("title_pages.csv.gz"))?.into_iter().map(|r| r[0].clone()).collect();
    let (mut runs, mut none, mut title_runs) = (0, 0, 0);
    for (page, epochs) in &flagged {
        let mut last = i64::MIN;
        for epoch in epochs {
            if *epoch > last.saturating_add(3) && epoch - first >= 24 {
                runs += 1;
                title_runs += usize::from(titles.contains(&**page));
                let views = |e: i64| hours.get(&e).and_then(|pages| pages.get(page)).copied().unwrap_or(0);
                let mut past: Vec<u64> = (epoch - 168..epoch - 3).map(views).filter(|v| *v > 0).collect();
                past.sort_unstable();
                let usual = past.get(past.len() / 2).copied().unwrap_or(0);
                none += usize::from(views(*epoch) < 2 * usual);
            }
            last = *epoch;
        }
    }
    println!(
        "wiki: {runs} rises of {} pages in {weeks:.1} weeks, {title_runs} of them of titles; {none} below twice the page's median of the week before ({:.5} per page-week); {seconds:.1} s",
        names.len(),
        f64::from(none as u32) / (names.len() as f64 * weeks)
    );
    Ok(())
}

/// Mentions are plays, an epoch is five minutes.
fn tweets(folder: &Path) -> Result<()> {
    let length = EpochLength::from_ms(300_000).ok_or("five minutes")?;
    let mut by_item: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    for record in table(&folder.join("mentions_5min.csv.gz"))? {
        by_item.entry(record[0].clone()).or_default().push((ms(&record[1])?, record[2].parse()?));
    }
    let windows: Vec<(String, i64, i64)> = table(&folder.join("burst_windows.csv.gz"))?
        .iter()
        .map(|r| Ok((r[0].clone(), ms(&r[1])?, ms(&r[2])?)))
        .collect::<Result<_>>()?;
    let (mut hit, mut all, mut outside, mut days) = (0, 0, 0, 0.0);
    let mut scored = Vec::new();
    for (item, series) in &by_item {
        let options = Options {
            epoch_length: length,
            exposure: Exposure::Epochs,
            open_epochs: 2,
            lift_min: 2.0,
            evenness: 2.0,
            ..Options::default()
        };
        let mut trends = Trends::new(options);
        let (name, mut alarms, mut was): (Arc<str>, Vec<i64>, bool) =
            (item.as_str().into(), Vec::new(), false);
        let row_of = |time: i64| series.partition_point(|(at, _)| *at < time);
        let mut of_item = nab::Series {
            scores: vec![0.0; series.len()],
            windows: windows
                .iter()
                .filter(|window| window.0 == *item)
                .map(|(_, from, until)| (row_of(*from), row_of(*until + 1).saturating_sub(1)))
                .collect(),
        };
        let learnt = series[of_item.learning()].0;
        for (n, (time, mentions)) in series.iter().enumerate() {
            let epoch = length.epoch(EventTime(*time));
            trends.ingest(&row(&name, epoch.0, *mentions));
            trends.refresh(length.end(epoch));
            let rising = trends.rising("").pop();
            // The first rows are for learning, as the benchmark has it.
            if let Some(numbers) = rising.as_ref().filter(|_| !was && *time >= learnt) {
                alarms.push(*time);
                of_item.scores[n] = numbers.ln_evidence;
            }
            let rising = rising.is_some();
            was = rising;
        }
        let of: Vec<_> = windows.iter().filter(|w| w.0 == *item && w.2 >= learnt).collect();
        let inside = |w: &&&(String, i64, i64)| alarms.iter().any(|t| (w.1..=w.2).contains(t));
        let (h, o) = (
            of.iter().filter(inside).count(),
            alarms.iter().filter(|t| !of.iter().any(|w| (w.1..=w.2).contains(*t))).count(),
        );
        println!("  {item}: {h} of {} windows, {o} alarms outside", of.len());
        (hit, all, outside) = (hit + h, all + of.len(), outside + o);
        days += (series.len() - of_item.learning()) as f64 / 288.0;
        scored.push(of_item);
    }
    let (best, threshold) = nab::best(&scored);
    println!(
        "tweets: the benchmark's score {:.1} where a rise is believed, {best:.1} at the threshold of the best ({threshold:.1})",
        nab::score(&scored, f64::MIN_POSITIVE)
    );
    println!("tweets: {hit} of {all} windows hit, {outside} alarms outside in {days:.0} series-days");
    Ok(())
}

/// 100,000 titles × 50 segments; of a segment the most shown titles have tallies, as in life.
fn scale() {
    let mut random = Random::new(1);
    let names: Vec<Arc<str>> = (0..100_000).map(|i| Arc::from(format!("title-{i:06}"))).collect();
    let segments: Vec<Arc<str>> =
        (0..50).map(|s| if s == 0 { "".into() } else { format!("country={s:02}").into() }).collect();
    let mut trends = Trends::new(Options::default());
    let rss = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line =
            status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("VmRSS unknown").to_owned();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    let before = rss();
    let send = |trends: &mut Trends, epoch: i64, n: usize, random: &mut Random| {
        for i in 0..n {
            let video = &names[i % names.len()];
            let segment = &segments[i / names.len()];
            let shown = 1 + (random.unit() * 50.0) as u64;
            let counts = Counts { plays: shown / 12, impressions: shown, exact: true };
            trends.ingest(&TallyRow {
                video_id: video.clone(),
                segment: segment.clone(),
                epoch: Epoch(epoch),
                counts,
                sealed: false,
                sets: None,
            });
        }
    };
    let length = EpochLength::default();
    let began = Instant::now();
    send(&mut trends, 1000, 5_000_000, &mut random);
    trends.refresh(length.end(Epoch(1000)));
    println!("5,000,000 tallies at once: {:.1} s, {:.0} MiB", began.elapsed().as_secs_f64(), rss() - before);
    for n in [1_000, 10_000, 100_000] {
        let began = Instant::now();
        trends.refresh(length.end(Epoch(1001)));
        let rolled = began.elapsed().as_secs_f64() * 1e3;
        let began = Instant::now();
        send(&mut trends, 1001, n, &mut random);
        trends.refresh(length.end(Epoch(1001)));
        println!(
            "a tick with {n} changed: {:.1} ms (and {rolled:.1} ms if an epoch begins)",
            began.elapsed().as_secs_f64() * 1e3
        );
    }
    let began = Instant::now();
    let row = uptake_trends::rows::candidates(&trends, uptake_trends::RowName::Loved, "");
    println!("ranking one segment of {} titles: {:.1} ms", row.len(), began.elapsed().as_secs_f64() * 1e3);
}
