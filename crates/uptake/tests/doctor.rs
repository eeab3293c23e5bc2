//! `uptake doctor`: what is well is said to be well, and what is wrong is found, with what to do.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use common::live::{append, audience, catch_up};
use common::{Place, Printed, uptake};
use serde_json::Value;

fn doctor(data: &Path, more: &[&str]) -> Printed {
    uptake([&["doctor", "--json", "--data", data.to_str().unwrap()], more].concat())
}

/// What was found, by what was looked at: the first that is not well, if any.
fn found(printed: &Printed, what: &str) -> (String, String) {
    let all: Value = serde_json::from_str(&printed.stdout).unwrap_or_else(|_| panic!("{printed:?}"));
    let of_it: Vec<&Value> = all.as_array().unwrap().iter().filter(|one| one["what"] == what).collect();
    let one = of_it
        .iter()
        .find(|one| one["state"] != "well")
        .or(of_it.first())
        .unwrap_or_else(|| panic!("no {what} in {all}"));
    assert_eq!(one["todo"].is_string(), one["state"] != "well", "{one}");
    (one["state"].as_str().unwrap().to_owned(), one["found"].as_str().unwrap().to_owned())
}

#[test]
fn a_deployment_that_is_well_and_what_may_be_wrong_with_it() {
    let place = Place::new();
    let data = place.data();
    let (bytes, _) = audience(3, 5_000);
    append(&data, &[&place.write("events.jsonl", bytes)]);
    let before = doctor(&data, &[]);
    assert_eq!(before.code, Some(0), "nothing is wrong with one that was not begun: {before:?}");
    assert_eq!(found(&before, "checkpoints").0, "look");
    catch_up(&data, &[]);
    let well = doctor(&data, &[]);
    assert_eq!(well.code, Some(0), "{well:?}");
    for what in ["log", "table", "archive", "checkpoints", "reading", "clocks", "serving"] {
        assert_eq!(found(&well, what).0, "well", "{}", well.stdout);
    }
    assert!(found(&well, "reading").1.contains("everything"), "{}", well.stdout);
    let text = uptake(["doctor", "--data", data.to_str().unwrap()]);
    assert!(text.stdout.lines().any(|line| line.starts_with("well   table")), "{}", text.stdout);

    // Another configuration than the run's.
    let other = doctor(&data, &["--set", "join.kind=left"]);
    assert_eq!((other.code, found(&other, "table").0.as_str()), (Some(1), "wrong"), "{other:?}");
    // Records that nobody can use, many of them.
    let views: Vec<String> = (0..500).map(|n| format!("view w{n} v1 10:00")).collect();
    append(&data, &[&place.write("bad.jsonl", common::events(&views.join(" | ")))]);
    catch_up(&data, &[]);
    assert_eq!(found(&doctor(&data, &[]), "dead letters").0, "look");
    // Appended again with a mended configuration they are told, and there is nothing to be done.
    let mended = ["--set", r#"events.kind.impression=["impression","view"]"#];
    let replay = ["dead-letters", "replay", "--data", data.to_str().unwrap()];
    uptake([&replay[..], &mended].concat()).ok();
    let (state, words) = found(&doctor(&data, &[]), "dead letters");
    assert!(state == "well" && words.ends_with("dead-letters, 500 of them appended again"), "{words}");
    // A server for everybody.
    let open = doctor(&data, &["--set", "serve.listen=0.0.0.0:8080"]);
    assert_eq!((open.code, found(&open, "serving").0.as_str()), (Some(0), "look"), "{open:?}");
    // Keys that are none.
    let mut command = std::process::Command::new(common::live::program());
    command.args([
        "doctor",
        "--json",
        "--data",
        data.to_str().unwrap(),
        "--set",
        "serve.listen=0.0.0.0:8080",
    ]);
    let no_keys = common::run(command.env("UPTAKE_WRITE_KEYS", " "));
    assert_eq!(found(&no_keys, "serving").0, "look", "{no_keys:?}");
    // A proxy brings everybody to this machine.
    let (state, words) = found(&doctor(&data, &["--set", "serve.proxies=1"]), "serving");
    assert!(state == "look" && words.contains("behind a proxy") && words.contains("closed"), "{words}");
    // Damaged checkpoints: the newest is passed over; without any a run would begin again, so that is wrong.
    let manifests = data.join("checkpoints/main");
    let mut names: Vec<_> =
        std::fs::read_dir(&manifests).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let newest = names.iter().rev().find(|path| path.is_file()).unwrap();
    std::fs::write(newest, "{}").unwrap();
    let damaged = doctor(&data, &[]);
    assert_ne!(found(&damaged, "checkpoints").0, "well", "{damaged:?}");
    // No deployment at all.
    let nothing = doctor(&place.path("nothing"), &[]);
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
    let empty = place.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let looked = doctor(&empty, &[]);
    assert_eq!((looked.code, found(&looked, "log").0.as_str()), (Some(1), "wrong"), "{looked:?}");
    uptake(["ledger", "--data", empty.to_str().unwrap()]).fails(1, &["has no books yet"]);
    assert!(std::fs::read_dir(&empty).unwrap().next().is_none(), "who looks makes nothing");
}

#[test]
fn what_may_not_be_read_is_not_said_to_be_missing() {
    let place = Place::new();
    let data = place.data();
    append(&data, &[&place.write("events.jsonl", common::events("i r1 v1 10:00 | p r1 v1 10:01"))]);
    catch_up(&data, &[]);
    place.allow("data", 0);
    let test = "what_may_not_be_read_is_not_said_to_be_missing";
    if let Some(mut command) = common::as_another_user(&place, test) {
        let looked = common::run(command.args(["doctor", "--json", "--data"]).arg(&data));
        assert_eq!(looked.code, Some(1), "{looked:?}");
        for what in ["log", "table", "archive", "checkpoints"] {
            let (state, words) = found(&looked, what);
            assert!(state == "wrong" && words.contains("ermission denied"), "{what}: {words}");
            assert!(!words.contains("no table") && !words.contains("no data directory"), "{words}");
        }
        assert!(looked.stdout.contains("let this user read it"), "{}", looked.stdout);
    }
    place.allow("data", 0o755);
}
