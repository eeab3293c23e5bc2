//! The archive in a directory: `tallies/epoch=…/shard-…parquet`, for DuckDB, Spark and pandas.
//!
//! An object appears whole or not at all: it is written under a hidden name, flushed to the
//! device, then linked to its own. What a crash leaves behind begins with a dot and ends in
//! `.tmp`; readers of `*.parquet` do not see it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use uptake_model::TallyRow;

use super::{Archive, PartInfo, Put, Result, TallyPart, against, is_part, parquet, part_order, prepare};
use crate::error::ArchiveError;
use crate::files;

/// An archive in a directory.
#[derive(Debug)]
pub struct DirectoryArchive {
    root: PathBuf,
}

impl DirectoryArchive {
    /// The archive in `directory`, which the first part that is put makes.
    pub fn open(directory: &Path) -> Self {
        Self { root: directory.to_path_buf() }
    }

    /// Where `part` is or would be.
    pub fn path(&self, part: &TallyPart) -> PathBuf {
        self.root.join(part.name())
    }

    /// Writes the rows under a hidden name, lets `publish` give them their own (it is told their size, that file and
    /// the path), and leaves nothing behind.
    fn written<T>(
        &self,
        part: &TallyPart,
        rows: &mut [TallyRow],
        publish: impl FnOnce(u64, &Path, &Path) -> Result<T>,
    ) -> Result<T> {
        let size = prepare(part, rows)?;
        let path = self.path(part);
        let folder = path.parent().unwrap_or(&self.root);
        files::make_directories(folder)?;
        let temporary = files::temporary_name(folder, &files::file_name(&path));
        let published =
            parquet::write(&temporary, part, size, rows).and_then(|()| publish(size, &temporary, &path));
        match files::remove(&temporary) {
            Err(e) if published.is_ok() => Err(e.into()),
            _ => published,
        }
    }

    /// Gives the finished file its name, unless another one has it.
    fn publish(&self, part: &TallyPart, size: u64, temporary: &Path, path: &Path) -> Result<Put> {
        let folder = path.parent().unwrap_or(&self.root);
        let lock = self.root.join("tallies/.lock");
        if files::link_new(temporary, path, &lock)? {
            return Ok(Put::Created);
        }
        // One at a time looks at what is there and replaces it, or the smaller of two could win.
        let _held = files::hold(&lock)?;
        let outcome = if same_bytes(temporary, path).map_err(|e| ArchiveError::io("read", path, e))? {
            Put::Identical
        } else {
            let existing = parquet::read_info(path, parquet::open(path)?)?;
            against(&existing, part, size, path)?
        };
        if outcome == Put::Replaced {
            files::rename(temporary, path)?;
        }
        // Also of what was there: its writer may have ended before it flushed the name.
        files::sync_directory(folder)?;
        Ok(outcome)
    }
}

impl Archive for DirectoryArchive {
    fn put_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<Put> {
        self.written(part, rows, |size, temporary, path| self.publish(part, size, temporary, path))
    }

    fn replace_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<()> {
        self.written(part, rows, |_, temporary, path| {
            let _held = files::hold(&self.root.join("tallies/.lock"))?;
            files::rename(temporary, path)?;
            Ok(files::sync_directory(path.parent().unwrap_or(&self.root))?)
        })
    }

    fn parts(&self) -> Result<Vec<PartInfo>> {
        let mut parts = Vec::new();
        let epochs = match files::list(&self.root.join("tallies")) {
            // Nothing was put yet. That the whole directory is away is another matter.
            Err(e) if e.source.kind() == io::ErrorKind::NotFound && self.root.is_dir() => return Ok(parts),
            listed => listed?,
        };
        for epoch in epochs {
            let folder = files::file_name(&epoch);
            if !folder.starts_with("epoch=") {
                continue;
            }
            for object in files::list(&epoch)? {
                if is_part(&folder, &files::file_name(&object)) {
                    parts.push(parquet::read_info(&object, parquet::open(&object)?)?);
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
        let info = parquet::read_info(&path, parquet::open(&path)?)?;
        if info.part != *part {
            return Err(ArchiveError::Missing { path });
        }
        parquet::read(&path, [parquet::open(&path)?, parquet::open(&path)?], &info)
    }
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
