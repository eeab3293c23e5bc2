//! The log in Kafka against a real broker: what every log must do, and what only Kafka does.
//!
//! `UPTAKE_TEST_KAFKA` names the broker, `UPTAKE_TEST_SERVICES` the folder whose
//! `kafka/pid` says which process it is and whose `kafka/start` starts it again; `cargo xtask services up` prints both.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod families;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use uptake_connectors::log::{self, KafkaLog, KafkaOptions, Log, LogOptions, Notices, Record};
use uptake_connectors::{Backend, FailureKind, LogError};

/// Tests that kill the broker keep the others away meanwhile.
static BROKER: RwLock<()> = RwLock::new(());

fn broker() -> String {
    std::env::var("UPTAKE_TEST_KAFKA")
        .expect("UPTAKE_TEST_KAFKA names no broker: run `cargo xtask services up` and set what it prints")
}

/// Topics of its own for each log.
fn options() -> KafkaOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut options = KafkaOptions {
        topic_prefix: format!("t{since}-{number}-"),
        group: format!("g{since}-{number}"),
        notices: Notices::new(|line| eprintln!("{line}")),
        ..KafkaOptions::default()
    };
    options.topic.insert("retention.ms".into(), "-1".into());
    options
}

fn open(options: &KafkaOptions) -> KafkaLog {
    KafkaLog::open(&[broker()], options.clone()).unwrap()
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker());
    config
}

fn records(from: u64, n: u64) -> Vec<Record> {
    (from..from + n).map(|i| Record::new(format!("k{i}"), format!("value {i}"))).collect()
}

/// Kills the broker and starts it again.
fn restart() {
    let folder = std::env::var("UPTAKE_TEST_SERVICES")
        .expect("UPTAKE_TEST_SERVICES names no folder: run `cargo xtask services up` and set what it prints");
    let server = PathBuf::from(folder).join("kafka");
    let pid = std::fs::read_to_string(server.join("pid")).unwrap();
    assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    std::thread::sleep(Duration::from_millis(300));
    assert!(Command::new(server.join("start")).status().unwrap().success());
}

fn read_all(log: &dyn Log, topic: &str, partition: u32) -> Vec<u64> {
    let (mut next, end) =
        (log.start_offset(topic, partition).unwrap(), log.end_offset(topic, partition).unwrap());
    let (mut offsets, until) = (Vec::new(), Instant::now() + Duration::from_secs(30));
    while next < end {
        next =
            log.read_each(topic, partition, next, 1_000, 1 << 20, &mut |r| offsets.push(r.offset)).unwrap();
        assert!(Instant::now() < until, "stuck at {next} of {end}");
    }
    offsets
}

#[test]
fn kafka_log_conforms() {
    let _up = BROKER.read();
    families::log::log(|| {
        let options = options();
        (Box::new(open(&options)) as Box<dyn Log>, ())
    });
}

/// The markers of a transaction are written after its end was agreed on.
fn wait_for_end(log: &dyn Log, end: u64) {
    let until = Instant::now() + Duration::from_secs(10);
    while log.end_offset("t", 0).unwrap() < end && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(log.end_offset("t", 0).unwrap(), end);
}

#[test]
fn holes_of_transactions_are_passed_over() {
    let _up = BROKER.read();
    let options = options();
    let log = open(&options);
    log.create_topic("t", 1).unwrap();
    let name = format!("{}t", options.topic_prefix);
    let producer: BaseProducer =
        client().set("transactional.id", &name).set("transaction.timeout.ms", "20000").create().unwrap();
    let send = |n: usize| {
        for _ in 0..n {
            producer.send(BaseRecord::<str, str>::to(&name).partition(0).payload("x")).unwrap();
        }
        producer.flush(Duration::from_secs(10)).unwrap();
    };
    producer.init_transactions(Duration::from_secs(10)).unwrap();
    producer.begin_transaction().unwrap();
    send(5);
    producer.commit_transaction(Duration::from_secs(10)).unwrap();
    // The end lies behind the marker, and the read comes to it.
    wait_for_end(&log, 6);
    assert_eq!(log.read_each("t", 0, 5, 10, 1_000, &mut |_| panic!("nothing is there")).unwrap(), 6);
    producer.begin_transaction().unwrap();
    send(3);
    producer.abort_transaction(Duration::from_secs(10)).unwrap();
    producer.begin_transaction().unwrap();
    send(2);
    producer.commit_transaction(Duration::from_secs(10)).unwrap();
    wait_for_end(&log, 13);
    assert_eq!(read_all(&log, "t", 0), [0, 1, 2, 3, 4, 10, 11]);
    // What is not committed yet is not there: the end stays, so a reader does not wait for it.
    producer.begin_transaction().unwrap();
    send(4);
    assert_eq!(log.end_offset("t", 0).unwrap(), 13);
    assert_eq!(log.read_each("t", 0, 13, 10, 1_000, &mut |_| panic!("not committed")).unwrap(), 13);
    producer.abort_transaction(Duration::from_secs(10)).unwrap();
    wait_for_end(&log, 18);
    assert_eq!(log.read_each("t", 0, 13, 10, 1_000, &mut |_| panic!("aborted")).unwrap(), 18);
}

#[test]
fn retention_that_overtakes_a_reader_is_told() {
    let _up = BROKER.read();
    let options = options();
    let (log, other) = (open(&options), open(&options));
    log.create_topic("t", 1).unwrap();
    log.append("t", 0, &records(0, 100), 1).unwrap();
    assert_eq!(log.read("t", 0, 0, 10, usize::MAX).unwrap().len(), 10);
    assert_eq!(other.truncate_before("t", 0, 60).unwrap(), 60);
    // A new reader is told; one that had fetched more before it may still have it.
    let error = open(&options).read("t", 0, 10, 10, usize::MAX).unwrap_err();
    assert!(matches!(error, LogError::OffsetOutOfRange { offset: 10, start: 60, end: 100, .. }), "{error}");
    assert!(matches!(log.read("t", 0, 5, 1, 1), Err(LogError::OffsetOutOfRange { start: 60, .. })));
    let on = log.read("t", 0, 60, 100, usize::MAX).unwrap();
    assert!(on.iter().map(|r| r.offset).eq(60..100));
}

#[test]
fn a_killed_broker_comes_back_and_nothing_is_lost() {
    let options = options();
    let log = Arc::new(open(&options));
    log.create_topic("t", 2).unwrap();
    let _alone = BROKER.write();
    let stop = Arc::new(Mutex::new(false));
    // How many there are in the end.
    let done = AtomicU64::new(u64::MAX);
    std::thread::scope(|scope| {
        // An append that was under way when the broker was killed may be there twice, and whole: the
        // driver may have to begin anew, and then the broker cannot know it again.
        let appending = scope.spawn(|| {
            let (mut next, mut offset) = (0, 0);
            while !*stop.lock().unwrap() {
                let at = log.append("t", 0, &records(next, 10), 1).unwrap();
                assert!(at == offset || at == offset + 10, "{at} where {offset} was to be");
                (next, offset) = (next + 10, at + 10);
            }
            done.store(offset, Ordering::Release);
            (next, offset)
        });
        let reading = scope.spawn(|| {
            let (mut next, mut read, mut again) = (0, 0, 0);
            while next < done.load(Ordering::Acquire) {
                let mut offset = next;
                next = log
                    .read_each("t", 0, next, 1_000, 1 << 20, &mut |record| {
                        assert_eq!(record.offset, offset);
                        offset += 1;
                        let key = std::str::from_utf8(record.key).unwrap();
                        let number: u64 = key.strip_prefix('k').unwrap().parse().unwrap();
                        if number == read {
                            read += 1;
                        } else {
                            assert!(number < read && number + 10 >= read, "{key} where k{read} was to be");
                            again += 1;
                        }
                    })
                    .unwrap();
            }
            (read, again)
        });
        std::thread::sleep(Duration::from_secs(1));
        restart();
        std::thread::sleep(Duration::from_secs(2));
        *stop.lock().unwrap() = true;
        let ((appended, end), (read, again)) = (appending.join().unwrap(), reading.join().unwrap());
        println!("{appended} appended, {again} of them twice");
        assert!(appended > 0 && again <= 10, "{again} came twice");
        assert_eq!((appended, end), (read, read + again));
    });
}

#[test]
fn added_partitions_are_seen_and_read() {
    let _up = BROKER.read();
    let options = options();
    let log = open(&options);
    log.create_topic("t", 1).unwrap();
    log.append("t", 0, &records(0, 3), 1).unwrap();
    assert_eq!(log.read("t", 0, 0, 2, usize::MAX).unwrap().len(), 2);
    let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
    let name = format!("{}t", options.topic_prefix);
    let more = [NewPartitions::new(&name, 3)];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let made = runtime.block_on(admin.create_partitions(&more, &AdminOptions::new())).unwrap();
    assert!(made[0].is_ok());
    let until = Instant::now() + Duration::from_secs(10);
    while log.partitions("t").unwrap() < 3 {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(log.append("t", 2, &records(0, 4), 1).unwrap(), 0);
    assert_eq!(log.read("t", 2, 0, 10, usize::MAX).unwrap().len(), 4);
    assert_eq!(log.read("t", 0, 2, 10, usize::MAX).unwrap().len(), 1);
    assert_eq!(log.end_offsets(&[("t", 2), ("t", 0), ("t", 1)]).unwrap(), [4, 3, 0]);
}

#[test]
fn reported_positions_and_lag_are_seen_by_others() {
    let _up = BROKER.read();
    let options = options();
    let log = open(&options);
    log.create_topic("t", 2).unwrap();
    log.append("t", 1, &records(0, 5), 1_000).unwrap();
    log.append("t", 1, &records(5, 5), 4_000).unwrap();
    log.report_position(&[("t", 0, 0), ("t", 1, 7)]).unwrap();
    let other: BaseConsumer = client().set("group.id", &options.group).create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(&format!("{}t", options.topic_prefix), 1);
    let committed = other.committed_offsets(list, Duration::from_secs(10)).unwrap();
    assert_eq!(committed.elements()[0].offset(), Offset::Offset(7));
    let lag = log.lag("t", 1, 7, 10_000).unwrap();
    assert_eq!((lag.records, lag.ms), (3, 6_000));
    let none = log.lag("t", 1, 10, 10_000).unwrap();
    assert_eq!((none.records, none.ms), (0, 0));
}

#[test]
fn odd_records_come_as_values() {
    let _up = BROKER.read();
    let options = options();
    let log = open(&options);
    log.create_topic("t", 1).unwrap();
    let producer: BaseProducer = client().set("message.max.bytes", "9000000").create().unwrap();
    let name = format!("{}t", options.topic_prefix);
    let huge = vec![b'x'; 5_000_000];
    producer.send(BaseRecord::<[u8], [u8]>::to(&name).partition(0).key(b"gone")).unwrap();
    producer.send(BaseRecord::<[u8], [u8]>::to(&name).partition(0).payload(&[0xff, 0xfe])).unwrap();
    producer.send(BaseRecord::<[u8], [u8]>::to(&name).partition(0).payload(&huge)).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
    let read = log.read("t", 0, 0, 10, usize::MAX).unwrap();
    let values: Vec<&[u8]> = read.iter().map(|r| r.value.as_slice()).collect();
    assert_eq!(read[0].key, b"gone");
    assert_eq!(values, [&b""[..], &[0xff, 0xfe], &huge]);
    let error = log.append("t", 0, &[Record::new("", noise(20_000_000))], 1).unwrap_err();
    assert!(matches!(error, LogError::RecordTooLarge { .. }), "{error}");
    assert_eq!(error.kind(), FailureKind::Permanent);
}

#[test]
fn mistakes_are_told_in_time_and_in_words() {
    let _up = BROKER.read();
    let quick = || KafkaOptions { ask_timeout: Duration::from_secs(4), ..options() };
    let open = |url: &str, client: &[(&str, &str)]| {
        let mut kafka = quick();
        kafka.client.extend(client.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())));
        let backend: Backend = url.parse().unwrap();
        let begun = Instant::now();
        let opened = log::open(&backend, LogOptions { kafka, ..LogOptions::default() });
        let error = opened.map(|_| ()).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(8), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        eprintln!("{error}");
        error
    };
    let real = format!("kafka://{}", broker());
    let error = open("kafka://127.0.0.1:1", &[]);
    assert_eq!(error.kind(), FailureKind::Transient);
    assert!(error.to_string().contains("check that a broker runs there"), "{error}");
    let error = open("kafka://no-such-host.invalid", &[]);
    assert!(error.to_string().contains("check the host's name"), "{error}");
    let error = open(&real, &[("security.protocol", "SSL")]);
    assert!(error.to_string().contains("security.protocol"), "{error}");
    let sasl = [
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "u"),
        ("sasl.password", "hunter2"),
    ];
    let error = open(&real, &sasl);
    assert!(error.to_string().contains("sasl.mechanism"), "{error}");
    for (key, value) in [("no.such.option", "1"), ("linger.ms", "hunter2"), ("acks", "1")] {
        let error = open(&real, &[(key, value)]);
        assert!(matches!(&error, LogError::Option { key: named, .. } if named == key), "{error}");
        assert_eq!(error.kind(), FailureKind::Permanent);
    }
    assert!(matches!(open(&format!("{real}?linger.ms=5"), &[("linger.ms", "6")]), LogError::Option { .. }));
}

/// Bytes that do not compress.
fn noise(n: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// Not a test of a bound: it prints how fast a partition is read. `--nocapture` shows it.
#[test]
fn speed_of_reading() {
    let _up = BROKER.read();
    let options = options();
    let log = open(&options);
    log.create_topic("t", 4).unwrap();
    let value = vec![b'v'; 180];
    let batch: Vec<Record> = (0..10_000).map(|i| Record::new(format!("{i:032}"), value.clone())).collect();
    let begun = Instant::now();
    for round in 0..40 {
        log.append("t", round % 4, &batch, 1_768_000_000_000).unwrap();
    }
    eprintln!("append: {:.0} records/s", 400_000.0 / begun.elapsed().as_secs_f64());
    let (begun, cpu) = (Instant::now(), cpu_ms());
    let (mut next, mut read) = ([0; 4], 0u64);
    while read < 400_000 {
        for (partition, next) in (0..).zip(&mut next) {
            *next = log.read_each("t", partition, *next, 16_384, 256 << 10, &mut |_| read += 1).unwrap();
        }
    }
    let per_record = (cpu_ms() - cpu) * 1e6 / 400_000.0;
    eprintln!(
        "read: {:.0} records/s, {per_record:.0} ns of CPU each",
        400_000.0 / begun.elapsed().as_secs_f64()
    );
}

/// CPU time of this process.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10.0
}

/// A login over TLS; a wrong password and another's certificate are told apart, and soon.
#[test]
fn a_broker_is_spoken_to_over_tls_with_a_login() {
    let _broker = BROKER.read().unwrap();
    let variable = |name: &str| std::env::var(name).expect("`cargo xtask services up` prints it");
    let secure = |password: &str, certificate: &str| {
        let mut options = options();
        options.ask_timeout = Duration::from_secs(5);
        for (key, value) in [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", certificate),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", &variable("UPTAKE_TEST_KAFKA_USER")),
            ("sasl.password", password),
        ] {
            options.client.insert(key.to_owned(), value.to_owned());
        }
        KafkaLog::open(&[variable("UPTAKE_TEST_KAFKA_SECURE")], options)
    };
    let (password, certificate) = (variable("UPTAKE_TEST_KAFKA_PASSWORD"), variable("UPTAKE_TEST_KAFKA_CA"));
    let log = secure(&password, &certificate).unwrap();
    log.create_topic("t", 1).unwrap();
    log.append("t", 0, &records(0, 10), 1).unwrap();
    assert_eq!(log.read("t", 0, 0, 100, 1 << 20).unwrap().len(), 10);
    let said = |refused: LogError| {
        let mut text = refused.to_string();
        let mut cause = std::error::Error::source(&refused);
        while let Some(next) = cause {
            text += &format!(": {next}");
            cause = next.source();
        }
        assert!(text.contains("kafka://") && !text.contains("hunter2"), "{text}");
        text
    };
    let text = said(secure("hunter2", &certificate).unwrap_err());
    assert!(text.to_lowercase().contains("authentication"), "{text}");
    let text = said(secure(&password, &variable("UPTAKE_TEST_CASSANDRA_CA")).unwrap_err());
    assert!(text.to_lowercase().contains("certificate"), "{text}");
}
