//! The manifest: one small object that makes a checkpoint, put last and only where there is none.
//!
//! A line of JSON that says everything, and a line with its checksum. What it does not name is no
//! part of the checkpoint.

use serde::{Deserialize, Serialize};
use uptake_model::EventTime;
use uptake_model::ledger::Ledger;

use super::CheckpointError;

/// The version that is written.
const FORMAT: u32 = 1;

/// A checkpoint.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of its form.
    pub format: u32,
    /// Its number; each is larger than all before.
    pub number: u64,
    /// The version of the program that wrote it.
    pub program: String,
    /// What the tallies mean; another configuration cannot go on from it.
    pub meaning: String,
    /// When it was begun, wall time in milliseconds since 1970.
    pub created_ms: i64,
    /// The watermark.
    pub watermark: EventTime,
    /// The lateness by which the tallies of the past were sealed up to then, in milliseconds; `None` in manifests of
    /// versions that did not say so.
    #[serde(default)]
    pub lateness_ms: Option<i64>,
    /// What happened before was too late by then; `None` in manifests of versions that did not say so.
    #[serde(default)]
    pub late_before: Option<EventTime>,
    /// How far the input was read.
    pub input: InputPosition,
    /// The books at this place of the input.
    pub ledger: Ledger,
    /// Requests that were on the workers' disks because memory had no room for them. What they are is in the
    /// segments, like all others.
    #[serde(default)]
    pub spilled: u64,
    /// The segments that hold the state, oldest first: what stands in a later one wins.
    pub segments: Vec<SegmentInfo>,
}

/// A segment as a manifest names it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// The checkpoint it was written for.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Its checksum, CRC-32C.
    pub crc32c: u32,
}

/// How far the input was read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputPosition {
    /// Nothing was read.
    #[default]
    Beginning,
    /// A log: by the number that the ledger has for a partition, where to read on.
    Log(Vec<PartitionPosition>),
    /// Files, in their order: everything before a place was read, and some lines behind it.
    Files {
        /// Which files they were, by name and size: others cannot be gone on with.
        fingerprint: String,
        /// The number of the first file that was not read whole.
        file: usize,
        /// The first line there that was not read.
        line: u64,
        /// What was read behind that: file, first line, number of lines.
        beyond: Vec<(usize, u64, u64)>,
    },
}

/// A partition of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionPosition {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset to read next.
    pub offset: u64,
    /// The newest event time that was read; without it a run that goes on from here would have its
    /// watermark follow the other partitions alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<EventTime>,
}

impl PartitionPosition {
    /// Takes up what a reader says: nothing goes back.
    pub(crate) fn advance(&mut self, offset: u64, newest: Option<EventTime>) {
        self.offset = self.offset.max(offset);
        self.newest = self.newest.max(newest);
    }
}

impl Manifest {
    /// A manifest of the current form.
    pub fn new(number: u64, meaning: String, created_ms: i64) -> Self {
        Self {
            format: FORMAT,
            number,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            meaning,
            created_ms,
            watermark: EventTime::MIN,
            lateness_ms: None,
            late_before: None,
            input: InputPosition::Beginning,
            ledger: Ledger::default(),
            spilled: 0,
            segments: Vec::new(),
        }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// It cannot be written as JSON, which numbers and texts always can.
    pub fn encode(&self) -> Result<Vec<u8>, CheckpointError> {
        let mut bytes =
            serde_json::to_vec(self).map_err(|e| CheckpointError::damaged("the manifest", e.to_string()))?;
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(format!("\ncrc32c {crc:08x}\n").as_bytes());
        Ok(bytes)
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// It is damaged, or of a version that this program does not know.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let damaged = |what: &str| CheckpointError::damaged(name, what);
        let end = bytes.iter().position(|&b| b == b'\n').ok_or_else(|| damaged("it breaks off"))?;
        let (json, checksum) = bytes.split_at(end);
        let expected = format!("\ncrc32c {:08x}\n", crc32c::crc32c(json));
        if checksum != expected.as_bytes() {
            return Err(damaged("its checksum does not fit"));
        }
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let versioned: Versioned =
            serde_json::from_slice(json).map_err(|e| CheckpointError::damaged(name, e.to_string()))?;
        if versioned.format > FORMAT {
            return Err(CheckpointError::damaged(
                name,
                format!("it has format {}, this program reads up to {FORMAT}", versioned.format),
            ));
        }
        serde_json::from_slice(json).map_err(|e| CheckpointError::damaged(name, e.to_string()))
    }
}
