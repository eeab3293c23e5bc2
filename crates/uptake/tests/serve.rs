//! The collector and the API as their clients meet them: the real program over real connections.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::http::{Answer, ask};
use common::live::{Live, PATIENCE, SOON, program, wait_until};
use common::{Place, parquet_rows, say, uptake};
use serde_json::{Value, json};
use uptake_connectors::log::{EmbeddedLog, Log, LogOptions, Record};
use uptake_model::RequestId;
use uptake_serve::ids::Signer;

const REQUEST_KEY: &str = "a key of the tests of at least 32 bytes";

/// A server over a data directory.
struct Api {
    live: Live,
    address: String,
}

impl Api {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        Self::start_with(place, arguments, &[])
    }

    fn start_with(place: &Place, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program());
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(place.path("data")).args(arguments);
        command.env("UPTAKE_REQUEST_KEY", REQUEST_KEY).envs(environment.iter().copied());
        Self::of(Live::start(&mut command))
    }

    fn of(live: Live) -> Self {
        live.says("SIGTERM or Ctrl-C stops", SOON);
        live.says("serving on http", SOON);
        let said = live.stderr();
        let address = said.split("://").nth(1).unwrap().split(';').next().unwrap().to_owned();
        Self { live, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        ask(self.connect(), method, path, headers, body).unwrap()
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], b"")
    }

    fn send(&self, body: &str) -> Answer {
        self.ask("POST", "/v1/events", &[("content-type", "application/json")], body.as_bytes())
    }

    fn stop(self) {
        self.live.signal("TERM");
        self.live.end(SOON).ok();
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn event(kind: &str, request: &str, video: &str) -> String {
    json!({"kind": kind, "request_id": request, "video_id": video, "timestamp": now_ms(), "member_id": "m1"})
        .to_string()
}

/// All records of a topic: partition and value.
fn records(place: &Place, topic: &str) -> Vec<(u32, Value)> {
    let (log, _) = EmbeddedLog::open(&place.path("data"), LogOptions::default()).unwrap();
    let mut found = Vec::new();
    for partition in 0..log.partitions(topic).unwrap() {
        let all = log.read(topic, partition, 0, usize::MAX, usize::MAX).unwrap();
        found.extend(all.into_iter().map(|r| (partition, serde_json::from_slice(&r.value).unwrap())));
    }
    found
}

#[test]
fn each_event_gets_its_verdict_and_lies_where_append_would_put_it() {
    let place = Place::new();
    let api = Api::start(&place, &[]);
    let array =
        format!("[{},{{\"kind\":\"dance\"}},{}]", event("impression", "r1", "v1"), event("play", "r1", "v1"));
    let answer = api.send(&array);
    assert_eq!(answer.status, 202);
    let said = answer.json();
    assert_eq!((said["accepted"].as_u64(), said["refused"].as_u64()), (Some(2), Some(1)));
    assert_eq!(said["items"][1], json!({"status": "refused", "reason": "unknown-kind"}));
    let lines =
        format!("{}\nnonsense\n{}\n", event("impression", "r2", "v1"), event("impression", "r3", "v1"));
    let ndjson = api.ask("POST", "/v1/events", &[("content-type", "application/x-ndjson")], lines.as_bytes());
    assert_eq!(ndjson.json()["items"][1]["reason"], "not-json");
    let beacon = format!(
        "{{\"client\":\"app/7\",\"sent\":{},\"events\":[{}]}}",
        now_ms() - 3_600_000,
        event("impression", "r4", "v1")
    );
    let beacon =
        api.ask("POST", "/v1/events", &[("content-type", "text/plain;charset=UTF-8")], beacon.as_bytes());
    assert_eq!(beacon.json()["accepted"], 1);
    assert_eq!(api.send(&event("impression", "r5", "v1")).json()["accepted"], 1, "a single object");
    let named = [("content-type", "application/json"), ("uptake-client", "server/2")];
    assert_eq!(api.ask("POST", "/v1/events", &named, b"{\"kind\":\"play\"}").json()["refused"], 1);
    let metrics = api.get("/metrics").body;
    for (client, what, count) in [
        ("app/7", "impression", 1),
        ("server/2", "no-request-id", 1),
        ("unknown", "play", 1),
        ("unknown", "not-json", 1),
    ] {
        let line = format!("uptake_client_events_total{{client=\"{client}\",what=\"{what}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    assert!(metrics.contains("uptake_collector_events_total{verdict=\"accepted\"} 6"), "{metrics}");
    assert!(metrics.contains("uptake_collector_clock_skew_seconds_bucket"), "{metrics}");
    api.stop();

    let shown = records(&place, "impressions");
    assert_eq!((shown.len(), records(&place, "plays").len()), (5, 1));
    for (partition, record) in &shown {
        let request = RequestId::from_text(record["request_id"].as_str().unwrap().as_bytes());
        assert_eq!(*partition, request.partition(4));
        assert_ne!(record["member_id"], "m1", "a pseudonym");
        assert!((record["timestamp"].as_i64().unwrap() - now_ms()).abs() < 60_000, "by our clock: {record}");
    }
    // The same records through `uptake append` lie in the same partitions.
    let other = Place::new();
    let lines: Vec<String> = shown.iter().map(|(_, record)| record.to_string()).collect();
    other.write("in/events.jsonl", lines.join("\n"));
    let paths = [other.path("in/events.jsonl"), other.path("data")].map(|p| p.display().to_string());
    uptake(["append", &paths[0], "--data", &paths[1]]).ok();
    let sorted = |mut all: Vec<(u32, Value)>| {
        all.sort_by_key(|(partition, record)| (*partition, record.to_string()));
        all
    };
    assert_eq!(sorted(records(&other, "impressions")), sorted(shown));
}

#[test]
fn bodies_are_compressed_within_bounds_and_everything_else_is_refused_by_name() {
    let place = Place::new();
    let limits = [
        "--set",
        "serve.events_max=3",
        "--set",
        "serve.decoded_bytes_max=100000",
        "--set",
        "serve.body_bytes_max=20000",
    ];
    let api = Api::start(&place, &limits);
    let one = event("impression", "r1", "v1");
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let post = |headers: &[(&str, &str)], body: &[u8]| api.ask("POST", "/v1/events", headers, body);
    let json_type = ("content-type", "application/json");
    assert_eq!(post(&[json_type, ("content-encoding", "gzip")], &gzip(one.as_bytes())).status, 202);
    let zstd = zstd::encode_all(one.as_bytes(), 3).unwrap();
    assert_eq!(post(&[json_type, ("content-encoding", "zstd")], &zstd).status, 202);
    let zeros = vec![b' '; 10 << 20];
    post(&[json_type, ("content-encoding", "gzip")], &gzip(&zeros)).is_problem(413, "body-too-large");
    let bomb = zstd::encode_all(&zeros[..], 3).unwrap();
    post(&[json_type, ("content-encoding", "zstd")], &bomb).is_problem(413, "body-too-large");
    post(&[json_type, ("content-encoding", "gzip")], b"no gzip").is_problem(400, "damaged-body");
    post(&[json_type, ("content-encoding", "br")], b"x").is_problem(415, "unknown-encoding");
    post(&[("content-type", "image/png")], b"x").is_problem(415, "unknown-content-type");
    post(&[json_type], &vec![b' '; 30_000]).is_problem(413, "body-too-large");
    post(&[json_type], b"[1,2,3,4]").is_problem(413, "too-many-events");
    post(&[json_type], b"  ").is_problem(400, "empty-body");
    let long = event("impression", &"r".repeat(2_000), "v1");
    assert_eq!(api.send(&long).json()["items"][0]["reason"], "id-too-long");
    api.get("/v1/nothing").is_problem(404, "not-found");
    api.get("/v1/rows/best").is_problem(404, "no-such-row");
    api.get("/v1/events").is_problem(405, "method-not-allowed");
    api.get("/v1/rows/popular?limit=x").is_problem(400, "bad-query");
    api.get("/v1/rows/popular?limit=1000").is_problem(400, "bad-query");
    api.get("/v1/videos/unknown").is_problem(404, "no-tally");
    let headers = api.get("/healthz").headers;
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(headers["content-security-policy"].contains("default-src 'none'"));
    assert_eq!(api.get("/readyz").status, 200);
    let paths = api.get("/openapi.json").ok()["paths"].as_object().unwrap().len();
    assert!(paths >= 12, "{paths}");
    for (path, kind) in
        [("/docs", "text/html"), ("/tracker.js", "text/javascript"), ("/trending-row.js", "text/javascript")]
    {
        let file = api.get(path);
        assert!(
            file.status == 200 && file.headers["content-type"].starts_with(kind) && file.body.len() > 100,
            "{path}"
        );
    }
    api.stop();
    assert_eq!(records(&place, "impressions").len(), 2);
}

#[test]
fn pages_keys_and_tokens_are_let_in_by_name_only() {
    let place = Place::new();
    let environment = [
        ("UPTAKE_WRITE_KEYS", "first-key-1,second-key-2"),
        ("UPTAKE_ADMIN_TOKEN", "an-admin-token-of-tests"),
    ];
    let api = Api::start_with(&place, &["--set", "serve.origins=[\"https://shop.example\"]"], &environment);
    let preflight = |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        api.ask("OPTIONS", "/v1/events", &headers, b"").headers.get("access-control-allow-origin").cloned()
    };
    assert_eq!(preflight("https://shop.example").as_deref(), Some("https://shop.example"));
    assert_eq!(preflight("https://evil.example"), None);
    let body = event("impression", "r1", "v1");
    let send =
        |path: &str, headers: &[(&str, &str)], body: &str| api.ask("POST", path, headers, body.as_bytes());
    send("/v1/events", &[], &body).is_problem(401, "no-write-key");
    send("/v1/events?key=first-key-1", &[], &body).is_problem(401, "no-write-key");
    send("/v1/events", &[("x-uptake-key", "first-key-2")], &body).is_problem(401, "no-write-key");
    assert_eq!(send("/v1/events", &[("x-uptake-key", "second-key-2")], &body).status, 202);
    assert_eq!(send("/v1/events", &[("authorization", "Bearer first-key-1")], &body).status, 202);
    assert_eq!(
        send("/v1/events", &[], &format!("{{\"key\":\"first-key-1\",\"events\":[{body}]}}")).status,
        202
    );
    for path in ["/v1/rules", "/v1/rules/audit", "/v1/pipeline", "/v1/explain/request/r1"] {
        api.get(path).is_problem(401, "not-admin");
        assert_eq!(
            api.ask("GET", path, &[("authorization", "Bearer an-admin-token-of-tests")], b"").status,
            200,
            "{path}"
        );
    }
    assert!(!api.live.stderr().contains("first-key") && !api.live.stderr().contains("an-admin-token"));
    api.stop();
    // Without a token, only this machine by its own name.
    let api = Api::start(&place, &[]);
    assert_eq!(api.get("/v1/rules").status, 200);
    let mut stream = api.connect();
    stream.write_all(b"GET /v1/rules HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 403"), "{text}");
}

#[test]
fn only_requests_that_we_signed_count_where_that_is_required() {
    let place = Place::new();
    let api = Api::start(&place, &["--set", "serve.request_ids=require"]);
    let token = api.get("/v1/rows/trending").ok()["request_id"].as_str().unwrap().to_owned();
    let event = |token: &str| {
        json!({"kind": "play", "request_id": token, "video_id": "v1", "timestamp": 5, "since_row_ms": 0})
            .to_string()
    };
    assert_eq!(api.send(&event(&token)).json()["accepted"], 1);
    assert_eq!(api.send(&event(&token)).json()["accepted"], 1, "again: a duplicate does no harm");
    let reason = |token: &str| api.send(&event(token)).json()["items"][0]["reason"].clone();
    let other = if token.starts_with('0') { "1" } else { "0" };
    assert_eq!(reason(&format!("{other}{}", &token[1..])), "forged-request");
    assert_eq!(reason("7f3a91c04be2d655"), "unsigned-request");
    let signer = Signer::new(&[REQUEST_KEY.as_bytes().to_vec()]);
    assert_eq!(reason(&signer.sign(RequestId(1), now_ms() - 7 * 3_600_000)), "expired-request");
    let foreign = Signer::new(&[b"another key of somebody else with 32+".to_vec()]);
    assert_eq!(reason(&foreign.sign(RequestId(1), now_ms())), "forged-request");
    assert!(api.get("/metrics").body.contains("what=\"forged-request\"} 2"));
    api.stop();
    let plays = records(&place, "plays");
    assert_eq!(plays.len(), 2);
    assert_eq!(plays[0].1["request_id"].as_str(), Some(&token[..16]), "bare in the log");
    assert!((plays[0].1["timestamp"].as_i64().unwrap() - now_ms()).abs() < 60_000, "by our clock");
    assert_eq!(plays[0].1, plays[1].1, "the same event has the same time");
    let served = records(&place, "served-rows");
    assert_eq!(served[0].1["request_id"].as_str(), Some(&token[..16]));
}

/// Sends what makes v1 the most played of three videos, and counts it.
fn counted(place: &Place, api: &Api) {
    played(place, api, &[("v1", 12), ("v2", 9), ("v3", 6)]);
}

/// Has each video shown by 16 requests and played by as many as are said.
fn played(place: &Place, api: &Api, videos: &[(&str, usize)]) {
    let mut events = Vec::new();
    for &(video, plays) in videos {
        for n in 0..16 {
            let request = format!("{video}-{n}");
            events.push(event("impression", &request, video));
            if n < plays {
                events.push(event("play", &request, video));
            }
        }
    }
    assert_eq!(api.send(&format!("[{}]", events.join(","))).json()["refused"], 0);
    let data = place.path("data").display().to_string();
    uptake(["run", "--data", &data, "--until-caught-up"]).ok();
}

fn ids(row: &Value) -> String {
    let items = row["items"].as_array().unwrap();
    items.iter().map(|item| item["video_id"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

/// A server that was asked before any event named a member hears of robots all the same.
#[test]
fn what_few_members_push_leaves_a_served_row() {
    let place = Place::new();
    let api = Api::start(&place, &["--set", "rows.explore_rows=[]"]);
    let data = place.path("data").display().to_string();
    let play = |video: &str, n: usize, member: Option<usize>| {
        let id = format!("{video}-{n}");
        let of = |kind: &str| {
            let mut event: Value = serde_json::from_str(&event(kind, &id, video)).unwrap();
            event["member_id"] = json!(member.map(|member| format!("m{member}")));
            event.to_string()
        };
        format!("{},{}", of("impression"), of("play"))
    };
    let send = |events: Vec<String>| {
        assert_eq!(api.send(&format!("[{}]", events.join(","))).json()["refused"], 0);
        uptake(["run", "--data", &data, "--until-caught-up"]).ok();
    };
    send((0..15).flat_map(|n| [play("good", n, None), play("pushed", n, None)]).collect());
    wait_until("both are there", SOON, || ids(&api.get("/v1/rows/popular").ok()) == "good pushed");
    send((15..50).flat_map(|n| [play("good", n, Some(n)), play("pushed", n, Some(n % 2))]).collect());
    wait_until("one is left", SOON, || ids(&api.get("/v1/rows/popular").ok()) == "good");
    let why = api.get("/v1/videos/pushed/why").ok();
    assert!(why.to_string().contains("only 2 members played it"), "{why}");
}

#[test]
fn served_rows_are_exported_with_a_row_for_each_place() {
    let place = Place::new();
    let api = Api::start(&place, &[]);
    counted(&place, &api);
    wait_until("the row is there", SOON, || ids(&api.get("/v1/rows/popular").ok()) == "v1 v2 v3");
    let served = api.get("/v1/rows/popular?limit=2").ok();
    let request =
        RequestId::from_text(served["request_id"].as_str().unwrap().split('.').next().unwrap().as_bytes());
    let (data, out) = (place.path("data"), place.path("out"));
    let export = || {
        let paths = ["--data", data.to_str().unwrap(), "--to", out.to_str().unwrap(), "--json"];
        uptake([&["export", "served-rows"], &paths[..]].concat()).ok()
    };
    let of_request = || -> Vec<Value> {
        parquet_rows(&out).into_iter().filter(|row| row["request_id"] == json!(request.0)).collect()
    };
    // A row is served also while what is served waits to be written down.
    wait_until("it is in the log", SOON, || {
        export();
        !of_request().is_empty()
    });
    let places = of_request();
    assert_eq!(places.len(), 2, "{places:?}");
    for (n, place) in places.iter().enumerate() {
        let (video, score) = (&served["items"][n]["video_id"], &served["items"][n]["score"]);
        assert_eq!((&place["video_id"], &place["score"], &place["position"]), (video, score, &json!(n + 1)));
        assert_eq!(
            (&place["row"], &place["segment"], &place["explored"]),
            (&json!("popular"), &json!(""), &json!(false))
        );
        assert_eq!(place["propensity"], 1.0);
    }
    api.stop();
    assert!(export().contains(r#""rows":0"#), "nothing is exported twice");
}

#[test]
fn rows_show_what_counted_by_peoples_rules_in_every_process() {
    let place = Place::new();
    let (api, second) = (Api::start(&place, &[]), Api::start(&place, &[]));
    assert_eq!(ids(&api.get("/v1/rows/popular").ok()), "");
    counted(&place, &api);
    wait_until("the row is there", SOON, || ids(&api.get("/v1/rows/popular").ok()) == "v1 v2 v3");
    assert_eq!(ids(&api.get("/v1/rows/popular?exclude=v1&limit=1").ok()), "v2");
    assert_eq!(ids(&api.get("/v1/rows/loved").ok()), "v1 v2 v3");
    api.get("/v1/rows/popular?segment=country=BR").is_problem(400, "no-such-segment");
    let first = api.get("/v1/rows/popular");
    let tag = first.headers["etag"].clone();
    let again = api.ask("GET", "/v1/rows/popular", &[("if-none-match", &tag)], b"");
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    assert_eq!(second.get("/v1/rows/popular").headers["etag"], tag, "the same in every process");
    assert_ne!(api.get("/v1/rows/popular").ok()["request_id"], first.json()["request_id"]);
    assert_eq!(api.get("/v1/videos/v1").ok()["epochs"][0]["plays"], 12);
    let timeline = api.get("/v1/videos/v2/timeline").ok();
    let epoch = &timeline["epochs"][0];
    assert_eq!((epoch["place"].as_u64(), epoch["rising"].as_bool()), (Some(2), Some(false)), "{timeline}");
    let [low, rate, high] = ["rate_low", "rate", "rate_high"].map(|name| epoch[name].as_f64().unwrap());
    assert!(0.0 < low && low < rate && rate < high, "{timeline}");
    api.get("/v1/videos/other/timeline").is_problem(404, "no-tally");
    assert_eq!(api.get("/v1/videos/v2/why").ok()["why"]["rank"]["popular"], 2);
    assert_eq!(api.get("/v1/videos/other/why").ok()["why"]["known"], false);
    let pipeline = api.get("/v1/pipeline").ok();
    assert_eq!(
        (pipeline["lag"].as_u64(), pipeline["newest_checkpoint"]["counted"].as_u64()),
        (Some(0), Some(2 * (12 + 9 + 6)))
    );
    assert_eq!(pipeline["newest_checkpoint"]["balances"], true);

    let json_type = ("content-type", "application/json");
    let add = |rule: Value| {
        let headers = [json_type, ("x-uptake-actor", "an editor")];
        api.ask("POST", "/v1/rules", &headers, rule.to_string().as_bytes())
    };
    add(json!({"action": "pin", "video_id": "v3"})).is_problem(400, "bad-rule");
    assert_eq!(api.ask("POST", "/v1/rules", &[], b"{}").status, 415);
    let nowhere = add(json!({"action": "block", "video_id": "v3", "segment": "planet=Mars"}));
    nowhere.is_problem(400, "no-such-segment");
    let pin = add(json!({"action": "pin", "video_id": "v3", "position": 1})).ok();
    assert_eq!(ids(&api.get("/v1/rows/popular").ok()), "v3 v1 v2", "at once");
    add(json!({"action": "block", "video_id": "v2", "row": "popular"})).ok();
    add(json!({"action": "block", "video_id": "v1", "expires_at": now_ms() - 1})).ok();
    assert_eq!(ids(&api.get("/v1/rows/popular").ok()), "v3 v1");
    assert_eq!(ids(&api.get("/v1/rows/loved").ok()), "v3 v1 v2");
    wait_until("the other process has the rules", SOON, || {
        ids(&second.get("/v1/rows/popular").ok()) == "v3 v1"
    });
    let changed = api.ask("GET", "/v1/rows/popular", &[("if-none-match", &tag)], b"");
    assert_eq!(changed.status, 200);
    let path = format!("/v1/rules/{}", pin["id"].as_str().unwrap());
    assert_eq!(api.ask("DELETE", &path, &[], b"").status, 204);
    api.ask("DELETE", &path, &[], b"").is_problem(404, "no-such-rule");
    api.stop();
    second.stop();
    let later = Api::start(&place, &[]);
    assert_eq!(ids(&later.get("/v1/rows/popular").ok()), "v1 v3", "rules outlive the process");
    let audit = later.get("/v1/rules/audit").ok();
    assert_eq!((audit[0]["op"].as_str(), audit.as_array().unwrap().len()), (Some("delete"), 4));
    assert_eq!(audit[3]["by"], "an editor");
}

/// Reads server-sent events until one is whole.
#[test]
fn a_row_has_what_the_catalogue_allows_and_draws_its_last_place_with_a_known_chance() {
    let place = Place::new();
    let saga = |id: &str| format!("{id},Saga {id},2001,Drama,saga,\n");
    let plain: Vec<String> = (1..=9).map(|n| format!("v{n},Title {n},2000,Comedy|Crime,,\n")).collect();
    let catalogue = format!(
        "id,title,year,genres,franchise,available_to_ms\n{}{}{}gone,Gone,1999,Comedy,,1000\nnew,New,2026,Drama,,\n",
        saga("s1"),
        saga("s2"),
        plain.concat()
    );
    place.write("titles.csv", &catalogue);
    let path = place.path("titles.csv").display().to_string();
    let settings =
        ["--set".to_owned(), format!("rows.catalogue={path}"), "--set".into(), "rows.places=6".into()];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let api = Api::start(&place, &settings);
    let names: Vec<String> = (1..=9).map(|n| format!("v{n}")).collect();
    let mut videos: Vec<(&str, usize)> =
        names.iter().map(|name| &**name).zip([9, 8, 7, 6, 5, 4, 3, 3, 3]).collect();
    videos.extend([("s1", 14), ("s2", 13), ("gone", 15)]);
    played(&place, &api, &videos);
    let rows = |query: &str| api.get(&format!("/v1/rows/{query}")).ok();
    wait_until("the row is there", SOON, || ids(&rows("popular?limit=6")) == "s1 v1 v2 v3 v4 v5");
    assert_eq!(rows("popular")["items"][1]["title"], "Title 1");
    assert_eq!(
        ids(&rows("popular?genre=drama")),
        "s1",
        "one place for a franchise, and none for what is gone"
    );

    // Of a row of five the last place is drawn, among others for a title that nobody was shown.
    let mut drawn = BTreeSet::new();
    for _ in 0..60 {
        let row = rows("loved?limit=5");
        assert_eq!(row["items"][3]["explored"], false);
        let last = &row["items"][4];
        assert_eq!(last["explored"], true, "{row}");
        drawn.insert(last["video_id"].as_str().unwrap().to_owned());
    }
    assert!(drawn.len() > 1, "{drawn:?}");
    let tag = api.get("/v1/rows/loved?limit=5").headers["etag"].clone();
    let again = api.ask("GET", "/v1/rows/loved?limit=5", &[("if-none-match", &tag)], b"");
    assert_eq!(again.status, 304, "a draw is no news");
    let served: Vec<Value> = records(&place, "served-rows").into_iter().map(|(_, row)| row).collect();
    let loved: Vec<&Value> = served.iter().filter(|row| row["row"] == "loved").collect();
    for row in &loved {
        let (from, last) = (row["draws"][0].as_array().unwrap(), &row["items"][4]);
        let sum: f64 = from.iter().map(|one| one["share"].as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-9 && from.iter().any(|one| one["video_id"] == "new"), "{row}");
        let its = from.iter().find(|one| one["video_id"] == last["video_id"]).unwrap();
        assert_eq!(its["share"], last["propensity"]);
    }
    // Half of the drawn ones are played: what is judged by the log says so.
    for row in loved.iter().step_by(2) {
        let (request, video) =
            (row["request_id"].as_str().unwrap(), row["items"][4]["video_id"].as_str().unwrap());
        assert_eq!(api.send(&event("play", request, video)).json()["accepted"], 1);
    }
    let data = place.path("data").display().to_string();
    let judged = |settings: &[&str]| -> Value {
        let args = [&["eval", "served", "--data", &data, "--json"], settings].concat();
        serde_json::from_str(&uptake(args).ok()).unwrap()
    };
    // What was served within the horizon may still be played.
    let said = judged(&[]);
    assert_eq!((said["draws"].as_u64(), said["too_young"].as_u64()), (Some(0), Some(loved.len() as u64)));
    let said = judged(&["--set", "join.horizon=0s"]);
    assert_eq!(said["draws"].as_u64(), Some(loved.len() as u64));
    for (name, of) in said["rankings"].as_object().unwrap() {
        assert_eq!(of["ips"].is_null(), of["effective"].as_f64() == Some(0.0), "{name}: {of}");
    }
    let half = loved.len().div_ceil(2) as f64 / loved.len() as f64;
    let logged = said["rankings"]["wilson"]["logged"]["value"].as_f64().unwrap();
    assert!((logged - half).abs() < 1e-9, "{said}");

    // A catalogue that changes is read again; one that cannot be used leaves the one before it.
    place.write(
        "titles.csv",
        catalogue.replace("s1,Saga s1,2001,Drama,saga,", "s1,Saga s1,2001,Drama,saga,1000"),
    );
    wait_until("the other of the saga is in", SOON, || ids(&rows("popular?genre=drama")) == "s2");
    place.write("titles.csv", "nonsense");
    wait_until("it is said", SOON, || api.live.stderr().contains("the header has no column id"));
    assert_eq!(ids(&rows("popular?genre=drama")), "s2");
    api.stop();
    let refused = uptake(["serve", "--data", &data, "--set", &format!("rows.catalogue={path}")]);
    assert!(refused.stderr.contains("rows.catalogue"), "{}", refused.stderr);
}

fn next_event(stream: &mut BufReader<TcpStream>) -> Option<(String, Value)> {
    let (mut id, mut data) = (String::new(), None);
    for line in stream.lines() {
        let line = line.ok()?;
        if let Some(text) = line.strip_prefix("id: ") {
            id = text.to_owned();
        } else if let Some(text) = line.strip_prefix("data: ") {
            data = Some(serde_json::from_str(text).unwrap());
        }
        if let (true, Some(data)) = (line.is_empty() && !id.is_empty(), data.clone()) {
            return Some((id, data));
        }
    }
    None
}

#[test]
fn a_stream_tells_of_changes_and_goes_on_where_the_client_was() {
    let place = Place::new();
    let api = Api::start(&place, &["--set", "serve.streams_max=1"]);
    counted(&place, &api);
    let open = |last: &str| {
        let mut stream = api.connect();
        let head = format!(
            "GET /v1/rows/popular/stream HTTP/1.1\r\nhost: localhost\r\nlast-event-id: {last}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        BufReader::new(stream)
    };
    let mut stream = open("");
    let (version, row) = next_event(&mut stream).unwrap();
    assert_eq!(ids(&row), "v1 v2 v3");
    api.get("/v1/rows/popular/stream").is_problem(503, "too-many-streams");
    drop(stream);
    wait_until("the first one has left", SOON, || api.get("/metrics").body.contains("uptake_streams 0"));
    let mut stream = open(&version);
    let rule = json!({"action": "block", "video_id": "v1"}).to_string();
    let added = api.ask("POST", "/v1/rules", &[("content-type", "application/json")], rule.as_bytes());
    assert_eq!(added.status, 201);
    let (newer, row) = next_event(&mut stream).unwrap();
    assert_eq!(ids(&row), "v2 v3", "what was known was not sent again");
    assert_ne!(newer, version);
    // A stop ends the stream too, and in good order.
    api.live.signal("TERM");
    assert!(next_event(&mut stream).is_none());
    api.live.end(SOON).ok();
}

#[test]
fn slow_and_greedy_clients_are_cut_off_and_others_served() {
    let place = Place::new();
    let settings = ["--set", "serve.read_timeout=300ms", "--set", "serve.rate_per_second=5"];
    let api = Api::start(&place, &settings);
    let mut silent = api.connect();
    silent.write_all(b"POST /v1/events HTTP/1.1\r\nhost: x").unwrap();
    let mut stuck = api.connect();
    stuck.write_all(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{").unwrap();
    let mut text = String::new();
    stuck.read_to_string(&mut text).ok();
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).ok();
    assert_eq!(api.get("/healthz").status, 200);
    let refused: Vec<Answer> =
        (0..20).map(|_| api.get("/v1/rows/popular")).filter(|a| a.status != 200).collect();
    assert!(!refused.is_empty());
    refused[0].is_problem(429, "too-many-requests");
    assert_eq!(refused[0].headers["retry-after"], "1");
    assert_eq!(api.get("/healthz").status, 200, "who watches is not limited");
    api.stop();
}

#[test]
fn every_answered_event_survives_kill_minus_nine_and_is_counted() {
    let place = Place::new();
    let mut answered: BTreeSet<String> = BTreeSet::new();
    for round in 0..3 {
        let api = Api::start(&place, &["--set", "serve.rate_per_second=off"]);
        let (acknowledged, ending) =
            (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (acknowledged, ending) = (Arc::clone(&acknowledged), Arc::clone(&ending));
                let address = api.address.clone();
                std::thread::spawn(move || {
                    for n in 0.. {
                        if ending.load(Ordering::Relaxed) {
                            return;
                        }
                        let names: Vec<String> =
                            (0..5).map(|i| format!("r{round}-{client}-{n}-{i}")).collect();
                        let events: Vec<String> = names
                            .iter()
                            .flat_map(|name| [event("impression", name, name), event("play", name, name)])
                            .collect();
                        let body = format!("[{}]", events.join(","));
                        let Ok(stream) = TcpStream::connect(&address) else { return };
                        stream.set_read_timeout(Some(SOON)).unwrap();
                        let Ok(answer) = ask(stream, "POST", "/v1/events", &[], body.as_bytes()) else {
                            return;
                        };
                        if answer.status == 202 && answer.body.contains("\"accepted\":10") {
                            acknowledged.lock().unwrap().extend(names);
                        }
                    }
                })
            })
            .collect();
        wait_until("some were answered", PATIENCE, || acknowledged.lock().unwrap().len() > 300);
        api.live.kill();
        ending.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        answered.extend(acknowledged.lock().unwrap().iter().cloned());
    }
    assert!(answered.len() > 900);
    for topic in ["impressions", "plays"] {
        let there: BTreeSet<String> = records(&place, topic)
            .iter()
            .map(|(_, r)| r["request_id"].as_str().unwrap().to_owned())
            .collect();
        let lost: Vec<_> = answered.difference(&there).collect();
        assert!(lost.is_empty(), "{} of {} answered events are not in {topic}", lost.len(), answered.len());
    }
    let data = place.path("data").display().to_string();
    uptake(["run", "--data", &data, "--until-caught-up"]).ok();
    let tallies = uptake(["tallies", "--data", &data, "--format", "csv"]).ok();
    // A request's two events may lie in two epochs, where the clock turned between them.
    let played: BTreeSet<&str> = tallies
        .lines()
        .skip(1)
        .filter(|line| line.split(',').nth(2) == Some("1"))
        .filter_map(|line| line.split(',').next())
        .collect();
    let lost = answered.iter().filter(|name| !played.contains(name.as_str())).count();
    assert_eq!(lost, 0, "of {} answered, not in the table", answered.len());
}

#[test]
fn a_run_serves_and_a_stop_finishes_what_was_taken() {
    let place = Place::new();
    let mut command = Command::new(program());
    command.args(["run", "--serve", "127.0.0.1:0", "--data"]).arg(place.path("data"));
    let api = Api::of(Live::start(&mut command));
    let body = format!("[{},{}]", event("impression", "r1", "v1"), event("play", "r1", "v1"));
    assert_eq!(api.send(&body).status, 202);
    wait_until("it shows in the row", SOON, || ids(&api.get("/v1/rows/popular").ok()) == "v1");
    // The head has arrived, the body comes after the signal: it is finished all the same.
    let mut late = api.connect();
    let body = event("impression", "r2", "v1");
    write!(
        late,
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    late.write_all(&body.as_bytes()[..10]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    api.live.signal("TERM");
    std::thread::sleep(Duration::from_millis(200));
    late.write_all(&body.as_bytes()[10..]).unwrap();
    let mut text = String::new();
    late.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 202"), "{text}");
    api.live.end(SOON).ok();
    assert_eq!(records(&place, "impressions").len(), 2);
}

/// Names of metrics in a text, without what the kind of a metric adds.
fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let named = words.filter(|word| word.starts_with("uptake_") || word.starts_with("process_"));
    let bare = |word: &str| {
        let endings = ["_bucket", "_count", "_sum", "_total"];
        endings.iter().find_map(|ending| word.strip_suffix(ending)).unwrap_or(word).to_owned()
    };
    named.map(bare).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let place = Place::new();
    let mut command = Command::new(program());
    command.args(["run", "--set", "checkpoint.interval=1s", "--serve", "127.0.0.1:0", "--data"]);
    let api = Api::of(Live::start(command.arg(place.path("data"))));
    let of_a_row = format!("[{},{},{{}}]", event("impression", "r1", "v1"), event("play", "r1", "v1"));
    wait_until("a row", SOON, || {
        api.send(&of_a_row);
        ids(&api.get("/v1/rows/popular").ok()) == "v1"
    });
    // Something that cannot be used is counted, by a number that was there before.
    let text = || api.get("/metrics").body;
    assert!(text().contains("uptake_pipeline_dead_letters_total{reason=\"not-json\"} 0"), "{}", text());
    let (log, _) = EmbeddedLog::open(&place.path("data"), LogOptions::default()).unwrap();
    log.append("plays", 0, &[Record::new("", "nonsense")], now_ms()).unwrap();
    let counted = "uptake_pipeline_dead_letters_total{reason=\"not-json\"} 1";
    wait_until("a checkpoint has it", SOON, || text().contains(counted));
    let text = text();
    say(&text);
    let mut known = metric_names(&text);
    // Only plays of quiet titles are measured, and none may have been.
    known.insert("uptake_row_age_seconds".to_owned());
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    for file in ["prometheus/uptake.rules.yaml", "grafana/uptake.json"] {
        let asked = metric_names(&std::fs::read_to_string(folder.join(file)).unwrap());
        let unknown: Vec<&String> = asked.difference(&known).collect();
        assert!(asked.len() > 8 && unknown.is_empty(), "{file} asks for {unknown:?}");
    }
    api.stop();
}

#[test]
fn tls_by_configuration_and_mistakes_all_at_once() {
    let place = Place::new();
    let data = place.path("data").display().to_string();
    let wrong = [
        "serve",
        "--data",
        &data,
        "--set",
        "serve.origins=[\"shop.example/\"]",
        "--set",
        "serve.tls_cert=a.pem",
        "--set",
        "serve.proxies=99",
    ];
    uptake(wrong).fails(2, &["serve.origins: ", "serve.tls_cert: ", "serve.proxies: 99"]);
    let (certificate, key) = (place.path("cert.pem"), place.path("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    if !made.is_ok_and(|made| made.status.success()) || Command::new("curl").arg("-V").output().is_err() {
        return common::skip("tls_by_configuration", "openssl and curl are needed");
    }
    let settings =
        [format!("serve.tls_cert={}", certificate.display()), format!("serve.tls_key={}", key.display())];
    let api = Api::start(&place, &["--set", &settings[0], "--set", &settings[1]]);
    assert!(api.live.stderr().contains("https://"));
    let url = format!("https://localhost:{}/healthz", api.address.rsplit(':').next().unwrap());
    let got = Command::new("curl")
        .args(["-sS", "--noproxy", "*", "--cacert"])
        .arg(&certificate)
        .arg(url)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&got.stdout), "ok\n", "{}", String::from_utf8_lossy(&got.stderr));
    api.stop();
}
