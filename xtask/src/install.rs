//! Installing what the tests need, once, below `target`.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

const NO_GO: &str = "; install Go 1.25 or newer from https://go.dev/dl";

/// Fills `folder` by `make` unless it holds what `wanted` says; `what` is said while that happens.
///
/// # Errors
/// Those of `make`; the folder then counts as empty.
pub(crate) fn once(
    workspace: &Workspace,
    folder: &Path,
    (what, wanted): (&str, &str),
    make: impl FnOnce() -> Result<()>,
) -> Result<()> {
    // Written last: what was left half installed has none.
    let stamp = folder.join("version");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    // It is no failure that nobody reads it.
    drop(writeln!(std::io::stdout().lock(), "installing {what} into {}", workspace.short(folder)));
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::io("remove", folder))?;
    }
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    make()?;
    fs::write(&stamp, wanted).map_err(Error::io("write", &stamp))
}

/// Builds a program in Rust, a package and its version, into `folder`.
///
/// # Errors
/// It does not build.
pub(crate) fn cargo_program(
    (package, version): (&str, &str),
    features: &[&str],
    folder: &Path,
) -> Result<()> {
    let mut build = process::cargo();
    // It is run once on little: what it takes to build counts.
    build.args(["install", package, "--version", version, "--locked", "--debug"]).args(features);
    process::quietly(build.arg("--root").arg(folder).env("CARGO_PROFILE_DEV_DEBUG", "0"), "")
}

/// Builds a program in Go, `package` with its version, into `folder`.
///
/// # Errors
/// There is no Go, or it does not build.
pub(crate) fn go_program(package: &str, folder: &Path) -> Result<()> {
    let mut go = process::command("go");
    // Symbols for a debugger are a third of the time to link.
    go.args(["install", "-ldflags=-s -w", package]).env("GOBIN", folder).env("GOFLAGS", "");
    process::quietly(&mut go, NO_GO)
}

/// Builds our own program in Go that `folder` holds, as `program`.
///
/// # Errors
/// As [`go_program`].
pub(crate) fn go_folder(folder: &Path, program: &Path) -> Result<()> {
    let mut go = process::command("go");
    go.args(["build", "-ldflags=-s -w", "-o"]).arg(program).arg(".").env("GOFLAGS", "-buildvcs=false");
    process::quietly(go.current_dir(folder), NO_GO)
}

/// Copies what a profile of a Maven project needs into `folder`.
///
/// # Errors
/// There is no Maven, or it cannot have them.
pub(crate) fn jars(pom: &Path, profile: &str, folder: &Path) -> Result<()> {
    const NO_MAVEN: &str = "; install Maven (Debian: apt-get install maven)";
    let mut maven = process::command("mvn");
    maven.args(["-q", "-B", "-P", profile, "-f"]).arg(pom);
    maven.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
    maven.arg(format!("-DoutputDirectory={}", folder.display()));
    process::quietly(&mut maven, NO_MAVEN)
}

/// Whether a program is there, or could be installed: by Debian's package manager, as root.
pub(crate) fn debian_package(program: &str, package: &str) -> bool {
    let there = || Path::new(program).exists();
    let is_root = || process::output(process::command("id").arg("-u"), "").is_ok_and(|id| id == b"0\n");
    let apt = |words: &[&str]| {
        let mut command = process::command("apt-get");
        process::quietly(command.args(words).env("DEBIAN_FRONTEND", "noninteractive"), "").is_ok()
    };
    if !there() && is_root() {
        println!("installing {package} by apt-get");
        // What is there may be too old to install from; if even that fails, whoever asked says so.
        let _ = apt(&["update", "-qq"]) && apt(&["install", "-y", "-qq", "--no-install-recommends", package]);
    }
    there()
}

/// Says loudly that something was not checked.
pub(crate) fn not_run(what: &str, reason: &str) {
    let line = "!".repeat(78);
    println!("\n{line}\n!! NOT RUN: {what}\n!! {reason}\n{line}");
}
