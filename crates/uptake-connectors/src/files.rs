//! What all directory forms do with files: names that survive a power cut, files that appear
//! whole or not at all.
//!
//! Each step says in its error what was tried on which path, and passes a crash point.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::faults::point;

/// A step that the system refused.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) operation: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

pub(crate) type Result<T> = std::result::Result<T, Failed>;

/// For `map_err`: what was tried, on what.
pub(crate) fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failed {
    move |source| Failed { operation, path: path.to_path_buf(), source }
}

/// Makes `directory` and those above it where they are not there, and flushes their names.
pub(crate) fn make_directories(directory: &Path) -> Result<()> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().unwrap_or(Path::new(""));
    make_directories(parent)?;
    point("about to make a directory");
    match fs::create_dir(directory) {
        Ok(()) => {}
        // Another process was faster.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        Err(e) => return Err(failed("make the directory", directory)(e)),
    }
    point("directory made");
    sync_directory(parent)
}

/// Makes the names in `directory` survive a power cut.
pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    // Only Unix opens directories as files; elsewhere the file system sees to it.
    if cfg!(unix) {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        File::open(directory).and_then(|file| file.sync_all()).map_err(failed("flush", directory))?;
    }
    point("directory flushed");
    Ok(())
}

/// The entries of `directory`, in the order of their names.
pub(crate) fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).map_err(failed("list", directory))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed("list", directory)));
    let mut paths: Vec<_> = paths.collect::<Result<_>>()?;
    paths.sort();
    Ok(paths)
}

/// The last step of `path`, empty where there is none.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The end of the names of files that are being written. They begin with a dot.
pub(crate) const TEMPORARY: &str = ".tmp";

/// A hidden name in `folder` that no other writer uses, in this process or another.
pub(crate) fn temporary_name(folder: &Path, name: &str) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    folder.join(format!(".{name}.{}-{number}{TEMPORARY}", std::process::id()))
}

/// Writes a new file and flushes it to the device.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    point("about to create a temporary file");
    let mut file = File::create_new(path).map_err(failed("create", path))?;
    point("temporary file created");
    file.write_all(bytes).map_err(failed("write", path))?;
    point("temporary file written");
    file.sync_all().map_err(failed("flush", path))?;
    point("temporary file flushed");
    Ok(())
}

/// Gives the finished file `temporary` the name `path`, unless another has it, and flushes the
/// name. Returns whether it did. The file may keep its temporary name beside.
pub(crate) fn link_new(temporary: &Path, path: &Path, lock: &Path) -> Result<bool> {
    point("about to link");
    match fs::hard_link(temporary, path) {
        Ok(()) => point("linked"),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        // One may have been deleted since; and without its folder there is no name to give.
        Err(e) if path.exists() || e.kind() == io::ErrorKind::NotFound => {
            return Err(failed("create", path)(e));
        }
        // A file system without hard links: the lock keeps two writers apart.
        Err(_) => {
            let _held = hold(lock)?;
            if path.exists() {
                return Ok(false);
            }
            rename(temporary, path)?;
        }
    }
    sync_directory(path.parent().unwrap_or(Path::new("")))?;
    Ok(true)
}

/// Puts the file `from` in the place of `to`.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    point("about to rename");
    fs::rename(from, to).map_err(failed("create", to))?;
    point("renamed");
    Ok(())
}

/// Removes a file; fine where there is none. Returns whether there was.
pub(crate) fn remove(path: &Path) -> Result<bool> {
    point("about to remove");
    let there = match fs::remove_file(path) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(failed("remove", path)(e)),
    };
    point("removed");
    Ok(there)
}

/// Opens the lock file `path`, making it where there is none.
pub(crate) fn lock_file(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(failed("open", path))
}

/// Waits for the exclusive lock of `path`; it is held until the file is dropped.
pub(crate) fn hold(path: &Path) -> Result<File> {
    let file = lock_file(path)?;
    file.lock().map_err(failed("lock", path))?;
    Ok(file)
}
