//! The closed loop as its user meets it, whatever is done to it: and a crowd before another deployment.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::ErrorKind;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::http::{Answer, ask};
use common::live::{Live, PATIENCE, SOON, program, run_command, wait_until};
use common::{Place, say};
use serde_json::{Value, json};

/// For what takes its time also where nothing else is done.
const LONG: Duration = Duration::from_secs(240);

struct Demo {
    live: Live,
    address: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(program());
        let live = Live::start(command.args(["demo", "--json", "--listen", "127.0.0.1:0"]).args(arguments));
        wait_until("it says where it is", LONG, || live.stdout().contains("/demo in a browser"));
        let address = live.stdout().split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
        Self { live, address }
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let once = || {
            let stream = TcpStream::connect(&self.address)?;
            stream.set_read_timeout(Some(SOON))?;
            ask(stream, method, path, headers, body.as_bytes())
        };
        let asked = match once() {
            // A server that makes way for the next one closes what is idle, and may do so just before it is asked;
            // whoever is refused, or closed twice, has met a defect.
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                once()
            }
            asked => asked,
        };
        asked.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.live.stderr()))
    }

    fn act(&self, action: &Value) -> Answer {
        self.ask("POST", "/demo/control", &[("content-type", "application/json")], &action.to_string())
    }

    fn state(&self) -> Value {
        self.ask("GET", "/demo/state", &[], "").ok()
    }

    /// Waits until the state says so; at a time of the crowd's, which may be far behind on a busy machine.
    fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut state = Value::Null;
        wait_until(what, LONG, || {
            std::thread::sleep(Duration::from_millis(100));
            state = self.state();
            is(&state)
        });
        state
    }

    /// Ends it, and returns what it printed.
    fn end(self) -> Value {
        self.live.signal("TERM");
        let ended = self.live.end(LONG);
        let last = ended.stdout.lines().last().unwrap_or_default().to_owned();
        let said = ended.ok();
        say(&last[..last.len().min(700)]);
        serde_json::from_str(&last).unwrap_or_else(|_| panic!("{last}\n{said}"))
    }
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {value}"))
}

#[test]
fn whatever_is_done_to_the_loop_every_tally_is_right_and_no_robot_trends() {
    let demo =
        Demo::start(&["--moment", "robot", "--speed", "900", "--visits-per-second", "60", "--seed", "5"]);
    for what in ["twice", "held", "clocks"] {
        assert_eq!(demo.act(&json!({"do": "trouble", "what": what, "on": true})).status, 204);
    }
    demo.until("visits", |state| number(state, "/crowd/visits") > 100);
    assert_eq!(demo.act(&json!({"do": "kill"})).status, 204);
    demo.until("it has started again", |state| number(state, "/pipeline_starts") == 2);
    assert_eq!(demo.act(&json!({"do": "lock"})).status, 204);
    demo.until("the table is locked", |state| state["trouble"]["locked"] == true);
    assert_eq!(demo.act(&json!({"do": "kill"})).status, 204);
    demo.until("nobody locks the table", |state| state["trouble"]["locked"] == false);
    // Who is not of this machine, or asks for what there is not, changes nothing.
    let elsewhere = [("content-type", "application/json"), ("origin", "https://elsewhere.example")];
    demo.ask("POST", "/demo/control", &elsewhere, r#"{"do":"kill"}"#).is_problem(403, "not-local");
    demo.act(&json!({"do": "speed", "speed": 1e9})).is_problem(400, "bad-action");
    demo.act(&json!({"do": "dance"})).is_problem(400, "bad-action");
    // The robot begins at 01:00, and claims most from 01:30 on.
    let state = demo.until("it has claimed much", |state| {
        number(state, "/crowd/robot_plays") > 100 && number(state, "/check/equal") > 0
    });
    say(&format!("at {} a robot has claimed {} plays", state["now"], state["crowd"]["robot_plays"]));
    let row = demo.ask("GET", "/v1/rows/trending?limit=20", &[], "").ok();
    let robots = uptake_sim::Season::real().shows().iter().find(|show| show.is_robots).unwrap();
    let shown: Vec<&Value> = row["items"].as_array().unwrap().iter().map(|item| &item["video_id"]).collect();
    assert!(!shown.iter().any(|id| *id == robots.id), "{shown:?}");
    // Time stands still when it is told to.
    assert_eq!(demo.act(&json!({"do": "pause"})).status, 204);
    assert_eq!(demo.state()["now"], demo.state()["now"]);
    let printed = demo.end();
    let report = &printed["report"];
    assert_eq!(report["differing"], json!([]), "{report}");
    assert!(number(report, "/events_taken_again") * 2 > number(report, "/events_made"), "{report}");
    assert_eq!((number(report, "/events_lost"), number(report, "/events_refused")), (0, 0));
    assert!(number(&printed, "/ledger/duplicate") > number(report, "/events_made") / 2, "{printed}");
}

#[test]
fn on_the_awards_night_the_awarded_titles_trend_and_one_may_jump_there() {
    let demo =
        Demo::start(&["--moment", "quiet", "--speed", "600", "--visits-per-second", "120", "--seed", "3"]);
    demo.until("visits", |state| number(state, "/crowd/visits") > 50);
    for to in ["nowhere", "2011-02-27T03:00", "2012-02-30T03:00"] {
        demo.act(&json!({"do": "jump", "to": to})).is_problem(400, "bad-action");
    }
    assert_eq!(demo.act(&json!({"do": "jump", "to": "awards"})).status, 204);
    // Nobody is refused while one deployment follows another.
    let (is_there, begun) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_there.load(Ordering::Relaxed) && begun.elapsed() < LONG {
                demo.state();
            }
        });
        demo.until("it is there", |state| {
            state["moment"]["name"] == "awards" && state["preparing"].is_null()
        });
        is_there.store(true, Ordering::Relaxed);
    });
    let trending = |state: &Value, title: &str| -> Option<i64> {
        let all = state.pointer("/loop/rises")?.as_array()?;
        let rise = all.iter().find(|rise| rise["title"] == title)?;
        Some(rise["trending"].as_i64()? - rise["since"].as_i64()?)
    };
    let both = ["The Artist", "Hugo"];
    let state =
        demo.until("both are trending", |state| both.iter().all(|title| trending(state, title).is_some()));
    for title in both {
        say(&format!(
            "{title} was Trending {} min after its interest had tripled",
            trending(&state, title).unwrap() / 60_000
        ));
    }
    // Somebody's own click counts in the same way: with the request id of the row it was in.
    let row = demo.ask("GET", "/v1/rows/popular?limit=5", &[], "").ok();
    let (id, request) = (row["items"][0]["video_id"].as_str().unwrap(), row["request_id"].as_str().unwrap());
    let event = |kind: &str| json!({"kind": kind, "request_id": request, "video_id": id, "timestamp": 0, "since_row_ms": 5});
    let body = json!([event("impression"), event("play")]).to_string();
    let verdicts = demo.ask("POST", "/v1/events", &[("content-type", "application/json")], &body).ok();
    assert_eq!(verdicts["accepted"], 2, "{verdicts}");
    for path in ["/demo", "/demo.js", "/"] {
        assert_eq!(demo.ask("GET", path, &[], "").status, 200);
    }
    // The crowd knows nothing of that click: what others did is taken from the log.
    let printed = demo.end();
    assert_eq!(printed["report"]["differing"], json!([]), "{printed}");
    assert!(number(&printed, "/report/cost/requests") > 100, "{printed}");
    assert!(printed["report"]["cost"]["cpu_seconds"].as_f64().unwrap() > 0.0, "{printed}");
}

/// A demo in which one thing goes wrong: every tally is as the crowd knows it.
fn one_trouble(action: &Value, has_happened: impl Fn(&Value) -> bool) -> Value {
    let demo = Demo::start(&[
        "--moment",
        "2012-03-01T19:30",
        "--speed",
        "900",
        "--visits-per-second",
        "40",
        "--seed",
        "11",
    ]);
    demo.until("visits", |state| number(state, "/crowd/visits") > 50);
    assert_eq!(demo.act(action).status, 204);
    demo.until("it has happened", has_happened);
    let before = number(&demo.state(), "/crowd/visits");
    demo.until("people come and past tallies are right", |state| {
        number(state, "/crowd/visits") > before + 400 && number(state, "/check/equal") > 0
    });
    let printed = demo.end();
    let report = &printed["report"];
    assert_eq!(report["differing"], json!([]), "{report}");
    assert_eq!((number(report, "/events_lost"), number(report, "/events_refused")), (0, 0));
    assert!(number(report, "/tallies") > 1_000, "{report}");
    printed
}

#[test]
fn a_kill_alone_changes_no_tally() {
    one_trouble(&json!({"do": "kill"}), |state| number(state, "/pipeline_starts") == 2);
}

#[test]
fn a_locked_table_alone_changes_no_tally() {
    one_trouble(&json!({"do": "lock"}), |state| state["trouble"]["locked"] == false);
}

#[test]
fn all_twice_alone_changes_no_tally() {
    let printed = one_trouble(&json!({"do": "trouble", "what": "twice", "on": true}), |state| {
        state["trouble"]["twice"] == true && number(state, "/crowd/events_taken_again") > 500
    });
    assert!(number(&printed, "/ledger/duplicate") > 500, "{printed}");
}

#[test]
fn reports_that_are_held_alone_change_no_tally() {
    one_trouble(&json!({"do": "trouble", "what": "held", "on": true}), |state| {
        number(state, "/crowd/waiting") > 25
    });
}

#[test]
fn wrong_clocks_alone_change_no_tally() {
    let printed = one_trouble(&json!({"do": "trouble", "what": "clocks", "on": true}), |state| {
        state["trouble"]["clocks"] == true
    });
    assert_eq!(number(&printed, "/ledger/late"), 0, "{printed}");
}

#[test]
fn a_crowd_finds_a_deployment_right_or_says_what_is_not() {
    let place = Place::new();
    let data = place.path("data");
    let mut command = run_command(&data, &["join.kind=left", "serve.rate_per_second=off"]);
    let live = Live::start(command.args(["--serve", "127.0.0.1:0"]));
    live.says("serving on http", SOON);
    let url =
        format!("http{}", live.stderr().split("serving on http").nth(1).unwrap().split(';').next().unwrap());
    let simulate = |arguments: &[&str]| {
        let mut command = Command::new(program());
        Live::start(
            command.args(["simulate", "--url", &url, "--json", "--visits-per-second", "20"]).args(arguments),
        )
        .end(LONG)
    };
    let trouble = ["--trouble", "twice", "--trouble", "held", "--trouble", "clocks"];
    let ended = simulate(&[&["--for", "4s", "--set", "join.kind=left"], &trouble[..]].concat());
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    say(&ended.stdout);
    assert!(number(&report, "/events_made") > 50 && number(&report, "/tallies") > 20, "{report}");
    assert_eq!(report["events_made"], report["events_taken"]);
    // What it expects is what it is told that the deployment counts.
    let expecting_otherwise = simulate(&["--for", "1s", "--seed", "2", "--set", "join.kind=inner"]);
    assert_eq!(expecting_otherwise.code, Some(1), "{}", expecting_otherwise.stderr);
    assert!(expecting_otherwise.stderr.contains("counted otherwise"), "{}", expecting_otherwise.stderr);
    live.signal("TERM");
    live.end(PATIENCE).ok();
    let nobody = simulate(&["--for", "1s"]);
    assert_eq!(nobody.code, Some(2), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("--url"), "{}", nobody.stderr);
    common::uptake(["simulate", "--url", "127.0.0.1:8080"])
        .fails(2, &["--url", "not of the form http://HOST:PORT"]);
}
