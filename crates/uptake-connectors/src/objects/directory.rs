//! Objects in a folder of a directory, as `checkpoints/NAME`, a file each.
//!
//! An object appears whole or not at all: it is written under a hidden name, flushed to the
//! device, then linked to its own. What a crash leaves behind begins with a dot and ends in
//! `.tmp`; it is not listed, and removed by who opens the directory an hour later.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{ObjectInfo, Objects, PutObject, Result, beside, check_name, folders};
use crate::error::ObjectsError;
use crate::faults::point;
use crate::files;

/// How old a temporary file is that nobody is writing any more.
const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(3_600);

/// How often a put makes its folder again that a delete took away, before it gives up.
const LINK_ATTEMPTS: usize = 20;

/// Objects in a directory.
#[derive(Debug)]
pub struct DirectoryObjects {
    root: PathBuf,
    /// Whether the first object makes the directory. One that was there and is gone is a disk that is away: what
    /// belongs to the objects in it must not begin a new one.
    makes_root: AtomicBool,
}

impl DirectoryObjects {
    /// Opens the objects in `folder` of `directory`, which the first one that is put makes. Removes
    /// what a process that crashed an hour ago or earlier had not finished writing.
    ///
    /// # Errors
    /// The system refuses to list the directory.
    pub fn open(directory: &Path, folder: &str) -> Result<Self> {
        let root = directory.join(folder);
        let there = match files::list(&root) {
            Err(e) if e.source.kind() == io::ErrorKind::NotFound => None,
            listed => Some(listed?),
        };
        let makes_root = AtomicBool::new(there.is_none());
        for path in there.into_iter().flatten() {
            let name = files::file_name(&path);
            if name.starts_with('.') && name.ends_with(files::TEMPORARY) && is_left_behind(&path) {
                files::remove(&path)?;
            }
        }
        Ok(Self { root, makes_root })
    }

    /// Where the object is or would be.
    fn path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.root.join(name))
    }

    fn publish(&self, name: &str, temporary: &Path, path: &Path) -> Result<PutObject> {
        let folder = path.parent().unwrap_or(&self.root);
        let mut attempts = 0;
        loop {
            if let Some(other) = folders(name).find(|folder| self.root.join(folder).is_file()) {
                return Err(beside(name, other));
            }
            let linked = files::make_directories(folder)
                .and_then(|()| files::link_new(temporary, path, &self.root.join(".lock")));
            match linked {
                Ok(true) => return Ok(PutObject::Created),
                Ok(false) if path.is_dir() => return Err(self.above(name, path)),
                Ok(false) => {
                    files::sync_directory(folder)?;
                    return Ok(PutObject::Exists);
                }
                // A delete took the folder away, which it was the last in.
                Err(e) if e.source.kind() == io::ErrorKind::NotFound && attempts < LINK_ATTEMPTS => {
                    attempts += 1;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The error of an object that others lie below.
    fn above(&self, name: &str, path: &Path) -> ObjectsError {
        let mut below = Vec::new();
        // Only to name one of them.
        let _ = walk(path, name, "", &mut below);
        beside(name, below.first().map_or("…", |info| &info.name))
    }

    /// The file of an object, if there is one.
    fn file(&self, name: &str) -> Result<Option<(PathBuf, File)>> {
        let path = self.path(name)?;
        match File::open(&path) {
            Ok(_) if path.is_dir() => Ok(None),
            Ok(file) => Ok(Some((path, file))),
            Err(e) if is_absent(&e) => Ok(None),
            Err(e) => Err(ObjectsError::io("open", &path, e)),
        }
    }
}

/// Whether it says that there is no such object. A step of its name may be an object itself.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
    )
}

/// By its age. A file that cannot be looked at is left alone.
fn is_left_behind(path: &Path) -> bool {
    let age = fs::metadata(path).and_then(|metadata| metadata.modified()).map(|at| at.elapsed());
    matches!(age, Ok(Ok(age)) if age > LEFT_BEHIND_AFTER)
}

/// Lists what lies in `folder`, whose objects are called `name/…`, as far as it has the prefix.
fn walk(folder: &Path, name: &str, prefix: &str, found: &mut Vec<ObjectInfo>) -> Result<()> {
    let entries = match files::list(folder) {
        Ok(entries) => entries,
        // Deleted since its folder was listed.
        Err(e) if is_absent(&e.source) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    for path in entries {
        let step = files::file_name(&path);
        let name = if name.is_empty() { step.clone() } else { format!("{name}/{step}") };
        let metadata = match fs::metadata(&path) {
            _ if step.starts_with('.') => continue,
            Ok(metadata) => metadata,
            Err(e) if is_absent(&e) => continue,
            Err(e) => return Err(ObjectsError::io("list", &path, e)),
        };
        if metadata.is_dir() {
            let below = format!("{name}/");
            if below.starts_with(prefix) || prefix.starts_with(&below) {
                walk(&path, &name, prefix, found)?;
            }
        } else if name.starts_with(prefix) {
            found.push(ObjectInfo { name, bytes: metadata.len() });
        }
    }
    Ok(())
}

impl Objects for DirectoryObjects {
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<PutObject> {
        let path = self.path(name)?;
        let folder = path.parent().unwrap_or(&self.root);
        if path.is_file() {
            // Its writer may have ended before it flushed the name.
            files::sync_directory(folder)?;
            return Ok(PutObject::Exists);
        }
        if self.makes_root.load(Ordering::Acquire) {
            files::make_directories(&self.root)?;
            self.makes_root.store(false, Ordering::Release);
        }
        let temporary = files::temporary_name(&self.root, &files::file_name(&path));
        let put = files::write_new(&temporary, bytes)
            .map_err(ObjectsError::from)
            .and_then(|()| self.publish(name, &temporary, &path));
        match files::remove(&temporary) {
            Err(e) if put.is_ok() => Err(e.into()),
            _ => put,
        }
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.get_range(name, 0, u64::MAX)
    }

    fn get_range(&self, name: &str, start: u64, len: u64) -> Result<Option<Vec<u8>>> {
        let Some((path, mut file)) = self.file(name)? else { return Ok(None) };
        let mut read = || {
            let bytes = file.metadata()?.len();
            let start = start.min(bytes);
            let left = (bytes - start).min(len);
            let mut bytes = Vec::with_capacity(usize::try_from(left).unwrap_or(0));
            file.seek(SeekFrom::Start(start))?;
            file.by_ref().take(left).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map(Some).map_err(|e| ObjectsError::io("read", &path, e))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let mut found = Vec::new();
        walk(&self.root, "", prefix, &mut found)?;
        // Folders were listed by their names, which is another order: "a-b" before "a/b".
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        if path.is_dir() {
            return Ok(());
        }
        match files::remove(&path) {
            Err(e) if is_absent(&e.source) => return Ok(()),
            removed => removed?,
        };
        let mut folder = path.parent().unwrap_or(&self.root);
        loop {
            let above = folder.parent().filter(|_| folder != self.root);
            // Folders that it was the last in go as well, or every checkpoint would leave one.
            if let Some(above) = above
                && fs::remove_dir(folder).is_ok()
            {
                point("folder removed");
                folder = above;
                continue;
            }
            match (files::sync_directory(folder), above) {
                // Another delete was faster.
                (Err(e), Some(above)) if is_absent(&e.source) => folder = above,
                (synced, _) => return Ok(synced?),
            }
        }
    }
}
