//! The edges, each alone and beside a *floor*: the least that any program would have to do with the same
//! driver or library for the same.
//!
//! `cargo run --release -p uptake-connectors --example edges -- [PART...] [--events N] [--passes N] [--json]`
//!
//! `kafka-source` and `cassandra-table` need the servers and the variables of `cargo xtask services up`;
//! `cargo xtask bench --only edges` starts them itself.

#[path = "../../uptake-flow/examples/parts/passes.rs"]
mod passes;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt, stream};
use passes::{Asked, Work, random};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use rusqlite::{Connection, params};
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::Consistency;
use uptake_connectors::archive::{Archive, DirectoryArchive, TallyPart};
use uptake_connectors::log::{KafkaLog, KafkaOptions, Log, Record};
use uptake_connectors::table::{self, SqliteTable, Table};
use uptake_connectors::{Backend, Options};
use uptake_model::tally::{Counts, RequestSet, TallySets};
use uptake_model::{Epoch, EpochLength, TallyRow};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Partitions of the topic that is read.
const PARTITIONS: u32 = 4;
/// Records of one append, and bytes of one read, as the pipeline has them.
const APPEND: usize = 2_000;
const READ_BYTES: usize = 256 << 10;
/// Requests on their way to Cassandra at once, as the table's options have it.
const CONCURRENCY: usize = 256;
/// Rows of a write to the table: what a tick brings.
const WRITE: usize = 10_000;

/// Sealed rows of epochs of ten thousand videos, in no order, with as many requests as the reference workload's
/// have: six in the mean.
fn rows(count: usize) -> Vec<TallyRow> {
    let ids = |seed: u64, n: u64| {
        let mut ids: Vec<u64> = (0..n).map(|i| random(seed ^ i << 48)).collect();
        ids.sort_unstable();
        RequestSet::Exact(ids)
    };
    let row = |n: u64| {
        let (plays, impressions) = (random(n) % 2, random(n) % 11);
        TallyRow {
            video_id: format!("v{}", n.wrapping_mul(7_919) % 10_000).into(),
            segment: "".into(),
            epoch: Epoch(982_464 + (n / 10_000) as i64),
            counts: Counts { plays, impressions, exact: true },
            sealed: true,
            sets: Some(Arc::new(TallySets { played: ids(n, plays), shown: ids(n, impressions) })),
        }
    };
    (0..count as u64).map(row).collect()
}

fn exact(set: &RequestSet) -> &[u64] {
    match set {
        RequestSet::Exact(ids) => ids,
        RequestSet::Sketch(_) => &[],
    }
}

fn bytes(set: &RequestSet) -> Vec<u8> {
    exact(set).iter().flat_map(|id| id.to_le_bytes()).collect()
}

fn sets(row: &TallyRow) -> (Vec<u8>, Vec<u8>) {
    row.sets.as_ref().map(|sets| (bytes(&sets.played), bytes(&sets.shown))).unwrap_or_default()
}

/// What fails says so and ends the program: there is nothing to measure then.
fn done<T>(what: &str, outcome: Outcome<T>) -> T {
    outcome.unwrap_or_else(|error| {
        eprintln!("{what}: {error}");
        std::process::exit(1)
    })
}

/// A folder of its own for each pass.
struct Folders(tempfile::TempDir, AtomicU64);

impl Folders {
    fn next(&self) -> PathBuf {
        self.0.path().join(self.1.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

/// Rows into the embedded table; the floor is the driver's own statement for each, without a rule for what is
/// there already.
fn table<'a>(rows: &'a [TallyRow], folders: &'a Folders) -> (Work<'a>, Work<'a>) {
    let ours = move || -> Outcome<u64> {
        let folder = folders.next();
        let mut table = SqliteTable::open(&folder)?;
        rows.chunks(WRITE).try_for_each(|rows| table.write(rows))?;
        drop(table);
        fs::remove_dir_all(folder)?;
        Ok(rows.len() as u64)
    };
    let floor = move || -> Outcome<u64> {
        let folder = folders.next();
        fs::create_dir_all(&folder)?;
        let mut db = Connection::open(folder.join("floor.sqlite"))?;
        db.execute_batch(
            "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             CREATE TABLE tallies (segment TEXT, epoch INTEGER, video_id TEXT, plays INTEGER, impressions INTEGER,
                 exact INTEGER, sealed INTEGER, played BLOB, shown BLOB, PRIMARY KEY (segment, epoch, video_id))
                 WITHOUT ROWID",
        )?;
        for rows in rows.chunks(WRITE) {
            let transaction = db.transaction()?;
            let mut insert =
                transaction.prepare("INSERT INTO tallies VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
            for row in rows {
                let (played, shown) = sets(row);
                let counts = row.counts;
                let numbers = (counts.plays as i64, counts.impressions as i64);
                insert.execute(params![
                    &*row.segment,
                    row.epoch.0,
                    &*row.video_id,
                    numbers.0,
                    numbers.1,
                    counts.exact,
                    row.sealed,
                    played,
                    shown
                ])?;
            }
            drop(insert);
            transaction.commit()?;
        }
        drop(db);
        fs::remove_dir_all(folder)?;
        Ok(rows.len() as u64)
    };
    (Box::new(move || done("table", ours())), Box::new(move || done("table's floor", floor())))
}

/// Rows into Parquet, flushed to the device; the floor is the same ids and names in a file, flushed.
fn archive<'a>(rows: &'a [TallyRow], folders: &'a Folders) -> (Work<'a>, Work<'a>) {
    let part = TallyPart { epoch: Epoch(982_464), length: EpochLength::default(), shard: 0, shards: 1 };
    let mut to_write: Vec<TallyRow> = rows.to_vec();
    // One part is of one epoch.
    for (n, row) in (0..).zip(&mut to_write) {
        (row.epoch, row.video_id) = (part.epoch, format!("v{:016x}", random(n)).into());
    }
    let to_put = to_write.clone();
    let ours = move || -> Outcome<u64> {
        let folder = folders.next();
        // In no order, as the pipeline hands them over.
        DirectoryArchive::open(&folder).put_tallies(&part, &mut to_put.clone())?;
        fs::remove_dir_all(folder)?;
        Ok(to_put.len() as u64)
    };
    let floor = move || -> Outcome<u64> {
        let folder = folders.next();
        fs::create_dir_all(&folder)?;
        let mut all = Vec::new();
        for row in &to_write {
            all.extend_from_slice(row.video_id.as_bytes());
            let (played, shown) = sets(row);
            all.extend_from_slice(&played);
            all.extend_from_slice(&shown);
        }
        let mut file = File::create_new(folder.join("floor"))?;
        file.write_all(&all)?;
        file.sync_all()?;
        fs::remove_dir_all(folder)?;
        Ok(to_write.len() as u64)
    };
    (Box::new(move || done("archive", ours())), Box::new(move || done("archive's floor", floor())))
}

fn variable(name: &str) -> Outcome<String> {
    std::env::var(name).map_err(|_| {
        format!("{name} is not set: run `cargo xtask services up` and set what it prints").into()
    })
}

fn own_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("edges{}", since.as_millis())
}

/// Records from a topic of four partitions; the floor is the driver's own consumer, a new one each time, whose
/// records are looked at and let go of.
fn kafka(count: usize) -> Outcome<(Work<'static>, Work<'static>)> {
    let servers = variable("UPTAKE_TEST_KAFKA")?;
    let name = own_name();
    let options =
        KafkaOptions { topic_prefix: format!("{name}-"), group: name.clone(), ..KafkaOptions::default() };
    let log = KafkaLog::open(std::slice::from_ref(&servers), options)?;
    log.create_topic("impressions", PARTITIONS)?;
    let record = |n: usize| {
        let (id, video) = (random(n as u64 / 18), random(n as u64) % 10_000);
        let time = 1_768_435_200_000 + n / 10;
        Record::new(
            format!("{id:016x}"),
            format!(
                "{{\"kind\":\"impression\",\"request_id\":\"{id:016x}\",\"video_id\":\"v{video}\",\"member_id\":\"m{}\",\
                 \"timestamp\":{time},\"country\":\"BR\",\"device\":\"tv\",\"row\":\"trending\",\"position\":{}}}",
                id % 200_000,
                n % 40
            ),
        )
    };
    for (n, first) in (0..count).step_by(APPEND).enumerate() {
        let records: Vec<Record> = (first..count.min(first + APPEND)).map(record).collect();
        log.append("impressions", n as u32 % PARTITIONS, &records, 0)?;
    }
    let ours = move || -> Outcome<u64> {
        let mut at = Vec::new();
        for partition in 0..PARTITIONS {
            at.push((log.start_offset("impressions", partition)?, log.end_offset("impressions", partition)?));
        }
        let (mut read, mut bytes) = (0usize, 0usize);
        while read < count {
            for (partition, (next, end)) in (0..).zip(&mut at) {
                if next < end {
                    *next = log.read_each(
                        "impressions",
                        partition,
                        *next,
                        usize::MAX,
                        READ_BYTES,
                        &mut |record| {
                            read += 1;
                            bytes += record.value.len();
                        },
                    )?;
                }
            }
        }
        Ok(bytes as u64)
    };
    let floor = move || -> Outcome<u64> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &servers).set("group.id", &name).set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(&format!("{name}-impressions"), partition as i32, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let (mut read, mut bytes) = (0usize, 0usize);
        while read < count {
            if let Some(message) = consumer.poll(Duration::from_secs(30)) {
                read += 1;
                bytes += message?.payload().map_or(0, <[u8]>::len);
            }
        }
        Ok(bytes as u64)
    };
    Ok((Box::new(move || done("kafka", ours())), Box::new(move || done("kafka's floor", floor()))))
}

/// Rows into Cassandra; the floor is one insert of the driver's for each row, as many on their way at once,
/// into one table.
fn cassandra(rows: &[TallyRow]) -> Outcome<(Work<'_>, Work<'_>)> {
    let (server, name) = (variable("UPTAKE_TEST_CASSANDRA")?, own_name());
    let (user, password) =
        (variable("UPTAKE_TEST_CASSANDRA_USER")?, variable("UPTAKE_TEST_CASSANDRA_PASSWORD")?);
    let backend: Backend = format!("cassandra://{server}/{name}").parse()?;
    let options: Options = [
        ("consistency", "ONE"),
        ("user", &user),
        ("password", &password),
        ("replication", "1"),
        ("create_schema", "true"),
    ]
    .into_iter()
    .collect();
    let mut table = table::open(&backend, &options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let session = SessionBuilder::new().known_node(&server).user(&user, &password);
    let session = runtime.block_on(session.build())?;
    let columns = "video_id text, segment text, epoch bigint, plays bigint, impressions bigint, exact boolean, \
                   sealed boolean, play_set blob, impression_set blob";
    let made = format!("CREATE TABLE {name}.floor ({columns}, PRIMARY KEY ((video_id, segment), epoch))");
    runtime.block_on(session.query_unpaged(made, ()))?;
    let insert = format!(
        "INSERT INTO {name}.floor (video_id, segment, epoch, plays, impressions, exact, sealed, play_set, impression_set) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    );
    let mut insert = runtime.block_on(session.prepare(insert))?;
    insert.set_consistency(Consistency::One);
    let mut ours = move || -> Outcome<u64> {
        rows.chunks(WRITE).try_for_each(|rows| table.write(rows))?;
        Ok(rows.len() as u64)
    };
    let floor = move || -> Outcome<u64> {
        let puts = rows.iter().map(|row| {
            let (played, shown) = sets(row);
            let counts = row.counts;
            let values = (
                &*row.video_id,
                &*row.segment,
                row.epoch.0,
                counts.plays as i64,
                counts.impressions as i64,
                counts.exact,
                row.sealed,
                played,
                shown,
            );
            session.execute_unpaged(&insert, values)
        });
        let all = stream::iter(puts).buffer_unordered(CONCURRENCY);
        runtime.block_on(all.try_for_each(|_| async { Ok(()) }))?;
        Ok(rows.len() as u64)
    };
    Ok((Box::new(move || done("cassandra", ours())), Box::new(move || done("cassandra's floor", floor()))))
}

const PARTS: [&str; 4] = ["table", "archive", "kafka-source", "cassandra-table"];

fn main() -> ExitCode {
    let run = || -> Outcome<()> {
        let asked = Asked::read(&PARTS, 100_000, 5)?;
        let rows = rows(asked.count);
        let folders = Folders(tempfile::tempdir()?, AtomicU64::new(0));
        for name in &asked.parts {
            match name.as_str() {
                "table" => asked.measure(name, "a row", table(&rows, &folders)),
                "archive" => asked.measure(name, "a row", archive(&rows, &folders)),
                "kafka-source" => asked.measure(name, "a record", kafka(asked.count)?),
                _ => asked.measure(name, "a row", cassandra(&rows)?),
            }
        }
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::from(2)
        }
    }
}
