//! Whether the examples in `deploy/` are what they say, as far as can be told without an engine.

use crate::error::Result;
use crate::workspace::Workspace;
use crate::{install, process};

/// The parser and validator that Docker Compose itself uses, as a program.
const COMPOSE: &str = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2";

/// Prometheus' own checker of rules.
const PROMTOOL: &str = "github.com/prometheus/prometheus/cmd/promtool@v0.305.0";

/// Reads the Compose file as Compose does, and the alerts as Prometheus does. Their parsers are installed once, into
/// `target/tools`.
///
/// # Errors
/// A file is not what it should be, or a parser cannot be had.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join("tools/compose");
    install::once(workspace, &folder, ("Compose's parser", COMPOSE), || {
        install::go_program(COMPOSE, &folder)
    })?;
    let mut read = process::command(folder.join("cmd"));
    // The values that a user has to give stay variables.
    read.arg("-no-interpolation").arg(workspace.root.join("deploy/compose.yaml"));
    process::quietly(&mut read, "")?;
    let folder = workspace.target.join("tools/prometheus");
    install::once(workspace, &folder, ("Prometheus' checker", PROMTOOL), || {
        install::go_program(PROMTOOL, &folder)
    })?;
    let mut check = process::command(folder.join("promtool"));
    check.args(["check", "rules", "--lint=all", "--lint-fatal"]);
    process::quietly(check.arg(workspace.root.join("deploy/prometheus/uptake.rules.yaml")), "")
}
