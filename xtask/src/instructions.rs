//! How many instructions the parts of the hot path take, held against what they took when somebody
//! last looked: unlike time, that does not depend on what else the machine does.

use crate::error::{Error, Result};
use crate::install;
use crate::process;
use crate::workspace::Workspace;

/// Events of a count; enough that a tenth of a per cent is an instruction or two an event.
const EVENTS: u64 = 60_000;
/// Instructions an event, of the release build on x86-64. Who makes a part faster lowers its figure, so
/// that a later rise is seen; who raises one says why.
const KNOWN: [(&str, f64); 6] = [
    ("decode", 1_077.0),
    ("join-state", 747.0),
    ("join-window", 1_609.0),
    ("join-batch-to-window", 1_841.0),
    ("tallies", 365.0),
    ("checkpoint", 37.0),
];
/// How much more there may be: processors differ in which instructions they offer for a search.
const MARGIN: f64 = 0.05;

/// Counts with valgrind, which it installs where it may.
///
/// # Errors
/// A part takes more than it took.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    const VALGRIND: &str = "/usr/bin/valgrind";
    if !cfg!(target_arch = "x86_64") {
        install::not_run("the instructions of the hot path", "their numbers are those of x86-64");
        return Ok(());
    }
    if !install::debian_package(VALGRIND, "valgrind") {
        install::not_run(
            "the instructions of the hot path",
            &format!("{VALGRIND} is missing: apt-get install valgrind"),
        );
        return Ok(());
    }
    let mut build = process::cargo();
    build.args(["build", "--release", "--locked", "--package", "uptake-flow", "--example", "parts"]);
    println!("{}", process::typed(&build));
    process::run(&mut build, "")?;
    let program = workspace.target.join("release/examples/parts");
    let mut risen = Vec::new();
    for (part, known) in KNOWN {
        let mut count = process::command(VALGRIND);
        // Its messages to the standard output, where the program itself says nothing.
        count.args(["--tool=callgrind", "--log-fd=1", "--callgrind-out-file=/dev/null"]);
        count.arg("--toggle-collect=*parts*measured*");
        count.arg(&program).args([part, "--events", &EVENTS.to_string(), "--passes", "0"]);
        let said = process::output(&mut count, "")?;
        let said = String::from_utf8_lossy(&said);
        let collected =
            said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<f64>().ok());
        let collected =
            collected.ok_or_else(|| Error::Other(format!("valgrind counted nothing:\n{said}")))?;
        let found = collected / EVENTS as f64;
        let change = found / known - 1.0;
        println!("{part:<22}{found:>8.0} instructions an event ({:+.1} %)", change * 100.0);
        if change > MARGIN {
            risen.push(format!("{part} {found:.0} instead of {known:.0}"));
        } else if change < -MARGIN {
            println!("  it takes fewer now: lower its figure in xtask/src/instructions.rs");
        }
    }
    if risen.is_empty() {
        return Ok(());
    }
    Err(Error::Other(format!(
        "the hot path takes more instructions an event: {}. If that is meant, say why and raise the figures in \
         xtask/src/instructions.rs",
        risen.join(", ")
    )))
}
