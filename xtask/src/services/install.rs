//! Installing servers from the registries of their own languages, once.

use std::fs;
use std::path::PathBuf;

use super::Kind;
use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// The S3 server: the one of those at hand that refuses a second create of an object, and whose
/// build takes a minute on two cores.
const S3_SERVER: &str = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";

const NO_JAVA: &str = "; install Java 17 (Debian: apt-get install openjdk-17-jre-headless)";
const NO_MAVEN: &str = "; install Maven (Debian: apt-get install maven)";
const NO_GO: &str = "; install Go 1.24 or newer from https://go.dev/dl";

/// Installs a server if it is not there in this version; returns its folder.
pub(super) fn install(workspace: &Workspace, kind: Kind) -> Result<PathBuf> {
    let wanted = wanted(workspace, kind)?;
    if kind != Kind::S3 {
        java()?;
    }
    let folder = workspace.target.join("services/installed").join(kind.name());
    // Written last: what was left half installed has none.
    let stamp = folder.join("version");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    super::say(&format!("installing {} into {}", kind.name(), workspace.short(&folder)));
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    }
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    match kind {
        Kind::S3 => {
            let mut go = process::command("go");
            // Symbols for a debugger are a third of the time to link.
            go.args(["install", "-ldflags=-s -w", S3_SERVER]).env("GOBIN", &folder).env("GOFLAGS", "");
            process::quietly(&mut go, NO_GO)?;
        }
        Kind::Kafka | Kind::Cassandra => {
            let mut maven = process::command("mvn");
            maven.args(["-q", "-B", "-P", kind.name(), "-f"]).arg(pom(workspace));
            maven.args(["dependency:copy-dependencies", "-DincludeScope=runtime"]);
            maven.arg(format!("-DoutputDirectory={}", folder.display()));
            process::quietly(&mut maven, NO_MAVEN)?;
        }
    }
    fs::write(&stamp, wanted).map_err(Error::io("write", &stamp))?;
    Ok(folder)
}

fn pom(workspace: &Workspace) -> PathBuf {
    workspace.root.join("xtask/services/pom.xml")
}

/// What says the version.
fn wanted(workspace: &Workspace, kind: Kind) -> Result<String> {
    let pom = pom(workspace);
    match kind {
        Kind::S3 => Ok(S3_SERVER.to_owned()),
        Kind::Kafka | Kind::Cassandra => fs::read_to_string(&pom).map_err(Error::io("read", &pom)),
    }
}

/// An error if there is no Java.
fn java() -> Result<()> {
    process::quietly(process::command("java").arg("-version"), NO_JAVA)
}
