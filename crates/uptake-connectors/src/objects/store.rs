//! Objects in S3, or a store like it: in a folder below the prefix, as `checkpoints/NAME`.
//!
//! Of several writers of a name the store itself lets one win (`If-None-Match: *`).

use super::{ObjectInfo, Objects, PutObject, Result, beside, check_name, folders};
use crate::options::Options;
use crate::store::{Done, Store};
use crate::url::Backend;

/// Where large objects lie until they have their name; the names of others do not begin so.
const UPLOADS: &str = "uploads/";

/// Objects in a store behind HTTP.
#[derive(Debug)]
pub struct StoreObjects {
    store: Store,
}

impl StoreObjects {
    /// Opens the objects in `folder` below the prefix of `backend`.
    ///
    /// # Errors
    /// The bucket is not there, the store does not answer in time or refuses the keys, or an
    /// option makes no sense.
    pub fn open(backend: &Backend, folder: &str, options: &Options) -> Result<Self> {
        Ok(Self { store: Store::open(backend, folder, options)? })
    }
}

impl Objects for StoreObjects {
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<PutObject> {
        check_name(name)?;
        // The store would take it; a copy of the store in a directory could not.
        for folder in folders(name) {
            if self.store.size(folder)?.is_some() {
                return Err(beside(name, folder));
            }
        }
        if let Some((other, _)) = self.store.list(name)?.into_iter().find(|(other, _)| other != name) {
            return Err(beside(name, &other));
        }
        Ok(match self.store.create(name, bytes.to_vec())? {
            Done::Yes => PutObject::Created,
            Done::No => PutObject::Exists,
        })
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        check_name(name)?;
        Ok(self.store.get(name)?.map(|found| found.bytes.into()))
    }

    fn get_range(&self, name: &str, start: u64, len: u64) -> Result<Option<Vec<u8>>> {
        check_name(name)?;
        let Some(size) = self.store.size(name)? else { return Ok(None) };
        let (start, end) = (start.min(size), start.saturating_add(len).min(size));
        if start == end {
            return Ok(Some(Vec::new()));
        }
        Ok(self.store.range(name, start, end)?.map(Vec::from))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        // The store lists whole steps.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !folder.is_empty() && check_name(folder).is_err() {
            return Ok(Vec::new());
        }
        let all = self.store.list(folder)?.into_iter();
        let wanted = all.filter(|(name, _)| name.starts_with(prefix) && !name.starts_with(UPLOADS));
        Ok(wanted.map(|(name, bytes)| ObjectInfo { name, bytes }).collect())
    }

    fn delete(&self, name: &str) -> Result<()> {
        check_name(name)?;
        Ok(self.store.delete(name)?)
    }
}
