//! The server over a log and a table that do what a test wants: hang, fail, come back.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use uptake_connectors::log::{Log, MemoryLog, Record, StoredRef};
use uptake_connectors::table::{MemoryTable, Table};
use uptake_connectors::{LogError, TableError};
use uptake_model::tally::Counts;
use uptake_model::{Epoch, EpochLength, TallyRow};
use uptake_serve::rows::TrendsRows;
use uptake_serve::settings::{Secrets, Settings};
use uptake_serve::{Books, OpenTable, Parts, ReadUpTo, Server};

const SOON: Duration = Duration::from_secs(20);

/// A gate that whoever comes waits at while it is shut.
#[derive(Default)]
struct Gate {
    /// Whether it is shut, and how many wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, is_shut: bool) {
        self.state.lock().unwrap().0 = is_shut;
        self.changed.notify_all();
    }

    /// Returns whether one had to wait.
    fn pass(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let had_to_wait = state.0;
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap();
        }
        state.1 -= 1;
        had_to_wait
    }

    fn wait_for_somebody(&self) {
        let state = self.state.lock().unwrap();
        let (_state, waited) =
            self.changed.wait_timeout_while(state, SOON, |(_, waiting)| *waiting == 0).unwrap();
        assert!(!waited.timed_out());
    }
}

/// A log whose appends to `served-rows` wait at a gate, and fail if they had to.
struct Stalling {
    log: MemoryLog,
    gate: Arc<Gate>,
}

type Logged<T> = Result<T, LogError>;

impl Log for Stalling {
    fn create_topic(&self, topic: &str, partitions: u32) -> Logged<()> {
        self.log.create_topic(topic, partitions)
    }
    fn partitions(&self, topic: &str) -> Logged<u32> {
        self.log.partitions(topic)
    }
    fn topics(&self) -> Vec<String> {
        self.log.topics()
    }
    fn append(&self, topic: &str, partition: u32, records: &[Record], now_ms: i64) -> Logged<u64> {
        let fails = topic == uptake_serve::SERVED_ROWS && self.gate.pass();
        // There is no such partition.
        self.log.append(topic, if fails { 99 } else { partition }, records, now_ms)
    }
    fn read_each(
        &self,
        topic: &str,
        partition: u32,
        from: u64,
        max_records: usize,
        max_bytes: usize,
        each: &mut dyn FnMut(StoredRef<'_>),
    ) -> Logged<u64> {
        self.log.read_each(topic, partition, from, max_records, max_bytes, each)
    }
    fn start_offset(&self, topic: &str, partition: u32) -> Logged<u64> {
        self.log.start_offset(topic, partition)
    }
    fn end_offset(&self, topic: &str, partition: u32) -> Logged<u64> {
        self.log.end_offset(topic, partition)
    }
    fn offset_for_time(&self, topic: &str, partition: u32, ms: i64) -> Logged<u64> {
        self.log.offset_for_time(topic, partition, ms)
    }
    fn truncate_before(&self, topic: &str, partition: u32, offset: u64) -> Logged<u64> {
        self.log.truncate_before(topic, partition, offset)
    }
}

/// No pipeline has run.
struct NoBooks;

impl Books for NoBooks {
    fn newest(&self) -> Result<Option<(Value, Vec<ReadUpTo>)>, String> {
        Ok(None)
    }
    fn dead_letters(&self, _: usize) -> Result<Value, String> {
        Ok(Value::Null)
    }
    fn replay_dead_letters(&self, _: Option<&str>, _: bool) -> Result<Value, String> {
        Ok(Value::Null)
    }
}

/// A table in which two videos were played, which is opened when the gate allows it.
fn table(gate: &Arc<Gate>) -> OpenTable {
    let gate = Arc::clone(gate);
    Box::new(move || -> Result<Option<Box<dyn Table>>, TableError> {
        let row = |video: &str, plays| TallyRow {
            video_id: video.into(),
            segment: "".into(),
            epoch: Epoch(7),
            counts: Counts { plays, impressions: 100, exact: true },
            sealed: false,
            sets: None,
        };
        let mut table = MemoryTable::new();
        table.write(&[row("v1", 9), row("v2", 5)])?;
        Ok(Some(Box::new(Gated { table, gate: Arc::clone(&gate) })))
    })
}

/// A table whose segments are told when the gate allows it: that is asked by whoever ranks one for the first time.
struct Gated {
    table: MemoryTable,
    gate: Arc<Gate>,
}

type Tabled<T> = Result<T, TableError>;

impl Table for Gated {
    fn write(&mut self, rows: &[TallyRow]) -> Tabled<()> {
        self.table.write(rows)
    }
    fn get(&self, video: &str, segment: &str, epoch: Epoch) -> Tabled<Option<TallyRow>> {
        self.table.get(video, segment, epoch)
    }
    fn scan(&self, segment: &str, each: &mut dyn FnMut(TallyRow) -> Tabled<()>) -> Tabled<()> {
        self.table.scan(segment, each)
    }
    fn top(&self, segment: &str, epoch: Option<Epoch>, limit: usize) -> Tabled<Vec<TallyRow>> {
        self.table.top(segment, epoch, limit)
    }
    fn video(&self, video: &str, segment: &str) -> Tabled<Vec<TallyRow>> {
        self.table.video(video, segment)
    }
    fn find_request(&self, request: uptake_model::RequestId) -> Tabled<Vec<uptake_connectors::table::Found>> {
        self.table.find_request(request)
    }
    fn segments(&self) -> Tabled<Vec<Arc<str>>> {
        self.gate.pass();
        self.table.segments()
    }
    fn meta_get(&self, key: &str) -> Tabled<Option<String>> {
        self.table.meta_get(key)
    }
    fn meta_put(&mut self, key: &str, value: &str) -> Tabled<()> {
        self.table.meta_put(key, value)
    }
    fn is_empty(&self) -> Tabled<bool> {
        self.table.is_empty()
    }
}

/// A server, and the gates of its log and its table.
struct Running {
    address: SocketAddr,
    log_gate: Arc<Gate>,
    table_gate: Arc<Gate>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    _keys: tempfile::TempDir,
}

impl Running {
    fn start(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with_keys("", change)
    }

    fn with_keys(write_keys: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let mut settings = Settings { listen: "127.0.0.1:0".into(), ..Settings::default() };
        if !write_keys.is_empty() {
            let path = keys.path().join("write.keys");
            std::fs::write(&path, write_keys).unwrap();
            settings.write_keys_file = Some(path);
        }
        change(&mut settings);
        let secrets = Secrets::load(&settings, keys.path()).unwrap();
        let (log_gate, table_gate) = (Arc::<Gate>::default(), Arc::<Gate>::default());
        let log = Stalling { log: MemoryLog::new(), gate: Arc::clone(&log_gate) };
        ["impressions", "plays"].iter().for_each(|topic| log.create_topic(topic, 2).unwrap());
        let parts = Parts {
            log: Arc::new(log),
            open_table: table(&table_gate),
            rows: Arc::new(TrendsRows::new(EpochLength::default(), 8, &[])),
            books: Arc::new(NoBooks),
            decode: Arc::default(),
            input_topics: vec!["impressions".into(), "plays".into()],
            epoch: EpochLength::default(),
            load_catalogue: Box::new(|| Ok(None)),
            now: uptake_serve::clock::system(),
            routes: axum::Router::new(),
            listener: None,
        };
        // One thread for all requests: what waits there holds everybody up.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(Server::bind(settings, &secrets, parts)).unwrap();
        let address = server.address();
        let stop = watch::Sender::new(false);
        let mut stopping = stop.subscribe();
        let thread = std::thread::spawn(move || {
            runtime.block_on(server.run(async move {
                let _ = stopping.wait_for(|stop| *stop).await;
            }));
        });
        Self { address, log_gate, table_gate, stop, thread: Some(thread), _keys: keys }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// The answer to what is sent as it stands, with its head.
    fn said(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        self.said(&format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        ))
    }

    fn get(&self, path: &str) -> String {
        self.ask("GET", path, "", "")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.log_gate.set(false);
        self.table_gate.set(false);
        self.stop.send_replace(true);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const PLAY: &str = r#"{"kind":"play","request_id":"r1","video_id":"v1","timestamp":1768435200123}"#;

#[test]
fn a_row_is_served_while_the_log_hangs_and_counted_when_it_is_never_written() {
    let server = Running::start(|settings| settings.timeout = Duration::from_secs(5));
    let well = server.get("/v1/rows/popular");
    assert_eq!(status(&well), "200");
    assert!(well.contains("cache-control: no-store"), "no browser keeps its request id: {well}");
    let tag = well.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let again = server.ask("GET", "/v1/rows/popular", &format!("if-none-match: {tag}\r\n"), "");
    assert_eq!(status(&again), "304", "who holds it asks with its tag");
    server.log_gate.set(true);
    let begun = Instant::now();
    let answer = server.get("/v1/rows/popular");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"video_id\":\"v1\""), "{answer}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let unlogged = || server.get("/metrics").contains("uptake_rows_unlogged_total 1");
    assert!(!unlogged(), "it may still be written");
    server.log_gate.set(false);
    wait_until("the failure is counted", unlogged);
}

#[test]
fn clients_that_say_nothing_leave_room_for_others() {
    let server = Running::start(|settings| {
        settings.connections_max = 3;
        settings.read_timeout = Duration::from_millis(300);
    });
    // One may begin as HTTP/2 does and say no more.
    let mut silent: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    silent[0].write_all(b"PRI ").unwrap();
    assert_eq!(status(&server.get("/healthz")), "200");
    for stream in &mut silent {
        assert_eq!(stream.read(&mut [0; 9]).unwrap_or(0), 0, "they were hung up on");
    }
}

#[test]
fn events_are_taken_while_the_table_hangs() {
    let server = Running::start(|_| {});
    server.table_gate.set(true);
    std::thread::scope(|scope| {
        let row = scope.spawn(|| server.get("/v1/rows/popular"));
        server.table_gate.wait_for_somebody();
        // The first play of a title: how long it takes to its row is measured.
        assert_eq!(status(&server.ask("POST", "/v1/events", "", PLAY)), "202");
        assert_eq!(status(&server.get("/healthz")), "200");
        server.table_gate.set(false);
        assert_eq!(status(&row.join().unwrap()), "200");
    });
}

#[test]
fn without_a_token_nobody_comes_in_through_a_proxy() {
    let rule = json!({ "action": "block", "video_id": "v1" }).to_string();
    let typed = "content-type: application/json\r\n";
    let own = Running::start(|_| {});
    assert_eq!(status(&own.get("/v1/rules")), "200");
    assert_eq!(status(&own.ask("POST", "/v1/rules", typed, &rule)), "201");
    for of_proxy in ["x-forwarded-for: 203.0.113.9", "via: 1.1 front", "forwarded: for=203.0.113.9"] {
        assert_eq!(status(&own.ask("GET", "/v1/rules", &format!("{of_proxy}\r\n"), "")), "403", "{of_proxy}");
    }
    assert_eq!(status(&own.said("GET /v1/rules HTTP/1.0\r\nhost: 127.0.0.1:8080\r\n\r\n")), "403");
    let large = format!("{{\"note\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(status(&own.ask("POST", "/v1/rules", typed, &large)), "413");
    // One that says nothing of whom it asks for, but is counted.
    let behind = Running::start(|settings| settings.proxies = 1);
    for path in ["/v1/rules", "/v1/rules/audit", "/v1/pipeline", "/v1/dead-letters", "/v1/explain/request/r1"]
    {
        assert_eq!(status(&behind.get(path)), "403", "{path}");
    }
    assert_eq!(status(&behind.ask("DELETE", "/v1/rules/1", "", "")), "403");
    for path in ["/v1/rules", "/v1/dead-letters/replay"] {
        // It is answered though the body does not come.
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{typed}content-length: 9\r\n\r\n"
        );
        assert_eq!(status(&behind.said(&head)), "403", "{path}");
    }
}

#[test]
fn a_key_is_looked_at_before_the_body() {
    let server = Running::with_keys("a-write-key-1\n", |settings| settings.origins = vec!["*".into()]);
    let head = |headers: &str| {
        server.said(&format!(
            "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: 99\r\n\r\n"
        ))
    };
    assert_eq!(status(&head("x-uptake-key: another-key-2\r\n")), "401", "a wrong one");
    assert_eq!(status(&head("content-encoding: gzip\r\n")), "401", "what is compressed has it in a header");
    assert_eq!(status(&server.ask("POST", "/v1/events", "x-uptake-key: a-write-key-1\r\n", PLAY)), "202");
    let beacon = format!("{{\"key\":\"a-write-key-1\",\"events\":[{PLAY}]}}");
    assert_eq!(status(&server.ask("POST", "/v1/events", "", &beacon)), "202");
    assert_eq!(status(&server.ask("POST", "/v1/events", "", PLAY)), "401");
    // A page may say which client it is.
    let asked = "origin: https://shop.example\r\naccess-control-request-method: POST\r\naccess-control-request-headers: uptake-client\r\n";
    let allowed = server.ask("OPTIONS", "/v1/events", asked, "");
    assert!(allowed.contains("uptake-client"), "{allowed}");
}
