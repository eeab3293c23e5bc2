//! Collecting: blocks of event files become events, names, dead letters and entries in the books.
//!
//! All workers read one sequence of files, a block at a time in turn, so that a single large file
//! is decoded by all of them. The order in which events arrive does not matter to the count.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use uptake_connectors::InputError;
use uptake_connectors::input::{Block, EventFiles};
use uptake_connectors::log::Record;
use uptake_flow::{Batch, Flow, KeyedStream, Poll, Source, Stream};
use uptake_model::decode::{Decoder, Sink};
use uptake_model::ledger::Account;
use uptake_model::{DimsHash, Epoch, Event, EventTime, Reason, RequestId, VideoHash};

use crate::config::Config;
use crate::data_dir::{DEAD_LETTERS, now};
use crate::pipeline::Books;
use crate::stages::aggregate::Outlets;

/// The ledger's number for what is read from files: one partition, in the order of the files.
pub const FILES_PARTITION: u32 = 0;

/// The files, or other lines, that the workers of a run read together.
pub struct SharedFiles(Mutex<Shared>);

struct Shared {
    lines: Lines,
    /// The number of the next block, in the order of the lines.
    next_block: u64,
    /// Why reading ended early. What was read before is counted all the same.
    failed: Option<InputError>,
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
        Self(Mutex::new(Shared { lines, next_block: 0, failed: None }))
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

    /// Why reading ended before the end, if it did.
    pub fn take_error(&self) -> Option<InputError> {
        self.lock().failed.take()
    }

    /// The next lines, and the number of their block.
    fn next_block(&self, lines_max: usize, block: &mut Block) -> (Next, u64) {
        let shared = &mut *self.lock();
        if shared.failed.is_some() {
            return (Next::End, shared.next_block);
        }
        let next = match &mut shared.lines {
            Lines::Files(files) => {
                files.next_block(lines_max, block).map(|more| if more { Next::Lines } else { Next::End })
            }
            Lines::Live(lines) => lines.next_block(lines_max, block),
        };
        let number = shared.next_block;
        let next = next.unwrap_or_else(|error| {
            shared.failed = Some(error);
            Next::End
        });
        shared.next_block += u64::from(next == Next::Lines);
        (next, number)
    }
}

/// The text behind a hash, told before the first event of an epoch that uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Name {
    /// A video.
    Video {
        /// Its hash.
        video: VideoHash,
        /// Its id.
        id: Arc<str>,
        /// The epoch of the event.
        epoch: Epoch,
    },
    /// The values of the dimensions, for one worker; every worker is told.
    Dims {
        /// Their hash.
        dims: DimsHash,
        /// The values.
        values: Vec<String>,
        /// The epoch of the event.
        epoch: Epoch,
        /// Which worker.
        worker: usize,
    },
}

/// The events of the files by request, and the names of what they speak of.
pub fn from_files<'s>(
    flow: &Flow<'s>,
    config: &Arc<Config>,
    files: &Arc<SharedFiles>,
    outlets: &Outlets,
    books: &Books,
) -> (KeyedStream<'s, RequestId, Event>, Stream<'s, Name>) {
    let names = Rc::new(RefCell::new(Vec::new()));
    let ended = Rc::new(Cell::new(false));
    let keep_member = config.member_epoch_events_max.is_some();
    let events = FileSource {
        files: Arc::clone(files),
        config: Arc::clone(config),
        decoder: Decoder::new(
            Arc::clone(&config.decode),
            &config.segments,
            &config.filters,
            config.epoch,
            keep_member,
        ),
        block: Block::default(),
        worker: flow.worker(),
        workers: flow.workers(),
        batch: None,
        names: Rc::clone(&names),
        dead: Vec::new(),
        outlets: outlets.clone(),
        books: Rc::clone(books),
        ended: Rc::clone(&ended),
        sealed_before: Epoch(i64::MIN),
    };
    let events = flow.source(events).keyed();
    (events, flow.source(NameSource { names, ended }))
}

struct FileSource {
    files: Arc<SharedFiles>,
    config: Arc<Config>,
    decoder: Decoder,
    block: Block,
    worker: usize,
    workers: usize,
    /// The running batch, and how many records this worker may still add to it.
    batch: Option<(u64, usize)>,
    names: Rc<RefCell<Vec<(EventTime, Name)>>>,
    dead: Vec<Record>,
    outlets: Outlets,
    books: Books,
    ended: Rc<Cell<bool>>,
    /// The first epoch whose names the decoder remembers.
    sealed_before: Epoch,
}

/// Dead letters that wait to be written together, in bytes. With the longest line that a block
/// may hold it stays far below the longest append.
const DEAD_BYTES_MAX: usize = 8 << 20;

impl FileSource {
    /// This worker's part of a batch: the batch's size divided, the remainder going round.
    fn share(&self, batch: u64) -> usize {
        let (each, rest) =
            (self.config.batch_events_max / self.workers, self.config.batch_events_max % self.workers);
        each + usize::from(((self.worker as u64 + batch) % self.workers as u64) < rest as u64)
    }

    /// Names of sealed epochs are told again if they come again; see the aggregate, which forgets
    /// them later than this.
    fn forget_names(&mut self, watermark: EventTime) {
        let sealed = self.config.sealed_before(watermark);
        if sealed > self.sealed_before {
            self.sealed_before = sealed;
            self.decoder.forget_before(sealed);
        }
    }

    fn dead_bytes(&self) -> usize {
        self.dead.iter().map(|record| record.value.len()).sum()
    }

    fn write_dead_letters(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        if !self.dead.is_empty() {
            self.outlets.log.append(DEAD_LETTERS, 0, &self.dead, now().0)?;
            self.dead.clear();
        }
        Ok(())
    }
}

impl Source<(RequestId, Event)> for FileSource {
    fn poll(
        &mut self,
        batch: &mut Batch<'_, (RequestId, Event)>,
    ) -> Result<Poll, Box<dyn Error + Send + Sync>> {
        if self.ended.get() {
            return Ok(Poll::End);
        }
        let left = match self.batch {
            Some((number, left)) if number == batch.number() => left,
            _ => {
                self.forget_names(batch.watermark());
                self.share(batch.number())
            }
        };
        if left == 0 {
            self.write_dead_letters()?;
            return Ok(Poll::Full);
        }
        let (next, number) = self.files.next_block(left, &mut self.block);
        if next != Next::Lines || self.dead_bytes() > DEAD_BYTES_MAX {
            self.write_dead_letters()?;
        }
        match next {
            Next::Lines => {}
            Next::NotYet => return Ok(Poll::Idle),
            Next::End => {
                batch.progress(FILES_PARTITION, None, true);
                self.ended.set(true);
                return Ok(Poll::End);
            }
        }
        let mut books = self.books.borrow_mut();
        let mut intake = Intake {
            batch,
            block: &self.block,
            workers: self.workers,
            names: &mut self.names.borrow_mut(),
            dead: &mut self.dead,
            account: books.account(FILES_PARTITION),
            newest: EventTime::MIN,
        };
        self.decoder.decode_block(&self.block.bytes, now(), FILES_PARTITION, &mut intake);
        for long in &self.block.oversized {
            let line = (long.line - self.block.first_line) as usize;
            intake.dead(line, Reason::TooLong, &long.head);
        }
        let newest = intake.newest;
        batch.progress_of_piece(FILES_PARTITION, number, (newest > EventTime::MIN).then_some(newest));
        self.batch = Some((batch.number(), left.saturating_sub(self.block.lines)));
        drop(books);
        Ok(Poll::Again)
    }
}

/// Takes what one block decodes to.
struct Intake<'a, 'b> {
    batch: &'a mut Batch<'b, (RequestId, Event)>,
    block: &'a Block,
    workers: usize,
    names: &'a mut Vec<(EventTime, Name)>,
    dead: &'a mut Vec<Record>,
    account: &'a mut Account,
    newest: EventTime,
}

/// What the log keeps of a dead letter beside its original bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeadLetterKey {
    /// Why it could not be used.
    pub reason: Reason,
    /// The file or topic.
    pub source: String,
    /// The line or offset there, from 0.
    pub offset: u64,
}

impl Sink for Intake<'_, '_> {
    #[inline]
    fn event(&mut self, event: Event) {
        self.account.read += 1;
        self.newest = self.newest.max(event.time);
        self.batch.push(event.time, (event.request, event));
    }

    fn dead(&mut self, line: usize, reason: Reason, bytes: &[u8]) {
        self.account.read += 1;
        self.account.add_dead(reason);
        let offset = self.block.first_line + line as u64;
        let key = DeadLetterKey { reason, source: self.block.file.to_string(), offset };
        // Three plain fields always serialise.
        self.dead.push(Record::new(serde_json::to_vec(&key).unwrap_or_default(), bytes));
    }

    fn filtered(&mut self, rule: usize) {
        self.account.read += 1;
        self.account.add_filtered(rule);
    }

    fn blank(&mut self) {
        self.account.blank += 1;
    }

    fn video(&mut self, video: VideoHash, id: &str, epoch: Epoch) {
        self.names.push((EventTime::MIN, Name::Video { video, id: id.into(), epoch }));
    }

    fn dims(&mut self, dims: DimsHash, values: &[&str], epoch: Epoch) {
        for worker in 0..self.workers {
            let values = values.iter().map(|&v| v.to_owned()).collect();
            self.names.push((EventTime::MIN, Name::Dims { dims, values, epoch, worker }));
        }
    }
}

/// Sends on, in the same batch, the names that the events' source came upon. It must be added to
/// the flow after that one.
struct NameSource {
    names: Rc<RefCell<Vec<(EventTime, Name)>>>,
    ended: Rc<Cell<bool>>,
}

impl Source<Name> for NameSource {
    fn poll(&mut self, batch: &mut Batch<'_, Name>) -> Result<Poll, Box<dyn Error + Send + Sync>> {
        self.names.borrow_mut().drain(..).for_each(|(time, name)| batch.push(time, name));
        Ok(if self.ended.get() { Poll::End } else { Poll::Idle })
    }
}
