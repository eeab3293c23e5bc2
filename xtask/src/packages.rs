//! The crates as their users get them: packed, unpacked elsewhere, and compiled from that alone.
//!
//! A file that lies outside its crate's folder is in the repository and not in the package; only this notices.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::process;
use crate::workspace::Workspace;

/// Packs our crates, unpacks them to `target/packages`, and compiles them there.
///
/// # Errors
/// A crate cannot be packed, or does not compile by what is in its package.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let ours: Vec<&str> = workspace.packages.iter().map(|package| &*package.name).collect();
    let ours: Vec<&str> = ours.into_iter().filter(|name| *name != "xtask").collect();
    let mut pack = process::cargo();
    pack.args(["package", "--workspace", "--exclude", "xtask", "--no-verify", "--locked", "--allow-dirty"]);
    println!("{}", process::typed(&pack));
    process::quietly(&mut pack, "")?;
    let place = workspace.target.join("packages");
    if place.exists() {
        fs::remove_dir_all(&place).map_err(Error::io("remove", &place))?;
    }
    fs::create_dir_all(&place).map_err(Error::io("make", &place))?;
    for name in &ours {
        unpack(workspace, name, &place)?;
    }
    // The profiles of the repository, so that dependencies that were compiled before serve here too.
    let manifest = workspace.root.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(Error::io("read", &manifest))?;
    let profiles = text.find("\n[profile").map_or("", |at| &text[at..]);
    let members = ours.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let patches: String = ours.iter().map(|name| format!("{name} = {{ path = {name:?} }}\n")).collect();
    let text = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{members}]\n\n[patch.crates-io]\n{patches}{profiles}"
    );
    let manifest = place.join("Cargo.toml");
    fs::write(&manifest, text).map_err(Error::io("write", &manifest))?;
    let (lock, copy) = (workspace.root.join("Cargo.lock"), place.join("Cargo.lock"));
    fs::copy(&lock, &copy).map_err(Error::io("copy", &lock))?;
    let mut check = process::cargo();
    check.args(["check", "--workspace", "--lib", "--bins", "--offline"]).current_dir(&place);
    process::quietly(check.env("CARGO_TARGET_DIR", &workspace.target), "")?;
    println!("{} crates compile from their packages alone", ours.len());
    Ok(())
}

fn unpack(workspace: &Workspace, name: &str, place: &Path) -> Result<()> {
    let packed = workspace.target.join("package");
    let files = fs::read_dir(&packed).map_err(Error::io("read", &packed))?;
    let version = env!("CARGO_PKG_VERSION");
    let file = format!("{name}-{version}.crate");
    let found = files.filter_map(|entry| Some(entry.ok()?.path())).find(|path| path.ends_with(&file));
    let found = found.ok_or_else(|| Error::Other(format!("{file} is not in {}", packed.display())))?;
    let into = place.join(name);
    fs::create_dir_all(&into).map_err(Error::io("make", &into))?;
    let mut tar = process::command("tar");
    tar.arg("xzf").arg(&found).arg("--strip-components=1").arg("-C").arg(&into);
    process::quietly(&mut tar, "")
}
