//! Other people's bytes in a library that asserts.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::errors::{ParquetError, Result};

/// Runs a step of the Parquet library; a panic of it becomes an error.
///
/// The library asserts what it should check: a length that points beyond its page, or a column
/// type that its row reader does not know, ends in a panic (`tests/`, the tests of damaged
/// files). What the step held must not be used again after an error.
pub(crate) fn guard<T>(step: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(result) => result,
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(ParquetError::General(format!("its bytes make no sense ({said})")))
        }
    }
}
