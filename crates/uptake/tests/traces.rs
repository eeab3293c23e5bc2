//! Spans, as a receiver of OTLP over HTTP gets them from the real program.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use common::Place;
use common::http::ask;
use common::live::{Live, SOON, program, wait_until};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

/// A span as it arrived.
#[derive(Clone, Debug)]
struct Arrived {
    service: String,
    name: String,
    trace: String,
    took_ns: u64,
    failed: bool,
    about: BTreeMap<String, String>,
}

/// Somebody who receives spans.
struct Receiver {
    url: String,
    spans: Arc<Mutex<Vec<Arrived>>>,
    headers: Arc<Mutex<BTreeSet<String>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (spans, headers) = (Arc::<Mutex<Vec<Arrived>>>::default(), Arc::<Mutex<BTreeSet<_>>>::default());
        let (into, seen) = (Arc::clone(&spans), Arc::clone(&headers));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (into, seen) = (Arc::clone(&into), Arc::clone(&seen));
                std::thread::spawn(move || while take(&stream, &into, &seen).is_some() {});
            }
        });
        Self { url, spans, headers }
    }

    fn named(&self, name: &str) -> Vec<Arrived> {
        self.spans.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }
}

fn text(value: Option<Value>) -> String {
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

/// One request; `None` where the sender has gone.
fn take(stream: &TcpStream, into: &Mutex<Vec<Arrived>>, seen: &Mutex<BTreeSet<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    assert_eq!(line.trim_end(), "POST /v1/traces HTTP/1.1");
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let header = header.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(of) = header.strip_prefix("content-length: ") {
            length = of.parse().unwrap();
        }
        seen.lock().unwrap().insert(header);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    for resource in ExportTraceServiceRequest::decode(body.as_slice()).unwrap().resource_spans {
        let of = resource.resource.unwrap().attributes.into_iter();
        let service = of.filter(|of| of.key == "service.name").map(|of| text(of.value.and_then(|v| v.value)));
        let service: String = service.collect();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let about = span.attributes.into_iter().map(|of| (of.key, text(of.value.and_then(|v| v.value))));
            into.lock().unwrap().push(Arrived {
                service: service.clone(),
                name: span.name,
                trace: span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect(),
                took_ns: span.end_time_unix_nano - span.start_time_unix_nano,
                failed: span.status.is_some_and(|status| status.code == StatusCode::Error as i32),
                about: about.collect(),
            });
        }
    }
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()
}

const EVENTS: &str = "i r1 v1 10:00 | p r1 v1 10:01";

#[test]
fn writes_are_spans() {
    let (receiver, place) = (Receiver::start(), Place::with(EVENTS));
    let url = format!("traces.url={}", receiver.url);
    let mut command = Command::new(program());
    command.arg("replay").arg(place.path("in")).arg("--data").arg(place.data());
    command.args(["--set", &url]);
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20let-me-in");
    common::run(&mut command).ok();
    // The program has ended, so all have been sent.
    let rows: u64 = receiver
        .named("table write")
        .iter()
        .map(|span| span.about["uptake.rows"].parse::<u64>().unwrap())
        .sum();
    assert!(rows >= 1, "{:?}", receiver.spans);
    assert_eq!(receiver.named("archive put").len(), 1, "{:?}", receiver.spans);
    assert!(receiver.spans.lock().unwrap().iter().all(|span| span.service == "uptake" && !span.failed));
    let headers = receiver.headers.lock().unwrap();
    assert!(headers.contains("authorization: bearer let-me-in"), "{headers:?}");
}

#[test]
fn a_request_is_a_span_of_the_trace_that_its_sender_names() {
    let (receiver, place) = (Receiver::start(), Place::with(EVENTS));
    place.replay(&[]).ok();
    let url = format!("traces.url={}", receiver.url);
    let mut command = Command::new(program());
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(place.data()).args(["--set", &url]);
    command.args(["--set", "traces.every=1000000"]).env("OTEL_SERVICE_NAME", "rows");
    let live = Live::start(&mut command);
    live.says("serving on http", SOON);
    let said = live.stderr();
    let address = said.split("://").nth(1).unwrap().split(';').next().unwrap().to_owned();
    let get = |path: &str, headers: &[(&str, &str)]| {
        ask(TcpStream::connect(&address).unwrap(), "GET", path, headers, b"").unwrap()
    };
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = |flags: &str| format!("00-{trace}-00f067aa0ba902b7-{flags}");
    assert_eq!(get("/v1/rows/trending?limit=3", &[("traceparent", &parent("01"))]).status, 200);
    assert_eq!(get("/v1/videos/nobody-knows-it", &[("traceparent", &parent("01"))]).status, 404);
    // Neither those whose senders keep none, nor most of the others, nor what is no trace.
    assert_eq!(get("/v1/rows/trending", &[("traceparent", &parent("00"))]).status, 200);
    for header in ["", "00-0-0-01", "\u{fffd}"] {
        assert_eq!(get("/readyz", &[("traceparent", header)]).status, 200);
    }
    live.signal("TERM");
    live.end(SOON).ok();
    let (rows, videos) = (receiver.named("GET /v1/rows/{name}"), receiver.named("GET /v1/videos/{id}"));
    assert_eq!((rows.len(), videos.len()), (1, 1), "{:?}", receiver.spans);
    assert_eq!((rows[0].trace.as_str(), videos[0].trace.as_str()), (trace, trace));
    assert_eq!(rows[0].about["http.response.status_code"], "200");
    assert_eq!(videos[0].about["http.response.status_code"], "404");
    assert!(!videos[0].failed && rows[0].service == "rows", "{rows:?}");
    let all = format!("{:?}", receiver.spans.lock().unwrap());
    assert!(
        !all.contains("nobody-knows-it") && !all.contains("limit"),
        "what was asked for is nobody's: {all}"
    );
}

#[test]
fn a_receiver_that_is_away_is_told_of_and_holds_nothing_up() {
    let place = Place::with(EVENTS);
    // A port that was free a moment ago.
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("traces.url=http://{away}");
    let printed = place.replay(&["--set", &url]);
    assert!(printed.stderr.contains("spans cannot be sent to http://127.0.0.1:"), "{}", printed.stderr);
    assert_eq!(printed.stderr.matches("spans cannot be sent").count(), 1, "{}", printed.stderr);
    printed.ok();
    let plain = Place::with(EVENTS);
    plain.replay(&[]).ok();
    assert_eq!(place.csv(), plain.csv());
}

#[test]
fn an_address_that_is_none_is_refused_at_start() {
    let place = Place::with(EVENTS);
    for (url, why) in [
        ("localhost:4318", "is no address as http://HOST:4318"),
        ("ftp://localhost", "is no address as http://HOST:4318"),
        ("http://me:hunter2@localhost:4318", "it holds a login"),
    ] {
        let printed = place.replay(&["--set", &format!("traces.url={url}"), "--set", "traces.every=0"]);
        assert!(!printed.stderr.contains("hunter2"), "{}", printed.stderr);
        printed.fails(2, &["traces.url", why, "traces.every"]);
    }
}

#[test]
fn checkpoints_are_spans_that_are_sent_while_the_run_goes_on() {
    let (receiver, place) = (Receiver::start(), Place::new());
    let url = format!("traces.url={}", receiver.url);
    let live =
        Live::start(&mut common::live::run_command(&place.data(), &[&url, "checkpoint.interval=100ms"]));
    let file = place.write("events.jsonl", common::events(EVENTS));
    common::live::append(&place.data(), &[&file]);
    wait_until("a checkpoint arrives", 2 * SOON, || !receiver.named("checkpoint").is_empty());
    live.signal("TERM");
    live.end(SOON).ok();
    let checkpoints = receiver.named("checkpoint");
    assert!(!checkpoints.is_empty(), "{:?}", receiver.spans);
    for span in &checkpoints {
        assert!(span.about["uptake.bytes"].parse::<u64>().unwrap() > 0, "{span:?}");
        assert!(span.took_ns < SOON.as_nanos() as u64, "{span:?}");
    }
    assert_eq!(receiver.named("checkpoint segments").len(), checkpoints.len());
    assert_eq!(receiver.named("checkpoint commit").len(), checkpoints.len());
}
