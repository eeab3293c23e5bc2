//! Event files as a source: all workers read one sequence of files, a block at a time in turn, so
//! that a single large file is decoded by all of them.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uptake_connectors::InputError;
use uptake_connectors::input::{Block, EventFiles};
use uptake_flow::{Batch, Poll, Source};
use uptake_model::ledger::Ledger;
use uptake_model::{Reason, RequestId};

use super::{FILES_PARTITION, Origin, Reader};
use crate::checkpoint::Fragment;
use crate::stages::Arrived;

/// The files, or other lines, that the workers of a run read together.
pub struct SharedFiles(Mutex<Shared>);

struct Shared {
    lines: Lines,
    /// The number of the next block, in the order of the lines.
    next_block: u64,
    /// Why some files were not read to their end. What was read of them counts all the same, and so do the others.
    failed: Vec<InputError>,
}

enum Lines {
    Files(Box<EventFiles>),
    Live(Box<dyn LiveLines>),
}

/// Lines that come at a pace of their own.
pub trait LiveLines: Send {
    /// Replaces what is in `block` by the next lines, at most `lines_max` of them.
    ///
    /// # Errors
    /// They cannot be read.
    fn next_block(&mut self, lines_max: usize, block: &mut Block) -> Result<Next, InputError>;
}

/// What came of asking for lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// There are some in the block.
    Lines,
    /// There are none yet.
    NotYet,
    /// There will be no more.
    End,
}

impl SharedFiles {
    /// To be read by all workers.
    pub fn new(files: EventFiles) -> Self {
        Self::of(Lines::Files(Box::new(files)))
    }

    /// Lines that come at a pace of their own, to be read by all workers.
    pub fn live(lines: impl LiveLines + 'static) -> Self {
        Self::of(Lines::Live(Box::new(lines)))
    }

    fn of(lines: Lines) -> Self {
        Self(Mutex::new(Shared { lines, next_block: 0, failed: Vec::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes of the files have been read, and how many there are.
    pub fn progress(&self) -> (u64, u64) {
        match &self.lock().lines {
            Lines::Files(files) => (files.bytes_done(), files.total_bytes()),
            Lines::Live(_) => (0, 0),
        }
    }

    /// Why files were not read to their end: of each that was not.
    pub fn take_errors(&self) -> Vec<InputError> {
        std::mem::take(&mut self.lock().failed)
    }

    /// The next lines, and the number of their block.
    fn next_block(&self, lines_max: usize, block: &mut Block) -> (Next, u64) {
        let shared = &mut *self.lock();
        let next = match &mut shared.lines {
            Lines::Files(files) => match files.next_readable_block(lines_max, block, &mut shared.failed) {
                true => Next::Lines,
                false => Next::End,
            },
            Lines::Live(_) if !shared.failed.is_empty() => Next::End,
            Lines::Live(lines) => lines.next_block(lines_max, block).unwrap_or_else(|error| {
                shared.failed.push(error);
                Next::End
            }),
        };
        let number = shared.next_block;
        shared.next_block += u64::from(next == Next::Lines);
        (next, number)
    }
}

/// One worker's part of reading the files.
pub(super) struct FileSource {
    files: Arc<SharedFiles>,
    reader: Reader,
    block: Block,
    /// The blocks read since the checkpoint before: number, file, first line, number of lines.
    read: Vec<(u64, usize, u64, u64)>,
    /// How many blocks were read before those.
    dropped: usize,
}

impl FileSource {
    pub(super) fn new(files: Arc<SharedFiles>, reader: Reader) -> Self {
        Self { files, reader, block: Block::default(), read: Vec::new(), dropped: 0 }
    }
}

impl Source<(RequestId, Arrived)> for FileSource {
    /// How many blocks were read, and the books.
    type Position = (usize, Ledger);

    fn position(&self) -> Self::Position {
        (self.dropped + self.read.len(), self.reader.books.ledger.clone())
    }

    fn checkpoint(&mut self, number: u64, (blocks, ledger): Self::Position) {
        let read = self.read.drain(..blocks - self.dropped).collect();
        self.dropped = blocks;
        self.reader.submit(number, ledger, Fragment::Files(read));
    }

    fn poll(
        &mut self,
        batch: &mut Batch<'_, (RequestId, Arrived)>,
    ) -> Result<Poll, Box<dyn Error + Send + Sync>> {
        if self.reader.has_ended() {
            return Ok(Poll::End);
        }
        let left = self.reader.room(batch);
        if left == 0 || self.reader.is_held_up()? {
            self.reader.end_batch()?;
            return Ok(if left == 0 { Poll::Full } else { Poll::Idle });
        }
        let (next, number) = self.files.next_block(left, &mut self.block);
        match next {
            Next::Lines => {}
            Next::NotYet => {
                self.reader.end_batch()?;
                return Ok(Poll::Idle);
            }
            Next::End => {
                batch.progress(FILES_PARTITION, None, true);
                self.reader.end()?;
                return Ok(Poll::End);
            }
        }
        let block = &self.block;
        let place =
            Origin { source: &block.file, partition: 0, first: block.first_line, of_one_record: false };
        let now = self.reader.outlets.clock.now();
        let newest = self.reader.decode(batch, FILES_PARTITION, &block.bytes, now, place);
        for long in &block.oversized {
            self.reader.dead(
                FILES_PARTITION,
                place,
                long.line - block.first_line,
                Reason::TooLong,
                &long.head,
            );
        }
        batch.progress_of_piece(FILES_PARTITION, number, newest);
        if self.reader.takes_checkpoints() {
            self.read.push((number, block.file_index, block.first_line, block.lines as u64));
        }
        self.reader.took(block.lines)?;
        Ok(Poll::Again)
    }
}
