//! What every log, table, archive and store of objects must do, wherever it is.

#![allow(dead_code, reason = "every test binary uses another part of this module")]

pub(crate) mod archive;
pub(crate) mod log;
pub(crate) mod objects;
pub(crate) mod table;
