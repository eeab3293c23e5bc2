//! Whether the examples in `deploy/` are what they say, as far as can be told without an engine.

use std::fs;

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// The parser and validator that Docker Compose itself uses, as a program.
const COMPOSE: &str = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2";

const NO_GO: &str = "; install Go 1.24 or newer from https://go.dev/dl";

/// Reads the Compose file as Compose does. The parser is installed once, into `target/tools`.
///
/// # Errors
/// The file is no Compose file, or the parser cannot be had.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join("tools/compose");
    let program = folder.join("cmd");
    // Written last: what was left half installed has none.
    let stamp = folder.join("version");
    if fs::read_to_string(&stamp).ok().as_deref() != Some(COMPOSE) {
        println!("installing into {}: {COMPOSE}", workspace.short(&folder));
        let mut go = process::command("go");
        go.args(["install", COMPOSE]).env("GOBIN", &folder).env("GOFLAGS", "");
        process::quietly(&mut go, NO_GO)?;
        fs::write(&stamp, COMPOSE).map_err(Error::io("write", &stamp))?;
    }
    let mut read = process::command(program);
    // The values that a user has to give stay variables.
    read.arg("-no-interpolation").arg(workspace.root.join("deploy/compose.yaml"));
    process::quietly(&mut read, "")
}
