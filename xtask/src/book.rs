//! The documents as a book: `cargo xtask book`.
//!
//! Its pages are the project's own Markdown files, copied to where their links lead from one to the other as they do in
//! the repository. `docs/book/SUMMARY.md` says in which order.

use std::fs;
use std::path::{Component, Path, PathBuf};

use clap::Args;

use crate::error::{Error, Result};
use crate::workspace::Workspace;
use crate::{install, process};

/// What makes the book.
const MDBOOK: &str = "0.5.4";

/// Make the documents a book, and check that no link in it leads nowhere
#[derive(Args, Debug)]
pub(crate) struct Book {}

impl Book {
    pub(crate) fn run(self) -> Result<()> {
        let workspace = Workspace::read()?;
        check(&workspace)?;
        println!("open {}", workspace.short(&workspace.target.join("book/html/index.html")));
        Ok(())
    }
}

/// Makes the book in `target/book/html`.
///
/// # Errors
/// A page is not in the book, a link leads nowhere, or mdBook cannot be had.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let tool = workspace.target.join("tools/mdbook");
    install::once(workspace, &tool, ("mdBook", MDBOOK), || {
        install::cargo_program(("mdbook", MDBOOK), &["--no-default-features", "--features", "search"], &tool)
    })?;
    let (book, root) = (workspace.target.join("book"), &workspace.root);
    if book.exists() {
        fs::remove_dir_all(&book).map_err(Error::io("remove", &book))?;
    }
    let pages = pages(root)?;
    let summary = root.join("docs/book/SUMMARY.md");
    let listed = fs::read_to_string(&summary).map_err(Error::io("read", &summary))?;
    let mut wrong: Vec<String> = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(root.join(page)).map_err(Error::io("read", page))?;
        if !listed.contains(&format!("]({})", page.display())) {
            wrong.push(format!("{} is not in docs/book/SUMMARY.md", page.display()));
        }
        // What a page shows or leads to comes along.
        for link in links(&text).filter(|link| !link.ends_with(".md")) {
            let from = page.parent().unwrap_or(Path::new("")).join(link);
            copy(root, &plain(&from), &book.join("src"))?;
        }
        copy(root, page, &book.join("src"))?;
    }
    put(&summary, &book.join("src/SUMMARY.md"))?;
    put(&root.join("docs/book/book.toml"), &book.join("book.toml"))?;
    let mut build = process::command(tool.join("bin/mdbook"));
    process::quietly(build.arg("build").arg(&book).arg("--dest-dir").arg(book.join("html")), "")?;
    for page in &pages {
        wrong.extend(dead_links(&book.join("html"), page)?);
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(Error::Other(wrong.join("\n"))),
    }
}

/// The Markdown files at the root and below `docs`.
fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut pages, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        let path = root.join(&folder);
        for entry in fs::read_dir(&path).map_err(Error::io("read", &path))? {
            let entry = entry.map_err(Error::io("read", &path))?;
            let name = folder.join(entry.file_name());
            if entry.path().is_dir() {
                if name.starts_with("docs") && !name.ends_with("book") {
                    folders.push(name);
                }
            } else if name.extension().is_some_and(|extension| extension == "md") {
                pages.push(name);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

/// The targets of a page's links into the project, without what stands behind `#`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let all = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
    all.map(|link| link.split('#').next().unwrap_or_default())
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.contains(char::is_whitespace))
}

/// A path without `..` in it.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
        plain
    })
}

/// Copies a file or folder of the project; what is not there is found as a link that leads nowhere.
fn copy(root: &Path, name: &Path, to: &Path) -> Result<()> {
    let from = root.join(name);
    if from.is_dir() {
        for entry in fs::read_dir(&from).map_err(Error::io("read", &from))? {
            copy(root, &name.join(entry.map_err(Error::io("read", &from))?.file_name()), to)?;
        }
        return Ok(());
    }
    if from.is_file() { put(&from, &to.join(name)) } else { Ok(()) }
}

fn put(from: &Path, to: &Path) -> Result<()> {
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    fs::copy(from, to).map(drop).map_err(Error::io("copy", from))
}

/// What is wrong with the links of a page, as the book has them.
fn dead_links(html: &Path, page: &Path) -> Result<Vec<String>> {
    let made = |page: &Path| match page.file_name().is_some_and(|name| name == "README.md") {
        true => page.with_file_name("index.html"),
        false => page.with_extension("html"),
    };
    let own = made(page);
    let path = html.join(&own);
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let main = text.split_once("<main>").and_then(|(_, rest)| rest.split_once("</main>"));
    let main = main.map_or(text.as_str(), |(main, _)| main);
    let hrefs =
        main.split("<a href=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(href, _)| href);
    let mut wrong = Vec::new();
    for href in hrefs.filter(|href| !href.contains("://") && !href.starts_with("mailto:")) {
        let (file, id) = href.split_once('#').unwrap_or((href, ""));
        let target = match file.is_empty() {
            true => own.clone(),
            false => plain(&own.parent().unwrap_or(Path::new("")).join(file)),
        };
        let there = html.join(&target);
        let has_id = || fs::read_to_string(&there).is_ok_and(|text| text.contains(&format!("id=\"{id}\"")));
        if !there.exists() || !(id.is_empty() || has_id()) {
            wrong.push(format!("{}: the link to {href} leads nowhere", page.display()));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_into_the_project() {
        let text = "[a](b.md#c) ![d](e.png) [f](https://g.example) [h](#i) `x](y z)`";
        assert_eq!(links(text).collect::<Vec<_>>(), ["b.md", "e.png"]);
        assert_eq!(plain(Path::new("docs/a/../../b/c")), Path::new("b/c"));
    }

    #[test]
    fn a_link_that_leads_nowhere_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            put_text(&folder.path().join(name), text);
        };
        write(
            "docs/a.html",
            r##"<nav><a href="x"></nav>&lt;i href="y"<main><a href="../index.html#top"><a href="b.html"><a href="#own"><h1 id="own"></main>"##,
        );
        write("index.html", r#"<main><h1 id="start"></main>"#);
        let wrong = dead_links(folder.path(), Path::new("docs/a.md")).expect("it is there");
        assert_eq!(
            wrong,
            [
                "docs/a.md: the link to ../index.html#top leads nowhere",
                "docs/a.md: the link to b.html leads nowhere"
            ]
        );
        assert_eq!(dead_links(folder.path(), Path::new("README.md")).expect("it is there"), [""; 0]);
    }

    fn put_text(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
}
