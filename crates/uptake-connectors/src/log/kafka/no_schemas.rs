//! In the place of `schemas.rs` in a build without the feature `schema-registry`.

use super::super::Result;
use super::KafkaOptions;
use crate::error::LogError;

/// There are none.
pub(super) enum Schemas {}

impl Schemas {
    pub(super) fn new(_url: &str, _options: &KafkaOptions) -> Result<Self> {
        let what = "needs a program built with the feature schema-registry".to_owned();
        Err(LogError::Option { key: "schema_registry".to_owned(), what })
    }

    pub(super) fn json(&self, _record: &[u8]) -> Result<Option<Vec<u8>>> {
        match *self {}
    }
}
