//! The archive in memory: complete, and gone with the process.

use std::collections::BTreeMap;
use std::path::Path;

use uptake_model::TallyRow;

use super::{Archive, PartInfo, Put, Result, TallyPart, against, part_order, prepare};
use crate::error::ArchiveError;

#[derive(Debug)]
struct Part {
    info: PartInfo,
    rows: Vec<TallyRow>,
}

/// An archive in memory.
#[derive(Debug, Default)]
pub struct MemoryArchive {
    /// By name, as in a directory.
    parts: BTreeMap<String, Part>,
}

impl MemoryArchive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Archive for MemoryArchive {
    fn put_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<Put> {
        let size = prepare(part, rows)?;
        let info = PartInfo { part: *part, rows: rows.len() as u64, size };
        let stored = || Part { info, rows: rows.iter().cloned().map(sealed).collect() };
        let name = part.name();
        let Some(existing) = self.parts.get_mut(&name) else {
            self.parts.insert(name, stored());
            return Ok(Put::Created);
        };
        let put = against(&existing.info, part, size, Path::new(&name))?;
        let new = stored();
        if existing.rows == new.rows {
            return Ok(Put::Identical);
        }
        if put == Put::Replaced {
            *existing = new;
        }
        Ok(put)
    }

    fn replace_tallies(&mut self, part: &TallyPart, rows: &mut Vec<TallyRow>) -> Result<()> {
        let info = PartInfo { part: *part, size: prepare(part, rows)?, rows: rows.len() as u64 };
        self.parts.insert(part.name(), Part { info, rows: rows.iter().cloned().map(sealed).collect() });
        Ok(())
    }

    fn parts(&self) -> Result<Vec<PartInfo>> {
        let mut parts: Vec<_> = self.parts.values().map(|part| part.info).collect();
        parts.sort_by_key(|info| part_order(&info.part));
        Ok(parts)
    }

    fn read_tallies(&self, part: &TallyPart) -> Result<Vec<TallyRow>> {
        match self.parts.get(&part.name()) {
            Some(found) if found.info.part == *part => Ok(found.rows.clone()),
            _ => Err(ArchiveError::Missing { path: part.name().into() }),
        }
    }
}

fn sealed(row: TallyRow) -> TallyRow {
    TallyRow { sealed: true, ..row }
}
