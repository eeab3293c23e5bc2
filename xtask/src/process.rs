//! Running programs.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::totals::Totals;

/// The cargo that runs us, so that all chores use one toolchain.
pub(crate) fn cargo() -> Command {
    let mut command = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo describes the package it runs in variables. To a build script of another package
    // they would look like a change, and it would be built anew each time.
    for (name, _) in std::env::vars_os() {
        let inherited = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        });
        if inherited {
            command.env_remove(name);
        }
    }
    command
}

/// A program that is given nothing to read.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// What one would type.
pub(crate) fn typed(command: &Command) -> String {
    let name = std::path::Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(name).chain(command.get_args()).map(|word| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains([' ', '"', '\'', '[', '*']) {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Runs to the end; what is printed is seen.
pub(crate) fn run(command: &mut Command, hint: &'static str) -> Result<()> {
    flush();
    let status = command.status().map_err(Error::start(command, hint))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { command: typed(command), status, output: String::new() })
}

/// Runs to the end and returns what is printed to the standard output; the rest is seen.
pub(crate) fn output(command: &mut Command, hint: &'static str) -> Result<Vec<u8>> {
    flush();
    let output = command.stderr(Stdio::inherit()).output().map_err(|source| Error::Start {
        command: typed(command),
        hint,
        source,
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Failed { command: typed(command), status: output.status, output: String::new() })
}

/// Runs to the end; what is printed is seen only if it fails.
pub(crate) fn quietly(command: &mut Command, hint: &'static str) -> Result<()> {
    let output = command.output().map_err(|source| Error::Start { command: typed(command), hint, source })?;
    if output.status.success() {
        return Ok(());
    }
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    let lines: Vec<&str> = printed.lines().collect();
    let end = lines[lines.len().saturating_sub(20)..].join("\n");
    Err(Error::Failed { command: typed(command), status: output.status, output: format!(":\n{end}") })
}

/// Runs tests: what they print is seen as it comes, and counted.
pub(crate) fn count(command: &mut Command, totals: &mut Totals) -> Result<()> {
    flush();
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(Error::start(command, ""))?;
    if let Some(mut printed) = child.stdout.take() {
        let mut piece = vec![0; 1 << 16];
        let mut out = std::io::stdout().lock();
        while let Ok(n @ 1..) = printed.read(&mut piece) {
            totals.push(&piece[..n]);
            // Nobody may be looking, but the tests still count.
            drop(out.write_all(&piece[..n]).and_then(|()| out.flush()));
        }
        totals.end_line();
    }
    let status = child.wait().map_err(Error::start(command, ""))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Failed { command: typed(command), status, output: String::new() })
}

/// What we printed stands before what the program prints.
fn flush() {
    drop(std::io::stdout().flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_can_be_typed_again() {
        let mut cargo = command("/somewhere/bin/cargo");
        assert_eq!(
            typed(cargo.args(["test", "--set", "segments=[[]]", ""])),
            "cargo test --set 'segments=[[]]' ''"
        );
    }
}
