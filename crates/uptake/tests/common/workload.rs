//! The reference workload: its generator, and where its plain contract is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::{in_target, shared, skip};

/// The generator, built once for all tests, and the plain contract.
pub(crate) struct Workload {
    pub(crate) bench: PathBuf,
    generator: PathBuf,
}

impl Workload {
    /// The workload, or a banner that it is not there.
    pub(crate) fn find(test: &str) -> Option<&'static Self> {
        static BUILT: OnceLock<Option<Workload>> = OnceLock::new();
        let workload = BUILT.get_or_init(|| shared("bench/gen").map(|generator| Self::build(&generator)));
        if workload.is_none() {
            skip(test, "no shared/bench beside this checkout; UPTAKE_SHARED names another place");
        }
        workload.as_ref()
    }

    /// Builds the generator from a copy: its own folder may be read-only and has no lock file.
    fn build(sources: &Path) -> Self {
        let target = in_target("reference");
        let copy = target.join("gen");
        std::fs::create_dir_all(copy.join("src")).unwrap();
        // The copy lies inside this workspace and must not be taken for a part of it.
        let manifest = std::fs::read_to_string(sources.join("Cargo.toml")).unwrap();
        std::fs::write(copy.join("Cargo.toml"), manifest + "\n[workspace]\n").unwrap();
        let main = std::fs::read(sources.join("src/main.rs")).unwrap();
        let to = copy.join("src/main.rs");
        // Left alone where it is the same, so that nothing is built again.
        if std::fs::read(&to).ok().as_ref() != Some(&main) {
            std::fs::write(&to, main).unwrap();
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--release", "--quiet", "--manifest-path"]).arg(copy.join("Cargo.toml"));
        let built = cargo.env("CARGO_TARGET_DIR", &target).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let bench = sources.parent().unwrap().to_path_buf();
        Self { bench, generator: target.join("release/gen") }
    }

    /// A generated stream in a temporary folder, and its files in order.
    pub(crate) fn generate(&self, seed: u32, events: u32, shape: &[&str]) -> (TempDir, Vec<PathBuf>) {
        let folder = tempfile::Builder::new().prefix("input-").tempdir_in(in_target("reference")).unwrap();
        let (seed, events) = (seed.to_string(), events.to_string());
        let mut generator = Command::new(&self.generator);
        generator.args(["--seed", &seed, "--events", &events, "--out"]).arg(folder.path()).args(shape);
        assert!(generator.output().unwrap().status.success());
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        (folder, files)
    }
}
