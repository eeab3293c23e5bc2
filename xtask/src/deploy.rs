//! Whether the examples in `deploy/` are what they say, as far as can be told without an engine.

use crate::error::Result;
use crate::workspace::Workspace;
use crate::{install, process};

/// The parser and validator that Docker Compose itself uses, as a program.
const COMPOSE: &str = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2";

/// Reads the Compose file as Compose does. The parser is installed once, into `target/tools`.
///
/// # Errors
/// The file is no Compose file, or the parser cannot be had.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join("tools/compose");
    install::once(workspace, &folder, ("Compose's parser", COMPOSE), || {
        install::go_program(COMPOSE, &folder)
    })?;
    let mut read = process::command(folder.join("cmd"));
    // The values that a user has to give stay variables.
    read.arg("-no-interpolation").arg(workspace.root.join("deploy/compose.yaml"));
    process::quietly(&mut read, "")
}
