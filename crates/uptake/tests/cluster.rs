//! Several processes as one cluster, on this machine: the same table as one process, whoever of
//! them is killed, however many come back; and clear words where they do not find together.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::live::{
    Live, PATIENCE, SOON, Streamed, append, audience, catch_up, kill, ledger, pick, run_command, seeded,
    table_now, wait_until,
};
use common::{Place, csv, say};
use uptake_sim::Rng;

/// So that a run takes some time.
const SLOWLY: &[&str] = &["checkpoint.interval=50ms", "batch.events_max=100", "batch.in_flight=1"];
/// Exit code of who may try again when the others are back.
const TRY_AGAIN: i32 = 75;

/// A hosts file with as many free ports of this machine.
fn hosts(place: &Place, name: &str, processes: usize) -> PathBuf {
    let free: Vec<TcpListener> = (0..processes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let lines: Vec<String> = free.iter().map(|l| format!("{}\n", l.local_addr().unwrap())).collect();
    place.write(name, lines.concat())
}

/// One process of a cluster.
fn process(data: &Path, hosts: &Path, number: usize, settings: &[&str], arguments: &[&str]) -> Live {
    let mut command = run_command(data, settings);
    command.arg("--hosts").arg(hosts).args(["--process", &number.to_string()]).args(arguments);
    Live::start(&mut command)
}

/// All of them.
fn cluster(place: &Place, data: &Path, processes: usize, settings: &[&str], arguments: &[&str]) -> Vec<Live> {
    let hosts = hosts(place, "hosts", processes);
    (0..processes).map(|number| process(data, &hosts, number, settings, arguments)).collect()
}

#[test]
fn as_many_processes_as_you_like_come_to_one_table() {
    let place = Place::new();
    let mut rng = seeded("as_many_processes_as_you_like_come_to_one_table");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 20_000);
    // Ten workers have more of them than there are partitions.
    for (processes, workers) in [(2, "1"), (2, "2"), (3, "1"), (3, "2"), (2, "5"), (1, "2")] {
        for settings in [&[], SLOWLY] {
            let data = stream.copy(&place.path("together"));
            let arguments = ["--workers", workers, "--until-caught-up"];
            for process in cluster(&place, &data, processes, settings, &arguments) {
                process.end(PATIENCE).ok();
            }
            stream.check(&data);
            std::fs::remove_dir_all(&data).unwrap();
        }
    }
}

#[test]
fn one_killed_stops_all_and_any_others_go_on() {
    let place = Place::new();
    let mut rng = seeded("one_killed_stops_all_and_any_others_go_on");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 100_000);
    let data = stream.copy(&place.path("killed"));
    let mut reads = Vec::new();
    for _ in 0..7 {
        let (processes, workers) = (pick(&mut rng, &[2, 3]), pick(&mut rng, &["1", "2"]));
        // On a busy machine one may be killed before the others have met it.
        let settings = [SLOWLY, &["cluster.start_deadline=3s"]].concat();
        let mut all = cluster(&place, &data, processes, &settings, &["--workers", workers]);
        all.iter().for_each(|process| process.says("reading impressions", SOON));
        std::thread::sleep(Duration::from_millis(150 + rng.next_u64() % 250));
        let killed = all.remove((rng.next_u64() % processes as u64) as usize);
        killed.kill();
        let begun = Instant::now();
        for other in all {
            let said = other.end(Duration::from_secs(10)).fails(TRY_AGAIN, &[]);
            let lost: Vec<&str> =
                said.lines().filter(|line| line.contains("all processes of the cluster stop")).collect();
            let waited = said.lines().filter(|line| line.contains("waited")).count();
            assert_eq!(lost.len() + waited, 1, "one clear line: {said}");
            assert!(said.lines().last().unwrap().starts_with("uptake: "), "{said}");
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        if data.join("checkpoints/main").is_dir() {
            let printed = common::uptake(["ledger", "--json", "--data", data.to_str().unwrap()]);
            reads.extend((printed.code == Some(0)).then(|| ledger(&data)["read"].as_u64().unwrap()));
        }
    }
    say(&format!("read at the last checkpoint after each kill: {reads:?}"));
    assert!(reads.is_sorted(), "{reads:?}");
    for process in cluster(&place, &data, 3, &[], &["--until-caught-up", "--workers", "1"]) {
        process.end(PATIENCE).ok();
    }
    stream.check(&data);
}

#[test]
fn supervised_processes_come_back_by_themselves() {
    let place = Place::new();
    let mut rng = seeded("supervised_processes_come_back_by_themselves");
    for (processes, workers) in [(2, "2"), (3, "1")] {
        let seed = rng.next_u64() % 1_000;
        let folder = place.path(&format!("of-{processes}"));
        std::fs::create_dir(&folder).unwrap();
        let stream = Streamed::audience(&folder, seed, 60_000);
        let data = stream.copy(&folder.join("supervised"));
        let all = cluster(&place, &data, processes, SLOWLY, &["--supervise", "--workers", workers]);
        let mut kills = 0;
        while kills < 3 {
            std::thread::sleep(Duration::from_millis(300 + rng.next_u64() % 400));
            let victim = &all[(rng.next_u64() % processes as u64) as usize];
            if let Some(child) = victim.supervised() {
                kill("KILL", &child.to_string());
                kills += 1;
            }
        }
        let begun = Instant::now();
        while table_now(&data) != stream.table {
            let said: Vec<String> = all.iter().map(Live::stderr).collect();
            assert!(begun.elapsed() < PATIENCE, "the table is not complete:\n{}", said.join("\n---\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
        // One of them is told to stop, and all do, in good order.
        all[(rng.next_u64() % processes as u64) as usize].signal("TERM");
        let said: Vec<String> = all.into_iter().map(|process| process.end(SOON).ok()).collect();
        let restarts: usize = said.iter().map(|said| said.matches("starting again in").count()).sum();
        say(&format!("{processes} processes, {kills} kills, {restarts} restarts"));
        assert!(restarts >= kills, "{said:?}");
        // The last records may change no row, and be read after the last one did.
        catch_up(&data, &[]);
        stream.check(&data);
    }
}

#[test]
fn a_signal_to_one_stops_all_with_a_checkpoint() {
    let place = Place::new();
    let mut rng = seeded("a_signal_to_one_stops_all_with_a_checkpoint");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 60_000);
    let data = stream.copy(&place.path("stopped"));
    let mut reads = Vec::new();
    for told in 0..3 {
        // Only the last checkpoint holds anything.
        let settings = ["batch.events_max=100", "batch.in_flight=1"];
        let all = cluster(&place, &data, 3, &settings, &["--workers", "1"]);
        all.iter().for_each(|process| process.says("reading impressions", SOON));
        std::thread::sleep(Duration::from_millis(200 + rng.next_u64() % 100));
        all[told].signal("TERM");
        for process in all {
            let said = process.end(Duration::from_secs(10)).ok();
            assert!(said.contains("stopped: "), "{said}");
        }
        reads.push(ledger(&data)["read"].as_u64().unwrap());
    }
    say(&format!("read when stopped: {reads:?}"));
    assert!(reads.is_sorted() && reads[0] > 0, "{reads:?}");
    for process in cluster(&place, &data, 2, &[], &["--until-caught-up", "--workers", "1"]) {
        process.end(PATIENCE).ok();
    }
    stream.check(&data);
}

/// What keeps processes from finding together is said by each of them, with what to do.
#[test]
fn processes_that_do_not_find_together_say_why() {
    let place = Place::new();
    let (bytes, _) = audience(1, 200);
    let file = place.write("events.jsonl", bytes);
    let data = place.data();
    append(&data, &[&file]);
    let quick = ["cluster.start_deadline=2s"];
    // Mistakes in the hosts file.
    for (text, says) in [
        ("", "is needed for each process"),
        ("# nothing\n\n", "is needed for each process"),
        ("127.0.0.1\n", "wrong: [\"127.0.0.1\"]"),
        ("127.0.0.1:port\n:4711\n127.0.0.1:70000\n", "127.0.0.1:70000"),
    ] {
        let path = place.write("wrong", text);
        process(&data, &path, 0, &quick, &[]).end(SOON).fails(2, &["--hosts", says]);
    }
    process(&data, &place.path("nowhere"), 0, &quick, &[]).end(SOON).fails(2, &["nowhere"]);
    let two = hosts(&place, "two", 2);
    process(&data, &two, 2, &quick, &[]).end(SOON).fails(2, &["--process 2", "names 2 processes"]);
    let mut half = run_command(&data, &quick);
    Live::start(half.arg("--hosts").arg(&two)).end(SOON).fails(2, &["--process"]);
    // A name that is none.
    let path = place.write("unknown", "127.0.0.1:0\nno-such-host.invalid:4711\n");
    process(&data, &path, 0, &quick, &[]).end(SOON).fails(TRY_AGAIN, &["no-such-host.invalid:4711"]);
    // A port that another program has.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = place.write("taken", format!("{}\n127.0.0.1:1\n", taken.local_addr().unwrap()));
    process(&data, &path, 0, &quick, &[]).end(SOON).fails(1, &["cannot listen on 127.0.0.1:", "in use"]);
    // One that never comes; and one that is told to stop while it waits.
    let begun = Instant::now();
    let said =
        process(&data, &two, 0, &quick, &[]).end(SOON).fails(TRY_AGAIN, &["waited 2 s for process 1 ("]);
    assert!(begun.elapsed() > Duration::from_secs(2), "{said}");
    process(&data, &two, 1, &quick, &[]).end(SOON).fails(TRY_AGAIN, &["waited 2 s for process 0 ("]);
    for arguments in [&[][..], &["--supervise"]] {
        let waiting = process(&data, &two, 0, &[], arguments);
        waiting.says("reading impressions", SOON);
        waiting.signal("TERM");
        waiting.end(Duration::from_secs(5)).ok();
    }
    // Others than expected.
    let three = place.write("three", std::fs::read_to_string(&two).unwrap() + "127.0.0.1:1\n");
    type Start<'a> = (&'a Path, usize, &'a [&'a str], &'a [&'a str]);
    let others: [(Start<'_>, &str); 4] = [
        ((&two, 1, &["batch.events_max=7", quick[0]], &["--workers", "1"]), "another version, configuration"),
        ((&two, 1, &quick, &["--workers", "2"]), "another number of workers"),
        ((&three, 1, &quick, &["--workers", "1"]), "another number of hosts"),
        ((&two, 1, &quick, &["--workers", "1", "--cluster", "other"]), "cluster name"),
    ];
    for ((hosts, number, settings, arguments), says) in others {
        let first = process(&data, &two, 0, &quick, &["--workers", "1"]);
        let second = process(&data, hosts, number, settings, arguments);
        for process in [first, second] {
            let said = process.end(SOON).fails(1, &["the cluster did not come together", says]);
            assert_eq!(said.lines().count(), 2, "{said}");
        }
    }
    // The same process twice.
    let first = process(&data, &two, 0, &quick, &[]);
    first.says("reading impressions", SOON);
    process(&data, &two, 0, &quick, &[]).end(SOON).fails(1, &["in use by another process"]);
    drop(first);
    // A stranger who calls is not listened to.
    let first = process(&data, &two, 0, &quick, &["--workers", "1", "--until-caught-up"]);
    first.says("reading impressions", SOON);
    let address = std::fs::read_to_string(&two).unwrap().lines().next().unwrap().to_owned();
    let mut stranger = None;
    wait_until("it listens", SOON, || {
        stranger = std::net::TcpStream::connect(&address).ok();
        stranger.is_some()
    });
    std::io::Write::write_all(&mut stranger.unwrap(), b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let second = process(&data, &two, 1, &quick, &["--workers", "1", "--until-caught-up"]);
    [first, second].into_iter().for_each(|process| drop(process.end(SOON).ok()));
    assert_eq!(ledger(&data)["read"], 200);
}

/// Waits for the end of a killed cluster's other processes.
fn stop_all(mut all: Vec<Live>, rng: &mut Rng) {
    all.remove((rng.next_u64() % all.len() as u64) as usize).kill();
    for other in all {
        assert!(matches!(other.end(Duration::from_secs(10)).code, Some(0 | TRY_AGAIN)));
    }
}

/// For no downtime: two of them beside each other, and the table does not mind.
#[test]
fn two_clusters_side_by_side_write_one_table() {
    let place = Place::new();
    let mut rng = seeded("two_clusters_side_by_side_write_one_table");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 40_000);
    let data = stream.copy(&place.path("twins"));
    let both = ["a", "b"];
    for _ in 0..4 {
        let mut running = Vec::new();
        for (name, processes) in both.iter().zip([1, 2]) {
            let file = hosts(&place, name, processes);
            // On a busy machine one may be killed before the others have met it.
            let settings = [SLOWLY, &["cluster.start_deadline=3s"]].concat();
            let of =
                |number| process(&data, &file, number, &settings, &["--workers", "1", "--cluster", name]);
            running.push((0..processes).map(of).collect::<Vec<_>>());
        }
        std::thread::sleep(Duration::from_millis(100 + rng.next_u64() % 500));
        let first = (rng.next_u64() % 2) as usize;
        stop_all(running.remove(first), &mut rng);
        std::thread::sleep(Duration::from_millis(rng.next_u64() % 100));
        stop_all(running.remove(0), &mut rng);
    }
    let last: Vec<Live> = both
        .iter()
        .map(|name| Live::start(run_command(&data, &[]).args(["--cluster", name, "--until-caught-up"])))
        .collect();
    last.into_iter().for_each(|run| drop(run.end(PATIENCE).ok()));
    for name in both {
        stream.check_of(&data, name);
    }
    // A third one that comes later reads it all again, and changes nothing.
    let before = csv(&data);
    catch_up(&data, &[]);
    assert_eq!(csv(&data), before);
}
