//! The archive in a directory: `tallies/epoch=…/shard-…parquet`, for DuckDB, Spark and pandas.
//!
//! An object appears whole or not at all: it is written under a hidden name, flushed to the
//! device, then linked to its own. What a crash leaves behind begins with a dot and ends in
//! `.tmp`; readers of `*.parquet` do not see it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use uptake_model::TallyRow;

use super::{Archive, PartInfo, Put, Result, TallyPart, parquet, part_order, prepare};
use crate::error::ArchiveError;

/// An archive in a directory.
#[derive(Debug)]
pub struct DirectoryArchive {
    root: PathBuf,
}

impl DirectoryArchive {
    /// Opens the archive in `directory`, making it where there is none.
    ///
    /// # Errors
    /// The system refuses to make the directory.
    pub fn open(directory: &Path) -> Result<Self> {
        make_directories(&directory.join("tallies"))?;
        Ok(Self { root: directory.to_path_buf() })
    }

    /// Where `part` is or would be.
    pub fn path(&self, part: &TallyPart) -> PathBuf {
        self.root.join(part.name())
    }

    /// Gives the finished file its name, unless another one has it.
    fn publish(&self, part: &TallyPart, size: u64, temporary: &Path, path: &Path) -> Result<Put> {
        let io = |operation| move |e| ArchiveError::io(operation, path, e);
        match fs::hard_link(temporary, path) {
            Ok(()) => {
                sync_directory(path)?;
                return Ok(Put::Created);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            // A file system without hard links: the lock below keeps two writers apart.
            Err(_) if !path.exists() => {}
            Err(e) => return Err(io("create")(e)),
        }
        // One at a time looks at what is there and replaces it, or the smaller of two could win.
        let lock_path = self.root.join("tallies/.lock");
        let lock = File::create(&lock_path).map_err(|e| ArchiveError::io("create", &lock_path, e))?;
        lock.lock().map_err(|e| ArchiveError::io("lock", &lock_path, e))?;
        let outcome = if !path.exists() {
            Put::Created
        } else if same_bytes(temporary, path).map_err(io("read"))? {
            return Ok(Put::Identical);
        } else {
            let existing = parquet::read_info(path)?;
            if existing.part.length != part.length {
                return Err(ArchiveError::OtherLength {
                    path: path.to_path_buf(),
                    found_ms: existing.part.length.ms(),
                    asked_ms: part.length.ms(),
                });
            }
            if size <= existing.size {
                return Ok(Put::Kept);
            }
            Put::Replaced
        };
        fs::rename(temporary, path).map_err(io("create"))?;
        sync_directory(path)?;
        Ok(outcome)
    }
}

impl Archive for DirectoryArchive {
    fn put_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<Put> {
        let size = prepare(part, rows)?;
        let path = self.path(part);
        if let Some(directory) = path.parent() {
            make_directories(directory)?;
        }
        let temporary = temporary_name(&path);
        let written = parquet::write(&temporary, part, size, rows)
            .and_then(|()| self.publish(part, size, &temporary, &path));
        match fs::remove_file(&temporary) {
            // Renamed: the name is gone already.
            Err(e) if e.kind() != io::ErrorKind::NotFound && written.is_ok() => {
                Err(ArchiveError::io("remove", &temporary, e))
            }
            _ => written,
        }
    }

    fn parts(&self) -> Result<Vec<PartInfo>> {
        let mut parts = Vec::new();
        for epoch in list(&self.root.join("tallies"))? {
            if !file_name(&epoch).starts_with("epoch=") {
                continue;
            }
            for object in list(&epoch)? {
                let name = file_name(&object);
                if name.starts_with("shard-") && name.ends_with(".parquet") {
                    parts.push(parquet::read_info(&object)?);
                }
            }
        }
        parts.sort_by_key(|info| part_order(&info.part));
        Ok(parts)
    }

    fn read_tallies(&self, part: &TallyPart) -> Result<Vec<TallyRow>> {
        let path = self.path(part);
        if !path.exists() {
            return Err(ArchiveError::Missing { path });
        }
        let info = parquet::read_info(&path)?;
        if info.part != *part {
            return Err(ArchiveError::Missing { path });
        }
        parquet::read(&path, &info)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn list(directory: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| ArchiveError::io("list", directory, e);
    fs::read_dir(directory).map_err(io)?.map(|entry| entry.map(|e| e.path()).map_err(io)).collect()
}

/// A hidden name beside `path` that no other writer uses, in this process or another.
fn temporary_name(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{}.{}-{number}.tmp", file_name(path), std::process::id()))
}

fn make_directories(directory: &Path) -> Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(directory).map_err(|e| ArchiveError::io("make the directory", directory, e))?;
    sync_directory(directory)
}

/// Makes the name of `path` in its directory survive a power cut.
fn sync_directory(path: &Path) -> Result<()> {
    let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    // Only Unix opens directories as files; elsewhere the file system sees to it.
    if cfg!(unix) {
        let synced = File::open(directory).and_then(|file| file.sync_all());
        synced.map_err(|e| ArchiveError::io("flush", directory, e))?;
    }
    Ok(())
}

fn same_bytes(a: &Path, b: &Path) -> io::Result<bool> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (BufReader::new(a), BufReader::new(b));
    let (mut x, mut y) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let n = a.read(&mut x)?;
        if n == 0 {
            return Ok(true);
        }
        b.read_exact(&mut y[..n])?;
        if x[..n] != y[..n] {
            return Ok(false);
        }
    }
}
