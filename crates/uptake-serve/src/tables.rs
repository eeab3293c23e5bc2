//! The table as many requests read it: a few open handles, each used by one at a time.

use std::sync::{Mutex, PoisonError};

use uptake_connectors::TableError;
use uptake_connectors::table::Table;

/// Opens a table to read; `None` as long as there is none.
pub type OpenTable = Box<dyn Fn() -> Result<Option<Box<dyn Table>>, TableError> + Send + Sync>;

/// Why the table cannot be read.
pub(crate) type TablesError = TableError;

/// How many handles are kept, and how many requests read at once.
pub(crate) const HANDLES_MAX: usize = 16;

/// Handles of the table.
pub(crate) struct Tables {
    open: OpenTable,
    free: Mutex<Vec<Box<dyn Table>>>,
}

impl Tables {
    pub(crate) fn new(open: OpenTable) -> Self {
        Self { open, free: Mutex::default() }
    }

    /// Reads with a handle of its own; `None` as long as there is no table.
    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&dyn Table) -> Result<T, TableError>,
    ) -> Result<Option<T>, TablesError> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let table = match free {
            Some(table) => table,
            None => match (self.open)()? {
                Some(table) => table,
                None => return Ok(None),
            },
        };
        // A handle that failed is not used again: the file may have been replaced.
        let found = read(&*table)?;
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < HANDLES_MAX {
            free.push(table);
        }
        Ok(Some(found))
    }
}
