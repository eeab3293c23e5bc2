//! The tracker, `<trending-row>` and the pages: that what the program holds is what their source builds, and
//! that they do in a real browser what they should.

use std::fs;
use std::process::Command;

use crate::error::{Error, Result};
use crate::install;
use crate::process;
use crate::workspace::Workspace;

/// The browser of the tests. Where it is missing it is installed if that can be done without asking
/// anybody; otherwise they do not run, which is said loudly.
const BROWSER: &str = "/usr/bin/chromium";
/// The tracker is on every page of a site: so many bytes at most, even before compression.
const TRACKER_BYTES_MAX: usize = 5 << 10;
/// What the program holds, in the crates that hold it.
const BUILT: [&str; 8] = [
    "uptake-serve/src/assets/built/tracker.js",
    "uptake-serve/src/assets/built/trending-row.js",
    "uptake-serve/src/assets/built/watch.js",
    "uptake-serve/src/assets/built/title.js",
    "uptake-serve/src/assets/built/title.css",
    "uptake-serve/src/assets/built/row.js",
    "uptake-serve/src/assets/built/pipeline.js",
    "uptake/src/commands/demo/demo.js",
];

/// Builds `web/` anew, compares, and runs its tests.
///
/// # Errors
/// The built files are not those of the source, or a test fails.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let web = workspace.root.join("web");
    if !Command::new("npm").arg("--version").output().is_ok_and(|out| out.status.success()) {
        not_run("npm is not installed");
        return Ok(());
    }
    let read = |name: &str| {
        let path = workspace.root.join("crates").join(name);
        fs::read(&path).map_err(Error::io("read", &path))
    };
    let committed: Vec<Vec<u8>> = BUILT.iter().map(|name| read(name)).collect::<Result<_>>()?;
    // What is installed is what the lock file says, so it need not be fetched again.
    let installed = fs::metadata(web.join("node_modules/.package-lock.json")).and_then(|m| m.modified());
    let locked = fs::metadata(web.join("package-lock.json")).and_then(|m| m.modified());
    if !installed.is_ok_and(|installed| locked.is_ok_and(|locked| installed >= locked)) {
        process::run(Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&web), "")?;
    }
    process::run(Command::new("npm").args(["run", "build"]).current_dir(&web), "")?;
    for (name, committed) in BUILT.iter().zip(&committed) {
        if read(name)? != *committed {
            return Err(Error::Other(format!(
                "crates/{name} was not what web/src builds; it is now: look at it and commit it"
            )));
        }
    }
    if committed[0].len() > TRACKER_BYTES_MAX {
        return Err(Error::Other(format!("tracker.js has grown to {} bytes", committed[0].len())));
    }
    if !install::debian_package(BROWSER, "chromium") {
        not_run(&format!("{BROWSER} is missing: apt-get install chromium"));
        return Ok(());
    }
    process::run(process::cargo().args(["build", "--package", "uptake", "--locked"]), "")?;
    let program = workspace.target.join("debug/uptake");
    process::run(Command::new("npm").arg("test").env("UPTAKE", program).current_dir(&web), "")
}

fn not_run(reason: &str) {
    install::not_run("tests of the tracker and the pages in a browser", reason);
}
