//! Installing servers from the registries of their own languages, once.

use std::fs;
use std::path::PathBuf;

use super::Kind;
use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{install, process};

/// The S3 server: the one of those at hand that refuses a second create of an object, and whose
/// build takes a minute on two cores.
const S3_SERVER: &str = "github.com/versity/versitygw/cmd/versitygw@v1.8.0";

const NO_JAVA: &str = "; install Java 17 (Debian: apt-get install openjdk-17-jre-headless)";

/// Installs a server if it is not there in this version; returns its folder.
pub(super) fn install(workspace: &Workspace, kind: Kind) -> Result<PathBuf> {
    let wanted = wanted(workspace, kind)?;
    if kind != Kind::S3 {
        java()?;
    }
    let folder = workspace.target.join("services/installed").join(kind.name());
    install::once(workspace, &folder, (kind.name(), &wanted), || match kind {
        Kind::S3 => install::go_program(S3_SERVER, &folder),
        Kind::Kafka | Kind::Cassandra => install::jars(&pom(workspace), kind.name(), &folder),
    })?;
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
