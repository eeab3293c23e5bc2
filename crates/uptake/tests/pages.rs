//! The pages for the first hour, followed to the letter: each block of `sh` is run, one after the other, and what a
//! block of `text` behind it shows must be printed.
//!
//! In a `text` block `…` in a line stands for anything, and a line of `…` alone for any number of lines.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod common;

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::live::{Live, program};
use common::{Place, say};

const WITHIN: Duration = Duration::from_secs(240);
/// The address that the pages name; here it is a free one.
const ADDRESS: &str = "127.0.0.1:8080";

/// What a page tells to do, and what it then shows.
#[derive(Debug, Default)]
struct Step {
    commands: String,
    shows: Vec<String>,
    line: usize,
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// The blocks of a page; `json`, `toml` and the like stand for themselves and may not be there: nobody would run them.
fn steps(page: &str) -> Vec<Step> {
    let (mut steps, mut inside) = (Vec::<Step>::new(), None);
    for (line, text) in page.lines().enumerate() {
        match (inside, text.strip_prefix("```")) {
            (None, Some("sh")) => {
                steps.push(Step { line: line + 1, ..Step::default() });
                inside = Some("sh");
            }
            (None, Some("text")) => inside = Some("text"),
            (None, Some(other)) => panic!("line {}: a block of {other:?} is not run", line + 1),
            (Some(_), Some("")) => inside = None,
            (Some("sh"), _) => writeln!(steps.last_mut().unwrap().commands, "{text}").unwrap(),
            (Some(_), _) => steps.last_mut().unwrap().shows.push(text.to_owned()),
            (None, None) => {}
        }
    }
    steps
}

/// Whether `line` is what `pattern` shows.
fn is_shown(pattern: &str, line: &str) -> bool {
    let (pattern, line) = (pattern.trim_end(), line.trim_end());
    let mut parts = pattern.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (n, part) in parts.iter().enumerate() {
        let at = if n + 1 == parts.len() { rest.len().checked_sub(part.len()) } else { rest.find(part) };
        match at.filter(|&at| rest.is_char_boundary(at) && rest[at..].starts_with(part)) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

/// Whether `shown` stands in `lines`; it may begin anywhere.
fn shows(shown: &[String], lines: &[&str]) -> bool {
    fn from(shown: &[String], lines: &[&str]) -> bool {
        match shown.split_first() {
            None => true,
            Some((first, rest)) if first.trim() == "…" => {
                (0..=lines.len()).any(|skip| from(rest, &lines[skip..]))
            }
            Some((first, rest)) => {
                lines.first().is_some_and(|line| is_shown(first, line)) && from(rest, &lines[1..])
            }
        }
    }
    (0..=lines.len()).any(|skip| from(shown, &lines[skip..]))
}

/// Follows a page in an empty directory.
fn follow(name: &str) {
    let text = std::fs::read_to_string(docs().join("first-hour").join(name)).unwrap();
    let steps = steps(&text);
    assert!(!steps.is_empty(), "{name} tells nothing to do");
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // A server that nobody was told to stop is stopped with the page.
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n".to_owned();
    for (n, step) in steps.iter().enumerate() {
        for line in step.commands.lines() {
            match line.strip_prefix("! ") {
                // What is to fail: the shell itself would go on either way.
                Some(command) => {
                    writeln!(script, "if {command}; then echo 'it went well'; exit 1; fi").unwrap()
                }
                None => writeln!(script, "{line}").unwrap(),
            }
        }
        writeln!(script, "echo; echo '=== {n} done'").unwrap();
    }
    let script = script
        .replace(ADDRESS, &free.to_string())
        .replace("uptake serve", &format!("uptake serve --listen {free}"));
    let place = Place::new();
    let script = place.write("page.sh", script);
    let mut path = vec![program().parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let folder = place.path("here");
    std::fs::create_dir(&folder).unwrap();
    let mut command = Command::new("bash");
    // Errors are shown where they happen, as in a terminal.
    command.arg("-c").arg(r#"exec 2>&1; . "$0""#).arg(&script);
    command.current_dir(&folder).env("PATH", std::env::join_paths(path).unwrap()).env("TZ", "UTC");
    let ended = Live::start(&mut command).end(WITHIN);
    let mut printed = ended.stdout.as_str();
    for (n, step) in steps.iter().enumerate() {
        let about = || format!("{name}, line {}:\n{}\n{}", step.line, step.commands, ended.stdout);
        let (of_step, rest) = printed
            .split_once(&format!("=== {n} done\n"))
            .unwrap_or_else(|| panic!("did not go well: {}", about()));
        printed = rest;
        let lines: Vec<&str> = of_step.lines().collect();
        assert!(shows(&step.shows, &lines), "{} is not shown by {}", step.shows.join("\n"), about());
    }
    say(&format!("{name}: {} steps", steps.len()));
}

#[test]
fn a_data_engineer() {
    follow("data-engineer.md");
}

#[test]
fn a_recommender_engineer() {
    follow("recommender-engineer.md");
}

#[test]
fn an_editor() {
    follow("editor.md");
}

#[test]
fn a_front_end_engineer() {
    follow("front-end-engineer.md");
}

#[test]
fn every_page_is_followed() {
    let pages = std::fs::read_dir(docs().join("first-hour")).unwrap();
    assert_eq!(pages.count(), 4, "a test for each");
}

#[test]
fn what_is_not_printed_is_not_shown() {
    let lines = ["a 1", "b 2 end", "c 3"];
    let shown = |text: &str| shows(&text.lines().map(str::to_owned).collect::<Vec<_>>(), &lines);
    for yes in
        ["a 1", "b 2 end\nc 3", "…\nc 3", "a …", "a 1\n…\nc 3", "b … end", "", "a 1\n…\nb 2 end", "… 3"]
    {
        assert!(shown(yes), "{yes}");
    }
    for no in ["a", "a 1\nc 3", "b … en", "c 3\n…\na 1", "… 4", "b 2 end …x"] {
        assert!(!shown(no), "{no}");
    }
}
