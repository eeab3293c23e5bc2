//! What is known of a partition's files, and how it is brought up to date.
//!
//! Any process may append to a partition, begin segments and drop old ones, at any time; so what
//! is known is a beginning of what is there, and every question is preceded by a look. Where
//! nothing changed, that is a look at two names and a length.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::segment::{self, Frames, HEADER_BYTES, Step};
use crate::error::LogError;
use crate::log::Result;

/// A read starts at most this far before its first record.
const INDEX_EVERY_BYTES: u64 = 64 << 10;

/// How many readers' places are remembered, each with an open file.
const CURSORS_MAX: usize = 16;

/// A reader's place that holds more memory than this, after a very large frame, is not kept.
const CURSOR_BYTES_MAX: usize = 4 << 20;

/// Some of a segment's frames, in order: first offset and position.
pub(super) type Index = Vec<(u64, u64)>;

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) base: u64,
    pub(super) path: PathBuf,
    /// `None` until somebody needs it; of the last segment it is always there.
    pub(super) index: Option<Index>,
}

#[derive(Debug)]
pub(super) struct State {
    directory: PathBuf,
    /// By first offset. Empty only before the partition's first segment is made.
    segments: Vec<Segment>,
    /// Where the last whole frame of the last segment ends; 0 before its header is there.
    pub(super) whole_bytes: u64,
    /// The length of the last segment when it was last read.
    seen_bytes: u64,
    /// The offset of the next record.
    pub(super) end: u64,
    /// Where readers stopped: who reads on, as a consumer does, needs neither index nor open.
    cursors: Vec<Cursor>,
}

impl State {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_path_buf(),
            segments: Vec::new(),
            whole_bytes: 0,
            seen_bytes: 0,
            end: 0,
            cursors: Vec::new(),
        }
    }

    /// Takes in what was appended and begun since the last look.
    ///
    /// # Errors
    /// A frame is damaged and whole ones follow it, or the system refuses.
    pub(super) fn catch_up(&mut self) -> Result<()> {
        loop {
            let Some(last) = self.segments.last() else {
                self.list()?;
                if self.segments.is_empty() {
                    return Ok(());
                }
                continue;
            };
            let (base, path) = (last.base, last.path.clone());
            match fs::metadata(&path) {
                Ok(metadata) => self.read_new(metadata.len())?,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    // Dropped, after newer ones were begun.
                    self.list()?;
                    if self.segments.last().is_some_and(|last| last.base == base) {
                        return Err(LogError::io("read", &path, e));
                    }
                    continue;
                }
                Err(e) => return Err(LogError::io("read", &path, e)),
            }
            // A segment begins where the one before it ends, so its name is known beforehand.
            let next = segment::path(&self.directory, self.end);
            let is_there = next.try_exists().map_err(|e| LogError::io("read", &next, e))?;
            if self.end == base || !is_there {
                return Ok(());
            }
            self.begin(self.end, 0);
        }
    }

    /// The first offset that is kept, as the files say now.
    pub(super) fn start(&mut self) -> Result<u64> {
        if let [first, _, ..] = self.segments.as_slice()
            && !first.path.try_exists().map_err(|e| LogError::io("read", &first.path, e))?
        {
            self.list()?;
            self.catch_up()?;
        }
        Ok(self.segments.first().map_or(self.end, |segment| segment.base))
    }

    /// Forgets everything that was derived and looks again. Returns whether that is another
    /// picture than before: a listing may miss what is made and dropped meanwhile, and an append
    /// that could not be flushed is cut away.
    pub(super) fn look_again(&mut self) -> Result<bool> {
        let picture = |state: &Self| {
            let bases: Vec<_> = state.segments.iter().map(|segment| segment.base).collect();
            (bases, state.whole_bytes, state.end)
        };
        let before = picture(self);
        self.list()?;
        self.forget_last();
        self.catch_up()?;
        Ok(picture(self) != before)
    }

    /// Forgets what was read of the last segment, so that the next look reads all of it.
    pub(super) fn forget_last(&mut self) {
        if let Some(last) = self.segments.last_mut() {
            last.index = None;
            self.end = last.base;
        }
        (self.whole_bytes, self.seen_bytes) = (0, 0);
        self.cursors.clear();
    }

    /// A new last segment, of which `whole_bytes` are there.
    pub(super) fn begin(&mut self, base: u64, whole_bytes: u64) {
        let path = segment::path(&self.directory, base);
        self.segments.push(Segment { base, path, index: Some(Index::new()) });
        (self.whole_bytes, self.seen_bytes, self.end) = (whole_bytes, whole_bytes, base);
    }

    /// A frame of so many records was written at `position` of the last segment. A look may
    /// have found it already.
    pub(super) fn wrote(&mut self, position: u64, bytes: u64, records: u64) {
        if self.whole_bytes == position {
            self.note(self.end, position);
            self.whole_bytes += bytes;
            self.seen_bytes = self.whole_bytes;
            self.end += records;
        }
    }

    /// The last segment's file has nothing behind its whole frames any more.
    pub(super) fn cut(&mut self, whole_bytes: u64) {
        (self.whole_bytes, self.seen_bytes) = (whole_bytes, whole_bytes);
    }

    /// Bytes behind the last whole frame, which no whole frame follows.
    pub(super) fn torn_bytes(&self) -> u64 {
        self.seen_bytes - self.whole_bytes
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Forgets the first segment, which was dropped.
    pub(super) fn drop_first(&mut self) {
        let first = self.segments.remove(0);
        self.cursors.retain(|cursor| cursor.base() != first.base);
    }

    /// Keeps what somebody made out about the segment of `base`.
    pub(super) fn keep_index(&mut self, base: u64, index: Index) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.base == base) {
            segment.index.get_or_insert(index);
        }
    }

    /// Takes the cursor of the reader that stopped at `offset` of the segment of `base`.
    pub(super) fn take_cursor(&mut self, base: u64, offset: u64) -> Option<Cursor> {
        let is_it = |cursor: &Cursor| cursor.base() == base && cursor.offset() == offset;
        let place = self.cursors.iter().position(is_it)?;
        Some(self.cursors.remove(place))
    }

    /// Remembers where a reader stopped; the one that was not asked for longest is let go.
    pub(super) fn keep_cursor(&mut self, cursor: Cursor) {
        if cursor.memory_bytes() > CURSOR_BYTES_MAX || cursor.is_finished() {
            return;
        }
        if self.cursors.len() >= CURSORS_MAX {
            self.cursors.remove(0);
        }
        self.cursors.push(cursor);
    }

    /// Reads the last segment on, which has `bytes` now.
    fn read_new(&mut self, bytes: u64) -> Result<()> {
        // Behind a torn frame of the same length as before there may be a whole one by now: on
        // some file systems the length comes before the bytes.
        if bytes == self.seen_bytes && bytes == self.whole_bytes {
            return Ok(());
        }
        if bytes < self.whole_bytes {
            // An append of another process that was seen could not be flushed, and was cut away.
            self.forget_last();
        }
        let grown = bytes != self.seen_bytes;
        self.seen_bytes = bytes;
        let Some(last) = self.segments.last() else { return Ok(()) };
        let (base, path) = (last.base, last.path.clone());
        if bytes < HEADER_BYTES {
            return Ok(());
        }
        let mut from_the_header = self.whole_bytes == 0;
        loop {
            let position = self.whole_bytes.max(HEADER_BYTES);
            let mut frames = Frames::open(&path, base, position, self.end, bytes)?;
            self.whole_bytes = position;
            let what = loop {
                match frames.next()? {
                    Step::Frame(head) => {
                        self.note(head.first, self.whole_bytes);
                        self.whole_bytes = frames.position;
                        self.end = head.end();
                    }
                    Step::End => return Ok(()),
                    Step::Bad(what) => break what,
                }
            };
            // Not there yet, or what a crash left: the end. But nothing is written behind a frame
            // that is not whole, so if a whole one follows this one is damaged.
            if !grown || !frames.whole_frame_follows()? {
                return Ok(());
            }
            if from_the_header {
                return Err(frames.damaged(what));
            }
            // Or both were written since the first was looked at; then all is well on a second
            // look.
            self.forget_last();
            self.seen_bytes = bytes;
            from_the_header = true;
        }
    }

    /// Notes every frame that lies far enough behind the last noted one.
    fn note(&mut self, offset: u64, position: u64) {
        if let Some(last) = self.segments.last_mut() {
            note(last.index.get_or_insert_default(), offset, position);
        }
    }

    /// Lists the files, keeping what is known of those that are still there.
    fn list(&mut self) -> Result<()> {
        let last = self.segments.last().map(|segment| segment.base);
        let mut known = std::mem::take(&mut self.segments).into_iter().peekable();
        for base in segment::bases(&self.directory)? {
            while known.next_if(|segment| segment.base < base).is_some() {}
            let new = || Segment { base, path: segment::path(&self.directory, base), index: None };
            self.segments.push(known.next_if(|segment| segment.base == base).unwrap_or_else(new));
        }
        if self.segments.last().map(|segment| segment.base) != last {
            self.forget_last();
        }
        let segments = &self.segments;
        self.cursors.retain(|cursor| segments.iter().any(|segment| segment.base == cursor.base()));
        Ok(())
    }
}

/// The segment's index, by reading all of it.
pub(super) fn index_of(mut frames: Frames) -> Result<Index> {
    let mut index = Index::new();
    loop {
        let position = frames.position;
        match frames.next()? {
            Step::Frame(head) => note(&mut index, head.first, position),
            Step::End => return Ok(index),
            Step::Bad(what) => return Err(frames.damaged(what)),
        }
    }
}

fn note(index: &mut Index, offset: u64, position: u64) {
    if index.last().is_none_or(|(_, last)| position - last >= INDEX_EVERY_BYTES) {
        index.push((offset, position));
    }
}
