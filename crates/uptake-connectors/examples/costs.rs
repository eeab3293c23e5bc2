//! What the connectors cost on this machine, in processor time:
//!
//! ```text
//! cargo run --release -p uptake-connectors --example costs [DIR]
//! ```
//!
//! With a directory, which should be empty, the files stay there to be looked at.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use std::sync::Arc;
use uptake_connectors::archive::{Archive, DirectoryArchive, TallyPart};
use uptake_connectors::input::{Block, EventFiles, InputOptions};
use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Record};
use uptake_connectors::table::{SqliteTable, Table};
use uptake_model::tally::{Counts, RequestSet, TallySets};
use uptake_model::{Epoch, EpochLength, TallyRow};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Processor seconds of this process so far, user and system (Linux).
fn processor_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|t| t.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}

fn measure<T>(what: &str, f: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let (start, processor) = (Instant::now(), processor_s());
    let result = f()?;
    println!(
        "{what:<48} {:6.3} s wall {:6.2} s processor",
        start.elapsed().as_secs_f64(),
        processor_s() - processor
    );
    Ok(result)
}

fn row(i: u64, epoch: i64, plays: u64, sets: Option<Arc<TallySets>>) -> TallyRow {
    TallyRow {
        // In no order, as they come out of a hash table.
        video_id: format!("video-{:08x}", (i as u32).wrapping_mul(2_654_435_761)).into(),
        segment: "".into(),
        epoch: Epoch(epoch),
        counts: Counts { plays, impressions: plays * 10, exact: true },
        sealed: sets.is_some(),
        sets,
    }
}

fn main() -> Outcome<()> {
    let temporary = tempfile::tempdir()?;
    let named = std::env::args_os().nth(1).map(PathBuf::from);
    let directory = named.as_deref().unwrap_or(temporary.path());
    fs::create_dir_all(directory)?;
    table(directory)?;
    input(directory)?;
    archive(directory)?;
    log(directory)
}

fn table(directory: &Path) -> Outcome<()> {
    let mut table = SqliteTable::open(directory)?;
    let rows = |plays| (0..60_000).map(|i| row(i, (i % 48) as i64, plays, None)).collect::<Vec<_>>();
    let (first, larger) = (rows(1), rows(2));
    measure("table: 60,000 new rows", || Ok(table.write(&first)?))?;
    measure("table: 60,000 larger rows", || Ok(table.write(&larger)?))?;
    measure("table: 60,000 smaller rows", || Ok(table.write(&first)?))?;
    measure("table: top 20 of the latest epoch", || Ok(table.top("", None, 20)?))?;
    let mut n = 0u64;
    measure("table: scan of 60,000 rows", || {
        Ok(table.scan("", &mut |row| {
            n += row.counts.plays;
            Ok(())
        })?)
    })
}

fn input(directory: &Path) -> Outcome<()> {
    let mut text = String::with_capacity(501_000_000);
    for i in 0u64.. {
        if text.len() >= 500_000_000 {
            break;
        }
        let request = (i / 6).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (video, time, position) = (i * i % 7_919, 1_768_435_200_123 + i, i % 6);
        let rest = format!(
            r#""timestamp":{time},"position":{position},"dimensions":{{"country":"BR","device":"tv"}}}}"#
        );
        let kind = if i % 6 == 5 { "play" } else { "impression" };
        writeln!(text, r#"{{"kind":"{kind}","request_id":"{request:016x}","video_id":"v{video}",{rest}"#)?;
    }
    let path = directory.join("events.jsonl");
    fs::write(&path, &text)?;
    fs::write(directory.join("events.jsonl.zst"), zstd::encode_all(text.as_bytes(), 1)?)?;
    drop(text);
    for name in ["events.jsonl", "events.jsonl.zst"] {
        for (limit, max_lines) in [("whole blocks", usize::MAX), ("500 lines a block", 500)] {
            measure(&format!("input: 500 MB of {name}, {limit}"), || {
                let mut files = EventFiles::open(&[directory.join(name)], InputOptions::default())?;
                let (mut block, mut lines) = (Block::default(), 0);
                while files.next_block(max_lines, &mut block)? {
                    lines += block.lines;
                }
                Ok(lines)
            })?;
        }
    }
    fs::remove_file(path)?;
    Ok(())
}

fn archive(directory: &Path) -> Outcome<()> {
    let part = TallyPart { epoch: Epoch(982_464), length: EpochLength::default(), shard: 0, shards: 1 };
    let ids = |n: u64| RequestSet::Exact((0..n).map(|i| i << 32).collect());
    let mut rows: Vec<_> = (0..60_000)
        .map(|i| row(i, 982_464, i, Some(Arc::new(TallySets { played: ids(i % 20), shown: ids(i % 200) }))))
        .collect();
    let mut archive = DirectoryArchive::open(directory);
    measure("archive: 60,000 rows with 6.5 million ids", || Ok(archive.put_tallies(&part, &mut rows)?))?;
    measure("archive: the same again", || Ok(archive.put_tallies(&part, &mut rows)?))?;
    measure("archive: read them", || Ok(archive.read_tallies(&part)?))?;
    Ok(())
}

/// Reads a topic as a consumer does, and says how fast.
fn visit(log: &dyn Log, topic: &str) -> Outcome<()> {
    let (end, mut bytes, start) = (log.end_offset(topic, 0)?, 0usize, Instant::now());
    measure(&format!("log: visit {end} records, 256 KiB at a time"), || {
        let mut next = 0;
        while next < end {
            next = log.read_each(topic, 0, next, usize::MAX, 256 << 10, &mut |record| {
                bytes += record.key.len() + record.value.len();
            })?;
        }
        Ok(())
    })?;
    println!("{:<48} {:6.2} GB/s", "", bytes as f64 / start.elapsed().as_secs_f64() / 1e9);
    let block = vec![7; 200 << 10];
    measure("log: checksums of as many bytes in a core's cache", || {
        let sum = |sum, _| crc32c::crc32c_append(sum, &block);
        Ok((0..bytes / block.len()).fold(0, sum))
    })?;
    Ok(())
}

fn log(directory: &Path) -> Outcome<()> {
    let (log, _) = EmbeddedLog::open(directory, LogOptions::default())?;
    log.create_topic("t", 1)?;
    let batch: Vec<_> = (0..1_000).map(|i| Record::new(format!("r{i}"), vec![b'v'; 190])).collect();
    measure("log: 1,000 appends of 1,000 records, 200 MB", || {
        for i in 0..1_000 {
            log.append("t", 0, &batch, i)?;
        }
        Ok(())
    })?;
    measure("log: read them in steps of 5,000", || {
        let mut next = 0;
        while next < 1_000_000 {
            next += log.read("t", 0, next, 5_000, usize::MAX)?.len() as u64;
        }
        Ok(())
    })?;
    visit(&log, "t")?;
    // One record an append, as of a collector that does not wait.
    log.create_topic("small", 1)?;
    measure("log: 200,000 appends of a record of 200 bytes", || {
        for record in batch.iter().cycle().take(200_000) {
            log.append("small", 0, std::slice::from_ref(record), 0)?;
        }
        Ok(())
    })?;
    visit(&log, "small")?;
    measure("log: 1,000,000 times where the end is", || {
        for _ in 0..1_000_000 {
            log.end_offset("t", 0)?;
        }
        Ok(())
    })?;
    let other = EmbeddedLog::open(directory, LogOptions::default())?.0;
    measure("log: 20,000 appends, each seen by another", || {
        for i in 0..20_000 {
            log.append("small", 0, &batch[..1], 0)?;
            assert_eq!(other.end_offset("small", 0)?, 200_001 + i);
        }
        Ok(())
    })?;
    drop(log);
    measure("log: open it again", || Ok(EmbeddedLog::open(directory, LogOptions::default())?))?;
    Ok(())
}
