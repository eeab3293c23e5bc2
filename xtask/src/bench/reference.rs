//! The reference workload: its generator and the hand-written loop, built from copies, and inputs.
//!
//! Both come from a folder that several projects share and nobody builds in, so everything that
//! is made from it is under `target/reference`.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// The programs of the reference workload, built.
pub(super) struct Reference {
    /// `target/reference`.
    pub(super) folder: PathBuf,
    /// The hand-written loop.
    pub(super) floor: PathBuf,
    generator: PathBuf,
    /// Changes when the generator's source does.
    generator_hash: u64,
}

impl Reference {
    /// Copies and builds what is in `shared`.
    ///
    /// # Errors
    /// It is not there, or does not build.
    pub(super) fn build(workspace: &Workspace, shared: &Path) -> Result<Self> {
        let folder = workspace.target.join("reference");
        if !shared.join("gen/Cargo.toml").exists() || !shared.join("floor/Cargo.toml").exists() {
            return Err(Error::Other(format!(
                "{} has no folders gen and floor; say with --shared or UPTAKE_SHARED where the reference workload \
                 is, or measure without it: --only state",
                shared.display()
            )));
        }
        let mut hash = DefaultHasher::new();
        let generator = program(&shared.join("gen"), &folder, &mut |bytes| bytes.hash(&mut hash))?;
        let floor = program(&shared.join("floor"), &folder, &mut |_| {})?;
        Ok(Self { folder, floor, generator, generator_hash: hash.finish() })
    }

    /// The folder of an input; generates it unless it is there.
    ///
    /// # Errors
    /// The generator fails, or the device is full.
    pub(super) fn input(&self, name: &str, options: &[&str], events: u64, seed: u64) -> Result<PathBuf> {
        let folder = self.folder.join("in").join(format!("{name}-{events}-seed{seed}"));
        let stamp = folder.with_extension("stamp");
        let wanted = format!("{:016x}\n", self.generator_hash);
        if let Ok(found) = fs::read_to_string(&stamp)
            && let Some(checksum) = found.strip_prefix(&wanted)
        {
            eprintln!("input {name}, seed {seed}: {}", checksum.trim_end());
            return Ok(folder);
        }
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
        }
        let mut command = process::command(&self.generator);
        command.args(["--seed", &seed.to_string(), "--events", &events.to_string()]).args(options);
        command.arg("--out").arg(&folder);
        let checksum = process::output(&mut command, "")?;
        let checksum = String::from_utf8_lossy(&checksum);
        eprintln!("input {name}, seed {seed}: {}", checksum.trim_end());
        fs::write(&stamp, wanted + &checksum).map_err(Error::io("write", &stamp))?;
        Ok(folder)
    }
}

/// Copies the package `from` and builds it; returns the program. `seen` is given the source.
fn program(from: &Path, folder: &Path, seen: &mut dyn FnMut(&[u8])) -> Result<PathBuf> {
    let name = from.file_name().unwrap_or_default();
    let source = folder.join("src").join(name);
    copy(from, &source, seen)?;
    eprintln!("cargo build --release, in {}", source.display());
    let mut command = process::cargo();
    command.args(["build", "--release", "--manifest-path"]).arg(source.join("Cargo.toml"));
    process::run(command.arg("--target-dir").arg(folder.join("build")), "")?;
    Ok(folder.join("build/release").join(name))
}

/// Copies a package without touching files that are the same already, or it would be built anew.
fn copy(from: &Path, to: &Path, seen: &mut dyn FnMut(&[u8])) -> Result<()> {
    fs::create_dir_all(to).map_err(Error::io("make the folder", to))?;
    let entries = fs::read_dir(from).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut entries = entries.map_err(Error::io("read", from))?;
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            if entry.file_name() != "target" {
                copy(&from, &to, seen)?;
            }
            continue;
        }
        let mut bytes = fs::read(&from).map_err(Error::io("read", &from))?;
        if entry.file_name() == "Cargo.toml" {
            // Under our own workspace cargo would take it for a forgotten member of it.
            bytes.extend_from_slice(b"\n[workspace]\n");
        }
        seen(&bytes);
        if !fs::read(&to).is_ok_and(|found| found == bytes) {
            fs::write(&to, bytes).map_err(Error::io("write", &to))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_a_workspace_of_its_own_and_copied_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("src")).expect("a folder");
        fs::create_dir_all(from.join("target")).expect("a folder");
        fs::write(from.join("Cargo.toml"), "[package]").expect("a file");
        fs::write(from.join("src/main.rs"), "fn main() {}").expect("a file");
        copy(&from, &to, &mut |_| {}).expect("copied");
        assert_eq!(fs::read_to_string(to.join("Cargo.toml")).expect("a file"), "[package]\n[workspace]\n");
        assert!(!to.join("target").exists());
        let written = |name: &str| fs::metadata(to.join(name)).and_then(|m| m.modified()).expect("a time");
        let before = (written("Cargo.toml"), written("src/main.rs"));
        copy(&from, &to, &mut |_| {}).expect("copied");
        assert_eq!((written("Cargo.toml"), written("src/main.rs")), before);
    }
}
