//! Objects in memory: complete, and gone with the process.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{ObjectInfo, Objects, PutObject, Result, beside, check_name, folders};

/// Objects in memory.
#[derive(Debug, Default)]
pub struct MemoryObjects {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl MemoryObjects {
    /// A store without objects.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // Every change is a single insert or remove, so a panic elsewhere leaves nothing half done.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Objects for MemoryObjects {
    fn put_if_absent(&self, name: &str, bytes: &[u8]) -> Result<PutObject> {
        check_name(name)?;
        let mut objects = self.lock();
        if objects.contains_key(name) {
            return Ok(PutObject::Exists);
        }
        if let Some(other) = folders(name).find(|folder| objects.contains_key(*folder)) {
            return Err(beside(name, other));
        }
        let below = format!("{name}/");
        if let Some((other, _)) = objects.range(below.clone()..).next().filter(|(n, _)| n.starts_with(&below))
        {
            return Err(beside(name, other));
        }
        objects.insert(name.to_owned(), bytes.to_vec());
        Ok(PutObject::Created)
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        check_name(name)?;
        Ok(self.lock().get(name).cloned())
    }

    fn get_range(&self, name: &str, start: u64, len: u64) -> Result<Option<Vec<u8>>> {
        check_name(name)?;
        Ok(self.lock().get(name).map(|bytes| {
            let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
            bytes[place(start)..place(start.saturating_add(len))].to_vec()
        }))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>> {
        let objects = self.lock();
        let found = objects.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        let info =
            |(name, bytes): (&String, &Vec<u8>)| ObjectInfo { name: name.clone(), bytes: bytes.len() as u64 };
        Ok(found.map(info).collect())
    }

    fn delete(&self, name: &str) -> Result<()> {
        check_name(name)?;
        self.lock().remove(name);
        Ok(())
    }
}
