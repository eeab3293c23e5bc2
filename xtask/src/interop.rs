//! Whether others can read what uptake writes, and feed it: SQLite, DuckDB, Apache DataSketches and the
//! clients of Kafka, Cassandra and S3, from Python, and the receiver of the OpenTelemetry Collector, in Go.
//!
//! The Python ones are installed once, into `target/tools/venv`, as `tests/interop/requirements.txt` says; the
//! checks themselves are in `tests/interop/`: `read_outputs.py`, `foreign_clients.py`, and `api.py`, which
//! draws requests to the API from its own document.

use std::fs;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{install, process};

const NO_PYTHON: &str = "; install Python 3.11 or newer with its venv module (Debian: apt-get install python3 \
                         python3-venv)";

/// Builds uptake, lets it write, and lets others read.
///
/// # Errors
/// Somebody reads something else than was written, or Python or its packages cannot be had.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    // With the tests, because the tests' own dependencies change features of shared ones: without
    // them the program would be built once more.
    process::run(process::cargo().args(["build", "--workspace", "--bins", "--tests", "--locked"]), "")?;
    script(workspace, "read_outputs.py", &[])?;
    script(workspace, "api.py", &[])?;
    spans(workspace)
}

/// Lets the receiver of the OpenTelemetry Collector take the spans of a replay.
fn spans(workspace: &Workspace) -> Result<()> {
    let receiver = workspace.target.join("tools/otlp");
    install::go_folder(&workspace.root.join("tests/otlp"), &receiver)?;
    process::run(process::command(receiver).arg(program(workspace)), "")
}

/// The program, as the tests have built it.
fn program(workspace: &Workspace) -> PathBuf {
    workspace.target.join("debug/uptake")
}

/// Lets other people's clients feed uptake and read what it wrote, through the real servers that
/// `variables` name. The tests before have built the program.
///
/// # Errors
/// As [`check`].
pub(crate) fn foreign_clients(workspace: &Workspace, variables: &[(String, String)]) -> Result<()> {
    script(workspace, "foreign_clients.py", variables)
}

fn script(workspace: &Workspace, name: &str, variables: &[(String, String)]) -> Result<()> {
    let mut command = process::command(python(workspace)?);
    command
        .arg(workspace.root.join("tests/interop").join(name))
        .arg("--uptake")
        .arg(program(workspace))
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    process::run(&mut command, "")
}

/// The Python of an environment that has the readers.
fn python(workspace: &Workspace) -> Result<PathBuf> {
    let requirements = workspace.root.join("tests/interop/requirements.txt");
    let wanted = fs::read_to_string(&requirements).map_err(Error::io("read", &requirements))?;
    let venv = workspace.target.join("tools/venv");
    let python = venv.join("bin/python");
    let usable = {
        let mut version = process::command(&python);
        process::output(version.arg("--version"), "").is_ok()
    };
    if venv.exists() && !usable {
        fs::remove_dir_all(&venv).map_err(Error::io("remove", &venv))?;
    }
    install::once(workspace, &venv, (&packages(&wanted).join(" "), &wanted), || {
        let mut make = process::command("python3");
        process::run(make.args(["-m", "venv"]).arg(&venv), NO_PYTHON).map_err(|error| match error {
            Error::Failed { command, status, .. } => {
                Error::Failed { command, status, output: NO_PYTHON.to_owned() }
            }
            other => other,
        })?;
        let mut install = process::command(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        process::run(install.arg(&requirements), "")
    })?;
    Ok(python)
}

/// The lines of a requirements file that name packages.
fn packages(requirements: &str) -> Vec<&str> {
    requirements.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_packages() {
        assert_eq!(packages("# readers\nduckdb==2.0.0\n\n  x==1\n"), ["duckdb==2.0.0", "x==1"]);
    }
}
