//! `cargo xtask test`: everything that must hold before a change lands, quick checks first.
//!
//! It stops at the first check that fails. The last line it prints is the total over all test
//! binaries that ran.

use std::io::IsTerminal;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;

use crate::error::{Error, Result};
use crate::totals::Totals;
use crate::workspace::Workspace;
use crate::{book, deploy, install, instructions, interop, moving, packages, process, rules, services, web};

/// Tests that read whole workloads: they run last, and not with `--quick`.
const SLOW_TESTS: [&str; 11] = [
    "oracle",
    "reference",
    "real_data",
    "simulation",
    "crash",
    "cluster",
    "demo",
    "hosts",
    "outages",
    "spill",
    "stop",
];

/// Of cargo-deny, which tells licences and sources of the dependencies.
const CARGO_DENY: &str = "0.20.2";

/// How the names of tests begin that need a real Kafka, Cassandra or S3 server.
const WITH_SERVERS: &str = "real_";

/// Begins like one and reads files only.
const WITHOUT_SERVERS: &str = "real_data";

/// Check everything that must hold before a change lands, quick checks first
#[derive(Args, Debug)]
pub(crate) struct Test {
    /// Leave out what takes long: the tests on whole workloads, the documentation, the readers in
    /// other languages and the licences
    #[arg(long)]
    quick: bool,
    /// Only the checks whose name holds this text
    #[arg(long, value_name = "TEXT", conflicts_with = "quick")]
    only: Option<String>,
    /// Also check the dependencies against the advisory database, which is fetched from the network
    #[arg(long, conflicts_with = "quick")]
    advisories: bool,
}

/// One check.
struct Step {
    /// What holds if it passes.
    name: &'static str,
    /// Whether `--quick` leaves it out.
    slow: bool,
    run: Check,
}

/// Checks, and adds the tests that it ran.
type Check = Box<dyn Fn(&Workspace, &mut Totals) -> Result<()>>;

impl Test {
    pub(crate) fn run(self) -> Result<()> {
        let started = Instant::now();
        let workspace = Workspace::read()?;
        let is_asked = |step: &Step| match &self.only {
            Some(text) => step.name.contains(text.as_str()),
            None => !(self.quick && step.slow),
        };
        let (steps, left_out): (Vec<Step>, Vec<Step>) =
            steps(&workspace, self.advisories).into_iter().partition(is_asked);
        let mut totals = Totals::default();
        let mut times: Vec<(&str, Duration)> = Vec::new();
        for (n, step) in steps.iter().enumerate() {
            println!("\n=== {}/{} {}", n + 1, steps.len(), step.name);
            let (began, failed_before) = (Instant::now(), totals.failed);
            if let Err(error) = (step.run)(&workspace, &mut totals) {
                // A crash or a compiler error fails no test by name, yet nothing passed.
                if totals.failed == failed_before {
                    totals.failed += 1;
                }
                println!("\nFAILED: {}: {}\n{totals}", step.name, error.with_causes());
                return Err(Error::Said);
            }
            println!("--- {}: ok in {}", step.name, seconds(began.elapsed()));
            times.push((step.name, began.elapsed()));
        }
        println!();
        for (name, time) in times {
            println!("{:>8}  {name}", seconds(time));
        }
        println!("{:>8}  in all", seconds(started.elapsed()));
        for step in left_out {
            println!("not run: {}", step.name);
        }
        if totals.passed == 0 && self.only.is_none() {
            println!("\nFAILED: no test ran\n{totals}");
            return Err(Error::Said);
        }
        println!("{totals}");
        Ok(())
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn steps(workspace: &Workspace, advisories: bool) -> Vec<Step> {
    let (with_servers, others): (Vec<&str>, Vec<&str>) =
        workspace.tests().into_iter().partition(|name| needs_servers(name));
    let (slow, fast): (Vec<&str>, Vec<&str>) = others.into_iter().partition(|name| SLOW_TESTS.contains(name));
    let by_name = |names: Vec<&str>| -> Vec<String> {
        names.into_iter().flat_map(|name| ["--test".to_owned(), name.to_owned()]).collect()
    };
    let mut steps = vec![
        cargo("formatting", false, &["fmt", "--all", "--check"]),
        Step {
            name: "rules of the source",
            slow: false,
            run: Box::new(|workspace, _| rules::check(workspace)),
        },
        cargo(
            "clippy",
            false,
            &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        ),
        // All packages at once and by kind of test: package by package, the dependencies would be
        // built anew for each set of features.
        tests("unit tests", false, vec!["--lib".into(), "--bins".into()]),
    ];
    if !fast.is_empty() {
        steps.push(tests("tests of the crates from outside", false, by_name(fast)));
    }
    steps.push(tests("examples in the documentation", false, vec!["--doc".into()]));
    if !slow.is_empty() {
        steps.push(tests("tests on whole workloads", true, by_name(slow)));
    }
    if !with_servers.is_empty() {
        let names: Vec<String> = with_servers.into_iter().map(str::to_owned).collect();
        steps.push(Step {
            name: "tests with real servers",
            slow: true,
            run: Box::new(move |workspace, totals| real_servers(workspace, &names, totals)),
        });
    }
    steps.extend([
        Step { name: "documentation", slow: true, run: Box::new(|_, _| documentation()) },
        Step {
            name: "instructions of the hot path",
            slow: true,
            run: Box::new(|workspace, _| instructions::check(workspace)),
        },
        Step { name: "the book", slow: true, run: Box::new(|workspace, _| book::check(workspace)) },
        Step {
            name: "tracker, row and pages in a browser",
            slow: true,
            run: Box::new(|workspace, _| web::check(workspace)),
        },
        Step {
            name: "readers and clients in other languages",
            slow: true,
            run: Box::new(|workspace, _| interop::check(workspace)),
        },
        Step {
            name: "jobs of Spark and Flink, as the page on moving has them",
            slow: true,
            run: Box::new(|workspace, _| moving::check(workspace)),
        },
        Step {
            name: "examples of a deployment",
            slow: true,
            run: Box::new(|workspace, _| deploy::check(workspace)),
        },
        Step {
            name: "crates as packages",
            slow: true,
            run: Box::new(|workspace, _| packages::check(workspace)),
        },
        Step {
            name: "dependencies",
            slow: true,
            run: Box::new(move |workspace, _| deny(workspace, advisories)),
        },
    ]);
    steps
}

fn needs_servers(name: &str) -> bool {
    name.starts_with(WITH_SERVERS) && name != WITHOUT_SERVERS
}

/// The tests that need servers, one binary at a time: they kill servers under each other otherwise.
fn real_servers(workspace: &Workspace, names: &[String], totals: &mut Totals) -> Result<()> {
    let folder = workspace.target.join("services/test");
    let servers = services::Running::up(workspace, folder)?;
    for name in names {
        let mut command = process::cargo();
        command.args(["test", "--workspace", "--locked", "--test", name, "--", "--quiet"]);
        command.envs(servers.variables.iter().map(|(name, value)| (name, value)));
        println!("{}", process::typed(&command));
        process::count(&mut command, totals)?;
    }
    interop::foreign_clients(workspace, &servers.variables)
}

fn cargo(name: &'static str, slow: bool, args: &'static [&'static str]) -> Step {
    Step { name, slow, run: Box::new(move |_, _| shown(process::cargo().args(args))) }
}

fn tests(name: &'static str, slow: bool, which: Vec<String>) -> Step {
    let run = move |_: &Workspace, totals: &mut Totals| {
        let mut command = process::cargo();
        command.args(["test", "--workspace", "--locked"]).args(&which).args(["--", "--quiet"]);
        // The tests see a pipe, not the terminal behind it.
        if std::io::stdout().is_terminal() {
            command.args(["--color", "always"]);
        }
        println!("{}", process::typed(&command));
        process::count(&mut command, totals)
    };
    Step { name, slow, run: Box::new(run) }
}

fn shown(command: &mut Command) -> Result<()> {
    println!("{}", process::typed(command));
    process::run(command, "")
}

fn documentation() -> Result<()> {
    let mut command = process::cargo();
    command.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--workspace", "--no-deps", "--locked"]);
    println!("RUSTDOCFLAGS='-D warnings' {}", process::typed(&command));
    process::run(&mut command, "")
}

/// Licences, sources and duplicates of the dependencies.
fn deny(workspace: &Workspace, advisories: bool) -> Result<()> {
    let tool = workspace.target.join("tools/cargo-deny");
    install::once(workspace, &tool, ("cargo-deny", CARGO_DENY), || {
        install::cargo_program(("cargo-deny", CARGO_DENY), &[], &tool)
    })?;
    let mut command = process::command(tool.join("bin/cargo-deny"));
    command.args(["--all-features", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"]);
    if advisories {
        command.arg("advisories");
    }
    shown(&mut command)
}
