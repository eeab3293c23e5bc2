//! Collecting: lines of event files or records of the log become events, names, dead letters and
//! entries in the books. The order in which events arrive does not matter to the count.

mod files;
mod log;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uptake_connectors::log::Record;
use uptake_flow::{Batch, Flow, KeyedStream, Poll, Source, Stream};
use uptake_model::decode::{Decoder, Members, Sink};
use uptake_model::ledger::{Account, Ledger};
use uptake_model::{DimsHash, Epoch, Event, EventTime, Reason, RequestId, VideoHash};

use crate::checkpoint::{Fragment, Sections, Stage};
use crate::config::Config;
use crate::data_dir::DEAD_LETTERS;
use crate::memory::OverBudget;
use crate::stages::Arrived;
use crate::stages::outlets::{Books, Outlets};

pub use files::{LiveLines, Next, SharedFiles};
pub use log::LogInput;

/// The ledger's number for what is read from files: one partition, in the order of the files.
pub const FILES_PARTITION: u32 = 0;

/// What is read.
#[derive(Clone)]
pub enum Input {
    /// Files, or other lines, by all workers together.
    Files(Arc<SharedFiles>),
    /// Topics of the log.
    Log(Arc<LogInput>),
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

/// The events of the input by request, and the names of what they speak of.
pub fn collect<'s>(
    flow: &Flow<'s>,
    config: &Arc<Config>,
    input: &Input,
    outlets: &Outlets,
) -> (KeyedStream<'s, RequestId, Arrived>, Stream<'s, Name>) {
    let names = Rc::new(RefCell::new(Vec::new()));
    let ended = Rc::new(Cell::new(false));
    let reader = Reader::new(flow, config, outlets, &names, &ended);
    let events = match input {
        Input::Files(files) => flow.source(files::FileSource::new(Arc::clone(files), reader)),
        Input::Log(input) => {
            let log = Arc::clone(&outlets.log);
            flow.source(log::LogSource::new(log, input, flow.worker(), flow.workers(), reader))
        }
    };
    (events.keyed(), flow.source(NameSource { names, ended }))
}

/// What every source does with what it has read: it decodes, keeps what cannot be used, and
/// keeps the books.
struct Reader {
    config: Arc<Config>,
    decoder: Decoder,
    worker: usize,
    workers: usize,
    /// The running batch, and how many records this worker may still add to it.
    batch: (Option<u64>, usize),
    names: Rc<RefCell<Vec<(EventTime, Name)>>>,
    dead: Vec<Record>,
    outlets: Outlets,
    books: Books,
    ended: Rc<Cell<bool>>,
    /// The first epoch whose names the decoder remembers.
    sealed_before: Epoch,
    /// Records since the checkpoint before.
    since_checkpoint: usize,
}

/// Dead letters that wait to be written together, in bytes. With the longest line that a block
/// may hold it stays far below the longest append.
const DEAD_BYTES_MAX: usize = 8 << 20;

/// Where the lines of a block come from.
#[derive(Clone, Copy)]
struct Origin<'a> {
    /// The file or topic.
    source: &'a str,
    /// The partition of the topic.
    partition: u32,
    /// The line or offset of the first line.
    first: u64,
    /// All lines are of one record, the first.
    of_one_record: bool,
}

impl Origin<'_> {
    fn offset(&self, line: u64) -> u64 {
        if self.of_one_record { self.first } else { self.first + line }
    }
}

impl Reader {
    fn new(
        flow: &Flow<'_>,
        config: &Arc<Config>,
        outlets: &Outlets,
        names: &Rc<RefCell<Vec<(EventTime, Name)>>>,
        ended: &Rc<Cell<bool>>,
    ) -> Self {
        let members = match (config.member_epoch_events_max, config.counts_members) {
            (Some(_), _) => Members::All,
            (None, true) => Members::OfPlays,
            (None, false) => Members::None,
        };
        Self {
            decoder: Decoder::new(
                Arc::clone(&config.decode),
                &config.segments,
                &config.filters,
                config.epoch,
                members,
            ),
            config: Arc::clone(config),
            worker: flow.worker(),
            workers: flow.workers(),
            batch: (None, 0),
            names: Rc::clone(names),
            dead: Vec::new(),
            outlets: outlets.clone(),
            books: outlets.books(),
            ended: Rc::clone(ended),
            sealed_before: Epoch(i64::MIN),
            since_checkpoint: 0,
        }
    }

    /// How many records this worker may still add to the batch: the batch's size divided, the
    /// remainder going round.
    fn room(&mut self, batch: &Batch<'_, (RequestId, Arrived)>) -> usize {
        let number = batch.number();
        if self.batch.0 != Some(number) {
            self.forget_names(batch.watermark());
            let (each, rest) =
                (self.config.batch_events_max / self.workers, self.config.batch_events_max % self.workers);
            let goes_round = ((self.worker as u64 + number) % self.workers as u64) < rest as u64;
            self.batch = (Some(number), each + usize::from(goes_round));
        }
        self.batch.1
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

    /// Whether the outputs must catch up, or something leave memory, before more is read.
    ///
    /// # Errors
    /// There is no memory left.
    fn is_held_up(&self) -> Result<bool, OverBudget> {
        Ok(self.outlets.memory.is_tight()? || self.outlets.outputs.are_behind())
    }

    fn takes_checkpoints(&self) -> bool {
        self.outlets.checkpoints.is_some()
    }

    fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Decodes a block of lines; returns the newest event time in it.
    fn decode(
        &mut self,
        batch: &mut Batch<'_, (RequestId, Arrived)>,
        partition: u32,
        lines: &[u8],
        arrived: EventTime,
        place: Origin<'_>,
    ) -> Option<EventTime> {
        let mut intake = Intake {
            batch,
            place,
            workers: self.workers,
            names: &mut self.names.borrow_mut(),
            dead: &mut self.dead,
            account: self.books.ledger.account(partition),
            newest: EventTime::MIN,
        };
        self.decoder.decode_block(lines, arrived, partition, &mut intake);
        let newest = intake.newest;
        (newest > EventTime::MIN).then_some(newest)
    }

    /// Keeps a record that the decoder never saw.
    fn dead(&mut self, partition: u32, place: Origin<'_>, line: u64, reason: Reason, bytes: &[u8]) {
        let account = self.books.ledger.account(partition);
        account.read += 1;
        account.add_dead(reason);
        self.dead.push(dead_letter(place, line, reason, bytes));
    }

    /// Says how many records were added to the batch.
    fn took(&mut self, records: usize) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.batch.1 = self.batch.1.saturating_sub(records);
        self.since_checkpoint += records;
        let events_max = self.config.checkpoint_events_max.min(self.outlets.memory.checkpoint_events_max());
        if self.since_checkpoint > events_max
            && let Some(checkpoints) = &self.outlets.checkpoints
        {
            checkpoints.hurry();
        }
        let dead_bytes: usize = self.dead.iter().map(|record| record.value.len()).sum();
        if dead_bytes > DEAD_BYTES_MAX { self.write_dead_letters() } else { Ok(()) }
    }

    fn write_dead_letters(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        if !self.dead.is_empty() {
            let now = self.outlets.clock.now();
            self.outlets.log.append(DEAD_LETTERS, 0, &self.dead, now.0)?;
            self.dead.clear();
        }
        Ok(())
    }

    /// Nothing more is added to the running batch.
    fn end_batch(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.books.publish();
        self.write_dead_letters()
    }

    /// Nothing more will be read at all.
    fn end(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.ended.set(true);
        self.end_batch()
    }

    /// Hands in this source's part of a checkpoint.
    fn submit(&mut self, number: u64, ledger: Ledger, input: Fragment) {
        self.since_checkpoint = 0;
        self.outlets.submit(number, self.worker, Stage::Collect, Sections::default(), ledger, input);
    }
}

fn dead_letter(place: Origin<'_>, line: u64, reason: Reason, bytes: &[u8]) -> Record {
    let (source, partition) = (place.source.to_owned(), place.partition);
    let key = DeadLetterKey { reason, source, partition, offset: place.offset(line) };
    // Four plain fields always serialise.
    Record::new(serde_json::to_vec(&key).unwrap_or_default(), bytes)
}

/// Takes what one block decodes to.
struct Intake<'a, 'b> {
    batch: &'a mut Batch<'b, (RequestId, Arrived)>,
    place: Origin<'a>,
    workers: usize,
    names: &'a mut Vec<(EventTime, Name)>,
    dead: &'a mut Vec<Record>,
    account: &'a mut Account,
    newest: EventTime,
}

/// What the log keeps of a dead letter beside its original bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct DeadLetterKey {
    /// Why it could not be used.
    pub reason: Reason,
    /// The file or topic.
    pub source: String,
    /// The partition of the topic; 0 for a file.
    #[serde(default)]
    pub partition: u32,
    /// The line or offset there, from 0.
    pub offset: u64,
}

impl Sink for Intake<'_, '_> {
    #[inline(always)]
    fn event(&mut self, event: Event) {
        self.account.read += 1;
        self.newest = self.newest.max(event.time);
        self.batch.push(event.time, (event.request, Arrived::of(&event)));
    }

    fn dead(&mut self, line: usize, reason: Reason, bytes: &[u8]) {
        self.account.read += 1;
        self.account.add_dead(reason);
        self.dead.push(dead_letter(self.place, line as u64, reason, bytes));
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
    /// What was told is told again after a restart.
    type Position = ();

    fn position(&self) {}

    fn poll(&mut self, batch: &mut Batch<'_, Name>) -> Result<Poll, Box<dyn Error + Send + Sync>> {
        self.names.borrow_mut().drain(..).for_each(|(time, name)| batch.push(time, name));
        Ok(if self.ended.get() { Poll::End } else { Poll::Idle })
    }
}
