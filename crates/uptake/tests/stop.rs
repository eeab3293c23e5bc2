//! How a live run ends: by a signal in good order, at once or under load, and under a supervisor,
//! whose end is the run's end too.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::live::{
    Live, PATIENCE, SOON, Streamed, append, catch_up, is_alive, kill, ledger, run_command, seeded, table_now,
    wait_until,
};
use common::{Place, csv, events, say, told, uptake};

/// Checkpoints often enough to look at.
const WATCHED: &[&str] = &["checkpoint.interval=100ms", "batch.tick=50ms", "table.write_interval=50ms"];
/// So that a run takes some time.
const SLOWLY: &[&str] = &["checkpoint.interval=50ms", "batch.events_max=40", "batch.in_flight=1"];

/// Waits until the table is as the plain contract says.
#[track_caller]
fn wait_for_table(stream: &Streamed, data: &Path) {
    wait_until("the table is complete", PATIENCE, || table_now(data) == stream.table);
}

#[test]
fn a_signal_stops_an_idle_run_and_nothing_is_read_again() {
    let place = Place::new();
    let mut rng = seeded("a_signal_stops_an_idle_run_and_nothing_is_read_again");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 5_000);
    for signal in ["TERM", "INT"] {
        let data = stream.copy(&place.path(signal));
        // The usual settings: only the last checkpoint can hold everything.
        let run = Live::start(&mut run_command(&data, &[]));
        wait_for_table(&stream, &data);
        run.signal(signal);
        let said = run.end(Duration::from_secs(5)).ok();
        assert!(said.contains("stopped: 5,000 records read"), "{said}");
        stream.check(&data);
        let said = catch_up(&data, &[]);
        assert!(
            said.contains("going on from checkpoint") && said.contains("stopped: 5,000 records"),
            "{said}"
        );
        stream.check(&data);
    }
}

#[test]
fn a_signal_under_load_keeps_what_was_read() {
    let place = Place::new();
    let mut rng = seeded("a_signal_under_load_keeps_what_was_read");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 60_000);
    let data = stream.copy(&place.path("loaded"));
    let mut reads = vec![0];
    for workers in ["1", "2", "3"] {
        let run = Live::start(run_command(&data, SLOWLY).args(["--workers", workers]));
        run.says("reading impressions", SOON);
        std::thread::sleep(Duration::from_millis(20 + rng.next_u64() % 60));
        run.signal("TERM");
        let said = run.end(Duration::from_secs(5)).ok();
        let read = ledger(&data)["read"].as_u64().unwrap();
        let stopped = said.lines().last().unwrap().replace(',', "");
        assert!(stopped.contains(&format!("stopped: {read} records read")), "{read}: {said}");
        assert!(read >= *reads.last().unwrap());
        reads.push(read);
    }
    say(&format!("stopped after {reads:?} of 60000 records"));
    assert!(reads[1] < 60_000, "it was not under load");
    catch_up(&data, &[]);
    stream.check(&data);
}

/// However seldom the table is written to, at the end of a run it has everything.
#[test]
fn the_table_has_all_that_a_stopped_run_counted() {
    let place = Place::new();
    let mut rng = seeded("the_table_has_all_that_a_stopped_run_counted");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 5_000);
    for checkpoints in ["1h", "100ms"] {
        let data = stream.copy(&place.path(checkpoints));
        let interval = format!("checkpoint.interval={checkpoints}");
        catch_up(&data, &["table.write_interval=1h", &interval]);
        stream.check(&data);
    }
}

/// What was counted and not sealed is in the state, whatever the lateness was when it was counted: it is sealed under
/// the one that holds now.
#[test]
fn a_lateness_that_changes_between_two_runs_loses_no_tally() {
    let place = Place::new();
    let counted = place.write("1.jsonl", events("i r1 v1 00:10 | p r1 v1 00:11 | i r9 v9 05:31"));
    let more = place.write("2.jsonl", events("i r3 v3 09:40 | p r3 v3 09:41"));
    for [before, now] in [["2h", "0s"], ["0s", "6h"], ["2h", "30m"]] {
        let data = place.path(&format!("{before}-{now}"));
        append(&data, &[&counted]);
        catch_up(&data, &[&format!("join.lateness={before}")]);
        // The table must come from the state alone, unless it was sealed then.
        if before != "0s" {
            for file in std::fs::read_dir(&data).unwrap() {
                let file = file.unwrap().path();
                if file.file_name().unwrap().to_str().unwrap().starts_with("table.sqlite") {
                    std::fs::remove_file(file).unwrap();
                }
            }
        }
        append(&data, &[&more]);
        let now = format!("join.lateness={now}");
        catch_up(&data, &[&now]);
        assert_eq!(told(&csv(&data)), "v1 00:00 1/1 | v3 09:30 1/1", "{before} {now}");
        let rows = uptake(["tallies", "--format", "json", "--data", data.to_str().unwrap()]).ok();
        let v1 = rows.lines().find(|row| row.contains("\"v1\"")).unwrap();
        assert!(v1.contains("\"sealed\":true"), "{before} {now}: {v1}");
    }
}

/// What was too late for a run stays too late for the next ones, however much lateness they have: its epoch was sealed
/// and let go of, and would begin anew.
#[test]
fn more_lateness_than_before_opens_no_epoch_again() {
    let place = Place::new();
    let data = place.data();
    append(&data, &[&place.write("1.jsonl", events("i r1 v1 02:00 | p r1 v1 02:01 | i r9 v9 14:00"))]);
    catch_up(&data, &["join.lateness=2h"]);
    // The watermark stands at 12:00, so before 8:30 is too late.
    for (round, late) in [(1, 2), (2, 4)] {
        let again =
            format!("i a{round} v1 02:00 | p a{round} v1 02:01 | i b{round} v2 08:40 | p b{round} v2 08:41");
        append(&data, &[&place.write("again.jsonl", events(&again))]);
        catch_up(&data, &["join.lateness=12h"]);
        let books = ledger(&data);
        assert_eq!((&books["late"], &books["counted"]), (&late.into(), &(2 + 2 * round).into()), "{books}");
        assert_eq!(told(&csv(&data)), format!("v1 02:00 1/1 | v2 08:30 {round}/{round}"));
    }
    assert_eq!(common::late_events(&data).len(), 4);
}

/// A second signal, or one before the run has begun to read, does no harm either.
#[test]
fn signals_at_odd_moments() {
    let place = Place::new();
    let mut rng = seeded("signals_at_odd_moments");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 5_000);
    let data = stream.copy(&place.path("odd"));
    for round in 0..12 {
        let run = Live::start(&mut run_command(&data, SLOWLY));
        std::thread::sleep(Duration::from_millis(rng.next_u64() % 40));
        run.signal("TERM");
        if round % 2 == 0 {
            std::thread::sleep(Duration::from_millis(rng.next_u64() % 5));
            run.signal("TERM");
        }
        let ended = run.end(SOON);
        // By the signal itself before it was listened to; 130: told twice, it stops at once.
        assert!(ended.signal == Some(15) || matches!(ended.code, Some(0 | 130)), "{ended:?}");
    }
    catch_up(&data, &[]);
    stream.check(&data);
}

/// What waits is over, and epochs are sealed, when other events have moved the watermark, though
/// nothing more comes.
#[test]
fn time_passes_without_data() {
    let place = Place::new();
    let data = place.data();
    let first = place.write("a.jsonl", events("i r1 v1 10:00 | i r2 v2 10:05 | p r2 v2 10:06"));
    append(&data, &[&first]);
    let run = Live::start(run_command(&data, WATCHED).args(["--workers", "2"]));
    let books = |key: &str| ledger(&data)[key].as_u64().unwrap();
    wait_until("a checkpoint", SOON, || {
        table_now(&data).lines().count() == 2 && data.join("checkpoints/main").is_dir()
    });
    wait_until("all is read", SOON, || {
        common::uptake(["ledger", "--data", data.to_str().unwrap()]).code == Some(0) && books("read") == 3
    });
    assert_eq!((books("waiting"), books("expired"), books("counted")), (1, 0, 2));
    let second = place.write("b.jsonl", events("i r3 v3 18:00"));
    append(&data, &[&second]);
    wait_until("r1 is over", SOON, || (books("waiting"), books("expired")) == (1, 1));
    let sealed = || data.join("tallies").is_dir() && common::files_below(&data.join("tallies")).len() == 1;
    wait_until("10:00 is sealed", SOON, sealed);
    run.signal("TERM");
    run.end(SOON).ok();
    assert_eq!(told(&csv(&data)), "v2 10:00 1/1");
    // And without it the rest waits on.
    catch_up(&data, &[]);
    assert_eq!((books("read"), books("waiting"), books("expired")), (4, 1, 1));
}

fn supervised(data: &Path, settings: &[&str]) -> Command {
    let mut command = run_command(data, settings);
    command.arg("--supervise");
    command
}

/// Waits until the supervisor has a child other than `before` that reads.
#[track_caller]
fn child(supervisor: &Live, before: u32) -> u32 {
    let mut pid = 0;
    wait_until("the supervisor starts a run", SOON, || {
        pid = supervisor.supervised().unwrap_or(before);
        pid != before && pid != 0
    });
    pid
}

#[test]
fn a_supervisor_restarts_what_was_killed() {
    let place = Place::new();
    let mut rng = seeded("a_supervisor_restarts_what_was_killed");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 100_000);
    let data = stream.copy(&place.path("supervised"));
    let supervisor = Live::start(supervised(&data, SLOWLY).arg("--until-caught-up"));
    let (mut pid, mut kills) = (0, 0);
    while kills < 4 && table_now(&data) != stream.table {
        pid = child(&supervisor, pid);
        std::thread::sleep(Duration::from_millis(50 + rng.next_u64() % 100));
        kill("KILL", &pid.to_string());
        kills += 1;
    }
    let said = supervisor.end(PATIENCE).ok();
    let restarts = said.matches("starting again in").count();
    say(&format!("killed {kills} times, restarted {restarts} times"));
    assert!(restarts >= 1, "{said}");
    stream.check(&data);
}

/// What cannot get better is not tried for ever.
#[test]
fn a_supervisor_gives_up_what_fails_the_same_way() {
    let place = Place::new();
    let (bytes, _) = common::live::audience(1, 500);
    let file = place.write("events.jsonl", bytes);
    let data = place.data();
    append(&data, &[&file]);
    catch_up(&data, &[]);
    for object in std::fs::read_dir(data.join("checkpoints/main")).unwrap() {
        std::fs::write(object.unwrap().path(), "torn").unwrap();
    }
    let ended = Live::start(&mut supervised(&data, &[])).end(SOON);
    let said = ended.fails(1, &["checkpoints of cluster main can be read", "gave up after 5 failures"]);
    assert_eq!(said.matches("starting again").count(), 4, "{said}");
    // Mistakes of who typed it are told at once.
    let missing = place.path("missing.toml");
    let ended = Live::start(supervised(&data, &[]).arg("--config").arg(&missing)).end(SOON);
    let said = ended.fails(2, &["missing.toml"]);
    assert!(!said.contains("starting again"), "{said}");
    Live::start(&mut supervised(&data, &["join.kind=middle"])).end(SOON).fails(2, &["join.kind"]);
}

#[test]
fn a_signal_to_the_supervisor_stops_its_run_in_good_order() {
    let place = Place::new();
    let mut rng = seeded("a_signal_to_the_supervisor_stops_its_run_in_good_order");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 5_000);
    // To the supervisor alone, as a service manager may do, and to both, as a terminal does.
    for group in [false, true] {
        let data = stream.copy(&place.path(&format!("group-{group}")));
        let supervisor = Live::start(&mut supervised(&data, &[]));
        let run = child(&supervisor, 0);
        wait_for_table(&stream, &data);
        match group {
            false => supervisor.signal("TERM"),
            true => kill("INT", &format!("-{}", supervisor.pid())),
        }
        let said = supervisor.end(Duration::from_secs(5)).ok();
        assert!(said.contains("stopped: 5,000 records read"), "{said}");
        assert!(!is_alive(run));
        stream.check(&data);
    }
}

#[test]
fn the_end_of_a_killed_supervisor_is_the_end_of_its_run() {
    let place = Place::new();
    let mut rng = seeded("the_end_of_a_killed_supervisor_is_the_end_of_its_run");
    let stream = Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 5_000);
    let data = stream.copy(&place.path("orphan"));
    let supervisor = Live::start(&mut supervised(&data, &[]));
    let run = child(&supervisor, 0);
    wait_for_table(&stream, &data);
    supervisor.kill();
    wait_until("the run ends by itself", Duration::from_secs(5), || !is_alive(run));
    // In good order: with a last checkpoint, though nobody hears what it says.
    stream.check(&data);
}
