//! Where records come from: a source fills one batch after another and says how far it has come.

use uptake_model::EventTime;

use crate::stream::Record;

/// What a source says after it was asked for records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Poll {
    /// There is more for this batch: ask again at once. A source returns this after a small piece
    /// of work, so that the records move on while they are in the processor's cache.
    Again,
    /// This batch is full; there is more to read.
    Full,
    /// Everything there is has been read; more may come.
    Idle,
    /// Nothing will ever come again. Its partitions must have been said to be idle.
    End,
}

/// A part of the input that one worker reads. Each worker builds its own.
pub trait Source<D> {
    /// How far this source has read, with all that a restart needs to go on from there; `()` for
    /// a source that is never restarted.
    type Position: Clone + 'static;

    /// Where it stands: asked when a batch has been filled.
    fn position(&self) -> Self::Position;

    /// A checkpoint is being taken: `position` is where this source stood at the end of the
    /// checkpoint's batch, which may be some batches ago.
    fn checkpoint(&mut self, _number: u64, _position: Self::Position) {}

    /// Adds records to `batch`. Called again for the same batch after [`Poll::Again`].
    ///
    /// # Errors
    /// An error stops the whole run; a source tries again by itself what is worth trying again.
    fn poll(&mut self, batch: &mut Batch<'_, D>) -> Result<Poll, Box<dyn std::error::Error + Send + Sync>>;
}

/// How far a partition has been read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Progress {
    pub(crate) source: u32,
    pub(crate) partition: u32,
    /// The number of the piece in the partition's order, where readers share it.
    pub(crate) piece: Option<u64>,
    pub(crate) newest: Option<EventTime>,
    pub(crate) idle: bool,
}

impl Progress {
    /// No partition has come any further.
    pub(crate) const NOTHING: Self =
        Self { source: u32::MAX, partition: 0, piece: None, newest: None, idle: true };
    /// This worker stops here although there is more to read; so shall all others.
    pub(crate) const HALT: Self = Self { partition: 1, ..Self::NOTHING };
}

/// The batch that a source is filling.
pub struct Batch<'a, D> {
    pub(crate) number: u64,
    pub(crate) source: u32,
    pub(crate) watermark: EventTime,
    pub(crate) records: &'a mut Vec<Record<D>>,
    pub(crate) progress: &'a mut Vec<Progress>,
}

impl<D> Batch<'_, D> {
    /// The batch's number, from 0.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The watermark as far as this worker knows it; it may be some batches old.
    pub fn watermark(&self) -> EventTime {
        self.watermark
    }

    /// Adds a record that happened at `time`.
    #[inline]
    pub fn push(&mut self, time: EventTime, value: D) {
        self.records.push(Record { time, value });
    }

    /// Says how far a partition has come: the newest event time among the records just added
    /// (`None` if none), and whether it has been read to its end, as the log itself tells. An
    /// idle partition does not hold the watermark back.
    pub fn progress(&mut self, partition: u32, newest: Option<EventTime>, idle: bool) {
        self.progress.push(Progress { source: self.source, partition, piece: None, newest, idle });
    }

    /// Says that a piece of a partition was read which several workers share: its number, from 0
    /// in the partition's order, and the newest event time in it. However far one reader is
    /// ahead, the watermark follows the pieces in order.
    pub fn progress_of_piece(&mut self, partition: u32, piece: u64, newest: Option<EventTime>) {
        let source = self.source;
        self.progress.push(Progress { source, partition, piece: Some(piece), newest, idle: false });
    }
}

/// Batches given beforehand, for tests and examples: worker 0 reads them all.
///
/// All of them are one partition; batches may be empty.
#[derive(Debug)]
pub struct Batches<D> {
    batches: std::vec::IntoIter<Vec<(EventTime, D)>>,
}

impl<D> Batches<D> {
    /// The `batches` if `worker` is worker 0, nothing for the others.
    pub fn new(worker: usize, batches: Vec<Vec<(EventTime, D)>>) -> Self {
        Self { batches: if worker == 0 { batches } else { Vec::new() }.into_iter() }
    }
}

impl<D> Source<D> for Batches<D> {
    type Position = ();

    fn position(&self) {}

    fn poll(&mut self, batch: &mut Batch<'_, D>) -> Result<Poll, Box<dyn std::error::Error + Send + Sync>> {
        let Some(records) = self.batches.next() else {
            batch.progress(0, None, true);
            return Ok(Poll::End);
        };
        let newest = records.iter().map(|(time, _)| *time).max();
        records.into_iter().for_each(|(time, value)| batch.push(time, value));
        batch.progress(0, newest, false);
        Ok(Poll::Full)
    }
}
