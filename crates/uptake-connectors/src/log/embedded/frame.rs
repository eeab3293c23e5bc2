//! A frame: what one append wrote.
//!
//! ```text
//! length u32 | crc32c u32 | first offset u64 | count u32 | appended_ms i64 | records
//! record: key length u32 | value length u32 | key | value
//! ```
//!
//! All numbers are little-endian; `length` counts what follows the checksum, and the checksum
//! covers the length and what follows.

use crate::error::LogError;
use crate::log::{Record, Result};

/// Length and checksum, before what the length counts.
pub(super) const PREFIX_BYTES: usize = 8;

/// First offset, count and time, the least that the length counts.
const HEAD_BYTES: usize = 20;

/// Where the records of a frame begin.
pub(super) const RECORDS_AT: usize = PREFIX_BYTES + HEAD_BYTES;

/// The most that the length counts. Below the 4 GiB of its field, so that a damaged length is
/// noticed.
const LENGTH_MAX: u64 = 1 << 30;

/// What a frame says before its records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) first: u64,
    pub(super) count: u32,
    pub(super) appended_ms: i64,
}

impl Head {
    /// The offset behind its last record.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// How many bytes the frame has that begins with `prefix`; `None` if no frame does.
pub(super) fn total_bytes(prefix: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(*prefix.first_chunk()?);
    let possible = length as usize >= HEAD_BYTES && u64::from(length) <= LENGTH_MAX;
    possible.then_some(PREFIX_BYTES + length as usize)
}

/// Checks the bytes of a frame against its checksum and returns what its head says.
pub(super) fn check(frame: &[u8]) -> Option<Head> {
    let (length, mut rest) = frame.split_first_chunk::<4>()?;
    let crc = u32::from_le_bytes(take(&mut rest)?);
    if crc32c::crc32c_append(crc32c::crc32c(length), rest) != crc {
        return None;
    }
    Some(Head {
        first: u64::from_le_bytes(take(&mut rest)?),
        count: u32::from_le_bytes(take(&mut rest)?),
        appended_ms: i64::from_le_bytes(take(&mut rest)?),
    })
}

/// The key and the value of the record that `bytes` begins with.
pub(super) fn record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (key, rest) = bytes.split_first_chunk()?;
    let (value, rest) = rest.split_first_chunk()?;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(*key) as usize)?;
    let value = rest.get(..u32::from_le_bytes(*value) as usize)?;
    Some((key, value))
}

/// The bytes of a stored record.
pub(super) fn record_bytes(key: &[u8], value: &[u8]) -> usize {
    8 + key.len() + value.len()
}

/// A frame of `records`, whose offset [`seal`] sets.
pub(super) fn encode(topic: &str, records: &[Record], now_ms: i64) -> Result<Vec<u8>> {
    let bytes: u64 = records.iter().map(|r| record_bytes(&r.key, &r.value) as u64).sum();
    let length = HEAD_BYTES as u64 + bytes;
    if length > LENGTH_MAX {
        return Err(LogError::TooLarge { topic: topic.to_owned(), bytes: length, max: LENGTH_MAX });
    }
    let mut frame = Vec::with_capacity(PREFIX_BYTES + length as usize);
    frame.extend_from_slice(&(length as u32).to_le_bytes());
    // The checksum and the offset, which are known only under the partition's lock.
    frame.extend_from_slice(&[0; 4 + 8]);
    // Each record takes 8 bytes at least, so the count is far below 2³².
    frame.extend_from_slice(&(records.len() as u32).to_le_bytes());
    frame.extend_from_slice(&now_ms.to_le_bytes());
    for record in records {
        frame.extend_from_slice(&(record.key.len() as u32).to_le_bytes());
        frame.extend_from_slice(&(record.value.len() as u32).to_le_bytes());
        frame.extend_from_slice(&record.key);
        frame.extend_from_slice(&record.value);
    }
    Ok(frame)
}

/// Gives an encoded frame its first offset and its checksum.
pub(super) fn seal(frame: &mut [u8], first: u64) {
    frame[PREFIX_BYTES..PREFIX_BYTES + 8].copy_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame[..4]), &frame[PREFIX_BYTES..]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Whether a whole frame of an offset beyond `end` begins anywhere behind the first byte of
/// `rest`.
///
/// A torn frame is the last thing in a file. A whole one behind it means that acknowledged
/// records are damaged, and cutting would lose them and what follows.
pub(super) fn follows(rest: &[u8], end: u64) -> bool {
    (1..rest.len()).map(|at| &rest[at..]).take_while(|rest| rest.len() >= RECORDS_AT).any(|rest| {
        // A frame holds a record at least, so one behind the torn one has a later offset; and no
        // segment has 2⁴⁰ records. That rules out nearly every place without a checksum.
        let first = rest[PREFIX_BYTES..].first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        let plausible = first > end && first - end < 1 << 40;
        let frame = || total_bytes(rest).and_then(|bytes| rest.get(..bytes));
        plausible && frame().is_some_and(|frame| check(frame).is_some())
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}
