//! Whether the examples in `deploy/` are what they say, as far as can be told without an engine.

use crate::error::Result;
use crate::workspace::Workspace;
use crate::{install, process};

/// The parser and validator that Docker Compose itself uses, as a program.
const COMPOSE: &str = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2";

/// The linter of release workflows.
const WORKFLOWS: &str = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12";

/// Reads the Compose file as Compose does, alerts and dashboard as Prometheus does, manifests as Kubernetes does and the
/// Dockerfile as BuildKit does, lets Prometheus' engine fire each alert, and lints the release. The parsers are in
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
    let reader = workspace.target.join("tools/alerts");
    install::go_folder(&workspace.root.join("deploy/check"), &reader)?;
    let mut check = process::command(reader);
    check.args([
        "prometheus/uptake.rules.yaml",
        "prometheus/uptake.tests.yaml",
        "grafana/uptake.json",
        "kubernetes",
        "Dockerfile",
    ]);
    process::quietly(check.current_dir(workspace.root.join("deploy")), "")?;
    let folder = workspace.target.join("tools/workflows");
    install::once(workspace, &folder, ("a linter of workflows", WORKFLOWS), || {
        install::go_program(WORKFLOWS, &folder)
    })?;
    let mut lint = process::command(folder.join("actionlint"));
    lint.args(["-shellcheck=", "-pyflakes="]).arg(workspace.root.join(".github/workflows/release.yml"));
    process::quietly(&mut lint, "")
}
