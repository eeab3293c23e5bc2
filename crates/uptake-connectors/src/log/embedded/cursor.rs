//! A reader's place in a segment, down to the record.

use super::frame::{self, Head};
use super::segment::{Frames, Step};
use crate::log::{Result, StoredRef};

/// How much a reader wants, and where it is.
pub(super) struct Reading {
    /// The offset of the next record that it wants.
    pub(super) next: u64,
    pub(super) from: u64,
    pub(super) records_left: usize,
    pub(super) bytes_left: usize,
    /// The next record is too much.
    pub(super) is_full: bool,
}

impl Reading {
    /// Whether a record of so many bytes of key and value is still wanted.
    fn takes(&mut self, bytes: usize) -> bool {
        let first = self.next == self.from;
        if self.records_left == 0 || (bytes > self.bytes_left && !first) {
            self.is_full = true;
            return false;
        }
        self.records_left -= 1;
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        true
    }
}

/// Where the frames of a segment end, as far as is known.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// The last segment: at so many bytes.
    Bytes(u64),
    /// An earlier one: with the file, and the next segment begins with this offset.
    Offset(u64),
}

#[derive(Debug)]
pub(super) struct Cursor {
    frames: Frames,
    until: Until,
    /// The frame that the next record is in, once it was read.
    head: Option<Head>,
    /// The offset of the next record.
    next: u64,
    /// Where the next record begins among those of the frame.
    at: usize,
}

impl Cursor {
    /// A cursor at the next frame of `frames`.
    pub(super) fn new(frames: Frames, until: Until) -> Result<Self> {
        let next = frames.expected;
        let mut cursor = Self { frames, until, head: None, next, at: 0 };
        cursor.read_until(until)?;
        Ok(cursor)
    }

    /// Reads on as far as is known by now.
    pub(super) fn read_until(&mut self, until: Until) -> Result<()> {
        self.until = until;
        let limit = match until {
            Until::Bytes(bytes) => bytes,
            Until::Offset(_) => self.frames.file_bytes()?,
        };
        self.frames.read_up_to(limit);
        Ok(())
    }

    /// The first offset of its segment.
    pub(super) fn base(&self) -> u64 {
        self.frames.base
    }

    /// The offset of the next record.
    pub(super) fn offset(&self) -> u64 {
        self.next
    }

    /// Whether its segment has nothing more and never will have.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.until, Until::Offset(next) if next == self.next)
    }

    /// How much memory is held, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.frames.memory_bytes()
    }

    /// The next frame, without its records; `None` at the end of the segment.
    pub(super) fn next_frame(&mut self) -> Result<Option<Head>> {
        match self.frames.next()? {
            Step::Frame(head) => Ok(Some(head)),
            Step::Bad(what) => Err(self.frames.damaged(what)),
            Step::End => match self.until {
                Until::Offset(next) if next != self.frames.expected => {
                    let end = self.frames.expected;
                    let what = format!("it ends with offset {end}, the next segment begins with {next}");
                    Err(self.frames.damaged(what))
                }
                _ => Ok(None),
            },
        }
    }

    /// Visits the records that `reading` wants, up to the end of the segment.
    pub(super) fn visit(&mut self, reading: &mut Reading, each: &mut dyn FnMut(StoredRef<'_>)) -> Result<()> {
        loop {
            let head = match self.head {
                Some(head) => head,
                None => match self.next_frame()? {
                    Some(head) => {
                        self.at = 0;
                        *self.head.insert(head)
                    }
                    None => return Ok(()),
                },
            };
            let records = self.frames.records();
            while self.next < head.end() {
                let Some((key, value)) = records.get(self.at..).and_then(frame::record) else {
                    return Err(self.frames.damaged("the frame before has fewer records than it says"));
                };
                // The first frame may begin before the first record that is wanted.
                if self.next >= reading.next {
                    if !reading.takes(key.len() + value.len()) {
                        return Ok(());
                    }
                    each(StoredRef { offset: self.next, appended_ms: head.appended_ms, key, value });
                    reading.next = self.next + 1;
                }
                self.at += frame::record_bytes(key, value);
                self.next += 1;
            }
            self.head = None;
        }
    }
}
