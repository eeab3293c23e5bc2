//! The archive in S3, or a store like it: the same names and bytes as in a directory.
//!
//! A part is put if there is none; a larger one takes the place of the one that was read if that
//! still is there (`If-Match`), so of writers that race the largest stays.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use uptake_model::TallyRow;

use super::{Archive, PartInfo, Put, Result, TallyPart, against, is_part, parquet, part_order, prepare};
use crate::error::{ArchiveError, FailureKind, RemoteError};
use crate::options::Options;
use crate::store::{Done, Store};
use crate::url::Backend;

/// How often others may be faster in a row.
const ATTEMPTS: usize = 50;

/// An archive in a store behind HTTP.
#[derive(Debug)]
pub struct StoreArchive {
    store: Store,
}

impl StoreArchive {
    /// Opens the archive below the prefix of `backend`.
    ///
    /// # Errors
    /// The bucket is not there, the store does not answer in time or refuses the keys, or an
    /// option makes no sense.
    pub fn open(backend: &Backend, options: &Options) -> Result<Self> {
        Ok(Self { store: Store::open(backend, "tallies", options)? })
    }

    fn read(&self, name: &str) -> Result<Option<Bytes>> {
        Ok(self.store.get(name)?.map(|found| found.bytes))
    }
}

/// The name below the folder `tallies`, which is the store's.
fn name(part: &TallyPart) -> String {
    part.name().trim_start_matches("tallies/").to_owned()
}

/// Others were faster each time.
fn raced(path: &Path) -> ArchiveError {
    RemoteError {
        operation: "put",
        url: path.display().to_string(),
        advice: "others keep replacing it".to_owned(),
        kind: FailureKind::Transient,
        source: None,
    }
    .into()
}

impl Archive for StoreArchive {
    fn put_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<Put> {
        let size = prepare(part, rows)?;
        let (name, path) = (name(part), PathBuf::from(self.store.url(&part.name())));
        let bytes = parquet::to_bytes(&path, part, size, rows)?;
        for _ in 0..ATTEMPTS {
            if self.store.create(&name, bytes.clone())? == Done::Yes {
                return Ok(Put::Created);
            }
            // Deleted since: it can be put after all.
            let Some(found) = self.store.get(&name)? else { continue };
            if found.bytes == bytes {
                return Ok(Put::Identical);
            }
            let existing = parquet::read_info(&path, found.bytes)?;
            if against(&existing, part, size, &path)? == Put::Kept {
                return Ok(Put::Kept);
            }
            if self.store.replace(&name, found.version, bytes.clone())? == Done::Yes {
                return Ok(Put::Replaced);
            }
        }
        Err(raced(&path))
    }

    fn replace_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<()> {
        let size = prepare(part, rows)?;
        let (name, path) = (name(part), PathBuf::from(self.store.url(&part.name())));
        let bytes = parquet::to_bytes(&path, part, size, rows)?;
        for _ in 0..ATTEMPTS {
            let done = match self.store.get(&name)? {
                Some(found) => self.store.replace(&name, found.version, bytes.clone())?,
                None => self.store.create(&name, bytes.clone())?,
            };
            if done == Done::Yes {
                return Ok(());
            }
        }
        Err(raced(&path))
    }

    fn parts(&self) -> Result<Vec<PartInfo>> {
        let mut parts = Vec::new();
        for (name, _) in self.store.list("")? {
            if !name.split_once('/').is_some_and(|(folder, file)| is_part(folder, file)) {
                continue;
            }
            // One that was deleted since it was listed is none.
            if let Some(bytes) = self.read(&name)? {
                parts
                    .push(parquet::read_info(Path::new(&self.store.url(&format!("tallies/{name}"))), bytes)?);
            }
        }
        parts.sort_by_key(|info| part_order(&info.part));
        Ok(parts)
    }

    fn read_tallies(&self, part: &TallyPart) -> Result<Vec<TallyRow>> {
        let path = PathBuf::from(self.store.url(&part.name()));
        let Some(bytes) = self.read(&name(part))? else { return Err(ArchiveError::Missing { path }) };
        let info = parquet::read_info(&path, bytes.clone())?;
        if info.part != *part {
            return Err(ArchiveError::Missing { path });
        }
        parquet::read(&path, [bytes.clone(), bytes], &info)
    }
}
