//! Rules of the source that neither compiler nor clippy knows: who may depend on what, and what
//! the domain must not touch.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::workspace::{Package, Workspace};

/// What the domain may use: plain values, hashing, text. Nothing here does I/O or runs threads.
const MODEL_DEPENDENCIES: [&str; 8] =
    ["datasketches", "foldhash", "hashbrown", "jiff", "memchr", "serde", "serde_json", "thiserror"];

/// What the trends may use: the domain's values, and arithmetic.
const TRENDS_DEPENDENCIES: [&str; 6] =
    ["foldhash", "hashbrown", "libm", "serde", "serde_json", "uptake-model"];

/// What the domain must not touch: files, sockets, clocks, the environment. It is given them.
const MODEL_FORBIDDEN: [&str; 7] =
    ["std::fs", "std::net", "std::io::", "std::env::", "std::process", "SystemTime", "Instant::now"];

/// Paths of some machine a file was written on. Put together here so that this file has none.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// What holds nothing we wrote. In a second work tree `.git` is a file.
const NOT_OURS: [&str; 3] = [".git", "target", "node_modules"];

/// A larger file is data, not text that somebody wrote.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Checks all rules.
///
/// # Errors
/// Every breach, one a line, or a file that cannot be read.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut breaches: Vec<String> = workspace.packages.iter().flat_map(dependencies).collect();
    let mut files = 0;
    walk(&workspace.root, &mut |path| {
        if fs::metadata(path).map_err(Error::io("read", path))?.len() > TEXT_BYTES_MAX {
            return Ok(());
        }
        let bytes = fs::read(path).map_err(Error::io("read", path))?;
        if let Ok(text) = String::from_utf8(bytes) {
            let name = path.strip_prefix(&workspace.root).unwrap_or(path).to_string_lossy();
            breaches.extend(source(&name, &text));
            files += 1;
        }
        Ok(())
    })?;
    if breaches.is_empty() {
        println!("{} packages and {files} files keep the rules", workspace.packages.len());
        return Ok(());
    }
    Err(Error::Other(format!("the rules are broken:\n  {}", breaches.join("\n  "))))
}

/// Breaches by what a package depends on.
fn dependencies(package: &Package) -> Vec<String> {
    let mut breaches = Vec::new();
    for dependency in &package.dependencies {
        let (of, on) = (&package.name, &dependency.name);
        let allowed: &[&str] = match &**of {
            "uptake-model" => &MODEL_DEPENDENCIES,
            "uptake-trends" => &TRENDS_DEPENDENCIES,
            _ => &[],
        };
        if !allowed.is_empty() && dependency.kind.is_none() && !allowed.contains(&&**on) {
            breaches.push(format!(
                "{of} depends on {on}: the domain may use only {}; pass in what it needs, or move \
                 the code to the crate that does the I/O",
                allowed.join(", ")
            ));
        }
        if on == "timely" && of != "uptake-flow" {
            breaches.push(format!(
                "{of} depends on timely: only uptake-flow may; use the streams of uptake-flow"
            ));
        }
    }
    breaches
}

/// Breaches in the text of one file. `name` is its path in the repository.
fn source(name: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let domain = ["crates/uptake-model/src/", "crates/uptake-trends/src/"];
    let in_model = domain.iter().any(|folder| name.starts_with(folder)) && !name.ends_with("/tests.rs");
    let no_timely =
        name.starts_with("crates/") && name.ends_with(".rs") && !name.starts_with("crates/uptake-flow/");
    let mut in_tests = false;
    let mut lines = text.lines().enumerate().peekable();
    while let Some((n, line)) = lines.next() {
        let n = n + 1;
        for path in MACHINE_PATHS {
            if is_machine_path(line, path) {
                breaches.push(format!("{name}:{n}: {path} is a folder of one machine; use a relative path"));
            }
        }
        let opens = lines.peek().is_some_and(|(_, next)| next.starts_with("mod ") && next.ends_with('{'));
        in_tests |= line == "#[cfg(test)]" && opens;
        if line.trim_start().starts_with("//") {
            continue;
        }
        if no_timely && has_path(line, "timely::") {
            breaches.push(format!(
                "{name}:{n}: names timely: only uptake-flow may; use the streams of uptake-flow"
            ));
        }
        if !in_model || in_tests {
            continue;
        }
        for what in MODEL_FORBIDDEN {
            if line.contains(what) {
                let what = what.trim_end_matches(':');
                breaches.push(format!(
                    "{name}:{n}: {what} in the domain, which reads no clock, file, socket or environment; \
                     take what it needs as an argument"
                ));
            }
        }
        if line.trim_start().starts_with("use std::{") {
            breaches.push(format!(
                "{name}:{n}: write one `use` for each module of std, so that they can be seen"
            ));
        }
    }
    breaches
}

/// Whether a line names this path as a crate, not as the end of another name.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || c == '_'))
    })
}

/// Whether a line has the folder at the beginning of a path, as opposed to in the middle of one.
fn is_machine_path(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || "_-.~*/>})]".contains(c)))
    })
}

/// Calls `each` for every file that is ours, in name order.
fn walk(folder: &Path, each: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    let mut entries = entries.map_err(Error::io("read", folder))?;
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if NOT_OURS.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("read", &path))?;
        if kind.is_file() {
            each(&path)?;
        } else if kind.is_dir() {
            walk(&path, each)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::Dependency;

    fn check(name: &str, text: &str, expected: &[&str]) {
        let breaches = source(name, text);
        assert_eq!(breaches.len(), expected.len(), "{name} {text:?}: {breaches:?}");
        for (breach, expected) in breaches.iter().zip(expected) {
            assert!(breach.contains(expected), "{breach}");
        }
    }

    #[test]
    fn the_domain_touches_nothing() {
        let model = "crates/uptake-model/src/tally.rs";
        check(model, "use std::sync::Arc;\n", &[]);
        check(model, "use std::sync::Arc;\nuse std::fs::File;\n", &["tally.rs:2: std::fs in the domain"]);
        check(model, "let now = Instant::now();", &["Instant::now"]);
        check(model, "use std::{fmt, io};", &["one `use`"]);
        check(model, "/// Unlike `std::fs`, this is plain.\n//! SystemTime\n    // std::net", &[]);
        check(model, "#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n", &[]);
        check(model, "#[cfg(test)]\nmod tests;\nuse std::fs;\n", &["tally.rs:3"]);
        check("crates/uptake-model/src/join/tests.rs", "use std::fs;", &[]);
        check("crates/uptake-model/tests/decode.rs", "use std::fs;", &[]);
        check("crates/uptake-trends/src/rate.rs", "use std::fs;", &["rate.rs:1: std::fs in the domain"]);
        check("crates/uptake/src/main.rs", "use std::fs;", &[]);
    }

    #[test]
    fn only_the_engine_names_timely() {
        check("crates/uptake/src/pipeline.rs", "use timely::dataflow;", &["pipeline.rs:1: names timely"]);
        check("crates/uptake/src/pipeline.rs", "un_timely::x(); // timely", &[]);
        check("crates/uptake-flow/src/run.rs", "use timely::dataflow;", &[]);
    }

    #[test]
    fn no_file_names_a_folder_of_one_machine() {
        for folder in MACHINE_PATHS {
            check("README.md", &format!("see {folder}x"), &["README.md:1"]);
            check("README.md", &format!("`{folder}x` and \"{folder}y\""), &["README.md:1"]);
            check("README.md", &format!("https://example.org{folder}x"), &[]);
            check("README.md", &format!("$HOME{folder}x ..{folder}y"), &[]);
        }
    }

    #[test]
    fn dependencies_are_an_allow_list_for_the_domain() {
        let package = |name: &str, on: &str, kind: Option<&str>| Package {
            name: name.into(),
            dependencies: vec![Dependency { name: on.into(), kind: kind.map(Into::into) }],
            targets: Vec::new(),
        };
        assert!(dependencies(&package("uptake-model", "serde", None)).is_empty());
        assert!(dependencies(&package("uptake-model", "proptest", Some("dev"))).is_empty());
        assert!(dependencies(&package("uptake-model", "rusqlite", None))[0].contains("depends on rusqlite"));
        assert!(dependencies(&package("uptake-trends", "uptake-model", None)).is_empty());
        assert!(dependencies(&package("uptake-trends", "jiff", None))[0].contains("depends on jiff"));
        assert!(dependencies(&package("uptake", "timely", Some("dev")))[0].contains("only uptake-flow"));
        assert!(dependencies(&package("uptake-flow", "timely", None)).is_empty());
    }
}
