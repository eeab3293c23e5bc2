//! A client that asks a server for much, or for what no client should; prints one JSON object. For benchmarks.
//!
//!     load collector --at HOST:PORT [--batches N]     bodies of 20 events, as fast as they are taken
//!     load rows --at HOST:PORT [--seconds N]          rows at a fixed rate; delays count from when one was due
//!     load streams --at HOST:PORT [--connections N]   subscribers of a row, and how soon all of them see a change
//!     load hostile --at HOST:PORT                     bodies that are too large, clients that are too slow
//!     load floor                                      a server that does nothing of all that, to compare with

use std::collections::HashMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const EVENTS: usize = 20;
const THREADS: usize = 32;
const ROWS_PER_SECOND: f64 = 5_000.0;
const GIB: u64 = 1 << 30;
/// How many clients send a byte a second.
const SLOW: usize = 2_000;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().ok_or("what? collector, rows, streams, hostile or floor")?;
    let mut options = HashMap::new();
    while let Some(name) = arguments.next() {
        options.insert(name, arguments.next().ok_or("every option has a value")?);
    }
    let at = options.get("--at").cloned().unwrap_or_default();
    let number = |name: &str, default: usize| options.get(name).map_or(Ok(default), |text| text.parse());
    let found = match mode.as_str() {
        "collector" => collector(&at, number("--batches", 20_000)?)?,
        "rows" => rows(&at, number("--seconds", 10)?)?,
        "streams" => runtime()?.block_on(streams(&at, number("--connections", 10_000)?))?,
        "hostile" => hostile(&at)?,
        "floor" => return runtime()?.block_on(floor()),
        other => return Err(format!("{other} is not collector, rows, streams, hostile or floor").into()),
    };
    println!("{found}");
    Ok(())
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// A connection that asks one thing after the other.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    fn new(at: &str) -> Result<Self> {
        let stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, read: Vec::new() })
    }

    fn ask(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.stream.write_all(request)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let mut part = [0; 16_384];
        loop {
            if let Some((status, head, length)) = head(&self.read)
                && self.read.len() >= head + length
            {
                let rest = self.read.split_off(head + length);
                let body = std::mem::replace(&mut self.read, rest).split_off(head);
                return Ok((status, body));
            }
            match self.stream.read(&mut part)? {
                0 => return Err("the server hung up".into()),
                n => self.read.extend_from_slice(&part[..n]),
            }
        }
    }

    fn get(&mut self, path: &str) -> Result<(u16, Vec<u8>)> {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: load\r\n\r\n").as_bytes())
    }
}

/// Status, length of the head and of the body, if the head is whole.
fn head(read: &[u8]) -> Option<(u16, usize, usize)> {
    let end = read.windows(4).position(|part| part == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&read[..end]).ok()?;
    let status = text.split(' ').nth(1)?.parse().ok()?;
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let length = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length = length.map(|(_, value)| value.trim().parse().unwrap_or(0)).next().unwrap_or(0);
    Some((status, end, length))
}

fn quantiles(mut delays: Vec<Duration>) -> Value {
    delays.sort_unstable();
    let at = |part: f64| {
        let place = (part * delays.len().saturating_sub(1) as f64).round() as usize;
        delays.get(place).map_or(0.0, Duration::as_secs_f64) * 1e3
    };
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "most": at(1.0), "measured": delays.len() })
}

fn resident(at: &str) -> Option<u64> {
    let (_, text) = Client::new(at).ok()?.get("/metrics").ok()?;
    let text = String::from_utf8(text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "))?;
    line.parse().ok()
}

/// A page of which all titles are seen, with a request id that was not there before.
fn body(page: u64, kind: &str) -> Vec<u8> {
    let stamp = now_ms();
    let event = |n: usize| {
        let video = (page as usize * 7 + n) % 10_000;
        format!(
            r#"{{"kind":"{kind}","request_id":"{page:016x}","video_id":"v{video}","timestamp":{stamp},"country":"BR","device":"tv","row":"popular","position":{n}}}"#
        )
    };
    let events: Vec<String> = (0..EVENTS).map(event).collect();
    let text = format!("[{}]", events.join(","));
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: load\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    (head + &text).into_bytes()
}

fn threads<T: Send>(of: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..THREADS)
            .map(|n| {
                scope.spawn({
                    let of = &of;
                    move || of(n)
                })
            })
            .collect();
        all.into_iter().map(|one| one.join().map_err(|_| "a client panicked")?).collect()
    })
}

fn collector(at: &str, batches: usize) -> Result<Value> {
    let seed = now_ms() << 20;
    let begun = Instant::now();
    let all = threads(|thread| {
        let mut client = Client::new(at)?;
        let mut delays = Vec::new();
        for n in (thread..batches).step_by(THREADS) {
            let request = body(seed + n as u64, "impression");
            let asked = Instant::now();
            let (status, said) = client.ask(&request)?;
            delays.push(asked.elapsed());
            if status >= 300 {
                return Err(format!("answered {status}: {}", String::from_utf8_lossy(&said)).into());
            }
        }
        Ok(delays)
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let events = batches * EVENTS;
    Ok(json!({
        "events": events, "seconds": seconds, "events_per_s": events as f64 / seconds,
        "batch_ms": quantiles(all.concat()),
    }))
}

fn rows(at: &str, seconds: usize) -> Result<Value> {
    // The first who asks for a row waits until the table was read.
    let first = Instant::now();
    Client::new(at)?.get("/v1/rows/popular?limit=12")?;
    let first = first.elapsed();
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now() + Duration::from_millis(100);
    let each = Duration::from_secs_f64(1.0 / ROWS_PER_SECOND);
    let count = (ROWS_PER_SECOND * seconds as f64) as u32;
    let bytes = AtomicU64::new(0);
    let all = threads(|thread| {
        let mut client = Client::new(at)?;
        let mut delays = Vec::new();
        for n in (thread as u32..count).step_by(THREADS) {
            let due = begun + each * n;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (status, said) = client.get("/v1/rows/popular?limit=12")?;
            delays.push(due.elapsed());
            bytes.fetch_add(said.len() as u64, Ordering::Relaxed);
            if status >= 300 {
                return Err(format!("answered {status}: {}", String::from_utf8_lossy(&said)).into());
            }
        }
        Ok(delays)
    })?;
    Ok(json!({
        "rows": count, "per_s": f64::from(count) / begun.elapsed().as_secs_f64(), "ms": quantiles(all.concat()),
        "first_ms": first.as_secs_f64() * 1e3, "bytes_each": bytes.into_inner() / u64::from(count.max(1)),
    }))
}

/// Reads what there is of a stream of events; `None` once it has ended.
async fn read(stream: &tokio::net::TcpStream) -> Option<Vec<u8>> {
    let mut part = vec![0; 8_192];
    loop {
        stream.readable().await.ok()?;
        match stream.try_read(&mut part) {
            Ok(0) => return None,
            Ok(n) => {
                part.truncate(n);
                return Some(part);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return None,
        }
    }
}

async fn streams(at: &str, connections: usize) -> Result<Value> {
    let before = resident(at);
    let open: Arc<AtomicU64> = Arc::default();
    let (sender, mut changes) = tokio::sync::mpsc::unbounded_channel();
    let begun = Instant::now();
    let mut refused = 0;
    for _ in 0..connections {
        let Ok(stream) = tokio::net::TcpStream::connect(at).await else {
            refused += 1;
            continue;
        };
        stream.writable().await?;
        stream.try_write(b"GET /v1/rows/popular/stream?limit=12 HTTP/1.1\r\nHost: load\r\n\r\n")?;
        let (open, sender) = (Arc::clone(&open), sender.clone());
        tokio::spawn(async move {
            let mut has_begun = false;
            while let Some(part) = read(&stream).await {
                let text = String::from_utf8_lossy(&part);
                if !text.contains("data:") {
                    continue;
                }
                if !has_begun {
                    has_begun = true;
                    open.fetch_add(1, Ordering::Relaxed);
                } else {
                    let _ = sender.send(Instant::now());
                }
            }
        });
    }
    let patience = Instant::now();
    while (open.load(Ordering::Relaxed) as usize) < connections - refused && patience.elapsed().as_secs() < 60
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (opened, opened_in) = (open.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    // A play of every title of the row changes it.
    let address = at.to_owned();
    let held = resident(at);
    while changes.try_recv().is_ok() {}
    let asked = Instant::now();
    let page = now_ms() << 20;
    tokio::task::spawn_blocking(move || {
        let mut client = Client::new(&address)?;
        client.ask(&body(page, "impression"))?;
        client.ask(&body(page, "play"))
    })
    .await??;
    let mut delays = Vec::new();
    while delays.len() < opened as usize && asked.elapsed().as_secs() < 30 {
        if let Ok(Some(at)) = tokio::time::timeout(Duration::from_secs(1), changes.recv()).await {
            delays.push(at.saturating_duration_since(asked));
        }
    }
    Ok(json!({
        "asked_for": connections, "opened": opened, "opened_in_s": opened_in, "resident_before": before,
        "resident_with": held, "change_ms": quantiles(delays),
    }))
}

/// Sends a body of a GiB until the server answers; says what it answered, after how much.
fn huge(at: &str, is_chunked: bool) -> Result<Value> {
    let mut client = Client::new(at)?;
    let length =
        if is_chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {GIB}") };
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: load\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    );
    client.stream.write_all(head.as_bytes())?;
    client.stream.set_nonblocking(true)?;
    let block = [b' '; 65_536];
    let framed = [format!("{:x}\r\n", block.len()).as_bytes(), &block, b"\r\n"].concat();
    let piece: &[u8] = if is_chunked { &framed } else { &block };
    let (begun, mut sent, mut said) = (Instant::now(), 0, Vec::new());
    let mut part = [0; 4_096];
    let mut offset = 0;
    while sent < GIB && begun.elapsed().as_secs() < 60 {
        match client.stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => {
                said.extend_from_slice(&part[..n]);
                break;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        match client.stream.write(&piece[offset..]) {
            Ok(n) => {
                sent += n as u64;
                offset = (offset + n) % piece.len();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => {
                // It hung up; what it said before may still be there.
                if let Ok(n) = client.stream.read(&mut part) {
                    said.extend_from_slice(&part[..n]);
                }
                break;
            }
        }
    }
    let status = head_status(&said);
    Ok(json!({ "status": status, "bytes_sent": sent, "seconds": begun.elapsed().as_secs_f64() }))
}

fn head_status(said: &[u8]) -> Option<u16> {
    String::from_utf8_lossy(said).split(' ').nth(1)?.parse().ok()
}

/// A GiB of spaces, in gzip.
fn bomb(at: &str) -> Result<Value> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let block = [b' '; 65_536];
    for _ in 0..GIB / block.len() as u64 {
        packed.write_all(&block)?;
    }
    let packed = packed.finish()?;
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nHost: load\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\
         Content-Length: {}\r\n\r\n",
        packed.len()
    );
    let begun = Instant::now();
    let (status, _) = Client::new(at)?.ask(&[head.as_bytes(), &packed].concat())?;
    Ok(json!({ "status": status, "bytes_sent": packed.len(), "seconds": begun.elapsed().as_secs_f64() }))
}

/// Clients that send a byte of their request a second, and meanwhile one that is as it should be.
async fn slow(at: &str) -> Result<Value> {
    let begun = Instant::now();
    let ended: Arc<AtomicU64> = Arc::default();
    let last = Arc::new(AtomicU64::new(0));
    for n in 0..SLOW {
        let stream = tokio::net::TcpStream::connect(at).await?;
        let (ended, last) = (Arc::clone(&ended), Arc::clone(&last));
        tokio::spawn(async move {
            // Half of them dawdle with the head, half with the body.
            let head = b"POST /v1/events HTTP/1.1\r\nHost: load\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n";
            let mut rest = head.iter().copied().chain(std::iter::repeat(b' '));
            if n % 2 == 0 && stream.try_write(head).is_ok() {
                rest.nth(head.len() - 1);
            }
            let mut part = [0; 1_024];
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let next = rest.next().unwrap_or(b' ');
                if !matches!(stream.try_write(&[next]), Ok(1)) || stream.try_read(&mut part).is_ok() {
                    break;
                }
                if begun.elapsed().as_secs() > 90 {
                    return;
                }
            }
            ended.fetch_add(1, Ordering::Relaxed);
            last.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        });
    }
    let address = at.to_owned();
    let one = tokio::task::spawn_blocking(move || -> Result<(Vec<Duration>, Option<u64>)> {
        let (mut client, mut delays) = (Client::new(&address)?, Vec::new());
        for _ in 0..500 {
            let asked = Instant::now();
            client.get("/v1/rows/popular?limit=12")?;
            delays.push(asked.elapsed());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok((delays, resident(&address)))
    });
    let (delays, held) = one.await??;
    while ended.load(Ordering::Relaxed) < SLOW as u64 && begun.elapsed().as_secs() < 90 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(json!({
        "connections": SLOW, "ended": ended.load(Ordering::Relaxed), "last_ended_after_ms": last.load(Ordering::Relaxed),
        "row_of_another_ms": quantiles(delays), "resident_with": held,
    }))
}

fn hostile(at: &str) -> Result<Value> {
    let before = resident(at);
    let [length, chunked] = [huge(at, false)?, huge(at, true)?];
    let bomb = bomb(at)?;
    let after = resident(at);
    let slow = runtime()?.block_on(slow(at))?;
    Ok(json!({
        "resident_before": before, "gib_by_length": length, "gib_in_chunks": chunked, "gib_in_gzip": bomb,
        "resident_after": after, "slow": slow,
    }))
}

/// Answers as much as the server does, and does nothing for it. Prints its address.
async fn floor() -> Result<()> {
    let verdicts: Vec<Value> = (0..EVENTS).map(|_| json!({ "status": "accepted" })).collect();
    let verdicts = json!({ "accepted": EVENTS, "refused": 0, "items": verdicts }).to_string();
    let item = json!({ "video_id": "v1234", "score": 0.123_456_789, "plays": 1234, "impressions": 12_345, "propensity": 1.0 });
    let row = json!({ "request_id": "0".repeat(60), "row": "popular", "items": vec![item; 12] }).to_string();
    let json = [("content-type", "application/json")];
    let app = Router::new()
        .route(
            "/v1/events",
            post(move |body: Bytes| async move {
                std::hint::black_box(body);
                (json, verdicts)
            }),
        )
        .route("/v1/rows/popular", get(move || async move { (json, row) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("serving on http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
