//! The workspace as `cargo metadata` describes it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::process;

/// The workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Workspace {
    /// Its folder.
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    /// Where everything goes that can be made again.
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    /// Its packages, without those of others.
    pub(crate) packages: Vec<Package>,
}

/// One of our packages.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// What its manifest asks for.
    pub(crate) dependencies: Vec<Dependency>,
    /// What is built from it.
    pub(crate) targets: Vec<Target>,
}

/// A dependency as it stands in the manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The package that is meant, whatever it is called here.
    pub(crate) name: String,
    /// `dev`, `build`, or nothing for a normal one.
    pub(crate) kind: Option<String>,
}

/// A library, a binary, a test.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: String,
    /// `lib`, `bin`, `test`, `example`, …
    pub(crate) kind: Vec<String>,
}

impl Workspace {
    /// A path as one would type it in the workspace's folder.
    pub(crate) fn short(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// The workspace around the current directory.
    ///
    /// # Errors
    /// There is none, or its lock file is out of date.
    pub(crate) fn read() -> Result<Self> {
        let mut command = process::cargo();
        command.args(["metadata", "--format-version", "1", "--no-deps", "--locked"]);
        let answer = process::output(&mut command, "")?;
        serde_json::from_slice(&answer).map_err(Error::answer(&command))
    }

    /// The names of all test binaries besides those of the libraries and programs.
    pub(crate) fn tests(&self) -> Vec<&str> {
        let targets = self.packages.iter().flat_map(|package| &package.targets);
        let tests = targets.filter(|target| target.kind.iter().any(|kind| kind == "test"));
        let mut names: Vec<&str> = tests.map(|target| &*target.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
