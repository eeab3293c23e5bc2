//! The numbers, texts and parts that the entries of sections are made of.

use super::{CheckpointError, Segment};

/// Reads the numbers and texts of a section; an error says which part breaks off.
pub struct Fields<'a> {
    segment: &'a Segment,
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of a section of `segment`.
    pub fn new(segment: &'a Segment, bytes: &'a [u8]) -> Self {
        Self { segment, bytes }
    }

    /// So many bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CheckpointError> {
        let (array, rest) =
            self.bytes.split_first_chunk().ok_or_else(|| self.segment.damaged("an entry breaks off"))?;
        self.bytes = rest;
        Ok(*array)
    }

    /// A number of 64 bits, little-endian.
    pub fn u64(&mut self) -> Result<u64, CheckpointError> {
        self.array().map(u64::from_le_bytes)
    }

    /// The same with a sign.
    pub fn i64(&mut self) -> Result<i64, CheckpointError> {
        self.array().map(i64::from_le_bytes)
    }

    /// A number of 32 bits, little-endian.
    pub fn u32(&mut self) -> Result<u32, CheckpointError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Bytes behind their length.
    pub fn part(&mut self) -> Result<&'a [u8], CheckpointError> {
        let length = self.u32()? as usize;
        let (part, rest) =
            self.bytes.split_at_checked(length).ok_or_else(|| self.segment.damaged("an entry breaks off"))?;
        self.bytes = rest;
        Ok(part)
    }

    /// A text behind its length.
    pub fn text(&mut self) -> Result<&'a str, CheckpointError> {
        std::str::from_utf8(self.part()?).map_err(|_| self.segment.damaged("a name is not UTF-8"))
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Writes bytes behind their length, as [`Fields::part`] reads them.
pub fn put_part(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    out.extend_from_slice(part);
}
