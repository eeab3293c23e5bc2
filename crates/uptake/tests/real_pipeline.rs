//! A generated evening through a real Kafka to a real Cassandra and S3 server by the real program:
//! the table is that of the plain contract, whatever is killed on the way.
//!
//! Needs the servers of `cargo xtask services`; `cargo xtask test` starts them.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::live::{Live, PATIENCE, SOON, audience, kill, program, run_command};
use common::servers::Servers;
use common::workload::Workload;
use common::{contract_py, first_difference, say, without_exact};

const LINES: usize = 300_000;
/// A server that was killed may take a while to be whole again.
const LONG: Duration = Duration::from_secs(120);

/// A stream in the log of a real broker.
struct Stream {
    servers: Servers,
    folder: tempfile::TempDir,
    settings: Vec<String>,
    table: String,
}

impl Stream {
    #[track_caller]
    fn new(test: &str, seed: u64) -> Self {
        let (servers, folder) = (Servers::take(test), tempfile::tempdir().unwrap());
        let (bytes, table) = audience(seed, LINES);
        std::fs::write(folder.path().join("events.jsonl"), bytes).unwrap();
        let settings = servers.settings();
        Self { servers, folder, settings, table }
    }

    /// The same log into another table and archive.
    fn with_stores(self, name: &str) -> Self {
        let mut settings = self.servers.settings_with_stores(name);
        settings.extend(UNBOUNDED.map(str::to_owned));
        Self { settings, ..self }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).arg("--data").arg(self.data());
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command
    }

    fn run(&self, data: &Path, more: &[&str]) -> Command {
        let settings: Vec<&str> =
            self.settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
        run_command(data, &settings)
    }

    fn append(&self) {
        self.append_all(&self.folder.path().join("events.jsonl"));
    }

    fn append_all(&self, events: &Path) {
        self.migrate();
        Live::start(&mut self.command(&["append", events.to_str().unwrap()])).end(PATIENCE).ok();
    }

    fn migrate(&self) {
        Live::start(&mut self.command(&["migrate"])).end(PATIENCE).ok();
    }

    /// The table, as it comes out of Cassandra.
    fn csv(&self, data: &Path) -> String {
        let mut command = Command::new(program());
        command.args(["tallies", "--format", "csv", "--data"]).arg(data);
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        Live::start(&mut command).end(SOON).stdout
    }

    #[track_caller]
    fn check(&self, data: &Path) {
        self.check_of(data, "main");
    }

    #[track_caller]
    fn check_of(&self, data: &Path, cluster: &str) {
        if let Some(difference) = first_difference(&without_exact(&self.csv(data)), &self.table) {
            panic!("{} differs from the contract: {difference}", data.display());
        }
        let mut ledger = self.command(&["ledger", "--json", "--cluster", cluster]);
        let ended = Live::start(&mut ledger).end(SOON);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let books: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!((&books["balances"], &books["late"]), (&true.into(), &0.into()), "{books}");
    }
}

/// So slow that something can be killed on the way.
const SLOW: [&str; 3] = ["batch.events_max=5000", "batch.in_flight=1", "checkpoint.interval=200ms"];

#[test]
fn what_comes_through_kafka_is_counted_by_the_contract() {
    let stream = Stream::new("plain", 11);
    let migrated = Live::start(&mut stream.command(&["migrate"])).end(PATIENCE);
    assert!(migrated.stdout.contains("log          kafka://"), "{migrated:?}");
    assert!(migrated.stdout.contains("impressions of 4 partitions, plays of 4 partitions"), "{migrated:?}");
    stream.append();
    Live::start(stream.run(&stream.data(), &[]).arg("--until-caught-up")).end(LONG).ok();
    stream.check(&stream.data());
    // Nothing is left to read, and nothing changes.
    let said = Live::start(stream.run(&stream.data(), &[]).arg("--until-caught-up")).end(LONG).ok();
    assert!(said.contains("going on from checkpoint"), "{said}");
    stream.check(&stream.data());
    let letters = Live::start(&mut stream.command(&["dead-letters", "list", "--limit", "1"])).end(SOON);
    assert!(letters.stdout.contains("dead letters\n"), "{letters:?}");
}

#[test]
fn a_run_that_is_killed_again_and_again_comes_to_the_same_table() {
    let stream = Stream::new("killed", 12);
    stream.append();
    for round in 0..4 {
        let run = Live::start(stream.run(&stream.data(), &SLOW).arg("--until-caught-up"));
        std::thread::sleep(Duration::from_millis(700 + 400 * round));
        run.kill();
    }
    Live::start(stream.run(&stream.data(), &[]).arg("--until-caught-up")).end(LONG).ok();
    stream.check(&stream.data());
}

#[test]
fn servers_that_are_killed_lose_nothing() {
    for (seed, server) in (21..).zip(["kafka", "cassandra", "s3"]) {
        one_server_is_killed(server, seed);
    }
}

fn one_server_is_killed(server: &str, seed: u64) {
    let stream = Stream::new(&format!("kill{server}"), seed);
    stream.append();
    let mut run = Live::start(stream.run(&stream.data(), &SLOW).args(["--until-caught-up", "--supervise"]));
    run.says("partitions; SIGTERM", PATIENCE);
    std::thread::sleep(Duration::from_millis(500));
    assert!(run.is_running(), "it was over before anything was killed: {}", run.stderr());
    stream.servers.kill(server);
    // Without a table no checkpoint is made, and a run ends that has read everything: its supervisor
    // must wait for as long as it takes.
    std::thread::sleep(Duration::from_secs(if server == "cassandra" { 25 } else { 2 }));
    stream.servers.start(server);
    run.end(LONG).ok();
    stream.check(&stream.data());
}

/// The plain contract knows no cap.
const UNBOUNDED: [&str; 1] = ["join.request_events_max=off"];

/// Two million events. Undisturbed they come to the contract's table; and into another table they do
/// while uptake and then each server is killed in the middle of one run.
#[test]
fn the_reference_workload_is_counted_by_the_contract_whatever_is_killed() {
    let test = "the_reference_workload_is_counted_by_the_contract_whatever_is_killed";
    let Some(workload) = Workload::find(test) else { return };
    let (input, files) = workload.generate(42, 2_000_000, &[]);
    let answer =
        std::thread::spawn(move || contract_py(&workload.bench, &["--horizon-ms", "5400000"], &files));
    let (servers, folder) = (Servers::take("medium"), tempfile::tempdir().unwrap());
    let settings = servers.settings();
    let stream = Stream { servers, folder, settings, table: String::new() }.with_stores("plain");
    stream.append_all(input.path());
    let begun = Instant::now();
    Live::start(stream.run(&stream.data(), &[]).arg("--until-caught-up")).end(LONG).ok();
    let took = begun.elapsed();
    let stream = Stream { table: answer.join().unwrap(), ..stream };
    stream.check(&stream.data());
    say(&format!("{test}: 2,000,000 events from Kafka to Cassandra in {took:.1?}"));

    let stream = stream.with_stores("killed");
    stream.migrate();
    let data = stream.folder.path().join("killed");
    let quick_restart = ["checkpoint.interval=1s", "batch.events_max=20000", "batch.in_flight=1"];
    let mut command = stream.run(&data, &quick_restart);
    let mut run = Live::start(command.args(["--until-caught-up", "--supervise", "--cluster", "killed"]));
    run.says("partitions; SIGTERM", PATIENCE);
    std::thread::sleep(Duration::from_millis(1_500));
    for killed in ["uptake", "kafka", "cassandra", "s3"] {
        assert!(run.is_running(), "it was over before {killed} was killed: {}", run.stderr());
        match (killed, run.supervised()) {
            ("uptake", Some(pid)) => kill("KILL", &pid.to_string()),
            ("uptake", None) => panic!("nothing is supervised: {}", run.stderr()),
            _ => {
                stream.servers.kill(killed);
                stream.servers.start(killed);
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    run.end(LONG).ok();
    stream.check_of(&data, "killed");
}

#[test]
fn two_clusters_read_the_same_topics() {
    let stream = Stream::new("two", 14);
    stream.append();
    let other = stream.folder.path().join("other");
    let both: Vec<Live> = [stream.data(), other.clone()]
        .iter()
        .zip(["main", "second"])
        .map(|(data, name)| Live::start(stream.run(data, &[]).args(["--until-caught-up", "--cluster", name])))
        .collect();
    both.into_iter().for_each(|run| drop(run.end(LONG).ok()));
    stream.check(&stream.data());
    let books = |name| {
        let ended = Live::start(&mut stream.command(&["ledger", "--json", "--cluster", name])).end(SOON);
        let books: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(books["balances"], true, "{books}");
        books["counted"].clone()
    };
    assert_eq!(books("main"), books("second"));
}

/// A server that is away, and one that takes connections and says nothing.
#[test]
fn a_broker_that_does_not_answer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    for address in [silent.local_addr().unwrap(), closed] {
        let url = format!("log.url=kafka://{address}");
        let begun = Instant::now();
        let settings = [
            &*url,
            "kafka.security.protocol=SASL_PLAINTEXT",
            "kafka.sasl.mechanism=PLAIN",
            "kafka.sasl.username=u",
            "kafka.sasl.password=hunter2",
        ];
        let ended = Live::start(&mut run_command(folder.path(), &settings)).end(PATIENCE);
        let said = ended.fails(69, &[&format!("kafka://{address}")]);
        assert!(!said.contains("hunter2") && begun.elapsed() < Duration::from_secs(40), "{said}");
    }
}
