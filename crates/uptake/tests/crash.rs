//! The process dies: killed at any moment, at every single durable step, with the newest
//! checkpoint torn. A run to the end then comes to the table of the plain contract and to the
//! books of a run that nothing disturbed.
//!
//! `UPTAKE_KILLS=200` kills more often, `UPTAKE_KILLS_INPUT=folder` does it with those event files
//! (the contract in Python is the oracle then), `UPTAKE_CRASHES=all` crashes at all steps.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::live::{
    Live, PATIENCE, SOON, Streamed, append, asked, audience, catch_up, copy_dir, ledger, pick, program,
    run_command, seeded,
};
use common::{Place, contract_py, csv, say, shared, skip, topic, uptake};
use uptake_sim::Rng;

/// The crash points of the program, for the processes of tests.
const CRASH_AT: &str = "UPTAKE_CRASH_AT";

fn given_input(place: &Place, test: &str) -> Option<Streamed> {
    let folder = PathBuf::from(std::env::var_os("UPTAKE_KILLS_INPUT")?);
    let Some(bench) = shared("bench") else {
        skip(test, "UPTAKE_KILLS_INPUT needs the plain contract: UPTAKE_SHARED names where it is");
        return None;
    };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let table = contract_py(&bench, &[], &files);
    let lines = files.iter().map(|f| std::fs::read(f).unwrap().iter().filter(|&&b| b == b'\n').count());
    let lines = lines.sum();
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    Some(Streamed::of(&place.path(""), &files, lines, table, UNBOUNDED))
}

/// The plain contract knows neither lateness nor caps.
const UNBOUNDED: &[&str] = &["join.lateness=off", "join.request_events_max=off"];

/// One way to run, different each time.
fn random_run(rng: &mut Rng, data: &Path, lines: usize, fixed: &[&str]) -> Command {
    let batch = pick(rng, &[lines / 200, lines / 40, lines / 8]).max(1);
    let settings = [
        format!("batch.events_max={batch}"),
        format!("batch.in_flight={}", pick(rng, &[1, 4, 16])),
        format!("checkpoint.interval={}", pick(rng, &["10ms", "50ms", "300ms"])),
        format!("checkpoint.keep={}", pick(rng, &[1, 3])),
        format!("table.write_interval={}", pick(rng, &["20ms", "1s"])),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).chain(fixed.iter().copied()).collect();
    let mut command = run_command(data, &settings);
    command.arg("--until-caught-up").args(["--workers", pick(rng, &["1", "2", "3"])]);
    command
}

#[test]
fn killed_at_any_moment() {
    let place = Place::new();
    let mut rng = seeded("killed_at_any_moment");
    let kills = asked("UPTAKE_KILLS", 20);
    let given = given_input(&place, "killed_at_any_moment");
    let fixed = if given.is_some() { UNBOUNDED } else { &[] };
    // The windows are made for a lateness: without one each batch looks at all there was.
    let methods: &[&str] = if given.is_some() { &["state"] } else { &["state", "window", "batch-to-window"] };
    let stream = given.unwrap_or_else(|| Streamed::audience(&place.path(""), rng.next_u64() % 1_000, 40_000));
    let (mut killed, mut lives, mut went_on) = (0, 0, 0);
    while killed < kills {
        let data = stream.copy(&place.path("killed"));
        // The state of another method means something else, so it stays.
        let method = pick(&mut rng, methods);
        let by_method = format!("join.method={method}");
        let fixed: Vec<&str> = fixed.iter().copied().chain([by_method.as_str()]).collect();
        for _ in 0..5 {
            let run = Live::start(&mut random_run(&mut rng, &data, stream.lines, &fixed));
            let most = stream.took.as_millis() as u64 * 5 / 4;
            std::thread::sleep(Duration::from_millis(rng.next_u64() % most.max(1)));
            run.signal("KILL");
            let ended = run.end(SOON);
            went_on += u64::from(ended.stderr.contains("going on from checkpoint"));
            if ended.signal != Some(9) {
                assert_eq!(ended.code, Some(0), "{}", ended.stderr);
                break;
            }
            killed += 1;
        }
        Live::start(&mut random_run(&mut rng, &data, stream.lines, &fixed)).end(4 * PATIENCE).ok();
        stream.check_table(&data);
        stream.check_books(ledger(&data), method);
        std::fs::remove_dir_all(&data).unwrap();
        lives += 1;
    }
    say(&format!("killed {killed} times in {lives} lives; {went_on} runs began from a checkpoint"));
    assert!(went_on > 0, "the kills came before any checkpoint");
}

/// A checkpoint after about every batch.
const OFTEN: &[&str] =
    &["batch.events_max=100", "batch.in_flight=1", "checkpoint.events_max=1", "table.write_interval=10ms"];

/// Lets a command end at its `n`-th durable step; what was done last there, or `None` if it ended
/// before.
fn crash_at(n: u64, command: &mut Command) -> Option<String> {
    let ended = Live::start(command.env(CRASH_AT, n.to_string())).end(SOON);
    if ended.signal.is_none() {
        ended.ok();
        return None;
    }
    assert_eq!(ended.signal, Some(6), "it aborts: {}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    let what = last.strip_prefix(&format!("crash point {n}: ")).unwrap_or_else(|| panic!("{}", ended.stderr));
    Some(what.to_owned())
}

#[test]
fn crashed_at_every_durable_step() {
    let place = Place::new();
    let mut rng = seeded("crashed_at_every_durable_step");
    let (bytes, table) = audience(rng.next_u64() % 1_000, 10_000);
    let file = place.write("events.jsonl", bytes);
    let stream = Streamed::of(&place.path(""), &[&file], 10_000, table, &[]);
    assert!(common::files_below(&place.path("undisturbed/tallies")).len() > 2, "epochs are sealed");
    let all = std::env::var("UPTAKE_CRASHES").is_ok_and(|which| which == "all");
    // All of the first checkpoints with what is deleted after them, then every few.
    let (whole, step) = (100, if all { 1 } else { 12 });
    let (mut n, mut crashes, mut steps) = (1, 0, std::collections::BTreeMap::<String, u32>::new());
    loop {
        let data = stream.copy(&place.path("crashed"));
        let run = |n: u64| {
            let mut command = run_command(&data, OFTEN);
            crash_at(n, command.args(["--until-caught-up", "--workers", "1", "--set", "checkpoint.keep=1"]))
        };
        let Some(what) = run(n) else { break };
        *steps.entry(what.clone()).or_default() += 1;
        crashes += 1;
        // Every few times the one that goes on dies as well.
        if crashes % 5 == 0 {
            run(1 + rng.next_u64() % 60);
        }
        catch_up(&data, &[]);
        stream.check(&data);
        // Every epoch that was sealed is in the archive, and the log is whole.
        let archive = |data: &Path| common::files_below(&data.join("tallies"));
        assert!(
            archive(&data) == archive(&place.path("undisturbed")),
            "the archive after a crash at {n}, {what}"
        );
        assert!(topic(&data, "dead-letters").len() as u64 >= stream.ledger["dead"].as_u64().unwrap());
        std::fs::remove_dir_all(&data).unwrap();
        n += if n < whole { 1 } else { 1 + rng.next_u64() % (2 * step - 1) };
    }
    say(&format!("crashed at {crashes} of {n} steps: {steps:?}"));
    assert!(crashes > 100, "only {crashes}");
    for what in ["linked", "temporary file written", "removed", "directory flushed"] {
        assert!(steps.contains_key(what), "no crash at: {what}");
    }
}

/// What a producer has to do after a failure: append the same file again. What is in the log twice
/// counts once.
#[test]
fn an_append_that_crashed_is_appended_again() {
    let place = Place::new();
    let mut rng = seeded("an_append_that_crashed_is_appended_again");
    let (bytes, table) = audience(rng.next_u64() % 1_000, 1_000);
    let file = place.write("events.jsonl", bytes);
    let mut crashes = 0;
    for n in 1.. {
        let data = place.path("appended");
        let mut command = Command::new(program());
        let crashed = crash_at(n, command.arg("append").arg(&file).arg("--data").arg(&data));
        crashes += u64::from(crashed.is_some());
        if crashed.is_some() {
            append(&data, &[&file]);
        }
        catch_up(&data, OFTEN);
        let ours = common::without_exact(&csv(&data));
        assert_eq!(common::first_difference(&ours, &table), None, "crashed at {n}, {crashed:?}");
        let books = ledger(&data);
        let read = books["read"].as_u64().unwrap();
        assert!((1_000..=2_000).contains(&read), "{books}");
        std::fs::remove_dir_all(&data).unwrap();
        if crashed.is_none() {
            break;
        }
    }
    say(&format!("an append crashed at {crashes} steps"));
    assert!(crashes > 30);
}

/// The objects of a cluster's checkpoints whose names begin like this, oldest first.
fn objects(data: &Path, prefix: &str) -> Vec<PathBuf> {
    let folder = data.join("checkpoints/main");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix));
    found.sort();
    found
}

/// The newest checkpoint is refused in one line, and the one before is gone on from.
#[test]
fn a_torn_checkpoint_is_refused_and_the_one_before_is_used() {
    let place = Place::new();
    let mut rng = seeded("a_torn_checkpoint_is_refused_and_the_one_before_is_used");
    let (bytes, table) = audience(rng.next_u64() % 1_000, 4_000);
    let file = place.write("events.jsonl", bytes);
    let stream = Streamed::of(&place.path(""), &[&file], 4_000, table, OFTEN);
    // Several checkpoints, the newest in the middle of the log.
    let begun = stream.copy(&place.path("begun"));
    let mut n = 600;
    while crash_at(n, run_command(&begun, OFTEN).args(["--until-caught-up", "--workers", "2"])).is_none()
        || objects(&begun, "manifest-").len() < 2
    {
        std::fs::remove_dir_all(&begun).unwrap();
        stream.copy(&begun);
        n = 200 + rng.next_u64() % 600;
    }
    let flip = |path: &Path, rng: &mut Rng| {
        let mut bytes = std::fs::read(path).unwrap();
        let at = (rng.next_u64() % bytes.len() as u64) as usize;
        bytes[at] ^= 1 << (rng.next_u64() % 8);
        std::fs::write(path, bytes).unwrap();
    };
    let cut = |path: &Path, rng: &mut Rng| {
        let bytes = std::fs::read(path).unwrap();
        let len = (rng.next_u64() % bytes.len() as u64) as usize;
        std::fs::write(path, &bytes[..len]).unwrap();
    };
    let delete = |path: &Path, _: &mut Rng| std::fs::remove_file(path).unwrap();
    type Tear<'a> = (&'a str, &'a dyn Fn(&Path, &mut Rng));
    let tears: [Tear<'_>; 3] = [("flipped", &flip), ("cut", &cut), ("deleted", &delete)];
    for (how, tear) in tears {
        for what in ["manifest-", "segment-"] {
            for _ in 0..4 {
                let data = place.path("torn");
                copy_dir(&begun, &data);
                let manifest = objects(&data, "manifest-").pop().unwrap();
                let label =
                    manifest.file_name().unwrap().to_str().unwrap()["manifest-".len()..][..15].to_owned();
                let of_it = objects(&data, &format!("{what}{label}"));
                tear(&of_it[(rng.next_u64() % of_it.len() as u64) as usize], &mut rng);
                let said = catch_up(&data, OFTEN);
                let refused: Vec<&str> = said.lines().filter(|line| line.contains("refused")).collect();
                // Without its manifest there is no checkpoint, which nobody can know.
                let lines = usize::from((how, what) != ("deleted", "manifest-"));
                assert_eq!(refused.len(), lines, "{what} {how}: {said}");
                assert!(refused.iter().all(|line| line.contains(&label)), "it is named: {said}");
                assert!(said.contains("going on from checkpoint"), "{what} {how}: {said}");
                stream.check(&data);
                std::fs::remove_dir_all(&data).unwrap();
            }
        }
    }
    // All of them: nothing is counted from the start without being asked for.
    for what in ["manifest-", "segment-"] {
        let data = place.path("torn");
        copy_dir(&begun, &data);
        objects(&data, what).iter().for_each(|path| std::fs::write(path, "torn").unwrap());
        let mut command = run_command(&data, OFTEN);
        let ended = Live::start(command.arg("--until-caught-up")).end(SOON);
        let said = ended.fails(1, &["none of the", "checkpoints of cluster main can be read"]);
        assert_eq!(said.lines().count(), 1, "{said}");
        uptake(["ledger", "--data", data.to_str().unwrap()]).fails(1, &["can be read"]);
        // As the message says.
        std::fs::remove_dir_all(data.join("checkpoints/main")).unwrap();
        catch_up(&data, OFTEN);
        stream.check(&data);
        std::fs::remove_dir_all(&data).unwrap();
    }
    // That a run's mark is gone is no reason to number from the start again.
    objects(&begun, "run-").iter().for_each(|path| std::fs::remove_file(path).unwrap());
    catch_up(&begun, OFTEN);
    stream.check(&begun);
    assert!(catch_up(&begun, OFTEN).contains("going on from checkpoint 2."));
}
